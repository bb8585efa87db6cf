"""The console: its page, the session of a browser, and what pictures are drawn from."""

import asyncio
import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi import Path as PathParameter
from sqlalchemy import and_, select
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles

from api import session
from api.auth import NOBODY, Principal
from api.clock import rfc3339
from api.errors import Fault, Forbidden, NotFound, Unauthenticated, Unprocessable
from api.gate import interval_start
from api.http import StrictRoute
from api.picture import FORM, QUANTITIES, diagram, drawn
from api.publication import version_of
from api.routes.common import (
    IfNoneMatch,
    ServiceHere,
    address_of,
    answered,
    cache_headers,
    is_known,
    requires,
    unchanged,
)
from api.routes.markets import market_of
from api.schemas.common import Id
from api.schemas.console import BidFileIn, SessionIn
from api.service import Service
from api.store.rows import row_of
from api.store.tables import markets, participants, resources
from dlmp.client.bidfile import PROFILE_FILE, read_bids
from dlmp.client.records import Market, Resource
from dlmp.errors import InputError, Problem

FOLDER = Path(__file__).parent.parent / "console"
ASSETS = "/console/assets"
POLICY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""What the page may do: load what is here, and ask nobody else."""
router = APIRouter(route_class=StrictRoute, include_in_schema=False)
MarketId = Annotated[Id, PathParameter(description="Name of the market.")]
Version = Annotated[int | None, Query(alias="price_version", ge=1)]
CanReadPrices = Annotated[Principal, Depends(requires("prices:read"))]
STATE = "runs:read"
"""Scope of those who may see the state of the network."""
MOST_FAULTS = 200
CanBid = Annotated[Principal, Depends(requires("bids:write"))]


def serve_console(app: FastAPI) -> None:
    """Give `app` the page's files."""
    app.mount(ASSETS, StaticFiles(directory=FOLDER), name="console")


@router.get("/")
async def page() -> Response:
    """Give the page; all of it is drawn by its scripts."""
    return FileResponse(FOLDER / "index.html", media_type="text/html; charset=utf-8", headers=POLICY)


@router.get("/console/session")
async def read_session(request: Request, service: ServiceHere) -> Response:
    """Say who is signed in; nobody, too."""
    key = session.kept_key(request)
    service.keyring.count_stranger(key, address_of(request))
    try:
        who = NOBODY if key is None else await asyncio.to_thread(service.keyring.identify, key)
    except Unauthenticated:
        gone = await _seated(service, NOBODY, None)
        session.end(gone, request)
        return gone
    return await _seated(service, who, key)


class _Beginner:
    """A dependency that refuses other sites, and counts whoever signs in, before the body is read."""

    async def __call__(self) -> None:
        """Give nothing."""

    async def admit(self, request: Request) -> None:
        """Refuse what another site's page sends; count the rest."""
        if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            raise Forbidden("forged", "A session begins at this service's own page.")
        request.app.state.service.keyring.count(address_of(request))


@router.post("/console/session", dependencies=[Depends(_Beginner())])
async def begin_session(body: SessionIn, request: Request, service: ServiceHere) -> Response:
    """Sign in with an API key."""
    who = await asyncio.to_thread(service.keyring.identify, body.key)
    begun = await _seated(service, who, body.key)
    session.begin(begun, request, body.key)
    return begun


@router.delete("/console/session")
async def end_session(request: Request, service: ServiceHere) -> Response:
    """Sign out."""
    ended = await _seated(service, NOBODY, None)
    session.end(ended, request)
    return ended


