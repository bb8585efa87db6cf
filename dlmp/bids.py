"""Resources and their bids of real power, as arrays over resources, bid segments and intervals.

The bids are curves in the sense of `dlmp.curves`.
"""

from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dlmp.curves import Curves, Words, check_curve, check_numbers, net_range
from dlmp.errors import Problems
from dlmp.network.model import FloatArray, IntArray, TextArray, frozen, frozen_rows, repeated, some_of

RESOURCE_KINDS = ("solar", "wind", "generator", "load", "demand_response", "storage", "ev", "other")
WORDS = Words("bid", "supply", "demand", "quantity_kw", "price_usd_per_mwh", "price_end_usd_per_mwh")
BID_PROFILES = ("quantity_kw", "price_usd_per_mwh", "price_rise_usd_per_mwh", "is_self_scheduled")
"""What bids have in each interval."""
SHARE_TOLERANCE = 1e-9
LOAD, SUBSTATION, OPERATOR = "load", "substation", "operator"
ACCOUNTS = (LOAD, SUBSTATION, OPERATOR)
"""Names under which the settlement pays those who do not bid; no participant may have one."""


def _unnamed() -> TextArray:
    return np.zeros(0, dtype=str)


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
    participant
        (r,) Who is paid for each; default: the resource under its own name.
    ramp_up_kw_per_min, ramp_down_kw_per_min
        (r,) How fast the injection may rise and fall [kW/min]; infinite where nothing limits it, which is the default.
    p_initial_kw
        (r,) Injection before the first interval [kW], from which the ramps begin; NaN (the default) leaves the first
        interval free.
    power_factor_min
        (r,) Least ratio of real to apparent power; 0, the default, is no limit.
    """

    name: TextArray
    kind: TextArray
    share: sparse.csr_array
    p_min_kw: FloatArray
    p_max_kw: FloatArray
    q_min_kvar: FloatArray
    q_max_kvar: FloatArray
    s_max_kva: FloatArray
    participant: TextArray = field(default_factory=_unnamed)
    ramp_up_kw_per_min: FloatArray = field(default_factory=not_given)
    ramp_down_kw_per_min: FloatArray = field(default_factory=not_given)
    p_initial_kw: FloatArray = field(default_factory=not_given)
    power_factor_min: FloatArray = field(default_factory=not_given)

    def __post_init__(self) -> None:
        if not len(self.participant):
            object.__setattr__(self, "participant", self.name)
        for name, default in (
            ("ramp_up_kw_per_min", np.inf),
            ("ramp_down_kw_per_min", np.inf),
            ("p_initial_kw", np.nan),
            ("power_factor_min", 0.0),
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
        (t, s) Size of the segment [kW], not negative; 0 where it is not offered.
    price_usd_per_mwh
        (t, s) Price at the beginning of the segment [currency/MWh].
    is_self_scheduled
        (t, s) True where the resource injects or consumes the whole segment at any price, and that of the segment does
        not count; default: nowhere.
    price_rise_usd_per_mwh
        (t, s) How much higher the price at its end is [currency/MWh], negative for demand; in between the price runs in
        a straight line.  0, the default, makes a block.
    """

    resource: IntArray
    is_supply: npt.NDArray[np.bool_]
    segment: IntArray
    quantity_kw: FloatArray
    price_usd_per_mwh: FloatArray
    is_self_scheduled: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=bool))
    price_rise_usd_per_mwh: FloatArray = field(default_factory=not_given)

    def __post_init__(self) -> None:
        if not self.price_rise_usd_per_mwh.size:
            object.__setattr__(self, "price_rise_usd_per_mwh", np.zeros(self.quantity_kw.shape))
        if not self.is_self_scheduled.size:
            object.__setattr__(self, "is_self_scheduled", np.zeros(self.quantity_kw.shape, dtype=bool))
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
            is_into=self.is_supply,
            quantity=self.quantity_kw,
            price=self.price_usd_per_mwh,
            rise=self.price_rise_usd_per_mwh,
            is_fixed=self.is_self_scheduled,
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
    if len(resources.participant) != len(resources):
        message = f"one per resource is needed: {len(resources)}"
        problems.add("resources", "participant", f"{len(resources.participant)} values", message)
        return
    for name in repeated(resources.name):
        problems.add(f"resource {name}", "resource", name, "stands more than once; names must be unique")
    for index, name in enumerate(resources.name):
        element = f"resource {name}"
        if resources.kind[index] not in RESOURCE_KINDS:
            problems.add(element, "kind", str(resources.kind[index]), f"must be one of {some_of(RESOURCE_KINDS, 20)}")
        _check_participant(element, str(resources.participant[index]), problems)
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
            low_kw, high_kw = np.full(len(resources.p_max_kw), resources.p_min_kw[index]), resources.p_max_kw[:, index]
            check_reach(resources, index, low_kw, high_kw, float(rating), problems)
        _check_power_range(resources, index, problems)
        _check_power_factor(resources, index, problems)
        _check_ramp_numbers(resources, index, problems)


def _check_participant(element: str, participant: str, problems: Problems) -> None:
    if not participant:
        problems.add(element, "participant", participant, "must not be blank: name who is paid for the resource")
    if participant in ACCOUNTS:
        message = f"is an account of the settlement ({some_of(ACCOUNTS)}); name the participant otherwise"
        problems.add(element, "participant", participant, message)


