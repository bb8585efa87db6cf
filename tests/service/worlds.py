"""A market service in this process for one test: a database with participants, keys, feeders and an open market, a
clock that the test steps, and a client that speaks HTTP to the application without a network.

    source bus S -- A -- B -- C      the feeder "lane" in two versions: the second one has no C
"""

import asyncio
import itertools
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from sqlalchemy import func, select

from api import registry
from api.app import new_app
from api.registry import Asked
from api.service import Service, new_service
from api.settings import ServiceSettings
from api.store.database import migrate
from api.store.tables import metadata
from api.store.writer import each

NOW = datetime(2026, 6, 30, 15, tzinfo=UTC)
GATE_OPENS, GATE_CLOSES = NOW - timedelta(hours=1), NOW + timedelta(hours=2)
DAY_BEGINS = datetime(2026, 7, 1, 7, tzinfo=UTC)
"""Midnight of 2026-07-01 in Los Angeles."""
CASE_TOML = 'name = "lane"\n[network]\nsource = "tables:."\nv_min_pu = 0.9\nv_max_pu = 1.1\n'
NODES = "bus,base_kv,p_kw,q_kvar,v_min_pu,v_max_pu,is_source\nS,12,,,,,1\nA,12,300,90,,,\nB,12,200,60,,,\n"
LINES = "line,from_bus,to_bus,r_ohm,x_ohm,b_us,rate_kva,rate_a\nSA,S,A,0.9,0.7,0,3000,\nAB,A,B,1.1,0.8,0,2000,\n"
LANE = {"case.toml": CASE_TOML, "nodes.csv": NODES, "lines.csv": LINES}
LONG_LANE = LANE | {"nodes.csv": NODES + "C,12,100,30,,,\n", "lines.csv": LINES + "BC,B,C,1.3,0.9,0,1000,\n"}


def z(time: datetime) -> str:
    """Write a time as the service takes it."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass
class SteppableClock:
    """Says what the test wants it to say."""

    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now

    def step(self, **by: float) -> None:
        self.now += timedelta(**by)


class Loop:
    """An event loop in a thread of its own, in which applications run."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="applications", daemon=True)
        self._thread.start()

    def do(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=120)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@dataclass(frozen=True)
class Names:
    """What is in every world: ids by short names, and the whole keys."""

    ids: dict[str, str]
    keys: dict[str, str]


@dataclass(frozen=True)
class World:
    """A running service and a client to it."""

    service: Service
    clock: SteppableClock
    names: Names
    loop: Loop
    app: Any
    http: httpx.AsyncClient
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def __getitem__(self, name: str) -> str:
        return self.names.ids[name]

    def request(
        self, method: str, path: str, who: str | None = None, headers: Mapping[str, str] | None = None, **content: Any
    ) -> httpx.Response:
        return self.loop.do(self.start(method, path, who, headers, **content))

    def start(
        self, method: str, path: str, who: str | None = None, headers: Mapping[str, str] | None = None, **content: Any
    ) -> Any:
        """Coroutine of a request, for those that want several at once."""
        own = dict(headers or {})
        if who is not None:
            own.setdefault("Authorization", f"Bearer {self.names.keys[who]}")
        return self.http.request(method, path, headers=own, **content)

    def get(self, path: str, who: str | None = "operator", **more: Any) -> httpx.Response:
        return self.request("GET", path, who, **more)

    def post(self, path: str, body: Any = None, who: str | None = "operator", **more: Any) -> httpx.Response:
        return self.request("POST", path, who, json=body, **more)

    def delete(self, path: str, who: str | None = "operator", **more: Any) -> httpx.Response:
        return self.request("DELETE", path, who, **more)

    def ask(self, method: str, path: str, body: Any = None, who: str = "operator", **more: Any) -> Any:
        """Document of a request that must be carried out."""
        content = {} if body is None else {"json": body}
        answer = self.request(method, path, who, **content, **more)
        assert answer.is_success, answer.text
        return answer.json()

    def new_key(self) -> dict[str, str]:
        return {"Idempotency-Key": f"key {next(self.numbers)}"}

    def bid(self, **changed: Any) -> dict[str, Any]:
        """Body of a sound energy bid of the resource ``solar`` for the whole day."""
        return {
            "product": "energy",
            "market_id": self["market"],
            "resource_id": self["solar"],
            "interval_start": z(DAY_BEGINS),
            "interval_end": z(DAY_BEGINS + timedelta(hours=24)),
            "side": "supply",
            "segments": [{"quantity_kw": 100, "price_usd_per_mwh": 10}],
        } | changed

    def place(self, body: Any, who: str = "sunny", key: str | None = None) -> httpx.Response:
        headers = self.new_key() if key is None else {"Idempotency-Key": key}
        return self.post("/v1/bids", body, who, headers=headers)

    def place_all(self, bids: list[Any], mode: str = "atomic", who: str = "sunny") -> httpx.Response:
        return self.post("/v1/bids/batch", {"mode": mode, "bids": bids}, who, headers=self.new_key())

    def placed(self, who: str = "sunny", **changed: Any) -> str:
        """Name of a bid that is placed, sound by what it is changed in."""
        answer = self.place(self.bid(**changed), who)
        assert answer.status_code == 201, answer.text
        return answer.json()["items"][0]["bid_id"]

    def market(self, **changed: Any) -> dict[str, Any]:
        """Body of a sound market."""
        return {
            "name": "a day",
            "feeder_id": self["lane"],
            "trade_date": "2026-07-01",
            "market_timezone": "America/Los_Angeles",
            "gate_opens_at": z(GATE_OPENS),
            "gate_closes_at": z(GATE_CLOSES),
            "import_price_usd_per_mwh": [30],
            "price_floor_usd_per_mwh": -50,
            "price_cap_usd_per_mwh": 500,
        } | changed

    def stored(self) -> dict[str, int]:
        """Number of rows of every table."""
        with self.service.engine.connect() as connection:
            return {
                table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
                for table in metadata.sorted_tables
            }


