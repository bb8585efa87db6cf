"""Requests that are made up from the OpenAPI document, sound and unsound: none is an error of the service, and every
answer is one that the document names.

What is made up is mostly refused for its names, so that names of what there is are put in their places every other
time; keys of every role ask.
"""

import socket

import pytest
import schemathesis
from conftest import KINDS
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from publishing import publish_invented
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [
    schemathesis.checks.not_a_server_error,
    *(status_code_conformance, content_type_conformance, response_schema_conformance, response_headers_conformance),
]
REQUESTS, NIGHTLY_REQUESTS = 5_000, 120_000
"""About so many on both databases together, each of those made up sent by two keys."""
WHO = ["operator", "operator", "sunny", "sunny", "windy", "auditor", "reader", "revoked", None]


def names_of(world):
    """Names of what there is, by the name of the parameter or field that they fit; no key that is in use."""
    ids = world.names.ids
    bids = [world.placed(interval_end="2026-07-01T08:00:00Z"), world.placed(who="windy", resource_id=world["wind"])]
    spare = world.ask("POST", "/v1/keys", {"name": "spare", "role": "auditor"})["id"]
    published = world.ask("POST", "/v1/markets", world.market())["id"]
    run = publish_invented(world, [("sunny", "solar", "1.00")], published)
    publish_invented(world, [("sunny", "solar", "1.01")], published, reason="x")
    retired = world.ask("POST", "/v1/resources", _spare_resource(world))["id"]
    hook = {"url": "https://127.0.0.1/", "events": ["market.settled"]}
    hooks = [world.ask("POST", "/v1/webhooks", hook, who)["id"] for who in ("operator", "operator", "sunny")]
    return {
        "bid_id": bids,
        "feeder_id": [ids["lane"], ids["alley"]],
        "key_id": [spare],
        "market_id": [ids["market"], published],
        "participant_id": [ids["sunny"]],
        "resource_id": [ids["solar"], ids["battery"], ids["wind"]],
        "DELETE resource_id": [retired],
        "run_id": [run],
        "webhook_id": hooks[1:],
        "DELETE webhook_id": [hooks[0]],
        "url": [hook["url"]],
        "feeder": ["lane"],
        "bus": ["A", "B"],
    }


def _spare_resource(world):
    place = {"feeder": "lane", "bus": "A", "kind": "ev", "p_max_kw": 1}
    return place | {"participant_id": world["sunny"], "name": "spare"}


ENDLESS = "/v1/markets/{market_id}/events"
"""Goes on as long as its market is followed, which here is for ever."""


def put_names_in(case, names, data):
    """Put names of what there is in the places of those that are made up, every other time."""
    if isinstance(case.path_parameters, dict) and case.path != ENDLESS:
        for name in case.path_parameters:
            known = names.get(f"{case.method} {name}", names.get(name, []))
            if known and data.draw(st.booleans()):
                case.path_parameters[name] = data.draw(st.sampled_from(known))
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


def those_who_may(operation):
    """A key that reaches, and then one that may or may not."""
    bids = operation.path.startswith("/v1/bids") and operation.method.upper() != "GET"
    return st.tuples(st.just("sunny" if bids else "operator"), st.sampled_from(WHO))


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
    schema = schemathesis.openapi.from_dict(world.get("/openapi.json", None).json())
    operations = [
        found for found in (result.ok() for result in schema.get_all_operations()) if asks_for_something(found)
    ]
    each = -(-requests // (2 * len(KINDS) * len(operations)))
    count = 0
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
            put_names_in(case, names, data)
            for who in people:
                answer = sent(world, case, who)
                count += 1
                assert answer.status_code < 500, answer.text
                case.validate_response(answer, checks=CHECKS)

        fuzz()
    assert count >= 0.8 * requests / len(KINDS)  # some operations have few requests that differ
    assert world.get("/v1/audit/verify").json()["is_whole"]
