"""AC power flow of all intervals at once, and linear solves with its Jacobian.

Power ``S`` enters at the ports, whose voltages are ``H V``: nodes against ground, and pairs of nodes.
With the currents ``I(v, S)`` of the ports the nodal equations at the nodes without a source are
``Y V + Y_s V_s = H^T I(H V, S)``, and ``I = conj(S / v)`` less the currents of the loads that follow
their voltage (`dlmp.network.loads`).  A change of the voltages changes the currents by
``dI = a dv + b conj(dv)``, at each port for itself.

The operator ``J x = Y x - H^T (a H x + b conj(H x))`` at a reference state, the intervals' mean power,
is factorised once as a real matrix of twice the size.  Every other state then differs from it only at the
ports, and ``V <- V + J_ref^-1 (H^T I(H V) - Y V - Y_s V_s)`` runs with one column per interval: in half to
a quarter of the sweeps that ``Y`` itself would need.  An interval on which it is slow or diverges is finished
by Newton's method.  `Jacobian` solves with the operator of each interval and with its adjoint in the same way.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.linalg import SuperLU, splu

from dlmp.network.model import ComplexArray, FloatArray, IntArray, Network

TOLERANCE_PU, STIFF_TOLERANCE_PU = 1e-13, 1e-11
"""Step at which voltages are found; of a stiff network, whose import counts what they leave unbalanced."""
ROUNDING_PU = 1e-9
"""A step below this that does not shrink as it should is rounding: the voltages are as good as they get."""
LINEAR_TOLERANCE = 1e-12
"""Step of a linear solve at which its sweeps stop, relative to the solution."""
SWEEP_SHRINKS, NEWTON_SHRINKS = 0.9, 0.3
NEAR_PU = 1e-5
"""Steps larger than this do not need the extended precision."""
FIRST_SWEEPS = 2
HIGHEST_PU = 10.0
"""A voltage above this is on its way to nowhere."""
LINEAR_ROUNDING = 1e-7
"""A step of a linear solve below this, relative, that is hardly smaller than the last one is rounding."""
MAX_SWEEPS = 60
MAX_NEWTON_STEPS = 30
REFINEMENTS = 2
SPARSE_FACTORS: dict[str, Any] = {
    "permc_spec": "MMD_AT_PLUS_A",
    "diag_pivot_thresh": 0.1,
    "options": {"SymmetricMode": True},
}
"""The Jacobian's pattern is symmetric: these orderings halve its factors (measured)."""
MOST_FACTORS = 32
"""Factors that a Jacobian keeps: some 10 MB each at 10,000 nodes."""
STIFF_PU = 1e4
"""An admittance above this wants extended precision: its rounding is a current of 1e-12 pu."""
DIRECT_COLUMNS = 8
LARGE_NODES, LARGE_DIRECT_COLUMNS = 2000, 2
"""With so many columns at one interval, factorising its Jacobian is faster than sweeping (measured)."""


