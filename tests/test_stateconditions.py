"""A finish with the states' unknowns as columns comes to where one by gradients and Hessians does.

The latter is held against IPOPT in `test_clearing` and others.
"""

from dataclasses import replace

import numpy as np
import pytest
from cases import CASES
from servicecases import SERVICE_CASES
from test_reactive import REACTIVE_CASES
from test_sloped_bids import SLOPED_CASES

from benchmarks.cases import build, grown_spec
from dlmp import Settings, clear, newton
from dlmp.curvature import Curvature
from dlmp.errors import InfeasibleError
from dlmp.formulation.softness import Softness
from dlmp.network.model import FloatArray
from dlmp.networkmodel import ReducedNetwork, StatesNetwork
from dlmp.optimality import Conditions, Multipliers
from dlmp.quadratic import QuadraticModel
from dlmp.reducedconditions import ReducedConditions
from dlmp.stateconditions import StateConditions
from dlmp.timing import PhaseClock

COUPLED = {"lasting_33", "lasting_rated_33", "with_a_battery_33", "day_with_ramps_and_a_battery_33"}
SETS = {"plain": CASES, "services": SERVICE_CASES, "reactive": REACTIVE_CASES, "sloped": SLOPED_CASES}
UNCOUPLED = {
    f"{kind} {name}": make
    for kind, cases in SETS.items()
    for name, make in cases.items()
    if name not in COUPLED and (kind, name) != ("services", "day_33")
}


@pytest.fixture
def with_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few injections there are, and however few of them are free."""
    for threshold in ("FEW_INJECTIONS", "FEW_BY_NODE", "FEW_FREE"):
        monkeypatch.setattr(newton, threshold, -1)


@pytest.mark.parametrize("name", UNCOUPLED)
def test_all_ways_end_at_the_same_optimum(name: str, monkeypatch: pytest.MonkeyPatch):
    case, own = UNCOUPLED[name](), UNCOUPLED[name]().network.is_priced
    expected = clear(case)
    assert expected.status == "converged"
    steps, step = [], Conditions.step
    monkeypatch.setattr(Conditions, "step", lambda self: steps.append(type(self)) or step(self))
    monkeypatch.setattr(newton, "FEW_INJECTIONS", -1)
    monkeypatch.setattr(newton, "FEW_BY_NODE", -1)
    for few_free, kind in ((-1, StateConditions), (newton.FEW_FREE, ReducedConditions)):
        monkeypatch.setattr(newton, "FEW_FREE", few_free)
        steps.clear()
        found = clear(case)
        assert kind in steps or not len(case.resources)
        assert found.status == "converged"
        assert found.objective == pytest.approx(expected.objective, rel=1e-9, abs=1e-7)
        for price in ("lmp_usd_per_mwh", "lmp_q_usd_per_mvarh"):
            ours, theirs = getattr(found.prices, price)[:, own], getattr(expected.prices, price)[:, own]
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6)


def test_programmes_with_states_end_where_they_do_not_tell_reactive_powers_apart(monkeypatch: pytest.MonkeyPatch):
    """Whose sets would be those of one programme and of another in turns."""
    spec = replace(grown_spec(1500, 8, reactive=3.0, bidders=160), seed=5)
    case, networks, solve_all = build(spec, spec.network()), [], QuadraticModel.solve_all
    monkeypatch.setattr(
        QuadraticModel, "solve_all", lambda self, *rest: networks.append(type(self.network)) or solve_all(self, *rest)
    )
    found = clear(case)
    assert networks[:2] == [StatesNetwork, StatesNetwork]
    assert set(networks[2:]) == {ReducedNetwork}
    monkeypatch.setattr(newton, "FEW_INJECTIONS", newton.MANY_INJECTIONS)
    expected = clear(case)
    assert (found.status, expected.status) == ("converged", "converged")
    assert found.objective == pytest.approx(expected.objective, rel=1e-9)
    ours, theirs = found.prices.lmp_usd_per_mwh, expected.prices.lmp_usd_per_mwh
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("with_states")
@pytest.mark.parametrize("name", ["undervoltage_33", "congestion_current_33", "reactive_price_33", "elastic_33"])
def test_no_lp_is_solved_where_the_states_are_columns(name: str):
    assert clear(CASES[name]()).summary()["lp_solves"] == 0


@pytest.mark.usefixtures("with_states")
def test_limits_that_must_be_broken_are_and_hard_ones_are_refused():
    case = CASES["undervoltage_33"]()
    beyond = replace(case, load_p_kw=2.0 * case.load_p_kw, load_q_kvar=2.0 * case.load_q_kvar)
    found = clear(beyond)
    assert found.status == "converged"
    assert set(found.broken_limits().cause) == {"voltage"}
    with pytest.raises(InfeasibleError, match="bus 30"):
        clear(beyond, Settings(limits="hard"))


@pytest.mark.parametrize(
    "name",
    [
        *("plain undervoltage_reactive_33", "plain congestion_power_33", "plain import_cap_33", "plain day_33"),
        *("services ieee13", "services ieee34", "services reactive_33"),
    ],
)
def test_their_newton_steps_are_the_same(name: str):
    """Whatever is asked of them but to move the market's own rows, which both take for granted."""
    work = clear(UNCOUPLED[name]())._dispatch
    market, known = work.market, work.learned.optimum
    softness, every = Softness.of(work.formulation.limits, market.penalties), np.ones(market.intervals, bool)
    at = market, work.formulation, softness, PhaseClock(), known.x, known.point, known.active, known.multipliers, every
    ours, theirs = (kind(*at, Curvature(market)) for kind in (StateConditions, ReducedConditions))
    np.testing.assert_allclose(ours.reduced, theirs.reduced, atol=1e-7)
    for conditions in (ours, theirs):
        conditions.reduced = np.random.default_rng(1).uniform(-1, 1, len(ours.reduced))
        conditions.residual = 0.01 * np.random.default_rng(2).uniform(-1, 1, len(ours.residual))
        conditions.residual[: len(ours.rows)] = 0.0
        if not market.case.substation.counts_reactive:  # gradients of what nobody counts are not made
            conditions.reduced[market.block("import_q")] = 0.0
    (x_ours, of_ours), (x_theirs, of_theirs) = ours.step(), theirs.step()
    size = np.abs(x_theirs - known.x).max()
    assert size > 1e-4
    counted = np.ones(len(x_ours), bool)
    counted[market.block("import_q")] = market.case.substation.counts_reactive
    np.testing.assert_allclose(x_ours[counted], x_theirs[counted], atol=1e-5 * size)
    for multiplier in ("import_p", "import_q", "limit"):
        one, other = getattr(of_ours, multiplier), getattr(of_theirs, multiplier)
        np.testing.assert_allclose(one, other, atol=1e-5 * max(1.0, float(np.abs(other).max())))
    assert ours.is_minimum().tolist() == theirs.is_minimum().tolist()


