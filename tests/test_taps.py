"""Regulators settled at what is cleared: where they end, whether they rest, and what is refused."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cases import CASES, without_finish
from village import write_village

from dlmp import InfeasibleError, InputError, clear, read_case, taps
from dlmp.casewriter import write_case
from dlmp.clearing import CONVERGED, NOT_CONVERGED, Clearing
from dlmp.cli import main
from dlmp.market import MarketCase
from dlmp.network.opendss import from_opendss
from dlmp.network.opendss.check import settle_taps, with_taps
from dlmp.report import tap_rows
from dlmp.settings import Settings
from dlmp.shipped import shipped_case
from dlmp.taps import clear_with_taps
from dlmp.units import BASE_KVA

HARD = Settings(limits="hard")
HEAVY = ("1,1.3", "1,3.2")
"""A second hour of two and a half times the load: the regulators as they were read leave its voltages low."""
LOOSE = ("v_min_pu = 0.94\nv_max_pu = 1.06", "options = {ratings = false}\nv_min_pu = 0.85\nv_max_pu = 1.2")
"""No limit but a wide band."""


@pytest.fixture
def run(capsys, monkeypatch):
    """Run the command line; gives exit code, standard output and standard error."""

    def run_main(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dlmp", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return stopped.value.code, *capsys.readouterr()

    return run_main


@pytest.fixture
def heavy(tmp_path: Path) -> MarketCase:
    return read_case(write_village(tmp_path / "village", load_profile_csv=HEAVY, case_toml=LOOSE))


def powers(clearing: Clearing) -> tuple[np.ndarray, np.ndarray]:
    """What `settle_taps` wants: (t, p) injections and (t, w) loads that follow their voltage [kVA]."""
    return clearing.awards.injection_kva(), clearing.case.law_pu * BASE_KVA


def with_least(case: MarketCase, v_min_pu: float) -> MarketCase:
    """No voltage but the source's may be lower."""
    network = case.network
    limit = np.where(network.is_source, network.v_min_pu, v_min_pu)
    return replace(case, network=replace(network, v_min_pu=limit))


def test_the_taps_it_ends_with_are_those_at_which_the_regulators_rest(heavy):
    found = clear_with_taps(heavy)
    assert found.settled
    assert len(found.rounds) == 2
    assert found.rounds[0] == heavy.network.taps
    assert all(found.taps[name] > tap + 0.01 for name, tap in heavy.network.taps.items())
    clearing = found.clearing
    network = clearing.case.network
    assert network.taps == found.taps
    assert found.interval == 1
    assert settle_taps(network, *powers(clearing))[1] == (found.taps, True)
    assert clearing.certificate.is_feasible
    assert clearing.certificate.voltage_mismatch_pu < 1e-9


def test_the_result_is_that_of_the_circuit_read_with_these_taps(heavy):
    """The user's own limits remain."""
    found = clear_with_taps(heavy)
    network = from_opendss(heavy.network.origin, v_min_pu=0.85, v_max_pu=1.2, ratings=False, taps=found.taps)
    own = replace(heavy, network=network)
    clearing = clear(own)
    np.testing.assert_array_equal(found.clearing.case.network.v_min_pu, network.v_min_pu)
    assert found.clearing.objective == pytest.approx(clearing.objective, rel=1e-9)
    np.testing.assert_allclose(found.clearing.prices.lmp_usd_per_mwh, clearing.prices.lmp_usd_per_mwh, atol=1e-5)


def test_the_interval_with_the_highest_load_sets_the_taps(tmp_path: Path):
    """Of two hours the heavy one decides, wherever it stands."""
    ends, intervals = [], []
    for number, profile in enumerate(("0,3.2\n1,0.5\n2,0.5", "0,0.5\n1,0.5\n2,3.2")):
        change = {"load_profile_csv": ("0,0.5\n1,1.3\n2,1", profile), "case_toml": LOOSE}
        case = read_case(
            write_village(tmp_path / str(number), **change, import_prices_csv=("20\n1,70\n2,45", "70\n1,70\n2,70"))
        )
        found = clear_with_taps(case)
        ends.append(found.taps)
        intervals.append(found.interval)
    assert ends[0] == ends[1]
    assert intervals == [0, 2]


def test_the_intervals_whose_regulators_would_move_are_named(heavy):
    """The lightest hour wants lower taps than the heavy one has set."""
    found = clear_with_taps(heavy)
    ends = settle_taps(found.clearing.case.network, *powers(found.clearing))
    assert found.moving == tuple(interval for interval, end in enumerate(ends) if end != (found.taps, True))
    assert found.moving == (0, 2)
    assert all(tap < found.taps[name] for name, tap in ends[0][0].items())


