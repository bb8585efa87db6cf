"""Can what is reserved be called?  Another program's power flow of every call answers.

Called are each award alone, all awards of a service, and all of a capacity with all of a VAR service, each in full, in
every interval that a call may last.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from dlmp.bids import reactive_share
from dlmp.calls import CalledStates, call_name, called_kva, every_call, running_since
from dlmp.formulation.interface import CONGESTION, UNBALANCE, VOLTAGE
from dlmp.market import MarketCase
from dlmp.network.checked import Told
from dlmp.network.independent import independent_power_flow
from dlmp.network.model import FloatArray
from dlmp.results import Awards, ServiceAwards
from dlmp.services import CAPACITY_DOWN, CAPACITY_UP, SERVICES, VAR_DOWN, VAR_UP, ranges_for_calls
from dlmp.units import BASE_KVA

LIMITED = (VOLTAGE, CONGESTION, UNBALANCE)
"""Causes of limits that the power flow is held against."""
SMALLEST_KW = 1e-5
"""An award of less is not called [kW]."""


@dataclass(frozen=True)
class CallCheck:
    """What the power flows of all calls came to.

    Parameters
    ----------
    calls
        How many there are.
    converged
        True when the program solved all of them.
    worst_violation_pu, worst
        Largest violation of a voltage, of a rating (as a share of it) or of the limit of voltage unbalance [pu], and
        where and in which call; 0 and "" when all hold.
    """

    calls: int
    converged: bool
    worst_violation_pu: float
    worst: str


def check_calls(case: MarketCase, awards: Awards, services: ServiceAwards, told: Mapping[str, Told]) -> CallCheck:
    """Solve the power flow of every call of what is reserved.

    Parameters
    ----------
    case, awards, services
        What was cleared.
    told
        How far the limits of each cause of `LIMITED` are told to be broken, by interval; they may be, in any call.

    Raises
    ------
    InputError
        When no other program knows the network.
    """
    offers, hours, reserved_kw = case.service_offers, case.horizon.interval_hours, services.reserved_kw
    calls = every_call(offers, reserved_kw, hours, SMALLEST_KW)
    awarded = running_since(offers, reserved_kw, hours, SMALLEST_KW)[0] >= 0
    if not len(calls):
        return CallCheck(0, True, 0.0, "")
    law_kva = case.law_pu[calls.interval] * BASE_KVA
    more_kva = called_kva(case.resources, offers, calls, reserved_kw)
    flow = independent_power_flow(case.network, awards.injection_kva()[calls.interval] + more_kva, law_kva)
    names = [
        f"interval {interval}, {call_name(case.resources, offers, calls, state, awarded[interval])} called"
        for state, interval in enumerate(calls.interval.tolist())
    ]
    flow = replace(flow, state_name=tuple(names))
    voltage, congestion, unbalance = (_by_state(told[cause], calls) for cause in LIMITED)
    percent, where = flow.worst_loading(congestion)
    overload = (percent / 100 - 1, where) if percent > 100 else (0.0, "")
    worst = max(flow.worst_voltage(voltage), overload, flow.worst_unbalance(unbalance), key=lambda found: found[0])
    return CallCheck(len(calls), flow.converged, *worst)


def _by_state(told: Told, calls: CalledStates) -> Told:
    """What is `told` by interval, by state of `calls`."""
    return {
        (name, state): amount
        for (name, interval), amount in told.items()
        for state in np.flatnonzero(calls.interval == interval).tolist()
    }


def called_excess(case: MarketCase, awards: Awards, services: ServiceAwards) -> list[FloatArray]:
    """How far each reserve exceeds its offer, and each resource while called its range, bids and rating [kW]."""
    resources, offers = case.resources, case.service_offers
    _, running_kw = running_since(offers, services.reserved_kw, case.horizon.interval_hours)
    reach = {}
    for service in SERVICES:
        own = offers.service == service
        reach[service] = np.zeros(awards.net_injection_kw.shape)
        reach[service][:, offers.resource[own]] = running_kw[:, own]
    p_kw, q_kvar = awards.net_injection_kw, awards.q_kvar
    high, low = p_kw + reach[CAPACITY_UP], p_kw - reach[CAPACITY_DOWN]
    most, least = q_kvar + reach[VAR_UP], q_kvar - reach[VAR_DOWN]
    top, bottom = ranges_for_calls(resources, case.bids, case.stores)
    of_bids = np.zeros_like(p_kw)
    np.add.at(of_bids.T, case.bids.resource, np.where(case.bids.is_supply, awards.segment_kw, -awards.segment_kw).T)
    of_bids[:, case.stores.resource] = p_kw[:, case.stores.resource]
    share = reactive_share(resources)
    limited = np.flatnonzero(np.isfinite(share))
    return [
        -services.reserved_kw,
        services.reserved_kw - offers.quantity_kw,
        high - resources.p_max_kw,
        resources.p_min_kw - low,
        of_bids + reach[CAPACITY_UP] - top,
        bottom - (of_bids - reach[CAPACITY_DOWN]),
        most - resources.q_max_kvar,
        resources.q_min_kvar - least,
        *(np.hypot(p, q) - resources.s_max_kva for p in (low, high) for q in (least, most)),
        *(np.abs(q[:, limited]) - share[limited] * np.abs(p[:, limited]) for p in (low, high) for q in (least, most)),
    ]
