"""Real and reactive power of a resource together: its rating and its least power factor, as Pyomo rules."""

import numpy as np
import pyomo.environ as pyo

from dlmp.bids import power_sign, reactive_share
from dlmp.market import MarketCase
from dlmp.products.services import called_reach
from dlmp.units import BASE_KVA


def declare_capability(model: pyo.ConcreteModel, case: MarketCase, circle_sides: int) -> None:
    """Add the capability of the resources of `case` to `model`, which has their injections and their services.

    The circle of a rating is a polygon of `circle_sides` inscribed in it.  It holds whatever is called.
    """
    resources = case.resources
    rated = np.flatnonzero(np.isfinite(resources.s_max_kva)).tolist()
    angle = 2 * np.pi * np.arange(circle_sides) / circle_sides
    inscribed = resources.s_max_kva / BASE_KVA * np.cos(np.pi / circle_sides)

    @model.Constraint(model.INTERVALS, rated, range(circle_sides))
    def apparent_power_within_rating(m, t, r, k):
        called = called_reach(m, case, t, r, np.cos(angle[k]), np.sin(angle[k]))
        return np.cos(angle[k]) * m.p[t, r] + np.sin(angle[k]) * m.q[t, r] + called <= inscribed[r]

    in_a_cone = np.flatnonzero(resources.power_factor_min > 0)
    share, sign = reactive_share(resources)[in_a_cone], power_sign(resources)[in_a_cone]
    slope = dict(zip(in_a_cone.tolist(), (share * sign).tolist(), strict=True))

    @model.Constraint(model.INTERVALS, list(slope), [-1, 1])
    def reactive_power_within_power_factor(m, t, r, side):
        called = called_reach(m, case, t, r, -slope[r], side)
        return side * m.q[t, r] - slope[r] * m.p[t, r] + called <= 0.0
