"""Keys, participants, feeders, resources: registered by operators, read by those they concern."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Response
from sqlalchemy import Select, and_, select

from api import registry
from api.auth import Principal
from api.clock import rfc3339, rfc3339_or_none
from api.errors import NotFound
from api.feeders import shipped_feeder, uploaded_feeder
from api.http import StrictRoute
from api.registry import Asked
from api.routes.common import (
    Cursor,
    Limit,
    Responses,
    ServiceHere,
    answered,
    cursor_of,
    refusals,
    requires,
    text_position,
)
from api.schemas.common import Id, Page
from api.schemas.common import Name as FeederName
from api.schemas.objects import (
    FeederIn,
    FeederOut,
    KeyIn,
    KeyOut,
    NewKeyOut,
    ParticipantIn,
    ParticipantOut,
    ResourceIn,
    ResourceOut,
)
from api.service import Service
from api.store.rows import row_of
from api.store.tables import feeders, keys, participants, resources
from api.store.writer import each

router = APIRouter(prefix="/v1", route_class=StrictRoute)
ADD_PARTICIPANT, ISSUE_KEY, REVOKE_KEY = (
    each(registry.add_participant),
    each(registry.issue_key),
    each(registry.revoke_key),
)
ADD_FEEDER, ADD_RESOURCE, RETIRE = (
    each(registry.add_feeder),
    each(registry.add_resource),
    each(registry.retire_resource),
)
KNOWN: Responses = {200: {"model": FeederOut, "description": "The version that has this content already."}}
FEEDER_COLUMNS = [column for column in feeders.c if column.name != "files"]
Name = Annotated[Id, Path(description="Name of the thing.")]


def _can(scope: str) -> Any:
    return Depends(requires(scope))


@router.post(
    "/participants",
    status_code=201,
    tags=["participants"],
    summary="Register a participant",
    response_model=ParticipantOut,
    responses=refusals(400, 403, 409, 413, 422),
)
async def add_participant(
    body: ParticipantIn, service: ServiceHere, who: Annotated[Principal, _can("participants:write")]
) -> Response:
    """Register someone who trades."""
    name = await service.writer.do(ADD_PARTICIPANT, Asked(who.key_id, service.clock(), body.model_dump()))
    return answered(201, _one(service, participants, name, _participant))


@router.get(
    "/participants",
    tags=["participants"],
    summary="List participants",
    response_model=Page[ParticipantOut],
    responses=refusals(400, 403, 422),
)
def list_participants(
    service: ServiceHere,
    who: Annotated[Principal, _can("participants:read")],
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Response:
    """List those who trade."""
    return _page(service, select(participants), participants, _participant, cursor, limit)


@router.post(
    "/keys",
    status_code=201,
    tags=["keys"],
    summary="Issue a key",
    response_model=NewKeyOut,
    responses=refusals(400, 403, 413, 422),
)
async def issue_key(body: KeyIn, service: ServiceHere, who: Annotated[Principal, _can("keys:write")]) -> Response:
    """Issue an API key, with no scope that yours has not; the whole of it is in this answer only.

    A participant's key needs the scope `participant_keys:write` besides.
    """
    who.require_what_is_given(body.role, body.scopes)
    name, whole = await service.writer.do(ISSUE_KEY, Asked(who.key_id, service.clock(), body.model_dump()))
    return answered(201, _one(service, keys, name, _key) | {"key": whole})


@router.get("/keys", tags=["keys"], summary="List keys", response_model=Page[KeyOut], responses=refusals(400, 403, 422))
def list_keys(
    service: ServiceHere, who: Annotated[Principal, _can("keys:read")], cursor: Cursor = None, limit: Limit = 100
) -> Response:
    """List keys, without their secrets."""
    return _page(service, select(keys), keys, _key, cursor, limit)


@router.delete(
    "/keys/{key_id}", tags=["keys"], summary="Revoke a key", response_model=KeyOut, responses=refusals(403, 404, 422)
)
async def revoke_key(key_id: Name, service: ServiceHere, who: Annotated[Principal, _can("keys:write")]) -> Response:
    """Revoke a key; it does not work any more."""
    await service.writer.do(REVOKE_KEY, Asked(who.key_id, service.clock(), {"id": key_id}))
    service.keyring.forget()
    return answered(200, _one(service, keys, key_id, _key))


@router.post(
    "/feeders",
    status_code=201,
    tags=["feeders"],
    summary="Add a feeder",
    response_model=FeederOut,
    responses=KNOWN | refusals(400, 403, 413, 422),
)
async def add_feeder(
    body: FeederIn, service: ServiceHere, who: Annotated[Principal, _can("feeders:write")]
) -> Response:
    """Add a feeder that ships with dlmp, or one of uploaded files; known content gives the version that has it."""
    if body.shipped is not None:
        found = await asyncio.to_thread(shipped_feeder, body.shipped)
    else:
        found = await asyncio.to_thread(uploaded_feeder, body.files or {})
    content = {"name": body.name, "found": found}
    name, is_new = await service.writer.do(ADD_FEEDER, Asked(who.key_id, service.clock(), content))
    return answered(201 if is_new else 200, _one(service, feeders, name, _feeder))


@router.get(
    "/feeders",
    tags=["feeders"],
    summary="List feeders",
    response_model=Page[FeederOut],
    responses=refusals(400, 403, 422),
)
def list_feeders(
    service: ServiceHere, who: Annotated[Principal, _can("feeders:read")], cursor: Cursor = None, limit: Limit = 100
) -> Response:
    """List the versions of all feeders."""
    return _page(service, select(*FEEDER_COLUMNS), feeders, _feeder, cursor, limit)


@router.get(
    "/feeders/{feeder_id}",
    tags=["feeders"],
    summary="Read a feeder",
    response_model=FeederOut,
    responses=refusals(403, 404, 422),
)
def read_feeder(feeder_id: Name, service: ServiceHere, who: Annotated[Principal, _can("feeders:read")]) -> Response:
    """Read a version of a feeder and its nodes."""
    return answered(200, _one(service, feeders, feeder_id, _feeder_with_nodes))


@router.post(
    "/resources",
    status_code=201,
    tags=["resources"],
    summary="Register a resource",
    response_model=ResourceOut,
    responses=refusals(400, 403, 409, 413, 422),
)
async def add_resource(
    body: ResourceIn, service: ServiceHere, who: Annotated[Principal, _can("resources:write")]
) -> Response:
    """Register a DER of a participant at a node of a feeder."""
    fields = ("participant_id", "feeder", "name", "bus", "phase", "kind")
    content = {name: getattr(body, name) for name in fields} | {"limits": body.limits()}
    name = await service.writer.do(ADD_RESOURCE, Asked(who.key_id, service.clock(), content))
    return answered(201, _one(service, resources, name, _resource))


@router.get(
    "/resources",
    tags=["resources"],
    summary="List resources",
    response_model=Page[ResourceOut],
    responses=refusals(400, 403, 422),
)
def list_resources(
    service: ServiceHere,
    who: Annotated[Principal, _can("resources:read")],
    feeder: Annotated[FeederName | None, Query(description="Only those on this feeder.")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Response:
    """List your resources; an auditor and an operator see all."""
    query = select(resources)
    if not who.sees_all:
        query = query.where(resources.c.participant_id == who.participant_id)
    if feeder is not None:
        query = query.where(resources.c.feeder == feeder)
    return _page(service, query, resources, _resource, cursor, limit)


@router.get(
    "/resources/{resource_id}",
    tags=["resources"],
    summary="Read a resource",
    response_model=ResourceOut,
    responses=refusals(403, 404, 422),
)
def read_resource(
    resource_id: Name, service: ServiceHere, who: Annotated[Principal, _can("resources:read")]
) -> Response:
    """Read a resource of yours."""
    found = _one(service, resources, resource_id, _resource)
    if not who.sees_all and found["participant_id"] != who.participant_id:
        raise NotFound("resource")
    return answered(200, found)


@router.delete(
    "/resources/{resource_id}",
    tags=["resources"],
    summary="Retire a resource",
    response_model=ResourceOut,
    responses=refusals(403, 404, 422),
)
async def retire_resource(
    resource_id: Name, service: ServiceHere, who: Annotated[Principal, _can("resources:write")]
) -> Response:
    """Retire a resource: it places no more bids, and those that stand stay."""
    await service.writer.do(RETIRE, Asked(who.key_id, service.clock(), {"id": resource_id}))
    return answered(200, _one(service, resources, resource_id, _resource))


def _one(service: Service, table: Any, name: str, write: Any) -> dict[str, Any]:
    columns = FEEDER_COLUMNS if table is feeders else ()
    with service.engine.connect() as connection:
        document: dict[str, Any] = write(row_of(connection, table, name, columns))
    return document


def _page(service: Service, query: Select[Any], table: Any, write: Any, cursor: str | None, limit: int) -> Response:
    """Answer with a page of rows in the order of their names."""
    wanted = query.where(and_(table.c.id > text_position(cursor))).order_by(table.c.id).limit(limit + 1)
    with service.engine.connect() as connection:
        rows = connection.execute(wanted).all()
    following = cursor_of(rows[limit - 1].id) if len(rows) > limit else None
    return answered(200, {"items": [write(row) for row in rows[:limit]], "next_cursor": following})


def _participant(row: Any) -> dict[str, Any]:
    return {"id": row.id, "name": row.name, "created_at": rfc3339(row.created_at)}


def _key(row: Any) -> dict[str, Any]:
    names = ("id", "name", "role", "scopes", "participant_id")
    times = ("created_at", "expires_at", "revoked_at")
    return {name: getattr(row, name) for name in names} | {name: rfc3339_or_none(getattr(row, name)) for name in times}


def _feeder(row: Any) -> dict[str, Any]:
    names = ("id", "name", "version", "sha256", "description")
    count = sum(1 for _, phase in row.nodes if phase == "")
    return {name: getattr(row, name) for name in names} | {
        "bus_count": count,
        "created_at": rfc3339(row.created_at),
    }


def _feeder_with_nodes(row: Any) -> dict[str, Any]:
    phases: dict[str, list[str]] = {}
    for bus, phase in row.nodes:
        phases.setdefault(bus, []).append(phase)
    return _feeder(row) | {"buses": [{"bus": bus, "phases": own} for bus, own in phases.items()]}


def _resource(row: Any) -> dict[str, Any]:
    names = ("id", "participant_id", "feeder", "name", "bus", "phase", "kind")
    times = {"created_at": rfc3339(row.created_at), "retired_at": rfc3339_or_none(row.retired_at)}
    return {name: getattr(row, name) for name in names} | row.limits | times
