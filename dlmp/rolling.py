"""A day that is cleared again as its forecasts change: what has begun is binding, the rest is planned anew.

`reclear` takes a day that is cleared to its end, and clears its intervals from a given one with another forecast of
loads, prices, availability, bids or stores.  Stores go on with the energy that the binding awards have left in them, or
with what was metered; their worth at the end, and their deadlines, stay at the end of the day.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from dlmp.bids import BID_PROFILES, Bids
from dlmp.clearing import CONVERGED, Clearing, clear
from dlmp.dispatch import PassReport
from dlmp.errors import InfeasibleError, InputError, Problem, Problems
from dlmp.market import MarketCase, Substation
from dlmp.network.model import FloatArray
from dlmp.reactive import REACTIVE_PROFILES, ReactiveBids
from dlmp.services import OFFER_PROFILES
from dlmp.settings import Settings
from dlmp.stores import PROFILED
from dlmp.uplift import Uplift, as_bid_cost, import_cost, service_payment, uplift

Curved = TypeVar("Curved", Bids, ReactiveBids)

LASTING = (
    "kind",
    "p_min_kw",
    "q_min_kvar",
    "q_max_kvar",
    "s_max_kva",
    "ramp_up_kw_per_min",
    "ramp_down_kw_per_min",
    "power_factor_min",
)
"""Arrays of resources that a new forecast leaves as they are."""
LASTING_OF_STORES = (
    "resource",
    "charge_efficiency",
    "discharge_efficiency",
    "retention",
    "cycling_usd_per_mwh",
    "shortfall_usd_per_mwh",
    "final_usd_per_mwh",
)
"""Those of stores."""
LASTING_OF_OFFERS = ("resource", "service", "duration_hours")
"""Those of offers of services."""


@dataclass(frozen=True, eq=False)
class Step:
    """A clearing of the day from an interval to its end.

    Parameters
    ----------
    first_interval
        Interval of the day that is the clearing's interval 0.
    clearing
        The clearing; it holds until the next step begins.
    """

    first_interval: int
    clearing: Clearing


@dataclass(frozen=True, eq=False)
class RollingDay:
    """A day cleared step by step.

    Parameters
    ----------
    case
        The day as it was cleared: each interval with the forecast of the step that holds there.  What a meter found
        missing in a store is drained in the interval from which it was known.
    steps
        The clearings, from that of the whole day on.
    """

    case: MarketCase = field(repr=False)
    steps: tuple[Step, ...]

    @classmethod
    def begin(cls, clearing: Clearing) -> "RollingDay":
        """A day of which the whole has been cleared once."""
        return cls(clearing.case, (Step(0, clearing),))

    @property
    def first_interval(self) -> int:
        """First interval of the newest plan; those before are binding."""
        return self.steps[-1].first_interval

    @property
    def clearing(self) -> Clearing:
        """The newest clearing, of the rest of the day."""
        return self.steps[-1].clearing

    @property
    def objective(self) -> float:
        """Total cost of the day: of what is binding and of the newest plan [currency].

        As that of a `Clearing` it is import, as-bid costs and penalties; the last are no cost of any resource.
        """
        costs = (import_cost, as_bid_cost, Clearing.penalties)
        return float(sum(self.over_day(cost).sum() for cost in costs))

    @cached_property
    def uplift(self) -> Uplift:
        """What each resource needs on top of the binding prices, to lose nothing by following the dispatch."""
        return uplift(
            self.case,
            cost_usd=self.over_day(as_bid_cost).sum(axis=0),
            net_injection_kw=self.over_day(lambda clearing: clearing.awards.net_injection_kw),
            q_kvar=self.over_day(lambda clearing: clearing.awards.q_kvar),
            lmp_usd_per_mwh=self.over_day(lambda clearing: clearing.awards.lmp_usd_per_mwh),
            lmp_q_usd_per_mvarh=self.over_day(lambda clearing: clearing.awards.lmp_q_usd_per_mvarh),
            service_usd=self.over_day(service_payment).sum(axis=0),
            circle_sides=self.clearing.settings.circle_sides,
        )

    def over_day(self, of: Callable[[Clearing], FloatArray]) -> FloatArray:
        """Join arrays (t, ...) of the clearings, each where it holds."""
        return np.concatenate([of(step.clearing)[: self._length(index)] for index, step in enumerate(self.steps)])

    def table(self, of: Callable[[Clearing], pd.DataFrame]) -> pd.DataFrame:
        """Join tables with a column ``interval`` of the clearings, each where it holds.

        ``interval`` is then that of the day, and ``cleared_from`` the first interval of the clearing.
        """
        parts = []
        for index, step in enumerate(self.steps):
            part = of(step.clearing)
            part = part[part.interval < self._length(index)]
            part = part.assign(interval=part.interval + step.first_interval)
            part.insert(part.columns.tolist().index("interval") + 1, "cleared_from", step.first_interval)
            parts.append(part)
        return pd.concat(parts, ignore_index=True)

    def summary(self) -> dict[str, object]:
        """Return the figures of `summary.json`."""
        steps = [
            {
                "first_interval": step.first_interval,
                "status": step.clearing.status,
                "objective": step.clearing.objective,
            }
            for step in self.steps
        ]
        return {
            "name": self.case.name,
            "objective": self.objective,
            "currency": self.case.horizon.currency,
            "intervals": self.case.horizon.intervals,
            "uplift": float(self.uplift.uplift_usd.sum()),
            "steps": steps,
        }

    def _length(self, index: int) -> int:
        """Intervals in which a step holds."""
        ends = [step.first_interval for step in self.steps[1:]] + [self.case.horizon.intervals]
        return ends[index] - self.steps[index].first_interval


def reclear(
    before: Clearing | RollingDay,
    case: MarketCase,
    first_interval: int,
    *,
    energy_kwh: Mapping[str, float] | None = None,
    settings: Settings | None = None,
    progress: Callable[[PassReport], None] | None = None,
) -> RollingDay:
    """Clear a day again from `first_interval` on; what was cleared before that is binding.

    Parameters
    ----------
    before
        The clearing of the whole day, or the day as it was rolled so far.
    case
        The whole day with the new forecast; its intervals before the first are not looked at, nor is the energy
        at its beginning.  Network places, resources, penalties and what is lasting of stores are those of `before`.
    first_interval
        Interval of the day, after that of the step before.
    energy_kwh
        Metered energy of stores at the beginning of `first_interval`, by resource [kWh]; default: what the binding
        awards leave there.
    settings
        Of this clearing; default: those of the step before.
    progress
        Called after each pass; default: silent.

    Raises
    ------
    InputError
        When `case` is of another day, or `energy_kwh` of no store.
    InfeasibleError, PowerFlowError, SolverError
        As `dlmp.clear` does.
    """
    day = before if isinstance(before, RollingDay) else RollingDay.begin(before)
    _check_step(day, case, first_interval)
    carried = _carried(day, first_interval)
    energy = _metered(case, carried, energy_kwh or {})
    power = day.over_day(lambda clearing: clearing.awards.net_injection_kw)[first_interval - 1]
    try:
        cleared = clear(
            case.at(slice(first_interval, None), energy, power), settings or day.clearing.settings, progress
        )
    except InputError as error:
        note = Problem("reclear", "first_interval", first_interval, "the other intervals named here count from it")
        raise InputError([note, *error.problems]) from error
    except InfeasibleError as error:
        found = error.conflicts
        raise InfeasibleError(replace(one, interval=one.interval + first_interval) for one in found) from error
    joined = _joined(day.case, case, first_interval, carried - energy)
    return RollingDay(joined, (*day.steps, Step(first_interval, cleared)))


def _check_step(day: RollingDay, case: MarketCase, first_interval: int) -> None:
    known, intervals, problems = day.case, day.case.horizon.intervals, Problems()
    first, last = day.first_interval + 1, intervals - 1
    if isinstance(first_interval, bool) or not isinstance(first_interval, int | np.integer):
        problems.add("reclear", "first_interval", first_interval, "must be a whole number")
    elif not first <= first_interval <= last:
        left = f"must be {first} to {last}" if first <= last else f"nothing is left to clear after interval {last}"
        remedy = f"{left}; steps go forward" if first_interval < first else left
        problems.add("reclear", "first_interval", first_interval, remedy)
    if day.clearing.status != CONVERGED:
        problems.add("reclear", "before", day.clearing.status, "the step before must have converged to be binding")
    if case.horizon != known.horizon:
        problems.add("forecast", "horizon", str(case.horizon), f"must be that of the day: {known.horizon}")
    for name in ("port_bus", "port_phase"):
        if not np.array_equal(getattr(case.network, name), getattr(known.network, name)):
            problems.add("forecast", "network", case.network.name, "must have the buses and phases of the day's")
            break
    if case.penalties != known.penalties:
        problems.add("forecast", "penalties", case.penalties, f"must be those of the day: {known.penalties}")
    if len(known.blocks) or len(case.blocks):
        problems.add(
            "reclear", "blocks", len(case.blocks), "block bids hold for a whole day, which is not cleared again"
        )
    problems.raise_if_any()
    _check_lasting(known, case, problems)
    problems.raise_if_any()


def _check_lasting(before: MarketCase, after: MarketCase, problems: Problems) -> None:
    known, new = before.resources, after.resources
    if known.name.tolist() != new.name.tolist():
        problems.add("forecast", "resources", ", ".join(new.name), "must be those of the day, in their order")
        return
    if abs(known.share - new.share).max() > 0:
        problems.add("forecast", "resources, bus", "changed", "must stand where they do in the day's first clearing")
    changes = "only loads, prices, limits, availability, bids, offers and the profiles of stores may change"
    for owner, one, two, names in (
        ("resources", known, new, LASTING),
        ("stores", before.stores, after.stores, LASTING_OF_STORES),
        ("service offers", before.service_offers, after.service_offers, LASTING_OF_OFFERS),
        ("requirements", before.requirements, after.requirements, ("name", "service", "place", "counts")),
    ):
        for name in names:
            if not np.array_equal(getattr(one, name), getattr(two, name)):
                problems.add(f"forecast, {owner}", name, getattr(two, name).tolist(), changes)


def _carried(day: RollingDay, first_interval: int) -> FloatArray:
    """(k,) Energy that the binding awards leave, without what rounding puts beyond the band [kWh]."""
    stores, last = day.case.stores, first_interval - 1
    energy = day.over_day(lambda clearing: clearing.stores.energy_kwh)[last]
    least = np.where(np.isinf(stores.shortfall_usd_per_mwh), stores.energy_min_kwh[last], 0.0)
    return np.clip(energy, least, stores.energy_max_kwh[last])


def _metered(case: MarketCase, carried: FloatArray, energy_kwh: Mapping[str, float]) -> FloatArray:
    """(k,) `carried` energy, or what was metered [kWh]."""
    energy = carried.copy()
    store_of = {name: index for index, name in enumerate(case.resources.name[case.stores.resource].tolist())}
    problems = Problems()
    for name, kwh in energy_kwh.items():
        if name not in store_of:
            problems.add(f"store of {name}", "energy_kwh", kwh, f"is no store; known: {', '.join(store_of) or 'none'}")
        elif not (np.isfinite(kwh) and kwh >= 0):
            problems.add(f"store of {name}", "energy_kwh", kwh, "must be finite and >= 0")
        else:
            energy[store_of[name]] = kwh
    problems.raise_if_any()
    return energy


def _joined(before: MarketCase, after: MarketCase, first: int, missing_kwh: FloatArray) -> MarketCase:
    """`before` until interval `first`, `after` from there on, where (k,) `missing_kwh` of the stores are drained."""

    def rows(one: FloatArray, two: FloatArray) -> FloatArray:
        return np.concatenate([one[:first], two[first:]])

    def parts(one: object, two: object, *names: str) -> dict[str, Any]:
        return {name: rows(getattr(one, name), getattr(two, name)) for name in names}

    stores, hours = after.stores, after.horizon.interval_hours
    profiles = parts(before.stores, stores, *PROFILED)
    profiles["drain_kw"][first] += missing_kwh * stores.retention**hours / hours
    return replace(
        after,
        substation=Substation(**parts(before.substation, after.substation, *vars(after.substation))),
        **parts(before, after, "load_p_kw", "load_q_kvar"),
        resources=replace(
            after.resources,
            **parts(before.resources, after.resources, "p_max_kw"),
            p_initial_kw=before.resources.p_initial_kw,
        ),
        bids=_joined_curves(before.bids, after.bids, "is_supply", BID_PROFILES, first),
        stores=replace(stores, initial_kwh=before.stores.initial_kwh, **profiles),
        reactive_bids=_joined_curves(
            before.reactive_bids, after.reactive_bids, "is_injection", REACTIVE_PROFILES, first
        ),
        service_offers=replace(
            after.service_offers, **parts(before.service_offers, after.service_offers, *OFFER_PROFILES)
        ),
        requirements=replace(after.requirements, **parts(before.requirements, after.requirements, "quantity_kw")),
    )


def _joined_curves(before: Curved, after: Curved, side: str, profiles: tuple[str, ...], first: int) -> Curved:
    """The curves of `before` until interval `first`, those of `after` from there on; segments count from 0."""
    curves = [_places_in_curve(bids, side) for bids in (before, after)]
    keys = curves[0].union(curves[1])
    joined = {}
    for name in profiles:
        like = getattr(after, name)
        joined[name] = np.zeros((len(like), len(keys)), dtype=like.dtype)
        for bids, curve, span in ((before, curves[0], slice(0, first)), (after, curves[1], slice(first, None))):
            joined[name][span, keys.get_indexer(curve)] = getattr(bids, name)[span]
    resource, is_into, segment = (keys.get_level_values(level).to_numpy() for level in range(3))
    return replace(
        after,
        resource=resource.astype(np.int64),
        segment=segment.astype(np.int64),
        **{side: is_into.astype(bool)},
        **joined,
    )


def _places_in_curve(bids: Bids | ReactiveBids, side: str) -> pd.MultiIndex:
    """Resource, side and place in its curve of every segment."""
    frame = pd.DataFrame({"resource": bids.resource, "side": getattr(bids, side), "segment": bids.segment})
    place = frame.groupby(["resource", "side"]).segment.rank(method="first").astype(np.int64) - 1
    return pd.MultiIndex.from_arrays([frame.resource, frame.side, place])
