"""What a bid is checked against: its market, its resource, and what else that resource offers there."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Connection, exists, func, select

from api.clock import Clock, rfc3339
from api.errors import Fault
from api.gate import CLOSED, LATCHES, OPEN, SCHEDULED, Seen, gate_of, interval_of, interval_start, is_new, state_at
from api.schemas.bids import MOST_SEGMENTS
from api.schemas.common import POWER_DECIMALS
from api.store.columns import is_one_of
from api.store.tables import IS_LIVE, bids, feeders, markets, participants, resources, runs, submissions

SUPPLY, DEMAND = "supply", "demand"
ENERGY, SELF_SCHEDULE = "energy", "self_schedule"
REAL = (ENERGY, SELF_SCHEDULE)
MOST_KEPT = 20_000
"""Most resources in markets whose standing bids are kept in memory."""
GATE_FAULTS = {SCHEDULED: "gate_not_open", CLOSED: "gate_closed"}


@dataclass(frozen=True)
class Terms:
    """What a bid offers, sound by itself.

    Parameters
    ----------
    market_id, resource_id
        Where, and who.
    starts_at, ends_at
        Its intervals, half-open.
    product
        What is offered.
    offer
        The rest, as a document: side, segments, quantity, price.
    """

    market_id: str
    resource_id: str
    starts_at: datetime
    ends_at: datetime
    product: str
    offer: Mapping[str, Any]


@dataclass(frozen=True)
class Standing:
    """A bid that stands, from interval `first` to `last`, both included."""

    id: str
    market_id: str
    resource_id: str
    first: int
    last: int
    product: str
    offer: Mapping[str, Any]

    @property
    def side(self) -> str:
        """``supply``, ``demand``, or blank."""
        return str(self.offer.get("side", ""))

    @property
    def quantity(self) -> float:
        """All that it offers [kW], [kvar]."""
        return quantity_of(self.offer)


def quantity_of(offer: Mapping[str, Any]) -> float:
    """Return all that is offered [kW], [kvar]."""
    if "segments" in offer:
        return float(sum(part["quantity_kw"] for part in offer["segments"]))
    return float(offer["quantity_kw"] if "quantity_kw" in offer else offer["quantity"])


def segments_of(offer: Mapping[str, Any]) -> int:
    """Return how many segments of a curve are offered; all of a self-schedule is one."""
    return len(offer.get("segments", (offer,)))


def prices_of(offer: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Every price of an offer, with its pointer."""
    for number, part in enumerate(offer.get("segments", ())):
        for name in ("price_usd_per_mwh", "price_end_usd_per_mwh"):
            if part.get(name) is not None:
                yield f"/segments/{number}/{name}", part[name]
    if "price_usd_per_mw_h" in offer:
        yield "/price_usd_per_mw_h", offer["price_usd_per_mw_h"]


HAS_RUN = exists().where(runs.c.market_id == markets.c.id)
MARKETS = select(markets, HAS_RUN.label("has_run")).where(is_one_of(markets.c.id, "names"))
RESOURCES = select(resources).where(is_one_of(resources.c.id, "names"))
STANDING = select(
    *(bids.c.id, bids.c.market_id, bids.c.resource_id, bids.c.first_interval, bids.c.last_interval),
    *(bids.c.product, bids.c.terms),
).where(IS_LIVE, is_one_of(bids.c.market_id, "markets"), is_one_of(bids.c.resource_id, "resources"))
COUNTS = (
    select(bids.c.participant_id, bids.c.market_id, func.count())
    .where(IS_LIVE, is_one_of(bids.c.market_id, "markets"), is_one_of(bids.c.participant_id, "owners"))
    .group_by(bids.c.participant_id, bids.c.market_id)
)
LAST = select(func.max(submissions.c.number)).where(submissions.c.participant_id == participants.c.id)
NUMBERS = select(participants.c.id, LAST.scalar_subquery()).where(is_one_of(participants.c.id, "owners"))


