"""Networks to plain tables."""

from pathlib import Path

import numpy as np
import pandas as pd

from dlmp.csvfile import Column
from dlmp.errors import InputError, Problem
from dlmp.network.model import BalancedNetwork, FloatArray, Network
from dlmp.network.tables.columns import (
    END_RATES,
    END_SHUNTS,
    LINE_COLUMNS,
    MICRO,
    NODE_COLUMNS,
    amperes_per_pu,
    ohm_per_pu,
)
from dlmp.units import BASE_KVA


def write_tables(network: Network, folder: Path | str) -> None:
    """Write a balanced `network` into `folder`, so that `read_tables` gives it back.

    The elements of a bus become one, and a branch without a limit one whose limit would be of current.
    Optional columns are left out where nothing needs them.

    Raises
    ------
    InputError
        When the network has nodes of single phases.
    """
    if not isinstance(network, BalancedNetwork):
        raise InputError(
            [Problem("network", "phase", str(network.phase[0]), "tables hold balanced networks only, without phases")]
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _node_rows(network).to_csv(folder / "nodes.csv", index=False)
    _line_rows(network).to_csv(folder / "lines.csv", index=False)
    if len(network.alias_bus):
        aliases = pd.DataFrame({"alias": network.alias_bus, "bus": network.bus[network.alias_node]})
        aliases.to_csv(folder / "aliases.csv", index=False)


def _node_rows(network: BalancedNetwork) -> pd.DataFrame:
    p_kw, q_kvar = network.element_loads()
    voltage = np.full(network.node_count, np.nan, dtype=complex)
    voltage[network.source] = network.source_v_pu
    shunt_us = network.node_shunt_pu / ohm_per_pu(network.base_kv) / MICRO
    rows = pd.DataFrame(
        {
            "bus": network.bus,
            "base_kv": network.base_kv,
            "p_kw": p_kw,
            "q_kvar": q_kvar,
            "v_min_pu": network.v_min_pu,
            "v_max_pu": network.v_max_pu,
            "is_source": network.is_source.astype(int),
            "source_v_pu": np.abs(voltage),
            "source_angle_degree": np.rad2deg(np.angle(voltage)),
            "g_us": shunt_us.real,
            "b_us": shunt_us.imag,
            "x": network.xy[:, 0],
            "y": network.xy[:, 1],
        }
    )
    return _without_defaults(rows, NODE_COLUMNS, ("source_angle_degree", "g_us", "b_us", "x", "y"))


def _line_rows(network: BalancedNetwork) -> pd.DataFrame:
    from_kv, to_kv = network.base_kv[network.from_node], network.base_kv[network.to_node]
    ohm = network.series_pu * ohm_per_pu(to_kv)
    shunt_from, shunt_to = (shunt / ohm_per_pu(to_kv) / MICRO for shunt in (network.shunt_from_pu, network.shunt_to_pu))
    charging = (shunt_from == shunt_to) & (shunt_from.real == 0)
    rows = pd.DataFrame(
        {
            "line": network.branch,
            "from_bus": network.bus[network.from_node],
            "to_bus": network.bus[network.to_node],
            "r_ohm": ohm.real,
            "x_ohm": ohm.imag,
            "b_us": np.where(charging, 2 * shunt_from.imag, np.nan),
            **_rate_columns(network, from_kv, to_kv),
            "kind": network.branch_kind,
            "tap_ratio": np.abs(network.tap),
            "shift_degree": np.rad2deg(np.angle(network.tap)),
            "g_from_us": np.where(charging, np.nan, shunt_from.real),
            "b_from_us": np.where(charging, np.nan, shunt_from.imag),
            "g_to_us": np.where(charging, np.nan, shunt_to.real),
            "b_to_us": np.where(charging, np.nan, shunt_to.imag),
        }
    )[[column.name for column in LINE_COLUMNS]]
    if (network.branch_kind == "line").all() and (from_kv == to_kv).all():
        rows = rows.drop(columns="kind")
    return _without_defaults(rows, LINE_COLUMNS, ("tap_ratio", "shift_degree", *END_SHUNTS, *END_RATES))


def _rate_columns(network: BalancedNetwork, from_kv: FloatArray, to_kv: FloatArray) -> dict[str, FloatArray]:
    rating_from, rating_to = (
        np.where(np.isinf(rating), np.nan, rating) for rating in (network.rating_from_pu, network.rating_to_pu)
    )
    current, equal = network.rating_is_current, network.rating_from_pu == network.rating_to_pu
    return {
        "rate_kva": np.where(~current & equal, rating_from * BASE_KVA, np.nan),
        "rate_from_kva": np.where(~current & ~equal, rating_from * BASE_KVA, np.nan),
        "rate_to_kva": np.where(~current & ~equal, rating_to * BASE_KVA, np.nan),
        "rate_a": np.where(current & equal, rating_from * amperes_per_pu(from_kv), np.nan),
        "rate_from_a": np.where(current & ~equal, rating_from * amperes_per_pu(from_kv), np.nan),
        "rate_to_a": np.where(current & ~equal, rating_to * amperes_per_pu(to_kv), np.nan),
    }


def _without_defaults(rows: pd.DataFrame, columns: tuple[Column, ...], optional: tuple[str, ...]) -> pd.DataFrame:
    """Drop the `optional` columns that hold nothing but blanks or their default."""
    default = {column.name: column.default for column in columns}
    return rows.drop(columns=[name for name in optional if (rows[name].isna() | (rows[name] == default[name])).all()])
