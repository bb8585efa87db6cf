"""Markets and their runs: opened, closed, cleared, published, settled."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack
from datetime import datetime
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from sqlalchemy import Connection, func, select
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from api import gate, publication, registry
from api.auth import Principal
from api.clock import rfc3339, rfc3339_or_none
from api.errors import Unauthenticated
from api.gate import Seen, Step, interval_start, is_new, latch, state_at
from api.http import StrictRoute
from api.masking import bids_public_at
from api.registry import Asked
from api.routes.common import (
    Cursor,
    Limit,
    Responses,
    ServiceHere,
    answered,
    caller_of,
    cursor_of,
    refusals,
    requires,
    text_position,
)
from api.runs import Cancel, RunRequest, SettlementRequest, cancel_run, request_run, request_settlement
from api.schemas.common import Day, Id, Page
from api.schemas.objects import MarketIn, MarketOut, RunIn, RunOut, SettleIn
from api.service import Service
from api.store.rows import row_of
from api.store.tables import QUEUED, RUNNING, markets, runs, versions
from api.store.writer import Handler, each
from api.streams import WATCH_S

router = APIRouter(prefix="/v1", route_class=StrictRoute)
ADD, OPEN, CLOSE = each(registry.add_market), each(gate.open_market), each(gate.close_market)
PUBLISH, SETTLE = each(publication.publish), each(request_settlement)
REQUEST, CANCEL, LATCH = each(request_run), each(cancel_run), each(latch)
MarketId = Annotated[Id, Path(description="Name of the market.")]
RunId = Annotated[Id, Path(description="Name of the run.")]
CanRead = Annotated[Principal, Depends(requires("markets:read"))]
CanWrite = Annotated[Principal, Depends(requires("markets:write"))]
CanReadRuns = Annotated[Principal, Depends(requires("runs:read"))]
CanRun = Annotated[Principal, Depends(requires("runs:write"))]
KEEP_ALIVE_S = 15.0
ZIP: Responses = {200: {"content": {"application/zip": {}}}}
EVENTS: Responses = {200: {"content": {"text/event-stream": {}}}}


@router.post(
    "/markets",
    status_code=201,
    tags=["markets"],
    summary="Register a market",
    response_model=MarketOut,
    responses=refusals(400, 403, 413, 422),
)
async def add_market(body: MarketIn, service: ServiceHere, who: CanWrite) -> Response:
    """Register a market of a trade date; its gate opens and closes by the clock, or by hand before."""
    name = await service.writer.do(ADD, Asked(who.key_id, service.clock(), body.model_dump()))
    return answered(201, market_of(service, name))


@router.get(
    "/markets",
    tags=["markets"],
    summary="List markets",
    response_model=Page[MarketOut],
    responses=refusals(400, 403, 422),
)
def list_markets(
    service: ServiceHere,
    who: CanRead,
    trade_date: Annotated[Day | None, Query(description="Only those of this day.")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Response:
    """List markets with their states."""
    query = select(markets).where(markets.c.id > text_position(cursor)).order_by(markets.c.id).limit(limit + 1)
    if trade_date is not None:
        query = query.where(markets.c.trade_date == trade_date.isoformat())
    now = service.clock()
    with service.engine.connect() as connection:
        rows = connection.execute(query).all()
        items = [_market(connection, row, now) for row in rows[:limit]]
    _latch(service, rows[:limit], now)
    following = cursor_of(rows[limit - 1].id) if len(rows) > limit else None
    return answered(200, {"items": items, "next_cursor": following})


@router.get(
    "/markets/{market_id}",
    tags=["markets"],
    summary="Read a market",
    response_model=MarketOut,
    responses=refusals(403, 404, 422),
)
def read_market(market_id: MarketId, service: ServiceHere, who: CanRead) -> Response:
    """Read a market and its state now."""
    return answered(200, market_of(service, market_id))


@router.get(
    "/markets/{market_id}/events",
    tags=["markets"],
    summary="Follow a market",
    response_class=StreamingResponse,
    responses=EVENTS | refusals(403, 404, 422),
)
async def follow_market(market_id: MarketId, request: Request, service: ServiceHere, who: CanRead) -> StreamingResponse:
    """Follow a market by server-sent events; each event is the market as it is then, its state the event's name."""
    return await _followed(service, request, who, partial(market_of, service, market_id), lambda market: False)


@router.post(
    "/markets/{market_id}/open",
    tags=["markets"],
    summary="Open a gate early",
    response_model=MarketOut,
    responses=refusals(403, 404, 409, 422),
)
async def open_market(market_id: MarketId, service: ServiceHere, who: CanWrite) -> Response:
    """Open the gate of a scheduled market before its time."""
    return await _move(service, who, OPEN, market_id)


@router.post(
    "/markets/{market_id}/close",
    tags=["markets"],
    summary="Close a gate early",
    response_model=MarketOut,
    responses=refusals(403, 404, 409, 422),
)
async def close_market(market_id: MarketId, service: ServiceHere, who: CanWrite) -> Response:
    """Close the gate of an open market before its time."""
    return await _move(service, who, CLOSE, market_id)


