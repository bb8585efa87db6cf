"""The process of one run: ``python -m api.child FOLDER`` clears ``FOLDER/case``.

It leaves its tables in ``FOLDER/results`` and what they come to in ``FOLDER/summary.json``.

It says what it is doing in lines of JSON on its standard output, and ends when its standard input does: so it never
outlives the worker that waits for it.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

from api.runfolder import CASE, RESULTS, SETTINGS, SUMMARY
from dlmp import output
from dlmp.casefolder import read_case
from dlmp.clearing import CONVERGED, clear
from dlmp.dispatch import PassReport
from dlmp.errors import DlmpError, InfeasibleError, InputError
from dlmp.settings import Settings

REFUSED, NOT_CONVERGED_CODE = 2, 4


def main() -> None:
    """Clear the case of the folder that is named on the command line."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    folder = Path(sys.argv[1])
    try:
        _clear(folder)
    except DlmpError as error:
        _say(reason=_reason(error))
        raise SystemExit(REFUSED) from None


def _clear(folder: Path) -> None:
    began = time.perf_counter()
    settings = Settings(**json.loads((folder / SETTINGS).read_text("utf-8")))
    _say(text="reading the case", passes=0)
    case = read_case(folder / CASE)
    _say(text="clearing", passes=0)
    clearing = clear(case, settings, _show_pass)
    if clearing.status != CONVERGED:
        _say(reason=f"not converged in {len(clearing.passes)} passes")
        raise SystemExit(NOT_CONVERGED_CODE)
    _say(text="checking and writing the results", passes=len(clearing.passes))
    output.write_results(clearing, folder / RESULTS, parquet=True, wall_seconds=time.perf_counter() - began)
    (folder / RESULTS / output.SUMMARY).rename(folder / SUMMARY)


def _show_pass(report: PassReport) -> None:
    _say(text=f"pass {report.number}: violation {report.violation_pu:.1e} pu", passes=report.number)


def _reason(error: DlmpError) -> str:
    kind = {InputError: "input", InfeasibleError: "infeasible"}.get(type(error), "solver")
    return f"{kind}: {error}"


def _say(**words: object) -> None:
    print(json.dumps(words), flush=True)


def _end_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
