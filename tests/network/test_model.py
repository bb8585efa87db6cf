"""The network record: admittances against Kirchhoff by hand, and every rule with its message."""

from dataclasses import replace

import numpy as np
import pytest
from feeders import Branch, feeder
from unbalanced import LAWS, PORTS, POWER_KVA, Wires, coupled, single_phases, unbalanced

from dlmp.errors import InputError, Problem
from dlmp.network.loads import LoadLaws
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
        THREE, element_load=np.array([2, 2]), element_p_kw=np.array([5.0, -2.0]), element_q_kvar=np.array([1.0, 4.0])
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
            "must be above zero [kVA]; leave it blank for no limit",
        ),
        (
            "rating_to_pu",
            1,
            np.nan,
            "line b-c",
            "rating at its to end",
            "must be above zero [kVA]; leave it blank for no limit",
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


def test_sparse_matrices_of_a_network_are_read_only_copies():
    given = unbalanced()
    rows = given.from_rows.copy()
    network = replace(given, from_rows=rows)
    rows.data[0] = 99.0
    np.testing.assert_array_equal(network.from_rows.todense(), given.from_rows.todense())
    with pytest.raises(ValueError, match="read-only"):
        network.from_rows.data[0] = 99.0


def test_a_node_of_single_phases_is_found_by_its_phase_and_a_pair_by_both():
    network = unbalanced()
    assert network.node("b", "3") == PORTS.index("b.3")
    assert network.node("b", "12") == PORTS.index("b.1-b.2")
    assert network.node("c") == PORTS.index("c.2"), "the only phase; the other conductor is a neutral"
    with pytest.raises(InputError, match=r"bus b, phase = '': name one of its phases: 1, 2, 3, 12"):
        network.node("b")
    with pytest.raises(InputError, match=r"bus c, phase = '1': name one of its phases: 2, 24"):
        network.node("c", "1")


def test_prices_are_published_to_ground_and_across_pairs_where_the_nodes_float():
    network = unbalanced()
    priced = [port for port, is_priced in zip(PORTS, network.is_priced, strict=True) if is_priced]
    assert priced == [
        *(f"{bus}.{phase}" for bus in ("grid", "a", "b") for phase in "123"),
        "c.2",
        *(f"{bus}.{i}-{bus}.{j}" for bus in "de" for i, j in ("12", "23", "31")),
    ]


@pytest.mark.parametrize(
    ("bus", "phase", "expected"),
    [
        ("a", "", {"a.1": 1 / 3, "a.2": 1 / 3, "a.3": 1 / 3}),
        ("a", "123", {"a.1": 1 / 3, "a.2": 1 / 3, "a.3": 1 / 3}),
        ("a", "2", {"a.2": 1.0}),
        ("b", "", {"b.1": 1 / 3, "b.2": 1 / 3, "b.3": 1 / 3}),
        ("b", "12", {"b.1-b.2": 1.0}),
        ("c", "", {"c.2": 1.0}),
        ("c", "24", {"c.2-c.4": 1.0}),
        ("d", "", {"d.1-d.2": 1 / 3, "d.2-d.3": 1 / 3, "d.3-d.1": 1 / 3}),
        ("d", "31", {"d.3-d.1": 1.0}),
    ],
)
def test_what_stands_on_no_phase_in_particular_is_spread_over_all(bus: str, phase: str, expected: dict[str, float]):
    """A pair of phases is the pair even at a bus that has no others."""
    network = unbalanced()
    ports, share = network.ports_for(network.bus_number[bus], phase)
    assert {PORTS[port]: part for port, part in zip(ports, share, strict=True)} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("bus", "phase", "message"),
    [
        ("a", "4", "the bus has the phases 1, 2, 3; name one, or leave it blank for all"),
        ("c", "123", "the bus has the phases 2, 24; name one"),
        ("b", "23", "the bus has the phases 1, 2, 3, 12; name one"),
        ("c", "4", "is a neutral conductor, without a voltage to ground; name one of 2, 24"),
        ("d", "1", "the bus floats behind a delta winding: name a pair of phases such as 12"),
    ],
)
def test_a_phase_that_a_bus_does_not_have_is_refused_with_those_that_it_has(bus: str, phase: str, message: str):
    network = unbalanced()
    with pytest.raises(ValueError, match=message):
        network.ports_for(network.bus_number[bus], phase)


def test_loads_stand_at_their_ports_and_then_follow_their_voltages():
    network = unbalanced()
    p_kw, q_kvar = network.element_loads()
    assert network.load_port.tolist() == [*range(len(PORTS)), *(PORTS.index(law.port) for law in LAWS)]
    assert p_kw[PORTS.index("b.1-b.2")] + 1j * q_kvar[PORTS.index("b.1-b.2")] == POWER_KVA["b.1-b.2"]
    assert (p_kw[len(PORTS) :] + 1j * q_kvar[len(PORTS) :]).tolist() == [law.kva for law in LAWS]


def test_voltages_of_ports_are_those_of_nodes_and_differences():
    network = unbalanced()
    v = np.arange(network.node_count) ** 2 + 1j
    across = network.incidence @ v
    np.testing.assert_array_equal(across[: network.node_count], v)
    assert across[PORTS.index("e.3-e.1")] == v[PORTS.index("e.3")] - v[PORTS.index("e.1")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pair": np.array([[3, 6]])}, r"pair 0, bus = 'a, b': a pair is of two phases of one bus"),
        ({"pair": np.array([[3, 3]])}, r"pair 0, bus = 'a, a': a pair is of two phases of one bus"),
        ({"pair": np.array([[0, 1]])}, r"pair 0, bus = 'grid': a pair cannot stand at a source"),
        ({"law": LoadLaws(np.array([1]), *(6 * [np.ones(1)]))}, r"load at bus grid, bus = 'grid': a load that follows"),
    ],
)
def test_pairs_and_loads_stand_where_a_voltage_is_solved_for(change: dict[str, object], message: str):
    with pytest.raises(InputError, match=message):
        replace(unbalanced(with_laws=False), **change)


def test_a_bus_has_each_phase_once():
    with pytest.raises(InputError, match=r"node a\.1, phase = 'a\.1': stands more than once"):
        replace(unbalanced(), phase=np.array(["1", "1", "3", "1", "1", *unbalanced().phase[5:]]))


@pytest.mark.parametrize(
    ("ways", "is_radial"), [(("sx", "xy"), True), (("sx", "xy", "ys"), False), (("sx", "sx", "xy"), False)]
)
def test_conductors_of_one_branch_make_no_loop_and_a_second_branch_does(ways: tuple[str, ...], is_radial: bool):
    wires = Wires([f"{bus}.{phase}" for bus in "sxy" for phase in "12"])
    for number, (start, end) in enumerate(ways):
        wires.line(start, end, "12", coupled(2, 0.1j, 0.03j))
        wires.name[-2:] = [f"line {number}"] * 2
    assert single_phases(wires, {"s.1": 1.0, "s.2": -1.0}).is_radial == is_radial
