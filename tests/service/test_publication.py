"""Runs to published versions and corrections: versions stay as they are, and deltas add up to the cent."""

import csv
import io
import time
import zipfile
from decimal import Decimal
from urllib.parse import unquote

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from publishing import ANONYMOUS, end_run_of, publish_invented, run_invented, settle_invented
from worlds import furnish, pages, running

from api import frames
from api.runner import Runner
from api.runs import Claim, Ended, claim_run, end_run
from api.schemas import results
from api.store.writer import each

LINES = [("sunny", "solar", "10.01"), ("sunny", "battery", "-3.50"), ("windy", "wind", "0.07")]
CORRECTED = [("sunny", "solar", "10.02"), ("windy", "wind", "0.07"), ("windy", "wind too", "99.99")]
NAMES = ("prices", "awards", "statements", "limits", "broken-limits", "price-shares")


def path(world, name, market=None):
    return f"/v1/markets/{market or world['market']}/{name}"


def published_files(world, version, who="operator"):
    """Every representation of every table of a version."""
    contents = {}
    for name in NAMES:
        for form in ("csv", "parquet"):
            answer = world.get(f"{path(world, name)}?price_version={version}&format={form}", who)
            assert answer.status_code == 200
            contents[name, form] = answer.content
        answer = world.get(f"{path(world, name)}?price_version={version}", who)
        contents[name, "json"] = answer.content.replace(b'"is_current":true', b'"is_current":false')
    return contents


@pytest.fixture(scope="module")
def history(new_world):
    """A service whose market is published and then corrected, and what version 1 was before that."""
    with new_world() as world:
        world.placed()
        publish_invented(world, LINES)
        first = published_files(world, 1)
        world.clock.step(hours=1)
        publish_invented(world, CORRECTED, reason="a meter was read again")
        yield world, first


@pytest.fixture
def corrected(history):
    return history[0]


def test_nothing_is_published_before_it_is_published(world):
    for name in (*NAMES, "statements/delta"):
        assert world.get(path(world, name)).status_code == 404
    for move in ("publish", "settle"):
        assert world.post(path(world, move), {}).status_code == 409
    run_invented(world, LINES)
    assert world.get(f"/v1/markets/{world['market']}").json()["state"] == "cleared"
    assert world.get(path(world, "prices")).status_code == 404
    assert world.get("/v1/prices", None).json()["items"] == []


def test_version_1_is_byte_for_byte_what_it_was_after_version_2(history):
    world, first = history
    assert published_files(world, 1) == first
    assert published_files(world, 2)["statements", "csv"] != first["statements", "csv"]


def test_a_version_says_whether_it_is_current_its_status_and_its_reason(corrected):
    heads = [corrected.get(f"{path(corrected, 'prices')}?price_version={number}", None).json() for number in (1, 2)]
    newest = corrected.get(path(corrected, "prices"), None).json()
    assert [head["is_current"] for head in heads] == [False, True]
    assert [head["status"] for head in heads] == ["preliminary", "corrected"]
    assert [head["reason"] for head in heads] == ["first publication", "a meter was read again"]
    assert newest == heads[1]
    assert corrected.get(f"{path(corrected, 'prices')}?price_version=3", None).status_code == 404


def heads(world):
    """Status and reason of every version, the first one first."""
    newest = world.get(path(world, "prices")).json()["price_version"]
    pages = [world.get(f"{path(world, 'prices')}?price_version={number}").json() for number in range(1, newest + 1)]
    return [(page["status"], page["reason"]) for page in pages]


