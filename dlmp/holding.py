"""Quadratic programmes with the decisions held that are far from their price.

Most bids and offers of a horizon are clearly in or clearly out of the money.  Held where they are, they leave a
programme of less than half the columns, which costs a tenth of the time; whatever was held wrongly shows in its
reduced cost afterwards.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dlmp.condensing import Sums, solve_condensed
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
    gain_of_leaving,
)

WRONG_SIGN = 1e-6
"""A held column that would save more by moving is held wrongly [currency/MWh]."""


@dataclass(frozen=True, eq=False)
class Held:
    """What is known of a programme of c columns and r rows before it is solved.

    Parameters
    ----------
    is_held
        (c,) True for the columns that stay at the bound of their `column` status.
    may_follow
        (c,) True for the columns that an equality may hold with all others of its row.
    is_sum
        (c,) True for the columns that an equality makes of others, of those that `may_follow`.
    column, row, row_dual
        (c,), (r,), (r,) States of columns and rows, and duals, of the dispatch to start from.
    """

    is_held: npt.NDArray[np.bool_]
    may_follow: npt.NDArray[np.bool_]
    is_sum: npt.NDArray[np.bool_]
    column: StatusArray
    row: StatusArray
    row_dual: FloatArray

    def released(self) -> "Held":
        """The same with nothing held."""
        return replace(self, is_held=np.zeros_like(self.is_held))

    def is_held_wrongly(
        self, problem: LinearProgram, hessian: sparse.csc_array, solution: QpSolution
    ) -> npt.NDArray[np.bool_]:
        """(c,) True for the held columns that would leave their bound at the duals of `solution`."""
        count = len(self.is_held)
        reduced = problem.cost + hessian @ solution.x[:count] - problem.matrix.T @ solution.row_dual
        return self.is_held & (gain_of_leaving(self.column, reduced) > WRONG_SIGN)

    def with_free_columns(self, count: int) -> "Held":
        """The same with `count` more columns, which are not held."""
        more = np.zeros(count, bool)
        return replace(
            self,
            is_held=np.concatenate([self.is_held, more]),
            may_follow=np.concatenate([self.may_follow, more]),
            is_sum=np.concatenate([self.is_sum, more]),
            column=np.concatenate([self.column, np.full(count, BASIC, dtype=np.int8)]),
        )

    def ordered(self, order: IntArray) -> "Held":
        """The same with the columns in another `order`."""
        by_column = ("is_held", "may_follow", "is_sum", "column")
        return replace(self, **{name: getattr(self, name)[order] for name in by_column})


def solve_held(problem: LinearProgram, hessian: sparse.csc_array, held: Held, method: QpMethod) -> QpSolution | None:
    """Minimise over the columns that are not held; None where those alone have no optimum.

    A row without a free column keeps the state and the dual that it had.
    """
    left = _FreePart(problem, held)
    if left.is_impossible:
        return None
    kept = left.free_columns_of_rows() > 0
    lower, upper = (np.where(left.is_free, end, left.at) for end in (problem.lower, problem.upper))
    own = replace(problem, lower=lower, upper=upper).with_rows(kept)
    found = solve_condensed(own, hessian, Sums.of(own, held.is_sum, held.may_follow), method)
    if found is None:
        return None
    column = np.where(left.is_free, found.column, held.column).astype(np.int8)
    row, dual = held.row.copy(), held.row_dual.copy()
    row[kept], dual[kept] = found.row, found.row_dual
    solution = QpSolution(found.x, dual, column, row)
    left.complete(solution, hessian)
    return solution


@dataclass(frozen=True, eq=False)
class _Followers:
    """(i,) Columns that rows hold when others are held, the rows, and their coefficients there.

    Parameters
    ----------
    row, column, coefficient
        Which; a row may hold several columns, a column is held by one row.
    end
        (i,) 1 or -1: the upper or the lower bound of the row is what holds the column.
    is_equality
        (i,) True where the row has no room to either side.
    """

    row: IntArray
    column: IntArray
    coefficient: FloatArray
    end: npt.NDArray[np.int8]
    is_equality: npt.NDArray[np.bool_]

    def complete(self, solution: QpSolution, reduced: FloatArray) -> None:
        """Enter states and duals into `solution`, given the `reduced` costs without these rows.

        A row binds where a column would leave its bound without it: the column that would pay most for that is free.
        """
        sided = self.end * reduced[self.column] / self.coefficient
        order = np.lexsort((sided, self.row))
        row, first = np.unique(self.row[order], return_index=True)
        worst = order[first]
        binds = self.is_equality[worst] | (sided[worst] < 0)
        solution.row_dual[row] = np.where(binds, (self.end * sided)[worst], 0.0)
        solution.row[row] = np.where(binds, self.end[worst], 0)
        solution.column[self.column[worst[binds]]] = BASIC


class _FreePart:
    """What is left to decide when some columns are held.

    Held columns hold others: sums of them, and those that they leave no room in some row.  An interior point method
    must not see those, for where there is no interior there is no end to the duals.

    Attributes
    ----------
    is_free
        (c,) True for the columns that are left.
    at
        (c,) Values of the others.
    followers
        Columns that are held with others, by rounds: each after those that hold it.
    is_impossible
        True when a sum is out of its range.
    """

    def __init__(self, problem: LinearProgram, held: Held):
        self.problem = problem
        self.is_free = ~held.is_held & (problem.upper - problem.lower > FIXED)
        self.at = np.where(held.column == AT_UPPER, problem.upper, problem.lower)
        self.followers: list[_Followers] = []
        self.is_impossible = False
        self._pattern = abs(problem.matrix)
        self._pattern.data[:] = self._pattern.data > 0
        if not held.is_held.any():
            return
        self._is_equality = problem.row_lower == problem.row_upper
        self._up, self._down = problem.matrix.maximum(0.0), problem.matrix.minimum(0.0)
        while self._hold_sums(held.may_follow) or self._hold_forced():
            pass

    def free_columns_of_rows(self) -> FloatArray:
        """(r,) How many free columns each row has."""
        return np.asarray(self._pattern @ self.is_free.astype(float))

    def _hold_sums(self, may_follow: npt.NDArray[np.bool_]) -> bool:
        """Hold the sums whose parts are held; True if there were any."""
        problem = self.problem
        row = np.flatnonzero(self._is_equality & (self.free_columns_of_rows() == 1))
        column = np.asarray(self._pattern[row].multiply(self.is_free).argmax(axis=1)).ravel()
        column, first = np.unique(np.where(may_follow[column], column, -1), return_index=True)
        row, column = row[first[column >= 0]], column[column >= 0]
        if not len(row):
            return False
        coefficient = np.asarray(problem.matrix[row, column]).ravel()
        parts = problem.matrix[row] @ np.where(self.is_free, 0.0, self.at)
        value = (problem.row_lower[row] - parts) / coefficient
        within = np.clip(value, problem.lower[column], problem.upper[column])
        self.is_impossible |= bool((np.abs(value - within) > OUT_OF_RANGE).any())
        self.at[column], self.is_free[column] = within, False
        is_equality = np.ones(len(row), bool)
        self.followers.append(_Followers(row, column, coefficient, is_equality.astype(np.int8), is_equality))
        return True

    def _hold_forced(self) -> bool:
        """Hold the columns to which some row leaves no room, at their bounds; True if there were any."""
        problem = self.problem
        lower = np.where(self.is_free, problem.lower, self.at)
        upper = np.where(self.is_free, problem.upper, self.at)
        with np.errstate(invalid="ignore"):
            least, most = self._up @ lower + self._down @ upper, self._up @ upper + self._down @ lower
        is_open = self.free_columns_of_rows() > 0
        at_most, at_least = is_open & (least > problem.row_upper - FIXED), is_open & (most < problem.row_lower + FIXED)
        end = at_most.astype(np.int8) - (at_least & ~at_most)
        forcing = np.flatnonzero(end)
        part = sparse.coo_array(problem.matrix[forcing])
        is_own = self.is_free[part.col] & (part.data != 0)
        place, column, coefficient = part.row[is_own], part.col[is_own], part.data[is_own]
        column, first = np.unique(column, return_index=True)
        if not len(column):
            return False
        row, coefficient = forcing[place[first]], coefficient[first]
        to_lower = coefficient * end[row] > 0
        self.at[column] = np.where(to_lower, problem.lower[column], problem.upper[column])
        self.is_free[column] = False
        self.followers.append(_Followers(row, column, coefficient, end[row], self._is_equality[row]))
        return True

    def complete(self, solution: QpSolution, hessian: sparse.csc_array) -> None:
        """Enter the states and duals of what was held with others into `solution`."""
        problem = self.problem
        for group in self.followers:
            solution.row_dual[group.row] = 0.0
            at_upper = self.at[group.column] == problem.upper[group.column]
            solution.column[group.column] = np.where(at_upper, AT_UPPER, AT_LOWER)
        marginal_cost = problem.cost + hessian @ solution.x
        for group in reversed(self.followers):
            group.complete(solution, marginal_cost - problem.matrix.T @ solution.row_dual)
