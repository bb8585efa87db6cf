"""The certificate finds what is falsified: awards, voltages, loadings, prices; and is content with what is right."""

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from cases import CASES, banded, cigre, market, rated, resource
from feeders import Branch, feeder
from servicecases import SERVICE_CASES, Needed, Ready, with_services
from unbalanced import unbalanced

from dlmp import Clearing, InputError, clear
from dlmp.certificate import Certificate, bid_gaps, certify, independent_power_flow
from dlmp.formulation.ac_tangent import AcTangent
from dlmp.market import simple_case
from dlmp.reactive import ReactiveBids


@cache
def cleared(name: str) -> Clearing:
    return clear(CASES[name]())


def certified(found: Clearing, **change: object) -> Certificate:
    """The certificate of a clearing of which records were altered: ``case``, ``awards``, ``prices``, ``services``.."""
    names = ("prices", "awards", "services", "voltages")
    records = [change.get(name, getattr(found, name)) for name in names]
    return certify(change.get("case", found.case), found._dispatch, *records)


def with_injection(found: Clearing, name: str, change_kw: float, change_kvar: float = 0.0):
    """The awards with the power of one resource altered."""
    index = list(found.case.resources.name).index(name)
    p_kw, q_kvar = found.awards.net_injection_kw.copy(), found.awards.q_kvar.copy()
    p_kw[0, index] += change_kw
    q_kvar[0, index] += change_kvar
    return replace(found.awards, net_injection_kw=p_kw, q_kvar=q_kvar)


def test_what_is_right_is_certified():
    found = cleared("undervoltage_reactive_33")
    certificate = certified(found)
    assert certificate.is_feasible
    assert certificate.is_supported
    assert certificate.ac_converged
    assert certificate.voltage_mismatch_pu < 1e-9
    assert certificate.import_mismatch_kw < 1e-4
    assert certificate.loss_mismatch_kw < 1e-4
    assert certificate.worst_bid_gap_usd < 1e-6


def test_a_falsified_award_shows_in_import_voltage_and_feasibility():
    """Fifty kilowatts less at the end of the feeder: the import makes them up, and the voltage falls."""
    found = cleared("undervoltage_33")
    south = list(found.case.resources.name).index("south")
    assert found.awards.net_injection_kw[0, south] > 50
    certificate = certified(found, awards=with_injection(found, "south", -50.0))
    assert 50 < certificate.import_mismatch_kw < 60
    assert certificate.loss_mismatch_kw > 0.1
    assert certificate.voltage_mismatch_pu > 1e-3
    assert not certificate.is_feasible
    assert certificate.worst_voltage.startswith("bus 3")


def test_a_falsified_reactive_award_shows_in_the_voltages():
    found = cleared("undervoltage_reactive_33")
    certificate = certified(found, awards=with_injection(found, "south", 0.0, -60.0))
    assert certificate.voltage_mismatch_pu > 1e-4
    assert not certificate.is_feasible


@pytest.mark.parametrize(("change_kw", "excess_kw"), [(1e4, 9e3), (-1e4, 9e3)])
def test_an_award_outside_the_range_of_its_resource_is_not_feasible(change_kw: float, excess_kw: float):
    network = feeder([Branch("0", "1", 1e-6, 1e-6)], {"0": (100, 0)})
    found = clear(market(network, 20.0, resource("g", "0", supply=[(50, 10)])))
    certificate = certified(found, awards=with_injection(found, "g", change_kw))
    assert certificate.worst_range_violation_kw > excess_kw
    assert not certificate.is_feasible


def one_machine(*prices: float) -> Clearing:
    """A machine that injects 50 kW where import costs more than 10 per MWh, and 80 kvar for nothing."""
    network = feeder([Branch("0", "1", 1e-6, 1e-6)], {"0": (100, 60)})
    offer = resource("g", "0", supply=[(50, 10)], q_kvar=(-80.0, 80.0))
    return clear(market(network, list(prices), offer, q_price_usd_per_mvarh=[5.0] * len(prices)))


