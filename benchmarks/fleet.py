"""How much sooner a fleet is cleared by two workers: ``python -m benchmarks.fleet [--feeders N]`` prints JSON.

The feeders are synthetic, of 100 to 1,000 nodes and a day of 24 intervals each, written as case folders.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

import dlmp
from benchmarks.cases import build, grown_spec
from benchmarks.feeders import synthetic

FEEDERS = 200
LEAST_NODES, MOST_NODES, INTERVALS = 100, 1000, 24


def write_feeders(folder: Path, count: int) -> None:
    """Write `count` seeded cases, of sizes that are evenly spread by their logarithm."""
    sizes = np.geomspace(LEAST_NODES, MOST_NODES, count).astype(int)
    for number, nodes in enumerate(np.random.default_rng(0).permutation(sizes).tolist()):
        spec = grown_spec(nodes, INTERVALS, seed=number)
        build(spec, synthetic(nodes, number)).write(folder / f"feeder {number:03}")


def cleared(folder: Path, out: Path, workers: int) -> tuple[pd.DataFrame, float]:
    """The table of the fleet, and wall seconds."""
    began = time.perf_counter()
    table = dlmp.clear_fleet(folder, out, workers=workers)
    return table, time.perf_counter() - began


def main() -> None:
    """Print one measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--feeders", type=int, default=FEEDERS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "feeders"
        folder.mkdir()
        write_feeders(folder, options.feeders)
        one, one_s = cleared(folder, Path(name) / "one", 1)
        two, two_s = cleared(folder, Path(name) / "two", 2)
    figures = {
        "feeders": options.feeders,
        "nodes": int(one.nodes.sum()),
        "converged": int((two.status == "converged").sum()),
        "is_same": bool((one.objective == two.objective).all() and (one.status == two.status).all()),
        "one_worker_s": one_s,
        "two_workers_s": two_s,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
