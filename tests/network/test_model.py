"""The network record: admittances against Kirchhoff by hand, and every rule with its message."""

from dataclasses import replace

import numpy as np
import pytest
from feeders import Branch, feeder

from dlmp.errors import InputError, Problem
from dlmp.network.model import Network, some_of

THREE = feeder(
    [Branch("a", "b", 0.01, 0.02, rating=3.0), Branch("b", "c", 0.03, 0.04)],
    {"b": (30, 10), "c": (50, 20)},
    band=(0.9, 1.1),
)


def changed(field: str, where: int, to: object) -> Network:
    """`THREE` with one value changed."""
    values = getattr(THREE, field).tolist()
    values[where] = to
    return replace(THREE, **{field: np.array(values)})


def problems_of(field: str, where: int, to: object) -> tuple[Problem, ...]:
    with pytest.raises(InputError) as caught:
        changed(field, where, to)
    return caught.value.problems


def test_current_and_power_of_a_transformer_with_tap_and_shunts_follow_kirchhoff():
    """From v_a through the ideal ratio to a pi section, written out by hand."""
    tap, series, y_from, y_to = 1.05 * np.exp(0.1j), 0.02 + 0.05j, 0.003 + 0.02j, 0.001 + 0.07j
    branch = feeder([Branch("a", "b", series.real, series.imag, tap=tap)])
    network = replace(branch, shunt_from_pu=np.array([y_from]), shunt_to_pu=np.array([y_to]))
    v_a, v_b = 1.02 * np.exp(0.02j), 0.97 * np.exp(-0.13j)
    behind = v_a / tap
    through = (behind - v_b) / series
    inner = through + y_from * behind
    voltage = np.array([v_a, v_b])
    assert behind * np.conj(inner) == pytest.approx(v_a * np.conj((network.from_admittance @ voltage)[0]), rel=1e-13)
    np.testing.assert_allclose(network.from_admittance @ voltage, [inner / np.conj(tap)], rtol=1e-13)
    np.testing.assert_allclose(network.to_admittance @ voltage, [y_to * v_b - through], rtol=1e-13)


def test_nodal_admittance_sums_the_branches_and_the_shunt_at_each_node():
    y1, y2, shunt = 1 / (0.01 + 0.02j), 1 / (0.03 + 0.04j), 0.1 - 0.2j
    network = replace(THREE, node_shunt_pu=np.array([0, shunt, 0]))
    expected = [[y1, -y1, 0], [-y1, y1 + y2 + shunt, -y2], [0, -y2, y2]]
    np.testing.assert_allclose(network.admittance.toarray(), expected, rtol=1e-14)


def test_a_loop_or_a_second_source_makes_a_network_meshed():
    ring = [Branch("a", "b", 0.01, 0.02), Branch("b", "c", 0.01, 0.02), Branch("c", "a", 0.01, 0.02)]
    assert THREE.is_radial
    assert not feeder(ring).is_radial
    assert not feeder(ring[:2], source={"a": 1.0, "c": 1.0}).is_radial


def test_two_separate_radial_feeders_are_radial():
    assert feeder([Branch("a", "b", 0.01, 0.02), Branch("c", "d", 0.01, 0.02)], source={"a": 1.0, "c": 1.0}).is_radial


def test_a_bus_is_found_by_its_name_and_by_an_alias():
    network = replace(THREE, alias_bus=np.array(["busbar 2"]), alias_node=np.array([1]))
    assert (network.node("b"), network.node("busbar 2")) == (1, 1)
    with pytest.raises(InputError, match=r"bus = 'x': is no bus of feeder; known: a, b, c"):
        network.node("x")


def test_loads_at_one_bus_add_up():
    network = replace(
        THREE, element_node=np.array([2, 2]), element_p_kw=np.array([5.0, -2.0]), element_q_kvar=np.array([1.0, 4.0])
    )
    p_kw, q_kvar = network.element_loads()
    assert (p_kw.tolist(), q_kvar.tolist()) == ([0, 0, 3], [0, 0, 5])


def test_a_network_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        THREE.v_min_pu[0] = 0.0


