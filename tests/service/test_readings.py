"""Meter readings: taken whole or not at all, kept by version, and everything that can be wrong with them."""

import json
from datetime import timedelta

import pytest
from publishing import end_run_of, parquet, price_table, publish_invented, settle_invented
from worlds import DAY_BEGINS, faults, pages, z

from api.metering import MOST_TOLD
from api.runner import Runner
from api.store.tables import runs

LINES = [("sunny", "solar", "1.00"), ("windy", "wind", "2.00")]
HOUR = timedelta(hours=1)
HEADER = "resource_id,interval_start,interval_end,net_injection_kwh,q_kvarh"
JSON, CSV = "application/json", "text/csv"


def where(world, market=None):
    return f"/v1/markets/{market or world['market']}/readings"


def reading(world, hour=0, **changed):
    times = {"interval_start": z(DAY_BEGINS + hour * HOUR), "interval_end": z(DAY_BEGINS + (hour + 1) * HOUR)}
    return {"resource_id": world["solar"], **times, "net_injection_kwh": 12.5} | changed


def post(world, *readings, who="operator"):
    return world.post(where(world), {"readings": readings}, who)


def post_csv(world, content, kind=CSV, who="operator"):
    body = content if isinstance(content, bytes) else content.encode()
    return world.request("POST", f"{where(world)}/csv", who, {"Content-Type": kind}, content=body)


def line(world, *cells, hour=0):
    one = reading(world, hour)
    return ",".join((*(str(one[name]) for name in HEADER.split(",")[:3]), *cells))


def versions(world, who="operator", query=""):
    items = pages(world, f"{where(world)}{query}", who, 2)
    return [(item["resource"], item["version"], item["is_current"], item["net_injection_kwh"][:3]) for item in items]


@pytest.fixture(scope="module")
def over(new_world):
    """A service whose market has bids of two participants, and whose day is over; the tests leave it as it is."""
    with new_world() as world:
        prepare(world)
        yield world


@pytest.fixture
def day(world):
    """The same for one test."""
    prepare(world)
    return world


def prepare(world):
    world.placed()
    world.placed(who="windy", resource_id=world["wind"])
    world.ask("POST", f"/v1/markets/{world['market']}/close")
    world.clock.step(days=2)


def test_a_correction_is_a_version_more_and_what_is_sent_twice_is_none(day):
    first = post(day, reading(day), reading(day, 1), reading(day, resource_id=day["wind"]))
    assert first.status_code == 201
    assert {(one["resource_id"], one["version"]) for one in first.json()["items"]} == {
        (day["solar"], 1),
        (day["wind"], 1),
    }
    before = day.stored()
    again = post(day, reading(day), reading(day, 1)).json()
    assert [(one["version"], one["is_new"]) for one in again["items"]] == [(1, False)]
    assert day.stored() == before
    day.clock.step(hours=1)
    post_csv(day, f"{HEADER}\n{line(day, '-3.125', '0.5', hour=1)}\n")
    history = [
        ("solar", 1, False, [12.5, 12.5, None]),
        ("solar", 2, True, [12.5, -3.125, None]),
    ]
    assert [one for one in versions(day, query="?all_versions=true") if one[0] == "solar"] == history
    assert [one for one in versions(day) if one[0] == "solar"] == history[1:]
    assert day.ask("GET", f"{where(day)}?resource_id={day['solar']}")["items"][0]["q_kvarh"][:2] == [None, 0.5]
    entries = [entry for entry in day.ask("GET", "/v1/audit?limit=1000")["items"] if entry["action"] == "readings.add"]
    assert [len(entry["rows"]) for entry in entries] == [2, 1]
    assert day.ask("GET", "/v1/audit/verify")["is_whole"]


def test_a_settlement_freezes_the_readings_that_there_are(day):
    publish_invented(day, LINES)
    post(day, reading(day))
    run = settle_invented(day, LINES)
    assert day.ask("GET", f"/v1/runs/{run}")["settling"]["readings"] == {day["solar"]: 1}
    post(day, reading(day, net_injection_kwh=13))
    snapshot = day.get(f"/v1/runs/{run}/snapshot").content
    assert b"settling/metered.csv" in snapshot
    later = settle_invented(day, LINES, reason="read again")
    assert day.ask("GET", f"/v1/runs/{later}")["settling"]["readings"] == {day["solar"]: 2}


