"""The optimality conditions with the unknowns of the network's states beside the market's columns.

The system of a Newton step is then as sparse as the network, whatever number of injections is free: no gradient by all
injections is made, and no Hessian.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dlmp.assembly import Assembly
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
        limits = sparse.coo_array(self.priced)
        at = np.concatenate([limits.row, self.state]), np.concatenate([limits.col, self.limit])
        of_limits = np.concatenate([limits.data, self.dual[count + 2 * len(self.open) :]])
        weights = Weights(
            np.where(self.open_states, self.multipliers.import_p, 0.0),
            np.where(self.open_states, self.multipliers.import_q, 0.0),
            sparse.csr_array((of_limits, at), shape=self.priced.shape),
        )
        with self.clock.phase("gradients"):
            states = self.point.state_equations
            assert states is not None, "asked of a formulation without states"
            self.lagrangian = states.lagrangian(weights)
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
        market, columns, whole = self.market, StateColumns(self.market, self.point, group, free), Assembly()
        held = np.isin(self.market.state_interval[self.state], group)
        of_market = market.matrix[self.rows[np.isin(self.row_interval[self.rows], group)]][:, free]
        of_network = columns.rows(self.state[held], self.limit[held])
        system = _System(whole, len(free), columns.unknowns, of_market.shape[0] + of_network.shape[0])
        own, every = np.arange(system.free), np.arange(system.size)
        whole.add_entries(market.columns.slope.ravel()[free], own, own)
        whole.add_entries(np.zeros(system.size), every, every)  # no column is without an entry
        columns.add_curvature(whole, self.lagrangian)
        whole.add(of_market, columns.width, 0, is_mirrored=True)
        whole.add(of_network, columns.width + of_market.shape[0], 0, is_mirrored=True)
        columns.add_equations(whole, columns.width + system.rows, is_mirrored=True)
        return system


@dataclass(frozen=True, eq=False)
class _System:
    """The symmetric system `whole`: `free` columns, the `unknowns` of states, `rows` that bind, and the equations."""

    whole: Assembly
    free: int
    unknowns: int
    rows: int

    @property
    def width(self) -> int:
        """Columns and unknowns."""
        return self.free + self.unknowns

    @property
    def size(self) -> int:
        """Rows of the system."""
        return self.width + self.rows + self.unknowns

    def solve(self, right: FloatArray) -> FloatArray | None:
        """Change of the free columns and of the rows' multipliers, these with their sign turned; None if singular.

        The equations stand before the conditions of the unknowns: the diagonal then has the network's own blocks, ``J``
        and its transpose, and a fill-reducing order of a symmetric pattern fits.
        """
        own, unknowns = np.arange(self.free), np.arange(self.free, self.width)
        rows, equations = np.arange(self.width, self.width + self.rows), np.arange(self.width + self.rows, self.size)
        down, across = np.r_[own, equations, unknowns, rows], np.r_[own, unknowns, equations, rows]
        damping = np.zeros(self.size)
        damping[own], damping[rows] = PROXIMAL, -PROXIMAL
        matrix, scale = self._scaled(down, across, damping)
        try:
            factors = factorised(matrix)
        except np.linalg.LinAlgError:
            return None
        wanted, change = np.zeros(self.size), np.zeros(self.size)
        wanted[own], wanted[rows] = right[: self.free], right[self.free :]
        wanted *= scale
        for _ in range(2):  # the second time for what the damping has left over
            rest = (wanted + damping * change)[down] - matrix @ change[across]
            change[across] += factors.solve(rest)
        change *= scale
        return np.concatenate([change[own], change[rows]])

    def is_convex(self) -> bool:
        """True when nothing curves downwards where rows and equations stand still."""
        every = np.arange(self.size)
        whole, _ = self._scaled(every, every, np.zeros(self.size))
        columns = whole[:, : self.width]
        return is_convex(columns[: self.width], columns[self.width :])

    def _scaled(self, rows: IntArray, columns: IntArray, damping: FloatArray) -> tuple[sparse.csc_array, FloatArray]:
        """The system with rows and columns of like size, and their (m,) scale.

        Row ``rows[i]`` of it stands at i, and column ``columns[i]``; `damping` is added to the scaled diagonal.
        """
        every = np.arange(self.size, dtype=np.int32)
        place_of_row, place_of_column = np.empty_like(every), np.empty_like(every)
        place_of_row[rows], place_of_column[columns] = every, every
        matrix = self.whole.csc(place_of_row, place_of_column)
        row, column = matrix.indices, np.repeat(every, np.diff(matrix.indptr))
        size, scale = np.abs(matrix.data), np.ones(self.size)
        for _ in range(SCALINGS):
            largest = np.maximum.reduceat(size * scale[rows][row], matrix.indptr[:-1]) * scale[columns]
            scale[columns] /= np.sqrt(np.where(largest > 0, largest, 1.0))
        matrix.data *= scale[rows][row]
        matrix.data *= scale[columns][column]
        diagonal = np.flatnonzero(row == column)
        matrix.data[diagonal] += damping[columns][row[diagonal]]
        return matrix, scale
