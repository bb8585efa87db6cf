"""Reactive power at a price: hand-worked markets on two buses, and the AC optimum with the same costs."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from cases import feeder33, generators33, market, rated, resource
from feeders import Branch, feeder
from optimum import cleared_at_the_ac_optimum
from storecases import SIX_LOADS, SIX_PRICES, battery, with_stores

from dlmp import InputError, Settings, clear
from dlmp.market import MarketCase
from dlmp.reactive import ReactiveBids

NEXT_TO_LOSSLESS = Branch("a", "b", 1e-6, 1e-6)
POWER_KVAR, PRICE = 1e-3, 1e-3

Segments = list[tuple[str, str, float, float]]
"""Resource, side, quantity [kvar] and price [currency/MVArh]; segments of a side in this order."""


def with_reactive(case: MarketCase, segments: Segments) -> MarketCase:
    """The same case with reactive bids, alike in all intervals."""
    names, sides, quantity, price = zip(*segments, strict=True)
    keys = list(zip(names, sides, strict=True))
    intervals = case.horizon.intervals
    bids = ReactiveBids(
        resource=np.array([case.resources.name.tolist().index(name) for name in names]),
        is_injection=np.array(sides) == "inject",
        segment=np.array([keys[:place].count(key) for place, key in enumerate(keys)]),
        quantity_kvar=np.tile(np.array(quantity, float), (intervals, 1)),
        price_usd_per_mvarh=np.tile(np.array(price, float), (intervals, 1)),
    )
    return replace(case, reactive_bids=bids)


def beside_a_load(segments: Segments, **substation: object) -> MarketCase:
    """An inverter that bids reactive power only, beside a load of 100 kW and 60 kvar."""
    network = feeder([NEXT_TO_LOSSLESS], {"b": (100.0, 60.0)})
    offer = resource("inverter", "b", supply=[(50, 90)], q_kvar=(-80.0, 80.0))
    return with_reactive(market(network, [20.0], offer, **substation), segments)


TWO_BLOCKS: Segments = [("inverter", "inject", 30.0, 3.0), ("inverter", "inject", 40.0, 8.0)]


def test_blocks_below_the_price_of_reactive_import_are_taken():
    """Import costs 5: the block at 3 is taken, that at 8 is not, and the price at the load is 5."""
    found = clear(beside_a_load(TWO_BLOCKS, q_price_usd_per_mvarh=5.0))
    np.testing.assert_allclose(found.awards.segment_kvar, [[30, 0]], atol=POWER_KVAR)
    np.testing.assert_allclose(found.prices.lmp_q_usd_per_mvarh[:, 1], 5, atol=PRICE)
    assert found.import_kvar[0] == pytest.approx(30, abs=POWER_KVAR)
    assert found.objective == pytest.approx((100 * 20 + 30 * 3 + 30 * 5) / 1000, abs=1e-5)


def test_the_dearest_block_in_use_makes_the_price_where_import_is_limited():
    """10 of 60 kvar may be imported: 30 at 3 and 20 of the 40 at 8, which is the price."""
    found = clear(beside_a_load(TWO_BLOCKS, q_price_usd_per_mvarh=5.0, q_max_kvar=10.0))
    np.testing.assert_allclose(found.awards.segment_kvar, [[30, 20]], atol=POWER_KVAR)
    np.testing.assert_allclose(found.prices.lmp_q_usd_per_mvarh[:, 1], 8, atol=PRICE)
    assert found.objective == pytest.approx((100 * 20 + 10 * 5 + 30 * 3 + 20 * 8) / 1000, abs=1e-5)
    assert found.certificate.is_supported
    table = found.awards.reactive_segment_table()
    assert table.columns.tolist()[2:] == [
        "resource",
        "side",
        "segment",
        "quantity_kvar",
        "price_usd_per_mvarh",
        "price_end_usd_per_mvarh",
        "award_kvar",
    ]
    np.testing.assert_allclose(table.award_kvar, [30, 20], atol=POWER_KVAR)


@pytest.mark.parametrize(("bid", "expected"), [(7.0, -25.0), (4.0, 0.0), (-2.0, 0.0)])
def test_power_is_absorbed_by_those_who_pay_more_than_it_costs(bid: float, expected: float):
    """Import costs 5."""
    found = clear(beside_a_load([("inverter", "absorb", 25.0, bid)], q_price_usd_per_mvarh=5.0))
    np.testing.assert_allclose(found.awards.q_kvar, [[expected]], atol=POWER_KVAR)
    assert found.certificate.is_supported


def test_who_wants_to_be_paid_for_absorbing_is_paid_where_export_is_limited():
    """Cables give 90 kvar and the load takes 60: the 30 that may not leave cost 2, and more demand there saves that."""
    network = feeder([NEXT_TO_LOSSLESS], {"b": (100.0, -30.0)})
    offer = resource("inverter", "b", supply=[(50, 90)], q_kvar=(-80.0, 80.0))
    case = with_reactive(market(network, [20.0], offer, q_min_kvar=0.0), [("inverter", "absorb", 50.0, -2.0)])
    found = clear(case)
    np.testing.assert_allclose(found.awards.q_kvar, [[-30]], atol=POWER_KVAR)
    np.testing.assert_allclose(found.prices.lmp_q_usd_per_mvarh[:, 1], -2, atol=PRICE)


def test_a_resource_with_reactive_bids_gives_nothing_beside_them():
    """Free of charge it would inject all 60 kvar."""
    case = beside_a_load([("inverter", "inject", 10.0, 3.0)], q_price_usd_per_mvarh=5.0)
    assert clear(case).awards.q_kvar[0, 0] == pytest.approx(10, abs=POWER_KVAR)
    free = clear(replace(case, reactive_bids=with_no_quantity(case.reactive_bids)))
    assert free.awards.q_kvar[0, 0] == pytest.approx(0, abs=POWER_KVAR)


def with_no_quantity(bids: ReactiveBids) -> ReactiveBids:
    return replace(bids, quantity_kvar=np.zeros_like(bids.quantity_kvar))


def test_reactive_power_that_saves_less_in_losses_than_it_costs_is_not_bought():
    """One more kvar against the 60 that flow saves 2 r Q = 2 x 0.05 x 0.6 of 20, 1.2: dearer it stays at home."""
    network = feeder([Branch("a", "b", 0.05, 0.0)], {"b": (100.0, 60.0)})
    offer = resource("inverter", "b", supply=[(50, 90)], q_kvar=(-80.0, 80.0))
    plain = market(network, [20.0], offer)
    dear = clear(with_reactive(plain, [("inverter", "inject", 40.0, 1.6)]))
    cheap = clear(with_reactive(plain, [("inverter", "inject", 40.0, 0.9)]))
    assert dear.awards.q_kvar[0, 0] == pytest.approx(0, abs=POWER_KVAR)
    assert 0 < cheap.awards.q_kvar[0, 0] < 40
    node = cheap.case.network.node("b")
    assert cheap.prices.lmp_q_usd_per_mvarh[0, node] == pytest.approx(0.9, abs=1e-6)


REACTIVE_CASES: dict[str, Callable[[], MarketCase]] = {}

ALL_FOUR: Segments = [
    *(("far", "inject", kvar, price) for kvar, price in ((60.0, 0.7), (90.0, 2.9))),
    ("far", "absorb", 80.0, -0.4),
    *(("south", "inject", kvar, price) for kvar, price in ((80.0, 0.5), (120.0, 3.3))),
    ("north", "inject", 150.0, 0.2),
    ("north", "absorb", 60.0, -0.9),
]
"""Bids of three of `generators33`; the fourth, ``middle``, gives its reactive power for nothing."""


def case(build: Callable[[], MarketCase]) -> Callable[[], MarketCase]:
    """Enter the decorated builder into `REACTIVE_CASES`."""
    REACTIVE_CASES[build.__name__] = cache(build)
    return build


@case
def losses_33() -> MarketCase:
    """Bought for what it saves in losses."""
    return with_reactive(market(feeder33(), [45.0], *generators33((-150.0, 200.0))), ALL_FOUR)


@case
def undervoltage_33() -> MarketCase:
    """Bought to hold up the voltage, as far as the ratings let it."""
    network = feeder33(v_min_pu=0.952)
    return with_reactive(market(network, [21.0], *generators33((-150.0, 200.0), 500.0)), ALL_FOUR)


@case
def congestion_33() -> MarketCase:
    """Bought because it takes room on a line, and at a price and with a limit at the substation."""
    network = rated(feeder33(), "line 2", kva=2300.0)
    plain = market(
        *(network, [25.0, 30.0], *generators33((-150.0, 200.0))),
        load=[1.0, 1.1],
        q_price_usd_per_mvarh=[1.5, 0.4],
        q_max_kvar=2100.0,
    )
    return with_reactive(plain, ALL_FOUR)


@case
def with_a_battery_33() -> MarketCase:
    """A battery whose inverter bids too, cleared over six hours."""
    plain = market(feeder33(v_min_pu=0.94), SIX_PRICES, *generators33((-150.0, 200.0)), load=SIX_LOADS)
    stored = with_stores(plain, battery(30, q_kvar=(-150.0, 250.0), s_max_kva=420.0))
    return with_reactive(stored, [*ALL_FOUR, ("battery 30", "inject", 130.0, 0.6), ("battery 30", "inject", 90.0, 1.9)])


@pytest.mark.parametrize("name", REACTIVE_CASES)
def test_cost_prices_and_awards_are_those_of_the_ac_optimum(name: str):
    case = REACTIVE_CASES[name]()
    found, expected = cleared_at_the_ac_optimum(case)
    np.testing.assert_allclose(found.awards.net_injection_kw, expected.p_kw, rtol=0, atol=0.05)
    np.testing.assert_allclose(found.awards.q_kvar, expected.q_kvar, rtol=0, atol=0.05)


@pytest.mark.parametrize("name", ["losses_33", "congestion_33"])
def test_a_segment_accepted_in_part_is_at_the_reactive_price_of_its_node(name: str):
    found = clear(REACTIVE_CASES[name]())
    bids, awards = found.case.reactive_bids, found.awards
    in_part = (awards.segment_kvar > 0.01) & (awards.segment_kvar < bids.quantity_kvar - 0.01)
    assert in_part.any()
    price = awards.lmp_q_usd_per_mvarh[:, bids.resource]
    np.testing.assert_allclose(price[in_part], bids.price_usd_per_mvarh[in_part], atol=1e-5)


def test_the_linear_model_takes_reactive_bids_too():
    """Without losses and limits they are worth what reactive import costs, 1.5 in one hour and 0.4 in the other."""
    case = replace(REACTIVE_CASES["congestion_33"](), network=feeder33())
    case = replace(case, substation=replace(case.substation, q_max_kvar=np.inf))
    found = clear(case, Settings(formulation="lindistflow", losses="none"))
    bids = case.reactive_bids
    cost = np.where(bids.is_injection, 1.0, -1.0) * bids.price_usd_per_mvarh
    sign = np.where(bids.is_injection, 1.0, -1.0)
    pays = sign * np.array([[1.5], [0.4]]) > cost
    np.testing.assert_allclose(found.awards.segment_kvar, np.where(pays, bids.quantity_kvar, 0.0), atol=1e-6)


@pytest.mark.parametrize(
    ("segments", "element", "field", "message"),
    [
        (
            [("inverter", "inject", 30.0, 8.0), ("inverter", "inject", 10.0, 3.0)],
            "reactive bid of inverter, inject segment 1, interval 0",
            "price_usd_per_mvarh",
            "must not fall from one inject segment to the next",
        ),
        (
            [("inverter", "absorb", 30.0, 1.0), ("inverter", "absorb", 10.0, 3.0)],
            "reactive bid of inverter, absorb segment 1, interval 0",
            "price_usd_per_mvarh",
            "must not rise from one absorb segment to the next",
        ),
        (
            [("inverter", "inject", 30.0, 2.0), ("inverter", "absorb", 10.0, 3.0)],
            "reactive bid of inverter, interval 0",
            "price_usd_per_mvarh",
            "absorb is dearer than its own inject at 2: the resource would trade with itself",
        ),
        (
            [("inverter", "inject", -1.0, 2.0)],
            "reactive bid of inverter, inject segment 0, interval 0",
            "quantity_kvar",
            "must be finite and >= 0",
        ),
        (
            [("inverter", "absorb", 1.0, np.nan)],
            "reactive bid of inverter, absorb segment 0, interval 0",
            "price_usd_per_mvarh",
            "must be finite",
        ),
    ],
)
def test_a_bad_reactive_bid_is_named(segments: Segments, element: str, field: str, message: str):
    with pytest.raises(InputError) as caught:
        beside_a_load(segments)
    (problem,) = caught.value.problems
    assert (problem.element, problem.field) == (element, field)
    assert message in problem.message


@pytest.mark.parametrize(
    ("q_kvar", "segments", "element", "field", "message"),
    [
        ((0.0, 0.0), [("inverter", "inject", 9.0, 1.0)], "resource inverter", "q_max_kvar", "nothing of its inject"),
        ((0.0, 9.0), [("inverter", "absorb", 9.0, 1.0)], "resource inverter", "q_min_kvar", "nothing of its absorb"),
        (
            (10.0, 20.0),
            [("inverter", "inject", 9.0, 1.0)],
            "resource inverter, interval 0",
            "q_min_kvar",
            "needs inject bids of at least q_min_kvar",
        ),
        (
            (-20.0, -10.0),
            [("inverter", "absorb", 9.0, 1.0)],
            "resource inverter, interval 0",
            "q_max_kvar",
            "needs absorb bids of at least -q_max_kvar",
        ),
    ],
)
def test_reactive_bids_must_fit_the_range_of_their_resource(q_kvar, segments, element: str, field: str, message: str):
    network = feeder([NEXT_TO_LOSSLESS], {"b": (100.0, 60.0)})
    plain = market(network, [20.0], resource("inverter", "b", supply=[(50, 90)], q_kvar=q_kvar))
    with pytest.raises(InputError) as caught:
        with_reactive(plain, segments)
    (problem,) = caught.value.problems
    assert (problem.element, problem.field) == (element, field)
    assert message in problem.message


def test_reactive_bids_of_nobody_and_of_the_wrong_shape_are_refused():
    case = beside_a_load(TWO_BLOCKS)
    with pytest.raises(InputError, match="reactive bid segment 1, resource = 7: is no resource of the case"):
        replace(case, reactive_bids=replace(case.reactive_bids, resource=np.array([0, 7])))
    with pytest.raises(InputError, match="reactive bids, quantity_kvar"):
        replace(case, reactive_bids=replace(case.reactive_bids, quantity_kvar=np.zeros((2, 2))))
