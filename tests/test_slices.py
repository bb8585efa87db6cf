"""A column whose cost is a parabola, cut into slices of a linear programme."""

import numpy as np
import pytest
from scipy import sparse

from dlmp.slices import SLICES, Slices
from dlmp.solve import AT_LOWER, AT_UPPER, BASIC, LinearProgram, solve_lp

SLOPE = np.array([0.0, 6.0, 0.0])


def programme(total: float) -> LinearProgram:
    """x0 at 5 and x1 at 1 + 6 x1 share a `total`; x2 costs 1 and is not needed.  x1 is between 0.25 and 2.25."""
    return LinearProgram(
        cost=np.array([5.0, 1.0, 1.0]),
        lower=np.array([0.0, 0.25, 0.0]),
        upper=np.array([9.0, 2.25, 9.0]),
        matrix=sparse.csr_array([[1.0, 1.0, 0.0]]),
        row_lower=np.array([total]),
        row_upper=np.array([total]),
    )


def solved(total: float):
    problem = programme(total)
    slices = Slices.of(problem, SLOPE)
    return slices.joined(solve_lp(slices.cut(problem)))


def test_slices_fill_up_to_where_their_price_is_that_of_the_other_source():
    """1 + 6 x = 5 at x = 2/3, which is right within half a slice of 2 / 16."""
    solution = solved(3.0)
    assert solution.x.shape == (3,)
    assert solution.x[1] == pytest.approx(2 / 3, abs=1 / SLICES)
    assert solution.x.sum() == pytest.approx(3.0)
    assert solution.basis.column.tolist() == [BASIC, BASIC, AT_LOWER]


def test_a_column_is_at_a_bound_when_all_its_slices_are():
    low, high = solved(0.25), solved(11.25)
    assert (low.x[1], low.basis.column[0]) == (pytest.approx(0.25), AT_LOWER)
    assert high.x[1] == pytest.approx(2.25)
    assert AT_UPPER in high.basis.column[:2]


def test_the_slices_cost_what_the_parabola_costs_at_their_ends():
    slices = Slices.of(programme(3.0), SLOPE)
    cut = slices.cut(programme(3.0))
    own = np.r_[1, np.arange(3, len(cut.cost))]
    width = np.r_[cut.upper[1] - cut.lower[1], cut.upper[3:]]
    end = 0.25 + np.cumsum(width)
    parabola = end + 3 * end**2 - (0.25 + 3 * 0.25**2)
    np.testing.assert_allclose(np.cumsum(cut.cost[own] * width), parabola, rtol=1e-12)
    assert end[-1] == pytest.approx(2.25)


def test_a_programme_without_slopes_is_left_alone():
    problem = programme(3.0)
    slices = Slices.of(problem, np.zeros(3))
    assert slices.cut(problem) is problem
    solution = solve_lp(problem)
    assert slices.joined(solution) is solution


def test_a_column_without_room_is_not_cut():
    problem = programme(3.0)
    problem.upper[1] = problem.lower[1]
    assert len(Slices.of(problem, SLOPE).column) == 0
