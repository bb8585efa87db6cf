"""Runs: asked for, claimed by a worker, and ended; a run that has ended stays as it is.

A run's input is frozen when it is asked for: the case folder of its market, hashed.  One run of a market is under way
at a time, which the database itself sees to.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, func, insert, or_, select, update

from api.archive import content_sha256, pack
from api.casefiles import case_files
from api.errors import Conflict, Unprocessable
from api.gate import CLOSED, Seen, latch, over_intervals, state_at
from api.identity import RUN, new_id
from api.store.audit import Chain, Entry
from api.store.rows import row_of
from api.store.tables import (
    CANCELLED,
    CLEARED,
    FAILED,
    IS_LIVE,
    PUBLISHED,
    QUEUED,
    RUNNING,
    SETTLED,
    SUCCEEDED,
    bids,
    feeders,
    markets,
    resources,
    results,
    runs,
)
from api.store.vouching import ENDED, row_name, row_sha256, vouch, vouch_again

SYSTEM = "system"
GO_ON, CANCEL, LOST = "go_on", "cancel", "lost"
BIDS_OF_A_RUN = select(bids).where(IS_LIVE, bids.c.market_id == bindparam("market"))


@dataclass(frozen=True)
class RunRequest:
    """A run that is asked for.

    Parameters
    ----------
    market_id, requested_by
        Of what, and by whom.
    asked_at
        When.
    settings
        Arguments of `dlmp.Settings`.
    time_limit_s
        Longest time that it may take [s].
    correction_reason
        Why a published market is cleared again; blank where it is not published yet.
    inputs
        Corrected series, in place of those of the market's inputs: substation prices and so on.
    """

    market_id: str
    requested_by: str
    asked_at: datetime
    settings: Mapping[str, Any]
    time_limit_s: float
    correction_reason: str = ""
    inputs: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """A worker that looks for a run."""

    worker: str
    at: datetime
    lease_s: float
    max_attempts: int


@dataclass(frozen=True)
class Ended:
    """How a run ended; results are stored with it, or none are."""

    run_id: str
    worker: str
    at: datetime
    state: str
    reason: str
    tables: Mapping[str, tuple[bytes, str, int]] = field(default_factory=dict)
    summary: Mapping[str, Any] | None = None


def request_run(connection: Connection, chain: Chain, asked: RunRequest) -> tuple[str, bool]:
    """Queue a run, or find the one under way; return its name and whether it is new.

    Raises
    ------
    NotFound, Conflict, Unprocessable
        When there is no such market, or its state does not allow a run; when a series does not fit its intervals.
    """
    market = row_of(connection, markets, asked.market_id)
    inputs = _corrected(market, asked.inputs)
    is_under_way = and_(runs.c.market_id == market.id, runs.c.state.in_((QUEUED, RUNNING)))
    under_way = connection.execute(select(runs.c.id).where(is_under_way)).scalar_one_or_none()
    if under_way is not None:
        return under_way, False
    state = state_at(market, asked.asked_at)
    is_published = state in (PUBLISHED, SETTLED)
    if state not in (CLOSED, CLEARED, PUBLISHED, SETTLED):
        raise Conflict("gate_not_closed", f"The market is {state}: close its gate first.")
    if is_published and not asked.correction_reason:
        raise Conflict("reason_needed", "The market is published: a run is a correction, which needs a reason.")
    if not is_published and (asked.correction_reason or asked.inputs):
        raise Conflict("nothing_to_correct", "The market is not published: there is nothing to correct.")
    latch(connection, chain, Seen({market.id: state}, asked.asked_at))
    files = _snapshot(connection, market, inputs)
    numbers = select(func.coalesce(func.max(runs.c.number), 0)).where(runs.c.market_id == market.id)
    run = {
        "id": new_id(RUN),
        "market_id": market.id,
        "number": connection.execute(numbers).scalar_one() + 1,
        "state": QUEUED,
        "reason": "",
        "correction_reason": asked.correction_reason,
        "settings": dict(asked.settings),
        "snapshot": pack(files),
        "snapshot_sha256": content_sha256(files),
        "time_limit_s": asked.time_limit_s,
        "requested_by": asked.requested_by,
        "created_at": asked.asked_at,
        "worker": "",
        "attempts": 0,
        "cancel_requested": False,
        "progress": {"text": "waiting", "passes": 0},
    }
    connection.execute(insert(runs).values(run))
    after = {"market_id": market.id, "snapshot_sha256": run["snapshot_sha256"], "settings": run["settings"]}
    entry = Entry(asked.asked_at, asked.requested_by, "run.request", str(run["id"]), after, rows=vouch(runs, run))
    chain.append(connection, [entry])
    return str(run["id"]), True


def _corrected(market: Row[Any], series: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Corrected series with a value for each interval of a market."""
    corrected, faults = {}, []
    for name, values in series.items():
        corrected[name], wrong = over_intervals(values, market.intervals, f"/{name}")
        faults += wrong
    if faults:
        raise Unprocessable(faults)
    return corrected


def _snapshot(connection: Connection, market: Row[Any], inputs: Mapping[str, Any]) -> dict[str, bytes]:
    """Case folder of a market as it is now, with corrected `inputs`."""
    feeder = connection.execute(select(feeders).where(feeders.c.id == market.feeder_id)).one()
    standing = connection.execute(BIDS_OF_A_RUN, {"market": market.id}).all()
    owned = {bid.resource_id for bid in standing}
    offering = connection.execute(select(resources).where(resources.c.id.in_(owned))).all()
    return case_files(market, feeder, offering, standing, market.inputs | dict(inputs))


