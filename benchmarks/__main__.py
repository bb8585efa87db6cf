"""Compare the engine with its peers: ``python -m benchmarks [--quick] [--out FOLDER]`` writes a report.

Every measurement has a process of its own, one after the other.  ``results.json`` has all figures; ``report.md`` and
its pictures are made of nothing else, and ``--report`` makes them anew.  Each measurement is noted in
``measurements.jsonl`` as soon as it is there: a run that was stopped goes on with ``--resume``, on the same machine
with the same versions.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import ACCURACY, SPECS, Spec
from benchmarks.fleet import FEEDERS
from benchmarks.machine import described, import_seconds
from benchmarks.measure import price_file
from benchmarks.peers import OWN
from benchmarks.process import in_process
from benchmarks.report import publish, write_report

MEASURE_SECONDS, QUICK_SECONDS = 600.0, 120.0
"""Longest wait for a measurement [s]."""
QUICK_FEEDERS, FLEET_SECONDS = 10, 1800.0
WHOLE_LP_SECONDS = 1800.0
"""The same for the whole LP of a full run, for its prices to be compared."""


class Journal:
    """The measurements of a run, each written down at once.

    Parameters
    ----------
    file
        One line of the machine, then one of each measurement: its name, and the answer.
    machine
        What the run is made on.
    resumes
        True to keep what was measured before.

    Raises
    ------
    SystemExit
        When what was measured before is of another machine, or of other versions.
    """

    def __init__(self, file: Path, machine: dict[str, Any], *, resumes: bool):
        self._file = file
        lines = file.read_text(encoding="utf-8").splitlines() if resumes and file.exists() else []
        head, *known = map(json.loads, lines or [json.dumps(machine)])
        if {**head, "load_before": 0} != {**machine, "load_before": 0}:
            sys.exit(f"{file} is of another machine or of other versions; measure anew, without --resume")
        self.machine, self._known = head, {name: answer for name, answer, _ in known}
        self._took_s = sum(seconds for _, _, seconds in known)
        file.write_text("".join(f"{line}\n" for line in lines or [json.dumps(machine)]), encoding="utf-8")

    def measured(self, name: str, module: str, *arguments: str, seconds: float) -> dict[str, Any]:
        """The answer of a measurement that is known, or that is made now and told."""
        if name in self._known:
            return self._known[name]
        began = time.time()
        answer = in_process(module, *arguments, seconds=seconds)
        took_s = time.time() - began
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps([name, answer, took_s]) + "\n")
        self._took_s += took_s
        wall_s = answer.get("wall_s", answer.get("two_workers_s"))
        print(
            f"{name}: {answer.get('skipped', '') if wall_s is None else f'{wall_s:.2f} s'}", file=sys.stderr, flush=True
        )
        return answer

    @property
    def took_s(self) -> float:
        """Wall seconds of all measurements."""
        return self._took_s


def results_of(quick: bool, folder: Path, *, resumes: bool = False) -> dict[str, Any]:
    """Measure everything that the run is for."""
    seconds = QUICK_SECONDS if quick else MEASURE_SECONDS
    prices = folder / "prices"
    prices.mkdir(parents=True, exist_ok=True)
    journal = Journal(folder / "measurements.jsonl", described(), resumes=resumes)
    found: dict[str, Any] = {
        "quick": quick,
        "machine": journal.machine,
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
            found["peers"].append({"spec": spec.name, "peer": peer, **answer, **compared(prices, spec, peer, answer)})
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
