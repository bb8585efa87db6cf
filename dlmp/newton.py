"""The Newton finish: from the LP's basis to a point that meets the optimality conditions exactly.

The LP says which columns lie strictly between their bounds and which rows bind.  Those make the
system (DESIGN: the reduced KKT conditions of the nonlinear problem)

    [H  J^T] [ dx]   [-(c - J^T y)]
    [J   0 ] [-dy] = [ b - g(x)   ]

with c the marginal cost at x and H the exact Hessian of the costs and of ``w P0(x) - sum y g(x)``.  After each step the
sets are corrected: a column that left its bounds is held there, a held column whose reduced cost has the wrong sign is
let go, a row whose multiplier has the wrong sign is dropped, a limit that is broken is added (a primal-dual active set
method; Hintermueller, Ito and Kunisch, SIAM J. Optim. 13(3), 2003).  Sets that begin to repeat, as they do among many
free reactive powers, are replaced by those of the interval's quadratic programme.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.linalg import splu

from dlmp.formulation.interface import CONGESTION, UNBALANCE, VOLTAGE, Formulation, Limits, OperatingPoint, Weights
from dlmp.formulation.market_lp import MarketLp
from dlmp.formulation.network_rows import violation
from dlmp.formulation.softness import BROKEN, Softness, StateArray, is_held
from dlmp.holding import Held
from dlmp.network.model import FloatArray
from dlmp.quadratic import Curvature, Effort, QuadraticModel
from dlmp.settings import Settings
from dlmp.solve import AT_LOWER, AT_UPPER, BASIC, StatusArray, gain_of_leaving
from dlmp.timing import PhaseClock

MAX_STEPS, MAX_QUADRATIC_STEPS, STEPS_AFTER_QUADRATIC = 8, 8, 8
FAR = Effort(rounds=1, tolerance=1e-5)
"""Of a coupled horizon's first quadratic programme, which says which decisions to hold."""
NEAR, NEAR_COUPLED = Effort(), Effort(few=50)
"""Of the next one: along a coupled horizon a Newton step is cheaper than another round for few corrections."""
EXACT = Effort(tolerance=1e-12)
"""Of those after a Newton finish that failed: limits that hardly bind must be told from those that hardly do not."""
FEW_REACTIVE = 60
"""Among more free reactive powers than this the sets go in circles, as they do along a coupled horizon: begin with
the quadratic programme."""
NEAR_PRICE = 0.02
"""A bid this near to its price may be accepted in part, relative to the dearest energy at the substation."""
PROXIMAL = 1e-9
"""Damping of both blocks, which vanishes at the solution: keeps the system regular."""
MORE_MOVES, FEW_MOVES = 4, 200
"""Corrections of a coupled horizon's sets may grow by this factor, or be so few: a step is cheaper than its quadratic
programme."""
DAMPING_BY_ERROR, MOST_DAMPING = 100.0, 1e-2
"""Damping of columns in a coupled horizon, per error of the optimality conditions, and its largest value."""
ROW_DAMPING_BY_ERROR, MOST_ROW_DAMPING = 1e-2, 1e-4
"""The same of its rows, per broken pu."""
FAR_OFF = 1e-3
"""Above this error of a coupled horizon's optimality conditions [currency/MWh] the multipliers are estimated anew
before a step, once a finish has failed: the damping of rows would turn it into a move."""
COARSER, COARSEST = 10.0, 1e-2
"""Signs of reduced costs in a coupled horizon are told by this multiple of the error that is left, and at most so
coarsely [currency/MWh]."""
RANK_TOLERANCE = 1e-9
CONSTRAINING = 1e4
"""Weight of the binding rows beside the curvature where that along them is asked for."""


@dataclass
class ActiveSet:
    """Which columns are free and which rows bind.

    Attributes
    ----------
    column
        (c,) `AT_LOWER`, `BASIC` (free) or `AT_UPPER`.
    row
        (r,) -1, 0, 1: binding at its lower bound, inactive, binding at its upper bound.
    limit
        (states, k) The states of the limits (`dlmp.formulation.softness`).
    """

    column: StatusArray
    row: StatusArray
    limit: StateArray

    def copy(self) -> "ActiveSet":
        """Return a copy."""
        return ActiveSet(self.column.copy(), self.row.copy(), self.limit.copy())

    def overwrite(
        self,
        other: "ActiveSet",
        states: npt.NDArray[np.bool_],
        column: npt.NDArray[np.bool_],
        row: npt.NDArray[np.bool_],
    ) -> None:
        """Take over the sets of `other` where the masks of states, columns and rows are True."""
        self.column[column], self.row[row] = other.column[column], other.row[row]
        self.limit[states] = other.limit[states]

    def key(self) -> bytes:
        """A value that is equal for equal sets."""
        return self.column.tobytes() + self.row.tobytes() + self.limit.tobytes()


