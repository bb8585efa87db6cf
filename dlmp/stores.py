"""Resources that hold energy from one interval to the next, as arrays over stores and intervals.

A battery, a vehicle that must be charged by a deadline and a load that may be shifted within a band of energy are one
thing to a market, a *generalised battery* (Hao, Sanandaji, Poolla and Vincent, IEEE Trans. Power Systems 30(1), 2015):

    energy[t] = retention^h energy[t - 1] + h (efficiency_in charge[t] - discharge[t] / efficiency_out - drain[t])

with ``h`` the hours of an interval, the energy at the end of interval t within its band, and
``discharge - charge`` the injection of the resource into the grid.
"""

from dataclasses import dataclass

import numpy as np

from dlmp.bids import Bids, Resources, freeze_arrays
from dlmp.errors import Problems
from dlmp.network.model import FloatArray, IntArray
from dlmp.units import PRICE_REMEDY, is_price

POWER_SLACK_KW, ENERGY_SLACK_KWH = 1e-9, 1e-9

PROFILED = ("charge_max_kw", "discharge_max_kw", "energy_min_kwh", "energy_max_kwh", "drain_kw")
"""What may differ from interval to interval."""


@dataclass(frozen=True, eq=False)
class Stores:
    """k stores over t intervals.

    Parameters
    ----------
    resource
        (k,) Index of the resource that each is; a resource with a store has no bids.
    charge_max_kw, discharge_max_kw
        (t, k) Largest power from and into the grid [kW]; 0 while it is away.
    energy_min_kwh, energy_max_kwh
        (t, k) Band of the energy at the end of each interval [kWh].
    initial_kwh
        (k,) Energy at the beginning [kWh].
    charge_efficiency, discharge_efficiency
        (k,) One-way efficiencies, above 0 and at most 1.
    retention
        (k,) Share of the energy that is left after an hour at rest, above 0 and at most 1.
    drain_kw
        (t, k) Power that leaves the store for its own use, driving or warmth [kW].
    cycling_usd_per_mwh
        (k,) Cost of discharging, on the grid's side [currency/MWh].
    shortfall_usd_per_mwh
        (k,) What each interval's energy below `energy_min_kwh` costs [currency/MWh]; infinite where it must be kept.
    final_usd_per_mwh
        (k,) What the energy at the end of the horizon is worth [currency/MWh].
    """

    resource: IntArray
    charge_max_kw: FloatArray
    discharge_max_kw: FloatArray
    energy_min_kwh: FloatArray
    energy_max_kwh: FloatArray
    initial_kwh: FloatArray
    charge_efficiency: FloatArray
    discharge_efficiency: FloatArray
    retention: FloatArray
    drain_kw: FloatArray
    cycling_usd_per_mwh: FloatArray
    shortfall_usd_per_mwh: FloatArray
    final_usd_per_mwh: FloatArray

    def __post_init__(self) -> None:
        freeze_arrays(self)

    def __len__(self) -> int:
        return len(self.resource)


def no_stores(intervals: int) -> Stores:
    """Return an empty table."""
    none, by_interval = np.zeros(0), np.zeros((intervals, 0))
    return Stores(
        resource=np.zeros(0, dtype=np.int64),
        charge_max_kw=by_interval,
        discharge_max_kw=by_interval,
        energy_min_kwh=by_interval,
        energy_max_kwh=by_interval,
        initial_kwh=none,
        charge_efficiency=none,
        discharge_efficiency=none,
        retention=none,
        drain_kw=by_interval,
        cycling_usd_per_mwh=none,
        shortfall_usd_per_mwh=none,
        final_usd_per_mwh=none,
    )


NO_STORES = no_stores(0)
"""None, for a horizon of any length."""


def check_stores(stores: Stores, resources: Resources, bids: Bids, interval_hours: float, problems: Problems) -> None:
    """Add to `problems` everything that is wrong with `stores`, whose arrays have the right shapes."""
    outside = (stores.resource < 0) | (stores.resource >= len(resources))
    for row in np.flatnonzero(outside):
        problems.add(f"store {row}", "resource", int(stores.resource[row]), "is no resource of the case")
    if outside.any():
        return
    for index, resource in enumerate(stores.resource.tolist()):
        element = f"store of {resources.name[resource]}"
        if (stores.resource[:index] == resource).any():
            problems.add(element, "resource", str(resources.name[resource]), "stands more than once; one store each")
        if (bids.resource == resource).any():
            problems.add(
                element, "bids", str(resources.name[resource]), "has bids too; a store is cleared by its costs"
            )
        before = len(problems.found)
        _check_numbers(stores, index, element, problems)
        _check_power(stores, resources, index, element, problems)
        _check_energy(stores, index, element, problems)
        if len(problems.found) == before:
            _check_reach(stores, index, interval_hours, element, problems)


