"""Clear a market on a distribution feeder into AC-true, explained nodal prices.

>>> import dlmp
>>> clearing = dlmp.clear(dlmp.read_case(dlmp.shipped_case("feeder33")))
>>> clearing.status
'converged'
"""

from dlmp.casefolder import read_case
from dlmp.clearing import Clearing, clear
from dlmp.errors import DlmpError, InfeasibleError, InputError, PowerFlowError, SolverError
from dlmp.market import Horizon, MarketCase, Substation
from dlmp.network import Network
from dlmp.penalties import Penalties, Tier
from dlmp.settings import Settings
from dlmp.shipped import shipped_case

__all__ = [
    "Clearing",
    "DlmpError",
    "Horizon",
    "InfeasibleError",
    "InputError",
    "MarketCase",
    "Network",
    "Penalties",
    "PowerFlowError",
    "Settings",
    "SolverError",
    "Substation",
    "Tier",
    "clear",
    "read_case",
    "shipped_case",
]
