"""Case folders: what each file does to the case, and the way there and back."""

from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime

import numpy as np
import pytest
from broken_cases import (
    BLOCKS,
    REACTIVE,
    SERVICES,
    STORE_PROFILE,
    STORES,
    TOML,
    also,
    append,
    change,
    penalties,
    remove,
    source,
    write,
    write_good_case,
)
from scipy import sparse
from storecases import STORE_CASES
from unbalanced import unbalanced

from dlmp import clear
from dlmp.bids import Bids, Resources
from dlmp.casefolder import read_case
from dlmp.casefolder.rows import Places
from dlmp.casefolder.services import read_requirements
from dlmp.casewriter import write_case
from dlmp.errors import InputError, Problems
from dlmp.market import Horizon, MarketCase, Substation, simple_case
from dlmp.network import Network, read_network
from dlmp.network.simbench import from_simbench, simbench_profiles
from dlmp.penalties import Penalties, Tier

SIMBENCH = "1-LV-rural1--0-sw"


@pytest.fixture
def folder(tmp_path):
    return write_good_case(tmp_path / "case")


def assert_same_arrays(one, two, but=()):
    for field in fields(one):
        left, right = getattr(one, field.name), getattr(two, field.name)
        if field.name in but:
            continue
        if is_dataclass(left):
            assert_same_arrays(left, right)
        elif sparse.issparse(left):
            np.testing.assert_allclose(right.todense(), left.todense(), rtol=1e-12, atol=0, err_msg=field.name)
        elif isinstance(left, np.ndarray) and left.dtype.kind in "fc":
            np.testing.assert_allclose(right, left, rtol=1e-12, atol=0, err_msg=field.name)
        else:
            np.testing.assert_array_equal(right, left, err_msg=field.name)


def assert_same_case(one: MarketCase, two: MarketCase):
    assert (two.name, two.horizon) == (one.name, one.horizon)
    elements = [field.name for field in fields(Network) if field.name.startswith("element")]
    assert_same_arrays(one.network, two.network, but=("name", *elements))
    assert_same_arrays(one.substation, two.substation)
    assert_same_arrays(one.resources, two.resources)
    assert_same_arrays(one.bids, two.bids)
    assert_same_arrays(one.reactive_bids, two.reactive_bids)
    assert_same_arrays(one.stores, two.stores)
    assert one.penalties == two.penalties
    assert_same_arrays(one.blocks, two.blocks)
    assert_same_arrays(one.service_offers, two.service_offers)
    assert_same_arrays(one.requirements, two.requirements)
    np.testing.assert_array_equal(two.load_p_kw, one.load_p_kw)
    np.testing.assert_array_equal(two.load_q_kvar, one.load_q_kvar)


def test_case_toml_gives_name_horizon_and_limits_of_import(folder):
    case = read_case(folder)
    assert case.name == "four buses"
    assert case.horizon == Horizon(datetime(2026, 7, 1, 7, tzinfo=UTC), 60, 3, "America/Los_Angeles", "USD")
    assert (case.substation.p_min_kw.tolist(), case.substation.p_max_kw.tolist()) == ([-500] * 3, [5000] * 3)
    assert (case.substation.q_min_kvar.tolist(), case.substation.q_max_kvar.tolist()) == ([-np.inf] * 3, [np.inf] * 3)
    assert case.substation.price_usd_per_mwh.tolist() == [20, 50, -5]
    assert case.substation.q_price_usd_per_mvarh.tolist() == [1, 2, 0]


def test_penalties_are_built_in_unless_their_kind_has_rows(folder):
    assert read_case(folder).penalties == Penalties()
    penalties("thermal,0.2,900\nthermal,0,500\nimport,0,")(folder)
    expected = Penalties(thermal=(Tier(0.0, 500.0), Tier(0.2, 900.0)), substation=())
    assert read_case(folder).penalties == expected


