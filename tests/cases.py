"""Market cases on which the engine is compared with the AC oracle of `acopf.py`.

`CASES` maps a name to a function that builds the case; `BINDING` maps it to the limits that hold it at the
optimum.  Prices and quantities avoid ties and breakpoints, so that awards and prices are unique.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pandapower.networks
import pytest
from numpy.typing import ArrayLike

from dlmp import newton
from dlmp.bids import Bids, Resources, at_ports
from dlmp.market import MarketCase, Substation, simple_case
from dlmp.network.model import Network
from dlmp.network.pandapower import from_pandapower
from dlmp.network.tables import read_tables
from dlmp.shipped import shipped_case
from dlmp.units import BASE_KVA, base_current_a

CASES: dict[str, Callable[[], MarketCase]] = {}
"""Every case by name; a case is built once."""

BINDING: dict[str, set[str]] = {}
"""Limits that bind: ``v_min``, ``v_max``, ``branch``, ``import`` and ``rating`` (of a resource)."""

Blocks = Sequence[tuple[ArrayLike, ArrayLike]]
"""Bid segments of one side: (quantity [kW], price [currency/MWh]), each a number or one per interval."""


@dataclass(frozen=True)
class Offer:
    """One resource with its bids, as `resource` makes it."""

    name: str
    kind: str
    bus: str
    supply: Blocks
    demand: Blocks
    must_run_kw: float
    available_kw: ArrayLike | None
    q_kvar: tuple[float, float]
    s_max_kva: float


def case(*binding: str) -> Callable[[Callable[[], MarketCase]], Callable[[], MarketCase]]:
    """Enter the decorated builder into `CASES` under its own name."""

    def enter(build: Callable[[], MarketCase]) -> Callable[[], MarketCase]:
        name = build.__name__
        CASES[name] = cache(lambda: replace(build(), name=name))
        BINDING[name] = set(binding)
        return build

    return enter


def resource(
    name: str,
    bus: str | int,
    *,
    kind: str = "generator",
    supply: Blocks = (),
    demand: Blocks = (),
    must_run_kw: float = 0.0,
    available_kw: ArrayLike | None = None,
    q_kvar: tuple[float, float] = (0.0, 0.0),
    s_max_kva: float = np.inf,
) -> Offer:
    """A resource whose real range is that of its bids, or within it from what must run to what is available."""
    return Offer(name, kind, str(bus), supply, demand, must_run_kw, available_kw, q_kvar, s_max_kva)


def market(
    network: Network, price: ArrayLike, *offers: Offer, load: ArrayLike = 1.0, **substation: ArrayLike
) -> MarketCase:
    """A case of one interval per import price [currency/MWh], the network's own loads scaled by `load`."""
    intervals = np.size(price)
    plain = simple_case(network, np.atleast_1d(price))
    scale = np.broadcast_to(load, intervals)[:, None]
    reactive = np.broadcast_to(substation.pop("q_price_usd_per_mvarh", 0.0), intervals)
    bids, resources = bids_of(offers, intervals), resources_of(offers, network, intervals)
    return replace(
        plain,
        substation=Substation(np.atleast_1d(price), reactive, **substation),
        load_p_kw=plain.load_p_kw * scale,
        load_q_kvar=plain.load_q_kvar * scale,
        resources=resources,
        bids=bids,
    )


def bids_of(offers: tuple[Offer, ...], intervals: int) -> Bids:
    """Every block of every offer, supply before demand."""
    rows = [
        (index, is_supply, segment, *np.broadcast_arrays(quantity, price, np.zeros(intervals))[:2])
        for index, offer in enumerate(offers)
        for is_supply, blocks in ((True, offer.supply), (False, offer.demand))
        for segment, (quantity, price) in enumerate(blocks)
    ]
    owner, is_supply, segment, quantity, price = zip(*rows, strict=True)
    return Bids(
        np.array(owner),
        np.array(is_supply),
        np.array(segment),
        np.array(quantity, dtype=float).T,
        np.array(price, dtype=float).T,
    )


def during(bids: Bids, intervals: slice | list[int]) -> Bids:
    """The same bids in some of their intervals."""
    return replace(bids, **{name: values[intervals] for name, values in vars(bids).items() if values.ndim == 2})


