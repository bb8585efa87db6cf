"""Linear and quadratic programmes whose optimum and duals are worked out by hand."""

import numpy as np
import pytest
from scipy import sparse

from dlmp import solve
from dlmp.errors import SolverError
from dlmp.solve import AT_LOWER, AT_UPPER, BASIC, Basis, LinearProgram, QpMethod, solve_lp, solve_mip, solve_qp

INF = np.inf
REGULARISED = 1e-6
"""HiGHS adds 1e-7 to the diagonal of a quadratic programme, and is this exact."""


def programme(cost, lower, upper, rows, row_lower, row_upper) -> LinearProgram:
    arrays = [np.array(values, dtype=float) for values in (cost, lower, upper)]
    matrix = sparse.csr_array(np.array(rows, dtype=float).reshape(len(row_lower), len(cost)))
    return LinearProgram(*arrays, matrix, np.array(row_lower, dtype=float), np.array(row_upper, dtype=float))


def dispatch(demand: float = 5.0, scale: float = 1.0) -> LinearProgram:
    """Meet a demand from 2 at 10, 2 at 20 and as much as it takes at 50; the first two share a line of 3."""
    rows = [[scale, scale, scale], [1, 1, 0]]
    return programme([10, 20, 50], [0, 0, 0], [2, 2, INF], rows, [scale * demand, -INF], [scale * demand, 3])


def test_awards_and_duals_of_a_dispatch_worked_by_hand():
    """2 at 10, 1 at 20 through the full line, 2 at 50: cost 140; one more costs 50, one more of line saves 30."""
    solution = solve_lp(dispatch())
    assert solution is not None
    np.testing.assert_allclose(solution.x, [2, 1, 2], atol=1e-12)
    assert [10, 20, 50] @ solution.x == pytest.approx(140.0, rel=1e-12)
    np.testing.assert_allclose(solution.row_dual, [50, -30], atol=1e-9)


def test_dual_of_a_row_is_the_change_of_the_objective_with_its_bound():
    more, here, less = (solve_lp(dispatch(5.0 + change)) for change in (0.25, 0.0, -0.25))
    assert dispatch().cost @ (more.x - less.x) / 0.5 == pytest.approx(here.row_dual[0], rel=1e-12)


@pytest.mark.parametrize(
    ("cost", "bounds", "dual"),
    [(7.0, (3.0, INF), 7.0), (-7.0, (-INF, 3.0), -7.0), (7.0, (3.0, 3.0), 7.0), (-7.0, (3.0, 3.0), -7.0)],
)
def test_dual_is_positive_at_a_binding_lower_bound_and_negative_at_an_upper_one(cost, bounds, dual):
    solution = solve_lp(programme([cost], [-INF], [INF], [[1]], [bounds[0]], [bounds[1]]))
    assert solution.x[0] == pytest.approx(3.0, abs=1e-12)
    assert solution.row_dual[0] == pytest.approx(dual, abs=1e-12)


def test_basis_tells_which_bounds_bind():
    solution = solve_lp(dispatch())
    assert solution.basis.column.tolist() == [AT_UPPER, BASIC, BASIC]
    assert solution.basis.row[1] == AT_UPPER
    at_least = solve_lp(programme([1, 1], [0, 0], [INF, INF], [[1, 2]], [4], [INF]))
    assert at_least.basis.column.tolist() == [AT_LOWER, BASIC]
    assert at_least.basis.row.tolist() == [AT_LOWER]


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e6])
def test_scaling_a_row_scales_its_dual_and_nothing_else(scale: float):
    solution = solve_lp(dispatch(scale=scale))
    np.testing.assert_allclose(solution.x, [2, 1, 2], atol=1e-9)
    np.testing.assert_allclose(solution.row_dual * [scale, 1.0], [50, -30], rtol=1e-9)


def test_an_infeasible_programme_has_no_solution():
    assert solve_lp(programme([1], [0], [2], [[1]], [3], [INF])) is None


def test_a_programme_without_rows_is_solved_by_its_bounds():
    solution = solve_lp(programme([1, -1], [-2, 0], [9, 5], np.zeros((0, 2)), [], []))
    assert solution.x.tolist() == [-2, 5]
    assert solution.row_dual.size == 0


