"""The participants of a case as aggregators of the service: they bid there what the case bids for them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dlmp.client import Bid, Market, Store
from dlmp.client.bidfile import times_of
from dlmp.client.bids import SELF_SCHEDULE, AnyBid
from dlmp.errors import InputError, Problem
from dlmp.market import MarketCase
from dlmp.simulation.portfolio import Aggregator

REGISTERED = ("p_min_kw", "p_max_kw", "q_min_kvar", "q_max_kvar", "s_max_kva", "power_factor_min")
PROFILES = ("charge_max_kw", "discharge_max_kw", "energy_min_kwh", "energy_max_kwh", "drain_kw")
TERMS = (
    *("initial_kwh", "charge_efficiency", "discharge_efficiency", "retention"),
    *("cycling_usd_per_mwh", "final_usd_per_mwh"),
)
POWER_DECIMALS, PRICE_DECIMALS = 3, 5
"""Of what the service takes."""


@dataclass(frozen=True, eq=False)
class CaseAsset:
    """A resource of a case, with the bids or the store that it has there.

    Parameters
    ----------
    case, number
        The case, and the number of the resource in it.
    name, place, limits
        As it is registered.
    """

    case: MarketCase
    number: int
    name: str
    place: Mapping[str, str]
    limits: Mapping[str, float]

    def bids(self, market: Market, resource_id: str) -> Iterator[AnyBid]:
        """Its store for the whole day, or its curves interval by interval; a longer day begins the case's again."""
        stores = np.flatnonzero(self.case.stores.resource == self.number)
        if len(stores):
            yield self._store(int(stores[0]), market, resource_id)
            return
        for interval in range(market.intervals):
            times, there = times_of(market, interval, interval), interval % self.case.horizon.intervals
            most_kw = self.case.resources.p_max_kw[there, self.number], -self.case.resources.p_min_kw[self.number]
            for is_supply, side, room_kw in ((True, "supply", most_kw[0]), (False, "demand", most_kw[1])):
                fixed_kw = sum(kw for kw, *_ in self._curve(there, float(room_kw), is_supply=is_supply, is_fixed=True))
                if fixed_kw:
                    quantity = [(round(fixed_kw, POWER_DECIMALS),)]
                    yield Bid(market.id, resource_id, side, quantity, *times, product=SELF_SCHEDULE)
                curve = self._curve(there, float(room_kw) - fixed_kw, is_supply=is_supply, is_fixed=False)
                if curve:
                    yield Bid(market.id, resource_id, side, curve, *times)

    def _curve(
        self, interval: int, room_kw: float, *, is_supply: bool, is_fixed: bool
    ) -> list[tuple[float, float, float]]:
        """Segments as far as there is room: quantity, and price where each begins and ends."""
        bids = self.case.bids
        own = np.flatnonzero((bids.resource == self.number) & (bids.is_supply == is_supply))
        own = own[bids.is_self_scheduled[interval, own] == is_fixed]
        curve = []
        for column in sorted(own.tolist(), key=lambda column: bids.segment[column]):
            whole_kw = float(bids.quantity_kw[interval, column])
            kw = round(min(whole_kw, room_kw), POWER_DECIMALS)
            if kw > 0:
                begins = float(bids.price_usd_per_mwh[interval, column])
                rise = float(bids.price_rise_usd_per_mwh[interval, column])
                curve.append((kw, round(begins, PRICE_DECIMALS), round(begins + rise * kw / whole_kw, PRICE_DECIMALS)))
                room_kw -= kw
        return curve

    def _store(self, store: int, market: Market, resource_id: str) -> Store:
        stores = self.case.stores
        terms: dict[str, Any] = {name: float(getattr(stores, name)[store]) for name in TERMS}
        terms |= {name: np.resize(getattr(stores, name)[:, store], market.intervals).tolist() for name in PROFILES}
        shortfall = float(stores.shortfall_usd_per_mwh[store])
        if np.isfinite(shortfall):
            terms["shortfall_usd_per_mwh"] = shortfall
        terms |= {"interval_start": market.starts_at, "interval_end": market.ends_at}
        return Store(market_id=market.id, resource_id=resource_id, **terms)


def case_participants(case: MarketCase, rows: Sequence[Mapping[str, str]]) -> list[Aggregator]:
    """Participants of a case with their resources; `rows` are those of its ``resources.csv``.

    Raises
    ------
    InputError
        Where the case has bids of other kinds than energy and stores, or ramp limits.
    """
    others = {
        "blocks": len(case.blocks.resource),
        "reactive_bids": len(case.reactive_bids.resource),
        "service_offers": len(case.service_offers.resource),
        "resources.ramp_up_kw_per_min": int(np.isfinite(case.resources.ramp_up_kw_per_min).sum()),
        "resources.ramp_down_kw_per_min": int(np.isfinite(case.resources.ramp_down_kw_per_min).sum()),
    }
    message = "cannot be bid as they are shipped: leave out --as-shipped"
    problems = [Problem(f"case {case.name}", name, count, message) for name, count in others.items() if count]
    if problems:
        raise InputError(problems)
    found: dict[str, Aggregator] = {}
    for number, row in enumerate(rows):
        place = {"bus": row["bus"], "phase": row.get("phase", ""), "kind": row["kind"]}
        limits = {name: float(row[name]) for name in REGISTERED if row.get(name)}
        owner = str(case.resources.participant[number])
        asset = CaseAsset(case, number, row["resource"], place, limits)
        found.setdefault(owner, Aggregator(owner)).assets.append(asset)
    return list(found.values())
