"""The passes: linearise, solve the LP, look at the AC state, repeat; then finish by Newton.

Each pass solves one LP with the tangents of all points so far (`dlmp.formulation.network_rows`).
From the second pass on the Newton finish is tried from the LP's basis; it ends the clearing when it
meets the optimality conditions.  Where it fails the passes go on, and a vertex optimum is also
accepted from the LP itself once its step, its mismatch and its violations vanish.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dlmp.errors import InfeasibleError, LimitConflict, PowerFlowError, SolverError
from dlmp.formulation.interface import Formulation, OperatingPoint, Weights
from dlmp.formulation.market_lp import MarketLp
from dlmp.formulation.network_rows import FIRST_LIMIT_KEY, NetworkRows, violation
from dlmp.network.model import FloatArray
from dlmp.newton import ActiveSet, Multipliers, Optimum, newton_finish
from dlmp.settings import Settings
from dlmp.solve import AT_LOWER, AT_UPPER, BASIC, NONBASIC_FREE, Basis, LinearProgram, LpSolution, solve_lp
from dlmp.units import BASE_KVA

FIRST_NEWTON_PASS = 2
PENALTY = 1e4
"""Cost of breaking a limit of the elastic LP, in multiples of the largest price [per pu of power]."""
STALLED_PASSES, STALLED_SHARE = 4, 0.05
"""The elastic LP must break 5 % less within 4 passes, or the case is infeasible."""
MOST_CONFLICTS = 20
"""Conflicting limits named in an error."""
MAX_ROUNDS = 10
"""Most rounds of predicted limits in a pass."""
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
        Largest violation of any limit in the AC state [pu].
    mismatch_pu
        Largest difference between the LP's and the AC import [pu].
    finished
        True for the pass that ended the clearing.
    """

    number: int
    step_pu: float
    violation_pu: float
    mismatch_pu: float
    finished: bool = False


@dataclass
class Seconds:
    """CPU seconds by phase."""

    build: float = 0.0
    power_flow: float = 0.0
    gradients: float = 0.0
    solver: float = 0.0
    newton: float = 0.0


class Stopwatch:
    """Adds the CPU time of a ``with`` block to one phase of `seconds`."""

    def __init__(self, seconds: Seconds, phase: str):
        self.seconds, self.phase = seconds, phase

    def __enter__(self) -> None:
        self.began = time.process_time()

    def __exit__(self, *exception: object) -> None:
        spent = time.process_time() - self.began
        setattr(self.seconds, self.phase, getattr(self.seconds, self.phase) + spent)


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
    seconds
        CPU time by phase.
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
    seconds: Seconds


def dispatch(
    market: MarketLp,
    formulation: Formulation,
    settings: Settings,
    seconds: Seconds,
    progress: Callable[[PassReport], None] | None = None,
) -> Dispatch:
    """Find the least-cost dispatch of `market` on the network of `formulation`.

    Raises
    ------
    InfeasibleError
        When no dispatch keeps the limits.
    PowerFlowError
        When there is no AC state to begin with.
    """
    return _Passes(market, formulation, settings, seconds).run(progress)


