"""Strict CSV tables: every cell checked against its column, every problem named by file, line and column."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from dlmp.errors import Problems

LARGEST_INTEGER = 2.0**53
"""Whole numbers beyond this are not exact as floats."""


@dataclass(frozen=True)
class Column:
    """A column of a table: `required` cells must be filled, others read as `default` when blank.

    An integer column that is not required needs a default of its own.
    """

    name: str
    kind: Literal["text", "number", "integer"]
    required: bool = True
    default: float | str = np.nan


@dataclass(frozen=True, eq=False)
class Table:
    """A CSV table as it was read.

    Parameters
    ----------
    name
        Name of the file.
    rows
        The rows whose every cell is good, with exactly the wanted columns, indexed by line in the file.
    left_out
        The rows with a bad cell, as text: the problem is noted, and what they name is still known.
    """

    name: str
    rows: pd.DataFrame
    left_out: pd.DataFrame

    def line(self, index: object) -> str:
        """Name of the line at `index` of `rows`, for a problem."""
        return f"{self.name} line {index}"

    def names(self, column: str) -> frozenset[str]:
        """Every name in a text column, those of bad rows included."""
        return frozenset(self.rows[column]) | self.names_besides(self.rows, column)

    def names_besides(self, good: pd.DataFrame, column: str) -> frozenset[str]:
        """Names in a text column of the rows that are not in `good`, a part of `rows`."""
        dropped = self.rows.loc[~self.rows.index.isin(good.index), column]
        return frozenset(dropped) | frozenset(self.left_out.get(column, ()))


def read_csv(path: Path, columns: Sequence[Column], problems: Problems, needed_by: str = "a case") -> Table | None:
    """Read a table with exactly `columns`; what is wrong is added to `problems`.

    Where there is none the message says what it is `needed_by`.

    Returns
    -------
    Table or None
        None where the file as a whole cannot be read.
    """
    raw = _read_text(path, problems, needed_by)
    if raw is None:
        return None
    raw.columns = raw.columns.str.strip()
    if not _check_header(path.name, raw, columns, problems):
        return None
    raw.index = pd.RangeIndex(2, 2 + len(raw))
    raw = raw.apply(lambda cells: cells.str.strip())
    raw = raw[(raw != "").any(axis=1)]
    good = pd.Series(True, index=raw.index)
    frame = {
        column.name: _read_column(path.name, raw, column, good, problems)
        if column.name in raw
        else pd.Series(column.default, index=raw.index, dtype=_dtype(column))
        for column in columns
    }
    rows = pd.DataFrame(frame, index=raw.index)[good].astype({column.name: _dtype(column) for column in columns})
    return Table(path.name, rows, raw[~good])


def _read_text(path: Path, problems: Problems, needed_by: str) -> pd.DataFrame | None:
    try:
        text = path.read_text("utf-8-sig")
        if "\0" in text:
            raise ValueError("it holds zero bytes")
        return pd.read_csv(StringIO(text), dtype=str, keep_default_na=False, skip_blank_lines=False)
    except FileNotFoundError:
        problems.add(path.name, "file", str(path), f"does not exist; {needed_by} needs it")
    except OSError as error:
        problems.add(path.name, "file", str(path), f"cannot be read ({error.strerror})")
    except ValueError as error:
        reason = str(error).strip()
        problems.add(path.name, "file", str(path), f"is not a CSV table in UTF-8 with a header line ({reason})")
    return None


def _dtype(column: Column) -> str:
    return {"text": "object", "number": "float64", "integer": "int64"}[column.kind]


def _check_header(name: str, raw: pd.DataFrame, columns: Sequence[Column], problems: Problems) -> bool:
    known = [column.name for column in columns]
    before = len(problems.found)
    for missing in [column.name for column in columns if column.required and column.name not in raw]:
        problems.add(name, missing, "missing", f"the header needs this column; it has: {', '.join(raw.columns)}")
    for header in raw.columns[~raw.columns.isin(known)]:
        problems.add(name, header, "unknown", f"is no column of this table; its columns are: {', '.join(known)}")
    if not isinstance(raw.index, pd.RangeIndex):
        problems.add(name, "header", ", ".join(raw.columns), "the rows have more cells than the header has columns")
    return len(problems.found) == before


def _read_column(name: str, raw: pd.DataFrame, column: Column, good: pd.Series, problems: Problems) -> pd.Series:
    cells = raw[column.name]
    blank = cells == ""
    if column.required:
        for line in cells.index[blank]:
            problems.add(f"{name} line {line}", column.name, "", "must not be blank")
        good &= ~blank
    if column.kind == "text":
        return cells.where(~blank, "" if column.required else column.default)
    numbers = _numbers(cells)
    wanted = "a finite number" if column.kind == "number" else "a whole number"
    wrong = ~blank & ~np.isfinite(numbers)
    if column.kind == "integer":
        wrong |= ~blank & ((numbers != np.floor(numbers)) | (numbers.abs() > LARGEST_INTEGER))
    for line in cells.index[wrong]:
        problems.add(f"{name} line {line}", column.name, cells[line], f"must be {wanted}")
    good &= ~wrong
    return numbers.where(~blank & ~wrong, 0 if column.required else column.default)


def _numbers(cells: pd.Series) -> pd.Series:
    """Cells as floats, NaN where one is no number; `to_numeric` finds them but misses the last digit of some."""
    numbers = pd.to_numeric(cells, errors="coerce").astype(float)
    valid = numbers.notna()
    numbers[valid] = cells[valid].astype(float)
    return numbers
