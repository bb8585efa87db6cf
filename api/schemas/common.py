"""Strict bodies: no unknown fields, no text for numbers, no booleans for numbers, nothing that is not finite."""

import re
from datetime import UTC, date, datetime
from typing import Annotated, Any, Generic, TypeVar
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

RFC3339 = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,6})?Z")
DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
PRICE_DECIMALS, POWER_DECIMALS, SHARE_DECIMALS = 5, 3, 5
LARGEST_NUMBER = 1e9
ID_PATTERN = r"^[a-z]{2,4}_[0-9a-f]{24}$"
Item = TypeVar("Item")


class Body(BaseModel):
    """What a client sends."""

    model_config = ConfigDict(
        strict=True, extra="forbid", allow_inf_nan=False, frozen=True, use_attribute_docstrings=True
    )


class Answer(BaseModel):
    """What the service answers."""

    model_config = ConfigDict(frozen=True, from_attributes=True, use_attribute_docstrings=True)


class Page(Answer, Generic[Item]):
    """Some of many things, and where the next page begins."""

    items: list[Item]
    next_cursor: str | None


def _time(value: Any) -> datetime:
    if isinstance(value, str) and RFC3339.fullmatch(value):
        try:
            return datetime.fromisoformat(value).astimezone(UTC)
        except ValueError:
            pass
    raise PydanticCustomError("not_a_time", "must be a time in UTC such as 2026-07-01T07:00:00Z")


def _date(value: Any) -> date:
    if isinstance(value, str) and DATE.fullmatch(value):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    raise PydanticCustomError("not_a_date", "must be a date such as 2026-07-01")


def _decimals(most: int) -> AfterValidator:
    def check(value: float) -> float:
        if round(value, most) != value:
            raise PydanticCustomError("too_many_decimals", "must have at most {most} decimals", {"most": most})
        return value

    return AfterValidator(check)


def _timezone(value: str) -> str:
    if value not in available_timezones():
        raise PydanticCustomError("unknown_timezone", "must be an IANA time zone such as America/Los_Angeles")
    return value


def _printable(value: str) -> str:
    if not value.isprintable() or value != value.strip():
        raise PydanticCustomError("not_printable", "must be printable text without blanks at its ends")
    return value


Time = Annotated[
    datetime, BeforeValidator(_time), WithJsonSchema({"type": "string", "format": "date-time", "pattern": "Z$"})
]
Day = Annotated[date, BeforeValidator(_date), WithJsonSchema({"type": "string", "format": "date"})]
TimeZone = Annotated[str, AfterValidator(_timezone)]
Price = Annotated[float, Field(ge=-LARGEST_NUMBER, le=LARGEST_NUMBER), _decimals(PRICE_DECIMALS)]
Power = Annotated[float, Field(ge=-LARGEST_NUMBER, le=LARGEST_NUMBER), _decimals(POWER_DECIMALS)]
Quantity = Annotated[float, Field(gt=0, le=LARGEST_NUMBER), _decimals(POWER_DECIMALS)]
Amount = Annotated[float, Field(ge=0, le=LARGEST_NUMBER), _decimals(POWER_DECIMALS)]
Share = Annotated[float, Field(ge=0.01, le=1), _decimals(SHARE_DECIMALS)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=100), AfterValidator(_printable)]
Id = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
