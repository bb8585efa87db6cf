"""How much load a feeder serves within all its limits: with its resources dispatched, and with each left to itself.

The *effective capacity* of a feeder's resources is what their dispatch adds to the load that it can serve: the largest
added load with dispatch, less the largest without.  What is added is the same power in every interval, as a larger
wire would carry it, and stands where load stands already, in proportion to each place's own peak and at the power
factor of all of it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from dlmp.bids import Bids
from dlmp.blocks import NO_BLOCKS
from dlmp.clearing import CONVERGED, Clearing, clear
from dlmp.errors import InputError, PowerFlowError, Problem
from dlmp.market import MarketCase
from dlmp.network.model import FloatArray
from dlmp.reactive import NO_REACTIVE_BIDS
from dlmp.services import NO_OFFERS, NO_REQUIREMENTS
from dlmp.stores import NO_STORES
from dlmp.units import KW_PER_MW

WEATHER_KINDS = ("solar", "wind")
"""What injects all that it has when nobody asks it for less."""
STEP_SHARE, PRECISION_SHARE = 1 / 8, 1 / 200
"""Of the peak load: how far the search for the largest load goes at once, and how near it comes."""


def undispatched(case: MarketCase) -> MarketCase:
    """The same case with nobody dispatched: what each resource does that hears of no price.

    Sun and wind inject what is available; a resource runs at what it self-schedules and must run at least; a store
    charges as soon as it may up to the most that it must still hold, as a car does that is plugged in, and a battery
    rests.  Nothing gives reactive power, and services and blocks are neither offered nor required.
    """
    resources = case.resources
    schedule_kw = np.clip(_self_scheduled_kw(case), resources.p_min_kw, resources.p_max_kw)
    by_weather = np.isin(resources.kind, WEATHER_KINDS)
    schedule_kw[:, by_weather] = resources.p_max_kw[:, by_weather]
    schedule_kw[:, case.stores.resource] = -_charge_at_once_kw(case)
    count = len(resources)
    return replace(
        case,
        resources=replace(
            resources,
            q_min_kvar=np.clip(0.0, resources.q_min_kvar, resources.q_max_kvar),
            q_max_kvar=np.clip(0.0, resources.q_min_kvar, resources.q_max_kvar),
            ramp_up_kw_per_min=np.full(count, np.inf),
            ramp_down_kw_per_min=np.full(count, np.inf),
        ),
        bids=Bids(
            resource=np.tile(np.arange(count), 2),
            is_supply=np.repeat([True, False], count),
            segment=np.zeros(2 * count, dtype=np.int64),
            quantity_kw=np.hstack([np.maximum(schedule_kw, 0.0), np.maximum(-schedule_kw, 0.0)]),
            price_usd_per_mwh=np.zeros((len(schedule_kw), 2 * count)),
            is_self_scheduled=np.ones((len(schedule_kw), 2 * count), dtype=bool),
        ),
        stores=NO_STORES,
        service_offers=NO_OFFERS,
        requirements=NO_REQUIREMENTS,
        reactive_bids=NO_REACTIVE_BIDS,
        blocks=NO_BLOCKS,
    )


def _self_scheduled_kw(case: MarketCase) -> FloatArray:
    """(t, r) Net injection that is self-scheduled [kW]."""
    bids, total = case.bids, np.zeros(case.resources.p_max_kw.shape)
    sign = np.where(bids.is_supply, 1.0, -1.0)
    np.add.at(total.T, bids.resource, np.where(bids.is_self_scheduled, sign * bids.quantity_kw, 0.0).T)
    return total


def _charge_at_once_kw(case: MarketCase) -> FloatArray:
    """(t, k) Power of stores that charge as soon as they may up to the most that they must still hold [kW]."""
    stores, hours = case.stores, case.horizon.interval_hours
    must_hold_kwh = np.maximum.accumulate(stores.energy_min_kwh[::-1])[::-1]
    charge_kw, energy_kwh = np.zeros(must_hold_kwh.shape), stores.initial_kwh
    for interval, wanted_kwh in enumerate(must_hold_kwh):
        left_kwh = stores.retention**hours * energy_kwh - hours * stores.drain_kw[interval]
        lacking_kw = np.maximum(wanted_kwh - left_kwh, 0.0) / (hours * stores.charge_efficiency)
        charge_kw[interval] = np.minimum(lacking_kw, stores.charge_max_kw[interval])
        energy_kwh = left_kwh + hours * stores.charge_efficiency * charge_kw[interval]
    return charge_kw


def with_more_load(case: MarketCase, more_kw: float) -> MarketCase:
    """The same case with `more_kw` of load in every interval, a negative number with less; see the module.

    Raises
    ------
    InputError
        When there is no load to add to.
    """
    peak_kw = peak_load_kw(case)
    if peak_kw <= 0:
        raise InputError([Problem("load", "p_kw", peak_kw, "the feeder has no load: there is nothing to add to")])
    factor = np.where(case.load_p_kw > 0, 1 + more_kw / peak_kw, 1.0)
    return replace(case, load_p_kw=case.load_p_kw * factor, load_q_kvar=case.load_q_kvar * factor)


def peak_load_kw(case: MarketCase) -> float:
    """Highest load of any interval [kW], without what resources consume."""
    return float(np.maximum(case.load_p_kw, 0.0).sum(axis=1).max())


def keeps_limits(clearing: Clearing) -> bool:
    """True when a clearing breaks no limit, and an independent AC power flow at its awards says so too."""
    holds = clearing.status == CONVERGED and not len(clearing.broken_limits())
    return holds and clearing.certificate.is_feasible


@dataclass(frozen=True)
class LargestLoad:
    """How much load can be added within all limits, found to `PRECISION_SHARE` of the peak.

    Parameters
    ----------
    more_kw
        The largest added load that was seen to hold [kW]; negative where load must go.
    fails_kw
        The least that was seen to break a limit [kW].
    holds
        The clearing at `more_kw`.
    checked
        How many added loads were cleared; each that holds was checked by an AC power flow.
    """

    more_kw: float
    fails_kw: float
    holds: Clearing
    checked: int

    @property
    def more_mw(self) -> float:
        """The largest added load [MW]."""
        return self.more_kw / KW_PER_MW


def largest_load(
    case: MarketCase, guess_kw: float = 0.0, progress: Callable[[float], None] | None = None
) -> LargestLoad:
    """Find the largest load that can be added to `case` with all limits kept, by bisection from a guess.

    More load is taken to be harder to serve throughout: what is looked for lies above a load that holds and below one
    that does not.

    Parameters
    ----------
    case
        What to add to.
    guess_kw
        Where to begin [kW].
    progress
        Called with each load that is added [kW]; default: silent.

    Raises
    ------
    InputError
        When limits are broken without any load, too.
    """
    peak_kw = peak_load_kw(case)
    holding: dict[float, Clearing] = {}
    failing: set[float] = set()

    def holds(more_kw: float) -> bool:
        if progress is not None:
            progress(more_kw)
        try:
            clearing = clear(with_more_load(case, more_kw))
        except PowerFlowError:
            failing.add(more_kw)
            return False
        if keeps_limits(clearing):
            holding[more_kw] = clearing
        else:
            failing.add(more_kw)
        return more_kw in holding

    step_kw = peak_kw * (STEP_SHARE if holds(guess_kw) else -STEP_SHARE)
    while not (holding and failing):
        edge_kw = max(holding) if holding else min(failing)
        if edge_kw <= -peak_kw:
            message = "limits are broken whatever load is taken away: there is no largest load"
            raise InputError([Problem("capacity", "load", edge_kw, message)])
        holds(max(edge_kw + step_kw, -peak_kw))
    while min(failing) - max(holding) > PRECISION_SHARE * peak_kw:
        holds((max(holding) + min(failing)) / 2)
    more_kw = max(holding)
    return LargestLoad(more_kw, min(failing), holding[more_kw], len(holding) + len(failing))
