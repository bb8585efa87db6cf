"""LinDistFlow: the textbook linear model of radial feeders, the baseline that research compares with.

By phase it is LinDist3Flow.  Every branch is an ideal transformer in front of a series impedance
(`dlmp.formulation.sections`).  With the flow ``P + jQ`` into the impedance at its sending end, the squared
voltage ``w`` of every node, and what the flow loses in the impedance
(`dlmp.formulation.coefficients` has the coefficients),

    balance     node_p - shunt w = sum_leaving entering P - sum_arriving (P - lost_p)     (reactive alike)
    drop        behind w - w_receiving = drop_p P + drop_q Q - squared_drop
    losses      lost = 0, squared_drop = 0                                      (``losses="none"``), or
                their tangents in P, Q and w                                    (``losses="linear"``)

On a balanced feeder ``behind`` is ``1 / tap^2``, ``entering`` 1, ``drop_p`` and ``drop_q`` are ``2 r`` and
``2 x``, ``lost = (r + jx) l`` and ``squared_drop = (r^2 + x^2) l`` with the squared current ``l = (P^2 + Q^2) / w``
(Baran and Wu, IEEE Trans. Power Delivery 4(1), 1989).  By phase the coefficients couple the conductors of a
branch, with the phase angles of fixed voltages: those without load, or, with linear losses, those of the
AC power flow of the horizon's mean load without bids, which the tangents of the losses touch too.

The model is written in Pyomo for any set of intervals: one interval is compiled and its states
eliminated by one sparse LU for the clearing; the tests solve the whole horizon through Pyomo as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyomo.environ as pyo
from scipy import sparse

from dlmp.factors import factorised
from dlmp.formulation.coefficients import LinearNetwork, linear_network
from dlmp.formulation.interface import CONGESTION, VOLTAGE, Limits, Weights
from dlmp.formulation.sections import picked, sections_of
from dlmp.formulation.template import Template, collector_paused, compile_template
from dlmp.market import MarketCase
from dlmp.network.model import ComplexArray, FloatArray, IntArray, Network
from dlmp.powerflow import PowerFlow
from dlmp.settings import Settings
from dlmp.units import BASE_KVA

STATES = ["flow_p", "flow_q", "lost_p", "lost_q", "squared_drop", "squared_voltage", "drawn_p", "drawn_q"]
INJECTIONS = ["node_p", "node_q"]


def no_losses(network: Network, law_pu: ComplexArray | None = None) -> LinearNetwork:
    """The lossless model around the voltages without load, for loads `law_pu` (t, l) that follow their voltage."""
    sections = sections_of(network)
    flow = PowerFlow(network)
    return linear_network(network, sections, flow.voltages(flow.no_load_pu), law_pu, with_losses=False)


def losses_around(network: Network, injection_pu: ComplexArray, law_pu: ComplexArray | None = None) -> LinearNetwork:
    """The model around the AC power flow of (p,) injections [pu] and the mean of `law_pu`; lossless without one."""
    sections = sections_of(network)
    flow = PowerFlow(network, None if law_pu is None else law_pu.mean(axis=0, keepdims=True))
    state_pu, converged = flow.solve(injection_pu[None, :])
    around = flow.voltages(state_pu[0] if converged.all() else flow.no_load_pu)
    return linear_network(network, sections, around, law_pu, with_losses=bool(converged.all()))


def declare_lindistflow(
    model: pyo.ConcreteModel, network: Network, intervals: Sequence[int], linear: LinearNetwork
) -> None:
    """Add the state equations of `intervals` to `model`, as functions of the injections at every node."""
    nodes, sections = range(network.node_count), range(len(linear.sections.receiving))
    receiving = linear.sections.receiving.tolist()
    source = {int(n): float(abs(v) ** 2) for n, v in zip(network.source, network.source_v_pu, strict=True)}
    inner = [n for n in nodes if n not in source]
    leaving = picked(linear.sections.sending, network.node_count).T @ linear.entering
    leaving_p, leaving_q = terms(leaving.real), terms(leaving.imag)
    arriving = terms(picked(linear.sections.receiving, network.node_count).T)
    shunt_p, shunt_q = terms(linear.shunt.real), terms(linear.shunt.imag)
    behind, drop_p, drop_q = terms(linear.behind), terms(linear.drop_p), terms(linear.drop_q)
    model.PERIODS = pyo.Set(initialize=list(intervals))
    model.flow_p = pyo.Var(model.PERIODS, sections)
    model.flow_q = pyo.Var(model.PERIODS, sections)
    model.lost_p = pyo.Var(model.PERIODS, sections)
    model.lost_q = pyo.Var(model.PERIODS, sections)
    model.squared_drop = pyo.Var(model.PERIODS, sections)
    model.squared_voltage = pyo.Var(model.PERIODS, nodes)
    model.drawn_p = pyo.Var(model.PERIODS, range(1))
    model.drawn_q = pyo.Var(model.PERIODS, range(1))
    model.node_p = pyo.Var(model.PERIODS, nodes)
    model.node_q = pyo.Var(model.PERIODS, nodes)

    def net_flow_p(m, t, n):
        out = total(leaving_p[n], m.flow_p, t) - total(leaving_q[n], m.flow_q, t)
        return out - total(arriving[n], m.flow_p, t) + total(arriving[n], m.lost_p, t)

    def net_flow_q(m, t, n):
        out = total(leaving_q[n], m.flow_p, t) + total(leaving_p[n], m.flow_q, t)
        return out - total(arriving[n], m.flow_q, t) + total(arriving[n], m.lost_q, t)

    @model.Constraint(model.PERIODS, inner)
    def real_power_balance(m, t, n):
        return m.node_p[t, n] - total(shunt_p[n], m.squared_voltage, t) == net_flow_p(m, t, n)

    @model.Constraint(model.PERIODS, inner)
    def reactive_power_balance(m, t, n):
        return m.node_q[t, n] - total(shunt_q[n], m.squared_voltage, t) == net_flow_q(m, t, n)

    @model.Constraint(model.PERIODS)
    def real_import(m, t):
        used = sum(net_flow_p(m, t, n) + total(shunt_p[n], m.squared_voltage, t) - m.node_p[t, n] for n in source)
        return m.drawn_p[t, 0] == used

    @model.Constraint(model.PERIODS)
    def reactive_import(m, t):
        used = sum(net_flow_q(m, t, n) + total(shunt_q[n], m.squared_voltage, t) - m.node_q[t, n] for n in source)
        return m.drawn_q[t, 0] == used

    @model.Constraint(model.PERIODS, sections)
    def voltage_drop(m, t, s):
        drop = total(drop_p[s], m.flow_p, t) + total(drop_q[s], m.flow_q, t) - m.squared_drop[t, s]
        return total(behind[s], m.squared_voltage, t) - m.squared_voltage[t, receiving[s]] == drop

    for name, tangent in (
        ("lost_p", linear.lost.real),
        ("lost_q", linear.lost.imag),
        ("squared_drop", linear.squared_drop),
    ):
        by_p, by_q, by_w = terms(tangent.by_p), terms(tangent.by_q), terms(tangent.by_w)

        def loss_tangent(m, t, s, name=name, by_p=by_p, by_q=by_q, by_w=by_w):
            by_flow = total(by_p[s], m.flow_p, t) + total(by_q[s], m.flow_q, t)
            return getattr(m, name)[t, s] == by_flow + total(by_w[s], m.squared_voltage, t)

        model.add_component(f"{name}_tangent", pyo.Constraint(model.PERIODS, sections, rule=loss_tangent))

    @model.Constraint(model.PERIODS, list(source))
    def source_voltage(m, t, n):
        return m.squared_voltage[t, n] == source[n]


def terms(matrix: sparse.csr_array) -> list[list[tuple[int, float]]]:
    """Column and value of what is not zero in each row."""
    rows = sparse.csr_array(matrix)
    rows.eliminate_zeros()
    column, value, start = rows.indices.tolist(), rows.data.tolist(), rows.indptr.tolist()
    return [list(zip(column[a:b], value[a:b], strict=True)) for a, b in pairwise(start)]


def total(row, variable, t):
    """Sum of a row's `terms` over a variable at interval `t`."""
    return sum(value * variable[t, index] for index, value in row)


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
        """(t, n) Voltage magnitudes [pu]: all nodes have one."""
        return np.sqrt(np.maximum(self.state("squared_voltage"), 0.0))

    def branch_power(self) -> tuple[ComplexArray, ComplexArray]:
        """(t, m) Complex power [pu] into each branch at its from and at its to end."""
        linear, w = self.formulation.linear, self.state("squared_voltage")
        flow = self.state("flow_p") + 1j * self.state("flow_q")
        lost = self.state("lost_p") + 1j * self.state("lost_q")
        sending = flow @ linear.entering.T
        receiving = (lost - flow) @ linear.sections.at_receiving().T
        is_reversed = linear.sections.is_reversed
        at_from = np.where(is_reversed, receiving, sending) + w @ linear.shunt_from.T
        return at_from, np.where(is_reversed, sending, receiving) + w @ linear.shunt_to.T

    def law_power(self) -> ComplexArray:
        """(t, w) Consumption of the loads that follow their voltage, one column each [pu]."""
        laws = self.formulation.linear.laws
        return np.asarray(laws.constant_pu + self.state("squared_voltage") @ laws.by_voltage.T)

    def import_gradients(self, ports: IntArray, intervals: IntArray | None = None) -> tuple[FloatArray, FloatArray]:
        """Gradient of real and of reactive import, (t, 2, ports) each, or of `intervals` alone."""
        blocks = self.formulation.template.blocks
        rows = sparse.csr_array(
            ([1.0, 1.0], ([0, 1], [blocks["drawn_p"].start, blocks["drawn_q"].start])), shape=(2, len(self.states))
        )
        real, reactive = self.formulation.gradients(rows, ports)
        shape = (len(self.injection_pu) if intervals is None else len(intervals), *real.shape)
        return np.broadcast_to(real, shape), np.broadcast_to(reactive, shape)

    def predicted_limits(self, injection_pu: ComplexArray) -> FloatArray:
        """(t, k) Limited quantities at other injections, (t, n) [pu]."""
        return self.formulation.operate(injection_pu).limit_value

    def predicted_limit_gradients(
        self, injection_pu: ComplexArray, interval: IntArray, limit: IntArray, ports: IntArray
    ) -> FloatArray:
        """Gradient of the limited quantities, the same everywhere, (i, 2, ports)."""
        return self.limit_gradients(interval, limit, ports)

    def limit_gradients(self, interval: IntArray, limit: IntArray, ports: IntArray) -> FloatArray:
        """Gradient of each limited quantity, the same at every interval, (i, 2, ports)."""
        different, place = np.unique(limit, return_inverse=True)
        return self.formulation.gradients(self.formulation.limit_rows[different], ports)[place]

    def weighted_limit_gradient(self, weights: sparse.csr_array, ports: IntArray) -> FloatArray:
        """Gradient of the weighted sum of each interval's limits, (t, 2, ports)."""
        return self.formulation.gradients(sparse.csr_array(weights @ self.formulation.limit_rows), ports)

    @property
    def state_equations(self) -> None:
        """None: what is linear needs no finish of many injections."""

    def lagrangian(self, weights: Weights) -> "LinearLagrangian":
        """Give access to derivatives of ``import_p P0 + import_q Q0 - sum limits g``."""
        return LinearLagrangian(self, weights)


