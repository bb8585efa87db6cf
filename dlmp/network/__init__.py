"""Networks: the frozen record and its importers."""

from dlmp.network.model import Network
from dlmp.network.sources import read_network

__all__ = ["Network", "read_network"]
