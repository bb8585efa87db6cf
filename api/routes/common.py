"""What routes share: who asks, where pages begin, and how errors are documented."""

import asyncio
import base64
import binascii
import json
import re
from collections.abc import Callable, Coroutine, Mapping
from typing import Annotated, Any

from fastapi import Depends, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.responses import JSONResponse

from api.auth import NOBODY, Principal
from api.errors import MEDIA_TYPE, BadRequest
from api.schemas.common import ID_PATTERN
from api.service import Service
from api.store.columns import canonical_json

BEARER = HTTPBearer(auto_error=False, description="An API key, as `dlmp key issue` prints it.")
LARGEST_PAGE = 1_000
CAN_REFUSE = {
    400: "The request cannot be read.",
    401: "No API key, or none that is known.",
    403: "The key's role or scopes do not reach.",
    404: "There is no such thing, or it is another's.",
    409: "The state of the thing does not allow it.",
    412: "It has changed since it was read.",
    413: "The body is larger than the limit.",
    415: "The body does not say that it is JSON.",
    422: "What was sent is wrong; `errors` has every problem, with a JSON pointer and a code.",
    429: "Too many requests, or streams at once, of this key or address.",
    503: "Not now.",
}
PROBLEM = {"$ref": "#/components/schemas/Problem"}
PROBLEM_EXAMPLE = {
    "type": "urn:dlmp:problem:gate_closed",
    "title": "Conflict",
    "status": 409,
    "detail": "The gate of the market is not open.",
    "code": "gate_closed",
    "request_id": "req_0f1e2d3c4b5a69788796a5b4",
    "errors": [{"pointer": "/market_id", "code": "gate_closed", "detail": "The market is closed."}],
}


Responses = dict[int | str, dict[str, Any]]
"""What FastAPI's routes take as ``responses``."""


def refusals(*codes: int) -> Responses:
    """Document the problem details that a route may answer with."""
    return {
        code: {
            "description": CAN_REFUSE[code],
            "content": {MEDIA_TYPE: {"schema": PROBLEM, "example": PROBLEM_EXAMPLE | {"status": code}}},
        }
        for code in sorted({*codes, 401, 429, 503} | ({415} if 413 in codes else set()))
    }


async def service_of(request: Request) -> Service:
    """Return the service that this application runs; async, for a thread would cost more than all of it."""
    found: Service = request.app.state.service
    return found


ServiceHere = Annotated[Service, Depends(service_of)]


def caller_of(request: Request, who: Principal) -> str:
    """Whose requests are counted together: those of a key, or without one those of an address."""
    address = request.client.host if request.client else ""
    return address if who is NOBODY else who.key_id


def requires(scope: str) -> Callable[..., Coroutine[Any, Any, Principal]]:
    """Make a dependency that gives who asks, and refuses those without `scope`."""

    async def principal(
        request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]
    ) -> Principal:
        service: Service = request.app.state.service
        token = credentials.credentials if credentials else None
        who = service.keyring.recall(token)
        if who is None:
            who = await asyncio.to_thread(service.keyring.identify, token)
        request.scope["key_id"] = who.key_id
        service.keyring.count(caller_of(request, who))
        who.require(scope)
        return who

    principal.scope = scope  # type: ignore[attr-defined]
    return principal


def cursor_of(position: object) -> str:
    """Write where a page begins, as text that means nothing to others."""
    return base64.urlsafe_b64encode(canonical_json(position).encode()).decode().rstrip("=")


def position_of(cursor: str | None) -> Any:
    """Read a cursor; None where there is none.

    Raises
    ------
    BadRequest
        When it is not one of ours.
    """
    if cursor is None:
        return None

    try:
        return json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError):
        raise _bad_cursor() from None


def _bad_cursor() -> BadRequest:
    return BadRequest("bad_cursor", "The cursor is none that this service gave out.")


def row_position(cursor: str | None) -> int:
    """Number of the first row of a page."""
    position = position_of(cursor)
    if position is None:
        return 0
    if isinstance(position, bool) or not isinstance(position, int) or not 0 <= position < 2**53:
        raise _bad_cursor()
    return position


def text_position(cursor: str | None) -> str:
    """Name after which a page begins."""
    position = position_of(cursor)
    if position is None:
        return ""
    if not isinstance(position, str) or not re.fullmatch(ID_PATTERN, position):
        raise _bad_cursor()
    return position


Cursor = Annotated[str | None, Query(description="`next_cursor` of the page before.", max_length=500)]
Limit = Annotated[int, Query(ge=1, le=LARGEST_PAGE, description="Most items of a page.")]


def answered(status: int, document: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Answer with a document."""
    return JSONResponse(document, status, headers=dict(headers or {}))
