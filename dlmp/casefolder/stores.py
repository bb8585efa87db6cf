"""``stores.csv`` and ``store_profile.csv``: resources that hold energy from one interval to the next.

``stores.csv`` has one row per store: ``resource, charge_max_kw, discharge_max_kw, energy_min_kwh, energy_max_kwh,
initial_kwh, charge_efficiency, discharge_efficiency, retention, drain_kw, cycling_usd_per_mwh,
shortfall_usd_per_mwh, final_usd_per_mwh``, which `dlmp.stores` explains.  `charge_max_kw` and `energy_max_kwh` are
needed; blank efficiencies and retention are 1, a blank `shortfall_usd_per_mwh` allows no shortfall, and everything
else is 0.

``store_profile.csv`` (optional): ``resource, interval`` and any of ``charge_max_kw, discharge_max_kw,
energy_min_kwh, energy_max_kwh, drain_kw``, which take the place of the row's in that interval where they are not
blank.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from dlmp.bids import Bids, Resources
from dlmp.casefolder.rows import in_horizon, known, numbered, once
from dlmp.csvfile import Column, Table, read_csv
from dlmp.errors import Problems
from dlmp.network.model import FloatArray
from dlmp.stores import NO_STORES, PROFILED, Stores, check_stores

STORE_COLUMNS = (
    Column("resource", "text"),
    Column("charge_max_kw", "number"),
    Column("discharge_max_kw", "number", required=False, default=0.0),
    Column("energy_min_kwh", "number", required=False, default=0.0),
    Column("energy_max_kwh", "number"),
    Column("initial_kwh", "number", required=False, default=0.0),
    Column("charge_efficiency", "number", required=False, default=1.0),
    Column("discharge_efficiency", "number", required=False, default=1.0),
    Column("retention", "number", required=False, default=1.0),
    Column("drain_kw", "number", required=False, default=0.0),
    Column("cycling_usd_per_mwh", "number", required=False, default=0.0),
    Column("shortfall_usd_per_mwh", "number", required=False, default=np.inf),
    Column("final_usd_per_mwh", "number", required=False, default=0.0),
)

PROFILE_COLUMNS = (
    Column("resource", "text"),
    Column("interval", "integer"),
    *(Column(name, "number", required=False) for name in PROFILED),
)


def read_stores(
    folder: Path,
    resources: Resources,
    bids: Bids,
    names: Collection[str] | None,
    intervals: int,
    interval_hours: float,
    problems: Problems,
) -> Stores:
    """Read the two tables; without them nothing is stored.

    Parameters
    ----------
    folder
        The case.
    resources, bids
        The good ones.
    names
        All names of resources, those of bad rows included; None where they are unknown.
    intervals
        Their number t, 0 where it is unknown.
    interval_hours
        Length of an interval [h], NaN where it is unknown.
    problems
        What is wrong is added here.  Stores with a bad row in a table, or whose resource has one, are left out of
        the checks of what the tables say together, and of the result.
    """
    profile_path = folder / "store_profile.csv"
    if not (folder / "stores.csv").exists() and not profile_path.exists():
        return NO_STORES
    table = read_csv(folder / "stores.csv", STORE_COLUMNS, problems, needed_by=profile_path.name)
    profile_table = read_csv(profile_path, PROFILE_COLUMNS, problems) if profile_path.exists() else None
    if table is None:
        return NO_STORES
    rows = known(table, table.rows, "resource", numbered(names), "resource of resources.csv", problems)
    rows = once(table, rows, ["resource"], problems)
    profile = pd.DataFrame({column.name: [] for column in PROFILE_COLUMNS})
    if profile_table is not None:
        profile = _good_profile(profile_table, table.names("resource"), intervals, problems)
        spoiled = profile_table.names_besides(profile, "resource") if intervals else ()
        rows = rows[~rows.resource.isin(spoiled)]
    stores = _stores(rows[rows.resource.isin(resources.name)], profile, resources, intervals)
    check_stores(stores, resources, bids, interval_hours, problems)
    return stores


def _good_profile(table: Table, names: Collection[str], intervals: int, problems: Problems) -> pd.DataFrame:
    rows = known(table, table.rows, "resource", numbered(names), "store of stores.csv", problems)
    return in_horizon(table, once(table, rows, ["resource", "interval"], problems), intervals, problems)


def _stores(rows: pd.DataFrame, profile: pd.DataFrame, resources: Resources, intervals: int) -> Stores:
    index = {name: number for number, name in enumerate(resources.name.tolist())}
    column = {name: number for number, name in enumerate(rows.resource)}
    profile = profile[profile.resource.isin(column)]

    def by_interval(field: str) -> FloatArray:
        values = np.tile(rows[field].to_numpy(), (intervals, 1))
        given = profile[profile[field].notna()]
        values[given.interval.to_numpy(np.int64), given.resource.map(column).to_numpy(np.int64)] = given[field]
        return values

    return Stores(
        resource=rows.resource.map(index).to_numpy(np.int64),
        charge_max_kw=by_interval("charge_max_kw"),
        discharge_max_kw=by_interval("discharge_max_kw"),
        energy_min_kwh=by_interval("energy_min_kwh"),
        energy_max_kwh=by_interval("energy_max_kwh"),
        initial_kwh=rows.initial_kwh.to_numpy(),
        charge_efficiency=rows.charge_efficiency.to_numpy(),
        discharge_efficiency=rows.discharge_efficiency.to_numpy(),
        retention=rows.retention.to_numpy(),
        drain_kw=by_interval("drain_kw"),
        cycling_usd_per_mwh=rows.cycling_usd_per_mwh.to_numpy(),
        shortfall_usd_per_mwh=rows.shortfall_usd_per_mwh.to_numpy(),
        final_usd_per_mwh=rows.final_usd_per_mwh.to_numpy(),
    )
