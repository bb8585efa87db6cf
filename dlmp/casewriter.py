"""A market case to a folder that needs nothing else: the network as tables, the loads by bus and interval."""

import json
import math
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from dlmp.bids import Bids, Resources
from dlmp.errors import InputError, Problem, Problems
from dlmp.network.model import Network
from dlmp.network.tables import write_tables
from dlmp.penalties import KINDS, Penalties, Tier
from dlmp.stores import PROFILED, Stores

if TYPE_CHECKING:
    from dlmp.market import Horizon, MarketCase, Substation


def write_case(case: "MarketCase", folder: Path | str) -> None:
    """Write `case` into a new folder, so that `dlmp.read_case` gives it back; the folder appears whole or not at all.

    The network comes back with one fixed element per bus, and with the folder's name.

    Raises
    ------
    InputError
        When the folder exists and is not empty, when the network is not balanced, and when two columns
        of the bids are the same segment.
    """
    folder = Path(folder).resolve()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError([Problem("case", "folder", str(folder), "exists already; name a new or an empty folder")])
    _check_segments(case)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        whole = Path(temporary) / folder.name
        _write_files(case, whole)
        if folder.exists():
            folder.rmdir()
        whole.rename(folder)


def _check_segments(case: "MarketCase") -> None:
    bids = case.bids
    keys = pd.DataFrame({"resource": bids.resource, "is_supply": bids.is_supply, "segment": bids.segment})
    problems = Problems()
    for column in np.flatnonzero(keys.duplicated()):
        side = "supply" if bids.is_supply[column] else "demand"
        element = f"bid of {case.resources.name[bids.resource[column]]}"
        message = "stands more than once; number the segments of a curve"
        problems.add(element, f"{side} segment", int(bids.segment[column]), message)
    problems.raise_if_any()


def _write_files(case: "MarketCase", folder: Path) -> None:
    write_tables(case.network, folder)
    (folder / "case.toml").write_text(_toml(case.name, case.horizon, case.substation), "utf-8")
    tables = {"import_prices.csv": _prices(case.substation), "load_profile.csv": _loads(case)}
    if case.penalties != Penalties():
        tables["penalties.csv"] = _penalties(case.penalties)
    if len(case.resources):
        tables["resources.csv"] = _resources(case.resources, case.network)
        tables["bids.csv"] = _bids(case.bids, case.resources)
        tables["availability.csv"] = _availability(case.resources)
        tables["stores.csv"] = _stores(case.stores, case.resources)
        tables["store_profile.csv"] = _store_profile(case.stores, case.resources)
    for name, table in tables.items():
        if len(table) or name == "bids.csv":
            table.to_csv(folder / name, index=False)


def _toml(name: str, horizon: "Horizon", substation: "Substation") -> str:
    limits = {
        field: getattr(substation, field)
        for field in ("p_min_kw", "p_max_kw", "q_min_kvar", "q_max_kvar")
        if math.isfinite(getattr(substation, field))
    }
    lines = [
        f"name = {_quoted(name)}",
        "",
        "[network]",
        'source = "tables:."',
        "",
        "[horizon]",
        f"start = {horizon.start.isoformat().replace('+00:00', 'Z')}",
        f"interval_minutes = {horizon.interval_minutes}",
        f"intervals = {horizon.intervals}",
        f"timezone = {_quoted(horizon.timezone)}",
        f"currency = {_quoted(horizon.currency)}",
        "",
        "[import]",
        *(f"{field} = {float(value)!r}" for field, value in limits.items()),
    ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Return a TOML basic string: JSON's, but that TOML also wants DEL escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")


def _prices(substation: "Substation") -> pd.DataFrame:
    table = pd.DataFrame({"price_usd_per_mwh": substation.price_usd_per_mwh})
    if substation.q_price_usd_per_mvarh.any():
        table["q_price_usd_per_mvarh"] = substation.q_price_usd_per_mvarh
    return table.rename_axis("interval").reset_index()


def _loads(case: "MarketCase") -> pd.DataFrame:
    """One row per interval and bus, of the buses with any load in the case or in the tables of its network."""
    own_p, own_q = case.network.element_loads()
    columns = np.flatnonzero(
        (case.load_p_kw != 0).any(axis=0) | (case.load_q_kvar != 0).any(axis=0) | (own_p != 0) | (own_q != 0)
    )
    return pd.DataFrame(
        {
            "interval": np.repeat(np.arange(case.horizon.intervals), len(columns)),
            "bus": np.tile(case.network.bus[columns], case.horizon.intervals),
            "p_kw": case.load_p_kw[:, columns].ravel(),
            "q_kvar": case.load_q_kvar[:, columns].ravel(),
        }
    )


def _resources(resources: Resources, network: Network) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "resource": resources.name,
            "bus": network.port_bus[resources.first_port],
            "phase": "",
            "kind": resources.kind,
            "p_min_kw": resources.p_min_kw,
            "p_max_kw": resources.p_max_kw.max(axis=0),
            "q_min_kvar": resources.q_min_kvar,
            "q_max_kvar": resources.q_max_kvar,
            "s_max_kva": np.where(np.isinf(resources.s_max_kva), np.nan, resources.s_max_kva),
        }
    )