def faults(answer: httpx.Response) -> set[tuple[str, str]]:
    """Pointers and codes of a refusal, which must be a problem document that says its own status."""
    document = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert document["status"] == answer.status_code
    return {(fault["pointer"], fault["code"]) for fault in document.get("errors", ())}


def pages(world: World, path: str, who: str | None, limit: int) -> list[Any]:
    """Items of all pages of `path`, `limit` at a time."""
    items, cursor, joined = [], None, "&" if "?" in path else "?"
    while True:
        following = f"&cursor={cursor}" if cursor else ""
        page = world.get(f"{path}{joined}limit={limit}{following}", who).json()
        assert 0 < len(page["items"]) <= limit or cursor is None
        items += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return items


@contextmanager
def running(url: str, names: Names, loop: Loop, **settings: Any) -> Iterator[World]:
    """Run the service on a database that `furnish` has filled."""
    clock = SteppableClock()
    away = {"runs_here": False, "webhooks_here": False}
    service = new_service(ServiceSettings(database_url=url, **away | settings), clock)
    app = new_app(service)
    lifespan = app.router.lifespan_context(app)
    loop.do(lifespan.__aenter__())
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://market.example")
    try:
        yield World(service, clock, names, loop, app, http)
    finally:
        loop.do(http.aclose())
        loop.do(lifespan.__aexit__(None, None, None))


def furnish(url: str, loop: Loop) -> Names:
    """Fill an empty database with what every world has; return the names of it."""
    service = new_service(ServiceSettings(database_url=url), SteppableClock())
    migrate(service.engine)
    service.engine.dispose()
    names = Names({}, {})
    with running(url, names, loop) as world:
        content = {"name": "operator", "role": "operator", "participant_id": None, "scopes": None, "expires_at": None}
        asked = Asked("system", NOW, content)
        _, names.keys["operator"] = world.service.writer.do_now(each(registry.issue_key), asked)
        _furnish_people(world)
        _furnish_grid(world)
        names.ids["market"] = world.ask("POST", "/v1/markets", world.market())["id"]
    return names


def _furnish_people(world: World) -> None:
    ids = world.names.ids
    for name in ("sunny", "windy"):
        ids[name] = world.ask("POST", "/v1/participants", {"name": name})["id"]
    for name, content in {
        "sunny": {"role": "aggregator", "participant_id": ids["sunny"]},
        "windy": {"role": "aggregator", "participant_id": ids["windy"]},
        "auditor": {"role": "auditor"},
        "revoked": {"role": "operator"},
        "expired": {"role": "operator", "expires_at": z(NOW - timedelta(seconds=1))},
        "narrow": {"role": "aggregator", "participant_id": ids["sunny"], "scopes": ["markets:read"]},
        "reader": {"role": "operator", "scopes": ["markets:read", "bids:read"]},
    }.items():
        key = world.ask("POST", "/v1/keys", {"name": name} | content)
        ids[f"key of {name}"], world.names.keys[name] = key["id"], key["key"]
    world.ask("DELETE", f"/v1/keys/{ids['key of revoked']}")


def _furnish_grid(world: World) -> None:
    ids = world.names.ids

    def feeder(name: str, files: dict[str, str]) -> str:
        return world.ask("POST", "/v1/feeders", {"name": name, "files": files})["id"]

    def resource(name: str, owner: str, feeder: str, bus: str, **limits: float) -> None:
        body = {"participant_id": ids[owner], "feeder": feeder, "name": name, "bus": bus, "kind": "other"} | limits
        ids[name] = world.ask("POST", "/v1/resources", body)["id"]

    feeder("lane", LONG_LANE)
    resource("at the end", "sunny", "lane", "C", p_max_kw=100)
    ids["lane"] = feeder("lane", LANE)
    ids["alley"] = feeder("alley", LANE)
    resource("solar", "sunny", "lane", "A", p_max_kw=900)
    battery = {"p_min_kw": -300, "p_max_kw": 300, "q_min_kvar": -100, "q_max_kvar": 100}
    resource("battery", "sunny", "lane", "B", **battery)
    resource("elsewhere", "sunny", "alley", "A", p_max_kw=100)
    resource("wind", "windy", "lane", "B", p_max_kw=700)