class _Passes:
    """The search: where it stands, and what it has learned of the network."""

    def __init__(self, market: MarketLp, formulation: Formulation, settings: Settings, seconds: Seconds):
        self.market, self.formulation = market, formulation
        self.settings, self.seconds = settings, seconds
        self.rows = NetworkRows(market, formulation)
        self.x = market.start
        with Stopwatch(seconds, "power_flow"):
            self.point = formulation.operate(market.injection(self.x))
        if not self.point.converged.all():
            raise PowerFlowError(
                "the AC power flow has no solution without bids in intervals "
                f"{np.flatnonzero(~self.point.converged).tolist()}: the load is beyond what the feeder can carry; "
                "check the units of loads and impedances"
            )
        self.reports: list[PassReport] = []
        self.basis: Basis | None = None
        self.keys: npt.NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self.radius = np.full(market.intervals, np.inf)
        self.last_step = np.zeros(market.network_columns.shape)
        self.unmet: list[float] = []
        self.lp_solves = 0
        self.optimum: Optimum | None = None

    def run(self, progress: Callable[[PassReport], None] | None) -> Dispatch:
        """Pass after pass until the optimality conditions hold or the passes are used up."""
        weights = Weights.zero(self.market.intervals, len(self.formulation.limits))
        error, row_dual = np.inf, np.zeros(0)
        for number in range(1, self.settings.max_passes + 1):
            with Stopwatch(self.seconds, "gradients"):
                self.rows.add_point(self.point, self.x)
            solution, keys, is_elastic = self._solve_rounds()
            market_rows = len(self.market.row_lower)
            row_dual = solution.row_dual[:market_rows]
            weights = self.rows.weights(solution.row_dual[market_rows : market_rows + len(keys)])
            before = self.x_before = self.x
            self._move(solution.x[: len(self.x)])
            report = self._report(number, before, solution.x)
            if not is_elastic:
                self.unmet.clear()
                if number >= FIRST_NEWTON_PASS and not self.formulation.is_linear:
                    self.optimum = self._finish(solution, weights)
                optimum = self.optimum
                if optimum is not None and not optimum.is_open.any():
                    self.x, self.point = optimum.x, optimum.point
                    weights, row_dual = optimum.multipliers.weights(), optimum.multipliers.row
                    error = optimum.error_usd_per_mwh
                    report = replace(self._report(number, before, optimum.x), finished=True)
                elif self._has_settled(report):
                    report, error = replace(report, finished=True), 0.0
            self.reports.append(report)
            if is_elastic:
                self._give_up_if_stalled()
            if progress is not None:
                progress(report)
            if report.finished:
                break
            self._note_invented_losses(solution.x)
        return Dispatch(
            self.market,
            self.formulation,
            self.x,
            self.point,
            weights,
            row_dual,
            self.reports[-1].finished,
            tuple(self.reports),
            self.lp_solves,
            error,
            self.seconds,
        )

    def _solve_rounds(self) -> tuple[LpSolution, npt.NDArray[np.int64], bool]:
        """Solve the LP, cut off the limits that its solution is predicted to break, and repeat."""
        for _ in range(MAX_ROUNDS):
            solved = self._solve()
            self.lp_solves += 1
            with Stopwatch(self.seconds, "gradients"):
                if not self.rows.add_predicted(self.point, solved[0].x[: len(self.x)]):
                    return solved
        solved = self._solve()
        self.lp_solves += 1
        return solved

    def _solve(self) -> tuple[LpSolution, npt.NDArray[np.int64], bool]:
        """Solve the LP of this pass, and where its limits conflict the elastic one (last value True)."""
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
        with Stopwatch(self.seconds, "solver"):
            solution = solve_lp(problem, self._carried_basis(keys), self.settings.time_limit_s)
            if solution is not None:
                self.basis, self.keys = solution.basis, keys
                return solution, keys, False
            return self._solve_elastic(problem, keys), keys, True

    def _within_radius(self, lower: FloatArray, upper: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Bounds of all columns, tightened around the present dispatch in intervals with a step bound."""
        bounded = np.flatnonzero(np.isfinite(self.radius))
        columns = self.market.network_columns[bounded]
        radius = self.radius[bounded][:, None, None]
        lower, upper = lower.copy(), upper.copy()
        lower[columns] = np.maximum(lower[columns], self.x[columns] - radius)
        upper[columns] = np.minimum(upper[columns], self.x[columns] + radius)
        return lower, upper

    def _carried_basis(self, keys: npt.NDArray[np.int64]) -> Basis | None:
        """Give the last basis to the rows that are still there; new rows start inactive."""
        if self.basis is None:
            return None
        market_rows = len(self.market.row_lower)
        row = np.full(market_rows + len(keys), BASIC, dtype=np.int8)
        row[:market_rows] = self.basis.row[:market_rows]
        _, old, new = np.intersect1d(self.keys, keys, return_indices=True)
        row[market_rows + new] = self.basis.row[market_rows + old]
        return Basis(self.basis.column, row)

    def _solve_elastic(self, problem: LinearProgram, keys: npt.NDArray[np.int64]) -> LpSolution:
        """Solve with every limit breakable at a penalty."""
        elastic = elastic_programme(problem, self.market, is_limit=keys >= FIRST_LIMIT_KEY)
        solution = solve_lp(elastic, None, self.settings.time_limit_s)
        if solution is None:
            raise SolverError("the bids contradict the ranges of their own resources; check p_min_kw against s_max_kva")
        return solution

    def _give_up_if_stalled(self) -> None:
        """Raise when the elastic LPs of the last passes did not lessen what is broken."""
        broken = violation(self.formulation.limits, self.point.limit_value).sum() + sum(
            abs(conflict.attained - conflict.limit) / BASE_KVA for conflict in self._import_conflicts()
        )
        self.unmet.append(float(broken))
        recent = self.unmet[-STALLED_PASSES:]
        if len(recent) == STALLED_PASSES and min(recent[1:]) > (1 - STALLED_SHARE) * recent[0]:
            raise InfeasibleError(self._conflicts())

    def _conflicts(self) -> list[LimitConflict]:
        """Limits that the present state breaks, the worst first."""
        limits, value = self.formulation.limits, self.point.limit_value
        broken = violation(limits, value)
        interval, limit = np.nonzero(broken > self.settings.tolerance_pu)
        order = np.argsort(-broken[interval, limit], kind="stable")[:MOST_CONFLICTS]
        found = []
        for t, k in zip(interval[order], limit[order], strict=True):
            bound = limits.lower[k] if value[t, k] < limits.lower[k] else limits.upper[k]
            shown = limits.physical(np.array([k, k]), np.array([bound, value[t, k]]))
            found.append(LimitConflict(str(limits.element[k]), int(t), *map(float, shown), str(limits.unit[k])))
        return found + self._import_conflicts()

    def _import_conflicts(self) -> list[LimitConflict]:
        found = []
        for name, unit, value in (
            ("import_p", "kW", self.point.import_pu.real),
            ("import_q", "kvar", self.point.import_pu.imag),
        ):
            columns = self.market.template.blocks[name]
            low, high = self.market.columns.lower[:, columns].ravel(), self.market.columns.upper[:, columns].ravel()
            bound = np.clip(value, low, high)
            for t in np.flatnonzero(np.abs(value - bound) > self.settings.tolerance_pu)[:MOST_CONFLICTS]:
                found.append(
                    LimitConflict(f"substation {name}", int(t), bound[t] * BASE_KVA, value[t] * BASE_KVA, unit)
                )
        return found

    def _move(self, x: FloatArray) -> None:
        """Go to dispatch `x`, or part of the way where the AC power flow has no solution there."""
        with Stopwatch(self.seconds, "power_flow"):
            share = np.ones(self.market.intervals)
            while True:
                tried = self.x + np.repeat(share, self.market.width) * (x - self.x)
                point = self.formulation.operate(self.market.injection(tried), self.point)
                if point.converged.all():
                    break
                share[~point.converged] /= 2
                if share.min() < SMALLEST_SHARE:
                    raise PowerFlowError(
                        f"no AC state near the dispatch in intervals {np.flatnonzero(share < 1).tolist()}"
                    )
        self.x, self.point = tried, point

    def _report(self, number: int, before: FloatArray, x: FloatArray) -> PassReport:
        columns = self.market.network_columns
        lp_import = x[self.market.block("import_p").ravel()]
        return PassReport(
            number,
            float(np.abs(self.x[columns] - before[columns]).max(initial=0.0)),
            float(violation(self.formulation.limits, self.point.limit_value).max(initial=0.0)),
            float(np.abs(lp_import - self.point.import_pu.real).max(initial=0.0)),
        )

    def _has_settled(self, report: PassReport) -> bool:
        """True when the LP describes the state it led to; a linear network need not stand still for that."""
        tolerance = self.settings.tolerance_pu
        is_exact = report.violation_pu <= tolerance and report.mismatch_pu <= tolerance
        return is_exact and (self.formulation.is_linear or report.step_pu <= tolerance)

    def _finish(self, solution: LpSolution, weights: Weights) -> Optimum:
        """Try the Newton finish from the LP's basis and multipliers; intervals solved before stay solved."""
        market, rows = self.market, len(self.market.row_lower)
        limit = np.asarray(weights.limits.todense())
        binding = np.where(
            solution.basis.row[:rows] == AT_LOWER, -1, np.where(solution.basis.row[:rows] == AT_UPPER, 1, 0)
        )
        active = ActiveSet(
            np.where(solution.basis.column == NONBASIC_FREE, BASIC, solution.basis.column).astype(np.int8),
            binding.astype(np.int8),
            (-np.sign(limit)).astype(np.int8),
        )
        multipliers = Multipliers(solution.row_dual[:rows].copy(), weights.import_p, weights.import_q, limit)
        with Stopwatch(self.seconds, "newton"):
            return newton_finish(
                market, self.formulation, self.x, self.point, active, multipliers, self.settings, self.optimum
            )

    def _note_invented_losses(self, x: FloatArray) -> None:
        """Hold intervals whose LP import lies above the AC import to their tangent, with a shrinking step."""
        gap = x[self.market.block("import_p").ravel()] - self.point.import_pu.real
        columns = self.market.network_columns
        step = self.x[columns] - self.x_before[columns]
        reverses = (step * self.last_step).sum(axis=(1, 2)) < 0
        size = np.abs(step).max(axis=(1, 2), initial=0.0)
        shrink = self.rows.is_equality & reverses
        self.radius[shrink] = np.minimum(self.radius[shrink], size[shrink]) / 2
        self.rows.is_equality |= gap > INVENTED_PU * (1 + np.abs(self.point.import_pu.real))
        self.last_step = step


def elastic_programme(problem: LinearProgram, market: MarketLp, is_limit: npt.NDArray[np.bool_]) -> LinearProgram:
    """Return `problem` with limits and import bounds breakable at `PENALTY`.

    Parameters
    ----------
    problem
        The market's rows, then one row per entry of `is_limit`.
    market
        Where the import stands among the columns.
    is_limit
        (i,) True for the rows that may be broken.
    """
    imports = np.concatenate([market.block("import_p").ravel(), market.block("import_q").ravel()])
    width = len(problem.cost)
    bounded = imports[np.isfinite(problem.lower[imports]) | np.isfinite(problem.upper[imports])]
    as_rows = sparse.csr_array((np.ones(len(bounded)), (np.arange(len(bounded)), bounded)), shape=(len(bounded), width))
    matrix = sparse.csr_array(sparse.vstack([problem.matrix, as_rows]))
    soft = np.concatenate(
        [len(market.row_lower) + np.flatnonzero(is_limit), len(problem.row_lower) + np.arange(len(bounded))]
    )
    size = abs(matrix[soft]).max(axis=1).toarray().ravel()
    give = sparse.csr_array((size, (soft, np.arange(len(soft)))), shape=(matrix.shape[0], len(soft)))
    dearest = max(1.0, float(np.abs(problem.cost).max(initial=0.0)))
    lower, upper = problem.lower.copy(), problem.upper.copy()
    lower[bounded], upper[bounded] = -np.inf, np.inf
    return LinearProgram(
        cost=np.concatenate([problem.cost, np.full(2 * len(soft), PENALTY * dearest)]),
        lower=np.concatenate([lower, np.zeros(2 * len(soft))]),
        upper=np.concatenate([upper, np.full(2 * len(soft), np.inf)]),
        matrix=sparse.csr_array(sparse.hstack([matrix, give, -give])),
        row_lower=np.concatenate([problem.row_lower, problem.lower[bounded]]),
        row_upper=np.concatenate([problem.row_upper, problem.upper[bounded]]),
    )
