"""Linear programmes as arrays, solved by HiGHS, and quadratic ones, solved by PIQP.

Every dual is ``d(objective) / d(right-hand side)`` of a minimisation: positive at a binding lower
bound, negative at a binding upper one.  This module is the only place that knows either's options.
"""

from dataclasses import dataclass, replace

import highspy
import numpy as np
import numpy.typing as npt
import piqp
from scipy import sparse

from dlmp.errors import SolverError
from dlmp.network.model import FloatArray

StatusArray = npt.NDArray[np.int8]

AT_LOWER, BASIC, AT_UPPER = 0, 1, 2
"""Basis statuses, numbered as HiGHS numbers them."""

_NUMERICAL_FAILURES = (
    highspy.HighsModelStatus.kNotset,
    highspy.HighsModelStatus.kUnknown,
    highspy.HighsModelStatus.kSolveError,
)

_STATUS = [
    highspy.HighsBasisStatus.kLower,
    highspy.HighsBasisStatus.kBasic,
    highspy.HighsBasisStatus.kUpper,
    highspy.HighsBasisStatus.kZero,
    highspy.HighsBasisStatus.kNonbasic,
]

QP_TOLERANCE = 1e-9
"""Tolerance of quadratic programmes, absolute and relative."""
STATES_RHO, STATES_TAU, STATES_INFEASIBLE = 3e-6, 0.97, 1e-12
"""Regularisation of columns to begin with, how far to go to the nearest bound, and how far a proof of infeasibility may
be off, where states are among the columns: with PIQP's own values it needs up to ten times the iterations, and calls
some such programmes infeasible that are not (measured)."""
DENSE_FROM = 0.3
"""From this share of entries in its Hessian on a programme is solved densely: of 400 columns up to five times as fast,
of 50 no slower (measured)."""
FIXED = 1e-9
"""A column of a quadratic programme whose bounds are no farther apart is fixed; a row broken by no more is kept."""
OUT_OF_RANGE = 1e-7
"""A column that others determine may be this far beyond its bounds [pu]."""
MIP_GAP = 1e-7
"""Largest distance of a mixed-integer optimum from its bound [currency/MWh x pu]."""
TOLERANCE = 1e-9
"""Feasibility tolerance of rows scaled to a largest coefficient of 1, and of reduced costs [currency/MWh]."""


@dataclass(frozen=True, eq=False)
class LinearProgram:
    """Minimise ``cost x`` over ``lower <= x <= upper`` and ``row_lower <= matrix x <= row_upper``."""

    cost: FloatArray
    lower: FloatArray
    upper: FloatArray
    matrix: sparse.csr_array
    row_lower: FloatArray
    row_upper: FloatArray

    def may_bind(self) -> npt.NDArray[np.bool_]:
        """(r,) True for the rows that the bounds of the columns do not keep by themselves."""
        up, down = self.matrix.maximum(0.0), self.matrix.minimum(0.0)
        with np.errstate(invalid="ignore"):
            least, most = up @ self.lower + down @ self.upper, up @ self.upper + down @ self.lower
            return np.asarray(~((least >= self.row_lower - FIXED) & (most <= self.row_upper + FIXED)))

    def with_rows(self, kept: npt.NDArray[np.bool_]) -> "LinearProgram":
        """The same with the rows `kept` (r,) alone."""
        return replace(self, matrix=self.matrix[kept], row_lower=self.row_lower[kept], row_upper=self.row_upper[kept])


@dataclass(frozen=True, eq=False)
class Basis:
    """Basis status of every column and row."""

    column: StatusArray
    row: StatusArray


@dataclass(frozen=True, eq=False)
class LpSolution:
    """An optimum: values, duals by row, cost, simplex iterations, and the basis."""

    x: FloatArray
    row_dual: FloatArray
    objective: float
    iterations: int
    basis: Basis


def solve_lp(problem: LinearProgram, basis: Basis | None = None, time_limit_s: float = np.inf) -> LpSolution | None:
    """Solve `problem` by dual simplex from `basis`; None when it is infeasible.

    Rows that the bounds of the columns keep by themselves stay out of it.

    Raises
    ------
    SolverError
        When HiGHS ends in any other state than optimal or infeasible.
    """
    kept = problem.may_bind()
    if basis is not None:
        kept |= basis.row != BASIC
        basis = Basis(basis.column, basis.row[kept])
    problem = problem.with_rows(kept)
    scale = _row_scale(problem.matrix)
    matrix = sparse.csr_array(sparse.diags_array(scale) @ problem.matrix)
    solver = _new_solver(time_limit_s)
    _pass_model(solver, problem, matrix, scale)
    if basis is not None and int((basis.column == BASIC).sum() + (basis.row == BASIC).sum()) == len(basis.row):
        start = highspy.HighsBasis()
        start.col_status = [_STATUS[status] for status in basis.column]
        start.row_status = [_STATUS[status] for status in basis.row]
        start.valid = True
        solver.setBasis(start)
    solver.run()
    if solver.getModelStatus() in _NUMERICAL_FAILURES:
        # Dual simplex lost its way numerically: begin again from a presolved model.
        solver.clearSolver()
        solver.setOptionValue("presolve", "on")
        solver.run()
    if not _has_optimum(solver):
        return None
    solution, found = solver.getSolution(), solver.getBasis()
    row_dual, row = np.zeros(len(kept)), np.full(len(kept), BASIC, dtype=np.int8)
    row_dual[kept], row[kept] = np.array(solution.row_dual) * scale, _statuses(found.row_status)
    return LpSolution(
        x=np.array(solution.col_value),
        row_dual=row_dual,
        objective=float(solver.getInfo().objective_function_value),
        iterations=int(solver.getInfo().simplex_iteration_count),
        basis=Basis(_statuses(found.col_status), row),
    )


