"""pandapower nets in, and out again: pandapower's own power flow is the judge."""

import copy
import re

import numpy as np
import pandapower as pp
import pandapower.networks
import pandapower.toolbox
import pytest
from real_feeders import OLD_SAMPLE, oberrhein

from dlmp.errors import InputError
from dlmp.formulation.ac_tangent import AcTangent
from dlmp.network import read_network
from dlmp.network.model import Network
from dlmp.network.pandapower import from_pandapower, to_pandapower
from dlmp.powerflow import PowerFlow
from dlmp.units import BASE_KVA, KW_PER_MW


def solved(net: pp.pandapowerNet, start: np.ndarray | None = None) -> pp.pandapowerNet:
    """Solve `net`, from the voltages `start` [pu] where phase shifts are hidden in impedances."""
    begin = (
        {"init": "dc"} if start is None else {"init_vm_pu": np.abs(start), "init_va_degree": np.angle(start, deg=True)}
    )
    pp.runpp(net, numba=False, calculate_voltage_angles=True, tolerance_mva=1e-9, max_iteration=30, **begin)
    return net


def everything() -> pp.pandapowerNet:
    """A 110/20/0.4 kV net with every element that is supported, in and out of service.

    Two 20 kV busbars are joined by a switch; the ring of the lines a, b and c is open at the south end of c,
    and line d is open at its north end.
    """
    net = pp.create_empty_network(name="everything", sn_mva=5.0)
    names = (("hv", 110), ("mv", 20), ("mv2", 20), ("north", 20), ("south", 20), ("lv", 0.4))
    hv, mv, mv2, north, south, lv = (pp.create_bus(net, kv, name) for name, kv in names)
    pp.create_ext_grid(net, hv, vm_pu=1.02, va_degree=30.0)
    pp.create_switch(net, mv, mv2, et="b", closed=True)
    pp.create_transformer_from_parameters(
        net, hv, mv, sn_mva=25, vn_hv_kv=112, vn_lv_kv=20.5, vkr_percent=0.5, vk_percent=11, pfe_kw=14, i0_percent=0.07,
        shift_degree=150, tap_side="hv", tap_neutral=0, tap_min=-9, tap_max=9, tap_pos=-3, tap_step_percent=1.5,
        tap_changer_type="Ratio", name="grid transformer",
    )  # fmt: skip
    pp.create_transformer_from_parameters(
        net, north, lv, sn_mva=0.4, vn_hv_kv=20, vn_lv_kv=0.41, vkr_percent=1.4, vk_percent=6, pfe_kw=1.35,
        i0_percent=0.3, shift_degree=0, parallel=2, df=0.9, max_loading_percent=80, name="village transformer",
    )  # fmt: skip
    for name, start, end, km, extra in (
        ("a", mv2, north, 6.0, {"parallel": 2, "df": 0.8, "max_loading_percent": 70}),
        ("b", mv, south, 4.0, {}),
        ("c", north, south, 8.0, {}),
        ("d", north, south, 5.0, {}),
    ):
        pp.create_line_from_parameters(
            net, start, end, km, r_ohm_per_km=0.16, x_ohm_per_km=0.12, c_nf_per_km=270, max_i_ka=0.3, name=name, **extra
        )
    pp.create_switch(net, south, 2, et="l", closed=False)
    pp.create_switch(net, north, 3, et="l", closed=False)
    dead = pp.create_bus(net, 20, "dead", in_service=False)
    pp.create_line_from_parameters(net, south, dead, 1, 0.1, 0.1, 0, 0.3, name="to dead", in_service=False)
    pp.create_shunt(net, south, q_mvar=-0.9, p_mw=0.01)
    pp.create_load(net, south, 4.0, 1.1, scaling=0.75, name="town")
    pp.create_load(net, lv, 0.5, 0.2, name="village")
    pp.create_load(net, lv, 9.0, 9.0, in_service=False, name="shut")
    pp.create_load(net, dead, 9.0, name="dead load")
    pp.create_sgen(net, north, 1.5, -0.3, name="wind")
    pp.create_storage(net, lv, 0.05, max_e_mwh=1, q_mvar=0.01, name="battery")
    return net


def case33bw_closed() -> pp.pandapowerNet:
    net = pandapower.networks.case33bw()
    net.line["in_service"] = True
    return net


def cigre_with_der() -> pp.pandapowerNet:
    return pandapower.networks.create_cigre_network_mv(with_der="pv_wind")


NETS = [pandapower.networks.case33bw, case33bw_closed, cigre_with_der, oberrhein, everything]


