"""Webhooks: who is told of what, signed so that anybody can verify it, once at least, never at a private address."""

import contextlib
import re
import socket
import threading
import time
from base64 import b64decode
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest
from processes import Server, databases
from processes import new_world as make_world
from publishing import publish_invented, run_invented, settle_invented
from receivers import receiving, until
from sqlalchemy import select
from worlds import GATE_CLOSES, NOW, faults, pages, z

from api.errors import Unprocessable
from api.gate import Step, close_market
from api.integrity import faults_in_store
from api.outbox import EVENTS
from api.registry import Asked
from api.routes.common import position_of
from api.runs import Claim, Ended, claim_run, end_run
from api.schemas.webhooks import DeliveryError
from api.sender import Sender
from api.store.tables import deliveries as rows
from api.store.tables import webhooks
from api.store.writer import each
from api.webhooks import (
    Attempt,
    Turn,
    add_webhook,
    claim_deliveries,
    drop_old_deliveries,
    new_secret,
    note_attempt,
    signed,
)

DOCUMENT = (Path(__file__).parents[2] / "docs" / "service.md").read_text("utf-8")

LOCAL = {"webhook_allowed_networks": "127.0.0.0/8", "webhook_allow_http": True}
LIFE = ["market.open", "market.closed", "market.cleared", "market.published", "market.corrected", "market.settled"]


@pytest.fixture
def live(new_world):
    """A service that sends, also to this machine."""
    with new_world(webhooks_here=True, **LOCAL) as world:
        yield world


@pytest.fixture(scope="module")
def shared_hooks(new_world):
    """A service that sends nothing."""
    with new_world(max_webhooks=1_000, **LOCAL) as world:
        yield world


def hooked(world, receiver, *events, who="sunny", **more):
    return world.ask("POST", "/v1/webhooks", {"url": receiver.url, "events": list(events), **more}, who)


def deliveries(world, hook, who="sunny"):
    """Deliveries of a webhook, the oldest first."""
    return world.ask("GET", f"/v1/webhooks/{hook['id']}/deliveries", who=who)["items"][::-1]


def ended(world, hook, count, who="sunny"):
    """Deliveries of a webhook, once so many have ended."""
    until(lambda: sum(one["state"] != "pending" for one in deliveries(world, hook, who)) >= count)
    return deliveries(world, hook, who)


def test_every_event_of_a_market_is_told_once_in_order_signed_and_without_results(live):
    with receiving() as receiver:
        hook = hooked(live, receiver, *LIFE)
        market = live.ask("POST", "/v1/markets", live.market(gate_opens_at=z(NOW + timedelta(hours=1))))["id"]
        live.clock.step(hours=1, minutes=1)
        receiver.wait_for(1)  # nobody but the sender looked at the gate
        live.clock.now = GATE_CLOSES + timedelta(seconds=2)
        publish_invented(live, [("sunny", "solar", "1.00")], market)
        publish_invented(live, [("sunny", "solar", "1.01")], market, reason="a meter was read again")
        settle_invented(live, [("sunny", "solar", "1.02")], market)
        told = ended(live, hook, len(LIFE) + 1)  # the gate of the world's own market has closed too
        mine = [one.document for one in receiver.got if one.document["market_id"] == market]
        assert [one["event"] for one in mine] == LIFE
        assert [one["price_version"] for one in mine] == [None, None, None, 1, 2, 3]
        assert [one["occurred_at"] for one in mine[:2]] == [
            "2026-06-30T16:00:00Z",
            "2026-06-30T17:00:00Z",
        ]
        assert all(set(one) == {"id", "event", "market_id", "price_version", "run_id", "occurred_at"} for one in mine)
        assert all(one.is_signed_by(hook["secret"]) for one in receiver.got)
        assert [(one["state"], one["attempts"], one["status"]) for one in told] == [("delivered", 1, 204)] * len(told)
        assert [one.headers["webhook-id"] for one in receiver.got] == [one["id"] for one in told]
        time.sleep(0.6)
        assert len(receiver.got) == len(told)


