"""The console over HTTP: its page asks nobody else, its sessions cannot be forged or read, and each sees their own."""

import re
import time
from contextlib import ExitStack
from uuid import uuid4

import httpx
import numpy as np
import pyarrow as pa
import pytest

from api.auth import CACHE_S
from api.picture import diagram
from api.routes.console import FOLDER
from api.session import COOKIE, HEADER, SECURE_COOKIE, forgery_token

ELSEWHERE = re.compile(r"https?://(?!www\.w3\.org/)")
FILES = sorted(path for path in FOLDER.rglob("*") if path.is_file())


@pytest.fixture
def sign_in():
    """Sign in with a key: a browser, and the answer."""
    with ExitStack() as opened:

        def begin(url, key):
            browser = opened.enter_context(httpx.Client(base_url=url))
            answer = browser.post("/console/session", json={"key": key})
            assert answer.status_code == 200, answer.text
            return browser, answer

        yield begin


def seated(signed_in):
    browser, answer = signed_in
    browser.headers[HEADER] = answer.json()["csrf_token"]
    return browser


@pytest.fixture
def operator(sign_in, published, server):
    return seated(sign_in(published.url, server.key))


@pytest.fixture
def sunny(sign_in, published):
    return seated(sign_in(published.url, published.key))


def picture(browser, market, quantity=""):
    return browser.get(f"/console/markets/{market.id}/picture{quantity and '/' + quantity}")


def quantity(browser, market, name, width):
    answer = picture(browser, market, name)
    assert answer.status_code == 200, answer.text
    return np.frombuffer(answer.content, "<f4").reshape(-1, width)


# --- the page


def test_the_page_allows_nothing_but_what_ships_with_it(server):
    answer = httpx.get(f"{server.url}/")
    assert answer.headers["content-type"].startswith("text/html")
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "<script>" not in answer.text
    assert "style=" not in answer.text


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_is_served_and_names_no_other_server(server, path):
    answer = httpx.get(f"{server.url}/console/assets/{path.relative_to(FOLDER).as_posix()}")
    assert answer.content == path.read_bytes()
    if path.parent.name != "vendor":
        assert not ELSEWHERE.search(path.read_text("utf-8"))


@pytest.mark.parametrize(("name", "licence"), [("uPlot", "MIT"), ("preact", "MIT"), ("htm", "Apache License")])
def test_what_is_not_ours_ships_with_its_licence(name, licence):
    assert licence in (FOLDER / "vendor" / f"{name}.LICENSE").read_text("utf-8")


# --- sessions


def test_a_session_is_kept_where_no_script_and_no_other_site_gets_at_it(sign_in, published):
    _, answer = sign_in(published.url, published.key)
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert published.key not in answer.text


def test_a_key_that_does_not_work_begins_no_session(server):
    answer = httpx.post(f"{server.url}/console/session", json={"key": "dlmp_key_000000000000000000000000.nothing"})
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


def test_another_site_begins_no_session(published):
    headers = {"Sec-Fetch-Site": "cross-site"}
    answer = httpx.post(f"{published.url}/console/session", json={"key": published.key}, headers=headers)
    assert answer.status_code == 403


def test_a_session_reads_as_its_key_does(sunny, published):
    assert sunny.get("/console/session").json()["participant_id"] == published.participant.id
    mine = sunny.get("/v1/bids").json()["items"]
    assert mine
    by_header = httpx.get(f"{published.url}/v1/bids", headers={"Authorization": f"Bearer {published.key}"})
    assert mine == by_header.json()["items"]


@pytest.mark.parametrize("token", [None, "", "0" * 64, forgery_token("dlmp_another")])
def test_what_changes_anything_must_show_the_sessions_token(sign_in, server, published, token):
    browser, _ = sign_in(published.url, server.key)
    headers = {} if token is None else {HEADER: token}
    answer = browser.post("/v1/participants", json={"name": f"forged {token}"}, headers=headers)
    assert answer.status_code == 403
    assert answer.json()["code"] == "forged"
    names = [one["name"] for one in browser.get("/v1/participants?limit=1000").json()["items"]]
    assert f"forged {token}" not in names


