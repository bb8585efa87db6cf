"""Other programs that solve the same market case, each in a module of its own and loaded when it is asked.

A peer's module has ``solve(case, settings) -> Outcome`` and ``CANNOT``, what it cannot express of our cases.
"""

import importlib
from collections.abc import Callable
from types import ModuleType

from benchmarks.peers.outcome import NotExpressible, Outcome

MODULES = {
    "pandapower": "pandapower_opf",
    "PyPSA": "pypsa_losses",
    "AC-OPF": "acopf_ipopt",
    "LP": "whole_lp",
}
"""Module of each peer; DistOPF, which solves its own cases, stands apart in `benchmarks.peers.distopf_own`."""

Solve = Callable[..., Outcome]

__all__ = ["MODULES", "NotExpressible", "Outcome", "peer_module"]


def peer_module(name: str) -> ModuleType:
    """Load a peer.

    Raises
    ------
    ModuleNotFoundError
        Where what it needs is not installed.
    """
    return importlib.import_module(f"benchmarks.peers.{MODULES[name]}")
