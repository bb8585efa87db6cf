"""Services and blocks on statements: by hand to the cent, never paid twice, and the surplus with all its parts."""

import re
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from functools import cache

import numpy as np
import pandas as pd
import pytest
from cases import resource
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from settlementcases import (
    amounts,
    block_by_hand,
    capacity_by_hand,
    cents,
    readings,
    two_buses,
    with_services,
    without_loss,
)
from test_random_feeders import cases, numbers

from dlmp import Clearing, InfeasibleError, InputError, MarketCase, Settlement, clear, settle
from dlmp.services import SERVICES, no_offers, no_requirements
from dlmp.settlement.recovery import paid_twice


@cache
def by_hand() -> Clearing:
    return clear(capacity_by_hand())


def without_services(case: MarketCase) -> MarketCase:
    intervals = case.horizon.intervals
    none = no_offers(intervals), no_requirements(intervals, case.network.port_count)
    return replace(case, service_offers=none[0], requirements=none[1])


def parts(settlement: Settlement) -> dict[str, float]:
    sums = settlement.surplus.groupby("component").amount.sum()
    return {name: float(value) for name, value in sums.items() if abs(value) > Decimal("1e-6")}


def test_capacity_is_paid_its_nodal_price_to_the_cent():
    """The called state leaves the engine 40 kW of energy, so a kWh there is worth its 38 and a kW held ready its 5."""
    settlement = settle(by_hand())
    assert cents(settlement.totals()) == {
        "chp": "3.80",
        "engine": "1.77",
        "load": "-4.94",
        "substation": "-0.40",
        "operator": "-0.23",
    }
    row = settlement.table().query("product == 'capacity_up' and participant == 'engine'").iloc[0]
    assert (row.unit, row.price_unit) == ("kW-h", "USD/MW-h")
    assert (row.quantity, row.price) == pytest.approx((50.0, 5.0), rel=1e-6)
    assert amounts(settlement)["engine", "capacity_up"] == "0.25"


def test_the_operator_buys_what_is_required_and_the_line_collects_shadow_price_times_limit():
    """50 kW required at 7; the line's 2 per MW on 60 kW, of which 10 are energy and 50 the call."""
    assert parts(settle(by_hand())) == pytest.approx({"services": -0.35, "congestion": 0.12}, rel=1e-5)
    explanation = settle(by_hand()).surplus.set_index("component").explanation
    assert explanation["services"] == "the operator buys power that is held ready"


def test_each_limit_s_share_with_the_call_adds_up_to_the_rent():
    """The plant at 45 leaves 40 kW of import and holds 20 down: the call fills the line's 60 kVA, worth 5 per MW."""
    plant = resource("plant", "b", supply=[(130, 45)])
    case = with_services(
        without_loss(plant, rating_kva=60.0), ("plant", "capacity_down", 50.0, 1.0), capacity_down=20.0
    )
    found = clear(case)
    values = found.limit_values(found.awards.injection_kva(), found.services.reserved_kw)
    assert set(values.called) == {"capacity_down"}
    np.testing.assert_allclose(values.without, 0.0, atol=1e-3)
    assert -values.value_usd_per_h.sum() == pytest.approx(0.30, rel=1e-5)
    assert parts(settle(found)) == pytest.approx({"services": -0.12, "congestion": 0.30}, rel=1e-5)


def test_half_an_hour_of_capacity_is_half_of_it():
    case = capacity_by_hand()
    offers = replace(case.service_offers, duration_hours=np.full(2, 1.0))
    short = replace(case, horizon=replace(case.horizon, interval_minutes=30), service_offers=offers)
    assert parts(settle(clear(short))) == pytest.approx({"services": -0.175, "congestion": 0.06}, rel=1e-5)


