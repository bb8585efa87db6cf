"""The shipped story: its three runs' claims, and the page in the documentation, which is what the command writes."""

import importlib.util
import re
from dataclasses import replace
from decimal import Decimal
from functools import cache
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from acopf import solve_acopf
from commandline import command_line
from test_capacity import PLANT, one_line

from dlmp.capacity import keeps_limits
from dlmp.casefolder import read_case
from dlmp.casewriter import write_case
from dlmp.clearing import CONVERGED, clear
from dlmp.errors import InputError
from dlmp.shipped import shipped_case
from dlmp.story import (
    PICTURES,
    STORY_FILES,
    Story,
    _gain_as_text,
    page_of,
    payment_table,
    price_table,
    run_table,
    tell_story,
)

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "goleta16.md"
FIGURE = re.compile(r"[-+]?\d[\d,]*\.\d+")


@cache
def told() -> Story:
    summer, spring = (read_case(shipped_case(name)) for name in ("goleta16", "goleta16_spring"))
    return tell_story(summer, 5000.0, [spring])


@pytest.fixture
def run(capsys, monkeypatch):
    return command_line(capsys, monkeypatch, "story")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    write_case(replace(one_line(PLANT), name="one line"), tmp_path / "small")
    return tmp_path / "small"


def test_the_feeder_is_what_it_is_said_to_be():
    case = told().case
    network = case.network
    assert 100 <= len(network.buses) <= 150
    assert network.is_radial
    table = pd.read_csv(shipped_case("goleta16") / "lines.csv")
    assert table.rate_kva.dropna().tolist() == [16800]
    assert set(table.rate_a[table.line.str.startswith("trunk")]) == {400}
    assert set(np.unique(network.base_kv)) == {16.0, 66.0}
    assert 60 <= len(case.resources) <= 90


def test_both_days_are_of_one_feeder_with_the_same_resources():
    folders = shipped_case("goleta16"), shipped_case("goleta16_spring")
    for name in ("nodes.csv", "lines.csv", "resources.csv", "stores.csv", "store_profile.csv", "bids.csv"):
        summer, spring = ((folder / name).read_bytes() for folder in folders)
        assert summer == spring


def test_the_tables_are_those_that_their_maker_writes(tmp_path: Path):
    place = shipped_case("goleta16")
    spec = importlib.util.spec_from_file_location("make_goleta16", place / "make.py")
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    for folder in ("goleta16", "goleta16_spring"):
        (tmp_path / folder).mkdir()
    maker.write(tmp_path)
    for path in sorted(tmp_path.glob("*/*.csv")):
        assert path.read_bytes() == (place.parent / path.parent.name / path.name).read_bytes()
    assert len(list(tmp_path.glob("*/*.csv"))) == len(list(place.parent.glob("goleta16*/*.csv"))) == 18


def test_with_nobody_dispatched_the_trunk_is_overloaded_in_the_evening():
    clearing = told().before.clearing
    broken = clearing.broken_limits()
    assert not told().before.holds
    assert broken.cause.unique().tolist() == ["congestion"]
    assert broken.element.str.startswith("trunk").all()
    assert set(broken.interval) <= {17, 18, 19, 20}
    assert (broken.value > 400).all()


def test_dispatch_by_price_holds_all_limits_today_and_with_five_megawatts_more():
    peaks = []
    for run in (told().after, told().more):
        certificate = run.clearing.certificate
        assert run.clearing.status == CONVERGED
        assert not len(run.clearing.broken_limits())
        assert certificate.is_feasible
        assert certificate.is_supported
        assert certificate.broken_limits == 0
        assert certificate.worst_loading_percent <= 100.0001
        peaks.append(run.clearing.case.load_p_kw.sum(axis=1).max())
    assert peaks[1] - peaks[0] == pytest.approx(5000.0)


def test_cost_and_prices_where_the_trunk_is_full_are_those_of_the_ac_oracle():
    day = told().more.clearing
    part = day.case.at(slice(16, 18), day.stores.energy_kwh[15])
    worth = np.maximum(day.stores.value_usd_per_mwh[17], 0.0)
    case = replace(part, stores=replace(part.stores, final_usd_per_mwh=worth))
    found, oracle = clear(case), solve_acopf(case)
    assert set(found.binding_limits().element) == {"trunk 0-1"}
    assert found.objective == pytest.approx(oracle.cost, rel=1e-6)
    np.testing.assert_allclose(found.prices.lmp_usd_per_mwh, oracle.price_p, rtol=0, atol=1e-3)


def test_dispatch_gains_at_least_five_megawatts_that_a_power_flow_confirms():
    story = told()
    assert story.gained_kw == story.more_kw - story.alone.more_kw >= 5000.0
    assert story.alone.more_kw < 0 and keeps_limits(story.alone.holds)
    assert story.alone.more_kw < story.alone.fails_kw <= 0


def test_the_spring_day_s_price_is_below_zero_at_noon_at_the_substation_and_its_limits_are_held():
    ((before, after),) = told().others
    noon = [10, 11, 12, 13, 14]
    assert (after.clearing.case.substation.price_usd_per_mwh[noon] < 0).all()
    assert (after.clearing.prices.lmp_usd_per_mwh[noon][:, after.clearing.case.network.source] < 0).all()
    assert set(before.clearing.broken_limits().cause) == {"voltage"}
    assert after.holds and not before.holds


