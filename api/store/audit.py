r"""The audit chain: every change is a row whose hash covers the row before it.

    hash_k = SHA-256(hash_(k-1) "\n" canonical JSON of row k)

A row that is altered, dropped or put in between breaks every hash after it.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, bindparam, insert, select, update

from api.store.columns import canonical_json, time_text
from api.store.tables import audit, chain

GENESIS = "0" * 64
LOCK, ADD = select(chain).with_for_update(), insert(audit)
SAVE = update(chain).values({name: bindparam(name) for name in ("sequence", "hash", "submissions")})


@dataclass(frozen=True)
class Entry:
    """One change: who did what to which thing, and what it was before and after."""

    at: datetime
    actor: str
    action: str
    target: str
    after: Mapping[str, object] | None
    before: Mapping[str, object] | None = None


@dataclass
class Chain:
    """Head of the chain within one transaction, which has locked it."""

    sequence: int
    hash: str
    submissions: int

    @classmethod
    def locked(cls, connection: Connection) -> "Chain":
        """Read the head; other writers wait until this transaction ends."""
        row = connection.execute(LOCK).one()
        return cls(row.sequence, row.hash, row.submissions)

    def append(self, connection: Connection, entries: Sequence[Entry]) -> None:
        """Add `entries` to the chain."""
        rows = []
        for entry in entries:
            previous = self.hash
            self.sequence += 1
            self.hash = entry_hash(self.sequence, entry, previous)
            rows.append(vars(entry) | {"sequence": self.sequence, "previous_hash": previous, "hash": self.hash})
        if rows:
            connection.execute(ADD, rows)

    def is_part_of(self, connection: Connection) -> bool:
        """Whether the chain of the database holds this head, or has grown from it."""
        own = select(audit.c.hash).where(audit.c.sequence == self.sequence)
        return bool(connection.execute(own).scalar_one_or_none() == self.hash)

    def save(self, connection: Connection) -> None:
        """Write the head back."""
        connection.execute(SAVE, vars(self))


def entry_hash(sequence: int, entry: Entry, previous: str) -> str:
    """Hash of an entry that follows the one of hash `previous`."""
    content = canonical_json(vars(entry) | {"sequence": sequence, "at": time_text(entry.at)})
    return hashlib.sha256(f"{previous}\n{content}".encode()).hexdigest()


def broken_links(connection: Connection) -> Iterator[str]:
    """What is wrong with the chain, in the order of its rows; nothing where it is whole."""
    sequence, previous = 0, GENESIS
    for row in connection.execute(select(audit).order_by(audit.c.sequence)):
        if row.sequence != sequence + 1:
            yield f"entry {sequence + 1} is missing: entry {row.sequence} follows entry {sequence}"
        entry = Entry(row.at, row.actor, row.action, row.target, row.after, row.before)
        if row.previous_hash != previous:
            yield f"entry {row.sequence} does not follow the entry before it"
        if row.hash != entry_hash(row.sequence, entry, row.previous_hash):
            yield f"entry {row.sequence} ({row.action} of {row.target}) is not what was written"
        sequence, previous = row.sequence, row.hash
    head = connection.execute(select(chain)).one()
    if (head.sequence, head.hash) != (sequence, previous):
        yield f"the chain ends with entry {sequence}, but entry {head.sequence} was written"
