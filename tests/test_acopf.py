"""The AC oracle is itself right: it meets published results, its own finite differences and a market equilibrium."""

from dataclasses import replace

import numpy as np
import pytest
from acopf import AcOpf, solve_acopf
from cases import BINDING, CASES, feeder33, market, resource
from feeders import Branch, feeder
from scipy.optimize import linprog

from dlmp.market import MarketCase, simple_case
from dlmp.units import BASE_KVA

CIRCLE_SIDES = 32
AT_LIMIT = 1e-6
"""Distance [pu] at which a limit counts as reached."""


@pytest.fixture(scope="module", params=CASES)
def cleared(request: pytest.FixtureRequest) -> tuple[MarketCase, AcOpf]:
    case = CASES[request.param]()
    return case, solve_acopf(case, circle_sides=CIRCLE_SIDES)


def test_33_bus_feeder_has_its_published_losses_and_lowest_voltage() -> None:
    case = simple_case(feeder33(), 20.0)
    result = solve_acopf(case)
    assert result.import_p_kw[0] - case.load_p_kw.sum() == pytest.approx(202.68, abs=0.01)
    assert np.abs(result.v).min() == pytest.approx(0.91309, abs=1e-5)


def test_33_bus_feeder_prices_losses_only() -> None:
    result = solve_acopf(simple_case(feeder33(), 20.0))
    assert result.price_p[0, 0] == pytest.approx(20.0, abs=1e-9)
    assert result.price_p.max() == pytest.approx(22.9439, abs=1e-4)
    assert result.cost == pytest.approx(20.0 * result.import_p_kw[0] / 1000, rel=1e-12)


def test_quarter_of_an_hour_costs_a_quarter_at_the_same_prices() -> None:
    case = CASES["undervoltage_33"]()
    hour, quarter = (
        solve_acopf(replace(case, horizon=replace(case.horizon, interval_minutes=minutes))) for minutes in (60, 15)
    )
    assert quarter.cost == pytest.approx(hour.cost / 4, rel=1e-12)
    np.testing.assert_allclose(quarter.price_p, hour.price_p, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "bus"),
    [
        ("undervoltage_33", "32"),
        ("congestion_current_33", "9"),
        ("congestion_power_33", "17"),
        ("overvoltage_reactive_33", "14"),
        ("congestion_meshed_33", "20"),
        ("negative_price_33", "31"),
        ("import_cap_33", "0"),
        ("reactive_price_33", "0"),
        ("two_sources_33", "24"),
        ("transformer_cigre", "Bus 6"),
        ("undervoltage_meshed_cigre", "Bus 14"),
    ],
)
@pytest.mark.parametrize(("load", "price"), [("load_p_kw", "price_p"), ("load_q_kvar", "price_q")])
def test_price_is_the_cost_of_one_more_unit_of_demand(name: str, bus: str, load: str, price: str) -> None:
    case = CASES[name]()
    node = case.network.node(bus)
    one_kilo = np.zeros_like(case.load_p_kw)
    one_kilo[0, node] = 1.0
    more, less = (solve_acopf(replace(case, **{load: getattr(case, load) + d})).cost for d in (one_kilo, -one_kilo))
    expected = getattr(solve_acopf(case), price)[0, node]
    assert (more - less) / 2 * 1000 == pytest.approx(expected, abs=1e-4)


def test_case_is_held_by_the_limits_that_it_is_named_for(cleared: tuple[MarketCase, AcOpf]) -> None:
    assert reached_limits(*cleared) == BINDING[cleared[0].name]


def test_prices_of_every_case_differ_from_the_import_price(cleared: tuple[MarketCase, AcOpf]) -> None:
    case, result = cleared
    apart = np.abs(result.price_p - case.substation.price_usd_per_mwh[:, None]).max(axis=1)
    assert (apart > 0.5).all()


def test_dispatch_is_what_each_resource_would_choose_at_its_prices(cleared: tuple[MarketCase, AcOpf]) -> None:
    case, result = cleared
    for t in range(case.horizon.intervals):
        for index in range(len(case.resources)):
            earned, best = profits(case, result, t, index)
            assert earned == pytest.approx(best, abs=1e-3)