@pytest.mark.parametrize(
    ("fields", "excess"),
    [
        ({"ramp_up_kw_per_min": np.array([0.5])}, 50 - 0.5 * 60),
        ({"ramp_up_kw_per_min": np.array([2.0]), "p_initial_kw": np.array([-90.0])}, 0 + 90 - 2 * 60),
        ({"ramp_down_kw_per_min": np.array([0.25]), "p_initial_kw": np.array([40.0])}, 40 - 0.25 * 60),
        ({"power_factor_min": np.array([0.9])}, 80.0),
    ],
)
def test_an_award_beyond_what_its_resource_can_do_is_not_feasible(fields: dict[str, np.ndarray], excess: float):
    """Cleared without these limits, in an hour at 5 and one at 20, and certified with them."""
    found = one_machine(5.0, 20.0)
    np.testing.assert_allclose(found.awards.net_injection_kw, [[0], [50]], atol=1e-6)
    np.testing.assert_allclose(found.awards.q_kvar, [[80], [80]], atol=1e-6)
    stricter = replace(found.case, resources=replace(found.case.resources, **fields))
    certificate = certified(found, case=stricter)
    assert certificate.worst_range_violation_kw == pytest.approx(max(excess, 0.0), abs=1e-4)
    assert certificate.is_feasible == (excess <= 0)


def test_a_schedule_that_is_not_kept_and_segments_beyond_their_size_are_not_feasible():
    found = one_machine(5.0)
    scheduled = replace(found.case, bids=replace(found.case.bids, is_self_scheduled=np.array([[True]])))
    assert certified(found, case=scheduled).worst_range_violation_kw == pytest.approx(50, abs=1e-4)
    bid = ReactiveBids(np.array([0]), np.array([True]), np.array([0]), np.array([[30.0]]), np.array([[1.0]]))
    sold = clear(replace(found.case, reactive_bids=bid))
    assert certified(sold).is_feasible
    for change_kvar in (7.0, -37.0):
        awards = replace(sold.awards, segment_kvar=sold.awards.segment_kvar + change_kvar)
        assert certified(sold, awards=awards).worst_range_violation_kw == pytest.approx(7, abs=1e-4)


def test_a_violated_voltage_is_named_with_its_excess_and_interval():
    found = cleared("day_33")
    case = found.case
    highest = found.voltages.v_pu[1].max()
    certificate = certified(found, case=replace(case, network=banded(case.network, 0.9, highest - 0.004)))
    assert certificate.worst_voltage_violation_pu == pytest.approx(0.004, abs=1e-8)
    assert certificate.worst_voltage.endswith("interval 1") or certificate.worst_voltage.endswith("interval 2")
    assert not certificate.is_feasible
    assert certificate.is_supported


@pytest.mark.parametrize(
    ("name", "narrow"),
    [
        ("congestion_current_33", lambda network: rated(network, "line 2", ampere=80.0)),
        ("congestion_power_33", lambda network: rated(network, "line 0", kva=2880.0)),
    ],
)
def test_an_overloaded_branch_is_named_with_its_loading(name: str, narrow):
    """Full at its own rating, a branch is loaded to 125 % of four fifths of it."""
    found = cleared(name)
    certificate = certified(found, case=replace(found.case, network=narrow(found.case.network)))
    assert certificate.worst_loading_percent == pytest.approx(125.0, rel=1e-6)
    assert certificate.worst_loading.startswith("line ")
    assert not certificate.is_feasible
    assert certified(found).worst_loading_percent == pytest.approx(100.0, rel=1e-6)


def test_awards_that_no_ac_state_carries_are_not_feasible():
    found = cleared("undervoltage_33")
    certificate = certified(found, awards=with_injection(found, "far", -1e6))
    assert not certificate.ac_converged
    assert not certificate.is_feasible


def test_a_price_at_which_a_resource_would_sell_more_is_not_supporting():
    """At 5 above the price of its last, half-accepted block, a generator forgoes 5 for each kW that it has left."""
    found = cleared("undervoltage_33")
    awards, bids = found.awards.segment_kw[0], found.case.bids
    inside = np.flatnonzero((awards > 1) & (awards < bids.quantity_kw[0] - 1))
    (marginal,) = inside
    owner = bids.resource[marginal]
    dearer = np.array(found.prices.lmp_usd_per_mwh)
    dearer[0, found.case.resources.first_port[owner]] += 5.0
    certificate = certified(found, prices=replace(found.prices, lmp_usd_per_mwh=dearer))
    left_kw = bids.quantity_kw[0, marginal] - awards[marginal]
    assert certificate.worst_bid_gap_usd == pytest.approx(5 * left_kw / 1000, rel=1e-6)
    assert certificate.worst_bid == f"{found.case.resources.name[owner]}, interval 0"
    assert not certificate.is_supported
    assert certificate.is_feasible


