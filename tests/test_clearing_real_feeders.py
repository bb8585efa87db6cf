"""Markets on feeders of real size, tightened until voltages and branches bind; pandapower's own AC-OPF fails there."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from acopf import AcOpf, solve_acopf
from cases import Offer, banded, market, resource
from real_feeders import OLD_SAMPLE, REAL_FEEDERS, real_feeder

from dlmp import Clearing, clear
from dlmp.network.model import Network

PRICE = 35.0
TIGHTENED = {
    "mv_oberrhein": (300.0, (0.989, 1.037), 0.73),
    "1-MV-rural--0-sw": (300.0, (0.95, 1.047), 0.56),
    "1-LV-rural3--0-sw": (6.0, (0.999, 1.022), 0.26),
    "1-MV-urban--0-sw": (300.0, (0.974, 1.01), 0.73),
}
"""Size of a resource [kW], voltage band [pu] and share of the ratings that is left."""

pytestmark = OLD_SAMPLE


def bidders(network: Network, size_kw: float) -> list[Offer]:
    """Solar plants, generators and flexible loads at 30 % of the buses, of the same size give or take two thirds."""
    random = np.random.default_rng(11)
    inner = np.flatnonzero(~network.is_source)
    offers = []
    for number, node in enumerate(random.choice(inner, int(0.3 * len(inner)), replace=False)):
        bus, size = str(network.bus[node]), size_kw * random.uniform(0.3, 1.7)
        if number % 3 == 0:
            reactive = {"q_kvar": (-0.4 * size, 0.4 * size), "s_max_kva": 1.05 * size}
            blocks = [(size, random.uniform(0, 4))]
            offers.append(resource(f"solar {number}", bus, kind="solar", supply=blocks, **reactive))
        elif number % 3 == 1:
            first, second = np.sort(random.uniform(1.02 * PRICE, 2.2 * PRICE, 2))
            blocks, q_kvar = [(size / 2, first), (size / 2, second)], (-0.3 * size, 0.3 * size)
            offers.append(resource(f"generator {number}", bus, supply=blocks, q_kvar=q_kvar))
        else:
            second, first = np.sort(random.uniform(0.4 * PRICE, 1.6 * PRICE, 2))
            blocks = [(size / 2, first), (size / 3, second)]
            offers.append(resource(f"flexible {number}", bus, kind="demand_response", demand=blocks))
    return offers


@cache
def cleared(name: str) -> tuple[Clearing, AcOpf]:
    """A heavy interval and one of little load at a higher price."""
    size_kw, band, left = TIGHTENED[name]
    network = banded(real_feeder(name), *band)
    network = replace(network, rating_from_pu=left * network.rating_from_pu, rating_to_pu=left * network.rating_to_pu)
    case = market(network, [PRICE, 1.4 * PRICE], *bidders(network, size_kw), load=[1.0, 0.6])
    return clear(case), solve_acopf(case)


@pytest.mark.parametrize("name", REAL_FEEDERS)
class TestRealFeeder:
    """A feeder of real size."""

    def test_the_market_is_cleared_in_few_passes(self, name: str):
        found, _ = cleared(name)
        assert found.status == "converged"
        assert len(found.passes) <= 8

    def test_network_limits_bind_in_every_interval(self, name: str):
        table = cleared(name)[0].binding_limits()
        assert set(table.component) & {"voltage", "congestion"}
        assert set(table.interval) == {0, 1}

    def test_cost_and_prices_are_those_of_the_ac_optimum(self, name: str):
        found, expected = cleared(name)
        assert found.objective == pytest.approx(expected.cost, rel=1e-6)
        np.testing.assert_allclose(found.prices.lmp_usd_per_mwh, expected.price_p, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found.prices.lmp_q_usd_per_mvarh, expected.price_q, atol=2e-4)

    def test_the_certificate_holds(self, name: str):
        certificate = cleared(name)[0].certificate
        assert certificate.is_feasible
        assert certificate.is_supported
        assert certificate.price_ranges == ()
