"""Which limits are watched, which cuts are kept, and what their duals add up to."""

import numpy as np
import pytest
from cases import feeder33, market, rated, resource
from feeders import Branch, feeder

from dlmp.formulation.ac_tangent import AcTangent
from dlmp.formulation.market_lp import build_market_lp
from dlmp.formulation.network_rows import (
    IMPORT_P,
    LIMIT,
    MOST_PER_INTERVAL,
    NEAR,
    NetworkRows,
    violation,
    worth_watching,
)


@pytest.fixture
def rows() -> NetworkRows:
    """Two intervals, the second at a negative price, of a feeder with one rated line and a wide generator."""
    case = market(
        rated(feeder33(v_min_pu=0.92), "line 2", ampere=100.0), [20.0, -20.0], resource("g", 17, supply=[(2000, 30)])
    )
    return NetworkRows(build_market_lp(case, 8), AcTangent(case.network))


def at(rows: NetworkRows, power_pu: float) -> np.ndarray:
    """The dispatch with the generator at `power_pu`."""
    x = np.zeros(2 * rows.market.width)
    x[rows.market.block("p")] = x[rows.market.block("award")] = power_pu
    return x


def add(rows: NetworkRows, power_pu: float) -> None:
    x = at(rows, power_pu)
    rows.add_point(rows.formulation.operate(rows.market.injection(x)), x)


def values(limits, lower: float, upper: float) -> np.ndarray:
    """(1, k) Values that put voltages at `lower` and flows at a share `upper` of their rating."""
    return np.where(np.isfinite(limits.lower), lower, upper * limits.upper)[None]


def test_violation_is_the_distance_to_the_nearer_bound():
    network = feeder([Branch("a", "b", 0.02, 0.04, rating=2.0, is_current=True)], band=(0.9, 1.1))
    limits = AcTangent(network).limits
    np.testing.assert_allclose(
        violation(limits, np.array([[0.85, 1.5], [1.0, 2.0], [1.12, 2.3]])), [[0.05, 0], [0, 0], [0.02, 0.3]]
    )


def test_a_limit_is_watched_from_within_its_margin(rows: NetworkRows):
    limits = rows.formulation.limits
    band = 0.92 + NEAR * limits.upper[0]
    assert not worth_watching(limits, values(limits, band + 1e-6, 0.99)).any()
    assert worth_watching(limits, values(limits, 1.0, 1 - NEAR / 2)).sum() == 1
    assert worth_watching(limits, values(limits, band - 1e-6, 0.9)).any()


def test_of_many_broken_limits_the_worst_are_watched(rows: NetworkRows):
    limits = rows.formulation.limits
    value = np.full((1, len(limits)), 0.5)
    value[0, : 2 * MOST_PER_INTERVAL] = 0.9 - 0.001 * np.arange(2 * MOST_PER_INTERVAL)
    value[0, 2 * MOST_PER_INTERVAL : -1] = 1.0
    watched = np.flatnonzero(worth_watching(limits, value)[0])
    assert watched.tolist() == list(range(MOST_PER_INTERVAL, 2 * MOST_PER_INTERVAL))


def test_import_at_a_positive_price_keeps_its_cuts_and_at_a_negative_one_its_newest_tangent(rows: NetworkRows):
    assert rows.is_equality.tolist() == [False, True]
    add(rows, 0.0)
    add(rows, 5.0)
    cuts = [block for block in rows.all_rows() if block.kind == IMPORT_P]
    assert np.concatenate([block.state for block in cuts]).tolist() == [0, 0, 1]
    newest = cuts[-1]
    assert np.isinf(newest.upper[0])
    assert newest.upper[1] == newest.lower[1]


def test_import_cuts_touch_the_import_and_lie_below_it(rows: NetworkRows):
    touched = (0.0, 5.0, 12.0)
    for power in touched:
        add(rows, power)
    cuts = [block for block in rows.all_rows() if block.kind == IMPORT_P and 0 in block.state]
    assert len(cuts) == len(touched)
    for power in (0.0, 2.5, 5.0, 9.0, 12.0):
        imported = rows.formulation.operate(rows.market.injection(at(rows, power))).import_pu.real[0]
        gap = np.array([imported + block.gradient[0, 0, 0] * power - block.lower[0] for block in cuts])
        assert (gap > -1e-9).all()
        assert (gap.min() < 1e-9) == (power in touched)


def test_a_cut_that_a_later_state_disproves_is_dropped(rows: NetworkRows):
    """The tangent is raised by hand above the import of the next point."""
    add(rows, 0.0)
    assert sum(len(block.state) for block in rows.kept if block.kind == IMPORT_P) == 2
    wrong = rows.kept[0]
    object.__setattr__(wrong, "lower", wrong.lower + 0.5)
    add(rows, 5.0)
    serials = [block.serial for block in rows.kept if block.kind == IMPORT_P and 0 in block.state]
    assert serials == [2]


def test_keys_of_rows_are_unique_and_those_of_cuts_last_from_pass_to_pass(rows: NetworkRows):
    add(rows, 0.0)
    first = rows.matrix()[3]
    add(rows, 1.0)
    second = rows.matrix()[3]
    assert len(np.unique(second)) == len(second)
    assert np.isin(first[first % 2**34 < 2**31], second).any()


def test_duals_add_up_by_import_and_by_limit(rows: NetworkRows):
    add(rows, 0.0)
    add(rows, 5.0)
    blocks = rows.all_rows()
    dual = np.arange(1.0, 1.0 + sum(len(block.state) for block in blocks))
    weights = rows.weights(dual)
    real, limits = np.zeros(2), np.zeros((2, len(rows.formulation.limits)))
    start = 0
    for block in blocks:
        for row, interval in enumerate(block.state):
            if block.kind == IMPORT_P:
                real[interval] += dual[start + row]
            elif block.kind == LIMIT:
                limits[interval, block.limit[row]] += dual[start + row]
        start += len(block.state)
    assert limits.any()
    np.testing.assert_allclose(weights.import_p, real)
    np.testing.assert_allclose(weights.limits.toarray(), limits)


def test_limits_that_a_step_is_predicted_to_break_are_added_once():
    """Six MW at the end of a lateral would raise its voltage far over the band; nothing is near it yet."""
    case = market(feeder33(), 20.0, resource("g", 17, supply=[(7000, 30)]))
    rows = NetworkRows(build_market_lp(case, 8), AcTangent(case.network))
    x = np.zeros(rows.market.width)
    point = rows.formulation.operate(rows.market.injection(x))
    rows.add_point(point, x)
    assert not rows.watched.any()
    assert not rows.add_predicted(point, x)
    x[rows.market.block("p")] = 60.0
    assert rows.add_predicted(point, x)
    limit = np.flatnonzero(rows.watched[0])
    assert 0 < len(limit) <= MOST_PER_INTERVAL
    assert "bus 17" in set(rows.formulation.limits.element[limit])
    (added,) = (block for block in rows.all_rows() if block.kind == LIMIT and len(block.state))
    broken = (added.gradient[:, 0, 0] * 60.0 > added.upper) | (added.gradient[:, 0, 0] * 60.0 < added.lower)
    assert broken.all()
