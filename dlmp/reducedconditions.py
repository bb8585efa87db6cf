"""The optimality conditions by the market's columns alone: the network enters by dense gradients and Hessians.

That is best where few injections are free, or intervals are coupled.
"""

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dlmp.factors import factorised
from dlmp.network.model import FloatArray
from dlmp.optimality import PROXIMAL, Conditions, is_convex

DAMPING_BY_ERROR, MOST_DAMPING = 100.0, 1e-2
"""Damping of columns in a coupled horizon, per error of the optimality conditions, and its largest value."""
ROW_DAMPING_BY_ERROR, MOST_ROW_DAMPING = 1e-2, 1e-4
"""The same of its rows, per broken pu."""

MANY_ENTRIES = 10
"""Of the curvature, for each free column: more are dense blocks."""


class ReducedConditions(Conditions):
    """Conditions whose system is

        [H  J^T] [ dx]   [-(c - J^T y)]
        [J   0 ] [-dy] = [ b - g(x)   ]

    with H the exact Hessian of the costs and of ``w P0(x) - sum y g(x)``.
    """

    def _reduced_costs(self) -> FloatArray:
        """(c,) Marginal costs less what rows and limits at their multipliers make of them."""
        market = self.market
        self.jacobian = sparse.csr_array(sparse.vstack([market.matrix[self.rows], self._network_rows()]))
        reduced = market.columns.marginal_cost(self.x) - self.jacobian.T @ self.dual
        if self.priced.any():
            with self.clock.phase("gradients"):
                gradient = self.point.weighted_limit_gradient(sparse.csr_array(self.priced), market.ports)
            reduced -= market.along_columns(gradient)
        return np.asarray(reduced)

    def _network_rows(self) -> sparse.csr_array:
        """Gradients of ``P0 - f`` and ``Q0 - f`` of every open interval, and of the active limits."""
        market = self.market
        with self.clock.phase("gradients"):
            # Limits first: several in an interval have its Jacobian factorised, which the import then finds at hand.
            bound = market.spread(self.point.limit_gradients(self.state, self.limit, market.ports))
            real, reactive = (market.spread(g) for g in self.point.import_gradients(market.ports, self.open))
        return sparse.csr_array(
            sparse.vstack(
                [
                    market.network_rows(self.open, -real, "import_p"),
                    market.network_rows(self.open, -reactive, "import_q"),
                    market.network_rows(self.state, bound),
                ]
            )
        )

    def _change(self) -> FloatArray | None:
        """Newton step of the free columns, then, their sign turned, of the multipliers; None at a singular system."""
        right = np.concatenate([-self.reduced[self.free], self.residual])
        return self._solved(self.hessian(), *self._damping(), right)

    def estimate_multipliers(self) -> None:
        """Take the multipliers that leave the free columns the least reduced costs, in the sense of least squares.

        Nocedal and Wright, Numerical Optimization, 2006, section 18.3.  A sum that was let free knows no price yet.
        """
        right = np.concatenate([-self.reduced[self.free], np.zeros(len(self.dual))])
        change = self._solved(sparse.eye_array(len(self.free)), 0.0, PROXIMAL, right)
        if change is None:
            return
        of_dual = change[len(self.free) :]
        self.dual, self.reduced = self.dual - of_dual, self.reduced + self.jacobian.T @ of_dual
        self.multipliers = self._multipliers(self.dual)

    def _solved(
        self, curvature: sparse.sparray, of_columns: float, of_rows: float, right: FloatArray
    ) -> FloatArray | None:
        """Solve the system with this `curvature` of the free columns and the damping of columns and of rows.

        None when it is singular.
        """
        here = self.jacobian[:, self.free]
        damping, corner = of_columns * sparse.eye_array(len(self.free)), -of_rows * sparse.eye_array(len(self.dual))
        system = sparse.csc_array(sparse.block_array([[curvature, here.T], [here, None]]))
        is_dense = self.market.is_coupled or curvature.nnz > MANY_ENTRIES * len(self.free)
        try:
            factors = factorised(system + sparse.block_diag([damping, corner]), has_dense_parts=is_dense)
        except np.linalg.LinAlgError:
            return None
        change = factors.solve(right)
        change += factors.solve(right - system @ change)  # what the damping has left over
        return np.asarray(change)

    def _damping(self) -> tuple[float, float]:
        """Damping of the free columns and of the rows, which vanish with the errors of either.

        Two stores at one bus can trade places for nothing, and rows that say the same can share a multiplier in any
        way: without more damping the least error sends them far away.
        """
        if not self.market.is_coupled:
            return PROXIMAL, PROXIMAL
        broken = float(np.abs(self.residual).max(initial=0.0))
        return (
            max(PROXIMAL, min(MOST_DAMPING, DAMPING_BY_ERROR * self.error)),
            max(PROXIMAL, min(MOST_ROW_DAMPING, ROW_DAMPING_BY_ERROR * broken)),
        )

    def hessian(self) -> sparse.csr_array:
        """Second derivatives of the Lagrangian by the free columns."""
        with self.clock.phase("gradients"):
            weights = self.multipliers.weights()
            wanted = self.curvature.wanted(self.active.column)
            states = np.flatnonzero(self.open_states & weights.curving(self.market.intervals))
            blocks = self.curvature.blocks(self.point.lagrangian(weights), states, wanted)
        whole = self.market.curvature(blocks, wanted) + sparse.diags_array(self.market.columns.slope.ravel())
        return sparse.csr_array(sparse.csr_array(whole)[self.free][:, self.free])

    def is_minimum(self) -> npt.NDArray[np.bool_]:
        """(t,) True where nothing curves downwards along the directions that the binding rows leave open."""
        found = np.ones(self.market.intervals, bool)
        if not len(self.free):
            return found
        hessian, here = self.hessian(), sparse.csc_array(self.jacobian[:, self.free])
        interval = self.free // self.market.width
        for group in self.market.groups(np.unique(interval)):
            own = np.flatnonzero(np.isin(interval, group))
            found[group] = is_convex(sparse.csc_array(hessian[own][:, own]), here[:, own])
        return found
