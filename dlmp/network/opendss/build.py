"""A settled OpenDSS circuit to an `UnbalancedNetwork`.

Lines, transformers, reactors and capacitors come as their primitive admittances; a branch's from end is its first
terminal.  A source becomes nodes of constant voltage, bus ``vsource.NAME``, behind its short-circuit
impedance: import is counted, and the substation price holds, at those nodes.  Generators, PV systems and storage
become fixed generation at the power of OpenDSS's solution, until a resource of the same name takes its place.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse import csgraph

from dlmp.errors import Problems
from dlmp.network.loads import LoadLaws
from dlmp.network.model import PHASES, ComplexArray, FloatArray, IntArray, UnbalancedNetwork, some_of
from dlmp.network.opendss.circuit import (
    BRANCHES,
    DEGREES_PER_RADIAN,
    ELEMENT,
    INJECTIONS,
    Circuit,
    Element,
    check_classes,
    open_circuit,
    settled_taps,
)
from dlmp.network.opendss.loads import LoadPart, phase_pairs, read_loads, shape_name
from dlmp.network.opendss.profiles import LoadShapes, read_load_shapes
from dlmp.units import BASE_KVA

QUADRATIC = 2.0
"""Exponent of a constant impedance, which has no band."""
GROUNDED_SHARE = 0.01
"""Nodes float when their common admittance to ground would let 1 % of their load move them by their whole voltage."""
SMALLEST_LOAD_PU = 0.1
"""Of the load that is meant there, where there is less."""
MULTIPHASE = 0
"""OpenDSS's number of the circuit model that has all phases."""
UNKNOWN_PLACE = np.nan, np.nan


def from_opendss(
    path: Path | str,
    *,
    v_min_pu: float | None = None,
    v_max_pu: float | None = None,
    source_v_pu: float | None = None,
    taps: Mapping[str, float] | None = None,
    ratings: bool = True,
    load_bands: bool = True,
    v_unbalance_max: float = np.inf,
) -> UnbalancedNetwork:
    """Read an OpenDSS circuit.

    Parameters
    ----------
    path
        The master file.
    v_min_pu, v_max_pu
        Voltage band [pu]; default: the circuit's ``NormVMinpu`` and ``NormVMaxpu``.
    source_v_pu
        Voltage of every source [pu]; default: the circuit's own.
    taps
        Taps at which regulators are frozen [pu], and closed steps of switched capacitors, as `UnbalancedNetwork.taps`
        names them; the rest is as OpenDSS's controls settle it in a snapshot.
    ratings
        Whether ``NormAmps`` limits lines and transformers; 0 there is no limit in any case.
    load_bands
        Whether a load becomes an impedance outside its band ``Vminpu`` to ``Vmaxpu``, as in OpenDSS, or keeps its
        law at every voltage.  Where voltages may leave the bands, prices jump at their edges.
    v_unbalance_max
        Largest ratio of negative- to positive-sequence voltage at three-phase buses.

    Raises
    ------
    InputError
        With everything that cannot be read or modelled; what is modelled only nearly is in the network's `notes`.
    """
    path = Path(path)
    with open_circuit(path, taps, source_v_pu) as circuit:
        return network_of(circuit, path, v_min_pu, v_max_pu, ratings, load_bands, v_unbalance_max)


