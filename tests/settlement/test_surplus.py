"""The operator's surplus by cause: by hand, against independent derivatives, and why it is negative where it is."""

from dataclasses import replace
from decimal import Decimal
from functools import cache

import numpy as np
import pytest
from acopf import solve_acopf
from cases import CASES, feeder33, generators33, market, rated, resource
from infeasible import DAYS
from settlementcases import amounts, chp, readings, settled_by_hand, two_buses
from test_acopf_phases import priced
from unbalanced import unbalanced

from dlmp import Clearing, Settings, Settlement, clear, settle
from dlmp.market import MarketCase
from dlmp.powerflow import PowerFlow
from dlmp.prices import COMPONENTS
from dlmp.units import BASE_KVA


@cache
def cleared(name: str) -> Clearing:
    return clear(CASES[name]())


def rents(settlement: Settlement) -> dict[str, float]:
    """Money by component over all intervals."""
    return {name: float(sum(own.amount)) for name, own in settlement.surplus.groupby("component", sort=False)}


def why(settlement: Settlement, component: str, interval: int = 0) -> str:
    rows = settlement.surplus.query("component == @component and interval == @interval")
    return str(rows.explanation.item())


def left_over(settlement: Settlement) -> float:
    """Load payments less payments to resources and to the substation, from quantities and prices as floats."""
    table = settlement.table()
    return -float((table.quantity * table.price).sum()) / 1000


def test_losses_collect_twice_what_they_cost():
    """The component of loss is 10 at b: 90 kWh bring 0.90, and 10 kWh lost at 40 cost 0.40."""
    parts = rents(settle(settled_by_hand()))
    assert parts["loss"] == pytest.approx(0.50, abs=1e-7)
    assert {name: value for name, value in parts.items() if abs(value) > 1e-7} == {"loss": parts["loss"]}


def test_congestion_collects_at_least_shadow_price_times_limit():
    """A current of 1 pu leaves 90 kW for b, at the generator's 90: 40 more than energy and losses.

    The limit's multiplier is 40 dp/dI = 32 per MW, so limit times shadow price are 3.20; the current grows faster
    than the load, ``dI/dp p/I = 1.125``, and 90 kWh at 40 are 3.60.
    """
    found = clear(two_buses(chp(60.0, 90.0), rating=1.0))
    parts = rents(settle(found))
    binding = found.binding_limits()
    assert amounts(settle(found))["chp", "energy"] == "3.60"
    shadow = (binding.shadow_price_usd_per_h * binding.limit).sum()
    np.testing.assert_allclose([shadow, parts["congestion"], parts["loss"]], [3.2, 3.6, 0.5], rtol=1e-6)


def test_where_flows_are_proportional_congestion_is_shadow_price_times_limit():
    network = two_buses(chp()).network
    network = replace(network, rating_is_current=np.array([False]), rating_from_pu=np.ones(1), rating_to_pu=np.ones(1))
    case = replace(two_buses(chp(60.0, 90.0)), network=network)
    found = clear(case, Settings(formulation="lindistflow", losses="none"))
    binding = found.binding_limits()
    assert list(binding.component) == ["congestion"]
    shadow = float((binding.shadow_price_usd_per_h * binding.limit).sum())
    assert rents(settle(found))["congestion"] == pytest.approx(shadow, rel=1e-9)
    assert shadow > 4.0


def test_a_voltage_limit_collects_what_the_load_takes_of_its_band():
    """0.9 at b is the same 90 kW at 90.  ``dv/dp = -0.125``: without load v is 1.0125 to first order."""
    found = clear(two_buses(chp(60.0, 90.0), band=(0.9, 1.1)))
    assert rents(settle(found))["voltage"] == pytest.approx(3.6, rel=1e-6)
    values = found.limit_values(np.array([[0.0, -90.0]]))
    assert (values.component.item(), values.name.item(), values.unit.item()) == ("voltage", "bus b", "pu")
    np.testing.assert_allclose([values.limit.item(), values.without.item()], [0.9, 1.0125], rtol=1e-7)
    assert values.value_usd_per_h.item() == pytest.approx(-3.6, rel=1e-6)


def test_an_import_limit_collects_the_worth_of_import_beyond_its_price():
    """100 kW of import leave the same 90 kW at 90, so import is worth 90 / 1.25 = 72: 32 more than it costs."""
    parts = rents(settle(clear(two_buses(chp(60.0, 90.0), p_max_kw=100.0))))
    np.testing.assert_allclose([parts["import_limit"], parts["loss"]], [3.2, 0.9], rtol=1e-6)