@dataclass
class Multipliers:
    """Duals of the market's rows (r,), of import and of limits, by network state."""

    row: FloatArray
    import_p: FloatArray
    import_q: FloatArray
    limit: FloatArray

    def copy(self) -> "Multipliers":
        """Return a copy."""
        return Multipliers(self.row.copy(), self.import_p.copy(), self.import_q.copy(), self.limit.copy())

    def overwrite(self, other: "Multipliers", states: npt.NDArray[np.bool_], row: npt.NDArray[np.bool_]) -> None:
        """Take over the duals of `other` where the masks of states and rows are True."""
        self.row[row] = other.row[row]
        for name in ("import_p", "import_q", "limit"):
            getattr(self, name)[states] = getattr(other, name)[states]

    def weights(self) -> Weights:
        """As weights of an operating point."""
        return Weights(self.import_p, self.import_q, sparse.csr_array(self.limit))


@dataclass(frozen=True, eq=False)
class Optimum:
    """Where the finish came to.

    Parameters
    ----------
    x, point, active, multipliers
        (c,) dispatch, its state, active sets and duals.
    is_open
        (t,) True for the intervals that do not meet the optimality conditions.
    error_usd_per_mwh
        Largest error of those conditions in the others.
    excess
        (states, k) How far broken limits are above their upper, or if negative below their lower bound [pu].
    """

    x: FloatArray
    point: OperatingPoint
    active: ActiveSet
    multipliers: Multipliers
    is_open: npt.NDArray[np.bool_]
    error_usd_per_mwh: float
    excess: FloatArray


def newton_finish(
    market: MarketLp,
    formulation: Formulation,
    x: FloatArray,
    point: OperatingPoint,
    active: ActiveSet,
    multipliers: Multipliers,
    settings: Settings,
    clock: PhaseClock,
    known: Optimum | None = None,
) -> Optimum:
    """Find the optimum near dispatch `x` with active sets near `active`.

    Parameters
    ----------
    market, formulation
        The problem.
    x, point
        (c,) Dispatch to start from, and its state.
    active, multipliers
        First guess.
    settings
        Tolerances.
    clock
        Takes the CPU time of power flows, gradients and quadratic programmes.
    known
        Intervals that are solved already.

    Returns
    -------
    The optimum, in which the intervals are open whose sets do not settle, whose power flow fails or
    whose point is no minimum; those stand where they started.
    """
    search = _Search(market, formulation, settings, clock, x, point, active, multipliers)
    if known is not None:
        search.restore(_State(known.x, known.active, known.multipliers), ~known.is_open)
        search.is_open &= known.is_open
    start = search.state()
    search.find_marginal()
    many_reactive = search.curvature.movable[:, 1].sum(axis=1).max(initial=0) > FEW_REACTIVE
    is_basis_last = many_reactive or market.is_coupled
    if not is_basis_last:
        search.settle(MAX_STEPS)
    search.restore(start, search.is_open)
    if market.is_coupled:
        search.quadratic_step(FAR)
    effort = NEAR_COUPLED if market.is_coupled else NEAR
    for _ in range(MAX_QUADRATIC_STEPS):
        if not (search.is_open & ~search.has_failed).any():
            break
        search.quadratic_step(effort)
        stand, has_failed = search.state(), search.has_failed.copy()
        search.settle(STEPS_AFTER_QUADRATIC, estimates=market.is_coupled and effort is EXACT)
        search.restore(stand, search.is_open)
        search.has_failed = has_failed  # a Newton step that leads nowhere leaves the next programme a try
        effort = EXACT
    if is_basis_last:
        # An interior point does not tell tiny quantities from none: the basis does.
        search.restore(start, search.is_open)
        search.has_failed[:] = False
        search.settle(MAX_STEPS)
    search.reopen_saddles(np.ones(market.intervals, bool) if known is None else known.is_open)
    search.restore(start, search.is_open)
    error = search.system(~search.is_open).error
    excess = search.softness.excess_at(search.active.limit, search.point.limit_value)
    return Optimum(search.x, search.point, search.active, search.multipliers, search.is_open, error, excess)


