"""The import: a range of its variables when it is hard, and columns beyond it when it is soft."""

from dataclasses import replace

import numpy as np
import pytest
from cases import feeder33, generators33, market
from scipy import sparse

from dlmp import clear
from dlmp.formulation.market_lp import build_market_lp
from dlmp.market import MarketCase
from dlmp.penalties import HARD, Penalties, Tier
from dlmp.products.substation import IMPORT_LIMITS, IMPORT_RANGE, import_excesses
from dlmp.solve import LinearProgram, solve_lp

SOFT = Penalties(substation=(Tier(0.0, 100.0), Tier(50.0, 300.0)))


@pytest.fixture
def case() -> MarketCase:
    """Import of 200 to 1000 kW at 20 and 30, and of at most 300 kvar."""
    return market(feeder33(), [20.0, 30.0], *generators33(), p_min_kw=200.0, p_max_kw=1000.0, q_max_kvar=300.0)


def test_a_hard_range_is_that_of_the_variables(case: MarketCase):
    lp = build_market_lp(case, 8)
    assert lp.block("import_beyond").size == 0
    p, q = lp.template.blocks["import_p"], lp.template.blocks["import_q"]
    assert lp.columns.lower[:, p].tolist() == [[2.0], [2.0]]
    assert lp.columns.upper[:, p].tolist() == [[10.0], [10.0]]
    assert (lp.columns.lower[0, q], lp.columns.upper[0, q]) == (-np.inf, 3.0)


def test_a_soft_range_has_a_column_for_each_tier_beyond_each_end_that_it_has(case: MarketCase):
    excesses = import_excesses(case.substation, SOFT)
    told = [(IMPORT_LIMITS[excess.end][2], excess.room_kw, excess.price) for excess in excesses]
    assert told == [
        (field, *tier) for field in ("p_min_kw", "p_max_kw", "q_max_kvar") for tier in ((50.0, 100.0), (np.inf, 300.0))
    ]
    assert import_excesses(case.substation, HARD) == []
    unlimited = replace(case.substation, p_min_kw=-np.inf, p_max_kw=np.inf, q_max_kvar=np.inf)
    assert import_excesses(unlimited, SOFT) == []


def test_a_soft_range_may_differ_between_intervals_and_be_open_in_some(case: MarketCase):
    """At most 1000 kW in the second interval only, at 1 and then 2 for each MWh more: offers cost more than that."""
    some = replace(case.substation, p_min_kw=-np.inf, p_max_kw=np.array([np.inf, 1000.0]), q_max_kvar=np.inf)
    lp = build_market_lp(replace(case, substation=some), 8, SOFT)
    assert lp.row_upper[lp.rows_of(IMPORT_RANGE)].tolist() == [[np.inf], [10.0]]
    cheap = Penalties(substation=(Tier(0.0, 1.0), Tier(50.0, 2.0)))
    found = clear(replace(case, substation=some, penalties=cheap))
    table = found.broken_limits()
    assert found.status == "converged"
    assert (found.import_kw > 1100).all()
    assert (table.interval.tolist(), table.limit.tolist()) == ([1], [1000.0])
    assert table["value"].item() == pytest.approx(found.import_kw[1], abs=1e-6)
    np.testing.assert_allclose(found.prices.scarcity[:, 0], [0, 2], atol=1e-6)
    assert found.penalty == pytest.approx((50 * 1 + (table.excess.item() - 50) * 2) / 1000, rel=1e-9)


@pytest.mark.parametrize(
    ("import_kw", "cost"),
    [
        (500.0, 0.0),
        (1000.0, 0.0),
        (1030.0, 30 * 100),
        (1080.0, 50 * 100 + 30 * 300),
        (180.0, 20 * 100),
        (0.0, 50 * 100 + 150 * 300),
    ],
)
def test_import_beyond_its_range_costs_each_tier_s_price(case: MarketCase, import_kw: float, cost: float):
    """By the LP, with the import fixed in the first interval."""
    lp = build_market_lp(case, 8, SOFT)
    lower, upper = lp.columns.lower.copy(), lp.columns.upper.copy()
    place = lp.template.blocks["import_p"]
    lower[0, place] = upper[0, place] = import_kw / 100
    price = lp.columns.cost.copy()
    price[:, place] = price[:, lp.template.blocks["award"]] = 0.0
    matrix = sparse.csr_array(lp.matrix)
    found = solve_lp(LinearProgram(price.ravel(), lower.ravel(), upper.ravel(), matrix, lp.row_lower, lp.row_upper))
    assert found.objective == pytest.approx(cost / 100, abs=1e-7)
