"""Services where something is scarce: requirements that are not met, and limits that break when they are called."""

from dataclasses import replace

import numpy as np
import pytest
from cases import market, resource
from infeasible import two

from dlmp import Clearing, InfeasibleError, MarketCase, Settings, clear
from dlmp.certificate import independent_power_flow
from dlmp.report import clearing_rows
from dlmp.services import CAPACITY_UP, Requirements, ServiceOffers, everywhere
from dlmp.settlement import settle

PARTS = ("requirement", "congestion", "voltage", "unbalance", "scarcity")


def with_capacity(
    case: MarketCase, offered_kw: float, required_kw: float, shortage: float, offer: float = 5.0
) -> MarketCase:
    """The first resource offers capacity up at `offer`, of which so much is required."""
    rows = np.ones((case.horizon.intervals, 1))
    offers = ServiceOffers(np.zeros(1, int), np.array([CAPACITY_UP]), offered_kw * rows, offer * rows, np.ones(1))
    requirements = Requirements(
        np.array(["spare"]),
        np.array([CAPACITY_UP]),
        np.array(["substation"]),
        everywhere(case.network)[None, :],
        required_kw * rows,
        np.array([shortage]),
    )
    return replace(case, service_offers=offers, requirements=requirements)


def assert_parts_add_up(found: Clearing) -> None:
    services = found.services
    total = sum(getattr(services, name) for name in PARTS)
    np.testing.assert_allclose(total, services.price_usd_per_mw_h, rtol=0, atol=1e-9)


def engine_at_b(p_kw: float, rating: float = np.inf, **bands: object) -> MarketCase:
    return market(two(p_kw, rating=rating, **bands), 20.0, resource("engine", "b", supply=[(100, 60)]))


@pytest.mark.parametrize("limits", ["soft", "hard"])
def test_a_requirement_that_is_not_met_is_told_and_its_price_is_scarcity(limits: str):
    """50 kW of spare capacity at 1000 for each MW short, and 30 kW offered at 5."""
    case = with_capacity(engine_at_b(100), 30.0, 50.0, 1000.0)
    found = clear(case, Settings(limits=limits))
    (row,) = found.broken_limits().itertuples()
    assert (row.cause, row.element, row.called, row.unit) == ("service", "requirement spare", "-", "kW")
    assert (row.limit, row.value, row.excess) == pytest.approx((50, 30, 20))
    assert (row.penalty_usd_per_h, row.cost_usd) == pytest.approx((1.0, 20.0))
    assert found.objective == pytest.approx((20 * found.import_kw[0] + 5 * 30) / 1000 + 20.0)
    assert found.penalty == pytest.approx(20.0)
    assert found.services.scarcity.item() == pytest.approx(1000.0)
    assert found.services.requirement.item() == 0.0
    assert_parts_add_up(found)
    assert not found.prices.scarcity.any()
    assert any("- service, worst: requirement spare, interval 0" in text for _, text in clearing_rows(found, None, 1))


def test_a_requirement_that_is_met_is_no_scarcity():
    found = clear(with_capacity(engine_at_b(100), 80.0, 50.0, 1000.0))
    assert found.broken_limits().empty
    assert found.services.requirement.item() == pytest.approx(5.0, abs=1e-6)
    assert not found.services.scarcity.any()


def test_a_limit_that_breaks_when_a_service_is_called_is_told_with_the_service():
    """90 kW must be held ready behind a line of 80: called, 8 of the excess cost 6000 a MVAh, the rest 20,000."""
    case = with_capacity(engine_at_b(0, rating=0.8), 100.0, 90.0, np.inf)
    found = clear(case)
    (row,) = found.broken_limits().itertuples()
    assert found.status == "converged"
    assert (row.cause, row.element, row.called) == ("congestion", "a-b", CAPACITY_UP)
    flow = independent_power_flow(case.network, np.array([[0.0, 90.0]]) + 0j, np.zeros((1, 0)))
    current = np.abs(flow.current_to_pu[0, 0])
    assert row.value / row.limit == pytest.approx(current / 0.8, rel=1e-6)
    cost = 0.08 * 0.1 * 6000 + (current - 0.88) * 0.1 * 20_000
    assert row.cost_usd == pytest.approx(cost, rel=1e-5)
    assert found.objective == pytest.approx(0.09 * 5 + row.cost_usd, rel=1e-9)
    assert found.certificate.is_feasible, "as scheduled nothing flows"
    assert found.certificate.is_deliverable, "the call breaks no more than is told"
    assert found.explain("b").query("component == 'scarcity'").called.tolist() == [CAPACITY_UP]
    assert_parts_add_up(found)
    assert found.services.scarcity.item() < -10_000
    assert not found.prices.congestion.any()


