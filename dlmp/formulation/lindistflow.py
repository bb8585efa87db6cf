"""LinDistFlow: the textbook linear model of radial feeders, the baseline that research compares with.

With the flow ``P + jQ`` into the series impedance ``r + jx`` of each branch at its from end, squared
voltages ``v``, and ``l`` for the squared current (Baran and Wu, IEEE Trans. Power Delivery 4(1), 1989):

    balance     p_n - g_n v_n = sum_from P - sum_to (P - r l)        (reactive alike)
    drop        v_from / tap^2 - v_to = 2 (r P + x Q) - (r^2 + x^2) l
    losses      l = 0                              (``losses="none"``), or
                l = l0 + dl/dP (P - P0) + dl/dQ (Q - Q0) + dl/dv (v - v0),   l = (P^2 + Q^2) / v

where the tangent of the losses touches the AC power flow of the horizon's mean load without bids.
The model is written in Pyomo for any set of intervals: one interval is compiled and its states
eliminated by one sparse LU for the clearing, the whole horizon is solved by `solve_whole`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyomo.environ as pyo
from scipy import sparse
from scipy.sparse.linalg import splu

from dlmp.errors import InputError, Problem
from dlmp.formulation.interface import CONGESTION, VOLTAGE, Limits, Weights
from dlmp.formulation.template import Template, compile_template
from dlmp.market import MarketCase
from dlmp.network.model import ComplexArray, FloatArray, IntArray, Network
from dlmp.powerflow import PowerFlow
from dlmp.settings import Settings
from dlmp.units import BASE_KVA

STATES = ["flow_p", "flow_q", "squared_current", "squared_voltage", "drawn_p", "drawn_q"]
INJECTIONS = ["node_p", "node_q"]


@dataclass(frozen=True, eq=False)
class LossTangent:
    """Tangent ``l = base + by_p P + by_q Q + by_v v`` of each branch's squared current, (m,) each [pu]."""

    base: FloatArray
    by_p: FloatArray
    by_q: FloatArray
    by_v: FloatArray


def no_losses(network: Network) -> LossTangent:
    """The lossless model."""
    zero = np.zeros(network.branch_count)
    return LossTangent(zero, zero, zero, zero)


def losses_around(network: Network, injection_pu: ComplexArray) -> LossTangent:
    """Linear losses that are exact at the AC power flow of (n,) injections [pu]."""
    v, converged = PowerFlow(network).solve(injection_pu[None, :])
    if not converged.all():
        return no_losses(network)
    behind_tap = v[0, network.from_node] / network.tap
    squared = np.abs(behind_tap) ** 2
    flow = behind_tap * np.conj((behind_tap - v[0, network.to_node]) / network.series_pu)
    current = np.abs(flow) ** 2 / squared
    by_p, by_q, by_v = 2 * flow.real / squared, 2 * flow.imag / squared, -current / squared
    base = current - by_p * flow.real - by_q * flow.imag - by_v * squared
    return LossTangent(base, by_p, by_q, by_v / np.abs(network.tap) ** 2)


