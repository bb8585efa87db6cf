"""Who may do what: every route of the OpenAPI document, with every kind of key, on own and others' objects.

`ROUTES` says what each route asks for; a route that it does not name fails.  That another's object answers as one that
does not exist, and that a participant's answers do not depend on another's bids, is tested below.
"""

import hashlib
from dataclasses import dataclass

import pytest
from publishing import publish_invented
from worlds import pages

from api.auth import AGGREGATOR, AUDITOR, OPERATOR, PUBLIC, SCOPES_OF

NOBODY = "000000000000000000000000"
UNKNOWN = ("revoked", "expired", "garbage")
ROLES = {None: PUBLIC, "sunny": AGGREGATOR, "windy": AGGREGATOR, "operator": OPERATOR, "auditor": AUDITOR}
MAY = {
    PUBLIC: {"feeders:read", "markets:read", "prices:read"},
    AGGREGATOR: {
        *("feeders:read", "markets:read", "prices:read", "resources:read", "bids:read", "bids:write", "awards:read"),
        *("statements:read", "meter:read", "webhooks:read", "webhooks:write"),
    },
    AUDITOR: {
        *("feeders:read", "markets:read", "prices:read", "resources:read", "bids:read", "awards:read"),
        *("statements:read", "meter:read", "runs:read", "participants:read", "keys:read", "audit:read", "metrics:read"),
        "webhooks:read",
    },
    OPERATOR: {
        *("feeders:read", "markets:read", "prices:read", "resources:read", "bids:read", "awards:read"),
        *("statements:read", "meter:read", "runs:read", "participants:read", "keys:read", "audit:read", "metrics:read"),
        *("participants:write", "keys:write", "feeders:write", "resources:write", "markets:write", "runs:write"),
        *("meter:write", "webhooks:read", "webhooks:write", "participant_keys:write"),
    },
}
"""What each role may do, written down a second time: an auditor writes nothing, and only participants bid."""


@dataclass(frozen=True)
class Route:
    """What a route asks for: a scope, blank for none, and the object in its path; `own` where it is a participant's."""

    scope: str
    target: str = ""
    is_own: bool = False
    body: object = None


