"""``docs/fleet.md`` names every column, status and option, and none that there is not."""

import re
from pathlib import Path

from typer.main import get_command

from dlmp.cli.fleet import app
from dlmp.fleet import FeederResult
from dlmp.fleet.results import STATUSES

TEXT = (Path(__file__).parents[2] / "docs" / "fleet.md").read_text("utf-8")


def table(title: str) -> list[list[str]]:
    """Cells of the rows of the first table under `title`."""
    rows = re.findall(r"^\| (.*) \|$", TEXT.split(f"## {title}\n")[1].split("\n## ")[0], re.MULTILINE)
    return [row.split(" | ") for row in rows[1:]]


def names(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def test_every_column_is_told_in_its_order():
    assert [name for first, _ in table("fleet.csv") for name in names(first)] == list(FeederResult.__dataclass_fields__)


def test_every_status_is_told():
    (told,) = (means for first, means in table("fleet.csv") if first == "`status`")
    assert set(names(told)) == set(STATUSES)


def test_every_option_is_told():
    told = {name.split()[0] for first, _ in table("Options") for name in names(first)}
    options = {option.opts[0] for option in get_command(app).params if option.opts[0].startswith("--")}
    assert told == options - {"--out", "--certificate", "--help"} | {"--no-certificate"}
