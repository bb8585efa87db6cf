"""Networks: the frozen record and its importers."""

from dlmp.network.model import BalancedNetwork, Network, UnbalancedNetwork
from dlmp.network.sources import read_network

__all__ = ["BalancedNetwork", "Network", "UnbalancedNetwork", "read_network"]
