"""First and second derivatives of functions of the voltages by injections at the ports, by adjoints.

For a scalar ``f(V)`` with ``df = Re(g^T dV)`` one solve with the adjoint of the power flow's Jacobian gives
``lam``, and with ``H`` the ports' incidence ``df/dP_k = Re((H lam)_k / conj((H V)_k))`` and
``df/dQ_k = Im((H lam)_k / conj((H V)_k))`` at every port at once.  A tangent solve gives ``dV`` for one
injection, and with both at hand the second derivative is

    f_cd = D2f[dV_c, dV_d] + Re((H lam)^T D2I[c, d]),      I = conj(S / v) - loads that follow v,

where the second term is diagonal in the ports: no finite differences are needed.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dlmp.network.model import ComplexArray, FloatArray, IntArray
from dlmp.powerflow import Jacobian, PowerFlow

MOST_TANGENTS = 1024
"""Tangents of the state that are kept from one request to the next."""
SMALLEST = 1e-12
"""A magnitude below this has no direction [pu]."""


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Derivatives at solved power flows.

    Parameters
    ----------
    flow
        The factorised network.
    state_pu, injection_pu
        (t, n + s) States, of voltages and currents of stiff conductors, and (t, p) injections that they solve [pu].
    """

    flow: PowerFlow
    state_pu: ComplexArray
    injection_pu: ComplexArray

    @cached_property
    def jacobian(self) -> Jacobian:
        """Linear solves at these voltages."""
        return Jacobian(self.flow, *self.flow.slopes(self.injection_pu, self.state_pu))

    @cached_property
    def port_v(self) -> ComplexArray:
        """(t, p) Voltage of every port [pu]; that of a dead neutral is taken for `SMALLEST`, to divide by."""
        v = self._across(self.state_pu.T).T
        return np.where(np.abs(v) < SMALLEST, SMALLEST, v)

    def _across(self, x: ComplexArray) -> ComplexArray:
        """(p, c) Port voltages of states (n + s, c)."""
        network = self.flow.network
        v = x[: network.node_count]
        return np.asarray(network.incidence @ v) if len(network.pair) else v

    def _full(self, x: ComplexArray) -> ComplexArray:
        """(n + s, c) Whole states, zero at sources, of the unknowns (u, c)."""
        full = np.zeros((self.flow.size, x.shape[1]), dtype=complex)
        full[self.flow.unknown] = x
        return full

    def adjoint(self, interval: IntArray, seed: ComplexArray) -> ComplexArray:
        """Adjoint vectors (u, c) of the (n + s, c) seeds ``g``, column j at ``interval[j]``."""
        return self.jacobian.solve_adjoint(interval, seed[self.flow.unknown])

    def gradient(self, interval: IntArray, adjoint: ComplexArray, ports: IntArray) -> FloatArray:
        """Gradient (c, 2, ports) by real and reactive injection at `ports`; zero at sources."""
        ratio = self._across(self._full(adjoint))[ports].T / np.conj(self.port_v[np.ix_(interval, ports)])
        return np.stack([ratio.real, ratio.imag], axis=1)

    def tangent(self, interval: int, share: sparse.csr_array, reactive: npt.NDArray[np.bool_]) -> ComplexArray:
        """Change (n + s, i) of the state per pu of real or reactive injection; each port gets its `share` (i, p)."""
        change = self._current(self.port_v[interval], share, reactive)
        return self._full(self.jacobian.solve_nearly(interval, change))

    def common_tangent(self, share: sparse.csr_array, reactive: npt.NDArray[np.bool_]) -> ComplexArray:
        """Voltage change likewise, nearly that of every interval: with the reference Jacobian at the mean voltages.

        Those of the first states that asked: they are kept.
        """
        rows = [slice(*share.indptr[row : row + 2]) for row in range(share.shape[0])]
        keys = [
            (share.indices[own].tobytes(), share.data[own].tobytes(), bool(part))
            for own, part in zip(rows, reactive, strict=True)
        ]
        known = self.flow.known_tangents
        new = [index for index, key in enumerate(keys) if key not in known]
        if len(known) + len(new) > MOST_TANGENTS:
            known.clear()
            new = list(range(len(keys)))
        if new:
            change = self._current(self.port_v.mean(axis=0), share[new], reactive[new])
            made = self._full(self.flow.reference.solve(change)).T
            known.update(zip([keys[index] for index in new], made, strict=True))
        return np.stack([known[key] for key in keys], axis=1) if keys else np.zeros((self.flow.size, 0), complex)

    def _current(self, v: ComplexArray, share: sparse.csr_array, reactive: npt.NDArray[np.bool_]) -> ComplexArray:
        """(u, i) Current into the free nodes per pu of injection at port voltages (p,)."""
        ports = self.flow.port
        current = np.asarray((share[:, ports] @ sparse.diags_array(1 / np.conj(v[ports]))).todense())
        return self.flow.ports.to_nodes(current.T * np.where(reactive, -1j, 1.0))

    def predicted_state(self, injection_pu: ComplexArray) -> ComplexArray:
        """States (t, n + s) to first order at other injections (t, p) [pu]."""
        ports = self.flow.port
        current = np.conj((injection_pu - self.injection_pu)[:, ports] / self.port_v[:, ports]).T
        moved = np.array(self.state_pu)
        change = self.jacobian.solve(np.arange(len(moved)), self.flow.ports.to_nodes(current))
        moved[:, self.flow.unknown] += change.T
        return moved

    def injection_curvature(
        self,
        interval: int,
        adjoint: ComplexArray,
        tangent: ComplexArray,
        share: sparse.csr_array,
        reactive: npt.NDArray[np.bool_],
    ) -> FloatArray:
        """``Re((H lam)^T D2I)`` of one interval's (u,) adjoint, (i, i)."""
        flow = self.flow
        straight, across = self._port_curvature(interval, adjoint)
        bent = np.flatnonzero((straight != 0) | (across != 0))
        incidence, change = flow.network.incidence, tangent[: flow.network.node_count]
        at = np.unique(share.indices)
        own = np.conj(self._across(self._full(adjoint[:, None]))[at, 0]) / self.port_v[interval, at] ** 2
        mixed = -(share[:, at] @ (own[:, None] * (incidence[at] @ change)))
        mixed = (mixed * np.where(reactive, 1j, 1.0)[:, None]).real
        return np.asarray(mixed + mixed.T + _form(straight[bent], across[bent], incidence[flow.port[bent]] @ change))

    def _port_curvature(self, interval: int, adjoint: ComplexArray) -> tuple[ComplexArray, ComplexArray]:
        """Second derivatives of ``Re((H lam)^T I)`` by ``v v`` (twice) and ``v conj(v)`` of the ports, (q,) each."""
        flow = self.flow
        v, power = self.port_v[interval, flow.port], self.injection_pu[interval, flow.port]
        lam = flow.ports.of_nodes(adjoint[:, None])[:, 0]
        straight, across = np.conj(lam) * 2 * power / v**3, np.zeros_like(v)
        if flow.ports.has_laws:
            by_v, by_both, by_conj = flow.ports.law_curvature(v, interval)
            straight, across = straight + lam * by_v + np.conj(lam * by_conj), lam * by_both
        return straight, across

    def equations(self, interval: int, ports: IntArray) -> tuple[sparse.coo_array, sparse.coo_array]:
        """``J dx = B ds`` of one interval: `J` (2u, 2u), and `B` (2u, 2 * ports) by real, then reactive injection."""
        into, pattern = self._into(interval, ports), self.flow.pattern
        matrix = self.jacobian.matrix(interval)
        jacobian = sparse.coo_array((matrix.data, (pattern.row, pattern.column)), shape=matrix.shape)
        return jacobian, _corners(into, into.data.real, into.data.imag, into.data.imag, -into.data.real)

    def _into(self, interval: int, ports: IntArray) -> sparse.coo_array:
        """(u, ports) Current into the free nodes per pu of real injection at each of `ports`; none at sources."""
        flow = self.flow
        place = np.full(flow.network.port_count, -1)
        place[flow.port] = np.arange(len(flow.port))
        own = np.flatnonzero(place[ports] >= 0)
        of_nodes = sparse.coo_array(flow.ports.incidence[place[ports[own]]])
        entries = of_nodes.data / np.conj(self.port_v[interval, ports[own]])[of_nodes.row]
        return sparse.coo_array((entries, (of_nodes.col, own[of_nodes.row])), shape=(of_nodes.shape[1], len(ports)))

    def curvature(self, interval: int, adjoint: ComplexArray, ports: IntArray) -> tuple[FloatArray, sparse.coo_array]:
        """Second derivatives of ``Re((H lam)^T I)`` of one interval's (u,) adjoint.

        By the unknowns, the (e,) entries of the Jacobian's pattern; by unknowns and injections at `ports`, real before
        reactive, (2u, 2 * ports).
        """
        straight, across = self._port_curvature(interval, adjoint)
        turned, both = -straight.imag, 2 * across.real
        by_unknowns = self.flow.pattern.entries(both + straight.real, turned, turned, both - straight.real)
        into = self._into(interval, ports)
        lam = self._across(self._full(adjoint[:, None]))[ports, 0]
        mixed = (-np.conj(lam) / self.port_v[interval, ports])[into.col] * np.conj(into.data)
        return by_unknowns, _corners(into, mixed.real, -mixed.imag, -mixed.imag, -mixed.real)


