"""Bids of others, late and masked: participants, resources and exclusive groups under pseudonyms.

A pseudonym is an HMAC (RFC 2104) of a name under a secret that is the market's alone.  It is the same for all bids of a
market and another in every other one, so that nobody is followed from market to market by it.
"""

import hashlib
import hmac
import secrets
from datetime import datetime, timedelta
from typing import Any

from api.clock import rfc3339
from api.gate import interval_start
from api.store.tables import PUBLISHED, SETTLED

DIGITS = 16


def new_mask_key() -> str:
    """Return a new secret of a market."""
    return secrets.token_hex(32)


def bids_public_at(market: Any) -> datetime | None:
    """When the bids of a market, a row of ``markets``, become public; None is never."""
    if market.bids_public_after_days is None:
        return None
    return interval_start(market, market.intervals) + timedelta(days=market.bids_public_after_days)


def are_bids_public(market: Any, now: datetime) -> bool:
    """Whether the bids of a market are public: it is published, and their time has come."""
    public_at = bids_public_at(market)
    return market.stage in (PUBLISHED, SETTLED) and public_at is not None and now >= public_at


def masked(market: Any, bid: Any) -> dict[str, Any]:
    """Return a bid of a market, a row of ``bids``, without names."""

    def pseudonym(kind: str, name: str) -> str:
        mac = hmac.new(bytes.fromhex(market.mask_key), f"{kind} {name}".encode(), hashlib.sha256)
        return f"{kind}_{mac.hexdigest()[:DIGITS]}"

    terms = dict(bid.terms)
    if terms.get("exclusive_group") is not None:
        terms["exclusive_group"] = pseudonym("group", f"{bid.participant_id} {terms['exclusive_group']}")
    return {
        "participant": pseudonym("participant", bid.participant_id),
        "resource": pseudonym("resource", bid.resource_id),
        "product": bid.product,
        "interval_start": rfc3339(interval_start(market, bid.first_interval)),
        "interval_end": rfc3339(interval_start(market, bid.last_interval + 1)),
        "terms": terms,
    }
