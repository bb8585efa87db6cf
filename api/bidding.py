"""Submissions of bids: placed, amended and withdrawn, each decided by the server's receipt time.

A submission is carried out once for its idempotency key; sent again it gives the same answer.  All that is wrong with
it comes back at once.  Nothing that is refused is stored.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property, partial
from typing import Any

from sqlalchemy import Connection, Text, and_, select, type_coerce, update

from api.book import GATE_FAULTS, Book
from api.clock import Clock, rfc3339
from api.errors import Conflict, Fault, NotFound, PreconditionFailed, Refusal, Unprocessable
from api.gate import gate_of, latch
from api.identity import BID, SUBMISSION, new_id
from api.offers import Standing, Terms
from api.store.audit import Chain, Entry
from api.store.columns import Kept, canonical_json, is_one_of, time_text
from api.store.rows import add
from api.store.tables import LIVE, SUPERSEDED, WITHDRAWN, bids, submissions
from api.store.vouching import vouch
from api.store.writer import Handler

ACCEPTED, PARTLY_ACCEPTED, REFUSED = "accepted", "partly_accepted", "refused"
CREATED, DONE, MULTI_STATUS = 201, 200, 207
OFFERED = ("id", "market_id", "resource_id", "first_interval", "last_interval", "product")
"""Columns of a bid that its hash covers, before its terms."""
ANSWERED = select(
    *(submissions.c.participant_id, submissions.c.idempotency_key, submissions.c.request_sha256),
    *(submissions.c.status, type_coerce(submissions.c.response, Text).label("response")),
).where(is_one_of(submissions.c.participant_id, "owners"), is_one_of(submissions.c.idempotency_key, "keys"))
TARGETS = select(bids).where(is_one_of(bids.c.id, "names")).order_by(bids.c.version)


@dataclass(frozen=True)
class Place:
    """Place a new bid; without `terms` it is refused for its `faults`."""

    terms: Terms | None
    faults: Sequence[Fault] = ()


@dataclass(frozen=True)
class Amend:
    """Put a new version in place of version `expected` of a bid; without `terms` it is withdrawn."""

    bid_id: str
    expected: int
    terms: Terms | None


@dataclass(frozen=True)
class Submission:
    """What a participant sent at once.

    Parameters
    ----------
    participant_id, key_id
        Who sent it, with which key.
    idempotency_key
        The participant's own name for it.
    content
        The body as it was received.
    received_at
        When the server had all of it.
    changes
        What it asks for.
    is_atomic
        All of it or nothing; otherwise each change on its own.
    is_batch
        The changes are items of a list ``bids``.
    """

    participant_id: str
    key_id: str
    idempotency_key: str
    content: bytes = field(repr=False)
    received_at: datetime
    changes: Sequence[Place | Amend]
    is_atomic: bool = True
    is_batch: bool = False

    @cached_property
    def content_sha256(self) -> str:
        """SHA-256 of the body."""
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def request_sha256(self) -> str:
        """SHA-256 of what tells a request from another: the body, and which versions it amends or withdraws."""
        amended = [one for one in self.changes if isinstance(one, Amend)]
        targets = [[one.bid_id, one.expected, one.terms is None] for one in amended]
        return hashlib.sha256(f"{self.content_sha256} {canonical_json(targets)}".encode()).hexdigest()


@dataclass(frozen=True)
class Reply:
    """Status code and document of an answer, as it is kept; `is_again` where it had been given before."""

    status: int
    document: str
    is_again: bool = False


@dataclass(frozen=True)
class _Version:
    """A version of a bid that is accepted, and the state of the one before it."""

    participant_id: str
    number: int
    bid: Standing
    previous_state: str | None = None

    @property
    def is_withdrawal(self) -> bool:
        return self.previous_state == WITHDRAWN


def submission_handler(most_bids: int, most_blocks: int, clock: Clock) -> Handler:
    """Make the writer's handler of submissions; a participant may have `most_bids`, and `most_blocks`, in a market."""
    return partial(accept, book=Book(most_bids, most_blocks, clock))


def accept(connection: Connection, chain: Chain, group: Sequence[Submission], *, book: Book) -> list[Reply | Refusal]:
    """Carry out submissions in the order in which they came; one reply or refusal for each."""
    answered = _answered(connection, group)
    targets = _targets(connection, group)
    wanted = [change.terms for one in group for change in one.changes if change.terms is not None]
    wanted += [_terms_of(row) for row in targets.values()]
    book.open(connection, chain, wanted, {one.participant_id for one in group})
    ledger = _Ledger(book, targets)
    replies: list[Reply | Refusal] = []
    for one in group:
        key = one.participant_id, one.idempotency_key
        if key in answered:
            replies.append(_again(one, *answered[key]))
            continue
        reply = ledger.decide(one, chain)
        replies.append(reply)
        if isinstance(reply, Reply):
            answered[key] = one.request_sha256, reply
    ledger.write(connection, chain)
    book.close(chain)
    return replies


