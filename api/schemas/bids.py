"""Bids, and receipts for them.

A bid is of one resource and one product over consecutive intervals.  Quantities are unsigned; its side says which way.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Discriminator, Field, JsonValue, SkipValidation, TypeAdapter, model_validator
from pydantic_core import PydanticCustomError

from api.schemas.common import Amount, Answer, Body, Id, Name, Power, Price, Quantity, Share, Time
from api.schemas.problems import FaultOut
from dlmp.market import MAX_INTERVALS

MOST_SEGMENTS = 20
MOST_BIDS = 1_000
Amounts = Annotated[list[Amount], Field(min_length=1, max_length=MAX_INTERVALS)]
Powers = Annotated[list[Power], Field(min_length=1, max_length=MAX_INTERVALS)]
Penalty = Annotated[Price, Field(gt=0)] | None
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


class ReactiveSegment(Body):
    """A part of a curve of reactive power, any share of which may be accepted."""

    quantity_kvar: Quantity
    """Size [kvar]."""
    price_usd_per_mvarh: Price
    """Price, or where it begins [currency/MVArh]."""
    price_end_usd_per_mvarh: Price | None = None
    """Price where the segment ends; in between it runs in a straight line.  Left out: that of its beginning."""

    @property
    def ends_at(self) -> float:
        """Price at the end."""
        return self.price_usd_per_mvarh if self.price_end_usd_per_mvarh is None else self.price_end_usd_per_mvarh


def _require_monotone(side: str, prices: Sequence[float], *, falls: bool) -> None:
    sign, wanted = (-1.0, "not rise") if falls else (1.0, "not fall")
    if any(sign * later < sign * earlier for earlier, later in pairwise(prices)):
        message = "the prices of a {side} curve must {wanted} from segment to segment"
        raise PydanticCustomError("not_monotone", message, {"side": side, "wanted": wanted})


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
        prices = [price for part in self.segments for price in (part.price_usd_per_mwh, part.ends_at)]
        _require_monotone(self.side, prices, falls=self.side == "demand")
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


class ReactiveBid(_Bid):
    """A curve of reactive power: an offer to inject, or one to absorb."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                _PLACE
                | {
                    "product": "reactive",
                    "side": "inject",
                    "segments": [{"quantity_kvar": 40.0, "price_usd_per_mvarh": 2.5}],
                }
            ],
        }
    )

    product: Literal["reactive"]
    side: Literal["inject", "absorb"]
    """``inject`` gives reactive power to the grid, ``absorb`` takes it."""
    segments: Annotated[list[ReactiveSegment], Field(min_length=1, max_length=MOST_SEGMENTS)]
    """The curve: prices do not fall for ``inject``, and do not rise for ``absorb``."""

    @model_validator(mode="after")
    def _is_monotone(self) -> Self:
        prices = [price for part in self.segments for price in (part.price_usd_per_mvarh, part.ends_at)]
        _require_monotone(self.side, prices, falls=self.side == "absorb")
        return self


