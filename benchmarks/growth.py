"""How time grows with size: a straight line through the logarithms, whose slope is the exponent."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.cases import BY_INTERVALS

FEWEST = 3
"""Fewest points of a line."""


def points(results: Mapping[str, Any], series: str) -> list[tuple[float, float]]:
    """Size and CPU seconds of every clearing of `series`, ascending."""
    size = "intervals" if series == BY_INTERVALS else "nodes"
    rows = (row for row in results["clearings"] if row["series"] == series and "cpu_s" in row)
    return sorted((float(row[size]), float(row["cpu_s"])) for row in rows)


def exponent(found: Sequence[tuple[float, float]]) -> float | None:
    """The power of the size with which time grows, over the larger half of the sizes, where fixed costs are small.

    None for fewer than `FEWEST` points.
    """
    if len(found) < FEWEST:
        return None
    size, seconds = np.log(np.array(found[-max(FEWEST, (len(found) + 1) // 2) :])).T
    return float(np.polyfit(size, seconds, 1)[0])