class Book:
    """Markets, resources and standing bids; kept up as bids are accepted one after another.

    What has been read stays true as long as nobody else writes, and whoever writes moves the head of the audit chain:
    a book that finds the head where it left it goes on with what it knows, and forgets everything otherwise.
    """

    def __init__(self, most_bids: int, clock: Clock):
        self._most_bids, self._clock = most_bids, clock
        self._forget()

    def _forget(self) -> None:
        self._head = ""
        self.markets: dict[str, Any] = {}
        self.seen: list[Seen] = []
        """Gates that were seen in a state for the first time, to be latched."""
        self._resources: dict[str, Any] = {}
        self._nodes: dict[str, frozenset[tuple[str, str]]] = {}
        self._standing: dict[tuple[str, str], dict[str, Standing]] = {}
        self._count: dict[tuple[str, str], int] = {}
        self.numbers: dict[str, int] = {}
        """Number of the last submission of participants."""

    def open(self, connection: Connection, head: str, terms: Iterable[Terms], owners: Iterable[str]) -> None:
        """Read what `terms` and `owners` need and the book does not know at the `head` of the chain."""
        if head != self._head or len(self._standing) > MOST_KEPT:
            self._forget()
        self._head = ""  # should the work be broken off, what it has changed here is forgotten
        wanted, who = list(terms), set(owners)
        self._read_things({one.market_id for one in wanted}, {one.resource_id for one in wanted}, connection)
        pairs = {
            (one.market_id, one.resource_id)
            for one in wanted
            if one.market_id in self.markets and one.resource_id in self._resources
        }
        self._read_standing(pairs - self._standing.keys(), connection)
        counts = {(owner, market) for owner in who for market in {market for market, _ in pairs}}
        self._read_counts(counts - self._count.keys(), connection)
        if unknown := who - self.numbers.keys():
            self.numbers |= {name: last or 0 for name, last in connection.execute(NUMBERS, {"owners": unknown})}

    def close(self, head: str) -> None:
        """Keep what is known for when the chain is found at `head` again; what was seen is latched by now."""
        self.seen.clear()
        self._head = head

    def _read_things(self, market_ids: set[str], resource_ids: set[str], connection: Connection) -> None:
        new_markets, new_resources = market_ids - self.markets.keys(), resource_ids - self._resources.keys()
        if new_markets:
            for row in connection.execute(MARKETS, {"names": new_markets}):
                self.markets[row.id] = SimpleNamespace(**row._mapping)
                self._nodes[row.feeder_id] = feeder_nodes(connection, row.feeder_id)
        if new_resources:
            self._resources |= {row.id: row for row in connection.execute(RESOURCES, {"names": new_resources})}

    def _read_standing(self, pairs: set[tuple[str, str]], connection: Connection) -> None:
        if not pairs:
            return
        for pair in pairs:
            self._standing[pair] = {}
        names = {"markets": {one for one, _ in pairs}, "resources": {one for _, one in pairs}}
        for row in connection.execute(STANDING, names):
            if (row.market_id, row.resource_id) in pairs:
                self.add(Standing(*row))

    def _read_counts(self, pairs: set[tuple[str, str]], connection: Connection) -> None:
        if not pairs:
            return
        self._count |= dict.fromkeys(pairs, 0)
        names = {"owners": {one for one, _ in pairs}, "markets": {one for _, one in pairs}}
        for owner, market, number in connection.execute(COUNTS, names):
            self._count[owner, market] = int(number)

    def add(self, bid: Standing) -> None:
        """Let `bid` stand."""
        self._standing.setdefault((bid.market_id, bid.resource_id), {})[bid.id] = bid

    def remove(self, market_id: str, resource_id: str, bid_id: str) -> Standing | None:
        """Take a bid out; return it."""
        return self._standing.get((market_id, resource_id), {}).pop(bid_id, None)

    def count(self, participant_id: str, market_id: str, more: int) -> None:
        """Count `more` bids of a participant in a market."""
        key = participant_id, market_id
        self._count[key] = self._count.get(key, 0) + more

    def gate_faults(self, market_id: str, received_at: datetime) -> list[Fault]:
        """What a change of a bid meets at the gate."""
        market = self.markets[market_id]
        if self._was_in_time(market, received_at):
            return []
        state = state_at(market, received_at)
        if is_new(market, state):
            self.seen.append(Seen({market_id: state}, received_at))
            setattr(market, LATCHES[state], received_at)
        if state == OPEN:
            return []
        code = GATE_FAULTS.get(state, GATE_FAULTS[CLOSED])
        return [Fault("/market_id", code, f"The market is {state}; its gate decides by the time of receipt.")]

    def _was_in_time(self, market: Any, received_at: datetime) -> bool:
        """Whether a change came before the closing of a gate that somebody has seen closed since.

        A clock that is behind that closing has stepped back, and tells nothing; a run has frozen what it found.
        """
        if market.closed_at is None or market.has_run or self._clock() < market.closed_at:
            return False
        opens_at, closes_at = gate_of(market)
        return opens_at <= received_at < closes_at

    def check(
        self, terms: Terms, participant_id: str, received_at: datetime, *, is_new: bool = True
    ) -> tuple[Standing | None, list[Fault]]:
        """Check a bid that is sound by itself; return it as it would stand, without a name, and what is wrong."""
        market, resource = self.markets.get(terms.market_id), self._resources.get(terms.resource_id)
        faults: list[Fault] = []
        if market is None:
            faults.append(Fault("/market_id", "unknown_market", "There is no such market."))
        if resource is None or resource.participant_id != participant_id or resource.retired_at is not None:
            faults.append(Fault("/resource_id", "unknown_resource", "You have no such resource."))
            resource = None
        if market is None:
            return None, faults
        faults += self.gate_faults(market.id, received_at)
        span, wrong = _intervals(market, terms)
        faults += wrong
        faults += _beyond_prices(market, terms)
        if is_new and self._count.get((participant_id, market.id), 0) >= self._most_bids:
            message = f"You have {self._most_bids} bids in this market, which is the most."
            faults.append(Fault("", "too_many_bids", message))
        if resource is None:
            return None, faults
        if resource.feeder != market.feeder:
            faults.append(Fault("/resource_id", "wrong_feeder", f"The market is on the feeder {market.feeder}."))
        elif (resource.bus, resource.phase) not in self._nodes[market.feeder_id]:
            message = f"The market's version of the feeder has no node {resource.bus} {resource.phase}."
            faults.append(Fault("/resource_id", "unknown_node", message))
        if span is None:
            return None, faults
        bid = Standing("", market.id, resource.id, *span, terms.product, terms.offer)
        others = self._standing.get((market.id, resource.id), {}).values()
        faults += _beside_others(market, resource, bid, [other for other in others if _meet(bid, other)])
        return bid, faults