def test_taps_that_leave_no_dispatch_are_settled_at_the_loads_first(heavy):
    """Of the snapshot's taps voltages are low; from those that the controls come to, the day clears."""
    case = with_least(heavy, 0.91)
    network = case.network
    with pytest.raises(InfeasibleError, match=r"interval 1: limit 0\.91 pu"):
        clear(case, HARD)
    settled = settle_taps(network, -case.load_pu * BASE_KVA, case.law_pu * BASE_KVA)[1][0]
    found = clear_with_taps(case, HARD)
    assert found.rounds[0] == settled != network.taps
    assert found.settled
    assert found.clearing.status == CONVERGED
    np.testing.assert_array_equal(found.clearing.case.network.v_min_pu, network.v_min_pu)
    assert found.clearing.certificate.is_feasible


def test_taps_at_which_limits_would_be_broken_are_settled_at_the_loads_first(heavy):
    """Limits are soft: the same taps as when they are hard, and the same clearing."""
    case = with_least(heavy, 0.91)
    assert len(clear(case).broken_limits())
    found, expected = clear_with_taps(case), clear_with_taps(case, HARD)
    assert found.rounds == expected.rounds
    assert found.clearing.broken_limits().empty
    assert found.clearing.objective == pytest.approx(expected.clearing.objective, rel=1e-9)


def test_where_no_taps_keep_all_limits_those_of_the_case_are_cleared_with_what_they_break(heavy):
    case = with_least(heavy, 0.98)
    found = clear_with_taps(case)
    assert found.rounds[0] == case.network.taps
    assert len(found.clearing.broken_limits())
    assert found.clearing.certificate.is_feasible


def test_taps_that_would_break_limits_end_it_unsettled_at_the_last_that_do_not(heavy, monkeypatch):
    low = dict.fromkeys(heavy.network.taps, 0.9)
    monkeypatch.setattr(taps, "settle_taps", lambda network, *power: [(low, True)] * 3)
    found = clear_with_taps(with_least(heavy, 0.85))
    assert (found.rounds, found.settled) == ((heavy.network.taps,), False)
    assert "at the taps that they move to next, limits would have to be broken" in found.obstacle


def test_where_settled_taps_leave_no_dispatch_either_the_limits_are_those_at_the_taps_of_the_case(heavy):
    case = with_least(heavy, 0.98)
    with pytest.raises(InfeasibleError) as alone:
        clear(case, HARD)
    with pytest.raises(InfeasibleError) as found:
        clear_with_taps(case, HARD)
    assert str(found.value) == str(alone.value)


def test_where_the_controls_rest_at_the_loads_nothing_is_cleared_twice(heavy, monkeypatch):
    monkeypatch.setattr(taps, "with_taps", None)
    monkeypatch.setattr(taps, "settle_taps", lambda network, *power: [(network.taps, True)])
    with pytest.raises(InfeasibleError, match=r"interval 1: limit 0\.91 pu"):
        clear_with_taps(with_least(heavy, 0.91), HARD)


def test_taps_that_leave_no_dispatch_end_it_unsettled_at_the_last_that_do(heavy, monkeypatch):
    low = dict.fromkeys(heavy.network.taps, 0.9)
    monkeypatch.setattr(taps, "settle_taps", lambda network, *power: [(low, True)] * 3)
    found = clear_with_taps(with_least(heavy, 0.85), HARD)
    assert (found.rounds, found.settled) == ((heavy.network.taps,), False)
    assert found.clearing.status == CONVERGED
    assert "at the taps that they move to next, no dispatch" in found.obstacle
    assert "interval 1: limit 0.85 pu" in found.obstacle


def test_a_market_that_pushes_its_regulators_on_tap_by_tap_comes_to_rest():
    """On IEEE 34 engines make up for every tap that a regulator lowers, which lifts what it measures again."""
    case = read_case(shipped_case("ieee34"))
    found = clear_with_taps(case)
    assert found.settled
    tap = np.array([[taps[name] for name in found.taps] for taps in found.rounds])
    assert len(tap) > 5
    assert (np.diff(tap, axis=0) < 1e-9).all()
    assert np.abs(np.diff(tap[2:], axis=0)).max() == pytest.approx(0.00625)
    assert settle_taps(found.clearing.case.network, *powers(found.clearing))[1] == (found.taps, True)
    assert found.clearing.certificate.is_feasible


def test_regulators_at_rest_are_cleared_once(heavy):
    first = clear_with_taps(heavy)
    again = clear_with_taps(replace(heavy, network=first.clearing.case.network))
    assert (len(again.rounds), again.settled) == (1, True)


def test_after_the_most_rounds_it_stops_and_says_that_they_do_not_rest(heavy):
    found = clear_with_taps(heavy, max_rounds=1)
    assert (found.rounds, found.settled) == ((heavy.network.taps,), False)
    assert found.obstacle == "they still move after 1, the most clearings"
    assert found.clearing.case.network.taps == heavy.network.taps


