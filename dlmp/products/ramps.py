"""Ramps: how far injections may change from interval to interval, as Pyomo rules.

The limits are those of `dlmp.ramps`.
"""

import numpy as np
import pyomo.environ as pyo

from dlmp.market import MarketCase
from dlmp.network.model import FloatArray
from dlmp.ramps import ramp_limited
from dlmp.units import BASE_KVA

RISE, FALL = "injection_rises_within_ramp", "injection_falls_within_ramp"
"""Rules whose bounds differ in the first interval: see `ramp_bounds`."""


def has_ramps(case: MarketCase) -> bool:
    """True where a ramp couples the intervals of `case`."""
    return any(len(limited) for limited in ramp_limited(case.resources, case.horizon.interval_minutes))


def ramp_bounds(case: MarketCase) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Lower and upper bounds [pu] of the rules, (t, k) each.

    In the first interval they begin at the power before it; where that is free, where they never bind.
    """
    resources, minutes = case.resources, case.horizon.interval_minutes
    rising, falling = ramp_limited(resources, minutes)
    shape, initial = len(resources.p_max_kw), resources.p_initial_kw
    rise = np.tile(resources.ramp_up_kw_per_min[rising] * minutes, (shape, 1))
    fall = np.tile(-resources.ramp_down_kw_per_min[falling] * minutes, (shape, 1))
    rise[0] += np.where(np.isnan(initial), resources.p_max_kw[0], initial)[rising]
    fall[0] += np.where(np.isnan(initial), resources.p_min_kw, initial)[falling]
    return {
        RISE: (np.full_like(rise, -np.inf), rise / BASE_KVA),
        FALL: (fall / BASE_KVA, np.full_like(fall, np.inf)),
    }


def declare_ramps(model: pyo.ConcreteModel, case: MarketCase) -> None:
    """Add the ramps of `case` over ``model.INTERVALS``, which follow each other, to `model` with its injections."""
    rising, falling = (part.tolist() for part in ramp_limited(case.resources, case.horizon.interval_minutes))
    bounds, first = ramp_bounds(case), model.INTERVALS.first()
    most = {r: bounds[RISE][1][:, k] for k, r in enumerate(rising)}
    least = {r: bounds[FALL][0][:, k] for k, r in enumerate(falling)}

    @model.Constraint(model.INTERVALS, rising)
    def injection_rises_within_ramp(m, t, r):
        return m.p[t, r] - (m.p[t - 1, r] if t != first else 0.0) <= most[r][t]

    @model.Constraint(model.INTERVALS, falling)
    def injection_falls_within_ramp(m, t, r):
        return m.p[t, r] - (m.p[t - 1, r] if t != first else 0.0) >= least[r][t]
