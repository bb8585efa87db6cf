"""What the tables of a case have in common: intervals, references to names, and rows that must stand once."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dlmp.csvfile import Table
from dlmp.errors import Problems
from dlmp.network.model import FloatArray, Network, some_of

ALL_INTERVALS = -(2**62)
"""Interval of a row whose interval is blank; no user's number, for those are exact as floats."""


@dataclass(frozen=True)
class Places:
    """Buses and branches that a table may refer to, by index; None where the network is unknown."""

    bus_number: Mapping[str, int] | None
    branch_number: Mapping[str, int] | None


def numbered(names: Collection[str] | None) -> dict[str, int] | None:
    """Names with their places in alphabetical order; None where they are unknown."""
    return None if names is None else {name: index for index, name in enumerate(sorted(names))}


def in_horizon(table: Table, rows: pd.DataFrame, intervals: int, problems: Problems) -> pd.DataFrame:
    """Rows of the horizon's intervals, or of all; the others are problems where the horizon is known."""
    inside = (rows.interval >= 0) & (rows.interval < intervals) | (rows.interval == ALL_INTERVALS)
    if intervals:
        for line, interval in rows.interval[~inside].items():
            problems.add(table.line(line), "interval", interval, f"must be 0 to {intervals - 1}")
    return rows[inside & (intervals > 0)]


def once(
    table: Table, rows: pd.DataFrame, keys: list[str], problems: Problems, shown: list[str] | None = None
) -> pd.DataFrame:
    """Rows whose `keys` have not stood further up; the others are problems, told by the columns `shown`."""
    shown = shown or keys
    for line, cells in rows.loc[rows.duplicated(keys), shown].iterrows():
        value = ", ".join("all" if cell == ALL_INTERVALS else str(cell) for cell in cells)
        problems.add(table.line(line), ", ".join(shown), value, "stands in a row above already")
    return rows[~rows.duplicated(keys)]


def by_interval_or_all(
    table: Table, rows: pd.DataFrame, keys: list[str], what: str, intervals: int, problems: Problems
) -> pd.DataFrame:
    """Rows in the horizon of whatever `keys` name, each of `what` once in an interval or once with a blank one.

    The others are problems.
    """
    rows = once(table, rows, [*keys, "interval"], problems)
    of_all = (rows.interval == ALL_INTERVALS).groupby([rows[key] for key in keys]).transform("any")
    mixed = of_all & rows.duplicated(keys)
    for line, interval in rows.interval[mixed].items():
        value = "all" if interval == ALL_INTERVALS else interval
        message = f"a blank interval is all of them: the {what} can have no other row"
        problems.add(table.line(line), "interval", value, message)
    return in_horizon(table, rows[~mixed], intervals, problems)


def over_intervals(
    rows: pd.DataFrame, keys: list[str], intervals: int, fields: Sequence[str]
) -> tuple[pd.DataFrame, list[FloatArray]]:
    """First row of each of the k that `keys` name, and their `fields` by interval, (t, k) each; 0 without a row."""
    column = rows.groupby(keys, sort=False).ngroup().to_numpy()
    firsts = rows.drop_duplicates(keys)
    always = (rows.interval == ALL_INTERVALS).to_numpy()
    interval = rows.interval.to_numpy()[~always]
    arrays = []
    for field in fields:
        values, target = rows[field].to_numpy(), np.zeros((intervals, len(firsts)))
        target[:, column[always]] = values[always]
        target[interval, column[~always]] = values[~always]
        arrays.append(target)
    return firsts, arrays


def check_complete(table: Table, rows: pd.DataFrame, intervals: int, problems: Problems) -> None:
    """Add the intervals that neither `rows` nor a bad row of `table` has, unless a bad row may be any."""
    left_out = pd.to_numeric(table.left_out.interval, errors="coerce").astype(float)
    if not left_out.isin(range(intervals)).all():
        return
    missing = np.setdiff1d(np.arange(intervals), np.r_[rows.interval, left_out])
    if len(missing):
        message = f"has no row; each interval from 0 to {intervals - 1} needs one"
        problems.add(table.name, "interval", some_of([str(interval) for interval in missing]), message)


def known(
    table: Table, rows: pd.DataFrame, column: str, names: Mapping[str, int] | None, what: str, problems: Problems
) -> pd.DataFrame:
    """Rows whose `column` names one of `names`, with its index as a further column ``index``.

    The others are problems.  Where `names` is unknown all rows stay, each name with an index of its own.
    """
    if names is None:
        return rows.assign(index=pd.factorize(rows[column])[0])
    unknown = ~rows[column].isin(names)
    spelled = {name.lower(): name for name in names} if unknown.any() else {}
    for line, name in rows.loc[unknown, column].items():
        meant = spelled.get(str(name).lower())
        remedy = (
            f"it is spelled {meant}"
            if meant
            else f"known: {some_of(list(names))}"
            if names
            else "there are none: add it there"
        )
        problems.add(table.line(line), column, name, f"is no {what}; {remedy}")
    rows = rows[~unknown]
    return rows.assign(index=rows[column].map(names).astype(np.int64))


def on_phase(table: Table, rows: pd.DataFrame, network: Network | None, problems: Problems) -> pd.DataFrame:
    """Rows of `known` buses whose ``phase`` their bus has; the others are problems where the network is known."""
    good = pd.Series(True, index=rows.index)
    for line, number, phase in zip(rows.index, rows["index"], rows.phase, strict=True):
        try:
            if network is not None:
                network.ports_for(number, phase)
        except ValueError as error:
            good[line] = False
            problems.add(table.line(line), "phase", phase, str(error))
    return rows[good]
