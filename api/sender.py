"""The sender: takes from the outbox what is due and sends it to webhooks; every process of the service has one.

It also sees that a gate has opened or closed by its time where nobody asks, as long as any webhook is to be told.
"""

import asyncio
import random
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version
from typing import Any

import httpcore
import structlog
from sqlalchemy import and_, select

from api.destinations import Destinations
from api.errors import Unprocessable
from api.gate import Seen, latch, unseen_gates
from api.identity import new_id
from api.outbox import LISTENS
from api.service import Service
from api.store.columns import canonical_json
from api.store.tables import PENDING, deliveries, webhooks
from api.store.writer import each
from api.webhooks import Attempt, Turn, claim_deliveries, drop_old_deliveries, note_attempt, pause_s, signed

POLL_S, GRACE_S, DROP_S = 0.25, 2.0, 3_600.0
MOST_AT_ONCE = 64
LEASE_PER_TIMEOUT = 2.0
JITTER = 0.25
"""Share by which a pause is shorter or longer, so that what failed together does not come again together."""
CLAIM, NOTE, LATCH, DROP = each(claim_deliveries), each(note_attempt), each(latch), each(drop_old_deliveries)
HEADERS = {"Content-Type": "application/json", "User-Agent": f"dlmp/{version('dlmp')}"}
log = structlog.get_logger("dlmp.webhooks")


class Sender:
    """A thread that delivers, many at once, at most one at a time to a webhook."""

    def __init__(self, service: Service):
        self._service = service
        self._name = new_id("snd")
        self._thread = threading.Thread(target=lambda: asyncio.run(self._work()), name="sender", daemon=True)
        self._stopping = threading.Event()
        self._dropped_at = -DROP_S

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self) -> None:
        """Stop; what is under way for longer is sent again when its lease has run out."""
        self._stopping.set()
        self._thread.join()

    async def _work(self) -> None:
        destinations = Destinations(self._service.settings)
        under_way: set[asyncio.Task[None]] = set()
        while not self._stopping.is_set():
            try:
                for delivery in await self._due(MOST_AT_ONCE - len(under_way)):
                    task = asyncio.create_task(self._deliver(destinations, delivery))
                    under_way.add(task)
                    task.add_done_callback(under_way.discard)
            except Exception:
                log.exception("sender")
            if under_way:
                await asyncio.wait(under_way, timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.sleep(POLL_S)
        if under_way:
            await asyncio.wait(under_way, timeout=GRACE_S)
        destinations.close()

    async def _due(self, most: int) -> Sequence[Any]:
        writer, now = self._service.writer, self._service.clock()
        if time.monotonic() - self._dropped_at > DROP_S:
            self._dropped_at = time.monotonic()
            await writer.do(DROP, now)
        gates, is_due = await asyncio.to_thread(self._seen, now)
        if gates:
            await writer.do(LATCH, Seen(gates, now))
        if most == 0 or not (gates or is_due):
            return []
        lease_s = LEASE_PER_TIMEOUT * self._service.settings.webhook_timeout_s
        due: Sequence[Any] = await writer.do(CLAIM, Turn(self._name, now, lease_s, most))
        return due

    def _seen(self, now: datetime) -> tuple[dict[str, str], bool]:
        """Gates that nobody has seen move, and whether any delivery is due; without the writer, which others need."""
        is_due = and_(deliveries.c.state == PENDING, deliveries.c.next_attempt_at <= now)
        with self._service.engine.connect() as connection:
            is_told = connection.execute(select(webhooks.c.id).where(LISTENS).limit(1)).one_or_none() is not None
            gates = unseen_gates(connection, now) if is_told else {}
            return gates, connection.execute(select(deliveries.c.id).where(is_due).limit(1)).one_or_none() is not None

    async def _deliver(self, destinations: Destinations, delivery: Any) -> None:
        status, error = await self._attempted(destinations, delivery)
        pause = pause_s(delivery.attempts) * random.uniform(1 - JITTER, 1 + JITTER)
        settings = self._service.settings
        attempt = Attempt(delivery, self._service.clock(), status, error, pause, settings.webhook_give_up_s)
        try:
            state = await self._service.writer.do(NOTE, attempt)
        except Exception:
            log.exception("webhook", delivery=delivery.id)
            return
        self._service.metrics.deliveries.labels(state).inc()
        log.info(
            "webhook",
            webhook=delivery.webhook_id,
            delivery=delivery.id,
            attempt=delivery.attempts,
            state=state,
            status=status,
            error=error,
        )

    async def _attempted(self, destinations: Destinations, delivery: Any) -> tuple[int | None, str]:
        """Status of the answer, or why there is none."""
        body = canonical_json(delivery.content).encode()
        headers = signed(delivery.secret, delivery.id, int(self._service.clock().timestamp()), body)
        try:
            return await destinations.post(delivery.url, HEADERS | headers, body), ""
        except Unprocessable as refusal:
            return None, refusal.faults[0].code
        except (TimeoutError, httpcore.TimeoutException):
            return None, "timeout"
        except httpcore.NetworkError:
            return None, "no_connection"
        except httpcore.ProtocolError:
            return None, "no_http"
        except Exception:
            log.exception("webhook", delivery=delivery.id)
            return None, "internal"
