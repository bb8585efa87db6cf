"""The AC power flow against pandapower, closed forms and its own equations."""

import copy

import numpy as np
import pandapower as pp
import pandapower.networks
import pytest
from cases import feeder33
from feeders import Branch, feeder
from real_feeders import OLD_SAMPLE, oberrhein

from dlmp import powerflow
from dlmp.network.model import ComplexArray, Network
from dlmp.network.pandapower import from_pandapower
from dlmp.powerflow import DIRECT_COLUMNS, Jacobian, PowerFlow
from dlmp.units import BASE_KVA


def injection(network: Network, *scales: float) -> ComplexArray:
    """(t, n) The network's own loads as injections [pu], one interval per scale."""
    p_kw, q_kvar = network.element_loads()
    return -np.outer(scales, p_kw + 1j * q_kvar) / BASE_KVA


def mismatch(network: Network, v: ComplexArray, power: ComplexArray) -> float:
    """Largest violation of ``V conj(Y V) = S`` outside the sources [pu]."""
    given = v * np.conj((network.admittance @ v.T).T)
    return float(np.abs(given - power)[:, ~network.is_source].max())


@OLD_SAMPLE
@pytest.mark.parametrize("make", [pandapower.networks.case33bw, oberrhein, pandapower.networks.create_cigre_network_mv])
def test_voltages_are_pandapower_s(make):
    """mv_oberrhein and CIGRE have transformers with taps and a phase shift, and lines with capacitance."""
    net = copy.deepcopy(make())
    pp.runpp(net, numba=False, calculate_voltage_angles=True, init="dc", tolerance_mva=1e-9)
    network = from_pandapower(net)
    v, converged = PowerFlow(network).solve(injection(network, 1.0))
    assert converged.all()
    expected = (net.res_bus.vm_pu * np.exp(1j * np.deg2rad(net.res_bus.va_degree))).to_numpy()
    by_name = network.bus_number
    names = [name if name in by_name else str(index) for index, name in net.bus.name.items()]
    np.testing.assert_allclose(v[0, [by_name[name] for name in names]], expected, rtol=0, atol=1e-9)


def test_two_buses_follow_the_closed_form():
    """v^4 + (2 (r p + x q) - 1) v^2 + |z|^2 |s|^2 = 0 for a load p + jq behind r + jx: the greater root."""
    r, x, p, q = 0.02, 0.04, 1.0, 0.5
    b = 2 * (r * p + x * q) - 1
    squared = (-b + np.sqrt(b**2 - 4 * (r**2 + x**2) * (p**2 + q**2))) / 2
    v, converged = PowerFlow(feeder([Branch("a", "b", r, x)])).solve(np.array([[0.0, -(p + 1j * q)]]))
    assert converged.all()
    assert abs(v[0, 1]) ** 2 == pytest.approx(squared, rel=1e-13)


def test_without_load_the_voltages_are_those_of_the_sources():
    network = feeder33()
    flow = PowerFlow(network)
    np.testing.assert_allclose(flow.no_load_pu, network.source_v_pu[0], rtol=1e-12)
    v, _ = flow.solve(injection(network, 0.0))
    np.testing.assert_allclose(v[0], flow.no_load_pu, rtol=1e-12)


def test_injections_at_a_source_do_not_move_the_voltages():
    network = feeder33()
    power = injection(network, 1.0)
    more = power + 7.0 * network.is_source
    np.testing.assert_array_equal(PowerFlow(network).solve(more)[0], PowerFlow(network).solve(power)[0])


@pytest.fixture
def no_newton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(powerflow, "MAX_NEWTON_STEPS", 0)


@pytest.mark.usefixtures("no_newton")
def test_fixed_point_alone_solves_usual_loads():
    network = feeder33()
    v, converged = PowerFlow(network).solve(injection(network, 0.5, 1.0, -1.0))
    assert converged.all()
    assert mismatch(network, v, injection(network, 0.5, 1.0, -1.0)) < 1e-9


@pytest.mark.usefixtures("no_newton")
def test_fixed_point_alone_does_not_reach_a_heavy_load():
    network = feeder33()
    v, converged = PowerFlow(network).solve(injection(network, 1.0, 3.6))
    assert converged.tolist() == [True, False]
    np.testing.assert_allclose(v[1], network.source_v_pu[0])


def test_heavy_load_is_solved_all_the_same():
    network = feeder33()
    power = injection(network, 3.6)
    v, converged = PowerFlow(network).solve(power)
    assert converged.all()
    assert np.abs(v).min() < 0.5
    assert mismatch(network, v, power) < 1e-9


def test_newton_alone_finds_the_same_voltages(monkeypatch: pytest.MonkeyPatch):
    network = feeder33(meshed=True)
    power = injection(network, 0.3, 2.0)
    swept, _ = PowerFlow(network).solve(power)
    monkeypatch.setattr(powerflow, "MAX_SWEEPS", 1)
    stepped, converged = PowerFlow(network).solve(power)
    assert converged.all()
    np.testing.assert_allclose(stepped, swept, rtol=0, atol=1e-11)