def test_import_and_injections_meet_load_and_losses(cleared: tuple[MarketCase, AcOpf]) -> None:
    case, result = cleared
    current = result.v @ case.network.admittance.T
    losses_kw = (result.v * np.conj(current)).real.sum(axis=1) * BASE_KVA
    supplied = result.import_p_kw + result.p_kw.sum(axis=1)
    np.testing.assert_allclose(supplied, case.load_p_kw.sum(axis=1) + losses_kw, atol=1e-6)
    assert (losses_kw > 0).all()


def test_awards_lie_within_the_bids_and_make_up_the_injections(cleared: tuple[MarketCase, AcOpf]) -> None:
    case, result = cleared
    assert (result.award_kw >= 0).all()
    assert (result.award_kw <= case.bids.quantity_kw).all()
    injected = np.zeros_like(result.p_kw)
    np.add.at(injected.T, case.bids.resource, (result.award_kw * np.where(case.bids.is_supply, 1.0, -1.0)).T)
    np.testing.assert_allclose(injected, result.p_kw, atol=1e-9)


def test_free_reactive_sources_settle_inside_their_ranges_at_a_price_of_zero() -> None:
    case = CASES["interior_33"]()
    result = solve_acopf(case)
    free = case.resources.q_max_kvar > case.resources.q_min_kvar
    assert (np.abs(result.q_kvar[0, free]) < 0.9 * case.resources.q_max_kvar[free]).all()
    np.testing.assert_allclose(result.price_q[0, case.resources.first_port[free]], 0.0, atol=1e-8)


def test_solution_does_not_depend_on_the_start(cleared: tuple[MarketCase, AcOpf]) -> None:
    case, result = cleared
    noise = np.random.default_rng(7).uniform(-0.05, 0.05, (2, *result.v.shape))
    again = solve_acopf(case, start=result.v * (1 + noise[0]) * np.exp(1j * noise[1]))
    assert again.cost == pytest.approx(result.cost, rel=1e-9)
    np.testing.assert_allclose(again.price_p, result.price_p, atol=1e-6)


def test_dear_resource_runs_at_its_minimum() -> None:
    case = CASES["heavy_33"]()
    chp = list(case.resources.name).index("chp")
    result = solve_acopf(case)
    assert result.price_p[0, case.resources.first_port[chp]] < 55.0
    assert result.p_kw[0, chp] == pytest.approx(case.resources.p_min_kw[chp], abs=1e-6)


def test_pinned_resources_keep_their_power() -> None:
    case = CASES["heavy_33"]()
    pinned_kw = np.array([230.0, 120.0, 0.0, 700.0, 0.0])
    resources = replace(case.resources, p_min_kw=pinned_kw, p_max_kw=pinned_kw[None])
    np.testing.assert_allclose(solve_acopf(replace(case, resources=resources)).p_kw[0], pinned_kw, atol=1e-6)


def test_finer_polygon_lets_an_inverter_earn_more() -> None:
    case = CASES["reactive_price_33"]()
    coarse, fine = (solve_acopf(case, circle_sides=sides).cost for sides in (8, 64))
    assert fine < coarse - 0.1


@pytest.mark.parametrize("ohm_pu", [1e-5, 1e-7, 1e-8])
def test_switch_of_next_to_no_impedance_changes_no_price(ohm_pu: float) -> None:
    load = {"c": (120.0, 40.0), "d": (90.0, 30.0)}
    trunk, lateral = Branch("a", "b", 0.01, 0.02, rating=2.1, is_current=True), Branch("c", "d", 0.02, 0.01)
    offer = resource("far", "d", supply=[(50, 55)], q_kvar=(-5.0, 5.0))
    switched, joined = (
        solve_acopf(market(feeder([trunk, Branch("b", "c", r, 0.0), lateral], load), 20.0, offer))
        for r in (ohm_pu, 1e-4)
    )
    assert switched.price_p[0, 1] == pytest.approx(switched.price_p[0, 2], rel=10 * ohm_pu)
    np.testing.assert_allclose(switched.price_p, joined.price_p, rtol=1e-3)
    assert switched.price_p[0, 3] == pytest.approx(55.0)


