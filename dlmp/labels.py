"""Text on a one-line diagram: each label beside its place, where nothing else stands."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from dlmp.network.model import FloatArray
from dlmp.oneline import Diagram

FONT_POINTS = 7.5
CLEAR_POINTS = 2.5
"""Between a label and the mark of its place."""
STANDOFF_POINTS = (0.0, 14.0, 28.0, 42.0)
"""How far a label that is needed may stand off; it then has a leader."""
SIDES = ((0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1), (1, 0), (-1, 0))


@dataclass(frozen=True)
class Label:
    """Text that belongs to a place.

    Parameters
    ----------
    at
        The place, in data coordinates.
    text
        What to write; may have several lines.
    radius_points
        Radius of the mark that stands there [points].
    is_needed
        False for text that is left out where it does not fit.
    colour
        Of the text.
    """

    at: tuple[float, float]
    text: str
    radius_points: float
    is_needed: bool = True
    colour: str = "0.15"


def write_labels(ax: Axes, labels: list[Label], drawing: Diagram, radius_points: float) -> None:
    """Write `labels` onto `drawing`, whose nodes have the given radius; the first have the first choice."""
    figure = ax.figure.canvas.figure
    figure.draw_without_rendering()
    points = 72 / figure.dpi
    frame = ax.get_window_extent()
    low, high = np.array([frame.x0, frame.y0]) * points, np.array([frame.x1, frame.y1]) * points
    taken = _obstacles(ax, drawing, radius_points, points)
    for label in labels:
        lines = label.text.split("\n")
        half = np.array([0.3 * max(map(len, lines)), 0.6 * len(lines)]) * FONT_POINTS
        place = np.asarray(ax.transData.transform(label.at)) * points
        for offset, standoff in _offsets(half + label.radius_points + CLEAR_POINTS, label.is_needed):
            left_bottom, right_top = place + offset - half, place + offset + half
            is_inside = (left_bottom >= low).all() and (right_top <= high).all()
            overlaps = (left_bottom < taken[:, 2:]) & (taken[:, :2] < right_top)
            if is_inside and not overlaps.all(axis=1).any():
                taken = np.vstack([taken, np.concatenate([left_bottom, right_top])])
                _write(ax, label, offset, has_leader=standoff > 0)
                break


def _obstacles(ax: Axes, drawing: Diagram, radius_points: float, points: float) -> FloatArray:
    """Boxes of branches and nodes, (i, 4) as left, bottom, right and top [points]; `points` per pixel."""
    parts = [path[[start, start + 1]] for path in drawing.paths for start in range(len(path) - 1)]
    ends = (ax.transData.transform(np.reshape(parts, (-1, 2))) * points).reshape(-1, 2, 2)
    lines = np.column_stack([ends.min(axis=1) - 1, ends.max(axis=1) + 1])
    centre = ax.transData.transform(drawing.xy) * points
    return np.vstack([lines, np.column_stack([centre - radius_points, centre + radius_points])])


def _offsets(away: FloatArray, is_needed: bool) -> Iterator[tuple[FloatArray, float]]:
    """Above, below, at the corners and beside, `away` from the place; then, if needed, farther out."""
    for standoff in STANDOFF_POINTS if is_needed else STANDOFF_POINTS[:1]:
        for side in SIDES:
            yield np.array(side) * (away + standoff), standoff


def _write(ax: Axes, label: Label, offset: FloatArray, has_leader: bool) -> None:
    text = ax.annotate(
        label.text,
        label.at,
        (float(offset[0]), float(offset[1])),
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=FONT_POINTS,
        color=label.colour,
        arrowprops={"arrowstyle": "-", "color": label.colour, "linewidth": 0.6} if has_leader else None,
        path_effects=[withStroke(linewidth=2, foreground="white")],
        zorder=5,
        parse_math=False,
    )
    text.set_in_layout(False)
