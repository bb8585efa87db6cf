"""A run ends with its reason, soon after its limit, whatever its solver does; the service answers meanwhile."""

import asyncio
import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from processes import World, databases, settings_of
from sqlalchemy import select

import dlmp
from api.archive import content_sha256, unpack, unpack_into
from api.bidding import Place, Reply, Submission
from api.faults import checked
from api.frames import result_table
from api.gate import Step, close_market
from api.integrity import faults_in_store
from api.publication import publish
from api.registry import Asked, add_market
from api.routes.bids import _terms
from api.runner import CHILD, Runner
from api.runs import Beat, Cancel, Claim, Ended, RunRequest, beat, cancel_run, claim_run, end_run, request_run
from api.schemas.bids import BID
from api.service import Service, new_service
from api.store.tables import keys, markets, results, runs, versions
from api.store.writer import each
from benchmarks.servers import settle_world

NETWORKS = Path(__file__).parents[2] / "networks"
LIMIT_S, GRACE_S = 2.0, 2.0
SCRIPTS = {
    "hangs": "import time; time.sleep(600)",
    "crashes": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "devours memory": "import time; kept = [bytearray(b'x') * 2**20 for _ in range(400)]; time.sleep(600)",
    "gives up": "import sys; sys.exit(7)",
    "is out of memory": "raise MemoryError",
    "says nonsense": r"""
import os
os.write(1, b'\xff\xfe{"text": NaN}\n[1]\n{"reason": 3}\n{"text": "x", "passes": "many"}\n' + b'[' * 70_000 + b'\n')
""",
    "talks without end": """
import os
while True:
    os.write(1, b"nonsense " * 10_000)
""",
    "leaves rubbish": """
import pathlib, sys
folder = pathlib.Path(sys.argv[-1]) / "results"
folder.mkdir()
(folder.parent / "summary.json").write_text("{}")
(folder / "prices.parquet").write_bytes(b"PAR1 rubbish")
""",
    "has children": """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)  # grandchild of a run"])
time.sleep(600)
""",
}


@dataclass
class Desk:
    """A service without a worker of its own, and what is there to run."""

    service: Service
    world: World
    folder: Path

    def do(self, job: Callable[..., Any], asked: object) -> Any:
        return self.service.writer.do_now(each(job), asked)

    def request(self, limit_s: float = LIMIT_S, **settings: object) -> str:
        asked = RunRequest(self.world.market_id, "test", self.service.clock(), settings, limit_s)
        name, _ = self.do(request_run, asked)
        return str(name)

    def runner(self, script: str) -> Runner:
        """A worker whose child runs one of `SCRIPTS`."""
        file = self.folder / "child.py"
        file.write_text(SCRIPTS[script])
        return Runner(self.service, (sys.executable, "-S", str(file)))

    def run(self, name: str) -> Any:
        with self.service.engine.connect() as connection:
            return connection.execute(select(runs).where(runs.c.id == name)).one()

    def wait(self, name: str, seconds: float, *states: str) -> Any:
        """The run, as soon as it has one of `states`."""
        until = time.monotonic() + seconds
        while (run := self.run(name)).state not in states:
            assert time.monotonic() < until, f"the run is still {run.state} after {seconds} s"
            time.sleep(0.05)
        return run

    def bid(self, market_id: str, number: int) -> float:
        """Place a bid; return how long it took [s]."""
        bid, faults = checked(BID, self.world.bid(number) | {"market_id": market_id})
        assert not faults
        with self.service.engine.connect() as connection:
            key = connection.execute(select(keys).where(keys.c.role == "aggregator")).one()
        submission = Submission(
            participant_id=key.participant_id,
            key_id=key.id,
            idempotency_key=f"{market_id} {number}",
            content=b"{}",
            received_at=self.service.clock(),
            changes=[Place(_terms(bid))],
        )
        began = time.monotonic()
        reply = asyncio.run(self.service.submit(submission))
        assert isinstance(reply, Reply)
        return time.monotonic() - began

    def close(self) -> None:
        self.do(close_market, Step(self.world.market_id, "test", self.service.clock()))


