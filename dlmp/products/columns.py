"""Bounds and costs of a product's variables over the horizon."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dlmp.network.model import FloatArray


@dataclass(frozen=True, eq=False)
class Columns:
    """Bounds and cost of one indexed variable over the horizon, each (t, i)."""

    lower: FloatArray
    upper: FloatArray
    cost: FloatArray


def bounds_of(columns: Columns) -> Callable[[Any, int, int], tuple[float | None, float | None]]:
    """Pyomo's rule for the bounds of a variable by (interval, item); None is no bound."""

    def finite(bound: float) -> float | None:
        return bound if np.isfinite(bound) else None

    return lambda model, t, i: (finite(float(columns.lower[t, i])), finite(float(columns.upper[t, i])))