def _availability(resources: Resources) -> pd.DataFrame:
    """Rows where a resource has less than its most."""
    interval, index = np.nonzero(resources.p_max_kw < resources.p_max_kw.max(axis=0))
    p_max_kw = resources.p_max_kw[interval, index]
    return pd.DataFrame({"resource": resources.name[index], "interval": interval, "p_max_kw": p_max_kw})


def _bids(bids: Bids, resources: Resources) -> pd.DataFrame:
    """One row for a segment that never changes, else one for each interval that offers it."""
    steady = (bids.quantity_kw == bids.quantity_kw[0]).all(axis=0)
    steady &= (bids.price_usd_per_mwh == bids.price_usd_per_mwh[0]).all(axis=0)
    written = (bids.quantity_kw != 0) | (bids.price_usd_per_mwh != 0)
    written[:, steady] = np.arange(len(written))[:, None] == 0
    column, interval = np.nonzero(written.T)
    return pd.DataFrame(
        {
            "resource": resources.name[bids.resource[column]],
            "interval": np.where(steady[column], "", interval.astype(str)),
            "side": np.where(bids.is_supply[column], "supply", "demand"),
            "segment": bids.segment[column],
            "quantity_kw": bids.quantity_kw[interval, column],
            "price_usd_per_mwh": bids.price_usd_per_mwh[interval, column],
        }
    )


def _penalties(penalties: Penalties) -> pd.DataFrame:
    """One row per tier; a hard kind has one without a price."""
    rows = [
        (kind, tier.beyond, tier.price)
        for kind, name in KINDS.items()
        for tier in getattr(penalties, name) or (Tier(0.0, math.nan),)
    ]
    return pd.DataFrame(rows, columns=["limit", "beyond", "price"])


def _stores(stores: Stores, resources: Resources) -> pd.DataFrame:
    """One row per store; what differs between intervals is that of the first."""
    shortfall = np.where(np.isinf(stores.shortfall_usd_per_mwh), np.nan, stores.shortfall_usd_per_mwh)
    columns = {
        field.name: getattr(stores, field.name)[0] if field.name in PROFILED else getattr(stores, field.name)
        for field in fields(Stores)
    }
    names = {"resource": resources.name[stores.resource], "shortfall_usd_per_mwh": shortfall}
    return pd.DataFrame(columns | names)


def _store_profile(stores: Stores, resources: Resources) -> pd.DataFrame:
    """What differs from the first interval: one row per interval and store where anything does."""
    values = {name: getattr(stores, name) for name in PROFILED}
    changed = {name: np.where(value != value[0], value, np.nan) for name, value in values.items()}
    column, interval = np.nonzero(np.any([np.isfinite(value) for value in changed.values()], axis=0).T)
    table = pd.DataFrame({"resource": resources.name[stores.resource[column]], "interval": interval})
    return table.assign(**{name: value[interval, column] for name, value in changed.items()}).dropna(axis=1, how="all")
