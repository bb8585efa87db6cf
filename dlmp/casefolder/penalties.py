"""``penalties.csv``: what it costs to break a limit, in place of the built-in tiers of the kinds that it has.

One row per tier.  A kind whose only row has no price is hard: its limits are not to be broken.
"""

from pathlib import Path

import pandas as pd

from dlmp.casefolder.rows import once
from dlmp.csvfile import Column, Table, read_csv
from dlmp.errors import Problems
from dlmp.penalties import KINDS, Penalties, Tier, Tiers, check_tiers

FILE = "penalties.csv"

COLUMNS = (
    Column("limit", "text"),
    Column("beyond", "number"),
    Column("price", "number", required=False),
)


def read_penalties(folder: Path, problems: Problems) -> Penalties:
    """Read the penalties of `folder`, the built-in ones without the file; what is wrong is added to `problems`."""
    path = folder / FILE
    table = read_csv(path, COLUMNS, problems) if path.exists() else None
    if table is None:
        return Penalties()
    rows = table.rows
    is_known = rows.limit.isin(list(KINDS))
    for line, kind in rows.limit[~is_known].items():
        problems.add(table.line(line), "limit", kind, f"must be one of {', '.join(KINDS)}")
    rows = once(table, rows[is_known], ["limit", "beyond"], problems).sort_values(["limit", "beyond"])
    before = len(problems.found)
    found = {KINDS[str(kind)]: _tiers(table, str(kind), own, problems) for kind, own in rows.groupby("limit")}
    return Penalties(**found) if len(problems.found) == before else Penalties()


def _tiers(table: Table, kind: str, rows: pd.DataFrame, problems: Problems) -> Tiers:
    """Tiers of a kind, checked; none where its only row has no price."""
    unpriced = rows[rows.price.isna()]
    if len(unpriced) and len(rows) == 1:
        return ()
    for line in unpriced.index:
        problems.add(table.line(line), "price", "blank", f"is needed; without it must be the only row of {kind}")
    priced = rows.dropna(subset=["price"])
    tiers = tuple(Tier(float(beyond), float(price)) for beyond, price in zip(priced.beyond, priced.price, strict=True))
    if not len(unpriced):
        check_tiers(kind, tiers, problems)
    return tiers
