"""AC power flow of all intervals at once, and linear solves with its Jacobian.

Power ``S`` enters at the ports, whose voltages are ``H V``: nodes against ground, and pairs of nodes.
With the currents ``I(v, S)`` of the ports the nodal equations at the nodes without a source are
``Y V + Y_s V_s = H^T I(H V, S)``, and ``I = conj(S / v)`` less the currents of the loads that follow
their voltage (`dlmp.network.loads`).  A change of the voltages changes the currents by
``dI = a dv + b conj(dv)``, at each port for itself.  The currents of stiff conductors are unknowns beside the
voltages (`dlmp.nodal`); ``V`` and ``Y`` stand for both here.

The operator ``J x = Y x - H^T (a H x + b conj(H x))`` at a reference state, the intervals' mean power,
is factorised once as a real matrix of twice the size.  Every other state then differs from it only at the
ports, and ``V <- V + J_ref^-1 (H^T I(H V) - Y V - Y_s V_s)`` runs with one column per interval: in half to
a quarter of the sweeps that ``Y`` itself would need.  An interval on which it is slow or diverges is finished
by Newton's method.  `Jacobian` solves with the operator of each interval and with its adjoint in the same way.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dlmp.factors import Factors, Ordering
from dlmp.network.model import ComplexArray, FloatArray, IntArray, Network
from dlmp.nodal import nodal_equations

TOLERANCE_PU = 1e-13
"""Step at which voltages are found."""
ROUNDING_PU = 1e-9
"""A step below this that does not shrink as it should is rounding: the voltages are as good as they get."""
LINEAR_TOLERANCE = 1e-12
"""Step of a linear solve at which its sweeps stop, relative to the solution."""
SWEEP_SHRINKS, NEWTON_SHRINKS = 0.9, 0.3
FIRST_SWEEPS = 2
HIGHEST_PU = 10.0
"""A voltage above this is on its way to nowhere."""
LINEAR_ROUNDING = 1e-7
"""A step of a linear solve below this, relative, that is hardly smaller than the last one is rounding."""
MAX_SWEEPS = 60
MAX_NEWTON_STEPS = 30
REFINEMENTS = 2
MOST_FACTORS = 32
"""Factors that a Jacobian keeps: some 4 MB each at 10,000 nodes."""
DIRECT_COLUMNS = 8
LARGE_NODES, LARGE_DIRECT_COLUMNS = 2000, 2
"""With so many columns at one interval, factorising its Jacobian is faster than sweeping (measured).  From so many
nodes on it costs too much to know each interval's own tangents, too."""


