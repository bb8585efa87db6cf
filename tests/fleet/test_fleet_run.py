"""Clearing a fleet: what it comes to, whatever goes wrong with some of its feeders, and how it goes on."""

import json
import os
import shutil
import socket
from pathlib import Path

import pandas as pd
import psutil
import pytest
from broken_cases import append, change, write_good_case
from fleetcases import as_named, never, results, run_fleet, write_fleet

import dlmp
from dlmp import clear_fleet
from dlmp.fleet import FeederResult
from dlmp.fleet.results import RECORD, TABLE
from dlmp.fleet.run import OWNER, WORK
from dlmp.output import write_results
from dlmp.settings import HARD


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    return write_fleet(tmp_path / "fleet", "north/a", "north/b", "south/a")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_each_feeder_has_what_its_own_clearing_writes_however_many_workers_there_are(tmp_path: Path):
    fleet = write_fleet(tmp_path / "fleet", "good", "other")
    for name in ("feeder33", "ieee13"):
        shutil.copytree(dlmp.shipped_case(name), fleet / "shipped" / name)
    names = ["good", "other", "shipped/feeder33", "shipped/ieee13"]
    for name in names:
        write_results(dlmp.clear(dlmp.read_case(fleet / name)), tmp_path / "alone" / name, wall_seconds=0.0)
    alone = results(tmp_path / "alone")
    for workers, batch_size in ((1, 1), (2, 1), (2, 3)):
        out = tmp_path / f"out{workers}{batch_size}"
        table = clear_fleet(fleet, out, workers=workers, batch_size=batch_size)
        found = results(out)
        own = {TABLE, *(f"{name}/{RECORD}" for name in names)}
        assert {path: content for path, content in found.items() if path not in own} == alone
        assert own <= set(found)
        assert table.status.tolist() == ["converged"] * 4
        assert {path: found[path] for path in own} == {path: results(tmp_path / "out11")[path] for path in own}


def test_a_row_tells_size_cost_prices_limits_and_effort(fleet: Path, out: Path):
    table = clear_fleet(fleet, out, workers=1)
    assert table.feeder.tolist() == ["north/a", "north/b", "south/a"]
    for _, row in table.iterrows():
        clearing = dlmp.clear(dlmp.read_case(fleet / row.feeder))
        prices = clearing.prices.table().lmp_usd_per_mwh
        assert (row.nodes, row.resources, row.intervals) == (4, 2, 3)
        assert (row.objective, row.currency) == (clearing.objective, "USD")
        assert (row.lowest_usd_per_mwh, row.highest_usd_per_mwh) == (prices.min(), prices.max())
        assert row.binding_limits == clearing.binding_limits().element.nunique()
        assert row.broken_limits == 0
        assert row.is_certified
        assert row.passes == len(clearing.passes)
        assert row.wall_seconds > 0
        assert row.cpu_seconds > 0
        assert len(row.input_sha256) == 64
    assert table.input_sha256.nunique() == 3
    on_disk = pd.read_csv(out / TABLE, keep_default_na=False, na_values={"objective": ""}, float_precision="round_trip")
    assert on_disk.columns.tolist() == list(FeederResult.__dataclass_fields__)
    assert on_disk.objective.tolist() == table.objective.tolist()


@pytest.mark.parametrize("batch_size", [1, 9])
def test_a_failure_ends_its_feeder_alone_and_is_told(batch_size: int, tmp_path: Path, out: Path):
    fleet = write_fleet(tmp_path / "fleet", "a", "crashes", "d", "exits", "killed", "q", "raises", "refused", "z")
    change("load_profile.csv", "1,1.55", "1,5000")(fleet / "q")
    append("bids.csv", "nobody,,supply,0,1,1")(fleet / "refused")
    table = run_fleet(fleet, out, clear=as_named, batch_size=batch_size)
    told = dict(zip(table.index, zip(table.status, table.reason, strict=True), strict=True))
    assert told["crashes"] == ("failed", "its process was ended by SIGSEGV")
    assert told["exits"] == ("failed", "its process ended with exit code 3")
    assert told["killed"] == ("failed", "its process was ended by SIGKILL; systems do that when memory runs out")
    assert told["raises"] == ("failed", "ZeroDivisionError: a fault of dlmp; over two lines")
    assert told["q"][0] == "not_converged"
    assert "no solution in intervals [1]" in told["q"][1]
    assert told["refused"][0] == "refused"
    assert told["refused"][1].startswith("1 problem in the input: bids.csv line 6, resource = 'nobody'")
    assert table.status[["a", "d", "z"]].tolist() == ["converged"] * 3
    assert sorted(path.name for path in out.iterdir()) == ["a", "d", TABLE, "z"]


