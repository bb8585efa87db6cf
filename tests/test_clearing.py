"""The clearing against an independent AC optimal power flow, finite differences of its own cost, and common sense."""

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from acopf import AcOpf, solve_acopf
from cases import (
    CASES,
    banded,
    feeder33,
    feeder69,
    generators33,
    market,
    one_interval,
    rated,
    resource,
    without_finish,
)
from feeders import Branch, feeder
from scipy import sparse

from dlmp import Clearing, InfeasibleError, InputError, MarketCase, PowerFlowError, Settings, clear
from dlmp.bids import Bids, Resources
from dlmp.market import simple_case
from dlmp.network.model import FloatArray
from dlmp.prices import COMPONENTS

LIMITING = [name for name in CASES if name != "base_33"]
"""Cases in which somebody bids."""


@cache
def clearing(name: str) -> Clearing:
    return clear(CASES[name]())


@cache
def oracle(name: str) -> AcOpf:
    return solve_acopf(CASES[name]())


@pytest.fixture(params=CASES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def apart(found: FloatArray, expected: FloatArray) -> float:
    """Largest difference relative to the larger of 1 and the expected value."""
    return float((np.abs(found - expected) / np.maximum(1.0, np.abs(expected))).max())


def test_every_case_converges_in_few_passes(name: str):
    found = clearing(name)
    assert found.status == "converged"
    assert len(found.passes) <= (8 if found.case.network.is_radial else 12)


def test_cost_is_that_of_the_ac_optimum(name: str):
    assert clearing(name).objective == pytest.approx(oracle(name).cost, rel=1e-6)


def test_real_prices_are_those_of_the_ac_optimum_at_every_node(name: str):
    assert apart(clearing(name).prices.lmp_usd_per_mwh, oracle(name).price_p) <= 1e-5


def test_reactive_prices_are_those_of_the_ac_optimum_at_every_node(name: str):
    assert np.abs(clearing(name).prices.lmp_q_usd_per_mvarh - oracle(name).price_q).max() <= 2e-4


def test_awards_voltages_and_import_are_those_of_the_ac_optimum(name: str):
    found, expected = clearing(name), oracle(name)
    np.testing.assert_allclose(found.awards.net_injection_kw, expected.p_kw, atol=2e-2)
    np.testing.assert_allclose(found.voltages.v_pu, np.abs(expected.v), atol=1e-5)
    np.testing.assert_allclose(found.import_kw, expected.import_p_kw, atol=2e-2)


def components_sum(found: Clearing) -> None:
    prices = found.prices
    for total, suffix in ((prices.lmp_usd_per_mwh, ""), (prices.lmp_q_usd_per_mvarh, "_q")):
        parts = sum(getattr(prices, f"{component}{suffix}") for component in COMPONENTS)
        np.testing.assert_allclose(parts, total, rtol=0, atol=1e-9)


def test_components_sum_to_the_price(name: str):
    components_sum(clearing(name))


@pytest.mark.parametrize("name", LIMITING)
def test_components_sum_to_the_price_and_the_status_says_so_where_passes_run_out(name: str, monkeypatch):
    without_finish(monkeypatch)
    found = clear(CASES[name](), Settings(max_passes=1))
    assert found.status == "not_converged"
    assert len(found.passes) == 1
    assert np.isinf(found.error_usd_per_mwh)
    components_sum(found)


def test_energy_is_the_same_at_every_node_and_the_price_at_a_source(name: str):
    found = clearing(name)
    prices, source = found.prices, found.case.network.source
    for suffix, total in (("", prices.lmp_usd_per_mwh), ("_q", prices.lmp_q_usd_per_mvarh)):
        energy = getattr(prices, f"energy{suffix}")
        assert (energy == energy[:, :1]).all()
        np.testing.assert_allclose(total[:, source], energy[:, source], rtol=0, atol=1e-12)


def test_certificate_finds_every_case_feasible_supported_and_its_prices_unique(name: str):
    certificate = clearing(name).certificate
    assert certificate.is_feasible
    assert certificate.is_supported
    assert certificate.price_ranges == ()
    assert certificate.voltage_mismatch_pu < 1e-8
    assert certificate.import_mismatch_kw < 1e-3


def nodes_to_sample(case: MarketCase) -> list[int]:
    """A source, the node farthest down the list, and one of a resource."""
    return [int(case.network.source[0]), case.network.node_count - 1, int(case.resources.first_port[0])]


@pytest.mark.parametrize(
    "name",
    [
        "undervoltage_reactive_33",
        "congestion_power_33",
        "overvoltage_reactive_33",
        "negative_price_33",
        "congestion_meshed_33",
        "import_cap_33",
        "reactive_price_33",
        "two_sources_33",
        "transformer_cigre",
    ],
)
@pytest.mark.parametrize(("load", "price"), [("load_p_kw", "lmp_usd_per_mwh"), ("load_q_kvar", "lmp_q_usd_per_mvarh")])
def test_price_is_the_cost_of_one_more_kilowatt_and_one_more_kilovar(name: str, load: str, price: str):
    case = CASES[name]()
    for node in nodes_to_sample(case):
        one = np.zeros_like(case.load_p_kw)
        one[0, node] = 1.0
        more, less = (clear(replace(case, **{load: getattr(case, load) + way * one})).objective for way in (1, -1))
        found = getattr(clearing(name).prices, price)[0, node]
        assert (more - less) / 2 * 1000 == pytest.approx(found, abs=1e-4)


@pytest.mark.parametrize("interval", [0, 1, 2])
def test_price_of_an_interval_is_the_cost_of_one_more_kilowatt_then(interval: int):
    case = CASES["day_33"]()
    one = np.zeros_like(case.load_p_kw)
    one[interval, 20] = 1.0
    more, less = (clear(replace(case, load_p_kw=case.load_p_kw + way * one)).objective for way in (1, -1))
    found = clearing("day_33").prices.lmp_usd_per_mwh[interval, 20]
    assert (more - less) / 2 * 1000 == pytest.approx(found, abs=1e-4)


@pytest.mark.parametrize(
    ("network", "highest", "losses_kw", "lowest_pu"),
    [(feeder33, 22.9439, 202.68, 0.91309), (feeder69, 23.4027, 224.99, 0.90919)],
)
def test_published_figures_of_the_feeders_of_baran_and_wu(network, highest, losses_kw, lowest_pu):
    case = simple_case(network(), 20.0)
    found = clear(case)
    assert found.prices.lmp_usd_per_mwh.max() == pytest.approx(highest, abs=1e-4)
    assert found.import_kw[0] - case.load_p_kw.sum() == pytest.approx(losses_kw, abs=0.01)
    assert found.voltages.v_pu.min() == pytest.approx(lowest_pu, abs=1e-5)


def reordered(case: MarketCase, seed: int) -> tuple[MarketCase, np.ndarray, np.ndarray]:
    """The same case with resources and bids in another order; and which is where."""
    random = np.random.default_rng(seed)
    order, bid_order = random.permutation(len(case.resources)), random.permutation(len(case.bids))
    given, offered = case.resources, case.bids
    resources = Resources(
        *(getattr(given, field)[order] for field in ("name", "kind", "share", "p_min_kw")),
        given.p_max_kw[:, order],
        *(getattr(given, field)[order] for field in ("q_min_kvar", "q_max_kvar", "s_max_kva")),
    )
    bids = Bids(
        np.argsort(order)[offered.resource[bid_order]],
        offered.is_supply[bid_order],
        offered.segment[bid_order],
        offered.quantity_kw[:, bid_order],
        offered.price_usd_per_mwh[:, bid_order],
    )
    return replace(case, resources=resources, bids=bids), order, bid_order


@pytest.mark.parametrize(
    "name",
    ["undervoltage_reactive_33", "overvoltage_33", "negative_price_33", "interior_33", "day_33", "transformer_cigre"],
)
def test_order_of_bids_and_resources_does_not_matter(name: str):
    other, order, bid_order = reordered(CASES[name](), seed=4)
    found, expected = clear(other), clearing(name)
    assert found.objective == pytest.approx(expected.objective, rel=1e-9)
    np.testing.assert_allclose(found.prices.lmp_usd_per_mwh, expected.prices.lmp_usd_per_mwh, atol=1e-6)
    np.testing.assert_allclose(found.awards.net_injection_kw, expected.awards.net_injection_kw[:, order], atol=1e-4)
    np.testing.assert_allclose(found.awards.segment_kw, expected.awards.segment_kw[:, bid_order], atol=1e-4)


def test_the_same_case_gives_the_same_bytes():
    case = CASES["day_33"]()
    one, two = clear(case), clear(case)
    assert one.prices.lmp_usd_per_mwh.tobytes() == two.prices.lmp_usd_per_mwh.tobytes()
    assert one.awards.segment_kw.tobytes() == two.awards.segment_kw.tobytes()
    assert one.objective == two.objective


def test_relaxing_every_limit_a_little_never_raises_cost(name: str):
    case = CASES[name]()
    network, substation = case.network, case.substation
    wider = replace(
        network,
        v_min_pu=network.v_min_pu - 0.002,
        v_max_pu=network.v_max_pu + 0.002,
        rating_from_pu=network.rating_from_pu * 1.02,
        rating_to_pu=network.rating_to_pu * 1.02,
    )
    wider_import = replace(substation, p_min_kw=substation.p_min_kw - 50.0, p_max_kw=substation.p_max_kw + 50.0)
    cost = clear(replace(case, network=wider, substation=wider_import)).objective
    assert cost <= clearing(name).objective + 1e-7


def with_bids_of(case: MarketCase, offer) -> MarketCase:
    """The case with one more resource."""
    alone = market(case.network, case.substation.price_usd_per_mwh, offer)
    resources, bids = case.resources, case.bids
    joined = {
        field: np.concatenate([getattr(resources, field), getattr(alone.resources, field)], axis=-1)
        for field in ("name", "kind", "p_min_kw", "p_max_kw", "q_min_kvar", "q_max_kvar", "s_max_kva")
    }
    joined["share"] = sparse.csr_array(sparse.vstack([resources.share, alone.resources.share]))
    joined_bids = {
        field: np.concatenate([getattr(bids, field), getattr(alone.bids, field)], axis=-1)
        for field in ("is_supply", "segment", "quantity_kw", "price_usd_per_mwh")
    }
    owner = np.concatenate([bids.resource, alone.bids.resource + len(resources)])
    return replace(case, resources=Resources(**joined), bids=Bids(resource=owner, **joined_bids))


@pytest.mark.parametrize("name", ["undervoltage_33", "congestion_current_33", "export_cap_33", "day_33"])
@pytest.mark.parametrize("blocks", [{"supply": [(40, 25.0)]}, {"demand": [(40, 24.0)]}, {"supply": [(40, 1e4)]}])
def test_one_more_bid_never_raises_cost(name: str, blocks):
    cost = clear(with_bids_of(CASES[name](), resource("newcomer", 11, **blocks))).objective
    assert cost <= clearing(name).objective + 1e-7


def test_a_bid_that_is_in_the_money_lowers_cost_by_its_margin():
    """One kW at 30 below the nodal price saves the difference."""
    expected = clearing("undervoltage_33")
    price = expected.prices.lmp_usd_per_mwh[0, 17]
    cost = clear(with_bids_of(CASES["undervoltage_33"](), resource("newcomer", 17, supply=[(1, price - 30)]))).objective
    assert expected.objective - cost == pytest.approx(0.03, rel=1e-2)


@pytest.mark.parametrize("minutes", [5, 15])
def test_shorter_intervals_cost_their_share_at_the_same_prices(minutes: int):
    case = CASES["undervoltage_33"]()
    found = clear(replace(case, horizon=replace(case.horizon, interval_minutes=minutes)))
    expected = clearing("undervoltage_33")
    assert found.objective == pytest.approx(expected.objective * minutes / 60, rel=1e-12)
    np.testing.assert_allclose(found.prices.lmp_usd_per_mwh, expected.prices.lmp_usd_per_mwh, rtol=1e-12)


def signs_of_price() -> MarketCase:
    """Intervals at a negative price, at none, and at two positive ones, in one horizon."""
    flexible = resource("pool", 29, kind="load", demand=[(400, -4), (500, -15)], q_kvar=(0.0, 200.0))
    return market(feeder33(v_min_pu=0.92), [-25.0, 0.0, 20.0, 60.0], *generators33((-50.0, 150.0)), flexible)


@pytest.mark.parametrize("make", [CASES["day_33"], signs_of_price])
def test_intervals_without_couplings_are_cleared_as_if_alone(make):
    case = make()
    together = clear(case)
    assert together.status == "converged"
    alone = [clear(one_interval(case, interval)) for interval in range(case.horizon.intervals)]
    assert together.objective == pytest.approx(sum(each.objective for each in alone), rel=1e-9)
    prices = np.concatenate([each.prices.lmp_usd_per_mwh for each in alone])
    np.testing.assert_allclose(together.prices.lmp_usd_per_mwh, prices, atol=1e-6)


@pytest.mark.parametrize("name", ["negative_price_33", "export_cap_33"])
def test_a_negative_price_invents_no_losses(name: str):
    """The import is that of an independent AC power flow, and what it pays for is not drawn from nowhere."""
    found = clearing(name)
    network, case = found.case.network, found.case
    injection = found.awards.net_injection_kw.sum(axis=1) - case.load_p_kw.sum(axis=1)
    r_pu, flow = network.series_pu.real, found.flows
    losses_kw = (flow.from_kva - flow.to_kva).real.sum(axis=1)
    assert (r_pu > 0).all()
    np.testing.assert_allclose(found.import_kw, losses_kw - injection, atol=1e-6)
    assert found.certificate.import_mismatch_kw < 1e-4
    assert found.passes[-1].mismatch_pu <= found.settings.tolerance_pu


def test_objective_is_import_and_supply_less_demand():
    found = clearing("import_cap_33")
    case, awards = found.case, found.awards.segment_kw[0]
    sign = np.where(case.bids.is_supply, 1.0, -1.0)
    per_hour = 20.0 * found.import_kw[0] + (sign * case.bids.price_usd_per_mwh[0]) @ awards
    assert found.objective == pytest.approx(per_hour / 1000, rel=1e-9)


def test_import_does_not_pass_its_limit_and_has_its_price_there():
    found = clearing("import_cap_33")
    assert found.import_kw[0] == pytest.approx(3200.0, abs=1e-4)
    assert found.prices.energy[0, 0] > 20.0
    export = clearing("export_cap_33")
    assert export.import_kw[0] == pytest.approx(-1000.0, abs=1e-4)
    assert export.prices.energy[0, 0] < 20.0


def test_reactive_import_does_not_pass_its_limit_and_has_its_price_there():
    case = market(feeder33(), 20.0, *generators33((0.0, 300.0)), q_min_kvar=1800.0)
    found, expected = clear(case), solve_acopf(case)
    assert found.import_kvar[0] == pytest.approx(1800.0, abs=1e-3)
    assert found.prices.energy_q[0, 0] == pytest.approx(expected.price_q[0, 0], abs=2e-4)
    assert found.prices.energy_q[0, 0] < -0.1


@pytest.mark.parametrize("name", ["undervoltage_33", "congestion_current_33", "import_cap_33"])
def test_shares_at_all_nodes_add_up_to_the_prices_and_their_components(name: str):
    found = clearing(name)
    table = found.price_shares(least_usd_per_mwh=0.0)
    keys = ["interval", "bus", "phase"]
    sums = (
        table.rename(columns={"phase": "of", "phase_of_bus": "phase"})
        .groupby([*keys, "component"])
        .sum(numeric_only=True)
    )
    prices = found.prices.table().set_index(keys)
    for column, share in (("", "share_usd_per_mwh"), ("_q", "share_q_usd_per_mvarh")):
        by_component = sums[share].unstack("component", fill_value=0.0).reindex(prices.index)
        for component in by_component:
            np.testing.assert_allclose(by_component[component], prices[f"{component}{column}"], atol=1e-9)
        total = prices["lmp_usd_per_mwh" if not column else "lmp_q_usd_per_mvarh"]
        np.testing.assert_allclose(by_component.sum(axis=1), total, atol=1e-9)


def test_small_shares_are_left_out_of_those_at_all_nodes():
    found = clearing("congestion_current_33")
    every, large = found.price_shares(0.0), found.price_shares(1.0)
    shares = every[["share_usd_per_mwh", "share_q_usd_per_mvarh"]].abs().max(axis=1)
    assert 0 < len(large) == (shares >= 1.0).sum() < len(every)


def test_shares_and_their_rest_add_up_to_the_prices():
    found = clearing("congestion_current_33")
    table = found.price_shares(1.0, with_rest=True)
    assert set(table.component) == {"energy", "loss", "congestion", "rest"}
    sums = table.groupby(["interval", "bus"])[["share_usd_per_mwh", "share_q_usd_per_mvarh"]].sum()
    prices = found.prices.table().set_index(["interval", "bus"]).loc[sums.index]
    np.testing.assert_allclose(sums, prices[["lmp_usd_per_mwh", "lmp_q_usd_per_mvarh"]], atol=1e-8)
    assert len(sums) == len(found.prices.table())
    small = table[table.component == "rest"]
    assert 0 < len(small) < len(sums)
    assert (small[["share_usd_per_mwh", "share_q_usd_per_mvarh"]].abs().max(axis=1) > 0).all()


def explained(found: Clearing, bus: str, interval: int = 0) -> pd.DataFrame:
    table = found.explain(bus, interval)
    node = found.case.network.node(bus)
    for share, price in (("share_usd_per_mwh", "lmp_usd_per_mwh"), ("share_q_usd_per_mvarh", "lmp_q_usd_per_mvarh")):
        assert table[share].sum() == pytest.approx(getattr(found.prices, price)[interval, node], abs=1e-9)
    for component in COMPONENTS:
        own = table[table.component == component]
        assert own.share_usd_per_mwh.sum() == pytest.approx(getattr(found.prices, component)[interval, node], abs=1e-9)
    return table


def test_shares_of_every_binding_element_add_up_to_the_price_and_its_components(name: str):
    found = clearing(name)
    for node in nodes_to_sample(found.case) if len(found.case.resources) else [0, 32]:
        for interval in range(found.case.horizon.intervals):
            explained(found, str(found.case.network.bus[node]), interval)


def test_an_explanation_names_the_bus_whose_voltage_binds():
    table = explained(clearing("undervoltage_33"), "32")
    (row,) = table[table.component == "voltage"].itertuples()
    assert (row.element, row.limit, row.unit) == ("bus 31", 0.94, "pu")
    assert row.share_usd_per_mwh > 1.0


def test_an_explanation_names_the_branch_that_is_full_in_its_own_unit():
    table = explained(clearing("congestion_current_33"), "9")
    (row,) = table[table.component == "congestion"].itertuples()
    assert (row.element, row.limit, row.unit) == ("line 2", pytest.approx(100.0, rel=1e-9), "A")
    by_power = explained(clearing("congestion_power_33"), "17")
    (row,) = by_power[by_power.component == "congestion"].itertuples()
    assert (row.element, row.end) in {("line 0", "from"), ("line 0", "to")}
    assert (row.limit, row.unit) == (pytest.approx(3600.0, rel=1e-9), "kVA")


def test_an_explanation_tells_the_substation_s_price_from_its_limit():
    table = explained(clearing("import_cap_33"), "0")
    energy = table[table.component == "energy"].set_index("element").share_usd_per_mwh
    assert energy["substation price"] == 20.0
    assert energy["substation import of real power"] == pytest.approx(
        clearing("import_cap_33").prices.energy[0, 0] - 20.0
    )
    without = explained(clearing("base_33"), "17")
    assert without.element.tolist() == ["substation price", "network losses"]


def test_an_explanation_is_found_by_an_alias_and_refused_for_what_is_not_there():
    network = replace(feeder33(), alias_bus=np.array(["end of the line"]), alias_node=np.array([17]))
    found = clear(simple_case(network, 20.0))
    pd.testing.assert_frame_equal(found.explain("end of the line"), found.explain("17", 0, "123"))
    for arguments, message in (
        (("nowhere",), "is no bus of"),
        (("17", 1), "must be 0 to 0"),
        (("17", -1), "must be 0 to 0"),
        (("17", 0, "a"), "phase = 'a': name one of its phases: 123"),
    ):
        with pytest.raises(InputError, match=message):
            found.explain(*arguments)


@pytest.mark.parametrize(
    ("name", "element", "unit", "widen"),
    [
        (
            "undervoltage_33",
            "bus 31",
            "pu",
            lambda case, room: replace(case, network=banded(case.network, 0.94 - room, 1.1)),
        ),
        (
            "overvoltage_33",
            "bus 17",
            "pu",
            lambda case, room: replace(case, network=banded(case.network, 0.9, 1.04 + room)),
        ),
        (
            "congestion_current_33",
            "line 2",
            "A",
            lambda case, room: replace(case, network=rated(case.network, "line 2", ampere=100.0 + room)),
        ),
        (
            "congestion_power_33",
            "line 0",
            "kVA",
            lambda case, room: replace(case, network=rated(case.network, "line 0", kva=3600.0 + room)),
        ),
        (
            "import_cap_33",
            "substation import of real power",
            "kW",
            lambda case, room: replace(case, substation=replace(case.substation, p_max_kw=3200.0 + room)),
        ),
        (
            "export_cap_33",
            "substation import of real power",
            "kW",
            lambda case, room: replace(case, substation=replace(case.substation, p_min_kw=-1000.0 - room)),
        ),
    ],
)
def test_shadow_price_of_a_limit_is_what_one_more_unit_of_room_saves(name: str, element: str, unit: str, widen):
    table = clearing(name).binding_limits()
    own = table[table.unit == unit]
    assert element in set(own.element)
    room = 1e-5 if unit == "pu" else 0.1
    less, more = (clear(widen(CASES[name](), way * room)).objective for way in (-1, 1))
    assert (less - more) / (2 * room) == pytest.approx(own.shadow_price_usd_per_h.sum(), rel=1e-4)


def test_binding_limits_tell_interval_cause_and_bound():
    table = clearing("day_33").binding_limits()
    assert table.columns.tolist() == [
        "interval_start",
        "interval",
        "component",
        "element",
        "phase",
        "end",
        "called",
        "limit",
        "unit",
        "shadow_price_usd_per_h",
    ]
    assert set(table.phase) == {"123"}
    assert set(table.component) == {"voltage"}
    assert set(table.limit) == {1.03}
    assert table.interval.is_monotonic_increasing
    assert 0 not in set(table.interval)
    starts = clearing("day_33").case.horizon.starts
    assert [start.to_pydatetime() for start in table.interval_start] == [starts[t] for t in table.interval]
    assert (table.shadow_price_usd_per_h > 0).all()


def test_nothing_binds_on_a_feeder_that_is_wide_enough():
    assert clearing("base_33").binding_limits().empty


def conflicts(case: MarketCase, **settings: object) -> list[str]:
    with pytest.raises(InfeasibleError) as caught:
        clear(case, Settings(limits="hard", **settings))
    return [conflict.element for conflict in caught.value.conflicts]


@pytest.mark.parametrize("formulation", ["ac_tangent", "lindistflow"])
class TestInfeasible:
    """A case that no dispatch can save is refused with the limits in its way, worst first."""

    def test_a_voltage_band_that_cannot_be_met_is_named_by_its_worst_bus(self, formulation: str):
        weak = [resource("far", 17, supply=[(50, 31)])]
        found = conflicts(market(feeder33(v_min_pu=0.95), 20.0, *weak), formulation=formulation)
        assert found[0] == "bus 17"
        assert "bus 32" in found
        assert "bus 18" not in found

    def test_a_voltage_band_that_cannot_be_met_is_named_where_nobody_bids(self, formulation: str):
        found = conflicts(simple_case(feeder33(v_min_pu=0.95), 20.0), formulation=formulation)
        assert "bus 17" in found

    def test_an_import_cap_below_what_is_needed_is_named(self, formulation: str):
        case = market(feeder33(), 20.0, resource("far", 17, supply=[(50, 31)]), p_max_kw=1000.0)
        with pytest.raises(InfeasibleError) as caught:
            clear(case, Settings(formulation=formulation, limits="hard"))
        (conflict,) = caught.value.conflicts
        assert (conflict.element, conflict.interval, conflict.unit) == ("substation import of real power", 0, "kW")
        assert conflict.limit == pytest.approx(1000.0)
        assert conflict.attained > 3715 - 50 - 1e-6

    def test_an_import_cap_is_named_where_nobody_bids(self, formulation: str):
        case = simple_case(feeder33(), 20.0)
        capped = replace(case, substation=replace(case.substation, p_max_kw=1000.0))
        assert conflicts(capped, formulation=formulation) == ["substation import of real power"]

    def test_a_branch_rated_below_its_load_is_named(self, formulation: str):
        case = market(rated(feeder33(), "line 16", kva=50.0), 20.0, resource("far", 17, supply=[(20, 31)]))
        found = conflicts(case, formulation=formulation)
        assert {name.split(" (")[0] for name in found} == {"line 16"}

    def test_only_the_interval_that_cannot_be_met_is_named(self, formulation: str):
        case = market(
            feeder33(),
            [20.0, 20.0, 20.0],
            resource("far", 17, supply=[(50, 31)]),
            p_max_kw=2500.0,
            load=[0.5, 1.0, 0.5],
        )
        with pytest.raises(InfeasibleError) as caught:
            clear(case, Settings(formulation=formulation, limits="hard"))
        assert {conflict.interval for conflict in caught.value.conflicts} == {1}


def test_a_case_that_only_all_offers_together_can_save_is_cleared():
    """Without bids the voltage is far out of its band, and the only dispatch within is close to the last kilowatt."""
    case = market(feeder33(v_min_pu=0.9535), 20.0, *generators33())
    found, expected = clear(case), solve_acopf(case)
    assert found.status == "converged"
    assert found.objective == pytest.approx(expected.cost, rel=1e-6)
    assert found.certificate.is_feasible


def test_an_absurd_load_is_told_by_its_intervals():
    case = market(feeder33(), [20.0, 20.0], resource("far", 17, supply=[(50, 31)]), load=[1.0, 1000.0])
    with pytest.raises(PowerFlowError, match=r"intervals \[1\]"):
        clear(case)


TWO_BUSES = [Branch("0", "1", 0.02, 0.04)]


def test_a_load_that_the_feeder_carries_only_with_its_generators_is_cleared():
    """Without a dispatch there is no AC state: the feeder carries 10.9 pu at most, and the load is 15."""
    case = market(feeder(TWO_BUSES, {"1": (1500, 0)}), 20.0, resource("g", "1", supply=[(1200, 30)]))
    found, expected = clear(case), solve_acopf(case)
    assert found.objective == pytest.approx(expected.cost, rel=1e-6)


@pytest.mark.parametrize("price", [30.0, 300.0])
def test_a_bid_for_more_than_the_feeder_can_carry_is_met_as_far_as_it_is_worth(price: float):
    """The whole bid has no AC state: the optimum lies inside, where losses and voltage eat its value."""
    case = market(feeder(TWO_BUSES, {"1": (100, 50)}), 20.0, resource("d", "1", kind="load", demand=[(5000, price)]))
    found, expected = clear(case), solve_acopf(case)
    assert found.objective == pytest.approx(expected.cost, rel=1e-6)
    assert found.status == "converged"
    assert found.certificate.is_supported


def test_a_bid_to_be_paid_for_more_than_the_feeder_can_carry_is_met_within_its_limits():
    network = feeder(TWO_BUSES, {"1": (100, 50)}, band=(0.8, 1.1))
    case = market(network, -20.0, resource("d", "1", kind="load", demand=[(5000, -10)]))
    found, expected = clear(case), solve_acopf(case)
    assert found.objective == pytest.approx(expected.cost, rel=1e-6)


def test_a_converged_result_is_always_supported():
    """An inverter with a wide reactive range at a negative price, where steps are bounded and reverse."""
    for seed in range(6):
        random = np.random.default_rng(seed)
        offers = [
            resource(f"d{bus}", bus, kind="load", demand=[(900, -random.uniform(1, 9)), (900, -random.uniform(10, 19))])
            for bus in ("1", "2", "3")
        ]
        branches = [Branch("0", "1", 0.01, 0.02), Branch("1", "2", 0.02, 0.02), Branch("1", "3", 0.02, 0.03)]
        found = clear(market(feeder(branches, {"1": (50, 20)}, band=(0.7, 1.1)), -20.0, *offers))
        if found.status == "converged":
            assert found.certificate.is_supported


def test_lindistflow_on_a_meshed_feeder_is_refused():
    with pytest.raises(InputError, match="lindistflow needs a radial feeder; use ac_tangent or open a tie"):
        clear(CASES["congestion_meshed_33"](), Settings(formulation="lindistflow"))


def test_an_unknown_formulation_is_refused_with_those_that_there_are():
    with pytest.raises(InputError, match="formulation = 'socp': must be one of ac_tangent, lindistflow"):
        clear(CASES["base_33"](), Settings(formulation="socp"))


def agrees(case: MarketCase) -> Clearing:
    """The clearing of `case`, equal to the AC optimum."""
    found, expected = clear(case), solve_acopf(case)
    assert found.status == "converged"
    assert found.objective == pytest.approx(expected.cost, rel=1e-6, abs=1e-9)
    assert apart(found.prices.lmp_usd_per_mwh, expected.price_p) <= 1e-5
    assert np.abs(found.prices.lmp_q_usd_per_mvarh - expected.price_q).max() <= 2e-4
    np.testing.assert_allclose(found.awards.segment_kw, expected.award_kw, atol=1e-3)
    return found


def test_a_feeder_without_any_resource_has_prices():
    found = agrees(simple_case(feeder33(), np.array([20.0, -15.0, 0.0])))
    assert len(found.passes) == 1
    assert found.awards.table().empty
    assert not found.prices.lmp_usd_per_mwh[2].any()


def test_a_resource_at_the_source_is_paid_the_source_s_price():
    found = agrees(
        market(
            feeder33(),
            20.0,
            resource("near", 0, supply=[(500, 12), (300, 24)], q_kvar=(-100.0, 100.0)),
            resource("eater", 0, kind="load", demand=[(200, 22), (300, 18)]),
            q_price_usd_per_mvarh=3.0,
        )
    )
    assert found.awards.net_injection_kw[0].tolist() == pytest.approx([500.0, -200.0])
    assert found.awards.q_kvar[0, 0] == pytest.approx(100.0)
    assert found.awards.lmp_usd_per_mwh[0].tolist() == pytest.approx([20.0, 20.0])
    assert found.import_kw[0] == pytest.approx(3715 + 202.68 - 300, abs=0.01)


def test_two_resources_at_one_node_are_served_by_merit():
    found = agrees(
        market(
            feeder33(v_min_pu=0.92),
            20.0,
            resource("dear", 17, supply=[(400, 38)]),
            resource("cheap", 17, supply=[(150, 29)]),
            resource("heat", 17, kind="load", demand=[(60, 90), (60, 25)]),
        )
    )
    dear, cheap, heat = found.awards.net_injection_kw[0]
    assert cheap == pytest.approx(150.0)
    assert heat == pytest.approx(-60.0)
    assert 0 < dear < 400
    assert found.prices.lmp_usd_per_mwh[0, 17] == pytest.approx(38.0)


@pytest.mark.parametrize("base_kv", [0.4, 110.0])
def test_prices_do_not_depend_on_the_voltage_that_per_unit_stands_for(base_kv: float):
    branches = [Branch("0", "1", 0.02, 0.04), Branch("1", "2", 0.03, 0.02)]
    found = agrees(
        market(feeder(branches, {"2": (90, 40)}, base_kv=base_kv), 20.0, resource("g", "1", supply=[(60, 20.05)]))
    )
    assert found.awards.net_injection_kw[0, 0] == pytest.approx(60.0)


def test_progress_is_told_pass_by_pass_and_a_library_call_is_silent(capfd: pytest.CaptureFixture[str]):
    reports: list[object] = []
    found = clear(CASES["undervoltage_33"](), progress=reports.append)
    assert tuple(reports) == found.passes
    assert [report.number for report in found.passes] == list(range(1, len(found.passes) + 1))
    assert [report.finished for report in found.passes] == [False] * (len(found.passes) - 1) + [True]
    assert capfd.readouterr() == ("", "")


def test_residuals_of_a_converged_result_are_within_the_tolerances(name: str):
    found = clearing(name)
    last = found.passes[-1]
    assert found.error_usd_per_mwh <= found.settings.tolerance_usd_per_mwh
    assert last.violation_pu <= found.settings.tolerance_pu
    assert last.mismatch_pu <= found.settings.tolerance_pu


def test_summary_tells_status_cost_residuals_and_seconds(monkeypatch):
    found = clearing("day_33")
    summary = found.summary()
    assert (summary["status"], summary["objective"], summary["passes"]) == (
        "converged",
        found.objective,
        len(found.passes),
    )
    assert (summary["nodes"], summary["resources"], summary["intervals"]) == (33, 4, 3)
    assert summary["formulation"] == "ac_tangent"
    assert set(summary["seconds"]) == {"build", "power_flow", "gradients", "solver", "newton", "rules"}
    assert summary["lp_solves"] >= summary["passes"]
    without_finish(monkeypatch)
    stopped = clear(CASES["day_33"](), Settings(max_passes=1)).summary()
    assert stopped["status"] == "not_converged"
    assert stopped["residuals"]["optimality_usd_per_mwh"] is None


def test_settings_of_the_polygon_reach_the_dispatch():
    """A coarser polygon leaves an inverter less room."""
    case = CASES["reactive_price_33"]()
    coarse, fine = (clear(case, Settings(circle_sides=sides)).objective for sides in (8, 96))
    assert coarse == pytest.approx(solve_acopf(case, circle_sides=8).cost, rel=1e-6)
    assert fine < coarse - 0.1
