"""The feeder serves what it does not import: balances by hand, and an island cleared as IPOPT clears it."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from acopf import AcOpf, solve_acopf
from cases import feeder33, generators33, market, resource
from feeders import Branch, feeder
from storecases import SIX_LOADS, SIX_PRICES, battery, with_stores

from dlmp import Clearing, clear, read_case, shipped_case
from dlmp.market import MarketCase
from dlmp.units import BASE_KVA

R = 0.02


def two_buses(solar_kw: float, **limits: float) -> MarketCase:
    """A line of 0.02 pu to bus b with a load of 100 kW, a pump that takes 20 kW more, and solar power for nothing."""
    solar = resource("solar", "b", kind="solar", supply=[(solar_kw, 0.0)])
    pump = resource("pump", "b", kind="load", demand=[(20.0, 90.0)])
    return market(feeder([Branch("a", "b", R, 0.0)], {"b": (100.0, 0.0)}), [30.0], solar, pump, **limits)


def lost_kw(net_load_kw: float) -> float:
    """Losses of the line: V^2 - V + R P = 0 with a source of 1 pu."""
    p = net_load_kw / BASE_KVA
    v = (1 + np.sqrt(1 - 4 * R * p)) / 2
    return R * (p / v) ** 2 * BASE_KVA


def test_the_balance_of_a_feeder_that_imports_by_hand():
    """120 kW are consumed and 50 generated at bus b: 70 kW and their losses are drawn."""
    supply = clear(two_buses(50.0)).local_supply
    loss = lost_kw(70.0)
    found = supply.table().iloc[0][["load_kw", "local_generation_kw", "loss_kw", "import_kw", "export_kw"]]
    np.testing.assert_allclose(found.astype(float), [120, 50, loss, 70 + loss, 0], atol=1e-6)
    assert supply.share_served_locally == pytest.approx(50 / (120 + loss), abs=1e-9)


def test_a_feeder_that_exports_serves_all_of_its_load():
    """Of 200 kW generated 120 are consumed at bus b and 80 leave, less their losses."""
    supply = clear(two_buses(200.0)).local_supply
    loss = lost_kw(-80.0)
    assert supply.export_kw == pytest.approx(80 - loss, abs=1e-6)
    assert (supply.import_kw.item(), supply.share_served_locally.item()) == (0.0, 1.0)


def test_totals_are_energies_and_the_share_of_all_that_is_consumed():
    """Half an hour of importing and one of exporting: the export does not make up for the import."""
    case = two_buses(200.0)
    two = market(
        *(case.network, [30.0, 30.0]),
        resource("solar", "b", kind="solar", supply=[(200.0, 0.0)], available_kw=[0.0, 200.0]),
    )
    totals = clear(replace(two, horizon=replace(two.horizon, interval_minutes=30))).local_supply.totals()
    drawn, consumed = 100 + lost_kw(100.0), 200 + lost_kw(100.0) + lost_kw(-100.0)
    assert totals["import_kwh"] == pytest.approx(drawn / 2, abs=1e-6)
    assert totals["load_kwh"] == pytest.approx(100.0, abs=1e-6)
    assert totals["share_served_locally"] == pytest.approx(1 - drawn / consumed, abs=1e-9)


def test_loads_that_follow_their_voltage_count_with_what_they_draw_there():
    found = clear(read_case(shipped_case("ieee13")))
    network, law = found.case.network, found.case.network.law
    u = np.abs((network.incidence @ found._dispatch.point.v_pu.T).T)[:, law.port] / law.base_pu
    assert ((u > law.u_min) & (u < law.u_max)).all()
    drawn = (found.case.law_pu.real * u**law.exponent).sum(axis=1) * BASE_KVA
    awarded = np.maximum(-found.awards.net_injection_kw, 0.0).sum(axis=1)
    expected = np.maximum(found.case.load_pu.real, 0.0).sum(axis=1) * BASE_KVA + drawn + awarded
    np.testing.assert_allclose(found.local_supply.load_kw, expected, rtol=1e-6)


def island() -> MarketCase:
    """Six hours in which nothing is imported: generators and a battery carry the feeder."""
    plain = market(feeder33(), SIX_PRICES, *generators33(), load=0.62 * SIX_LOADS, p_min_kw=0.0, p_max_kw=0.0)
    return with_stores(plain, battery(17))


def scheduled() -> MarketCase:
    """Import of at most a schedule, in one hour nothing, and of export less and less."""
    most = np.array([900.0, 700.0, 0.0, 1100.0, 250.0, np.inf])
    least = np.array([0.0, 400.0, 0.0, -50.0, 100.0, -80.0])
    plain = market(feeder33(), SIX_PRICES, *generators33(), load=0.62 * SIX_LOADS, p_min_kw=least, p_max_kw=most)
    return with_stores(plain, battery(24, cycling=1.0))


CASES = {"island": island, "scheduled": scheduled}


@cache
def both(name: str) -> tuple[Clearing, AcOpf]:
    case = CASES[name]()
    return clear(case), solve_acopf(case)


@pytest.mark.parametrize("name", CASES)
def test_a_feeder_with_limits_of_import_by_interval_clears_as_ipopt_does(name: str):
    found, expected = both(name)
    assert found.status == "converged"
    assert found.certificate.is_feasible
    assert found.certificate.is_supported
    assert found.objective == pytest.approx(expected.cost, rel=1e-6)
    np.testing.assert_allclose(found.prices.lmp_usd_per_mwh, expected.price_p, rtol=0, atol=1e-3)
    np.testing.assert_allclose(found.import_kw, expected.import_p_kw, rtol=0, atol=1e-2)


def test_an_island_serves_all_of_its_load():
    supply = both("island")[0].local_supply
    np.testing.assert_allclose(supply.share_served_locally, 1.0, atol=1e-9)
    np.testing.assert_allclose(supply.local_generation_kw, supply.load_kw + supply.loss_kw, atol=1e-5)


def test_the_limit_of_each_interval_binds_with_its_own_bound():
    found = both("scheduled")[0]
    table = found.binding_limits()
    bound = {row.interval: row.limit for row in table.itertuples() if row.component == "energy"}
    substation = found.case.substation
    assert len(bound) >= 3
    for interval, limit in bound.items():
        assert limit in (substation.p_min_kw[interval], substation.p_max_kw[interval])
        assert found.import_kw[interval] == pytest.approx(limit, abs=1e-3)


def test_an_import_beyond_the_cap_of_its_interval_is_no_certificate():
    found = both("scheduled")[0]
    tighter = found.case.substation.p_max_kw - np.array([0.0, 5.0, 0.0, 0.0, 0.0, 0.0])
    lowered = replace(found.case, substation=replace(found.case.substation, p_max_kw=tighter))
    assert not replace(found, case=lowered).certificate.is_feasible
