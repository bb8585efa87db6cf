"""What was published: prices for all, awards and statements for those they concern."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Annotated, Any, Literal
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from sqlalchemy import Connection, and_, select
from starlette.responses import StreamingResponse

from api.auth import Principal
from api.clock import rfc3339, rfc3339_or_none
from api.errors import NotFound
from api.frames import chosen, csv_chunks, page, parquet_bytes, result_table
from api.http import StrictRoute
from api.masking import are_bids_public, masked
from api.oasis import oasis_table
from api.publication import version_of
from api.routes.common import (
    Cursor,
    IfNoneMatch,
    Limit,
    Responses,
    ServiceHere,
    answered,
    cache_headers,
    cursor_of,
    is_known,
    refusals,
    requires,
    row_position,
    unchanged,
    version_position,
)
from api.runfolder import CALLS, PRICE_COLUMNS, PRICE_SHARES
from api.schemas.common import Id, Page, Time
from api.schemas.results import (
    AwardPage,
    BrokenLimitOut,
    LimitOut,
    MaskedBidOut,
    PriceOut,
    PriceShareOut,
    PublishedPage,
    StatementChangeOut,
    StatementRowOut,
    VersionOut,
)
from api.service import Service
from api.store.rows import row_of
from api.store.tables import IS_LIVE, bids, markets, resources, versions

router = APIRouter(prefix="/v1", route_class=StrictRoute)
MarketId = Annotated[Id, Path(description="Name of the market.")]
Version = Annotated[int | None, Query(alias="price_version", ge=1, description="Version; left out: the newest.")]
Interval = Annotated[Time | None, Query(description="Only the interval that begins then.")]
Bus = Annotated[str | None, Query(description="Only this bus.", max_length=100)]
Format = Annotated[
    Literal["json", "csv", "parquet"],
    Query(alias="format", description="JSON pages, or all rows as CSV or Parquet."),
]
PriceFormat = Annotated[
    Literal["json", "csv", "parquet", "oasis"],
    Query(alias="format", description="JSON pages, or all rows as CSV, Parquet, or CSV with CAISO OASIS's columns."),
]
AwardsOf = Annotated[
    Literal["resources", "segments", "reactive_segments", "blocks", "stores", "services"],
    Query(description="Net injection of each resource, or what was accepted of each part of its bids."),
]
UNCHANGED: Responses = {304: {"description": "What you have is current."}}
FORMS: Responses = {200: {"content": {kind: {} for kind in ("text/csv", "application/vnd.apache.parquet")}}}
PLAIN = " !#$&'()*+,-./:;<=>?@[]_`{|}~"
"""What headers say as it is; the rest, a percent sign too, is percent-encoded (RFC 3986)."""
STATEMENT_KEYS = ("participant", "resource", "product", "unit")
DELTA = pa.schema(
    [*((name, pa.string()) for name in STATEMENT_KEYS), ("quantity", pa.float64()), ("amount", pa.string())]
)
TYPES = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}


@dataclass(frozen=True)
class _Published:
    """A version of a market's results."""

    market: Any
    version: Any
    previous: Any
    newest: int
    variant: str

    @property
    def head(self) -> dict[str, Any]:
        """What is said with every page of it."""
        number = self.version.price_version
        return {
            "market_id": self.market.id,
            "price_version": number,
            "is_current": number == self.newest,
            "status": self.version.status,
            "reason": self.version.reason,
            "published_at": rfc3339(self.version.published_at),
            "run_id": self.version.run_id,
        }

    @property
    def etag(self) -> str:
        """Changes when what is said changes; another asker, form or page has another."""
        return f'"{self.version.run_id}-{self.version.price_version}-{self.newest}-{self.market.stage}-{self.variant}"'

    @property
    def headers(self) -> dict[str, str]:
        """What caches are told."""
        return cache_headers(self.etag)


