"""Cases on the command line: ``dlmp clear``, ``roll``, ``network``, ``story``, ``demo`` and ``cases``."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from dlmp.casefolder import read_case
from dlmp.chart import ASCII, UNICODE, price_chart
from dlmp.clearing import CONVERGED, Clearing, clear
from dlmp.cli.options import (
    CertificateOption,
    FormulationOption,
    HardOption,
    LossesOption,
    MaxPassesOption,
    ParquetOption,
    QuietOption,
    TapsOption,
    WorkersOption,
    settings_of,
)
from dlmp.cli.terminal import new_app, print_rows, progress, stdout
from dlmp.dispatch import PassReport
from dlmp.errors import Problems
from dlmp.market import MarketCase
from dlmp.network.model import BALANCED_PHASE
from dlmp.output import DAY_FILES, RESULT_FILES, check_folder, write_day, write_files, write_results
from dlmp.plot import feeder, price_stack
from dlmp.report import case_rows, clearing_rows, day_rows, limits_table, power_flow_rows, price_table, tap_rows
from dlmp.rolling import RollingDay, reclear
from dlmp.settings import Settings
from dlmp.shipped import shipped_case, shipped_cases
from dlmp.story import PAGE, STORY_FILES, page_of, story_rows, tell_story, writers
from dlmp.taps import TapClearing, clear_with_taps
from dlmp.units import KW_PER_MW

NOT_CONVERGED_CODE = 4
DEMO_CASE = "day33"
DEMO_FILES = ("feeder.png", "price.png")

app = new_app()

CaseArgument = Annotated[
    Path, typer.Argument(metavar="CASE", help="Folder of a market case, or the name of a shipped one.")
]


@app.command("clear")
def clear_command(
    case: CaseArgument,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the results.")],
    formulation: FormulationOption = Settings.formulation,
    losses: LossesOption = Settings.losses,
    hard: HardOption = False,
    max_passes: MaxPassesOption = Settings.max_passes,
    parquet: ParquetOption = False,
    certificate: CertificateOption = True,
    taps: TapsOption = False,
    workers: WorkersOption = 1,
    quiet: QuietOption = False,
) -> None:
    """Clear a case into prices, awards, flows and voltages."""
    began = time.perf_counter()
    settings = settings_of(formulation, losses, hard, max_passes)
    check_folder(out, RESULT_FILES)
    clearing, settling = _clear(case, settings, certificate, quiet, with_taps=taps, workers=workers)
    wall_seconds = time.perf_counter() - began
    write_results(
        clearing,
        out,
        parquet=parquet,
        with_certificate=certificate,
        settling=settling,
        wall_seconds=wall_seconds,
    )
    if not quiet:
        rows = clearing_rows(clearing, clearing.certificate if certificate else None, wall_seconds)
        print_rows([*rows, *(tap_rows(settling) if settling else []), ("results", str(out))])
    _exit_unless_converged(clearing)


@app.command("roll")
def roll_command(
    case: CaseArgument,
    step: Annotated[
        list[str],
        typer.Argument(metavar="INTERVAL=CASE...", help="Interval to clear again from, and the day as then forecast."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the results.")],
    quiet: QuietOption = False,
) -> None:
    """Clear a day, then its rest again and again as forecasts change; what has begun is binding."""
    began = time.perf_counter()
    check_folder(out, DAY_FILES)
    forecasts = _forecasts(step)
    with progress(quiet) as show:
        show("clearing the day")
        cleared = clear(_read(case))
        _exit_unless_converged(cleared)
        day = RollingDay.begin(cleared)
        for first_interval, forecast in forecasts:
            show(f"clearing from interval {first_interval}")
            day = reclear(day, _read(forecast), first_interval)
            _exit_unless_converged(day.clearing)
    wall_seconds = time.perf_counter() - began
    write_day(day, out, wall_seconds=wall_seconds)
    if not quiet:
        print_rows([*day_rows(day, wall_seconds), ("results", str(out))])


def _forecasts(steps: list[str]) -> list[tuple[int, Path]]:
    """First interval and case of each step, from ``INTERVAL=CASE``."""
    problems, forecasts = Problems(), []
    for text in steps:
        interval, is_step, folder = text.partition("=")
        if not (is_step and folder and interval.strip().isdecimal()):
            problems.add("roll", "INTERVAL=CASE", text, "must be an interval and a case folder, such as 6=noon")
            continue
        forecasts.append((int(interval), Path(folder)))
    problems.raise_if_any()
    return forecasts


@app.command("network")
def network_command(case: CaseArgument) -> None:
    """Describe a feeder and its AC power flow without bids."""
    market_case = _read(case)
    print_rows(case_rows(market_case))
    print_rows(power_flow_rows(market_case))


@app.command("story")
def story_command(
    case: CaseArgument,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the page, its tables and pictures.")],
    more_mw: Annotated[float, typer.Option("--more-mw", metavar="MW", help="Load that the third run adds.")] = 5.0,
    also: Annotated[
        list[Path] | None, typer.Option("--also", metavar="CASE", help="Another day, told without and with dispatch.")
    ] = None,
    largest: Annotated[
        bool, typer.Option("--largest", help="Look for the largest load with dispatch too, which takes minutes.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Tell what dispatch is worth: a day without it, with it, and with more load."""
    began = time.perf_counter()
    check_folder(out, STORY_FILES)
    with progress(quiet) as show:
        show("reading the cases")
        days = [_read(name) for name in (case, *(also or ()))]
        story = tell_story(days[0], more_mw * KW_PER_MW, days[1:], show, with_largest=largest)
        for run in story.runs:
            _exit_unless_converged(run.clearing)
        show("settling and drawing")
        write_files(out, writers(story, page_of(story)), STORY_FILES)
    if not quiet:
        print_rows([*story_rows(story, time.perf_counter() - began), ("results", str(out / PAGE))])


