"""LinDistFlow against numbers worked out by hand, the AC power flow at its base, and its own model solved whole."""

from dataclasses import replace

import numpy as np
import pyomo.environ as pyo
import pytest
from acopf import solve_acopf
from cases import CASES, cigre, feeder33, market, resource
from feeders import Branch, feeder

from benchmarks.peers.whole_lp import whole_model
from dlmp import InputError, Settings, clear
from dlmp.formulation.ac_tangent import AcTangent
from dlmp.formulation.lindistflow import LinDistFlow, losses_around, no_losses
from dlmp.market import simple_case
from dlmp.network.model import Network
from dlmp.units import BASE_KVA

LOSSLESS = Settings(formulation="lindistflow", losses="none")
LINEAR = Settings(formulation="lindistflow", losses="linear")

TREE = [Branch("0", "1", 0.02, 0.04), Branch("1", "2", 0.03, 0.02), Branch("1", "3", 0.01, 0.01)]
LOAD = {"1": (40, 10), "2": (100, 50), "3": (60, 20)}
GENERATOR = resource("g", "2", supply=[(100, 50)])


def test_four_buses_held_by_a_voltage_worked_by_hand():
    """Loads 0.4+j0.1, 1+j0.5 and 0.6+j0.2 pu; import at 20, a generator at bus 2 at 50; v2 >= 0.9, squared 0.81.

    Without the generator the flows are those of the loads behind each branch:
        0-1: 2.0 + j0.8,  1-2: 1.0 + j0.5,  1-3: 0.6 + j0.2
        v1^2 = 1 - 2 (0.02 x 2.0 + 0.04 x 0.8) = 0.856
        v2^2 = 0.856 - 2 (0.03 x 1.0 + 0.02 x 0.5) = 0.776
        v3^2 = 0.856 - 2 (0.01 x 0.6 + 0.01 x 0.2) = 0.840
    One pu of generation at bus 2 raises v2^2 by 2 (0.02 + 0.03) = 0.1, so it gives 0.034 / 0.1 = 0.34 pu, and
        v1^2 = 0.856 + 2 x 0.02 x 0.34 = 0.8696,  v3^2 = 0.84 + 0.0136 = 0.8536
    The limit's multiplier is (50 - 20) / 0.1 = 300.  A load at bus n lowers v2^2 by twice the impedance that its
    path shares with that of bus 2: prices 20 + 300 x 2 R and 300 x 2 X,
        bus 1 and 3: R = 0.02, X = 0.04: 32 and 24;  bus 2: R = 0.05, X = 0.06: 50 and 36.
    Cost: 20 x 1.66 pu x 0.1 MW/pu + 50 x 0.34 x 0.1 = 5.02 per hour.
    """
    network = feeder(TREE, LOAD, bands={"2": (0.9, 1.1)})
    found = clear(market(network, 20.0, GENERATOR), LOSSLESS)
    prices = found.prices
    assert found.status == "converged"
    assert found.objective == pytest.approx(5.02, rel=1e-12)
    assert found.awards.net_injection_kw[0, 0] == pytest.approx(34.0, rel=1e-12)
    assert found.import_kw[0] == pytest.approx(166.0, rel=1e-12)
    assert found.import_kvar[0] == pytest.approx(80.0, rel=1e-12)
    np.testing.assert_allclose(found.voltages.v_pu[0] ** 2, [1.0, 0.8696, 0.81, 0.8536], rtol=1e-12)
    np.testing.assert_allclose(found.flows.from_kva[0], [166 + 80j, 66 + 50j, 60 + 20j], rtol=1e-12)
    np.testing.assert_allclose(found.flows.to_kva[0], [166 + 80j, 66 + 50j, 60 + 20j], rtol=1e-12)
    np.testing.assert_allclose(prices.lmp_usd_per_mwh[0], [20, 32, 50, 32], rtol=1e-12)
    np.testing.assert_allclose(prices.lmp_q_usd_per_mvarh[0], [0, 24, 36, 24], atol=1e-11)
    np.testing.assert_allclose(prices.energy[0], 20.0, rtol=1e-12)
    np.testing.assert_allclose(prices.voltage[0], [0, 12, 30, 12], atol=1e-11)
    for nothing in (prices.loss, prices.congestion, prices.loss_q, prices.congestion_q, prices.energy_q):
        np.testing.assert_allclose(nothing, 0.0, atol=1e-11)