def resources_of(offers: tuple[Offer, ...], network: Network, intervals: int) -> Resources:
    """The resources of `offers`, at their nodes."""
    most = [offer.available_kw if offer.available_kw is not None else total(offer.supply) for offer in offers]
    return Resources(
        name=np.array([offer.name for offer in offers]),
        kind=np.array([offer.kind for offer in offers]),
        share=at_ports([network.node(offer.bus) for offer in offers], network.port_count),
        p_min_kw=np.array([offer.must_run_kw - np.max(total(offer.demand)) for offer in offers]),
        p_max_kw=np.array([np.broadcast_to(kw, intervals) for kw in most], dtype=float).T,
        q_min_kvar=np.array([offer.q_kvar[0] for offer in offers]),
        q_max_kvar=np.array([offer.q_kvar[1] for offer in offers]),
        s_max_kva=np.array([offer.s_max_kva for offer in offers]),
    )


def total(blocks: Blocks) -> ArrayLike:
    """Sum of the quantities of `blocks` [kW]."""
    return sum((np.asarray(quantity, dtype=float) for quantity, _ in blocks), np.float64(0.0))


@cache
def baran_wu(meshed: bool) -> Network:
    net = pandapower.networks.case33bw()
    net.line["in_service"] |= meshed
    return from_pandapower(net)


@cache
def baran_wu_69() -> Network:
    return read_tables(shipped_case("feeder69"))


@cache
def cigre_mv(meshed: bool) -> Network:
    net = pandapower.networks.create_cigre_network_mv()
    net.switch["closed"] |= meshed
    return from_pandapower(net)


def feeder33(*, meshed: bool = False, v_min_pu: float = 0.9, v_max_pu: float = 1.1) -> Network:
    """Baran and Wu's feeder, 12.66 kV, 3.7 MW; meshed through its five tie lines; without pandapower's drawing."""
    network = banded(baran_wu(meshed), v_min_pu, v_max_pu)
    return replace(network, xy=np.full((network.node_count, 2), np.nan))


def feeder69(*, v_min_pu: float = 0.9, v_max_pu: float = 1.1) -> Network:
    """Baran and Wu's other feeder, 12.66 kV, 3.8 MW, a third of it at bus 61 of one long lateral."""
    return banded(baran_wu_69(), v_min_pu, v_max_pu)


def cigre(*, meshed: bool = False, v_min_pu: float = 0.9, v_max_pu: float = 1.1) -> Network:
    """CIGRE's medium voltage network, 20 kV behind two 25 MVA transformers; meshed by its switches S1 to S3."""
    return banded(cigre_mv(meshed), v_min_pu, v_max_pu)


def banded(network: Network, v_min_pu: float, v_max_pu: float) -> Network:
    """The same network with one voltage band [pu] everywhere."""
    nodes = network.node_count
    return replace(network, v_min_pu=np.full(nodes, v_min_pu), v_max_pu=np.full(nodes, v_max_pu))


def rated(network: Network, branch: str, *, ampere: float | None = None, kva: float | None = None) -> Network:
    """The same network with one branch limited at both ends, by current [A] or apparent power [kVA]."""
    index = list(network.branch).index(branch)
    by_current = network.rating_is_current.copy()
    by_current[index] = kva is None
    limit = kva / BASE_KVA if kva is not None else ampere / base_current_a(network.base_kv[network.to_node[index]])
    sides = {}
    for side in ("rating_from_pu", "rating_to_pu"):
        sides[side] = getattr(network, side).copy()
        sides[side][index] = limit
    return replace(network, rating_is_current=by_current, **sides)


def generators33(q_kvar: tuple[float, float] = (0.0, 0.0), s_max_kva: float = np.inf) -> list[Offer]:
    """Dear generators along the feeder's three long laterals."""
    common = {"q_kvar": q_kvar, "s_max_kva": s_max_kva}
    return [
        resource("far", 17, supply=[(300, 31), (400, 47)], **common),
        resource("south", 32, supply=[(350, 34), (450, 52)], **common),
        resource("north", 24, supply=[(600, 28), (300, 41)], **common),
        resource("middle", 9, supply=[(200, 37), (500, 59)], **common),
    ]


def solar33(q_share: float = 0.0) -> list[Offer]:
    """Twice the feeder's load of solar power, at zero and negative prices, with inverters 10 % larger."""
    sizes = {17: (1500, 0.0), 32: (2200, -3.0), 24: (2000, -1.0), 13: (1300, -2.0), 21: (700, -4.0)}
    return [
        resource(
            f"solar {bus}",
            bus,
            kind="solar",
            supply=[(kw, price)],
            q_kvar=(-q_share * kw, q_share * kw),
            s_max_kva=1.1 * kw if q_share else np.inf,
        )
        for bus, (kw, price) in sizes.items()
    ]


