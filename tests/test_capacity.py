"""How much load a feeder serves: by hand on one line, with resources left alone and dispatched."""

from dataclasses import replace

import numpy as np
import pytest
from cases import Offer, market, resource
from feeders import Branch, feeder
from storecases import Store, with_stores

from dlmp import capacity
from dlmp.capacity import keeps_limits, largest_load, peak_load_kw, undispatched, with_more_load
from dlmp.clearing import clear
from dlmp.errors import InputError, PowerFlowError
from dlmp.market import MarketCase, simple_case

LINE = Branch("a", "b", 1e-5, 1e-5, rating=1.0)
"""At 100 kVA it is full, and loses next to nothing."""
PLANT = resource("plant", "b", supply=[(50, 30)])


def one_line(*offers: Offer, load_kw: float = 80.0, **options: object) -> MarketCase:
    network = feeder([LINE], {"b": (load_kw, 0.0)}, **options)
    return market(network, [20.0, 25.0], *offers, load=[0.5, 1.0]) if offers else simple_case(network, [20.0, 25.0])


def scheduled_kw(case: MarketCase) -> np.ndarray:
    """(t, r) What every resource is scheduled to inject."""
    injected = clear(case).awards.net_injection_kw
    np.testing.assert_array_equal(case.bids.is_self_scheduled, True)
    return injected


def test_undispatched_sun_gives_all_it_has_and_a_plant_what_it_must():
    sun = resource("roof", "b", kind="solar", supply=[(40, -5)], available_kw=[10, 40], q_kvar=(-5, 5))
    must = resource("must", "b", supply=[(30, 90)], must_run_kw=12)
    wish = resource("wish", "b", kind="load", demand=[(15, 300)])
    alone = undispatched(one_line(sun, PLANT, must, wish))
    np.testing.assert_allclose(scheduled_kw(alone), [[10, 0, 12, 0], [40, 0, 12, 0]])
    assert not alone.resources.q_min_kvar.any()
    assert not alone.resources.q_max_kvar.any()


def test_undispatched_keeps_what_is_self_scheduled():
    case = one_line(resource("cooling", "b", kind="load", demand=[(20, 60), (10, 50)]), PLANT)
    fixed = case.bids.is_self_scheduled.copy()
    fixed[:, np.flatnonzero(case.bids.segment == 0)] = True
    kept = undispatched(replace(case, bids=replace(case.bids, is_self_scheduled=fixed)))
    np.testing.assert_allclose(scheduled_kw(kept), [[-20, 50], [-20, 50]])


def test_undispatched_car_charges_at_once_and_a_battery_rests():
    car = Store(
        "car", "b", kind="ev", charge_kw=[0, 8, 8, 8], energy_kwh=60, initial_kwh=20, least_kwh=[0, 0, 0, 24],
        drain_kw=[5, 0, 0, 0], efficiency=(0.9, 1.0),
    )  # fmt: skip
    battery = Store("battery", "b", charge_kw=30, discharge_kw=30, energy_kwh=60, initial_kwh=30, least_kwh=30)
    plain = simple_case(feeder([LINE], {"b": (80.0, 0.0)}), np.array([20.0, 30.0, 10.0, 15.0]))
    alone = undispatched(with_stores(plain, car, battery))
    expected = [[0, 0], [-8, 0], [-(24 - 15 - 7.2) / 0.9, 0], [0, 0]]
    np.testing.assert_allclose(scheduled_kw(alone), expected, atol=1e-9)
    assert not len(alone.stores)


def test_more_load_stands_where_and_when_load_stands_at_its_power_factor():
    branches = [Branch("a", "b", 1e-3, 1e-3), Branch("b", "c", 1e-3, 1e-3), Branch("b", "d", 1e-3, 1e-3)]
    network = feeder(branches, {"b": (60.0, 30.0), "c": (20.0, 0.0), "d": (-10.0, 0.0)})
    more = with_more_load(market(network, [20.0, 20.0], PLANT, load=[0.5, 1.0]), 40.0)
    np.testing.assert_allclose(more.load_p_kw[:, 1:], [[45, 15, -5], [90, 30, -10]])
    np.testing.assert_allclose(more.load_q_kvar[:, 1:], [[22.5, 0, 0], [45, 0, 0]])
    assert peak_load_kw(more) == pytest.approx(120.0)


@pytest.mark.parametrize("guess_kw", [65.0, 77.0])
def test_the_largest_load_is_what_the_line_has_left(guess_kw: float):
    found = largest_load(one_line(PLANT), guess_kw)
    assert 70.0 - 0.5 < found.more_kw < 70.0 <= found.fails_kw <= found.more_kw + 0.4
    assert keeps_limits(found.holds)


def test_without_dispatch_the_largest_load_is_that_of_the_line_alone():
    alone = largest_load(undispatched(one_line(PLANT)), 15.0)
    assert 20.0 - 0.5 < alone.more_kw < 20.0 <= alone.fails_kw
    assert alone.more_mw == alone.more_kw / 1000


def test_load_goes_where_the_line_has_too_little():
    alone = largest_load(undispatched(one_line(PLANT, load_kw=130.0)), -25.0)
    assert -30.0 - 0.7 < alone.more_kw < -30.0 <= alone.fails_kw


def test_a_load_that_no_power_flow_carries_is_one_too_many():
    thin = feeder([Branch("a", "b", 0.4, 0.4)], {"b": (50.0, 0.0)}, band=(0.01, 2.0))
    found = largest_load(simple_case(thin, 20.0), 1.0)
    with pytest.raises(PowerFlowError):
        clear(with_more_load(simple_case(thin, 20.0), found.fails_kw))


def test_every_load_that_holds_is_checked_by_an_independent_power_flow(monkeypatch):
    def refuse(clearing):
        asked.append(clearing)
        return False

    asked = []
    monkeypatch.setattr(capacity, "keeps_limits", refuse)
    with pytest.raises(InputError, match="whatever load is taken away"):
        largest_load(one_line(PLANT))
    assert len(asked) == 9


@pytest.mark.parametrize("load_kw", [0.0, -20.0])
def test_no_load_is_refused(load_kw: float):
    with pytest.raises(InputError, match="there is nothing to add to"):
        with_more_load(one_line(load_kw=load_kw), 10.0)