def test_a_settlement_is_a_final_version_and_a_later_one_corrects_it(world):
    publish_invented(world, LINES)
    early = world.post(path(world, "settle"), {"correction_reason": "too early"})
    assert (early.status_code, early.json()["code"]) == (409, "nothing_to_correct")
    settle_invented(world, CORRECTED)
    assert world.get(f"/v1/markets/{world['market']}").json()["state"] == "settled"
    silent = world.post(path(world, "settle"), {})
    assert (silent.status_code, silent.json()["code"]) == (409, "reason_needed")
    settle_invented(world, LINES, reason="read again")
    publish_invented(world, CORRECTED, reason="wrong prices")
    assert heads(world) == [
        *(("preliminary", "first publication"), ("final", "settlement")),
        *(("corrected", "read again"), ("corrected", "wrong prices")),
    ]


def test_a_settlement_and_a_clearing_are_not_under_way_together(world):
    publish_invented(world, LINES)
    settlement = world.ask("POST", path(world, "settle"), {})
    assert settlement["kind"] == "settlement"
    assert world.ask("POST", path(world, "settle"), {})["id"] == settlement["id"]
    clearing = world.post(path(world, "runs"), {"correction_reason": "x"})
    assert (clearing.status_code, clearing.json()["code"]) == (409, "run_under_way")


@pytest.mark.parametrize("then", ["settle", "runs"])
def test_what_is_under_way_begins_from_what_is_published_which_stays_so(world, then):
    publish_invented(world, LINES)
    run_invented(world, CORRECTED, reason="wrong prices")
    body = {} if then == "settle" else {"correction_reason": "other prices"}
    asked = world.ask("POST", path(world, then), body)
    answer = world.post(path(world, "publish"))
    assert (answer.status_code, answer.json()["code"]) == (409, "run_under_way")
    assert len(heads(world)) == 1
    world.ask("POST", f"/v1/runs/{asked['id']}/cancel")
    world.ask("POST", path(world, "publish"))
    assert heads(world)[-1] == ("corrected", "wrong prices")


def test_a_run_is_published_once(world):
    publish_invented(world, LINES)
    again = world.post(path(world, "publish"))
    assert (again.status_code, again.json()["code"]) == (409, "already_published")


def test_a_correction_needs_a_reason_and_something_published(world):
    runs = path(world, "runs")
    world.ask("POST", path(world, "close"))
    early = world.post(runs, {"correction_reason": "too early"})
    assert (early.status_code, early.json()["code"]) == (409, "nothing_to_correct")
    publish_invented(world, LINES)
    silent = world.post(runs, {})
    assert (silent.status_code, silent.json()["code"]) == (409, "reason_needed")


def test_a_run_that_was_asked_for_without_a_reason_corrects_nothing(world):
    run_invented(world, LINES)
    asked = world.ask("POST", path(world, "runs"), {})
    world.ask("POST", path(world, "publish"))
    end_run_of(world, asked["id"], CORRECTED)
    answer = world.post(path(world, "publish"), {})
    assert (answer.status_code, answer.json()["code"]) == (409, "reason_needed")
    publish_invented(world, CORRECTED, reason="with a reason")
    assert heads(world)[-1] == ("corrected", "with a reason")


def test_whoever_asks_for_another_run_than_the_one_under_way_is_told(world):
    publish_invented(world, LINES)
    wanted = {"correction_reason": "price was 44", "import_price_usd_per_mwh": [44]}
    asked = world.ask("POST", path(world, "runs"), wanted)
    assert world.ask("POST", path(world, "runs"), wanted)["id"] == asked["id"]
    for other in ({"correction_reason": "price was 99"}, {"import_price_usd_per_mwh": [99]}, {"limits": "hard"}):
        answer = world.post(path(world, "runs"), wanted | other)
        assert (answer.status_code, answer.json()["code"]) == (409, "run_under_way"), other


