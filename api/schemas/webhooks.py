"""Webhooks, their deliveries and what they are told, as they go in and out."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from api.outbox import EVENTS, EventName
from api.schemas.common import Answer, Body, Id, Name

DeliveryError = Literal[
    "",
    "host_not_allowed",
    "url_not_allowed",
    "no_connection",
    "timeout",
    "no_http",
    "deleted",
    "disabled",
    "internal",
]


class WebhookIn(Body):
    """Where events are to be sent, and which."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"url": "https://desk.example/dlmp", "events": ["market.published", "market.corrected"]},
                {
                    "url": "https://desk.example/dlmp",
                    "events": ["market.closed"],
                    "market_id": "mkt_0f1e2d3c4b5a69788796a5b4",
                },
            ]
        }
    )

    url: Annotated[str, StringConstraints(pattern=r"^https?://[!-~]+$", max_length=2_000)]
    """Where, by https, to a host whose addresses are all public."""
    events: Annotated[list[EventName], Field(min_length=1, max_length=len(EVENTS))]
    """Which events; `run.failed` is for operators."""
    market_id: Id | None = None
    """Only those of this market."""
    feeder: Name | None = None
    """Only those of markets on the feeder of this name."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if self.market_id is not None and self.feeder is not None:
            raise PydanticCustomError("one_of", "needs either market_id or feeder, or neither")
        return self


class WebhookOut(Answer):
    """A webhook, without its secret."""

    id: str
    participant_id: str | None
    """Whose it is; null: the operators'."""
    url: str
    events: list[str]
    market_id: str | None
    feeder: str | None
    created_at: str
    disabled_at: str | None
    """Since when it is told nothing; a ping that its receiver takes enables it again."""
    disabled_reason: str


class NewWebhookOut(WebhookOut):
    """A webhook that was just registered."""

    secret: str
    """Verifies what is received (Standard Webhooks); it is shown only now."""


class Notice(Answer):
    """What a webhook is told."""

    id: str
    """Name of the delivery, the same at every attempt: what comes twice is known by it."""
    event: str
    occurred_at: str
    market_id: str | None
    price_version: int | None
    run_id: str | None


class DeliveryOut(Answer):
    """What became of a delivery."""

    id: str
    event: str
    content: Notice
    """What is sent."""
    state: Literal["pending", "delivered", "failed"]
    attempts: int
    created_at: str
    next_attempt_at: str | None
    ended_at: str | None
    status: int | None
    """Status that the receiver answered to the last attempt."""
    error: DeliveryError
    """Why it did not answer, or was not asked."""