def test_a_feeder_over_its_time_ends_alone_even_if_it_never_returns_to_python(tmp_path: Path, out: Path):
    fleet = write_fleet(tmp_path / "fleet", "a", "hangs", "z")
    table = run_fleet(fleet, out, clear=as_named, batch_size=3, time_limit_s=10.0)
    assert table.status.tolist() == ["converged", "timed_out", "converged"]
    assert table.reason["hangs"] == "took longer than the time limit of 10 s"


def test_hard_limits_that_conflict_are_told(fleet: Path, out: Path):
    change("case.toml", "p_max_kw = 5000.0", "p_max_kw = 1.0")(fleet / "north/b")
    table = clear_fleet(fleet, out, workers=1, settings=dlmp.Settings(limits=HARD)).set_index("feeder")
    assert table.status.tolist() == ["converged", "infeasible", "converged"]
    assert "substation import of real power, interval 0: limit 1 kW" in table.reason["north/b"]
    assert not (out / "north/b").exists()


def test_what_has_not_converged_is_written_and_told(fleet: Path, out: Path):
    table = clear_fleet(fleet, out, workers=1, settings=dlmp.Settings(max_passes=1, tolerance_pu=1e-300))
    assert set(table.status) == {"not_converged"}
    assert table.reason.str.fullmatch(r"violation \S+ pu, step \S+ pu in pass 1").all()
    assert (out / "south/a/prices.csv").exists()


def test_whole_results_of_the_same_input_are_kept(fleet: Path, out: Path):
    first = run_fleet(fleet, out)
    before, steps = results(out), []
    second = run_fleet(fleet, out, clear=never, progress=steps.append)
    pd.testing.assert_frame_equal(first, second)
    assert results(out) == before
    assert [(step.feeders, step.kept, step.cleared, step.latest) for step in steps] == [(3, 3, 0, None)]


@pytest.mark.parametrize("name", ["load_profile.csv", "case.toml", "a new file"])
def test_a_feeder_whose_input_has_changed_is_cleared_again(name: str, fleet: Path, out: Path):
    first = run_fleet(fleet, out)
    with (fleet / "north/b" / name).open("a") as file:
        file.write("\n")
    steps = []
    second = run_fleet(fleet, out, progress=steps.append)
    assert [step.latest.feeder for step in steps if step.latest] == ["north/b"]
    changed = first.input_sha256 != second.input_sha256
    assert changed[changed].index.tolist() == ["north/b"]


def test_a_network_outside_of_the_case_folder_is_part_of_the_input(fleet: Path, out: Path, tmp_path: Path):
    (tmp_path / "tables").mkdir()
    for name in ("nodes.csv", "lines.csv"):
        (fleet / "north/b" / name).rename(tmp_path / "tables" / name)
    change("case.toml", "tables:.", f"tables:{os.path.relpath(tmp_path / 'tables', fleet / 'north/b')}")(
        fleet / "north/b"
    )
    before = clear_fleet(fleet, out, workers=1)
    change("nodes.csv", "C,12.66,120,80", "C,12.66,130,80")(tmp_path / "tables")
    after = clear_fleet(fleet, out, workers=1)
    assert before.status.tolist() == ["converged"] * 3
    assert (before.objective != after.objective).tolist() == [False, True, False]


def test_other_settings_and_again_clear_all_anew(fleet: Path, out: Path):
    first = clear_fleet(fleet, out, workers=1)
    steps = []
    linear = dlmp.Settings(formulation="lindistflow")
    second = clear_fleet(fleet, out, workers=1, settings=linear, parquet=True, progress=steps.append)
    assert (first.objective != second.objective).all()
    assert (out / "south/a/prices.parquet").exists()
    clear_fleet(fleet, out, workers=1, settings=linear, parquet=True, again=True, progress=steps.append)
    assert [step.cleared for step in steps] == [0, 1, 2, 3] * 2


def test_results_with_a_file_missing_are_made_anew(fleet: Path, out: Path):
    run_fleet(fleet, out)
    before = results(out)
    (out / "north/a/prices.csv").unlink()
    run_fleet(fleet, out)
    assert results(out) == before


def test_failed_feeders_are_tried_again_and_no_others(tmp_path: Path, out: Path):
    fleet = write_fleet(tmp_path / "fleet", "a", "killed", "raises")
    run_fleet(fleet, out, clear=as_named)
    steps = []
    table = run_fleet(fleet, out, progress=steps.append)
    assert sorted(step.latest.feeder for step in steps if step.latest) == ["killed", "raises"]
    assert table.status.tolist() == ["converged"] * 3


def test_results_do_not_stand_beside_a_row_of_a_later_failure(fleet: Path, out: Path):
    clear_fleet(fleet, out, workers=1)
    append("bids.csv", "nobody,,supply,0,1,1")(fleet / "north/b")
    assert clear_fleet(fleet, out, workers=1).status.tolist() == ["converged", "refused", "converged"]
    assert sorted(path.name for path in (out / "north").iterdir()) == ["a"]


