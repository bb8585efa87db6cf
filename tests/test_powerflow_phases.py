"""The AC power flow of single phases: currents balance at every node, and known cases come out as known."""

from dataclasses import replace

import numpy as np
import pytest
from feeders import Branch, feeder
from scipy import sparse
from unbalanced import (
    BALANCED,
    LAWS,
    PORTS,
    POWER_KVA,
    ROOT3,
    U_MAX,
    U_MIN,
    Wires,
    base_pu,
    coupled,
    ports,
    single_phases,
    unbalanced,
    with_a_neutral,
)

from dlmp import powerflow
from dlmp.market import simple_case
from dlmp.network.loads import BAND_SLACK, LoadLaws
from dlmp.network.model import ComplexArray, FloatArray, UnbalancedNetwork
from dlmp.powerflow import DIRECT_COLUMNS, Jacobian, PowerFlow
from dlmp.units import BASE_KVA

SCALES = (1.0, 5.0, -2.5, 0.0)
"""Of the loads: as they are, so heavy and so negative that voltages leave the bands, and none."""


def loaded(network: UnbalancedNetwork, *scales: float) -> tuple[PowerFlow, ComplexArray]:
    """The flow of `network` and (t, p) injections, with its own loads by as many scales."""
    case = simple_case(network, np.zeros(len(scales)))
    by = np.array(scales)[:, None]
    return PowerFlow(network, by * case.law_pu), -by * case.load_pu


def port_voltage(network: UnbalancedNetwork, v: ComplexArray) -> dict[str, complex]:
    """Voltage of each port by name, from voltages (n,)."""
    node = dict(zip([port for port in PORTS if "-" not in port], v, strict=True))
    return node | {port: node[port[:3]] - node[port[4:]] for port in PORTS if "-" in port}


def share_of_nominal(u: float, exponent: float, outer: float, u_low: float) -> float:
    """Power of a load over its nominal power at `u` of its base, by the rules of its band."""
    low, high = U_MIN * (1 - BAND_SLACK), U_MAX * (1 + BAND_SLACK)
    if u > high:
        return high**outer * (u / high) ** 2
    if u >= low:
        return u**exponent
    if u < u_low:
        return u**2
    current = np.interp(u, [u_low, low], [u_low, low ** (outer - 1)])
    return float(u * current)


def mismatch(network: UnbalancedNetwork, v: ComplexArray, scale: float) -> float:
    """Largest current [pu] that is left over at a node without a source, at voltages (n,) and scaled loads."""
    across = port_voltage(network, v)
    drawn = dict.fromkeys(PORTS, 0j)
    for port, kva in POWER_KVA.items():
        drawn[port] += np.conj(scale * kva / BASE_KVA / across[port])
    for law in LAWS if len(network.law) else ():
        share = share_of_nominal(abs(across[law.port]) / base_pu(law.port), law.exponent, law.outer, law.u_low)
        drawn[law.port] += np.conj(scale * law.kva / BASE_KVA * share / across[law.port])
    left = network.admittance @ v
    for port, current in drawn.items():
        for end, sign in zip(port.split("-"), (1, -1), strict=False):
            left[PORTS.index(end)] += sign * current
    return float(np.abs(left[~network.is_source]).max())


def law_voltages(network: UnbalancedNetwork, v: ComplexArray) -> FloatArray:
    """(t, l) Voltage of each load that follows it, over its base."""
    return np.abs((network.incidence @ v.T).T)[:, network.law.port] / network.law.base_pu


@pytest.mark.parametrize("with_laws", [True, False])
def test_currents_balance_at_every_node_of_every_interval(with_laws: bool):
    network = unbalanced(with_laws=with_laws)
    flow, power = loaded(network, *SCALES)
    v, converged = flow.solve(power)
    assert converged.all()
    assert max(mismatch(network, v[t], scale) for t, scale in enumerate(SCALES)) < 1e-10


def test_those_intervals_take_loads_to_every_part_of_their_law():
    """In the band, above it, below it on the line of currents, and below that, to ground and across pairs."""
    network = unbalanced()
    flow, power = loaded(network, *SCALES)
    u = law_voltages(network, flow.solve(power)[0])
    line = (u < U_MIN) & (u > network.law.u_low)
    for part in ((u > U_MIN) & (u < U_MAX), u > U_MAX, line):
        at_pair = network.law.port >= network.node_count
        assert part[:, at_pair].any()
        assert part[:, ~at_pair].any() or part is line
    assert (u < network.law.u_low).sum() >= 2


def test_each_interval_has_its_own_loads_whatever_stands_beside_it():
    network = unbalanced()
    together, power = loaded(network, *SCALES)
    v, _ = together.solve(power)
    for t, scale in enumerate(SCALES):
        alone, own = loaded(network, scale)
        np.testing.assert_allclose(
            line_to_line(network, alone.solve(own)[0]), line_to_line(network, v[[t]]), atol=1e-11
        )