@dataclass(frozen=True, eq=False)
class _State:
    """A copy of where a search stands."""

    x: FloatArray
    active: ActiveSet
    multipliers: Multipliers


class _Search:
    """A dispatch on its way to the optimum.

    Attributes
    ----------
    is_open
        (t,) True for the intervals that are not there yet.
    has_failed
        (t,) True for the open intervals that are given up.
    """

    def __init__(
        self,
        market: MarketLp,
        formulation: Formulation,
        settings: Settings,
        clock: PhaseClock,
        x: FloatArray,
        point: OperatingPoint,
        active: ActiveSet,
        multipliers: Multipliers,
    ):
        self.market, self.formulation, self.settings, self.clock = market, formulation, settings, clock
        self.x, self.point, self.active, self.multipliers = x, point, active, multipliers
        self.curvature = Curvature(market)
        self.softness = Softness.of(formulation.limits, market.penalties)
        self.is_open = np.ones(market.intervals, bool)
        self.has_failed = np.zeros(market.intervals, bool)

    def state(self) -> _State:
        """Return a copy of the present state."""
        return _State(self.x.copy(), self.active.copy(), self.multipliers.copy())

    def restore(self, state: _State, intervals: npt.NDArray[np.bool_]) -> None:
        """Go back to `state` in the (t,) `intervals`."""
        if not intervals.any():
            return
        column = np.repeat(intervals, self.market.width)
        row = np.repeat(intervals, len(self.market.template.row_lower))
        self.x = np.where(column, state.x, self.x)
        states = self.market.states_of(intervals)
        self.active.overwrite(state.active, states, column, row)
        self.multipliers.overwrite(state.multipliers, states, row)
        self._update_point()

    def reopen_saddles(self, intervals: npt.NDArray[np.bool_]) -> None:
        """Open those of the (t,) `intervals` that are solved but whose point is no minimum."""
        self.is_open |= self.market.together(~self.system(~self.is_open & intervals).is_minimum())

    def system(self, is_open: npt.NDArray[np.bool_]) -> "_System":
        """Optimality conditions of the intervals in `is_open`, here and now."""
        return _System(
            self.market,
            self.formulation,
            self.softness,
            self.curvature,
            self.clock,
            self.x,
            self.point,
            self.active,
            self.multipliers,
            is_open,
        )

    def find_marginal(self) -> None:
        """Note what the quadratic model must know to curve: reactive power, and bids near their price."""
        market = self.market
        system = self.system(self.is_open)
        column = np.where(self._is_near_price(system), BASIC, self.active.column).astype(np.int8)
        column[market.network_columns[:, 0].ravel()] = BASIC
        self.curvature.likely = self.curvature.wanted(column)
        self.curvature.likely[:, 1] = self.curvature.movable[:, 1]

    def _held(self) -> Held:
        """What the quadratic model of a coupled horizon need not decide: what is far from its price.

        Its stages cost by the cube of their columns.
        """
        market, active = self.market, self.active
        is_held = np.zeros(len(self.x), bool)
        if market.is_coupled:
            system = self.system(self.is_open)
            is_settled = (active.column != BASIC) & ~system.has_wrong_sign(0.0) & ~self._is_near_price(system)
            is_held = market.is_decision & market.is_movable & is_settled
        return Held(is_held, market.may_follow, market.is_sum, active.column, active.row, self.multipliers.row)

    def _is_near_price(self, system: "_System") -> npt.NDArray[np.bool_]:
        """(c,) True for the columns whose reduced cost is small beside the price of energy."""
        return np.abs(system.reduced) <= NEAR_PRICE * np.abs(self.multipliers.import_p).max(initial=1.0)

    def settle(self, steps: int, *, estimates: bool = False) -> None:
        """Step and correct the sets of open intervals until all are solved or the sets repeat.

        With `estimates` of the multipliers before steps from far off: each costs as much as a step.
        """
        market, seen = self.market, set[bytes]()
        held, last_moves = np.zeros(len(self.x), bool), np.inf
        for step in range(steps + 1):
            trying = self.is_open & ~self.has_failed
            if not trying.any():
                return
            system = self.system(trying)
            if step:
                changed = _correct_sets(system, held, self.settings)
                is_solved = ~changed & system.solved_intervals(self.settings)
                self.is_open &= ~trying | self.market.together(trying & ~is_solved)
                trying = self.is_open & ~self.has_failed
                key, moves = self.active.key(), system.moves
                is_worse = moves > (max(MORE_MOVES * last_moves, FEW_MOVES) if market.is_coupled else last_moves)
                if not trying.any() or (changed.any() and (key in seen or is_worse)):
                    return
                seen.add(key)
                last_moves = moves
                system = self.system(trying)
            if estimates and system.error > FAR_OFF:
                system.estimate_multipliers()
            moved = system.step()
            if moved is None:
                return
            before = self.state()
            self.x, self.multipliers = moved
            self.x, held = _hold(self.market, self.x, self.active, self.settings.tolerance_pu * 0.01)
            self._update_or_fail(before)

    def _update_point(self) -> npt.NDArray[np.bool_]:
        """Find the network states of the present dispatch; (t,) False where one is missing."""
        with self.clock.phase("power_flow"):
            self.point = self.formulation.operate(self.market.injection(self.x), self.point)
        self.x = self.market.with_import(self.x, self.point.import_pu)
        return ~self.market.intervals_of(~self.point.converged)

    def _update_or_fail(self, before: _State) -> None:
        """Find the network state; an interval that has none goes back to `before` and is given up."""
        lost = self.market.together(~self._update_point())
        self.has_failed |= lost
        self.restore(before, lost)

    def quadratic_step(self, effort: Effort) -> None:
        """Replace open intervals by the optimum of their quadratic model; one that has none is given up."""
        market = self.market
        weights = self.multipliers.weights()
        model = QuadraticModel(
            market, self.formulation, self.x, self.point, weights, self._held(), self.curvature, effort, self.clock
        )
        trying = np.flatnonzero(self.is_open & ~self.has_failed)
        solutions = model.solve_all(trying, self.active.limit)
        solved = np.concatenate([np.zeros(0, dtype=np.int64), *(found.intervals for found in solutions)])
        self.has_failed[np.setdiff1d(trying, solved)] = True
        self.curvature.expire(trying)
        before, multipliers = self.state(), self.multipliers
        shape = (market.intervals, -1)
        for found in solutions:
            own = found.intervals
            self.x.reshape(shape)[own], self.active.column.reshape(shape)[own] = found.x, found.column
            self.active.row.reshape(shape)[own], multipliers.row.reshape(shape)[own] = found.row, found.row_dual
            multipliers.import_p[own], multipliers.import_q[own] = found.import_dual.T
            multipliers.limit[np.isin(market.state_interval, own)] = found.limit_dual
        states = np.isin(market.state_interval, solved)[:, None]
        self.active.limit[:] = np.where(states, self.softness.states_of(multipliers.limit), self.active.limit)
        self.x, self.active.column = market.with_sums_free(self.x, self.active.column)
        self._update_or_fail(before)


