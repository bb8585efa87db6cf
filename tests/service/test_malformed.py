"""Bodies that are no bids: each is refused with its status, pointers and codes; nothing is stored or echoed."""

import json
import re

import httpx
import pytest
from sqlalchemy import event
from worlds import CASE_TOML, LANE, faults

MARK = "cuttlefish"
"""Stands in what is sent wherever text can; it must not come back."""
JSON = "application/json"


def patched(world, **fields):
    """JSON of a sound bid in which some fields are raw text."""
    body = {name: json.dumps(value) for name, value in world.bid().items()}
    return raw(body | fields)


def raw(members):
    return "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in members.items()) + "}"


def segment(quantity="100", price="10", more=""):
    return f'[{{"quantity_kw":{quantity},"price_usd_per_mwh":{price}{more}}}]'


def quantity(text):
    return {"segments": segment(quantity=text)}


def price(text):
    return {"segments": segment(price=text)}


Q, P = "/segments/0/quantity_kw", "/segments/0/price_usd_per_mwh"
NOT_A_NUMBER = {"12 as text": '"12"', "true": "true", "null": "null", "a list": "[1]", "an object": '{"a":1}', "": '""'}
NOT_A_TIME = {
    "a bare epoch": "1782889200",
    "an epoch as text": '"1782889200"',
    "a float": "1.5",
    "a local time": '"2026-07-01T00:00:00"',
    "an offset": '"2026-07-01T00:00:00-07:00"',
    "a date": '"2026-07-01"',
    "no seconds": '"2026-07-01T07:00Z"',
    "a small z": '"2026-07-01t07:00:00z"',
    "a leap second": '"2026-06-30T23:59:60Z"',
    "a day that is none": '"2026-02-30T07:00:00Z"',
    "an hour 24": '"2026-07-01T24:00:00Z"',
    "other digits": '"２０２６-07-01T07:00:00Z"',
    "a week date": '"2026-W27-3T07:00:00Z"',
    "nanoseconds": '"2026-07-01T07:00:00.000000000Z"',
    "a line break": '"2026-07-01T07:00:00Z\\n"',
    "a year beyond all": '"99999-07-01T07:00:00Z"',
    "true as a time": "true",
    "null as a time": "null",
}
FIELDS = {
    **{f"quantity: {name}": (quantity(text), 422, {(Q, "not_a_number")}) for name, text in NOT_A_NUMBER.items()},
    **{f"price: {name}": (price(text), 422, {(P, "not_a_number")}) for name, text in NOT_A_NUMBER.items()},
    **{
        f"time: {name}": ({"interval_start": text}, 422, {("/interval_start", "not_a_time")})
        for name, text in NOT_A_TIME.items()
    },
    "NaN": (price("NaN"), 400, {("", "not_finite")}),
    "Infinity": (price("Infinity"), 400, {("", "not_finite")}),
    "minus Infinity": (price("-Infinity"), 400, {("", "not_finite")}),
    "NaN as text": (price('"NaN"'), 422, {(P, "not_a_number")}),
    "1e400": (price("1e400"), 400, {("", "not_finite")}),
    "minus 1e400": (price("-1e400"), 400, {("", "not_finite")}),
    "a huge integer": (quantity("9" * 400), 400, {("", "not_finite")}),
    "5,000 digits": (quantity("9" * 5_000), 400, {("", "not_finite")}),
    "beyond the largest number": (quantity("1000000001"), 422, {(Q, "too_large")}),
    "beyond the smallest number": (price("-1000000001"), 422, {(P, "too_small")}),
    "no quantity": (quantity("0"), 422, {(Q, "too_small")}),
    "minus zero": (quantity("-0"), 422, {(Q, "too_small")}),
    "minus zero with decimals": (quantity("-0.0"), 422, {(Q, "too_small")}),
    "too small to be written": (quantity("1e-400"), 422, {(Q, "too_small")}),
    "a negative quantity": (quantity("-5"), 422, {(Q, "too_small")}),
    "too many decimals of a quantity": (quantity("0.0001"), 422, {(Q, "too_many_decimals")}),
    "too many decimals of a price": (price("0.000001"), 422, {(P, "too_many_decimals")}),
    "one bit beyond": (price("30.000000000000004"), 422, {(P, "too_many_decimals")}),
    "an unknown field": ({"colour": f'"{MARK}"'}, 422, {("/colour", "unknown_field")}),
    "an unknown field with a long name": ({"x" * 100_000: "1"}, 422, {("/" + "x" * 64, "unknown_field")}),
    "a field with a slash and a tilde": ({"a/b~c": "1"}, 422, {("/a~1b~0c", "unknown_field")}),
    "an unknown field of a segment": (
        {"segments": segment(more=f',"colour":"{MARK}"')},
        422,
        {("/segments/0/colour", "unknown_field")},
    ),
    "a field of another product": ({"quantity_kw": "5"}, 422, {("/quantity_kw", "unknown_field")}),
    "an unknown product": ({"product": f'"{MARK}"'}, 422, {("/product", "not_a_choice")}),
    "a product that is a number": ({"product": "7"}, 422, {("/product", "not_a_choice")}),
    "a product that is null": ({"product": "null"}, 422, {("/product", "not_a_choice")}),
    "an unknown side": ({"side": f'"{MARK}"'}, 422, {("/side", "not_a_choice")}),
    "a side in capitals": ({"side": '"SUPPLY"'}, 422, {("/side", "not_a_choice")}),
    "segments that are null": ({"segments": "null"}, 422, {("/segments", "not_a_list")}),
    "segments that are an object": ({"segments": '{"0":1}'}, 422, {("/segments", "not_a_list")}),
    "no segments": ({"segments": "[]"}, 422, {("/segments", "too_few")}),
    "too many segments": ({"segments": f"[{','.join([segment()[1:-1]] * 21)}]"}, 422, {("/segments", "too_many")}),
    "a segment that is a number": ({"segments": "[1]"}, 422, {("/segments/0", "not_an_object")}),
    "an empty segment": ({"segments": "[{}]"}, 422, {(Q, "missing"), (P, "missing")}),
    "an id of another kind of text": ({"market_id": f'"{MARK}"'}, 422, {("/market_id", "malformed")}),
    "an id with a NUL": ({"resource_id": '"res_\\u0000"'}, 422, {("/resource_id", "malformed")}),
    "an id that is a number": ({"resource_id": "1"}, 422, {("/resource_id", "not_text")}),
    "an id with a line break": ({"market_id": '"mkt_' + 24 * "0" + '\\n"'}, 422, {("/market_id", "malformed")}),
    "a lone surrogate": ({"side": '"\\ud800"'}, 400, {("", "not_unicode")}),
    "a lone surrogate the wrong way round": ({"side": '"\\udc00\\ud800"'}, 400, {("", "not_unicode")}),
    "a lone surrogate in a name": ({"x": '{"\\uDFFF":1}'}, 400, {("", "not_unicode")}),
    "a name with a NUL": ({"x": "1", "\0": "1"}, 422, {("/x", "unknown_field"), ("/\0", "unknown_field")}),
    "a name that is empty": ({"": "1"}, 422, {("/", "unknown_field")}),
    "deep nesting": ({"x": "[" * 40 + "]" * 40}, 400, set()),
    "very deep nesting": ({"x": "[" * 200_000 + "]" * 200_000}, 400, set()),
}
WHOLE = {
    "nothing": (b"", 422, {("", "missing")}),
    "blanks": (b"  \n ", 400, set()),
    "no JSON": (MARK.encode(), 400, set()),
    "half a document": (b'{"product": "energy", "si', 400, set()),
    "two documents": (b"{} {}", 400, set()),
    "single quotes": (b"{'product': 'energy'}", 400, set()),
    "a comma at the end": (b'{"product": "energy",}', 400, set()),
    "a comment": (b'{} // "cuttlefish"', 400, set()),
    "leading zeros": (b'{"a": 012}', 400, set()),
    "a plus sign": (b'{"a": +12}', 400, set()),
    "a form": (b"product=energy&side=cuttlefish", 400, set()),
    "a byte order mark": (b"\xef\xbb\xbf{}", 400, set()),
    "UTF-16": ("{}".encode("utf-16"), 400, set()),
    "UTF-32": ("{}".encode("utf-32-le"), 400, set()),
    "no UTF-8": (b'{"a": "\xff\xfe"}', 400, set()),
    "an overlong encoding": (b'{"a": "\xc0\xaf"}', 400, set()),
    "a surrogate in UTF-8": (b'{"a": "\xed\xa0\x80"}', 400, set()),
    "a NUL byte": (b'{"a": "\x00"}', 400, set()),
    "only NUL bytes": (b"\x00" * 100, 400, set()),
    "a list": (b"[]", 422, {("", "not_an_object")}),
    "a list of bids": (b'[{"product": "energy"}]', 422, {("", "not_an_object")}),
    "text": (b'"cuttlefish"', 422, {("", "not_an_object")}),
    "a number": (b"1", 422, {("", "not_an_object")}),
    "true": (b"true", 422, {("", "not_an_object")}),
    "null": (b"null", 422, {("", "not_an_object")}),
    "an empty object": (b"{}", 422, {("/product", "missing")}),
    "duplicate keys": (b'{"product": "energy", "product": "cuttlefish"}', 400, {("", "duplicate_key")}),
    "duplicate keys deep inside": (b'{"segments": [{"a": 1, "a": 1}]}', 400, {("", "duplicate_key")}),
    "duplicate keys by escapes": (b'{"side": 1, "\\u0073ide": 2}', 400, {("", "duplicate_key")}),
    "30 MB": (b'{"product": "' + b"c" * 30_000_000 + b'"}', 413, set()),
    "one byte too many": (b" " * (5 * 1024 * 1024 + 1), 413, set()),
}
TYPES = [
    "text/plain",
    "application/x-www-form-urlencoded",
    "application/octet-stream",
    "multipart/form-data; boundary=x",
]


