"""Blocks: what is accepted of each in every interval, as Pyomo rules; `dlmp.blockchoice` chooses which are accepted."""

import numpy as np
import pyomo.environ as pyo

from dlmp.market import MarketCase
from dlmp.network.model import FloatArray
from dlmp.products.columns import Columns, bounds_of
from dlmp.units import BASE_KVA

BLOCK_LEVEL = "block_is_level"
"""Rule that holds in the intervals of a block but its first: see `block_bounds`."""


def block_columns(case: MarketCase) -> dict[str, Columns]:
    """Bounds [pu] and costs [currency/MWh] of ``block``, the accepted power; any part of each may be accepted."""
    blocks = case.blocks
    upper = blocks.offered_kw(case.horizon.intervals) / BASE_KVA
    return {
        "block": Columns(np.zeros_like(upper), upper, np.tile(blocks.sign * blocks.price_usd_per_mwh, (len(upper), 1)))
    }


def block_bounds(case: MarketCase) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Lower and upper bounds (t, k) of `BLOCK_LEVEL`: 0 within a block, none where it begins and outside."""
    blocks = case.blocks
    level = np.flatnonzero(blocks.must_be_level)
    every = np.arange(case.horizon.intervals)[:, None]
    room = np.where((every > blocks.first[level]) & (every <= blocks.last[level]), 0.0, np.inf)
    return {BLOCK_LEVEL: (-room, room)} if len(level) else {}


def declare_blocks(model: pyo.ConcreteModel, case: MarketCase) -> None:
    """Add the blocks of `case` over ``model.INTERVALS``, which follow each other, to `model`."""
    model.BLOCKS = pyo.RangeSet(0, len(case.blocks) - 1)
    model.block = pyo.Var(model.INTERVALS, model.BLOCKS, bounds=bounds_of(block_columns(case)["block"]))
    first = model.INTERVALS.first()

    @model.Constraint(model.INTERVALS, np.flatnonzero(case.blocks.must_be_level).tolist())
    def block_is_level(m, t, b):
        rise = m.block[t, b] - (m.block[t - 1, b] if t != first else 0.0)
        within = case.blocks.first[b] < t <= case.blocks.last[b]
        return rise == 0.0 if within else rise <= 2 * case.blocks.quantity_kw[b] / BASE_KVA
