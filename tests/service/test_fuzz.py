"""Requests that are made up from the OpenAPI document, sound and unsound: none is an error of the service, and every
answer is one that the document names.

What is made up is mostly refused for its names, so that names of what there is are put in their places every other
time, and for what does not fit together, so that a body every other time is a sound one with a field or two of what is
made up; keys of every role ask.  So every operation is carried out, too.
"""

import hashlib
import socket
from collections import Counter, defaultdict
from datetime import timedelta

import pytest
import schemathesis
from conftest import KINDS
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from publishing import publish_invented, run_invented
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from worlds import DAY_BEGINS, GATE_CLOSES, z

CHECKS = [
    schemathesis.checks.not_a_server_error,
    *(status_code_conformance, content_type_conformance, response_schema_conformance, response_headers_conformance),
]
HOUR = timedelta(hours=1)
PAST_BEGINS = DAY_BEGINS - timedelta(days=3)
REQUESTS, NIGHTLY_REQUESTS = 3_000, 180_000
"""About so many on both databases together, each of those made up sent by two keys."""
NIGHTLY_DISTINCT = 50_000
"""At least so many on each database are no repetition; of a few thousand seven in ten are none."""
PUBLISHED = ("prices", "price-shares", "limits", "broken-limits", "awards", "statements", "statements/delta")
WHO = ["operator", "operator", "sunny", "sunny", "windy", "auditor", "reader", "revoked", None]


def names_of(world):
    """Names of what there is, by the name of the parameter or field that they fit; no key that is in use."""
    ids = world.names.ids
    markets = [world.ask("POST", "/v1/markets", world.market())["id"] for _ in range(4)]
    bids = [world.placed(market_id=markets[0], **hour(number)) for number in range(24)]
    bids.append(world.placed(who="windy", resource_id=world["wind"]))
    over = world.market(trade_date="2026-06-28", bids_public_after_days=0)
    past = world.ask("POST", "/v1/markets", over)["id"]
    for name in ("solar", "battery"):
        world.placed(market_id=past, resource_id=world[name], **hour(0, PAST_BEGINS))
    publish_invented(world, [("sunny", "solar", "1.00")], past)
    run_invented(world, [("sunny", "solar", "1.00")], markets[1])
    spare = world.ask("POST", "/v1/keys", {"name": "spare", "role": "auditor"})["id"]
    published = world.ask("POST", "/v1/markets", world.market())["id"]
    run = publish_invented(world, [("sunny", "solar", "1.00")], published)
    publish_invented(world, [("sunny", "solar", "1.01")], published, reason="x")
    world.ask("POST", f"/v1/markets/{markets[2]}/close")
    queued = world.ask("POST", f"/v1/markets/{markets[2]}/runs", {})["id"]
    soon = world.ask("POST", "/v1/markets", world.market(gate_opens_at=z(GATE_CLOSES - HOUR)))["id"]
    retired = world.ask("POST", "/v1/resources", _spare_resource(world))["id"]
    hook = {"url": "https://127.0.0.1/", "events": ["market.settled"]}
    hooks = [world.ask("POST", "/v1/webhooks", hook, who)["id"] for who in ("operator", "operator", "sunny")]
    return {
        "bid_id": bids,
        "feeder_id": [ids["lane"], ids["alley"]],
        "key_id": [spare],
        "market_id": [ids["market"], published, past, *markets],
        "open": [markets[0], markets[3], ids["market"]],
        "POST /v1/markets/{market_id}/open market_id": [soon],
        "POST /v1/markets/{market_id}/publish market_id": [markets[1], published],
        "POST /v1/markets/{market_id}/readings market_id": [past],
        "POST /v1/markets/{market_id}/readings/csv market_id": [past],
        "POST /v1/markets/{market_id}/runs market_id": [markets[1], past, published],
        "POST /v1/markets/{market_id}/settle market_id": [published],
        "GET /v1/markets/{market_id}/bids market_id": [past],
        **{f"GET /v1/markets/{{market_id}}/{name} market_id": [published] for name in PUBLISHED},
        "participant_id": [ids["sunny"]],
        "resource_id": [ids["solar"], ids["battery"], ids["wind"]],
        "DELETE /v1/resources/{resource_id} resource_id": [retired],
        "run_id": [run],
        "POST /v1/runs/{run_id}/cancel run_id": [run, queued],
        "webhook_id": hooks[1:],
        "DELETE /v1/webhooks/{webhook_id} webhook_id": [hooks[0]],
        "url": [hook["url"]],
        "feeder": ["lane"],
        "bus": ["A", "B"],
    }


