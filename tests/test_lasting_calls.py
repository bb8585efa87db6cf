"""Calls that last longer than an interval, worked by hand on feeders that lose next to nothing."""

from dataclasses import replace

import numpy as np
import pytest
from cases import Offer, market, resource
from feeders import Branch, feeder
from servicecases import SERVICE_CASES, Needed, Ready, with_services
from storecases import Store, quarter_hours, with_stores
from test_services import polygon_edge

from dlmp import Clearing, MarketCase, clear
from dlmp.deliverability import called_excess, check_calls
from dlmp.market import simple_case
from dlmp.settlement import settle

LINE = feeder([Branch("a", "b", 1e-6, 1e-6)], {"b": (200.0, 0.0)})


def plant(price: float = 30.0, **fields: object) -> Offer:
    return resource("plant", "b", supply=[(100, price)], **fields)


def of_two_hours(prices: list[float], offer: Offer, service: str, needed: list[float], price: float) -> Clearing:
    """A call that lasts two hours, of all that the resource offers at `price`."""
    ready = Ready(str(offer.name), service, 100.0, price, hours=2.0)
    return clear(with_services(market(LINE, prices, offer), [ready], [Needed(service, needed)]))


def test_power_is_kept_free_in_every_hour_of_a_call():
    """25 kW held back would have earned 40 - 30 in the first hour and 90 - 30 in the second; holding them costs 2."""
    found = of_two_hours([40.0, 90.0, 40.0], plant(), "capacity_up", [25.0, 0.0, 0.0], 2.0)
    np.testing.assert_allclose(found.awards.net_injection_kw.ravel(), [75, 75, 100], atol=1e-6)
    np.testing.assert_allclose(found.services.price_usd_per_mw_h.ravel()[0], 2 + 10 + 60, atol=1e-3)
    assert found.certificate.is_supported
    assert found.certificate.is_deliverable


def test_room_below_is_kept_in_every_hour_of_a_call():
    """An idle plant at 55 must run 20 kW above its least power for two hours, at prices of 40 and 50."""
    found = of_two_hours([40.0, 50.0, 40.0], plant(55.0), "capacity_down", [20.0, 0.0, 0.0], 1.0)
    np.testing.assert_allclose(found.awards.net_injection_kw.ravel(), [20, 20, 0], atol=1e-6)
    np.testing.assert_allclose(found.services.price_usd_per_mw_h.ravel()[0], 1 + 15 + 5, atol=1e-3)


def test_of_one_offer_one_call_runs_at_a_time():
    """The larger award of two that can be called in the second hour is what is kept free there, not their sum."""
    found = of_two_hours([40.0, 90.0, 60.0], plant(), "capacity_up", [25.0, 35.0, 0.0], 2.0)
    np.testing.assert_allclose(found.awards.net_injection_kw.ravel(), [75, 65, 65], atol=1e-6)
    np.testing.assert_allclose(found.services.price_usd_per_mw_h.ravel()[:2], [2 + 10, 2 + 60 + 30], atol=1e-3)


def test_a_battery_does_not_sell_the_power_of_a_call_that_still_runs():
    """Full of energy, it would sell 50 kW in each hour: for a call of two hours it forgoes 40 and 90."""
    case = with_stores(
        simple_case(LINE, np.array([40.0, 90.0, 40.0])),
        Store("battery", "b", charge_kw=50.0, discharge_kw=50.0, energy_kwh=400.0, initial_kwh=200.0, final=0.0),
    )
    ready = Ready("battery", "capacity_up", 50.0, 1.0, hours=2.0)
    found = clear(with_services(case, [ready], [Needed("capacity_up", [40.0, 0.0, 0.0])]))
    np.testing.assert_allclose(found.stores.discharge_kw.ravel(), [10, 10, 50], atol=1e-6)
    np.testing.assert_allclose(found.services.price_usd_per_mw_h.ravel()[0], 1 + 40 + 90, atol=1e-3)


def test_a_call_of_an_hour_lasts_over_four_quarters():
    case = quarter_hours(market(LINE, [40.0, 50.0, 60.0, 70.0, 80.0], plant()))
    found = clear(
        with_services(case, [Ready("plant", "capacity_up", 60.0)], [Needed("capacity_up", [20.0, 0, 0, 0, 0])])
    )
    np.testing.assert_allclose(found.awards.net_injection_kw.ravel(), [80, 80, 80, 80, 100], atol=1e-6)
    np.testing.assert_allclose(found.services.price_usd_per_mw_h[0, 0], 10 + 20 + 30 + 40, atol=1e-2)


def test_a_rating_is_kept_free_in_every_hour_of_a_call():
    """60 kvar more must fit beside the real power that is sold at 40 and then at 70, and costs 30."""
    rated = plant(q_kvar=(0.0, 80.0), s_max_kva=100.0)
    found = of_two_hours([40.0, 70.0, 40.0], rated, "var_up", [60.0, 0.0, 0.0], 1.5)
    left_kw = polygon_edge(60.0, 100.0)
    slope = polygon_edge(59.5, 100.0) - polygon_edge(60.5, 100.0)
    np.testing.assert_allclose(found.awards.net_injection_kw.ravel()[:2], left_kw, atol=1e-3)
    np.testing.assert_allclose(found.services.price_usd_per_mw_h[0, 0], 1.5 + (10 + 40) * slope, atol=1e-3)
    assert found.awards.net_injection_kw[2, 0] > 98


