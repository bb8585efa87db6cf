"""AC power flow of all intervals at once, and linear solves with its Jacobian.

With injections ``S`` (loads negative) the nodal equations at the nodes without a source are
``Y V + Y_s V_s = conj(S / V)``.  ``Y`` is factorised once; the fixed point
``V <- Y^-1 (conj(S / V) - Y_s V_s)`` runs with one column per interval, and an interval on which it
is slow or diverges is finished by Newton's method on the real system of twice the size.

A change of injections ``dS`` moves the voltages by ``Y dV + d conj(dV) = conj(dS / V)`` with
``d = conj(S / V^2)``; `Jacobian` solves with this operator and with its adjoint.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.linalg import SuperLU, splu

from dlmp.network.model import ComplexArray, FloatArray, IntArray, Network

TOLERANCE_PU = 1e-13
LINEAR_TOLERANCE = 1e-12
"""Step of a linear solve at which its sweeps stop, relative to the solution."""
MAX_SWEEPS = 60
MAX_NEWTON_STEPS = 30
DIRECT_COLUMNS = 8
"""With so many columns at one interval, factorising its Jacobian is faster than sweeping (measured)."""


class PowerFlow:
    """The factorised network: solves for the voltages of any number of intervals.

    Attributes
    ----------
    free
        (l,) Nodes without a source.
    no_load_pu
        (n,) Voltages without any injection [pu].
    """

    def __init__(self, network: Network):
        self.network = network
        self.free: IntArray = np.flatnonzero(~network.is_source)
        rows = sparse.csr_array(network.admittance)
        self.y_free = sparse.csc_array(rows[self.free][:, self.free])
        self.y_source = rows[network.source]
        self._feed = -(rows[self.free][:, network.source] @ network.source_v_pu)
        self.lu = splu(self.y_free)
        self.real = _RealPattern(self.y_free)
        self.no_load_pu: ComplexArray = np.empty(network.node_count, complex)
        self.no_load_pu[network.source] = network.source_v_pu
        self.no_load_pu[self.free] = self.lu.solve(self._feed)

    def solve(
        self, injection_pu: ComplexArray, start_pu: ComplexArray | None = None
    ) -> tuple[ComplexArray, npt.NDArray[np.bool_]]:
        """Solve the power flow of every interval.

        Parameters
        ----------
        injection_pu
            (t, n) Complex power into each node [pu]; ignored at sources.
        start_pu
            (t, n) Voltages to start from [pu]; default: without load.

        Returns
        -------
        v_pu
            (t, n) Complex voltages [pu]; the start where there is no solution.
        converged
            (t,) True where the voltages solve the equations.
        """
        power = injection_pu[:, self.free].T
        if start_pu is None:
            start_pu = np.tile(self.no_load_pu, (len(injection_pu), 1))
        voltage = np.array(start_pu, dtype=complex)
        v, converged = self._fixed_point(power, start_pu[:, self.free].T)
        for interval in np.flatnonzero(~converged):
            for begin in (start_pu[interval], self.no_load_pu):
                solution = self._newton(power[:, interval], begin[self.free])
                if solution is not None:
                    v[:, interval], converged[interval] = solution, True
                    break
        voltage[np.ix_(converged, self.free)] = v[:, converged].T
        return voltage, converged

    def _fixed_point(self, power: ComplexArray, start: ComplexArray) -> tuple[ComplexArray, npt.NDArray[np.bool_]]:
        """Sweep until every column is still; a column that is not still in the end has not converged."""
        v = np.array(start, order="F")
        step = np.full(v.shape[1], np.inf)
        open_columns = np.arange(v.shape[1])
        for _ in range(MAX_SWEEPS):
            with np.errstate(all="ignore"):
                moved = self.lu.solve(np.conj(power[:, open_columns] / v[:, open_columns]) + self._feed[:, None])
                step[open_columns] = np.abs(moved - v[:, open_columns]).max(axis=0, initial=0.0)
            finite = np.isfinite(step[open_columns]) & (np.abs(moved).max(axis=0, initial=0.0) < 10.0)
            step[open_columns[~finite]] = np.inf
            v[:, open_columns[finite]] = moved[:, finite]
            open_columns = open_columns[finite & (step[open_columns] > TOLERANCE_PU)]
            if not len(open_columns):
                break
        return v, step <= TOLERANCE_PU

    def _newton(self, power: ComplexArray, start: ComplexArray) -> ComplexArray | None:
        """Newton's method for one interval; None when it does not converge."""
        v = start.copy()
        for _ in range(MAX_NEWTON_STEPS):
            residual = self.y_free @ v - self._feed - np.conj(power / v)
            step = self.real.factorise(np.conj(power / v**2)).solve(-_stack(residual))
            v = v + _unstack(step)
            if not np.isfinite(v).all() or np.abs(v).max() > 10.0 or np.abs(v).min() < 1e-3:
                return None
            if np.abs(step).max() < 10 * TOLERANCE_PU:
                return v
        return None


