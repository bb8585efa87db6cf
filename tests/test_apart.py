"""Intervals that nothing couples, in several processes: the outcome is that of one."""

from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cases import feeder33, generators33, market
from servicecases import SERVICE_CASES
from test_reactive import REACTIVE_CASES

from dlmp import Clearing, Settings, apart, clear
from dlmp.bids import BID_PROFILES
from dlmp.errors import InfeasibleError, SolverError
from dlmp.formulation.market_lp import build_market_lp
from dlmp.market import MarketCase, Substation
from dlmp.reactive import REACTIVE_PROFILES
from dlmp.services import OFFER_PROFILES
from dlmp.stores import PROFILED


def day() -> MarketCase:
    """Prices at which some generators run and others do not, and voltages that bind."""
    prices = np.array([20.0, 45.0, 60.0, 31.0, 20.5, 80.0, 22.0])
    return market(feeder33(v_min_pu=0.93), prices, *generators33())


def with_services() -> MarketCase:
    """An interval with calls of services, three times at rising prices."""
    case = SERVICE_CASES["ieee13"]()

    def thrice(record: Any, *names: str) -> dict[str, Any]:
        return {name: np.repeat(getattr(record, name), 3, axis=0) for name in names}

    substation = Substation(**thrice(case.substation, *vars(case.substation)))
    rising = substation.price_usd_per_mwh * np.array([1.0, 1.1, 1.2])
    return replace(
        case,
        horizon=replace(case.horizon, intervals=3),
        substation=replace(substation, price_usd_per_mwh=rising),
        **thrice(case, "load_p_kw", "load_q_kvar"),
        resources=replace(case.resources, **thrice(case.resources, "p_max_kw")),
        bids=replace(case.bids, **thrice(case.bids, *BID_PROFILES)),
        stores=replace(case.stores, **thrice(case.stores, *PROFILED)),
        reactive_bids=replace(case.reactive_bids, **thrice(case.reactive_bids, *REACTIVE_PROFILES)),
        service_offers=replace(case.service_offers, **thrice(case.service_offers, *OFFER_PROFILES)),
        requirements=replace(case.requirements, **thrice(case.requirements, "quantity_kw")),
    )


def assert_same(found: Clearing, expected: Clearing) -> None:
    assert (found.status, expected.status) == ("converged", "converged")
    assert found.objective == pytest.approx(expected.objective, rel=1e-11, abs=1e-9)
    own = expected.case.network.is_priced
    ours, theirs = found.prices.lmp_usd_per_mwh[:, own], expected.prices.lmp_usd_per_mwh[:, own]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.awards.segment_kw, expected.awards.segment_kw, atol=1e-4)
    np.testing.assert_allclose(found.services.reserved_kw, expected.services.reserved_kw, atol=1e-4)
    ours, theirs = found.binding_limits(), expected.binding_limits()
    assert ours.element.tolist() == theirs.element.tolist()
    assert ours.interval.tolist() == theirs.interval.tolist()


@pytest.mark.parametrize("make", [day, with_services])
def test_the_outcome_is_that_of_one_process(make: Callable[[], MarketCase]):
    case, seen = make(), []
    found = clear(case, workers=2, progress=seen.append)
    assert_same(found, clear(case))
    assert len(seen) == len(found.passes)
    assert found.seconds["power_flow"] > 0


def test_parts_are_the_market_of_their_intervals():
    """Its programme, apart, is the one that is built for these intervals alone."""
    case = with_services()
    whole = build_market_lp(case, 8)
    part = apart._part(whole, slice(1, None)).market
    own = build_market_lp(case.at(slice(1, 3)), 8)
    for name in ("cost", "lower", "upper", "slope"):
        np.testing.assert_array_equal(getattr(part.columns, name), getattr(own.columns, name))
    assert (part.matrix != own.matrix).nnz == 0
    np.testing.assert_array_equal(part.row_lower, own.row_lower)
    np.testing.assert_array_equal(part.row_upper, own.row_upper)
    np.testing.assert_array_equal(part.state_interval, own.state_interval)
    assert part.case.horizon.starts == case.horizon.starts[1:]


def test_another_clearing_may_begin_with_it():
    case = day()
    start = clear(case, workers=2)
    again = clear(case, start=start)
    assert_same(again, start)
    assert again.summary()["lp_solves"] == 0


@pytest.mark.parametrize("name", ["with_a_battery_33", "lasting_33"])
def test_what_is_coupled_stays_together(name: str, monkeypatch: pytest.MonkeyPatch):
    case = {**SERVICE_CASES, **REACTIVE_CASES}[name]()
    assert not apart.can_stand_apart(build_market_lp(case, 8))
    monkeypatch.setattr("dlmp.clearing.dispatch_apart", None)
    assert clear(case, workers=2).status == "converged"


def test_an_infeasible_interval_is_told_by_its_number_in_the_day():
    case = day()
    times = np.where(np.arange(7) == 5, 2.5, 1.0)[:, None]
    beyond = replace(case, load_p_kw=times * case.load_p_kw, load_q_kvar=times * case.load_q_kvar)
    with pytest.raises(InfeasibleError, match="interval 5"):
        clear(beyond, Settings(limits="hard"), workers=2)


def test_a_process_that_ends_early_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch):
    def broken(*arguments: object) -> None:
        raise BrokenProcessPool("a process died")

    monkeypatch.setattr(apart.ProcessPoolExecutor, "map", broken)
    with pytest.raises(SolverError, match="fewer workers"):
        clear(day(), workers=2)
