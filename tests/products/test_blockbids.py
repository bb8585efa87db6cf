"""The rules of blocks: one level in all intervals of a block, nothing outside, and the same rows however compiled."""

from dataclasses import replace

import numpy as np
import pyomo.environ as pyo
import pytest
from cases import feeder33, market, resource

from dlmp import Blocks, MarketCase
from dlmp.formulation.market_lp import build_market_lp
from dlmp.products.energy import declare_energy

SIDES = 8


@pytest.fixture
def case() -> MarketCase:
    plain = market(
        feeder33(), [20.0] * 4, resource("plant", 5, supply=[(400, 90)]), resource("mill", 9, demand=[(300, 5)])
    )
    blocks = Blocks(
        name=np.array(["whole", "part", "short", "use"]),
        resource=np.array([0, 0, 0, 1]),
        is_supply=np.array([True, True, True, False]),
        first=np.array([0, 1, 2, 0]),
        last=np.array([3, 2, 2, 2]),
        quantity_kw=np.array([100.0, 200.0, 50.0, 80.0]),
        price_usd_per_mwh=np.array([20.0, 30.0, 40.0, 50.0]),
        least_share=np.array([1.0, 0.4, 0.5, 0.2]),
        group=np.array(["", "", "", ""]),
    )
    return replace(plain, blocks=blocks)


def test_what_is_accepted_has_one_level_in_its_intervals(case: MarketCase):
    """Only blocks that may be accepted in part, in more than one interval, need to be held."""
    lp = build_market_lp(case, SIDES)
    x = np.zeros(lp.columns.cost.size)
    block = lp.block("block")
    rows = lp.rows_of("block_is_level").ravel()

    def holds() -> bool:
        value = lp.matrix[rows] @ x
        return bool(((value >= lp.row_lower[rows] - 1e-12) & (value <= lp.row_upper[rows] + 1e-12)).all())

    x[block[1:3, 1]], x[block[:3, 3]] = 1.5, 0.4
    assert holds()
    x[block[2, 2]] = 0.3
    assert holds()
    x[block[2, 1]] = 1.4
    assert not holds()
    x[block[2, 1]], x[block[1, 3]] = 1.5, 0.5
    assert not holds()


def test_the_compiled_horizon_is_that_of_the_whole_model(case: MarketCase):
    """Any dispatch keeps the rows of the one where it keeps those of the other."""
    lp, model = build_market_lp(case, SIDES), pyo.ConcreteModel()
    declare_energy(model, case, range(4), SIDES)
    random = np.random.default_rng(0)
    for _ in range(20):
        level = random.integers(0, 3, lp.block("block").shape) / 2
        for (interval, index), variable in model.block.items():
            variable.set_value(level[interval, index], skip_validation=True)
        x = np.zeros(lp.columns.cost.size)
        x[lp.block("block")] = level
        rows = lp.rows_of("block_is_level")
        value = (lp.matrix[rows.ravel()] @ x).reshape(rows.shape)
        for (interval, index), row in model.block_is_level.items():
            place = [1, 3].index(index)
            low, high = (bound.reshape(-1)[rows[interval, place]] for bound in (lp.row_lower, lp.row_upper))
            kept = low - 1e-12 <= value[interval, place] <= high + 1e-12
            body = pyo.value(row.body)
            below = row.lower is None or body >= pyo.value(row.lower) - 1e-12
            assert kept == (below and body <= pyo.value(row.upper) + 1e-12)


def test_held_blocks_have_their_least_share_at_least_and_others_nothing(case: MarketCase):
    lp = build_market_lp(case, SIDES)
    held = lp.with_blocks(np.array([True, True, False, False]))
    own = lp.template.blocks["block"]
    assert held.columns.lower[:, own].tolist() == [[1, 0, 0, 0], [1, 0.8, 0, 0], [1, 0.8, 0, 0], [1, 0, 0, 0]]
    assert held.columns.upper[:, own].tolist() == [[1, 0, 0, 0], [1, 2, 0, 0], [1, 2, 0, 0], [1, 0, 0, 0]]
