"""The gate: half-open, decided by the time of receipt, and never un-closed by a clock that steps back."""

from datetime import UTC, datetime, timedelta

import pytest
from worlds import DAY_BEGINS, GATE_CLOSES, GATE_OPENS, faults, z

from api.bidding import Place, Submission
from api.book import Terms
from api.errors import Conflict

MOMENT = timedelta(microseconds=1)


def at(world, time):
    world.clock.now = time


def code_of(answer):
    return answer.json().get("code", "accepted")


def try_to_bid(world, market=None, hour=None):
    """Outcome of a bid for an hour of the day; of hours of its own, so that it never overlaps."""
    number = next(world.numbers) % 24 if hour is None else hour
    span = {
        "interval_start": z(DAY_BEGINS + timedelta(hours=number)),
        "interval_end": z(DAY_BEGINS + timedelta(hours=number + 1)),
    }
    return world.place(world.bid(market_id=market or world["market"], **span))


def unseen_market(world):
    """A market whose gate nobody has seen open yet."""
    at(world, GATE_OPENS - timedelta(hours=1))
    return world.ask("POST", "/v1/markets", world.market())["id"]


def state_of(world, market=None):
    return world.get(f"/v1/markets/{market or world['market']}", None).json()["state"]


@pytest.mark.parametrize(
    ("time", "outcome"),
    [
        (GATE_OPENS - MOMENT, "gate_not_open"),
        (GATE_OPENS, "accepted"),
        (GATE_CLOSES - MOMENT, "accepted"),
        (GATE_CLOSES, "gate_closed"),
        (GATE_CLOSES + timedelta(days=9), "gate_closed"),
    ],
)
def test_the_gate_includes_its_opening_and_excludes_its_closing(world, time, outcome):
    market = unseen_market(world)
    at(world, time)
    answer = try_to_bid(world, market)
    assert (answer.status_code, code_of(answer)) == (201 if outcome == "accepted" else 409, outcome)
    if outcome != "accepted":
        assert faults(answer) == {("/market_id", outcome)}
        assert world.stored()["bids"] == world.stored()["submissions"] == 0


def test_amendments_and_withdrawals_end_with_the_gate(world):
    bid_id = world.placed()
    etag = world.get(f"/v1/bids/{bid_id}", "sunny").headers["etag"]
    at(world, GATE_CLOSES)
    for method, body in (("PUT", {"json": world.bid()}), ("DELETE", {})):
        headers = world.new_key() | {"If-Match": etag}
        answer = world.request(method, f"/v1/bids/{bid_id}", "sunny", headers, **body)
        assert (answer.status_code, code_of(answer)) == (409, "gate_closed")
    assert world.get(f"/v1/bids/{bid_id}", "sunny").json()["state"] == "live"


def test_the_receipt_names_the_time_of_receipt_and_the_gate(world):
    time = GATE_CLOSES - MOMENT
    at(world, time)
    receipt = try_to_bid(world).json()
    assert datetime.fromisoformat(receipt["received_at"]) == time
    gate = {name: datetime.fromisoformat(text) for name, text in receipt["gates"][world["market"]].items()}
    assert gate == {"opens_at": GATE_OPENS, "closes_at": GATE_CLOSES}


def test_a_gate_that_a_bid_met_closed_stays_closed_when_the_clock_steps_back(world):
    assert try_to_bid(world).status_code == 201
    at(world, GATE_CLOSES)
    assert code_of(try_to_bid(world)) == "gate_closed"
    at(world, GATE_CLOSES - timedelta(minutes=5))
    assert code_of(try_to_bid(world)) == "gate_closed"
    assert state_of(world) == "closed"


def test_a_gate_that_anyone_was_shown_closed_stays_closed_when_the_clock_steps_back(world):
    def listed(world, market):
        items = world.get("/v1/markets", None).json()["items"]
        return {item["id"]: item["state"] for item in items}[market]

    for show in (state_of, listed):
        market = world.ask("POST", "/v1/markets", world.market())["id"]
        at(world, GATE_CLOSES)
        assert show(world, market) == "closed"
        at(world, GATE_CLOSES - timedelta(minutes=5))
        assert state_of(world, market) == "closed"
        assert code_of(try_to_bid(world, market)) == "gate_closed"


