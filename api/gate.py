"""The gate of a market, half-open ``[opens, closes)``, and the state of a market at a time.

The clock decides, but only forward: what has been seen open or closed is latched in the market's row, so that a clock
that steps back neither closes an open gate nor opens a closed one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, and_, or_, select, update

from api.errors import Conflict, Fault
from api.outbox import EventName, announce
from api.store.audit import Chain, Entry
from api.store.rows import row_of
from api.store.tables import markets
from api.store.vouching import vouch_again

SCHEDULED, OPEN, CLOSED = "scheduled", "open", "closed"
LATCHES = {OPEN: "opened_at", CLOSED: "closed_at"}
"""Columns that keep when a gate was first seen in a state."""
BEFORE = {OPEN: SCHEDULED, CLOSED: OPEN}
EVENT_OF: Mapping[str, EventName] = {OPEN: "market.open", CLOSED: "market.closed"}
CLOCK = "clock"
"""Who moves a gate that opens or closes by its time."""


def state_at(market: Any, now: datetime) -> str:
    """State of a market, a row of the table ``markets``, at the time `now`."""
    if market.stage is not None:
        return str(market.stage)
    if market.closed_at is not None or now >= market.gate_closes_at:
        return CLOSED
    if market.opened_at is not None or now >= market.gate_opens_at:
        return OPEN
    return SCHEDULED


def is_new(market: Any, state: str) -> bool:
    """Whether a market's row does not tell yet that its gate has been seen in `state`."""
    return state in LATCHES and getattr(market, LATCHES[state]) is None


@dataclass(frozen=True)
class Step:
    """A market that is to be moved on, by whom and when."""

    market_id: str
    actor: str
    at: datetime


@dataclass(frozen=True)
class Seen:
    """Gates that were seen at a time, by the name of their market."""

    states: Mapping[str, str]
    at: datetime


def latch(connection: Connection, chain: Chain, seen: Seen) -> None:
    """Keep in which states gates were seen, unless it is kept already."""
    for market in connection.execute(select(markets).where(markets.c.id.in_(list(seen.states)))).all():
        state = seen.states[market.id]
        if market.stage is None and market.closed_at is None and is_new(market, state):
            _move(connection, chain, market, Step(market.id, CLOCK, seen.at), state)


def unseen_gates(connection: Connection, now: datetime) -> dict[str, str]:
    """States of gates that have opened or closed by their time while nobody looked, by the name of their market."""
    closes = markets.c.gate_closes_at <= now
    opens = and_(markets.c.opened_at.is_(None), markets.c.gate_opens_at <= now)
    has_no_stage = and_(markets.c.stage.is_(None), markets.c.closed_at.is_(None))
    found = connection.execute(select(markets).where(has_no_stage, or_(closes, opens))).all()
    return {market.id: state_at(market, now) for market in found}


def open_market(connection: Connection, chain: Chain, step: Step) -> None:
    """Open a gate before its time; raises `NotFound` and `Conflict`."""
    _move_by_hand(connection, chain, step, OPEN)


def close_market(connection: Connection, chain: Chain, step: Step) -> None:
    """Close a gate before its time; raises `NotFound` and `Conflict`."""
    _move_by_hand(connection, chain, step, CLOSED)


def _move_by_hand(connection: Connection, chain: Chain, step: Step, state: str) -> None:
    market = row_of(connection, markets, step.market_id)
    now = state_at(market, step.at)
    if now != BEFORE[state]:
        raise Conflict("wrong_state", f"The market is {now}, not {BEFORE[state]}.")
    _move(connection, chain, market, step, state)


def _move(connection: Connection, chain: Chain, market: Any, step: Step, state: str) -> None:
    """Keep that the gate of `market` is in `state` from now on."""
    own = markets.c.id == step.market_id
    connection.execute(update(markets).where(own).values({LATCHES[state]: step.at}))
    rows, before = vouch_again(connection, markets, own), {"state": BEFORE[state]}
    entry = Entry(step.at, step.actor, f"market.{state}", step.market_id, {"state": state}, before, rows)
    chain.append(connection, [entry])
    planned = market.gate_opens_at if state == OPEN else market.gate_closes_at
    announce(connection, EVENT_OF[state], market, step.at, min(planned, step.at))


def gate_of(market: Any) -> tuple[datetime, datetime]:
    """When the gate of a market opens and closes: by its times, or by hand before them."""
    times = ((market.opened_at, market.gate_opens_at), (market.closed_at, market.gate_closes_at))
    opens, closes = (planned if by_hand is None else min(by_hand, planned) for by_hand, planned in times)
    return opens, closes


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


def over_intervals(values: Sequence[float], intervals: int, pointer: str) -> tuple[list[float], list[Fault]]:
    """A value for each interval, where one may stand for all, and what is wrong with their number."""
    if len(values) not in (1, intervals):
        message = f"Must have {intervals} values, or one for all intervals."
        return list(values), [Fault(pointer, "wrong_length", message)]
    return list(values) * intervals if len(values) == 1 else list(values), []


def interval_start(market: Any, interval: int) -> datetime:
    """When `interval` begins."""
    begins: datetime = market.starts_at + timedelta(minutes=market.interval_minutes * interval)
    return begins
