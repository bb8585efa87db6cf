"""Bids and runs against a server that is killed, and what must be true of its database ever after."""

import contextlib
import http.client
import itertools
import json
import random
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crash.factory import FILE, SOLVER, SPRUNG
from processes import Server, World, databases, new_world, settings_of
from sqlalchemy import Connection, func, select

from api.integrity import faults_in_store
from api.store.database import open_database
from api.store.tables import audit, bids, deliveries, markets, results, runs, submissions, versions

STAND_IN = str(Path(__file__).with_name("solver.py"))

POINTS = (
    "locked any",
    "written bids.submit",
    "committed bids.submit",
    "written run.request",
    "committed run.request",
    "solving any",
    "solved any",
    "written run.end",
    "committed run.end",
    "written market.publish",
    "committed market.publish",
)
"""Where the trap of `factory` kills the server."""
AT_RANDOM = "random"
OFTEN = {"locked", "bids.submit", "readings.add"}
"""What is passed so often that one of the first few passages is chosen."""
BIDDERS, MOST_SENT, BATCH = 4, 40, 5
PAUSE_S = 0.06
"""Longest pause between two requests of a bidder, so that they go on until the server is killed [s]."""
STUCK_S = 120
TEMPORARY = "temporary"
EVENTS = ["market.published", "market.settled", "market.corrected"]
GONE = (OSError, http.client.HTTPException)


@dataclass
class Sent:
    """A submission: where, what, under which key, and what was answered, if anything was."""

    path: str
    body: dict[str, Any]
    key: str
    status: int = 0
    document: dict[str, Any] = field(default_factory=dict)


