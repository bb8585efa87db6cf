"""What the client gives: receipts, and the things of the market; times are RFC 3339, UTC, as text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

from dlmp.client.errors import Fault, ServiceError, faults_of


@dataclass(frozen=True)
class _Record:
    """A document of the service; members that this client does not know are left out."""

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Make the record of a document."""
        return cls(**{field.name: document[field.name] for field in fields(cls) if field.name in document})


@dataclass(frozen=True)
class Participant(_Record):
    """Someone who trades."""

    id: str
    name: str


@dataclass(frozen=True)
class Key(_Record):
    """An API key that was just issued; `key` is the whole of it."""

    id: str
    name: str
    role: str
    participant_id: str | None
    key: str


@dataclass(frozen=True)
class Feeder(_Record):
    """A version of a feeder."""

    id: str
    name: str
    version: int
    sha256: str
    description: str
    bus_count: int


@dataclass(frozen=True)
class Resource(_Record):
    """A registered resource and its limits; power in kW, kvar and kVA."""

    id: str
    participant_id: str
    feeder: str
    name: str
    bus: str
    phase: str
    kind: str
    p_min_kw: float
    p_max_kw: float
    q_min_kvar: float
    q_max_kvar: float
    s_max_kva: float | None
    power_factor_min: float | None
    retired_at: str | None


@dataclass(frozen=True)
class Market(_Record):
    """A market and its state when it was read."""

    id: str
    name: str
    state: str
    feeder_id: str
    feeder: str
    trade_date: str
    market_timezone: str
    currency: str
    interval_minutes: int
    intervals: int
    starts_at: str
    ends_at: str
    gate_opens_at: str
    gate_closes_at: str
    price_floor_usd_per_mwh: float
    price_cap_usd_per_mwh: float
    takes_blocks: bool
    bids_public_at: str | None
    price_version: int | None


@dataclass(frozen=True)
class Run(_Record):
    """A run as it was when it was read: a ``clearing``, or a ``settlement``.

    `settling` tells what it settles with: readings by version, and the real-time market; None where it does not.
    """

    id: str
    market_id: str
    number: int
    kind: str
    state: str
    reason: str
    correction_reason: str
    settling: Mapping[str, Any] | None
    snapshot_sha256: str
    attempts: int
    progress: Mapping[str, Any]
    summary: Mapping[str, Any] | None

    @property
    def is_under_way(self) -> bool:
        """Whether it has not ended."""
        return self.state in ("queued", "running")


@dataclass(frozen=True)
class BidVersion(_Record):
    """A version of a bid; `etag`, of one that was read by itself, names it in an amendment."""

    id: str
    version: int
    state: str
    market_id: str
    resource_id: str
    product: str
    interval_start: str
    interval_end: str
    terms: Mapping[str, Any]
    received_at: str
    sequence: int
    content_sha256: str
    etag: str = ""


@dataclass(frozen=True)
class MaskedBid(_Record):
    """A bid of a market whose bids are public by now; `participant` and `resource` are pseudonyms within it."""

    participant: str
    resource: str
    product: str
    interval_start: str
    interval_end: str
    terms: Mapping[str, Any]


@dataclass(frozen=True)
class ReadSeries(_Record):
    """What became of readings of a resource: the version of all of them, and whether any was new."""

    resource_id: str
    version: int
    is_new: bool


@dataclass(frozen=True)
class Webhook(_Record):
    """Where events are sent; `secret`, which verifies them, is in the answer that registers it only."""

    id: str
    participant_id: str | None
    url: str
    events: Sequence[str]
    market_id: str | None
    feeder: str | None
    created_at: str
    disabled_at: str | None
    disabled_reason: str
    secret: str | None = None


@dataclass(frozen=True)
class Delivery(_Record):
    """What became of an event that a webhook was told; `content` is what was sent."""

    id: str
    event: str
    content: Mapping[str, Any]
    state: str
    attempts: int
    created_at: str
    next_attempt_at: str | None
    ended_at: str | None
    status: int | None
    error: str


@dataclass(frozen=True)
class Outcome:
    """What became of one bid of a submission."""

    is_accepted: bool
    bid_id: str | None
    version: int | None
    faults: tuple[Fault, ...]


@dataclass(frozen=True)
class Receipt:
    """Proof that a submission is on the service's disk; `outcomes` are in the order of its bids.

    Parameters
    ----------
    submission_id, sequence
        Its name, and its place in the order of acceptance among those of its participant.
    received_at
        When the service had all of it, which decides about the gate.
    content_sha256
        SHA-256 of the body that was received.
    status
        ``accepted`` or ``partly_accepted``.
    is_again
        It had been carried out before; this is the first answer once more.
    """

    submission_id: str
    sequence: int
    received_at: str
    content_sha256: str
    status: str
    outcomes: tuple[Outcome, ...]
    is_again: bool = False

    @classmethod
    def of(cls, document: Mapping[str, Any], is_again: bool) -> Self:
        """Make the record of a receipt."""
        outcomes = tuple(
            Outcome(item["status"] == "accepted", item["bid_id"], item["version"], faults_of(item["errors"]))
            for item in document["items"]
        )
        names = ("submission_id", "sequence", "received_at", "content_sha256", "status")
        return cls(**{name: document[name] for name in names}, outcomes=outcomes, is_again=is_again)

    @property
    def bid_ids(self) -> list[str]:
        """Names of the bids that stand."""
        return [outcome.bid_id for outcome in self.outcomes if outcome.bid_id is not None]


@dataclass(frozen=True)
class Resent:
    """What became of a request that was sent again: its receipt, or the error that it met."""

    idempotency_key: str
    receipt: Receipt | None
    error: ServiceError | None
