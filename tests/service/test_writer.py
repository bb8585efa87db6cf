"""The writer answers every job, once, whatever happens to the database, to the jobs beside it, or to itself."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from datetime import UTC, datetime
from pathlib import Path

import pytest
from processes import databases, settings_of
from sqlalchemy import Connection, Engine, event, select, text
from sqlalchemy.exc import OperationalError

from api.errors import Conflict, Unavailable
from api.store import writer as writing
from api.store.audit import Chain, Entry, broken_links
from api.store.database import open_database
from api.store.tables import audit, chain
from api.store.writer import Writer, each

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    with databases(request.param, tmp_path) as environment:
        engine = open_database(settings_of(environment).url)
        yield engine
        engine.dispose()


@pytest.fixture
def writer(engine: Engine) -> Iterator[Writer]:
    made = Writer(engine)
    made.start()
    yield made
    made.stop()


def note(connection: Connection, chain: Chain, what: str) -> str:
    """A job that leaves one entry in the audit chain."""
    if what == "refused":
        raise Conflict("refused", "Refused.")
    if what == "broken":
        raise ZeroDivisionError
    if what == "exit":
        raise SystemExit
    if what == "iterator":
        raise StopIteration
    chain.append(connection, [Entry(NOW, "test", "note", what, {})])
    return what


NOTE = each(note)


def noted(engine: Engine) -> list[str]:
    """Everything that is on disk, whose chain must be whole."""
    with engine.connect() as connection:
        assert list(broken_links(connection)) == []
        return list(connection.execute(select(audit.c.target).order_by(audit.c.sequence)).scalars())


def held(writer: Writer) -> tuple[threading.Event, "Future[object]"]:
    """Keep the writer busy until the event is set, so that what is put meanwhile becomes one group."""
    go_on, begun = threading.Event(), threading.Event()

    def wait(connection: Connection, chain: Chain, job: object) -> None:
        begun.set()
        assert go_on.wait(20)

    result = writer.put(each(wait), None)
    assert begun.wait(20)
    return go_on, result


def together(writer: Writer, *jobs: str) -> list["Future[object]"]:
    """Put `jobs` so that they are carried out as one group."""
    go_on, _ = held(writer)
    results = [writer.put(NOTE, job) for job in jobs]
    go_on.set()
    return results


def test_jobs_that_wait_share_one_commit(writer: Writer, engine: Engine) -> None:
    commits: list[object] = []
    go_on, first = held(writer)
    results = [writer.put(NOTE, f"job {number}") for number in range(50)]
    event.listen(engine, "commit", commits.append)
    go_on.set()
    assert [one.result(20) for one in results] == [f"job {number}" for number in range(50)]
    assert first.result(20) is None
    assert len(commits) == 2  # of the job that waited, and of the fifty
    assert noted(engine) == [f"job {number}" for number in range(50)]


def test_a_group_waits_for_those_whose_answers_were_just_given(
    writer: Writer, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "LINGER_S", 20.0)
    begun, go_on = threading.Event(), threading.Event()

    def wait(connection: Connection, chain: Chain, job: object) -> None:
        begun.set()
        go_on.wait(20)

    first = writer.put(each(wait), None)
    assert begun.wait(20)
    behind = writer.put(NOTE, "behind")  # waits while the first is carried out, whose client will ask again
    commits: list[object] = []
    event.listen(engine, "commit", commits.append)
    go_on.set()
    first.result(20)
    again = writer.put(NOTE, "again")
    assert [behind.result(20), again.result(20)] == ["behind", "again"]
    assert len(commits) == 2  # of the first, and of both others


def test_large_jobs_do_not_share_a_commit(writer: Writer, engine: Engine) -> None:
    commits: list[object] = []
    go_on, _ = held(writer)
    results = [writer.put(NOTE, f"job {number}", writing.LARGEST_GROUP) for number in range(3)]
    event.listen(engine, "commit", commits.append)
    go_on.set()
    assert [one.result(20) for one in results] == ["job 0", "job 1", "job 2"]
    assert len(commits) == 4


def test_a_job_that_breaks_takes_no_other_with_it(writer: Writer, engine: Engine) -> None:
    before, refused, broken, after = together(writer, "before", "refused", "broken", "after")
    assert before.result(20) == "before"
    assert isinstance(refused.result(20), Conflict)
    with pytest.raises(ZeroDivisionError):
        broken.result(20)
    assert after.result(20) == "after"
    assert noted(engine) == ["before", "after"]


def test_a_job_that_would_end_the_thread_leaves_nobody_waiting(writer: Writer, engine: Engine) -> None:
    before, leaves = together(writer, "before", "exit")
    for one in (before, leaves):
        with pytest.raises(RuntimeError, match="SystemExit"):
            one.result(20)
    assert writer.do_now(NOTE, "after") == "after"
    assert noted(engine) == ["after"]


@pytest.mark.parametrize(("what", "error"), [("exit", "SystemExit"), ("iterator", "StopIteration")])
def test_an_error_that_futures_do_not_take_reaches_the_request(writer: Writer, what: str, error: str) -> None:
    async def ask() -> str:
        with pytest.raises(RuntimeError, match=error):
            await asyncio.wait_for(writer.do(NOTE, what), 20)
        return str(await asyncio.wait_for(writer.do(NOTE, "after"), 20))

    assert asyncio.run(ask()) == "after"


def test_what_a_client_asked_for_is_done_even_if_it_has_gone(writer: Writer, engine: Engine) -> None:
    async def ask() -> None:
        go_on, _ = held(writer)
        asked = asyncio.create_task(writer.do(NOTE, "left"))
        await asyncio.sleep(0)
        asked.cancel()
        go_on.set()
        assert await writer.do(NOTE, "stayed") == "stayed"
        assert asked.cancelled()

    asyncio.run(ask())
    assert noted(engine) == ["left", "stayed"]


def test_a_result_for_a_loop_that_has_ended_stops_nobody(writer: Writer, engine: Engine) -> None:
    go_on, _ = held(writer)

    async def leave() -> None:
        task = asyncio.create_task(writer.do(NOTE, "left"))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(leave())
    go_on.set()
    assert writer.do_now(NOTE, "after") == "after"
    assert noted(engine) == ["left", "after"]


def test_too_many_jobs_that_wait_are_answered_with_503(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "MOST_WAITING", 2)
    go_on, _ = held(writer)

    async def ask() -> list[object]:
        return list(await asyncio.gather(*(writer.do(NOTE, f"job {one}") for one in range(4)), return_exceptions=True))

    threading.Timer(0.5, go_on.set).start()
    answers = asyncio.run(ask())
    assert answers[:2] == ["job 0", "job 1"]
    assert all(isinstance(answer, Unavailable) for answer in answers[2:])


def test_a_handler_that_forgets_a_job_is_found_out_and_undone(writer: Writer, engine: Engine) -> None:
    def forgetful(connection: Connection, chain: Chain, jobs: object) -> list[object]:
        note(connection, chain, "half done")
        return []

    with pytest.raises(RuntimeError, match="one result"):
        writer.put(forgetful, "job").result(20)
    assert noted(engine) == []


def test_a_job_that_nobody_waits_for_any_more_is_left_out(writer: Writer, engine: Engine) -> None:
    go_on, _ = held(writer)
    given_up, other = writer.put(NOTE, "given up"), writer.put(NOTE, "other")
    assert given_up.cancel()
    go_on.set()
    assert other.result(20) == "other"
    with pytest.raises(CancelledError):
        given_up.result(20)
    assert noted(engine) == ["other"]


def test_stopping_finishes_what_waits_and_takes_no_more(engine: Engine) -> None:
    writer = Writer(engine)
    writer.start()
    go_on, _ = held(writer)
    results = [writer.put(NOTE, f"job {number}") for number in range(20)]
    stopping = threading.Thread(target=writer.stop)
    stopping.start()
    while writer.accepts:
        pass
    with pytest.raises(Unavailable):
        writer.put(NOTE, "late")
    go_on.set()
    stopping.join(20)
    assert [one.result(0) for one in results] == [f"job {number}" for number in range(20)]
    assert len(noted(engine)) == 20


def test_every_job_put_while_the_writer_stops_is_carried_out_or_refused(engine: Engine) -> None:
    writer = Writer(engine)
    writer.start()
    taken: list[Future[object]] = []

    def put_until_refused() -> None:
        while True:
            try:
                taken.append(writer.put(NOTE, "job"))
            except Unavailable:
                return

    threads = [threading.Thread(target=put_until_refused) for _ in range(4)]
    for thread in threads:
        thread.start()
    while len(taken) < 50:
        pass
    writer.stop()
    for thread in threads:
        thread.join(20)
    assert all(one.done() for one in taken)
    assert len(noted(engine)) == len(taken)


class Line:
    """Breaks the line to the database at a commit: before it is heard of, or after it is done."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch, *, is_done: bool, times: int = 1):
        self.left = times
        commit = engine.dialect.do_commit

        def breaks(connection: object) -> None:
            if not self.left:
                commit(connection)
                return
            self.left -= 1
            if is_done:
                commit(connection)
            else:
                engine.dialect.do_rollback(connection)
            raise OperationalError("COMMIT", {}, ConnectionError("the line is broken"))

        monkeypatch.setattr(engine.dialect, "do_commit", breaks)