def feeder_nodes(connection: Connection, feeder_id: str) -> frozenset[tuple[str, str]]:
    """Buses and phases at which resources of a feeder may stand; ``""`` is all phases of the bus."""
    if feeder_id not in _NODES:
        rows = connection.execute(select(feeders.c.nodes).where(feeders.c.id == feeder_id)).scalar_one()
        _NODES[feeder_id] = frozenset((bus, phase) for bus, phase in rows)
    return _NODES[feeder_id]


_NODES: dict[str, frozenset[tuple[str, str]]] = {}
"""Of feeders seen; a feeder does not change."""


def _intervals(market: Any, terms: Terms) -> tuple[tuple[int, int] | None, list[Fault]]:
    """First and last interval of a bid, and what is wrong with its times."""
    faults = []
    first, end = interval_of(market, terms.starts_at), interval_of(market, terms.ends_at)
    if first is None or first == market.intervals:
        faults.append(Fault("/interval_start", "off_grid", _grid(market)))
    if end is None:
        faults.append(Fault("/interval_end", "off_grid", _grid(market)))
    if terms.ends_at <= terms.starts_at:
        faults.append(Fault("/interval_end", "empty_span", "Must be after interval_start."))
    if faults or first is None or end is None:
        return None, faults
    return (first, end - 1), faults