def test_penalties_are_written_where_they_are_not_the_built_in_ones(folder, tmp_path):
    case = read_case(folder)
    case.write(tmp_path / "plain")
    assert not (tmp_path / "plain" / "penalties.csv").exists()
    given = Penalties(voltage=(Tier(0.0, 1e4 / 3), Tier(0.01, 1e6)), unbalance=())
    replace(case, penalties=given).write(tmp_path / "own")
    assert read_case(tmp_path / "own").penalties == given


def test_limits_of_import_by_interval_take_the_place_of_those_of_all(folder):
    prices = "interval,price_usd_per_mwh,p_min_kw,p_max_kw,q_max_kvar\n0,20,,,90\n1,50,0,0,\n2,-5,-20,,\n"
    write("import_prices.csv", prices)(folder)
    substation = read_case(folder).substation
    assert substation.p_min_kw.tolist() == [-500, 0, -20]
    assert substation.p_max_kw.tolist() == [5000, 0, 5000]
    assert substation.q_max_kvar.tolist() == [90, np.inf, np.inf]


def test_a_share_of_the_fixed_load_limits_import_and_export_where_it_is_tighter(folder):
    """The load is 310 kW, times 1, 1.5 and 0.5."""
    change(TOML, "p_max_kw = 5000.0", "p_max_kw = 200\np_max_share = 0.5\np_min_share = -0.1")(folder)
    substation = read_case(folder).substation
    np.testing.assert_allclose(substation.p_max_kw, [155, 200, 77.5])
    np.testing.assert_allclose(substation.p_min_kw, [-31, -46.5, -15.5])


def test_a_share_of_the_load_counts_no_fixed_generation(folder):
    change(TOML, "p_max_kw = 5000.0", "p_max_share = 0.5")(folder)
    change("nodes.csv", "B,12.66,90", "B,12.66,-90")(folder)
    np.testing.assert_allclose(read_case(folder).substation.p_max_kw, [110, 165, 55])


def test_zone_and_currency_default_to_utc_and_dollars_and_the_start_may_be_text(folder):
    change(TOML, 'timezone = "America/Los_Angeles"\ncurrency = "USD"\n', "")(folder)
    change(TOML, "2026-07-01T07:00:00Z", '"2026-07-01T07:00:00+00:00"')(folder)
    assert read_case(folder).horizon == Horizon(datetime(2026, 7, 1, 7, tzinfo=UTC), 60, 3)


def test_the_scale_multiplies_the_loads_of_each_interval(folder):
    case = read_case(folder)
    assert case.load_p_kw.tolist() == [[0, 100, 90, 120], [0, 150, 135, 180], [0, 50, 45, 60]]
    assert case.load_q_kvar.tolist() == [[0, 60, 40, 80], [0, 90, 60, 120], [0, 30, 20, 40]]


def test_the_scale_leaves_fixed_generation_alone(folder):
    source('"pandapower:create_cigre_network_mv"\noptions = {with_der = "pv_wind"}')(folder)
    remove("limits.csv", "resources.csv", "availability.csv", "bids.csv")(folder)
    case = read_case(folder)
    network = read_network("pandapower:create_cigre_network_mv", folder, options={"with_der": "pv_wind"})
    is_load = network.element_kind == "load"
    expected = 1.5 * network.element_p_kw[is_load].sum() + network.element_p_kw[~is_load].sum()
    assert network.element_p_kw[~is_load].sum() < 0
    assert case.load_p_kw[1].sum() == pytest.approx(expected, rel=1e-12)


def test_a_load_by_bus_replaces_that_of_the_bus_in_its_interval_only(folder):
    write("load_profile.csv", "interval,bus,p_kw,q_kvar\n1,B,7,-3\n2,S,1,0\n")(folder)
    case = read_case(folder)
    assert case.load_p_kw.tolist() == [[0, 100, 90, 120], [0, 100, 7, 120], [1, 100, 90, 120]]
    assert case.load_q_kvar[:, 2].tolist() == [40, -3, 40]


def test_without_a_profile_the_load_is_the_network_s_in_every_interval(folder):
    remove("load_profile.csv")(folder)
    assert read_case(folder).load_p_kw.tolist() == [[0, 100, 90, 120]] * 3


