"""The substation: import of real and of reactive power, and what it costs beyond its range, as Pyomo rules.

Without penalties the range is that of the variables ``import_p`` and ``import_q`` themselves.  With them these are
free, and ``import_beyond`` takes what lies outside: one column for each tier beyond each end of the range that is
finite in any interval.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyomo.environ as pyo

from dlmp.market import Substation
from dlmp.network.model import FloatArray
from dlmp.penalties import Penalties
from dlmp.products.columns import Columns, bounds_of
from dlmp.units import BASE_KVA

IMPORT_VARIABLES = ("import_p", "import_q", "import_beyond")
IMPORT_LIMITS = (("import_p", -1, "p_min_kw"), ("import_p", 1, "p_max_kw"),
                 ("import_q", -1, "q_min_kvar"), ("import_q", 1, "q_max_kvar"))  # fmt: skip
"""Variable, side (-1 where it may not be less) and field of `Substation` of each end of a range."""

IMPORT_RANGE = "import_is_in_its_range_or_beyond"
"""The rule that holds the import in its range: see `import_bounds`."""
ANYTHING_PU = 1e9
"""Stands in the model for the bound of an interval that has none, which Pyomo would leave out."""

REAL_IMPORT, REACTIVE_IMPORT = "substation import of real power", "substation import of reactive power"
IMPORT_NAMES = {"import_p": (REAL_IMPORT, "kW"), "import_q": (REACTIVE_IMPORT, "kvar")}
"""Names and units of the import's limits."""


@dataclass(frozen=True)
class Excess:
    """A tier beyond an end of the import's range.

    Parameters
    ----------
    end
        Place of the end in `IMPORT_LIMITS`.
    room_kw
        How far the tier reaches [kW, kvar].
    price
        What its excess costs [currency/MWh, currency/MVArh].
    """

    end: int
    room_kw: float
    price: float


def import_excesses(substation: Substation, penalties: Penalties) -> list[Excess]:
    """Every column of ``import_beyond``."""
    edges = [*(tier.beyond for tier in penalties.substation), np.inf]
    rooms = [high - low for low, high in pairwise(edges)]
    return [
        Excess(end, room, tier.price)
        for end, (_, _, field) in enumerate(IMPORT_LIMITS)
        if np.isfinite(getattr(substation, field)).any()
        for room, tier in zip(rooms, penalties.substation, strict=True)
    ]


def import_columns(substation: Substation, penalties: Penalties) -> dict[str, Columns]:
    """Bounds [pu] and costs [currency/MWh] of `IMPORT_VARIABLES`."""
    intervals = len(substation.price_usd_per_mwh)
    excesses = import_excesses(substation, penalties)

    def repeat(values: list[float]) -> FloatArray:
        return np.tile(np.array(values, dtype=float), (intervals, 1))

    ends = [
        (side * np.full(intervals, np.inf) if penalties.substation else getattr(substation, field) / BASE_KVA)[:, None]
        for _, side, field in IMPORT_LIMITS
    ]
    return {
        "import_p": Columns(ends[0], ends[1], substation.price_usd_per_mwh[:, None]),
        "import_q": Columns(ends[2], ends[3], substation.q_price_usd_per_mvarh[:, None]),
        "import_beyond": Columns(
            np.zeros((intervals, len(excesses))),
            repeat([excess.room_kw / BASE_KVA for excess in excesses]),
            repeat([excess.price for excess in excesses]),
        ),
    }


def import_bounds(substation: Substation, penalties: Penalties) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Lower and upper bounds [pu] of `IMPORT_RANGE`, (t, ends) each; infinite where an interval has no such end."""
    intervals, ends = len(substation.price_usd_per_mwh), _soft_ends(import_excesses(substation, penalties))
    upper = np.zeros((intervals, len(ends)))
    for place, end in enumerate(ends):
        _, side, field = IMPORT_LIMITS[end]
        upper[:, place] = side * getattr(substation, field) / BASE_KVA
    return {IMPORT_RANGE: (np.full_like(upper, -np.inf), upper)}


def _soft_ends(excesses: list[Excess]) -> list[int]:
    """Ends of the range that may be broken, ascending."""
    return sorted({excess.end for excess in excesses})


def declare_import(
    model: pyo.ConcreteModel, substation: Substation, penalties: Penalties, columns: Mapping[str, Columns]
) -> None:
    """Add the import over ``model.INTERVALS`` and, where it is soft, its range to `model`."""
    excesses = import_excesses(substation, penalties)
    sizes = {"import_p": 1, "import_q": 1, "import_beyond": len(excesses)}
    for name, size in sizes.items():
        setattr(model, name, pyo.Var(model.INTERVALS, pyo.RangeSet(0, size - 1), bounds=bounds_of(columns[name])))

    ends = _soft_ends(excesses)
    upper = import_bounds(substation, penalties)[IMPORT_RANGE][1]

    @model.Constraint(model.INTERVALS, ends)
    def import_is_in_its_range_or_beyond(m, t, end):
        name, side, _ = IMPORT_LIMITS[end]
        beyond = sum(m.import_beyond[t, i] for i, excess in enumerate(excesses) if excess.end == end)
        most = upper[t, ends.index(end)]
        return side * getattr(m, name)[t, 0] - beyond <= (most if np.isfinite(most) else ANYTHING_PU)
