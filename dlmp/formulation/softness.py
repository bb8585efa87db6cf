"""How far each limit of a network may give way, and at what price, in the formulation's own per unit.

Of a limit with edges ``e_0 < e_1 < ...``, the first of them its bound, the excess beyond ``e_j`` costs ``c_(j+1)``
until the next edge, ``0 = c_0 < c_1 < ...``.  It is always at one *level*:

* level ``2 j``: the quantity lies between ``e_(j-1)`` and ``e_j``, and the multiplier is ``c_j``;
* level ``2 j + 1``: the quantity is held at ``e_j`` by a multiplier between ``c_j`` and ``c_(j+1)``.

At level 0 it is kept with room, at 1 it binds, and from 2 on it is broken.  A *state* of a limit is a level with the
sign of the bound, negative at the lower one.  A hard limit has ``c_1 = inf`` and stays below level 2.  There is one
state for each limit in each of the s states of the network.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dlmp.formulation.interface import CONGESTION, UNBALANCE, VOLTAGE, Limits
from dlmp.network.model import FloatArray, IntArray
from dlmp.penalties import Penalties, Tiers
from dlmp.solve import LinearProgram
from dlmp.units import BASE_KVA, KW_PER_MW

BROKEN = 2
"""The least level of a broken limit."""
AT_PRICE = 1e-4
"""A multiplier this close to the price of a tier, relative, is that price: an interior point is no nearer."""

StateArray = npt.NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class Softness:
    """Edges and prices of k limits in up to n tiers, below their lower and above their upper bounds.

    Parameters
    ----------
    limits
        The limits.
    edge
        (2, n + 1, k) Edges ``e_j`` below and above; infinite where there is no further tier.
    price
        (2, n + 1, k) Prices ``c_j`` [currency/MWh x pu of power / pu of the quantity]; infinite where there is none.
    quantity
        (k,) Number of what is limited: the sides of a polygon give way together.
    """

    limits: Limits
    edge: FloatArray
    price: FloatArray
    quantity: IntArray

    @classmethod
    def of(cls, limits: Limits, penalties: Penalties) -> "Softness":
        """Give `limits` the softness of `penalties`."""
        kinds = {VOLTAGE: penalties.voltage, CONGESTION: penalties.thermal, UNBALANCE: penalties.unbalance}
        shape = (2, 1 + max(1, *(len(tiers) for tiers in kinds.values())), len(limits))
        edge, price = np.full(shape, np.inf), np.full(shape, np.inf)
        edge[0], price[:, 0] = -np.inf, 0.0
        edge[:, 0] = limits.lower, limits.upper
        for cause, tiers in kinds.items():
            own = np.flatnonzero(limits.cause == cause)
            for side in (0, 1):
                for number, (at, cost) in enumerate(_tiers(limits, own, side, cause, tiers)):
                    edge[side, number, own], price[side, number + 1, own] = at, cost
        return cls(limits, edge, price, _quantities(limits))

    @property
    def is_soft(self) -> npt.NDArray[np.bool_]:
        """(k,) True for the limits that may be broken."""
        return np.isfinite(self.price[1, 1])

    def is_exceeded_by(self, multiplier: sparse.csr_array) -> bool:
        """True where any of the multipliers (s, k) is above the price of breaking its limit."""
        entry = multiplier.tocoo()
        price = self.price[(entry.data < 0).astype(int), 1, entry.col]
        return bool((np.abs(entry.data) > price * (1 + AT_PRICE)).any())

    def states_of(self, multiplier: FloatArray) -> StateArray:
        """(s, k) States that go with multipliers (s, k), positive at a lower bound and negative at an upper."""
        size, level = np.abs(multiplier), (multiplier != 0).astype(np.int8)
        for below, above in self.price[:, 1:].transpose(1, 0, 2):
            price = np.where(multiplier > 0, below, above)
            level += 2 * (size > price * (1 + AT_PRICE)).astype(np.int8)
            level += (np.abs(size / price - 1) <= AT_PRICE).astype(np.int8)
        state = -np.sign(multiplier) * level
        held = np.nonzero(is_held(level))
        level[held] -= np.isinf(self._at(self.edge, state[held], level[held] // 2, held[1]))
        return np.asarray(-np.sign(multiplier) * level, dtype=np.int8)

    def states_at(self, value: FloatArray, slack: float) -> StateArray:
        """(s, k) States of quantities of these values (s, k), held at the edges that they are within `slack` of."""
        side = np.where(value >= self.limits.upper - slack, 1, np.where(value <= self.limits.lower + slack, -1, 0))
        level = np.zeros(value.shape, dtype=np.int8)
        for below, above in self.edge[:, :-1].transpose(1, 0, 2):
            beyond = np.where(side > 0, value - above, below - value)
            level += np.where(beyond > slack, 2, np.where(beyond >= -slack, 1, 0)).astype(np.int8)
        return np.asarray(side * level, dtype=np.int8)

    def _at(
        self, values: FloatArray, state: StateArray, number: npt.NDArray[np.integer], limit: IntArray
    ) -> FloatArray:
        """(i,) Edge or price `number` on the side of each state."""
        return np.asarray(values[(state > 0).astype(int), number, limit])

    def range_at(self, state: StateArray, limit: IntArray) -> tuple[FloatArray, FloatArray]:
        """Least and largest value (i,) of each `limit` at its state (i,)."""
        level = np.abs(state)
        near = self._at(self.edge, state, np.maximum(level - 1, 0) // 2, limit)
        far = self._at(self.edge, state, level // 2, limit)
        low = np.where(state > 0, near, np.where(state < 0, far, self.limits.lower[limit]))
        return low, np.where(state > 0, far, np.where(state < 0, near, self.limits.upper[limit]))

    def edge_at(self, state: StateArray, limit: IntArray) -> FloatArray:
        """(i,) Where each `limit` is held that is held at its state (i,)."""
        return self._at(self.edge, state, np.abs(state) // 2, limit)

    def multiplier_range_at(self, state: StateArray, limit: IntArray) -> tuple[FloatArray, FloatArray]:
        """Least and largest multiplier (i,) of each `limit` at its state (i,)."""
        level = np.abs(state)
        least, most = (self._at(self.price, state, number, limit) for number in (level // 2, (level + 1) // 2))
        return np.where(state > 0, -most, least), np.where(state > 0, -least, most)

    def excess_at(self, state: StateArray, value: FloatArray) -> FloatArray:
        """(s, k) How far broken limits are above their upper, or if negative below their lower bound [pu].

        At most as far as their states say.
        """
        excess, broken = np.zeros(state.shape), np.nonzero(np.abs(state) >= BROKEN)
        lower, upper = self.limits.lower[broken[1]], self.limits.upper[broken[1]]
        inside = np.clip(value[broken], *self.range_at(state[broken], broken[1]))
        excess[broken] = np.maximum(inside - upper, 0.0) - np.maximum(lower - inside, 0.0)
        return excess

    def priced(self, state: StateArray) -> FloatArray:
        """(s, k) Multipliers of the limits that are broken between two edges; 0 elsewhere."""
        multiplier, between = np.zeros(state.shape), np.nonzero((state != 0) & ~is_held(state))
        multiplier[between], _ = self.multiplier_range_at(state[between], between[1])
        return multiplier

    def cost_of(self, excess: FloatArray) -> FloatArray:
        """(s, k) Cost of an excess (s, k) as of `excess_at` [currency/MWh x pu]; that of a quantity stands once."""
        cost = np.zeros(excess.shape)
        for side, beyond in enumerate((-excess, excess)):
            edge = self.edge[side]
            start = np.full(edge.shape, np.inf)
            np.abs(np.subtract(edge, edge[0], where=np.isfinite(edge), out=start), out=start)
            for tier in range(edge.shape[0] - 1):
                inside = np.minimum(beyond, start[tier + 1]) - np.minimum(beyond, start[tier])
                cost += np.where(inside > 0, self.price[side, tier + 1], 0.0) * inside
        return np.where(self.quantity == np.arange(len(self.quantity)), cost, 0.0)

    def corrected(
        self,
        state: StateArray,
        limit: IntArray,
        multiplier: FloatArray,
        value: FloatArray,
        tolerance: float,
        slack: float,
    ) -> StateArray:
        """(i,) State of each `limit` after one step, where its multiplier or value is out of its range.

        Parameters
        ----------
        state, limit, multiplier, value
            (i,) Where the limits stand.
        tolerance, slack
            How far multipliers [currency/MWh] and values [pu] may be out of their range.
        """
        side = np.where(state == 0, np.where(value > self.limits.upper[limit], 1, -1), np.sign(state))
        size, place = -multiplier * side, value * side
        level, ends = np.abs(state), np.sort(side * np.stack(self.range_at(state, limit)), axis=0)
        least, most = (self._at(self.price, state, number, limit) for number in (level // 2, (level + 1) // 2))
        held = is_held(state)
        up = np.where(held, size > most + tolerance, place > ends[1] + slack)
        down = np.where(held, size < least - tolerance, (level > 0) & (place < ends[0] - slack))
        return np.asarray(side * (level + up - down), dtype=np.int8)


def is_held(state: StateArray) -> npt.NDArray[np.bool_]:
    """True where a quantity is held at an edge."""
    return np.asarray(state & 1, dtype=bool)


def _tiers(limits: Limits, own: IntArray, side: int, cause: str, tiers: Tiers) -> list[tuple[FloatArray, FloatArray]]:
    """Edge and price of each tier of the limits `own` of one cause, in the formulation's per unit."""
    power = limits.power[own]
    bound = (limits.lower, limits.upper)[side][own]
    if cause == CONGESTION:
        return [(bound * (1 + tier.beyond), np.full(len(own), tier.price)) for tier in tiers]
    sign = 2 * side - 1
    size, found = np.maximum(bound, 0.0) ** (1 / power), []
    least = np.zeros(len(own))
    for tier in tiers:
        at = np.maximum(size + sign * tier.beyond, 1e-3)
        slope = np.where(np.isfinite(at), power * at ** (power - 1), 1.0)
        least = np.maximum(least, tier.price * KW_PER_MW / BASE_KVA / slope)
        found.append((at**power, least))
    return found