def test_resources_stand_at_their_bus_with_blank_cells_as_defaults(folder):
    resources = read_case(folder).resources
    assert resources.name.tolist() == ["pv", "flex"]
    assert resources.first_port.tolist() == [3, 2]
    assert resources.p_min_kw.tolist() == [0, -30]
    assert resources.q_min_kvar.tolist() == [-40, 0]
    assert resources.s_max_kva.tolist() == [90, np.inf]


def test_a_resource_is_paid_under_its_own_name_unless_a_participant_is_named(folder):
    assert read_case(folder).resources.participant.tolist() == ["pv", "flex"]
    change("resources.csv", "s_max_kva\n", "s_max_kva,participant\n")(folder)
    change("resources.csv", "40,90\n", "40,90,sun & co\n")(folder)
    change("resources.csv", "-30,0,,,\n", "-30,0,,,,\n")(folder)
    case = read_case(folder)
    assert case.resources.participant.tolist() == ["sun & co", "flex"]
    case.write(folder.parent / "out")
    assert read_case(folder.parent / "out").resources.participant.tolist() == ["sun & co", "flex"]


def test_availability_caps_but_does_not_raise_the_upper_end(folder):
    assert read_case(folder).resources.p_max_kw.tolist() == [[10, 0], [80, 0], [40, 0]]


def test_a_blank_interval_is_all_and_a_missing_one_is_no_offer(folder):
    bids = read_case(folder).bids
    assert bids.resource.tolist() == [0, 1, 1]
    assert bids.is_supply.tolist() == [True, False, False]
    assert bids.segment.tolist() == [0, 0, 1]
    assert bids.quantity_kw.tolist() == [[80, 20, 10], [80, 0, 10], [80, 20, 10]]
    assert bids.price_usd_per_mwh.tolist() == [[0, 60, 30], [0, 0, 30], [0, 70, 30]]


def test_limits_take_the_place_of_the_source_s(folder):
    network = read_case(folder).network
    assert network.rating_from_pu.tolist() == [np.inf, 5, 4]
    assert network.rating_is_current.tolist() == [True, False, False]
    assert network.v_min_pu.tolist() == [0.95, 0.96, 0.92, 0.95]
    assert network.v_max_pu.tolist() == [1.05, 1.05, 1.08, 1.05]


def test_a_limit_in_amperes_is_of_current(folder):
    write("limits.csv", "element,rate_a\nAB,45.60428\n")(folder)  # sqrt(3) x 12.66 kV x 45.6 A = 1000 kVA
    network = read_case(folder).network
    assert network.rating_from_pu[1] == network.rating_to_pu[1] == pytest.approx(10, rel=1e-6)
    assert network.rating_is_current[1]


def test_a_feeder_where_nobody_bids_needs_no_tables_of_bids(folder):
    remove("resources.csv", "availability.csv", "bids.csv", "limits.csv", "load_profile.csv")(folder)
    case = read_case(folder)
    assert len(case.resources) == len(case.bids) == 0
    assert case.resources.p_max_kw.shape == (3, 0)


def test_a_store_has_blank_cells_as_defaults_and_what_the_profile_says_in_its_intervals(folder):
    STORES(folder)
    write("store_profile.csv", "resource,interval,energy_min_kwh,drain_kw\ncar,1,,4\ncar,2,30,\n")(folder)
    case = read_case(folder)
    stores = case.stores
    assert case.resources.name[stores.resource].tolist() == ["battery", "car"]
    assert stores.charge_max_kw.tolist() == [[50, 20]] * 3
    assert stores.discharge_max_kw.tolist() == [[40, 0]] * 3
    assert stores.energy_min_kwh.tolist() == [[10, 0], [10, 0], [10, 30]]
    assert stores.energy_max_kwh.tolist() == [[100, 60]] * 3
    assert stores.drain_kw.tolist() == [[0.5, 0], [0.5, 4], [0.5, 0]]
    assert stores.initial_kwh.tolist() == [20, 0]
    assert stores.charge_efficiency.tolist() == [0.95, 1]
    assert stores.discharge_efficiency.tolist() == [0.94, 1]
    assert stores.retention.tolist() == [0.999, 1]
    assert stores.cycling_usd_per_mwh.tolist() == [5, 0]
    assert stores.shortfall_usd_per_mwh.tolist() == [300, np.inf]
    assert stores.final_usd_per_mwh.tolist() == [25, 0]


