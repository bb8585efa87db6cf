"""What became of each feeder: a row of ``fleet.csv``, and the record that makes a folder of results whole.

The results of a feeder are written elsewhere and moved to their place in one step, together with their record,
``fleet.json``.  A folder with a record is whole; one without is none of a fleet's.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pandas as pd

from dlmp.clearing import CONVERGED, NOT_CONVERGED
from dlmp.output import write_files

TABLE = "fleet.csv"
RECORD = "fleet.json"
REFUSED, INFEASIBLE, FAILED, TIMED_OUT = "refused", "infeasible", "failed", "timed_out"
STATUSES = (CONVERGED, NOT_CONVERGED, INFEASIBLE, REFUSED, TIMED_OUT, FAILED)


@dataclass(frozen=True)
class FeederResult:
    """A row of the table of a fleet; what is not known is None or empty.

    Parameters
    ----------
    feeder
        Path of its case folder below that of the fleet.
    status
        One of `STATUSES`.
    reason
        Why it did not converge; empty where it did.
    nodes, resources, intervals
        Size of the case.
    objective, currency
        Total cost over the horizon, and its currency.
    lowest_usd_per_mwh, highest_usd_per_mwh
        Extreme nodal prices of real power [currency/MWh].
    binding_limits, broken_limits
        Elements whose limits bind, and are broken, in any interval.
    is_certified
        True when the certificate finds the result feasible, deliverable and supported by the bids.
    passes
        Passes of the clearing.
    wall_seconds, cpu_seconds
        Time from reading the case to its results being written [s].
    peak_memory_mb
        Most memory of the process meanwhile, programs included [MiB]; on Linux only.
    input_sha256
        SHA-256 of the files of the case, of the settings and of the version of dlmp.
    """

    feeder: str
    status: str
    reason: str = ""
    nodes: int | None = None
    resources: int | None = None
    intervals: int | None = None
    objective: float | None = None
    currency: str = ""
    lowest_usd_per_mwh: float | None = None
    highest_usd_per_mwh: float | None = None
    binding_limits: int | None = None
    broken_limits: int | None = None
    is_certified: bool | None = None
    passes: int | None = None
    wall_seconds: float | None = None
    cpu_seconds: float | None = None
    peak_memory_mb: float | None = None
    input_sha256: str = ""


COUNTS = ("nodes", "resources", "intervals", "binding_limits", "broken_limits", "passes")
FIGURES = ("objective", "lowest_usd_per_mwh", "highest_usd_per_mwh", "wall_seconds", "cpu_seconds", "peak_memory_mb")
COLUMN_TYPES = dict.fromkeys(COUNTS, "Int64") | dict.fromkeys(FIGURES, "float64") | {"is_certified": "boolean"}


def result_table(results: Iterable[FeederResult]) -> pd.DataFrame:
    """Return a row for each of `results`, by the name of the feeder; the columns are those of `FeederResult`."""
    rows = sorted(map(asdict, results), key=lambda row: row["feeder"])
    return pd.DataFrame(rows, columns=[column.name for column in fields(FeederResult)]).astype(COLUMN_TYPES)


def write_table(results: Iterable[FeederResult], folder: Path) -> None:
    """Write ``fleet.csv`` of `folder` anew, in one step."""
    table = result_table(results)
    write_files(folder, {TABLE: lambda path: table.to_csv(path, index=False, lineterminator="\n")}, (TABLE,))


def write_record(result: FeederResult, folder: Path) -> None:
    """Write the record of the whole results in `folder`."""
    names = sorted(path.name for path in folder.iterdir())
    text = json.dumps({"result": asdict(result), "files": names}, indent=2, allow_nan=False, ensure_ascii=False)
    (folder / RECORD).write_text(text + "\n", "utf-8")


def read_record(folder: Path) -> FeederResult | None:
    """Return the result whose files are in `folder`; None unless all of them are there."""
    try:
        record = json.loads((folder / RECORD).read_text("utf-8"))
        is_whole = all((folder / name).is_file() for name in record["files"])
        return FeederResult(**record["result"]) if is_whole else None
    except (OSError, ValueError, TypeError, LookupError):
        return None
