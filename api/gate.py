"""The gate of a market, half-open ``[opens, closes)``, and the state of a market at a time.

The clock decides, but only forward: what has been seen open or closed is latched in the market's row, so that a clock
that steps back neither closes an open gate nor opens a closed one.
"""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

SCHEDULED, OPEN, CLOSED = "scheduled", "open", "closed"


def state_at(market: Any, now: datetime) -> str:
    """State of a market, a row of the table ``markets``, at the time `now`."""
    if market.stage is not None:
        return str(market.stage)
    if market.closed_at is not None or now >= market.gate_closes_at:
        return CLOSED
    if market.opened_at is not None or now >= market.gate_opens_at:
        return OPEN
    return SCHEDULED


def trade_day(trade_date: date, timezone: str) -> tuple[datetime, datetime]:
    """Begin and end of a day on the market's own clock, UTC: 23, 24 or 25 hours apart."""
    zone = ZoneInfo(timezone)
    first, last = (
        datetime.combine(day, time(), tzinfo=zone).astimezone(UTC) for day in (trade_date, trade_date + timedelta(1))
    )
    return first, last


def interval_of(market: Any, moment: datetime) -> int | None:
    """Number of the interval that begins at `moment`, the end of the last one included; None where none does."""
    minutes = (moment - market.starts_at) / timedelta(minutes=market.interval_minutes)
    return int(minutes) if minutes == int(minutes) and 0 <= minutes <= market.intervals else None


def interval_start(market: Any, interval: int) -> datetime:
    """When `interval` begins."""
    begins: datetime = market.starts_at + timedelta(minutes=market.interval_minutes * interval)
    return begins
