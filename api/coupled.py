"""Bids that are coupled over time, to the store that each of them is to the engine (`dlmp.stores`).

A deadline load is a store that is empty at first, charges between two times, and must be full at the second one.  An
energy band is one that only charges, whose energy counts from the start of the bid.  The engine clears a store over all
intervals of its market; outside those of its bid it rests.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from api.errors import Fault
from api.gate import over_intervals
from api.offers import DEADLINE_LOAD, STORE, Standing
from dlmp.stores import PROFILED, Stores, out_of_reach

USUAL = {
    "initial_kwh": 0.0,
    "charge_efficiency": 1.0,
    "discharge_efficiency": 1.0,
    "retention": 1.0,
    "cycling_usd_per_mwh": 0.0,
    "shortfall_usd_per_mwh": None,
    "final_usd_per_mwh": 0.0,
}
"""Numbers of a store, and what those are that a kind of bids does not have."""


@dataclass(frozen=True)
class StoreTerms:
    """What a coupled bid is to the engine.

    Parameters
    ----------
    numbers
        Columns of ``stores.csv`` that are the same in all intervals; None where there is none.
    profile
        Those of `PROFILED`, each with a value for every interval of the market.
    """

    numbers: Mapping[str, float | None]
    profile: Mapping[str, Sequence[float]]


def store_of(bid: Standing, intervals: int) -> StoreTerms:
    """Return the store that a coupled bid, whose lists have the right lengths, is in a market of `intervals`."""
    offer, count = bid.offer, bid.intervals
    if bid.product == DEADLINE_LOAD:
        own = {
            "charge_max_kw": [offer["charge_max_kw"]] * count,
            "energy_min_kwh": [0.0] * (count - 1) + [offer["energy_kwh"]],
            "energy_max_kwh": [offer["energy_kwh"]] * count,
        }
    else:
        own = {name: over_intervals(offer[name], count, "")[0] for name in _lists(bid)}
        own["energy_min_kwh"][-1] = max(own["energy_min_kwh"][-1], offer.get("final_min_kwh", 0.0))
    before, after = bid.first, intervals - bid.last - 1
    profile = {name: [0.0] * before + own.get(name, [0.0] * count) + [0.0] * after for name in PROFILED}
    most_kwh = own["energy_max_kwh"]
    profile["energy_max_kwh"] = [most_kwh[0]] * before + most_kwh + [most_kwh[-1]] * after
    return StoreTerms({name: offer.get(name, usual) for name, usual in USUAL.items()}, profile)


def _lists(bid: Standing) -> list[str]:
    return [name for name in PROFILED if isinstance(bid.offer.get(name), list)]


def coupled_faults(bid: Standing, market: Any, limits: Mapping[str, float]) -> list[Fault]:
    """What is wrong with a coupled bid in its market by itself, for a resource of registered `limits`."""
    if bid.product == STORE and bid.intervals != market.intervals:
        message = "A store is cleared over all intervals of its market: bid for all of them."
        return [Fault("/interval_start", "not_whole_market", message)]
    faults = [fault for name in _lists(bid) for fault in over_intervals(bid.offer[name], bid.intervals, f"/{name}")[1]]
    if faults:
        return faults
    for name, most_kw in (("charge_max_kw", -limits["p_min_kw"]), ("discharge_max_kw", limits["p_max_kw"])):
        message = f"Must be at most the registered {most_kw + 0.0:g} kW."
        over = [place for place, kw in _numbers(bid.offer, name) if kw > most_kw]
        faults += [Fault(place, "beyond_registered", message) for place in over]
    store = store_of(bid, market.intervals)
    band = zip(store.profile["energy_min_kwh"], store.profile["energy_max_kwh"], strict=True)
    crossed = {_place(bid, "energy_min_kwh", number) for number, (low, high) in enumerate(band) if low > high}
    faults += [Fault(place, "empty_range", "The least energy must not be above the most.") for place in sorted(crossed)]
    return faults or _out_of_reach(bid, store, market.interval_minutes / 60)


def _numbers(offer: Mapping[str, Any], name: str) -> list[tuple[str, float]]:
    """Every number of a field, with its pointer."""
    given = offer.get(name, [])
    if not isinstance(given, list):
        return [(f"/{name}", given)]
    return [(f"/{name}/{number}", value) for number, value in enumerate(given)]


def _place(bid: Standing, field: str, interval: int) -> str:
    """Pointer to what a bid says of a `field` of its store in an `interval`."""
    if bid.product == DEADLINE_LOAD:
        return "/energy_kwh"
    given = bid.offer[field]
    number = 0 if len(given) == 1 else interval - bid.first
    is_final = field == "energy_min_kwh" and interval == bid.last
    if is_final and bid.offer.get("final_min_kwh", 0.0) > given[number]:
        return "/final_min_kwh"
    return f"/{field}/{number}"


def _out_of_reach(bid: Standing, store: StoreTerms, hours: float) -> list[Fault]:
    numbers = {name: np.array([np.inf if value is None else value]) for name, value in store.numbers.items()}
    profile = {name: np.array(values)[:, None] for name, values in store.profile.items()}
    broken = out_of_reach(Stores(resource=np.zeros(1, dtype=np.int64), **numbers, **profile), 0, hours)
    if broken is None:
        return []
    way = "most" if broken.field == "energy_min_kwh" else "least"
    message = f"Is out of reach of its powers, with which at {way} {broken.reached_kwh:g} kWh can be there."
    return [Fault(_place(bid, broken.field, broken.interval), "out_of_reach", message)]
