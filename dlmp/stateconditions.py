"""The optimality conditions with the unknowns of the network's states beside the market's columns.

The system of a Newton step is then as sparse as the network, whatever number of injections is free: no gradient by all
injections is made, and no Hessian.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.linalg import SuperLU, splu

from dlmp.curvature import Curvature
from dlmp.formulation.interface import Weights
from dlmp.network.model import FloatArray, IntArray
from dlmp.optimality import PROXIMAL, Conditions, is_convex
from dlmp.reducedconditions import ReducedConditions
from dlmp.stateprogramme import StateColumns

REFINEMENTS = 6
SMALL_REST = 1e-10
"""What a solve may leave over, relative to the largest term of the right-hand side."""
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
        return found | ReducedConditions(*here, *at, is_open=~found, curvature=Curvature(self.market)).is_minimum()

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
        blocks = [self.lagrangian.curvature(state, market.ports) for state in states.tolist()]
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
            columns.equations(group, free),
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
        """Change of the free columns and of the rows' multipliers, these with their sign turned; None if singular."""
        whole, scale = self._scaled()
        unknowns, equations = self.hessian.shape[0] - self.free, self.equations.shape[0]
        parts = [right[: self.free], np.zeros(unknowns), right[self.free :], np.zeros(equations)]
        scaled = scale * np.concatenate(parts)
        factors = self._factors(whole, is_symmetric=True)
        change = None if factors is None else _refined(factors, whole, scaled)
        if change is None:
            factors = self._factors(whole, is_symmetric=False)
            if factors is None:
                return None
            change = factors.solve(scaled)
            change += factors.solve(scaled - whole @ change)  # what the damping has left over
        change, width = scale * change, self.hessian.shape[0]
        return np.concatenate([change[: self.free], change[width : width + self.rows.shape[0]]])

    def is_convex(self) -> bool:
        """True when nothing curves downwards where rows and equations stand still."""
        whole, _ = self._scaled()
        width = self.hessian.shape[0]
        return is_convex(whole[:width, :width], whole[width:, :width])

    def _scaled(self) -> tuple[sparse.csc_array, FloatArray]:
        """The symmetric system with rows and columns of like size, and their (m,) scale."""
        rows = sparse.vstack([self.rows, self.equations])
        whole = sparse.csr_array(sparse.block_array([[self.hessian, rows.T], [rows, None]]))
        scale = np.ones(whole.shape[0])
        for _ in range(SCALINGS):
            own = sparse.diags_array(scale)
            largest = abs(own @ whole @ own).max(axis=1).toarray().ravel()
            scale /= np.sqrt(np.where(largest > 0, largest, 1.0))
        own = sparse.diags_array(scale)
        return sparse.csc_array(own @ whole @ own), scale

    def _factors(self, whole: sparse.csc_array, *, is_symmetric: bool) -> SuperLU | None:
        """Factors with damping; symmetric ones, of half the work, are without row exchanges."""
        width, count = self.hessian.shape[0], self.rows.shape[0]
        damping = np.zeros(whole.shape[0])
        damping[: self.free], damping[width : width + count] = PROXIMAL, -PROXIMAL
        damped = sparse.csc_array(whole + sparse.diags_array(damping))
        try:
            if is_symmetric:
                return splu(damped, "MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
            return splu(damped)
        except RuntimeError:
            return None


def _refined(factors: SuperLU, whole: sparse.csc_array, right: FloatArray) -> FloatArray | None:
    """Solve again for what is left over; None when that does not come to an end."""
    found, size = np.zeros(len(right)), np.abs(right).max(initial=0.0)
    rest = right
    for _ in range(REFINEMENTS):
        found = found + factors.solve(rest)
        rest = right - whole @ found
        if not np.isfinite(rest).all():
            return None
        if np.abs(rest).max(initial=0.0) <= SMALL_REST * size:
            return found
    return None
