"""Fleets for tests: folders of small cases, clearings that go wrong on purpose, and results without their seconds."""

import ctypes
import json
import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from broken_cases import change, write_good_case

from dlmp.clearing import Clearing
from dlmp.fleet.batch import Batch, ClearCase, clear_case
from dlmp.fleet.feeders import Way
from dlmp.fleet.processes import local_processes
from dlmp.fleet.run import Progress, run
from dlmp.fleet.workers import Workers
from dlmp.settings import Settings
from dlmp.taps import TapClearing

NOT_OF_THE_RESULT = ("seconds", "wall_seconds", "cpu_seconds", "peak_memory_mb")
HANGS_SECONDS = 120


def write_fleet(folder: Path, *names: str) -> Path:
    """Write a good case for each name, each with a load of its own."""
    for number, name in enumerate(names):
        change("load_profile.csv", "1,1.5", f"1,{1.5 + number / 100}")(write_good_case(folder / name))
    return folder


def results(out: Path) -> dict[str, object]:
    """What a fleet or a clearing has written, by path; without what a machine's speed decides."""
    return {path.relative_to(out).as_posix(): _content(path) for path in sorted(out.rglob("*")) if path.is_file()}


def _content(path: Path) -> object:
    if path.name == "fleet.csv":
        return pd.read_csv(path).drop(columns=list(NOT_OF_THE_RESULT[1:])).to_csv()
    if path.suffix != ".json":
        return path.read_bytes()
    content = json.loads(path.read_text("utf-8"))
    for part in (content, content.get("result", {})):
        for name in NOT_OF_THE_RESULT:
            part.pop(name, None)
    return content


def run_fleet(
    folder: Path,
    out: Path,
    *,
    clear: ClearCase = clear_case,
    pool: AbstractContextManager[Workers] | None = None,
    batch_size: int | None = None,
    time_limit_s: float | None = None,
    again: bool = False,
    worker_version: str = version("dlmp"),
    progress: Callable[[Progress], None] = lambda _: None,
) -> pd.DataFrame:
    """Clear a fleet with another function in place of the clearing of a case; the rows by feeder."""
    batch = Batch((), Way(Settings()), out, Path(), time_limit_s, clear_case=clear, version=worker_version)
    return run(folder, batch, pool or local_processes(2), batch_size, again, progress).set_index("feeder")


def as_named(folder: Path, way: Way) -> tuple[Clearing, TapClearing | None]:
    """Clear a case, or go wrong as the name of its folder says."""
    name = folder.name
    if name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif name == "crashes":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif name == "exits":
        os._exit(3)
    elif name == "hangs":
        ctypes.PyDLL(None).sleep(HANGS_SECONDS)  # as a solver in C that lets no Python run beside it
    elif name == "raises":
        raise ZeroDivisionError("a fault of dlmp\nover two lines")
    return clear_case(folder, way)


def never(folder: Path, way: Way) -> tuple[Clearing, TapClearing | None]:
    """Stand for a clearing that must not be asked for."""
    raise AssertionError(f"{folder.name} was cleared again")
