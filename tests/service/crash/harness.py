"""Bids and runs against a server that is killed, and what must be true of its database ever after."""

import contextlib
import http.client
import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from processes import Server, World, databases, new_world, settings_of
from sqlalchemy import func, select

from api.integrity import faults_in_store
from api.store.database import open_database
from api.store.tables import audit, bids, deliveries, markets, results, runs, submissions, versions

POINTS = (
    "locked any",
    "written bids.submit",
    "committed bids.submit",
    "written run.request",
    "committed run.request",
    "solving any",
    "written run.end",
    "committed run.end",
    "written market.publish",
    "committed market.publish",
)
"""Where the trap of `factory` kills the server."""
AT_RANDOM = "random"
BIDDERS, MOST_SENT, BATCH = 4, 40, 5
STUCK_S = 30
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
    running: str
    """The market that is run and published again and again."""
    trap: Path
    dice: random.Random
    sent: list[Sent] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def round(self, point: str) -> None:
        """Send until the server is killed at `point`, start it again, replay, and verify."""
        over = threading.Event()
        if point != AT_RANDOM:
            self.trap.write_text(f"{point} {self.dice.randint(1, 4) if 'bids' in point or 'locked' in point else 1}")
        threads = [threading.Thread(target=self._bid, args=(over,)) for _ in range(BIDDERS)]
        threads.append(threading.Thread(target=self._operate, args=(over,)))
        for thread in threads:
            thread.start()
        if point == AT_RANDOM:
            time.sleep(self.dice.uniform(0.02, 2.0))
            self.server.kill()
        assert self.server.process is not None
        self.server.process.wait(timeout=60)
        over.set()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        self.trap.unlink(missing_ok=True)
        self.counts[point] += 1
        self.server.start()
        self._replay()
        self._settle_down()
        self.verify()

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
        connection.close()

    def _send(self, connection: http.client.HTTPConnection, one: Sent) -> None:
        headers = {"Authorization": f"Bearer {self.world.aggregator}", "Idempotency-Key": one.key}
        connection.request("POST", one.path, json.dumps(one.body), headers | {"Content-Type": "application/json"})
        response = connection.getresponse()
        document = json.loads(response.read())
        if one.status:
            assert (response.status, document) == (one.status, one.document), "answered twice, and not the same"
        one.status, one.document = response.status, document

    def _operate(self, over: threading.Event) -> None:
        """Run and publish the market until the server is gone."""
        with contextlib.suppress(*GONE):
            while not over.is_set():
                self._run_and_publish()

    def _post(self, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
        return self.server.send("POST", path, self.world.operator, body)

    def _run_and_publish(self) -> None:
        status, market = self.server.get(f"/v1/markets/{self.running}", self.world.operator)
        is_published = market["state"] == "published"
        status, run = self._post(
            f"/v1/markets/{self.running}/runs", {"correction_reason": "again"} if is_published else {}
        )
        assert status == 202, run
        run = self._ended(run["id"])
        assert run["state"] == "succeeded", run
        status, answer = self._post(f"/v1/markets/{self.running}/publish")
        assert status == 200 or answer["code"] == "already_published", answer

    def _ended(self, run_id: str) -> Any:
        until = time.monotonic() + STUCK_S
        while True:
            _, run = self.server.get(f"/v1/runs/{run_id}", self.world.operator)
            if run["state"] not in ("queued", "running"):
                return run
            assert time.monotonic() < until, f"stuck: {run}"
            time.sleep(0.05)

    def _replay(self) -> None:
        """Send again what was not answered, and a few of those that were."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        answered = [one for one in self.sent if one.status]
        unanswered = [one for one in self.sent if not one.status]
        self.counts["unanswered"] += len(unanswered)
        for one in [*unanswered, *self.dice.sample(answered, min(5, len(answered)))]:
            self._send(connection, one)
        connection.close()

    def _settle_down(self) -> None:
        """Wait until the run that was interrupted has ended, and go on with the next."""
        _, page = self.server.get(f"/v1/markets/{self.running}/runs", self.world.operator)
        for run in page["items"]:
            self._ended(run["id"])
        self._run_and_publish()

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
            self._verify_runs(connection)
        engine.dispose()

    def _verify_runs(self, connection: Any) -> None:
        tables = Counter(connection.execute(select(results.c.run_id)).scalars())
        ended = {row.id: row for row in connection.execute(select(runs))}
        assert tables == {name: 2 for name, row in ended.items() if row.state == "succeeded"}
        assert {row.state for row in ended.values()} <= {"succeeded", "failed"}
        assert all(row.reason for row in ended.values() if row.state == "failed")
        published = connection.execute(select(versions).order_by(versions.c.price_version)).all()
        assert [row.price_version for row in published] == list(range(1, len(published) + 1))
        assert all(ended[row.run_id].state == "succeeded" for row in published)
        told = connection.execute(select(deliveries.c.content).order_by(deliveries.c.number)).scalars().all()
        assert [one["price_version"] for one in told] == [row.price_version for row in published]
        noted = connection.execute(select(audit.c.action, func.count()).group_by(audit.c.action))
        count = {action: number for action, number in noted}
        assert count["market.publish"] == len(published)
        assert count["run.end"] == count["run.request"] == len(ended)
        stage = connection.execute(select(markets.c.stage).where(markets.c.id == self.running)).scalar_one()
        assert stage == "published"


@contextlib.contextmanager
def harness(kind: str, folder: Path, resources: int, seed: int) -> Iterator[Harness]:
    """Start a server that can be killed, on a database of its own."""
    with databases(kind, folder) as environment:
        trap = folder / "trap"
        environment |= {"DLMP_TEST_TRAP": str(trap), "DLMP_LEASE_S": "1.0", "DLMP_MAX_RUN_ATTEMPTS": "10"}
        environment |= {"DLMP_MAX_BIDS_PER_MARKET": "1000000", "DLMP_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.1"}
        world = new_world(environment, resources=resources, interval_minutes=5)
        with Server(environment, "service.crash.factory:app") as server:
            status, market = server.get(f"/v1/markets/{world.market_id}", world.operator)
            assert status == 200
            fields = ("feeder_id", "trade_date", "market_timezone", "gate_opens_at", "gate_closes_at")
            another = {name: market[name] for name in fields} | {"name": "running", "import_price_usd_per_mwh": [30]}
            status, market = server.send("POST", "/v1/markets", world.operator, another)
            assert status == 201, market
            assert server.send("POST", f"/v1/markets/{market['id']}/close", world.operator)[0] == 200
            hook = {"url": "https://127.0.0.1:9/", "events": ["market.published", "market.corrected"]}
            assert server.send("POST", "/v1/webhooks", world.operator, hook)[0] == 201
            yield Harness(server, world, market["id"], trap, random.Random(seed))
