"""Frozen, seeded market days on public feeders: the same bids at every run."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
from scipy import sparse

from benchmarks.feeders import (
    NODES_OF_A_TRUNK,
    banded,
    feeder69,
    ieee123,
    ieee9500,
    narrow123,
    pandapower_feeder,
    simbench_feeder,
    synthetic,
    throttled,
)
from dlmp import Settings
from dlmp.bids import Bids, Resources, at_ports
from dlmp.market import Horizon, MarketCase, Substation
from dlmp.network.model import FloatArray, IntArray, Network
from dlmp.services import CAPACITY_DOWN, CAPACITY_UP, VAR_DOWN, VAR_UP, Requirements, ServiceOffers, everywhere
from dlmp.stores import Stores

SEGMENTS = 2
LOSSLESS = Settings(formulation="lindistflow", losses="none", limits="hard")
LINEAR = Settings(formulation="lindistflow", losses="linear", limits="hard")


@dataclass(frozen=True)
class Spec:
    """A feeder, intervals of a day, how many nodes bid (a share, or a number) and up to how much.

    `storages` and `vehicles` are numbers of stores on top.  `capacity` is true where they and all others offer capacity
    up and down, and `var` where all with a range of reactive power offer that, too.  That range is `reactive` times
    the size of a generator each way.

    `settings` are those that the engine clears it with, in so many `workers`, `peers` the programs that solve it as
    well, by their names in `benchmarks.peers`, and `distopf` the case of DistOPF that is nearest to it. `series`
    names a row of specs of which nothing but the size differs, for the growth of time with it. `quick` is true
    where ``--quick`` measures it, too.
    """

    name: str
    network: Callable[[], Network]
    intervals: int
    bidders: float = 0.3
    size_kw: tuple[float, float] = (50.0, 800.0)
    seed: int = 0
    storages: int = 0
    vehicles: int = 0
    capacity: bool = False
    var: bool = False
    reactive: float = 0.3
    settings: Settings = field(default_factory=Settings)
    workers: int = 1
    peers: tuple[str, ...] = ()
    distopf: str = ""
    series: str = ""
    quick: bool = False


mv_rural = simbench_feeder("1-MV-rural--0-sw")
mvlv_rural = simbench_feeder("1-MVLV-rural-all-0-sw")

BY_INTERVALS, BY_NODES, BY_NODES_AND_PHASE, BY_NODES_REACTIVE = "intervals", "nodes", "by phase", "reactive"


def of_workers(count: int) -> str:
    """What the name of a spec says of its workers."""
    return f", {count} workers" if count > 1 else ""


def grown_spec(nodes: int, intervals: int, *, by_phase: bool = False, reactive: float = 0.0, **options: Any) -> Spec:
    """A spec on a synthetic feeder, of which three nodes in ten bid as much as a few of its loads consume."""
    name = f"synthetic {nodes:,}{' by phase' if by_phase else ''} x {intervals}{', reactive' if reactive else ''}"
    name += of_workers(options.get("workers", 1))
    load_kw = 5000.0 * max(1, round(nodes / NODES_OF_A_TRUNK)) / nodes
    feeder = partial(synthetic, nodes, by_phase=by_phase)
    return Spec(name, feeder, intervals, size_kw=(0.5 * load_kw, 4 * load_kw), reactive=reactive, **options)


def mvlv_spec(intervals: int, **options: Any) -> Spec:
    """A spec on the rural grid of SimBench with its low voltage, of which three buses in ten bid."""
    name = f"MVLV rural x {intervals}{', real alone' if options.get('reactive') == 0 else ''}"
    name += of_workers(options.get("workers", 1))
    return Spec(name, mvlv_rural, intervals, size_kw=(1.0, 10.0), **options)


LINEAR_PEERS = {"settings": LINEAR, "peers": ("LP",)}
AC_PEERS = ("pandapower", "PyPSA", "AC-OPF")

SPECS = (
    Spec("33 buses x 1", pandapower_feeder("case33bw"), 1, peers=AC_PEERS, quick=True),
    Spec("33 buses x 24", pandapower_feeder("case33bw"), 24, peers=AC_PEERS),
    Spec("33 buses x 24, lossless", pandapower_feeder("case33bw"), 24, settings=LOSSLESS, peers=("LP",), quick=True),
    Spec("69 buses x 24", feeder69, 24, size_kw=(20.0, 300.0), peers=AC_PEERS),
    Spec("mv_oberrhein x 24", pandapower_feeder("mv_oberrhein"), 24),
    Spec("mv_oberrhein x 96", pandapower_feeder("mv_oberrhein"), 96),
    Spec("MV rural x 24", mv_rural, 24, peers=AC_PEERS),
    Spec("IEEE 123 x 1", ieee123, 1, 30, (30.0, 100.0), peers=("AC-OPF",), distopf="ieee123_30der", quick=True),
    Spec("IEEE 123 x 24", ieee123, 24, 30, (30.0, 100.0), peers=("AC-OPF",), quick=True),
    Spec("IEEE 123 x 24, linear losses", ieee123, 24, 30, (30.0, 100.0), **LINEAR_PEERS, quick=True),
    Spec("IEEE 123 x 96", ieee123, 96, 30, (30.0, 100.0)),
    Spec("IEEE 123 x 96, 60 stores", ieee123, 96, 30, (30.0, 100.0), storages=30, vehicles=30),
    Spec("IEEE 123 x 96, 60 stores, capacity", ieee123, 96, 30, (30.0, 100.0), storages=30, vehicles=30, capacity=True),
    Spec("IEEE 123 x 24, services", narrow123, 24, 30, (30.0, 100.0), capacity=True, var=True),
    *(
        grown_spec(500, intervals, series=BY_INTERVALS, quick=True, peers=("PyPSA",) if intervals == 24 else ())
        for intervals in (1, 4, 24, 96)
    ),
    *(
        grown_spec(nodes, 6, series=BY_NODES, quick=nodes <= 1000)
        for nodes in (100, 250, 500, 1000, 2000, 5000, 10_000)
    ),
    *(
        grown_spec(nodes, 6, by_phase=True, series=BY_NODES_AND_PHASE, quick=nodes <= 1000)
        for nodes in (100, 250, 500, 1000, 2000, 5000, 10_000)
    ),
    *(
        grown_spec(nodes, 6, reactive=0.3, series=BY_NODES_REACTIVE, quick=nodes <= 1000)
        for nodes in (100, 250, 500, 1000, 2000)
    ),
    grown_spec(2000, 24, peers=("PyPSA",)),
    Spec(
        "synthetic 1,000 x 2, linear losses", partial(synthetic, 1000), 2, 0.3, (2.0, 20.0), **LINEAR_PEERS, quick=True
    ),
    Spec("synthetic 8,500 x 24, linear losses", partial(synthetic, 8500), 24, 0.3, (0.5, 5.0), **LINEAR_PEERS),
    Spec("9,500 nodes x 1", ieee9500, 1, 200, (9.0, 30.0), distopf="ieee9500"),
    Spec("9,500 nodes x 24", ieee9500, 24, 200, (9.0, 30.0)),
    Spec("9,500 nodes x 24, 2 workers", ieee9500, 24, 200, (9.0, 30.0), workers=2),
    Spec("9,500 nodes x 96, 2 workers", ieee9500, 96, 200, (9.0, 30.0), workers=2),
    mvlv_spec(1, reactive=0.0),
    mvlv_spec(1, peers=("pandapower", "PyPSA")),
    mvlv_spec(24, reactive=0.0),
    mvlv_spec(96, reactive=0.0),
    mvlv_spec(96, reactive=0.0, workers=2),
    mvlv_spec(96, workers=2),
    grown_spec(50_000, 24),
    grown_spec(50_000, 24, workers=2),
)
"""What is measured."""


ACCURACY = (
    Spec("33 buses", banded(pandapower_feeder("case33bw"), 0.92, 1.02), 8, seed=1, quick=True),
    Spec("33 buses, congested", throttled(pandapower_feeder("case33bw"), 2900.0), 8, 0.5, seed=2, quick=True),
    Spec("69 buses", banded(feeder69, 0.92, 1.0), 8, size_kw=(20.0, 300.0), quick=True),
    Spec("IEEE 123", partial(ieee123, v_max_pu=1.06), 8, 30, (30.0, 100.0), quick=True),
    Spec("MV rural", banded(mv_rural, 0.96, 1.04), 8, seed=1, quick=True),
)
"""Cases with limits that bind, beside which the exact optimum stands."""


def named(name: str) -> Spec:
    """The spec of that name.

    Raises
    ------
    KeyError
        For an unknown name.
    """
    return {spec.name: spec for spec in SPECS}[name]


def build(spec: Spec, network: Network) -> MarketCase:
    """Make the day of `spec`: solar, generators and flexible load, two segments each; one interval is 18:00."""
    random = np.random.default_rng(spec.seed)
    inner = np.flatnonzero(network.is_priced[: network.node_count] & ~network.is_source)
    bidders = int(spec.bidders if spec.bidders >= 1 else spec.bidders * len(inner))
    node = np.sort(random.choice(inner, bidders, replace=False))
    count, hour = len(node), np.arange(spec.intervals) * 24 / spec.intervals if spec.intervals > 1 else np.array([18.0])
    kind = random.integers(0, 3, count)
    size_kw = random.uniform(*spec.size_kw, count)
    sun = np.clip(np.sin((hour - 6) / 12 * np.pi), 0, None)[:, None]
    p_max_kw = np.where(kind == 0, size_kw * sun, np.where(kind == 1, size_kw, 0.0))
    p_min_kw = np.where(kind == 2, -0.3 * size_kw, 0.0)
    is_source = kind < 2
    resources = Resources(
        name=np.array([f"resource {index}" for index in range(count)]),
        kind=np.array(["solar", "generator", "load"])[kind],
        share=at_ports(node, network.port_count),
        p_min_kw=p_min_kw,
        p_max_kw=p_max_kw,
        q_min_kvar=np.where(is_source, -spec.reactive * size_kw, 0.0),
        q_max_kvar=np.where(is_source, spec.reactive * size_kw, 0.0),
        s_max_kva=np.where(is_source, 1.05 * size_kw, np.inf),
    )
    bids = _bids(random, kind, p_min_kw, p_max_kw)
    load = 0.6 + 0.4 * np.sin((hour - 9) / 24 * 2 * np.pi)[:, None] ** 2
    price = 35 - 30 * np.exp(-(((hour - 12.5) / 2.5) ** 2)) + 25 * np.exp(-(((hour - 19) / 2) ** 2))
    p_kw, q_kvar = network.element_loads()
    case = MarketCase(
        name=spec.name,
        network=network,
        horizon=Horizon(datetime(2026, 1, 1, tzinfo=UTC), min(60, 24 * 60 // spec.intervals), spec.intervals),
        substation=Substation(price, np.zeros(spec.intervals)),
        load_p_kw=load * p_kw,
        load_q_kvar=load * q_kvar,
        resources=resources,
        bids=bids,
    )
    case = with_stores(case, spec, random, inner) if spec.storages + spec.vehicles else case
    case = with_capacity(case, random) if spec.capacity else case
    return with_var(case, random) if spec.var else case


def with_stores(case: MarketCase, spec: Spec, random: np.random.Generator, nodes: IntArray) -> MarketCase:
    """Add batteries of two hours, and vehicles that are plugged in at night and full at 07:00."""
    count, intervals = spec.storages + spec.vehicles, spec.intervals
    is_battery = np.arange(count) < spec.storages
    hour = np.arange(1, intervals + 1) * 24 / intervals
    size_kw = np.where(is_battery, random.uniform(30.0, 100.0, count), random.uniform(7.0, 22.0, count))
    is_home = (hour <= 7.0) | (hour > 18.0)
    power_kw = np.where(is_battery | is_home[:, None], size_kw, 0.0)
    energy_kwh = np.tile(np.where(is_battery, 2.0, 4.0) * size_kw, (intervals, 1))
    least_kwh = np.where(~is_battery & (np.abs(hour - 7.0) < 1e-9)[:, None], 0.9 * energy_kwh, 0.0)
    first, resources = len(case.resources), case.resources
    reach = np.where(is_battery, 0.4 * size_kw, 0.0)
    added = Resources(
        name=np.array([f"{'battery' if own else 'vehicle'} {index}" for index, own in enumerate(is_battery)]),
        kind=np.where(is_battery, "storage", "ev"),
        share=at_ports(random.choice(nodes, count), case.network.port_count),
        p_min_kw=-size_kw,
        p_max_kw=np.where(is_battery, power_kw, 0.0),
        q_min_kvar=-reach,
        q_max_kvar=reach,
        s_max_kva=np.where(is_battery, 1.05 * size_kw, np.inf),
    )
    stores = Stores(
        resource=first + np.arange(count),
        charge_max_kw=power_kw,
        discharge_max_kw=np.where(is_battery, power_kw, 0.0),
        energy_min_kwh=least_kwh,
        energy_max_kwh=energy_kwh,
        initial_kwh=np.where(is_battery, 0.5, 0.25) * energy_kwh[0],
        charge_efficiency=random.uniform(0.92, 0.97, count),
        discharge_efficiency=random.uniform(0.92, 0.97, count),
        retention=np.full(count, 0.9995),
        drain_kw=np.where(~is_battery & ~is_home[:, None], 0.2 * size_kw, 0.0),
        cycling_usd_per_mwh=np.where(is_battery, random.uniform(1.0, 4.0, count), 0.0),
        shortfall_usd_per_mwh=np.where(is_battery, np.inf, 500.0),
        final_usd_per_mwh=np.full(count, 25.0),
    )
    bids = case.bids
    return replace(case, resources=joined(resources, added), bids=bids, stores=stores)


def with_capacity(case: MarketCase, random: np.random.Generator) -> MarketCase:
    """Let every resource offer capacity for one interval, and require a tenth of the highest load each way."""
    reach_kw = case.resources.p_max_kw.max(axis=0) - case.resources.p_min_kw
    return _with_offers(case, random, (CAPACITY_UP, CAPACITY_DOWN), reach_kw, share_of_load=0.1)


def with_var(case: MarketCase, random: np.random.Generator) -> MarketCase:
    """Let every resource offer its reactive power for one interval, and require a twentieth of the highest load."""
    reach_kvar = case.resources.q_max_kvar - case.resources.q_min_kvar
    return _with_offers(case, random, (VAR_UP, VAR_DOWN), reach_kvar, share_of_load=0.05)


def _with_offers(
    case: MarketCase,
    random: np.random.Generator,
    services: tuple[str, str],
    reach: FloatArray,
    share_of_load: float,
) -> MarketCase:
    """Offer so much of each of `services` from every resource that has any, and require a share of the highest load."""
    intervals, known, needed = case.horizon.intervals, case.service_offers, case.requirements
    owner = np.flatnonzero(reach > 0)
    price = random.uniform(1.0, 8.0, len(services) * len(owner))
    offers = ServiceOffers(
        resource=np.r_[known.resource, np.tile(owner, len(services))],
        service=np.r_[known.service, np.repeat(services, len(owner))],
        quantity_kw=np.hstack([known.quantity_kw, np.tile(reach[owner], (intervals, len(services)))]),
        price_usd_per_mw_h=np.hstack([known.price_usd_per_mw_h, np.tile(price, (intervals, 1))]),
        duration_hours=np.r_[known.duration_hours, np.full(len(price), 24 / intervals)],
    )
    required_kw = np.full((intervals, len(services)), share_of_load * case.load_p_kw.sum(axis=1).max())
    requirements = Requirements(
        name=np.r_[needed.name, services],
        service=np.r_[needed.service, services],
        place=np.r_[needed.place, np.full(len(services), "substation")],
        counts=np.vstack([needed.counts, np.tile(everywhere(case.network), (len(services), 1))]),
        quantity_kw=np.hstack([needed.quantity_kw, required_kw]),
        shortage_usd_per_mw_h=np.r_[needed.shortage_usd_per_mw_h, np.full(len(services), 1000.0)],
    )
    return replace(case, service_offers=offers, requirements=requirements)


def joined(one: Resources, other: Resources) -> Resources:
    """The resources of `one`, then those of `other`."""
    parts = {item.name: (getattr(one, item.name), getattr(other, item.name)) for item in fields(Resources)}
    stacked = {name: np.concatenate(both, axis=-1) for name, both in parts.items() if name != "share"}
    return Resources(share=sparse.csr_array(sparse.vstack(parts["share"])), **stacked)


def _bids(random: np.random.Generator, kind, p_min_kw, p_max_kw) -> Bids:
    resource = np.repeat(np.arange(len(kind)), SEGMENTS)
    is_supply = kind[resource] < 2
    quantity = np.where(is_supply, p_max_kw[:, resource], -p_min_kw[resource]) / SEGMENTS
    lowest = np.choose(
        kind, [random.uniform(0, 5, len(kind)), random.uniform(25, 55, len(kind)), random.uniform(10, 80, len(kind))]
    )
    step = np.tile(np.arange(SEGMENTS) * 4.0, len(kind))
    price = lowest[resource] + np.where(is_supply, step, -step)
    segment = np.tile(np.arange(SEGMENTS), len(kind))
    return Bids(resource, is_supply, segment, quantity, np.tile(price, (len(p_max_kw), 1)))
