"""Derivatives by adjoints of single phases, against central differences of the power flow itself."""

import numpy as np
import pytest
from differences import SMOOTH_PU, close, differences
from scipy import sparse
from unbalanced import PAIRS, PORTS, ports, unbalanced, with_a_neutral

from dlmp.bids import at_ports
from dlmp.formulation.ac_tangent import AcPoint, AcTangent
from dlmp.formulation.interface import CONGESTION, UNBALANCE, VOLTAGE, Weights
from dlmp.market import simple_case
from dlmp.network.model import ComplexArray, FloatArray, IntArray

SCALES = (1.0, 4.0, -2.5)
"""Of the loads: so that voltages are in their bands, below and above."""
WYE = ["grid.2", "a.1", "b.3", "c.2"]
DELTA = ["b.1-b.2", "c.2-c.4", "d.2-d.3", "e.3-e.1"]
EDGE_PU = 1e-3
"""Steps move no voltage by as much: loads that are farther from an edge of their band stay on one side of it."""


@pytest.fixture(params=[True, False], ids=["loads that follow", "constant power"], scope="module")
def formulation(request: pytest.FixtureRequest) -> AcTangent:
    network = unbalanced(with_laws=request.param, v_unbalance_max=0.02)
    law_pu = simple_case(network, 20.0).law_pu
    return AcTangent(network, np.array(SCALES)[:, None] * law_pu)


@pytest.fixture(scope="module")
def power(formulation: AcTangent) -> ComplexArray:
    """(t, p) Injections of the loads of constant power, and a further one at each port that the tests look at."""
    network = formulation.network
    load = simple_case(network, 20.0).load_pu
    power = -np.array(SCALES)[:, None] * load
    power[:, ports(network, *WYE, *DELTA)] += np.linspace(-0.15, 0.15, 8) + 0.05j
    return power


@pytest.fixture(scope="module")
def point(formulation: AcTangent, power: ComplexArray) -> AcPoint:
    point = formulation.operate(power)
    assert point.converged.all()
    return point


def at(names: list[str]) -> IntArray:
    return np.array([PORTS.index(name) for name in names])


def smooth(point: AcPoint) -> np.ndarray:
    """(t, k) True where no magnitude comes near the corner that it has at zero."""
    limits = point.formulation.limits
    return point.limit_value > np.where(limits.cause == UNBALANCE, 0.02, SMOOTH_PU)


def test_loads_are_in_and_out_of_their_bands_and_far_enough_from_the_edges(formulation: AcTangent, point: AcPoint):
    law = formulation.network.law
    u = np.abs(formulation.network.incidence @ point.v_pu.T)[law.port] / law.base_pu[:, None]
    edges = np.array([law.u_low, law.u_min, law.u_max])
    assert (np.abs(u - edges[:, :, None]) > EDGE_PU).all()
    if len(law):
        regions = [np.searchsorted(edge, size) for edge, size in zip(edges.T, u, strict=True)]
        assert set(np.concatenate(regions).tolist()) == {0, 1, 2, 3}


def test_every_kind_of_limit_is_there(formulation: AcTangent):
    """Voltages to ground where they are determined, else line to line; currents, powers, and unbalance."""
    limits = formulation.limits
    voltages = [limits.name(limit) for limit in np.flatnonzero(limits.cause == VOLTAGE)]
    assert voltages == [
        *("bus a.1", "bus a.2", "bus a.3", "bus b.1", "bus b.2", "bus b.3", "bus c.2"),
        *("bus d.12", "bus d.23", "bus d.31", "bus e.12", "bus e.23", "bus e.31"),
    ]
    unbalance = limits.element[limits.cause == UNBALANCE]
    assert unbalance.tolist() == ["bus a", "bus b", "bus d", "bus e"]
    flows = limits.cause == CONGESTION
    assert {"A", "kVA"} == set(limits.unit[flows])
    assert {"from", "to", "both"} == set(limits.end[flows])


