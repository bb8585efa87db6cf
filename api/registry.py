"""What operators register: participants, keys, feeders, resources and markets."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, and_, func, insert, select, update

from api.archive import pack
from api.auth import SCOPES_OF, new_secret
from api.book import feeder_nodes
from api.clock import rfc3339
from api.errors import Conflict, Fault, Unprocessable
from api.feeders import FeederContent
from api.gate import over_intervals, trade_day
from api.identity import FEEDER, MARKET, PARTICIPANT, RESOURCE, new_id
from api.masking import new_mask_key
from api.store.audit import Chain, Entry
from api.store.rows import is_known, row_of
from api.store.tables import feeders, keys, markets, participants, resources
from api.store.vouching import vouch, vouch_again

MOST_DAYS_AHEAD = 366


@dataclass(frozen=True)
class Asked:
    """Something that is asked for: by whom, when, and its content.

    Parameters
    ----------
    actor, at
        By whom, and when.
    content
        Fields of the thing, checked by themselves.
    """

    actor: str
    at: datetime
    content: Mapping[str, Any]


def add_participant(connection: Connection, chain: Chain, asked: Asked) -> str:
    """Register a participant; return its name.  Raises `Conflict` where there is one of that name."""
    name = asked.content["name"]
    if connection.execute(select(participants.c.id).where(participants.c.name == name)).one_or_none():
        raise Conflict("name_taken", "There is a participant of this name.", faults=[_taken("/name")])
    row = {"id": new_id(PARTICIPANT), "name": name, "created_at": asked.at}
    connection.execute(insert(participants).values(row))
    entry = Entry(asked.at, asked.actor, "participant.add", row["id"], {"name": name}, rows=vouch(participants, row))
    chain.append(connection, [entry])
    return str(row["id"])


def _taken(pointer: str) -> Fault:
    return Fault(pointer, "name_taken", "Choose another name.")


def issue_key(connection: Connection, chain: Chain, asked: Asked) -> tuple[str, str]:
    """Issue a key; return its name and the whole of it, which is not kept.

    Raises
    ------
    Unprocessable
        When the participant is unknown or a scope is not the role's.
    """
    content = asked.content
    role, participant_id = content["role"], content["participant_id"]
    scopes = SCOPES_OF[role] if content["scopes"] is None else frozenset(content["scopes"])
    faults = []
    if not scopes <= SCOPES_OF[role]:
        known = ", ".join(sorted(SCOPES_OF[role]))
        faults.append(Fault("/scopes", "unknown_scope", f"The role {role} has the scopes {known}."))
    if participant_id is not None and not is_known(connection, participants.c.id == participant_id):
        faults.append(Fault("/participant_id", "unknown_participant", "There is no such participant."))
    if faults:
        raise Unprocessable(faults)
    name, whole, secret_sha256 = new_secret()
    row = {
        "id": name,
        "secret_sha256": secret_sha256,
        "name": content["name"],
        "role": role,
        "scopes": sorted(scopes),
        "participant_id": participant_id,
        "created_at": asked.at,
        "expires_at": content["expires_at"],
    }
    connection.execute(insert(keys).values(row))
    after = {"name": row["name"], "role": role, "scopes": row["scopes"], "participant_id": participant_id}
    chain.append(connection, [Entry(asked.at, asked.actor, "key.issue", name, after, rows=vouch(keys, row))])
    return name, whole


def revoke_key(connection: Connection, chain: Chain, asked: Asked) -> None:
    """Revoke a key; raises `NotFound` for an unknown one, and does nothing to one that is revoked."""
    row = row_of(connection, keys, asked.content["id"])
    if row.revoked_at is not None:
        return
    connection.execute(update(keys).where(keys.c.id == row.id).values(revoked_at=asked.at))
    rows = vouch_again(connection, keys, keys.c.id == row.id)
    entry = Entry(asked.at, asked.actor, "key.revoke", row.id, {"revoked_at": rfc3339(asked.at)}, rows=rows)
    chain.append(connection, [entry])


def add_feeder(connection: Connection, chain: Chain, asked: Asked) -> tuple[str, bool]:
    """Add a version of a feeder; return its name, and whether its content is new."""
    name, found = asked.content["name"], asked.content["found"]
    assert isinstance(found, FeederContent)
    same = and_(feeders.c.name == name, feeders.c.sha256 == found.sha256)
    known = connection.execute(select(feeders.c.id).where(same)).scalar_one_or_none()
    if known is not None:
        return known, False
    newest = select(func.coalesce(func.max(feeders.c.version), 0)).where(feeders.c.name == name)
    row = {
        "id": new_id(FEEDER),
        "name": name,
        "version": connection.execute(newest).scalar_one() + 1,
        "sha256": found.sha256,
        "description": found.description,
        "files": pack(found.files),
        "nodes": [list(node) for node in found.nodes],
        "created_at": asked.at,
    }
    connection.execute(insert(feeders).values(row))
    after = {"name": name, "version": row["version"], "sha256": found.sha256}
    entry = Entry(asked.at, asked.actor, "feeder.add", str(row["id"]), after, rows=vouch(feeders, row))
    chain.append(connection, [entry])
    return str(row["id"]), True


def add_resource(connection: Connection, chain: Chain, asked: Asked) -> str:
    """Register a resource; return its name.

    Raises
    ------
    Unprocessable, Conflict
        When participant, feeder or node are unknown; when the feeder has a resource of that name.
    """
    content = asked.content
    faults = []
    if not is_known(connection, participants.c.id == content["participant_id"]):
        faults.append(Fault("/participant_id", "unknown_participant", "There is no such participant."))
    newest = select(feeders.c.id).where(feeders.c.name == content["feeder"]).order_by(feeders.c.version.desc()).limit(1)
    feeder_id = connection.execute(newest).scalar_one_or_none()
    if feeder_id is None:
        faults.append(Fault("/feeder", "unknown_feeder", "There is no such feeder."))
    elif (content["bus"], content["phase"]) not in feeder_nodes(connection, feeder_id):
        faults.append(Fault("/bus", "unknown_node", "The feeder has no such bus, or not that phase of it."))
    if faults:
        raise Unprocessable(faults)
    same = and_(resources.c.feeder == content["feeder"], resources.c.name == content["name"])
    if connection.execute(select(resources.c.id).where(same)).one_or_none():
        raise Conflict("name_taken", "The feeder has a resource of this name.", faults=[_taken("/name")])
    row = {"id": new_id(RESOURCE), **content, "created_at": asked.at}
    connection.execute(insert(resources).values(row))
    entry = Entry(asked.at, asked.actor, "resource.add", row["id"], dict(content), rows=vouch(resources, row))
    chain.append(connection, [entry])
    return str(row["id"])


def retire_resource(connection: Connection, chain: Chain, asked: Asked) -> None:
    """Retire a resource: it bids no more, and bids that stand stay; raises `NotFound` for an unknown one."""
    row = row_of(connection, resources, asked.content["id"])
    if row.retired_at is not None:
        return
    connection.execute(update(resources).where(resources.c.id == row.id).values(retired_at=asked.at))
    rows = vouch_again(connection, resources, resources.c.id == row.id)
    entry = Entry(asked.at, asked.actor, "resource.retire", row.id, {"retired_at": rfc3339(asked.at)}, rows=rows)
    chain.append(connection, [entry])


def add_market(connection: Connection, chain: Chain, asked: Asked) -> str:
    """Register a market; return its name.

    Raises
    ------
    Unprocessable
        When its feeder is unknown, its day too far away, or a series does not fit its intervals.
    """
    content = asked.content
    faults = []
    feeder = connection.execute(select(feeders).where(feeders.c.id == content["feeder_id"])).one_or_none()
    if feeder is None:
        faults.append(Fault("/feeder_id", "unknown_feeder", "There is no such feeder."))
    if abs(content["trade_date"] - asked.at.date()) > timedelta(MOST_DAYS_AHEAD):
        raise Unprocessable([*faults, Fault("/trade_date", "too_far", f"Must be within {MOST_DAYS_AHEAD} days.")])
    begins, ends = trade_day(content["trade_date"], content["market_timezone"])
    minutes = content["interval_minutes"]
    intervals = (ends - begins) // timedelta(minutes=minutes)
    if begins + intervals * timedelta(minutes=minutes) != ends:
        faults.append(Fault("/interval_minutes", "off_grid", "The day is no whole number of intervals."))
    series = {}
    for name in ("import_price_usd_per_mwh", "import_q_price_usd_per_mvarh", "load_scale"):
        series[name], wrong = over_intervals(content[name], intervals, f"/{name}") if content[name] else ([], [])
        faults += wrong
    if faults or feeder is None:
        raise Unprocessable(faults)
    limits = {name: value for name, value in content["import_limits"].items() if value is not None}
    row = {
        "id": new_id(MARKET),
        "name": content["name"],
        "feeder_id": feeder.id,
        "feeder": feeder.name,
        "trade_date": content["trade_date"].isoformat(),
        "timezone": content["market_timezone"],
        "starts_at": begins,
        "interval_minutes": minutes,
        "intervals": intervals,
        "currency": content["currency"],
        "gate_opens_at": content["gate_opens_at"],
        "gate_closes_at": content["gate_closes_at"],
        "price_floor": content["price_floor_usd_per_mwh"],
        "price_cap": content["price_cap_usd_per_mwh"],
        "inputs": {**series, "import_limits": limits, "requirements": content["requirements"]},
        "takes_blocks": content["takes_blocks"],
        "bids_public_after_days": content["bids_public_after_days"],
        "mask_key": new_mask_key(),
        "created_at": asked.at,
    }
    connection.execute(insert(markets).values(row))
    told = {name: value for name, value in row.items() if name != "mask_key"}
    after = {name: rfc3339(value) if isinstance(value, datetime) else value for name, value in told.items()}
    entry = Entry(asked.at, asked.actor, "market.add", str(row["id"]), after, rows=vouch(markets, row))
    chain.append(connection, [entry])
    return str(row["id"])
