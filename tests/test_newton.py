"""The Newton finish: it finds the right sets from wrong ones, and takes no maximum for an optimum."""

from dataclasses import replace

import numpy as np
import pytest
from acopf import solve_acopf
from cases import CASES, feeder33, market, resource
from scipy import sparse
from servicecases import SERVICE_CASES

from dlmp import MarketCase, Settings, clear
from dlmp.formulation.ac_tangent import AcTangent
from dlmp.formulation.market_lp import build_market_lp
from dlmp.newton import Optimum, _Search, newton_finish
from dlmp.optimality import ActiveSet, Multipliers
from dlmp.products.energy import SUPPLY_LESS_DEMAND
from dlmp.products.services import CALLS_LAST
from dlmp.solve import AT_LOWER, AT_UPPER, BASIC
from dlmp.timing import PhaseClock

SETTINGS = Settings()


def finish(case: MarketCase, x: np.ndarray, column: np.ndarray, price: float) -> Optimum:
    """The finish from dispatch `x` with columns at `column`, no limit binding, import worth `price`."""
    market_lp, formulation = build_market_lp(case, SETTINGS.circle_sides), AcTangent(case.network)
    rows = len(market_lp.row_lower)
    shape = (market_lp.intervals, len(formulation.limits))
    active = ActiveSet(column.astype(np.int8), np.zeros(rows, np.int8), np.zeros(shape, np.int8))
    here = np.full(market_lp.intervals, price)
    multipliers = Multipliers(np.zeros(rows), here, np.zeros_like(here), np.zeros(shape))
    point = formulation.operate(market_lp.injection(x))
    return newton_finish(market_lp, formulation, x, point, active, multipliers, SETTINGS, PhaseClock())


def columns(case: MarketCase, p_kw: np.ndarray, q_kvar: np.ndarray, award_kw: np.ndarray) -> np.ndarray:
    """Columns of the market's programme for a dispatch of one interval."""
    lp = build_market_lp(case, SETTINGS.circle_sides)
    x = lp.start.copy()
    for name, values in (("p", p_kw), ("q", q_kvar), ("award", award_kw)):
        x[lp.block(name)[0]] = values / 100.0
    return x


@pytest.mark.parametrize("name", ["undervoltage_33", "interior_33", "overvoltage_33", "congestion_current_33"])
def test_from_nothing_accepted_and_no_limit_the_optimum_is_found_or_nothing(name: str):
    """Where it says that the interval is solved, it is the AC optimum."""
    case = CASES[name]()
    lp = build_market_lp(case, SETTINGS.circle_sides)
    column = np.where(lp.columns.lower.ravel() == lp.start, AT_LOWER, BASIC)
    found = finish(case, lp.start, column, price=20.0)
    if not found.is_open.any():
        expected = solve_acopf(case)
        np.testing.assert_allclose(found.x[lp.block("p")] * 100, expected.p_kw, atol=2e-2)
        assert found.multipliers.import_p[0] == pytest.approx(expected.price_p[0, 0], rel=1e-6)
        assert found.error_usd_per_mwh <= SETTINGS.tolerance_usd_per_mwh


def test_from_near_the_optimum_it_is_met_to_the_tolerances():
    case = CASES["interior_33"]()
    expected = solve_acopf(case)
    x = columns(case, expected.p_kw[0], expected.q_kvar[0] + 3.0, expected.award_kw[0])
    column = np.full(len(x), BASIC)
    lp = build_market_lp(case, SETTINGS.circle_sides)
    column[lp.block("award")[0]] = np.where(expected.award_kw[0] > case.bids.quantity_kw[0] - 1e-3, AT_UPPER, BASIC)
    found = finish(case, x, column, price=20.0)
    assert not found.is_open.any()
    np.testing.assert_allclose(found.x[lp.block("q")] * 100, expected.q_kvar, atol=1e-3)
    np.testing.assert_allclose(found.x[lp.block("p")] * 100, expected.p_kw, atol=1e-3)