class PowerFlow:
    """The factorised network: solves for the state of any number of intervals.

    Parameters
    ----------
    network
        The network, of n nodes and s stiff conductors (`dlmp.nodal`).
    law_pu
        (t, l) Nominal consumption of the loads of `network.law` [pu]; default: none, for any number of intervals.

    Attributes
    ----------
    equations
        Currents by the state.
    free
        (f,) Nodes without a source.
    unknown
        (u,) What is solved for: the voltages of the free nodes, then the currents of the stiff conductors.
    port
        (q,) Ports between free nodes or at one: pairs never stand at a source.
    no_load_pu
        (n + s,) State without any injection [pu].
    known_tangents
        Changes of the state by injections, kept for `dlmp.sensitivity.Sensitivity.common_tangent`.
    """

    def __init__(self, network: Network, law_pu: ComplexArray | None = None):
        self.network = network
        self.equations = nodal_equations(network)
        self.size: int = self.equations.balance.shape[0]
        self.free: IntArray = np.flatnonzero(~network.is_source)
        self.unknown: IntArray = np.r_[self.free, np.arange(network.node_count, self.size)]
        self.port: IntArray = np.r_[self.free, np.arange(network.node_count, network.port_count)]
        self.is_large = len(self.free) >= LARGE_NODES
        rows = self.equations.balance[self.unknown]
        self._matrix = sparse.csr_array(rows[:, self.unknown])
        self._transposed = sparse.csr_array(self._matrix.T)
        held = np.zeros(self.size, complex)
        held[network.source] = network.source_v_pu
        self._feed = (rows @ held)[:, None]
        self.ports = _Ports(network, self.free, len(self.unknown), law_pu)
        self.pattern = _RealPattern(sparse.csc_array(self._matrix), self.ports)
        none = np.zeros(len(self.port), complex)
        self.reference = _Reference(self.pattern, none, none)
        self._has_reference = False
        self.known_tangents: dict[tuple[bytes, bytes, bool], ComplexArray] = {}
        x = self.reference.solve(-self._feed)
        for _ in range(REFINEMENTS):
            x = x + self.reference.solve(self._imbalance(np.zeros((len(self.port), 1), complex), x))
        self.no_load_pu: ComplexArray = held
        self.no_load_pu[self.unknown] = x[:, 0]

    def solve(
        self,
        injection_pu: ComplexArray,
        start_pu: ComplexArray | None = None,
        intervals: IntArray | None = None,
        near: "Jacobian | None" = None,
    ) -> tuple[ComplexArray, npt.NDArray[np.bool_]]:
        """Solve the power flow of every interval.

        Parameters
        ----------
        injection_pu
            (t, p) Complex power into each port [pu], voltage-dependent loads aside; ignored at sources.
        start_pu
            (t, n + s) State to start from [pu]; default: without load.
        intervals
            (t,) Intervals to which the rows belong; default: all in order.
        near
            Jacobian of states nearby, which takes the place of the reference where its factors are at hand.

        Returns
        -------
        state_pu
            (t, n + s) Complex state [pu]; the start where there is no solution.
        converged
            (t,) True where the state solves the equations.
        """
        power = injection_pu[:, self.port].T
        every = np.arange(len(injection_pu)) if intervals is None else intervals
        if start_pu is None:
            start_pu = np.tile(self.no_load_pu, (len(injection_pu), 1))
        state_pu = np.array(start_pu)
        if not self._has_reference:
            self._refer_to(power, state_pu[:, self.unknown].T, every)
        x, converged = self._fixed_point(power, state_pu[:, self.unknown].T, every, near)
        for row in np.flatnonzero(~converged):
            for begin in (start_pu[row], self.no_load_pu):
                solution = self._newton(power[:, [row]], every[[row]], begin[self.unknown])
                if solution is not None:
                    x[:, row], converged[row] = solution, True
                    break
        state_pu[np.ix_(converged, self.unknown)] = x[:, converged].T
        return state_pu, converged

    def voltages(self, state_pu: ComplexArray) -> ComplexArray:
        """(..., n) Voltages of states (..., n + s)."""
        return state_pu[..., : self.network.node_count]

    def slopes(self, injection_pu: ComplexArray, state_pu: ComplexArray) -> tuple[ComplexArray, ComplexArray]:
        """``a`` and ``b`` of every port (q, t) at injections (t, p) and states (t, n + s) [pu]."""
        every = np.arange(len(state_pu))
        v = self.ports.of_nodes(state_pu[:, self.unknown].T)
        return self.ports.slopes(injection_pu[:, self.port].T, v, every)

    @cached_property
    def loss_curvature(self) -> sparse.csr_array:
        """(2u, 2u) Second derivatives of the network's losses by real before imaginary parts of the unknowns.

        Of real power ``Re(V^H Y V)``; what stiff conductors lose is ``Re(J^H Z J)``.  Positive semidefinite where no
        part of the network gives power.
        """
        none = np.zeros(self.ports.count, complex)
        lost = sparse.diags_array(self.sign_of_losses) @ self.pattern.matrix(none, none)
        return sparse.csr_array(lost + lost.T)

    @property
    def sign_of_losses(self) -> FloatArray:
        """(2u,) Sign of each equation in the sum of equations times unknowns that is the network's losses."""
        return np.tile(np.where(np.arange(len(self.unknown)) < len(self.free), 1.0, -1.0), 2)

    def rest(self, right: ComplexArray, x: ComplexArray, *, transposed: bool = False) -> ComplexArray:
        """(u, c) ``right - Y x`` or ``right - Y^T x`` over the unknowns."""
        return np.asarray(right - (self._transposed if transposed else self._matrix) @ x)

    def _imbalance(self, current: ComplexArray, x: ComplexArray) -> ComplexArray:
        """(u, c) What port currents (q, c) leave unbalanced at unknowns (u, c)."""
        return self.rest(self.ports.to_nodes(current) - self._feed, x)

    def _refer_to(self, power: ComplexArray, x: ComplexArray, every: IntArray) -> None:
        """Take the mean Jacobian of all intervals as the reference: at the state `x`, then about where it leads."""
        self._has_reference = True
        for sweeps in (0, FIRST_SWEEPS):
            for _ in range(sweeps):
                current = self.ports.current(power, self.ports.of_nodes(x), every)
                x = x + self.reference.solve(self._imbalance(current, x))
            if not (np.abs(self.ports.determined(x)) < HIGHEST_PU).all():
                return
            a, b = (part.mean(axis=1) for part in self.ports.slopes(power, self.ports.of_nodes(x), every))
            self.reference = _Reference(self.pattern, a, b)

    def _fixed_point(
        self, power: ComplexArray, start: ComplexArray, intervals: IntArray, near: "Jacobian | None"
    ) -> tuple[ComplexArray, npt.NDArray[np.bool_]]:
        """Sweep until every column is still; a column that is not still in the end has not converged."""
        x = np.array(start)
        at, moving, own = np.arange(x.shape[1]), x, power
        step, last = np.full(x.shape[1], np.inf), np.full(x.shape[1], np.inf)
        converged = np.zeros(x.shape[1], bool)
        is_known = near is not None and near.has_factors(intervals)
        correct = near.solve_each if near is not None and is_known else self.reference.solve_each
        shrinks = NEWTON_SHRINKS if is_known else SWEEP_SHRINKS
        for _ in range(MAX_SWEEPS):
            with np.errstate(all="ignore"):
                current = self.ports.current(own, self.ports.of_nodes(moving), intervals[at])
                rest = self._imbalance(current, moving)
                change = correct(intervals[at], np.where(np.isfinite(rest), rest, 0.0))
                moved = moving + change
                last, step = step, np.abs(self.ports.determined(change)).max(axis=0, initial=0.0)
            highest = np.abs(self.ports.determined(moved)).max(axis=0, initial=0.0)
            is_sound = np.isfinite(rest).all(axis=0) & (highest < HIGHEST_PU)
            is_still = is_sound & _is_still(step, last, shrinks)
            moving = moved
            if not (is_still | ~is_sound).any():
                continue
            x[:, at[is_still]], converged[at[is_still]] = moved[:, is_still], True
            goes_on = is_sound & ~is_still
            if not goes_on.any():
                break
            at, moving, own = at[goes_on], moved[:, goes_on], own[:, goes_on]
            step, last = step[goes_on], last[goes_on]
        return x, converged

    def _newton(self, own: ComplexArray, at: IntArray, start: ComplexArray) -> ComplexArray | None:
        """Newton's method for one interval, ``at[0]``; None when it does not converge."""
        x, last = start[:, None], np.inf
        for _ in range(MAX_NEWTON_STEPS):
            across = self.ports.of_nodes(x)
            a, b = self.ports.slopes(own, across, at)
            rest = self._imbalance(self.ports.current(own, across, at), x)
            try:
                change = _solve_real(self.pattern.factorise(a[:, 0], b[:, 0]), rest, transposed=False)
            except np.linalg.LinAlgError:
                return None
            step, x = float(np.abs(self.ports.determined(change)).max()), x + change
            if not np.isfinite(x).all() or np.abs(self.ports.determined(x)).max() > HIGHEST_PU:
                return None
            if _is_still(step, last, NEWTON_SHRINKS):
                return x[:, 0]
            last = step
        return None