@pytest.mark.parametrize(
    ("field", "where", "to", "element", "column", "message"),
    [
        ("bus", 2, "b", "bus b", "bus", "stands more than once; bus names must be unique"),
        ("branch", 1, "a-b", "line a-b", "line", "stands more than once; branch names must be unique"),
        ("base_kv", 1, np.nan, "bus b", "base_kv", "must be a finite number"),
        ("base_kv", 1, 0.0, "bus b", "base_kv", "must be above zero"),
        ("v_min_pu", 2, np.nan, "bus c", "v_min_pu", "must be a finite number"),
        ("v_max_pu", 2, np.inf, "bus c", "v_max_pu", "must be a finite number"),
        ("v_min_pu", 2, 1.2, "bus c", "v_min_pu, v_max_pu", "need 0 <= v_min_pu <= v_max_pu"),
        ("v_min_pu", 2, -0.1, "bus c", "v_min_pu, v_max_pu", "need 0 <= v_min_pu <= v_max_pu"),
        ("node_shunt_pu", 0, complex(np.nan), "bus a", "shunt", "must be a finite number"),
        ("source_v_pu", 0, complex(np.nan), "bus a", "source_v_pu", "must be a finite number"),
        ("source_v_pu", 0, 0j, "bus a", "source_v_pu", "must be above zero"),
        ("series_pu", 1, complex(np.inf, 0), "line b-c", "impedance", "must be a finite number"),
        ("series_pu", 1, 0j, "line b-c", "r_ohm, x_ohm", "zero impedance; join the two buses or give it a small one"),
        ("series_pu", 1, -0.01 + 0.1j, "line b-c", "r_ohm", "resistance must not be negative"),
        ("tap", 0, 0j, "line a-b", "tap_ratio", "must be above zero"),
        ("tap", 0, complex(np.nan), "line a-b", "tap", "must be a finite number"),
        ("shunt_to_pu", 0, complex(0, np.inf), "line a-b", "shunt", "must be a finite number"),
        (
            "rating_from_pu",
            0,
            0.0,
            "line a-b",
            "rating at its from end",
            "must be above zero; leave it blank for no limit",
        ),
        (
            "rating_to_pu",
            1,
            np.nan,
            "line b-c",
            "rating at its to end",
            "must be above zero; leave it blank for no limit",
        ),
        ("from_node", 1, 2, "line b-c", "to_bus", "a branch must join two different buses"),
        ("element_p_kw", 0, np.nan, "element load b", "p_kw", "must be a finite number"),
        ("element_q_kvar", 1, np.inf, "element load c", "q_kvar", "must be a finite number"),
    ],
)
def test_a_bad_value_is_named_with_element_and_field(field, where, to, element, column, message):
    problems = problems_of(field, where, to)
    assert (element, column, message) in {(problem.element, problem.field, problem.message) for problem in problems}


def test_a_network_needs_a_source():
    with pytest.raises(InputError, match=r"network, source = 'none': mark at least one bus as the source"):
        replace(THREE, source=np.array([], dtype=np.int64), source_v_pu=np.array([], dtype=complex))


def test_a_network_needs_a_bus_that_is_no_source():
    with pytest.raises(InputError, match=r"a network needs at least one bus that is no source"):
        feeder([Branch("a", "b", 0.01, 0.02)], source={"a": 1.0, "b": 1.0})


def test_every_bus_without_a_path_to_a_source_is_named():
    apart = [Branch("a", "b", 0.01, 0.02), Branch("c", "d", 0.01, 0.02)]
    with pytest.raises(InputError) as caught:
        feeder(apart)
    assert [(problem.element, problem.field) for problem in caught.value.problems] == [
        ("bus c", "island"),
        ("bus d", "island"),
    ]


def test_an_alias_must_not_repeat_a_bus():
    with pytest.raises(InputError, match=r"bus a, bus = 'a': stands more than once"):
        replace(THREE, alias_bus=np.array(["a"]), alias_node=np.array([2]))


def test_all_problems_are_told_at_once():
    with pytest.raises(InputError, match="3 problems"):
        replace(
            THREE,
            base_kv=np.array([0.0, 1.0, 1.0]),
            series_pu=np.array([0.0, -1.0]) + 0j,
        )


def test_a_long_list_of_names_is_cut_with_their_number():
    assert some_of(["a", "b"]) == "a, b"
    assert some_of(np.array(list("abcdefgh")), 3) == "a, b, c, ... (8 in all)"
