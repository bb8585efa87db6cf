"""The report of a run, made of its results alone: Markdown, with the pictures of `benchmarks.plots`."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cases import BY_INTERVALS, BY_NODES, BY_NODES_AND_PHASE, BY_NODES_REACTIVE
from benchmarks.claims import CLAIMS, Claim, Failed, clearing, judged
from benchmarks.growth import exponent, points
from benchmarks.peers import CANNOT
from benchmarks.plots import draw_accuracy, draw_growth, draw_phases

SERIES = {
    BY_INTERVALS: ("intervals", "intervals.png"),
    BY_NODES: ("nodes", "nodes.png"),
    BY_NODES_AND_PHASE: ("nodes, by phase", "nodes_by_phase.png"),
    BY_NODES_REACTIVE: ("nodes, with reactive power free", "nodes_reactive.png"),
}
"""What each series of specs grows with, and its picture."""


def write_report(results: Mapping[str, Any], folder: Path) -> None:
    """Write ``report.md`` and its pictures into `folder`."""
    parts = [
        heading(results),
        section("Claims", claims_table(results)),
        section("Clearings", clearings_table(results), CLEARINGS_NOTE),
        section("Growth", *growth(results, folder)),
        section("Time by phase", *phases(results, folder)),
        section("Peers", peers_table(results), *(f"- **{name}**: {words}." for name, words in CANNOT.items())),
        section("Accuracy beside AC-OPF", *accuracy(results, folder)),
    ]
    (folder / "report.md").write_text("\n".join(parts), encoding="utf-8")


def publish(folder: Path, page: Path) -> None:
    """Copy the report in `folder` to a `page` of the documentation, and its pictures to a folder beside it."""
    pictures = page.parent / "pictures" / page.stem
    pictures.mkdir(parents=True, exist_ok=True)
    text = (folder / "report.md").read_text(encoding="utf-8")
    for picture in folder.glob("*.png"):
        shutil.copy(picture, pictures)
        text = text.replace(f"]({picture.name})", f"](pictures/{page.stem}/{picture.name})")
    page.write_text(text, encoding="utf-8")


CLEARINGS_NOTE = (
    "Wall and CPU are medians [s] of up to three runs after a warm one, or the only run where that takes longer than "
    "30 s, or 10 s of a peer. *outside* is the CPU share outside HiGHS and sparse factors, call by call: Python, NumPy "
    "and the quadratic programmes of PIQP, whose share is *QP*; *other phases* that of all but programmes, power flow "
    "and gradients; *floor* the CPU time of HiGHS alone, cold, on exactly the rows that bind at the outcome; *peak* "
    "the most memory of the process, or of all workers, *of it before* what imports and the case had taken. CPU of "
    "several workers is that of the phases of the last run, without the start of processes."
)


def heading(results: Mapping[str, Any]) -> str:
    """What the figures are of."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    scope = "Quick run: small specs alone" if results["quick"] else "Full run"
    parts = [
        f"{scope}, {results['took_s'] / 60:.1f} minutes, commit {machine['commit'] or 'unknown'}.",
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']};",
        f"load {machine['load_before']} before the run. Python {machine['python']}; {versions}.",
    ]
    return f"# Benchmarks\n\n{' '.join(parts)}\n"


def section(title: str, *blocks: str) -> str:
    """A section; bullets stand together."""
    text = ""
    for block in blocks:
        text += block + ("\n" if block.startswith("- ") else "\n\n")
    return f"## {title}\n\n{text.rstrip()}\n"


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; cells have no bars."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(str(cell).replace("|", "/") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def claims_table(results: Mapping[str, Any]) -> str:
    """Every claim: target, seen, met or not."""
    return table(["claim", "target", "seen", "met"], (claim_row(claim, results) for claim in CLAIMS))


def claim_row(claim: Claim, results: Mapping[str, Any]) -> list[str]:
    """A claim's row."""
    seen = judged(claim, results)
    if seen is None:
        return [claim.subject, claim.target, "not measured in this run", "-"]
    return [claim.subject, claim.target, seen.figure, "yes" if seen.holds else "**no**"]


def clearings_table(results: Mapping[str, Any]) -> str:
    """What the engine needs."""
    columns = ["case", "formulation", "nodes", "resources", "status", "passes", "LPs", "binding", "wall", "CPU"]
    columns += ["outside", "QP", "other phases", "floor", "peak [MB]", "of it before", "read"]
    return table(columns, (clearing_row(row) for row in results["clearings"]))


