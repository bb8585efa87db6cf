"""A clearing that goes on from its last dispatch comes to what one from scratch comes to."""

import numpy as np
import pytest
from servicecases import SERVICE_CASES

from benchmarks.cases import SPECS, build
from dlmp import Clearing, MarketCase, Settings, clear, clearing
from dlmp.directions import dispatch_one_way

LINEAR = Settings(formulation="lindistflow")
CASES = {
    "ieee13": Settings(),
    "ring_with_a_condenser": Settings(),
    "ring": Settings(),
    "reactive_33": Settings(),
    "reactive_33, linear": LINEAR,
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[MarketCase, Settings]:
    name: str = request.param
    return SERVICE_CASES[name.split(",", maxsplit=1)[0]](), CASES[name]


def from_scratch(monkeypatch: pytest.MonkeyPatch, case: MarketCase, settings: Settings) -> Clearing:
    """Every dispatch of the clearing begins without awards."""
    with monkeypatch.context() as patched:
        patched.setattr(clearing, "dispatch_one_way", lambda *args: dispatch_one_way(*args[:5]))
        return clear(case, settings)


def test_cost_prices_and_awards_are_those_from_scratch(
    monkeypatch: pytest.MonkeyPatch, case: tuple[MarketCase, Settings]
):
    found, expected = clear(*case), from_scratch(monkeypatch, *case)
    assert len(found.passes) > len(expected.passes), "an unsafe call is found, and the clearing goes on"
    assert found.status == expected.status == "converged"
    assert found.objective == pytest.approx(expected.objective, rel=1e-9)
    for one, other in (
        (found.prices.lmp_usd_per_mwh, expected.prices.lmp_usd_per_mwh),
        (found.prices.lmp_q_usd_per_mvarh, expected.prices.lmp_q_usd_per_mvarh),
        (found.services.price_usd_per_mw_h, expected.services.price_usd_per_mw_h),
    ):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.services.reserved_kw, expected.services.reserved_kw, rtol=0, atol=1e-4)


@pytest.mark.nightly
def test_a_day_with_all_services_on_123_nodes_keeps_every_call(monkeypatch: pytest.MonkeyPatch):
    spec = next(spec for spec in SPECS if spec.name == "IEEE 123 x 24, services")
    case = build(spec, spec.network())
    found, expected = clear(case), from_scratch(monkeypatch, case, Settings())
    assert found.status == "converged"
    assert found.broken_limits().empty
    limits = found.binding_limits()
    assert {"capacity_up", "capacity_down", "var_up", "var_down"} <= set(" ".join(limits.called).split())
    certificate = found.certificate
    assert certificate.calls > 800
    assert certificate.is_feasible
    assert certificate.is_deliverable
    assert certificate.is_supported
    assert found.objective == pytest.approx(expected.objective, rel=1e-9)
    np.testing.assert_allclose(found.prices.lmp_usd_per_mwh, expected.prices.lmp_usd_per_mwh, rtol=0, atol=1e-5)
