"""The program: finds the module of a command, runs it, and turns errors into a message and an exit code."""

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module

import typer

from dlmp.cli.terminal import new_app
from dlmp.client.errors import ServiceError
from dlmp.errors import DlmpError, InfeasibleError, InputError, PowerFlowError, SolverError

EXIT_CODES: dict[type[DlmpError], int] = {
    InputError: 2,
    InfeasibleError: 3,
    PowerFlowError: 4,
    SolverError: 4,
    ServiceError: 5,
}
COMMANDS: Mapping[str, Sequence[str]] = {
    "dlmp.cli.engine": ("clear", "roll", "network", "story", "cases", "demo"),
    "dlmp.cli.fleet": ("fleet",),
    "dlmp.cli.bench": ("bench",),
    "dlmp.cli.service": ("serve", "key", "audit"),
    "dlmp.cli.market": ("submit", "run", "readings", "settle", "prices", "statement"),
    "dlmp.cli.simulate": ("simulate",),
}
"""Module of each command: the web server takes seconds to load, which a clearing need not wait for."""


def main() -> None:
    """Run the command line; errors that dlmp raises on purpose become a message and an exit code."""
    try:
        _program(sys.argv[1:2])(prog_name="dlmp")
    except DlmpError as error:
        typer.echo(f"dlmp: {error}", err=True)
        raise SystemExit(exit_code(error)) from None


def exit_code(error: DlmpError) -> int:
    """Return the exit code of the nearest kind of `error` that has one."""
    return next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)


def _program(command: Sequence[str]) -> typer.Typer:
    """Make the program with the module of `command`, or with all where it is none of ours."""
    program = new_app("Clear a market on a distribution feeder into nodal prices, and run it as a service.")
    modules = [module for module, names in COMMANDS.items() if set(command) & set(names)]
    for module in modules or COMMANDS:
        program.add_typer(import_module(module).app)
    return program
