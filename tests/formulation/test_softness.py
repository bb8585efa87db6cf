"""Levels of soft limits: where a quantity and its multiplier may be, and the way from one level to the next."""

from dataclasses import replace

import numpy as np
import pytest
from cases import feeder33, rated
from scipy import sparse

from dlmp import Penalties, Tier
from dlmp.formulation.ac_tangent import AcTangent
from dlmp.formulation.interface import Limits
from dlmp.formulation.softness import Softness, slack_columns
from dlmp.penalties import HARD

BAND = (0.95, 1.05)
PENALTIES = Penalties(voltage=(Tier(0.0, 100.0), Tier(0.02, 300.0)), thermal=(Tier(0.0, 7.0),), unbalance=())
FIRST, SECOND = 1000.0, 3000.0
"""Prices of voltage in the engine's unit: 1 currency/h is 10 currency/MWh x 100 kW."""


def limits() -> Limits:
    """Voltages of 33 buses but the source, and one current of at most 100 A."""
    network = rated(feeder33(v_min_pu=BAND[0], v_max_pu=BAND[1]), "line 2", ampere=100.0)
    return AcTangent(network).limits


@pytest.fixture
def soft() -> Softness:
    return Softness.of(limits(), PENALTIES)


def row(soft: Softness, value: float) -> np.ndarray:
    """(1, k) The same value for every limit."""
    return np.full((1, len(soft.limits)), value)


def test_prices_and_edges_are_those_of_the_penalties_in_the_engine_s_units(soft: Softness):
    np.testing.assert_allclose(soft.edge[0, :, 0], [0.95, 0.93, -np.inf])
    np.testing.assert_allclose(soft.edge[1, :, 0], [1.05, 1.07, np.inf])
    np.testing.assert_allclose(soft.price[:, :, 0], [[0, FIRST, SECOND]] * 2)
    np.testing.assert_allclose(soft.price[1, :, -1], [0, 7.0, np.inf])
    assert soft.edge[1, 0, -1] == soft.limits.upper[-1]


def test_squared_voltages_have_the_price_of_the_voltage_itself():
    """A step of the square is 2 v as wide."""
    flat = limits()
    squared = replace(
        flat,
        lower=flat.lower**2,
        upper=np.where(flat.cause == "voltage", flat.upper**2, flat.upper),
        power=flat.power * 2,
    )
    soft = Softness.of(squared, PENALTIES)
    np.testing.assert_allclose(soft.edge[0, :2, 0], [0.95**2, 0.93**2])
    np.testing.assert_allclose(soft.price[0, 1:, 0], [FIRST / (2 * 0.95), SECOND / (2 * 0.93)])


def test_hard_limits_have_no_price_and_stay_at_their_bound():
    hard = Softness.of(limits(), HARD)
    assert not hard.is_soft.any()
    (state,), every = hard.states_of(row(hard, -1e9)), np.arange(len(hard.limits))
    assert (state == 1).all()
    assert (hard.corrected(state, every, row(hard, -1e9)[0], row(hard, 1.05)[0], 1e-6, 1e-8) == 1).all()
    assert not hard.is_exceeded_by(sparse.csr_array(row(hard, -1e9)))


@pytest.mark.parametrize(
    ("multiplier", "state"),
    [(0.0, 0), (400.0, -1), (-400.0, 1), (FIRST, -2), (-FIRST, 2), (-2000.0, 3), (2000.0, -3), (-SECOND, 4)],
)
def test_a_multiplier_tells_the_level(soft: Softness, multiplier: float, state: int):
    assert soft.states_of(row(soft, multiplier))[0, 0] == state


@pytest.mark.parametrize(
    ("value", "state"),
    [(1.0, 0), (1.05, 1), (1.06, 2), (1.07, 3), (1.2, 4), (0.95, -1), (0.94, -2), (0.93, -3), (0.8, -4)],
)
def test_a_value_tells_the_level(soft: Softness, value: float, state: int):
    assert soft.states_at(row(soft, value), 1e-7)[0, 0] == state


