"""The one clock of the service, injected so that tests can step it back and forth."""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""Gives the time now: aware, UTC."""


def system_clock() -> datetime:
    """Return the time of this machine, UTC."""
    return datetime.now(UTC)


def rfc3339(time: datetime) -> str:
    """Write a time as RFC 3339 in UTC with a ``Z``; fractions of a second only where there are any."""
    text = time.astimezone(UTC).isoformat()
    return text.replace("+00:00", "Z")


def rfc3339_or_none(time: datetime | None) -> str | None:
    """Write a time that may not have come."""
    return None if time is None else rfc3339(time)
