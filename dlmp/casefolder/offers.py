"""``resources.csv``, ``availability.csv`` and ``bids.csv``: who may be dispatched, how far and at which prices.

``resources.csv``: ``resource, bus, phase, kind, p_min_kw, p_max_kw, q_min_kvar, q_max_kvar, s_max_kva,
participant, ramp_up_kw_per_min, ramp_down_kw_per_min, p_initial_kw, power_factor_min``, the injection positive.
A `phase` is ``1``, or ``12`` for two phases' voltage; blank: all phases of the bus in equal parts.  Other blanks:
`p_min_kw` and reactive power 0, `participant` the resource's own name, everything else unlimited.

``availability.csv`` (optional): ``resource, interval, p_max_kw``, which holds where it is below that of
``resources.csv``.  A resource of the name of a fixed generator of the network takes that generator's
place, and its output is the availability unless the table has the resource.

``bids.csv``: ``resource, interval, side, segment, quantity_kw, price_usd_per_mwh, price_end_usd_per_mwh,
is_self_scheduled``; a blank interval is all of them, and a segment that has such a row has no other.  A blank price at
the end is that at the beginning.  A self-scheduled block (1) has no price.
The table may be missing where there is a ``reactive_bids.csv``, a ``stores.csv``, a ``blocks.csv`` or a
``service_offers.csv``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from dlmp.bids import Bids, Resources, at_ports, check_bids, check_resources, no_resources
from dlmp.casefolder.rows import ALL_INTERVALS, Places, in_horizon, known, on_phase, once
from dlmp.casefolder.segments import good_segments, segment_arrays
from dlmp.csvfile import Column, Table, read_csv
from dlmp.errors import Problems
from dlmp.network.model import FloatArray, Network

RESOURCE_COLUMNS = (
    Column("resource", "text"),
    Column("bus", "text"),
    Column("phase", "text", required=False, default=""),
    Column("kind", "text"),
    Column("p_min_kw", "number", required=False, default=0.0),
    Column("p_max_kw", "number"),
    Column("q_min_kvar", "number", required=False, default=0.0),
    Column("q_max_kvar", "number", required=False, default=0.0),
    Column("s_max_kva", "number", required=False, default=np.inf),
    Column("participant", "text", required=False, default=""),
    Column("ramp_up_kw_per_min", "number", required=False, default=np.inf),
    Column("ramp_down_kw_per_min", "number", required=False, default=np.inf),
    Column("p_initial_kw", "number", required=False),
    Column("power_factor_min", "number", required=False, default=0.0),
)

AVAILABILITY_COLUMNS = (Column("resource", "text"), Column("interval", "integer"), Column("p_max_kw", "number"))

BID_COLUMNS = (
    Column("resource", "text"),
    Column("interval", "integer", required=False, default=ALL_INTERVALS),
    Column("side", "text"),
    Column("segment", "integer"),
    Column("quantity_kw", "number"),
    Column("price_usd_per_mwh", "number", required=False),
    Column("price_end_usd_per_mwh", "number", required=False),
    Column("is_self_scheduled", "integer", required=False, default=0),
)

FILES = (
    "resources.csv",
    "availability.csv",
    "bids.csv",
    "blocks.csv",
    "reactive_bids.csv",
    "stores.csv",
    "store_profile.csv",
    "service_offers.csv",
)
"""Tables of which none may stand without ``resources.csv``."""


@dataclass(frozen=True, eq=False)
class Offers:
    """What the three tables say.

    Parameters
    ----------
    resources, bids
        Those without a bad row in any table.
    names
        Names of all resources, those of bad rows included; None where ``resources.csv`` cannot be read.
    """

    resources: Resources
    bids: Bids
    names: frozenset[str] | None = frozenset()


def read_offers(
    folder: Path,
    network: Network | None,
    places: Places,
    intervals: int,
    generation: Mapping[str, FloatArray],
    problems: Problems,
) -> Offers:
    """Read the three tables; without any of them nobody bids.

    Parameters
    ----------
    folder
        The case.
    network
        Where they stand; None where it is unknown.
    places
        The buses that resources may stand at.
    intervals
        Their number t, 0 where it is unknown.
    generation
        Output (t,) [kW] of the fixed generators that a resource may take the place of.
    problems
        What is wrong is added here.  Resources with a bad row in one table are left out of the checks
        of what the tables say together, and of the result.
    """
    nobody = no_resources(intervals, _port_count(network))
    present = [name for name in FILES if (folder / name).exists()]
    if not present:
        return Offers(*nobody)
    resource_table = read_csv(folder / "resources.csv", RESOURCE_COLUMNS, problems, needed_by=present[0])
    path = folder / "availability.csv"
    availability_table = read_csv(path, AVAILABILITY_COLUMNS, problems) if path.exists() else None
    path = folder / "bids.csv"
    others = ("reactive_bids.csv", "stores.csv", "blocks.csv", "service_offers.csv")
    needs_bids = path.exists() or not any((folder / name).exists() for name in others)
    bid_table = read_csv(path, BID_COLUMNS, problems) if needs_bids else None
    if resource_table is None:
        return Offers(*nobody, names=None)
    known_names = resource_table.names("resource")
    names = {name: index for index, name in enumerate(sorted(known_names))}
    rows = _good_resources(resource_table, network, places, problems)
    availability = pd.DataFrame({"resource": [], "interval": [], "p_max_kw": []})
    if availability_table is not None:
        availability = _good_availability(availability_table, names, intervals, problems)
        spoiled = availability_table.names_besides(availability, "resource") if intervals else ()
        rows = rows[~rows.resource.isin(spoiled)]
    resources = _resources(rows, network, availability, intervals, generation)
    check_resources(resources, _port_count(network), problems)
    if bid_table is None:
        return Offers(*nobody, known_names) if needs_bids else Offers(resources, nobody[1], known_names)
    bid_rows = good_segments(bid_table, names, ("supply", "demand"), "quantity_kw", intervals, problems)
    bid_rows = _priced_or_scheduled(bid_table, bid_rows, problems)
    rows = rows[~rows.resource.isin(bid_table.names_besides(bid_rows, "resource"))]
    resources = _resources(rows, network, availability, intervals, generation)
    bids = _bids(bid_rows, resources, intervals)
    check_bids(bids, resources, problems)
    return Offers(resources, bids, known_names)


def _good_resources(table: Table, network: Network | None, places: Places, problems: Problems) -> pd.DataFrame:
    """Rows at a known bus, and on a phase that it has."""
    rows = known(table, table.rows, "bus", places.bus_number, "bus of the network", problems)
    return on_phase(table, rows, network, problems)


def _port_count(network: Network | None) -> int:
    return 1 if network is None else network.port_count


def _shares(rows: pd.DataFrame, network: Network | None) -> sparse.csr_array:
    """Where the resources stand; all at one place where the network is unknown."""
    if network is None:
        return at_ports(np.zeros(len(rows)), 1)
    places = [network.ports_for(number, phase) for number, phase in zip(rows["index"], rows.phase, strict=True)]
    start = np.cumsum([0, *(len(ports) for ports, _ in places)])
    ports, shares = (
        (np.concatenate([np.zeros(0), *parts]) for parts in zip(*places, strict=True)) if places else ([], [])
    )
    return sparse.csr_array((shares, np.asarray(ports, dtype=np.int64), start), shape=(len(rows), network.port_count))


def _good_availability(table: Table, names: Mapping[str, int], intervals: int, problems: Problems) -> pd.DataFrame:
    rows = known(table, table.rows, "resource", names, "resource of resources.csv", problems)
    return in_horizon(table, once(table, rows, ["resource", "interval"], problems), intervals, problems)


def _resources(
    rows: pd.DataFrame,
    network: Network | None,
    availability: pd.DataFrame,
    intervals: int,
    generation: Mapping[str, FloatArray],
) -> Resources:
    p_max_kw = np.tile(rows.p_max_kw.to_numpy(), (intervals, 1))
    given = {str(name): rows for name, rows in availability.groupby("resource")}
    for column, name in enumerate(rows.resource):
        if name in given:
            at = given[name].interval.to_numpy()
            p_max_kw[at, column] = np.minimum(p_max_kw[at, column], given[name].p_max_kw)
        elif name in generation:
            p_max_kw[:, column] = np.minimum(p_max_kw[:, column], generation[name])
    return Resources(
        name=rows.resource.to_numpy().astype(str),
        kind=rows.kind.to_numpy().astype(str),
        share=_shares(rows, network),
        p_min_kw=rows.p_min_kw.to_numpy(),
        p_max_kw=p_max_kw,
        q_min_kvar=rows.q_min_kvar.to_numpy(),
        q_max_kvar=rows.q_max_kvar.to_numpy(),
        s_max_kva=rows.s_max_kva.to_numpy(),
        participant=rows.participant.where(rows.participant != "", rows.resource).to_numpy().astype(str),
        ramp_up_kw_per_min=rows.ramp_up_kw_per_min.to_numpy(),
        ramp_down_kw_per_min=rows.ramp_down_kw_per_min.to_numpy(),
        p_initial_kw=rows.p_initial_kw.to_numpy(),
        power_factor_min=rows.power_factor_min.to_numpy(),
    )


def _priced_or_scheduled(table: Table, rows: pd.DataFrame, problems: Problems) -> pd.DataFrame:
    """Rows that have either a price or a self-schedule; the others are problems."""
    is_known, is_scheduled = rows.is_self_scheduled.isin((0, 1)), rows.is_self_scheduled == 1
    has_price = rows.price_usd_per_mwh.notna()
    for line, value in rows.loc[~is_known, "is_self_scheduled"].items():
        problems.add(table.line(line), "is_self_scheduled", value, "must be 0 or 1")
    for line in rows.index[is_known & ~is_scheduled & ~has_price]:
        remedy = "must not be blank, but where is_self_scheduled is 1: the block is then taken at any price"
        problems.add(table.line(line), "price_usd_per_mwh", "", remedy)
    has_end = is_scheduled & rows.price_end_usd_per_mwh.notna()
    for field, wrong in (("price_usd_per_mwh", is_scheduled & has_price), ("price_end_usd_per_mwh", has_end)):
        for line, value in rows.loc[wrong, field].items():
            remedy = "must be blank: the block is self-scheduled, which is to be taken at any price"
            problems.add(table.line(line), field, value, remedy)
    return rows[is_known & (is_scheduled != has_price) & ~has_end]


def _bids(rows: pd.DataFrame, resources: Resources, intervals: int) -> Bids:
    rows = rows.fillna({"price_usd_per_mwh": 0.0})
    rows = rows.assign(rise=(rows.price_end_usd_per_mwh - rows.price_usd_per_mwh).fillna(0.0))
    fields = ("quantity_kw", "price_usd_per_mwh", "rise", "is_self_scheduled")
    resource, segments, (quantity_kw, price, rise, scheduled) = segment_arrays(rows, resources, intervals, fields)
    return Bids(
        resource=resource,
        is_supply=(segments.side == "supply").to_numpy(),
        segment=segments.segment.to_numpy(np.int64),
        quantity_kw=quantity_kw,
        price_usd_per_mwh=price,
        is_self_scheduled=scheduled == 1,
        price_rise_usd_per_mwh=rise,
    )
