"""``dlmp simulate``: a market day on one machine, as a newcomer's first look at the service."""

import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from dlmp.cli.markettables import award_summary, participant_summary, price_summary, stage_table
from dlmp.cli.options import QuietOption
from dlmp.cli.terminal import new_app, print_rows, progress, stdout
from dlmp.errors import InputError, Problem
from dlmp.simulation import KEY_FILE, Day, Stage, own_service, simulate_day

app = new_app()


@app.command("simulate")
def simulate_command(
    feeder: Annotated[str, typer.Option(metavar="NAME", help="A shipped case, as `dlmp cases` lists them.")] = "day33",
    aggregators: Annotated[int, typer.Option(metavar="N", min=1, max=64, help="How many bid.")] = 4,
    as_shipped: Annotated[
        bool, typer.Option("--as-shipped", help="The case's own participants bid what they bid in the case.")
    ] = False,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of their bids.")] = 1,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="A service that runs; left out: one is started for the day.")
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep what the service has, to be looked at in the console afterwards."),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option("--key-file", metavar="FILE", help="An operator's key for it; left out: the variable DLMP_KEY."),
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Run a market day: aggregators bid over HTTP, the gate closes, prices and statements come out."""
    if url is not None and keep is not None:
        message = "cannot be given with --url: a service that runs keeps what it has"
        raise InputError([Problem("simulate", "--keep", str(keep), message)])
    with progress(quiet) as show:
        show("starting the service")
        began = time.perf_counter()
        with _service(url, key_file, keep) as (address, key):
            started = Stage("start the service", time.perf_counter() - began, address)
            day = simulate_day(address, key, feeder, None if as_shipped else aggregators, seed, show)
    if not quiet:
        _print_day(day, [*([] if url else [started]), *day.stages])
    if keep is not None:
        command = shlex.join([*_own_command(), "serve", "--data-dir", str(keep)])
        print_rows(
            [
                ("market", f"{day.market.name} of {day.market.trade_date}, {day.market.state}"),
                ("console", f"{command}, then http://127.0.0.1:8000/ in a browser"),
                ("key", f"the operator's is in {keep / KEY_FILE}"),
            ]
        )


def _own_command() -> list[str]:
    """How this program is called, as it is shortest."""
    called, found = Path(sys.argv[0]), shutil.which("dlmp")
    if found is not None and called.is_file() and called.samefile(found):
        return ["dlmp"]
    return [str(called)] if called.name == "dlmp" and called.is_file() else [sys.executable, "-m", "dlmp.cli"]


@contextmanager
def _service(url: str | None, key_file: Path | None, keep: Path | None) -> Iterator[tuple[str, str]]:
    if url is None:
        with own_service(keep) as found:
            yield found
        return
    try:
        key = key_file.read_text("utf-8").strip() if key_file else os.environ["DLMP_KEY"]
    except (OSError, KeyError, UnicodeDecodeError):
        message = "give an operator's key by --key-file or DLMP_KEY"
        raise InputError([Problem("simulate", "key", str(key_file or ""), message)]) from None
    yield url, key


def _print_day(day: Day, stages: list[Stage]) -> None:
    console = stdout()
    console.print(price_summary(day.prices, day.market))
    console.print(award_summary(day.awards, day.owners, day.offered_kwh, day.market))
    console.print(participant_summary(day.statements, day.participants, day.market.currency))
    console.print(stage_table(stages))
