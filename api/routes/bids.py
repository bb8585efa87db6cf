"""Bids: submit, amend, withdraw, read."""

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from sqlalchemy import ColumnElement, and_, select, tuple_

from api.auth import Principal
from api.bidding import Amend, Place, Reply, Submission
from api.clock import rfc3339
from api.errors import BadRequest, Forbidden, NotFound, PreconditionFailed
from api.faults import checked
from api.gate import interval_start
from api.http import StrictRoute
from api.offers import Terms
from api.routes.common import (
    Cursor,
    Limit,
    Responses,
    ServiceHere,
    answered,
    bid_position,
    cursor_of,
    refusals,
    requires,
    service_of,
)
from api.schemas.bids import BID, PRODUCTS, Batch, Bid, BidOut, Receipt
from api.schemas.common import Id, Page
from api.service import Service
from api.store.tables import bids, markets, submissions

router = APIRouter(prefix="/v1/bids", tags=["bids"], route_class=StrictRoute)
CanWrite = Annotated[Principal, Depends(requires("bids:write"))]
CanRead = Annotated[Principal, Depends(requires("bids:read"))]
BidId = Annotated[Id, Path(description="Name of the bid.")]
IdempotencyKey = Annotated[
    str | None,
    Header(description="Your own name for this request; sent again with the same body it has one effect only."),
]
IfMatch = Annotated[str | None, Header(description="`ETag` of the version that you read.")]
PARTLY: Responses = {207: {"model": Receipt, "description": "Some of the bids were refused."}}
NUMBERED = select(bids, submissions.c.number).join(submissions, submissions.c.sequence == bids.c.sequence)
"""Bids, each with its participant's own number of the submission that brought it."""
OFFER_FIELDS = {"market_id", "resource_id", "interval_start", "interval_end", "product"}


@router.post(
    "",
    status_code=201,
    summary="Place a bid",
    response_model=Receipt,
    responses=refusals(400, 403, 409, 413, 422),
)
async def place(request: Request, body: Bid, who: CanWrite, idempotency_key: IdempotencyKey = None) -> Response:
    """Place one bid; the receipt comes when it is on disk."""
    return await _submit(request, who, idempotency_key, [Place(_terms(body))])


@router.post(
    "/batch",
    status_code=201,
    summary="Place many bids",
    response_model=Receipt,
    responses=PARTLY | refusals(400, 403, 409, 413, 422),
)
async def place_batch(request: Request, body: Batch, who: CanWrite, idempotency_key: IdempotencyKey = None) -> Response:
    """Place up to 1,000 bids, all or none of them (`atomic`) or each on its own (`per_item`)."""
    changes = await asyncio.to_thread(_places, body.bids)
    is_atomic = body.mode == "atomic"
    return await _submit(request, who, idempotency_key, changes, is_atomic=is_atomic, is_batch=True)


@router.put(
    "/{bid_id}",
    summary="Amend a bid",
    response_model=Receipt,
    responses=refusals(400, 403, 404, 409, 412, 413, 422),
)
async def amend(
    request: Request,
    bid_id: BidId,
    body: Bid,
    who: CanWrite,
    idempotency_key: IdempotencyKey = None,
    if_match: IfMatch = None,
) -> Response:
    """Put a new version in place of a bid, as long as its gate is open and nobody was faster."""
    change = Amend(bid_id, _version(bid_id, if_match), _terms(body))
    return await _submit(request, who, idempotency_key, [change])


@router.delete(
    "/{bid_id}", summary="Withdraw a bid", response_model=Receipt, responses=refusals(400, 403, 404, 409, 412, 422)
)
async def withdraw(
    request: Request,
    bid_id: BidId,
    who: CanWrite,
    idempotency_key: IdempotencyKey = None,
    if_match: IfMatch = None,
) -> Response:
    """Withdraw a bid, as long as its gate is open and nobody was faster."""
    change = Amend(bid_id, _version(bid_id, if_match), None)
    return await _submit(request, who, idempotency_key, [change])


