"""Published tables as pandas data frames: times aware, amounts exact."""

import io
from decimal import Decimal

import pandas as pd

TIMES, AMOUNTS = ("interval_start",), ("amount",)


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
