"""Meter readings, as they go in and out."""

from typing import Annotated

from pydantic import ConfigDict, Field, JsonValue, SkipValidation, TypeAdapter

from api.schemas.common import Answer, Body, Id, Power, Time

MOST_READINGS = 20_000
EXAMPLE: dict[str, JsonValue] = {
    "resource_id": "res_5b4a69788796a5b40f1e2d3c",
    "interval_start": "2026-07-01T17:00:00Z",
    "interval_end": "2026-07-01T18:00:00Z",
    "net_injection_kwh": 231.5,
}


class Reading(Body):
    """What the meter of a resource has shown in an interval."""

    resource_id: Id
    interval_start: Time
    """Start of an interval of the market, included."""
    interval_end: Time
    """Its end, excluded: readings of other intervals are not taken apart, or together."""
    net_injection_kwh: Power
    """Energy over the interval [kWh], positive into the grid."""
    q_kvarh: Power | None = None
    """Reactive energy [kvarh]; left out: as awarded."""


READING: TypeAdapter[Reading] = TypeAdapter(Reading)
COLUMNS = tuple(Reading.model_fields)


class ReadingsIn(Body):
    """Many readings of a market."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"readings": [EXAMPLE]}]})

    readings: Annotated[list[SkipValidation[Reading]], Field(min_length=1, max_length=MOST_READINGS)]
    """The readings, each checked on its own; one of an interval that has a reading already is a correction of it."""


class ReadReading(Answer):
    """What became of the readings of a resource."""

    resource_id: str
    version: int
    """Version of all of its readings in this market."""
    is_new: bool
    """Whether a reading differs from those of the version before."""


class ReadingsReceipt(Answer):
    """Proof that readings are on disk."""

    received_at: str
    readings: int
    items: list[ReadReading]


class SeriesOut(Answer):
    """A version of all readings of a resource in a market."""

    resource_id: str
    resource: str
    version: int
    is_current: bool
    received_at: str
    net_injection_kwh: list[float | None]
    """Energy in each interval [kWh]; null where there is no reading."""
    q_kvarh: list[float | None]
