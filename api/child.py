"""The process of one run: ``python -m api.child FOLDER`` clears ``FOLDER/case``.

It leaves its tables in ``FOLDER/results`` and what they come to in ``FOLDER/summary.json``.

Where the case has a folder ``settling``, its statements are those of two settlements, with the readings there: awards
at the prices of the case, and deviations from them at the prices of the real-time market, or else of the case again.

It says what it is doing in lines of JSON on its standard output, and ends when its standard input does: so it never
outlives the worker that waits for it.  It then removes a folder that a worker made, which one that was killed cannot,
for everyone's bids are in it.
"""

import contextlib
import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd

from api.runfolder import (
    CALLS,
    CASE,
    DIAGRAM_BRANCHES,
    DIAGRAM_NODES,
    METERED,
    PREFIX,
    PRICE_COLUMNS,
    PRICE_SHARES,
    REAL_TIME,
    REAL_TIME_PRICES,
    REAL_TIME_SETTINGS,
    RESULTS,
    SETTINGS,
    SUMMARY,
)
from dlmp import output
from dlmp.casefolder import read_case
from dlmp.clearing import CONVERGED, Clearing, clear
from dlmp.dispatch import PassReport
from dlmp.errors import DlmpError, InfeasibleError, InputError
from dlmp.network.model import Network
from dlmp.oneline import branch_ends, diagram
from dlmp.settings import Settings
from dlmp.settlement import settle

LEAST_SHARE_USD_PER_MWH = 0.01
"""Shares of a price below this are told together, as its rest [currency/MWh], [currency/MVArh]."""
SHARE_COLUMNS = {
    "phase_of_bus": "phase",
    "phase": "element_phase",
    "end": "element_end",
    "share_q_usd_per_mvarh": "q_share_usd_per_mvarh",
}
REFUSED, NOT_CONVERGED_CODE = 2, 4
LEAVING = threading.Lock()
"""Is taken by whoever ends the process, so that it does not end amid the other's work."""


def main() -> None:
    """Clear the case of the folder that is named on the command line."""
    folder = Path(sys.argv[1])
    threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()
    try:
        _clear(folder)
    except DlmpError as error:
        _say(reason=_reason(error))
        raise SystemExit(REFUSED) from None
    finally:
        LEAVING.acquire()


def _clear(folder: Path) -> None:
    began = time.perf_counter()
    clearing = _cleared(folder / CASE, folder / SETTINGS)
    settlement, real_time = None, None
    if (folder / CASE / METERED).exists():
        if (folder / CASE / REAL_TIME_SETTINGS).exists():
            real_time = _cleared(folder / CASE / REAL_TIME, folder / CASE / REAL_TIME_SETTINGS)
        metered = pd.read_csv(
            folder / CASE / METERED,
            dtype={"resource": str},
            keep_default_na=False,
            na_values={"q_kvarh": [""]},
            float_precision="round_trip",
        )
        settlement = settle(clearing, real_time=real_time or clearing, metered=metered, deem_missing=True)
    _say(text="checking and writing the results", passes=len(clearing.passes))
    wall_seconds = time.perf_counter() - began
    output.write_results(clearing, folder / RESULTS, parquet=True, settlement=settlement, wall_seconds=wall_seconds)
    (folder / RESULTS / output.SUMMARY).rename(folder / SUMMARY)
    for name, table in {
        PRICE_SHARES: _price_shares(clearing),
        CALLS: clearing.calls(),
        **_diagram(clearing.case.network),
    }.items():
        table.to_parquet(folder / RESULTS / f"{name}.parquet", index=False)
    if real_time is not None:
        real_time.prices.table().to_parquet(folder / RESULTS / f"{REAL_TIME_PRICES}.parquet", index=False)


def _price_shares(clearing: Clearing) -> pd.DataFrame:
    """What makes each price, beside it: rows add up to the prices."""
    keys = ["interval_start", "interval", "bus", "phase"]
    shares = clearing.price_shares(LEAST_SHARE_USD_PER_MWH, with_rest=True).rename(columns=SHARE_COLUMNS)
    prices = clearing.prices.table().rename(columns=PRICE_COLUMNS)[[*keys, *PRICE_COLUMNS.values()]]
    shares = output.finite(PRICE_SHARES, shares.merge(prices, on=keys, how="left", validate="many_to_one"))
    return shares.sort_values(["interval", "bus", "phase"], kind="stable")


def _diagram(network: Network) -> dict[str, pd.DataFrame]:
    """Where the priced nodes of every bus, and the points of every branch, are drawn."""
    drawing, ports = diagram(network), np.flatnonzero(network.is_priced)
    bus = network.bus_of_port[ports]
    x, y = drawing.xy[bus].T
    nodes = {
        "bus": network.port_bus[ports].astype(object),
        "phase": network.port_phase[ports].astype(object),
        "is_source": np.isin(bus, network.bus_of_port[network.source]),
        "is_map": drawing.is_map,
        "x": x,
        "y": y,
    }
    ends = branch_ends(network)
    branches = {
        "branch": list(network.branch_number),
        "from_bus": [network.buses[start] for start, _ in ends],
        "to_bus": [network.buses[end] for _, end in ends],
        "points": [path.ravel().tolist() for path in drawing.paths],
    }
    return {DIAGRAM_NODES: pd.DataFrame(nodes), DIAGRAM_BRANCHES: pd.DataFrame(branches)}


def _cleared(folder: Path, settings: Path) -> Clearing:
    """Clear the case of a folder; the process ends here where it does not converge."""
    _say(text="reading the case", passes=0)
    case = read_case(folder)
    _say(text="clearing", passes=0)
    clearing = clear(case, Settings(**json.loads(settings.read_text("utf-8"))), _show_pass)
    if clearing.status != CONVERGED:
        _say(reason=f"not converged in {len(clearing.passes)} passes")
        raise SystemExit(NOT_CONVERGED_CODE)
    return clearing


def _show_pass(report: PassReport) -> None:
    _say(text=f"pass {report.number}: violation {report.violation_pu:.1e} pu", passes=report.number)


def _reason(error: DlmpError) -> str:
    kind = {InputError: "input", InfeasibleError: "infeasible"}.get(type(error), "solver")
    return f"{kind}: {error}"


def _say(**words: object) -> None:
    with contextlib.suppress(BrokenPipeError):  # the worker is gone: the other thread is about to end the process
        print(json.dumps(words), flush=True)


def _end_with_parent(folder: Path) -> None:
    while os.read(0, 1024):
        pass
    LEAVING.acquire()
    if folder.name.startswith(PREFIX):
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


if __name__ == "__main__":
    main()