def test_a_correction_begins_from_the_one_before_it(world):
    publish_invented(world, LINES)
    for number, inputs in (
        (44, {"import_price_usd_per_mwh": [44]}),
        (44, {}),
        (45, {"import_price_usd_per_mwh": [45]}),
    ):
        asked = world.ask("POST", path(world, "runs"), {"correction_reason": f"version with {number}"} | inputs)
        assert asked["corrected_inputs"] == {"import_price_usd_per_mwh": [number] * 24}
        with zipfile.ZipFile(io.BytesIO(world.get(f"/v1/runs/{asked['id']}/snapshot").content)) as snapshot:
            rows = list(csv.DictReader(snapshot.read("import_prices.csv").decode().splitlines()))
        assert {float(row["price_usd_per_mwh"]) for row in rows} == {number}
        end_run_of(world, asked["id"], CORRECTED)
        world.ask("POST", path(world, "publish"))


def test_every_form_bears_any_reason(world):
    publish_invented(world, LINES)
    reason = "price was 44 \u20ac, not 100 % of it"
    publish_invented(world, CORRECTED, reason=reason)
    for form in ("csv", "parquet", "oasis"):
        answer = world.get(f"{path(world, 'prices')}?format={form}")
        assert (answer.status_code, unquote(answer.headers["x-reason"])) == (200, reason)


def test_pages_are_all_of_the_version_of_the_first_one(world):
    publish_invented(world, LINES)
    first = world.get(f"{path(world, 'prices')}?limit=4").json()
    publish_invented(world, CORRECTED, reason="in between")
    second = world.get(f"{path(world, 'prices')}?limit=4&cursor={first['next_cursor']}").json()
    assert [page["price_version"] for page in (first, second)] == [1, 1]
    other = world.get(f"{path(world, 'prices')}?limit=4&price_version=2&cursor={first['next_cursor']}")
    assert (other.status_code, other.json()["code"]) == (400, "bad_cursor")


def test_a_failed_run_publishes_nothing_and_leaves_earlier_prices_untouched(world):
    publish_invented(world, LINES)
    before = published_files(world, 1)
    run = world.ask("POST", path(world, "runs"), {"correction_reason": "x"})["id"]
    world.service.writer.do_now(each(claim_run), Claim("worker", world.clock(), 10.0, 3))
    ended = Ended(run, "worker", world.clock(), "failed", "not converged in 30 passes")
    assert world.service.writer.do_now(each(end_run), ended)
    assert world.get(f"/v1/runs/{run}").json()["reason"] == "not converged in 30 passes"
    assert world.post(path(world, "publish")).status_code == 409
    assert published_files(world, 1) == before


def test_an_etag_is_that_of_one_form_one_page_and_one_participant(corrected):
    tags = set()
    for name, who in (("prices", None), ("statements", "sunny"), ("statements", "windy"), ("awards", "operator")):
        for query in ("", "?format=csv", "?format=parquet", "?limit=1"):
            answer = corrected.get(path(corrected, name) + query, who)
            assert answer.headers["vary"] == "Authorization, Cookie"
            tags.add((name, answer.headers["etag"]))
    assert len(tags) == 16


def test_an_interval_that_begins_between_two_has_no_prices(corrected):
    begins = corrected.get(path(corrected, "prices"), None).json()["items"][0]["interval_start"]
    for time_of_day, is_there in ((begins, True), (begins.replace("Z", ".5Z"), False)):
        answer = corrected.get(f"{path(corrected, 'prices')}?interval_start={time_of_day}", None)
        assert bool(answer.json()["items"]) is is_there


def test_an_etag_changes_with_what_is_said(world):
    prices = path(world, "prices")
    publish_invented(world, LINES)
    tags = []
    for change in (None, "settle", "correct"):
        if change == "settle":
            settle_invented(world, LINES)
        elif change == "correct":
            publish_invented(world, CORRECTED, reason="x")
        tag = world.get(f"{prices}?price_version=1").headers["etag"]
        assert tag not in tags
        for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            unchanged = world.get(f"{prices}?price_version=1", None, headers={"If-None-Match": known})
            assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (304, b"", tag), known
        for old in (*tags, '"other"'):
            answer = world.get(f"{prices}?price_version=1", None, headers={"If-None-Match": old})
            assert answer.status_code == 200
        tags.append(tag)


