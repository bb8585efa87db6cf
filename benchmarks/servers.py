"""Servers of the market service in processes of their own, on databases of their own, for benchmarks and crash tests.

A `World` is what such a server is given before it starts: keys, a feeder, resources and a market that is open.
"""

import contextlib
import http.client
import json
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import structlog
from fastapi import FastAPI
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url

from api import registry
from api.app import new_app
from api.clock import rfc3339
from api.feeders import shipped_feeder
from api.gate import trade_day
from api.registry import Asked
from api.schemas.objects import MarketIn
from api.service import Service, new_service
from api.settings import ServiceSettings
from api.store import writer
from api.store.database import migrate
from api.store.writer import each

POSTGRESQL = os.environ.get("DLMP_TEST_DATABASE_URL", "postgresql://root@127.0.0.1:5432/test")
START_S = 60
LARGEST_GROUP = "DLMP_BENCHMARK_LARGEST_GROUP"
"""Changes that share a commit; 1 is a commit for every request."""
ZONE = "America/Los_Angeles"
ROOT = Path(__file__).parents[1]


def app() -> FastAPI:
    """Make the application from the environment, for ``uvicorn --factory``; it logs lines of JSON."""
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )
    writer.LARGEST_GROUP = int(os.environ.get(LARGEST_GROUP, writer.LARGEST_GROUP))
    return new_app(new_service(ServiceSettings()))


def empty_app() -> FastAPI:
    """Make an application with nothing in it but one route: what the machine can do at all."""
    made = FastAPI()

    @made.get("/readyz")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    return made


