"""The chart of characters."""

from dataclasses import replace

import numpy as np
import pytest
from cases import feeder33

from dlmp.chart import ASCII, UNICODE, price_chart
from dlmp.clearing import Clearing, clear
from dlmp.market import simple_case


@pytest.fixture(scope="module")
def clearing() -> Clearing:
    return clear(simple_case(feeder33(), [20.0, -10.0, 0.0, 30.0]))


def with_prices(clearing: Clearing, low: list[float], high: list[float], substation: list[float]) -> Clearing:
    """A clearing of one interval per entry whose nodal prices span `low` to `high`."""
    case = simple_case(clearing.case.network, np.array(substation))
    price = np.tile(np.array(low)[:, None], (1, case.network.node_count))
    price[:, -1] = high
    return replace(clearing, case=case, prices=replace(clearing.prices, lmp_usd_per_mwh=price))


def column(chart: str, index: int, width: int = 4) -> str:
    """Characters of one interval from the top down, without the axis and the two last lines."""
    rows = [line.partition("│")[2] for line in chart.splitlines()[:-2]]
    return "".join(row.ljust(80)[index * width] for row in rows)


def test_bars_stand_on_zero_and_end_in_the_range_of_prices(clearing: Clearing):
    chart = price_chart(with_prices(clearing, [20.0, -20.0], [40.0, -10.0], [30.0, -15.0]), 80, height=8)
    labels = [line.partition("│")[0].strip() for line in chart.splitlines()[:-2]]
    assert labels == ["40", "", "20", "", "0", "", "-20"]
    assert column(chart, 0) == "███░┈  "
    assert column(chart, 1) == "    ┈██"


def test_the_dot_stands_at_the_substation_price(clearing: Clearing):
    chart = price_chart(with_prices(clearing, [20.0, -20.0], [40.0, -10.0], [30.0, -20.0]), 80, height=8)
    rows = chart.splitlines()
    assert rows[1].endswith("●")
    assert rows[6].endswith("●")
    assert chart.count("●") == 3, "two intervals and the legend"


@pytest.mark.parametrize("intervals", [1, 24, 96, 500])
@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_chart_keeps_its_width_and_height(intervals: int, width: int, clearing: Clearing):
    price = 30 + 50 * np.sin(np.arange(intervals) / 7)
    chart = price_chart(with_prices(clearing, list(price), list(price + 5), list(price)), width, height=15)
    *rows, legend = chart.splitlines()
    assert max(map(len, rows)) <= width
    assert len(rows) <= 16
    assert legend.startswith("USD/MWh")


def test_a_longer_horizon_than_columns_keeps_its_peak(clearing: Clearing):
    high = np.full(400, 10.0)
    high[123] = 90.0
    chart = price_chart(with_prices(clearing, [10.0] * 400, list(high), [10.0] * 400), 80, height=12)
    assert chart.splitlines()[0].count("█") == 1


def test_equal_prices_of_zero_make_a_chart(clearing: Clearing):
    assert "█" in price_chart(with_prices(clearing, [0.0], [0.0], [0.0]), 80)


def test_the_plain_chart_has_only_ascii(clearing: Clearing):
    plain = price_chart(clearing, 80, marks=ASCII)
    assert plain.isascii()
    assert not price_chart(clearing, 80, marks=UNICODE).isascii()
