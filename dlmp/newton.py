"""The Newton finish: from the LP's basis to a point that meets the optimality conditions exactly.

The LP says which columns lie strictly between their bounds and which rows bind.  Those make the
system (DESIGN: the reduced KKT conditions of the nonlinear problem)

    [H  J^T] [ dx]   [-(c - J^T y)]
    [J   0 ] [-dy] = [ b - g(x)   ]

with the exact Hessian of ``w P0(x) - sum y g(x)``.  After each step the sets are corrected: a column
that left its bounds is held there, a held column whose reduced cost has the wrong sign is let go, a
row whose multiplier has the wrong sign is dropped, a limit that is broken is added (a primal-dual
active set method; Hintermueller, Ito and Kunisch, SIAM J. Optim. 13(3), 2003).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.linalg import splu

from dlmp.formulation.interface import Formulation, OperatingPoint, Weights
from dlmp.formulation.market_lp import MarketLp
from dlmp.network.model import FloatArray, IntArray
from dlmp.settings import Settings
from dlmp.solve import AT_LOWER, AT_UPPER, BASIC, StatusArray

MAX_STEPS = 25
PROXIMAL = 1e-9
"""Damping of both blocks, which vanishes at the solution: keeps the system regular."""
RANK_TOLERANCE = 1e-9


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
        (t, k) The same for the limits.
    """

    column: StatusArray
    row: StatusArray
    limit: npt.NDArray[np.int8]

    def key(self) -> bytes:
        """A value that is equal for equal sets."""
        return self.column.tobytes() + self.row.tobytes() + self.limit.tobytes()


@dataclass
class Multipliers:
    """Duals of the market's rows (r,) and of the network."""

    row: FloatArray
    import_p: FloatArray
    import_q: FloatArray
    limit: FloatArray

    @classmethod
    def zero(cls, market: MarketLp, limit_count: int) -> "Multipliers":
        """Duals of zero, of the right shapes."""
        shape = market.intervals
        return cls(np.zeros(len(market.row_lower)), np.zeros(shape), np.zeros(shape), np.zeros((shape, limit_count)))

    def weights(self) -> Weights:
        """As weights of an operating point."""
        return Weights(self.import_p, self.import_q, sparse.csr_array(self.limit))


@dataclass(frozen=True, eq=False)
class Optimum:
    """A point that meets the optimality conditions: dispatch, state, multipliers, largest error."""

    x: FloatArray
    point: OperatingPoint
    multipliers: Multipliers
    error_usd_per_mwh: float


def newton_finish(
    market: MarketLp,
    formulation: Formulation,
    x: FloatArray,
    point: OperatingPoint,
    active: ActiveSet,
    multipliers: Multipliers,
    settings: Settings,
) -> Optimum | None:
    """Find the optimum near dispatch `x` with active sets near `active`.

    Parameters
    ----------
    market, formulation
        The problem.
    x, point
        (c,) Dispatch to start from, and its state.
    active, multipliers
        First guess; both are changed in place.
    settings
        Tolerances.

    Returns
    -------
    The optimum, or None when the sets do not settle, the power flow fails or the point is no minimum.
    """
    seen: set[bytes] = set()
    held = np.zeros(len(x), bool)
    for step in range(MAX_STEPS):
        system = _System(market, formulation, x, point, active, multipliers)
        if step:
            if _correct_sets(system, held, settings):
                if active.key() in seen:
                    return None
                seen.add(active.key())
                system = _System(market, formulation, x, point, active, multipliers)
            elif system.is_solved(settings):
                return Optimum(x, point, multipliers, system.error) if system.is_minimum() else None
        moved = system.step()
        if moved is None:
            return None
        x, multipliers = moved
        x, held = _hold(market, x, active, settings.tolerance_pu * 0.01)
        point = formulation.operate(market.injection(x), point)
        if not point.converged.all():
            return None
    return None


