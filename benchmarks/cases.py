"""Frozen, seeded market days on public feeders: the same bids at every run."""

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pandapower.networks

from dlmp.bids import Bids, Resources, at_ports
from dlmp.market import Horizon, MarketCase, Substation
from dlmp.network.pandapower import from_pandapower

SEGMENTS = 2


@dataclass(frozen=True)
class Spec:
    """A feeder of `pandapower.networks`, intervals of a day, and the share of buses that bid."""

    name: str
    feeder: str
    intervals: int
    bidding_share: float = 0.3
    seed: int = 0


SPECS = (
    Spec("33 buses x 24", "case33bw", 24),
    Spec("mv_oberrhein x 24", "mv_oberrhein", 24),
    Spec("mv_oberrhein x 96", "mv_oberrhein", 96),
)


def build(spec: Spec) -> MarketCase:
    """Make the day of `spec`: solar, generators and flexible load of 50-800 kW, two segments each."""
    network = from_pandapower(getattr(pandapower.networks, spec.feeder)())
    random = np.random.default_rng(spec.seed)
    inner = np.flatnonzero(~network.is_source)
    node = np.sort(random.choice(inner, int(spec.bidding_share * len(inner)), replace=False))
    count, hour = len(node), np.arange(spec.intervals) * 24 / spec.intervals
    kind = random.integers(0, 3, count)
    size_kw = random.uniform(50, 800, count)
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
        q_min_kvar=np.where(is_source, -0.3 * size_kw, 0.0),
        q_max_kvar=np.where(is_source, 0.3 * size_kw, 0.0),
        s_max_kva=np.where(is_source, 1.05 * size_kw, np.inf),
    )
    bids = _bids(random, kind, p_min_kw, p_max_kw)
    load = 0.6 + 0.4 * np.sin((hour - 9) / 24 * 2 * np.pi)[:, None] ** 2
    price = 35 - 30 * np.exp(-(((hour - 12.5) / 2.5) ** 2)) + 25 * np.exp(-(((hour - 19) / 2) ** 2))
    p_kw, q_kvar = network.element_loads()
    return MarketCase(
        name=spec.name,
        network=network,
        horizon=Horizon(datetime(2026, 1, 1, tzinfo=UTC), 24 * 60 // spec.intervals, spec.intervals),
        substation=Substation(price, np.zeros(spec.intervals)),
        load_p_kw=load * p_kw,
        load_q_kvar=load * q_kvar,
        resources=resources,
        bids=bids,
    )


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