class PowerFlow:
    """The factorised network: solves for the voltages of any number of intervals.

    Parameters
    ----------
    network
        The network.
    law_pu
        (t, l) Nominal consumption of the loads of `network.law` [pu]; default: none, for any number of intervals.

    Attributes
    ----------
    free
        (f,) Nodes without a source.
    port
        (q,) Ports between free nodes or at one: pairs never stand at a source.
    no_load_pu
        (n,) Voltages without any injection [pu].
    """

    def __init__(self, network: Network, law_pu: ComplexArray | None = None):
        self.network = network
        self.free: IntArray = np.flatnonzero(~network.is_source)
        self.port: IntArray = np.r_[self.free, np.arange(network.node_count, network.port_count)]
        self.is_large = len(self.free) >= LARGE_NODES
        rows = sparse.csr_array(network.admittance)
        self.exact = _ExactProduct(sparse.csr_array(rows[self.free]), self.free)
        self.y_source = self.exact.of(rows[network.source])
        self.tolerance_pu = STIFF_TOLERANCE_PU if self.exact.is_stiff else TOLERANCE_PU
        held = np.zeros(network.node_count, complex)
        held[network.source] = network.source_v_pu
        self._feed = self.exact.drawn(held[:, None])
        self.ports = _Ports(network, self.free, law_pu)
        self.pattern = _RealPattern(sparse.csc_array(rows[self.free][:, self.free]), self.ports)
        none = np.zeros(len(self.port), complex)
        self.reference = _Reference(self.pattern, none, none)
        self._has_reference = False
        self.no_load_pu: ComplexArray = np.empty(network.node_count, complex)
        self.no_load_pu[network.source] = network.source_v_pu
        v = self.reference.solve(np.asarray(-self._feed, dtype=complex))
        for _ in range(REFINEMENTS):
            v = v + self.reference.solve(self._imbalance(np.zeros((len(self.port), 1), complex), v))
        self.no_load_pu[self.free] = v[:, 0]

    def solve(
        self, injection_pu: ComplexArray, start_pu: ComplexArray | None = None
    ) -> tuple[ComplexArray, npt.NDArray[np.bool_]]:
        """Solve the power flow of every interval.

        Parameters
        ----------
        injection_pu
            (t, p) Complex power into each port [pu], voltage-dependent loads aside; ignored at sources.
        start_pu
            (t, n) Voltages to start from [pu]; default: without load.

        Returns
        -------
        v_pu
            (t, n) Complex voltages [pu]; the start where there is no solution.
        converged
            (t,) True where the voltages solve the equations.
        """
        v_pu, converged = self.solve_exactly(injection_pu, start_pu)
        return np.asarray(v_pu, dtype=complex), converged

    def solve_exactly(
        self,
        injection_pu: ComplexArray,
        start_pu: ComplexArray | None = None,
        intervals: IntArray | None = None,
        near: "Jacobian | None" = None,
    ) -> tuple[ComplexArray, npt.NDArray[np.bool_]]:
        """Solve likewise; the voltages come in the precision in which the currents of stiff branches can be told.

        The rows of injections and voltages are those of `intervals`; default: all.  The Jacobian of a state `near`
        by takes the place of the reference where its factors are at hand.
        """
        power = injection_pu[:, self.port].T
        every = np.arange(len(injection_pu)) if intervals is None else intervals
        if start_pu is None:
            start_pu = np.tile(self.no_load_pu, (len(injection_pu), 1))
        voltage = np.array(start_pu, dtype=self.exact.dtype)
        if not self._has_reference:
            self._refer_to(power, voltage[:, self.free].T, every)
        v, converged = self._fixed_point(power, voltage[:, self.free].T, every, near)
        for row in np.flatnonzero(~converged):
            for begin in (start_pu[row], self.no_load_pu):
                at = every[[row]]
                solution = self._newton(power[:, [row]], at, begin[self.free].astype(self.exact.dtype))
                if solution is not None:
                    v[:, row], converged[row] = solution, True
                    break
        voltage[np.ix_(converged, self.free)] = v[:, converged].T
        return voltage, converged

    def rest(self, injection_pu: ComplexArray, v_pu: ComplexArray) -> ComplexArray:
        """(f, t) Currents that voltages (t, n) leave unbalanced, of injections (t, p) [pu]."""
        v, every = v_pu[:, self.free].T, np.arange(len(v_pu))
        return self._imbalance(self.ports.current(injection_pu[:, self.port].T, self._across(v), every), v)

    def slopes(self, injection_pu: ComplexArray, v_pu: ComplexArray) -> tuple[ComplexArray, ComplexArray]:
        """``a`` and ``b`` of every port (q, t) at injections (t, p) and voltages (t, n) [pu]."""
        every = np.arange(len(v_pu))
        v = self.ports.of_nodes(v_pu[:, self.free].T)
        return self.ports.slopes(injection_pu[:, self.port].T, v, every)

    def _across(self, v: ComplexArray) -> ComplexArray:
        """(q, c) Port voltages, in double precision."""
        return self.ports.of_nodes(np.asarray(v, dtype=complex))

    def _imbalance(self, current: ComplexArray, v: ComplexArray) -> ComplexArray:
        """(f, c) Currents that flow into the nodes and not on, of port currents (q, c) at voltages (f, c)."""
        return self.exact.rest(self.ports.to_nodes(current), v, self._feed)

    def _refer_to(self, power: ComplexArray, v: ComplexArray, every: IntArray) -> None:
        """Take the mean Jacobian of all intervals as the reference: at voltages `v`, then about where they lead."""
        self._has_reference = True
        for sweeps in (0, FIRST_SWEEPS):
            for _ in range(sweeps):
                v = v + self.reference.solve(self._imbalance(self.ports.current(power, self._across(v), every), v))
            if not (np.abs(self.ports.determined(v)) < HIGHEST_PU).all():
                return
            a, b = (part.mean(axis=1) for part in self.ports.slopes(power, self._across(v), every))
            self.reference = _Reference(self.pattern, a, b)

    def _fixed_point(
        self, power: ComplexArray, start: ComplexArray, intervals: IntArray, near: "Jacobian | None"
    ) -> tuple[ComplexArray, npt.NDArray[np.bool_]]:
        """Sweep until every column is still; a column that is not still in the end has not converged."""
        v = np.array(start)
        at, moving, own = np.arange(v.shape[1]), v, power
        step, last = np.full(v.shape[1], np.inf), np.full(v.shape[1], np.inf)
        converged = np.zeros(v.shape[1], bool)
        is_known = near is not None and near.has_factors(intervals)
        correct = near.solve_each if near is not None and is_known else self.reference.solve_each
        shrinks = NEWTON_SHRINKS if is_known else SWEEP_SHRINKS
        for _ in range(MAX_SWEEPS):
            is_near = step.max(initial=0.0) < NEAR_PU
            with np.errstate(all="ignore"):
                current = self.ports.current(own, self._across(moving), intervals[at])
                rest = self.exact.rest(self.ports.to_nodes(current), moving, self._feed, exactly=is_near)
                change = correct(intervals[at], np.where(np.isfinite(rest), rest, 0.0))
                moved = moving + change
                last, step = step, np.abs(self.ports.determined(change)).max(axis=0, initial=0.0)
            highest = np.abs(self.ports.determined(moved)).max(axis=0, initial=0.0)
            is_sound = np.isfinite(rest).all(axis=0) & (highest < HIGHEST_PU)
            is_still = is_sound & is_near & _is_still(step, last, shrinks, self.tolerance_pu)
            moving = moved
            if not (is_still | ~is_sound).any():
                continue
            v[:, at[is_still]], converged[at[is_still]] = moved[:, is_still], True
            goes_on = is_sound & ~is_still
            if not goes_on.any():
                break
            at, moving, own = at[goes_on], moved[:, goes_on], own[:, goes_on]
            step, last = step[goes_on], last[goes_on]
        return v, converged

    def _newton(self, own: ComplexArray, at: IntArray, start: ComplexArray) -> ComplexArray | None:
        """Newton's method for one interval, ``at[0]``; None when it does not converge."""
        v, last = start[:, None], np.inf
        for _ in range(MAX_NEWTON_STEPS):
            across = self._across(v)
            a, b = self.ports.slopes(own, across, at)
            rest = self._imbalance(self.ports.current(own, across, at), v)
            change = _solve_real(self.pattern.factorise(a[:, 0], b[:, 0]), rest, transposed=False)
            step, v = float(np.abs(self.ports.determined(change)).max()), v + change
            if not np.isfinite(v).all() or np.abs(self.ports.determined(v)).max() > HIGHEST_PU:
                return None
            if _is_still(step, last, NEWTON_SHRINKS, self.tolerance_pu):
                return v[:, 0]
            last = step
        return None


