"""Soft limits: an infeasible day clears, tells where, how far and at what price, and has the AC optimum's prices."""

from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from acopf import AcOpf
from cases import CASES, banded, feeder33, generators33, market
from feeders import feeder
from infeasible import AB, DAYS, P_IMPORT, two
from softopf import solve_soft_acopf

from dlmp import Clearing, InfeasibleError, Penalties, PowerFlowError, Settings, Tier, clear, read_case, shipped_case
from dlmp.certificate import independent_power_flow
from dlmp.market import simple_case
from dlmp.penalties import KINDS
from dlmp.prices import COMPONENTS
from dlmp.report import clearing_rows
from dlmp.units import BASE_KVA, KW_PER_MW

WITHOUT_STORES = [name for name, day in DAYS.items() if not len(day.build().stores)]


@cache
def cleared(name: str) -> Clearing:
    return clear(DAYS[name].build())


@cache
def oracle(name: str) -> AcOpf:
    return solve_soft_acopf(DAYS[name].build())


@pytest.fixture(params=DAYS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def label(element: str, end: str) -> str:
    return f"{element} ({end} end)" if end in ("from", "to") else element


def test_an_infeasible_day_clears_and_tells_what_is_broken(name: str):
    found, table = cleared(name), cleared(name).broken_limits()
    assert found.status == "converged"
    told = {(label(row.element, row.end), row.interval) for row in table.itertuples()}
    assert told == DAYS[name].expected_broken
    assert len(table) == len(told)
    assert found.avoidable == ()


def test_the_amount_is_that_of_an_independent_power_flow(name: str):
    found = cleared(name)
    network, table, certificate = found.case.network, found.broken_limits(), found.certificate
    flow = independent_power_flow(network, found.awards.injection_kva(), found.case.law_pu * BASE_KVA)
    for row in table.itertuples():
        if row.cause == "voltage":
            value = np.abs(flow.v_pu[row.interval, network.node(row.element.removeprefix("bus "))])
        elif row.cause == "congestion":
            at = list(network.branch).index(row.element)
            current = np.abs((flow.current_to_pu if row.end == "to" else flow.current_from_pu)[row.interval, at])
            end = (network.to_node if row.end == "to" else network.from_node)[at]
            by_current = network.rating_is_current[at]
            per_pu = network.current_base_a[end] if by_current else BASE_KVA * np.abs(flow.v_pu[row.interval, end])
            value = current * per_pu
        else:
            value = (
                flow.import_kva[row.interval].real if row.element == P_IMPORT else flow.import_kva[row.interval].imag
            )
        assert row.value == pytest.approx(value, rel=1e-6)
        assert row.excess == pytest.approx(abs(value - row.limit), abs=1e-4 * abs(row.limit) + 1e-3)
    assert certificate.is_feasible
    assert certificate.is_supported
    assert certificate.price_ranges == (), "a multiplier at its penalty is the only one"
    assert certificate.broken_limits == len({(row.cause, row.element) for row in table.itertuples()})
    untold = max(flow.worst_voltage()[0], flow.worst_loading()[0] / 100 - 1)
    assert untold > 1e-4 or set(table.cause) == {"import"}, "without what is told it would not be feasible"


def tiers_of(row, penalties: Penalties, network) -> tuple[list[float], list[float]]:
    """Edges of the tiers in the row's unit, and their prices [currency/h per unit]."""
    if row.cause == "voltage":
        tiers, width, price = penalties.voltage, 1.0, 1.0
    elif row.cause == "import":
        tiers, width, price = penalties.substation, 1.0, 1 / KW_PER_MW
    else:
        at = list(network.branch).index(row.element)
        kva = 1.0 if row.unit == "kVA" else np.sqrt(3) * network.base_kv[network.from_node[at]]
        tiers, width, price = penalties.thermal, row.limit, kva / KW_PER_MW
    return [*(tier.beyond * width for tier in tiers), np.inf], [tier.price * price for tier in tiers]


def test_the_price_of_a_broken_limit_is_its_penalty_and_its_cost_that_of_its_tiers(name: str):
    found = cleared(name)
    table = found.broken_limits()
    for row in table.itertuples():
        edges, prices = tiers_of(row, found.case.penalties, found.case.network)
        inside = [np.clip(row.excess - low, 0.0, high - low) for low, high in pairwise(edges)]
        hours = found.case.horizon.interval_hours
        assert row.cost_usd == pytest.approx(np.dot(inside, prices) * hours, rel=1e-6)
        tier = int(np.searchsorted(edges, row.excess * (1 + 1e-6))) - 1
        at_edge = tier > 0 and row.excess < edges[tier] * (1 + 1e-6)
        if at_edge:
            assert prices[tier - 1] * (1 - 1e-6) <= row.penalty_usd_per_h <= prices[tier] * (1 + 1e-6)
        else:
            assert row.penalty_usd_per_h == pytest.approx(prices[tier], rel=1e-6)
    assert found.penalty == pytest.approx(table.cost_usd.sum(), rel=1e-12)


@pytest.mark.parametrize("name", WITHOUT_STORES)
def test_cost_and_prices_are_those_of_the_ac_optimum_with_penalised_slacks(name: str):
    found, expected = cleared(name), oracle(name)
    assert found.objective == pytest.approx(expected.cost, rel=1e-6)
    np.testing.assert_allclose(found.prices.lmp_usd_per_mwh, expected.price_p, rtol=0, atol=1e-3)
    np.testing.assert_allclose(found.prices.lmp_q_usd_per_mvarh, expected.price_q, rtol=0, atol=1e-3)
    np.testing.assert_allclose(found.awards.net_injection_kw, expected.p_kw, atol=2e-2)
    np.testing.assert_allclose(found.voltages.v_pu, np.abs(expected.v), atol=1e-5)


def test_components_sum_to_the_price_and_explanations_to_the_components(name: str):
    found = cleared(name)
    prices, network = found.prices, found.case.network
    for total, suffix in ((prices.lmp_usd_per_mwh, ""), (prices.lmp_q_usd_per_mvarh, "_q")):
        parts = sum(getattr(prices, f"{component}{suffix}") for component in COMPONENTS)
        np.testing.assert_allclose(parts, total, rtol=0, atol=1e-9)
    table = found.broken_limits()
    node, interval = network.node_count - 1, int(table.interval.iloc[0])
    rows = found.explain(str(network.bus[node]), interval)
    for suffix, share in (("", "share_usd_per_mwh"), ("_q", "share_q_usd_per_mvarh")):
        for component in COMPONENTS:
            own = rows.loc[rows.component == component, share].sum()
            assert own == pytest.approx(getattr(prices, component + suffix)[interval, node], abs=1e-8)
    here = table[table.interval == interval]
    assert set(rows.element[rows.component == "scarcity"]) == set(here.element)


def test_what_a_broken_limit_makes_of_a_price_is_scarcity_and_nothing_else():
    """The line of 1.5 pu is the only limit: behind it everything but energy and losses is scarcity."""
    found = cleared("overloaded_line")
    prices = found.prices
    assert prices.scarcity[0, 1] > 10_000
    assert not prices.congestion.any()
    assert not prices.voltage.any()
    assert found.binding_limits().empty
    assert prices.components_in_use == ("energy", "loss", "congestion", "voltage", "scarcity")
    assert prices.energy[0, 0] == pytest.approx(20.0)


def test_a_broken_range_of_import_is_scarcity_at_every_node_losses_included():
    found = cleared("import_cap_below_what_must_be_served")
    prices, penalty = found.prices, found.case.penalties.substation[0].price
    np.testing.assert_allclose(prices.energy, 20.0)
    assert prices.scarcity[0, 0] == pytest.approx(penalty, rel=1e-9)
    assert prices.scarcity[0, 1] / penalty == pytest.approx(1 + prices.loss[0, 1] / 20.0, rel=1e-9)
    exported = cleared("export_cap_below_what_must_run").prices
    assert exported.scarcity[0, 0] == pytest.approx(-penalty, rel=1e-9)


@pytest.mark.parametrize(
    "name", ["undervoltage_beyond_what_is_offered", "low_voltage_or_an_overloaded_line", "import_cap_or_high_voltage"]
)
@pytest.mark.parametrize(("load", "price"), [("load_p_kw", "lmp_usd_per_mwh"), ("load_q_kvar", "lmp_q_usd_per_mvarh")])
def test_a_price_is_the_cost_of_one_more_unit_of_demand_penalties_included(name: str, load: str, price: str):
    case = DAYS[name].build()
    one = np.zeros_like(case.load_p_kw)
    one[0, 1] = 0.1
    more, less = (clear(replace(case, **{load: getattr(case, load) + way * one})).objective for way in (1, -1))
    found = getattr(cleared(name).prices, price)[0, 1]
    assert (more - less) / 0.2 * KW_PER_MW == pytest.approx(found, rel=1e-4)


def test_the_objective_is_import_and_supply_and_the_penalties():
    found = cleared("low_voltage_or_an_overloaded_line")
    supply = 60.0 * found.awards.net_injection_kw[0, 0]
    expected = (20.0 * found.import_kw[0] + supply) / KW_PER_MW + found.penalty
    assert found.objective == pytest.approx(expected, rel=1e-9)
    assert found.penalty > 100
    summary = found.summary()
    assert (summary["broken_limits"], summary["penalty"]) == (2, found.penalty)


def test_a_quarter_of_an_hour_costs_a_quarter_at_the_same_prices():
    case, hour = DAYS["low_voltage_or_an_overloaded_line"].build(), cleared("low_voltage_or_an_overloaded_line")
    quarter = clear(replace(case, horizon=replace(case.horizon, interval_minutes=15)))
    assert quarter.objective == pytest.approx(hour.objective / 4, rel=1e-9)
    assert quarter.penalty == pytest.approx(hour.penalty / 4, rel=1e-9)
    np.testing.assert_allclose(quarter.prices.lmp_usd_per_mwh, hour.prices.lmp_usd_per_mwh, rtol=1e-9)
    np.testing.assert_allclose(quarter.prices.scarcity, hour.prices.scarcity, rtol=1e-9)


def test_dearer_penalties_never_lower_cost(name: str):
    case = DAYS[name].build()
    dearer = {
        field: tuple(Tier(tier.beyond, 1.5 * tier.price) for tier in getattr(case.penalties, field))
        for field in KINDS.values()
    }
    assert clear(replace(case, penalties=Penalties(**dearer))).objective > cleared(name).objective


def test_relaxing_every_limit_a_little_never_raises_cost(name: str):
    case = DAYS[name].build()
    network, substation = case.network, case.substation
    wider = replace(
        network,
        v_min_pu=network.v_min_pu - 0.001,
        v_max_pu=network.v_max_pu + 0.001,
        rating_from_pu=network.rating_from_pu * 1.01,
        rating_to_pu=network.rating_to_pu * 1.01,
    )
    wider_import = replace(
        substation,
        p_min_kw=substation.p_min_kw - 5.0,
        p_max_kw=substation.p_max_kw + 5.0,
        q_min_kvar=substation.q_min_kvar - 5.0,
        q_max_kvar=substation.q_max_kvar + 5.0,
    )
    cost = clear(replace(case, network=wider, substation=wider_import)).objective
    assert cost < cleared(name).objective


@cache
def hard(name: str) -> Clearing:
    return clear(CASES[name](), Settings(limits="hard"))


@pytest.mark.parametrize("name", CASES)
def test_a_feasible_day_is_what_it_is_with_hard_limits(name: str):
    """Cost to 1e-9, prices to the tolerance at which the optimality conditions count as met."""
    found, expected = clear(CASES[name]()), hard(name)
    assert found.objective == pytest.approx(expected.objective, rel=1e-9)
    np.testing.assert_allclose(found.prices.lmp_usd_per_mwh, expected.prices.lmp_usd_per_mwh, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.awards.segment_kw, expected.awards.segment_kw, rtol=0, atol=1e-5)
    assert found.broken_limits().empty
    assert not found.prices.scarcity.any()
    assert (found.penalty, found.avoidable, found.certificate.broken_limits) == (0.0, (), 0)


def test_a_penalty_below_what_keeping_a_limit_costs_is_told():
    """At 30 USD per pu and hour it is cheaper to leave the band that the engines could keep."""
    case = market(feeder33(v_min_pu=0.94), 20.0, *generators33())
    cheap = clear(replace(case, penalties=Penalties(voltage=(Tier(0.0, 30.0),))))
    assert clear(case).broken_limits().empty
    assert len(cheap.broken_limits())
    assert cheap.avoidable == (0,)
    text = "\n".join(text for _, text in clearing_rows(cheap, None, 1.0))
    assert "a dearer dispatch keeps all limits of intervals 0: raise the penalties, or clear with --hard" in text
    assert cheap.summary()["intervals_of_avoidable_penalties"] == [0]


def test_the_report_tells_how_many_limits_are_broken_the_worst_of_each_kind_and_the_certificate():
    found = cleared("low_voltage_or_an_overloaded_line")
    rows = clearing_rows(found, found.certificate, 1.0)
    texts = [text for _, text in rows]
    assert f"2 limits in 1 interval, for {found.penalty:,.2f} USD of penalties" in texts
    (line,) = (text for text in texts if text.startswith("- congestion"))
    assert line == "- congestion, worst: b-c, interval 0: 63.509 A where 57.735 A is the limit"
    assert any(text.startswith("- voltage, worst: bus b, interval 0: 0.9") for text in texts)
    assert any("AC-feasible but for the 2 limits told broken" in text for text in texts)


def test_a_load_beyond_what_the_feeder_can_carry_has_no_state_whatever_the_penalties():
    with pytest.raises(PowerFlowError, match=r"the AC power flow has no solution in intervals \[0\]"):
        clear(simple_case(two(1500, band=(0.95, 1.05)), 20.0))


@pytest.mark.parametrize("losses", ["none", "linear"])
def test_lindistflow_breaks_the_same_limits(losses: str):
    settings = Settings(formulation="lindistflow", losses=losses)
    for name in ("undervoltage_beyond_what_is_offered", "import_cap_or_high_voltage", "two_overloaded_lines"):
        found = clear(DAYS[name].build(), settings)
        table = found.broken_limits()
        told = {(label(row.element, row.end), row.interval) for row in table.itertuples()}
        assert (found.status, told) == ("converged", DAYS[name].expected_broken)
        components = sum(getattr(found.prices, component) for component in COMPONENTS)
        np.testing.assert_allclose(components, found.prices.lmp_usd_per_mwh, rtol=0, atol=1e-9)


def test_lossless_lindistflow_by_hand():
    """w b = 1 - 2 x 0.02 x 2 = 0.92, and 0.95^2 is wanted: the square is 0.0175 short, each at 50,000 / (2 x 0.95)."""
    case = simple_case(two(200, band=(0.94, 1.05)), 20.0)
    case = replace(case, penalties=Penalties(voltage=(Tier(0.0, 50_000.0),)), network=banded(case.network, 0.97, 1.05))
    found = clear(case, Settings(formulation="lindistflow", losses="none"))
    (row,) = found.broken_limits().itertuples()
    assert row.value == pytest.approx(np.sqrt(0.92), rel=1e-9)
    assert row.cost_usd == pytest.approx((0.97**2 - 0.92) * 50_000 / (2 * 0.97), rel=1e-9)
    assert found.prices.scarcity[0, 1] == pytest.approx(50_000 / (2 * 0.97) * 2 * 0.02 * 10, rel=1e-9)


def test_the_sides_of_a_polygon_are_one_limit_with_one_penalty():
    """2 pu through a line of 1.5: told once, at the price of 1 MVA however the flow lies between two sides."""
    case = simple_case(feeder([replace(AB, rating=1.5)], {"b": (195, 20)}), 20.0)
    found = clear(case, Settings(formulation="lindistflow", losses="none", circle_sides=12))
    (row,) = found.broken_limits().itertuples()
    assert (row.element, row.end, row.unit) == ("a-b", "both", "kVA")
    assert row.penalty_usd_per_h == pytest.approx(20.0)
    side = np.exp(1j * 2 * np.pi / 12 * np.arange(12))
    excess = (195 * side.real + 20 * side.imag).max() - 150 * np.cos(np.pi / 12)
    assert row.excess == pytest.approx(excess, rel=1e-9)
    width = 15 * np.cos(np.pi / 12)
    assert row.cost_usd == pytest.approx(width * 6.0 + (excess - width) * 20.0, rel=1e-9)


def test_one_phase_of_an_unbalanced_feeder_is_told_with_its_phase():
    """IEEE 13: the band of bus 611, which has phase 3 alone, is out of reach; OpenDSS confirms how far."""
    case = read_case(shipped_case("ieee13"))
    network = case.network
    low = network.v_min_pu.copy()
    low[network.node("611")] = 1.045
    case = replace(case, network=replace(network, v_min_pu=low))
    found = clear(case)
    table = found.broken_limits()
    with pytest.raises(InfeasibleError) as refused:
        clear(case, Settings(limits="hard"))
    expected = [[("bus 611.3", interval)] for interval in table.interval]
    sets = [[(conflict.element, conflict.interval) for conflict in members] for members in refused.value.sets]
    assert sorted(sets) == sorted(expected)
    assert found.status == "converged"
    assert set(zip(table.element, table.phase, strict=True)) == {("bus 611", "3")}
    assert found.certificate.program.startswith("OpenDSS")
    assert found.certificate.is_feasible
    port = network.node("611")
    at = table.interval.iloc[0]
    assert found.prices.scarcity[at, port] > 100
    assert table["value"].iloc[0] == pytest.approx(
        found.voltages.v_pu[at, list(network.voltage_ports).index(port)], abs=1e-9
    )


def test_a_car_splits_its_charge_so_that_both_hours_overload_the_line_alike():
    """Losses are least so: 1.25 pu at a voltage of v^4 + (2 r P - 1) v^2 + |z|^2 P^2 = 0."""
    table = cleared("a_car_that_a_line_cannot_charge_in_time").broken_limits()
    p_pu, r, z_squared = 1.25, 0.02, 0.02**2 + 0.04**2
    v = np.sqrt(((1 - 2 * r * p_pu) + np.sqrt((1 - 2 * r * p_pu) ** 2 - 4 * z_squared * p_pu**2)) / 2)
    assert (table.excess / table.limit).tolist() == pytest.approx([p_pu / v - 1] * 2, abs=0.01)
    assert (table.excess / table.limit).mean() == pytest.approx(p_pu / v - 1, abs=1e-4)
    first, second = table.penalty_usd_per_h
    assert first == pytest.approx(second, rel=1e-12)
