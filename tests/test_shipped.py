"""Cases that ship: found by name, and right."""

from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from acopf import AcOpf, solve_acopf

from dlmp import shipped
from dlmp.bids import no_resources
from dlmp.casefolder import read_case
from dlmp.clearing import CONVERGED, Clearing, clear
from dlmp.errors import InputError
from dlmp.market import MarketCase, Substation
from dlmp.network import UnbalancedNetwork
from dlmp.shipped import shipped_case, shipped_cases

BINDING = {
    "cigre_mv": {("congestion", "Trafo 0-1", 131.2160), ("voltage", "bus Bus 6", 0.96)},
    "day33": {("congestion", "line 2", 2400.0), ("voltage", "bus 17", 0.95), ("voltage", "bus 17", 1.05)},
    "feeder33": {("congestion", "line 2", 1900.0), ("voltage", "bus 32", 0.95)},
    "feeder69": {("congestion", "4-5", 2000.0), ("voltage", "bus 64", 0.95)},
}
"""Every balanced case that ships, and all limits that bind in it [A], [kVA], [pu]."""
UNBALANCED = {
    "ieee123": {
        ("congestion", "transformer.xfm1", "1", 22.8997), ("congestion", "transformer.xfm1", "2", 22.8997),
        ("voltage", "bus 63", "1", 0.975), ("voltage", "bus 83", "1", 1.05), ("voltage", "bus 83", "2", 1.05),
        ("voltage", "bus 83", "3", 1.05), ("voltage", "bus 96", "2", 1.05),
    },
    "ieee13": {
        ("congestion", "transformer.xfm1", "1", 76.3324), ("voltage", "bus 652", "1", 0.98),
        ("voltage", "bus 675", "2", 1.05), ("voltage", "bus 675", "3", 0.98),
    },
    "ieee34": {
        ("congestion", "transformer.xfm1", "2", 11.5934), ("unbalance", "bus 814", "123", 1.2),
        ("unbalance", "bus 890", "123", 1.2), ("voltage", "bus 852r", "1", 1.058), ("voltage", "bus 852r", "2", 1.058),
        ("voltage", "bus 852r", "3", 1.058), ("voltage", "bus 890", "2", 0.945),
    },
}  # fmt: skip
"""Cases by phase that ship, and all limits that bind in them; `test_clearing_phases` has their costs and prices."""
LOAD_POCKET = {
    "goleta16": {
        ("congestion", "trunk 0-1", 400.0), *(
            ("voltage", f"bus {bus}", 1.05) for bus in (
                "5a3", "6a3", "7a5", "8", "8b1", "11a1", "11a4", "11b3", "12", "12a3", "14a5", "14b4"
            )
        ),
    },
    "goleta16_spring": {
        ("voltage", f"bus {bus}", 1.05) for bus in ("7a5", "8", "8b1", "9a4", "11b3", "12", "12a3", "12b4", "13a3")
    },
}  # fmt: skip
"""Days of the feeder of `test_story`, and all limits that bind in them."""

MOST_PASSES = 8


@pytest.fixture
def places(tmp_path: Path, monkeypatch) -> tuple[Path, Path]:
    """Two places that hold one case and one folder that is none."""
    places = tmp_path / "package" / "networks", tmp_path / "networks"
    for place, name in zip(places, ("installed", "checkout"), strict=True):
        (place / name).mkdir(parents=True)
        (place / name / "case.toml").touch()
        (place / "no_case").mkdir()
    monkeypatch.setattr(shipped, "PLACES", places)
    return places


def test_the_installed_package_comes_before_the_checkout(places: tuple[Path, Path]):
    assert shipped.shipped_cases() == ["installed"]
    assert shipped.shipped_case("installed") == places[0] / "installed"


def test_the_checkout_serves_where_the_package_has_no_networks(places: tuple[Path, Path]):
    (places[0].parent).rename(places[0].parent.with_name("elsewhere"))
    assert shipped.shipped_cases() == ["checkout"]