@pytest.mark.parametrize(
    ("state", "values", "multipliers"),
    [
        (0, (0.95, 1.05), (0, 0)),
        (1, (1.05, 1.05), (-FIRST, 0)),
        (2, (1.05, 1.07), (-FIRST, -FIRST)),
        (3, (1.07, 1.07), (-SECOND, -FIRST)),
        (4, (1.07, np.inf), (-SECOND, -SECOND)),
        (-1, (0.95, 0.95), (0, FIRST)),
        (-2, (0.93, 0.95), (FIRST, FIRST)),
        (-3, (0.93, 0.93), (FIRST, SECOND)),
        (-4, (-np.inf, 0.93), (SECOND, SECOND)),
    ],
)
def test_values_and_multipliers_of_each_level(soft: Softness, state: int, values, multipliers):
    here = np.array([state], dtype=np.int8), np.array([0])
    assert tuple(end[0] for end in soft.range_at(*here)) == pytest.approx(values)
    assert tuple(end[0] for end in soft.multiplier_range_at(*here)) == pytest.approx(multipliers)


@pytest.mark.parametrize(
    ("state", "multiplier", "value", "after"),
    [
        (0, 0.0, 1.0, 0),
        (0, 0.0, 1.06, 1),
        (0, 0.0, 0.94, -1),
        (1, 5.0, 1.05, 0),
        (1, -400.0, 1.05, 1),
        (1, -1001.0, 1.05, 2),
        (2, -FIRST, 1.06, 2),
        (2, -FIRST, 1.04, 1),
        (2, -FIRST, 1.08, 3),
        (3, -900.0, 1.07, 2),
        (3, -3001.0, 1.07, 4),
        (4, -SECOND, 1.06, 3),
        (4, -SECOND, 1.3, 4),
        (-1, -5.0, 0.95, 0),
        (-1, 1001.0, 0.95, -2),
        (-2, FIRST, 0.96, -1),
        (-2, FIRST, 0.92, -3),
        (-3, 900.0, 0.93, -2),
        (-4, SECOND, 0.94, -3),
    ],
)
def test_a_limit_moves_one_level_where_its_multiplier_or_value_is_out_of_range(
    soft: Softness, state: int, multiplier: float, value: float, after: int
):
    here = np.array([state], dtype=np.int8), np.array([0])
    assert soft.corrected(*here, np.array([multiplier]), np.array([value]), 1e-6, 1e-8) == [after]


def test_the_cost_of_an_excess_is_each_tier_s_part_at_its_price(soft: Softness):
    excess = np.zeros((1, len(soft.limits)))
    excess[0, :3] = 0.01, -0.05, 0.02
    expected = [0.01 * FIRST, 0.02 * FIRST + 0.03 * SECOND, 0.02 * FIRST]
    np.testing.assert_allclose(soft.cost_of(excess)[0, :3], expected)
    assert soft.cost_of(excess)[0, 3:].max() == 0


def test_rows_of_one_limit_share_their_slack_and_hard_rows_have_none(soft: Softness):
    flow = len(soft.limits) - 1
    state, limit = np.array([0, 1, 1, 1, 2]), np.array([flow, flow, flow, -1, 4])
    slack = slack_columns(soft, state, limit, np.array([0.0, 0.5, 0.25, 7.0, 0.02]))
    above = slack.sign > 0
    assert list(zip(slack.state[above], slack.quantity[above], strict=True)) == [
        (0, flow),
        (1, flow),
        (2, 4),
        (2, 4),
    ]
    assert (slack.state[~above] == 2).all(), "a current has no lower bound"
    dense = slack.matrix.toarray()
    np.testing.assert_array_equal(dense[1], dense[2])
    assert not dense[3].any()
    of_voltage = slack.quantity == 4
    assert sorted(slack.upper[of_voltage]) == pytest.approx([1.0, 1.0, np.inf, np.inf]), "0.02 pu, at 0.02 pu a unit"
    assert sorted(slack.cost[of_voltage]) == pytest.approx([0.02 * FIRST] * 2 + [0.02 * SECOND] * 2)
    assert sorted(set(slack.size.tolist())) == [0.02, 0.5, 1.0], "1 where nothing moves the limit"
    assert len(set(slack.key.tolist())) == len(slack.key)
    excess = slack.excess(np.where(above, 0.5, 0.0), soft, 3)
    assert (excess[0, flow], excess[1, flow], excess[2, 4]) == pytest.approx((0.5, 0.25, 0.02))