def network_of(
    circuit: Circuit,
    path: Path,
    v_min_pu: float | None = None,
    v_max_pu: float | None = None,
    ratings: bool = True,
    load_bands: bool = True,
    v_unbalance_max: float = np.inf,
) -> UnbalancedNetwork:
    """Make the network of an open circuit; see `from_opendss`."""
    names = circuit.element_names()
    notes = list(check_classes(names))
    problems = Problems()
    loads = read_loads(circuit, problems, notes)
    elements = [circuit.element(name) for name in names if name.partition(".")[0] in BRANCHES]
    sources = [_read_source(circuit, name, problems) for name in names if name.startswith("vsource.")]
    injections = [name for name in names if name.partition(".")[0] in INJECTIONS]
    generation = [part for name in injections for part in _output(circuit, name, notes)]
    base_volt = _base_volts(circuit, problems)
    xy = _places(circuit)
    shapes = read_load_shapes(circuit, [*loads, *generation], problems)
    settled = settled_taps(circuit)
    settings = circuit.dss.Settings
    band = (
        float(settings.NormVminpu()) if v_min_pu is None else v_min_pu,
        float(settings.NormVmaxpu()) if v_max_pu is None else v_max_pu,
    )
    if not 0 <= band[0] <= band[1]:
        remedy = "need 0 <= v_min_pu <= v_max_pu; where one is not given it is NormVminpu or NormVmaxpu"
        problems.add(ELEMENT, "v_min_pu, v_max_pu", band, remedy)
    if settings.CktModel() != MULTIPHASE:
        remedy = "counts only one phase; leave out MakePosSeq and Set CktModel=Positive"
        problems.add(ELEMENT, "CktModel", "positive", remedy)
    title = str(circuit.dss.Circuit.Name())
    problems.raise_if_any()
    loads, within = _bands(loads, band, keep=load_bands)
    notes += within
    builder = _Builder(circuit.bus, circuit.phase, base_volt, notes)
    for source in sources:
        builder.add_source(source)
    for element in elements:
        builder.add_branch(element, is_rated=ratings)
    return builder.network(title, path, band, loads, generation, shapes, settled, v_unbalance_max, xy)


def _bands(loads: list[LoadPart], v_pu: tuple[float, float], *, keep: bool) -> tuple[list[LoadPart], list[str]]:
    """Loads with their bands or without them, and a note where voltages may leave the bands."""
    if not keep:
        return [replace(part, u_min=0.0, u_low=0.0, u_max=np.inf) for part in loads], [
            "loads keep their law at every voltage (load_bands = false)"
        ]
    narrow = [part.name for part in loads if part.exponent != QUADRATIC and not _covers(part, v_pu)]
    if not narrow:
        return loads, []
    names = some_of(list(dict.fromkeys(narrow)))
    return loads, [f"voltages may leave the bands of loads, where prices jump (load_bands = false avoids it): {names}"]


def _covers(part: LoadPart, v_pu: tuple[float, float]) -> bool:
    return part.u_min <= v_pu[0] and v_pu[1] <= part.u_max


@dataclass(frozen=True, eq=False)
class _Source:
    """A voltage source: its nodes, its EMF [V] and its admittance [S], all by phase."""

    name: str
    nodes: IntArray
    emf_volt: ComplexArray
    y_siemens: ComplexArray


@dataclass(frozen=True)
class _Output:
    """Power of a generator, PV system or storage into its node [kW], [kvar]; `shape` and `rated_kva` as of a load."""

    name: str
    first: int
    second: int
    p_kw: float
    q_kvar: float
    shape: str
    rated_kva: complex

    @property
    def kind(self) -> str:
        """Kind of element in the network."""
        return "storage" if self.name.startswith("storage.") else "generation"


def _read_source(circuit: Circuit, name: str, problems: Problems) -> _Source:
    element = circuit.element(name)
    dss = circuit.dss
    dss.Vsources.Name(element.name)
    phases = int(dss.Vsources.Phases())
    if element.terminals[1:].any():
        problems.add(name, "Bus2", str(circuit.property("Bus2")), "must be ground (.0.0.0)")
    if str(circuit.property("ScanType")).lower().startswith("z") or not str(
        circuit.property("Sequence")
    ).lower().startswith("p"):
        problems.add(name, "Sequence", circuit.property("Sequence"), "must be positive")
    size = float(dss.Vsources.BasekV() * dss.Vsources.PU()) * 1000 / (2 * np.sin(np.pi / phases) if phases > 1 else 1.0)
    angle = (360 + float(dss.Vsources.AngleDeg()) - 360 / phases * np.arange(phases)) / DEGREES_PER_RADIAN
    return _Source(element.name, element.terminals[0], size * np.exp(1j * angle), element.y_siemens[:phases, :phases])


