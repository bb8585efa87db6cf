"""What the project says of its speed and accuracy, each claim with its target, what was seen, and whether it holds.

A claim that a run did not measure is told as such, and one that fails as well.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.cases import BY_INTERVALS, BY_NODES, BY_NODES_AND_PHASE, BY_NODES_REACTIVE
from benchmarks.growth import exponent, points

Results = Mapping[str, Any]


@dataclass(frozen=True)
class Seen:
    """What was seen of a claim: the figure in words, and whether it meets the target."""

    figure: str
    holds: bool


@dataclass(frozen=True)
class Claim:
    """A claim: what of, the target in words, and what a run's results say; None where they say nothing."""

    subject: str
    target: str
    seen: Callable[[Results], Seen | None]


class Failed(Exception):  # noqa: N818 - a result as any other
    """What became of a measurement that came to nothing."""


def clearing(results: Results, spec: str) -> Mapping[str, Any] | None:
    """The engine's figures of `spec`; None where it was not measured.

    Raises
    ------
    Failed
        Where it came to nothing.
    """
    return _figures(row for row in results["clearings"] if row["spec"] == spec)


def peer(results: Results, spec: str, name: str) -> Mapping[str, Any] | None:
    """A peer's figures of `spec`, as `clearing`."""
    return _figures(row for row in results["peers"] if (row["spec"], row["peer"]) == (spec, name))


