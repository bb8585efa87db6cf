"""``service_offers.csv``, ``requirements.csv`` and ``zones.csv``: services beside energy (`dlmp.services`).

``service_offers.csv``: ``resource, service, interval, quantity_kw, price_usd_per_mw_h, duration_hours``.  A blank
interval is all of them, and an interval without a row has no offer.  A blank duration is one interval; all rows of an
offer have the same.

``requirements.csv``: ``name, service, place, element, interval, quantity_kw, shortage_usd_per_mw_h``.  The `place` is
``substation``, ``branch`` or ``zone``, and `element` the line or transformer, or the zone.  A blank interval is all of
them; a blank `shortage_usd_per_mw_h` allows no shortage.  All rows of a name have the same other cells but for
`interval` and `quantity_kw`.

``zones.csv``: ``zone, bus``, one row for each bus of each zone.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from dlmp.bids import Resources
from dlmp.casefolder.rows import ALL_INTERVALS, Places, by_interval_or_all, known, numbered, once, over_intervals
from dlmp.csvfile import Column, Table, read_csv
from dlmp.errors import InputError, Problems
from dlmp.network.model import Network
from dlmp.services import (
    NO_OFFERS,
    NO_REQUIREMENTS,
    SERVICES,
    Requirements,
    ServiceOffers,
    behind_branch,
    check_offers,
    check_requirements,
    everywhere,
    in_zone,
)

SUBSTATION, BRANCH, ZONE = "substation", "branch", "zone"
PLACES = (SUBSTATION, BRANCH, ZONE)

OFFER_COLUMNS = (
    Column("resource", "text"),
    Column("service", "text"),
    Column("interval", "integer", required=False, default=ALL_INTERVALS),
    Column("quantity_kw", "number"),
    Column("price_usd_per_mw_h", "number"),
    Column("duration_hours", "number", required=False),
)

REQUIREMENT_COLUMNS = (
    Column("name", "text"),
    Column("service", "text"),
    Column("place", "text"),
    Column("element", "text", required=False, default=""),
    Column("interval", "integer", required=False, default=ALL_INTERVALS),
    Column("quantity_kw", "number"),
    Column("shortage_usd_per_mw_h", "number", required=False, default=np.inf),
)

ZONE_COLUMNS = (Column("zone", "text"), Column("bus", "text"))

OFFER = ["resource", "service"]


def read_service_offers(
    folder: Path,
    resources: Resources,
    names: Collection[str] | None,
    intervals: int,
    interval_hours: float,
    problems: Problems,
) -> ServiceOffers:
    """Read ``service_offers.csv``; without it no service is offered.

    Parameters
    ----------
    folder
        The case.
    resources
        The good ones.
    names
        All names of resources, those of bad rows included; None where they are unknown.
    intervals
        Their number t, 0 where it is unknown.
    interval_hours
        Length of an interval [h], NaN where it is unknown.
    problems
        What is wrong is added here.  Bad rows, and offers of resources with a bad row in another table, are left out of
        the checks of all rows together, and of the result.
    """
    path = folder / "service_offers.csv"
    table = read_csv(path, OFFER_COLUMNS, problems) if path.exists() else None
    if table is None:
        return NO_OFFERS
    rows = known(table, table.rows, "resource", numbered(names), "resource of resources.csv", problems)
    rows = _of_known_service(table, rows, problems)
    rows = rows.assign(duration_hours=rows.duration_hours.fillna(interval_hours))
    rows = _same(table, rows, OFFER, ["duration_hours"], "offer", problems)
    rows = by_interval_or_all(table, rows, OFFER, "offer", intervals, problems)
    index = {name: number for number, name in enumerate(resources.name.tolist())}
    rows = rows[rows.resource.isin(index)]
    firsts, (quantity_kw, price) = over_intervals(rows, OFFER, intervals, ("quantity_kw", "price_usd_per_mw_h"))
    offers = ServiceOffers(
        resource=firsts.resource.map(index).to_numpy(np.int64),
        service=firsts.service.to_numpy(str),
        quantity_kw=quantity_kw,
        price_usd_per_mw_h=price,
        duration_hours=firsts.duration_hours.to_numpy(),
    )
    if np.isfinite(interval_hours):
        check_offers(offers, resources, interval_hours, problems)
    return offers


def read_requirements(
    folder: Path, network: Network | None, places: Places, intervals: int, problems: Problems
) -> Requirements:
    """Read ``requirements.csv`` and ``zones.csv``; without them no service is required.

    Parameters
    ----------
    folder
        The case.
    network
        Where services are required; None where it is unknown.
    places
        The buses and branches that the tables may refer to.
    intervals
        Their number t, 0 where it is unknown.
    problems
        What is wrong is added here.  Bad rows are left out of the checks of all rows together, and of the result.
    """
    zones, names = _read_zones(folder, network, places, problems)
    path = folder / "requirements.csv"
    table = read_csv(path, REQUIREMENT_COLUMNS, problems) if path.exists() else None
    if table is None:
        return NO_REQUIREMENTS
    rows = _of_known_service(table, table.rows, problems)
    rows = _at_known_place(table, rows, places, names, problems)
    lasting = ["service", "place", "element", "shortage_usd_per_mw_h"]
    rows = _same(table, rows, ["name"], lasting, "requirement", problems)
    rows = by_interval_or_all(table, rows, ["name"], "requirement", intervals, problems)
    firsts, (quantity_kw,) = over_intervals(rows, ["name"], intervals, ("quantity_kw",))
    counts, is_good = _counts(table, firsts, network, zones, problems)
    firsts = firsts[is_good]
    requirements = Requirements(
        name=firsts["name"].to_numpy(str),
        service=firsts.service.to_numpy(str),
        place=(firsts.place + " " + firsts.element).str.strip().to_numpy(str),
        counts=counts[is_good],
        quantity_kw=quantity_kw[:, is_good],
        shortage_usd_per_mw_h=firsts.shortage_usd_per_mw_h.to_numpy(),
    )
    check_requirements(requirements, problems)
    return requirements


def _of_known_service(table: Table, rows: pd.DataFrame, problems: Problems) -> pd.DataFrame:
    is_known = rows.service.isin(SERVICES)
    for line, value in rows.service[~is_known].items():
        problems.add(table.line(line), "service", value, f"must be one of {', '.join(SERVICES)}")
    return rows[is_known]


def _same(
    table: Table, rows: pd.DataFrame, keys: list[str], lasting: list[str], what: str, problems: Problems
) -> pd.DataFrame:
    """Rows whose `lasting` cells are those of the first row of the same `keys`; the others are problems."""
    good = pd.Series(True, index=rows.index)
    for field in lasting:
        first = rows.groupby(keys, sort=False)[field].transform("first")
        differs = (rows[field] != first) & ~(rows[field].isna() & first.isna())
        for line, value, expected in zip(rows.index[differs], rows[field][differs], first[differs], strict=True):
            message = f"differs from {expected} in a row above; all rows of one {what} have the same"
            problems.add(table.line(line), field, value, message)
        good &= ~differs
    return rows[good]


def _at_known_place(
    table: Table, rows: pd.DataFrame, places: Places, zones: Collection[str] | None, problems: Problems
) -> pd.DataFrame:
    """Rows of a place that there is; the others are problems."""
    is_known = rows.place.isin(PLACES)
    for line, value in rows.place[~is_known].items():
        problems.add(table.line(line), "place", value, f"must be one of {', '.join(PLACES)}")
    needless, missing = (rows.place == SUBSTATION) & (rows.element != ""), rows.element == ""
    missing &= rows.place.isin((BRANCH, ZONE))
    for line, value in rows.element[needless].items():
        problems.add(table.line(line), "element", value, "must be blank at the substation, where all resources count")
    for line in rows.index[missing]:
        problems.add(table.line(line), "element", "", "must name the line or transformer, or the zone")
    rows = rows[is_known & ~needless & ~missing]
    for place, names, what in (
        (BRANCH, places.branch_number, "line or transformer"),
        (ZONE, numbered(zones), "zone of zones.csv"),
    ):
        here = rows.place == place
        good = known(table, rows[here], "element", names, what, problems)
        rows = rows[~here | rows.index.isin(good.index)]
    return rows


def _read_zones(
    folder: Path, network: Network | None, places: Places, problems: Problems
) -> tuple[dict[str, list[str]], Collection[str] | None]:
    """Buses of every zone, and the names of all zones, those of bad rows included; None where they are unknown."""
    path = folder / "zones.csv"
    if not path.exists():
        return {}, ()
    table = read_csv(path, ZONE_COLUMNS, problems)
    if table is None:
        return {}, None
    rows = known(table, table.rows, "bus", places.bus_number, "bus of the network", problems)
    rows = once(table, rows, ["zone", "index"], problems, shown=["zone", "bus"])
    if network is None:
        return {}, table.names("zone")
    buses = {str(zone): [str(network.buses[number]) for number in own["index"]] for zone, own in rows.groupby("zone")}
    return buses, table.names("zone")


def _counts(
    table: Table, firsts: pd.DataFrame, network: Network | None, zones: dict[str, list[str]], problems: Problems
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """(m, p) Ports that count for each requirement, all at one place where the network is unknown, and (m,) if good."""
    is_good = np.ones(len(firsts), bool)
    if network is None:
        return np.ones((len(firsts), 1), bool), is_good
    counts = np.zeros((len(firsts), network.port_count), bool)
    for row, (line, place, element) in enumerate(zip(firsts.index, firsts.place, firsts.element, strict=True)):
        if place == SUBSTATION:
            counts[row] = everywhere(network)
        elif place == ZONE:
            is_good[row] = element in zones
            counts[row] = in_zone(network, zones.get(element, []))
        else:
            try:
                counts[row] = behind_branch(network, element)
            except InputError as error:
                is_good[row] = False
                problems.add(table.line(line), "element", element, error.problems[0].message)
    return counts, is_good
