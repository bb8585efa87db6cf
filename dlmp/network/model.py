"""The network as frozen arrays over nodes and branches, in per unit of `dlmp.units.BASE_KVA`.

A node is a (bus, phase) pair; a balanced feeder has one node per bus, whose phase is ``"123"``.
Branch ends follow ``I_from = from_admittance @ V`` and ``I_to = to_admittance @ V``, both into the
branch; the network follows ``I = admittance @ V``, currents into the network.

Power is injected at *ports*: port i < n is node i against ground, port n + k the pair of nodes
``pair[k]``, across which line-to-line ("delta") loads and resources stand.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse import csgraph

from dlmp.errors import InputError, Problem, Problems
from dlmp.network.loads import LoadLaws, no_laws
from dlmp.network.profiles import ElementProfiles
from dlmp.units import BASE_KVA, base_current_a, base_ohm, base_phase_current_a

FloatArray = npt.NDArray[np.float64]
ComplexArray = npt.NDArray[np.complex128]
IntArray = npt.NDArray[np.int64]
TextArray = npt.NDArray[np.str_]

BALANCED_PHASE = "123"
"""Phase label of a node that stands for all three phases of a balanced bus."""
PHASES = ("1", "2", "3")
"""Labels of phases; further labels of single nodes (``4`` and up) are neutral conductors."""


LINE_TO_LINE = 3**-0.5
"""Nominal voltages to ground per nominal voltage between phases."""


def frozen(values: npt.ArrayLike, dtype: npt.DTypeLike = np.float64) -> npt.NDArray[Any]:
    """Return a read-only copy of `values`."""
    array = np.array(values, dtype=dtype)
    array.setflags(write=False)
    return array


def frozen_rows(matrix: sparse.csr_array) -> sparse.csr_array:
    """Return a read-only copy of `matrix`, each entry once and the columns of a row in order."""
    copy = sparse.csr_array(matrix, copy=True)
    copy.sum_duplicates()
    for part in (copy.data, copy.indices, copy.indptr):
        part.setflags(write=False)
    return copy


def _no_pairs() -> IntArray:
    return np.zeros((0, 2), dtype=np.int64)


@dataclass(frozen=True, eq=False, kw_only=True)
class Network:
    """A distribution network of n nodes and m branch conductors; see `BalancedNetwork`, `UnbalancedNetwork`.

    Parameters
    ----------
    name
        What the feeder is called.
    bus, phase
        (n,) Bus and phase of each node.
    base_kv
        (n,) Base voltage [kV]: line to line of a balanced node, line to neutral of a single phase's.
    v_min_pu, v_max_pu
        (n,) Voltage band [pu]; not applied at source nodes and neutrals.
    source
        (k,) Nodes whose voltage is held by the upstream grid.
    source_v_pu
        (k,) Their complex voltage [pu].
    branch, branch_kind
        (m,) Name and kind (``line``, ``transformer``) of each branch; one entry per conductor.
    from_node, to_node
        (m,) Nodes at its ends.
    rating_from_pu, rating_to_pu
        (m,) Limit at each end [pu]; infinite where there is none.
    rating_is_current
        (m,) True where the rating limits the current, False where it limits apparent power.
    element, element_kind, element_load, element_p_kw, element_q_kvar
        (e,) Fixed loads and generators, one entry per port and law: name, ``load``,
        ``generation`` or ``storage``, column of the case's loads (see `load_port`), consumption.
    alias_bus, alias_node
        (a,) Further bus names, fused by closed switches with the bus of the node at `alias_node`.
    pair
        (d, 2) Nodes of each line-to-line port, both of one bus.
    law
        Loads that follow their voltage.
    is_floating
        (n,) True where the voltage to ground is not determined, as behind a delta winding.
    xy
        (n, 2) Where the bus of each node is on a map, in any unit of length, east and north; NaN where that is not
        known.
    """

    name: str
    bus: TextArray
    phase: TextArray
    base_kv: FloatArray
    v_min_pu: FloatArray
    v_max_pu: FloatArray
    source: IntArray
    source_v_pu: ComplexArray
    branch: TextArray
    branch_kind: TextArray
    from_node: IntArray
    to_node: IntArray
    rating_from_pu: FloatArray
    rating_to_pu: FloatArray
    rating_is_current: npt.NDArray[np.bool_]
    element: TextArray
    element_kind: TextArray
    element_load: IntArray
    element_p_kw: FloatArray
    element_q_kvar: FloatArray
    alias_bus: TextArray
    alias_node: IntArray
    pair: IntArray = field(default_factory=_no_pairs)
    law: LoadLaws = field(default_factory=no_laws)
    is_floating: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    xy: FloatArray = field(default_factory=lambda: np.zeros((0, 2)))

    def __post_init__(self) -> None:
        if not self.is_floating.any():
            object.__setattr__(self, "is_floating", np.zeros(len(self.bus), bool))
        if not self.xy.size:
            object.__setattr__(self, "xy", np.full((len(self.bus), 2), np.nan))
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, np.ndarray):
                object.__setattr__(self, item.name, frozen(value, value.dtype))
            elif sparse.issparse(value):
                object.__setattr__(self, item.name, frozen_rows(value))
        validate(self)

    @property
    def node_count(self) -> int:
        """Number of nodes."""
        return len(self.bus)

    @property
    def branch_count(self) -> int:
        """Number of branch conductors."""
        return len(self.branch)

    @property
    def port_count(self) -> int:
        """Number of ports: nodes, then pairs."""
        return len(self.bus) + len(self.pair)

    @cached_property
    def port_bus(self) -> TextArray:
        """(p,) Bus of each port."""
        return np.concatenate([self.bus, self.bus[self.pair[:, 0]]])

    @cached_property
    def port_phase(self) -> TextArray:
        """(p,) Phase of each port, ``12`` for a pair."""
        return np.concatenate([self.phase, np.char.add(self.phase[self.pair[:, 0]], self.phase[self.pair[:, 1]])])

    @cached_property
    def is_priced(self) -> npt.NDArray[np.bool_]:
        """(p,) True where a price is published: phases to ground, and pairs where that is not determined."""
        phase = np.isin(self.phase, (BALANCED_PHASE, *PHASES))
        floating = self.is_floating[self.pair].all(axis=1)
        return np.concatenate([phase & ~self.is_floating, floating])

    @cached_property
    def voltage_ports(self) -> IntArray:
        """(k,) Where a voltage has a value: nodes, and the priced pairs where that to ground is not determined."""
        pairs = self.node_count + np.flatnonzero(self.is_priced[self.node_count :])
        return np.concatenate([np.flatnonzero(~self.is_floating), pairs])

    @cached_property
    def port_node(self) -> IntArray:
        """(p,) Node whose voltage band holds at each port: itself, or the first of a pair."""
        return np.concatenate([np.arange(self.node_count), self.pair[:, 0]])

    @cached_property
    def port_scale(self) -> FloatArray:
        """(p,) Nominal voltage to ground per nominal voltage of each port."""
        return np.where(np.arange(self.port_count) < self.node_count, 1.0, LINE_TO_LINE)

    @cached_property
    def incidence(self) -> sparse.csr_array:
        """(p, n) Voltage of each port per node voltage."""
        row = np.arange(len(self.pair))
        pairs = sparse.csr_array(
            (np.repeat([1.0, -1.0], len(row)), (np.r_[row, row], self.pair.T.ravel())),
            shape=(len(row), self.node_count),
        )
        return sparse.csr_array(sparse.vstack([sparse.eye_array(self.node_count, format="csr"), pairs]))

    @cached_property
    def load_port(self) -> IntArray:
        """(l,) Port of each load column: constant power at each port in turn, then the laws."""
        return np.concatenate([np.arange(self.port_count), self.law.port])

    @cached_property
    def current_base_a(self) -> FloatArray:
        """(n,) Current of 1 pu [A] in one conductor."""
        balanced = self.phase == BALANCED_PHASE
        return np.where(balanced, base_current_a(self.base_kv), base_phase_current_a(self.base_kv))

    @cached_property
    def buses(self) -> TextArray:
        """Names of the buses, each once, in the order of their first nodes."""
        _, first = np.unique(self.bus, return_index=True)
        return self.bus[np.sort(first)]

    @cached_property
    def bus_number(self) -> dict[str, int]:
        """Number of each bus name in `buses`, aliases included."""
        names = {str(bus): number for number, bus in enumerate(self.buses)}
        for bus, node in zip(self.alias_bus, self.alias_node, strict=True):
            names[str(bus)] = names[str(self.bus[node])]
        return names

    @cached_property
    def bus_of_port(self) -> IntArray:
        """(p,) Number in `buses` of each port's bus."""
        place = {str(bus): number for number, bus in enumerate(self.buses)}
        return np.array([place[str(bus)] for bus in self.port_bus], dtype=np.int64)

    @cached_property
    def _nodes_of_bus(self) -> list[IntArray]:
        number = self.bus_of_port[: self.node_count]
        order = np.argsort(number, kind="stable")
        return np.split(order, np.cumsum(np.bincount(number))[:-1])

    def place(self, port: int) -> str:
        """Bus of a port, with its phase where there are several: ``671.2``."""
        bus, phase = str(self.port_bus[port]), str(self.port_phase[port])
        return bus if phase == BALANCED_PHASE else f"{bus}.{phase}"

    def nodes_at(self, number: int) -> IntArray:
        """Nodes of the bus of that `bus_number`."""
        return self._nodes_of_bus[number]

    @cached_property
    def branch_number(self) -> dict[str, int]:
        """Number of each branch name; a branch has one entry per conductor."""
        return {str(name): number for number, name in enumerate(dict.fromkeys(self.branch.tolist()))}

    def conductors_of(self, branch: str) -> IntArray:
        """Entries of the branch of that name."""
        return np.flatnonzero(self.branch == branch)

    def node(self, bus: str, phase: str | None = None) -> int:
        """Port index of `bus` and `phase`, the only one where that is None.

        Raises
        ------
        InputError
            For an unknown bus, for a phase that it does not have, and without a phase where it has several.
        """
        if bus not in self.bus_number:
            raise InputError(
                [Problem("network", "bus", bus, f"is no bus of {self.name}; known: {some_of(self.buses)}")]
            )
        name = str(self.buses[self.bus_number[bus]])
        own = np.flatnonzero(self.port_bus == name)
        own = own[self.is_priced[own] | (own >= self.node_count)]
        ports = own[self.port_phase[own] == phase if phase else self.is_priced[own]]
        if len(ports) != 1:
            known = ", ".join(self.port_phase[own].tolist())
            raise InputError([Problem(f"bus {bus}", "phase", phase or "", f"name one of its phases: {known}")])
        return int(ports[0])

    def ports_for(self, number: int, phase: str) -> tuple[IntArray, FloatArray]:
        """Ports, and the share of each, of what stands at bus `number` on `phase`; blank is all its phases.

        Raises
        ------
        ValueError
            With a remedy, for a phase that the bus does not have, and for a neutral.
        """
        nodes = self.nodes_at(number)
        own = np.flatnonzero(self.port_bus == self.bus[nodes[0]])
        is_all = phase == "".join(PHASES) and set(PHASES) <= set(self.phase[nodes])
        if phase and not is_all:
            is_phase = np.isin(self.port_phase, (BALANCED_PHASE, *PHASES))
            own = own[is_phase[own] | (own >= self.node_count)]
            ports = own[self.port_phase[own] == phase]
            if not len(ports):
                known = ", ".join(self.port_phase[own].tolist())
                if phase in self.phase[nodes]:
                    raise ValueError(f"is a neutral conductor, without a voltage to ground; name one of {known}")
                raise ValueError(f"the bus has the phases {known}; name one, or leave it blank for all")
            if ports[0] < self.node_count and self.is_floating[ports[0]]:
                raise ValueError("the bus floats behind a delta winding: name a pair of phases such as 12")
            return ports, np.ones(1)
        ports = own[self.is_priced[own]]
        if not len(ports):
            raise ValueError("the bus has no phase to stand at")
        return ports, np.full(len(ports), 1.0 / len(ports))

    @property
    def from_admittance(self) -> sparse.csr_array:
        """(m, n) Current into each branch at its from end, per node voltage [pu]."""
        raise NotImplementedError

    @property
    def to_admittance(self) -> sparse.csr_array:
        """(m, n) Current into each branch at its to end, per node voltage [pu]."""
        raise NotImplementedError

    @property
    def shunt_admittance(self) -> sparse.csr_array:
        """(n, n) Current into what stands at the nodes beside the branches, per node voltage [pu]."""
        raise NotImplementedError

    @cached_property
    def admittance(self) -> sparse.csc_array:
        """(n, n) Nodal admittance matrix [pu]."""
        row = np.arange(self.branch_count)
        shape = (self.node_count, self.branch_count)
        at_from = sparse.csr_array((np.ones(self.branch_count), (self.from_node, row)), shape=shape)
        at_to = sparse.csr_array((np.ones(self.branch_count), (self.to_node, row)), shape=shape)
        return sparse.csc_array(at_from @ self.from_admittance + at_to @ self.to_admittance + self.shunt_admittance)

    @cached_property
    def is_source(self) -> npt.NDArray[np.bool_]:
        """(n,) True at nodes whose voltage is held."""
        mask = np.zeros(self.node_count, bool)
        mask[self.source] = True
        return mask

    @cached_property
    def is_radial(self) -> bool:
        """True when every node is reached from exactly one source by exactly one path."""
        return self.branch_count == self.node_count - len(self.source)

    def element_loads(self) -> tuple[FloatArray, FloatArray]:
        """Net fixed consumption of each load column, (l,) [kW] and (l,) [kvar]."""
        p_kw, q_kvar = np.zeros(len(self.load_port)), np.zeros(len(self.load_port))
        np.add.at(p_kw, self.element_load, self.element_p_kw)
        np.add.at(q_kvar, self.element_load, self.element_q_kvar)
        return p_kw, q_kvar


