"""``limits.csv``: limits in place of the source's.

A row has ``element`` (a line or transformer) and ``rate_kva`` or ``rate_a``, amperes of its from bus as in
`dlmp.network.tables`; or it has ``bus`` and ``v_min_pu``, ``v_max_pu`` or both.
"""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from dlmp.casefolder.rows import Places, known, once
from dlmp.csvfile import Column, Table, read_csv
from dlmp.errors import InputError, Problems
from dlmp.network.model import Network
from dlmp.units import BASE_KVA, base_current_a

RATES = ["rate_kva", "rate_a"]
BAND = ["v_min_pu", "v_max_pu"]

LIMIT_COLUMNS = (
    Column("element", "text", required=False, default=""),
    Column("bus", "text", required=False, default=""),
    *(Column(name, "number", required=False) for name in (*RATES, *BAND)),
)


def apply_limits(folder: Path, network: Network | None, places: Places, problems: Problems) -> Network | None:
    """Return `network` with the limits of ``limits.csv``; what is wrong there is added to `problems`."""
    path = folder / "limits.csv"
    table = read_csv(path, LIMIT_COLUMNS, problems) if path.exists() else None
    if table is None:
        return network
    rows = _well_formed(table, problems)
    at_branch, at_bus = rows[rows.element != ""], rows[rows.bus != ""]
    at_branch = known(table, at_branch, "element", places.branch_of_name, "line or transformer", problems)
    at_branch = once(table, at_branch, ["element"], problems)
    at_bus = known(table, at_bus, "bus", places.node_of_bus, "bus of the network", problems)
    at_bus = once(table, at_bus, ["index"], problems, shown=["bus"])
    if network is None:
        return None
    try:
        return _limited(network, at_branch, at_bus)
    except InputError as error:
        problems.found += error.problems
        return network


def _well_formed(table: Table, problems: Problems) -> pd.DataFrame:
    """Rows that limit either a branch or a bus; the others are problems."""
    rows = table.rows
    rates, band = rows[RATES].notna().sum(axis=1), rows[BAND].notna().sum(axis=1)
    one_name = (rows.element == "") != (rows.bus == "")
    branch_good = (rows.element == "") | ((rates == 1) & (band == 0))
    bus_good = (rows.bus == "") | ((rates == 0) & (band > 0))
    for wrong, field, message in (
        (~one_name, "element, bus", "name either a line or transformer, or a bus"),
        (one_name & ~branch_good, "rate_kva, rate_a", "an element needs one of them, and no voltage"),
        (one_name & ~bus_good, "v_min_pu, v_max_pu", "a bus needs one of them or both, and no rate"),
    ):
        for line, row in rows[wrong].iterrows():
            problems.add(table.line(line), field, tuple(row[field.split(", ")].tolist()), message)
    return rows[one_name & branch_good & bus_good]


def _limited(network: Network, at_branch: pd.DataFrame, at_bus: pd.DataFrame) -> Network:
    rating_from, rating_to = network.rating_from_pu.copy(), network.rating_to_pu.copy()
    is_current = network.rating_is_current.copy()
    for branch, kva, amperes in zip(at_branch["index"], at_branch.rate_kva, at_branch.rate_a, strict=True):
        is_current[branch] = pd.isna(kva)
        base_a = base_current_a(float(network.base_kv[network.from_node[branch]]))
        rating_from[branch] = rating_to[branch] = amperes / base_a if is_current[branch] else kva / BASE_KVA
    v_min_pu, v_max_pu = network.v_min_pu.copy(), network.v_max_pu.copy()
    for band, given in ((v_min_pu, at_bus.v_min_pu), (v_max_pu, at_bus.v_max_pu)):
        band[at_bus["index"][given.notna()]] = given[given.notna()]
    return replace(
        network,
        v_min_pu=v_min_pu,
        v_max_pu=v_max_pu,
        rating_from_pu=rating_from,
        rating_to_pu=rating_to,
        rating_is_current=is_current,
    )