def test_every_column_of_the_profile_takes_the_place_of_the_store_s(folder):
    also(STORES, STORE_PROFILE)(folder)
    stores = read_case(folder).stores
    assert stores.charge_max_kw[:, 1].tolist() == [20, 15, 0]
    assert stores.discharge_max_kw[:, 1].tolist() == [0, 3, 0]
    assert stores.energy_min_kwh[:, 1].tolist() == [0, 12, 0]
    assert stores.energy_max_kwh[:, 1].tolist() == [60, 55, 60]
    assert stores.drain_kw[:, 1].tolist() == [0, 1, 2]
    assert (stores.charge_max_kw[:, 0] == 50).all()


def test_a_block_has_blank_cells_as_defaults(folder):
    BLOCKS(folder)
    case = read_case(folder)
    blocks = case.blocks
    assert blocks.name.tolist() == ["run", "heat"]
    assert case.resources.name[blocks.resource].tolist() == ["flex", "flex"]
    assert blocks.is_supply.tolist() == [False, False]
    assert (blocks.first.tolist(), blocks.last.tolist()) == ([1, 0], [2, 2])
    assert (blocks.quantity_kw.tolist(), blocks.price_usd_per_mwh.tolist()) == ([20, 10], [45, 40])
    assert (blocks.least_share.tolist(), blocks.group.tolist()) == ([1, 0.5], ["", "either"])


def test_a_case_with_blocks_comes_back(folder, tmp_path):
    BLOCKS(folder)
    case = read_case(folder)
    case.write(tmp_path / "out")
    assert_same_case(case, read_case(tmp_path / "out"))


def test_services_have_blank_cells_as_defaults_and_none_where_there_is_no_row(folder):
    SERVICES(folder)
    case = read_case(folder)
    offers, required = case.service_offers, case.requirements
    assert case.resources.name[offers.resource].tolist() == ["pv", "pv", "flex"]
    assert offers.service.tolist() == ["capacity_down", "var_up", "capacity_up"]
    assert offers.quantity_kw.tolist() == [[30, 20, 25], [30, 0, 25], [30, 10, 25]]
    assert offers.price_usd_per_mw_h.tolist() == [[2, 1.5, 4], [2, 0, 4], [2, 1.25, 4]]
    assert offers.duration_hours.tolist() == [1, 2, 1]
    assert required.name.tolist() == ["reserve", "relief", "support"]
    assert required.service.tolist() == ["capacity_up", "capacity_down", "var_up"]
    assert required.place.tolist() == ["substation", "branch BC", "zone end"]
    assert required.counts.tolist() == [[1, 1, 1, 1], [0, 0, 0, 1], [0, 0, 1, 1]]
    assert required.quantity_kw.tolist() == [[5, 0, 7], [5, 8, 0], [5, 6, 0]]
    assert required.shortage_usd_per_mw_h.tolist() == [np.inf, 500, 80]


def test_a_case_with_services_comes_back(folder, tmp_path):
    SERVICES(folder)
    case = read_case(folder)
    case.write(tmp_path / "out")
    assert_same_case(case, read_case(tmp_path / "out"))
    for name in ("service_offers.csv", "requirements.csv"):
        written, given = ((place / name).read_text().splitlines() for place in (tmp_path / "out", folder))
        assert len(written) == len(given), "a row for what never changes, else one for each interval that has it"
    assert (tmp_path / "out" / "zones.csv").read_text() == "zone,bus\nend,B\nend,C\n"


