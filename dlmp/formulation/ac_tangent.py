"""The default formulation: tangents of the AC power flow at the dispatch of each pass.

Any topology, balanced or by phase.  Limits: the magnitude of every phase voltage that is not held by a
source, line to line where the voltage to ground is not determined; current or apparent power of every
conductor at both ends of every rated branch; and, where the network sets one, the ratio of negative- to
positive-sequence voltage at every three-phase bus.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dlmp.formulation.ac_states import SEED_COLUMNS, AcLagrangian, AcStates
from dlmp.formulation.interface import CONGESTION, UNBALANCE, VOLTAGE, Limits, Weights
from dlmp.network.model import PHASES, ComplexArray, FloatArray, IntArray, Network, UnbalancedNetwork
from dlmp.nodal import NodalEquations
from dlmp.powerflow import PowerFlow
from dlmp.sensitivity import ImportedPower, Magnitudes, Sensitivity
from dlmp.units import BASE_KVA

ONE_CURRENT = 1e-12
"""Currents at both ends of a conductor are in a fixed ratio when they differ from it by less than this, relative."""
ONE_RATING = 1e-9
"""Ratings of both ends of such a conductor that differ by less, relative, are one limit."""


@dataclass(frozen=True, eq=False)
class AcPoint:
    """A solved AC power flow of every interval; see `dlmp.formulation.interface.OperatingPoint`."""

    formulation: "AcTangent"
    sensitivity: Sensitivity
    converged: npt.NDArray[np.bool_]
    _limit_adjoints: dict[tuple[int, int], ComplexArray] = field(default_factory=dict, repr=False)
    _known_imports: dict[int, tuple[ComplexArray, ComplexArray]] = field(default_factory=dict, repr=False)

    @property
    def injection_pu(self) -> ComplexArray:
        """(t, p) Complex injections [pu]."""
        return self.sensitivity.injection_pu

    @property
    def state_pu(self) -> ComplexArray:
        """(t, n + s) Complex voltages, and currents of the stiff conductors [pu]."""
        return self.sensitivity.state_pu

    @property
    def v_pu(self) -> ComplexArray:
        """(t, n) Complex voltages [pu]."""
        return self.formulation.flow.voltages(self.state_pu)

    @cached_property
    def import_pu(self) -> ComplexArray:
        """(t,) Power fed in by the sources less what is injected there [pu]."""
        formulation = self.formulation
        return formulation.imported.value(self.state_pu) - self.injection_pu[:, formulation.network.source].sum(axis=1)

    @cached_property
    def limit_value(self) -> FloatArray:
        """(t, k) Limited quantities [pu]."""
        return self.formulation.magnitudes.value(self.state_pu)

    def voltage(self) -> FloatArray:
        """(t, k) Voltage magnitudes at the network's `voltage_ports` [pu]."""
        network = self.formulation.network
        ports = network.voltage_ports
        return np.abs((network.incidence[ports] @ self.v_pu.T).T) * network.port_scale[ports]

    @property
    def losses_pu(self) -> FloatArray:
        """(t,) Real power that the network takes for itself [pu]."""
        rows = self.formulation.flow.equations.balance[: self.formulation.network.node_count]
        return np.asarray((self.v_pu * np.conj((rows @ self.state_pu.T).T)).real.sum(axis=1))

    def branch_power(self) -> tuple[ComplexArray, ComplexArray]:
        """(t, m) Complex power [pu] into each branch at its from and at its to end."""
        v, network, equations = self.v_pu, self.formulation.network, self.formulation.flow.equations
        at_from = v[:, network.from_node] * np.conj((equations.at_from @ self.state_pu.T).T)
        at_to = v[:, network.to_node] * np.conj((equations.at_to @ self.state_pu.T).T)
        return at_from, at_to

    def law_power(self) -> ComplexArray:
        """(t, w) Consumption of the loads that follow their voltage, one column each [pu]."""
        network, ports = self.formulation.network, self.formulation.flow.ports
        if not ports.has_laws:
            return np.zeros((len(self.state_pu), len(network.law)), complex)
        value, _, _ = network.law.shape(np.abs(network.incidence[network.law.port] @ self.v_pu.T))
        return np.asarray((ports.law_pu * value).T)

    def _import_adjoints(self, intervals: IntArray) -> tuple[ComplexArray, ComplexArray]:
        """(u, i) each, of `intervals` (i,)."""
        new = np.array([t for t in intervals.tolist() if t not in self._known_imports], dtype=np.int64)
        seeds = self.formulation.imported.seed()[: 2 if self.formulation.counts_reactive_import else 1]
        made = self.sensitivity.adjoint(np.tile(new, len(seeds)), np.repeat(np.stack(seeds, axis=1), len(new), axis=1))
        real, reactive = made[:, : len(new)], made[:, len(new) :]
        if not self.formulation.counts_reactive_import:
            reactive = np.zeros_like(real)
        self._known_imports.update(zip(new.tolist(), zip(real.T, reactive.T, strict=True), strict=True))
        adjoints = np.zeros((2, len(self.formulation.flow.unknown), len(intervals)), dtype=complex)
        for place, t in enumerate(intervals.tolist()):
            adjoints[:, :, place] = self._known_imports[t]
        return adjoints[0], adjoints[1]

    def take_over(self, other: "AcPoint", intervals: IntArray) -> None:
        """Keep what `other` knows of `intervals`, in which the state is the same."""
        own = set(intervals.tolist())
        self.sensitivity.jacobian.keep_factors_of(other.sensitivity.jacobian, intervals)
        self._limit_adjoints.update({key: value for key, value in other._limit_adjoints.items() if key[0] in own})
        self._known_imports.update({t: value for t, value in other._known_imports.items() if t in own})

    def import_gradients(self, ports: IntArray, intervals: IntArray | None = None) -> tuple[FloatArray, FloatArray]:
        """Gradient of real and of reactive import, (t, 2, ports) each, or of `intervals` alone."""
        own = np.arange(len(self.state_pu)) if intervals is None else intervals
        real, reactive = (self.sensitivity.gradient(own, lam, ports) for lam in self._import_adjoints(own))
        held = np.flatnonzero(self.formulation.is_held[ports])
        real[:, 0, held] = reactive[:, 1, held] = -1.0
        return real, reactive

    def predicted_limits(self, injection_pu: ComplexArray) -> FloatArray:
        """(t, k) Limited quantities at voltages that follow the injections (t, p) linearly [pu]."""
        return self.formulation.magnitudes.value(self.sensitivity.predicted_state(injection_pu))

    def predicted_limit_gradients(
        self, injection_pu: ComplexArray, interval: IntArray, limit: IntArray, ports: IntArray
    ) -> FloatArray:
        """Gradient of `predicted_limits` at those injections, when voltages move as they do here, (i, 2, ports)."""
        state_pu = self.sensitivity.predicted_state(injection_pu)
        blocks = [np.zeros((0, 2, len(ports)))]
        for start in range(0, len(limit), SEED_COLUMNS):
            part = slice(start, start + SEED_COLUMNS)
            seed = self.formulation.magnitudes.seed(state_pu, interval[part], limit[part])
            adjoint = self.sensitivity.adjoint(interval[part], seed.toarray().T)
            blocks.append(self.sensitivity.gradient(interval[part], adjoint, ports))
        return np.concatenate(blocks)

    def limit_gradients(self, interval: IntArray, limit: IntArray, ports: IntArray) -> FloatArray:
        """Gradient of ``limit[i]`` at ``interval[i]``, (i, 2, ports)."""
        keys = list(zip(interval.tolist(), limit.tolist(), strict=True))
        new = [index for index, key in enumerate(keys) if key not in self._limit_adjoints]
        for start in range(0, len(new), SEED_COLUMNS):
            part = np.array(new[start : start + SEED_COLUMNS])
            seed = self.formulation.magnitudes.seed(self.state_pu, interval[part], limit[part])
            adjoint = self.sensitivity.adjoint(interval[part], seed.toarray().T)
            self._limit_adjoints.update({keys[index]: adjoint[:, place] for place, index in enumerate(part)})
        blocks = [np.zeros((0, 2, len(ports)))]
        for start in range(0, len(keys), SEED_COLUMNS):
            block = slice(start, start + SEED_COLUMNS)
            adjoint = np.stack([self._limit_adjoints[key] for key in keys[block]], axis=1)
            blocks.append(self.sensitivity.gradient(interval[block], adjoint, ports))
        return np.concatenate(blocks)

    def _weighted_adjoint(self, weights: sparse.csr_array) -> ComplexArray:
        """(l, t) Adjoint of the weighted sum of each interval's limits."""
        adjoint = np.zeros((len(self.formulation.flow.unknown), len(self.state_pu)), dtype=complex)
        unknown = []
        for interval in np.flatnonzero(np.diff(weights.indptr)).tolist():
            own = slice(*weights.indptr[interval : interval + 2])
            keys = [(interval, limit) for limit in weights.indices[own].tolist()]
            if all(key in self._limit_adjoints for key in keys):
                adjoint[:, interval] = np.stack([self._limit_adjoints[key] for key in keys], axis=1) @ weights.data[own]
            else:
                unknown.append(interval)
        if unknown:
            seed = self.state_equations.weighted_seed(weights)[unknown].toarray()
            adjoint[:, unknown] = self.sensitivity.adjoint(np.array(unknown, dtype=np.int64), seed.T)
        return adjoint

    def weighted_limit_gradient(self, weights: sparse.csr_array, ports: IntArray) -> FloatArray:
        """Gradient of the weighted sum of each interval's limits, (t, 2, ports)."""
        if not weights.nnz:
            return np.zeros((len(self.state_pu), 2, len(ports)))
        return self.sensitivity.gradient(np.arange(len(self.state_pu)), self._weighted_adjoint(weights), ports)

    @cached_property
    def state_equations(self) -> AcStates:
        """The equations of the states."""
        own = self.formulation
        is_flow = own.limits.branch >= 0
        return AcStates(self.sensitivity, own.imported, own.magnitudes, own.is_held, is_flow, own.steepness)

    def lagrangian(self, weights: Weights) -> AcLagrangian:
        """Give access to derivatives of ``import_p P0 + import_q Q0 - sum limits g``."""
        bought = np.flatnonzero((weights.import_p != 0) | (weights.import_q != 0))
        real, reactive = self._import_adjoints(bought)
        adjoint = -self._weighted_adjoint(weights.limits)
        adjoint[:, bought] += real * weights.import_p[bought] + reactive * weights.import_q[bought]
        return AcLagrangian(self.state_equations, adjoint, weights.import_p + 1j * weights.import_q, weights.limits)


