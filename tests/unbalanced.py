"""Small networks of single phases written down in per unit, and one that has all that only such networks have.

The base is `BASE_KVA` = 100 kVA per phase: 1 pu of power is 100 kW.  A node is named ``bus.phase``, a pair of
nodes ``bus.phase-bus.phase``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import sparse

from dlmp.network.loads import LoadLaws, no_laws
from dlmp.network.model import ComplexArray, FloatArray, IntArray, UnbalancedNetwork

ROOT3 = 3.0**0.5
BALANCED = np.exp(-2j * np.pi / 3 * np.arange(3))
"""Voltages of the three phases of a balanced system."""


@dataclass
class Wires:
    """Branches between `nodes` in the making: the ends of each and its primitive admittance [pu]."""

    nodes: Sequence[str]
    name: list[str] = field(default_factory=list)
    kind: list[str] = field(default_factory=list)
    at_from: list[IntArray] = field(default_factory=list)
    at_to: list[IntArray] = field(default_factory=list)
    primitive: list[ComplexArray] = field(default_factory=list)

    def add(self, kind: str, start: str, end: str, phases: str, primitive: ComplexArray) -> None:
        """Add a branch between two buses, named ``start-end``, of one conductor for each of `phases`."""
        self.name += [f"{start}-{end}"] * len(phases)
        self.kind += [kind] * len(phases)
        for at, bus in ((self.at_from, start), (self.at_to, end)):
            at.append(np.array([self.nodes.index(f"{bus}.{phase}") for phase in phases]))
        self.primitive.append(primitive)

    def line(
        self, start: str, end: str, phases: str, series: ComplexArray, charging: ComplexArray | None = None
    ) -> None:
        """A pi section of coupled conductors, half of `charging` at each end."""
        y = np.linalg.inv(series)
        own = y if charging is None else y + charging / 2
        self.add("line", start, end, phases, np.block([[own, -y], [-y, own]]))

    def wye_delta(self, start: str, end: str, leakage: complex, ratio: FloatArray) -> None:
        """Three cores, each from a phase to ground on one side and between two phases on the other.

        Core k sees ``v_k - ratio_k (v_i - v_j) / sqrt(3)`` across its leakage impedance, i and j being 12, 23, 31.
        """
        delta = np.eye(3) - np.roll(np.eye(3), 1, axis=1)
        turns = np.hstack([np.eye(3), -delta * ratio[:, None] / ROOT3])
        self.add("transformer", start, end, "123", turns.T @ turns / leakage)

    def rows(self, end: int) -> sparse.csr_array:
        """Currents into the from ends (0) or into the to ends (1) per node voltage."""
        block = np.zeros((len(self.name), len(self.nodes)), complex)
        start = 0
        for at_from, at_to, y in zip(self.at_from, self.at_to, self.primitive, strict=True):
            block[start : start + len(at_from), np.r_[at_from, at_to]] = np.split(y, 2)[end]
            start += len(at_from)
        return sparse.csr_array(block)


def coupled(count: int, own: complex, mutual: complex, *, uneven: float = 0.05) -> ComplexArray:
    """An impedance matrix, its conductors one by one longer by the share `uneven`."""
    return np.asarray(np.full((count, count), mutual) + np.diag((own - mutual) * (1 + uneven * np.arange(count))))


def ports(network: UnbalancedNetwork, *names: str) -> IntArray:
    """Ports by name."""
    nodes = np.char.add(np.char.add(network.bus, "."), network.phase)
    pairs = np.char.add(np.char.add(nodes[network.pair[:, 0]], "-"), nodes[network.pair[:, 1]])
    known = [*nodes.tolist(), *pairs.tolist()]
    return np.array([known.index(name) for name in names], dtype=np.int64)


def single_phases(
    wires: Wires,
    source: Mapping[str, complex],
    *,
    pairs: Sequence[str] = (),
    laws: LoadLaws | None = None,
    power_kva: Mapping[int, complex] | None = None,
    shunt: Mapping[str, complex] | None = None,
    floating: Sequence[str] = (),
    rating: float = np.inf,
    band: tuple[float, float] = (0.9, 1.1),
    v_unbalance_max: float = np.inf,
) -> UnbalancedNetwork:
    """The network of some wires.

    Parameters
    ----------
    wires
        Nodes and branches.
    source
        Voltage [pu] of each source node.
    pairs
        Line-to-line ports.
    laws
        Loads that follow their voltage.
    power_kva
        Consumption of load columns.
    shunt
        Admittance to ground of nodes [pu].
    floating
        Nodes whose voltage to ground is not determined.
    rating
        Limit of every conductor [pu]; every third one's is of apparent power, but where its nodes float.
    band
        Voltage band [pu] of every node.
    v_unbalance_max
        Largest ratio of negative- to positive-sequence voltage.
    """
    nodes, conductors, power_kva = len(wires.nodes), len(wires.name), power_kva or {}
    to_ground = np.array([(shunt or {}).get(node, 0.0) for node in wires.nodes], dtype=complex)
    power = np.array(list(power_kva.values()), dtype=complex)
    at_from, at_to, floats = np.concatenate(wires.at_from), np.concatenate(wires.at_to), np.isin(wires.nodes, floating)
    return UnbalancedNetwork(
        name="unbalanced",
        bus=np.array([node.split(".")[0] for node in wires.nodes]),
        phase=np.array([node.split(".")[1] for node in wires.nodes]),
        base_kv=np.full(nodes, 2.4),
        v_min_pu=np.full(nodes, band[0]),
        v_max_pu=np.full(nodes, band[1]),
        source=np.array([wires.nodes.index(node) for node in source]),
        source_v_pu=np.array(list(source.values()), dtype=complex),
        branch=np.array(wires.name),
        branch_kind=np.array(wires.kind),
        from_node=at_from,
        to_node=at_to,
        rating_from_pu=np.full(conductors, rating),
        rating_to_pu=np.full(conductors, rating),
        rating_is_current=(np.arange(conductors) % 3 > 0) | floats[at_from] | floats[at_to],
        element=np.array([f"load {number}" for number in range(len(power))], dtype=str),
        element_kind=np.full(len(power), "load"),
        element_load=np.array(list(power_kva), dtype=np.int64),
        element_p_kw=power.real,
        element_q_kvar=power.imag,
        alias_bus=np.array([], dtype=str),
        alias_node=np.array([], dtype=np.int64),
        pair=np.array([wires.nodes.index(node) for pair in pairs for node in pair.split("-")], np.int64).reshape(-1, 2),
        law=no_laws() if laws is None else laws,
        is_floating=floats,
        from_rows=wires.rows(0),
        to_rows=wires.rows(1),
        shunt_rows=sparse.csr_array(sparse.diags_array(to_ground)),
        v_unbalance_max=v_unbalance_max,
    )


def with_a_neutral() -> UnbalancedNetwork:
    """A phase and its neutral, grounded at both ends, whose voltage without load is zero to the last digit."""
    wires = Wires(["s.1", "s.4", "x.1", "x.4"])
    wires.line("s", "x", "14", np.array([[0.04, 0.01], [0.01, 0.04]]) + 0j)
    return single_phases(wires, {"s.1": 1.0}, pairs=["x.1-x.4"], shunt={"s.4": 4.0, "x.4": 2.0})


PHASES_OF = {"grid": "123", "a": "123", "b": "1234", "c": "24", "d": "123", "e": "123"}
NODES = [f"{bus}.{phase}" for bus, phases in PHASES_OF.items() for phase in phases]
PAIRS = ["b.1-b.2", "c.2-c.4", "d.1-d.2", "d.2-d.3", "d.3-d.1", "e.1-e.2", "e.2-e.3", "e.3-e.1"]
PORTS = NODES + PAIRS
POWER_KVA = {
    "a.2": 30 + 10j, "b.1": 20 + 15j, "b.2": 35 + 5j, "b.3": -15 + 5j, "c.2": 20 + 4j, "b.1-b.2": 25 + 10j,
    "d.2-d.3": 15 + 5j, "e.1-e.2": 35 + 10j, "e.3-e.1": -20 + 8j,
}  # fmt: skip
"""Constant power by port."""


@dataclass(frozen=True)
class Law:
    """A load at `port`: nominal power and exponents inside and at the edges of its band."""

    port: str
    kva: complex
    exponent: float
    outer: float
    u_low: float = 0.5


LAWS = (
    Law("a.1", 30 + 10j, 0.0, 0.0),
    Law("b.3", 25 - 5j, 1.0, 1.0),
    Law("b.3", 18 + 6j, 0.0, 0.0),
    Law("b.1-b.2", 40 + 20j, 2.0, 2.0),
    Law("c.2-c.4", 15 + 5j, 0.8, 0.8, u_low=0.9),
    Law("d.1-d.2", 30 + 10j, 1.0, 1.0),
    Law("d.2-d.3", 20 + 12j, 0.0, 0.0, u_low=0.9),
    Law("e.2-e.3", 25 + 5j, 2.3, 0.0),
)
"""Loads that follow their voltage, of a band from 0.95 to 1.05 of their base."""
U_MIN, U_MAX = 0.95, 1.05


def base_pu(port: str) -> float:
    """Nominal voltage of a port: that of a phase to ground or to the neutral, or across two phases."""
    return ROOT3 if "-" in port and "4" not in port else 1.0


def unbalanced(
    *, with_laws: bool = True, v_unbalance_max: float = np.inf, rating: float = 5.0, leak: float = 1e-6
) -> UnbalancedNetwork:
    """Three phases behind an impedance, a lateral of one phase and its neutral, and a delta winding that floats.

    ::

        grid == a ==== b ===Yd=== d ==== e        three conductors each, those of d and e floating
                       |---2,4--- c               one phase and its neutral, grounded at both ends

    `leak` is the admittance to ground of each node behind the delta winding, relative to that of the transformer.
    """
    wires = Wires(NODES)
    wires.line("grid", "a", "123", coupled(3, 0.004 + 0.02j, 0.001 + 0.006j))
    charging = 1j * coupled(3, 0.03, -0.006)
    wires.line("a", "b", "123", coupled(3, 0.012 + 0.025j, 0.004 + 0.011j), charging)
    wires.line("b", "c", "24", coupled(2, 0.03 + 0.035j, 0.008 + 0.012j))
    leakage = 0.008 + 0.04j
    wires.wye_delta("b", "d", leakage, np.array([1.0, 0.99, 1.02]))
    wires.line("d", "e", "123", coupled(3, 0.02 + 0.022j, 0.006 + 0.009j))
    emf = BALANCED * np.array([1.03, 1.02, 1.035 * np.exp(0.01j)])
    own = LAWS if with_laws else ()
    numbers = np.array([(base_pu(law.port), law.exponent, law.outer, U_MIN, U_MAX, law.u_low) for law in own])
    laws = LoadLaws(np.array([PORTS.index(law.port) for law in own]), *numbers.T) if with_laws else None
    power = {PORTS.index(port): kva for port, kva in POWER_KVA.items()}
    return single_phases(
        wires,
        dict(zip(NODES[:3], emf, strict=True)),
        pairs=PAIRS,
        laws=laws,
        power_kva=power | {len(PORTS) + column: law.kva for column, law in enumerate(own)},
        shunt={"b.4": 40.0, "c.4": 2.0} | {f"d.{phase}": leak / leakage for phase in "123"},
        floating=[node for node in NODES if node[0] in "de"],
        rating=rating,
        v_unbalance_max=v_unbalance_max,
    )
