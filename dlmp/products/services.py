"""Services: power that is reserved and may be called, as Pyomo rules.

The offers and requirements are those of `dlmp.services`.  Reserved power shares the range, the rating and the stored
energy of its resource with energy and with every other service: nothing can be sold twice.  It is kept free in every
interval in which its call may run, a row for each award that may be called there: of one offer one call runs at a time.
"""

from typing import Any

import numpy as np
import pyomo.environ as pyo

from dlmp.market import MarketCase
from dlmp.network.model import FloatArray, IntArray
from dlmp.products.columns import Columns, bounds_of
from dlmp.services import (
    CAPACITY_DOWN,
    CAPACITY_UP,
    VAR_DOWN,
    VAR_UP,
    ServiceOffers,
    energy_by_call,
    ranges_for_calls,
    reach_of_stores,
)
from dlmp.units import BASE_KVA

SERVICE_VARIABLES = ("reserve", "reserved_before", "shortage")
SMALLEST_PART = 1e-12
"""Cosines and sines of right angles come out this small."""
REQUIREMENT = "requirement_is_met"
"""The rule whose dual is the price of a service where it is required."""
CALLS_LAST = "calls_last"
"""The rule that carries reserved power over to the intervals in which its call still lasts."""
ROOM_UP, ROOM_DOWN = "room_to_inject_more", "room_to_inject_less"
BIDS_UP, BIDS_DOWN = "room_in_bids_to_inject_more", "room_in_bids_to_inject_less"
ENERGY_UP, ENERGY_DOWN = "energy_for_a_call_up", "energy_for_a_call_down"


def service_columns(case: MarketCase) -> dict[str, Columns]:
    """Bounds [pu] and costs [currency/MW per hour] of `SERVICE_VARIABLES`.

    ``reserve`` by offer, ``reserved_before`` by `lags`, what earlier intervals reserved, and ``shortage`` by
    requirement.
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
    """Offer and number of intervals of every earlier award whose call may run in an interval."""
    longest = np.minimum(case.service_offers.lasts(case.horizon.interval_hours), case.horizon.intervals)
    return [(k, lag) for k, lasts in enumerate(longest.tolist()) for lag in range(1, lasts)]


def running_columns(case: MarketCase) -> IntArray:
    """(k, lags) Place of the award of each offer made so many intervals earlier, among ``reserve, reserved_before``.

    -1 where its call runs no longer.
    """
    offers, lagged = len(case.service_offers), lags(case)
    place = np.full((offers, 1 + max((lag for _, lag in lagged), default=0)), -1, dtype=np.int64)
    place[:, 0] = np.arange(offers)
    for index, (offer, lag) in enumerate(lagged):
        place[offer, lag] = offers + index
    return place


def service_bounds(case: MarketCase) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Lower and upper bounds [pu] of the rules whose bounds change, (t, i) each."""
    required = case.requirements.quantity_kw / BASE_KVA
    least, most = reach_of_stores(case.stores, case.horizon.interval_hours)
    at_up, at_down = (_energy_rows(case, service) for service in (CAPACITY_UP, CAPACITY_DOWN))
    floor = least[:, [store for _, store, _ in at_up]] / BASE_KVA
    ceiling = most[:, [store for _, store, _ in at_down]] / BASE_KVA
    resources, (bid_top, bid_bottom) = case.resources, ranges_for_calls(case.resources, case.bids, case.stores)
    has_blocks = np.isin(np.arange(len(resources)), case.blocks.resource)
    top = np.where(has_blocks, resources.p_max_kw, np.minimum(resources.p_max_kw, bid_top))
    bottom = np.where(has_blocks, resources.p_min_kw, np.maximum(resources.p_min_kw, bid_bottom))
    return {
        REQUIREMENT: (required, np.full_like(required, np.inf)),
        ROOM_UP: _room_bounds(case, _room_rows(case, CAPACITY_UP), top),
        ROOM_DOWN: _room_bounds(case, _room_rows(case, CAPACITY_DOWN), bottom),
        BIDS_UP: _room_bounds(case, _bid_rows(case, CAPACITY_UP), bid_top),
        BIDS_DOWN: _room_bounds(case, _bid_rows(case, CAPACITY_DOWN), bid_bottom),
        ENERGY_UP: (floor, np.full_like(floor, np.inf)),
        ENERGY_DOWN: (np.full_like(ceiling, -np.inf), ceiling),
    }


