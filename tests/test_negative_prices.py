"""A hundred five-minute intervals of negative prices clear right: nothing is burnt that the wires do not lose.

At a negative price of import it pays to lose energy: a relaxation would invent losses, a store would charge and
discharge at once.  Solar power, a battery and cars on the shipped feeder at noon are held to pandapower's power flow
and to the best of all directions of the battery that IPOPT finds.  Prices are made up here, in the shape of real ones;
``DLMP_FIVE_MINUTE_PRICES=FILE:FILE`` names CSV files of real ones, with a column whose name has ``price`` in it, for
``make nightly``.
"""

import itertools
import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from acopf import solve_acopf
from cases import during
from storecases import Store, with_stores

from dlmp import Clearing, InputError, clear, read_case, shipped_case
from dlmp.market import MarketCase, Substation
from dlmp.network.model import FloatArray
from dlmp.network.pandapower_check import pandapower_flow

BLOCKS, LENGTH = 10, 10
NOON = 12
REAL = [path for path in os.environ.get("DLMP_FIVE_MINUTE_PRICES", "").split(os.pathsep) if path]


@cache
def made_up() -> FloatArray:
    """(10, 10) Mostly a few dollars below zero, now and then two hundred, and seldom the same twice [currency/MWh]."""
    rng = np.random.default_rng(20260419)
    return -np.round(rng.lognormal(np.log(3.2), 1.4, (BLOCKS, LENGTH)).clip(0.01, 230.0), 2)


@cache
def real(path: str) -> FloatArray:
    """(10, 10) Runs of negative prices from all over a file, and the one with the lowest of all."""
    table = pd.read_csv(Path(path))
    price = table[next(name for name in table.columns if "price" in name.lower())].to_numpy()
    starts, begin = [], 0
    while begin <= len(price) - LENGTH:
        is_run = (price[begin : begin + LENGTH] < 0).all()
        starts += [begin] if is_run else []
        begin += LENGTH if is_run else 1
    runs = np.array([price[begin : begin + LENGTH] for begin in starts])
    spread = np.linspace(0, len(runs) - 1, BLOCKS - 1).round().astype(int)
    return runs[np.r_[spread, runs.min(axis=1).argmin()]]


@cache
def at_noon() -> MarketCase:
    """The shipped day at its sunniest hour."""
    return read_case(shipped_case("day33"))


def five_minutes(price: FloatArray) -> MarketCase:
    """As many five-minute intervals as prices, all with the load, sun and bids of noon, a battery and cars."""
    day, intervals = at_noon(), len(price)

    def each(values: FloatArray) -> FloatArray:
        return np.repeat(values[NOON : NOON + 1], intervals, axis=0)

    bids = during(day.bids, [NOON] * intervals)
    case = replace(
        day,
        horizon=replace(day.horizon, start=day.horizon.starts[NOON], interval_minutes=5, intervals=intervals),
        substation=Substation(price, np.zeros(intervals), p_min_kw=-4000.0, p_max_kw=6000.0),
        load_p_kw=each(day.load_p_kw),
        load_q_kvar=each(day.load_q_kvar),
        resources=replace(day.resources, p_max_kw=each(day.resources.p_max_kw)),
        bids=bids,
    )
    battery = Store(
        *("battery", 17),
        charge_kw=500.0,
        discharge_kw=500.0,
        energy_kwh=250.0,
        initial_kwh=170.0,
        efficiency=(0.93, 0.92),
        cycling=2.0,
        final=12.0,
    )
    need = np.r_[np.zeros(intervals - 1), 6.0 * intervals]
    cars = Store("cars", 24, 300.0, 200.0, kind="ev", initial_kwh=20.0, least_kwh=need, efficiency=(0.92, 1.0))
    return with_stores(case, battery, cars)


SOURCES = ["made up", *(pytest.param(path, marks=pytest.mark.nightly) for path in REAL)]


def prices(source: str) -> FloatArray:
    return made_up() if source == "made up" else real(source)


@cache
def cleared(source: str, block: int) -> Clearing:
    return clear(five_minutes(prices(source)[block]))


@pytest.mark.parametrize("source", SOURCES)
def test_a_hundred_prices_are_negative(source: str):
    assert prices(source).shape == (BLOCKS, LENGTH)
    assert (prices(source) < 0).all()
    assert prices(source).min() < -40


@pytest.mark.parametrize("block", range(BLOCKS))
@pytest.mark.parametrize("source", SOURCES)
def test_import_is_what_an_independent_power_flow_needs_and_no_store_goes_both_ways(source: str, block: int):
    found = cleared(source, block)
    assert found.status == "converged"
    flow = pandapower_flow(found.case.network, found.awards.injection_kva())
    assert flow.converged
    np.testing.assert_allclose(found.import_kw, flow.import_kva.real, rtol=1e-6)
    lost = found.import_kw + found.awards.injection_kva().real.sum(axis=1)
    np.testing.assert_allclose(lost, flow.branch_loss_pu() * 100, rtol=1e-6)
    assert np.minimum(found.stores.charge_kw, found.stores.discharge_kw).max() < 1e-4
    assert found.certificate.is_feasible
    assert found.certificate.is_supported
    assert (found.prices.energy < 0).all()


def best_of_all_directions(case: MarketCase) -> float:
    """Least cost that IPOPT finds with the battery's direction given in every interval."""
    costs = []
    for choice in itertools.product([0.0, 1.0], repeat=case.horizon.intervals):
        may_charge = np.column_stack([choice, np.ones(len(choice))])
        powers = {
            "charge_max_kw": case.stores.charge_max_kw * may_charge,
            "discharge_max_kw": case.stores.discharge_max_kw * (1 - may_charge),
        }
        try:
            costs.append(solve_acopf(replace(case, stores=replace(case.stores, **powers))).cost)
        except InputError:
            continue
    assert len(costs) > 4
    return min(costs)


@pytest.mark.parametrize("block", [0, pytest.param(6, marks=pytest.mark.nightly), BLOCKS - 1])
@pytest.mark.parametrize("source", SOURCES)
def test_no_directions_of_the_battery_cost_less_with_ipopt(source: str, block: int):
    case = five_minutes(prices(source)[block, :3])
    found = clear(case)
    assert found.status == "converged"
    assert found.objective <= best_of_all_directions(case) + 1e-6
