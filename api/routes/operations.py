"""Audit, health and metrics."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response
from prometheus_client import generate_latest
from sqlalchemy import select
from starlette.responses import PlainTextResponse

from api.auth import Principal
from api.clock import rfc3339
from api.errors import Unavailable
from api.http import StrictRoute
from api.integrity import faults_in_store
from api.routes.common import Cursor, Limit, ServiceHere, answered, cursor_of, refusals, requires, row_position
from api.schemas.common import Page
from api.schemas.operations import AuditCheck, EntryOut, Health
from api.store.database import steady
from api.store.tables import audit, chain

router = APIRouter(route_class=StrictRoute)
CanMeasure = Annotated[Principal, Depends(requires("metrics:read"))]
Order = Annotated[Literal["oldest_first", "newest_first"], Query(description="Which change comes first.")]
CanAudit = Annotated[Principal, Depends(requires("audit:read"))]


@router.get(
    "/v1/audit",
    tags=["audit"],
    summary="Read the audit chain",
    response_model=Page[EntryOut],
    responses=refusals(400, 403, 422),
)
def read_audit(
    service: ServiceHere, who: CanAudit, order: Order = "oldest_first", cursor: Cursor = None, limit: Limit = 100
) -> Response:
    """Read who changed what, and when, from the first change on, or from the last one back."""
    last = row_position(cursor)
    query = select(audit).limit(limit + 1)
    if order == "oldest_first":
        query = query.where(audit.c.sequence > last).order_by(audit.c.sequence)
    else:
        query = query.order_by(audit.c.sequence.desc())
        query = query.where(audit.c.sequence < last) if last else query
    with service.engine.connect() as connection:
        rows = connection.execute(query).all()
    following = cursor_of(rows[limit - 1].sequence) if len(rows) > limit else None
    return answered(200, {"items": [_entry(row) for row in rows[:limit]], "next_cursor": following})


@router.get(
    "/v1/audit/verify",
    tags=["audit"],
    summary="Verify the audit chain",
    response_model=AuditCheck,
    responses=refusals(403),
)
def verify_audit(service: ServiceHere, who: CanAudit) -> Response:
    """Compare every hash with what it stands for; a byte that was altered is found."""
    with steady(service.engine) as connection:
        found = list(faults_in_store(connection))
        head = connection.execute(select(chain)).one()
    return answered(200, {"is_whole": not found, "entries": head.sequence, "head": head.hash, "faults": found})


@router.get("/healthz", tags=["health"], summary="Is the process alive", response_model=Health)
async def healthz() -> Response:
    """Answer as long as the process lives."""
    return answered(200, {"status": "ok"})


@router.get("/readyz", tags=["health"], summary="Is the service ready", response_model=Health, responses=refusals(503))
def readyz(service: ServiceHere) -> Response:
    """Answer 200 when the database answers and jobs are taken."""
    try:
        with service.engine.connect() as connection:
            connection.execute(select(chain.c.sequence)).one()
    except Exception:
        raise Unavailable("The database does not answer.") from None
    if not service.writer.accepts:
        raise Unavailable("The service is ending.")
    return answered(200, {"status": "ready"})


@router.get(
    "/metrics",
    tags=["health"],
    summary="Metrics for Prometheus",
    response_class=PlainTextResponse,
    responses=refusals(403),
)
async def metrics(service: ServiceHere, who: CanMeasure) -> Response:
    """Give counts and times of requests and runs; they tell how much others bid, and so need a key."""
    return Response(generate_latest(service.metrics.registry), media_type="text/plain; version=0.0.4")


def _entry(row: Any) -> dict[str, Any]:
    names = ("sequence", "actor", "action", "target", "before", "after", "rows", "previous_hash", "hash")
    return {name: getattr(row, name) for name in names} | {"at": rfc3339(row.at)}