@pytest.mark.parametrize("kind", ["settle", "runs"])
def test_whoever_asks_with_other_readings_does_not_get_the_run_under_way(day, kind):
    publish_invented(day, LINES)
    settle_invented(day, LINES)
    post(day, reading(day))
    where, body = f"/v1/markets/{day['market']}/{kind}", {"correction_reason": "read again"}
    first = day.ask("POST", where, body)
    assert day.ask("POST", where, body)["id"] == first["id"]
    post(day, reading(day, net_injection_kwh=13))
    answer = day.post(where, body)
    assert (answer.status_code, answer.json()["code"]) == (409, "run_under_way")
    assert "readings" in answer.json()["detail"]


def test_one_reads_ones_own_readings(day):
    post(day, reading(day), reading(day, resource_id=day["wind"]))
    assert [one[0] for one in versions(day, "sunny", "?all_versions=true")] == ["solar"]
    assert [one[0] for one in versions(day, "windy")] == ["wind"]
    assert versions(day, "sunny", f"?resource_id={day['wind']}") == []
    assert {one[0] for one in versions(day, "auditor")} == {"solar", "wind"}


def test_an_agent_of_meters_posts_and_sees_nothing(day):
    key = day.ask("POST", "/v1/keys", {"name": "meters", "role": "operator", "scopes": ["meter:write"]})
    day.names.keys["meters"] = key["key"]
    assert post(day, reading(day), who="meters").status_code == 201
    for path in (where(day), f"/v1/markets/{day['market']}", "/v1/bids"):
        assert day.get(path, "meters").json()["code"] == "scope_missing"
    for who in ("sunny", "auditor"):
        assert post(day, reading(day), who=who).json()["code"] == "scope_missing"


WRONG = {
    "text": ({"net_injection_kwh": "12.5"}, "/net_injection_kwh", "not_a_number"),
    "a boolean": ({"net_injection_kwh": True}, "/net_injection_kwh", "not_a_number"),
    "nothing": ({"net_injection_kwh": None}, "/net_injection_kwh", "not_a_number"),
    "too large": ({"net_injection_kwh": 1e10}, "/net_injection_kwh", "too_large"),
    "watts of an hour": ({"q_kvarh": 0.0001}, "/q_kvarh", "too_many_decimals"),
    "an epoch": ({"interval_start": 1782889200}, "/interval_start", "not_a_time"),
    "an unknown field": ({"kwh": 1}, "/kwh", "unknown_field"),
    "no name": ({"resource_id": "the solar one"}, "/resource_id", "malformed"),
    "nobody's resource": ({"resource_id": "res_" + "0" * 24}, "/resource_id", "unknown_resource"),
    "another feeder": ({"resource_id": "elsewhere"}, "/resource_id", "wrong_feeder"),
    "a resource that did not bid": ({"resource_id": "battery"}, "/resource_id", "not_in_market"),
    "off the grid": ({"interval_start": "2026-07-01T07:15:00Z"}, "/interval_start", "off_grid"),
    "the day after": ({"interval_start": "2026-07-02T07:00:00Z"}, "/interval_start", "off_grid"),
    "half an hour": ({"interval_end": "2026-07-01T07:30:00Z"}, "/interval_end", "off_grid"),
    "backwards": ({"interval_end": "2026-07-01T07:00:00Z"}, "/interval_end", "off_grid"),
}


def changed(world, change):
    return {
        name: world.names.ids.get(value, value) if name == "resource_id" else value for name, value in change.items()
    }