def test_a_voltage_that_the_source_alone_would_break_costs_money_and_says_so():
    """At 1.05 without load and a limit of 1.04 somebody is paid to draw 10.4 kW: 40 a MWh, sold to it at 10."""
    eater = resource("eater", "b", kind="load", demand=[(100, 10)])
    case = two_buses(eater, load=(0.0, 0.0), band=(0.9, 1.04), source=1.05)
    settlement = settle(clear(case))
    current = 0.1
    drawn, slope = current * (1.05 - 0.1 * current), 1.05 / (1.05 - 0.2 * current)
    expected = (10 - 40 * slope) * drawn * BASE_KVA / 1000
    assert rents(settlement)["voltage"] == pytest.approx(expected, rel=1e-6)
    assert why(settlement, "voltage") == "bus b: 1.05 pu without any net consumption, limit 1.04 pu"
    assert why(settlement, "loss") == "-"


def test_losses_that_the_load_does_not_make_cost_money_and_say_so():
    """A shunt that takes more than the line loses."""
    settlement = settle(clear(two_buses(chp(), load=(45.0, 0.0), shunt=0.1)))
    assert rents(settlement)["loss"] < -0.1
    assert why(settlement, "loss") == "losses that do not grow with the load exceed what marginal losses collect"


def test_at_a_negative_price_losses_cost_the_operator_what_they_would_bring():
    eater = resource("eater", "b", kind="load", demand=[(1, -100)])
    settlement = settle(clear(two_buses(eater, price=-40.0, load=(90.0, 0.0))))
    assert rents(settlement)["loss"] == pytest.approx(-0.5, rel=1e-6)
    assert why(settlement, "loss") == "the price of energy is negative: losing energy is paid"


def test_import_that_is_forced_costs_the_operator_and_says_so():
    eater = resource("eater", "b", kind="load", demand=[(100, 10)])
    settlement = settle(clear(two_buses(eater, load=(0.0, 0.0), p_min_kw=50.0)))
    assert rents(settlement)["import_limit"] < -1.0
    assert why(settlement, "import_limit").startswith("import, or its export, is held away")


ROUNDED = 0.5e-8
"""Most that rounding adds to a line, or to a part of the surplus."""


@pytest.mark.parametrize(
    "name",
    [
        *("undervoltage_reactive_33", "congestion_power_33", "overvoltage_reactive_33", "negative_price_33"),
        *("import_cap_33", "export_cap_33", "reactive_price_33", "heavy_33", "two_sources_33", "day_33"),
        "transformer_meshed_cigre",
    ],
)
def test_the_parts_add_up_to_load_payments_less_what_is_paid_out(name: str):
    settlement = settle(cleared(name))
    parts = rents(settlement)
    residue = parts.pop("residue")
    assert sum(parts.values()) == pytest.approx(left_over(settlement), rel=1e-9, abs=1e-9)
    width = len(settlement.table()) + len(settlement.surplus)
    assert abs(residue) <= ROUNDED * width + 1e-9 * abs(left_over(settlement))


@pytest.mark.parametrize("name", ["undervoltage_33", "congestion_current_33", "import_cap_33", "transformer_cigre"])
def test_the_whole_surplus_is_that_of_the_oracle_s_prices(name: str):
    case = CASES[name]()
    oracle = solve_acopf(case)
    consumed = case.load_p_kw + 1j * case.load_q_kvar - (oracle.p_kw + 1j * oracle.q_kvar) @ case.resources.share
    paid = (oracle.price_p * consumed.real + oracle.price_q * consumed.imag).sum()
    bought = case.substation.price_usd_per_mwh @ oracle.import_p_kw
    bought += case.substation.q_price_usd_per_mvarh @ oracle.import_q_kvar
    expected = (paid - bought) * case.horizon.interval_hours / 1000
    assert sum(rents(settle(cleared(name))).values()) == pytest.approx(expected, rel=1e-4)