@pytest.mark.parametrize("name", ["awards", "statements", "limits"])
def test_all_results_answer_304_to_those_who_have_them(corrected, name):
    tag = corrected.get(path(corrected, name)).headers["etag"]
    assert corrected.get(path(corrected, name), headers={"If-None-Match": tag}).status_code == 304


@pytest.mark.parametrize("limit", [1, 2, 5, 6, 1_000])
@pytest.mark.parametrize("name", NAMES)
def test_pages_make_up_the_whole(corrected, name, limit):
    whole = corrected.get(f"{path(corrected, name)}?limit=1000").json()["items"]
    assert whole
    assert pages(corrected, path(corrected, name), "operator", limit) == whole


@pytest.mark.parametrize("name", ["markets", "participants", "keys", "feeders", "resources", "audit", "bids"])
def test_pages_of_lists_make_up_the_whole(corrected, name):
    listed = f"/v1/{name}"
    whole = corrected.get(f"{listed}?limit=1000").json()
    assert whole["next_cursor"] is None
    for limit in (1, 2, len(whole["items"])):
        assert pages(corrected, listed, "operator", limit) == whole["items"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("version", [1, 2])
def test_csv_and_parquet_say_what_json_says(corrected, name, version):
    where = f"{path(corrected, name)}?price_version={version}"
    items = corrected.get(where).json()["items"]
    parquet = corrected.get(f"{where}&format=parquet")
    assert parquet.headers["content-type"] == "application/vnd.apache.parquet"
    assert pq.read_table(io.BytesIO(parquet.content)).to_pylist() == items
    text = corrected.get(f"{where}&format=csv")
    assert text.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(text.text)))
    assert len(rows) == len(items)
    for row, item in zip(rows, items, strict=True):
        assert row.keys() == item.keys()
        assert all(type(value)(row[key]) == value for key, value in item.items())
    assert text.headers["x-price-version"] == parquet.headers["x-price-version"] == str(version)


def test_prices_are_filtered_by_bus_and_interval_in_every_form(corrected):
    where = f"{path(corrected, 'prices')}?bus=A&interval_start=2026-07-01T08:00:00Z"
    items = corrected.get(where, None).json()["items"]
    assert [(item["bus"], item["interval_start"]) for item in items] == [("A", "2026-07-01T08:00:00Z")]
    for empty in ("bus=Z", "interval_start=2026-07-01T08:00:01Z"):
        for form in ("json", "csv", "parquet"):
            answer = corrected.get(f"{path(corrected, 'prices')}?{empty}&format={form}", None)
            assert answer.status_code == 200
        assert corrected.get(f"{path(corrected, 'prices')}?{empty}", None).json()["items"] == []


def test_price_shares_are_filtered_as_prices_are(corrected):
    where = path(corrected, "price-shares")
    for query, count in (("bus=A", 6), ("bus=Z", 0), ("interval_start=2026-07-01T07:00:00Z", 12), ("bus=B&limit=2", 2)):
        assert len(corrected.get(f"{where}?{query}", None).json()["items"]) == count, query


SEEN = {
    None: set(ANONYMOUS.values()),
    "sunny": {"capacity_up of solar", *ANONYMOUS.values()},
    "windy": {"var_up of wind since interval 3", "capacity_up of a called resource"},
    "auditor": set(ANONYMOUS),
    "operator": set(ANONYMOUS),
}