def clearing_row(row: Mapping[str, Any]) -> list[object]:
    """A clearing's row, or why it is not there."""
    if "skipped" in row:
        return [row["spec"], row["formulation"], "-", "-", f"skipped: {row['skipped']}", *["-"] * 12]
    return [
        *(row["spec"], row["formulation"], row["nodes"], row["resources"], row["status"], row["passes"]),
        *(row["lp_solves"], row["binding_limits"], f"{row['wall_s']:.3f}", f"{row['cpu_s']:.3f}"),
        *("-" if row[share] is None else f"{row[share]:.0%}" for share in ("outside", "quadratic", "in_other_phases")),
        "-" if row["floor_cpu_s"] is None else f"{row['floor_cpu_s']:.3f}",
        *(f"{row['peak_mb']:.0f}", f"{row['before_mb']:.0f}", f"{row['read_s']:.1f}"),
    ]


def growth(results: Mapping[str, Any], folder: Path) -> list[str]:
    """Pictures of time against size, with the exponents."""
    blocks = []
    for series, (size, picture) in SERIES.items():
        found, power = points(results, series), exponent(points(results, series))
        if power is not None:
            draw_growth(found, power, size, folder / picture)
            blocks.append(
                f"CPU time grows with the number of {size} as N^{power:.2f} over the larger half of the sizes."
            )
            blocks.append(f"![CPU time against {size}]({picture})")
    return blocks or ["Not measured in this run."]


def phases(results: Mapping[str, Any], folder: Path) -> list[str]:
    """A picture of where the CPU time goes."""
    rows = [row for row in results["clearings"] if "seconds" in row]
    if not rows:
        return ["Not measured in this run."]
    draw_phases(rows, folder / "phases.png")
    return ["![Share of CPU time by phase](phases.png)"]


def peers_table(results: Mapping[str, Any]) -> str:
    """Peers beside the engine: times side by side, and how far the prices are apart."""
    columns = ["case", "peer", "status", "wall", "CPU", "our CPU", "peer / ours", "peak [MB]", "cost", "our cost"]
    columns += ["price gap, largest", "mean"]
    return table(columns, (peer_row(row, results) for row in results["peers"]))


def peer_row(row: Mapping[str, Any], results: Mapping[str, Any]) -> list[object]:
    """A peer's row, or why it is not there."""
    try:
        ours = clearing(results, row["spec"])
    except Failed:
        ours = None
    if "skipped" in row:
        return [row["spec"], row["peer"], f"skipped: {row['skipped']}", *["-"] * 9]
    return [
        *(row["spec"], row["peer"], row["status"], f"{row['wall_s']:.3f}", f"{row['cpu_s']:.3f}"),
        f"{ours['cpu_s']:.3f}" if ours else "-",
        f"{row['cpu_s'] / ours['cpu_s']:.1f}" if ours else "-",
        f"{row['peak_mb']:.0f}",
        "-" if row["cost"] is None else f"{row['cost']:.2f}",
        f"{ours['cost']:.2f}" if ours else "-",
        *(f"{row[name]:.2g}" if name in row else "-" for name in ("price_gap_max", "price_gap_mean")),
    ]


def accuracy(results: Mapping[str, Any], folder: Path) -> list[str]:
    """How far each model is from the exact optimum, by feeder."""
    columns = ["feeder", "model", "status", "cost error", "of its dispatch in AC", "price error, largest", "mean"]
    columns += ["relative", "voltage violation [pu]", "loading [%]"]
    rows = [row for feeder in results["accuracy"] for row in accuracy_rows(feeder)]
    blocks = [table(columns, rows), ACCURACY_NOTE]
    compared = [feeder for feeder in results["accuracy"] if "rows" in feeder]
    if compared:
        draw_accuracy(compared, folder / "accuracy.png")
        blocks.append("![Largest price error by model](accuracy.png)")
    return blocks


ACCURACY_NOTE = (
    "Errors of costs are relative, of prices in $/MWh over all nodes and intervals. The violations are those of the "
    "dispatch in the power flow of pandapower or OpenDSS, which is also where its AC cost comes from. The passes of "
    "`ac_tangent` are without the Newton finish, which ends a clearing after the first as a rule; *converged* has it."
)


def accuracy_rows(feeder: Mapping[str, Any]) -> list[list[object]]:
    """Rows of a feeder, or why there are none."""
    if "rows" not in feeder:
        return [[feeder["spec"], "-", f"skipped: {feeder['skipped']}", *["-"] * 7]]
    return [accuracy_row(feeder["spec"], row) for row in feeder["rows"]]


def accuracy_row(feeder: str, row: Mapping[str, Any]) -> list[object]:
    """A model's row."""
    if "cost_error" not in row:
        return [feeder, row["model"], row["status"], *["-"] * 7]
    figures = ("cost_error", "ac_cost_error", "price_error_max", "price_error_mean", "price_error_relative")
    return [
        *(feeder, row["model"], row["status"]),
        *(f"{row[name]:.1e}" for name in figures),
        f"{row['voltage_violation_pu']:.1e}",
        f"{row['loading_percent']:.1f}",
    ]
