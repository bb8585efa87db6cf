"""One good case folder with an OpenDSS feeder, and a table of folders that are each one edit away from it."""

from pathlib import Path

from broken_cases import BrokenCase, Edit, also, append, change, remove, write

MASTER = "Master.dss"
CIRCUIT = "OpenDSS circuit"
GOOD_OPENDSS = {
    "case.toml": """\
name = "three phases"

[network]
source = "opendss:Master.dss"
v_min_pu = 0.9
v_max_pu = 1.1

[network.options]
ratings = true

[horizon]
start = 2026-01-01T00:00:00Z
interval_minutes = 60
intervals = 2
""",
    MASTER: """\
Clear
New Circuit.three bus1=grid basekV=12.47 phases=3 MVAsc3=200 MVAsc1=150
New Line.main bus1=grid bus2=a phases=3 r1=0.3 x1=0.6 length=3
New Line.side bus1=a.2 bus2=b.2 phases=1 r1=0.5 x1=0.5 length=1
New Transformer.t phases=3 windings=2 buses=[a d] conns=[wye delta] kVs=[12.47 0.48] kVAs=[500 500] XHL=4
New Transformer.r phases=1 windings=2 buses=[b.2 e.2] kVs=[7.2 7.2] kVAs=[500 500] XHL=1
New RegControl.r transformer=r winding=2 vreg=122 band=2 ptratio=60
New Load.x phases=3 bus1=a kV=12.47 kW=900 kvar=400
New Load.y phases=1 bus1=e.2 kV=7.2 kW=100 kvar=40
New Generator.g phases=3 bus1=a kV=12.47 kW=90
Set VoltageBases=[12.47, 0.48]
CalcVoltageBases
Solve
""",
    "import_prices.csv": "interval,price_usd_per_mwh\n0,20\n1,50\n",
    "load_profile.csv": "interval,bus,phase,p_kw,q_kvar\n0,a,2,100,40\n0,a,12,50,20\n1,b,,80,10\n",
    "resources.csv": """\
resource,bus,phase,kind,p_min_kw,p_max_kw,q_min_kvar,q_max_kvar,s_max_kva
pv,b,2,solar,0,50,,,
flex,d,12,load,-30,0,,,
generator.g,a,,generator,0,90,,,
""",
    "bids.csv": """\
resource,interval,side,segment,quantity_kw,price_usd_per_mwh
pv,,supply,0,50,0
flex,,demand,0,30,60
generator.g,,supply,0,90,40
""",
    "limits.csv": "element,rate_a,bus,v_min_pu\nline.side,80,,\n,,b,0.95\n",
}