ROUTES = {
    "POST /v1/participants": Route("participants:write", body={}),
    "GET /v1/participants": Route("participants:read"),
    "POST /v1/keys": Route("keys:write", body={}),
    "GET /v1/keys": Route("keys:read"),
    "DELETE /v1/keys/{key_id}": Route("keys:write", "key of windy"),
    "POST /v1/feeders": Route("feeders:write", body={}),
    "GET /v1/feeders": Route("feeders:read"),
    "GET /v1/feeders/{feeder_id}": Route("feeders:read", "lane"),
    "POST /v1/resources": Route("resources:write", body={}),
    "GET /v1/resources": Route("resources:read"),
    "GET /v1/resources/{resource_id}": Route("resources:read", "solar", is_own=True),
    "DELETE /v1/resources/{resource_id}": Route("resources:write", "solar"),
    "POST /v1/markets": Route("markets:write", body={}),
    "GET /v1/markets": Route("markets:read"),
    "GET /v1/markets/{market_id}": Route("markets:read", "market"),
    "GET /v1/markets/{market_id}/events": Route("markets:read", "market"),
    "POST /v1/markets/{market_id}/open": Route("markets:write", "market"),
    "POST /v1/markets/{market_id}/close": Route("markets:write", "market"),
    "POST /v1/markets/{market_id}/publish": Route("markets:write", "market"),
    "POST /v1/markets/{market_id}/settle": Route("markets:write", "market", body={}),
    "POST /v1/markets/{market_id}/readings": Route("meter:write", "market", body={}),
    "POST /v1/markets/{market_id}/readings/csv": Route("meter:write", "market", body=b"no table"),
    "GET /v1/markets/{market_id}/readings": Route("meter:read", "market"),
    "POST /v1/markets/{market_id}/runs": Route("runs:write", "market", body={"limits": 1}),
    "GET /v1/markets/{market_id}/runs": Route("runs:read", "market"),
    "GET /v1/runs/{run_id}": Route("runs:read", "run"),
    "GET /v1/runs/{run_id}/snapshot": Route("runs:read", "run"),
    "GET /v1/runs/{run_id}/events": Route("runs:read", "run"),
    "POST /v1/runs/{run_id}/cancel": Route("runs:write", "run"),
    "POST /v1/bids": Route("bids:write", body={}),
    "POST /v1/bids/batch": Route("bids:write", body={}),
    "GET /v1/bids": Route("bids:read"),
    "GET /v1/bids/{bid_id}": Route("bids:read", "bid", is_own=True),
    "PUT /v1/bids/{bid_id}": Route("bids:write", "bid", is_own=True, body="bid"),
    "DELETE /v1/bids/{bid_id}": Route("bids:write", "bid", is_own=True),
    "GET /v1/bids/{bid_id}/history": Route("bids:read", "bid", is_own=True),
    "GET /v1/prices": Route("prices:read"),
    "GET /v1/markets/{market_id}/prices": Route("prices:read", "market"),
    "GET /v1/markets/{market_id}/price-shares": Route("prices:read", "market"),
    "GET /v1/markets/{market_id}/limits": Route("prices:read", "market"),
    "GET /v1/markets/{market_id}/broken-limits": Route("prices:read", "market"),
    "GET /v1/markets/{market_id}/bids": Route("prices:read", "market"),
    "GET /v1/markets/{market_id}/awards": Route("awards:read", "market"),
    "GET /v1/markets/{market_id}/statements": Route("statements:read", "market"),
    "GET /v1/markets/{market_id}/statements/delta": Route("statements:read", "market"),
    "POST /v1/webhooks": Route("webhooks:write", body={}),
    "GET /v1/webhooks": Route("webhooks:read"),
    "GET /v1/webhooks/{webhook_id}": Route("webhooks:read", "webhook", is_own=True),
    "GET /v1/webhooks/{webhook_id}/deliveries": Route("webhooks:read", "webhook", is_own=True),
    "POST /v1/webhooks/{webhook_id}/ping": Route("webhooks:write", "webhook", is_own=True),
    "DELETE /v1/webhooks/{webhook_id}": Route("webhooks:write", "webhook", is_own=True),
    "GET /v1/audit": Route("audit:read"),
    "GET /v1/audit/verify": Route("audit:read"),
    "GET /healthz": Route(""),
    "GET /readyz": Route(""),
    "GET /metrics": Route("metrics:read"),
}
OF_THE_CONSOLE = {
    *("/", "/console/assets", "/console/session", "/console/markets/{market_id}/bid-file"),
    *("/console/markets/{market_id}/picture", "/console/markets/{market_id}/picture/{quantity}"),
}
"""Whose tests are in `test_console`."""
NOT_DOCUMENTED = {"/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc", "/docs/static", *OF_THE_CONSOLE}
"""Paths that describe the service and touch nothing of it."""


@pytest.fixture(scope="module")
def peopled(new_world):
    """A service with a bid of each of two participants in an open market, and a published one."""
    with new_world(webhook_allowed_networks="127.0.0.1") as world:
        ids, keys = world.names.ids, world.names.keys
        for who, name in (("sunny", "webhook"), ("windy", "webhook of windy"), ("operator", "webhook of operators")):
            hook = {"url": "https://127.0.0.1/", "events": ["market.open"]}
            ids[name] = world.ask("POST", "/v1/webhooks", hook, who)["id"]
        ids["bid"] = world.placed()
        ids["bid of windy"] = world.placed(who="windy", resource_id=world["wind"])
        other = ids["published market"] = world.ask("POST", "/v1/markets", world.market())["id"]
        ids["run"] = publish_invented(world, [("sunny", "solar", "1.00"), ("windy", "wind", "2.00")], other)
        keys["garbage"] = "dlmp_key_" + NOBODY + "." + "x" * 43
        yield world


def documented(world):
    document = world.get("/openapi.json", None).json()
    return {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}


def path_of(world, name, target=None):
    route = ROUTES[name]
    path = name.split()[1]
    if not route.target:
        return path
    before, after = path.split("{")[0], path.split("}")[1]
    return before + (target or world[route.target]) + after


