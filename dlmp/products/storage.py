"""Storage: power in and out, and the energy that is carried from interval to interval, as Pyomo rules.

The equations are those of `dlmp.stores`.  Energies are in pu of `BASE_KVA` times an hour.
"""

import numpy as np
import pyomo.environ as pyo

from dlmp.market import MarketCase
from dlmp.network.model import FloatArray
from dlmp.products.columns import Columns, bounds_of
from dlmp.units import BASE_KVA

STORE_VARIABLES = ("charge", "discharge", "energy", "shortfall")
ENERGY_BALANCE, ENERGY_LEAST = "energy_is_carried_on", "energy_is_kept_or_short"
"""Rules whose bounds differ from interval to interval: see `store_bounds`."""


def store_columns(case: MarketCase) -> dict[str, Columns]:
    """Bounds [pu] and costs [currency/MWh] of `STORE_VARIABLES` by store.

    A cost of energy is divided by the hours of an interval: all costs are multiplied by them in the end.
    """
    stores, hours = case.stores, case.horizon.interval_hours
    shape = stores.charge_max_kw.shape
    nothing = np.zeros(shape)
    is_firm = np.isinf(stores.shortfall_usd_per_mwh)
    worth = nothing.copy()
    worth[-1:] = stores.final_usd_per_mwh / hours
    penalty = np.where(is_firm, 0.0, stores.shortfall_usd_per_mwh) / hours
    least = stores.energy_min_kwh / BASE_KVA
    return {
        "charge": Columns(nothing, stores.charge_max_kw / BASE_KVA, nothing),
        "discharge": Columns(nothing, stores.discharge_max_kw / BASE_KVA, nothing + stores.cycling_usd_per_mwh),
        "energy": Columns(np.where(is_firm, least, 0.0), stores.energy_max_kwh / BASE_KVA, -worth),
        "shortfall": Columns(nothing, np.where(is_firm, 0.0, least), nothing + penalty),
    }


def store_bounds(case: MarketCase) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Lower and upper bounds [pu] of the rules whose bounds change, (t, k) each."""
    stores, hours = case.stores, case.horizon.interval_hours
    right = -stores.drain_kw / BASE_KVA * hours
    right[:1] += stores.retention**hours * stores.initial_kwh / BASE_KVA
    least = np.where(np.isinf(stores.shortfall_usd_per_mwh), 0.0, stores.energy_min_kwh) / BASE_KVA
    return {ENERGY_BALANCE: (right, right), ENERGY_LEAST: (least, np.full_like(least, np.inf))}


def declare_stores(model: pyo.ConcreteModel, case: MarketCase) -> None:
    """Add the stores of `case` over ``model.INTERVALS``, which follow each other, to `model`."""
    stores, hours = case.stores, case.horizon.interval_hours
    columns, bounds = store_columns(case), store_bounds(case)
    model.STORES = pyo.RangeSet(0, len(stores) - 1)
    for name in STORE_VARIABLES:
        setattr(model, name, pyo.Var(model.INTERVALS, model.STORES, bounds=bounds_of(columns[name])))
    first = model.INTERVALS.first()

    @model.Constraint(model.INTERVALS, model.STORES)
    def energy_is_carried_on(m, t, k):
        carried = stores.retention[k] ** hours * m.energy[t - 1, k] if t != first else 0.0
        taken = stores.charge_efficiency[k] * m.charge[t, k] - m.discharge[t, k] / stores.discharge_efficiency[k]
        return m.energy[t, k] - carried - hours * taken == bounds[ENERGY_BALANCE][0][t, k]

    @model.Constraint(model.INTERVALS, model.STORES)
    def energy_is_kept_or_short(m, t, k):
        return m.energy[t, k] + m.shortfall[t, k] >= bounds[ENERGY_LEAST][0][t, k]