def test_limited_quantities_are_what_their_names_say(formulation: AcTangent, point: AcPoint):
    """From the voltages of the nodes, written out."""
    limits, network = formulation.limits, formulation.network
    v = dict(zip(PORTS, (network.incidence @ point.v_pu.T), strict=True))
    found = {limits.name(k): point.limit_value[:, k] for k in np.flatnonzero(limits.cause != UNBALANCE)}
    np.testing.assert_allclose(found["bus b.3"], np.abs(v["b.3"]))
    np.testing.assert_allclose(found["bus e.23"], np.abs(v["e.2"] - v["e.3"]) / 3**0.5)
    series = np.array([[0.03 + 0.035j, 0.008 + 0.012j], [0.008 + 0.012j, 0.008 + 0.012j + (0.022 + 0.023j) * 1.05]])
    current = np.linalg.solve(series, [v["b.2"] - v["c.2"], v["b.4"] - v["c.4"]])
    np.testing.assert_allclose(found["b-c.4"], np.abs(current[1]), rtol=1e-9)
    np.testing.assert_allclose(found["b-c.2 (from end)"], np.abs(v["b.2"] * current[0]), rtol=1e-9)
    np.testing.assert_allclose(found["b-c.2 (to end)"], np.abs(v["c.2"] * current[0]), rtol=1e-9)
    turn = np.exp(2j * np.pi / 3)
    zero_free = np.array([v["d.1"], v["d.2"], v["d.3"]])
    ratio = np.abs([1, turn**2, turn] @ zero_free) / np.abs([1, turn, turn**2] @ zero_free)
    (unbalance,) = np.flatnonzero((limits.cause == UNBALANCE) & (limits.element == "bus d"))
    np.testing.assert_allclose(point.limit_value[:, unbalance], ratio)
    assert (ratio > 0.01).all()


def test_gradients_of_import_are_its_differences(formulation: AcTangent, power: ComplexArray, point: AcPoint):
    own = at(WYE + DELTA)
    real, reactive = point.import_gradients(own)
    share = at_ports(own, len(PORTS))
    imported = differences(lambda power: formulation.operate(power).import_pu[:, None], power, share)
    close(real, imported[:, 0].real)
    close(reactive, imported[:, 0].imag)


def test_gradients_of_limits_of_every_kind_are_their_differences(
    formulation: AcTangent, power: ComplexArray, point: AcPoint
):
    own = at(WYE + DELTA)
    interval, limit = np.nonzero(smooth(point))
    for cause, least in ((VOLTAGE, 1.0), (CONGESTION, 0.6), (UNBALANCE, 0.6)):
        assert (formulation.limits.cause[limit] == cause).sum() >= least * 3 * (formulation.limits.cause == cause).sum()
    found = point.limit_gradients(interval, limit, own)
    expected = differences(lambda power: formulation.operate(power).limit_value, power, at_ports(own, len(PORTS)))
    close(found, expected[interval, limit], np.where(formulation.limits.cause[limit] == CONGESTION, 1e-9, 1e-10))


def weights(point: AcPoint) -> Weights:
    """Weights of both imports and of all smooth limits, of both signs."""
    random = np.random.default_rng(2)
    limits = sparse.csr_array(random.normal(size=point.limit_value.shape) * 30 * smooth(point))
    return Weights(np.array([20.0, -35.0, 10.0]), np.array([4.0, -7.0, 3.0]), limits)


def only(point: AcPoint, cause: str) -> Weights:
    """Weights of the limits of one cause."""
    mask = sparse.diags_array((point.formulation.limits.cause == cause).astype(float))
    limits = sparse.csr_array(weights(point).limits @ mask)
    assert limits.count_nonzero() >= 8
    return Weights(np.zeros(3), np.zeros(3), limits)


def shares() -> sparse.csr_array:
    """Injections at one port each, at three phases in equal parts, and across and to ground together."""
    mixed = np.zeros((2, len(PORTS)))
    mixed[0, at(["a.1", "a.2", "a.3"])] = 1 / 3
    mixed[1, at(["b.3", "b.1-b.2", "e.3-e.1"])] = 0.5, 0.3, 0.2
    return sparse.csr_array(sparse.vstack([at_ports(at(WYE[1:] + DELTA), len(PORTS)), sparse.csr_array(mixed)]))