def _output(circuit: Circuit, name: str, notes: list[str]) -> list[_Output]:
    """What a generator, PV system or storage gives on each phase in OpenDSS's solution."""
    dss = circuit.dss
    dss.Circuit.SetActiveElement(name)
    phases = int(dss.CktElement.NumPhases())
    nodes = [int(node) for node in dss.CktElement.NodeRef()]
    is_delta = str(circuit.property("Conn")).lower().startswith(("d", "l"))
    parts = np.asarray([dss.CktElement.Voltages(), dss.CktElement.Currents()], dtype=float)
    v_volt, amperes = parts[:, 0::2] + 1j * parts[:, 1::2]
    neutral = v_volt[phases] if len(nodes) > phases and not is_delta else 0.0
    power = -(v_volt[:phases] - neutral) * np.conj(amperes[:phases]) / 1000
    if is_delta:
        power[:] = -(v_volt * np.conj(amperes)).sum() / 1000 / phases
    shape = _output_shape(circuit, name, notes)
    rated = 1 + 1j if name.startswith("pvsystem.") else complex(power.sum())  # actual values are of irradiance there
    return [
        _Output(name, first, second, float(power[phase].real), float(power[phase].imag), shape, rated)
        for phase, (first, second) in enumerate(phase_pairs(nodes, phases, is_delta=is_delta))
    ]


def _output_shape(circuit: Circuit, name: str, notes: list[str]) -> str:
    """Shape that the output of the active element follows, "" for none."""
    kind = name.partition(".")[0]
    if kind == "storage":
        notes.append(f"{name}: in every interval it does what it does in the snapshot; bid it as a resource")
        return ""
    if kind == "generator" and str(circuit.property("Status")).lower().startswith("f"):
        return ""
    shape = shape_name(circuit)
    if shape and kind == "pvsystem":
        notes.append(
            f"{name}: its power is that of the snapshot times its irradiance, at the same power factor and efficiency"
        )
    return shape


def _base_volts(circuit: Circuit, problems: Problems) -> FloatArray:
    """(n,) Line-to-neutral base of every node [V]."""
    dss = circuit.dss
    kv: dict[str, float] = {}
    for name in dict.fromkeys(circuit.bus.tolist()):
        dss.Circuit.SetActiveBus(name)
        kv[name] = float(dss.Bus.kVBase())
    without = [name for name, value in kv.items() if value <= 0]
    if without:
        remedy = "have no base voltage; add Set VoltageBases=[...] and CalcVoltageBases to the master file"
        problems.add(ELEMENT, "VoltageBases", some_of(without), remedy)
    return np.array([kv[name] * 1000 for name in circuit.bus.tolist()])


def _places(circuit: Circuit) -> dict[str, tuple[float, float]]:
    """Where the buses are that have coordinates (``BusCoords``)."""
    dss, places = circuit.dss, {}
    for name in dict.fromkeys(circuit.bus.tolist()):
        dss.Circuit.SetActiveBus(name)
        x, y = float(dss.Bus.X()), float(dss.Bus.Y())
        if dss.Bus.Coorddefined() and (x or y):  # many files say 0, 0 of what they have no place for
            places[name] = x, y
    return places


@dataclass
class _Rows:
    """Rows of a sparse matrix in the making."""

    row: list[IntArray] = field(default_factory=list)
    column: list[IntArray] = field(default_factory=list)
    value: list[ComplexArray] = field(default_factory=list)

    def add(self, row: IntArray, column: IntArray, block: ComplexArray) -> None:
        """Add a dense block at `row` x `column`."""
        self.row.append(np.repeat(row, len(column)))
        self.column.append(np.tile(column, len(row)))
        self.value.append(block.ravel())

    def matrix(self, shape: tuple[int, int]) -> sparse.csr_array:
        """The matrix of all blocks."""
        none = np.zeros(0, dtype=np.int64)
        row, column = np.concatenate([none, *self.row]), np.concatenate([none, *self.column])
        matrix = sparse.csr_array((np.concatenate([np.zeros(0, complex), *self.value]), (row, column)), shape=shape)
        matrix.eliminate_zeros()
        return matrix


