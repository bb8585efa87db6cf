"""Load shapes: factors on the elements of a network over the day or the year.

Value k of a shape holds from ``k`` to ``k + 1`` of its steps after midnight, or after the new year where
it is longer than a day, on the wall clock of the market; a shape repeats itself when it ends.  An interval gets
the mean over its time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

DAY_HOURS = 24.0


class Intervals(Protocol):
    """What a profile needs of a `dlmp.market.Horizon`; networks stand below markets."""

    @property
    def starts(self) -> Sequence[datetime]:
        """Start of every interval, UTC."""

    @property
    def interval_minutes(self) -> int:
        """Length of an interval [min]."""

    @property
    def timezone(self) -> str:
        """IANA time zone of the market."""


@dataclass(frozen=True, eq=False)
class Shape:
    """Factors on real and on reactive power, one per step of `step_hours` [h]."""

    step_hours: float
    of_p: npt.NDArray[np.float64]
    of_q: npt.NDArray[np.float64]

    def factors(self, horizon: Intervals) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Factors (t,) on real and on reactive power over `horizon`."""
        steps = [self._steps(start, horizon) for start in horizon.starts]
        return (
            np.array([self.of_p[step] @ part for step, part in steps]),
            np.array([self.of_q[step] @ part for step, part in steps]),
        )

    def _steps(self, start: datetime, horizon: Intervals) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Steps that an interval touches, and the part of its time that it spends in each."""
        local = start.astimezone(ZoneInfo(horizon.timezone)).replace(tzinfo=None)
        is_longer = len(self.of_p) * self.step_hours > DAY_HOURS + self.step_hours / 2
        origin = datetime(local.year, 1, 1) if is_longer else datetime(local.year, local.month, local.day)
        first = (local - origin) / timedelta(hours=1) / self.step_hours
        last = first + horizon.interval_minutes / 60 / self.step_hours
        begin = int(np.floor(first + 1e-9))
        step = np.arange(begin, max(begin + 1, int(np.ceil(last - 1e-9))), dtype=np.int64)
        inside = np.minimum(step + 1, last) - np.maximum(step, first)
        return step % len(self.of_p), inside / inside.sum()


@dataclass(frozen=True, eq=False)
class ElementProfiles:
    """Shapes, and which of them each element follows.

    Parameters
    ----------
    shapes
        The shapes.
    element_shape
        (e,) Index of each element's shape; -1 for an element that does not change.
    """

    shapes: tuple[Shape, ...]
    element_shape: npt.NDArray[np.int64]

    def factors(self, horizon: Intervals) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Factors (t, e) on the real and on the reactive power of every element."""
        of_p, of_q = (np.ones((len(horizon.starts), len(self.element_shape))) for _ in range(2))
        for index, shape in enumerate(self.shapes):
            own = self.element_shape == index
            of_p[:, own], of_q[:, own] = (factor[:, None] for factor in shape.factors(horizon))
        return of_p, of_q
