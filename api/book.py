"""What a bid is checked against: its market, its resource, and what else that resource offers there."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Connection, bindparam, case, exists, func, select

from api.clock import Clock, rfc3339
from api.coupled import coupled_faults
from api.errors import Fault
from api.gate import CLOSED, LATCHES, OPEN, SCHEDULED, Seen, gate_of, interval_of, interval_start, is_new, state_at
from api.offers import (
    BLOCK,
    COUPLED,
    ENERGY,
    INTO,
    REACTIVE,
    REAL,
    REAL_POWER,
    Standing,
    Terms,
    prices_of,
    quantity_name,
    segments_of,
)
from api.schemas.bids import MOST_SEGMENTS
from api.schemas.common import POWER_DECIMALS
from api.store.audit import Chain
from api.store.columns import is_one_of
from api.store.tables import (
    IS_LIVE,
    LIVE,
    WITHDRAWN,
    audit,
    bids,
    feeders,
    markets,
    participants,
    resources,
    runs,
    submissions,
)

MOST_KEPT = 20_000
"""Most resources, and most resources in markets whose standing bids are kept in memory."""
MOST_FOLLOWED = 128
"""Most submissions of others that are followed; after more, what is needed is read anew."""
GATE_FAULTS = {SCHEDULED: "gate_not_open", CLOSED: "gate_closed"}


HAS_RUN = exists().where(runs.c.market_id == markets.c.id)
MARKETS = select(markets, HAS_RUN.label("has_run")).where(is_one_of(markets.c.id, "names"))
RESOURCES = select(resources).where(is_one_of(resources.c.id, "names"))
OF_STANDING = (
    *(bids.c.id, bids.c.market_id, bids.c.resource_id, bids.c.first_interval, bids.c.last_interval),
    *(bids.c.product, bids.c.terms),
)
STANDING = select(*OF_STANDING).where(
    IS_LIVE, is_one_of(bids.c.market_id, "markets"), is_one_of(bids.c.resource_id, "resources")
)
COUNTS = (
    select(bids.c.participant_id, bids.c.market_id, func.count(), func.sum(case((bids.c.product == BLOCK, 1), else_=0)))
    .where(IS_LIVE, is_one_of(bids.c.market_id, "markets"), is_one_of(bids.c.participant_id, "owners"))
    .group_by(bids.c.participant_id, bids.c.market_id)
)
LAST = select(func.max(submissions.c.number)).where(submissions.c.participant_id == participants.c.id)
SINCE = select(audit.c.sequence, audit.c.hash, audit.c.after).where(audit.c.sequence >= bindparam("sequence"))
SINCE = SINCE.order_by(audit.c.sequence)
VERSIONS = select(*OF_STANDING, bids.c.participant_id, bids.c.state).where(is_one_of(bids.c.id, "names"))
VERSIONS = VERSIONS.order_by(bids.c.version)
NUMBERS = select(participants.c.id, LAST.scalar_subquery()).where(is_one_of(participants.c.id, "owners"))


class Book:
    """Markets, resources and standing bids; kept up as bids are accepted one after another.

    What has been read stays true as long as nobody else writes, and whoever writes moves the head of the audit chain.
    A book that finds the head where it left it goes on with what it knows.  Where the chain has grown by submissions
    alone, as with another worker beside this one, it follows them: it counts their bids, and lets those stand that now
    do.  It forgets everything otherwise.
    """

    def __init__(self, most_bids: int, most_blocks: int, clock: Clock):
        self._most_bids, self._most_blocks, self._clock = most_bids, most_blocks, clock
        self._forget()

    def _forget(self) -> None:
        self._head: Chain | None = None
        self.markets: dict[str, Any] = {}
        self.seen: list[Seen] = []
        """Gates that were seen in a state for the first time, to be latched."""
        self._resources: dict[str, Any] = {}
        self._nodes: dict[str, frozenset[tuple[str, str]]] = {}
        self._standing: dict[tuple[str, str], dict[str, Standing]] = {}
        self._count: dict[tuple[str, str], tuple[int, int]] = {}
        self.numbers: dict[str, int] = {}
        """Number of the last submission of participants."""

    def open(self, connection: Connection, head: Chain, terms: Iterable[Terms], owners: Iterable[str]) -> None:
        """Read what `terms` and `owners` need and the book does not know at the `head` of the chain."""
        known, self._head = self._head, None  # should the work be broken off, what it has changed here is forgotten
        is_small = max(len(self._standing), len(self._resources)) <= MOST_KEPT
        if known is None or not is_small or not self._follow(connection, known, head):
            self._forget()
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

    def close(self, head: Chain) -> None:
        """Keep what is known for when the chain is found at `head` again; what was seen is latched by now."""
        self.seen.clear()
        self._head = replace(head)

    def _follow(self, connection: Connection, known: Chain, head: Chain) -> bool:
        """Take in what others have written since the chain was at `known`; False where it is more than submissions."""
        grown = head.sequence - known.sequence
        if not 0 <= grown <= MOST_FOLLOWED or grown != head.submissions - known.submissions:
            return False
        if grown == 0:
            return head.hash == known.hash
        own, *others = connection.execute(SINCE, {"sequence": known.sequence}).all()
        if (own.sequence, own.hash) != (known.sequence, known.hash):
            return False
        changes = [bid for entry in others for bid in entry.after["bids"]]
        versions = connection.execute(VERSIONS, {"names": {bid["bid_id"] for bid in changes}})
        bid_of = {row.id: row for row in versions}
        for entry in others:
            owner = bid_of[entry.after["bids"][0]["bid_id"]].participant_id
            if owner in self.numbers:
                self.numbers[owner] += 1
        for bid in bid_of.values():
            if (standing := self._standing.get((bid.market_id, bid.resource_id))) is not None:
                standing.pop(bid.id, None)
                if bid.state == LIVE:
                    self.add(Standing(*bid[: len(OF_STANDING)]))
        for change in changes:
            bid = bid_of[change["bid_id"]]
            if (bid.participant_id, bid.market_id) in self._count:
                is_placed, is_withdrawn = change["version"] == 1, change["state"] == WITHDRAWN
                self.count(bid.participant_id, bid, -1 if is_withdrawn else int(is_placed))
        return True

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
        self._count |= dict.fromkeys(pairs, (0, 0))
        names = {"owners": {one for one, _ in pairs}, "markets": {one for _, one in pairs}}
        for owner, market, number, blocks in connection.execute(COUNTS, names):
            self._count[owner, market] = int(number), int(blocks)

    def add(self, bid: Standing) -> None:
        """Let `bid` stand."""
        self._standing.setdefault((bid.market_id, bid.resource_id), {})[bid.id] = bid

    def remove(self, market_id: str, resource_id: str, bid_id: str) -> Standing | None:
        """Take a bid out; return it."""
        return self._standing.get((market_id, resource_id), {}).pop(bid_id, None)

    def count(self, participant_id: str, bid: Any, more: int) -> None:
        """Count `more` bids such as `bid` of a participant in its market."""
        key = participant_id, bid.market_id
        number, blocks = self._count.get(key, (0, 0))
        self._count[key] = number + more, blocks + more * (bid.product == BLOCK)

    def _too_many(self, participant_id: str, terms: Terms) -> list[Fault]:
        number, blocks = self._count.get((participant_id, terms.market_id), (0, 0))
        faults = []
        if number >= self._most_bids:
            message = f"You have {self._most_bids} bids in this market, which is the most."
            faults.append(Fault("", "too_many_bids", message))
        if terms.product == BLOCK and blocks >= self._most_blocks:
            message = f"You have {self._most_blocks} blocks in this market, which is the most."
            faults.append(Fault("", "too_many_blocks", message))
        return faults

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
        faults += _beside_blocks(market, terms)
        if is_new:
            faults += self._too_many(participant_id, terms)
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
        standing = self._standing.get((market.id, resource.id), {}).values()
        if bid.product in COUPLED:
            return bid, faults + _not_alone(bid, standing) + coupled_faults(bid, market, resource.limits)
        first, last = span
        others = [
            other for other in standing if (other.first <= last and first <= other.last) or other.product in COUPLED
        ]
        return bid, faults + _not_alone(bid, others) + _beside_others(resource, bid, others)


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


def _beside_blocks(market: Any, terms: Terms) -> list[Fault]:
    """What a market's taking block bids, or not, forbids: beside them prices do not rise along a segment of energy."""
    if terms.product == BLOCK and not market.takes_blocks:
        return [Fault("/product", "blocks_not_taken", "This market takes no block bids.")]
    if terms.product != ENERGY or not market.takes_blocks:
        return []
    message = "Must be the price at the beginning, or be left out: this market takes block bids."
    return [
        Fault(f"/segments/{number}/price_end_usd_per_mwh", "sloped_beside_blocks", message)
        for number, part in enumerate(terms.offer["segments"])
        if part["price_end_usd_per_mwh"] not in (None, part["price_usd_per_mwh"])
    ]