def ask(world, name, who, target=None):
    """Ask for something, such that who may gets beyond authorisation, and nothing is changed for that."""
    route = ROUTES[name]
    path = path_of(world, name, target)
    headers = {}
    if route.scope == "bids:write":
        bid_id = target or world["bid"]
        etag = world.get(f"/v1/bids/{bid_id}", "auditor").headers.get("etag", '"x-1"')
        headers = {"Idempotency-Key": f"key {next(world.numbers)}", "If-Match": etag}
    content = {} if route.body is None else {"json": world.bid(side="none") if route.body == "bid" else route.body}
    if isinstance(route.body, bytes):
        headers, content = {"Content-Type": "text/csv"}, {"content": route.body}
    return world.request(name.split()[0], path, who, headers, **content)


def test_every_route_has_an_entry(peopled):
    assert documented(peopled) == set(ROUTES)


def test_every_route_that_is_not_documented_is_known(peopled):
    paths = {getattr(route, "path", "") for route in peopled.app.routes}
    shown = {name.split()[1] for name in ROUTES}
    assert {path for path in paths if path and path not in shown} <= NOT_DOCUMENTED


def test_roles_have_the_scopes_that_the_rules_give_them():
    assert {role: set(scopes) for role, scopes in SCOPES_OF.items()} == MAY
    assert not any(scope.endswith(":write") for scope in MAY[AUDITOR] | MAY[PUBLIC])


@pytest.mark.parametrize("name", ROUTES)
def test_who_may_not_is_refused_before_anything_else(peopled, name):
    route = ROUTES[name]
    before = peopled.stored()
    for who, role in ROLES.items():
        if route.scope and route.scope not in MAY[role]:
            answer = ask(peopled, name, who)
            expected = (401, "no_key") if who is None else (403, "scope_missing")
            assert (answer.status_code, answer.json()["code"]) == expected, who
            missing = ask(
                peopled, name, who, f"{peopled[route.target].split('_')[0]}_{NOBODY}" if route.target else None
            )
            assert missing.status_code == answer.status_code
    for who in UNKNOWN:
        answer = ask(peopled, name, who)
        expected = (401, "unknown_key") if route.scope else (200, None)
        assert (answer.status_code, answer.json().get("code")) == expected, who
    for who in ("narrow", "reader"):
        scopes = {"narrow": {"markets:read"}, "reader": {"markets:read", "bids:read"}}[who]
        if route.scope and route.scope not in scopes:
            assert ask(peopled, name, who).status_code == 403, who
    assert peopled.stored() == before


ON_NOTHING = {
    *("DELETE /v1/keys/{key_id}", "DELETE /v1/resources/{resource_id}", "DELETE /v1/bids/{bid_id}"),
    *("POST /v1/webhooks/{webhook_id}/ping", "DELETE /v1/webhooks/{webhook_id}"),
    "GET /v1/markets/{market_id}/events",
}
ON_NOTHING |= {f"POST /v1/markets/{{market_id}}/{move}" for move in ("open", "close", "publish", "settle")}


@pytest.mark.parametrize("name", ROUTES)
def test_who_may_gets_beyond_authorisation(peopled, name):
    """Those that would change something, or never end, are asked on what does not exist, which is found out later."""
    route = ROUTES[name]
    unknown = f"{peopled[route.target].split('_')[0]}_{NOBODY}" if route.target else None
    for who, role in ROLES.items():
        if route.scope in MAY[role] or not route.scope:
            target = unknown if name in ON_NOTHING or (route.is_own and who != "sunny" and role == AGGREGATOR) else None
            answer = ask(peopled, name, who, target)
            assert answer.status_code not in (401, 403), (who, answer.text)
            assert answer.status_code < 500


def alike(one, two):
    """Answers that tell the same: but for the id of the request, which is random."""
    same_headers = {name: value for name, value in one.headers.items() if name != "x-request-id"} == {
        name: value for name, value in two.headers.items() if name != "x-request-id"
    }
    bodies = [answer.json() | {"request_id": ""} for answer in (one, two)]
    return one.status_code == two.status_code and same_headers and bodies[0] == bodies[1]