def refused(world, content, status, expected, content_type=JSON, path="/v1/bids"):
    before = world.stored()
    headers = world.new_key() | ({"Content-Type": content_type} if content_type else {})
    answer = world.request("POST", path, "sunny", headers, content=content)
    assert answer.status_code == status, answer.text
    assert faults(answer) == expected
    assert MARK not in answer.text
    assert len(answer.content) < 2_000
    assert re.fullmatch(r"[a-z0-9_]+", answer.json()["code"])
    assert world.stored() == before


@pytest.mark.parametrize("name", FIELDS)
def test_a_malformed_field_is_refused(shared, name):
    fields, status, expected = FIELDS[name]
    refused(shared, patched(shared, **fields), status, expected)


@pytest.mark.parametrize("name", FIELDS)
def test_a_malformed_field_is_refused_within_a_batch(shared, name):
    fields, status, expected = FIELDS[name]
    content = raw({"mode": '"atomic"', "bids": f"[{patched(shared)},{patched(shared, **fields)}]"})
    prefix = "" if status == 400 else "/bids/1"
    refused(shared, content, status, {(prefix + pointer, code) for pointer, code in expected}, path="/v1/bids/batch")


@pytest.mark.parametrize("name", WHOLE)
def test_a_malformed_body_is_refused(shared, name):
    content, status, expected = WHOLE[name]
    refused(shared, content, status, expected)


