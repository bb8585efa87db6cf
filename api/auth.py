"""Who asks: API keys, of which only a hash is kept, their roles and scopes.

A key is ``dlmp_`` and its name, a dot and 256 random bits; so much randomness needs no slow hash.
"""

import hashlib
import hmac
import math
import re
import secrets
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, select

from api.clock import Clock
from api.errors import Forbidden, TooManyRequests, Unauthenticated
from api.identity import KEY, new_id
from api.schemas.common import ID_PATTERN
from api.store.tables import keys

AGGREGATOR, OPERATOR, AUDITOR, PUBLIC = "aggregator", "operator", "auditor", "public"
ROLES = (AGGREGATOR, OPERATOR, AUDITOR)
PARTICIPANT_KEYS = "participant_keys:write"
READ = (
    *("feeders:read", "markets:read", "prices:read", "resources:read", "bids:read", "awards:read"),
    *("statements:read", "runs:read", "meter:read", "webhooks:read"),
)
SCOPES_OF: Mapping[str, frozenset[str]] = {
    PUBLIC: frozenset({"feeders:read", "markets:read", "prices:read"}),
    AGGREGATOR: frozenset(
        {
            *("feeders:read", "markets:read", "prices:read", "resources:read", "bids:read", "bids:write"),
            *("awards:read", "statements:read", "meter:read", "webhooks:read", "webhooks:write"),
        }
    ),
    AUDITOR: frozenset({*READ, "participants:read", "keys:read", "audit:read", "metrics:read"}),
    OPERATOR: frozenset(
        {
            *(*READ, "participants:read", "keys:read", "audit:read", "metrics:read"),
            *("participants:write", "resources:write", "feeders:write", "markets:write", "runs:write", "keys:write"),
            *("meter:write", "webhooks:write", PARTICIPANT_KEYS),
        }
    ),
}
"""What each role may do; a key may have a part of it.  Only aggregators bid."""

CACHE_S = 1.0
"""A key that is revoked through another process of the service works for so long."""
MOST_COUNTED = 100_000
"""Most keys that are remembered, and most keys and addresses whose requests are counted, the newest ones."""


@dataclass(frozen=True)
class Principal:
    """Who asks, and what they may do."""

    key_id: str
    role: str
    scopes: frozenset[str]
    participant_id: str | None = None

    @property
    def sees_all(self) -> bool:
        """Whether what belongs to any participant is theirs to read."""
        return self.role in (OPERATOR, AUDITOR)

    def require(self, scope: str) -> None:
        """Raise `Forbidden`, or for nobody `Unauthenticated`, unless `scope` is theirs."""
        if scope in self.scopes:
            return
        if self.role == PUBLIC:
            raise Unauthenticated("no_key", "This needs an API key, sent as 'Authorization: Bearer KEY'.")
        raise Forbidden("scope_missing", f"This needs the scope {scope}, which the key does not have.")

    def require_what_is_given(self, role: str, scopes: Collection[str] | None) -> None:
        """Raise `Forbidden` unless a key of `role` and `scopes` is theirs to give: nobody gives more than they have.

        Participants' keys may bid, which operators never do, and so have a scope of their own.
        """
        given = SCOPES_OF[role] if scopes is None else SCOPES_OF[role].intersection(scopes)
        for scope in [PARTICIPANT_KEYS] if role == AGGREGATOR else sorted(given):
            self.require(scope)


NOBODY = Principal("public", PUBLIC, SCOPES_OF[PUBLIC])
UNHEARD_OF = -math.inf, NOBODY, None


def new_secret() -> tuple[str, str, str]:
    """Return a new key: its name, the whole of it, and the hash to keep."""
    name, secret = new_id(KEY), secrets.token_urlsafe(32)
    return name, f"dlmp_{name}.{secret}", _hash(secret)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


class Keyring:
    """Turns a bearer token into who sent it, and counts the requests of keys, and of addresses without one.

    Tokens that are no keys of this service go to `other`, where there is one.
    """

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        rate_per_second: float,
        burst: float,
        other: Callable[[str], Principal] | None = None,
    ):
        self._engine, self._clock = engine, clock
        self._other = other
        self._rate, self._burst = rate_per_second, burst
        self._known: dict[str, tuple[float, Principal, datetime | None]] = {}
        self._tokens: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def identify(self, token: str | None) -> Principal:
        """Return who sent `token`.

        Raises
        ------
        Unauthenticated
            When the token is not that of a key that works.
        """
        principal = self.recall(token)
        if principal is None:
            assert token is not None
            found = self._looked_up(token)
            with self._lock:
                self._known.pop(_hash(token), None)
                self._known[_hash(token)] = found
                if len(self._known) > MOST_COUNTED:
                    del self._known[next(iter(self._known))]
            principal = self.recall(token)
        if principal is None:
            raise unknown_key()
        return principal

    def recall(self, token: str | None) -> Principal | None:
        """Return who sent `token` as far as it is known without asking anywhere; None where it is not."""
        if token is None:
            return NOBODY
        looked_up_at, principal, expires_at = self._known.get(_hash(token), UNHEARD_OF)
        is_fresh = time.monotonic() - looked_up_at <= CACHE_S
        return principal if is_fresh and (expires_at is None or self._clock() < expires_at) else None

    def _looked_up(self, token: str) -> tuple[float, Principal, datetime | None]:
        if self._other is not None and not token.startswith("dlmp_"):
            return time.monotonic(), self._other(token), None
        name, dot, secret = token.removeprefix("dlmp_").partition(".")
        if not (token.startswith("dlmp_") and dot and re.fullmatch(ID_PATTERN, name)):
            raise unknown_key()
        with self._engine.connect() as connection:
            row = connection.execute(select(keys).where(keys.c.id == name)).one_or_none()
        if row is None or not hmac.compare_digest(row.secret_sha256, _hash(secret)) or row.revoked_at is not None:
            raise unknown_key()
        scopes = frozenset(row.scopes) & SCOPES_OF[row.role]
        return time.monotonic(), Principal(row.id, row.role, scopes, row.participant_id), row.expires_at

    def forget(self) -> None:
        """Look every key up again: one has been revoked."""
        with self._lock:
            self._known.clear()

    def count_stranger(self, token: str | None, address: str) -> None:
        """Count a request of `address` if it has no token, or one that was never found to work."""
        if token is None or _hash(token) not in self._known:
            self.count(address)

    def count(self, who: str) -> None:
        """Count a request of `who`, a token bucket each; raise `TooManyRequests` when theirs is empty."""
        now = time.monotonic()
        with self._lock:
            level, last = self._tokens.get(who, (self._burst, now))
            level = min(self._burst, level + (now - last) * self._rate)
            if level < 1.0:
                raise TooManyRequests(retry_after_s=max(1, round((1.0 - level) / self._rate)))
            self._tokens.pop(who, None)
            self._tokens[who] = level - 1.0, now
            self._empty_out(now)

    def _empty_out(self, now: float) -> None:
        """Forget whose bucket is full again; those who were longest silent come first."""
        while self._tokens:
            who, (_, last) = next(iter(self._tokens.items()))
            if len(self._tokens) <= MOST_COUNTED and now - last < self._burst / self._rate:
                return
            del self._tokens[who]


def unknown_key() -> Unauthenticated:
    """Refuse a token, without a hint of what is wrong with it."""
    return Unauthenticated("unknown_key", "The API key is not known, has expired or was revoked.")