def test_infeasible_case_is_refused() -> None:
    network = feeder33(v_min_pu=0.95)
    with pytest.raises(RuntimeError, match="IPOPT ended in Infeasible"):
        solve_acopf(simple_case(network, 20.0))


def reached_limits(case: MarketCase, result: AcOpf) -> set[str]:
    """Which kinds of limits hold in any interval, in the words of `cases.BINDING`."""
    network, resources = case.network, case.resources
    magnitude = np.abs(result.v)
    held = ~network.is_source
    angle = 2 * np.pi * np.arange(CIRCLE_SIDES) / CIRCLE_SIDES
    apparent = (np.cos(angle)[:, None, None] * result.p_kw + np.sin(angle)[:, None, None] * result.q_kvar).max(axis=0)
    ratio = apparent / (resources.s_max_kva * np.cos(np.pi / CIRCLE_SIDES))
    band = np.column_stack([case.substation.p_min_kw, case.substation.p_max_kw])
    reached = {
        "v_min": (magnitude <= network.v_min_pu + AT_LIMIT)[:, held],
        "v_max": (magnitude >= network.v_max_pu - AT_LIMIT)[:, held],
        "branch": loading(case, result) >= 1 - AT_LIMIT,
        "import": np.abs(result.import_p_kw[:, None] / band - 1) < AT_LIMIT,
        "rating": ratio >= 1 - AT_LIMIT,
    }
    assert loading(case, result).max(initial=0.0) <= 1 + AT_LIMIT
    assert ratio.max(initial=0.0) <= 1 + AT_LIMIT
    return {name for name, mask in reached.items() if mask.any()}


def loading(case: MarketCase, result: AcOpf) -> np.ndarray:
    """(t, 2m) Current or apparent power at both ends of each branch, over its rating."""
    network, magnitude = case.network, np.abs(result.v)
    ends = [
        np.abs(result.v @ rows.T) * np.where(network.rating_is_current, 1.0, magnitude[:, node]) / rating
        for rows, node, rating in (
            (network.from_admittance, network.from_node, network.rating_from_pu),
            (network.to_admittance, network.to_node, network.rating_to_pu),
        )
    ]
    return np.hstack(ends)


def profits(case: MarketCase, result: AcOpf, t: int, index: int) -> tuple[float, float]:
    """What resource `index` earns in interval `t`, and the most it could earn at the same prices [currency/h]."""
    resources, bids = case.resources, case.bids
    own = np.flatnonzero(bids.resource == index)
    sign = np.where(bids.is_supply[own], 1.0, -1.0)
    price_p, price_q = ((resources.share @ price[t])[index] for price in (result.price_p, result.price_q))
    margin = sign * (price_p - bids.price_usd_per_mwh[t, own])
    gain = np.r_[margin, price_q] / 1000
    rows, most = [np.r_[sign, 0.0], np.r_[-sign, 0.0]], [resources.p_max_kw[t, index], -resources.p_min_kw[index]]
    if np.isfinite(resources.s_max_kva[index]):
        angle = 2 * np.pi * np.arange(CIRCLE_SIDES) / CIRCLE_SIDES
        rows += [np.r_[sign * np.cos(a), np.sin(a)] for a in angle]
        most += [resources.s_max_kva[index] * np.cos(np.pi / CIRCLE_SIDES)] * CIRCLE_SIDES
    q_range = (resources.q_min_kvar[index], resources.q_max_kvar[index])
    best = linprog(-gain, rows, most, bounds=[*((0, kw) for kw in bids.quantity_kw[t, own]), q_range])
    earned = gain @ np.r_[result.award_kw[t, own], result.q_kvar[t, index]]
    return float(earned), float(-best.fun)
