"""The default formulation: tangents of the AC power flow at the dispatch of each pass.

Any topology.  Limits: the magnitude of every voltage that is not held by a source, and current or
apparent power at both ends of every rated branch.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dlmp.formulation.interface import CONGESTION, VOLTAGE, Limits, Weights
from dlmp.network.model import ComplexArray, FloatArray, IntArray, Network
from dlmp.powerflow import PowerFlow
from dlmp.sensitivity import ImportedPower, Magnitudes, Sensitivity
from dlmp.units import BASE_KVA, base_current_a

SEED_COLUMNS = 512
"""Adjoints solved at a time: bounds the memory of dense right-hand sides."""


@dataclass(frozen=True, eq=False)
class AcPoint:
    """A solved AC power flow of every interval; see `dlmp.formulation.interface.OperatingPoint`."""

    formulation: "AcTangent"
    sensitivity: Sensitivity
    converged: npt.NDArray[np.bool_]

    @property
    def injection_pu(self) -> ComplexArray:
        """(t, n) Complex injections [pu]."""
        return self.sensitivity.injection_pu

    @property
    def v_pu(self) -> ComplexArray:
        """(t, n) Complex voltages [pu]."""
        return self.sensitivity.v_pu

    @cached_property
    def import_pu(self) -> ComplexArray:
        """(t,) Power fed in by the sources less what is injected there [pu]."""
        source = self.formulation.network.source
        return self.formulation.imported.value(self.v_pu) - self.injection_pu[:, source].sum(axis=1)

    @cached_property
    def limit_value(self) -> FloatArray:
        """(t, k) Limited quantities [pu]."""
        return self.formulation.magnitudes.value(self.v_pu)

    def voltage(self) -> FloatArray:
        """(t, n) Voltage magnitudes [pu]."""
        return np.abs(self.v_pu)

    def branch_power(self) -> tuple[ComplexArray, ComplexArray]:
        """(t, m) Complex power [pu] into each branch at its from and at its to end."""
        v, network = self.v_pu, self.formulation.network
        at_from = v[:, network.from_node] * np.conj((network.from_admittance @ v.T).T)
        at_to = v[:, network.to_node] * np.conj((network.to_admittance @ v.T).T)
        return at_from, at_to

    @cached_property
    def _import_adjoints(self) -> tuple[ComplexArray, ComplexArray]:
        """(l, t) each."""
        intervals = np.arange(len(self.v_pu))
        real, reactive = self.formulation.imported.seed()
        return tuple(  # type: ignore[return-value]
            self.sensitivity.adjoint(intervals, np.repeat(seed[:, None], len(intervals), axis=1))
            for seed in (real, reactive)
        )

    def import_gradients(self, nodes: IntArray) -> tuple[FloatArray, FloatArray]:
        """Gradient of real and of reactive import, (t, 2, nodes) each."""
        intervals = np.arange(len(self.v_pu))
        real, reactive = (self.sensitivity.gradient(intervals, lam, nodes) for lam in self._import_adjoints)
        held = np.flatnonzero(self.formulation.network.is_source[nodes])
        real[:, 0, held] = reactive[:, 1, held] = -1.0
        return real, reactive

    def predicted_limits(self, injection_pu: ComplexArray) -> FloatArray:
        """(t, k) Limited quantities at voltages that follow the injections (t, n) linearly [pu]."""
        return self.formulation.magnitudes.value(self.sensitivity.predicted_voltage(injection_pu))

    def predicted_limit_gradients(
        self, injection_pu: ComplexArray, interval: IntArray, limit: IntArray, nodes: IntArray
    ) -> FloatArray:
        """Gradient of `predicted_limits` at those injections, (i, 2, nodes)."""
        return self._limit_gradients(self.sensitivity.predicted_voltage(injection_pu), interval, limit, nodes)

    def limit_gradients(self, interval: IntArray, limit: IntArray, nodes: IntArray) -> FloatArray:
        """Gradient of ``limit[i]`` at ``interval[i]``, (i, 2, nodes)."""
        return self._limit_gradients(self.v_pu, interval, limit, nodes)

    def _limit_gradients(self, v_pu: ComplexArray, interval: IntArray, limit: IntArray, nodes: IntArray) -> FloatArray:
        """Gradients of magnitudes at `v_pu` (t, n), when voltages move as they do at this point."""
        blocks = []
        for start in range(0, len(limit), SEED_COLUMNS):
            part = slice(start, start + SEED_COLUMNS)
            seed = self.formulation.magnitudes.seed(v_pu, interval[part], limit[part])
            adjoint = self.sensitivity.adjoint(interval[part], seed)
            blocks.append(self.sensitivity.gradient(interval[part], adjoint, nodes))
        return np.concatenate(blocks) if blocks else np.zeros((0, 2, len(nodes)))

    def _weighted_adjoint(self, weights: sparse.csr_array) -> ComplexArray:
        """(l, t) Adjoint of the weighted sum of each interval's limits."""
        entries = weights.tocoo()
        seed = np.zeros((self.v_pu.shape[1], len(self.v_pu)), dtype=complex)
        for start in range(0, entries.nnz, SEED_COLUMNS):
            part = slice(start, start + SEED_COLUMNS)
            columns = self.formulation.magnitudes.seed(self.v_pu, entries.row[part], entries.col[part])
            np.add.at(seed.T, entries.row[part], (columns * entries.data[part]).T)
        return self.sensitivity.adjoint(np.arange(len(self.v_pu)), seed)

    def weighted_limit_gradient(self, weights: sparse.csr_array, nodes: IntArray) -> FloatArray:
        """Gradient of the weighted sum of each interval's limits, (t, 2, nodes)."""
        return self.sensitivity.gradient(np.arange(len(self.v_pu)), self._weighted_adjoint(weights), nodes)

    def lagrangian(self, weights: Weights) -> "AcLagrangian":
        """Give access to derivatives of ``import_p P0 + import_q Q0 - sum limits g``."""
        real, reactive = self._import_adjoints
        adjoint = real * weights.import_p + reactive * weights.import_q - self._weighted_adjoint(weights.limits)
        return AcLagrangian(self, adjoint, weights.import_p + 1j * weights.import_q, weights.limits)


