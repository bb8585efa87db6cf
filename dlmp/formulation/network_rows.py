"""Rows that the network adds to the market's LP, pass by pass.

* Import: ``P0 >= P0_j + grad P0_j (s - s_j)`` for every pass j so far.  Import is all but convex in
  the injections, so an old cut stays valid; one that lies above the AC import of a later point is
  dropped.  Where one more kW of import would be *worth* something (a negative price) the relaxation
  would invent losses: such an interval gets the newest tangent as an equality.
* Reactive import: the newest tangent, as an equality.
* Limits: the newest tangent of those that were near or over their bound at some pass.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dlmp.formulation.interface import Formulation, Limits, OperatingPoint, Weights
from dlmp.formulation.market_lp import MarketLp
from dlmp.network.model import FloatArray, IntArray

IMPORT_P, IMPORT_Q, LIMIT = 0, 1, 2
FIRST_LIMIT_KEY = 4 * 2**32
"""Keys from here on belong to limits (`Rows.key`)."""
NEAR = 0.003
"""A limit is monitored once its value comes this close to the bound, relative to the bound."""
MOST_PER_INTERVAL = 12
"""Limits added to an interval in one pass, the worst first."""


@dataclass(frozen=True, eq=False)
class Rows:
    """A block of rows ``lower <= gradient (p, q) + (P0 or Q0) <= upper``, one interval each.

    Parameters
    ----------
    kind, pass_number
        `IMPORT_P`, `IMPORT_Q` or `LIMIT`, and the pass whose operating point they touch.
    interval, limit
        (i,) Interval, and limit or -1.
    gradient
        (i, 2, r) Coefficients of the resources' real and reactive injections [pu/pu].
    lower, upper
        (i,) Bounds [pu].
    """

    kind: int
    pass_number: int
    interval: IntArray
    limit: IntArray
    gradient: FloatArray
    lower: FloatArray
    upper: FloatArray

    def only(self, keep: npt.NDArray[np.bool_]) -> "Rows":
        """The rows where `keep` is True."""
        return Rows(
            self.kind,
            self.pass_number,
            self.interval[keep],
            self.limit[keep],
            self.gradient[keep],
            self.lower[keep],
            self.upper[keep],
        )

    def key(self) -> npt.NDArray[np.int64]:
        """(i,) A number for each row that is the same from pass to pass."""
        touched = self.pass_number if self.kind == IMPORT_P else 0
        return ((self.limit + 1) * 4 + self.kind) * 2**32 + self.interval * 2**12 + touched  # limit rows: >= 4 * 2**32


@dataclass
class NetworkRows:
    """The network rows of a clearing in progress.

    Attributes
    ----------
    is_equality
        (t,) True where the import follows its newest tangent exactly.
    watched
        (t, k) True for the limits that are in the LP.
    """

    market: MarketLp
    formulation: Formulation
    cuts: list[Rows] = field(default_factory=list)
    newest: list[Rows] = field(default_factory=list)

    def __post_init__(self) -> None:
        shape = (self.market.intervals, len(self.formulation.limits))
        self.watched = np.zeros(shape, bool)
        self.is_equality = self.market.columns.cost[:, self.market.template.blocks["import_p"]].ravel() < 0

    def add_point(self, pass_number: int, point: OperatingPoint, x: FloatArray) -> None:
        """Take the tangents at `point`, the state of dispatch `x`, into the LP."""
        power = x[self.market.network_columns]
        self.watched |= worth_watching(self.formulation.limits, point.limit_value)
        self._drop_invalid(point, power)
        real, reactive = (self.market.spread(g) for g in point.import_gradients(self.market.nodes))
        base = point.import_pu.real - (real * power).sum(axis=(1, 2))
        every = np.arange(self.market.intervals)
        none = np.full(len(every), -1)
        upper = np.where(self.is_equality, base, np.inf)
        self.cuts.append(Rows(IMPORT_P, pass_number, every, none, -real, base, upper))
        base = point.import_pu.imag - (reactive * power).sum(axis=(1, 2))
        self.newest = [Rows(IMPORT_Q, pass_number, every, none, -reactive, base, base)]
        self._add_limits(pass_number, point, power)

    def _drop_invalid(self, point: OperatingPoint, power: FloatArray) -> None:
        """Drop old cuts that the new point disproves, and all old cuts of equality intervals."""
        kept = []
        for rows in self.cuts:
            value = rows.lower - (rows.gradient * power[rows.interval]).sum(axis=(1, 2))
            real = point.import_pu.real[rows.interval]
            valid = value <= real + 1e-9 * (1 + np.abs(real))
            kept.append(rows.only(valid & ~self.is_equality[rows.interval]))
        self.cuts = [rows for rows in kept if len(rows.interval)]

    def _add_limits(self, pass_number: int, point: OperatingPoint, power: FloatArray) -> None:
        limits = self.formulation.limits
        interval, limit = np.nonzero(self.watched)
        gradient = self.market.spread(point.limit_gradients(interval, limit, self.market.nodes))
        base = point.limit_value[interval, limit] - (gradient * power[interval]).sum(axis=(1, 2))
        self.newest.append(
            Rows(LIMIT, pass_number, interval, limit, gradient, limits.lower[limit] - base, limits.upper[limit] - base)
        )

    def all_rows(self) -> list[Rows]:
        """Every block of rows now in the LP."""
        return [*self.cuts, *self.newest]

    def matrix(self) -> tuple[sparse.csr_array, FloatArray, FloatArray, npt.NDArray[np.int64]]:
        """Coefficients over the market's columns, lower and upper bounds, and the keys of all rows."""
        blocks = self.all_rows()
        own = {IMPORT_P: "import_p", IMPORT_Q: "import_q", LIMIT: None}
        parts = [self.market.network_rows(rows.interval, rows.gradient, own[rows.kind]) for rows in blocks]
        return (
            sparse.csr_array(sparse.vstack(parts)),
            np.concatenate([rows.lower for rows in blocks]),
            np.concatenate([rows.upper for rows in blocks]),
            np.concatenate([rows.key() for rows in blocks]),
        )

    def weights(self, dual: FloatArray) -> Weights:
        """Multipliers by import and limit from the `dual` of every row of `matrix`."""
        intervals, count = self.watched.shape
        real, reactive = np.zeros(intervals), np.zeros(intervals)
        limits = sparse.csr_array((intervals, count))
        start = 0
        for rows in self.all_rows():
            own = dual[start : start + len(rows.interval)]
            start += len(own)
            if rows.kind == IMPORT_P:
                np.add.at(real, rows.interval, own)
            elif rows.kind == IMPORT_Q:
                np.add.at(reactive, rows.interval, own)
            else:
                binding = own != 0
                entries = (own[binding], (rows.interval[binding], rows.limit[binding]))
                limits = limits + sparse.csr_array(entries, shape=limits.shape)
        return Weights(real, reactive, sparse.csr_array(limits))


def violation(limits: Limits, value: FloatArray) -> FloatArray:
    """(t, k) How far each limited quantity lies outside its bounds [pu]; 0 inside."""
    return np.maximum(np.maximum(limits.lower - value, value - limits.upper), 0.0)


def worth_watching(limits: Limits, value: FloatArray) -> npt.NDArray[np.bool_]:
    """(t, k) True for the `MOST_PER_INTERVAL` worst of the limits that are near or over a bound."""
    scale = np.where(np.isfinite(limits.upper), np.abs(limits.upper), np.abs(limits.lower))
    excess = np.maximum(limits.lower - value, value - limits.upper) / np.maximum(scale, 1e-9)
    if excess.shape[1] > MOST_PER_INTERVAL:
        worst = -np.partition(-excess, MOST_PER_INTERVAL - 1, axis=1)[:, MOST_PER_INTERVAL - 1]
        return (excess > -NEAR) & (excess >= worst[:, None])
    return excess > -NEAR
