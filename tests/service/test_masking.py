"""Bids of others: late, under pseudonyms that lead nowhere, and not at all before."""

import re
from datetime import timedelta

from publishing import publish_invented
from worlds import DAY_BEGINS, pages, z

LINES = [("sunny", "solar", "1.00")]
DAY_ENDS = DAY_BEGINS + timedelta(hours=24)


def path(market):
    return f"/v1/markets/{market}/bids"


def furnished(world, **changed):
    """Name of a published market in which two participants bid: one amended its bid, and withdrew another."""
    market = world.ask("POST", "/v1/markets", world.market(takes_blocks=True, **changed))["id"]
    block = {"product": "block", "market_id": market, "resource_id": world["solar"], "side": "supply"}
    block |= {name: world.bid()[name] for name in ("interval_start", "interval_end")}
    block |= {"quantity_kw": 7, "price_usd_per_mwh": 20, "exclusive_group": "sunny secret"}
    theirs = block | {"resource_id": world["wind"]}
    assert world.place_all([block, block]).status_code == world.place_all([theirs], who="windy").status_code == 201
    amended, withdrawn = (
        world.placed(market_id=market, resource_id=world[name], segments=[{"quantity_kw": kw, "price_usd_per_mwh": 11}])
        for name, kw in (("solar", 111), ("battery", 222))
    )
    segments = [{"quantity_kw": 333, "price_usd_per_mwh": 11}]
    for method, bid_id, content in (
        ("PUT", amended, {"json": world.bid(market_id=market, segments=segments)}),
        ("DELETE", withdrawn, {}),
    ):
        headers = world.new_key() | {"If-Match": world.get(f"/v1/bids/{bid_id}", "sunny").headers["etag"]}
        assert world.request(method, f"/v1/bids/{bid_id}", "sunny", headers, **content).status_code == 200
    publish_invented(world, LINES, market)
    return market


def test_bids_are_public_from_their_time_on_and_only_of_a_published_market(world):
    market = furnished(world)
    asked = (None, "sunny", "windy", "operator")
    assert world.ask("GET", f"/v1/markets/{market}")["bids_public_at"] == "2026-09-30T07:00:00Z"
    silent = world.ask("POST", "/v1/markets", world.market())["id"]
    unknown = world.get(path("mkt_" + 24 * "0"), None).json()
    world.clock.now = DAY_ENDS + timedelta(days=90, microseconds=-1)
    for who in asked:
        early = world.get(path(market), who)
        assert (early.status_code, early.json()["code"]) == (404, unknown["code"])
    world.clock.step(microseconds=1)
    found = [world.get(path(market), who) for who in asked]
    assert {answer.status_code for answer in found} == {200}
    assert len({answer.text for answer in found}) == 1
    assert world.get(path(silent), None).status_code == 404
    assert world.get(path(silent), "operator").status_code == 404


def test_a_market_says_when_its_bids_become_public_or_that_they_never_do(world):
    never, soon = furnished(world, bids_public_after_days=None), furnished(world, bids_public_after_days=0)
    assert world.ask("GET", f"/v1/markets/{never}")["bids_public_at"] is None
    assert world.ask("GET", f"/v1/markets/{soon}")["bids_public_at"] == "2026-07-02T07:00:00Z"
    world.clock.now = DAY_ENDS
    assert world.get(path(soon), None).status_code == 200
    world.clock.step(days=40_000)
    assert world.get(path(never), None).status_code == 404


def test_masked_bids_are_those_that_stood_without_any_name(world):
    market = furnished(world)
    world.clock.now = DAY_ENDS + timedelta(days=90)
    answer = world.get(path(market), None)
    items = answer.json()["items"]
    assert [item["product"] for item in items].count("block") == 3
    (energy,) = (item for item in items if item["product"] == "energy")
    assert energy["terms"]["segments"][0]["quantity_kw"] == 333
    assert set(energy) == {"participant", "resource", "product", "interval_start", "interval_end", "terms"}
    names = {*world.names.ids.values(), "solar", "wind", "sunny", "windy", "secret", "battery"}
    assert not [name for name in names if name in answer.text]
    assert not re.search(r"(bid|sub|par|res|mkt|key)_[0-9a-f]{24}", answer.text)
    groups = {(item["participant"], item["terms"].get("exclusive_group")) for item in items}
    (sunny,) = (item["participant"] for item in items if item["product"] == "energy")
    assert len({participant for participant, _ in groups}) == 2
    own = {group for participant, group in groups if participant == sunny and group}
    theirs = {group for participant, group in groups if participant != sunny}
    assert len(own) == len(theirs) == 1 and own != theirs
    assert pages(world, path(market), None, 2) == items
    with world.service.engine.connect() as connection:
        keys = connection.exec_driver_sql("SELECT mask_key FROM markets").scalars().all()
    shown = answer.text + world.get("/v1/audit?limit=1000").text + world.get("/v1/markets?limit=1000").text
    assert keys and not [key for key in keys if key in shown]


def test_pseudonyms_of_two_markets_have_nothing_in_common(world):
    markets = [furnished(world) for _ in range(3)]
    world.clock.now = DAY_ENDS + timedelta(days=90)
    seen = []
    for market in markets:
        items = world.get(path(market), None).json()["items"]
        seen.append({item[name] for item in items for name in ("participant", "resource")})
        seen[-1] |= {item["terms"]["exclusive_group"] for item in items if "exclusive_group" in item["terms"]}
        assert len(seen[-1]) == 6
    assert len(set().union(*seen)) == 18


def test_masked_bids_come_in_an_order_that_says_nothing_of_when_they_came(world):
    """Of 24 bids in order, one after another: that they come so, or the other way round, by chance is out of reach."""
    for number in range(24):
        begins = DAY_BEGINS + timedelta(hours=number)
        world.placed(interval_start=z(begins), interval_end=z(begins + timedelta(hours=1)))
    publish_invented(world, LINES)
    world.clock.now = DAY_ENDS + timedelta(days=90)
    starts = [item["interval_start"] for item in world.get(path(world["market"]), None).json()["items"]]
    assert len(set(starts)) == 24
    assert starts not in (sorted(starts), sorted(starts, reverse=True))
