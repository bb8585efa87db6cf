"""The Newton finish: from the LP's basis to a point that meets the optimality conditions exactly.

The LP says which columns lie strictly between their bounds and which rows bind.  Those make the system of a Newton step
(`dlmp.optimality`).  After each step the sets are corrected: a column that left its bounds is held there, a held column
whose reduced cost has the wrong sign is let go, a row whose multiplier has the wrong sign is dropped, a limit that is
broken is added (a primal-dual active set method; Hintermueller, Ito and Kunisch, SIAM J. Optim. 13(3), 2003).  Sets
that begin to repeat, as they do among many free reactive powers, are replaced by those of the interval's quadratic
programme.

Where very many injections can move, the programmes have the unknowns of the network's states beside the market's
columns, and so do the systems of steps where many are free.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dlmp.curvature import Curvature
from dlmp.formulation.interface import CONGESTION, UNBALANCE, VOLTAGE, Formulation, Limits, OperatingPoint
from dlmp.formulation.market_lp import MarketLp
from dlmp.formulation.network_rows import violation
from dlmp.formulation.softness import BROKEN, Softness, StateArray, is_held
from dlmp.holding import Held
from dlmp.network.model import FloatArray, IntArray
from dlmp.networkmodel import ReducedNetwork, StatesNetwork
from dlmp.optimality import ActiveSet, Conditions, Multipliers
from dlmp.quadratic import Effort, QuadraticModel
from dlmp.reducedconditions import ReducedConditions
from dlmp.settings import Settings
from dlmp.solve import AT_LOWER, AT_UPPER, BASIC
from dlmp.stateconditions import StateConditions
from dlmp.timing import PhaseClock

MAX_STEPS, MAX_QUADRATIC_STEPS, STEPS_AFTER_QUADRATIC = 8, 8, 8
FAR = Effort(rounds=1, tolerance=1e-5)
"""Of a coupled horizon's first quadratic programme, which says which decisions to hold."""
NEAR, NEAR_COUPLED = Effort(), Effort(few=50)
"""Of the next one: along a coupled horizon a Newton step is cheaper than another round for few corrections."""
EXACT = Effort(tolerance=1e-12)
"""Of those after a Newton finish that failed: limits that hardly bind must be told from those that hardly do not.
With the states as columns PIQP does not come so near, and `dlmp.solve.QP_TOLERANCE` has to do."""
FEW_REACTIVE = 60
"""Among more free reactive powers than this the sets go in circles, as they do along a coupled horizon: begin with
the quadratic programme."""
FEW_INJECTIONS, FEW_BY_NODE, MANY_INJECTIONS, REACTIVE_COUNTS = 400, 0.1, 1000, 3
"""With more injections that can move, and more of them to a node, gradients and Hessians by all of them cost more than
the states beside them; with very many, whatever the nodes.  Reactive ones, of which most are free, count more
(measured)."""
FEW_FREE = 200
"""So many injections that the sets leave free in any interval, and limits held in one, have gradients and Hessians
that cost less than systems with the states: prices leave few bids between their bounds, however many there are."""
MOST_PROGRAMMES_WITH_STATES = 2
"""Whose sets a finish tries before it does without the states, if at most `MANY_INJECTIONS` can move: such programmes
do not tell the last reactive powers apart."""
NEAR_PRICE = 0.02
"""A bid this near to its price may be accepted in part, relative to the dearest energy at the substation."""
MORE_MOVES, FEW_MOVES = 4, 200
"""Corrections of a coupled horizon's sets may grow by this factor, or be so few: a step is cheaper than its quadratic
programme."""
FAR_OFF = 1e-3
"""Above this error of a coupled horizon's optimality conditions [currency/MWh] the multipliers are estimated anew
before a step, once a finish has failed: the damping of rows would turn it into a move."""
COARSER, COARSEST = 10.0, 1e-2
"""Signs of reduced costs in a coupled horizon are told by this multiple of the error that is left, and at most so
coarsely [currency/MWh]."""


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
    *,
    has_basis: bool = True,
    may_keep_states: bool = True,
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
    has_basis
        False where the active sets are those of no solution, not worth a try by themselves.
    may_keep_states
        False where all is to be done by gradients and Hessians, whatever that costs: their quadratic programmes know
        the curvature better.

    Returns
    -------
    The optimum, in which the intervals are open whose sets do not settle, whose power flow fails or
    whose point is no minimum; those stand where they started.
    """
    search = _Search(market, formulation, settings, clock, x, point, active, multipliers)
    search.keeps_states &= may_keep_states
    if known is not None:
        search.restore(_State(known.x, known.active, known.multipliers), ~known.is_open)
        search.is_open &= known.is_open
    start = search.state()
    search.find_marginal()
    is_basis_last = search.has_many_reactive or search.keeps_states or market.is_coupled
    if has_basis and not is_basis_last:
        search.settle(MAX_STEPS)
    search.restore(start, search.is_open)
    if market.is_coupled:
        search.quadratic_step(FAR)
    effort = NEAR_COUPLED if market.is_coupled else NEAR
    for number in range(MAX_QUADRATIC_STEPS):
        if not (search.is_open & ~search.has_failed).any():
            break
        if number == MOST_PROGRAMMES_WITH_STATES:
            search.leave_states()
        search.quadratic_step(effort)
        stand, has_failed = search.state(), search.has_failed.copy()
        search.settle(STEPS_AFTER_QUADRATIC, estimates=market.is_coupled and effort is EXACT)
        search.restore(stand, search.is_open)
        search.has_failed = has_failed  # a Newton step that leads nowhere leaves the next programme a try
        effort = EXACT
    if has_basis and is_basis_last:
        # An interior point does not tell tiny quantities from none: the basis does.
        search.restore(start, search.is_open)
        search.has_failed[:] = False
        search.settle(MAX_STEPS)
    search.reopen_saddles(np.ones(market.intervals, bool) if known is None else known.is_open)
    search.restore(start, search.is_open)
    error = search.system(~search.is_open).error
    excess = search.softness.excess_at(search.active.limit, search.point.limit_value)
    return Optimum(search.x, search.point, search.active, search.multipliers, search.is_open, error, excess)


def keeps_states(market: MarketLp, point: OperatingPoint, curvature: Curvature | None = None) -> bool:
    """True where a finish has the unknowns of the network's states beside the market's columns."""
    if market.is_coupled or point.state_equations is None:
        return False
    movable = (curvature or Curvature(market)).movable
    few = np.clip(FEW_BY_NODE * market.case.network.node_count, FEW_INJECTIONS, MANY_INJECTIONS)
    return bool((movable.sum(axis=2) @ [1, REACTIVE_COUNTS]).max(initial=0) > few)


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
    has_many_reactive, keeps_states
        True where very many reactive powers are free, and where the states' unknowns are columns.
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
        self.has_many_reactive = bool(self.curvature.movable[:, 1].sum(axis=1).max(initial=0) > FEW_REACTIVE)
        self.keeps_states = keeps_states(market, point, self.curvature)

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

    def system(self, is_open: npt.NDArray[np.bool_]) -> Conditions:
        """Optimality conditions of the intervals in `is_open`, here and now."""
        kind = StateConditions if self.keeps_states and self._has_many_free(is_open) else ReducedConditions
        return kind(
            self.market,
            self.formulation,
            self.softness,
            self.clock,
            self.x,
            self.point,
            self.active,
            self.multipliers,
            is_open,
            self.curvature,
        )

    def _has_many_free(self, is_open: npt.NDArray[np.bool_]) -> bool:
        """True where what the sets leave free in the intervals of `is_open`, and the limits held there, are many."""
        states = self.market.states_of(is_open)
        free = self.curvature.wanted(self.active.column)[states].any(axis=0).sum()
        return bool(free + is_held(self.active.limit[states]).sum(axis=1).max(initial=0) > FEW_FREE)

    def leave_states(self) -> None:
        """Do without the states as columns where that can be afforded."""
        if self.keeps_states and self.curvature.movable.sum(axis=(1, 2)).max(initial=0) <= MANY_INJECTIONS:
            self.keeps_states = False
            self.find_marginal()

    def find_marginal(self) -> None:
        """Note what a reduced quadratic model must know to curve: reactive power, and bids near their price."""
        market = self.market
        if self.keeps_states:
            return
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

    def _is_near_price(self, system: Conditions) -> npt.NDArray[np.bool_]:
        """(c,) True for the columns whose reduced cost is small beside the price of energy."""
        return np.abs(system.reduced) <= NEAR_PRICE * np.abs(self.multipliers.import_p).max(initial=1.0)

    def settle(self, steps: int, *, estimates: bool = False) -> None:
        """Step and correct the sets of open intervals until each is solved or its sets repeat.

        With `estimates` of the multipliers before steps from far off: each costs as much as a step.
        """
        market, history = self.market, _History(self.market)
        held, is_stuck = np.zeros(len(self.x), bool), np.zeros(market.intervals, bool)
        for step in range(steps + 1):
            trying = self.is_open & ~self.has_failed & ~is_stuck
            if not trying.any():
                return
            system = self.system(trying)
            if step:
                changed = _correct_sets(system, held, self.settings)
                is_solved = ~changed & system.solved_intervals(self.settings)
                self.is_open &= ~trying | market.together(trying & ~is_solved)
                is_stuck |= history.leads_nowhere(self.active, system.moves, changed & self.is_open)
                trying &= self.is_open & ~is_stuck
                if not trying.any():
                    return
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
        with self.clock.phase("gradients"):
            around = market, self.x, self.point, weights
            network = StatesNetwork(*around) if self.keeps_states else ReducedNetwork(*around, self.curvature)
        model = QuadraticModel(
            market, self.formulation, self.x, self.point, weights, self._held(), network, effort, self.clock
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


class _History:
    """What the sets of intervals that are solved together were before, and how much of them was corrected last."""

    def __init__(self, market: MarketLp):
        self.market = market
        self._seen: set[tuple[int, bytes]] = set()
        self._last_moves = np.full(market.intervals, np.inf)

    def leads_nowhere(
        self, active: ActiveSet, moves: IntArray, changed: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.bool_]:
        """(t,) True for the intervals whose `changed` sets were there before, or that need more `moves` than last."""
        market, stuck = self.market, np.zeros(self.market.intervals, bool)
        for group in market.groups(np.flatnonzero(market.together(changed))):
            first, own = int(group[0]), int(moves[group].sum())
            key = first, active.of(market, group).key()
            last = self._last_moves[first]
            stuck[group] = key in self._seen or own > (max(MORE_MOVES * last, FEW_MOVES) if market.is_coupled else last)
            self._seen.add(key)
            self._last_moves[first] = own
        return stuck


def _hold(market: MarketLp, x: FloatArray, active: ActiveSet, slack: float) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Clip `x` to its bounds and hold the columns that left them; also returns which."""
    lower, upper = market.columns.lower.ravel(), market.columns.upper.ravel()
    below, above = x < lower - slack, x > upper + slack
    active.column[below], active.column[above] = AT_LOWER, AT_UPPER
    x, active.column = market.with_sums_free(np.clip(x, lower, upper), active.column)
    return x, below | above


