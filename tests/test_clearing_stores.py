"""Stores are cleared over the whole horizon: as the joint AC optimum has it, and as its prices say."""

from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from acopf import AcOpf, solve_acopf
from feeders import Branch, feeder
from storecases import STORE_CASES, Store, with_stores

from dlmp import Clearing, InputError, clear
from dlmp.market import MarketCase, simple_case

BoolArray = npt.NDArray[np.bool_]


@pytest.fixture(params=STORE_CASES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@cache
def clearing(name: str) -> Clearing:
    return clear(STORE_CASES[name]())


@cache
def optimum(name: str) -> AcOpf:
    return solve_acopf(STORE_CASES[name]())


def is_determined(found: Clearing) -> BoolArray:
    """(t, k) False where a store idles at an end of its band: a range of values then supports that."""
    stores, did = found.case.stores, found.stores
    is_inside = (did.energy_kwh > stores.energy_min_kwh + 1e-3) & (did.energy_kwh < stores.energy_max_kwh - 1e-3)
    return is_inside | (did.charge_kw > 1e-3) | (did.discharge_kw > 1e-3)


def test_it_converges_and_its_certificate_holds(name: str):
    found = clearing(name)
    assert found.status == "converged"
    assert found.certificate.is_feasible
    assert found.certificate.is_supported
    assert found.certificate.voltage_mismatch_pu < 1e-8


def test_cost_is_that_of_the_joint_ac_optimum(name: str):
    assert clearing(name).objective == pytest.approx(optimum(name).cost, rel=1e-6)


def test_prices_and_the_value_of_stored_energy_are_those_of_the_joint_ac_optimum(name: str):
    found, expected = clearing(name), optimum(name)
    np.testing.assert_allclose(found.prices.lmp_usd_per_mwh, expected.price_p, rtol=0, atol=1e-3)
    own = is_determined(found)
    assert own.sum() > own.size / 2
    mine, theirs = found.stores.value_usd_per_mwh[own], expected.stores.value_usd_per_mwh[own]
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-3)


def test_stores_do_what_the_joint_ac_optimum_has_them_do(name: str):
    found, expected = clearing(name).stores, optimum(name).stores
    for part in ("charge_kw", "discharge_kw", "energy_kwh", "shortfall_kwh"):
        np.testing.assert_allclose(getattr(found, part), getattr(expected, part), rtol=0, atol=0.05)


def test_energy_is_carried_from_interval_to_interval(name: str):
    found = clearing(name)
    stores, hours, did = found.case.stores, found.case.horizon.interval_hours, found.stores
    before = np.vstack([stores.initial_kwh, did.energy_kwh[:-1]]) * stores.retention**hours
    gained = did.charge_kw * stores.charge_efficiency - did.discharge_kw / stores.discharge_efficiency
    expected = before + hours * (gained - stores.drain_kw)
    np.testing.assert_allclose(did.energy_kwh, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        found.awards.net_injection_kw[:, stores.resource], did.discharge_kw - did.charge_kw, rtol=0, atol=1e-6
    )


def test_no_store_charges_and_discharges_at_once(name: str):
    did = clearing(name).stores
    assert np.minimum(did.charge_kw, did.discharge_kw).max() < 1e-4


def beside_a_load(price: list[float], **fields: object) -> MarketCase:
    """A store of 50 kW and 100 kWh behind a line that loses next to nothing, beside a load of 200 kW."""
    case = simple_case(feeder([Branch("a", "b", 1e-5, 1e-5)], {"b": (200.0, 0.0)}), np.array(price))
    plain = {"charge_kw": 50.0, "discharge_kw": 50.0, "energy_kwh": 100.0}
    return with_stores(case, Store("battery", "b", **(plain | fields)))


def test_arbitrage_worked_by_hand():
    """An hour's 50 kW at 60, less 4 for the wear, need 50 / 0.81 = 61.73 kWh: 50 bought at 20, the rest at 30.

    One more kWh in the store saves what it takes to buy it at the margin, 30 / 0.9.
    """
    found = clear(beside_a_load([20.0, 30.0, 60.0], efficiency=(0.9, 0.9), cycling=4.0))
    rest_kw = 50 / 0.81 - 50
    np.testing.assert_allclose(found.stores.charge_kw.ravel(), [50, rest_kw, 0], atol=1e-3)
    np.testing.assert_allclose(found.stores.discharge_kw.ravel(), [0, 0, 50], atol=1e-3)
    idle = clear(beside_a_load([20.0, 30.0, 60.0], charge_kw=0.0)).objective
    saved = (60 - 4) * 0.05 - 20 * 0.05 - 30 * rest_kw / 1000
    assert idle - found.objective == pytest.approx(saved, abs=1e-3)
    np.testing.assert_allclose(found.stores.value_usd_per_mwh.ravel()[:2], 30 / 0.9, atol=0.05)


def test_the_value_of_stored_energy_is_what_one_more_kilowatt_hour_at_the_beginning_saves():
    fields = {"efficiency": (0.95, 0.9), "retention": 0.98, "cycling": 3.0}
    costs = [clear(beside_a_load([40.0, 25.0, 55.0], initial_kwh=kwh, **fields)).objective for kwh in (10.0, 11.0)]
    value = clear(beside_a_load([40.0, 25.0, 55.0], initial_kwh=10.5, **fields)).stores.value_usd_per_mwh[0, 0]
    assert (costs[0] - costs[1]) * 1000 == pytest.approx(value * 0.98, rel=1e-4)


def test_energy_above_the_band_at_the_beginning_is_led_back_into_it():
    """150 kWh where at most 100 may be at the end of an hour: 50 kW for an hour, though import costs less than nothing.

    Refused where 50 kW cannot flow.
    """
    network = feeder([Branch("a", "b", 1e-6, 1e-6)], {"b": (200.0, 0.0)})
    store = Store("full", "b", charge_kw=0.0, discharge_kw=50.0, energy_kwh=100.0, initial_kwh=150.0)
    case = simple_case(network, [-40.0, -40.0])
    found = clear(with_stores(case, store))
    np.testing.assert_allclose(found.stores.discharge_kw, [[50.0], [0.0]], atol=1e-6)
    np.testing.assert_allclose(found.stores.energy_kwh, [[100.0], [100.0]], atol=1e-6)
    with pytest.raises(InputError, match="cannot be kept: at least 101 kWh will be there"):
        with_stores(case, replace(store, initial_kwh=151.0))


@pytest.mark.parametrize("initial_kwh", [0.0, 100.0, 70.0])
def test_at_negative_prices_a_store_burns_no_energy_by_going_both_ways(initial_kwh: float):
    found = clear(beside_a_load([-50.0, -20.0, -35.0], efficiency=(0.8, 0.8), initial_kwh=initial_kwh))
    assert found.status == "converged"
    assert np.minimum(found.stores.charge_kw, found.stores.discharge_kw).max() < 1e-4
    assert found.stores.charge_kw.max() > 1.0
