"""A radial network as series sections: what the linear power flow is made from.

Every branch is taken apart into an ideal transformer ``N`` at its sending end, a series impedance ``Z``
behind it, and the rest (charging, magnetisation), which follows the voltages.  With ``V_s`` and ``V_r``
at its two ends and the currents ``J`` through the impedance,

    V' = N V_s,    V_r = V' - Z J,    I_s = N^H J

so that the transformer keeps power: ``V_s^T conj(I_s) = V'^T conj(J)``.  A line has ``N = 1``, the series
block of its pi section for ``Z`` and the rest at both ends.  Any other branch, with the admittances
``[[Y_ss, Y_sr], [Y_rs, Y_rr]]``, has ``Z = inv(Y_rr)`` and ``N = -Z Y_rs``: turns ratio, connection and
phase shift of a transformer, and its short-circuit impedance.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dlmp.errors import Problems
from dlmp.network.model import BalancedNetwork, ComplexArray, IntArray, Network, UnbalancedNetwork, some_of
from dlmp.powerflow import PowerFlow

SINGULAR = 1e6
"""Condition number from which an end's admittances leave its voltages to ground open."""
NEUTRAL_PU = 0.1
"""A node with less voltage than this without load is a neutral, a pair has two nodes of one phase."""
ROUNDING = 1e-12
"""What is left of an admittance below this, relative, is rounding."""
USE_AC = "use ac_tangent"
FROM, TO = 0, 1


@dataclass(frozen=True, eq=False)
class Sections:
    """The c series impedances of a network; c = m where all branches have as many conductors at both ends.

    Parameters
    ----------
    conductor
        (c,) Branch conductor of the network whose receiving end each is.
    receiving, sending
        (c,) Node at its receiving end; (m,) node at the sending end of every branch conductor.
    is_reversed
        (m,) True where the to end is the sending one.
    ratio
        (c, m) ``N``: voltage behind the ideal transformer per voltage at each sending end.
    impedance, admittance
        (c, c) ``Z`` and its inverse [pu].
    rest_from, rest_to
        (m, n) Current into each end beside the series impedance, per node voltage [pu].
    """

    conductor: IntArray
    receiving: IntArray
    sending: IntArray
    is_reversed: npt.NDArray[np.bool_]
    ratio: sparse.csr_array
    impedance: sparse.csr_array
    admittance: sparse.csr_array
    rest_from: sparse.csr_array
    rest_to: sparse.csr_array

    def behind(self, node_count: int) -> sparse.csr_array:
        """(c, n) Voltage behind each ideal transformer per node voltage."""
        return sparse.csr_array(self.ratio @ picked(self.sending, node_count))

    def at_receiving(self) -> sparse.csr_array:
        """(m, c) One where the section ends at the conductor's receiving end."""
        return sparse.csr_array(picked(self.conductor, len(self.sending)).T)


def picked(place: IntArray, count: int) -> sparse.csr_array:
    """(i, `count`) One at ``place[i]`` of every row."""
    return sparse.csr_array((np.ones(len(place)), place, np.arange(len(place) + 1)), shape=(len(place), count))


def like(pattern: sparse.coo_array, data: npt.NDArray[np.inexact]) -> sparse.csr_array:
    """Matrix with the pattern of another and `data` for its entries."""
    matrix = sparse.csr_array((data, (pattern.row, pattern.col)), shape=pattern.shape)
    matrix.eliminate_zeros()
    return matrix


def sections_of(network: Network) -> Sections:
    """Take a radial network apart.

    Raises
    ------
    InputError
        With everything in which the network does not fit: meshes, voltages to ground that are not
        determined, neutral conductors, a limit of unbalance, branches without a series impedance.
    """
    problems = Problems()
    _check_voltages(network, problems)
    branches = _Branches(network)
    branches.check_radial(problems)
    if isinstance(network, BalancedNetwork):
        problems.raise_if_any()
        return _balanced_sections(network)
    sections = branches.sections(problems)
    problems.raise_if_any()
    return sections


