"""Rows and curvature over the unknowns of states: eliminated, they are the gradients and Hessians by injections.

Those are held against differences of the power flow in `test_sensitivity_phases`.
"""

from dataclasses import replace

import numpy as np
import pytest
from feeders import Branch, feeder
from scipy import sparse
from unbalanced import ports, unbalanced

from dlmp.formulation.ac_states import AcLagrangian
from dlmp.formulation.ac_tangent import AcPoint, AcTangent
from dlmp.formulation.interface import Weights
from dlmp.market import simple_case
from dlmp.network.model import FloatArray, IntArray

DELTA = ["b.1-b.2", "c.2-c.4", "d.2-d.3", "e.3-e.1"]


def unbalanced_point(with_laws: bool) -> AcPoint:
    """Wye and delta loads, with and without those that follow their voltage, and a limit of unbalance."""
    network = unbalanced(with_laws=with_laws, v_unbalance_max=0.02)
    case = simple_case(network, 20.0)
    power = -np.concatenate([case.load_pu, 2 * case.load_pu])
    power[:, ports(network, "a.1", "b.3", "c.2", *DELTA)] += np.linspace(-0.15, 0.15, 7) + 0.05j
    return AcTangent(network, np.concatenate([case.law_pu, 2 * case.law_pu])).operate(power)


def stiff_point() -> AcPoint:
    """A closed switch and a very short line between three lines."""
    branches = [
        Branch("a", "b", 0.02, 0.04, rating=3.0, is_current=True),
        Branch("b", "c", 1e-9, 1e-9),
        Branch("c", "d", 0.03, 0.01, rating=2.0),
        Branch("b", "e", 1e-8, 0.0),
        Branch("e", "f", 0.05, 0.02, tap=0.97),
    ]
    network = feeder(branches, {"d": (40, 10), "f": (30, 20)})
    power = np.zeros((2, network.port_count), complex)
    power[:, 3], power[:, 5] = [-0.4 - 0.1j, 0.2], [-0.3 - 0.2j, -0.1j]
    return AcTangent(network).operate(power)


POINTS = {
    "constant power": lambda: unbalanced_point(with_laws=False),
    "loads that follow": lambda: unbalanced_point(with_laws=True),
    "stiff conductors": stiff_point,
}


@pytest.fixture(params=POINTS, scope="module")
def point(request: pytest.FixtureRequest) -> AcPoint:
    found = POINTS[request.param]()
    assert found.converged.all()
    return found


def own_ports(point: AcPoint) -> IntArray:
    """All ports whose injection has an effect, sources too."""
    return np.arange(point.formulation.network.port_count)


def moved(point: AcPoint, state: int) -> FloatArray:
    """(size, 2 * ports) Change of the unknowns by injections."""
    jacobian, injected = point.state_equations.equations(state, own_ports(point))
    return np.linalg.solve(jacobian.toarray(), injected.toarray())


def weights(point: AcPoint) -> Weights:
    """Prices of import, and of limits that are far from zero."""
    random = np.random.default_rng(5)
    price = np.where(point.limit_value > 0.02, random.uniform(-20, 20, point.limit_value.shape), 0.0)
    return Weights(np.array([30.0, -8.0]), np.array([2.0, 0.0]), sparse.csr_array(price))


def test_rows_of_limits_and_import_are_their_gradients(point: AcPoint):
    ports = own_ports(point)
    real, reactive = point.import_gradients(ports)
    by_unknown, by_injection = point.state_equations.import_rows(ports)
    smooth = np.flatnonzero((point.limit_value > 0.02).all(axis=0))
    for state in (0, 1):
        ways, every = moved(point, state), np.full(len(smooth), state)
        rows = point.state_equations.limit_rows(every, smooth) @ ways
        np.testing.assert_allclose(
            rows, point.limit_gradients(every, smooth, ports).reshape(len(smooth), -1), atol=1e-8
        )
        imported = by_unknown @ ways + by_injection.toarray()
        expected = np.stack([real[state].ravel(), reactive[state].ravel()])
        np.testing.assert_allclose(imported, expected, atol=1e-8)