@pytest.mark.parametrize("content_type", TYPES)
def test_a_body_that_does_not_say_that_it_is_json_is_refused(shared, content_type):
    content = json.dumps(shared.bid()).encode()
    refused(shared, content, 415, set(), content_type)
    answer = shared.request("POST", "/v1/bids", "sunny", {"Content-Type": content_type}, content=content)
    assert answer.json()["code"] == "unsupported_media_type"


def test_another_method_is_told_all_that_the_path_has(shared):
    for route, allowed in (("/v1/markets", "GET, POST"), (f"/v1/bids/{'bid_' + 24 * '0'}", "DELETE, GET, PUT")):
        answer = shared.request("PATCH", route, "operator")
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


def test_a_list_of_feeders_reads_no_files(shared):
    statements = []

    def note(connection, cursor, statement, *rest):
        statements.append(statement)

    event.listen(shared.service.engine, "before_cursor_execute", note)
    assert shared.get("/v1/feeders", None).status_code == 200
    assert shared.get(f"/v1/feeders/{shared['lane']}", None).status_code == 200
    event.remove(shared.service.engine, "before_cursor_execute", note)
    read = [statement for statement in statements if "FROM feeders" in statement]
    assert len(read) == 2
    assert not [statement for statement in read if "feeders.files" in statement]


def test_a_body_in_pieces_is_cut_off_at_the_limit(shared):
    taken = 0

    async def pieces():
        nonlocal taken
        for _ in range(300):
            taken += 100_000
            yield b"c" * 100_000

    headers = shared.new_key() | {"Content-Type": JSON}
    answer = shared.request("POST", "/v1/bids", "sunny", headers, content=pieces())
    assert answer.status_code == 413
    assert answer.json()["code"] == "too_large"


@pytest.mark.parametrize("length", ["-1", "abc", "1e3", "99999999999999999999", "²"])
def test_a_content_length_that_is_none_is_refused(shared, length):
    headers = {"Content-Length": length.encode(), **shared.new_key(), "Content-Type": JSON}
    answer = shared.request("POST", "/v1/bids", "sunny", headers, content=b"{}")
    assert answer.status_code == 413
    assert faults(answer) == set()


