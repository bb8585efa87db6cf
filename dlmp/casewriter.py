"""A market case to a folder that needs nothing else: the network as tables, the loads by bus and interval."""

import json
import math
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from dlmp.bids import Resources
from dlmp.blocks import Blocks
from dlmp.curves import Curves
from dlmp.errors import InputError, Problem, Problems
from dlmp.network.model import FloatArray, IntArray, Network
from dlmp.network.tables import write_tables
from dlmp.penalties import KINDS, Penalties, Tier
from dlmp.services import Requirements, ServiceOffers, behind_branch
from dlmp.stores import PROFILED, Stores

if TYPE_CHECKING:
    from dlmp.market import Horizon, MarketCase, Substation

BoolArray = npt.NDArray[np.bool_]


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
    problems = Problems()
    for bids in (case.bids, case.reactive_bids):
        curves = bids.curves(case.resources.name)
        keys = pd.DataFrame({"resource": curves.resource, "is_into": curves.is_into, "segment": curves.segment})
        for column in np.flatnonzero(keys.duplicated()):
            element = f"{curves.words.bid} of {curves.owner[curves.resource[column]]}"
            message = "stands more than once; number the segments of a curve"
            problems.add(element, f"{curves.side(int(column))} segment", int(curves.segment[column]), message)
    problems.raise_if_any()


def _write_files(case: "MarketCase", folder: Path) -> None:
    write_tables(case.network, folder)
    (folder / "case.toml").write_text(_toml(case.name, case.horizon, case.substation), "utf-8")
    tables = {"import_prices.csv": _prices(case.substation), "load_profile.csv": _loads(case)}
    if case.penalties != Penalties():
        tables["penalties.csv"] = _penalties(case.penalties)
    if len(case.resources):
        tables["resources.csv"] = _resources(case.resources, case.network)
        tables["bids.csv"] = _bids(case.bids.curves(case.resources.name))
        tables["blocks.csv"] = _blocks(case.blocks, case.resources)
        tables["reactive_bids.csv"] = _bids(case.reactive_bids.curves(case.resources.name))
        tables["availability.csv"] = _availability(case.resources)
        tables["stores.csv"] = _stores(case.stores, case.resources)
        tables["store_profile.csv"] = _store_profile(case.stores, case.resources)
        tables["service_offers.csv"] = _service_offers(case.service_offers, case.resources)
    tables |= _requirements(case.requirements, case.network)
    for name, table in tables.items():
        if len(table) or name == "bids.csv":
            table.to_csv(folder / name, index=False)


def _toml(name: str, horizon: "Horizon", substation: "Substation") -> str:
    limits = {name: getattr(substation, name)[0] for name in substation.LIMITS if _is_steady(substation, name)}
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
        *(f"{name} = {float(value)!r}" for name, value in limits.items() if math.isfinite(value)),
    ]
    return "\n".join(lines) + "\n"


def _is_steady(substation: "Substation", limit: str) -> bool:
    """True for a limit of import that is the same in every interval."""
    value = getattr(substation, limit)
    return bool((value == value[0]).all())