def injection_kva(network: Network) -> np.ndarray:
    p_kw, q_kvar = network.element_loads()
    return -(p_kw + 1j * q_kvar)


def voltages(net: pp.pandapowerNet, network: Network) -> tuple[np.ndarray, np.ndarray]:
    """Complex voltage [pu] of every energised bus of a solved `net`, and the network's node of each."""
    live = net.res_bus[net.res_bus.vm_pu.notna()]
    names = net.bus.name[live.index].astype(str)
    if not set(names) <= set(network.bus_number):
        names = live.index.astype(str)
    return (live.vm_pu * np.exp(1j * np.deg2rad(live.va_degree))).to_numpy(), np.array(
        [network.node(name) for name in names]
    )


@OLD_SAMPLE
@pytest.mark.parametrize("make", NETS)
def test_a_net_sent_out_again_has_the_voltages_and_import_of_the_original(make):
    net = solved(copy.deepcopy(make()))
    network = from_pandapower(net)
    out = to_pandapower(network)
    power = injection_kva(network) / KW_PER_MW
    out.sgen["p_mw"], out.sgen["q_mvar"] = power.real, power.imag
    solved(out, PowerFlow(network).no_load_pu)
    expected, node = voltages(net, network)
    found = (out.res_bus.vm_pu * np.exp(1j * np.deg2rad(out.res_bus.va_degree))).to_numpy()
    np.testing.assert_allclose(found[node], expected, rtol=0, atol=1e-9)
    assert np.unique(node).tolist() == list(range(network.node_count))
    assert out.res_ext_grid.p_mw.sum() == pytest.approx(net.res_ext_grid.p_mw.sum(), abs=1e-7)
    assert out.res_ext_grid.q_mvar.sum() == pytest.approx(net.res_ext_grid.q_mvar.sum(), abs=1e-7)


@OLD_SAMPLE
@pytest.mark.parametrize("make", [cigre_with_der, oberrhein, everything])
def test_loading_of_every_branch_is_pandapower_s_over_its_permitted_one(make):
    net = solved(copy.deepcopy(make()))
    network = from_pandapower(net)
    formulation = AcTangent(network)
    point = formulation.operate(injection_kva(network)[None] / BASE_KVA)
    limits = formulation.limits
    found = dict.fromkeys(network.branch.tolist(), 0.0)
    for limit in np.flatnonzero(limits.branch >= 0):
        name = str(limits.element[limit])
        found[name] = max(found[name], 100 * point.limit_value[0, limit] / limits.upper[limit])
    expected = {}
    for table, kind in (("line", "line"), ("trafo", "transformer")):
        frame, loading = net[table], net[f"res_{table}"].loading_percent
        is_named = frame.name.notna().all() and not frame.name.duplicated().any()
        permitted = frame.get("max_loading_percent", np.nan * loading).fillna(100.0)
        for index in frame.index:
            name = str(frame.name[index]) if is_named else f"{kind} {index}"
            if name in found:
                expected[name] = 100 * loading[index] / permitted[index]
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert max(found.values()) > 20


def test_fixed_injections_are_read_with_sign_scaling_and_service():
    network = from_pandapower(everything())
    assert network.element.tolist() == ["town", "village", "wind", "battery"]
    assert network.element_kind.tolist() == ["load", "load", "generation", "storage"]
    assert network.bus[network.element_load].tolist() == ["south", "lv", "north", "lv"]
    np.testing.assert_allclose(network.element_p_kw, [3000, 500, -1500, 50])
    np.testing.assert_allclose(network.element_q_kvar, [825, 200, 300, 10])


def test_busbars_joined_by_a_closed_switch_are_one_node_with_two_names():
    network = from_pandapower(everything())
    assert network.alias_bus.tolist() == ["mv2"]
    assert network.node("mv2") == network.node("mv")
    opened = everything()
    opened.switch.loc[0, "closed"] = False
    opened.switch.loc[[1, 2], "closed"] = True
    apart = from_pandapower(opened)
    assert len(apart.alias_bus) == 0
    assert apart.node("mv2") != apart.node("mv")


def test_a_line_open_at_one_end_is_no_branch_and_what_is_out_of_service_is_not_there():
    """The charging of c and d is in the voltages that are compared with pandapower's above."""
    network = from_pandapower(everything())
    assert sorted(network.branch.tolist()) == ["a", "b", "grid transformer", "village transformer"]
    assert network.bus.tolist() == ["hv", "mv", "north", "south", "lv"]
    assert "dead" not in network.bus_number
    assert network.is_radial
    y_series, y_half = 1 / (8.0 * (0.16 + 0.12j)), 0.5j * 2 * np.pi * 50 * 8.0 * 270e-9
    charging = (y_half + y_series * y_half / (y_series + y_half)) * 20.0**2 / 0.1
    assert network.node_shunt_pu[network.node("north")] == pytest.approx(charging, rel=1e-12)


