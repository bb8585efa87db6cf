"""The optimality conditions with the unknowns of the network's states beside the market's columns.

The system of a Newton step is then as sparse as the network, whatever number of injections is free: no gradient by all
injections is made, and no Hessian.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dlmp.factors import factorised
from dlmp.formulation.interface import Weights
from dlmp.network.model import FloatArray, IntArray
from dlmp.optimality import PROXIMAL, Conditions, is_convex
from dlmp.reducedconditions import ReducedConditions
from dlmp.stateprogramme import StateColumns

SCALINGS = 3


class StateConditions(Conditions):
    """Conditions whose system has the steps dv of the states, and multipliers of their equations ``J dv = B dx``.

    The Lagrangian's second derivatives by v, and by v and injections, are those of each node and limit for itself.
    """

    def _reduced_costs(self) -> FloatArray:
        """(c,) Marginal costs less what rows and limits at their multipliers make of them."""
        market, count = self.market, len(self.rows)
        self.columns = StateColumns(market, self.point)
        limits = sparse.coo_array(self.priced)
        at = np.concatenate([limits.row, self.state]), np.concatenate([limits.col, self.limit])
        of_limits = np.concatenate([limits.data, self.dual[count + 2 * len(self.open) :]])
        weights = Weights(
            np.where(self.open_states, self.multipliers.import_p, 0.0),
            np.where(self.open_states, self.multipliers.import_q, 0.0),
            sparse.csr_array((of_limits, at), shape=self.priced.shape),
        )
        with self.clock.phase("gradients"):
            self.lagrangian = self.columns.states.lagrangian(weights)
            of_network = market.along_columns(self.lagrangian.gradient(market.ports))
        reduced = market.columns.marginal_cost(self.x) + of_network
        reduced -= market.matrix[self.rows].T @ self.dual[:count]
        for name, dual in (("import_p", weights.import_p), ("import_q", weights.import_q)):
            reduced[market.block(name).ravel()] -= dual[: market.intervals]
        return np.asarray(reduced)

    def _change(self) -> FloatArray | None:
        """Newton step of the free columns, then, with its sign turned, of the multipliers."""
        change = np.zeros(len(self.free) + len(self.dual))
        right = np.concatenate([-self.reduced[self.free], self.residual])
        for place, system in self._systems():
            found = system.solve(right[place])
            if found is not None:  # an interval with a singular system stays where it is
                change[place] = found
        return change

    def is_minimum(self) -> npt.NDArray[np.bool_]:
        """(t,) True where nothing curves downwards along the directions that the binding rows leave open.

        What is convex with a finite weight on the equations is.  Where that leaves a doubt, as the equations of a long
        feeder do, the injections alone must tell.
        """
        found = np.ones(self.market.intervals, bool)
        for place, system in self._systems():
            interval = self.free[place[place < len(self.free)]] // self.market.width
            found[interval] = system.is_convex()
        if found.all():
            return found
        here = self.market, self.formulation, self.softness, self.clock
        at = self.x, self.point, self.active, self.multipliers
        return found | ReducedConditions(*here, *at, ~found, self.curvature).is_minimum()

    def _systems(self) -> Iterator[tuple[IntArray, "_System"]]:
        """The system of each group of open intervals, and where its columns and rows are in that of all."""
        free_interval = self.free // self.market.width
        for group in self.market.groups(self.open):
            free, rows = (np.flatnonzero(np.isin(of, group)) for of in (free_interval, self.dual_interval))
            with self.clock.phase("gradients"):
                system = self._system(group, self.free[free])
            yield np.concatenate([free, len(self.free) + rows]), system

    def _system(self, group: IntArray, free: IntArray) -> "_System":
        """The system of a `group` of intervals with the columns `free`."""
        market, columns = self.market, self.columns
        own = np.isin(self.market.state_interval[self.state], group)
        states = columns.states_of(group)
        equations = columns.by_injection(group)
        blocks = [self.lagrangian.curvature(state, market.ports, *parts) for state, parts in equations.items()]
        by_state = sparse.block_diag([own_block for own_block, _ in blocks])
        mixed = sparse.hstack(
            [columns.injections(state, free).T @ by for state, (_, by) in zip(states.tolist(), blocks, strict=True)]
        )
        slope = sparse.diags_array(market.columns.slope.ravel()[free])
        rows = self.rows[np.isin(self.row_interval[self.rows], group)]
        of_market = columns.widened(market.matrix[rows][:, free], len(states))
        of_network = columns.rows(group, free, self.state[own], self.limit[own])
        return _System(
            sparse.csr_array(sparse.block_array([[slope, mixed], [mixed.T, by_state]])),
            sparse.csr_array(sparse.vstack([of_market, of_network])),
            columns.by_column(equations, free),
            len(free),
        )


@dataclass(frozen=True, eq=False)
class _System:
    """Columns (the `free` ones, then the unknowns of states), rows that bind, and the states' equations."""

    hessian: sparse.csr_array
    rows: sparse.csr_array
    equations: sparse.csr_array
    free: int

    def solve(self, right: FloatArray) -> FloatArray | None:
        """Change of the free columns and of the rows' multipliers, these with their sign turned; None if singular.

        The equations stand before the conditions of the unknowns: the diagonal then has the network's own blocks, ``J``
        and its transpose, and a fill-reducing order of a symmetric pattern fits.
        """
        whole, scale = self._scaled()
        width, free, count = self.hessian.shape[0], self.free, self.rows.shape[0]
        own, unknowns = np.arange(free), np.arange(free, width)
        rows, equations = np.arange(width, width + count), np.arange(width + count, len(scale))
        down, across = np.r_[own, equations, unknowns, rows], np.r_[own, unknowns, equations, rows]
        damping = np.zeros(len(scale))
        damping[own], damping[rows] = PROXIMAL, -PROXIMAL
        damped = sparse.csc_array(sparse.csr_array(whole + sparse.diags_array(damping))[down][:, across])
        try:
            factors = factorised(damped)
        except np.linalg.LinAlgError:
            return None
        wanted, change = np.zeros(len(scale)), np.zeros(len(scale))
        wanted[own], wanted[rows] = right[:free], right[free:]
        wanted *= scale
        for _ in range(2):  # the second time for what the damping has left over
            change[across] += factors.solve((wanted - whole @ change)[down])
        change *= scale
        return np.concatenate([change[own], change[rows]])

    def is_convex(self) -> bool:
        """True when nothing curves downwards where rows and equations stand still."""
        whole, _ = self._scaled()
        width = self.hessian.shape[0]
        return is_convex(sparse.csc_array(whole[:width, :width]), sparse.csc_array(whole[width:, :width]))

    def _scaled(self) -> tuple[sparse.csr_array, FloatArray]:
        """The symmetric system with rows and columns of like size, and their (m,) scale."""
        rows = sparse.vstack([self.rows, self.equations])
        whole = sparse.csr_array(sparse.block_array([[self.hessian, rows.T], [rows, None]]))
        row, column = np.repeat(np.arange(whole.shape[0]), np.diff(whole.indptr)), whole.indices
        size, scale = np.abs(whole.data), np.ones(whole.shape[0])
        for _ in range(SCALINGS):
            largest = np.zeros(len(scale))
            np.maximum.at(largest, row, size * scale[row] * scale[column])
            scale /= np.sqrt(np.where(largest > 0, largest, 1.0))
        whole.data *= scale[row] * scale[column]
        return whole, scale
