"""``dlmp simulate``: its bids come from a seed, and its day ends with prices and statements that balance."""

import csv
import re
import sys
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from dlmp import Client, clear, read_case
from dlmp.cli import main
from dlmp.cli.simulate import _own_command
from dlmp.errors import InputError
from dlmp.shipped import shipped_case
from dlmp.simulation import own_service, simulate_day
from dlmp.simulation.casebids import case_participants
from dlmp.simulation.portfolio import portfolios

SHIPPED = [
    {"resource": "roof", "bus": "3", "phase": "", "kind": "solar", "p_max_kw": "400"},
    {"resource": "battery", "bus": "4", "phase": "", "kind": "storage", "p_max_kw": "0"},
]
PLACES = [(str(bus), "") for bus in range(10)]


def test_the_same_seed_gives_the_same_portfolios_and_another_one_others():
    first, again, other = (portfolios(SHIPPED, PLACES, 900.0, 3, seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_every_curve_is_monotone_and_within_what_is_registered():
    for owner in portfolios(SHIPPED, PLACES, 900.0, 12, 5):
        for asset in owner.assets:
            sign = 1.0 if asset.side == "supply" else -1.0
            for interval in range(24):
                curve = asset.offer(interval, 24)
                assert all(sign * before <= sign * after for (_, before), (_, after) in pairwise(curve))
                most_kw = asset.p_max_kw if asset.side == "supply" else -asset.p_min_kw
                assert sum(kw for kw, _ in curve) <= most_kw + 0.05


def test_there_is_no_sun_at_night_and_most_of_it_at_noon():
    roof = portfolios(SHIPPED, PLACES, 900.0, 1, 1)[0].assets[0]
    offered = [sum(kw for kw, _ in roof.offer(hour, 24)) for hour in range(24)]
    assert offered[0] == offered[23] == 0.0
    assert max(offered) == max(offered[12:14]) > 390


def test_names_of_many_aggregators_are_all_different():
    owners = portfolios(SHIPPED, PLACES, 900.0, 20, 1)
    assert len({owner.name for owner in owners}) == 20
    assert len({asset.name for owner in owners for asset in owner.assets}) == 61


def test_a_day_ends_with_prices_awards_and_statements_that_balance_and_is_kept(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    kept = tmp_path / "day"
    arguments = ["--feeder", "feeder33", "--aggregators", "2", "--keep", str(kept)]
    monkeypatch.setattr(sys, "argv", ["dlmp", "simulate", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    out, err = capsys.readouterr()
    assert (stopped.value.code, err) == (0, "")
    assert len(re.findall(r"^ \d\d:00 ", out, re.MULTILINE)) in (23, 24, 25)
    for party in ("Sunrise", "Meadow", "load", "substation", "operator"):
        assert re.search(rf"^ {party} ", out, re.MULTILINE)
    assert re.search(r"^ sum +0\.00", out, re.MULTILINE)
    steps = out.partition("Steps")[2]
    names = ("start the service", "register", "bid", "close the gate", "clear", "publish", "settle", "read")
    assert [name for name in names if re.search(rf"^ {name} +\d+\.\d\d ", steps, re.MULTILINE)] == list(names)
    assert "market settled" in steps
    assert f"serve --data-dir {kept}" in out
    with own_service(kept) as (url, key), Client(url, key) as operator:
        (market,) = operator.markets()
        assert (market.name, market.state) == ("simulated feeder33", "settled")


def test_as_shipped_the_participants_of_a_case_bid_what_they_bid_there(server):
    day = simulate_day(server.url, server.key, "goleta16", None, 0, lambda text: None)
    case = read_case(shipped_case("goleta16"))
    if day.market.intervals != case.horizon.intervals:
        pytest.skip("the clocks change tomorrow in Los Angeles")
    assert set(day.participants.values()) == set(case.resources.participant.tolist())
    expected = clear(case)
    wide = day.prices.pivot(index="interval", columns="bus", values="price_usd_per_mwh")[case.network.bus.tolist()]
    np.testing.assert_allclose(wide, expected.prices.lmp_usd_per_mwh, rtol=1e-5, atol=1e-4)
    awards = day.awards.pivot(index="interval", columns="resource", values="net_injection_kw")
    total = awards[case.resources.name.tolist()].sum(axis=1)
    np.testing.assert_allclose(total, expected.awards.net_injection_kw.sum(axis=1), rtol=1e-5, atol=0.1)


CASE = {
    "case.toml": """name = "lane"
[network]
source = "tables:."
[horizon]
start = 2026-07-01T00:00:00Z
interval_minutes = 60
intervals = 2
""",
    "nodes.csv": "bus,base_kv,p_kw,is_source\nS,12,,1\nA,12,300,\n",
    "lines.csv": "line,from_bus,to_bus,r_ohm,x_ohm\nSA,S,A,0.9,0.7\n",
    "import_prices.csv": "interval,price_usd_per_mwh\n0,30\n1,35\n",
    "resources.csv": "resource,bus,kind,p_min_kw,p_max_kw,participant\n"
    "plant,A,generator,0,50,north\nshed,A,demand_response,-5,0,south\nbox,A,storage,-9,9,north\n",
    "availability.csv": "resource,interval,p_max_kw\nplant,1,30\n",
    "bids.csv": "resource,side,segment,quantity_kw,price_usd_per_mwh,price_end_usd_per_mwh,is_self_scheduled\n"
    "plant,supply,0,10,,,1\nplant,supply,1,25,10,20,0\nplant,supply,2,25,30,,0\nshed,demand,0,7,40,,0\n",
    "stores.csv": "resource,charge_max_kw,discharge_max_kw,energy_max_kwh,initial_kwh,shortfall_usd_per_mwh\n"
    "box,9,8,20,4,500\n",
    "store_profile.csv": "resource,interval,energy_min_kwh\nbox,1,3\n",
}


def day_of(intervals):
    return SimpleNamespace(
        id="mkt",
        intervals=intervals,
        interval_minutes=60,
        starts_at="2026-07-02T00:00:00Z",
        ends_at=f"2026-07-02T{intervals:02}:00:00Z",
    )


@pytest.fixture
def lane(tmp_path):
    """Bids of each resource of a small case by the name of its participant, in a market of so many intervals."""

    def bids(intervals=2, **changed):
        for name, text in (CASE | changed).items():
            (tmp_path / name).write_text(text, "utf-8")
        with (tmp_path / "resources.csv").open(encoding="utf-8", newline="") as file:
            owners = case_participants(read_case(tmp_path), list(csv.DictReader(file)))
        return {
            (owner.name, asset.name): list(asset.bids(day_of(intervals), "res"))
            for owner in owners
            for asset in owner.assets
        }

    return bids


def test_a_case_is_bid_as_far_as_its_resources_reach(lane):
    bids = lane()
    plant = [(bid.product, bid.side, bid.segments, bid.interval_start) for bid in bids["north", "plant"]]
    first, second = "2026-07-02T00:00:00Z", "2026-07-02T01:00:00Z"
    assert plant == [
        ("self_schedule", "supply", [(10.0,)], first),
        ("energy", "supply", [(25.0, 10.0, 20.0), (15.0, 30.0, 30.0)], first),
        ("self_schedule", "supply", [(10.0,)], second),
        ("energy", "supply", [(20.0, 10.0, 18.0)], second),
    ]
    shed = [(bid.side, bid.segments) for bid in bids["south", "shed"]]
    assert shed == [("demand", [(5.0, 40.0, 40.0)])] * 2


def test_a_store_of_a_case_is_bid_for_the_whole_day_and_begins_again_on_a_longer_one(lane):
    (store,) = lane(3)["north", "box"]
    assert (store.interval_start, store.interval_end) == ("2026-07-02T00:00:00Z", "2026-07-02T03:00:00Z")
    assert store.energy_min_kwh == [0.0, 3.0, 0.0]
    assert (store.charge_max_kw, store.discharge_max_kw) == ([9.0] * 3, [8.0] * 3)
    assert (store.initial_kwh, store.shortfall_usd_per_mwh) == (4.0, 500.0)


def test_what_cannot_be_bid_as_it_is_shipped_is_refused(lane):
    ramps = (
        CASE["resources.csv"]
        .replace("participant", "participant,ramp_up_kw_per_min")
        .replace("north\nshed", "north,1\nshed")
    )
    with pytest.raises(InputError, match="ramp_up_kw_per_min = 1: cannot be bid as they are shipped"):
        lane(**{"resources.csv": ramps})


def test_a_service_that_runs_keeps_what_it_has_itself(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["dlmp", "simulate", "--url", "http://127.0.0.1:1", "--keep", "here"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "--keep" in capsys.readouterr().err


def test_an_own_service_needs_its_operators_key(capsys, monkeypatch):
    monkeypatch.delenv("DLMP_KEY", raising=False)
    monkeypatch.setattr(sys, "argv", ["dlmp", "simulate", "--url", "http://127.0.0.1:1"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "--key-file" in capsys.readouterr().err


def test_how_the_program_is_called_again_is_told(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "dlmp"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(program)])
    monkeypatch.setenv("PATH", str(program.parent))
    assert _own_command() == ["dlmp"]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _own_command() == [str(program)]
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "dlmp" / "cli" / "__main__.py")])
    assert _own_command() == [sys.executable, "-m", "dlmp.cli"]