def _figures(rows: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    row = next(iter(rows), {"skipped": "not measured"})
    if row.get("failed"):
        raise Failed(row["skipped"])
    return None if "skipped" in row else row


def judged(claim: Claim, results: Results) -> Seen | None:
    """What is seen of a claim; one whose measurement came to nothing does not hold."""
    try:
        return claim.seen(results)
    except Failed as reason:
        return Seen(str(reason), holds=False)


def quick_enough(spec: str, seconds: float, memory_gb: float | None = None) -> Claim:
    """A spec converges within so many wall seconds, and so much memory."""

    def seen(results: Results) -> Seen | None:
        row = clearing(results, spec)
        if row is None:
            return None
        figure = f"{row['wall_s']:.3g} s" + (f", {row['peak_mb'] / 1024:.2g} GB" if memory_gb else "")
        holds = row["wall_s"] < seconds and (memory_gb is None or row["peak_mb"] / 1024 < memory_gb)
        return Seen(figure + _unless_converged(row), holds and row["status"] == "converged")

    return Claim(spec, f"under {seconds:g} s" + (f" and {memory_gb:g} GB" if memory_gb else ""), seen)


def _unless_converged(row: Mapping[str, Any]) -> str:
    return "" if row["status"] == "converged" else f", {row['status']}"


def grows_slowly(subject: str, series: str, most: float) -> Claim:
    """CPU time grows no faster than the size to a power."""

    def seen(results: Results) -> Seen | None:
        found = points(results, series)
        power = exponent(found)
        if power is None:
            return None
        return Seen(f"N^{power:.2f} up to {found[-1][0]:,.0f}", power <= most)

    return Claim(f"growth of CPU time with {subject}", f"no worse than N^{most:g}", seen)


def cheaper_than_whole(spec: str, ratio: float) -> Claim:
    """The whole LP needs so many times the CPU seconds, and has the same prices."""

    def seen(results: Results) -> Seen | None:
        ours, theirs = clearing(results, spec), peer(results, spec, "LP")
        if ours is None or theirs is None or "price_gap_max" not in theirs:
            return None
        times, gap = theirs["cpu_s"] / ours["cpu_s"], theirs["price_gap_max"]
        return Seen(f"{times:.0f} times, prices within {gap:.1g} $/MWh", times >= ratio and gap < SAME_USD_PER_MWH)

    return Claim(f"whole LP of {spec}", f"at least {ratio:g} times our CPU, same prices", seen)


SAME_USD_PER_MWH = 1e-3
"""Prices of two programs that differ by less are the same [currency/MWh]."""


def near_the_floor(spec: str, ratio: float) -> Claim:
    """A clearing needs at most so many times the CPU of HiGHS on exactly the binding rows."""

    def seen(results: Results) -> Seen | None:
        row = clearing(results, spec)
        if row is None or not row["floor_cpu_s"]:
            return None
        times = row["cpu_s"] / row["floor_cpu_s"]
        return Seen(f"{times:.1f} times ({row['cpu_s']:.3g} s over {row['floor_cpu_s']:.3g} s)", times <= ratio)

    return Claim(f"{spec}, total over HiGHS on the binding rows", f"at most {ratio:g} times", seen)


def little_outside(spec: str, share: float) -> Claim:
    """Less than a share of the CPU time is spent outside HiGHS and the sparse solves, call by call."""

    def seen(results: Results) -> Seen | None:
        row = clearing(results, spec)
        if row is None:
            return None
        figure = f"{row['outside']:.0%}, with {100 * row['quadratic']:.0f} points of PIQP"
        figure += f"; in phases that solve nothing {row['in_other_phases']:.0%}"
        return Seen(figure, row["outside"] < share)

    return Claim(f"{spec}, CPU outside HiGHS and sparse solves", f"under {share:.0%}", seen)


def changed_bid(spec: str, where: str, key: str, seconds: float) -> Claim:
    """Clearing again after one bid has changed is quick."""

    def seen(results: Results) -> Seen | None:
        row = clearing(results, spec)
        if row is None or row[key] is None:
            return None
        return Seen(f"{1000 * row[key]:.0f} ms", row[key] < seconds)

    return Claim(f"{spec}, again after one bid changed in {where}", f"under {1000 * seconds:g} ms", seen)


def quick_import(what: str, subject: str, seconds: float) -> Claim:
    """Python has imported the engine quickly."""

    def seen(results: Results) -> Seen:
        took = results["import_s"][what]
        return Seen(f"{took:.2f} s", took < seconds)

    return Claim(subject, f"under {seconds:g} s", seen)


def quicker_fleet(feeders: int, ratio: float) -> Claim:
    """Two workers clear a fleet so many times sooner than one, and to the same results."""

    def seen(results: Results) -> Seen | None:
        row = _figures([results["fleet"]])
        if row is None or row["feeders"] < feeders:
            return None
        times = row["one_worker_s"] / row["two_workers_s"]
        figure = f"{times:.2f} times ({row['one_worker_s']:.0f} s and {row['two_workers_s']:.0f} s"
        figure += f", {row['nodes']:,} nodes), {row['converged']} converged"
        return Seen(figure, times >= ratio and row["is_same"] and row["converged"] == row["feeders"])

    return Claim(f"{feeders} feeders x 24 by two workers", f"at least {ratio:g} times sooner than by one", seen)


def exact_prices(relative: float) -> Claim:
    """Prices are those of the AC optimal power flow wherever it was solved and they are unique."""

    def seen(results: Results) -> Seen | None:
        rows = [row["rows"][-1] for row in results["accuracy"] if "rows" in row]
        if not rows:
            return None
        worst = max(row.get("price_error_relative_unique", float("inf")) for row in rows)
        several = sum(row.get("intervals_not_unique", 0) for row in rows)
        figure = f"{worst:.1g} on {len(rows)} feeders" + (f", {several} intervals without one price" if several else "")
        return Seen(figure, worst < relative)

    return Claim("prices beside AC-OPF, converged", f"within {relative:g} relative", seen)


LARGE = (
    *("9,500 nodes x 24", "MVLV rural x 24, real alone", "MVLV rural x 96, real alone", "synthetic 50,000 x 24"),
    "synthetic 8,500 x 24, linear losses",
)
"""Specs of 5,000 nodes and 24 intervals and more."""

CLAIMS = (
    quick_enough("33 buses x 1", 0.05),
    quick_import("import", "`import dlmp`", 1.0),
    quick_import("clear", "`import dlmp`, until `dlmp.clear` is there, which is loaded when it is asked", 1.0),
    changed_bid("IEEE 123 x 24", "one interval", "changed_wall_s", 0.05),
    changed_bid("IEEE 123 x 24", "all intervals", "changed_day_wall_s", 0.05),
    quick_enough("MVLV rural x 1", 1.0),
    quick_enough("MVLV rural x 1, real alone", 1.0),
    quick_enough("MVLV rural x 96, 2 workers", 30.0, 3.0),
    quick_enough("MVLV rural x 96, real alone, 2 workers", 30.0, 3.0),
    quick_enough("synthetic 50,000 x 24, 2 workers", 120.0, 6.0),
    quick_enough("9,500 nodes x 1", 2.0),
    quick_enough("9,500 nodes x 24, 2 workers", 12.0),
    quick_enough("9,500 nodes x 96, 2 workers", 45.0),
    quick_enough("IEEE 123 x 96, 60 stores, capacity", 20.0),
    grows_slowly("intervals", BY_INTERVALS, 1.2),
    grows_slowly("nodes", BY_NODES, 1.2),
    grows_slowly("nodes by phase", BY_NODES_AND_PHASE, 1.2),
    grows_slowly("nodes, reactive power free", BY_NODES_REACTIVE, 1.2),
    cheaper_than_whole("synthetic 8,500 x 24, linear losses", 50.0),
    *(near_the_floor(spec, 5.0) for spec in LARGE),
    *(little_outside(spec, 0.3) for spec in LARGE),
    quicker_fleet(200, 1.7),
    exact_prices(1e-5),
)
"""In the order of the report."""
