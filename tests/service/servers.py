"""The service as a real process for tests, a broken network in front of it, and a market to bid into."""

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import httpx

from dlmp.client import Bid, Client, Market, Participant, Resource

FEEDER = "feeder33"
START_S = 240


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Server:
    """A process that serves a data directory."""

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def key(self) -> str:
        return (self.folder / "data" / "operator.key").read_text("utf-8").strip()

    def start(self) -> "Server":
        command = [sys.executable, "-m", "dlmp.cli", "serve", "--port", str(self.port), *self.arguments]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("DLMP_")}
        with self.path("out").open("ab") as out, self.path("err").open("ab") as err:
            self.process = subprocess.Popen(
                [*command, "--data-dir", str(self.folder / "data")], stdout=out, stderr=err, env=clean | self.settings
            )
        ends = time.monotonic() + START_S
        while time.monotonic() < ends:
            assert self.process.poll() is None, self.said("err") + self.said("out")
            try:
                if httpx.get(f"{self.url}/readyz").status_code == 200:
                    return self
            except httpx.TransportError:
                time.sleep(0.1)
        raise AssertionError("the service is not ready")

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(60)

    def path(self, name: str) -> Path:
        return self.folder / f"{self.port}.{name}"

    def said(self, name: str) -> str:
        return self.path(name).read_text("utf-8")

    def events(self) -> list[dict]:
        """Whole lines of the log; each must be a JSON document."""
        whole, _, _ = self.said("out").rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]


@contextmanager
def serving(folder: Path, *arguments: str, **settings: str) -> Iterator[Server]:
    server = Server(folder, settings, arguments)
    try:
        yield server.start()
    finally:
        if server.process is not None and server.process.poll() is None:
            server.end()


@dataclass(frozen=True)
class Desk:
    """An operator, and an open market with one aggregator who has two resources in it."""

    url: str
    operator: Client
    participant: Participant
    key: str
    resources: tuple[Resource, Resource]
    market: Market

    def client(self, **more: object) -> Client:
        return Client(self.url, self.key, **more)

    def bid(self, interval: int | None = 0, kw: float = 300.0, price: float = 12.0, resource: int = 0) -> Bid:
        times = (None, None) if interval is None else hours(self.market, interval)
        return Bid(self.market.id, self.resources[resource].id, "supply", [(kw, price)], *times)


def flexible(desk: Desk) -> tuple[Market, list[Resource]]:
    """A market of a desk that takes blocks, and three resources of it that inject, consume and give reactive power."""
    day, mark = desk.market, uuid4().hex[:8]
    market = desk.operator.add_market(
        f"blocks {mark}",
        day.feeder_id,
        day.trade_date,
        market_timezone=day.market_timezone,
        gate_opens_at=day.gate_opens_at,
        gate_closes_at=day.gate_closes_at,
        import_price_usd_per_mwh=[30.0],
        takes_blocks=True,
        bids_public_after_days=None,
    )
    limits = {"p_min_kw": -100.0, "p_max_kw": 100.0, "q_min_kvar": -50.0, "q_max_kvar": 50.0}
    return market, [
        desk.operator.add_resource(desk.participant.id, day.feeder, f"store {number} {mark}", "13", "storage", **limits)
        for number in range(3)
    ]


def day_that_is_over(desk: Desk) -> Market:
    """A market of a desk whose gate is open, and whose day was yesterday."""
    day = desk.market
    return desk.operator.add_market(
        f"over {uuid4().hex[:8]}",
        day.feeder_id,
        (datetime.now(UTC) - timedelta(days=1)).date().isoformat(),
        market_timezone=day.market_timezone,
        gate_opens_at=day.gate_opens_at,
        gate_closes_at=day.gate_closes_at,
        import_price_usd_per_mwh=[30.0],
    )


def hours(market: Market, interval: int) -> tuple[str, str]:
    begins = datetime.fromisoformat(market.starts_at) + timedelta(hours=interval)
    return stamp(begins), stamp(begins + timedelta(hours=1))


def stamp(time_of_day: datetime) -> str:
    return time_of_day.strftime("%Y-%m-%dT%H:%M:%SZ")


def open_desk(server: Server) -> Desk:
    operator, mark, now = Client(server.url, server.key), uuid4().hex[:8], datetime.now(UTC)
    feeder = operator.add_feeder(f"feeder-{mark}", shipped=FEEDER)
    participant = operator.add_participant(f"Sunny {mark}")
    key = operator.issue_key("sunny", "aggregator", participant.id).key
    resources = tuple(
        operator.add_resource(participant.id, feeder.name, f"solar {bus}", bus, "solar", p_max_kw=900.0)
        for bus in ("13", "24")
    )
    market = operator.add_market(
        f"day {mark}",
        feeder.id,
        (now + timedelta(days=1)).date().isoformat(),
        market_timezone="UTC",
        gate_opens_at=stamp(now - timedelta(hours=1)),
        gate_closes_at=stamp(now + timedelta(hours=8)),
        import_price_usd_per_mwh=[30.0],
    )
    return Desk(server.url, operator, participant, key, resources, market)


@contextmanager
def in_between(answer: Callable[[http.server.BaseHTTPRequestHandler, bytes], bool]) -> Iterator[str]:
    """Serve HTTP by `answer`, which gets each request and its body; False breaks the connection without an answer."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if not answer(self, content):
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)

        do_GET = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    between = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    between.daemon_threads = True
    thread = threading.Thread(target=between.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{between.server_address[1]}"
    finally:
        between.shutdown()
        between.server_close()
        thread.join()


def say(request: http.server.BaseHTTPRequestHandler, status: int, document: object, **headers: str) -> bool:
    """Answer a request with a document."""
    content = json.dumps(document).encode()
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.send_header("Content-Length", str(len(content)))
    request.end_headers()
    request.wfile.write(content)
    return True


def forwarded(request: http.server.BaseHTTPRequestHandler, content: bytes, url: str) -> httpx.Response:
    """Pass a request on to the service at `url`."""
    kept = ("Authorization", "Content-Type", "Idempotency-Key", "If-Match")
    headers = {name: request.headers[name] for name in kept if request.headers[name]}
    return httpx.request(request.command, url + request.path, content=content, headers=headers, timeout=60)
