"""Clear a fleet: what has whole results is kept, the rest is cleared in batches, each feeder to results or a reason."""

import json
import os
import shutil
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import pandas as pd
import psutil

from dlmp.casefolder.settings import FILE as CASE_FILE
from dlmp.errors import InputError, Problem, Problems
from dlmp.fleet.batch import Batch, lost_feeder, read_journal
from dlmp.fleet.cluster import ray_tasks
from dlmp.fleet.feeders import Feeder, Way, find_feeders, input_sha256
from dlmp.fleet.processes import local_processes
from dlmp.fleet.results import RECORD, TABLE, FeederResult, read_record, result_table, write_table
from dlmp.fleet.workers import Workers
from dlmp.output import check_folder
from dlmp.settings import Settings

WORK, OWNER = ".fleet", "owner.json"
SECONDS_BETWEEN_TABLES = 1.0


@dataclass(frozen=True)
class Progress:
    """How far a fleet is.

    Parameters
    ----------
    feeders
        Of the fleet.
    kept
        Those whose results of an earlier run hold.
    cleared
        Those that this run has cleared, or failed to.
    latest
        The last of these; None at the beginning.
    """

    feeders: int
    kept: int
    cleared: int
    latest: FeederResult | None


def clear_fleet(
    folder: Path | str,
    out: Path | str,
    *,
    settings: Settings | None = None,
    with_taps: bool = False,
    with_certificate: bool = True,
    parquet: bool = False,
    workers: int | None = None,
    ray: str | None = None,
    batch_size: int | None = None,
    time_limit_s: float | None = None,
    again: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> pd.DataFrame:
    """Clear all feeders in `folder` and its subfolders; a feeder that fails is a row that says why.

    Parameters
    ----------
    folder
        Holds case folders; the name of a feeder is the path from here to its own.
    out
        Gets a folder of results for each feeder, as ``dlmp clear --out`` writes them, and ``fleet.csv``.  Feeders whose
        results are whole there, and whose input is the same, are kept.
    settings, with_taps, with_certificate, parquet
        How each feeder is cleared and written; see `Way`.
    workers
        Feeders that are cleared at a time; default: one for each processor of this machine or of the cluster.
    ray
        Address of a Ray cluster whose machines see `folder` and `out` under the same paths; default: processes of this
        machine.
    batch_size
        Feeders that are sent to a worker at a time; default: one, and on Ray some.
    time_limit_s
        Wall-clock limit of each feeder [s]; default: none.
    again
        Clear the feeders that could be kept, too.
    progress
        Called at the beginning and after each feeder; default: silent.

    Returns
    -------
    The table of ``fleet.csv``: a row for each feeder, with the columns of `FeederResult`.  No result depends on the
    number of workers.

    Raises
    ------
    InputError
        When `folder` has no feeders, `out` cannot take their results, or an option is wrong.
    """
    _check_options(workers, batch_size, time_limit_s)
    pool = local_processes(workers or _processors()) if ray is None else ray_tasks(ray, workers)
    way = Way(settings or Settings(), with_taps, with_certificate, parquet)
    batch = Batch((), way, Path(out).resolve(), Path(), time_limit_s)
    return run(Path(folder).resolve(), batch, pool, batch_size, again, progress or (lambda _: None))


def run(
    folder: Path,
    batch: Batch,
    pool: AbstractContextManager[Workers],
    batch_size: int | None,
    again: bool,
    progress: Callable[[Progress], None],
) -> pd.DataFrame:
    """Clear the feeders of `folder` as `batch` says, which has none itself yet, by `pool`; see `clear_fleet`."""
    feeders = find_feeders(folder)
    _check_out(feeders, folder, batch.out)
    with _work_folder(batch.out) as work:
        kept = {} if again else _kept(feeders, batch)
        results = _Results(batch.out, work, kept)
        new = sorted((feeder for feeder in feeders if feeder.name not in kept), key=lambda feeder: -feeder.size())
        progress(Progress(len(feeders), len(kept), 0, None))
        with results, pool as workers:
            size = batch_size or workers.batch_size(len(new))
            batches = [replace(batch, feeders=tuple(new[first : first + size])) for first in range(0, len(new), size)]
            for cleared, result in enumerate(_cleared(batches, workers, work), start=1):
                results.add(result)
                progress(Progress(len(feeders), len(kept), cleared, result))
    return result_table(results.rows)


def _cleared(batches: Sequence[Batch], workers: Workers, work: Path) -> Iterator[FeederResult]:
    """Yield what became of each feeder, as the batches end.

    A batch that ends early costs the feeder that it was at; those after it are a batch of their own.
    """
    waiting, running, number = deque(batches), dict[Future[str], Batch](), count()
    while waiting or running:
        while waiting and len(running) < workers.count:
            batch = replace(waiting.popleft(), work=work / str(next(number)))
            running[workers.submit(batch)] = batch
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            batch = running.pop(future)
            results = read_journal(batch.work)
            if len(results) < len(batch.feeders):
                fault = str(future.exception() or future.result())
                results.append(lost_feeder(batch.feeders[len(results)], batch, fault))
            if rest := batch.feeders[len(results) :]:
                waiting.appendleft(replace(batch, feeders=rest))
            shutil.rmtree(batch.work, ignore_errors=True)
            yield from results


class _Results:
    """The results of a fleet, those of all feeders so far, as a table on disk that is never far behind."""

    def __init__(self, out: Path, work: Path, kept: dict[str, FeederResult]) -> None:
        self._out, self._removed, self._rows = out, work / "removed", dict(kept)

    @property
    def rows(self) -> list[FeederResult]:
        return list(self._rows.values())

    def __enter__(self) -> None:
        self._write()

    def __exit__(self, *error: object) -> None:
        self._write()

    def add(self, result: FeederResult) -> None:
        """Take in a result; what an earlier run left of a feeder that now fails is removed."""
        self._rows[result.feeder] = result
        place = self._out / result.feeder
        if place.exists() and read_record(place) != result:
            place.rename(self._removed)
            shutil.rmtree(self._removed, ignore_errors=True)
        if time.monotonic() - self._written_at > SECONDS_BETWEEN_TABLES:
            self._write()

    def _write(self) -> None:
        write_table(self._rows.values(), self._out)
        self._written_at = time.monotonic()


def _kept(feeders: Sequence[Feeder], batch: Batch) -> dict[str, FeederResult]:
    """What is whole in the folder of results, and of the input as it is."""
    kept = {}
    for feeder in feeders:
        result = read_record(batch.out / feeder.name)
        with suppress(OSError):  # a file that cannot be read: the worker tells
            if result is not None and result.input_sha256 == input_sha256(feeder, batch.way):
                kept[feeder.name] = result
    return kept


def _check_options(workers: int | None, batch_size: int | None, time_limit_s: float | None) -> None:
    problems = Problems()
    for name, value in (("workers", workers), ("batch", batch_size)):
        if value is not None and value < 1:
            problems.add("fleet", name, value, "must be at least 1")
    if time_limit_s is not None and not 0 < time_limit_s < threading.TIMEOUT_MAX:
        problems.add("fleet", "time limit", time_limit_s, "must be seconds, above zero")
    problems.raise_if_any()


def _check_out(feeders: Sequence[Feeder], folder: Path, out: Path) -> None:
    """Raise `InputError` unless the results of all `feeders` can be put into `out`."""
    check_folder(out, (TABLE,))
    problems = Problems()
    for place in out.parents:
        if place.is_relative_to(folder) and (place / CASE_FILE).exists():
            problems.add("output", "folder", str(out), f"is within the market case {place}; give another")
    for feeder in feeders:
        place = out / feeder.name
        if feeder.name.casefold() in (TABLE, WORK):
            problems.add("fleet", "feeder", feeder.name, "is the name of a file of the results; rename it")
        elif place.is_file() or (place.is_dir() and any(place.iterdir()) and not (place / RECORD).exists()):
            message = f"is no folder of results of a fleet, for it has no {RECORD}; remove it or give another"
            problems.add("output", "folder", str(place), message)
    problems.raise_if_any()


@contextmanager
def _work_folder(out: Path) -> Iterator[Path]:
    """A folder for what is not whole, which only one run at a time has; what a killed one left there is removed."""
    work = out / WORK
    owner = {"host": socket.gethostname(), "process": os.getpid(), "started": psutil.Process().create_time()}
    with suppress(OSError, ValueError):
        other = json.loads((work / OWNER).read_text("utf-8"))
        if _may_live(other):
            message = f"process {other['process']} of {other['host']} clears into it; if it does not, remove {work}"
            raise InputError([Problem("output", "folder", str(out), message)])
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    (work / OWNER).write_text(json.dumps(owner), "utf-8")
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _may_live(owner: dict[str, object]) -> bool:
    if owner["host"] != socket.gethostname():
        return True
    try:
        return psutil.Process(owner["process"]).create_time() == owner["started"]
    except psutil.NoSuchProcess:
        return False


def _processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