def _is_still(step: FloatArray | float, last: FloatArray | float, shrinks: float) -> npt.NDArray[np.bool_]:
    """True where steps are small enough, or as small as they get: each should be `shrinks` times the last or less."""
    return np.asarray((step <= TOLERANCE_PU) | ((step <= ROUNDING_PU) & (step > shrinks * last)))


class _Ports:
    """Voltages and currents of the ports between free nodes, which are the first of the u unknowns."""

    def __init__(self, network: Network, free: IntArray, unknowns: int, law_pu: ComplexArray | None):
        position = np.full(network.node_count, -1)
        position[free] = np.arange(len(free))
        self.pair = position[network.pair]
        self.nodes, self.count = len(free), len(free) + len(self.pair)
        column = len(free) + np.arange(len(self.pair))
        self._gives = sparse.csr_array(
            (
                np.r_[np.ones(len(free)), np.repeat([1.0, -1.0], len(self.pair))],
                (np.r_[np.arange(len(free)), self.pair.T.ravel()], np.r_[np.arange(len(free)), column, column]),
            ),
            shape=(unknowns, self.count),
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
        """(q, c) Port voltages of unknowns (u, c)."""
        v = x[: self.nodes]
        return np.concatenate([v, v[self.pair[:, 0]] - v[self.pair[:, 1]]]) if len(self.pair) else v

    def to_nodes(self, current: ComplexArray) -> ComplexArray:
        """(u, c) Node currents, and none beside, of port currents (q, c)."""
        return np.asarray(self._gives @ current)

    @cached_property
    def incidence(self) -> sparse.csr_array:
        """(q, u) Port voltages by unknowns."""
        return sparse.csr_array(self._gives.T)

    def determined(self, change: ComplexArray) -> ComplexArray:
        """Changes (u, c) of the voltages that have a value: phase to phase where the node floats."""
        v = change[: self.nodes]
        if not self._floats:
            return v
        return np.concatenate([v[self._determined], v[self.pair[:, 0]] - v[self.pair[:, 1]]])

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

    def has_laws_of(self, other: "_Ports", interval: IntArray) -> npt.NDArray[np.bool_]:
        """(t,) True where loads that follow their voltage are those of ``interval[t]`` of another such network."""
        if not self.has_laws:
            return np.ones(len(interval), bool)
        return np.asarray((self.law_pu == other.law_pu[:, interval]).all(axis=0))

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
    _kept: dict[int, Factors] = field(default_factory=dict, repr=False)

    def solve(self, interval: IntArray, right: ComplexArray) -> ComplexArray:
        """Solve ``J x = right`` for (u, c) columns, column j at ``interval[j]``."""
        return self._solve(interval, right, transposed=False)

    def solve_nearly(self, interval: int, right: ComplexArray) -> ComplexArray:
        """Solve ``J x = right`` for (u, c) columns of one interval, to about 1e-8: enough for second derivatives."""
        return _solve_real(self._factors(interval), right, transposed=False)

    def matrix(self, interval: int) -> sparse.csc_array:
        """(2u, 2u) `J` of an interval as a real matrix, over real before imaginary parts."""
        return self.flow.pattern.matrix(self.a[:, interval], self.b[:, interval])

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

    def _factors(self, interval: int) -> Factors:
        """Factors of the Jacobian of an interval, kept for the next call."""
        if interval not in self._kept:
            factors = self.flow.pattern.factorise(self.a[:, interval], self.b[:, interval])
            if len(self._kept) >= MOST_FACTORS:
                return factors
            self._kept[interval] = factors
        return self._kept[interval]

    def solve_adjoint(self, interval: IntArray, right: ComplexArray) -> ComplexArray:
        """Solve ``Y^T x - H^T (a H x) - conj(H^T (b H x)) = right`` for (u, c) columns, column j at ``interval[j]``."""
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
            rest = self._rest(interval[moving], right[:, moving], x[:, moving], transposed=transposed)
            change = reference.solve(rest, transposed=transposed)
            x[:, moving] += change
            step = np.abs(flow.ports.determined(change)).max(axis=0) / size[moving]
            still = (step <= LINEAR_TOLERANCE) | ((step <= LINEAR_ROUNDING) & (step > 0.9 * last[moving]))
            last[moving] = step
            moving = moving[~still]
        settled = np.ones(len(interval), bool)
        settled[moving] = False
        return x, settled

    def _rest(self, interval: IntArray, right: ComplexArray, x: ComplexArray, *, transposed: bool) -> ComplexArray:
        """``right - J x``, or with the adjoint of `J`."""
        ports = self.flow.ports
        a, b, across = self.a[:, interval], self.b[:, interval], ports.of_nodes(x)
        mirrored = np.conj(b * across) if transposed else b * np.conj(across)
        return self.flow.rest(right + ports.to_nodes(a * across + mirrored), x, transposed=transposed)

    def _direct(self, interval: int, right: ComplexArray, *, transposed: bool) -> ComplexArray:
        factors = self._factors(interval)
        x = _solve_real(factors, right, transposed=transposed)
        rest = self._rest(np.full(right.shape[1], interval), right, x, transposed=transposed)
        if np.abs(rest).max(initial=0.0) <= LINEAR_TOLERANCE * np.abs(right).max(initial=0.0):
            return x
        return x + _solve_real(factors, rest, transposed=transposed)


class _Reference:
    """The factorised operator at the reference slopes (q,)."""

    def __init__(self, pattern: "_RealPattern", a: ComplexArray, b: ComplexArray):
        self.a, self.b = a, b
        self._factors = pattern.factorise(a, b)

    def solve_each(self, interval: IntArray, right: ComplexArray) -> ComplexArray:
        """Solve with (u, c) right-hand sides, whatever their intervals."""
        return self.solve(right)

    def solve(self, right: ComplexArray, *, transposed: bool = False) -> ComplexArray:
        """Solve with (u, c) right-hand sides."""
        return _solve_real(self._factors, right, transposed=transposed)


class _RealPattern:
    """The operator `J` as a real sparse matrix over (Re x, Im x), its pattern made once.

    Attributes
    ----------
    row, column
        (e,) Places of the entries; the pattern is symmetric.
    mirrored
        (e,) Which entry is the mirror image of each.
    """

    def __init__(self, y: sparse.csc_array, ports: _Ports):
        count = y.shape[0]
        node = np.arange(ports.nodes)
        first, second = ports.pair.T
        row = np.r_[node, first, second, first, second]
        column = np.r_[node, first, second, second, first]
        sign = np.r_[np.ones(len(node) + 2 * len(first)), -np.ones(2 * len(first))]
        port = np.r_[node, np.tile(len(node) + np.arange(len(first)), 4)]
        entries = sparse.coo_array(y)
        pattern = sparse.csc_array(
            (
                np.r_[entries.data, np.zeros(entries.nnz + len(row))],
                (np.r_[entries.row, entries.col, row], np.r_[entries.col, entries.row, column]),
            ),
            shape=y.shape,
        )
        self._base = sparse.csc_array(
            sparse.block_array([[pattern.real, -pattern.imag], [pattern.imag, pattern.real]]), copy=True
        )
        self._base.sort_indices()
        for part in (self._base.indices, self._base.indptr):
            part.setflags(write=False)  # every matrix of the pattern shares them
        self._ordering = Ordering(self._base)
        self.row: IntArray = self._base.indices
        self.column: IntArray = np.repeat(np.arange(2 * count, dtype=self.row.dtype), np.diff(self._base.indptr))
        self.mirrored: IntArray = np.lexsort((self.column, self.row))
        marks = sparse.csc_array(self._base, copy=True)
        marks.data = np.arange(1, marks.nnz + 1, dtype=float)
        shape = (marks.nnz, ports.count)
        self._corners = []
        for down, right in ((0, 0), (0, count), (count, 0), (count, count)):
            place = np.asarray(marks[row + down, column + right]).ravel().astype(np.int64) - 1
            self._corners.append(sparse.csr_array((sign, (place, port)), shape=shape))

    def matrix(self, a: ComplexArray, b: ComplexArray) -> sparse.csc_array:
        """(2u, 2u) The operator with port slopes `a` and `b`, (q,)."""
        both, difference = a + b, a - b
        of_ports = self.entries(-both.real, difference.imag, -both.imag, -difference.real)
        return sparse.csc_array((self._base.data + of_ports, self._base.indices, self._base.indptr), self._base.shape)

    def entries(self, *corners: FloatArray) -> FloatArray:
        """(e,) ``H^T diag(corner) H`` of the port incidence `H`; the four (q,) `corners` row by row."""
        return np.asarray(sum(place @ corner for place, corner in zip(self._corners, corners, strict=True)))

    def factorise(self, a: ComplexArray, b: ComplexArray) -> Factors:
        """Factorise with port slopes `a` and `b`, (q,)."""
        return self._ordering.factorise(self.matrix(a, b))


def _ratio(power: ComplexArray, v: ComplexArray) -> ComplexArray:
    """``power / v``, and 0 without power: a neutral may have no voltage at all."""
    return np.divide(power, v, out=np.zeros_like(v), where=power != 0)


def _solve_real(factors: Factors, right: ComplexArray, *, transposed: bool) -> ComplexArray:
    if not transposed:
        return _unstack(factors.solve(_stack(right)))
    return np.conj(_unstack(factors.solve(np.concatenate([right.real, -right.imag]), transposed=True)))


def _stack(x: ComplexArray) -> FloatArray:
    return np.concatenate([x.real, x.imag])


def _unstack(x: FloatArray) -> ComplexArray:
    half = len(x) // 2
    return x[:half] + 1j * x[half:]
