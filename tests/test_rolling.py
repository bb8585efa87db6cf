"""Rolling through a day: nothing new changes nothing, what is new changes the rest, and energy is carried on."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from cases import CASES, market, resource
from feeders import Branch, feeder
from numpy.typing import ArrayLike
from settlementcases import with_services
from storecases import STORE_CASES, Store, with_stores

from dlmp import Clearing, InfeasibleError, InputError, Penalties, RollingDay, Settings, clear, reclear
from dlmp.market import MarketCase, simple_case
from dlmp.output import TABLES

UNCHANGED = {"arbitrage_33": (1, 2, 4), "cars_33": (5, 12), "heat_33": (3,), "day_33": (1, 2)}
"""Cases, and the intervals at which they are cleared again."""


@cache
def whole(name: str) -> Clearing:
    return clear((STORE_CASES | CASES)[name]())


@cache
def rolled(name: str) -> RollingDay:
    day = RollingDay.begin(whole(name))
    for first in UNCHANGED[name]:
        day = reclear(day, whole(name).case, first)
    return day


@pytest.fixture(params=UNCHANGED)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_with_the_same_forecast_the_day_costs_what_it_costs_at_once(name: str):
    assert rolled(name).objective == pytest.approx(whole(name).objective, rel=1e-9)


def test_with_the_same_forecast_awards_and_prices_are_those_of_the_whole_day(name: str):
    found, expected = rolled(name), whole(name)
    injection = found.over_day(lambda clearing: clearing.awards.net_injection_kw)
    np.testing.assert_allclose(injection, expected.awards.net_injection_kw, rtol=0, atol=1e-6)
    price = found.over_day(lambda clearing: clearing.prices.lmp_usd_per_mwh)
    np.testing.assert_allclose(price, expected.prices.lmp_usd_per_mwh, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.uplift.uplift_usd, 0.0, atol=1e-6)


def test_with_the_same_forecast_tables_of_the_day_are_those_of_the_whole_day(name: str):
    for table in ("awards", "prices", "segments", "stores", "local_supply"):
        joined, expected = rolled(name).table(TABLES[table]), TABLES[table](whole(name))
        assert joined.interval.tolist() == expected.interval.tolist()
        assert joined.interval_start.tolist() == expected.interval_start.tolist()
    firsts = rolled(name).table(TABLES["prices"]).groupby("interval").cleared_from.first()
    steps = np.array([0, *UNCHANGED[name]])
    assert firsts.tolist() == [steps[steps <= interval].max() for interval in firsts.index]


def beside_a_load(price: ArrayLike, *stores: Store, load_kw: float = 200.0) -> MarketCase:
    """Stores behind a line that loses next to nothing."""
    case = simple_case(feeder([Branch("a", "b", 1e-5, 1e-5)], {"b": (load_kw, 0.0)}), np.asarray(price, dtype=float))
    return with_stores(case, *stores)


def battery(**fields: object) -> Store:
    plain = Store("battery", "b", charge_kw=50.0, discharge_kw=50.0, energy_kwh=100.0, efficiency=(0.8, 1.0))
    return replace(plain, cycling=2.0, **fields)


def with_prices(case: MarketCase, price: ArrayLike) -> MarketCase:
    return replace(case, substation=replace(case.substation, price_usd_per_mwh=np.asarray(price, dtype=float)))


FORECAST, NEWS = [20.0, 30.0, 60.0, 25.0], [999.0, 30.0, 22.0, 24.0]


@cache
def disappointed() -> RollingDay:
    """The evening for which the battery was charged turns out to be cheap; the last hour is the dearest left."""
    case = beside_a_load(FORECAST, battery())
    return reclear(clear(case), with_prices(case, NEWS), 1)


def test_a_battery_whose_evening_turns_out_cheap_sells_where_it_still_can():
    """50 kWh were wanted at 60: 50 kW bought at 20 in the first hour, 12.5 planned at 30.

    Then 40 kWh are there and 30 - 2 is the most to be had for them, at once; 22 / 0.8 would not pay to buy again.
    """
    first = disappointed().steps[0].clearing.stores
    np.testing.assert_allclose(first.charge_kw.ravel(), [50, 12.5, 0, 0], atol=1e-3)
    net = disappointed().over_day(lambda clearing: clearing.awards.net_injection_kw)
    np.testing.assert_allclose(net.ravel(), [-50, 40, 0, 0], atol=1e-3)


def test_make_whole_by_hand():
    """It paid 50 x 20, was paid 40 x 30 and wore 40 x 2: 0.12 USD are left, and nothing is due.

    Were the rest of the day at 12 and less: it sells for 0.48 what it paid 1.00 for and wears 0.08; 0.60 are due.
    """
    table = disappointed().uplift.table().set_index("resource").loc["battery"]
    assert table.as_bid_cost_usd == pytest.approx(0.08, abs=1e-4)
    assert table.revenue_usd == pytest.approx(0.20, abs=1e-4)
    assert table.uplift_usd == 0.0
    case = beside_a_load(FORECAST, battery())
    cheaper = reclear(clear(case), with_prices(case, [999.0, 12.0, 11.0, 10.0]), 1)
    assert cheaper.uplift.uplift_usd.item() == pytest.approx(0.60, abs=1e-4)


def test_the_first_interval_is_binding_whatever_the_new_forecast_says_of_it():
    """999 in the new forecast of the first hour changes neither its price nor the cost of the day."""
    day = disappointed()
    assert day.first_interval == 1
    price = day.over_day(lambda clearing: clearing.prices.energy[:, 0])
    np.testing.assert_allclose(price, [20, 30, 22, 24], atol=1e-6)
    expected = 0.2 * (20 + 30 + 22 + 24) + 0.05 * 20 - 0.04 * (30 - 2)
    assert day.objective == pytest.approx(expected, abs=1e-3)


def test_what_a_firm_deadline_needs_is_no_loss_to_be_made_whole():
    """A car that must have 40 kWh buys 40 kW at 25 and is owed nothing.

    One sent to buy them at 25 for fear of an hour at 70 that turns out at 15 is owed the difference, 10 x 40 kWh.
    """
    car = Store("car", "b", charge_kw=40.0, energy_kwh=60.0, least_kwh=[0.0, 40.0, 40.0])
    case = beside_a_load([25.0, 70.0, 80.0], car)
    same = reclear(clear(case), case, 1).uplift
    np.testing.assert_allclose([same.as_bid_cost_usd.item(), same.revenue_usd.item()], [0.0, -1.0], atol=1e-4)
    assert same.uplift_usd.item() == pytest.approx(0.0, abs=1e-6)
    misled = reclear(clear(case), with_prices(case, [0.0, 15.0, 80.0]), 1).uplift
    assert misled.uplift_usd.item() == pytest.approx(0.4, abs=1e-4)


def test_a_generator_that_follows_its_bids_has_no_uplift_and_one_that_must_run_bears_its_own_loss():
    """Bids of 30 at a price of 20: what runs because it must loses 10 x 50 kW by its own will."""
    offers = [
        resource("willing", "b", supply=[(100.0, 10.0)]),
        resource("must run", "b", supply=[(50.0, 30.0)], must_run_kw=50.0),
    ]
    case = market(feeder([Branch("a", "b", 1e-5, 1e-5)], {"b": (200.0, 0.0)}), [20.0, 20.0], *offers)
    found = reclear(clear(case), case, 1).uplift
    np.testing.assert_allclose(found.as_bid_cost_usd - found.revenue_usd, [-2.0, 1.0], atol=1e-3)
    np.testing.assert_allclose(found.own_needs_usd, [0.0, 1.0], atol=1e-3)
    np.testing.assert_allclose(found.uplift_usd, 0.0, atol=1e-6)


def test_stores_go_on_with_metered_energy():
    """The meter has 12 kWh where 40 were left: that is all there is to sell at 30, and the day's balance says so."""
    case = beside_a_load(FORECAST, battery())
    day = reclear(clear(case), with_prices(case, NEWS), 1, energy_kwh={"battery": 12.0})
    did = day.over_day(lambda clearing: clearing.stores.discharge_kw)
    np.testing.assert_allclose(did.ravel(), [0, 12, 0, 0], atol=1e-3)
    np.testing.assert_allclose(day.case.stores.drain_kw.ravel(), [0, 28, 0, 0], atol=1e-3)


