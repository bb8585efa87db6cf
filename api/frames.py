"""Result tables as they are kept, Parquet, to what people read: pages of JSON, CSV and Parquet streams."""

import io
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, Generic, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from sqlalchemy import Connection, and_, select

from api.errors import NotFound
from api.store.tables import results

Kept = TypeVar("Kept")
CACHED_TABLES = 16
CHUNK_ROWS = 20_000
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


def result_table(connection: Connection, run_id: str, name: str) -> pa.Table:
    """Table of a run by the name of its file; raises `NotFound` where there is none."""
    own = and_(results.c.run_id == run_id, results.c.name == name)
    sha256 = connection.execute(select(results.c.sha256).where(own)).scalar_one_or_none()
    if sha256 is None:
        raise NotFound("result")
    content = select(results.c.content).where(own)
    return _TABLES.get(sha256, lambda: read_table(bytes(connection.execute(content).scalar_one())))


class Recent(Generic[Kept]):
    """What was used last, as much of it as its sizes add up to `most`."""

    def __init__(self, most: int, size: Callable[[Kept], int]) -> None:
        self._most, self._size, self._kept = most, size, dict[Hashable, Kept]()

    def get(self, name: Hashable, make: Callable[[], Kept]) -> Kept:
        """Return what has a `name`; it is made where it is not kept."""
        kept = self._kept  # never changed, but replaced: threads share it
        found = kept[name] if name in kept else make()
        newest, room = {name: found}, self._most - self._size(found)
        for other, thing in reversed(kept.items()):
            room -= self._size(thing) if other != name else 0
            if room >= 0:
                newest.setdefault(other, thing)
        self._kept = dict(reversed(newest.items()))
        return found


_TABLES: Recent[pa.Table] = Recent(CACHED_TABLES, lambda table: 1)


def read_table(content: bytes) -> pa.Table:
    """Read a table; times become text, RFC 3339, and so do columns that hold nothing at all."""
    table = pq.read_table(io.BytesIO(content))
    for number, column in enumerate(table.schema):
        if pa.types.is_null(column.type):  # text of a table without rows, which does not tell its type
            table = table.set_column(number, column.name, table[number].cast(pa.string()))
        if pa.types.is_timestamp(column.type):
            seconds = table[number].cast(pa.timestamp("s", "UTC"))
            table = table.set_column(number, column.name, pc.strftime(seconds, format=TIME_FORMAT))
    return table


def chosen(table: pa.Table, equal: Mapping[str, str | int | None]) -> pa.Table:
    """Rows whose columns have the values of `equal`; None is any value."""
    for name, value in equal.items():
        if value is not None:
            table = table.filter(pc.equal(table[name], pa.scalar(value, table.schema.field(name).type)))
    return table


def page(table: pa.Table, first: int, count: int) -> tuple[list[dict[str, Any]], int | None]:
    """Rows of a page, and where the next one begins; None after the last."""
    rows: list[dict[str, Any]] = table.slice(first, count).to_pylist()
    following = first + count
    return rows, following if following < table.num_rows else None


def csv_chunks(table: pa.Table) -> Iterator[bytes]:
    """Write a table as CSV, piece by piece."""
    for first in range(0, max(table.num_rows, 1), CHUNK_ROWS):
        piece = io.BytesIO()
        options = pacsv.WriteOptions(include_header=first == 0, quoting_style="needed")
        pacsv.write_csv(table.slice(first, CHUNK_ROWS), piece, options)
        yield piece.getvalue()


def parquet_bytes(table: pa.Table) -> bytes:
    """Write a table as Parquet."""
    content = io.BytesIO()
    pq.write_table(table, content)
    return content.getvalue()
