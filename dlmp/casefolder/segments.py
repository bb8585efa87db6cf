"""Rows of bid segments, of real or of reactive power, to arrays over segments and intervals."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from dlmp.bids import Resources
from dlmp.casefolder.rows import by_interval_or_all, known, over_intervals
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
    return by_interval_or_all(table, rows[kept], SEGMENT, "segment", intervals, problems)


def segment_arrays(
    rows: pd.DataFrame, resources: Resources, intervals: int, fields: Sequence[str]
) -> tuple[IntArray, pd.DataFrame, list[FloatArray]]:
    """Resource (s,) and first row of every segment of `resources`, and its `fields` by interval, (t, s) each."""
    index = {name: number for number, name in enumerate(resources.name.tolist())}
    segments, arrays = over_intervals(rows[rows.resource.isin(index)], SEGMENT, intervals, fields)
    return segments.resource.map(index).to_numpy(np.int64), segments, arrays
