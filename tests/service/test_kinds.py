"""Bids of stores, blocks, reactive power, deadline loads and energy bands, from their bodies to their awards."""

import time
from collections import Counter
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from worlds import DAY_BEGINS, faults, pages, z

from api.archive import unpack_into
from api.runner import Runner
from dlmp.casefolder import read_case

CHEAP, DEAR = 20.0, 60.0
HOURS = range(24)


def hour(number):
    return z(DAY_BEGINS + timedelta(hours=number))


def span(first, end):
    return {"interval_start": hour(first), "interval_end": hour(end)}


def resource(world, name, owner="sunny", bus="B", **limits):
    body = {"participant_id": world[owner], "feeder": "lane", "name": name, "bus": bus, "kind": "other"} | limits
    world.names.ids[name] = world.ask("POST", "/v1/resources", body)["id"]
    return world[name]


def body(world, product, who, market="market", first=0, end=24, **terms):
    place = {"market_id": world[market], "resource_id": world[who], "product": product}
    return place | span(first, end) | terms


def placed(world, content, who="sunny"):
    answer = world.place(content, who)
    assert answer.status_code == 201, answer.text
    return answer.json()["items"][0]["bid_id"]


REACTIVE = {"quantity_kvar": 60, "price_usd_per_mvarh": 2, "price_end_usd_per_mvarh": None}
SOUND = {
    "store": ("battery", {"charge_max_kw": [300], "discharge_max_kw": [300], "energy_max_kwh": [1000]}),
    "block": ("solar", {"side": "supply", "quantity_kw": 100, "price_usd_per_mwh": 30}),
    "reactive": ("battery", {"side": "inject", "segments": [REACTIVE]}),
    "deadline_load": ("battery", {"charge_max_kw": 11, "energy_kwh": 24}),
    "energy_band": ("battery", {"charge_max_kw": [50], "energy_min_kwh": [0], "energy_max_kwh": [100]}),
}
"""A resource and sound terms of each kind."""
PART = "/segments/0/"
MARK = "cuttlefish"
WRONG = {
    "a store: power as a number": ("store", {"charge_max_kw": 300}, {("/charge_max_kw", "not_a_list")}),
    "a store: power as text": ("store", {"charge_max_kw": ["300"]}, {("/charge_max_kw/0", "not_a_number")}),
    "a store: a negative power": ("store", {"discharge_max_kw": [-1]}, {("/discharge_max_kw/0", "too_small")}),
    "a store: no values": ("store", {"energy_max_kwh": []}, {("/energy_max_kwh", "too_few")}),
    "a store: an efficiency above 1": ("store", {"charge_efficiency": 1.01}, {("/charge_efficiency", "too_large")}),
    "a store: an efficiency of 0": ("store", {"discharge_efficiency": 0}, {("/discharge_efficiency", "too_small")}),
    "a store: true as a retention": ("store", {"retention": True}, {("/retention", "not_a_number")}),
    "a store: negative energy": ("store", {"initial_kwh": -1}, {("/initial_kwh", "too_small")}),
    "a store: a cost below 0": ("store", {"cycling_usd_per_mwh": -1}, {("/cycling_usd_per_mwh", "too_small")}),
    "a store: no price of a shortfall": (
        "store",
        {"shortfall_usd_per_mwh": 0},
        {("/shortfall_usd_per_mwh", "too_small")},
    ),
    "a store: decimals": ("store", {"drain_kw": [0.0001]}, {("/drain_kw/0", "too_many_decimals")}),
    "a store: a side": ("store", {"side": "supply"}, {("/side", "unknown_field")}),
    "a store: a field of the name of a product": ("store", {"block": MARK}, {("/block", "unknown_field")}),
    "a store: all at once": (
        "store",
        {"charge_max_kw": None, "energy_max_kwh": [None], "retention": 2, MARK[:3]: 1},
        {
            *(("/charge_max_kw", "not_a_list"), ("/energy_max_kwh/0", "not_a_number")),
            *(("/retention", "too_large"), ("/cut", "unknown_field")),
        },
    ),
    "a block: a side of reactive power": ("block", {"side": "inject"}, {("/side", "not_a_choice")}),
    "a block: segments": ("block", {"segments": []}, {("/segments", "unknown_field")}),
    "a block: no quantity": ("block", {"quantity_kw": 0}, {("/quantity_kw", "too_small")}),
    "a block: a share of 0": ("block", {"min_acceptance_ratio": 0}, {("/min_acceptance_ratio", "too_small")}),
    "a block: a share above 1": ("block", {"min_acceptance_ratio": 1.5}, {("/min_acceptance_ratio", "too_large")}),
    "a block: a blank group": ("block", {"exclusive_group": ""}, {("/exclusive_group", "too_short")}),
    "a block: a group with a line break": (
        "block",
        {"exclusive_group": "a\nb"},
        {("/exclusive_group", "not_printable")},
    ),
    "reactive: a side of real power": ("reactive", {"side": "supply"}, {("/side", "not_a_choice")}),
    "reactive: kW": (
        "reactive",
        {"segments": [{"quantity_kw": 1, "price_usd_per_mvarh": 1}]},
        {(PART + "quantity_kw", "unknown_field"), (PART + "quantity_kvar", "missing")},
    ),
    "reactive: prices that fall": (
        "reactive",
        {"segments": [{"quantity_kvar": 1, "price_usd_per_mvarh": price} for price in (2, 1)]},
        {("", "not_monotone")},
    ),
    "reactive: prices of absorption that rise": (
        "reactive",
        {"side": "absorb", "segments": [{"quantity_kvar": 1, "price_usd_per_mvarh": 1, "price_end_usd_per_mvarh": 2}]},
        {("", "not_monotone")},
    ),
    "a deadline load: power as a list": (
        "deadline_load",
        {"charge_max_kw": [11]},
        {("/charge_max_kw", "not_a_number")},
    ),
    "a deadline load: no energy": ("deadline_load", {"energy_kwh": 0}, {("/energy_kwh", "too_small")}),
    "a deadline load: a store's field": ("deadline_load", {"initial_kwh": 1}, {("/initial_kwh", "unknown_field")}),
    "an energy band: no lines": ("energy_band", {"energy_min_kwh": None}, {("/energy_min_kwh", "not_a_list")}),
    "an energy band: discharging": ("energy_band", {"discharge_max_kw": [1]}, {("/discharge_max_kw", "unknown_field")}),
    # What a market and a resource make wrong.
    "a store: a part of the market": ("store", span(0, 23), {("/interval_start", "not_whole_market")}),
    "a store: lists of other lengths": (
        "store",
        {"charge_max_kw": [300] * 23, "drain_kw": [0] * 25},
        {("/charge_max_kw", "wrong_length"), ("/drain_kw", "wrong_length")},
    ),
    "a store: beyond its limits": (
        "store",
        {"charge_max_kw": [300.001], "discharge_max_kw": [300] * 23 + [300.001]},
        {("/charge_max_kw/0", "beyond_registered"), ("/discharge_max_kw/23", "beyond_registered")},
    ),
    "a store: prices beyond cap and floor": (
        "store",
        {"cycling_usd_per_mwh": 501, "shortfall_usd_per_mwh": 501, "final_usd_per_mwh": -51},
        {(f"/{name}_usd_per_mwh", "beyond_price_limits") for name in ("cycling", "shortfall", "final")},
    ),
    "a store: a band that is empty": ("store", {"energy_min_kwh": [1001]}, {("/energy_min_kwh/0", "empty_range")}),
    "a store: more at the end than it holds": ("store", {"final_min_kwh": 1001}, {("/final_min_kwh", "empty_range")}),
    "a store: least energy out of reach": (
        "store",
        {"energy_min_kwh": [0, 0, 900.001, *[0] * 21]},
        {("/energy_min_kwh/2", "out_of_reach")},
    ),
    "a store: final energy out of reach": (
        "store",
        {"energy_max_kwh": [10_000], "final_min_kwh": 7_200.001},
        {("/final_min_kwh", "out_of_reach")},
    ),
    "a store: more than can be given away": (
        "store",
        {"initial_kwh": 1300.001},
        {("/energy_max_kwh/0", "out_of_reach")},
    ),
    "a block: beyond its limits": ("block", {"quantity_kw": 900.001}, {("/quantity_kw", "beyond_registered")}),
    "a block: demand beyond its limits": ("block", {"side": "demand"}, {("/quantity_kw", "beyond_registered")}),
    "a block: beyond the cap": ("block", {"price_usd_per_mwh": 501}, {("/price_usd_per_mwh", "beyond_price_limits")}),
    "reactive: beyond its limits": (
        "reactive",
        {"segments": [{"quantity_kvar": 60, "price_usd_per_mvarh": price} for price in (2, 501)]},
        {("/segments", "beyond_registered"), ("/segments/1/price_usd_per_mvarh", "beyond_price_limits")},
    ),
    "a deadline load: too much for its time": (
        "deadline_load",
        span(3, 5) | {"energy_kwh": 22.001},
        {("/energy_kwh", "out_of_reach")},
    ),
    "a deadline load: beyond its limits": (
        "deadline_load",
        {"charge_max_kw": 300.001},
        {("/charge_max_kw", "beyond_registered")},
    ),
    "an energy band: out of reach": (
        "energy_band",
        span(3, 5) | {"energy_min_kwh": [50, 100.001], "energy_max_kwh": [200]},
        {("/energy_min_kwh/1", "out_of_reach")},
    ),
    "an energy band: lines that cross": (
        "energy_band",
        span(3, 5) | {"energy_min_kwh": [0, 20], "energy_max_kwh": [30, 19]},
        {("/energy_min_kwh/1", "empty_range")},
    ),
}


