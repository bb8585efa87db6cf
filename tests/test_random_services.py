"""Random small feeders with services: what must hold of every clearing, whatever the numbers."""

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from cases import Offer, market, resource
from feeders import Branch, feeder
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from servicecases import Needed, Ready, with_services
from storecases import Store, with_stores

import dlmp.clearing
from dlmp import Clearing, MarketCase, clear
from dlmp.bids import Resources
from dlmp.calls import every_call
from dlmp.formulation.market_lp import MarketLp, build_market_lp
from dlmp.services import SERVICES, ServiceOffers

MANY = settings(
    max_examples=500,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
STEP_KW = 0.05


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    """Numbers of four decimals, which hypothesis can make simpler."""
    return st.integers(round(low * 1e4), round(high * 1e4)).map(lambda value: value / 1e4)


@st.composite
def offers(draw: st.DrawFn, bus: int) -> Offer:
    """A plant or a consumer of two blocks, with reactive power and a rating or without."""
    sizes = draw(st.lists(numbers(5, 60), min_size=2, max_size=2))
    prices = sorted(draw(st.lists(numbers(5, 90), min_size=2, max_size=2, unique=True)))
    blocks = list(zip(sizes, prices, strict=True))
    reactive = draw(st.sampled_from([0.0, 30.0]))
    extra = {"q_kvar": (-reactive, reactive), "s_max_kva": draw(st.sampled_from([np.inf, sum(sizes) + 5.0]))}
    if draw(st.integers(0, 2)) == 0:
        return resource(f"at {bus}", bus, demand=blocks[::-1], **extra)
    return resource(f"at {bus}", bus, supply=blocks, **extra)


@st.composite
def cases(draw: st.DrawFn) -> MarketCase:
    """Three or four buses in a tree or a ring, two bidders, perhaps a battery, and services, over an hour or two."""
    buses = draw(st.integers(3, 4))
    branches = [
        Branch(
            str(draw(st.integers(0, bus - 1))),
            str(bus),
            draw(numbers(0.005, 0.03)),
            draw(numbers(0.005, 0.03)),
            rating=draw(st.sampled_from([np.inf, 1.0])),
        )
        for bus in range(1, buses)
    ]
    if draw(st.booleans()):
        branches.append(Branch(str(buses - 1), "0", 0.01, 0.02, rating=0.3))
    load = {str(bus): (draw(numbers(0, 15)), draw(numbers(0, 5))) for bus in range(1, buses)}
    network = feeder(branches, load, band=(0.9, draw(numbers(1.003, 1.03))))
    with_store = draw(st.booleans())
    hours = 2 if with_store else draw(st.integers(1, 2))
    price = draw(st.lists(numbers(10, 60), min_size=hours, max_size=hours))
    case = market(network, price, draw(offers(1)), draw(offers(buses - 1)))
    if with_store:
        efficiency = draw(numbers(0.8, 1.0))
        store = Store(
            *("battery", 2),
            charge_kw=40.0,
            discharge_kw=draw(st.sampled_from([0.0, 40.0])),
            energy_kwh=100.0,
            initial_kwh=draw(numbers(0, 100)),
            least_kwh=[0.0, draw(numbers(0, 30))],
            efficiency=(efficiency, efficiency),
            cycling=1.0,
            final=draw(numbers(0, 50)),
        )
        case = with_stores(case, store)
    ready = []
    for name in case.resources.name.tolist():
        for service in draw(st.lists(st.sampled_from(SERVICES), min_size=1, max_size=3, unique=True)):
            lasts = draw(st.sampled_from([1.0, 2.0]))
            ready.append(Ready(name, service, draw(numbers(5, 60)), draw(numbers(0.1, 20)), lasts))
    wanted = sorted({offer.service for offer in ready})
    needed = [Needed(service, draw(numbers(1, 70)), shortage=draw(numbers(30, 300))) for service in wanted]
    return with_services(case, ready, needed)


def converged(case: MarketCase) -> Clearing:
    found = clear(case)
    assert found.status == "converged"
    return found


def after_calls(found: Clearing) -> list[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """Interval, more real and reactive injection by resource [kW] of every call, and when each real one began."""
    offers, services = found.case.service_offers, found.services
    calls = every_call(offers, services.reserved_kw, found.case.horizon.interval_hours)
    states = []
    for t, called, lag in zip(calls.interval.tolist(), calls.calls, calls.lag, strict=True):
        more_kw, more_kvar = np.zeros((2, len(found.case.resources)))
        begun = np.full(len(more_kw), t)
        for k in np.flatnonzero(called):
            r, is_reactive = offers.resource[k], offers.service[k].startswith("var")
            power = more_kvar if is_reactive else more_kw
            power[r] += services.reserved_kw[t - lag[k], k] * (1 if offers.service[k].endswith("up") else -1)
            begun[r] = begun[r] if is_reactive else t - lag[k]
        states.append((t, more_kw, more_kvar, begun))
    return states


@pytest.mark.nightly
@given(cases())
@MANY
def test_components_sum_awards_are_supported_and_calls_keep_every_limit(case: MarketCase):
    found = converged(case)
    services = found.services
    parts = services.requirement + services.congestion + services.voltage + services.unbalance + services.scarcity
    np.testing.assert_allclose(parts, services.price_usd_per_mw_h, rtol=0, atol=1e-9)
    certificate = found.certificate
    assert certificate.is_feasible
    assert certificate.is_deliverable
    assert certificate.is_supported


@pytest.mark.nightly
@given(cases())
@MANY
def test_no_resource_is_called_beyond_its_range_its_rating_or_its_stored_energy(case: MarketCase):
    found = converged(case)
    resources, stores = case.resources, case.stores
    for t, more_kw, more_kvar, begun in after_calls(found):
        p_kw, q_kvar = found.awards.net_injection_kw[t] + more_kw, found.awards.q_kvar[t] + more_kvar
        assert (p_kw <= resources.p_max_kw[t] + 1e-5).all()
        assert (p_kw >= resources.p_min_kw - 1e-5).all()
        assert (q_kvar <= resources.q_max_kvar + 1e-5).all()
        assert (q_kvar >= resources.q_min_kvar - 1e-5).all()
        assert (np.hypot(p_kw, q_kvar) <= resources.s_max_kva + 1e-5).all()
        for k, r in enumerate(stores.resource):
            after = found.stores.energy_kwh[begun[r] - 1, k] if begun[r] else stores.initial_kwh[k]
            for hour in range(begun[r], t + 1):
                called_kw = found.awards.net_injection_kw[hour, r] + more_kw[r]
                after -= max(called_kw, 0) / stores.discharge_efficiency[k]
                after += max(-called_kw, 0) * stores.charge_efficiency[k]
            assert -1e-5 <= after <= stores.energy_max_kwh[t, k] + 1e-5
            if t == len(stores.drain_kw) - 1:
                assert after >= stores.energy_min_kwh[t, k] - 1e-5


def with_energy_of(plain: Clearing):
    """A market in which every resource does what it did in `plain`, whatever it reserves."""

    def build(case: MarketCase, *settings: object) -> MarketLp:
        lp = build_market_lp(case, *settings)
        lower, upper = lp.columns.lower.copy(), lp.columns.upper.copy()
        for name in ("p", "q"):
            own = lp.template.blocks[name]
            value = plain._dispatch.x[plain.market.block(name)]
            lower[:, own], upper[:, own] = value, value
        return replace(lp, columns=replace(lp.columns, lower=lower, upper=upper))

    return build


@pytest.mark.nightly
@given(cases())
@MANY
def test_energy_and_services_together_cost_no_more_than_one_after_the_other(case: MarketCase):
    none = np.zeros_like(case.service_offers.quantity_kw)
    nothing = replace(case.requirements, quantity_kw=np.zeros_like(case.requirements.quantity_kw))
    idle = replace(case, service_offers=replace(case.service_offers, quantity_kw=none), requirements=nothing)
    with patch.object(dlmp.clearing, "build_market_lp", with_energy_of(converged(idle))):
        sequential = clear(case)
    assume(sequential.status == "converged")
    assert converged(case).objective <= sequential.objective + 1e-6


@pytest.mark.nightly
@given(cases())
@MANY
def test_an_offer_more_never_raises_the_cost(case: MarketCase):
    fewer = select(case, np.arange(len(case.service_offers) - 1))
    assert converged(case).objective <= converged(fewer).objective + 1e-6


def select(case: MarketCase, order: np.ndarray) -> MarketCase:
    """The case with some of its offers, in this order."""
    own = case.service_offers
    chosen = ServiceOffers(
        own.resource[order],
        own.service[order],
        own.quantity_kw[:, order],
        own.price_usd_per_mw_h[:, order],
        own.duration_hours[order],
    )
    return replace(case, service_offers=chosen)


@pytest.mark.nightly
@given(cases(), st.randoms(use_true_random=False))
@MANY
def test_the_order_of_offers_changes_neither_cost_nor_prices_nor_awards(case: MarketCase, random):
    prices = case.service_offers.price_usd_per_mw_h[0]
    assume(len(set(prices.tolist())) == len(prices))
    order = np.array(random.sample(range(len(case.service_offers)), len(case.service_offers)))
    found, other = converged(case), converged(select(case, order))
    assert found.objective == pytest.approx(other.objective, rel=1e-9, abs=1e-9)
    np.testing.assert_allclose(other.prices.lmp_usd_per_mwh, found.prices.lmp_usd_per_mwh, rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        other.services.requirement_usd_per_mw_h, found.services.requirement_usd_per_mw_h, rtol=0, atol=1e-5
    )
    np.testing.assert_allclose(other.services.reserved_kw, found.services.reserved_kw[:, order], rtol=0, atol=1e-3)


@pytest.mark.nightly
@given(cases())
@MANY
def test_the_price_of_a_requirement_lies_between_what_less_saves_and_what_more_costs(case: MarketCase):
    found, needed = converged(case), case.requirements
    for index in range(len(needed)):
        cost = []
        for step in (-STEP_KW, STEP_KW):
            quantity = needed.quantity_kw.copy()
            quantity[0, index] += step
            cost.append(converged(replace(case, requirements=replace(needed, quantity_kw=quantity))).objective)
        price = found.services.requirement_usd_per_mw_h[0, index] * STEP_KW / 1000
        assert found.objective - cost[0] <= price + 2e-8
        assert cost[1] - found.objective >= price - 2e-8


def with_free_reserve(case: MarketCase, k: int, kw: float) -> MarketCase:
    """The case with another resource where that of offer `k` stands, which gives `kw` of its service for nothing."""
    own, offers, count = case.resources, case.service_offers, len(case.resources)
    intervals = case.horizon.intervals
    service, name = str(offers.service[k]), "free"
    by_call = np.zeros(4)
    by_call[SERVICES.index(service)] = kw
    up, down, var_up, var_down = by_call
    share = own.share[[*range(count), int(offers.resource[k])]]
    quantity = np.zeros((intervals, 2))
    quantity[:, 0], quantity[:, 1] = up, down
    resources = Resources(
        np.r_[own.name, [name]],
        np.r_[own.kind, ["other"]],
        share,
        np.r_[own.p_min_kw, -down],
        np.hstack([own.p_max_kw, np.full((intervals, 1), up)]),
        np.r_[own.q_min_kvar, -var_down],
        np.r_[own.q_max_kvar, var_up],
        np.r_[own.s_max_kva, np.inf],
    )
    bids = case.bids
    bids = replace(
        bids,
        resource=np.r_[bids.resource, count, count],
        is_supply=np.r_[bids.is_supply, True, False],
        segment=np.r_[bids.segment, 0, 0],
        quantity_kw=np.hstack([bids.quantity_kw, quantity]),
        price_usd_per_mwh=np.hstack([bids.price_usd_per_mwh, np.tile([900.0, -900.0], (intervals, 1))]),
        price_rise_usd_per_mwh=np.zeros((intervals, len(bids) + 2)),
        is_self_scheduled=np.zeros((intervals, len(bids) + 2), bool),
    )
    at_first = np.zeros((intervals, 1))
    at_first[0] = kw
    more = ServiceOffers(
        np.r_[offers.resource, count],
        np.r_[offers.service, [service]],
        np.hstack([offers.quantity_kw, at_first]),
        np.hstack([offers.price_usd_per_mw_h, np.zeros((intervals, 1))]),
        np.r_[offers.duration_hours, offers.duration_hours[k]],
    )
    return replace(case, resources=resources, bids=bids, service_offers=more)


@pytest.mark.nightly
@given(cases())
@MANY
def test_the_price_of_an_offer_is_what_reserve_for_nothing_saves_there(case: MarketCase):
    """A little of it saves no more than its price without it, and no less than its price with it."""
    found, offers = converged(case), case.service_offers
    for k in np.flatnonzero([service.startswith("capacity") for service in offers.service])[:2]:
        free = converged(with_free_reserve(case, int(k), STEP_KW))
        saved = (found.objective - free.objective) * 1000 / STEP_KW
        assert saved <= max(found.services.price_usd_per_mw_h[0, k], 0.0) + 2e-3
        assert saved >= free.services.price_usd_per_mw_h[0, -1] - 2e-3
