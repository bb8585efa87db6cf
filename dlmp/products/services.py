"""Services: power that is reserved and may be called, as Pyomo rules.

The offers and requirements are those of `dlmp.services`.  Reserved power shares the range, the rating and the stored
energy of its resource with energy and with every other service: nothing can be sold twice.
"""

from typing import Any

import numpy as np
import pyomo.environ as pyo

from dlmp.market import MarketCase
from dlmp.network.model import FloatArray
from dlmp.products.columns import Columns, bounds_of
from dlmp.services import CAPACITY_DOWN, CAPACITY_UP, VAR_DOWN, VAR_UP, energy_by_call, reach_of_stores
from dlmp.units import BASE_KVA

SERVICE_VARIABLES = ("reserve", "reserved_before", "shortage")
SMALLEST_PART = 1e-12
"""Cosines and sines of right angles come out this small."""
REQUIREMENT = "requirement_is_met"
"""The rule whose dual is the price of a service where it is required."""
CALLS_LAST = "calls_last"
"""The rule that carries reserved power over to the intervals in which its call still lasts."""
ROOM_UP, ROOM_DOWN = "room_to_inject_more", "room_to_inject_less"
ENERGY_UP, ENERGY_DOWN = "energy_for_a_call_up", "energy_for_a_call_down"


def service_columns(case: MarketCase) -> dict[str, Columns]:
    """Bounds [pu] and costs [currency/MW per hour] of `SERVICE_VARIABLES`.

    ``reserve`` by offer, ``reserved_before`` by `lags`, and ``shortage`` by requirement.
    """
    offers, requirements = case.service_offers, case.requirements
    is_firm = np.isinf(requirements.shortage_usd_per_mw_h)
    short = np.where(is_firm, 0.0, np.full_like(requirements.quantity_kw, np.inf))
    penalty = np.where(is_firm, 0.0, requirements.shortage_usd_per_mw_h)
    upper = offers.quantity_kw / BASE_KVA
    nothing = np.zeros_like(upper)
    lagged = lags(case)
    before = np.zeros((len(upper), len(lagged)))
    return {
        "reserve": Columns(nothing, upper, offers.price_usd_per_mw_h),
        "reserved_before": Columns(before, np.full_like(before, np.inf), before),
        "shortage": Columns(np.zeros_like(short), short, np.zeros_like(short) + penalty),
    }


def lags(case: MarketCase) -> list[tuple[int, int]]:
    """Offer and number of intervals of every earlier award whose call may last into an interval."""
    offers, stores = case.service_offers, case.stores
    of_store = np.isin(offers.resource, stores.resource) & ~offers.is_reactive
    last = np.ceil(offers.duration_hours / case.horizon.interval_hours - 1e-9).astype(int) - 1
    return [
        (int(k), lag)
        for k in np.flatnonzero(of_store)
        for lag in range(1, min(last[k], case.horizon.intervals - 1) + 1)
    ]