@contextlib.contextmanager
def database(kind: str, folder: Path) -> Iterator[dict[str, str]]:
    """Make an empty database, ``sqlite`` or ``postgresql``, with its tables; give the environment that names it."""
    environment = {"DLMP_DATA_DIR": str(folder)}
    if kind == "sqlite":
        _prepare(environment)
        yield environment
        return
    name = f"dlmp_durable_{secrets.token_hex(6)}"
    url = make_url(POSTGRESQL).set(drivername="postgresql+psycopg")
    server = create_engine(url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    try:
        own = url.set(database=name).render_as_string(hide_password=False)
        environment["DLMP_DATABASE_URL"] = own
        _prepare(environment)
        yield environment
    finally:
        with server.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
        server.dispose()


def settings_of(environment: Mapping[str, str]) -> ServiceSettings:
    """Settings that a server reads from `environment`."""
    return ServiceSettings(
        data_dir=Path(environment["DLMP_DATA_DIR"]), database_url=environment.get("DLMP_DATABASE_URL", "")
    )


def _prepare(environment: Mapping[str, str]) -> None:
    service = new_service(settings_of(environment))
    migrate(service.engine)
    service.engine.dispose()


@dataclass(frozen=True)
class World:
    """What bids need: keys of an operator and of an aggregator, a market that is open, and resources in it."""

    operator: str
    aggregator: str
    market_id: str
    resources: tuple[str, ...]
    starts_at: datetime
    interval_minutes: int

    def bid(self, number: int, price: float = 10.0) -> dict[str, Any]:
        """Bid `number` of those that do not meet: each resource in turn, interval after interval."""
        interval, resource = divmod(number, len(self.resources))
        begins = self.starts_at + timedelta(minutes=self.interval_minutes * interval)
        return {
            "product": "energy",
            "market_id": self.market_id,
            "resource_id": self.resources[resource],
            "interval_start": rfc3339(begins),
            "interval_end": rfc3339(begins + timedelta(minutes=self.interval_minutes)),
            "side": "supply",
            "segments": [
                {"quantity_kw": 3, "price_usd_per_mwh": price},
                {"quantity_kw": 2.5, "price_usd_per_mwh": price + 4.25},
                {"quantity_kw": 1, "price_usd_per_mwh": price + 11},
            ],
        }


def settle_world(
    service: Service, resources: int = 20, interval_minutes: int = 60, feeder: str = "day33", **market: Any
) -> World:
    """Register a world in the database of `service`, whose writer must work; `market` has more of `MarketIn`."""

    def do(job: Any, content: Mapping[str, Any]) -> Any:
        return service.writer.do_now(each(job), Asked("system", service.clock(), content))

    def key(role: str, participant_id: str | None) -> str:
        content = {"name": role, "role": role, "participant_id": participant_id, "scopes": None, "expires_at": None}
        whole: str = do(registry.issue_key, content)[1]
        return whole

    participant = do(registry.add_participant, {"name": "Sunny"})
    found = shipped_feeder(feeder)
    feeder_id, _ = do(registry.add_feeder, {"name": feeder, "found": found})
    buses = [bus for bus, phase in found.nodes if phase == ""]
    limits = {"p_min_kw": -50.0, "p_max_kw": 50.0, "q_min_kvar": -5.0, "q_max_kvar": 5.0}
    limits |= dict.fromkeys(("s_max_kva", "power_factor_min"))
    put, add = service.writer.put, each(registry.add_resource)
    asked = [
        put(
            add,
            Asked(
                "system",
                service.clock(),
                {
                    "participant_id": participant,
                    "feeder": feeder,
                    "name": f"plant {number}",
                    "bus": buses[1 + number % (len(buses) - 1)],
                    "phase": "",
                    "kind": "solar",
                    "limits": limits,
                },
            ),
        )
        for number in range(resources)
    ]
    now = datetime.now(UTC).replace(microsecond=0)
    day = (now + timedelta(days=2)).date()
    fields = MarketIn.model_validate(
        {
            "name": "day ahead",
            "feeder_id": feeder_id,
            "trade_date": day.isoformat(),
            "market_timezone": ZONE,
            "interval_minutes": interval_minutes,
            "gate_opens_at": rfc3339(now - timedelta(hours=1)),
            "gate_closes_at": rfc3339(now + timedelta(hours=20)),
            "import_price_usd_per_mwh": [30.0],
            **market,
        }
    )
    market_id = do(registry.add_market, fields.model_dump())
    names = tuple(one.result() for one in asked)
    return World(
        key("operator", None),
        key("aggregator", participant),
        market_id,
        names,
        trade_day(day, ZONE)[0],
        interval_minutes,
    )


def new_world(environment: Mapping[str, str], **sizes: Any) -> World:
    """Register a world in the database that `environment` names, before a server starts."""
    service = new_service(settings_of(environment))
    service.writer.start()
    try:
        return settle_world(service, **sizes)
    finally:
        service.writer.stop()
        service.engine.dispose()


class Server:
    """A server process; ``with`` starts and stops it, and it may be killed and started again in between."""

    def __init__(self, environment: Mapping[str, str], factory: str = "benchmarks.servers:app", workers: int = 1):
        self.environment, self.factory, self.workers = dict(environment), factory, workers
        self.port = _free_port()
        self.log = Path(environment["DLMP_DATA_DIR"]) / "server.log"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self, **more: str) -> None:
        """Start it, with `more` of an environment, and wait until it is ready."""
        command = [sys.executable, "-m", "uvicorn", "--factory", self.factory, "--port", str(self.port)]
        command += ["--no-access-log", "--workers", str(self.workers), "--backlog", "4096"]
        paths = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=os.environ | {"PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"} | self.environment | more,
            )
        until = time.monotonic() + START_S
        while not self._is_ready():
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the server did not start:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        try:
            return self.get("/readyz")[0] == 200
        except OSError:
            return False

    @property
    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """Kill it and its workers, as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Let it end in peace; kill it when it does not."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def get(self, path: str, key: str = "") -> tuple[int, Any]:
        """Status and document of a GET."""
        return self.send("GET", path, key)

    def send(
        self, method: str, path: str, key: str = "", body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and document of a request on a connection of its own."""
        own = {"Authorization": f"Bearer {key}"} if key else {}
        own |= {"Content-Type": "application/json"} if body is not None else {}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, own | dict(headers or {}))
            response = connection.getresponse()
            return response.status, json.loads(response.read() or b"null")
        finally:
            connection.close()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port