def _corners(pattern: sparse.coo_array, *values: FloatArray) -> sparse.coo_array:
    """Four matrices of a `pattern` (u, i) in one (2u, 2i), their `values` row by row."""
    rows, columns = pattern.shape
    row, column = pattern.row, pattern.col
    places = np.r_[row, row, row + rows, row + rows], np.r_[column, column + columns, column, column + columns]
    return sparse.coo_array((np.concatenate(values), places), shape=(2 * rows, 2 * columns))


def _form(straight: ComplexArray, across: ComplexArray, moved: ComplexArray) -> FloatArray:
    """Real part of ``M^T diag(straight) M + M^T diag(across) conj(M)`` and its mirror image, of `moved` (k, i)."""
    both = np.concatenate([moved.real, moved.imag])
    turned = -straight.imag[:, None]
    weighted = np.concatenate(
        [
            (2 * across.real + straight.real)[:, None] * moved.real + turned * moved.imag,
            (2 * across.real - straight.real)[:, None] * moved.imag + turned * moved.real,
        ]
    )
    return np.asarray(both.T @ weighted)


@dataclass(frozen=True, eq=False)
class ImportedPower:
    """Power that the sources feed into the network, ``P0 + j Q0 = sum V_s conj(I_s)``."""

    flow: PowerFlow

    @cached_property
    def _current(self) -> sparse.csr_array:
        """(k, n + s) Current that each source feeds in."""
        return self.flow.equations.balance[self.flow.network.source]

    def value(self, state_pu: ComplexArray) -> ComplexArray:
        """(t,) Complex power [pu] at states (t, n + s)."""
        fed = state_pu[:, self.flow.network.source] * np.conj((self._current @ state_pu.T).T)
        return np.asarray(fed.sum(axis=1))

    def seed(self) -> tuple[ComplexArray, ComplexArray]:
        """(n + s,) seeds of real and of reactive power; linear in the unknowns, so without curvature."""
        real = np.asarray(self._current.T @ np.conj(self.flow.network.source_v_pu))
        return real, 1j * real

    @cached_property
    def by_unknown(self) -> sparse.csr_array:
        """(2, 2u) Real and reactive power by the real unknowns of a state."""
        return by_unknown(self.flow, sparse.csr_array(np.stack(self.seed())))