def test_four_buses_held_by_a_branch_worked_by_hand():
    """Loads of 0.4, 1.0 and 0.6 pu without reactive power: branch 0-1 is wanted to carry 2.0.

    The polygon of 24 sides inscribed in a rating of 1.5 / cos(pi / 24) has a side across a real flow of 1.5 pu.
    The generator gives the other 0.5 pu; behind the branch everybody pays its 50, before it 20.
    Cost: 20 x 1.5 x 0.1 + 50 x 0.5 x 0.1 = 5.5 per hour.
    """
    tree = [replace(TREE[0], rating=1.5 / np.cos(np.pi / 24)), *TREE[1:]]
    load = {bus: (p_kw, 0) for bus, (p_kw, _) in LOAD.items()}
    found = clear(market(feeder(tree, load), 20.0, GENERATOR), replace(LOSSLESS, circle_sides=24))
    assert found.objective == pytest.approx(5.5, rel=1e-12)
    assert found.awards.net_injection_kw[0, 0] == pytest.approx(50.0, rel=1e-12)
    np.testing.assert_allclose(found.prices.lmp_usd_per_mwh[0], [20, 50, 50, 50], rtol=1e-12)
    np.testing.assert_allclose(found.prices.congestion[0], [0, 30, 30, 30], atol=1e-11)
    np.testing.assert_allclose(found.prices.lmp_q_usd_per_mvarh[0], 0.0, atol=1e-11)
    (row,) = found.explain("3").query("component == 'congestion'").itertuples()
    assert (row.element, row.unit, row.share_usd_per_mwh) == ("0-1", "kVA", pytest.approx(30.0))


def test_two_buses_with_linear_losses_worked_by_hand():
    """A load p + jq behind r + jx: at v0 = 1 the squared current is l = P^2 + Q^2 of the flow at the source.

    With P = p + r l and Q = q + x l, l solves (r^2 + x^2) l^2 + (2 (r p + x q) - 1) l + p^2 + q^2 = 0.
    One more of p changes l by 2 P / (1 - 2 (r P + x Q)), and the import by 1 + r times that; one more of q by
    r times 2 Q / (1 - 2 (r P + x Q)).
    """
    r, x, p, q = 0.02, 0.04, 1.0, 0.5
    a, b, c = r**2 + x**2, 2 * (r * p + x * q) - 1, p**2 + q**2
    current = (-b - np.sqrt(b**2 - 4 * a * c)) / (2 * a)
    flow_p, flow_q = p + r * current, q + x * current
    found = clear(simple_case(feeder([Branch("0", "1", r, x)], {"1": (100 * p, 100 * q)}), 20.0), LINEAR)
    assert found.import_kw[0] == pytest.approx(100 * flow_p, rel=1e-11)
    assert found.import_kvar[0] == pytest.approx(100 * flow_q, rel=1e-11)
    squared = 1 - 2 * (r * flow_p + x * flow_q) + a * current
    assert found.voltages.v_pu[0, 1] ** 2 == pytest.approx(squared, rel=1e-11)
    slope = 1 / (1 - 2 * (r * flow_p + x * flow_q))
    assert found.prices.lmp_usd_per_mwh[0, 1] == pytest.approx(20 * (1 + 2 * r * flow_p * slope), rel=1e-11)
    assert found.prices.loss[0, 1] == pytest.approx(20 * 2 * r * flow_p * slope, rel=1e-10)
    assert found.prices.lmp_q_usd_per_mvarh[0, 1] == pytest.approx(20 * 2 * r * flow_q * slope, rel=1e-10)


def with_shunts_and_taps() -> Network:
    """Transformers with a ratio and a phase shift, capacitance, a conductance at a bus; branches in both directions."""
    branches = [
        Branch("0", "1", 0.01, 0.03, tap=0.96 * np.exp(0.5j), shunt=0.002 + 0.01j),
        Branch("2", "1", 0.02, 0.015, shunt=0.03j),
        Branch("2", "3", 0.015, 0.025, tap=1.03, shunt=0.002j),
        Branch("4", "2", 0.03, 0.02),
    ]
    load = {"1": (40, 10), "2": (70, 40), "3": (50, -20), "4": (-60, 30)}
    return feeder(branches, load, source={"0": 1.02}, shunt={"2": 0.02 + 0.1j})


def cigre_unrated() -> Network:
    """CIGRE's network without its transformers' ratings, which this model takes for powers at 1 pu."""
    network = cigre()
    none = np.full(network.branch_count, np.inf)
    return replace(network, rating_from_pu=none, rating_to_pu=none)


