"""Every rule of resources and bids, with the message that its breach earns."""

from dataclasses import replace

import numpy as np
import pytest
from feeders import Branch, feeder
from scipy import sparse

from dlmp.bids import RESOURCE_KINDS, Bids, Resources, at_ports, check_bids, check_resources, no_resources
from dlmp.curves import MAX_SEGMENTS
from dlmp.errors import Problem, Problems
from dlmp.market import simple_case

INTERVALS = 2


def resources(**change: object) -> Resources:
    """A generator G of 20 kW to 100 kW and a battery B between -50 kW and 50 kW, two intervals."""
    fields = {
        "name": np.array(["G", "B"]),
        "kind": np.array(["generator", "other"]),
        "share": at_ports([1, 2], 4),
        "p_min_kw": np.array([20.0, -50.0]),
        "p_max_kw": np.array([[100.0, 50.0], [80.0, 50.0]]),
        "q_min_kvar": np.array([-10.0, 0.0]),
        "q_max_kvar": np.array([10.0, 0.0]),
        "s_max_kva": np.array([110.0, np.inf]),
    }
    return Resources(**(fields | change))


def bids(**change: object) -> Bids:
    """G supplies 60 kW at 30 and 40 kW at 40; B supplies 50 kW at 35 and buys 30 kW at 25 and 20 kW at 20."""
    fields = {
        "resource": np.array([0, 0, 1, 1, 1]),
        "is_supply": np.array([True, True, True, False, False]),
        "segment": np.array([0, 1, 0, 0, 1]),
        "quantity_kw": np.tile([60.0, 40.0, 50.0, 30.0, 20.0], (INTERVALS, 1)),
        "price_usd_per_mwh": np.tile([30.0, 40.0, 35.0, 25.0, 20.0], (INTERVALS, 1)),
    }
    return Bids(**(fields | change))


def at(values: np.ndarray, *where: int, to: float) -> np.ndarray:
    """A copy of `values` with one of them changed."""
    copy = values.astype(type(to))
    copy[where] = to
    return copy


def problems_of(of: Resources | None = None, offered: Bids | None = None) -> list[Problem]:
    problems = Problems()
    of = of or resources()
    check_resources(of, 4, problems)
    check_bids(offered or bids(), of, problems)
    return problems.found


def test_these_bids_are_in_order():
    assert problems_of() == []


def test_nobody_may_bid():
    none, nothing = no_resources(INTERVALS, 4)
    assert problems_of(none, nothing) == []
    assert (none.p_max_kw.shape, nothing.quantity_kw.shape) == ((2, 0), (2, 0))


@pytest.mark.parametrize(
    ("change", "element", "field", "value", "message"),
    [
        (
            {"name": np.array(["G", "G"])},
            "resource G",
            "resource",
            "G",
            "stands more than once; names must be unique",
        ),
        ({"kind": np.array(["generator", "magic"])}, "resource B", "kind", "magic", "must be one of solar, wind,"),
        (
            {"share": sparse.diags_array([1.0, 0.5]) @ at_ports([1, 2], 4)},
            "resource B",
            "share",
            0.5,
            "the shares of a resource must add up to 1",
        ),
        ({"share": at_ports([1, 2], 3)}, "resources", "share", "shape (2, 3)", "must be (2, 4)"),
        (
            {"q_min_kvar": np.array([11.0, 0.0])},
            "resource G",
            "q_min_kvar, q_max_kvar",
            (11.0, 10.0),
            "must be finite with q_min_kvar <= q_max_kvar",
        ),
        (
            {"q_max_kvar": np.array([np.inf, 0.0])},
            "resource G",
            "q_min_kvar, q_max_kvar",
            (-10.0, np.inf),
            "must be finite",
        ),
        ({"s_max_kva": np.array([0.0, np.inf])}, "resource G", "s_max_kva", 0.0, "must be above zero; leave it blank"),
        ({"participant": np.array(["A", ""])}, "resource B", "participant", "", "must not be blank: name who is paid"),
        (
            {"participant": np.array(["operator", "A"])},
            "resource G",
            "participant",
            "operator",
            "is an account of the settlement (load, substation, operator); name the participant otherwise",
        ),
        ({"name": np.array(["G", "load"])}, "resource load", "participant", "load", "name the participant otherwise"),
        ({"participant": np.array(["A"])}, "resources", "participant", "1 values", "one per resource is needed: 2"),
        (
            {"s_max_kva": np.array([19.0, np.inf])},
            "resource G",
            "p_min_kw",
            20.0,
            "is above s_max_kva = 19",
        ),
        (
            {
                "s_max_kva": np.array([24.9, np.inf]),
                "q_min_kvar": np.array([15.0, 0.0]),
                "q_max_kvar": np.array([20.0, 0.0]),
            },
            "resource G",
            "s_max_kva",
            24.9,
            "its ranges of p and q need 25 kVA and the rating allows 24.9",
        ),
        (
            {"p_max_kw": np.array([[100.0, 50.0], [19.0, 50.0]])},
            "resource G",
            "p_min_kw, p_max_kw (interval 1)",
            (20.0, 19.0),
            "must be finite with p_min_kw <= p_max_kw, after availability",
        ),
        (
            {"p_min_kw": np.array([20.0, -np.inf])},
            "resource B",
            "p_min_kw, p_max_kw (interval 0)",
            (-np.inf, 50.0),
            "must be finite",
        ),
    ],
)
def test_a_bad_resource_is_named_with_field_and_value(change, element, field, value, message):
    (problem,) = problems_of(resources(**change))
    assert (problem.element, problem.field, problem.value) == (element, field, value)
    assert message in problem.message


