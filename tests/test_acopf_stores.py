"""The AC oracle is right about stores: textbook answers by hand, and its own finite differences."""

from dataclasses import replace

import numpy as np
import pytest
from acopf import AcOpf, solve_acopf
from feeders import Branch, feeder
from numpy.typing import ArrayLike
from storecases import STORE_BINDING, STORE_CASES, Store, quarter_hours, with_stores
from test_acopf import reached_limits

from dlmp.market import MarketCase, simple_case
from dlmp.stores import NO_STORES

NEXT_TO_LOSSLESS = Branch("a", "b", 1e-5, 1e-5)
"""At 100 kW it loses 1 W."""

PRICE, COST, POWER = 5e-3, 2e-4, 1e-3
"""What such losses do to a price [currency/MWh], a cost [currency] and a power or energy [kW, kWh], at most."""

AT_LIMIT = 1e-4
"""Distance [kW, kWh] at which a limit of a store counts as reached."""


@pytest.fixture(scope="module", params=STORE_CASES)
def cleared(request: pytest.FixtureRequest) -> tuple[MarketCase, AcOpf]:
    case = STORE_CASES[request.param]()
    return case, solve_acopf(case)


def held_at_b(price: ArrayLike, *, load_kw: float = 80.0, **fields: object) -> MarketCase:
    """One store behind a line that loses next to nothing, beside a load of 80 kW."""
    plain = {"charge_kw": 50.0, "discharge_kw": 50.0, "energy_kwh": 100.0}
    case = simple_case(feeder([NEXT_TO_LOSSLESS], {"b": (load_kw, 0.0)}), np.asarray(price))
    return with_stores(case, Store("battery", "b", **(plain | fields)))


def stores_of(case: MarketCase, **fields: object) -> MarketCase:
    """The same case with other numbers of its stores."""
    return replace(case, stores=replace(case.stores, **fields))


def cost_per_mwh(case: MarketCase, field: str, place: tuple[int, ...], step: float = 1.0) -> float:
    """Central difference of the optimal cost by one number of the stores, in kWh [currency/MWh]."""
    by = np.zeros_like(getattr(case.stores, field))
    by[place] = step
    more, less = (solve_acopf(stores_of(case, **{field: getattr(case.stores, field) + way * by})) for way in (1, -1))
    return (more.cost - less.cost) / (2 * step) * 1000


def test_a_perfect_battery_buys_low_and_sells_high():
    """It moves 50 kWh from the hour at 20 to the hour at 50."""
    result = solve_acopf(held_at_b([20.0, 40.0, 50.0], energy_kwh=50.0))
    assert result.p_kw[:, 0] == pytest.approx([-50.0, 0.0, 50.0], abs=POWER)
    assert result.stores.energy_kwh[:, 0] == pytest.approx([50.0, 50.0, 0.0], abs=POWER)
    assert result.cost == pytest.approx(0.08 * (20 + 40 + 50) - 0.05 * (50 - 20), abs=COST)


def test_efficiencies_retention_and_cycling_enter_as_in_the_textbook():
    """40 kW for an hour at 0.8 leave 32 kWh, half of which is there an hour later, and 0.9 of that is sold."""
    case = held_at_b([10.0, 60.0], charge_kw=40.0, efficiency=(0.8, 0.9), retention=0.5, cycling=7.0)
    result = solve_acopf(case)
    assert result.stores.energy_kwh[:, 0] == pytest.approx([32.0, 0.0], abs=POWER)
    assert result.stores.discharge_kw[1, 0] == pytest.approx(14.4, abs=POWER)
    assert result.p_kw[:, 0] == pytest.approx([-40.0, 14.4], abs=POWER)
    assert result.cost == pytest.approx(0.08 * 70 + 0.04 * 10 - 0.0144 * (60 - 7), abs=COST)
    worth = (60 - 7) * 0.9
    assert result.stores.value_usd_per_mwh[:, 0] == pytest.approx([worth * 0.5, worth], abs=PRICE)