@pytest.mark.parametrize("is_done", [False, True])
def test_a_commit_whose_answer_is_lost_has_one_effect(
    writer: Writer, engine: Engine, monkeypatch: pytest.MonkeyPatch, is_done: bool
) -> None:
    writer.do_now(NOTE, "before")
    go_on, _ = held(writer)
    results = [writer.put(NOTE, f"job {number}") for number in range(5)]
    line = Line(engine, monkeypatch, is_done=is_done, times=2)  # the job that waits, then the group of five
    go_on.set()
    assert [one.result(20) for one in results] == [f"job {number}" for number in range(5)]
    assert line.left == 0
    assert noted(engine) == ["before", *(f"job {number}" for number in range(5))]


def test_a_database_that_stays_away_is_answered_with_503_within_the_patience(
    writer: Writer, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "PATIENCE_S", 0.3)
    line = Line(engine, monkeypatch, is_done=False, times=1_000)
    with pytest.raises(Unavailable, match="may have been done"):
        writer.do_now(NOTE, "away")
    line.left = 0
    assert writer.do_now(NOTE, "back") == "back"
    assert noted(engine) == ["back"]


def test_a_connection_that_the_server_ends_is_made_anew(tmp_path: Path) -> None:
    with databases("postgresql", tmp_path) as environment:
        engine = open_database(settings_of(environment).url)
        writer = Writer(engine)
        writer.start()

        def cut_off(connection: Connection, chain: Chain, job: list[object]) -> str:
            if not job:
                job.append("tried")
                own = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
                with engine.connect() as other:
                    other.execute(text("SELECT pg_terminate_backend(:own)"), {"own": own})
            return note(connection, chain, "after all")

        assert writer.do_now(each(cut_off), []) == "after all"
        writer.stop()
        assert noted(engine) == ["after all"]
        engine.dispose()


def test_a_connection_that_the_server_ends_between_two_jobs_is_made_anew(tmp_path: Path) -> None:
    with databases("postgresql", tmp_path) as environment:
        engine = open_database(settings_of(environment).url)
        writer = Writer(engine)
        writer.start()
        first = writer.do_now(each(whose), None)
        with engine.connect() as other:
            other.execute(text("SELECT pg_terminate_backend(:own)"), {"own": first})
        assert writer.do_now(NOTE, "after all") == "after all"
        assert writer.do_now(each(whose), None) == writer.do_now(each(whose), None) != first
        writer.stop()
        assert noted(engine) == ["after all"]
        engine.dispose()


def whose(connection: Connection, chain: Chain, job: None) -> int:
    """Process of the database that carries out a job."""
    return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())


def test_the_head_of_the_chain_is_what_the_jobs_left(writer: Writer, engine: Engine) -> None:
    together(writer, "one", "two", "refused")[-1].result(20)
    with engine.connect() as connection:
        head = connection.execute(select(chain)).one()
        newest = connection.execute(select(audit).order_by(audit.c.sequence.desc()).limit(1)).one()
    assert (head.sequence, head.hash) == (2, newest.hash)
