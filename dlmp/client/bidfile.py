"""A table of bids of a case folder to bids of a market; what is wrong with them back to its lines.

The header tells which table it is: ``bids.csv``, ``reactive_bids.csv``, ``blocks.csv`` or ``stores.csv``, beside which
there may be a ``store_profile.csv``.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dlmp.casefolder.blocks import BLOCK_COLUMNS
from dlmp.casefolder.reactive import REACTIVE_COLUMNS
from dlmp.casefolder.rows import ALL_INTERVALS, once
from dlmp.casefolder.stores import PROFILE_COLUMNS, STORE_COLUMNS
from dlmp.client.bids import CURVES, ENERGY, REACTIVE, SELF_SCHEDULE, AnyBid, Bid, Block, Store
from dlmp.client.errors import Fault
from dlmp.client.records import Market, Resource
from dlmp.client.tables import TIME_FORMAT
from dlmp.csvfile import Column, Table, read_csv
from dlmp.errors import Problems

BID_COLUMNS = (
    Column("resource", "text"),
    Column("interval", "integer", required=False, default=ALL_INTERVALS),
    Column("side", "text"),
    Column("segment", "integer", required=False, default=0),
    Column("quantity_kw", "number"),
    Column("price_usd_per_mwh", "number", required=False),
    Column("price_end_usd_per_mwh", "number", required=False),
    Column("is_self_scheduled", "integer", required=False, default=0),
)
PROFILE_FILE = "store_profile.csv"
SCHEDULED = "must be blank: the row is self-scheduled, which is to be taken at any price"


Found = list[tuple[AnyBid, tuple[int, ...]]]
"""Bids, each with its lines."""


@dataclass(frozen=True)
class BidFile:
    """Bids of a file; `lines` has the line of each segment of each of them."""

    name: str
    bids: tuple[AnyBid, ...]
    lines: tuple[tuple[int, ...], ...]

    def told(self, number: int, faults: Iterable[Fault]) -> list[str]:
        """Faults of the bid of that `number` as text, each with its line and column."""
        return [self._told(number, fault) for fault in faults]

    def _told(self, number: int, fault: Fault) -> str:
        parts = fault.pointer.strip("/").split("/")
        lines, column = self.lines[number], parts[0]
        if column == "segments" and len(parts) > 1 and parts[1].isdecimal() and int(parts[1]) < len(lines):
            lines, column = lines[int(parts[1]) :][:1], parts[-1]
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
    columns, bids_of = _kind_of(path)
    table = read_csv(path, columns, problems)
    known = {resource.name: resource.id for resource in resources}
    found: Found = []
    if table is not None:
        is_known = table.rows.resource.isin(known)
        message = f"is none of yours on {market.feeder}: {', '.join(known) or 'none'}"
        _require(table, "resource", is_known, message, problems)
        found = bids_of(table, path, market, known, problems)
    if table is not None and not found and not problems.found:
        problems.add(path.name, "file", str(path), "has no bids")
    problems.raise_if_any()
    return BidFile(path.name, tuple(bid for bid, _ in found), tuple(lines for _, lines in found))


def _kind_of(path: Path) -> tuple[Sequence[Column], Callable[..., Found]]:
    """Columns of a table and what makes bids of it, by a column that no other table has."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            header = {name.strip() for name in file.readline().split(",")}
    except (OSError, UnicodeDecodeError):
        header = set()
    for name, kind in KINDS.items():
        if name in header:
            return kind
    return BID_COLUMNS, _energy_bids


def _require(table: Table, column: str, good: pd.Series, message: str, problems: Problems) -> None:
    for line, value in table.rows.loc[~good, column].items():
        problems.add(table.line(line), column, value, message)


def _require_interval(table: Table, column: str, market: Market, problems: Problems) -> None:
    values, most = table.rows[column], market.intervals - 1
    good = values.between(0, most) | (values == ALL_INTERVALS)
    _require(table, column, good, f"must be 0 to {most}, or blank", problems)


def _energy_bids(table: Table, path: Path, market: Market, known: dict[str, str], problems: Problems) -> Found:
    rows = table.rows
    is_scheduled = rows.is_self_scheduled == 1
    has_price, has_end = rows.price_usd_per_mwh.notna(), rows.price_end_usd_per_mwh.notna()
    _require(table, "is_self_scheduled", rows.is_self_scheduled.isin((0, 1)), "must be 0 or 1", problems)
    _require(table, "price_usd_per_mwh", has_price | (rows.is_self_scheduled != 0), "must not be blank", problems)
    _require(table, "price_usd_per_mwh", ~(has_price & is_scheduled), SCHEDULED, problems)
    _require(table, "price_end_usd_per_mwh", ~(has_end & is_scheduled), SCHEDULED, problems)
    rows = rows.assign(product=rows.is_self_scheduled.map({1: SELF_SCHEDULE}).fillna(ENERGY))
    return _curves(table, rows, market, known, problems)


