"""Prices by cause: what their components are, by hand, and what their table says."""

from dataclasses import replace

import numpy as np
import pytest
from cases import CASES, feeder33, market, resource
from feeders import Branch, feeder
from scipy import sparse

from dlmp import clear
from dlmp.formulation.ac_tangent import AcTangent
from dlmp.formulation.interface import CONGESTION, UNBALANCE, VOLTAGE, Weights
from dlmp.market import Horizon, simple_case
from dlmp.prices import COMPONENTS, decompose

COLUMNS = [
    "interval_start",
    "interval",
    "bus",
    "phase",
    "lmp_usd_per_mwh",
    "energy",
    "loss",
    "congestion",
    "voltage",
    "unbalance",
    "scarcity",
    "lmp_q_usd_per_mvarh",
    "energy_q",
    "loss_q",
    "congestion_q",
    "voltage_q",
    "unbalance_q",
    "scarcity_q",
]


def two_buses(rating: float = np.inf):
    """Bus b takes 1 + 0.5j behind 0.02 + 0.04j; the AC state in closed form."""
    network = feeder([Branch("a", "b", 0.02, 0.04, rating=rating, is_current=True)], {"b": (100, 50)})
    formulation = AcTangent(network)
    return network, formulation, formulation.operate(np.array([[0.0, -1.0 - 0.5j]]))


def priced(weights: Weights, rating: float = np.inf):
    network, formulation, point = two_buses(rating)
    horizon = simple_case(network, 20.0).horizon
    return decompose(network, horizon, formulation.limits, point, weights, np.array([0]))


def no_limits(count: int) -> sparse.csr_array:
    return Weights.zero(1, count).limits


