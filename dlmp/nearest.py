"""The point of a polyhedron that is nearest to a centre, in weighted squares.

Many conditions meet at the answer here, and often leave no interior: solvers that step from corner to corner go in
circles, and general interior-point methods give up.  So conditions of one unknown become bounds, unknowns without
weight in one condition its slack, what is left falls apart into parts that share no condition, equalities are
eliminated, to be kept to the last digit, and the small dense rest is solved by Mehrotra's interior-point method
(SIAM J. Optim. 2(4), 1992).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve, svd
from scipy.sparse.csgraph import connected_components

from dlmp.network.model import FloatArray, IntArray

UNWEIGHTED = 1e-9
"""Weight of unknowns without one that share conditions with others, relative to the largest."""
TOLERANCE = 1e-7
"""Largest violation of a condition, relative to its coefficients and bound."""
FULL_RANK = 1e-9
"""Smallest singular value of equalities that do not depend on each other, relative to the largest."""
MOST_STEPS, SMALLEST_GAP = 100, 1e-12
"""Most steps of the interior-point method, and the error at which it ends."""
SMALLEST_SLACK = 1e-30
"""A condition is met with equality where less is left."""

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Polyhedron:
    """Points within ``lower <= x <= upper`` and ``row_lower <= matrix x <= row_upper``; infinite bounds are none."""

    lower: FloatArray
    upper: FloatArray
    matrix: sparse.csr_array
    row_lower: FloatArray
    row_upper: FloatArray


def nearest_point(within: Polyhedron, weight: FloatArray, centre: FloatArray) -> FloatArray | None:
    """Find the point that minimises ``sum weight (x - centre)^2``; None where the polyhedron is empty.

    Parameters
    ----------
    within
        Of n unknowns.
    weight, centre
        (n,) Unknowns of weight 0 take any value that the others leave them.
    """
    slack: list[tuple[int, int, float]] = []
    alive = np.ones(len(weight), bool)
    reduced = _rows_as_bounds(within)
    while (found := _slack(reduced, alive & (weight == 0))) is not None:
        column, row, size = found
        slack += zip(column.tolist(), row.tolist(), size.tolist(), strict=True)
        alive[column] = False
        reduced = _rows_as_bounds(_without(reduced, column, row, size))
    x = np.clip(np.where(weight > 0, centre, 0.0), reduced.lower, reduced.upper)
    x[~alive] = 0.0
    for part, rows in _parts(reduced.matrix):
        own = Polyhedron(
            reduced.lower[part],
            reduced.upper[part],
            reduced.matrix[rows][:, part],
            reduced.row_lower[rows],
            reduced.row_upper[rows],
        )
        solved = _nearest(own, weight[part], centre[part])
        if solved is None:
            return None
        x[part] = solved
    for number, condition, by in reversed(slack):
        # The nearest to zero of what the condition asks of its slack.
        rest = float((within.matrix[[condition]] @ x)[0]) - by * x[number]
        ends = sorted(((within.row_lower[condition] - rest) / by, (within.row_upper[condition] - rest) / by))
        low, high = max(ends[0], reduced.lower[number]), min(ends[1], reduced.upper[number])
        x[number] = np.clip(0.0, min(low, high), high)
    return x


def _rows_as_bounds(within: Polyhedron) -> Polyhedron:
    """Turn rows of a single unknown into its bounds."""
    matrix = within.matrix
    row = np.flatnonzero(np.diff(matrix.indptr) == 1)
    if not len(row):
        return within
    column, value = matrix.indices[matrix.indptr[row]], matrix.data[matrix.indptr[row]]
    ends = np.stack([within.row_lower[row] / value, within.row_upper[row] / value])
    lower, upper = within.lower.copy(), within.upper.copy()
    np.maximum.at(lower, column, ends.min(axis=0))
    np.minimum.at(upper, column, ends.max(axis=0))
    return replace(within, lower=lower, upper=upper, matrix=_emptied(matrix, row))


def _slack(within: Polyhedron, candidate: BoolArray) -> tuple[IntArray, IntArray, FloatArray] | None:
    """Candidates that stand in one row only, at most one of each row, their rows and coefficients."""
    by_column = sparse.csc_array(within.matrix)
    column = np.flatnonzero(candidate & (np.diff(by_column.indptr) == 1))
    row, size = by_column.indices[by_column.indptr[column]], by_column.data[by_column.indptr[column]]
    row, first = np.unique(row, return_index=True)
    return (column[first], row.astype(np.int64), size[first]) if len(row) else None


def _without(within: Polyhedron, column: IntArray, row: IntArray, size: FloatArray) -> Polyhedron:
    """Widen each row by what its slack may be."""
    ends = np.stack([size * within.lower[column], size * within.upper[column]])
    row_lower, row_upper = within.row_lower.copy(), within.row_upper.copy()
    row_lower[row] -= ends.max(axis=0)
    row_upper[row] -= ends.min(axis=0)
    by_column = sparse.csc_array(within.matrix)
    by_column.data[by_column.indptr[column]] = 0.0
    matrix = sparse.csr_array(by_column)
    matrix.eliminate_zeros()
    return replace(within, matrix=matrix, row_lower=row_lower, row_upper=row_upper)


def _emptied(matrix: sparse.csr_array, row: IntArray) -> sparse.csr_array:
    """`matrix` without the only entry of each `row`."""
    matrix = matrix.copy()
    matrix.data[matrix.indptr[row]] = 0.0
    matrix.eliminate_zeros()
    return matrix


def _parts(matrix: sparse.csr_array) -> Iterator[tuple[IntArray, IntArray]]:
    """Unknowns that share a row with others, and their rows, in parts that share none."""
    rows = np.flatnonzero(np.diff(matrix.indptr))
    columns = np.unique(matrix.indices)
    together = sparse.block_array([[None, matrix[rows][:, columns]], [matrix[rows][:, columns].T, None]])
    count, label = connected_components(together, directed=False) if len(rows) else (0, np.zeros(0))
    for part in range(count):
        yield columns[label[len(rows) :] == part], rows[label[: len(rows)] == part]


def _nearest(within: Polyhedron, weight: FloatArray, centre: FloatArray) -> FloatArray | None:
    """Solve a part densely; None where it is empty."""
    every = np.concatenate([np.eye(len(weight)), within.matrix.toarray()])
    size = np.linalg.norm(every, axis=1)
    every /= size[:, None]
    lower = np.concatenate([within.lower, within.row_lower]) / size
    upper = np.concatenate([within.upper, within.row_upper]) / size
    is_equal = np.isfinite(lower) & (upper - lower <= TOLERANCE * np.maximum(1.0, np.abs(lower)))
    base, ways = np.zeros(len(weight)), np.eye(len(weight))
    if is_equal.any():
        base, ways = _solutions(every[is_equal], (lower[is_equal] + upper[is_equal]) / 2)
    conditions = np.concatenate([every[~is_equal], -every[~is_equal]])
    least = np.concatenate([lower[~is_equal], -upper[~is_equal]])
    conditions, least = conditions[np.isfinite(least)], least[np.isfinite(least)]
    weight = np.maximum(weight / weight.max(initial=1e-300), UNWEIGHTED)
    step = _interior(
        (ways.T * weight) @ ways, ways.T @ (weight * (base - centre)), conditions @ ways, least - conditions @ base
    )
    x: FloatArray = base + ways @ step
    scale = np.maximum(1.0, np.abs(least))
    return x if (conditions @ x >= least - TOLERANCE * scale).all() else None


def _solutions(matrix: FloatArray, target: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The least x (n,) with ``matrix x = target``, and directions (n, w) that lead to all others.

    By QR iterations: LAPACK's quicker divide and conquer does not converge for some matrices of lesser rank.
    """
    left, size, right = svd(matrix, lapack_driver="gesvd")
    rank = int((size > FULL_RANK * size.max()).sum())
    return right[:rank].T @ (left[:, :rank].T @ target / size[:rank]), right[rank:].T


