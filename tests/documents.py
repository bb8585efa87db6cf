"""The pages of the documentation as tests see them: their examples, command lines, links and headings."""

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import typer

from dlmp.cli.program import COMMANDS
from dlmp.cli.terminal import new_app

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
TEXTS = [*PAGES, *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "README.md"))]
FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
EXAMPLE = re.compile(r"```python\n(.*?)```(?:\n\n```\n(.*?)```)?", re.DOTALL)
COMMAND_LINE = re.compile(r"^(?:\$ )?(?:[A-Z_]+=\S+ )*(dlmp .*)$", re.MULTILINE)
NAMED_COMMAND = re.compile(r"`(dlmp [^`]*)`")
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def run_examples(text: str) -> None:
    """Run the Python blocks of a text one after the other; each prints what the block below it shows, if any."""
    names: dict[str, Any] = {"__name__": "examples"}
    found = EXAMPLE.findall(text)
    assert found
    for number, (code, shown) in enumerate(found, 1):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, f"example {number}", "exec"), names)
        assert printed.getvalue() == shown, f"example {number}"


def command_lines(text: str) -> list[list[str]]:
    """Words of every line of the fenced blocks that runs ``dlmp``, without the program itself."""
    blocks = "\n".join(FENCED.findall(text))
    return [shlex.split(line, comments=True)[1:] for line in COMMAND_LINE.findall(blocks)]


def named_commands(text: str) -> list[list[str]]:
    """Words of every command that stands in the lines of a text, without the program itself."""
    return [shlex.split(line)[1:] for line in NAMED_COMMAND.findall(FENCED.sub("", text))]


@cache
def program() -> Any:
    """The whole command line."""
    whole = new_app()
    for module in COMMANDS:
        whole.add_typer(import_module(module).app)
    return typer.main.get_command(whole)


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    """The command that `words` run, and its arguments.

    Raises
    ------
    KeyError
        When there is no such command.
    """
    command, rest = program(), list(words)
    while hasattr(command, "commands") and rest:
        command = command.commands[rest.pop(0)]
    return command, rest


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """File and heading of every link of a page that leads to no other machine; the heading is "" where it has none."""
    for address, anchor in LINK.findall(FENCED.sub("", page.read_text("utf-8"))):
        if not address.startswith(("http:", "https:", "mailto:")):
            yield (page.parent / address).resolve() if address else page, anchor


def anchors(page: Path) -> list[str]:
    """Names of the headings of a page, as GitHub and the built pages have them."""
    headings = HEADING.findall(FENCED.sub("", page.read_text("utf-8")))
    return [re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings]