class BlockBid(_Bid):
    """The same power in all intervals at one price, accepted as a whole or not at all."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                _PLACE
                | {
                    "product": "block",
                    "side": "supply",
                    "quantity_kw": 150.0,
                    "price_usd_per_mwh": 24.0,
                    "exclusive_group": "either evening",
                }
            ],
        }
    )

    product: Literal["block"]
    side: Literal["supply", "demand"]
    quantity_kw: Quantity
    """Power in each interval [kW]."""
    price_usd_per_mwh: Price
    """Price of the energy of all intervals together [currency/MWh]."""
    min_acceptance_ratio: Share = 1.0
    """Smallest part that may be accepted, the same in all intervals."""
    exclusive_group: Name | None = None
    """Of your blocks with the same name here, at most one is accepted."""


class StoreBid(_Bid):
    """A store of energy, dispatched over the whole market at the least cost of all.

    Lists have a value for each interval of the market, or one for all.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                _PLACE
                | {
                    "product": "store",
                    "charge_max_kw": [100.0],
                    "discharge_max_kw": [100.0],
                    "energy_max_kwh": [400.0],
                    "initial_kwh": 200.0,
                    "final_min_kwh": 200.0,
                    "charge_efficiency": 0.95,
                    "discharge_efficiency": 0.95,
                    "cycling_usd_per_mwh": 4.0,
                }
            ],
        }
    )

    product: Literal["store"]
    charge_max_kw: Amounts
    """Largest power from the grid [kW]."""
    discharge_max_kw: Amounts = Field(default_factory=lambda: [0.0])
    """Largest power into the grid [kW]."""
    energy_min_kwh: Amounts = Field(default_factory=lambda: [0.0])
    """Least energy at the end of an interval [kWh]."""
    energy_max_kwh: Amounts
    """Most energy at the end of an interval [kWh]."""
    initial_kwh: Amount = 0.0
    """Energy when the market begins [kWh]."""
    final_min_kwh: Amount = 0.0
    """Least energy when the market ends [kWh]."""
    charge_efficiency: Share = 1.0
    """Part of the power from the grid that is stored."""
    discharge_efficiency: Share = 1.0
    """Part of the power taken from the store that reaches the grid."""
    retention: Share = 1.0
    """Part of the energy that is left after an hour at rest."""
    drain_kw: Powers = Field(default_factory=lambda: [0.0])
    """Power that leaves the store for its own use [kW]; negative for what comes in elsewhere."""
    cycling_usd_per_mwh: Annotated[Price, Field(ge=0)] = 0.0
    """Cost of discharging, by energy into the grid [currency/MWh]."""
    shortfall_usd_per_mwh: Penalty = None
    """What each interval's energy below its least costs [currency/MWh]; left out: none is allowed."""
    final_usd_per_mwh: Price = 0.0
    """What the energy that is left when the market ends is worth [currency/MWh]."""


class DeadlineLoad(_Bid):
    """Energy that is to be had between two times, whenever it costs least: a vehicle, a boiler, a batch process."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [_PLACE | {"product": "deadline_load", "charge_max_kw": 11.0, "energy_kwh": 24.0}],
        }
    )

    product: Literal["deadline_load"]
    charge_max_kw: Quantity
    """Largest power from the grid [kW]."""
    energy_kwh: Quantity
    """Energy that must be there at the end [kWh]."""
    charge_efficiency: Share = 1.0
    """Part of the power from the grid that counts."""
    shortfall_usd_per_mwh: Penalty = None
    """What the energy that is lacking at the end costs [currency/MWh]; left out: none may lack."""


class EnergyBand(_Bid):
    """A load whose energy, counted from the start of the bid, stays between two lines.

    Lists have a value for each interval of the bid, or one for all.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                _PLACE
                | {
                    "product": "energy_band",
                    "charge_max_kw": [50.0],
                    "energy_min_kwh": [0.0, 30.0, 90.0],
                    "energy_max_kwh": [50.0, 90.0, 100.0],
                }
            ],
        }
    )

    product: Literal["energy_band"]
    charge_max_kw: Amounts
    """Largest power from the grid [kW]."""
    energy_min_kwh: Amounts
    """Least energy since the start of the bid, at the end of each interval [kWh]."""
    energy_max_kwh: Amounts
    """Most energy since the start of the bid, at the end of each interval [kWh]."""
    shortfall_usd_per_mwh: Penalty = None
    """What each interval's energy below its least costs [currency/MWh]; left out: none is allowed."""


AnyBid = EnergyBid | SelfSchedule | ServiceOffer | ReactiveBid | BlockBid | StoreBid | DeadlineLoad | EnergyBand
Bid = Annotated[AnyBid, Discriminator("product")]
BID: TypeAdapter[AnyBid] = TypeAdapter(Bid)
PRODUCTS = (
    *("energy", "self_schedule", "capacity_up", "capacity_down", "var_up", "var_down"),
    *("reactive", "block", "store", "deadline_load", "energy_band"),
)


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
