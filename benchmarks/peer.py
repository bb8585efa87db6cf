"""DistOPF beside: its linear OPF of one interval, HiGHS or Clarabel through cvxpy, without losses, bids or prices.

Its DER come with its own case; their reactive power is free and the objective is the least loss.  ``python -m
benchmarks.peer CASE`` prints buses, DER, wall and CPU seconds of building and solving, and what came of it.
"""

import sys
import time
import warnings

WIDE_PU = (0.8, 1.2)
"""Voltage band: within DistOPF's own limits its 9,500-node case is infeasible."""


def main(name: str) -> None:
    """Solve DistOPF's case `name`."""
    warnings.simplefilter("ignore")
    import distopf  # noqa: PLC0415 - an optional peer, and its import is not what is measured

    case = distopf.create_case(distopf.CASES_DIR / "csv" / name)
    case.bus_data["v_min"], case.bus_data["v_max"] = WIDE_PU
    wall, cpu = time.perf_counter(), time.process_time()
    result = case.run_opf(objective="loss", control_variable="Q", wrapper="matrix", raw_result=True)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    status = "no result" if result is None else "solved"
    print(f"{len(case.bus_data)} buses|{len(case.gen_data)}|{status}|{wall:.2f}|{cpu:.2f}")


if __name__ == "__main__":
    main(sys.argv[1])
