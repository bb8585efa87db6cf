"""The network as frozen arrays over nodes and branches, in per unit of `dlmp.units.BASE_KVA`.

A node is a (bus, phase) pair; a balanced feeder has one node per bus, whose phase is ``"123"``.
Branch ends follow ``I_from = from_admittance @ V`` and ``I_to = to_admittance @ V``, both into the
branch; the network follows ``I = admittance @ V``, currents into the network.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse import csgraph

from dlmp.errors import InputError, Problem, Problems

FloatArray = npt.NDArray[np.float64]
ComplexArray = npt.NDArray[np.complex128]
IntArray = npt.NDArray[np.int64]
TextArray = npt.NDArray[np.str_]

BALANCED_PHASE = "123"
"""Phase label of a node that stands for all three phases of a balanced bus."""


def frozen(values: npt.ArrayLike, dtype: npt.DTypeLike = np.float64) -> npt.NDArray[Any]:
    """Return a read-only copy of `values`."""
    array = np.array(values, dtype=dtype)
    array.setflags(write=False)
    return array


@dataclass(frozen=True, eq=False)
class Network:
    """A distribution network, n nodes and m branches (one per phase).

    Parameters
    ----------
    name
        What the feeder is called.
    bus, phase
        (n,) Bus and phase of each node.
    base_kv
        (n,) Line-to-line base voltage [kV].
    v_min_pu, v_max_pu
        (n,) Voltage band [pu]; not applied at source nodes.
    source
        (k,) Nodes whose voltage is held by the upstream grid.
    source_v_pu
        (k,) Their complex voltage [pu].
    branch, branch_kind
        (m,) Name and kind (``line``, ``transformer``) of each branch.
    from_node, to_node
        (m,) Nodes at its ends.
    series_pu
        (m,) Series impedance [pu], at the to side.
    tap
        (m,) Complex voltage ratio from/to of the ideal transformer at the from side; 1 for a line.
    shunt_from_pu, shunt_to_pu
        (m,) Shunt admittance of the branch's pi section at each end [pu], behind the tap.
    rating_from_pu, rating_to_pu
        (m,) Limit at each end [pu]; infinite where there is none.
    rating_is_current
        (m,) True where the rating limits the current, False where it limits apparent power.
    node_shunt_pu
        (n,) Shunt admittance at each node [pu].
    element, element_kind, element_node, element_p_kw, element_q_kvar
        (e,) Fixed loads and generators: name, ``load`` or ``generation``, node, consumption.
    alias_bus, alias_node
        (a,) Further bus names, fused by closed switches with the node at `alias_node`.
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
    series_pu: ComplexArray
    tap: ComplexArray
    shunt_from_pu: ComplexArray
    shunt_to_pu: ComplexArray
    rating_from_pu: FloatArray
    rating_to_pu: FloatArray
    rating_is_current: npt.NDArray[np.bool_]
    node_shunt_pu: ComplexArray
    element: TextArray
    element_kind: TextArray
    element_node: IntArray
    element_p_kw: FloatArray
    element_q_kvar: FloatArray
    alias_bus: TextArray
    alias_node: IntArray

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                object.__setattr__(self, field.name, frozen(value, value.dtype))
        validate(self)

    @property
    def node_count(self) -> int:
        """Number of nodes."""
        return len(self.bus)

    @property
    def branch_count(self) -> int:
        """Number of branches."""
        return len(self.branch)

    @cached_property
    def node_of_bus(self) -> dict[str, int]:
        """Node of each bus name, aliases included."""
        names = {str(bus): node for node, bus in enumerate(self.bus)}
        names.update({str(bus): int(node) for bus, node in zip(self.alias_bus, self.alias_node, strict=True)})
        return names

    def node(self, bus: str) -> int:
        """Node index of `bus`; raises `InputError` for an unknown one."""
        try:
            return self.node_of_bus[bus]
        except KeyError:
            raise InputError(
                [Problem("network", "bus", bus, f"is no bus of {self.name}; known: {some_of(self.bus)}")]
            ) from None

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

    def _end_rows(self, at_from: ComplexArray, at_to: ComplexArray) -> sparse.csr_array:
        row = np.arange(self.branch_count)
        return sparse.csr_array(
            (np.r_[at_from, at_to], (np.r_[row, row], np.r_[self.from_node, self.to_node])),
            shape=(self.branch_count, self.node_count),
        )

    @cached_property
    def admittance(self) -> sparse.csc_array:
        """(n, n) Nodal admittance matrix [pu]."""
        row = np.arange(self.branch_count)
        shape = (self.node_count, self.branch_count)
        at_from = sparse.csr_array((np.ones(self.branch_count), (self.from_node, row)), shape=shape)
        at_to = sparse.csr_array((np.ones(self.branch_count), (self.to_node, row)), shape=shape)
        return sparse.csc_array(
            at_from @ self.from_admittance + at_to @ self.to_admittance + sparse.diags_array(self.node_shunt_pu)
        )

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
        """Net fixed consumption of each node, (n,) [kW] and (n,) [kvar]."""
        p_kw, q_kvar = np.zeros(self.node_count), np.zeros(self.node_count)
        np.add.at(p_kw, self.element_node, self.element_p_kw)
        np.add.at(q_kvar, self.element_node, self.element_q_kvar)
        return p_kw, q_kvar


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
    _check_branches(network, problems)
    if not problems.found:
        _check_connected(network, problems)
    problems.raise_if_any()


