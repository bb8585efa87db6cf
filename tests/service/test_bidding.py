"""Bids over HTTP: placed, amended, withdrawn; receipts, idempotency, and everything that is refused."""

import dataclasses
import hashlib
import re
import threading
from datetime import timedelta

import pytest
from sqlalchemy import event
from worlds import DAY_BEGINS, GATE_CLOSES, GATE_OPENS, LANE, NOW, faults, running, z

from api.book import Book
from api.store.audit import Chain

SUPPLY = {"quantity_kw": 100, "price_usd_per_mwh": 10}


def hour(number):
    return z(DAY_BEGINS + timedelta(hours=number))


def curve(*parts):
    return [{"quantity_kw": quantity, "price_usd_per_mwh": price} for quantity, price in parts]


def span(first, end):
    return {"interval_start": hour(first), "interval_end": hour(end)}


def self_schedule(world, **changed):
    body = world.bid(product="self_schedule", quantity_kw=100)
    del body["segments"]
    return body | changed


def capacity(world, **changed):
    body = world.bid(product="capacity_up", quantity=50, price_usd_per_mw_h=4, resource_id=world["battery"])
    del body["segments"], body["side"]
    return body | changed


def read(world, bid_id, who="sunny"):
    answer = world.get(f"/v1/bids/{bid_id}", who)
    assert answer.status_code == 200
    return answer.json(), answer.headers["etag"]


def amend(world, bid_id, etag, key=None, **changed):
    headers = (world.new_key() if key is None else {"Idempotency-Key": key}) | {"If-Match": etag}
    return world.request("PUT", f"/v1/bids/{bid_id}", "sunny", headers, json=world.bid(**changed))


def withdraw(world, bid_id, etag):
    return world.delete(f"/v1/bids/{bid_id}", "sunny", headers=world.new_key() | {"If-Match": etag})


def refused_with(world, body, *expected):
    """Refused with exactly these pointers and codes, and nothing is stored."""
    before = world.stored()
    answer = world.place(body)
    assert answer.status_code == 422, answer.text
    assert faults(answer) == set(expected)
    assert world.stored() == before


def test_a_placed_bid_reads_as_it_was_sent(world):
    segments = [
        {"quantity_kw": 100.125, "price_usd_per_mwh": -20.5, "price_end_usd_per_mwh": 3.00001},
        {"quantity_kw": 50, "price_usd_per_mwh": 60, "price_end_usd_per_mwh": None},
    ]
    bid, _ = read(world, world.placed(**span(3, 5), segments=segments))
    assert bid["terms"] == {"side": "supply", "segments": segments}
    assert (bid["version"], bid["state"], bid["product"]) == (1, "live", "energy")
    assert (bid["interval_start"], bid["interval_end"]) == ("2026-07-01T10:00:00Z", "2026-07-01T12:00:00Z")
    assert (bid["market_id"], bid["resource_id"]) == (world["market"], world["solar"])


def test_every_product_is_taken(world):
    for product in ("capacity_up", "capacity_down", "var_up", "var_down"):
        assert world.place(capacity(world, product=product)).status_code == 201
    for side in ("supply", "demand"):
        body = self_schedule(world, side=side, resource_id=world["battery"])
        assert world.place(body).status_code == 201
    assert world.stored()["bids"] == 6


def test_a_receipt_proves_what_was_received_and_when(world):
    content = b' {"bids": [ %s ] , "mode":"atomic"}' % str(world.bid()).replace("'", '"').encode()
    headers = world.new_key() | {"Content-Type": "application/json"}
    receipt = world.request("POST", "/v1/bids/batch", "sunny", headers, content=content)
    assert receipt.status_code == 201
    document = receipt.json()
    assert document["content_sha256"] == hashlib.sha256(content).hexdigest()
    assert document["received_at"] == "2026-06-30T15:00:00Z"
    assert document["status"] == "accepted"
    opens, closes = (document["gates"][world["market"]][name] for name in ("opens_at", "closes_at"))
    assert (opens, closes) == (z(GATE_OPENS).replace(".000000", ""), z(GATE_CLOSES).replace(".000000", ""))


