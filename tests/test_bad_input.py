"""Bad input: one error that names every problem, and no other exception."""

import pytest
from broken_cases import (
    BROKEN_CASES,
    SERVICES,
    STORE_PROFILE,
    STORES,
    BrokenCase,
    append,
    change,
    remove,
    write_good_case,
)

from dlmp.casefolder import read_case
from dlmp.errors import InputError


@pytest.mark.parametrize("broken", BROKEN_CASES, ids=lambda broken: broken.name)
def test_one_mistake_is_reported_by_element_field_and_message(broken: BrokenCase, tmp_path):
    folder = write_good_case(tmp_path / "case")
    broken.edit(folder)
    with pytest.raises(InputError) as caught:
        read_case(folder)
    found = [(problem.element, problem.field) for problem in caught.value.problems if broken.message in problem.message]
    assert (broken.element, broken.field) in found, caught.value
    assert len(caught.value.problems) == broken.problems, caught.value


def test_the_table_has_at_least_forty_cases_of_different_names():
    names = {broken.name for broken in BROKEN_CASES}
    assert len(names) == len(BROKEN_CASES) >= 40


def test_five_mistakes_in_five_files_come_back_at_once(tmp_path):
    folder = write_good_case(tmp_path / "case")
    for edit in (
        change("case.toml", "USD", "dollar"),
        change("lines.csv", "0.493,0.2511", "0,0"),
        change("import_prices.csv", "1,50", "1,many"),
        change("resources.csv", "flex,B", "flex,Z"),
        append("bids.csv", "pw,,supply,0,1,1"),
    ):
        edit(folder)
    with pytest.raises(InputError) as caught:
        read_case(folder)
    assert [(problem.element, problem.field) for problem in caught.value.problems] == [
        ("case.toml", "horizon.currency"),
        ("line AB", "r_ohm, x_ohm"),
        ("import_prices.csv line 3", "price_usd_per_mwh"),
        ("resources.csv line 3", "bus"),
        ("bids.csv line 6", "resource"),
    ]
    assert str(caught.value).startswith("5 problems in the input:")


def test_mistakes_in_both_tables_of_stores_come_back_with_those_of_their_resources(tmp_path):
    folder = write_good_case(tmp_path / "case")
    STORES(folder)
    STORE_PROFILE(folder)
    for edit in (
        change("resources.csv", "pv,C", "pv,Z"),
        append("stores.csv", "cart,1,,,1,,,,,,,,"),
        change("stores.csv", "0.95,0.94,0.999", "0,2,-1"),
        append("store_profile.csv", "car,7,,,,,1"),
    ):
        edit(folder)
    with pytest.raises(InputError) as caught:
        read_case(folder)
    assert [(problem.element, problem.field) for problem in caught.value.problems] == [
        ("resources.csv line 2", "bus"),
        ("stores.csv line 4", "resource"),
        ("store_profile.csv line 4", "interval"),
        ("store of battery", "charge_efficiency"),
        ("store of battery", "discharge_efficiency"),
        ("store of battery", "retention"),
    ]


@pytest.mark.parametrize("setting", ["intervals = 3", "interval_minutes = 60", "start = 2026-07-01T07:00:00Z"])
def test_numbers_of_stores_are_still_checked_without_a_horizon(setting, tmp_path):
    folder = write_good_case(tmp_path / "case")
    STORES(folder)
    STORE_PROFILE(folder)
    change("stores.csv", "0.95", "95")(folder)
    change("case.toml", setting, "")(folder)
    with pytest.raises(InputError) as caught:
        read_case(folder)
    assert [problem.field for problem in caught.value.problems] == [
        f"horizon.{setting.partition(' ')[0]}",
        "charge_efficiency",
    ]


def test_a_row_left_out_of_nodes_makes_no_second_problem_of_what_refers_to_it(tmp_path):
    folder = write_good_case(tmp_path / "case")
    change("nodes.csv", "S,12.66", "S,high")(folder)
    change("limits.csv", ",,A,", ",,S,")(folder)
    with pytest.raises(InputError) as caught:
        read_case(folder)
    assert [problem.element for problem in caught.value.problems] == ["nodes.csv line 2"]


def test_tables_are_still_checked_without_case_toml(tmp_path):
    folder = write_good_case(tmp_path / "case")
    remove("case.toml")(folder)
    change("bids.csv", "supply", "sell")(folder)
    with pytest.raises(InputError) as caught:
        read_case(folder)
    assert [problem.element for problem in caught.value.problems] == ["case.toml", "bids.csv line 2"]


def test_a_file_in_place_of_the_folder_is_reported(tmp_path):
    path = tmp_path / "case"
    path.write_text("")
    with pytest.raises(InputError, match="is no folder"):
        read_case(path)


def test_a_folder_in_place_of_a_table_is_reported(tmp_path):
    folder = write_good_case(tmp_path / "case")
    remove("bids.csv")(folder)
    (folder / "bids.csv").mkdir()
    with pytest.raises(InputError, match=r"bids\.csv, file"):
        read_case(folder)


def test_mistakes_in_the_tables_of_services_come_back_with_those_of_the_network(tmp_path):
    folder = write_good_case(tmp_path / "case")
    for edit in (
        SERVICES,
        change("lines.csv", "0.493,0.2511", "0,0"),
        change("service_offers.csv", "25,4,1", "25,4,0.5"),
        change("requirements.csv", "0,7,80", "0,7,0"),
        append("requirements.csv", "relief,capacity_down,branch,BD,0,1,500"),
        append("zones.csv", "end,D"),
    ):
        edit(folder)
    with pytest.raises(InputError) as caught:
        read_case(folder)
    assert [(problem.element, problem.field) for problem in caught.value.problems] == [
        ("line AB", "r_ohm, x_ohm"),
        ("service offer of flex", "duration_hours"),
        ("zones.csv line 5", "bus"),
        ("requirements.csv line 6", "element"),
        ("requirement support", "shortage_usd_per_mw_h"),
    ]


def test_tables_of_services_without_a_header_are_told_and_no_more(tmp_path):
    folder = write_good_case(tmp_path / "case")
    SERVICES(folder)
    for name in ("service_offers.csv", "zones.csv"):
        (folder / name).write_text("", "utf-8")
    with pytest.raises(InputError) as caught:
        read_case(folder)
    assert [(problem.element, problem.field) for problem in caught.value.problems] == [
        ("service_offers.csv", "file"),
        ("zones.csv", "file"),
    ]
