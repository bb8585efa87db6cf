"""The unknowns of network states as columns behind those of the market."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from dlmp.formulation.interface import NetworkStates, OperatingPoint
from dlmp.formulation.market_lp import MarketLp
from dlmp.network.model import IntArray

Equations = dict[int, tuple[sparse.csr_array, sparse.csr_array]]


@dataclass(frozen=True, eq=False)
class StateColumns:
    """Rows of a network over some columns of the market, and then the unknowns of the states of some intervals.

    Parameters
    ----------
    market, point
        The market, and the states that the unknowns are changes of.
    """

    market: MarketLp
    point: OperatingPoint

    @cached_property
    def states(self) -> NetworkStates:
        """The states' equations."""
        states = self.point.state_equations
        assert states is not None, "asked of a formulation without states"
        return states

    def states_of(self, group: IntArray) -> IntArray:
        """States of a `group` of intervals, those as scheduled first."""
        return np.flatnonzero(np.isin(self.market.state_interval, group))

    def injections(self, state: int, columns: IntArray) -> sparse.csr_array:
        """(2 * ports, i) Injections in a state by `columns`."""
        market, count = self.market, 2 * len(self.market.case.resources)
        by_column = market.by_column[state * count : (state + 1) * count][:, columns]
        return sparse.csr_array(self._share_twice @ by_column)

    @cached_property
    def _share_twice(self) -> sparse.csr_array:
        share = self.market.share_of_ports
        return sparse.csr_array(sparse.block_diag([share, share]))

    def widened(self, rows: sparse.csr_array, states: int) -> sparse.csr_array:
        """`rows` of the market over the unknowns of so many states, too."""
        empty = sparse.csr_array((rows.shape[0], states * self.states.size))
        return sparse.csr_array(sparse.hstack([rows, empty]))

    def by_injection(self, group: IntArray) -> Equations:
        """`J` and `B` of ``J dv = B ds`` of every state of a `group`."""
        return {state: self.states.equations(state, self.market.ports) for state in self.states_of(group).tolist()}

    def by_column(self, equations: Equations, columns: IntArray) -> sparse.csr_array:
        """``J dv - B dx = 0`` of the states of `equations`."""
        moved = [-(injected @ self.injections(state, columns)) for state, (_, injected) in equations.items()]
        unknowns = sparse.block_diag([jacobian for jacobian, _ in equations.values()])
        return sparse.csr_array(sparse.hstack([sparse.vstack(moved), unknowns]))

    def rows(self, group: IntArray, columns: IntArray, state: IntArray, limit: IntArray) -> sparse.csr_array:
        """``P0 - f`` of every interval of the `group`, ``Q0 - f`` likewise, and limits ``limit[i]`` in ``state[i]``."""
        market, states = self.market, self.states_of(group)
        by_unknown, by_injection = self.states.import_rows(market.ports)
        by_column = [sparse.csr_array(by_injection @ self.injections(t, columns)) for t in group.tolist()]
        parts = []
        for part, name in enumerate(("import_p", "import_q")):
            own = sparse.csr_array((market.block(name)[group] == columns).astype(float))
            held = sparse.vstack([both[[part]] for both in by_column])
            moved = sparse.kron(sparse.eye_array(len(group), len(states)), by_unknown[[part]])
            parts.append(sparse.hstack([own - held, -moved]))
        place = np.searchsorted(states, state)
        limits = sparse.coo_array(self.states.limit_rows(state, limit))
        at = limits.row, len(columns) + place[limits.row] * self.states.size + limits.col
        shape = (len(state), len(columns) + len(states) * self.states.size)
        return sparse.csr_array(sparse.vstack([*parts, sparse.csr_array((limits.data, at), shape=shape)]))