def test_sequences_of_a_participants_receipts_have_no_gaps(world):
    sequences = []
    for number in range(6):
        world.place(self_schedule(world, quantity_kw=10_000))
        world.placed(who="windy", resource_id=world["wind"], **span(number, number + 1))
        sequences.append(world.place(world.bid(**span(number, number + 1))).json()["sequence"])
    assert sequences == [1, 2, 3, 4, 5, 6]


def test_receipts_that_come_at_once_have_distinct_sequences(world):
    bids = [world.bid(**span(number, number + 1)) for number in range(24)]
    answers = [None] * len(bids)

    def send(number):
        answers[number] = world.place(bids[number], key=f"at once {number}")

    threads = [threading.Thread(target=send, args=(number,)) for number in range(len(bids))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} == {201}
    assert sorted(answer.json()["sequence"] for answer in answers) == list(range(1, 25))


def test_the_same_request_again_has_the_first_answer_and_one_effect(world):
    first = world.place(world.bid(), key="mine")
    world.clock.step(hours=5)  # the gate has closed by now
    again = world.place(world.bid(), key="mine")
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["idempotent-replay"] == "true"
    assert "idempotent-replay" not in first.headers
    assert world.stored()["bids"] == 1


def test_the_receipt_of_an_amendment_has_the_hash_of_its_body_and_a_withdrawal_under_its_key_is_another_request(world):
    path = f"/v1/bids/{world.placed()}"
    content = str(world.bid(segments=curve((50, 12)))).replace("'", '"').encode()
    headers = {"Idempotency-Key": "mine", "If-Match": world.get(path, "sunny").headers["etag"]}
    headers |= {"Content-Type": "application/json"}
    answer = world.request("PUT", path, "sunny", headers, content=content)
    assert answer.json()["content_sha256"] == hashlib.sha256(content).hexdigest()
    other = world.request("DELETE", path, "sunny", headers, content=content)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert world.get(path, "sunny").json()["state"] == "live"


def test_an_amendment_and_a_withdrawal_sent_again_have_one_effect(world):
    bid_id = world.placed()
    _, etag = read(world, bid_id)
    one, two = (amend(world, bid_id, etag, "twice", segments=curve((50, 12))) for _ in range(2))
    assert (one.status_code, one.json()) == (two.status_code, two.json())
    _, etag = read(world, bid_id)
    headers = {"Idempotency-Key": "gone", "If-Match": etag}
    one, two = (world.delete(f"/v1/bids/{bid_id}", "sunny", headers=headers) for _ in range(2))
    assert (one.status_code, one.json()) == (200, two.json())


def test_an_idempotency_key_for_another_body_is_refused(world):
    world.place(world.bid(), key="mine")
    other = world.place(world.bid(**span(0, 1)), key="mine")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert world.stored()["bids"] == 1


def test_an_idempotency_key_for_another_bid_is_refused(world):
    one, two = world.placed(**span(0, 1)), world.placed(**span(1, 2))
    withdrawals = [
        world.delete(f"/v1/bids/{bid}", "sunny", headers={"Idempotency-Key": "x", "If-Match": read(world, bid)[1]})
        for bid in (one, two)
    ]
    assert [answer.status_code for answer in withdrawals] == [200, 422]
    assert read(world, two)[0]["state"] == "live"


def test_idempotency_keys_of_two_participants_have_nothing_to_do_with_each_other(world):
    mine = world.place(world.bid(), key="same")
    theirs = world.place(world.bid(resource_id=world["wind"]), "windy", key="same")
    assert (mine.status_code, theirs.status_code) == (201, 201)
    assert mine.json()["submission_id"] != theirs.json()["submission_id"]


