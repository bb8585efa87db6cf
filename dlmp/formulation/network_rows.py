"""Rows that the network adds to the market's LP, pass by pass.

* Import: ``P0 >= P0_j + grad P0_j (s - s_j)`` for every pass j so far.  Import is all but convex in
  the injections, so an old cut stays valid; one that lies above the AC import of a later point is
  dropped.  Where one more kW of import would be *worth* something (a negative price) the relaxation
  would invent losses: such an interval gets the newest tangent as an equality.
* Reactive import: the newest tangent, as an equality.
* Limits: tangents of those that were near or over their bound at some pass, or that the LP's own
  solution is predicted to break.  A voltage keeps its newest tangents only.  Branch flows are convex:
  their tangents stay, under the same check as the import's.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dlmp.formulation.interface import Formulation, Limits, OperatingPoint, Weights
from dlmp.formulation.market_lp import MarketLp
from dlmp.formulation.softness import Slack, Softness, slack_columns, with_slack
from dlmp.network.model import FloatArray, IntArray
from dlmp.solve import LinearProgram

IMPORT_P, IMPORT_Q, LIMIT = 0, 1, 2
FIRST_LIMIT_KEY = 4 * 2**32
"""Keys from here on belong to limits (`Rows.key`)."""
NEAR = 0.003
"""A limit is monitored once its value comes this close to the bound, relative to the bound."""
PREDICTED = 1e-7
"""A prediction must break a limit by this much, relative to the bound, to be cut off."""
INVALID_PU = 1e-9
"""A tangent above the true value by more than this, relative, is dropped."""
MOST_PER_INTERVAL = 12
"""Limits added to an interval in one pass, the worst first."""


@dataclass(frozen=True, eq=False)
class Rows:
    """A block of rows ``lower <= gradient (p, q) + (P0 or Q0) <= upper``, one network state each.

    Parameters
    ----------
    kind
        `IMPORT_P`, `IMPORT_Q` or `LIMIT`.
    serial
        Number of the block where older blocks of the kind are kept, else 0.
    state, limit
        (i,) State, the first of which are the intervals as scheduled, and limit or -1.
    gradient
        (i, 2, r) Coefficients of the resources' real and reactive injections [pu/pu].
    lower, upper
        (i,) Bounds [pu].
    """

    kind: int
    serial: int
    state: IntArray
    limit: IntArray
    gradient: FloatArray
    lower: FloatArray
    upper: FloatArray

    def only(self, keep: npt.NDArray[np.bool_]) -> "Rows":
        """The rows where `keep` is True."""
        return Rows(
            self.kind,
            self.serial,
            self.state[keep],
            self.limit[keep],
            self.gradient[keep],
            self.lower[keep],
            self.upper[keep],
        )

    def key(self) -> npt.NDArray[np.int64]:
        """(i,) A number for each row that is the same from pass to pass."""
        return ((self.limit + 1) * 4 + self.kind) * 2**32 + self.state * 2**16 + self.serial


@dataclass
class NetworkRows:
    """The network rows of a clearing in progress.

    Attributes
    ----------
    is_equality
        (t,) True where the import follows its newest tangent exactly.
    softness
        How far the limits may give way.
    excess
        (states, k) How far the LP let each limit be above its upper bound, or if negative below its lower, when it was
        last asked [pu].
    watched
        (states, k) True for the limits that are in the LP.
    """

    market: MarketLp
    formulation: Formulation
    kept: list[Rows] = field(default_factory=list)
    newest: list[Rows] = field(default_factory=list)

    def __post_init__(self) -> None:
        shape = (len(self.market.state_interval), len(self.formulation.limits))
        self.softness = Softness.of(self.formulation.limits, self.market.penalties)
        self.excess = np.zeros(shape)
        self.watched = np.zeros(shape, bool)
        self._serial = 0
        self.is_equality = self.market.columns.cost[:, self.market.template.blocks["import_p"]].ravel() < 0

    def given_to(self, market: MarketLp, formulation: Formulation) -> "NetworkRows":
        """What holds in a `market` with the same states, and perhaps more behind them, on its `formulation`."""
        same_load = ~market.has_other_load(self.market)
        kept, newest = (
            [own for part in parts if len((own := part.only(same_load[market.state_interval[part.state]])).state)]
            for parts in (self.kept, self.newest)
        )
        rows = NetworkRows(market, formulation, kept, newest)
        known = slice(len(self.excess))
        rows.excess[known], rows.watched[known] = self.excess, self.watched
        rows.is_equality, rows._serial = rows.is_equality | self.is_equality, self._serial
        return rows

    def add_point(self, point: OperatingPoint, x: FloatArray, is_open: npt.NDArray[np.bool_] | None = None) -> None:
        """Take the tangents at `point`, the state of dispatch `x`, into the LP: of the (t,) intervals that are open."""
        power, every = self.market.power(x), np.arange(self.market.intervals)
        near = worth_watching(self.formulation.limits, point.limit_value - self.excess)
        own = np.ones((len(near), 1), bool)
        if is_open is not None:
            own, every = self.market.states_of(is_open)[:, None], np.flatnonzero(is_open)
            near &= own
        self.watched |= near
        self._drop_invalid(point, power)
        self._serial += 1
        real, reactive = (self.market.spread(g) for g in point.import_gradients(self.market.ports, every))
        base = point.import_pu.real[every] - (real * power[every]).sum(axis=(1, 2))
        none = np.full(len(every), -1)
        upper = np.where(self.is_equality[every], base, np.inf)
        self.kept.append(Rows(IMPORT_P, self._serial, every, none, -real, base, upper))
        base = point.import_pu.imag[every] - (reactive * power[every]).sum(axis=(1, 2))
        self.newest = [Rows(IMPORT_Q, 0, every, none, -reactive, base, base)]
        convex = self.formulation.limits.convex
        state, limit = np.nonzero(np.where(convex, near, self.watched) & own)
        gradient = point.limit_gradients(state, limit, self.market.ports)
        self._add_tangents(state, limit, gradient, point.limit_value[state, limit], power)

    def add_predicted(self, point: OperatingPoint, x: FloatArray, is_open: npt.NDArray[np.bool_] | None = None) -> bool:
        """Cut off what the LP's solution `x` breaks, to first order at `point`; False when it breaks nothing new.

        In the (t,) intervals that are open; default: in all.
        """
        limits, injection = self.formulation.limits, self.market.injection(x)
        value = point.predicted_limits(injection)
        broken = worth_watching(limits, value - self.excess, margin=-PREDICTED) & (limits.convex | ~self.watched)
        if is_open is not None:
            broken &= self.market.states_of(is_open)[:, None]
        if not broken.any():
            return False
        self.watched |= broken
        self._serial += 1
        state, limit = np.nonzero(broken)
        gradient = point.predicted_limit_gradients(injection, state, limit, self.market.ports)
        power = self.market.power(x)
        self._add_tangents(state, limit, gradient, value[state, limit], power)
        return True

    def _add_tangents(
        self, state: IntArray, limit: IntArray, gradient: FloatArray, value: FloatArray, power: FloatArray
    ) -> None:
        """Add tangents of limits with `gradient` (i, 2, ports) and `value` (i,) at `power` (states, 2, r)."""
        limits, gradient = self.formulation.limits, self.market.spread(gradient)
        base = value - (gradient * power[state]).sum(axis=(1, 2))
        lower, upper = limits.lower[limit] - base, limits.upper[limit] - base
        convex = limits.convex[limit]
        self.kept.append(Rows(LIMIT, self._serial, state, limit, gradient, lower, upper).only(convex))
        self.newest.append(Rows(LIMIT, 0, state, limit, gradient, lower, upper).only(~convex))

    def _drop_invalid(self, point: OperatingPoint, power: FloatArray) -> None:
        """Drop old tangents that the new point disproves, and all old import cuts of equality intervals."""
        kept = []
        for rows in self.kept:
            along = (rows.gradient * power[rows.state]).sum(axis=(1, 2))
            if rows.kind == IMPORT_P:
                value, true = rows.lower - along, point.import_pu.real[rows.state]
                valid = ~self.is_equality[rows.state]
            else:
                value = along + self.formulation.limits.upper[rows.limit] - rows.upper
                true = point.limit_value[rows.state, rows.limit]
                valid = np.ones(len(value), bool)
            kept.append(rows.only(valid & (value <= true + INVALID_PU * (1 + np.abs(true)))))
        self.kept = [rows for rows in kept if len(rows.state)]

    def all_rows(self) -> list[Rows]:
        """Every block of rows now in the LP."""
        return [*self.kept, *self.newest]

    def matrix(self) -> tuple[sparse.csr_array, FloatArray, FloatArray, npt.NDArray[np.int64]]:
        """Coefficients over the market's columns, lower and upper bounds, and the keys of all rows."""
        blocks = self.all_rows()
        own = {IMPORT_P: "import_p", IMPORT_Q: "import_q", LIMIT: None}
        parts = [self.market.network_rows(rows.state, rows.gradient, own[rows.kind]) for rows in blocks]
        return (
            sparse.csr_array(sparse.vstack(parts)),
            np.concatenate([rows.lower for rows in blocks]),
            np.concatenate([rows.upper for rows in blocks]),
            np.concatenate([rows.key() for rows in blocks]),
        )

    def slack(self) -> Slack:
        """Columns by which the rows of `matrix` may be broken."""
        blocks, none = self.all_rows(), np.zeros(0, dtype=np.int64)
        state, limit = (
            np.concatenate([none, *(getattr(rows, name) for rows in blocks)]) for name in ("state", "limit")
        )
        steepest = np.concatenate([none, *(np.abs(rows.gradient).max(axis=(1, 2), initial=0.0) for rows in blocks)])
        return slack_columns(self.softness, state, limit, steepest)

    def programme(self, cost: FloatArray, slack: Slack) -> LinearProgram:
        """The market's LP at `cost` (columns,) under all rows, with the columns of `slack` at its end."""
        network, lower, upper, _ = self.matrix()
        market = self.market
        hard = LinearProgram(
            cost,
            market.columns.lower.ravel(),
            market.columns.upper.ravel(),
            sparse.csr_array(sparse.vstack([market.matrix, network])),
            np.concatenate([market.row_lower, lower]),
            np.concatenate([market.row_upper, upper]),
        )
        return with_slack(hard, slack)

    def note_excess(self, slack: Slack, amount: FloatArray) -> None:
        """Remember how far the LP breaks the limits, with the columns of `slack` at `amount` (c,)."""
        self.excess = slack.excess(amount, self.softness, len(self.excess))

    def weights(self, dual: FloatArray) -> Weights:
        """Multipliers by import and limit from the `dual` of every row of `matrix`."""
        states, count = self.watched.shape
        real, reactive = np.zeros(states), np.zeros(states)
        limits = sparse.csr_array((states, count))
        start = 0
        for rows in self.all_rows():
            own = dual[start : start + len(rows.state)]
            start += len(own)
            if rows.kind == IMPORT_P:
                np.add.at(real, rows.state, own)
            elif rows.kind == IMPORT_Q:
                np.add.at(reactive, rows.state, own)
            else:
                binding = own != 0
                entries = (own[binding], (rows.state[binding], rows.limit[binding]))
                limits = limits + sparse.csr_array(entries, shape=limits.shape)
        return Weights(real, reactive, sparse.csr_array(limits))


def limit_of(key: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Limits of rows with these keys (`Rows.key`)."""
    return key // FIRST_LIMIT_KEY - 1


def violation(limits: Limits, value: FloatArray) -> FloatArray:
    """(t, k) How far each limited quantity lies outside its bounds [pu]; 0 inside."""
    return np.maximum(np.maximum(limits.lower - value, value - limits.upper), 0.0)


def worth_watching(
    limits: Limits, value: FloatArray, margin: float = NEAR, most: int = MOST_PER_INTERVAL
) -> npt.NDArray[np.bool_]:
    """(t, k) True for the `most` worst of the limits over a bound or within a relative `margin` of it."""
    scale = np.where(np.isfinite(limits.upper), np.abs(limits.upper), np.abs(limits.lower))
    excess = np.maximum(limits.lower - value, value - limits.upper) / np.maximum(scale, 1e-9)
    if excess.shape[1] > most:
        worst = -np.partition(-excess, most - 1, axis=1)[:, most - 1]
        return (excess > -margin) & (excess >= worst[:, None])
    return excess > -margin
