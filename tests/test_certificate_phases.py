"""The certificate of a network by phase, made by OpenDSS: content with what is right, it finds what is falsified."""

import json
from dataclasses import replace

import numpy as np
import pytest
from village import write_village

from dlmp import Clearing, clear, read_case
from dlmp.bids import at_ports
from dlmp.certificate import Certificate, certify
from dlmp.errors import InputError
from dlmp.market import MarketCase
from dlmp.network.model import UnbalancedNetwork
from dlmp.units import BASE_KVA


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> Clearing:
    """A day in which the voltage of phase 3 at the end of the line binds."""
    limits = "bus,v_min_pu,v_max_pu\nend,1.002,\n"
    folder = write_village(tmp_path_factory.mktemp("phases") / "village")
    (folder / "limits.csv").write_text(limits)
    return clear(read_case(folder))


def certified(found: Clearing, **change: object) -> Certificate:
    """The certificate of a clearing of which records were altered: ``case``, ``awards``, ``prices``, ``services``.."""
    names = ("prices", "awards", "services", "voltages")
    records = [change.get(name, getattr(found, name)) for name in names]
    return certify(change.get("case", found.case), found._dispatch, *records)


def with_network(found: Clearing, **change: object) -> MarketCase:
    """The case of a clearing with a network of other limits."""
    return replace(found.case, network=replace(found.case.network, **change))


def with_award(found: Clearing, name: str, change_kw: float, change_kvar: float = 0.0):
    """The awards of the second interval with the power of one resource altered."""
    index = list(found.case.resources.name).index(name)
    p_kw, q_kvar = found.awards.net_injection_kw.copy(), found.awards.q_kvar.copy()
    p_kw[1, index] += change_kw
    q_kvar[1, index] += change_kvar
    return replace(found.awards, net_injection_kw=p_kw, q_kvar=q_kvar)


def test_what_is_right_is_certified_by_opendss(found):
    certificate = found.certificate
    assert certificate.program == "OpenDSS"
    assert certificate.ac_converged
    assert certificate.is_feasible
    assert certificate.is_supported
    assert certificate.voltage_mismatch_pu < 1e-9
    assert certificate.import_mismatch_kw < 1e-4
    assert certificate.loss_mismatch_kw < 1e-4
    limits = found.binding_limits()
    assert ("bus end", "3") in set(zip(limits.element, limits.phase, strict=True)), "the case is to hold a limit"


@pytest.mark.parametrize(("bus", "phase"), [("lat", "2"), ("shop", "23")])
def test_a_falsified_voltage_is_found_to_ground_and_between_floating_phases(found, bus: str, phase: str):
    network, v_pu = found.case.network, found.voltages.v_pu.copy()
    v_pu[2, np.flatnonzero(network.voltage_ports == network.node(bus, phase))] += 0.003
    assert certified(found, voltages=replace(found.voltages, v_pu=v_pu)).voltage_mismatch_pu == pytest.approx(0.003)


def test_a_bus_that_floats_has_voltages_between_its_phases_alone(found):
    table, network = found.voltages.table(), found.case.network
    assert set(table[table.bus == "shop"].phase) == {"12", "13", "23"}
    assert set(table[table.bus == "lat"].phase) == {"2", "4"}
    between = table[table.bus == "shop"]
    assert between.v_pu.between(between.v_min_pu - 1e-6, between.v_max_pu + 1e-6).all()
    with pytest.raises(InputError, match="bus shop, phase = '1': name one of its phases: 12, 13, 23"):
        network.node("shop", "1")


def test_a_falsified_award_shows_in_import_losses_voltage_and_feasibility(found):
    certificate = certified(found, awards=with_award(found, "plant", -90.0))
    assert 90 < certificate.import_mismatch_kw < 110
    assert 0.1 < certificate.loss_mismatch_kw < 20
    assert certificate.voltage_mismatch_pu > 1e-3
    assert not certificate.is_feasible
    assert certificate.worst_voltage.startswith("bus end.")
    assert certificate.worst_voltage.endswith("interval 1")


def test_a_falsified_award_between_floating_phases_shows_in_the_voltage_between_them(found):
    certificate = certified(found, awards=with_award(found, "cooling", -50.0))
    assert certificate.voltage_mismatch_pu > 1e-3
    assert certificate.import_mismatch_kw > 45


