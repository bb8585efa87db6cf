"""The command line as its user has it, within the process of the tests."""

import sys
from collections.abc import Callable

import pytest

from dlmp.cli import main

Run = Callable[..., tuple[int, str, str]]


def command_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *command: str) -> Run:
    """Make what runs ``dlmp COMMAND`` with arguments; it gives exit code, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dlmp", *command, *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return stopped.value.code, *capsys.readouterr()

    monkeypatch.setenv("COLUMNS", "80")
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    return run
