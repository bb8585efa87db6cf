"""Reactive power that is bid: accepted segments, as Pyomo rules.

The bids are those of `dlmp.reactive`.
"""

import numpy as np
import pyomo.environ as pyo

from dlmp.market import MarketCase
from dlmp.products.columns import Columns, bounds_of
from dlmp.units import BASE_KVA

INJECTED_LESS_ABSORBED = "reactive_injection_is_injected_less_absorbed"
"""The rule that makes a resource's reactive injection the sum of what it is awarded."""


def reactive_columns(case: MarketCase) -> dict[str, Columns]:
    """Bounds [pu] and costs [currency/MVArh] of ``q_award`` by segment."""
    curves = case.reactive_bids.curves(case.resources.name)
    return {
        "q_award": Columns(
            lower=np.zeros_like(curves.quantity),
            upper=curves.quantity / BASE_KVA,
            cost=curves.cost,
            slope=curves.cost_slope * BASE_KVA,
        )
    }


def declare_reactive(model: pyo.ConcreteModel, case: MarketCase) -> None:
    """Add the reactive bids of `case` over ``model.INTERVALS`` to `model` with its injections."""
    bids = case.reactive_bids
    model.REACTIVE_SEGMENTS = pyo.RangeSet(0, len(bids) - 1)
    bounds = bounds_of(reactive_columns(case)["q_award"])
    model.q_award = pyo.Var(model.INTERVALS, model.REACTIVE_SEGMENTS, bounds=bounds)
    segments_of = {int(r): np.flatnonzero(bids.resource == r).tolist() for r in np.unique(bids.resource)}

    @model.Constraint(model.INTERVALS, list(segments_of))
    def reactive_injection_is_injected_less_absorbed(m, t, r):
        return m.q[t, r] == sum(m.q_award[t, s] if bids.is_injection[s] else -m.q_award[t, s] for s in segments_of[r])
