"""A table of bids, as ``bids.csv`` of a case folder, to bids of a market; what is wrong with them back to its lines."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd

from dlmp.client.errors import Fault
from dlmp.client.records import ENERGY, SELF_SCHEDULE, Bid, Market, Resource
from dlmp.csvfile import Column, Table, read_csv
from dlmp.errors import Problems

COLUMNS = (
    Column("resource", "text"),
    Column("interval", "integer", required=False, default=-1),
    Column("side", "text"),
    Column("segment", "integer", required=False, default=0),
    Column("quantity_kw", "number"),
    Column("price_usd_per_mwh", "number", required=False),
    Column("price_end_usd_per_mwh", "number", required=False),
    Column("is_self_scheduled", "integer", required=False, default=0),
)
SCHEDULED = "must be blank: the row is self-scheduled, which is to be taken at any price"
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class BidFile:
    """Bids of a file; `lines` has the line of each segment of each of them."""

    name: str
    bids: tuple[Bid, ...]
    lines: tuple[tuple[int, ...], ...]

    def told(self, number: int, faults: Iterable[Fault]) -> list[str]:
        """Faults of the bid of that `number` as text, each with its line and column."""
        return [self._told(number, fault) for fault in faults]

    def _told(self, number: int, fault: Fault) -> str:
        parts = fault.pointer.strip("/").split("/")
        lines, column = self.lines[number], parts[-1]
        if parts[0] == "segments" and len(parts) > 1 and parts[1].isdecimal() and int(parts[1]) < len(lines):
            lines = lines[int(parts[1]) :][:1]
        where = f"line {lines[0]}" if len(lines) == 1 else f"lines {lines[0]} to {lines[-1]}"
        return f"{self.name} {where}, {column or 'bid'}: {fault.detail} ({fault.code})"


def read_bids(path: Path, market: Market, resources: Sequence[Resource]) -> BidFile:
    """Read the bids of a file for `market`; `resources` are yours, each on its feeder under its own name.

    Raises
    ------
    InputError
        With everything that is wrong in the file by itself.
    """
    problems = Problems()
    table = read_csv(path, COLUMNS, problems)
    known = {resource.name: resource.id for resource in resources}
    found = [] if table is None else _bids(table, market, known, problems)
    if table is not None and not found and not problems.found:
        problems.add(path.name, "file", str(path), "has no bids")
    problems.raise_if_any()
    return BidFile(path.name, tuple(bid for bid, _ in found), tuple(lines for _, lines in found))


def _bids(table: Table, market: Market, known: dict[str, str], problems: Problems) -> list[tuple[Bid, tuple[int, ...]]]:
    rows = table.rows
    for column, good, message in (
        ("resource", rows.resource.isin(known), f"is none of yours on {market.feeder}: {', '.join(known) or 'none'}"),
        ("interval", rows.interval.between(-1, market.intervals - 1), f"must be 0 to {market.intervals - 1}, or blank"),
        ("is_self_scheduled", rows.is_self_scheduled.isin((0, 1)), "must be 0 or 1"),
        ("price_usd_per_mwh", rows.price_usd_per_mwh.notna() | (rows.is_self_scheduled != 0), "must not be blank"),
        ("price_usd_per_mwh", rows.price_usd_per_mwh.isna() | (rows.is_self_scheduled != 1), SCHEDULED),
        ("price_end_usd_per_mwh", rows.price_end_usd_per_mwh.isna() | (rows.is_self_scheduled != 1), SCHEDULED),
    ):
        for line, value in rows.loc[~good, column].items():
            problems.add(table.line(line), column, value, message)
    problems.raise_if_any()
    rows = rows.assign(product=rows.is_self_scheduled.map({1: SELF_SCHEDULE}).fillna(ENERGY))
    bids = []
    for _, own in rows.groupby(["resource", "interval", "side", "product"], sort=False):
        curve = own.sort_values("segment", kind="stable")
        first = curve.iloc[0]
        begins, ends = _times(market, int(first.interval))
        segments = _segments(curve) if first["product"] == ENERGY else [(_sum_kw(curve),)]
        bid = Bid(market.id, known[first.resource], first.side, segments, begins, ends, first["product"])
        bids.append((bid, tuple(curve.index.tolist())))
    return bids


def _segments(curve: pd.DataFrame) -> list[tuple[float | None, ...]]:
    names = ["quantity_kw", "price_usd_per_mwh", "price_end_usd_per_mwh"]
    return [
        tuple(None if pd.isna(value) else float(value) for value in row)
        for row in curve[names].itertuples(index=False, name=None)
    ]


def _sum_kw(rows: pd.DataFrame) -> float:
    """Quantity of all rows together, without what adding binary fractions leaves in the last digits."""
    return round(math.fsum(rows.quantity_kw), 6)


def _times(market: Market, interval: int) -> tuple[str, str]:
    """Start and end of an interval; of the whole day for a blank one."""
    if interval < 0:
        return market.starts_at, market.ends_at
    step = timedelta(minutes=market.interval_minutes)
    begins = datetime.fromisoformat(market.starts_at) + interval * step
    return begins.strftime(TIME_FORMAT), (begins + step).strftime(TIME_FORMAT)