def _check_voltages(network: Network, problems: Problems) -> None:
    if isinstance(network, UnbalancedNetwork) and np.isfinite(network.v_unbalance_max):
        problems.add(
            "network", "v_unbalance_max", network.v_unbalance_max,
            f"lindistflow has no phase angles and cannot limit unbalance; {USE_AC} or lift the limit",
        )  # fmt: skip
    if network.is_floating.any():
        where = some_of(list(dict.fromkeys(network.bus[network.is_floating].tolist())))
        problems.add("network", "floating buses", where, f"lindistflow needs voltages to ground; {USE_AC}")
        return
    flow = PowerFlow(network)
    across = np.abs(network.incidence @ flow.voltages(flow.no_load_pu))
    for port in np.flatnonzero(across < NEUTRAL_PU):
        problems.add(
            f"bus {network.port_bus[port]}", "phase", str(network.port_phase[port]),
            f"lindistflow needs a voltage there and cannot carry a neutral; reduce it, or {USE_AC}",
        )  # fmt: skip


def _balanced_sections(network: BalancedNetwork) -> Sections:
    """One section per branch, from its from to its to end whatever way it is fed: a single phase has no angles."""
    m, n = network.branch_count, network.node_count
    diagonal = sparse.diags_array
    return Sections(
        conductor=np.arange(m),
        receiving=network.to_node,
        sending=network.from_node,
        is_reversed=np.zeros(m, bool),
        ratio=sparse.csr_array(diagonal(1 / network.tap)),
        impedance=sparse.csr_array(diagonal(network.series_pu)),
        admittance=sparse.csr_array(diagonal(1 / network.series_pu)),
        rest_from=sparse.csr_array(
            diagonal(network.shunt_from_pu / np.abs(network.tap) ** 2) @ picked(network.from_node, n)
        ),
        rest_to=sparse.csr_array(diagonal(network.shunt_to_pu) @ picked(network.to_node, n)),
    )