_Part = TypeVar("_Part", LoadPart, _Output)


class _Builder:
    """Collects sources and branches over OpenDSS's nodes and the sources' own, then keeps what is fed."""

    def __init__(self, bus: npt.NDArray[np.str_], phase: npt.NDArray[np.str_], base_volt: FloatArray, notes: list[str]):
        self.bus, self.phase, self.base_volt = list(bus), list(phase), list(base_volt)
        self.notes = notes
        self.inner = len(bus)
        self.source: list[int] = []
        self.source_v_pu: list[complex] = []
        self.at_from, self.at_to, self.shunt = _Rows(), _Rows(), _Rows()
        self.branch: list[str] = []
        self.branch_kind: list[str] = []
        self.from_node: list[int] = []
        self.to_node: list[int] = []
        self.rating: list[float] = []
        self.galvanic: list[tuple[int, int]] = []

    def add_source(self, source: _Source) -> None:
        """Add the nodes of a source's EMF, and its impedance as a branch."""
        nodes = source.nodes[source.nodes > 0] - 1
        first = len(self.bus)
        emf = np.arange(first, first + len(nodes))
        for node, voltage in zip(nodes, source.emf_volt, strict=True):
            self.bus.append(f"vsource.{source.name}")
            self.phase.append(self.phase[node])
            self.base_volt.append(self.base_volt[node])
            self.source_v_pu.append(voltage / self.base_volt[node])
        self.source += emf.tolist()
        y = source.y_siemens
        self._add(f"vsource.{source.name}", "source", emf, nodes, np.block([[y, -y], [-y, y]]), np.inf)

    def add_branch(self, element: Element, *, is_rated: bool) -> None:
        """Add an element with a primitive admittance; one between nodes and ground is a shunt."""
        flat = element.terminals.ravel()
        place = {int(node): position for position, node in enumerate(dict.fromkeys(flat[flat > 0].tolist()))}
        nodes = np.array(list(place), dtype=np.int64) - 1
        gather = np.zeros((len(place), len(flat)))
        for conductor, node in enumerate(flat.tolist()):
            if node:
                gather[place[node], conductor] = 1.0
        y = gather @ element.y_siemens @ gather.T
        first = [place[int(node)] for node in dict.fromkeys(element.terminals[0].tolist()) if node]
        rest = [position for position in place.values() if position not in first]
        for terminal in element.terminals if element.kind in ("transformer", "autotrans") else [flat]:
            own = terminal[terminal > 0] - 1
            self.galvanic += [(int(own[0]), int(node)) for node in own[1:]]
        if not first or not rest or not np.any(y[np.ix_(first, rest)]):
            self.shunt.add(nodes, nodes, self._per_unit(y, nodes, nodes))
            return
        order = np.array(first + rest)
        limit = element.normal_amps if is_rated and element.kind in ("line", "transformer", "autotrans") else 0.0
        rating = limit if limit > 0 else np.inf
        self._add(element.label, _kind(element), nodes[first], nodes[rest], y[np.ix_(order, order)], rating)

    def _add(self, name: str, kind: str, at_from: IntArray, at_to: IntArray, y: ComplexArray, amps: float) -> None:
        """Add conductors: those of both ends in pairs; what is left over of an end pairs with nothing."""
        count = max(len(at_from), len(at_to))
        start, both = len(self.branch), np.r_[at_from, at_to]
        rows = np.arange(start, start + count)
        self.at_from.add(rows[: len(at_from)], both, self._per_unit(y[: len(at_from)], at_from, both))
        self.at_to.add(rows[: len(at_to)], both, self._per_unit(y[len(at_from) :], at_to, both))
        for pair in range(count):
            here, there = int(at_from[min(pair, len(at_from) - 1)]), int(at_to[min(pair, len(at_to) - 1)])
            self.branch.append(name)
            self.branch_kind.append(kind)
            self.from_node.append(here)
            self.to_node.append(there)
            is_limited = pair < len(at_from) and self.phase[here] in PHASES
            self.rating.append(amps * self.base_volt[here] / 1000 / BASE_KVA if is_limited else np.inf)

    def _per_unit(self, y: ComplexArray, rows: IntArray, columns: IntArray) -> ComplexArray:
        of_row, of_column = (np.array([self.base_volt[node] for node in end]) for end in (rows, columns))
        return np.asarray(y * of_row[:, None] * of_column / (1000 * BASE_KVA))

    def network(
        self,
        title: str,
        path: Path,
        band: tuple[float, float],
        loads: list[LoadPart],
        generation: list[_Output],
        shapes: LoadShapes,
        taps: Mapping[str, float],
        v_unbalance_max: float,
        xy: Mapping[str, tuple[float, float]],
    ) -> UnbalancedNetwork:
        """Make the network of all nodes that a source feeds."""
        count, conductors = len(self.bus), len(self.branch)
        from_rows, to_rows = (rows.matrix((conductors, count)) for rows in (self.at_from, self.at_to))
        shunt = self.shunt.matrix((count, count))
        fed = self._fed(from_rows, to_rows, shunt)
        kept = fed[self.from_node] & fed[self.to_node]
        for rows, end in ((from_rows, self.from_node), (to_rows, self.to_node)):
            shunt = shunt + _at_ends(rows, np.array(end, dtype=np.int64), ~kept)
        order = self._order(fed)
        number = np.full(count + 1, -1)
        number[order] = np.arange(len(order))
        problems = Problems()
        loads, generation = self._of_fed(loads, fed, problems), self._of_fed(generation, fed, problems)
        problems.raise_if_any()
        bus, phase = np.array(self.bus)[order], np.array(self.phase)[order]
        base_volt = np.array(self.base_volt)[order]
        pairs = _Pairs(bus, phase)
        elements: list[LoadPart | _Output] = [*loads, *generation]
        parts = [pairs.port(int(number[part.first - 1]), int(number[part.second - 1])) for part in elements]
        pair = pairs.array()
        laws, column = _laws(loads, parts[: len(loads)], base_volt, pair, len(bus))
        port_count = len(bus) + len(pair)
        element_load = np.r_[port_count + column, parts[len(loads) :]].astype(np.int64)
        rating = np.array(self.rating)[kept]
        from_rows, to_rows = from_rows[kept][:, order], to_rows[kept][:, order]
        shunt = shunt[order][:, order]
        load_pu = np.zeros(len(bus))
        for part in loads:
            load_pu[number[max(part.first, part.second) - 1]] += abs(part.p_kw + 1j * part.q_kvar) / BASE_KVA
        galvanic = [(number[a], number[b]) for a, b in self.galvanic if number[a] >= 0 and number[b] >= 0]
        network = UnbalancedNetwork(
            name=title,
            bus=bus,
            phase=phase,
            base_kv=base_volt / 1000,
            v_min_pu=np.full(len(bus), band[0]),
            v_max_pu=np.full(len(bus), band[1]),
            source=number[self.source],
            source_v_pu=np.array(self.source_v_pu),
            branch=np.array(self.branch)[kept],
            branch_kind=np.array(self.branch_kind)[kept],
            from_node=number[np.array(self.from_node)[kept]],
            to_node=number[np.array(self.to_node)[kept]],
            rating_from_pu=rating,
            rating_to_pu=np.where(np.array(self.branch_kind)[kept] == "line", rating, np.inf),
            rating_is_current=np.ones(int(kept.sum()), bool),
            element=np.array([part.name for part in elements], dtype=np.str_),
            element_kind=np.array(["load"] * len(loads) + [part.kind for part in generation], dtype=str),
            element_load=element_load,
            element_p_kw=np.array([part.p_kw for part in loads] + [-part.p_kw for part in generation]),
            element_q_kvar=np.array([part.q_kvar for part in loads] + [-part.q_kvar for part in generation]),
            alias_bus=np.zeros(0, dtype=str),
            alias_node=np.zeros(0, dtype=np.int64),
            pair=pair,
            law=laws,
            is_floating=np.zeros(0, bool),
            xy=np.array([xy.get(name, UNKNOWN_PLACE) for name in bus.tolist()]),
            from_rows=from_rows,
            to_rows=to_rows,
            shunt_rows=shunt,
            v_unbalance_max=v_unbalance_max,
            tap_element=np.array(list(taps), dtype=str),
            tap_pu=np.array(list(taps.values())),
            origin=str(path),
            notes=tuple(self.notes),
            profiles=shapes.profiles([part.name for part in elements]),
        )
        return _with_floating(network, galvanic, load_pu)

    def _fed(
        self, from_rows: sparse.csr_array, to_rows: sparse.csr_array, shunt: sparse.csr_array
    ) -> npt.NDArray[np.bool_]:
        """(n,) True for nodes with a path to a source."""
        links = abs(from_rows.T) @ abs(from_rows) + abs(to_rows.T) @ abs(to_rows) + abs(shunt)
        _, island = csgraph.connected_components(links, directed=False)
        fed = np.isin(island, island[self.source])
        alive = {self.bus[node] for node in np.flatnonzero(fed)}
        unfed = np.flatnonzero(~fed).tolist()
        dead = [self._label(node) if self.bus[node] in alive else self.bus[node] for node in unfed]
        if dead:
            names = some_of(sorted(set(dead)))
            self.notes.append(f"buses without a path to a source are left out, with what stands there: {names}")
        return fed

    def _label(self, node: int) -> str:
        """``632.2``."""
        return f"{self.bus[node]}.{self.phase[node]}"

    def _order(self, fed: npt.NDArray[np.bool_]) -> IntArray:
        """Nodes that are fed: sources first, then bus by bus as OpenDSS has them, by phase."""
        place: dict[str, int] = {}
        for name in [*self.bus[self.inner :], *self.bus]:
            place.setdefault(name, len(place))
        return np.array(sorted(np.flatnonzero(fed), key=lambda node: (place[self.bus[node]], self.phase[node])))

    def _of_fed(self, parts: list[_Part], fed: npt.NDArray[np.bool_], problems: Problems) -> list[_Part]:
        """Parts that are fed; one between a node that is and one that is not is one of `problems`."""
        kept = []
        for part in parts:
            nodes = [node - 1 for node in (part.first, part.second) if node]
            if all(fed[node] for node in nodes):
                kept.append(part)
            elif any(fed[node] for node in nodes):
                dead = self._label(next(node for node in nodes if not fed[node]))
                remedy = "no line or transformer leads there from a source; connect it, or ground it in its place (.0)"
                problems.add(part.name, "Bus1", dead, remedy)
        return kept


