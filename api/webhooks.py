"""Webhooks: registered, deleted, tried by a ping; their deliveries claimed by a sender and what became of each noted.

A delivery is signed as Standard Webhooks (https://www.standardwebhooks.com) says, so that its libraries verify it:

    webhook-signature = "v1," base64(HMAC-SHA256(secret, webhook-id "." webhook-timestamp "." body))

It is attempted at least once and until a receiver takes it, or until it is given up; one at a time for a webhook.
"""

import base64
import hashlib
import hmac
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, func, insert, or_, select, update

from api.clock import rfc3339
from api.errors import Conflict, Fault, NotFound, Unprocessable
from api.identity import WEBHOOK, new_id
from api.outbox import OF_OPERATORS, PING, waiting
from api.registry import Asked
from api.runs import SYSTEM
from api.store.audit import Chain, Entry
from api.store.rows import is_known, row_of
from api.store.tables import DELIVERED, FAILED, PENDING, deliveries, feeders, markets, participants, webhooks
from api.store.vouching import vouch, vouch_again

PREFIX, SECRET_BYTES = "whsec_", 32
FIRST_PAUSE_S, PAUSE_FACTOR, LONGEST_PAUSE_S = 5.0, 4.0, 3_600.0
KEPT = timedelta(days=30)
"""How long a delivery that has ended is kept."""
MOST_OF_OWNER = 8
"""Most deliveries of an owner that are on the way at once: receivers that are slow hold up no webhooks of others."""
PING_PAUSE = timedelta(seconds=10)
GONE = 410
DELETED, DISABLED = "deleted", "disabled"
LOST = "lost"


def add_webhook(connection: Connection, chain: Chain, asked: Asked) -> str:
    """Register a webhook; return its name.

    Raises
    ------
    Unprocessable
        When its URL has faults; when owner, market or feeder are unknown, an event is not its owner's, or there are too
        many.
    """
    content = asked.content
    owner, market_id, feeder = content["participant_id"], content["market_id"], content["feeder"]
    faults = list(content["faults"])
    if owner is not None and OF_OPERATORS & set(content["events"]):
        faults.append(Fault("/events", "operators_only", f"For operators only: {', '.join(sorted(OF_OPERATORS))}."))
    if owner is not None and not is_known(connection, participants.c.id == owner):
        faults.append(Fault("", "unknown_participant", "You are no participant that is registered here."))
    if market_id is not None and not is_known(connection, markets.c.id == market_id):
        faults.append(Fault("/market_id", "unknown_market", "There is no such market."))
    if feeder is not None and not is_known(connection, feeders.c.name == feeder):
        faults.append(Fault("/feeder", "unknown_feeder", "There is no such feeder."))
    standing = and_(webhooks.c.participant_id == owner, webhooks.c.deleted_at.is_(None))
    if connection.execute(select(func.count()).where(standing)).scalar_one() >= content["most"]:
        faults.append(Fault("", "too_many_webhooks", f"There may be {content['most']} webhooks: delete one first."))
    if faults:
        raise Unprocessable(faults)
    row = {
        "id": new_id(WEBHOOK),
        "participant_id": owner,
        "url": content["url"],
        "secret": content["secret"],
        "events": sorted(set(content["events"])),
        "market_id": market_id,
        "feeder": feeder,
        "created_at": asked.at,
        "disabled_reason": "",
    }
    connection.execute(insert(webhooks).values(row))
    after = {name: row[name] for name in ("participant_id", "events", "market_id", "feeder")}
    entry = Entry(asked.at, asked.actor, "webhook.add", str(row["id"]), after, rows=vouch(webhooks, row))
    chain.append(connection, [entry])
    return str(row["id"])


def new_secret() -> str:
    """Return a secret to sign with."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def webhook_of(connection: Connection, name: str, owner: str | None, *, sees_all: bool = False) -> Row[Any]:
    """Return the row of a webhook that is the owner's; raises `NotFound`."""
    row = connection.execute(select(webhooks).where(webhooks.c.id == name)).one_or_none()
    if row is None or row.deleted_at is not None or not (sees_all or row.participant_id == owner):
        raise NotFound("webhook")
    return row


