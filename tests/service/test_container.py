"""The Dockerfile: what it copies is there, and its steps, done in an empty environment, end in a healthy service."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from servers import free_port

ROOT = Path(__file__).parents[2]
STEPS = re.findall(r"^([A-Z]+) (.*)$", (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " "), re.MULTILINE)
IGNORED = (ROOT / ".dockerignore").read_text("utf-8").split()


def steps(name: str) -> list[str]:
    return [what for step, what in STEPS if step == name]


def copied() -> list[str]:
    """Sources of the first stage, which come from this folder."""
    return [source for what in steps("COPY") if not what.startswith("--from") for source in what.split()[:-1]]


def test_everything_that_is_copied_is_there_and_not_ignored():
    assert [source for source in copied() if not (ROOT / source).exists()] == []
    assert {f"!{source}" for source in copied()} <= set(IGNORED)


def test_the_service_is_not_root_and_its_data_are_a_volume():
    names = [name for name, _ in STEPS]
    assert steps("USER") == ["dlmp"]
    assert names.index("USER") > len(names) - 1 - names[::-1].index("RUN")
    assert steps("VOLUME") == ["/data"]


def test_a_password_of_any_characters_reaches_the_service_apart_from_its_database_url():
    compose = (ROOT / "compose.yaml").read_text("utf-8")
    url = re.search(r"DLMP_DATABASE_URL: (.*)", compose).group(1)
    assert "$" not in url
    assert re.search(r"PGPASSWORD: \${POSTGRES_PASSWORD}", compose)


@pytest.mark.nightly
def test_the_steps_in_an_empty_environment_end_in_a_service_that_is_healthy(tmp_path: Path):
    source, place, data, port = tmp_path / "src", tmp_path / "opt", tmp_path / "data", str(free_port())
    source.mkdir()
    for name in copied():
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    build = next(step for step in steps("RUN") if "-m venv" in step).replace("/opt/dlmp", str(place))
    build = re.sub(r"^python ", f"{shlex.quote(sys.executable)} ", build)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("DLMP_", "PYTHON", "VIRTUAL"))}
    subprocess.run(["bash", "-ec", build], cwd=source, env=clean, check=True, timeout=3_000)
    shutil.rmtree(source)
    command = [place / "bin" / json.loads(steps("ENTRYPOINT")[0])[0], *json.loads(steps("CMD")[-1]), "--port", port]
    settings = clean | {"DLMP_DATA_DIR": str(data), "PATH": f"{place / 'bin'}:{clean['PATH']}"}
    check = shlex.split(steps("HEALTHCHECK")[0].partition("CMD ")[2].replace("8000", port))
    process = subprocess.Popen(command, cwd=tmp_path, env=settings)
    try:
        ends = time.monotonic() + 120
        while subprocess.run(check, env=settings, check=False, capture_output=True).returncode != 0:
            assert process.poll() is None
            assert time.monotonic() < ends
            time.sleep(0.5)
        assert (data / "operator.key").exists()
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    listed = subprocess.run([place / "bin" / "dlmp", "cases"], env=settings, capture_output=True, text=True, check=True)
    assert "day33" in listed.stdout
