"""How the network enters a quadratic model: by rows over the market's columns alone, or with its states beside them.

Dense rows over all injections, and a dense Hessian of those that are likely to move, are best where few are.  Otherwise
the unknowns of the states are columns of their own, and everything is as sparse as the network.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import sparse

from dlmp.assembly import Assembly
from dlmp.curvature import Curvature
from dlmp.formulation.interface import OperatingPoint, Weights
from dlmp.formulation.market_lp import MarketLp, from_blocks
from dlmp.formulation.network_rows import MOST_PER_INTERVAL
from dlmp.network.model import FloatArray, IntArray
from dlmp.stateprogramme import StateColumns


@dataclass(frozen=True, eq=False)
class NetworkPart:
    """The network in the programme of k intervals, over c of the market's columns and then u unknowns.

    Parameters
    ----------
    unknowns
        How many.
    equations, equal_to
        (e, c + u), (e,) What makes the unknowns.
    rows, base
        (2 * k + i, c + u), (2 * k + i,) Real import, reactive import and limits: ``P0 - row = base``, and a limit is
        ``row + base``.
    steepest
        (i,) By how much one pu of injection moves each limit at most.
    hessian
        (c + u, c + u) Convex curvature [currency/MWh/pu].
    slope_at_start
        (c + u,) The hessian times the dispatch that the model is around.
    """

    unknowns: int
    equations: sparse.csr_array
    equal_to: FloatArray
    rows: sparse.csr_array
    base: FloatArray
    steepest: FloatArray
    hessian: sparse.csc_array
    slope_at_start: FloatArray


class NetworkModel(Protocol):
    """The network around a dispatch.

    Attributes
    ----------
    begins_soft
        True where it costs little to let limits be broken at their penalties, and much to find that they must be.
    most_limits
        How many limits of a state to add in a round.
    """

    begins_soft: bool
    most_limits: int

    def prepare(self, intervals: IntArray) -> None:
        """Make ready for programmes of these intervals."""
        ...

    def part(self, group: IntArray, columns: IntArray, state: IntArray, limit: IntArray) -> NetworkPart:
        """The network of a `group` of intervals, of these `columns`, with limits ``limit[i]`` in ``state[i]``."""
        ...


class ReducedNetwork:
    """Rows and curvature by the market's columns alone.

    Only likely injections have their curvature, as scheduled and in the called states whose limits weigh.  What is not
    convex of it (of voltage limits, or at a negative price) is cut off: the Newton finish that follows uses the true
    one.
    """

    begins_soft = False
    most_limits = MOST_PER_INTERVAL

    def __init__(self, market: MarketLp, x: FloatArray, point: OperatingPoint, weights: Weights, curvature: Curvature):
        self.market, self.x, self.point, self.weights, self.curvature = market, x, point, weights, curvature
        self._hessian = sparse.csr_array((len(x), len(x)))
        self.lagrangian = point.lagrangian(weights)
        every = np.arange(market.intervals)
        self.import_gradients = [market.spread(g) for g in point.import_gradients(market.ports, every)]

    def prepare(self, intervals: IntArray) -> None:
        """Make the curvature of these intervals."""
        market = self.market
        curving = np.isin(market.state_interval, intervals) & self.weights.curving(market.intervals)
        blocks = self.curvature.blocks(self.lagrangian, np.flatnonzero(curving), self.curvature.likely)
        self._hessian = self._convex_hessian(blocks, intervals)

    def part(self, group: IntArray, columns: IntArray, state: IntArray, limit: IntArray) -> NetworkPart:
        """The network of a `group` of intervals, of these `columns`, with limits ``limit[i]`` in ``state[i]``."""
        market, point = self.market, self.point
        bound = market.spread(point.limit_gradients(state, limit, market.ports))
        real, reactive = (gradients[group] for gradients in self.import_gradients)
        gradient = np.concatenate([real, reactive, bound])
        value = np.concatenate(
            [point.import_pu.real[group], point.import_pu.imag[group], point.limit_value[state, limit]]
        )
        power = market.power(self.x)[np.concatenate([group, group, state])]
        rows = sparse.vstack(
            [
                market.network_rows(group, -real, "import_p"),
                market.network_rows(group, -reactive, "import_q"),
                market.network_rows(state, bound),
            ]
        )
        hessian = sparse.csc_array(self._hessian[columns][:, columns])
        return NetworkPart(
            0,
            sparse.csr_array((0, len(columns))),
            np.zeros(0),
            sparse.csr_array(rows)[:, columns],
            value - (gradient * power).sum(axis=(1, 2)),
            np.abs(bound).max(axis=(1, 2), initial=0.0),
            hessian,
            np.asarray(hessian @ self.x[columns]),
        )

    def _convex_hessian(self, blocks: dict[int, FloatArray], intervals: IntArray) -> sparse.csr_array:
        """Convex part of the curvature by all columns, of the `blocks` of the states of each of `intervals` together.

        Where one state curves downwards and another upwards, only what is left of both is cut off.
        """
        market = self.market
        whole = market.curvature(blocks, self.curvature.likely)
        curved = np.diff(whole.indptr) > 0
        first = intervals * market.width
        places = (start + np.flatnonzero(curved[start : start + market.width]) for start in first.tolist())
        return from_blocks(((own, _convex_part(whole[own][:, own].toarray())) for own in places), len(curved))


class StatesNetwork:
    """Rows over the unknowns of the states, which the losses alone curve, at the price of import.

    That is the curvature of import but for what the power flow's own curvature adds to it, some per cent, and always
    convex.  At a price below zero there is none.
    """

    begins_soft = True
    most_limits = 100

    def __init__(self, market: MarketLp, x: FloatArray, point: OperatingPoint, weights: Weights):
        self.market, self.x, self.point, self.weights = market, x, point, weights

    def prepare(self, intervals: IntArray) -> None:
        """Nothing is made beforehand."""

    def part(self, group: IntArray, columns: IntArray, state: IntArray, limit: IntArray) -> NetworkPart:
        """The network of a `group` of intervals, of these `columns`, with limits ``limit[i]`` in ``state[i]``."""
        point, own, whole = self.point, StateColumns(self.market, self.point, group, columns), Assembly()
        own.add_equations(whole, 0)
        equations, rows = whole.csr((own.unknowns, own.width)), own.rows(state, limit)
        start = np.concatenate([self.x[columns], np.zeros(own.unknowns)])
        at_start = rows @ start
        imports = [self.market.block(name)[group, 0] for name in ("import_p", "import_q")]
        at_start[: 2 * len(group)] -= self.x[np.concatenate(imports)]
        value = np.concatenate([point.import_pu.real[group], point.import_pu.imag[group]])
        scheduled = own.states < self.market.intervals
        price = np.where(scheduled, np.maximum(self.weights.import_p[own.states], 0.0), 0.0)
        return NetworkPart(
            own.unknowns,
            equations,
            np.asarray(equations @ start),
            rows,
            np.concatenate([value + at_start[: 2 * len(group)], point.limit_value[state, limit]]),
            own.equations_of.steepest(limit),
            own.loss_curvature(price),
            np.zeros(len(start)),
        )


def _convex_part(matrix: FloatArray) -> FloatArray:
    """The positive semidefinite part of a symmetric `matrix`."""
    value, vector = np.linalg.eigh(matrix)
    return np.asarray((vector * np.maximum(value, 0.0)) @ vector.T)