def test_a_least_power_factor_is_kept_in_every_hour_of_a_call():
    """At 0.8 at least, 30 kvar need 40 kW, which cost 50 - 40 in the first hour and 50 - 45 in the second."""
    case = market(LINE, [40.0, 45.0], plant(50.0, q_kvar=(0.0, 80.0)))
    case = replace(case, resources=replace(case.resources, power_factor_min=np.array([0.8])))
    ready = Ready("plant", "var_up", 80.0, 1.0, hours=2.0)
    found = clear(with_services(case, [ready], [Needed("var_up", [30.0, 0.0])]))
    np.testing.assert_allclose(found.awards.net_injection_kw, 40.0, atol=1e-6)
    np.testing.assert_allclose(found.services.price_usd_per_mw_h[0, 0], 1 + 15 / 0.75, atol=1e-3)


def test_reactive_range_is_kept_in_every_hour_of_a_call():
    """Each kvar that it injects beyond need costs 4, in two hours."""
    case = market(LINE, [40.0, 40.0], plant(q_kvar=(-20.0, 80.0)), q_price_usd_per_mvarh=-4.0)
    ready = Ready("plant", "var_down", 90.0, 0.5, hours=2.0)
    found = clear(with_services(case, [ready], [Needed("var_down", [50.0, 0.0])]))
    np.testing.assert_allclose(found.awards.q_kvar, 30.0, atol=1e-6)
    np.testing.assert_allclose(found.services.price_usd_per_mw_h[0, 0], 0.5 + 8, atol=1e-3)


def behind_a_line(hours: float = 2.0) -> MarketCase:
    """A battery behind 60 kVA, which 40 kW of fixed generation fill in the second hour; a dear plant before it."""
    network = feeder([Branch("a", "b", 1e-6, 1e-6, rating=0.6)], {"b": (100.0, 0.0)})
    main = resource("main", "a", supply=[(100, 55)])
    case = with_stores(
        market(network, 40.0 * np.ones(2), main, load=np.array([0.5, -0.4])),
        Store("battery", "b", charge_kw=0.0, discharge_kw=50.0, energy_kwh=400.0, initial_kwh=200.0, final=60.0),
    )
    ready = [Ready("battery", "capacity_up", 50.0, 1.0, hours=hours), Ready("main", "capacity_up", 100.0, 7.0)]
    return with_services(case, ready, [Needed("capacity_up", [50.0, 0.0])])


def test_the_network_holds_in_the_last_hour_of_a_call():
    """20 kW of the battery fit beside the 40 kW; one more kW of demand there makes room for what saves 7 - 1."""
    found = clear(behind_a_line())
    np.testing.assert_allclose(found.services.reserved_kw[0], [20, 30], atol=1e-3)
    np.testing.assert_allclose(found.services.requirement_usd_per_mw_h[0, 0], 7.0, atol=1e-3)
    np.testing.assert_allclose(found.services.price_usd_per_mw_h[0], [1, 7], atol=1e-3)
    np.testing.assert_allclose(found.services.congestion[0], [-6, 0], atol=1e-3)
    np.testing.assert_allclose(found.prices.lmp_usd_per_mwh, [[40, 40], [40, 34]], atol=1e-3)
    (bound,) = found.binding_limits().itertuples()
    assert (bound.interval, bound.called) == (1, "capacity_up since intervals 0, 1")
    assert found.certificate.is_feasible
    assert found.certificate.is_supported
    assert found.certificate.is_deliverable


def test_the_certificate_calls_awards_in_every_hour_that_they_last():
    """Awards of calls of one hour, told to last two: 90 kVA through 60, and 50 kW beyond the battery's power."""
    short, long = behind_a_line(1.0), behind_a_line(2.0)
    found = clear(short)
    np.testing.assert_allclose(found.services.reserved_kw[0], [50, 0], atol=1e-6)
    nothing = {"voltage": {}, "congestion": {}, "unbalance": {}}
    assert check_calls(short, found.awards, found.services, nothing).worst_violation_pu == 0
    told = check_calls(long, found.awards, found.services, nothing)
    assert told.worst_violation_pu == pytest.approx(0.5, abs=1e-4)
    assert "interval 1, capacity_up since interval 0 called" in told.worst
    sold = replace(found.awards, net_injection_kw=found.awards.net_injection_kw + np.array([[0, 0], [0, 30.0]]))
    assert max(part.max(initial=0.0) for part in called_excess(short, sold, found.services)) == pytest.approx(
        0.0, abs=1e-6
    )
    assert max(part.max(initial=0.0) for part in called_excess(long, sold, found.services)) == pytest.approx(30.0)


def test_money_balances_where_a_call_pays_for_a_later_hour():
    settled = settle(clear(behind_a_line()))
    assert settled.cost_recovery().is_paid_once
    assert "" not in settled.surplus.explanation.tolist()


def test_the_price_of_a_lasting_service_is_the_cost_of_one_more_unit_required():
    case, step = SERVICE_CASES["lasting_33"](), 0.05
    found = clear(case)

    def cost(more_kw: float) -> float:
        quantity_kw = case.requirements.quantity_kw + np.array([[more_kw], [0.0], [0.0]])
        return clear(replace(case, requirements=replace(case.requirements, quantity_kw=quantity_kw))).objective

    slope = (cost(step) - cost(-step)) / (2 * step) * 1000
    assert slope == pytest.approx(found.services.requirement_usd_per_mw_h[0, 0], rel=1e-4)
    assert slope > 4.3
