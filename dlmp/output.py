"""A clearing and its settlement to a folder of files: one CSV or Parquet file per table, and ``summary.json``.

Every file is written whole before any of them appears in the folder.  Times are RFC 3339 in UTC, numbers
have all their digits, money is plain decimals, and nothing is NaN or infinite.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from dlmp.casefolder.settings import FILE as CASE_FILE
from dlmp.clearing import CONVERGED, Clearing
from dlmp.errors import InputError, Problem, SolverError
from dlmp.rolling import RollingDay
from dlmp.settlement import Settlement, settle
from dlmp.taps import TapClearing

TABLES: dict[str, Callable[[Clearing], pd.DataFrame]] = {
    "prices": lambda clearing: clearing.prices.table(),
    "awards": lambda clearing: clearing.awards.table(),
    "segments": lambda clearing: clearing.awards.segment_table(),
    "reactive_segments": lambda clearing: clearing.awards.reactive_segment_table(),
    "stores": lambda clearing: clearing.stores.table(),
    "blocks": lambda clearing: clearing.blocks.table(),
    "services": lambda clearing: clearing.services.table(),
    "requirements": lambda clearing: clearing.services.requirement_table(),
    "flows": lambda clearing: clearing.flows.table(),
    "voltages": lambda clearing: clearing.voltages.table(),
    "binding_limits": lambda clearing: clearing.binding_limits(),
    "broken_limits": lambda clearing: clearing.broken_limits(),
    "local_supply": lambda clearing: clearing.local_supply.table(),
}
"""Every table of a clearing by the name of its file."""

SETTLEMENT_TABLES: dict[str, Callable[[Settlement], pd.DataFrame]] = {
    "statements": lambda settlement: plain(settlement.statements()),
    "settlement": lambda settlement: plain(settlement.table()),
    "surplus": lambda settlement: plain(settlement.surplus),
}
"""Every table of a settlement by the name of its file; only what has converged is settled."""

DAY_TABLES = (
    *("prices", "awards", "segments", "stores", "services", "requirements"),
    *("flows", "voltages", "binding_limits", "broken_limits", "local_supply"),
)
"""Those that are joined over the steps of a rolling day."""
UPLIFT = "uplift.csv"
SUMMARY = "summary.json"
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
RESULT_FILES = (
    *(f"{name}.{ending}" for ending in ("csv", "parquet") for name in (*TABLES, *SETTLEMENT_TABLES)),
    SUMMARY,
)
"""Names of all files that `write_results` may write, replace or, being those of an older result, remove."""

DAY_FILES = (*(f"{name}.csv" for name in DAY_TABLES), UPLIFT, SUMMARY)
"""Names of all files that `write_day` writes."""

Writer = Callable[[Path], object]


def write_results(
    clearing: Clearing,
    folder: Path,
    *,
    parquet: bool = False,
    with_certificate: bool = True,
    settling: TapClearing | None = None,
    settlement: Settlement | None = None,
    wall_seconds: float,
) -> None:
    """Write all tables and the summary of `clearing`, and where it has converged its settlement, into `folder`.

    Parameters
    ----------
    clearing
        What to write.
    folder
        Is made if it does not exist; other files in it stay.
    parquet
        Write the tables as Parquet too.
    with_certificate
        Put the certificate into the summary; without it ``certificate`` is null there.
    settling
        How `clearing` came to its taps, for the summary (`dlmp.taps`); default: they were not settled.
    settlement
        Its settlement; default: that of what it awarded.
    wall_seconds
        Time that the clearing took [s].

    Raises
    ------
    InputError
        When `folder` cannot be written.
    SolverError
        When a result is not finite.
    """
    writers: dict[str, Writer] = {}
    tables = {name: finite(name, make(clearing)) for name, make in TABLES.items()}
    if settlement is None and clearing.status == CONVERGED:
        settlement = settle(clearing)
    if settlement is not None:
        tables |= {name: finite(name, make(settlement)) for name, make in SETTLEMENT_TABLES.items()}
    for name, table in tables.items():
        writers[f"{name}.csv"] = csv_writer(table)
        if parquet:
            writers[f"{name}.parquet"] = _parquet_writer(table)
    certificate = clearing.certificate.summary() if with_certificate else None
    taps = settling.summary() if settling else {}
    settled = settlement.summary() if settlement else None
    last = {"wall_seconds": wall_seconds, "certificate": certificate, "settlement": settled}
    summary = clearing.summary() | taps | last
    text = json.dumps(summary, indent=2, allow_nan=False, ensure_ascii=False)
    writers[SUMMARY] = lambda path: path.write_text(text + "\n", "utf-8")
    write_files(folder, writers, RESULT_FILES)


def write_day(day: RollingDay, folder: Path, *, wall_seconds: float) -> None:
    """Write the tables of a day that was cleared step by step, its make-whole payments and a summary into `folder`.

    Every table has a column ``cleared_from``, the first interval of the clearing that holds.

    Raises
    ------
    InputError
        When `folder` cannot be written.
    SolverError
        When a result is not finite.
    """
    tables = {f"{name}.csv": finite(name, day.table(TABLES[name])) for name in DAY_TABLES}
    tables[UPLIFT] = finite("uplift", day.uplift.table())
    writers = {name: csv_writer(table) for name, table in tables.items()}
    summary = day.summary() | {"wall_seconds": wall_seconds}
    text = json.dumps(summary, indent=2, allow_nan=False, ensure_ascii=False)
    writers[SUMMARY] = lambda path: path.write_text(text + "\n", "utf-8")
    write_files(folder, writers, DAY_FILES)


def finite(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """Return `table` without negative zeros; raise `SolverError` if any number is not finite."""
    table = table.copy()
    for column in table.columns[[dtype.kind == "f" for dtype in table.dtypes]]:
        values = table[column]
        if not np.isfinite(values.dropna().to_numpy(float)).all() or (values.dtype == float and values.hasnans):
            raise SolverError(f"{name}, {column}: the result is not finite; nothing was written")
        table[column] = values + 0.0
    return table


def plain(table: pd.DataFrame) -> pd.DataFrame:
    """Return `table` with its amounts as text, all digits and no exponent."""
    return table.assign(amount=[f"{amount:f}" for amount in table.amount])


def csv_writer(table: pd.DataFrame) -> Writer:
    """Return what writes `table` as CSV."""
    return lambda path: table.to_csv(path, index=False, date_format=TIME_FORMAT, lineterminator="\n")


def _parquet_writer(table: pd.DataFrame) -> Writer:
    return lambda path: table.to_parquet(path, index=False, engine="pyarrow")


def check_folder(folder: Path, files: tuple[str, ...]) -> None:
    """Raise `InputError` unless `files` can be written into `folder`, which need not exist."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise _unwritable(folder, f"{nearest} is a file" if nearest != folder else "is a file, not a folder")
    if (folder / CASE_FILE).exists():
        raise _unwritable(folder, f"is a market case, for it has a {CASE_FILE}; results have a folder of their own")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise _unwritable(folder, f"no permission to write to {nearest}")
    for name in files:
        if (folder / name).is_dir():
            raise _unwritable(folder, f"a folder stands in place of {name}")


def write_files(folder: Path, writers: Mapping[str, Writer], owned: tuple[str, ...]) -> None:
    """Write files into `folder`, which stays as it was if that fails.

    Parameters
    ----------
    folder
        Is made if it does not exist.
    writers
        What writes each file, by name, given its path.
    owned
        Names that are removed from `folder` if `writers` do not have them.
    """
    folder = folder.resolve()
    check_folder(folder, owned)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        is_new = not folder.exists()
        with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent if is_new else folder) as temporary:
            whole = Path(temporary) / folder.name
            whole.mkdir()
            for name, write in writers.items():
                write(whole / name)
            if is_new:
                whole.rename(folder)
                return
            for name in writers:
                (whole / name).replace(folder / name)
            for name in set(owned) - set(writers):
                (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(folder, f"cannot be written ({error.strerror or error})") from error


def _unwritable(folder: Path, message: str) -> InputError:
    return InputError([Problem("output", "folder", str(folder), message)])
