"""Blocks that are taken at any price, and settled at that of their node."""

from dataclasses import replace

import numpy as np
import pytest
from acopf import solve_acopf
from cases import Blocks, feeder33, generators33, market, rated, resource
from feeders import Branch, feeder
from numpy.typing import ArrayLike

from dlmp import InputError, clear
from dlmp.market import MarketCase

NEXT_TO_LOSSLESS = Branch("a", "b", 1e-6, 1e-6)
POWER_KW, PRICE = 1e-3, 1e-3


def scheduled(case: MarketCase, *columns: int) -> MarketCase:
    """The same case with the bid segments `columns` self-scheduled."""
    chosen = np.isin(np.arange(len(case.bids)), columns)
    is_self_scheduled = np.tile(chosen, (case.horizon.intervals, 1))
    price = np.where(is_self_scheduled, 0.0, case.bids.price_usd_per_mwh)
    return replace(case, bids=replace(case.bids, is_self_scheduled=is_self_scheduled, price_usd_per_mwh=price))


def beside_a_load(price: ArrayLike, supply: Blocks = (), demand: Blocks = (), **fields: object) -> MarketCase:
    network = feeder([NEXT_TO_LOSSLESS], {"b": (100.0, 0.0)})
    return market(network, price, resource("one", "b", supply=supply, demand=demand, **fields))


def test_a_profile_is_injected_at_any_price_and_costs_nothing_but_what_it_displaces():
    """10, 40 and 25 kW in hours of 20, -15 and 30, when only the rest of 100 kW is imported."""
    found = clear(scheduled(beside_a_load([20.0, -15.0, 30.0], supply=[([10, 40, 25], 0)]), 0))
    np.testing.assert_allclose(found.awards.net_injection_kw[:, 0], [10, 40, 25], atol=POWER_KW)
    np.testing.assert_allclose(found.prices.lmp_usd_per_mwh[:, 1], [20, -15, 30], atol=PRICE)
    assert found.objective == pytest.approx((90 * 20 - 60 * 15 + 75 * 30) / 1000, abs=1e-5)
    assert found.certificate.is_feasible
    assert found.certificate.is_supported


def test_a_scheduled_load_consumes_at_any_price():
    found = clear(scheduled(beside_a_load([900.0], demand=[(35, 0)]), 0))
    assert found.awards.net_injection_kw[0, 0] == pytest.approx(-35, abs=POWER_KW)
    assert found.objective == pytest.approx(135 * 0.9, abs=1e-3)


def test_priced_blocks_come_on_top_of_a_schedule():
    """30 kW at any price, and of the rest what costs less than 20."""
    found = clear(scheduled(beside_a_load([20.0], supply=[(30, 0), (10, 15), (10, 25)]), 0))
    np.testing.assert_allclose(found.awards.segment_kw, [[30, 10, 0]], atol=POWER_KW)


def test_a_scheduled_load_may_offer_to_consume_less():
    """50 kW at any price, of which 20 come back where that pays more than 60."""
    case = beside_a_load([50.0, 70.0], supply=[(20, 60)], demand=[(50, 0)])
    found = clear(scheduled(case, 1))
    np.testing.assert_allclose(found.awards.net_injection_kw[:, 0], [-50, -30], atol=POWER_KW)


def test_the_price_of_a_scheduled_block_is_blank_in_the_table():
    table = clear(scheduled(beside_a_load([20.0], supply=[(30, 0), (10, 15)]), 0)).awards.segment_table()
    assert table.price_usd_per_mwh.isna().tolist() == [True, False]


def test_a_schedule_behind_a_full_line_is_kept_and_others_make_room():
    """Compared with the AC optimum, where its price is far below that of its neighbours' bids."""
    network = rated(feeder33(), "line 2", ampere=80.0)
    far = resource("wind", 17, supply=[([350, 150], 0)])
    case = scheduled(market(network, [22.0, 40.0], far, *generators33((-50.0, 100.0)), load=[0.9, 1.0]), 0)
    found, expected = clear(case), solve_acopf(case)
    assert found.status == "converged"
    assert found.objective == pytest.approx(expected.cost, rel=1e-6)
    np.testing.assert_allclose(found.prices.lmp_usd_per_mwh, expected.price_p, rtol=0, atol=1e-3)
    np.testing.assert_allclose(found.awards.net_injection_kw, expected.p_kw, rtol=0, atol=0.01)
    np.testing.assert_allclose(found.awards.net_injection_kw[:, 0], [350, 150], atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "columns", "element", "field", "message"),
    [
        (
            {"supply": [(30, 0)], "available_kw": 20.0},
            (0,),
            "resource one, interval 0",
            "p_max_kw",
            "does not hold the 30 kW that are self-scheduled; widen it",
        ),
        (
            {"supply": [(60, 0)], "s_max_kva": 50.0},
            (0,),
            "resource one",
            "s_max_kva",
            "need 60 kVA and the rating allows 50",
        ),
        (
            {"supply": [(60, 0)], "demand": [(50, 0)], "must_run_kw": 62.0},
            (1,),
            "resource one, interval 0",
            "p_min_kw",
            "needs supply bids of at least p_min_kw",
        ),
        (
            {"demand": [(50, 0)], "must_run_kw": 20.0, "available_kw": 0.0},
            (0,),
            "resource one, interval 0",
            "p_min_kw",
            "does not hold the -50 kW that are self-scheduled; widen it",
        ),
    ],
)
def test_a_schedule_that_its_resource_cannot_keep_is_refused(fields, columns, element: str, field: str, message: str):
    with pytest.raises(InputError) as caught:
        scheduled(beside_a_load([20.0], **fields), *columns)
    (problem,) = caught.value.problems
    assert (problem.element, problem.field) == (element, field)
    assert message in problem.message


def test_the_shape_of_schedules_is_that_of_the_bids():
    case = beside_a_load([20.0], supply=[(30, 0)])
    with pytest.raises(InputError, match="bids, is_self_scheduled"):
        replace(case, bids=replace(case.bids, is_self_scheduled=np.ones((1, 2), dtype=bool)))