class AcTangent:
    """The AC network, linearised where it stands; see `dlmp.formulation.interface.Formulation`.

    Parameters
    ----------
    network
        The network.
    law_pu
        (t, l) Nominal consumption of the loads that follow their voltage [pu]; default: none.
    counts_reactive_import
        False where reactive import has neither price nor limit: its gradients are then given as zero, unasked for.
    """

    is_linear = False

    def __init__(self, network: Network, law_pu: ComplexArray | None = None, *, counts_reactive_import: bool = True):
        self.network = network
        self.counts_reactive_import = counts_reactive_import
        self.flow = PowerFlow(network, law_pu)
        self.imported = ImportedPower(self.flow)
        self.is_held = np.zeros(network.port_count, bool)
        self.is_held[network.source] = True
        blocks = [_voltages(network), _flows(network, self.flow.equations)]
        if isinstance(network, UnbalancedNetwork) and np.isfinite(network.v_unbalance_max):
            blocks.append(_unbalance(network, network.v_unbalance_max))
        self.magnitudes = Magnitudes(
            rows=self._by_state([quantity.rows for quantity, _ in blocks]),
            at=np.concatenate([quantity.at for quantity, _ in blocks]),
            over=self._by_state([quantity.over for quantity, _ in blocks]),
        )
        self.limits = Limits.joined([limits for _, limits in blocks])
        self.steepness = np.where(self.limits.branch >= 0, 1.0, np.nan)

    def _by_state(self, blocks: list[sparse.csr_array]) -> sparse.csr_array:
        """Rows over the whole state, of blocks of which some are over the voltages alone."""
        parts = [(block.data, block.indices, block.indptr) for block in blocks]
        return sparse.csr_array(
            sparse.vstack([sparse.csr_array(part, shape=(len(part[2]) - 1, self.flow.size)) for part in parts])
        )

    def operate(self, injection_pu: ComplexArray, start: AcPoint | None = None) -> AcPoint:
        """Solve the AC power flow of every interval at (t, n) injections [pu]."""
        if start is None:
            state_pu, converged = self.flow.solve(injection_pu)
            return AcPoint(self, Sensitivity(self.flow, state_pu, injection_pu), converged)
        same = (injection_pu == start.injection_pu).all(axis=1) & start.converged
        moved = np.flatnonzero(~same)
        state_pu, converged = start.state_pu.copy(), start.converged.copy()
        if len(moved):
            state_pu[moved], converged[moved] = self.flow.solve(
                injection_pu[moved], start.state_pu[moved], moved, start.sensitivity.jacobian
            )
        point = AcPoint(self, Sensitivity(self.flow, state_pu, injection_pu), converged)
        point.take_over(start, np.flatnonzero(same))
        return point

    def carried(self, point: AcPoint, state: IntArray) -> AcPoint:
        """Take over the states of a `point` of the same network, of ``state[i]`` there as state i here.

        Where loads that follow their voltage are others the state is none of this network yet.
        """
        is_same = self.flow.ports.has_laws_of(point.formulation.flow.ports, state)
        sensitivity = Sensitivity(self.flow, point.state_pu[state], point.injection_pu[state])
        carried = AcPoint(self, sensitivity, point.converged[state] & is_same)
        carried.take_over(point, np.flatnonzero(is_same & (state == np.arange(len(state)))))
        return carried


