"""What routes share: who asks, where pages begin, and how errors are documented."""

import asyncio
import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request, Response
from fastapi.security import HTTPBearer
from fastapi.security.base import SecurityBase
from starlette.responses import JSONResponse

from api import session
from api.auth import NOBODY, Keyring, Principal
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
    """Whose streams are counted together: those of a key, or without one those of an address."""
    return address_of(request) if who is NOBODY else who.key_id


def address_of(request: Request) -> str:
    """Address that a request came from."""
    return request.client.host if request.client else ""


class requires(SecurityBase):  # noqa: N801
    """A dependency that gives who asks; a `StrictRoute` refuses those without `scope` before it reads a body.

    It depends on nothing itself, for FastAPI takes longer over each dependency than all of this.
    """

    model, scheme_name = BEARER.model, BEARER.scheme_name

    def __init__(self, scope: str):
        self._scope = scope

    async def __call__(self, request: Request) -> Principal:
        """Return who was admitted."""
        admitted: Principal = request.scope["principal"]
        return admitted

    async def admit(self, request: Request) -> None:
        """Find out who asks, count the request, and refuse those without the scope."""
        keyring: Keyring = request.app.state.service.keyring
        credentials = await BEARER(request)
        token = credentials.credentials if credentials else session.key_of(request)
        keyring.count_stranger(token, address_of(request))
        who = keyring.recall(token)
        if who is None:
            who = await asyncio.to_thread(keyring.identify, token)
        if token is not None:
            keyring.count(who.key_id)
        request.scope["key_id"], request.scope["token"] = who.key_id, token
        who.require(self._scope)
        request.scope["principal"] = who


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
    if not _is_number(position):
        raise _bad_cursor()
    return int(position)


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def version_position(cursor: str | None, wanted: int | None) -> tuple[int | None, int]:
    """Version that a page is of, None for the newest, and number of its first row; a `wanted` version is that."""
    match position_of(cursor):
        case None:
            return wanted, 0
        case [version, first] if _is_number(version) and _is_number(first) and wanted in (None, version):
            return version, first
    raise _bad_cursor()


def bid_position(cursor: str | None) -> tuple[int, str]:
    """Number of the submission, and name of the bid in it, after which a page begins."""
    match position_of(cursor):
        case None:
            return 0, ""
        case [number, str(name)] if _is_number(number) and re.fullmatch(ID_PATTERN, name):
            return number, name
    raise _bad_cursor()


def text_position(cursor: str | None) -> str:
    """Name after which a page begins."""
    position = position_of(cursor)
    if position is None:
        return ""
    if not isinstance(position, str) or not re.fullmatch(ID_PATTERN, position):
        raise _bad_cursor()
    return position


def cache_headers(etag: str) -> dict[str, str]:
    """What caches are told of something that changes with `etag`."""
    return {"ETag": etag, "Cache-Control": "private, no-cache", "Vary": "Authorization, Cookie"}


def is_known(etag: str, if_none_match: str | None) -> bool:
    """Whether an ``If-None-Match`` names what would be said (RFC 9110, weak comparison)."""
    known = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return etag in known or known == ["*"]


def unchanged(etag: str) -> Response:
    """The answer to someone who has it."""
    return Response(status_code=304, headers=cache_headers(etag))


IfNoneMatch = Annotated[str | None, Header(description="`ETag` of what you have.")]
Cursor = Annotated[str | None, Query(description="`next_cursor` of the page before.", max_length=500)]
Limit = Annotated[int, Query(ge=1, le=LARGEST_PAGE, description="Most items of a page.")]


def answered(status: int, document: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Answer with a document."""
    return JSONResponse(document, status, headers=dict(headers or {}))
