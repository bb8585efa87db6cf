"""Random small feeders and bids: what must hold of every clearing, whatever the numbers."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from cases import Offer, market, resource
from feeders import Branch, feeder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from softopf import solve_soft_acopf

from dlmp import InfeasibleError, MarketCase, Settings, clear
from dlmp.prices import COMPONENTS


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    """Numbers of four decimals, which hypothesis can make simpler."""
    return st.integers(round(low * 1e4), round(high * 1e4)).map(lambda value: value / 1e4)


@st.composite
def offers(draw: st.DrawFn, bus: int) -> Offer:
    """A curve of up to three blocks at a bus, with reactive power and a rating or without."""
    sizes = draw(st.lists(numbers(5, 60), min_size=1, max_size=3))
    prices = sorted(draw(st.lists(numbers(-5, 90), min_size=len(sizes), max_size=len(sizes), unique=True)))
    blocks = list(zip(sizes, prices, strict=True))
    reactive = draw(st.sampled_from([0.0, 0.0, 30.0]))
    extra = {"q_kvar": (-reactive, reactive), "s_max_kva": draw(st.sampled_from([np.inf, sum(sizes) + 15.0]))}
    if draw(st.booleans()):
        return resource(f"at {bus}", bus, demand=blocks[::-1], **extra)
    return resource(f"at {bus}", bus, supply=blocks, **extra)


@st.composite
def cases(draw: st.DrawFn) -> MarketCase:
    """A radial feeder of four to six buses with loads, a band, perhaps a rated line, and two or three bidders."""
    buses = draw(st.integers(4, 6))
    branches = [
        Branch(
            str(draw(st.integers(0, bus - 1))),
            str(bus),
            draw(numbers(0.001, 0.02)),
            draw(numbers(0.001, 0.02)),
            rating=draw(st.sampled_from([np.inf, np.inf, 2.5])),
            is_current=draw(st.booleans()),
        )
        for bus in range(1, buses)
    ]
    load = {str(bus): (draw(numbers(0, 60)), draw(numbers(-10, 30))) for bus in range(1, buses)}
    network = feeder(branches, load, band=(draw(numbers(0.88, 0.95)), draw(numbers(1.01, 1.05))))
    where = draw(st.lists(st.integers(0, buses - 1), min_size=2, max_size=3, unique=True))
    return market(network, draw(numbers(5, 60)), *(draw(offers(bus)) for bus in where))


@given(cases())
@settings(
    max_examples=25,
    derandomize=True,
    database=None,
    deadline=timedelta(seconds=20),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
def test_every_clearing_is_feasible_supported_and_adds_up(case: MarketCase):
    found = clear(case)
    prices, certificate = found.prices, found.certificate
    assert found.status == "converged"
    for total, suffix in ((prices.lmp_usd_per_mwh, ""), (prices.lmp_q_usd_per_mvarh, "_q")):
        parts = sum(getattr(prices, f"{component}{suffix}") for component in COMPONENTS)
        np.testing.assert_allclose(parts, total, rtol=0, atol=1e-9)
    assert certificate.is_feasible
    assert certificate.is_supported
    assert certificate.import_mismatch_kw < 1e-4
    cost = case.substation.price_usd_per_mwh[0] * found.import_kw[0]
    cost += np.where(case.bids.is_supply, 1, -1) * case.bids.price_usd_per_mwh[0] @ found.awards.segment_kw[0]
    assert found.objective == pytest.approx(cost / 1000 + found.penalty, rel=1e-7, abs=1e-7)


def tightened(case: MarketCase) -> MarketCase:
    """The case with a band from 0.985 pu, half of its ratings, and import of at most 0.8 of its load."""
    network = case.network
    narrow = replace(
        network,
        v_min_pu=np.full(network.node_count, 0.985),
        rating_from_pu=network.rating_from_pu / 2,
        rating_to_pu=network.rating_to_pu / 2,
    )
    most = 0.8 * float(case.load_p_kw.sum())
    return replace(case, network=narrow, substation=replace(case.substation, p_max_kw=most))


@given(cases().map(tightened))
@settings(
    max_examples=20,
    derandomize=True,
    database=None,
    deadline=timedelta(seconds=20),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
def test_soft_limits_have_the_ac_optimum_and_hard_ones_are_refused_just_where_those_break(case: MarketCase):
    found, expected = clear(case), solve_soft_acopf(case)
    assert found.status == "converged"
    assert found.objective == pytest.approx(expected.cost, rel=1e-6, abs=1e-7)
    assert found.certificate.is_feasible
    assert found.certificate.is_supported
    try:
        clear(case, Settings(limits="hard"))
        assert found.broken_limits().empty
    except InfeasibleError as error:
        assert error.conflicts
        assert len(found.broken_limits())