def _voltages(network: Network) -> tuple[Magnitudes, Limits]:
    """Magnitude of every priced node's voltage, and of every pair's where the nodes float."""
    ports = np.flatnonzero(network.is_priced)
    ports = ports[~np.isin(ports, network.source)]
    node = network.port_node[ports]
    rows = sparse.csr_array(sparse.diags_array(network.port_scale[ports]) @ network.incidence[ports])
    count = len(ports)
    return Magnitudes(rows, np.full(count, -1), sparse.csr_array(rows.shape)), Limits(
        element=_named("bus", network.port_bus[ports]),
        phase=network.port_phase[ports],
        end=np.full(count, "-"),
        cause=np.full(count, VOLTAGE),
        lower=network.v_min_pu[node],
        upper=network.v_max_pu[node],
        unit=np.full(count, "pu"),
        per_pu=np.ones(count),
        power=np.ones(count),
        convex=np.zeros(count, bool),
        branch=np.full(count, -1),
    )


def _flows(network: Network, equations: NodalEquations) -> tuple[Magnitudes, Limits]:
    """Current or apparent power of every rated conductor; of two currents in a fixed ratio the tighter limit alone."""
    ratio = np.where(network.rating_is_current, _current_ratio(equations), np.nan)
    with np.errstate(invalid="ignore"):  # no rating, of an end without a current: nothing is tighter
        is_tighter = network.rating_to_pu < (1 - ONE_RATING) * ratio * network.rating_from_pu
    at_from = np.flatnonzero(np.isfinite(network.rating_from_pu) & ~is_tighter)
    at_to = np.flatnonzero(np.isfinite(network.rating_to_pu) & (is_tighter | np.isnan(ratio)))
    branch = np.r_[at_from, at_to]
    end = np.r_[network.from_node[at_from], network.to_node[at_to]]
    is_current = network.rating_is_current[branch]
    rows = sparse.csr_array(sparse.vstack([equations.at_from[at_from], equations.at_to[at_to]]))
    count = len(branch)
    return Magnitudes(rows, np.where(is_current, -1, end), sparse.csr_array(rows.shape)), Limits(
        element=network.branch[branch],
        phase=network.phase[end],
        end=_ends(at_from, at_to),
        cause=np.full(count, CONGESTION),
        lower=np.full(count, -np.inf),
        upper=np.r_[network.rating_from_pu[at_from], network.rating_to_pu[at_to]],
        unit=np.where(is_current, "A", "kVA"),
        per_pu=np.where(is_current, network.current_base_a[end], BASE_KVA),
        power=np.ones(count),
        convex=np.ones(count, bool),
        branch=branch,
    )