@pytest.mark.parametrize(
    "name", ["plain day_33", "plain undervoltage_reactive_33", "services ieee34", "reactive losses_33"]
)
def test_a_thousandth_of_a_step_takes_a_thousandth_of_all_errors(name: str):
    """Of reduced costs and of what binds, at the true conditions there: of the market's own rows, too."""
    work = clear(UNCOUPLED[name]())._dispatch
    market, known, part = work.market, work.learned.optimum, 1e-3
    softness, every = Softness.of(work.formulation.limits, market.penalties), np.ones(market.intervals, bool)
    random, dual = np.random.default_rng(4), known.multipliers.copy()
    for name_of in ("row", "import_p", "limit"):
        value = getattr(dual, name_of)
        value *= random.uniform(0.95, 1.05, value.shape)

    def at(x: FloatArray, multipliers: Multipliers) -> StateConditions:
        point = work.formulation.operate(market.injection(x), known.point)
        x = market.with_import(x, point.import_pu)
        here = market, work.formulation, softness, PhaseClock(), x, point, known.active, multipliers, every
        return StateConditions(*here, Curvature(market))

    x = known.x.copy()
    x[market.block("q")] += np.where((known.active.column == 1)[market.block("q")], 1e-3, 0.0)
    before = at(x, dual)
    x_full, full = before.step()
    moved = dual.copy()
    for name_of in ("row", "import_p", "import_q", "limit"):
        value = getattr(dual, name_of)
        getattr(moved, name_of)[:] = value + part * (getattr(full, name_of) - value)
    after = at(x + part * (x_full - x), moved)
    free, size = before.free, np.abs(before.reduced[before.free]).max()
    assert size > 1e-3
    np.testing.assert_allclose(after.reduced[free], (1 - part) * before.reduced[free], atol=0.02 * part * size)
    size = np.abs(before.residual).max()
    np.testing.assert_allclose(after.residual, (1 - part) * before.residual, atol=0.02 * part * size + 1e-10)


def test_a_saddle_is_told_from_a_minimum():
    """Losses at a negative price curve downwards along every injection that is left free."""
    work = clear(CASES["interior_33"]())._dispatch
    market, known = work.market, work.learned.optimum
    softness, every = Softness.of(work.formulation.limits, market.penalties), np.ones(market.intervals, bool)
    at = market, work.formulation, softness, PhaseClock(), known.x, known.point, known.active
    turned = Multipliers(*(-getattr(known.multipliers, name) for name in ("row", "import_p", "import_q", "limit")))
    for dual, is_minimum in ((known.multipliers, True), (turned, False)):
        assert StateConditions(*at, dual, every, Curvature(market)).is_minimum().tolist() == [is_minimum]


def test_closed_intervals_have_no_reduced_costs():
    work = clear(CASES["day_33"]())._dispatch
    market, known = work.market, work.learned.optimum
    is_open = np.arange(market.intervals) == 1
    softness = Softness.of(work.formulation.limits, market.penalties)
    at = market, work.formulation, softness, PhaseClock(), known.x, known.point, known.active, known.multipliers
    conditions = StateConditions(*at, is_open, Curvature(market))
    reduced = conditions.reduced.reshape(market.intervals, -1)
    assert not reduced[~is_open].any()
    assert reduced[is_open].any()