def _hold(
    market: MarketLp, x: FloatArray, active: ActiveSet, slack: float
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Clip `x` to its bounds and hold the columns that left them; also returns which."""
    lower, upper = market.columns.lower.ravel(), market.columns.upper.ravel()
    below, above = x < lower - slack, x > upper + slack
    active.column[below], active.column[above] = AT_LOWER, AT_UPPER
    return np.clip(x, lower, upper), below | above


class _System:
    """The optimality conditions at a point, for given active sets."""

    def __init__(
        self,
        market: MarketLp,
        formulation: Formulation,
        x: FloatArray,
        point: OperatingPoint,
        active: ActiveSet,
        multipliers: Multipliers,
    ):
        self.market, self.formulation = market, formulation
        self.x, self.point, self.active, self.multipliers = x, point, active, multipliers
        limits = formulation.limits
        self.equality = market.row_lower == market.row_upper
        self.fixed = market.columns.lower.ravel() == market.columns.upper.ravel()
        self.rows = np.flatnonzero(self.equality | (active.row != 0))
        self.interval, self.limit = np.nonzero(active.limit)
        self.jacobian = sparse.csr_array(sparse.vstack([market.matrix[self.rows], self._network_rows()]))
        self.dual = np.concatenate(
            [
                multipliers.row[self.rows],
                multipliers.import_p,
                multipliers.import_q,
                multipliers.limit[self.interval, self.limit],
            ]
        )
        target = np.where(active.row < 0, market.row_lower, market.row_upper)[self.rows]
        at_lower = active.limit[self.interval, self.limit] < 0
        bound = np.where(at_lower, limits.lower[self.limit], limits.upper[self.limit])
        self.residual = np.concatenate(
            [
                target - market.matrix[self.rows] @ x,
                point.import_pu.real - x[market.block("import_p").ravel()],
                point.import_pu.imag - x[market.block("import_q").ravel()],
                bound - point.limit_value[self.interval, self.limit],
            ]
        )
        self.reduced = market.columns.cost.ravel() - self.jacobian.T @ self.dual
        self.free = np.flatnonzero((active.column == BASIC) & ~self.fixed)
        self.error = float(np.abs(self.reduced[self.free]).max(initial=0.0))

    def _network_rows(self) -> sparse.csr_array:
        """Gradients of ``P0 - f`` and ``Q0 - f`` of every interval, and of the active limits."""
        market = self.market
        every = np.arange(market.intervals)
        real, reactive = (market.spread(g) for g in self.point.import_gradients(market.nodes))
        bound = market.spread(self.point.limit_gradients(self.interval, self.limit, market.nodes))
        return sparse.csr_array(
            sparse.vstack(
                [
                    market.network_rows(every, -real, "import_p"),
                    market.network_rows(every, -reactive, "import_q"),
                    market.network_rows(self.interval, bound),
                ]
            )
        )

    def is_solved(self, settings: Settings) -> bool:
        """True when the conditions hold to the settings' tolerances."""
        broken = float(np.abs(self.residual).max(initial=0.0))
        return self.error <= settings.tolerance_usd_per_mwh and broken <= settings.tolerance_pu

    def step(self) -> tuple[FloatArray, Multipliers] | None:
        """Take one Newton step on the free columns; None when the system is singular."""
        here = self.jacobian[:, self.free]
        damping = PROXIMAL * sparse.eye_array(len(self.free))
        corner = -PROXIMAL * sparse.eye_array(len(self.dual))
        system = sparse.csc_array(sparse.block_array([[self.hessian() + damping, here.T], [here, corner]]))
        try:
            change = splu(system).solve(np.concatenate([-self.reduced[self.free], self.residual]))
        except RuntimeError:
            return None
        x = self.x.copy()
        x[self.free] += change[: len(self.free)]
        dual = self.dual - change[len(self.free) :]
        ends = np.cumsum([len(self.rows), self.market.intervals, self.market.intervals])
        multipliers = Multipliers.zero(self.market, len(self.formulation.limits))
        multipliers.row[self.rows], multipliers.import_p, multipliers.import_q, bound = np.split(dual, ends)
        multipliers.limit[self.interval, self.limit] = bound
        return x, multipliers

    def hessian(self) -> sparse.csr_array:
        """Second derivatives of the Lagrangian by the free columns."""
        position = np.full(len(self.x), -1)
        position[self.free] = np.arange(len(self.free))
        where = position[self.market.network_columns]
        interval, reactive, resource = np.nonzero(where >= 0)
        node, place = self.market.case.resources.node[resource], where[interval, reactive, resource]
        lagrangian = self.point.lagrangian(self.multipliers.weights())
        total = sparse.coo_array((len(self.free), len(self.free)))
        parts = []
        for this in np.unique(interval):
            own = np.flatnonzero(interval == this)
            block = lagrangian.hessian(int(this), node[own], reactive[own] == 1)
            parts.append((block.ravel(), np.repeat(place[own], len(own)), np.tile(place[own], len(own))))
        if not parts:
            return sparse.csr_array(total)
        value, row, column = (np.concatenate(part) for part in zip(*parts, strict=True))
        return sparse.csr_array((value, (row, column)), shape=total.shape)

    def is_minimum(self) -> bool:
        """True when nothing curves downwards along the directions that the binding rows leave open."""
        hessian, here = self.hessian(), sparse.csc_array(self.jacobian[:, self.free])
        interval = self.free // self.market.width
        for this in np.unique(interval):
            own = np.flatnonzero(interval == this)
            block = here[:, own].toarray()
            block = block[np.abs(block).max(axis=1, initial=0.0) > 0]
            _, size, basis = np.linalg.svd(block)
            across = basis[(size > RANK_TOLERANCE).sum() :]
            curvature = np.linalg.eigvalsh(across @ hessian[own][:, own].toarray() @ across.T)
            if curvature.min(initial=0.0) < -RANK_TOLERANCE:
                return False
        return True


def _correct_sets(system: _System, held: npt.NDArray[np.bool_], settings: Settings) -> bool:
    """Move columns, rows and limits between the sets as signs and violations say; True when any moved."""
    market, active, multipliers = system.market, system.active, system.multipliers
    tolerance, slack = settings.tolerance_usd_per_mwh, settings.tolerance_pu
    wrong_sign = np.where(active.column == AT_LOWER, -system.reduced, system.reduced) > tolerance
    release = (active.column != BASIC) & ~system.fixed & ~held & wrong_sign
    active.column[release] = BASIC
    limits, bounded = system.formulation.limits, ~system.equality
    row_changed = _correct_rows(
        active.row, multipliers.row, market.matrix @ system.x, (market.row_lower, market.row_upper), bounded, tolerance, slack
    )
    limit_changed = _correct_rows(
        active.limit, multipliers.limit, system.point.limit_value, (limits.lower, limits.upper), True, tolerance, slack
    )
    return bool(release.any()) or row_changed or limit_changed


def _correct_rows(
    state: npt.NDArray[np.int8],
    dual: FloatArray,
    value: FloatArray,
    bounds: tuple[FloatArray, FloatArray],
    may_change: npt.NDArray[np.bool_] | bool,
    tolerance: float,
    slack: float,
) -> bool:
    """Drop rows whose multiplier has the wrong sign, add inactive ones that are broken."""
    drop = may_change & (state != 0) & (-dual * state < -tolerance)
    below = may_change & (state == 0) & (value < bounds[0] - slack)
    above = may_change & (state == 0) & (value > bounds[1] + slack)
    state[drop], state[below], state[above] = 0, -1, 1
    dual[drop] = 0.0
    return bool(drop.any() or below.any() or above.any())