def test_with_the_token_it_is_done(operator):
    assert operator.post("/v1/participants", json={"name": "by the console"}).status_code == 201


def test_a_header_goes_before_a_cookie(operator, published):
    headers = {"Authorization": f"Bearer {published.key}"}
    assert operator.get("/v1/audit", headers=headers).status_code == 403


def test_a_session_ends(sign_in, published):
    browser, _ = sign_in(published.url, published.key)
    assert browser.get("/v1/bids").status_code == 200
    browser.delete("/console/session")
    assert browser.get("/v1/bids").status_code == 401
    assert browser.get("/console/session").json()["role"] == "public"


def test_a_revoked_key_ends_its_session(sign_in, server, published):
    issued = published.operator.issue_key("short", "aggregator", published.participant.id)
    browser, _ = sign_in(published.url, issued.key)
    headers = {"Authorization": f"Bearer {server.key}"}
    assert httpx.delete(f"{server.url}/v1/keys/{issued.id}", headers=headers).is_success
    time.sleep(1.1 * CACHE_S)
    answer = browser.get("/console/session")
    assert answer.json()["role"] == "public"
    assert COOKIE not in browser.cookies


@pytest.fixture
def behind_a_proxy(new_world):
    with new_world(secure_cookies=True) as own:
        yield own