def test_a_gate_that_was_seen_open_stays_open_when_the_clock_steps_back(world):
    market = unseen_market(world)
    at(world, GATE_OPENS)
    assert try_to_bid(world, market).status_code == 201
    at(world, GATE_OPENS - timedelta(minutes=5))
    answer = try_to_bid(world, market)
    assert answer.status_code == 201
    assert datetime.fromisoformat(answer.json()["gates"][market]["opens_at"]) == GATE_OPENS
    assert state_of(world, market) == "open"


def test_a_clock_that_steps_forth_and_back_before_anyone_looks_moves_nothing(world):
    world.clock.step(days=1)
    world.clock.step(days=-1)
    assert try_to_bid(world).status_code == 201


def test_a_gate_that_a_run_has_closed_stays_closed_when_the_clock_steps_back(world):
    at(world, GATE_CLOSES)
    world.ask("POST", f"/v1/markets/{world['market']}/runs", {})
    at(world, GATE_CLOSES - MOMENT)
    assert code_of(try_to_bid(world)) == "gate_closed"


def test_a_bid_that_came_before_the_gate_closed_is_in_time_even_if_another_worker_has_seen_it_closed(world):
    offer = {
        "side": "supply",
        "segments": [{"quantity_kw": 1.0, "price_usd_per_mwh": 5.0, "price_end_usd_per_mwh": None}],
    }

    def received(received_at, hour):
        begins = DAY_BEGINS + timedelta(hours=hour)
        place = Place(Terms(world["market"], world["solar"], begins, begins + timedelta(hours=1), "energy", offer))
        sent = Submission(world["sunny"], "key", f"{hour} {received_at}", b"{}", received_at, [place])
        try:
            return world.service.writer.do_now(world.service.accept, sent).status
        except Conflict as refusal:
            return refusal.code

    at(world, GATE_CLOSES)
    assert state_of(world) == "closed"
    assert received(GATE_CLOSES - MOMENT, 0) == 201
    assert received(GATE_CLOSES, 1) == "gate_closed"
    at(world, GATE_CLOSES - MOMENT)
    assert received(GATE_CLOSES - MOMENT, 2) == "gate_closed"
    at(world, GATE_CLOSES)
    world.ask("POST", f"/v1/markets/{world['market']}/runs", {})
    assert received(GATE_CLOSES - 2 * MOMENT, 3) == "gate_closed"


def test_bids_of_one_batch_meet_one_gate_each(world):
    later = world.ask("POST", "/v1/markets", world.market(gate_opens_at=z(GATE_CLOSES - timedelta(minutes=1))))["id"]
    both = [world.bid(), world.bid(market_id=later)]
    assert faults(world.place_all(both)) == {("/bids/1/market_id", "gate_not_open")}
    partly = world.place_all(both, "per_item").json()
    assert [item["status"] for item in partly["items"]] == ["accepted", "refused"]
    assert list(partly["gates"]) == [world["market"]]


def test_a_gate_opens_early_by_hand_and_closes_by_its_time(world):
    opens = GATE_CLOSES - timedelta(minutes=1)
    market = world.ask("POST", "/v1/markets", world.market(gate_opens_at=z(opens)))["id"]
    assert code_of(try_to_bid(world, market)) == "gate_not_open"
    assert world.ask("POST", f"/v1/markets/{market}/open")["state"] == "open"
    receipt = try_to_bid(world, market).json()
    assert datetime.fromisoformat(receipt["gates"][market]["opens_at"]) == world.clock()
    at(world, GATE_CLOSES)
    assert code_of(try_to_bid(world, market)) == "gate_closed"


