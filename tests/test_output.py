"""Results as files: whole, exact, and without NaN."""

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cases import CASES
from pandas.testing import assert_frame_equal
from settlementcases import capacity_by_hand

from dlmp import output
from dlmp.clearing import Clearing, clear
from dlmp.errors import InputError, SolverError
from dlmp.output import RESULT_FILES, SETTLEMENT_TABLES, TABLES, check_folder, write_files, write_results
from dlmp.settlement import settle


@pytest.fixture(scope="module")
def clearing() -> Clearing:
    return clear(CASES["day_33"]())


@pytest.fixture(scope="module")
def folder(clearing: Clearing, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("results") / "new" / "day"
    write_results(clearing, folder, parquet=True, wall_seconds=1.5)
    return folder


def table_of(name: str, clearing: Clearing) -> pd.DataFrame:
    return TABLES[name](clearing) if name in TABLES else SETTLEMENT_TABLES[name](settle(clearing))


@pytest.fixture(scope="module")
def served() -> Clearing:
    """A clearing that holds capacity ready."""
    return clear(capacity_by_hand())


@pytest.fixture(scope="module")
def served_folder(served: Clearing, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    write_results(served, folder, parquet=True, wall_seconds=1.5)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", [*TABLES, *SETTLEMENT_TABLES])
def test_a_csv_file_read_back_equals_the_table_to_the_last_digit(name: str, clearing: Clearing, folder: Path):
    assert_reads_back(table_of(name, clearing), folder, name)


@pytest.mark.parametrize("name", ["services", "requirements", "settlement", "statements"])
def test_services_read_back_equal_their_tables(name: str, served: Clearing, served_folder: Path):
    table = table_of(name, served)
    assert len(table) > 0
    assert_reads_back(table, served_folder, name)
    assert_frame_equal(pd.read_parquet(served_folder / f"{name}.parquet"), table, check_exact=True)


def test_the_summary_says_how_much_of_each_service_is_held_ready_and_what_it_costs(served_folder: Path):
    """50 kW for an hour, offered at 5 and priced at 5, of which the requirement's 7 pays for what the line takes."""
    summary = json.loads((served_folder / "summary.json").read_text())
    own = summary["services"].pop("capacity_up")
    assert summary["services"] == {}
    assert own["price_range_usd_per_mw_h"] == pytest.approx([5.0, 5.0], rel=1e-6)
    assert (own["reserved_kw_h"], own["shortage_kw_h"]) == pytest.approx((50.0, 0.0), abs=1e-6)
    assert (own["as_offered_usd"], own["paid_usd"]) == pytest.approx((0.25, 0.25), rel=1e-6)
    requirement = pd.read_csv(served_folder / "requirements.csv").iloc[0]
    assert requirement.price_usd_per_mw_h == pytest.approx(7.0, rel=1e-6)


def assert_reads_back(table: pd.DataFrame, folder: Path, name: str) -> None:
    dates = [column for column in ("interval_start",) if column in table]
    columns = ("bus", "from_bus", "to_bus", "phase", "from_phase", "to_phase", "amount")
    text = dict.fromkeys(columns, str)
    blank = {"loading_percent": "Float64"}
    dtype = {column: kind for column, kind in (text | blank).items() if column in table}
    read = pd.read_csv(folder / f"{name}.csv", float_precision="round_trip", dtype=dtype, parse_dates=dates)
    assert_frame_equal(read, table, check_exact=True, check_dtype=False)


@pytest.mark.parametrize("name", [*TABLES, *SETTLEMENT_TABLES])
def test_a_parquet_file_read_back_equals_the_table(name: str, clearing: Clearing, folder: Path):
    assert_frame_equal(pd.read_parquet(folder / f"{name}.parquet"), table_of(name, clearing), check_exact=True)


def test_money_is_written_in_plain_digits_and_the_statements_add_up_to_zero(folder: Path):
    for name in SETTLEMENT_TABLES:
        amounts = pd.read_csv(folder / f"{name}.csv", dtype=str, keep_default_na=False).amount
        assert amounts.str.fullmatch(r"-?[0-9]+\.[0-9]{8}").all(), name
    statements = pd.read_csv(folder / "statements.csv", dtype=str)
    assert sum(map(Decimal, statements.amount)) == 0
    assert json.loads((folder / "summary.json").read_text())["settlement"]["paid_once"] is True


def test_what_has_not_converged_is_not_settled(clearing: Clearing, folder: Path, tmp_path: Path):
    (tmp_path / "statements.csv").write_text("older")
    write_results(replace(clearing, status="not_converged"), tmp_path, with_certificate=False, wall_seconds=0.0)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"summary.json", *(f"{name}.csv" for name in TABLES)}
    assert json.loads((tmp_path / "summary.json").read_text())["settlement"] is None


def test_times_are_rfc_3339_in_utc(folder: Path):
    starts = pd.read_csv(folder / "prices.csv").interval_start
    assert sorted(set(starts)) == ["2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z", "2026-01-01T02:00:00Z"]


def test_no_file_holds_nan_or_infinity_or_a_negative_zero(folder: Path):
    for path in folder.glob("*.csv"):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        for column in table.columns:
            bad = {"nan", "NaN", "inf", "-inf", "-0.0"} | ({""} if column != "loading_percent" else set())
            assert not bad & set(table[column]), (path.name, column)


def test_the_loading_of_a_branch_is_blank_where_it_has_no_rating(tmp_path: Path):
    clearing = clear(CASES["congestion_power_33"]())
    write_results(clearing, tmp_path, with_certificate=False, wall_seconds=0.0)
    flows = pd.read_csv(tmp_path / "flows.csv", dtype=str, keep_default_na=False)
    rated = np.isfinite(clearing.case.network.rating_from_pu)
    assert rated.sum() == 1
    assert ((flows.loading_percent == "") == ~rated).all()


def test_the_summary_is_strict_json_with_the_certificate_and_the_wall_time(folder: Path):
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    summary = json.loads((folder / "summary.json").read_text(), parse_constant=refuse)
    assert summary["wall_seconds"] == 1.5
    assert summary["certificate"]["feasible"] is True
    assert {"status", "objective", "passes", "residuals", "seconds", "currency"} <= summary.keys()


def test_the_summary_says_null_where_no_certificate_was_wanted(clearing: Clearing, tmp_path: Path):
    write_results(clearing, tmp_path, with_certificate=False, wall_seconds=0.0)
    assert json.loads((tmp_path / "summary.json").read_text())["certificate"] is None


def test_older_results_are_replaced_and_foreign_files_stay(clearing: Clearing, tmp_path: Path):
    for name in ("notes.txt", "prices.csv", "prices.parquet"):
        (tmp_path / name).write_text("older")
    write_results(clearing, tmp_path, with_certificate=False, wall_seconds=0.0)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"notes.txt", "summary.json", *(f"{name}.csv" for name in (*TABLES, *SETTLEMENT_TABLES))}
    assert (tmp_path / "notes.txt").read_text() == "older"
    assert (tmp_path / "prices.csv").read_text().startswith("interval_start,interval,bus")


