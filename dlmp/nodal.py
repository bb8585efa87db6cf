"""The linear equations of a network: currents by its state.

The state is the voltages of the nodes, then the currents of *stiff* conductors: closed switches, very short lines,
sources with hardly any impedance.  Their current is the difference of two nearly equal voltages times a huge
admittance, of which rounding would leave little; as unknowns of their own, with ``V_from - V_to - Z J = 0`` in
place of ``J = (V_from - V_to) / Z``, they cost no precision (modified nodal analysis: Ho, Ruehli and Brennan,
IEEE Trans. Circuits and Systems 22(6), 1975).
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from dlmp.network.model import ComplexArray, IntArray, Network

STIFF_PU = 1e6
"""Admittance of a stiff conductor: rounding in its current is 1e-10 pu."""
NO_SHUNT = 2e-15
"""Shunt admittance at the ends of a stiff branch, relative to its series admittance, that is rounding."""


_NONE = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class NodalEquations:
    """Currents of a network of n nodes and m conductors, by its state of n voltages and s currents [pu].

    Parameters
    ----------
    at_from, at_to
        (m, n + s) Current into each conductor at its two ends.
    balance
        (n + s, n + s) Current into the network at each node; then the voltage that each stiff conductor is short of,
        which is zero.
    """

    at_from: sparse.csr_array
    at_to: sparse.csr_array
    balance: sparse.csr_array


@dataclass(frozen=True, eq=False)
class _Stiff:
    """The conductors of a stiff branch, its series impedance and the shunts at its ends [pu]."""

    conductor: IntArray
    impedance: ComplexArray
    shunt_from: ComplexArray
    shunt_to: ComplexArray


def nodal_equations(network: Network) -> NodalEquations:
    """Write down the equations of `network`."""
    stiff = _stiff_branches(network)
    chosen = np.concatenate([_NONE, *(branch.conductor for branch in stiff)])
    others = np.ones(network.branch_count)
    others[chosen] = 0.0
    at_from = sparse.diags_array(others) @ network.from_admittance
    at_from = at_from + _blocks(network, stiff, [branch.shunt_from for branch in stiff], network.from_node)
    at_to = sparse.diags_array(others) @ network.to_admittance
    at_to = at_to + _blocks(network, stiff, [branch.shunt_to for branch in stiff], network.to_node)
    own = _marks(chosen, np.arange(len(chosen)), (network.branch_count, len(chosen)))
    every, shape = np.arange(network.branch_count), (network.node_count, network.branch_count)
    from_ends, to_ends = _marks(network.from_node, every, shape), _marks(network.to_node, every, shape)
    joins = (from_ends - to_ends) @ own
    impedance = sparse.block_diag([branch.impedance for branch in stiff] or [np.zeros((0, 0), complex)])
    balance = sparse.block_array(
        [[from_ends @ at_from + to_ends @ at_to + network.shunt_admittance, joins], [joins.T, -impedance]]
    )
    return NodalEquations(
        at_from=sparse.csr_array(sparse.hstack([at_from, own])),
        at_to=sparse.csr_array(sparse.hstack([at_to, -own])),
        balance=sparse.csr_array(balance),
    )


def _marks(row: IntArray, column: IntArray, shape: tuple[int, int]) -> sparse.csr_array:
    """Ones at (row, column)."""
    return sparse.csr_array((np.ones(len(row)), (row, column)), shape=shape)


def _blocks(network: Network, stiff: list[_Stiff], values: list[ComplexArray], end: IntArray) -> sparse.csr_array:
    """(m, n) Square blocks `values` of the stiff branches, by the voltages at their `end`."""
    conductors = [branch.conductor for branch in stiff]
    row = np.concatenate([_NONE, *(np.repeat(own, len(own)) for own in conductors)])
    column = np.concatenate([_NONE, *(np.tile(end[own], len(own)) for own in conductors)])
    value = np.concatenate([np.zeros(0, complex), *(block.ravel() for block in values)])
    return sparse.csr_array((value, (row, column)), shape=(network.branch_count, network.node_count))


def _stiff_branches(network: Network) -> list[_Stiff]:
    """Branches with a stiff conductor that join nodes to nodes, conductor by conductor."""
    size = abs(network.from_admittance).max(axis=1).toarray().ravel()
    names = np.unique(network.branch[size > STIFF_PU])
    place = np.flatnonzero(np.isin(network.branch, names))
    groups = [place[network.branch[place] == name] for name in names]
    return [branch for branch in (_stiff(network, conductor) for conductor in groups) if branch is not None]


def _stiff(network: Network, conductor: IntArray) -> _Stiff | None:
    """The stiff branch of these conductors; None for one that transforms voltages."""
    first, second = network.from_node[conductor], network.to_node[conductor]
    if len(set(first) | set(second)) < 2 * len(conductor):
        return None
    at_from, at_to = network.from_admittance[conductor], network.to_admittance[conductor]
    own_from, across = at_from[:, first].toarray(), at_from[:, second].toarray()
    back, own_to = at_to[:, first].toarray(), at_to[:, second].toarray()
    size = float(np.abs(across).max())
    shunts = own_from + across, own_to + back
    is_series = all(np.abs(part).max() <= size / STIFF_PU for part in (*shunts, across - back.T))
    if not is_series or np.linalg.matrix_rank(across) < len(conductor):
        return None
    shunt_from, shunt_to = (np.where(np.abs(part) > NO_SHUNT * size, part, 0.0) for part in shunts)
    return _Stiff(conductor, np.linalg.inv(-across), shunt_from, shunt_to)
