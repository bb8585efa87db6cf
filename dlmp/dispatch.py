"""The passes: linearise, solve the LP, look at the AC state, repeat; then finish by Newton.

Each pass solves one LP with the tangents of all points so far (`dlmp.formulation.network_rows`).
After each the Newton finish is tried from the LP's basis; it ends the clearing when it meets the
optimality conditions; the intervals where it fails go on with the next pass.  A linear
network with bids in blocks needs no finish: its LP is exact.

A dispatch may begin where another one ended (`dlmp.learned`).  Then the finish is tried before the first LP, and so it
is where very many injections are free: its quadratic programmes are as sparse as the network, the LPs are not.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dlmp.conflicts import NetworkRowKeys, avoidable, find_conflicts
from dlmp.elastic import elastic_programme, import_violation, price_scale, shortage
from dlmp.errors import InfeasibleError, LimitConflict, PowerFlowError, SolverError
from dlmp.formulation.interface import Formulation, OperatingPoint, Weights
from dlmp.formulation.market_lp import MarketLp
from dlmp.formulation.network_rows import FIRST_LIMIT_KEY, NetworkRows, limit_of, violation
from dlmp.formulation.softness import Slack, with_slack
from dlmp.learned import AT_BOUND_PU, KeyedBasis, Learned
from dlmp.network.model import FloatArray
from dlmp.newton import Optimum, keeps_states, newton_finish
from dlmp.optimality import ActiveSet, Multipliers
from dlmp.settings import Settings
from dlmp.slices import Slices
from dlmp.solve import AT_LOWER, AT_UPPER, BASIC, Basis, LinearProgram, LpSolution, StatusArray, solve_lp
from dlmp.timing import PhaseClock

STALLED_PASSES, STALLED_SHARE = 4, 0.05
"""The elastic LP must break 5 % less within 4 passes, or the case is infeasible."""
MAX_ROUNDS = 10
"""Most rounds of predicted limits in a pass."""
PASSES_WITH_STATES = 3
"""Passes after which the Newton finish is to do without the network's states as columns."""
SMALLEST_SHARE = 1e-3
"""Smallest part of an LP's step that is tried where the power flow fails."""
INVENTED_PU = 1e-6
"""LP import above the AC import by more than this, relative, is a loss that the relaxation invented."""


@dataclass(frozen=True)
class PassReport:
    """How far a pass came.

    Parameters
    ----------
    number
        Pass, from 1.
    step_pu
        Largest change of any resource's power [pu].
    violation_pu
        Largest violation of any limit in the AC state, beyond what penalties allow [pu].
    mismatch_pu
        Largest difference between the LP's and the AC import, real and reactive [pu].
    finished
        True for the pass that ended a dispatch: the clearing, or one that is followed by another because a call is
        unsafe or a store goes both ways.
    """

    number: int
    step_pu: float
    violation_pu: float
    mismatch_pu: float
    finished: bool = False


@dataclass(frozen=True, eq=False)
class Dispatch:
    """The outcome of the passes.

    Parameters
    ----------
    market, formulation
        The problem.
    x, point
        Dispatch and network state.
    weights, row_dual
        Marginal cost of import and multipliers of limits; duals of the market's rows.
    converged
        True when the optimality conditions hold to the settings' tolerances.
    reports
        One per pass.
    lp_solves
        LPs solved; a pass solves one more for each round of limits that it adds.
    error_usd_per_mwh
        Largest error of the optimality conditions at the free variables.
    excess
        (states, k) How far each limit is above its upper bound, or if negative below its lower, because that costs less
        than to keep it [pu].
    avoidable
        (t,) True where limits are broken though, to first order, a dearer dispatch keeps them all.
    learned
        What the next dispatch may begin with.
    """

    market: MarketLp
    formulation: Formulation
    x: FloatArray
    point: OperatingPoint
    weights: Weights
    row_dual: FloatArray
    converged: bool
    reports: tuple[PassReport, ...]
    lp_solves: int
    error_usd_per_mwh: float
    excess: FloatArray
    avoidable: npt.NDArray[np.bool_]
    learned: Learned


