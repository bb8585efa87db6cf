from .blocks import Blocks
from .casefolder import read_case
from .clearing import Clearing, clear
from .client import Bid, Client
from .errors import DlmpError, InfeasibleError, InputError, PowerFlowError, SolverError
from .fleet import clear_fleet
from .market import Horizon, MarketCase, Substation
from .network import Network
from .penalties import Penalties, Tier
from .rolling import RollingDay, reclear
from .services import Requirements, ServiceOffers, behind_branch, everywhere, in_zone
from .settings import Settings
from .settlement import Correction, CostRecovery, Settlement, correct, settle
from .shipped import shipped_case

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
    "clear_fleet",
    "correct",
    "everywhere",
    "in_zone",
    "read_case",
    "reclear",
    "settle",
    "shipped_case",
]
