"""What the audit chain vouches for: a hash of every row, over its columns as they are kept.

Texts, times and documents are hashed as they are kept, so that no reading of them can hide that a byte is another.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from sqlalchemy import Boolean, Column, ColumnElement, Connection, Float, LargeBinary, Table, Text, select, type_coerce

from api.store.columns import Document, Kept, UtcTime, canonical_json, time_text
from api.store.tables import bids, runs

LEFT_OUT = {
    bids.name: frozenset({"terms", "state"}),
    runs.name: frozenset(
        {
            *("state", "reason", "started_at", "ended_at", "worker", "heartbeat_at", "attempts", "cancel_requested"),
            *("progress", "summary"),
        }
    ),
}
"""Columns that the hash of a row leaves out.

The terms of a bid are hashed in its column ``content_sha256``, and its state follows from its versions; the rest of a
run is hashed when it has ended.
"""

AT_ONCE = 50
"""Rows that are read at once."""
ENDED = "ended"
"""What is added to the name of a run for the hash of its whole row once it has ended."""


def row_name(table: Table, values: Mapping[str, Any]) -> str:
    """Name of a row: its table and its primary key."""
    return " ".join([table.name, *(str(values[column.name]) for column in table.primary_key)])


def row_sha256(table: Table, values: Mapping[str, Any], left_out: frozenset[str] | None = None) -> str:
    """Hash of a row from values as Python has them; those that are missing are null."""
    without = LEFT_OUT.get(table.name, frozenset()) if left_out is None else left_out
    return hashlib.sha256(canonical_json(kept_values(table, without, values)).encode()).hexdigest()


def kept_values(table: Table, left_out: frozenset[str], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a row as they are kept; of bytes, their hash."""
    return {
        name: value if (value := values.get(name)) is None or keep is None else keep(value)
        for name, keep in _keepers(table, left_out)
    }


@cache
def _keepers(table: Table, left_out: frozenset[str]) -> tuple[tuple[str, Callable[[Any], Any] | None], ...]:
    """Columns of a table, and what makes of a value what is kept; None where that is the value itself."""
    return tuple((column.name, _keeper(column)) for column in table.c if column.name not in left_out)


def _keeper(column: Column[Any]) -> Callable[[Any], Any] | None:
    if isinstance(column.type, Document):
        return lambda value: value if isinstance(value, Kept) else canonical_json(value)
    if isinstance(column.type, UtcTime):
        return lambda value: value if isinstance(value, Kept) else time_text(value)
    if isinstance(column.type, LargeBinary):
        return lambda value: hashlib.sha256(value).hexdigest()
    if isinstance(column.type, Boolean):
        return int
    return float if isinstance(column.type, Float) else None


def vouch(table: Table, values: Mapping[str, Any]) -> dict[str, str]:
    """Name and hash of a row that is written."""
    return {row_name(table, values): row_sha256(table, values)}


def vouch_again(connection: Connection, table: Table, own: ColumnElement[bool]) -> dict[str, str]:
    """Names and hashes of the rows `own` as they are by now."""
    hashes: dict[str, str] = {}
    for row in connection.execute(select(table).where(own)):
        hashes |= vouch(table, dict(row._mapping))
    return hashes


def kept_rows(connection: Connection, table: Table) -> Iterator[dict[str, Any]]:
    """Rows of a table, with times and documents as they are kept; few at a time, for those of results are large."""
    is_text = {column.name for column in table.c if isinstance(column.type, Document | UtcTime)}
    columns = [type_coerce(column, Text).label(column.name) if column.name in is_text else column for column in table.c]
    query = select(*columns).order_by(*table.primary_key).execution_options(yield_per=AT_ONCE)
    with connection.execute(query) as rows:
        for values in rows.mappings():
            yield {name: Kept(text) if name in is_text and text is not None else text for name, text in values.items()}