def declare_lindistflow(
    model: pyo.ConcreteModel, network: Network, intervals: Sequence[int], losses: LossTangent
) -> None:
    """Add the state equations of `intervals` to `model`, as functions of the injections at every node."""
    nodes, branches = range(network.node_count), range(network.branch_count)
    source = {int(n): float(abs(v) ** 2) for n, v in zip(network.source, network.source_v_pu, strict=True)}
    inner = [n for n in nodes if n not in source]
    leaving = [np.flatnonzero(network.from_node == n).tolist() for n in nodes]
    arriving = [np.flatnonzero(network.to_node == n).tolist() for n in nodes]
    r, x = network.series_pu.real, network.series_pu.imag
    tap2 = np.abs(network.tap) ** 2
    shunt = nodal_shunt(network)
    model.PERIODS = pyo.Set(initialize=list(intervals))
    model.flow_p = pyo.Var(model.PERIODS, branches)
    model.flow_q = pyo.Var(model.PERIODS, branches)
    model.squared_current = pyo.Var(model.PERIODS, branches)
    model.squared_voltage = pyo.Var(model.PERIODS, nodes)
    model.drawn_p = pyo.Var(model.PERIODS, range(1))
    model.drawn_q = pyo.Var(model.PERIODS, range(1))
    model.node_p = pyo.Var(model.PERIODS, nodes)
    model.node_q = pyo.Var(model.PERIODS, nodes)

    def net_flow_p(m, t, n):
        out = sum(m.flow_p[t, b] for b in leaving[n])
        return out - sum(m.flow_p[t, b] - r[b] * m.squared_current[t, b] for b in arriving[n])

    def net_flow_q(m, t, n):
        out = sum(m.flow_q[t, b] for b in leaving[n])
        return out - sum(m.flow_q[t, b] - x[b] * m.squared_current[t, b] for b in arriving[n])

    @model.Constraint(model.PERIODS, inner)
    def real_power_balance(m, t, n):
        return m.node_p[t, n] - shunt[n].real * m.squared_voltage[t, n] == net_flow_p(m, t, n)

    @model.Constraint(model.PERIODS, inner)
    def reactive_power_balance(m, t, n):
        return m.node_q[t, n] + shunt[n].imag * m.squared_voltage[t, n] == net_flow_q(m, t, n)

    @model.Constraint(model.PERIODS)
    def real_import(m, t):
        used = sum(net_flow_p(m, t, n) + shunt[n].real * m.squared_voltage[t, n] - m.node_p[t, n] for n in source)
        return m.drawn_p[t, 0] == used

    @model.Constraint(model.PERIODS)
    def reactive_import(m, t):
        used = sum(net_flow_q(m, t, n) - shunt[n].imag * m.squared_voltage[t, n] - m.node_q[t, n] for n in source)
        return m.drawn_q[t, 0] == used

    @model.Constraint(model.PERIODS, branches)
    def voltage_drop(m, t, b):
        before = m.squared_voltage[t, int(network.from_node[b])] / tap2[b]
        drop = 2 * (r[b] * m.flow_p[t, b] + x[b] * m.flow_q[t, b]) - (r[b] ** 2 + x[b] ** 2) * m.squared_current[t, b]
        return before - m.squared_voltage[t, int(network.to_node[b])] == drop

    @model.Constraint(model.PERIODS, branches)
    def squared_current_tangent(m, t, b):
        v = m.squared_voltage[t, int(network.from_node[b])]
        tangent = losses.by_p[b] * m.flow_p[t, b] + losses.by_q[b] * m.flow_q[t, b] + losses.by_v[b] * v
        return m.squared_current[t, b] - tangent == losses.base[b]

    @model.Constraint(model.PERIODS, list(source))
    def source_voltage(m, t, n):
        return m.squared_voltage[t, n] == source[n]


def nodal_shunt(network: Network) -> ComplexArray:
    """(n,) All shunt admittance at each node, the branches' halves included [pu]."""
    total = np.array(network.node_shunt_pu)
    np.add.at(total, network.from_node, network.shunt_from_pu / np.abs(network.tap) ** 2)
    np.add.at(total, network.to_node, network.shunt_to_pu)
    return total