def _at_ends(rows: sparse.csr_array, end: IntArray, chosen: npt.NDArray[np.bool_]) -> sparse.csr_array:
    """(n, n) The `chosen` rows (m, n) as currents into the nodes at that `end`."""
    conductor = np.flatnonzero(chosen)
    place = (np.ones(len(conductor)), (end[conductor], conductor))
    return sparse.csr_array(sparse.csr_array(place, shape=rows.shape[::-1]) @ rows)


def _kind(element: Element) -> str:
    return "transformer" if element.kind == "autotrans" else element.kind


class _Pairs:
    """The pairs of nodes between which something may stand: the phases of every bus, and what loads need."""

    def __init__(self, bus: npt.NDArray[np.str_], phase: npt.NDArray[np.str_]):
        self.count = len(bus)
        self._place: dict[tuple[int, int], int] = {}
        by_bus: dict[str, list[int]] = {}
        for node, name in enumerate(bus.tolist()):
            if phase[node] in PHASES and not name.startswith("vsource."):
                by_bus.setdefault(name, []).append(node)
        for nodes in by_bus.values():
            ordered = sorted(nodes, key=lambda node: phase[node])
            for place, first in enumerate(ordered):
                for second in ordered[place + 1 :]:
                    self._place[first, second] = len(self._place)

    def port(self, first: int, second: int) -> int:
        """Port between two nodes, of which one may be -1 for ground."""
        if first < 0 or second < 0:
            return max(first, second)
        key = (min(first, second), max(first, second))
        if (second, first) in self._place:
            key = (second, first)
        elif (first, second) in self._place:
            key = (first, second)
        return self.count + self._place.setdefault(key, len(self._place))

    def array(self) -> IntArray:
        """(d, 2) The pairs."""
        return np.array(list(self._place), dtype=np.int64).reshape(len(self._place), 2)


