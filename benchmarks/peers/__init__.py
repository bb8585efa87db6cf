"""Other programs that solve the same market case, each in a module of its own and loaded when it is asked.

A peer's module has ``solve(case, settings) -> Outcome``, which raises `NotExpressible` for a case beyond it.
"""

import importlib
from types import ModuleType

from benchmarks.peers.outcome import NotExpressible, Outcome

OWN = "DistOPF"
"""The peer that solves cases of its own: `benchmarks.peers.distopf_own`."""

MODULES = {
    "pandapower": "pandapower_opf",
    "PyPSA": "pypsa_losses",
    "AC-OPF": "acopf_ipopt",
    "LP": "whole_lp",
}
"""Module of every other peer."""

CANNOT = {
    "pandapower": "balanced feeders only, no stores or services; no circles of inverters, and a rating limits apparent "
    "power where ours may limit the current. `runopp` clears interval by interval",
    "PyPSA": "balanced feeders only; no voltages or their limits, no reactive power, no taps or shunts. Losses are "
    "piecewise linear at nominal voltage, and prices are those of that problem",
    "AC-OPF": "no services, no blocks, no soft limits; intervals one by one unless stores couple them. casadi and "
    "IPOPT, as in the tests",
    "LP": "no soft limits. It is `lindistflow` with every state and every limit written down, all intervals in one "
    "model, through Pyomo's `SolverFactory`: the same linear problem as ours beside it",
    OWN: "solves its own case of the feeder, with its own DER and loads: one interval, least loss, no bids, no prices, "
    "within 0.8 to 1.2 pu. The engine's figures beside it are those of more work",
}
"""What each peer does not express of our cases."""

__all__ = ["CANNOT", "MODULES", "OWN", "NotExpressible", "Outcome", "peer_module"]


def peer_module(name: str) -> ModuleType:
    """Load a peer.

    Raises
    ------
    ModuleNotFoundError
        Where what it needs is not installed.
    """
    return importlib.import_module(f"benchmarks.peers.{MODULES[name]}")
