"""Energy: accepted bid segments, resource injections and the substation import, as Pyomo rules.

The model is written for any set of intervals.  The clearing compiles it once for a single interval
and repeats the columns (`dlmp.formulation.template`), whose bounds and costs per interval come from
`energy_columns`; the whole horizon can be built from the same rules, and is in the tests.

Powers are in pu, prices in currency/MWh: see `dlmp.units`.
"""

from collections.abc import Sequence

import numpy as np
import pyomo.environ as pyo

from dlmp.market import MarketCase
from dlmp.network.model import FloatArray
from dlmp.penalties import HARD, Penalties
from dlmp.products.blockbids import block_columns, declare_blocks
from dlmp.products.capability import declare_capability
from dlmp.products.columns import Columns, bounds_of
from dlmp.products.ramps import declare_ramps
from dlmp.products.reactive import declare_reactive, reactive_columns
from dlmp.products.services import SERVICE_VARIABLES, declare_services, service_columns
from dlmp.products.storage import STORE_VARIABLES, declare_stores, store_columns
from dlmp.products.substation import IMPORT_VARIABLES, declare_import, import_columns
from dlmp.units import BASE_KVA

SUPPLY_LESS_DEMAND = "injection_is_supply_less_demand"
"""The rule that makes a resource's injection the sum of what it is awarded."""


def energy_columns(case: MarketCase, penalties: Penalties = HARD) -> dict[str, Columns]:
    """Bounds [pu] and costs [currency/MWh] of every variable of `declare_energy`.

    ``award`` by bid segment, ``p`` and ``q`` by resource, ``import_p`` and ``import_q`` once per interval; those of
    blocks, of reactive bids, of the stores and of the services; and ``import_beyond`` by
    `dlmp.products.substation.Excess`.
    """
    resources, bids, substation = case.resources, case.bids, case.substation
    intervals, count = resources.p_max_kw.shape
    nothing = np.zeros((intervals, count))
    curves = bids.curves(resources.name)

    def repeat(values: FloatArray | float, width: int) -> FloatArray:
        return np.tile(np.asarray(values) / BASE_KVA, (intervals, 1)).reshape(intervals, width)

    return {
        "award": Columns(
            lower=np.where(bids.is_self_scheduled, bids.quantity_kw, 0.0) / BASE_KVA,
            upper=bids.quantity_kw / BASE_KVA,
            cost=curves.cost,
            slope=curves.cost_slope * BASE_KVA,
        ),
        "p": Columns(repeat(resources.p_min_kw, count), resources.p_max_kw / BASE_KVA, nothing),
        "q": Columns(repeat(resources.q_min_kvar, count), repeat(resources.q_max_kvar, count), nothing),
        **import_columns(substation, penalties),
        **reactive_columns(case),
        **store_columns(case),
        **service_columns(case),
        **block_columns(case),
    }


def declare_energy(
    model: pyo.ConcreteModel,
    case: MarketCase,
    intervals: Sequence[int],
    circle_sides: int,
    penalties: Penalties = HARD,
) -> None:
    """Add the energy market of `intervals` to `model`.

    Parameters
    ----------
    model
        Where the variables, constraints and the objective go.
    case
        Who bids what.
    intervals
        Intervals of the horizon to write down.
    circle_sides
        Sides of the polygon inscribed in each apparent-power circle.
    penalties
        What it costs to break the range of the import.
    """
    columns = energy_columns(case, penalties)
    bids, resources = case.bids, case.resources
    model.INTERVALS = pyo.Set(initialize=list(intervals))
    model.SEGMENTS = pyo.RangeSet(0, len(bids) - 1)
    model.RESOURCES = pyo.RangeSet(0, len(resources) - 1)

    def bounds(name):
        return bounds_of(columns[name])

    model.award = pyo.Var(model.INTERVALS, model.SEGMENTS, bounds=bounds("award"))
    model.p = pyo.Var(model.INTERVALS, model.RESOURCES, bounds=bounds("p"))
    model.q = pyo.Var(model.INTERVALS, model.RESOURCES, bounds=bounds("q"))
    declare_import(model, case.substation, penalties, columns)
    declare_reactive(model, case)
    declare_stores(model, case)
    declare_blocks(model, case)
    declare_services(model, case)
    declare_ramps(model, case)
    declare_capability(model, case, circle_sides)
    segments_of = [np.flatnonzero(bids.resource == r).tolist() for r in range(len(resources))]
    blocks_of = [np.flatnonzero(case.blocks.resource == r).tolist() for r in range(len(resources))]
    store_of = {int(r): k for k, r in enumerate(case.stores.resource)}

    @model.Constraint(model.INTERVALS, model.RESOURCES)
    def injection_is_supply_less_demand(m, t, r):
        if r in store_of:
            return m.p[t, r] == m.discharge[t, store_of[r]] - m.charge[t, store_of[r]]
        segments = sum(m.award[t, s] if bids.is_supply[s] else -m.award[t, s] for s in segments_of[r])
        return m.p[t, r] == segments + sum(case.blocks.sign[b] * m.block[t, b] for b in blocks_of[r])

    @model.Objective()
    def cost(m):
        return sum(
            columns[name].cost[t, i] * getattr(m, name)[t, i]
            + float(columns[name].slope[t, i]) / 2 * getattr(m, name)[t, i] ** 2
            for name in ("award", "block", "q_award", *IMPORT_VARIABLES, *STORE_VARIABLES, *SERVICE_VARIABLES)
            for t, i in getattr(m, name)
        )