def _interior(hessian: FloatArray, slope: FloatArray, conditions: FloatArray, least: FloatArray) -> FloatArray:
    """Minimise ``x hessian x / 2 + slope x`` over ``conditions x >= least``: Mehrotra's predictor and corrector."""
    x = np.asarray(np.linalg.solve(hessian, -slope))
    if not len(x) or (conditions @ x >= least).all():
        return x
    slack = np.maximum(conditions @ x - least, 1.0)
    dual = np.full(len(least), max(1.0, float(np.abs(slope).max())))
    for _ in range(MOST_STEPS):
        by_x, by_dual = hessian @ x + slope - conditions.T @ dual, conditions @ x - slack - least
        gap = slack @ dual / len(least)
        if gap < SMALLEST_GAP and max(np.abs(by_x).max(), np.abs(by_dual).max()) < SMALLEST_GAP:
            break
        if slack.min() < SMALLEST_SLACK:
            break  # there is no interior
        ratio = dual / slack
        try:
            factor = cho_factor(hessian + (conditions.T * ratio) @ conditions)
        except np.linalg.LinAlgError:
            break  # as near as its digits tell
        product = slack * dual
        for centring in (True, False):
            inner = (-product - dual * by_dual) / slack
            step = cho_solve(factor, -by_x + conditions.T @ inner)
            slack_step = conditions @ step + by_dual
            dual_step = (-product - dual * slack_step) / slack
            length = [_longest(slack, slack_step), _longest(dual, dual_step)]
            if centring:
                after = (slack + length[0] * slack_step) @ (dual + length[1] * dual_step) / len(least)
                product = product + slack_step * dual_step - gap * (after / gap) ** 3
        part = 0.995 * min(length)
        x, slack, dual = x + part * step, slack + part * slack_step, dual + part * dual_step
    return x


def _longest(value: FloatArray, step: FloatArray) -> float:
    """Largest part of `step`, at most all, that keeps `value` above zero."""
    falls = step < 0
    return min(1.0, float((-value[falls] / step[falls]).min(initial=1.0 / 0.995)))