@pytest.mark.parametrize("who", SEEN)
@pytest.mark.parametrize("name", ["limits", "price-shares"])
def test_a_called_resource_is_named_to_its_owner_only(corrected, name, who):
    """That it is called tells that it was awarded; a service that is called as a whole names nobody."""
    for form in ("json", "csv", "parquet"):
        answer = corrected.get(f"{path(corrected, name)}?format={form}", who)
        if form == "json":
            items = answer.json()["items"]
        elif form == "csv":
            items = list(csv.DictReader(io.StringIO(answer.text)))
        else:
            items = pq.read_table(io.BytesIO(answer.content)).to_pylist()
        assert {item["called"] for item in items} == SEEN[who] | {"-", "capacity_up"}
        for other in {None: ("solar", "wind"), "sunny": ("wind",), "windy": ("solar",)}.get(who, ()):
            assert other.encode() not in answer.content


def test_parts_of_a_price_add_up_to_it(corrected):
    for item in corrected.get(path(corrected, "prices"), None).json()["items"]:
        parts = ("energy", "loss", "congestion", "voltage", "unbalance", "scarcity")
        assert sum(item[part] for part in parts) == pytest.approx(item["price_usd_per_mwh"], abs=1e-9)


def follow(world, limit):
    """What someone hears who asks again and again for what was published after the last that they know."""
    heard, since = [], ""
    while True:
        items = world.get(f"/v1/prices?limit={limit}{since}", None).json()["items"]
        if not items:
            return [(item["market_id"], item["price_version"]) for item in heard]
        heard += items
        since = f"&published_after={items[-1]['published_at']}"


def test_followers_miss_no_version_even_when_the_clock_stands_still_or_steps_back(world):
    expected = []
    for number in range(4):
        market = world.ask("POST", "/v1/markets", world.market())["id"]
        publish_invented(world, LINES, market)
        publish_invented(world, CORRECTED, market, reason="x")
        expected += [(market, 1), (market, 2)]
        world.clock.step(minutes=-number)
    for limit in (1, 3, 100):
        assert follow(world, limit) == expected
    assert world.get("/v1/prices?published_after=2027-01-01T00:00:00Z", None).json()["items"] == []


def cents(low, high):
    return st.integers(low, high).map(lambda number: Decimal(number) / 100)


LINE = st.tuples(
    st.sampled_from(["sunny", "windy", "operator"]),
    st.sampled_from(["solar", "battery", "wind", ""]),
    cents(-(10**12), 10**12),
)
TABLE = st.lists(LINE, max_size=12, unique_by=lambda line: line[:2])


@pytest.fixture(scope="module")
def delta_world(new_world):
    with new_world() as world:
        publish_invented(world, [])
        yield world


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(tables=st.lists(TABLE, min_size=1, max_size=3))
def test_deltas_add_up_to_the_cent(delta_world, tables):
    world, where = delta_world, path(delta_world, "statements")
    publish_invented(world, [], reason="back to nothing")
    begin = world.get(where).json()["price_version"]
    for table in tables:
        publish_invented(world, table, reason="invented")
    for who, chosen in (("operator", None), ("sunny", "sunny"), ("windy", "windy")):
        sums = {}
        for number in range(begin + 1, begin + len(tables) + 1):
            before, after = (
                {
                    (line["participant"], line["resource"]): Decimal(line["amount"])
                    for line in world.get(f"{where}?price_version={version}", who).json()["items"]
                }
                for version in (number - 1, number)
            )
            sums = sums or dict(before)
            for line in world.get(f"{where}/delta?price_version={number}", who).json()["items"]:
                key = line["participant"], line["resource"]
                assert isinstance(line["amount"], str)
                assert Decimal(line["amount"]) != 0 or line["quantity"] != 0
                sums[key] = sums.get(key, Decimal(0)) + Decimal(line["amount"])
            assert {key: amount for key, amount in sums.items() if amount} == {
                key: amount for key, amount in after.items() if amount
            }
        own = {
            (world.names.ids.get(participant, participant), resource): amount
            for participant, resource, amount in tables[-1]
            if chosen in (None, participant)
        }
        assert after == own


