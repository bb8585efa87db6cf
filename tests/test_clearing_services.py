"""Energy and services are cleared together: as the joint AC optimum has it, and as its prices say."""

from functools import cache

import numpy as np
import pytest
from servicecases import SERVICE_BINDING, SERVICE_CASES
from serviceopf import ServiceOpf, solve_with_services

from dlmp import Clearing, clear

FEW = {"day_33"}
"""Compared with whole services called only: a plant called alone is there all of its service, twice the same state."""


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


def test_cost_is_that_of_the_joint_ac_optimum(name: str):
    assert clearing(name).objective == pytest.approx(optimum(name).cost, rel=1e-6)


def test_energy_prices_are_those_of_the_joint_ac_optimum(name: str):
    found, expected = clearing(name).prices, optimum(name)
    ports = found.ports
    for own, theirs in (
        (found.lmp_usd_per_mwh, expected.price_p),
        (found.lmp_q_usd_per_mvarh, expected.price_q),
    ):
        np.testing.assert_allclose(own[:, ports], theirs[:, ports], rtol=0, atol=1e-3)


def test_prices_of_services_are_those_of_the_joint_ac_optimum(name: str):
    found, expected = clearing(name).services, optimum(name)
    np.testing.assert_allclose(found.price_usd_per_mw_h, expected.service_price, rtol=0, atol=1e-3)
    np.testing.assert_allclose(found.requirement_usd_per_mw_h, expected.requirement_price, rtol=0, atol=1e-3)


def test_awards_are_those_of_the_joint_ac_optimum(name: str):
    found, expected = clearing(name), optimum(name)
    for own, theirs in (
        (found.services.reserved_kw, expected.reserved_kw),
        (found.services.shortage_kw, expected.shortage_kw),
        (found.awards.net_injection_kw, expected.p_kw),
    ):
        np.testing.assert_allclose(own, theirs, rtol=0, atol=1e-2)


def test_components_of_the_price_of_a_service_add_up(name: str):
    found = clearing(name).services
    parts = found.requirement + found.congestion + found.voltage + found.unbalance + found.scarcity
    np.testing.assert_allclose(parts, found.price_usd_per_mw_h, rtol=0, atol=1e-9)
