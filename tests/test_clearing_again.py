"""A clearing that begins with an earlier one of a like case comes to the same as one that begins anew."""

import os
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from cases import CASES, feeder33, generators33, market
from hypothesis import given, settings
from hypothesis import strategies as st
from servicecases import SERVICE_CASES
from storecases import STORE_CASES
from test_random_services import MANY, cases, numbers

from dlmp import Clearing, MarketCase, Penalties, Settings, Tier, clear, read_case, shipped_case
from dlmp.formulation import ac_tangent
from dlmp.market import simple_case

LINEAR = Settings(formulation="lindistflow")


def assert_same(warm: Clearing, cold: Clearing) -> None:
    assert (warm.status, cold.status) == ("converged", "converged")
    assert warm.objective == pytest.approx(cold.objective, rel=1e-7, abs=1e-6)
    assert warm.prices.published == pytest.approx(cold.prices.published, rel=1e-6, abs=1e-5)
    assert warm.awards.net_injection_kw == pytest.approx(cold.awards.net_injection_kw, abs=1e-3)
    assert warm.services.reserved_kw == pytest.approx(cold.services.reserved_kw, abs=1e-3)


def cheaper(case: MarketCase, share: float = 0.9, interval: int | None = None) -> MarketCase:
    """All bids at a `share` of their price and 95 % of their quantity, in one interval or in all."""
    bids, own = case.bids, slice(None) if interval is None else interval
    price, quantity = bids.price_usd_per_mwh.copy(), bids.quantity_kw.copy()
    price[own] *= share
    quantity[own] *= np.where(bids.is_self_scheduled[own], 1.0, 0.95)
    return replace(case, bids=replace(bids, price_usd_per_mwh=price, quantity_kw=quantity))


def dearer_import(case: MarketCase, share: float = 1.2) -> MarketCase:
    substation = case.substation
    return replace(case, substation=replace(substation, price_usd_per_mwh=share * substation.price_usd_per_mwh))


def less_load(case: MarketCase) -> MarketCase:
    return replace(case, load_p_kw=0.97 * case.load_p_kw, load_q_kvar=0.97 * case.load_q_kvar)


CHANGES = {"bids": cheaper, "import": dearer_import, "load": less_load}
KNOWN = {**CASES, **STORE_CASES, **SERVICE_CASES}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("name", KNOWN)
def test_whatever_changes_the_outcome_is_that_of_a_new_clearing(
    name: str, change: Callable[[MarketCase], MarketCase]
) -> None:
    case = KNOWN[name]()
    other = change(case)
    assert_same(clear(other, start=clear(case)), clear(other))


def test_intervals_without_a_change_are_not_solved_again(monkeypatch: pytest.MonkeyPatch) -> None:
    case = market(feeder33(v_min_pu=0.93), np.array([20.0, 45.0, 30.0, 60.0]), *generators33())
    first, other = clear(case), cheaper(case, interval=2)
    solved: list[np.ndarray] = []
    flow = ac_tangent.PowerFlow
    solve = flow.solve

    def note(self, injection, start=None, states=None, *more):
        solved.append(np.arange(len(injection)) if states is None else states)
        return solve(self, injection, start, states, *more)

    monkeypatch.setattr(flow, "solve", note)
    warm = clear(other, start=first)
    assert set(np.concatenate(solved).tolist()) == {2}
    assert warm.summary()["lp_solves"] == 0
    monkeypatch.undo()
    assert_same(warm, clear(other))
    before, now = first.prices.published, warm.prices.published
    assert now[[0, 1, 3]] == pytest.approx(before[[0, 1, 3]], abs=1e-9)
    assert np.abs(now[2] - before[2]).max() > 0.1


def test_the_same_case_again_is_the_same_clearing() -> None:
    case = CASES["undervoltage_reactive_33"]()
    first = clear(case)
    again = clear(case, start=first)
    assert (again.prices.published == first.prices.published).all()
    assert (again.awards.segment_kw == first.awards.segment_kw).all()


def test_what_does_not_fit_begins_anew() -> None:
    case = market(feeder33(v_min_pu=0.93), np.array([20.0, 45.0]), *generators33())
    first = clear(case)
    others = {
        "another network": (replace(case, network=feeder33(v_min_pu=0.94)), None),
        "other resources": (market(case.network, np.array([20.0, 45.0]), *generators33()[1:]), None),
        "other intervals": (market(case.network, np.array([20.0, 45.0, 30.0]), *generators33()), None),
        "other penalties": (replace(case, penalties=Penalties(substation=(Tier(0.0, 1000.0),))), None),
        "another range of import": (
            replace(case, substation=replace(case.substation, p_max_kw=np.array(2000.0))),
            None,
        ),
        "other settings": (case, Settings(limits="hard")),
        "another formulation": (case, LINEAR),
    }
    for what, (other, chosen) in others.items():
        warm, cold = clear(other, chosen, start=first), clear(other, chosen)
        assert warm.summary()["lp_solves"] == cold.summary()["lp_solves"] > 0, what
        assert_same(warm, cold)


def test_the_linear_model_begins_with_an_earlier_clearing_too() -> None:
    case = market(feeder33(v_min_pu=0.93), np.array([20.0, 45.0]), *generators33())
    for change in CHANGES.values():
        other = change(case)
        assert_same(clear(other, LINEAR, start=clear(case, LINEAR)), clear(other, LINEAR))


@settings(MANY, max_examples=int(os.environ.get("DLMP_EXAMPLES", "15")))
@given(case=cases(), share=numbers(0.7, 1.3), price=numbers(0.5, 2.0), what=st.sampled_from(sorted(CHANGES)))
def test_random_changes_of_random_cases(case: MarketCase, share: float, price: float, what: str) -> None:
    changed = {"bids": cheaper(case, share), "import": dearer_import(case, price), "load": less_load(case)}
    other = changed[what]
    warm, cold = clear(other, start=clear(case)), clear(other)
    assert warm.status == cold.status
    assert warm.objective == pytest.approx(cold.objective, rel=1e-6, abs=1e-5)
    assert warm.certificate.is_feasible
    assert warm.certificate.is_supported
    assert warm.certificate.is_deliverable


def test_loads_that_follow_their_voltage_may_change_alone() -> None:
    """Nobody bids, so that nothing else moves."""
    case = simple_case(read_case(shipped_case("ieee13")).network, 30.0)
    p_kw, q_kvar, laws = case.load_p_kw.copy(), case.load_q_kvar.copy(), slice(case.network.port_count, None)
    p_kw[:, laws] *= 0.8
    q_kvar[:, laws] *= 0.8
    assert (p_kw != case.load_p_kw).any()
    other = replace(case, load_p_kw=p_kw, load_q_kvar=q_kvar)
    assert_same(clear(other, start=clear(case)), clear(other))
