"""Programmes with sums in place and rows as bounds: the optimum, states and duals are those of the whole programme."""

import numpy as np
import pytest
from scipy import sparse

from dlmp.condensing import Sums, solve_condensed
from dlmp.solve import AT_LOWER, AT_UPPER, BASIC, LinearProgram, QpMethod, QpSolution, solve_qp

SUM = 2


def sold_at_five(most: float, *, at_most: float = np.inf, first_at_most: float = np.inf) -> LinearProgram:
    """Offers at 3 and 10 of up to 2 and 1, whose sum of at most `most` is sold at 5; two more rows."""
    return LinearProgram(
        np.array([3.0, 10.0, -5.0]),
        np.zeros(3),
        np.array([2.0, 1.0, most]),
        sparse.csr_array([[-1.0, -1, 1], [0, 0, 2], [-1, 0, 0]]),
        np.array([0, -np.inf, -first_at_most]),
        np.array([0, 2 * at_most, np.inf]),
    )


def condensed(problem: LinearProgram, hessian: sparse.csc_array, method: QpMethod) -> QpSolution:
    is_sum = np.arange(len(problem.cost)) == SUM
    found = solve_condensed(problem, hessian, Sums.of(problem, is_sum, ~is_sum), method)
    assert found is not None
    return found


@pytest.mark.parametrize("in_stages", [False, True])
@pytest.mark.parametrize(
    ("problem", "x", "column", "row", "row_dual"),
    [
        (sold_at_five(9.0), [2, 0, 2], [AT_UPPER, AT_LOWER, BASIC], [0, 0, 0], [-5, 0, 0]),
        (sold_at_five(1.0), [1, 0, 1], [BASIC, AT_LOWER, AT_UPPER], [0, 0, 0], [-3, 0, 0]),
        (sold_at_five(9.0, at_most=1.5), [1.5, 0, 1.5], [BASIC, AT_LOWER, BASIC], [0, 1, 0], [-3, -1, 0]),
        (sold_at_five(9.0, first_at_most=0.5), [0.5, 0, 0.5], [BASIC, AT_LOWER, BASIC], [0, 0, -1], [-5, 0, 2]),
    ],
)
def test_whatever_holds_the_sum_has_the_price(problem, x, column, row, row_dual, in_stages: bool):
    hessian = sparse.csc_array((3, 3))
    for found in (condensed(problem, hessian, QpMethod(in_stages)), solve_qp(problem, hessian)):
        assert found.x == pytest.approx(x, abs=1e-6)
        assert found.column.tolist() == column
        assert found.row.tolist() == row
        assert found.row_dual == pytest.approx(row_dual, abs=1e-6)


def test_a_curved_sum_is_bought_until_it_costs_what_it_brings():
    problem, hessian = sold_at_five(9.0), sparse.csc_array(np.diag([0.0, 0, 4]))
    found = condensed(problem, hessian, QpMethod())
    assert found.x == pytest.approx([0.5, 0, 0.5], abs=1e-6)
    assert found.row_dual == pytest.approx([-3, 0, 0], abs=1e-6)


def test_a_sum_of_what_has_no_room_is_known():
    problem = sold_at_five(9.0)
    problem.lower[:2] = problem.upper[:2]
    found = condensed(problem, sparse.csc_array((3, 3)), QpMethod(in_stages=True))
    assert found.x == pytest.approx([2, 1, 3])
    assert found.row_dual == pytest.approx([-5, 0, 0])


@pytest.mark.parametrize(
    "problem",
    [
        sold_at_five(9.0, at_most=-0.5),
        LinearProgram(
            np.ones(2), np.zeros(2), np.ones(2), sparse.csr_array([[1.0, 0]]), np.array([2.0]), np.array([3.0])
        ),
        LinearProgram(
            np.ones(2), np.ones(2), np.ones(2), sparse.csr_array([[1.0, 1]]), np.array([3.0]), np.array([4.0])
        ),
    ],
    ids=["sum", "row of one column", "nothing left"],
)
def test_a_programme_without_a_feasible_point_has_no_optimum(problem: LinearProgram):
    is_sum, hessian = np.arange(len(problem.cost)) == SUM, sparse.csc_array((len(problem.cost),) * 2)
    assert solve_qp(problem, hessian) is None
    assert solve_condensed(problem, hessian, Sums.of(problem, is_sum, ~is_sum), QpMethod()) is None


def test_a_programme_in_which_nothing_is_left_to_decide_is_what_is_given():
    both = LinearProgram(
        np.ones(2), np.ones(2), np.ones(2), sparse.csr_array([[1.0, 1]]), np.array([1.0]), np.array([4.0])
    )
    no = np.zeros(2, bool)
    found = solve_condensed(both, sparse.csc_array((2, 2)), Sums.of(both, no, no), QpMethod())
    assert found is not None
    assert found.x.tolist() == [1, 1]