def test_places_that_no_table_can_name_come_back_as_zones(folder, tmp_path):
    """Ports in any pattern, under a place that says something else, or the zone of another requirement."""
    SERVICES(folder)
    case = read_case(folder)
    place = np.array(["branch west", "zone relief", "zone relief"])
    counts = np.array([[0, 0, 1, 1], [0, 1, 1, 0], [0, 0, 0, 1]], bool)
    odd = replace(case, requirements=replace(case.requirements, place=place, counts=counts))
    odd.write(tmp_path / "out")
    back = read_case(tmp_path / "out")
    np.testing.assert_array_equal(back.requirements.counts, counts)
    assert back.requirements.place.tolist() == ["zone reserve", "zone relief", "zone relief of support"]


def test_a_requirement_may_stand_where_nobody_offers(folder):
    SERVICES(folder)
    remove("resources.csv", "availability.csv", "bids.csv", "service_offers.csv")(folder)
    change("requirements.csv", "reserve,capacity_up,substation,,,5,", "reserve,capacity_up,substation,,,5,90")(folder)
    case = read_case(folder)
    assert (len(case.service_offers), len(case.requirements)) == (0, 3)
    np.testing.assert_allclose(clear(case).services.shortage_kw, case.requirements.quantity_kw, atol=1e-6)


def test_a_zone_of_phases_has_all_ports_of_its_buses(tmp_path):
    network = unbalanced()
    bus = str(network.buses[-1])
    table = "name,service,place,element,quantity_kw,shortage_usd_per_mw_h\nr,var_up,zone,z,5,9\n"
    also(write("requirements.csv", table), write("zones.csv", f"zone,bus\nz,{bus}\n"))(tmp_path)
    problems = Problems()
    found = read_requirements(tmp_path, network, Places(network.bus_number, network.branch_number), 2, problems)
    assert problems.found == []
    np.testing.assert_array_equal(found.counts, [network.port_bus == bus])


def test_stores_need_no_bids(folder):
    STORES(folder)
    remove("bids.csv")(folder)
    case = read_case(folder)
    assert (len(case.bids), len(case.stores), len(case.resources)) == (0, 2, 4)


@pytest.fixture
def cigre(folder):
    """The case on CIGRE's MV network, whose generator "PV 4" of 20 kW at bus 4 has become a resource."""
    source('"pandapower:create_cigre_network_mv"\noptions = {with_der = "pv_wind"}')(folder)
    remove("limits.csv", "load_profile.csv", "availability.csv")(folder)
    write("resources.csv", "resource,bus,kind,p_max_kw\nPV 4,Bus 4,solar,100\n")(folder)
    write("bids.csv", "resource,interval,side,segment,quantity_kw,price_usd_per_mwh\nPV 4,,supply,0,20,0\n")(folder)
    return folder


def test_a_resource_takes_the_place_of_the_generator_of_its_name(cigre):
    case = read_case(cigre)
    own, _ = case.network.element_loads()
    difference = case.load_p_kw[0] - own
    node = case.network.node("Bus 4")
    assert difference[node] == pytest.approx(20.0)
    assert np.delete(difference, node) == pytest.approx(0.0)


def test_its_output_is_its_availability_unless_the_table_has_it(cigre):
    assert read_case(cigre).resources.p_max_kw.tolist() == [[20]] * 3
    write("availability.csv", "resource,interval,p_max_kw\nPV 4,1,50\n")(cigre)
    assert read_case(cigre).resources.p_max_kw.tolist() == [[100], [50], [100]]


def test_it_must_stand_where_the_generator_stands(cigre):
    change("resources.csv", "Bus 4", "Bus 5")(cigre)
    with pytest.raises(InputError) as caught:
        read_case(cigre)
    assert [(problem.element, problem.field) for problem in caught.value.problems] == [("resource PV 4", "bus")]