@dataclass(frozen=True)
class _Reading:
    """What someone reads: which version of which market, from where on, and what they have already."""

    service: Service
    market_id: str
    price_version: int | None
    if_none_match: str | None
    cursor: str | None
    limit: int
    query: str

    def answer(
        self,
        table_of: Callable[[Connection, _Published], pa.Table],
        form: str = "json",
        own: Principal | None = None,
    ) -> Response:
        """Answer with the table that `table_of` makes of the version, in a `form`; with nothing where it is known.

        `own` is who asks where each participant is told something else.
        """
        whose = "" if own is None else own.participant_id or own.role
        variant = hashlib.sha256(f"{whose}\n{self.query}".encode()).hexdigest()[:16]
        version, first = version_position(self.cursor, self.price_version)
        with self.service.engine.connect() as connection:
            published = _Published(*version_of(connection, self.market_id, version), variant)
            if is_known(published.etag, self.if_none_match):
                return unchanged(published.etag)
            table = table_of(connection, published)
        return _answer(published, table, form, first, self.limit)


async def _reading(
    request: Request,
    service: ServiceHere,
    market_id: MarketId,
    price_version: Version = None,
    if_none_match: IfNoneMatch = None,
    cursor: Cursor = None,
    limit: Limit = 1_000,
) -> _Reading:
    return _Reading(service, market_id, price_version, if_none_match, cursor, limit, request.url.query)


Reading = Annotated[_Reading, Depends(_reading)]


@router.get(
    "/prices",
    tags=["prices"],
    summary="Follow publications",
    response_model=Page[VersionOut],
    responses=refusals(400, 403, 422),
)
def list_versions(
    service: ServiceHere,
    who: Annotated[Principal, Depends(requires("prices:read"))],
    published_after: Annotated[Time | None, Query(description="Only versions published later.")] = None,
    limit: Limit = 100,
) -> Response:
    """List versions of prices in the order of their publication, for those who follow."""
    query = select(versions).order_by(versions.c.published_at, versions.c.market_id).limit(limit)
    if published_after is not None:
        query = query.where(versions.c.published_at > published_after)
    with service.engine.connect() as connection:
        rows = connection.execute(query).all()
    items = [
        {
            "market_id": row.market_id,
            "price_version": row.price_version,
            "published_at": rfc3339(row.published_at),
            "reason": row.reason,
        }
        for row in rows
    ]
    return answered(200, {"items": items, "next_cursor": None})


@router.get(
    "/markets/{market_id}/prices",
    tags=["prices"],
    summary="Read prices",
    response_model=PublishedPage[PriceOut],
    responses=FORMS | UNCHANGED | refusals(400, 403, 404, 422),
)
def read_prices(
    reading: Reading,
    who: Annotated[Principal, Depends(requires("prices:read"))],
    interval_start: Interval = None,
    bus: Bus = None,
    form: PriceFormat = "json",
) -> Response:
    """Read nodal prices of real and reactive power with their parts, which add up to them."""

    def prices(connection: Connection, published: _Published) -> pa.Table:
        table = result_table(connection, published.version.run_id, "prices")
        table = chosen(table, {"interval_start": rfc3339_or_none(interval_start), "bus": bus})
        if form == "oasis":
            return oasis_table(published.market, table)
        return table.rename_columns([PRICE_COLUMNS.get(name, name) for name in table.column_names])

    return reading.answer(prices, "csv" if form == "oasis" else form)


@router.get(
    "/markets/{market_id}/price-shares",
    tags=["prices"],
    summary="Read what makes each price",
    response_model=PublishedPage[PriceShareOut],
    responses=FORMS | UNCHANGED | refusals(400, 403, 404, 422),
)
def read_price_shares(
    reading: Reading,
    who: Annotated[Principal, Depends(requires("prices:read"))],
    interval_start: Interval = None,
    bus: Bus = None,
    form: Format = "json",
) -> Response:
    """Read the share of the substation, of losses and of each binding limit in each price; they add up to it."""
    where = {"interval_start": rfc3339_or_none(interval_start), "bus": bus}
    return reading.answer(partial(_masked, PRICE_SHARES, who, where), form, own=who)