def _spare_resource(world):
    place = {"feeder": "lane", "bus": "A", "kind": "ev", "p_max_kw": 1}
    return place | {"participant_id": world["sunny"], "name": "spare"}


def hour(number, begins=DAY_BEGINS):
    return {"interval_start": z(begins + number * HOUR), "interval_end": z(begins + (number + 1) * HOUR)}


def sound_bodies(world, names):
    """What makes sound bodies, by the operation that takes them."""
    hours, numbers = st.integers(0, 23), st.integers(-900, 900)
    offered = st.builds(
        lambda market, name, at, price: world.bid(
            market_id=market,
            resource_id=world[name],
            segments=[{"quantity_kw": 100, "price_usd_per_mwh": price}],
            **hour(at),
        ),
        *(st.sampled_from(names["open"]), st.sampled_from(["solar", "battery"]), hours, st.integers(-50, 500)),
    )
    read = st.builds(
        lambda name, at, kwh: {"resource_id": world[name], "net_injection_kwh": kwh} | hour(at, PAST_BEGINS),
        *(st.sampled_from(["solar", "battery"]), hours, numbers),
    )
    reasons = st.sampled_from([{}, {"correction_reason": "again"}])
    return {
        "POST /v1/bids": offered,
        "POST /v1/bids/batch": st.fixed_dictionaries(
            {"mode": st.sampled_from(["atomic", "per_item"]), "bids": st.lists(offered, min_size=1, max_size=3)}
        ),
        "PUT /v1/bids/{bid_id}": offered,
        "POST /v1/markets": st.builds(world.market, import_price_usd_per_mwh=st.lists(numbers, min_size=1, max_size=1)),
        "POST /v1/markets/{market_id}/readings": st.fixed_dictionaries(
            {"readings": st.lists(read, min_size=1, max_size=3)}
        ),
        "POST /v1/markets/{market_id}/readings/csv": st.lists(read, min_size=1, max_size=3).map(
            lambda rows: "\n".join(",".join(map(str, row)) for row in ([*rows[0]], *(row.values() for row in rows)))
        ),
        "POST /v1/markets/{market_id}/runs": reasons,
        "POST /v1/markets/{market_id}/settle": reasons,
        "POST /v1/resources": st.builds(lambda number: _spare_resource(world) | {"name": f"spare {number}"}, numbers),
    }


def make_sound(world, case, sound, place, data):
    """Put a sound body, at its `place`, for the one that is made up, with a field or two of that, every other time."""
    made_up, wanted = case.body, sound.get(f"{case.method} {case.path}")
    if wanted is None or data.draw(st.booleans()):
        return
    case.body = data.draw(wanted)
    if case.path.startswith("/v1/bids"):
        case.headers.update(world.new_key())
    if place:
        case.body |= place
    if isinstance(case.body, dict) and isinstance(made_up, dict) and made_up:
        chosen = data.draw(st.lists(st.sampled_from(list(made_up)), max_size=2))
        case.body |= {name: made_up[name] for name in chosen}


PLACE = ("market_id", "resource_id", "interval_start", "interval_end")
ENDLESS = "/v1/markets/{market_id}/events"
"""Goes on as long as its market is followed, which here is for ever."""


def put_names_in(world, case, names, data):
    """Put names of what there is in the places of those that are made up, every other time.

    Returns where a bid stands that is named with its version: nothing where none is.
    """
    place = {}
    if isinstance(case.path_parameters, dict) and case.path != ENDLESS:
        for name in case.path_parameters:
            known = names.get(f"{case.method} {case.path} {name}", names.get(name, []))
            if known and data.draw(st.booleans()):
                case.path_parameters[name] = data.draw(st.sampled_from(known))
                if name == "bid_id" and case.method != "GET" and data.draw(st.booleans()):
                    found = world.get(f"/v1/bids/{case.path_parameters[name]}")
                    case.headers["If-Match"] = found.headers["ETag"]
                    place = {field: found.json()[field] for field in PLACE}
    bodies = case.body if isinstance(case.body, list) else [case.body]
    bodies += [
        one
        for body in bodies
        if isinstance(body, dict)
        for name in ("bids", "readings")
        for one in _list(body.get(name))
    ]
    for body in bodies:
        for name in names.keys() & body.keys() if isinstance(body, dict) else ():
            if data.draw(st.booleans()):
                body[name] = data.draw(st.sampled_from(names[name]))
    return place