def _room_bounds(case: MarketCase, rows: list[tuple[int, int]], end_kw: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Lower and upper bounds (t, i) [pu] of rows of offers and lags of one direction, within `end_kw` (t, r).

    A row of an earlier interval in which nothing is offered has none: it would only repeat another.
    """
    offers = case.service_offers
    bounds = np.zeros((2, len(end_kw), len(rows)))
    bounds[0], bounds[1] = -np.inf, np.inf
    for index, (offer, lag) in enumerate(rows):
        is_up = offers.service[offer] == CAPACITY_UP
        offered = np.ones(len(end_kw), bool)
        if lag:
            offered[:lag], offered[lag:] = False, offers.quantity_kw[:-lag, offer] > 0
        bounds[int(is_up), offered, index] = end_kw[offered, offers.resource[offer]] / BASE_KVA
    return bounds[0], bounds[1]


def _room_rows(case: MarketCase, *services: str) -> list[tuple[int, int]]:
    """Offer and lag of every award of `services` whose call may run in an interval, its own first."""
    offers = np.flatnonzero(np.isin(case.service_offers.service, services)).tolist()
    longest = (running_columns(case) >= 0).sum(axis=1).tolist()
    return [(k, lag) for k in offers for lag in range(longest[k])]


def _bid_rows(case: MarketCase, service: str) -> list[tuple[int, int]]:
    """Those whose resource has blocks too, so that its bids are a range of their own."""
    offers = case.service_offers
    return [(k, lag) for k, lag in _room_rows(case, service) if offers.resource[k] in case.blocks.resource]


def _energy_rows(case: MarketCase, service: str) -> list[tuple[int, int, int]]:
    """Offer, store and lag of every condition that the energy for a call of `service` makes."""
    offers, store_of = case.service_offers, {int(r): k for k, r in enumerate(case.stores.resource)}
    return [
        (k, store_of[int(offers.resource[k])], lag)
        for k, lag in _room_rows(case, service)
        if int(offers.resource[k]) in store_of
    ]


def declare_services(model: pyo.ConcreteModel, case: MarketCase) -> None:
    """Add the services of `case` over ``model.INTERVALS``, which follow each other, to `model`."""
    offers, requirements, columns = case.service_offers, case.requirements, service_columns(case)
    bounds, lagged = service_bounds(case), lags(case)
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

    @model.Constraint(model.INTERVALS, model.LAGS)
    def calls_last(m, t, i):
        offer, lag = lagged[i]
        if t == first:
            return m.reserved_before[t, i] == 0.0
        earlier = m.reserve[t - 1, offer] if lag == 1 else m.reserved_before[t - 1, place[offer, lag - 1]]
        return m.reserved_before[t, i] == earlier

    _declare_rooms(model, case)
    _declare_energy_of_calls(model, case)


def _running(m: pyo.ConcreteModel, place: IntArray, t: int, offer: int, lag: int) -> Any:
    """Award of an offer, made `lag` intervals earlier, whose call may run [pu]; `place` is `running_columns`."""
    return m.reserve[t, offer] if lag == 0 else m.reserved_before[t, int(place[offer, lag]) - len(place)]


def _declare_rooms(model: pyo.ConcreteModel, case: MarketCase) -> None:
    """Add what keeps real and reactive power with any call within range and bids."""
    offers, resources, blocks = case.service_offers, case.resources, case.blocks
    owner, bounds, place = offers.resource.tolist(), service_bounds(case), running_columns(case)
    up, down = _room_rows(case, CAPACITY_UP), _room_rows(case, CAPACITY_DOWN)
    bids_up, bids_down = _bid_rows(case, CAPACITY_UP), _bid_rows(case, CAPACITY_DOWN)
    reactive = _room_rows(case, VAR_UP, VAR_DOWN)

    def of_bids(m, t, r):
        return m.p[t, r] - sum(blocks.sign[b] * m.block[t, b] for b in np.flatnonzero(blocks.resource == r).tolist())

    @model.Constraint(model.INTERVALS, range(len(up)))
    def room_to_inject_more(m, t, i):
        return m.p[t, owner[up[i][0]]] + _running(m, place, t, *up[i]) <= bounds[ROOM_UP][1][t, i]

    @model.Constraint(model.INTERVALS, range(len(down)))
    def room_to_inject_less(m, t, i):
        return m.p[t, owner[down[i][0]]] - _running(m, place, t, *down[i]) >= bounds[ROOM_DOWN][0][t, i]

    @model.Constraint(model.INTERVALS, range(len(bids_up)))
    def room_in_bids_to_inject_more(m, t, i):
        return of_bids(m, t, owner[bids_up[i][0]]) + _running(m, place, t, *bids_up[i]) <= bounds[BIDS_UP][1][t, i]

    @model.Constraint(model.INTERVALS, range(len(bids_down)))
    def room_in_bids_to_inject_less(m, t, i):
        left = of_bids(m, t, owner[bids_down[i][0]]) - _running(m, place, t, *bids_down[i])
        return left >= bounds[BIDS_DOWN][0][t, i]

    @model.Constraint(model.INTERVALS, range(len(reactive)))
    def room_for_reactive_power(m, t, i):
        offer, r = reactive[i][0], owner[reactive[i][0]]
        called = _running(m, place, t, *reactive[i])
        if offers.service[offer] == VAR_UP:
            return m.q[t, r] + called <= resources.q_max_kvar[r] / BASE_KVA
        return m.q[t, r] - called >= resources.q_min_kvar[r] / BASE_KVA


def _declare_energy_of_calls(model: pyo.ConcreteModel, case: MarketCase) -> None:
    """Add what keeps the energy of stores with any call within what they must and may have."""
    offers, moved, bounds = case.service_offers, energy_by_call(case.stores), service_bounds(case)
    place = running_columns(case)
    rows_up, rows_down = _energy_rows(case, CAPACITY_UP), _energy_rows(case, CAPACITY_DOWN)

    @model.Constraint(model.INTERVALS, range(len(rows_up)))
    def energy_for_a_call_up(m, t, i):
        offer, store, lag = rows_up[i]
        spent = offers.duration_hours[offer] * moved[store] * _running(m, place, t, offer, lag)
        return m.energy[t, store] - spent >= bounds[ENERGY_UP][0][t, i]

    @model.Constraint(model.INTERVALS, range(len(rows_down)))
    def energy_for_a_call_down(m, t, i):
        offer, store, lag = rows_down[i]
        gained = offers.duration_hours[offer] * moved[store] * _running(m, place, t, offer, lag)
        return m.energy[t, store] + gained <= bounds[ENERGY_DOWN][1][t, i]


def call_lags(case: MarketCase) -> list[list[tuple[int, int]]]:
    """(r,) How many intervals earlier calls of the real and of the reactive services of a resource may have begun."""
    offers = case.service_offers
    longest = np.ones((len(case.resources), 2), dtype=np.int64)
    np.maximum.at(longest, (offers.resource, offers.is_reactive.astype(int)), (running_columns(case) >= 0).sum(axis=1))
    return [[(one, other) for one in range(real) for other in range(reactive)] for real, reactive in longest.tolist()]


def called_reach(
    m: pyo.ConcreteModel,
    offers: ServiceOffers,
    place: IntArray,
    at: tuple[int, int],
    direction: tuple[float, float],
    begun: tuple[int, int],
) -> Any:
    """Sum of what calls can add along a `direction` of the power of a resource [pu].

    Parameters
    ----------
    m
        The model.
    offers, place
        Offers of the case, and `running_columns`.
    at
        Interval and resource.
    direction
        Real and reactive part.
    begun
        How many intervals earlier the calls of real and of reactive services began.

    Returns
    -------
    The sum; None where no call that adds lasts so long: the row of calls that began later is the same.
    """
    (t, r), (cosine, sine), total = at, direction, 0.0
    along = {CAPACITY_UP: cosine, CAPACITY_DOWN: -cosine, VAR_UP: sine, VAR_DOWN: -sine}
    met = [0, 0]
    for k in np.flatnonzero(offers.resource == r).tolist():
        part, kind = along[str(offers.service[k])], int(offers.is_reactive[k])
        lag = begun[kind]
        if part > SMALLEST_PART and lag < place.shape[1] and place[k, lag] >= 0:
            total += part * _running(m, place, t, k, lag)
            met[kind] = lag
    return total if tuple(met) == begun else None