def test_ratings_count_parallel_systems_derating_and_permitted_loading():
    """Line a: 0.3 kA x 2 x 0.8 x 70 % = 336 A; transformer: 2 x 0.4 MVA x 0.9 x 80 % = 576 kVA of rated voltage."""
    network = from_pandapower(everything())
    line, transformer = (list(network.branch).index(name) for name in ("a", "village transformer"))
    assert network.rating_is_current.all()
    assert network.rating_from_pu[line] * BASE_KVA / (3**0.5 * 20) == pytest.approx(336.0, rel=1e-12)
    assert network.rating_to_pu[line] == network.rating_from_pu[line]
    assert network.rating_from_pu[transformer] * BASE_KVA == pytest.approx(576.0, rel=1e-12)
    assert network.rating_to_pu[transformer] * BASE_KVA == pytest.approx(576.0 * 0.4 / 0.41, rel=1e-12)


def test_a_current_of_99999_ka_is_no_rating():
    network = from_pandapower(pandapower.networks.case33bw())
    assert np.isinf(network.rating_from_pu).all()
    assert np.isinf(network.rating_to_pu).all()


def test_the_voltage_band_is_the_net_s_own_unless_it_is_given():
    net = everything()
    net.bus["min_vm_pu"] = [0.9, 0.93, 0.95, 0.92, np.nan, 0.94, 0.9]
    net.bus["max_vm_pu"] = [1.1, 1.07, 1.06, 1.08, 1.05, np.nan, 1.1]
    network = from_pandapower(net)
    node = [network.node(name) for name in ("hv", "mv", "north", "south", "lv")]
    np.testing.assert_allclose(network.v_min_pu[node], [0.9, 0.95, 0.92, 0.9, 0.94])
    np.testing.assert_allclose(network.v_max_pu[node], [1.1, 1.06, 1.08, 1.05, 1.1])
    given = from_pandapower(net, v_min_pu=0.97, v_max_pu=1.01)
    assert (set(given.v_min_pu), set(given.v_max_pu)) == ({0.97}, {1.01})


def test_the_source_has_its_own_voltage_unless_it_is_given():
    own, given = from_pandapower(everything()), from_pandapower(everything(), source_v_pu=0.99)
    np.testing.assert_allclose(own.source_v_pu, [1.02 * np.exp(1j * np.pi / 6)])
    np.testing.assert_allclose(given.source_v_pu, [0.99 * np.exp(1j * np.pi / 6)])
    assert own.bus[own.source].tolist() == ["hv"]


def test_the_net_that_is_read_is_left_as_it_was():
    net = everything()
    before = copy.deepcopy(net)
    from_pandapower(net, v_min_pu=0.95, source_v_pu=1.0)
    assert pandapower.toolbox.nets_equal(net, before, check_only_results=False)
    assert "_in_service" not in net.load


def test_buses_without_a_name_of_their_own_are_called_by_their_index():
    net = everything()
    net.bus.loc[4, "name"] = "north"
    assert set(from_pandapower(net).bus_number) >= {"0", "1", "2", "3", "4", "5"}
    net.bus["name"] = None
    assert set(from_pandapower(net).bus_number) >= {"0", "1", "2", "3", "4", "5"}


def test_branches_without_a_name_of_their_own_are_called_by_their_index():
    net = everything()
    net.line["name"] = ["a", "a", "c", "d", "e"]
    assert set(from_pandapower(net).branch.tolist()) == {"line 0", "line 1", "grid transformer", "village transformer"}


def refused(net: pp.pandapowerNet) -> str:
    with pytest.raises(InputError) as caught:
        from_pandapower(net)
    return str(caught.value)


