"""Compare the engine with its peers: ``python -m benchmarks [--quick] [--out FOLDER]`` writes a report.

Every measurement has a process of its own, one after the other.  ``results.json`` has all figures; ``report.md`` and
its pictures are made of nothing else, and ``--report`` makes them anew.
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


def results_of(quick: bool, folder: Path) -> dict[str, Any]:
    """Measure everything that the run is for."""
    seconds = QUICK_SECONDS if quick else MEASURE_SECONDS
    prices = folder / "prices"
    prices.mkdir(parents=True, exist_ok=True)
    began = time.time()
    found: dict[str, Any] = {
        "quick": quick,
        "machine": described(),
        "import_s": import_seconds(),
        "clearings": [],
        "peers": [],
        "accuracy": [],
    }
    for spec in chosen(SPECS, quick):
        engine = told(spec.name, in_process("benchmarks.measure", spec.name, "--prices", str(prices), seconds=seconds))
        engine |= {"spec": spec.name, "series": spec.series, "formulation": spec.settings.formulation}
        found["clearings"].append(engine)
        for peer in (*spec.peers, *([OWN] if spec.distopf else [])):
            arguments = (spec.name, "--peer", peer, "--prices", str(prices))
            answer = told(f"{spec.name}: {peer}", in_process("benchmarks.measure", *arguments, seconds=seconds))
            found["peers"].append({"spec": spec.name, "peer": peer, **answer, **compared(prices, spec, peer, answer)})
    for spec in chosen(ACCURACY, quick):
        answer = told(f"accuracy, {spec.name}", in_process("benchmarks.accuracy", spec.name, seconds=seconds))
        found["accuracy"].append({"spec": spec.name, **answer})
    feeders = ("--feeders", str(QUICK_FEEDERS if quick else FEEDERS))
    found["fleet"] = told("fleet", in_process("benchmarks.fleet", *feeders, seconds=FLEET_SECONDS))
    return {**found, "took_s": time.time() - began}


def chosen(specs: tuple[Spec, ...], quick: bool) -> Iterator[Spec]:
    """Those that a run measures."""
    return (spec for spec in specs if spec.quick or not quick)


def told(name: str, answer: dict[str, Any]) -> dict[str, Any]:
    """Say how far the run is; the `answer`."""
    seconds = answer.get("wall_s", answer.get("two_workers_s"))
    figures = answer.get("skipped", "") if seconds is None else f"{seconds:.2f} s"
    print(f"{name}: {figures}", file=sys.stderr, flush=True)
    return answer


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
    options = parser.parse_args()
    file = options.out / "results.json"
    if not options.report:
        options.out.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(results_of(options.quick, options.out), indent=1) + "\n", encoding="utf-8")
    write_report(json.loads(file.read_text(encoding="utf-8")), options.out)
    if options.publish:
        publish(options.out, options.publish)
    print(options.publish or options.out / "report.md")


if __name__ == "__main__":
    main()
