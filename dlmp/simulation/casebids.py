"""The participants of a case as aggregators of the service: they bid there what the case bids for them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dlmp.client import Bid, Market, Store
from dlmp.client.bids import SELF_SCHEDULE, AnyBid
from dlmp.market import MarketCase
from dlmp.simulation.portfolio import Aggregator, interval_times

REGISTERED = ("p_min_kw", "p_max_kw", "q_min_kvar", "q_max_kvar", "s_max_kva", "power_factor_min")
PROFILES = ("charge_max_kw", "discharge_max_kw", "energy_min_kwh", "energy_max_kwh", "drain_kw")
TERMS = (
    *("initial_kwh", "charge_efficiency", "discharge_efficiency", "retention"),
    *("cycling_usd_per_mwh", "final_usd_per_mwh"),
)
POWER_DECIMALS = 6


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
            times, there = interval_times(market, interval), interval % self.case.horizon.intervals
            for is_supply, side in ((True, "supply"), (False, "demand")):
                for is_fixed in (True, False):
                    curve = self._curve(there, is_supply=is_supply, is_fixed=is_fixed)
                    if curve and is_fixed:
                        total_kw = round(sum(kw for kw, *_ in curve), POWER_DECIMALS)
                        yield Bid(market.id, resource_id, side, [(total_kw,)], *times, product=SELF_SCHEDULE)
                    elif curve:
                        yield Bid(market.id, resource_id, side, curve, *times)

    def _curve(self, interval: int, *, is_supply: bool, is_fixed: bool) -> list[tuple[float, float, float]]:
        """Segments as far as the resource reaches in the interval: quantity, and price where it begins and ends."""
        bids, resources = self.case.bids, self.case.resources
        own = np.flatnonzero((bids.resource == self.number) & (bids.is_supply == is_supply))
        own = own[bids.is_self_scheduled[interval, own] == is_fixed]
        room_kw = resources.p_max_kw[interval, self.number] if is_supply else -resources.p_min_kw[self.number]
        curve = []
        for column in sorted(own.tolist(), key=lambda column: bids.segment[column]):
            whole_kw = float(bids.quantity_kw[interval, column])
            kw = round(min(whole_kw, float(room_kw)), POWER_DECIMALS)
            if kw > 0:
                begins, rise = bids.price_usd_per_mwh[interval, column], bids.price_rise_usd_per_mwh[interval, column]
                curve.append((kw, float(begins), float(begins + rise * kw / whole_kw)))
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
    """Participants of a case with their resources; `rows` are those of its ``resources.csv``."""
    found: dict[str, Aggregator] = {}
    for number, row in enumerate(rows):
        place = {"bus": row["bus"], "phase": row.get("phase", ""), "kind": row["kind"]}
        limits = {name: float(row[name]) for name in REGISTERED if row.get(name)}
        owner = str(case.resources.participant[number])
        asset = CaseAsset(case, number, row["resource"], place, limits)
        found.setdefault(owner, Aggregator(owner)).assets.append(asset)
    return list(found.values())
