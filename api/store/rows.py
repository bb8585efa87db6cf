"""Rows by their names, and many rows at once."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Table, insert, select
from sqlalchemy.dialects import sqlite

from api.errors import NotFound
from api.store.columns import canonical_json


def row_of(connection: Connection, table: Table, name: str, columns: Sequence[ColumnElement[Any]] = ()) -> Row[Any]:
    """Return the row of a thing with the id `name`, all of it or some `columns`.

    Raises
    ------
    NotFound
        When there is none.
    """
    row = connection.execute(select(*(columns or (table,))).where(table.c.id == name)).one_or_none()
    if row is None:
        raise NotFound(table.name.removesuffix("s"))
    return row


def is_known(connection: Connection, condition: ColumnElement[bool]) -> bool:
    """Whether there is any row of the table of a `condition` that it holds for."""
    return connection.execute(select(1).where(condition).limit(1)).one_or_none() is not None


def add(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows that have a value for every column, times and documents as they are kept.

    They go to the database as they are, to PostgreSQL in one document: what would be done for each value on the way
    takes longer than the database.
    """
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(_insertion(table), rows)
    else:
        made = f"INSERT INTO {table.name} SELECT * FROM json_populate_recordset(NULL::{table.name}, %(rows)s::json)"
        connection.exec_driver_sql(made, {"rows": canonical_json(rows)})


@cache
def _insertion(table: Table) -> str:
    return str(insert(table).compile(dialect=sqlite.dialect(paramstyle="named")))
