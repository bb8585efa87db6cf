"""The one writer of a process: requests wait in a queue, and all that wait share a transaction and its fsync.

A job decides from what it reads whether to refuse before it writes anything, so a refusal leaves no trace and needs
no savepoint.  Should a job fail in another way, the transaction is rolled back and every job of it tried on its own.
Should the database go away in the middle of a commit, the audit chain tells afterwards whether it was one: its lock
is not to be had before the transaction has ended either way.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import groupby
from queue import SimpleQueue
from typing import Any

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionError

from api.errors import Refusal, Unavailable
from api.store.audit import Chain
from api.store.database import WRITES

Handler = Callable[[Connection, Chain, Sequence[Any]], Sequence[Any]]
"""Carries out jobs of a kind together: one result, or `Refusal`, for each."""

LARGEST_GROUP = 256
"""Most changes of a group, but for the last job of it, which may have more."""
LINGER_S, PAUSE_S = 0.008, 0.001
"""How long the first job of a group waits for as many as are expected, and between two looks [s]."""
MOST_WAITING = 2_000
PATIENCE_S, FIRST_PAUSE_S = 5.0, 0.05
"""How long a database that is away is waited for [s]."""
AWAY = (InterfaceError, OperationalError, NoConnectionError)
"""What a database that is away, locked or full raises."""
log = structlog.get_logger("dlmp.writer")


@dataclass(frozen=True, eq=False)
class _Waiting:
    """A job, how many changes it may bring, and where its result goes: to a thread, or to an event loop."""

    handler: Handler
    job: Any
    size: int
    result: "Future[Any] | asyncio.Future[Any]"

    @property
    def is_wanted(self) -> bool:
        """Whether it is to be carried out; what a request asked for is, even if its client has gone."""
        return not isinstance(self.result, Future) or self.result.set_running_or_notify_cancel()


class Writer:
    """Carries out jobs, in the order in which they come."""

    def __init__(self, engine: Engine):
        self._engine = engine.execution_options(**{WRITES: True})
        self._kept: Connection | None = None
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)
        self._door = threading.Lock()
        self._accepts = False

    @property
    def accepts(self) -> bool:
        """Whether jobs are taken."""
        return self._accepts

    def start(self) -> None:
        """Begin to work."""
        self._accepts = True
        self._thread.start()

    def stop(self) -> None:
        """Finish what waits, then end."""
        with self._door:
            was_open, self._accepts = self._accepts, False
            if was_open:
                self._queue.put(None)
        if was_open:
            self._thread.join()

    def put(self, handler: Handler, job: Any, size: int = 1) -> "Future[Any]":
        """Add a job to the queue; its result is there once it is on disk.

        Raises
        ------
        Unavailable
            When the service is ending.
        """
        result: Future[Any] = Future()
        self._put(_Waiting(handler, job, size, result))
        return result

    def _put(self, waiting: _Waiting) -> None:
        with self._door:  # a job behind the last one would wait for ever
            if not self._accepts:
                raise Unavailable("The service is ending.")
            self._queue.put(waiting)

    async def do(self, handler: Handler, job: Any, size: int = 1) -> Any:
        """Carry out a job, and return its result or raise its refusal.

        Raises
        ------
        Unavailable
            When the service is ending, the database is away, or far too many jobs wait.
        """
        if self._queue.qsize() >= MOST_WAITING:
            raise Unavailable("Too many requests are waiting.")
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._put(_Waiting(handler, job, size, answer))
        result = await answer
        if isinstance(result, Refusal):
            raise result
        return result

    def do_now(self, handler: Handler, job: Any) -> Any:
        """Do the same from a thread that may wait."""
        result = self.put(handler, job).result()
        if isinstance(result, Refusal):
            raise result
        return result

    def _work(self) -> None:
        expected = 0
        while True:
            group, is_last = self._next_group(expected)
            try:
                self._carry_out(group)
            except BaseException as error:
                log.exception("writer", jobs=len(group))
                _tell(group, [error] * len(group))
            if is_last:
                self._let_go()
                return
            expected = len(group) + self._queue.qsize()  # clients that have their answers soon ask for more

    def _next_group(self, expected: int) -> tuple[list[_Waiting], bool]:
        group: list[_Waiting] = []
        size = 0
        waiting = self._queue.get()
        until = time.monotonic() + LINGER_S
        expected = min(expected, LARGEST_GROUP // waiting.size) if waiting is not None else 0
        while 1 + self._queue.qsize() < expected and time.monotonic() < until:
            time.sleep(PAUSE_S)
        while waiting is not None:
            if waiting.is_wanted:
                group.append(waiting)
                size += waiting.size
            if size >= LARGEST_GROUP or self._queue.empty():
                return group, False
            waiting = self._queue.get()
        return group, True

    def _carry_out(self, group: list[_Waiting]) -> None:
        """Carry out jobs and give every one of them its result; wait for a database that is away."""
        written: Chain | None = None
        results: list[Any] = []
        until, pause = time.monotonic() + PATIENCE_S, FIRST_PAUSE_S
        while group:
            try:
                with self._transaction() as connection:
                    chain = Chain.locked(connection)
                    if written is None or not written.is_part_of(connection):
                        written = None
                        results, has_moved = _worked(connection, chain, group)
                        written = chain if has_moved else None
            except Exception as error:
                self._let_go()
                if written is None and not isinstance(error, AWAY):
                    self._on_their_own(group, error)
                    return
                if time.monotonic() + pause > until:
                    log.exception("database", jobs=len(group))
                    _tell(group, [_away(is_sure=written is None)] * len(group))
                    return
                time.sleep(pause)
                pause *= 2
                continue
            _tell(group, results)
            return

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """Begin a transaction on a connection that is kept: to ask each time whether one still lives costs as much as a
        statement, and where it does not, the group is tried again.
        """
        if self._kept is None:
            self._kept = self._engine.connect()
        with self._kept.begin():
            yield self._kept

    def _let_go(self) -> None:
        """Give the connection back, which the pool looks at before it gives it out again."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def _on_their_own(self, group: list[_Waiting], error: Exception) -> None:
        if len(group) == 1:
            _tell(group, [error])
            return
        for waiting in group:
            self._carry_out([waiting])


