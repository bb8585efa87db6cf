"""The console: its page, the session of a browser, and what pictures are drawn from."""

import asyncio
import tempfile
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi import Path as PathParameter
from sqlalchemy import Connection, and_, select
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles

from api import session
from api.auth import NOBODY, Principal
from api.clock import rfc3339
from api.errors import Fault, Forbidden, NotFound, Unauthenticated, Unprocessable
from api.gate import interval_start
from api.http import StrictRoute
from api.picture import QUANTITIES, diagram, values
from api.publication import published_versions
from api.routes.common import ServiceHere, address_of, answered, requires
from api.routes.markets import market_of
from api.schemas.common import Id
from api.schemas.console import BidFileIn, SessionIn
from api.store.rows import row_of
from api.store.tables import markets, resources
from dlmp.client.bidfile import read_bids
from dlmp.client.records import Market, Resource
from dlmp.errors import InputError

FOLDER = Path(__file__).parent.parent / "console"
ASSETS = "/console/assets"
POLICY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""What the page may do: load what is here, and ask nobody else."""
router = APIRouter(route_class=StrictRoute, include_in_schema=False)
MarketId = Annotated[Id, PathParameter(description="Name of the market.")]
Version = Annotated[int | None, Query(alias="price_version", ge=1)]
CanReadPrices = Annotated[Principal, Depends(requires("prices:read"))]
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
    key = request.cookies.get(session.COOKIE)
    service.keyring.count_stranger(key, address_of(request))
    try:
        who = NOBODY if key is None else await asyncio.to_thread(service.keyring.identify, key)
    except Unauthenticated:
        gone = answered(200, _who(NOBODY, None))
        session.end(gone)
        return gone
    return answered(200, _who(who, key))


@router.post("/console/session")
async def begin_session(body: SessionIn, request: Request, service: ServiceHere) -> Response:
    """Sign in with an API key."""
    if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise Forbidden("forged", "A session begins at this service's own page.")
    service.keyring.count(address_of(request))
    who = await asyncio.to_thread(service.keyring.identify, body.key)
    begun = answered(200, _who(who, body.key))
    session.begin(begun, request, body.key)
    return begun


@router.delete("/console/session")
async def end_session() -> Response:
    """Sign out."""
    ended = answered(200, _who(NOBODY, None))
    session.end(ended)
    return ended


@router.get("/console/markets/{market_id}/picture")
def read_picture(
    market_id: MarketId, service: ServiceHere, who: CanReadPrices, price_version: Version = None
) -> Response:
    """Give places of nodes and branches, the intervals, and the quantities that may be drawn."""
    with service.engine.connect() as connection:
        market, version = _version(connection, market_id, price_version)
        places = diagram(connection, version.run_id)
    starts = [rfc3339(interval_start(market, number)) for number in range(market.intervals)]
    shown = [
        {"name": name, "of": quantity.of, "unit": quantity.unit.format(currency=market.currency)}
        for name, quantity in QUANTITIES.items()
        if quantity.is_public or who.sees_all
    ]
    head = {"price_version": version.price_version, "starts": starts, "timezone": market.timezone}
    return answered(200, head | {"currency": market.currency, "quantities": shown} | places)


@router.get("/console/markets/{market_id}/picture/{quantity}")
def read_quantity(
    market_id: MarketId, quantity: str, service: ServiceHere, who: CanReadPrices, price_version: Version = None
) -> Response:
    """Give a quantity as 32-bit floats, interval after interval, in the order of the picture's nodes or branches."""
    if quantity not in QUANTITIES:
        raise NotFound("quantity")
    if not QUANTITIES[quantity].is_public:
        who.require("runs:read")
    with service.engine.connect() as connection:
        _, version = _version(connection, market_id, price_version)
        found = values(connection, version.run_id, quantity)
    return Response(found.astype("<f4").tobytes(), media_type="application/octet-stream")


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
        path = Path(folder) / "bids.csv"
        path.write_text(body.text, "utf-8")
        try:
            bids = read_bids(path, market, found)
        except InputError as error:
            raise Unprocessable([_fault(problem, folder) for problem in error.problems]) from None
    return answered(200, {"bids": [bid.body() for bid in bids.bids], "lines": [list(lines) for lines in bids.lines]})


def _fault(problem: Any, folder: str) -> Fault:
    text = f"{problem.element}, {problem.field}: {problem.message}".replace(folder, "")
    return Fault("/text", "invalid_table", text)


def _resource(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in ("id", "participant_id", "feeder", "name", "bus", "phase", "kind")} | {
        **row.limits,
        "retired_at": None,
    }


def _version(connection: Connection, market_id: str, number: int | None) -> tuple[Any, Any]:
    """A market, and a version of its prices; the newest unless it is told by its number."""
    market, known = row_of(connection, markets, market_id), published_versions(connection, market_id)
    wanted = len(known) if number is None else number
    if not 1 <= wanted <= len(known):
        raise NotFound("published version")
    return market, known[wanted - 1]


def _who(who: Principal, key: str | None) -> dict[str, Any]:
    return {
        "role": who.role,
        "participant_id": who.participant_id,
        "scopes": sorted(who.scopes),
        "csrf_token": None if key is None else session.forgery_token(key),
    }