NEWS_OF_DAY: dict[str, Callable[[MarketCase, int], MarketCase]] = {
    "load": lambda case, k: replace(case, load_p_kw=case.load_p_kw * (1 + 0.03 * k)),
    "prices": lambda case, k: with_prices(case, case.substation.price_usd_per_mwh[::-1] + k),
    "bids": lambda case, k: replace(
        case, bids=replace(case.bids, price_usd_per_mwh=case.bids.price_usd_per_mwh * (1 - 0.05 * k))
    ),
    "availability": lambda case, k: replace(
        case,
        resources=replace(
            case.resources, p_max_kw=case.resources.p_max_kw * np.where(case.resources.kind == "generator", 0.9, 1.0)
        ),
    ),
}


@pytest.mark.parametrize("news", NEWS_OF_DAY)
def test_energy_is_carried_on_over_every_step(news: str):
    """The equation of the stores holds from interval to interval of the day, across what was cleared when."""
    case = STORE_CASES["arbitrage_33"]()
    day = RollingDay.begin(clear(case))
    for k in range(1, case.horizon.intervals):
        day = reclear(day, NEWS_OF_DAY[news](case, k), k)
    stores = day.case.stores
    charge, discharge, energy = (
        day.over_day(lambda clearing, part=part: getattr(clearing.stores, part))
        for part in ("charge_kw", "discharge_kw", "energy_kwh")
    )
    before = np.vstack([stores.initial_kwh, energy[:-1]]) * stores.retention
    gained = charge * stores.charge_efficiency - discharge / stores.discharge_efficiency
    np.testing.assert_allclose(energy, before + gained - stores.drain_kw, rtol=0, atol=1e-6)
    assert (energy <= stores.energy_max_kwh + 1e-6).all()
    assert np.isfinite(day.uplift.uplift_usd).all()
    np.testing.assert_array_equal(day.case.load_p_kw[-1], NEWS_OF_DAY[news](case, 5).load_p_kw[-1])
    np.testing.assert_array_equal(day.case.load_p_kw[0], case.load_p_kw[0])