@dataclass(frozen=True)
class Jacobian:
    """Linear solves at an operating point, for columns that each belong to an interval.

    Parameters
    ----------
    flow
        The factorised network.
    coupling
        (l, t) ``d = conj(S / V^2)`` [pu].
    """

    flow: PowerFlow
    coupling: ComplexArray

    def solve(self, interval: IntArray, right: ComplexArray) -> ComplexArray:
        """Solve ``Y x + d conj(x) = right`` for (l, c) columns, column j at ``interval[j]``."""
        return self._solve(interval, right, transposed=False)

    def solve_adjoint(self, interval: IntArray, right: ComplexArray) -> ComplexArray:
        """Solve ``Y^T x + conj(d x) = right`` for (l, c) columns, column j at ``interval[j]``."""
        return self._solve(interval, right, transposed=True)

    def _solve(self, interval: IntArray, right: ComplexArray, *, transposed: bool) -> ComplexArray:
        """Sweep with the factors of ``Y``; factorise where that is faster or the sweeps do not settle."""
        x = np.zeros(right.shape, dtype=complex)
        many = np.bincount(interval, minlength=self.coupling.shape[1])[interval] >= DIRECT_COLUMNS
        direct = np.flatnonzero(many)
        swept = np.flatnonzero(~many)
        x[:, swept], settled = self._sweep(interval[swept], right[:, swept], transposed=transposed)
        direct = np.concatenate([direct, swept[~settled]])
        for this in np.unique(interval[direct]):
            columns = direct[interval[direct] == this]
            x[:, columns] = self._direct(int(this), right[:, columns], transposed=transposed)
        return x

    def _sweep(
        self, interval: IntArray, right: ComplexArray, *, transposed: bool
    ) -> tuple[ComplexArray, npt.NDArray[np.bool_]]:
        """Iterate ``x <- Y^-1 (right - d conj(x))``; the second value tells which columns have settled."""
        kind = "T" if transposed else "N"
        coupling = np.conj(self.coupling[:, interval]) if transposed else self.coupling[:, interval]
        x = self.flow.lu.solve(np.asarray(right, dtype=complex), kind)
        size = np.abs(x).max(axis=0, initial=0.0)
        moving = np.flatnonzero(size > 0)
        for _ in range(MAX_SWEEPS):
            if not len(moving):
                break
            moved = self.flow.lu.solve(right[:, moving] - coupling[:, moving] * np.conj(x[:, moving]), kind)
            step = np.abs(moved - x[:, moving]).max(axis=0)
            x[:, moving] = moved
            moving = moving[~(step <= LINEAR_TOLERANCE * size[moving])]
        settled = np.ones(len(interval), bool)
        settled[moving] = False
        return x, settled

    def _direct(self, interval: int, right: ComplexArray, *, transposed: bool) -> ComplexArray:
        factors = self.flow.real.factorise(self.coupling[:, interval])
        if not transposed:
            return _unstack(factors.solve(_stack(right)))
        solution = factors.solve(np.concatenate([right.real, -right.imag]), "T")
        return np.conj(_unstack(solution))


class _RealPattern:
    """The operator ``x -> Y x + d conj(x)`` as a real sparse matrix over (Re x, Im x), its pattern made once."""

    def __init__(self, y_free: sparse.csc_array):
        count = y_free.shape[0]
        ones = sparse.eye_array(count, format="csc", dtype=complex)
        pattern = y_free + ones - ones
        self._base = sparse.csc_array(
            sparse.block_array([[pattern.real, -pattern.imag], [pattern.imag, pattern.real]]), copy=True
        )
        marks = sparse.csc_array(self._base, copy=True)
        marks.data = np.arange(1, marks.nnz + 1, dtype=float)
        node = np.arange(count)
        corners = ((0, 0), (0, count), (count, 0), (count, count))
        self._diagonals = [marks[node + down, node + right].astype(np.int64) - 1 for down, right in corners]

    def factorise(self, coupling: ComplexArray) -> SuperLU:
        """Factorise with ``d = coupling``, (l,)."""
        matrix = sparse.csc_array(self._base, copy=True)
        for place, value in zip(
            self._diagonals, (coupling.real, coupling.imag, coupling.imag, -coupling.real), strict=True
        ):
            matrix.data[place] += value
        return splu(matrix)


def _stack(x: ComplexArray) -> FloatArray:
    return np.concatenate([x.real, x.imag])


def _unstack(x: FloatArray) -> ComplexArray:
    half = len(x) // 2
    return x[:half] + 1j * x[half:]
