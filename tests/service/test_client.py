"""The client over a real connection to a real service, and over broken ones."""

import subprocess
import sys
import threading
from decimal import Decimal

import pandas as pd
import pytest
from receivers import receiving, until
from servers import Desk, Server, day_that_is_over, flexible, forwarded, hours, in_between, open_desk, say, serving

from dlmp.client import (
    Bid,
    Block,
    BusyError,
    Client,
    ConflictError,
    ContentError,
    DeadlineLoad,
    EnergyBand,
    NoAnswerError,
    NotAllowedError,
    NotAuthenticatedError,
    NotFoundError,
    Outbox,
    OutOfDateError,
    ReadSeries,
    ServerError,
    ServiceError,
    Store,
    transport,
)

RECEIPT = {
    "submission_id": "sub_1",
    "sequence": 1,
    "received_at": "2026-07-01T00:00:00Z",
    "content_sha256": "0",
    "status": "accepted",
    "items": [],
}
BID = Bid("mkt", "res", "supply", [(1.0, 2.0)], "2026-07-01T00:00:00Z", "2026-07-01T01:00:00Z")


@pytest.fixture
def pauses(monkeypatch) -> list[float]:
    """Pauses that the client would have made."""
    made: list[float] = []
    monkeypatch.setattr(transport.time, "sleep", made.append)
    return made


def test_a_bid_is_placed_amended_and_withdrawn_and_its_history_is_kept(desk: Desk):
    with desk.client() as client:
        bid_id = client.submit(desk.bid()).bid_ids[0]
        placed = client.bid(bid_id)
        assert client.amend(placed, desk.bid(kw=400.0, price=15.0)).outcomes[0].version == 2
        with pytest.raises(OutOfDateError):
            client.withdraw(placed)
        client.withdraw(client.bid(bid_id))
        history = client.history(bid_id)
        assert [(one.version, one.state) for one in history] == [(1, "superseded"), (2, "withdrawn")]
        assert history[1].terms["segments"][0]["quantity_kw"] == 400.0
        assert client.bids(desk.market.id, state="live") == []


def test_a_bid_without_times_is_of_the_whole_day_of_its_market(desk: Desk):
    with desk.client() as client:
        found = client.bid(client.submit(desk.bid(interval=None)).bid_ids[0])
    assert (found.interval_start, found.interval_end) == (desk.market.starts_at, desk.market.ends_at)


def test_every_product_reaches_the_service_as_it_is_meant(desk: Desk):
    market, resource = desk.market.id, desk.resources[0].id
    offers = [
        Bid(market, resource, "supply", [(100.0, 10.0, 20.0), (50.0, 25.0)], *hours(desk.market, 0)),
        Bid(market, resource, "supply", [(70.0,)], *hours(desk.market, 1), product="self_schedule"),
        Bid(market, resource, None, [(80.0, 4.0)], *hours(desk.market, 2), product="capacity_up"),
    ]
    with desk.client() as client:
        client.submit(offers)
        terms = {one.product: one.terms for one in client.bids(market)}
    assert [part["price_end_usd_per_mwh"] for part in terms["energy"]["segments"]] == [20.0, None]
    assert terms["self_schedule"] == {"side": "supply", "quantity_kw": 70.0}
    assert terms["capacity_up"] == {"quantity": 80.0, "price_usd_per_mw_h": 4.0}


