"""The linear programme of the market without its network: what all formulations have in common."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyomo.environ as pyo
from scipy import sparse

from dlmp.bids import check_reach, injection_range
from dlmp.calls import CalledStates, call_name, whole_services
from dlmp.errors import Problems
from dlmp.formulation.template import Template, collector_paused, compile_template, over_horizon, second_of_two
from dlmp.market import MarketCase
from dlmp.network.model import ComplexArray, FloatArray, IntArray
from dlmp.penalties import HARD, Penalties
from dlmp.products.blockbids import block_bounds
from dlmp.products.columns import Columns
from dlmp.products.energy import SUPPLY_LESS_DEMAND, declare_energy, energy_columns
from dlmp.products.ramps import has_ramps, ramp_bounds
from dlmp.products.reactive import INJECTED_LESS_ABSORBED
from dlmp.products.services import CALLS_LAST, REQUIREMENT, SERVICE_VARIABLES, lags, running_columns, service_bounds
from dlmp.products.storage import STORE_VARIABLES, store_bounds
from dlmp.products.substation import IMPORT_RANGE, IMPORT_VARIABLES, import_bounds
from dlmp.solve import BASIC, StatusArray

NO_ROOM_PU = 1e-9
"""A column whose bounds are no farther apart is fixed."""
ROUNDING_PU = 1e-12
"""A sum that differs by less from its parts differs by rounding."""
OF_ROWS = (
    "matrix",
    "by_column",
    "network_columns",
    "ports",
    "port_power_by_column",
    "share_of_ports",
    "state_interval",
)
"""What a market has worked out that neither bounds nor costs enter."""
VARIABLES = [*STORE_VARIABLES, "award", "block", "q_award", "p", "q", *IMPORT_VARIABLES, *SERVICE_VARIABLES]
"""In the order of the columns: what couples intervals comes first, which keeps the stages of their programme narrow."""


@dataclass(frozen=True, eq=False)
class MarketLp:
    """Rows and columns of the market over the horizon; column ``(t, c)`` stands at ``t * width + c``.

    Parameters
    ----------
    case
        The market case.
    template
        One interval.
    columns
        Bounds and costs, (t, width) each.
    bounds
        Bounds (t, i) of the rules whose bounds differ from interval to interval.
    called
        Network states beside those as scheduled, which come first; there are ``t + len(called)`` states in all.
    penalties
        What it costs to break a limit.
    """

    case: MarketCase
    template: Template
    columns: Columns
    bounds: Mapping[str, tuple[FloatArray, FloatArray]]
    called: CalledStates
    penalties: Penalties = HARD

    @cached_property
    def state_interval(self) -> IntArray:
        """Interval of each state."""
        return np.concatenate([np.arange(self.intervals), self.called.interval])

    @cached_property
    def by_column(self) -> sparse.csr_array:
        """Real and reactive injection of every resource in every state, (states * 2 * r, columns)."""
        offers, count = self.case.service_offers, len(self.case.resources)
        power = self.network_columns[self.state_interval].ravel()
        state, offer = np.nonzero(self.called.calls)
        row = (self.intervals + state) * 2 * count + offers.is_reactive[offer] * count + offers.resource[offer]
        running = np.concatenate([self.block("reserve"), self.block("reserved_before")], axis=1)
        place = running_columns(self.case)[offer, self.called.lag[state, offer]]
        column = running[self.called.interval[state], place]
        entries = np.concatenate([np.ones(len(power)), offers.direction[offer]])
        places = np.concatenate([np.arange(len(power)), row]), np.concatenate([power, column])
        return sparse.csr_array((entries, places), shape=(len(power), self.matrix.shape[1]))

    def power(self, x: FloatArray) -> FloatArray:
        """Injections of all resources in every state at dispatch `x`, (states, 2, r)."""
        return np.asarray(self.by_column @ x).reshape(len(self.state_interval), 2, len(self.case.resources))

    def call_name(self, state: int, *, with_names: bool = True) -> str:
        """What is called in `state`, for people; ``-`` for a state as scheduled."""
        if state < self.intervals:
            return "-"
        case, number = self.case, state - self.intervals
        return call_name(case.resources, case.service_offers, self.called, number, with_names=with_names)

    def states_of(self, intervals: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """(states,) True for the states of the (t,) `intervals`."""
        return np.asarray(intervals[self.state_interval])

    def intervals_of(self, states: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """(t,) True for the intervals with any of the (states,) `states`."""
        found = np.zeros(self.intervals, bool)
        found[self.state_interval[states]] = True
        return found

    def curvature(self, blocks: Mapping[int, FloatArray], wanted: npt.NDArray[np.bool_]) -> sparse.csr_array:
        """Second derivatives by all columns, of the `blocks` of states by their `wanted` (states, 2, r) injections."""
        count, size = 2 * len(self.case.resources), self.by_column.shape[0]
        placed = ((state * count + np.flatnonzero(wanted[state]), block) for state, block in blocks.items())
        return sparse.csr_array(self.by_column.T @ from_blocks(placed, size) @ self.by_column)

    def offered(
        self, case: MarketCase, columns: Columns, bounds: Mapping[str, tuple[FloatArray, FloatArray]]
    ) -> "MarketLp":
        """The market of a `case` with the same rows and other bounds and costs."""
        made = replace(self, case=case, columns=columns, bounds=bounds)
        made.__dict__.update({name: self.__dict__[name] for name in OF_ROWS if name in self.__dict__})
        return made

    def differs_from(self, other: "MarketLp") -> npt.NDArray[np.bool_]:
        """(t,) True where costs, bounds of rows, or loads are not those of another market of the same rows."""
        differs = self.has_other_load(other)
        for name in ("cost", "slope"):
            differs |= (getattr(self.columns, name) != getattr(other.columns, name)).any(axis=1)
        for name in ("row_lower", "row_upper"):
            rows = getattr(self, name) != getattr(other, name)
            differs |= rows.reshape(self.intervals, -1).any(axis=1)
        return differs

    def has_other_load(self, other: "MarketLp") -> npt.NDArray[np.bool_]:
        """(t,) True where loads are not those of another market of the same network."""
        own, known = self.case, other.case
        if own is known:
            return np.zeros(self.intervals, bool)
        return np.asarray(((own.load_p_kw != known.load_p_kw) | (own.load_q_kvar != known.load_q_kvar)).any(axis=1))

    def with_states(self, called: CalledStates) -> "MarketLp":
        """The same market with more states in which its network must hold."""
        return replace(self, called=self.called.joined(called))

    @property
    def intervals(self) -> int:
        """Number of intervals."""
        return len(self.columns.lower)

    @property
    def width(self) -> int:
        """Columns of one interval."""
        return self.template.column_count

    def block(self, name: str) -> IntArray:
        """(t, i) Columns of the variable `name`."""
        place = np.arange(self.width)[self.template.blocks[name]]
        return np.arange(self.intervals)[:, None] * self.width + place

    @cached_property
    def matrix(self) -> sparse.csr_array:
        """Rows of all intervals."""
        own = sparse.kron(sparse.eye_array(self.intervals), self.template.matrix)
        if not self.is_coupled:
            return sparse.csr_array(own)
        return sparse.csr_array(own + sparse.kron(sparse.eye_array(self.intervals, k=-1), self.template.before))

    @cached_property
    def is_quadratic(self) -> bool:
        """True when the price of some segment changes along it."""
        return bool(self.columns.slope.any())

    @property
    def is_coupled(self) -> bool:
        """True when what an interval does changes what the next one can."""
        return self.intervals > 1 and self.template.before.nnz > 0

    def groups(self, intervals: IntArray) -> list[IntArray]:
        """`intervals` in groups that can be solved apart."""
        if self.is_coupled:
            return [intervals] if len(intervals) else []
        return list(intervals[:, None])

    def together(self, intervals: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """(t,) True for all intervals that share a group with one of the (t,) `intervals`."""
        return np.full_like(intervals, intervals.any()) if self.is_coupled else intervals

    @cached_property
    def own_rows(self) -> npt.NDArray[np.bool_]:
        """(rows,) True for what a resource must keep by itself, whatever the others do."""
        own = np.ones(len(self.row_lower), bool)
        for rule in (REQUIREMENT, IMPORT_RANGE):
            own[self.rows_of(rule)] = False
        return own

    def rows_of(self, rule: str) -> IntArray:
        """(t, i) Rows of a Pyomo rule."""
        return np.arange(self.intervals)[:, None] * len(self.template.row_lower) + self.template.rows_of(rule)

    @cached_property
    def row_lower(self) -> FloatArray:
        """Lower bounds of all rows."""
        return self._row_bounds(0)

    @cached_property
    def row_upper(self) -> FloatArray:
        """Upper bounds of all rows."""
        return self._row_bounds(1)

    def _row_bounds(self, end: int) -> FloatArray:
        template = self.template
        bounds = np.tile((template.row_lower, template.row_upper)[end], (self.intervals, 1))
        for rule, own in self.bounds.items():
            bounds[:, template.rows_of(rule)] = own[end]
        return bounds.ravel()

    def with_blocks(self, accepted: npt.NDArray[np.bool_]) -> "MarketLp":
        """Hold the (b,) `accepted` blocks to at least their least share, and all others to nothing."""
        lower, upper = self.columns.lower.copy(), self.columns.upper.copy()
        own = self.template.blocks["block"]
        upper[:, own] *= accepted
        lower[:, own] = upper[:, own] * self.case.blocks.least_share
        return replace(self, columns=replace(self.columns, lower=lower, upper=upper))

    @cached_property
    def feeds(self) -> dict[str, tuple[int, IntArray]]:
        """What each column of these variables is a part of: real (0) or reactive (1) injection, and whose."""
        stores, case = self.case.stores.resource, self.case
        return {
            "award": (0, case.bids.resource),
            "block": (0, case.blocks.resource),
            "q_award": (1, case.reactive_bids.resource),
            "charge": (0, stores),
            "discharge": (0, stores),
        }

    @cached_property
    def network_columns(self) -> IntArray:
        """(t, 2, r) Columns of the real and the reactive injection of every resource."""
        return np.stack([self.block("p"), self.block("q")], axis=1)

    @cached_property
    def ports(self) -> IntArray:
        """Ports at which any resource stands."""
        return np.unique(self.case.resources.share.indices).astype(np.int64)

    @cached_property
    def share_of_ports(self) -> sparse.csr_array:
        """(ports, r) Share of every resource at each of `ports`."""
        return sparse.csr_array(self.case.resources.share[:, self.ports].T)

    @cached_property
    def port_power_by_column(self) -> sparse.csr_array:
        """Real and reactive power at each of `ports` in every state, (states * 2 * ports, columns)."""
        share = sparse.kron(sparse.eye_array(2 * len(self.state_interval)), self.share_of_ports)
        return sparse.csr_array(sparse.csr_array(share) @ self.by_column)

    def spread(self, gradient: FloatArray) -> FloatArray:
        """Spread gradients by `ports` (i, 2, ports) over resources (i, 2, r)."""
        rows = gradient.reshape(2 * len(gradient), gradient.shape[2]) @ self.share_of_ports
        return np.asarray(rows).reshape(*gradient.shape[:2], len(self.case.resources))

    def along_columns(self, gradient: FloatArray) -> FloatArray:
        """Derivatives by all (columns,) of a sum over states with `gradient` (states, 2, ports) by `ports`."""
        return np.asarray(self.by_column.T @ self.spread(gradient).ravel())

    def network_rows(self, state: IntArray, gradient: FloatArray, own: str | None = None) -> sparse.csr_array:
        """Rows ``gradient (p, q) + own`` in `state`, (i, columns); `own` is the variable with coefficient 1."""
        width, count = self.matrix.shape[1], 2 * len(self.case.resources)
        place = (state[:, None] * count + np.arange(count)).ravel()
        start = np.arange(len(state) + 1) * count
        power = sparse.csr_array((gradient.ravel(), place, start), shape=(len(state), self.by_column.shape[0]))
        rows = power @ self.by_column
        if own is not None:
            column = self.block(own)[self.state_interval[state], 0]
            ones = (np.ones(len(state)), (np.arange(len(state)), column))
            rows = rows + sparse.csr_array(ones, shape=(len(state), width))
        return sparse.csr_array(rows)

    @cached_property
    def is_movable(self) -> npt.NDArray[np.bool_]:
        """(columns,) True for the columns whose bounds leave them room."""
        return (self.columns.upper - self.columns.lower).ravel() > NO_ROOM_PU

    @cached_property
    def may_follow(self) -> npt.NDArray[np.bool_]:
        """(columns,) True for the columns that are settled when all others of an equality are.

        Stored energy is not: what it is worth may change from one interval to the next.
        """
        return ~self._is_any_of(*IMPORT_VARIABLES, "energy")

    @cached_property
    def is_sum(self) -> npt.NDArray[np.bool_]:
        """(columns,) True for the injections that are what an interval's own columns add up to."""
        found = self._is_any_of("p")
        found[self.block("q")[:, np.unique(self.case.reactive_bids.resource)]] = True
        return found

    @cached_property
    def _sums(self) -> tuple[IntArray, sparse.csr_array, sparse.csr_array]:
        """(i,) Columns that are sums, and (i, columns) sums less their parts, with and without signs."""
        reactive = np.unique(self.case.reactive_bids.resource)
        columns = {SUPPLY_LESS_DEMAND: self.block("p"), CALLS_LAST: self.block("reserved_before")}
        columns[INJECTED_LESS_ABSORBED] = self.block("q")[:, reactive]
        row = np.concatenate([self.rows_of(rule).ravel() for rule in columns])
        column = np.concatenate([own.ravel() for own in columns.values()])
        place = (np.ones(len(row)), (np.arange(len(row)), column))
        of_sum = self.matrix[row].multiply(sparse.csr_array(place, shape=(len(row), self.matrix.shape[1])))
        less_parts = sparse.csr_array(sparse.diags_array(1 / of_sum.sum(axis=1)) @ self.matrix[row])
        return column, less_parts, abs(less_parts)

    def with_sums_free(self, x: FloatArray, column: StatusArray) -> tuple[FloatArray, StatusArray]:
        """Values and statuses (columns,) with the sums free of which no part is: they are what their parts make.

        A sum at its bound beside parts at theirs would leave their price open.  Other sums lose what rounding left.
        """
        of_sum, less_parts, pattern = self._sums
        is_free = (column == BASIC) & self.is_movable
        idle = (pattern @ is_free.astype(float) == 0) & self.is_movable[of_sum]
        x, column = x.copy(), column.copy()
        column[of_sum[idle]] = BASIC
        excess = less_parts @ x
        x[of_sum] -= np.where(idle | (np.abs(excess) < ROUNDING_PU), excess, 0.0)
        return np.clip(x, self.columns.lower.ravel(), self.columns.upper.ravel()), column

    @cached_property
    def is_decision(self) -> npt.NDArray[np.bool_]:
        """(columns,) True for the columns that a resource or a requirement can choose by itself."""
        return self.may_follow & ~self._is_any_of("p", "q", "reserved_before")

    def _is_any_of(self, *variables: str) -> npt.NDArray[np.bool_]:
        found = np.zeros(self.matrix.shape[1], bool)
        for name in variables:
            found[self.block(name)] = True
        return found

    @cached_property
    def start(self) -> FloatArray:
        """Dispatch to begin with: nothing accepted, within bounds."""
        return np.clip(0.0, self.columns.lower, self.columns.upper).ravel()

    @cached_property
    def full_supply(self) -> FloatArray:
        """Dispatch with all supply accepted, for a feeder that cannot carry its load alone."""
        x = self.start.copy()
        offered = np.zeros(self.block("p").shape)
        for name, bids in (("award", self.case.bids), ("block", self.case.blocks)):
            own = self.block(name)
            x[own] = np.where(bids.is_supply, self.columns.upper.ravel()[own], self.columns.lower.ravel()[own])
            np.add.at(offered.T, bids.resource, x[own].T)
        x[self.block("p")] = offered
        return np.clip(x, self.columns.lower.ravel(), self.columns.upper.ravel())

    def with_import(self, x: FloatArray, import_pu: ComplexArray) -> FloatArray:
        """Dispatch `x` with a reactive import that nobody counts as it is, (states,) [pu]."""
        if self.case.substation.counts_reactive:
            return x
        x = x.copy()
        x[self.block("import_q").ravel()] = import_pu.imag[: self.intervals]
        return x

    def injection(self, x: FloatArray) -> ComplexArray:
        """(states, p) Complex injections [pu] of resources and constant-power loads at dispatch `x`."""
        power = self.power(x)
        fed = (power[:, 0] + 1j * power[:, 1]) @ self.case.resources.share
        return np.asarray(fed - self.case.load_pu[self.state_interval])