@pytest.mark.parametrize("name", ["no_case", "", "..", "checkout"])
def test_an_unknown_name_is_answered_with_those_that_ship(name: str, places: tuple[Path, Path]):
    with pytest.raises(InputError, match="those that ship: installed"):
        shipped.shipped_case(name)


@cache
def clearing_of(name: str) -> Clearing:
    return clear(read_case(shipped_case(name)))


@pytest.fixture(scope="module", params=BINDING)
def cleared(request) -> Clearing:
    return clearing_of(request.param)


@pytest.fixture(scope="module")
def oracle(cleared: Clearing) -> AcOpf:
    return solve_acopf(cleared.case, circle_sides=cleared.settings.circle_sides)


@pytest.fixture(scope="module")
def day() -> Clearing:
    return clearing_of("day33")


def test_every_folder_is_a_case_that_says_where_it_comes_from():
    folders = sorted(path for path in shipped_case("feeder33").parent.iterdir() if path.is_dir())
    assert [path.name for path in folders] == shipped_cases() == sorted([*BINDING, *UNBALANCED, *LOAD_POCKET])
    for folder in folders:
        assert "Licence.** Apache-2.0" in (folder / "SOURCE.md").read_text("utf-8")


def test_the_list_of_cases_names_each_of_them():
    listed = (shipped_case("feeder33").parent / "README.md").read_text("utf-8")
    assert [name for name in shipped_cases() if f"| `{name}` |" not in listed] == []


def test_case_clears_in_few_passes_to_a_result_that_holds(cleared: Clearing):
    assert cleared.status == CONVERGED
    assert len(cleared.passes) <= MOST_PASSES
    assert cleared.certificate.is_feasible
    assert cleared.certificate.is_supported


def test_case_has_one_set_of_prices(cleared: Clearing):
    assert cleared.certificate.price_ranges == ()


def test_cost_is_that_of_the_ac_oracle(cleared: Clearing, oracle: AcOpf):
    assert cleared.objective == pytest.approx(oracle.cost, rel=1e-6)


def test_prices_are_those_of_the_ac_oracle(cleared: Clearing, oracle: AcOpf):
    scale = np.maximum(1.0, np.abs(oracle.price_p))
    np.testing.assert_allclose(cleared.prices.lmp_usd_per_mwh / scale, oracle.price_p / scale, rtol=0, atol=1e-5)
    np.testing.assert_allclose(cleared.prices.lmp_q_usd_per_mvarh, oracle.price_q, rtol=0, atol=2e-4)


@pytest.mark.parametrize("name", [*BINDING, *LOAD_POCKET])
def test_case_is_held_by_the_limits_that_it_is_made_for(name: str):
    rows = clearing_of(name).binding_limits()[["component", "element", "limit"]].itertuples(index=False)
    made_for = (BINDING | LOAD_POCKET)[name]
    assert {(component, element, round(limit, 4)) for component, element, limit in rows} == made_for


@pytest.mark.parametrize("name", UNBALANCED)
def test_case_by_phase_is_held_by_the_limits_that_it_is_made_for_at_one_set_of_prices(name: str):
    found = clearing_of(name)
    rows = found.binding_limits()[["component", "element", "phase", "limit"]].itertuples(index=False)
    assert {(*names, round(limit, 4)) for *names, limit in rows} == UNBALANCED[name]
    assert found.certificate.price_ranges == ()


@pytest.mark.parametrize("name", LOAD_POCKET)
def test_day_of_the_load_pocket_has_one_set_of_prices_that_hold(name: str):
    found = clearing_of(name)
    assert found.status == CONVERGED
    assert len(found.passes) <= MOST_PASSES
    assert found.certificate.is_feasible
    assert found.certificate.is_supported
    assert found.certificate.price_ranges == ()


@pytest.mark.parametrize("name", UNBALANCED)
def test_feeder_by_phase_stands_in_a_file_of_its_own_name(name: str):
    network = clearing_of(name).case.network
    assert isinstance(network, UnbalancedNetwork)
    assert (network.name, Path(network.origin).name) == (name, f"{name}.dss")
    assert network.notes == ()