def service_bounds(case: MarketCase) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Lower and upper bounds [pu] of the rules whose bounds change, (t, i) each."""
    required = case.requirements.quantity_kw / BASE_KVA
    top, bottom = _ranges(case)
    up, down = _offering(case, CAPACITY_UP), _offering(case, CAPACITY_DOWN)
    least, most = reach_of_stores(case.stores, case.horizon.interval_hours)
    at_up, at_down = (_energy_rows(case, service) for service in (CAPACITY_UP, CAPACITY_DOWN))
    floor = least[:, [store for _, store, _ in at_up]] / BASE_KVA
    ceiling = most[:, [store for _, store, _ in at_down]] / BASE_KVA
    return {
        REQUIREMENT: (required, np.full_like(required, np.inf)),
        ROOM_UP: (np.full((len(top), len(up)), -np.inf), top[:, up]),
        ROOM_DOWN: (bottom[:, down], np.full((len(top), len(down)), np.inf)),
        ENERGY_UP: (floor, np.full_like(floor, np.inf)),
        ENERGY_DOWN: (np.full_like(ceiling, -np.inf), ceiling),
    }


def _ranges(case: MarketCase) -> tuple[FloatArray, FloatArray]:
    """(t, r) Highest and lowest injection that a call can lead to [pu]: what is in range, and offered."""
    resources, bids, blocks, stores = case.resources, case.bids, case.blocks, case.stores
    top, bottom = resources.p_max_kw.copy(), np.tile(resources.p_min_kw, (len(resources.p_max_kw), 1))
    offered, wanted = np.zeros_like(top), np.zeros_like(top)
    for of, quantity_kw in ((bids, bids.quantity_kw), (blocks, blocks.offered_kw(len(top)))):
        np.add.at(offered.T, of.resource[of.is_supply], quantity_kw[:, of.is_supply].T)
        np.add.at(wanted.T, of.resource[~of.is_supply], quantity_kw[:, ~of.is_supply].T)
    offered[:, stores.resource], wanted[:, stores.resource] = stores.discharge_max_kw, stores.charge_max_kw
    return np.minimum(top, offered) / BASE_KVA, np.maximum(bottom, -wanted) / BASE_KVA


def _offering(case: MarketCase, service: str) -> list[int]:
    """Resources that offer `service`, in ascending order."""
    offers = case.service_offers
    return sorted(offers.resource[offers.service == service].tolist())


def _energy_rows(case: MarketCase, service: str) -> list[tuple[int, int, int]]:
    """Offer, store and lag of every condition that the energy for a call of `service` makes."""
    offers, store_of = case.service_offers, {int(r): k for k, r in enumerate(case.stores.resource)}
    own = [k for k in np.flatnonzero(offers.service == service).tolist() if int(offers.resource[k]) in store_of]
    lagged = lags(case)
    return [
        (k, store_of[int(offers.resource[k])], lag)
        for k in own
        for lag in (0, *(lag for offer, lag in lagged if offer == k))
    ]


def declare_services(model: pyo.ConcreteModel, case: MarketCase) -> None:
    """Add the services of `case` over ``model.INTERVALS``, which follow each other, to `model`."""
    offers, requirements, moved = case.service_offers, case.requirements, energy_by_call(case.stores)
    columns, bounds = service_columns(case), service_bounds(case)
    lagged = lags(case)
    place = {pair: index for index, pair in enumerate(lagged)}
    model.OFFERS = pyo.RangeSet(0, len(offers) - 1)
    model.LAGS = pyo.RangeSet(0, len(lagged) - 1)
    model.REQUIREMENTS = pyo.RangeSet(0, len(requirements) - 1)
    for name, items in zip(SERVICE_VARIABLES, (model.OFFERS, model.LAGS, model.REQUIREMENTS), strict=True):
        setattr(model, name, pyo.Var(model.INTERVALS, items, bounds=bounds_of(columns[name])))
    first = model.INTERVALS.first()
    share = case.resources.share @ requirements.counts.T.astype(float)

    @model.Constraint(model.INTERVALS, model.REQUIREMENTS)
    def requirement_is_met(m, t, i):
        counting = [
            (share[offers.resource[k], i], m.reserve[t, k])
            for k in np.flatnonzero(offers.service == requirements.service[i]).tolist()
        ]
        met = sum(part * reserve for part, reserve in counting if part > 0)
        return met + m.shortage[t, i] >= bounds[REQUIREMENT][0][t, i]

    offer_of = {(int(r), str(s)): k for k, (r, s) in enumerate(zip(offers.resource, offers.service, strict=True))}
    up, down = _offering(case, CAPACITY_UP), _offering(case, CAPACITY_DOWN)
    position = {r: index for index, r in enumerate(up)}, {r: index for index, r in enumerate(down)}

    @model.Constraint(model.INTERVALS, up)
    def room_to_inject_more(m, t, r):
        return m.p[t, r] + m.reserve[t, offer_of[r, CAPACITY_UP]] <= bounds[ROOM_UP][1][t, position[0][r]]

    @model.Constraint(model.INTERVALS, down)
    def room_to_inject_less(m, t, r):
        return m.p[t, r] - m.reserve[t, offer_of[r, CAPACITY_DOWN]] >= bounds[ROOM_DOWN][0][t, position[1][r]]

    reactive = [(r, s) for r, s in sorted(offer_of) if s in (VAR_UP, VAR_DOWN)]

    @model.Constraint(model.INTERVALS, reactive)
    def room_for_reactive_power(m, t, r, service):
        reserve = m.reserve[t, offer_of[r, service]]
        if service == VAR_UP:
            return m.q[t, r] + reserve <= case.resources.q_max_kvar[r] / BASE_KVA
        return m.q[t, r] - reserve >= case.resources.q_min_kvar[r] / BASE_KVA

    @model.Constraint(model.INTERVALS, model.LAGS)
    def calls_last(m, t, i):
        offer, lag = lagged[i]
        if t == first:
            return m.reserved_before[t, i] == 0.0
        earlier = m.reserve[t - 1, offer] if lag == 1 else m.reserved_before[t - 1, place[offer, lag - 1]]
        return m.reserved_before[t, i] == earlier

    rows_up, rows_down = _energy_rows(case, CAPACITY_UP), _energy_rows(case, CAPACITY_DOWN)

    def reserved(m, t, offer, lag):
        return m.reserve[t, offer] if lag == 0 else m.reserved_before[t, place[offer, lag]]

    @model.Constraint(model.INTERVALS, range(len(rows_up)))
    def energy_for_a_call_up(m, t, i):
        offer, store, lag = rows_up[i]
        spent = offers.duration_hours[offer] * moved[store] * reserved(m, t, offer, lag)
        return m.energy[t, store] - spent >= bounds[ENERGY_UP][0][t, i]

    @model.Constraint(model.INTERVALS, range(len(rows_down)))
    def energy_for_a_call_down(m, t, i):
        offer, store, lag = rows_down[i]
        gained = offers.duration_hours[offer] * moved[store] * reserved(m, t, offer, lag)
        return m.energy[t, store] + gained <= bounds[ENERGY_DOWN][1][t, i]


def called_reach(m: pyo.ConcreteModel, case: MarketCase, t: int, r: int, cosine: float, sine: float) -> Any:
    """Sum of what calls of the services of resource `r` can add along a direction of its power [pu]."""
    offers = case.service_offers
    along = {CAPACITY_UP: cosine, CAPACITY_DOWN: -cosine, VAR_UP: sine, VAR_DOWN: -sine}
    parts = [(along[str(offers.service[k])], k) for k in np.flatnonzero(offers.resource == r).tolist()]
    return sum(part * m.reserve[t, k] for part, k in parts if part > SMALLEST_PART)
