"""Real and reactive power of a resource together: its rating and its least power factor, as Pyomo rules."""

import numpy as np
import numpy.typing as npt
import pyomo.environ as pyo

from dlmp.bids import Resources, power_sign, reactive_share
from dlmp.market import MarketCase
from dlmp.network.model import FloatArray
from dlmp.products.services import call_lags, called_reach, running_columns
from dlmp.units import BASE_KVA


def declare_capability(model: pyo.ConcreteModel, case: MarketCase, circle_sides: int) -> None:
    """Add the capability of the resources of `case` to `model`, which has their injections and their services.

    The circle of a rating is a polygon of `circle_sides` inscribed in it.  It holds whatever is called, in every
    interval in which the call may run.  Sides that the ranges of real and reactive power keep by themselves are left
    out, where nothing can be called.
    """
    resources = case.resources
    rated = np.flatnonzero(np.isfinite(resources.s_max_kva)).tolist()
    angle = 2 * np.pi * np.arange(circle_sides) / circle_sides
    inscribed = resources.s_max_kva / BASE_KVA * np.cos(np.pi / circle_sides)

    offers, place, begun = case.service_offers, running_columns(case), call_lags(case)
    may_bind = _sides_beyond(resources, angle, inscribed)
    may_bind[np.unique(offers.resource)] = True
    sides = [(r, k, *lag) for r in rated for k in np.flatnonzero(may_bind[r]).tolist() for lag in begun[r]]

    @model.Constraint(model.INTERVALS, sides)
    def apparent_power_within_rating(m, t, r, k, real, reactive):
        called = called_reach(m, offers, place, (t, r), (np.cos(angle[k]), np.sin(angle[k])), (real, reactive))
        if called is None:
            return pyo.Constraint.Skip
        return np.cos(angle[k]) * m.p[t, r] + np.sin(angle[k]) * m.q[t, r] + called <= inscribed[r]

    in_a_cone = np.flatnonzero(resources.power_factor_min > 0)
    share, sign = reactive_share(resources)[in_a_cone], power_sign(resources)[in_a_cone]
    slope = dict(zip(in_a_cone.tolist(), (share * sign).tolist(), strict=True))

    edges = [(r, side, *lag) for r in slope for side in (-1, 1) for lag in begun[r]]

    @model.Constraint(model.INTERVALS, edges)
    def reactive_power_within_power_factor(m, t, r, side, real, reactive):
        called = called_reach(m, offers, place, (t, r), (-slope[r], side), (real, reactive))
        if called is None:
            return pyo.Constraint.Skip
        return side * m.q[t, r] - slope[r] * m.p[t, r] + called <= 0.0


def _sides_beyond(resources: Resources, angle: FloatArray, inscribed: FloatArray) -> npt.NDArray[np.bool_]:
    """(r, sides) True for the sides of the polygons that some power within its range would be beyond."""
    real = np.stack([resources.p_min_kw, resources.p_max_kw.max(axis=0)]) / BASE_KVA
    reactive = np.stack([resources.q_min_kvar, resources.q_max_kvar]) / BASE_KVA
    farthest = sum(
        np.maximum(*(end[:, None] * part for end in ends))
        for ends, part in ((real, np.cos(angle)), (reactive, np.sin(angle)))
    )
    return np.asarray(farthest > inscribed[:, None])
