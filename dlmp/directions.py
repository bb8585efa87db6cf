"""One direction for each store in each interval, where it would pay to go both ways.

A store that charges and discharges at once burns what is lost between the two.  At a positive price that costs money
and no optimum has it; at a negative one it pays.  It is forbidden: a store that does so in an interval gets a binary
variable there, of which a mixed-integer programme on the tangents of the cleared point chooses the value, and the
market is cleared again with the other direction closed.  Prices are those of that clearing.  An interval that has once
been contested stays so, so that there are at most as many rounds as stores times intervals.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dlmp.dispatch import MAX_ROUNDS, Dispatch, PassReport, dispatch
from dlmp.formulation.interface import Formulation
from dlmp.formulation.market_lp import MarketLp
from dlmp.formulation.network_rows import NetworkRows
from dlmp.formulation.softness import Slack
from dlmp.network.model import FloatArray
from dlmp.settings import Settings
from dlmp.solve import LinearProgram, solve_mip
from dlmp.timing import PhaseClock

BOTH_WAYS_PU = 1e-7
"""A store that charges and discharges more than this at once goes both ways."""

BoolArray = npt.NDArray[np.bool_]


def dispatch_one_way(
    market: MarketLp,
    formulation: Formulation,
    settings: Settings,
    clock: PhaseClock,
    progress: Callable[[PassReport], None] | None = None,
    start: Dispatch | None = None,
) -> Dispatch:
    """Dispatch `market` without a store that goes both ways at once; see `dlmp.dispatch.dispatch`."""
    found = dispatch(market, formulation, settings, clock, progress, start)
    contested = np.zeros((market.intervals, len(market.case.stores)), bool)
    while found.converged and (both := _both_ways(market, found.x)).any():
        contested |= both
        with clock.phase("solver"):
            charges, contested = choose_directions(market, found, contested, settings.time_limit_s)
        found = dispatch(_directed(market, contested, charges), formulation, settings, clock, progress, found)
    return found


def choose_directions(
    market: MarketLp, found: Dispatch, contested: BoolArray, time_limit_s: float = np.inf
) -> tuple[BoolArray, BoolArray]:
    """Find the best direction of each contested store and interval on the tangents of a cleared point.

    Parameters
    ----------
    market
        The market with all directions open.
    found
        The cleared point.
    contested
        (t, k) Where a store may go one way only.
    time_limit_s
        Limit of each mixed-integer programme [s].

    Returns
    -------
    charges
        (t, k) True where the store may charge and not discharge; where the limits leave no choice on the tangents,
        the direction in which it went the further.
    contested
        (t, k) What was given, and where else it would have paid to go both ways.
    """
    rows = NetworkRows(market, found.formulation)
    rows.is_equality[:] = True
    rows.add_point(found.point, found.x)
    width, rounds = len(found.x), 0
    while True:
        slack = rows.slack()
        programme = _with_directions(market, rows, slack, contested, market.columns.marginal_cost(found.x))
        first = len(programme.cost) - int(contested.sum())
        x = solve_mip(programme, np.arange(len(programme.cost)) >= first, time_limit_s)
        if x is None:
            return found.x[market.block("charge")] > found.x[market.block("discharge")], contested
        rows.note_excess(slack, x[width:first])
        both = _both_ways(market, x[:width]) & ~contested
        if both.any():
            contested = contested | both
        elif rounds < MAX_ROUNDS and rows.add_predicted(found.point, x[:width]):
            rounds += 1
        else:
            charges = np.zeros(contested.shape, bool)
            charges[contested] = x[first:] > 0.5
            return charges, contested


def _both_ways(market: MarketLp, x: FloatArray) -> BoolArray:
    """(t, k) True where a store charges and discharges at once in dispatch `x`."""
    return np.minimum(x[market.block("charge")], x[market.block("discharge")]) > BOTH_WAYS_PU


def _with_directions(
    market: MarketLp, rows: NetworkRows, slack: Slack, contested: BoolArray, cost: FloatArray
) -> LinearProgram:
    """The market on the network's `rows` with their `slack`; then a column for each contested one: 1 charges, 0 not.

    `cost` (columns,) is what one more unit of each column costs at the cleared point.
    """
    soft = rows.programme(cost, slack)
    charge, discharge = market.block("charge")[contested], market.block("discharge")[contested]
    most = market.columns.upper.ravel()
    count, width = len(charge), len(soft.cost)
    every, none = np.arange(count), np.zeros(count)
    # charge - most * z <= 0 and discharge + most * z <= most
    own = sparse.csr_array(
        (np.ones(2 * count), (np.r_[every, count + every], np.r_[charge, discharge])), shape=(2 * count, width)
    )
    binary = sparse.csr_array(sparse.vstack([-sparse.diags_array(most[charge]), sparse.diags_array(most[discharge])]))
    return LinearProgram(
        cost=np.r_[soft.cost, none],
        lower=np.r_[soft.lower, none],
        upper=np.r_[soft.upper, np.ones(count)],
        matrix=sparse.csr_array(sparse.block_array([[soft.matrix, None], [own, binary]])),
        row_lower=np.r_[soft.row_lower, np.full(2 * count, -np.inf)],
        row_upper=np.r_[soft.row_upper, none, most[discharge]],
    )


def _directed(market: MarketLp, contested: BoolArray, charges: BoolArray) -> MarketLp:
    """The market with the other direction closed in the contested intervals."""
    upper = market.columns.upper.copy()
    for name, closed in (("charge", contested & ~charges), ("discharge", contested & charges)):
        block = upper[:, market.template.blocks[name]]
        block[closed] = 0.0
    return replace(market, columns=replace(market.columns, upper=upper))