def _hold(market: MarketLp, x: FloatArray, active: ActiveSet, slack: float) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Clip `x` to its bounds and hold the columns that left them; also returns which."""
    lower, upper = market.columns.lower.ravel(), market.columns.upper.ravel()
    below, above = x < lower - slack, x > upper + slack
    active.column[below], active.column[above] = AT_LOWER, AT_UPPER
    x, active.column = market.with_sums_free(np.clip(x, lower, upper), active.column)
    return x, below | above


class _System:
    """The optimality conditions at a point, for given active sets."""

    def __init__(
        self,
        market: MarketLp,
        formulation: Formulation,
        softness: Softness,
        curvature: Curvature,
        clock: PhaseClock,
        x: FloatArray,
        point: OperatingPoint,
        active: ActiveSet,
        multipliers: Multipliers,
        is_open: npt.NDArray[np.bool_],
    ):
        self.market, self.formulation, self.curvature, self.clock = market, formulation, curvature, clock
        self.softness = softness
        self.x, self.point, self.active, self.multipliers = x, point, active, multipliers
        self.moves = 0
        self.equality = market.row_lower == market.row_upper
        self.fixed = ~market.is_movable
        self.column_interval = np.repeat(np.arange(market.intervals), market.width)
        self.row_interval = np.repeat(np.arange(market.intervals), len(market.template.row_lower))
        self.rows = np.flatnonzero((self.equality | (active.row != 0)) & is_open[self.row_interval])
        self.open, self.open_states = np.flatnonzero(is_open), market.states_of(is_open)
        self.state, self.limit = np.nonzero(is_held(active.limit) & self.open_states[:, None])
        self.priced = np.where(self.open_states[:, None], softness.priced(active.limit), 0.0)
        self.jacobian = sparse.csr_array(sparse.vstack([market.matrix[self.rows], self._network_rows()]))
        at_limit = (self.state, self.limit)
        self.dual = np.concatenate(
            [
                multipliers.row[self.rows],
                multipliers.import_p[self.open],
                multipliers.import_q[self.open],
                multipliers.limit[at_limit],
            ]
        )
        self.dual_interval = np.concatenate(
            [self.row_interval[self.rows], self.open, self.open, market.state_interval[self.state]]
        )
        target = np.where(active.row < 0, market.row_lower, market.row_upper)[self.rows]
        bound = softness.edge_at(active.limit)[at_limit]
        import_p, import_q = market.block("import_p").ravel()[self.open], market.block("import_q").ravel()[self.open]
        self.residual = np.concatenate(
            [
                target - market.matrix[self.rows] @ x,
                point.import_pu.real[self.open] - x[import_p],
                point.import_pu.imag[self.open] - x[import_q],
                bound - point.limit_value[at_limit],
            ]
        )
        cost = market.columns.marginal_cost(x) - self.jacobian.T @ self.dual
        self._add_priced(cost)
        self.reduced = np.where(is_open[self.column_interval], cost, 0.0)
        self.free = np.flatnonzero((active.column == BASIC) & ~self.fixed & is_open[self.column_interval])

    @property
    def error(self) -> float:
        """Largest reduced cost of a free column [currency/MWh]."""
        return float(np.abs(self.reduced[self.free]).max(initial=0.0))

    def has_wrong_sign(self, tolerance: float) -> npt.NDArray[np.bool_]:
        """(c,) True for the columns that are held at a bound which it would pay to leave."""
        gain = gain_of_leaving(self.active.column, self.reduced)
        return (self.active.column != BASIC) & ~self.fixed & (gain > tolerance)

    def _add_priced(self, reduced: FloatArray) -> None:
        """Take the multipliers of limits that are broken between two edges off the `reduced` costs."""
        if not self.priced.any():
            return
        market = self.market
        with self.clock.phase("gradients"):
            gradient = self.point.weighted_limit_gradient(sparse.csr_array(self.priced), market.ports)
        reduced -= market.along_columns(gradient)

    def _network_rows(self) -> sparse.csr_array:
        """Gradients of ``P0 - f`` and ``Q0 - f`` of every open interval, and of the active limits."""
        market = self.market
        with self.clock.phase("gradients"):
            real, reactive = (market.spread(g) for g in self.point.import_gradients(market.ports, self.open))
            bound = market.spread(self.point.limit_gradients(self.state, self.limit, market.ports))
        return sparse.csr_array(
            sparse.vstack(
                [
                    market.network_rows(self.open, -real, "import_p"),
                    market.network_rows(self.open, -reactive, "import_q"),
                    market.network_rows(self.state, bound),
                ]
            )
        )

    def solved_intervals(self, settings: Settings) -> npt.NDArray[np.bool_]:
        """(t,) True where the conditions hold to the settings' tolerances."""
        error, broken = np.zeros(self.market.intervals), np.zeros(self.market.intervals)
        np.maximum.at(error, self.column_interval[self.free], np.abs(self.reduced[self.free]))
        np.maximum.at(broken, self.dual_interval, np.abs(self.residual))
        return (error <= settings.tolerance_usd_per_mwh) & (broken <= settings.tolerance_pu / 3)

    def step(self) -> tuple[FloatArray, Multipliers] | None:
        """Take one Newton step on the free columns; None when the system is singular."""
        right = np.concatenate([-self.reduced[self.free], self.residual])
        change = self._solved(self.hessian(), *self._damping(), right)
        if change is None:
            return None
        x = self.x.copy()
        x[self.free] += change[: len(self.free)]
        return x, self._multipliers(self.dual - change[len(self.free) :])

    def estimate_multipliers(self) -> None:
        """Take the multipliers that leave the free columns the least reduced costs, in the sense of least squares.

        Nocedal and Wright, Numerical Optimization, 2006, section 18.3.  A sum that was let free knows no price yet.
        """
        right = np.concatenate([-self.reduced[self.free], np.zeros(len(self.dual))])
        change = self._solved(sparse.eye_array(len(self.free)), 0.0, PROXIMAL, right)
        if change is None:
            return
        of_dual = change[len(self.free) :]
        self.dual, self.reduced = self.dual - of_dual, self.reduced + self.jacobian.T @ of_dual
        self.multipliers = self._multipliers(self.dual)

    def _solved(
        self, curvature: sparse.sparray, of_columns: float, of_rows: float, right: FloatArray
    ) -> FloatArray | None:
        """Solve the system with this `curvature` of the free columns and the damping of columns and of rows.

        None when it is singular.
        """
        here = self.jacobian[:, self.free]
        damping, corner = of_columns * sparse.eye_array(len(self.free)), -of_rows * sparse.eye_array(len(self.dual))
        system = sparse.csc_array(sparse.block_array([[curvature, here.T], [here, None]]))
        try:
            factors = splu(sparse.csc_array(system + sparse.block_diag([damping, corner])))
        except RuntimeError:
            return None
        change = factors.solve(right)
        change += factors.solve(right - system @ change)  # what the damping has left over
        return np.asarray(change)

    def _multipliers(self, dual: FloatArray) -> Multipliers:
        """The multipliers with the duals `dual` of the system's rows."""
        row, real, reactive, limit = np.split(dual, np.cumsum([len(self.rows), len(self.open), len(self.open)]))
        multipliers = self.multipliers.copy()
        multipliers.row[np.isin(self.row_interval, self.open)] = 0.0
        multipliers.limit[self.open_states] = self.priced[self.open_states]
        multipliers.row[self.rows], multipliers.limit[self.state, self.limit] = row, limit
        multipliers.import_p[self.open], multipliers.import_q[self.open] = real, reactive
        return multipliers

    def _damping(self) -> tuple[float, float]:
        """Damping of the free columns and of the rows, which vanish with the errors of either.

        Two stores at one bus can trade places for nothing, and rows that say the same can share a multiplier in any
        way: without more damping the least error sends them far away.
        """
        if not self.market.is_coupled:
            return PROXIMAL, PROXIMAL
        broken = float(np.abs(self.residual).max(initial=0.0))
        return (
            max(PROXIMAL, min(MOST_DAMPING, DAMPING_BY_ERROR * self.error)),
            max(PROXIMAL, min(MOST_ROW_DAMPING, ROW_DAMPING_BY_ERROR * broken)),
        )

    def hessian(self) -> sparse.csr_array:
        """Second derivatives of the Lagrangian by the free columns."""
        with self.clock.phase("gradients"):
            weights = self.multipliers.weights()
            wanted = self.curvature.wanted(self.active.column)
            states = np.flatnonzero(self.open_states & weights.curving(self.market.intervals))
            blocks = self.curvature.blocks(self.point.lagrangian(weights), states, wanted)
        whole = self.market.curvature(blocks, wanted) + sparse.diags_array(self.market.columns.slope.ravel())
        return sparse.csr_array(sparse.csr_array(whole)[self.free][:, self.free])

    def is_minimum(self) -> npt.NDArray[np.bool_]:
        """(t,) True where nothing curves downwards along the directions that the binding rows leave open."""
        found = np.ones(self.market.intervals, bool)
        if not len(self.free):
            return found
        hessian, here = self.hessian(), sparse.csc_array(self.jacobian[:, self.free])
        interval = self.free // self.market.width
        for group in self.market.groups(np.unique(interval)):
            own = np.flatnonzero(np.isin(interval, group))
            found[group] = _is_convex(sparse.csc_array(hessian[own][:, own]), here[:, own])
        return found


