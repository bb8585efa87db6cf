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

SMALLEST = 1e-12
"""A magnitude below this has no direction [pu]."""


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Derivatives at solved power flows.

    Parameters
    ----------
    flow
        The factorised network.
    v_pu, injection_pu
        (t, n) Voltages and (t, p) injections that they solve [pu].
    """

    flow: PowerFlow
    v_pu: ComplexArray
    injection_pu: ComplexArray

    @cached_property
    def jacobian(self) -> Jacobian:
        """Linear solves at these voltages."""
        return Jacobian(self.flow, *self.flow.slopes(self.injection_pu, self.v_pu))

    @cached_property
    def port_v(self) -> ComplexArray:
        """(t, p) Voltage of every port [pu]; that of a dead neutral is taken for `SMALLEST`, to divide by."""
        v = self._across(self.v_pu.T).T
        return np.where(np.abs(v) < SMALLEST, SMALLEST, v)

    def _across(self, x: ComplexArray) -> ComplexArray:
        """(p, c) Port values of node values (n, c)."""
        return np.asarray(self.flow.network.incidence @ x) if len(self.flow.network.pair) else x

    def _full(self, x: ComplexArray) -> ComplexArray:
        """(n, c) Values at all nodes, zero at sources, of values at the free ones."""
        full = np.zeros((self.v_pu.shape[1], x.shape[1]), dtype=complex)
        full[self.flow.free] = x
        return full

    def adjoint(self, interval: IntArray, seed: ComplexArray) -> ComplexArray:
        """Adjoint vectors (f, c) of the (n, c) seeds ``g``, column j at ``interval[j]``."""
        return self.jacobian.solve_adjoint(interval, seed[self.flow.free])

    def gradient(self, interval: IntArray, adjoint: ComplexArray, ports: IntArray) -> FloatArray:
        """Gradient (c, 2, ports) by real and reactive injection at `ports`; zero at sources."""
        ratio = self._across(self._full(adjoint))[ports].T / np.conj(self.port_v[np.ix_(interval, ports)])
        return np.stack([ratio.real, ratio.imag], axis=1)

    def tangent(self, interval: int, share: sparse.csr_array, reactive: npt.NDArray[np.bool_]) -> ComplexArray:
        """Voltage change (n, i) per pu of real or reactive injection, of which each port gets its `share` (i, p)."""
        ports = self.flow.port
        current = np.asarray(
            (share[:, ports] @ sparse.diags_array(1 / np.conj(self.port_v[interval, ports]))).todense()
        )
        change = self.flow.ports.to_nodes(current.T * np.where(reactive, -1j, 1.0))
        return self._full(self.jacobian.solve_nearly(interval, change))

    def predicted_voltage(self, injection_pu: ComplexArray) -> ComplexArray:
        """Voltages (t, n) to first order at other injections (t, p) [pu]."""
        ports = self.flow.port
        current = np.conj((injection_pu - self.injection_pu)[:, ports] / self.port_v[:, ports]).T
        moved = np.array(self.v_pu)
        change = self.jacobian.solve(np.arange(len(moved)), self.flow.ports.to_nodes(current))
        moved[:, self.flow.free] += change.T
        return moved

    def injection_curvature(
        self,
        interval: int,
        adjoint: ComplexArray,
        tangent: ComplexArray,
        share: sparse.csr_array,
        reactive: npt.NDArray[np.bool_],
    ) -> FloatArray:
        """``Re((H lam)^T D2I)`` of one interval's (f,) adjoint, (i, i)."""
        ports = self.flow.port
        v, power = self.port_v[interval, ports], self.injection_pu[interval, ports]
        lam, moved = self.flow.ports.of_nodes(adjoint[:, None])[:, 0], self._across(tangent)[ports]
        step = np.where(reactive, 1j, 1.0)
        mixed = -(share[:, ports] @ ((np.conj(lam) / v**2)[:, None] * moved)) * step[:, None]
        total = mixed + mixed.T + _form(np.conj(lam) * 2 * power / v**3, moved, moved)
        if self.flow.ports.has_laws:
            straight, across, mirrored = self.flow.ports.law_curvature(v, interval)
            twice = _form(lam * across, moved, np.conj(moved))
            total = total + _form(lam * straight + np.conj(lam * mirrored), moved, moved) + twice + twice.T
        return np.asarray(total.real)


def _form(weight: ComplexArray, left: ComplexArray, right: ComplexArray) -> ComplexArray:
    """``left^T diag(weight) right`` over the rows that have a weight."""
    rows = np.flatnonzero(weight)
    return np.asarray((weight[rows, None] * left[rows]).T @ right[rows])


