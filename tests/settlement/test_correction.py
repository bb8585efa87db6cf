"""Corrections: deltas that lead from the settlement before to the one after, and nothing else."""

from dataclasses import replace
from decimal import Decimal
from functools import cache

import numpy as np
import pytest
from cases import CASES
from settlementcases import cents, readings, settled_by_hand, with_participants

from dlmp import Clearing, InputError, Settlement, clear, correct, settle
from dlmp.settlement.correction import LINE_KEYS, STATEMENT_KEYS


@cache
def day() -> Clearing:
    return clear(CASES["day_33"]())


def ledger(settlement: Settlement) -> dict[tuple, Decimal]:
    """Amounts by key, the operator's included."""
    table, rents = settlement.table(), settlement.surplus
    lines = dict(zip(map(tuple, table[LINE_KEYS].to_numpy().tolist()), table.amount, strict=True))
    keys = [("operator", "-", row.interval, row.component, "-") for row in rents.itertuples()]
    return lines | dict(zip(keys, rents.amount, strict=True))


def added(before: dict[tuple, Decimal], rows, keys: list[str]) -> dict[tuple, Decimal]:
    result = dict(before)
    for *key, amount in rows[[*keys, "amount"]].itertuples(index=False, name=None):
        result[tuple(key)] = result.get(tuple(key), Decimal(0)) + amount
    return result


def nonzero(amounts: dict[tuple, Decimal]) -> dict[tuple, Decimal]:
    return {key: value for key, value in amounts.items() if value}


def statements(settlement: Settlement) -> dict[tuple, Decimal]:
    rows = settlement.statements()
    return added({}, rows, STATEMENT_KEYS)


def assert_leads_over(previous: Settlement, settlement: Settlement) -> None:
    correction = correct(previous, settlement)
    assert nonzero(added(ledger(previous), correction.table(), LINE_KEYS)) == nonzero(ledger(settlement))
    assert nonzero(added(statements(previous), correction.statements(), STATEMENT_KEYS)) == nonzero(
        statements(settlement)
    )
    totals = added({}, previous.totals(), ["participant"])
    assert nonzero(added(totals, correction.totals(), ["participant"])) == nonzero(
        added({}, settlement.totals(), ["participant"])
    )
    assert sum(correction.table().amount) == 0
    assert sum(correction.totals().amount) == 0


def test_a_corrected_reading_changes_its_own_lines_and_the_operator_s_only():
    """30 kWh in place of 40 at 50: 0.50 back."""
    found = settled_by_hand()
    correction = correct(settle(found), settle(found, metered=readings(found).assign(net_injection_kwh=30.0)))
    assert cents(correction.totals()) == {"chp": "-0.50", "operator": "0.50"}
    table = correction.table()
    line = table[table.participant == "chp"]
    assert line["product"].tolist() == ["energy"]
    np.testing.assert_allclose(line.quantity, [-10.0])
    assert set(table[table.participant == "operator"]["product"]) <= {"unaccounted", "residue"}


def test_without_a_change_there_is_no_delta():
    correction = correct(settle(day()), settle(day(), metered=readings(day())))
    assert correction.is_empty
    assert len(correction.table()) == len(correction.statements()) == len(correction.totals()) == 0


def test_corrected_prices_change_every_account():
    case = day().case
    dearer = replace(case.substation, price_usd_per_mwh=case.substation.price_usd_per_mwh * 1.01)
    after = settle(clear(replace(case, substation=dearer)))
    correction = correct(settle(day()), after)
    assert not correction.is_empty
    assert {"load", "substation", "operator", "pump"} <= set(correction.totals().participant)
    assert_leads_over(settle(day()), after)


def test_lines_that_go_and_lines_that_come_are_deltas_too():
    metered = readings(day())
    metered.loc[metered.resource == "pump", "net_injection_kwh"] = 0.0
    without = settle(day(), metered=metered)
    assert "pump" not in set(without.table().participant)
    assert_leads_over(settle(day()), without)
    assert_leads_over(without, settle(day()))


def test_another_owner_takes_over_what_was_paid():
    case = settled_by_hand().case
    sold = settle(clear(with_participants(case, "buyer")))
    correction = correct(settle(settled_by_hand()), sold)
    assert cents(correction.totals()) == {"chp": "-2.00", "buyer": "2.00"}


def test_imbalances_are_corrected_like_positions():
    metered = readings(day())
    first = settle(day(), real_time=day(), metered=metered)
    metered.loc[3, "net_injection_kwh"] += 12.5
    assert_leads_over(first, settle(day(), real_time=day(), metered=metered))


def test_settlements_of_different_horizons_or_currencies_are_refused():
    found = settled_by_hand()
    horizon = replace(found.case.horizon, currency="EUR", interval_minutes=30)
    other = clear(replace(found.case, horizon=horizon))
    with pytest.raises(InputError) as caught:
        correct(settle(found), settle(other))
    assert [problem.field for problem in caught.value.problems] == ["horizon.interval_minutes", "horizon.currency"]
