"""Cost recovery: who was paid for what, and that a second payment for the same is found."""

from dataclasses import fields, replace
from functools import cache

import numpy as np
import pytest
from cases import CASES
from settlementcases import chp, readings, two_buses

from dlmp import Clearing, Settlement, clear, settle
from dlmp.market import simple_case
from dlmp.settlement.lines import Lines
from dlmp.settlement.recovery import paid_twice


@cache
def day() -> Clearing:
    return clear(CASES["day_33"]())


def repeated(lines: Lines, rows: list[int], **change: object) -> Lines:
    """The lines and some of them again, with other values in some field."""
    more = {item.name: getattr(lines, item.name)[rows] for item in fields(lines)}
    more |= {name: np.array([value] * len(rows)) for name, value in change.items()}
    return Lines(**{name: np.concatenate([getattr(lines, name), values]) for name, values in more.items()})


def violations(settlement: Settlement, lines: Lines | None = None) -> list[tuple[str, str]]:
    case = settlement.case
    found = paid_twice(lines or settlement.lines, case.resources, case.horizon, settlement.injected, settlement.held)
    return [(problem.element, problem.field) for problem in found]


def test_the_report_has_every_line_of_a_resource_and_no_other():
    settlement = settle(day())
    recovery = settlement.cost_recovery()
    table = settlement.table()
    own = table[~table.participant.isin(["load", "substation"])].reset_index(drop=True)
    assert recovery.table.equals(own)
    assert {"participant", "resource", "interval", "product", "quantity", "price", "amount"} <= set(own.columns)
    assert set(own.resource) == set(settlement.case.resources.name)
    assert recovery.is_paid_once


def test_settled_energy_is_what_was_injected():
    awards, table = day().awards, settle(day()).cost_recovery().table
    for index, name in enumerate(day().case.resources.name):
        own = table[(table.resource == name) & (table["product"] == "energy")]
        expected = awards.net_injection_kw[:, index]
        np.testing.assert_array_equal(own.quantity, expected[expected != 0])


def test_two_settlements_together_pay_for_what_was_metered_and_no_more():
    metered = readings(day())
    metered["net_injection_kwh"] *= 0.7
    settlement = settle(day(), real_time=day(), metered=metered)
    assert settlement.cost_recovery().is_paid_once
    table = settlement.cost_recovery().table
    kinds = table["product"].isin(["energy", "energy_imbalance"])
    energy = table[kinds].groupby(["resource", "interval"]).quantity.sum()
    expected = metered.set_index(["resource", "interval"]).net_injection_kwh
    np.testing.assert_allclose(energy, expected.reindex(energy.index), rtol=1e-12)


def test_a_line_that_stands_twice_is_found():
    settlement = settle(day())
    row = int(np.flatnonzero(settlement.lines.participant == "pump")[0])
    assert violations(settlement) == []
    at = f"resource pump, interval {settlement.lines.interval[row]}"
    assert violations(settlement, repeated(settlement.lines, [row])) == [(at, "product"), (at, "energy [kWh]")]


def test_the_same_energy_under_another_product_or_for_another_participant_is_found():
    settlement = settle(day())
    row = int(np.flatnonzero(settlement.lines.participant == "pump")[0])
    at = f"resource pump, interval {settlement.lines.interval[row]}"
    for change in ({"product": "energy_imbalance"}, {"participant": "somebody"}):
        found = violations(settlement, repeated(settlement.lines, [row], **change))
        assert (at, "energy [kWh]") in found


def test_reactive_energy_is_counted_too():
    settlement = settle(day())
    is_reactive = (settlement.lines.product == "reactive_energy") & (settlement.lines.participant == "solar 17")
    row = int(np.flatnonzero(is_reactive)[0])
    found = violations(settlement, repeated(settlement.lines, [row], product="reactive_energy_imbalance"))
    assert [field for _, field in found] == ["reactive energy [kvarh]"]


def test_energy_that_was_injected_and_not_settled_is_found():
    settlement = settle(day())
    pump = day().awards.net_injection_kw[:, list(day().case.resources.name).index("pump")]
    kept = np.flatnonzero(settlement.lines.participant != "pump")
    lines = Lines(**{item.name: getattr(settlement.lines, item.name)[kept] for item in fields(settlement.lines)})
    assert [element for element, _ in violations(settlement, lines)] == [
        f"resource pump, interval {interval}" for interval in np.flatnonzero(pump)
    ]


def test_a_line_of_a_resource_that_there_is_not_is_found():
    settlement = settle(day())
    found = violations(settlement, repeated(settlement.lines, [0], resource="ghost"))
    assert found == [(f"line {len(settlement.lines)}", "resource")]


@pytest.mark.parametrize(
    ("field", "column", "value"),
    [
        ("p_max_kw", "net_injection_kwh", 2000.5),
        ("p_min_kw", "net_injection_kwh", -0.5),
        ("s_max_kva", "q_kvarh", 2001),
    ],
)
def test_more_than_the_rating_is_found(field: str, column: str, value: float):
    metered = readings(day())
    at = metered.index[(metered.resource == "solar 17") & (metered.interval == 1)]
    metered.loc[at, column] = value
    recovery = settle(day(), metered=metered).cost_recovery()
    assert not recovery.is_paid_once
    elements = {(problem.element, problem.field) for problem in recovery.violations}
    assert ("resource solar 17, interval 1", field) in elements
    assert elements <= {("resource solar 17, interval 1", name) for name in (field, "s_max_kva")}


def test_power_of_short_intervals_is_held_against_the_rating_not_their_energy():
    case = day().case
    short = clear(replace(case, horizon=replace(case.horizon, interval_minutes=5)))
    assert settle(short).cost_recovery().is_paid_once
    metered = readings(short)
    metered.loc[metered.resource == "pump", "net_injection_kwh"] = -300.0 / 12 - 0.1
    fields_found = {problem.field for problem in settle(short, metered=metered).cost_recovery().violations}
    assert fields_found == {"p_min_kw"}


def test_where_nobody_bids_nobody_is_paid():
    recovery = settle(clear(simple_case(two_buses(chp()).network, 40.0))).cost_recovery()
    assert len(recovery.table) == 0
    assert recovery.is_paid_once