def test_new_segments_of_a_curve_hold_from_their_step_on():
    """A generator that offers 80 kW at 10 in one block, and later 60 at 10 and 60 at 15."""
    network = feeder([Branch("a", "b", 1e-5, 1e-5)], {"b": (200.0, 0.0)})
    one = market(network, [20.0, 20.0], resource("gen", "b", supply=[(80.0, 10.0)], available_kw=120.0))
    two = market(network, [20.0, 20.0], resource("gen", "b", supply=[(60.0, 10.0), (60.0, 15.0)], available_kw=120.0))
    day = reclear(clear(one), two, 1)
    assert day.case.bids.quantity_kw.tolist() == [[80.0, 0.0], [60.0, 60.0]]
    net = day.over_day(lambda clearing: clearing.awards.net_injection_kw)
    np.testing.assert_allclose(net.ravel(), [80, 120], atol=1e-4)
    assert day.uplift.as_bid_cost_usd.item() == pytest.approx(0.08 * 10 + 0.06 * 10 + 0.06 * 15, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "element", "field"),
    [
        (lambda case: {"first_interval": 4}, "reclear", "first_interval"),
        (lambda case: {"first_interval": 0}, "reclear", "first_interval"),
        (lambda case: {"first_interval": 1.5}, "reclear", "first_interval"),
        (lambda case: {"first_interval": "1"}, "reclear", "first_interval"),
        (lambda case: {"energy_kwh": {"nobody": 3.0}}, "store of nobody", "energy_kwh"),
        (lambda case: {"energy_kwh": {"battery": -3.0}}, "store of battery", "energy_kwh"),
        (lambda case: {"energy_kwh": {"battery": np.nan}}, "store of battery", "energy_kwh"),
        (
            lambda case: {"case": replace(case, horizon=replace(case.horizon, interval_minutes=30))},
            "forecast",
            "horizon",
        ),
        (
            lambda case: {"case": beside_a_load(FORECAST, battery(), replace(battery(), name="two"))},
            "forecast",
            "resources",
        ),
        (lambda case: {"case": beside_a_load(FORECAST, battery(final=3.0))}, "forecast, stores", "final_usd_per_mwh"),
        (
            lambda case: {"case": beside_a_load(FORECAST, battery(q_kvar=(-1.0, 1.0)))},
            "forecast, resources",
            "q_min_kvar",
        ),
        (lambda case: {"case": STORE_CASES["arbitrage_33"]()}, "forecast", "network"),
        (lambda case: {"case": replace(case, penalties=Penalties(voltage=()))}, "forecast", "penalties"),
    ],
)
def test_a_step_that_does_not_belong_to_the_day_is_refused(change, element: str, field: str):
    case = beside_a_load(FORECAST, battery())
    with pytest.raises(InputError) as caught:
        reclear(clear(case), **({"case": case, "first_interval": 1} | change(case)))
    assert (element, field) in [(problem.element, problem.field) for problem in caught.value.problems]


def test_a_step_follows_the_one_before():
    with pytest.raises(InputError, match="must be 2 to 3"):
        reclear(disappointed(), disappointed().case, 1)


