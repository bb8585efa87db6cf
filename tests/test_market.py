"""Every rule of a market case, with the message that its breach earns; and the clock."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from cases import market, resource
from feeders import Branch, feeder

from dlmp.errors import InputError, Problem
from dlmp.market import Horizon, MarketCase, Substation, simple_case

START = datetime(2026, 3, 8, 8, 0, tzinfo=UTC)


@pytest.fixture
def case() -> MarketCase:
    """Two hours on three buses with one generator."""
    network = feeder([Branch("a", "b", 0.01, 0.01), Branch("b", "c", 0.01, 0.01)], {"b": (30, 10), "c": (50, 20)})
    return market(network, [20.0, 25.0], resource("G", "c", supply=[(100, 30)]))


def problems_of(case: MarketCase, **change: object) -> tuple[Problem, ...]:
    with pytest.raises(InputError) as caught:
        replace(case, **change)
    return caught.value.problems


@pytest.mark.parametrize(
    ("change", "value", "message"),
    [
        (
            {"start": datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1)))},
            "2026-01-01T00:00:00+01:00",
            "must be in UTC",
        ),
        ({"start": datetime(2026, 1, 1)}, "2026-01-01T00:00:00", "must be in UTC"),
        ({"interval_minutes": 7}, 7, "must be one of (1, 5, 10, 15, 30, 60)"),
        ({"intervals": 0}, 0, "must be 1 to 10000"),
        ({"intervals": 10_001}, 10_001, "must be 1 to 10000"),
        ({"timezone": "Mars/Olympus"}, "Mars/Olympus", "must be an IANA time zone such as America/Los_Angeles"),
        ({"currency": "usd"}, "usd", "must be an ISO 4217 code such as USD"),
        ({"currency": "DOLLAR"}, "DOLLAR", "must be an ISO 4217 code such as USD"),
    ],
)
def test_a_bad_horizon_is_named_with_its_value(case, change, value, message):
    (problem,) = problems_of(case, horizon=replace(case.horizon, **change))
    ((field, _),) = change.items()
    assert (problem.element, problem.field, problem.value) == ("horizon", field, value)
    assert message in problem.message


@pytest.mark.parametrize(
    ("change", "element", "field", "value", "message"),
    [
        (
            {"price_usd_per_mwh": [20.0]},
            "substation",
            "price_usd_per_mwh",
            "1 values",
            "one per interval is needed: 2",
        ),
        (
            {"q_price_usd_per_mvarh": [0.0] * 3},
            "substation",
            "q_price_usd_per_mvarh",
            "3 values",
            "one per interval is needed: 2",
        ),
        (
            {"price_usd_per_mwh": [20.0, np.inf]},
            "substation, interval 1",
            "price_usd_per_mwh",
            np.inf,
            "must be finite and at most 1e9 in size",
        ),
        ({"p_min_kw": 5.0, "p_max_kw": 4.0}, "import", "p_min_kw, p_max_kw", (5.0, 4.0), "need p_min_kw <= p_max_kw"),
        (
            {"q_min_kvar": 5.0, "q_max_kvar": 4.0},
            "import",
            "q_min_kvar, q_max_kvar",
            (5.0, 4.0),
            "need q_min_kvar <= q_max_kvar",
        ),
    ],
)
def test_a_bad_substation_is_named_with_field_and_value(case, change, element, field, value, message):
    (problem,) = problems_of(case, substation=replace(case.substation, **change))
    assert (problem.element, problem.field, problem.value, problem.message) == (element, field, value, message)


def test_every_interval_whose_range_of_import_is_empty_is_named(case):
    limits = {"p_min_kw": np.array([0.0, 3.0]), "p_max_kw": np.array([1.0, 2.0])}
    (problem,) = problems_of(case, substation=replace(case.substation, **limits))
    assert (problem.element, problem.value) == ("import, interval 1", (3.0, 2.0))


def test_limits_of_import_cover_every_interval(case):
    (problem,) = problems_of(case, substation=replace(case.substation, p_max_kw=np.ones(3)))
    assert (problem.element, problem.field, problem.value) == ("import", "p_max_kw", "shape (3,)")


@pytest.mark.parametrize("field", ["p_max_kw", "q_min_kvar"])
def test_a_missing_import_limit_is_found(case, field):
    (problem,) = problems_of(case, substation=replace(case.substation, **{field: np.nan}))
    assert problem.element == "import"
    assert field in problem.field


@pytest.mark.parametrize("field", ["load_p_kw", "load_q_kvar"])
def test_a_load_that_is_no_number_is_named_by_bus_and_interval(case, field):
    load = np.array(getattr(case, field))
    load[1, 2] = np.nan
    (problem,) = problems_of(case, **{field: load})
    assert (problem.element, problem.field, problem.message) == ("load at bus c, interval 1", field, "must be finite")


@pytest.mark.parametrize("field", ["load_p_kw", "load_q_kvar"])
def test_a_load_of_the_wrong_shape_is_refused(case, field):
    (problem,) = problems_of(case, **{field: np.zeros((3, 2))})
    assert (problem.element, problem.field, problem.value) == ("load", field, "shape (3, 2)")
    assert problem.message == "must be intervals x load columns = (2, 3)"


@pytest.mark.parametrize(
    ("owner", "field"), [("resources", "p_max_kw"), ("bids", "quantity_kw"), ("bids", "price_usd_per_mwh")]
)
def test_resources_and_bids_cover_every_interval(case, owner, field):
    short = replace(getattr(case, owner), **{field: getattr(getattr(case, owner), field)[:1]})
    (problem,) = problems_of(case, **{owner: short})
    assert (problem.element, problem.field, problem.value) == (owner, field, "shape (1, 1)")
    assert problem.message == "must be (2, 1)"


@pytest.mark.parametrize("index", [-1, 1])
def test_a_bid_of_an_unknown_resource_is_refused(case, index):
    (problem,) = problems_of(case, bids=replace(case.bids, resource=np.array([index])))
    assert (problem.element, problem.field, problem.value) == ("bid segment 0", "resource", index)
    assert problem.message == "is no resource of the case"


def test_problems_of_different_parts_are_told_together(case):
    problems = problems_of(
        case, substation=replace(case.substation, p_min_kw=9.0, p_max_kw=1.0), load_p_kw=np.zeros((1, 1))
    )
    assert [problem.element for problem in problems] == ["import", "load"]
    problems = problems_of(
        case,
        resources=replace(case.resources, kind=np.array(["?"])),
        bids=replace(case.bids, quantity_kw=np.array([[-1.0], [1.0]])),
    )
    assert [problem.field for problem in problems][:2] == ["kind", "quantity_kw"]


def test_loads_and_prices_of_a_case_cannot_be_changed(case):
    for values in (case.load_p_kw, case.load_q_kvar, case.substation.price_usd_per_mwh):
        with pytest.raises(ValueError, match="read-only"):
            values[0] = 1.0


def test_intervals_are_half_open_and_equally_long():
    horizon = Horizon(START, 5, 288, "America/Los_Angeles")
    assert horizon.interval_hours == pytest.approx(1 / 12, rel=1e-15)
    assert horizon.starts[0] == START
    assert horizon.starts[-1] + timedelta(minutes=5) == START + timedelta(days=1)
    assert {after - before for before, after in zip(horizon.starts, horizon.starts[1:], strict=False)} == {
        timedelta(minutes=5)
    }


def test_the_market_s_clock_leaps_where_daylight_saving_begins():
    """8 March 2026: 01:00 PST is 09:00 UTC, and an hour later it is 03:00 PDT."""
    horizon = Horizon(START, 60, 4, "America/Los_Angeles")
    assert [f"{horizon.local(interval):%H:%M%z}" for interval in range(4)] == [
        "00:00-0800",
        "01:00-0800",
        "03:00-0700",
        "04:00-0700",
    ]


def test_a_simple_case_has_the_network_s_own_loads_in_every_hour():
    network = feeder([Branch("a", "b", 0.01, 0.01)], {"b": (30, 10)})
    case = simple_case(network, np.array([20.0, 25.0, 30.0]), name="three hours")
    assert case.name == "three hours"
    assert case.load_p_kw.tolist() == [[0, 30]] * 3
    assert case.load_q_kvar.tolist() == [[0, 10]] * 3
    assert case.horizon.interval_hours == 1.0
    assert (len(case.resources), len(case.bids)) == (0, 0)
    assert simple_case(network, 20.0).name == "feeder"


def test_an_import_without_limits_is_the_default():
    substation = Substation(np.array([20.0]), np.array([0.0]))
    assert (substation.p_min_kw.tolist(), substation.p_max_kw.tolist()) == ([-np.inf], [np.inf])
    assert (substation.q_min_kvar.tolist(), substation.q_max_kvar.tolist()) == ([-np.inf], [np.inf])
