"""The worker: takes runs from the table, lets a child process solve each, and watches over it.

The child may hang, crash, or use up its time or memory; the run then ends as failed, with its reason, and the service
answers meanwhile.  The lease of a run is renewed while its child lives; should the whole worker be killed, another
takes the run up when the lease has run out.  A worker that is told to end gives its run back.
"""

import contextlib
import hashlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import psutil
import pyarrow.parquet as pq
import structlog
from sqlalchemy import Connection

from api.archive import unpack_into
from api.errors import Unavailable
from api.frames import read_table, result_table
from api.gate import Step
from api.identity import new_id
from api.publication import publish
from api.runfolder import CASE, PREFIX, REAL_TIME_PRICES, RESULTS, SETTINGS, SUMMARY
from api.runs import CANCEL, GO_ON, LOST, Beat, Claim, Ended, Release, beat, claim_run, end_run, release_run
from api.service import Service
from api.store.audit import Chain
from api.store.rows import row_of
from api.store.tables import CANCELLED, FAILED, SETTLEMENT, SUCCEEDED, runs
from api.store.writer import each

POLL_S, WATCH_S, RETRY_S = 0.25, 0.1, 0.5
CLAIM, BEAT, RELEASE = each(claim_run), each(beat), each(release_run)
MIB = 1024 * 1024
MOST_REASON = 2_000
REMEDY = "this version of dlmp clears otherwise; publish a correction of that market, and settle then"
MOST_LINE, MOST_LINES = 64 * 1024, 1_000
"""Longest line of a child that is read whole [bytes], and how many may wait: beyond, the child has to."""
CHILD = (sys.executable, "-m", "api.child")
"""The command that solves the run of a folder, which is its last argument."""
log = structlog.get_logger("dlmp.runner")


Said = queue.Queue[bytes]


def end_and_publish(connection: Connection, chain: Chain, ended: Ended) -> bool:
    """End a run, and publish at once a settlement that has succeeded; False when it is no longer this worker's."""
    is_own = end_run(connection, chain, ended)
    if is_own:
        run = row_of(connection, runs, ended.run_id)
        if run.kind == SETTLEMENT and run.state == SUCCEEDED:
            publish(connection, chain, Step(run.market_id, run.requested_by, ended.at))
    return is_own


END = each(end_and_publish)