@router.post(
    "/markets/{market_id}/publish",
    tags=["markets"],
    summary="Publish the newest run",
    response_model=MarketOut,
    responses=refusals(403, 404, 409, 422),
)
async def publish_market(market_id: MarketId, service: ServiceHere, who: CanWrite) -> Response:
    """Publish prices, awards and statements of the newest run that succeeded, as a version more."""
    return await _move(service, who, PUBLISH, market_id)


@router.post(
    "/markets/{market_id}/settle",
    tags=["markets"],
    status_code=202,
    summary="Settle a market",
    response_model=RunOut,
    responses=refusals(400, 403, 404, 409, 413, 422),
)
async def settle_market(market_id: MarketId, body: SettleIn, service: ServiceHere, who: CanWrite) -> Response:
    """Queue final statements: awards at their prices, and what meters deviate from them at real-time prices.

    They are published, and the market is settled, when the run has succeeded.
    """
    asked = SettlementRequest(
        market_id=market_id,
        requested_by=who.key_id,
        asked_at=service.clock(),
        time_limit_s=service.settings.run_time_limit_s,
        real_time_market_id=body.real_time_market_id,
        correction_reason=body.correction_reason or "",
    )
    name, _ = await service.writer.do(SETTLE, asked)
    return answered(202, _run_of(service, name), {"Location": f"/v1/runs/{name}"})


@router.post(
    "/markets/{market_id}/runs",
    status_code=202,
    tags=["runs"],
    summary="Clear a market",
    response_model=RunOut,
    responses=refusals(400, 403, 404, 409, 413, 422),
)
async def add_run(market_id: MarketId, body: RunIn, service: ServiceHere, who: CanRun) -> Response:
    """Freeze the bids of a closed market and queue its clearing; a run that is under way is given instead."""
    settings = {"limits": body.limits, "formulation": body.formulation, "max_passes": body.max_passes}
    inputs = body.model_dump(include={"import_price_usd_per_mwh"}, exclude_none=True)
    asked = RunRequest(
        market_id=market_id,
        requested_by=who.key_id,
        asked_at=service.clock(),
        settings=settings,
        time_limit_s=min(body.time_limit_s or service.settings.run_time_limit_s, service.settings.run_time_limit_s),
        correction_reason=body.correction_reason or "",
        inputs=inputs,
    )
    name, _ = await service.writer.do(REQUEST, asked)
    return answered(202, _run_of(service, name), {"Location": f"/v1/runs/{name}"})


@router.get(
    "/markets/{market_id}/runs",
    tags=["runs"],
    summary="List the runs of a market",
    response_model=Page[RunOut],
    responses=refusals(403, 404, 422),
)
def list_runs(market_id: MarketId, service: ServiceHere, who: CanReadRuns) -> Response:
    """List every run of a market, the newest first."""
    market_of(service, market_id)
    query = select(*RUN_COLUMNS).where(runs.c.market_id == market_id).order_by(runs.c.number.desc())
    with service.engine.connect() as connection:
        items = [_run(row) for row in connection.execute(query)]
    return answered(200, {"items": items, "next_cursor": None})


@router.get(
    "/runs/{run_id}", tags=["runs"], summary="Read a run", response_model=RunOut, responses=refusals(403, 404, 422)
)
def read_run(run_id: RunId, service: ServiceHere, who: CanReadRuns) -> Response:
    """Read a run: its state, its progress, and why it failed."""
    return answered(200, _run_of(service, run_id))


@router.get(
    "/runs/{run_id}/snapshot",
    tags=["runs"],
    summary="Download a run's input",
    response_class=Response,
    responses=ZIP | refusals(403, 404, 422),
)
def read_snapshot(run_id: RunId, service: ServiceHere, who: CanReadRuns) -> Response:
    """Download the frozen case folder of a run, which `dlmp clear` clears again."""
    with service.engine.connect() as connection:
        snapshot = row_of(connection, runs, run_id, [runs.c.snapshot]).snapshot
    headers = {"Content-Disposition": f'attachment; filename="{run_id}.zip"'}
    return Response(bytes(snapshot), media_type="application/zip", headers=headers)


@router.get(
    "/runs/{run_id}/events",
    tags=["runs"],
    summary="Follow a run",
    response_class=StreamingResponse,
    responses=EVENTS | refusals(403, 404, 422),
)
async def follow_run(run_id: RunId, request: Request, service: ServiceHere, who: CanReadRuns) -> StreamingResponse:
    """Follow a run by server-sent events until it has ended; each event is the run as it is then."""
    return await _followed(
        service, request, who, partial(_run_of, service, run_id), lambda run: run["state"] not in (QUEUED, RUNNING)
    )