@pytest.mark.parametrize("name", [name for name, route in ROUTES.items() if route.is_own])
def test_anothers_object_answers_as_one_that_does_not_exist(peopled, name):
    target = ROUTES[name].target
    own, others = {
        "bid": ("bid", "bid of windy"),
        "solar": ("solar", "wind"),
        "webhook": ("webhook", "webhook of windy"),
    }[target]
    missing = f"{peopled[target].split('_')[0]}_{NOBODY}"
    body = {"json": peopled.bid()} if ROUTES[name].body else {}
    answers = []
    for target_id in (peopled[others], missing):
        etag = peopled.get(f"/v1/bids/{peopled[others]}", "windy").headers.get("etag", '"x-1"')
        if target_id == missing:
            etag = _etag_of(missing)
        headers = peopled.new_key() | {"If-Match": etag}
        method = name.split()[0]
        answers.append(peopled.request(method, path_of(peopled, name, target_id), "sunny", headers, **body))
    assert answers[0].status_code == 404
    assert alike(*answers)
    assert ask(peopled, name, "sunny", peopled[own]).status_code != 404
    assert ask(peopled, name, "windy", peopled[own]).status_code in (404, 422)


def _etag_of(bid_id):
    """The ETag that version 1 of a bid of that name would have: it can be worked out by anybody."""
    return '"' + hashlib.sha256(f"{bid_id} 1".encode()).hexdigest()[:16] + '-1"'


def test_a_bid_for_anothers_resource_answers_as_for_one_that_does_not_exist(peopled):
    answers = [peopled.place(peopled.bid(resource_id=name)) for name in (peopled["wind"], f"res_{NOBODY}")]
    assert alike(*answers)
    assert answers[0].status_code == 422


def test_lists_awards_and_statements_hold_what_is_ones_own(peopled):
    market = peopled["published market"]
    own = {"sunny": ("solar", "1.00"), "windy": ("wind", "2.00")}
    for who, (resource, amount) in own.items():
        listed = pages(peopled, "/v1/resources", who, 2)
        assert {one["participant_id"] for one in listed} == {peopled[who]}
        assert resource in {one["name"] for one in listed}
        resources = {one["id"] for one in listed}
        assert {one["resource_id"] for one in pages(peopled, "/v1/bids", who, 1)} <= resources
        awards = peopled.get(f"/v1/markets/{market}/awards", who).json()["items"]
        assert [award["resource"] for award in awards] == [resource]
        lines = peopled.get(f"/v1/markets/{market}/statements", who).json()["items"]
        assert [(line["participant"], line["amount"]) for line in lines] == [(peopled[who], amount)]
        for form in ("csv", "parquet"):
            content = peopled.get(f"/v1/markets/{market}/statements?format={form}", who).content
            others = ({"sunny", "windy"} - {who}).pop()
            assert peopled[others].encode() not in content
    for who in ("operator", "auditor"):
        assert len(peopled.get(f"/v1/markets/{market}/statements", who).json()["items"]) == 2


def session(world, bids_of_the_other):
    """All that a participant, and the public, can read while the other one bids so often; ids and hashes apart."""
    answers = []
    for number in range(3):
        for _ in range(bids_of_the_other):
            bid_id = world.placed(who="windy", resource_id=world["wind"])
            etag = world.get(f"/v1/bids/{bid_id}", "windy").headers["etag"]
            headers = world.new_key() | {"If-Match": etag}
            world.delete(f"/v1/bids/{bid_id}", "windy", headers=headers)
            world.placed(who="windy", resource_id=world["wind"])
            held = world.get("/v1/bids?state=live", "windy").json()["items"][0]["id"]
            headers = world.new_key() | {"If-Match": world.get(f"/v1/bids/{held}", "windy").headers["etag"]}
            world.delete(f"/v1/bids/{held}", "windy", headers=headers)
            world.place(world.bid(resource_id=world["wind"], segments=[]), "windy")
        headers = {"Idempotency-Key": f"own {number}"}
        for body in (world.bid(), world.bid(side="demand"), world.bid(resource_id=world["wind"])):
            answers.append(world.post("/v1/bids", body, "sunny", headers=headers))
        for path in ("/v1/bids", "/v1/bids?limit=1", "/v1/resources", "/v1/markets", "/v1/prices", "/healthz"):
            answers.append(world.get(path, "sunny"))
        for name in (
            *("", "/prices", "/awards", "/statements", "/statements/delta", "/limits", "/broken-limits"),
            *("/price-shares", "/readings", "/runs", "/bids"),
        ):
            for who in ("sunny", None):
                answers.append(world.get(f"/v1/markets/{world['market']}{name}", who))
        for path in ("/metrics", "/v1/audit", "/v1/keys", "/v1/participants", "/readyz"):
            for who in ("sunny", None):
                answers.append(world.get(path, who))
    return [(answer.status_code, without_names(answer.json())) for answer in answers]