def _is_convex(hessian: sparse.csc_array, rows: sparse.csc_array) -> bool:
    """True when nothing curves downwards along the directions that `rows` leave open.

    That is when ``H + rho J^T J`` is positive definite for some rho (Debreu, Econometrica 20(2), 1952): its factors
    without row exchanges then have positive pivots.
    """
    size = sparse.linalg.norm(rows, axis=1)
    scaled = sparse.csc_array(sparse.diags_array(1 / np.where(size > 0, size, 1.0)) @ rows)
    rho = CONSTRAINING * max(1.0, float(abs(hessian).max()))
    floor = RANK_TOLERANCE + 1e-12 * rho
    matrix = hessian + rho * (scaled.T @ scaled) + floor * sparse.eye_array(hessian.shape[0])
    try:
        factors = splu(
            sparse.csc_array(matrix), "MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
        )
    except RuntimeError:
        return False
    return bool((factors.perm_r == factors.perm_c).all() and factors.U.diagonal().min(initial=1.0) > 0)


def _correct_sets(system: _System, held: npt.NDArray[np.bool_], settings: Settings) -> npt.NDArray[np.bool_]:
    """Move columns, rows and limits between the sets as signs and violations say; (t,) where any should move.

    A column that was `held` in the last step gets one step's grace.
    """
    market, active, multipliers = system.market, system.active, system.multipliers
    tolerance, slack = settings.tolerance_usd_per_mwh, settings.tolerance_pu
    if market.is_coupled:
        tolerance = max(tolerance, min(COARSER * system.error, COARSEST))
    wrong = system.has_wrong_sign(tolerance)
    active.column[wrong & ~held] = BASIC
    bounds = (market.row_lower, market.row_upper)
    moved = _correct_rows(
        active.row, multipliers.row, market.matrix @ system.x, bounds, tolerance, slack, system.equality
    )
    moved_limits = _correct_limits(system, tolerance, slack)
    changed = market.intervals_of(np.asarray(moved_limits.any(axis=1)))
    system.moves = int(wrong.sum() + moved.sum() + moved_limits.sum())
    changed[system.column_interval[wrong]] = True
    changed[system.row_interval[moved]] = True
    return changed


