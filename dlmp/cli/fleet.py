"""Many cases on the command line: ``dlmp fleet``."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from dlmp.clearing import CONVERGED
from dlmp.cli.options import (
    CertificateOption,
    FormulationOption,
    HardOption,
    LossesOption,
    MaxPassesOption,
    ParquetOption,
    QuietOption,
    TapsOption,
    settings_of,
)
from dlmp.cli.terminal import new_app, print_rows, stderr
from dlmp.fleet import FeederResult, Progress, clear_fleet
from dlmp.fleet.results import STATUSES, TABLE
from dlmp.settings import Settings

SOME_FAILED_CODE = 6
STOPPED_CODE = 128 + signal.SIGINT

app = new_app()


@app.command("fleet")
def fleet_command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of case folders, at any depth.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the results, one folder per feeder.")],
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Feeders cleared at a time; left out: one per processor.")
    ] = None,
    time_limit: Annotated[
        float | None, typer.Option("--time-limit", metavar="SECONDS", help="Longest time for a feeder.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Clear feeders anew whose results hold.")] = False,
    ray: Annotated[
        str | None,
        typer.Option("--ray", metavar="ADDRESS", help="A Ray cluster that clears them; it must share these folders."),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(metavar="K", help="Feeders sent to a worker at a time; left out: what suits.")
    ] = None,
    formulation: FormulationOption = Settings.formulation,
    losses: LossesOption = Settings.losses,
    hard: HardOption = False,
    max_passes: MaxPassesOption = Settings.max_passes,
    parquet: ParquetOption = False,
    certificate: CertificateOption = True,
    taps: TapsOption = False,
    quiet: QuietOption = False,
) -> None:
    """Clear many feeders at once; run again, it clears those that are new, have changed or have failed."""
    began = time.perf_counter()
    try:
        with _stopped_by_signals(), _shown(quiet) as show:
            table = clear_fleet(
                folder,
                out,
                settings=settings_of(formulation, losses, hard, max_passes),
                with_taps=taps,
                with_certificate=certificate,
                parquet=parquet,
                workers=workers,
                ray=ray,
                batch_size=batch,
                time_limit_s=time_limit,
                again=again,
                progress=show,
            )
    except KeyboardInterrupt:
        typer.echo(f"dlmp: stopped; what is in {out} is whole. The same command goes on from there", err=True)
        raise typer.Exit(STOPPED_CODE) from None
    if not quiet:
        print_rows(_totals(table, out, time.perf_counter() - began))
    if failed := int((table.status != CONVERGED).sum()):
        typer.echo(f"dlmp: {failed} of {len(table)} feeders did not converge; {out / TABLE} says why", err=True)
        raise typer.Exit(SOME_FAILED_CODE)


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Let SIGTERM stop the block as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _shown(quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Show how far the fleet is: a bar on a terminal, and what has failed; elsewhere a line for each feeder."""
    console = stderr()
    if quiet:
        yield lambda progress: None
    elif not console.is_terminal:
        yield lambda progress: console.print(_line(progress), soft_wrap=True)
    else:
        columns = (
            TextColumn("clearing"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        with Bar(*columns, console=console) as bar:
            task = bar.add_task("", total=None)

            def show(progress: Progress) -> None:
                bar.update(task, completed=progress.cleared, total=progress.feeders - progress.kept)
                if progress.latest is None or progress.latest.status != CONVERGED:
                    bar.console.print(_line(progress), soft_wrap=True)

            yield show


def _line(progress: Progress) -> Text:
    if progress.latest is None:
        kept = f", {progress.kept} of which have results that hold" if progress.kept else ""
        return Text(f"{progress.feeders} feeders{kept}")
    done = f"{progress.kept + progress.cleared:>{len(str(progress.feeders))}}/{progress.feeders}"
    return Text(f"{done}  {_told(progress.latest)}")


def _told(result: FeederResult) -> str:
    seconds = "" if result.wall_seconds is None else f", {result.wall_seconds:.1f} s"
    reason = f": {result.reason}" if result.reason else ""
    return f"{result.feeder}  {result.status.replace('_', ' ')}{seconds}{reason}"


def _totals(table: pd.DataFrame, out: Path, wall_seconds: float) -> list[tuple[str, str]]:
    counts = table.status.value_counts()
    found = ", ".join(f"{counts[status]:,} {status.replace('_', ' ')}" for status in STATUSES if status in counts)
    costs = table[table.currency != ""].groupby("currency").objective.sum()
    return [
        ("feeders", f"{len(table):,}: {found}"),
        ("total cost", ", ".join(f"{cost:,.2f} {currency}" for currency, cost in costs.items()) or "none"),
        ("time", f"{wall_seconds:.1f} s; the feeders took {table.cpu_seconds.sum():.1f} CPU seconds"),
        ("results", str(out)),
    ]
