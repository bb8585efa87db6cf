"""The least power factor: worked by hand on two buses, and against the AC optimum."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from cases import feeder33, generators33, market, resource
from feeders import Branch, feeder
from optimum import cleared_at_the_ac_optimum
from test_reactive import ALL_FOUR, with_reactive

from dlmp import InputError, clear
from dlmp.market import MarketCase

NEXT_TO_LOSSLESS = Branch("a", "b", 1e-6, 1e-6)
POWER = 1e-3
SHARE = 0.48432210  # tan(acos(0.9))


def limited(case: MarketCase, power_factor: object) -> MarketCase:
    """The same case, every resource with this least power factor."""
    factors = np.broadcast_to(np.asarray(power_factor, float), len(case.resources))
    return replace(case, resources=replace(case.resources, power_factor_min=factors))


def beside_a_load(power_factor: float, **offer: object) -> MarketCase:
    """A resource beside a load of 100 kW and 60 kvar, where import costs 20 per MWh and 5 per MVArh."""
    network = feeder([NEXT_TO_LOSSLESS], {"b": (100.0, 60.0)})
    one = resource("machine", "b", q_kvar=(-80.0, 80.0), **offer)
    return limited(market(network, [20.0], one, q_price_usd_per_mvarh=5.0), power_factor)


@pytest.mark.parametrize(("cost", "expected"), [(10.0, 50.0), (22.4, 50.0), (22.5, 0.0)])
def test_reactive_power_comes_with_real_power_and_helps_to_pay_for_it(cost: float, expected: float):
    """At a power factor of 0.9 a kW brings 0.4843 kvar, worth 5 each: it pays up to a cost of 20 + 2.42."""
    found = clear(beside_a_load(0.9, supply=[(50, cost)]))
    assert found.awards.net_injection_kw[0, 0] == pytest.approx(expected, abs=POWER)
    assert found.awards.q_kvar[0, 0] == pytest.approx(expected * SHARE, abs=POWER)
    assert found.certificate.is_feasible
    assert found.certificate.is_supported


@pytest.mark.parametrize(("value", "expected"), [(17.6, 40.0), (17.5, 0.0)])
def test_a_load_that_compensates_must_consume_to_do_so(value: float, expected: float):
    """Consuming a kW lets it inject 0.4843 kvar at 5: it pays from a value of 20 - 2.42."""
    found = clear(beside_a_load(0.9, demand=[(40, value)]))
    assert found.awards.net_injection_kw[0, 0] == pytest.approx(-expected, abs=POWER)
    assert found.awards.q_kvar[0, 0] == pytest.approx(expected * SHARE, abs=POWER)


def test_a_power_factor_of_one_leaves_no_reactive_power():
    found = clear(beside_a_load(1.0, supply=[(50, 10)]))
    assert found.awards.net_injection_kw[0, 0] == pytest.approx(50, abs=POWER)
    assert found.awards.q_kvar[0, 0] == pytest.approx(0, abs=POWER)


def test_the_range_of_reactive_power_holds_beside_the_power_factor():
    case = beside_a_load(0.5, supply=[(50, 10)])
    case = replace(case, resources=replace(case.resources, q_max_kvar=np.array([7.0])))
    assert clear(case).awards.q_kvar[0, 0] == pytest.approx(7, abs=POWER)


def losses_33() -> MarketCase:
    """Free reactive power cuts losses, as far as each generator runs."""
    return limited(market(feeder33(), [44.0], *generators33((-400.0, 400.0))), [0.95, 0.9, 0.85, 0.99])


def undervoltage_33() -> MarketCase:
    """Generators run for the reactive power that holds up the voltage; two have a rating too."""
    plain = market(feeder33(v_min_pu=0.95), [21.0], *generators33((-400.0, 400.0), 420.0))
    return limited(plain, [0.9, 0.95, 0.0, 0.97])


def at_a_price_33() -> MarketCase:
    """Within the power factor reactive power has a price."""
    return limited(with_reactive(market(feeder33(), [44.0], *generators33((-150.0, 200.0))), ALL_FOUR), 0.93)


@pytest.mark.parametrize("build", [losses_33, undervoltage_33, at_a_price_33])
def test_cost_prices_and_awards_are_those_of_the_ac_optimum(build: Callable[[], MarketCase]):
    case = build()
    found, expected = cleared_at_the_ac_optimum(case)
    np.testing.assert_allclose(found.awards.net_injection_kw, expected.p_kw, rtol=0, atol=0.05)
    np.testing.assert_allclose(found.awards.q_kvar, expected.q_kvar, rtol=0, atol=0.05)
    factor = case.resources.power_factor_min
    p_kw, q_kvar = found.awards.net_injection_kw, found.awards.q_kvar
    is_at_limit = np.abs(np.abs(p_kw) - factor * np.hypot(p_kw, q_kvar)) < POWER
    assert (is_at_limit & (p_kw > 1.0)).any()


@pytest.mark.parametrize(
    ("power_factor", "offer", "element", "message"),
    [
        (1.1, {"supply": [(50, 10)]}, "resource machine", "must be 0 to 1; leave it blank for no limit"),
        (np.nan, {"supply": [(50, 10)]}, "resource machine", "must be 0 to 1"),
        (
            0.9,
            {"supply": [(50, 10)], "demand": [(20, 5)]},
            "resource machine",
            "needs real power of one sign, and its range is from -20 to 50 kW; make it two resources, or use s_max_kva",
        ),
    ],
)
def test_a_power_factor_that_makes_no_sense_is_refused(power_factor: float, offer, element: str, message: str):
    with pytest.raises(InputError) as caught:
        beside_a_load(power_factor, **offer)
    (problem,) = caught.value.problems
    assert (problem.element, problem.field) == (element, "power_factor_min")
    assert message in problem.message


def test_reactive_power_that_must_be_there_needs_real_power_for_it():
    network = feeder([NEXT_TO_LOSSLESS], {"b": (100.0, 60.0)})
    plain = market(network, [20.0], resource("machine", "b", supply=[(50, 10)], q_kvar=(30.0, 80.0)))
    with pytest.raises(InputError) as caught:
        limited(plain, 0.9)
    (problem,) = caught.value.problems
    assert (problem.element, problem.field) == ("resource machine, interval 0", "power_factor_min")
    assert "allows 24.2161 kvar, and q_min_kvar, q_max_kvar need 30; widen them or lower it" in problem.message