OPERATORS = {
    "a name with a NUL": ("/v1/participants", {"name": "a\0b"}, {("/name", "not_printable")}),
    "a name with a line break": ("/v1/participants", {"name": "a\nb"}, {("/name", "not_printable")}),
    "a name with blanks around": ("/v1/participants", {"name": " a "}, {("/name", "not_printable")}),
    "a name that turns the text around": ("/v1/participants", {"name": "a\u202eb"}, {("/name", "not_printable")}),
    "an empty name": ("/v1/participants", {"name": ""}, {("/name", "too_short")}),
    "a long name": ("/v1/participants", {"name": "x" * 101}, {("/name", "too_long")}),
    "an unknown role": ("/v1/keys", {"name": "x", "role": MARK}, {("/role", "not_a_choice")}),
    "a key of nobody": ("/v1/keys", {"name": "x", "role": "aggregator"}, {("", "participant_mismatch")}),
    "unknown scopes": ("/v1/keys", {"name": "x", "role": "auditor", "scopes": [MARK]}, {("/scopes", "unknown_scope")}),
    "an unknown feeder": ("/v1/feeders", {"name": "x", "shipped": MARK}, {("/shipped", "unknown_feeder")}),
    "no feeder": ("/v1/feeders", {"name": "x"}, {("", "one_of")}),
    "a file from elsewhere": (
        "/v1/feeders",
        {"name": "x", "files": {"case.toml": "", "../../etc/passwd": MARK}},
        {("/files", "unknown_file")},
    ),
    "a file with a long name": (
        "/v1/feeders",
        {"name": "x", "files": {"x" * 10_000 + MARK: ""}},
        {("/files/" + "x" * 64, "too_long")},
    ),
    "no TOML": ("/v1/feeders", {"name": "x", "files": {"case.toml": f"= {MARK}"}}, {("/files/case.toml", "not_toml")}),
    "a source that reads files": (
        "/v1/feeders",
        {"name": "x", "files": {"case.toml": '[network]\nsource = "opendss:/etc/passwd"'}},
        {("/files/case.toml", "source_not_allowed")},
    ),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_what_operators_send_is_checked_as_well(shared, name):
    path, body, expected = OPERATORS[name]
    before = shared.stored()
    answer = shared.post(path, body)
    assert answer.status_code == 422, answer.text
    assert faults(answer) == expected
    assert MARK not in answer.text
    assert shared.stored() == before


UPLOADS = {
    "a folder elsewhere": ('source = "tables:./ELSEWHERE"', "source_not_allowed"),
    "the folder above": ('source = "tables:.."', "source_not_allowed"),
    "a file elsewhere": ('source = "matpower:../case.m"', "source_not_allowed"),
    "a file that is not there": ('source = "matpower:other.m"', "unknown_file"),
    "a net of a file": ('source = "pandapower:case/../../net.json"', "source_not_allowed"),
    "a line break": ('source = "tables:.\\n"', "source_not_allowed"),
    "a source that is a number": ("source = 3", "source_not_allowed"),
    "no source": ("v_min_pu = 0.9", "source_not_allowed"),
    "options": ('source = "pandapower:case33bw"\noptions = {replace_elements = {a = "b"}}', "unknown_field"),
    "a number of 5,000 digits": (f'source = "tables:."\nv_min_pu = {"9" * 5_000}', "not_toml"),
    "a hexadecimal number beyond all": (f'source = "tables:."\nv_min_pu = 0x{"f" * 5_000}', "too_large"),
    **{
        f"lists {n} deep": (f'source = "tables:."\nx = {"[" * n}{"]" * n}', "unknown_field")
        for n in (1, *range(240, 480, 20))
    },
    "lists 5,000 deep": (f'source = "tables:."\nx = {"[" * 5_000}{"]" * 5_000}', "not_toml"),
}


@pytest.mark.parametrize("name", UPLOADS)
def test_an_upload_names_nothing_elsewhere_and_nothing_that_breaks_the_service(shared, tmp_path, name):
    network, code = UPLOADS[name]
    for file, content in LANE.items():
        (tmp_path / file).write_text(content, "utf-8")
    case = f"[network]\n{network}\n".replace("ELSEWHERE", "../" * 20 + str(tmp_path).lstrip("/"))
    before = shared.stored()
    answer = shared.post("/v1/feeders", {"name": "x", "files": LANE | {"case.toml": case}})
    assert answer.status_code == 422, answer.text
    assert faults(answer) == {("/files/case.toml", code)}
    assert shared.stored() == before


@pytest.mark.parametrize(
    ("name", "code"), [('"a\\u0000b"', "not_printable"), ('""', "too_short"), ("2026-01-01", "not_text")]
)
def test_the_name_of_an_upload_is_text_that_can_be_shown(shared, name, code):
    case = f"name = {name}\n{CASE_TOML.partition(chr(10))[2]}"
    answer = shared.post("/v1/feeders", {"name": "x", "files": LANE | {"case.toml": case}})
    assert answer.status_code == 422, answer.text
    assert faults(answer) == {("/files/case.toml", code)}


@pytest.mark.parametrize(
    "fields",
    [
        {"trade_date": "2026-02-30"},
        {"trade_date": "2026-07-01T00:00:00Z"},
        {"trade_date": "9999-12-31"},
        {"trade_date": "0001-01-01"},
        {"market_timezone": "PST8"},
        {"market_timezone": "../../etc/passwd"},
        {"interval_minutes": 7},
        {"interval_minutes": "60"},
        {"currency": "usd"},
        {"import_price_usd_per_mwh": []},
        {"import_price_usd_per_mwh": [30] * 23},
        {"load_scale": [-1] * 24},
        {"gate_closes_at": "2026-06-30T14:00:00Z"},
        {"price_cap_usd_per_mwh": -51},
        {"import_limits": {"p_min_kw": 1, "p_max_kw": 0}},
        {"requirements": [{"name": "x", "service": "capacity_up", "quantity_kw": -1, "shortage_usd_per_mw_h": 1}]},
        {"feeder_id": "fdr_" + 24 * "0"},
    ],
    ids=lambda fields: " ".join(f"{name} {value}" for name, value in fields.items())[:60],
)
def test_a_market_that_makes_no_sense_is_refused(shared, fields):
    before = shared.stored()
    answer = shared.post("/v1/markets", shared.market(**fields))
    assert answer.status_code == 422, answer.text
    (name,) = fields
    assert all(pointer in ("", f"/{name}") or pointer.startswith(f"/{name}/") for pointer, _ in faults(answer))
    assert faults(answer)
    assert shared.stored() == before


@pytest.mark.parametrize(
    "query",
    [
        *("cursor=%00", "cursor=x", "cursor=InhcdTAwMDAi", "cursor=IlxcdWQ4MDAi", "cursor=e30", "cursor=MWU0MDA"),
        *("cursor=NaN", "cursor=" + "W1tb" * 120, "cursor=%ff%fe", "cursor=IlxuIg", "limit=0", "limit=1001", "limit=x"),
        *("limit=1e1", "limit=" + "9" * 400, "limit=%00"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/bids", "/v1/resources", "/v1/markets", "/v1/audit", "/v1/participants"])
def test_a_malformed_query_is_refused(shared, path, query):
    answer = shared.get(f"{path}?{query}")
    assert answer.status_code in (400, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/v1/resources?feeder=%00", "/v1/bids?state=%00"])
def test_a_nul_in_a_query_is_no_error_of_the_service(shared, path):
    answer = shared.get(path)
    assert answer.status_code == 422, answer.text


@pytest.mark.parametrize(
    "path", ["/v1/markets/%00", "/v1/bids/bid_%00", "/v1/bids/" + "x" * 5_000, "/v1/%ff", "/v1/\u202e"]
)
def test_a_malformed_path_is_no_error_of_the_service(shared, path):
    assert shared.get(path).status_code in (404, 422)


@pytest.mark.parametrize("token", ["", "x", "dlmp_", "dlmp_.", "dlmp_\x00.x", "dlmp_key_é.x", "dlmp_" + "x" * 10_000])
def test_a_malformed_key_is_no_error_of_the_service(shared, token):
    for scheme in ("Bearer", "Basic", ""):
        headers = {"Authorization": f"{scheme} {token}".encode()}
        assert shared.get("/v1/bids", None, headers=headers).status_code == 401


def test_a_fault_of_the_service_is_a_problem_with_the_headers_of_every_answer(world, monkeypatch):
    monkeypatch.setattr("api.routes.operations.generate_latest", lambda registry: 1 / 0)

    async def ask():
        transport = httpx.ASGITransport(world.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://market.example") as http:
            return await http.get("/metrics", headers={"Authorization": f"Bearer {world.names.keys['operator']}"})

    answer = world.loop.do(ask())
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"] == answer.json()["request_id"]
    assert answer.headers["x-content-type-options"] == "nosniff"
