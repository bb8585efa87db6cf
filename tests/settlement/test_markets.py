"""Settlements by hand: who is paid what on two buses, in one settlement and in two."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cases import CASES, resource
from settlementcases import amounts, cents, chp, readings, settled_by_hand, two_buses, with_participants

from dlmp import Clearing, InputError, clear, settle
from dlmp.services import SERVICES
from dlmp.settlement.lines import MAKE_WHOLE, PAID_ENERGY, PAID_REACTIVE_ENERGY, PRODUCTS
from dlmp.settlement.surplus import CAUSES


@cache
def by_hand() -> Clearing:
    return settled_by_hand()


def test_two_buses_settle_to_the_cent():
    """At b one kWh costs 40 x 1.25 = 50: 130 kWh of load pay 6.50, 40 kWh earn 2.00, 100 kWh of import cost 4.00."""
    settlement = settle(by_hand())
    assert cents(settlement.totals()) == {"chp": "2.00", "load": "-6.50", "substation": "4.00", "operator": "0.50"}
    assert amounts(settlement)["operator", "loss"] == "0.50", "a marginal loss of 10 on 90 kWh, less 10 kWh lost at 40"


def test_every_line_says_who_what_when_how_much_and_at_which_price():
    table = settle(by_hand()).table()
    rows = table[["participant", "resource", "interval", "product", "unit", "price_unit"]].apply(tuple, axis=1).tolist()
    assert rows[:3] == [
        ("chp", "chp", 0, "energy", "kWh", "USD/MWh"),
        ("load", "b", 0, "energy", "kWh", "USD/MWh"),
        ("substation", "import", 0, "energy", "kWh", "USD/MWh"),
    ]
    np.testing.assert_allclose(table.quantity[:3], [40, -130, 100], rtol=1e-9)
    np.testing.assert_allclose(table.price[:3], [50, 50, 40], rtol=1e-7)
    assert table.interval_start[0] == pd.Timestamp("2026-01-01T00:00Z")


def test_a_line_recomputed_from_its_printed_digits_is_the_same():
    table = settle(clear(CASES["day_33"]())).table()
    assert len(table) > 100
    for row in table.itertuples():
        product = Decimal(repr(row.quantity)) * Decimal(repr(row.price)) / 1000
        assert abs(product - row.amount) <= Decimal("0.5e-8")


def test_reactive_energy_has_its_own_price_and_lines():
    """A resistance takes no reactive power: what the load draws is what the substation sends, and is paid for."""
    var = resource("var", "b", supply=[(10, 900)], q_kvar=(-20.0, 0.0))
    case = two_buses(var, load=(0.0, 90.0), q_price_usd_per_mvarh=10.0)
    settlement = settle(clear(case))
    table = settlement.table()
    reactive = table[table["product"] == "reactive_energy"]
    assert set(reactive.participant) == {"load", "substation"}, "nobody draws more at a price above zero"
    assert (reactive.unit + reactive.price_unit == "kvarhUSD/MVArh").all()
    sent = reactive[reactive.participant == "substation"]
    np.testing.assert_allclose(sent.quantity, 90.0, rtol=1e-9)
    np.testing.assert_allclose([float(amount) for amount in sent.amount], 0.9, rtol=1e-9)


def test_intervals_of_five_minutes_pay_a_twelfth():
    case = two_buses(chp())
    short = replace(case, horizon=replace(case.horizon, interval_minutes=5))
    whole, part = settle(by_hand()).table(), settle(clear(short)).table()
    np.testing.assert_allclose(part.quantity * 12, whole.quantity, rtol=1e-9, atol=1e-9)


def test_a_participant_gets_one_statement_for_all_its_resources():
    case = two_buses(chp(20.0), resource("second", "b", supply=[(20, 31)]))
    settlement = settle(clear(with_participants(case, "aggregator", "aggregator")))
    assert cents(settlement.totals())["aggregator"] == "2.00"
    own = settlement.statements().query("participant == 'aggregator'")
    assert own.resource.tolist() == ["chp", "second", "-"]
    assert own["product"].tolist() == ["energy", "energy", "rounding"]


def test_a_meter_with_gaps_is_deemed_as_awarded_and_the_statement_says_so():
    """Two hours of 40 kW at 50, of which the second is read as 30 kWh; the first stands as awarded."""
    clearing = clear(two_buses(chp(), price=[40.0, 40.0]))
    metered = readings(clearing)[1:].assign(net_injection_kwh=30.0)
    settlement = settle(clearing, real_time=clearing, metered=metered, deem_missing=True)
    rows = settlement.statements().set_index(["participant", "product"])
    assert rows.loc[("chp", "deemed_as_awarded"), ["resource", "quantity", "unit", "amount"]].tolist() == [
        *("chp", 1.0, "interval", Decimal(0)),
    ]
    assert cents(settlement.totals())["chp"] == "3.50", "4.00 day-ahead less 10 kWh at 50"
    whole = settle(clearing, real_time=clearing, metered=readings(clearing)).statements()
    assert "deemed_as_awarded" not in set(whole["product"])


def test_metered_energy_is_paid_at_the_price_and_what_is_missing_is_the_operator_s():
    """30 kWh in place of 40: 0.50 less for the generator, which the operator has neither sold nor bought."""
    metered = readings(by_hand()).assign(net_injection_kwh=30.0)
    settlement = settle(by_hand(), metered=metered)
    assert cents(settlement.totals()) == {"chp": "1.50", "load": "-6.50", "substation": "4.00", "operator": "1.00"}
    assert amounts(settlement)["operator", "unaccounted"] == "0.50"


def test_meters_without_reactive_energy_leave_it_as_awarded():
    clearing = clear(CASES["day_33"]())
    metered = readings(clearing)
    assert (metered.q_kvarh != 0).any()
    pd.testing.assert_frame_equal(
        settle(clearing, metered=metered.drop(columns="q_kvarh")).table(), settle(clearing).table()
    )


@cache
def real_time() -> Clearing:
    """Import costs twice as much, the load is 10 kW higher and the generator has as much more."""
    return clear(two_buses(chp(50.0), price=80.0, load=(140.0, 0.0)))


def test_of_two_settlements_deviations_are_paid_at_real_time_prices():
    """The flow is the same, so one kWh at b costs 100: 10 kWh more are 1.00 for both sides."""
    settlement = settle(by_hand(), real_time=real_time())
    assert cents(settlement.totals()) == {"chp": "3.00", "load": "-7.50", "substation": "4.00", "operator": "0.50"}
    parts = amounts(settlement)
    assert (parts["chp", "energy"], parts["chp", "energy_imbalance"]) == ("2.00", "1.00")
    assert (parts["load", "energy"], parts["load", "energy_imbalance"]) == ("-6.50", "-1.00")


def test_who_delivers_less_than_its_position_buys_the_rest_back_at_the_real_time_price():
    metered = readings(real_time()).assign(net_injection_kwh=30.0)
    settlement = settle(by_hand(), real_time=real_time(), metered=metered)
    assert amounts(settlement)["chp", "energy_imbalance"] == "-1.00", "30 - 40 kWh at 100"
    assert cents(settlement.totals())["chp"] == "1.00"
    assert amounts(settlement)["operator", "unaccounted_imbalance"] == "2.00", "20 kWh of the award did not come"
    assert sum(settlement.totals().amount) == 0


def test_a_day_that_goes_as_planned_has_no_imbalance():
    settlement = settle(by_hand(), real_time=by_hand())
    pd.testing.assert_frame_equal(settlement.table(), settle(by_hand()).table())


def test_real_time_resources_may_stand_in_another_order():
    offers = [chp(), resource("second", "b", supply=[(10, 45)])]
    ahead, now = clear(two_buses(*offers)), clear(two_buses(*offers[::-1], price=30.0))
    same = clear(two_buses(*offers, price=30.0))
    one, other = settle(ahead, real_time=now), settle(ahead, real_time=same)
    assert cents(one.totals()) == cents(other.totals())
    second = one.table().query("participant == 'second'")
    np.testing.assert_allclose(second.quantity, [10, -10], rtol=1e-9)


def test_what_does_not_fit_together_is_told_all_at_once():
    case = real_time().case
    other = two_buses(resource("wind", "b", supply=[(5, 1)]), resource("chp", "a", supply=[(5, 1)]))
    horizon = replace(other.horizon, start=case.horizon.start + timedelta(days=1), interval_minutes=15, currency="EUR")
    strange = replace(clear(replace(other, horizon=horizon)), status="not_converged")
    with pytest.raises(InputError) as caught:
        settle(by_hand(), real_time=strange)
    assert [(problem.element, problem.field, problem.value) for problem in caught.value.problems] == [
        ("real_time", "status", "not_converged"),
        ("real_time", "horizon.start", "2026-01-02 00:00:00+00:00"),
        ("real_time", "horizon.interval_minutes", "15"),
        ("real_time", "horizon.currency", "EUR"),
        ("real_time", "resource", "wind"),
        ("real_time", "resource", "chp"),
    ]


def test_another_network_is_no_real_time_of_this_market():
    with pytest.raises(InputError, match=r"33 ports of .*buses and phases, in the same order: 2"):
        settle(by_hand(), real_time=clear(CASES["undervoltage_33"]()))


def test_a_resource_that_is_missing_in_real_time_is_named():
    with pytest.raises(InputError, match=r"chp.*is missing; the day-ahead market has it"):
        settle(by_hand(), real_time=clear(two_buses(resource("wind", "b", supply=[(5, 1)]))))


def test_a_further_product_is_one_function(monkeypatch):
    """A fee of 1.25 for every kWh injected, by a function that is added to the list of products."""

    def fee(stage):
        (energy, *_) = PRODUCTS[0](stage)
        return [replace(energy, product="fee", price=np.full(len(energy.price), -1250.0))]

    monkeypatch.setattr("dlmp.settlement.markets.PRODUCTS", (*PRODUCTS, fee))
    settlement = settle(by_hand())
    assert amounts(settlement)["chp", "fee"] == "-50.00"
    assert sum(settlement.totals().amount) == 0


def test_every_product_and_cause_is_in_the_documentation():
    text = (Path(__file__).parents[2] / "docs" / "settlement.md").read_text("utf-8")
    settlement = settle(by_hand(), real_time=real_time(), metered=readings(real_time()).assign(net_injection_kwh=30.0))
    names = {
        *PAID_ENERGY,
        *PAID_REACTIVE_ENERGY,
        *SERVICES,
        MAKE_WHOLE,
        *(cause.name for cause in CAUSES),
        "residue",
        "rounding",
    }
    assert {name for name in names if f"`{name}`" not in text} == set()
    assert set(settlement.table()["product"]) <= names
