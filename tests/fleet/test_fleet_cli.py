"""``dlmp fleet``: exit codes, what is printed where, and how it is stopped."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import psutil
import pytest
from broken_cases import append
from commandline import Run, command_line
from fleetcases import results, write_fleet

from dlmp import clear_fleet
from dlmp.fleet.results import RECORD, TABLE

FEEDERS = 10


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return command_line(capsys, monkeypatch, "fleet")


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    return write_fleet(tmp_path / "fleet", "a", "b")


def test_a_fleet_that_converges_exits_0_with_totals_and_a_line_for_each_feeder(run: Run, fleet: Path, tmp_path: Path):
    code, out, err = run(fleet, "--out", tmp_path / "out", "--workers", 2)
    assert code == 0
    first, *lines = err.splitlines()
    assert first == "2 feeders"
    assert [line[:5] for line in lines] == ["1/2  ", "2/2  "]
    assert sorted(line.split(",")[0][5:] for line in lines) == ["a  converged", "b  converged"]
    table = pd.read_csv(tmp_path / "out" / TABLE)
    rows = dict(line.split("  ", 1) for line in out.splitlines())
    assert {label: text.strip() for label, text in rows.items()}.items() >= {
        "feeders": "2: 2 converged",
        "total cost": f"{table.objective.sum():,.2f} USD",
        "results": str(tmp_path / "out"),
    }.items()


def test_the_second_time_all_is_kept(run: Run, fleet: Path, tmp_path: Path):
    run(fleet, "--out", tmp_path / "out", "--quiet")
    code, _, err = run(fleet, "--out", tmp_path / "out")
    assert (code, err) == (0, "2 feeders, 2 of which have results that hold\n")
    _, _, err = run(fleet, "--out", tmp_path / "out", "--again")
    assert len(err.splitlines()) == 3


def test_a_feeder_that_fails_exits_6_and_is_named_with_its_reason(run: Run, fleet: Path, tmp_path: Path):
    append("bids.csv", "nobody,,supply,0,1,1")(fleet / "b")
    code, out, err = run(fleet, "--out", tmp_path / "out")
    assert code == 6
    assert "2: 1 converged, 1 refused" in out
    assert "  b  refused, " in err
    assert "bids.csv line 6, resource = 'nobody'" in err
    assert f"dlmp: 1 of 2 feeders did not converge; {tmp_path / 'out' / TABLE} says why" in err
    code, out, err = run(fleet, "--out", tmp_path / "out", "--quiet")
    assert (code, out) == (6, "")
    assert err.startswith("dlmp: 1 of 2 feeders")


def test_bad_input_exits_2(run: Run, tmp_path: Path):
    code, out, err = run(tmp_path / "none", "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert "fleet, folder = " in err


def test_options_reach_each_clearing(run: Run, fleet: Path, tmp_path: Path):
    options = ("--formulation", "lindistflow", "--losses", "none", "--no-certificate", "--parquet", "--batch", "2")
    code, _, _ = run(fleet, "--out", tmp_path / "out", "--time-limit", "300", *options)
    table = pd.read_csv(tmp_path / "out" / TABLE)
    assert (code, table.is_certified.isna().all()) == (0, True)
    prices = pd.read_parquet(tmp_path / "out" / "b" / "prices.parquet")
    assert prices.loss.abs().max() < 1e-4, "only of line charging"


def test_a_terminal_sees_a_bar_and_what_failed(run: Run, fleet: Path, tmp_path: Path, monkeypatch):
    append("bids.csv", "nobody,,supply,0,1,1")(fleet / "b")
    monkeypatch.setenv("FORCE_COLOR", "1")
    _, _, err = run(fleet, "--out", tmp_path / "out")
    assert "2/2" in err
    assert "b  refused" in err
    assert "a  converged" not in err


@pytest.mark.parametrize("name", ["SIGINT", pytest.param("SIGTERM", marks=pytest.mark.nightly)])
def test_a_fleet_that_is_stopped_leaves_whole_results_and_no_process_and_goes_on(name: str, tmp_path: Path):
    fleet, out = write_fleet(tmp_path / "fleet", *(f"feeder{number:02}" for number in range(FEEDERS))), tmp_path / "out"
    command = [sys.executable, "-m", "dlmp.cli", "fleet", str(fleet), "--out", str(out), "--workers", "2"]
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    # Where the tests themselves run in the background, SIGINT is ignored, and that is inherited.
    own = {"start_new_session": True, "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with subprocess.Popen(command, **pipes, **own) as process:
        assert process.stderr is not None
        for _ in range(3):
            process.stderr.readline()
        children = psutil.Process(process.pid).children(recursive=True)
        if name == "SIGINT":
            os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C: all processes of the terminal get it
        else:
            process.terminate()
        stdout, stderr = process.communicate(timeout=60)
    assert children
    assert process.returncode == 130
    assert stdout == ""
    last = stderr.splitlines()[-1]
    assert last == f"dlmp: stopped; what is in {out} is whole. The same command goes on from there"
    assert "Traceback" not in stderr
    psutil.wait_procs(children, timeout=30)
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    whole = {path.parent.name for path in out.rglob(RECORD)}
    assert {path.name for path in out.iterdir()} == whole | {TABLE}
    assert 2 <= len(whole) < FEEDERS
    assert set(pd.read_csv(out / TABLE).feeder) <= whole
    steps = []
    table = clear_fleet(fleet, out, workers=1, progress=steps.append)
    assert steps[0].kept == len(whole)
    assert table.status.tolist() == ["converged"] * FEEDERS
    clear_fleet(fleet, tmp_path / "at once", workers=2)
    assert results(out) == results(tmp_path / "at once")