def test_a_row_that_bounds_keep_has_no_dual_and_is_basic():
    """x + y <= 3 with x, y <= 1 stays out; x + y >= 1 does not; the basis serves a programme in which both may bind."""
    kept = programme([1, 2], [0, 0], [1, 1], [[1, 1], [1, 1]], [-INF, 1], [3, INF])
    solution = solve_lp(kept)
    assert kept.may_bind().tolist() == [False, True]
    assert solution.row_dual.tolist() == [0, 1]
    assert solution.basis.row.tolist() == [BASIC, AT_LOWER]
    wider = programme([-1, -2], [0, 0], [9, 9], [[1, 1], [1, 1]], [-INF, 1], [3, INF])
    assert solve_lp(wider, solution.basis).x.tolist() == [0, 3]


def test_an_unbounded_programme_is_an_error():
    with pytest.raises(SolverError, match=r"(?i)unbounded"):
        solve_lp(programme([-1], [0], [INF], [[1]], [0], [INF]))


def test_a_hot_start_gives_the_same_answer_and_basis():
    cold = solve_lp(dispatch())
    hot = solve_lp(dispatch(), cold.basis)
    np.testing.assert_array_equal(hot.x, cold.x)
    np.testing.assert_array_equal(hot.row_dual, cold.row_dual)
    np.testing.assert_array_equal(hot.basis.column, cold.basis.column)
    np.testing.assert_array_equal(hot.basis.row, cold.basis.row)


def test_a_basis_of_another_programme_does_not_spoil_the_answer():
    """Both a wrong one of the right size and one that is no basis."""
    for column, row in (([BASIC, AT_LOWER, AT_LOWER], [AT_LOWER, BASIC]), ([BASIC] * 3, [BASIC] * 2)):
        solution = solve_lp(dispatch(), Basis(np.array(column, np.int8), np.array(row, np.int8)))
        np.testing.assert_allclose(solution.x, [2, 1, 2], atol=1e-12)
        np.testing.assert_allclose(solution.row_dual, [50, -30], atol=1e-9)


@pytest.fixture(params=[-1.0, 2.0], ids=["dense", "sparse"])
def matrices(request, monkeypatch) -> None:
    """Quadratic programmes of dense or of sparse matrices, whatever they have of entries; none in stages is dense."""
    monkeypatch.setattr(solve, "DENSE_FROM", request.param)


@pytest.fixture(params=[QpMethod(), QpMethod(has_states=True)], ids=["rows scaled", "columns in units"])
def method(request) -> QpMethod:
    return request.param


@pytest.mark.usefixtures("matrices")
def test_quadratic_programme_worked_by_hand(method: QpMethod):
    """(x - 1)^2 + (y - 2)^2 with x + y <= 2: the nearest point is (0.5, 1.5), where the gradient is (-1, -1)."""
    nearest = programme([-2, -4], [-INF, -INF], [INF, INF], [[1, 1]], [-INF], [2])
    found = solve_qp(nearest, sparse.csc_array(2 * np.eye(2)), method)
    np.testing.assert_allclose(found.x, [0.5, 1.5], atol=REGULARISED)
    np.testing.assert_allclose(found.row_dual, [-1.0], atol=REGULARISED)
    assert found.row.tolist() == [1]
    assert found.column.tolist() == [BASIC, BASIC]


@pytest.mark.parametrize("kind", [QpMethod(), QpMethod(in_stages=True), QpMethod(has_states=True)])
@pytest.mark.usefixtures("matrices")
def test_a_quadratic_programme_tells_what_binds(kind: QpMethod):
    """x^2 - 8 x is least at 4, beyond 3; y^2 + y at -1/2, below 0; z is fixed; no row binds."""
    bounded = programme([-8, 1, 0], [0, 0, 2], [3, 5, 2], [[1, -1, 0], [0, 0, 1]], [2, 1], [INF, INF])
    found = solve_qp(bounded, sparse.csc_array(2 * np.eye(3)), kind)
    assert found.column.tolist() == [AT_UPPER, AT_LOWER, AT_LOWER]
    assert found.x.tolist() == [3.0, 0.0, 2.0]
    assert found.row.tolist() == [0, 0]


