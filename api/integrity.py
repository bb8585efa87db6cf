"""Verification of the store: the audit chain, and everything whose hash the chain holds."""

import hashlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Connection, select

from api.archive import content_sha256, unpack
from api.bidding import bid_sha256
from api.store.audit import broken_links
from api.store.tables import audit, bids, feeders, results, runs, submissions


def faults_in_store(connection: Connection) -> Iterator[str]:
    """Everything that is not what was written, in words; nothing where all is whole."""
    yield from broken_links(connection)
    vouched = _vouched(connection)
    for row in connection.execute(select(bids)):
        offered = SimpleNamespace(
            id=row.id,
            market_id=row.market_id,
            resource_id=row.resource_id,
            first=row.first_interval,
            last=row.last_interval,
            product=row.product,
            offer=row.terms,
        )
        yield from _compared(vouched, f"{row.id} {row.version}", bid_sha256(offered), "bid")
    for row in connection.execute(select(submissions.c.id, submissions.c.content_sha256)):
        yield from _compared(vouched, row.id, row.content_sha256, "submission")
    for row in connection.execute(select(feeders.c.id, feeders.c.files)):
        yield from _compared(vouched, row.id, content_sha256(unpack(bytes(row.files))), "feeder")
    for row in connection.execute(select(runs.c.id, runs.c.snapshot)):
        yield from _compared(vouched, row.id, content_sha256(unpack(bytes(row.snapshot))), "run")
    for row in connection.execute(select(results.c.run_id, results.c.name, results.c.content)):
        sha256 = hashlib.sha256(bytes(row.content)).hexdigest()
        yield from _compared(vouched, f"{row.run_id} {row.name}", sha256, "result")
    yield from (f"{name} is gone" for name in vouched)


def _compared(vouched: dict[str, str], name: str, sha256: str, what: str) -> Iterator[str]:
    if vouched.pop(name, None) != sha256:
        yield f"{what} {name} is not what was written"


def _vouched(connection: Connection) -> dict[str, str]:
    """Hash of everything that the chain vouches for, by its name."""
    hashes: dict[str, str] = {}
    for row in connection.execute(select(audit.c.action, audit.c.target, audit.c.after)):
        after: Any = row.after
        if row.action == "bids.submit":
            hashes[row.target] = after["content_sha256"]
            hashes |= {f"{bid['bid_id']} {bid['version']}": bid["sha256"] for bid in after["bids"] if "sha256" in bid}
        elif row.action == "feeder.add":
            hashes[row.target] = after["sha256"]
        elif row.action == "run.request":
            hashes[row.target] = after["snapshot_sha256"]
        elif row.action == "run.end":
            hashes |= {f"{row.target} {name}": sha256 for name, sha256 in after["results"].items()}
    return hashes