@pytest.mark.parametrize("make", [with_shunts_and_taps, feeder33, cigre_unrated])
def test_linear_losses_are_those_of_the_ac_power_flow_at_their_base(make):
    """Without bids the whole state is: voltages, import and the flows at both ends of every branch."""
    network = make()
    p_kw, q_kvar = network.element_loads()
    injection = -(p_kw + 1j * q_kvar)[None] / BASE_KVA
    model = LinDistFlow(network, losses_around(network, injection[0]), 32)
    found, expected = model.operate(injection), AcTangent(network).operate(injection)
    np.testing.assert_allclose(found.voltage(), expected.voltage(), rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.import_pu, expected.import_pu, rtol=1e-9)
    for end, exact in zip(found.branch_power(), expected.branch_power(), strict=True):
        np.testing.assert_allclose(end, exact, rtol=0, atol=1e-7)


@pytest.mark.parametrize("make", [with_shunts_and_taps, feeder33, cigre_unrated])
def test_linear_losses_give_the_ac_prices_of_a_feeder_where_nobody_bids(make):
    """The tangent of exact equations has their first derivatives."""
    case = simple_case(make(), 20.0)
    case = replace(case, substation=replace(case.substation, q_price_usd_per_mvarh=np.array([3.0])))
    found, expected = clear(case, LINEAR), solve_acopf(case)
    np.testing.assert_allclose(found.prices.lmp_usd_per_mwh, expected.price_p, atol=1e-6)
    np.testing.assert_allclose(found.prices.lmp_q_usd_per_mvarh, expected.price_q, atol=1e-6)


def test_lossless_prices_of_the_33_bus_feeder_are_those_of_the_substation():
    found = clear(simple_case(feeder33(), 20.0), LOSSLESS)
    np.testing.assert_allclose(found.prices.lmp_usd_per_mwh, 20.0, rtol=1e-12)
    assert found.import_kw[0] == pytest.approx(3715.0, rel=1e-12)


def test_a_linear_model_needs_no_finish():
    found = clear(CASES["undervoltage_33"](), LINEAR)
    assert found.status == "converged"
    assert all(report.mismatch_pu < 1e-8 for report in found.passes)


def test_a_meshed_feeder_is_refused():
    with pytest.raises(InputError, match="topology = 'meshed': lindistflow needs a radial feeder"):
        LinDistFlow(feeder33(meshed=True), no_losses(feeder33(meshed=True)), 32)


def test_gradients_are_the_differences_of_a_linear_model():
    network = with_shunts_and_taps()
    p_kw, q_kvar = network.element_loads()
    here = -(p_kw + 1j * q_kvar)[None] / BASE_KVA
    rated = replace(network, rating_from_pu=np.full(4, 9.0), rating_to_pu=np.full(4, 8.0))
    model = LinDistFlow(rated, losses_around(network, here[0]), 8)
    point, nodes = model.operate(here), np.arange(5)
    limit = np.arange(len(model.limits))
    real, reactive = point.import_gradients(nodes)
    of_limits = point.limit_gradients(np.zeros_like(limit), limit, nodes)
    for part, step in ((0, 1.0), (1, 1j)):
        for node in nodes:
            there = here.copy()
            there[0, node] += step
            moved = model.operate(there)
            change = moved.import_pu[0] - point.import_pu[0]
            assert (real[0, part, node], reactive[0, part, node]) == pytest.approx(
                (change.real, change.imag), abs=1e-12
            )
            np.testing.assert_allclose(of_limits[:, part, node], (moved.limit_value - point.limit_value)[0], atol=1e-12)


def test_pyomo_s_dual_of_demand_at_the_right_is_its_price():
    """One MW more of demand costs 7."""
    model = pyo.ConcreteModel()
    model.supply = pyo.Var(bounds=(0, 10))
    model.balance = pyo.Constraint(expr=model.supply == 3)
    model.cost = pyo.Objective(expr=7 * model.supply)
    model.dual = pyo.Suffix(direction=pyo.Suffix.IMPORT)
    pyo.SolverFactory("appsi_highs").solve(model)
    assert model.dual[model.balance] == pytest.approx(7.0)


@pytest.mark.parametrize("settings", [LOSSLESS, LINEAR], ids=["lossless", "linear"])
@pytest.mark.parametrize(
    "name",
    [
        "undervoltage_reactive_33",
        "congestion_power_33",
        "overvoltage_reactive_33",
        "negative_price_33",
        "import_cap_33",
        "reactive_price_33",
        "day_33",
        "undervoltage_cigre",
    ],
)
def test_eliminated_states_give_the_whole_model_s_cost_and_prices(name: str, settings: Settings):
    case = CASES[name]()
    found = clear(case, settings)
    cost, real, reactive = whole_model(case, settings)
    assert found.status == "converged"
    assert found.objective == pytest.approx(cost, rel=1e-8)
    np.testing.assert_allclose(found.prices.lmp_usd_per_mwh, real, atol=1e-5)
    np.testing.assert_allclose(found.prices.lmp_q_usd_per_mvarh, reactive, atol=1e-5)