@pytest.mark.parametrize("width", [1e-6, 1e-3, 1.0, 100.0])
@pytest.mark.usefixtures("matrices")
def test_a_column_of_any_width_is_at_the_end_that_pays(method: QpMethod, width: float):
    """Four columns cost or earn 20 and end where that says; one that costs 7 stays at 0, and the free one with it."""
    costs, own = [20, -20, 20, -20], [5.0, 5.0, 0.0, 0.0]
    lower = [*own, 0.0, -INF]
    upper = [5 + width, 5 + width, width, width, 1e3, INF]
    problem = programme([*costs, 7, 0], lower, upper, [[0, 0, 0, 0, 1, -1]], [0], [0])
    found = solve_qp(problem, sparse.csc_array(np.diag([0, 0, 0, 0, 0, 2.0])), method)
    assert found.column.tolist() == [AT_LOWER, AT_UPPER, AT_LOWER, AT_UPPER, AT_LOWER, BASIC]
    np.testing.assert_allclose(found.x, [5, 5 + width, 0, width, 0, 0], atol=REGULARISED)
    assert found.row_dual[0] == pytest.approx(0.0, abs=REGULARISED)


@pytest.mark.usefixtures("matrices")
def test_a_limit_of_states_worked_by_hand():
    """A state v = 3 x / 1000 may reach 0.006, so that x is 2 of 10, worth 12 each: one more of the limit is worth 4000.

    The equation v - 0.003 x = 0 has the dual of v in the limit.
    """
    problem = programme([-12, 0], [0, -INF], [10, INF], [[-0.003, 1], [0, 1]], [0, -INF], [0, 0.006])
    found = solve_qp(problem, sparse.csc_array((2, 2)), QpMethod(has_states=True))
    np.testing.assert_allclose(found.x, [2, 0.006], atol=REGULARISED)
    np.testing.assert_allclose(found.row_dual, [4000, -4000], rtol=1e-6)
    assert (found.column.tolist(), found.row.tolist()) == ([BASIC, BASIC], [0, 1])


@pytest.mark.usefixtures("matrices")
def test_quadratic_programme_with_cross_terms_uses_the_whole_hessian():
    """x^2 + x y + y^2 - 3 x: the gradient (2x + y - 3, x + 2y) vanishes at (2, -1)."""
    free = programme([-3, 0], [-9, -9], [9, 9], [[1, 0]], [-INF], [INF])
    found = solve_qp(free, sparse.csc_array([[2.0, 1.0], [1.0, 2.0]]))
    np.testing.assert_allclose(found.x, [2.0, -1.0], atol=REGULARISED)


@pytest.mark.usefixtures("matrices")
def test_the_entries_of_a_hessian_may_stand_in_any_order():
    shuffled = sparse.csc_array((np.array([1.0, 2.0, 2.0, 1.0]), np.array([1, 0, 1, 0]), np.array([0, 2, 4])))
    found = solve_qp(programme([-3, 0], [-9, -9], [9, 9], [[1, 0]], [-INF], [INF]), shuffled)
    np.testing.assert_allclose(found.x, [2.0, -1.0], atol=REGULARISED)


@pytest.mark.usefixtures("matrices")
def test_scaling_a_row_of_a_quadratic_programme_scales_its_dual():
    nearest = programme([-2, -4], [-INF, -INF], [INF, INF], [[1e3, 1e3]], [-INF], [2e3])
    found = solve_qp(nearest, sparse.csc_array(2 * np.eye(2)))
    np.testing.assert_allclose(found.row_dual, [-1e-3], rtol=REGULARISED)


@pytest.mark.usefixtures("matrices")
def test_an_infeasible_quadratic_programme_has_no_solution(method: QpMethod):
    assert solve_qp(programme([1], [0], [2], [[1]], [3], [INF]), sparse.csc_array(np.eye(1)), method) is None


def test_whole_numbers_worked_by_hand():
    """A knapsack of 10 with things of 6, 5 and 5 worth 9, 7 and 7: the two small ones, not the dearest per weight."""
    knapsack = programme([-9, -7, -7], [0, 0, 0], [1, 1, 1], [[6, 5, 5]], [-INF], [10])
    assert solve_mip(knapsack, np.ones(3, bool)).tolist() == [0, 1, 1]
    relaxed = solve_mip(knapsack, np.array([False, True, True]))
    np.testing.assert_allclose(relaxed, [5 / 6, 0, 1], atol=1e-9)


def test_whole_numbers_that_do_not_exist_are_none():
    between = programme([1], [0.2], [0.8], [[1]], [-INF], [INF])
    assert solve_mip(between, np.array([False])) is not None
    assert solve_mip(between, np.array([True])) is None


def test_a_mixed_integer_programme_without_a_bound_is_refused():
    with pytest.raises(SolverError):
        solve_mip(programme([-1], [0], [INF], [[1]], [0], [INF]), np.array([True]))