@pytest.fixture(scope="module")
def stall(shared):
    """A service in which nothing is placed, with a market that takes blocks."""
    shared.names.ids["blocks"] = shared.ask("POST", "/v1/markets", shared.market(takes_blocks=True))["id"]
    return shared


def sound(world, product, market="market", **changed):
    name, terms = SOUND[product]
    return body(world, product, name, market, **terms | changed)


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_at_once_and_nothing_is_stored(stall, name):
    product, changed, expected = WRONG[name]
    wrong, before = sound(stall, product, "blocks") | changed, stall.stored()
    answer = stall.place(wrong)
    assert (answer.status_code, faults(answer)) == (422, expected)
    batch = stall.place_all([wrong], "per_item")
    assert faults(batch) == {(f"/bids/0{pointer}", code) for pointer, code in expected}
    assert MARK not in answer.text + batch.text
    assert stall.stored() == before


def read(world, bid_id):
    answer = world.get(f"/v1/bids/{bid_id}", "sunny")
    return answer.json(), answer.headers["etag"]


AMENDED = {
    "store": {"initial_kwh": 500, "energy_min_kwh": [10] * 24},
    "block": {"min_acceptance_ratio": 0.5, "exclusive_group": "either"},
    "reactive": {"segments": [REACTIVE, REACTIVE | {"quantity_kvar": 40}]},
    "deadline_load": {"energy_kwh": 30, "shortfall_usd_per_mwh": 200},
    "energy_band": span(3, 5) | {"energy_min_kwh": [0, 20], "energy_max_kwh": [30, 60]},
}


