"""Compare the engine with its peers: ``python -m benchmarks [--quick] [--out FOLDER]`` writes a report.

Every measurement has a process of its own, one after the other.  ``results.json`` has all figures; ``report.md`` and
its pictures are made of nothing else, and ``--report`` makes them anew.  Each measurement is noted in
``measurements.jsonl`` as soon as it is there: a run that was stopped goes on with ``--resume``, on the same machine
with the same code.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import ACCURACY, SPECS, Spec
from benchmarks.fleet import FEEDERS
from benchmarks.machine import commit, described, import_seconds
from benchmarks.measure import price_file
from benchmarks.peers import OWN
from benchmarks.process import in_process
from benchmarks.report import publish, write_report

MEASURE_SECONDS, QUICK_SECONDS = 600.0, 120.0
"""Longest wait for a measurement [s]."""
FLEET_SECONDS = WHOLE_LP_SECONDS = 1800.0
"""The same for the fleet, and for the whole LP of a full run, for its prices to be compared."""
QUICK_FEEDERS = 10


class Journal:
    """The measurements of a run, each written down at once: a line of the run, then one of each.

    Parameters
    ----------
    folder
        Of the file.
    run
        What the run is made on, and how.
    resumes
        True to keep what was measured before and came to something.

    Attributes
    ----------
    run
        What the run was begun on.
    took_s
        Wall seconds of all measurements.

    Raises
    ------
    SystemExit
        When what was measured before is of another machine, other code or another kind of run.
    """

    def __init__(self, folder: Path, run: dict[str, Any], *, resumes: bool):
        self._file, self._known = folder / "measurements.jsonl", {}
        self.run, self.took_s = run, 0.0
        lines = self._file.read_bytes().splitlines(keepends=True) if resumes and self._file.exists() else []
        whole = [line for line in lines if line.endswith(b"\n")]  # the last one may be torn
        if not whole:
            self._file.write_text(json.dumps(run) + "\n", encoding="utf-8")
            return
        os.truncate(self._file, sum(map(len, whole)))
        self.run, *measured = map(json.loads, whole)
        other = [key for key in run if key != "load_before" and run[key] != self.run.get(key)]
        if other:
            sys.exit(f"{self._file} is of a run with other {', '.join(other)}: measure anew, without --resume")
        for name, answer, seconds in measured:
            self._known[name] = answer
            self.took_s += seconds

    def measured(self, name: str, module: str, *arguments: str, seconds: float) -> dict[str, Any]:
        """The answer of a measurement that is known, or that is made now and told.

        Raises
        ------
        SystemExit
            When the code has changed since the run began.
        """
        if name in self._known and not self._known[name].get("failed"):
            return self._known[name]
        if commit() != self.run["commit"]:
            sys.exit(f"the code has changed since {self.run['commit']} was to be measured: measure anew")
        began = time.time()
        answer = in_process(module, *arguments, seconds=seconds)
        took_s = time.time() - began
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps([name, answer, took_s]) + "\n")
        self.took_s += took_s
        wall_s = answer.get("wall_s", answer.get("two_workers_s"))
        told = answer.get("skipped", "") if wall_s is None else f"{wall_s:.2f} s"
        print(f"{name}: {told}", file=sys.stderr, flush=True)
        return answer


def results_of(quick: bool, folder: Path, *, resumes: bool = False) -> dict[str, Any]:
    """Measure everything that the run is for."""
    seconds = QUICK_SECONDS if quick else MEASURE_SECONDS
    prices = folder / "prices"
    if not resumes:
        shutil.rmtree(prices, ignore_errors=True)
    prices.mkdir(parents=True, exist_ok=True)
    journal = Journal(folder, {"quick": quick, **described()}, resumes=resumes)
    found: dict[str, Any] = {
        "quick": quick,
        "machine": journal.run,
        "import_s": import_seconds(),
        "clearings": [],
        "peers": [],
        "accuracy": [],
    }
    for spec in chosen(SPECS, quick):
        of_spec = ("benchmarks.measure", spec.name, "--prices", str(prices))
        engine = journal.measured(spec.name, *of_spec, seconds=seconds)
        engine |= {"spec": spec.name, "series": spec.series, "formulation": spec.settings.formulation}
        found["clearings"].append(engine)
        for peer in (*spec.peers, *([OWN] if spec.distopf else [])):
            limit_s = WHOLE_LP_SECONDS if peer == "LP" and not quick else seconds
            answer = journal.measured(f"{spec.name}: {peer}", *of_spec, "--peer", peer, seconds=limit_s)
            gap = {} if "skipped" in engine else compared(prices, spec, peer, answer)
            found["peers"].append({"spec": spec.name, "peer": peer, **answer, **gap})
    for spec in chosen(ACCURACY, quick):
        answer = journal.measured(f"accuracy, {spec.name}", "benchmarks.accuracy", spec.name, seconds=seconds)
        found["accuracy"].append({"spec": spec.name, **answer})
    feeders = ("--feeders", str(QUICK_FEEDERS if quick else FEEDERS))
    found["fleet"] = journal.measured("fleet", "benchmarks.fleet", *feeders, seconds=FLEET_SECONDS)
    return {**found, "took_s": journal.took_s}


def chosen(specs: tuple[Spec, ...], quick: bool) -> Iterator[Spec]:
    """Those that a run measures."""
    return (spec for spec in specs if spec.quick or not quick)


def compared(folder: Path, spec: Spec, peer: str, answer: dict[str, Any]) -> dict[str, float]:
    """How far a peer's prices are from the engine's, where both have some."""
    files = [price_file(folder, spec.name, program) for program in ("dlmp", peer)]
    if "skipped" in answer or not all(file.exists() for file in files):
        return {}
    ours, theirs = (np.load(file) for file in files)
    gap = np.abs(ours - theirs)
    return {"price_gap_max": float(np.nanmax(gap)), "price_gap_mean": float(np.nanmean(gap))}


def main() -> None:
    """Measure, write the results, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small specs alone, under five minutes")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="folder of the results")
    parser.add_argument("--report", action="store_true", help="write the report of the results that are there")
    parser.add_argument(
        "--publish", type=Path, metavar="PAGE", help="copy the report to this page of the documentation"
    )
    parser.add_argument("--resume", action="store_true", help="keep what a run that was stopped has measured")
    options = parser.parse_args()
    file = options.out / "results.json"
    if not options.report:
        options.out.mkdir(parents=True, exist_ok=True)
        results = results_of(options.quick, options.out, resumes=options.resume)
        file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    write_report(json.loads(file.read_text(encoding="utf-8")), options.out)
    if options.publish:
        publish(options.out, options.publish)
    print(options.publish or options.out / "report.md")


if __name__ == "__main__":
    main()