@dataclass(frozen=True, eq=False)
class LinearPoint:
    """States (y, t) of the linear model; see `dlmp.formulation.interface.OperatingPoint`."""

    formulation: "LinDistFlow"
    injection_pu: ComplexArray
    states: FloatArray

    @property
    def converged(self) -> npt.NDArray[np.bool_]:
        """(t,) A linear model always has its state."""
        return np.ones(len(self.injection_pu), bool)

    def state(self, name: str) -> FloatArray:
        """(t, i) Values of one variable [pu]."""
        return self.states[self.formulation.template.blocks[name]].T

    @cached_property
    def import_pu(self) -> ComplexArray:
        """(t,) Complex import [pu]."""
        return self.state("drawn_p")[:, 0] + 1j * self.state("drawn_q")[:, 0]

    @cached_property
    def limit_value(self) -> FloatArray:
        """(t, k) Squared voltages, and flows along the polygon's directions [pu]."""
        return np.asarray((self.formulation.limit_rows @ self.states).T)

    def voltage(self) -> FloatArray:
        """(t, n) Voltage magnitudes [pu]."""
        return np.sqrt(np.maximum(self.state("squared_voltage"), 0.0))

    def branch_power(self) -> tuple[ComplexArray, ComplexArray]:
        """(t, m) Complex power [pu] into each branch at its from and at its to end."""
        network, v = self.formulation.network, self.state("squared_voltage")
        flow = self.state("flow_p") + 1j * self.state("flow_q")
        lost = network.series_pu * self.state("squared_current")
        into_from = v[:, network.from_node] * np.conj(network.shunt_from_pu) / np.abs(network.tap) ** 2
        into_to = v[:, network.to_node] * np.conj(network.shunt_to_pu)
        return flow + into_from, lost - flow + into_to

    def import_gradients(self, nodes: IntArray) -> tuple[FloatArray, FloatArray]:
        """Gradient of real and of reactive import, (t, 2, nodes) each."""
        blocks = self.formulation.template.blocks
        rows = sparse.csr_array(
            ([1.0, 1.0], ([0, 1], [blocks["drawn_p"].start, blocks["drawn_q"].start])), shape=(2, len(self.states))
        )
        real, reactive = self.formulation.gradients(rows, nodes)
        shape = (len(self.injection_pu), *real.shape)
        return np.broadcast_to(real, shape), np.broadcast_to(reactive, shape)

    def predicted_limits(self, injection_pu: ComplexArray) -> FloatArray:
        """(t, k) Limited quantities at other injections, (t, n) [pu]."""
        return self.formulation.operate(injection_pu).limit_value

    def predicted_limit_gradients(
        self, injection_pu: ComplexArray, interval: IntArray, limit: IntArray, nodes: IntArray
    ) -> FloatArray:
        """Gradient of the limited quantities, the same everywhere, (i, 2, nodes)."""
        return self.limit_gradients(interval, limit, nodes)

    def limit_gradients(self, interval: IntArray, limit: IntArray, nodes: IntArray) -> FloatArray:
        """Gradient of each limited quantity, the same at every interval, (i, 2, nodes)."""
        different, place = np.unique(limit, return_inverse=True)
        return self.formulation.gradients(self.formulation.limit_rows[different], nodes)[place]

    def weighted_limit_gradient(self, weights: sparse.csr_array, nodes: IntArray) -> FloatArray:
        """Gradient of the weighted sum of each interval's limits, (t, 2, nodes)."""
        return self.formulation.gradients(sparse.csr_array(weights @ self.formulation.limit_rows), nodes)

    def lagrangian(self, weights: Weights) -> "LinearLagrangian":
        """Give access to derivatives of ``import_p P0 + import_q Q0 - sum limits g``."""
        return LinearLagrangian(self, weights)


@dataclass(frozen=True, eq=False)
class LinearLagrangian:
    """Derivatives of a weighted sum of import and limits: constant, without curvature."""

    point: LinearPoint
    weights: Weights

    def gradient(self, nodes: IntArray) -> FloatArray:
        """By real and reactive injection at `nodes`, (t, 2, nodes)."""
        blocks, limit_rows = self.point.formulation.template.blocks, self.point.formulation.limit_rows
        rows = sparse.lil_array(-(self.weights.limits @ limit_rows))
        rows[:, [blocks["drawn_p"].start]] = self.weights.import_p[:, None]
        rows[:, [blocks["drawn_q"].start]] = self.weights.import_q[:, None]
        return self.point.formulation.gradients(sparse.csr_array(rows), nodes)

    def hessian(self, interval: int, node: IntArray, reactive: npt.NDArray[np.bool_]) -> FloatArray:
        """Return zeros, (i, i)."""
        return np.zeros((len(node), len(node)))