def test_simbench_profiles_are_the_load_and_the_availability_of_dispatched_generators(folder):
    source(f'"simbench:{SIMBENCH}"')(folder)
    change(TOML, "America/Los_Angeles", "Europe/Berlin")(folder)
    remove("limits.csv", "load_profile.csv", "availability.csv")(folder)
    network = from_simbench(SIMBENCH)
    solar = int(np.flatnonzero(network.element_kind == "generation")[0])
    name, bus = network.element[solar], network.bus[network.element_load[solar]]
    write("resources.csv", f"resource,bus,kind,p_max_kw\n{name},{bus},solar,1000\n")(folder)
    write("bids.csv", f"resource,interval,side,segment,quantity_kw,price_usd_per_mwh\n{name},,supply,0,9,0\n")(folder)
    case = read_case(folder)
    p_kw, _ = simbench_profiles(SIMBENCH, network, case.horizon)
    assert p_kw[2, solar] < 0
    np.testing.assert_allclose(case.resources.p_max_kw[:, 0], -p_kw[:, solar])
    np.testing.assert_allclose(case.load_p_kw.sum(axis=1), p_kw.sum(axis=1) - p_kw[:, solar])


def test_a_case_read_back_is_the_case_written(folder, tmp_path):
    case = read_case(folder)
    write_case(case, tmp_path / "out")
    assert_same_case(case, read_case(tmp_path / "out"))


@pytest.mark.parametrize("name", STORE_CASES)
def test_a_case_with_stores_comes_back(name, tmp_path):
    case = STORE_CASES[name]()
    case.write(tmp_path / "out")
    assert_same_case(case, read_case(tmp_path / "out"))


def test_stores_without_bids_and_those_of_odd_numbers_come_back(folder, tmp_path):
    also(STORES, STORE_PROFILE, remove("bids.csv"))(folder)
    case = read_case(folder)
    odd = replace(
        case.stores,
        drain_kw=np.array([[1 / 3, 0], [1 / 7, 1e-17], [1 / 3, 0]]),
        retention=np.array([1 / 3, 1]),
        final_usd_per_mwh=np.array([-1 / 3, 0]),
        shortfall_usd_per_mwh=np.array([np.inf, 1e9]),
        energy_min_kwh=np.zeros((3, 2)),
        resource=case.stores.resource[::-1],
        charge_max_kw=np.full((3, 2), 0.1 + 0.2),
        discharge_max_kw=np.zeros((3, 2)),
    )
    odd_case = replace(case, stores=odd)
    odd_case.write(tmp_path / "out")
    assert_same_case(odd_case, read_case(tmp_path / "out"))


def test_ramps_are_read_and_come_back(folder, tmp_path):
    write(
        "resources.csv",
        "resource,bus,kind,p_min_kw,p_max_kw,ramp_up_kw_per_min,ramp_down_kw_per_min,p_initial_kw\n"
        "pv,C,solar,,80,0.5,,\nflex,B,load,-30,0,,0.25,-7\n",
    )(folder)
    case = read_case(folder)
    np.testing.assert_array_equal(case.resources.ramp_up_kw_per_min, [0.5, np.inf])
    np.testing.assert_array_equal(case.resources.ramp_down_kw_per_min, [np.inf, 0.25])
    np.testing.assert_array_equal(case.resources.p_initial_kw, [np.nan, -7.0])
    case.write(tmp_path / "out")
    assert_same_case(case, read_case(tmp_path / "out"))


def test_reactive_bids_are_read_and_come_back(folder, tmp_path):
    REACTIVE(folder)
    case = read_case(folder)
    bids = case.reactive_bids
    assert case.resources.name[bids.resource].tolist() == ["pv"] * 3
    assert (bids.is_injection.tolist(), bids.segment.tolist()) == ([True, True, False], [0, 1, 0])
    np.testing.assert_array_equal(bids.quantity_kvar, [[20, 0, 15], [20, 10, 15], [20, 0, 15]])
    np.testing.assert_array_equal(bids.price_usd_per_mvarh[:, [0, 2]], [[2.5, -1]] * 3)
    assert bids.price_usd_per_mvarh[1, 1] == 4
    case.write(tmp_path / "out")
    assert (tmp_path / "out" / "reactive_bids.csv").read_text() == (
        "resource,interval,side,segment,quantity_kvar,price_usd_per_mvarh\n"
        "pv,,inject,0,20.0,2.5\npv,1,inject,1,10.0,4.0\npv,,absorb,0,15.0,-1.0\n"
    )
    assert_same_case(case, read_case(tmp_path / "out"))