def ask(world, method, path, body=None, who="sunny"):
    content = {} if body is None else {"json": body}
    return world.request(method, f"/v1/webhooks{path}", who, **content)


def in_outbox(world):
    with world.service.engine.connect() as connection:
        return [(one.event, one.webhook_id) for one in connection.execute(select(rows).order_by(rows.c.number))]


HOOK = {"url": "https://127.0.0.1/", "events": ["market.settled"]}


def test_the_published_vector_of_the_standard_is_signed_as_it_says():
    secret, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b'{"test": 2432232314}'
    assert signed(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body) == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_the_function_of_the_documentation_takes_what_is_sent_and_nothing_else(live):
    (code,) = re.findall(r"```python\n(import base64.*?)```", DOCUMENT, re.DOTALL)
    shown = {}
    exec(compile(code, "service.md", "exec"), shown)
    with receiving() as receiver:
        hook = hooked(live, receiver, "market.closed")
        live.ask("POST", f"/v1/markets/{live['market']}/close")
        (told,) = receiver.wait_for(1)
    sent_at = int(told.headers["webhook-timestamp"])
    assert sent_at == live.clock().timestamp()
    shown["time"] = SimpleNamespace(time=lambda: sent_at + 299)
    genuine, secret = shown["is_genuine"], hook["secret"]
    assert genuine(secret, told.headers, told.body)
    assert genuine(secret, told.headers | {"webhook-signature": f"v1,x {told.headers['webhook-signature']}"}, told.body)
    assert not genuine(secret, told.headers, told.body.replace(b"closed", b"opened"))
    assert not genuine(secret, told.headers | {"webhook-id": "dlv_1"}, told.body)
    assert not genuine(secret, told.headers | {"webhook-timestamp": str(sent_at + 1)}, told.body)
    assert not genuine(new_secret(), told.headers, told.body)
    shown["time"] = SimpleNamespace(time=lambda: sent_at + 301)
    assert not genuine(secret, told.headers, told.body)
    assert len(b64decode(secret.removeprefix("whsec_"))) == 32


def test_every_event_and_every_error_of_a_delivery_is_documented():
    for heading, expected in (("Event", set(EVENTS)), ("`error` of a delivery", set(get_args(DeliveryError)) - {""})):
        table = DOCUMENT.partition(f"| {heading} |")[2].partition("\n\n")[0]
        named = re.findall(r"`([a-z_.]+)`", " ".join(line.split("|")[1] for line in table.splitlines()[2:]))
        assert set(named) == expected


def test_only_those_are_told_who_asked_for_this_event_of_this_market_or_feeder(shared_hooks):
    world = shared_hooks
    market = world.ask("POST", "/v1/markets", world.market())["id"]
    other = world.ask("POST", "/v1/markets", world.market(feeder_id=world["alley"]))["id"]
    asked = {
        "all": {},
        "its market": {"market_id": market},
        "another market": {"market_id": other},
        "its feeder": {"feeder": "lane"},
        "another feeder": {"feeder": "alley"},
        "another event": {"events": ["market.settled"]},
        "deleted": {},
    }
    body = HOOK | {"events": ["market.closed"]}
    names = {ask(world, "POST", "", body | more).json()["id"]: name for name, more in asked.items()}
    (deleted,) = [one for one, name in names.items() if name == "deleted"]
    assert ask(world, "DELETE", f"/{deleted}").status_code == 200
    world.ask("POST", f"/v1/markets/{market}/close")
    assert {names[hook] for event, hook in in_outbox(world) if hook in names} == {"all", "its market", "its feeder"}


