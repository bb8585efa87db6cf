"""Are the prices of a clearing the only ones that support it?

The multipliers that meet the optimality conditions at the cleared point form a polyhedron (`dlmp.supporting`), a
single point where the binding gradients are independent.  Where they are not, linear programmes look for its extent:
along a direction that has no special relation to the network and along the mean price, to find where prices differ
most; then along the price there, for its two ends.
"""

from dataclasses import dataclass

import numpy as np

from dlmp.dispatch import Dispatch
from dlmp.network.model import FloatArray, IntArray
from dlmp.prices import Prices
from dlmp.supporting import FARTHEST, MARKET, DualChanges

DIFFERENT_USD_PER_MWH = 1e-3
"""Prices that differ by less count as the same."""


@dataclass(frozen=True)
class PriceRange:
    """An interval whose prices are not unique, and the range at the node where it is widest.

    An end is None where nothing bounds the price on that side.  The unit is currency/MWh, or
    currency/MVArh where `is_reactive`.
    """

    interval: int
    low_usd_per_mwh: float | None
    high_usd_per_mwh: float | None
    bus: str
    is_reactive: bool = False


def price_ranges(found: Dispatch, prices: Prices) -> tuple[PriceRange, ...]:
    """Find the intervals with more than one set of supporting prices, and the ends."""
    duals = DualChanges(found)
    parts = list(duals.open_parts())
    if not parts:
        return ()
    own, ports = np.concatenate(parts), prices.ports
    scale, interval = duals.scale[own], duals.interval[own]
    gradient = duals.price_gradients(own, ports) * scale[:, None, None]
    directions = (np.random.default_rng(0).normal(size=len(own)), gradient[:, 0].mean(axis=1))
    corners = [end for direction in directions for end in duals.ends(own, direction)]
    ranges = []
    for this in np.unique(interval):
        here = interval == this
        change = np.array([np.tensordot(end[here], gradient[here], axes=1) for end in corners])
        width = np.ptp(change, axis=0)
        for reactive, published in enumerate((prices.lmp_usd_per_mwh, prices.lmp_q_usd_per_mvarh)):
            widest = int(np.argmax(width[reactive]))
            if width[reactive, widest] > DIFFERENT_USD_PER_MWH:
                price, bus = float(published[this, ports[widest]]), str(prices.network.port_bus[ports[widest]])
                direction = np.where(here, gradient[:, reactive, widest], 0.0)
                low, high = (_end(duals, own, price, direction, end) for end in duals.ends(own, direction))
                ranges.append(PriceRange(int(this), low, high, bus, reactive == 1))
    return tuple(ranges)


def _end(duals: DualChanges, own: IntArray, price: float, direction: FloatArray, end: FloatArray) -> float | None:
    """`price` at an `end` of the multipliers `own`; None where one that makes it there has no bound."""
    of_price = (direction != 0) & (duals.kind[own] != MARKET)
    return None if np.abs(end[of_price]).max() > 0.99 * FARTHEST else price + float(direction @ end)