def delete_webhook(connection: Connection, chain: Chain, asked: Asked) -> None:
    """Delete a webhook and its secret; raises `NotFound`."""
    hook = webhook_of(connection, asked.content["id"], asked.content["participant_id"])
    _change(connection, chain, hook, asked.at, asked.actor, "webhook.delete", deleted_at=asked.at, secret="")
    _give_up(connection, hook, asked.at, DELETED)


def ping(connection: Connection, chain: Chain, asked: Asked) -> str:
    """Put a ping into the outbox; return its name.

    Raises
    ------
    NotFound, Conflict
        When there is no such webhook; when a ping is under way, or the last one is not `PING_PAUSE` old.
    """
    hook = webhook_of(connection, asked.content["id"], asked.content["participant_id"])
    pings = and_(deliveries.c.webhook_id == hook.id, deliveries.c.event == PING)
    is_new = or_(deliveries.c.state == PENDING, deliveries.c.created_at > asked.at - PING_PAUSE)
    if is_known(connection, and_(pings, is_new)):
        pause = PING_PAUSE.seconds
        detail = f"A ping of this webhook is under way, or was sent less than {pause} s ago."
        raise Conflict("ping_waits", detail, headers={"Retry-After": str(pause)})
    row = waiting(hook.id, PING, asked.at, asked.at, {})
    connection.execute(insert(deliveries).values(row))
    return str(row["id"])


@dataclass(frozen=True)
class Turn:
    """A sender that looks for deliveries that are due."""

    worker: str
    at: datetime
    lease_s: float
    most: int


def claim_deliveries(connection: Connection, chain: Chain, turn: Turn) -> Sequence[Row[Any]]:
    """Take the first delivery that is due of each webhook that has none on the way.

    Of each owner there are `MOST_OF_OWNER` on the way at once.
    A delivery whose sender goes silent is due again when its lease has run out.
    """
    is_pending = deliveries.c.state == PENDING
    on_the_way = and_(is_pending, deliveries.c.worker != "", deliveries.c.next_attempt_at > turn.at)
    busy = select(deliveries.c.webhook_id).where(on_the_way)
    is_due = and_(is_pending, deliveries.c.next_attempt_at <= turn.at, deliveries.c.webhook_id.not_in(busy))
    first = func.min(deliveries.c.number)
    oldest = select(first, webhooks.c.participant_id).join(webhooks).where(is_due)
    oldest = oldest.group_by(deliveries.c.webhook_id, webhooks.c.participant_id).order_by(first)
    owners = connection.execute(select(webhooks.c.participant_id).join(deliveries).where(on_the_way)).scalars()
    count = Counter(owners)
    numbers: list[int] = []
    for number, owner in connection.execute(oldest):
        if count[owner] < MOST_OF_OWNER and len(numbers) < turn.most:
            count[owner] += 1
            numbers.append(number)
    own = deliveries.c.number.in_(numbers)
    lease_ends = turn.at + timedelta(seconds=turn.lease_s)
    taken = {"worker": turn.worker, "next_attempt_at": lease_ends, "attempts": deliveries.c.attempts + 1}
    connection.execute(update(deliveries).where(own).values(**taken))
    query = select(deliveries, webhooks.c.url, webhooks.c.secret).join(webhooks)
    return connection.execute(query.where(own).order_by(deliveries.c.number)).all()


