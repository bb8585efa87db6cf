"""What a dispatch leaves to the next one: where it ended, and what it learned of the network on the way.

The next market is the same but for called states behind those that the last one had, or for other bounds of its
columns.  Intervals with neither are solved already; in the others the last optimum is where the search begins.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dlmp.formulation.interface import Formulation, OperatingPoint
from dlmp.formulation.market_lp import MarketLp
from dlmp.formulation.network_rows import NetworkRows
from dlmp.network.model import FloatArray
from dlmp.newton import Optimum
from dlmp.optimality import ActiveSet, Multipliers
from dlmp.solve import AT_LOWER, AT_UPPER, BASIC, Basis, StatusArray

AT_BOUND_PU = 1e-9
"""A column this close to its bound is at it [pu]."""


@dataclass(frozen=True, eq=False)
class KeyedBasis:
    """The basis of an LP whose network rows and columns of slack have keys, so that those of another LP can be told.

    Parameters
    ----------
    basis
        Of the market's columns and those of slack, of the market's rows and those of the network.
    keys, slack_keys
        Keys of the network's rows and of the columns of slack.
    width
        Columns before those of slack.
    """

    basis: Basis
    keys: npt.NDArray[np.int64]
    slack_keys: npt.NDArray[np.int64]
    width: int

    def given_to(
        self, keys: npt.NDArray[np.int64], slack_keys: npt.NDArray[np.int64] | None, width: int
    ) -> Basis | None:
        """Give the basis to the rows and slack columns that are still there; new ones start inactive.

        None where there are no longer `width` columns before those of slack.
        """
        if self.width != width:
            return None
        market_rows = len(self.basis.row) - len(self.keys)
        row = np.full(market_rows + len(keys), BASIC, dtype=np.int8)
        row[:market_rows] = self.basis.row[:market_rows]
        _, old, new = np.intersect1d(self.keys, keys, return_indices=True)
        row[market_rows + new] = self.basis.row[market_rows + old]
        column = self.basis.column[:width]
        if slack_keys is not None:
            slack = np.full(len(slack_keys), AT_LOWER, dtype=np.int8)
            _, old, new = np.intersect1d(self.slack_keys, slack_keys, return_indices=True)
            slack[new] = self.basis.column[width + old]
            column = np.concatenate([column, slack])
        return Basis(column, row)


@dataclass(frozen=True, eq=False)
class Learned:
    """Where a dispatch of `market` stands.

    Parameters
    ----------
    market
        The market.
    x, point
        (c,) dispatch and its network state.
    rows
        Tangents of the network so far.
    basis
        That of the last LP; None when there was none.
    optimum
        Where the Newton finish came to; None where there was no need of it.
    """

    market: MarketLp
    x: FloatArray
    point: OperatingPoint
    rows: NetworkRows
    basis: KeyedBasis | None
    optimum: Optimum | None

    def given_to(self, market: MarketLp, formulation: Formulation) -> "Learned | None":
        """What of it holds in another `market`, on the network of `formulation`; None without a network state there."""
        lower, upper = market.columns.lower.ravel(), market.columns.upper.ravel()
        x = np.clip(self.x, lower, upper)
        intervals, count = market.state_interval, len(self.market.state_interval)
        before = np.concatenate([np.arange(count), intervals[count:]])
        point = formulation.operate(market.injection(x), formulation.carried(self.point, before))
        if not point.converged.all():
            return None
        rows = self.rows.given_to(market, formulation)
        optimum = None if self.optimum is None else self._posed_again(self.optimum, market, x, point)
        return Learned(market, x, point, rows, self.basis, optimum)

    def _posed_again(self, optimum: Optimum, market: MarketLp, x: FloatArray, point: OperatingPoint) -> Optimum:
        """The `optimum` at dispatch `x` of another market, open in the intervals in which that is another problem."""
        own, new, states = self.market.columns, market.columns, len(market.state_interval)
        has_new_bounds = (own.lower != new.lower) | (own.upper != new.upper)
        is_open = optimum.is_open | has_new_bounds.any(axis=1) | market.differs_from(self.market)
        is_open[market.state_interval[len(self.market.state_interval) :]] = True
        active, dual = optimum.active, optimum.multipliers
        column = np.where(has_new_bounds.ravel(), _status_at(x, new.lower.ravel(), new.upper.ravel()), active.column)
        by_state = (_with_states(part, states) for part in (dual.import_p, dual.import_q, dual.limit))
        return Optimum(
            x,
            point,
            ActiveSet(column.astype(np.int8), active.row.copy(), _with_states(active.limit, states)),
            Multipliers(dual.row.copy(), *by_state),
            market.together(is_open),
            optimum.error_usd_per_mwh,
            _with_states(optimum.excess, states),
        )


def _status_at(x: FloatArray, lower: FloatArray, upper: FloatArray) -> StatusArray:
    """Status of columns at `x` that are at their bounds, or free."""
    status = np.where(x <= lower + AT_BOUND_PU, AT_LOWER, np.where(x >= upper - AT_BOUND_PU, AT_UPPER, BASIC))
    return np.asarray(status, dtype=np.int8)


def _with_states(values: npt.NDArray[Any], states: int) -> npt.NDArray[Any]:
    """A copy of `values` by state with zeros for those that it lacks."""
    padded = np.zeros((states, *values.shape[1:]), values.dtype)
    padded[: len(values)] = values
    return padded
