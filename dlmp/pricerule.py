"""Which prices are published where more than one set supports the dispatch: a rule that no order of bids changes.

1. The mean of the real prices over the priced ports stands in the middle of its range: between what less demand
   everywhere saves and what more costs.  Where one end is open the other counts.  This is how coupled day-ahead
   markets settle an indeterminate price (EUPHEMIA Public Description, "price indeterminacy").  The penalty of a limit
   that is kept is no end: what it would cost to break it has no part in the price, but as its bound.
2. Of the multipliers left, those with the least squares: of what import is worth beyond the substation's price, and
   of what each limit adds, summed over the real and reactive prices of all ports; of the values of stored energy; and
   of the prices of required services.  So limits that bind together share what is due to both, stored energy is worth
   what one more MWh would save, and a service that is as much as required no more than it takes to have it.

Both are stated in prices and the network alone, and the second is strictly convex: the answer is one.  Means that
differ by no more than the solver tells count as one, which leaves 1. nothing to choose; where rounding hides the
answer of 2., multipliers that are known to keep 1. are published, and their intervals told.
Multipliers that share no condition (`dlmp.supporting`) are chosen apart; intervals that do, through stores, together.
"""

from dataclasses import replace

import numpy as np
from scipy import sparse

from dlmp.dispatch import Dispatch
from dlmp.formulation.interface import Weights
from dlmp.nearest import Polyhedron, nearest_point
from dlmp.network.model import FloatArray, IntArray
from dlmp.products.services import REQUIREMENT
from dlmp.products.storage import ENERGY_BALANCE
from dlmp.supporting import IMPORT_P, IMPORT_Q, LIMIT, MARKET, DualChanges, End


def with_chosen_prices(found: Dispatch) -> tuple[Dispatch, tuple[int, ...]]:
    """Return `found` with the multipliers that the rule chooses, itself where they are the only ones.

    The intervals beside it are those whose multipliers support the dispatch, but are not known to be the rule's:
    rounding hid these.
    """
    duals = DualChanges(found)
    change, beside_rule = np.zeros(len(duals)), set[int]()
    for part in duals.open_parts():
        chosen, is_known = _chosen(duals, part)
        change[part] = chosen * duals.scale[part]
        if not is_known:
            beside_rule.update(duals.interval[part].tolist())
    told = tuple(sorted(beside_rule))
    if not change.any():
        return found, told
    row_dual, weights = found.row_dual.copy(), found.weights
    row_dual[duals.row[duals.kind == MARKET]] += change[duals.kind == MARKET]
    at_limit = duals.kind == LIMIT
    places = (duals.state[at_limit], duals.limit[at_limit])
    limits = weights.limits + sparse.csr_array((change[at_limit], places), shape=weights.limits.shape)
    limits.eliminate_zeros()
    import_p, import_q = weights.import_p.copy(), weights.import_q.copy()
    for kind, value in ((IMPORT_P, import_p), (IMPORT_Q, import_q)):
        value[duals.state[duals.kind == kind]] += change[duals.kind == kind]
    return replace(found, weights=Weights(import_p, import_q, sparse.csr_array(limits)), row_dual=row_dual), told


def _chosen(duals: DualChanges, part: IntArray) -> tuple[FloatArray, bool]:
    """Scaled changes of the multipliers `part` that the rule chooses; False with others, where rounding hides them."""
    mean, square, reference = _criteria(duals, part)
    scale = duals.scale[part]
    within, instead, is_known = _middle(duals, part, mean * scale)
    change = nearest_point(within, square * scale**2, (reference - duals.dual[part]) / scale)
    # Where rounding hides the nearest point, one that is known to lie within: the dispatch is the best all the same.
    return (instead, False) if change is None else (change, is_known)


def _criteria(duals: DualChanges, part: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """What each of the multipliers `part` adds to the mean price, the weight of its square, and where that is zero."""
    market = duals.found.market
    case = market.case
    kind, interval, ports = duals.kind[part], duals.interval[part], np.flatnonzero(case.network.is_priced)
    gradient = duals.price_gradients(part, ports)
    square = (gradient**2).sum(axis=(1, 2)) / len(ports)
    square[np.isin(duals.row[part], market.rows_of(ENERGY_BALANCE))] = case.horizon.interval_hours**2
    square[np.isin(duals.row[part], market.rows_of(REQUIREMENT))] = 1.0
    substation = case.substation
    reference = np.where(kind == IMPORT_P, substation.price_usd_per_mwh[interval], 0.0)
    reference = np.where(kind == IMPORT_Q, substation.q_price_usd_per_mvarh[interval], reference)
    return gradient[:, 0].mean(axis=1), square, reference


def _middle(duals: DualChanges, part: IntArray, mean: FloatArray) -> tuple[Polyhedron, FloatArray, bool]:
    """Where the mean price stands in the middle of its range, or anywhere where it has none or no end; a point of it.

    False where an end is not known.

    Parameters
    ----------
    duals, part
        The multipliers.
    mean
        (i,) What each scaled change adds to the mean price [currency/MWh].
    """
    within, none = duals.polyhedron(part), np.zeros(len(part))
    if not mean.any():
        return within, none, True
    same = float(duals.same_usd_per_mwh[duals.interval[part]].max())
    low, high = duals.ends(part, mean)
    least, most = (float(mean @ end.change) for end in (low, high))
    is_known = low.is_known and high.is_known
    if most - least <= same:
        return within, none, is_known
    without_penalty = duals.ends(part, mean, is_hard=True)
    is_known = is_known and all(end.is_known for end in without_penalty)
    bounded = [float(mean @ end.change) for end in without_penalty if not end.is_open]
    if not bounded:
        return within, none, is_known
    target = float(np.clip(np.mean(bounded), least, most))
    for end, value in ((low, least), (high, most)):
        if abs(target - value) <= same:
            return _held_at(within, end), end.change, is_known
    share = (target - least) / (most - least)
    held = replace(
        within,
        matrix=sparse.csr_array(sparse.vstack([within.matrix, mean[None, :]])),
        row_lower=np.append(within.row_lower, target),
        row_upper=np.append(within.row_upper, target),
    )
    return held, (1 - share) * low.change + share * high.change, is_known


def _held_at(within: Polyhedron, end: End) -> Polyhedron:
    """The points as far as `end`: an equality of the mean price alone would leave no interior to look for them in."""
    value = within.matrix @ end.change
    return Polyhedron(
        np.where(end.holds_unknown, end.change, within.lower),
        np.where(end.holds_unknown, end.change, within.upper),
        within.matrix,
        np.where(end.holds_row, value, within.row_lower),
        np.where(end.holds_row, value, within.row_upper),
    )