@router.get("", summary="List bids", response_model=Page[BidOut], responses=refusals(400, 403, 422))
def list_bids(
    service: ServiceHere,
    who: CanRead,
    market_id: Annotated[Id | None, Query(description="Only those in this market.")] = None,
    state: Annotated[str | None, Query(description="Only those in this state.", pattern="^[a-z]+$")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Response:
    """List every version of your bids in the order of their acceptance; an auditor and an operator see all."""
    number = bids.c.sequence if who.sees_all else submissions.c.number
    wanted: list[ColumnElement[bool]] = [tuple_(number, bids.c.id) > bid_position(cursor)]
    if not who.sees_all:
        wanted.append(bids.c.participant_id == who.participant_id)
    if market_id is not None:
        wanted.append(bids.c.market_id == market_id)
    if state is not None:
        wanted.append(bids.c.state == state)
    query = NUMBERED.where(and_(*wanted)).order_by(number, bids.c.id).limit(limit + 1)
    with service.engine.connect() as connection:
        rows = connection.execute(query).all()
        names = {row.market_id for row in rows}
        of = {row.id: row for row in connection.execute(select(markets).where(markets.c.id.in_(names)))}
    items = [_bid(row, of[row.market_id]) for row in rows[:limit]]
    following = None
    if len(rows) > limit:
        last = rows[limit - 1]
        following = cursor_of([last.sequence if who.sees_all else last.number, last.id])
    return answered(200, {"items": items, "next_cursor": following})


@router.get("/{bid_id}", summary="Read a bid", response_model=BidOut, responses=refusals(403, 404, 422))
def read(bid_id: BidId, service: ServiceHere, who: CanRead) -> Response:
    """Read the newest version of a bid; its `ETag` is what an amendment needs."""
    newest = _history(service, who, bid_id)[-1]
    return answered(200, newest, {"ETag": _etag(bid_id, newest["version"])})


@router.get(
    "/{bid_id}/history",
    summary="Read all versions of a bid",
    response_model=Page[BidOut],
    responses=refusals(403, 404, 422),
)
def history(bid_id: BidId, service: ServiceHere, who: CanRead) -> Response:
    """Read every version of a bid, the first one first."""
    return answered(200, {"items": _history(service, who, bid_id), "next_cursor": None})


async def _submit(
    request: Request,
    who: Principal,
    idempotency_key: str | None,
    changes: Sequence[Place | Amend],
    *,
    is_atomic: bool = True,
    is_batch: bool = False,
) -> Response:
    content, service = await request.body(), await service_of(request)  # as a dependency it would take longer
    if not idempotency_key or len(idempotency_key) > 200 or not idempotency_key.isprintable():
        raise BadRequest("idempotency_key_needed", "The header Idempotency-Key must have 1 to 200 characters.")
    if who.participant_id is None:
        raise Forbidden("no_participant", "Only a participant's key may bid.")
    submission = Submission(
        participant_id=who.participant_id,
        key_id=who.key_id,
        idempotency_key=idempotency_key,
        content=content,
        received_at=request.scope["received_at"],
        changes=changes,
        is_atomic=is_atomic,
        is_batch=is_batch,
    )
    reply: Reply = await service.submit(submission)
    headers = {"Idempotent-Replay": "true"} if reply.is_again else None
    return Response(reply.document, reply.status, headers, media_type="application/json")


def _places(items: Sequence[object]) -> list[Place]:
    places = []
    for item in items:
        bid, faults = checked(BID, item, PRODUCTS)
        places.append(Place(None if bid is None else _terms(bid), faults))
    return places


def _terms(bid: Any) -> Terms:
    offer = bid.model_dump(exclude=OFFER_FIELDS)
    return Terms(bid.market_id, bid.resource_id, bid.interval_start, bid.interval_end, bid.product, offer)


def _etag(bid_id: str, version: int) -> str:
    return '"' + hashlib.sha256(f"{bid_id} {version}".encode()).hexdigest()[:16] + f'-{version}"'


def _version(bid_id: str, if_match: str | None) -> int:
    """Newest version that an ``If-Match`` names."""
    if if_match is None:
        raise BadRequest("if_match_needed", "The header If-Match must hold the ETag of the version that you read.")
    named = []
    for tag in if_match.split(","):
        text = tag.strip().strip('"').rpartition("-")[2]
        if text.isdecimal() and len(text) < 10 and _etag(bid_id, int(text)) == tag.strip():
            named.append(int(text))
    if named:
        return max(named)  # an older one cannot be the newest
    if if_match.strip() == "*":
        raise BadRequest("if_match_needed", "If-Match must name the version that you read, which * does not.")
    raise PreconditionFailed("bid_changed", "If-Match is not the ETag of a version of this bid.")


def _history(service: Service, who: Principal, bid_id: str) -> list[dict[str, Any]]:
    with service.engine.connect() as connection:
        rows = connection.execute(NUMBERED.where(bids.c.id == bid_id).order_by(bids.c.version)).all()
        if not rows or not (who.sees_all or rows[0].participant_id == who.participant_id):
            raise NotFound("bid")
        market = connection.execute(select(markets).where(markets.c.id == rows[0].market_id)).one()
    return [_bid(row, market) for row in rows]


def _bid(row: Any, market: Any) -> dict[str, Any]:
    return {
        "id": row.id,
        "version": row.version,
        "state": row.state,
        "market_id": row.market_id,
        "resource_id": row.resource_id,
        "product": row.product,
        "interval_start": rfc3339(interval_start(market, row.first_interval)),
        "interval_end": rfc3339(interval_start(market, row.last_interval + 1)),
        "terms": row.terms,
        "received_at": rfc3339(row.received_at),
        "sequence": row.number,
        "content_sha256": row.content_sha256,
    }
