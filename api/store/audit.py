r"""The audit chain: every change is a row whose hash covers the row before it.

    hash_k = SHA-256(hash_(k-1) "\n" canonical JSON of row k)

A row that is altered, dropped or put in between breaks every hash after it.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from api.store.columns import canonical_json, time_text
from api.store.rows import add
from api.store.tables import audit, chain
from api.store.vouching import kept_rows

GENESIS = "0" * 64
HEAD_ID = 1
HASHED = ("sequence", "at", "actor", "action", "target", "before", "after", "rows")
"""Columns of a row that its hash covers, after the hash of the row before it."""
LOCK = select(chain).with_for_update()
SAVE = update(chain).values({name: bindparam(name) for name in ("sequence", "hash", "submissions")})


@dataclass(frozen=True)
class Entry:
    """One change: who did what to which thing, what it was before and after, and the hash of every row it wrote."""

    at: datetime
    actor: str
    action: str
    target: str
    after: Mapping[str, object] | None
    before: Mapping[str, object] | None = None
    rows: Mapping[str, str] = field(default_factory=dict)

    def kept(self) -> dict[str, Any]:
        """Return its columns as they are kept."""
        documents = {"before": self.before, "after": self.after, "rows": self.rows}
        kept = {name: None if value is None else canonical_json(value) for name, value in documents.items()}
        return {"at": time_text(self.at), "actor": self.actor, "action": self.action, "target": self.target, **kept}


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
            row = entry.kept() | {"sequence": self.sequence, "previous_hash": previous}
            self.hash = row["hash"] = entry_hash(row)
            rows.append(row)
        add(connection, audit, rows)

    def is_part_of(self, connection: Connection) -> bool:
        """Whether the chain of the database holds this head, or has grown from it."""
        own = select(audit.c.hash).where(audit.c.sequence == self.sequence)
        return bool(connection.execute(own).scalar_one_or_none() == self.hash)

    def save(self, connection: Connection) -> None:
        """Write the head back."""
        connection.execute(SAVE, vars(self))


def entry_hash(row: Mapping[str, Any]) -> str:
    """Hash of a row of the chain, from its columns as they are kept."""
    hashed = {name: row[name] for name in HASHED}
    return hashlib.sha256(f"{row['previous_hash']}\n{canonical_json(hashed)}".encode()).hexdigest()


def broken_links(connection: Connection) -> Iterator[str]:
    """What is wrong with the chain, in the order of its rows; nothing where it is whole."""
    sequence, previous = 0, GENESIS
    for row in kept_rows(connection, audit):
        own = row["sequence"]
        if own != sequence + 1:
            yield f"entry {sequence + 1} is missing: entry {own} follows entry {sequence}"
        if row["previous_hash"] != previous:
            yield f"entry {own} does not follow the entry before it"
        if row["hash"] != entry_hash(row):
            yield f"entry {own} ({row['action']} of {row['target']}) is not what was written"
        sequence, previous = own, row["hash"]
    heads = [(row["id"], row["sequence"], row["hash"]) for row in kept_rows(connection, chain)]
    if heads != [(HEAD_ID, sequence, previous)]:
        yield f"the chain ends with entry {sequence}, which is not the one that was written last"
