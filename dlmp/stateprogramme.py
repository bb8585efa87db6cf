"""The unknowns of network states as columns behind those of the market."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from dlmp.assembly import Assembly
from dlmp.formulation.interface import NetworkStates, OperatingPoint, StatesLagrangian
from dlmp.formulation.market_lp import MarketLp
from dlmp.network.model import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class StateColumns:
    """The network in a group of intervals, over some columns of the market and then the unknowns of its states.

    Parameters
    ----------
    market, point
        The market, and the states that the unknowns are changes of.
    group, columns
        The intervals in ascending order, and (i,) which columns of the market.
    """

    market: MarketLp
    point: OperatingPoint
    group: IntArray
    columns: IntArray

    @cached_property
    def equations_of(self) -> NetworkStates:
        """The equations of all states."""
        states = self.point.state_equations
        assert states is not None, "asked of a formulation without states"
        return states

    @cached_property
    def states(self) -> IntArray:
        """States of the group, those as scheduled first."""
        return np.flatnonzero(np.isin(self.market.state_interval, self.group))

    @property
    def unknowns(self) -> int:
        """How many unknowns these have."""
        return len(self.states) * self.equations_of.size

    @property
    def width(self) -> int:
        """How many columns and unknowns there are."""
        return len(self.columns) + self.unknowns

    def first(self, place: int) -> int:
        """Where the unknowns of ``states[place]`` begin."""
        return len(self.columns) + place * self.equations_of.size

    @cached_property
    def _equations(self) -> list[tuple[sparse.coo_array, sparse.coo_array]]:
        """`J` and `B` of ``J dv = B ds`` of every state."""
        return [self.equations_of.equations(state, self.market.ports) for state in self.states.tolist()]

    @cached_property
    def _injections(self) -> list[sparse.csr_array]:
        """(2 * ports, i) Injections in every state by the columns."""
        by_column, count = self.market.port_power_by_column, 2 * len(self.market.ports)
        return [by_column[state * count : (state + 1) * count][:, self.columns] for state in self.states.tolist()]

    def add_equations(self, whole: Assembly, row: int, *, is_mirrored: bool = False) -> None:
        """Add ``J dv - B dx = 0`` of every state to a `whole` from its `row` on."""
        for place, (jacobian, injected) in enumerate(self._equations):
            below = row + place * self.equations_of.size
            whole.add(-(injected @ self._injections[place]), below, 0, is_mirrored=is_mirrored)
            whole.add(jacobian, below, self.first(place), is_mirrored=is_mirrored)

    def add_curvature(self, whole: Assembly, lagrangian: StatesLagrangian) -> None:
        """Add the second derivatives of a `lagrangian` by the unknowns, and by them and the columns, to a `whole`."""
        for place, (state, equations) in enumerate(zip(self.states.tolist(), self._equations, strict=True)):
            by_unknowns, mixed = lagrangian.curvature(state, self.market.ports, *equations)
            first = self.first(place)
            whole.add(by_unknowns, first, first)
            whole.add(mixed @ self._injections[place], first, 0, is_mirrored=True)

    def loss_curvature(self, price: FloatArray) -> sparse.csc_array:
        """Second derivatives of the losses of every state at a (states,) `price`."""
        whole, losses = Assembly(), self.equations_of.loss_curvature
        for place in np.flatnonzero(price).tolist():
            whole.add(price[place] * losses, self.first(place), self.first(place))
        every = np.arange(self.width)
        return whole.csc(every, every)

    def rows(self, state: IntArray, limit: IntArray) -> sparse.csr_array:
        """``P0 - f`` of every interval of the group, ``Q0 - f`` likewise, and limits ``limit[i]`` in ``state[i]``."""
        market, group, whole = self.market, self.group, Assembly()
        by_unknown, by_injection = self.equations_of.import_rows(market.ports)
        for place in range(len(group)):
            held = by_injection @ self._injections[place] if by_injection.nnz else None
            for part, name in enumerate(("import_p", "import_q")):
                row = part * len(group) + place
                own = np.flatnonzero(self.columns == market.block(name)[group[place], 0])
                whole.add_entries(np.ones(len(own)), np.full(len(own), row), own)
                whole.add(-by_unknown[[part]], row, self.first(place))
                if held is not None:
                    whole.add(-held[[part]], row, 0)
        limits = sparse.coo_array(self.equations_of.limit_rows(state, limit))
        first, place = 2 * len(group), np.searchsorted(self.states, state)[limits.row]
        column = len(self.columns) + place * self.equations_of.size + limits.col
        whole.add_entries(limits.data, first + limits.row, column)
        return whole.csr((first + len(state), self.width))