def test_a_run_that_fails_is_told_to_operators_alone(world):
    body = HOOK | {"events": ["run.failed"], "url": "https://8.8.8.8/"}
    refused = ask(world, "POST", "", body)
    assert (refused.status_code, faults(refused)) == (422, {("/events", "operators_only")})
    hook = ask(world, "POST", "", body, "operator").json()
    assert hook["participant_id"] is None
    world.ask("POST", f"/v1/markets/{world['market']}/close")
    run = world.ask("POST", f"/v1/markets/{world['market']}/runs", {})["id"]
    do = world.service.writer.do_now
    assert do(each(claim_run), Claim("worker", world.clock(), 10.0, 3)).id == run
    assert do(each(end_run), Ended(run, "worker", world.clock(), "failed", "no reason"))
    (told,) = deliveries(world, hook, "operator")
    assert told["content"] == {
        "id": told["id"],
        "event": "run.failed",
        "occurred_at": "2026-06-30T15:00:00Z",
        "market_id": world["market"],
        "price_version": None,
        "run_id": run,
    }


def test_what_is_rolled_back_is_told_to_nobody(shared_hooks):
    world = shared_hooks
    hook = ask(world, "POST", "", HOOK | {"events": ["market.closed"]}).json()["id"]
    market = world.ask("POST", "/v1/markets", world.market())["id"]

    def closes_and_fails(connection, chain, step):
        close_market(connection, chain, step)
        assert connection.execute(select(rows).where(rows.c.webhook_id == hook)).one()
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        world.service.writer.do_now(each(closes_and_fails), Step(market, "x", world.clock()))
    assert hook not in {name for _, name in in_outbox(world)}
    world.ask("POST", f"/v1/markets/{market}/close")
    assert in_outbox(world).count(("market.closed", hook)) == 1


def test_the_secret_is_shown_once_and_the_url_is_its_owners(shared_hooks):
    world = shared_hooks
    hook = ask(world, "POST", "", HOOK | {"url": "https://127.0.0.1/token-in-a-path"}).json()
    assert hook["secret"].startswith("whsec_")
    listed = ask(world, "GET", "?limit=1000").text + ask(world, "GET", f"/{hook['id']}").text
    assert "token-in-a-path" in listed and "secret" not in listed
    for who in ("windy", "operator", "auditor"):
        page = ask(world, "GET", "?limit=1000", who=who).text
        assert (hook["id"] in page) == (who == "auditor")
        assert ask(world, "GET", f"/{hook['id']}", who=who).status_code == (200 if who == "auditor" else 404)
    audit = world.get("/v1/audit?limit=1000").text
    assert hook["id"] in audit
    assert "token-in-a-path" not in audit and hook["secret"] not in audit
    ask(world, "DELETE", f"/{hook['id']}")
    for method, path in (("GET", ""), ("GET", "/deliveries"), ("POST", "/ping"), ("DELETE", "")):
        assert ask(world, method, f"/{hook['id']}{path}").status_code == 404
    with world.service.engine.connect() as connection:
        assert connection.execute(select(webhooks.c.secret).where(webhooks.c.id == hook["id"])).scalar_one() == ""
        assert list(faults_in_store(connection)) == []