@pytest.mark.parametrize(("evening", "trades"), [(33.0, False), (35.0, True)])
def test_a_battery_trades_only_over_a_spread_that_pays_its_losses_and_its_wear(evening: float, trades: bool):
    """20 / (0.9 x 0.8) + 6 = 33.8."""
    result = solve_acopf(held_at_b([20.0, evening], efficiency=(0.9, 0.8), cycling=6.0))
    assert (result.stores.charge_kw[0, 0] > 49.9) == trades
    assert (result.stores.charge_kw[0, 0] > 0.01) == trades


def test_power_counts_by_the_hour_and_energy_does_not():
    """In a quarter of an hour 40 kW store 10 kWh, which at the end are worth 0.01 MWh, not a quarter of it."""
    hourly = held_at_b([20.0, 90.0], charge_kw=40.0, discharge_kw=0.0, final=70.0, retention=0.4)
    result = solve_acopf(quarter_hours(hourly))
    left = 0.4**0.25 * 10.0
    assert result.stores.energy_kwh[:, 0] == pytest.approx([10.0, left], abs=POWER)
    assert result.cost == pytest.approx(0.25 * (0.08 * (20 + 90) + 0.04 * 20) - left / 1000 * 70, abs=COST)
    assert result.stores.value_usd_per_mwh[:, 0] == pytest.approx([0.4**0.25 * 70, 70], abs=PRICE)
    assert result.price_p[:, 1] == pytest.approx([20.0, 90.0], abs=PRICE)


def test_a_deadline_is_met_in_the_cheapest_hours_before_it():
    """60 kWh by the end of the third hour at 40 kW: all of the hour at 18, half of the hour at 25, then away."""
    case = held_at_b(
        [25.0, 18.0, 31.0, 5.0],
        charge_kw=[40.0, 40.0, 40.0, 0.0],
        discharge_kw=0.0,
        least_kwh=[0.0, 0.0, 60.0, 0.0],
    )
    result = solve_acopf(case)
    assert result.stores.charge_kw[:, 0] == pytest.approx([20.0, 40.0, 0.0, 0.0], abs=POWER)
    assert result.stores.value_usd_per_mwh[:, 0] == pytest.approx([25.0, 25.0, 25.0, 0.0], abs=PRICE)


@pytest.mark.parametrize("minutes", [60, 15])
@pytest.mark.parametrize(("price", "energy_kwh"), [(24.0, 2.0), (27.0, 5.0)])
def test_energy_is_missing_only_where_its_price_is_below_that_of_serving(minutes: int, price: float, energy_kwh: float):
    """Serving costs 20 / 0.8 = 25 per MWh of energy, however long an interval is; 2 of 5 kWh are there."""
    case = held_at_b(
        [20.0, 40.0],
        discharge_kw=0.0,
        efficiency=(0.8, 1.0),
        least_kwh=[0.0, 5.0],
        initial_kwh=2.0,
        shortfall=price,
    )
    result = solve_acopf(replace(case, horizon=replace(case.horizon, interval_minutes=minutes)))
    assert result.stores.energy_kwh[-1, 0] == pytest.approx(energy_kwh, abs=POWER)
    assert result.stores.shortfall_kwh[:, 0] == pytest.approx([0.0, 5.0 - energy_kwh], abs=POWER)
    load = 0.08 * (20 + 40) * minutes / 60
    assert result.cost == pytest.approx(load + 0.003 * min(price, 25.0), abs=COST)
    assert result.stores.value_usd_per_mwh[:, 0] == pytest.approx([min(price, 25.0)] * 2, abs=PRICE)


