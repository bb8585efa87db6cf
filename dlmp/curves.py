"""What bid curves of real and of reactive power have in common: segments in order of their price.

A segment is power at one price, a block, or at one that runs in a straight line from its beginning to its end.  A
resource's prices of injection rise and those of consumption fall, and no consumption is dearer than an injection of the
same interval: its net injection then has one monotone curve, and the least-cost dispatch is a linear or a convex
quadratic programme.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dlmp.errors import Problems
from dlmp.network.model import FloatArray, IntArray, TextArray
from dlmp.units import PRICE_REMEDY, is_price

MAX_SEGMENTS = 20
PRICE_SLACK = 1e-9
"""A price this much below that of the segment before, or its own, is rounding [currency/MWh]."""


@dataclass(frozen=True)
class Words:
    """What the segments of one kind of power are called in a problem."""

    bid: str
    into: str
    out: str
    quantity: str
    price: str
    price_end: str


@dataclass(frozen=True, eq=False)
class Curves:
    """Segments of s bids over t intervals, and the names of the r resources that they may belong to.

    Parameters
    ----------
    words
        What they are called.
    owner
        (r,) Name of each resource.
    resource, segment
        (s,) Whose segment it is, and its number.
    is_into
        (s,) True for power into the grid.
    quantity, price, rise
        (t, s) Size of each, price at its beginning, and how much higher that at its end is.
    is_fixed
        (t, s) True where it is taken in full at any price: its own does not count.
    """

    words: Words
    owner: TextArray
    resource: IntArray
    segment: IntArray
    is_into: npt.NDArray[np.bool_]
    quantity: FloatArray
    price: FloatArray
    rise: FloatArray
    is_fixed: npt.NDArray[np.bool_]

    def side(self, column: int) -> str:
        """What the side of a segment is called."""
        return self.words.into if self.is_into[column] else self.words.out

    def name(self, column: int, interval: int) -> str:
        """Name of a segment in an interval, for a problem."""
        owner = self.owner[self.resource[column]]
        return f"{self.words.bid} of {owner}, {self.side(column)} segment {self.segment[column]}, interval {interval}"

    def of(self, index: int) -> tuple[IntArray, IntArray]:
        """Segments of a resource into the grid and out of it."""
        own = np.flatnonzero(self.resource == index)
        return own[self.is_into[own]], own[~self.is_into[own]]

    def offered_price(self, columns: IntArray) -> FloatArray:
        """(t, k) Price of each segment where it is offered, NaN where its quantity is zero or it has none."""
        is_offered = (self.quantity[:, columns] > 0) & ~self.is_fixed[:, columns]
        return np.where(is_offered, self.price[:, columns], np.nan)

    @property
    def cost(self) -> FloatArray:
        """(t, s) Cost of the first unit of each segment [currency/MWh]."""
        return np.where(self.is_fixed, 0.0, np.where(self.is_into, 1.0, -1.0) * self.price)

    @property
    def cost_slope(self) -> FloatArray:
        """(t, s) How much the cost rises with each further unit of quantity; not negative."""
        rise = np.where(self.is_fixed, 0.0, np.where(self.is_into, 1.0, -1.0) * self.rise)
        return np.divide(rise, self.quantity, out=np.zeros_like(rise), where=self.quantity > 0)


def check_numbers(curves: Curves, problems: Problems) -> None:
    """Add to `problems` the quantities and prices that are no such."""
    bad = ~(np.isfinite(curves.quantity) & (curves.quantity >= 0))
    for interval, column in np.argwhere(bad):
        value = float(curves.quantity[interval, column])
        problems.add(curves.name(column, interval), curves.words.quantity, value, "must be finite and >= 0")
    begins_well, end = is_price(curves.price), curves.price + curves.rise
    for field, values, bad in (
        (curves.words.price, curves.price, ~begins_well),
        (curves.words.price_end, end, begins_well & ~is_price(end)),
    ):
        for interval, column in np.argwhere(bad):
            problems.add(curves.name(column, interval), field, float(values[interval, column]), PRICE_REMEDY)


def check_curve(curves: Curves, index: int, problems: Problems) -> None:
    """Check that the segments of a resource, from the dearest consumption to the dearest injection, never fall."""
    words, name = curves.words, f"{curves.words.bid} of {curves.owner[index]}"
    into, out = curves.of(index)
    for side, columns in ((words.into, into), (words.out, out)):
        if len(columns) > MAX_SEGMENTS:
            problems.add(
                f"resource {curves.owner[index]}",
                f"{side} segments",
                len(columns),
                f"a curve has at most {MAX_SEGMENTS}",
            )
    for columns, sign in ((into, 1.0), (out, -1.0)):
        ordered = columns[np.argsort(curves.segment[columns], kind="stable")]
        price = curves.offered_price(ordered) * sign
        rise = curves.rise[:, ordered] * sign
        for interval, column in np.argwhere(~np.isnan(price) & (rise < -PRICE_SLACK))[:1]:
            value = float((curves.price + curves.rise)[interval, ordered[column]])
            rule = "must not be below" if sign > 0 else "must not be above"
            problems.add(
                curves.name(ordered[column], interval), words.price_end, value, f"{rule} {words.price} of the segment"
            )
        highest = np.fmax.accumulate(price + rise, axis=1)
        falls = price[:, 1:] < highest[:, :-1] - PRICE_SLACK
        if falls.any():
            interval, column = np.argwhere(falls)[0]
            value = float(curves.price[interval, ordered[column + 1]])
            rule = f"must not fall from one {words.into}" if sign > 0 else f"must not rise from one {words.out}"
            problems.add(curves.name(ordered[column + 1], interval), words.price, value, f"{rule} segment to the next")
    if len(into) and len(out):
        cheapest = np.fmin.reduce(curves.offered_price(into), axis=1)
        dearest = np.fmax.reduce(curves.offered_price(out), axis=1)
        for interval in np.flatnonzero(dearest > cheapest)[:1]:
            remedy = f"its own {words.into} at {cheapest[interval]:g}: the resource would trade with itself"
            value = float(dearest[interval])
            problems.add(f"{name}, interval {interval}", words.price, value, f"{words.out} is dearer than {remedy}")


def net_range(curves: Curves, count: int) -> tuple[FloatArray, FloatArray]:
    """Least and largest net injection by resource that the segments allow, (t, `count`) each."""
    least, most = (np.zeros((len(curves.quantity), count)) for _ in range(2))
    may_be_left = np.where(curves.is_fixed, curves.quantity, 0.0)
    for chosen, sign in ((curves.is_into, 1.0), (~curves.is_into, -1.0)):
        full, kept = sign * curves.quantity.T[chosen], sign * may_be_left.T[chosen]
        np.add.at(most.T, curves.resource[chosen], full if sign > 0 else kept)
        np.add.at(least.T, curves.resource[chosen], kept if sign > 0 else full)
    return least, most