def claim_run(connection: Connection, chain: Chain, claim: Claim) -> Row[Any] | None:
    """Take the oldest run that waits, or whose worker has gone silent; None where there is none.

    A run that was begun too often ends as failed instead: its input may be what kills its worker.
    """
    silent = claim.at - timedelta(seconds=claim.lease_s)
    free = or_(runs.c.state == QUEUED, and_(runs.c.state == RUNNING, runs.c.heartbeat_at < silent))
    oldest = select(runs).where(free).order_by(runs.c.created_at, runs.c.id).limit(1)
    run = connection.execute(oldest).one_or_none()
    if run is None:
        return None
    own = runs.c.id == run.id
    if run.cancel_requested:
        _end(connection, chain, run, claim.at, CANCELLED, "cancelled before it began")
        return None
    if run.attempts >= claim.max_attempts:
        _end(connection, chain, run, claim.at, FAILED, f"its worker was lost {run.attempts} times")
        return None
    begun = {"state": RUNNING, "worker": claim.worker, "heartbeat_at": claim.at, "attempts": run.attempts + 1}
    connection.execute(update(runs).where(own).values(**begun, started_at=run.started_at or claim.at))
    return connection.execute(select(runs).where(own)).one()


@dataclass(frozen=True)
class Beat:
    """A sign of life from a worker, with what its run is doing."""

    run_id: str
    worker: str
    at: datetime
    progress: Mapping[str, Any]


def beat(connection: Connection, chain: Chain, sign: Beat) -> str:
    """Renew a lease; answer `GO_ON`, `CANCEL` or, when the run has another worker by now, `LOST`."""
    row = connection.execute(select(runs).where(runs.c.id == sign.run_id)).one_or_none()
    if row is None or row.state != RUNNING or row.worker != sign.worker:
        return LOST
    values = {"heartbeat_at": sign.at, "progress": dict(sign.progress)}
    connection.execute(update(runs).where(runs.c.id == sign.run_id).values(**values))
    return CANCEL if row.cancel_requested else GO_ON


@dataclass(frozen=True)
class Release:
    """A run that its worker, which is ending, gives back."""

    run_id: str
    worker: str


def release_run(connection: Connection, chain: Chain, release: Release) -> bool:
    """Let a run wait again, as if it had not been begun; False when it is no longer this worker's."""
    own = and_(runs.c.id == release.run_id, runs.c.state == RUNNING, runs.c.worker == release.worker)
    waits = {"state": QUEUED, "worker": "", "heartbeat_at": None, "attempts": runs.c.attempts - 1}
    released = connection.execute(update(runs).where(own).values(**waits, progress={"text": "waiting", "passes": 0}))
    return released.rowcount == 1


def end_run(connection: Connection, chain: Chain, ended: Ended) -> bool:
    """Store how a run ended, its results with it; False when it is no longer this worker's."""
    row = connection.execute(select(runs).where(runs.c.id == ended.run_id)).one_or_none()
    if row is None or row.state != RUNNING or row.worker != ended.worker:
        return False
    if ended.state == SUCCEEDED:
        stored = [
            {"run_id": row.id, "name": name, "content": content, "sha256": sha256, "rows": count}
            for name, (content, sha256, count) in ended.tables.items()
        ]
        connection.execute(insert(results), stored)
        first = and_(markets.c.id == row.market_id, markets.c.stage.is_(None))
        connection.execute(update(markets).where(first).values(stage=CLEARED))
    _end(connection, chain, row, ended.at, ended.state, ended.reason, ended.summary, ended.tables)
    return True


def _end(
    connection: Connection,
    chain: Chain,
    run: Row[Any],
    at: datetime,
    state: str,
    reason: str,
    summary: Mapping[str, Any] | None = None,
    tables: Collection[str] = (),
) -> None:
    values = {"state": state, "reason": reason, "ended_at": at, "summary": summary}
    connection.execute(update(runs).where(runs.c.id == run.id).values(**values))
    ended = dict(connection.execute(select(runs).where(runs.c.id == run.id)).one()._mapping)
    rows = {
        f"{row_name(runs, ended)} {ENDED}": row_sha256(runs, ended, left_out=frozenset()),
        **vouch_again(connection, results, results.c.run_id == run.id),
        **vouch_again(connection, markets, markets.c.id == run.market_id),
    }
    after = {"state": state, "reason": reason, "results": sorted(tables)}
    chain.append(connection, [Entry(at, SYSTEM, "run.end", run.id, after, {"state": run.state}, rows)])


@dataclass(frozen=True)
class Cancel:
    """A run that is to be cancelled."""

    run_id: str
    actor: str
    at: datetime


def cancel_run(connection: Connection, chain: Chain, cancel: Cancel) -> None:
    """Cancel a run that waits, or ask its worker to; raises `NotFound` and, when it has ended, `Conflict`."""
    run = row_of(connection, runs, cancel.run_id)
    if run.state not in (QUEUED, RUNNING):
        raise Conflict("run_ended", f"The run has ended: it {run.state}.")
    after = {"cancel_requested": True}
    chain.append(connection, [Entry(cancel.at, cancel.actor, "run.cancel", run.id, after)])
    connection.execute(update(runs).where(runs.c.id == run.id).values(**after))
    if run.state == QUEUED:
        _end(connection, chain, run, cancel.at, CANCELLED, "cancelled before it began")
