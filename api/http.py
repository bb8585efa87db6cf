"""The edge to HTTP: strict bodies, problem details for every error, request ids, logs and metrics.

Bodies are cut off at their limit before they are parsed, and nothing that was sent is repeated in an answer.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.clock import Clock
from api.errors import MEDIA_TYPE, BadRequest, Refusal, TooLarge, Unprocessable, UnsupportedMedia
from api.faults import faults_of
from api.identity import new_id
from api.schemas.bids import PRODUCTS
from api.strictjson import strict_loads

JSON = "application/json"
REQUEST_ID = "x-request-id"
LARGE_BODY = 64 * 1024
"""A body of more bytes is parsed beside the event loop, where others are served meanwhile."""
BROKEN = "Something went wrong here; the request id finds it in the log."
TITLES = {404: "Not found", 405: "Method not allowed"}
log = structlog.get_logger("dlmp.http")


class _StrictRequest(Request):
    """A request whose JSON is parsed strictly."""

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            body = await self.body()
            is_large = len(body) > LARGE_BODY
            self._json = await asyncio.to_thread(strict_loads, body) if is_large else strict_loads(body)
        return self._json


class StrictRoute(APIRoute):
    """A route with strict JSON bodies, whose refusals become problem details.

    A dependency with an attribute `admit`, a coroutine function of the request, is asked before the body is read.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler."""
        handler = super().get_route_handler()
        found = (getattr(part.call, "admit", None) for part in self.dependant.dependencies)
        admissions = [admit for admit in found if admit is not None]

        async def strict(request: Request) -> Response:
            for admit in admissions:
                await admit(request)
            wanted = getattr(self.body_field.field_info, "media_type", JSON) if self.body_field is not None else None
            if wanted is not None and not _is_of(wanted, request.headers):
                message = f"The body must be {wanted}, and its Content-Type say so."
                raise UnsupportedMedia("unsupported_media_type", message)
            try:
                return await handler(_StrictRequest(request.scope, request.receive))
            except StarletteHTTPException as error:
                if isinstance(error.__cause__, Refusal):
                    raise error.__cause__ from None
                raise

        return strict


def _is_of(wanted: str, headers: Headers) -> bool:
    """Whether a body is of a media type by its header; one that is empty is missing instead."""
    kind = headers.get("content-type")
    if kind is None:
        return headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
    return kind.partition(";")[0].strip().lower() == wanted


def problem(request: Request, refusal: Refusal) -> Response:
    """Answer with the problem details of a refusal."""
    body = refusal.body(request.scope.get("request_id", ""))
    return JSONResponse(body, refusal.status, headers=refusal.headers, media_type=MEDIA_TYPE)


def handle_errors(app: FastAPI) -> None:
    """Make problem details of everything that goes wrong in `app`."""

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        return problem(request, error)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        found = []
        for item in error.errors():
            place, *where = item["loc"]
            if item["type"] == "json_invalid":
                return problem(request, BadRequest("not_json", "The body must be one JSON document."))
            prefix = () if place == "body" else (str(place),)
            found.append(dict(item) | {"loc": (*prefix, *where)})
        return problem(request, Unprocessable(faults_of(found, PRODUCTS)))

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, StarletteHTTPException)
        title = TITLES.get(error.status_code, "Request refused")
        headers = dict(error.headers or {})
        path = getattr(request.scope.get("route"), "path", "")
        if error.status_code == 405 and path in app.openapi()["paths"]:  # the header has those of one route alone
            headers["Allow"] = ", ".join(sorted(method.upper() for method in app.openapi()["paths"][path]))
        refusal = Refusal(title.lower().replace(" ", "_"), f"{title}.", headers=headers)
        body = refusal.body(request.scope.get("request_id", "")) | {"title": title, "status": error.status_code}
        return JSONResponse(body, error.status_code, headers=refusal.headers, media_type=MEDIA_TYPE)

    app.add_exception_handler(Refusal, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(StarletteHTTPException, http_error)


class Metrics:
    """What is counted for Prometheus."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self.requests = Counter("dlmp_requests", "Requests answered.", labels, registry=self.registry)
        self.seconds = Histogram(
            "dlmp_request_seconds", "Time to answer [s].", ("method", "route"), registry=self.registry
        )
        self.runs = Counter("dlmp_runs", "Runs ended.", ("state",), registry=self.registry)
        self.deliveries = Counter(
            "dlmp_webhook_attempts",
            "Attempts to deliver, by what the delivery was then.",
            ("state",),
            registry=self.registry,
        )
        self._known: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answer."""
        key = method, route, status
        if key not in self._known:  # looking labels up each time takes longer than counting
            self._known[key] = self.requests.labels(*key), self.seconds.labels(method, route)
        requests, times = self._known[key]
        requests.inc()
        times.observe(seconds)


class Edge:
    """ASGI middleware: a request id, the time of receipt, the body's limit, a log line and metrics of each request.

    A request is received, ``received_at`` of its scope, when the last byte of its body is here.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int, metrics: Metrics, clock: Clock):
        self._app, self._limit, self._metrics, self._clock = app, max_body_bytes, metrics, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, request_id, status, is_begun = time.perf_counter(), new_id("req"), 500, False
        scope["request_id"] = request_id
        structlog.contextvars.bind_contextvars(request_id=request_id)

        async def answer(message: Message) -> None:
            nonlocal status, is_begun
            if message["type"] == "http.response.start":
                status, is_begun = message["status"], True
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID] = request_id
                headers.setdefault("cache-control", "no-store")
                headers["x-content-type-options"] = "nosniff"
            await send(message)

        try:
            await self._limited(scope, receive, answer)
        except Exception:
            if not is_begun:
                await problem(Request(scope), Refusal("internal", BROKEN))(scope, receive, answer)
            raise
        finally:
            seconds = time.perf_counter() - began
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.count(scope["method"], route, status, seconds)
            log.info(
                "request",
                request_id=request_id,
                method=scope["method"],
                route=route,
                status=status,
                seconds=round(seconds, 6),
                key=scope.get("key_id", ""),
            )

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        declared = Headers(scope=scope).get("content-length", "0")
        if not declared.isdecimal() or int(declared) > self._limit:
            await problem(Request(scope), self._too_large())(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                raise self._too_large()
            if not message.get("more_body", False):
                scope.setdefault("received_at", self._clock())
            return message

        await self._app(scope, counted, send)

    def _too_large(self) -> TooLarge:
        return TooLarge("too_large", f"The body may have at most {self._limit} bytes.")