@dataclass(frozen=True, eq=False)
class ImportedPower:
    """Power that the sources feed into the network, ``P0 + j Q0 = sum V_s conj(I_s)``."""

    flow: PowerFlow

    def value(self, v_pu: ComplexArray) -> ComplexArray:
        """(t,) Complex power [pu]; as exact as the voltages (t, n)."""
        source = self.flow.network.source
        return np.asarray((v_pu[:, source] * np.conj((self.flow.y_source @ v_pu.T).T)).sum(axis=1), dtype=complex)

    def seed(self) -> tuple[ComplexArray, ComplexArray]:
        """(n,) seeds of real and of reactive power; linear in the free voltages, so without curvature."""
        real = np.asarray(self.flow.y_source.T @ np.conj(self.flow.network.source_v_pu), dtype=complex)
        return real, 1j * real


@dataclass(frozen=True, eq=False)
class Magnitudes:
    """Magnitudes of linear functions ``z = rows @ V``, of powers ``V_at conj(z)``, or ratios ``|z| / |over @ V|``.

    Parameters
    ----------
    rows
        (k, n) Complex coefficients.
    at
        (k,) Node whose voltage multiplies the current ``z``; -1 for the magnitude of ``z`` itself.
    over
        (k, n) Coefficients of the denominator; a row without entries for a denominator of 1.
    """

    rows: sparse.csr_array
    at: IntArray
    over: sparse.csr_array

    @cached_property
    def _is_ratio(self) -> npt.NDArray[np.bool_]:
        return np.diff(self.over.indptr) > 0

    def value(self, v_pu: ComplexArray) -> FloatArray:
        """(t, k) Magnitudes [pu]."""
        size = np.abs((self.rows @ v_pu.T).T)
        size[:, self.at >= 0] *= np.abs(v_pu[:, self.at[self.at >= 0]])
        size[:, self._is_ratio] /= np.abs((self.over[self._is_ratio] @ v_pu.T).T)
        return size

    def seed(self, v_pu: ComplexArray, interval: IntArray, index: IntArray) -> ComplexArray:
        """(n, c) seeds of magnitude ``index[j]`` at ``interval[j]``."""
        rows, at, v = self.rows[index], self.at[index], v_pu[interval]
        z = np.asarray(rows.multiply(v).sum(axis=1)).ravel()
        is_power = at >= 0
        here = np.where(is_power, v[np.arange(len(at)), at], 1.0)
        value = np.where(is_power, here * np.conj(z), z)
        unit = value / np.maximum(np.abs(value), SMALLEST)
        through = np.where(is_power, unit * np.conj(here), np.conj(unit))
        seed = np.asarray(rows.multiply(through[:, None]).todense()).T.astype(complex)
        power = np.flatnonzero(is_power)
        seed[at[power], power] += np.conj(unit[power] * z[power])
        ratio = np.flatnonzero(self._is_ratio[index])
        if len(ratio):
            over = self.over[index[ratio]]
            below = np.asarray(over.multiply(v[ratio]).sum(axis=1)).ravel()
            share = np.abs(value[ratio]) / np.abs(below) ** 2
            lower = over.multiply((share * np.conj(below) / np.abs(below))[:, None])
            seed[:, ratio] = seed[:, ratio] / np.abs(below) - np.asarray(lower.todense()).T
        return seed

    def curvature(self, v: ComplexArray, tangent: ComplexArray, index: IntArray, weight: FloatArray) -> FloatArray:
        """``sum weight D2|.|[dV_c, dV_d]`` over the magnitudes `index` at voltages (n,), (i, i)."""
        total = np.zeros((tangent.shape[1], tangent.shape[1]))
        if not len(index):
            return total
        z, dz = self.rows[index] @ v, self.rows[index] @ tangent
        at = self.at[index]
        is_power = (at >= 0)[:, None]
        here = np.where(is_power, v[at][:, None], 1.0)
        d_here = np.where(is_power, tangent[at], 0.0)
        value = np.where(is_power, here * np.conj(z)[:, None], z[:, None])
        change = np.where(is_power, d_here * np.conj(z)[:, None] + here * np.conj(dz), dz)
        size = np.maximum(np.abs(value), SMALLEST)
        unit, across = value / size, (np.conj(value / size) * change).imag
        ratio = np.flatnonzero(self._is_ratio[index])
        scale = weight.copy()
        if len(ratio):
            over = self.over[index[ratio]]
            below, d_below = over @ v, over @ tangent
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
