"""The quadratic model of the intervals that must be solved together: linearised rows and curvature; solved by PIQP.

It finds the active sets that the Newton finish needs where correcting them step by step goes in
circles.  Curvature that is not convex (of voltage limits, or at a negative price) is cut off: the
Newton finish that follows uses the true one.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dlmp.formulation.interface import Formulation, OperatingPoint, Weights
from dlmp.formulation.market_lp import MarketLp
from dlmp.formulation.network_rows import PREDICTED, worth_watching
from dlmp.formulation.softness import Slack, Softness, StateArray, slack_columns, with_slack
from dlmp.holding import Held, solve_held
from dlmp.network.model import FloatArray, IntArray
from dlmp.networkmodel import NetworkModel, NetworkPart
from dlmp.solve import QP_TOLERANCE, LinearProgram, QpMethod, QpSolution, StatusArray
from dlmp.timing import PhaseClock

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


class QuadraticModel:
    """Quadratic models of all intervals around a dispatch `x` and its state.

    Only what its `network` says has curvature: the other injections move all the way or not at all.
    """

    def __init__(
        self,
        market: MarketLp,
        formulation: Formulation,
        x: FloatArray,
        point: OperatingPoint,
        weights: Weights,
        held: Held,
        network: NetworkModel,
        effort: Effort,
        clock: PhaseClock,
    ):
        self.market, self.formulation, self.x, self.point, self.clock = market, formulation, x, point, clock
        self.weights, self.held, self.network, self.effort = weights, held, network, effort
        self.softness = Softness.of(formulation.limits, market.penalties)
        self._limit_weights = weights.limits.toarray()

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
            self.network.prepare(intervals)
        excess = self.softness.excess_at(state, self.point.limit_value)
        most = self.network.most_limits
        watched = (state != 0) | worth_watching(limits, self.point.limit_value - excess, most=most)
        reached = self._reached(self.x)
        solutions: dict[int, QuadraticSolution] = {}
        x = self.x.copy()
        unsolved = market.groups(intervals)
        begins_soft = self.network.begins_soft and bool(self.softness.is_soft.any())
        for _ in range(self.effort.rounds):
            for group in unsolved:
                states = np.isin(market.state_interval, group)
                found = self._solve(group, watched, reached, is_soft=begins_soft or bool(excess[states].any()))
                if found is None:
                    solutions.pop(int(group[0]), None)
                    continue
                solutions[int(group[0])] = found
                x.reshape(-1, market.width)[group], excess[states] = found.x, found.excess
            predicted = self.point.predicted_limits(market.injection(x))
            new = worth_watching(limits, predicted - excess, -PREDICTED, most) & ~watched
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
        with self.clock.phase("gradients"):
            part = self.network.part(group, columns, states[place], limit)
        imported, bound = part.base[: 2 * len(group)], part.base[2 * len(group) :]
        unknowns, unbounded = part.unknowns, np.full(part.unknowns, np.inf)
        of_market = sparse.hstack([market.matrix[own][:, columns], sparse.csr_array((len(own), unknowns))])
        problem = LinearProgram(
            np.concatenate([market.columns.cost[group].ravel(), np.zeros(unknowns)]) - part.slope_at_start,
            np.concatenate([market.columns.lower[group].ravel(), -unbounded]),
            np.concatenate([market.columns.upper[group].ravel(), unbounded]),
            sparse.csr_array(sparse.vstack([of_market, part.equations, part.rows])),
            np.concatenate([market.row_lower[own], part.equal_to, imported, limits.lower[limit] - bound]),
            np.concatenate([market.row_upper[own], part.equal_to, imported, limits.upper[limit] - bound]),
        )
        slack = slack_columns(self.softness, place, limit, part.steepest) if is_soft else None
        with self.clock.phase("solver"):
            slope = np.concatenate([market.columns.slope[group].ravel(), np.zeros(unknowns)])
            curved = sparse.csc_array(part.hessian + sparse.diags_array(slope))
            held = self._held(group, columns, own, part, states[place], limit)
            stages = _Stages(group, market.state_interval[states])
            tolerance = max(self.effort.tolerance, QP_TOLERANCE) if unknowns else self.effort.tolerance
            method = QpMethod(in_stages=len(group) > 1, tolerance=tolerance, has_states=unknowns > 0)
            found = _optimum(problem, curved, held, slack, stages, method)
            if found is None and held.is_held.any():
                found = _optimum(problem, curved, held.released(), slack, stages, method)
        width, before = len(columns), len(own) + len(part.equal_to)
        limit_dual, excess = np.zeros((2, len(states), len(limits)))
        if found is not None:
            value = part.rows[2 * len(group) :] @ found.x[: width + unknowns] + bound
            room = np.minimum(value - limits.lower[limit], limits.upper[limit] - value)
            of_limits = found.row_dual[before + 2 * len(group) :]
            # Both in terms of power: that is what duals and rooms of other rows are measured in.
            binds = np.abs(of_limits) * part.steepest > room / np.where(part.steepest > 0, part.steepest, 1.0)
            limit_dual[place, limit] = np.where(binds, of_limits, 0.0)
        is_too_dear = found is None or self.softness.is_exceeded_by(sparse.csr_array(limit_dual))
        if is_too_dear and not is_soft and self.softness.is_soft.any():
            return self._solve(group, watched, reached, is_soft=True)
        if found is None:
            return None
        if slack is not None:
            excess = slack.excess(found.x[width + unknowns :], self.softness, len(states))
        of_rows, _, of_import, _ = np.split(found.row_dual, [len(own), before, before + 2 * len(group)])
        row, row_dual = np.zeros(len(every), dtype=np.int8), np.zeros(len(every))
        row[kept], row_dual[kept] = found.row[: len(own)], of_rows
        return QuadraticSolution(
            group,
            found.x[:width].reshape(len(group), -1),
            found.column[:width].reshape(len(group), -1),
            row.reshape(len(group), -1),
            row_dual.reshape(len(group), -1),
            of_import.reshape(2, -1).T,
            limit_dual,
            excess,
            held.is_held_wrongly(problem, curved, found)[:width].reshape(len(group), -1),
        )

    def _held(
        self, group: IntArray, columns: IntArray, own: IntArray, part: NetworkPart, state: IntArray, limit: IntArray
    ) -> Held:
        """What is held of the `columns` and `own` rows of the market, and known of the rows of the network."""
        held, weights = self.held, self.weights
        known = [weights.import_p[group], weights.import_q[group], self._limit_weights[state, limit]]
        dual = np.concatenate([np.zeros(len(part.equal_to)), *known])
        return Held(
            held.is_held[columns],
            held.may_follow[columns],
            held.is_sum[columns],
            held.column[columns],
            np.concatenate([held.row[own], np.sign(dual).astype(np.int8)]),
            np.concatenate([held.row_dual[own], dual]),
        ).with_free_columns(part.unknowns)


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
