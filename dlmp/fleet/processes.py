"""Batches on this machine: one process per worker, each with a pipe of its own.

A process that dies takes its own batch with it and nothing else.  The pools at hand do not give that: that of the
standard library, and loky's, end as a whole with any of their processes, and Pebble's, whose processes share one pipe,
with one that dies while it is idle.
"""

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import Pipe, get_all_start_methods, get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from dlmp.fleet.batch import Batch, clear_batch
from dlmp.fleet.workers import WorkerError, Workers

PRELOADED = ["dlmp.fleet.batch", "dlmp.network.pandapower"]
"""What the server loads once; the processes are forked from it."""


@contextmanager
def local_processes(count: int) -> Iterator[Workers]:
    """Clear up to `count` batches at a time, in processes that end with the block, whatever they do then."""
    processes = _Processes()
    with ThreadPoolExecutor(count) as threads:
        try:
            yield Workers(count, lambda feeders: 1, lambda batch: threads.submit(processes.clear, batch))
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
            processes.kill()


class _Processes:
    """Processes that are started when there are too few of them, and taken again while they live."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: list[_Process] = []
        self._idle: list[_Process] = []
        self._may_start = True

    def clear(self, batch: Batch) -> str:
        process = self._take()
        try:
            return process.clear(batch)
        finally:
            with self._lock:
                self._idle.append(process)

    def kill(self) -> None:
        with self._lock:
            self._may_start = False
            for process in self._all:
                process.kill()

    def _take(self) -> "_Process":
        with self._lock:
            if not self._may_start:
                raise WorkerError("the fleet was stopped")
            while self._idle:
                process = self._idle.pop()
                if process.is_alive:
                    return process
                self._all.remove(process)
            self._all.append(_Process())
            return self._all[-1]


class _Process:
    """A process that clears each batch that it is sent."""

    def __init__(self) -> None:
        self._pipe, end = Pipe()
        self._process: BaseProcess = _process_class()(target=_work, args=(end,), daemon=True)
        self._process.start()
        end.close()

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    def clear(self, batch: Batch) -> str:
        try:
            self._pipe.send(batch)
            return str(self._pipe.recv())
        except (EOFError, OSError):
            self._process.join()
            raise WorkerError(_cause_of_end(self._process.exitcode)) from None

    def kill(self) -> None:
        self._process.kill()
        self._process.join()


def _process_class() -> type[BaseProcess]:
    """Processes that are forked from a server; where there is none, as on Windows, they load all anew."""
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn").Process
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context.Process


def _work(pipe: Connection) -> None:
    """Clear batches until the other end of `pipe` is closed, and answer each with what kept it from its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the first one decides
    while True:
        try:
            batch = pipe.recv()
        except EOFError:
            return
        pipe.send(clear_batch(batch))


def _cause_of_end(exit_code: int | None) -> str:
    if exit_code is None or exit_code >= 0:
        return f"its process ended with exit code {exit_code}"
    name = signal.Signals(-exit_code).name
    hint = "; systems do that when memory runs out" if name == "SIGKILL" else ""
    return f"its process was ended by {name}{hint}"