class LinDistFlow:
    """The linear radial model; see `dlmp.formulation.interface.Formulation`.

    Parameters
    ----------
    network
        A radial network.
    losses
        Loss model.
    circle_sides
        Sides of the polygon inscribed in each branch's apparent-power circle.

    Raises
    ------
    InputError
        When the network is meshed.
    """

    is_linear = True

    def __init__(self, network: Network, losses: LossTangent, circle_sides: int):
        check_radial(network)
        self.network = network
        model = pyo.ConcreteModel()
        declare_lindistflow(model, network, [0], losses)
        self.template: Template = compile_template(model, STATES + INJECTIONS)
        first_injection = self.template.blocks["node_p"].start
        matrix = sparse.csc_array(self.template.matrix)
        self._lu = splu(matrix[:, :first_injection])
        self._by_injection = sparse.csr_array(matrix[:, first_injection:])
        self._state_count = first_injection
        self.limits, self.limit_rows = _limits(network, self.template, first_injection, circle_sides)

    @classmethod
    def of_case(cls, case: MarketCase, settings: Settings) -> "LinDistFlow":
        """Make the model of a case, its losses linear around the mean load without bids."""
        check_radial(case.network)
        mean = -(case.load_p_kw + 1j * case.load_q_kvar).mean(axis=0) / BASE_KVA
        linear = settings.losses == "linear"
        losses = losses_around(case.network, mean) if linear else no_losses(case.network)
        return cls(case.network, losses, settings.circle_sides)

    def operate(self, injection_pu: ComplexArray, start: LinearPoint | None = None) -> LinearPoint:
        """Solve the linear equations of every interval at (t, n) injections [pu]."""
        injection = np.concatenate([injection_pu.real, injection_pu.imag], axis=1).T
        right = self.template.row_lower[:, None] - self._by_injection @ injection
        return LinearPoint(self, injection_pu, self._lu.solve(right))

    def gradients(self, rows: sparse.csr_array, nodes: IntArray) -> FloatArray:
        """Gradients by injection of linear functions (i, y) of the states, (i, 2, nodes)."""
        adjoint = self._lu.solve(np.asarray(rows.todense()).T.copy(), "T")
        columns = np.concatenate([nodes, self.network.node_count + nodes])
        gradient = -(self._by_injection[:, columns].T @ adjoint).T
        return np.asarray(gradient).reshape(rows.shape[0], 2, len(nodes))


def check_radial(network: Network) -> None:
    """Raise `InputError` when `network` is meshed."""
    if not network.is_radial:
        problem = Problem(
            "network", "topology", "meshed", "lindistflow needs a radial feeder; use ac_tangent or open a tie"
        )
        raise InputError([problem])


def _limits(
    network: Network, template: Template, state_count: int, circle_sides: int
) -> tuple[Limits, sparse.csr_array]:
    """Squared voltages, and for each rated branch one flow per side of the polygon."""
    node = np.flatnonzero(~network.is_source)
    rating = np.minimum(network.rating_from_pu, network.rating_to_pu)
    rated = np.flatnonzero(np.isfinite(rating))
    branch = np.repeat(rated, circle_sides)
    angle = np.tile(2 * np.pi * np.arange(circle_sides) / circle_sides, len(rated))
    rows = np.arange(len(branch))
    flows = sparse.csr_array(
        (
            np.r_[np.cos(angle), np.sin(angle)],
            (
                np.r_[rows, rows],
                np.r_[template.blocks["flow_p"].start + branch, template.blocks["flow_q"].start + branch],
            ),
        ),
        shape=(len(branch), state_count),
    )
    voltages = sparse.csr_array(
        (np.ones(len(node)), (np.arange(len(node)), template.blocks["squared_voltage"].start + node)),
        shape=(len(node), state_count),
    )
    limits = Limits(
        element=np.r_[np.array([f"bus {bus}" for bus in network.bus[node]], dtype=str), network.branch[branch]],
        end=np.r_[np.full(len(node), "-"), np.full(len(branch), "both")],
        cause=np.r_[np.full(len(node), VOLTAGE), np.full(len(branch), CONGESTION)],
        lower=np.r_[network.v_min_pu[node] ** 2, np.full(len(branch), -np.inf)],
        upper=np.r_[network.v_max_pu[node] ** 2, rating[branch] * np.cos(np.pi / circle_sides)],
        unit=np.r_[np.full(len(node), "pu"), np.full(len(branch), "kVA")],
        per_pu=np.r_[np.ones(len(node)), np.full(len(branch), BASE_KVA)],
        power=np.r_[np.full(len(node), 2.0), np.ones(len(branch))],
        convex=np.zeros(len(node) + len(branch), bool),
        node=np.r_[node, np.full(len(branch), -1)],
        branch=np.r_[np.full(len(node), -1), branch],
    )
    return limits, sparse.csr_array(sparse.vstack([voltages, flows]))
