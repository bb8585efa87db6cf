"""Block bids: one quantity over consecutive intervals at one price, accepted as a whole or not at all.

As in European day-ahead markets (EUPHEMIA Public Description, "block orders"): a block that is accepted is accepted in
the same share of its quantity in all its intervals, at least the least share; of an exclusive group at most one block
is accepted.  A block supports its price over all its intervals together, not in each.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dlmp.bids import Resources, freeze_arrays
from dlmp.errors import Problems
from dlmp.network.model import FloatArray, IntArray, TextArray, repeated
from dlmp.stores import Stores
from dlmp.units import PRICE_REMEDY, is_price


@dataclass(frozen=True, eq=False)
class Blocks:
    """b block bids, each array (b,).

    Parameters
    ----------
    name
        Name of the block, unique.
    resource
        Index of the resource that offers it.
    is_supply
        True for an offer to inject, False for a bid to consume.
    first, last
        First and last of its intervals.
    quantity_kw
        Power in each of them [kW].
    price_usd_per_mwh
        Price of its energy [currency/MWh].
    least_share
        Smallest part of the quantity that may be accepted, above 0 and at most 1.
    group
        Name of the exclusive group that it belongs to; "" for none.
    """

    name: TextArray
    resource: IntArray
    is_supply: npt.NDArray[np.bool_]
    first: IntArray
    last: IntArray
    quantity_kw: FloatArray
    price_usd_per_mwh: FloatArray
    least_share: FloatArray
    group: TextArray

    def __post_init__(self) -> None:
        freeze_arrays(self)

    def __len__(self) -> int:
        return len(self.name)

    @property
    def sign(self) -> FloatArray:
        """1 for supply, -1 for demand."""
        return np.where(self.is_supply, 1.0, -1.0)

    @property
    def must_be_level(self) -> npt.NDArray[np.bool_]:
        """True where the accepted share could differ between intervals if nothing held it."""
        return (self.least_share < 1) & (self.first < self.last)

    def offered_kw(self, intervals: int) -> FloatArray:
        """(t, b) Quantity by interval [kW]."""
        every = np.arange(intervals)[:, None]
        return np.where((every >= self.first) & (every <= self.last), self.quantity_kw, 0.0)


_NONE, _TEXT, _INDEX = np.zeros(0), np.zeros(0, dtype=str), np.zeros(0, dtype=np.int64)
NO_BLOCKS = Blocks(_TEXT, _INDEX, np.zeros(0, bool), _INDEX, _INDEX, _NONE, _NONE, _NONE, _TEXT)
"""Nobody bids a block."""


def check_blocks(blocks: Blocks, resources: Resources, stores: Stores, intervals: int, problems: Problems) -> None:
    """Add to `problems` everything that is wrong with `blocks` over a number of `intervals`."""
    for name in repeated(blocks.name):
        problems.add(f"block {name}", "block", name, "stands more than once; names must be unique")
    for index in range(len(blocks)):
        element, resource = f"block {blocks.name[index]}", int(blocks.resource[index])
        if not 0 <= resource < len(resources):
            problems.add(element, "resource", resource, "is no resource of the case")
            continue
        if resource in stores.resource:
            message = "is a store; a store is cleared by its costs"
            problems.add(element, "resource", str(resources.name[resource]), message)
        first, last = int(blocks.first[index]), int(blocks.last[index])
        if not 0 <= first <= last < intervals:
            message = f"need 0 <= first_interval <= last_interval <= {intervals - 1}"
            problems.add(element, "first_interval, last_interval", (first, last), message)
            continue
        price, share = float(blocks.price_usd_per_mwh[index]), float(blocks.least_share[index])
        if not is_price(price):
            problems.add(element, "price_usd_per_mwh", price, PRICE_REMEDY)
        if not 0 < share <= 1:
            problems.add(element, "min_acceptance_ratio", share, "must be above 0 and at most 1")
        _check_quantity(blocks, index, resources, problems)


def _check_quantity(blocks: Blocks, index: int, resources: Resources, problems: Problems) -> None:
    """Check that the resource can deliver the block in each of its intervals."""
    element, resource, kw = f"block {blocks.name[index]}", blocks.resource[index], float(blocks.quantity_kw[index])
    if not (np.isfinite(kw) and kw > 0):
        problems.add(element, "quantity_kw", kw, "must be finite and above zero")
        return
    own = slice(blocks.first[index], blocks.last[index] + 1)
    most = resources.p_max_kw[own, resource].min() if blocks.is_supply[index] else -resources.p_min_kw[resource]
    if kw * blocks.least_share[index] > most + 1e-9:
        message = f"its least share is beyond the range of the resource, {most + 0.0:g} kW"
        problems.add(element, "quantity_kw", kw, message)
