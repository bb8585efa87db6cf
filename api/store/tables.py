"""The tables of the service.  What is in them is added to, not edited: a change is a further version.

Only states move: of markets along `MARKET_STATES`, of runs from queued to running and an end, of bids from live to
superseded or withdrawn, of keys to revoked, of webhooks to disabled and back, and to deleted.  Deliveries of webhooks
are no record but an outbox: they change with every attempt, and old ones are dropped.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from api.store.columns import Document, UtcTime

CLEARED, PUBLISHED, SETTLED = "cleared", "published", "settled"
MARKET_STATES = ("scheduled", "open", "closed", CLEARED, PUBLISHED, SETTLED)
CLEARING, SETTLEMENT = "clearing", "settlement"
"""Kinds of runs: one finds prices, the other settles published ones with what was metered."""
QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED = "queued", "running", "succeeded", "failed", "cancelled"
LIVE, SUPERSEDED, WITHDRAWN = "live", "superseded", "withdrawn"
PENDING, DELIVERED = "pending", "delivered"
DELIVERY_STATES = (PENDING, DELIVERED, FAILED)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
Sequence = BigInteger().with_variant(Integer, "sqlite")
"""A number that the database counts up; SQLite does so for ``INTEGER`` only."""

participants = Table(
    "participants",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("created_at", UtcTime, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("secret_sha256", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("scopes", Document, nullable=False),
    Column("participant_id", Text, ForeignKey("participants.id")),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime),
    Column("revoked_at", UtcTime),
)

feeders = Table(
    "feeders",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("files", LargeBinary, nullable=False),
    Column("nodes", Document, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    UniqueConstraint("name", "version"),
    UniqueConstraint("name", "sha256"),
)

resources = Table(
    "resources",
    metadata,
    Column("id", Text, primary_key=True),
    Column("participant_id", Text, ForeignKey("participants.id"), nullable=False),
    Column("feeder", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("bus", Text, nullable=False),
    Column("phase", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("limits", Document, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("retired_at", UtcTime),
    UniqueConstraint("feeder", "name"),
)

markets = Table(
    "markets",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("feeder_id", Text, ForeignKey("feeders.id"), nullable=False),
    Column("feeder", Text, nullable=False),
    Column("trade_date", Text, nullable=False),
    Column("timezone", Text, nullable=False),
    Column("starts_at", UtcTime, nullable=False),
    Column("interval_minutes", Integer, nullable=False),
    Column("intervals", Integer, nullable=False),
    Column("currency", Text, nullable=False),
    Column("gate_opens_at", UtcTime, nullable=False),
    Column("gate_closes_at", UtcTime, nullable=False),
    Column("price_floor", Float, nullable=False),
    Column("price_cap", Float, nullable=False),
    Column("inputs", Document, nullable=False),
    Column("takes_blocks", Boolean, nullable=False),
    Column("bids_public_after_days", Integer),
    Column("mask_key", Text, nullable=False),
    Column("opened_at", UtcTime),
    Column("closed_at", UtcTime),
    Column("stage", Text),
    Column("created_at", UtcTime, nullable=False),
)

submissions = Table(
    "submissions",
    metadata,
    Column("sequence", Sequence, primary_key=True, autoincrement=False),
    Column("id", Text, nullable=False, unique=True),
    Column("participant_id", Text, ForeignKey("participants.id"), nullable=False),
    Column("number", Sequence, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("idempotency_key", Text, nullable=False),
    Column("content_sha256", Text, nullable=False),
    Column("request_sha256", Text, nullable=False),
    Column("received_at", UtcTime, nullable=False),
    Column("status", Integer, nullable=False),
    Column("response", Document, nullable=False),
    UniqueConstraint("participant_id", "idempotency_key"),
    UniqueConstraint("participant_id", "number"),
)
"""`sequence` counts over all participants, and `number` those of a participant, who is told no other."""

bids = Table(
    "bids",
    metadata,
    Column("id", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("market_id", Text, ForeignKey("markets.id"), nullable=False),
    Column("participant_id", Text, ForeignKey("participants.id"), nullable=False),
    Column("resource_id", Text, ForeignKey("resources.id"), nullable=False),
    Column("product", Text, nullable=False),
    Column("first_interval", Integer, nullable=False),
    Column("last_interval", Integer, nullable=False),
    Column("terms", Document, nullable=False),
    Column("content_sha256", Text, nullable=False),
    Column("sequence", Sequence, nullable=False),
    Column("received_at", UtcTime, nullable=False),
    Column("state", Text, nullable=False),
    PrimaryKeyConstraint("id", "version"),
)
IS_LIVE = text(f"state = '{LIVE}'")
"""Written out, so that SQLite sees that a query may use the indices of bids that stand."""
for _who in (bids.c.participant_id, bids.c.resource_id):
    Index(f"ix_bids_live_{_who.name}", bids.c.market_id, _who, sqlite_where=IS_LIVE, postgresql_where=IS_LIVE)
Index(None, bids.c.participant_id, bids.c.sequence)

runs = Table(
    "runs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("market_id", Text, ForeignKey("markets.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("correction_reason", Text, nullable=False),
    Column("settings", Document, nullable=False),
    Column("settling", Document),
    Column("corrected_inputs", Document, nullable=False),
    Column("snapshot", LargeBinary, nullable=False),
    Column("snapshot_sha256", Text, nullable=False),
    Column("time_limit_s", Float, nullable=False),
    Column("requested_by", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("started_at", UtcTime),
    Column("ended_at", UtcTime),
    Column("worker", Text, nullable=False),
    Column("heartbeat_at", UtcTime),
    Column("attempts", Integer, nullable=False),
    Column("cancel_requested", Boolean, nullable=False),
    Column("progress", Document, nullable=False),
    Column("summary", Document),
    UniqueConstraint("market_id", "number"),
)
UNDER_WAY = text(f"state IN ('{QUEUED}', '{RUNNING}')")
Index("uq_runs_under_way", runs.c.market_id, unique=True, sqlite_where=UNDER_WAY, postgresql_where=UNDER_WAY)

results = Table(
    "results",
    metadata,
    Column("run_id", Text, ForeignKey("runs.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("rows", Integer, nullable=False),
    PrimaryKeyConstraint("run_id", "name"),
)

versions = Table(
    "versions",
    metadata,
    Column("market_id", Text, ForeignKey("markets.id"), nullable=False),
    Column("price_version", Integer, nullable=False),
    Column("run_id", Text, ForeignKey("runs.id"), nullable=False, unique=True),
    Column("published_at", UtcTime, nullable=False),
    Column("status", Text, nullable=False),
    Column("reason", Text, nullable=False),
    PrimaryKeyConstraint("market_id", "price_version"),
)
Index(None, versions.c.published_at)

readings = Table(
    "readings",
    metadata,
    Column("market_id", Text, ForeignKey("markets.id"), nullable=False),
    Column("resource_id", Text, ForeignKey("resources.id"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("net_injection_kwh", Document, nullable=False),
    Column("q_kvarh", Document, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("received_at", UtcTime, nullable=False),
    PrimaryKeyConstraint("market_id", "resource_id", "version"),
)
"""What the meter of a resource has shown in each interval of a market, by the version: null where there is nothing."""
webhooks = Table(
    "webhooks",
    metadata,
    Column("id", Text, primary_key=True),
    Column("participant_id", Text, ForeignKey("participants.id")),
    Column("url", Text, nullable=False),
    Column("secret", Text, nullable=False),
    Column("events", Document, nullable=False),
    Column("market_id", Text, ForeignKey("markets.id")),
    Column("feeder", Text),
    Column("created_at", UtcTime, nullable=False),
    Column("disabled_at", UtcTime),
    Column("disabled_reason", Text, nullable=False),
    Column("deleted_at", UtcTime),
)
"""`participant_id` is null for those of the operators."""

deliveries = Table(
    "deliveries",
    metadata,
    Column("number", Sequence, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("webhook_id", Text, ForeignKey("webhooks.id"), nullable=False),
    Column("event", Text, nullable=False),
    Column("content", Document, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("worker", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("next_attempt_at", UtcTime),
    Column("ended_at", UtcTime),
    Column("status", Integer),
    Column("error", Text, nullable=False),
)
"""While a `worker` attempts a delivery, `next_attempt_at` is when its lease runs out."""
IS_PENDING = text(f"state = '{PENDING}'")
Index("ix_deliveries_pending", deliveries.c.next_attempt_at, sqlite_where=IS_PENDING, postgresql_where=IS_PENDING)
Index(None, deliveries.c.webhook_id, deliveries.c.number)

audit = Table(
    "audit",
    metadata,
    Column("sequence", Sequence, primary_key=True, autoincrement=False),
    Column("at", UtcTime, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("before", Document),
    Column("after", Document),
    Column("rows", Document, nullable=False),
    Column("previous_hash", Text, nullable=False),
    Column("hash", Text, nullable=False, unique=True),
)

chain = Table(
    "chain",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("sequence", Sequence, nullable=False),
    Column("hash", Text, nullable=False),
    Column("submissions", Sequence, nullable=False),
)
"""One row: the head of the audit chain, and the number of the last submission.  Whoever writes locks it first."""
