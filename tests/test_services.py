"""Services of capacity and VAR, worked by hand on feeders that lose next to nothing."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from cases import market, resource
from feeders import Branch, feeder
from servicecases import Needed, Ready, ring, with_services
from storecases import Store, quarter_hours, with_stores
from unbalanced import unbalanced

from dlmp import Blocks, Clearing, InfeasibleError, InputError, MarketCase, Settings, clear
from dlmp.deliverability import called_excess
from dlmp.market import simple_case
from dlmp.reserves import unsafe_calls
from dlmp.services import behind_branch, in_zone

LINE = feeder([Branch("a", "b", 1e-6, 1e-6)], {"b": (200.0, 0.0)})


def one_plant(offer: Ready, needed: Needed, price: float = 40.0, **substation: float) -> Clearing:
    """A plant of 100 kW at 30, with import at 40 and one service."""
    return clear(with_services(market(LINE, price, plant(), **substation), [offer], [needed]))


def plant(price: float = 30.0, **fields: object):
    return resource("plant", "b", supply=[(100, price)], **fields)


def test_capacity_up_is_paid_the_energy_that_it_keeps_from_selling():
    """25 kW held back would each have earned 40 - 30; holding them ready costs 2 more."""
    found = one_plant(Ready("plant", "capacity_up", 60.0, 2.0), Needed("capacity_up", 25.0))
    np.testing.assert_allclose(found.awards.net_injection_kw, [[75.0]], atol=1e-6)
    np.testing.assert_allclose(found.services.reserved_kw, [[25.0]], atol=1e-6)
    np.testing.assert_allclose(found.services.requirement_usd_per_mw_h, [[12.0]], atol=1e-3)
    np.testing.assert_allclose(found.services.price_usd_per_mw_h, [[12.0]], atol=1e-3)
    np.testing.assert_allclose(found.objective, (125 * 40 + 75 * 30 + 25 * 2) / 1000, rtol=1e-5)


def test_capacity_up_of_an_idle_plant_is_paid_its_offer():
    found = clear(
        with_services(
            market(LINE, 40.0, plant(55.0)), [Ready("plant", "capacity_up", 60.0, 2.0)], [Needed("capacity_up", 25.0)]
        )
    )
    np.testing.assert_allclose(found.awards.net_injection_kw, [[0.0]], atol=1e-6)
    np.testing.assert_allclose(found.services.price_usd_per_mw_h, [[2.0]], atol=1e-6)


def with_self_schedule(case: MarketCase, *columns: int) -> MarketCase:
    """The same case with the bid segments `columns` self-scheduled."""
    chosen = np.isin(np.arange(len(case.bids)), columns)
    price = np.where(chosen, 0.0, case.bids.price_usd_per_mwh)
    return replace(
        case, bids=replace(case.bids, is_self_scheduled=np.tile(chosen, (len(price), 1)), price_usd_per_mwh=price)
    )


@pytest.mark.parametrize(
    ("service", "supply", "demand", "firm", "most"),
    [
        ("capacity_up", [], [(50, 45)], 0, 0.0),
        ("capacity_up", [(20, 60)], [(50, 45)], 1, 20.0),
        ("capacity_up", [], [(50, 45), (15, 44)], 0, 15.0),
        ("capacity_down", [(50, 30)], [], 0, 0.0),
        ("capacity_down", [(50, 30), (10, 31)], [], 0, 10.0),
        ("capacity_down", [(50, 30)], [(20, 25)], 0, 20.0),
    ],
)
def test_what_is_self_scheduled_is_not_for_sale(
    service: str, supply: list[tuple[int, int]], demand: list[tuple[int, int]], firm: int, most: float
):
    """It runs at any price, and a call could only stop it: what else is bid is all that there is to call."""
    case = with_self_schedule(market(LINE, 40.0, resource("one", "b", supply=supply, demand=demand)), firm)
    found = clear(with_services(case, [Ready("one", service, 100.0)], [Needed(service, 60.0, shortage=1000.0)]))
    np.testing.assert_allclose(found.services.reserved_kw, [[most]], atol=1e-6)
    assert found.certificate.is_feasible
    assert found.certificate.is_supported
    more = replace(found.services, reserved_kw=found.services.reserved_kw + 4.0)
    assert max(part.max(initial=0.0) for part in called_excess(found.case, found.awards, more)) == pytest.approx(4.0)


def test_a_requirement_that_no_resource_can_hold_ready_is_refused_with_what_it_can():
    case = with_self_schedule(market(LINE, 40.0, resource("pump", "b", supply=[(20, 60)], demand=[(50, 45)])), 1)
    words = "requirement capacity_up 0, interval 0: 50 kW required, at most 20 kW can be held ready"
    with pytest.raises(InfeasibleError, match=words):
        clear(with_services(case, [Ready("pump", "capacity_up", 50.0)], [Needed("capacity_up", 50.0)]))


@pytest.mark.parametrize("must_run_kw", [0.0, 35.0])
def test_capacity_down_is_paid_what_running_above_the_least_loses(must_run_kw: float):
    """An idle plant at 55 must run 20 kW above its least power, losing 55 - 40 on each."""
    case = market(LINE, 40.0, plant(55.0, must_run_kw=must_run_kw))
    found = clear(with_services(case, [Ready("plant", "capacity_down", 60.0, 1.0)], [Needed("capacity_down", 20.0)]))
    np.testing.assert_allclose(found.awards.net_injection_kw, [[must_run_kw + 20.0]], atol=1e-6)
    np.testing.assert_allclose(found.services.price_usd_per_mw_h, [[16.0]], atol=1e-3)


def test_a_consumer_sells_up_what_it_consumes_and_down_what_it_does_not():
    """Of 80 kW at 45 it consumes all; 30 of them may be called off, and 10 down are worth 45 - 40 each."""
    case = market(LINE, 40.0, resource("pump", "b", kind="load", demand=[(80, 45)]))
    offers = [Ready("pump", "capacity_up", 100.0, 3.0), Ready("pump", "capacity_down", 100.0, 1.0)]
    found = clear(with_services(case, offers, [Needed("capacity_up", 30.0), Needed("capacity_down", 10.0)]))
    np.testing.assert_allclose(found.awards.net_injection_kw, [[-70.0]], atol=1e-6)
    np.testing.assert_allclose(found.services.price_usd_per_mw_h, [[3.0, 6.0]], atol=1e-3)


def battery(price: list[float], **fields: object) -> MarketCase:
    """50 kW and 100 kWh beside a load."""
    plain = {"charge_kw": 50.0, "discharge_kw": 50.0, "energy_kwh": 100.0}
    return with_stores(simple_case(LINE, np.array(price)), Store("battery", "b", **(plain | fields)))


def test_a_battery_keeps_the_energy_for_its_call():
    """Of 50 kWh, a call of 30 kW for an hour needs 30 / 0.9: they are not sold at 60."""
    case = battery([20.0, 60.0], charge_kw=0.0, initial_kwh=50.0, efficiency=(0.9, 0.9))
    found = clear(with_services(case, [Ready("battery", "capacity_up", 40.0)], [Needed("capacity_up", [0.0, 30.0])]))
    np.testing.assert_allclose(found.stores.energy_kwh[1], [30 / 0.9], atol=1e-6)
    np.testing.assert_allclose(found.stores.discharge_kw.sum(axis=0), [45 - 30], atol=1e-6)
    np.testing.assert_allclose(found.services.requirement_usd_per_mw_h[1], [60.0], atol=1e-3)


def test_energy_is_kept_for_twice_as_long_a_call():
    case = battery([20.0, 60.0], charge_kw=0.0, initial_kwh=50.0, efficiency=(0.9, 0.9))
    offer = Ready("battery", "capacity_up", 40.0, hours=2.0)
    found = clear(with_services(case, [offer], [Needed("capacity_up", [0.0, 15.0])]))
    np.testing.assert_allclose(found.stores.energy_kwh[1], [30 / 0.9], atol=1e-6)
    np.testing.assert_allclose(found.services.requirement_usd_per_mw_h[1], [120.0], atol=1e-3)


def test_energy_is_kept_as_long_as_a_call_may_last():
    """An hour's call of 20 kW in the first quarter keeps 20 of 25 kWh from the price of 70 in the fourth, not from 45.

    That loses 20 kWh x (70 - 45); held ready for a quarter of an hour only, it makes 100 for each MW and hour.
    """
    price = [40.0, 50.0, 60.0, 70.0, 45.0, 30.0]
    fields = {"charge_kw": 0.0, "discharge_kw": 100.0, "initial_kwh": 25.0}
    case = quarter_hours(battery(price, **fields))
    found = clear(
        with_services(case, [Ready("battery", "capacity_up", 50.0)], [Needed("capacity_up", [20.0, 0, 0, 0, 0, 0])])
    )
    np.testing.assert_allclose(found.stores.energy_kwh.ravel(), [25, 25, 25, 20, 0, 0], atol=1e-6)
    np.testing.assert_allclose(found.services.requirement_usd_per_mw_h[0], [100.0], atol=1e-2)
    free = clear(case)
    assert found.objective - free.objective == pytest.approx(20 * 25 / 1000, abs=1e-5)


def test_a_full_battery_that_discharges_sells_down_only_what_it_can_take():
    """Called, it stops discharging first: its 100 kWh stay full, and there is nowhere to put more.

    50 kW are sold at 60.  To stop them is the whole of what can be called down, although 50 / 0.8 kWh of room are
    there by the end of the hour, into which 78 kW could be charged from a standstill.
    """
    case = battery([60.0], initial_kwh=100.0, efficiency=(0.8, 0.8), charge_kw=50.0)
    offer, needed = Ready("battery", "capacity_down", 100.0), Needed("capacity_down", 90.0, shortage=500.0)
    found = clear(with_services(case, [offer], [needed]))
    reserved, (sold,) = found.services.reserved_kw[0, 0], found.stores.discharge_kw[0]
    called = sold - reserved
    assert 100.0 - max(called, 0.0) / 0.8 + max(-called, 0.0) * 0.8 <= 100.0 + 1e-6
    assert sold == pytest.approx(50.0)
    assert reserved == pytest.approx(50.0)


def vehicle(service: str, quantity: list[float], **fields: object) -> Clearing:
    """100 kWh by the end of the third hour at 50 kW, and prices of 10, 60, 20 and 30."""
    plain = {"charge_kw": 50.0, "discharge_kw": 0.0, "energy_kwh": 100.0, "least_kwh": [0.0, 0.0, 100.0, 0.0]}
    case = battery([10.0, 60.0, 20.0, 30.0], **(plain | fields))
    return clear(with_services(case, [Ready("battery", service, 50.0)], [Needed(service, quantity, shortage=500.0)]))


def test_a_vehicle_sells_up_what_it_can_make_up_for_before_it_leaves():
    """In the first hour all of its charging.  In the second it must charge 20 kW, at 60 and not at 20, to stop them."""
    found = vehicle("capacity_up", [50.0, 20.0, 0.0, 0.0])
    np.testing.assert_allclose(found.stores.charge_kw.ravel(), [50, 20, 30, 0], atol=1e-6)
    np.testing.assert_allclose(found.services.shortage_kw, 0.0, atol=1e-6)
    np.testing.assert_allclose(found.services.requirement_usd_per_mw_h[1], [40.0], atol=1e-3)


def test_a_vehicle_does_not_sell_up_what_it_needs_when_it_leaves():
    found = vehicle("capacity_up", [0.0, 0.0, 10.0, 0.0])
    np.testing.assert_allclose(found.services.shortage_kw[2], [10.0], atol=1e-6)
    np.testing.assert_allclose(found.services.requirement_usd_per_mw_h[2], [500.0], atol=1e-6)


def test_a_call_that_stops_charging_moves_what_would_have_been_stored():
    """With 0.8 of its power stored, 62.5 kW for two hours fill it; stopped for one, 50 of 100 kWh are missing."""
    found = vehicle("capacity_up", [40.0, 0.0, 0.0, 0.0], charge_kw=62.5, efficiency=(0.8, 1.0))
    np.testing.assert_allclose(found.services.shortage_kw[0], [0.0], atol=1e-6)
    np.testing.assert_allclose(found.stores.charge_kw.ravel(), [62.5, 0, 62.5, 0], atol=1e-6)


def polygon_edge(q_kvar: float, s_max_kva: float, sides: int = 32) -> float:
    """Real power of the polygon inscribed in a circle at a reactive power, between its corners."""
    angle = (2 * np.arange(-sides // 4, sides // 4) + 1) * np.pi / sides
    return float(np.interp(q_kvar, s_max_kva * np.sin(angle), s_max_kva * np.cos(angle)))


def test_var_up_takes_its_room_from_real_power_in_the_rating():
    """60 kvar more must fit beside the real power that is sold at 40 and costs 30."""
    case = market(LINE, 40.0, plant(q_kvar=(0.0, 80.0), s_max_kva=100.0))
    found = clear(with_services(case, [Ready("plant", "var_up", 80.0, 1.5)], [Needed("var_up", 60.0)]))
    left_kw = polygon_edge(60.0, 100.0)
    slope = polygon_edge(59.5, 100.0) - polygon_edge(60.5, 100.0)
    np.testing.assert_allclose(found.awards.net_injection_kw, [[left_kw]], atol=1e-3)
    np.testing.assert_allclose(found.services.price_usd_per_mw_h, [[1.5 + 10 * slope]], atol=1e-3)
    assert 75 < left_kw < 80


def test_var_up_and_capacity_up_share_the_rating():
    """Called together, 40 kvar and 30 kW more must fit beside what is sold."""
    case = market(LINE, 40.0, plant(q_kvar=(0.0, 80.0), s_max_kva=100.0))
    offers = [Ready("plant", "var_up", 80.0), Ready("plant", "capacity_up", 80.0)]
    found = clear(with_services(case, offers, [Needed("var_up", 40.0), Needed("capacity_up", 30.0)]))
    sold_kw = polygon_edge(40.0, 100.0) - 30
    np.testing.assert_allclose(found.awards.net_injection_kw, [[sold_kw]], atol=1e-3)
    np.testing.assert_allclose(found.services.price_usd_per_mw_h[0, 1], 10.0, atol=1e-3)


def test_var_down_keeps_its_distance_from_the_least_reactive_power():
    """Each kvar that it injects beyond need costs 4, as reactive import is paid for."""
    case = market(LINE, 40.0, plant(q_kvar=(-20.0, 80.0)), q_price_usd_per_mvarh=-4.0)
    found = clear(with_services(case, [Ready("plant", "var_down", 90.0, 0.5)], [Needed("var_down", 50.0)]))
    np.testing.assert_allclose(found.awards.q_kvar, [[30.0]], atol=1e-6)
    np.testing.assert_allclose(found.services.price_usd_per_mw_h, [[4.5]], atol=1e-3)


def test_var_up_runs_a_plant_that_has_a_least_power_factor():
    """At a power factor of 0.8 at least, 30 kvar need 40 kW, which cost 50 - 40 each."""
    case = market(LINE, 40.0, plant(50.0, q_kvar=(0.0, 80.0)))
    case = replace(case, resources=replace(case.resources, power_factor_min=np.array([0.8])))
    found = clear(with_services(case, [Ready("plant", "var_up", 80.0, 1.0)], [Needed("var_up", 30.0)]))
    np.testing.assert_allclose(found.awards.net_injection_kw, [[40.0]], atol=1e-6)
    np.testing.assert_allclose(found.services.price_usd_per_mw_h, [[1 + 10 / 0.75]], atol=1e-3)


def test_capacity_down_keeps_the_power_factor_when_it_is_called():
    """30 kvar that are paid for need 40 kW even after 20 have been called off."""
    case = market(LINE, 40.0, plant(50.0, q_kvar=(30.0, 30.0)))
    case = replace(case, resources=replace(case.resources, power_factor_min=np.array([0.8])))
    found = clear(with_services(case, [Ready("plant", "capacity_down", 80.0)], [Needed("capacity_down", 20.0)]))
    np.testing.assert_allclose(found.awards.net_injection_kw, [[60.0]], atol=1e-6)
    np.testing.assert_allclose(found.services.price_usd_per_mw_h, [[10.0]], atol=1e-3)


def test_what_is_short_costs_its_price():
    found = one_plant(Ready("plant", "capacity_up", 30.0, 2.0), Needed("capacity_up", 50.0, shortage=200.0))
    np.testing.assert_allclose(found.services.reserved_kw, [[30.0]], atol=1e-6)
    np.testing.assert_allclose(found.services.shortage_kw, [[20.0]], atol=1e-6)
    np.testing.assert_allclose(found.services.requirement_usd_per_mw_h, [[200.0]], atol=1e-9)
    assert found.objective == pytest.approx((130 * 40 + 70 * 30 + 30 * 2 + 20 * 200) / 1000, rel=1e-5)


def test_what_costs_more_than_a_shortage_is_not_reserved():
    found = one_plant(Ready("plant", "capacity_up", 60.0, 2.0), Needed("capacity_up", 50.0, shortage=11.0))
    np.testing.assert_allclose(found.services.reserved_kw, [[0.0]], atol=1e-6)
    np.testing.assert_allclose(found.services.requirement_usd_per_mw_h, [[11.0]], atol=1e-9)


def test_one_reserve_counts_for_every_requirement_in_whose_zone_it_stands():
    """20 kW are wanted anywhere and 10 at b: the dearer plant at b need not do more."""
    near = resource("near", "a", supply=[(50, 55)])
    offers = [Ready("near", "capacity_up", 50.0, 1.0), Ready("plant", "capacity_up", 50.0, 3.0)]
    needed = [Needed("capacity_up", 20.0), Needed("capacity_up", 10.0, counts=in_zone(LINE, ["b"]))]
    found = clear(with_services(market(LINE, 40.0, near, plant(55.0)), offers, needed))
    np.testing.assert_allclose(found.services.reserved_kw, [[10.0, 10.0]], atol=1e-6)
    np.testing.assert_allclose(found.services.requirement_usd_per_mw_h, [[1.0, 2.0]], atol=1e-6)
    np.testing.assert_allclose(found.services.price_usd_per_mw_h, [[1.0, 3.0]], atol=1e-6)


def with_block(offers: list[Ready]) -> MarketCase:
    """A plant whose 40 kW at 25 are all or nothing, beside its bid of 5 kW at 60."""
    case = market(LINE, 40.0, resource("plant", "b", supply=[(5, 60)], available_kw=100.0))
    one, none = np.array([0]), np.array([""])
    block = Blocks(
        np.array(["all"]), one, np.array([True]), one, one, np.array([40.0]), np.array([25.0]), np.ones(1), none
    )
    return with_services(replace(case, blocks=block), offers, [Needed("capacity_up", 4.0)] if offers else [])


def test_an_offer_of_capacity_does_not_keep_a_block_from_being_accepted():
    plain, found = clear(with_block([])), clear(with_block([Ready("plant", "capacity_up", 60.0, 2.0)]))
    for clearing in (plain, found):
        np.testing.assert_allclose(clearing.blocks.block_kw, [[40.0]], atol=1e-6)
    assert found.objective - plain.objective == pytest.approx(4 * 2 / 1000, abs=1e-6)


@pytest.mark.parametrize(("price", "accepted_kw"), [(40.0, 40.0), (20.0, 0.0)])
@pytest.mark.parametrize(("service", "most"), [("capacity_up", 5.0), ("capacity_down", 0.0)])
def test_a_block_backs_no_capacity_be_it_accepted_or_not(price: float, accepted_kw: float, service: str, most: float):
    """Of two exclusive blocks of 40 kW at most one runs, at 40 kW; of the bid at 60 nothing, so 5 kW can be called."""
    case = with_block([])
    twice = {name: np.repeat(getattr(case.blocks, name), 2) for name in vars(case.blocks)}
    twice |= {"name": np.array(["one", "other"]), "group": np.array(["x", "x"])}
    case = replace(
        case, blocks=Blocks(**twice), substation=replace(case.substation, price_usd_per_mwh=np.array([price]))
    )
    found = clear(with_services(case, [Ready("plant", service, 50.0)], [Needed(service, 40.0, shortage=1.0)]))
    assert found.blocks.block_kw.sum() == pytest.approx(accepted_kw, abs=1e-6)
    np.testing.assert_allclose(found.services.reserved_kw, [[most]], atol=1e-6)


def test_a_call_of_one_that_breaks_a_limit_is_found_where_the_call_of_all_breaks_none():
    """A third of what one of them injects goes round through the tie: 30 kW of each, and the rest from the main bus."""
    found = clear(ring())
    np.testing.assert_allclose(found.services.reserved_kw, [[30, 30, 40]], atol=0.2)
    np.testing.assert_allclose(found.services.price_usd_per_mw_h, [[1.0, 1.5, 5.0]], atol=1e-6)
    np.testing.assert_allclose(found.services.congestion, [[-4.0, -3.5, 0.0]], atol=2e-2)
    called = set(found.binding_limits().called)
    assert called == {"capacity_up of left", "capacity_up of right"}
    assert found.calls().to_numpy().tolist() == [
        [f"capacity_up of {name}", "capacity_up of a called resource", name] for name in ("left", "right")
    ]
    assert not len(unsafe_calls(found._dispatch, found.settings))
    assert found.certificate.is_feasible
    assert found.certificate.is_supported


def test_a_requirement_that_no_call_may_serve_is_refused_with_the_call_that_breaks_a_limit():
    """Without the main bus the two would have to give 40 more than their calls may send through the tie."""
    case = ring()
    offers = replace(case.service_offers, quantity_kw=np.array([[60.0, 60.0, 0.0]]))
    with pytest.raises(InfeasibleError, match=r"b-c.* when capacity_up of (left|right) is called"):
        clear(replace(case, service_offers=offers), Settings(limits="hard"))


def short_battery() -> MarketCase:
    """20 kWh for calls of two hours: 10 kW; the second hour requires nothing."""
    battery = Store("battery", "b", 0.0, discharge_kw=50.0, energy_kwh=100.0, initial_kwh=20.0)
    case = with_stores(market(LINE, [40.0, 40.0], plant()), battery)
    return with_services(case, [Ready("battery", "capacity_up", 50.0, hours=2.0)], [Needed("capacity_up", [30.0, 0.0])])


def short_of_room() -> MarketCase:
    """A plant that must run at 60 of its 80 kW."""
    case = market(LINE, 40.0, resource("plant", "b", supply=[(80, 30)], must_run_kw=60.0))
    return with_services(case, [Ready("plant", "capacity_up", 50.0)], [Needed("capacity_up", 50.0)])


def without_reactive_power() -> MarketCase:
    return with_services(market(LINE, 40.0, plant()), [Ready("plant", "var_up", 50.0)], [Needed("var_up", 10.0)])


def short_of_reactive_range() -> MarketCase:
    """From -20 to 20 kvar, and as much of another service as it has."""
    case = market(LINE, 40.0, plant(q_kvar=(-20.0, 20.0)))
    offers = [Ready("plant", "var_up", 50.0), Ready("plant", "capacity_up", 50.0)]
    return with_services(case, offers, [Needed("capacity_up", 50.0), Needed("var_up", 45.0)])


@pytest.mark.parametrize("formulation", ["ac_tangent", "lindistflow"])
@pytest.mark.parametrize("limits", ["soft", "hard"])
@pytest.mark.parametrize(
    ("build", "required", "within_reach", "unit"),
    [
        (short_battery, 30.0, 10.0, "kW"),
        (short_of_room, 50.0, 20.0, "kW"),
        (without_reactive_power, 10.0, 0.0, "kvar"),
        (short_of_reactive_range, 45.0, 40.0, "kvar"),
    ],
)
def test_a_firm_requirement_that_nobody_can_hold_ready_is_refused_with_what_can_be(
    build: Callable[[], MarketCase], required: float, within_reach: float, unit: str, limits: str, formulation: str
):
    case = build()
    (name,) = case.requirements.name[case.requirements.quantity_kw[0] == required]
    with pytest.raises(InfeasibleError) as refused:
        clear(case, Settings(limits=limits, formulation=formulation))
    (conflict,) = refused.value.conflicts
    assert (conflict.element, conflict.interval, conflict.unit) == (f"requirement {name}", 0, unit)
    assert (conflict.limit, conflict.attained) == pytest.approx((required, within_reach), abs=1e-5)
    assert f"at most {conflict.attained:.6g} {unit} can be held ready" in str(refused.value)
    assert "shortage_usd_per_mw_h" in str(refused.value)


def test_a_firm_requirement_and_a_line_that_conflict_are_named_together():
    """A line of 50 kVA carries no call of 80 kW, away from a bus without load; with the line soft, it is broken."""
    line = Branch("a", "b", 1e-6, 1e-6, rating=0.5, is_current=True)
    case = with_services(
        market(feeder([line]), 40.0, plant(55.0)), [Ready("plant", "capacity_up", 90.0)], [Needed("capacity_up", 80.0)]
    )
    with pytest.raises(InfeasibleError) as refused:
        clear(case, Settings(limits="hard"))
    (members,) = refused.value.sets
    found = {conflict.element: conflict for conflict in members}
    assert set(found) == {"a-b when capacity_up is called", "requirement capacity_up 0"}
    assert found["requirement capacity_up 0"].attained == pytest.approx(50.0, abs=1e-2)
    assert clear(case).broken_limits().element.tolist() == ["a-b"]


TREE = feeder(
    [Branch("0", "1", 0.01, 0.01), Branch("1", "2", 0.01, 0.01), Branch("1", "3", 0.01, 0.01)],
    {"2": (10.0, 0.0), "3": (10.0, 0.0)},
)


@pytest.mark.parametrize(("branch", "buses"), [("0-1", "123"), ("1-2", "2"), ("1-3", "3")])
def test_behind_a_branch_is_what_it_alone_feeds(branch: str, buses: str):
    assert "".join(TREE.port_bus[behind_branch(TREE, branch)].tolist()) == buses


def test_behind_a_branch_whose_to_end_is_the_nearer_one_is_what_it_feeds_too():
    network = feeder([Branch("0", "1", 0.01, 0.01), Branch("2", "1", 0.01, 0.01)], {"2": (10.0, 0.0)})
    assert network.port_bus[behind_branch(network, "2-1")].tolist() == ["2"]


def test_behind_a_branch_are_the_ports_of_every_phase_and_pair():
    network = unbalanced()
    own = behind_branch(network, "b-d")
    assert set(network.port_bus[own]) == {"d", "e"}
    assert own.sum() == np.isin(network.port_bus, ["d", "e"]).sum()
    assert set(network.port_bus[behind_branch(network, "b-c")]) == {"c"}


def test_no_zone_is_behind_a_branch_of_a_loop_nor_behind_none():
    network = ring().network
    for branch, remedy in (("b-c", "in a loop"), ("a-b", "in a loop"), ("x-y", "no branch")):
        with pytest.raises(InputError, match=remedy):
            behind_branch(network, branch)


def test_a_zone_of_buses_has_their_ports():
    assert TREE.port_bus[in_zone(TREE, ["1", "3"])].tolist() == ["1", "3"]
    with pytest.raises(InputError, match=r"bus = '7'.*\n.*bus = '9'"):
        in_zone(TREE, ["7", "3", "9"])


GOOD_OFFER, GOOD_NEED = Ready("plant", "capacity_up", 60.0, 2.0), Needed("capacity_up", 25.0, name="spare")


@pytest.mark.parametrize(
    ("offer", "needed", "words"),
    [
        ({"service": "inertia"}, {}, "service offer of plant, service = 'inertia': must be one of capacity_up"),
        ({"quantity_kw": -1.0}, {}, "service offer of plant, interval 0, quantity_kw = -1.0: must be finite and >= 0"),
        ({"price": np.nan}, {}, "service offer of plant, interval 0, price_usd_per_mw_h = nan: must be finite"),
        ({"hours": 0.5}, {}, "duration_hours = 0.5: must be at least one interval, 1 h"),
        ({"hours": np.nan}, {}, "duration_hours = nan: must be at least one interval"),
        ({}, {"service": "inertia"}, "requirement spare, service = 'inertia': must be one of"),
        ({}, {"quantity_kw": np.inf, "shortage": 9.0}, "requirement spare, interval 0, quantity_kw = inf"),
        ({}, {"quantity_kw": 70.0}, "quantity_kw = 70.0: only 60 is offered at substation"),
        ({}, {"service": "capacity_down"}, "quantity_kw = 25.0: only 0 is offered at substation"),
        ({}, {"counts": in_zone(LINE, ["a"])}, "quantity_kw = 25.0: only 0 is offered"),
        ({}, {"shortage": 0.0}, "requirement spare, shortage_usd_per_mw_h = 0.0: must be above zero"),
        ({}, {"shortage": np.nan}, "shortage_usd_per_mw_h = nan: must be above zero"),
    ],
)
def test_a_bad_service_is_refused_by_name(offer: dict[str, object], needed: dict[str, object], words: str):
    with pytest.raises(InputError) as caught:
        with_services(market(LINE, 40.0, plant()), [replace(GOOD_OFFER, **offer)], [replace(GOOD_NEED, **needed)])
    assert words in str(caught.value)


def test_all_that_is_wrong_with_services_is_told_at_once():
    offers = [replace(GOOD_OFFER, hours=0.1), replace(GOOD_OFFER, quantity_kw=-2.0)]
    needed = [GOOD_NEED, replace(GOOD_NEED, shortage=-1.0)]
    with pytest.raises(InputError) as caught:
        with_services(market(LINE, 40.0, plant()), offers, needed)
    text = str(caught.value)
    for words in ("duration_hours", "quantity_kw = -2.0", "more than once", "name = 'spare'", "shortage"):
        assert words in text


@pytest.mark.parametrize(
    ("table", "field", "value"),
    [
        ("service_offers", "service", np.array(["capacity_up", "capacity_down"])),
        ("service_offers", "duration_hours", np.ones(2)),
        ("service_offers", "quantity_kw", np.ones((2, 1))),
        ("requirements", "service", np.array([], dtype=str)),
        ("requirements", "place", np.array(["a", "b"])),
        ("requirements", "counts", np.ones((1, 1), bool)),
        ("requirements", "shortage_usd_per_mw_h", np.ones(3)),
    ],
)
def test_an_array_of_the_wrong_shape_is_refused(table: str, field: str, value: np.ndarray):
    case = with_services(market(LINE, 40.0, plant()), [GOOD_OFFER], [GOOD_NEED])
    with pytest.raises(InputError, match=rf"{field} = 'shape"):
        replace(case, **{table: replace(getattr(case, table), **{field: value})})


def test_an_offer_of_no_resource_is_refused():
    case = with_services(market(LINE, 40.0, plant()), [GOOD_OFFER], [GOOD_NEED])
    with pytest.raises(InputError, match="resource = 4: is no resource of the case"):
        replace(case, service_offers=replace(case.service_offers, resource=np.array([4])))