def test_reactive_capacity_has_its_own_unit_and_price():
    """The plant's last kvar is worth its offer, for it has more of them than are required."""
    plant = resource("plant", "b", supply=[(100, 30)], q_kvar=(-40.0, 40.0))
    case = with_services(without_loss(plant), ("plant", "var_down", 30.0, 6.0), var_down=20.0)
    table = settle(clear(case)).table().query("product == 'var_down'")
    assert table[["unit", "price_unit"]].to_numpy().tolist() == [["kvar-h", "USD/MVAr-h"]]
    np.testing.assert_allclose([table.quantity.item(), table.price.item()], [20.0, 6.0], rtol=1e-6)


def test_a_voltage_that_a_call_raises_is_named_with_the_call():
    """The source's 1.05 is above the band of b, whose load brings it down; a call of all capacity would not."""
    plant = resource("chp", "b", supply=[(40, 41)])
    case = two_buses(plant, load=(60.0, 0.0), source=1.05, band=(0.5, 1.02))
    found = clear(with_services(case, ("chp", "capacity_up", 40.0, 1.0), shortage=500.0, capacity_up=40.0))
    assert set(found.binding_limits().called) == {"capacity_up"}
    table = settle(found).surplus.set_index("component")
    assert table.amount["voltage"] < Decimal("-0.1")
    said = r"bus b when capacity_up is called: 1\.05\d? pu without any net consumption, limit 1\.02 pu"
    assert re.fullmatch(said, table.explanation["voltage"]), "to first order"


def test_services_stand_where_the_real_time_market_has_none():
    now = clear(without_services(by_hand().case))
    settlement = settle(by_hand(), real_time=now)
    assert settlement.cost_recovery().is_paid_once
    table = settlement.table()
    assert amounts(settlement)["engine", "capacity_up"] == "0.25"
    assert not table["product"].str.startswith("capacity_up_").any()
    assert not settlement.surplus.component.str.startswith("services_").any()
    assert sum(settlement.totals().amount) == 0


def test_capacity_that_is_bought_back_is_paid_at_the_real_time_price():
    """20 kW less are required: the engine gives them as energy, 20 kWh at 38, and gives 20 kW-h back at 5."""
    settlement = settle(by_hand(), real_time=clear(capacity_by_hand(30.0)))
    assert amounts(settlement)["engine", "capacity_up_imbalance"] == "-0.10"
    assert amounts(settlement)["engine", "energy_imbalance"] == "0.76"
    assert parts(settlement)["services_imbalance"] == pytest.approx(0.14, rel=1e-5)
    assert settlement.cost_recovery().is_paid_once
    np.testing.assert_allclose(settlement.held.reserved["capacity_up"], [[0.0, 30.0]], atol=1e-6)


def test_an_offer_that_was_bought_day_ahead_may_not_be_missing_among_others_in_real_time():
    case = capacity_by_hand()
    offers = case.service_offers
    fewer = replace(offers, **{name: value[..., :1] for name, value in vars(offers).items()})
    now = clear(replace(case, service_offers=fewer))
    with pytest.raises(InputError) as caught:
        settle(by_hand(), real_time=now)
    assert [(problem.field, problem.value) for problem in caught.value.problems] == [
        ("service offer of engine", "capacity_up")
    ]


def test_what_is_only_offered_in_real_time_has_no_position():
    """The engine sold no capacity day-ahead: in real time it sells 30 kW-h at 5."""
    ahead = clear(without_services(capacity_by_hand()))
    settlement = settle(ahead, real_time=clear(capacity_by_hand(30.0)))
    assert amounts(settlement)["engine", "capacity_up_imbalance"] == "0.15"
    case = capacity_by_hand(0.0)
    offers = case.service_offers
    fewer = replace(offers, **{name: value[..., :1] for name, value in vars(offers).items()})
    other = settle(clear(replace(case, service_offers=fewer)), real_time=clear(capacity_by_hand(30.0)))
    assert amounts(other)["engine", "capacity_up_imbalance"] == "0.15"


def test_real_time_offers_in_another_order_are_the_same_offers():
    case = capacity_by_hand(30.0)
    offers = case.service_offers
    turned = replace(offers, **{name: value[..., ::-1] for name, value in vars(offers).items()})
    one, other = (settle(by_hand(), real_time=clear(replace(case, service_offers=own))) for own in (offers, turned))
    assert cents(one.totals()) == cents(other.totals())