@dataclass(frozen=True, eq=False)
class LinearLagrangian:
    """Derivatives of a weighted sum of import and limits: constant, without curvature."""

    point: LinearPoint
    weights: Weights

    def gradient(self, ports: IntArray) -> FloatArray:
        """By real and reactive injection at `ports`, (t, 2, ports)."""
        blocks, limit_rows = self.point.formulation.template.blocks, self.point.formulation.limit_rows
        rows = sparse.lil_array(-(self.weights.limits @ limit_rows))
        rows[:, [blocks["drawn_p"].start]] = self.weights.import_p[:, None]
        rows[:, [blocks["drawn_q"].start]] = self.weights.import_q[:, None]
        return self.point.formulation.gradients(sparse.csr_array(rows), ports)

    def hessians(self, intervals: IntArray, share: sparse.csr_array, reactive: npt.NDArray[np.bool_]) -> FloatArray:
        """Return zeros, (k, i, i)."""
        return np.zeros((len(intervals), len(reactive), len(reactive)))


class LinDistFlow:
    """The linear radial model; see `dlmp.formulation.interface.Formulation`.

    Parameters
    ----------
    network
        A radial network.
    linear
        Its coefficients, with or without losses.
    circle_sides
        Sides of the polygon inscribed in each branch's apparent-power circle.
    """

    is_linear = True

    def __init__(self, network: Network, linear: LinearNetwork, circle_sides: int):
        self.network, self.linear = network, linear
        model = pyo.ConcreteModel()
        declare_lindistflow(model, network, [0], linear)
        self.template: Template = compile_template(model, STATES + INJECTIONS)
        first_injection = self.template.blocks["node_p"].start
        matrix = sparse.csc_array(self.template.matrix)
        self._factors = factorised(matrix[:, :first_injection])
        self._by_injection = sparse.csr_array(matrix[:, first_injection:])
        blocks = [_voltages(network, self.template), _flows(network, self.template, linear, circle_sides)]
        self.limits = Limits.joined([limits for limits, _ in blocks])
        self.limit_rows = sparse.csr_array(sparse.vstack([rows for _, rows in blocks])[:, :first_injection])

    @classmethod
    def of_case(cls, case: MarketCase, settings: Settings, interval: IntArray) -> "LinDistFlow":
        """Make the model of a case, around its mean load without bids where it has losses.

        Each of its states belongs to an `interval`.

        Raises
        ------
        InputError
            With everything in which the network does not fit; see `dlmp.formulation.sections.sections_of`.
        """
        with collector_paused():
            if settings.losses == "linear":
                linear = losses_around(case.network, -case.load_pu.mean(axis=0), case.law_pu)
            else:
                linear = no_losses(case.network, case.law_pu)
            if len(linear.law_pu) > 1:
                linear = replace(linear, law_pu=linear.law_pu[interval])
            return cls(case.network, linear, settings.circle_sides)

    def operate(self, injection_pu: ComplexArray, start: LinearPoint | None = None) -> LinearPoint:
        """Solve the linear equations of every interval at (t, p) injections [pu]."""
        at_node = injection_pu @ self.linear.spread.T - self.linear.law_pu
        injection = np.concatenate([at_node.real, at_node.imag], axis=1).T
        right = self.template.row_lower[:, None] - self._by_injection @ injection
        return LinearPoint(self, injection_pu, self._factors.solve(right))

    def carried(self, point: LinearPoint, state: IntArray) -> LinearPoint:
        """Take over the states of a `point` of another such model, of ``state[i]`` there as state i here."""
        return LinearPoint(self, point.injection_pu[state], point.states[:, state])

    def gradients(self, rows: sparse.csr_array, ports: IntArray) -> FloatArray:
        """Gradients by injection of linear functions (i, y) of the states, (i, 2, ports)."""
        adjoint = self._factors.solve(rows.toarray().T, transposed=True)
        real, reactive = np.split(-(self._by_injection.T @ adjoint).T, 2, axis=1)
        at_port = (real + 1j * reactive) @ np.conj(self.linear.spread[:, ports])
        return np.stack([at_port.real, at_port.imag], axis=1)