def _list(value):
    return value if isinstance(value, list) else []


def sent(world, case, who):
    """Send a case as it is; its own authorisation, which is made up, only where nobody asks."""
    request = case.as_transport_kwargs(base_url="http://market.example")
    headers = {name: value for name, value in request.pop("headers").items() if name.lower() != "authorization"}
    method, url = request.pop("method"), request.pop("url")
    content = {"content": request["data"]} if isinstance(request.get("data"), bytes | str) else {}
    if request.get("json") is not None:
        content = {"json": request["json"]}
    query = {} if request.get("params") is None else {"params": request["params"]}
    return world.request(method, url, who, headers, cookies=request.get("cookies") or None, **content, **query)


def name_of(case, who):
    """Name of a request: two that are the same have one."""
    parts = (case.method, case.formatted_path, case.query, case.headers, case.cookies, case.media_type, case.body, who)
    return hashlib.sha256(repr(parts).encode("utf-8", "backslashreplace")).digest()


def those_who_may(operation):
    """A key that reaches, and then one that may or may not."""
    bids = operation.path.startswith("/v1/bids") and operation.method.upper() != "GET"
    reaches = "sunny" if bids else "operator"
    return st.tuples(st.just(reaches), st.sampled_from([who for who in WHO if who != reaches]))


def asks_for_something(operation):
    """Whether there is anything to make up."""
    return bool(list(operation.iter_parameters()) or operation.body)


@pytest.mark.parametrize("requests", [REQUESTS, pytest.param(NIGHTLY_REQUESTS, marks=pytest.mark.nightly)])
def test_no_request_is_an_error_of_the_service_and_every_answer_is_documented(new_world, monkeypatch, requests):
    monkeypatch.setattr(socket, "getaddrinfo", no_names(socket.getaddrinfo))
    with new_world(webhook_allowed_networks="127.0.0.1") as world:
        fuzz_all(world, requests)


def no_names(looked_up):
    """Look addresses up, and no names, which would have to be asked for elsewhere."""

    def look_up(host, *rest, **more):
        return looked_up(host, *rest, **more | {"flags": socket.AI_NUMERICHOST})

    return look_up


def fuzz_all(world, requests):
    names = names_of(world)
    sound = sound_bodies(world, names)
    schema = schemathesis.openapi.from_dict(world.get("/openapi.json", None).json())
    operations = [
        found for found in (result.ok() for result in schema.get_all_operations()) if asks_for_something(found)
    ]
    each = -(-requests // (2 * len(KINDS) * len(operations)))
    count, distinct, answers = 0, set(), defaultdict(Counter)
    for number, operation in enumerate(operations):
        made_up = [operation.as_strategy(generation_mode=mode) for mode in GenerationMode]

        @seed(number)
        @settings(
            max_examples=each,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=st.one_of(made_up), people=those_who_may(operation), data=st.data())
        def fuzz(case, people, data):
            nonlocal count
            place = put_names_in(world, case, names, data)
            make_sound(world, case, sound, place, data)
            for who in people:
                answer = sent(world, case, who)
                count += 1
                distinct.add(name_of(case, who))
                answers[f"{case.method} {case.path}"][answer.status_code] += 1
                assert answer.status_code < 500, answer.text
                case.validate_response(answer, checks=CHECKS)

        fuzz()
        *_, (name, codes) = answers.items()
        print(f"{count} requests, {len(distinct)} of them distinct; {name}: {dict(sorted(codes.items()))}", flush=True)
    never = [name for name, codes in answers.items() if min(codes) >= 400]
    if requests == NIGHTLY_REQUESTS:
        assert never == [f"GET {ENDLESS}"], "others were never carried out"
        assert len(distinct) >= NIGHTLY_DISTINCT
    assert count >= 0.8 * requests / len(KINDS)  # some operations have few requests that differ
    assert world.get("/v1/audit/verify").json()["is_whole"]
