"""A stand-in for the solver: takes a moment, then leaves tables that depend on the case alone.

Where there are readings it settles them: every deviation from an award of `AWARDED_KWH` at `PRICE`.
"""

import csv
import hashlib
import sys
import time
from collections import defaultdict
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from api.runfolder import CASE, METERED, RESULTS, SUMMARY

AWARDED_KWH = Decimal(3)
PRICE = Decimal("0.37")
OPERATOR = "operator"


def statements(metered: Path) -> pa.Table:
    """Statement lines of what deviates, and of the operator, who has what is left."""
    deviations: dict[str, Decimal] = defaultdict(Decimal)
    with metered.open() as file:
        for row in csv.DictReader(file):
            deviations[row["resource"]] += Decimal(row["net_injection_kwh"]) - AWARDED_KWH
    lines = [(name, name, kwh, kwh * PRICE) for name, kwh in deviations.items()]
    lines.append((OPERATOR, "-", Decimal(), -sum((amount for *_, amount in lines), Decimal())))
    return pa.table(
        {
            "participant": [participant for participant, *_ in lines],
            "resource": [resource for _, resource, *_ in lines],
            "product": ["energy_imbalance"] * len(lines),
            "quantity": [float(kwh) for *_, kwh, _ in lines],
            "unit": ["kWh"] * len(lines),
            "amount": [f"{amount:f}" for *_, amount in lines],
        }
    )


def main(folder: Path) -> None:
    """Solve the run of a folder."""
    files = [path for path in sorted((folder / CASE).iterdir()) if path.is_file()]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    tables = {name: pa.table({"case": [digest]}) for name in ("prices", "awards")}
    if (folder / CASE / METERED).exists():
        tables["statements"] = statements(folder / CASE / METERED)
    time.sleep(0.3)
    (folder / RESULTS).mkdir()
    for name, table in tables.items():
        pq.write_table(table, folder / RESULTS / f"{name}.parquet")
    (folder / SUMMARY).write_text("{}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