def without_names(value):
    """Return a document without what is random."""
    random = {"request_id", "submission_id", "bid_id", "id", "content_sha256", "detail"}
    if isinstance(value, dict):
        return {name: without_names(inner) for name, inner in value.items() if name not in random}
    return [without_names(inner) for inner in value] if isinstance(value, list) else value


def test_answers_do_not_depend_on_anothers_bids_before_publication(new_world):
    with new_world(max_bids_per_market=5) as alone, new_world(max_bids_per_market=5) as crowded:
        assert session(alone, 0) == session(crowded, 3)


@pytest.mark.parametrize(
    ("own", "given", "is_given"),
    [
        (["keys:write"], {"role": "operator"}, False),
        (["keys:write"], {"role": "operator", "scopes": ["keys:write"]}, True),
        (["keys:write"], {"role": "operator", "scopes": ["keys:write", "runs:write"]}, False),
        (["keys:write"], {"role": "operator", "scopes": []}, True),
        (["keys:write"], {"role": "auditor"}, False),
        (["keys:write", "audit:read"], {"role": "auditor", "scopes": ["audit:read"]}, True),
        (["keys:write"], {"role": "aggregator"}, False),
        (["keys:write", "participant_keys:write"], {"role": "aggregator"}, True),
        (["participant_keys:write"], {"role": "aggregator"}, False),
        (None, {"role": "operator"}, True),
        (None, {"role": "auditor"}, True),
    ],
    ids=str,
)
def test_nobody_gives_a_key_more_than_their_own_may(shared, own, given, is_given):
    issuer = shared.ask("POST", "/v1/keys", {"name": "issuer", "role": "operator", "scopes": own})
    before = shared.stored()
    body = {"name": "issued", "participant_id": shared["sunny"] if given["role"] == "aggregator" else None} | given
    answer = shared.post("/v1/keys", body, None, headers={"Authorization": f"Bearer {issuer['key']}"})
    if is_given:
        assert answer.status_code == 201, answer.text
    else:
        assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")
        assert shared.stored() == before


def test_a_revoked_key_stops_working_at_once(world):
    key = world.ask("POST", "/v1/keys", {"name": "x", "role": "auditor"})
    world.names.keys["x"] = key["key"]
    assert world.get("/v1/keys", "x").status_code == 200
    world.ask("DELETE", f"/v1/keys/{key['id']}")
    assert world.get("/v1/keys", "x").status_code == 401


def test_a_key_stops_working_when_it_expires_and_not_before(world):
    key = world.ask("POST", "/v1/keys", {"name": "x", "role": "auditor", "expires_at": "2026-06-30T16:00:00Z"})
    world.names.keys["x"] = key["key"]
    world.clock.step(minutes=59, seconds=59)
    assert world.get("/v1/keys", "x").status_code == 200
    world.clock.step(seconds=1)
    assert world.get("/v1/keys", "x").status_code == 401


def test_secrets_of_keys_are_shown_once_and_kept_nowhere(world):
    key = world.ask("POST", "/v1/keys", {"name": "x", "role": "auditor"})
    secret = key["key"].partition(".")[2]
    assert len(secret) >= 43
    shown = world.get("/v1/keys?limit=1000").text + world.get("/v1/audit?limit=1000").text
    assert secret not in shown
    assert "sha256" not in world.get("/v1/keys").text
