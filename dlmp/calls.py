"""Calls of services: which offers are called together, and when.

The network keeps its limits in the states that calls lead to.  A clearing holds it to the calls of whole services, and
to any other that breaks a limit (`dlmp.reserves.unsafe_calls`); the certificate asks another program about all of them.
A call lasts: of each offer that is called in an interval runs the award of that interval or an earlier one, never both.
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
        (s, k) True for the offers of which a whole award is called.
    lag
        (s, k) How many intervals earlier that award was made, 0 for the one of the interval itself and where none is
        called.
    """

    interval: IntArray
    calls: npt.NDArray[np.bool_]
    lag: IntArray

    def __len__(self) -> int:
        return len(self.interval)

    def only(self, states: IntArray) -> "CalledStates":
        """Some of them."""
        return CalledStates(self.interval[states], self.calls[states], self.lag[states])

    def joined(self, other: "CalledStates") -> "CalledStates":
        """These, then those of `other`."""
        return CalledStates(
            np.r_[self.interval, other.interval],
            np.vstack([self.calls, other.calls]),
            np.vstack([self.lag, other.lag]),
        )

    def awards(self, reserved: FloatArray) -> FloatArray:
        """(s, k) What is called of power (t, k) held ready."""
        offer = np.arange(self.calls.shape[1])
        return np.asarray(self.calls * reserved[self.interval[:, None] - self.lag, offer])


def whole_services(offers: ServiceOffers) -> CalledStates:
    """One state for each interval and service that is offered there: all of its offers called, as awarded there."""
    intervals, calls = [], []
    for service in SERVICES:
        own = offers.service == service
        is_offered = (offers.quantity_kw > 0) & own
        for interval in np.flatnonzero(is_offered.any(axis=1)).tolist():
            intervals.append(interval)
            calls.append(own)
    shape = (len(intervals), len(offers))
    called = np.array(calls, dtype=bool).reshape(shape)
    return CalledStates(np.array(intervals, dtype=np.int64), called, np.zeros(shape, dtype=np.int64))


def running_since(
    offers: ServiceOffers, reserved: FloatArray, interval_hours: float, least: float = 0.0
) -> tuple[IntArray, FloatArray]:
    """Find the largest award of each offer whose call may run in each interval.

    Parameters
    ----------
    offers
        What is offered.
    reserved
        (t, k) Power held ready.
    interval_hours
        Length of an interval [h].
    least
        An award of no more is none, and one that is larger by no more than a later one is no larger.

    Returns
    -------
    since
        (t, k) How many intervals earlier that award was made; -1 where there is none.
    largest
        (t, k) That award, in the unit of `reserved`; 0 where there is none.
    """
    lasts = offers.lasts(interval_hours)
    largest = np.where(reserved > least, reserved, 0.0)
    since = np.where(reserved > least, 0, -1)
    for lag in range(1, min(int(lasts.max(initial=1)), len(reserved))):
        earlier = np.zeros_like(largest)
        earlier[lag:] = np.where(lasts > lag, reserved[:-lag], 0.0)
        is_larger = earlier > largest + least
        since[is_larger], largest[is_larger] = lag, earlier[is_larger]
    return since, largest


def every_call(
    offers: ServiceOffers,
    reserved: FloatArray,
    interval_hours: float,
    least: float = 0.0,
    held: CalledStates | None = None,
) -> CalledStates:
    """Calls of all of a service, of all of a capacity with all of a VAR service, and of each award alone.

    What is called of an offer is the largest of its awards whose call may run.  A call of all of a service is of all
    its offers: as awards come and go from clearing to clearing it stays the same.  Those without an award are called as
    early as any.  Of calls of the same awards there is one.

    Parameters
    ----------
    offers
        What is offered.
    reserved
        (t, k) Power held ready.
    interval_hours
        Length of an interval [h].
    least
        An award of no more is not called alone.
    held
        Calls that are left out, and those of the same awards; default: none.
    """
    since, _ = running_since(offers, reserved, interval_hours, least)
    whole = {service: offers.service == service for service in SERVICES}
    pairs = [whole[capacity] | whole[var] for capacity in (CAPACITY_UP, CAPACITY_DOWN) for var in (VAR_UP, VAR_DOWN)]
    calls = np.array([*whole.values(), *pairs, *np.eye(len(offers), dtype=bool)])
    interval, number = np.divmod(np.arange(len(since) * len(calls)), len(calls))
    known = set() if held is None else set(_keys(held, reserved, least))
    lag = _lags(offers, interval, calls[number], since, interval_hours)
    every = CalledStates(interval, calls[number], lag)
    new = []
    for place, key in enumerate(_keys(every, reserved, least)):
        if key is not None and key not in known:
            known.add(key)
            new.append(place)
    return every.only(np.array(new, dtype=np.int64))


def _lags(
    offers: ServiceOffers, interval: IntArray, calls: npt.NDArray[np.bool_], since: IntArray, interval_hours: float
) -> IntArray:
    """(s, k) How many intervals earlier what is called was awarded."""
    running = np.where(calls, since[interval], -1)
    earliest = np.maximum(running.max(axis=1, initial=0), 0)
    longest = np.minimum(offers.lasts(interval_hours) - 1, interval[:, None])
    return np.where(calls, np.where(running >= 0, running, np.minimum(earliest[:, None], longest)), 0)


def _keys(states: CalledStates, reserved: FloatArray, least: float) -> list[tuple[int, bytes] | None]:
    """A value for each of `states`, equal for calls of the same awards in the same interval; None without any."""
    is_called = states.awards(reserved) > least
    since = np.where(is_called, states.lag, -1)
    return [
        (interval, lags.tobytes()) if (lags >= 0).any() else None
        for interval, lags in zip(states.interval.tolist(), since, strict=True)
    ]


def called_kva(
    resources: Resources, offers: ServiceOffers, called: CalledStates, reserved_kw: FloatArray
) -> ComplexArray:
    """(s, p) What the calls of power (t, k) held ready [kW], [kvar] inject at the ports in each of `called`."""
    unit = np.where(offers.is_reactive, 1j, 1.0) * offers.direction
    return np.asarray((called.awards(reserved_kw) * unit) @ resources.share[offers.resource])


def call_name(
    resources: Resources,
    offers: ServiceOffers,
    called: CalledStates,
    state: int,
    among: npt.NDArray[np.bool_] | None = None,
    *,
    with_names: bool = True,
) -> str:
    """What is called in a `state` of `called`, for people.

    ``capacity_up of battery 7``, ``capacity_up`` for all of the (k,) offers `among`, and ``capacity_up since interval
    3`` where the award is one of an earlier interval; without names ``capacity_up of a called resource``.
    """
    names = []
    calls, begun = called.calls[state], called.interval[state] - called.lag[state]
    for service in SERVICES:
        own = offers.service == service
        whole = own if among is None else own & among
        chosen = calls & whole
        if chosen.any():
            some = resources.name[offers.resource[chosen]].tolist()
            shown = ", ".join(some) if with_names else "a called resource"
            name = service if (calls >= whole).all() else f"{service} of {shown}"
            starts = np.unique(begun[chosen]).tolist()
            is_now = starts == [int(called.interval[state])]
            plural = "intervals" if len(starts) > 1 else "interval"
            names.append(name if is_now else f"{name} since {plural} {', '.join(map(str, starts))}")
    return " and ".join(names)