def line_to_line(network: UnbalancedNetwork, v: ComplexArray) -> ComplexArray:
    """Voltages that have a value: of the nodes that do not float, and of the pairs."""
    keep = np.r_[~network.is_floating, np.ones(len(network.pair), bool)]
    return (network.incidence @ v.T).T[:, keep]


def test_an_interval_without_a_solution_is_flagged_and_the_others_are_right():
    network = unbalanced()
    flow, power = loaded(network, 5.0, 60.0, 1.0)
    v, converged = flow.solve(power)
    assert converged.tolist() == [True, False, True]
    assert max(mismatch(network, v[0], 5.0), mismatch(network, v[2], 1.0)) < 1e-10
    np.testing.assert_array_equal(v[1], flow.no_load_pu)


def test_newton_alone_finds_the_same_voltages(monkeypatch: pytest.MonkeyPatch):
    network = unbalanced()
    flow, power = loaded(network, *SCALES)
    swept, _ = flow.solve(power)
    monkeypatch.setattr(powerflow, "MAX_SWEEPS", 1)
    flow, _ = loaded(network, *SCALES)
    stepped, converged = flow.solve(power)
    assert converged.all()
    np.testing.assert_allclose(line_to_line(network, stepped), line_to_line(network, swept), rtol=0, atol=1e-10)


def test_what_ties_a_floating_winding_to_ground_does_not_move_its_line_to_line_voltages():
    found = []
    for leak in (1e-7, 1e-9):
        flow, power = loaded(unbalanced(leak=leak), 1.0)
        found.append(line_to_line(flow.network, flow.solve(power)[0]))
    np.testing.assert_allclose(found[1], found[0], rtol=0, atol=1e-6)


def test_an_open_delta_winding_has_the_voltages_of_its_cores():
    """Each core turns its phase's voltage into that of its pair, ratios 1, 0.99 and 1.02 under sqrt(3)."""
    network = unbalanced()
    v = port_voltage(network, PowerFlow(replace(network, shunt_rows=network.shunt_rows * 1e-3)).no_load_pu)
    around = [v["b.1"], v["b.2"] / 0.99, v["b.3"] / 1.02]
    # The three do not add up to zero, as their sum must around a delta: the leakages share what is left over.
    weight = np.array([1.0, 0.99, 1.02]) ** -2
    shared = np.array(around) - sum(around) * weight / weight.sum()
    for pair, expected in zip(("d.1-d.2", "d.2-d.3", "d.3-d.1"), shared, strict=True):
        assert v[pair] == pytest.approx(ROOT3 * expected, abs=1e-6)


def three_phase_line(laws: LoadLaws | None = None) -> UnbalancedNetwork:
    """A source and a bus behind a line of three like conductors, with its delta ports."""
    wires = Wires([f"{bus}.{phase}" for bus in "sx" for phase in "123"])
    wires.line("s", "x", "123", coupled(3, 0.03 + 0.08j, 0.01 + 0.03j, uneven=0.0))
    source = {f"s.{phase}": v for phase, v in zip("123", BALANCED, strict=True)}
    return single_phases(wires, source, pairs=["x.1-x.2", "x.2-x.3", "x.3-x.1"], laws=laws)


def test_a_balanced_load_sees_the_difference_of_own_and_mutual_impedance():
    """The positive sequence of three like phases is a feeder of 0.02 + 0.05j."""
    expected, _ = PowerFlow(feeder([Branch("s", "x", 0.02, 0.05)])).solve(np.array([[0.0, -0.9 - 0.3j]]))
    network = three_phase_line()
    power = np.zeros((1, network.port_count), complex)
    power[0, ports(network, "x.1", "x.2", "x.3")] = -0.9 - 0.3j
    v, converged = PowerFlow(network).solve(power)
    assert converged.all()
    np.testing.assert_allclose(v[0, 3:], expected[0, 1] * BALANCED, rtol=0, atol=1e-12)