def desk_in(folder: Path, memory_mib: int = 200, **market: Any) -> Iterator[Desk]:
    with databases("sqlite", folder) as environment:
        settings = settings_of(environment)
        service = new_service(settings.model_copy(update={"run_memory_limit_mib": memory_mib, "lease_s": 1.0}))
        service.writer.start()
        yield Desk(service, settle_world(service, resources=2, **market), folder)
        service.writer.stop()
        service.engine.dispose()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    for made in desk_in(tmp_path):
        made.close()
        yield made


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("hangs", "took longer than its limit of 2 s"),
        ("crashes", "the solver process was ended by SIGSEGV"),
        ("devours memory", "used more than its limit of 200 MiB"),
        ("gives up", "the solver process ended with code 7"),
        ("is out of memory", "found no more memory"),
        ("says nonsense", "the solver process left no results that can be read"),
        ("talks without end", "took longer than its limit of 2 s"),
        ("leaves rubbish", "the solver process left no results that can be read"),
    ],
)
def test_a_run_whose_solver_fails_ends_failed_with_its_reason(desk: Desk, script: str, reason: str) -> None:
    name = desk.request()
    runner = desk.runner(script)
    runner.start()
    started = desk.wait(name, 20, "running", "failed").started_at
    ended = desk.wait(name, 20, "failed")
    runner.stop()
    assert ended.reason == reason
    assert ended.ended_at - started <= timedelta(seconds=LIMIT_S + GRACE_S)
    with desk.service.engine.connect() as connection:
        assert connection.execute(select(results)).all() == []
        assert connection.execute(select(markets.c.stage).where(markets.c.id == desk.world.market_id)).scalar() is None
        assert list(faults_in_store(connection)) == []


@pytest.mark.parametrize("script", ["hangs", "talks without end"])
def test_bids_are_accepted_while_a_solver_misbehaves(tmp_path: Path, script: str) -> None:
    for desk in desk_in(tmp_path):
        with desk.service.engine.connect() as connection:
            market = connection.execute(select(markets)).one()
        content = dict(market._mapping) | market.inputs | {"name": "another day", "market_timezone": market.timezone}
        content |= {"price_floor_usd_per_mwh": market.price_floor, "price_cap_usd_per_mwh": market.price_cap}
        content |= {"trade_date": (market.starts_at + timedelta(hours=1)).date()}
        other = desk.do(add_market, Asked("test", desk.service.clock(), content))
        desk.close()
        name = desk.request()
        runner = desk.runner(script)
        runner.start()
        desk.wait(name, 20, "running")
        taken = []
        while desk.run(name).state == "running":
            taken.append(desk.bid(other, len(taken)) if len(taken) < 40 else 0.0)
        runner.stop()
        assert len(taken) > 5
        assert max(taken) < 1.0


def test_no_process_outlives_its_run(desk: Desk) -> None:
    name = desk.request()
    runner = desk.runner("has children")
    runner.start()
    desk.wait(name, 20, "failed")
    runner.stop()
    left = [
        one for one in psutil.process_iter(["cmdline"]) if "grandchild of a run" in " ".join(one.info["cmdline"] or ())
    ]
    assert [one for one in left if one.status() != psutil.STATUS_ZOMBIE] == []


KILLED_WORKER = """
import os, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
print(child.pid, flush=True)
os._exit(1)
"""


def test_a_child_whose_worker_is_gone_ends_and_leaves_nothing_of_its_folder(tmp_path: Path) -> None:
    for name, stays in (("dlmp-run-1", False), ("of someone else", True)):
        folder = tmp_path / name
        shutil.copytree(NETWORKS / "day33", folder / "case")
        command = [sys.executable, "-c", KILLED_WORKER, *CHILD, str(folder)]
        worker = subprocess.run(command, stdout=subprocess.PIPE, check=False)
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(int(worker.stdout)).wait(120)
        assert folder.exists() == stays


def test_a_day_that_cannot_be_cleared_hard_fails_and_says_why(tmp_path: Path) -> None:
    for desk in desk_in(tmp_path, 4_000, import_limits={"p_max_kw": 1.0}):
        desk.close()
        name = desk.request(120, limits="hard")
        runner = Runner(desk.service)
        runner.start()
        ended = desk.wait(name, 120, "failed", "succeeded")
        runner.stop()
        assert ended.state == "failed"
        assert ended.reason.startswith("infeasible: ")
        assert "import" in ended.reason


def test_a_run_is_its_snapshot_cleared_by_the_library(tmp_path: Path) -> None:
    for desk in desk_in(tmp_path, 4_000):
        for number in range(4):
            desk.bid(desk.world.market_id, number)
        desk.close()
        name = desk.request(300)
        runner = Runner(desk.service)
        runner.start()
        ended = desk.wait(name, 300, "failed", "succeeded")
        runner.stop()
        assert (ended.state, ended.reason) == ("succeeded", "")
        desk.do(publish, Step(desk.world.market_id, "test", desk.service.clock()))
        with desk.service.engine.connect() as connection:
            published = connection.execute(select(versions.c.run_id)).scalar_one()
            prices = result_table(connection, published, "prices").to_pandas()
            assert list(faults_in_store(connection)) == []
        assert content_sha256(unpack(bytes(ended.snapshot))) == ended.snapshot_sha256
        unpack_into(bytes(ended.snapshot), tmp_path / "snapshot")
        own = dlmp.clear(dlmp.read_case(tmp_path / "snapshot"))
        assert len(own.case.resources) == 2
        assert own.prices.published.ravel().tolist() == prices["lmp_usd_per_mwh"].tolist()