def test_bids_of_other_kinds_reach_the_service_as_they_are_meant(desk: Desk):
    market, (store, car, heater) = flexible(desk)
    place = [{"market_id": market.id, "resource_id": resource.id} for resource in (store, car, heater)]
    times = dict(zip(("interval_start", "interval_end"), hours(market, 3), strict=True))
    sent = [
        Bid(market.id, store.id, "absorb", [(20.0, 3.0, 2.0)], product="reactive"),
        Store(**place[0], charge_max_kw=100, discharge_max_kw=[50.0] * 24, energy_max_kwh=400, final_min_kwh=10.0),
        DeadlineLoad(**place[1], **times, charge_max_kw=11.0, energy_kwh=9.0),
        EnergyBand(**place[2], **times, charge_max_kw=20, energy_min_kwh=5, energy_max_kwh=[20.0]),
        Block(market_id=market.id, resource_id=desk.resources[0].id, side="supply", quantity_kw=7, price_usd_per_mwh=9),
    ]
    with desk.client() as client:
        client.submit(sent)
        found = {one.product: one for one in client.bids(market.id)}
        with pytest.raises(NotFoundError):
            client.masked_bids(market.id)
    terms = {product: one.terms for product, one in found.items()}
    assert terms["reactive"]["segments"] == [
        {"quantity_kvar": 20.0, "price_usd_per_mvarh": 3.0, "price_end_usd_per_mvarh": 2.0}
    ]
    assert (terms["store"]["charge_max_kw"], terms["store"]["discharge_max_kw"]) == ([100.0], [50.0] * 24)
    assert (terms["store"]["final_min_kwh"], terms["store"]["retention"]) == (10.0, 1.0)
    assert terms["deadline_load"]["energy_kwh"] == 9.0
    assert (terms["energy_band"]["energy_min_kwh"], terms["energy_band"]["energy_max_kwh"]) == ([5.0], [20.0])
    assert terms["block"]["min_acceptance_ratio"] == 1.0
    assert (found["store"].interval_start, found["block"].interval_end) == (market.starts_at, market.ends_at)
    assert (found["deadline_load"].interval_start, found["deadline_load"].interval_end) == hours(market, 3)
    assert (market.takes_blocks, market.bids_public_at) == (True, None)


def test_a_refusal_names_every_fault_with_its_pointer_and_code(desk: Desk):
    wrong = Bid(desk.market.id, desk.resources[0].id, "supply", [(1200.0, 9_000.0)], *hours(desk.market, 0))
    with desk.client() as client, pytest.raises(ContentError) as refused:
        client.submit(wrong)
    found = {(fault.pointer, fault.code) for fault in refused.value.faults}
    assert found == {
        ("/segments", "beyond_registered"),
        ("/segments/0/price_usd_per_mwh", "beyond_price_limits"),
    }
    assert (refused.value.status, refused.value.code) == (422, "invalid")
    assert "/segments: " in str(refused.value)
    assert refused.value.request_id.startswith("req_")


def test_a_batch_per_item_places_the_good_bids_and_an_atomic_one_none(desk: Desk):
    batch = [desk.bid(0), desk.bid(1, kw=5_000.0), desk.bid(2)]
    with desk.client() as client:
        with pytest.raises(ContentError) as refused:
            client.submit(batch)
        assert [fault.pointer for fault in refused.value.faults] == ["/bids/1/segments"]
        receipt = client.submit(batch, mode="per_item")
        assert [outcome.is_accepted for outcome in receipt.outcomes] == [True, False, True]
        assert receipt.outcomes[1].faults[0].code == "beyond_registered"
        assert len(client.bids(desk.market.id)) == 2


def test_errors_are_of_the_kind_of_their_status(server: Server, desk: Desk):
    with desk.client() as client:
        with pytest.raises(NotAllowedError):
            client.close_gate(desk.market.id)
        with pytest.raises(NotFoundError):
            client.prices(desk.market.id)
        desk.operator.close_gate(desk.market.id)
        with pytest.raises(ConflictError) as closed:
            client.submit(desk.bid())
        assert closed.value.code == "gate_closed"
    for key in (None, "dlmp_key_0.x"):
        with Client(server.url, key) as stranger, pytest.raises(NotAuthenticatedError):
            stranger.resources()


def test_the_same_idempotency_key_gives_the_first_receipt_once_more(desk: Desk):
    with desk.client() as client:
        first = client.submit(desk.bid(), idempotency_key="mine")
        again = client.submit(desk.bid(), idempotency_key="mine")
        with pytest.raises(ContentError) as other:
            client.submit(desk.bid(kw=1.0), idempotency_key="mine")
    assert (first.is_again, again.is_again) == (False, True)
    assert again.submission_id == first.submission_id
    assert other.value.code == "idempotency_key_reused"


