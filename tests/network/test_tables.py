"""Plain tables: physical units to per unit, and any balanced network back again."""

from dataclasses import fields, replace

import numpy as np
import pandapower
import pandapower.networks
import pytest
from unbalanced import unbalanced

from dlmp.errors import InputError
from dlmp.network import BalancedNetwork, read_network
from dlmp.network.pandapower import from_pandapower
from dlmp.network.tables import read_tables, write_tables

NODES = "bus,base_kv,p_kw,q_kvar,v_min_pu,v_max_pu,is_source\n"
LINES = "line,from_bus,to_bus,r_ohm,x_ohm,b_us,rate_kva,rate_a\n"


def tables(folder, nodes, lines):
    (folder / "nodes.csv").write_text(nodes)
    (folder / "lines.csv").write_text(lines)
    return folder


def two_buses(folder, line="L,S,A,0.4,0.8,50,,\n"):
    return tables(folder, NODES + "S,20,,,,,1\nA,20,100,60,0.95,,\n", LINES + line)


def assert_same(network: BalancedNetwork, other: BalancedNetwork):
    """All but the names of network and elements, and the unit of limits that are none."""
    limited = np.isfinite(network.rating_from_pu) | np.isfinite(network.rating_to_pu)
    assert (len(network.law), len(other.law)) == (0, 0)
    for field in fields(BalancedNetwork):
        one, two = getattr(network, field.name), getattr(other, field.name)
        if field.name in ("name", "law") or field.name.startswith("element"):
            continue
        if field.name == "rating_is_current":
            one, two = one[limited], two[limited]
        if one.dtype.kind == "U":
            assert one.tolist() == two.tolist(), field.name
        else:
            np.testing.assert_allclose(two, one, rtol=1e-12, atol=0, err_msg=field.name)
    np.testing.assert_allclose(other.element_loads(), network.element_loads(), rtol=1e-12, atol=1e-12)


def test_ohm_and_microsiemens_become_per_unit_of_the_buses_base(tmp_path):
    network = read_tables(two_buses(tmp_path))
    # 20 kV and 100 kVA: 4000 ohm
    np.testing.assert_allclose(network.series_pu, [(0.4 + 0.8j) / 4000], rtol=1e-15)
    np.testing.assert_allclose(network.shunt_from_pu, [25e-6 * 4000j], rtol=1e-15)
    np.testing.assert_allclose(network.shunt_to_pu, [25e-6 * 4000j], rtol=1e-15)


def test_blank_cells_take_the_callers_voltages_and_filled_ones_do_not(tmp_path):
    network = read_tables(two_buses(tmp_path), v_min_pu=0.97, v_max_pu=1.03, source_v_pu=1.02)
    assert network.v_min_pu.tolist() == [0.97, 0.95]
    assert network.v_max_pu.tolist() == [1.03, 1.03]
    assert network.source_v_pu.tolist() == [1.02]


def test_without_a_caller_the_band_is_ten_percent_and_the_source_at_one(tmp_path):
    network = read_tables(two_buses(tmp_path))
    assert (network.v_min_pu[0], network.v_max_pu[0], network.source_v_pu[0]) == (0.9, 1.1, 1.0)


def test_each_loaded_bus_has_one_element_named_after_it(tmp_path):
    network = read_tables(two_buses(tmp_path))
    assert network.element.tolist() == ["load A"]
    assert (network.element_p_kw[0], network.element_q_kvar[0], network.element_load[0]) == (100, 60, 1)


@pytest.mark.parametrize(
    ("line", "at_from", "at_to", "is_current"),
    [
        ("L,S,A,0.4,0.8,,,", np.inf, np.inf, True),
        ("L,S,A,0.4,0.8,,250,", 2.5, 2.5, False),
        ("L,S,A,0.4,0.8,,,17.320508075688775", 6.0, 6.0, True),  # sqrt(3) x 20 kV x 17.32 A = 600 kVA
    ],
)
def test_a_rating_limits_power_or_current_or_nothing(tmp_path, line, at_from, at_to, is_current):
    network = read_tables(two_buses(tmp_path, line + "\n"))
    np.testing.assert_allclose([network.rating_from_pu[0], network.rating_to_pu[0]], [at_from, at_to], rtol=1e-12)
    assert network.rating_is_current[0] == is_current