@dataclass(frozen=True, eq=False)
class AcLagrangian:
    """Derivatives of a weighted sum of import and limits; `adjoint` is (l, t)."""

    point: AcPoint
    adjoint: ComplexArray
    import_weights: ComplexArray
    limit_weights: sparse.csr_array

    def gradient(self, nodes: IntArray) -> FloatArray:
        """By real and reactive injection at `nodes`, (t, 2, nodes) [currency/MWh]."""
        point = self.point
        gradient = point.sensitivity.gradient(np.arange(len(point.v_pu)), self.adjoint, nodes)
        held = np.flatnonzero(point.formulation.network.is_source[nodes])
        gradient[:, 0, held], gradient[:, 1, held] = (
            -self.import_weights.real[:, None],
            -self.import_weights.imag[:, None],
        )
        return gradient

    def hessian(self, interval: int, node: IntArray, reactive: npt.NDArray[np.bool_]) -> FloatArray:
        """By real or `reactive` injection at `node`, (i, i) at one interval [currency/MWh/pu]."""
        sensitivity, magnitudes = self.point.sensitivity, self.point.formulation.magnitudes
        tangent = sensitivity.tangent(interval, node, reactive)
        curved = sensitivity.injection_curvature(interval, self.adjoint[:, interval], tangent, node, reactive)
        row = self.limit_weights[[interval]]
        return curved - magnitudes.curvature(self.point.v_pu[interval], tangent, row.indices, row.data)


class AcTangent:
    """The AC network, linearised where it stands; see `dlmp.formulation.interface.Formulation`."""

    is_linear = False

    def __init__(self, network: Network):
        self.network = network
        self.flow = PowerFlow(network)
        self.imported = ImportedPower(self.flow)
        node = np.flatnonzero(~network.is_source)
        at_from = np.flatnonzero(np.isfinite(network.rating_from_pu))
        at_to = np.flatnonzero(np.isfinite(network.rating_to_pu) & ~_same_at_both_ends(network))
        unit_rows = sparse.csr_array(
            (np.ones(len(node)), (np.arange(len(node)), node)), shape=(len(node), network.node_count)
        )
        branch = np.r_[at_from, at_to]
        end = np.r_[network.from_node[at_from], network.to_node[at_to]]
        is_current = network.rating_is_current[branch]
        self.magnitudes = Magnitudes(
            rows=sparse.csr_array(
                sparse.vstack([unit_rows, network.from_admittance[at_from], network.to_admittance[at_to]])
            ),
            at=np.r_[np.full(len(node), -1), np.where(is_current, -1, end)],
        )
        voltage = np.ones(len(node))
        self.limits = Limits(
            element=np.r_[_named("bus", network.bus[node]), network.branch[branch]],
            end=np.r_[np.full(len(node), "-"), _ends(at_from, at_to)],
            cause=np.r_[np.full(len(node), VOLTAGE), np.full(len(branch), CONGESTION)],
            lower=np.r_[network.v_min_pu[node], np.full(len(branch), -np.inf)],
            upper=np.r_[network.v_max_pu[node], network.rating_from_pu[at_from], network.rating_to_pu[at_to]],
            unit=np.r_[np.full(len(node), "pu"), np.where(is_current, "A", "kVA")],
            per_pu=np.r_[voltage, np.where(is_current, base_current_a(network.base_kv[end]), BASE_KVA)],
            power=np.ones(len(node) + len(branch)),
            convex=np.r_[np.zeros(len(node), bool), np.ones(len(branch), bool)],
            node=np.r_[node, np.full(len(branch), -1)],
            branch=np.r_[np.full(len(node), -1), branch],
        )

    def operate(self, injection_pu: ComplexArray, start: AcPoint | None = None) -> AcPoint:
        """Solve the AC power flow of every interval at (t, n) injections [pu]."""
        v, converged = self.flow.solve(injection_pu, None if start is None else start.v_pu)
        return AcPoint(self, Sensitivity(self.flow, v, injection_pu), converged)


def _same_at_both_ends(network: Network) -> npt.NDArray[np.bool_]:
    """(m,) True for branches whose current limits at both ends are one and the same."""
    has_one_current = (network.shunt_from_pu == 0) & (network.shunt_to_pu == 0) & (np.abs(network.tap) == 1)
    return network.rating_is_current & has_one_current & (network.rating_to_pu == network.rating_from_pu)


def _ends(at_from: IntArray, at_to: IntArray) -> npt.NDArray[np.str_]:
    """Which end each limit is at; ``both`` for a branch whose ends share one."""
    return np.r_[np.where(np.isin(at_from, at_to), "from", "both"), np.full(len(at_to), "to")]


def _named(kind: str, names: npt.NDArray[np.str_]) -> npt.NDArray[np.str_]:
    return np.array([f"{kind} {name}" for name in names], dtype=str)