def free_vars(price: float) -> MarketCase:
    """Two reactive resources that nothing but losses pays."""
    sources = [resource(f"var {bus}", bus, kind="other", supply=[(1, 900)], q_kvar=(-900.0, 900.0)) for bus in (13, 29)]
    return market(feeder33(v_min_pu=0.5, v_max_pu=1.5), price, *sources)


def test_least_losses_are_an_optimum_at_a_positive_price_and_none_at_a_negative_one():
    """The same point meets the first-order conditions at both; at a negative price it is the dearest, not the best."""
    case = free_vars(20.0)
    expected = solve_acopf(case)
    x = columns(case, expected.p_kw[0], expected.q_kvar[0], expected.award_kw[0])
    lp = build_market_lp(case, SETTINGS.circle_sides)
    column = np.full(len(x), BASIC)
    column[lp.block("award")[0]] = column[lp.block("p")[0]] = AT_LOWER
    assert not finish(case, x, column, price=20.0).is_open.any()
    negative = finish(free_vars(-20.0), x, column, price=-20.0)
    at_least = solve_acopf(case).q_kvar
    if not negative.is_open.any():
        assert np.abs(negative.x[lp.block("q")] * 100 - at_least).max() > 100


def test_a_negative_price_drives_free_reactive_power_to_its_limits():
    case = free_vars(-20.0)
    found = clear(case)
    least = clear(free_vars(20.0))
    assert found.status == "converged"
    assert found.import_kw[0] > least.import_kw[0] + 50.0
    np.testing.assert_allclose(np.abs(found.awards.q_kvar[0]), 900.0)


def test_intervals_that_are_solved_already_are_left_alone():
    """A known optimum of one of two intervals comes back unchanged, whatever the start of the other."""
    case = market(feeder33(), [20.0, 20.0], resource("g", 17, supply=[(300, 20.9)]))
    lp, formulation = build_market_lp(case, 8), AcTangent(case.network)
    rows, shape = len(lp.row_lower), (2, len(formulation.limits))
    x = lp.start.copy()
    x[lp.block("p")] = x[lp.block("award")] = 1.0
    active = ActiveSet(np.full(len(x), BASIC, np.int8), np.zeros(rows, np.int8), np.zeros(shape, np.int8))
    active.column[lp.block("q").ravel()] = AT_LOWER
    multipliers = Multipliers(np.zeros(rows), np.full(2, 20.0), np.zeros(2), np.zeros(shape))
    point = formulation.operate(lp.injection(x))
    arguments = (lp, formulation, x, point, active.copy(), multipliers.copy(), SETTINGS, PhaseClock())
    solved = newton_finish(*arguments)
    assert not solved.is_open.any()
    half = replace(solved, is_open=np.array([False, True]))
    again = newton_finish(lp, formulation, x, point, active, multipliers, SETTINGS, PhaseClock(), half)
    first = slice(0, lp.width)
    np.testing.assert_array_equal(again.x[first], solved.x[first])
    np.testing.assert_allclose(again.x, solved.x, atol=1e-8)
    assert sparse.issparse(again.multipliers.weights().limits)


def test_prices_of_sums_that_are_wrong_by_a_million_move_nothing():
    """At the optimum of a day with services and stores, but for the duals of what resources and calls add up to."""
    work = clear(SERVICE_CASES["day_33"]())._dispatch
    lp, known = work.market, work.learned.optimum
    wrong = known.multipliers.copy()
    for rule in (SUPPLY_LESS_DEMAND, CALLS_LAST):
        wrong.row[lp.rows_of(rule)] += 1e6
    search = _Search(lp, work.formulation, SETTINGS, PhaseClock(), known.x, known.point, known.active.copy(), wrong)
    system = search.system(search.is_open)
    system.estimate_multipliers()
    moved, search.multipliers = system.step()
    assert np.abs(moved - known.x).max() < 1e-9
    assert search.system(search.is_open).error < 1e-6
