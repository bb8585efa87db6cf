"""The energy market's rules, held against geometry and bookkeeping."""

import numpy as np
import pyomo.environ as pyo
import pytest
from cases import feeder33, market, resource

from dlmp.market import MarketCase
from dlmp.products.energy import declare_energy, energy_columns

RATING_KVA = 250.0


@pytest.fixture
def case() -> MarketCase:
    return market(
        feeder33(),
        [20.0, 30.0],
        resource("inverter", 5, supply=[(150, 10), (50, 12)], q_kvar=(-250.0, 250.0), s_max_kva=RATING_KVA),
        resource("battery", 9, supply=[(80, 40)], demand=[(60, 15)]),
        p_max_kw=4000.0,
        q_price_usd_per_mvarh=[1.0, 2.0],
    )


def declared(case: MarketCase, sides: int) -> pyo.ConcreteModel:
    model = pyo.ConcreteModel()
    declare_energy(model, case, range(2), sides)
    return model


@pytest.mark.parametrize("sides", [4, 7, 32])
def test_the_polygon_is_inscribed_in_the_circle_of_the_rating(sides: int):
    """Its corners lie on the circle, each on two sides; anything beyond a corner is outside."""
    both_ways = {"supply": [(250, 10)], "demand": [(250, 5)], "q_kvar": (-250.0, 250.0)}
    model = declared(market(feeder33(), [20.0] * 2, resource("battery", 5, **both_ways, s_max_kva=RATING_KVA)), sides)
    rows = [row for key, row in model.apparent_power_within_rating.items() if key[0] == 1]
    assert len(rows) == sides
    for corner in (2 * np.arange(sides) + 1) * np.pi / sides:
        for size, on_a_side, outside in ((1.0, 2, 0), (1.001, 0, 2)):
            model.p[1, 0] = size * RATING_KVA / 100 * np.cos(corner)
            model.q[1, 0] = size * RATING_KVA / 100 * np.sin(corner)
            slack = np.array([pyo.value(row.upper) - pyo.value(row.body) for row in rows])
            assert (np.abs(slack) < 1e-9).sum() == on_a_side
            assert (slack < -1e-9).sum() == outside


@pytest.mark.parametrize("sides", [4, 7, 32])
def test_sides_of_the_polygon_that_are_left_out_keep_nothing(case: MarketCase, sides: int):
    """In the inverter's range of power, from 0 to 200 kW and 250 kvar either way, the others are all that counts."""
    model = declared(case, sides)
    kept = {key[2] for key in model.apparent_power_within_rating}
    assert 0 < len(kept) < sides
    angle = 2 * np.pi * np.arange(sides) / sides
    real, reactive = np.meshgrid(np.linspace(0, 200, 21), np.linspace(-250, 250, 21))
    along = real[..., None] * np.cos(angle) + reactive[..., None] * np.sin(angle)
    beyond = along > RATING_KVA * np.cos(np.pi / sides) + 1e-9
    np.testing.assert_array_equal(beyond.any(axis=-1), beyond[..., sorted(kept)].any(axis=-1))
    assert beyond[..., sorted(kept)].any(axis=(0, 1)).all()


def test_a_resource_without_a_rating_has_no_polygon(case: MarketCase):
    model = declared(case, 8)
    assert {key[1] for key in model.apparent_power_within_rating} == {0}


def test_an_injection_is_its_supply_less_its_demand(case: MarketCase):
    model = declared(case, 8)
    for segment, award in enumerate((1.2, 0.3, 0.5, 0.4)):
        model.award[0, segment] = award
    for owner, injection in ((0, 1.5), (1, 0.1)):
        model.p[0, owner].set_value(injection, skip_validation=True)
        row = model.injection_is_supply_less_demand[0, owner]
        assert row.equality
        assert pyo.value(row.body) == pytest.approx(pyo.value(row.upper), abs=1e-12)


def test_quantities_are_bounds_in_per_unit_and_prices_costs_of_either_sign(case: MarketCase):
    columns = energy_columns(case)
    np.testing.assert_allclose(columns["award"].upper, [[1.5, 0.5, 0.8, 0.6]] * 2)
    np.testing.assert_allclose(columns["award"].cost, [[10, 12, 40, -15]] * 2)
    np.testing.assert_allclose(columns["p"].lower, [[0.0, -0.6]] * 2)
    np.testing.assert_allclose(columns["p"].upper, [[2.0, 0.8]] * 2)
    np.testing.assert_allclose(columns["q"].upper, [[2.5, 0.0]] * 2)
    np.testing.assert_allclose(columns["import_p"].upper, 40.0)
    np.testing.assert_array_equal(columns["import_p"].lower, -np.inf)
    np.testing.assert_allclose(columns["import_p"].cost, [[20.0], [30.0]])
    np.testing.assert_allclose(columns["import_q"].cost, [[1.0], [2.0]])
