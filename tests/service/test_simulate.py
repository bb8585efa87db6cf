"""``dlmp simulate``: its bids come from a seed, and its day ends with prices and statements that balance."""

import re
import sys
from itertools import pairwise

import numpy as np
import pytest

from dlmp import Client, clear, read_case
from dlmp.cli import main
from dlmp.shipped import shipped_case
from dlmp.simulation import own_service, simulate_day
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


def test_a_day_ends_with_prices_awards_and_statements_that_balance(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "argv", ["dlmp", "simulate", "--feeder", "feeder33", "--aggregators", "2"])
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


def test_what_is_kept_is_served_again(tmp_path, capsys, monkeypatch):
    kept = tmp_path / "day"
    arguments = ["--feeder", "feeder33", "--aggregators", "1", "--keep", str(kept), "--quiet"]
    monkeypatch.setattr(sys, "argv", ["dlmp", "simulate", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    out, err = capsys.readouterr()
    assert (stopped.value.code, err) == (0, "")
    assert f"serve --data-dir {kept}" in out
    with own_service(kept) as (url, key), Client(url, key) as operator:
        (market,) = operator.markets()
        assert (market.name, market.state) == ("simulated feeder33", "settled")


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