def test_curvature_of_the_lagrangian_is_its_hessian(point: AcPoint):
    ports, own = own_ports(point), weights(point)
    own.limits.data[np.isin(own.limits.indices, np.flatnonzero(~(point.limit_value > 0.02).all(axis=0)))] = 0.0
    lagrangian, expected = point.state_equations.lagrangian(own), point.lagrangian(own)
    np.testing.assert_allclose(lagrangian.gradient(ports), expected.gradient(ports), atol=1e-8)
    free = ports[~point.formulation.is_held[ports]]
    share = sparse.csr_array((np.ones(len(free)), (np.arange(len(free)), free)), shape=(len(free), len(ports)))
    twice, reactive = sparse.csr_array(sparse.vstack([share, share])), np.repeat([False, True], len(free))
    hessians = expected.hessians(np.array([0, 1]), twice, reactive)
    place = np.concatenate([free, len(ports) + free])
    for state in (0, 1):
        ways = moved(point, state)
        by_unknown, mixed = lagrangian.curvature(state, ports, *point.state_equations.equations(state, ports))
        crossed = mixed.T @ ways
        whole = ways.T @ (by_unknown @ ways) + crossed + crossed.T
        size = np.abs(hessians[state]).max()
        np.testing.assert_allclose(whole[np.ix_(place, place)], hessians[state], atol=1e-8 * size)


def test_curvature_of_losses_is_that_of_the_power_that_the_network_takes(point: AcPoint):
    """``losses(x + h) - 2 losses(x) + losses(x - h) = h^T C h``: losses are quadratic in the state."""
    states, flow = point.state_equations, point.formulation.flow
    random = np.random.default_rng(1)
    step = random.normal(size=(2, states.size)) * 1e-3
    change = np.zeros_like(point.state_pu)
    change[:, flow.unknown] = step[:, : len(flow.unknown)] + 1j * step[:, len(flow.unknown) :]
    nodes = point.formulation.network.node_count
    # Currents of stiff conductors follow the voltages at their ends; what they lose is counted by their impedance.
    change[:, nodes:] = 0.0
    step[:, len(flow.free) : len(flow.unknown)] = step[:, len(flow.unknown) + len(flow.free) :] = 0.0
    up, here, down = (
        replace(point, sensitivity=replace(point.sensitivity, state_pu=point.state_pu + sign * change)).losses_pu
        for sign in (1, 0, -1)
    )
    found = np.einsum("ti,ti->t", step, (states.loss_curvature @ step.T).T)
    np.testing.assert_allclose(found, up - 2 * here + down, rtol=1e-6, atol=1e-12)


def test_losses_never_curve_downwards(point: AcPoint):
    value = np.linalg.eigvalsh(point.state_equations.loss_curvature.toarray())
    assert value.min() >= -1e-9 * value.max()


def test_the_lagrangian_of_states_costs_one_solve_and_gives_the_same_adjoint(point: AcPoint):
    own = weights(point)
    both = point.state_equations.lagrangian(own), point.lagrangian(own)
    assert all(isinstance(lagrangian, AcLagrangian) for lagrangian in both)
    np.testing.assert_allclose(both[0].adjoint, both[1].adjoint, atol=1e-7 * np.abs(both[1].adjoint).max())


def test_other_weights_of_one_state_are_seen(point: AcPoint):
    own, states = weights(point), point.state_equations
    states.lagrangian(own)
    other = Weights(own.import_p * [1.0, 3.0], own.import_q, own.limits)
    nothing = Weights.zero(2, own.limits.shape[1])
    for changed in (other, nothing, own):
        expected = point.lagrangian(changed).adjoint
        size = np.abs(expected).max(initial=1.0)
        np.testing.assert_allclose(states.lagrangian(changed).adjoint, expected, atol=1e-7 * size)