def transformer(folder, columns, cells):
    nodes = NODES + "HV,20,,,,,1\nLV,0.4,,,,,\n"
    return tables(folder, nodes, f"line,from_bus,to_bus,r_ohm,x_ohm,kind,{columns}\nT,HV,LV,0.004,0.016,{cells}\n")


def test_a_transformer_has_its_ohms_at_the_to_bus_and_its_amperes_at_the_from_bus(tmp_path):
    network = read_tables(transformer(tmp_path, "rate_a,tap_ratio,shift_degree", "transformer,11.547005,1.05,30"))
    # 0.4 kV and 100 kVA: 1.6 ohm; sqrt(3) x 20 kV x 11.547 A = 400 kVA
    np.testing.assert_allclose(network.series_pu, [0.0025 + 0.01j], rtol=1e-12)
    np.testing.assert_allclose(network.tap, [1.05 * np.exp(1j * np.pi / 6)], rtol=1e-12)
    np.testing.assert_allclose([network.rating_from_pu, network.rating_to_pu], [[4.0], [4.0]], rtol=1e-6)


def test_ends_may_have_shunts_and_limits_of_their_own(tmp_path):
    folder = transformer(tmp_path, "g_from_us,b_from_us,b_to_us,rate_to_a", "transformer,10,-20,5,144.3375673")
    network = read_tables(folder)
    np.testing.assert_allclose(network.shunt_from_pu, [(10 - 20j) * 1e-6 * 1.6], rtol=1e-12)
    np.testing.assert_allclose(network.shunt_to_pu, [5j * 1e-6 * 1.6], rtol=1e-12)
    # sqrt(3) x 0.4 kV x 144.34 A = 100 kVA
    np.testing.assert_allclose([network.rating_from_pu, network.rating_to_pu], [[np.inf], [1.0]], rtol=1e-9)


def test_a_shunt_at_a_bus_is_at_the_buses_base(tmp_path):
    nodes = "bus,base_kv,is_source,g_us,b_us,source_v_pu,source_angle_degree\nS,20,1,,,1.01,30\nA,20,,2,-3,,\n"
    network = read_tables(tables(tmp_path, nodes, LINES + "L,S,A,0.4,0.8,,,\n"))
    np.testing.assert_allclose(network.node_shunt_pu, [0, (2 - 3j) * 1e-6 * 4000], rtol=1e-12)
    np.testing.assert_allclose(network.source_v_pu, [1.01 * np.exp(1j * np.pi / 6)], rtol=1e-12)


def test_an_alias_names_a_bus_and_may_stand_in_lines(tmp_path):
    two_buses(tmp_path, "L,S,B,0.4,0.8,50,,\n")
    (tmp_path / "aliases.csv").write_text("alias,bus\nB,A\n")
    network = read_tables(tmp_path)
    assert network.node("B") == network.node("A") == network.to_node[0]


@pytest.mark.parametrize(
    ("name", "options"),
    [("case33bw", {}), ("create_cigre_network_mv", {"with_der": "pv_wind"}), ("create_cigre_network_lv", {})],
)
def test_networks_of_pandapower_survive_the_round_trip(tmp_path, name, options):
    network = from_pandapower(getattr(pandapower.networks, name)(**options))
    write_tables(network, tmp_path)
    assert_same(network, read_tables(tmp_path))