def test_a_submission_whose_answer_is_lost_has_one_effect(server: Server, desk: Desk, pauses: list[float]):
    lost = iter([True, True, False])

    def answer(request, content: bytes) -> bool:
        response = forwarded(request, content, server.url)
        replay = {"Idempotent-Replay": response.headers.get("Idempotent-Replay", "false")}
        return False if next(lost) else say(request, response.status_code, response.json(), **replay)

    with in_between(answer) as url, Client(url, desk.key) as client:
        receipt = client.submit(desk.bid())
    assert receipt.is_again
    assert len(pauses) == 2
    with desk.client() as client:
        assert [one.id for one in client.bids(desk.market.id)] == receipt.bid_ids


CRASHING = """
import sys
from dlmp.client import Bid, Client
url, key, outbox, market, resource, begins, ends = sys.argv[1:]
Client(url, key, outbox=outbox).submit(Bid(market, resource, "supply", [(300.0, 12.0)], begins, ends))
"""


@pytest.mark.parametrize("came_through", [False, True])
def test_a_bid_of_a_killed_client_is_sent_again_and_stands_once(
    server: Server, desk: Desk, tmp_path, came_through: bool
):
    """The process is killed while it waits: before the service has the request, and after."""
    reached, is_over = threading.Event(), threading.Event()

    def answer(request, content: bytes) -> bool:
        if reached.is_set() or request.command == "GET":
            response = forwarded(request, content, server.url)
            return say(request, response.status_code, response.json())
        if came_through:
            assert forwarded(request, content, server.url).status_code == 201
        reached.set()
        is_over.wait(60)
        return False

    with in_between(answer) as url:
        arguments = [url, desk.key, tmp_path / "outbox", desk.market.id, desk.resources[0].id, *hours(desk.market, 0)]
        child = subprocess.Popen([sys.executable, "-c", CRASHING, *map(str, arguments)])
        assert reached.wait(120)
        child.kill()
        child.wait()
        is_over.set()
        with Client(url, desk.key, outbox=tmp_path / "outbox") as client:
            resent = client.resend()
            assert [one.error for one in resent] == [None]
            assert client.resend() == []
    with desk.client() as client:
        assert [one.id for one in client.bids(desk.market.id)] == resent[0].receipt.bid_ids


def test_a_request_is_in_the_outbox_before_it_is_sent_and_answered_after(tmp_path):
    seen: list[list[str]] = []
    box = tmp_path / "outbox"

    def answer(request, content: bytes) -> bool:
        if request.command == "GET":
            return say(request, 200, {"items": []})
        other = Outbox(box, url, "key_1")
        seen.append([kept.idempotency_key for kept in other.unanswered()])
        other.close()
        return say(request, 201, RECEIPT)

    with in_between(answer) as url, Client(url, "dlmp_key_1.secret", outbox=box) as client:
        client.submit(BID, idempotency_key="one")
        client.submit(BID, idempotency_key="two")
        assert client.resend() == []
    assert seen == [["one"], ["two"]]
    assert b"secret" not in box.read_bytes()
    assert box.stat().st_mode & 0o077 == 0


def test_requests_of_another_key_are_left_alone(tmp_path):
    with in_between(lambda request, content: False) as url:
        with Client(url, "dlmp_key_1.x", outbox=tmp_path / "o", attempts=1) as client, pytest.raises(NoAnswerError):
            client.submit(BID)
        with Client(url, "dlmp_key_2.x", outbox=tmp_path / "o", attempts=1) as other:
            assert other.resend() == []
        with Client(url, "dlmp_key_1.x", outbox=tmp_path / "o", attempts=1) as client:
            assert [type(one.error) for one in client.resend()] == [NoAnswerError]