def test_an_interval_without_a_solution_is_flagged_and_the_others_are_right():
    network = feeder33()
    v, converged = PowerFlow(network).solve(injection(network, 1.0, 9.0, 0.5))
    assert converged.tolist() == [True, False, True]
    alone, _ = PowerFlow(network).solve(injection(network, 1.0, 0.5))
    np.testing.assert_allclose(v[[0, 2]], alone, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(v[1], PowerFlow(network).no_load_pu)


def test_a_start_is_kept_where_there_is_no_solution_and_does_not_matter_where_there_is_one():
    network = feeder33()
    power = injection(network, 1.0, 9.0)
    start = np.tile(PowerFlow(network).no_load_pu * 0.97 * np.exp(-0.02j), (2, 1))
    given = start.copy()
    v, converged = PowerFlow(network).solve(power, start)
    assert converged.tolist() == [True, False]
    np.testing.assert_array_equal(v[1], given[1])
    np.testing.assert_array_equal(start, given)
    np.testing.assert_allclose(v[0, 1:], PowerFlow(network).solve(power)[0][0, 1:], rtol=0, atol=1e-12)


def test_several_sources_are_all_held():
    network = feeder(
        [Branch("a", "b", 0.02, 0.04), Branch("b", "c", 0.02, 0.04)], source={"a": 1.02, "c": 0.99 - 0.01j}
    )
    power = np.array([[0.0, -0.8 - 0.3j, 0.0]])
    v, _ = PowerFlow(network).solve(power)
    assert v[0, [0, 2]].tolist() == [1.02, 0.99 - 0.01j]
    assert mismatch(network, v, power) < 1e-12


def jacobian(scale: float) -> tuple[PowerFlow, Jacobian]:
    """The Jacobian of two intervals at loads of `scale`."""
    network = feeder33(meshed=True)
    flow = PowerFlow(network)
    power = injection(network, scale, -0.5)
    v, converged = flow.solve(power)
    assert converged.all()
    return flow, Jacobian(flow, *flow.slopes(power, v))


def columns(flow: PowerFlow, count: int, seed: int = 0) -> ComplexArray:
    random = np.random.default_rng(seed)
    return random.normal(size=(len(flow.free), count)) + 1j * random.normal(size=(len(flow.free), count))


FEW = np.array([1, 0, 1])
MANY = np.array([0] * DIRECT_COLUMNS + [1])
"""Few columns are swept; many of one interval are solved by its own factors."""


@pytest.mark.parametrize("interval", [FEW, MANY])
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_jacobian_solves_its_equation_and_the_adjoint_its_own(interval, scale):
    flow, at = jacobian(scale)
    right = columns(flow, len(interval))
    d, admittance = -at.b[:, interval], flow.network.admittance[flow.free][:, flow.free]
    x = at.solve(interval, right)
    np.testing.assert_allclose(admittance @ x + d * np.conj(x), right, rtol=0, atol=1e-9 * np.abs(right).max())
    y = at.solve_adjoint(interval, right)
    np.testing.assert_allclose(admittance.T @ y + np.conj(d * y), right, rtol=0, atol=1e-9 * np.abs(right).max())


@pytest.mark.parametrize("interval", [FEW, MANY])
def test_adjoint_and_forward_solves_agree_on_every_functional(interval):
    """Re(g . J^-1 r) = Re(r . J^-T g)."""
    flow, at = jacobian(1.5)
    seed, right = columns(flow, len(interval), 1), columns(flow, len(interval), 2)
    forward = (seed * at.solve(interval, right)).real.sum(axis=0)
    adjoint = (right * at.solve_adjoint(interval, seed)).real.sum(axis=0)
    np.testing.assert_allclose(adjoint, forward, rtol=1e-10)


def test_sweeps_that_do_not_settle_give_way_to_factors(monkeypatch: pytest.MonkeyPatch):
    flow, at = jacobian(2.0)
    right = columns(flow, len(FEW))
    settled = at.solve(FEW, right)
    monkeypatch.setattr(powerflow, "MAX_SWEEPS", 2)
    np.testing.assert_allclose(at.solve(FEW, right), settled, rtol=1e-9)


def test_a_column_of_zeros_is_solved_by_zeros():
    flow, at = jacobian(1.0)
    right = columns(flow, 2)
    right[:, 0] = 0.0
    x = at.solve(np.array([0, 0]), right)
    assert not x[:, 0].any()
    assert x[:, 1].any()


def test_no_column_needs_no_work():
    flow, at = jacobian(1.0)
    none = np.zeros(0, dtype=np.int64)
    assert at.solve(none, columns(flow, 0)).shape == (len(flow.free), 0)
    assert at.solve_adjoint(none, columns(flow, 0)).shape == (len(flow.free), 0)
