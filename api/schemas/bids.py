"""Bids, and receipts for them.

A bid is of one resource and one product over consecutive intervals.  Quantities are unsigned; its side says which way.
"""

from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Discriminator, Field, JsonValue, SkipValidation, TypeAdapter, model_validator
from pydantic_core import PydanticCustomError

from api.schemas.common import Answer, Body, Id, Price, Quantity, Time
from api.schemas.problems import FaultOut

MOST_SEGMENTS = 20
MOST_BIDS = 1_000
_PLACE: dict[str, JsonValue] = {
    "market_id": "mkt_0f1e2d3c4b5a69788796a5b4",
    "resource_id": "res_5b4a69788796a5b40f1e2d3c",
    "interval_start": "2026-07-01T17:00:00Z",
    "interval_end": "2026-07-01T20:00:00Z",
}
ENERGY_EXAMPLE: dict[str, JsonValue] = _PLACE | {
    "product": "energy",
    "side": "supply",
    "segments": [
        {"quantity_kw": 250.0, "price_usd_per_mwh": 18.5},
        {"quantity_kw": 100.0, "price_usd_per_mwh": 31.0, "price_end_usd_per_mwh": 40.0},
    ],
}


class Segment(Body):
    """A part of a curve, any share of which may be accepted."""

    quantity_kw: Quantity
    """Size [kW]."""
    price_usd_per_mwh: Price
    """Price, or where it begins [currency/MWh]."""
    price_end_usd_per_mwh: Price | None = None
    """Price where the segment ends; in between it runs in a straight line.  Left out: that of its beginning."""

    @property
    def ends_at(self) -> float:
        """Price at the end."""
        return self.price_usd_per_mwh if self.price_end_usd_per_mwh is None else self.price_end_usd_per_mwh


class _Bid(Body):
    market_id: Id
    """Market to bid into."""
    resource_id: Id
    """Resource that stands behind the bid."""
    interval_start: Time
    """Start of the first interval, included."""
    interval_end: Time
    """End of the last interval, excluded."""


class EnergyBid(_Bid):
    """A curve of real power: an offer to inject, or a bid to consume."""

    model_config = ConfigDict(json_schema_extra={"examples": [ENERGY_EXAMPLE]})

    product: Literal["energy"]
    side: Literal["supply", "demand"]
    """``supply`` injects, ``demand`` consumes."""
    segments: Annotated[list[Segment], Field(min_length=1, max_length=MOST_SEGMENTS)]
    """The curve: prices do not fall for supply, and do not rise for demand."""

    @model_validator(mode="after")
    def _is_monotone(self) -> Self:
        sign = 1.0 if self.side == "supply" else -1.0
        prices = [sign * price for part in self.segments for price in (part.price_usd_per_mwh, part.ends_at)]
        if any(later < earlier for earlier, later in pairwise(prices)):
            wanted = "not fall" if self.side == "supply" else "not rise"
            message = "the prices of a {side} curve must {wanted} from segment to segment"
            raise PydanticCustomError("not_monotone", message, {"side": self.side, "wanted": wanted})
        return self


class SelfSchedule(_Bid):
    """Power that is injected or consumed at any price, and settled at that of its node."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [_PLACE | {"product": "self_schedule", "side": "demand", "quantity_kw": 120.0}],
        }
    )

    product: Literal["self_schedule"]
    side: Literal["supply", "demand"]
    quantity_kw: Quantity
    """Power [kW]."""


class ServiceOffer(_Bid):
    """Power held ready for a service, by one of its four names."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [_PLACE | {"product": "capacity_up", "quantity": 50.0, "price_usd_per_mw_h": 4.5}],
        }
    )

    product: Literal["capacity_up", "capacity_down", "var_up", "var_down"]
    quantity: Quantity
    """Most that may be reserved [kW], [kvar]."""
    price_usd_per_mw_h: Annotated[Price, Field(ge=0)]
    """Price of 1 MW or MVAr held ready for an hour [currency/MW-h]."""


Bid = Annotated[EnergyBid | SelfSchedule | ServiceOffer, Discriminator("product")]
BID: TypeAdapter[EnergyBid | SelfSchedule | ServiceOffer] = TypeAdapter(Bid)
PRODUCTS = ("energy", "self_schedule", "capacity_up", "capacity_down", "var_up", "var_down")


class Batch(Body):
    """Many bids in one submission."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"mode": "per_item", "bids": [ENERGY_EXAMPLE]}]})

    mode: Literal["atomic", "per_item"]
    """``atomic``: all or none; ``per_item``: each on its own."""
    bids: Annotated[
        list[SkipValidation[Bid]],
        Field(min_length=1, max_length=MOST_BIDS),
    ]
    """The bids, each checked on its own."""


class ItemOut(Answer):
    """What became of one bid of a submission."""

    status: Literal["accepted", "refused"]
    bid_id: str | None
    version: int | None
    errors: list[FaultOut]


class Gate(Answer):
    """The gate that a receipt was decided by, half-open."""

    opens_at: str
    closes_at: str


class Receipt(Answer):
    """Proof that a submission is on disk."""

    submission_id: str
    sequence: int
    """Number of the submission among those of its participant that were accepted: 1, 2, 3, without gaps."""
    received_at: str
    """When the server had the whole request; decides about the gate."""
    gates: dict[str, Gate]
    """Gate of every market that was bid into."""
    content_sha256: str
    """SHA-256 of the body as it was received."""
    status: Literal["accepted", "partly_accepted", "refused"]
    items: list[ItemOut]


class BidOut(Answer):
    """A version of a bid."""

    id: str
    version: int
    state: Literal["live", "superseded", "withdrawn"]
    market_id: str
    resource_id: str
    product: str
    interval_start: str
    interval_end: str
    terms: dict[str, Any]
    received_at: str
    sequence: int
    content_sha256: str