def _answered(connection: Connection, group: Sequence[Submission]) -> dict[tuple[str, str], tuple[str, Reply]]:
    """Hash of the request and reply of what has been carried out, by participant and idempotency key."""
    names = {"owners": {one.participant_id for one in group}, "keys": {one.idempotency_key for one in group}}
    return {
        (row.participant_id, row.idempotency_key): (row.request_sha256, Reply(row.status, row.response))
        for row in connection.execute(ANSWERED, names)
    }


def _again(one: Submission, request_sha256: str, reply: Reply) -> Reply | Refusal:
    if request_sha256 != one.request_sha256:
        message = "This Idempotency-Key was used for another request; take a new one."
        return Unprocessable([], code="idempotency_key_reused", detail=message)
    return Reply(reply.status, reply.document, is_again=True)


def _targets(connection: Connection, group: Sequence[Submission]) -> dict[str, Any]:
    """Newest version of every bid that is to be amended."""
    ids = {change.bid_id for one in group for change in one.changes if isinstance(change, Amend)}
    if not ids:
        return {}
    return {row.id: row for row in connection.execute(TARGETS, {"names": ids})}


def _terms_of(row: Any) -> Terms:
    return Terms(row.market_id, row.resource_id, row.received_at, row.received_at, row.product, row.terms)


class _Ledger:
    """What a group of submissions changes; written at once at its end."""

    def __init__(self, book: Book, targets: dict[str, Any]):
        self._book = book
        self._targets = targets
        self._submissions: list[dict[str, Any]] = []
        self._bids: list[dict[str, Any]] = []
        self._ended: list[tuple[str, int, str]] = []
        self._entries: list[Entry] = []

    def decide(self, one: Submission, chain: Chain) -> Reply | Refusal:
        """Accept or refuse a submission."""
        accepted: list[_Version] = []
        items: list[dict[str, Any]] = []
        refused: list[tuple[int, list[Fault]]] = []
        for number, change in enumerate(one.changes):
            try:
                version, faults = self._change(one, change)
            except Refusal as refusal:
                return refusal
            if version is None or faults:
                refused.append((number, faults))
                items.append(_refused(faults))
                continue
            self._stand(version)
            accepted.append(version)
            items.append({"status": ACCEPTED, "bid_id": version.bid.id, "version": version.number, "errors": []})
        if refused and (one.is_atomic or not accepted):
            for version in reversed(accepted):
                self._undo(version)
            return _refusal(one, refused)
        return self._accepted(one, chain, accepted, items)

    def _change(self, one: Submission, change: Place | Amend) -> tuple[_Version | None, list[Fault]]:
        if isinstance(change, Place):
            if change.terms is None:
                return None, list(change.faults)
            bid, faults = self._book.check(change.terms, one.participant_id, one.received_at)
            placed = None if bid is None else _Version(one.participant_id, 1, replace(bid, id=new_id(BID)))
            return placed, faults
        return self._amended(one, change)

    def _amended(self, one: Submission, change: Amend) -> tuple[_Version | None, list[Fault]]:
        row = self._targets.get(change.bid_id)
        if row is None or row.participant_id != one.participant_id:
            raise NotFound("bid")
        if row.state == WITHDRAWN:
            raise Conflict("bid_withdrawn", "The bid has been withdrawn.")
        if row.version != change.expected:
            raise PreconditionFailed("bid_changed", f"The bid is at version {row.version} by now: read it again.")
        closed = self._book.gate_faults(row.market_id, one.received_at)
        if change.terms is None:
            if closed:
                return None, closed
            own = self._book.remove(row.market_id, row.resource_id, row.id)
            return (None if own is None else _Version(one.participant_id, row.version, own, WITHDRAWN)), []
        same = (change.terms.market_id, change.terms.resource_id, change.terms.product)
        if same != (row.market_id, row.resource_id, row.product):
            message = "An amendment keeps market, resource and product: withdraw the bid and place another."
            return None, [Fault("", "other_bid", message)]
        own = self._book.remove(row.market_id, row.resource_id, row.id)
        bid, faults = self._book.check(change.terms, one.participant_id, one.received_at, is_new=False)
        if own is not None and (faults or bid is None):
            self._book.add(own)
        amended = (
            None if bid is None else _Version(one.participant_id, row.version + 1, replace(bid, id=row.id), SUPERSEDED)
        )
        return amended, faults

    def _stand(self, version: _Version) -> None:
        if not version.is_withdrawal:
            self._book.add(version.bid)
        more = {None: 1, SUPERSEDED: 0, WITHDRAWN: -1}[version.previous_state]
        self._book.count(version.participant_id, version.bid, more)

    def _undo(self, version: _Version) -> None:
        """Take a placed bid out again: amendments come one by one, so that they are never undone."""
        self._book.remove(version.bid.market_id, version.bid.resource_id, version.bid.id)
        self._book.count(version.participant_id, version.bid, -1)

    def _accepted(
        self, one: Submission, chain: Chain, accepted: Sequence[_Version], items: Sequence[dict[str, Any]]
    ) -> Reply:
        chain.submissions += 1
        sequence, name = chain.submissions, new_id(SUBMISSION)
        number = self._book.numbers[one.participant_id] = self._book.numbers[one.participant_id] + 1
        is_whole = len(accepted) == len(items)
        document = {
            "submission_id": name,
            "sequence": number,
            "received_at": rfc3339(one.received_at),
            "gates": {version.bid.market_id: self._gate(version.bid.market_id) for version in accepted},
            "content_sha256": one.content_sha256,
            "status": ACCEPTED if is_whole else PARTLY_ACCEPTED,
            "items": list(items),
        }
        is_new = accepted[0].previous_state is None
        status = MULTI_STATUS if not is_whole else CREATED if is_new else DONE
        response = Kept(canonical_json(document))
        row = {
            "sequence": sequence,
            "id": name,
            "participant_id": one.participant_id,
            "number": number,
            "key_id": one.key_id,
            "idempotency_key": one.idempotency_key,
            "content_sha256": one.content_sha256,
            "request_sha256": one.request_sha256,
            "received_at": Kept(time_text(one.received_at)),
            "status": status,
            "response": response,
        }
        self._submissions.append(row)
        rows = vouch(submissions, row)
        changed = [self._record(one, version, sequence, rows) for version in accepted]
        after = {"sequence": sequence, "content_sha256": one.content_sha256, "bids": changed}
        self._entries.append(Entry(one.received_at, one.key_id, "bids.submit", name, after, rows=rows))
        return Reply(status, response)

    def _record(self, one: Submission, version: _Version, sequence: int, rows: dict[str, str]) -> dict[str, object]:
        """Note a version for the tables, and its hash in `rows`; return what the audit chain keeps of it."""
        bid, row = version.bid, self._targets.get(version.bid.id)
        if row is not None and version.previous_state is not None:
            self._ended.append((row.id, row.version, version.previous_state))
        if version.is_withdrawal:
            self._targets[bid.id] = _Row(vars_of(row) | {"state": WITHDRAWN})
            return {"bid_id": bid.id, "version": version.number, "state": WITHDRAWN}
        terms = Kept(canonical_json(bid.offer))
        record: dict[str, Any] = {
            "id": bid.id,
            "version": version.number,
            "market_id": bid.market_id,
            "participant_id": version.participant_id,
            "resource_id": bid.resource_id,
            "product": bid.product,
            "first_interval": bid.first,
            "last_interval": bid.last,
            "terms": terms,
            "sequence": sequence,
            "received_at": Kept(time_text(one.received_at)),
            "state": LIVE,
        }
        record["content_sha256"] = bid_sha256(record, terms)
        self._bids.append(record)
        self._targets[bid.id] = _Row(record)
        rows |= vouch(bids, record)
        return {"bid_id": bid.id, "version": version.number, "state": LIVE}

    def _gate(self, market_id: str) -> dict[str, str]:
        opens_at, closes_at = gate_of(self._book.markets[market_id])
        return {"opens_at": rfc3339(opens_at), "closes_at": rfc3339(closes_at)}

    def write(self, connection: Connection, chain: Chain) -> None:
        """Write everything that was accepted, and which gates were seen open or closed."""
        for seen in self._book.seen:
            latch(connection, chain, seen)
        add(connection, submissions, self._submissions)
        add(connection, bids, self._bids)
        for name, version, state in self._ended:
            own = and_(bids.c.id == name, bids.c.version == version)
            connection.execute(update(bids).where(own).values(state=state))
        chain.append(connection, self._entries)


