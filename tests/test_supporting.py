"""What counts as determined is: no multiplier that prices are made of can change, by linear programmes over all."""

import numpy as np
import pytest
from cases import CASES, market, resource
from feeders import Branch, feeder
from hypothesis import given, settings
from storecases import STORE_CASES
from test_pricerule import tied_markets

from dlmp import Clearing, MarketCase, Settings, clear
from dlmp.supporting import DualChanges


def check_that_the_rest_is_determined(found: Clearing) -> None:
    """Along a direction without relation to the network only multipliers of open parts have more than one value."""
    duals = DualChanges(found._dispatch)
    is_open = np.zeros(len(duals), bool)
    for part in duals.open_parts():
        is_open[part] = True
    every = np.arange(len(duals))
    rest = duals.is_published & ~is_open
    direction = np.where(rest, np.random.default_rng(1).normal(size=len(duals)), 0.0)
    low, high = duals.ends(every, direction)
    assert high.change[rest] == pytest.approx(low.change[rest], abs=1e-4)


@pytest.mark.parametrize("name", ["undervoltage_reactive_33", "congestion_power_33", "day_33"])
def test_cases_without_ties_are_determined(name: str):
    found = clear(CASES[name]())
    assert list(DualChanges(found._dispatch).open_parts()) == []
    check_that_the_rest_is_determined(found)


@pytest.mark.parametrize("name", list(STORE_CASES)[:2])
def test_prices_beside_stores_are_determined_where_they_are_said_to_be(name: str):
    check_that_the_rest_is_determined(clear(STORE_CASES[name]()))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(tied_markets())
def test_what_is_said_to_be_determined_is(markets: tuple[MarketCase, MarketCase, MarketCase, Settings]):
    case, *_, how = markets
    check_that_the_rest_is_determined(clear(case, how))


def test_parts_share_no_condition():
    """Two hours that nothing couples, each with a block that ends where the load does."""
    offer = resource("g", "a", supply=[(100, 10), (100, 20)])
    network = feeder([Branch("a", "b", 0.02, 0.04)], {"a": (100, 0)})
    found = clear(market(network, [20.0, 20.0], offer, p_min_kw=0.0, p_max_kw=0.0))
    duals = DualChanges(found._dispatch)
    parts = list(duals.open_parts())
    assert [set(duals.interval[part]) for part in parts] == [{0}, {1}]
