"""The coefficients of the linear power flow of a radial network, by phase.

With the sections of `dlmp.formulation.sections`, the flow ``S = P + jQ = V' conj(J)`` into every impedance
and the squared voltages ``w`` of the nodes follow linear equations once the phase angles are those of fixed
phasors ``V`` (Gan and Low, PSCC 2014; Arnold et al., IEEE PES General Meeting 2016, for lines).  Three
identities, exact at ``V``, give the coefficients:

    |sum_j a_j V_j|^2 = sum_j Re(conj(u) a_j V_j) / |V_j|^2  w_j,   u = sum_j a_j V_j     transformers, pairs
    V_s,j conj(I_s,j) = sum_k (V_s,j N_kj / V'_k) S_k                                     their powers
    |V'_k|^2 - w_k    = sum_l 2 Re(V'_k conj(Z_kl) / V'_l S_l) - |(Z J)_k|^2              voltage drop

What the angles do to a voltage across two phases is left out.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from dlmp.formulation.sections import Sections, like, picked
from dlmp.network.model import ComplexArray, IntArray, Network

PHASOR_DIGITS = 14
"""Digits to which ratios of phasors are kept: that of a phasor with itself is one."""


@dataclass(frozen=True, eq=False)
class Tangent:
    """Linear function ``by_p P + by_q Q + by_w w`` of flows and squared voltages, for every section.

    A tangent of a square over a voltage, such as ``(P^2 + Q^2) / w``, has no constant.

    Parameters
    ----------
    by_p, by_q
        (c, c) Coefficients of the flows.
    by_w
        (c, n) Coefficients of the squared voltages.
    """

    by_p: sparse.csr_array
    by_q: sparse.csr_array
    by_w: sparse.csr_array

    @property
    def real(self) -> "Tangent":
        """Its real part."""
        return Tangent(self.by_p.real, self.by_q.real, self.by_w.real)

    @property
    def imag(self) -> "Tangent":
        """Its imaginary part."""
        return Tangent(self.by_p.imag, self.by_q.imag, self.by_w.imag)


@dataclass(frozen=True, eq=False)
class LinearLaws:
    """Loads that follow their voltage, ``constant_pu + by_voltage w`` at squared voltages ``w``.

    Parameters
    ----------
    constant_pu
        (t, l) Constant part [pu]; t is 1 without such loads.
    by_voltage
        (l, n) Complex power by squared voltage.
    """

    constant_pu: ComplexArray
    by_voltage: sparse.csr_array


@dataclass(frozen=True, eq=False)
class LinearNetwork:
    """Coefficients of the linear power flow at fixed phasors.

    Parameters
    ----------
    sections
        What they are made from.
    behind
        (c, n) Squared voltage behind each ideal transformer, by squared voltage.
    entering
        (m, c) Complex power into each branch conductor at its sending end, by flow.
    drop_p, drop_q
        (c, c) Drop of the squared voltage by real and by reactive flow.
    lost, squared_drop
        Tangents of the complex power lost in each section, ``(Z J)_k conj(J_k)``, and of ``|(Z J)_k|^2``.
    shunt_from, shunt_to, shunt
        (m, n), (m, n) and (n, n) Complex power by squared voltage: into the rest of each branch at its
        ends, and into all that follows the voltage at each node.
    spread
        (n, p) Power at each node by power at each port: a pair's divides by the phasors of its two nodes.
    law_pu
        (t, n) Constant part of the loads that follow their voltage [pu]; t is 1 without such loads.
    laws
        The same loads one by one.
    """

    sections: Sections
    behind: sparse.csr_array
    entering: sparse.csr_array
    drop_p: sparse.csr_array
    drop_q: sparse.csr_array
    lost: Tangent
    squared_drop: Tangent
    shunt_from: sparse.csr_array
    shunt_to: sparse.csr_array
    shunt: sparse.csr_array
    spread: sparse.csr_array
    law_pu: ComplexArray
    laws: LinearLaws


def linear_network(
    network: Network, sections: Sections, v_pu: ComplexArray, law_pu: ComplexArray | None, *, with_losses: bool
) -> LinearNetwork:
    """Coefficients at phasors `v_pu` (n,) of a loaded network, whose losses they drive, or of one without load.

    Loads that follow their voltage, with nominal powers `law_pu` (t, l), become linear in the squared
    voltage ``w`` of their port around its value ``w0`` there: ``S = S0 f + mean(S0) (u f'/2) (w / w0 - 1)``,
    ``u f' = e f`` for ``f = u^e``, with the slope of the mean interval in all of them.  Without load the
    bands of the laws are ignored: load draws the voltages back into them.
    """
    nodes = network.node_count
    ratio = sections.behind(nodes)
    behind_v = ratio @ v_pu
    behind = squared_magnitude(ratio, v_pu)
    relative = sparse.coo_array(sections.impedance)
    drop = 2 * np.conj(relative.data) * phasor_ratio(behind_v[relative.row], behind_v[relative.col])
    lost, squared_drop = _tangents(sections, v_pu, behind_v, behind, with_losses=with_losses)
    power = sparse.coo_array(sections.ratio.T)
    entering = phasor_ratio(power.data * v_pu[sections.sending[power.row]], behind_v[power.col])
    every = np.arange(nodes)
    shunt_from = power_by_voltage(sections.rest_from, network.from_node, v_pu)
    shunt_to = power_by_voltage(sections.rest_to, network.to_node, v_pu)
    spread = _spread(network, v_pu)
    laws = _laws(network, v_pu, law_pu, with_bands=with_losses)
    law_at_node = spread[:, network.law.port]
    return LinearNetwork(
        sections=sections,
        behind=behind,
        entering=like(power, entering),
        drop_p=like(relative, drop.real),
        drop_q=like(relative, -drop.imag),
        lost=lost,
        squared_drop=squared_drop,
        shunt_from=shunt_from,
        shunt_to=shunt_to,
        shunt=sparse.csr_array(
            power_by_voltage(network.shunt_admittance, every, v_pu)
            + picked(network.from_node, nodes).T @ shunt_from
            + picked(network.to_node, nodes).T @ shunt_to
            + law_at_node @ laws.by_voltage
        ),
        spread=spread,
        law_pu=laws.constant_pu @ law_at_node.T,
        laws=laws,
    )


def _tangents(
    sections: Sections, v_pu: ComplexArray, behind_v: ComplexArray, behind: sparse.csr_array, *, with_losses: bool
) -> tuple[Tangent, Tangent]:
    """Tangents of ``u conj(J)`` and ``|u|^2``, ``u = Z J``, by ``dJ = conj(dS / V') - J dw' / (2 w')``."""
    u = (behind_v - v_pu[sections.receiving]) * with_losses
    current, squared = sections.admittance @ u, np.abs(behind_v) ** 2
    diagonal, z = sparse.diags_array, sections.impedance
    own = diagonal(u / behind_v)
    others = diagonal(np.conj(current)) @ z @ diagonal(1 / np.conj(behind_v))
    by_behind = diagonal(np.conj(current) * u) + diagonal(np.conj(current)) @ z @ diagonal(current)
    across = diagonal(np.conj(u)) @ z
    by_flow = 2 * (across @ diagonal(1 / np.conj(behind_v)))
    lost = Tangent(
        sparse.csr_array(own + others),
        sparse.csr_array(1j * (own - others)),
        sparse.csr_array(by_behind @ diagonal(-0.5 / squared) @ behind),
    )
    squared_drop = Tangent(
        sparse.csr_array(by_flow.real),
        sparse.csr_array(by_flow.imag),
        sparse.csr_array((across @ diagonal(current)).real @ diagonal(-1 / squared) @ behind),
    )
    return lost, squared_drop


def squared_magnitude(rows: sparse.csr_array, v_pu: ComplexArray) -> sparse.csr_array:
    """``|rows V|^2`` by squared voltage, the angles those of `v_pu`; exact there."""
    total, entry = rows @ v_pu, sparse.coo_array(rows)
    part = np.conj(total[entry.row]) * entry.data * v_pu[entry.col]
    return like(entry, part.real / np.abs(v_pu[entry.col]) ** 2)


def power_by_voltage(rows: sparse.csr_array, node: IntArray, v_pu: ComplexArray) -> sparse.csr_array:
    """Power ``V_node conj(rows V)`` by squared voltage, the angles those of `v_pu`; exact there."""
    entry = sparse.coo_array(rows)
    here = node[entry.row]
    power = v_pu[here] * np.conj(entry.data * v_pu[entry.col]) / 2
    shares = np.r_[power / np.abs(v_pu[here]) ** 2, power / np.abs(v_pu[entry.col]) ** 2]
    return sparse.csr_array((shares, (np.tile(entry.row, 2), np.r_[here, entry.col])), shape=rows.shape)


def _spread(network: Network, v_pu: ComplexArray) -> sparse.csr_array:
    """(n, p) Power at each node by power at each port."""
    entry = sparse.coo_array(network.incidence.T)
    return like(entry, phasor_ratio(entry.data * v_pu[entry.row], (network.incidence @ v_pu)[entry.col]))


def _laws(network: Network, v_pu: ComplexArray, law_pu: ComplexArray | None, *, with_bands: bool) -> LinearLaws:
    """The loads that follow their voltage, made linear in the squared voltages."""
    law = network.law
    if law_pu is None or not len(law):
        none = np.zeros((1, len(law)), complex)
        return LinearLaws(none, sparse.csr_array((len(law), network.node_count), dtype=complex))
    rows = network.incidence[law.port]
    size = np.abs(rows @ v_pu)
    value = (size / law.base_pu) ** law.exponent
    by_size = law.exponent * value
    if with_bands:
        value, by_size, _ = (part[:, 0] for part in law.shape(size[:, None]))
    slope = law_pu.mean(axis=0) * by_size / 2
    by_voltage = sparse.diags_array(slope / size**2) @ squared_magnitude(rows, v_pu)
    return LinearLaws(law_pu * value - slope, sparse.csr_array(by_voltage))


def phasor_ratio(over: ComplexArray, under: ComplexArray) -> ComplexArray:
    """Ratio of phasors, exactly one for equal ones."""
    return np.asarray(np.round(over / under, PHASOR_DIGITS))
