"""Runs: asked for, claimed by a worker, and ended; a run that has ended stays as it is.

A run's input is frozen when it is asked for: the case folder of its market, hashed, and with it what was metered where
the market is settled.  One run of a market is under way at a time, which the database itself sees to.
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
from api.outbox import announce
from api.settling import case_of, newest_run, run_under_way, settling_files
from api.store.audit import Chain, Entry
from api.store.rows import row_of
from api.store.tables import (
    CANCELLED,
    CLEARED,
    CLEARING,
    FAILED,
    IS_LIVE,
    PUBLISHED,
    QUEUED,
    RUNNING,
    SETTLED,
    SETTLEMENT,
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
FUTURE_LEASES = 10
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
        Series in place of those that the newest published run had: substation prices and so on.
    """

    market_id: str
    requested_by: str
    asked_at: datetime
    settings: Mapping[str, Any]
    time_limit_s: float
    correction_reason: str = ""
    inputs: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class SettlementRequest:
    """A settlement that is asked for: as `RunRequest`, and at whose prices deviations are settled.

    `real_time_market_id` is that of the settlement before where it is left out, and at first the market's own.
    """

    market_id: str
    requested_by: str
    asked_at: datetime
    time_limit_s: float
    real_time_market_id: str | None = None
    correction_reason: str = ""


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
    published = newest_run(connection, market.id)
    corrected = ({} if published is None else published.corrected_inputs) | _corrected(market, asked.inputs)
    under_way = _under_way(connection, market.id, CLEARING)
    state = state_at(market, asked.asked_at)
    more: dict[str, bytes] = {}
    settling = None
    if state == SETTLED:
        more, settling = settling_files(connection, market, _real_time_of(published))
    if under_way is not None:
        has_same = {
            "settings": under_way.settings == asked.settings,
            "correction_reason": under_way.correction_reason == asked.correction_reason,
            "corrected_inputs": under_way.corrected_inputs == corrected,
            "readings or real-time prices": under_way.settling == settling,
        }
        return _the_same(under_way, has_same), False
    is_published = published is not None
    if state not in (CLOSED, CLEARED, PUBLISHED, SETTLED):
        raise Conflict("gate_not_closed", f"The market is {state}: close its gate first.")
    if is_published and not asked.correction_reason:
        raise Conflict("reason_needed", "The market is published: a run is a correction, which needs a reason.")
    if not is_published and (asked.correction_reason or asked.inputs):
        raise Conflict("nothing_to_correct", "The market is not published: there is nothing to correct.")
    latch(connection, chain, Seen({market.id: state}, asked.asked_at))
    files = _snapshot(connection, market, corrected) | more
    given = {"settings": dict(asked.settings), "settling": settling, "corrected_inputs": corrected}
    return _queued(connection, chain, asked, CLEARING, files, given), True


def request_settlement(connection: Connection, chain: Chain, asked: SettlementRequest) -> tuple[str, bool]:
    """Queue the settlement of a published market, or find the one under way; return its name and whether it is new.

    Its input is that of the published run, whose prices it is to find once more, with the readings that there are by
    now.  When it has succeeded it is published at once.

    Raises
    ------
    NotFound, Conflict, Unprocessable
        When there is no such market, or it is not published; when the real-time market does not fit.
    """
    market = row_of(connection, markets, asked.market_id)
    published = newest_run(connection, market.id)
    under_way = _under_way(connection, market.id, SETTLEMENT)
    if published is None:
        state = state_at(market, asked.asked_at)
        raise Conflict("not_published", f"The market is {state}: only a published one is settled.")
    more, settling = settling_files(connection, market, asked.real_time_market_id or _real_time_of(published))
    settling["settled_run_id"] = published.id
    if under_way is not None:
        has_same = {
            "real_time_market_id": _real_time_of(under_way) == settling["real_time_market_id"],
            "readings or prices": under_way.settling == settling,
            "correction_reason": under_way.correction_reason == asked.correction_reason,
        }
        return _the_same(under_way, has_same), False
    if market.stage == SETTLED and not asked.correction_reason:
        raise Conflict("reason_needed", "The market is settled: to settle it again is a correction, with a reason.")
    if market.stage != SETTLED and asked.correction_reason:
        raise Conflict("nothing_to_correct", "The market is not settled: there is nothing to correct.")
    given = {"settings": published.settings, "settling": settling, "corrected_inputs": published.corrected_inputs}
    return _queued(connection, chain, asked, SETTLEMENT, case_of(published) | more, given), True