def test_a_table_without_rows_has_columns_of_text():
    content = io.BytesIO()
    pd.DataFrame(columns=["bus", "resource"], dtype=object).to_parquet(content, index=False)
    table = frames.read_table(content.getvalue())
    assert frames.chosen(table, {"bus": "A"}).equals(table)
    assert table.schema.types == [pa.string(), pa.string()]


def test_the_first_version_has_no_delta(corrected):
    assert corrected.get(f"{path(corrected, 'statements/delta')}?price_version=1").status_code == 404


def check_columns(world):
    """Every table that goes out has the columns that the document says, those without rows too."""
    for name, row in {
        "prices?": results.PriceOut,
        "price-shares?": results.PriceShareOut,
        "limits?": results.LimitOut,
        "broken-limits?": results.BrokenLimitOut,
        "statements?": results.StatementRowOut,
        "awards?of=resources": results.AwardOut,
        "awards?of=segments": results.SegmentAwardOut,
        "awards?of=reactive_segments": results.ReactiveSegmentAwardOut,
        "awards?of=blocks": results.BlockAwardOut,
        "awards?of=stores": results.StoreAwardOut,
        "awards?of=services": results.ServiceAwardOut,
    }.items():
        table = world.get(path(world, f"{name}&format=parquet"), "sunny")
        assert table.status_code == 200, name
        assert pq.read_schema(io.BytesIO(table.content)).names == list(row.model_fields), name
        page = world.ask("GET", path(world, name), who="sunny")
        results.PublishedPage[row].model_validate(page, strict=True)
    changes = world.ask("GET", path(world, "statements/delta"), who="sunny")
    assert {tuple(change) for change in changes["items"]} == {tuple(results.StatementChangeOut.model_fields)}


def test_a_market_is_cleared_published_and_corrected_from_bids_to_statements(loop, tmp_path_factory):
    """Once on a real run of the engine, twice over: the corrected substation prices raise every nodal price."""
    url = f"sqlite:///{tmp_path_factory.mktemp('cleared')}/cleared.sqlite"
    names = furnish(url, loop)
    with running(url, names, loop) as world:
        world.placed(segments=[{"quantity_kw": 400, "price_usd_per_mwh": 10}])
        world.placed(who="windy", resource_id=world["wind"], segments=[{"quantity_kw": 200, "price_usd_per_mwh": 45}])
        world.ask("POST", path(world, "close"))
        runner = Runner(world.service)
        runner.start()
        for body in ({}, {"correction_reason": "wrong prices", "import_price_usd_per_mwh": [60]}):
            run = world.ask("POST", path(world, "runs"), body)["id"]
            while (state := world.get(f"/v1/runs/{run}").json()["state"]) in ("queued", "running"):
                time.sleep(0.1)
            assert state == "succeeded"
            world.ask("POST", path(world, "publish"))
        runner.stop()
        first, second = (
            {
                (item["bus"], item["interval"]): item["price_usd_per_mwh"]
                for item in pages(world, f"{path(world, 'prices')}?price_version={number}", None, 10)
            }
            for number in (1, 2)
        )
        assert len(first) == len(second) == 3 * 24
        assert {first["S", hour] for hour in range(24)} == {30}
        assert {second["S", hour] for hour in range(24)} == {60}
        assert all(second[key] > first[key] for key in first)
        awards = [
            {item["resource"]: item["net_injection_kw"] for item in world.get(path(world, name)).json()["items"]}
            for name in ("awards?price_version=1&limit=2", "awards?price_version=2&limit=2")
        ]
        assert awards[0]["solar"] == pytest.approx(400)
        assert awards[1]["wind"] == pytest.approx(200)
        check_columns(world)
        for who in ("sunny", "windy", "operator"):
            total = [
                sum(Decimal(line["amount"]) for line in world.get(path(world, name), who).json()["items"])
                for name in ("statements?price_version=1", "statements/delta", "statements")
            ]
            assert total[0] + total[1] == total[2]
        assert world.get("/v1/audit/verify").json()["is_whole"]
