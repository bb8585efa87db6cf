"""The multipliers that support a cleared dispatch: which are determined, and what the others may be.

At the dispatch the reduced costs of columns strictly between their bounds stay zero; those of columns at a bound and
the duals of binding rows keep their signs.  The multipliers that do so are a polyhedron, kept here as *changes* of
those that were found.  Most are determined: a partly accepted bid fixes the price where it stands, an import with
room is worth its price.  The rest fall apart into parts that share no condition, each small.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from dlmp.dispatch import Dispatch
from dlmp.errors import SolverError
from dlmp.nearest import Polyhedron
from dlmp.network.model import FloatArray, IntArray
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

UNSUPPORTED = "the multipliers of the clearing do not satisfy their own conditions"

BoolArray = npt.NDArray[np.bool_]


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
        (i,) True for those that prices and values of stored energy are made of.
    """

    def __init__(self, found: Dispatch):
        market, point = found.market, found.point
        self.found = found
        every = np.arange(market.intervals)
        value = market.matrix @ found.x
        rows = np.flatnonzero((value <= market.row_lower + AT_BOUND_PU) | (value >= market.row_upper - AT_BOUND_PU))
        limits, state = found.formulation.limits, point.limit_value
        limit_low, limit_high = state <= limits.lower + AT_BOUND_PU, state >= limits.upper - AT_BOUND_PU
        at_limit = np.nonzero(limit_low | limit_high)
        at_state, limit = at_limit
        real, reactive = (market.spread(g[every]) for g in point.import_gradients(market.ports))
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
        self.is_published = (self.kind != MARKET) | np.isin(self.row, market.rows_of(ENERGY_BALANCE))
        weights = found.weights
        limit_dual = weights.limits.toarray()[at_limit]
        self.dual = np.concatenate([found.row_dual[rows], weights.import_p[every], weights.import_q[every], limit_dual])
        size = np.maximum(abs(jacobian).max(axis=1).toarray().ravel(), 1e-12)
        self.scale = 1 / size
        free = np.ones(2 * len(every), bool)
        may_rise = np.concatenate([value[rows] <= market.row_lower[rows] + AT_BOUND_PU, free, limit_low[at_limit]])
        may_fall = np.concatenate([value[rows] >= market.row_upper[rows] - AT_BOUND_PU, free, limit_high[at_limit]])
        self.lower = np.where(may_fall, -FARTHEST, -np.maximum(self.dual * size, 0.0))
        self.upper = np.where(may_rise, FARTHEST, -np.minimum(self.dual * size, 0.0))
        self._set_columns(jacobian)

    def _set_columns(self, jacobian: sparse.csr_array) -> None:
        """Write down the condition of each column: row of `by_column` with its bounds."""
        columns, x = self.found.market.columns, self.found.x
        reduced = columns.marginal_cost(x) - jacobian.T @ self.dual
        at_low, at_high = x <= columns.lower.ravel() + AT_BOUND_PU, x >= columns.upper.ravel() - AT_BOUND_PU
        is_bound = ~(at_low & at_high)
        by_column = sparse.csr_array(-jacobian.T @ sparse.diags_array(self.scale))
        by_column.eliminate_zeros()
        self.by_column = by_column[is_bound]
        lower = np.where(at_high, -np.inf, np.where(at_low, -np.maximum(reduced, 0.0), 0.0))
        upper = np.where(at_low, np.inf, np.where(at_high, -np.minimum(reduced, 0.0), 0.0))
        self.column_lower, self.column_upper = lower[is_bound], upper[is_bound]
        self.is_free = (~at_low & ~at_high)[is_bound]

    def __len__(self) -> int:
        return len(self.kind)

    def polyhedron(self, own: IntArray) -> Polyhedron:
        """Scaled changes of the multipliers `own`, which share no condition with others that may change."""
        columns = np.flatnonzero(np.diff(self.by_column[:, own].indptr))
        return Polyhedron(
            self.lower[own],
            self.upper[own],
            sparse.csr_array(self.by_column[columns][:, own]),
            self.column_lower[columns],
            self.column_upper[columns],
        )

    def price_gradients(self, own: IntArray, ports: IntArray) -> FloatArray:
        """What each of the multipliers `own` adds to the prices of its interval at `ports`, by unit, (i, 2, ports)."""
        point, kind, state = self.found.point, self.kind[own], self.state[own]
        gradient = np.zeros((len(own), 2, len(ports)))
        for of, by_import in zip((IMPORT_P, IMPORT_Q), point.import_gradients(ports), strict=True):
            gradient[kind == of] = -by_import[state[kind == of]]
        at_limit = kind == LIMIT
        gradient[at_limit] = point.limit_gradients(state[at_limit], self.limit[own][at_limit], ports)
        return gradient

    def ends(self, own: IntArray, direction: FloatArray) -> list[FloatArray]:
        """Scaled changes of the multipliers `own` that are farthest against and along `direction`.

        Raises
        ------
        SolverError
            When the multipliers that were found do not satisfy their own conditions.
        """
        within = vars(self.polyhedron(own))
        found = [solve_lp(LinearProgram(cost=sign * direction, **within)) for sign in (1.0, -1.0)]
        if any(solution is None for solution in found):
            raise SolverError(UNSUPPORTED)
        return [solution.x for solution in found if solution is not None]

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