def _unbalance(network: Network, most: float) -> tuple[Magnitudes, Limits]:
    """Negative- over positive-sequence voltage of every bus that has all three phases."""
    turn = np.exp(2j * np.pi / 3)
    buses, negative, positive = [], [], []
    for number, bus in enumerate(network.buses):
        nodes = network.nodes_at(number)
        of_phase = dict(zip(network.phase[nodes].tolist(), nodes.tolist(), strict=True))
        if set(PHASES) <= set(of_phase) and not network.is_source[nodes].any():
            place = [of_phase[phase] for phase in PHASES]
            buses.append(str(bus))
            negative.append((place, np.array([1, turn**2, turn]) / 3))
            positive.append((place, np.array([1, turn, turn**2]) / 3))
    count = len(buses)
    rows, over = (
        sparse.csr_array(
            (
                np.concatenate([np.zeros(0, complex), *(value for _, value in parts)]),
                (np.repeat(np.arange(count), 3), np.array([place for place, _ in parts], dtype=int).ravel()),
            ),
            shape=(count, network.node_count),
        )
        for parts in (negative, positive)
    )
    return Magnitudes(rows, np.full(count, -1), over), Limits(
        element=_named("bus", np.array(buses, dtype=str)),
        phase=np.full(count, "123"),
        end=np.full(count, "-"),
        cause=np.full(count, UNBALANCE),
        lower=np.full(count, -np.inf),
        upper=np.full(count, most),
        unit=np.full(count, "%"),
        per_pu=np.full(count, 100.0),
        power=np.ones(count),
        convex=np.zeros(count, bool),
        branch=np.full(count, -1),
    )


def _current_ratio(equations: NodalEquations) -> FloatArray:
    """(m,) Current at the to end of each conductor over that at its from end; NaN where it is not fixed."""
    at_from, at_to = equations.at_from, equations.at_to
    size = at_from.multiply(at_from.conj()).sum(axis=1).real
    factor = at_to.multiply(at_from.conj()).sum(axis=1) / np.where(size > 0, size, 1.0)
    rest = abs(at_to - sparse.diags_array(factor) @ at_from).max(axis=1).toarray().ravel()
    largest = abs(at_to).max(axis=1).toarray().ravel()
    return np.where((size > 0) & (rest <= ONE_CURRENT * largest), np.abs(factor), np.nan)


def _ends(at_from: IntArray, at_to: IntArray) -> npt.NDArray[np.str_]:
    """Which end each limit is at; ``both`` for a conductor whose ends share one."""
    return np.r_[np.where(np.isin(at_from, at_to), "from", "both"), np.full(len(at_to), "to")]


def _named(kind: str, names: npt.NDArray[np.str_]) -> npt.NDArray[np.str_]:
    return np.array([f"{kind} {name}" for name in names], dtype=str)