def test_a_refused_request_leaves_its_idempotency_key_free(world):
    assert world.place(world.bid(segments=[]), key="mine").status_code == 422
    assert world.place(world.bid(), key="mine").status_code == 201


@pytest.mark.parametrize("key", [None, "", "x" * 201, "tab\there"])
def test_an_idempotency_key_is_needed(shared, key):
    headers = {} if key is None else {"Idempotency-Key": key}
    for method, path in (("POST", "/v1/bids"), ("PUT", "/v1/bids/bid_" + 24 * "0")):
        answer = shared.request(method, path, "sunny", headers | {"If-Match": '"x"'}, json=shared.bid())
        assert answer.status_code in (400, 412), answer.text
    answer = shared.post("/v1/bids", shared.bid(), "sunny", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "idempotency_key_needed")
    assert shared.stored()["bids"] == 0


def test_an_idempotency_key_in_flight_is_refused_until_its_request_is_answered(world):
    entered, go_on = threading.Event(), threading.Event()

    def hold(connection, chain, jobs):
        entered.set()
        go_on.wait(timeout=60)
        return [None for _ in jobs]

    held = world.service.writer.put(hold, None)  # the writer is busy: what comes now waits behind it
    assert entered.wait(timeout=60)
    first = []
    waiting = threading.Thread(target=lambda: first.append(world.place(world.bid(), key="mine")))
    waiting.start()
    while not world.service.in_flight:
        world.get("/healthz")
    second = world.place(world.bid(), key="mine")
    go_on.set()
    held.result(timeout=60)
    waiting.join()
    assert (second.status_code, second.json()["code"], second.headers["retry-after"]) == (409, "in_flight", "1")
    assert first[0].status_code == 201
    assert world.place(world.bid(), key="mine").json() == first[0].json()


def test_a_batch_is_taken_whole_or_not_at_all_when_atomic(world):
    sound = [world.bid(**span(number, number + 1)) for number in range(3)]
    refused = world.place_all([*sound, world.bid(**span(1, 2)), world.bid(resource_id=world["wind"], **span(9, 10))])
    assert refused.status_code == 422
    assert faults(refused) == {("/bids/3/interval_start", "overlaps"), ("/bids/4/resource_id", "unknown_resource")}
    assert (world.stored()["bids"], world.stored()["submissions"]) == (0, 0)
    accepted = world.place_all(sound)
    assert accepted.status_code == 201
    assert [item["status"] for item in accepted.json()["items"]] == ["accepted"] * 3
    assert world.stored()["bids"] == 3


def test_a_batch_per_item_takes_what_is_sound_and_says_of_the_rest_why_not(world):
    bids = [world.bid(**span(0, 2)), world.bid(**span(1, 3)), {"product": "energy"}, world.bid(**span(2, 3)), 7]
    answer = world.place_all(bids, "per_item")
    assert answer.status_code == 207
    document = answer.json()
    assert document["status"] == "partly_accepted"
    assert [item["status"] for item in document["items"]] == ["accepted", "refused", "refused", "accepted", "refused"]
    codes = [{fault["code"] for fault in item["errors"]} for item in document["items"]]
    assert codes == [set(), {"overlaps"}, {"missing"}, set(), {"not_an_object"}]
    assert {fault["pointer"] for fault in document["items"][2]["errors"]} == {
        *("/market_id", "/resource_id", "/interval_start", "/interval_end", "/side", "/segments")
    }
    assert world.stored()["bids"] == 2


def test_a_batch_per_item_of_which_nothing_is_sound_is_refused(world):
    before = world.stored()
    answer = world.place_all([world.bid(segments=[]), world.bid(side="up")], "per_item")
    assert answer.status_code == 422
    assert faults(answer) == {("/bids/0/segments", "too_few"), ("/bids/1/side", "not_a_choice")}
    assert world.stored() == before


