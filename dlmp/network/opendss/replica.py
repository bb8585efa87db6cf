"""The circuit of a network in OpenDSS, with the loads and awards of a case in place of its own.

A `Replica` has the taps of the network.  Every load, generator and control of the circuit is switched off, but
for those that move taps and capacitors, which act when told to.  In their place stand single-phase loads: one of
constant power at each port in use, and one for each voltage law in use, of the load model that says the same.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from dss import DSSException
from scipy import sparse

from dlmp.errors import InputError, Problem, Problems
from dlmp.network.loads import BAND_SLACK
from dlmp.network.model import ComplexArray, IntArray, UnbalancedNetwork, some_of
from dlmp.network.opendss.circuit import (
    BRANCHES,
    CONVERGENCE,
    DEGREES_PER_RADIAN,
    ELEMENT,
    MAX_ITERATIONS,
    REGULATING,
    Circuit,
    open_circuit,
    set_tap,
    settled_taps,
)
from dlmp.units import BASE_KVA

MODELS = {0.0: 1, 1.0: 5, 2.0: 2}
"""OpenDSS's load model of each exponent that holds in the band and at its edges."""
CVR_MODEL = 4
"""Load model of any exponent in the band, and of constant power at its edges."""
LEAST_PU, MOST_PU = 0.1, 10.0
"""Widest band of a load; a solution in which one of constant power at a port is outside is none."""
ROUND_ITERATIONS, MAX_ROUNDS = 25, 40
STEADY_PU = 1e-10
"""Voltages that move by less between two rounds of iterations have converged."""
CONTROL_CONVERGENCE = 1e-5
"""Of OpenDSS's power flow while controls act: they do only where it converges, and floating nodes keep it from more."""
KEPT = (*BRANCHES, *REGULATING, "vsource")
"""Classes of a circuit that stay on in a replica."""


@contextmanager
def open_replica(
    network: UnbalancedNetwork, ports: npt.NDArray[np.bool_], laws: npt.NDArray[np.bool_]
) -> Iterator["Replica"]:
    """Compile the circuit of `network` and put loads at the `ports` and `laws` that are in use."""
    with open_circuit(Path(network.origin), network.taps, needs_solution=False) as circuit:
        yield Replica(circuit, network, ports, laws)


@dataclass(frozen=True, eq=False)
class State:
    """One interval: voltages (n,) [pu], power of the sources [kVA], currents into both ends of conductors (m,) [pu]."""

    v_pu: ComplexArray
    fed_kva: complex
    current_from_pu: ComplexArray
    current_to_pu: ComplexArray
    converged: bool