def test_a_drain_takes_from_the_store_what_the_grid_must_give():
    """A band of 10 to 20 kWh, of which 6 kW are used: bought at 20 for both hours, to the brim, and at 50 the rest."""
    case = held_at_b(
        [20.0, 50.0, 60.0], discharge_kw=0.0, least_kwh=10.0, energy_kwh=20.0, initial_kwh=12.0, drain_kw=6.0
    )
    result = solve_acopf(case)
    assert result.stores.charge_kw[:, 0] == pytest.approx([14.0, 2.0, 0.0], abs=POWER)
    assert result.stores.energy_kwh[:, 0] == pytest.approx([20.0, 16.0, 10.0], abs=POWER)
    assert result.stores.value_usd_per_mwh[:, 0] == pytest.approx([20.0, 50.0, 50.0], abs=PRICE)


def test_a_negative_drain_fills_the_store():
    """A vehicle that comes home with 30 kWh in its battery sells them."""
    case = held_at_b([20.0, 40.0], charge_kw=0.0, drain_kw=[-30.0, 0.0])
    assert solve_acopf(case).stores.discharge_kw[:, 0] == pytest.approx([0.0, 30.0], abs=POWER)


def test_a_battery_behind_a_full_line_is_paid_the_price_there():
    """Of 80 kW in the second hour the line carries 60 less its losses; the battery has 12 kWh and buys the rest."""
    case = simple_case(feeder([Branch("a", "b", 1e-3, 0.0, 0.6, is_current=True)], {"b": (80.0, 0.0)}), [20.0, 20.0])
    case = replace(case, load_p_kw=case.load_p_kw * [[0.5], [1.0]])
    battery = Store("battery", "b", 50.0, 100.0, discharge_kw=50.0, efficiency=(0.5, 1.0), initial_kwh=12.0, final=1.0)
    result = solve_acopf(with_stores(case, battery))
    given = 80.0 - 60.0 + 0.6**2 * 1e-3 * 100.0
    bought = (given - 12.0) / 0.5
    price = 20.0 * (1 + 2 * 1e-3 * (40.0 + bought) / 100.0)
    assert result.stores.discharge_kw[1, 0] == pytest.approx(given, abs=POWER)
    assert result.stores.charge_kw[0, 0] == pytest.approx(bought, abs=POWER)
    assert result.price_p[:, 1] == pytest.approx([price, price / 0.5], abs=PRICE)


def test_a_horizon_without_a_dispatch_is_refused():
    """The battery that relieves the line has nothing to give."""
    case = STORE_CASES["relief_33"]()
    with pytest.raises(RuntimeError, match="horizon: IPOPT ended in Infeasible"):
        solve_acopf(stores_of(case, discharge_max_kw=np.zeros_like(case.stores.discharge_max_kw)))


@pytest.mark.parametrize("name", STORE_CASES)
def test_value_of_stored_energy_is_what_one_more_kilowatt_hour_at_the_beginning_saves(name: str):
    case = STORE_CASES[name]()
    kept = case.stores.retention**case.horizon.interval_hours
    for index, worth in enumerate(kept * solve_acopf(case).stores.value_usd_per_mwh[0]):
        assert -cost_per_mwh(case, "initial_kwh", (index,)) == pytest.approx(worth, abs=0.02)


@pytest.mark.parametrize("name", STORE_CASES)
def test_value_of_stored_energy_is_what_one_kilowatt_hour_less_of_drain_saves(name: str):
    case = STORE_CASES[name]()
    hours = case.horizon.interval_hours
    worth = solve_acopf(case).stores.value_usd_per_mwh
    for t, index in np.ndindex(worth[2::5].shape):
        place = (2 + 5 * t, index)
        assert cost_per_mwh(case, "drain_kw", place, 0.5) / hours == pytest.approx(worth[place], abs=0.02), place


