"""Feeders cleared one after another in a process of their own, each to a whole folder of results or to a reason.

`clear_batch` is what every worker runs, whether a process of this machine or a task of Ray.  It tells what it does in a
journal, so that what a dying process had finished is known, and with which feeder it died.
"""

import faulthandler
import json
import shutil
import socket
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

from threadpoolctl import threadpool_limits

from dlmp.casefolder import read_case
from dlmp.clearing import CONVERGED, NOT_CONVERGED, Clearing, clear
from dlmp.errors import DlmpError, InfeasibleError, InputError, PowerFlowError, SolverError
from dlmp.fleet.feeders import Feeder, Way, input_sha256
from dlmp.fleet.results import FAILED, INFEASIBLE, REFUSED, TIMED_OUT, FeederResult, write_record
from dlmp.output import write_results
from dlmp.scarcity import count_elements
from dlmp.taps import TapClearing, clear_with_taps

JOURNAL, TRACE, PARTIAL, ASIDE = "journal.jsonl", "trace.txt", "results", "aside"
REASON_LENGTH = 400
OWN_STATUS, RESET_PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")
STATUS_OF_ERROR: dict[type[DlmpError], str] = {
    InputError: REFUSED,
    InfeasibleError: INFEASIBLE,
    PowerFlowError: NOT_CONVERGED,
    SolverError: NOT_CONVERGED,
}

ClearCase = Callable[[Path, Way], tuple[Clearing, TapClearing | None]]


def clear_case(folder: Path, way: Way) -> tuple[Clearing, TapClearing | None]:
    """Clear the case of `folder`, and tell how its taps were settled where `way` asks for that."""
    case = read_case(folder)
    if way.with_taps:
        settling = clear_with_taps(case, way.settings)
        return settling.clearing, settling
    return clear(case, way.settings), None


@dataclass(frozen=True)
class Batch:
    """Feeders that a worker clears one after another.

    Parameters
    ----------
    feeders, way
        What to clear, and how.
    out
        Folder with a folder of results for each feeder.
    work
        Folder for the journal and for what is not whole; in the same file system as `out`, and made by the worker.
    time_limit_s
        Wall-clock limit of each feeder [s]; None: none.
    version
        That of dlmp, which the worker must have too.
    clear_case
        What clears a case.
    """

    feeders: tuple[Feeder, ...]
    way: Way
    out: Path
    work: Path
    time_limit_s: float | None = None
    version: str = version("dlmp")
    clear_case: ClearCase = clear_case


def clear_batch(batch: Batch) -> str:
    """Clear the feeders of `batch`; what became of each is in the journal (`read_journal`).

    A feeder over its time limit ends the process, from a thread of C that needs nothing of Python: a solver that hangs
    cannot hold it up.

    Returns
    -------
    What kept the batch from its end; empty when it came there.
    """
    if version("dlmp") != batch.version:
        return f"{socket.gethostname()} has dlmp {version('dlmp')}; the fleet is cleared with {batch.version}"
    if not batch.work.parent.is_dir():
        return f"{socket.gethostname()} does not see the folder {batch.out}, which all workers must share"
    try:
        batch.work.mkdir()
        with threadpool_limits(1):
            for feeder in batch.feeders:
                with _time_limit(batch):
                    result = _clear_feeder(feeder, batch)
                with (batch.work / JOURNAL).open("a", encoding="utf-8") as journal:
                    journal.write(json.dumps(asdict(result), allow_nan=False) + "\n")
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def read_journal(work: Path) -> list[FeederResult]:
    """Return what became of the feeders of a batch, in their order, as far as the batch came."""
    results: list[FeederResult] = []
    try:
        lines = (work / JOURNAL).read_text("utf-8").splitlines()
    except OSError:
        return results
    for line in lines:
        try:
            results.append(FeederResult(**json.loads(line)))
        except ValueError:
            break  # the process died while it wrote this line
    return results