def test_everything_that_is_wrong_is_told_at_once_and_nothing_is_stored(over):
    before = over.stored()
    sound = reading(over, 5)
    answer = post(
        over, *(reading(over, 2 + number) | changed(over, one[0]) for number, one in enumerate(WRONG.values()))
    )
    assert answer.status_code == 422
    expected = {(f"/readings/{number}{place}", code) for number, (_, place, code) in enumerate(WRONG.values())}
    assert expected <= faults(answer)
    alone = [post(over, reading(over) | changed(over, change)) for change, _, _ in WRONG.values()]
    for one, (_, place, code) in zip(alone, WRONG.values(), strict=True):
        assert faults(one) == {(f"/readings/0{place}", code)}
    twice = post(over, sound, reading(over, 6), sound | {"net_injection_kwh": 7})
    assert faults(twice) == {("/readings/2", "duplicate_reading")}
    assert over.stored() == before


BODIES = {
    "no list": ({"readings": {}}, 422, {("/readings", "not_a_list")}),
    "none": ({"readings": []}, 422, {("/readings", "too_few")}),
    "an item that is none": ({"readings": [7]}, 422, {("/readings/0", "not_an_object")}),
    "no field": ({}, 422, {("/readings", "missing")}),
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies_that_are_no_readings_are_refused(over, name):
    body, status, expected = BODIES[name]
    answer = over.post(where(over), body)
    assert (answer.status_code, faults(answer)) == (status, expected)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e400"])
def test_numbers_that_are_not_finite_are_refused_in_both_forms(over, text):
    body = json.dumps({"readings": [reading(over, net_injection_kwh=0.125)]}).replace("0.125", text)
    answer = over.request("POST", where(over), "operator", {"Content-Type": JSON}, content=body)
    assert (answer.status_code, faults(answer)) == (400, {("", "not_finite")})
    answer = post_csv(over, f"{HEADER}\n{line(over, text, '')}\n")
    code = "not_finite" if text == "1e400" else "not_a_number"
    assert (answer.status_code, faults(answer)) == (422, {("/readings/0/net_injection_kwh", code)})


FILES = {
    "empty": ("", 422, None),
    "a header only": (f"{HEADER}\n", 422, {("/readings", "too_few")}),
    "no header": ("{line}\n", 422, None),
    "a column missing": ("resource_id,interval_start,interval_end\na,b,c\n", 422, {("/net_injection_kwh", "missing")}),
    "a column too many": (f"{HEADER},kw\n{{line}},1\n", 422, {("/5", "unknown_field")}),
    "a column twice": (f"{HEADER},q_kvarh\n{{line}},1\n", 422, {("/q_kvarh", "duplicate_key")}),
    "a cell too few": (f"{HEADER}\n{{short}}\n", 422, {("/readings/0", "wrong_length")}),
    "a cell too many": (f"{HEADER}\n{{line}},1\n", 422, {("/readings/0", "wrong_length")}),
    "a comma for a point": (f"{HEADER}\n{{short}},1;5,\n", 422, {("/readings/0/net_injection_kwh", "not_a_number")}),
    "a blank reading": (f"{HEADER}\n{{short}},,\n", 422, {("/readings/0/net_injection_kwh", "missing")}),
    "other digits": (f"{HEADER}\n{{short}},１２,\n", 422, {("/readings/0/net_injection_kwh", "not_a_number")}),
    "a quote that does not end": (f'{HEADER}\n"{{line}}\n', 400, None),
    "latin 1": (f"{HEADER}\n{{line}}\xe9\n".encode("latin-1"), 400, None),
    "utf-16": (HEADER.encode("utf-16"), 400, None),
    "JSON": ('{"readings": []}', 422, None),
    "zero bytes": (f"{HEADER}\n\0{{line}}\n", 422, {("/readings/0/resource_id", "malformed")}),
    "a million quotes": ('"' * 1_000_001, 400, None),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_readings_are_refused(over, name):
    content, status, expected = FILES[name]
    if isinstance(content, str):
        content = content.replace("{line}", line(over, "1.5", "")).replace("{short}", line(over))
    before = over.stored()
    answer = post_csv(over, content)
    assert answer.status_code == status, answer.text
    assert expected is None or faults(answer) == expected
    assert answer.json()["code"] in ("invalid", "not_csv", "not_utf8")
    assert over.stored() == before


def test_a_line_that_is_wrong_is_told_by_its_number_in_the_file(over):
    content = f"{HEADER}\n{line(over, '1', '')}\n\n{line(over, 'one', '', hour=1)}\n"
    assert post_csv(over, content).json()["errors"][0]["detail"].startswith("Line 4: ")


def test_files_of_spreadsheets_are_taken(day):
    content = f"\ufeff{HEADER}\r\n" + line(day, '"1.5E+1"', "") + "\r\n\r\n"
    assert post_csv(day, content, "text/csv; charset=utf-8").status_code == 201
    assert versions(day)[0][3][0] == 15.0


def test_each_form_has_its_content_type(over):
    for answer in (
        post_csv(over, "[]", JSON),
        over.request("POST", where(over), "operator", {"Content-Type": CSV}, content="x"),
    ):
        assert answer.status_code == 415


def test_very_many_problems_are_counted(over):
    answer = post(over, *(reading(over, net_injection_kwh="x") for _ in range(MOST_TOLD + 1)))
    assert len(answer.json()["errors"]) == MOST_TOLD
    assert answer.json()["detail"].startswith(f"{MOST_TOLD + 1} problems")


def test_nothing_is_metered_before_it_has_been_traded_and_injected(world):
    world.placed()
    assert post(world, reading(world)).json()["code"] == "gate_not_closed"
    world.ask("POST", f"/v1/markets/{world['market']}/close")
    world.clock.now = DAY_BEGINS + HOUR - timedelta(microseconds=1)
    assert faults(post(world, reading(world))) == {("/readings/0/interval_end", "not_over")}
    world.clock.step(microseconds=1)
    assert post(world, reading(world)).status_code == 201
    assert post(world, reading(world, 1)).status_code == 422
    assert world.post(f"/v1/markets/mkt_{'0' * 24}/readings", {"readings": [reading(world)]}).status_code == 404
    assert world.get(f"/v1/markets/mkt_{'0' * 24}/readings").status_code == 404


def test_a_real_time_market_must_fit_and_be_published(day):
    publish_invented(day, LINES)
    bodies = {
        "not_published": day.market(gate_closes_at=z(day.clock.now + HOUR)),
        "does_not_fit": day.market(interval_minutes=15, currency="EUR"),
    }
    for code, body in bodies.items():
        other = day.ask("POST", "/v1/markets", body)["id"]
        if code == "does_not_fit":
            publish_invented(day, LINES, other)
        answer = day.post(f"/v1/markets/{day['market']}/settle", {"real_time_market_id": other})
        assert answer.status_code == 422
        assert faults(answer) == {("/real_time_market_id", code)}
    answer = day.post(f"/v1/markets/{day['market']}/settle", {"real_time_market_id": f"mkt_{'0' * 24}"})
    assert faults(answer) == {("/real_time_market_id", "unknown_market")}


def test_a_market_may_be_settled_at_its_own_prices_again(day):
    publish_invented(day, LINES)
    other = day.ask("POST", "/v1/markets", day.market(gate_closes_at=z(day.clock.now + HOUR)))["id"]
    publish_invented(day, LINES, other)
    settle, own = f"/v1/markets/{day['market']}/settle", day["market"]
    first = day.ask("POST", settle, {"real_time_market_id": other})
    assert first["settling"]["real_time_market_id"] == other
    end_run_of(day, first["id"], LINES)
    again = {"correction_reason": "no real-time market"}
    assert day.ask("POST", settle, again | {"real_time_market_id": own})["settling"]["real_time_market_id"] is None


def test_a_settlement_that_clears_otherwise_than_was_published_is_refused(day):
    published = publish_invented(day, LINES)
    settlement = day.ask("POST", f"/v1/markets/{day['market']}/settle", {})["id"]
    with day.service.engine.connect() as connection:
        run = connection.execute(runs.select().where(runs.c.id == settlement)).one()
    awards = day.get(f"/v1/markets/{day['market']}/awards?format=parquet").content
    checked = Runner(day.service)._not_as_published
    same = {"prices": parquet(price_table(("S", "A", "B"))), "awards": (awards, "", 2)}
    assert checked(run, same) == ""
    other = same | {"prices": parquet(price_table(("S", "A", "C")))}
    assert checked(run, other).startswith(f"prices are not those that {published} has published")