def test_behind_a_proxy_that_ends_tls_the_cookie_goes_over_tls_to_this_host_only(behind_a_proxy):
    world = behind_a_proxy
    answer = world.post("/console/session", {"key": world.names.keys["sunny"]}, who=None)
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{SECURE_COOKIE}=dlmp_")
    assert {"Secure", "HttpOnly", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    key = world.names.keys["sunny"]
    for name, status in ((SECURE_COOKIE, 200), (COOKIE, 401)):
        answer = world.get("/v1/bids", who=None, headers={"Cookie": f"{name}={key}"})
        assert answer.status_code == status, "a cookie that came without TLS counts"
    gone = world.delete("/console/session", who=None, headers={"Cookie": f"{SECURE_COOKIE}={key}"})
    assert gone.headers["set-cookie"].startswith(f'{SECURE_COOKIE}="";')
    assert "Secure" in gone.headers["set-cookie"]


def test_whoever_tries_keys_is_counted_whatever_the_body(new_world):
    with new_world(rate_per_second=0.001, rate_burst=3) as world:
        told = [world.request("POST", "/console/session", content=b"no JSON").status_code for _ in range(5)]
    assert told[-1] == 429


def test_a_session_follows_a_market(desk, sign_in):
    browser, _ = sign_in(desk.url, desk.key)
    with browser.stream("GET", f"/v1/markets/{desk.market.id}/events", timeout=20) as stream:
        lines = (line for line in stream.iter_lines() if line.startswith("event:"))
        assert next(lines) == "event: open"
        time.sleep(2 * CACHE_S)
        desk.operator.close_gate(desk.market.id)
        assert next(lines) == "event: closed"


# --- pictures


def test_a_picture_has_every_price_where_it_belongs(sunny, published):
    drawn = picture(sunny, published.market).json()
    nodes = drawn["node"]
    found = quantity(sunny, published.market, "price", len(nodes["bus"]))
    prices = sunny.get(f"/v1/markets/{published.market.id}/prices?limit=1000").json()["items"]
    assert len(prices) == found.size
    place = {key: number for number, key in enumerate(zip(nodes["bus"], nodes["phase"], strict=True))}
    for row in prices:
        at = row["interval"], place[row["bus"], row["phase"]]
        assert found[at] == pytest.approx(row["price_usd_per_mwh"], rel=1e-6)
    assert drawn["starts"][0] == prices[0]["interval_start"]


def test_parts_add_up_to_the_price(sunny, published):
    count = len(picture(sunny, published.market).json()["node"]["bus"])
    names = ("energy", "loss", "congestion", "voltage", "unbalance", "scarcity")
    parts = sum(quantity(sunny, published.market, name, count).astype(float) for name in names)
    np.testing.assert_allclose(parts, quantity(sunny, published.market, "price", count), atol=1e-4)


def test_branches_lead_from_bus_to_bus(operator, published):
    drawn = picture(operator, published.market).json()
    nodes, branches = drawn["node"], drawn["branch"]
    place = dict(zip(nodes["bus"], zip(nodes["x"], nodes["y"], strict=True), strict=True))
    assert len(branches["branch"]) == 32
    for start, end, points in zip(branches["from_bus"], branches["to_bus"], branches["points"], strict=True):
        assert {tuple(points[:2]), tuple(points[-2:])} == {place[start], place[end]}


def test_a_run_of_an_older_version_has_no_map(monkeypatch):
    tables = {"diagram_nodes": {"bus": ["a"], "x": [0.0]}, "diagram_branches": {"branch": ["l"]}}
    monkeypatch.setattr("api.picture.result_table", lambda connection, run_id, name: pa.table(tables[name]))
    assert diagram(None, "run")["is_map"] is False
    tables["diagram_nodes"]["is_map"] = [True]
    drawn = diagram(None, "run")
    assert drawn["is_map"] is True
    assert drawn["node"] == {"bus": ["a"], "x": [0.0]}


def test_voltages_and_loading_are_for_those_who_may_see_all_awards(operator, sunny, published):
    names = {name["name"] for name in picture(sunny, published.market).json()["quantities"]}
    assert not names & {"loading", "voltage magnitude"}
    for name in ("loading", "voltage magnitude"):
        assert picture(sunny, published.market, name).status_code == 403
    drawn = picture(operator, published.market).json()
    voltage = quantity(operator, published.market, "voltage magnitude", len(drawn["node"]["bus"]))
    assert (abs(voltage - 1) < 0.1).all()
    loading = quantity(operator, published.market, "loading", len(drawn["branch"]["branch"]))
    path = f"/v1/markets/{published.market.id}/broken-limits?limit=1000"
    broken = [row for row in operator.get(path).json()["items"] if row["cause"] == "congestion"]
    assert broken
    for row in broken:
        ends = [
            one["value"] for one in broken if (one["interval"], one["element"]) == (row["interval"], row["element"])
        ]
        expected = 100 * max(ends) / row["limit"]
        assert loading[row["interval"], drawn["branch"]["branch"].index(row["element"])] == pytest.approx(expected)


def test_what_a_browser_has_is_not_drawn_again(sunny, operator, published):
    for name in ("", "price"):
        drawn = picture(sunny, published.market, name)
        path = f"/console/markets/{published.market.id}/picture{name and '/' + name}"
        again = sunny.get(path, headers={"If-None-Match": drawn.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    theirs = picture(operator, published.market)
    assert theirs.headers["etag"] != picture(sunny, published.market).headers["etag"], "they see more"
    path = f"/console/markets/{published.market.id}/picture/loading"
    known = {"If-None-Match": picture(operator, published.market, "loading").headers["etag"]}
    assert sunny.get(path, headers=known).status_code == 403


def test_there_is_no_picture_of_what_is_not_published(operator, published, desk):
    assert picture(operator, desk.market).status_code == 404
    assert picture(operator, published.market, "weather").status_code == 404
    assert operator.get(f"/console/markets/{published.market.id}/picture?price_version=99").status_code == 404


# --- tables of bids

HEADER_LINE = "resource,interval,side,segment,quantity_kw,price_usd_per_mwh\n"


def bids_of(browser, market, text):
    return browser.post(f"/console/markets/{market.id}/bid-file", json={"text": text})


def test_a_table_becomes_bids_with_the_lines_they_come_from(sunny, published):
    name = published.resources[0].name
    text = HEADER_LINE + f"{name},0,supply,1,100,20\n{name},0,supply,2,50,25\n{name},1,supply,1,100,21\n"
    found = bids_of(sunny, published.market, text).json()
    assert found["lines"] == [[2, 3], [4]]
    assert [len(bid["segments"]) for bid in found["bids"]] == [2, 1]
    assert {bid["resource_id"] for bid in found["bids"]} == {published.resources[0].id}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "text"),
        ("nonsense\n", "resource"),
        (HEADER_LINE, "no bids"),
        (HEADER_LINE + "solar 99,0,supply,1,100,20\n", "none of yours"),
        (HEADER_LINE + "solar 13,77,supply,1,100,20\n", "must be 0 to 23"),
        (HEADER_LINE + "solar 13,0,supply,1,lots,20\n", "quantity_kw"),
    ],
)
def test_what_is_wrong_in_a_table_is_told_with_its_line(sunny, published, text, told):
    answer = bids_of(sunny, published.market, text)
    assert answer.status_code == 422
    assert told in answer.text
    assert "/tmp" not in answer.text