def test_a_battery_that_sold_what_it_would_rather_have_kept_is_made_whole():
    """What it holds is worth 30 to it in the end.  It sold 50 kWh at 25, to buy them back at 10 in the next hour.

    When that hour comes at 90 it sells the rest, and over the day loses nothing.  When it comes at 31 that does not
    pay its wear of 2: it has sold for 25 less 2 what is worth 30, and is owed 7 on 50 kWh.
    """
    keeper = replace(battery(initial_kwh=80.0, final=30.0), efficiency=(1.0, 1.0), energy_kwh=80.0)
    case = beside_a_load([25.0, 10.0], keeper)
    news = reclear(clear(case), with_prices(case, [0.0, 90.0]), 1)
    net = news.over_day(lambda clearing: clearing.awards.net_injection_kw)
    np.testing.assert_allclose(net.ravel(), [50, 30], atol=1e-3)
    earned, worth = 0.05 * 25 + 0.03 * 90 - 0.08 * 2, 0.08 * 30
    assert earned > worth
    assert news.uplift.uplift_usd.item() == 0.0
    cheap = reclear(clear(case), with_prices(case, [0.0, 31.0]), 1)
    np.testing.assert_allclose(cheap.over_day(lambda one: one.awards.net_injection_kw).ravel(), [50, 0], atol=1e-3)
    assert cheap.uplift.own_needs_usd.item() == pytest.approx(-0.08 * 30, abs=1e-6)
    assert cheap.uplift.uplift_usd.item() == pytest.approx(0.05 * (30 - 25 + 2), abs=1e-4)


def test_limits_that_conflict_are_named_by_the_interval_of_the_day():
    case = beside_a_load(FORECAST, battery())
    least = np.array([-np.inf, -np.inf, 500.0, -np.inf])
    capped = replace(case, substation=replace(case.substation, p_min_kw=least))
    with pytest.raises(InfeasibleError) as caught:
        reclear(clear(case, Settings(limits="hard")), capped, 1)
    assert [conflict.interval for conflict in caught.value.conflicts] == [2]


def test_penalties_are_a_cost_of_the_day_and_of_no_resource():
    """100 kW of 200 may be imported in the second and third hour, and the engine has 30; then only 80 of them."""
    network = feeder([Branch("a", "b", 1e-5, 1e-5)], {"b": (200.0, 0.0)})
    cap = np.array([np.inf, 100.0, 100.0])
    case = market(network, [20.0] * 3, resource("engine", "b", supply=[(30.0, 50.0)]), p_max_kw=cap)
    begun = RollingDay.begin(clear(case))
    assert begun.objective == pytest.approx(begun.clearing.objective, rel=1e-9)
    tighter = replace(case, substation=replace(case.substation, p_max_kw=np.array([np.inf, 100.0, 80.0])))
    day = reclear(begun, tighter, 2)
    table = day.table(TABLES["broken_limits"])
    assert table[["interval", "cleared_from"]].to_numpy().tolist() == [[1, 0], [2, 2]]
    np.testing.assert_allclose(table.excess, [70, 90], atol=0.1)
    excess = table.excess.sum()
    plain = (20 * (200 + 170 + 170) + 50 * 60) / 1000
    assert day.objective == pytest.approx(plain + 4.0 * excess, rel=1e-4)
    assert day.uplift.as_bid_cost_usd.item() == pytest.approx(50 * 0.06, abs=1e-6)
    assert day.uplift.uplift_usd.item() == 0.0


def test_metered_energy_beyond_the_band_is_refused_with_the_interval_it_counts_from():
    case = beside_a_load(FORECAST, replace(battery(), discharge_kw=5.0))
    with pytest.raises(InputError, match="count from it") as caught:
        reclear(clear(case), case, 2, energy_kwh={"battery": 150.0})
    assert "store of battery, interval 0" in [problem.element for problem in caught.value.problems]


def with_reserve(case: MarketCase, kw: ArrayLike) -> MarketCase:
    """The same case with a battery that offers capacity up, of which some is required."""
    return with_services(case, ("battery", "capacity_up", 30.0, 4.0), shortage=300.0, capacity_up=kw)


def test_a_day_with_services_rolled_with_the_same_forecast_is_the_whole_day():
    """The binding awards keep what they hold ready, and what that earns counts for who needs uplift."""
    case = with_reserve(beside_a_load([20.0, 30.0, 60.0, 25.0], battery(final=22.0)), [0.0, 20.0, 20.0, 10.0])
    found = clear(case)
    day = reclear(found, case, 2)
    assert found.services.reserved_kw.sum() == pytest.approx(50.0, rel=1e-6)
    reserved = day.over_day(lambda clearing: clearing.services.reserved_kw)
    np.testing.assert_allclose(reserved, found.services.reserved_kw, atol=1e-5)
    assert day.objective == pytest.approx(found.objective, rel=1e-8)
    np.testing.assert_allclose(day.uplift.uplift_usd, 0.0, atol=1e-6)
    earned = found.awards.net_injection_kw * found.awards.lmp_usd_per_mwh + reserved * found.services.price_usd_per_mw_h
    np.testing.assert_allclose(day.uplift.revenue_usd, earned.sum(axis=0) / 1000, rtol=1e-5)
    assert day.table(TABLES["services"]).cleared_from.tolist() == [0, 0, 2, 2]
    assert day.table(TABLES["requirements"]).required.tolist() == [0, 20, 20, 10]
