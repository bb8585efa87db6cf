"""``import_prices.csv`` and ``load_profile.csv``: what the substation charges and what the feeder consumes.

``import_prices.csv`` has one row per interval: ``interval, price_usd_per_mwh`` and, if reactive import
has a price, ``q_price_usd_per_mvarh``.  ``p_min_kw, p_max_kw, q_min_kvar, q_max_kvar`` limit the import of an interval;
blank is what ``case.toml`` says.

``load_profile.csv`` is optional and has one of two forms.  ``interval, scale`` has one row per interval
and scales the network's loads, in place of their profiles (SimBench's, OpenDSS's load shapes); generation keeps
its own.  ``interval, bus, p_kw, q_kvar`` sets the fixed net consumption of a bus in an interval, without the
resources; where it has no row the network's own remains, with its profile.  An optional ``phase`` (``1``, or
``12`` for two phases' voltage) says where at the bus; blank spreads it over all phases.  What is set takes the
place of all that the network has at the bus.
"""

import csv
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from dlmp.bids import Resources
from dlmp.casefolder.rows import Places, check_complete, in_horizon, known, on_phase, once
from dlmp.casefolder.settings import FILE, Settings
from dlmp.csvfile import Column, read_csv
from dlmp.errors import Problems
from dlmp.market import Horizon, Substation, check_substation
from dlmp.network.model import BALANCED_PHASE, FloatArray, Network
from dlmp.network.sources import network_profiles

PRICE_COLUMNS = (
    Column("interval", "integer"),
    Column("price_usd_per_mwh", "number"),
    Column("q_price_usd_per_mvarh", "number", required=False, default=0.0),
    *(Column(name, "number", required=False) for name in Substation.LIMITS),
)

SCALE_COLUMNS = (Column("interval", "integer"), Column("scale", "number"))

BUS_COLUMNS = (
    Column("interval", "integer"),
    Column("bus", "text"),
    Column("phase", "text", required=False, default=""),
    Column("p_kw", "number"),
    Column("q_kvar", "number"),
)


@dataclass(frozen=True, eq=False)
class LoadProfile:
    """What ``load_profile.csv`` says.

    Parameters
    ----------
    scale
        (t,) Factor on the loads, None in the form by bus.
    by_bus
        Columns ``interval``, ``index`` (of the bus), ``phase``, ``p_kw`` and ``q_kvar``; empty in the form with
        a scale.
    """

    scale: FloatArray | None
    by_bus: pd.DataFrame


def read_substation(folder: Path, settings: Settings, problems: Problems) -> Substation:
    """Read the import prices and limits; together with the limits of ``case.toml`` in kW they are the substation."""
    price, q_price = np.zeros(settings.intervals), np.zeros(settings.intervals)
    limits = {name: np.full(settings.intervals, getattr(settings, name)) for name in Substation.LIMITS}
    table = read_csv(folder / "import_prices.csv", PRICE_COLUMNS, problems)
    if table is not None:
        rows = in_horizon(table, once(table, table.rows, ["interval"], problems), settings.intervals, problems)
        check_complete(table, rows, settings.intervals, problems)
        price[rows.interval], q_price[rows.interval] = rows.price_usd_per_mwh, rows.q_price_usd_per_mvarh
        for name, limit in limits.items():
            given = rows[rows[name].notna()]
            limit[given.interval] = given[name]
    substation = Substation(price, q_price, **limits)
    check_substation(substation, settings.intervals, problems)
    return substation


def within_shares(substation: Substation, settings: Settings, load_p_kw: FloatArray, problems: Problems) -> Substation:
    """Tighten the range of the real import to the shares of the fixed load, (t, l) [kW], that ``case.toml`` has.

    The load is what its columns consume; fixed generation, which a column of its own has below zero, is left out.
    """
    load = np.maximum(load_p_kw, 0.0).sum(axis=1)
    ends = {}
    for name, share, tighter in (
        ("p_min_kw", settings.p_min_share, np.maximum),
        ("p_max_kw", settings.p_max_share, np.minimum),
    ):
        own = getattr(substation, name)
        ends[name] = tighter(own, share * load) if np.isfinite(share) else own
    for interval in np.flatnonzero(ends["p_min_kw"] > ends["p_max_kw"])[:1]:
        low, high = (float(ends[name][interval]) for name in ("p_min_kw", "p_max_kw"))
        message = f"leave no range of import, from {low:g} to {high:g} kW of a load of {load[interval]:g} kW; widen one"
        shares = (settings.p_min_share, settings.p_max_share)
        problems.add(f"{FILE}, interval {interval}", "import.p_min_share, p_max_share", shares, message)
        return substation
    return replace(substation, **ends)