def _quantities(limits: Limits) -> IntArray:
    """(k,) A number for each quantity: the flow at an end of a conductor, or a limit by itself."""
    number = np.arange(len(limits), dtype=np.int64)
    flows = np.flatnonzero(limits.branch >= 0)
    keys = np.stack([limits.branch[flows], np.unique(limits.end[flows], return_inverse=True)[1]])
    _, first, inverse = np.unique(keys, axis=1, return_index=True, return_inverse=True)
    number[flows] = flows[first[inverse]]
    return number


@dataclass(frozen=True, eq=False)
class Slack:
    """Columns by which rows of soft limits may be broken: one for each quantity, state, side and tier.

    They are measured in power where it has the most effect, which keeps cost and coefficients near those of the market.

    Parameters
    ----------
    cost, upper
        (c,) Cost of each, and the room that its tier has; the lower bound is 0.
    size
        (c,) Excess of the quantity that one unit is.
    matrix
        (i, c) Coefficients in the rows.
    state, quantity, sign
        (c,) What may be broken in which state of the network, and 1 above its upper or -1 below its lower bound.
    key
        (c,) A number for each that is the same from pass to pass.
    """

    cost: FloatArray
    upper: FloatArray
    size: FloatArray
    matrix: sparse.csr_array
    state: IntArray
    quantity: IntArray
    sign: IntArray
    key: IntArray

    def excess(self, value: FloatArray, softness: Softness, states: int) -> FloatArray:
        """(states, k) How far columns at `value` (c,) let each limit be above (below zero: below) its bound."""
        total = np.zeros((states, len(softness.limits)))
        np.add.at(total, (self.state, self.quantity), self.sign * self.size * value)
        return total[:, softness.quantity]


