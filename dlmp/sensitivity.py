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

    def equations(self, interval: int, ports: IntArray) -> tuple[sparse.csr_array, sparse.csr_array]:
        """``J dx = B ds`` of one interval: `J` (2u, 2u), and `B` (2u, 2 * ports) by real, then reactive injection."""
        into = self._into(interval, ports)
        by_real = sparse.vstack([into.real, into.imag])
        by_reactive = sparse.vstack([into.imag, -into.real])
        return (
            sparse.csr_array(self.jacobian.matrix(interval)),
            sparse.csr_array(sparse.hstack([by_real, by_reactive])),
        )

    def _into(self, interval: int, ports: IntArray) -> sparse.csc_array:
        """(u, ports) Current into the free nodes per pu of real injection at each of `ports`; none at sources."""
        flow = self.flow
        place = np.full(flow.network.port_count, -1)
        place[flow.port] = np.arange(len(flow.port))
        own = np.flatnonzero(place[ports] >= 0)
        entries = 1 / np.conj(self.port_v[interval, ports[own]])
        current = sparse.csr_array((entries, (place[ports[own]], own)), shape=(len(flow.port), len(ports)))
        return sparse.csc_array(flow.ports.incidence.T @ current)

    def curvature(
        self, interval: int, adjoint: ComplexArray, ports: IntArray
    ) -> tuple[sparse.csr_array, sparse.csr_array]:
        """Second derivatives of ``Re((H lam)^T I)`` of one interval's (u,) adjoint.

        By the unknowns (2u, 2u), and by injections at `ports`, real before reactive, and unknowns (2 * ports, 2u).
        """
        straight, across = self._port_curvature(interval, adjoint)
        incidence = self.flow.ports.incidence
        twice = sparse.csr_array(sparse.block_diag([incidence, incidence]))
        real, imaginary = straight.real, straight.imag
        own = sparse.block_array(
            [
                [sparse.diags_array(2 * across.real + real), sparse.diags_array(-imaginary)],
                [sparse.diags_array(-imaginary), sparse.diags_array(2 * across.real - real)],
            ]
        )
        lam = self._across(self._full(adjoint[:, None]))[ports, 0]
        turned = sparse.diags_array(-np.conj(lam) / self.port_v[interval, ports])
        mixed = turned @ self._into(interval, ports).T.conj()
        by_injection = sparse.block_array([[mixed.real, -mixed.imag], [-mixed.imag, -mixed.real]])
        return sparse.csr_array(twice.T @ own @ twice), sparse.csr_array(by_injection)


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
        total = np.zeros((tangent.shape[1], tangent.shape[1]))
        if not len(index):
            return total
        z, dz = self.rows[index] @ x, self.rows[index] @ tangent
        at = self.at[index]
        is_power = (at >= 0)[:, None]
        here = np.where(is_power, x[at][:, None], 1.0)
        d_here = np.where(is_power, tangent[at], 0.0)
        value = np.where(is_power, here * np.conj(z)[:, None], z[:, None])
        change = np.where(is_power, d_here * np.conj(z)[:, None] + here * np.conj(dz), dz)
        size = np.maximum(np.abs(value), SMALLEST)
        unit, across = value / size, (np.conj(value / size) * change).imag
        ratio = np.flatnonzero(self._is_ratio[index])
        scale = weight.copy()
        if len(ratio):
            over = self.over[index[ratio]]
            below, d_below = over @ x, over @ tangent
            length = np.abs(below)
            turned = np.conj(below / length)[:, None] * d_below
            share = size[ratio, 0] / length
            scale[ratio] /= length
            own = weight[ratio] / length
            along = (np.conj(unit[ratio]) * change[ratio]).real
            crossed = (along * (own / length)[:, None]).T @ turned.real
            total -= crossed + crossed.T
            total += (turned.real * (2 * own * share / length)[:, None]).T @ turned.real
            total -= (turned.imag * (own * share / length)[:, None]).T @ turned.imag
        total += across.T @ (across * (scale[:, None] / size))
        bilinear = (np.where(is_power, np.conj(unit) * scale[:, None], 0.0) * d_here).T @ np.conj(dz)
        return np.asarray(total + (bilinear + bilinear.T).real)

    def curvature_at(self, x: ComplexArray, index: int, weight: float) -> tuple[IntArray, FloatArray]:
        """Second derivatives of one weighted magnitude at a state (n + s,) by the k entries of it that it depends on.

        Which, and (2k, 2k) by their real before their imaginary parts.
        """
        own = slice(index, index + 1)
        at = self.at[own]
        place = np.unique(np.concatenate([self.rows[own].indices, self.over[own].indices, at[at >= 0]]))
        part = Magnitudes(
            self.rows[own][:, place], np.where(at >= 0, np.searchsorted(place, at), -1), self.over[own][:, place]
        )
        every = np.eye(len(place))
        tangent = np.hstack([every, 1j * every])
        return place, part.curvature(x[place], tangent, np.array([0]), np.array([weight]))


def by_unknown(flow: PowerFlow, seed: sparse.csr_array) -> sparse.csr_array:
    """``Re(g^T dV)`` of seeds (c, n + s) over the real before the imaginary parts of the unknowns, (c, 2u)."""
    own = seed[:, flow.unknown]
    return sparse.csr_array(sparse.hstack([own.real, -own.imag]))


def _along(rows: sparse.csr_array, state_pu: ComplexArray, interval: IntArray) -> ComplexArray:
    """(c,) Row j of `rows` (c, n + s) times the state of ``interval[j]``."""
    row = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    entries = rows.data * state_pu[interval[row], rows.indices]
    return np.asarray(sparse.csr_array((entries, rows.indices, rows.indptr), shape=rows.shape).sum(axis=1)).ravel()