@pytest.mark.parametrize("product", SOUND)
def test_each_kind_is_placed_once_amended_and_withdrawn_as_the_others_are(world, product):
    world.names.ids["blocks"] = world.ask("POST", "/v1/markets", world.market(takes_blocks=True))["id"]
    first = sound(world, product, "blocks")
    one, two = world.place(first, key="mine"), world.place(first, key="mine")
    assert (one.status_code, one.json(), two.headers["idempotent-replay"]) == (201, two.json(), "true")
    bid_id = one.json()["items"][0]["bid_id"]
    bid, etag = read(world, bid_id)
    assert bid["terms"] == bid["terms"] | SOUND[product][1]
    headers = world.new_key() | {"If-Match": etag}
    again = first | AMENDED[product]
    assert world.request("PUT", f"/v1/bids/{bid_id}", "sunny", headers, json=again).status_code == 200
    headers = world.new_key() | {"If-Match": etag}
    assert world.request("PUT", f"/v1/bids/{bid_id}", "sunny", headers, json=again).status_code == 412
    bid, etag = read(world, bid_id)
    terms = {name: value for name, value in AMENDED[product].items() if not name.startswith("interval")}
    assert (bid["version"], bid["terms"]) == (2, bid["terms"] | terms)
    assert world.delete(f"/v1/bids/{bid_id}", "sunny", headers=world.new_key() | {"If-Match": etag}).status_code == 200
    history = world.get(f"/v1/bids/{bid_id}/history", "sunny").json()["items"]
    assert [one["state"] for one in history] == ["superseded", "withdrawn"]
    placed(world, first)
    assert world.get("/v1/audit/verify").json()["is_whole"]


