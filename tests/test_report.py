"""What is printed of cases and clearings."""

import io
from dataclasses import replace

import numpy as np
import pytest
from cases import CASES, feeder33
from rich.console import Console
from rich.table import Table
from settlementcases import capacity_by_hand, with_services

from dlmp.certificate import Certificate
from dlmp.clearing import NOT_CONVERGED, Clearing, clear
from dlmp.cli.terminal import print_rows
from dlmp.errors import InfeasibleError, PowerFlowError
from dlmp.market import simple_case
from dlmp.report import case_rows, clearing_rows, limits_table, power_flow_rows, price_table, verdict
from dlmp.settings import Settings
from dlmp.uniqueness import PriceRange

PARTS = ("energy", "loss", "congestion", "voltage")
"""Components where nothing limits the voltage unbalance."""


@pytest.fixture(scope="module")
def clearing() -> Clearing:
    return clear(CASES["day_33"]())


@pytest.fixture(scope="module")
def certificate(clearing: Clearing) -> Certificate:
    return clearing.certificate


def printed(table: Table, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, markup=False, emoji=False, highlight=False)
    console.print(table)
    return console.file.getvalue().splitlines()


def test_a_clearing_is_summed_up_with_its_extreme_prices_and_where_they_are(clearing: Clearing, certificate):
    rows = dict(clearing_rows(clearing, certificate, 1.234))
    prices = clearing.prices.table()
    dearest = prices.loc[prices.lmp_usd_per_mwh.idxmax()]
    assert rows["status"].startswith("converged in ")
    assert rows["status"].endswith(" 1 pass, 1.23 s")
    assert rows["total cost"] == f"{clearing.objective:.2f} USD"
    price, hour = f"{dearest.lmp_usd_per_mwh:.2f} USD/MWh", f"{dearest.interval:02d}:00"
    assert rows["highest price"] == f"{price} at bus {dearest.bus}, 2026-01-01 {hour} UTC (interval {dearest.interval})"
    assert rows["binding"] == "2 network limits in 1 interval"
    assert rows["certificate"].startswith("holds")


def test_services_are_summed_up_with_what_is_short(clearing: Clearing):
    assert "services" not in dict(clearing_rows(clearing, None, 0.0))
    rows = clearing_rows(clear(capacity_by_hand()), None, 0.0)
    text = "50.0 kW-h of capacity up for 0.25 USD (offered at 0.25), 5.00 USD/MW-h"
    assert rows[-1] == ("services", text)
    case = with_services(capacity_by_hand(), ("chp", "var_up", 0.0, 1.0), shortage=9.0, capacity_up=5.0, var_up=7.0)
    assert clearing_rows(clear(case), None, 0.0)[-2:] == [
        ("services", "0.0 kW-h of capacity up for 0.00 USD (offered at 0.00); 5.0 kW-h short"),
        ("", "0.0 kvar-h of var up for 0.00 USD (offered at 0.00); 7.0 kvar-h short"),
    ]


def test_a_case_with_services_says_how_many():
    assert dict(case_rows(capacity_by_hand()))["services"] == "2 offers; 1 requirement"
    assert "services" not in dict(case_rows(CASES["day_33"]()))


def test_a_clearing_that_did_not_converge_says_so(clearing: Clearing):
    rows = clearing_rows(replace(clearing, status=NOT_CONVERGED), None, 0.0)
    assert rows[1][1].startswith("not converged")
    assert rows[2] == ("", "these results may not be published")
    assert "certificate" not in dict(rows)


@pytest.mark.parametrize(
    ("found", "line"),
    [
        ({"ac_converged": False}, "- the AC power flow of pandapower at the awards has no solution"),
        (
            {"worst_voltage_violation_pu": 0.0123, "worst_voltage": "bus 17, interval 1"},
            "- voltage 0.012 pu out of its band: bus 17, interval 1",
        ),
        (
            {"worst_loading_percent": 104.25, "worst_loading": "line 2, interval 0"},
            "- loading 104.25 %: line 2, interval 0",
        ),
        (
            {"worst_bid_gap_usd": 12.5, "worst_bid": "pump, interval 2", "traded_usd": 1.0},
            "- another quantity would earn 12.5 EUR more: pump, interval 2",
        ),
    ],
)
def test_each_fault_that_the_certificate_found_is_a_line(found, line: str, certificate: Certificate):
    assert verdict(replace(certificate, **found), "EUR") == [("certificate", "does not hold"), ("", line)]


def test_prices_that_are_not_unique_are_listed_without_breaking_the_certificate(certificate: Certificate):
    ranges = tuple(PriceRange(interval, 10.0, 20.0, "17") for interval in (0, 3, 4, 5))
    head, note = verdict(replace(certificate, price_ranges=ranges), "USD")
    assert head[1].startswith("holds")
    assert note == ("", "prices are not unique in intervals 0, 3-5")


