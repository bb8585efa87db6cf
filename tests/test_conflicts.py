"""Which limits conflict: every set that is told is irreducible, in the AC network as in the LP that found it."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from cases import market, one_interval
from infeasible import DAYS, P_IMPORT, Q_IMPORT, engine, two

from dlmp import InfeasibleError, MarketCase, Penalties, Settings, clear
from dlmp.certificate import independent_power_flow
from dlmp.errors import LimitConflict

HARD = Settings(limits="hard")
WIDE = (0.01, 5.0)


def refused(case: MarketCase) -> InfeasibleError:
    with pytest.raises(InfeasibleError) as caught:
        clear(case, HARD)
    return caught.value


@pytest.fixture(params=DAYS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_every_infeasible_day_names_what_conflicts_and_nothing_else(name: str):
    sets = [{(conflict.element, conflict.interval) for conflict in found} for found in refused(DAYS[name].build()).sets]
    assert len(sets) == len(DAYS[name].sets)
    assert all(expected in sets for expected in DAYS[name].sets)


def only(case: MarketCase, kept: Iterable[str]) -> MarketCase:
    """The case without any limit but those `kept`, by name."""
    network, names = case.network, set(kept)
    at_bus = np.array([f"bus {bus}" in names for bus in network.bus])
    at_from, at_to = (
        np.array([not {branch, f"{branch} ({end} end)"}.isdisjoint(names) for branch in network.branch])
        for end in ("from", "to")
    )
    substation = case.substation
    if P_IMPORT not in names:
        substation = replace(substation, p_min_kw=-np.inf, p_max_kw=np.inf)
    if Q_IMPORT not in names:
        substation = replace(substation, q_min_kvar=-np.inf, q_max_kvar=np.inf)
    network = replace(
        network,
        v_min_pu=np.where(at_bus, network.v_min_pu, WIDE[0]),
        v_max_pu=np.where(at_bus, network.v_max_pu, WIDE[1]),
        rating_from_pu=np.where(at_from, network.rating_from_pu, np.inf),
        rating_to_pu=np.where(at_to, network.rating_to_pu, np.inf),
    )
    return replace(case, network=network, substation=substation)


@pytest.mark.parametrize("name", [name for name, day in DAYS.items() if len(day.build().stores) == 0])
def test_the_limits_of_a_set_have_no_dispatch_and_all_but_any_one_of_them_have(name: str):
    """Asked of the AC network: with all other limits gone."""
    for members in DAYS[name].sets:
        (interval,) = {interval for _, interval in members}
        case, names = one_interval(DAYS[name].build(), interval), {name for name, _ in members}
        refused(only(case, names))
        for left_out in names:
            assert clear(only(case, names - {left_out}), HARD).status == "converged"


@pytest.mark.parametrize("interval", [0, 1])
def test_a_line_that_is_too_small_for_a_car_in_two_hours_is_not_if_one_hour_has_more(interval: int):
    """As there is one rating for both, less load makes the room."""
    case = DAYS["a_car_that_a_line_cannot_charge_in_time"].build()
    load = case.load_p_kw.copy()
    refused(case)
    load[interval] -= np.array([0.0, 60.0])
    assert clear(replace(case, load_p_kw=load), HARD).status == "converged"


def the_only(case: MarketCase) -> LimitConflict:
    (conflict,) = refused(case).conflicts
    return conflict


def test_what_is_within_reach_is_the_ac_state_with_all_that_is_offered():
    case = market(two(400, band=(0.95, 1.05)), 20.0, engine("b", 100))
    conflict = the_only(case)
    offered = np.array([[0.0, -300.0]])
    expected = np.abs(independent_power_flow(case.network, offered + 0j, np.zeros((1, 0))).v_pu[0, 1])
    assert (conflict.limit, conflict.unit) == (0.95, "pu")
    assert conflict.attained == pytest.approx(expected, abs=1e-7)


def test_what_is_within_reach_of_import_is_the_load_and_its_losses_less_what_is_offered():
    conflict = the_only(DAYS["import_cap_below_what_must_be_served"].build())
    v = (1 + np.sqrt(1 - 4 * 0.02 * 1.5)) / 2  # real part of v b without reactive power, x aside
    assert (conflict.limit, conflict.unit) == (pytest.approx(100.0), "kW")
    assert conflict.attained == pytest.approx(150 + 100 * 0.02 * (1.5 / v) ** 2, abs=0.1)


def test_what_is_within_reach_keeps_the_others_of_a_set():
    """Bus b gets what the engine sends through a line that is just full; the line takes, to first order, its needs."""
    case = DAYS["low_voltage_or_an_overloaded_line"].build()
    found = {conflict.element: conflict for conflict in refused(case).conflicts}
    sent, nothing = 1.0, np.zeros((1, 0))
    for _ in range(20):
        injection = np.array([[0.0, -300.0, 100 * sent]]) + 0j
        flow = independent_power_flow(case.network, injection, nothing)
        sent /= np.abs(flow.current_to_pu[0, 1])
    assert found["bus b"].attained == pytest.approx(np.abs(flow.v_pu[0, 1]), abs=1e-3)
    assert (found["b-c"].limit, found["b-c"].unit) == (pytest.approx(100 / np.sqrt(3)), "A")
    hard_voltage = clear(replace(case, penalties=Penalties(voltage=()))).broken_limits()
    assert found["b-c"].attained == pytest.approx(hard_voltage["value"].item(), rel=0.06)


def test_the_message_is_for_operators():
    lines = str(refused(DAYS["import_cap_or_high_voltage"].build())).splitlines()
    assert lines[0] == (
        "no dispatch of the offered resources keeps these limits together, though all but any one of them:"
    )
    assert sorted(line.split(":")[0] for line in lines[1:]) == [
        "  - bus c, interval 0",
        f"  - {P_IMPORT}, interval 0",
    ]


def test_a_kind_of_limits_that_is_hard_is_kept_or_refused_while_others_are_broken():
    """The line may be broken, bus b may not: it needs 1.5 pu through a line of 1."""
    case = DAYS["low_voltage_or_an_overloaded_line"].build()
    found = clear(replace(case, penalties=Penalties(voltage=())))
    assert found.broken_limits().element.tolist() == ["b-c"]
    assert found.voltages.v_pu[0, 1] == pytest.approx(0.97, abs=1e-7)
    low = DAYS["undervoltage_beyond_what_is_offered"].build()
    with pytest.raises(InfeasibleError, match="bus b, interval 0"):
        clear(replace(low, penalties=Penalties(voltage=())))


@pytest.mark.parametrize("formulation", ["ac_tangent", "lindistflow"])
@pytest.mark.parametrize(
    "name", ["undervoltage_without_resources", "low_at_one_bus_or_high_at_the_next", "import_cap_or_high_voltage"]
)
def test_both_formulations_find_the_same_conflicts(name: str, formulation: str):
    with pytest.raises(InfeasibleError) as caught:
        clear(DAYS[name].build(), Settings(limits="hard", formulation=formulation))
    sets = [{(conflict.element, conflict.interval) for conflict in found} for found in caught.value.sets]
    assert sets == DAYS[name].sets