@router.get(
    "/markets/{market_id}/limits",
    tags=["prices"],
    summary="Read binding limits",
    response_model=PublishedPage[LimitOut],
    responses=FORMS | UNCHANGED | refusals(400, 403, 404, 422),
)
def read_limits(
    reading: Reading, who: Annotated[Principal, Depends(requires("prices:read"))], form: Format = "json"
) -> Response:
    """Read the limits that bind and so make congestion and voltage parts of prices.

    Which resource is called in the state in which a limit binds is told to its owner, an auditor and an operator.
    """
    return reading.answer(partial(_masked, "binding_limits", who, {}), form, own=who)


@router.get(
    "/markets/{market_id}/bids",
    tags=["bids"],
    summary="Read the bids of a market",
    response_model=Page[MaskedBidOut],
    responses=refusals(400, 403, 404, 422),
)
def read_masked_bids(
    service: ServiceHere,
    market_id: MarketId,
    who: Annotated[Principal, Depends(requires("prices:read"))],
    cursor: Cursor = None,
    limit: Limit = 1_000,
) -> Response:
    """Read all bids of a market as they stood at its gate, under pseudonyms, from its `bids_public_at` on.

    They come in the order of their names, which are random and are not told.
    """
    now, first = service.clock(), row_position(cursor)
    with service.engine.connect() as connection:
        market = row_of(connection, markets, market_id)
        if not are_bids_public(market, now):
            raise NotFound("public list of bids")
        standing = select(bids).where(bids.c.market_id == market.id, IS_LIVE).order_by(bids.c.id)
        rows = connection.execute(standing.offset(first).limit(limit + 1)).all()
    following = cursor_of(first + limit) if len(rows) > limit else None
    return answered(200, {"items": [masked(market, row) for row in rows[:limit]], "next_cursor": following})


@router.get(
    "/markets/{market_id}/broken-limits",
    tags=["prices"],
    summary="Read broken limits",
    response_model=PublishedPage[BrokenLimitOut],
    responses=FORMS | UNCHANGED | refusals(400, 403, 404, 422),
)
def read_broken_limits(
    reading: Reading, who: Annotated[Principal, Depends(requires("prices:read"))], form: Format = "json"
) -> Response:
    """Read the limits that are broken because that costs less than to keep them: they make the prices' scarcity.

    Which resource is called in the state in which a limit is broken is told as in the binding limits.
    """
    return reading.answer(partial(_masked, "broken_limits", who, {}), form, own=who)


@router.get(
    "/markets/{market_id}/awards",
    tags=["awards"],
    summary="Read awards",
    response_model=AwardPage,
    responses=FORMS | UNCHANGED | refusals(400, 403, 404, 422),
)
def read_awards(
    reading: Reading,
    who: Annotated[Principal, Depends(requires("awards:read"))],
    of: AwardsOf = "resources",
    form: Format = "json",
) -> Response:
    """Read what your resources were awarded; an auditor and an operator see all."""

    def awards(connection: Connection, published: _Published) -> pa.Table:
        table = result_table(connection, published.version.run_id, "awards" if of == "resources" else of)
        if who.sees_all:
            return table
        own = pa.array(_own_resources(connection, who, published), pa.string())
        return table.filter(pc.is_in(table["resource"], own))

    return reading.answer(awards, form, who)


@router.get(
    "/markets/{market_id}/statements",
    tags=["statements"],
    summary="Read statements",
    response_model=PublishedPage[StatementRowOut],
    responses=FORMS | UNCHANGED | refusals(400, 403, 404, 422),
)
def read_statements(
    reading: Reading, who: Annotated[Principal, Depends(requires("statements:read"))], form: Format = "json"
) -> Response:
    """Read your statement to the cent; amounts are decimals as text, and add up to whole cents."""

    def statement(connection: Connection, published: _Published) -> pa.Table:
        return _statement(connection, who, published.version.run_id)

    return reading.answer(statement, form, who)