def elastic33() -> list[Offer]:
    """Flexible consumers, of whom some are near the substation and some behind its losses."""
    return [
        resource("heat 17", 17, kind="demand_response", demand=[(150, 60), (200, 23.5), (100, 15)]),
        resource("heat 32", 32, kind="demand_response", demand=[(120, 45), (260, 23.2), (150, 12)]),
        resource("pump 2", 2, kind="load", demand=[(400, 35), (500, 19)]),
        resource("cars 21", 21, kind="ev", demand=[(250, 28), (300, 20.1), (200, 18)]),
    ]


@case()
def base_33() -> MarketCase:
    return simple_case(feeder33(), 20.0)


@case("v_min")
def undervoltage_33() -> MarketCase:
    return market(feeder33(v_min_pu=0.94), 20.0, *generators33())


@case("v_min", "rating")
def undervoltage_reactive_33() -> MarketCase:
    return market(feeder33(v_min_pu=0.95), 20.0, *generators33((-150.0, 250.0), 400.0))


@case("branch")
def congestion_current_33() -> MarketCase:
    return market(rated(feeder33(), "line 2", ampere=100.0), 20.0, *generators33())


@case("branch")
def congestion_power_33() -> MarketCase:
    return market(rated(feeder33(), "line 0", kva=3600.0), 20.0, *generators33((-100.0, 200.0)))


@case("v_max")
def overvoltage_33() -> MarketCase:
    return market(feeder33(v_max_pu=1.04), 20.0, *solar33())


@case("v_max", "rating")
def overvoltage_reactive_33() -> MarketCase:
    return market(feeder33(v_max_pu=1.03), 20.0, *solar33(q_share=0.6))


@case("v_min")
def undervoltage_meshed_33() -> MarketCase:
    return market(feeder33(meshed=True, v_min_pu=0.965), 20.0, *generators33((0.0, 50.0)))


@case("branch")
def congestion_meshed_33() -> MarketCase:
    return market(rated(feeder33(meshed=True), "line 1", ampere=110.0), 20.0, *generators33())


@case("v_max")
def overvoltage_meshed_33() -> MarketCase:
    return market(feeder33(meshed=True, v_max_pu=1.02), 20.0, *solar33())


@case("v_min")
def negative_price_33() -> MarketCase:
    storage = [resource(f"store {bus}", bus, kind="ev", demand=[(800, -6), (700, -18)]) for bus in (17, 24, 29)]
    return market(feeder33(v_min_pu=0.89), -20.0, *solar33(), *storage)


@case()
def interior_33() -> MarketCase:
    sources = [resource(f"var {bus}", bus, kind="other", q_kvar=(-900.0, 900.0)) for bus in range(4, 33, 4)]
    return market(feeder33(), 20.0, *sources, resource("far", 17, supply=[(250, 13), (400, 20.6)]))


@case("import")
def import_cap_33() -> MarketCase:
    return market(feeder33(), 20.0, *generators33(), *elastic33(), p_max_kw=3200.0)


@case("import")
def export_cap_33() -> MarketCase:
    return market(feeder33(), 20.0, *solar33(), p_min_kw=-1000.0)


@case()
def elastic_33() -> MarketCase:
    return market(feeder33(v_min_pu=0.85), 20.0, *elastic33())


@case("v_min")
def elastic_undervoltage_33() -> MarketCase:
    return market(feeder33(), 20.0, *elastic33())


@case("rating")
def reactive_price_33() -> MarketCase:
    return market(feeder33(), 30.0, *generators33((-100.0, 400.0), 500.0), q_price_usd_per_mvarh=6.0)


@case()
def heavy_33() -> MarketCase:
    """Two and a half times the load, and 14 % of the import lost: far from any linear law."""
    chp = resource("chp", 14, supply=[(200, 55), (150, 58)], must_run_kw=200.0)
    return market(feeder33(v_min_pu=0.6), 20.0, chp, *generators33((-50.0, 50.0)), load=2.5)


@case()
def two_sources_33() -> MarketCase:
    network = feeder33(meshed=True)
    second = {"source": np.array([0, 24]), "source_v_pu": np.array([1.0, 0.995 * np.exp(-0.004j)])}
    return market(replace(network, **second), 20.0, *elastic33())


