"""Readings as a CSV file to the same readings as JSON: a header with the fields of a reading, one line for each.

What is no number stays text, which the checks of a reading then refuse; a blank cell is a field that is left out.
"""

import csv
import io
import re
from typing import Any

from api.errors import BadRequest, Fault, Unprocessable
from api.schemas.readings import COLUMNS, MOST_READINGS

NUMBER = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?([eE][+-]?[0-9]{1,3})?")
NUMBERS = ("net_injection_kwh", "q_kvarh")
OPTIONAL = ("q_kvarh",)


def readings_in(content: bytes) -> list[tuple[int, dict[str, Any] | None]]:
    """Line and fields of every reading of a file; no fields where a line has not a cell for each column.

    Raises
    ------
    BadRequest
        When it is no CSV table in UTF-8.
    Unprocessable
        When its columns are others, or it has no lines, or too many.
    """
    rows = _rows(content)
    header = rows[0][1] if rows else []
    faults = [Fault(f"/{name}", "missing", "The header needs this column.") for name in _missing(header)]
    faults += [
        Fault(f"/{number}", "unknown_field", f"Column {number + 1} is none of {', '.join(COLUMNS)}.")
        for number, name in enumerate(header)
        if name not in COLUMNS
    ]
    faults += [
        Fault(f"/{name}", "duplicate_key", "The header has this column twice.")
        for name in COLUMNS
        if header.count(name) > 1
    ]
    if not faults and len(rows) == 1:
        faults.append(Fault("/readings", "too_few", "The table has a header and no lines."))
    if len(rows) > MOST_READINGS + 1:
        faults.append(Fault("/readings", "too_many", f"The table may have at most {MOST_READINGS} lines."))
    if faults:
        raise Unprocessable(faults)
    return [(line, _fields(header, cells) if len(cells) == len(header) else None) for line, cells in rows[1:]]


def _rows(content: bytes) -> list[tuple[int, list[str]]]:
    """Line and cells of every row that is not blank."""
    try:
        text = content.decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        return [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if cells]
    except UnicodeDecodeError:
        raise BadRequest("not_utf8", "The body must be a CSV table in UTF-8.") from None
    except csv.Error as error:
        raise BadRequest("not_csv", f"The body must be a CSV table: {error}.") from None


def _missing(header: list[str]) -> list[str]:
    return [name for name in COLUMNS if name not in header and name not in OPTIONAL]


def _fields(header: list[str], cells: list[str]) -> dict[str, Any]:
    return {
        name: float(cell) if name in NUMBERS and NUMBER.fullmatch(cell) else cell
        for name, cell in zip(header, cells, strict=True)
        if cell
    }
