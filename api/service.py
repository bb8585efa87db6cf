"""What the routes work with, made once for a process."""

import threading
from dataclasses import dataclass, field

from sqlalchemy import Engine

from api.auth import Keyring
from api.bidding import Reply, Submission, submission_handler
from api.clock import Clock, system_clock
from api.destinations import Destinations
from api.errors import Conflict
from api.http import Metrics
from api.oidc import Provider
from api.settings import ServiceSettings
from api.store.database import open_database
from api.store.writer import Handler, Writer
from api.streams import Streams


@dataclass(frozen=True)
class Service:
    """Settings, clock, database, writer and keys of a running service, and whether it is about to end."""

    settings: ServiceSettings
    clock: Clock
    engine: Engine
    writer: Writer
    keyring: Keyring
    metrics: Metrics
    accept: Handler
    destinations: Destinations
    streams: Streams
    in_flight: set[tuple[str, str]] = field(default_factory=set)
    ending: threading.Event = field(default_factory=threading.Event)

    async def submit(self, submission: Submission) -> Reply:
        """Carry out a submission of bids.

        Raises
        ------
        Conflict
            When the same idempotency key is being worked on.
        Refusal
            When the submission is refused.
        """
        key = submission.participant_id, submission.idempotency_key
        if key in self.in_flight:
            detail = "A request with this Idempotency-Key is being worked on."
            raise Conflict("in_flight", detail, headers={"Retry-After": "1"})
        self.in_flight.add(key)
        try:
            reply: Reply = await self.writer.do(self.accept, submission, size=len(submission.changes))
        finally:
            self.in_flight.discard(key)
        return reply


def new_service(settings: ServiceSettings, clock: Clock = system_clock) -> Service:
    """Connect to the database of `settings`; its tables must be there."""
    engine = open_database(settings.url)
    other = Provider(settings).identify if settings.oidc_issuer else None
    keyring = Keyring(engine, clock, settings.rate_per_second, settings.rate_burst, other)
    accept = submission_handler(settings.max_bids_per_market, settings.max_blocks_per_market, clock)
    parts = (Writer(engine), keyring, Metrics(), accept, Destinations(settings), Streams(settings.max_streams))
    return Service(settings, clock, engine, *parts)
