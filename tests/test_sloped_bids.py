"""Bids whose price runs in a straight line along a segment: worked by hand, and against the AC optimum."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from cases import CASES, Blocks, feeder33, market, rated, resource
from feeders import Branch, feeder
from numpy.typing import ArrayLike
from optimum import cleared_at_the_ac_optimum
from storecases import SIX_LOADS, SIX_PRICES, battery, with_stores
from test_reactive import with_reactive

from dlmp import InputError, Settings, clear
from dlmp.certificate import bid_gaps
from dlmp.market import MarketCase

NEXT_TO_LOSSLESS = Branch("a", "b", 1e-6, 1e-6)
POWER_KW, PRICE = 1e-3, 1e-3


def sloped(case: MarketCase, rise: ArrayLike) -> MarketCase:
    """The same case, the price of whose bid segments (s,) rises by `rise` from beginning to end."""
    by_interval = np.broadcast_to(np.asarray(rise, float), case.bids.quantity_kw.shape)
    return replace(case, bids=replace(case.bids, price_rise_usd_per_mwh=by_interval))


def beside_a_load(price: ArrayLike, rise: ArrayLike, supply: Blocks = (), demand: Blocks = (), **fields) -> MarketCase:
    network = feeder([NEXT_TO_LOSSLESS], {"b": (100.0, 0.0)})
    return sloped(market(network, price, resource("one", "b", supply=supply, demand=demand), **fields), rise)


@pytest.mark.parametrize(
    ("price", "kw", "earned"),
    [(9.0, 0.0, 0.0), (15.0, 20.0, 20 * 2.5), (25.0, 60.0, 60 * 7.5), (45.0, 80.0, 80 * 25.0)],
)
def test_supply_is_taken_up_to_where_its_price_is_that_of_the_market(price: float, kw: float, earned: float):
    """80 kW from 10 to 30: at 15 a quarter of them, at 25 three quarters, for which it gets half its rise on top."""
    found = clear(beside_a_load([price], [20.0], supply=[(80, 10)]))
    assert found.awards.segment_kw[0, 0] == pytest.approx(kw, abs=POWER_KW)
    assert found.objective == pytest.approx((100 * price - earned) / 1000, abs=1e-4)
    assert found.certificate.is_supported
    table = found.awards.segment_table()
    assert (table.price_usd_per_mwh[0], table.price_end_usd_per_mwh[0]) == (10, 30)


@pytest.mark.parametrize(("price", "kw"), [(45.0, 0.0), (35.0, 10.0), (25.0, 30.0), (15.0, 40.0)])
def test_demand_is_served_down_to_where_its_price_is_that_of_the_market(price: float, kw: float):
    """40 kW whose worth falls from 40 to 20."""
    found = clear(beside_a_load([price], [-20.0], demand=[(40, 40)]))
    assert found.awards.net_injection_kw[0, 0] == pytest.approx(-kw, abs=POWER_KW)
    assert found.certificate.is_supported


def test_the_price_is_where_the_curves_of_supply_and_demand_meet():
    """Import of 60 kW for a load of 100: with s of 80 kW from 10 to 30 and d of 40 kW from 40 to 20,
    s - d = 40 and 10 + s / 4 = 40 - d / 2 give s = 200 / 3, d = 80 / 3 and a price of 80 / 3.
    """
    network = feeder([NEXT_TO_LOSSLESS], {"b": (100.0, 0.0)})
    case = market(
        *(network, [5.0], resource("seller", "b", supply=[(80, 10)]), resource("buyer", "b", demand=[(40, 40)])),
        p_max_kw=60.0,
    )
    found = clear(sloped(case, [20.0, -20.0]))
    np.testing.assert_allclose(found.awards.net_injection_kw, [[200 / 3, -80 / 3]], atol=POWER_KW)
    assert found.prices.lmp_usd_per_mwh[0, 1] == pytest.approx(80 / 3, abs=PRICE)
    assert found.certificate.price_ranges == ()
    cost = 60 * 5 + (10 + 80 / 3) / 2 * 200 / 3 - (40 + 80 / 3) / 2 * 80 / 3
    assert found.objective == pytest.approx(cost / 1000, abs=1e-4)


def test_segments_follow_each_other_along_one_curve():
    """20 kW from 10 to 20, then 40 kW from 20 to 40 and a block of 10 kW at 40: at 30 the first and half the next."""
    found = clear(beside_a_load([30.0], [10.0, 20.0, 0.0], supply=[(20, 10), (40, 20), (10, 40)]))
    np.testing.assert_allclose(found.awards.segment_kw, [[20, 20, 0]], atol=POWER_KW)


def test_a_price_of_reactive_power_may_slope_too():
    """Import costs 5, and 40 kvar cost from 3 to 7: half of them."""
    network = feeder([NEXT_TO_LOSSLESS], {"b": (100.0, 60.0)})
    offer = resource("one", "b", supply=[(50, 90)], q_kvar=(-80.0, 80.0))
    case = with_reactive(market(network, [20.0], offer, q_price_usd_per_mvarh=5.0), [("one", "inject", 40.0, 3.0)])
    bids = replace(case.reactive_bids, price_rise_usd_per_mvarh=np.array([[4.0]]))
    found = clear(replace(case, reactive_bids=bids))
    assert found.awards.q_kvar[0, 0] == pytest.approx(20, abs=POWER_KW)
    assert found.objective == pytest.approx((100 * 20 + 40 * 5 + 20 * 4) / 1000, abs=1e-4)


SLOPED_CASES: dict[str, Callable[[], MarketCase]] = {}


def case(build: Callable[[], MarketCase]) -> Callable[[], MarketCase]:
    """Enter the decorated builder into `SLOPED_CASES`."""
    SLOPED_CASES[build.__name__] = cache(build)
    return build


def fleet33(**fields: object) -> list:
    """Generators with curves, blocks beside slopes, and a load that may be less; rises are `FLEET_RISE`."""
    return [
        resource("far", 17, supply=[(300, 26), (400, 33)], **fields),
        resource("south", 32, supply=[(700, 24)], **fields),
        resource("north", 24, supply=[(500, 28), (300, 41)], **fields),
        resource("middle", 9, supply=[(600, 29)], **fields),
        resource("flexible", 12, demand=[(150, 52), (100, 36)]),
    ]


FLEET_RISE = [6.0, 14.0, 23.0, 0.0, 9.0, 17.0, -12.0, -8.0]


@case
def plain_33() -> MarketCase:
    return sloped(market(feeder33(), [36.0, 47.0], *fleet33(), load=[0.9, 1.1]), FLEET_RISE)


@case
def undervoltage_33() -> MarketCase:
    plain = market(feeder33(v_min_pu=0.955), [26.0], *fleet33(q_kvar=(-100.0, 150.0), s_max_kva=450.0))
    return sloped(plain, FLEET_RISE)


@case
def congestion_33() -> MarketCase:
    network = rated(feeder33(), "line 2", ampere=95.0)
    return sloped(market(network, [25.0, 33.0], *fleet33(), load=[0.95, 1.05]), FLEET_RISE)


@case
def overvoltage_33() -> MarketCase:
    """Sun that asks less for its first half than for its last, at a price below zero."""
    roofs = [
        resource(f"solar {bus}", bus, supply=[(kw, price)], q_kvar=(-0.3 * kw, 0.3 * kw), s_max_kva=1.1 * kw)
        for bus, kw, price in ((17, 1500.0, -6.0), (32, 2200.0, -9.0), (24, 2000.0, -4.0), (13, 1300.0, -7.0))
    ]
    return sloped(market(feeder33(v_max_pu=1.02), [14.0], *roofs, load=0.5), [9.0, 11.0, 5.0, 8.0])


@case
def day_with_ramps_and_a_battery_33() -> MarketCase:
    plain = market(feeder33(v_min_pu=0.93), SIX_PRICES, *fleet33(), load=SIX_LOADS)
    stored = with_stores(sloped(plain, FLEET_RISE), battery(30, energy_kwh=1200.0))
    ramps = np.array([3.1, 2.7, 4.3, np.inf, np.inf, np.inf])
    return replace(stored, resources=replace(stored.resources, ramp_up_kw_per_min=ramps, ramp_down_kw_per_min=ramps))


@case
def reactive_33() -> MarketCase:
    plain = sloped(market(feeder33(), [36.0], *fleet33(q_kvar=(-150.0, 200.0))), FLEET_RISE)
    segments = [("far", "inject", 150.0, 0.3), ("south", "inject", 180.0, 0.1), ("south", "absorb", 90.0, -0.2)]
    bid = with_reactive(plain, segments)
    return replace(bid, reactive_bids=replace(bid.reactive_bids, price_rise_usd_per_mvarh=np.array([[1.9, 2.3, -0.8]])))


@pytest.mark.parametrize("name", SLOPED_CASES)
def test_cost_prices_and_awards_are_those_of_the_ac_optimum(name: str):
    case = SLOPED_CASES[name]()
    found, expected = cleared_at_the_ac_optimum(case)
    np.testing.assert_allclose(found.awards.segment_kw, expected.award_kw, rtol=0, atol=0.01)
    np.testing.assert_allclose(found.awards.q_kvar, expected.q_kvar, rtol=0, atol=0.05)
    slope = case.bids.price_rise_usd_per_mwh
    in_part = (found.awards.segment_kw > 1.0) & (found.awards.segment_kw < case.bids.quantity_kw - 1.0) & (slope != 0)
    assert in_part.any()


def test_a_slope_next_to_nothing_clears_as_the_block_does():
    case = CASES["undervoltage_33"]()
    found, blocks = clear(sloped(case, np.where(case.bids.is_supply, 1e-7, -1e-7))), clear(case)
    assert found.objective == pytest.approx(blocks.objective, rel=1e-8)
    np.testing.assert_allclose(found.prices.lmp_usd_per_mwh, blocks.prices.lmp_usd_per_mwh, atol=1e-5)


@pytest.mark.parametrize("losses", ["none", "linear"])
def test_the_linear_model_equates_slopes_with_its_prices(losses: str):
    """Without losses the price is the 36 and 47 of import, which tells every award."""
    case = SLOPED_CASES["plain_33"]()
    found = clear(case, Settings(formulation="lindistflow", losses=losses))
    assert found.status == "converged"
    bids, price = case.bids, found.awards.lmp_usd_per_mwh[:, case.bids.resource]
    with np.errstate(divide="ignore"):
        share = (price - bids.price_usd_per_mwh) / bids.price_rise_usd_per_mwh
    expected = np.clip(share, 0, 1) * bids.quantity_kw
    is_sloped = bids.price_rise_usd_per_mwh != 0
    np.testing.assert_allclose(found.awards.segment_kw[is_sloped], expected[is_sloped], atol=1e-4)
    if losses == "none":
        np.testing.assert_allclose(found.prices.lmp_usd_per_mwh, [[36.0] * 33, [47.0] * 33], atol=1e-6)


def test_the_certificate_bounds_what_an_award_forgoes():
    """80 kW from 10 to 30, of which 40 are best at a price of 20.

    At 20 kW the next one would earn 5 and the last of the 20 that are missing nothing: 2.5 on average are forgone.
    The bound has all 60 that are left at 5.
    """
    found = clear(beside_a_load([20.0], [20.0], supply=[(80, 10)]))
    half = found._dispatch.x.copy()
    for name in ("award", "p"):
        half[found._dispatch.market.block(name)] *= 0.5
    gap, _ = dispatched_gap(found, half)
    assert gap > 20 * 5 / 2 / 1000
    assert gap == pytest.approx(60 * 5 / 1000, abs=1e-4)


def dispatched_gap(found, x: np.ndarray) -> tuple[float, float]:
    gap, traded = bid_gaps(replace(found._dispatch, x=x), found.prices, found.services)
    return float(gap.max()), traded


@pytest.mark.parametrize(
    ("supply", "demand", "rise", "element", "field", "message"),
    [
        (
            [(20, 30)],
            [],
            [-1.0],
            "bid of one, supply segment 0, interval 0",
            "price_end_usd_per_mwh",
            "must not be below price_usd_per_mwh of the segment",
        ),
        (
            [],
            [(20, 30)],
            [1.0],
            "bid of one, demand segment 0, interval 0",
            "price_end_usd_per_mwh",
            "must not be above price_usd_per_mwh of the segment",
        ),
        (
            [(20, 30), (20, 35)],
            [],
            [6.0, 0.0],
            "bid of one, supply segment 1, interval 0",
            "price_usd_per_mwh",
            "must not fall from one supply segment to the next",
        ),
        (
            [],
            [(20, 30), (20, 25)],
            [-6.0, 0.0],
            "bid of one, demand segment 1, interval 0",
            "price_usd_per_mwh",
            "must not rise from one demand segment to the next",
        ),
        (
            [(20, 30)],
            [],
            [np.inf],
            "bid of one, supply segment 0, interval 0",
            "price_end_usd_per_mwh",
            "must be finite",
        ),
    ],
)
def test_a_slope_against_the_curve_is_refused(supply, demand, rise, element: str, field: str, message: str):
    with pytest.raises(InputError) as caught:
        beside_a_load([20.0], rise, supply=supply, demand=demand)
    (problem,) = caught.value.problems
    assert (problem.element, problem.field) == (element, field)
    assert message in problem.message


def test_a_curve_without_jumps_is_in_order_whatever_its_numbers_round_to():
    """0.1 and what it lacks to 0.3 make a little more than 0.3 in floating point."""
    beside_a_load([20.0], [0.2, 0.1], supply=[(20, 0.1), (20, 0.3)])