def test_every_field_of_a_network_survives_the_round_trip(tmp_path):
    network = read_tables(transformer(tmp_path, "rate_a", "transformer,20"))
    network = replace(
        network,
        bus=np.array(['high "voltage"', "low, voltage"]),
        source_v_pu=np.array([1.02 * np.exp(0.3j)]),
        tap=np.array([0.975 * np.exp(-2.6j)]),
        shunt_from_pu=np.array([1e-3 - 2e-3j]),
        shunt_to_pu=np.array([3e-4 + 0j]),
        rating_from_pu=np.array([np.inf]),
        rating_to_pu=np.array([1 / 3]),
        rating_is_current=np.array([False]),
        node_shunt_pu=np.array([0.1j, 1 / 7]),
        alias_bus=np.array(["main"]),
        alias_node=np.array([1]),
    )
    write_tables(network, tmp_path / "out")
    assert_same(network, read_tables(tmp_path / "out"))


def test_a_plain_feeder_is_written_with_the_plain_columns_only(tmp_path):
    write_tables(read_tables(two_buses(tmp_path)), tmp_path / "out")
    assert (tmp_path / "out" / "lines.csv").read_text().startswith(LINES + "L,S,A,0.4,0.8,")
    header = NODES.strip() + ",source_v_pu\n"
    assert (tmp_path / "out" / "nodes.csv").read_text().startswith(header)
    assert not (tmp_path / "out" / "aliases.csv").exists()


def test_a_network_of_single_phases_is_not_written(tmp_path):
    with pytest.raises(InputError, match="network, phase = '1': tables hold balanced networks only"):
        write_tables(unbalanced(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_all_problems_of_both_tables_come_at_once_and_none_twice(tmp_path):
    nodes = NODES + "S,20,,,,,1\nA,20,nan,,,,\nB,-20,,,,,\nC,20,,,1.2,1.1,\n"
    lines = LINES + "L1,S,A,0.4,0.8,,,\nL2,A,Z,0.4,0.8,,,\nL3,B,C,0,0,,100,5\nL4,C,C,x,1,,,\n"
    with pytest.raises(InputError) as caught:
        read_tables(tables(tmp_path, nodes, lines))
    assert [(problem.element, problem.field) for problem in caught.value.problems] == [
        ("nodes.csv line 3", "p_kw"),
        ("lines.csv line 5", "r_ohm"),
        ("line L2", "to_bus"),
        ("line L3", "rate_kva, rate_a"),
        ("bus B", "base_kv"),
        ("bus C", "v_min_pu, v_max_pu"),
        ("line L3", "r_ohm, x_ohm"),
    ]


@pytest.mark.parametrize(
    ("columns", "cells", "field"),
    [
        ("b_us,g_to_us", "transformer,5,1", "b_us, g_to_us"),
        ("rate_a,rate_to_a", "transformer,5,1", "rate_a, rate_to_a"),
        ("rate_kva,rate_from_kva", "transformer,5,1", "rate_kva, rate_from_kva"),
        ("rate_from_kva,rate_to_a", "transformer,5,1", "rate_from_kva, rate_to_a"),
        ("tap_ratio", "transformer,0", "tap_ratio"),
        ("tap_ratio", "regulator,1", "kind"),
        ("tap_ratio", ",1", "base_kv of its buses"),
    ],
)
def test_contradicting_columns_are_a_problem(tmp_path, columns, cells, field):
    with pytest.raises(InputError) as caught:
        read_tables(transformer(tmp_path, columns, cells))
    assert [(problem.element, problem.field) for problem in caught.value.problems] == [("line T", field)]


def test_a_pandapower_file_is_read_from_the_case_folder(tmp_path):
    pandapower.to_json(pandapower.networks.case33bw(), str(tmp_path / "net.json"))
    assert_same(
        from_pandapower(pandapower.networks.case33bw(), v_min_pu=0.95),
        read_network("pandapower:net.json", tmp_path, v_min_pu=0.95),
    )


def test_tables_may_lie_in_a_folder_below_the_case(tmp_path):
    (tmp_path / "feeder").mkdir()
    two_buses(tmp_path / "feeder")
    assert read_network("tables:feeder", tmp_path).name == "feeder"


def test_a_net_without_a_name_is_called_after_its_function(tmp_path):
    assert read_network("pandapower:create_cigre_network_mv", tmp_path).name == "create_cigre_network_mv"