def solve_mip(
    problem: LinearProgram, is_integer: npt.NDArray[np.bool_], time_limit_s: float = np.inf
) -> FloatArray | None:
    """Solve `problem` with the columns (c,) of `is_integer` whole; None when it is infeasible.

    Returns
    -------
    Values: those of an optimum, the whole ones exactly.

    Raises
    ------
    SolverError
        When HiGHS ends in any other state than optimal or infeasible, as when `time_limit_s` is over.
    """
    scale = _row_scale(problem.matrix)
    solver = _new_solver(time_limit_s)
    _pass_model(solver, problem, sparse.csr_array(sparse.diags_array(scale) @ problem.matrix), scale)
    column = np.flatnonzero(is_integer).astype(np.int32)
    kind = np.full(len(column), highspy.HighsVarType.kInteger)
    solver.changeColsIntegrality(len(column), column, kind)
    for option, value in (("solver", "choose"), ("presolve", "on"), ("mip_rel_gap", 0.0), ("mip_abs_gap", MIP_GAP)):
        solver.setOptionValue(option, value)
    solver.run()
    if not _has_optimum(solver):
        return None
    x = np.array(solver.getSolution().col_value)
    x[column] = np.round(x[column])
    return x


def _has_optimum(solver: highspy.Highs) -> bool:
    """True when `solver` ended at an optimum, False when its problem is infeasible.

    Raises
    ------
    SolverError
        When it ended in any other state.
    """
    status = solver.getModelStatus()
    if status == highspy.HighsModelStatus.kInfeasible:
        return False
    if status != highspy.HighsModelStatus.kOptimal:
        raise SolverError(f"HiGHS ended with status {solver.modelStatusToString(status)!r}, not with an optimum")
    return True


def _row_scale(matrix: sparse.csr_array) -> FloatArray:
    largest = abs(matrix).max(axis=1).toarray().ravel() if matrix.shape[0] else np.zeros(0)
    return 1.0 / np.where(largest > 0, largest, 1.0)


def _column_unit(problem: LinearProgram) -> FloatArray:
    """(c,) What a column with bounds may move by, and for a free one what moves a row by 1 at most."""
    matrix, width = problem.matrix, problem.upper - problem.lower
    steepest = abs(matrix).max(axis=0).toarray().ravel() if matrix.shape[0] else np.zeros(len(width))
    of_free = 1.0 / np.where(steepest > 0, steepest, 1.0)
    is_free = np.isinf(problem.lower) & np.isinf(problem.upper)
    return np.where(is_free, of_free, np.where(np.isfinite(width) & (width > FIXED), width, 1.0))


def _new_solver(time_limit_s: float) -> highspy.Highs:
    solver = highspy.Highs()
    for option, value in (
        ("output_flag", False),
        ("presolve", "off"),
        ("solver", "simplex"),
        ("threads", 1),
        ("random_seed", 0),
        ("primal_feasibility_tolerance", TOLERANCE),
        ("dual_feasibility_tolerance", TOLERANCE),
        ("time_limit", float(time_limit_s)),
    ):
        solver.setOptionValue(option, value)
    return solver


def _pass_model(solver: highspy.Highs, problem: LinearProgram, matrix: sparse.csr_array, scale: FloatArray) -> None:
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = len(problem.cost), len(scale)
    model.col_cost_, model.col_lower_, model.col_upper_ = problem.cost, problem.lower, problem.upper
    model.row_lower_, model.row_upper_ = problem.row_lower * scale, problem.row_upper * scale
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.num_col_, model.a_matrix_.num_row_ = len(problem.cost), len(scale)
    model.a_matrix_.start_ = matrix.indptr.astype(np.int32)
    model.a_matrix_.index_ = matrix.indices.astype(np.int32)
    model.a_matrix_.value_ = matrix.data
    if solver.passModel(model) == highspy.HighsStatus.kError:
        raise SolverError("HiGHS refused the model")


def _statuses(found: list[highspy.HighsBasisStatus]) -> StatusArray:
    return np.array([int(status) for status in found], dtype=np.int8)


def gain_of_leaving(column: StatusArray, reduced: FloatArray) -> FloatArray:
    """(c,) What one more unit off its bound would save each `column` with this `reduced` cost; free ones aside."""
    return np.where(column == AT_LOWER, -reduced, reduced)