@router.post(
    "/runs/{run_id}/cancel",
    status_code=202,
    tags=["runs"],
    summary="Cancel a run",
    response_model=RunOut,
    responses=refusals(403, 404, 409, 422),
)
async def cancel(run_id: RunId, service: ServiceHere, who: CanRun) -> Response:
    """Cancel a run that has not ended."""
    await service.writer.do(CANCEL, Cancel(run_id, who.key_id, service.clock()))
    return answered(202, _run_of(service, run_id))


class _Stream(StreamingResponse):
    """Server-sent events, counted among their caller's streams until they end."""

    def __init__(self, events: AsyncIterator[str], counted: ExitStack):
        super().__init__(events, media_type="text/event-stream")
        self._counted = counted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._counted:
            await super().__call__(scope, receive, send)


async def _followed(
    service: Service,
    request: Request,
    who: Principal,
    read: Callable[[], dict[str, Any]],
    has_ended: Callable[[dict[str, Any]], bool],
) -> StreamingResponse:
    """Send what `read` gives whenever it has changed, and a comment now and then so that nobody hangs up.

    The stream ends with the right to it, and at its longest life; whoever follows on asks again.
    """
    token, path = request.scope["token"], request.url.path
    ends_at = time.monotonic() + service.settings.stream_s
    first = await asyncio.to_thread(read)

    async def may_go_on() -> bool:
        if service.ending.is_set() or time.monotonic() >= ends_at or await request.is_disconnected():
            return False
        try:
            if service.keyring.recall(token) is None:
                await asyncio.to_thread(service.keyring.identify, token)
        except Unauthenticated:
            return False
        return True

    async def events() -> AsyncIterator[str]:
        now, last, silent_s = first, "", 0.0
        while True:
            data = json.dumps(now, ensure_ascii=False)
            if data != last:
                last, silent_s = data, 0.0
                yield f"event: {now['state']}\ndata: {data}\n\n"
            elif silent_s >= KEEP_ALIVE_S:
                silent_s = 0.0
                yield ": still here\n\n"
            if has_ended(now):
                return
            await asyncio.sleep(WATCH_S)
            if not await may_go_on():
                return
            silent_s += WATCH_S
            now = await service.streams.latest(path, read)

    counted = ExitStack()
    counted.enter_context(service.streams.of(caller_of(request, who), path))
    return _Stream(events(), counted)


async def _move(service: Service, who: Principal, handler: Handler, market_id: str) -> Response:
    await service.writer.do(handler, Step(market_id, who.key_id, service.clock()))
    return answered(200, market_of(service, market_id))


def market_of(service: Service, market_id: str) -> dict[str, Any]:
    """Document of a market as it is now."""
    now = service.clock()
    with service.engine.connect() as connection:
        row = row_of(connection, markets, market_id)
        document = _market(connection, row, now)
    _latch(service, [row], now)
    return document


def _latch(service: Service, rows: Sequence[Any], now: datetime) -> None:
    """See to it that a gate that is about to be shown open or closed stays so, should the clock step back."""
    states = {row.id: state_at(row, now) for row in rows}
    new = {row.id: states[row.id] for row in rows if row.stage is None and is_new(row, states[row.id])}
    if new:
        service.writer.do_now(LATCH, Seen(new, now))


def _market(connection: Connection, row: Any, now: datetime) -> dict[str, Any]:
    newest = select(func.max(versions.c.price_version)).where(versions.c.market_id == row.id)
    return {
        "id": row.id,
        "name": row.name,
        "state": state_at(row, now),
        "feeder_id": row.feeder_id,
        "feeder": row.feeder,
        "trade_date": row.trade_date,
        "market_timezone": row.timezone,
        "currency": row.currency,
        "interval_minutes": row.interval_minutes,
        "intervals": row.intervals,
        "starts_at": rfc3339(row.starts_at),
        "ends_at": rfc3339(interval_start(row, row.intervals)),
        "gate_opens_at": rfc3339(row.gate_opens_at),
        "gate_closes_at": rfc3339(row.gate_closes_at),
        "price_floor_usd_per_mwh": row.price_floor,
        "price_cap_usd_per_mwh": row.price_cap,
        "inputs": row.inputs,
        "takes_blocks": row.takes_blocks,
        "bids_public_at": rfc3339_or_none(bids_public_at(row)),
        "price_version": connection.execute(newest).scalar_one(),
        "created_at": rfc3339(row.created_at),
    }


RUN_COLUMNS = [column for column in runs.c if column.name != "snapshot"]


def _run_of(service: Service, run_id: str) -> dict[str, Any]:
    with service.engine.connect() as connection:
        return _run(row_of(connection, runs, run_id, RUN_COLUMNS))


def _run(row: Any) -> dict[str, Any]:
    names = (
        *("id", "market_id", "number", "kind", "state", "reason", "correction_reason", "settings", "settling"),
        *("corrected_inputs", "snapshot_sha256", "requested_by", "attempts", "progress", "summary"),
    )
    times = ("created_at", "started_at", "ended_at")
    return {name: getattr(row, name) for name in names} | {name: rfc3339_or_none(getattr(row, name)) for name in times}
