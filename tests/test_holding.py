"""Quadratic programmes with decisions held, against the same programmes solved whole and cases by hand."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from dlmp.holding import Held, solve_held
from dlmp.solve import AT_LOWER, AT_UPPER, BASIC, LinearProgram, QpMethod, solve_qp


def programme(cost, lower, upper, rows, row_lower, row_upper) -> LinearProgram:
    matrix = sparse.csr_array(np.array(rows, dtype=float))
    return LinearProgram(*(np.array(part, dtype=float) for part in (cost, lower, upper)), matrix,
                         np.array(row_lower, dtype=float), np.array(row_upper, dtype=float))  # fmt: skip


def held_at(problem: LinearProgram, column, is_held, may_follow=None) -> Held:
    count = len(problem.row_lower)
    follow = np.ones(len(column), bool) if may_follow is None else np.array(may_follow)
    is_sum = np.arange(len(column)) == 2
    at = np.array(column, dtype=np.int8)
    return Held(np.array(is_held), follow, is_sum, at, np.zeros(count, dtype=np.int8), np.zeros(count))


def reduced_cost(problem: LinearProgram, hessian, found):
    return problem.cost + hessian @ found.x - problem.matrix.T @ found.row_dual


def sold_at_five(reserve_cost: float, room: float) -> tuple[LinearProgram, sparse.csc_array]:
    """Two offers at 3 and 10 make a sum that is sold at 5; a reserve shares the room of the sum; a free column."""
    problem = programme(
        cost=[3.0, 10.0, -5.0, reserve_cost, -2.0],
        lower=[0, 0, 0, 0, 0],
        upper=[2, 1, 4, 3, 9],
        rows=[[-1, -1, 1, 0, 0], [0, 0, 1, 1, 0]],
        row_lower=[0, -np.inf],
        row_upper=[0, room],
    )
    return problem, sparse.csc_array(np.diag([0.0, 0, 0, 0, 1]))


HELD = [True, True, False, False, False]
CHOSEN = [AT_UPPER, AT_LOWER, BASIC, BASIC, BASIC]


def test_a_sum_of_held_offers_is_held_with_them_and_has_their_price():
    problem, hessian = sold_at_five(reserve_cost=1.0, room=10.0)
    found = solve_held(problem, hessian, held_at(problem, CHOSEN, HELD), QpMethod())
    assert found.x == pytest.approx([2, 0, 2, 0, 2], abs=1e-6)
    assert found.column.tolist() == [AT_UPPER, AT_LOWER, BASIC, AT_LOWER, BASIC]
    assert found.row_dual == pytest.approx([-5, 0], abs=1e-6)
    assert reduced_cost(problem, hessian, found)[:3] == pytest.approx([-2, 5, 0], abs=1e-6)


@pytest.mark.parametrize(("reserve_cost", "dual", "status", "row"), [(-1.0, -1.0, BASIC, 1), (1.0, 0.0, AT_LOWER, 0)])
def test_a_row_without_room_binds_only_where_somebody_wants_it(reserve_cost, dual, status, row):
    problem, hessian = sold_at_five(reserve_cost, room=2.0)
    found = solve_held(problem, hessian, held_at(problem, CHOSEN, HELD), QpMethod())
    assert found.x == pytest.approx([2, 0, 2, 0, 2], abs=1e-6)
    assert found.row_dual == pytest.approx([-5 - dual, dual], abs=1e-6)
    assert (found.column[3], found.row[1]) == (status, row)


def test_nothing_is_made_of_offers_whose_sum_is_out_of_range():
    problem, hessian = sold_at_five(reserve_cost=1.0, room=10.0)
    small = replace(problem, upper=np.array([2.0, 1, 1.5, 3, 9]))
    held = held_at(small, CHOSEN, HELD)
    assert solve_held(small, hessian, held, QpMethod()) is None
    assert solve_held(small, hessian, held.released(), QpMethod()).x[2] == pytest.approx(1.5, abs=1e-6)


def test_what_is_held_wrongly_is_told():
    problem, hessian = sold_at_five(reserve_cost=1.0, room=10.0)
    held = held_at(problem, [AT_LOWER, AT_LOWER, BASIC, BASIC, BASIC], HELD)
    found = solve_held(problem, hessian, held, QpMethod())
    assert held.is_held_wrongly(problem, hessian, found).tolist() == [True, False, False, False, False]


@pytest.mark.parametrize("seed", range(30))
def test_the_optimum_is_that_of_the_whole_programme(seed):
    """Held are columns that the whole programme leaves at their bounds; sums, shared room and a coupling row beside."""
    random = np.random.default_rng(seed)
    offers, count = 3, 12
    width = offers + 2  # offers, their sum and a reserve
    rows, low, high = [], [], []
    for part in range(count):
        balance, room = np.zeros((2, width * count))
        balance[part * width : part * width + offers] = -1.0
        balance[part * width + offers] = 1.0
        room[part * width + offers : part * width + offers + 2] = 1.0
        rows += [balance, room]
        low += [0.0, -np.inf]
        high += [0.0, random.choice([1.0, 2.0, 3.0])]
    total = np.zeros((2, width * count))
    total[0, offers::width], total[1, offers + 1 :: width] = 1.0, 1.0
    rows, low, high = np.vstack([rows, total]), [*low, -np.inf, 1.0], [*high, 0.6 * count, np.inf]
    cost = random.uniform(0, 10, width * count)
    cost[offers::width] = -6.0
    problem = programme(cost, np.zeros(width * count), np.ones(width * count), rows, low, high)
    problem.upper[offers::width] = 3.0
    sums = np.arange(offers, width * count, width)
    curved = np.zeros((width * count, width * count))
    root = random.normal(size=(count, count)) / 3
    curved[np.ix_(sums, sums)] = root @ root.T
    hessian = sparse.csc_array(curved)
    whole = solve_qp(problem, hessian)
    far = (whole.column != BASIC) & (np.abs(reduced_cost(problem, hessian, whole)) > 0.5)
    far[sums] = False
    assert far.any()
    is_sum = np.isin(np.arange(len(cost)), sums)
    held = Held(far, np.ones(len(cost), bool), is_sum, whole.column, whole.row, whole.row_dual)
    found = solve_held(problem, hessian, held, QpMethod())
    assert found.x == pytest.approx(whole.x, abs=1e-6)
    reduced = reduced_cost(problem, hessian, found)
    assert np.abs(reduced[found.column == BASIC]).max() < 1e-5
    wrong = held.is_held_wrongly(problem, hessian, found)  # where duals are not unique, some of those held may be
    assert (reduced[(found.column == AT_LOWER) & ~wrong] > -1e-5).all()
    assert (reduced[(found.column == AT_UPPER) & ~wrong] < 1e-5).all()
    assert wrong.sum() <= 1
    assert (found.row_dual[found.row > 0] < 1e-7).all()