def test_a_resource_is_its_own_participant_unless_another_is_named():
    assert resources().participant.tolist() == ["G", "B"]
    assert resources(participant=np.array(["A", "A"])).participant.tolist() == ["A", "A"]


@pytest.mark.parametrize("field", ["q_min_kvar", "q_max_kvar", "p_min_kw", "s_max_kva"])
def test_a_missing_number_of_a_resource_is_found(field: str):
    problems = problems_of(resources(**{field: np.array([np.nan, 1.0])}))
    assert any(problem.element == "resource G" and field in problem.field for problem in problems)


@pytest.mark.parametrize(
    ("change", "element", "field", "value", "message"),
    [
        (
            {"quantity_kw": at(bids().quantity_kw, 1, 0, to=-1.0)},
            "bid of G, supply segment 0, interval 1",
            "quantity_kw",
            -1.0,
            "must be finite and >= 0",
        ),
        (
            {"quantity_kw": at(bids().quantity_kw, 1, 4, to=np.inf)},
            "bid of B, demand segment 1, interval 1",
            "quantity_kw",
            np.inf,
            "must be finite and >= 0",
        ),
        (
            {"price_usd_per_mwh": at(bids().price_usd_per_mwh, 0, 2, to=np.inf)},
            "bid of B, supply segment 0, interval 0",
            "price_usd_per_mwh",
            np.inf,
            "must be finite",
        ),
        (
            {"price_usd_per_mwh": at(bids().price_usd_per_mwh, 1, 1, to=29.0)},
            "bid of G, supply segment 1, interval 1",
            "price_usd_per_mwh",
            29.0,
            "must not fall from one supply segment to the next",
        ),
        (
            {"price_usd_per_mwh": at(bids().price_usd_per_mwh, 0, 4, to=26.0)},
            "bid of B, demand segment 1, interval 0",
            "price_usd_per_mwh",
            26.0,
            "must not rise from one demand segment to the next",
        ),
        (
            {"price_usd_per_mwh": at(bids().price_usd_per_mwh, 1, 3, to=36.0)},
            "bid of B, interval 1",
            "price_usd_per_mwh",
            36.0,
            "demand is dearer than its own supply at 35: the resource would trade with itself",
        ),
    ],
)
def test_a_bad_bid_is_named_with_segment_interval_and_value(change, element, field, value, message):
    (problem,) = problems_of(offered=bids(**change))
    assert (problem.element, problem.field, problem.value) == (element, field, value)
    assert message in problem.message


def test_a_resource_that_must_run_needs_bids_for_it():
    (problem,) = problems_of(offered=bids(quantity_kw=at(at(bids().quantity_kw, 1, 0, to=9.0), 1, 1, to=10.5)))
    assert (problem.element, problem.field, problem.value) == ("resource G, interval 1", "p_min_kw", 20.0)
    assert problem.message == "needs supply bids of at least p_min_kw"