def _correct_sets(system: Conditions, held: npt.NDArray[np.bool_], settings: Settings) -> npt.NDArray[np.bool_]:
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
    np.add.at(system.moves, system.column_interval[wrong], 1)
    np.add.at(system.moves, system.row_interval[moved], 1)
    np.add.at(system.moves, market.state_interval, moved_limits.sum(axis=1))
    changed[system.column_interval[wrong]] = True
    changed[system.row_interval[moved]] = True
    return changed


def _correct_limits(system: Conditions, tolerance: float, slack: float) -> npt.NDArray[np.bool_]:
    """Move limits to the states that their multipliers and values say; (states, k) where any moved.

    Of the limits that were kept with room, the most broken of each kind only.
    """
    softness, limits, value = system.softness, system.formulation.limits, system.point.limit_value
    state, multiplier = system.active.limit, system.multipliers.limit
    own = np.nonzero((state != 0) | _worst_of_each_cause(limits, value, state))
    corrected = softness.corrected(state[own], own[1], multiplier[own], value[own], tolerance, slack)
    moved = np.zeros(state.shape, bool)
    moved[own] = corrected != state[own]
    state[own] = corrected
    least, most = softness.multiplier_range_at(state[moved], np.nonzero(moved)[1])
    multiplier[moved] = np.clip(multiplier[moved], least, most)
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