def test_a_price_below_a_full_offer_does_not_support_it():
    """At 3 below its offer of 10 a generator of 50 kW would rather stand still."""
    network = feeder([Branch("0", "1", 0.01, 0.01)], {"1": (100, 0)})
    found = clear(market(network, 20.0, resource("g", "1", supply=[(50, 10)])))
    cheap = np.full_like(found.prices.lmp_usd_per_mwh, 7.0)
    gap, traded = bid_gaps(found._dispatch, replace(found.prices, lmp_usd_per_mwh=cheap), found.services)
    assert gap == pytest.approx(np.array([[3 * 50 / 1000]]), rel=1e-9)
    assert traded == pytest.approx(7 * 50 / 1000, rel=1e-9)


def test_a_buyer_s_gap_is_what_he_pays_too_much():
    network = feeder([Branch("0", "1", 0.01, 0.01)], {"1": (100, 0)})
    found = clear(market(network, 20.0, resource("d", "1", kind="load", demand=[(40, 25)])))
    dear = np.full_like(found.prices.lmp_usd_per_mwh, 30.0)
    gap, _ = bid_gaps(found._dispatch, replace(found.prices, lmp_usd_per_mwh=dear), found.services)
    assert gap == pytest.approx(np.array([[5 * 40 / 1000]]), rel=1e-9)


def test_a_reactive_price_that_a_resource_would_answer_is_not_supporting():
    """An inverter with 100 kvar of room at either side forgoes them at a price of 4."""
    network = feeder([Branch("0", "1", 1e-6, 1e-6)], {"0": (100, 0)})
    found = clear(market(network, 20.0, resource("v", "0", supply=[(10, 90)], q_kvar=(-100.0, 100.0))))
    priced = np.full_like(found.prices.lmp_q_usd_per_mvarh, 4.0)
    gap, _ = bid_gaps(found._dispatch, replace(found.prices, lmp_q_usd_per_mvarh=priced), found.services)
    assert gap[0, 0] == pytest.approx(4 * (100 - found.awards.q_kvar[0, 0]) / 1000, rel=1e-9)


def test_intervals_in_which_import_is_worth_money_are_told():
    assert cleared("negative_price_33").certificate.negative_import_value == (0,)
    assert cleared("undervoltage_33").certificate.negative_import_value == ()


def test_the_independent_power_flow_agrees_with_the_engine_s_on_transformers():
    """With taps and a phase shift of 150 degrees, and for two intervals."""
    network = cigre()
    p_kw, q_kvar = network.element_loads()
    load = -np.outer([1.0, 0.4], p_kw + 1j * q_kvar)
    flow = independent_power_flow(network, load, np.zeros((2, 0)))
    point = AcTangent(network).operate(load / 100.0)
    assert (flow.program, flow.converged) == ("pandapower", True)
    np.testing.assert_allclose(flow.v_pu, point.v_pu, rtol=0, atol=1e-9)
    np.testing.assert_allclose(flow.import_kva, point.import_pu * 100.0, rtol=0, atol=1e-4)


@cache
def with_called(name: str) -> Clearing:
    return clear(SERVICE_CASES[name]())


@pytest.mark.parametrize("name", ["overvoltage_up_33", "congestion_down_33", "ring"])
def test_what_is_reserved_is_certified_to_be_deliverable(name: str):
    certificate = with_called(name).certificate
    assert certificate.calls > 1
    assert certificate.is_deliverable


@pytest.mark.parametrize(
    ("name", "owner", "excess_pu", "words"),
    [
        ("overvoltage_up_33", "far", 1e-3, "bus 17, interval 0, capacity_up called"),
        ("congestion_down_33", "far", 1e-2, "line 2, interval 0, capacity_down called"),
        ("ring", "left", 0.1, "b-c, interval 0, capacity_up of left called"),
    ],
)
def test_a_call_that_breaks_a_limit_is_named(name: str, owner: str, excess_pu: float, words: str):
    """A tenth more of one reserve, whose call just kept the limit: of the state as scheduled nothing changes."""
    found = with_called(name)
    offers = found.case.service_offers
    more = np.where(found.case.resources.name[offers.resource] == owner, 1.2, 1.0)
    services = replace(found.services, reserved_kw=found.services.reserved_kw * more)
    certificate = certified(found, services=services)
    assert not certificate.is_deliverable
    assert certificate.worst_called_violation_pu > excess_pu
    assert certificate.worst_call == words
    assert certificate.worst_voltage_violation_pu == 0