@pytest.mark.parametrize("exists", [True, False])
def test_a_failure_halfway_leaves_the_folder_as_it_was(exists: bool, tmp_path: Path):
    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    folder = tmp_path / "out"
    if exists:
        folder.mkdir()
        (folder / "a").write_text("older")
    with pytest.raises(InputError, match="No space left on device"):
        write_files(folder, {"a": lambda path: path.write_text("new"), "b": fail}, ("a", "b"))
    assert [path.name for path in tmp_path.iterdir()] == (["out"] if exists else [])
    assert not exists or contents(folder) == {"a": b"older"}


def test_a_result_that_is_not_finite_is_not_written(clearing: Clearing, tmp_path: Path):
    prices = replace(clearing.prices, loss=clearing.prices.loss * float("nan"))
    with pytest.raises(SolverError, match="prices, loss"):
        write_results(replace(clearing, prices=prices), tmp_path / "out", wall_seconds=0.0)
    assert not list(tmp_path.iterdir())


def test_the_loading_of_a_rated_branch_that_is_no_number_is_not_taken_for_one_without_a_rating(tmp_path: Path):
    clearing = clear(CASES["congestion_power_33"]())
    flows = replace(clearing.flows, loading=clearing.flows.loading * float("nan"))
    with pytest.raises(SolverError, match="flows, loading_percent"):
        write_results(replace(clearing, flows=flows), tmp_path / "out", wall_seconds=0.0)


def test_a_file_in_place_of_the_folder_or_of_a_parent_is_refused(tmp_path: Path):
    path = tmp_path / "file"
    path.write_text("mine")
    for folder in (path, path / "below"):
        with pytest.raises(InputError, match="is a file"):
            check_folder(folder, RESULT_FILES)


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path):
    (tmp_path / "prices.csv").mkdir()
    with pytest.raises(InputError, match=r"in place of prices\.csv"):
        check_folder(tmp_path, RESULT_FILES)


def test_results_do_not_overwrite_the_case_that_they_are_of(tmp_path: Path):
    (tmp_path / "case.toml").write_text("")
    with pytest.raises(InputError, match="results have a folder of their own"):
        check_folder(tmp_path, RESULT_FILES)


def test_a_folder_without_permission_is_refused(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(output.os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match="no permission to write"):
        check_folder(tmp_path / "new", RESULT_FILES)
