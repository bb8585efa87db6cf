"""Prices with OASIS's columns: parts that add up, hours of the market's own day."""

from datetime import UTC, datetime
from types import SimpleNamespace

import pyarrow as pa

from api.oasis import oasis_table

AUTUMN = SimpleNamespace(
    intervals=100,
    interval_minutes=15,
    starts_at=datetime(2026, 11, 1, 7, tzinfo=UTC),
    trade_date="2026-11-01",
)
"""The day of 25 hours in Los Angeles."""


def prices() -> pa.Table:
    return pa.table(
        {
            "interval": [0, 5, 99],
            "bus": ["13", "13", "14"],
            "phase": ["123", "1", "2"],
            "lmp_usd_per_mwh": [62.0, 40.0, 9.0],
            "energy": [40.0, 40.0, 8.0],
            "loss": [2.0, 0.0, 1.0],
            "congestion": [10.0, 0.0, 0.0],
            "voltage": [5.0, 0.0, 0.0],
            "unbalance": [1.0, 0.0, 0.0],
            "scarcity": [4.0, 0.0, 0.0],
        }
    )


def test_the_parts_add_up_to_the_price():
    rows = oasis_table(AUTUMN, prices()).to_pylist()
    assert [(row["LMP"], row["MCE"], row["MCC"], row["MCL"]) for row in rows] == [
        (62.0, 40.0, 20.0, 2.0),
        (40.0, 40.0, 0.0, 0.0),
        (9.0, 8.0, 0.0, 1.0),
    ]


def test_hours_and_intervals_count_on_the_markets_own_clock():
    rows = oasis_table(AUTUMN, prices()).to_pylist()
    assert [(row["OPR_DT"], row["OPR_HR"], row["OPR_INTERVAL"]) for row in rows] == [
        ("2026-11-01", 1, 1),
        ("2026-11-01", 2, 2),
        ("2026-11-01", 25, 4),
    ]
    assert rows[1]["INTERVALSTARTTIME_GMT"] == "2026-11-01T08:15:00-00:00"
    assert rows[2]["INTERVALENDTIME_GMT"] == "2026-11-02T08:00:00-00:00"
    assert [row["NODE"] for row in rows] == ["13.123", "13.1", "14.2"]