def test_a_batch_has_at_most_a_thousand_bids(shared):
    answer = shared.place_all([{}] * 1_001)
    assert faults(answer) == {("/bids", "too_many")}
    assert faults(shared.place_all([])) == {("/bids", "too_few")}


def test_a_batch_of_a_thousand_bids_is_taken(new_world):
    with new_world() as world:
        minutes = world.ask("POST", "/v1/markets", world.market(interval_minutes=1))
        begins = [DAY_BEGINS + timedelta(minutes=number) for number in range(1_000)]
        bids = [
            world.bid(market_id=minutes["id"], interval_start=z(t), interval_end=z(t + timedelta(minutes=1)))
            for t in begins
        ]
        answer = world.place_all(bids)
        assert answer.status_code == 201
        assert len({item["bid_id"] for item in answer.json()["items"]}) == 1_000


def test_an_amendment_is_a_further_version_and_the_whole_history_stays(world):
    bid_id = world.placed()
    _, etag = read(world, bid_id)
    world.clock.step(minutes=1)
    answer = amend(world, bid_id, etag, **span(0, 4), segments=curve((200, 20)))
    assert answer.status_code == 200
    assert [(item["bid_id"], item["version"]) for item in answer.json()["items"]] == [(bid_id, 2)]
    bid, newer = read(world, bid_id)
    assert newer != etag
    assert (bid["version"], bid["state"], bid["terms"]["segments"][0]["quantity_kw"]) == (2, "live", 200)
    assert withdraw(world, bid_id, newer).status_code == 200
    history = world.get(f"/v1/bids/{bid_id}/history", "sunny").json()["items"]
    assert [(one["version"], one["state"]) for one in history] == [(1, "superseded"), (2, "withdrawn")]
    assert [one["terms"]["segments"][0]["quantity_kw"] for one in history] == [100, 200]
    assert [one["received_at"] for one in history] == ["2026-06-30T15:00:00Z", "2026-06-30T15:01:00Z"]


def test_an_amendment_of_a_version_that_is_not_the_newest_fails_its_precondition(world):
    bid_id = world.placed()
    _, etag = read(world, bid_id)
    assert amend(world, bid_id, etag, segments=curve((50, 12))).status_code == 200
    for answer in (amend(world, bid_id, etag), withdraw(world, bid_id, etag), amend(world, bid_id, '"x-2"')):
        assert (answer.status_code, answer.json()["code"]) == (412, "bid_changed")
    without = world.request("PUT", f"/v1/bids/{bid_id}", "sunny", world.new_key(), json=world.bid())
    assert (without.status_code, without.json()["code"]) == (400, "if_match_needed")
    assert read(world, bid_id)[0]["version"] == 2


@pytest.mark.parametrize("name", ["market_id", "resource_id", "product"])
def test_an_amendment_keeps_market_resource_and_product(world, name):
    other = {"market_id": world.ask("POST", "/v1/markets", world.market())["id"], "resource_id": world["battery"]}
    body = self_schedule(world) if name == "product" else world.bid(**{name: other[name]})
    bid_id = world.placed()
    headers = world.new_key() | {"If-Match": read(world, bid_id)[1]}
    answer = world.request("PUT", f"/v1/bids/{bid_id}", "sunny", headers, json=body)
    assert (answer.status_code, faults(answer)) == (422, {("", "other_bid")})


def test_a_refused_amendment_leaves_the_bid_as_it_is(world):
    bid_id = world.placed(**span(0, 2))
    before = read(world, bid_id)
    world.placed(**span(2, 4))
    answer = amend(world, bid_id, before[1], **span(0, 3))
    assert faults(answer) == {("/interval_start", "overlaps")}
    assert read(world, bid_id) == before
    assert faults(world.place(world.bid(**span(1, 2)))) == {("/interval_start", "overlaps")}