@router.get(
    "/markets/{market_id}/statements/delta",
    tags=["statements"],
    summary="Read what a correction changes",
    response_model=PublishedPage[StatementChangeOut],
    responses=UNCHANGED | refusals(400, 403, 404, 422),
)
def read_delta(reading: Reading, who: Annotated[Principal, Depends(requires("statements:read"))]) -> Response:
    """Read by what a version changes your statement: added to the one before it gives this one, to the cent."""

    def delta(connection: Connection, published: _Published) -> pa.Table:
        if published.previous is None:
            raise NotFound("correction")
        before, after = (
            _statement(connection, who, version.run_id) for version in (published.previous, published.version)
        )
        return pa.Table.from_pylist(_delta(before, after), DELTA)

    return reading.answer(delta, own=who)


def _own_resources(connection: Connection, who: Principal, published: _Published) -> list[str]:
    """Names of the resources of who asks on the feeder of a market."""
    owned = and_(resources.c.participant_id == who.participant_id, resources.c.feeder == published.market.feeder)
    return list(connection.execute(select(resources.c.name).where(owned)).scalars())


def _masked(
    name: str, who: Principal, where: Mapping[str, str | None], connection: Connection, published: _Published
) -> pa.Table:
    """Rows `where` something holds of a table whose ``called`` is to name no resource of others."""
    table = chosen(result_table(connection, published.version.run_id, name), where)
    if who.sees_all:
        return table
    own = set(_own_resources(connection, who, published))
    calls = result_table(connection, published.version.run_id, CALLS).to_pylist()
    hidden = {row["called"]: row["anonymous"] for row in calls if row["resource"] not in own}
    told = table["called"].combine_chunks().dictionary_encode()  # few texts stand in very many rows
    shown = pa.array([hidden.get(called, called) for called in told.dictionary.to_pylist()], pa.string())
    return table.set_column(table.column_names.index("called"), "called", shown.take(told.indices))


def _statement(connection: Connection, who: Principal, run_id: str) -> pa.Table:
    table = result_table(connection, run_id, "statements")
    return table if who.sees_all else table.filter(pc.equal(table["participant"], who.participant_id))


def _delta(before: pa.Table, after: pa.Table) -> list[dict[str, Any]]:
    """Rows that differ, new less old; amounts are exact."""
    was, now = _by_key(before), _by_key(after)
    nothing = (0.0, Decimal(0))
    rows = []
    for key in was | now:
        (quantity, amount), (new_quantity, new_amount) = was.get(key, nothing), now.get(key, nothing)
        if (quantity, amount) != (new_quantity, new_amount):
            change = {"quantity": new_quantity - quantity, "amount": f"{new_amount - amount:f}"}
            rows.append(dict(zip(STATEMENT_KEYS, key, strict=True)) | change)
    return rows


def _by_key(table: pa.Table) -> dict[tuple[str, ...], tuple[float, Decimal]]:
    return {
        tuple(row[name] for name in STATEMENT_KEYS): (row["quantity"], Decimal(row["amount"]))
        for row in table.to_pylist()
    }


def _answer(published: _Published, table: pa.Table, form: str, first: int, limit: int) -> Response:
    headers = published.headers
    if form == "json":
        items, following = page(table, first, limit)
        place = None if following is None else cursor_of([published.version.price_version, following])
        document = published.head | {"items": items, "next_cursor": place}
        return answered(200, document, headers)
    headers |= {f"X-{name.replace('_', '-')}": quote(str(value), safe=PLAIN) for name, value in published.head.items()}
    if form == "csv":
        return StreamingResponse(csv_chunks(table), media_type=TYPES[form], headers=headers)
    return Response(parquet_bytes(table), media_type=TYPES[form], headers=headers)