def _worked(connection: Connection, chain: Chain, group: Sequence[_Waiting]) -> tuple[list[Any], bool]:
    """Results of jobs in a transaction, which is still to be committed, and whether they have moved the chain."""
    results: list[Any] = []
    before = chain.sequence
    for handler, same in groupby(group, key=lambda waiting: waiting.handler):
        results += handler(connection, chain, [waiting.job for waiting in same])
    if len(results) != len(group):
        raise RuntimeError("a handler gave not one result for each of its jobs")
    has_moved = chain.sequence != before
    if has_moved:
        chain.save(connection)
    return results, has_moved


def _tell(group: Sequence[_Waiting], results: Sequence[Any]) -> None:
    """Hand out results; an error that is no refusal is raised where it is waited for.

    An event loop is woken once for all of its own, which is cheaper than once for each.
    """
    of_loops: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
    for waiting, result in zip(group, results, strict=True):
        if not isinstance(waiting.result, Future):
            of_loops.setdefault(waiting.result.get_loop(), []).append((waiting.result, result))
        elif not waiting.result.done():
            _resolve(waiting.result, result)
    for loop, own in of_loops.items():
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits there
            loop.call_soon_threadsafe(_resolve_all, own)


def _resolve_all(pairs: Sequence[tuple["asyncio.Future[Any]", Any]]) -> None:
    for future, result in pairs:
        if not future.done():
            _resolve(future, result)


def _resolve(future: "Future[Any] | asyncio.Future[Any]", result: Any) -> None:
    """Give a future its result; what futures do not take, or what would end an event loop, becomes another error."""
    if isinstance(result, StopIteration) or (isinstance(result, BaseException) and not isinstance(result, Exception)):
        other = RuntimeError(f"the writer met {type(result).__name__}")
        other.__cause__ = result
        result = other
    if isinstance(result, Exception) and not isinstance(result, Refusal):
        future.set_exception(result)
    else:
        future.set_result(result)


def _away(is_sure: bool) -> Unavailable:
    if is_sure:
        return Unavailable("The database does not answer; nothing was done.")
    return Unavailable("The database went away meanwhile; what was asked for may have been done.")


def each(job: Callable[[Connection, Chain, Any], Any]) -> Handler:
    """Make a handler of a function of one job, which raises its refusal before it writes."""

    def handler(connection: Connection, chain: Chain, jobs: Sequence[Any]) -> list[Any]:
        results: list[Any] = []
        for one in jobs:
            try:
                results.append(job(connection, chain, one))
            except Refusal as refusal:
                results.append(refusal)
        return results

    return handler