class _Row:
    """A row of ``bids`` that is not written yet."""

    def __init__(self, values: Mapping[str, Any]):
        self.__dict__.update(values)


def vars_of(row: Any) -> dict[str, Any]:
    """Columns of a row, written or not."""
    return dict(row.__dict__ if isinstance(row, _Row) else row._mapping)


def bid_sha256(bid: Mapping[str, Any], terms: str) -> str:
    """SHA-256 of what a bid, a row of ``bids``, offers with its `terms` as they are kept: for whom, when, and what."""
    head = canonical_json([bid[name] for name in OFFERED])
    return hashlib.sha256(f"{head[:-1]},{terms}]".encode()).hexdigest()


def _refused(faults: Sequence[Fault]) -> dict[str, Any]:
    return {"status": REFUSED, "bid_id": None, "version": None, "errors": [vars(fault) for fault in faults]}


def _refusal(one: Submission, refused: Sequence[tuple[int, list[Fault]]]) -> Refusal:
    """Refuse a submission; faults of a batch are under ``/bids/N``."""
    faults = [fault.under(f"/bids/{number}") if one.is_batch else fault for number, own in refused for fault in own]
    gates = {fault.code for fault in faults if fault.code in GATE_FAULTS.values()}
    if gates:
        return Conflict(min(gates), "The gate of the market is not open.", faults=faults)
    return Unprocessable(faults)