def dispatch(
    market: MarketLp,
    formulation: Formulation,
    settings: Settings,
    clock: PhaseClock,
    progress: Callable[[PassReport], None] | None = None,
    start: Dispatch | None = None,
) -> Dispatch:
    """Find the least-cost dispatch of `market` on the network of `formulation`.

    Parameters
    ----------
    market, formulation
        The problem.
    settings
        Tolerances.
    clock
        Takes the CPU time of each phase.
    progress
        Called after each pass; default: silent.
    start
        Where to begin: a dispatch of the same market with fewer called states, or with other bounds of columns.  Its
        passes and LPs count with those of this one.  Default: without awards.

    Raises
    ------
    InfeasibleError
        When no dispatch keeps the limits.
    PowerFlowError
        When there is no AC state to begin with.
    """
    return _Passes(market, formulation, settings, clock, start).run(progress)


class _Passes:
    """The search: where it stands, and what it has learned of the network."""

    def __init__(
        self,
        market: MarketLp,
        formulation: Formulation,
        settings: Settings,
        clock: PhaseClock,
        start: Dispatch | None,
    ):
        self.market, self.formulation = market, formulation
        self.settings, self.clock = settings, clock
        self.is_linear = formulation.is_linear and not market.is_quadratic
        self.reports: list[PassReport] = [] if start is None else list(start.reports)
        self.passes_before = len(self.reports)
        self.lp_solves = 0 if start is None else start.lp_solves
        with clock.phase("power_flow"):
            learned = None if start is None else start.learned.given_to(market, formulation)
        if learned is None:
            self.rows = NetworkRows(market, formulation)
            self.x = market.start
            self.point = self._first_point()
            self.basis: KeyedBasis | None = None
            self.optimum: Optimum | None = None
        else:
            self.rows, self.x, self.point = learned.rows, learned.x, learned.point
            self.basis, self.optimum = learned.basis, learned.optimum
        self.slack: Slack | None = self.rows.slack() if self.rows.excess.any() else None
        self.weights = Weights.zero(len(market.state_interval), len(formulation.limits))
        self.row_dual = np.zeros(0)
        self.error_usd_per_mwh = np.inf
        self.radius = np.full(market.intervals, np.inf)
        self.last_step = np.zeros(market.network_columns.shape)
        self.unmet: list[float] = []
        self.is_damped = np.zeros(market.intervals, bool)

    def _first_point(self) -> OperatingPoint:
        """Find the state without awards, or with all supply where the feeder cannot carry its load alone."""
        market, formulation = self.market, self.formulation
        with self.clock.phase("power_flow"):
            point = formulation.operate(market.injection(self.x))
            if not point.converged.all():
                alone = np.repeat(~market.intervals_of(~point.converged), market.width)
                self.x = np.where(alone, self.x, market.full_supply)
                point = formulation.operate(market.injection(self.x))
        lost = np.flatnonzero(market.intervals_of(~point.converged)).tolist()
        if lost:
            raise PowerFlowError(
                f"the AC power flow has no solution in intervals {lost}, neither without bids nor with all supply: "
                "the load is beyond what the feeder can carry; check the units of loads and impedances"
            )
        return point

    def run(self, progress: Callable[[PassReport], None] | None) -> Dispatch:
        """Pass after pass until the optimality conditions hold or the passes are used up."""
        report = self._resume()
        for _ in range(self.settings.max_passes):
            if report is None:
                report = self._pass()
            self.reports.append(report)
            if progress is not None:
                progress(report)
            if report.finished:
                break
            report = None
        excess = self.rows.excess
        return Dispatch(
            self.market,
            self.formulation,
            self.x,
            self.point,
            self.weights,
            self.row_dual,
            self.reports[-1].finished,
            tuple(self.reports),
            self.lp_solves,
            self.error_usd_per_mwh,
            np.where(np.abs(excess) > self.settings.tolerance_pu, excess, 0.0),
            self._avoidable(),
            Learned(self.market, self.x, self.point, self.rows, self.basis, self.optimum),
        )

    def _resume(self) -> PassReport | None:
        """Go to the optimum by the Newton finish alone; None where that does not do.

        From an optimum of before, or at once where the finish needs no gradients by all injections: an LP does.
        """
        market = self.market
        if self.optimum is not None:
            active, multipliers = self.optimum.active, self.optimum.multipliers
            self.optimum = self._finish(active.copy(), multipliers.copy())
        elif not self.is_linear and keeps_states(market, self.point):
            bought = np.zeros((2, len(market.state_interval)))
            bought[0, : market.intervals] = market.case.substation.price_usd_per_mwh
            row, limit = np.zeros(len(market.row_lower)), np.zeros((bought.shape[1], len(self.formulation.limits)))
            active = ActiveSet(np.full(len(self.x), BASIC, dtype=np.int8), row.astype(np.int8), limit.astype(np.int8))
            self.optimum = self._finish(active, Multipliers(row, bought[0], bought[1], limit), has_basis=False)
        else:
            return None
        if not self.optimum.is_open.any():
            return self._ended(self.optimum, self.x)
        self._take_solved()
        return None

    def _pass(self) -> PassReport:
        """Linearise, solve the LP, look at the network state of its solution, and try the Newton finish from there."""
        with self.clock.phase("gradients"):
            self.rows.add_point(self.point, self.x, ~self._is_solved())
        solution, keys, is_elastic = self._solve_rounds()
        market_rows = len(self.market.row_lower)
        self.row_dual = solution.row_dual[:market_rows]
        self.weights = self.rows.weights(solution.row_dual[market_rows : market_rows + len(keys)])
        before = self.x
        self._move(solution.x[: len(self.x)])
        report = self._report(before, solution.x)
        if is_elastic:
            self._give_up_if_stalled()
        else:
            self.unmet.clear()
            if not self.is_linear:
                self.optimum = self._finish_from(solution)
                self._take_solved()
            if self.optimum is not None and not self.optimum.is_open.any():
                report = self._ended(self.optimum, before)
            elif self._has_settled(report):
                report, self.error_usd_per_mwh = replace(report, finished=True), 0.0
        if not report.finished:
            self._note_invented_losses(before, solution.x)
        return report

    def _take_solved(self) -> None:
        """Go to the optimum in the intervals that have one, and that nothing couples to others."""
        optimum, solved = self.optimum, self._is_solved()
        if optimum is None or not solved.any():
            return
        states, dual = self.market.states_of(solved), optimum.multipliers
        self.x, self.point = optimum.x, optimum.point
        limit = np.where(states[:, None], dual.limit, self.weights.limits.toarray())
        self.weights = Weights(
            np.where(states, dual.import_p, self.weights.import_p),
            np.where(states, dual.import_q, self.weights.import_q),
            sparse.csr_array(limit),
        )
        row = np.repeat(solved, len(self.market.template.row_lower))
        known = self.row_dual if len(self.row_dual) else np.zeros(len(row))
        self.row_dual = np.where(row, dual.row, known)
        self.rows.excess = np.where(states[:, None], optimum.excess, self.rows.excess)

    def _ended(self, optimum: Optimum, before: FloatArray) -> PassReport:
        """Go to the `optimum`, from the dispatch `before`."""
        self.x, self.point = optimum.x, optimum.point
        self.weights, self.row_dual = optimum.multipliers.weights(), optimum.multipliers.row
        self.error_usd_per_mwh, self.rows.excess = optimum.error_usd_per_mwh, optimum.excess
        report = self._report(before, optimum.x)
        return replace(report, finished=self._is_exact(report))

    def _solve_rounds(self) -> tuple[LpSolution, npt.NDArray[np.int64], bool]:
        """Solve the LP, cut off the limits that its solution is predicted to break, and repeat."""
        for _ in range(MAX_ROUNDS):
            solved = self._solve()
            self.lp_solves += 1
            with self.clock.phase("gradients"):
                if not self.rows.add_predicted(self.point, solved[0].x[: len(self.x)], ~self._is_solved()):
                    return solved
        solved = self._solve()
        self.lp_solves += 1
        return solved

    def _solve(self) -> tuple[LpSolution, npt.NDArray[np.int64], bool]:
        """Solve the LP of this pass, and where its limits conflict the elastic one (last value True).

        Soft limits are hard until that costs more than to break them: until then the LP is the smaller one.
        """
        whole, keys = self._programme()
        whole = self._without_solved(whole)
        slices = Slices.of(whole, self.market.columns.slope.ravel())
        problem = slices.cut(whole)
        width = len(problem.cost)
        with self.clock.phase("solver"):
            solution = self._solve_hard(problem, keys) if self.slack is None else None
        if solution is None and self.rows.softness.is_soft.any():
            self.slack = self.rows.slack()
            problem = with_slack(problem, self.slack)
            with self.clock.phase("solver"):
                solution = solve_lp(problem, self._carried_basis(keys, width), self.settings.time_limit_s)
        is_elastic = solution is None
        if solution is None:
            with self.clock.phase("solver"):
                solution = self._solve_elastic(problem, keys)
        else:
            slack_keys = np.zeros(0, dtype=np.int64) if self.slack is None else self.slack.key
            self.basis = KeyedBasis(solution.basis, keys, slack_keys, width)
        if self.slack is not None:
            excess, solved = self.rows.excess, self.market.states_of(self._is_solved())[:, None]
            self.rows.note_excess(self.slack, solution.x[width : width + len(self.slack.key)])
            self.rows.excess = np.where(solved, excess, self.rows.excess)
        return slices.joined(solution), keys, is_elastic

    def _solve_hard(self, problem: LinearProgram, keys: npt.NDArray[np.int64]) -> LpSolution | None:
        """Solve `problem`; None where that is not possible or its multipliers are above the penalties."""
        solution = solve_lp(problem, self._carried_basis(keys, len(problem.cost)), self.settings.time_limit_s)
        if solution is None:
            return None
        weights = self.rows.weights(solution.row_dual[len(self.market.row_lower) :])
        return None if self.rows.softness.is_exceeded_by(weights.limits) else solution

    def _programme(self) -> tuple[LinearProgram, npt.NDArray[np.int64]]:
        """The LP of this pass with all limits hard, and the keys of its network rows."""
        network, lower, upper, keys = self.rows.matrix()
        columns, market = self.market.columns, self.market
        low, high = self._within_radius(columns.lower.ravel(), columns.upper.ravel())
        problem = LinearProgram(
            columns.cost.ravel(),
            low,
            high,
            sparse.csr_array(sparse.vstack([market.matrix, network])),
            np.concatenate([market.row_lower, lower]),
            np.concatenate([market.row_upper, upper]),
        )
        return problem, keys

    def _within_radius(self, lower: FloatArray, upper: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Bounds of all columns, tightened around the present dispatch in intervals with a step bound."""
        bounded = np.flatnonzero(np.isfinite(self.radius))
        columns = self.market.network_columns[bounded]
        radius = self.radius[bounded][:, None, None]
        lower, upper = lower.copy(), upper.copy()
        lower[columns] = np.maximum(lower[columns], self.x[columns] - radius)
        upper[columns] = np.minimum(upper[columns], self.x[columns] + radius)
        return lower, upper

    def _without_solved(self, problem: LinearProgram) -> LinearProgram:
        """Leave what is solved already where it is, in no row that could bind."""
        market, solved = self.market, self._is_solved()
        if not solved.any():
            return problem
        state = np.concatenate([rows.state for rows in self.rows.all_rows()])
        interval = np.concatenate(
            [np.repeat(np.arange(market.intervals), len(market.template.row_lower)), market.state_interval[state]]
        )
        column, row = np.repeat(solved, market.width), solved[interval]
        return replace(
            problem,
            lower=np.where(column, self.x, problem.lower),
            upper=np.where(column, self.x, problem.upper),
            row_lower=np.where(row, -np.inf, problem.row_lower),
            row_upper=np.where(row, np.inf, problem.row_upper),
        )

    def _is_solved(self) -> npt.NDArray[np.bool_]:
        """(t,) True for the intervals that need no more passes, and that nothing couples to others."""
        is_solved = np.zeros(self.market.intervals, bool) if self.optimum is None else ~self.optimum.is_open
        return ~self.market.together(~is_solved)

    def _carried_basis(self, keys: npt.NDArray[np.int64], width: int) -> Basis | None:
        """The last basis for an LP of `width` columns and network rows of these `keys`; None where there is none."""
        slack_keys = None if self.slack is None else self.slack.key
        return None if self.basis is None else self.basis.given_to(keys, slack_keys, width)

    def _solve_elastic(self, problem: LinearProgram, keys: npt.NDArray[np.int64]) -> LpSolution:
        """Solve with every limit, and every service that must be held ready, breakable at a penalty."""
        elastic = elastic_programme(problem, self.market, is_limit=self._is_hard(keys))
        solution = solve_lp(elastic, None, self.settings.time_limit_s)
        if solution is None:
            raise SolverError(
                "the bids contradict the ranges of their own resources; check p_min_kw and self-schedules against "
                "s_max_kva, power_factor_min and ramps"
            )
        return replace(solution, row_dual=solution.row_dual * price_scale(problem))

    def _avoidable(self) -> npt.NDArray[np.bool_]:
        """(t,) True where limits are broken though, by the tangents at the present point, all could be kept."""
        beyond = self.x[self.market.block("import_beyond")].sum(axis=1) > self.settings.tolerance_pu
        broken = (np.abs(self.rows.excess) > self.settings.tolerance_pu).any(axis=1)
        breaks = beyond | self.market.intervals_of(np.asarray(broken))
        if not (breaks.any() and self.reports[-1].finished):
            return np.zeros_like(breaks)
        problem, _ = self._present_programme()
        slack = self.rows.slack()
        with self.clock.phase("solver"):
            return breaks & avoidable(with_slack(problem, slack), slack, self.market)

    def _conflicts(self) -> list[LimitConflict]:
        """The limits that conflict at the present point."""
        problem, keys = self._present_programme()
        if self.slack is not None:
            problem = with_slack(problem, self.rows.slack())
        state, limit = (
            np.concatenate([getattr(rows, name) for rows in self.rows.all_rows()]) for name in ("state", "limit")
        )
        with self.clock.phase("solver"):
            of_rows = NetworkRowKeys(state, limit, self._is_hard(keys))
            return find_conflicts(problem, self.market, self.formulation, of_rows, self.x, self.point)

    def _present_programme(self) -> tuple[LinearProgram, npt.NDArray[np.int64]]:
        """The LP at the tangents of the present point, of import as an equality, without a bound of steps."""
        self.radius[:], self.rows.is_equality[:] = np.inf, True
        with self.clock.phase("gradients"):
            self.rows.add_point(self.point, self.x)
        return self._programme()

    def _is_hard(self, keys: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """True for the rows of limits that may not be broken."""
        is_hard = keys >= FIRST_LIMIT_KEY
        is_hard[is_hard] = ~self.rows.softness.is_soft[limit_of(keys[is_hard])]
        return is_hard

    def _give_up_if_stalled(self) -> None:
        """Raise when the elastic LPs of the last passes did not lessen what is broken."""
        broken = self._violation().sum() + import_violation(self.market, self.point).sum()
        self.unmet.append(float(broken + shortage(self.market, self.x).sum()))
        recent = self.unmet[-STALLED_PASSES:]
        if len(recent) == STALLED_PASSES and min(recent[1:]) > (1 - STALLED_SHARE) * recent[0]:
            raise InfeasibleError(self._conflicts())

    def _move(self, x: FloatArray) -> None:
        """Go to dispatch `x`, or part of the way where the AC power flow has no solution there."""
        with self.clock.phase("power_flow"):
            share = np.ones(self.market.intervals)
            while True:
                tried = self.x + np.repeat(share, self.market.width) * (x - self.x)
                point = self.formulation.operate(self.market.injection(tried), self.point)
                if point.converged.all():
                    break
                share[self.market.intervals_of(~point.converged)] /= 2
                if share.min() < SMALLEST_SHARE:
                    raise PowerFlowError(
                        f"no AC state near the dispatch in intervals {np.flatnonzero(share < 1).tolist()}"
                    )
        self.x, self.point, self.is_damped = tried, point, share < 1.0

    def _violation(self) -> FloatArray:
        """(states, k) How far each limit is broken beyond what the penalties allow [pu]."""
        return violation(self.formulation.limits, self.point.limit_value - self.rows.excess)

    def _report(self, before: FloatArray, x: FloatArray) -> PassReport:
        columns, x = self.market.network_columns, self.market.with_import(x, self.point.import_pu)
        lp_import = x[self.market.block("import_p").ravel()] + 1j * x[self.market.block("import_q").ravel()]
        return PassReport(
            len(self.reports) + 1,
            float(np.abs(self.x[columns] - before[columns]).max(initial=0.0)),
            float(self._violation().max(initial=0.0)),
            float(np.abs(lp_import - self.point.import_pu[: len(lp_import)]).max(initial=0.0)),
        )

    def _is_exact(self, report: PassReport) -> bool:
        """True when the network state keeps all limits and has the import that the dispatch was priced with."""
        return max(report.violation_pu, report.mismatch_pu) <= self.settings.tolerance_pu

    def _has_settled(self, report: PassReport) -> bool:
        """True when the LP describes the state it led to: a linear network, or one without anything to dispatch."""
        is_exact_model = self.is_linear or not len(self.market.case.resources)
        return is_exact_model and self._is_exact(report)

    def _finish_from(self, solution: LpSolution) -> Optimum:
        """Try the Newton finish from the LP's basis and multipliers."""
        rows = len(self.row_dual)
        limit = np.asarray(self.weights.limits.todense())
        binding = np.where(
            solution.basis.row[:rows] == AT_LOWER, -1, np.where(solution.basis.row[:rows] == AT_UPPER, 1, 0)
        )
        active = ActiveSet(
            self._column_states(solution),
            binding.astype(np.int8),
            self.rows.softness.states_of(limit),
        )
        return self._finish(
            active, Multipliers(self.row_dual.copy(), self.weights.import_p, self.weights.import_q, limit)
        )

    def _finish(self, active: ActiveSet, multipliers: Multipliers, *, has_basis: bool = True) -> Optimum:
        """Try the Newton finish from here; intervals solved before stay solved."""
        with self.clock.phase("newton"):
            return newton_finish(
                self.market,
                self.formulation,
                self.x,
                self.point,
                active,
                multipliers,
                self.settings,
                self.clock,
                self.optimum,
                has_basis=has_basis,
                may_keep_states=len(self.reports) - self.passes_before < PASSES_WITH_STATES,
            )

    def _column_states(self, solution: LpSolution) -> StatusArray:
        """Basis status of the columns; one that a step bound or a shortened step keeps off its bound is free."""
        x, status = self.x, solution.basis.column[: len(self.x)]
        at_lower = (status == AT_LOWER) & (x <= self.market.columns.lower.ravel() + AT_BOUND_PU)
        at_upper = (status == AT_UPPER) & (x >= self.market.columns.upper.ravel() - AT_BOUND_PU)
        return np.where(at_lower, AT_LOWER, np.where(at_upper, AT_UPPER, BASIC)).astype(np.int8)

    def _note_invented_losses(self, before: FloatArray, x: FloatArray) -> None:
        """Hold intervals whose LP import lies above the AC import to their tangent, with a shrinking step.

        `before` is the dispatch that the LP began with, and `x` its solution.
        """
        import_pu = self.point.import_pu.real[: self.market.intervals]
        gap = np.where(self.is_damped, 0.0, x[self.market.block("import_p").ravel()] - import_pu)
        columns = self.market.network_columns
        step = self.x[columns] - before[columns]
        reverses = (step * self.last_step).sum(axis=(1, 2)) < 0
        size = np.abs(step).max(axis=(1, 2), initial=0.0)
        shrink = self.rows.is_equality & reverses
        self.radius[shrink] = np.minimum(self.radius[shrink], size[shrink]) / 2
        self.rows.is_equality |= gap > INVENTED_PU * (1 + np.abs(import_pu))
        self.last_step = step