def test_an_idempotency_key_of_another_request_is_refused_before_anything_is_sent(tmp_path):
    requests: list[bytes] = []

    def answer(request, content: bytes) -> bool:
        if request.command == "POST":
            requests.append(content)
        return say(request, 201, RECEIPT)

    with in_between(answer) as url, Client(url, "dlmp_key_1.x", outbox=tmp_path / "o") as client:
        client.submit(BID, idempotency_key="one")
        with pytest.raises(ValueError, match="another request"):
            client.submit([BID], idempotency_key="one")
    assert len(requests) == 1


def test_a_busy_service_is_asked_again_after_as_long_as_it_says(pauses: list[float]):
    script = iter(
        [
            (429, {"code": "rate_limited"}, {"Retry-After": "7"}),
            (503, {"code": "unavailable"}, {"Retry-After": "3"}),
            (409, {"code": "in_flight"}, {}),
            (201, RECEIPT, {}),
        ]
    )
    keys: set[str] = set()

    def answer(request, content: bytes) -> bool:
        keys.add(request.headers["Idempotency-Key"])
        status, document, headers = next(script)
        return say(request, status, document, **headers)

    with in_between(answer) as url, Client(url, "dlmp_key_1.x") as client:
        assert client.submit(BID).submission_id == "sub_1"
    assert pauses[:2] == [7.0, 3.0]
    assert 0 < pauses[2] <= transport.LONGEST_PAUSE_S
    assert len(keys) == 1


def test_pauses_grow_differ_and_have_an_end(pauses: list[float]):
    attempts = 12
    with in_between(lambda request, content: say(request, 503, {"code": "unavailable"})) as url:
        for _ in range(2):
            with Client(url, "dlmp_key_1.x", attempts=attempts) as client, pytest.raises(BusyError) as busy:
                client.submit(BID)
    assert busy.value.status == 503
    first, second = pauses[: attempts - 1], pauses[attempts - 1 :]
    assert len(second) == attempts - 1
    assert first != second
    assert max(pauses) <= transport.LONGEST_PAUSE_S
    assert first[5] > 4 * first[1]


@pytest.mark.parametrize("status", [500, 502])
def test_a_fault_of_the_service_leaves_a_bid_in_the_outbox(tmp_path, status: int):
    with (
        in_between(lambda request, content: say(request, status, "no problem details")) as url,
        Client(url, "dlmp_key_1.x", outbox=tmp_path / "o") as client,
    ):
        with pytest.raises(ServerError):
            client.submit(BID)
        assert len(client.resend()) == 1


@pytest.mark.parametrize(
    ("status", "document"),
    [
        (301, {}),
        (200, {}),
        (200, "welcome to the hotel"),
        (404, {}),
        (404, {"code": "not_found", "type": "about:blank"}),
        (401, {"type": "urn:dlmp:problem:unknown_key"}),
        (403, {"type": "urn:dlmp:problem:scope_missing"}),
        (408, {"type": "urn:dlmp:problem:request_timeout"}),
    ],
)
def test_what_says_nothing_about_a_bid_leaves_it_in_the_outbox(tmp_path, status: int, document: object):
    with (
        in_between(lambda request, content: say(request, status, document)) as url,
        Client(url, "dlmp_key_1.x", outbox=tmp_path / "o") as client,
    ):
        with pytest.raises(ServiceError):
            client.submit(BID)
        assert [one.receipt for one in client.resend()] == [None]
        assert len(client.resend()) == 1


def test_what_the_service_refuses_for_good_is_not_sent_again(desk: Desk, tmp_path):
    with desk.client(outbox=tmp_path / "o") as client:
        with pytest.raises(ContentError):
            client.submit(desk.bid(kw=5_000.0))
        assert client.resend() == []


