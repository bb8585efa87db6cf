"""What a page needs to draw a cleared feeder: places of nodes and branches, and a quantity over all intervals.

Prices are for all.  Voltages and loading tell what each resource was awarded where it stands alone: they are for those
who may see all awards.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from sqlalchemy import Connection

from api.frames import Recent, result_table
from api.runfolder import DIAGRAM_BRANCHES, DIAGRAM_NODES

NODE, BRANCH = "node", "branch"


@dataclass(frozen=True)
class Quantity:
    """A column of a result table, what of it is drawn, its unit, and whether all may see it."""

    table: str
    column: str
    of: str
    unit: str
    is_public: bool


PARTS = ("energy", "loss", "congestion", "voltage", "unbalance", "scarcity")
QUANTITIES: Mapping[str, Quantity] = {
    "price": Quantity("prices", "lmp_usd_per_mwh", NODE, "{currency}/MWh", is_public=True),
    **{part: Quantity("prices", part, NODE, "{currency}/MWh", is_public=True) for part in PARTS},
    "reactive price": Quantity("prices", "lmp_q_usd_per_mvarh", NODE, "{currency}/MVArh", is_public=True),
    "voltage magnitude": Quantity("voltages", "v_pu", NODE, "pu", is_public=False),
    "loading": Quantity("flows", "loading_percent", BRANCH, "%", is_public=False),
}
FORM = 1
"""Number of the form that pictures have; a change of it must reach browsers that keep older ones."""
MOST_DRAWN_BYTES = 64 * 1024 * 1024
_DRAWN: Recent[bytes] = Recent(MOST_DRAWN_BYTES, len)


def diagram(connection: Connection, run_id: str) -> dict[str, Any]:
    """Nodes with their places, branches with the points of their lines, and whether these are on a map."""
    nodes = result_table(connection, run_id, DIAGRAM_NODES).to_pydict()
    branches = result_table(connection, run_id, DIAGRAM_BRANCHES).to_pydict()
    is_map = any(nodes.pop("is_map", ()))  # runs of older versions do not tell: theirs never is
    return {"is_map": is_map, NODE: nodes, BRANCH: branches}


def drawn(connection: Connection, run_id: str, name: str, intervals: int) -> bytes:
    """Values of one of the `QUANTITIES` as 32-bit floats, (t, i) at the nodes or branches of the diagram, in its order.

    A branch without the quantity, as one without a limit is without a loading, has 0.
    """
    quantity = QUANTITIES[name]
    of_nodes = quantity.of == NODE
    keys = ["bus", "phase"] if of_nodes else ["branch"]

    def values() -> bytes:
        place = result_table(connection, run_id, DIAGRAM_NODES if of_nodes else DIAGRAM_BRANCHES)
        table = result_table(connection, run_id, quantity.table).select(["interval", *keys, quantity.column])
        found = _arranged(table, place.select(keys), keys, quantity.column, intervals)
        return found.astype("<f4").tobytes()

    return _DRAWN.get((run_id, name), values)


def _arranged(
    table: pa.Table, place: pa.Table, keys: list[str], column: str, intervals: int
) -> npt.NDArray[np.float32]:
    """(t, i) The column at each place; the largest where a place has several conductors."""
    frame = table.to_pandas()
    order = pd.MultiIndex.from_frame(place.to_pandas())
    at = order.get_indexer(pd.MultiIndex.from_frame(frame[keys]))
    value = frame[column].to_numpy(np.float32, na_value=-np.inf)
    found = np.full((intervals, len(order)), -np.inf, dtype=np.float32)
    np.maximum.at(found, (frame.interval.to_numpy()[at >= 0], at[at >= 0]), value[at >= 0])
    return np.where(np.isfinite(found), found, np.float32(0))
