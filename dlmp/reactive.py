"""Bids of reactive power, as arrays over segments and intervals.

A resource with such bids injects what is accepted of its `inject` segments less what is accepted of its `absorb`
segments, and no reactive power but that; one without gives what its range allows free of charge.  The bids are curves
in the sense of `dlmp.curves`.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dlmp.bids import Resources, freeze_arrays, not_given
from dlmp.curves import Curves, Words, check_curve, check_numbers, net_range
from dlmp.errors import Problems
from dlmp.network.model import FloatArray, IntArray, TextArray

WORDS = Words("reactive bid", "inject", "absorb", "quantity_kvar", "price_usd_per_mvarh", "price_end_usd_per_mvarh")
REACTIVE_PROFILES = ("quantity_kvar", "price_usd_per_mvarh", "price_rise_usd_per_mvarh")
"""What reactive bids have in each interval."""
REACH_SLACK_KVAR = 1e-9


@dataclass(frozen=True, eq=False)
class ReactiveBids:
    """s segments over t intervals.

    Parameters
    ----------
    resource
        (s,) Index of the resource that offers the segment.
    is_injection
        (s,) True for an offer to inject, False for one to absorb.
    segment
        (s,) Number of the segment within its curve.
    quantity_kvar
        (t, s) Size of the segment [kvar], not negative; 0 where it is not offered.
    price_usd_per_mvarh
        (t, s) What the resource is to be paid for injecting, and what it pays for absorbing, which is negative where
        it wants to be paid for that too, at the beginning of the segment [currency/MVArh].
    price_rise_usd_per_mvarh
        (t, s) How much higher that is at its end [currency/MVArh], negative for absorbing; 0, the default, makes a
        block.
    """

    resource: IntArray
    is_injection: npt.NDArray[np.bool_]
    segment: IntArray
    quantity_kvar: FloatArray
    price_usd_per_mvarh: FloatArray
    price_rise_usd_per_mvarh: FloatArray = field(default_factory=not_given)

    def __post_init__(self) -> None:
        if not self.price_rise_usd_per_mvarh.size:
            object.__setattr__(self, "price_rise_usd_per_mvarh", np.zeros(self.quantity_kvar.shape))
        freeze_arrays(self)

    def __len__(self) -> int:
        return len(self.resource)

    def curves(self, owner: TextArray) -> Curves:
        """As curves of the resources of names `owner`."""
        return Curves(
            words=WORDS,
            owner=owner,
            resource=self.resource,
            segment=self.segment,
            is_into=self.is_injection,
            quantity=self.quantity_kvar,
            price=self.price_usd_per_mvarh,
            rise=self.price_rise_usd_per_mvarh,
            is_fixed=np.zeros(self.quantity_kvar.shape, dtype=bool),
        )


def no_reactive_bids(intervals: int) -> ReactiveBids:
    """Return an empty table."""
    index, by_interval = np.zeros(0, dtype=np.int64), np.zeros((intervals, 0))
    return ReactiveBids(index, np.zeros(0, bool), index, by_interval, by_interval)


NO_REACTIVE_BIDS = no_reactive_bids(0)
"""None, for a horizon of any length."""


def check_reactive_bids(bids: ReactiveBids, resources: Resources, problems: Problems) -> None:
    """Add to `problems` everything that is wrong with `bids`, whose arrays have the right shapes."""
    outside = (bids.resource < 0) | (bids.resource >= len(resources))
    for column in np.flatnonzero(outside):
        problems.add(
            f"reactive bid segment {column}", "resource", int(bids.resource[column]), "is no resource of the case"
        )
    if outside.any():
        return
    curves = bids.curves(resources.name)
    check_numbers(curves, problems)
    least_kvar, most_kvar = net_range(curves, len(resources))
    for index in np.unique(bids.resource):
        check_curve(curves, int(index), problems)
        _check_range(resources, int(index), least_kvar[:, index], most_kvar[:, index], problems)


def _check_range(
    resources: Resources, index: int, least_kvar: FloatArray, most_kvar: FloatArray, problems: Problems
) -> None:
    """Check that the blocks, which allow `least_kvar` to `most_kvar` (t,), fit the reactive range of the resource."""
    element, low, high = f"resource {resources.name[index]}", resources.q_min_kvar[index], resources.q_max_kvar[index]
    for limit, value, is_idle, side in (
        ("q_max_kvar", high, high <= 0 < most_kvar.max(initial=0.0), "inject"),
        ("q_min_kvar", low, low >= 0 > least_kvar.min(initial=0.0), "absorb"),
    ):
        if is_idle:
            problems.add(element, limit, float(value), f"leaves nothing of its {side} bids; widen it")
    for limit, value, short, remedy in (
        ("q_min_kvar", low, low - most_kvar, "needs inject bids of at least q_min_kvar"),
        ("q_max_kvar", high, least_kvar - high, "needs absorb bids of at least -q_max_kvar"),
    ):
        for interval in np.flatnonzero(short > REACH_SLACK_KVAR)[:1]:
            problems.add(f"{element}, interval {interval}", limit, float(value), remedy)
