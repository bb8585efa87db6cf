"""The edge: requests are received with their last byte, and refused before a byte is read of what nobody may send."""

import json
from datetime import timedelta

import pytest
from worlds import GATE_CLOSES, faults

BEFORE, AFTER = GATE_CLOSES - timedelta(seconds=1), GATE_CLOSES + timedelta(seconds=1)
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(("method", "has_body"), [("POST", True), ("PUT", True), ("DELETE", False)])
def test_a_request_is_received_with_its_last_byte(world, method, has_body):
    body = json.dumps(world.bid()).encode() if has_body else b" "
    path, headers = "/v1/bids", world.new_key() | JSON
    if method != "POST":
        path += f"/{world.placed()}"
        headers["If-Match"] = world.get(path, "sunny").headers["etag"]
    before = world.stored()

    async def dawdling():
        world.clock.now = BEFORE
        yield body[:-1]
        world.clock.now = AFTER
        yield body[-1:]

    answer = world.request(method, path, "sunny", headers, content=dawdling())
    assert (answer.status_code, answer.json()["code"]) == (409, "gate_closed")
    assert world.stored()["bids"] == before["bids"]


@pytest.mark.parametrize("who", [None, "revoked", "reader"])
def test_nothing_is_read_of_what_nobody_may_send(world, who):
    read = 0

    async def counted():
        nonlocal read
        for _ in range(10):
            read += 1
            yield b'{"product":'

    answer = world.request("POST", "/v1/bids", who, world.new_key() | JSON, content=counted())
    assert answer.status_code == (403 if who == "reader" else 401)
    assert read == 0


def test_an_object_of_very_many_members_is_refused_whole(world):
    body = json.dumps({str(number): 0 for number in range(200_000)})
    answer = world.request("POST", "/v1/bids", "sunny", world.new_key() | JSON, content=body)
    assert (answer.status_code, faults(answer)) == (400, {("", "too_many_members")})
    assert len(answer.content) < 1_000


def test_of_very_many_faults_in_a_bid_the_first_hundred_are_named_and_the_rest_counted(world):
    wrong = {"quantity_kw": 1, "price_usd_per_mwh": 2} | {f"x{number}": 0 for number in range(20)}
    answer = world.place(world.bid(segments=[wrong] * 10))
    *named, last = answer.json()["errors"]
    assert answer.status_code == 422
    assert len(named) == 100
    assert {fault["code"] for fault in named} == {"unknown_field"}
    assert (last["code"], last["detail"]) == ("too_many_faults", "There are 100 more.")