def _is_still(
    step: FloatArray | float, last: FloatArray | float, shrinks: float, tolerance_pu: float
) -> npt.NDArray[np.bool_]:
    """True where steps are small enough, or as small as they get: each should be `shrinks` times the last or less."""
    return np.asarray((step <= tolerance_pu) | ((step <= ROUNDING_PU) & (step > shrinks * last)))


class _ExactProduct:
    """Products with the admittance matrix, in extended precision where its entries would drown the loads' currents.

    The current through a closed switch is the difference of two products of 1e8 pu with a voltage; what such
    rounding leaves of a node's balance would be taken for load.
    """

    def __init__(self, rows: sparse.csr_array, free: IntArray):
        self.is_stiff = abs(rows).max() > STIFF_PU
        self.dtype = np.dtype(np.clongdouble if self.is_stiff else np.complex128)
        self._all = self.of(rows)
        self._free = sparse.csr_array(self._all[:, free])
        self._transposed = sparse.csr_array(self._free.T)
        self._nearly = sparse.csr_array(rows[:, free])
        self._nearly_transposed = sparse.csr_array(self._nearly.T)

    def of(self, rows: sparse.csr_array) -> sparse.csr_array:
        """`rows` in this precision."""
        return sparse.csr_array((rows.data.astype(self.dtype), rows.indices, rows.indptr), shape=rows.shape)

    def drawn(self, v: ComplexArray) -> ComplexArray:
        """(f, c) Currents into the network at voltages (n, c), in the precision of the product."""
        return np.asarray(self._all @ v.astype(self.dtype, copy=False))

    def rest(self, current: ComplexArray, v: ComplexArray, feed: ComplexArray, *, exactly: bool = True) -> ComplexArray:
        """(f, c) ``current - feed - Y v``."""
        product = self._free @ v.astype(self.dtype, copy=False) if exactly else self._nearly @ v.astype(complex)
        return np.asarray(current - feed - product, dtype=complex)

    def rest_of(self, right: ComplexArray, x: ComplexArray, *, transposed: bool, exactly: bool = True) -> ComplexArray:
        """(f, c) ``right - Y x`` or ``right - Y^T x``."""
        if exactly:
            return np.asarray(
                right - (self._transposed if transposed else self._free) @ x.astype(self.dtype, copy=False), complex
            )
        return np.asarray(right - (self._nearly_transposed if transposed else self._nearly) @ x)