def slack_columns(softness: Softness, state: IntArray, limit: IntArray, steepest: FloatArray) -> Slack:
    """Columns that let the rows (i,) of `limit` in `state` be broken; a row of limit -1 has none.

    `steepest` (i,) is the largest coefficient of each row.
    """
    rows = np.flatnonzero((limit >= 0) & softness.is_soft[limit])
    tiers = softness.edge.shape[1] - 1
    owner = np.stack([state[rows], softness.quantity[limit[rows]]])
    pairs, place = np.unique(owner, axis=1, return_inverse=True)
    size = np.zeros(pairs.shape[1])
    np.maximum.at(size, place, steepest[rows])
    size = np.where(size > 0, size, 1.0)
    parts, entries, start = [], [], 0
    for side in (0, 1):
        for tier in range(tiers):
            edge, price = softness.edge[side, :, pairs[1]].T, softness.price[side, tier + 1, pairs[1]]
            exists = np.isfinite(edge[tier]) & np.isfinite(price)
            column = np.where(exists, start + np.cumsum(exists) - 1, -1)[place]
            of_rows = column >= 0
            entries.append(((1.0 - 2 * side) * size[place][of_rows], rows[of_rows], column[of_rows]))
            width = np.abs(edge[tier + 1] - np.where(exists, edge[tier], 0.0))
            key = ((pairs[1] * 2 + side) * tiers + tier) * 2**20 + pairs[0]
            sign = np.full(pairs.shape[1], 2 * side - 1)
            parts.append(np.stack([price * size, width / size, size, *pairs, sign, key])[:, exists])
            start += int(exists.sum())
    cost, upper, size, *numbers = np.concatenate(parts, axis=1)
    value, row, column = (np.concatenate(part) for part in zip(*entries, strict=True))
    matrix = sparse.csr_array((value, (row, column)), shape=(len(state), start))
    return Slack(cost, upper, size, matrix, *(number.astype(np.int64) for number in numbers))


def with_slack(problem: LinearProgram, slack: Slack) -> LinearProgram:
    """`problem` with the columns of `slack` after its own, for the last of its rows."""
    above = sparse.csr_array((problem.matrix.shape[0] - slack.matrix.shape[0], len(slack.key)))
    return replace(
        problem,
        cost=np.concatenate([problem.cost, slack.cost]),
        lower=np.concatenate([problem.lower, np.zeros(len(slack.key))]),
        upper=np.concatenate([problem.upper, slack.upper]),
        matrix=sparse.csr_array(sparse.hstack([problem.matrix, sparse.vstack([above, slack.matrix])])),
    )
