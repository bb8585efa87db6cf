"""The quadratic model of one interval: linearised rows, exact curvature; solved by HiGHS.

It finds the active sets that the Newton finish needs where correcting them step by step goes in
circles.  Curvature that is not convex (of voltage limits, or at a negative price) is cut off: the
Newton finish that follows uses the true one.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dlmp.formulation.interface import Formulation, Lagrangian, OperatingPoint, Weights
from dlmp.formulation.market_lp import MarketLp
from dlmp.formulation.network_rows import PREDICTED, worth_watching
from dlmp.network.model import FloatArray, IntArray
from dlmp.solve import AT_LOWER, AT_UPPER, BASIC, LinearProgram, StatusArray, solve_qp
from dlmp.timing import PhaseClock

AT_BOUND_PU = 1e-9
MAX_ROUNDS = 8
"""Most rounds of predicted limits."""


@dataclass(frozen=True, eq=False)
class QuadraticSolution:
    """Values, column states, row states (-1, 0, 1) and duals of one interval; `limit` names the binding limits."""

    x: FloatArray
    column: StatusArray
    row: StatusArray
    row_dual: FloatArray
    import_dual: FloatArray
    limit: IntArray
    limit_dual: FloatArray


def injection_hessian(
    market: MarketLp, lagrangian: Lagrangian, interval: int, position: IntArray
) -> tuple[IntArray, FloatArray]:
    """Second derivatives by the injections of one interval that have a `position`, which is -1 for none.

    Returns
    -------
    The positions (i,), and the (i, i) matrix [currency/MWh/pu].
    """
    where = position[market.network_columns[interval]]
    reactive, resource = np.nonzero(where >= 0)
    block = lagrangian.hessian(interval, market.case.resources.node[resource], reactive == 1)
    return where[reactive, resource], block


class QuadraticModel:
    """Quadratic models of all intervals around a dispatch `x` and its state."""

    def __init__(
        self,
        market: MarketLp,
        formulation: Formulation,
        x: FloatArray,
        point: OperatingPoint,
        weights: Weights,
        clock: PhaseClock,
    ):
        self.market, self.formulation, self.x, self.point, self.clock = market, formulation, x, point, clock
        self.lagrangian = point.lagrangian(weights)
        self.import_gradients = [market.spread(g) for g in point.import_gradients(market.nodes)]

    def solve_all(self, intervals: IntArray, active: npt.NDArray[np.bool_]) -> dict[int, QuadraticSolution]:
        """Minimise the model of each interval, adding limits until its solution is predicted to keep all.

        Parameters
        ----------
        intervals
            Which.
        active
            (t, k) Limits to begin with, beside those that are near their bound.

        Returns
        -------
        A solution for each interval that has one.
        """
        limits = self.formulation.limits
        watched = active | worth_watching(limits, self.point.limit_value)
        solutions: dict[int, QuadraticSolution] = {}
        x = self.x.copy()
        unsolved = intervals
        for _ in range(MAX_ROUNDS):
            for interval in unsolved:
                found = self._solve(int(interval), np.flatnonzero(watched[interval]))
                if found is None:
                    solutions.pop(int(interval), None)
                    continue
                solutions[int(interval)] = found
                x[interval * self.market.width : (interval + 1) * self.market.width] = found.x
            predicted = self.point.predicted_limits(self.market.injection(x))
            new = worth_watching(limits, predicted, margin=-PREDICTED) & ~watched
            unsolved = np.array([t for t in solutions if new[t].any()], dtype=np.int64)
            if not len(unsolved):
                break
            watched |= new
        return solutions

    def _solve(self, interval: int, limit: IntArray) -> QuadraticSolution | None:
        """Minimise the model of `interval` under the limits `limit`; None if it has no optimum."""
        market, limits = self.market, self.formulation.limits
        here = slice(interval * market.width, (interval + 1) * market.width)
        x = self.x[here]
        rows, base = self._rows(interval, limit)
        lower = np.concatenate([market.template.row_lower, base[:2], limits.lower[limit] - base[2:]])
        upper = np.concatenate([market.template.row_upper, base[:2], limits.upper[limit] - base[2:]])
        hessian = self._hessian(interval)
        problem = LinearProgram(
            market.columns.cost[interval] - hessian @ x,
            market.columns.lower[interval],
            market.columns.upper[interval],
            sparse.csr_array(sparse.vstack([market.template.matrix, rows])),
            lower,
            upper,
        )
        with self.clock.phase("solver"):
            found = solve_qp(problem, hessian)
        if found is None:
            return None
        values, dual = found
        count = len(market.template.row_lower)
        at_low = values <= problem.lower + AT_BOUND_PU
        column = np.where(at_low, AT_LOWER, np.where(values >= problem.upper - AT_BOUND_PU, AT_UPPER, BASIC))
        binding = np.flatnonzero(dual[count + 2 :])
        return QuadraticSolution(
            values,
            column.astype(np.int8),
            -np.sign(dual[:count]).astype(np.int8),
            dual[:count],
            dual[count : count + 2],
            limit[binding],
            dual[count + 2 :][binding],
        )

    def _rows(self, interval: int, limit: IntArray) -> tuple[sparse.csr_array, FloatArray]:
        """Import rows and limit rows of one interval, and their values where the injections are zero."""
        market, point = self.market, self.point
        power = self.x[market.network_columns[interval]]
        with self.clock.phase("gradients"):
            bound = market.spread(point.limit_gradients(np.full(len(limit), interval), limit, market.nodes))
        real, reactive = (g[[interval]] for g in self.import_gradients)
        gradient = np.concatenate([real, reactive, bound])
        value = np.concatenate(
            [[point.import_pu[interval].real, point.import_pu[interval].imag], point.limit_value[interval, limit]]
        )
        base = value - (gradient * power).sum(axis=(1, 2))
        first = np.zeros(1, dtype=np.int64)
        rows = sparse.vstack(
            [
                market.network_rows(first, -real, "import_p"),
                market.network_rows(first, -reactive, "import_q"),
                market.network_rows(np.zeros(len(limit), dtype=np.int64), bound),
            ]
        )
        return sparse.csr_array(sparse.csr_array(rows)[:, : market.width]), base

    def _hessian(self, interval: int) -> FloatArray:
        """Convex part of the curvature by all columns of one interval, (width, width)."""
        market = self.market
        position = np.full(self.x.shape, -1)
        movable = (market.columns.lower[interval] < market.columns.upper[interval]).nonzero()[0]
        position[interval * market.width + movable] = movable
        with self.clock.phase("gradients"):
            place, block = injection_hessian(market, self.lagrangian, interval, position)
        value, vector = np.linalg.eigh(block)
        full = np.zeros((market.width, market.width))
        full[np.ix_(place, place)] = (vector * np.maximum(value, 0.0)) @ vector.T
        return full
