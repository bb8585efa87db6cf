"""First and second derivatives of functions of the voltages by nodal injections, by adjoints.

For a scalar ``f(V)`` with ``df = Re(g^T dV)`` one adjoint solve ``Y^T lam + conj(d lam) = g`` gives
``df/dP_n = Re(lam_n / conj(V_n))`` and ``df/dQ_n = Im(lam_n / conj(V_n))`` at every node at once.
A tangent solve gives ``dV`` for one injection, and with both at hand the second derivative is

    f_cd = D2f[dV_c, dV_d] + Re(lam^T D2I[c, d]),      I = conj(S / V),

where the second term is diagonal in the nodes: no finite differences are needed.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dlmp.network.model import ComplexArray, FloatArray, IntArray
from dlmp.powerflow import Jacobian, PowerFlow


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Derivatives at solved power flows.

    Parameters
    ----------
    flow
        The factorised network.
    v_pu, injection_pu
        (t, n) Voltages and the injections that they solve [pu].
    """

    flow: PowerFlow
    v_pu: ComplexArray
    injection_pu: ComplexArray

    @cached_property
    def jacobian(self) -> Jacobian:
        """Linear solves at these voltages."""
        free = self.flow.free
        return Jacobian(self.flow, np.conj(self.injection_pu[:, free] / self.v_pu[:, free] ** 2).T)

    def adjoint(self, interval: IntArray, seed: ComplexArray) -> ComplexArray:
        """Adjoint vectors (l, c) of the (n, c) seeds ``g``, column j at ``interval[j]``."""
        return self.jacobian.solve_adjoint(interval, seed[self.flow.free])

    def gradient(self, interval: IntArray, adjoint: ComplexArray, nodes: IntArray) -> FloatArray:
        """Gradient (c, 2, nodes) by real and reactive injection at `nodes`; zero at sources."""
        full = np.zeros((self.v_pu.shape[1], len(interval)), dtype=complex)
        full[self.flow.free] = adjoint
        ratio = full[nodes].T / np.conj(self.v_pu[np.ix_(interval, nodes)])
        return np.stack([ratio.real, ratio.imag], axis=1)

    def tangent(self, interval: int, node: IntArray, reactive: npt.NDArray[np.bool_]) -> ComplexArray:
        """Voltage change (n, i) per pu of real or reactive injection at `node`, at one interval."""
        change = np.zeros((self.v_pu.shape[1], len(node)), dtype=complex)
        change[node, np.arange(len(node))] = np.where(reactive, -1j, 1.0) / np.conj(self.v_pu[interval, node])
        moved = np.zeros_like(change)
        moved[self.flow.free] = self.jacobian.solve(np.full(len(node), interval), change[self.flow.free])
        return moved

    def predicted_voltage(self, injection_pu: ComplexArray) -> ComplexArray:
        """Voltages (t, n) to first order at other injections (t, n) [pu]."""
        free = self.flow.free
        change = np.conj((injection_pu - self.injection_pu)[:, free] / self.v_pu[:, free]).T
        moved = np.array(self.v_pu)
        moved[:, free] += self.jacobian.solve(np.arange(len(moved)), change).T
        return moved

    def injection_curvature(
        self,
        interval: int,
        adjoint: ComplexArray,
        tangent: ComplexArray,
        node: IntArray,
        reactive: npt.NDArray[np.bool_],
    ) -> FloatArray:
        """``Re(lam^T D2I)`` of one interval's (l,) adjoint, (i, i)."""
        v = self.v_pu[interval]
        lam = np.zeros(len(v), dtype=complex)
        lam[self.flow.free] = adjoint
        quadratic = np.conj(lam) * 2 * self.injection_pu[interval] / v**3
        both = ((quadratic[:, None] * tangent).T @ tangent).real
        step = np.where(reactive, 1j, 1.0)
        mixed = -((np.conj(lam[node]) * step / v[node] ** 2)[:, None] * tangent[node]).real
        return np.asarray(both + mixed + mixed.T)


@dataclass(frozen=True, eq=False)
class ImportedPower:
    """Power that the sources feed into the network, ``P0 + j Q0 = sum V_s conj(I_s)``."""

    flow: PowerFlow

    def value(self, v_pu: ComplexArray) -> ComplexArray:
        """(t,) Complex power [pu]."""
        source = self.flow.network.source
        return np.asarray((v_pu[:, source] * np.conj((self.flow.y_source @ v_pu.T).T)).sum(axis=1))

    def seed(self) -> tuple[ComplexArray, ComplexArray]:
        """(n,) seeds of real and of reactive power; linear in the free voltages, so without curvature."""
        real = self.flow.y_source.T @ np.conj(self.flow.network.source_v_pu)
        return real, 1j * real


@dataclass(frozen=True, eq=False)
class Magnitudes:
    """Magnitudes of linear functions ``z = rows @ V``, or of powers ``V_at conj(z)``.

    Parameters
    ----------
    rows
        (k, n) Complex coefficients.
    at
        (k,) Node whose voltage multiplies the current ``z``; -1 for the magnitude of ``z`` itself.
    """

    rows: sparse.csr_array
    at: IntArray

    def value(self, v_pu: ComplexArray) -> FloatArray:
        """(t, k) Magnitudes [pu]."""
        size = np.abs((self.rows @ v_pu.T).T)
        return np.where(self.at >= 0, np.abs(v_pu[:, self.at]), 1.0) * size

    def seed(self, v_pu: ComplexArray, interval: IntArray, index: IntArray) -> ComplexArray:
        """(n, c) seeds of magnitude ``index[j]`` at ``interval[j]``."""
        rows, at, v = self.rows[index], self.at[index], v_pu[interval]
        z = np.asarray(rows.multiply(v).sum(axis=1)).ravel()
        is_power = at >= 0
        here = np.where(is_power, v[np.arange(len(at)), at], 1.0)
        value = np.where(is_power, here * np.conj(z), z)
        unit = value / np.abs(value)
        through = np.where(is_power, unit * np.conj(here), np.conj(unit))
        seed = np.asarray(rows.multiply(through[:, None]).todense()).T.astype(complex)
        power = np.flatnonzero(is_power)
        seed[at[power], power] += np.conj(unit[power] * z[power])
        return seed

    def curvature(self, v: ComplexArray, tangent: ComplexArray, index: IntArray, weight: FloatArray) -> FloatArray:
        """``sum weight D2|.|[dV_c, dV_d]`` over the magnitudes `index` at voltages (n,), (i, i)."""
        if not len(index):
            return np.zeros((tangent.shape[1], tangent.shape[1]))
        rows = self.rows[index]
        z, dz = rows @ v, rows @ tangent
        at = self.at[index]
        is_power = (at >= 0)[:, None]
        here = np.where(is_power, v[at][:, None], 1.0)
        d_here = np.where(is_power, tangent[at], 0.0)
        value = np.where(is_power, here * np.conj(z)[:, None], z[:, None])
        change = np.where(is_power, d_here * np.conj(z)[:, None] + here * np.conj(dz), dz)
        unit = value / np.abs(value)
        across = (np.conj(unit) * change).imag
        total = across.T @ (across * (weight[:, None] / np.abs(value)))
        bilinear = (np.where(is_power, np.conj(unit) * weight[:, None], 0.0) * d_here).T @ np.conj(dz)
        return np.asarray(total + (bilinear + bilinear.T).real)