@router.get("/console/markets/{market_id}/picture")
def read_picture(
    market_id: MarketId,
    service: ServiceHere,
    who: CanReadPrices,
    price_version: Version = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Give places of nodes and branches, the intervals, and the quantities that may be drawn."""
    with service.engine.connect() as connection:
        market, version, *_ = version_of(connection, market_id, price_version)
        etag = _etag(version.run_id, version.price_version, _sees_state(who))
        if is_known(etag, if_none_match):
            return unchanged(etag)
        places = diagram(connection, version.run_id)
    starts = [rfc3339(interval_start(market, number)) for number in range(market.intervals)]
    shown = [
        {"name": name, "of": quantity.of, "unit": quantity.unit.format(currency=market.currency)}
        for name, quantity in QUANTITIES.items()
        if quantity.is_public or _sees_state(who)
    ]
    head = {"price_version": version.price_version, "starts": starts, "timezone": market.timezone}
    return answered(200, head | {"currency": market.currency, "quantities": shown} | places, cache_headers(etag))


@router.get("/console/markets/{market_id}/picture/{quantity}")
def read_quantity(
    market_id: MarketId,
    quantity: str,
    service: ServiceHere,
    who: CanReadPrices,
    price_version: Version = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Give a quantity as 32-bit floats, interval after interval, in the order of the picture's nodes or branches."""
    if quantity not in QUANTITIES:
        raise NotFound("quantity")
    if not QUANTITIES[quantity].is_public:
        who.require(STATE)
    with service.engine.connect() as connection:
        market, version, *_ = version_of(connection, market_id, price_version)
        etag = _etag(version.run_id, quantity)
        if is_known(etag, if_none_match):
            return unchanged(etag)
        content = drawn(connection, version.run_id, quantity, market.intervals)
    return Response(content, headers=cache_headers(etag), media_type="application/octet-stream")


def _etag(*what: object) -> str:
    """Entity tag of what is made of a run, in the form that pictures have now (RFC 9110, 8.8.3)."""
    return '"' + hashlib.sha256(repr((FORM, *what)).encode()).hexdigest()[:32] + '"'


def _sees_state(who: Principal) -> bool:
    """Whether voltages and loading are theirs to see."""
    return STATE in who.scopes


@router.post("/console/markets/{market_id}/bid-file")
def read_bid_file(market_id: MarketId, body: BidFileIn, service: ServiceHere, who: CanBid) -> Response:
    """Make bids of a table of bids, to be placed by whoever sent it, each with its lines in the table."""
    with service.engine.connect() as connection:
        row = row_of(connection, markets, market_id)
        own = and_(
            resources.c.participant_id == who.participant_id,
            resources.c.feeder == row.feeder,
            resources.c.retired_at.is_(None),
        )
        found = [Resource.of(_resource(one)) for one in connection.execute(select(resources).where(own))]
    market = Market.of(market_of(service, market_id))
    with tempfile.TemporaryDirectory(prefix="dlmp-bids-") as folder:
        for name, text in (("bids.csv", body.text), (PROFILE_FILE, body.profile)):
            if text is not None:
                (Path(folder) / name).write_bytes(text.encode())
        try:
            bids = read_bids(Path(folder) / "bids.csv", market, found)
        except InputError as error:
            raise Unprocessable(_faults(error.problems, folder)) from None
    return answered(200, {"bids": [bid.body() for bid in bids.bids], "lines": [list(lines) for lines in bids.lines]})


def _faults(problems: Sequence[Problem], folder: str) -> list[Fault]:
    told = [f"{one.element}, {one.field}: {one.message}".replace(f"{folder}/", "") for one in problems[:MOST_FAULTS]]
    if len(problems) > MOST_FAULTS:
        told.append(f"and {len(problems) - MOST_FAULTS:,} more")
    return [Fault("/text", "invalid_table", text) for text in told]


def _resource(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in ("id", "participant_id", "feeder", "name", "bus", "phase", "kind")} | {
        **row.limits,
        "retired_at": None,
    }


async def _seated(service: Service, who: Principal, key: str | None) -> Response:
    """Say who somebody is, and with a session its token."""
    name = await asyncio.to_thread(_participant, service, who.participant_id)
    told = {
        "role": who.role,
        "participant_id": who.participant_id,
        "participant": name,
        "key_id": who.key_id,
        "scopes": sorted(who.scopes),
        "csrf_token": None if key is None else session.forgery_token(key),
    }
    return answered(200, told)


def _participant(service: Service, participant_id: str | None) -> str | None:
    """Name of a participant; None is nobody's."""
    if participant_id is None:
        return None
    with service.engine.connect() as connection:
        name: str = row_of(connection, participants, participant_id, [participants.c.name]).name
    return name
