"""The one boundary between physical units and the per unit of the network and the LP.

Power in pu is power over ``BASE_KVA``.  The LP minimises ``price [currency/MWh] x power [pu]``,
so that the dual of a power balance in pu *is* a price in currency per MWh, whatever the base and
the length of the interval; only money needs them (`money_per_price_pu`).
"""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

FloatOrArray = TypeVar("FloatOrArray", float, npt.NDArray[np.float64])

BASE_KVA = 100.0
"""Power base of every network [kVA]: resources of a distribution feeder are then about 1 pu,
which is where HiGHS's absolute tolerances are meant to be used."""

KW_PER_MW = 1000.0

LARGEST_PRICE = 1e9
"""Largest price that may be given, in size [currency/MWh] and the like.

Far above any that is meant; the solvers' relative digits still tell what is offered at ordinary prices beside it.
"""
PRICE_REMEDY = "must be finite and at most 1e9 in size"


def is_price(value: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """True for numbers that may be prices."""
    return np.isfinite(value) & (np.abs(value) <= LARGEST_PRICE)


def money_per_price_pu(interval_hours: float) -> float:
    """Currency per (currency/MWh x pu) held for one interval of `interval_hours`."""
    return interval_hours * BASE_KVA / KW_PER_MW


def base_ohm(base_kv: FloatOrArray) -> FloatOrArray:
    """Impedance of 1 pu [ohm] at line-to-line voltage `base_kv` [kV]."""
    return base_kv**2 * 1000.0 / BASE_KVA


def base_current_a(base_kv: FloatOrArray) -> FloatOrArray:
    """Current of 1 pu [A] in each phase of a three-phase system at `base_kv` [kV] line to line."""
    return BASE_KVA / (3.0**0.5 * base_kv)


def base_phase_current_a(base_kv: FloatOrArray) -> FloatOrArray:
    """Current of 1 pu [A] in one phase at `base_kv` [kV] line to neutral."""
    return BASE_KVA / base_kv