def scaled(case: MarketCase, found: Clearing, share: float) -> tuple[float, float, float]:
    """Current of line 2 [A], losses [kW] and reactive losses with all net consumption times `share`."""
    flow = PowerFlow(case.network)
    state_pu, converged = flow.solve(share * found.awards.injection_kva() / BASE_KVA)
    assert converged.all()
    v = flow.voltages(state_pu[0])
    branch = list(case.network.branch).index("line 2")
    current = np.abs(case.network.from_admittance[[branch]] @ v).item()
    lost = v @ np.conj(case.network.admittance @ v)
    base_a = case.network.current_base_a[case.network.from_node[branch]]
    return current * base_a, lost.real * BASE_KVA, lost.imag * BASE_KVA


def test_rents_are_shadow_prices_by_finite_differences_of_another_solver_s_cost():
    """The rent of a limit is what it is worth, times how fast it fills as the whole load grows; losses alike."""

    def limited(ampere: float) -> MarketCase:
        return market(rated(feeder33(), "line 2", ampere=ampere), 20.0, *generators33())

    found, step = clear(limited(100.0)), 1e-4
    shadow = (solve_acopf(limited(99.9)).cost - solve_acopf(limited(100.1)).cost) / 0.2
    low, at, high = (scaled(found.case, found, share) for share in (1 - step, 1.0, 1 + step))
    slope = [(one - other) / (2 * step) for one, other in zip(high, low, strict=True)]
    assert at[0] == pytest.approx(100.0, rel=1e-6)
    parts = rents(settle(found))
    assert parts["congestion"] == pytest.approx(shadow * slope[0], rel=1e-3)
    assert parts["loss"] == pytest.approx(0.02 * (slope[1] - at[1]), rel=1e-6)


@pytest.mark.parametrize(
    "name",
    ["congestion_current_33", "congestion_power_33", "congestion_meshed_33", "congestion_69", "transformer_cigre"],
)
def test_congestion_never_costs_the_operator(name: str):
    """Convexity: each limit collects at least its worth times the room that it has without net consumption."""
    found = cleared(name)
    consumed = found.awards.injection_kva()
    values = found.limit_values(consumed)
    values = values[values.component == "congestion"]
    assert len(values)
    assert (values.value_usd_per_h < 0).all()
    flow = PowerFlow(found.case.network)
    idle = np.abs(found.case.network.from_admittance @ flow.voltages(flow.no_load_pu)).max()
    assert (values.without <= idle * found.case.network.current_base_a.max() + 1e-6).all()
    total = -values.value_usd_per_h.sum() * found.case.horizon.interval_hours
    assert rents(settle(found))["congestion"] == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize("name", ["undervoltage_33", "overvoltage_33", "undervoltage_reactive_33", "congestion_69"])
def test_each_limit_s_share_adds_up_to_the_rent_of_its_cause(name: str):
    found = cleared(name)
    values = found.limit_values(found.awards.injection_kva())
    parts = rents(settle(found))
    for cause in ("congestion", "voltage"):
        total = -values.value_usd_per_h[values.component == cause].sum()
        assert parts[cause] == pytest.approx(total, rel=1e-9, abs=1e-7)


@pytest.mark.parametrize("name", [name for name in DAYS if "33" not in name])
def test_the_parts_add_up_where_limits_are_broken_and_say_why_they_are_negative(name: str):
    found = clear(DAYS[name].build())
    settlement = settle(found)
    parts = rents(settlement)
    assert "scarcity" in parts
    residue = parts.pop("residue")
    assert sum(parts.values()) == pytest.approx(left_over(settlement), rel=1e-9, abs=1e-9)
    assert abs(residue) <= ROUNDED * (len(settlement.table()) + len(settlement.surplus)) + 1e-9 * abs(
        left_over(settlement)
    )
    table = settlement.surplus
    is_negative = np.array([amount < Decimal(0) for amount in table.amount])
    assert (table.explanation[is_negative].str.len() > 1).all()
    assert (table.explanation[~is_negative] == "-").all()


def test_a_broken_line_collects_its_penalty_for_all_that_it_carries():
    """2 pu through a line of 1.5 without losses: everything at b pays what one more MW in the line costs."""
    case = clear(DAYS["overloaded_line"].build()).case
    found = clear(case, Settings(formulation="lindistflow", losses="none"))
    (row,) = found.broken_limits().itertuples()
    parts = rents(settle(found))
    assert parts["scarcity"] == pytest.approx(row.penalty_usd_per_h * row.value, rel=1e-3)
    assert not any(amount for name, amount in parts.items() if name not in ("scarcity", "residue"))
    values = found.limit_values(found.awards.injection_kva())
    assert values.component.tolist() == ["scarcity"]
    assert parts["scarcity"] == pytest.approx(-values.value_usd_per_h.item(), rel=1e-9)


