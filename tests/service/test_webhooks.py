"""Webhooks: who is told of what, signed so that anybody can verify it, once at least, never at a private address."""

import time
from datetime import timedelta

import pytest
from publishing import publish_invented
from receivers import receiving, until
from worlds import GATE_CLOSES, NOW, z

LOCAL = {"webhook_allowed_networks": "127.0.0.0/8", "webhook_allow_http": True, "webhook_timeout_s": 1.0}
LIFE = ["market.open", "market.closed", "market.cleared", "market.published", "market.corrected", "market.settled"]


@pytest.fixture
def live(new_world):
    """A service that sends, also to this machine."""
    with new_world(webhooks_here=True, **LOCAL) as world:
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
        live.ask("POST", f"/v1/markets/{market}/settle")
        told = ended(live, hook, len(LIFE) + 1)  # the gate of the world's own market has closed too
        mine = [one.document for one in receiver.got if one.document["market_id"] == market]
        assert [one["event"] for one in mine] == LIFE
        assert [one["price_version"] for one in mine] == [None, None, None, 1, 2, 2]
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
