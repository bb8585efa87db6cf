"""Services entered into market cases, and cases on which the engine is compared with the AC oracle of `serviceopf.py`.

`SERVICE_CASES` maps a name to a function that builds the case; `SERVICE_BINDING` maps it to the calls in which limits
of the network hold it at the optimum, by cause.  No two offers cost the same and no requirement is met just by whole
offers, which makes awards and prices unique.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt
from cases import during, feeder33, generators33, market, rated, resource
from feeders import Branch, feeder
from numpy.typing import ArrayLike
from storecases import SIX_LOADS, SIX_PRICES, Store, battery, with_stores

from dlmp import read_case
from dlmp.market import MarketCase
from dlmp.services import Requirements, ServiceOffers, everywhere
from dlmp.shipped import shipped_case

SERVICE_CASES: dict[str, Callable[[], MarketCase]] = {}
"""Every case by name; a case is built once."""

SERVICE_BINDING: dict[str, set[tuple[str, str]]] = {}
"""Cause and call of what binds."""


@dataclass(frozen=True)
class Ready:
    """An offer of a service: quantity [kW], [kvar] and price [currency/MW per hour], numbers or one per interval."""

    resource: str
    service: str
    quantity_kw: ArrayLike
    price: ArrayLike = 0.0
    hours: float = 1.0


@dataclass(frozen=True)
class Needed:
    """A requirement, everywhere or of the ports that `counts`; infinite `shortage` where it must be met."""

    service: str
    quantity_kw: ArrayLike
    shortage: float = np.inf
    counts: npt.NDArray[np.bool_] | None = None
    name: str = ""
    place: str = "substation"


def with_services(case: MarketCase, offers: Sequence[Ready], needed: Sequence[Needed]) -> MarketCase:
    """The same case in which these services are offered and required."""
    intervals, names = case.horizon.intervals, case.resources.name.tolist()

    def profiles(values: Sequence[ArrayLike]) -> npt.NDArray[np.float64]:
        by_item = [np.broadcast_to(np.asarray(value, dtype=float), intervals) for value in values]
        return np.array(by_item).reshape(len(by_item), intervals).T

    return replace(
        case,
        service_offers=ServiceOffers(
            resource=np.array([names.index(offer.resource) for offer in offers], dtype=np.int64),
            service=np.array([offer.service for offer in offers], dtype=str),
            quantity_kw=profiles([offer.quantity_kw for offer in offers]),
            price_usd_per_mw_h=profiles([offer.price for offer in offers]),
            duration_hours=np.array([offer.hours for offer in offers], dtype=float),
        ),
        requirements=Requirements(
            name=np.array([one.name or f"{one.service} {index}" for index, one in enumerate(needed)], dtype=str),
            service=np.array([one.service for one in needed], dtype=str),
            place=np.array([one.place for one in needed], dtype=str),
            counts=np.array(
                [everywhere(case.network) if one.counts is None else one.counts for one in needed], dtype=bool
            ).reshape(len(needed), case.network.port_count),
            quantity_kw=profiles([one.quantity_kw for one in needed]),
            shortage_usd_per_mw_h=np.array([one.shortage for one in needed], dtype=float),
        ),
    )


def case(*binding: tuple[str, str]) -> Callable[[Callable[[], MarketCase]], Callable[[], MarketCase]]:
    """Enter the decorated builder into `SERVICE_CASES` under its own name."""

    def enter(build: Callable[[], MarketCase]) -> Callable[[], MarketCase]:
        name = build.__name__
        SERVICE_CASES[name] = cache(lambda: replace(build(), name=name))
        SERVICE_BINDING[name] = set(binding)
        return build

    return enter


@case(("voltage", "capacity_up"))
def overvoltage_up_33() -> MarketCase:
    """A light load, far from any limit as scheduled: idle plants would lift the voltage if they were called."""
    idle = market(feeder33(v_max_pu=1.01), 20.0, *generators33(), load=0.3)
    offers = [
        Ready(name, "capacity_up", quantity, price)
        for name, quantity, price in (("far", 700, 1.0), ("south", 800, 1.5), ("north", 900, 4.0), ("middle", 700, 3.0))
    ]
    return with_services(idle, offers, [Needed("capacity_up", 1800.0)])


@case(("congestion", "capacity_down"))
def congestion_down_33() -> MarketCase:
    """Plants behind a line that would carry too much if they were called off."""
    busy = market(rated(feeder33(), "line 2", ampere=120.0), 50.0, *generators33())
    offers = [
        Ready(name, "capacity_down", quantity, price)
        for name, quantity, price in (("far", 700, 1.0), ("south", 800, 1.5), ("north", 900, 4.0), ("middle", 700, 3.0))
    ]
    return with_services(busy, offers, [Needed("capacity_down", 1000.0)])


@case(("voltage", "capacity_down and var_down"))
def reactive_33() -> MarketCase:
    """All four services, from plants whose ratings they share with energy."""
    plants = market(feeder33(v_min_pu=0.938), 20.0, *generators33((-150.0, 250.0), 400.0))
    offers = [
        Ready(*offer)
        for offer in (
            ("far", "var_down", 200, 1.0), ("south", "var_down", 200, 1.5), ("north", "var_up", 200, 0.7),
            ("middle", "var_up", 300, 0.9), ("south", "var_up", 200, 0.3), ("far", "capacity_up", 300, 1.0),
            ("south", "capacity_down", 300, 1.1),
        )
    ]  # fmt: skip
    needed = {"var_down": 240.0, "var_up": 350.0, "capacity_up": 200.0, "capacity_down": 150.0}
    return with_services(plants, offers, [Needed(*need) for need in needed.items()])


@case(("congestion", "capacity_down"), ("congestion", "capacity_down since intervals 4, 5"))
def day_33() -> MarketCase:
    """Six hours with two batteries and cars, which keep energy for calls of one hour and of two."""
    t = np.arange(6)
    at_work = (t >= 1) & (t <= 4)
    network = rated(feeder33(v_max_pu=1.02), "line 2", ampere=95.0)
    plain = market(network, SIX_PRICES, *generators33(), load=SIX_LOADS)
    cars = Store(
        *("cars", 30),
        kind="ev",
        charge_kw=np.where(at_work, 300.0, 0.0),
        energy_kwh=900.0,
        least_kwh=np.where(t == 4, 700.0, 0.0),
        initial_kwh=100.0,
        efficiency=(0.93, 1.0),
        final=5.0,
    )
    stored = with_stores(plain, battery(17, energy_kwh=1200.0), battery(24, final=0.0, initial_kwh=300.0), cars)
    offers = [
        Ready("battery 17", "capacity_up", 400, 1.0, 2.0),
        Ready("battery 24", "capacity_up", 400, 1.2),
        Ready("cars", "capacity_up", np.where(at_work, 300.0, 0.0), 0.4),
        Ready("north", "capacity_up", 600, 2.0),
        Ready("south", "capacity_up", 500, 2.5),
        Ready("far", "capacity_up", 500, 2.1),
        Ready("battery 17", "capacity_down", 400, 0.5),
        Ready("battery 24", "capacity_down", 400, 0.8, 2.0),
        Ready("north", "capacity_down", 600, 1.1),
    ]
    up, down = [500.0, 720.0, 900.0, 1000.0, 1100.0, 1000.0], [200.0, 250.0, 300.0, 350.0, 420.0, 330.0]
    return with_services(stored, offers, [Needed("capacity_up", up), Needed("capacity_down", down)])


@case(("voltage", "capacity_up since intervals 0, 1"))
def lasting_33() -> MarketCase:
    """Calls of two hours and of three from the high load of the first run on when it has gone, and lift the voltage."""
    network = feeder33(v_max_pu=1.01)
    plants = market(network, [20.0, 21.0, 22.0], *generators33(), load=np.array([1.0, 0.3, 0.35]))
    offers = [
        Ready(name, "capacity_up", quantity, price, hours)
        for name, quantity, price, hours in (
            ("far", 700, 1.0, 2.0), ("south", 800, 1.5, 3.0), ("north", 900, 4.0, 2.0), ("middle", 700, 3.0, 1.0)
        )
    ]  # fmt: skip
    return with_services(plants, offers, [Needed("capacity_up", [1800.0, 300.0, 310.0])])


@case()
def lasting_rated_33() -> MarketCase:
    """Calls of two hours keep room in ratings and in the range of reactive power of the hour after that of their award.

    Dear import in the second hour would have the plants run at their ratings there.
    """
    plants = market(feeder33(), [60.0, 90.0], *generators33((-150.0, 250.0), 400.0))
    offers = [
        Ready(*offer)
        for offer in (
            ("south", "var_up", 220, 0.3, 2.0), ("middle", "var_up", 300, 0.9), ("south", "capacity_up", 300, 1.1, 2.0),
            ("far", "capacity_up", 300, 1.0), ("north", "var_down", 200, 0.7, 2.0),
            ("north", "capacity_down", 250, 0.6, 2.0),
        )
    ]  # fmt: skip
    needed = {
        "var_up": [260.0, 40.0],
        "capacity_up": [310.0, 60.0],
        "var_down": [190.0, 20.0],
        "capacity_down": [120.0, 240.0],
    }
    return with_services(plants, offers, [Needed(*need) for need in needed.items()])


@case(("congestion", "capacity_up of left"), ("congestion", "capacity_up of right"))
def ring() -> MarketCase:
    """Two plants that push current the one way and the other through a tie of 10 kW."""
    sides = [Branch("a", "b", 0.001, 0.002), Branch("a", "c", 0.001, 0.002)]
    network = feeder([*sides, Branch("b", "c", 0.001, 0.002, rating=0.1)], {"b": (100.0, 0.0), "c": (100.0, 0.0)})
    offers = [resource(name, bus, supply=[(80, 55)]) for name, bus in (("left", "b"), ("right", "c"), ("main", "a"))]
    ready = [Ready(name, "capacity_up", 60.0, price) for name, price in (("left", 1.0), ("right", 1.5), ("main", 5.0))]
    return with_services(market(network, 40.0, *offers), ready, [Needed("capacity_up", 100.0)])


@case(("congestion", "capacity_up and var_up"))
def ring_with_a_condenser() -> MarketCase:
    """A tie of 12 kVA that carries the call of the cheap plant or of the condenser, and of both with the dear plant.

    The dear one stands on the other side: it has an award only to make room for the other's call.
    """
    sides = [Branch("a", "b", 0.001, 0.002), Branch("a", "c", 0.001, 0.002)]
    network = feeder([*sides, Branch("b", "c", 0.001, 0.002, rating=0.12)], {"b": (100.0, 0.0), "c": (100.0, 0.0)})
    plants = [resource(name, bus, supply=[(80, 55)]) for name, bus in (("left", "b"), ("right", "c"))]
    condenser = resource("condenser", "b", q_kvar=(0.0, 40.0))
    ready = [
        Ready("left", "capacity_up", 60.0, 1.0),
        Ready("right", "capacity_up", 60.0, 1.5),
        Ready("condenser", "var_up", 40.0, 0.5),
    ]
    needed = [Needed("capacity_up", 33.0), Needed("var_up", 25.0)]
    return with_services(market(network, 40.0, *plants, condenser), ready, needed)


@case(
    ("congestion", "capacity_down"),
    ("voltage", "capacity_down"),
    ("voltage", "var_up"),
    ("voltage", "capacity_up of engine 611"),
    ("voltage", "capacity_up of engine 675c"),
    ("voltage", "capacity_down of solar 680"),
)
def ieee13() -> MarketCase:
    """Phases of which a call lifts one and lowers the others, so that calls of single plants bind.

    The second of the three hours of the case that ships.
    """
    offers = [
        Ready(*offer)
        for offer in (
            ("engine 675a", "capacity_up", 200, 1.1), ("engine 611", "capacity_up", 180, 0.7),
            ("engine 675c", "capacity_up", 150, 0.9), ("turbine 671", "capacity_up", 300, 1.6),
            ("hotel 646", "capacity_up", 90, 0.5), ("chiller 634", "capacity_up", 60, 0.8),
            ("chargers 692", "capacity_up", 60, 0.3), ("battery 634", "capacity_up", 90, 0.45),
            ("engine 675a", "capacity_down", 200, 0.6), ("solar 680", "capacity_down", 190, 0.4),
            ("solar 675", "capacity_down", 140, 0.9), ("turbine 671", "capacity_down", 300, 1.0),
            ("chargers 670", "capacity_down", 60, 0.35), ("engine 675a", "var_up", 100, 0.2),
            ("solar 652", "var_up", 60, 0.1), ("turbine 671", "var_up", 200, 0.15),
        )
    ]  # fmt: skip
    needed = {"capacity_up": 450.0, "capacity_down": 420.0, "var_up": 60.0}
    return with_services(hour_of("ieee13", 1), offers, [Needed(*need) for need in needed.items()])


@case(
    ("unbalance", "capacity_down"),
    ("voltage", "capacity_down"),
    ("voltage", "capacity_up"),
)
def ieee34() -> MarketCase:
    """More capacity than the feeder can carry, both ways, from everybody: voltages and unbalance hold what there is.

    The second of the three hours of the case that ships.
    """
    return with_every_service(hour_of("ieee34", 1), {"capacity_up": 0.2, "capacity_down": 0.2}, shortage=1000.0)


def hour_of(name: str, t: int) -> MarketCase:
    """Hour `t` of the case that ships as `name`, by itself."""
    whole = read_case(shipped_case(name))
    return replace(
        whole,
        horizon=replace(whole.horizon, intervals=1),
        substation=whole.substation.at([t]),
        load_p_kw=whole.load_p_kw[[t]],
        load_q_kvar=whole.load_q_kvar[[t]],
        resources=replace(whole.resources, p_max_kw=whole.resources.p_max_kw[[t]]),
        bids=during(whole.bids, [t]),
    )


def with_every_service(case: MarketCase, needed: dict[str, float], shortage: float) -> MarketCase:
    """The same case in which every resource offers all it could, of services `needed` as shares of the highest load."""
    resources, random = case.resources, np.random.default_rng(0)
    real_kw = resources.p_max_kw.max(axis=0) - resources.p_min_kw
    reactive_kvar = resources.q_max_kvar - resources.q_min_kvar
    offers = [
        Ready(name, service, quantity, random.uniform(1, 8))
        for service in needed
        for name, quantity in zip(
            resources.name.tolist(), reactive_kvar if service.startswith("var") else real_kw, strict=True
        )
        if quantity > 0
    ]
    highest_kw = case.load_p_kw.sum(axis=1).max()
    return with_services(
        case, offers, [Needed(service, share * highest_kw, shortage) for service, share in needed.items()]
    )