class Replica:
    """A circuit with loads that can be set; see `open_replica`."""

    def __init__(
        self,
        circuit: Circuit,
        network: UnbalancedNetwork,
        ports: npt.NDArray[np.bool_],
        laws: npt.NDArray[np.bool_],
    ):
        self.dss, self.network = circuit.dss, network
        _place(circuit, network)  # before new loads make buses that the circuit lacks
        is_source = np.zeros(network.port_count, bool)
        is_source[network.source] = True
        self.ports, self.laws = np.flatnonzero(ports & ~is_source), np.flatnonzero(laws)
        self.nominal_pu = np.where(self.ports < network.node_count, 1.0, 3**0.5)
        for name in circuit.element_names():
            if name.partition(".")[0] not in KEPT:
                self.dss.Circuit.Disable(name)
        _set_sources(circuit, network)
        self.first_load = int(self.dss.Loads.Count()) + 1
        self._add_loads()
        self.drawn_kva = np.zeros(len(self.ports) + len(self.laws), dtype=complex)
        self._restart()
        self.dss.Solution.Solve()
        self.circuit = Circuit(self.dss)
        self.node = _place(self.circuit, network)
        self.determined = network.incidence[_determined_ports(network)]
        self.at_from, self.at_to = _conductors(self.circuit, network, self.node)
        self._solve()
        self.without_load = self._voltages()

    def state(self, injection_kva: ComplexArray, law_kva: ComplexArray) -> State:
        """Solve with the taps as they are; without a solution, the voltages without load and no currents."""
        self._draw(np.r_[-injection_kva[self.ports], law_kva[self.laws]])
        if not self._solve():
            self._restart()
            none = np.zeros(self.network.branch_count, dtype=complex)
            return State(self.without_load, 0.0, none, none, converged=False)
        amperes = self._amperes()
        base_a = self.network.current_base_a
        at_from = (self.at_from @ amperes) / base_a[self.network.from_node]
        at_to = (self.at_to @ amperes) / base_a[self.network.to_node]
        is_source = self.network.branch_kind == "source"
        emf = self._voltages()[self.network.from_node[is_source]]
        fed = complex((emf * np.conj(at_from[is_source])).sum()) * BASE_KVA
        return State(self._voltages(), fed, at_from, at_to, converged=True)

    def settle(self, injection_kva: ComplexArray, law_kva: ComplexArray) -> tuple[dict[str, float], bool]:
        """Let regulators and switched capacitors act from the network's taps, and tell whether they came to rest."""
        self._restart()
        for device, value in self.network.taps.items():
            set_tap(self.dss, device, value)
        self._draw(np.r_[-injection_kva[self.ports], law_kva[self.laws]])
        if not self._solve():
            return self.network.taps, False
        self.dss.Text.Command("set controlmode=static")
        self.dss.Solution.Convergence(CONTROL_CONVERGENCE)
        self.dss.Solution.MaxIterations(MAX_ITERATIONS)
        try:
            self.dss.Solution.Solve()
        except DSSException:  # too many control iterations: a regulator hunts
            return settled_taps(self.circuit), False
        return settled_taps(self.circuit), bool(self.dss.Solution.Converged())

    def _restart(self) -> None:
        """Forget the solution, and let no control act."""
        self.dss.Text.Command("set mode=snapshot")
        self.dss.Text.Command("set controlmode=off")
        self.dss.Text.Command("set loadmodel=powerflow")
        self.dss.Solution.LoadMult(1.0)
        self.dss.Solution.Convergence(CONVERGENCE)
        self.dss.Solution.MaxIterations(ROUND_ITERATIONS)

    def _add_loads(self) -> None:
        """Add a load without power for each port and law in use."""
        network = self.network
        law = network.law
        wide = f"Model=1 Vminpu={LEAST_PU} Vmaxpu={MOST_PU} Vlowpu={LEAST_PU / 2}"
        problems = Problems()
        for port, nominal_pu in zip(self.ports.tolist(), self.nominal_pu.tolist(), strict=True):
            self._add_load(f"dlmp_port_{port}", port, nominal_pu, wide)
        for index in self.laws:
            name = str(network.port_bus[law.port[index]])
            model = _model(float(law.exponent[index]), float(law.outer[index]), name, problems)
            low = max(float(law.u_min[index]) * (1 - BAND_SLACK), LEAST_PU)
            high = min(float(law.u_max[index]) * (1 + BAND_SLACK), MOST_PU)
            band = f"Vminpu={low!r} Vmaxpu={high!r} Vlowpu={min(float(law.u_low[index]), low)!r}"
            self._add_load(f"dlmp_law_{index}", int(law.port[index]), float(law.base_pu[index]), f"{model} {band}")
        problems.raise_if_any()

    def _add_load(self, name: str, port: int, base_pu: float, rest: str) -> None:
        network = self.network
        nodes = [port] if port < network.node_count else network.pair[port - network.node_count].tolist()
        bus = ".".join([str(network.bus[nodes[0]]), *(str(network.phase[node]) for node in nodes)])
        kv = float(network.base_kv[nodes[0]] * base_pu)
        self.dss.Text.Command(
            f'New Load.{name} Phases=1 Bus1="{bus}" Conn=wye kV={kv!r} Status=fixed kW=0 kvar=0 {rest}'
        )

    def _draw(self, power_kva: ComplexArray) -> None:
        """Set the loads to `power_kva`, those of ports before those of laws."""
        loads = self.dss.Loads
        for index in np.flatnonzero(power_kva != self.drawn_kva):
            loads.Idx(self.first_load + int(index))
            loads.kW(float(power_kva[index].real))
            loads.kvar(float(power_kva[index].imag))
        self.drawn_kva = power_kva

    def _solve(self) -> bool:
        """Iterate until the voltages that are determined stand still; OpenDSS waits for all others too."""
        last = self.determined @ self._voltages()
        for _ in range(MAX_ROUNDS):
            self.dss.Solution.Solve()
            now = self.determined @ self._voltages()
            if not np.isfinite(now).all():
                return False
            if self.dss.Solution.Converged() or np.abs(now - last).max() <= STEADY_PU:
                return self._has_its_power()
            last = now
        return False

    def _has_its_power(self) -> bool:
        """Whether every load of constant power is in the band where it is one."""
        u = np.abs(self.network.incidence[self.ports] @ self._voltages()) / self.nominal_pu
        return bool(np.all((u > LEAST_PU) & (u < MOST_PU)))

    def _voltages(self) -> ComplexArray:
        """(n,) Voltages of the network's nodes [pu]."""
        v = np.empty(self.network.node_count, dtype=complex)
        v[self.network.source] = self.network.source_v_pu
        inner = ~self.network.is_source
        v[inner] = self.circuit.v_volt()[self.node[inner]] / (self.network.base_kv[inner] * 1000)
        return v

    def _amperes(self) -> ComplexArray:
        """Current into every conductor of every branch, and then of every source."""
        parts = [np.asarray(self.dss.PDElements.AllCurrents(), dtype=float)]
        for name in _sources(self.network):
            self.dss.Circuit.SetActiveElement(name)
            parts.append(np.asarray(self.dss.CktElement.Currents(), dtype=float))
        values = np.concatenate(parts)
        return np.asarray(values[0::2] + 1j * values[1::2])