def test_what_only_a_call_breaks_is_not_taken_off_what_flows_as_scheduled():
    """The engine runs at 10 kW, and would at 100 of 80 when called."""
    running = resource("engine", "b", supply=[(100, 60)], must_run_kw=10.0)
    found = clear(with_capacity(market(two(0, rating=0.8), 20.0, running), 100.0, 90.0, np.inf))
    assert found.broken_limits().called.tolist() == [CAPACITY_UP]
    assert found.flows.loading.item() == pytest.approx(0.125, rel=0.01)
    assert found.certificate.worst_loading_percent == pytest.approx(100 * found.flows.loading.item(), rel=1e-6)


@pytest.mark.parametrize("losses", ["none", "linear"])
def test_the_linear_model_breaks_it_too(losses: str):
    case = with_capacity(engine_at_b(0, rating=0.8), 100.0, 90.0, np.inf)
    found = clear(case, Settings(formulation="lindistflow", losses=losses))
    assert found.broken_limits().called.tolist() == [CAPACITY_UP]
    assert_parts_add_up(found)


def test_a_price_in_a_called_state_is_the_cost_of_one_more_unit_of_demand_and_of_reserve():
    """More demand behind the line makes room for the call; more of what is required takes it."""
    case = with_capacity(engine_at_b(0, rating=0.8), 100.0, 90.0, np.inf)
    found, step = clear(case), 0.05

    def cost(**change: float) -> float:
        load = case.load_p_kw + np.array([[0.0, change.get("load", 0.0)]])
        required = replace(case.requirements, quantity_kw=case.requirements.quantity_kw + change.get("required", 0.0))
        return clear(replace(case, load_p_kw=load, requirements=required)).objective

    by_load = (cost(load=step) - cost(load=-step)) / (2 * step) * 1000
    assert by_load == pytest.approx(found.prices.lmp_usd_per_mwh[0, 1], rel=1e-3)
    by_required = (cost(required=step) - cost(required=-step)) / (2 * step) * 1000
    assert by_required == pytest.approx(found.services.requirement_usd_per_mw_h.item(), rel=1e-3)
    assert by_required > 10_000


def test_a_hard_limit_that_no_call_keeps_is_named_with_the_service():
    case = with_capacity(engine_at_b(0, rating=0.8), 100.0, 90.0, np.inf)
    with pytest.raises(InfeasibleError, match=rf"a-b.* when {CAPACITY_UP} is called, interval 0"):
        clear(case, Settings(limits="hard"))


def test_what_is_broken_as_scheduled_does_not_make_every_call_unsafe():
    """Bus b is below its band whoever is called: one engine alone lifts it less than both, and needs no state."""
    engines = [resource(name, "b", supply=[(40, 60)]) for name in ("one", "two")]
    case = market(two(400, band=(0.95, 1.05)), 20.0, *engines)
    case = with_capacity(case, 5.0, 10.0, 1e6)
    offers = case.service_offers
    both = {name: np.repeat(getattr(offers, name), 2, axis=-1) for name in vars(offers)}
    case = replace(case, service_offers=ServiceOffers(**both | {"resource": np.array([0, 1])}))
    found = clear(case)
    assert found.status == "converged"
    np.testing.assert_allclose(found.services.reserved_kw, 5.0, atol=1e-6)
    table = found.broken_limits()
    assert table.called.tolist() == ["-", CAPACITY_UP]
    assert table.excess.iloc[1] < table.excess.iloc[0]
    assert len(found.market.called) == 1
    assert found.certificate.is_feasible
    settle(found)