def test_everything_wrong_with_a_webhook_is_told_at_once(new_world):
    with new_world(max_webhooks=1) as world:
        body = {"url": "https://8.8.8.8/", "events": ["market.open"]}
        assert ask(world, "POST", "", body).status_code == 201
        assert ask(world, "POST", "", body, "windy").status_code == 201  # each has their own
        assert ask(world, "POST", "", body, "operator").status_code == 201
        wrong = {"url": "https://10.0.0.1/", "events": ["run.failed"], "market_id": f"mkt_{'0' * 24}"}
        expected = {("/url", "host_not_allowed"), ("/events", "operators_only"), ("/market_id", "unknown_market")}
        assert faults(ask(world, "POST", "", wrong)) == expected | {("", "too_many_webhooks")}
        wrong = {"url": "http://8.8.8.8/", "events": ["market.open"], "feeder": "no such"}
        expected = {("/url", "url_not_allowed"), ("/feeder", "unknown_feeder"), ("", "too_many_webhooks")}
        assert faults(ask(world, "POST", "", wrong)) == expected
        assert "10.0.0.1" not in ask(world, "POST", "", wrong | {"url": "https://10.0.0.1/"}).text
        (own,) = ask(world, "GET", "").json()["items"]
        ask(world, "DELETE", f"/{own['id']}")
        assert ask(world, "POST", "", body).status_code == 201


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ({"url": "ftp://x/"}, ("/url", "malformed")),
        ({"url": "https://ünïcode.example/"}, ("/url", "malformed")),
        ({"url": "https://" + "x" * 2000}, ("/url", "too_long")),
        ({"events": []}, ("/events", "too_few")),
        ({"events": ["ping"]}, ("/events/0", "not_a_choice")),
        ({"feeder": "lane", "market_id": f"mkt_{'0' * 24}"}, ("", "one_of")),
        ({"secret": "whsec_mine"}, ("/secret", "unknown_field")),
    ],
)
def test_a_webhook_that_is_malformed_is_refused(shared_hooks, body, fault):
    before = shared_hooks.stored()
    answer = ask(shared_hooks, "POST", "", HOOK | body)
    assert (answer.status_code, faults(answer)) == (422, {fault})
    assert shared_hooks.stored() == before


def test_a_delivery_that_fails_is_tried_again_later_and_later_with_the_same_name(live):
    with receiving(answers=[500, 302, 404, 503, 200]) as receiver:
        hook = hooked(live, receiver, "market.closed")
        live.ask("POST", f"/v1/markets/{live['market']}/close")
        for number, (pause_s, status) in enumerate({5: 500, 20: 302, 80: 404, 320: 503}.items(), 1):
            (told,) = until(lambda last=status: [one for one in deliveries(live, hook) if one["status"] == last])
            wait_s = seconds_until(live, told["next_attempt_at"])
            assert 0.75 * pause_s <= wait_s <= 1.25 * pause_s
            live.clock.step(seconds=wait_s - 0.001)
            time.sleep(0.4)
            assert len(receiver.got) == number
            live.clock.step(seconds=0.001)
            receiver.wait_for(number + 1)
        (told,) = ended(live, hook, 1)
        assert (told["state"], told["attempts"], told["status"]) == ("delivered", 5, 200)
        assert {one.headers["webhook-id"] for one in receiver.got} == {told["id"]}
        assert {one.body for one in receiver.got} == {receiver.got[0].body}
        times = [int(one.headers["webhook-timestamp"]) for one in receiver.got]
        assert times == sorted(set(times))
        assert all(one.is_signed_by(hook["secret"]) for one in receiver.got)


def seconds_until(world, moment):
    return (datetime.fromisoformat(moment) - world.clock()).total_seconds()