def test_a_withdrawn_bid_makes_room_and_comes_not_back(world):
    bid_id = world.placed()
    _, etag = read(world, bid_id)
    assert withdraw(world, bid_id, etag).status_code == 200
    world.placed()
    for answer in (withdraw(world, bid_id, etag), amend(world, bid_id, etag)):
        assert (answer.status_code, answer.json()["code"]) == (409, "bid_withdrawn")


def test_lists_show_every_version_of_ones_own_bids_in_the_order_of_acceptance(world):
    first = world.placed(**span(0, 1))
    world.placed(who="windy", resource_id=world["wind"])
    second = world.placed(**span(1, 2))
    amend(world, first, read(world, first)[1], **span(0, 1), segments=curve((5, 5)))
    listed = world.get("/v1/bids", "sunny").json()["items"]
    assert [(one["id"], one["version"]) for one in listed] == [(first, 1), (second, 1), (first, 2)]
    live = world.get(f"/v1/bids?state=live&market_id={world['market']}", "sunny").json()["items"]
    assert [(one["id"], one["version"]) for one in live] == [(second, 1), (first, 2)]
    assert len(world.get("/v1/bids", "auditor").json()["items"]) == 4


def test_a_second_bid_of_the_same_side_may_not_overlap(world):
    world.placed(**span(4, 8))
    overlap = ("/interval_start", "overlaps")
    for first, end in ((0, 24), (4, 8), (7, 8), (3, 5), (5, 6)):
        refused_with(world, world.bid(**span(first, end)), overlap)
    for first, end in ((3, 4), (8, 9)):
        world.placed(**span(first, end))


def test_a_bid_may_not_go_beyond_what_is_registered(world):
    beyond = ("/segments", "beyond_registered")
    refused_with(world, world.bid(segments=curve((900.001, 10))), beyond)
    refused_with(world, world.bid(segments=curve((500, 10), (400.001, 11))), beyond)
    refused_with(world, world.bid(side="demand", segments=curve((0.001, 10))), beyond)
    battery = {"resource_id": world["battery"], "side": "demand"}
    refused_with(world, world.bid(**battery, segments=curve((300.001, 10))), beyond)
    world.placed(**battery, segments=curve((300, 10)))
    world.placed(segments=curve((500, 10), (400, 11)))
    refused_with(world, capacity(world, product="var_up", quantity=200.001), ("/quantity", "beyond_registered"))
    refused_with(world, capacity(world, quantity=600.001), ("/quantity", "beyond_registered"))


def test_decimals_that_add_up_to_what_is_registered_are_not_beyond_it(world):
    limits = {"p_max_kw": 0.3, "name": "small", "kind": "solar", "bus": "A", "feeder": "lane"}
    small = world.ask("POST", "/v1/resources", limits | {"participant_id": world["sunny"]})["id"]
    world.placed(resource_id=small, segments=curve((0.1, 10), (0.2, 10)))


def test_a_self_schedule_and_a_curve_together_stay_within_what_is_registered(world):
    assert world.place(self_schedule(world, quantity_kw=600, **span(4, 6))).status_code == 201
    refused_with(world, world.bid(segments=curve((300.001, 10))), ("/segments", "beyond_registered"))
    world.placed(**span(0, 4), segments=curve((900, 10)))
    world.placed(**span(4, 24), segments=curve((300, 10)))
    refused_with(world, self_schedule(world, quantity_kw=0.001, **span(3, 4)), ("/quantity_kw", "beyond_registered"))


def test_a_curve_and_a_self_schedule_have_together_at_most_twenty_segments(world):
    twenty = curve(*((10, price) for price in range(20)))
    refused_with(world, world.bid(segments=[*twenty, *curve((10, 20))]), ("/segments", "too_many"))
    world.placed(**span(0, 2), segments=twenty)
    refused_with(world, self_schedule(world, **span(1, 2)), ("/quantity_kw", "too_many_segments"))
    assert world.place(self_schedule(world, **span(2, 4))).status_code == 201
    refused_with(world, world.bid(**span(3, 5), segments=twenty), ("/segments", "too_many_segments"))
    world.placed(**span(3, 5), segments=twenty[:19])