@pytest.mark.parametrize(("name", "bus"), [("relief_33", "9"), ("cars_33", "17"), ("undervoltage_store_33", "30")])
@pytest.mark.parametrize("interval", [1, 4])
def test_price_is_the_cost_of_one_more_unit_of_demand_although_stores_move(name: str, bus: str, interval: int):
    case = STORE_CASES[name]()
    one_kilo = np.zeros_like(case.load_p_kw)
    one_kilo[interval, case.network.node(bus)] = 1.0
    more, less = (solve_acopf(replace(case, load_p_kw=case.load_p_kw + d)).cost for d in (one_kilo, -one_kilo))
    expected = solve_acopf(case).price_p[interval, case.network.node(bus)] * case.horizon.interval_hours
    assert (more - less) / 2 * 1000 == pytest.approx(expected, abs=1e-3)


def test_stores_are_held_by_the_limits_that_their_case_is_named_for(cleared: tuple[MarketCase, AcOpf]):
    case, result = cleared
    stores, found = case.stores, result.stores
    moved, most = (
        np.array([getattr(record, field) for field in fields])
        for record, fields in (
            (found, ("charge_kw", "discharge_kw")),
            (stores, ("charge_max_kw", "discharge_max_kw")),
        )
    )
    least = np.where(np.isinf(stores.shortfall_usd_per_mwh), stores.energy_min_kwh, 0.0)
    reached = {
        "full": found.energy_kwh >= stores.energy_max_kwh - AT_LIMIT,
        "low": found.energy_kwh <= least + AT_LIMIT,
        "power": (moved >= most - AT_LIMIT) & (most > 0),
        "short": found.shortfall_kwh > 1.0,
    }
    held = {name for name, mask in reached.items() if mask.any()}
    assert held | reached_limits(case, result) == STORE_BINDING[case.name]


def test_energy_is_carried_on_from_interval_to_interval(cleared: tuple[MarketCase, AcOpf]):
    case, result = cleared
    stores, found, hours = case.stores, result.stores, case.horizon.interval_hours
    energy = stores.initial_kwh
    for t in range(case.horizon.intervals):
        gained = stores.charge_efficiency * found.charge_kw[t] - stores.drain_kw[t]
        energy = stores.retention**hours * energy + hours * (
            gained - found.discharge_kw[t] / stores.discharge_efficiency
        )
        np.testing.assert_allclose(found.energy_kwh[t], energy, atol=1e-5)
    np.testing.assert_allclose(result.p_kw[:, stores.resource], found.discharge_kw - found.charge_kw, atol=1e-9)


def test_no_store_charges_and_discharges_at_once(cleared: tuple[MarketCase, AcOpf]):
    _, result = cleared
    assert (np.minimum(result.stores.charge_kw, result.stores.discharge_kw) < 1e-3).all()


def test_solution_with_stores_does_not_depend_on_the_start(cleared: tuple[MarketCase, AcOpf]):
    case, result = cleared
    noise = np.random.default_rng(7).uniform(-0.05, 0.05, (2, *result.v.shape))
    again = solve_acopf(case, start=result.v * (1 + noise[0]) * np.exp(1j * noise[1]))
    assert again.cost == pytest.approx(result.cost, rel=1e-8)
    np.testing.assert_allclose(again.price_p, result.price_p, atol=1e-5)
    np.testing.assert_allclose(again.p_kw, result.p_kw, atol=1e-3)
    np.testing.assert_allclose(again.stores.value_usd_per_mwh, result.stores.value_usd_per_mwh, atol=1e-4)


def test_an_idle_store_changes_nothing_interval_by_interval():
    """Stores join the intervals in one programme; with nothing to carry it must give what each alone does."""
    case = STORE_CASES["undervoltage_store_33"]()
    nothing = np.zeros_like(case.stores.charge_max_kw)
    idle = stores_of(case, charge_max_kw=nothing, discharge_max_kw=nothing, final_usd_per_mwh=np.zeros(1))
    alone = solve_acopf(replace(idle, stores=NO_STORES))
    joined = solve_acopf(idle)
    assert joined.cost == pytest.approx(alone.cost, rel=1e-9)
    np.testing.assert_allclose(joined.price_p, alone.price_p, atol=1e-6)
