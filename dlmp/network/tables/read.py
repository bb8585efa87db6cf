"""Plain tables to networks."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from dlmp.csvfile import Table, read_csv
from dlmp.errors import InputError, Problem, Problems
from dlmp.network.model import BALANCED_PHASE, BalancedNetwork, FloatArray, TextArray
from dlmp.network.tables.columns import (
    ALIAS_COLUMNS,
    BRANCH_KINDS,
    END_SHUNTS,
    LINE_COLUMNS,
    MICRO,
    NODE_COLUMNS,
    RATES_A,
    RATES_KVA,
    amperes_per_pu,
    ohm_per_pu,
)
from dlmp.units import BASE_KVA

DEFAULTS = {"v_min_pu": 0.9, "v_max_pu": 1.1, "source_v_pu": 1.0}
"""Voltage band (EN 50160) and source voltage where neither the table nor the caller gives one."""


@dataclass(frozen=True)
class TableNames:
    """Names that stand in the tables of a folder, also where their rows are wrong; None without a table."""

    buses: frozenset[str] | None
    branches: frozenset[str] | None


def read_tables(
    folder: Path | str,
    *,
    v_min_pu: float | None = None,
    v_max_pu: float | None = None,
    source_v_pu: float | None = None,
) -> BalancedNetwork:
    """Read the network of ``nodes.csv``, ``lines.csv`` and ``aliases.csv`` in `folder`.

    Every bus with consumption has one element, ``load <bus>``.  The network has the folder's name.

    Parameters
    ----------
    folder
        Where the tables are.
    v_min_pu, v_max_pu
        Voltage band [pu] of the buses whose cells are blank.
    source_v_pu
        Voltage magnitude [pu] of the sources whose cell is blank.

    Raises
    ------
    InputError
        With everything that is wrong in all tables.
    """
    folder = Path(folder)
    problems = Problems()
    nodes = read_csv(folder / "nodes.csv", NODE_COLUMNS, problems)
    lines = read_csv(folder / "lines.csv", LINE_COLUMNS, problems)
    aliases = _read_aliases(folder, problems)
    if nodes is None or lines is None:
        raise InputError(problems.found)
    _check_source_marks(nodes, problems)
    good_aliases = _known_ends(aliases.rows, nodes.names("bus"), ("bus",), "alias", problems)
    buses = nodes.names("bus") | aliases.names("alias")
    good_lines = _known_ends(lines.rows, buses, ("from_bus", "to_bus"), "line", problems)
    _check_lines(good_lines, problems)
    given = {"v_min_pu": v_min_pu, "v_max_pu": v_max_pu, "source_v_pu": source_v_pu}
    filled = nodes.rows.fillna(DEFAULTS | {name: value for name, value in given.items() if value is not None})
    try:
        network = _network(folder.resolve().name, filled, good_lines, good_aliases, problems)
    except InputError as error:
        problems.found += [problem for problem in error.problems if not (problems.found and _follows(problem))]
    problems.raise_if_any()
    return network


def names_in_tables(folder: Path) -> TableNames:
    """Return every bus and branch that the tables of `folder` name, for checks of what refers to them."""
    ignored = Problems()
    nodes = read_csv(folder / "nodes.csv", NODE_COLUMNS, ignored)
    lines = read_csv(folder / "lines.csv", LINE_COLUMNS, ignored)
    aliases = _read_aliases(folder, ignored)
    return TableNames(
        nodes.names("bus") | aliases.names("alias") if nodes else None,
        lines.names("line") if lines else None,
    )


def _read_aliases(folder: Path, problems: Problems) -> Table:
    path = folder / "aliases.csv"
    empty = pd.DataFrame({"alias": [], "bus": []}, dtype=object)
    table = read_csv(path, ALIAS_COLUMNS, problems) if path.exists() else None
    return table or Table(path.name, empty, empty)


def _follows(problem: Problem) -> bool:
    """Whether a problem of the network as a whole may only follow from rows that were left out."""
    return problem.element == "network" or problem.field == "island"


def _check_source_marks(nodes: Table, problems: Problems) -> None:
    rows = nodes.rows
    for row in rows[~rows.is_source.isin((0, 1))].itertuples():
        problems.add(f"bus {row.bus}", "is_source", row.is_source, "must be 1 for a source, else 0 or blank")


def _known_ends(
    rows: pd.DataFrame, buses: frozenset[str], ends: tuple[str, ...], name: str, problems: Problems
) -> pd.DataFrame:
    """Rows whose `ends` are all buses; the others are problems."""
    for end in ends:
        for _, row in rows[~rows[end].isin(buses)].iterrows():
            problems.add(f"{name} {row[name]}", end, row[end], "is no bus of nodes.csv")
    return rows[rows[list(ends)].isin(buses).all(axis=1)]


def _check_lines(lines: pd.DataFrame, problems: Problems) -> None:
    for row in lines[~lines.kind.isin(("", *BRANCH_KINDS))].itertuples():
        problems.add(f"line {row.line}", "kind", row.kind, f"must be one of {', '.join(BRANCH_KINDS)}, or blank")
    for chosen, other, message in (
        (RATES_KVA, RATES_A, "give a limit of apparent power or of current, not both"),
        (("rate_kva",), ("rate_from_kva", "rate_to_kva"), "give one limit for both ends or one for each"),
        (("rate_a",), ("rate_from_a", "rate_to_a"), "give one limit for both ends or one for each"),
        (("b_us",), END_SHUNTS, "give the charging of both ends or the shunt of each"),
    ):
        twice = lines[list(chosen)].notna().any(axis=1) & lines[list(other)].notna().any(axis=1)
        for _, cells in lines[twice].iterrows():
            filled = [column for column in (*chosen, *other) if pd.notna(cells[column])]
            problems.add(f"line {cells.line}", ", ".join(filled), tuple(float(cells[name]) for name in filled), message)


def _network(
    name: str, nodes: pd.DataFrame, lines: pd.DataFrame, aliases: pd.DataFrame, problems: Problems
) -> BalancedNetwork:
    index = {bus: node for node, bus in enumerate(nodes.bus)}
    aliases = aliases[aliases.bus.isin(index)]
    index |= {row.alias: index[row.bus] for row in aliases.itertuples()}
    lines = lines[lines.from_bus.isin(index) & lines.to_bus.isin(index)]
    from_node = lines.from_bus.map(index).to_numpy(np.int64)
    to_node = lines.to_bus.map(index).to_numpy(np.int64)
    base_kv = nodes.base_kv.to_numpy()
    _check_base_voltages(lines, base_kv[from_node], base_kv[to_node], problems)
    known_kv = np.where(base_kv > 0, base_kv, 1.0)  # the network itself reports the others
    from_kv, to_kv = known_kv[from_node], known_kv[to_node]
    rating_from, rating_to, is_current = ratings_pu(lines, from_kv, to_kv)
    source = np.flatnonzero(nodes.is_source == 1)
    angle = np.deg2rad(nodes.source_angle_degree.to_numpy())
    loaded = (nodes.p_kw != 0) | (nodes.q_kvar != 0)
    half = lines.b_us.fillna(0.0) / 2

    def shunt_pu(g: pd.Series, b: pd.Series) -> npt.NDArray[np.complex128]:
        return (g.fillna(0.0).to_numpy() + 1j * b.fillna(half).to_numpy()) * MICRO * ohm_per_pu(to_kv)

    return BalancedNetwork(
        name=name,
        bus=_text(nodes.bus),
        phase=np.full(len(nodes), BALANCED_PHASE),
        base_kv=base_kv,
        v_min_pu=nodes.v_min_pu.to_numpy(),
        v_max_pu=nodes.v_max_pu.to_numpy(),
        source=source,
        source_v_pu=(nodes.source_v_pu.to_numpy() * np.exp(1j * angle))[source],
        branch=_text(lines.line),
        branch_kind=_text(lines.kind.replace("", "line")),
        from_node=from_node,
        to_node=to_node,
        series_pu=(lines.r_ohm.to_numpy() + 1j * lines.x_ohm.to_numpy()) / ohm_per_pu(to_kv),
        tap=lines.tap_ratio.to_numpy() * np.exp(1j * np.deg2rad(lines.shift_degree.to_numpy())),
        shunt_from_pu=shunt_pu(lines.g_from_us, lines.b_from_us),
        shunt_to_pu=shunt_pu(lines.g_to_us, lines.b_to_us),
        rating_from_pu=rating_from,
        rating_to_pu=rating_to,
        rating_is_current=is_current,
        node_shunt_pu=(nodes.g_us.to_numpy() + 1j * nodes.b_us.to_numpy()) * MICRO * ohm_per_pu(known_kv),
        element=_text("load " + nodes.bus[loaded]),
        element_kind=np.full(loaded.sum(), "load"),
        element_load=np.flatnonzero(loaded),
        element_p_kw=nodes.p_kw[loaded].to_numpy(),
        element_q_kvar=nodes.q_kvar[loaded].to_numpy(),
        alias_bus=_text(aliases.alias),
        alias_node=aliases.bus.map(index).to_numpy(np.int64),
        xy=nodes[["x", "y"]].to_numpy(float),
    )


def _check_base_voltages(lines: pd.DataFrame, from_kv: FloatArray, to_kv: FloatArray, problems: Problems) -> None:
    known = (from_kv > 0) & (to_kv > 0)
    for position in np.flatnonzero(known & (from_kv != to_kv) & (lines.kind == "").to_numpy()):
        band = (float(from_kv[position]), float(to_kv[position]))
        element = f"line {lines.line.iloc[position]}"
        problems.add(element, "base_kv of its buses", band, "differ; say kind = transformer if it is one")


def ratings_pu(
    rows: pd.DataFrame, from_kv: FloatArray, to_kv: FloatArray
) -> tuple[FloatArray, FloatArray, npt.NDArray[np.bool_]]:
    """Return the limits of branches [pu] at their from and to ends, and whether they limit the current.

    Parameters
    ----------
    rows
        The columns `RATES_KVA` [kVA] and `RATES_A` [A] of each branch, NaN where blank.
    from_kv, to_kv
        Base voltages of their buses [kV].
    """
    kva = rows[list(RATES_KVA)] / BASE_KVA
    both, at_from, at_to = (rows[column].to_numpy() for column in RATES_A)
    amperes_from = np.where(np.isnan(both), at_from, both) / amperes_per_pu(from_kv)
    amperes_to = np.where(np.isnan(both), at_to / amperes_per_pu(to_kv), both / amperes_per_pu(from_kv))
    rating_from = kva.rate_kva.fillna(kva.rate_from_kva).fillna(pd.Series(amperes_from, rows.index)).fillna(np.inf)
    rating_to = kva.rate_kva.fillna(kva.rate_to_kva).fillna(pd.Series(amperes_to, rows.index)).fillna(np.inf)
    return rating_from.to_numpy(), rating_to.to_numpy(), kva.isna().all(axis=1).to_numpy()


def _text(names: pd.Series) -> TextArray:
    return names.to_numpy().astype(str)