class _Ports:
    """Voltages and currents of the ports between free nodes."""

    def __init__(self, network: Network, free: IntArray, law_pu: ComplexArray | None):
        position = np.full(network.node_count, -1)
        position[free] = np.arange(len(free))
        self.pair = position[network.pair]
        self.count = len(free) + len(self.pair)
        self._back = sparse.csr_array(
            (np.repeat([1.0, -1.0], len(self.pair)), (self.pair.T.ravel(), np.tile(np.arange(len(self.pair)), 2))),
            shape=(len(free), len(self.pair)),
        )
        self._determined = np.flatnonzero(~network.is_floating[free])
        self._floats = len(self._determined) < len(free)
        self.law = network.law
        port = np.full(network.port_count, -1)
        port[np.r_[free, np.arange(network.node_count, network.port_count)]] = np.arange(self.count)
        self.law_port = port[network.law.port]
        self.law_pu = np.zeros((len(network.law), 0), complex) if law_pu is None else law_pu.T
        self.has_laws = law_pu is not None and len(network.law) > 0
        self._gather = sparse.csr_array(
            (np.ones(len(self.law_port)), (self.law_port, np.arange(len(self.law_port)))),
            shape=(self.count, len(self.law_port)),
        )

    def of_nodes(self, x: ComplexArray) -> ComplexArray:
        """(q, c) Port voltages of node voltages (f, c)."""
        return np.concatenate([x, x[self.pair[:, 0]] - x[self.pair[:, 1]]]) if len(self.pair) else x

    def to_nodes(self, current: ComplexArray) -> ComplexArray:
        """(f, c) Node currents of port currents (q, c)."""
        if not len(self.pair):
            return current
        nodes = self._back.shape[0]
        return np.asarray(current[:nodes] + self._back @ current[nodes:])

    def determined(self, change: ComplexArray) -> ComplexArray:
        """Changes (f, c) of the voltages that have a value: phase to phase where the node floats."""
        if not self._floats:
            return change
        return np.concatenate([change[self._determined], change[self.pair[:, 0]] - change[self.pair[:, 1]]])

    def current(self, power: ComplexArray, v: ComplexArray, at: IntArray) -> ComplexArray:
        """(q, c) Currents at power and voltage (q, c), column j at interval ``at[j]``."""
        current = np.conj(_ratio(power, v))
        if self.has_laws:
            own = v[self.law_port]
            value, _, _ = self.law.shape(np.abs(own))
            current = current - self._gather @ (np.conj(self.law_pu[:, at] / own) * value)
        return current

    def slopes(self, power: ComplexArray, v: ComplexArray, at: IntArray) -> tuple[ComplexArray, ComplexArray]:
        """``a`` and ``b`` (q, c) of ``dI = a dv + b conj(dv)``."""
        a, b = np.zeros_like(v), -np.conj(_ratio(power, v**2))
        if self.has_laws:
            own = v[self.law_port]
            value, first, _ = self.law.shape(np.abs(own))
            nominal = np.conj(self.law_pu[:, at])
            a = a - self._gather @ (nominal * first / (2 * np.abs(own) ** 2))
            b = b - self._gather @ (nominal * (first / 2 - value) / np.conj(own) ** 2)
        return a, b

    def law_curvature(self, v: ComplexArray, interval: int) -> tuple[ComplexArray, ComplexArray, ComplexArray]:
        """Second derivatives by ``v v``, ``v conj(v)`` and ``conj(v) conj(v)`` of the laws' currents, (q,) each."""
        own = v[self.law_port]
        value, first, second = (part[:, 0] for part in self.law.shape(np.abs(own)[:, None]))
        nominal, mirrored = -np.conj(self.law_pu[:, interval]), np.conj(own)
        bend = second / 4 - first / 2
        return (
            self._gather @ (nominal * bend / (own**2 * mirrored)),
            self._gather @ (nominal * bend / (own * mirrored**2)),
            self._gather @ (nominal * (bend - first + 2 * value) / mirrored**3),
        )