def test_a_call_that_no_ac_state_carries_is_not_deliverable():
    found = with_called("congestion_down_33")
    certificate = certified(found, services=replace(found.services, reserved_kw=found.services.reserved_kw * 1e4))
    assert certificate.ac_converged
    assert not certificate.calls_converged
    assert not certificate.is_deliverable
    json.dumps(certificate.summary(), allow_nan=False)


def test_reserves_beyond_their_offers_and_what_is_left_of_a_resource_are_not_feasible():
    """30 kW and 40 kvar held back in an inverter of 100 kVA that sells the rest."""
    network = feeder([Branch("0", "1", 1e-6, 1e-6)], {"1": (100, 0)})
    plant = resource("plant", "1", supply=[(100, 30)], q_kvar=(0.0, 80.0), s_max_kva=100.0)
    offers = [Ready("plant", "var_up", 50.0), Ready("plant", "capacity_up", 32.0)]
    needed = [Needed("var_up", 40.0), Needed("capacity_up", 30.0)]
    found = clear(with_services(market(network, 40.0, plant), offers, needed))
    assert certified(found).worst_range_violation_kw < 1e-6
    reserved, p_kw = found.services.reserved_kw, found.awards.net_injection_kw[0, 0]
    for more, excess in (
        ([9.0, 0.0], np.hypot(p_kw + 30, 49) - 100),
        ([0.0, 1.0], np.hypot(p_kw + 31, 40) - 100),
        ([0.0, -31.0], 1.0),
    ):
        services = replace(found.services, reserved_kw=reserved + np.array(more))
        assert certified(found, services=services).worst_range_violation_kw == pytest.approx(excess, abs=1e-6)
        assert excess > 0.4


@pytest.mark.parametrize(
    ("service", "offered", "reserved", "excess"),
    [
        ("capacity_up", 30.0, 31.0, 1.0),
        ("capacity_up", 90.0, 61.0, 11.0),
        ("capacity_down", 90.0, 51.0, 1.0),
        ("var_up", 90.0, 27.0, 7.0),
        ("var_down", 90.0, 24.0, 4.0),
    ],
)
def test_a_reserve_beyond_its_offer_or_the_range_of_its_resource_is_not_feasible(
    service: str, offered: float, reserved: float, excess: float
):
    """50 of 100 kW run, of their own schedule, without reactive power, of which there may be 20 kvar either way."""
    network = feeder([Branch("0", "1", 1e-6, 1e-6)], {"1": (100, 0)})
    plant = resource("plant", "1", supply=[(50, 30), (50, 60)], q_kvar=(-20.0, 20.0))
    case = with_services(market(network, 40.0, plant), [Ready("plant", service, offered)], [Needed(service, 0.0)])
    found = clear(case)
    q_kvar = found.awards.q_kvar[0, 0] * {"var_up": 1, "var_down": -1}.get(service, 0)
    services = replace(found.services, reserved_kw=np.array([[reserved]]))
    worst = certified(found, services=services).worst_range_violation_kw
    assert worst == pytest.approx(excess + q_kvar, abs=1e-4)


def test_the_summary_is_json_without_nan_or_infinity():
    for name in ("undervoltage_33", "base_33", "negative_price_33"):
        text = json.dumps(cleared(name).certificate.summary(), allow_nan=False)
        assert json.loads(text)["feasible"] is True
        assert json.loads(text)["bids_supported"] is True


def test_the_summary_tells_where_prices_are_not_unique():
    network = feeder([Branch("0", "1", 0.01, 0.01)], {"0": (100, 0)})
    offer = resource("g", "0", supply=[(100, 10), (100, 30)])
    found = clear(market(network, 20.0, offer, p_min_kw=0.0, p_max_kw=0.0))
    (told,) = found.certificate.summary()["intervals_with_price_ranges"]
    assert told["interval"] == 0
    assert (told["low_usd_per_mwh"], told["high_usd_per_mwh"]) == pytest.approx((10.0, 30.0), abs=1e-4)


def test_a_network_of_single_phases_written_in_code_is_cleared_and_has_no_certificate():
    found = clear(simple_case(unbalanced(), 20.0))
    assert found.status == "converged"
    with pytest.raises(InputError, match="certificate, network = 'unbalanced': no other program knows it"):
        _ = found.certificate
