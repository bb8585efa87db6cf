"""Tables as pandas data frames: published ones with aware times and exact amounts, and readings of meters."""

import io
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import pandas as pd

TIMES, AMOUNTS = ("interval_start",), ("amount",)
SERIES = ("resource_id", "resource", "version", "is_current")
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
"""Of times in UTC, RFC 3339."""


def table_of(parquet: bytes) -> pd.DataFrame:
    """Read a table that the service sent as Parquet; amounts, text there, become `decimal.Decimal`."""
    frame = pd.read_parquet(io.BytesIO(parquet))
    for name in TIMES:
        if name in frame:
            frame[name] = pd.to_datetime(frame[name], utc=True)
    return with_amounts(frame)


def with_amounts(frame: pd.DataFrame) -> pd.DataFrame:
    """Turn amounts of money from text into `decimal.Decimal`."""
    for name in AMOUNTS:
        if name in frame:
            frame[name] = pd.Series([Decimal(text) for text in frame[name]], index=frame.index, dtype=object)
    return frame


def readings_csv(frame: pd.DataFrame) -> bytes:
    """Write readings of meters as the service takes them; aware times in UTC, others as they are."""
    table = frame.copy()
    for name in table.columns:
        if isinstance(table[name].dtype, pd.DatetimeTZDtype):
            table[name] = table[name].dt.tz_convert("UTC")
    return table.to_csv(index=False, date_format=TIME_FORMAT).encode()


def readings_frame(series: Iterable[Mapping[str, Any]], starts_at: str, interval_minutes: int) -> pd.DataFrame:
    """Turn series of readings, of a market that begins at `starts_at`, into one row for each reading."""
    start, step = pd.Timestamp(starts_at), pd.Timedelta(minutes=interval_minutes)
    rows = [
        (*(one[name] for name in SERIES), start + interval * step, energy, reactive)
        for one in series
        for interval, (energy, reactive) in enumerate(zip(one["net_injection_kwh"], one["q_kvarh"], strict=True))
        if energy is not None
    ]
    frame = pd.DataFrame(rows, columns=[*SERIES, "interval_start", "net_injection_kwh", "q_kvarh"])
    frame["interval_start"] = pd.to_datetime(frame.interval_start, utc=True)
    numbers = ["net_injection_kwh", "q_kvarh"]
    frame[numbers] = frame[numbers].astype(float)
    return frame
