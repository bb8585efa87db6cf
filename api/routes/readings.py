"""Meter readings: posted as JSON or CSV, read with all their versions."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Path, Query, Response
from sqlalchemy import func, select

from api.auth import Principal
from api.clock import rfc3339
from api.errors import Fault
from api.faults import checked
from api.http import StrictRoute
from api.metering import Posted, add_readings
from api.readingfile import readings_in
from api.routes.common import Cursor, Limit, ServiceHere, answered, cursor_of, refusals, requires, row_position
from api.schemas.common import Id, Page
from api.schemas.readings import COLUMNS, READING, Reading, ReadingsIn, ReadingsReceipt, SeriesOut
from api.service import Service
from api.store.rows import row_of
from api.store.tables import markets, readings, resources
from api.store.writer import each

router = APIRouter(prefix="/v1/markets/{market_id}/readings", tags=["readings"], route_class=StrictRoute)
ADD = each(add_readings)
MarketId = Annotated[Id, Path(description="Name of the market.")]
CanRead = Annotated[Principal, Depends(requires("meter:read"))]
CanWrite = Annotated[Principal, Depends(requires("meter:write"))]
CSV_EXAMPLE = f"{','.join(COLUMNS)}\nres_5b4a69788796a5b40f1e2d3c,2026-07-01T17:00:00Z,2026-07-01T18:00:00Z,231.5,\n"
Table = Annotated[bytes, Body(media_type="text/csv", examples=[CSV_EXAMPLE])]
Checked = tuple[list[Reading | None], dict[int, Sequence[Fault]]]


@router.post(
    "",
    status_code=201,
    summary="Post meter readings",
    response_model=ReadingsReceipt,
    responses=refusals(400, 403, 404, 409, 413, 422),
)
async def add(market_id: MarketId, body: ReadingsIn, service: ServiceHere, who: CanWrite) -> Response:
    """Post what meters have shown, all or none; a reading that is there already is corrected, as a further version."""
    found = await asyncio.to_thread(_checked, body.readings)
    return await _post(service, who, market_id, found)


@router.post(
    "/csv",
    status_code=201,
    summary="Post meter readings as CSV",
    response_model=ReadingsReceipt,
    responses=refusals(400, 403, 404, 409, 413, 422),
)
async def add_table(market_id: MarketId, body: Table, service: ServiceHere, who: CanWrite) -> Response:
    """Post a table with the fields of a reading as its columns; lines are numbered in errors as items are, from 0."""
    rows = await asyncio.to_thread(readings_in, body)
    items, faults = await asyncio.to_thread(_checked, [{} if fields is None else fields for _, fields in rows])
    for number, (_, fields) in enumerate(rows):
        if fields is None:
            faults[number] = [Fault("", "wrong_length", "The line must have a cell for each column.")]
    return await _post(service, who, market_id, (items, faults), [line for line, _ in rows])


@router.get("", summary="Read meter readings", response_model=Page[SeriesOut], responses=refusals(400, 403, 404, 422))
def read(
    market_id: MarketId,
    service: ServiceHere,
    who: CanRead,
    resource_id: Annotated[Id | None, Query(description="Only those of this resource.")] = None,
    all_versions: Annotated[bool, Query(description="The versions before the current one, too.")] = False,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Response:
    """Read the readings of your resources; an auditor and an operator see all."""
    newest = func.max(readings.c.version).over(partition_by=readings.c.resource_id)
    versions = (
        select(readings, resources.c.name, resources.c.participant_id, newest.label("newest"))
        .join(resources, resources.c.id == readings.c.resource_id)
        .where(readings.c.market_id == market_id)
        .subquery()
    )
    query = select(versions)
    if not all_versions:
        query = query.where(versions.c.version == versions.c.newest)
    if not who.sees_all:
        query = query.where(versions.c.participant_id == who.participant_id)
    if resource_id is not None:
        query = query.where(versions.c.resource_id == resource_id)
    first = row_position(cursor)
    query = query.order_by(versions.c.resource_id, versions.c.version).offset(first).limit(limit + 1)
    with service.engine.connect() as connection:
        row_of(connection, markets, market_id, [markets.c.id])
        rows = connection.execute(query).all()
    following = cursor_of(first + limit) if len(rows) > limit else None
    return answered(200, {"items": [_series(row) for row in rows[:limit]], "next_cursor": following})


def _checked(items: Sequence[Any]) -> Checked:
    """Readings that are sound by themselves, and what is wrong with the others."""
    sound: list[Reading | None] = []
    faults: dict[int, Sequence[Fault]] = {}
    for number, item in enumerate(items):
        reading, found = checked(READING, item)
        sound.append(reading)
        if found:
            faults[number] = found
    return sound, faults


async def _post(
    service: Service, who: Principal, market_id: str, found: Checked, lines: Sequence[int] = ()
) -> Response:
    items, faults = found
    posted = Posted(market_id, who.key_id, service.clock(), items, faults, lines)
    done: list[dict[str, Any]] = await service.writer.do(ADD, posted, size=len(items))
    document = {"received_at": rfc3339(posted.received_at), "readings": len(items), "items": done}
    return answered(201, document)


def _series(row: Any) -> dict[str, Any]:
    return {
        "resource_id": row.resource_id,
        "resource": row.name,
        "version": row.version,
        "is_current": row.version == row.newest,
        "received_at": rfc3339(row.received_at),
        "net_injection_kwh": row.net_injection_kwh,
        "q_kvarh": row.q_kvarh,
    }
