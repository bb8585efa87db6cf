"""Prices over the day as a chart of characters, for a terminal."""

import math
from dataclasses import dataclass

import numpy as np

from dlmp.clearing import Clearing
from dlmp.network.model import IntArray

AXIS_WIDTH = 8
MOST_COLUMN_WIDTH = 4
LABEL_WIDTH = 6
NICE_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
NICE_COUNTS = (1, 2, 3, 4, 6, 8, 12, 24, 48, 96)


@dataclass(frozen=True)
class Marks:
    """Characters of the chart."""

    spread: str
    bar: str
    dot: str
    zero: str
    axis: str


UNICODE = Marks("█", "░", "●", "┈", "│")
ASCII = Marks("#", ":", "o", ".", "|")


def price_chart(clearing: Clearing, width: int, height: int = 20, marks: Marks = UNICODE) -> str:
    """Draw the range of nodal prices and the substation price over the horizon.

    Parameters
    ----------
    clearing
        What to show.
    width, height
        Room for the chart [characters]; two more lines hold the hours and the legend.
    marks
        Characters to draw with.
    """
    price, bought = clearing.prices.published, clearing.case.substation.price_usd_per_mwh
    room = max(width - AXIS_WIDTH, 2)
    columns = np.array_split(np.arange(len(bought)), min(len(bought), room // 2))
    low = np.array([price[column].min() for column in columns])
    high = np.array([price[column].max() for column in columns])
    dots = np.array([bought[column].mean() for column in columns])
    step = _nice_step(min(0.0, low.min(), dots.min()), max(0.0, high.max(), dots.max()), height)
    levels = [np.round(values / step).astype(np.int64) for values in (low, high, dots)]
    column_width = min(MOST_COLUMN_WIDTH, room // len(columns))
    lines = _rows(levels, step, column_width, marks)
    lines.append(" " * AXIS_WIDTH + _hours(clearing, columns, column_width, room))
    unit = f"{clearing.case.horizon.currency}/MWh"
    lines.append(
        f"{unit:>{AXIS_WIDTH - 1}}  {marks.spread} lowest to highest nodal price   {marks.dot} substation price"
    )
    return "\n".join(lines)


def _nice_step(low: float, high: float, height: int) -> float:
    """Least round price difference per row with which `low` to `high` takes at most `height` rows."""
    least = max(high - low, 1e-3) / max(height - 2, 1)
    magnitude = 10.0 ** math.floor(math.log10(least))
    return next(nice * magnitude for nice in NICE_STEPS if nice * magnitude >= least * (1 - 1e-9))


def _rows(levels: list[IntArray], step: float, column_width: int, marks: Marks) -> list[str]:
    """Lines from the highest level down, each with its price every other time."""
    low, high, dots = levels
    lines = []
    for level in range(max(0, high.max(), dots.max()), min(0, low.min(), dots.min()) - 1, -1):
        blank = marks.zero if level == 0 else " "
        label = f"{level * step:g}" if level % 2 == 0 else ""
        cells = [
            _bar(level, below, above, marks, blank) + (marks.dot if level == dot else blank)
            for below, above, dot in zip(low, high, dots, strict=True)
        ]
        row = "".join(cell.ljust(column_width, blank) for cell in cells)
        lines.append(f"{label:>{AXIS_WIDTH - 2}} {marks.axis}{row}".rstrip())
    return lines


def _bar(level: int, low: int, high: int, marks: Marks, blank: str) -> str:
    """Character at a level of a bar that stands on zero and ends in the range from `low` to `high`."""
    if low <= level <= high:
        return marks.spread
    return marks.bar if 0 < level < low or high < level < 0 else blank


def _hours(clearing: Clearing, columns: list[IntArray], column_width: int, room: int) -> str:
    """Time of every so many columns, under its column, as far as there is room."""
    every = next((count for count in NICE_COUNTS if count * column_width >= LABEL_WIDTH), NICE_COUNTS[-1])
    horizon = clearing.case.horizon
    fitting = columns[: (room - len("00:00")) // column_width + 1]
    times = [f"{horizon.local(int(column[0])):%H:%M}" for column in fitting[::every]]
    return "".join(time.ljust(every * column_width) for time in times).rstrip()
