"""Derivatives by adjoints, against central differences of the power flow itself."""

from dataclasses import replace

import numpy as np
import pytest
from cases import cigre, feeder33
from differences import SMOOTH_PU, close, differences
from feeders import Branch, feeder
from scipy import sparse

from dlmp.bids import at_ports
from dlmp.formulation.ac_tangent import AcPoint, AcTangent
from dlmp.formulation.interface import VOLTAGE, Weights
from dlmp.network.model import ComplexArray, FloatArray, IntArray, Network
from dlmp.units import BASE_KVA


def all_rated(network: Network) -> Network:
    """Every branch limited at both ends at an unequal rating, every other one by current."""
    rating = 1e3 + np.arange(network.branch_count)
    by_current = np.arange(network.branch_count) % 2 == 0
    return replace(network, rating_from_pu=rating, rating_to_pu=rating + 0.5, rating_is_current=by_current)


def small() -> Network:
    """Taps, phase shift, shunts and two sources, in six buses."""
    branches = [
        Branch("a", "b", 0.010, 0.030, tap=0.97 * np.exp(0.4j), shunt=0.01 + 0.02j),
        Branch("b", "c", 0.020, 0.015, shunt=0.05j),
        Branch("c", "d", 0.015, 0.025),
        Branch("d", "f", 0.020, 0.030, tap=0.98 * np.exp(0.4j)),
        Branch("b", "e", 0.030, 0.020),
    ]
    load = {"b": (40, 10), "c": (70, 40), "d": (50, -20), "e": (-60, 30), "f": (10, 5)}
    return feeder(branches, load, source={"a": 1.02, "f": 1.01 * np.exp(0.39j)}, shunt={"c": 0.02 + 0.1j})


NETWORKS = {
    "small": small,
    "33 meshed": lambda: feeder33(meshed=True),
    "cigre": cigre,
}


@pytest.fixture(params=NETWORKS)
def formulation(request: pytest.FixtureRequest) -> AcTangent:
    return AcTangent(all_rated(NETWORKS[request.param]()))


def injection(formulation: AcTangent) -> ComplexArray:
    """(2, n) The network's loads, and a mixture of consumption and generation."""
    p_kw, q_kvar = formulation.network.element_loads()
    load = (p_kw + 1j * q_kvar) / BASE_KVA
    size = np.abs(load).mean()
    random = np.random.default_rng(5).normal(size=(2, len(load)))
    return np.array([-load, size * (0.7 * random[0] + 0.4j * random[1])])


def some_nodes(network: Network) -> np.ndarray:
    """Up to eight nodes, the sources among them."""
    return np.unique(np.r_[network.source, np.linspace(0, network.node_count - 1, 6).astype(int)])


def rounding(formulation: AcTangent, limit: IntArray) -> FloatArray:
    """Error of a difference of voltages, and of flows, which are differences of voltages over an impedance."""
    return np.where(formulation.limits.cause[limit] == VOLTAGE, 1e-11, 1e-9)


def test_gradients_of_import_are_its_differences(formulation: AcTangent):
    power, nodes = injection(formulation), some_nodes(formulation.network)
    real, reactive = formulation.operate(power).import_gradients(nodes)
    share = at_ports(nodes, formulation.network.port_count)
    imported = differences(lambda power: formulation.operate(power).import_pu[:, None], power, share)
    close(real, imported[:, 0].real)
    close(reactive, imported[:, 0].imag)


def test_gradients_of_voltages_currents_and_apparent_powers_are_their_differences(formulation: AcTangent):
    """Every limit: the magnitude of every voltage, and both ends of every branch."""
    power, nodes = injection(formulation), some_nodes(formulation.network)
    interval, limit = np.nonzero(formulation.operate(power).limit_value > SMOOTH_PU)
    assert len(limit) > 0.9 * 2 * len(formulation.limits)
    found = formulation.operate(power).limit_gradients(interval, limit, nodes)
    share = at_ports(nodes, formulation.network.port_count)
    expected = differences(lambda power: formulation.operate(power).limit_value, power, share)
    close(found, expected[interval, limit], rounding(formulation, limit))


def weights(point: AcPoint, seed: int = 1) -> Weights:
    """Weights of both imports and of a third of the smooth limits, of both signs."""
    random = np.random.default_rng(seed)
    shape = point.limit_value.shape
    chosen = (random.random(shape) < 1 / 3) & (point.limit_value > SMOOTH_PU)
    limits = sparse.csr_array(random.normal(size=shape) * 30 * chosen)
    return Weights(np.array([20.0, -35.0]), np.array([4.0, -7.0]), limits)


