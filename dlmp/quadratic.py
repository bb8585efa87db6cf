"""The quadratic model of the intervals that must be solved together: linearised rows, exact curvature; solved by PIQP.

It finds the active sets that the Newton finish needs where correcting them step by step goes in
circles.  Curvature that is not convex (of voltage limits, or at a negative price) is cut off: the
Newton finish that follows uses the true one.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dlmp.formulation.interface import Formulation, Lagrangian, OperatingPoint, Weights
from dlmp.formulation.market_lp import MarketLp, from_blocks
from dlmp.formulation.network_rows import PREDICTED, worth_watching
from dlmp.formulation.softness import Slack, Softness, StateArray, slack_columns, with_slack
from dlmp.holding import Held, solve_held
from dlmp.network.model import FloatArray, IntArray
from dlmp.solve import BASIC, QP_TOLERANCE, LinearProgram, QpMethod, QpSolution, StatusArray
from dlmp.timing import PhaseClock

MOST_USES = 4
NEAR_ROW = 0.03
"""Rows of the market farther from their bounds [pu], such as most sides of the circles, stay out of the model."""


@dataclass(frozen=True)
class Effort:
    """How exactly to solve a quadratic model.

    Parameters
    ----------
    rounds
        How often to solve it at most, each time with the limits that the last solution is predicted to break.
    few
        So many corrections of limits, rows and held columns in a group of intervals need no other round.
    tolerance
        Of the interior point method.
    """

    rounds: int = 8
    few: int = 0
    tolerance: float = QP_TOLERANCE


@dataclass(frozen=True, eq=False)
class QuadraticSolution:
    """The optimum of k intervals: of width columns and r rows each.

    Parameters
    ----------
    intervals
        (k,) Which.
    x, column
        (k, width) Values and states of the columns.
    row, row_dual
        (k, r) States (-1, 0, 1) and duals of the market's rows.
    import_dual
        (k, 2) Duals of real and reactive import.
    limit_dual
        (s, l) Duals of the limits in the states of these intervals, 0 where they do not bind.
    excess
        (s, l) How far limits are above their upper, or if negative below their lower bound [pu].
    is_wrong
        (k, width) True for the columns that were held and would rather move.
    """

    intervals: IntArray
    x: FloatArray
    column: StatusArray
    row: StatusArray
    row_dual: FloatArray
    import_dual: FloatArray
    limit_dual: FloatArray
    excess: FloatArray
    is_wrong: npt.NDArray[np.bool_]


class Curvature:
    """Second derivatives of the Lagrangian by the injections, kept from step to step.

    Attributes
    ----------
    movable, likely
        (states, 2, r) Injections with room to move, and those that are made along with any others.

    Notes
    -----
    They change slowly: a step with somewhat old ones still goes nearly all the way, for the first derivatives are
    always new.  A block is made again after `MOST_USES` steps, and when an injection is wanted that it lacks.
    """

    def __init__(self, market: MarketLp):
        self.market = market
        self._pattern = abs(market.by_column)
        self.movable = self._moved_by(market.is_movable)
        self.likely = np.zeros_like(self.movable)
        self._known: dict[int, tuple[npt.NDArray[np.bool_], FloatArray, int]] = {}

    def wanted(self, column: StatusArray) -> npt.NDArray[np.bool_]:
        """(states, 2, r) Injections that can move when the columns with status `BASIC` do.

        An injection that is the sum of what feeds it stays without a free part, whatever its own status.  Only
        reactive power may be free by itself.
        """
        market = self.market
        is_free = (column == BASIC) & market.is_movable
        power = market.network_columns
        is_fed = np.zeros(power.shape, bool)
        is_fed[:, 1] = ~np.isin(np.arange(power.shape[2]), market.case.reactive_bids.resource)
        for name, (part, resource) in market.feeds.items():
            np.logical_or.at(is_fed[:, part].T, resource, is_free[market.block(name)].T)
        is_free[power] &= is_fed
        return self._moved_by(is_free)

    def _moved_by(self, columns: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """(states, 2, r) Injections that the `columns` are part of."""
        market = self.market
        moved = self._pattern @ columns.astype(float) > 0
        return np.asarray(moved).reshape(len(market.state_interval), 2, len(market.case.resources))

    def expire(self, intervals: IntArray) -> None:
        """Make the blocks of the states of `intervals` again when they are next wanted."""
        for state in np.flatnonzero(np.isin(self.market.state_interval, intervals)).tolist():
            if state in self._known:
                known, whole, _ = self._known[state]
                self._known[state] = (known, whole, MOST_USES)

    def blocks(self, lagrangian: Lagrangian, states: IntArray, wanted: npt.NDArray[np.bool_]) -> dict[int, FloatArray]:
        """(i, i) Derivatives in each of `states` by the `wanted` (states, 2, r) injections, real before reactive.

        In currency/MWh/pu.
        """
        stale, needed = [], np.zeros_like(self.likely[0])
        for state in states.tolist():
            known, _, uses = self._known.setdefault(state, (np.zeros_like(needed), np.zeros((0, 0)), 0))
            if (wanted[state] & ~known).any():
                stale.append(state)
                needed |= wanted[state] | known | self.likely[state]
            elif uses >= MOST_USES:
                stale.append(state)
                needed |= wanted[state]
        if stale:
            reactive, resource = np.nonzero(needed)
            share = self.market.case.resources.share[resource]
            made = lagrangian.hessians(np.array(stale), share, reactive == 1)
            self._known.update({state: (needed, whole, 0) for state, whole in zip(stale, made, strict=True)})
        return {state: self._part(state, wanted[state]) for state in states.tolist()}

    def _part(self, state: int, wanted: npt.NDArray[np.bool_]) -> FloatArray:
        """The `wanted` part of a block that is known, which has been used once more."""
        known, whole, uses = self._known[state]
        self._known[state] = (known, whole, uses + 1)
        place = np.flatnonzero(wanted[known])
        return whole[np.ix_(place, place)]


class QuadraticModel:
    """Quadratic models of all intervals around a dispatch `x` and its state.

    Only the likely injections have their curvature, as scheduled and in the called states whose limits weigh: the
    others move all the way or not at all.
    """

    def __init__(
        self,
        market: MarketLp,
        formulation: Formulation,
        x: FloatArray,
        point: OperatingPoint,
        weights: Weights,
        held: Held,
        curvature: Curvature,
        effort: Effort,
        clock: PhaseClock,
    ):
        self.market, self.formulation, self.x, self.point, self.clock = market, formulation, x, point, clock
        self.weights, self.held, self.effort = weights, held, effort
        self.softness = Softness.of(formulation.limits, market.penalties)
        self.curvature = curvature
        self._limit_weights = weights.limits.toarray()
        self.lagrangian = point.lagrangian(weights)
        self._hessian = sparse.csr_array((len(x), len(x)))
        every = np.arange(market.intervals)
        self.import_gradients = [market.spread(g) for g in point.import_gradients(market.ports, every)]

    def solve_all(self, intervals: IntArray, state: StateArray) -> list[QuadraticSolution]:
        """Minimise the model of each group of intervals, adding limits until its solution is predicted to keep all.

        Parameters
        ----------
        intervals
            Which.
        state
            (states, k) States of the limits: the model begins with those that bind or are broken, and those that are
            near their bound.

        Returns
        -------
        A solution for each group that has one.
        """
        market, limits = self.market, self.formulation.limits
        with self.clock.phase("gradients"):
            curving = np.isin(market.state_interval, intervals) & self.weights.curving(market.intervals)
            blocks = self.curvature.blocks(self.lagrangian, np.flatnonzero(curving), self.curvature.likely)
            self._hessian = self._convex_hessian(blocks, intervals)
        excess = self.softness.excess_at(state, self.point.limit_value)
        watched = (state != 0) | worth_watching(limits, self.point.limit_value - excess)
        reached = self._reached(self.x)
        solutions: dict[int, QuadraticSolution] = {}
        x = self.x.copy()
        unsolved = market.groups(intervals)
        for _ in range(self.effort.rounds):
            for group in unsolved:
                states = np.isin(market.state_interval, group)
                found = self._solve(group, watched, reached, is_soft=bool(excess[states].any()))
                if found is None:
                    solutions.pop(int(group[0]), None)
                    continue
                solutions[int(group[0])] = found
                x.reshape(-1, market.width)[group], excess[states] = found.x, found.excess
            predicted = self.point.predicted_limits(market.injection(x))
            new = worth_watching(limits, predicted - excess, margin=-PREDICTED) & ~watched
            crossed = (self._reached(x, margin=-PREDICTED) & ~reached).reshape(market.intervals, -1)
            wrong = self._held_wrongly(solutions.values())
            count = crossed.sum(axis=1) + wrong.sum(axis=1)
            np.add.at(count, market.state_interval, new.sum(axis=1))
            unsolved = [
                found.intervals for found in solutions.values() if count[found.intervals].sum() > self.effort.few
            ]
            if not unsolved:
                break
            watched |= new
            reached |= self._reached(x)
            self.held = replace(self.held, is_held=self.held.is_held & ~wrong.ravel())
        return list(solutions.values())

    def _held_wrongly(self, solutions: Iterable[QuadraticSolution]) -> npt.NDArray[np.bool_]:
        """(t, width) True for the held columns that would leave their bound in `solutions`."""
        wrong = np.zeros((self.market.intervals, self.market.width), bool)
        for found in solutions:
            wrong[found.intervals] = found.is_wrong
        return wrong

    def _reached(self, x: FloatArray, margin: float = NEAR_ROW) -> npt.NDArray[np.bool_]:
        """(rows,) True for the market's rows that dispatch `x` breaks or is within a `margin` [pu] of."""
        market = self.market
        value = market.matrix @ x
        return np.asarray(np.minimum(value - market.row_lower, market.row_upper - value) <= margin)

    def _solve(
        self, group: IntArray, watched: npt.NDArray[np.bool_], reached: npt.NDArray[np.bool_], *, is_soft: bool
    ) -> QuadraticSolution | None:
        """Minimise the model of the intervals `group` under the `watched` limits and `reached` rows of the market.

        None if it has no optimum.  Where it has none with all limits hard, or only at more than to break them, they
        are soft.
        """
        market, limits, count = self.market, self.formulation.limits, len(self.market.template.row_lower)
        columns = (group[:, None] * market.width + np.arange(market.width)).ravel()
        every = (group[:, None] * count + np.arange(count)).ravel()
        kept = reached[every]
        own = every[kept]
        states = np.flatnonzero(np.isin(market.state_interval, group))
        place, limit = np.nonzero(watched[states])
        rows, base = self._rows(group, states[place], limit)
        bound = base[2 * len(group) :]
        hessian = sparse.csc_array(self._hessian[columns][:, columns])
        problem = LinearProgram(
            market.columns.cost[group].ravel() - hessian @ self.x[columns],
            market.columns.lower[group].ravel(),
            market.columns.upper[group].ravel(),
            sparse.csr_array(sparse.vstack([market.matrix[own], rows]))[:, columns],
            np.concatenate([market.row_lower[own], base[: 2 * len(group)], limits.lower[limit] - bound]),
            np.concatenate([market.row_upper[own], base[: 2 * len(group)], limits.upper[limit] - bound]),
        )
        steepest = abs(rows[2 * len(group) :]).max(axis=1).toarray().ravel()
        slack = slack_columns(self.softness, place, limit, steepest) if is_soft else None
        with self.clock.phase("solver"):
            slope = sparse.diags_array(market.columns.slope[group].ravel())
            curved = sparse.csc_array(hessian + slope)
            held = self._held(group, columns, own, states[place], limit)
            stages = _Stages(group, market.state_interval[states])
            method = QpMethod(in_stages=len(group) > 1, tolerance=self.effort.tolerance)
            found = _optimum(problem, curved, held, slack, stages, method)
            if found is None and held.is_held.any():
                found = _optimum(problem, curved, held.released(), slack, stages, method)
        limit_dual, excess = np.zeros((2, len(states), len(limits)))
        if found is not None:
            limit_dual[place, limit] = found.row_dual[len(own) + 2 * len(group) :]
        is_too_dear = found is None or self.softness.is_exceeded_by(sparse.csr_array(limit_dual))
        if is_too_dear and not is_soft and self.softness.is_soft.any():
            return self._solve(group, watched, reached, is_soft=True)
        if found is None:
            return None
        if slack is not None:
            excess = slack.excess(found.x[len(columns) :], self.softness, len(states))
        of_rows, of_import, _ = np.split(found.row_dual, [len(own), len(own) + 2 * len(group)])
        row, row_dual = np.zeros(len(every), dtype=np.int8), np.zeros(len(every))
        row[kept], row_dual[kept] = found.row[: len(own)], of_rows
        return QuadraticSolution(
            group,
            found.x[: len(columns)].reshape(len(group), -1),
            found.column[: len(columns)].reshape(len(group), -1),
            row.reshape(len(group), -1),
            row_dual.reshape(len(group), -1),
            of_import.reshape(2, -1).T,
            limit_dual,
            excess,
            held.is_held_wrongly(problem, curved, found).reshape(len(group), -1),
        )

    def _held(self, group: IntArray, columns: IntArray, own: IntArray, state: IntArray, limit: IntArray) -> Held:
        """What is held of the `columns` and `own` rows of the market, and known of the rows of the network."""
        held, weights = self.held, self.weights
        dual = np.concatenate([weights.import_p[group], weights.import_q[group], self._limit_weights[state, limit]])
        return Held(
            held.is_held[columns],
            held.may_follow[columns],
            held.is_sum[columns],
            held.column[columns],
            np.concatenate([held.row[own], np.sign(dual).astype(np.int8)]),
            np.concatenate([held.row_dual[own], dual]),
        )

    def _rows(self, group: IntArray, state: IntArray, limit: IntArray) -> tuple[sparse.csr_array, FloatArray]:
        """Import rows of the intervals `group`, rows of limits in `state`, and their values without injections."""
        market, point = self.market, self.point
        with self.clock.phase("gradients"):
            bound = market.spread(point.limit_gradients(state, limit, market.ports))
        real, reactive = (gradients[group] for gradients in self.import_gradients)
        gradient = np.concatenate([real, reactive, bound])
        value = np.concatenate(
            [point.import_pu.real[group], point.import_pu.imag[group], point.limit_value[state, limit]]
        )
        power = market.power(self.x)[np.concatenate([group, group, state])]
        rows = sparse.vstack(
            [
                market.network_rows(group, -real, "import_p"),
                market.network_rows(group, -reactive, "import_q"),
                market.network_rows(state, bound),
            ]
        )
        return sparse.csr_array(rows), value - (gradient * power).sum(axis=(1, 2))

    def _convex_hessian(self, blocks: dict[int, FloatArray], intervals: IntArray) -> sparse.csr_array:
        """Convex part of the curvature by all columns, of the `blocks` of the states of each of `intervals` together.

        Where one state curves downwards and another upwards, only what is left of both is cut off.
        """
        market = self.market
        whole = market.curvature(blocks, self.curvature.likely)
        curved = np.diff(whole.indptr) > 0
        first = intervals * market.width
        places = (start + np.flatnonzero(curved[start : start + market.width]) for start in first.tolist())
        return from_blocks(((own, _convex_part(whole[own][:, own].toarray())) for own in places), len(curved))


