"""Where going both ways would pay, each store gets the directions that cost least of all: by hand and by trying all."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from cases import feeder33, generators33, market, resource
from feeders import Branch, feeder
from storecases import Store, with_stores

from dlmp import Clearing, InfeasibleError, InputError, Penalties, Settings, Tier, clear
from dlmp.market import MarketCase, simple_case

SEEDS = (20, 34, 8, 10, 29, 32, 39)
CHEAP = Penalties(substation=(Tier(0.0, 200.0),))


def beside_a_load(price: list[float], *stores: Store) -> MarketCase:
    """Stores behind a line that loses next to nothing, beside a load of 200 kW."""
    case = simple_case(feeder([Branch("a", "b", 1e-5, 1e-5)], {"b": (200.0, 0.0)}), np.array(price))
    return with_stores(case, *stores)


def lossy(name: str, **fields: object) -> Store:
    plain = Store(name, "b", charge_kw=50.0, discharge_kw=50.0, energy_kwh=100.0, efficiency=(0.8, 0.8))
    return replace(plain, **fields)


def goes_both_ways(found: Clearing) -> bool:
    return bool((np.minimum(found.stores.charge_kw, found.stores.discharge_kw) > 1e-4).any())


def test_a_battery_makes_room_at_a_small_loss_for_a_larger_gain_later():
    """50 kW charged at -30 store 40 kWh; 20 of 60 kWh are free, and 16 kW discharged at -20 free 20 more.

    That earns 1.50 - 0.32; charging 25 kW at -30 into what is free, 0.75.
    """
    found = clear(beside_a_load([-20.0, -30.0], lossy("battery", initial_kwh=40.0, energy_kwh=60.0)))
    np.testing.assert_allclose(found.stores.discharge_kw.ravel(), [16, 0], atol=1e-3)
    np.testing.assert_allclose(found.stores.charge_kw.ravel(), [0, 50], atol=1e-3)


def test_each_store_has_a_direction_of_its_own():
    """In the hour at -40 the empty one charges; the one that must be empty in the end gives what it holds at -5."""
    leaving = lossy("leaving", initial_kwh=40.0, energy_kwh=[100.0, 0.0])
    found = clear(beside_a_load([-40.0, -5.0], lossy("empty"), leaving))
    assert not goes_both_ways(found)
    net = found.stores.discharge_kw - found.stores.charge_kw
    np.testing.assert_allclose(net[0], [-50, -(50 / 0.8 - 40) / 0.8], atol=1e-3)
    np.testing.assert_allclose(net[1], [-50, 50], atol=1e-3)


def two_stores(seed: int) -> MarketCase:
    """Three hours of negative prices on the 33-bus feeder, with a store at the ends of two of its laterals.

    With the lesser direction closed in each interval, `SEEDS` cost 0.2 to 10 USD more than need be.
    """
    rng = np.random.default_rng(seed)
    plain = market(feeder33(), -rng.lognormal(3.0, 1.0, 3), *generators33(), load=[0.8, 0.7, 0.9])
    return with_stores(
        plain,
        *(
            Store(
                *(f"store {bus}", bus),
                charge_kw=500.0,
                discharge_kw=discharge_kw,
                energy_kwh=850.0,
                initial_kwh=rng.uniform(0.0, 800.0),
                efficiency=(rng.uniform(0.7, 0.95), 0.9),
                cycling=2.0,
                final=rng.uniform(-20.0, 20.0),
            )
            for bus, discharge_kw in ((17, 300.0), (30, 500.0))
        ),
    )


def best_of_all_directions(case: MarketCase) -> float:
    """Least cost of the AC clearings with each store's direction given in every interval, 64 in all."""
    stores, costs = case.stores, []
    for choice in itertools.product([0.0, 1.0], repeat=stores.charge_max_kw.size):
        may_charge = np.reshape(choice, stores.charge_max_kw.shape)
        powers = {
            "charge_max_kw": stores.charge_max_kw * may_charge,
            "discharge_max_kw": stores.discharge_max_kw * (1 - may_charge),
        }
        try:
            found = clear(replace(case, stores=replace(stores, **powers)))
        except (InputError, InfeasibleError):
            continue
        assert found.status == "converged"
        costs.append(found.objective)
    assert len(costs) > 10
    assert max(costs) > min(costs) + 1.0
    return min(costs)


@pytest.mark.parametrize("seed", SEEDS[:1])
def test_no_other_choice_of_directions_costs_less_where_limits_are_broken(seed: int):
    """Import of at least 6 MW in the second hour, more than loads and stores can take."""
    case = two_stores(seed)
    least = np.array([-np.inf, 6e3, -np.inf])
    case = replace(case, substation=replace(case.substation, p_min_kw=least), penalties=CHEAP)
    found = clear(case)
    assert found.status == "converged"
    assert not goes_both_ways(found)
    assert found.broken_limits().interval.tolist() == [1]
    assert found.objective <= best_of_all_directions(case) + 1e-6


@pytest.mark.parametrize(
    "seed", [*SEEDS[:2], *(pytest.param(seed, marks=pytest.mark.nightly) for seed in (*SEEDS[2:], *range(8)))]
)
def test_no_other_choice_of_directions_costs_less(seed: int):
    case = two_stores(seed)
    found = clear(case)
    assert found.status == "converged"
    assert not goes_both_ways(found)
    assert found.objective <= best_of_all_directions(case) + 1e-6


def test_burning_energy_is_no_way_to_keep_a_limit():
    """100 kW more than the load must not leave; the full battery would have to charge and discharge at once."""
    solar = resource("solar", "b", kind="solar", supply=[(200.0, 0.0)], must_run_kw=200.0)
    plain = market(feeder([Branch("a", "b", 1e-5, 1e-5)], {"b": (100.0, 0.0)}), [20.0], solar, p_min_kw=0.0)
    full = lossy("battery", charge_kw=300.0, discharge_kw=300.0, initial_kwh=100.0)
    with pytest.raises(InfeasibleError, match="import"):
        clear(with_stores(plain, full), Settings(limits="hard"))
    soft = clear(with_stores(plain, full))
    assert soft.status == "converged"
    assert not goes_both_ways(soft)
    assert soft.broken_limits().excess.item() == pytest.approx(100.0, abs=0.01)
    room = clear(with_stores(plain, replace(full, initial_kwh=10.0)))
    assert room.stores.charge_kw.item() == pytest.approx(100.0, abs=0.01)


def test_directions_of_a_linear_network_are_the_best_too():
    """What the battery does by hand above does not depend on the losses, which are none."""
    case = beside_a_load([-20.0, -30.0], lossy("battery", initial_kwh=40.0, energy_kwh=60.0))
    found = clear(case, Settings(formulation="lindistflow", losses="none"))
    np.testing.assert_allclose(found.awards.net_injection_kw.ravel(), [16, -50], atol=1e-3)
