"""The benchmarks on the command line: ``dlmp bench``, in a checkout of the repository."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from dlmp.cli.terminal import new_app
from dlmp.errors import InputError, Problem

CHECKOUT = Path(__file__).resolve().parents[2]

app = new_app()


@app.command("bench")
def bench_command(
    quick: Annotated[bool, typer.Option("--quick", help="Small feeders alone: minutes, not an hour.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the results.")] = Path("build/bench"),
) -> None:
    """Compare the engine with its peers on this machine; the report is DIR/report.md."""
    if not (CHECKOUT / "benchmarks" / "__main__.py").is_file():
        remedy = "is missing: the benchmarks are part of the repository and not of the package; clone it"
        raise InputError([Problem("dlmp bench", "benchmarks", str(CHECKOUT / "benchmarks"), remedy)])
    path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
    options = [*(["--quick"] if quick else []), *(["--resume"] if resume else []), "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options], env=os.environ | {"PYTHONPATH": path}, check=False
    )
    raise typer.Exit(done.returncode)