def test_a_new_key_of_the_participant_sends_what_the_old_one_left_and_anothers_does_not(
    server: Server, desk: Desk, tmp_path
):
    box, is_lost = tmp_path / "o", threading.Event()

    def answer(request, content: bytes) -> bool:
        if is_lost.is_set() and request.command == "POST":
            return False
        response = forwarded(request, content, server.url)
        return say(request, response.status_code, response.json())

    with in_between(answer) as url:
        is_lost.set()
        with Client(url, desk.key, outbox=box, attempts=1) as client, pytest.raises(NoAnswerError):
            client.submit(desk.bid())
        is_lost.clear()
        other = open_desk(server)
        with Client(url, other.key, outbox=box) as client:
            assert client.resend() == []
        other.operator.close()
        desk.operator._transport._http.delete(f"/v1/keys/{desk.key.removeprefix('dlmp_').partition('.')[0]}")
        with Client(url, desk.key, outbox=box) as client:
            assert [type(one.error) for one in client.resend()] == [NotAuthenticatedError]
        new = desk.operator.issue_key("new", "aggregator", desk.participant.id).key
        with Client(url + "/", new, outbox=box) as client:
            assert [one.error for one in client.resend()] == [None]
            assert client.resend() == []
            assert len(client.bids(desk.market.id)) == 1


def test_a_write_without_a_key_of_its_own_is_not_repeated_when_its_answer_is_lost(pauses: list[float]):
    requests: list[str] = []

    def answer(request, content: bytes) -> bool:
        requests.append(request.path)
        return False

    with in_between(answer) as url, Client(url, "dlmp_key_1.x") as client, pytest.raises(NoAnswerError):
        client.add_participant("Sunny")
    assert requests == ["/v1/participants"]


def test_it_is_repeated_where_no_connection_came_about(pauses: list[float]):
    with in_between(lambda request, content: False) as url:
        pass
    with Client(url, "dlmp_key_1.x", attempts=3) as client, pytest.raises(NoAnswerError):
        client.add_participant("Sunny")
    assert len(pauses) == 2


def test_a_number_that_is_not_finite_is_not_sent():
    with (
        in_between(lambda request, content: False) as url,
        Client(url, "dlmp_key_1.x") as client,
        pytest.raises(ValueError, match="JSON"),
    ):
        client.submit(Bid("m", "r", "supply", [(float("nan"), 1.0)], "a", "b"))


@pytest.mark.parametrize(("given", "kept"), [([0.5], [0.5] * 24), ([], []), ([0.4] * 24, [0.4] * 24)])
def test_a_factor_on_loads_may_be_one_for_all_intervals(desk: Desk, given: list[float], kept: list[float]):
    market, gate = (
        desk.market,
        {"gate_opens_at": desk.market.gate_opens_at, "gate_closes_at": desk.market.gate_closes_at},
    )
    prices = {"import_price_usd_per_mwh": [30.0]}
    added = desk.operator.add_market(
        "m", market.feeder_id, market.trade_date, market_timezone="UTC", load_scale=given, **gate, **prices
    )
    assert desk.operator._transport.read(f"/v1/markets/{added.id}").json()["inputs"]["load_scale"] == kept
    with pytest.raises(ContentError) as wrong:
        desk.operator.add_market(
            "m", market.feeder_id, market.trade_date, market_timezone="UTC", load_scale=[1.0, 1.0], **gate, **prices
        )
    assert [fault.code for fault in wrong.value.faults] == ["wrong_length"]


def test_lists_are_read_to_their_end(desk: Desk):
    with desk.client() as client:
        client.submit([desk.bid(hour, resource=number) for hour in range(24) for number in range(2)])
        pages = list(client._transport.items("/v1/bids", market_id=desk.market.id, limit=7))
    assert len({page["id"] for page in pages}) == 48


def test_prices_add_up_and_awards_are_what_was_offered_where_it_is_cheaper(published: Desk):
    with Client(published.url) as public:
        prices = public.prices(published.market.id)
        parts = prices[["energy", "loss", "congestion", "voltage", "unbalance", "scarcity"]].sum(axis=1)
        assert (parts - prices.price_usd_per_mwh).abs().max() < 1e-6
        assert len(prices) == 33 * 24
        assert str(prices.interval_start.dtype.tz) == "UTC"
        assert public.prices(published.market.id, bus="13").bus.unique().tolist() == ["13"]
    with published.client() as client:
        awards = client.awards(published.market.id)
        segments = client.awards(published.market.id, of="segments")
    assert (segments.award_kw - 300.0).abs().max() < 1e-6
    assert awards.resource.unique().tolist() == ["solar 13"]
    assert (awards.net_injection_kw - 300.0).abs().max() < 1e-6


