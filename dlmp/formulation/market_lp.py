"""The linear programme of the market without its network: what all formulations have in common."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyomo.environ as pyo
from scipy import sparse

from dlmp.bids import check_reach
from dlmp.errors import Problems
from dlmp.formulation.template import Template, collector_paused, compile_template, over_horizon, second_of_two
from dlmp.market import MarketCase
from dlmp.network.model import ComplexArray, FloatArray, IntArray
from dlmp.penalties import HARD, Penalties
from dlmp.products.columns import Columns
from dlmp.products.energy import declare_energy, energy_columns
from dlmp.products.storage import STORE_VARIABLES, store_bounds

BOTH_WAYS_PU = 1e-7
"""A store that charges and discharges more than this at once goes both ways."""
NO_ROOM_PU = 1e-9
"""A column whose bounds are no farther apart is fixed."""
VARIABLES = ["award", "p", "q", "import_p", "import_q", *STORE_VARIABLES, "import_beyond"]


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
    penalties
        What it costs to break a limit.
    """

    case: MarketCase
    template: Template
    columns: Columns
    bounds: Mapping[str, tuple[FloatArray, FloatArray]]
    penalties: Penalties = HARD

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

    def one_way(self, x: FloatArray) -> "MarketLp | None":
        """Take away the lesser direction of each store that goes both ways in dispatch `x`.

        None where no store does.  It pays to where the price is negative: the energy lost between both is sold.
        """
        charge, discharge = x[self.block("charge")], x[self.block("discharge")]
        both = np.minimum(charge, discharge) > BOTH_WAYS_PU
        if not both.any():
            return None
        upper = self.columns.upper.copy()
        for name, is_lesser in (("charge", charge <= discharge), ("discharge", charge > discharge)):
            block = upper[:, self.template.blocks[name]]
            block[both & is_lesser] = 0.0
        return replace(self, columns=replace(self.columns, upper=upper))

    @cached_property
    def feeds(self) -> dict[str, IntArray]:
        """Resource of each column of the variables that make up real injections."""
        stores = self.case.stores.resource
        return {"award": self.case.bids.resource, "charge": stores, "discharge": stores}

    @cached_property
    def network_columns(self) -> IntArray:
        """(t, 2, r) Columns of the real and the reactive injection of every resource."""
        return np.stack([self.block("p"), self.block("q")], axis=1)

    @cached_property
    def ports(self) -> IntArray:
        """Ports at which any resource stands."""
        return np.unique(self.case.resources.share.indices).astype(np.int64)

    @cached_property
    def _share_of_ports(self) -> sparse.csr_array:
        return sparse.csr_array(self.case.resources.share[:, self.ports].T)

    def spread(self, gradient: FloatArray) -> FloatArray:
        """Spread gradients by `ports` (i, 2, ports) over resources (i, 2, r)."""
        rows = gradient.reshape(2 * len(gradient), gradient.shape[2]) @ self._share_of_ports
        return np.asarray(rows).reshape(*gradient.shape[:2], len(self.case.resources))

    def network_rows(self, interval: IntArray, gradient: FloatArray, own: str | None = None) -> sparse.csr_array:
        """Rows ``gradient (p, q) + own`` at `interval`, (i, columns); `own` is the variable with coefficient 1."""
        column = self.network_columns[interval].reshape(len(interval), 2 * len(self.case.resources))
        value = gradient.reshape(len(interval), column.shape[1])
        if own is not None:
            column = np.hstack([column, self.block(own)[interval]])
            value = np.hstack([value, np.ones((len(interval), 1))])
        start = np.arange(len(interval) + 1) * column.shape[1]
        return sparse.csr_array((value.ravel(), column.ravel(), start), shape=(len(interval), self.matrix.shape[1]))

    @cached_property
    def is_movable(self) -> npt.NDArray[np.bool_]:
        """(columns,) True for the columns whose bounds leave them room."""
        return (self.columns.upper - self.columns.lower).ravel() > NO_ROOM_PU

    @cached_property
    def start(self) -> FloatArray:
        """Dispatch to begin with: nothing accepted, within bounds."""
        return np.clip(0.0, self.columns.lower, self.columns.upper).ravel()

    @cached_property
    def full_supply(self) -> FloatArray:
        """Dispatch with all supply accepted, for a feeder that cannot carry its load alone."""
        x = self.start.copy()
        bids = self.case.bids
        award = self.block("award")
        x[award] = np.where(bids.is_supply, self.columns.upper.ravel()[award], 0.0)
        offered = np.zeros(self.block("p").shape)
        np.add.at(offered.T, bids.resource, x[award].T)
        x[self.block("p")] = offered
        return np.clip(x, self.columns.lower.ravel(), self.columns.upper.ravel())

    def with_import(self, x: FloatArray, import_pu: ComplexArray) -> FloatArray:
        """Dispatch `x` with a reactive import that nobody counts as it is, (t,) [pu]."""
        if self.case.substation.counts_reactive:
            return x
        x = x.copy()
        x[self.block("import_q").ravel()] = import_pu.imag
        return x

    def injection(self, x: FloatArray) -> ComplexArray:
        """(t, p) Complex injections [pu] of resources and constant-power loads at dispatch `x`."""
        power = x[self.network_columns]
        return np.asarray((power[:, 0] + 1j * power[:, 1]) @ self.case.resources.share - self.case.load_pu)


def build_market_lp(case: MarketCase, circle_sides: int, penalties: Penalties = HARD) -> MarketLp:
    """Write the market of one interval in Pyomo, compile it and repeat it over the horizon.

    Raises
    ------
    InputError
        When a resource must run beyond the polygon inscribed in its rating.
    """
    problems = Problems()
    for index in np.flatnonzero(np.isfinite(case.resources.s_max_kva)):
        reach_kva = float(case.resources.s_max_kva[index] * np.cos(np.pi / circle_sides))
        check_reach(case.resources, int(index), reach_kva, problems)
    problems.raise_if_any()
    is_coupled = len(case.stores) > 0 and case.horizon.intervals > 1
    with collector_paused():
        model = pyo.ConcreteModel()
        declare_energy(model, case, [0, 1] if is_coupled else [0], circle_sides, penalties)
        template = compile_template(model, VARIABLES)
    if is_coupled:
        template = second_of_two(template)
    columns = over_horizon(template, energy_columns(case, penalties))
    return MarketLp(case, template, columns, store_bounds(case), penalties)