@dataclass(frozen=True, eq=False)
class QpSolution:
    """An optimum of a quadratic programme: values, duals by row, and what binds.

    Parameters
    ----------
    x, row_dual
        Values of the columns, duals of the rows.
    column
        `AT_LOWER`, `BASIC` or `AT_UPPER`: the end of its range that a column is at.
    row
        -1, 0 or 1: the bound that a row is at.
    """

    x: FloatArray
    row_dual: FloatArray
    column: StatusArray
    row: StatusArray


@dataclass(frozen=True)
class QpMethod:
    """How to solve a quadratic programme.

    Parameters
    ----------
    in_stages
        True where the columns come in groups that are coupled to the next group only.
    tolerance
        Largest residual, absolute and relative to the terms of its condition.
    has_states
        True where unknowns of a network's states are among the columns.
    """

    in_stages: bool = False
    tolerance: float = QP_TOLERANCE
    has_states: bool = False


def solve_qp(problem: LinearProgram, hessian: sparse.csc_array, method: QpMethod = QpMethod()) -> QpSolution | None:
    """Minimise ``cost x + x hessian x / 2`` over the constraints of `problem` by PIQP's interior point method.

    Schwan, Jiang, Kuhn and Jones, "PIQP: A Proximal Interior-Point Quadratic Programming Solver", IEEE CDC 2023.
    An interior point comes near to the bounds and never to them: a bound is told to bind where its dual is larger
    than the room that is left, which is how the two part on the central path.

    Parameters
    ----------
    problem
        Linear cost, bounds and rows.
    hessian
        (c, c) Positive semidefinite.
    method
        How.

    Returns
    -------
    The optimum; None when there is none.
    """
    is_free = problem.upper - problem.lower > FIXED
    at = np.where(is_free, 0.0, problem.lower)
    if method.has_states:
        scale, unit = np.ones(problem.matrix.shape[0]), _column_unit(problem)
    else:
        scale, unit = _row_scale(problem.matrix), np.ones(len(problem.cost))
    rows = sparse.csr_array(sparse.diags_array(scale) @ problem.matrix)
    moved = rows @ at
    lower, upper = problem.row_lower * scale, problem.row_upper * scale
    is_equal = lower == upper
    own, curved = rows[:, is_free], sparse.csc_matrix(hessian[is_free][:, is_free])
    if method.has_states:
        own.data *= unit[is_free][own.indices]
        curved.data *= unit[is_free][curved.indices] * np.repeat(unit[is_free], np.diff(curved.indptr))
    is_dense = not method.in_stages and curved.nnz > DENSE_FROM * curved.shape[0] ** 2
    solver = piqp.DenseSolver() if is_dense else piqp.SparseSolver()
    if method.in_stages and is_free.any():  # PIQP crashes at stages without any column
        solver.settings.kkt_solver = piqp.KKTSolver.sparse_multistage
    solver.settings.eps_abs = solver.settings.eps_rel = method.tolerance
    if method.has_states:
        solver.settings.rho_init, solver.settings.tau = STATES_RHO, STATES_TAU
        solver.settings.eps_primal_inf = STATES_INFEASIBLE
    given = _dense if is_dense else _sorted
    solver.setup(
        given(curved),
        (problem.cost + hessian @ at)[is_free] * unit[is_free],
        given(own[is_equal]),
        (lower - moved)[is_equal],
        given(own[~is_equal]),
        (lower - moved)[~is_equal],
        (upper - moved)[~is_equal],
        (problem.lower / unit)[is_free],
        (problem.upper / unit)[is_free],
    )
    if solver.solve() != piqp.Status.PIQP_SOLVED:
        return None
    found = solver.result
    x = at.copy()
    x[is_free] = found.x * unit[is_free]
    column = np.full(len(x), AT_LOWER, dtype=np.int8)
    unit_squared = unit[is_free] ** 2
    at_lower = (found.z_bl > found.s_bl * unit_squared) & (found.z_bl >= found.z_bu)
    at_upper = (found.z_bu > found.s_bu * unit_squared) & ~at_lower
    column[is_free] = np.where(at_lower, AT_LOWER, np.where(at_upper, AT_UPPER, BASIC))
    x = np.where(column == AT_LOWER, problem.lower, np.where(column == AT_UPPER, problem.upper, x))
    dual, row = np.zeros(len(scale)), np.zeros(len(scale), dtype=np.int8)
    dual[is_equal] = -found.y
    row[~is_equal] = np.where(found.z_l > found.s_l, -1, np.where(found.z_u > found.s_u, 1, 0))
    dual[~is_equal] = np.where(row[~is_equal] != 0, found.z_l - found.z_u, 0.0)
    return QpSolution(x, dual * scale, column, row)


def _dense(matrix: sparse.sparray) -> FloatArray:
    """As PIQP wants it, column by column."""
    return np.asarray(matrix.toarray(order="F"))


def _sorted(matrix: sparse.sparray) -> sparse.csc_matrix:
    """As PIQP wants it, its rows in order."""
    by_column = sparse.csc_matrix(matrix)
    by_column.sort_indices()
    return by_column
