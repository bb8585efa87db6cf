"""Prices that are not the only ones: found with both ends, and not where they are unique."""

from dataclasses import replace

import numpy as np
import pytest
from cases import CASES, feeder33, market, resource
from feeders import Branch, feeder
from scipy import sparse

from dlmp import MarketCase, Settings, clear
from dlmp.nearest import Polyhedron
from dlmp.supporting import FARTHEST, _end
from dlmp.uniqueness import PriceRange, price_ranges

LINE = [Branch("a", "b", 0.02, 0.04)]


def ranges(case, **settings: object) -> tuple[PriceRange, ...]:
    found = clear(case, Settings(**settings))
    assert found.status == "converged"
    return price_ranges(found._dispatch, found.prices)


def curve(bus: str, *blocks: tuple[float, float]):
    return resource("g", bus, supply=blocks)


def test_an_offer_that_ends_just_at_the_demand_leaves_its_price_and_the_next():
    """A feeder on its own: a load of 100 kW, and 100 kW offered at 10, 100 more at 30."""
    network = feeder(LINE, {"a": (100, 0)})
    (found,) = ranges(market(network, 20.0, curve("a", (100, 10), (100, 30)), p_min_kw=0.0, p_max_kw=0.0))
    assert found.interval == 0
    assert found.low_usd_per_mwh == pytest.approx(10.0, abs=1e-4)
    assert found.high_usd_per_mwh == pytest.approx(30.0, abs=1e-4)


def test_an_offer_whose_price_slopes_leaves_the_price_at_its_end_and_the_next():
    """100 kW from 10 to 20, then 100 kW at 30."""
    network = feeder(LINE, {"a": (100, 0)})
    case = market(network, 20.0, curve("a", (100, 10), (100, 30)), p_min_kw=0.0, p_max_kw=0.0)
    (found,) = ranges(replace(case, bids=replace(case.bids, price_rise_usd_per_mwh=np.array([[10.0, 0.0]]))))
    assert (found.low_usd_per_mwh, found.high_usd_per_mwh) == pytest.approx((20.0, 30.0), abs=1e-4)


def test_an_import_that_may_not_rise_leaves_its_price_and_the_next_offer():
    """Export at 20 is open, so less than 20 is no price."""
    network = feeder(LINE, {"a": (100, 0)})
    (found,) = ranges(market(network, 20.0, curve("a", (100, 10), (100, 30)), p_max_kw=0.0))
    assert (found.low_usd_per_mwh, found.high_usd_per_mwh) == pytest.approx((20.0, 30.0), abs=1e-4)


def test_a_lossless_model_has_the_range_at_the_end_of_the_feeder():
    network = feeder(LINE, {"b": (100, 0)})
    (found,) = ranges(
        market(network, 20.0, curve("b", (100, 10), (100, 30)), p_min_kw=0.0, p_max_kw=0.0),
        formulation="lindistflow",
        losses="none",
    )
    assert (found.low_usd_per_mwh, found.high_usd_per_mwh) == pytest.approx((10.0, 30.0), abs=1e-4)


def test_demand_that_is_just_served_leaves_what_it_would_pay():
    """A buyer of 100 kW at 50 and an offer of 200 kW at 10, half of which is the load's: 10 is the only price.

    With 100 kW offered to 100 kW wanted, everything from 10 to 50 is a price.
    """
    network = feeder(LINE)
    buyer = resource("d", "a", kind="load", demand=[(100, 50)])
    island = {"p_min_kw": 0.0, "p_max_kw": 0.0}
    (found,) = ranges(market(network, 20.0, curve("a", (100, 10)), buyer, **island))
    assert (found.low_usd_per_mwh, found.high_usd_per_mwh) == pytest.approx((10.0, 50.0), abs=1e-4)
    assert ranges(market(network, 20.0, curve("a", (200, 10)), buyer, **island)) == ()


def test_only_the_interval_that_has_a_range_is_told():
    network = feeder(LINE, {"a": (100, 0)})
    offer = resource("g", "a", supply=[([100, 90, 100], 10), (100, 30)])
    case = market(network, [20.0, 20.0, 20.0], offer, load=[0.9, 1.0, 1.0], p_min_kw=0.0, p_max_kw=0.0)
    (found,) = ranges(case)
    assert found.interval == 2
    assert (found.low_usd_per_mwh, found.high_usd_per_mwh) == pytest.approx((10.0, 30.0), abs=1e-4)