@dataclass
class Harness:
    """A world on a database, the server that is killed, and everything that was ever sent to it."""

    server: Server
    world: World
    market: Mapping[str, Any]
    """The market that is run and published again and again."""
    trap: Path
    dice: random.Random
    sent: list[Sent] = field(default_factory=list)
    told_runs: set[str] = field(default_factory=set)
    told_version: int = 0
    """Newest version of the prices that an answer told of."""
    counts: Counter[str] = field(default_factory=Counter)
    in_flight: Counter[str] = field(default_factory=Counter)
    """Submissions that a kill left without an answer."""
    taken_up: int = 0
    """Runs that were begun more than once."""
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def round(self, point: str) -> None:
        """Send until the server is killed at `point`, start it again, replay, and verify."""
        over = threading.Event()
        if point != AT_RANDOM:
            self.trap.write_text(f"{point} {self.dice.randint(1, 4) if OFTEN & set(point.split()) else 1}")
        threads = [threading.Thread(target=target, args=(over,)) for target in self._clients()]
        for thread in threads:
            thread.start()
        if point == AT_RANDOM:
            time.sleep(self.dice.uniform(0.02, 2.0))
            self.server.kill()
        assert self.server.process is not None
        assert self.server.process.wait(timeout=STUCK_S) == -signal.SIGKILL
        over.set()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        if point != AT_RANDOM:
            self.trap.with_suffix(SPRUNG).unlink()
        self.counts[point] += 1
        self.in_flight[point] += sum(not one.status for one in self.sent)
        self.server.start()
        self._replay()
        self._settle_down()
        self.verify()

    def figures(self) -> str:
        """What was done, for whoever reads the log."""
        kills = ", ".join(f"{point}: {count} ({self.in_flight[point]})" for point, count in self.counts.items())
        return (
            f"{self.counts.total()} kills, in brackets the submissions in flight: {kills}; "
            f"{len(self.sent)} submissions, {self.taken_up} runs taken up again, {self.told_version} versions"
        )

    def _clients(self) -> list[Callable[[threading.Event], None]]:
        return [*[self._bid] * BIDDERS, self._operate]

    def _next(self) -> Sent:
        if self.dice.random() < 0.3:
            batch = [self.world.bid(next(self.numbers)) for _ in range(BATCH)]
            return Sent("/v1/bids/batch", {"mode": "atomic", "bids": batch}, f"key {next(self.numbers)}")
        return Sent("/v1/bids", self.world.bid(next(self.numbers)), f"key {next(self.numbers)}")

    def _bid(self, over: threading.Event) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        for _ in range(MOST_SENT):
            one = self._next()
            self.sent.append(one)
            try:
                self._send(connection, one)
            except GONE:
                break
            over.wait(self.dice.uniform(0, PAUSE_S))
        connection.close()

    def _send(self, connection: http.client.HTTPConnection, one: Sent) -> None:
        headers = {"Authorization": f"Bearer {self.world.aggregator}", "Idempotency-Key": one.key}
        connection.request("POST", one.path, json.dumps(one.body), headers | {"Content-Type": "application/json"})
        response = connection.getresponse()
        document = json.loads(response.read())
        assert response.status == 201, document
        if one.status:
            assert (response.status, document) == (one.status, one.document), "answered twice, and not the same"
        one.status, one.document = response.status, document

    def _operate(self, over: threading.Event) -> None:
        """Work on the market until the server is gone."""
        with contextlib.suppress(*GONE):
            while not over.is_set():
                self.work()

    def _path(self, name: str = "") -> str:
        return f"/v1/markets/{self.market['id']}{name}"

    def _post(self, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
        return self.server.send("POST", path, self.world.operator, body)

    def work(self) -> None:
        """Run the market and publish it."""
        _, market = self.server.get(self._path(), self.world.operator)
        is_published = market["state"] == "published"
        self._run("/runs", {"correction_reason": "again"} if is_published else {})
        status, answer = self._post(self._path("/publish"))
        assert status == 200 or answer["code"] == "already_published", answer
        self.told_version = max(self.told_version, answer.get("price_version", 0))

    def _run(self, name: str, body: Mapping[str, Any]) -> Any:
        """Ask for a run, and wait for its end."""
        status, run = self._post(self._path(name), body)
        assert status == 202, run
        self.told_runs.add(run["id"])
        return self._ended(run["id"])

    def _ended(self, run_id: str) -> Any:
        until = time.monotonic() + STUCK_S
        while True:
            _, run = self.server.get(f"/v1/runs/{run_id}", self.world.operator)
            if run["state"] not in ("queued", "running"):
                assert run["state"] == "succeeded", run
                return run
            assert time.monotonic() < until, f"stuck: {run}"
            time.sleep(0.05)

    def _replay(self) -> None:
        """Send again what was not answered, and a few of those that were."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        answered = [one for one in self.sent if one.status]
        unanswered = [one for one in self.sent if not one.status]
        for one in [*unanswered, *self.dice.sample(answered, min(5, len(answered)))]:
            self._send(connection, one)
        connection.close()

    def _settle_down(self) -> None:
        """Wait until the run that was interrupted has ended, and go on with the next."""
        _, page = self.server.get(self._path("/runs"), self.world.operator)
        for run in page["items"]:
            self._ended(run["id"])
        self.taken_up = sum(run["attempts"] > 1 for run in page["items"])
        self.work()

    def verify(self) -> None:
        """Nothing accepted is lost, doubled, half published or told otherwise; every link of the audit chain holds."""
        engine = open_database(settings_of(self.server.environment).url)
        with engine.connect() as connection:
            assert list(faults_in_store(connection)) == []
            stored = {row.idempotency_key: row for row in connection.execute(select(submissions))}
            assert {one.key for one in self.sent} == stored.keys()
            for one in self.sent:
                assert one.status == 201, one
                assert one.document == stored[one.key].response
            promised = sorted(item["bid_id"] for one in self.sent for item in one.document["items"])
            kept = connection.execute(select(bids.c.id).where(bids.c.state == "live", bids.c.version == 1)).scalars()
            assert promised == sorted(kept)
            wanted = sum(len(one.body.get("bids", [0])) for one in self.sent)
            assert connection.execute(select(func.count()).select_from(bids)).scalar_one() == len(promised) == wanted
            sequences = sorted(row.sequence for row in stored.values())
            assert sequences == list(range(1, len(sequences) + 1))
            self.verify_runs(connection)
        engine.dispose()

    def verify_runs(self, connection: Connection) -> None:
        """Every run has ended well, with all of its tables; every version that was published, or told of, is there."""
        ended = {row.id: row for row in connection.execute(select(runs))}
        assert {row.state for row in ended.values()} == {"succeeded"}
        assert self.told_runs <= ended.keys()
        stored: dict[str, set[str]] = defaultdict(set)
        for row in connection.execute(select(results.c.run_id, results.c.name)):
            stored[row.run_id].add(row.name)
        assert stored.keys() == ended.keys()
        assert all({"prices", "awards"} <= names for names in stored.values())
        published = connection.execute(select(versions).order_by(versions.c.price_version)).all()
        assert [row.price_version for row in published] == list(range(1, len(published) + 1))
        assert self.told_version <= len(published)
        assert len({row.run_id for row in published}) == len(published)
        assert {row.run_id for row in published} <= ended.keys()
        told = connection.execute(select(deliveries.c.content).order_by(deliveries.c.number)).scalars().all()
        assert [one["price_version"] for one in told] == [row.price_version for row in published]
        entries = connection.execute(select(audit.c.action, audit.c.target, audit.c.after)).all()
        count = Counter(entry.action for entry in entries)
        assert count["market.publish"] + count["market.settle"] == len(published)
        assert count["run.end"] == count["run.request"] == len(ended)
        assert stored == {entry.target: set(entry.after["results"]) for entry in entries if entry.action == "run.end"}
        kinds = {ended[row.run_id].kind for row in published}
        stage = connection.execute(select(markets.c.stage).where(markets.c.id == self.market["id"])).scalar_one()
        assert stage == ("settled" if "settlement" in kinds else "published")


@contextlib.contextmanager
def harness(kind: str, folder: Path, resources: int, seed: int) -> Iterator[Harness]:
    """Start a server that can be killed, on a database of its own, with a stand-in for the engine."""
    with killable(kind, folder, resources, {SOLVER: STAND_IN}) as (server, world, trap):
        market = add_market(server, world, import_price_usd_per_mwh=[30])
        close(server, world, market)
        yield Harness(server, world, market, trap, random.Random(seed))


@contextlib.contextmanager
def killable(kind: str, folder: Path, resources: int, more: Mapping[str, str]) -> Iterator[tuple[Server, World, Path]]:
    """Start a server that can be killed, with `more` of an environment; give it, its world and its trap."""
    with databases(kind, folder) as environment:
        trap, temporary = folder / "trap", folder / TEMPORARY
        temporary.mkdir()
        environment |= {FILE: str(trap), "DLMP_LEASE_S": "1.0", "DLMP_MAX_RUN_ATTEMPTS": "10", **more}
        environment["TMPDIR"] = str(temporary)
        environment |= {"DLMP_MAX_BIDS_PER_MARKET": "1000000", "DLMP_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.1"}
        world = new_world(environment, resources=resources, interval_minutes=5)
        with Server(environment, "service.crash.factory:app") as server:
            hook = {"url": "https://127.0.0.1:9/", "events": EVENTS}
            assert server.send("POST", "/v1/webhooks", world.operator, hook)[0] == 201
            yield server, world, trap


def add_market(server: Server, world: World, **own: Any) -> Mapping[str, Any]:
    """Add a market like that of the world but for what it has of its `own`."""
    status, market = server.get(f"/v1/markets/{world.market_id}", world.operator)
    assert status == 200, market
    fields = ("feeder_id", "trade_date", "market_timezone", "gate_opens_at", "gate_closes_at")
    another = {name: market[name] for name in fields} | {"name": "another", **own}
    status, made = server.send("POST", "/v1/markets", world.operator, another)
    assert status == 201, made
    return dict(made)


def close(server: Server, world: World, market: Mapping[str, Any]) -> None:
    """Close the gate of a market."""
    assert server.send("POST", f"/v1/markets/{market['id']}/close", world.operator)[0] == 200
