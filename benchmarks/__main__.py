"""Time the clearing of every spec: ``python -m benchmarks [--repeats N]`` prints a Markdown table.

CPU and wall seconds are medians over the repeats, after one clearing that warms imports and caches.
``own`` is the share of CPU time outside HiGHS, power flow and gradients: Pyomo, stamping, the passes
and the Newton finish.
"""

import argparse
import platform
import resource
import statistics
import time
from collections.abc import Callable

import highspy

import dlmp
from benchmarks.cases import SPECS, Spec, build

OUTSIDE = ("solver", "power_flow", "gradients")


def measure(spec: Spec, repeats: int) -> str:
    """One row of the table."""
    case = build(spec)
    dlmp.clear(case)
    runs = [timed(lambda: dlmp.clear(case)) for _ in range(repeats)]
    wall, cpu = (statistics.median(run[index] for run in runs) for index in (0, 1))
    clearing = runs[-1][2]
    own = [1 - sum(run[2].seconds[phase] for phase in OUTSIDE) / sum(run[2].seconds.values()) for run in runs]
    return (
        f"| {spec.name} | {case.network.node_count} | {len(case.resources)} | {clearing.status} "
        f"| {len(clearing.passes)} | {wall:.2f} | {cpu:.2f} | {100 * statistics.median(own):.0f} % |"
    )


def timed(work: Callable[[], dlmp.Clearing]) -> tuple[float, float, dlmp.Clearing]:
    """Wall seconds, CPU seconds and result of `work`."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def main() -> None:
    """Measure every spec and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    print(f"Python {platform.python_version()}, HiGHS {highspy.Highs().version()}, {platform.machine()}\n")
    print("| case | nodes | resources | status | passes | wall [s] | CPU [s] | own |")
    print("|---|---|---|---|---|---|---|---|")
    for spec in SPECS:
        print(measure(spec, repeats), flush=True)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\npeak memory {peak_mb:.0f} MB")


if __name__ == "__main__":
    main()
