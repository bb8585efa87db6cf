"""Who is accepted where bids tie: a rule that neither changes what the network carries nor asks who bid first.

Segments of one price at one place tie: any split of what is accepted of them costs the same.  Each gets the same part
of its quantity (pro rata), and supply that ties with demand trades with it.  Reactive power, free of charge, is shared
among the resources of a place by the widths of their ranges.  Where a range, a rating or another bid of a resource
leaves it less than its part, the others share the rest.  All of that is the least

    sum over tied segments (quantity - award)^2 / quantity  +  sum over resources q^2 / (q_max - q_min)

with the net award of every tie and the reactive power of every place as they were cleared.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dlmp.bids import Resources
from dlmp.dispatch import Dispatch
from dlmp.errors import SolverError
from dlmp.formulation.market_lp import NO_ROOM_PU, MarketLp
from dlmp.nearest import Polyhedron, nearest_point
from dlmp.network.model import FloatArray, IntArray
from dlmp.ramps import ramp_limited

BoolArray = npt.NDArray[np.bool_]


def with_shared_ties(found: Dispatch) -> Dispatch:
    """Return `found` with what ties shared by the rule; itself where nothing ties.

    Raises
    ------
    SolverError
        When the shares cannot be found.
    """
    market = found.market
    place = places(market.case.resources)
    x = found.x.reshape(market.intervals, market.width).copy()
    may_share = _may_share(market)
    tied = np.flatnonzero(_has_ties(market, place, may_share))
    for interval in tied.tolist():
        ties = _ties(market, place, may_share, interval)
        x[interval, ties.columns] = _shared(found, ties, interval)
    return replace(found, x=x.ravel()) if len(tied) else found


def places(resources: Resources) -> IntArray:
    """(r,) A number that is the same for resources that inject at the same ports in the same shares."""
    share = sparse.csr_array(resources.share)
    share.sort_indices()
    rows = [slice(*share.indptr[row : row + 2]) for row in range(len(resources))]
    keys = [(share.indices[row].tobytes(), share.data[row].tobytes()) for row in rows]
    number = {key: index for index, key in enumerate(dict.fromkeys(keys))}
    return np.array([number[key] for key in keys], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class _Ties:
    """What may be shared out in an interval.

    Parameters
    ----------
    columns
        (c,) Columns of the template: tied awards, then the resources' real, then reactive injections.
    weight, centre
        (c,) The rule's cost ``weight (x - centre)^2``.
    kept
        (k, c) Sums that stay as they are.
    """

    columns: IntArray
    weight: FloatArray
    centre: FloatArray
    kept: sparse.csr_array


def _may_share(market: MarketLp) -> BoolArray:
    """(t, s) True for the segments that may tie with others.

    Those whose price rises along them do not tie, and those of resources with ramps are left as they are.
    """
    case, own, columns = market.case, market.template.blocks["award"], market.columns
    slow = np.isin(
        case.bids.resource, np.unique(np.concatenate(ramp_limited(case.resources, case.horizon.interval_minutes)))
    )
    return (columns.upper[:, own] - columns.lower[:, own] > NO_ROOM_PU) & (columns.slope[:, own] == 0) & ~slow


def _has_ties(market: MarketLp, place: IntArray, may_share: BoolArray) -> BoolArray:
    """(t,) True where two segments that `may_share`, or the reactive powers of two resources, tie."""
    bids, columns, reactive = market.case.bids, market.columns, market.template.blocks["q"]
    price = np.where(may_share, bids.price_usd_per_mwh, np.inf)
    at = np.broadcast_to(place[bids.resource], price.shape)
    order = np.lexsort((price, at), axis=1)
    at, price = (np.take_along_axis(values, order, axis=1) for values in (at, price))
    tied = (at[:, 1:] == at[:, :-1]) & (price[:, 1:] == price[:, :-1]) & np.isfinite(price[:, 1:])
    room = columns.upper[:, reactive] - columns.lower[:, reactive] > NO_ROOM_PU
    count = np.zeros((market.intervals, len(place)), dtype=int)
    np.add.at(count.T, place, room.T)
    return np.asarray(tied.any(axis=1) | (count > 1).any(axis=1))


def _ties(market: MarketLp, place: IntArray, may_share: BoolArray, interval: int) -> _Ties:
    """Find the segments that `may_share`, and the reactive powers, that tie at `interval`."""
    bids, blocks = market.case.bids, market.template.blocks
    room = market.columns.upper[interval] - market.columns.lower[interval]
    at, price = place[bids.resource], bids.price_usd_per_mwh[interval]
    segment = np.flatnonzero(may_share[interval])
    _, group = np.unique(np.stack([at[segment], price[segment]]), axis=1, return_inverse=True)
    segment, group = _shared_by_two(segment, group.ravel())
    reactive = np.flatnonzero(room[blocks["q"]] > NO_ROOM_PU)
    reactive, node = _shared_by_two(reactive, place[reactive])
    real = np.unique(bids.resource[segment])
    quantity, width = room[blocks["award"]][segment], room[blocks["q"]][reactive]
    still = np.zeros(len(real))
    sign = np.where(bids.is_supply[segment], 1.0, -1.0)
    return _Ties(
        np.concatenate([blocks["award"].start + segment, blocks["p"].start + real, blocks["q"].start + reactive]),
        np.concatenate([1 / quantity, still, 1 / width]),
        np.concatenate([quantity, still, np.zeros(len(reactive))]),
        sparse.csr_array(
            sparse.block_diag([_sums(group, sign), sparse.csr_array((0, len(real))), _sums(node, np.ones(len(node)))])
        ),
    )


def _shared_by_two(item: IntArray, group: IntArray) -> tuple[IntArray, IntArray]:
    """Items whose group has another, and their groups."""
    _, index, count = np.unique(group, return_inverse=True, return_counts=True)
    shared = count[index] > 1
    return item[shared], group[shared]


def _sums(group: IntArray, sign: FloatArray) -> sparse.csr_array:
    """Rows that add up each group."""
    different, row = np.unique(group, return_inverse=True)
    return sparse.csr_array((sign, (row, np.arange(len(group)))), shape=(len(different), len(group)))


def _shared(found: Dispatch, ties: _Ties, interval: int) -> FloatArray:
    """Values of the columns of `ties` that the rule gives."""
    market, count = found.market, len(found.market.template.row_lower)
    own = np.arange(interval * count, (interval + 1) * count)
    part = market.template.matrix[:, ties.columns]
    rows = np.flatnonzero(np.diff(part.indptr))
    x = found.x[interval * market.width + ties.columns]
    fixed = (market.matrix[own] @ found.x - part @ x)[rows]
    kept = ties.kept @ x
    within = Polyhedron(
        market.columns.lower[interval, ties.columns],
        market.columns.upper[interval, ties.columns],
        sparse.csr_array(sparse.vstack([part[rows], ties.kept])),
        np.concatenate([market.row_lower[own][rows] - fixed, kept]),
        np.concatenate([market.row_upper[own][rows] - fixed, kept]),
    )
    shared = nearest_point(within, ties.weight, ties.centre)
    if shared is None:
        raise SolverError(f"interval {interval}: awards that tie cannot be shared out")
    return np.clip(shared, within.lower, within.upper)
