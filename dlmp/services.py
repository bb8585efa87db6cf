"""Services beside energy: reserved power that the operator may call, and what is required of it.

A resource may offer *capacity up* (inject more, or consume less, when called), *capacity down*, *VAR up* (inject more
reactive power) and *VAR down*: the services of the competitive solicitation framework of CPUC decision D.16-12-036.
Whoever reserves them keeps the room in its rating, and the energy of its store for the whole called duration, and the
network keeps its limits while it is called (`dlmp.products.services`, `dlmp.calls`).
A requirement asks for so many kW of a service in total from all who stand in its zone, metered where they stand.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from dlmp.bids import Bids, Resources, freeze_arrays
from dlmp.errors import InputError, Problem, Problems
from dlmp.network.model import FloatArray, IntArray, Network, TextArray
from dlmp.stores import Stores
from dlmp.units import LARGEST_PRICE, is_price

CAPACITY_UP, CAPACITY_DOWN, VAR_UP, VAR_DOWN = "capacity_up", "capacity_down", "var_up", "var_down"
SERVICES = (CAPACITY_UP, CAPACITY_DOWN, VAR_UP, VAR_DOWN)
UPWARD, REACTIVE = (CAPACITY_UP, VAR_UP), (VAR_UP, VAR_DOWN)
OFFER_PROFILES = ("quantity_kw", "price_usd_per_mw_h")
"""What offers of services have in each interval."""
ROUNDING = 1e-9
"""Durations that are whole numbers of intervals may be off by as much."""


@dataclass(frozen=True, eq=False)
class ServiceOffers:
    """k offers of a service, over t intervals.

    Parameters
    ----------
    resource
        (k,) Index of the resource that offers; one offer for each resource and service.
    service
        (k,) One of `SERVICES`.
    quantity_kw
        (t, k) Most that can be reserved [kW], or [kvar] of a VAR service.
    price_usd_per_mw_h
        (t, k) Price of holding it ready [currency/MW or MVAr, for each hour].
    duration_hours
        (k,) How long it can be called [h], at least an interval.
    """

    resource: IntArray
    service: TextArray
    quantity_kw: FloatArray
    price_usd_per_mw_h: FloatArray
    duration_hours: FloatArray

    def __post_init__(self) -> None:
        freeze_arrays(self)

    def __len__(self) -> int:
        return len(self.resource)

    @property
    def is_reactive(self) -> npt.NDArray[np.bool_]:
        """(k,) True for a VAR service."""
        return np.isin(self.service, REACTIVE)

    @property
    def direction(self) -> FloatArray:
        """(k,) 1 where a call raises the injection, -1 where it lowers it."""
        return np.where(np.isin(self.service, UPWARD), 1.0, -1.0)

    def lasts(self, interval_hours: float) -> IntArray:
        """(k,) Over how many intervals a call lasts, the one of its award first."""
        return np.ceil(self.duration_hours / interval_hours - ROUNDING).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Requirements:
    """m requirements of a service, over t intervals.

    Parameters
    ----------
    name
        (m,) What each is called.
    service
        (m,) One of `SERVICES`.
    place
        (m,) Where it is required, for people: ``substation``, ``branch 5-6``, ``zone east``.
    counts
        (m, p) True for the ports whose resources count.
    quantity_kw
        (t, m) How much is required [kW], [kvar].
    shortage_usd_per_mw_h
        (m,) What each MW or MVAr short of it costs [currency/MW, for each hour]; infinite where it must be met.
    """

    name: TextArray
    service: TextArray
    place: TextArray
    counts: npt.NDArray[np.bool_]
    quantity_kw: FloatArray
    shortage_usd_per_mw_h: FloatArray

    def __post_init__(self) -> None:
        freeze_arrays(self)

    def __len__(self) -> int:
        return len(self.name)


def no_offers(intervals: int) -> ServiceOffers:
    """Return an empty table."""
    none, by_interval = np.zeros(0), np.zeros((intervals, 0))
    return ServiceOffers(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=str), by_interval, by_interval, none)


def no_requirements(intervals: int, port_count: int) -> Requirements:
    """Return an empty table."""
    text = np.zeros(0, dtype=str)
    return Requirements(text, text, text, np.zeros((0, port_count), bool), np.zeros((intervals, 0)), np.zeros(0))


NO_OFFERS, NO_REQUIREMENTS = no_offers(0), no_requirements(0, 0)
"""None, for a horizon of any length."""


def everywhere(network: Network) -> npt.NDArray[np.bool_]:
    """(p,) All ports: what is required at the substation may come from anywhere."""
    return np.ones(network.port_count, bool)


def in_zone(network: Network, buses: Sequence[str]) -> npt.NDArray[np.bool_]:
    """(p,) Ports at `buses`.

    Raises
    ------
    InputError
        For buses that the network does not have.
    """
    problems, known = Problems(), set(network.port_bus.tolist())
    for bus in buses:
        if bus not in known:
            problems.add("zone", "bus", bus, f"is no bus of network {network.name}")
    problems.raise_if_any()
    return np.isin(network.port_bus, list(buses))


def behind_branch(network: Network, branch: str) -> npt.NDArray[np.bool_]:
    """(p,) Ports that lose their supply without `branch`: those whose injection relieves it in full.

    Raises
    ------
    InputError
        When there is no such branch, or when the network is meshed around it.
    """
    own = network.branch == branch
    if not own.any():
        raise InputError([Problem("requirement", "branch", branch, f"is no branch of network {network.name}")])
    ends = (
        np.concatenate([network.from_node[~own], network.to_node[~own]]),
        np.concatenate([network.to_node[~own], network.from_node[~own]]),
    )
    buses, bus_of_node = np.unique(network.bus, return_inverse=True)
    joined = sparse.csr_array(
        (np.ones(len(ends[0])), (bus_of_node[ends[0]], bus_of_node[ends[1]])), shape=(len(buses), len(buses))
    )
    _, island = connected_components(joined, directed=False)
    fed = np.isin(island, island[bus_of_node[network.source]])
    if fed[bus_of_node[network.to_node[own]]].all() and fed[bus_of_node[network.from_node[own]]].all():
        remedy = "is in a loop: no resource relieves it alone; require the service of a zone"
        raise InputError([Problem("requirement", "branch", branch, remedy)])
    return np.isin(network.port_bus, buses[~fed])


def check_service_shapes(
    offers: ServiceOffers, requirements: Requirements, intervals: int, port_count: int, problems: Problems
) -> None:
    """Add to `problems` every array of services that has not the shape that it must have."""
    k, m = len(offers), len(requirements)
    for owner, record, shapes in (
        (
            "service offers",
            offers,
            {
                "service": (k,),
                "quantity_kw": (intervals, k),
                "price_usd_per_mw_h": (intervals, k),
                "duration_hours": (k,),
            },
        ),
        (
            "requirements",
            requirements,
            {
                "service": (m,),
                "place": (m,),
                "counts": (m, port_count),
                "quantity_kw": (intervals, m),
                "shortage_usd_per_mw_h": (m,),
            },
        ),
    ):
        for name, shape in shapes.items():
            found = getattr(record, name).shape
            if found != shape:
                problems.add(owner, name, f"shape {found}", f"must be {shape}")


def check_services(
    offers: ServiceOffers,
    requirements: Requirements,
    resources: Resources,
    interval_hours: float,
    problems: Problems,
) -> None:
    """Add to `problems` everything that is wrong with services whose arrays have the right shapes."""
    before = len(problems.found)
    check_offers(offers, resources, interval_hours, problems)
    check_requirements(requirements, problems)
    if len(problems.found) == before:
        for index in range(len(requirements)):
            _check_supply(offers, requirements, resources, index, problems)


def check_offers(offers: ServiceOffers, resources: Resources, interval_hours: float, problems: Problems) -> None:
    """Add to `problems` everything that is wrong with `offers` of `resources`."""
    outside = (offers.resource < 0) | (offers.resource >= len(resources))
    for row in np.flatnonzero(outside):
        problems.add(f"service offer {row}", "resource", int(offers.resource[row]), "is no resource of the case")
    if outside.any():
        return
    seen = set()
    for index, (resource, service) in enumerate(zip(offers.resource.tolist(), offers.service.tolist(), strict=True)):
        element = f"service offer of {resources.name[resource]}"
        _check_service(element, service, problems)
        if (resource, service) in seen:
            problems.add(element, "service", service, "is offered more than once; one offer for each service")
        seen.add((resource, service))
        duration = float(offers.duration_hours[index])
        if not (np.isfinite(duration) and duration >= interval_hours):
            problems.add(element, "duration_hours", duration, f"must be at least one interval, {interval_hours:g} h")
        _check_profile(element, "quantity_kw", offers.quantity_kw[:, index], problems, least=0.0)
        _check_profile(
            element, "price_usd_per_mw_h", offers.price_usd_per_mw_h[:, index], problems, least=0.0, most=LARGEST_PRICE
        )


def check_requirements(requirements: Requirements, problems: Problems) -> None:
    """Add to `problems` everything that is wrong with `requirements` by themselves."""
    for index, name in enumerate(requirements.name.tolist()):
        element = f"requirement {name}"
        _check_service(element, str(requirements.service[index]), problems)
        if (requirements.name[:index] == name).any():
            problems.add(element, "name", name, "stands more than once")
        if not requirements.counts[index].any():
            problems.add(element, "place", str(requirements.place[index]), "has no bus whose resources could count")
        _check_profile(element, "quantity_kw", requirements.quantity_kw[:, index], problems, least=0.0)
        price = float(requirements.shortage_usd_per_mw_h[index])
        if not (price > 0 and (is_price(price) or np.isinf(price))):
            remedy = "must be above zero and at most 1e9; leave it blank where the requirement must be met"
            problems.add(element, "shortage_usd_per_mw_h", price, remedy)


def _check_supply(
    offers: ServiceOffers, requirements: Requirements, resources: Resources, index: int, problems: Problems
) -> None:
    """Check that enough is offered for a requirement that must be met."""
    if np.isfinite(requirements.shortage_usd_per_mw_h[index]):
        return
    share = resources.share @ requirements.counts[index].astype(float)
    own = offers.service == requirements.service[index]
    offered = offers.quantity_kw[:, own] @ share[offers.resource[own]]
    required = requirements.quantity_kw[:, index]
    for interval in np.flatnonzero(required > offered + 1e-9)[:1]:
        element = f"requirement {requirements.name[index]}, interval {interval}"
        remedy = f"only {offered[interval]:g} is offered at {requirements.place[index]}; lower it, or give a"
        problems.add(element, "quantity_kw", float(required[interval]), f"{remedy} shortage_usd_per_mw_h")


def _check_service(element: str, service: str, problems: Problems) -> None:
    if service not in SERVICES:
        problems.add(element, "service", service, f"must be one of {', '.join(SERVICES)}")


def _check_profile(
    element: str, field: str, value: FloatArray, problems: Problems, least: float, most: float = np.inf
) -> None:
    for interval in np.flatnonzero(~(np.isfinite(value) & (value >= least) & (value <= most)))[:1]:
        remedy = f"must be finite and >= {least:g}" + (f", and at most {most:g}" if np.isfinite(most) else "")
        problems.add(f"{element}, interval {interval}", field, float(value[interval]), remedy)


def ranges_for_calls(resources: Resources, bids: Bids, stores: Stores) -> tuple[FloatArray, FloatArray]:
    """(t, r) Highest and lowest injection that bids, or the powers of a store, leave to a call [kW], blocks aside.

    What is self-scheduled is not for sale.  Neither is a block: it is accepted at one level over all its intervals,
    which a call would break, and what is rejected may not run at all.
    """
    top, bottom = np.zeros((2, *resources.p_max_kw.shape))
    injected = np.where(bids.is_supply, bids.quantity_kw, -bids.quantity_kw)
    for end, is_own in ((top, bids.is_supply), (bottom, ~bids.is_supply)):
        np.add.at(end.T, bids.resource, np.where(is_own | bids.is_self_scheduled, injected, 0.0).T)
    top[:, stores.resource], bottom[:, stores.resource] = stores.discharge_max_kw, -stores.charge_max_kw
    return top, bottom


def reach_of_stores(stores: Stores, hours: float) -> tuple[FloatArray, FloatArray]:
    """(t, k) Least energy from which every later firm minimum can be kept, and most for every later maximum [kWh].

    A store that may fall short at a price has no firm minimum.
    """
    intervals = len(stores.drain_kw)
    kept, drained = stores.retention**hours, hours * stores.drain_kw
    gained = hours * stores.charge_efficiency * stores.charge_max_kw
    given = hours * stores.discharge_max_kw / stores.discharge_efficiency
    least = np.where(np.isinf(stores.shortfall_usd_per_mwh), stores.energy_min_kwh, 0.0)
    most = stores.energy_max_kwh.copy()
    for interval in range(intervals - 2, -1, -1):
        later = interval + 1
        least[interval] = np.maximum(least[interval], (least[later] + drained[later] - gained[later]) / kept)
        most[interval] = np.minimum(most[interval], (most[later] + drained[later] + given[later]) / kept)
    return least, most


def energy_by_call(stores: Stores) -> FloatArray:
    """(k,) Most stored energy that a called kWh moves [kWh], up or down.

    A call of a store that may discharge adds to its discharging or takes from it; one that never does only charges more
    or less.
    """
    discharges = (stores.discharge_max_kw > 0).any(axis=0)
    return np.where(discharges, 1 / stores.discharge_efficiency, stores.charge_efficiency)