def test_prices_stay_within_cap_and_floor(world):
    for price in (-50, 500):
        bid_id = world.placed(segments=curve((1, price)))
        withdraw(world, bid_id, read(world, bid_id)[1])
    beyond = "beyond_price_limits"
    segments = [{"quantity_kw": 1, "price_usd_per_mwh": -50.00001, "price_end_usd_per_mwh": 500.00001}]
    refused_with(
        world,
        world.bid(segments=segments),
        ("/segments/0/price_usd_per_mwh", beyond),
        ("/segments/0/price_end_usd_per_mwh", beyond),
    )
    refused_with(world, capacity(world, price_usd_per_mw_h=501), ("/price_usd_per_mw_h", beyond))


def test_curves_are_monotone(world):
    refused_with(world, world.bid(segments=curve((1, 10), (1, 9.99999))), ("", "not_monotone"))
    falls = [{"quantity_kw": 1, "price_usd_per_mwh": 10, "price_end_usd_per_mwh": 9}]
    refused_with(world, world.bid(segments=falls), ("", "not_monotone"))
    demand = {"side": "demand", "resource_id": world["battery"]}
    refused_with(world, world.bid(**demand, segments=curve((1, 10), (1, 10.00001))), ("", "not_monotone"))
    world.placed(**demand, segments=curve((1, 10), (1, 10), (1, -3)))


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (DAY_BEGINS + timedelta(seconds=1), 24, {("/interval_start", "off_grid")}),
        (DAY_BEGINS + timedelta(microseconds=1), 24, {("/interval_start", "off_grid")}),
        (DAY_BEGINS - timedelta(hours=1), 24, {("/interval_start", "off_grid")}),
        (DAY_BEGINS, 25, {("/interval_end", "off_grid")}),
        (DAY_BEGINS + timedelta(hours=24), 25, {("/interval_start", "off_grid"), ("/interval_end", "off_grid")}),
        (DAY_BEGINS + timedelta(hours=3), 3, {("/interval_end", "empty_span")}),
        (DAY_BEGINS + timedelta(hours=3), 2, {("/interval_end", "empty_span")}),
    ],
)
def test_intervals_lie_on_the_grid_of_the_day(shared, start, end, expected):
    refused_with(shared, shared.bid(interval_start=z(start), interval_end=hour(end)), *expected)


def test_a_participants_own_demand_may_not_be_dearer_than_its_supply(world):
    battery = {"resource_id": world["battery"]}
    world.placed(**battery, **span(4, 6), segments=curve((10, 40), (10, 60)))
    crossing = world.bid(**battery, side="demand", **span(5, 9), segments=curve((10, 40.00001), (10, 5)))
    refused_with(world, crossing, ("/segments", "crosses_own_bid"))
    world.placed(**battery, side="demand", **span(5, 9), segments=curve((10, 40), (10, 5)))
    refused_with(
        world, world.bid(**battery, **span(6, 7), segments=curve((10, 39.99999))), ("/segments", "crosses_own_bid")
    )


def test_resources_of_other_feeders_nodes_and_owners_are_refused(world):
    for name, code in (("elsewhere", "wrong_feeder"), ("at the end", "unknown_node"), ("wind", "unknown_resource")):
        refused_with(world, world.bid(resource_id=world[name]), ("/resource_id", code))
    world.delete(f"/v1/resources/{world['battery']}")
    refused_with(world, world.bid(resource_id=world["battery"]), ("/resource_id", "unknown_resource"))
    refused_with(world, world.bid(market_id="mkt_" + 24 * "0"), ("/market_id", "unknown_market"))


