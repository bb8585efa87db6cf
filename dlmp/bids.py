"""Resources and their bids of real power, as arrays over resources, bid segments and intervals.

The bids are curves in the sense of `dlmp.curves`.
"""

from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dlmp.curves import Curves, Words, check_curve, check_numbers, offered
from dlmp.errors import Problems
from dlmp.network.model import FloatArray, IntArray, TextArray, frozen, frozen_rows, repeated, some_of

RESOURCE_KINDS = ("solar", "wind", "generator", "load", "demand_response", "storage", "ev", "other")
WORDS = Words("bid", "supply", "demand", "quantity_kw", "price_usd_per_mwh")
SHARE_TOLERANCE = 1e-9


def not_given() -> FloatArray:
    """Stand in for an array of a record that is then filled with its default."""
    return np.zeros(0)


@dataclass(frozen=True, eq=False)
class Resources:
    """r resources that may bid.

    Parameters
    ----------
    name, kind
        (r,) Name and kind, one of `RESOURCE_KINDS`.
    share
        (r, p) Part of its power that each injects at each port of the network; every row adds up to 1.
    p_min_kw, p_max_kw
        (r,) and (t, r) Range of the injection [kW], positive into the grid; the upper end follows
        the availability of each interval.
    q_min_kvar, q_max_kvar
        (r,) Range of the reactive injection [kvar].
    s_max_kva
        (r,) Rating of the inverter or machine [kVA]; infinite where there is none.
    ramp_up_kw_per_min, ramp_down_kw_per_min
        (r,) How fast the injection may rise and fall [kW/min]; infinite where nothing limits it, which is the default.
    p_initial_kw
        (r,) Injection before the first interval [kW], from which the ramps begin; NaN (the default) leaves the first
        interval free.
    """

    name: TextArray
    kind: TextArray
    share: sparse.csr_array
    p_min_kw: FloatArray
    p_max_kw: FloatArray
    q_min_kvar: FloatArray
    q_max_kvar: FloatArray
    s_max_kva: FloatArray
    ramp_up_kw_per_min: FloatArray = field(default_factory=not_given)
    ramp_down_kw_per_min: FloatArray = field(default_factory=not_given)
    p_initial_kw: FloatArray = field(default_factory=not_given)

    def __post_init__(self) -> None:
        for name, default in (
            ("ramp_up_kw_per_min", np.inf),
            ("ramp_down_kw_per_min", np.inf),
            ("p_initial_kw", np.nan),
        ):
            if not getattr(self, name).size:
                object.__setattr__(self, name, np.full(len(self.name), default))
        freeze_arrays(self)

    def __len__(self) -> int:
        return len(self.name)

    @property
    def first_port(self) -> IntArray:
        """(r,) First port of each: the only one of a resource on one phase or at a balanced bus."""
        return np.asarray(self.share.indices[self.share.indptr[:-1]], dtype=np.int64)


def at_ports(port: npt.ArrayLike, port_count: int) -> sparse.csr_array:
    """Shares (r, `port_count`) of resources that each stand at one port."""
    place = np.asarray(port, dtype=np.int64)
    return sparse.csr_array((np.ones(len(place)), place, np.arange(len(place) + 1)), shape=(len(place), port_count))


@dataclass(frozen=True, eq=False)
class Bids:
    """s bid segments over t intervals.

    Parameters
    ----------
    resource
        (s,) Index of the resource that offers the segment.
    is_supply
        (s,) True for an offer to inject, False for a bid to consume.
    segment
        (s,) Number of the segment within its curve.
    quantity_kw
        (t, s) Size of the block [kW], not negative; 0 where the segment is not offered.
    price_usd_per_mwh
        (t, s) Price of the block [currency/MWh].
    """

    resource: IntArray
    is_supply: npt.NDArray[np.bool_]
    segment: IntArray
    quantity_kw: FloatArray
    price_usd_per_mwh: FloatArray

    def __post_init__(self) -> None:
        freeze_arrays(self)

    def __len__(self) -> int:
        return len(self.resource)

    def curves(self, owner: TextArray) -> Curves:
        """As curves of the resources of names `owner`."""
        return Curves(
            WORDS, owner, self.resource, self.segment, self.is_supply, self.quantity_kw, self.price_usd_per_mwh
        )


def freeze_arrays(record: object) -> None:
    """Make the arrays of a frozen record read-only copies."""
    for item in fields(record):  # type: ignore[arg-type]
        value = getattr(record, item.name)
        if isinstance(value, np.ndarray):
            object.__setattr__(record, item.name, frozen(value, value.dtype))
        elif sparse.issparse(value):
            object.__setattr__(record, item.name, frozen_rows(value))


def no_resources(intervals: int, port_count: int) -> tuple[Resources, Bids]:
    """Return empty tables: a feeder of `port_count` ports of which nothing bids."""
    none, text = np.zeros(0), np.zeros(0, dtype=str)
    index = np.zeros(0, dtype=np.int64)
    resources = Resources(text, text, at_ports(index, port_count), none, np.zeros((intervals, 0)), none, none, none)
    return resources, Bids(index, np.zeros(0, bool), index, np.zeros((intervals, 0)), np.zeros((intervals, 0)))


