"""Energy and services are cleared together: as the joint AC optimum has it, and as its prices say."""

from functools import cache
from unittest.mock import patch

import numpy as np
import pytest
from servicecases import SERVICE_BINDING, SERVICE_CASES, hour_of, with_every_service
from serviceopf import ServiceOpf, solve_with_services

import dlmp.clearing
from dlmp import Clearing, clear, read_case
from dlmp.calls import CalledStates
from dlmp.dispatch import Dispatch
from dlmp.settings import Settings
from dlmp.shipped import shipped_case

FEW = {"day_33", "ieee34"}
"""Compared with whole services called only: a plant called alone is there all of its service, twice the same state."""
FOUR = {"capacity_up": 0.1, "capacity_down": 0.1, "var_up": 0.04, "var_down": 0.04}
"""Shares of the highest load that are required of each service."""


@pytest.fixture(params=SERVICE_CASES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@cache
def clearing(name: str) -> Clearing:
    return clear(SERVICE_CASES[name]())


@cache
def optimum(name: str) -> ServiceOpf:
    return solve_with_services(SERVICE_CASES[name](), singly=name not in FEW)


def test_it_converges_and_its_certificate_holds(name: str):
    found = clearing(name)
    assert found.status == "converged"
    assert found.certificate.is_feasible
    assert found.certificate.is_supported
    assert found.certificate.is_deliverable


def test_limits_bind_when_called_and_not_as_scheduled(name: str):
    """Else neither prices nor awards would show that the network is held to called states."""
    limits = clearing(name).binding_limits()
    limits = limits[limits.shadow_price_usd_per_h > 1e-6]
    assert set(zip(limits.component, limits.called, strict=True)) == SERVICE_BINDING[name]


def assert_same_energy_prices(found: Clearing, expected: ServiceOpf) -> None:
    ports = found.prices.ports
    for own, theirs in (
        (found.prices.lmp_usd_per_mwh, expected.price_p),
        (found.prices.lmp_q_usd_per_mvarh, expected.price_q),
    ):
        np.testing.assert_allclose(own[:, ports], theirs[:, ports], rtol=0, atol=1e-3)


def assert_same_service_prices(found: Clearing, expected: ServiceOpf) -> None:
    services = found.services
    np.testing.assert_allclose(services.price_usd_per_mw_h, expected.service_price, rtol=0, atol=1e-3)
    np.testing.assert_allclose(services.requirement_usd_per_mw_h, expected.requirement_price, rtol=0, atol=1e-3)


def assert_same_awards(found: Clearing, expected: ServiceOpf) -> None:
    for own, theirs in (
        (found.services.reserved_kw, expected.reserved_kw),
        (found.services.shortage_kw, expected.shortage_kw),
        (found.awards.net_injection_kw, expected.p_kw),
    ):
        np.testing.assert_allclose(own, theirs, rtol=0, atol=1e-2)


def test_cost_is_that_of_the_joint_ac_optimum(name: str):
    assert clearing(name).objective == pytest.approx(optimum(name).cost, rel=1e-6)


def test_energy_prices_are_those_of_the_joint_ac_optimum(name: str):
    assert_same_energy_prices(clearing(name), optimum(name))


def test_prices_of_services_are_those_of_the_joint_ac_optimum(name: str):
    assert_same_service_prices(clearing(name), optimum(name))


def test_awards_are_those_of_the_joint_ac_optimum(name: str):
    assert_same_awards(clearing(name), optimum(name))


def test_components_of_the_price_of_a_service_add_up(name: str):
    found = clearing(name).services
    parts = found.requirement + found.congestion + found.voltage + found.unbalance + found.scarcity
    np.testing.assert_allclose(parts, found.price_usd_per_mw_h, rtol=0, atol=1e-9)


def called_whole(found: Dispatch, settings: Settings, last: Dispatch | None) -> CalledStates:
    """Nothing but the calls of whole services, to which a clearing is held from the beginning."""
    return found.market.called.only(np.zeros(0, dtype=np.int64))


def test_everybody_offers_every_service_and_unbalance_and_voltage_bind_in_their_calls():
    """The last hour of the IEEE 34 case: limits of called states that curve hold what is left free."""
    case = with_every_service(hour_of("ieee34", 2), FOUR, shortage=1000.0)
    with patch.object(dlmp.clearing, "unsafe_calls", called_whole):
        found = clear(case)
    assert found.status == "converged"
    assert len(found.passes) <= 2
    limits = found.binding_limits()
    binding = set(zip(limits.component, limits.called, strict=True))
    assert {("unbalance", "capacity_down"), ("unbalance", "var_up"), ("voltage", "capacity_up")} <= binding
    expected = solve_with_services(case)
    assert found.objective == pytest.approx(expected.cost, rel=1e-6)
    assert_same_energy_prices(found, expected)
    assert_same_service_prices(found, expected)
    assert_same_awards(found, expected)


@pytest.mark.nightly
def test_everybody_offers_every_service_and_every_call_can_be_delivered():
    found = clear(with_every_service(read_case(shipped_case("ieee34")), FOUR, shortage=1000.0))
    assert found.status == "converged"
    assert found.certificate.is_feasible
    assert found.certificate.is_supported
    assert found.certificate.is_deliverable
