"""Statements: whole cents that balance, whatever was awarded, metered and priced."""

import os
from dataclasses import replace
from datetime import timedelta
from decimal import ROUND_UP, Decimal, localcontext
from functools import cache

import numpy as np
import pandas as pd
import pytest
from cases import CASES
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from settlementcases import block_by_hand, capacity_by_hand, cents, chp, readings, settled_by_hand, two_buses
from test_acopf_phases import priced
from test_random_feeders import cases
from unbalanced import unbalanced

from dlmp import Clearing, InfeasibleError, Settlement, SolverError, clear, correct, settle
from dlmp.bids import Resources
from dlmp.market import MarketCase
from dlmp.prices import COMPONENTS

CENT = Decimal("0.01")
QUANTUM = Decimal("1e-8")
LIMITED = ("congestion", "voltage", "unbalance")
"""Parts of a service's price that limits of called states make."""

EXAMPLES = settings(
    max_examples=int(os.environ.get("DLMP_EXAMPLES", "100")),
    derandomize=True,
    database=None,
    deadline=timedelta(seconds=20),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@cache
def markets() -> tuple[Clearing, ...]:
    """A balanced day with reactive power, three phases with loads that follow their voltage, and two buses.

    Then two buses with a service whose call the network holds, and with blocks that need to be made whole.
    """
    phases = priced(unbalanced(), 40.0, 25.0)
    two = settled_by_hand().case
    short = replace(two, horizon=replace(two.horizon, interval_minutes=1, currency="KWD"))
    served = clear(capacity_by_hand()), clear(block_by_hand())
    return clear(CASES["day_33"]()), clear(phases), clear(short), *served


@st.composite
def traded(draw: st.DrawFn) -> tuple[Clearing, np.random.Generator]:
    """A market with other awards, prices, loads and import than it cleared: settling them is arithmetic."""
    found = draw(st.sampled_from(markets()))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    scale = 10.0 ** draw(st.integers(-6, 3))
    awards, prices = found.awards, found.prices

    def other(values: np.ndarray) -> np.ndarray:
        kept = random.random(values.shape) < 0.3
        return np.where(kept, values, values * random.normal(1.0, 2.0, values.shape) * scale)

    parts = {name: other(getattr(prices, name)) for name in (*COMPONENTS, *(f"{name}_q" for name in COMPONENTS))}
    for name in ("energy", "energy_q"):
        parts[name] = np.broadcast_to(parts[name][:, :1], parts[name].shape)
    lmp, lmp_q = sum(parts[name] for name in COMPONENTS), sum(parts[f"{name}_q"] for name in COMPONENTS)
    share = found.case.resources.share
    services = {name: other(getattr(found.services, name)) for name in ("requirement", *LIMITED)}
    blocks = replace(found.blocks, lmp_usd_per_mwh=other(found.blocks.lmp_usd_per_mwh))
    changed = replace(
        found,
        prices=replace(prices, lmp_usd_per_mwh=lmp, lmp_q_usd_per_mvarh=lmp_q, **parts),
        awards=replace(
            awards,
            net_injection_kw=other(awards.net_injection_kw),
            q_kvar=other(awards.q_kvar),
            lmp_usd_per_mwh=lmp @ share.T,
            lmp_q_usd_per_mvarh=lmp_q @ share.T,
        ),
        services=replace(
            found.services,
            **services,
            price_usd_per_mw_h=sum(services.values()),
            reserved_kw=other(found.services.reserved_kw),
        ),
        blocks=blocks,
        load_kva=other(found.load_kva.real) + 1j * other(found.load_kva.imag),
        import_kw=other(found.import_kw),
        import_kvar=other(found.import_kvar),
    )
    return changed, random


def metered(found: Clearing, random: np.random.Generator) -> pd.DataFrame:
    """Readings of which some are the awards."""
    table = readings(found)
    for column in ("net_injection_kwh", "q_kvarh"):
        table[column] *= np.where(random.random(len(table)) < 0.5, 1.0, random.normal(1.0, 1.0, len(table)))
    return table


def assert_balances(settlement: Settlement) -> None:
    """To the cent between the accounts, and to the last digit between lines and surplus."""
    unit = Decimal("0.001") if settlement.currency == "KWD" else CENT
    rows, lines = settlement.statements(), settlement.lines
    totals = dict(settlement.totals().itertuples(index=False, name=None))
    assert sum(totals.values()) == 0
    assert all(amount == amount.quantize(unit) for amount in totals.values())
    assert list(totals)[-1] == "operator"
    surplus = sum(settlement.surplus.amount)
    assert sum(lines.amount) + surplus == 0
    own = dict.fromkeys(totals, Decimal(0)) | {"operator": surplus}
    for name, amount in zip(lines.participant.tolist(), lines.amount, strict=True):
        own[name] += amount
    stated = dict.fromkeys(totals, Decimal(0))
    for name, product, amount in zip(rows.participant, rows["product"], rows.amount, strict=True):
        stated[name] += amount
        if product == "rounding":
            assert own[name] + amount == totals[name]
            assert abs(amount) <= unit / 2 * (len(totals) - 1 if name == "operator" else 1)
    assert stated == totals


@EXAMPLES
@given(traded())
def test_every_settlement_balances_to_the_cent(market: tuple[Clearing, np.random.Generator]):
    found, random = market
    assert_balances(settle(found, metered=metered(found, random)))


@EXAMPLES
@given(traded())
def test_the_surplus_is_load_payments_less_what_is_paid_out(market: tuple[Clearing, np.random.Generator]):
    found, random = market
    settlement = settle(found, metered=metered(found, random))
    table, surplus = settlement.table(), settlement.surplus
    for interval in range(found.case.horizon.intervals):
        lines, parts = table[table.interval == interval], surplus[surplus.interval == interval]
        per = np.where(lines.unit == "payment", 1, 1000)
        paid = (lines.quantity * lines.price).to_numpy() / per
        amounts = parts.amount.astype(float)[parts.component != "residue"]
        size = np.abs(paid).sum() + np.abs(amounts).sum() + 1e-6
        assert amounts.sum() == pytest.approx(-paid.sum(), abs=1e-9 * size + 1e-8 * len(lines))
        residue = float(parts.amount[parts.component == "residue"].item())
        assert abs(residue) <= 1e-9 * size + 1e-8 * len(lines)


@EXAMPLES
@given(traded(), st.data())
def test_of_two_settlements_too_the_whole_balances(market: tuple[Clearing, np.random.Generator], data: st.DataObject):
    """The real-time market is another arithmetic of the same case."""
    ahead, random = market
    now, _ = data.draw(traded().filter(lambda other: other[0].case is ahead.case))
    settlement = settle(ahead, real_time=now, metered=metered(now, random))
    assert_balances(settlement)
    energy = settlement.table()
    energy = energy[energy["product"].isin(["energy", "energy_imbalance"])]
    settled = energy.groupby(["resource", "interval"]).quantity.sum()
    for row, name in enumerate(ahead.case.resources.name):
        for interval in range(ahead.case.horizon.intervals):
            expected = settlement.injected[interval, row].real
            assert settled.get((name, interval), 0.0) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@EXAMPLES
@given(traded(), st.booleans())
def test_previous_statements_and_deltas_are_the_new_statements(
    market: tuple[Clearing, np.random.Generator], with_real_time: bool
):
    found, random = market
    real_time = found if with_real_time else None
    previous, settlement = (settle(found, real_time=real_time, metered=metered(found, random)) for _ in range(2))
    correction = correct(previous, settlement)
    key = ["participant", "resource", "product"]
    both = [table.set_index(key).amount.to_dict() for table in (previous.statements(), correction.statements())]
    expected = settlement.statements().set_index(key).amount.to_dict()
    together = {name: both[0].get(name, 0) + both[1].get(name, 0) for name in both[0] | both[1]}
    assert {name: value for name, value in together.items() if value} == {
        name: value for name, value in expected.items() if value
    }
    assert sum(correction.totals().amount) == sum(correction.table().amount) == 0


def in_another_order(found: Clearing, order: np.ndarray) -> Clearing:
    """The same result with its resources renamed and in another order."""
    given_ones = found.case.resources
    resources = Resources(
        name=np.char.add("renamed ", given_ones.name[order]),
        kind=given_ones.kind[order],
        share=given_ones.share[order],
        p_min_kw=given_ones.p_min_kw[order],
        p_max_kw=given_ones.p_max_kw[:, order],
        q_min_kvar=given_ones.q_min_kvar[order],
        q_max_kvar=given_ones.q_max_kvar[order],
        s_max_kva=given_ones.s_max_kva[order],
    )
    bids = replace(found.case.bids, resource=np.argsort(order)[found.case.bids.resource])
    offers, blocks = found.case.service_offers, found.case.blocks
    case = replace(
        found.case,
        resources=resources,
        bids=bids,
        service_offers=replace(offers, resource=np.argsort(order)[offers.resource]),
        blocks=replace(blocks, resource=np.argsort(order)[blocks.resource]),
    )
    columns = ("net_injection_kw", "q_kvar", "lmp_usd_per_mwh", "lmp_q_usd_per_mvarh")
    arrays = {name: getattr(found.awards, name)[:, order] for name in columns}
    return replace(
        found,
        case=case,
        awards=replace(found.awards, case=case, **arrays),
        blocks=replace(found.blocks, case=case, lmp_usd_per_mwh=found.blocks.lmp_usd_per_mwh[:, order]),
        services=replace(found.services, case=case),
    )


@EXAMPLES
@given(traded())
def test_renaming_and_reordering_resources_changes_nothing(market: tuple[Clearing, np.random.Generator]):
    found, random = market
    order = random.permutation(len(found.case.resources))
    one, other = cents(settle(found).totals()), cents(settle(in_another_order(found, order)).totals())
    resources = set(found.case.resources.name)
    assert {f"renamed {name}" if name in resources else name: value for name, value in one.items()} == other


@EXAMPLES
@given(cases())
def test_random_feeders_settle_to_the_cent(case: MarketCase):
    """What holds of every real clearing: it balances, pays once, and explains what is negative."""
    try:
        found = clear(case)
    except InfeasibleError:
        assume(False)
    settlement = settle(found)
    assert_balances(settlement)
    assert settlement.cost_recovery().is_paid_once
    surplus = settlement.surplus
    size = float(settlement.table().amount.abs().sum())
    residue = surplus.amount[surplus.component == "residue"].astype(float)
    assert (residue.abs() <= 1e-8 * (len(settlement.table()) + size)).all()
    assert ((surplus.explanation != "-") == (surplus.amount < 0)).all()
    assert (surplus.amount[surplus.component == "congestion"] > Decimal("-1e-6")).all()


def test_a_statement_has_a_row_per_resource_and_product_and_one_of_rounding():
    settlement = settle(clear(CASES["day_33"]()))
    rows = settlement.statements()
    assert list(rows.columns) == ["participant", "resource", "product", "quantity", "unit", "amount"]
    pump = rows[rows.participant == "pump"]
    assert pump[["resource", "product", "unit"]].to_numpy().tolist() == [
        ["pump", "energy", "kWh"],
        ["-", "rounding", "-"],
    ]
    own = settlement.table().query("participant == 'pump'")
    assert pump.quantity.iloc[0] == pytest.approx(own.quantity.sum(), rel=1e-12)
    accounts = list(dict.fromkeys(rows.participant))
    assert accounts == [*settlement.case.resources.name, "load", "substation", "operator"]


def test_lines_worth_less_than_a_cent_are_paid_in_the_sum():
    """1 kW for a minute at 40 a MWh is 0.0007; an hour of it is 4 cents."""
    case = two_buses(chp(1.0, 99.0), price=[40.0] * 60, load=(1.0, 0.0))
    settlement = settle(clear(replace(case, horizon=replace(case.horizon, interval_minutes=1))))
    assert settlement.table().amount.abs().max() < Decimal("0.001")
    assert cents(settlement.totals()) == {"load": "-0.04", "substation": "0.04", "operator": "0.00"}


def test_the_summary_is_text_for_money_and_adds_up():
    summary = settle(settled_by_hand()).summary()
    assert summary["paid_to_participants"] == "2.00"
    assert (summary["paid_to_load"], summary["paid_to_substation"], summary["surplus"]) == ("-6.50", "4.00", "0.50")
    assert summary["currency"] == "USD"
    assert summary["paid_once"] is True
    parts = summary["surplus_by_component"]
    assert isinstance(parts, dict)
    assert sum(map(Decimal, parts.values())).quantize(CENT) == Decimal("0.50")


def test_the_caller_s_decimal_context_changes_nothing():
    found = clear(CASES["day_33"]())
    expected = settle(found)
    with localcontext() as context:
        context.prec, context.rounding = 4, ROUND_UP
        other = settle(found)
        totals, parts = other.totals(), other.surplus
        delta = correct(expected, settle(found, metered=readings(found).assign(net_injection_kwh=0.0))).totals()
    pd.testing.assert_frame_equal(totals, expected.totals())
    pd.testing.assert_frame_equal(parts, expected.surplus)
    assert sum(delta.amount) == 0


def test_a_price_that_is_no_number_is_not_settled():
    found = clear(CASES["day_33"]())
    broken = replace(found, prices=replace(found.prices, lmp_usd_per_mwh=found.prices.lmp_usd_per_mwh * np.nan))
    with pytest.raises(SolverError, match="energy: a quantity or a price is not finite"):
        settle(broken)