def check_reach(
    resources: Resources, index: int, low_kw: FloatArray, high_kw: FloatArray, reach_kva: float, problems: Problems
) -> None:
    """Check that a resource of real range (t,) from `low_kw` to `high_kw` comes within `reach_kva` of zero."""
    p_kw = np.clip(0.0, low_kw, high_kw)
    q_kvar = np.clip(0.0, resources.q_min_kvar[index], resources.q_max_kvar[index])
    least = float(np.hypot(p_kw, q_kvar).max(initial=0.0))
    if least > reach_kva:
        remedy = f"its ranges of p and q need {least:g} kVA and the rating allows {reach_kva:g}; widen them or raise it"
        problems.add(f"resource {resources.name[index]}", "s_max_kva", float(resources.s_max_kva[index]), remedy)


def reactive_share(resources: Resources) -> FloatArray:
    """(r,) Most reactive over real power at the least power factor, tan(acos(pf)); infinite where there is none."""
    pf = resources.power_factor_min
    return np.divide(np.sqrt(1 - pf**2), pf, out=np.full(len(pf), np.inf), where=pf > 0)


def power_sign(resources: Resources) -> FloatArray:
    """(r,) 1 for resources that never consume, -1 for others that never inject, 0 for those that may do both."""
    return np.where(resources.p_min_kw >= 0, 1.0, np.where((resources.p_max_kw <= 0).all(axis=0), -1.0, 0.0))


def _check_power_factor(resources: Resources, index: int, problems: Problems) -> None:
    """Check that a least power factor makes linear rows, and that these leave a dispatch."""
    element, value = f"resource {resources.name[index]}", float(resources.power_factor_min[index])
    if not 0 <= value <= 1:
        problems.add(element, "power_factor_min", value, "must be 0 to 1; leave it blank for no limit")
        return
    if value == 0:
        return
    low, high = float(resources.p_min_kw[index]), resources.p_max_kw[:, index]
    if power_sign(resources)[index] == 0:
        reach = f"from {low:g} to {high.max():g} kW"
        remedy = f"needs real power of one sign, and its range is {reach}; make it two resources, or use s_max_kva"
        problems.add(element, "power_factor_min", value, remedy)
        return
    q_kvar = abs(np.clip(0.0, resources.q_min_kvar[index], resources.q_max_kvar[index]))
    room = reactive_share(resources)[index] * np.maximum(np.abs(high), abs(low))
    for interval in np.flatnonzero(q_kvar > room)[:1]:
        remedy = f"allows {room[interval]:g} kvar, and q_min_kvar, q_max_kvar need {q_kvar:g}; widen them or lower it"
        problems.add(f"{element}, interval {interval}", "power_factor_min", value, remedy)


def injection_range(resources: Resources, bids: Bids) -> tuple[FloatArray, FloatArray]:
    """Least and largest injection (t, r) [kW] that both the resources and their bids allow."""
    least_kw, most_kw = net_range(bids.curves(resources.name), len(resources))
    return np.maximum(resources.p_min_kw, least_kw), np.minimum(resources.p_max_kw, most_kw)


def _check_ramp_numbers(resources: Resources, index: int, problems: Problems) -> None:
    element = f"resource {resources.name[index]}"
    for name in ("ramp_up_kw_per_min", "ramp_down_kw_per_min"):
        ramp = float(getattr(resources, name)[index])
        if not ramp > 0:
            problems.add(element, name, ramp, "must be above zero; leave it blank for no limit")
    initial = float(resources.p_initial_kw[index])
    if np.isinf(initial):
        problems.add(element, "p_initial_kw", initial, "must be finite; leave it blank where it is free")


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
    least_kw, most_kw = net_range(curves, len(resources))
    low_kw, high_kw = injection_range(resources, bids)
    is_rated = np.isfinite(resources.s_max_kva)
    scheduled = bids.resource[bids.is_self_scheduled.any(axis=0)]
    for index in range(len(resources)):
        check_curve(curves, index, problems)
        before = len(problems.found)
        _check_must_run(resources, index, least_kw[:, index], most_kw[:, index], problems)
        if is_rated[index] and index in scheduled and len(problems.found) == before:
            reach_kva = float(resources.s_max_kva[index])
            check_reach(resources, index, low_kw[:, index], high_kw[:, index], reach_kva, problems)


def _check_must_run(
    resources: Resources, index: int, least_kw: FloatArray, most_kw: FloatArray, problems: Problems
) -> None:
    """Check that the blocks of a resource, which allow `least_kw` to `most_kw` (t,), can reach its range."""
    low, high = resources.p_min_kw[index], resources.p_max_kw[:, index]
    for limit, short, net, needed in (
        ("p_min_kw", low - most_kw, most_kw, "needs supply bids of at least p_min_kw"),
        ("p_max_kw", least_kw - high, least_kw, "needs demand bids of at least -p_max_kw"),
    ):
        for interval in np.flatnonzero(short > 1e-9)[:1]:
            value = low if limit == "p_min_kw" else high[interval]
            is_scheduled = net[interval] < 0 if limit == "p_min_kw" else net[interval] > 0
            remedy = (
                f"does not hold the {net[interval]:g} kW that are self-scheduled; widen it" if is_scheduled else needed
            )
            problems.add(f"resource {resources.name[index]}, interval {interval}", limit, float(value), remedy)
