"""What a settlement needs beside its market's case: readings of meters, and the real-time market.

They stand in a folder of their own in the snapshot of a run, so that its input is frozen and hashed as a whole.
"""

import csv
import io
import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, and_, select

from api.archive import unpack
from api.errors import Fault, Unprocessable
from api.metering import newest_readings
from api.runfolder import METERED, REAL_TIME, REAL_TIME_SETTINGS, SETTLING
from api.store.tables import QUEUED, RUNNING, markets, resources, runs, versions

SAME = ("feeder", "starts_at", "interval_minutes", "intervals", "currency")
"""What a market and its real-time market must share; the rest the settlement itself checks."""


def newest_run(connection: Connection, market_id: str) -> Row[Any] | None:
    """The run of the newest published version of a market; None where there is none."""
    query = select(runs).join(versions, versions.c.run_id == runs.c.id).where(versions.c.market_id == market_id)
    return connection.execute(query.order_by(versions.c.price_version.desc()).limit(1)).one_or_none()


def run_under_way(connection: Connection, market_id: str) -> Row[Any] | None:
    """Run of a market that waits or is carried out: there is one at most."""
    is_under_way = and_(runs.c.market_id == market_id, runs.c.state.in_((QUEUED, RUNNING)))
    return connection.execute(select(runs).where(is_under_way)).one_or_none()


def case_of(run: Row[Any]) -> dict[str, bytes]:
    """Files of the case that a run cleared."""
    return {name: content for name, content in unpack(run.snapshot).items() if not name.startswith(SETTLING)}


def settling_files(
    connection: Connection, market: Row[Any], real_time_market_id: str | None
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Files that settle a market with the readings that there are by now, and the document that tells of them.

    A market that is its own real-time market has none: its deviations are settled at its prices, corrected ones too.

    Raises
    ------
    Unprocessable
        When there is no such real-time market, it is not published, or it is of another feeder or other intervals.
    """
    names = dict(connection.execute(select(resources.c.id, resources.c.name)).all())
    found = newest_readings(connection, market.id)
    files = {METERED: _metered({names[row.resource_id]: row for row in found})}
    if real_time_market_id == market.id:
        real_time_market_id = None
    real_time = None if real_time_market_id is None else _real_time(connection, market, real_time_market_id)
    if real_time is not None:
        files |= {f"{REAL_TIME}/{name}": content for name, content in case_of(real_time).items()}
        files[REAL_TIME_SETTINGS] = json.dumps(real_time.settings, sort_keys=True).encode()
    return files, {
        "readings": {row.resource_id: row.version for row in found},
        "real_time_market_id": real_time_market_id,
        "real_time_run_id": None if real_time is None else real_time.id,
    }


def _metered(series: Mapping[str, Any]) -> bytes:
    """Readings by the name of their resource as a table for `dlmp.settle`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("resource", "interval", "net_injection_kwh", "q_kvarh"))
    for name in sorted(series):
        pairs = zip(series[name].net_injection_kwh, series[name].q_kvarh, strict=True)
        writer.writerows((name, at, real, reactive) for at, (real, reactive) in enumerate(pairs) if real is not None)
    return text.getvalue().encode()


def _real_time(connection: Connection, market: Row[Any], name: str) -> Row[Any]:
    """The published run of a real-time market that fits `market`."""
    where = "/real_time_market_id"
    other = connection.execute(select(markets).where(markets.c.id == name)).one_or_none()
    if other is None:
        raise Unprocessable([Fault(where, "unknown_market", "There is no such market.")])
    faults = [
        Fault(where, "does_not_fit", f"Must have the {field} of this market, {getattr(market, field)}.")
        for field in SAME
        if getattr(market, field) != getattr(other, field)
    ]
    run = newest_run(connection, name)
    if run is None:
        faults.append(Fault(where, "not_published", "The market has no prices yet: publish it first."))
    if faults or run is None:
        raise Unprocessable(faults)
    return run