def test_the_loss_component_is_the_price_of_marginal_losses_by_hand():
    """Import P0 = p + r l, with the squared current l at v0 = 1: dl/dp = 2 P0 / (1 - 2 (r P0 + x Q0))."""
    _, _, point = two_buses()
    flow = point.import_pu[0]
    slope = 2 / (1 - 2 * (0.02 * flow.real + 0.04 * flow.imag))
    prices = priced(Weights(np.array([20.0]), np.array([0.0]), no_limits(1)))
    np.testing.assert_allclose(prices.energy[0], 20.0)
    np.testing.assert_allclose(prices.loss[0], [0.0, 20 * 0.02 * flow.real * slope], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(prices.loss_q[0], [0.0, 20 * 0.02 * flow.imag * slope], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(prices.energy_q[0], 0.0)


def test_reactive_import_has_its_own_energy_and_losses_by_hand():
    """Import Q0 = q + x l, so one more of q costs 1 + x dl/dq of it, and one more of p costs x dl/dp."""
    _, _, point = two_buses()
    flow = point.import_pu[0]
    slope = 2 / (1 - 2 * (0.02 * flow.real + 0.04 * flow.imag))
    prices = priced(Weights(np.array([0.0]), np.array([5.0]), no_limits(1)))
    np.testing.assert_allclose(prices.energy_q[0], 5.0)
    np.testing.assert_allclose(prices.loss_q[0, 1], 5 * 0.04 * flow.imag * slope, rtol=1e-10)
    np.testing.assert_allclose(prices.loss[0, 1], 5 * 0.04 * flow.real * slope, rtol=1e-10)
    np.testing.assert_allclose(prices.energy[0], 0.0)


def test_a_lower_voltage_limit_prices_demand_by_how_much_it_lowers_the_voltage():
    """v^2 = 1 - 2 (r P0 + x Q0) + |z|^2 l; its multiplier is positive, and demand raises the price."""
    _, _, point = two_buses()
    flow, v = point.import_pu[0], abs(point.v_pu[0, 1])
    slope = 2 / (1 - 2 * (0.02 * flow.real + 0.04 * flow.imag))
    fall = (
        2 * (0.02 * (1 + 0.02 * slope * flow.real) + 0.04 * 0.04 * slope * flow.real) - 0.002 * slope * flow.real
    ) / (2 * v)
    weights = Weights(np.zeros(1), np.zeros(1), no_limits(1) + sparse.csr_array(np.array([[300.0]])))
    prices = priced(weights)
    np.testing.assert_allclose(prices.voltage[0], [0.0, 300 * fall], rtol=1e-9, atol=1e-12)
    for other in (prices.energy, prices.loss, prices.congestion):
        assert not other.any()
    np.testing.assert_allclose(prices.lmp_usd_per_mwh, prices.voltage, atol=1e-12)


def test_a_full_branch_prices_demand_by_the_current_that_it_adds():
    """d|I|/dp = dl/dp / (2 |I|); a multiplier of an upper limit is negative, and demand raises the price."""
    _, _, point = two_buses()
    flow = point.import_pu[0]
    slope = 2 / (1 - 2 * (0.02 * flow.real + 0.04 * flow.imag))
    weights = Weights(np.zeros(1), np.zeros(1), no_limits(2) + sparse.csr_array(np.array([[0.0, -40.0]])))
    prices = priced(weights, rating=1.2)
    np.testing.assert_allclose(
        prices.congestion[0], [0.0, 40 * slope * flow.real / (2 * abs(flow))], rtol=1e-9, atol=1e-12
    )
    assert not prices.voltage.any()


@pytest.mark.parametrize(
    ("name", "binding"),
    [
        ("undervoltage_33", {VOLTAGE}),
        ("congestion_current_33", {CONGESTION}),
        ("overvoltage_33", {VOLTAGE}),
        ("interior_33", set()),
        ("import_cap_33", set()),
    ],
)
def test_only_causes_that_bind_have_a_component(name: str, binding: set[str]):
    prices = clear(CASES[name]()).prices
    for cause in (VOLTAGE, CONGESTION, UNBALANCE):
        assert np.abs(getattr(prices, cause)).max() > 0.1 if cause in binding else not getattr(prices, cause).any()


def test_a_shortage_of_voltage_is_dear_to_demand_and_a_surplus_is_cheap():
    low, high = (clear(CASES[name]()).prices.voltage for name in ("undervoltage_33", "overvoltage_33"))
    assert low.max() > 1.0
    assert low.min() > -0.1
    assert high.min() < -1.0
    assert high.max() < 0.1


def test_the_table_has_a_row_for_every_interval_and_node():
    case = replace(CASES["day_33"](), horizon=Horizon(CASES["day_33"]().horizon.start, 15, 3, "America/Los_Angeles"))
    prices = clear(case).prices
    table = prices.table()
    assert table.columns.tolist() == COLUMNS
    assert len(table) == 3 * 33
    row = table[(table.interval == 2) & (table.bus == "17")].iloc[0]
    assert row.interval_start.to_pydatetime() == case.horizon.starts[2]
    assert row.phase == "123"
    for name in COLUMNS[4:]:
        assert row[name] == getattr(prices, name)[2, 17]
    np.testing.assert_allclose(table[list(COMPONENTS)].sum(axis=1), table.lmp_usd_per_mwh, rtol=0, atol=1e-9)


def test_prices_cannot_be_changed():
    prices = clear(simple_case(feeder33(), 20.0)).prices
    for name in COLUMNS[4:]:
        with pytest.raises(ValueError, match="read-only"):
            getattr(prices, name)[0, 0] = 1.0


def test_prices_of_nothing_are_zero():
    """Not minus zero nor NaN: a free import and nobody who bids."""
    prices = clear(simple_case(feeder33(), 0.0)).prices
    for name in COLUMNS[4:]:
        assert not getattr(prices, name).any()


def test_no_price_is_ever_nan_where_a_branch_carries_nothing():
    """The gradient of a magnitude has no direction at zero."""
    network = feeder(
        [Branch("a", "b", 0.02, 0.04, rating=1.5), Branch("b", "c", 0.01, 0.01, rating=1.0)], {"b": (100, 0)}
    )
    prices = clear(market(network, 20.0, resource("g", "b", supply=[(30, 15)]))).prices
    assert np.isfinite(prices.table()[COLUMNS[4:]].to_numpy()).all()
