"""Which limits conflict where no dispatch keeps them all: irreducible sets, of which all but any one can be kept.

Services that are required at whatever price are limits of this kind.

At the tangents of the point that breaks least, the LP that may break every limit at a cost tells by its duals a set
of limits that cannot be kept together.  Taking out of it whatever it does not need leaves an irreducible one (the
deletion filter of Chinneck and Dravnieks, ORSA J. Computing 3(2), 1991).  Its limits are then let go of, and the
search goes on among the others, until these can be kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dlmp.elastic import Breakable, elastic_programme
from dlmp.errors import LimitConflict, ShortageConflict
from dlmp.formulation.interface import Formulation, Limits, OperatingPoint
from dlmp.formulation.market_lp import MarketLp
from dlmp.formulation.softness import Slack
from dlmp.network.model import FloatArray, IntArray
from dlmp.products.substation import IMPORT_NAMES
from dlmp.services import REACTIVE
from dlmp.solve import LinearProgram, LpSolution, solve_lp
from dlmp.units import BASE_KVA

MOST_CONFLICTS = 20
"""Conflicting limits that are named."""
BROKEN_PU = 1e-7
"""Limits of which less than this must be broken can be kept [pu of power where it has the most effect]."""
IN_USE = 1e-9
"""A row whose dual is smaller, relative to the cost of breaking it, has no part in a conflict."""

Key = tuple[int, int]
"""State of the network, and limit; limits -1 and -2 are the ranges of real and of reactive import as scheduled, and
`FIRST_REQUIREMENT` and below required services."""
REAL_RANGE, REACTIVE_RANGE, FIRST_REQUIREMENT = -1, -2, -3


@dataclass(frozen=True, eq=False)
class NetworkRowKeys:
    """State and limit (i,) of each network row, and whether that limit may not be broken; limit -1: no limit."""

    state: IntArray
    limit: IntArray
    is_hard: npt.NDArray[np.bool_]


def find_conflicts(
    problem: LinearProgram,
    market: MarketLp,
    formulation: Formulation,
    rows: NetworkRowKeys,
    x: FloatArray,
    point: OperatingPoint,
) -> list[LimitConflict]:
    """Irreducible sets of the hard limits that `problem` cannot keep, in each set the worst first.

    Parameters
    ----------
    problem
        The market's rows, then those of the network.  Further columns may stand behind those of the market.
    market, formulation
        What they are of.
    rows
        What each network row is of.
    x, point
        The dispatch whose tangents the rows have, and its state.
    """
    found: list[LimitConflict] = []
    whole = _Elastic.of(problem, market, rows)
    for group in market.groups(np.arange(market.intervals)):
        elastic = whole.of_intervals(group)
        for core in elastic.irreducible_sets():
            number = found[-1].group + 1 if found else 0
            for key in core:
                moved = x.reshape(market.intervals, -1).copy()
                excess, moved[group] = elastic.least_excess(key, core, moved[group])
                near = formulation.operate(market.injection(moved.ravel()), point)
                found.append(_told(key, excess, near, market, formulation.limits, number))
    return found[:MOST_CONFLICTS]


@dataclass(frozen=True, eq=False)
class _Elastic:
    """An LP whose n last but n, and n last columns break one of its rows each, downwards and upwards.

    Parameters
    ----------
    programme
        The LP.
    rows, size
        (n,) Breakable rows, and what one unit of their columns is.
    key
        (n, 2) Whose row it is: see `Key`.
    row_interval, column_interval
        Interval of each row, and of each column; columns without one are of all.
    """

    programme: LinearProgram
    rows: IntArray
    size: FloatArray
    key: IntArray
    row_interval: IntArray
    column_interval: IntArray

    @classmethod
    def of(cls, problem: LinearProgram, market: MarketLp, rows: NetworkRowKeys) -> "_Elastic":
        """The LP that may break every hard limit, the import's range, and what services must be held ready."""
        breakable = Breakable.of(problem, market, rows.is_hard)
        imported = np.stack([breakable.columns // market.width, np.full(len(breakable.columns), REAL_RANGE)], axis=1)
        imported[np.isin(breakable.columns, market.block("import_q")), 1] = REACTIVE_RANGE
        of_limits = np.stack([rows.state, rows.limit], axis=1)[rows.is_hard]
        required = breakable.requirements * [1, -1] + [0, FIRST_REQUIREMENT]
        key = np.concatenate([of_limits, imported, required])
        every, interval = np.arange(market.intervals), market.state_interval
        extra = np.full(len(problem.cost) - market.intervals * market.width, -1)
        of_rows = np.concatenate(
            [np.repeat(every, len(market.template.row_lower)), interval[rows.state], imported[:, 0]]
        )
        return cls(
            elastic_programme(problem, market, rows.is_hard),
            breakable.rows,
            breakable.size,
            key,
            of_rows,
            np.concatenate([np.repeat(every, market.width), extra, np.tile(interval[key[:, 0]], 2)]),
        )

    def of_intervals(self, group: IntArray) -> "_Elastic":
        """The part of some intervals, which nothing couples to others."""
        rows = np.isin(self.row_interval, group)
        columns = np.isin(self.column_interval, group) | (self.column_interval < 0)
        own, whole = rows[self.rows], self.programme
        return _Elastic(
            LinearProgram(
                whole.cost[columns],
                whole.lower[columns],
                whole.upper[columns],
                whole.matrix[rows][:, columns],
                whole.row_lower[rows],
                whole.row_upper[rows],
            ),
            (np.cumsum(rows) - 1)[self.rows[own]],
            self.size[own],
            self.key[own],
            self.row_interval[rows],
            self.column_interval[columns],
        )

    def _is_of(self, keys: Sequence[Key]) -> npt.NDArray[np.bool_]:
        """(n,) True for the rows of `keys`."""
        known = set(keys)
        return np.array([tuple(key) in known for key in self.key.tolist()], dtype=bool)

    def solve(self, counted: Sequence[Key]) -> LpSolution | None:
        """Break the limits `counted` least, and all others at no cost."""
        cost = np.zeros(len(self.programme.cost))
        cost[len(cost) - 2 * len(self.rows) :] = np.tile(self._is_of(counted), 2)
        return solve_lp(replace(self.programme, cost=cost))

    def breaks(self, keys: Sequence[Key]) -> bool:
        """True when the limits `keys` cannot be kept together."""
        found = self.solve(keys)
        return found is None or found.objective > BROKEN_PU

    def least_excess(self, key: Key, core: Sequence[Key], x: FloatArray) -> tuple[float, FloatArray]:
        """Excess of a limit of a set when the others are kept at the least cost, and that dispatch (t, width)."""
        cost, upper = self.programme.cost.copy(), self.programme.upper.copy()
        first = len(cost) - 2 * len(self.rows)
        cost[first:][~np.tile(self._is_of([key]), 2)] = 0.0
        upper[first:][np.tile(self._is_of([other for other in core if other != key]), 2)] = 0.0
        found = solve_lp(replace(self.programme, cost=cost, upper=upper))
        return (0.0, x) if found is None else (self.excess(key, found), found.x[: x.size].reshape(x.shape))

    def excess(self, key: Key, found: LpSolution) -> float:
        """How far `found` lies above the bounds of a limit, or if negative below [pu of the limit]."""
        below, above = found.x[-2 * len(self.rows) :].reshape(2, -1) * self.size
        amount = (above - below)[self._is_of([key])]
        return float(amount[np.abs(amount).argmax()])

    def irreducible_sets(self) -> list[list[Key]]:
        """Disjoint sets of limits that cannot be kept together, though all but any one of them can."""
        rest: list[Key] = sorted({(state, limit) for state, limit in self.key.tolist()})
        sets: list[list[Key]] = []
        while rest and sum(len(core) for core in sets) < MOST_CONFLICTS:
            found = self.solve(rest)
            if found is None or found.objective <= BROKEN_PU:
                break
            is_used = np.abs(found.row_dual[self.rows]) * self.size > IN_USE
            used = {(state, limit) for state, limit in self.key[is_used].tolist()}
            worst_last = {key: abs(self.excess(key, found)) for key in rest if key in used}
            core = sorted(worst_last, key=lambda key: worst_last[key])
            new = [[key] for key in core if self.breaks([key])] or [self._filtered(core)]
            sets += [keys[::-1] for keys in reversed(new)]
            gone = {key for keys in new for key in keys}
            rest = [key for key in rest if key not in gone]
        return sets

    def _filtered(self, core: list[Key]) -> list[Key]:
        """Take out of a set that cannot be kept whatever is not needed for that, from its beginning."""
        for key in list(core):
            others = [other for other in core if other != key]
            if self.breaks(others):
                core = others
        return core


def _told(key: Key, excess: float, near: OperatingPoint, market: MarketLp, limits: Limits, group: int) -> LimitConflict:
    """Limit `key` and its value at a point that keeps the others of its set; by `excess` where there is no state."""
    state, limit = key
    if limit <= FIRST_REQUIREMENT:
        return _told_shortage(state, FIRST_REQUIREMENT - limit, excess, market, group)
    interval, call = int(market.state_interval[state]), market.call_name(state)
    if limit >= 0:
        low, high, value = limits.lower[limit], limits.upper[limit], near.limit_value[state, limit]
    else:
        variable = "import_p" if limit == REAL_RANGE else "import_q"
        low, high = (
            end[interval, market.template.blocks[variable]].item()
            for end in (market.columns.lower, market.columns.upper)
        )
        value = getattr(near.import_pu[interval], "real" if limit == REAL_RANGE else "imag")
    bound = high if excess > 0 else low
    if not near.converged[state] or (value - bound) * excess <= 0:
        value = bound + excess
    if limit >= 0:
        bound, value = limits.physical(np.array([limit, limit]), np.array([bound, value]))
        name, unit = limits.name(limit), str(limits.unit[limit])
        name += "" if call == "-" else f" when {call} is called"
    else:
        bound, value = bound * BASE_KVA, value * BASE_KVA
        name, unit = IMPORT_NAMES[variable]
    return LimitConflict(name, interval, float(bound), float(value), unit, group)


def _told_shortage(interval: int, number: int, excess: float, market: MarketLp, group: int) -> ShortageConflict:
    """Requirement `number`, of which `excess` [pu], below zero, is lacking."""
    requirements = market.case.requirements
    required_kw = float(requirements.quantity_kw[interval, number])
    is_reactive = str(requirements.service[number]) in REACTIVE
    return ShortageConflict(
        f"requirement {requirements.name[number]}",
        interval,
        required_kw,
        required_kw + excess * BASE_KVA,
        "kvar" if is_reactive else "kW",
        group,
    )


def avoidable(programme: LinearProgram, slack: Slack, market: MarketLp) -> npt.NDArray[np.bool_]:
    """(t,) True where the limits can all be kept, to first order.

    Parameters
    ----------
    programme
        The LP with the columns of `slack` as its last.
    slack, market
        What it is of.
    """
    beyond, width = market.block("import_beyond"), len(programme.cost) - len(slack.key)
    cost = np.zeros(len(programme.cost))
    cost[beyond.ravel()], cost[width:] = 1.0, 1.0
    found = solve_lp(replace(programme, cost=cost))
    if found is None:
        return np.zeros(market.intervals, bool)
    broken = found.x[beyond].sum(axis=1)
    np.add.at(broken, market.state_interval[slack.state], found.x[width:])
    return ~market.together(broken > BROKEN_PU)
