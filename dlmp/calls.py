"""Calls of services: which offers are called together, and when.

The network keeps its limits in the states that calls lead to.  A clearing holds it to the calls of whole services, and
to any other that breaks a limit (`dlmp.reserves.unsafe_calls`); the certificate asks another program about all of them.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dlmp.bids import Resources
from dlmp.network.model import ComplexArray, FloatArray, IntArray
from dlmp.services import CAPACITY_DOWN, CAPACITY_UP, SERVICES, VAR_DOWN, VAR_UP, ServiceOffers


@dataclass(frozen=True, eq=False)
class CalledStates:
    """s network states in which offers of services are called, beside the t states as scheduled.

    Parameters
    ----------
    interval
        (s,) When.
    calls
        (s, k) True for the offers whose whole award is called.
    """

    interval: IntArray
    calls: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.interval)

    def only(self, states: IntArray) -> "CalledStates":
        """Some of them."""
        return CalledStates(self.interval[states], self.calls[states])

    def joined(self, other: "CalledStates") -> "CalledStates":
        """These, then those of `other`."""
        return CalledStates(np.r_[self.interval, other.interval], np.vstack([self.calls, other.calls]))


def whole_services(offers: ServiceOffers) -> CalledStates:
    """One state for each interval and service that is offered there: all of its offers called."""
    intervals, calls = [], []
    for service in SERVICES:
        own = offers.service == service
        is_offered = (offers.quantity_kw > 0) & own
        for interval in np.flatnonzero(is_offered.any(axis=1)).tolist():
            intervals.append(interval)
            calls.append(own)
    shape = (len(intervals), len(offers))
    return CalledStates(np.array(intervals, dtype=np.int64), np.array(calls, dtype=bool).reshape(shape))


def every_call(offers: ServiceOffers, awarded: npt.NDArray[np.bool_], held: CalledStates | None = None) -> CalledStates:
    """Calls of all of a service, of all of a capacity with all of a VAR service, and of each award alone.

    A call of all of a service is of all its offers: as awards come and go from clearing to clearing it stays the same.
    Of calls of the same awards there is one.

    Parameters
    ----------
    offers
        What is offered.
    awarded
        (t, k) True for the offers that have an award; others are not called alone.
    held
        Calls that are left out, and those of the same awards; default: none.
    """
    whole = {service: offers.service == service for service in SERVICES}
    pairs = [whole[capacity] | whole[var] for capacity in (CAPACITY_UP, CAPACITY_DOWN) for var in (VAR_UP, VAR_DOWN)]
    calls = np.array([*whole.values(), *pairs, *np.eye(len(offers), dtype=bool)])
    interval, number = np.divmod(np.arange(len(awarded) * len(calls)), len(calls))
    known = set() if held is None else set(_keys(held, awarded))
    known |= {(t, bytes(len(offers))) for t in range(len(awarded))}
    every, new = CalledStates(interval, calls[number]), []
    for place, key in enumerate(_keys(every, awarded)):
        if key not in known:
            known.add(key)
            new.append(place)
    return every.only(np.array(new, dtype=np.int64))


def _keys(states: CalledStates, awarded: npt.NDArray[np.bool_]) -> list[tuple[int, bytes]]:
    """A value for each of `states` that is equal for calls of the same awards in the same interval."""
    called = states.calls & awarded[states.interval]
    return [(interval, calls.tobytes()) for interval, calls in zip(states.interval.tolist(), called, strict=True)]


def called_kva(
    resources: Resources, offers: ServiceOffers, called: CalledStates, reserved_kw: FloatArray
) -> ComplexArray:
    """(s, p) What the calls of power (t, k) held ready [kW], [kvar] inject at the ports in each of `called`."""
    unit = np.where(offers.is_reactive, 1j, 1.0) * offers.direction
    by_offer = called.calls * reserved_kw[called.interval] * unit
    return np.asarray(by_offer @ resources.share[offers.resource])


def call_name(
    resources: Resources,
    offers: ServiceOffers,
    calls: npt.NDArray[np.bool_],
    among: npt.NDArray[np.bool_] | None = None,
) -> str:
    """What the (k,) `calls` are, for people: ``capacity_up of battery 7``, ``capacity_up`` for all those `among`."""
    names = []
    for service in SERVICES:
        own = offers.service == service
        if (calls & own).any():
            some = resources.name[offers.resource[calls & own]].tolist()
            whole = own if among is None else own & among
            names.append(service if (calls >= whole).all() else f"{service} of {', '.join(some)}")
    return " and ".join(names)