def signed(secret: str, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Headers that tell a receiver who sent `body`, and when."""
    key = base64.b64decode(secret.removeprefix(PREFIX))
    digest = hmac.digest(key, b".".join((message_id.encode(), str(timestamp).encode(), body)), hashlib.sha256)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def pause_s(attempts: int) -> float:
    """Return how long to wait after so many attempts, on average [s].

    >>> [pause_s(attempts) for attempts in (1, 2, 3, 4, 5, 6, 100)]
    [5.0, 20.0, 80.0, 320.0, 1280.0, 3600.0, 3600.0]
    """
    return min(FIRST_PAUSE_S * PAUSE_FACTOR ** min(attempts - 1, 16), LONGEST_PAUSE_S)


@dataclass(frozen=True)
class Attempt:
    """What became of an attempt at a delivery, a row that was claimed: the status of the answer, or why there was none.

    After `pause_s` seconds it is attempted again, unless that would be more than `give_up_s` after it was put here.
    """

    delivery: Row[Any]
    at: datetime
    status: int | None
    error: str
    pause_s: float
    give_up_s: float

    @property
    def is_taken(self) -> bool:
        """Whether the receiver took it."""
        return self.status is not None and 200 <= self.status < 300


def note_attempt(connection: Connection, chain: Chain, attempt: Attempt) -> str:
    """Keep what became of an attempt; return the state of the delivery, `LOST` when another sender has it by now.

    A webhook is disabled when a delivery was given up and nothing was taken since it was put here, or at once when
    its receiver says that it is gone; a ping that is taken enables it again.
    """
    given = attempt.delivery
    own = and_(
        deliveries.c.number == given.number,
        deliveries.c.state == PENDING,
        deliveries.c.worker == given.worker,
        deliveries.c.attempts == given.attempts,
    )
    again_at = attempt.at + timedelta(seconds=attempt.pause_s)
    is_last = given.event == PING or again_at > given.created_at + timedelta(seconds=attempt.give_up_s)
    is_gone = attempt.status == GONE
    values: dict[str, Any] = {"state": PENDING, "next_attempt_at": again_at}
    if attempt.is_taken or is_last or is_gone:
        state = DELIVERED if attempt.is_taken else FAILED
        values = {"state": state, "next_attempt_at": None, "ended_at": attempt.at}
    noted = update(deliveries).where(own).values(**values, worker="", status=attempt.status, error=attempt.error)
    if connection.execute(noted).rowcount == 0:
        return LOST
    hook = row_of(connection, webhooks, given.webhook_id)
    change = (connection, chain, hook, attempt.at, SYSTEM)
    if attempt.is_taken and hook.disabled_at is not None:
        _change(*change, "webhook.enable", disabled_at=None, disabled_reason="")
    if values["state"] == FAILED and hook.disabled_at is None:
        taken = and_(deliveries.c.webhook_id == hook.id, deliveries.c.state == DELIVERED)
        has_taken = is_known(connection, and_(taken, deliveries.c.ended_at >= given.created_at))
        if is_gone or (given.event != PING and not has_taken):
            reason = "its receiver says that it is gone" if is_gone else "it took nothing for too long"
            _change(*change, "webhook.disable", disabled_at=attempt.at, disabled_reason=reason)
            _give_up(connection, hook, attempt.at, DISABLED)
    return str(values["state"])


def _change(
    connection: Connection, chain: Chain, hook: Row[Any], at: datetime, actor: str, action: str, **values: Any
) -> None:
    own = webhooks.c.id == hook.id
    connection.execute(update(webhooks).where(own).values(**values))
    rows = vouch_again(connection, webhooks, own)
    after = {name: _shown(value) for name, value in values.items() if name != "secret"}
    before: Mapping[str, Any] = {name: _shown(getattr(hook, name)) for name in after}
    chain.append(connection, [Entry(at, actor, action, hook.id, after, before, rows)])


def _shown(value: Any) -> Any:
    return rfc3339(value) if isinstance(value, datetime) else value


def _give_up(connection: Connection, hook: Row[Any], at: datetime, error: str) -> None:
    """End what waits for a webhook."""
    waits = and_(deliveries.c.webhook_id == hook.id, deliveries.c.state == PENDING)
    ended = {"state": FAILED, "worker": "", "next_attempt_at": None, "ended_at": at, "error": error}
    connection.execute(update(deliveries).where(waits).values(**ended))


def drop_old_deliveries(connection: Connection, chain: Chain, now: datetime) -> None:
    """Drop deliveries that ended long ago."""
    connection.execute(delete(deliveries).where(deliveries.c.ended_at < now - KEPT))
