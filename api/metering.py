"""Meter readings: checked all at once, kept by version, the newest version holding every reading of its resource.

The readings of a resource in a market are one series with a value for each interval.  What comes later fills it up or
corrects it, as a further version; readings that are there already make none, so that a file may be sent again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, func, insert, select

from api.clock import rfc3339
from api.errors import Conflict, Fault, Unprocessable
from api.gate import OPEN, SCHEDULED, interval_of, interval_start, state_at
from api.schemas.readings import Reading
from api.store.audit import Chain, Entry
from api.store.rows import row_of
from api.store.tables import IS_LIVE, bids, markets, readings, resources
from api.store.vouching import vouch

MOST_TOLD = 1_000
"""Most problems that are told at once."""
Faults = dict[int, list[Fault]]
"""What is wrong with each reading, by its place among those that were sent."""


@dataclass(frozen=True)
class Posted:
    """Readings that were sent.

    Parameters
    ----------
    market_id, key_id
        Of which market, and by whom.
    received_at
        When.
    items
        The readings, those that are sound by themselves; None is one with faults.
    faults
        Of those that are not.
    lines
        Line of each in its file; empty where there is none.
    """

    market_id: str
    key_id: str
    received_at: datetime
    items: Sequence[Reading | None]
    faults: Mapping[int, Sequence[Fault]]
    lines: Sequence[int] = ()


def add_readings(connection: Connection, chain: Chain, posted: Posted) -> list[dict[str, Any]]:
    """Add readings, all or none; return what became of the series of each resource.

    Raises
    ------
    NotFound, Conflict, Unprocessable
        When there is no such market, or its gate is not closed; with everything that is wrong with the readings.
    """
    market = row_of(connection, markets, posted.market_id)
    state = state_at(market, posted.received_at)
    if state in (SCHEDULED, OPEN):
        raise Conflict("gate_not_closed", f"The market is {state}: nothing has been traded that could be metered.")
    placed, faults = _placed(connection, market, posted)
    if faults:
        raise _refusal(posted, faults)
    newest = {row.resource_id: row for row in newest_readings(connection, market.id)}
    items, rows = [], []
    for resource_id, values in placed.items():
        row = newest.get(resource_id)
        before = _series(row, market.intervals)
        after = tuple(
            _filled(part, {at: pair[kind] for at, pair in values.items()}) for kind, part in enumerate(before)
        )
        version = 0 if row is None else row.version
        is_new = after != before
        if is_new:
            version += 1
            rows.append(
                {
                    "market_id": market.id,
                    "resource_id": resource_id,
                    "version": version,
                    "net_injection_kwh": after[0],
                    "q_kvarh": after[1],
                    "key_id": posted.key_id,
                    "received_at": posted.received_at,
                }
            )
        items.append({"resource_id": resource_id, "version": version, "is_new": is_new})
    if rows:
        connection.execute(insert(readings), rows)
        vouched: dict[str, str] = {}
        for one in rows:
            vouched |= vouch(readings, one)
        told = {"readings": [{name: one[name] for name in ("resource_id", "version")} for one in rows]}
        entry = Entry(posted.received_at, posted.key_id, "readings.add", market.id, told, rows=vouched)
        chain.append(connection, [entry])
    return items


def newest_readings(connection: Connection, market_id: str) -> Sequence[Row[Any]]:
    """Newest version of the readings of every resource of a market that has any."""
    last = (
        select(readings.c.resource_id, func.max(readings.c.version).label("version"))
        .where(readings.c.market_id == market_id)
        .group_by(readings.c.resource_id)
        .subquery()
    )
    is_last = and_(
        readings.c.market_id == market_id,
        readings.c.resource_id == last.c.resource_id,
        readings.c.version == last.c.version,
    )
    return connection.execute(select(readings).join(last, is_last)).all()


Placed = dict[str, dict[int, tuple[float, float | None]]]
"""Real and reactive energy of each resource in each interval."""


def _placed(connection: Connection, market: Row[Any], posted: Posted) -> tuple[Placed, Faults]:
    """Put the readings where they belong, and tell what is wrong with them."""
    faults: Faults = {number: list(found) for number, found in posted.faults.items()}
    wanted = {item.resource_id for item in posted.items if item is not None}
    named = connection.execute(select(resources).where(resources.c.id.in_(wanted)))
    known = {row.id: row for row in named}
    bidding = select(bids.c.resource_id).where(bids.c.market_id == market.id, IS_LIVE).distinct()
    trading = set(connection.execute(bidding).scalars())
    placed: Placed = {}
    for number, item in enumerate(posted.items):
        if item is None:
            continue
        found = [*_wrong_resource(known.get(item.resource_id), market, trading), *_wrong_times(item, market, posted)]
        at = interval_of(market, item.interval_start)
        series = placed.setdefault(item.resource_id, {})
        if not found and at in series:
            found.append(Fault("", "duplicate_reading", "The resource has another reading of this interval here."))
        if found or at is None:
            faults.setdefault(number, []).extend(found)
        else:
            series[at] = item.net_injection_kwh, item.q_kvarh
    return placed, faults


def _wrong_resource(resource: Row[Any] | None, market: Row[Any], trading: set[str]) -> list[Fault]:
    where = "/resource_id"
    if resource is None:
        return [Fault(where, "unknown_resource", "There is no such resource.")]
    if resource.feeder != market.feeder:
        return [Fault(where, "wrong_feeder", f"The market is on the feeder {market.feeder}.")]
    if resource.id not in trading:
        message = "The resource has no bid in this market, which settles those that bid."
        return [Fault(where, "not_in_market", message)]
    return []


def _wrong_times(item: Reading, market: Row[Any], posted: Posted) -> list[Fault]:
    at = interval_of(market, item.interval_start)
    minutes = f"{market.interval_minutes} minutes"
    if at is None or at == market.intervals:
        begins, ends = (rfc3339(interval_start(market, number)) for number in (0, market.intervals))
        return [Fault("/interval_start", "off_grid", f"Must begin an interval of {minutes} from {begins} to {ends}.")]
    if item.interval_end != interval_start(market, at + 1):
        return [Fault("/interval_end", "off_grid", f"Must be {minutes} after interval_start.")]
    if item.interval_end > posted.received_at:
        return [Fault("/interval_end", "not_over", "The interval is not over: nothing can have been metered.")]
    return []


def _refusal(posted: Posted, faults: Faults) -> Unprocessable:
    found = [fault for number in sorted(faults) for fault in _told(posted, number, faults[number])]
    more = f"{len(found)} problems in the body, of which the first {MOST_TOLD} are told."
    return Unprocessable(found[:MOST_TOLD], detail=more if len(found) > MOST_TOLD else "")


def _told(posted: Posted, number: int, faults: Sequence[Fault]) -> list[Fault]:
    """Faults of a reading, under its place, and with its line where it has one."""
    line = f"Line {posted.lines[number]}: " if posted.lines else ""
    return [Fault(fault.pointer, fault.code, line + fault.detail).under(f"/readings/{number}") for fault in faults]


Series = list[float | None]


def _series(row: Row[Any] | None, intervals: int) -> tuple[Series, Series]:
    return ([None] * intervals, [None] * intervals) if row is None else (row.net_injection_kwh, row.q_kvarh)


def _filled(series: Series, values: Mapping[int, float | None]) -> Series:
    return [values.get(at, value) for at, value in enumerate(series)]
