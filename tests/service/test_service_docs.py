"""``docs/service.md`` names every setting and every code, and none that there is not; examples at a service run."""

import ast
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from documents import run_examples
from servers import Server
from worlds import World

import api
from api import errors
from api.book import GATE_FAULTS
from api.faults import CODES
from api.http import TITLES
from api.schemas.bids import PRODUCTS
from api.settings import ServiceSettings

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "service.md").read_text("utf-8")
SECTION = (ROOT / "README.md").read_text("utf-8").partition("## The market service")[2].partition("\n## ")[0]
REFUSALS = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.Refusal)}
PLACE_OF_CODE = {"Fault": 1, **dict.fromkeys(REFUSALS - {"NotFound"} | {"PydanticCustomError", "_NotAllowedError"}, 0)}
PLACE_OF_CODE["__init__"] = 0
API_GUIDE = (ROOT / "docs" / "api-guide.md").read_text("utf-8")
SHOWN_URL = "http://127.0.0.1:8000"
BREAK = "== next script =="
CHANGING = re.compile(r"[0-9a-f]{24,}|\d{4}-\d\d-\d\d(T[\d:.]+Z)?|(?<=\.\d{6})\d+")
"""Names, hashes and times, which are others in every run, and digits that are others on another machine."""


def documented(heading: str) -> set[str]:
    rows = DOCUMENT.partition(f"| {heading} |")[2].partition("\n\n")[0]
    return set(re.findall(r"^\| `([a-z_]+)` \|", rows, re.MULTILINE))


def codes_of_the_source() -> set[str]:
    """Every constant that stands where a code stands, read from the syntax of ``api``."""
    found = set(CODES.values()) | set(GATE_FAULTS.values())
    found |= {title.lower().replace(" ", "_") for title in (*TITLES.values(), "Request refused")}
    for path in Path(api.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            given = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
            place = PLACE_OF_CODE.get(name)
            if place is not None and len(node.args) > place:
                given.append(node.args[place])
            found |= {one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str)}
    return {code for code in found if re.fullmatch(r"[a-z]+(_[a-z]+)*", code)}


def test_every_code_of_the_source_is_documented_and_no_other():
    known = documented("Code of a document") | documented("Code in `errors`")
    found = codes_of_the_source()
    assert found - known == set()
    assert known - found - {"invalid"} == set()


def test_every_setting_is_documented_with_its_default():
    rows = dict(re.findall(r"^\| `DLMP_([A-Z_0-9]+)` \|(.*?)\|", DOCUMENT, re.MULTILINE))
    assert set(rows) == {name.upper() for name in ServiceSettings.model_fields}
    for name, field in ServiceSettings.model_fields.items():
        shown = rows[name.upper()].strip("` ")
        default = f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
        assert shown in (default, default.lower())


def test_every_product_is_documented_with_a_body_that_is_placed(world: World):
    section = DOCUMENT.partition("### A bid")[2].partition("\n### ")[0]
    market = world.ask("POST", "/v1/markets", world.market(takes_blocks=True))["id"]
    found = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", section, re.DOTALL)]
    limits = {"p_min_kw": -500, "p_max_kw": 500, "q_min_kvar": -100, "q_max_kvar": 100}
    for number, example in enumerate(found):
        resource = {"participant_id": world["sunny"], "feeder": "lane", "bus": "A", "kind": "other"} | limits
        resource_id = world.ask("POST", "/v1/resources", resource | {"name": f"of example {number}"})["id"]
        day = {name: world.bid()[name] for name in ("interval_start", "interval_end")}
        answer = world.place(day | example | {"market_id": market, "resource_id": resource_id})
        assert answer.status_code == 201, (example, answer.text)
    named = set(re.findall(r"`([a-z_]+)`", " ".join(re.findall(r"^\*\*(.*?)\*\*:", section, re.MULTILINE))))
    assert named | {"energy"} == set(PRODUCTS)
    assert {example["product"] for example in found} >= set(PRODUCTS) - {"capacity_down", "var_up", "var_down"}


@pytest.fixture
def folder(server: Server, tmp_path: Path, monkeypatch) -> Path:
    """An empty folder in which the service's data directory is where `dlmp serve` makes it."""
    (tmp_path / "dlmp-data").symlink_to(server.folder / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_script(script: str, server: Server) -> str:
    """What a script prints that talks to the service, in the folder of its user."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script.replace(SHOWN_URL, server.url)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"NO_PROXY": "*"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_five_curl_lines_lead_to_published_prices_within_a_minute(server: Server, folder: Path):
    assert shutil.which("curl")
    script = re.search(r"```sh\n(.*?)```", SECTION, re.DOTALL).group(1)
    assert sum("curl" in line for line in script.splitlines()) == 5
    began = time.monotonic()
    lines = run_script(script, server).splitlines()
    assert time.monotonic() - began < 60
    header = next(number for number, line in enumerate(lines) if "price_usd_per_mwh" in line)
    assert len(lines) - header - 1 == 33 * 24
    assert "event: succeeded" in lines


def test_the_scripts_of_the_api_guide_print_what_it_shows(server: Server, folder: Path):
    assert shutil.which("curl")
    scripts = re.findall(r"```sh\n(.*?)```(?:\n\n```\n(.*?)```)?", API_GUIDE, re.DOTALL)
    printed = run_script(f"printf '{BREAK}'\n".join(script for script, _ in scripts), server).split(BREAK)
    for (script, shown), found in zip(scripts, printed, strict=True):
        assert CHANGING.sub("", found) == CHANGING.sub("", shown), script


@pytest.mark.parametrize("guide", ["api-guide", "operator-guide"])
def test_the_python_examples_of_a_guide_print_what_it_shows(guide: str, server: Server, folder: Path):
    run_examples((ROOT / "docs" / f"{guide}.md").read_text("utf-8").replace(SHOWN_URL, server.url))


def test_the_python_example_prints_what_the_readme_shows(server: Server, folder: Path):
    run_examples(SECTION.replace(SHOWN_URL, server.url))
