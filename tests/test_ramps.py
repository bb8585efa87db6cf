"""Ramps: hand-worked markets, and the joint AC optimum of the whole horizon."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from acopf import solve_acopf
from cases import feeder33, generators33, market, rated, resource
from feeders import Branch, feeder
from optimum import cleared_at_the_ac_optimum
from storecases import SIX_LOADS, SIX_PRICES, battery, quarter_hours, with_stores

from dlmp import InputError, Settings, clear
from dlmp.market import MarketCase
from dlmp.ramps import ramp_excess

NEXT_TO_LOSSLESS = Branch("a", "b", 1e-6, 1e-6)
POWER_KW, PRICE = 1e-3, 1e-3


def beside_a_load(price: list[float], supply: list[tuple[float, float]], **fields: object) -> MarketCase:
    """A generator behind a line that loses next to nothing, beside a load of 100 kW."""
    network = feeder([NEXT_TO_LOSSLESS], {"b": (100.0, 0.0)})
    return market(network, price, resource("generator", "b", supply=supply), **fields)


def ramped(case: MarketCase, **fields: object) -> MarketCase:
    """The same case, every resource with these numbers of its ramps."""
    each = {name: np.broadcast_to(np.asarray(value, float), len(case.resources)) for name, value in fields.items()}
    return replace(case, resources=replace(case.resources, **each))


def test_a_generator_that_cannot_follow_a_spike_starts_before_it_and_makes_the_price_of_both_intervals():
    """Loads of 90 and 110 kW, at most 60 kW of import at 20, a generator at 30 that rises by 15 kW in an hour.

    Freely it makes 30 and 50 kW, and the price is its 30 in both hours.  To have 50 kW in the second it must make
    35 in the first, where it pushes out import at 20: that is the first price, below its cost.  One more kW in the
    second hour needs one more kW in both, of which the first saves import: 30 + 30 - 20 = 40.  So the generator
    loses 10 on 35 kW and wins 10 on 50 kW.
    """
    free = beside_a_load([20.0, 20.0], [(100, 30)], load=[0.9, 1.1], p_max_kw=60.0)
    found = clear(free)
    np.testing.assert_allclose(found.awards.net_injection_kw[:, 0], [30, 50], atol=POWER_KW)
    np.testing.assert_allclose(found.prices.lmp_usd_per_mwh[:, 1], [30, 30], atol=PRICE)
    case = ramped(free, ramp_up_kw_per_min=15 / 60)
    found = clear(case)
    assert found.status == "converged"
    np.testing.assert_allclose(found.awards.net_injection_kw[:, 0], [35, 50], atol=POWER_KW)
    np.testing.assert_allclose(found.prices.lmp_usd_per_mwh[:, 1], [20, 40], atol=PRICE)
    assert found.certificate.is_feasible
    assert found.certificate.is_supported
    np.testing.assert_allclose(solve_acopf(case).price_p[:, 1], [20, 40], atol=PRICE)


def test_the_linear_model_has_ramps_too():
    """The spike of the case above."""
    case = ramped(beside_a_load([20.0, 20.0], [(100, 30)], load=[0.9, 1.1], p_max_kw=60.0), ramp_up_kw_per_min=15 / 60)
    found = clear(case, Settings(formulation="lindistflow", losses="none"))
    np.testing.assert_allclose(found.awards.net_injection_kw[:, 0], [35, 50], atol=1e-6)
    np.testing.assert_allclose(found.prices.lmp_usd_per_mwh[:, 1], [20, 40], atol=1e-6)


def test_a_generator_that_cannot_fall_fast_stays_on_at_a_loss_or_stays_low():
    """It costs 30 and falls by 40 kW in an hour, before which one kW wins 20 and after which it loses 15.

    At a loss of 25 afterwards it would pay to stay at 40 kW, which may be gone an hour later.
    """
    for evening, expected in ((15.0, [100, 60]), (5.0, [40, 0])):
        found = clear(ramped(beside_a_load([50.0, evening], [(100, 30)]), ramp_down_kw_per_min=40 / 60))
        np.testing.assert_allclose(found.awards.net_injection_kw[:, 0], expected, atol=POWER_KW)
        assert found.certificate.is_supported


@pytest.mark.parametrize(("initial", "expected"), [(np.nan, [100, 100]), (20.0, [50, 80]), (95.0, [100, 100])])
def test_ramps_begin_at_the_power_before_the_first_interval(initial: float, expected: list[float]):
    """It pays at once, and rises by 30 kW in an hour."""
    case = beside_a_load([50.0, 50.0], [(100, 30)])
    found = clear(ramped(case, ramp_up_kw_per_min=0.5, p_initial_kw=initial))
    np.testing.assert_allclose(found.awards.net_injection_kw[:, 0], expected, atol=POWER_KW)


@pytest.mark.parametrize(("initial", "expected"), [(90.0, [60, 30]), (20.0, [0, 0])])
def test_a_fall_begins_at_the_power_before_the_first_interval(initial: float, expected: list[float]):
    case = beside_a_load([10.0, 10.0], [(100, 30)])
    found = clear(ramped(case, ramp_down_kw_per_min=0.5, p_initial_kw=initial))
    np.testing.assert_allclose(found.awards.net_injection_kw[:, 0], expected, atol=POWER_KW)


def test_a_ramp_wider_than_the_range_limits_the_way_from_a_power_beyond_it():
    """60 kW an hour are more than its 40 kW, but it comes from consuming 30."""
    found = clear(ramped(beside_a_load([50.0, 50.0], [(40, 30)]), ramp_up_kw_per_min=1.0, p_initial_kw=-30.0))
    np.testing.assert_allclose(found.awards.net_injection_kw[:, 0], [30, 40], atol=POWER_KW)


def test_a_single_interval_is_limited_by_the_power_before_it():
    found = clear(ramped(beside_a_load([50.0], [(100, 30)]), ramp_up_kw_per_min=0.5, p_initial_kw=20.0))
    np.testing.assert_allclose(found.awards.net_injection_kw, [[50]], atol=POWER_KW)


def test_a_ramp_counts_by_the_minute():
    """2 kW a minute are 30 kW in a quarter of an hour."""
    case = quarter_hours(beside_a_load([50.0] * 3, [(100, 30)]))
    found = clear(ramped(case, ramp_up_kw_per_min=2.0, p_initial_kw=0.0))
    np.testing.assert_allclose(found.awards.net_injection_kw[:, 0], [30, 60, 90], atol=POWER_KW)


def test_consumption_has_ramps_too():
    """A load that wins 30 on every kW of the second hour and loses 5 in the first, and can rise by 20 kW."""
    network = feeder([NEXT_TO_LOSSLESS], {"b": (100.0, 0.0)})
    case = market(network, [45.0, 10.0], resource("pump", "b", demand=[(50, 40)]))
    found = clear(ramped(case, ramp_down_kw_per_min=20 / 60))
    np.testing.assert_allclose(found.awards.net_injection_kw[:, 0], [-30, -50], atol=POWER_KW)


def test_a_ramp_wider_than_the_range_does_not_join_the_intervals():
    case = ramped(beside_a_load([20.0, 50.0], [(100, 30)]), ramp_up_kw_per_min=100 / 60)
    assert not clear(case)._dispatch.market.is_coupled
    slower = ramped(case, ramp_up_kw_per_min=99 / 60)
    assert clear(slower)._dispatch.market.is_coupled


RAMP_CASES: dict[str, Callable[[], MarketCase]] = {}


def case(build: Callable[[], MarketCase]) -> Callable[[], MarketCase]:
    """Enter the decorated builder into `RAMP_CASES`."""
    RAMP_CASES[build.__name__] = cache(build)
    return build


@case
def evening_33() -> MarketCase:
    plain = market(feeder33(), SIX_PRICES, *generators33(), load=SIX_LOADS)
    return ramped(plain, ramp_up_kw_per_min=[3.1, 2.7, 4.3, np.inf], ramp_down_kw_per_min=[2.3, np.inf, 3.7, 1.9])


@case
def congestion_33() -> MarketCase:
    """The generator that relieves the line would rise faster than it can."""
    network = rated(feeder33(), "line 2", ampere=80.0)
    plain = market(network, SIX_PRICES, *generators33((-100.0, 150.0), 900.0), load=SIX_LOADS)
    return ramped(plain, ramp_up_kw_per_min=2.9, ramp_down_kw_per_min=3.3, p_initial_kw=[300.0, 120.0, np.nan, 0.0])


@case
def with_a_battery_33() -> MarketCase:
    plain = market(feeder33(v_min_pu=0.93), SIX_PRICES, *generators33(), load=SIX_LOADS)
    return ramped(
        with_stores(plain, battery(17, energy_kwh=1200.0)),
        ramp_up_kw_per_min=[1.7, 3.9, 5.3, 2.1, 6.1],
        ramp_down_kw_per_min=[2.9, 2.6, 4.4, 2.7, 5.7],
    )


@pytest.mark.parametrize("name", RAMP_CASES)
def test_cost_prices_and_awards_are_those_of_the_joint_ac_optimum(name: str):
    case = RAMP_CASES[name]()
    found, expected = cleared_at_the_ac_optimum(case)
    np.testing.assert_allclose(found.awards.net_injection_kw, expected.p_kw, rtol=0, atol=0.01)


@pytest.mark.parametrize("name", RAMP_CASES)
def test_ramps_bind_in_these_cases_and_are_kept(name: str):
    case = RAMP_CASES[name]()
    excess = ramp_excess(case.resources, clear(case).awards.net_injection_kw, case.horizon.interval_minutes)
    assert excess.max() < 1e-4
    assert (excess > -1e-4).sum() >= 3


def test_excess_is_by_how_much_more_an_injection_changes_than_it_may():
    case = beside_a_load([20.0, 50.0], [(100, 30)])
    excess = ramp_excess(ramped(case, ramp_up_kw_per_min=0.5).resources, clear(case).awards.net_injection_kw, 60)
    np.testing.assert_allclose(excess, [[-30], [70]], atol=POWER_KW)


@pytest.mark.parametrize(
    ("fields", "element", "field", "message"),
    [
        ({"ramp_up_kw_per_min": 0.0}, "resource generator", "ramp_up_kw_per_min", "must be above zero; leave it blank"),
        ({"ramp_down_kw_per_min": -1.0}, "resource generator", "ramp_down_kw_per_min", "must be above zero"),
        ({"ramp_up_kw_per_min": np.nan}, "resource generator", "ramp_up_kw_per_min", "must be above zero"),
        ({"p_initial_kw": np.inf}, "resource generator", "p_initial_kw", "must be finite; leave it blank"),
        (
            {"ramp_down_kw_per_min": 0.5, "p_initial_kw": 130.0},
            "resource generator, interval 1",
            "ramp_down_kw_per_min",
            "may inject 60 kW and can be at 70 kW at least; raise it or its range",
        ),
        (
            {"ramp_up_kw_per_min": 0.5, "p_initial_kw": -21.0},
            "resource generator, interval 0",
            "ramp_up_kw_per_min",
            "must inject 10 kW and can be at 9 kW at most; raise it or p_initial_kw",
        ),
    ],
)
def test_a_ramp_that_makes_no_sense_is_refused(fields, element: str, field: str, message: str):
    network = feeder([NEXT_TO_LOSSLESS], {"b": (100.0, 0.0)})
    offer = resource("generator", "b", supply=[(100, 30)], must_run_kw=10.0, available_kw=[100.0, 60.0])
    with pytest.raises(InputError) as caught:
        ramped(market(network, [20.0, 20.0], offer), **fields)
    (problem,) = caught.value.problems
    assert (problem.element, problem.field) == (element, field)
    assert message in problem.message