def test_weighted_limits_have_the_weighted_gradient(formulation: AcTangent):
    point, nodes = formulation.operate(injection(formulation)), some_nodes(formulation.network)
    weight = weights(point)
    row = weight.limits.tocoo()
    expected = np.zeros((2, 2, len(nodes)))
    np.add.at(expected, row.row, point.limit_gradients(row.row, row.col, nodes) * row.data[:, None, None])
    np.testing.assert_allclose(point.weighted_limit_gradient(weight.limits, nodes), expected, atol=1e-9)


def test_gradient_of_the_lagrangian_is_the_sum_of_its_parts(formulation: AcTangent):
    point, nodes = formulation.operate(injection(formulation)), some_nodes(formulation.network)
    weight = weights(point)
    real, reactive = point.import_gradients(nodes)
    expected = weight.import_p[:, None, None] * real + weight.import_q[:, None, None] * reactive
    expected = expected - point.weighted_limit_gradient(weight.limits, nodes)
    np.testing.assert_allclose(point.lagrangian(weight).gradient(nodes), expected, atol=1e-9)


@pytest.mark.parametrize("part", ["import", "limits", "both"])
def test_hessian_of_the_lagrangian_is_the_difference_of_its_gradients(formulation: AcTangent, part: str):
    power, network = injection(formulation), formulation.network
    nodes = np.setdiff1d(some_nodes(network), network.source)
    weight = weights(formulation.operate(power))
    zero = Weights.zero(2, len(formulation.limits))
    weight = {
        "import": Weights(weight.import_p, weight.import_q, zero.limits),
        "limits": Weights(zero.import_p, zero.import_q, weight.limits),
        "both": weight,
    }[part]
    expected = differences(
        lambda power: formulation.operate(power).lagrangian(weight).gradient(nodes).reshape(2, -1),
        power,
        at_ports(nodes, network.port_count),
    ).reshape(2, 2 * len(nodes), 2 * len(nodes))
    lagrangian = formulation.operate(power).lagrangian(weight)
    for interval in range(2):
        share = at_ports(np.tile(nodes, 2), network.port_count)
        found = lagrangian.hessians(np.array([interval]), share, np.repeat([False, True], len(nodes)))[0]
        np.testing.assert_allclose(found, found.T, atol=1e-10 * np.abs(found).max())
        close(found, expected[interval])


def test_hessian_of_a_few_injections_is_part_of_the_whole(formulation: AcTangent):
    point = formulation.operate(injection(formulation))
    lagrangian = point.lagrangian(weights(point))
    share, reactive = at_ports([1, 2, 1, 2], formulation.network.port_count), np.array([False, False, True, True])
    whole = lagrangian.hessians(np.array([1]), share, reactive)[0]
    part = np.array([3, 0])
    np.testing.assert_allclose(
        lagrangian.hessians(np.array([1]), share[part], reactive[part])[0], whole[np.ix_(part, part)], rtol=1e-9
    )


def test_predicted_voltages_are_right_to_second_order(formulation: AcTangent):
    """Half the step leaves a quarter of the error."""
    power = injection(formulation)
    direction = np.random.default_rng(3).normal(size=(2, *power.shape)) * np.abs(power).mean()
    point = formulation.operate(power)
    error = []
    for size in (0.2, 0.1):
        there = power + size * (direction[0] + 1j * direction[1])
        error.append(np.abs(point.sensitivity.predicted_state(there) - formulation.operate(there).v_pu).max(axis=1))
    np.testing.assert_allclose(error[0] / error[1], 4.0, rtol=0.1)


def test_nothing_moved_predicts_the_state_itself(formulation: AcTangent):
    power = injection(formulation)
    point = formulation.operate(power)
    np.testing.assert_array_equal(point.predicted_limits(power), point.limit_value)


def test_gradients_of_predicted_limits_are_their_differences(formulation: AcTangent):
    power, nodes = injection(formulation), some_nodes(formulation.network)
    point = formulation.operate(power)
    there = power * 1.3 + 0.1j
    interval, limit = np.nonzero(point.predicted_limits(there) > SMOOTH_PU)
    found = point.predicted_limit_gradients(there, interval, limit, nodes)
    expected = differences(point.predicted_limits, there, at_ports(nodes, formulation.network.port_count))
    close(found, expected[interval, limit], rounding(formulation, limit))