def _not_alone(bid: Standing, others: Iterable[Standing]) -> list[Fault]:
    """What a bid of real power meets that a coupled bid of its resource excludes, or that excludes it."""
    excluded = REAL_POWER if bid.product in COUPLED else COUPLED if bid.product in REAL_POWER else ()
    for other in others:
        if other.product in excluded:
            message = "A store, deadline load or energy band is alone with the real power of its resource in a market"
            return [Fault("/product", "not_alone", f"{message}: see your bid {other.id}.")]
    return []


def _beside_others(resource: Any, bid: Standing, others: Sequence[Standing]) -> list[Fault]:
    """What is wrong with a bid beside those of the same resource that share an interval with it, or are coupled."""
    twins = [other for other in others if (other.product, other.side) == (bid.product, bid.side)]
    faults = []
    if twins and bid.product != BLOCK:
        message = f"Your bid {twins[0].id} offers the same in some of these intervals: amend it."
        faults.append(Fault("/interval_start", "overlaps", message))
    place = f"/{quantity_name(bid.offer)}"
    most, unit = _registered(resource, bid)
    real = [other for other in others if other.side == bid.side and other.product in REAL and bid.product in REAL]
    beside = [other for other in real if other not in twins]
    taken = max((_sum_at(beside, number) for number in range(bid.first, bid.last + 1)), default=0.0)
    if round(bid.quantity + taken - most, POWER_DECIMALS) > 0:
        message = f"Together with your other bids must be at most the registered {most:g} {unit}."
        faults.append(Fault(place, "beyond_registered", message))
    if any(segments_of(bid.offer) + segments_of(other.offer) > MOST_SEGMENTS for other in beside):
        message = f"A curve and a self-schedule have together at most {MOST_SEGMENTS} segments, of which it is one."
        faults.append(Fault(place, "too_many_segments", message))
    if bid.product in (ENERGY, REACTIVE):
        crossing = [other for other in others if other.product == bid.product and other.side != bid.side]
        message = "What you buy must not be dearer than what you sell"
        faults += [
            Fault("/segments", "crosses_own_bid", f"{message}: see your bid {other.id}.")
            for other in crossing
            if _cross(bid, other)
        ]
    return faults


def _sum_at(standing: Sequence[Standing], interval: int) -> float:
    return sum(bid.quantity for bid in standing if bid.first <= interval <= bid.last)


def _registered(resource: Any, bid: Standing) -> tuple[float, str]:
    """Return the most that the registered limits of a resource allow of a bid, and its unit."""
    limits = resource.limits
    if bid.product in (*REAL, BLOCK):
        return (limits["p_max_kw"] if bid.side in INTO else -limits["p_min_kw"]), "kW"
    if bid.product == REACTIVE:
        return (limits["q_max_kvar"] if bid.side in INTO else -limits["q_min_kvar"]), "kvar"
    if bid.product.startswith("var"):
        return limits["q_max_kvar"] - limits["q_min_kvar"], "kvar"
    return limits["p_max_kw"] - limits["p_min_kw"], "kW"


def _cross(one: Standing, other: Standing) -> bool:
    """Return whether the dearest demand of two curves is above the cheapest supply, of real or of reactive power."""
    supply, demand = (one, other) if one.side in INTO else (other, one)
    cheapest = min(price for _, price in prices_of(supply.offer))
    return max(price for _, price in prices_of(demand.offer)) > cheapest