@pytest.mark.parametrize("product", ["store", "deadline_load", "energy_band"])
def test_a_coupled_bid_is_alone_with_the_real_power_of_its_resource(world, product):
    world.names.ids["blocks"] = world.ask("POST", "/v1/markets", world.market(takes_blocks=True))["id"]
    hours = {} if product == "store" else span(0, 3)
    placed(world, sound(world, product, "blocks", **hours))
    alone = {("/product", "not_alone")}
    curve = [{"quantity_kw": 1, "price_usd_per_mwh": 1}]
    for other, later in (("store", {}), ("deadline_load", span(20, 23)), ("energy_band", span(20, 23))):
        assert faults(world.place(sound(world, other, "blocks", **later))) == alone
    for other, terms in (
        ("energy", {"side": "supply", "segments": curve}),
        ("self_schedule", {"side": "demand", "quantity_kw": 1}),
        ("block", SOUND["block"][1]),
    ):
        assert faults(world.place(body(world, other, "battery", "blocks", 20, 22, **terms))) == alone
    placed(world, sound(world, "reactive", "blocks"))
    placed(world, body(world, "capacity_up", "battery", "blocks", quantity=10, price_usd_per_mw_h=1))
    placed(world, sound(world, product, **hours))  # another market
    placed(world, body(world, "energy", "solar", side="supply", segments=curve))
    store = body(world, "deadline_load", "solar", charge_max_kw=1, energy_kwh=1)
    assert faults(world.place(store)) == {("/product", "not_alone"), ("/charge_max_kw", "beyond_registered")}


def test_blocks_overlap_up_to_a_number_and_only_in_markets_that_take_them(new_world):
    with new_world(max_blocks_per_market=3) as world:
        assert faults(world.place(sound(world, "block"))) == {("/product", "blocks_not_taken")}
        world.names.ids["blocks"] = world.ask("POST", "/v1/markets", world.market(takes_blocks=True))["id"]
        group = {"exclusive_group": "one of these", "quantity_kw": 900}
        first, _, _ = (placed(world, sound(world, "block", "blocks", **group)) for _ in range(3))
        assert faults(world.place(sound(world, "block", "blocks"))) == {("", "too_many_blocks")}
        placed(world, body(world, "block", "wind", "blocks", **SOUND["block"][1]), "windy")
        headers = world.new_key() | {"If-Match": read(world, first)[1]}
        assert world.delete(f"/v1/bids/{first}", "sunny", headers=headers).status_code == 200
        placed(world, sound(world, "block", "blocks"))


def test_beside_blocks_prices_do_not_rise_along_a_segment(world):
    world.names.ids["blocks"] = world.ask("POST", "/v1/markets", world.market(takes_blocks=True))["id"]
    level = {"quantity_kw": 1, "price_usd_per_mwh": 1, "price_end_usd_per_mwh": 1}
    sloped = {"segments": [level, level | {"price_end_usd_per_mwh": 2}], "market_id": world["blocks"]}
    answer = world.place(world.bid(**sloped))
    assert faults(answer) == {("/segments/1/price_end_usd_per_mwh", "sloped_beside_blocks")}
    placed(world, world.bid(**sloped | {"segments": [level]}))
    placed(world, world.bid(**sloped | {"market_id": world["market"]}))


def test_reactive_bids_do_not_overlap_nor_cross(world):
    placed(world, sound(world, "reactive", **span(4, 8)))
    assert faults(world.place(sound(world, "reactive", **span(7, 9)))) == {("/interval_start", "overlaps")}
    absorb = {"side": "absorb", "segments": [{"quantity_kvar": 100, "price_usd_per_mvarh": 2.00001}]}
    assert faults(world.place(sound(world, "reactive", **absorb))) == {("/segments", "crosses_own_bid")}
    placed(world, sound(world, "reactive", **absorb | span(8, 24)))