STORE_LINE = (
    "resource,initial_kwh,energy_max_kwh,charge_max_kw,discharge_max_kw,charge_efficiency,discharge_efficiency\n"
)


def test_a_store_comes_with_its_profile(sunny, published):
    name = published.resources[0].name
    body = {
        "text": STORE_LINE + f"{name},10,100,20,20,0.9,0.9\n",
        "profile": f"resource,interval,charge_max_kw\n{name},3,5\n",
    }
    answer = sunny.post(f"/console/markets/{published.market.id}/bid-file", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["bids"][0]["charge_max_kw"] == [20.0] * 3 + [5.0] + [20.0] * 20


def test_of_very_many_faults_the_first_are_told_and_how_many_there_are(sunny, published):
    name = published.resources[0].name
    answer = bids_of(sunny, published.market, HEADER_LINE + f"{name},77,supply,1,1,1\n" * 1000)
    told = answer.json()["errors"]
    assert len(told) == 201
    assert told[-1]["detail"] == "and 800 more"


def test_an_operator_places_no_bids(operator, published):
    assert bids_of(operator, published.market, HEADER_LINE).status_code == 403


# --- what is not an aggregator's


@pytest.mark.parametrize("step", ["open", "close", "runs", "publish", "settle"])
def test_an_aggregator_moves_no_market(sunny, published, step):
    answer = sunny.post(f"/v1/markets/{published.market.id}/{step}", json={})
    assert answer.status_code == 403
    assert answer.json()["code"] == "scope_missing"


@pytest.mark.parametrize("path", ["v1/audit", "v1/audit/verify", "v1/participants", "v1/keys", "metrics"])
def test_an_aggregator_reads_nothing_of_operators(sunny, path):
    assert sunny.get(f"/{path}").status_code == 403


def test_an_aggregator_reaches_no_bid_of_another(sign_in, sunny, published):
    other = published.operator.add_participant(f"other {uuid4().hex[:8]}")
    theirs = seated(sign_in(published.url, published.operator.issue_key("other", "aggregator", other.id).key))
    mine = sunny.get("/v1/bids").json()["items"]
    assert mine
    assert theirs.get("/v1/bids").json()["items"] == []
    for bid in mine[:3]:
        assert theirs.get(f"/v1/bids/{bid['id']}").status_code == 404
        assert theirs.get(f"/v1/bids/{bid['id']}/history").status_code == 404
    path = f"/v1/markets/{published.market.id}"
    assert theirs.get(f"{path}/awards").json()["items"] == []
    assert theirs.get(f"{path}/statements").json()["items"] == []