def _under_way(connection: Connection, market_id: str, kind: str) -> Row[Any] | None:
    """Run of a market that is under way; one of another kind than `kind` is a conflict."""
    run = run_under_way(connection, market_id)
    if run is not None and run.kind != kind:
        raise Conflict("run_under_way", f"The {run.kind} {run.id} of this market is under way: wait for its end.")
    return run


def _the_same(run: Row[Any], has_same: Mapping[str, bool]) -> str:
    """Name of a run under way, where it is what is asked for: two who ask for the same at once get one run."""
    differing = [name for name, is_same in has_same.items() if not is_same]
    if differing:
        message = f"The run {run.id} is under way with other {', '.join(differing)}: wait for its end, or cancel it."
        raise Conflict("run_under_way", message)
    return str(run.id)


def _real_time_of(run: Row[Any] | None) -> str | None:
    """Real-time market that a run was settled against."""
    return None if run is None or run.settling is None else run.settling["real_time_market_id"]


def _queued(
    connection: Connection,
    chain: Chain,
    asked: RunRequest | SettlementRequest,
    kind: str,
    files: Mapping[str, bytes],
    given: Mapping[str, Any],
) -> str:
    """Queue a run with its input, and what it was `given` for the row that tells of it; return its name."""
    market_id = asked.market_id
    numbers = select(func.coalesce(func.max(runs.c.number), 0)).where(runs.c.market_id == market_id)
    run = {
        "id": new_id(RUN),
        "market_id": market_id,
        "number": connection.execute(numbers).scalar_one() + 1,
        "kind": kind,
        "state": QUEUED,
        "reason": "",
        "correction_reason": asked.correction_reason,
        **given,
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
    after = {name: run[name] for name in ("market_id", "kind", "correction_reason", "snapshot_sha256", *given)}
    entry = Entry(asked.asked_at, asked.requested_by, "run.request", str(run["id"]), after, rows=vouch(runs, run))
    chain.append(connection, [entry])
    return str(run["id"])


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

    A sign of life from far in the future is one of before a clock stepped back, and counts as none.

    A run that was begun too often ends as failed instead: its input may be what kills its worker.
    """
    lease = timedelta(seconds=claim.lease_s)
    is_silent = or_(runs.c.heartbeat_at < claim.at - lease, runs.c.heartbeat_at > claim.at + FUTURE_LEASES * lease)
    free = or_(runs.c.state == QUEUED, and_(runs.c.state == RUNNING, is_silent))
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
    """Store how a run ended, its results with it; False when it is no longer this worker's.

    One that was cancelled before this ends as cancelled, whatever came of it.
    """
    row = connection.execute(select(runs).where(runs.c.id == ended.run_id)).one_or_none()
    if row is None or row.state != RUNNING or row.worker != ended.worker:
        return False
    if row.cancel_requested:
        _end(connection, chain, row, ended.at, CANCELLED, "cancelled")
        return True
    if ended.state == SUCCEEDED:
        stored = [
            {"run_id": row.id, "name": name, "content": content, "sha256": sha256, "rows": count}
            for name, (content, sha256, count) in ended.tables.items()
        ]
        connection.execute(insert(results), stored)
        first = and_(markets.c.id == row.market_id, markets.c.stage.is_(None))
        is_first = connection.execute(update(markets).where(first).values(stage=CLEARED)).rowcount == 1
        if is_first:
            announce(connection, "market.cleared", row_of(connection, markets, row.market_id), ended.at)
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
    if state == FAILED:
        announce(connection, "run.failed", row_of(connection, markets, run.market_id), at, run_id=run.id)


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
