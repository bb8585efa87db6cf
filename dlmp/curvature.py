"""Second derivatives of the Lagrangian by injections, kept from step to step."""

import numpy as np
import numpy.typing as npt

from dlmp.formulation.interface import Lagrangian
from dlmp.formulation.market_lp import MarketLp
from dlmp.network.model import FloatArray, IntArray
from dlmp.solve import BASIC, StatusArray

MOST_USES = 4


class Curvature:
    """Second derivatives of the Lagrangian by the injections, kept from step to step.

    Attributes
    ----------
    movable, likely
        (states, 2, r) Injections with room to move, and those that are made along with any others.

    Notes
    -----
    They change slowly: a step with somewhat old ones still goes nearly all the way, for the first derivatives are
    always new.  A block is made again after `MOST_USES` steps, and when an injection is wanted that it lacks.
    """

    def __init__(self, market: MarketLp):
        self.market = market
        self._pattern = abs(market.by_column)
        self.movable = self._moved_by(market.is_movable)
        self.likely = np.zeros_like(self.movable)
        self._known: dict[int, tuple[npt.NDArray[np.bool_], FloatArray, int]] = {}

    def wanted(self, column: StatusArray) -> npt.NDArray[np.bool_]:
        """(states, 2, r) Injections that can move when the columns with status `BASIC` do.

        An injection that is the sum of what feeds it stays without a free part, whatever its own status.  Only
        reactive power may be free by itself.
        """
        market = self.market
        is_free = (column == BASIC) & market.is_movable
        power = market.network_columns
        is_fed = np.zeros(power.shape, bool)
        is_fed[:, 1] = ~np.isin(np.arange(power.shape[2]), market.case.reactive_bids.resource)
        for name, (part, resource) in market.feeds.items():
            np.logical_or.at(is_fed[:, part].T, resource, is_free[market.block(name)].T)
        is_free[power] &= is_fed
        return self._moved_by(is_free)

    def _moved_by(self, columns: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """(states, 2, r) Injections that the `columns` are part of."""
        market = self.market
        moved = self._pattern @ columns.astype(float) > 0
        return np.asarray(moved).reshape(len(market.state_interval), 2, len(market.case.resources))

    def expire(self, intervals: IntArray) -> None:
        """Make the blocks of the states of `intervals` again when they are next wanted."""
        for state in np.flatnonzero(np.isin(self.market.state_interval, intervals)).tolist():
            if state in self._known:
                known, whole, _ = self._known[state]
                self._known[state] = (known, whole, MOST_USES)

    def blocks(self, lagrangian: Lagrangian, states: IntArray, wanted: npt.NDArray[np.bool_]) -> dict[int, FloatArray]:
        """(i, i) Derivatives in each of `states` by the `wanted` (states, 2, r) injections, real before reactive.

        In currency/MWh/pu.
        """
        stale, needed = [], np.zeros_like(self.likely[0])
        for state in states.tolist():
            known, _, uses = self._known.setdefault(state, (np.zeros_like(needed), np.zeros((0, 0)), 0))
            if (wanted[state] & ~known).any():
                stale.append(state)
                needed |= wanted[state] | known | self.likely[state]
            elif uses >= MOST_USES:
                stale.append(state)
                needed |= wanted[state]
        if stale:
            reactive, resource = np.nonzero(needed)
            share = self.market.case.resources.share[resource]
            made = lagrangian.hessians(np.array(stale), share, reactive == 1)
            self._known.update({state: (needed, whole, 0) for state, whole in zip(stale, made, strict=True)})
        return {state: self._part(state, wanted[state]) for state in states.tolist()}

    def _part(self, state: int, wanted: npt.NDArray[np.bool_]) -> FloatArray:
        """The `wanted` part of a block that is known, which has been used once more."""
        known, whole, uses = self._known[state]
        self._known[state] = (known, whole, uses + 1)
        place = np.flatnonzero(wanted[known])
        return whole[np.ix_(place, place)]