def check_resources(resources: Resources, port_count: int, problems: Problems) -> None:
    """Add to `problems` everything that is wrong with `resources` on a network of `port_count` ports."""
    if resources.share.shape != (len(resources), port_count):
        problems.add("resources", "share", f"shape {resources.share.shape}", f"must be {(len(resources), port_count)}")
        return
    total = np.asarray(resources.share.sum(axis=1)).ravel()
    for name in repeated(resources.name):
        problems.add(f"resource {name}", "resource", name, "stands more than once; names must be unique")
    for index, name in enumerate(resources.name):
        element = f"resource {name}"
        if resources.kind[index] not in RESOURCE_KINDS:
            problems.add(element, "kind", str(resources.kind[index]), f"must be one of {some_of(RESOURCE_KINDS, 20)}")
        if not abs(total[index] - 1.0) <= SHARE_TOLERANCE:
            problems.add(element, "share", float(total[index]), "the shares of a resource must add up to 1")
        if not _ordered(resources.q_min_kvar[index], resources.q_max_kvar[index]):
            band = (float(resources.q_min_kvar[index]), float(resources.q_max_kvar[index]))
            problems.add(element, "q_min_kvar, q_max_kvar", band, "must be finite with q_min_kvar <= q_max_kvar")
        rating = resources.s_max_kva[index]
        if not rating > 0:
            problems.add(element, "s_max_kva", float(rating), "must be above zero; leave it blank for no rating")
        elif resources.p_min_kw[index] > rating:
            problems.add(element, "p_min_kw", float(resources.p_min_kw[index]), f"is above s_max_kva = {rating:g}")
        else:
            check_reach(resources, index, float(rating), problems)
        _check_power_range(resources, index, problems)
        for name_of_ramp in ("ramp_up_kw_per_min", "ramp_down_kw_per_min"):
            ramp = float(getattr(resources, name_of_ramp)[index])
            if not ramp > 0:
                problems.add(element, name_of_ramp, ramp, "must be above zero; leave it blank for no limit")
        if np.isinf(resources.p_initial_kw[index]):
            initial = float(resources.p_initial_kw[index])
            problems.add(element, "p_initial_kw", initial, "must be finite; leave it blank where it is free")


def check_reach(resources: Resources, index: int, reach_kva: float, problems: Problems) -> None:
    """Check that the ranges of a resource come within `reach_kva` of zero at every interval."""
    p_kw = np.clip(0.0, resources.p_min_kw[index], resources.p_max_kw[:, index])
    q_kvar = np.clip(0.0, resources.q_min_kvar[index], resources.q_max_kvar[index])
    least = float(np.hypot(p_kw, q_kvar).max(initial=0.0))
    if least > reach_kva:
        remedy = f"its ranges of p and q need {least:g} kVA and the rating allows {reach_kva:g}; widen them or raise it"
        problems.add(f"resource {resources.name[index]}", "s_max_kva", float(resources.s_max_kva[index]), remedy)


def injection_range(resources: Resources, bids: Bids) -> tuple[FloatArray, FloatArray]:
    """Least and largest injection (t, r) [kW] that both the resources and their bids allow."""
    supply_kw, demand_kw = offered(bids.curves(resources.name), len(resources))
    return np.maximum(resources.p_min_kw, -demand_kw), np.minimum(resources.p_max_kw, supply_kw)


def _ordered(low: float, high: float) -> bool:
    return bool(np.isfinite(low) and np.isfinite(high) and low <= high)


def _check_power_range(resources: Resources, index: int, problems: Problems) -> None:
    element, low = f"resource {resources.name[index]}", resources.p_min_kw[index]
    for interval, high in enumerate(resources.p_max_kw[:, index]):
        if not _ordered(low, high):
            problems.add(
                element,
                f"p_min_kw, p_max_kw (interval {interval})",
                (float(low), float(high)),
                "must be finite with p_min_kw <= p_max_kw, after availability",
            )
            return


def check_bids(bids: Bids, resources: Resources, problems: Problems) -> None:
    """Add to `problems` everything that is wrong with `bids`."""
    curves = bids.curves(resources.name)
    check_numbers(curves, problems)
    into, out = offered(curves, len(resources))
    for index in range(len(resources)):
        check_curve(curves, index, problems)
        _check_must_run(resources, index, into[:, index], out[:, index], problems)


def _check_must_run(
    resources: Resources, index: int, supply_kw: FloatArray, demand_kw: FloatArray, problems: Problems
) -> None:
    """Check that the offered blocks can reach the range of the resource."""
    for limit, short, remedy in (
        ("p_min_kw", resources.p_min_kw[index] - supply_kw, "needs supply bids of at least p_min_kw"),
        ("p_max_kw", -demand_kw - resources.p_max_kw[:, index], "needs demand bids of at least -p_max_kw"),
    ):
        for interval in np.flatnonzero(short > 1e-9)[:1]:
            value = resources.p_min_kw[index] if limit == "p_min_kw" else resources.p_max_kw[interval, index]
            problems.add(f"resource {resources.name[index]}, interval {interval}", limit, float(value), remedy)