@case("v_max")
def day_33() -> MarketCase:
    """Night, noon and evening: no sun in the first interval and little in the last."""
    sun = np.array([0.0, 1.0, 0.15])
    inverter = {"kind": "solar", "q_kvar": (-500.0, 500.0)}
    solar = [
        resource(f"solar {bus}", bus, supply=[(kw, 0.0)], available_kw=kw * sun, s_max_kva=kw, **inverter)
        for bus, kw in ((17, 2000.0), (32, 3000.0))
    ]
    return market(
        feeder33(v_max_pu=1.03),
        [18.0, 25.0, 42.0],
        *solar,
        resource("north", 24, supply=[(600, [28, 29, 30]), (300, [41, 43, 45.5])]),
        resource("pump", 30, kind="load", demand=[([100, 300, 200], [50, 40, 44])]),
        load=[0.6, 0.8, 1.1],
    )


def generators69(q_kvar: tuple[float, float] = (0.0, 0.0), s_max_kva: float = np.inf) -> list[Offer]:
    """Dear generators on the trunk, at its end, and on the lateral with most of the load."""
    common = {"q_kvar": q_kvar, "s_max_kva": s_max_kva}
    return [
        resource("far", 27, supply=[(250, 29), (350, 44)], **common),
        resource("town", 61, supply=[(400, 33), (600, 51)], **common),
        resource("edge", 65, supply=[(300, 36), (400, 57)], **common),
        resource("middle", 11, supply=[(300, 38), (400, 62)], **common),
        resource("side", 50, supply=[(500, 27), (500, 42)], **common),
    ]


def solar69() -> list[Offer]:
    """Twice the feeder's load of solar power, at zero and negative prices."""
    sizes = {27: (1400, -1.0), 35: (500, 0.0), 46: (900, -4.0), 50: (1300, -3.0), 65: (2600, -2.0), 69: (900, -5.0)}
    return [resource(f"solar {bus}", bus, kind="solar", supply=[(kw, price)]) for bus, (kw, price) in sizes.items()]


@case("v_min", "rating")
def undervoltage_69() -> MarketCase:
    return market(feeder69(v_min_pu=0.95), 20.0, *generators69((-100.0, 200.0), 450.0))


@case("branch")
def congestion_69() -> MarketCase:
    return market(rated(feeder69(), "8-9", ampere=95.0), 20.0, *generators69())


@case("v_max")
def export_overvoltage_69() -> MarketCase:
    return market(feeder69(v_max_pu=1.03), 20.0, *solar69())


def plants_cigre() -> list[Offer]:
    """Solar parks, a wind farm and dear generators in the first feeder, and one in the second."""
    return [
        resource("wind 7", "Bus 7", kind="wind", supply=[(1500, 2)], q_kvar=(-300.0, 300.0), s_max_kva=1500.0),
        resource("solar 5", "Bus 5", kind="solar", supply=[(800, 0)], q_kvar=(-250.0, 250.0), s_max_kva=880.0),
        resource("engine 10", "Bus 10", supply=[(900, 46), (1200, 63)], q_kvar=(0.0, 400.0)),
        resource("engine 3", "Bus 3", supply=[(700, 39), (800, 57)], q_kvar=(0.0, 300.0)),
        resource("engine 1", "Bus 1", supply=[(1000, 43), (2000, 71)]),
        resource("flexible 13", "Bus 13", kind="demand_response", demand=[(500, 90), (800, 33)]),
    ]


@case("branch", "rating")
def transformer_cigre() -> MarketCase:
    return market(cigre(), 30.0, *plants_cigre(), load=1.14)


@case("v_min", "rating")
def undervoltage_cigre() -> MarketCase:
    return market(cigre(v_min_pu=0.9855), 30.0, *plants_cigre(), load=0.95)


@case("branch", "rating")
def transformer_meshed_cigre() -> MarketCase:
    return market(cigre(meshed=True), 30.0, *plants_cigre(), load=1.1)


@case("v_min", "rating")
def undervoltage_meshed_cigre() -> MarketCase:
    return market(cigre(meshed=True, v_min_pu=0.985), 30.0, *plants_cigre(), load=0.95)


def one_interval(case: MarketCase, interval: int) -> MarketCase:
    """One interval of `case` as a case of its own."""
    here = slice(interval, interval + 1)
    return replace(
        case,
        horizon=replace(case.horizon, intervals=1, start=case.horizon.starts[interval]),
        substation=case.substation.at(here),
        load_p_kw=case.load_p_kw[here],
        load_q_kvar=case.load_q_kvar[here],
        resources=replace(case.resources, p_max_kw=case.resources.p_max_kw[here]),
        bids=during(case.bids, here),
    )


def without_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the Newton finish from getting anywhere: a clearing stands where its last LP left it."""
    monkeypatch.setattr(newton, "MAX_STEPS", 0)
    monkeypatch.setattr(newton, "MAX_QUADRATIC_STEPS", 0)
