"""The one writer of a process: requests wait in a queue, and all that wait share a transaction and its fsync.

A job decides from what it reads whether to refuse before it writes anything, so a refusal leaves no trace and needs
no savepoint.  Should a job fail in another way, the transaction is rolled back and every job of it tried on its own.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import groupby
from queue import SimpleQueue
from typing import Any

from sqlalchemy import Connection, Engine

from api.errors import Refusal, Unavailable
from api.store.audit import Chain
from api.store.database import WRITES

Handler = Callable[[Connection, Chain, Sequence[Any]], Sequence[Any]]
"""Carries out jobs of a kind together: one result, or `Refusal`, for each."""

LARGEST_GROUP = 256
MOST_WAITING = 2_000


@dataclass(frozen=True, eq=False)
class _Waiting:
    """A job, and where its result goes."""

    handler: Handler
    job: Any
    result: "Future[Any]" = field(default_factory=Future)


class Writer:
    """Carries out jobs, in the order in which they come."""

    def __init__(self, engine: Engine):
        self._engine = engine.execution_options(**{WRITES: True})
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)
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
        self._accepts = False
        self._queue.put(None)
        self._thread.join()

    def put(self, handler: Handler, job: Any) -> "Future[Any]":
        """Add a job to the queue; its result is there once it is on disk.

        Raises
        ------
        Unavailable
            When the service is ending, or far too many jobs wait.
        """
        if not self._accepts:
            raise Unavailable("The service is ending.")
        if self._queue.qsize() >= MOST_WAITING:
            raise Unavailable("Too many requests are waiting.")
        waiting = _Waiting(handler, job)
        self._queue.put(waiting)
        return waiting.result

    async def do(self, handler: Handler, job: Any) -> Any:
        """Carry out a job, and return its result or raise its refusal."""
        result = await asyncio.shield(asyncio.wrap_future(self.put(handler, job)))
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
        while True:
            group, is_last = self._next_group()
            if group:
                self._carry_out(group)
            if is_last:
                return

    def _next_group(self) -> tuple[list[_Waiting], bool]:
        group: list[_Waiting] = []
        while not group or (len(group) < LARGEST_GROUP and not self._queue.empty()):
            waiting = self._queue.get()
            if waiting is None:
                return group, True
            group.append(waiting)
        return group, False

    def _carry_out(self, group: list[_Waiting]) -> None:
        try:
            results = self._in_one_transaction(group)
        except Exception as error:
            if len(group) == 1:
                group[0].result.set_exception(error)
                return
            for waiting in group:
                self._carry_out([waiting])
            return
        for waiting, result in zip(group, results, strict=True):
            waiting.result.set_result(result)

    def _in_one_transaction(self, group: list[_Waiting]) -> list[Any]:
        results: list[Any] = []
        with self._engine.begin() as connection:
            chain = Chain.locked(connection)
            before = chain.sequence, chain.submissions
            for handler, same in groupby(group, key=lambda waiting: waiting.handler):
                results += handler(connection, chain, [waiting.job for waiting in same])
            if (chain.sequence, chain.submissions) != before:
                chain.save(connection)
        return results


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
