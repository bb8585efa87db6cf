"""Rows of bid segments, of real or of reactive power, to arrays over segments and intervals."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from dlmp.bids import Resources
from dlmp.casefolder.rows import ALL_INTERVALS, in_horizon, known, once
from dlmp.csvfile import Table
from dlmp.errors import Problems
from dlmp.network.model import FloatArray, IntArray

SEGMENT = ["resource", "side", "segment"]


def good_segments(
    table: Table,
    names: Mapping[str, int] | None,
    sides: tuple[str, str],
    quantity: str,
    intervals: int,
    problems: Problems,
) -> pd.DataFrame:
    """Rows of known resources on one of two `sides`, each segment once in an interval; the others are problems.

    Parameters
    ----------
    table
        With columns ``resource, interval, side, segment`` and `quantity`.
    names
        All resources; None where they are unknown.
    sides
        What a side may be.
    quantity
        Name of the column of quantities.
    intervals
        Their number, 0 where it is unknown.
    problems
        What is wrong is added here.
    """
    rows = known(table, table.rows, "resource", names, "resource of resources.csv", problems)
    kept = pd.Series(True, index=rows.index)
    for field, good, message in (
        ("side", rows.side.isin(sides), f"must be {' or '.join(sides)}"),
        ("segment", rows.segment >= 0, "must not be negative"),
        (quantity, rows[quantity] >= 0, "must not be negative; the side says which way the power goes"),
    ):
        for line, value in rows.loc[~good, field].items():
            problems.add(table.line(line), field, value, message)
        kept &= good
    rows = once(table, rows[kept], [*SEGMENT, "interval"], problems)
    of_all = (rows.interval == ALL_INTERVALS).groupby([rows[key] for key in SEGMENT]).transform("any")
    mixed = of_all & rows.duplicated(SEGMENT)
    for line, interval in rows.interval[mixed].items():
        value = "all" if interval == ALL_INTERVALS else interval
        message = "a blank interval is all of them: the segment can have no other row"
        problems.add(table.line(line), "interval", value, message)
    return in_horizon(table, rows[~mixed], intervals, problems)


def segment_arrays(
    rows: pd.DataFrame, resources: Resources, intervals: int, fields: Sequence[str]
) -> tuple[IntArray, pd.DataFrame, list[FloatArray]]:
    """Resource (s,) and first row of every segment of `resources`, and its `fields` by interval, (t, s) each."""
    index = {name: number for number, name in enumerate(resources.name.tolist())}
    rows = rows[rows.resource.isin(index)]
    column = rows.groupby(SEGMENT, sort=False).ngroup().to_numpy()
    segments = rows.drop_duplicates(SEGMENT)
    always = (rows.interval == ALL_INTERVALS).to_numpy()
    interval = rows.interval.to_numpy()[~always]
    arrays = []
    for field in fields:
        values, target = rows[field].to_numpy(), np.zeros((intervals, len(segments)))
        target[:, column[always]] = values[always]
        target[interval, column[~always]] = values[~always]
        arrays.append(target)
    return segments.resource.map(index).to_numpy(np.int64), segments, arrays