def lost_feeder(feeder: Feeder, batch: Batch, reason: str) -> FeederResult:
    """What became of the feeder with which the process of `batch` ended, for a `reason` unless its time was over."""
    trace = batch.work / TRACE
    if trace.exists() and trace.stat().st_size:
        return FeederResult(feeder.name, TIMED_OUT, f"took longer than the time limit of {batch.time_limit_s:g} s")
    return FeederResult(feeder.name, FAILED, _one_line(reason))


@contextmanager
def _time_limit(batch: Batch) -> Iterator[None]:
    if batch.time_limit_s is None:
        yield
        return
    with (batch.work / TRACE).open("w") as trace:
        faulthandler.dump_traceback_later(batch.time_limit_s, exit=True, file=trace)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


def _clear_feeder(feeder: Feeder, batch: Batch) -> FeederResult:
    began_wall, began_cpu = time.perf_counter(), time.process_time()
    _forget_peak_memory()
    result = FeederResult(feeder.name, FAILED)
    partial = batch.work / PARTIAL
    try:
        result = replace(result, input_sha256=input_sha256(feeder, batch.way))
        clearing, settling = batch.clear_case(feeder.folder, batch.way)
        cleared = _with_figures(result, clearing, batch.way)
        write_results(
            clearing,
            partial,
            parquet=batch.way.parquet,
            with_certificate=batch.way.with_certificate,
            settling=settling,
            wall_seconds=time.perf_counter() - began_wall,
        )
        result = cleared
    except DlmpError as error:
        result = replace(result, status=STATUS_OF_ERROR.get(type(error), FAILED), reason=_one_line(str(error)))
    except Exception as error:
        result = replace(result, reason=_one_line(f"{type(error).__name__}: {error}"))
    result = replace(
        result,
        wall_seconds=time.perf_counter() - began_wall,
        cpu_seconds=time.process_time() - began_cpu,
        peak_memory_mb=_peak_memory_mb(),
    )
    if partial.exists():
        write_record(result, partial)
        _put(partial, batch.out / feeder.name, batch.work / ASIDE)
    return result


def _with_figures(result: FeederResult, clearing: Clearing, way: Way) -> FeederResult:
    """`result` with what `clearing` came to."""
    case, price, last = clearing.case, clearing.prices.published, clearing.passes[-1]
    reason, is_certified = "", None
    if clearing.status != CONVERGED:
        reason = f"violation {last.violation_pu:.3g} pu, step {last.step_pu:.3g} pu in pass {last.number}"
    if way.with_certificate:
        found = clearing.certificate
        is_certified = found.is_feasible and found.is_deliverable and found.is_supported
    return replace(
        result,
        status=clearing.status,
        reason=reason,
        nodes=case.network.node_count,
        resources=len(case.resources),
        intervals=case.horizon.intervals,
        objective=clearing.objective,
        currency=case.horizon.currency,
        lowest_usd_per_mwh=float(price.min()),
        highest_usd_per_mwh=float(price.max()),
        binding_limits=int(clearing.binding_limits().element.nunique()),
        broken_limits=count_elements(clearing.broken_limits()),
        is_certified=is_certified,
        passes=len(clearing.passes),
    )


def _one_line(text: str) -> str:
    lines = (line.strip().removeprefix("- ") for line in text.splitlines())
    return textwrap.shorten("; ".join(lines).replace(":; ", ": "), REASON_LENGTH, placeholder=" ...")


def _put(whole: Path, place: Path, aside: Path) -> None:
    """Move a folder to its `place`, and what was there `aside` before it is removed."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        place.rename(aside)
    whole.rename(place)
    shutil.rmtree(aside, ignore_errors=True)


def _forget_peak_memory() -> None:
    """Let Linux count the peak memory of this process anew."""
    with suppress(OSError):
        RESET_PEAK.write_text("5")


def _peak_memory_mb() -> float | None:
    try:
        lines = OWN_STATUS.read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))
