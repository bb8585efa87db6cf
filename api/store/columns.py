"""What SQLite and PostgreSQL write in two ways: times and documents, both kept as text, and membership in a list."""

import json
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ARRAY, Column, ColumnElement, Dialect, Text, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine


class Kept(str):
    """Text of a document or a time as it is kept."""

    __slots__ = ()


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: object) -> str:
    """Write a document so that equal documents give equal text: keys sorted, no spaces, nothing but finite numbers."""
    return _CANONICAL.encode(value)


def time_text(time: datetime) -> str:
    """Write an aware time as RFC 3339 in UTC, always with microseconds."""
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class UtcTime(TypeDecorator[datetime]):
    """An aware time, kept as RFC 3339 in UTC with microseconds, whose order as text is that of time."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:
        """Write a time as text."""
        return None if value is None else time_text(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> datetime | None:
        """Read a time."""
        return None if value is None else datetime.fromisoformat(value)


class Document(TypeDecorator[Any]):
    """A JSON document, kept as canonical text."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Write a document as text."""
        return None if value is None else canonical_json(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """Read a document."""
        return None if value is None else json.loads(value)


def is_one_of(column: Column[Any], name: str) -> ColumnElement[Any]:
    """Whether a column holds one of the texts that are given as `name`: a statement that is the same for any number."""
    return _IsOneOf(column, bindparam(name, type_=_Texts))


class _Texts(TypeDecorator[Collection[str]]):
    """Any number of texts as one parameter: an array, or for SQLite a JSON document."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(Text() if dialect.name == "sqlite" else ARRAY(Text))

    def process_bind_param(self, value: Collection[str] | None, dialect: Dialect) -> Any:
        texts = list(value or ())
        return canonical_json(texts) if dialect.name == "sqlite" else texts


class _IsOneOf(FunctionElement[Any]):
    """Has no type: a truth value would be compared with 1, past any index."""

    inherit_cache = True


@compiles(_IsOneOf, "sqlite")
def _in_document(element: _IsOneOf, compiler: SQLCompiler, **more: Any) -> str:
    column, texts = (compiler.process(one, **more) for one in element.clauses)
    return f"{column} IN (SELECT value FROM json_each({texts}))"


@compiles(_IsOneOf, "postgresql")
def _in_array(element: _IsOneOf, compiler: SQLCompiler, **more: Any) -> str:
    column, texts = (compiler.process(one, **more) for one in element.clauses)
    return f"{column} = ANY ({texts})"