def test_real_time_resources_in_another_order_hold_the_same_ready():
    one, other = (settle(by_hand(), real_time=clear(capacity_by_hand(30.0, turned=turned))) for turned in (False, True))
    assert cents(one.totals()) == cents(other.totals())
    np.testing.assert_allclose(other.held.reserved["capacity_up"], [[0.0, 30.0]], atol=1e-6)
    assert other.cost_recovery().is_paid_once


def test_a_call_that_is_metered_is_no_second_payment():
    """Energy beyond the award is what the capacity was held ready for."""
    metered = readings(by_hand())
    metered.loc[metered.resource == "engine", "net_injection_kwh"] = 90.0
    assert settle(by_hand(), metered=metered).cost_recovery().is_paid_once


def test_an_accepted_block_gets_what_prices_leave_it_short_of():
    """50 kW at 60 spare the peaker's 30 at 90; import then has room and makes the price, 40."""
    settlement = settle(clear(block_by_hand()))
    assert cents(settlement.totals()) == {"plant": "3.00", "load": "-10.40", "substation": "8.40", "operator": "-1.00"}
    row = settlement.table().query("product == 'make_whole'").iloc[0]
    assert (row.interval, row.resource, row.unit, row.price_unit) == (1, "plant", "payment", "USD/payment")
    assert parts(settlement) == pytest.approx({"make_whole": -1.0}, rel=1e-6)
    assert settlement.cost_recovery().is_paid_once


def test_make_whole_is_paid_once_and_day_ahead():
    found = clear(block_by_hand())
    settlement = settle(found, real_time=found)
    assert amounts(settlement)["plant", "make_whole"] == "1.00"
    assert sum(settlement.table()["product"].str.startswith("make_whole")) == 1


def test_two_blocks_of_a_resource_that_begin_together_are_one_payment():
    found = clear(block_by_hand())
    halves = replace(
        found.case.blocks, **{name: np.repeat(value, 2) for name, value in vars(found.case.blocks).items()}
    )
    halves = replace(halves, quantity_kw=np.array([20.0, 30.0]), name=np.array(["x", "y"]))
    case = replace(found.case, blocks=halves)
    blocks = replace(found.blocks, case=case, block_kw=found.blocks.block_kw * [0.4, 0.6])
    settlement = settle(replace(found, case=case, blocks=blocks))
    assert amounts(settlement)["plant", "make_whole"] == "1.00"
    assert settlement.cost_recovery().is_paid_once


def test_capacity_that_is_paid_twice_is_found():
    settlement = settle(by_hand())
    lines = settlement.lines
    row = int(np.flatnonzero((lines.product == "capacity_up") & (lines.quantity > 1))[0])
    twice = replace(lines, **{name: np.r_[value, value[[row]]] for name, value in vars(lines).items()})
    renamed = replace(twice, product=np.r_[lines.product, ["capacity_up_imbalance"]])
    for own, fields in ((twice, ["product", "capacity_up [kW-h]"]), (renamed, ["capacity_up [kW-h]"])):
        case = settlement.case
        found = paid_twice(own, case.resources, case.horizon, settlement.injected, settlement.held)
        assert [(problem.element, problem.field) for problem in found] == [
            ("resource engine, interval 0", field) for field in fields
        ]


VAR_PLANT = resource("plant", "b", supply=[(100, 30)], q_kvar=(-40.0, 40.0), s_max_kva=100.0)


@cache
def all_services() -> Clearing:
    """One plant that offers everything within 100 kVA, and holds a little of each ready."""
    offers = [("plant", service, 30.0, 1.0) for service in SERVICES]
    return clear(with_services(without_loss(VAR_PLANT), *offers, **dict.fromkeys(SERVICES, 10.0)))


