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
MOST_USES = 4
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


class Curvature:
    """Second derivatives of the Lagrangian by the injections, kept from step to step.

    Attributes
    ----------
    movable, likely
        (t, 2, r) Injections with room to move, and those that are made along with any others.

    Notes
    -----
    They change slowly: a step with somewhat old ones still goes nearly all the way, for the first derivatives are
    always new.  A block is made again after `MOST_USES` steps, and when an injection is wanted that it lacks.
    """

    def __init__(self, market: MarketLp):
        self.market = market
        self.movable = market.is_movable[market.network_columns]
        self.likely = np.zeros_like(self.movable)
        self._known: dict[int, tuple[npt.NDArray[np.bool_], FloatArray, int]] = {}

    def wanted(self, column: StatusArray) -> npt.NDArray[np.bool_]:
        """(t, 2, r) Injections that can move when the columns with status `BASIC` do.

        A real injection is the sum of its awards: without a free one it stays, whatever its own status.
        """
        is_free = (column == BASIC) & self.market.is_movable
        wanted = self.movable & is_free[self.market.network_columns]
        by_award = np.zeros_like(wanted[:, 0])
        award = is_free[self.market.block("award")]
        np.logical_or.at(by_award.T, self.market.case.bids.resource, award.T)
        wanted[:, 0] &= by_award
        return wanted

    def expire(self, intervals: IntArray) -> None:
        """Make the blocks of `intervals` again when they are next wanted."""
        for interval in intervals.tolist():
            known, whole, _ = self._known[interval]
            self._known[interval] = (known, whole, MOST_USES)

    def blocks(
        self, lagrangian: Lagrangian, intervals: IntArray, wanted: npt.NDArray[np.bool_]
    ) -> dict[int, FloatArray]:
        """(i, i) Derivatives in each interval by the `wanted` (t, 2, r) injections, real before reactive.

        In currency/MWh/pu.
        """
        stale, needed = [], np.zeros_like(self.likely[0])
        for interval in intervals.tolist():
            known, _, uses = self._known.setdefault(interval, (np.zeros_like(needed), np.zeros((0, 0)), 0))
            if (wanted[interval] & ~known).any():
                stale.append(interval)
                needed |= wanted[interval] | known | self.likely[interval]
            elif uses >= MOST_USES:
                stale.append(interval)
                needed |= wanted[interval]
        if stale:
            reactive, resource = np.nonzero(needed)
            share = self.market.case.resources.share[resource]
            made = lagrangian.hessians(np.array(stale), share, reactive == 1)
            self._known.update({interval: (needed, whole, 0) for interval, whole in zip(stale, made, strict=True)})
        return {interval: self._part(interval, wanted[interval]) for interval in intervals.tolist()}

    def _part(self, interval: int, wanted: npt.NDArray[np.bool_]) -> FloatArray:
        """The `wanted` part of a block that is known, which has been used once more."""
        known, whole, uses = self._known[interval]
        self._known[interval] = (known, whole, uses + 1)
        place = np.flatnonzero(wanted[known])
        return whole[np.ix_(place, place)]


class QuadraticModel:
    """Quadratic models of all intervals around a dispatch `x` and its state.

    Only the likely injections have their curvature: the others move all the way or not at all.
    """

    def __init__(
        self,
        market: MarketLp,
        formulation: Formulation,
        x: FloatArray,
        point: OperatingPoint,
        weights: Weights,
        curvature: Curvature,
        clock: PhaseClock,
    ):
        self.market, self.formulation, self.x, self.point, self.clock = market, formulation, x, point, clock
        self.curvature = curvature
        self.lagrangian = point.lagrangian(weights)
        self._curved: dict[int, FloatArray] = {}
        self.import_gradients = [market.spread(g) for g in point.import_gradients(market.ports)]

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
        with self.clock.phase("gradients"):
            self._curved = self.curvature.blocks(self.lagrangian, intervals, self.curvature.likely)
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
            bound = market.spread(point.limit_gradients(np.full(len(limit), interval), limit, market.ports))
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
        place = market.network_columns[interval][self.curvature.likely[interval]] - interval * market.width
        value, vector = np.linalg.eigh(self._curved[interval])
        full = np.zeros((market.width, market.width))
        full[np.ix_(place, place)] = (vector * np.maximum(value, 0.0)) @ vector.T
        return full