def test_reactive_bids_may_stand_without_bids_of_real_power(folder):
    also(REACTIVE, remove("bids.csv", "availability.csv"))(folder)
    assert clear(read_case(folder)).awards.segment_kvar.shape == (3, 3)


def test_self_schedules_and_power_factors_are_read_and_come_back(folder, tmp_path):
    header = "resource,interval,side,segment,quantity_kw,price_usd_per_mwh,is_self_scheduled\n"
    rows = "pv,0,supply,0,10,,1\npv,1,supply,0,60,,1\npv,2,supply,0,5,4,0\npv,,supply,1,20,9,\nflex,,demand,0,20,,1\n"
    write("bids.csv", header + rows)(folder)
    write(
        "resources.csv",
        "resource,bus,kind,p_min_kw,p_max_kw,power_factor_min\npv,C,solar,,80,0.9\nflex,B,load,-30,0,\n",
    )(folder)
    case = read_case(folder)
    np.testing.assert_array_equal(case.resources.power_factor_min, [0.9, 0.0])
    np.testing.assert_array_equal(case.bids.is_self_scheduled, [[1, 0, 1], [1, 0, 1], [0, 0, 1]])
    np.testing.assert_array_equal(case.bids.price_usd_per_mwh, [[0, 9, 0], [0, 9, 0], [4, 9, 0]])
    case.write(tmp_path / "out")
    assert_same_case(case, read_case(tmp_path / "out"))


def test_prices_that_run_along_a_segment_are_read_and_come_back(folder, tmp_path):
    header = "resource,interval,side,segment,quantity_kw,price_usd_per_mwh,price_end_usd_per_mwh\n"
    write(
        "bids.csv",
        header + "pv,0,supply,0,10,2,5\npv,1,supply,0,60,2,\npv,,supply,1,20,9,11\nflex,,demand,0,20,7,0.1\n",
    )(folder)
    also(REACTIVE, change("reactive_bids.csv", "price_usd_per_mvarh", "price_usd_per_mvarh,price_end_usd_per_mvarh"))(
        folder
    )
    change("reactive_bids.csv", "20,2.5", "20,2.5,3.5")(folder)
    case = read_case(folder)
    np.testing.assert_array_equal(case.bids.price_usd_per_mwh, [[2, 9, 7], [2, 9, 7], [0, 9, 7]])
    np.testing.assert_allclose(case.bids.price_rise_usd_per_mwh, [[3, 2, -6.9], [0, 2, -6.9], [0, 2, -6.9]])
    np.testing.assert_array_equal(case.reactive_bids.price_rise_usd_per_mvarh, [[1, 0, 0]] * 3)
    case.write(tmp_path / "out")
    assert_same_case(case, read_case(tmp_path / "out"))


def test_the_written_profile_has_only_what_differs(folder, tmp_path):
    also(STORES, STORE_PROFILE)(folder)
    read_case(folder).write(tmp_path / "out")
    assert (tmp_path / "out" / "store_profile.csv").read_text() == (
        "resource,interval,charge_max_kw,discharge_max_kw,energy_min_kwh,energy_max_kwh,drain_kw\n"
        "car,1,15.0,3.0,12.0,55.0,1.0\n"
        "car,2,0.0,,,,2.0\n"
    )
    write("store_profile.csv", "resource,interval,drain_kw\ncar,1,0.5\n")(folder)
    read_case(folder).write(tmp_path / "again")
    assert (tmp_path / "again" / "store_profile.csv").read_text() == "resource,interval,drain_kw\ncar,1,0.5\n"


def test_a_case_on_a_network_with_transformers_aliases_and_a_dispatched_generator_comes_back(cigre, tmp_path):
    case = read_case(cigre)
    write_case(case, tmp_path / "out")
    assert_same_case(case, read_case(tmp_path / "out"))