def _grid(market: Any) -> str:
    begins, ends = (rfc3339(interval_start(market, number)) for number in (0, market.intervals))
    return f"Must be on the grid of {market.interval_minutes} minutes from {begins} to {ends}."


def _beyond_prices(market: Any, terms: Terms) -> list[Fault]:
    """Prices beyond the market's cap and floor."""
    message = f"Must be from {market.price_floor:g} to {market.price_cap:g}."
    return [
        Fault(pointer, "beyond_price_limits", message)
        for pointer, price in prices_of(terms.offer)
        if not market.price_floor <= price <= market.price_cap
    ]


def _meet(one: Standing, other: Standing) -> bool:
    return one.first <= other.last and other.first <= one.last


def _place(bid: Standing) -> str:
    return "/" + next(name for name in ("segments", "quantity_kw", "quantity") if name in bid.offer)


def _beside_others(market: Any, resource: Any, bid: Standing, others: Sequence[Standing]) -> list[Fault]:
    """What is wrong with a bid beside those of the same resource that share an interval with it."""
    twins = [other for other in others if (other.product, other.side) == (bid.product, bid.side)]
    faults = []
    if twins:
        message = f"Your bid {twins[0].id} offers the same in some of these intervals: amend it."
        faults.append(Fault("/interval_start", "overlaps", message))
    most, unit = _registered(resource, bid)
    real = [other for other in others if other.side == bid.side and other.product in REAL and bid.product in REAL]
    beside = [other for other in real if other not in twins]
    taken = max((_sum_at(beside, number) for number in range(bid.first, bid.last + 1)), default=0.0)
    if round(bid.quantity + taken - most, POWER_DECIMALS) > 0:
        message = f"Together with your other bids must be at most the registered {most:g} {unit}."
        faults.append(Fault(_place(bid), "beyond_registered", message))
    if any(segments_of(bid.offer) + segments_of(other.offer) > MOST_SEGMENTS for other in beside):
        message = f"A curve and a self-schedule have together at most {MOST_SEGMENTS} segments, of which it is one."
        faults.append(Fault(_place(bid), "too_many_segments", message))
    if bid.product == ENERGY:
        crossing = [other for other in others if other.product == ENERGY and other.side != bid.side]
        faults += [
            Fault("/segments", "crosses_own_bid", f"Demand must not be dearer than supply: see your bid {other.id}.")
            for other in crossing
            if _cross(bid, other)
        ]
    return faults


def _sum_at(standing: Sequence[Standing], interval: int) -> float:
    return sum(bid.quantity for bid in standing if bid.first <= interval <= bid.last)


def _registered(resource: Any, bid: Standing) -> tuple[float, str]:
    """Return the most that the registered limits of a resource allow of a bid, and its unit."""
    limits = resource.limits
    if bid.product in REAL:
        return (limits["p_max_kw"] if bid.side == SUPPLY else -limits["p_min_kw"]), "kW"
    if bid.product.startswith("var"):
        return limits["q_max_kvar"] - limits["q_min_kvar"], "kvar"
    return limits["p_max_kw"] - limits["p_min_kw"], "kW"


def _cross(one: Standing, other: Standing) -> bool:
    """Return whether the dearest demand of two curves is above the cheapest supply."""
    supply, demand = (one, other) if one.side == SUPPLY else (other, one)
    cheapest = min(price for _, price in prices_of(supply.offer))
    return max(price for _, price in prices_of(demand.offer)) > cheapest