@dataclass(frozen=True, eq=False)
class Magnitudes:
    """Magnitudes of currents ``z = rows @ x``, of powers ``V_at conj(z)``, or ratios ``|z| / |over @ x|``.

    Parameters
    ----------
    rows
        (k, n + s) Complex coefficients.
    at
        (k,) Node whose voltage multiplies the current ``z``; -1 for the magnitude of ``z`` itself.
    over
        (k, n + s) Coefficients of the denominator; a row without entries for a denominator of 1.
    """

    rows: sparse.csr_array
    at: IntArray
    over: sparse.csr_array

    @cached_property
    def _is_ratio(self) -> npt.NDArray[np.bool_]:
        return np.diff(self.over.indptr) > 0

    def value(self, state_pu: ComplexArray) -> FloatArray:
        """(t, k) Magnitudes [pu]."""
        size = np.abs((self.rows @ state_pu.T).T)
        size[:, self.at >= 0] *= np.abs(state_pu[:, self.at[self.at >= 0]])
        size[:, self._is_ratio] /= np.abs((self.over[self._is_ratio] @ state_pu.T).T)
        return size

    def seed(self, state_pu: ComplexArray, interval: IntArray, index: IntArray) -> sparse.csr_array:
        """(c, n + s) seeds of magnitude ``index[j]`` at ``interval[j]``."""
        rows, at, over = self.rows[index], self.at[index], self.over[index]
        z, is_power = _along(rows, state_pu, interval), at >= 0
        here = np.where(is_power, state_pu[interval, at], 1.0)
        value = np.where(is_power, here * np.conj(z), z)
        unit = value / np.maximum(np.abs(value), SMALLEST)
        through = np.where(is_power, unit * np.conj(here), np.conj(unit))
        below = np.where(self._is_ratio[index], _along(over, state_pu, interval), 1.0)
        power, length = np.flatnonzero(is_power), np.abs(below)
        seed = sparse.diags_array(through / length) @ rows
        of_voltage = (np.conj(unit[power] * z[power]) / length[power], (power, at[power]))
        seed = seed + sparse.csr_array(of_voltage, shape=seed.shape)
        lower = np.abs(value) / length**2 * np.conj(below) / length
        return sparse.csr_array(seed - sparse.diags_array(lower) @ over)

    def curvature(self, x: ComplexArray, tangent: ComplexArray, index: IntArray, weight: FloatArray) -> FloatArray:
        """``sum weight D2|.|[dV_c, dV_d]`` over the magnitudes `index` at a state (n + s,), (i, i)."""
        if not len(index):
            return np.zeros((tangent.shape[1], tangent.shape[1]))
        factors, curved = self._factors(x, index, weight)
        moved = factors @ tangent
        both = np.concatenate([moved.real, moved.imag])
        return np.asarray(both.T @ (curved @ both))

    def curvature_by_unknown(
        self, flow: PowerFlow, x: ComplexArray, index: IntArray, weight: FloatArray
    ) -> sparse.coo_array:
        """The same by the real before the imaginary parts of the unknowns, (2u, 2u)."""
        if not len(index):
            return sparse.coo_array((2 * len(flow.unknown), 2 * len(flow.unknown)))
        factors, curved = self._factors(x, index, weight)
        own = sparse.coo_array(factors[:, flow.unknown])
        moved = sparse.csr_array(_corners(own, own.data.real, -own.data.imag, own.data.imag, own.data.real))
        return sparse.coo_array(moved.T @ curved @ moved)

    def _factors(
        self, x: ComplexArray, index: IntArray, weight: FloatArray
    ) -> tuple[sparse.csr_array, sparse.csr_array]:
        """Complex factors of which the magnitudes `index` are products or quotients, (v, n + s) by the state.

        And the second derivatives of their weighted sum by the real before the imaginary parts of those, (2v, 2v).
        With f a magnitude and w a factor of power e its logarithm has the gradient ``e w / |w|^2`` and the second
        derivatives ``e (1 - 2 w w^T / |w|^2) / |w|^2``, and ``D2f = f (D2 log f + D log f D log f^T)``.
        """
        power, ratio = np.flatnonzero(self.at[index] >= 0), np.flatnonzero(self._is_ratio[index])
        voltage = (np.ones(len(power)), (np.arange(len(power)), self.at[index[power]]))
        here = sparse.csr_array(voltage, shape=(len(power), len(x)))
        factors = sparse.csr_array(sparse.vstack([self.rows[index], here, self.over[index[ratio]]]))
        owner = np.concatenate([np.arange(len(index)), power, ratio])
        exponent = np.where(np.arange(len(owner)) < len(index) + len(power), 1.0, -1.0)
        value = factors @ x
        size = np.maximum(np.abs(value), SMALLEST)
        magnitude = np.array(weight)
        np.multiply.at(magnitude, owner, np.where(np.abs(value) > SMALLEST, size**exponent, 0.0))
        unit, column = value / size, np.arange(len(owner))
        slope = exponent * unit / size
        slopes = sparse.csr_array(
            (np.r_[slope.real, slope.imag], (np.r_[owner, owner], np.r_[column, column + len(owner)])),
            shape=(len(index), 2 * len(owner)),
        )
        bend, crossed = magnitude[owner] * exponent / size**2, -2 * unit.real * unit.imag
        diagonal = sparse.coo_array((np.ones(len(owner)), (column, column)), shape=(len(owner), len(owner)))
        of_factors = [bend * (1 - 2 * unit.real**2), bend * crossed, bend * crossed, bend * (1 - 2 * unit.imag**2)]
        return factors, sparse.csr_array(
            slopes.T @ sparse.diags_array(magnitude) @ slopes + _corners(diagonal, *of_factors)
        )


def by_unknown(flow: PowerFlow, seed: sparse.csr_array) -> sparse.csr_array:
    """``Re(g^T dV)`` of seeds (c, n + s) over the real before the imaginary parts of the unknowns, (c, 2u)."""
    own = seed[:, flow.unknown]
    return sparse.csr_array(sparse.hstack([own.real, -own.imag]))


def _along(rows: sparse.csr_array, state_pu: ComplexArray, interval: IntArray) -> ComplexArray:
    """(c,) Row j of `rows` (c, n + s) times the state of ``interval[j]``."""
    row = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    entries = rows.data * state_pu[interval[row], rows.indices]
    return np.asarray(sparse.csr_array((entries, rows.indices, rows.indptr), shape=rows.shape).sum(axis=1)).ravel()
