"""OpenDSS circuits as unbalanced networks; the engine comes with ``OpenDSSDirect.py``."""

from dlmp.network.opendss.build import from_opendss

__all__ = ["from_opendss"]