def test_statements_are_exact_and_whole_cents(published: Desk):
    with published.client() as client:
        own = client.statements(published.market.id)
    assert {type(amount) for amount in own.amount} == {Decimal}
    assert set(own.participant) == {published.participant.id}
    total = sum(own.amount)
    assert total == total.quantize(Decimal("0.01")) > 0
    assert sum(published.operator.statements(published.market.id).amount) == 0


def test_a_correction_is_a_version_more_and_its_delta_leads_there(server: Server, published: Desk):
    market, operator = published.market.id, published.operator
    shown = []
    run = operator.run(market, shown.append, correction_reason="meter", import_price_usd_per_mwh=[31.0])
    assert run.state == "succeeded"
    assert shown[-1] == run
    assert len(shown) > 1
    assert operator.publish(market).price_version == 2
    with published.client() as client:
        before, after = (sum(client.statements(market, version).amount) for version in (1, 2))
        assert sum(client.statement_delta(market).amount) == after - before != 0


def test_readings_go_as_a_frame_and_come_back_as_one(desk: Desk):
    market, resource = day_that_is_over(desk), desk.resources[0]
    with desk.client() as client:
        client.submit(Bid(market.id, resource.id, "supply", [(300.0, 12.0)]))
        operator = desk.operator
        with pytest.raises(ConflictError, match="gate_not_closed"):
            operator.add_readings(market.id, b"resource_id,interval_start,interval_end,net_injection_kwh\n" + b"x,,,\n")
        operator.close_gate(market.id)
        starts = pd.date_range(market.starts_at, periods=2, freq="1h").tz_convert("Asia/Tokyo")
        frame = pd.DataFrame(
            {"resource_id": resource.id, "interval_start": starts, "net_injection_kwh": [290.0, 310.5]}
        )
        frame["interval_end"] = frame.interval_start + pd.Timedelta(hours=1)
        frame["q_kvarh"] = [None, 1.25]
        assert operator.add_readings(market.id, frame) == [ReadSeries(resource.id, 1, True)]
        assert operator.add_readings(market.id, frame) == [ReadSeries(resource.id, 1, False)]
        operator.add_readings(market.id, frame[1:].assign(net_injection_kwh=311.0))
        found = client.readings(market.id)
        assert found.net_injection_kwh.tolist() == [290.0, 311.0]
        assert found.interval_start.tolist() == starts.tz_convert("UTC").tolist()
        assert found.q_kvarh.isna().tolist() == [True, False]
        every = client.readings(market.id, resource.id, all_versions=True)
        assert every.version.tolist() == [1, 1, 2, 2]
        assert every.is_current.tolist() == [False, False, True, True]
        assert len(client.readings(market.id, desk.resources[1].id)) == 0
        with pytest.raises(ConflictError, match="not_published"):
            operator.request_settlement(market.id)


def test_webhooks_are_registered_tried_and_deleted(tmp_path):
    local = {"DLMP_WEBHOOK_ALLOW_HTTP": "true", "DLMP_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8"}
    with serving(tmp_path, **local) as server, Client(server.url, server.key) as operator, receiving() as receiver:
        feeder = operator.add_feeder("lane", shipped="feeder33")
        hook = operator.add_webhook(receiver.url, ["run.failed"], feeder=feeder.name)
        assert (hook.events, hook.feeder) == (["run.failed"], "lane")
        assert operator.ping(hook.id).event == "ping"
        (got,) = receiver.wait_for(1)
        assert got.is_signed_by(hook.secret)
        until(lambda: [one.state for one in operator.deliveries(hook.id)] == ["delivered"])
        assert [(one.id, one.secret) for one in operator.webhooks()] == [(hook.id, None)]
        operator.delete_webhook(hook.id)
        assert operator.webhooks() == []


def test_the_library_without_the_client_needs_no_http():
    code = "import sys, dlmp; assert 'httpx' not in sys.modules; dlmp.Client; assert 'httpx' in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