@pytest.mark.parametrize(
    ("table", "add"),
    [
        ("gen", lambda net: pp.create_gen(net, 3, 1.0)),
        ("ward", lambda net: pp.create_ward(net, 3, 1, 0, 0, 0)),
        ("xward", lambda net: pp.create_xward(net, 3, 1, 0, 0, 0, 0.1, 0.1, 1.0)),
        ("impedance", lambda net: pp.create_impedance(net, 3, 4, 0.1, 0.1, 1.0)),
        ("motor", lambda net: pp.create_motor(net, 3, 1.0, 0.9)),
        ("dcline", lambda net: pp.create_dcline(net, 3, 4, 1, 1, 0, 1, 1)),
        ("asymmetric_load", lambda net: pp.create_asymmetric_load(net, 3, 1.0)),
        ("asymmetric_sgen", lambda net: pp.create_asymmetric_sgen(net, 3, 1.0)),
        ("svc", lambda net: pp.create_svc(net, 3, 1, -10, 1.0, 90)),
        (
            "trafo3w",
            lambda net: pp.create_transformer3w_from_parameters(
                net, 0, 3, 5, 110, 20, 0.4, 40, 25, 15, 10, 10, 10, 0.3, 0.3, 0.3, 10, 0.1
            ),
        ),
    ],
)
def test_an_element_that_cannot_be_represented_is_refused_by_its_table(table, add):
    net = everything()
    add(net)
    assert f"pandapower table {table}, rows = 1: cannot be represented" in refused(net)
    if "in_service" in net[table]:
        net[table]["in_service"] = False
        from_pandapower(net)


def test_every_unsupported_element_is_named_at_once():
    net = everything()
    pp.create_gen(net, 3, 1.0)
    pp.create_ward(net, 3, 1, 0, 0, 0)
    net.ext_grid["in_service"] = False
    message = refused(net)
    for part in ("ext_grid = 'none in service'", "pandapower table gen", "pandapower table ward"):
        assert part in message


def test_a_load_that_depends_on_its_voltage_is_refused():
    net = everything()
    column = next(name for name in net.load.columns if re.match(r"const_z.*p", name))
    net.load.loc[1, column] = 30.0
    assert f"load 1, {column} = 30.0: only constant power loads (0) are modelled" in refused(net)


def test_every_bus_without_a_path_to_a_grid_is_named():
    net = everything()
    net.line.loc[1, "in_service"] = False
    message = refused(net)
    assert "1 problem" in message
    assert "bus south, island = 'south': has no path to a source" in message


def test_a_net_that_pandapower_cannot_solve_without_loads_is_refused_with_its_reason():
    net = everything()
    net.line.loc[0, ["r_ohm_per_km", "x_ohm_per_km"]] = 0.0
    assert "pandapower net everything, data = 'divide by zero encountered in divide'" in refused(net)


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::scipy.sparse.linalg.MatrixRankWarning")
def test_a_load_that_is_no_number_is_named():
    net = everything()
    net.load.loc[0, "p_mw"] = np.nan
    assert "town" in refused(net)


def test_a_closed_switch_with_an_impedance_is_a_branch_with_a_name():
    net = everything()
    for bus in (2, 3):
        pp.create_switch(net, bus, 4, et="b", closed=True, z_ohm=0.1)
    network = from_pandapower(net)
    assert network.branch_count == 6
    assert (network.branch != "").all()
    assert (network.branch_kind != "").all()


def test_a_line_and_a_transformer_may_share_a_name():
    net = everything()
    net.trafo.loc[1, "name"] = "a"
    assert from_pandapower(net).branch_count == 4


def test_places_of_buses_are_those_of_the_net_and_degrees_are_of_one_length():
    net = everything()
    net.bus["geo"] = [
        '{"type": "Point", "coordinates": [10.0, 59.0]}',
        '{"type": "Point", "coordinates": [10.5, 60.0]}',
        '{"type": "Point", "coordinates": [99.0, 99.0]}',  # fused with the bus before it, which gives its node the name
        '{"type": "Point", "coordinates": [11.0, 61.0]}',
        "nonsense",
        None,
        '{"type": "Point", "coordinates": [10.0, 60.0]}',  # out of service
    ]
    network = from_pandapower(net)
    place = dict(zip(network.bus.tolist(), network.xy.tolist(), strict=True))
    half = np.cos(np.deg2rad(60.0))
    np.testing.assert_allclose(place["hv"], (10.0 * half, 59.0), rtol=1e-12)
    np.testing.assert_allclose(place["mv"], (10.5 * half, 60.0), rtol=1e-12)
    np.testing.assert_allclose(place["north"], (11.0 * half, 61.0), rtol=1e-12)
    assert np.isnan([place["south"], place["lv"]]).all()


def test_a_net_without_coordinates_has_no_places():
    assert np.isnan(from_pandapower(everything()).xy).all()


def test_the_drawings_that_functions_of_pandapower_bring_are_no_maps():
    assert np.isfinite(from_pandapower(pandapower.networks.case33bw()).xy).all()
    assert np.isnan(read_network("pandapower:case33bw", ".").xy).all()
