"""Bounds and costs of a product's variables over the horizon."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dlmp.network.model import FloatArray


@dataclass(frozen=True, eq=False)
class Columns:
    """Bounds of one indexed variable x over the horizon, and its cost ``cost x + slope x^2 / 2``, each (t, i).

    The slope is not negative; default: zero.
    """

    lower: FloatArray
    upper: FloatArray
    cost: FloatArray
    slope: FloatArray = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        if not self.slope.size:
            object.__setattr__(self, "slope", np.zeros(self.cost.shape))

    def marginal_cost(self, x: FloatArray) -> FloatArray:
        """(t i,) Cost of one more unit of every column at `x` (t i,)."""
        return self.cost.ravel() + self.slope.ravel() * x

    def total_cost(self, x: FloatArray) -> float:
        """Cost of `x` (t i,)."""
        return float((self.cost.ravel() + self.slope.ravel() * x / 2) @ x)


def bounds_of(columns: Columns) -> Callable[[Any, int, int], tuple[float | None, float | None]]:
    """Pyomo's rule for the bounds of a variable by (interval, item); None is no bound."""

    def finite(bound: float) -> float | None:
        return bound if np.isfinite(bound) else None

    return lambda model, t, i: (finite(float(columns.lower[t, i])), finite(float(columns.upper[t, i])))
