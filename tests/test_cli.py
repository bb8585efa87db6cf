"""The command line: exit codes, what is written, and what is printed where."""

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from broken_cases import BROKEN_CASES, BrokenCase, change, write_good_case
from cases import CASES, without_finish
from commandline import command_line

import dlmp
from dlmp import errors, shipped
from dlmp.casewriter import write_case
from dlmp.cli import engine, main
from dlmp.cli.program import COMMANDS, EXIT_CODES, exit_code
from dlmp.client import ContentError, NoAnswerError
from dlmp.output import DAY_FILES, RESULT_FILES, SETTLEMENT_TABLES, TABLES

CSV_FILES = {f"{name}.csv" for name in (*TABLES, *SETTLEMENT_TABLES)}


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """Folder of a case that clears."""
    return write_good_case(tmp_path / "case")


@pytest.fixture
def run(capsys, monkeypatch):
    return command_line(capsys, monkeypatch)


@pytest.fixture
def shipped_day(tmp_path: Path, monkeypatch) -> Path:
    """A small day in place of the one that ships."""
    place = tmp_path / "networks"
    write_case(CASES["day_33"](), place / "day33")
    monkeypatch.setattr(shipped, "PLACES", (place,))
    return place / "day33"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_cleared_case_exits_0_with_every_file_and_a_summary_in_words(run, case: Path, tmp_path: Path):
    code, out, err = run("clear", case, "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    assert {path.name for path in (tmp_path / "out").iterdir()} == CSV_FILES | {"summary.json"}
    labels = [line.split("  ")[0] for line in out.splitlines()]
    assert labels == [
        "case",
        "status",
        "total cost",
        "highest price",
        "lowest price",
        "binding",
        "served locally",
        "certificate",
        "",
        "results",
    ]
    assert f"{tmp_path / 'out'}\n" in out


def test_the_tables_have_the_documented_columns(run, case: Path, tmp_path: Path):
    run("clear", case, "--out", tmp_path / "out")
    names = (*TABLES, *SETTLEMENT_TABLES)
    columns = {name: list(pd.read_csv(tmp_path / "out" / f"{name}.csv").columns) for name in names}
    components = ["energy", "loss", "congestion", "voltage", "unbalance", "scarcity"]
    assert columns["prices"] == [
        *("interval_start", "interval", "bus", "phase", "lmp_usd_per_mwh", *components),
        *("lmp_q_usd_per_mvarh", *(f"{name}_q" for name in components)),
    ]
    keys = ["interval_start", "interval"]
    for name in ("awards", "segments", "flows", "voltages"):
        assert columns[name][:2] == keys
    assert {"resource", "net_injection_kw", "q_kvar"} <= set(columns["awards"])
    assert columns["statements"] == ["participant", "resource", "product", "quantity", "unit", "amount"]
    line = ["participant", "resource", "product", "quantity", "unit", "price", "price_unit", "amount"]
    assert columns["settlement"] == [*keys, *line]
    assert columns["surplus"] == [*keys, "component", "amount", "explanation"]
    ends = ["from_bus", "to_bus", "from_phase", "to_phase"]
    power = ["p_from_kw", "q_from_kvar", "p_to_kw", "q_to_kvar"]
    assert columns["flows"] == [*keys, "branch", "kind", *ends, *power, "loading_percent"]


def test_the_summary_repeats_the_objective_that_is_printed(run, case: Path, tmp_path: Path):
    _, out, _ = run("clear", case, "--out", tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert f"{summary['objective']:,.2f} USD" in out
    assert summary["status"] == "converged"
    assert summary["certificate"]["feasible"]
    assert summary["wall_seconds"] > 0


def test_options_reach_the_clearing(run, case: Path, tmp_path: Path):
    arguments = ("--formulation", "lindistflow", "--losses", "none", "--no-certificate")
    code, out, _ = run("clear", case, "--out", tmp_path / "out", *arguments)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (code, summary["formulation"], summary["certificate"]) == (0, "lindistflow", None)
    assert "certificate" not in out
    assert pd.read_csv(tmp_path / "out" / "prices.csv").loss.abs().max() < 1e-4, "only of line charging"
    run("clear", case, "--out", tmp_path / "out", *arguments[:2])
    assert pd.read_csv(tmp_path / "out" / "prices.csv").loss.abs().max() > 1e-3


def test_parquet_copies_stand_beside_the_csv_files(run, case: Path, tmp_path: Path):
    code, _, _ = run("clear", case, "--out", tmp_path / "out", "--parquet")
    assert (code, {path.name for path in (tmp_path / "out").iterdir()}) == (0, set(RESULT_FILES))


def test_quiet_prints_nothing(run, case: Path, tmp_path: Path):
    assert run("clear", case, "--out", tmp_path / "out", "--quiet") == (0, "", "")


def test_progress_is_shown_on_a_terminal_only(run, case: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    _, _, err = run("clear", case, "--out", tmp_path / "out")
    assert "checking the result" in err
    _, _, err = run("clear", case, "--out", tmp_path / "out", "--quiet")
    assert err == ""


@pytest.mark.parametrize("broken", BROKEN_CASES, ids=lambda broken: broken.name)
def test_a_broken_case_exits_2_and_names_element_and_field(broken: BrokenCase, run, case: Path, tmp_path: Path):
    broken.edit(case)
    code, out, err = run("clear", case, "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert f"  - {broken.element}, {broken.field} = " in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_all_problems_are_listed_at_once(run, case: Path, tmp_path: Path):
    change("case.toml", "USD", "dollar")(case)
    change("import_prices.csv", "1,50", "1,many")(case)
    _, _, err = run("clear", case, "--out", tmp_path / "out")
    assert err.startswith("dlmp: 2 problems in the input:\n")
    assert "horizon.currency = 'dollar'" in err
    assert "price_usd_per_mwh = 'many'" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--formulation", "magic"), "must be one of ac_tangent, lindistflow"),
        (("--losses", "all"), "must be one of linear, none"),
        (("--max-passes", "0"), "max_passes = 0: must be at least 1"),
        (("--max-passes", "many"), "Invalid value for '--max-passes'"),
        (("--unknown",), "No such option"),
    ],
)
def test_a_wrong_option_exits_2_and_says_what_is_right(arguments, message, run, case: Path, tmp_path: Path):
    code, _, err = run("clear", case, "--out", tmp_path / "out", *arguments)
    assert code == 2
    assert message in err
    assert not (tmp_path / "out").exists()


def test_the_output_folder_must_be_named(run, case: Path):
    code, _, err = run("clear", case)
    assert code == 2
    assert "--out" in err


def test_a_file_in_place_of_the_output_folder_exits_2_and_stays(run, case: Path, tmp_path: Path):
    path = tmp_path / "out"
    path.write_text("mine")
    code, _, err = run("clear", case, "--out", path)
    assert code == 2
    assert "is a file, not a folder" in err
    assert path.read_text() == "mine"


def test_an_infeasible_case_clears_and_tells_what_is_broken(run, case: Path, tmp_path: Path):
    change("limits.csv", ",,A,0.96,", ",,A,1.02,")(case)
    code, out, _ = run("clear", case, "--out", tmp_path / "out")
    assert code == 0
    assert "broken            1 limit in 3 intervals, for " in out
    assert "- voltage, worst: bus A, interval 1: " in out
    assert "holds: AC-feasible but for the 1 limit told broken (pandapower)" in out
    broken = pd.read_csv(tmp_path / "out" / "broken_limits.csv")
    assert broken.element.tolist() == ["bus A"] * 3
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["broken_limits"], summary["penalty"]) == (1, pytest.approx(broken.cost_usd.sum()))
    assert summary["certificate"]["broken_limits"] == 1


def test_an_infeasible_case_exits_3_when_hard_names_the_limits_and_leaves_the_output_alone(
    run, case: Path, tmp_path: Path
):
    run("clear", case, "--out", tmp_path / "out")
    before = contents(tmp_path / "out")
    change("limits.csv", ",,A,0.96,", ",,A,1.02,")(case)
    code, out, err = run("clear", case, "--out", tmp_path / "out", "--hard")
    assert (code, out) == (3, "")
    assert "  - bus A, interval 0: limit 1.02 pu" in err
    assert contents(tmp_path / "out") == before


def test_a_case_that_does_not_converge_exits_4_with_its_results(run, tmp_path: Path, monkeypatch):
    without_finish(monkeypatch)
    write_case(CASES["day_33"](), tmp_path / "case")
    code, out, err = run("clear", tmp_path / "case", "--out", tmp_path / "out", "--max-passes", "1")
    assert code == 4
    assert err.startswith("dlmp: not converged in pass 1: ")
    assert "these results may not be published" in out
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["status"] == "not_converged"
    unsettled = CSV_FILES - {f"{name}.csv" for name in SETTLEMENT_TABLES}
    assert {path.name for path in (tmp_path / "out").iterdir()} == unsettled | {"summary.json"}


def test_a_load_beyond_the_feeder_exits_4(run, case: Path, tmp_path: Path):
    change("load_profile.csv", "1,1.5", "1,5000")(case)
    code, _, err = run("clear", case, "--out", tmp_path / "out")
    assert code == 4
    assert "no solution in intervals [1], neither without bids nor with all supply" in err


def test_every_error_of_dlmp_has_an_exit_code():
    assert set(EXIT_CODES) == set(errors.DlmpError.__subclasses__())
    assert EXIT_CODES[errors.InfeasibleError] == 3
    assert EXIT_CODES[errors.SolverError] == EXIT_CODES[errors.PowerFlowError] == 4
    assert exit_code(NoAnswerError("")) == exit_code(ContentError(422, "", "")) == 5


def test_every_command_is_found_in_the_module_that_is_loaded_for_it():
    for module, names in COMMANDS.items():
        app = import_module(module).app
        found = [command.name for command in app.registered_commands] + [group.name for group in app.registered_groups]
        assert sorted(found) == sorted(names)


def test_a_clearing_loads_neither_the_web_server_nor_the_database():
    code = "import sys; sys.argv = ['dlmp', 'cases']; import dlmp.cli as cli, contextlib\n"
    code += "with contextlib.suppress(SystemExit): cli.main()\n"
    code += "assert not {'fastapi', 'sqlalchemy', 'uvicorn'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_an_error_that_is_a_fault_of_dlmp_keeps_its_traceback(case: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(engine, "clear", lambda *arguments, **options: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["dlmp", "clear", str(case), "--out", str(tmp_path / "out")])
    with pytest.raises(ZeroDivisionError):
        main()


def test_network_describes_the_feeder_and_its_power_flow(run, tmp_path: Path):
    write_case(CASES["base_33"](), tmp_path / "case")
    code, out, err = run("network", tmp_path / "case")
    assert (code, err) == (0, "")
    rows = {line[:16].strip(): line[18:] for line in out.splitlines()}
    assert rows["buses"] == "33, 33 nodes"
    assert rows["fixed load"] == "3,715.0 kW, 2,300.0 kvar"
    assert rows["losses"] == "202.68 kW"
    assert rows["resources"] == "none"


def test_network_still_describes_a_feeder_that_cannot_carry_its_load(run, case: Path):
    change("load_profile.csv", "0,1\n", "0,5000\n")(case)
    code, out, err = run("network", case)
    assert code == 4
    assert "topology          radial" in out
    assert "no solution at the load of interval 0" in err


def test_cases_lists_what_ships_in_one_line_each(run, shipped_day: Path):
    code, out, _ = run("cases")
    assert code == 0
    assert [line.split() for line in out.splitlines()] == [
        ["name", "buses", "intervals", "case"],
        ["day33", "33", "3", "day_33"],
    ]


def test_a_shipped_case_goes_by_its_name_unless_a_folder_has_it(run, shipped_day: Path, case: Path, monkeypatch):
    _, out, _ = run("network", "day33")
    assert "case              day_33" in out
    monkeypatch.chdir(case.parent)
    case.rename("day33")
    _, out, _ = run("network", "day33")
    assert "case              four buses" in out


def test_demo_prints_prices_limits_chart_and_verdict_and_draws_two_pictures(run, shipped_day: Path, tmp_path: Path):
    code, out, err = run("demo", "--out", tmp_path / "demo")
    assert (code, err) == (0, "")
    for part in ("Prices on", "Binding limits", "bus 17", "substation price", "certificate       holds"):
        assert part in out
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {"feeder.png", "price.png"}
    for path in (tmp_path / "demo").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")


def test_demo_says_when_nothing_binds(run, tmp_path: Path, monkeypatch):
    write_case(CASES["base_33"](), tmp_path / "networks" / "day33")
    monkeypatch.setattr(shipped, "PLACES", (tmp_path / "networks",))
    _, out, _ = run("demo", "--out", tmp_path / "demo")
    assert "No network limit binds." in out


def test_demo_without_its_case_exits_2(run, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(shipped, "PLACES", (tmp_path,))
    code, _, err = run("demo", "--out", tmp_path / "demo")
    assert code == 2
    assert "those that ship: none" in err


@pytest.mark.parametrize("columns", [80, 120])
def test_printed_lines_keep_the_width_and_have_no_colour_codes(columns, run, shipped_day, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    _, out, _ = run("demo", "--out", tmp_path / "d")
    tables = out.partition("pictures")[0]
    assert np.max([len(line) for line in tables.splitlines()]) <= columns
    assert "\x1b" not in out


def test_the_installed_program_passes_on_its_exit_code_without_a_traceback(tmp_path: Path):
    command = [sys.executable, "-m", "dlmp.cli", "clear", "nowhere", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("  - case, folder = 'nowhere': is no folder")
    assert "Traceback" not in done.stderr


def test_a_day_is_rolled_into_tables_that_tell_which_clearing_holds(run, case: Path, tmp_path: Path):
    noon = write_good_case(tmp_path / "noon")
    change("import_prices.csv", "2,-5,", "2,35,")(noon)
    code, out, err = run("roll", case, f"1={case}", f"2={noon}", "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(DAY_FILES)
    prices = pd.read_csv(tmp_path / "out" / "prices.csv")
    assert prices[["interval", "cleared_from"]].drop_duplicates().values.tolist() == [[0, 0], [1, 1], [2, 2]]
    at_source = prices[prices.bus == "S"].lmp_usd_per_mwh
    np.testing.assert_allclose(at_source, [20, 50, 35], atol=1e-6)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [step["first_interval"] for step in summary["steps"]] == [0, 1, 2]
    labels = [line.split("  ")[0] for line in out.splitlines()]
    assert labels == ["case", "status", "total cost", "cleared", "", "", "uplift", "results"]


@pytest.mark.parametrize(
    ("step", "message"), [("noon", "INTERVAL=CASE"), ("x=noon", "INTERVAL=CASE"), ("7={case}", "must be 1 to 2")]
)
def test_a_step_that_cannot_be_is_bad_input(run, case: Path, tmp_path: Path, step: str, message: str):
    code, out, err = run("roll", case, step.format(case=case), "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert message in err
    assert not (tmp_path / "out").exists()


def test_bench_runs_the_benchmarks_of_the_checkout(monkeypatch, capsys, tmp_path: Path):
    made = []

    def started(command, *, env, check):
        made.append((command[1:], env["PYTHONPATH"].split(os.pathsep)[0]))
        return subprocess.CompletedProcess(command, 7)

    monkeypatch.setattr(subprocess, "run", started)
    run = command_line(capsys, monkeypatch, "bench")
    assert run("--quick", "--out", tmp_path)[0] == 7
    assert run("--resume")[0] == 7
    root = str(Path(dlmp.__file__).parents[1])
    assert made == [
        (["-m", "benchmarks", "--quick", "--out", str(tmp_path)], root),
        (["-m", "benchmarks", "--resume", "--out", "build/bench"], root),
    ]


def test_bench_outside_a_checkout_exits_2_and_says_where_the_benchmarks_are(monkeypatch, capsys, tmp_path: Path):
    monkeypatch.setattr("dlmp.cli.bench.CHECKOUT", tmp_path)
    code, out, error = command_line(capsys, monkeypatch, "bench")()
    assert (code, out) == (2, "")
    assert "part of the repository" in error
