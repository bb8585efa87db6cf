"""The quadratic model of an interval: exact where it stands, convex, and blind to nothing that it is told."""

from dataclasses import replace

import numpy as np
import pytest
from cases import CASES, banded
from servicecases import SERVICE_CASES
from test_reactive import REACTIVE_CASES
from test_sloped_bids import SLOPED_CASES

from dlmp import clear
from dlmp.curvature import Curvature
from dlmp.formulation.ac_tangent import AcTangent
from dlmp.formulation.interface import Weights
from dlmp.formulation.market_lp import build_market_lp
from dlmp.holding import Held
from dlmp.networkmodel import ReducedNetwork
from dlmp.quadratic import Effort, QuadraticModel
from dlmp.solve import AT_LOWER, BASIC
from dlmp.timing import PhaseClock


def dispatched(name: str):
    """Programme, dispatch [pu], state and multipliers of a cleared case."""
    found = clear(CASES[name]())
    work = found._dispatch
    return work.market, work.formulation, work.x, work.point, work.weights


def whole_model(market, formulation, x, point, weights) -> QuadraticModel:
    """The model with the curvature of all injections that can move."""
    curvature = Curvature(market)
    curvature.likely = curvature.movable
    nothing, row = np.zeros(len(x), bool), np.zeros(len(market.row_lower))
    held = Held(nothing, nothing, nothing, np.full(len(x), BASIC, dtype=np.int8), row.astype(np.int8), row)
    network = ReducedNetwork(market, x, point, weights, curvature)
    return QuadraticModel(market, formulation, x, point, weights, held, network, Effort(), PhaseClock())


@pytest.mark.parametrize("name", ["undervoltage_reactive_33", "interior_33", "congestion_power_33", "import_cap_33"])
def test_the_model_around_an_optimum_has_its_optimum_there_with_the_same_multipliers(name: str):
    market, formulation, x, point, weights = dispatched(name)
    model = whole_model(market, formulation, x, point, weights)
    solutions = model.solve_all(np.array([0]), weights.limits.toarray() != 0)
    found = solutions[0]
    np.testing.assert_allclose(found.x[0, market.block("p")[0]], x[market.block("p")[0]], atol=1e-3)
    np.testing.assert_allclose(found.x[0, market.block("q")[0]], x[market.block("q")[0]], atol=2e-2)
    assert found.import_dual[0] == pytest.approx([weights.import_p[0], weights.import_q[0]], abs=1e-3)
    np.testing.assert_allclose(found.limit_dual, weights.limits.toarray(), rtol=1e-3, atol=0.1)


def test_limits_of_called_states_curve():
    """As scheduled nothing binds, and the calls' limits leave awards free that only their curvature holds."""
    work = clear(SERVICE_CASES["ieee34"]())._dispatch
    market, weights = work.market, work.weights
    model = whole_model(market, work.formulation, work.x, work.point, weights)
    found = model.solve_all(np.array([0]), weights.limits.toarray() != 0)[0]
    for name in ("p", "q", "reserve"):
        np.testing.assert_allclose(found.x[0, market.block(name)[0]], work.x[market.block(name)[0]], atol=1e-3)
    np.testing.assert_allclose(found.limit_dual, weights.limits.toarray(), rtol=1e-3, atol=0.1)


@pytest.mark.parametrize("name", ["plain_33", "undervoltage_33"])
def test_the_model_has_the_slopes_of_bids(name: str):
    work = clear(SLOPED_CASES[name]())._dispatch
    market, award = work.market, work.market.block("award")[0]
    model = whole_model(market, work.formulation, work.x, work.point, work.weights)
    found = model.solve_all(np.arange(market.intervals), work.weights.limits.toarray() != 0)[0]
    np.testing.assert_allclose(found.x[0, award], work.x[award], atol=1e-3)
    assert found.import_dual[0, 0] == pytest.approx(work.weights.import_p[0], abs=1e-3)


def test_reactive_power_that_is_bid_moves_only_with_a_segment_that_does():
    case = REACTIVE_CASES["losses_33"]()
    market = build_market_lp(case, 32)
    column = np.full(market.intervals * market.width, BASIC, dtype=np.int8)
    segments = market.block("q_award")[0]
    far = segments[case.reactive_bids.resource == case.resources.name.tolist().index("far")]
    column[far] = AT_LOWER
    reactive = Curvature(market).wanted(column)[0, 1]
    assert dict(zip(case.resources.name.tolist(), reactive.tolist(), strict=True)) == {
        "far": False,
        "south": True,
        "north": True,
        "middle": True,
    }


@pytest.mark.parametrize(("v_max_pu", "reached"), [(1.04, (1.035, 1.045)), (1.5, (1.055, 1.2))])
def test_limits_that_the_solution_is_predicted_to_break_are_added(v_max_pu: float, reached: tuple[float, float]):
    """Nothing is near a limit without solar; the optimum of the model yet keeps the band, to its first order."""
    case = CASES["overvoltage_33"]()
    case = replace(case, network=banded(case.network, 0.9, v_max_pu))
    market, formulation = build_market_lp(case, 32), AcTangent(case.network)
    point = formulation.operate(market.injection(market.start))
    weights = Weights(np.array([20.0]), np.array([0.0]), Weights.zero(1, len(formulation.limits)).limits)
    model = whole_model(market, formulation, market.start, point, weights)
    found = model.solve_all(np.array([0]), np.zeros(point.limit_value.shape, bool))[0]
    highest = point.predicted_limits(market.injection(found.x.ravel())).max()
    assert reached[0] < highest < reached[1]
    assert found.limit_dual.any() == (v_max_pu == 1.04)
