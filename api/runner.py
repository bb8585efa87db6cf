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
from pathlib import Path
from typing import IO, Any

import psutil
import pyarrow.parquet as pq
import structlog

from api.archive import unpack_into
from api.child import CASE, RESULTS, SETTINGS
from api.identity import new_id
from api.runs import Beat, Claim, Ended, Release, beat, claim_run, end_run, release_run
from api.service import Service
from api.store.tables import CANCELLED, FAILED, SUCCEEDED
from api.store.writer import each
from dlmp.output import SUMMARY

POLL_S, WATCH_S = 0.25, 0.1
CLAIM, BEAT, END, RELEASE = each(claim_run), each(beat), each(end_run), each(release_run)
MIB = 1024 * 1024
MOST_REASON = 2_000
log = structlog.get_logger("dlmp.runner")


class Runner:
    """A thread that carries out runs, one after another."""

    def __init__(self, service: Service):
        self._service = service
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
            except Exception:
                log.exception("runner", run=getattr(run, "id", ""))
            if run is None:
                self._stopping.wait(POLL_S)

    def _carry_out(self, run: Any) -> None:
        log.info("run begins", run=run.id, market=run.market_id, attempt=run.attempts)
        with tempfile.TemporaryDirectory(prefix="dlmp-run-") as temporary:
            folder = Path(temporary)
            unpack_into(run.snapshot, folder / CASE)
            (folder / SETTINGS).write_text(json.dumps(run.settings), "utf-8")
            ended = self._watch(run, folder)
        if ended is None:
            if self._service.writer.do_now(RELEASE, Release(run.id, self._name)):
                log.info("run released", run=run.id)
            return
        self._service.writer.do_now(END, ended)
        self._service.metrics.runs.labels(ended.state).inc()
        log.info("run ends", run=run.id, state=ended.state, reason=ended.reason)

    def _watch(self, run: Any, folder: Path) -> Ended | None:
        """Let a child solve a run; None when it is to be left to another worker."""
        settings, child = self._service.settings, self._begin(folder)
        said: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
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
                    sign = Beat(run.id, self._name, self._service.clock(), progress)
                    order = self._service.writer.do_now(BEAT, sign)
                    if order == "lost":
                        return None
                    if order == "cancel":
                        return self._ended(run, CANCELLED, "cancelled")
        finally:
            _kill(child)
        listener.join(timeout=1.0)
        _, reason = _last_words(said, progress, reason)
        return self._outcome(run, child.returncode, reason, folder / RESULTS)

    def _begin(self, folder: Path) -> "subprocess.Popen[bytes]":
        with (folder / "stderr").open("wb") as errors:
            return subprocess.Popen(
                [sys.executable, "-m", "api.child", str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "MPLBACKEND": "Agg"},
            )

    def _outcome(self, run: Any, code: int, reason: str, folder: Path) -> Ended:
        if code == 0:
            summary = json.loads((folder / SUMMARY).read_text("utf-8"))
            return self._ended(run, SUCCEEDED, "", tables=_tables(folder), summary=summary)
        return self._ended(run, FAILED, reason[:MOST_REASON] or _why(code, folder.parent / "stderr"))

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


def _listen(stream: IO[bytes] | None, said: "queue.SimpleQueue[dict[str, Any]]") -> None:
    """Collect the lines that a child says; libraries may print other lines between."""
    if stream is None:
        return
    with stream:
        for line in stream:
            with contextlib.suppress(ValueError):
                words = json.loads(line)
                if isinstance(words, dict):
                    said.put(words)


def _last_words(
    said: "queue.SimpleQueue[dict[str, Any]]", progress: dict[str, Any], reason: str
) -> tuple[dict[str, Any], str]:
    while not said.empty():
        words = said.get()
        if "reason" in words:
            reason = str(words["reason"])
        elif {"text", "passes"} <= words.keys():
            progress = words
    return progress, reason


def _why(code: int, errors: Path) -> str:
    """Say why a child ended that did not say so itself."""
    last = errors.read_text("utf-8", "replace").strip().splitlines()[-1:] if errors.exists() else []
    if any("MemoryError" in line or "bad_alloc" in line for line in last):
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
