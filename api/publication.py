"""Publishing: a run becomes a version of a market's prices, awards and statements; versions are never edited."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, func, insert, select, update

from api.errors import Conflict
from api.gate import Step, state_at
from api.outbox import EventName, announce
from api.store.audit import Chain, Entry
from api.store.rows import row_of
from api.store.tables import CLEARED, PUBLISHED, SETTLED, SUCCEEDED, markets, runs, versions
from api.store.vouching import vouch, vouch_again

PRELIMINARY, FINAL, CORRECTED = "preliminary", "final", "corrected"
FIRST_REASON = "first publication"


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
    moment = _next_moment(connection, step.at)
    published = {
        "market_id": market.id,
        "price_version": version,
        "run_id": run.id,
        "published_at": moment,
        "reason": run.correction_reason or FIRST_REASON,
    }
    connection.execute(insert(versions).values(published))
    if market.stage == CLEARED:
        connection.execute(update(markets).where(markets.c.id == market.id).values(stage=PUBLISHED))
    after = {"price_version": version, "run_id": run.id, "reason": published["reason"]}
    rows = vouch(versions, published) | vouch_again(connection, markets, markets.c.id == market.id)
    chain.append(connection, [Entry(step.at, step.actor, "market.publish", market.id, after, rows=rows)])
    event: EventName = "market.published" if version == 1 else "market.corrected"
    announce(connection, event, market, step.at, moment, price_version=version)
    return version


def _next_moment(connection: Connection, now: datetime) -> datetime:
    """Time now, or right after the last publication: followers ask for what is later than the last that they know."""
    last = connection.execute(select(func.max(versions.c.published_at))).scalar_one()
    return now if last is None else max(now, last + timedelta(microseconds=1))


def settle(connection: Connection, chain: Chain, step: Step) -> None:
    """Make the statements of a published market final; raises `NotFound` and `Conflict`."""
    market = row_of(connection, markets, step.market_id)
    if market.stage != PUBLISHED:
        raise Conflict("not_published", f"The market is {state_at(market, step.at)}: only a published one is settled.")
    connection.execute(update(markets).where(markets.c.id == market.id).values(stage=SETTLED))
    rows = vouch_again(connection, markets, markets.c.id == market.id)
    entry = Entry(step.at, step.actor, "market.settle", market.id, {"stage": SETTLED}, {"stage": PUBLISHED}, rows)
    chain.append(connection, [entry])
    newest = published_versions(connection, market.id)[-1].price_version
    announce(connection, "market.settled", market, step.at, price_version=newest)


def published_versions(connection: Connection, market_id: str) -> Sequence[Row[Any]]:
    """Every version of a market, the first one first."""
    own = select(versions).where(versions.c.market_id == market_id).order_by(versions.c.price_version)
    return connection.execute(own).all()


def status_of(version: int, stage: str) -> str:
    """Status of the prices of a version of a market at `stage`."""
    if version > 1:
        return CORRECTED
    return FINAL if stage == SETTLED else PRELIMINARY