def test_a_balanced_delta_load_is_a_wye_of_the_same_power():
    network = three_phase_line()
    power = np.zeros((2, network.port_count), complex)
    power[0, ports(network, "x.1", "x.2", "x.3")] = -0.7 - 0.4j
    power[1, ports(network, "x.1-x.2", "x.2-x.3", "x.3-x.1")] = -0.7 - 0.4j
    v, converged = PowerFlow(network).solve(power)
    assert converged.all()
    np.testing.assert_allclose(v[1], v[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("port", "base"), [("x.2", 1.0), ("x.3-x.1", ROOT3)])
def test_a_load_of_constant_impedance_is_the_shunt_that_it_is(port: str, base: float):
    """Nominal power S at voltage b is an admittance of conj(S) / b^2 between the ends of its port."""
    network = three_phase_line()
    one, nominal = np.ones(1), 0.6 + 0.25j
    law = LoadLaws(ports(network, port), base * one, 2 * one, 2 * one, 0.9 * one, 1.1 * one, 0.5 * one)
    following, _ = PowerFlow(three_phase_line(law), np.array([[nominal]])).solve(np.zeros((1, network.port_count)))
    row = network.incidence[ports(network, port)]
    shunted = replace(network, shunt_rows=sparse.csr_array(row.T @ row * np.conj(nominal) / base**2))
    np.testing.assert_allclose(following[0], PowerFlow(shunted).no_load_pu, rtol=0, atol=1e-12)


def test_a_neutral_without_any_voltage_is_no_obstacle():
    network = with_a_neutral()
    flow = PowerFlow(network)
    assert np.abs(flow.no_load_pu[ports(network, "s.4")]).max() < 1e-15
    power = np.zeros((2, network.port_count), complex)
    power[1, ports(network, "x.1-x.4")] = -0.2 - 0.1j
    v, converged = flow.solve(power)
    assert converged.all()
    np.testing.assert_allclose(v[0, ports(network, "s.1", "x.1")], 1.0, rtol=1e-14)
    current = np.conj((-0.2 - 0.1j) / (v[1, 2] - v[1, 3]))
    np.testing.assert_allclose((network.admittance @ v[1])[1:], [0, current, -current], rtol=0, atol=1e-12)


def jacobian(scale: float) -> tuple[PowerFlow, Jacobian]:
    """The Jacobian of two intervals at loads of `scale`, wye and delta, some out of their band."""
    flow, power = loaded(unbalanced(), scale, -2.5)
    v, converged = flow.solve(power)
    assert converged.all()
    return flow, Jacobian(flow, *flow.slopes(power, v))


FEW = np.array([1, 0, 1])
MANY = np.array([0] * DIRECT_COLUMNS + [1])
"""Few columns are swept; many of one interval are solved by its own factors."""


def determined(flow: PowerFlow, count: int, seed: int = 0) -> ComplexArray:
    """Columns of currents into the ports that do not float, and so of functionals of their voltages."""
    mix = line_to_line(flow.network, np.eye(flow.network.node_count))[flow.free]
    random = np.random.default_rng(seed)
    real, imaginary = random.normal(size=(2, mix.shape[1], count))
    return np.asarray(mix @ (real + 1j * imaginary))


@pytest.mark.parametrize("interval", [FEW, MANY])
@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_jacobian_solves_its_equation_and_the_adjoint_its_own(interval, scale):
    """``Y x - H^T (a H x + b conj(H x))``, and its adjoint, with the incidence written out."""
    flow, at = jacobian(scale)
    a, b, y = at.a[:, interval], at.b[:, interval], flow.network.admittance[flow.free][:, flow.free]
    incidence = flow.network.incidence[flow.port][:, flow.free]
    assert np.abs(at.a).max() > 0.01
    right = determined(flow, len(interval))
    x = at.solve(interval, right)
    across = incidence @ x
    left = y @ x - incidence.T @ (a * across + b * np.conj(across))
    np.testing.assert_allclose(left, right, rtol=0, atol=1e-9 * np.abs(right).max())
    x = at.solve_adjoint(interval, right)
    across = incidence @ x
    left = y.T @ x - incidence.T @ (a * across) - np.conj(incidence.T @ (b * across))
    np.testing.assert_allclose(left, right, rtol=0, atol=1e-9 * np.abs(right).max())


@pytest.mark.parametrize("interval", [FEW, MANY])
def test_adjoint_and_forward_solves_agree_on_every_functional(interval):
    """Re(g . J^-1 r) = Re(r . J^-T g)."""
    flow, at = jacobian(1.0)
    seed, right = determined(flow, len(interval), 1), determined(flow, len(interval), 2)
    forward = (seed * at.solve(interval, right)).real.sum(axis=0)
    adjoint = (right * at.solve_adjoint(interval, seed)).real.sum(axis=0)
    np.testing.assert_allclose(adjoint, forward, rtol=1e-9)


def test_slopes_are_the_differences_of_the_port_currents():
    """``dI = a dv + b conj(dv)`` at every port, for loads in and out of their band."""
    flow, power = loaded(unbalanced(), *SCALES)
    v, _ = flow.solve(power)
    a, b = flow.slopes(power, v)
    every = np.arange(len(SCALES))
    across, own = flow.ports.of_nodes(v[:, flow.free].T), power[:, flow.port].T
    for way in (1e-6, 1e-6j, 1e-6 + 1e-6j):
        high, low = (flow.ports.current(own, across + sign * way, every) for sign in (1, -1))
        np.testing.assert_allclose((high - low) / 2, a * way + b * np.conj(way), rtol=0, atol=1e-13)