def _convex_part(matrix: FloatArray) -> FloatArray:
    """The positive semidefinite part of a symmetric `matrix`."""
    value, vector = np.linalg.eigh(matrix)
    return np.asarray((vector * np.maximum(value, 0.0)) @ vector.T)


@dataclass(frozen=True, eq=False)
class _Stages:
    """The k intervals of a programme, and (s,) that of each of its states."""

    intervals: IntArray
    of_state: IntArray


def _optimum(
    problem: LinearProgram,
    hessian: sparse.csc_array,
    held: Held,
    slack: Slack | None,
    stages: _Stages,
    method: QpMethod,
) -> QpSolution | None:
    """Solve the programme with the columns of `slack`, which come back behind all others."""
    if slack is None:
        return solve_held(problem, hessian, held, method)
    width, count = len(problem.cost) // len(stages.intervals), len(slack.key)
    whole = sparse.csc_array(sparse.block_diag([hessian, sparse.csc_array((count, count))]))
    soft, held = with_slack(problem, slack), held.with_free_columns(count)
    owner = np.concatenate([np.repeat(stages.intervals, width), stages.of_state[slack.state]])
    by_interval = np.argsort(owner, kind="stable")
    sorted_by_interval = LinearProgram(
        soft.cost[by_interval],
        soft.lower[by_interval],
        soft.upper[by_interval],
        soft.matrix[:, by_interval],
        soft.row_lower,
        soft.row_upper,
    )
    found = solve_held(sorted_by_interval, whole[by_interval][:, by_interval], held.ordered(by_interval), method)
    back = np.argsort(by_interval)
    return None if found is None else replace(found, x=found.x[back], column=found.column[back])