def _correct_limits(system: _System, tolerance: float, slack: float) -> npt.NDArray[np.bool_]:
    """Move limits to the states that their multipliers and values say; (states, k) where any moved.

    Of the limits that were kept with room, the most broken of each kind only.
    """
    softness, limits, value = system.softness, system.formulation.limits, system.point.limit_value
    state, multiplier = system.active.limit, system.multipliers.limit
    may_move = (state != 0) | _worst_of_each_cause(limits, value, state)
    corrected = softness.corrected(state, multiplier, value, tolerance, slack)
    moved = may_move & (corrected != state)
    state[moved] = corrected[moved]
    multiplier[moved] = np.clip(multiplier, *softness.multiplier_range_at(state))[moved]
    return moved


def _worst_of_each_cause(limits: Limits, value: FloatArray, state: StateArray) -> npt.NDArray[np.bool_]:
    """(states, k) True for the most broken voltage and the most broken flow of each state that may not be broken."""
    broken = np.where(np.abs(state) < BROKEN, violation(limits, value), 0.0)
    worst = np.zeros(value.shape, bool)
    for cause in (VOLTAGE, CONGESTION, UNBALANCE):
        own = np.flatnonzero(limits.cause == cause)
        if len(own):
            worst[np.arange(len(value)), own[np.argmax(broken[:, own], axis=1)]] = True
    return worst


def _correct_rows(
    state: npt.NDArray[np.int8],
    dual: FloatArray,
    value: FloatArray,
    bounds: tuple[FloatArray, FloatArray],
    tolerance: float,
    slack: float,
    equality: npt.NDArray[np.bool_],
) -> npt.NDArray[np.bool_]:
    """Drop rows whose multiplier has the wrong sign, add inactive ones that are broken; True where any moved."""
    drop = (state != 0) & (dual * state > tolerance)
    below, above = (state == 0) & (value < bounds[0] - slack), (state == 0) & (value > bounds[1] + slack)
    drop, below, above = drop & ~equality, below & ~equality, above & ~equality
    state[drop], state[below], state[above] = 0, -1, 1
    dual[drop] = 0.0
    return drop | below | above