@dataclass(frozen=True)
class Jacobian:
    """Linear solves at an operating point, for columns that each belong to an interval.

    Parameters
    ----------
    flow
        The factorised network.
    a, b
        (q, t) Slopes of the port currents [pu].
    """

    flow: PowerFlow
    a: ComplexArray
    b: ComplexArray
    _kept: dict[int, SuperLU] = field(default_factory=dict, repr=False)

    def solve(self, interval: IntArray, right: ComplexArray) -> ComplexArray:
        """Solve ``J x = right`` for (f, c) columns, column j at ``interval[j]``."""
        return self._solve(interval, right, transposed=False)

    def solve_nearly(self, interval: int, right: ComplexArray) -> ComplexArray:
        """Solve ``J x = right`` for (f, c) columns of one interval, to about 1e-8: enough for second derivatives."""
        return _solve_real(self._factors(interval), right, transposed=False)

    def has_factors(self, intervals: IntArray) -> bool:
        """True when all of `intervals` have been factorised."""
        return all(t in self._kept for t in intervals.tolist())

    def keep_factors_of(self, other: "Jacobian", intervals: IntArray) -> None:
        """Take over the factors of `intervals`, in which the state is the same."""
        self._kept.update({t: other._kept[t] for t in intervals.tolist() if t in other._kept})

    def solve_each(self, interval: IntArray, right: ComplexArray) -> ComplexArray:
        """Solve ``J x = right`` nearly, column j at ``interval[j]``."""
        return np.concatenate(
            [self.solve_nearly(int(t), right[:, [column]]) for column, t in enumerate(interval)], axis=1
        )

    def _factors(self, interval: int) -> SuperLU:
        """Factors of the Jacobian of an interval, kept for the next call."""
        if interval not in self._kept:
            factors = self.flow.pattern.factorise(self.a[:, interval], self.b[:, interval])
            if len(self._kept) >= MOST_FACTORS:
                return factors
            self._kept[interval] = factors
        return self._kept[interval]

    def solve_adjoint(self, interval: IntArray, right: ComplexArray) -> ComplexArray:
        """Solve ``Y^T x - H^T (a H x) - conj(H^T (b H x)) = right`` for (f, c) columns, column j at ``interval[j]``."""
        return self._solve(interval, right, transposed=True)

    def _solve(self, interval: IntArray, right: ComplexArray, *, transposed: bool) -> ComplexArray:
        """Correct with the factors of the reference; factorise where that is faster or the sweeps do not settle."""
        x = np.zeros(right.shape, dtype=complex)
        least = LARGE_DIRECT_COLUMNS if self.flow.is_large else DIRECT_COLUMNS
        many = np.bincount(interval, minlength=self.a.shape[1])[interval] >= least
        many |= np.isin(interval, list(self._kept))
        direct = np.flatnonzero(many)
        swept = np.flatnonzero(~many)
        x[:, swept], settled = self._sweep(interval[swept], right[:, swept], transposed=transposed)
        direct = np.concatenate([direct, swept[~settled]])
        own = [direct[interval[direct] == this] for this in np.unique(interval[direct])]
        for columns in own:
            x[:, columns] = self._direct(int(interval[columns[0]]), right[:, columns], transposed=transposed)
        return x

    def _sweep(
        self, interval: IntArray, right: ComplexArray, *, transposed: bool
    ) -> tuple[ComplexArray, npt.NDArray[np.bool_]]:
        """Solve again for what is left over; the second value tells which columns have settled."""
        flow, reference = self.flow, self.flow.reference
        right = np.asarray(right, dtype=complex)
        x = reference.solve(right, transposed=transposed)
        size = np.abs(x).max(axis=0, initial=0.0)
        moving, last = np.flatnonzero(size > 0), np.full(len(interval), np.inf)
        for _ in range(MAX_SWEEPS):
            if not len(moving):
                break
            is_near = last[moving].max(initial=0.0) < NEAR_PU
            rest = self._rest(interval[moving], right[:, moving], x[:, moving], transposed=transposed, exactly=is_near)
            change = reference.solve(rest, transposed=transposed)
            x[:, moving] += change
            step = np.abs(flow.ports.determined(change)).max(axis=0) / size[moving]
            still = (step <= LINEAR_TOLERANCE) | ((step <= LINEAR_ROUNDING) & (step > 0.9 * last[moving]))
            last[moving] = step
            moving = moving[~(still & is_near)]
        settled = np.ones(len(interval), bool)
        settled[moving] = False
        return x, settled

    def _rest(
        self, interval: IntArray, right: ComplexArray, x: ComplexArray, *, transposed: bool, exactly: bool = True
    ) -> ComplexArray:
        """``right - J x``, or with the adjoint of `J`."""
        ports = self.flow.ports
        a, b, across = self.a[:, interval], self.b[:, interval], ports.of_nodes(x)
        mirrored = np.conj(b * across) if transposed else b * np.conj(across)
        right = right + ports.to_nodes(a * across + mirrored)
        return self.flow.exact.rest_of(right, x, transposed=transposed, exactly=exactly)

    def _direct(self, interval: int, right: ComplexArray, *, transposed: bool) -> ComplexArray:
        factors = self._factors(interval)
        x = _solve_real(factors, right, transposed=transposed)
        rest = self._rest(np.full(right.shape[1], interval), right, x, transposed=transposed)
        return x + _solve_real(factors, rest, transposed=transposed)