def test_the_price_that_is_published_lies_in_its_range():
    network = feeder(LINE, {"a": (100, 0)})
    found = clear(market(network, 20.0, curve("a", (100, 10), (100, 30)), p_min_kw=0.0, p_max_kw=0.0))
    (price_range,) = price_ranges(found._dispatch, found.prices)
    node = found.case.network.node(price_range.bus)
    price = found.prices.lmp_usd_per_mwh[0, node]
    assert price_range.low_usd_per_mwh - 1e-6 <= price <= price_range.high_usd_per_mwh + 1e-6


def test_a_resource_full_where_a_limit_begins_to_bind_leaves_a_range():
    """The voltage just holds at the last kilowatt of the cheap block: its price and the dear one support it."""
    network = feeder33(v_min_pu=0.93)
    full = clear(
        market(network, 20.0, resource("south", 32, supply=[(900, 30)]), resource("far", 17, supply=[(900, 31)]))
    )
    kw = full.awards.net_injection_kw[0]
    assert (kw > 1).all()
    blocks = [
        resource("south", 32, supply=[(kw[0], 30), (500, 60)]),
        resource("far", 17, supply=[(kw[1], 31), (500, 70)]),
    ]
    case = market(network, 20.0, *blocks)
    for found in (one for one in ranges(case) if not one.is_reactive):
        assert found.high_usd_per_mwh - found.low_usd_per_mwh > 1.0
        low, high = one_sided_prices(case, found)
        assert (found.low_usd_per_mwh, found.high_usd_per_mwh) == pytest.approx((low, high), rel=1e-3)


@pytest.mark.parametrize("name", ["undervoltage_reactive_33", "negative_price_33", "interior_33", "day_33"])
def test_prices_inside_a_block_are_unique(name: str):
    """As the certificates of all cases say, too."""
    assert ranges(CASES[name]()) == ()


def one_sided_prices(case: MarketCase, found: PriceRange, step_kw: float = 0.1) -> tuple[float, float]:
    """What a little less demand saves and a little more costs where `found` is, per MWh or MVArh."""
    field = "load_q_kvar" if found.is_reactive else "load_p_kw"
    here = clear(case).objective
    costs = []
    for change in (-step_kw, step_kw):
        load = np.array(getattr(case, field))
        load[found.interval, case.network.node(found.bus)] += change
        costs.append(clear(replace(case, **{field: load})).objective)
    return (here - costs[0]) / step_kw * 1000, (costs[1] - here) / step_kw * 1000


def test_the_ends_of_a_range_are_what_less_demand_saves_and_more_costs():
    network = feeder(LINE, {"a": (100, 0)})
    case = market(network, 20.0, curve("a", (100, 10), (100, 30)), p_min_kw=0.0, p_max_kw=0.0)
    (found,) = ranges(case)
    assert (found.low_usd_per_mwh, found.high_usd_per_mwh) == pytest.approx(one_sided_prices(case, found), rel=1e-6)


def test_an_end_is_open_where_the_bound_of_all_changes_holds_the_price_and_not_where_it_holds_another():
    """Two unknowns, the second at 10,000 whatever the first does: along the first, up to 5 or without end."""
    second, nothing = np.array([FARTHEST, FARTHEST]), sparse.csr_array((0, 2))
    for most, is_open in ((5.0, False), (FARTHEST, True)):
        within = Polyhedron(np.array([-1.0, second[0]]), np.array([most, second[1]]), nothing, np.zeros(0), np.zeros(0))
        end = _end(within, np.array([-1.0, 0.0]), 1e-3)
        assert end.change.tolist() == [most, FARTHEST]
        assert end.is_open == is_open


def test_points_of_an_end_meet_what_holds_it_with_equality():
    """x + y <= 4 holds the end of x + y, 4; the bounds of x and y, 3 each, do not."""
    within = Polyhedron(
        np.full(2, -3.0), np.full(2, 3.0), sparse.csr_array(np.array([[1.0, 1.0], [1.0, -1.0]])),
        np.array([-np.inf, -9.0]), np.array([4.0, 9.0]),
    )  # fmt: skip
    end = _end(within, np.array([-1.0, -1.0]), 1e-3)
    assert end.holds_row.tolist() == [True, False]
    assert not end.holds_unknown.any()
    assert end.change.sum() == pytest.approx(4)
