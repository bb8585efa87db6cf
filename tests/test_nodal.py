"""Stiff conductors: their currents are unknowns, and cost no precision."""

import numpy as np
import pytest
from feeders import Branch, feeder
from scipy import sparse
from unbalanced import BALANCED, Wires, coupled, single_phases, unbalanced

from dlmp.formulation.ac_tangent import AcTangent
from dlmp.formulation.interface import Weights
from dlmp.network.model import UnbalancedNetwork
from dlmp.nodal import STIFF_PU, nodal_equations
from dlmp.powerflow import PowerFlow

FIRST, SECOND = coupled(3, 0.02 + 0.05j, 0.004 + 0.01j), coupled(3, 0.01 + 0.03j, 0.002 + 0.004j)
SOURCE = {f"s.{phase}": v for phase, v in zip("123", BALANCED, strict=True)}
SWITCH_PU = (1e7, 1e9, 1e12, 1e15)
"""Admittance of a closed switch: the last is stiffer than any difference of voltages can tell."""


def switched(admittance_pu: float) -> UnbalancedNetwork:
    """A source behind a coupled line, a closed switch of three phases, and another such line."""
    nodes = [f"{bus}.{phase}" for bus in "sabx" for phase in "123"]
    wires = Wires(nodes)
    wires.line("s", "a", "123", FIRST)
    wires.line("a", "b", "123", np.eye(3) / admittance_pu)
    wires.line("b", "x", "123", SECOND)
    return single_phases(wires, SOURCE)


def test_a_network_without_stiff_conductors_has_its_admittance_alone():
    for network in (unbalanced(), feeder([Branch("a", "b", 0.02, 0.04, shunt=0.1j)])):
        equations = nodal_equations(network)
        np.testing.assert_allclose(equations.balance.toarray(), network.admittance.toarray(), rtol=1e-14)
        np.testing.assert_array_equal(equations.at_from.toarray(), network.from_admittance.toarray())
        np.testing.assert_array_equal(equations.at_to.toarray(), network.to_admittance.toarray())


@pytest.mark.parametrize("admittance_pu", SWITCH_PU)
def test_through_a_closed_switch_flows_what_is_drawn_behind_it(admittance_pu: float):
    """A load of 1, 2 and 3 pu at the end: the switch's own voltage drop is far below the rounding of a voltage."""
    network = switched(admittance_pu)
    formulation, power = AcTangent(network), np.zeros((1, network.port_count), complex)
    end, behind = (network.nodes_at(network.bus_number[bus]) for bus in ("x", "b"))
    power[0, end] = -np.array([1 + 0.2j, 2 + 0.5j, 3 - 0.4j])
    point = formulation.operate(power)
    assert point.converged.all()
    drawn = np.conj(power[0, end] / point.v_pu[0, end])
    switch = network.conductors_of("a-b")
    through = np.conj(point.branch_power()[0][0, switch] / point.v_pu[0, network.from_node[switch]])
    np.testing.assert_allclose(through, -drawn, rtol=1e-12)
    drop = point.v_pu[0, network.from_node[switch]] - point.v_pu[0, behind]
    np.testing.assert_allclose(drop, through / admittance_pu, rtol=0, atol=1e-15)


@pytest.mark.parametrize("admittance_pu", SWITCH_PU)
def test_a_closed_switch_is_as_if_its_ends_were_one_bus(admittance_pu: float):
    """Voltages behind it and import are those of one line of both impedances, and so are gradients."""
    network = switched(admittance_pu)
    wires = Wires([f"{bus}.{phase}" for bus in "sx" for phase in "123"])
    wires.line("s", "x", "123", FIRST + SECOND)
    plain = single_phases(wires, SOURCE)
    points, gradients = [], []
    for own in (network, plain):
        end, power = own.nodes_at(own.bus_number["x"]), np.zeros((1, own.port_count), complex)
        power[0, end] = -np.array([1 + 0.2j, 2 + 0.5j, 3 - 0.4j])
        point = AcTangent(own).operate(power)
        points.append((point.v_pu[0, end], point.import_pu, point.losses_pu))
        gradients.append(point.import_gradients(end))
    atol = 10 / admittance_pu + 1e-12
    for mine, theirs in (*zip(*points, strict=True), *zip(*gradients, strict=True)):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=20 * atol)


def test_charging_of_a_stiff_line_stays():
    """At an admittance of 1e8 pu a charging of 1e-5 pu is still to be told from rounding."""
    wires = Wires([f"{bus}.{phase}" for bus in "sx" for phase in "123"])
    wires.line("s", "x", "123", np.eye(3) * 1e-8, np.eye(3) * 2e-5j)
    equations = nodal_equations(single_phases(wires, SOURCE))
    assert equations.balance.shape == (9, 9)
    shunts = equations.at_from.toarray()[:, :3]
    np.testing.assert_allclose(shunts, 1e-5j * np.eye(3), rtol=0, atol=1e-7)


def test_a_stiff_transformer_keeps_its_ratio():
    """It is no difference of two voltages: its admittances stand as they are."""
    network = feeder([Branch("a", "b", 0.0, 0.1 / STIFF_PU, tap=0.95)])
    assert nodal_equations(network).balance.shape == (2, 2)
    assert np.abs(PowerFlow(network).no_load_pu[1]) == pytest.approx(1 / 0.95, rel=1e-9)


def test_curvature_by_common_tangents_is_nearly_that_by_each_interval_s_own():
    network = unbalanced()
    power = np.zeros((3, network.port_count), complex)
    own = np.setdiff1d(np.arange(network.node_count), network.source)[:6]
    power[:, own] = -0.02 * np.array([1.0, 0.6, 0.3])[:, None] * (1 + 0.3j)
    formulation = AcTangent(network)
    point = formulation.operate(power)
    weight = Weights(np.full(3, 30.0), np.zeros(3), sparse.csr_array((3, len(formulation.limits))))
    share = sparse.csr_array((np.ones(4), (np.arange(4), own[[0, 1, 0, 1]])), shape=(4, network.port_count))
    reactive, every = np.array([False, False, True, True]), np.arange(3)
    exact = point.lagrangian(weight).hessians(every, share, reactive)
    formulation.flow.is_large = True
    nearly = point.lagrangian(weight).hessians(every, share, reactive)
    assert 0 < np.abs(nearly - exact).max() < 0.05 * np.abs(exact).max()