def test_a_receiver_that_takes_nothing_for_too_long_is_told_nothing_until_it_takes_a_ping(new_world):
    with new_world(webhooks_here=True, webhook_give_up_s=10.0, **LOCAL) as live, receiving(answers=[500]) as receiver:
        hook = hooked(live, receiver, "market.closed", "market.cleared", "market.published")
        live.ask("POST", f"/v1/markets/{live['market']}/close")
        until(lambda: deliveries(live, hook)[0]["status"])
        publish_invented(live, [("sunny", "solar", "1.00")])
        until(lambda: [one["status"] for one in deliveries(live, hook)] == [500, 500, 500])
        assert read(live, hook)["disabled_at"] is None
        live.clock.step(seconds=11)
        until(lambda: read(live, hook)["disabled_at"])
        assert [(one["state"], one["next_attempt_at"]) for one in deliveries(live, hook)] == [("failed", None)] * 3
        assert {one["error"] for one in deliveries(live, hook)} <= {"", "disabled"}
        assert read(live, hook)["disabled_reason"] == "it took nothing for too long"
        other = live.ask("POST", "/v1/markets", live.market())["id"]
        live.ask("POST", f"/v1/markets/{other}/close")
        assert len(deliveries(live, hook)) == 3  # nothing is queued meanwhile
        assert ask(live, "POST", f"/{hook['id']}/ping").status_code == 202
        assert ended(live, hook, 4)[3]["state"] == "failed"  # a ping is tried once
        again = ask(live, "POST", f"/{hook['id']}/ping")
        assert (again.status_code, again.json()["code"], again.headers["retry-after"]) == (409, "ping_waits", "10")
        live.clock.step(seconds=10)
        receiver.answers = [204]
        assert ask(live, "POST", f"/{hook['id']}/ping").json()["event"] == "ping"
        until(lambda: read(live, hook)["disabled_at"] is None)
        third = live.ask("POST", "/v1/markets", live.market())["id"]
        live.ask("POST", f"/v1/markets/{third}/close")
        assert ended(live, hook, 6)[5]["state"] == "delivered"
        actions = [one["action"] for one in live.get("/v1/audit?limit=1000").json()["items"]]
        assert [one for one in actions if one.startswith("webhook")] == [
            *("webhook.add", "webhook.disable", "webhook.enable"),
        ]
        assert live.get("/v1/audit/verify").json()["is_whole"]


def read(world, hook, who="sunny"):
    return world.ask("GET", f"/v1/webhooks/{hook['id']}", who=who)


def test_one_delivery_that_is_given_up_disables_nobody_who_takes_others(new_world):
    settings = {"webhooks_here": True, "webhook_give_up_s": 10.0, **LOCAL}
    with new_world(**settings) as live, receiving(answers=[500, 204]) as receiver:
        hook = hooked(live, receiver, "market.closed", "market.cleared")
        live.ask("POST", f"/v1/markets/{live['market']}/close")
        until(lambda: deliveries(live, hook)[0]["status"] == 500)
        live.clock.step(seconds=1)
        run_invented(live, [("sunny", "solar", "1.00")])
        assert [one["state"] for one in ended(live, hook, 1)] == ["pending", "delivered"]
        receiver.answers = [500]
        live.clock.step(seconds=10)
        assert [one["state"] for one in ended(live, hook, 2)] == ["failed", "delivered"]
        assert read(live, hook)["disabled_at"] is None


def test_a_receiver_that_says_it_is_gone_is_told_nothing_any_more(live):
    with receiving(answers=[410]) as receiver:
        hook = hooked(live, receiver, "market.closed")
        live.ask("POST", f"/v1/markets/{live['market']}/close")
        until(lambda: read(live, hook)["disabled_at"])
        assert [(one["state"], one["status"]) for one in deliveries(live, hook)] == [("failed", 410)]


def test_a_slow_receiver_gets_one_at_a_time_and_holds_nobody_up(new_world):
    settings = {"webhooks_here": True, "webhook_timeout_s": 4.0, **LOCAL}
    with new_world(**settings) as live, receiving(hold=threading.Event()) as slow, receiving() as quick:
        held = hooked(live, slow, "market.closed", "market.cleared")
        other = hooked(live, quick, "market.closed", "market.cleared", who="windy")
        run_invented(live, [("sunny", "solar", "1.00")])
        assert [one["state"] for one in ended(live, other, 2, "windy")] == ["delivered"] * 2
        assert len(slow.got) == 1
        until(lambda: deliveries(live, held)[0]["error"] == "timeout")
        slow.hold.set()
        until(lambda: len(slow.got) == 2)
        assert slow.events() == ["market.closed", "market.cleared"]


