"""Quadratic programmes with fewer columns and rows: sums are put in place, and conditions of one column made bounds.

The real power of a resource is the sum of its awards, charging and discharging.  An interior point method pays for it
by the cube of the columns of an interval.  Where most decisions are held (`dlmp.holding`) a sixth of the columns and
half of the rows go this way, which costs half the time; their states and duals follow from those of the rest.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dlmp.network.model import FloatArray, IntArray
from dlmp.solve import (
    AT_LOWER,
    AT_UPPER,
    BASIC,
    FIXED,
    OUT_OF_RANGE,
    LinearProgram,
    QpMethod,
    QpSolution,
    StatusArray,
    solve_qp,
)

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Sums:
    """(i,) Columns that are sums of others, the equalities that say so, and their coefficients there."""

    row: IntArray
    column: IntArray
    coefficient: FloatArray

    @classmethod
    def of(cls, problem: LinearProgram, may_be_sum: BoolArray, may_be_part: BoolArray) -> "Sums":
        """Find the equalities of one free column that `may_be_sum` (c,) and free others that `may_be_part` (c,)."""
        is_free = problem.upper - problem.lower > FIXED
        pattern = abs(problem.matrix)
        pattern.data = (pattern.data > 0).astype(float)
        sums, others = (is_free & may_be_sum).astype(float), (is_free & ~may_be_sum & ~may_be_part).astype(float)
        is_equality = problem.row_lower == problem.row_upper
        row = np.flatnonzero(is_equality & (pattern @ sums == 1) & (pattern @ others == 0))
        own = sparse.coo_array(problem.matrix[row])
        is_sum = (sums[own.col] > 0) & (own.data != 0)
        column, first = np.unique(own.col[is_sum], return_index=True)
        return cls(row[own.row[is_sum][first]], column.astype(np.int64), own.data[is_sum][first])


def solve_condensed(
    problem: LinearProgram, hessian: sparse.csc_array, sums: Sums, method: QpMethod
) -> QpSolution | None:
    """Minimise ``cost x + x hessian x / 2`` as `dlmp.solve.solve_qp` does, at ``x = base + ways z`` without `sums`."""
    is_left = problem.upper - problem.lower > FIXED
    is_left[sums.column] = False
    if not is_left.any():
        return solve_qp(problem, hessian, method)
    is_other = np.ones(len(problem.row_lower), bool)
    is_other[sums.row] = False
    left, others = np.flatnonzero(is_left), np.flatnonzero(is_other)
    matrix, base = problem.matrix, np.where(is_left, 0.0, problem.lower)
    base[sums.column] = 0.0
    base[sums.column] = (problem.row_lower[sums.row] - matrix[sums.row] @ base) / sums.coefficient
    parts = sparse.csr_array(sparse.diags_array(-1 / sums.coefficient) @ matrix[sums.row][:, left])
    ways = sparse.csr_array(_places(left, len(base)) + _places(sums.column, len(base)) @ parts)
    moved = matrix[others] @ base
    whole = LinearProgram(
        ways.T @ (problem.cost + hessian @ base),
        problem.lower[left],
        problem.upper[left],
        sparse.csr_array(sparse.vstack([matrix[others] @ ways, parts])),
        np.concatenate([problem.row_lower[others] - moved, (problem.lower - base)[sums.column]]),
        np.concatenate([problem.row_upper[others] - moved, (problem.upper - base)[sums.column]]),
    )
    bounds = _Bounds.of(whole)
    if bounds is None:
        return None
    whole = replace(whole, lower=bounds.lower, upper=bounds.upper)
    kept = whole.may_bind() & ~bounds.is_from_row
    curved = sparse.csc_array(ways.T @ hessian @ ways)
    found = solve_qp(whole.with_rows(kept), curved, method)
    if found is None:
        return None
    dual, state = np.zeros(len(kept)), np.zeros(len(kept), dtype=np.int8)
    dual[kept], state[kept] = found.row_dual, found.row
    column, row = np.full(len(base), AT_LOWER, dtype=np.int8), np.zeros(len(problem.row_lower), dtype=np.int8)
    reduced = whole.cost + curved @ found.x - whole.matrix.T @ dual
    column[left] = bounds.given_to_rows(found.column, reduced, whole.matrix, dual, state)
    x, row_dual = base + ways @ found.x, np.zeros(len(row))
    row[others], row_dual[others] = state[: len(others)], dual[: len(others)]
    of_sums, at = state[len(others) :], sums.column
    column[at] = np.where(of_sums < 0, AT_LOWER, np.where(of_sums > 0, AT_UPPER, BASIC))
    x[at] = np.where(of_sums < 0, problem.lower[at], np.where(of_sums > 0, problem.upper[at], x[at]))
    reduced = problem.cost + hessian @ x - matrix.T @ row_dual
    row_dual[sums.row] = (reduced[at] - dual[len(others) :]) / sums.coefficient
    return QpSolution(x, row_dual, column, row)


def _places(place: IntArray, size: int) -> sparse.csr_array:
    """A matrix (size, i) that puts each of (i,) entries in its `place`."""
    return sparse.csr_array((np.ones(len(place)), (place, np.arange(len(place)))), shape=(size, len(place)))


@dataclass(frozen=True, eq=False)
class _Bounds:
    """Bounds (n,) of columns, the rows that made them, or -1, and (r,) True for the rows of a single column."""

    lower: FloatArray
    upper: FloatArray
    lower_row: IntArray
    upper_row: IntArray
    is_from_row: BoolArray

    @classmethod
    def of(cls, problem: LinearProgram) -> "_Bounds | None":
        """Take the rows of a single column into the bounds of `problem`; None where they leave a column no value."""
        matrix, lower, upper = sparse.csr_array(problem.matrix, copy=True), problem.lower, problem.upper
        matrix.eliminate_zeros()
        is_single = np.diff(matrix.indptr) == 1
        row = np.flatnonzero(is_single)
        column, value = matrix.indices[matrix.indptr[row]], matrix.data[matrix.indptr[row]]
        low, high = np.sort([problem.row_lower[row] / value, problem.row_upper[row] / value], axis=0)
        lowest, highest = lower.copy(), upper.copy()
        np.maximum.at(lowest, column, low)
        np.minimum.at(highest, column, high)
        if (lowest > highest + OUT_OF_RANGE).any():
            return None
        lower_row, upper_row = np.full((2, len(lower)), -1)
        for of_bound, makes in (
            (lower_row, (low == lowest[column]) & (low > lower[column] + FIXED)),
            (upper_row, (high == highest[column]) & (high < upper[column] - FIXED)),
        ):
            of_bound[column[makes]] = row[makes]
        return cls(np.minimum(lowest, highest), highest, lower_row, upper_row, is_single)

    def given_to_rows(
        self, column: StatusArray, reduced: FloatArray, matrix: sparse.csr_array, dual: FloatArray, state: StatusArray
    ) -> StatusArray:
        """Enter dual and state of the rows whose bound a column is at; (n,) states of the columns without them.

        `column` and `reduced` (n,) are states and reduced costs with these bounds.  A column that rows leave no room
        is at the one that holds it.
        """
        is_fixed = self.upper - self.lower <= FIXED
        column = np.where(is_fixed, np.where(reduced >= 0, AT_LOWER, AT_UPPER), column).astype(np.int8)
        for end, of_bound in ((AT_LOWER, self.lower_row), (AT_UPPER, self.upper_row)):
            own = np.flatnonzero((column == end) & (of_bound >= 0))
            value = matrix[of_bound[own]].sum(axis=1)
            dual[of_bound[own]] = reduced[own] / value
            state[of_bound[own]] = np.where((value > 0) == (end == AT_LOWER), -1, 1)
            column[own] = BASIC
        return column
