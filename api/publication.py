"""Publishing: a run becomes a version of a market's prices, awards and statements; versions are never edited."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, and_, func, insert, select, update

from api.errors import Conflict, NotFound
from api.gate import Step, state_at
from api.outbox import EventName, announce
from api.settling import run_under_way
from api.store.audit import Chain, Entry
from api.store.rows import row_of
from api.store.tables import (
    CLEARED,
    CLEARING,
    MARKET_STATES,
    PUBLISHED,
    SETTLED,
    SETTLEMENT,
    SUCCEEDED,
    markets,
    runs,
    versions,
)
from api.store.vouching import vouch, vouch_again

PRELIMINARY, FINAL, CORRECTED = "preliminary", "final", "corrected"
EVENTS: Mapping[str, EventName] = {
    PRELIMINARY: "market.published",
    FINAL: "market.settled",
    CORRECTED: "market.corrected",
}
FIRST_REASON, SETTLED_REASON = "first publication", "settlement"


def publish(connection: Connection, chain: Chain, step: Step) -> int:
    """Publish the newest run of a market that has succeeded; return its price version.

    Raises
    ------
    NotFound, Conflict
        When there is no such market, or nothing new to publish.
    """
    market = row_of(connection, markets, step.market_id)
    if market.stage is None:
        raise Conflict("not_cleared", f"The market is {state_at(market, step.at)}: run its clearing first.")
    succeeded = and_(runs.c.market_id == market.id, runs.c.state == SUCCEEDED)
    run = connection.execute(select(runs).where(succeeded).order_by(runs.c.number.desc()).limit(1)).one()
    is_known = select(versions.c.price_version).where(versions.c.run_id == run.id)
    if connection.execute(is_known).one_or_none() is not None:
        raise Conflict("already_published", "The newest run is published already.")
    newest = select(func.coalesce(func.max(versions.c.price_version), 0)).where(versions.c.market_id == market.id)
    version = int(connection.execute(newest).scalar_one()) + 1
    if version > 1 and run.kind == CLEARING and not run.correction_reason:
        message = f"The newest run, {run.id}, was asked for without a correction_reason: ask for one with it."
        raise Conflict("reason_needed", message)
    under_way = run_under_way(connection, market.id) if version > 1 else None
    if under_way is not None:
        message = (
            f"The {under_way.kind} {under_way.id} begins from what is published now: wait for its end, or cancel it."
        )
        raise Conflict("run_under_way", message)
    moment = _next_moment(connection, step.at)
    status = _status(run, market.stage)
    published = {
        "market_id": market.id,
        "price_version": version,
        "run_id": run.id,
        "published_at": moment,
        "status": status,
        "reason": run.correction_reason or (SETTLED_REASON if run.kind == SETTLEMENT else FIRST_REASON),
    }
    connection.execute(insert(versions).values(published))
    stage = SETTLED if run.kind == SETTLEMENT else max(market.stage, PUBLISHED, key=MARKET_STATES.index)
    if stage != market.stage:
        connection.execute(update(markets).where(markets.c.id == market.id).values(stage=stage))
    after = {name: published[name] for name in ("price_version", "run_id", "status", "reason")} | {"stage": stage}
    before = {"stage": market.stage}
    rows = vouch(versions, published) | vouch_again(connection, markets, markets.c.id == market.id)
    action = "market.settle" if run.kind == SETTLEMENT else "market.publish"
    chain.append(connection, [Entry(step.at, step.actor, action, market.id, after, before, rows)])
    announce(connection, EVENTS[status], market, step.at, moment, price_version=version)
    return version


def _status(run: Row[Any], stage: str) -> str:
    """Status of the version that a run becomes of a market at `stage`; it stays."""
    if run.kind == SETTLEMENT:
        return CORRECTED if stage == SETTLED else FINAL
    return PRELIMINARY if stage == CLEARED else CORRECTED


def _next_moment(connection: Connection, now: datetime) -> datetime:
    """Time now, or right after the last publication: followers ask for what is later than the last that they know."""
    last = connection.execute(select(func.max(versions.c.published_at))).scalar_one()
    return now if last is None else max(now, last + timedelta(microseconds=1))


class Published(NamedTuple):
    """A version of a market's results, rows of ``markets`` and ``versions``; `newest` is the number of the newest."""

    market: Row[Any]
    version: Row[Any]
    previous: Row[Any] | None
    newest: int


def version_of(connection: Connection, market_id: str, number: int | None = None) -> Published:
    """Version of a market's results by its number, the newest where it is None.

    Raises
    ------
    NotFound
        When there is no such market or version.
    """
    market = row_of(connection, markets, market_id)
    own = select(versions).where(versions.c.market_id == market_id).order_by(versions.c.price_version)
    known = connection.execute(own).all()
    wanted = len(known) if number is None else number
    if not 1 <= wanted <= len(known):
        raise NotFound("published version")
    return Published(market, known[wanted - 1], known[wanted - 2] if wanted > 1 else None, len(known))
