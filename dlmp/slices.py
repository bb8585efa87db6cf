"""Bids whose price changes along the segment, in a linear programme: slices, each at the price of its middle.

What a column costs, ``cost x + slope x^2 / 2``, becomes a staircase.  Its slices fill up in order, for each is dearer
than the one before.  The Newton finish goes on from there to the curve itself.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from dlmp.network.model import FloatArray, IntArray
from dlmp.solve import AT_LOWER, AT_UPPER, BASIC, Basis, LinearProgram, LpSolution

SLICES = 16


@dataclass(frozen=True, eq=False)
class Slices:
    """Columns of a programme that are cut up.

    Parameters
    ----------
    column
        (k,) Which.  The first slice of each stands in its place, the others follow the last column of the programme.
    width
        (k,) Size of a slice.
    slope
        (k,) How much its cost rises with each further unit.
    count
        Columns of the programme before it was cut.
    """

    column: IntArray
    width: FloatArray
    slope: FloatArray
    count: int

    @classmethod
    def of(cls, problem: LinearProgram, slope: FloatArray) -> "Slices":
        """Cut the columns of `problem` with a `slope` (c,) above zero and room between their bounds."""
        column = np.flatnonzero((slope > 0) & (problem.upper > problem.lower))
        width = (problem.upper - problem.lower)[column] / SLICES
        return cls(column, width, slope[column], len(problem.cost))

    def cut(self, problem: LinearProgram) -> LinearProgram:
        """Return `problem` with slices in place of the columns."""
        if not len(self.column):
            return problem
        cost, upper = problem.cost.copy(), problem.upper.copy()
        first = cost[self.column] + self.slope * (problem.lower[self.column] + self.width / 2)
        further = first + self.slope * self.width * np.arange(1, SLICES)[:, None]
        cost[self.column] = first
        upper[self.column] = problem.lower[self.column] + self.width
        return replace(
            problem,
            cost=np.concatenate([cost, further.ravel()]),
            lower=np.concatenate([problem.lower, np.zeros(further.size)]),
            upper=np.concatenate([upper, np.tile(self.width, SLICES - 1)]),
            matrix=sparse.csr_array(
                sparse.hstack([problem.matrix, *[problem.matrix[:, self.column]] * (SLICES - 1)], format="csr")
            ),
        )

    def joined(self, solution: LpSolution) -> LpSolution:
        """Return a solution of the cut programme by the columns before."""
        if not len(self.column):
            return solution
        end = self.count + (SLICES - 1) * len(self.column)
        x, status = solution.x[: self.count].copy(), solution.basis.column[: self.count].copy()
        x[self.column] += solution.x[self.count : end].reshape(SLICES - 1, -1).sum(axis=0)
        states = np.vstack([status[self.column], solution.basis.column[self.count : end].reshape(SLICES - 1, -1)])
        is_low, is_high = (states == AT_LOWER).all(axis=0), (states == AT_UPPER).all(axis=0)
        status[self.column] = np.where(is_low, AT_LOWER, np.where(is_high, AT_UPPER, BASIC))
        return replace(solution, x=x, basis=Basis(status, solution.basis.row))