def _voltages(network: Network, template: Template) -> tuple[Limits, sparse.csr_array]:
    """Squared voltage of every priced node that no source holds."""
    node = np.flatnonzero(network.is_priced[: network.node_count] & ~network.is_source)
    count = len(node)
    limits = Limits(
        element=np.array([f"bus {bus}" for bus in network.bus[node]], dtype=str),
        phase=network.phase[node],
        end=np.full(count, "-"),
        cause=np.full(count, VOLTAGE),
        lower=network.v_min_pu[node] ** 2,
        upper=network.v_max_pu[node] ** 2,
        unit=np.full(count, "pu"),
        per_pu=np.ones(count),
        power=np.full(count, 2.0),
        convex=np.zeros(count, bool),
        branch=np.full(count, -1),
    )
    return limits, picked(template.blocks["squared_voltage"].start + node, template.column_count)


def _flows(
    network: Network, template: Template, linear: LinearNetwork, circle_sides: int
) -> tuple[Limits, sparse.csr_array]:
    """One flow per side of the polygon of each rated conductor, at both ends where their lossless flows differ."""
    sending, receiving = linear.entering, linear.sections.at_receiving()
    is_reversed = linear.sections.is_reversed
    is_same = abs(sending - receiving).max(axis=1).toarray().ravel() == 0
    least = np.minimum(network.rating_from_pu, network.rating_to_pu)
    ends = [
        ("both", is_same, least, sending, network.from_node),
        ("from", ~is_same, network.rating_from_pu, _either(is_reversed, receiving, sending), network.from_node),
        ("to", ~is_same, network.rating_to_pu, _either(is_reversed, sending, receiving), network.to_node),
    ]
    blocks, places = [], (template.blocks["flow_p"], template.blocks["flow_q"])
    for end, applies, rating, power, node in ends:
        rated = np.flatnonzero(applies & np.isfinite(rating))
        branch = np.repeat(rated, circle_sides)
        angle = np.tile(2 * np.pi * np.arange(circle_sides) / circle_sides, len(rated))
        count = len(branch)
        limits = Limits(
            element=network.branch[branch],
            phase=network.phase[node[branch]],
            end=np.full(count, end),
            cause=np.full(count, CONGESTION),
            lower=np.full(count, -np.inf),
            upper=rating[branch] * np.cos(np.pi / circle_sides),
            unit=np.full(count, "kVA"),
            per_pu=np.full(count, BASE_KVA),
            power=np.ones(count),
            convex=np.zeros(count, bool),
            branch=branch,
        )
        along = sparse.csr_array(sparse.diags_array(np.exp(-1j * angle)) @ power[branch])
        real, reactive = (sparse.eye_array(template.column_count, format="csr")[place] for place in places)
        blocks.append((limits, along.real @ real - along.imag @ reactive))
    return (
        Limits.joined([limits for limits, _ in blocks]),
        sparse.csr_array(sparse.vstack([rows for _, rows in blocks])),
    )


def _either(mask: npt.NDArray[np.bool_], where: sparse.csr_array, otherwise: sparse.csr_array) -> sparse.csr_array:
    """Rows of `where` at `mask`, of `otherwise` elsewhere."""
    chosen = mask.astype(float)
    return sparse.csr_array(sparse.diags_array(chosen) @ where + sparse.diags_array(1 - chosen) @ otherwise)
