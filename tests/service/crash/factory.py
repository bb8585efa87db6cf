"""The application as a server process runs it, with a trap: it kills its own process at a point that a file names.

The file, whose path is in the environment, holds ``WHEN ACTION COUNT``: at the passage number COUNT the process dies,

- ``locked``: when the write lock has been taken;
- ``written``: when an entry ACTION of the audit chain is written, and not committed;
- ``committed``: when a transaction with such an entry is on disk, and nobody has been told;
- ``solving``: when the solver's process has begun;
- ``solved``: when it has ended, and nothing of its results is written.

Before it dies it gives the file the ending `SPRUNG`.  Where the environment names a solver, that one stands in for the
engine.
"""

import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from subprocess import Popen
from typing import Any

from fastapi import FastAPI
from sqlalchemy import Connection

import api.app
from api.runner import Runner
from api.runs import Ended
from api.store.audit import Chain, Entry
from benchmarks import servers

FILE, SOLVER = "DLMP_TEST_TRAP", "DLMP_TEST_SOLVER"
SPRUNG = ".sprung"


class Trap:
    """Counts passages of the point that the file names."""

    def __init__(self, file: Path):
        self._file, self._text, self._left = file, "", 0

    def pass_by(self, when: str, actions: Sequence[str] = ("any",)) -> None:
        """Die here if this is the point."""
        text = self._file.read_text() if self._file.exists() else ""
        if not text:
            return
        wanted, action, count = text.split()
        if text != self._text:
            self._text, self._left = text, int(count)
        if wanted == when and action in actions:
            self._left -= 1
            if self._left <= 0:
                self._file.rename(self._file.with_suffix(SPRUNG))
                os.kill(os.getpid(), signal.SIGKILL)


def app() -> FastAPI:
    """Make the application, its trap set."""
    trap = Trap(Path(os.environ[FILE]))
    written: list[str] = []
    lock, append = Chain.locked.__func__, Chain.append  # type: ignore[attr-defined]
    begin, report = Runner._begin, Runner._report

    def locked(cls: type[Chain], connection: Connection) -> Chain:
        chain: Chain = lock(cls, connection)
        written.clear()
        trap.pass_by("locked")
        return chain

    def appended(chain: Chain, connection: Connection, entries: Sequence[Entry]) -> None:
        append(chain, connection, entries)
        written.extend(entry.action for entry in entries)
        trap.pass_by("written", written)

    def begun(runner: Runner, folder: Path) -> "Popen[bytes]":
        child = begin(runner, folder)
        trap.pass_by("solving")
        return child

    def reported(runner: Runner, ended: Ended) -> None:
        trap.pass_by("solved")
        report(runner, ended)

    Chain.locked = classmethod(locked)  # type: ignore[assignment, method-assign]
    Chain.append = appended  # type: ignore[method-assign]
    Runner._begin = begun  # type: ignore[method-assign]
    Runner._report = reported  # type: ignore[method-assign]
    if SOLVER in os.environ:
        api.app.Runner = partial(Runner, command=(sys.executable, os.environ[SOLVER]))  # type: ignore[assignment, misc]
    made = servers.app()
    dialect = made.state.service.engine.dialect
    commit = dialect.do_commit

    def committed(connection: Any) -> None:
        commit(connection)
        trap.pass_by("committed", written)

    dialect.do_commit = committed
    return made