@pytest.mark.parametrize("run", ["after", "more"])
def test_statements_add_up_to_nothing_and_their_energy_to_none(run: str):
    table = payment_table(told())
    assert table[f"amount_{run}"].sum() == Decimal(0)
    clearing = getattr(told(), run).clearing
    losses_kwh = clearing.local_supply.totals()["loss_kwh"]
    assert table[f"energy_{run}_kwh"].sum() == pytest.approx(losses_kwh, rel=1e-6)
    assert set(table.account) == {*clearing.case.resources.participant, "load", "substation", "operator"}


def test_prices_before_are_those_of_the_substation_and_losses_once_scarcity_is_left_out():
    table = price_table(told())
    before = table.before_without_scarcity_usd_per_mwh
    assert before.between(0.95 * table.substation_usd_per_mwh, 1.08 * table.substation_usd_per_mwh).all()
    assert (table.before_usd_per_mwh - before).max() > 1000
    assert table.more_usd_per_mwh.max() < 200


def test_the_page_in_the_documentation_is_what_the_command_writes():
    written = page_of(told(), "pictures/goleta16/").splitlines()
    for now, kept in zip_longest(written, PAGE.read_text("utf-8").splitlines()):
        assert FIGURE.sub("#", now) == FIGURE.sub("#", kept)
        for one, other in zip(FIGURE.findall(now), FIGURE.findall(kept), strict=True):
            last_digit = 10.0 ** -len(one.partition(".")[2])
            values = [float(text.replace(",", "")) for text in (one, other)]
            assert values[0] == pytest.approx(values[1], rel=0, abs=1.01 * last_digit), now


def test_the_page_s_pictures_are_there():
    for name in PICTURES:
        assert (PAGE.parent / "pictures" / "goleta16" / name).read_bytes().startswith(b"\x89PNG")


def test_a_run_s_figures_are_those_of_its_clearing():
    row = run_table(told()).iloc[2]
    clearing = told().more.clearing
    assert row.highest_loading_percent == 100 * clearing.flows.loading.max()
    assert row.lowest_v_pu == pytest.approx(clearing.voltages.table().query("bus != '66 kV'").v_pu.min())
    assert row.ac_feasible
    assert row.share_served_locally == clearing.local_supply.totals()["share_served_locally"]


def test_command_gives_page_tables_and_pictures(run, small: Path, tmp_path: Path):
    code, out, err = run(small, "--also", small, "--more-mw", "0.05", "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(STORY_FILES)
    assert str(tmp_path / "out" / "story.md") in out
    runs = pd.read_csv(tmp_path / "out" / "runs.csv")
    assert len(runs) == 5
    assert runs.peak_load_mw[2] == pytest.approx(runs.peak_load_mw[0] + 0.05)
    payments = pd.read_csv(tmp_path / "out" / "payments.csv", dtype=str)
    assert sum(map(Decimal, payments.amount_more)) == 0
    page = (tmp_path / "out" / "story.md").read_text("utf-8")
    assert page.startswith("# one line: what dispatch is worth\n")
    assert set(re.findall(r"\]\((\w+\.png)\)", page)) == set(PICTURES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "case, folder = 'nowhere': is no folder"),
        (["SMALL", "--also", "nowhere"], "case, folder = 'nowhere': is no folder"),
        (["SMALL", "--more-mw", "0"], "story, more_kw = 0.0: must be finite and above zero"),
        (["SMALL", "--more-mw", "nan"], "must be finite and above zero"),
        (["SMALL", "--more-mw", "inf"], "must be finite and above zero"),
    ],
)
def test_bad_input_exits_2_and_writes_nothing(arguments, message, run, small: Path, tmp_path: Path):
    code, out, err = run(*[small if word == "SMALL" else word for word in arguments], "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert message in err
    assert not (tmp_path / "out").exists()


def test_a_case_folder_is_no_place_for_a_story(run, small: Path):
    code, _, err = run(small, "--out", small)
    assert code == 2
    assert "results have a folder of their own" in err


def test_a_case_without_resources_has_no_story():
    with pytest.raises(InputError, match="nothing to dispatch"):
        tell_story(one_line(), 10.0)


def test_a_story_without_a_gain_says_so():
    failing = replace(told(), more=told().before)
    assert failing.gained_kw == -failing.alone.more_kw
    assert replace(failing, alone=replace(failing.alone, more_kw=3000.0)).gained_kw == 0
    hopeless = replace(failing, after=failing.before)
    assert hopeless.gained_kw is None
    assert "nothing is gained" in _gain_as_text(hopeless)


def test_the_largest_load_with_dispatch_is_looked_for_when_asked():
    story = tell_story(one_line(PLANT), 66.0, with_largest=True)
    assert 69.5 < story.carried_kw < 70.0
    assert story.gained_kw == story.dispatched.more_kw - story.alone.more_kw == pytest.approx(50.0, abs=0.5)
    assert "0.00 MW more are too many with dispatch, too." in _gain_as_text(story)