def write_good_opendss(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, text in GOOD_OPENDSS.items():
        (folder / name).write_text(text, "utf-8")
    return folder


def add(line: str) -> Edit:
    """One more line before the voltage bases."""
    return change(MASTER, "Set VoltageBases", f"{line}\nSet VoltageBases")


def options(text: str) -> Edit:
    return change("case.toml", "ratings = true", text)


BROKEN_OPENDSS = [
    # files and what OpenDSS itself says
    BrokenCase("no master", remove(MASTER), "case.toml", "network.source", "there is no file"),
    BrokenCase("no circuit", write(MASTER, "Clear\n"), CIRCUIT, "compile", "defines no circuit"),
    BrokenCase("empty", write(MASTER, ""), CIRCUIT, "compile", "defines no circuit"),
    BrokenCase("binary", write(MASTER, bytes(range(256))), CIRCUIT, "compile", "OpenDSS: "),
    BrokenCase("class unknown to OpenDSS", add("New Lone.x bus=3"), CIRCUIT, "compile", 'Object Type "Lone" not found'),
    BrokenCase("property unknown", add("New Line.x bsu1=a"), CIRCUIT, "compile", 'Unknown parameter "bsu1"'),
    BrokenCase("command unknown", add("Nwe Line.x"), CIRCUIT, "compile", "OpenDSS: "),
    BrokenCase("line code unknown", add("New Line.x bus1=a bus2=c linecode=n"), CIRCUIT, "compile", '"n" not found'),
    BrokenCase("part missing", add("Redirect nowhere.dss"), CIRCUIT, "compile", "nowhere.dss"),
    BrokenCase("load model 9", add("New Load.z bus1=a kV=12.47 kW=1 model=9"), CIRCUIT, "compile", "not a valid value"),
    BrokenCase("ZIPV missing", add("New Load.z bus1=a kV=12.47 kW=1 model=8"), CIRCUIT, "compile", "ZIPV is not set"),
    BrokenCase(
        "no voltage bases",
        change(MASTER, "Set VoltageBases=[12.47, 0.48]\nCalcVoltageBases\n", ""),
        CIRCUIT,
        "VoltageBases",
        "have no base voltage; add Set VoltageBases",
    ),
    BrokenCase(
        "no power flow",
        add("New Load.z phases=3 bus1=d kV=0.48 kW=90000 vminpu=0.01 vlowpu=0.005 conn=delta"),
        CIRCUIT,
        "solve",
        "does not converge",
    ),
    # elements that cannot be modelled
    *(
        BrokenCase(f"class {kind}", add(f"New {kind}.u {rest}"), f"{kind.lower()}.u", "class", "is not supported")
        for kind, rest in (
            ("Isource", "bus1=a phases=3 amps=3"),
            ("IndMach012", "bus1=a phases=3 kV=12.47 kVA=300"),
            ("VCCS", "bus1=a phases=1"),
            ("GICLine", "bus1=a bus2=c phases=3 volts=1"),
        )
    ),
    BrokenCase("source between buses", add("New Vsource.v bus1=b bus2=a basekV=1"), "vsource.v", "Bus2", "be ground"),
    BrokenCase("source reversed", add("Edit Vsource.source sequence=neg"), "vsource.source", "Sequence", "positive"),
    BrokenCase("load at one node", add("New Load.z phases=1 bus1=a.1.1 kV=7.2"), "load.z", "Bus1", "and itself"),
    BrokenCase("load on ground", add("New Load.z phases=1 bus1=a.0 kV=7.2"), "load.z", "Bus1", "and itself"),
    BrokenCase(
        "load to a loose neutral",
        add("New Load.z phases=1 bus1=a.1.4 kV=7.2"),
        "load.z",
        "Bus1",
        "no line or transformer leads there",
    ),
    BrokenCase(
        "neutral impedance",
        add("New Line.n phases=2 bus1=a.1.4 bus2=n.1.4\nNew Load.z bus1=n.1.2.3.4 kV=12.47 rneut=1"),
        "load.z",
        "Rneut",
        "put a reactor",
    ),
    BrokenCase(
        "load of which a phase is open",
        change(MASTER, "Solve\n", "Open Load.x 1 2\nSolve\n"),
        "load.x",
        "Open",
        "all of its phases, or none",
    ),
    BrokenCase(
        "growth curve",
        add("New GrowthShape.s npts=1 year=[1] mult=[1.1]\nLoad.x.growth=s\nSet Year=2"),
        "load.x",
        "Growth",
        "Set Year=0",
    ),
    BrokenCase(
        "steps of a shape that differ",
        add("New LoadShape.s npts=2 interval=0 hour=[1 5] mult=[1 2]\nLoad.x.daily=s"),
        "loadshape.s",
        "interval",
        "must be fixed",
    ),
    BrokenCase(
        "positive sequence only",
        change(MASTER, "Solve\n", "Solve\nSet CktModel=Positive\n"),
        CIRCUIT,
        "CktModel",
        "counts only one phase",
    ),
    BrokenCase(
        "lower end of the band above the circuit's upper end",
        change("case.toml", "v_min_pu = 0.9\nv_max_pu = 1.1\n", "v_min_pu = 1.06\n"),
        CIRCUIT,
        "v_min_pu, v_max_pu",
        "where one is not given it is NormVminpu or NormVmaxpu",
    ),
    # options
    BrokenCase("option unknown", options("rating = true"), "case.toml", "network.options", "are not known for OpenDSS"),
    BrokenCase("ratings", options('ratings = "no"'), "case.toml", "network.options.ratings", "true or false"),
    BrokenCase("load bands", options("load_bands = 1"), "case.toml", "network.options.load_bands", "true or false"),
    BrokenCase("unbalance", options("v_unbalance_max = 0"), "case.toml", "network.options.v_unbalance_max", "above"),
    BrokenCase(
        "unbalance of truth", options("v_unbalance_max = true"), "case.toml", "network.options.v_unbalance_max", "above"
    ),
    BrokenCase("taps", options("taps = 1.05"), "case.toml", "network.options.taps", "must be a table"),
    BrokenCase("tap", options("taps = {a = 0}"), "case.toml", "network.options.taps", "must be a table"),
    BrokenCase(
        "tap of nothing",
        options('taps = {"transformer.t wdg 2" = 1.0}'),
        CIRCUIT,
        "taps",
        "known: transformer.r wdg 2",
    ),
    # phases in tables
    BrokenCase(
        "resource on a phase that its bus lacks",
        change("resources.csv", "pv,b,2", "pv,b,1"),
        "resources.csv line 2",
        "phase",
        "has the phases 2; name one",
    ),
    BrokenCase(
        "resource on a neutral",
        also(
            add("New Line.n phases=4 bus1=a.1.2.3.4 bus2=n.1.2.3.4\nNew Reactor.n phases=1 bus1=n.4 r=1 x=0"),
            change("resources.csv", "pv,b,2", "pv,n,4"),
        ),
        "resources.csv line 2",
        "phase",
        "is a neutral conductor",
    ),
    BrokenCase(
        "resource across phases that its bus lacks",
        change("resources.csv", "pv,b,2", "pv,b,12"),
        "resources.csv line 2",
        "phase",
        "has the phases 2; name one",
    ),
    BrokenCase(
        "resource to ground where there is none",
        change("resources.csv", "flex,d,12", "flex,d,1"),
        "resources.csv line 3",
        "phase",
        "name a pair of phases such as 12",
    ),
    BrokenCase(
        "resource at a source",
        change("resources.csv", "pv,b,2", "pv,z,2"),
        "resources.csv line 2",
        "bus",
        "is no bus",
    ),
    BrokenCase(
        "generator elsewhere",
        change("resources.csv", "generator.g,a", "generator.g,e"),
        "resource generator.g",
        "bus",
        "has a generator of this name at bus a",
    ),
    BrokenCase(
        "load on a phase that its bus lacks",
        append("load_profile.csv", "1,b,3,1,1"),
        "load_profile.csv line 5",
        "phase",
        "has the phases 2; name one",
    ),
    BrokenCase(
        "load twice on a phase",
        append("load_profile.csv", "0,a,2,1,1"),
        "load_profile.csv line 5",
        "interval, bus, phase",
        "above already",
    ),
    BrokenCase(
        "voltage band of a bus upside down on all its phases",
        append("limits.csv", ",,a,1.2"),
        "bus a",
        "v_min_pu, v_max_pu",
        "need 0 <= v_min_pu <= v_max_pu",
    ),
    BrokenCase(
        "generator in upper case",
        also(change("resources.csv", "generator.g", "Generator.G"), change("bids.csv", "generator.g", "Generator.G")),
        "resource Generator.G",
        "resource",
        "would inject beside the network's own generator.g; spell it so",
    ),
    BrokenCase(
        "bus in upper case",
        change("resources.csv", "pv,b,2", "pv,B,2"),
        "resources.csv line 2",
        "bus",
        "is no bus of the network; it is spelled b",
    ),
    BrokenCase(
        "limit of no element",
        change("limits.csv", "line.side", "side"),
        "limits.csv line 2",
        "element",
        "is no line or transformer",
    ),
]
"""Every broken case."""