def _check_numbers(stores: Stores, index: int, element: str, problems: Problems) -> None:
    for field in ("charge_efficiency", "discharge_efficiency", "retention"):
        value = float(getattr(stores, field)[index])
        if not 0 < value <= 1:
            problems.add(element, field, value, "must be above 0 and at most 1")
    initial, cycling, final, shortfall = (
        float(getattr(stores, field)[index])
        for field in ("initial_kwh", "cycling_usd_per_mwh", "final_usd_per_mwh", "shortfall_usd_per_mwh")
    )
    if not (np.isfinite(initial) and initial >= 0):
        problems.add(element, "initial_kwh", initial, "must be finite and >= 0")
    if not (is_price(cycling) and cycling >= 0):
        problems.add(element, "cycling_usd_per_mwh", cycling, f"{PRICE_REMEDY}, and >= 0")
    if not is_price(final):
        problems.add(element, "final_usd_per_mwh", final, PRICE_REMEDY)
    if not (shortfall > 0 and (is_price(shortfall) or np.isinf(shortfall))):
        remedy = "must be above zero and at most 1e9; leave it blank where none is allowed"
        problems.add(element, "shortfall_usd_per_mwh", shortfall, remedy)


def _check_power(stores: Stores, resources: Resources, index: int, element: str, problems: Problems) -> None:
    resource = int(stores.resource[index])
    for field, most in (
        ("charge_max_kw", np.full(len(stores.drain_kw), -resources.p_min_kw[resource])),
        ("discharge_max_kw", resources.p_max_kw[:, resource]),
    ):
        value = getattr(stores, field)[:, index]
        for interval in np.flatnonzero(~(np.isfinite(value) & (value >= 0)))[:1]:
            problems.add(f"{element}, interval {interval}", field, float(value[interval]), "must be finite and >= 0")
        for interval in np.flatnonzero(value > most + POWER_SLACK_KW)[:1]:
            remedy = f"is beyond the range of the resource, {most[interval]:g} kW; widen p_min_kw, p_max_kw"
            problems.add(f"{element}, interval {interval}", field, float(value[interval]), remedy)
    drain = stores.drain_kw[:, index]
    for interval in np.flatnonzero(~np.isfinite(drain))[:1]:
        problems.add(f"{element}, interval {interval}", "drain_kw", float(drain[interval]), "must be finite")


def _check_energy(stores: Stores, index: int, element: str, problems: Problems) -> None:
    low, high = stores.energy_min_kwh[:, index], stores.energy_max_kwh[:, index]
    bad = ~(np.isfinite(low) & np.isfinite(high) & (low >= 0) & (low <= high))
    for interval in np.flatnonzero(bad)[:1]:
        band = (float(low[interval]), float(high[interval]))
        remedy = "must be finite with 0 <= energy_min_kwh <= energy_max_kwh"
        problems.add(f"{element}, interval {interval}", "energy_min_kwh, energy_max_kwh", band, remedy)


def _check_reach(stores: Stores, index: int, hours: float, element: str, problems: Problems) -> None:
    """Check that power enough to keep the band of energy can flow, whatever else the market does."""
    broken = out_of_reach(stores, index, hours)
    if broken is None:
        return
    where = f"{element}, interval {broken.interval}"
    if broken.field == "energy_min_kwh":
        remedy = f"cannot be reached: at most {broken.reached_kwh:g} kWh can be there; lower it, raise charge_max_kw"
        problems.add(where, broken.field, broken.bound_kwh, f"{remedy} or give a shortfall_usd_per_mwh")
    else:
        remedy = f"cannot be kept: at least {broken.reached_kwh:g} kWh will be there; raise it or discharge_max_kw"
        problems.add(where, broken.field, broken.bound_kwh, remedy)


@dataclass(frozen=True)
class OutOfReach:
    """An end of the band of energy, ``energy_min_kwh`` or ``energy_max_kwh``, that no dispatch keeps.

    `reached_kwh` is the energy [kWh] that comes nearest to its `bound_kwh` at the end of `interval`.
    """

    interval: int
    field: str
    bound_kwh: float
    reached_kwh: float


def out_of_reach(stores: Stores, index: int, hours: float) -> OutOfReach | None:
    """First end of the band of energy of a store that its powers cannot keep over intervals of so many `hours`."""
    kept = stores.retention[index] ** hours
    low = high = float(stores.initial_kwh[index])
    is_firm = np.isinf(stores.shortfall_usd_per_mwh[index])
    for interval in range(len(stores.drain_kw)):
        rest = hours * stores.drain_kw[interval, index]
        gained = hours * stores.charge_efficiency[index] * stores.charge_max_kw[interval, index]
        given = hours * stores.discharge_max_kw[interval, index] / stores.discharge_efficiency[index]
        low, high = kept * low - rest - given, kept * high - rest + gained
        least = float(stores.energy_min_kwh[interval, index]) if is_firm else 0.0
        most = float(stores.energy_max_kwh[interval, index])
        if high < least - ENERGY_SLACK_KWH:
            return OutOfReach(interval, "energy_min_kwh", least, high)
        if low > most + ENERGY_SLACK_KWH:
            return OutOfReach(interval, "energy_max_kwh", most, low)
        low, high = max(low, least), min(high, most)
    return None