@pytest.mark.parametrize("part", ["import", VOLTAGE, CONGESTION, UNBALANCE, "all"])
def test_hessian_of_the_lagrangian_is_the_difference_of_its_gradients(
    formulation: AcTangent, power: ComplexArray, point: AcPoint, part: str
):
    """Of shares of ports as of single ports: the gradient by a share is that of its ports, each by its part."""
    whole, zero = weights(point), Weights.zero(3, len(formulation.limits))
    weight = {"import": Weights(whole.import_p, whole.import_q, zero.limits), "all": whole}.get(part)
    weight = only(point, part) if weight is None else weight
    share = shares()
    count = share.shape[0]

    def gradient(power: ComplexArray) -> FloatArray:
        lagrangian = formulation.operate(power).lagrangian(weight)
        return (lagrangian.gradient(np.arange(len(PORTS))) @ share.toarray().T).reshape(3, -1)

    expected = differences(gradient, power, share).reshape(3, 2 * count, 2 * count)
    twice, reactive = sparse.csr_array(sparse.vstack([share, share])), np.repeat([False, True], count)
    for interval in range(3):
        found = point.lagrangian(weight).hessians(np.array([interval]), twice, reactive)[0]
        np.testing.assert_allclose(found, found.T, atol=1e-10 * np.abs(found).max())
        close(found, expected[interval])


def test_weighted_limits_have_the_weighted_gradient(point: AcPoint):
    own, weight = at(WYE + DELTA), weights(point)
    row = weight.limits.tocoo()
    expected = np.zeros((3, 2, len(own)))
    np.add.at(expected, row.row, point.limit_gradients(row.row, row.col, own) * row.data[:, None, None])
    np.testing.assert_allclose(point.weighted_limit_gradient(weight.limits, own), expected, atol=1e-8)


def test_adjoint_gradients_are_what_tangents_say(formulation: AcTangent, point: AcPoint):
    """``Re(g . dV)`` of the voltage change that an injection makes is the gradient by that injection."""
    share, sensitivity = shares(), point.sensitivity
    limit = np.arange(len(formulation.limits))
    for interval in range(3):
        chosen = limit[smooth(point)[interval]]
        every = np.full(len(chosen), interval)
        seed = formulation.magnitudes.seed(point.v_pu, every, chosen)
        by_port = point.limit_gradients(every, chosen, np.arange(len(PORTS)))
        for part, is_reactive in ((0, False), (1, True)):
            tangent = sensitivity.tangent(interval, share, np.full(share.shape[0], is_reactive))
            forward = (seed @ tangent).real
            np.testing.assert_allclose(by_port[:, part] @ share.T, forward, rtol=0, atol=1e-9)


def test_predicted_voltages_are_right_to_second_order(formulation: AcTangent, power: ComplexArray, point: AcPoint):
    """Half the step leaves a quarter of the error, where no load crosses an edge."""
    error = []
    for size in (0.02, 0.01):
        there = power.copy()
        there[:, at(WYE + DELTA)] += size * (np.linspace(-1, 1, 8) + 1j * np.linspace(1, -0.5, 8))
        moved = point.sensitivity.predicted_state(there) - formulation.operate(there).v_pu
        error.append(np.abs(formulation.network.incidence[at(PAIRS)] @ moved.T).max(axis=0))
    np.testing.assert_allclose(error[0] / error[1], 4.0, rtol=0.1)


def test_gradients_of_predicted_limits_are_their_differences(
    formulation: AcTangent, power: ComplexArray, point: AcPoint
):
    own = at(WYE + DELTA)
    there = power.copy()
    there[:, own] += 0.1 - 0.05j
    predicted = point.predicted_limits(there)
    interval, limit = np.nonzero(predicted > np.where(formulation.limits.cause == UNBALANCE, 0.02, SMOOTH_PU))
    found = point.predicted_limit_gradients(there, interval, limit, own)
    expected = differences(point.predicted_limits, there, at_ports(own, len(PORTS)))
    close(found, expected[interval, limit], 1e-9)


def test_a_neutral_without_any_voltage_spoils_no_derivative():
    network = with_a_neutral()
    formulation, power = AcTangent(network), np.zeros((1, network.port_count), complex)
    point, own = formulation.operate(power), ports(network, "x.1", "x.1-x.4")
    assert np.abs(point.v_pu[0, ports(network, "s.4")]).max() < 1e-15
    weight = Weights(np.ones(1), np.ones(1), sparse.csr_array(np.full((1, len(formulation.limits)), 5.0)))
    assert np.isfinite(point.lagrangian(weight).gradient(np.arange(network.port_count))).all()
    share = at_ports(own, network.port_count)
    expected = differences(
        lambda power: formulation.operate(power).lagrangian(weight).gradient(own).reshape(1, -1), power, share
    ).reshape(4, 4)
    found = point.lagrangian(weight).hessians(
        np.array([0]), at_ports(np.tile(own, 2), network.port_count), np.arange(4) > 1
    )[0]
    close(found, expected)