def test_a_resource_that_must_consume_needs_bids_for_it():
    must_consume = resources(p_max_kw=at(resources().p_max_kw, 0, 1, to=-50.5))
    must_consume = replace(must_consume, p_min_kw=np.array([20.0, -60.0]))
    (problem,) = problems_of(must_consume)
    assert (problem.element, problem.field, problem.value) == ("resource B, interval 0", "p_max_kw", -50.5)
    assert problem.message == "needs demand bids of at least -p_max_kw"


def test_equal_prices_and_demand_at_the_price_of_supply_are_in_order():
    assert problems_of(offered=bids(price_usd_per_mwh=np.full((INTERVALS, 5), 30.0))) == []


def test_the_order_of_rows_does_not_matter_but_that_of_segments():
    order = np.array([4, 1, 3, 0, 2])
    given = bids()
    shuffled = Bids(
        given.resource[order],
        given.is_supply[order],
        given.segment[order],
        given.quantity_kw[:, order],
        given.price_usd_per_mwh[:, order],
    )
    assert problems_of(offered=shuffled) == []
    (problem,) = problems_of(offered=replace(given, segment=np.array([1, 0, 0, 0, 1])))
    assert problem.element == "bid of G, supply segment 1, interval 0"


def test_the_price_of_a_segment_without_quantity_does_not_count():
    empty = at(bids().quantity_kw, 0, 0, to=0.0)
    assert (
        problems_of(offered=bids(quantity_kw=empty, price_usd_per_mwh=at(bids().price_usd_per_mwh, 0, 0, to=99.0)))
        == []
    )


def test_an_empty_segment_between_two_does_not_hide_that_the_third_is_cheaper_than_the_first():
    three = Bids(
        resource=np.zeros(3, dtype=np.int64),
        is_supply=np.ones(3, dtype=bool),
        segment=np.arange(3),
        quantity_kw=np.array([[60.0, 0.0, 40.0]]),
        price_usd_per_mwh=np.array([[30.0, 31.0, 29.0]]),
    )
    one = replace(resources(), p_max_kw=np.array([[100.0, 0.0]]), p_min_kw=np.zeros(2))
    (problem,) = problems_of(one, three)
    assert problem.element == "bid of G, supply segment 2, interval 0"


def test_a_curve_has_at_most_twenty_segments():
    count = MAX_SEGMENTS + 1
    curve = Bids(
        resource=np.zeros(count, dtype=np.int64),
        is_supply=np.ones(count, dtype=bool),
        segment=np.arange(count),
        quantity_kw=np.full((INTERVALS, count), 5.0),
        price_usd_per_mwh=np.tile(np.arange(count) * 1.0, (INTERVALS, 1)),
    )
    (problem,) = problems_of(offered=curve)
    assert (problem.element, problem.field, problem.value) == ("resource G", "supply segments", 21)
    assert problem.message == "a curve has at most 20"


def test_all_problems_of_all_resources_are_found_at_once():
    bad = resources(kind=np.array(["a", "b"]), s_max_kva=np.array([-1.0, 0.0]))
    assert [(problem.element, problem.field) for problem in problems_of(bad)] == [
        ("resource G", "kind"),
        ("resource G", "s_max_kva"),
        ("resource B", "kind"),
        ("resource B", "s_max_kva"),
    ]


@pytest.mark.parametrize("kind", RESOURCE_KINDS)
def test_every_kind_is_accepted_by_a_case(kind: str):
    network = feeder([Branch("0", "1", 0.01, 0.01)])
    one = Resources(
        np.array(["r"]),
        np.array([kind]),
        at_ports([1], network.port_count),
        np.zeros(1),
        np.zeros((1, 1)),
        np.zeros(1),
        np.zeros(1),
        np.ones(1),
    )
    assert (
        simple_case(network, 20.0, resources=one, bids=no_resources(1, network.port_count)[1]).resources.kind[0] == kind
    )


@pytest.mark.parametrize("record", [resources(), bids()])
def test_records_are_read_only_copies(record: Resources | Bids):
    for name, value in vars(record).items():
        parts = (value.data, value.indices, value.indptr) if sparse.issparse(value) else (value,)
        assert not any(part.flags.writeable for part in parts), name
    given, share = np.array([20.0, -50.0]), at_ports([1, 2], 4)
    copied = resources(p_min_kw=given, share=share)
    given[0] = share.data[0] = 99.0
    assert copied.p_min_kw[0] == 20.0
    assert copied.share[0, 1] == 1.0