def test_what_a_killed_run_has_left_half_written_is_removed(fleet: Path, out: Path):
    left = out / WORK / "7" / "results"
    left.mkdir(parents=True)
    (left / "prices.csv").write_text("half")
    (out / WORK / OWNER).write_text('{"host": "')
    assert set(clear_fleet(fleet, out, workers=1).status) == {"converged"}
    assert sorted(path.name for path in out.iterdir()) == [TABLE, "north", "south"]


def owner(**other: object) -> str:
    mine = {"host": socket.gethostname(), "process": os.getpid(), "started": psutil.Process().create_time()}
    return json.dumps(mine | other)


@pytest.mark.parametrize("other", [{}, {"host": "elsewhere"}], ids=["of this machine", "of another"])
def test_two_runs_do_not_clear_into_one_folder(other: dict[str, object], fleet: Path, out: Path):
    (out / WORK).mkdir(parents=True)
    (out / WORK / OWNER).write_text(owner(**other))
    with pytest.raises(dlmp.InputError, match=r"process \d+ of .* clears into it; if it does not, remove .*\.fleet"):
        clear_fleet(fleet, out, workers=1)
    assert (out / WORK / OWNER).exists()


def test_a_run_that_has_ended_does_not_keep_its_folder(fleet: Path, out: Path):
    (out / WORK).mkdir(parents=True)
    (out / WORK / OWNER).write_text(owner(started=0.0))
    assert set(clear_fleet(fleet, out, workers=1).status) == {"converged"}


def problem(*arguments: object, **options: object) -> str:
    with pytest.raises(dlmp.InputError) as refused:
        clear_fleet(*arguments, **options)
    return str(refused.value)


def test_bad_folders_and_options_are_refused_at_once(fleet: Path, out: Path, tmp_path: Path):
    (tmp_path / "empty" / "deep").mkdir(parents=True)
    assert "is no folder" in problem(tmp_path / "none", out)
    assert "has no market case in it" in problem(tmp_path / "empty", out)
    assert "is one market case" in problem(fleet / "north/a", out)
    assert "workers = 0: must be at least 1" in problem(fleet, out, workers=0)
    assert "batch = -1: must be at least 1" in problem(fleet, out, batch_size=-1)
    for limit in (0.0, -1.0, float("nan"), float("inf")):
        assert "time limit" in problem(fleet, out, time_limit_s=limit)
    assert not out.exists()


def test_results_are_not_put_where_something_else_is(fleet: Path, out: Path):
    assert "is within the market case" in problem(fleet, fleet / "north/a/out")
    assert "is no folder of results of a fleet" in problem(fleet, fleet)
    (out / "north/a").mkdir(parents=True)
    assert set(clear_fleet(fleet, out, workers=1).status) == {"converged"}, "an empty folder is taken"
    (out / "north/a" / RECORD).unlink()
    message = problem(fleet, out)
    assert f"{out / 'north/a'}" in message
    assert "is no folder of results of a fleet" in message
    shutil.rmtree(out / "north/a")
    (out / "north/a").write_text("a file")
    assert problem(fleet, out) == message
    shutil.rmtree(out)
    out.write_text("a file")
    assert "is a file" in problem(fleet, out)


def test_feeders_of_one_name_in_two_folders_stay_apart_and_names_that_could_not_are_refused(fleet: Path, out: Path):
    write_good_case(fleet / "North/A")
    assert "feeder = 'north/a': differs from 'North/A' by capitals alone" in problem(fleet, out)
    shutil.rmtree(fleet / "North")
    write_good_case(fleet / "fleet.csv")
    assert "feeder = 'fleet.csv': is the name of a file of the results" in problem(fleet, out)


def test_cases_within_a_case_and_in_hidden_folders_are_no_feeders(fleet: Path, out: Path):
    write_good_case(fleet / "north/a/old")
    write_good_case(fleet / ".trash/a")
    (fleet / "linked").symlink_to(fleet / "north/b")
    (fleet / "loop").symlink_to(fleet)
    assert clear_fleet(fleet, out, workers=1).feeder.tolist() == ["linked", "north/a", "north/b", "south/a"]


def test_a_file_that_cannot_be_read_is_its_feeder_s_failure(fleet: Path, out: Path):
    clear_fleet(fleet, out, workers=1)
    (fleet / "north/b" / "notes").symlink_to(fleet / "nowhere")
    table = clear_fleet(fleet, out, workers=1)
    assert table.status.tolist() == ["converged", "failed", "converged"]
    assert "No such file or directory" in table.reason[1]


def test_what_keeps_workers_from_their_work_is_told_of_each_feeder(fleet: Path, out: Path):
    table = run_fleet(fleet, out, batch_size=2, worker_version="0.0.7")
    assert table.status.tolist() == ["failed"] * 3
    assert table.reason.str.endswith("; the fleet is cleared with 0.0.7").all()