@pytest.mark.parametrize(
    ("service", "fields"),
    [
        ("capacity_up", {"p_max_kw", "s_max_kva"}),
        ("capacity_down", {"p_min_kw", "s_max_kva"}),
        ("var_up", {"q_max_kvar", "s_max_kva"}),
        ("var_down", {"q_min_kvar", "s_max_kva"}),
    ],
)
def test_more_than_a_resource_has_for_energy_and_service_together_is_found(service: str, fields: set[str]):
    found = all_services()
    assert settle(found).cost_recovery().is_paid_once
    more = np.where(found.case.service_offers.service == service, 200.0, found.services.reserved_kw)
    sold = replace(found, services=replace(found.services, reserved_kw=more))
    violations = settle(sold).cost_recovery().violations
    assert {problem.field for problem in violations} == {f"{field}, called" for field in fields}
    assert {problem.element for problem in violations} == {"resource plant, interval 0"}


def test_capacity_beyond_what_is_available_is_found():
    """85 of the engine's 100 kW are there in the first hour: 5 less than were sold."""
    found = clear(capacity_by_hand(price=[40.0, 40.0]))
    resources = replace(found.case.resources, p_max_kw=np.array([[100.0, 85.0], [100.0, 100.0]]))
    sold = replace(found, case=replace(found.case, resources=resources))
    fields = [(problem.element, problem.field) for problem in settle(sold).cost_recovery().violations]
    assert fields == [("resource engine, interval 0", "p_max_kw, called")]


@st.composite
def served(draw: st.DrawFn) -> MarketCase:
    """A random small feeder on which bidders offer services too, and some are required at a price for what lacks."""
    case = draw(cases())
    chosen = draw(st.lists(st.sampled_from(SERVICES), min_size=1, max_size=2, unique=True))
    names = case.resources.name.tolist()
    offers = [(name, service, draw(numbers(1, 40)), draw(numbers(0, 9))) for name in names for service in chosen]
    required = {service: draw(numbers(1, 60)) for service in chosen}
    return with_services(case, *offers, shortage=draw(st.sampled_from([20.0, 200.0])), **required)


def settles_to_the_cent(case: MarketCase) -> None:
    """Payments and rents are the same money, nothing is sold twice, and limits of called states collect."""
    try:
        found = clear(case)
    except InfeasibleError:
        assume(False)
    settlement = settle(found)
    assert sum(settlement.totals().amount) == 0
    assert sum(settlement.lines.amount) + sum(settlement.surplus.amount) == 0
    assert settlement.cost_recovery().violations == ()
    table, surplus = settlement.table(), settlement.surplus
    size = float(table.amount.abs().sum())
    residue = surplus.amount[surplus.component == "residue"].astype(float)
    assert (residue.abs() <= 1e-8 * (len(table) + size)).all()
    bought = float(surplus.amount[surplus.component == "services"].sum())
    worth = case.requirements.quantity_kw * found.services.requirement_usd_per_mw_h / 1000
    is_met = found.services.shortage_kw < 1e-5  # what is short is paid its penalty, which is scarcity
    assert bought == pytest.approx(-worth[is_met].sum(), abs=1e-6 * (1 + size))
    assert ((surplus.explanation != "-") == (surplus.amount < 0)).all()
    assert (surplus.amount[surplus.component == "congestion"] > Decimal("-1e-6")).all()


RANDOM = {
    "derandomize": True,
    "database": None,
    "deadline": timedelta(seconds=20),
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.filter_too_much],
}


@settings(max_examples=60, **RANDOM)
@given(served())
def test_random_feeders_with_services_settle_to_the_cent(case: MarketCase):
    settles_to_the_cent(case)


@pytest.mark.nightly
@settings(max_examples=500, **RANDOM)
@given(served())
def test_many_random_feeders_with_services_settle_to_the_cent(case: MarketCase):
    settles_to_the_cent(case)


def test_the_table_of_services_pays_what_the_lines_pay():
    settlement, services = settle(all_services()), all_services().services
    table = settlement.table()
    paid = table[table["product"].isin(SERVICES)].groupby("product").amount.sum().astype(float)
    expected = pd.Series({name: total.paid_usd for name, total in services.totals().items()})
    np.testing.assert_allclose(paid[list(SERVICES)], expected[list(SERVICES)], atol=1e-7)
