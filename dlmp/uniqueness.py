"""Are the prices of a clearing the only ones that support it?

The multipliers that meet the optimality conditions at the cleared point form a polyhedron: the
reduced costs of columns strictly between their bounds stay zero, those at a bound and the duals of
binding rows keep their signs.  It is a single point where the binding gradients are independent.
Two LPs over all intervals look for its extent along a direction that has no special relation to the
network; where it has one, two more give the ends that less and more demand at every node would set.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from dlmp.dispatch import Dispatch
from dlmp.errors import SolverError
from dlmp.formulation.softness import Softness, is_held
from dlmp.network.model import FloatArray
from dlmp.prices import Prices
from dlmp.solve import LinearProgram, solve_lp

MARKET, IMPORT_P, IMPORT_Q, LIMIT = range(4)
AT_BOUND_PU = 1e-7
"""A column this close to a bound counts as being at it [pu]."""
DIFFERENT_USD_PER_MWH = 1e-3
"""Prices that differ by less count as the same."""
FARTHEST = 1e4
"""Bound on the change of any multiplier [currency/MWh]: the polyhedron may be unbounded at a corner."""


@dataclass(frozen=True)
class PriceRange:
    """An interval whose prices are not unique, and the range at the node where it is widest.

    An end is None where nothing bounds the price on that side.  The unit is currency/MWh, or
    currency/MVArh where `is_reactive`.
    """

    interval: int
    low_usd_per_mwh: float | None
    high_usd_per_mwh: float | None
    bus: str
    is_reactive: bool = False


def price_ranges(found: Dispatch, prices: Prices) -> tuple[PriceRange, ...]:
    """Find the intervals with more than one set of supporting prices, and the ends."""
    duals = _DualChanges(found)
    generic = duals.extent(np.random.default_rng(0).normal(size=duals.count))
    moves = np.abs(generic[1] - generic[0]) > DIFFERENT_USD_PER_MWH
    suspect = np.unique(duals.interval[moves])
    if not len(suspect):
        return ()
    ends = [*generic, *duals.extent(np.where(duals.kind == IMPORT_P, 1.0, 0.0))]
    published = (prices.lmp_usd_per_mwh, prices.lmp_q_usd_per_mvarh)
    ranges = []
    for interval in suspect:
        change = np.array([duals.price_change(int(interval), end) for end in ends])
        low, high = change.min(axis=0), change.max(axis=0)
        for reactive in (0, 1):
            node = int(prices.ports[np.argmax((high - low)[reactive, prices.ports])])
            if high[reactive, node] - low[reactive, node] > DIFFERENT_USD_PER_MWH:
                price, bus = float(published[reactive][interval, node]), str(prices.network.port_bus[node])
                lowest, highest = (
                    duals.end(int(interval), price, change[:, reactive, node], ends, pick) for pick in (np.min, np.max)
                )
                ranges.append(PriceRange(int(interval), lowest, highest, bus, reactive == 1))
    return tuple(ranges)


class _DualChanges:
    """The polyhedron of changes of the multipliers of market rows, imports and limits at their bound."""

    def __init__(self, found: Dispatch):
        market, point = found.market, found.point
        self.found = found
        every = np.arange(market.intervals)
        value = market.matrix @ found.x
        rows = np.flatnonzero((value <= market.row_lower + AT_BOUND_PU) | (value >= market.row_upper - AT_BOUND_PU))
        softness = Softness.of(found.formulation.limits, market.penalties)
        state = softness.states_at(point.limit_value, AT_BOUND_PU)
        self.limit_interval, self.limit = np.nonzero(is_held(state))
        at_limit = (self.limit_interval, self.limit)
        real, reactive = (market.spread(g) for g in point.import_gradients(market.ports))
        bound = market.spread(point.limit_gradients(*at_limit, market.ports))
        jacobian = sparse.csr_array(
            sparse.vstack(
                [
                    market.matrix[rows],
                    market.network_rows(every, -real, "import_p"),
                    market.network_rows(every, -reactive, "import_q"),
                    market.network_rows(self.limit_interval, bound),
                ]
            )
        )
        scale = np.maximum(abs(jacobian).max(axis=1).toarray().ravel(), 1e-12)
        self.scale = 1 / scale
        self.kind = np.repeat([MARKET, IMPORT_P, IMPORT_Q, LIMIT], [len(rows), len(every), len(every), len(self.limit)])
        self.count = len(self.kind)
        rows_per_interval = max(1, len(market.template.row_lower))
        self.interval = np.concatenate([rows // rows_per_interval, every, every, self.limit_interval])
        weights = found.weights
        dual = np.concatenate(
            [found.row_dual[rows], weights.import_p, weights.import_q, weights.limits.toarray()[at_limit]]
        )
        of_imports = np.full(2 * len(every), np.inf)
        low, high = (end[at_limit] for end in softness.multiplier_range_at(state))
        low = np.concatenate(
            [np.where(value[rows] >= market.row_upper[rows] - AT_BOUND_PU, -np.inf, 0.0), -of_imports, low]
        )
        high = np.concatenate(
            [np.where(value[rows] <= market.row_lower[rows] + AT_BOUND_PU, np.inf, 0.0), of_imports, high]
        )
        self.lower = -np.clip((dual - low) * scale, 0.0, FARTHEST)
        self.upper = np.clip((high - dual) * scale, 0.0, FARTHEST)
        reduced = market.columns.cost.ravel() - jacobian.T @ dual
        broken = point.weighted_limit_gradient(sparse.csr_array(softness.priced(state)), market.ports)
        reduced[market.network_columns] -= market.spread(broken)
        at_low = found.x <= market.columns.lower.ravel() + AT_BOUND_PU
        at_high = found.x >= market.columns.upper.ravel() - AT_BOUND_PU
        self.by_column = sparse.csr_array(-jacobian.T @ sparse.diags_array(self.scale))
        self.column_lower = np.where(at_high, -np.inf, np.where(at_low, -np.maximum(reduced, 0.0), 0.0))
        self.column_upper = np.where(at_low, np.inf, np.where(at_high, -np.minimum(reduced, 0.0), 0.0))

    def extent(self, direction: FloatArray) -> list[FloatArray]:
        """Scaled changes of all multipliers that are farthest against and along `direction`."""
        ends = []
        for sign in (1.0, -1.0):
            solution = solve_lp(
                LinearProgram(
                    sign * direction, self.lower, self.upper, self.by_column, self.column_lower, self.column_upper
                )
            )
            if solution is None:
                raise SolverError("the multipliers of the clearing do not satisfy their own conditions")
            ends.append(solution.x)
        return ends

    def price_change(self, interval: int, change: FloatArray) -> FloatArray:
        """(2, p) Change of real and reactive prices at `interval` that goes with a scaled change of the multipliers."""
        point, change = self.found.point, change * self.scale
        ports = np.arange(self.found.market.case.network.port_count)
        here = self.interval == interval
        real, reactive = (g[interval] for g in point.import_gradients(ports))
        by_p, by_q = change[here & (self.kind == IMPORT_P)][0], change[here & (self.kind == IMPORT_Q)][0]
        own = self.limit_interval == interval
        gradient = point.limit_gradients(self.limit_interval[own], self.limit[own], ports)
        by_limit = np.tensordot(change[here & (self.kind == LIMIT)], gradient, axes=1)
        return np.asarray(by_limit - by_p * real - by_q * reactive)

    def end(
        self,
        interval: int,
        price: float,
        change: FloatArray,
        ends: list[FloatArray],
        pick: Callable[[FloatArray], np.floating],
    ) -> float | None:
        """Lowest or highest price among the `ends`; None where the multipliers there have no bound."""
        chosen = ends[int(np.flatnonzero(change == pick(change))[0])][self.interval == interval]
        return None if np.abs(chosen).max() > 0.99 * FARTHEST else price + float(pick(change))
