"""The AC formulation's limits, states and their units."""

from dataclasses import replace

import numpy as np
import pytest
from cases import feeder33
from feeders import Branch, feeder

from dlmp.formulation import ac_tangent
from dlmp.formulation.ac_tangent import AcTangent
from dlmp.formulation.interface import CONGESTION, VOLTAGE

BRANCHES = [
    Branch("a", "b", 0.02, 0.04, rating=3.0, is_current=True),
    Branch("b", "c", 0.03, 0.02, rating=2.0),
    Branch("b", "d", 0.01, 0.01, rating=1.5, is_current=True, shunt=0.1j),
    Branch("b", "e", 0.01, 0.01),
]
LOAD = {"b": (40, 10), "c": (100, 50), "d": (60, 20), "e": (10, 5)}


def solved(network):
    formulation = AcTangent(network)
    p_kw, q_kvar = network.element_loads()
    return formulation, formulation.operate(-(p_kw + 1j * q_kvar)[None] / 100.0)


def test_every_voltage_but_the_source_s_is_limited_and_every_rated_end():
    """A current is the same at both ends of a branch without shunts; a power is not, nor a current with shunts."""
    limits = AcTangent(feeder(BRANCHES, LOAD, band=(0.9, 1.1))).limits
    assert [limits.name(limit) for limit in range(len(limits))] == [
        "bus b",
        "bus c",
        "bus d",
        "bus e",
        "a-b",
        "b-c (from end)",
        "b-d (from end)",
        "b-c (to end)",
        "b-d (to end)",
    ]
    assert limits.cause.tolist() == [VOLTAGE] * 4 + [CONGESTION] * 5
    assert limits.lower.tolist() == [0.9] * 4 + [-np.inf] * 5
    assert limits.upper.tolist() == [1.1] * 4 + [3.0, 2.0, 1.5, 2.0, 1.5]
    assert limits.unit.tolist() == ["pu"] * 4 + ["A", "kVA", "A", "kVA", "A"]


def test_a_rating_at_one_end_only_is_a_limit_at_that_end():
    rated = replace(
        feeder(BRANCHES[:1]),
        rating_from_pu=np.array([np.inf]),
        rating_to_pu=np.array([2.5]),
        shunt_to_pu=np.array([0.1j]),
    )
    limits = AcTangent(rated).limits
    assert (limits.element.tolist(), limits.end.tolist(), limits.upper[1]) == (["bus b", "a-b"], ["-", "to"], 2.5)


@pytest.mark.parametrize(("tap", "end"), [(0.95, "both"), (1.05, "to")])
def test_of_a_transformer_s_two_currents_in_a_fixed_ratio_the_tighter_limit_stands_alone(tap: float, end: str):
    """The current at the to end is `tap` times that at the from end, whatever the load."""
    network = feeder([Branch("a", "b", 0.02, 0.04, tap=tap, rating=3.0, is_current=True)], {"b": (40, 10)})
    formulation, point = solved(network)
    flows = np.flatnonzero(formulation.limits.cause == CONGESTION)
    assert formulation.limits.end[flows].tolist() == [end]
    at_from, at_to = (np.abs(side[0, 0]) for side in point.branch_power())
    through = at_from / np.abs(point.v_pu[0, 0]), at_to / np.abs(point.v_pu[0, 1])
    assert through[1] == pytest.approx(tap * through[0], rel=1e-12)
    assert point.limit_value[0, flows] == pytest.approx(max(through), rel=1e-12)


def test_limited_quantities_are_what_ohm_and_kirchhoff_say():
    formulation, point = solved(feeder(BRANCHES, LOAD))
    v = point.v_pu[0]
    a, b, c, d, _ = v
    currents = {"a-b": (a - b) / (0.02 + 0.04j), "b-c": (b - c) / (0.03 + 0.02j), "b-d": (b - d) / (0.01 + 0.01j)}
    expected = {
        "bus b": abs(b),
        "a-b": abs(currents["a-b"]),
        "b-c (from end)": abs(b * np.conj(currents["b-c"])),
        "b-c (to end)": abs(c * np.conj(currents["b-c"])),
        "b-d (from end)": abs(currents["b-d"] + 0.05j * b),
        "b-d (to end)": abs(currents["b-d"] - 0.05j * d),
    }
    limits = formulation.limits
    found = {limits.name(limit): point.limit_value[0, limit] for limit in range(len(limits))}
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-12)


def test_limits_are_told_in_amperes_kilovolt_amperes_and_per_unit():
    """1 pu at 1 kV is 100 kVA / (sqrt(3) x 1 kV) = 57.735 A."""
    limits = AcTangent(feeder(BRANCHES, LOAD)).limits
    shown = limits.physical(np.array([0, 4, 5]), np.array([0.97, 3.0, 2.0]))
    np.testing.assert_allclose(shown, [0.97, 3 * 57.735027, 200.0], rtol=1e-8)


def test_import_is_load_and_losses_less_what_is_injected_at_the_source():
    network = feeder(BRANCHES, LOAD | {"a": (-30, -20)})
    _, point = solved(network)
    losses = (point.v_pu[0] * np.conj(network.admittance @ point.v_pu[0])).sum()
    p_kw, q_kvar = network.element_loads()
    assert point.import_pu[0] == pytest.approx((p_kw + 1j * q_kvar).sum() / 100 + losses, rel=1e-10)
    at_from, at_to = point.branch_power()
    assert (at_from + at_to).sum() == pytest.approx(losses, rel=1e-9)
    assert point.import_pu[0] == pytest.approx(at_from[0, 0] - (0.3 + 0.2j), rel=1e-10)


def test_many_gradients_are_found_in_parts_as_at_once(monkeypatch: pytest.MonkeyPatch):
    formulation, point = solved(feeder33(meshed=True))
    limit, nodes = np.arange(len(formulation.limits)), np.arange(33)
    at_once = point.limit_gradients(np.zeros_like(limit), limit, nodes)
    monkeypatch.setattr(ac_tangent, "SEED_COLUMNS", 5)
    np.testing.assert_allclose(point.limit_gradients(np.zeros_like(limit), limit, nodes), at_once, atol=1e-12)


def test_no_limit_has_no_gradient():
    _, point = solved(feeder33())
    nothing = np.zeros(0, dtype=np.int64)
    assert point.limit_gradients(nothing, nothing, np.arange(33)).shape == (0, 2, 33)


def test_an_interval_without_a_state_says_so():
    network = feeder33()
    p_kw, q_kvar = network.element_loads()
    power = -np.outer([1.0, 50.0], p_kw + 1j * q_kvar) / 100.0
    assert AcTangent(network).operate(power).converged.tolist() == [True, False]