def _sources(network: UnbalancedNetwork) -> list[str]:
    """``vsource.NAME`` of every source, which is also the name of its bus."""
    return list(dict.fromkeys(network.bus[network.source].tolist()))


def _set_sources(circuit: Circuit, network: UnbalancedNetwork) -> None:
    """Give every source the voltage that it has in `network`."""
    dss = circuit.dss
    for name in _sources(network):
        emf = int(np.flatnonzero(network.bus[network.source] == name)[0])
        node = int(network.source[emf])
        dss.Vsources.Name(name.partition(".")[2])
        phases = int(dss.Vsources.Phases())
        one_pu_kv = dss.Vsources.BasekV() / (2 * np.sin(np.pi / phases) if phases > 1 else 1.0)
        v_pu = network.source_v_pu[emf] * network.base_kv[node] / one_pu_kv
        size, angle = float(np.abs(v_pu)), float((np.angle(v_pu) + 2 * np.pi) * DEGREES_PER_RADIAN - 360)
        dss.Text.Command(f"edit {name} pu={size!r} angle={angle!r}")


def _place(circuit: Circuit, network: UnbalancedNetwork) -> IntArray:
    """(n,) Number in OpenDSS of each node of `network`, -1 for those behind a source's impedance."""
    number = {(bus, phase): place for place, (bus, phase) in enumerate(zip(circuit.bus, circuit.phase, strict=True))}
    node = np.array([number.get(key, -1) for key in zip(network.bus, network.phase, strict=True)], dtype=np.int64)
    _refuse_changed(network, network.bus[(node < 0) & ~network.is_source].tolist())
    return node


def _refuse_changed(network: UnbalancedNetwork, missing: list[str]) -> None:
    if missing:
        message = f"is no longer the circuit that the network was read from: it lacks {some_of(missing)}"
        raise InputError([Problem(ELEMENT, "file", network.origin, message)])


def _determined_ports(network: UnbalancedNetwork) -> IntArray:
    """Ports whose voltage the circuit determines: nodes to ground unless they float, then between them."""
    return np.flatnonzero(np.r_[~network.is_floating, network.is_floating[network.pair].all(axis=1)])


def _conductors(
    circuit: Circuit, network: UnbalancedNetwork, node: IntArray
) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Current into each conductor of the network at both ends, (m, c) each, per current of OpenDSS's conductors."""
    dss = circuit.dss
    sizes = np.array(dss.PDElements.AllNumConductors()) * np.array(dss.PDElements.AllNumTerminals())
    start = dict(zip(map(str.lower, dss.PDElements.AllNames()), np.cumsum(sizes) - sizes, strict=True))
    width = int(sizes.sum())
    entries: dict[str, list[int]] = {}
    for entry, name in enumerate(network.branch.tolist()):
        entries.setdefault(name, []).append(entry)
    for name in _sources(network):
        dss.Circuit.SetActiveElement(name)
        start[name] = width
        width += len(dss.CktElement.NodeRef())
    _refuse_changed(network, [name for name in entries if name not in start])
    of_node = np.full(len(circuit.bus) + 1, -1)
    of_node[node[node >= 0] + 1] = np.flatnonzero(node >= 0)
    at_from: list[tuple[int, int, float]] = []
    at_to: list[tuple[int, int, float]] = []
    for name, own in entries.items():
        dss.Circuit.SetActiveElement(name)
        conductors = of_node[np.array(dss.CktElement.NodeRef(), dtype=np.int64)].tolist()
        to_node = network.to_node[own].tolist()
        is_source = bool(network.branch_kind[own[0]] == "source")
        from_node = to_node if is_source else network.from_node[own].tolist()
        for end, nodes, sign in ((at_from, from_node, -1.0 if is_source else 1.0), (at_to, to_node, 1.0)):
            entry_of = dict(zip(reversed(nodes), reversed(own), strict=True))
            end += [(entry_of[at], start[name] + k, sign) for k, at in enumerate(conductors) if at in entry_of]
    shape = (network.branch_count, width)
    return _matrix(at_from, shape), _matrix(at_to, shape)


def _matrix(entries: list[tuple[int, int, float]], shape: tuple[int, int]) -> sparse.csr_array:
    row, column, value = np.array(entries, dtype=float).reshape(len(entries), 3).T
    return sparse.csr_array((value, (row.astype(np.int64), column.astype(np.int64))), shape=shape)


def _model(exponent: float, outer: float, bus: str, problems: Problems) -> str:
    """The load model of a law."""
    if exponent == outer and exponent in MODELS:
        return f"Model={MODELS[exponent]}"
    if outer != 0.0:
        message = "OpenDSS has no load model of these exponents in the band and at its edges"
        problems.add(f"load at bus {bus}", "exponent, outer", (exponent, outer), message)
    return f"Model={CVR_MODEL} CVRwatts={exponent!r} CVRvars={exponent!r}"