def test_a_market_on_an_older_version_of_the_feeder_has_its_nodes(world):
    old = next(one for one in world.ask("GET", "/v1/feeders")["items"] if (one["name"], one["version"]) == ("lane", 1))
    market = world.ask("POST", "/v1/markets", world.market(feeder_id=old["id"]))
    world.placed(market_id=market["id"], resource_id=world["at the end"])
    assert LANE["nodes.csv"].count("\n") == old["bus_count"]


def test_a_participant_has_at_most_so_many_bids_in_a_market(new_world):
    with new_world(max_bids_per_market=3) as world:
        first = world.placed(**span(0, 1))
        refused = world.place_all([world.bid(**span(number, number + 1)) for number in (1, 2, 3)])
        assert faults(refused) == {("/bids/2", "too_many_bids")}
        partly = world.place_all([world.bid(**span(number, number + 1)) for number in (1, 2, 3)], "per_item")
        assert [item["status"] for item in partly.json()["items"]] == ["accepted", "accepted", "refused"]
        assert amend(world, first, read(world, first)[1], **span(0, 1), segments=curve((1, 1))).status_code == 200
        refused_with(world, world.bid(**span(5, 6)), ("", "too_many_bids"))
        assert withdraw(world, first, read(world, first)[1]).status_code == 200
        world.placed(**span(5, 6))
        world.placed(who="windy", resource_id=world["wind"])


def test_everything_that_is_wrong_comes_back_at_once(world):
    segments = [
        {"quantity_kw": "12", "price_usd_per_mwh": True, "colour": 1},
        {"quantity_kw": -1, "price_usd_per_mwh": 0.000001},
    ]
    body = world.bid(side="up", interval_start="yesterday", segments=segments, note="")
    del body["resource_id"]
    refused_with(
        world,
        body,
        ("/resource_id", "missing"),
        ("/interval_start", "not_a_time"),
        ("/side", "not_a_choice"),
        ("/segments/0/quantity_kw", "not_a_number"),
        ("/segments/0/price_usd_per_mwh", "not_a_number"),
        ("/segments/0/colour", "unknown_field"),
        ("/segments/1/quantity_kw", "too_small"),
        ("/segments/1/price_usd_per_mwh", "too_many_decimals"),
        ("/note", "unknown_field"),
    )
    world.placed(**span(0, 4))
    refused_with(
        world,
        world.bid(**span(3, 5), segments=curve((1_000, 501))),
        ("/interval_start", "overlaps"),
        ("/segments/0/price_usd_per_mwh", "beyond_price_limits"),
        ("/segments", "beyond_registered"),
    )


def test_only_participants_bid(shared):
    for who in ("operator", "auditor"):
        assert shared.place(shared.bid(), who).status_code == 403
    assert shared.clock() == NOW


def test_a_bid_that_is_withdrawn_between_two_pages_hides_no_other(world):
    spans = [
        {"interval_start": z(DAY_BEGINS + timedelta(hours=n)), "interval_end": z(DAY_BEGINS + timedelta(hours=n + 1))}
        for n in range(4)
    ]
    names = [world.placed(**span) for span in spans]
    first = world.get("/v1/bids?state=live&limit=2", "sunny").json()
    etag = world.get(f"/v1/bids/{names[0]}", "sunny").headers["etag"]
    assert world.request("DELETE", f"/v1/bids/{names[0]}", "sunny", world.new_key() | {"If-Match": etag}).is_success
    second = world.get(f"/v1/bids?state=live&limit=2&cursor={first['next_cursor']}", "sunny").json()
    assert [bid["id"] for page in (first, second) for bid in page["items"]] == names


def test_if_match_may_be_a_list_but_must_name_a_version(world):
    bid_id = world.placed()
    _, first = read(world, bid_id)
    assert amend(world, bid_id, f'"other-1", {first}', segments=curve((50, 12))).status_code == 200
    assert amend(world, bid_id, f'"other-2",{first}').status_code == 412
    answer = amend(world, bid_id, "*")
    assert (answer.status_code, answer.json()["code"]) == (400, "if_match_needed")
    _, second = read(world, bid_id)
    assert withdraw(world, bid_id, f"{first}, {second}").status_code == 200