def test_a_gate_closes_early_by_hand_and_opens_no_more(world):
    path = f"/v1/markets/{world['market']}"
    assert world.ask("POST", f"{path}/close")["state"] == "closed"
    assert code_of(try_to_bid(world)) == "gate_closed"
    at(world, GATE_OPENS)
    assert code_of(try_to_bid(world)) == "gate_closed"
    for move in ("open", "close"):
        assert code_of(world.post(f"{path}/{move}")) == "wrong_state"


def test_the_chain_says_who_opened_and_closed_a_gate_and_when(world):
    early = world.ask("POST", "/v1/markets", world.market())["id"]
    world.ask("POST", f"/v1/markets/{early}/close")
    at(world, GATE_CLOSES + MOMENT)
    assert state_of(world) == "closed"
    entries = world.get("/v1/audit?limit=1000", "auditor").json()["items"]
    moves = {
        (one["target"], one["action"]): one for one in entries if one["action"] in ("market.open", "market.closed")
    }
    by_clock, by_hand = moves[world["market"], "market.closed"], moves[early, "market.closed"]
    assert (by_clock["actor"], by_clock["at"]) == ("clock", z(GATE_CLOSES + MOMENT))
    assert by_hand["actor"].startswith("key_")


@pytest.mark.parametrize(
    ("trade_date", "timezone", "begins", "hours"),
    [
        ("2026-03-08", "America/Los_Angeles", datetime(2026, 3, 8, 8, tzinfo=UTC), 23),
        ("2026-07-01", "America/Los_Angeles", datetime(2026, 7, 1, 7, tzinfo=UTC), 24),
        ("2026-11-01", "America/Los_Angeles", datetime(2026, 11, 1, 7, tzinfo=UTC), 25),
        ("2026-10-25", "Europe/Berlin", datetime(2026, 10, 24, 22, tzinfo=UTC), 25),
        ("2026-10-04", "Australia/Lord_Howe", datetime(2026, 10, 3, 13, 30, tzinfo=UTC), 23.5),
        ("2026-07-01", "Asia/Kathmandu", datetime(2026, 6, 30, 18, 15, tzinfo=UTC), 24),
    ],
)
def test_a_day_is_as_long_as_it_is_on_the_markets_own_clock(world, trade_date, timezone, begins, hours):
    body = world.market(trade_date=trade_date, market_timezone=timezone, interval_minutes=30)
    market = world.ask("POST", "/v1/markets", body)
    assert (market["starts_at"], market["intervals"]) == (z(begins).replace(".000000", ""), 2 * hours)
    ends = begins + timedelta(hours=hours)
    whole = {"market_id": market["id"], "interval_start": z(begins), "interval_end": z(ends)}
    beyond = whole | {"interval_end": z(ends + timedelta(minutes=30))}
    assert faults(world.place(world.bid(**beyond))) == {("/interval_end", "off_grid")}
    world.placed(**whole)


def test_the_hour_that_comes_twice_can_be_bid_into_twice(world):
    body = world.market(trade_date="2026-11-01")
    market = world.ask("POST", "/v1/markets", body)["id"]
    first = datetime(2026, 11, 1, 8, tzinfo=UTC)  # 01:00 in summer time; an hour later it is 01:00 again
    for number in range(2):
        begins = first + timedelta(hours=number)
        times = {"interval_start": z(begins), "interval_end": z(begins + timedelta(hours=1))}
        world.placed(market_id=market, **times)


def test_series_of_a_market_fit_the_length_of_its_day(world):
    short = world.market(trade_date="2026-03-08", import_price_usd_per_mwh=[30] * 24)
    answer = world.post("/v1/markets", short)
    assert (answer.status_code, faults(answer)) == (422, {("/import_price_usd_per_mwh", "wrong_length")})
    assert world.post("/v1/markets", short | {"import_price_usd_per_mwh": [30] * 23}).status_code == 201
    odd = world.market(trade_date="2026-10-04", market_timezone="Australia/Lord_Howe")
    assert faults(world.post("/v1/markets", odd)) == {("/interval_minutes", "off_grid")}