class _Reference:
    """The factorised operator at the reference slopes (q,)."""

    def __init__(self, pattern: "_RealPattern", a: ComplexArray, b: ComplexArray):
        self.a, self.b = a, b
        self._factors = pattern.factorise(a, b)

    def solve_each(self, interval: IntArray, right: ComplexArray) -> ComplexArray:
        """Solve with (f, c) right-hand sides, whatever their intervals."""
        return self.solve(right)

    def solve(self, right: ComplexArray, *, transposed: bool = False) -> ComplexArray:
        """Solve with (f, c) right-hand sides."""
        return _solve_real(self._factors, right, transposed=transposed)


class _RealPattern:
    """The operator `J` as a real sparse matrix over (Re x, Im x), its pattern made once."""

    def __init__(self, y_free: sparse.csc_array, ports: _Ports):
        count = y_free.shape[0]
        node = np.arange(count)
        first, second = ports.pair.T
        row = np.r_[node, first, second, first, second]
        column = np.r_[node, first, second, second, first]
        sign = np.r_[np.ones(count + 2 * len(first)), -np.ones(2 * len(first))]
        port = np.r_[node, np.tile(count + np.arange(len(first)), 4)]
        entries = sparse.coo_array(y_free)
        pattern = sparse.csc_array(
            (
                np.r_[entries.data, np.zeros(len(row))],
                (np.r_[entries.row, row], np.r_[entries.col, column]),
            ),
            shape=y_free.shape,
        )
        self._base = sparse.csc_array(
            sparse.block_array([[pattern.real, -pattern.imag], [pattern.imag, pattern.real]]), copy=True
        )
        marks = sparse.csc_array(self._base, copy=True)
        marks.data = np.arange(1, marks.nnz + 1, dtype=float)
        shape = (marks.nnz, ports.count)
        self._corners = []
        for down, right in ((0, 0), (0, count), (count, 0), (count, count)):
            place = np.asarray(marks[row + down, column + right]).ravel().astype(np.int64) - 1
            self._corners.append(sparse.csr_array((sign, (place, port)), shape=shape))

    def factorise(self, a: ComplexArray, b: ComplexArray) -> SuperLU:
        """Factorise with port slopes `a` and `b`, (q,)."""
        matrix = sparse.csc_array(self._base, copy=True)
        both, difference = a + b, a - b
        for corner, value in zip(
            self._corners, (-both.real, difference.imag, -both.imag, -difference.real), strict=True
        ):
            matrix.data += corner @ value
        return splu(matrix, **SPARSE_FACTORS)


def _ratio(power: ComplexArray, v: ComplexArray) -> ComplexArray:
    """``power / v``, and 0 without power: a neutral may have no voltage at all."""
    return np.divide(power, v, out=np.zeros_like(v), where=power != 0)


def _solve_real(factors: SuperLU, right: ComplexArray, *, transposed: bool) -> ComplexArray:
    if not transposed:
        return _unstack(factors.solve(_stack(right)))
    return np.conj(_unstack(factors.solve(np.concatenate([right.real, -right.imag]), "T")))


def _stack(x: ComplexArray) -> FloatArray:
    return np.concatenate([x.real, x.imag])


def _unstack(x: FloatArray) -> ComplexArray:
    half = len(x) // 2
    return x[:half] + 1j * x[half:]
