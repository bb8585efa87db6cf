"""Clearings of unbalanced feeders: per-phase prices against an independent AC-OPF and by finite differences."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from acopf import AcOpf, solve_acopf
from servicecases import hour_of

from dlmp import Clearing, MarketCase, clear, read_case
from dlmp.prices import COMPONENTS
from dlmp.shipped import shipped_case

FEEDERS = ("ieee13", "ieee34", "ieee123")
STEP_KW = 0.5


@cache
def case(name: str) -> MarketCase:
    return read_case(shipped_case(name))


@cache
def clearing(name: str) -> Clearing:
    return clear(case(name))


@cache
def oracle(name: str) -> AcOpf:
    return solve_acopf(case(name), circle_sides=clearing(name).settings.circle_sides)


@pytest.fixture(params=FEEDERS)
def feeder(request) -> str:
    return request.param


def priced(name: str) -> np.ndarray:
    return clearing(name).prices.ports


def test_it_converges_in_few_passes(feeder: str):
    assert clearing(feeder).status == "converged"
    assert len(clearing(feeder).passes) <= 8


def test_cost_is_that_of_the_ac_optimum(feeder: str):
    assert clearing(feeder).objective == pytest.approx(oracle(feeder).cost, rel=1e-6)


def test_real_prices_are_those_of_the_ac_optimum_on_every_phase(feeder: str):
    found, expected = clearing(feeder).prices.lmp_usd_per_mwh, oracle(feeder).price_p
    np.testing.assert_allclose(found[:, priced(feeder)], expected[:, priced(feeder)], rtol=0, atol=1e-4)


def test_reactive_prices_are_those_of_the_ac_optimum_on_every_phase(feeder: str):
    found, expected = clearing(feeder).prices.lmp_q_usd_per_mvarh, oracle(feeder).price_q
    np.testing.assert_allclose(found[:, priced(feeder)], expected[:, priced(feeder)], rtol=0, atol=1e-4)


def test_components_sum_to_the_price_on_every_phase(feeder: str):
    prices = clearing(feeder).prices
    for total, suffix in ((prices.lmp_usd_per_mwh, ""), (prices.lmp_q_usd_per_mvarh, "_q")):
        parts = sum(getattr(prices, name + suffix) for name in COMPONENTS)
        np.testing.assert_allclose(parts, total, rtol=0, atol=1e-9)


def test_voltages_bind_on_single_phases(feeder: str):
    limits = clearing(feeder).binding_limits()
    bound = limits[limits.component == "voltage"]
    assert set(bound.phase) & {"1", "2", "3"}
    assert (clearing(feeder).case.network.phase != "123").all()


def test_phases_of_a_bus_have_prices_of_their_own(feeder: str):
    table = clearing(feeder).prices.table()
    spread = table.groupby(["interval", "bus"]).lmp_usd_per_mwh.agg(np.ptp)
    assert spread.max() > 0.5


def test_the_certificate_of_opendss_holds(feeder: str):
    certificate = clearing(feeder).certificate
    assert certificate.program == "OpenDSS"
    assert certificate.is_feasible
    assert certificate.is_supported
    assert certificate.voltage_mismatch_pu < 1e-6


def test_a_three_phase_resource_gets_the_mean_price_of_its_phases(feeder: str):
    found = clearing(feeder)
    network, resources = found.case.network, found.case.resources
    many = np.flatnonzero(np.diff(resources.share.indptr) == 3)
    assert len(many)
    for resource in many:
        ports = np.flatnonzero(network.bus == network.port_bus[resources.first_port[resource]])
        mean = found.prices.lmp_usd_per_mwh[:, ports].mean(axis=1)
        np.testing.assert_allclose(found.awards.lmp_usd_per_mwh[:, resource], mean, rtol=1e-12)


def moved(case_: MarketCase, port_from: int, port_to: int, kw: float) -> float:
    """Cost of the first interval with `kw` more at one port and less at the other [currency]."""
    load = np.array(case_.load_p_kw)
    load[0, port_to] += kw
    load[0, port_from] -= kw
    return clear(replace(case_, load_p_kw=load)).objective


def first_interval(name: str) -> MarketCase:
    """The case's dearest interval alone."""
    return hour_of(name, int(np.ptp(clearing(name).prices.published, axis=1).argmax()))


@pytest.mark.parametrize("name", ["ieee13", "ieee123"])
def test_a_kilowatt_moved_from_the_dear_to_the_cheap_phase_saves_the_difference_of_their_prices(name: str):
    alone = first_interval(name)
    prices = clear(alone).prices
    network, price = alone.network, prices.lmp_usd_per_mwh[0]
    spread = {
        str(bus): np.ptp(price[np.flatnonzero(network.bus == bus)])
        for bus in network.buses
        if set(network.phase[network.bus == bus]) == {"1", "2", "3"}
    }
    bus = max(spread, key=lambda key: spread[key])
    ports = np.flatnonzero(network.bus == bus)
    dear, cheap = ports[price[ports].argmax()], ports[price[ports].argmin()]
    saved = (moved(alone, cheap, dear, STEP_KW) - moved(alone, dear, cheap, STEP_KW)) / (2 * STEP_KW)
    per_mwh = saved * 1000 / alone.horizon.interval_hours
    assert spread[bus] > 0.1
    assert per_mwh == pytest.approx(price[dear] - price[cheap], rel=1e-3)


def test_a_limit_of_voltage_unbalance_has_its_own_price_component():
    alone = first_interval("ieee13")
    free = clear(alone)
    network = alone.network
    ratio = _unbalance(free)
    limited = replace(alone, network=replace(network, v_unbalance_max=0.97 * ratio))
    found = clear(limited)
    assert found.status == "converged"
    assert _unbalance(found) == pytest.approx(0.97 * ratio, rel=1e-6)
    assert np.abs(found.prices.unbalance).max() > 0.01
    expected = solve_acopf(limited, circle_sides=found.settings.circle_sides)
    ports = found.prices.ports
    assert found.objective == pytest.approx(expected.cost, rel=1e-6)
    np.testing.assert_allclose(found.prices.lmp_usd_per_mwh[:, ports], expected.price_p[:, ports], rtol=0, atol=1e-4)
    np.testing.assert_allclose(
        found.prices.lmp_q_usd_per_mvarh[:, ports], expected.price_q[:, ports], rtol=0, atol=1e-4
    )


def _unbalance(found: Clearing) -> float:
    """Largest ratio of negative- to positive-sequence voltage of the first interval."""
    network, v = found.case.network, found._dispatch.point.v_pu[0]
    turn, ratios = np.exp(2j * np.pi / 3), []
    for bus in network.buses:
        nodes = np.flatnonzero(network.bus == bus)
        if network.phase[nodes].tolist() == ["1", "2", "3"] and not network.is_source[nodes].any():
            a, b, c = v[nodes]
            ratios.append(abs(a + turn**2 * b + turn * c) / abs(a + turn * b + turn**2 * c))
    return float(max(ratios))