def test_an_award_on_the_wrong_phase_shows_though_the_total_is_right(found):
    """The battery's power on phase 1 instead of 3: kilowatts of import, but hundredths of the voltage."""
    resources, network = found.case.resources, found.case.network
    ports = resources.share.toarray()
    ports[list(resources.name).index("battery")] = at_ports([network.node("mid", "1")], network.port_count).toarray()
    share = type(resources.share)(ports)
    swapped = replace(found.awards, case=replace(found.case, resources=replace(resources, share=share)))
    certificate = certified(found, awards=swapped)
    assert certificate.voltage_mismatch_pu > 1e-3
    assert certificate.import_mismatch_kw < 5
    assert not certificate.is_feasible


def test_awards_that_no_ac_state_carries_are_not_feasible(found):
    certificate = certified(found, awards=with_award(found, "plant", -1e5))
    assert not certificate.ac_converged
    assert not certificate.is_feasible


@pytest.mark.parametrize(("bus", "name"), [("lat", "bus lat.2"), ("house", "bus house."), ("shop", "bus shop.")])
def test_a_broken_band_is_named_by_phase_or_by_pair_of_floating_phases(found, bus, name):
    """Its excess is that over the band; the neutral at ``lat``, at almost no voltage, breaks none."""
    network, certificate = found.case.network, certified(found)
    nodes = network.nodes_at(network.bus_number[bus])
    v_max_pu = network.v_max_pu.copy()
    v_max_pu[nodes] = 0.95
    certificate = certified(found, case=with_network(found, v_min_pu=network.v_min_pu * 0.9, v_max_pu=v_max_pu))
    assert certificate.worst_voltage.startswith(name)
    assert not certificate.is_feasible
    limits, point = found._dispatch.formulation.limits, found._dispatch.point
    highest = point.limit_value[:, (limits.element == f"bus {bus}") & (limits.cause == "voltage")].max()
    assert certificate.worst_voltage_violation_pu == pytest.approx(highest - 0.95, abs=1e-8)
    if bus == "shop":
        phases = certificate.worst_voltage.removeprefix(name).partition(",")[0]
        assert phases in ("12", "13", "23")


def test_an_overloaded_conductor_is_named_with_its_loading(found):
    network = found.case.network
    entry = network.conductors_of("line.lateral")[0]
    current = found.flows.from_kva[:, entry] / found._dispatch.point.v_pu[:, network.from_node[entry]]
    most_pu = np.abs(current).max() / BASE_KVA
    rating = network.rating_from_pu.copy()
    rating[entry] = 0.8 * most_pu
    unrated = np.full(len(rating), np.inf)
    certificate = certified(found, case=with_network(found, rating_from_pu=rating, rating_to_pu=unrated))
    assert certificate.worst_loading_percent == pytest.approx(125.0, rel=1e-6)
    assert certificate.worst_loading.startswith("line.lateral.2, interval")
    assert not certificate.is_feasible


def test_voltage_unbalance_above_its_limit_is_named(found):
    network = found.case.network
    assert isinstance(network, UnbalancedNetwork)
    v = found._dispatch.point.v_pu
    ratio = {}
    for bus in ("grid", "reg", "mid", "end", "shop"):
        a, b, c = (v[:, network.nodes_at(network.bus_number[bus])[place]] for place in range(3))
        turn = np.exp(2j * np.pi / 3)
        ratio[bus] = np.abs((a + turn**2 * b + turn * c) / (a + turn * b + turn**2 * c)).max()
    worst = max(ratio, key=ratio.get)
    held = certified(found, case=with_network(found, v_unbalance_max=ratio[worst] + 1e-4))
    assert (held.worst_unbalance_violation_pu, held.worst_unbalance, held.is_feasible) == (0.0, "", True)
    broken = certified(found, case=with_network(found, v_unbalance_max=ratio[worst] - 1e-3))
    assert broken.worst_unbalance_violation_pu == pytest.approx(1e-3, abs=1e-8)
    assert broken.worst_unbalance.startswith(f"bus {worst}, interval")
    assert not broken.is_feasible


def test_the_summary_is_json_that_tells_program_taps_and_notes(found):
    summary = json.loads(json.dumps(found.summary() | {"certificate": found.certificate.summary()}, allow_nan=False))
    assert summary["taps"].keys() == {f"transformer.reg{number} wdg 2" for number in (1, 2, 3)}
    assert any("bands of loads" in note for note in summary["notes"])
    assert summary["certificate"]["program"] == "OpenDSS"
    assert summary["certificate"]["feasible"]
