"""``dlmp serve`` as a process: its first start, its settings, its logs, its end, and two of them on one database."""

import os
import signal
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import httpx
import psycopg
import pytest
from receivers import until
from servers import Desk, Server, open_desk, serving
from sqlalchemy import insert, select

from api.runs import Claim, Release, claim_run, release_run
from api.settings import ServiceSettings
from api.store.audit import Chain
from api.store.database import migrate, open_database
from api.store.tables import feeders, markets, runs
from dlmp.cli import main
from dlmp.client import Client

POSTGRES = os.environ.get("DLMP_TEST_DATABASE_URL", "postgresql://root@127.0.0.1:5432/test")


@pytest.fixture
def refused(capsys, monkeypatch, tmp_path):
    """Run ``dlmp serve``, which must end by itself; gives its exit code and what it says."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, **settings: str) -> tuple[int, str]:
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["dlmp", "serve", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        assert out == ""
        return stopped.value.code, err

    return run


def test_the_first_start_writes_an_operators_key_that_only_its_owner_can_read_and_never_prints_it(tmp_path: Path):
    with serving(tmp_path) as server:
        path, key = tmp_path / "data" / "operator.key", server.key
        with Client(server.url, key) as operator:
            assert operator.participants() == []
        assert path.stat().st_mode & 0o777 == 0o600
        assert server.end() == 0
        assert str(path) in server.said("err")
        assert key.partition(".")[2] not in server.said("err") + server.said("out")
        before = server.said("err")
        server.start()
        assert (server.key, server.said("err")) == (key, before)


def test_a_feeder_of_opendss_is_read_in_another_process_than_the_services(tmp_path: Path):
    with serving(tmp_path) as server, Client(server.url, server.key) as operator:
        for name, buses in (("ieee13", 13), ("ieee34", 34)):
            assert operator.add_feeder(name, shipped=name).bus_count >= buses
        loaded = Path(f"/proc/{server.process.pid}/maps").read_text("utf-8")
        assert "python" in loaded
        assert "dss_capi" not in loaded


def test_every_line_of_the_log_is_json_and_an_answer_can_be_found_by_its_request_id(server: Server):
    answer = httpx.get(f"{server.url}/v1/markets/mkt_{'0' * 24}")
    of_it = answer.headers["x-request-id"]
    # The line is written when the answer has been sent, which may be after it has been read here.
    events = until(lambda: [one for one in server.events() if one.get("request_id") == of_it])
    assert [(one["event"], one["status"], one["route"]) for one in events] == [
        ("request", 404, "/v1/markets/{market_id}")
    ]
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_a_run_under_way_is_given_back_at_the_end_and_taken_up_at_once(tmp_path: Path):
    with serving(tmp_path, DLMP_LEASE_S="3600") as server:
        desk = open_desk(server)
        desk.operator.close_gate(desk.market.id)
        run = desk.operator.request_run(desk.market.id)
        is_running = threading.Event()
        streamed = []

        def follow() -> None:
            with httpx.stream("GET", f"{server.url}/v1/runs/{run.id}/events", headers=bearer(server)) as stream:
                for line in stream.iter_lines():
                    streamed.append(line)
                    if line == "event: running":
                        is_running.set()

        with ThreadPoolExecutor() as pool:
            following = pool.submit(follow)
            assert is_running.wait(60)
            assert server.end() == 0
            following.result(60)
        assert rows(server, "SELECT state, worker, attempts FROM runs") == [("queued", "", 0)]
        assert not [one for one in server.events() if "Cancel" in one["event"]], (
            "the stream of events had to be cut off"
        )
        server.start()
        assert desk.operator.follow(run).state == "succeeded"
        assert rows(server, "SELECT attempts FROM runs") == [(1,)]
        desk.operator.close()


def test_only_the_worker_of_a_run_can_give_it_back(tmp_path: Path):
    engine = open_database(f"sqlite:///{tmp_path / 'db.sqlite'}")
    migrate(engine)
    now = datetime.now(UTC)
    with engine.begin() as connection:
        _add_run(connection, now)
        chain = Chain.locked(connection)
        assert claim_run(connection, chain, Claim("wrk_1", now, 3600.0, 3)).attempts == 1
        assert not release_run(connection, chain, Release("run_1", "wrk_2"))
        assert claim_run(connection, chain, Claim("wrk_2", now, 3600.0, 3)) is None
        assert release_run(connection, chain, Release("run_1", "wrk_1"))
        assert not release_run(connection, chain, Release("run_1", "wrk_1"))
        taken_up = claim_run(connection, chain, Claim("wrk_2", now, 3600.0, 3))
        assert (taken_up.worker, taken_up.attempts) == ("wrk_2", 1)
        assert connection.execute(select(runs.c.state)).scalar_one() == "running"
    engine.dispose()


def _add_run(connection, now: datetime) -> None:
    """A queued run with the least that the tables ask for."""
    texts = {"feeder": "f", "trade_date": "2026-01-01", "timezone": "UTC", "currency": "USD", "name": "m"}
    times = {name: now for name in ("starts_at", "gate_opens_at", "gate_closes_at", "created_at")}
    numbers = {
        "interval_minutes": 60,
        "intervals": 24,
        "price_floor": 0.0,
        "price_cap": 1.0,
        "takes_blocks": False,
        "mask_key": "",
    }
    feeder = {"id": "fdr_1", "name": "f", "version": 1, "sha256": "", "description": "", "files": b"", "nodes": []}
    connection.execute(insert(feeders).values(**feeder, created_at=now))
    connection.execute(insert(markets).values(id="mkt_1", feeder_id="fdr_1", inputs={}, **texts, **times, **numbers))
    blank = dict.fromkeys(("reason", "correction_reason", "snapshot_sha256", "requested_by", "worker"), "")
    run = {"id": "run_1", "market_id": "mkt_1", "number": 1, "kind": "clearing", "state": "queued", "snapshot": b""}
    run |= {"settings": {}, "corrected_inputs": {}}
    more = {"time_limit_s": 1.0, "created_at": now, "attempts": 0, "cancel_requested": False, "progress": {}}
    connection.execute(insert(runs).values(**run, **blank, **more))


def test_requests_that_were_begun_are_answered_before_the_end(tmp_path: Path):
    with serving(tmp_path) as server:
        desk = open_desk(server)
        stop, stand = threading.Event(), []

        def submit(first: int) -> None:
            with desk.client(attempts=1) as client:
                for hour in range(first, 24, 4):
                    stand.extend(client.submit(desk.bid(hour)).bid_ids)
                    stop.wait(0.01)

        with ThreadPoolExecutor(4) as pool:
            tasks = [pool.submit(submit, first) for first in range(4)]
            while len(stand) < 4:
                time.sleep(0.01)
            assert server.end() == 0
            failed = [type(task.exception()).__name__ for task in tasks if task.exception()]
        assert set(failed) <= {"NoAnswerError", "BusyError"}
        known = {name for (name,) in rows(server, "SELECT id FROM bids")}
        assert set(stand) <= known
        desk.operator.close()


def test_two_servers_on_one_data_directory_lose_and_double_nothing(tmp_path: Path, capsys, monkeypatch):
    with serving(tmp_path) as one, serving(tmp_path) as two:
        assert one.said("err")
        assert two.said("err") == "", "only the first start issues a key"
        desk = open_desk(one)
        twin = Desk(two.url, desk.operator, desk.participant, desk.key, desk.resources, desk.market)

        def submit(at: Desk, hour: int) -> int:
            with at.client() as client:
                return client.submit(at.bid(hour, resource=hour % 2), idempotency_key=f"hour {hour}").sequence

        with ThreadPoolExecutor(8) as pool:
            first = list(pool.map(lambda hour: submit([desk, twin][hour % 3 == 0], hour), range(24)))
            again = list(pool.map(lambda hour: submit([twin, desk][hour % 3 == 0], hour), range(24)))
        assert sorted(first) == list(range(1, 25))
        assert again == first
        desk.operator.close()
    code, out = audited(tmp_path, capsys, monkeypatch)
    assert code == 0
    assert out.split()[1] == str(len(rows(one, "SELECT 1 FROM audit")))


def audited(folder: Path, capsys, monkeypatch) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["dlmp", "audit", "verify", "--data-dir", str(folder / "data")])
    with pytest.raises(SystemExit) as stopped:
        main()
    return stopped.value.code, capsys.readouterr().out


@pytest.fixture
def postgres() -> Iterator[str]:
    """A database of its own."""
    name = f"client_{uuid4().hex[:8]}"
    with psycopg.connect(POSTGRES, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield POSTGRES.rpartition("/")[0] + f"/{name}"
    with psycopg.connect(POSTGRES, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_two_workers_share_a_postgresql_database(tmp_path: Path, postgres: str):
    with serving(tmp_path, "--workers", "2", DLMP_DATABASE_URL=postgres) as server:
        desk = open_desk(server)

        def submit(hour: int) -> int:
            with desk.client() as client:
                return client.submit(desk.bid(hour), idempotency_key=f"hour {hour}").sequence

        with ThreadPoolExecutor(8) as pool:
            assert sorted(pool.map(submit, range(24))) == list(range(1, 25))
        until(lambda: sum(one["event"].startswith("Started server process") for one in server.events()) == 2)
        with Client(server.url, server.key) as operator:
            check = operator._transport.read("/v1/audit/verify").json()
        desk.operator.close()
        assert check["is_whole"], check["faults"]
        assert server.end(signal.SIGTERM) == 0


def test_a_wrong_setting_is_one_message_and_code_2(refused):
    code, err = refused(DLMP_RATE_BURST="none", DLMP_LEASE_S="-1")
    assert code == 2
    assert [line.split(" = ")[0] for line in err.splitlines()[1:]] == [
        "  - settings, DLMP_RATE_BURST",
        "  - settings, DLMP_LEASE_S",
    ]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://root:secret@127.0.0.1:1/market", "does not answer"),
        ("nonsense", "must be postgresql://"),
        ("oracle9://x", "must be postgresql://"),
    ],
)
def test_a_database_that_cannot_be_used_is_one_message_without_its_password(refused, url: str, said: str):
    code, err = refused(DLMP_DATABASE_URL=url)
    assert (code, len(err.splitlines())) == (2, 2)
    assert said in err
    assert "secret" not in err


def test_a_data_directory_that_is_a_file_is_one_message(refused, tmp_path: Path):
    (tmp_path / "taken").write_text("")
    code, err = refused("--data-dir", str(tmp_path / "taken"))
    assert (code, len(err.splitlines())) == (2, 2)


def test_an_address_in_use_is_one_message_and_nothing_is_made(refused, tmp_path: Path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        code, err = refused("--port", str(other.getsockname()[1]))
    assert code == 2
    assert "Address already in use" in err
    assert list(tmp_path.iterdir()) == []


def test_more_workers_than_one_need_postgresql(refused):
    code, err = refused("--workers", "2")
    assert code == 2
    assert "DLMP_DATABASE_URL" in err


def test_every_setting_has_a_description():
    described = {name: field.description for name, field in ServiceSettings.model_fields.items()}
    assert [name for name, text in described.items() if not text] == []


def bearer(server: Server) -> dict[str, str]:
    return {"Authorization": f"Bearer {server.key}"}


def rows(server: Server, query: str) -> list[tuple]:
    connection = sqlite3.connect(server.folder / "data" / "dlmp.sqlite")
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()
