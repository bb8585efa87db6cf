"""Bids that tie are shared out by quantity, whatever their order, and the network does not notice."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from cases import Offer, feeder33, market, resource
from feeders import Branch, feeder
from hypothesis import given, settings
from hypothesis import strategies as st

from dlmp import Clearing, MarketCase, clear
from dlmp.ties import places

LINE = [Branch("a", "b", 0.02, 0.04)]
ISLAND = {"p_min_kw": 0.0, "p_max_kw": 0.0}


def awards(found: Clearing) -> pd.Series:
    assert found.status == "converged"
    return found.awards.segment_table().set_index(["resource", "side", "segment"]).award_kw.sort_index()


def reactive(found: Clearing) -> pd.Series:
    return found.awards.table().set_index("resource").q_kvar


def island(*offers: Offer, load: tuple[float, float] = (100, 0)) -> MarketCase:
    return market(feeder(LINE, {"b": load}), 20.0, *offers, **ISLAND)


def test_offers_of_one_price_at_one_bus_are_accepted_pro_rata():
    """80 and 120 kW at 10, of which 100 kW are needed: half of each."""
    found = clear(island(resource("g", "b", supply=[(80, 10)]), resource("h", "b", supply=[(120, 10)])))
    assert awards(found).tolist() == pytest.approx([40, 60], abs=1e-5)


def test_a_share_that_a_resource_cannot_take_goes_to_the_others():
    """110 kW of 80, 120 and 20 kW at 10 are half of each; `h` may inject 45 kW, and the others share 65 kW."""
    offers = [
        resource("g", "b", supply=[(80, 10)]),
        resource("h", "b", supply=[(120, 10)], available_kw=45),
        resource("k", "b", supply=[(20, 10)]),
    ]
    found = clear(island(*offers, load=(110, 0)))
    assert awards(found).tolist() == pytest.approx([52, 45, 13], abs=1e-5)


def test_a_rating_that_leaves_no_room_for_the_share_of_reactive_power_is_kept():
    """`h` fills its rating with real power: the reactive power comes from `g`."""
    offers = [
        resource("g", "b", supply=[(10, 10)], q_kvar=(-50, 50)),
        resource("h", "b", supply=[(90, 10)], q_kvar=(-50, 50), s_max_kva=90 / np.cos(np.pi / 32)),
    ]
    found = clear(island(*offers, load=(100, 20)))
    assert found.certificate.is_feasible
    q_kvar = reactive(found)
    assert q_kvar["g"] > q_kvar["h"] + 1
    ample = clear(island(*(replace(offer, s_max_kva=np.inf) for offer in offers), load=(100, 20)))
    assert reactive(ample)["g"] == pytest.approx(reactive(ample)["h"], abs=1e-5)


def test_reactive_power_is_shared_by_the_width_of_the_ranges():
    offers = [
        resource("g", "b", supply=[(60, 10)], q_kvar=(-10, 10)),
        resource("h", "b", supply=[(60, 10)], q_kvar=(-30, 30)),
    ]
    island_q = market(feeder(LINE, {"b": (100, 20)}), 20.0, *offers, **ISLAND, q_min_kvar=0.0, q_max_kvar=0.0)
    assert reactive(clear(island_q)).tolist() == pytest.approx([5, 15], abs=1e-5)


def test_supply_that_ties_with_demand_trades_with_it():
    offers = [resource("g", "b", supply=[(80, 10)]), resource("d", "b", kind="load", demand=[(30, 10)])]
    found = clear(island(*offers, load=(0, 0)))
    assert awards(found).tolist() == pytest.approx([30, 30], abs=1e-5)


def test_offers_elsewhere_or_at_another_price_do_not_tie():
    """The far offer saves losses; of the near ones the cheaper goes first."""
    offers = [
        resource("near", "a", supply=[(80, 10)]),
        resource("far", "b", supply=[(80, 10)]),
        resource("dear", "b", supply=[(80, 10.5)]),
    ]
    found = awards(clear(island(*offers)))
    assert found["far", "supply", 0] == pytest.approx(80, abs=1e-5)
    assert found["dear", "supply", 0] == pytest.approx(0, abs=1e-5)


def test_places_are_where_the_same_ports_have_the_same_shares():
    case = island(*(resource(name, bus, supply=[(1, 1)]) for name, bus in [("g", "b"), ("h", "a"), ("k", "b")]))
    assert places(case.resources).tolist() == [0, 1, 0]


def test_what_the_network_carries_is_left_alone():
    """Twins on the 33-bus feeder carry together what one resource of twice the size does, at the same prices."""
    one = [resource("g", 17, supply=[(400, 31)], q_kvar=(-60, 60)), resource("h", 32, supply=[(600, 33)])]
    two = [
        resource("g", 17, supply=[(100, 31)], q_kvar=(-15, 15)),
        resource("twin", 17, supply=[(300, 31)], q_kvar=(-45, 45)),
        one[1],
    ]
    network = feeder33(v_min_pu=0.93)
    whole, split = clear(market(network, 20.0, *one)), clear(market(network, 20.0, *two))
    kw = awards(split)
    assert kw["g", "supply", 0] + kw["twin", "supply", 0] == pytest.approx(awards(whole)["g", "supply", 0], abs=1e-4)
    assert kw["twin", "supply", 0] == pytest.approx(3 * kw["g", "supply", 0], abs=1e-4)
    assert split.prices.lmp_usd_per_mwh == pytest.approx(whole.prices.lmp_usd_per_mwh, abs=1e-5)
    assert split.voltages.v_pu == pytest.approx(whole.voltages.v_pu, abs=1e-8)
    assert split.certificate.is_feasible
    assert split.certificate.import_mismatch_kw < 1e-4


@st.composite
def twins(draw: st.DrawFn) -> list[Offer]:
    """Up to five offers at one bus and few prices, some with reactive power and a rating."""
    offers = []
    for index in range(draw(st.integers(2, 5))):
        kw, price = draw(st.sampled_from([20.0, 50.0, 70.0])), draw(st.sampled_from([10.0, 10.0, 15.0]))
        q_kvar = draw(st.sampled_from([0.0, 0.0, 10.0, 40.0]))
        rating = draw(st.sampled_from([np.inf, 1.1])) * kw
        is_supply = index == 0 or draw(st.booleans())
        side = {"supply": [(kw, price)]} if is_supply else {"demand": [(kw, price)], "kind": "load"}
        offers.append(resource(f"r{index}", "b", q_kvar=(-q_kvar, q_kvar), s_max_kva=rating + q_kvar / 10, **side))
    return offers


def check_that_order_changes_no_award(offers: list[Offer], order: list[int]) -> None:
    safety = resource("last", "b", supply=[(1000, 90)], q_kvar=(-500, 500))
    first, other = (
        clear(island(*some, safety, load=(90, 30))) for some in (offers, [offers[index] for index in order])
    )
    pd.testing.assert_series_equal(awards(first), awards(other), atol=1e-4, rtol=0)
    # Losses are flat in reactive power: the clearing's tolerance leaves the total of the place some 1e-4 kvar.
    one, two = (reactive(found).sort_index() for found in (first, other))
    assert one.sum() == pytest.approx(two.sum(), abs=1e-3)
    pd.testing.assert_series_equal(one / one.sum(), two / two.sum(), atol=1e-6, rtol=0)
    assert first.certificate.worst_range_violation_kw < 1e-5


@st.composite
def ordered_twins(draw: st.DrawFn) -> tuple[list[Offer], list[int]]:
    offers = draw(twins())
    return offers, draw(st.permutations(range(len(offers))))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(ordered_twins())
def test_order_changes_no_award(case: tuple[list[Offer], list[int]]):
    check_that_order_changes_no_award(*case)


@pytest.mark.nightly
@settings(max_examples=500, deadline=None)
@given(ordered_twins())
def test_order_changes_no_award_in_many_markets(case: tuple[list[Offer], list[int]]):
    check_that_order_changes_no_award(*case)


def test_no_order_of_three_changes_awards():
    offers = [
        resource("g", "b", supply=[(80, 10)], q_kvar=(-10, 10)),
        resource("h", "b", supply=[(120, 10)], q_kvar=(-30, 30), s_max_kva=62.0),
        resource("k", "b", supply=[(100, 9), (50, 10)], q_kvar=(-30, 30), available_kw=105),
    ]
    first, *others = (awards(clear(island(*some, load=(160, 20)))) for some in permutations(offers))
    for other in others:
        pd.testing.assert_series_equal(first, other, atol=1e-5, rtol=0)
