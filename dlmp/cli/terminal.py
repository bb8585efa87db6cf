"""What commands share: the console, rows of text, and the line that tells what is being done."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.text import Text

LABEL_WIDTH = 16


def new_app(text: str = "") -> typer.Typer:
    """Make a group of commands."""
    return typer.Typer(
        help=text,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[str], None]]:
    """Show what is being done on a terminal; elsewhere, and when `quiet`, do nothing."""
    console = stderr()
    if quiet or not console.is_terminal:
        yield lambda text: None
        return
    with console.status("") as status:
        yield lambda text: status.update(Text(text))


def stdout() -> Console:
    """Return the console of the standard output."""
    return Console(markup=False, emoji=False, highlight=False)


def stderr() -> Console:
    """Return the console of standard error."""
    return Console(stderr=True, markup=False, emoji=False, highlight=False)


def print_rows(rows: Sequence[tuple[str, str]]) -> None:
    """Print a line for each of `rows`, a label and a text."""
    lines = (Text.assemble((f"{label:<{LABEL_WIDTH}}  ", "bold"), text) for label, text in rows)
    stdout().print(Text("\n").join(lines), soft_wrap=True)