@app.command("cases")
def cases_command() -> None:
    """List the cases that ship with dlmp."""
    rows = [("name", "buses", "intervals", "case")]
    for name in shipped_cases():
        case = read_case(shipped_case(name))
        rows.append((name, str(len(set(case.network.bus))), str(case.horizon.intervals), case.name))
    width = max(len(name) for name, *_ in rows)
    for name, buses, intervals, title in rows:
        typer.echo(f"{name:<{width}}  {buses:>5}  {intervals:>9}  {title}")


@app.command("demo")
def demo_command(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the pictures.")] = Path("dlmp-demo"),
) -> None:
    """Clear the shipped day; show and draw its prices."""
    began = time.perf_counter()
    check_folder(out, DEMO_FILES)
    clearing, _ = _clear(shipped_case(DEMO_CASE), Settings(), with_certificate=True, quiet=False)
    console = stdout()
    console.print(price_table(clearing))
    console.print(limits_table(clearing) if len(clearing.binding_limits()) else "No network limit binds.\n")
    console.print(_chart(clearing, console))
    console.print()
    _draw(clearing, out)
    rows = clearing_rows(clearing, clearing.certificate, time.perf_counter() - began)
    print_rows([*rows, ("pictures", ", ".join(str(out / name) for name in DEMO_FILES))])
    _exit_unless_converged(clearing)


def _read(case: Path) -> MarketCase:
    is_name = not case.exists() and str(case) in shipped_cases()
    return read_case(shipped_case(str(case)) if is_name else case)


def _clear(
    case: Path, settings: Settings, with_certificate: bool, quiet: bool, *, with_taps: bool = False, workers: int = 1
) -> tuple[Clearing, TapClearing | None]:
    with progress(quiet) as show:
        show("reading the case")
        market_case = _read(case)
        show("clearing")

        def show_pass(report: PassReport) -> None:
            show(_pass_text(report))

        settling = clear_with_taps(market_case, settings, show_pass, workers=workers) if with_taps else None
        clearing = settling.clearing if settling else clear(market_case, settings, show_pass, workers=workers)
        if with_certificate:
            show("checking the result")
            _ = clearing.certificate
    return clearing, settling


def _pass_text(report: PassReport) -> str:
    return f"clearing: pass {report.number}, step {report.step_pu:.1e} pu, violation {report.violation_pu:.1e} pu"


def _chart(clearing: Clearing, console: Console) -> Text:
    marks = ASCII if console.options.ascii_only else UNICODE
    text = Text(price_chart(clearing, console.width, marks=marks), no_wrap=True)
    text.highlight_regex(UNICODE.bar, "cyan")
    text.highlight_regex(UNICODE.dot, "yellow")
    return text


def _draw(clearing: Clearing, out: Path) -> None:
    """Write the feeder at its interval of most different prices, and the price of the dearest bus there."""
    price = clearing.prices.published
    interval = int((price.max(axis=1) - price.min(axis=1)).argmax())
    network, dearest = clearing.case.network, clearing.prices.ports[price[interval].argmax()]
    bus, phase = str(network.port_bus[dearest]), str(network.port_phase[dearest])
    stack = price_stack(clearing, bus, phase=None if phase == BALANCED_PHASE else phase)
    figures = [axes.figure.canvas.figure for axes in (feeder(clearing, interval), stack)]
    write_files(out, {name: figure.savefig for name, figure in zip(DEMO_FILES, figures, strict=True)}, DEMO_FILES)


def _exit_unless_converged(clearing: Clearing) -> None:
    if clearing.status != CONVERGED:
        last = clearing.passes[-1]
        residuals = f"violation {last.violation_pu:.3g} pu, step {last.step_pu:.3g} pu"
        typer.echo(f"dlmp: not converged in pass {last.number}: {residuals}", err=True)
        raise typer.Exit(NOT_CONVERGED_CODE)