class _Branches:
    """The branches of a network, their conductors at each end, and the end that each is fed from."""

    def __init__(self, network: Network):
        self.network = network
        self.rows = (sparse.csr_array(network.from_admittance), sparse.csr_array(network.to_admittance))
        self.node = (network.from_node, network.to_node)
        self.name = list(network.branch_number)
        number = np.array([network.branch_number[str(name)] for name in network.branch], dtype=np.int64)
        order = np.argsort(number, kind="stable")
        entries = np.split(order, np.cumsum(np.bincount(number, minlength=len(self.name)))[:-1])
        live = [abs(rows).sum(axis=1) > 0 for rows in self.rows]
        self.live = [[own[live[end][own]] for end in (FROM, TO)] for own in entries]
        self.fed_from = self._fed_ends()

    def _fed_ends(self) -> list[int | None]:
        """End of each branch that is nearer the source; None in and behind a mesh."""
        nodes = [[self.node[end][own[end]].tolist() for end in (FROM, TO)] for own in self.live]
        touching: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for branch, ends in enumerate(nodes):
            for end in (FROM, TO):
                for node in ends[end]:
                    touching[node].append((branch, end))
        missing = [(set(ends[FROM]), set(ends[TO])) for ends in nodes]
        fed: list[int | None] = [None] * len(nodes)
        queue = self.network.source.tolist()
        reached = set(queue)
        while queue:
            node = queue.pop()
            for branch, end in touching[node]:
                missing[branch][end].discard(node)
                far = nodes[branch][1 - end]
                if fed[branch] is None and not missing[branch][end] and reached.isdisjoint(far):
                    fed[branch] = end
                    reached.update(far)
                    queue.extend(far)
        return fed

    def check_radial(self, problems: Problems) -> None:
        """Note a mesh."""
        if None in self.fed_from:
            remedy = f"lindistflow needs a radial feeder; {USE_AC} or open a tie"
            problems.add("network", "topology", "meshed", remedy)

    def sections(self, problems: Problems) -> Sections:
        """Sections of the branches that are fed from one end; notes those that have no series impedance."""
        network, m = self.network, self.network.branch_count
        conductor: list[int] = []
        is_reversed = np.zeros(m, bool)
        parts: dict[str, list[tuple[IntArray, IntArray, ComplexArray]]] = defaultdict(list)
        for branch, end in enumerate(self.fed_from):
            if end is None:
                continue
            near, far = self.live[branch][end], self.live[branch][1 - end]
            is_reversed[np.r_[near, far]] = end == TO
            series, ratio = self._series_and_ratio(branch, end)
            if len(far) and not np.linalg.cond(series) < SINGULAR:
                problems.add(
                    f"branch {self.name[branch]}", "admittance", "singular",
                    f"leaves the voltage to ground open at bus {network.bus[self.node[1 - end][far[0]]]}, "
                    f"as a delta winding does, which lindistflow needs; {USE_AC}",
                )  # fmt: skip
                continue
            own = np.arange(len(conductor), len(conductor) + len(far), dtype=np.int64)
            conductor.extend(far.tolist())
            parts["admittance"].append((own, own, series))
            parts["impedance"].append((own, own, np.asarray(np.linalg.inv(series), dtype=complex)))
            parts["ratio"].append((own, near, ratio))
        c, at = len(conductor), np.array(conductor, dtype=np.int64)
        sending = np.where(is_reversed, network.to_node, network.from_node)
        receiving = np.where(is_reversed, network.from_node, network.to_node)[at]
        ratio, impedance, admittance = (
            _assembled(parts[name], (c, width)) for name, width in (("ratio", m), ("impedance", c), ("admittance", c))
        )
        drop = ratio @ picked(sending, network.node_count) - picked(receiving, network.node_count)
        current = admittance @ drop
        into_sending, into_receiving = ratio.conj().T @ current, -(picked(at, m).T @ current)
        backwards = sparse.diags_array(is_reversed.astype(float))
        swap = backwards @ (into_receiving - into_sending)
        return Sections(
            conductor=at,
            receiving=receiving,
            sending=sending,
            is_reversed=is_reversed,
            ratio=ratio,
            impedance=impedance,
            admittance=admittance,
            rest_from=_less(self.rows[FROM], into_sending + swap),
            rest_to=_less(self.rows[TO], into_receiving - swap),
        )

    def _series_and_ratio(self, branch: int, end: int) -> tuple[ComplexArray, ComplexArray]:
        """Series admittance of a branch fed from `end`, and its ideal transformer."""
        near, far = self.live[branch][end], self.live[branch][1 - end]
        at = self.node[end][near].tolist(), self.node[1 - end][far].tolist()
        across, own = (_block(self.rows[1 - end], far, nodes) for nodes in at)
        if self.network.branch_kind[(near if len(near) else far)[0]] == "line" and len(near) == len(far):
            return -across, np.eye(len(far), dtype=complex)
        if len(far) and np.linalg.cond(own) < SINGULAR:
            return own, np.asarray(-np.linalg.solve(own, across), dtype=complex)
        return own, across


def _block(rows: sparse.csr_array, entries: IntArray, nodes: list[int]) -> ComplexArray:
    """Dense part of `rows` at some entries and nodes."""
    place = {node: column for column, node in enumerate(nodes)}
    block = np.zeros((len(entries), len(nodes)), complex)
    for row, entry in enumerate(entries):
        for at in range(rows.indptr[entry], rows.indptr[entry + 1]):
            column = place.get(int(rows.indices[at]))
            if column is not None:
                block[row, column] += rows.data[at]
    return block


def _assembled(blocks: list[tuple[IntArray, IntArray, ComplexArray]], shape: tuple[int, int]) -> sparse.csr_array:
    """Sparse matrix of dense `blocks` at (rows, columns)."""
    row = [np.repeat(rows, len(columns)) for rows, columns, _ in blocks]
    column = [np.tile(columns, len(rows)) for rows, columns, _ in blocks]
    data = [block.ravel() for _, _, block in blocks]
    none: list[npt.NDArray[np.int64]] = [np.zeros(0, np.int64)]
    matrix = sparse.csr_array(
        (np.concatenate([np.zeros(0, complex), *data]), (np.concatenate(none + row), np.concatenate(none + column))),
        shape=shape,
    )
    matrix.eliminate_zeros()
    return matrix


def _less(rows: sparse.csr_array, part: sparse.csr_array) -> sparse.csr_array:
    """`rows` without `part`, and without what is only the rounding of their difference."""
    rest = sparse.coo_array(rows - part)
    largest = abs(rows).max(axis=1).toarray().ravel()
    return like(rest, np.where(np.abs(rest.data) > ROUNDING * largest[rest.row], rest.data, 0.0))
