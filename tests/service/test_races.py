"""Many who want the same at the same moment: one effect, on SQLite, and on PostgreSQL with two processes that write."""

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from processes import Answer, Asked, Racers, Server, World, databases, new_world, settings_of
from sqlalchemy import func, select

from api.integrity import faults_in_store
from api.store.database import open_database
from api.store.tables import bids, runs, submissions

IN_FLIGHT = 409
RETRIES, THREADS, OPERATORS = 5, 16, 32


@dataclass
class Arena:
    """A server, and the world it serves."""

    server: Server
    world: World

    def rows(self, query: Any) -> Any:
        engine = open_database(settings_of(self.server.environment).url)
        with engine.connect() as connection:
            found = connection.execute(query).all()
            assert list(faults_in_store(connection)) == []
        engine.dispose()
        return found

    def post(self, path: str, body: object = None) -> Any:
        status, document = self.server.send("POST", path, self.world.operator, body)
        assert status < 300, document
        return document


@pytest.fixture(scope="module", params=[("sqlite", 1), ("postgresql", 2)], ids=["sqlite", "postgresql-two-workers"])
def arena(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    kind, workers = request.param
    with databases(kind, Path(tmp_path_factory.mktemp(kind))) as environment:
        environment |= {"DLMP_RUNS_HERE": "0", "DLMP_MAX_BIDS_PER_MARKET": "1000000"}
        environment |= {"DLMP_RATE_PER_SECOND": "1000000", "DLMP_RATE_BURST": "1000000"}
        world = new_world(environment, resources=50, interval_minutes=5)
        with Server(environment, workers=workers) as server:
            yield Arena(server, world)


@pytest.fixture(scope="module")
def numbers(arena: Arena) -> Iterator[int]:
    """Numbers of bids that were not placed yet, of each database its own."""
    return iter(range(len(arena.world.resources) * 288))


def closed_market(arena: Arena) -> str:
    _, market = arena.server.get(f"/v1/markets/{arena.world.market_id}", arena.world.operator)
    names = ("feeder_id", "trade_date", "market_timezone", "gate_opens_at", "gate_closes_at")
    made = arena.post(
        "/v1/markets", {name: market[name] for name in names} | {"name": "run", "import_price_usd_per_mwh": [30]}
    )
    arena.post(f"/v1/markets/{made['id']}/close")
    return str(made["id"])


def race_for_runs(arena: Arena, rounds: int) -> None:
    market_id = closed_market(arena)
    ask = [Asked("POST", f"/v1/markets/{market_id}/runs", arena.world.operator, {})]
    with Racers(arena.server, OPERATORS) as racers:
        for number in range(1, rounds + 1):
            answers = [answer for (answer,) in racers.race([ask] * OPERATORS)]
            assert {answer.status for answer in answers} == {202}
            (name,) = {answer.document["id"] for answer in answers}
            assert answers[0].document["number"] == number
            arena.post(f"/v1/runs/{name}/cancel")
    rows = arena.rows(select(runs.c.number, runs.c.state).where(runs.c.market_id == market_id).order_by(runs.c.number))
    assert [tuple(row) for row in rows] == [(number, "cancelled") for number in range(1, rounds + 1)]


def test_32_operators_who_ask_at_once_get_one_run(arena: Arena) -> None:
    race_for_runs(arena, 5)


@pytest.mark.nightly
def test_32_operators_get_one_run_a_thousand_times(arena: Arena) -> None:
    race_for_runs(arena, 1_000)


def race_for_keys(arena: Arena, numbers: Iterator[int], keys: int) -> int:
    """Send every key five times, from whichever threads: a key that is being worked on is asked for again.

    Returns how often one was being worked on.
    """
    before = {row.idempotency_key for row in arena.rows(select(submissions.c.idempotency_key))}
    bids_before = arena.rows(select(func.count()).select_from(bids))[0][0]
    asked = [
        Asked("POST", "/v1/bids", arena.world.aggregator, arena.world.bid(number), {"Idempotency-Key": f"key {number}"})
        for number in (next(numbers) for _ in range(keys))
    ]
    waiting = asked * RETRIES
    answers: defaultdict[str, list[Answer]] = defaultdict(list)
    dice = random.Random(7)
    met = 0
    with Racers(arena.server, THREADS) as racers:
        while waiting:
            near = sorted(waiting, key=lambda one: int(one.headers["Idempotency-Key"][4:]) / 4 + dice.random())
            lanes = [near[lane::THREADS] for lane in range(THREADS)]
            again = []
            for lane, given in zip(lanes, racers.race(lanes), strict=True):
                for one, answer in zip(lane, given, strict=True):
                    if answer.status == IN_FLIGHT:
                        assert answer.document["code"] == "in_flight"
                        again.append(one)
                    else:
                        answers[one.headers["Idempotency-Key"]].append(answer)
            waiting = again
            met += len(again)
    assert len(answers) == keys
    for given in answers.values():
        assert [answer.status for answer in given] == [201] * RETRIES
        assert all(answer.document == given[0].document for answer in given)
        assert sorted(answer.is_again for answer in given) == [False] + [True] * (RETRIES - 1)
    after = {row.idempotency_key for row in arena.rows(select(submissions.c.idempotency_key))}
    assert after - before == answers.keys()
    assert arena.rows(select(func.count()).select_from(bids))[0][0] - bids_before == keys
    return met


def test_a_key_sent_five_times_by_16_threads_has_one_effect(arena: Arena, numbers: Iterator[int]) -> None:
    race_for_keys(arena, numbers, 60)


@pytest.mark.nightly
def test_ten_thousand_keys_sent_five_times_by_16_threads_have_one_effect_each(
    arena: Arena, numbers: Iterator[int]
) -> None:
    met = race_for_keys(arena, numbers, 10_000)
    print(f"{arena.server.workers} workers: 10,000 keys x {RETRIES}, {THREADS} threads, {met} asked for while in work")
    assert met > 0


def test_of_different_bodies_under_one_key_one_is_taken(arena: Arena, numbers: Iterator[int]) -> None:
    world = arena.world
    with Racers(arena.server, 8) as racers:
        for _ in range(3):
            number = next(numbers)
            key = {"Idempotency-Key": f"key {number}"}
            lanes = [[Asked("POST", "/v1/bids", world.aggregator, world.bid(number, price), key)] for price in range(8)]
            answers = [answer for (answer,) in racers.race(lanes)]
            refused = [answer for answer in answers if answer.status != 201]
            assert len(refused) == 7
            assert {answer.document["code"] for answer in refused} <= {"in_flight", "idempotency_key_reused"}


def test_of_amendments_with_the_same_etag_one_wins(arena: Arena, numbers: Iterator[int]) -> None:
    world = arena.world
    with Racers(arena.server, 2) as racers:
        for _ in range(5):
            number = next(numbers)
            bid = Asked("POST", "/v1/bids", world.aggregator, world.bid(number), {"Idempotency-Key": f"key {number}"})
            ((placed,),) = racers.race([[bid]])
            path = f"/v1/bids/{placed.document['items'][0]['bid_id']}"
            ((read,),) = racers.race([[Asked("GET", path, world.aggregator)]])
            lanes = [
                [
                    Asked(
                        "PUT",
                        path,
                        world.aggregator,
                        world.bid(number, price),
                        {"Idempotency-Key": f"amend {number} {price}", "If-Match": read.headers["etag"]},
                    )
                ]
                for price in (11.0, 12.0)
            ]
            answers = [answer for (answer,) in racers.race(lanes)]
            assert sorted(answer.status for answer in answers) == [200, 412]
            winner = 11.0 if answers[0].status == 200 else 12.0
            ((read,),) = racers.race([[Asked("GET", path, world.aggregator)]])
            assert read.document["version"] == 2
            assert read.document["terms"]["segments"][0]["price_usd_per_mwh"] == winner
