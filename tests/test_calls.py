"""Which calls there are: each award alone, all of a service, all of a capacity with all of a VAR service."""

import numpy as np
import pytest

from dlmp.calls import CalledStates, every_call, whole_services
from dlmp.services import CAPACITY_DOWN, CAPACITY_UP, VAR_UP, ServiceOffers

SERVICE = [CAPACITY_UP, CAPACITY_UP, CAPACITY_DOWN, VAR_UP]


@pytest.fixture
def offers() -> ServiceOffers:
    count = len(SERVICE)
    rows = np.ones((2, count))
    return ServiceOffers(np.arange(count), np.array(SERVICE), 10 * rows, rows, np.ones(count))


def as_sets(calls: CalledStates) -> set[tuple[int, tuple[int, ...]]]:
    return {
        (t, tuple(np.flatnonzero(called).tolist()))
        for t, called in zip(calls.interval.tolist(), calls.calls, strict=True)
    }


def test_every_award_alone_whole_services_and_pairs_of_them(offers: ServiceOffers):
    calls = every_call(offers, np.array([[1.0] * 4, [0.0] * 4]), 1.0)
    assert as_sets(calls) == {(0, own) for own in [(0, 1), (2,), (3,), (0, 1, 3), (2, 3), (0,), (1,)]}
    assert len(calls) == 7, "a service of one award has no other call of it alone"


def test_a_call_of_a_service_is_of_all_its_offers_whoever_has_an_award(offers: ServiceOffers):
    """Else it would be another call as soon as another offer has an award."""
    calls = every_call(offers, np.array([[1.0, 0.0, 0.0, 1.0], [0.0] * 4]), 1.0)
    assert as_sets(calls) == {(0, (0, 1)), (0, (3,)), (0, (0, 1, 3))}


def test_calls_of_the_same_awards_as_those_held_are_left_out(offers: ServiceOffers):
    reserved = np.array([[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0]])
    calls = every_call(offers, reserved, 1.0, held=whole_services(offers))
    assert as_sets(calls) == {(0, (0, 1, 3)), (1, (0,)), (1, (1,))}
