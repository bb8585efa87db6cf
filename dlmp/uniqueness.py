"""Are the prices of a clearing the only ones that support it?

The multipliers that meet the optimality conditions at the cleared point form a polyhedron (`dlmp.supporting`), a
single point where the binding gradients are independent.  Where they are not, linear programmes look for its extent:
along a direction that has no special relation to the network and along the mean price, to find where prices differ
most; then along the price there, for its two ends.
"""

from dataclasses import dataclass

import numpy as np

from dlmp.dispatch import Dispatch
from dlmp.prices import Prices
from dlmp.supporting import DualChanges


@dataclass(frozen=True)
class PriceRange:
    """An interval whose prices are not unique, and the range at the node where it is widest.

    An end is None where nothing bounds the price on that side, as far as the solver tells.  The unit is currency/MWh,
    or currency/MVArh where `is_reactive`.
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
    corners = [end.change for direction in directions for end in duals.ends(own, direction)]
    ranges = []
    for this in np.unique(interval):
        here = interval == this
        change = np.array([np.tensordot(end[here], gradient[here], axes=1) for end in corners])
        width = np.ptp(change, axis=0)
        for reactive, published in enumerate((prices.lmp_usd_per_mwh, prices.lmp_q_usd_per_mvarh)):
            widest = int(np.argmax(width[reactive]))
            if width[reactive, widest] > duals.same_usd_per_mwh[this]:
                price, bus = float(published[this, ports[widest]]), str(prices.network.port_bus[ports[widest]])
                direction = np.where(here, gradient[:, reactive, widest], 0.0)
                low, high = (
                    None if end.is_open else price + float(direction @ end.change) for end in duals.ends(own, direction)
                )
                ranges.append(PriceRange(int(this), low, high, bus, reactive == 1))
    return tuple(ranges)
