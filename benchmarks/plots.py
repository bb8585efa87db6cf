"""The pictures of the report, in matplotlib."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")  # before pyplot: no screen is needed

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from dlmp.timing import PHASES

LEAST_USD_PER_MWH = 1e-10
"""An error that is smaller is drawn as this."""
DOTS_PER_INCH = 130


def draw_growth(found: Sequence[tuple[float, float]], power: float, size: str, file: Path) -> None:
    """CPU seconds against size, both logarithmic, with the fitted line."""
    figure, axes = plt.subplots(figsize=(6, 4))
    sizes, seconds = np.array(found).T
    axes.loglog(sizes, seconds, "o-", label="measured")
    line = seconds[-1] * (sizes / sizes[-1]) ** power
    axes.loglog(sizes, line, "--", color="grey", label=f"N^{power:.2f}")
    axes.set(xlabel=size, ylabel="CPU seconds")
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    _save(figure, file)


def draw_phases(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Shares of the CPU time by phase, one bar for each clearing."""
    figure, axes = plt.subplots(figsize=(8, 0.9 + 0.3 * len(rows)))
    names = [row["spec"] for row in rows]
    left = np.zeros(len(rows))
    for phase in PHASES:
        share = np.array([row["seconds"][phase] / sum(row["seconds"].values()) for row in rows])
        axes.barh(names, share, left=left, label=phase.replace("_", " "))
        left += share
    axes.set(xlabel="share of CPU time", xlim=(0, 1))
    axes.invert_yaxis()
    axes.legend(ncols=len(PHASES), loc="lower center", bbox_to_anchor=(0.4, 1.0), fontsize="small")
    _save(figure, file)


def draw_accuracy(feeders: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Largest price error of each model, logarithmic, one line for each feeder."""
    figure, axes = plt.subplots(figsize=(8, 4.5))
    for feeder in feeders:
        rows = [row for row in feeder["rows"] if "price_error_max" in row]
        errors = [max(row["price_error_max"], LEAST_USD_PER_MWH) for row in rows]
        axes.semilogy([row["model"].replace(", ", "\n") for row in rows], errors, "o-", label=feeder["spec"])
    axes.set(ylabel="largest price error [$/MWh]")
    axes.tick_params(axis="x", labelsize="small")
    axes.grid(True, axis="y", alpha=0.3)
    axes.legend()
    _save(figure, file)


def _save(figure: Figure, file: Path) -> None:
    figure.savefig(file, dpi=DOTS_PER_INCH, bbox_inches="tight")
    plt.close(figure)