def _reactive_bids(table: Table, path: Path, market: Market, known: dict[str, str], problems: Problems) -> Found:
    return _curves(table, table.rows.assign(product=REACTIVE), market, known, problems)


def _curves(table: Table, rows: pd.DataFrame, market: Market, known: dict[str, str], problems: Problems) -> Found:
    _require_interval(table, "interval", market, problems)
    problems.raise_if_any()
    bids: Found = []
    for _, own in rows.groupby(["resource", "interval", "side", "product"], sort=False):
        curve = own.sort_values("segment", kind="stable")
        first = curve.iloc[0]
        product = first["product"]
        begins, ends = times_of(market, int(first.interval), int(first.interval))
        names = list(CURVES.get(product, CURVES[ENERGY]))
        segments = [(_sum_kw(curve),)] if product == SELF_SCHEDULE else _segments(curve[names])
        bid = Bid(market.id, known[first.resource], first.side, segments, begins, ends, product)
        bids.append((bid, tuple(curve.index.tolist())))
    return bids


def _segments(curve: pd.DataFrame) -> list[tuple[float | None, ...]]:
    return [
        tuple(None if pd.isna(value) else float(value) for value in row)
        for row in curve.itertuples(index=False, name=None)
    ]


def _sum_kw(rows: pd.DataFrame) -> float:
    """Quantity of all rows together, without what adding binary fractions leaves in the last digits."""
    return round(math.fsum(rows.quantity_kw), 6)


def _blocks(table: Table, path: Path, market: Market, known: dict[str, str], problems: Problems) -> Found:
    for column in ("first_interval", "last_interval"):
        _require_interval(table, column, market, problems)
    problems.raise_if_any()
    bids: Found = []
    for line, row in _rows(table):
        begins, ends = times_of(market, row.pop("first_interval"), row.pop("last_interval"))
        terms = row | {"exclusive_group": row["exclusive_group"] or None}
        del terms["block"], terms["resource"]
        place: dict[str, Any] = {"resource_id": known[row["resource"]], "interval_start": begins, "interval_end": ends}
        bids.append((Block(market_id=market.id, **place, **terms), (line,)))
    return bids


def _rows(table: Table) -> list[tuple[int, dict[str, Any]]]:
    """Rows of a table with their lines."""
    records = [{str(name): value for name, value in record.items()} for record in table.rows.to_dict("records")]
    return list(zip(table.rows.index.tolist(), records, strict=True))


def _stores(table: Table, path: Path, market: Market, known: dict[str, str], problems: Problems) -> Found:
    profile_path = path.with_name(PROFILE_FILE)
    profile = read_csv(profile_path, PROFILE_COLUMNS, problems) if profile_path.exists() else None
    given = pd.DataFrame(columns=[column.name for column in PROFILE_COLUMNS])
    if profile is not None:
        _require_interval(profile, "interval", market, problems)
        _require(profile, "resource", profile.rows.resource.isin(table.rows.resource), "is no store here", problems)
        given = once(profile, profile.rows, ["resource", "interval"], problems)
    problems.raise_if_any()
    begins, ends = times_of(market)
    bids: Found = []
    for line, terms in _rows(table):
        name = terms.pop("resource")
        own = given[given.resource == name].set_index("interval").reindex(range(market.intervals))
        for column in Store.profiles:
            if own[column].notna().any():
                terms[column] = own[column].fillna(terms[column]).tolist()
        if np.isinf(terms["shortfall_usd_per_mwh"]):
            del terms["shortfall_usd_per_mwh"]
        place: dict[str, Any] = {"resource_id": known[name], "interval_start": begins, "interval_end": ends}
        bids.append((Store(market_id=market.id, **place, **terms), (line,)))
    return bids


KINDS: dict[str, tuple[Sequence[Column], Callable[..., Found]]] = {
    "block": (BLOCK_COLUMNS, _blocks),
    "quantity_kvar": (REACTIVE_COLUMNS, _reactive_bids),
    "energy_max_kwh": (STORE_COLUMNS, _stores),
}


def times_of(market: Market, first: int = ALL_INTERVALS, last: int = ALL_INTERVALS) -> tuple[str, str]:
    """Start of the interval `first` and end of the `last` one; of the whole day for blank ones."""
    step, start = timedelta(minutes=market.interval_minutes), datetime.fromisoformat(market.starts_at)
    begins = market.starts_at if first == ALL_INTERVALS else (start + first * step).strftime(TIME_FORMAT)
    ends = market.ends_at if last == ALL_INTERVALS else (start + (last + 1) * step).strftime(TIME_FORMAT)
    return begins, ends