def test_taps_that_come_back_to_earlier_ones_end_it_unsettled(heavy, monkeypatch):
    low, high = (dict.fromkeys(heavy.network.taps, tap) for tap in (1.0, 1.025))
    monkeypatch.setattr(taps, "settle_taps", lambda network, *power: [(high if network.taps == low else low, True)] * 3)
    case = replace(heavy, network=with_taps(heavy.network, low))
    found = clear_with_taps(case)
    assert (found.rounds, found.settled) == ((low, high), False)
    assert found.obstacle == "they come back to the taps of clearing 1"
    assert found.moving == (0, 1, 2)


def test_regulators_that_hunt_end_it_unsettled(heavy, monkeypatch):
    monkeypatch.setattr(taps, "settle_taps", lambda network, *power: [(network.taps, False)] * 3)
    found = clear_with_taps(heavy)
    assert (len(found.rounds), found.settled) == (1, False)
    assert "they hunt" in found.obstacle


def test_a_clearing_that_does_not_converge_settles_nothing(heavy, monkeypatch):
    monkeypatch.setattr(taps, "settle_taps", None)
    without_finish(monkeypatch)
    network = heavy.network
    limit = network.v_min_pu.copy()
    limit[network.nodes_at(network.bus_number["end"])] = 0.955
    tight = replace(heavy, network=replace(network, v_min_pu=limit))
    found = clear_with_taps(tight, Settings(max_passes=1))
    assert (found.clearing.status, found.settled, found.moving) == (NOT_CONVERGED, False, ())
    assert found.obstacle == "the last clearing did not converge"


def test_a_network_without_opendss_or_without_regulators_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"taps, network = .*: only OpenDSS circuits have regulators"):
        clear_with_taps(CASES["base_33"]())
    folder = write_village(tmp_path / "village")
    path = folder / "village.dss"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith("New RegControl")))
    with pytest.raises(InputError, match=r"taps, network = 'village': has no regulators"):
        clear_with_taps(read_case(folder))


def test_the_command_line_prints_and_writes_the_taps(run, tmp_path: Path):
    folder = write_village(tmp_path / "village", load_profile_csv=HEAVY, case_toml=LOOSE)
    code, out, err = run("clear", folder, "--out", tmp_path / "out", "--taps")
    assert (code, err) == (0, "")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    found = clear_with_taps(read_case(folder))
    expected = found.taps
    assert summary["taps"] == expected
    assert summary.items() >= found.summary().items()
    assert found.summary() == {
        "taps_settled": True,
        "taps_obstacle": "",
        "taps_interval": 1,
        "taps_moving_intervals": [0, 2],
        "tap_clearings": 2,
    }
    (printed,) = (line for line in out.splitlines() if line.startswith("taps"))
    assert f"transformer.reg1 wdg 2: {expected['transformer.reg1 wdg 2']:.7g}, " in printed
    assert "the regulators rest after 2 clearings at the awards of interval 1, of the highest load" in out
    assert "at the awards of intervals 0, 2 they would move" in out
    assert "AC-feasible (OpenDSS)" in out


def test_the_report_says_why_regulators_do_not_rest(heavy):
    found = clear_with_taps(heavy, max_rounds=1)
    texts = [text for _, text in tap_rows(found)]
    assert texts[1] == f"the regulators do not rest after 1 clearing, whose last has these taps: {found.obstacle}"


def test_without_the_option_the_taps_are_those_of_the_network(run, tmp_path: Path):
    folder = write_village(tmp_path / "village")
    code, out, _ = run("clear", folder, "--out", tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (code, "taps_settled" in summary) == (0, False)
    assert summary["taps"] == read_case(folder).network.taps
    assert "regulators" not in out


def test_the_option_on_a_balanced_network_exits_2(run, tmp_path: Path):
    write_case(CASES["base_33"](), tmp_path / "case")
    code, _, err = run("clear", tmp_path / "case", "--out", tmp_path / "out", "--taps")
    assert code == 2
    assert "only OpenDSS circuits have regulators to settle" in err
    assert not (tmp_path / "out").exists()


def test_network_prints_taps_and_notes(run, tmp_path: Path):
    folder = write_village(tmp_path / "village")
    code, out, _ = run("network", folder)
    network = read_case(folder).network
    rows = [(line[:16].strip(), line[18:]) for line in out.splitlines()]
    assert code == 0
    assert dict(rows)["taps"] == ", ".join(f"{name}: {tap:.7g}" for name, tap in network.taps.items())
    assert [text for label, text in rows if label == "note"] == list(network.notes)
    assert network.notes
