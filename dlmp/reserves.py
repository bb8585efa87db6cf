"""What becomes of reserved power: its price by cause, and the calls that the network would not carry."""

from dataclasses import replace

import numpy as np

from dlmp.calls import CalledStates, every_call
from dlmp.dispatch import Dispatch
from dlmp.formulation import new_formulation
from dlmp.formulation.interface import CONGESTION, UNBALANCE, VOLTAGE, Weights
from dlmp.network.model import FloatArray
from dlmp.prices import limit_share
from dlmp.products.services import REQUIREMENT
from dlmp.results import ServiceAwards
from dlmp.scarcity import Scarcity
from dlmp.settings import Settings
from dlmp.units import BASE_KVA

CAUSES = (CONGESTION, VOLTAGE, UNBALANCE)
CALLED_PU = 1e-7
"""An award of less is not called."""
UNSAFE_PU = 1e-7
"""A call that breaks a limit by more is unsafe."""
STATES_AT_A_TIME = 2048
"""Bounds the memory of the states that are tried."""


def service_awards(found: Dispatch, scarcity: Scarcity) -> ServiceAwards:
    """Reserved power and its prices, of a dispatch with its `scarcity`.

    The price of an offer is what its requirements pay less what the limits cost that bind when it is called: the
    derivative of the least cost by power that is there only when called,

        price[k] = sum_i counts[k, i] mu_i + direction[k] sum_(states that call k) sum_m y_m dg_m/dP_k

    What requirements that are not met, and broken limits, make of it is scarcity.
    """
    market, case = found.market, found.market.case
    offers, requirements = case.service_offers, case.requirements
    dual = found.row_dual[market.rows_of(REQUIREMENT)]
    counts = case.resources.share @ requirements.counts.T.astype(float)
    same = offers.service[:, None] == requirements.service
    of_offer = (counts[offers.resource] * same).T
    kept, scarce = found.weights.less(scarcity.weights), scarcity.weights
    parts = {"requirement": np.where(scarcity.is_short, 0.0, dual) @ of_offer}
    parts |= {cause: _called_share(found, kept, cause) for cause in CAUSES}
    broken = sum(_called_share(found, scarce, cause) for cause in CAUSES)
    parts["scarcity"] = np.where(scarcity.is_short, dual, 0.0) @ of_offer + broken
    return ServiceAwards(
        case,
        reserved_kw=found.x[market.block("reserve")] * BASE_KVA,
        price_usd_per_mw_h=np.sum(list(parts.values()), axis=0),
        **parts,
        shortage_kw=found.x[market.block("shortage")] * BASE_KVA,
        requirement_usd_per_mw_h=dual,
    )


def _called_share(found: Dispatch, weights: Weights, cause: str) -> FloatArray:
    """(t, k) What the limits of a `cause`, by `weights`, add to the price of each offer in the states that call it.

    A call that lasts has states in later intervals, which belong to the price of the interval of its award.
    """
    market, offers = found.market, found.market.case.service_offers
    share = np.zeros(offers.quantity_kw.shape)
    if not len(offers):
        return share
    by_resource = market.spread(limit_share(found.formulation.limits, found.point, weights, cause, market.ports))
    of_offer = by_resource[market.intervals :, offers.is_reactive.astype(int), offers.resource] * offers.direction
    state, offer = np.nonzero(market.called.calls)
    awarded = market.called.interval[state] - market.called.lag[state, offer]
    np.add.at(share, (awarded, offer), of_offer[state, offer])
    return share


def unsafe_calls(found: Dispatch, settings: Settings, last: Dispatch | None = None) -> CalledStates:
    """States of calls that break a limit, for each limit of an interval the call that breaks it worst.

    A soft limit that is broken in a state to which the network is held may be broken as far in others.
    Tried are the calls of `dlmp.calls.every_call` to which the network is not held yet.  Limits follow calls nearly one
    way, so that most of these are safe once whole services are.

    Parameters
    ----------
    found
        What is called.
    settings
        Of the clearing.
    last
        The dispatch before, whose calls were tried: what is the same in both is not tried again.
    """
    tried = _calls_to_try(found, last)
    case, allowed = found.market.case, _allowed(found)
    shape = (found.market.intervals, len(found.formulation.limits) + 1)  # the last column: no state carries the call
    worst, by = np.full(shape, UNSAFE_PU), np.full(shape, -1)
    for start in range(0, len(tried), STATES_AT_A_TIME):
        part = np.arange(start, min(start + STATES_AT_A_TIME, len(tried)))
        own = tried.interval[part]
        market = replace(found.market, called=tried.only(part))
        injection = market.injection(found.x)[market.intervals :]
        formulation = new_formulation(case, settings, own)
        point = formulation.operate(injection, formulation.carried(found.point, own))
        beyond = np.abs(point.limit_value - np.clip(point.limit_value, *allowed[:, own]))
        broken = np.column_stack([beyond * point.converged[:, None], np.where(point.converged, 0.0, np.inf)])
        for state, interval in enumerate(own.tolist()):
            is_worse = broken[state] > worst[interval]
            worst[interval, is_worse], by[interval, is_worse] = broken[state, is_worse], part[state]
    return tried.only(np.unique(by[by >= 0]))


def _calls_to_try(found: Dispatch, last: Dispatch | None) -> CalledStates:
    """Every call of what was awarded to which the network is not held, where the dispatch is not that of `last`."""
    market = found.market
    case, reserved = market.case, found.x[market.block("reserve")]
    tried = every_call(case.service_offers, reserved, case.horizon.interval_hours, CALLED_PU, market.called)
    if last is None:
        return tried
    has_moved = (found.x != last.x).reshape(market.intervals, market.width).any(axis=1)
    has_moved |= market.has_other_load(last.market)
    return tried.only(np.flatnonzero(has_moved[tried.interval]))


def _allowed(found: Dispatch) -> FloatArray:
    """(2, t, k) Least and largest value of each limit in the states to which the network is held."""
    market, limits = found.market, found.formulation.limits
    under, over = np.zeros((2, market.intervals, len(limits)))
    np.maximum.at(under, market.state_interval, -found.excess)
    np.maximum.at(over, market.state_interval, found.excess)
    return np.stack([limits.lower - under, limits.upper + over])