def test_a_voltage_that_stays_broken_costs_money_where_the_source_alone_breaks_it_and_says_so():
    """At 1.05 without load and a limit of 1.02: what little there is to draw is paid, and the rest is broken."""
    eater = resource("eater", "b", kind="load", demand=[(10, 10)])
    settlement = settle(clear(two_buses(eater, load=(0.0, 0.0), band=(0.9, 1.02), source=1.05)))
    assert rents(settlement)["scarcity"] < -1.0
    assert why(settlement, "scarcity") == "bus b: 1.05 pu without any net consumption, limit 1.02 pu"


def test_export_beyond_its_most_is_paid_by_who_makes_it():
    settlement = settle(clear(DAYS["export_cap_below_what_must_run"].build()))
    assert rents(settlement)["scarcity"] > 100.0, "the sun pays 4000 for each MWh"
    forced = two_buses(resource("eater", "b", kind="load", demand=[(10, 10)]), load=(5.0, 0.0), p_min_kw=100.0)
    assert why(settle(clear(forced)), "scarcity").startswith("import is below its least")


def by_phase() -> MarketCase:
    """Three phases, pairs, loads that follow their voltage, and two prices."""
    return priced(unbalanced(), 40.0, 25.0)


def test_loads_that_follow_their_voltage_pay_for_what_they_draw():
    case = by_phase()
    found, oracle = clear(case), solve_acopf(case)
    law, ports = case.network.law, case.network.port_count
    size = np.abs(oracle.v @ case.network.incidence[law.port].T) / law.base_pu
    expected = (case.load_p_kw + 1j * case.load_q_kvar)[:, ports:] * size**law.exponent
    np.testing.assert_allclose(found.load_kva[:, ports:], expected, rtol=1e-5)
    assert np.abs(expected / (case.load_p_kw + 1j * case.load_q_kvar)[:, ports:] - 1).max() > 0.01
    bought = settle(found).table().query("participant == 'load' and product == 'energy'").quantity.sum()
    assert bought == pytest.approx(-found.load_kva.real.sum(), rel=1e-12)


def test_what_is_lost_is_what_branches_and_shunts_take():
    found = clear(by_phase())
    parts = rents(settle(found))
    v = found._dispatch.point.v_pu
    taken = (v * np.conj((found.case.network.admittance @ v.T).T)).real.sum(axis=1) * BASE_KVA
    consumed = found.load_kva.real.sum(axis=1) - found.awards.net_injection_kw.sum(axis=1)
    np.testing.assert_allclose(found.import_kw - consumed, taken, rtol=1e-7)
    assert sum(parts.values()) == pytest.approx(left_over(settle(found)), abs=1e-7)


def test_deviations_split_by_the_same_causes_at_real_time_prices():
    ahead = cleared("day_33")
    case = replace(ahead.case, load_p_kw=ahead.case.load_p_kw * 1.07, load_q_kvar=ahead.case.load_q_kvar * 0.98)
    now = clear(case)
    metered = readings(now)
    metered["net_injection_kwh"] *= 0.9
    settlement = settle(ahead, real_time=now, metered=metered)
    parts = rents(settlement)
    assert {"loss", "loss_imbalance", "voltage_imbalance", "unaccounted_imbalance"} <= parts.keys()
    assert "unaccounted" not in parts
    residue = parts.pop("residue")
    assert sum(parts.values()) == pytest.approx(left_over(settlement), rel=1e-9)
    assert abs(residue) < ROUNDED * (len(settlement.table()) + len(settlement.surplus))
    same = rents(settle(ahead))
    for cause in ("loss", "voltage", "import_limit"):
        assert parts[cause] == same[cause], "the first settlement stands"
    table = settlement.surplus
    negative = table[[amount < Decimal(0) for amount in table.amount]]
    assert (negative.explanation != "-").all()
    assert (table.explanation[~table.index.isin(negative.index)] == "-").all()


def test_components_of_the_surplus_are_those_of_the_price():
    assert {"loss", "congestion", "voltage", "unbalance", "scarcity"} == set(COMPONENTS) - {"energy"}
    assert set(rents(settle(settled_by_hand()))) == {"loss", "congestion", "voltage", "import_limit", "residue"}