def test_a_receiver_whose_name_leads_inside_later_is_not_reached(live, monkeypatch):
    looked_up, asked = socket.getaddrinfo, []

    def look_up(host, *rest, **more):
        if host != "receiver.example":
            return looked_up(host, *rest, **more)
        asked.append(host)
        return looked_up("127.0.0.1" if len(asked) == 1 else "169.254.169.254", *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with receiving() as receiver:
        receiver.url = f"http://receiver.example:{receiver.port}/"
        hook = hooked(live, receiver, "market.closed")
        live.ask("POST", f"/v1/markets/{live['market']}/close")
        until(lambda: deliveries(live, hook)[0]["error"])
        (told,) = deliveries(live, hook)
        assert (told["state"], told["error"], told["status"]) == ("pending", "host_not_allowed", None)
        assert (receiver.got, len(asked)) == ([], 2)


def test_several_senders_on_one_database_deliver_each_once(live):
    with receiving() as receiver, contextlib.ExitStack() as stack:
        for _ in range(3):
            sender = Sender(live.service)
            sender.start()
            stack.callback(sender.stop)
        hooks = [hooked(live, receiver, "market.closed", "market.cleared", "market.published") for _ in range(8)]
        publish_invented(live, [("sunny", "solar", "1.00")])
        for hook in hooks:
            ended(live, hook, 3)
        told = [one.headers["webhook-id"] for one in receiver.got]
        assert len(told) == len(set(told)) == 24


def test_old_deliveries_are_dropped_and_those_that_wait_are_kept(world):
    body = {"url": "https://8.8.8.8/", "events": ["market.closed", "market.cleared"]}
    hook = ask(world, "POST", "", body).json()
    run_invented(world, [("sunny", "solar", "1.00")])
    do = world.service.writer.do_now
    (claimed,) = do(each(claim_deliveries), Turn("s", world.clock(), 5.0, 9))
    assert do(each(note_attempt), Attempt(claimed, world.clock(), 204, "", 5.0, 86400.0)) == "delivered"
    for days, left in ((30, 2), (1, 1)):
        world.clock.step(days=days)
        do(each(drop_old_deliveries), world.clock())
        assert len(deliveries(world, hook)) == left
    assert deliveries(world, hook)[0]["state"] == "pending"


def test_a_lease_that_ran_out_is_anothers_and_its_first_sender_has_no_say(world):
    hook = ask(world, "POST", "", HOOK | {"url": "https://8.8.8.8/", "events": ["market.closed"]}).json()
    world.ask("POST", f"/v1/markets/{world['market']}/close")
    do = world.service.writer.do_now
    (first,) = do(each(claim_deliveries), Turn("one", world.clock(), 5.0, 9))
    world.clock.step(seconds=4)
    assert do(each(claim_deliveries), Turn("two", world.clock(), 5.0, 9)) == []
    world.clock.step(seconds=1)
    (second,) = do(each(claim_deliveries), Turn("two", world.clock(), 5.0, 9))
    assert (first.id, first.attempts, second.id, second.attempts) == (second.id, 1, first.id, 2)
    assert do(each(note_attempt), Attempt(first, world.clock(), 204, "", 5.0, 86400.0)) == "lost"
    assert deliveries(world, hook)[0]["state"] == "pending"
    assert do(each(note_attempt), Attempt(second, world.clock(), 204, "", 5.0, 86400.0)) == "delivered"


def test_deliveries_come_in_pages_the_newest_first(shared_hooks):
    world = shared_hooks
    hook = ask(world, "POST", "", HOOK | {"events": ["market.closed"]}).json()
    for _ in range(5):
        market = world.ask("POST", "/v1/markets", world.market())["id"]
        world.ask("POST", f"/v1/markets/{market}/close")
    whole = world.ask("GET", f"/v1/webhooks/{hook['id']}/deliveries", who="sunny")["items"]
    assert len(whole) == 5
    assert pages(world, f"/v1/webhooks/{hook['id']}/deliveries", "sunny", 2) == whole
    last = whole[0]["content"]["market_id"]
    assert last == market


def test_a_cursor_of_deliveries_does_not_tell_how_many_others_have(shared_hooks):
    world = shared_hooks
    hook = ask(world, "POST", "", HOOK | {"events": ["market.open", "market.closed"]}).json()
    market = world.ask("POST", "/v1/markets", world.market())["id"]
    world.ask("POST", f"/v1/markets/{market}/close")
    page = world.ask("GET", f"/v1/webhooks/{hook['id']}/deliveries?limit=1", who="sunny")
    assert position_of(page["next_cursor"]) == page["items"][0]["id"]


def test_slow_receivers_of_one_owner_leave_room_for_those_of_others(new_world):
    with new_world(**LOCAL) as world:
        body = {"url": "https://127.0.0.1/", "events": ["market.closed"]}
        owners = {ask(world, "POST", "", body, who).json()["id"]: who for who in ["sunny"] * 12 + ["windy", "operator"]}
        world.ask("POST", f"/v1/markets/{world['market']}/close")

        def claimed(worker):
            turn = Turn(worker, world.clock(), 20.0, 64)
            found = world.service.writer.do_now(each(claim_deliveries), turn)
            return Counter(owners[delivery.webhook_id] for delivery in found)

        assert claimed("one") == {"sunny": 8, "windy": 1, "operator": 1}
        assert claimed("two") == {}
        world.clock.step(seconds=21)
        assert claimed("two") == {"sunny": 8, "windy": 1, "operator": 1}, "their leases have run out"


def test_nobody_who_is_not_registered_has_a_webhook(shared_hooks):
    """As whom a provider of tokens may name anybody."""
    world = shared_hooks
    content = {"url": "https://127.0.0.1/", "events": ["market.open"], "market_id": None, "feeder": None}
    content |= {"participant_id": f"par_{'0' * 24}", "secret": new_secret(), "faults": (), "most": 20}
    with pytest.raises(Unprocessable) as refused:
        world.service.writer.do_now(each(add_webhook), Asked("oidc:ann", NOW, content))
    assert [fault.code for fault in refused.value.faults] == ["unknown_participant"]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_what_was_committed_before_a_kill_is_told_after_it(kind, tmp_path):
    """Killed with one delivery under way and another that waits behind it."""
    with databases(kind, tmp_path) as environment, receiving(hold=threading.Event()) as receiver:
        environment |= {"DLMP_WEBHOOK_ALLOW_HTTP": "true", "DLMP_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.1"}
        environment |= {"DLMP_WEBHOOK_TIMEOUT_S": "2", "DLMP_RUNS_HERE": "false"}
        known = make_world(environment, resources=1)
        with Server(environment) as server:
            body = {"url": receiver.url, "events": ["market.closed"]}
            status, hook = server.send("POST", "/v1/webhooks", known.aggregator, body)
            assert status == 201
            _, market = server.get(f"/v1/markets/{known.market_id}", known.operator)
            fields = ("feeder_id", "trade_date", "market_timezone", "gate_opens_at", "gate_closes_at")
            another = {name: market[name] for name in fields} | {"name": "x", "import_price_usd_per_mwh": [30]}
            _, second = server.send("POST", "/v1/markets", known.operator, another)
            for one in (known.market_id, second["id"]):
                assert server.send("POST", f"/v1/markets/{one}/close", known.operator)[0] == 200
            receiver.wait_for(1)
            server.kill()
            receiver.hold.set()
            server.start()
            path = f"/v1/webhooks/{hook['id']}/deliveries"
            until(lambda: {one["state"] for one in server.get(path, known.aggregator)[1]["items"]} == {"delivered"})
        told = [one.document["market_id"] for one in receiver.got]
        assert sorted(told) == sorted([known.market_id, known.market_id, second["id"]])
        assert len({one.headers["webhook-id"] for one in receiver.got}) == 2
        assert all(one.is_signed_by(hook["secret"]) for one in receiver.got)
