"""The multipliers that support a cleared dispatch: which are determined, and what the others may be.

At the dispatch the reduced costs of columns strictly between their bounds stay zero; those of columns at a bound and
the duals of binding rows keep their signs.  The multipliers that do so are a polyhedron, kept here as *changes* of
those that were found.  Most are determined: a partly accepted bid fixes the price where it stands, an import with
room is worth its price.  The rest fall apart into parts that share no condition, each small.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from dlmp.dispatch import Dispatch
from dlmp.errors import SolverError
from dlmp.formulation.softness import BROKEN, Softness, is_held
from dlmp.nearest import Polyhedron
from dlmp.network.model import FloatArray, IntArray
from dlmp.prices import by_interval
from dlmp.products.services import REQUIREMENT
from dlmp.products.storage import ENERGY_BALANCE
from dlmp.solve import LinearProgram, solve_lp

MARKET, IMPORT_P, IMPORT_Q, LIMIT = range(4)
AT_BOUND_PU = 1e-7
"""A column this close to a bound counts as being at it [pu]."""
SMALLEST_PIVOT = 1e-9
"""A coefficient below this determines nothing, relative to the largest of its row."""
FULL_RANK = 1e-8
"""Smallest singular value of independent rows, each scaled to a largest coefficient of 1."""
LARGEST_DENSE = 1500
"""Rows that depend on each other whose rank is looked at; more count as undetermined."""
FARTHEST = 1e4
"""Bound on the change of any multiplier [currency/MWh]: the polyhedron may be unbounded."""
DIFFERENT_USD_PER_MWH, DIFFERENT_SHARE = 1e-3, 1e-6
"""Prices that differ by less count as the same, [currency/MWh] or relative to the largest of their interval: the dual
simplex tells no more digits."""
IN_USE = 1e-8
"""A condition whose dual is smaller, relative to the direction, does not hold an end."""

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class End:
    """Where multipliers are farthest along a direction.

    Parameters
    ----------
    change
        (i,) Their scaled changes.
    holds_unknown, holds_row
        Bounds (i,) and conditions of the polyhedron that hold the end: all ends meet them with equality.
    is_open
        True where nothing but `FARTHEST` ends the direction.
    is_known
        False where the linear programme did not tell the end.
    """

    change: FloatArray
    holds_unknown: BoolArray
    holds_row: BoolArray
    is_open: bool
    is_known: bool = True


class DualChanges:
    """Changes of the multipliers of market rows, imports and limits at their bound that keep the dispatch supported.

    Attributes
    ----------
    kind, state, interval
        (i,) What each multiplier belongs to: which network state of which interval.
    row, limit
        (i,) Row of the market, or limit; -1 for others.
    dual
        (i,) Multipliers as found.
    scale
        (i,) Multiplier by unit of a scaled change.
    is_published
        (i,) True for those that prices, also of services, and values of stored energy are made of.

    Notes
    -----
    The multipliers of limits that are broken do not change, but where a tier ends that holds them: between two ends
    they are its price, of which each side of a polygon has a part.
    """

    def __init__(self, found: Dispatch):
        market, point = found.market, found.point
        self.found = found
        every = np.arange(market.intervals)
        value = market.matrix @ found.x
        rows = np.flatnonzero((value <= market.row_lower + AT_BOUND_PU) | (value >= market.row_upper - AT_BOUND_PU))
        softness = Softness.of(found.formulation.limits, market.penalties)
        soft_state = softness.states_at(point.limit_value, AT_BOUND_PU)
        weight = found.weights.limits.toarray()
        has_sides = np.bincount(softness.quantity)[softness.quantity] > 1
        is_priced = (np.abs(soft_state) >= BROKEN) & ~is_held(soft_state) | (found.excess != 0) & has_sides
        at_limit = np.nonzero(is_held(soft_state) & ~is_priced)
        at_state, limit = at_limit
        real, reactive = (market.spread(g) for g in point.import_gradients(market.ports, every))
        bound = market.spread(point.limit_gradients(at_state, limit, market.ports))
        jacobian = sparse.csr_array(
            sparse.vstack(
                [
                    market.matrix[rows],
                    market.network_rows(every, -real, "import_p"),
                    market.network_rows(every, -reactive, "import_q"),
                    market.network_rows(at_state, bound),
                ]
            )
        )
        counts = [len(rows), len(every), len(every), len(limit)]
        self.kind = np.repeat([MARKET, IMPORT_P, IMPORT_Q, LIMIT], counts)
        self.state = np.concatenate([rows // max(1, len(market.template.row_lower)), every, every, at_state])
        self.interval = market.state_interval[self.state]
        none = np.full(2 * len(every), -1)
        self.row = np.concatenate([rows, none, np.full(counts[-1], -1)])
        self.limit = np.concatenate([np.full(len(rows), -1), none, limit])
        published = np.concatenate([market.rows_of(rule).ravel() for rule in (ENERGY_BALANCE, REQUIREMENT)])
        self.is_published = (self.kind != MARKET) | np.isin(self.row, published)
        weights = found.weights
        self.dual = np.concatenate(
            [found.row_dual[rows], weights.import_p[every], weights.import_q[every], weight[at_limit]]
        )
        size = np.maximum(abs(jacobian).max(axis=1).toarray().ravel(), 1e-12)
        self.scale = 1 / size
        free = np.full(2 * len(every), np.inf)
        least, most = softness.multiplier_range_at(soft_state[at_limit], at_limit[1])
        may_fall = value[rows] >= market.row_upper[rows] - AT_BOUND_PU
        may_rise = value[rows] <= market.row_lower[rows] + AT_BOUND_PU
        least = np.concatenate([np.where(may_fall, -np.inf, 0.0), -free, least])
        most = np.concatenate([np.where(may_rise, np.inf, 0.0), free, most])
        self.lower = -np.clip((self.dual - least) * size, 0.0, FARTHEST)
        self.upper = np.clip((most - self.dual) * size, 0.0, FARTHEST)
        kept = np.concatenate([np.zeros(sum(counts[:-1]), dtype=np.int8), soft_state[at_limit]])
        kept[np.abs(kept) >= BROKEN] = 0
        self._hard_lower = np.where(kept > 0, -FARTHEST, self.lower)
        self._hard_upper = np.where(kept < 0, FARTHEST, self.upper)
        priced = sparse.csr_array(np.where(is_priced, weight, 0.0))
        self._set_columns(jacobian, market.along_columns(point.weighted_limit_gradient(priced, market.ports)))

    def _set_columns(self, jacobian: sparse.csr_array, priced: FloatArray) -> None:
        """Write down the condition of each column: row of `by_column` with its bounds.

        `priced` (columns,) is what the limits whose multipliers do not change take off its reduced cost.
        """
        market, x = self.found.market, self.found.x
        columns = market.columns
        reduced = columns.marginal_cost(x) - jacobian.T @ self.dual - priced
        at_low, at_high = x <= columns.lower.ravel() + AT_BOUND_PU, x >= columns.upper.ravel() - AT_BOUND_PU
        is_bound = ~(at_low & at_high)
        by_column = sparse.csr_array(-jacobian.T @ sparse.diags_array(self.scale))
        by_column.eliminate_zeros()
        self.by_column = by_column[is_bound]
        lower = np.where(at_high, -np.inf, np.where(at_low, -np.maximum(reduced, 0.0), 0.0))
        upper = np.where(at_low, np.inf, np.where(at_high, -np.minimum(reduced, 0.0), 0.0))
        self.column_lower, self.column_upper = lower[is_bound], upper[is_bound]
        self.is_free = (~at_low & ~at_high)[is_bound]
        beyond = market.block("import_beyond")
        is_penalty = np.zeros(len(x), bool)
        is_penalty[beyond] = (x[beyond] <= AT_BOUND_PU).all(axis=1, keepdims=True)
        self._is_penalty = is_penalty[is_bound]

    def __len__(self) -> int:
        return len(self.kind)

    def polyhedron(self, own: IntArray, *, is_hard: bool = False) -> Polyhedron:
        """Scaled changes of the multipliers `own`, which share no condition with others that may change.

        With `is_hard`, those of limits that are kept have no penalty to end at.
        """
        columns = np.flatnonzero(np.diff(self.by_column[:, own].indptr))
        within = Polyhedron(
            self.lower[own],
            self.upper[own],
            sparse.csr_array(self.by_column[columns][:, own]),
            self.column_lower[columns],
            self.column_upper[columns],
        )
        if not is_hard:
            return within
        return replace(
            within,
            lower=self._hard_lower[own],
            upper=self._hard_upper[own],
            row_lower=np.where(self._is_penalty[columns], -np.inf, within.row_lower),
        )

    def price_gradients(self, own: IntArray, ports: IntArray) -> FloatArray:
        """What each of the multipliers `own` adds to the prices of its interval at `ports`, by unit, (i, 2, ports)."""
        point, kind, state = self.found.point, self.kind[own], self.state[own]
        gradient = np.zeros((len(own), 2, len(ports)))
        for number, of in enumerate((IMPORT_P, IMPORT_Q)):
            gradient[kind == of] = -point.import_gradients(ports, state[kind == of])[number]
        at_limit = kind == LIMIT
        gradient[at_limit] = point.limit_gradients(state[at_limit], self.limit[own][at_limit], ports)
        return gradient

    @cached_property
    def same_usd_per_mwh(self) -> FloatArray:
        """(t,) Prices of each interval that differ by less count as the same [currency/MWh, currency/MVArh]."""
        market, point = self.found.market, self.found.point
        ports = np.flatnonzero(market.case.network.is_priced)
        prices = by_interval(
            -point.lagrangian(self.found.weights).gradient(ports), market.state_interval, market.intervals
        )
        return np.maximum(DIFFERENT_USD_PER_MWH, DIFFERENT_SHARE * np.abs(prices).max(axis=(1, 2), initial=0.0))

    def ends(self, own: IntArray, direction: FloatArray, *, is_hard: bool = False) -> tuple[End, End]:
        """Where the multipliers `own` are farthest against and along `direction` [price by scaled change].

        With `is_hard` as if limits that are kept had no penalty.
        """
        within = self.polyhedron(own, is_hard=is_hard)
        same = float(self.same_usd_per_mwh[self.interval[own]].max())
        low, high = (_end(within, sign * direction, same) for sign in (1.0, -1.0))
        return low, high

    def open_parts(self) -> Iterator[IntArray]:
        """Multipliers that may not be determined, in parts that share no condition; each holds a published one."""
        is_open = ~self._determined()
        if not (is_open & self.is_published).any():
            return
        own = np.flatnonzero(is_open)
        for part in _components(self.by_column[:, own]):
            if self.is_published[own[part]].any():
                yield own[part]

    def _determined(self) -> BoolArray:
        """(i,) True for the multipliers that columns between their bounds leave one value."""
        matrix = self.by_column[self.is_free]
        matrix.data[np.abs(matrix.data) < SMALLEST_PIVOT] = 0.0
        matrix.eliminate_zeros()
        determined, alive = np.zeros(len(self), bool), np.ones(len(self), bool)
        columns = np.ones(matrix.shape[0], bool)
        pattern = sparse.csr_array((np.ones(matrix.nnz), matrix.indices, matrix.indptr), shape=matrix.shape)
        while True:
            single = columns & (np.rint(pattern @ alive) == 1)
            known = alive & (np.rint(pattern.T @ single) > 0)
            # A dual that nobody sees and a single column asks for takes whatever that column needs.
            needed = np.rint(pattern.T @ columns)
            absorbed = alive & ~known & ~self.is_published & (needed <= 1)
            if not known.any() and not absorbed.any():
                break
            determined |= known
            alive &= ~(known | absorbed)
            columns &= ~(single | (np.rint(pattern @ absorbed) > 0))
        own = np.flatnonzero(alive)
        rest = sparse.csr_array(matrix[columns][:, own])
        for part in _components(rest):
            if len(part) <= LARGEST_DENSE and _is_independent(rest[:, part]):
                determined[own[part]] = True
        return determined


def _end(within: Polyhedron, cost: FloatArray, same: float) -> End:
    """Where `cost` is least; costs that differ by less than `same` count as the same.

    No change at all lies within: an end that the linear programme does not tell is taken to be there, and open.
    """
    try:
        found = solve_lp(LinearProgram(cost, **vars(within)))
    except SolverError:
        found = None
    if found is None:
        none = np.zeros(len(cost), bool), np.zeros(len(within.row_lower), bool)
        return End(np.zeros(len(cost)), *none, is_open=True, is_known=False)
    reduced = cost - within.matrix.T @ found.row_dual
    # By duality the cost is a sum over all bounds that hold it.
    farthest = np.abs(found.x) >= FARTHEST
    in_use = IN_USE * float(np.abs(cost).max(initial=0.0))
    return End(
        found.x,
        np.abs(reduced) > in_use,
        np.abs(found.row_dual) * abs(within.matrix).max(axis=1).toarray().ravel() > in_use,
        bool(np.abs(reduced[farthest] * found.x[farthest]).sum() > same),
    )


def _components(matrix: sparse.csr_array) -> Iterator[IntArray]:
    """Columns of `matrix` in groups that no row joins."""
    together = sparse.csr_array(abs(matrix).T @ abs(matrix))
    _, label = connected_components(together, directed=False)
    order = np.argsort(label, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(label[order])) + 1) if len(order) else ()


def _is_independent(matrix: sparse.csr_array) -> bool:
    """True when no combination of the columns vanishes."""
    dense = matrix[np.flatnonzero(np.diff(matrix.indptr))].toarray()
    if dense.shape[0] < dense.shape[1]:
        return False
    return bool(np.linalg.svd(dense, compute_uv=False)[-1] > FULL_RANK)
