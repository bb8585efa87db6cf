"""Clear a market on a distribution feeder into AC-true, explained nodal prices.

>>> import dlmp
>>> sorted(name for name in dlmp.__all__ if name.startswith("c"))
['clear']
"""

from dlmp.clearing import Clearing, clear
from dlmp.errors import DlmpError, InfeasibleError, InputError, PowerFlowError, SolverError
from dlmp.market import Horizon, MarketCase, Substation
from dlmp.network import Network
from dlmp.settings import Settings

__all__ = [
    "Clearing",
    "DlmpError",
    "Horizon",
    "InfeasibleError",
    "InputError",
    "MarketCase",
    "Network",
    "PowerFlowError",
    "Settings",
    "SolverError",
    "Substation",
    "clear",
]
