"""Clear a market on a distribution feeder into AC-true, explained nodal prices.

>>> import dlmp
>>> clearing = dlmp.clear(dlmp.read_case(dlmp.shipped_case("feeder33")))
>>> clearing.status
'converged'
"""

from importlib import import_module
from typing import Any

from dlmp.blocks import Blocks
from dlmp.casefolder import read_case
from dlmp.clearing import Clearing, clear
from dlmp.errors import DlmpError, InfeasibleError, InputError, PowerFlowError, SolverError
from dlmp.market import Horizon, MarketCase, Substation
from dlmp.network import Network
from dlmp.penalties import Penalties, Tier
from dlmp.rolling import RollingDay, reclear
from dlmp.services import Requirements, ServiceOffers, behind_branch, everywhere, in_zone
from dlmp.settings import Settings
from dlmp.settlement import Correction, CostRecovery, Settlement, correct, settle
from dlmp.shipped import shipped_case

__all__ = [
    "Bid",
    "Blocks",
    "Clearing",
    "Client",
    "Correction",
    "CostRecovery",
    "DlmpError",
    "Horizon",
    "InfeasibleError",
    "InputError",
    "MarketCase",
    "Network",
    "Penalties",
    "PowerFlowError",
    "Requirements",
    "RollingDay",
    "ServiceOffers",
    "Settings",
    "Settlement",
    "SolverError",
    "Substation",
    "Tier",
    "behind_branch",
    "clear",
    "correct",
    "everywhere",
    "in_zone",
    "read_case",
    "reclear",
    "settle",
    "shipped_case",
]

_OF_THE_CLIENT = ("Bid", "Client")
"""Found when they are asked for: a clearing needs no HTTP."""


def __getattr__(name: str) -> Any:
    if name in _OF_THE_CLIENT:
        return getattr(import_module("dlmp.client"), name)
    raise AttributeError(f"module 'dlmp' has no attribute {name!r}")
