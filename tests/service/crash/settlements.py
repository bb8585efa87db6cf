"""Meter readings and settlements against a server that is killed, and what every settled version must be ever after."""

import contextlib
import hashlib
import io
import random
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow.parquet as pq
from crash.factory import SOLVER
from crash.harness import GONE, STAND_IN, Harness, Sent, add_market, close, killable
from crash.solver import AWARDED_KWH
from sqlalchemy import Connection, select

from api.clock import rfc3339
from api.store.tables import readings, resources, results, runs, versions

SETTLEMENT_POINTS = (
    "written readings.add",
    "committed readings.add",
    "written run.request",
    "committed run.request",
    "solving any",
    "solved any",
    "written run.end",
    "written market.settle",
    "committed market.settle",
)
"""Where the trap of `factory` kills the server: of the last four the first is before the statements are written, the
next two when they are, and not committed, without and with their version, and the last when all of it is on disk."""
DAYS_AGO, METERED, METER_PAUSE_S = 3, 2, 0.2
CENT = Decimal("0.01")

Readings = Mapping[tuple[str, int], float]
"""Energy by resource and interval [kWh]."""


@dataclass
class Settlements(Harness):
    """A market whose day is over, which is metered and settled again and again."""

    posted: list[Readings] = field(default_factory=list)
    """Every post has readings of all resources, and is so one version more of the series of each."""
    answered: int = 0
    """Posts that were answered."""
    statements: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the statements of each run, as they were found first."""

    @property
    def metered(self) -> Sequence[str]:
        return self.world.resources[:METERED]

    def offer(self) -> None:
        """Bid what is awarded in every interval."""
        segments = [{"quantity_kw": float(AWARDED_KWH), "price_usd_per_mwh": 10}]
        place = {"product": "energy", "market_id": self.market["id"], "side": "supply", "segments": segments}
        times = {"interval_start": self.market["starts_at"], "interval_end": self.market["ends_at"]}
        placed = [place | times | {"resource_id": name} for name in self.metered]
        self.sent.append(Sent("/v1/bids/batch", {"mode": "atomic", "bids": placed}, "offer"))
        self._replay()

    def _clients(self) -> list[Callable[[threading.Event], None]]:
        return [*super()._clients(), self._meter]

    def _meter(self, over: threading.Event) -> None:
        """Post readings until the server is gone."""
        with contextlib.suppress(*GONE):
            while not over.is_set():
                interval = self.dice.randrange(self.market["intervals"])
                self.posted.append({(name, interval): float(next(self.numbers)) for name in self.metered})
                self._post_newest()
                over.wait(self.dice.uniform(0, METER_PAUSE_S))

    def _post_newest(self) -> None:
        """Post what was posted last, again where nobody knows whether it was taken."""
        begins = datetime.fromisoformat(self.market["starts_at"])
        hour = timedelta(minutes=self.market["interval_minutes"])
        body = [
            {
                "resource_id": name,
                "interval_start": rfc3339(begins + interval * hour),
                "interval_end": rfc3339(begins + (interval + 1) * hour),
                "net_injection_kwh": kwh,
            }
            for (name, interval), kwh in self.posted[-1].items()
        ]
        status, answer = self._post(self._path("/readings"), {"readings": body})
        assert status == 201, answer
        assert {item["version"] for item in answer["items"]} == {len(self.posted)}
        self.answered = len(self.posted)

    def _replay(self) -> None:
        super()._replay()
        if self.posted:
            self._post_newest()

    def work(self) -> None:
        """Settle the market with the readings that there are."""
        _, market = self.server.get(self._path(), self.world.operator)
        known = self.answered
        run = self._run("/settle", {"correction_reason": "read again"} if market["state"] == "settled" else {})
        assert min(run["settling"]["readings"].values(), default=0) >= known, "settled without readings that were taken"
        _, market = self.server.get(self._path(), self.world.operator)
        self.told_version = market["price_version"]

    def verify_runs(self, connection: Connection) -> None:
        """Every settlement is published once, whole, with the readings that it froze, and balances to the cent."""
        super().verify_runs(connection)
        self._verify_readings(connection)
        settled = connection.execute(select(runs).where(runs.c.kind == "settlement")).all()
        published = connection.execute(select(versions.c.run_id).where(versions.c.price_version > 1)).scalars()
        assert sorted(published) == sorted(run.id for run in settled)
        for run in settled:
            own = select(results).where(results.c.run_id == run.id, results.c.name == "statements")
            table = connection.execute(own).one()
            assert hashlib.sha256(table.content).hexdigest() == table.sha256
            assert self.statements.setdefault(run.id, table.sha256) == table.sha256
            self._verify_statements(connection, run.settling["readings"], table.content)

    def _verify_readings(self, connection: Connection) -> None:
        for name in self.metered:
            rows = connection.execute(
                select(readings).where(readings.c.resource_id == name).order_by(readings.c.version)
            ).all()
            assert [row.version for row in rows] == list(range(1, len(self.posted) + 1))
            assert all(dict(self._series(name, row.version)) == _given(row.net_injection_kwh) for row in rows)

    def _series(self, name: str, version: int) -> Mapping[int, float]:
        """Readings of a resource by their interval, as they were after so many posts."""
        series: dict[int, float] = {}
        for post in self.posted[:version]:
            series |= {interval: kwh for (resource, interval), kwh in post.items() if resource == name}
        return series

    def _verify_statements(self, connection: Connection, used: Mapping[str, int], content: bytes) -> None:
        lines = pq.read_table(io.BytesIO(content)).to_pylist()
        sums: dict[str, Decimal] = defaultdict(Decimal)
        for line in lines:
            sums[line["participant"]] += Decimal(line["amount"])
        assert sum(sums.values()) == 0
        assert all(amount == amount.quantize(CENT) for amount in sums.values())
        found = {line["resource"]: line["quantity"] for line in lines if line["product"] == "energy_imbalance"}
        for name, version in used.items():
            series = self._series(name, version)
            deviation = sum(series.values()) - len(series) * float(AWARDED_KWH)
            named = connection.execute(select(resources.c.name).where(resources.c.id == name)).scalar_one()
            assert abs(found.get(named, 0.0) - deviation) < 1e-6


def _given(series: Sequence[float | None]) -> dict[int, float]:
    return {interval: kwh for interval, kwh in enumerate(series) if kwh is not None}


@contextlib.contextmanager
def settlements(kind: str, folder: Path, resources: int, seed: int, *, with_engine: bool) -> Iterator[Settlements]:
    """Start a server that can be killed, with a published market whose day is over, on the engine or a stand-in."""
    with killable(kind, folder, resources, {} if with_engine else {SOLVER: STAND_IN}) as (server, world, trap):
        day = (world.starts_at - timedelta(days=2 + DAYS_AGO)).date().isoformat()
        market = add_market(server, world, trade_date=day, interval_minutes=60, import_price_usd_per_mwh=[30])
        made = Settlements(server, world, market, trap, random.Random(seed))
        made.offer()
        close(server, world, market)
        Harness.work(made)
        yield made