NUMBER, PRICE, SHARE = st.integers(1, 400), st.integers(-50, 500), st.sampled_from([0.01, 0.5, 0.9, 1.0])
ENERGY, COST, HOUR = st.integers(300, 2_000), st.integers(1, 500), st.integers(0, 23)


def lists(values):
    return st.one_of(st.lists(values, min_size=1, max_size=1), st.lists(values, min_size=24, max_size=24))


def segments(quantity, price):
    part = st.fixed_dictionaries({quantity: NUMBER, price: PRICE})
    return st.lists(part, min_size=1, max_size=2).map(lambda parts: sorted(parts, key=lambda part: part[price]))


TERMS = {
    "energy": {"side": st.sampled_from(["supply", "demand"]), "segments": segments("quantity_kw", "price_usd_per_mwh")},
    "self_schedule": {"side": st.sampled_from(["supply", "demand"]), "quantity_kw": NUMBER},
    "reactive": {
        "side": st.sampled_from(["inject", "absorb"]),
        "segments": segments("quantity_kvar", "price_usd_per_mvarh"),
    },
    "block": {
        "side": st.sampled_from(["supply", "demand"]),
        "quantity_kw": NUMBER,
        "price_usd_per_mwh": PRICE,
        "min_acceptance_ratio": SHARE,
        "exclusive_group": st.sampled_from([None, "a, b", '"quoted"', "c"]),
    },
    "store": {
        "charge_max_kw": lists(NUMBER),
        "discharge_max_kw": lists(NUMBER),
        "energy_min_kwh": lists(st.integers(0, 100)),
        "energy_max_kwh": lists(ENERGY),
        "initial_kwh": st.integers(0, 500),
        "final_min_kwh": st.integers(0, 500),
        "charge_efficiency": SHARE,
        "discharge_efficiency": SHARE,
        "retention": SHARE,
        "drain_kw": lists(st.integers(-5, 5)),
        "cycling_usd_per_mwh": COST,
        "shortfall_usd_per_mwh": st.none() | COST,
        "final_usd_per_mwh": PRICE,
    },
    "deadline_load": {
        "charge_max_kw": NUMBER,
        "energy_kwh": st.integers(1, 2_000),
        "charge_efficiency": SHARE,
        "shortfall_usd_per_mwh": st.none() | COST,
    },
    "energy_band": {
        "charge_max_kw": lists(NUMBER),
        "energy_min_kwh": lists(st.integers(0, 100)),
        "energy_max_kwh": lists(ENERGY),
        "shortfall_usd_per_mwh": st.none() | COST,
    },
    "capacity_up": {"quantity": NUMBER, "price_usd_per_mw_h": st.integers(0, 500)},
    "var_down": {"quantity": NUMBER, "price_usd_per_mw_h": st.integers(0, 500)},
}
OFFER = {
    product: st.tuples(st.integers(0, 7), HOUR, HOUR, st.fixed_dictionaries(terms | {"product": st.just(product)}))
    for product, terms in TERMS.items()
}
OFFERS = st.tuples(st.tuples(*OFFER.values()), st.lists(st.one_of(*OFFER.values()), max_size=6)).flatmap(
    lambda parts: st.permutations([*parts[0], *parts[1]])
)
"""One bid of every kind and up to six more, in any order, for eight resources."""