def from_blocks(blocks: Iterable[tuple[IntArray, FloatArray]], size: int) -> sparse.csr_array:
    """A matrix (size, size) of `blocks`: the rows and columns (i,) of each, the same, and its entries (i, i)."""
    values, rows, columns = [np.zeros(0)], [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for place, block in blocks:
        values.append(block.ravel())
        rows.append(np.repeat(place, len(place)))
        columns.append(np.tile(place, len(place)))
    entries = np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))
    return sparse.csr_array(entries, shape=(size, size))


def build_market_lp(
    case: MarketCase, circle_sides: int, penalties: Penalties = HARD, like: MarketLp | None = None
) -> MarketLp:
    """Write the market of one interval in Pyomo, compile it and repeat it over the horizon.

    Parameters
    ----------
    case
        The market case.
    circle_sides
        Sides of the polygon inscribed in each apparent-power circle.
    penalties
        What it costs to break a limit.
    like
        A market of the same rows, whose case differs in what is offered of the same segments, in prices and in loads
        alone: it need not be compiled again.  Its called states are those of the new one.

    Raises
    ------
    InputError
        When a resource must run beyond the polygon inscribed in its rating.
    """
    problems = Problems()
    low_kw, high_kw = injection_range(case.resources, case.bids)
    for index in np.flatnonzero(np.isfinite(case.resources.s_max_kva)):
        reach_kva = float(case.resources.s_max_kva[index] * np.cos(np.pi / circle_sides))
        check_reach(case.resources, int(index), low_kw[:, index], high_kw[:, index], reach_kva, problems)
    problems.raise_if_any()
    template = like.template if like is not None else _compiled(case, circle_sides, penalties)
    columns = over_horizon(template, energy_columns(case, penalties))
    bounds = store_bounds(case) | ramp_bounds(case) | block_bounds(case) | service_bounds(case)
    bounds |= import_bounds(case.substation, penalties)
    if like is not None:
        return like.offered(case, columns, bounds)
    return MarketLp(case, template, columns, bounds, whole_services(case.service_offers), penalties)


def _compiled(case: MarketCase, circle_sides: int, penalties: Penalties) -> Template:
    is_coupled = case.horizon.intervals > 1 and (
        len(case.stores) > 0 or has_ramps(case) or bool(case.blocks.must_be_level.any()) or bool(lags(case))
    )
    with collector_paused():
        model = pyo.ConcreteModel()
        declare_energy(model, case, [0, 1] if is_coupled else [0], circle_sides, penalties)
        template = compile_template(model, VARIABLES)
    return second_of_two(template) if is_coupled else template
