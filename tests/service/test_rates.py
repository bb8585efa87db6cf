"""The rate of requests: of a key, and of an address where no key that works came along."""

import pytest

from api import auth
from api.auth import Keyring
from api.clock import system_clock
from api.errors import TooManyRequests


def status(world, key):
    return world.get("/v1/markets", None, headers={"Authorization": f"Bearer {key}"} if key else {}).status_code


def test_keys_that_do_not_work_use_up_the_rate_of_their_address_and_of_no_key_that_does(new_world):
    with new_world(rate_per_second=0.001, rate_burst=4) as world:
        works = world.names.keys["sunny"]
        garbage = [f"dlmp_key_{number:024x}.{'x' * 43}" for number in range(5)]
        assert status(world, works) == 200
        assert [status(world, key) for key in garbage] == [401, 401, 401, 429, 429]
        assert status(world, None) == 429
        assert [status(world, works) for _ in range(4)] == [200, 200, 200, 429]


@pytest.fixture
def time(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(auth.time, "monotonic", lambda: now[0])
    return now


def keyring(rate, burst):
    return Keyring(None, system_clock, rate, burst)


def test_a_bucket_fills_again_and_is_forgotten_once_it_is_full(time):
    ring = keyring(rate=2.0, burst=4.0)
    for number in range(4):
        ring.count("busy")
        ring.count(f"address {number}")
    with pytest.raises(TooManyRequests):
        ring.count("busy")
    time[0] += 1.0
    for _ in range(2):
        ring.count("busy")
    with pytest.raises(TooManyRequests):
        ring.count("busy")
    assert len(ring._tokens) == 5
    time[0] += 1.5
    ring.count("new")
    assert set(ring._tokens) == {"busy", "new"}


def test_as_many_addresses_are_counted_as_fit(time, monkeypatch):
    monkeypatch.setattr(auth, "MOST_COUNTED", 3)
    ring = keyring(rate=0.001, burst=1.0)
    for number in range(10):
        ring.count(f"address {number}")
    assert list(ring._tokens) == ["address 7", "address 8", "address 9"]