@pytest.mark.parametrize(
    ("name", "highest_price", "losses_kw", "lowest_v_pu"),
    [("feeder33", 22.9439, 202.68, 0.91309), ("feeder69", 23.4027, 224.99, 0.90919)],
)
def test_feeder_without_bids_has_its_published_figures(
    name: str, highest_price: float, losses_kw: float, lowest_v_pu: float
):
    case = as_published(clearing_of(name).case)
    result = clear(case)
    assert result.prices.lmp_usd_per_mwh.max() == pytest.approx(highest_price, abs=1e-4)
    assert result.import_kw[0] - case.load_p_kw.sum() == pytest.approx(losses_kw, abs=0.01)
    assert result.voltages.v_pu.min() == pytest.approx(lowest_v_pu, abs=1e-5)


def as_published(case: MarketCase) -> MarketCase:
    """One interval of the feeder alone: its own loads, no limits, nobody bidding, 20 $/MWh at the substation."""
    network = case.network
    nodes, wide = network.node_count, np.full(network.branch_count, np.inf)
    band = {"v_min_pu": np.full(nodes, 0.5), "v_max_pu": np.full(nodes, 1.5)}
    p_kw, q_kvar = network.element_loads()
    resources, bids = no_resources(1, nodes)
    return replace(
        case,
        network=replace(network, rating_from_pu=wide, rating_to_pu=wide, **band),
        horizon=replace(case.horizon, intervals=1),
        substation=Substation(np.array([20.0]), np.zeros(1)),
        load_p_kw=p_kw[None],
        load_q_kvar=q_kvar[None],
        resources=resources,
        bids=bids,
    )


def test_generators_of_the_cigre_network_that_bid_are_not_fixed_too():
    case = clearing_of("cigre_mv").case
    network = case.network
    is_load = network.element_kind == "load"
    replaced = np.isin(network.element, case.resources.name)
    assert sorted(network.element[replaced]) == ["PV 10", "PV 5", "PV 6", "PV 9", "WKA 7"]
    fixed_kw = -network.element_p_kw[~is_load & ~replaced].sum()
    assert fixed_kw == pytest.approx(80.0)
    scale = np.array([1.06, 1.04, 0.98])
    expected = scale * network.element_p_kw[is_load].sum() - fixed_kw
    np.testing.assert_allclose(case.load_p_kw.sum(axis=1), expected, rtol=1e-12)


def test_the_day_is_a_day_in_california(day: Clearing):
    horizon = day.case.horizon
    first, last = horizon.local(0), horizon.local(23)
    assert (first.hour, last.hour, first.date()) == (0, 23, last.date())
    assert horizon.interval_minutes == 60
    assert first.utcoffset() == timedelta(hours=-7)


def test_the_substation_pays_for_consumption_at_noon_and_is_dear_in_the_evening(day: Clearing):
    price = day.case.substation.price_usd_per_mwh
    assert np.flatnonzero(price < 0).tolist() == [10, 11, 12, 13, 14, 15]
    assert int(price.argmax()) == 19
    assert price[19] - price[16] > 80


def test_at_noon_voltage_curtails_solar_which_then_sets_its_own_price(day: Clearing):
    case, noon = day.case, [11, 12, 13, 14]
    plant = list(case.resources.name).index("solar 17")
    node = case.resources.first_port[plant]
    assert (day.awards.net_injection_kw[noon, plant] < case.resources.p_max_kw[noon, plant] - 50).all()
    np.testing.assert_allclose(day.prices.lmp_usd_per_mwh[noon, node], -18.4, atol=1e-6)
    assert (day.prices.voltage[noon, node] < -2).all()
    np.testing.assert_array_equal(day.prices.congestion[noon], 0.0)


def test_in_the_evening_congestion_makes_prices_behind_line_2_dear(day: Clearing):
    evening, network = [19, 20, 21, 22], day.case.network
    behind, before = network.node("29"), network.node("20")
    assert (day.prices.congestion[evening, behind] > 5).all()
    assert (np.abs(day.prices.congestion[evening, before]) < 0.01).all()
    engine = list(day.case.resources.name).index("engine 29")
    assert (day.awards.net_injection_kw[evening, engine] > 0).all()