@pytest.mark.parametrize("cases", [30, pytest.param(300, marks=pytest.mark.nightly)])
def test_whatever_is_accepted_makes_a_case_that_can_be_read(world, tmp_path, cases):
    """One participant's bids must not fail the run of all."""
    limits = {"p_min_kw": -400, "p_max_kw": 400, "q_min_kvar": -400, "q_max_kvar": 400, "s_max_kva": 450}
    for number in range(8):
        resource(world, f"any {number}", **limits)
    counts = Counter()

    @seed(cases)
    @settings(max_examples=cases, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(offers=OFFERS)
    def check(offers):
        market = world.names.ids["day"] = world.ask("POST", "/v1/markets", world.market(takes_blocks=True))["id"]
        bids = []
        for number, one, other, terms in offers:
            is_whole = terms["product"] == "store" or one == other or any(isinstance(v, list) for v in terms.values())
            first, end = (0, 24) if is_whole else sorted((one, other))
            bids.append(body(world, "", f"any {number}", "day", first, end) | terms)
        items = world.place_all(bids, "per_item").json().get("items", [])
        taken = Counter(bid["product"] for bid, item in zip(bids, items, strict=False) if item["status"] == "accepted")
        counts.update(taken)
        world.ask("POST", f"/v1/markets/{market}/close")
        run = world.ask("POST", f"/v1/markets/{market}/runs", {})["id"]
        folder = tmp_path / market
        unpack_into(world.get(f"/v1/runs/{run}/snapshot").content, folder)
        case = read_case(folder)
        assert len(case.blocks) == taken["block"]
        assert len(case.stores) == taken["store"] + taken["deadline_load"] + taken["energy_band"]

    check()
    print(f"{cases} cases, accepted bids: {dict(counts)}")
    assert set(counts) == set(TERMS)


@pytest.fixture(scope="module")
def cleared(new_world):
    """A published market with a bid of every kind, on a real run of the engine: cheap before noon, dear after."""
    with new_world() as world:
        prices = [CHEAP] * 12 + [DEAR] * 12
        more = {"import_price_usd_per_mwh": prices, "import_q_price_usd_per_mvarh": [5], "takes_blocks": True}
        ids = world.names.ids
        ids["day"] = world.ask("POST", "/v1/markets", world.market(**more))["id"]
        resource(world, "car", p_min_kw=-11)
        resource(world, "heater", p_min_kw=-50)
        resource(world, "capacitor", q_min_kvar=-100, q_max_kvar=100)
        resource(world, "turbine", bus="A", p_max_kw=500)
        losses = {"charge_efficiency": 0.9, "discharge_efficiency": 0.8, "drain_kw": [5], "retention": 0.99}
        states = {"initial_kwh": 200, "final_min_kwh": 150, "cycling_usd_per_mwh": 1}
        block = {"side": "supply", "quantity_kw": 400}
        either = block | {"exclusive_group": "either"}
        reactive = {"quantity_kvar": 60, "price_usd_per_mvarh": 2, "price_end_usd_per_mvarh": 2}
        for name, content in {
            "store": sound(world, "store", "day", **losses, **states),
            "good block": body(world, "block", "turbine", "day", 12, 16, price_usd_per_mwh=30, **either),
            "other block": body(world, "block", "turbine", "day", 11, 15, price_usd_per_mwh=30, **either),
            "dear block": body(world, "block", "turbine", "day", 16, 20, price_usd_per_mwh=100, **block),
            "inject": body(world, "reactive", "capacitor", "day", side="inject", segments=[reactive]),
            "car": body(world, "deadline_load", "car", "day", 10, 14, charge_max_kw=11, energy_kwh=24),
            "heater": body(
                world,
                "energy_band",
                "heater",
                "day",
                *(11, 15),
                charge_max_kw=[50],
                energy_min_kwh=[0, 20, 60, 100],
                energy_max_kwh=[40, 80, 100, 100],
            ),
            "curve": body(
                world, "energy", "solar", "day", side="supply", segments=[{"quantity_kw": 50, "price_usd_per_mwh": 10}]
            ),
        }.items():
            ids[name] = placed(world, content)
        ids["wind block"] = placed(
            world, body(world, "block", "wind", "day", price_usd_per_mwh=10, **either | {"quantity_kw": 100}), "windy"
        )
        world.ask("POST", f"/v1/markets/{ids['day']}/close")
        runner = Runner(world.service)
        runner.start()
        run = world.ask("POST", f"/v1/markets/{ids['day']}/runs", {})["id"]
        while (found := world.get(f"/v1/runs/{run}").json())["state"] in ("queued", "running"):
            time.sleep(0.1)
        runner.stop()
        assert found["state"] == "succeeded", found["reason"]
        world.ask("POST", f"/v1/markets/{ids['day']}/publish")
        yield world


def awards(world, of, who="sunny"):
    return pages(world, f"/v1/markets/{world['day']}/awards?of={of}", who, 100)


def by_hour(world, of, name, field):
    return [item[field] for item in awards(world, of) if item["resource"] == name]


def test_a_store_keeps_its_balance_its_band_and_its_final_energy(cleared):
    charge, discharge, energy = (
        by_hour(cleared, "stores", "battery", field) for field in ("charge_kw", "discharge_kw", "energy_kwh")
    )
    before = 200.0
    for number in HOURS:
        after = 0.99 * before + 0.9 * charge[number] - discharge[number] / 0.8 - 5
        assert energy[number] == pytest.approx(after, abs=1e-6)
        before = after
    assert min(energy) >= -1e-6 and max(energy) <= 1000 + 1e-6
    assert energy[-1] == pytest.approx(150)
    assert max(charge[12:]) < 1e-6 and max(discharge[:12]) < 1e-6
    assert sum(charge) > 800 and max(charge) <= 300 + 1e-6
    net = by_hour(cleared, "resources", "battery", "net_injection_kw")
    assert net == pytest.approx([out - into for into, out in zip(charge, discharge, strict=True)], abs=1e-6)


def test_blocks_are_accepted_whole_or_not_at_all_and_one_of_a_group(cleared):
    share = {item["block"]: item["accepted_share"] for item in awards(cleared, "blocks")}
    assert share == {cleared["good block"]: 1, cleared["other block"]: 0, cleared["dear block"]: 0}
    assert by_hour(cleared, "resources", "turbine", "net_injection_kw") == pytest.approx(
        [400 if 12 <= number < 16 else 0 for number in HOURS], abs=1e-6
    )
    (windy,) = awards(cleared, "blocks", "windy")
    assert (windy["block"], windy["accepted_share"]) == (cleared["wind block"], 1)


def test_reactive_power_is_accepted_where_it_is_cheaper_than_the_substations(cleared):
    assert by_hour(cleared, "reactive_segments", "capacitor", "award_kvar") == pytest.approx([60] * 24, abs=1e-6)
    assert by_hour(cleared, "resources", "capacitor", "q_kvar") == pytest.approx([60] * 24, abs=1e-6)


def test_a_deadline_load_has_its_energy_in_time_and_in_its_cheapest_hours(cleared):
    taken = [-kw for kw in by_hour(cleared, "resources", "car", "net_injection_kw")]
    assert sum(taken) == pytest.approx(24)
    assert taken[10:12] == pytest.approx([11, 11], abs=1e-6)
    assert sum(taken[12:14]) == pytest.approx(2)


def test_an_energy_band_is_kept_at_the_end_of_each_interval(cleared):
    taken = [-kw for kw in by_hour(cleared, "resources", "heater", "net_injection_kw")]
    total = [sum(taken[11 : number + 1]) for number in range(11, 15)]
    assert sum(taken) == pytest.approx(100) and sum(taken[11:15]) == pytest.approx(100)
    for energy, low, high in zip(total, (0, 20, 60, 100), (40, 80, 100, 100), strict=True):
        assert low - 1e-6 <= energy <= high + 1e-6
    assert total[0] == pytest.approx(40)  # as much as may be before it gets dear


def test_statements_pay_for_every_kind_to_the_cent(cleared):
    lines = pages(cleared, f"/v1/markets/{cleared['day']}/statements", "sunny", 100)
    found = {(line["resource"], line["product"]): line for line in lines}
    assert {resource for resource, _ in found} >= {"battery", "turbine", "capacitor", "car", "heater", "solar"}
    assert found["car", "energy"]["quantity"] == pytest.approx(-24)
    assert Decimal(found["car", "energy"]["amount"]) < 0 < Decimal(found["turbine", "energy"]["amount"])
    assert found["capacitor", "reactive_energy"]["quantity"] == pytest.approx(60 * 24)
    for name, product, field, price in (
        ("capacitor", "reactive_energy", "q_kvar", "lmp_q_usd_per_mvarh"),
        ("battery", "energy", "net_injection_kw", "lmp_usd_per_mwh"),
    ):
        power, prices = (by_hour(cleared, "resources", name, one) for one in (field, price))
        paid = sum(kw * usd / 1000 for kw, usd in zip(power, prices, strict=True))
        assert float(found[name, product]["amount"]) == pytest.approx(paid, abs=0.005)


def test_everything_is_vouched_for(cleared):
    assert cleared.get("/v1/audit/verify").json()["is_whole"]
