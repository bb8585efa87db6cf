"""DistOPF on a case of its own: a linear OPF of one interval through cvxpy, without losses, bids or prices.

Its DER come with its case; their reactive power is free and the objective is the least loss.  It reads the same
feeders as we do, from the same files, and has no words for our offers.
"""

import warnings

from benchmarks.peers.outcome import Outcome

WIDE_PU = (0.8, 1.2)
"""Voltage band: within DistOPF's own limits its 9,500-node case is infeasible."""


def read(name: str):
    """DistOPF's case `name`.

    Raises
    ------
    ModuleNotFoundError
        Without distopf (extra ``bench``).
    """
    warnings.simplefilter("ignore")
    import distopf  # noqa: PLC0415 - an optional peer

    case = distopf.create_case(distopf.CASES_DIR / "csv" / name)
    case.bus_data["v_min"], case.bus_data["v_max"] = WIDE_PU
    return case


def solve(case) -> Outcome:
    """Solve it."""
    found = case.run_opf(objective="loss", control_variable="Q", wrapper="matrix", raw_result=True)
    return Outcome("no result" if found is None else "solved")
