"""Events of markets, put into the outbox of webhooks by the very transaction in which they happen.

So what was committed is told, whatever crashes afterwards, and what was rolled back is not.  An event tells a webhook's
owner no more than they may read of the market anyway.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, get_args

from sqlalchemy import ColumnElement, Connection, and_, insert, or_, select

from api.clock import rfc3339
from api.identity import DELIVERY, new_id
from api.store.tables import PENDING, deliveries, webhooks

EventName = Literal[
    "market.open",
    "market.closed",
    "market.cleared",
    "market.published",
    "market.settled",
    "market.corrected",
    "run.failed",
]
EVENTS: tuple[EventName, ...] = get_args(EventName)
OF_OPERATORS: frozenset[EventName] = frozenset({"run.failed"})
"""Events of what only operators may read."""
PING = "ping"
LISTENS: ColumnElement[bool] = and_(webhooks.c.deleted_at.is_(None), webhooks.c.disabled_at.is_(None))
"""Webhooks that are told of events."""


def announce(
    connection: Connection, event: EventName, market: Any, at: datetime, happened_at: datetime | None = None, **of: Any
) -> None:
    """Put an event into the outbox for every webhook that wants it.

    Parameters
    ----------
    connection
        Of the transaction in which it happens.
    event, market
        What happened to which market, a row of the table ``markets``.
    at, happened_at
        When it is put here, and when it happened; left out: at the same time.
    of
        Version of the prices, or run, that it is about.
    """
    of_market = or_(webhooks.c.market_id.is_(None), webhooks.c.market_id == market.id)
    of_feeder = or_(webhooks.c.feeder.is_(None), webhooks.c.feeder == market.feeder)
    listening = connection.execute(select(webhooks.c.id, webhooks.c.events).where(LISTENS, of_market, of_feeder)).all()
    about = {"market_id": market.id, **of}
    rows = [waiting(hook.id, event, at, happened_at or at, about) for hook in listening if event in hook.events]
    if rows:
        connection.execute(insert(deliveries), rows)


def waiting(
    webhook_id: str, event: str, at: datetime, happened_at: datetime, about: Mapping[str, Any]
) -> dict[str, Any]:
    """Row of a delivery that is due at once."""
    name = new_id(DELIVERY)
    said = {"id": name, "event": event, "occurred_at": rfc3339(happened_at)}
    return {
        "id": name,
        "webhook_id": webhook_id,
        "event": event,
        "content": said | {"market_id": None, "price_version": None, "run_id": None} | dict(about),
        "state": PENDING,
        "attempts": 0,
        "worker": "",
        "created_at": at,
        "next_attempt_at": at,
        "error": "",
    }