def test_the_price_table_has_each_interval_and_the_parts_of_its_highest_price(clearing: Clearing):
    rows = [line.split() for line in printed(price_table(clearing)) if line.strip()[:2].isdigit()]
    assert [row[0] for row in rows] == ["00:00", "01:00", "02:00"]
    for interval, (_, bought, low, mean, high, bus, *parts) in enumerate(rows):
        price = clearing.prices.lmp_usd_per_mwh[interval]
        shown = [float(number) for number in (bought, low, mean, high)]
        substation = clearing.case.substation.price_usd_per_mwh[interval]
        assert shown == pytest.approx([substation, price.min(), price.mean(), price.max()], abs=0.0051)
        assert bus == clearing.case.network.bus[price.argmax()]
        assert len(parts) == len(PARTS)
        assert sum(map(float, parts)) == pytest.approx(price.max(), abs=0.021)


@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit_their_width_without_cutting_anything(width: int, clearing: Clearing):
    for table in (price_table(clearing), limits_table(clearing)):
        text = printed(table, width)
        assert max(map(len, text)) <= width
        assert "…" not in "".join(text)
    header = next(line for line in printed(price_table(clearing), width) if "substation" in line)
    assert header.split() == ["time", "substation", "lowest", "mean", "highest", "at", "bus", *PARTS]


def test_the_limits_table_shows_when_a_limit_binds_and_its_share_in_the_price_there(clearing: Clearing):
    (row,) = (line.split() for line in printed(limits_table(clearing)) if "bus 17" in line)
    parts = clearing.explain("17", 1)
    share = float(parts.share_usd_per_mwh[parts.element == "bus 17"].iloc[0])
    assert row == ["bus", "17", "1.03", "pu", "voltage", f"{share:.2f}", "01:00-02:00"]
    assert share < -1


def test_a_branch_limit_is_shown_at_the_bus_it_leads_to():
    clearing = clear(CASES["congestion_current_33"]())
    (row,) = (line.split() for line in printed(limits_table(clearing)) if "line 2" in line)
    network = clearing.case.network
    congestion = clearing.prices.congestion[0, network.to_node[list(network.branch).index("line 2")]]
    assert row == ["line", "2", "100", "A", "congestion", f"{congestion:.2f}", "00:00-01:00"]


def test_times_of_more_than_a_day_have_their_date():
    two_days = clear(simple_case(feeder33(), np.full(26, 20.0)))
    times = [line.split()[:2] for line in printed(price_table(two_days), 120) if line.strip()[:2].isdigit()]
    assert times[0] == ["01-01", "00:00"]
    assert times[25] == ["01-02", "01:00"]


def test_a_case_is_described():
    rows = dict(case_rows(CASES["transformer_cigre"]()))
    assert rows["branches"] == "12 lines, 2 transformers; 14 rated"
    assert rows["topology"] == "radial"
    assert rows["base voltage"] == "110 kV, 20 kV"
    assert rows["source"] == "Bus 0 at 1.03 pu"
    assert rows["resources"] == "3 generator, 1 wind, 1 solar, 1 demand_response; 10 bid segments"


def test_a_meshed_case_has_its_loops_counted():
    assert dict(case_rows(CASES["congestion_meshed_33"]()))["topology"] == "meshed, 5 loops"


def test_the_power_flow_without_bids_has_the_published_figures_of_the_33_bus_feeder():
    rows = dict(power_flow_rows(CASES["base_33"]()))
    assert rows["losses"] == "202.68 kW"
    assert rows["lowest voltage"] == "0.91309 pu at bus 17"
    assert rows["highest loading"] == "nothing is rated"


def test_the_power_flow_names_the_highest_loading():
    case = CASES["congestion_current_33"]()
    idle = replace(case, bids=replace(case.bids, quantity_kw=0 * case.bids.quantity_kw))
    with pytest.raises(InfeasibleError) as infeasible:
        clear(idle, Settings(limits="hard"))
    ampere = infeasible.value.conflicts[0].attained
    assert ampere > infeasible.value.conflicts[0].limit == 100
    assert dict(power_flow_rows(case))["highest loading"] == f"{ampere:.1f} % of line 2"


def test_a_load_that_the_feeder_cannot_carry_is_an_error():
    case = CASES["base_33"]()
    with pytest.raises(PowerFlowError, match="no solution at the load of interval 0"):
        power_flow_rows(replace(case, load_p_kw=20 * case.load_p_kw))


def test_lines_align_their_texts(capsys):
    print_rows([("a", "first"), ("a longer label", "second")])
    text = capsys.readouterr().out.splitlines()
    assert [line.index(word) for line, word in zip(text, ("first", "second"), strict=True)] == [18, 18]


def test_no_money_is_minus_zero(clearing: Clearing):
    prices = replace(clearing.prices, voltage=np.full_like(clearing.prices.voltage, -1e-9))
    assert "-0.00" not in "".join(printed(price_table(replace(clearing, prices=prices))))