def _check_names(network: Network, problems: Problems) -> None:
    if network.node_count == 0:
        problems.add("network", "bus", 0, "a network needs at least one bus")
    for bus in repeated(np.concatenate([network.bus, network.alias_bus])):
        problems.add(f"bus {bus}", "bus", bus, "stands more than once; bus names must be unique")
    for branch in repeated(network.branch):
        problems.add(f"line {branch}", "line", branch, "stands more than once; branch names must be unique")
    if network.node_count and network.is_source.all():
        problems.add("network", "bus", "sources only", "a network needs at least one bus that is no source")
    if len(network.source) == 0:
        problems.add("network", "source", "none", "mark at least one bus as the source (is_source = 1)")


def _check_numbers(network: Network, problems: Problems) -> None:
    for name, owner, column, finite in (
        ("bus", network.bus, "base_kv", network.base_kv),
        ("bus", network.bus, "v_min_pu", network.v_min_pu),
        ("bus", network.bus, "v_max_pu", network.v_max_pu),
        ("bus", network.bus, "shunt", network.node_shunt_pu),
        ("line", network.branch, "impedance", network.series_pu),
        ("line", network.branch, "tap", network.tap),
        ("line", network.branch, "shunt", network.shunt_from_pu + network.shunt_to_pu),
        ("element", network.element, "p_kw", network.element_p_kw),
        ("element", network.element, "q_kvar", network.element_q_kvar),
        ("bus", network.bus[network.source], "source_v_pu", network.source_v_pu),
    ):
        for index in np.flatnonzero(~np.isfinite(finite)):
            problems.add(f"{name} {owner[index]}", column, finite[index].item(), "must be a finite number")
    for node in np.flatnonzero(network.base_kv <= 0):
        problems.add(f"bus {network.bus[node]}", "base_kv", float(network.base_kv[node]), "must be above zero")
    for node in np.flatnonzero((network.v_min_pu > network.v_max_pu) | (network.v_min_pu < 0)):
        band = (float(network.v_min_pu[node]), float(network.v_max_pu[node]))
        problems.add(f"bus {network.bus[node]}", "v_min_pu, v_max_pu", band, "need 0 <= v_min_pu <= v_max_pu")
    for index in np.flatnonzero(np.abs(network.source_v_pu) <= 0):
        problems.add(f"bus {network.bus[network.source[index]]}", "source_v_pu", 0.0, "must be above zero")


def _check_branches(network: Network, problems: Problems) -> None:
    for index in np.flatnonzero(network.series_pu == 0):
        problems.add(
            f"line {network.branch[index]}",
            "r_ohm, x_ohm",
            (0.0, 0.0),
            "zero impedance; join the two buses or give it a small one",
        )
    for index in np.flatnonzero(network.series_pu.real < 0):
        value = float(network.series_pu[index].real)
        problems.add(f"line {network.branch[index]}", "r_ohm", value, "resistance must not be negative")
    for index in np.flatnonzero(network.from_node == network.to_node):
        bus = str(network.bus[network.from_node[index]])
        problems.add(f"line {network.branch[index]}", "to_bus", bus, "a branch must join two different buses")
    for index in np.flatnonzero(np.abs(network.tap) <= 0):
        problems.add(f"line {network.branch[index]}", "tap_ratio", 0.0, "must be above zero")
    for column, rating in (("from", network.rating_from_pu), ("to", network.rating_to_pu)):
        for index in np.flatnonzero(~(rating > 0)):
            problems.add(
                f"line {network.branch[index]}",
                f"rating at its {column} end",
                float(rating[index]),
                "must be above zero; leave it blank for no limit",
            )


def _check_connected(network: Network, problems: Problems) -> None:
    links = sparse.csr_array(
        (np.ones(network.branch_count), (network.from_node, network.to_node)),
        shape=(network.node_count, network.node_count),
    )
    _, island = csgraph.connected_components(links, directed=False)
    fed = np.isin(island, island[network.source])
    for node in np.flatnonzero(~fed):
        problems.add(
            f"bus {network.bus[node]}",
            "island",
            str(network.bus[node]),
            "has no path to a source; close a line to it or remove the bus",
        )