class Runner:
    """A thread that carries out runs, one after another, each by a child process that `command` begins."""

    def __init__(self, service: Service, command: Sequence[str] = CHILD):
        self._service, self._command = service, command
        self._name = new_id("wrk")
        self._thread = threading.Thread(target=self._work, name="runner", daemon=True)
        self._stopping = threading.Event()

    def start(self) -> None:
        """Begin to look for runs."""
        self._thread.start()

    def stop(self) -> None:
        """Stop; a run under way is given back, so that the next worker takes it up at once."""
        self._stopping.set()
        self._thread.join()

    def _work(self) -> None:
        settings = self._service.settings
        while not self._stopping.is_set():
            claim = Claim(self._name, self._service.clock(), settings.lease_s, settings.max_run_attempts)
            run = None
            try:
                run = self._service.writer.do_now(CLAIM, claim)
                if run is not None:
                    self._carry_out(run)
            except Exception as error:
                log.exception("runner", run=getattr(run, "id", ""))
                if run is not None:
                    self._report(self._ended(run, FAILED, f"the worker met an error: {type(error).__name__}"))
            if run is None:
                self._stopping.wait(POLL_S)

    def _carry_out(self, run: Any) -> None:
        log.info("run begins", run=run.id, market=run.market_id, attempt=run.attempts)
        with tempfile.TemporaryDirectory(prefix=PREFIX) as temporary:
            folder = Path(temporary)
            unpack_into(run.snapshot, folder / CASE)
            (folder / SETTINGS).write_text(json.dumps(run.settings), "utf-8")
            ended = self._watch(run, folder)
        if ended is not None:
            self._report(ended)
        elif self._service.writer.do_now(RELEASE, Release(run.id, self._name)):
            log.info("run released", run=run.id)

    def _report(self, ended: Ended) -> None:
        """Store how a run ended; while the database is away, try again, for its results cost a clearing."""
        while True:
            try:
                is_own = self._service.writer.do_now(END, ended)
                break
            except Unavailable:
                if self._stopping.wait(RETRY_S):
                    return
        if is_own:
            self._service.metrics.runs.labels(ended.state).inc()
        log.info("run ends", run=ended.run_id, state=ended.state, reason=ended.reason, is_own=is_own)

    def _beat(self, run: Any, progress: dict[str, Any]) -> str:
        """Give a sign of life; a database that is away makes the run neither lost nor cancelled."""
        sign = Beat(run.id, self._name, self._service.clock(), progress)
        try:
            return str(self._service.writer.do_now(BEAT, sign))
        except Unavailable:
            return GO_ON

    def _watch(self, run: Any, folder: Path) -> Ended | None:
        """Let a child solve a run; None when it is to be left to another worker."""
        settings, child = self._service.settings, self._begin(folder)
        said: Said = queue.Queue(MOST_LINES)
        listener = threading.Thread(target=_listen, args=(child.stdout, said), daemon=True)
        listener.start()
        began = beaten = time.monotonic()
        progress, reason = {"text": "starting", "passes": 0}, ""
        try:
            while child.poll() is None:
                time.sleep(WATCH_S)
                progress, reason = _last_words(said, progress, reason)
                now = time.monotonic()
                if self._stopping.is_set():
                    return None
                if _memory_mib(child.pid) > settings.run_memory_limit_mib:
                    return self._ended(run, FAILED, f"used more than its limit of {settings.run_memory_limit_mib} MiB")
                if now - began > run.time_limit_s:
                    return self._ended(run, FAILED, f"took longer than its limit of {run.time_limit_s:g} s")
                if now - beaten > min(1.0, settings.lease_s / 4):
                    beaten = now
                    order = self._beat(run, progress)
                    if order == LOST:
                        return None
                    if order == CANCEL:
                        return self._ended(run, CANCELLED, "cancelled")
        finally:
            _kill(child)
            while listener.is_alive():
                progress, reason = _last_words(said, progress, reason)
                listener.join(timeout=WATCH_S)
            _, reason = _last_words(said, progress, reason)
        return self._outcome(run, child.returncode, reason, folder)

    def _begin(self, folder: Path) -> "subprocess.Popen[bytes]":
        with (folder / "stderr").open("wb") as errors:
            return subprocess.Popen(
                [*self._command, str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "MPLBACKEND": "Agg"},
            )

    def _outcome(self, run: Any, code: int, reason: str, folder: Path) -> Ended:
        if code == 0:
            try:
                summary = json.loads((folder / SUMMARY).read_text("utf-8"))
                tables = _tables(folder / RESULTS)
            except (OSError, ValueError):
                tables = {}
            if not tables:
                return self._ended(run, FAILED, "the solver process left no results that can be read")
            differing = self._not_as_published(run, tables)
            if differing:
                return self._ended(run, FAILED, differing)
            return self._ended(run, SUCCEEDED, "", tables=tables, summary=summary)
        return self._ended(run, FAILED, reason[:MOST_REASON] or _why(code, folder / "stderr"))

    def _not_as_published(self, run: Any, tables: Mapping[str, tuple[bytes, str, int]]) -> str:
        """Say what a settlement, which clears its markets once more, has not found as it was published; else blank."""
        settling = run.settling or {}
        wanted = [(settling.get("settled_run_id"), name, name) for name in ("prices", "awards")]
        wanted.append((settling.get("real_time_run_id"), "prices", REAL_TIME_PRICES))
        with self._service.engine.connect() as connection:
            for run_id, name, found in wanted:
                if run_id is not None and not read_table(tables[found][0]).equals(
                    result_table(connection, run_id, name)
                ):
                    return f"{found} are not those that {run_id} has published: {REMEDY}"
        return ""

    def _ended(self, run: Any, state: str, reason: str, **results: Any) -> Ended:
        return Ended(run.id, self._name, self._service.clock(), state, reason, **results)


def _memory_mib(process: int) -> float:
    """Memory that a process and those that it began hold [MiB]."""
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process)
        return sum(one.memory_info().rss for one in (parent, *parent.children(recursive=True))) / MIB
    return 0.0


def _tables(folder: Path) -> dict[str, tuple[bytes, str, int]]:
    """Content, SHA-256 and number of rows of every table."""
    tables = {}
    for path in sorted(folder.glob("*.parquet")):
        content = path.read_bytes()
        rows = pq.read_metadata(path).num_rows
        tables[path.stem] = content, hashlib.sha256(content).hexdigest(), rows
    return tables


def _listen(stream: IO[bytes] | None, said: Said) -> None:
    """Collect the lines that a child says."""
    if stream is not None:
        with stream:
            while line := stream.readline(MOST_LINE):
                said.put(line)


def _last_words(said: Said, progress: dict[str, Any], reason: str) -> tuple[dict[str, Any], str]:
    """Take from the waiting lines what is ours: libraries may print others between, and a broken child anything."""
    for _ in range(said.qsize()):
        try:
            words = json.loads(said.get())
        except (ValueError, RecursionError):
            continue
        match words:
            case {"reason": str(text)}:
                reason = text
            case {"text": str(text), "passes": int(passes)}:
                progress = {"text": text[:MOST_REASON], "passes": passes}
    return progress, reason


def _why(code: int, errors: Path) -> str:
    """Say why a child ended that did not say so itself."""
    with errors.open("rb") as file:
        file.seek(max(errors.stat().st_size - MOST_LINE, 0))
        last = file.read().strip().splitlines()[-1:]
    if any(b"MemoryError" in line or b"bad_alloc" in line for line in last):
        return "found no more memory"
    if code < 0:
        return f"the solver process was ended by {signal.Signals(-code).name}"
    return f"the solver process ended with code {code}"


def _kill(child: "subprocess.Popen[bytes]") -> None:
    """End a child and all that it began."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdin is not None:
        child.stdin.close()