@pytest.fixture
def pair(new_world):
    """Two processes of the service on one database, of which each takes turns; at most three bids in a market."""
    with new_world(max_bids_per_market=3) as one:
        settings = {"max_bids_per_market": 3}
        with running(one.service.settings.url, one.names, one.loop, **settings) as other:
            yield one, dataclasses.replace(other, numbers=one.numbers)


def test_processes_know_of_each_others_bids(pair):
    one, other = pair
    first = one.place(one.bid(**span(0, 1)))
    second = other.place(other.bid(**span(1, 2)))
    refused_with(one, one.bid(**span(1, 2)), ("/interval_start", "overlaps"))
    refused_with(other, other.bid(**span(0, 1)), ("/interval_start", "overlaps"))
    third = one.place(one.bid(**span(2, 3)))
    assert [answer.json()["sequence"] for answer in (first, second, third)] == [1, 2, 3]
    refused_with(other, other.bid(**span(3, 4)), ("", "too_many_bids"))
    bid_id = first.json()["items"][0]["bid_id"]
    amended = amend(other, bid_id, read(other, bid_id)[1], **span(5, 6))
    refused_with(one, one.bid(**span(6, 7)), ("", "too_many_bids"))
    withdrawn = withdraw(one, bid_id, read(one, bid_id)[1])
    fourth = other.place(other.bid(**span(5, 6)))
    assert [answer.json()["sequence"] for answer in (amended, withdrawn, fourth)] == [4, 5, 6]
    refused_with(one, one.bid(**span(7, 8)), ("", "too_many_bids"))


def test_a_process_knows_of_gates_that_another_moved(pair):
    one, other = pair
    one.placed(**span(0, 1))
    other.placed(**span(1, 2))
    one.ask("POST", f"/v1/markets/{one['market']}/close")
    answer = other.place(other.bid(**span(2, 3)))
    assert (answer.status_code, answer.json()["code"]) == (409, "gate_closed")


def test_a_process_knows_what_stands_after_another_placed_amended_and_withdrew(pair):
    one, other = pair
    first = one.placed(**span(0, 1))
    second = other.placed(**span(1, 2))
    assert amend(other, second, read(other, second)[1], **span(4, 5)).status_code == 200
    assert withdraw(other, first, read(other, first)[1]).status_code == 200
    third = other.placed(**span(2, 3))
    refused_with(one, one.bid(**span(2, 3)), ("/interval_start", "overlaps"))
    refused_with(one, one.bid(**span(4, 5)), ("/interval_start", "overlaps"))
    assert withdraw(other, third, read(other, third)[1]).status_code == 200
    one.placed(**span(0, 3))


def test_a_process_reads_nothing_anew_after_bids_of_another(pair):
    one, other = pair
    one.placed(**span(0, 1))
    other.placed(**span(1, 2))
    sent = []
    event.listen(one.service.engine, "before_cursor_execute", lambda *what: sent.append(what[2]))
    one.placed(**span(2, 3))
    assert any("FROM audit" in statement for statement in sent)
    anew = re.compile(r"FROM (markets|resources|participants)|bids\.resource_id (= ANY|IN)")
    assert not [statement for statement in sent if anew.search(statement)]


def test_a_book_ahead_of_a_database_that_was_put_back_forgets_what_it_knew(new_world):
    with new_world() as world:
        head = Chain(5, "a" * 64, 2)
        book = Book(3, 3, world.clock)
        with world.service.engine.connect() as connection:
            for then in (head, Chain(5, "b" * 64, 2), Chain(4, "c" * 64, 1)):
                book.open(connection, head, [], [])
                book.numbers["par"] = 7
                book.close(head)
                book.open(connection, then, [], [])
                assert book.numbers == ({"par": 7} if then is head else {})
                book.close(then)
