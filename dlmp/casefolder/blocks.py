"""``blocks.csv``: bids over consecutive intervals that are accepted as a whole or not at all.

One row per block: ``block, resource, side, first_interval, last_interval, quantity_kw, price_usd_per_mwh,
min_acceptance_ratio, exclusive_group``, which `dlmp.blocks` explains.  A blank `first_interval` is the first of the
horizon, a blank `last_interval` the last, a blank `min_acceptance_ratio` 1, a blank `exclusive_group` none.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from dlmp.bids import Resources
from dlmp.blocks import NO_BLOCKS, Blocks, check_blocks
from dlmp.casefolder.rows import ALL_INTERVALS, known, numbered, once
from dlmp.csvfile import Column, read_csv
from dlmp.errors import Problems
from dlmp.stores import Stores

BLOCK_COLUMNS = (
    Column("block", "text"),
    Column("resource", "text"),
    Column("side", "text"),
    Column("first_interval", "integer", required=False, default=ALL_INTERVALS),
    Column("last_interval", "integer", required=False, default=ALL_INTERVALS),
    Column("quantity_kw", "number"),
    Column("price_usd_per_mwh", "number"),
    Column("min_acceptance_ratio", "number", required=False, default=1.0),
    Column("exclusive_group", "text", required=False, default=""),
)


def read_blocks(
    folder: Path,
    resources: Resources,
    stores: Stores,
    names: Collection[str] | None,
    intervals: int,
    problems: Problems,
) -> Blocks:
    """Read the table; without it nobody bids a block.

    Parameters
    ----------
    folder
        The case.
    resources, stores
        The good ones.
    names
        All names of resources, those of bad rows included; None where they are unknown.
    intervals
        Their number t, 0 where it is unknown.
    problems
        What is wrong is added here; blocks of resources that have a bad row elsewhere are left out.
    """
    path = folder / "blocks.csv"
    table = read_csv(path, BLOCK_COLUMNS, problems) if path.exists() else None
    if table is None:
        return NO_BLOCKS
    rows = known(table, table.rows, "resource", numbered(names), "resource of resources.csv", problems)
    rows = once(table, rows, ["block"], problems)
    has_side = rows.side.isin(("supply", "demand"))
    for line, value in rows.side[~has_side].items():
        problems.add(table.line(line), "side", value, "must be supply or demand")
    rows = rows[has_side]
    index = {name: number for number, name in enumerate(resources.name.tolist())}
    rows = rows[rows.resource.isin(index)]
    first, last = rows.first_interval.to_numpy(np.int64), rows.last_interval.to_numpy(np.int64)
    blocks = Blocks(
        name=rows.block.to_numpy(str),
        resource=rows.resource.map(index).to_numpy(np.int64),
        is_supply=(rows.side == "supply").to_numpy(),
        first=np.where(first == ALL_INTERVALS, 0, first),
        last=np.where(last == ALL_INTERVALS, intervals - 1, last),
        quantity_kw=rows.quantity_kw.to_numpy(float),
        price_usd_per_mwh=rows.price_usd_per_mwh.to_numpy(float),
        least_share=rows.min_acceptance_ratio.to_numpy(float),
        group=rows.exclusive_group.to_numpy(str),
    )
    if intervals:
        check_blocks(blocks, resources, stores, intervals, problems)
    return blocks
