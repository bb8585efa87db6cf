"""Verification of the store: the audit chain, and every row that it vouches for."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.exc import SQLAlchemyError

from api.bidding import bid_sha256
from api.store.audit import broken_links
from api.store.tables import (
    LIVE,
    QUEUED,
    RUNNING,
    SUPERSEDED,
    audit,
    bids,
    chain,
    feeders,
    keys,
    markets,
    participants,
    readings,
    resources,
    results,
    runs,
    submissions,
    versions,
    webhooks,
)
from api.store.vouching import AT_ONCE, ENDED, kept_rows, row_name, row_sha256

VOUCHED = (
    *(participants, keys, feeders, resources, markets, submissions, bids, runs, results, versions, readings, webhooks),
)
NOT_WRITTEN = "is not what was written"


def faults_in_store(connection: Connection) -> Iterator[str]:
    """Everything that is not what was written, in words; nothing where all is whole.

    While the service writes, `connection` must be a steady one.
    """
    try:
        yield from broken_links(connection)
        record = _Record(connection)
        for table in VOUCHED:
            for row in kept_rows(connection, table):
                yield from record.compared(table, row)
        yield from (f"{name} is gone" for name in record.hashes)
        counted = [row["submissions"] for row in kept_rows(connection, chain)]
        if counted != [record.submissions]:
            yield f"the number of submissions is not {record.submissions}, as was written"
    except (SQLAlchemyError, ValueError, KeyError, TypeError) as error:
        yield f"the rest cannot be read: {type(error).__name__}"


class _Record:
    """What the chain says of rows: the last hash of each, and the state of every version of a bid."""

    def __init__(self, connection: Connection) -> None:
        self.hashes: dict[str, str] = {}
        self.submissions = 0
        self._states: dict[tuple[str, int], str] = {}
        query = audit.select().order_by(audit.c.sequence).execution_options(yield_per=AT_ONCE)
        with connection.execute(query) as rows:
            for row in rows:
                self.hashes |= row.rows
                if row.action == "bids.submit":
                    self.submissions += 1
                    for bid in row.after["bids"]:
                        self._note(bid["bid_id"], bid["version"], bid["state"])

    def _note(self, bid_id: str, version: int, state: str) -> None:
        self._states[bid_id, version] = state
        if state == LIVE and version > 1:
            self._states[bid_id, version - 1] = SUPERSEDED

    def compared(self, table: Table, row: dict[str, Any]) -> Iterator[str]:
        """Compare a row with what the chain says of it."""
        name = row_name(table, row)
        is_right = self.hashes.pop(name, None) == row_sha256(table, row)
        if table is bids:
            is_right &= row["content_sha256"] == bid_sha256(row, row["terms"])
            is_right &= row["state"] == self._states.get((row["id"], row["version"]))
        if table is runs:
            ended = self.hashes.pop(f"{name} {ENDED}", None)
            whole = row_sha256(table, row, left_out=frozenset())
            is_right &= row["state"] in (QUEUED, RUNNING) if ended is None else ended == whole
        if not is_right:
            yield f"{name} {NOT_WRITTEN}"
