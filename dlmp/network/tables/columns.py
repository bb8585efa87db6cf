"""Columns of the tables, and their units over arrays."""

import numpy as np

from dlmp.csvfile import Column
from dlmp.network.model import FloatArray
from dlmp.units import base_current_a, base_ohm

BRANCH_KINDS = ("line", "transformer")

MICRO = 1e-6
"""Siemens per microsiemens."""

NODE_COLUMNS = (
    Column("bus", "text"),
    Column("base_kv", "number"),
    Column("p_kw", "number", required=False, default=0.0),
    Column("q_kvar", "number", required=False, default=0.0),
    Column("v_min_pu", "number", required=False),
    Column("v_max_pu", "number", required=False),
    Column("is_source", "integer", required=False, default=0),
    Column("source_v_pu", "number", required=False),
    Column("source_angle_degree", "number", required=False, default=0.0),
    Column("g_us", "number", required=False, default=0.0),
    Column("b_us", "number", required=False, default=0.0),
    Column("x", "number", required=False),
    Column("y", "number", required=False),
)

END_SHUNTS = ("g_from_us", "b_from_us", "g_to_us", "b_to_us")
END_RATES = ("rate_from_kva", "rate_to_kva", "rate_from_a", "rate_to_a")
RATES_KVA = ("rate_kva", "rate_from_kva", "rate_to_kva")
RATES_A = ("rate_a", "rate_from_a", "rate_to_a")

LINE_COLUMNS = (
    Column("line", "text"),
    Column("from_bus", "text"),
    Column("to_bus", "text"),
    Column("r_ohm", "number"),
    Column("x_ohm", "number"),
    Column("b_us", "number", required=False),
    Column("rate_kva", "number", required=False),
    Column("rate_a", "number", required=False),
    Column("kind", "text", required=False, default=""),
    Column("tap_ratio", "number", required=False, default=1.0),
    Column("shift_degree", "number", required=False, default=0.0),
    *(Column(name, "number", required=False) for name in (*END_SHUNTS, *END_RATES)),
)

ALIAS_COLUMNS = (Column("alias", "text"), Column("bus", "text"))


def ohm_per_pu(base_kv: FloatArray) -> FloatArray:
    """Impedance of 1 pu [ohm] at each base voltage [kV]."""
    return np.array([base_ohm(kv) for kv in base_kv])


def amperes_per_pu(base_kv: FloatArray) -> FloatArray:
    """Current of 1 pu [A] at each base voltage [kV]."""
    return np.array([base_current_a(kv) for kv in base_kv])