@dataclass(frozen=True, eq=False, kw_only=True)
class BalancedNetwork(Network):
    """A network with one node per bus and one pi section, behind an ideal transformer, per branch.

    Parameters
    ----------
    series_pu
        (m,) Series impedance [pu], at the to side.
    tap
        (m,) Complex voltage ratio from/to of the ideal transformer at the from side; 1 for a line.
    shunt_from_pu, shunt_to_pu
        (m,) Shunt admittance of the branch's pi section at each end [pu], behind the tap.
    node_shunt_pu
        (n,) Shunt admittance at each node [pu].
    """

    series_pu: ComplexArray
    tap: ComplexArray
    shunt_from_pu: ComplexArray
    shunt_to_pu: ComplexArray
    node_shunt_pu: ComplexArray

    @cached_property
    def from_admittance(self) -> sparse.csr_array:
        """(m, n) Current into each branch at its from end, per node voltage [pu]."""
        series = 1 / self.series_pu
        own = (series + self.shunt_from_pu) / np.abs(self.tap) ** 2
        return self._end_rows(own, -series / np.conj(self.tap))

    @cached_property
    def to_admittance(self) -> sparse.csr_array:
        """(m, n) Current into each branch at its to end, per node voltage [pu]."""
        series = 1 / self.series_pu
        return self._end_rows(-series / self.tap, series + self.shunt_to_pu)

    @cached_property
    def shunt_admittance(self) -> sparse.csr_array:
        """(n, n) Current into the shunts, per node voltage [pu]."""
        return sparse.csr_array(sparse.diags_array(self.node_shunt_pu))

    def _end_rows(self, at_from: ComplexArray, at_to: ComplexArray) -> sparse.csr_array:
        row = np.arange(self.branch_count)
        return sparse.csr_array(
            (np.r_[at_from, at_to], (np.r_[row, row], np.r_[self.from_node, self.to_node])),
            shape=(self.branch_count, self.node_count),
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class UnbalancedNetwork(Network):
    """A network of single phases, its branches given by primitive admittances.

    A branch has an entry for each pair of conductors at its two ends, in order; where one end has fewer
    (the primary of a centre-tapped transformer), its row is zero.

    Parameters
    ----------
    from_rows, to_rows, shunt_rows
        (m, n), (m, n) and (n, n) The matrices `from_admittance`, `to_admittance`, `shunt_admittance`.
    v_unbalance_max
        Largest ratio of negative- to positive-sequence voltage at three-phase buses; infinite for no limit.
    tap_element, tap_pu
        (w,) Regulator windings, and the taps at which they are frozen [pu]; and the closed steps of switched
        capacitors.
    origin
        File that the network was read from; the certificate asks its program.
    notes
        What the importer could not represent exactly.
    profiles
        How the elements change over the day or year; None where they do not.
    """

    from_rows: sparse.csr_array
    to_rows: sparse.csr_array
    shunt_rows: sparse.csr_array
    v_unbalance_max: float = np.inf
    tap_element: TextArray = field(default_factory=lambda: np.zeros(0, dtype=str))
    tap_pu: FloatArray = field(default_factory=lambda: np.zeros(0))
    origin: str = ""
    notes: tuple[str, ...] = ()
    profiles: ElementProfiles | None = None

    @property
    def taps(self) -> dict[str, float]:
        """`tap_pu` by name."""
        return dict(zip(self.tap_element.tolist(), self.tap_pu.tolist(), strict=True))

    @property
    def from_admittance(self) -> sparse.csr_array:
        """(m, n) Current into each branch at its from end, per node voltage [pu]."""
        return self.from_rows

    @property
    def to_admittance(self) -> sparse.csr_array:
        """(m, n) Current into each branch at its to end, per node voltage [pu]."""
        return self.to_rows

    @property
    def shunt_admittance(self) -> sparse.csr_array:
        """(n, n) Current into what stands at the nodes beside the branches, per node voltage [pu]."""
        return self.shunt_rows


def some_of(names: Sequence[str] | TextArray, count: int = 6) -> str:
    """First few of `names`, for a message."""
    shown = ", ".join(str(name) for name in names[:count])
    return shown if len(names) <= count else f"{shown}, ... ({len(names)} in all)"


def repeated(names: TextArray) -> list[str]:
    """Names that stand more than once, each once."""
    unique, counts = np.unique(names, return_counts=True)
    return [str(name) for name in unique[counts > 1]]


def validate(network: Network) -> None:
    """Raise one `InputError` with everything that is wrong with `network`."""
    problems = Problems()
    _check_names(network, problems)
    _check_numbers(network, problems)
    if isinstance(network, BalancedNetwork):
        _check_sections(network, problems)
    _check_branches(network, problems)
    _check_ports(network, problems)
    if not problems.found:
        _check_connected(network, problems)
    problems.raise_if_any()


def _check_names(network: Network, problems: Problems) -> None:
    if network.node_count == 0:
        problems.add("network", "bus", 0, "a network needs at least one bus")
    names = network.bus if isinstance(network, BalancedNetwork) else network.buses
    for bus in repeated(np.concatenate([names, network.alias_bus])):
        problems.add(f"bus {bus}", "bus", bus, "stands more than once; bus names must be unique")
    if isinstance(network, BalancedNetwork):
        for branch in repeated(network.branch):
            problems.add(f"line {branch}", "line", branch, "stands more than once; branch names must be unique")
    else:
        nodes = np.char.add(np.char.add(network.bus, "."), network.phase)
        for node in repeated(nodes):
            problems.add(f"node {node}", "phase", node, "stands more than once; a bus has each phase once")
    if network.node_count and network.is_source.all():
        problems.add("network", "bus", "sources only", "a network needs at least one bus that is no source")
    if len(network.source) == 0:
        problems.add("network", "source", "none", "mark at least one bus as the source (is_source = 1)")


def _check_numbers(network: Network, problems: Problems) -> None:
    for name, owner, column, finite in (
        ("bus", network.bus, "base_kv", network.base_kv),
        ("bus", network.bus, "v_min_pu", network.v_min_pu),
        ("bus", network.bus, "v_max_pu", network.v_max_pu),
        ("element", network.element, "p_kw", network.element_p_kw),
        ("element", network.element, "q_kvar", network.element_q_kvar),
        ("bus", network.bus[network.source], "source_v_pu", network.source_v_pu),
    ):
        for index in np.flatnonzero(~np.isfinite(finite)):
            problems.add(f"{name} {owner[index]}", column, finite[index].item(), "must be a finite number")
    for node in np.flatnonzero(network.base_kv <= 0):
        problems.add(f"bus {network.bus[node]}", "base_kv", float(network.base_kv[node]), "must be above zero")
    wrong = np.flatnonzero((network.v_min_pu > network.v_max_pu) | (network.v_min_pu < 0))
    columns = (values[wrong].tolist() for values in (network.bus, network.v_min_pu, network.v_max_pu))
    for bus, low, high in dict.fromkeys(zip(*columns, strict=True)):
        problems.add(f"bus {bus}", "v_min_pu, v_max_pu", (low, high), "need 0 <= v_min_pu <= v_max_pu")
    for index in np.flatnonzero(np.abs(network.source_v_pu) <= 0):
        problems.add(f"bus {network.bus[network.source[index]]}", "source_v_pu", 0.0, "must be above zero")


def _check_sections(network: BalancedNetwork, problems: Problems) -> None:
    for name, owner, column, finite in (
        ("bus", network.bus, "shunt", network.node_shunt_pu),
        ("line", network.branch, "impedance", network.series_pu),
        ("line", network.branch, "tap", network.tap),
        ("line", network.branch, "shunt", network.shunt_from_pu + network.shunt_to_pu),
    ):
        for index in np.flatnonzero(~np.isfinite(finite)):
            problems.add(f"{name} {owner[index]}", column, finite[index].item(), "must be a finite number")
    for index in np.flatnonzero(network.series_pu == 0):
        problems.add(
            f"line {network.branch[index]}",
            "r_ohm, x_ohm",
            (0.0, 0.0),
            "zero impedance; join the two buses or give it a small one",
        )
    for index in np.flatnonzero(network.series_pu.real < 0):
        base = base_ohm(network.base_kv[network.from_node[index]])
        value = float(network.series_pu[index].real * base)
        problems.add(f"line {network.branch[index]}", "r_ohm", value, "resistance must not be negative")
    for index in np.flatnonzero(np.abs(network.tap) <= 0):
        problems.add(f"line {network.branch[index]}", "tap_ratio", 0.0, "must be above zero")


def _check_branches(network: Network, problems: Problems) -> None:
    for index in np.flatnonzero(network.from_node == network.to_node):
        bus = str(network.bus[network.from_node[index]])
        problems.add(f"line {network.branch[index]}", "to_bus", bus, "a branch must join two different buses")
    for column, rating in (("from", network.rating_from_pu), ("to", network.rating_to_pu)):
        for index in np.flatnonzero(~(rating > 0)):
            is_current = network.rating_is_current[index] and network.base_kv[network.from_node[index]] > 0
            base = network.current_base_a[network.from_node[index]] if is_current else BASE_KVA
            problems.add(
                f"line {network.branch[index]}",
                f"rating at its {column} end",
                float(rating[index] * base),
                f"must be above zero [{'A' if is_current else 'kVA'}]; leave it blank for no limit",
            )


def _check_ports(network: Network, problems: Problems) -> None:
    """Pairs and loads that follow their voltage stand where the power flow solves for one."""
    first, second = network.pair.T
    for index in np.flatnonzero((network.bus[first] != network.bus[second]) | (first == second)):
        ends = f"{network.bus[first[index]]}, {network.bus[second[index]]}"
        problems.add(f"pair {index}", "bus", ends, "a pair is of two phases of one bus")
    held = network.is_source
    for index in np.flatnonzero(held[first] | held[second]):
        problems.add(f"pair {index}", "bus", str(network.bus[first[index]]), "a pair cannot stand at a source")
    for port in network.law.port[np.isin(network.law.port, network.source)]:
        message = "a load that follows its voltage cannot stand at a source"
        problems.add(f"load at bus {network.bus[port]}", "bus", str(network.bus[port]), message)


def _check_connected(network: Network, problems: Problems) -> None:
    _, island = csgraph.connected_components(abs(network.admittance), directed=False)
    fed = np.isin(island, island[network.source])
    for node in np.flatnonzero(~fed):
        problems.add(
            f"bus {network.bus[node]}",
            "island",
            str(network.bus[node]),
            "has no path to a source; close a line to it or remove the bus",
        )
