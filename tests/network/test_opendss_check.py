"""OpenDSS at given injections: agrees with the engine on one of everything, and says where it has no solution."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from village import write_village

from dlmp import InputError, MarketCase, read_case
from dlmp.formulation.ac_tangent import AcTangent
from dlmp.network.loads import LoadLaws
from dlmp.network.model import UnbalancedNetwork
from dlmp.network.opendss import circuit, from_opendss
from dlmp.network.opendss.check import opendss_flow, settle_taps, with_taps
from dlmp.units import BASE_KVA

SWITCHED = (
    "Set VoltageBases",
    "New CapControl.bank Capacitor=bank Element=Line.main Type=kvar OnSetting=900 OffSetting=700\nSet VoltageBases",
)
"""A control that switches the capacitor by the reactive flow."""


@pytest.fixture(scope="module")
def village(tmp_path_factory) -> MarketCase:
    return read_case(write_village(tmp_path_factory.mktemp("opendss") / "village"))


def injections(case: MarketCase, share: float = 0.6) -> np.ndarray:
    """(t, p) Every resource at a `share` of its most [kVA]."""
    resources = case.resources
    most = share * resources.p_max_kw + share * resources.p_min_kw + 0.5j * resources.q_max_kvar
    return most @ resources.share - case.load_pu * BASE_KVA


def assert_the_same(case: MarketCase, injection_kva: np.ndarray) -> None:
    """Voltages, import and the currents of every conductor are those of the engine."""
    network = case.network
    flow = opendss_flow(network, injection_kva, case.law_pu * BASE_KVA)
    point = AcTangent(network, case.law_pu).operate(injection_kva / BASE_KVA)
    assert (flow.program, flow.converged, point.converged.all()) == ("OpenDSS", True, True)
    held, own = ~network.is_floating, network.is_priced[network.node_count :]
    np.testing.assert_allclose(flow.v_pu[:, held], point.v_pu[:, held], rtol=0, atol=1e-9)
    pairs, here = ((network.incidence[network.node_count :] @ v.T)[own] for v in (flow.v_pu, point.v_pu))
    np.testing.assert_allclose(pairs, here, rtol=0, atol=1e-9)
    np.testing.assert_allclose(flow.import_kva, point.import_pu * BASE_KVA, rtol=0, atol=1e-4)
    for current, rows in (
        (flow.current_from_pu, network.from_admittance),
        (flow.current_to_pu, network.to_admittance),
    ):
        np.testing.assert_allclose(current, (rows @ point.v_pu.T).T, rtol=0, atol=1e-6)
    lost = sum(power.real.sum(axis=1) for power in point.branch_power())
    np.testing.assert_allclose(flow.branch_loss_pu(), lost, rtol=0, atol=1e-7)


def moved(case: MarketCase, **options: object) -> MarketCase:
    """The case with its circuit read with other options."""
    return replace(case, network=from_opendss(case.network.origin, **options))


@pytest.mark.parametrize("source_v_pu", [0.84, 0.93, 1.02, 1.12])
@pytest.mark.parametrize("load_bands", [True, False])
def test_opendss_finds_the_engine_s_state_in_and_outside_the_bands_of_the_loads(village, source_v_pu, load_bands):
    case = moved(village, source_v_pu=source_v_pu, load_bands=load_bands, taps=village.network.taps)
    u = np.abs((case.network.incidence @ AcTangent(case.network).flow.no_load_pu)[case.network.law.port])
    u /= case.network.law.base_pu
    assert (u < 0.95).any() == (source_v_pu < 0.95)
    assert (u > 1.05).any() == (source_v_pu > 1.05)
    assert_the_same(case, injections(case))


def test_opendss_takes_the_taps_of_the_network(village):
    taps = dict(village.network.taps)
    taps["transformer.reg2 wdg 2"] += 4 * 0.00625
    assert_the_same(moved(village, taps=taps), injections(village))


def test_opendss_takes_the_steps_of_switched_capacitors(village, tmp_path: Path):
    """Closed in the file, opened by the control as the circuit is read: the check must not close them again."""
    case = read_case(write_village(tmp_path / "switched", village_dss=SWITCHED))
    assert case.network.taps["capacitor.bank steps"] < 3
    assert_the_same(case, injections(case))
    closed = moved(case, taps=case.network.taps | {"capacitor.bank steps": 3.0})
    assert closed.network.taps["capacitor.bank steps"] == 3.0
    change = abs(closed.network.admittance - case.network.admittance).max()
    assert change == pytest.approx(50 / 3 / BASE_KVA * (3 - case.network.taps["capacitor.bank steps"]), rel=1e-9)
    assert_the_same(closed, injections(closed))


def test_an_interval_without_a_solution_is_told_and_leaves_the_others_right(village):
    injection = injections(village)
    point = AcTangent(village.network, village.law_pu).operate(injection / BASE_KVA)
    port = village.network.node("end", "1")
    injection[1, port] -= 1e5
    flow = opendss_flow(village.network, injection, village.law_pu * BASE_KVA)
    assert not flow.converged
    held = ~village.network.is_floating
    without_load = AcTangent(village.network).flow.no_load_pu
    np.testing.assert_allclose(flow.v_pu[1, held], without_load[held], rtol=0, atol=1e-9)
    np.testing.assert_allclose(flow.v_pu[[0, 2]][:, held], point.v_pu[[0, 2]][:, held], rtol=0, atol=1e-9)
    assert flow.import_kva[1] == 0.0


def test_power_at_the_source_itself_is_no_import(village):
    injection = injections(village)
    flow = opendss_flow(village.network, injection, village.law_pu * BASE_KVA)
    injection[:, village.network.source[0]] += 70 + 20j
    more = opendss_flow(village.network, injection, village.law_pu * BASE_KVA)
    np.testing.assert_allclose(more.import_kva, flow.import_kva - 70 - 20j, rtol=1e-9)
    np.testing.assert_allclose(more.v_pu, flow.v_pu, rtol=0, atol=1e-9)


def test_a_circuit_that_has_changed_since_is_refused(tmp_path: Path):
    case = read_case(write_village(tmp_path / "village"))
    path = tmp_path / "village" / "village.dss"
    path.write_text(path.read_text().replace("Line.far", "Line.longer"))
    with pytest.raises(InputError, match=r"no longer the circuit that the network was read from: it lacks line\.far"):
        opendss_flow(case.network, injections(case), case.law_pu * BASE_KVA)
    with pytest.raises(InputError, match="no longer the circuit"):
        with_taps(case.network, case.network.taps)
    path.write_text(path.read_text().replace("Bus2=lat", "Bus2=lane").replace("lat.", "lane."))
    with pytest.raises(InputError, match="it lacks lat"):
        opendss_flow(case.network, injections(case), case.law_pu * BASE_KVA)
    path.unlink()
    with pytest.raises(InputError, match=r"village\.dss"):
        opendss_flow(case.network, injections(case), case.law_pu * BASE_KVA)


def test_a_law_that_opendss_has_no_model_of_is_refused(village):
    law = village.network.law
    strange = LoadLaws(law.port, law.base_pu, np.full(len(law), 0.7), np.full(len(law), 1.0), *_bands(law))
    case = replace(village, network=replace(village.network, law=strange))
    with pytest.raises(InputError, match=r"load at bus house, exponent, outer = \(0\.7, 1\.0\)"):
        opendss_flow(case.network, injections(case), case.law_pu * BASE_KVA)


def _bands(law: LoadLaws) -> tuple[np.ndarray, ...]:
    return law.u_min, law.u_max, law.u_low


def test_regulators_settle_where_they_hold_their_voltage(village):
    """Settled at three times the load: the line-drop compensated voltage of each is in its band of 121 to 123 V."""
    network = village.network
    injection, law = -3 * village.load_pu[:1] * BASE_KVA, 3 * village.law_pu[:1] * BASE_KVA
    ((taps, at_rest),) = settle_taps(network, injection, law)
    assert at_rest
    assert taps.keys() == network.taps.keys()
    assert all(tap > network.taps[name] + 1e-3 for name, tap in taps.items())
    again = with_taps(network, taps)
    assert settle_taps(again, injection, law) == [(taps, True)]
    flow = opendss_flow(again, injection, law)
    for phase in "123":
        node = again.node("reg", phase)
        volt = flow.v_pu[0, node] * 7200
        leaving = again.conductors_of("line.main")[int(phase) - 1]
        ampere = flow.current_from_pu[0, leaving] * again.current_base_a[node]
        assert 121 <= abs(volt / 60 - (4 + 6j) / 200 * ampere) <= 123


def test_regulators_that_still_move_are_told(village, monkeypatch):
    monkeypatch.setattr(circuit, "MAX_CONTROL_ITERATIONS", 2)
    injection, law = -3 * village.load_pu[:1] * BASE_KVA, 3 * village.law_pu[:1] * BASE_KVA
    ((taps, at_rest),) = settle_taps(village.network, injection, law)
    assert not at_rest
    assert taps != village.network.taps


def test_regulators_at_rest_stay(village):
    """At the loads of the circuit itself, at which the importer left them."""
    network = village.network
    p_kw, q_kvar = network.element_loads()
    power = (p_kw + 1j * q_kvar)[None]
    found = settle_taps(network, -power[:, : network.port_count], power[:, network.port_count :])
    assert found == [(network.taps, True)]


def test_awards_without_a_solution_settle_nothing(village):
    injection = injections(village)[:1]
    injection[0, village.network.node("end", "1")] -= 1e5
    assert settle_taps(village.network, injection, village.law_pu[:1] * BASE_KVA) == [(village.network.taps, False)]


def test_every_interval_settles_from_the_taps_of_the_network(tmp_path):
    """Heavy and light by turns: with regulators and a capacitor that moved, or had no solution, in the one before."""
    case = read_case(write_village(tmp_path / "village", village_dss=SWITCHED))
    network = case.network
    scale = np.array([3.0, 0.2, 500.0, 1.0, 3.0, 0.1])[:, None]
    injection, law = -scale * case.load_pu[0] * BASE_KVA, scale * case.law_pu[0] * BASE_KVA
    found = settle_taps(network, injection, law)
    assert found == [settle_taps(network, injection[[row]], law[[row]])[0] for row in range(len(scale))]
    assert [at_rest for _, at_rest in found] == [True, True, False, True, True, True]
    assert found[0] == found[4] != (network.taps, True)
    assert found[0][0]["capacitor.bank steps"] > found[1][0]["capacitor.bank steps"]


def test_other_taps_leave_limits_and_loads_as_they_are(village):
    network = replace(village.network, v_min_pu=village.network.v_min_pu + 0.01, v_unbalance_max=0.02)
    taps = dict.fromkeys(network.taps, 1.0)
    other = with_taps(network, taps)
    assert isinstance(other, UnbalancedNetwork)
    assert other.taps == taps
    assert other.v_unbalance_max == 0.02
    np.testing.assert_array_equal(other.v_min_pu, network.v_min_pu)
    np.testing.assert_array_equal(other.element_p_kw, network.element_p_kw)
    assert abs(other.admittance - network.admittance).max() > 1.0
