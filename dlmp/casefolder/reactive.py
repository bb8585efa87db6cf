"""``reactive_bids.csv``: at which prices resources give reactive power.

``resource, interval, side, segment, quantity_kvar, price_usd_per_mvarh, price_end_usd_per_mvarh``; the `side` is
``inject`` or ``absorb``, a blank interval is all of them, and a blank price at the end that at the beginning, as in
``bids.csv``.  A resource without a row gives its reactive power free of charge.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from dlmp.bids import Resources
from dlmp.casefolder.rows import ALL_INTERVALS, numbered
from dlmp.casefolder.segments import good_segments, segment_arrays
from dlmp.csvfile import Column, read_csv
from dlmp.errors import Problems
from dlmp.reactive import NO_REACTIVE_BIDS, ReactiveBids, check_reactive_bids

FILE = "reactive_bids.csv"

REACTIVE_COLUMNS = (
    Column("resource", "text"),
    Column("interval", "integer", required=False, default=ALL_INTERVALS),
    Column("side", "text"),
    Column("segment", "integer"),
    Column("quantity_kvar", "number"),
    Column("price_usd_per_mvarh", "number"),
    Column("price_end_usd_per_mvarh", "number", required=False),
)


def read_reactive_bids(
    folder: Path, resources: Resources, names: Collection[str] | None, intervals: int, problems: Problems
) -> ReactiveBids:
    """Read the table; without it reactive power is free.

    Parameters
    ----------
    folder
        The case.
    resources
        The good ones.
    names
        All names of resources, those of bad rows included; None where they are unknown.
    intervals
        Their number t, 0 where it is unknown.
    problems
        What is wrong is added here.  Bids of resources with a bad row are left out of the checks of all rows together,
        and of the result.
    """
    if not (folder / FILE).exists():
        return NO_REACTIVE_BIDS
    table = read_csv(folder / FILE, REACTIVE_COLUMNS, problems)
    if table is None:
        return NO_REACTIVE_BIDS
    rows = good_segments(table, numbered(names), ("inject", "absorb"), "quantity_kvar", intervals, problems)
    rows = rows[~rows.resource.isin(table.names_besides(rows, "resource"))]
    rows = rows.assign(rise=(rows.price_end_usd_per_mvarh - rows.price_usd_per_mvarh).fillna(0.0))
    fields = ("quantity_kvar", "price_usd_per_mvarh", "rise")
    resource, segments, (quantity_kvar, price, rise) = segment_arrays(rows, resources, intervals, fields)
    bids = ReactiveBids(
        resource=resource,
        is_injection=(segments.side == "inject").to_numpy(),
        segment=segments.segment.to_numpy(np.int64),
        quantity_kvar=quantity_kvar,
        price_usd_per_mvarh=price,
        price_rise_usd_per_mvarh=rise,
    )
    check_reactive_bids(bids, resources, problems)
    return bids
