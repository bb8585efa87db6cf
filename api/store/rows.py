"""Rows by their names."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Table, select

from api.errors import NotFound


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