def _quoted(text: str) -> str:
    """Return a TOML basic string: JSON's, but that TOML also wants DEL escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")


def _prices(substation: "Substation") -> pd.DataFrame:
    table = pd.DataFrame({"price_usd_per_mwh": substation.price_usd_per_mwh})
    if substation.q_price_usd_per_mvarh.any():
        table["q_price_usd_per_mvarh"] = substation.q_price_usd_per_mvarh
    for name in substation.LIMITS:
        if not _is_steady(substation, name):
            value = getattr(substation, name)
            table[name] = np.where(np.isfinite(value), value, np.nan)
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
            "s_max_kva": _blank_where_infinite(resources.s_max_kva),
            "participant": resources.participant,
            "ramp_up_kw_per_min": _blank_where_infinite(resources.ramp_up_kw_per_min),
            "ramp_down_kw_per_min": _blank_where_infinite(resources.ramp_down_kw_per_min),
            "p_initial_kw": resources.p_initial_kw,
            "power_factor_min": np.where(resources.power_factor_min > 0, resources.power_factor_min, np.nan),
        }
    ).dropna(axis=1, how="all")


def _blank_where_infinite(values: FloatArray) -> FloatArray:
    return np.where(np.isinf(values), np.nan, values)


def _availability(resources: Resources) -> pd.DataFrame:
    """Rows where a resource has less than its most."""
    interval, index = np.nonzero(resources.p_max_kw < resources.p_max_kw.max(axis=0))
    p_max_kw = resources.p_max_kw[interval, index]
    return pd.DataFrame({"resource": resources.name[index], "interval": interval, "p_max_kw": p_max_kw})


def _bids(curves: Curves) -> pd.DataFrame:
    """One row for a segment that never changes, else one for each interval that offers it."""
    column, interval, label = _changing(curves.quantity, curves.price, curves.rise, curves.is_fixed)
    is_fixed = curves.is_fixed[interval, column]
    table = pd.DataFrame(
        {
            "resource": curves.owner[curves.resource[column]],
            "interval": label,
            "side": np.where(curves.is_into[column], curves.words.into, curves.words.out),
            "segment": curves.segment[column],
            curves.words.quantity: curves.quantity[interval, column],
            curves.words.price: np.where(is_fixed, np.nan, curves.price[interval, column]),
        }
    )
    rise = curves.rise[interval, column]
    if rise.any():
        table[curves.words.price_end] = np.where(rise != 0, table[curves.words.price] + rise, np.nan)
    return table.assign(is_self_scheduled=is_fixed.astype(int)) if is_fixed.any() else table


def _blocks(blocks: Blocks, resources: Resources) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "block": blocks.name,
            "resource": resources.name[blocks.resource],
            "side": np.where(blocks.is_supply, "supply", "demand"),
            "first_interval": blocks.first,
            "last_interval": blocks.last,
            "quantity_kw": blocks.quantity_kw,
            "price_usd_per_mwh": blocks.price_usd_per_mwh,
            "min_acceptance_ratio": blocks.least_share,
            "exclusive_group": blocks.group,
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
    shortfall = _blank_where_infinite(stores.shortfall_usd_per_mwh)
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


def _service_offers(offers: ServiceOffers, resources: Resources) -> pd.DataFrame:
    """One row for an offer that never changes, else one for each interval that has it."""
    column, interval, label = _changing(offers.quantity_kw, offers.price_usd_per_mw_h)
    return pd.DataFrame(
        {
            "resource": resources.name[offers.resource[column]],
            "service": offers.service[column],
            "interval": label,
            "quantity_kw": offers.quantity_kw[interval, column],
            "price_usd_per_mw_h": offers.price_usd_per_mw_h[interval, column],
            "duration_hours": offers.duration_hours[column],
        }
    )


def _requirements(requirements: Requirements, network: Network) -> dict[str, pd.DataFrame]:
    """One row for a requirement that never changes, else one for each interval that has it; and its zones."""
    places, zones = [], dict[str, BoolArray]()
    for name, place, counts in zip(requirements.name, requirements.place, requirements.counts, strict=True):
        kind, _, element = str(place).partition(" ")
        if not _is_place(kind, element, counts, network):
            kind, element = "zone", element if kind == "zone" and element else str(name)
            while (zones.setdefault(element, counts) != counts).any():
                element = f"{element} of {name}"
        places.append((kind, element))
    column, interval, label = _changing(requirements.quantity_kw)
    place, element = np.array(places, dtype=object).reshape(-1, 2)[column].T
    table = pd.DataFrame(
        {
            "name": requirements.name[column],
            "service": requirements.service[column],
            "place": place,
            "element": element,
            "interval": label,
            "quantity_kw": requirements.quantity_kw[interval, column],
            "shortage_usd_per_mw_h": _blank_where_infinite(requirements.shortage_usd_per_mw_h[column]),
        }
    )
    rows = [(zone, bus) for zone, counts in zones.items() for bus in dict.fromkeys(network.port_bus[counts].tolist())]
    return {"requirements.csv": table, "zones.csv": pd.DataFrame(rows, columns=["zone", "bus"])}


def _is_place(kind: str, element: str, counts: BoolArray, network: Network) -> bool:
    """True where a place that is no zone is what the requirement counts."""
    if kind == "substation" and not element:
        return bool(counts.all())
    try:
        return kind == "branch" and bool((behind_branch(network, element) == counts).all())
    except InputError:
        return False


def _changing(*profiles: FloatArray | BoolArray) -> tuple[IntArray, IntArray, npt.NDArray[np.str_]]:
    """Column, interval and label of the interval of every row that tells (t, k) profiles; no row is all 0."""
    steady = np.all([(values == values[0]).all(axis=0) for values in profiles], axis=0)
    written = np.any([values != 0 for values in profiles], axis=0)
    written[:, steady] = np.arange(len(written))[:, None] == 0
    column, interval = np.nonzero(written.T)
    return column, interval, np.where(steady[column], "", interval.astype(str))
