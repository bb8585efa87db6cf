"""Webhooks: registered by those who want to be told of events, and tried."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Response
from sqlalchemy import select

from api import webhooks as hooks
from api.auth import AUDITOR, Principal
from api.clock import rfc3339_or_none
from api.errors import Unprocessable
from api.http import StrictRoute
from api.registry import Asked
from api.routes.common import (
    Cursor,
    Limit,
    ServiceHere,
    answered,
    cursor_of,
    refusals,
    requires,
    text_position,
)
from api.schemas.common import Id, Page
from api.schemas.webhooks import DeliveryOut, NewWebhookOut, Notice, WebhookIn, WebhookOut
from api.store.rows import row_of
from api.store.tables import deliveries, webhooks
from api.store.writer import each

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"], route_class=StrictRoute)
ADD, DELETE, PING = each(hooks.add_webhook), each(hooks.delete_webhook), each(hooks.ping)
CanRead = Annotated[Principal, Depends(requires("webhooks:read"))]
CanWrite = Annotated[Principal, Depends(requires("webhooks:write"))]
told = APIRouter(tags=["webhooks"])
WebhookId = Annotated[Id, Path(description="Name of the webhook.")]


@router.post(
    "",
    status_code=201,
    summary="Register a webhook",
    response_model=NewWebhookOut,
    responses=refusals(400, 403, 413, 422),
)
async def add_webhook(body: WebhookIn, service: ServiceHere, who: CanWrite) -> Response:
    """Register where events are sent; the secret that verifies them is in this answer only."""
    faults: Any = ()
    try:
        await service.destinations.check(body.url)
    except Unprocessable as refusal:
        faults = refusal.faults
    secret = hooks.new_secret()
    more = {"participant_id": who.participant_id, "secret": secret, "faults": faults}
    content = body.model_dump() | more | {"most": service.settings.max_webhooks}
    name = await service.writer.do(ADD, Asked(who.key_id, service.clock(), content))
    with service.engine.connect() as connection:
        return answered(201, _webhook(row_of(connection, webhooks, name)) | {"secret": secret})


@router.get("", summary="List webhooks", response_model=Page[WebhookOut], responses=refusals(400, 403, 422))
def list_webhooks(service: ServiceHere, who: CanRead, cursor: Cursor = None, limit: Limit = 100) -> Response:
    """List your webhooks, operators those of the operators; an auditor sees all."""
    query = select(webhooks).where(webhooks.c.deleted_at.is_(None), webhooks.c.id > text_position(cursor))
    if who.role != AUDITOR:
        query = query.where(webhooks.c.participant_id == who.participant_id)
    with service.engine.connect() as connection:
        rows = connection.execute(query.order_by(webhooks.c.id).limit(limit + 1)).all()
    following = cursor_of(rows[limit - 1].id) if len(rows) > limit else None
    return answered(200, {"items": [_webhook(row) for row in rows[:limit]], "next_cursor": following})


@router.get("/{webhook_id}", summary="Read a webhook", response_model=WebhookOut, responses=refusals(403, 404, 422))
def read_webhook(webhook_id: WebhookId, service: ServiceHere, who: CanRead) -> Response:
    """Read a webhook of yours."""
    with service.engine.connect() as connection:
        return answered(200, _webhook(_own(connection, webhook_id, who)))


@router.delete(
    "/{webhook_id}", summary="Delete a webhook", response_model=WebhookOut, responses=refusals(403, 404, 422)
)
async def delete_webhook(webhook_id: WebhookId, service: ServiceHere, who: CanWrite) -> Response:
    """Delete a webhook and its secret; what waits for it is not sent any more."""
    await service.writer.do(DELETE, _asked(service, webhook_id, who))
    with service.engine.connect() as connection:
        return answered(200, _webhook(row_of(connection, webhooks, webhook_id)))


@router.post(
    "/{webhook_id}/ping",
    status_code=202,
    summary="Try a webhook",
    response_model=DeliveryOut,
    responses=refusals(403, 404, 409, 422),
)
async def ping(webhook_id: WebhookId, service: ServiceHere, who: CanWrite) -> Response:
    """Send a `ping`, once; a webhook that was disabled is enabled when its receiver takes it."""
    name = await service.writer.do(PING, _asked(service, webhook_id, who))
    with service.engine.connect() as connection:
        return answered(202, _delivery(row_of(connection, deliveries, name)))


@router.get(
    "/{webhook_id}/deliveries",
    summary="List deliveries",
    response_model=Page[DeliveryOut],
    responses=refusals(400, 403, 404, 422),
)
def list_deliveries(
    webhook_id: WebhookId, service: ServiceHere, who: CanRead, cursor: Cursor = None, limit: Limit = 100
) -> Response:
    """List what a webhook of yours was told in the last 30 days, and what became of it, the newest first."""
    query, last = select(deliveries).where(deliveries.c.webhook_id == webhook_id), text_position(cursor)
    if last:  # by its name, for numbers count those of others too
        query = query.where(
            deliveries.c.number < select(deliveries.c.number).where(deliveries.c.id == last).scalar_subquery()
        )
    with service.engine.connect() as connection:
        _own(connection, webhook_id, who)
        rows = connection.execute(query.order_by(deliveries.c.number.desc()).limit(limit + 1)).all()
    following = cursor_of(rows[limit - 1].id) if len(rows) > limit else None
    return answered(200, {"items": [_delivery(row) for row in rows[:limit]], "next_cursor": following})


@told.post(
    "event",
    status_code=204,
    summary="Be told of an event",
    response_description="Taken; so is any other answer 2xx.",
    responses={"default": {"description": "Not taken: it is sent again later."}},
)
def event(
    body: Notice,
    webhook_id: Annotated[str, Header(description="Name of the delivery, the same at every attempt.")],
    webhook_timestamp: Annotated[int, Header(description="When it was sent: seconds since 1970.")],
    webhook_signature: Annotated[str, Header(description="`v1,` and the HMAC-SHA256 of name, time and body.")],
) -> None:
    """What the receiver of a webhook is sent."""


def _own(connection: Any, webhook_id: str, who: Principal) -> Any:
    return hooks.webhook_of(connection, webhook_id, who.participant_id, sees_all=who.role == AUDITOR)


def _asked(service: Any, webhook_id: str, who: Principal) -> Asked:
    return Asked(who.key_id, service.clock(), {"id": webhook_id, "participant_id": who.participant_id})


def _webhook(row: Any) -> dict[str, Any]:
    names = ("id", "participant_id", "url", "events", "market_id", "feeder", "disabled_reason")
    return {name: getattr(row, name) for name in names} | _times(row, "created_at", "disabled_at")


def _delivery(row: Any) -> dict[str, Any]:
    names = ("id", "event", "content", "state", "attempts", "status", "error")
    times = _times(row, "created_at", "next_attempt_at", "ended_at")
    return {name: getattr(row, name) for name in names} | times


def _times(row: Any, *names: str) -> dict[str, str | None]:
    return {name: rfc3339_or_none(getattr(row, name)) for name in names}