def test_a_run_cancelled_while_it_waits_never_begins(desk: Desk) -> None:
    name = desk.request()
    desk.do(cancel_run, Cancel(name, "test", desk.service.clock()))
    assert (desk.run(name).state, desk.run(name).reason) == ("cancelled", "cancelled before it began")
    assert desk.do(claim_run, Claim("worker", desk.service.clock(), 1.0, 3)) is None


def test_a_run_cancelled_while_it_solves_ends_soon(desk: Desk) -> None:
    name = desk.request(60)
    runner = desk.runner("hangs")
    runner.start()
    desk.wait(name, 20, "running")
    desk.do(cancel_run, Cancel(name, "test", desk.service.clock()))
    assert desk.wait(name, 5, "cancelled").reason == "cancelled"
    runner.stop()


def test_a_run_that_was_cancelled_does_not_succeed(desk: Desk) -> None:
    name = desk.request()
    now = desk.service.clock()
    desk.do(claim_run, Claim("worker", now, 10.0, 3))
    desk.do(cancel_run, Cancel(name, "test", now))
    table = {"prices": (b"", "", 0)}
    assert desk.do(end_run, Ended(name, "worker", now, "succeeded", "", table, {}))
    assert (desk.run(name).state, desk.run(name).reason) == ("cancelled", "cancelled")
    with desk.service.engine.connect() as connection:
        assert connection.execute(select(results)).all() == []
        assert connection.execute(select(markets.c.stage)).scalar_one() is None


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_lost_run_is_taken_up_whichever_way_the_clock_steps(desk: Desk, hours: int) -> None:
    name = desk.request()
    now = desk.service.clock()
    assert desk.do(claim_run, Claim("lost", now, 10.0, 3)).id == name
    assert desk.do(claim_run, Claim("other", now + timedelta(seconds=5), 10.0, 3)) is None
    assert desk.do(claim_run, Claim("other", now + timedelta(hours=hours), 10.0, 3)).id == name


def test_a_run_left_by_a_worker_that_stops_is_taken_up_by_another(desk: Desk) -> None:
    name = desk.request(60)
    first = desk.runner("hangs")
    first.start()
    before = desk.wait(name, 20, "running")
    first.stop()
    assert desk.run(name).state == "queued"
    second = desk.runner("crashes")
    second.start()
    after = desk.wait(name, 10, "failed")
    second.stop()
    assert (after.attempts, after.started_at) == (1, before.started_at)
    assert after.worker != before.worker


def test_a_worker_whose_lease_was_taken_over_stops_and_changes_nothing(desk: Desk) -> None:
    name = desk.request(60)
    runner = desk.runner("hangs")
    runner.start()
    own = desk.wait(name, 20, "running")
    late = desk.service.clock() + timedelta(seconds=3)
    taken = desk.do(claim_run, Claim("another", late, 1.0, 3))
    assert (taken.id, taken.worker, taken.attempts) == (name, "another", 2)
    assert desk.do(beat, Beat(name, own.worker, late, {"text": "", "passes": 0})) == "lost"
    until = time.monotonic() + 5
    while any("child.py" in " ".join(one.cmdline()) for one in psutil.Process().children()):
        assert time.monotonic() < until, "the solver of the lost run goes on"
        time.sleep(0.05)
    runner.stop()
    assert (desk.run(name).state, desk.run(name).worker) == ("running", "another")


def test_a_run_whose_worker_is_lost_too_often_fails(desk: Desk) -> None:
    name, now = desk.request(), desk.service.clock()
    for number in range(3):
        assert desk.do(claim_run, Claim(f"worker {number}", now + timedelta(seconds=2 * number), 1.0, 3)).id == name
    assert desk.do(claim_run, Claim("worker 3", now + timedelta(seconds=6), 1.0, 3)) is None
    assert (desk.run(name).state, desk.run(name).reason) == ("failed", "its worker was lost 3 times")


def test_the_snapshot_is_what_stood_when_the_run_was_asked_for(tmp_path: Path) -> None:
    for desk in desk_in(tmp_path):
        desk.bid(desk.world.market_id, 0)
        desk.close()
        run = desk.run(desk.request())
        files = unpack(bytes(run.snapshot))
        assert run.snapshot_sha256 == content_sha256(files)
        assert run.snapshot_sha256 != content_sha256(files | {"bids.csv": files["bids.csv"].replace(b"10.0", b"10.1")})
        lines = files["bids.csv"].decode().splitlines()
        assert lines[1:] == [
            "plant 0,0,supply,1,3.0,10.0,,0",
            "plant 0,0,supply,2,2.5,14.25,,0",
            "plant 0,0,supply,3,1.0,21.0,,0",
        ]
