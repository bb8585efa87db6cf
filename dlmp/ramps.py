"""How fast resources may change their power from one interval to the next.

    p[t] - p[t - 1] <= ramp_up * minutes,        p[t - 1] - p[t] <= ramp_down * minutes

with ``minutes`` the length of an interval, p the mean power of an interval, and ``p[-1]`` the power before the
horizon; where that is not known, the first interval is free.
"""

import numpy as np

from dlmp.bids import Bids, Resources, injection_range
from dlmp.errors import Problems
from dlmp.network.model import FloatArray, IntArray
from dlmp.stores import Stores

REACH_SLACK_KW = 1e-9


def ramp_limited(resources: Resources, interval_minutes: int) -> tuple[IntArray, IntArray]:
    """Resources whose range is wider than they can rise, and those than they can fall, in an interval."""
    highest = resources.p_max_kw.max(axis=0, initial=-np.inf)
    lowest = resources.p_min_kw
    rise = highest - np.fmin(lowest, resources.p_initial_kw)
    fall = np.fmax(highest, resources.p_initial_kw) - lowest
    return (
        np.flatnonzero(resources.ramp_up_kw_per_min * interval_minutes < rise),
        np.flatnonzero(resources.ramp_down_kw_per_min * interval_minutes < fall),
    )


def ramp_excess(resources: Resources, injection_kw: FloatArray, interval_minutes: int) -> FloatArray:
    """By how much injections (t, r) [kW] change faster than they may, (t, r) [kW]; negative where they do not."""
    before = np.vstack([resources.p_initial_kw, injection_kw[:-1]])
    change = injection_kw - np.where(np.isnan(before), injection_kw, before)
    up, down = resources.ramp_up_kw_per_min, resources.ramp_down_kw_per_min
    return np.maximum(change - up * interval_minutes, -change - down * interval_minutes)


def check_ramps(resources: Resources, bids: Bids, stores: Stores, interval_minutes: float, problems: Problems) -> None:
    """Add to `problems` the resources that cannot follow their own ranges at their ramps.

    What can be reached in an interval is what was reached before it, widened by the ramps, within its own range.
    """
    low, high = injection_range(resources, bids)
    low[:, stores.resource], high[:, stores.resource] = -stores.charge_max_kw, stores.discharge_max_kw
    for index in np.unique(np.concatenate(ramp_limited(resources, int(interval_minutes)))):
        up = resources.ramp_up_kw_per_min[index] * interval_minutes
        down = resources.ramp_down_kw_per_min[index] * interval_minutes
        initial = resources.p_initial_kw[index]
        least, most = (-np.inf, np.inf) if np.isnan(initial) else (initial, initial)
        for interval, (lowest, highest) in enumerate(zip(low[:, index], high[:, index], strict=True)):
            where = f"resource {resources.name[index]}, interval {interval}"
            if most + up < lowest - REACH_SLACK_KW:
                remedy = f"must inject {lowest:g} kW and can be at {most + up:g} kW at most; raise it or p_initial_kw"
                problems.add(where, "ramp_up_kw_per_min", float(resources.ramp_up_kw_per_min[index]), remedy)
                break
            if least - down > highest + REACH_SLACK_KW:
                remedy = f"may inject {highest:g} kW and can be at {least - down:g} kW at least; raise it or its range"
                problems.add(where, "ramp_down_kw_per_min", float(resources.ramp_down_kw_per_min[index]), remedy)
                break
            least, most = max(least - down, lowest), min(most + up, highest)
