"""Aggregators with plausible portfolios: what ships with a feeder, and solar, generators and flexible demand beside it.

All of it comes from a seed: the same feeder, number of aggregators and seed give the same bids.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from dlmp.client import Bid, Market
from dlmp.client.bidfile import times_of
from dlmp.client.bids import AnyBid

SOLAR, GENERATOR, DEMAND = "solar", "generator", "demand_response"
ADDED = (SOLAR, GENERATOR, DEMAND)
SUNRISE_H, SUNSET_H = 6.0, 20.0
LEAST_KW = 0.5
AGGREGATORS = ("Sunrise", "Meadow", "Canyon", "Harbor", "Orchard", "Summit", "Prairie", "Delta")
Curve = tuple[tuple[float, float], ...]


class Asset(Protocol):
    """A resource, and what is bid for it."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def place(self) -> Mapping[str, str]:
        """Where it is, and of which kind, as it is registered: ``bus``, ``phase`` and ``kind``."""

    @property
    def limits(self) -> Mapping[str, float]:
        """Its registered limits by name, ``p_max_kw`` and so on."""

    def bids(self, market: Market, resource_id: str) -> Iterator[AnyBid]:
        """What is bid for it in a market, where it is known as `resource_id`."""


@dataclass(frozen=True)
class InventedAsset:
    """A resource, and what it offers.

    Parameters
    ----------
    name, bus, phase, kind
        As it is registered.
    p_min_kw, p_max_kw
        Its registered limits [kW].
    side
        Which way it bids.
    curve
        Its curve at full size: pairs of quantity [kW] and price [currency/MWh].
    """

    name: str
    bus: str
    phase: str
    kind: str
    p_min_kw: float
    p_max_kw: float
    side: str
    curve: Curve

    def offer(self, interval: int, intervals: int) -> Curve:
        """What it offers in an interval of the day; nothing where there is no sun."""
        share = _sun(24.0 * (interval + 0.5) / intervals) if self.kind == SOLAR else 1.0
        return tuple((round(share * kw, 1), price) for kw, price in self.curve if share * kw >= LEAST_KW)

    @property
    def place(self) -> dict[str, str]:
        """Bus, phase and kind."""
        return {"bus": self.bus, "phase": self.phase, "kind": self.kind}

    @property
    def limits(self) -> dict[str, float]:
        """Range of its injection [kW]."""
        return {"p_min_kw": self.p_min_kw, "p_max_kw": self.p_max_kw}

    def bids(self, market: Market, resource_id: str) -> Iterator[Bid]:
        """One curve for each interval in which it offers anything."""
        for interval in range(market.intervals):
            curve = self.offer(interval, market.intervals)
            if curve:
                yield Bid(market.id, resource_id, self.side, curve, *times_of(market, interval, interval))


@dataclass(frozen=True)
class Aggregator:
    """Someone who bids for assets."""

    name: str
    assets: list[Asset] = field(default_factory=list)


def portfolios(
    shipped: Sequence[Mapping[str, str]], places: Sequence[tuple[str, str]], size_kw: float, count: int, seed: int
) -> list[Aggregator]:
    """Make `count` aggregators.

    Parameters
    ----------
    shipped
        Rows of ``resources.csv`` of the feeder's case, which they share out.
    places
        Buses and phases at which more resources may stand.
    size_kw
        About what all that is added can do together [kW].
    count, seed
        Number of aggregators; of the random numbers.
    """
    random = np.random.default_rng(seed)
    found = [Aggregator(_name(number)) for number in range(count)]
    for number, row in enumerate(row for row in shipped if float(row["p_max_kw"]) >= LEAST_KW):
        found[number % count].assets.append(_of_case(row, random))
    each_kw = size_kw / (len(ADDED) * count)
    for owner in found:
        for kind in ADDED:
            bus, phase = places[int(random.integers(len(places)))]
            own_kw = round(each_kw * float(random.uniform(0.6, 1.4)), 1)
            owner.assets.append(_added(f"{owner.name} {kind.replace('_', ' ')}", bus, phase, kind, own_kw, random))
    return found


def _name(number: int) -> str:
    again = number // len(AGGREGATORS)
    return AGGREGATORS[number % len(AGGREGATORS)] + (f" {again + 1}" if again else "")


def _of_case(row: Mapping[str, str], random: np.random.Generator) -> InventedAsset:
    kind, most_kw = row["kind"], float(np.floor(10 * float(row["p_max_kw"])) / 10)
    curve = _curve(SOLAR if kind == SOLAR else GENERATOR, most_kw, random)
    return InventedAsset(row["resource"], row["bus"], row.get("phase", ""), kind, 0.0, most_kw, "supply", curve)


def _added(name: str, bus: str, phase: str, kind: str, own_kw: float, random: np.random.Generator) -> InventedAsset:
    curve = _curve(kind, own_kw, random)
    if kind == DEMAND:
        return InventedAsset(name, bus, phase, kind, -own_kw, 0.0, "demand", curve)
    return InventedAsset(name, bus, phase, kind, 0.0, own_kw, "supply", curve)


def _curve(kind: str, most_kw: float, random: np.random.Generator) -> Curve:
    """Two parts: solar nearly gives itself away, a generator has its fuel, demand pays less for the second half."""
    low, high = {SOLAR: (-20.0, 2.0), GENERATOR: (32.0, 60.0), DEMAND: (25.0, 45.0)}[kind]
    first, more = round(float(random.uniform(low, high)), 2), round(float(random.uniform(2.0, 15.0)), 2)
    half_kw = round(most_kw / 2, 1)
    second = first - more if kind == DEMAND else first + more
    return (half_kw, first), (round(most_kw - half_kw, 1), round(second, 2))


def _sun(hour: float) -> float:
    """Share of full sun at an hour of the day, a half wave from sunrise to sunset."""
    return float(max(0.0, np.sin(np.pi * (hour - SUNRISE_H) / (SUNSET_H - SUNRISE_H))))
