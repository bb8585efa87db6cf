"""Time the clearing of every spec: ``python -m benchmarks [--repeats N] [--only NAME]`` prints a Markdown table.

Every spec runs in a process of its own.  CPU and wall seconds are medians over the repeats, after one clearing that
warms imports and caches; reading the network is told apart.  ``own`` is the share of CPU time outside HiGHS, power
flow and gradients: Pyomo, stamping, the passes and the Newton finish.  DistOPF stands beside where it has the feeder:
one interval of a linear model without losses, bids or prices.
"""

import argparse
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import highspy

import dlmp
from benchmarks.cases import SPECS, Spec, build

OUTSIDE = ("solver", "power_flow", "gradients")
PEER_SECONDS = 120
"""Longest wait for a peer [s]."""


def measure(spec: Spec, repeats: int) -> str:
    """One row of the table, measured in this process."""
    began = time.process_time()
    try:
        network = spec.network()
    except ModuleNotFoundError as error:
        return f'| {spec.name} | skipped: {error}; pip install "dlmp[bench]" | | | | | | | | |'
    read = time.process_time() - began
    case = build(spec, network)
    dlmp.clear(case)
    runs = [timed(lambda: dlmp.clear(case)) for _ in range(repeats)]
    wall, cpu = (statistics.median(run[index] for run in runs) for index in (0, 1))
    clearing = runs[-1][2]
    own = [1 - sum(run[2].seconds[phase] for phase in OUTSIDE) / sum(run[2].seconds.values()) for run in runs]
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return (
        f"| {spec.name} | {case.network.node_count} | {len(case.resources)} | {clearing.status} "
        f"| {len(clearing.passes)} | {wall:.2f} | {cpu:.2f} | {100 * statistics.median(own):.0f} % "
        f"| {peak_mb:.0f} | {read:.1f} |"
    )


def timed(work: Callable[[], dlmp.Clearing]) -> tuple[float, float, dlmp.Clearing]:
    """Wall seconds, CPU seconds and result of `work`."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def in_process(*arguments: str, seconds: float | None = None) -> str:
    """Last line that a process of its own prints, or what became of it."""
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", *arguments],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no result in {seconds:.0f} s"
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return lines[-1] if lines else "no result"


def peer_row(spec: Spec) -> str:
    """DistOPF's row beside that of `spec`."""
    found = in_process("benchmarks.peer", spec.peer, seconds=PEER_SECONDS).split("|")
    if len(found) != 5:
        return f"| DistOPF, {spec.peer} x 1 | {found[0]} | | | | | | | | |"
    nodes, resources, status, wall, cpu = found
    return f"| DistOPF, {spec.peer} x 1 | {nodes} | {resources} | {status} | | {wall} | {cpu} | | | |"


def main() -> None:
    """Measure every spec and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", help="measure this spec in this process and print its row")
    options = parser.parse_args()
    if options.only:
        print(measure(next(spec for spec in SPECS if spec.name == options.only), options.repeats))
        return
    print(f"Python {platform.python_version()}, HiGHS {highspy.Highs().version()}, {platform.machine()}\n")
    print("| case | nodes | resources | status | passes | wall [s] | CPU [s] | own | peak [MB] | read [s] |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for spec in SPECS:
        print(in_process("benchmarks", "--repeats", str(options.repeats), "--only", spec.name), flush=True)
        if spec.peer:
            print(peer_row(spec), flush=True)


if __name__ == "__main__":
    main()
