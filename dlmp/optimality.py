"""The optimality conditions of a dispatch at a point, for given active sets.

With c the marginal cost at x, J the rows that bind and y their multipliers: ``c - J^T y = 0`` for the columns that are
free, and the rows at their bounds.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.linalg import splu

from dlmp.curvature import Curvature
from dlmp.formulation.interface import Formulation, OperatingPoint, Weights
from dlmp.formulation.market_lp import MarketLp
from dlmp.formulation.softness import Softness, StateArray, is_held
from dlmp.network.model import FloatArray, IntArray
from dlmp.settings import Settings
from dlmp.solve import BASIC, StatusArray, gain_of_leaving
from dlmp.timing import PhaseClock

PROXIMAL = 1e-9
"""Damping of columns and rows of a Newton step, which vanishes at the solution: keeps the system regular."""
OF_STATES = ("import_p", "import_q", "limit")
"""Multipliers that each network state has of its own."""
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

    def of(self, market: MarketLp, intervals: IntArray) -> "ActiveSet":
        """The sets of some `intervals` alone."""
        column, row = (values.reshape(market.intervals, -1)[intervals] for values in (self.column, self.row))
        return ActiveSet(column.ravel(), row.ravel(), self.limit[np.isin(market.state_interval, intervals)])

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
        for name in OF_STATES:
            getattr(self, name)[states] = getattr(other, name)[states]

    def weights(self) -> Weights:
        """As weights of an operating point."""
        return Weights(self.import_p, self.import_q, sparse.csr_array(self.limit))


class Conditions(ABC):
    """The conditions, and the Newton step towards them; how the network enters is for a subclass to say.

    Attributes
    ----------
    rows, state, limit
        The market's rows that bind, and the limits that do in their states.
    dual, residual
        Their multipliers, and how far they are from their bounds: of rows, real and reactive import, limits.
    reduced
        (c,) Reduced costs [currency/MWh].
    free
        Columns that are free.
    moves
        (t,) Corrections of the sets that these conditions led to.
    """

    def __init__(
        self,
        market: MarketLp,
        formulation: Formulation,
        softness: Softness,
        clock: PhaseClock,
        x: FloatArray,
        point: OperatingPoint,
        active: ActiveSet,
        multipliers: Multipliers,
        is_open: npt.NDArray[np.bool_],
        curvature: Curvature,
    ):
        self.market, self.formulation, self.softness, self.clock = market, formulation, softness, clock
        self.x, self.point, self.active, self.multipliers = x, point, active, multipliers
        self.curvature = curvature
        self.moves = np.zeros(market.intervals, dtype=int)
        self.equality = market.row_lower == market.row_upper
        self.fixed = ~market.is_movable
        self.column_interval = np.repeat(np.arange(market.intervals), market.width)
        self.row_interval = np.repeat(np.arange(market.intervals), len(market.template.row_lower))
        self.rows = np.flatnonzero((self.equality | (active.row != 0)) & is_open[self.row_interval])
        self.open, self.open_states = np.flatnonzero(is_open), market.states_of(is_open)
        self.state, self.limit = np.nonzero(is_held(active.limit) & self.open_states[:, None])
        self.priced = np.where(self.open_states[:, None], softness.priced(active.limit), 0.0)
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
        bound = softness.edge_at(active.limit[at_limit], self.limit)
        import_p, import_q = market.block("import_p").ravel()[self.open], market.block("import_q").ravel()[self.open]
        self.residual = np.concatenate(
            [
                target - market.matrix[self.rows] @ x,
                point.import_pu.real[self.open] - x[import_p],
                point.import_pu.imag[self.open] - x[import_q],
                bound - point.limit_value[at_limit],
            ]
        )
        self.reduced = np.where(is_open[self.column_interval], self._reduced_costs(), 0.0)
        self.free = np.flatnonzero((active.column == BASIC) & ~self.fixed & is_open[self.column_interval])

    @abstractmethod
    def _reduced_costs(self) -> FloatArray:
        """(c,) Marginal costs less what rows and limits at their multipliers make of them."""

    @abstractmethod
    def _change(self) -> FloatArray | None:
        """Newton step of the free columns, then, their sign turned, of the multipliers; None where there is none."""

    @abstractmethod
    def is_minimum(self) -> npt.NDArray[np.bool_]:
        """(t,) True where nothing curves downwards along the directions that the binding rows leave open."""

    def estimate_multipliers(self) -> None:
        """Take the multipliers that leave the free columns the least reduced costs, along a coupled horizon."""
        return

    @property
    def error(self) -> float:
        """Largest reduced cost of a free column [currency/MWh]."""
        return float(np.abs(self.reduced[self.free]).max(initial=0.0))

    def has_wrong_sign(self, tolerance: float) -> npt.NDArray[np.bool_]:
        """(c,) True for the columns that are held at a bound which it would pay to leave."""
        gain = gain_of_leaving(self.active.column, self.reduced)
        return (self.active.column != BASIC) & ~self.fixed & (gain > tolerance)

    def solved_intervals(self, settings: Settings) -> npt.NDArray[np.bool_]:
        """(t,) True where the conditions hold to the settings' tolerances."""
        error, broken = np.zeros(self.market.intervals), np.zeros(self.market.intervals)
        np.maximum.at(error, self.column_interval[self.free], np.abs(self.reduced[self.free]))
        np.maximum.at(broken, self.dual_interval, np.abs(self.residual))
        return (error <= settings.tolerance_usd_per_mwh) & (broken <= settings.tolerance_pu / 3)

    def step(self) -> tuple[FloatArray, Multipliers] | None:
        """Take one Newton step on the free columns; None when the system is singular."""
        change = self._change()
        if change is None:
            return None
        x = self.x.copy()
        x[self.free] += change[: len(self.free)]
        return x, self._multipliers(self.dual - change[len(self.free) :])

    def _multipliers(self, dual: FloatArray) -> Multipliers:
        """The multipliers with the duals `dual` of the system's rows."""
        row, real, reactive, limit = np.split(dual, np.cumsum([len(self.rows), len(self.open), len(self.open)]))
        multipliers = self.multipliers.copy()
        multipliers.row[np.isin(self.row_interval, self.open)] = 0.0
        multipliers.limit[self.open_states] = self.priced[self.open_states]
        multipliers.row[self.rows], multipliers.limit[self.state, self.limit] = row, limit
        multipliers.import_p[self.open], multipliers.import_q[self.open] = real, reactive
        return multipliers


def is_convex(hessian: sparse.csc_array, rows: sparse.csc_array) -> bool:
    """True when nothing curves downwards along the directions that `rows` leave open.

    That is when ``H + rho J^T J`` is positive definite for some rho (Debreu, Econometrica 20(2), 1952): its factors
    without row exchanges then have positive pivots.
    """
    is_open, pattern = np.ones(rows.shape[1]), (rows != 0).astype(float)
    while (fixed := pattern[pattern @ is_open == 1].sum(axis=0) * is_open > 0).any():  # a row allows these no change
        is_open[fixed] = 0.0
    own = np.flatnonzero(is_open)
    if not len(own):
        return True
    hessian, rows = hessian[own][:, own], rows[pattern @ is_open > 0][:, own]
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
