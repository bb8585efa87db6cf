"""Tables of awards, voltages and flows: what stands in them, in which units and with which sign."""

from functools import cache

import numpy as np
import pytest
from cases import CASES

from dlmp import Clearing, clear


@cache
def cleared(name: str) -> Clearing:
    return clear(CASES[name]())


def test_awards_are_told_by_interval_and_resource():
    found = cleared("day_33")
    table = found.awards.table()
    assert table.columns.tolist() == [
        "interval_start",
        "interval",
        "resource",
        "kind",
        "bus",
        "phase",
        "net_injection_kw",
        "q_kvar",
        "lmp_usd_per_mwh",
        "lmp_q_usd_per_mvarh",
    ]
    assert len(table) == 3 * 4
    row = table[(table.interval == 1) & (table.resource == "pump")].iloc[0]
    assert (row.kind, row.bus, row.phase) == ("load", "30", "123")
    assert row.net_injection_kw == found.awards.net_injection_kw[1, 3] < 0
    assert row.lmp_usd_per_mwh == found.prices.lmp_usd_per_mwh[1, 30]
    assert row.lmp_q_usd_per_mvarh == found.prices.lmp_q_usd_per_mvarh[1, 30]


def test_segments_make_up_the_net_injection_and_stay_within_their_quantities():
    found = cleared("day_33")
    table = found.awards.segment_table()
    assert (table.award_kw >= -1e-9).all()
    assert (table.award_kw <= table.quantity_kw + 1e-9).all()
    signed = table.award_kw.where(table.side == "supply", -table.award_kw)
    net = signed.groupby([table.interval, table.resource]).sum()
    awards = found.awards.table().set_index(["interval", "resource"]).net_injection_kw
    np.testing.assert_allclose(awards[net.index], net, atol=1e-6)


def test_a_segment_that_is_not_offered_has_no_row():
    case = CASES["day_33"]()
    table = cleared("day_33").awards.segment_table()
    assert len(table) == (case.bids.quantity_kw > 0).sum()
    assert table.columns.tolist() == [
        "interval_start",
        "interval",
        "resource",
        "side",
        "segment",
        "quantity_kw",
        "price_usd_per_mwh",
        "price_end_usd_per_mwh",
        "award_kw",
    ]


def test_nothing_is_awarded_that_is_not_available():
    """At night the sun gives nothing, and the inverters still give reactive power."""
    found = cleared("day_33")
    assert (found.awards.net_injection_kw[0, :2] == 0).all()
    assert np.abs(found.awards.q_kvar[0, :2]).max() > 1.0


def test_a_cheaper_segment_is_filled_before_a_dearer_one():
    found = cleared("undervoltage_33")
    table = found.awards.segment_table().sort_values(["resource", "segment"])
    for _, own in table.groupby("resource"):
        cheap, dear = own.itertuples()
        assert dear.award_kw < 1e-6 or cheap.award_kw == pytest.approx(cheap.quantity_kw)


def test_voltages_are_told_with_their_band():
    found = cleared("undervoltage_33")
    table = found.voltages.table()
    assert table.columns.tolist() == ["interval_start", "interval", "bus", "phase", "v_pu", "v_min_pu", "v_max_pu"]
    assert len(table) == 33
    inner = table[table.bus != "0"]
    assert inner.v_pu.min() == pytest.approx(0.94, abs=1e-8)
    assert (inner.v_pu >= inner.v_min_pu - 1e-8).all()
    assert set(table.v_max_pu) == {1.1}


def test_flows_are_positive_from_the_substation_and_lose_power_on_the_way():
    found = cleared("base_33")
    table = found.flows.table().set_index("branch")
    first = table.loc["line 0"]
    assert (first.from_bus, first.to_bus, first.kind) == ("0", "1", "line")
    assert first.p_from_kw == pytest.approx(found.import_kw[0])
    assert first.q_from_kvar == pytest.approx(found.import_kvar[0])
    lost = table.p_from_kw - table.p_to_kw
    assert (lost > 0).all()
    assert lost.sum() == pytest.approx(202.68, abs=0.01)
    assert table.loading_percent.isna().all()


def test_export_flows_backwards():
    table = cleared("export_cap_33").flows.table().set_index("branch")
    assert table.loc["line 0", "p_from_kw"] == pytest.approx(-1000.0, abs=1e-3)
    assert table.loc["line 0", "p_to_kw"] < -1000.0


@pytest.mark.parametrize(("name", "branch"), [("congestion_current_33", "line 2"), ("congestion_power_33", "line 0")])
def test_a_full_branch_is_loaded_to_a_hundred_percent_and_others_have_no_rating(name: str, branch: str):
    table = cleared(name).flows.table().set_index("branch")
    assert table.loc[branch, "loading_percent"] == pytest.approx(100.0, abs=1e-5)
    assert table.drop(branch).loading_percent.isna().all()


def test_loading_by_power_is_that_of_the_worse_end():
    found = cleared("congestion_power_33")
    row = found.flows.table().set_index("branch").loc["line 0"]
    ends = np.hypot(row.p_from_kw, row.q_from_kvar), np.hypot(row.p_to_kw, row.q_to_kvar)
    assert row.loading_percent == pytest.approx(100 * max(ends) / 3600.0, rel=1e-9)
