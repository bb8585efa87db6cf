"""Two settlements over HTTP: awards at day-ahead prices, what meters deviate from them at real-time prices.

Worked by hand at the substation, whose price is the nodal price there, for 24 hours:

    sun     100 kW at 30 day-ahead, 90 kW at 50 in real time; 80 kWh in hour 0 and 110 kWh in hour 1, then no reading
            24 x 3.00 day-ahead, -20 and +10 kWh at 50, and 22 hours deemed as awarded last: -10 kWh at 50 each
    breeze  nothing at 30 day-ahead, 200 kW at 50 in real time, without a meter: 24 x 200 kWh at 50
"""

import csv
import io
import time
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal

import pytest
from worlds import DAY_BEGINS, furnish, running, z

from api.runner import Runner

HOUR = timedelta(hours=1)


def reading(world, hour, kwh, resource="sun", **changed):
    times = {"interval_start": z(DAY_BEGINS + hour * HOUR), "interval_end": z(DAY_BEGINS + (hour + 1) * HOUR)}
    return {"resource_id": world[resource], **times, "net_injection_kwh": kwh} | changed


def path(market, name):
    return f"/v1/markets/{market}/{name}"


def run_to_its_end(world, where, body):
    run = world.ask("POST", where, body)["id"]
    while (found := world.ask("GET", f"/v1/runs/{run}"))["state"] in ("queued", "running"):
        time.sleep(0.1)
    return found


def cleared(world, market, body):
    """Clear and publish a market."""
    run = run_to_its_end(world, path(market, "runs"), body)
    assert run["state"] == "succeeded", run["reason"]
    world.ask("POST", path(market, "publish"))


def settled(world, market, body):
    run = run_to_its_end(world, path(market, "settle"), body)
    assert run["state"] == "succeeded", run["reason"]
    return run


def plant(world, name, owner):
    """A resource at the substation."""
    body = {
        "participant_id": world[owner],
        "feeder": "lane",
        "name": name,
        "bus": "S",
        "kind": "other",
        "p_max_kw": 900,
    }
    world.names.ids[name] = world.ask("POST", "/v1/resources", body)["id"]


@contextmanager
def working(world):
    """A worker that carries out the runs of a world."""
    runner = Runner(world.service)
    runner.start()
    try:
        yield
    finally:
        runner.stop()


def statement(world, who, market, query=""):
    items = world.ask("GET", path(market, f"statements{query}"), who=who)["items"]
    return {(item["resource"], item["product"]): (item["quantity"], Decimal(item["amount"])) for item in items}


def total(rows):
    return sum(amount for _, amount in rows.values())


def test_a_market_is_settled_twice_by_hand(loop, tmp_path_factory):
    url = f"sqlite:///{tmp_path_factory.mktemp('settled')}/settled.sqlite"
    with running(url, furnish(url, loop), loop) as world, working(world):
        ahead = world["market"]
        plant(world, "sun", "sunny")
        plant(world, "breeze", "windy")
        real_time = world.ask("POST", "/v1/markets", world.market(import_price_usd_per_mwh=[50]))["id"]
        for market, solar_kw in ((ahead, 100), (real_time, 90)):
            world.placed(
                market_id=market,
                resource_id=world["sun"],
                segments=[{"quantity_kw": solar_kw, "price_usd_per_mwh": 10}],
            )
            wind = [{"quantity_kw": 200, "price_usd_per_mwh": 45}]
            world.placed(who="windy", market_id=market, resource_id=world["breeze"], segments=wind)
            world.ask("POST", path(market, "close"))
        for market in (ahead, real_time):
            cleared(world, market, {})
        first = world.get(path(ahead, "statements?format=csv")).content
        check_price_shares(world, ahead)
        assert total(statement(world, "sunny", ahead)) == Decimal("72.00")
        world.clock.step(days=2)
        world.ask("POST", path(ahead, "readings"), {"readings": [reading(world, 0, 80), reading(world, 1, 110)]})
        run = settled(world, ahead, {"real_time_market_id": real_time})
        assert run["settling"]["readings"] == {world["sun"]: 1}
        sunny = statement(world, "sunny", ahead)
        assert sunny["sun", "energy"] == pytest.approx((2400, Decimal("72.00")))
        assert sunny["sun", "energy_imbalance"] == pytest.approx((-230, Decimal("-11.50")))
        assert sunny["sun", "deemed_as_awarded"] == (22, 0)
        assert total(sunny) == Decimal("60.50")
        assert total(statement(world, "windy", ahead)) == Decimal("240.00")
        assert sum(Decimal(row["amount"]) for row in all_statements(world, ahead)) == 0
        head = world.ask("GET", path(ahead, "statements"))
        assert (head["status"], head["reason"], head["price_version"]) == ("final", "settlement", 2)
        assert world.ask("GET", f"/v1/markets/{ahead}")["state"] == "settled"
        assert world.get(path(ahead, "statements?format=csv&price_version=1")).content == first
        assert total(statement(world, "sunny", ahead, "/delta")) == Decimal("-11.50")

        world.ask("POST", path(ahead, "readings"), {"readings": [reading(world, 0, 85)]})
        assert world.post(path(ahead, "settle"), {}).json()["code"] == "reason_needed"
        settled(world, ahead, {"correction_reason": "read again"})
        assert statement(world, "sunny", ahead, "/delta") == {
            ("sun", "energy_imbalance"): pytest.approx((5, Decimal("0.25")))
        }
        assert world.ask("GET", path(ahead, "statements"))["status"] == "corrected"

        cleared(world, ahead, {"correction_reason": "wrong price", "import_price_usd_per_mwh": [40]})
        assert statement(world, "sunny", ahead, "/delta")["sun", "energy"] == pytest.approx((0, Decimal("24.00")))
        assert total(statement(world, "sunny", ahead)) == Decimal("84.75"), "the meters stay settled"
        assert world.ask("GET", "/v1/audit/verify")["is_whole"]


def check_price_shares(world, market):
    shares, prices = (
        world.ask("GET", path(market, f"{name}?interval_start={z(DAY_BEGINS)}"))["items"]
        for name in ("price-shares", "prices")
    )
    assert {(share["component"], share["element"]) for share in shares} == {
        *(("energy", "substation price"), ("loss", "network losses")),
    }
    for price in prices:
        own = [share for share in shares if share["bus"] == price["bus"]]
        assert own and all(share["price_usd_per_mwh"] == price["price_usd_per_mwh"] for share in own)
        for share, whole in (
            ("share_usd_per_mwh", "price_usd_per_mwh"),
            ("q_share_usd_per_mvarh", "q_price_usd_per_mvarh"),
        ):
            assert sum(one[share] for one in own) == pytest.approx(price[whole], abs=1e-8)


def all_statements(world, market):
    return list(csv.DictReader(io.StringIO(world.get(path(market, "statements?format=csv")).text)))