def test_odd_numbers_and_names_come_back(folder, tmp_path):
    case = read_case(folder)
    resources = Resources(
        name=np.array(['a "b", c', "ünd"]),
        kind=case.resources.kind,
        share=case.resources.share,
        p_min_kw=case.resources.p_min_kw,
        p_max_kw=np.array([[1 / 3, 0], [0.1 + 0.2, 0], [1e-17, 0]]),
        q_min_kvar=case.resources.q_min_kvar,
        q_max_kvar=case.resources.q_max_kvar,
        s_max_kva=case.resources.s_max_kva,
    )
    bids = Bids(
        resource=np.array([1, 0, 1]),
        is_supply=np.array([False, True, False]),
        segment=np.array([3, 1, 7]),
        quantity_kw=np.array([[30, 0.1, 0], [30, 0, 0], [30, 1e9, 0]]),
        price_usd_per_mwh=np.array([[1 / 7, -300, 0], [2 / 7, 0, 0], [0.1, 1e-9, 0]]),
    )
    substation = Substation(np.array([1e9, -1 / 3, 0]), np.zeros(3), p_max_kw=1e16, q_min_kvar=-1e-5)
    odd = replace(case, name='odd \\ "name"\x7f ü', resources=resources, bids=bids, substation=substation)
    write_case(odd, tmp_path / "out")
    assert_same_case(odd, read_case(tmp_path / "out"))


def test_limits_of_import_by_interval_are_written_and_read_back(folder, tmp_path):
    case = read_case(folder)
    limits = {"p_min_kw": [-3, -np.inf, 0.1], "p_max_kw": [1 / 3, 0, 7], "q_max_kvar": [np.inf, 4, 4]}
    limited = replace(case, substation=replace(case.substation, **{name: np.array(x) for name, x in limits.items()}))
    write_case(limited, tmp_path / "out")
    assert_same_case(limited, read_case(tmp_path / "out"))


def test_a_bus_without_load_in_the_case_does_not_get_the_network_s_own_back(tmp_path):
    case = simple_case(read_network("pandapower:case33bw", tmp_path), [20.0, 30.0])
    empty = replace(case, load_p_kw=np.zeros_like(case.load_p_kw), load_q_kvar=np.zeros_like(case.load_q_kvar))
    write_case(empty, tmp_path / "out")
    assert_same_case(empty, read_case(tmp_path / "out"))
    assert not (tmp_path / "out" / "bids.csv").exists()


def test_the_written_folder_says_everything_in_plain_tables(folder, tmp_path):
    write_case(read_case(folder), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "availability.csv", "bids.csv", "case.toml", "import_prices.csv", "lines.csv", "load_profile.csv", "nodes.csv",
        "resources.csv",
    ]  # fmt: skip
    assert (tmp_path / "out" / "bids.csv").read_text() == (
        "resource,interval,side,segment,quantity_kw,price_usd_per_mwh\n"
        "pv,,supply,0,80.0,0.0\n"
        "flex,0,demand,0,20.0,60.0\n"
        "flex,2,demand,0,20.0,70.0\n"
        "flex,,demand,1,10.0,30.0\n"
    )


def test_a_folder_that_holds_something_is_not_written_over(folder):
    case = read_case(folder)
    before = {path.name: path.read_text() for path in folder.iterdir()}
    with pytest.raises(InputError, match="exists already"):
        write_case(case, folder)
    assert {path.name: path.read_text() for path in folder.iterdir()} == before


def test_an_empty_folder_is_filled(folder, tmp_path):
    (tmp_path / "out").mkdir()
    write_case(read_case(folder), tmp_path / "out")
    assert read_case(tmp_path / "out").name == "four buses"


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    with pytest.raises(InputError, match="phase"):
        write_case(simple_case(unbalanced(), 20.0), tmp_path / "below" / "out")
    assert list((tmp_path / "below").iterdir()) == []


def test_two_columns_of_one_segment_cannot_be_written(folder, tmp_path):
    append("bids.csv", "flex,1,demand,2,5,20")(folder)
    case = read_case(folder)
    twice = replace(case, bids=replace(case.bids, segment=np.array([0, 0, 1, 1])))
    with pytest.raises(InputError, match="demand segment"):
        write_case(twice, tmp_path / "out")