def _laws(
    loads: list[LoadPart], port: list[int], base_volt: FloatArray, pair: IntArray, nodes: int
) -> tuple[LoadLaws, IntArray]:
    """Laws of all loads, equal ones at a port as one, and the law of each load."""
    place: dict[tuple[float, ...], int] = {}
    column = []
    for part, at in zip(loads, port, strict=True):
        node = at if at < nodes else int(pair[at - nodes, 0])
        base = round(part.base_volt / base_volt[node], 12)
        key = (at, base, part.exponent, part.outer, part.u_min, part.u_max, part.u_low)
        column.append(place.setdefault(key, len(place)))
    table = np.array(list(place), dtype=float).reshape(len(place), 7)
    return LoadLaws(table[:, 0].astype(np.int64), *table[:, 1:].T), np.array(column, dtype=np.int64)


def _with_floating(
    network: UnbalancedNetwork, galvanic: list[tuple[int, int]], load_pu: FloatArray
) -> UnbalancedNetwork:
    """Mark the nodes that nothing but line capacitance holds to ground."""
    links = np.array(
        [*galvanic, *zip(network.from_node[_is_wire(network)], network.to_node[_is_wire(network)], strict=True)]
    )
    links = links.reshape(len(links), 2)
    count = network.node_count
    graph = sparse.csr_array((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(count, count))
    parts, part = csgraph.connected_components(graph, directed=False)
    member = sparse.csr_array((np.ones(count), (part, np.arange(count))), shape=(parts, count))
    to_ground = np.abs((member @ network.admittance @ member.T).diagonal())
    load = member @ load_pu
    floats = to_ground < GROUNDED_SHARE * np.maximum(load, SMALLEST_LOAD_PU)
    floats[part[network.source]] = False
    if not floats.any():
        return network
    names = some_of(list(dict.fromkeys(network.bus[floats[part]].tolist())))
    note = f"behind a delta winding, without a voltage to ground; priced and limited line to line: {names}"
    return _generation_between_phases(replace(network, is_floating=floats[part], notes=(*network.notes, note)))


def _generation_between_phases(network: UnbalancedNetwork) -> UnbalancedNetwork:
    """Let generation to ground at floating nodes stand between phases: to ground it has no voltage."""
    nodes = network.node_count
    is_moved = (network.element_kind != "load") & np.r_[network.is_floating, np.zeros(len(network.pair), bool)][
        np.where(network.element_load < network.port_count, network.element_load, 0)
    ]
    if not is_moved.any():
        return network
    port_of = {frozenset(pair): nodes + index for index, pair in enumerate(network.pair.tolist())}
    element_load = network.element_load.copy()
    for element in np.flatnonzero(is_moved):
        node = int(element_load[element])
        own = network.nodes_at(network.bus_number[str(network.bus[node])])
        own = own[np.isin(network.phase[own], PHASES)].tolist()
        following = own[(own.index(node) + 1) % len(own)]
        element_load[element] = port_of.get(frozenset((node, following)), node)
    names = some_of(list(dict.fromkeys(network.element[is_moved].tolist())))
    note = f"behind a delta winding, taken between the phases instead of to ground: {names}"
    return replace(network, element_load=element_load, notes=(*network.notes, note))


def _is_wire(network: UnbalancedNetwork) -> npt.NDArray[np.bool_]:
    return network.branch_kind != "transformer"
