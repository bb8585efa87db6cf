"""``limits.csv``: limits in place of the source's.

A row has ``element`` (a line or transformer) and ``rate_kva`` or ``rate_a``, amperes of its from bus as in
`dlmp.network.tables`, which hold for each phase; the kVA of a branch of single phases are those of
all its phases together and limit the current of each at nominal voltage.  Or it has ``bus`` and
``v_min_pu``, ``v_max_pu`` or both.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from dlmp.casefolder.rows import Places, known, once
from dlmp.csvfile import Column, Table, read_csv
from dlmp.errors import InputError, Problems
from dlmp.network.model import BALANCED_PHASE, PHASES, FloatArray, IntArray, Network
from dlmp.units import BASE_KVA

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
    at_branch = known(table, at_branch, "element", places.branch_number, "line or transformer", problems)
    at_branch = once(table, at_branch, ["element"], problems)
    at_bus = known(table, at_bus, "bus", places.bus_number, "bus of the network", problems)
    at_bus = once(table, at_bus, ["index"], problems, shown=["bus"])
    if network is None:
        return None
    for line, row in at_bus.iterrows():
        if network.is_source[network.nodes_at(row["index"])].any():
            message = "is a source, whose voltage is given; set network.source_v_pu in case.toml instead"
            problems.add(table.line(line), "bus", row.bus, message)
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
            given = tuple(row[field.split(", ")].dropna().tolist())
            problems.add(table.line(line), field, given or "blank", message)
    rows = rows[one_name & branch_good & bus_good]
    is_positive = (rows[RATES].isna() | (rows[RATES] > 0)).all(axis=1)
    for line, row in rows[~is_positive].iterrows():
        rate = row[RATES].dropna()
        problems.add(table.line(line), rate.index[0], float(rate.iloc[0]), "must be above zero")
    return rows[is_positive]


def _limited(network: Network, at_branch: pd.DataFrame, at_bus: pd.DataFrame) -> Network:
    rating_from, rating_to = network.rating_from_pu.copy(), network.rating_to_pu.copy()
    is_current = network.rating_is_current.copy()
    for name, kva, amperes in zip(at_branch.element, at_branch.rate_kva, at_branch.rate_a, strict=True):
        conductors = network.conductors_of(name)
        for rating, end in ((rating_from, network.from_node), (rating_to, network.to_node)):
            rating[conductors] = (
                _per_phase(network, end[conductors], kva)
                if pd.isna(amperes)
                else amperes / network.current_base_a[network.from_node[conductors]]
            )
        is_current[conductors] = pd.isna(kva) | (network.phase[network.from_node[conductors]] != BALANCED_PHASE)
    v_min_pu, v_max_pu = network.v_min_pu.copy(), network.v_max_pu.copy()
    for band, given in ((v_min_pu, at_bus.v_min_pu), (v_max_pu, at_bus.v_max_pu)):
        for number, value in zip(at_bus["index"][given.notna()], given[given.notna()], strict=True):
            band[network.nodes_at(number)] = value
    return replace(
        network,
        v_min_pu=v_min_pu,
        v_max_pu=v_max_pu,
        rating_from_pu=rating_from,
        rating_to_pu=rating_to,
        rating_is_current=is_current,
    )


def _per_phase(network: Network, nodes: IntArray, kva: float) -> FloatArray:
    """Power [pu] of each conductor at `nodes`: all of `kva` at a balanced node, an equal part of it at a phase.

    A node counts once: the primary of a centre-tapped transformer stands at both of its entries.
    """
    is_phase = np.isin(network.phase[nodes], PHASES)
    part = np.where(is_phase, 1.0 / max(1, len(np.unique(nodes[is_phase]))), np.inf)
    return np.where(network.phase[nodes] == BALANCED_PHASE, 1.0, part) * kva / BASE_KVA