def read_load_profile(
    folder: Path, network: Network | None, places: Places, intervals: int, problems: Problems
) -> LoadProfile | None:
    """Read ``load_profile.csv``; None where there is none or it cannot be read."""
    path = folder / "load_profile.csv"
    if not path.exists():
        return None
    scaled = "scale" in _header(path)
    table = read_csv(path, SCALE_COLUMNS if scaled else BUS_COLUMNS, problems)
    if table is None:
        return None
    if not scaled:
        rows = known(table, table.rows, "bus", places.bus_number, "bus of the network", problems)
        rows = on_phase(table, rows, network, problems)
        rows = rows.assign(phase=rows.phase.replace(BALANCED_PHASE, ""))
        rows = once(table, rows, ["interval", "index", "phase"], problems, shown=["interval", "bus", "phase"])
        return LoadProfile(None, in_horizon(table, rows, intervals, problems))
    rows = in_horizon(table, once(table, table.rows, ["interval"], problems), intervals, problems)
    check_complete(table, rows, intervals, problems)
    scale = np.ones(intervals)
    scale[rows.interval] = rows.scale
    return LoadProfile(scale, pd.DataFrame({column: [] for column in ("interval", "index", "phase", "p_kw", "q_kvar")}))


def _header(path: Path) -> list[str]:
    """Columns of a table, none where it cannot be read: `read_csv` says why."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [name.strip() for name in next(csv.reader(file), [])]
    except (OSError, ValueError, csv.Error):
        return []


def element_powers(
    network: Network, source: str, horizon: Horizon, profile: LoadProfile | None
) -> tuple[FloatArray, FloatArray]:
    """Consumption (t, e) [kW] and [kvar] of the network's elements, before what a profile says by bus."""
    unchanging = np.ones((horizon.intervals, 1))
    p_kw, q_kvar = network_profiles(source, network, horizon) or (
        unchanging * network.element_p_kw,
        unchanging * network.element_q_kvar,
    )
    if profile is None or profile.scale is None:
        return p_kw, q_kvar
    scaled = network.element_kind == "load"
    return (
        np.where(scaled, profile.scale[:, None] * network.element_p_kw, p_kw),
        np.where(scaled, profile.scale[:, None] * network.element_q_kvar, q_kvar),
    )


def available_generation(network: Network, p_kw: FloatArray) -> dict[str, FloatArray]:
    """Output (t,) [kW] of each fixed generator of the network, on all its phases, by name.

    Storage is not among them: what it happens to do says nothing of what it can do.
    """
    generation = network.element_kind == "generation"
    return {
        str(name): np.maximum(0.0, -p_kw[:, generation & (network.element == name)].sum(axis=1))
        for name in np.unique(network.element[generation])
    }


def dispatched_elements(network: Network, resources: Resources, problems: Problems) -> npt.NDArray[np.bool_]:
    """(e,) True for fixed generators and storage that are resources, which must stand at the same bus."""
    port_of = dict(zip(resources.name.tolist(), resources.first_port.tolist(), strict=True))
    spelled = {name.lower(): name for name in network.element[network.element_kind != "load"].tolist()}
    for name in resources.name.tolist():
        meant = spelled.get(name.lower(), name)
        if meant != name and meant not in port_of and name not in network.element:
            message = f"would inject beside the network's own {meant}; spell it so to take its place"
            problems.add(f"resource {name}", "resource", name, message)
    is_resource = np.isin(network.element, resources.name)
    dispatched: npt.NDArray[np.bool_] = (network.element_kind != "load") & is_resource
    _, first = np.unique(network.element[dispatched], return_index=True)
    for element in np.flatnonzero(dispatched)[np.sort(first)]:
        name = str(network.element[element])
        bus = str(network.port_bus[network.load_port[network.element_load[element]]])
        own = str(network.port_bus[port_of[name]])
        if own != bus:
            what = "storage" if network.element_kind[element] == "storage" else "a generator"
            message = f"the network has {what} of this name at bus {bus}"
            problems.add(f"resource {name}", "bus", own, message)
    return dispatched


def loads(
    network: Network, p_kw: FloatArray, q_kvar: FloatArray, fixed: npt.NDArray[np.bool_], profile: LoadProfile | None
) -> tuple[FloatArray, FloatArray]:
    """Net consumption (t, l) [kW] and [kvar] of the load columns from that of the `fixed` elements, and by bus."""
    load_p, load_q = (np.zeros((len(power), len(network.load_port))) for power in (p_kw, q_kvar))
    for element in np.flatnonzero(fixed):
        load_p[:, network.element_load[element]] += p_kw[:, element]
        load_q[:, network.element_load[element]] += q_kvar[:, element]
    if profile is not None and len(profile.by_bus):
        _set_by_bus(network, load_p, load_q, profile.by_bus)
    return load_p, load_q


def _set_by_bus(network: Network, load_p: FloatArray, load_q: FloatArray, rows: pd.DataFrame) -> None:
    """Replace what stands at a bus in an interval by constant power."""
    bus_of_column = np.array([network.bus_number[str(bus)] for bus in network.port_bus[network.load_port]])
    columns_of = {int(number): np.flatnonzero(bus_of_column == number) for number in rows["index"].unique()}
    for interval, number in rows[["interval", "index"]].drop_duplicates().itertuples(index=False):
        load_p[int(interval), columns_of[int(number)]] = load_q[int(interval), columns_of[int(number)]] = 0.0
    for interval, number, phase, p_kw, q_kvar in rows[["interval", "index", "phase", "p_kw", "q_kvar"]].itertuples(
        index=False
    ):
        ports, share = network.ports_for(int(number), phase)
        load_p[int(interval), ports] += share * p_kw
        load_q[int(interval), ports] += share * q_kvar
