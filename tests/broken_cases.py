"""One good case folder, and a table of folders that are each one edit away from it, with the problem each has."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

GOOD_CASE = {
    "case.toml": """\
name = "four buses"

[network]
source = "tables:."
v_min_pu = 0.95
v_max_pu = 1.05

[horizon]
start = 2026-07-01T07:00:00Z
interval_minutes = 60
intervals = 3
timezone = "America/Los_Angeles"
currency = "USD"

[import]
p_min_kw = -500.0
p_max_kw = 5000.0
""",
    "nodes.csv": """\
bus,base_kv,p_kw,q_kvar,v_min_pu,v_max_pu,is_source
S,12.66,,,,,1
A,12.66,100,60,,,
B,12.66,90,40,0.92,1.08,
C,12.66,120,80,,,0
""",
    "lines.csv": """\
line,from_bus,to_bus,r_ohm,x_ohm,b_us,rate_kva,rate_a
SA,S,A,0.0922,0.047,,,
AB,A,B,0.493,0.2511,10,500,
BC,B,C,0.366,0.1864,,,100
""",
    "import_prices.csv": "interval,price_usd_per_mwh,q_price_usd_per_mvarh\n0,20,1\n1,50,2\n2,-5,\n",
    "load_profile.csv": "interval,scale\n0,1\n1,1.5\n2,0.5\n",
    "resources.csv": """\
resource,bus,phase,kind,p_min_kw,p_max_kw,q_min_kvar,q_max_kvar,s_max_kva
pv,C,,solar,,80,-40,40,90
flex,B,,load,-30,0,,,
""",
    "availability.csv": "resource,interval,p_max_kw\npv,0,10\npv,1,95\npv,2,40\n",
    "bids.csv": """\
resource,interval,side,segment,quantity_kw,price_usd_per_mwh
pv,,supply,0,80,0
flex,0,demand,0,20,60
flex,2,demand,0,20,70
flex,,demand,1,10,30
""",
    "limits.csv": "element,rate_kva,bus,v_min_pu,v_max_pu\nBC,400,,,\n,,A,0.96,\n",
}

Edit = Callable[[Path], None]


@dataclass(frozen=True)
class BrokenCase:
    """A folder with one mistake, and the problem that reading it must report."""

    name: str
    edit: Edit
    element: str
    field: str
    message: str
    problems: int = 1


def write_good_case(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, text in GOOD_CASE.items():
        (folder / name).write_text(text, "utf-8")
    return folder


def change(name: str, old: str, new: str) -> Edit:
    def edit(folder: Path) -> None:
        text = (folder / name).read_text("utf-8")
        assert text.count(old) == 1, f"{old!r} must stand once in {name}"
        (folder / name).write_text(text.replace(old, new), "utf-8")

    return edit


def append(name: str, line: str) -> Edit:
    def edit(folder: Path) -> None:
        path = folder / name
        path.write_text(path.read_text("utf-8") + line + "\n", "utf-8")

    return edit


def write(name: str, content: str | bytes) -> Edit:
    data = content if isinstance(content, bytes) else content.encode()
    return lambda folder: (folder / name).write_bytes(data) and None


def penalties(rows: str) -> Edit:
    return write("penalties.csv", f"limit,beyond,price\n{rows}\n")


def remove(*names: str) -> Edit:
    def edit(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return edit


def also(*edits: Edit) -> Edit:
    def edit(folder: Path) -> None:
        for single in edits:
            single(folder)

    return edit


def remove_folder(folder: Path) -> None:
    remove(*GOOD_CASE)(folder)
    folder.rmdir()


def source(text: str) -> Edit:
    return change("case.toml", 'source = "tables:."\nv_min_pu = 0.95\nv_max_pu = 1.05', f"source = {text}")


TOML = "case.toml"

STORES = also(
    append("resources.csv", "battery,A,,storage,-50,40,-20,20,60\ncar,C,,ev,-20,5,,,"),
    write(
        "stores.csv",
        "resource,charge_max_kw,discharge_max_kw,energy_min_kwh,energy_max_kwh,initial_kwh,charge_efficiency,"
        "discharge_efficiency,retention,drain_kw,cycling_usd_per_mwh,shortfall_usd_per_mwh,final_usd_per_mwh\n"
        "battery,50,40,10,100,20,0.95,0.94,0.999,0.5,5,300,25\n"
        "car,20,,,60,,,,,,,,\n",
    ),
)
"""A battery and a car in the good case, and what they are."""

BLOCKS = write(
    "blocks.csv",
    "block,resource,side,first_interval,last_interval,quantity_kw,price_usd_per_mwh,min_acceptance_ratio,"
    "exclusive_group\n"
    "run,flex,demand,1,2,20,45,,\n"
    "heat,flex,demand,,,10,40,0.5,either\n",
)
"""Two blocks in the good case."""

STORE_PROFILE = write(
    "store_profile.csv",
    "resource,interval,charge_max_kw,discharge_max_kw,energy_min_kwh,energy_max_kwh,drain_kw\n"
    "car,1,15,3,12,55,1\n"
    "car,2,0,,,,2\n",
)
"""A car that is driven from the second interval on, and leaves in the third."""


SERVICES = also(
    write(
        "service_offers.csv",
        "resource,service,interval,quantity_kw,price_usd_per_mw_h,duration_hours\n"
        "pv,capacity_down,,30,2,\n"
        "pv,var_up,0,20,1.5,2\n"
        "pv,var_up,2,10,1.25,2\n"
        "flex,capacity_up,,25,4,1\n",
    ),
    write(
        "requirements.csv",
        "name,service,place,element,interval,quantity_kw,shortage_usd_per_mw_h\n"
        "reserve,capacity_up,substation,,,5,\n"
        "relief,capacity_down,branch,BC,1,8,500\n"
        "relief,capacity_down,branch,BC,2,6,500\n"
        "support,var_up,zone,end,0,7,80\n",
    ),
    write("zones.csv", "zone,bus\nend,B\nend,C\nnear,A\n"),
)
"""Three services in the good case: for all, behind a line and in a zone."""


def serving(*edits: Edit) -> Edit:
    """What breaks the good case with its services."""
    return also(SERVICES, *edits)


def stored(*edits: Edit) -> Edit:
    """What breaks the good case with its stores."""
    return also(STORES, STORE_PROFILE, *edits)


RATED_PV = "s_max_kva\npv,C,,solar,,80,-40,40,90"
"""End of the header of ``resources.csv``, and its first row, to add columns to."""

REACTIVE = write(
    "reactive_bids.csv",
    "resource,interval,side,segment,quantity_kvar,price_usd_per_mvarh\n"
    "pv,,inject,0,20,2.5\npv,1,inject,1,10,4\npv,,absorb,0,15,-1\n",
)
"""A price for the reactive power of the solar plant."""

SLOPED = also(
    change("bids.csv", "price_usd_per_mwh", "price_usd_per_mwh,price_end_usd_per_mwh"),
    change("bids.csv", "0,80,0", "0,80,0,9"),
)
"""Solar power from 0 to 9."""

SCHEDULED = also(
    change("bids.csv", "quantity_kw,price_usd_per_mwh", "quantity_kw,price_usd_per_mwh,is_self_scheduled"),
    change("bids.csv", "0,80,0", "0,80,,1"),
)
"""All 80 kW of the solar plant at any price."""

BROKEN_CASES = [
    # the folder and its files
    BrokenCase("no folder", remove_folder, "case", "folder", "is no folder"),
    BrokenCase("no case.toml", remove(TOML), TOML, "file", "does not exist"),
    BrokenCase("case.toml is not TOML", write(TOML, "name: four buses"), TOML, "file", "is not TOML"),
    BrokenCase("case.toml is binary", write(TOML, bytes(range(256))), TOML, "file", "is not TOML"),
    BrokenCase("a table is binary", write("bids.csv", bytes(range(256))), "bids.csv", "file", "is not a CSV table"),
    BrokenCase("zero bytes", write("import_prices.csv", "interval,price\n0,\0\n"), "import_prices.csv", "file", "zero"),
    BrokenCase("an empty table", write("lines.csv", ""), "lines.csv", "file", "is not a CSV table"),
    BrokenCase("no nodes", remove("nodes.csv"), "nodes.csv", "file", "does not exist"),
    BrokenCase("no prices", remove("import_prices.csv"), "import_prices.csv", "file", "does not exist"),
    BrokenCase("resources without bids", remove("bids.csv"), "bids.csv", "file", "does not exist"),
    BrokenCase("bids without resources", remove("resources.csv"), "resources.csv", "file", "does not exist"),
    BrokenCase(
        "semicolons",
        write("load_profile.csv", "interval;scale\n0;1\n"),
        "load_profile.csv",
        "interval;scale",
        "is no column",
        problems=5,
    ),
    # case.toml
    BrokenCase("no name", change(TOML, 'name = "four buses"', ""), TOML, "name", "is needed"),
    BrokenCase("blank name", change(TOML, "four buses", " "), TOML, "name", "not blank"),
    BrokenCase("unknown setting", change(TOML, "v_min_pu", "vmin_pu"), TOML, "network.vmin_pu", "is no setting"),
    BrokenCase("unknown section", append(TOML, "[solver]\nmip_gap = 1"), TOML, "solver", "is no setting"),
    BrokenCase(
        "section is a value",
        write(
            TOML,
            'name = "n"\nimport = 3\n[network]\nsource = "tables:."\n[horizon]\n'
            "start = 2026-07-01T07:00:00Z\ninterval_minutes = 60\nintervals = 3\n",
        ),
        TOML,
        "import",
        "[import]",
    ),
    BrokenCase("text for a number", change(TOML, "0.95", '"0.95"'), TOML, "network.v_min_pu", "finite number"),
    BrokenCase("bool for a number", change(TOML, "5000.0", "true"), TOML, "import.p_max_kw", "finite number"),
    BrokenCase("a huge number", change(TOML, "5000.0", "1" + 400 * "0"), TOML, "import.p_max_kw", "finite number"),
    BrokenCase("options are a number", source('"tables:."\noptions = 3'), TOML, "network.options", "[network.options]"),
    BrokenCase("file name too long", source(f'"tables:{5000 * "x"}"'), TOML, "network.source", "there is no folder"),
    BrokenCase("nan", change(TOML, "1.05", "nan"), TOML, "network.v_max_pu", "finite number"),
    BrokenCase("infinite import", change(TOML, "5000.0", "inf"), TOML, "import.p_max_kw", "leave it out"),
    BrokenCase("voltage zero", change(TOML, "0.95", "0"), TOML, "network.v_min_pu", "above zero"),
    BrokenCase("band reversed", change(TOML, "0.95", "1.06"), TOML, "network.v_min_pu, v_max_pu", "need v_min_pu"),
    BrokenCase("import reversed", change(TOML, "-500.0", "6000"), TOML, "import.p_min_kw, p_max_kw", "need p_min_kw"),
    BrokenCase("no zone", change(TOML, "00:00Z", "00:00"), TOML, "horizon.start", "2026-07-01T07:00:00Z"),
    BrokenCase("not UTC", change(TOML, "00:00Z", "00:00-07:00"), TOML, "horizon.start", "must be in UTC"),
    BrokenCase("a date", change(TOML, "2026-07-01T07:00:00Z", "2026-07-01"), TOML, "horizon.start", "must be a time"),
    BrokenCase("words for a time", change(TOML, "2026-07-01T07:00:00Z", '"noon"'), TOML, "horizon.start", "a time"),
    BrokenCase("year 9999", change(TOML, "2026", "9999"), TOML, "horizon.start", "1970"),
    BrokenCase("seven minutes", change(TOML, "= 60", "= 7"), TOML, "horizon.interval_minutes", "must be one of"),
    BrokenCase("part of an interval", change(TOML, "= 3", "= 3.5"), TOML, "horizon.intervals", "whole number"),
    BrokenCase("no intervals", change(TOML, "= 3", "= 0"), TOML, "horizon.intervals", "1 to 10000"),
    BrokenCase("intervals left out", change(TOML, "intervals = 3", ""), TOML, "horizon.intervals", "is needed"),
    BrokenCase("zone unknown", change(TOML, "Los_Angeles", "Laputa"), TOML, "horizon.timezone", "IANA"),
    BrokenCase("currency unknown", change(TOML, "USD", "dollar"), TOML, "horizon.currency", "ISO 4217"),
    # the source of the network
    BrokenCase("kind unknown", source('"gridlabd:f.glm"'), TOML, "network.source", "KIND:NAME"),
    BrokenCase("no kind", source('"case33bw"'), TOML, "network.source", "KIND:NAME"),
    BrokenCase("no source", change(TOML, 'source = "tables:."', ""), TOML, "network.source", "is needed"),
    BrokenCase("function unknown", source('"pandapower:case33"'), TOML, "network.source", "case33bw"),
    BrokenCase("JSON missing", source('"pandapower:net.json"'), TOML, "network.source", "there is no"),
    BrokenCase("MATPOWER missing", source('"matpower:case.m"'), TOML, "network.source", "there is no"),
    BrokenCase(
        "JSON of something else",
        also(source('"pandapower:net.json"'), write("net.json", "[1, 2]")),
        TOML,
        "network.source",
        "cannot make this net",
    ),
    BrokenCase(
        "JSON broken",
        also(source('"pandapower:net.json"'), write("net.json", "{")),
        TOML,
        "network.source",
        "cannot make this net",
    ),
    BrokenCase(
        "MATPOWER empty",
        also(source('"matpower:case.m"'), write("case.m", "")),
        "case.m",
        "mpc.bus",
        "a case must assign it",
        problems=4,
    ),
    BrokenCase("tables missing", source('"tables:elsewhere"'), TOML, "network.source", "there is no"),
    BrokenCase("options for tables", source('"tables:."\noptions = {a = 1}'), TOML, "network.options", "only for"),
    BrokenCase("option unknown", source('"pandapower:case33bw"\noptions = {a = 1}'), TOML, "network.options", "'a'"),
    # nodes.csv and lines.csv
    BrokenCase("column missing", change("nodes.csv", "base_kv", "kv"), "nodes.csv", "base_kv", "needs", problems=2),
    BrokenCase("column unknown", change("lines.csv", "rate_a", "rate_ka"), "lines.csv", "rate_ka", "is no column"),
    BrokenCase("bus twice", append("nodes.csv", "A,12.66,,,,,"), "bus A", "bus", "unique"),
    BrokenCase("base zero", change("nodes.csv", "C,12.66", "C,0"), "bus C", "base_kv", "above zero"),
    BrokenCase("base blank", change("nodes.csv", "C,12.66", "C,"), "nodes.csv line 5", "base_kv", "not be blank"),
    BrokenCase("load NaN", change("nodes.csv", "A,12.66,100", "A,12.66,nan"), "nodes.csv line 3", "p_kw", "finite"),
    BrokenCase("load of words", change("nodes.csv", "A,12.66,100", "A,12.66,1e"), "nodes.csv line 3", "p_kw", "finite"),
    BrokenCase("no source bus", change("nodes.csv", "S,12.66,,,,,1", "S,12.66,,,,,"), "network", "source", "is_source"),
    BrokenCase(
        "source of yes",
        change("nodes.csv", "S,12.66,,,,,1", "S,12.66,,,,,yes"),
        "nodes.csv line 2",
        "is_source",
        "whole number",
    ),
    BrokenCase("source of 2", change("nodes.csv", "S,12.66,,,,,1", "S,12.66,,,,,2"), "bus S", "is_source", "must be 1"),
    BrokenCase(
        "bus band reversed",
        change("nodes.csv", "0.92,1.08", "1.08,0.92"),
        "bus B",
        "v_min_pu, v_max_pu",
        "v_min_pu <= v_max_pu",
    ),
    BrokenCase("zero impedance", change("lines.csv", "0.493,0.2511", "0,0"), "line AB", "r_ohm, x_ohm", "zero"),
    BrokenCase("negative resistance", change("lines.csv", "0.493", "-0.493"), "line AB", "r_ohm", "negative"),
    BrokenCase("end unknown", change("lines.csv", "BC,B,C", "BC,B,Z"), "line BC", "to_bus", "is no bus"),
    BrokenCase("both ends one bus", change("lines.csv", "BC,B,C", "BC,C,C"), "line BC", "to_bus", "two different"),
    BrokenCase("line twice", change("lines.csv", "BC,B,C", "AB,B,C"), "line AB", "line", "unique", problems=2),
    BrokenCase("island", append("nodes.csv", "D,12.66,,,,,"), "bus D", "island", "no path"),
    BrokenCase("two rates", change("lines.csv", "10,500,", "10,500,20"), "line AB", "rate_kva, rate_a", "not both"),
    BrokenCase(
        "rate zero",
        change("lines.csv", "10,500,", "10,0,"),
        "line AB",
        "rating at its from end",
        "above zero",
        problems=2,
    ),
    BrokenCase(
        "two base voltages", change("nodes.csv", "C,12.66", "C,0.4"), "line BC", "base_kv of its buses", "transformer"
    ),
    BrokenCase("alias of no bus", write("aliases.csv", "alias,bus\nD,Z\n"), "alias D", "bus", "is no bus of nodes.csv"),
    # import_prices.csv and load_profile.csv
    BrokenCase(
        "import of an interval reversed",
        write("import_prices.csv", "interval,price_usd_per_mwh,p_max_kw\n0,20,\n1,50,-600\n2,-5,\n"),
        "import, interval 1",
        "p_min_kw, p_max_kw",
        "need p_min_kw",
    ),
    BrokenCase(
        "shares of import reversed",
        change(TOML, "p_max_kw = 5000.0", "p_max_share = 0.1\np_min_share = 0.2"),
        "case.toml",
        "import.p_min_share, p_max_share",
        "need p_min_share",
    ),
    BrokenCase(
        "share of import beyond its range",
        change(TOML, "p_max_kw = 5000.0", "p_max_kw = 1.0\np_min_share = 0.9"),
        "case.toml, interval 0",
        "import.p_min_share, p_max_share",
        "to 1 kW of a load of",
    ),
    BrokenCase(
        "import of an interval no number",
        write("import_prices.csv", "interval,price_usd_per_mwh,p_max_kw\n0,20,\n1,50,none\n2,-5,\n"),
        "import_prices.csv line 3",
        "p_max_kw",
        "finite number",
    ),
    BrokenCase("price missing", change("import_prices.csv", "1,50,2\n", ""), "import_prices.csv", "interval", "no row"),
    BrokenCase("price twice", append("import_prices.csv", "1,50,2"), "import_prices.csv line 5", "interval", "above"),
    BrokenCase(
        "price too late", append("import_prices.csv", "3,50,2"), "import_prices.csv line 5", "interval", "0 to 2"
    ),
    BrokenCase(
        "price blank",
        change("import_prices.csv", "1,50", "1,"),
        "import_prices.csv line 3",
        "price_usd_per_mwh",
        "not be blank",
    ),
    BrokenCase(
        "price infinite",
        change("import_prices.csv", "1,50", "1,inf"),
        "import_prices.csv line 3",
        "price_usd_per_mwh",
        "finite",
    ),
    BrokenCase(
        "half an interval",
        change("load_profile.csv", "1,1.5", "1.5,1.5"),
        "load_profile.csv line 3",
        "interval",
        "whole number",
    ),
    BrokenCase("scale missing", change("load_profile.csv", "1,1.5\n", ""), "load_profile.csv", "interval", "no row"),
    BrokenCase(
        "load at no bus",
        write("load_profile.csv", "interval,bus,p_kw,q_kvar\n0,Z,1,1\n"),
        "load_profile.csv line 2",
        "bus",
        "is no bus",
    ),
    BrokenCase(
        "load twice",
        write("load_profile.csv", "interval,bus,p_kw,q_kvar\n0,A,1,1\n0,A,1,1\n"),
        "load_profile.csv line 3",
        "interval, bus, phase",
        "above already",
    ),
    BrokenCase(
        "load twice on all phases",
        write("load_profile.csv", "interval,bus,phase,p_kw,q_kvar\n0,A,,1,1\n0,A,123,1,1\n"),
        "load_profile.csv line 3",
        "interval, bus, phase",
        "above already",
    ),
    BrokenCase(
        "load on no phase of the bus",
        write("load_profile.csv", "interval,bus,phase,p_kw,q_kvar\n0,A,2,1,1\n"),
        "load_profile.csv line 2",
        "phase",
        "has the phases 123; name one",
    ),
    # resources.csv and availability.csv
    BrokenCase(
        "resource at no bus", change("resources.csv", "pv,C", "pv,Z"), "resources.csv line 2", "bus", "is no bus"
    ),
    BrokenCase("resource twice", append("resources.csv", "pv,C,,solar,,80,,,"), "resource pv", "resource", "unique"),
    BrokenCase(
        "phase",
        change("resources.csv", "pv,C,", "pv,C,1"),
        "resources.csv line 2",
        "phase",
        "has the phases 123; name one",
    ),
    BrokenCase("kind of resource", change("resources.csv", "solar", "sunny"), "resource pv", "kind", "one of solar"),
    BrokenCase(
        "range reversed",
        change("resources.csv", "load,-30,0", "load,30,0"),
        "resource flex",
        "p_min_kw, p_max_kw (interval 0)",
        "p_min_kw <= p_max_kw",
        problems=2,
    ),
    BrokenCase(
        "reactive range",
        change("resources.csv", "-40,40", "40,-40"),
        "resource pv",
        "q_min_kvar, q_max_kvar",
        "q_min_kvar <=",
    ),
    BrokenCase(
        "participant named as an account",
        also(
            change("resources.csv", "s_max_kva\n", "s_max_kva,participant\n"),
            change("resources.csv", "40,90\n", "40,90,operator\n"),
            change("resources.csv", "-30,0,,,\n", "-30,0,,,,\n"),
        ),
        "resource pv",
        "participant",
        "is an account of the settlement",
    ),
    BrokenCase("rating zero", change("resources.csv", "40,90", "40,0"), "resource pv", "s_max_kva", "above zero"),
    BrokenCase(
        "range blank", change("resources.csv", ",80,", ",,"), "resources.csv line 2", "p_max_kw", "not be blank"
    ),
    BrokenCase(
        "available twice",
        append("availability.csv", "pv,2,4"),
        "availability.csv line 5",
        "resource, interval",
        "above already",
    ),
    BrokenCase(
        "availability of nobody",
        append("availability.csv", "pw,2,4"),
        "availability.csv line 5",
        "resource",
        "is no resource",
    ),
    BrokenCase(
        "availability too late", append("availability.csv", "pv,9,4"), "availability.csv line 5", "interval", "0 to 2"
    ),
    BrokenCase(
        "power factor above one",
        change("resources.csv", RATED_PV, RATED_PV.replace("\n", ",power_factor_min\n") + ",1.2"),
        "resource pv",
        "power_factor_min",
        "must be 0 to 1",
    ),
    BrokenCase(
        "power factor of a resource that goes both ways",
        change(
            "resources.csv",
            RATED_PV,
            RATED_PV.replace("\n", ",power_factor_min\n").replace("solar,,", "solar,-5,") + ",0.9",
        ),
        "resource pv",
        "power_factor_min",
        "needs real power of one sign",
    ),
    # reactive_bids.csv
    BrokenCase(
        "reactive bid of nobody",
        also(REACTIVE, append("reactive_bids.csv", "pw,,inject,0,1,1")),
        "reactive_bids.csv line 5",
        "resource",
        "is no resource",
    ),
    BrokenCase(
        "reactive side",
        also(REACTIVE, change("reactive_bids.csv", "absorb", "demand")),
        "reactive_bids.csv line 4",
        "side",
        "inject or absorb",
    ),
    BrokenCase(
        "reactive quantity",
        also(REACTIVE, change("reactive_bids.csv", "20,2.5", "-20,2.5")),
        "reactive_bids.csv line 2",
        "quantity_kvar",
        "the side says",
    ),
    BrokenCase(
        "reactive price missing",
        also(REACTIVE, change("reactive_bids.csv", "20,2.5", "20,")),
        "reactive_bids.csv line 2",
        "price_usd_per_mvarh",
        "not be blank",
    ),
    BrokenCase(
        "reactive column missing",
        also(REACTIVE, change("reactive_bids.csv", "price_usd_per_mvarh", "price_usd_per_mwh")),
        "reactive_bids.csv",
        "price_usd_per_mvarh",
        "the header needs this column",
        problems=2,
    ),
    BrokenCase(
        "reactive bid too late",
        also(REACTIVE, append("reactive_bids.csv", "pv,4,absorb,1,1,-4")),
        "reactive_bids.csv line 5",
        "interval",
        "0 to 2",
    ),
    BrokenCase(
        "reactive prices fall",
        also(REACTIVE, change("reactive_bids.csv", "10,4", "10,2")),
        "reactive bid of pv, inject segment 1, interval 1",
        "price_usd_per_mvarh",
        "must not fall",
    ),
    BrokenCase(
        "reactive trade with itself",
        also(REACTIVE, change("reactive_bids.csv", "15,-1", "15,3")),
        "reactive bid of pv, interval 0",
        "price_usd_per_mvarh",
        "absorb is dearer than its own inject at 2.5",
    ),
    BrokenCase(
        "reactive bids without a range",
        also(REACTIVE, append("reactive_bids.csv", "flex,,inject,0,1,1")),
        "resource flex",
        "q_max_kvar",
        "leaves nothing of its inject bids",
    ),
    BrokenCase(
        "ramp zero",
        change("resources.csv", RATED_PV, RATED_PV.replace("\n", ",ramp_up_kw_per_min\n") + ",0"),
        "resource pv",
        "ramp_up_kw_per_min",
        "above zero; leave it blank",
    ),
    BrokenCase(
        "ramp of words",
        change("resources.csv", RATED_PV, RATED_PV.replace("\n", ",ramp_down_kw_per_min\n") + ",slow"),
        "resources.csv line 2",
        "ramp_down_kw_per_min",
        "finite number",
    ),
    BrokenCase(
        "ramp too slow for what is available",
        change("resources.csv", RATED_PV, RATED_PV.replace("\n", ",ramp_down_kw_per_min,p_initial_kw\n") + ",0.5,45"),
        "resource pv, interval 0",
        "ramp_down_kw_per_min",
        "may inject 10 kW and can be at 15 kW at least",
    ),
    # bids.csv
    BrokenCase(
        "bid of nobody", append("bids.csv", "pw,,supply,0,1,1"), "bids.csv line 6", "resource", "is no resource"
    ),
    BrokenCase("side", change("bids.csv", "supply", "sell"), "bids.csv line 2", "side", "supply or demand"),
    BrokenCase("segment", change("bids.csv", "demand,1", "demand,-1"), "bids.csv line 5", "segment", "negative"),
    BrokenCase("segment of part", change("bids.csv", "demand,1", "demand,1.2"), "bids.csv line 5", "segment", "whole"),
    BrokenCase("quantity", change("bids.csv", "0,80,0", "0,-80,0"), "bids.csv line 2", "quantity_kw", "the side says"),
    BrokenCase(
        "price of words", change("bids.csv", "0,80,0", "0,80,free"), "bids.csv line 2", "price_usd_per_mwh", "finite"
    ),
    BrokenCase(
        "price of a bid missing",
        change("bids.csv", "0,80,0", "0,80,"),
        "bids.csv line 2",
        "price_usd_per_mwh",
        "not be blank",
    ),
    BrokenCase(
        "supply that gets cheaper along its segment",
        also(SLOPED, change("bids.csv", "0,80,0,9", "0,80,0,-1")),
        "bid of pv, supply segment 0, interval 0",
        "price_end_usd_per_mwh",
        "must not be below price_usd_per_mwh of the segment",
    ),
    BrokenCase(
        "end of a price of words",
        also(SLOPED, change("bids.csv", "0,80,0,9", "0,80,0,much")),
        "bids.csv line 2",
        "price_end_usd_per_mwh",
        "finite number",
    ),
    BrokenCase(
        "segment that begins below the end of the one before",
        also(SLOPED, append("bids.csv", "pv,,supply,1,5,8,")),
        "bid of pv, supply segment 1, interval 0",
        "price_usd_per_mwh",
        "must not fall from one supply segment to the next",
    ),
    BrokenCase(
        "end of the price of a self-schedule",
        also(
            SCHEDULED,
            change("bids.csv", "price_usd_per_mwh,is_self", "price_usd_per_mwh,price_end_usd_per_mwh,is_self"),
            change("bids.csv", "0,80,,1", "0,80,,9,1"),
        ),
        "bids.csv line 2",
        "price_end_usd_per_mwh",
        "must be blank: the block is self-scheduled",
    ),
    BrokenCase(
        "price of a self-schedule",
        also(SCHEDULED, change("bids.csv", "0,80,,1", "0,80,3,1")),
        "bids.csv line 2",
        "price_usd_per_mwh",
        "must be blank: the block is self-scheduled",
    ),
    BrokenCase(
        "self-schedule of two",
        also(SCHEDULED, change("bids.csv", "0,80,,1", "0,80,,2")),
        "bids.csv line 2",
        "is_self_scheduled",
        "must be 0 or 1",
    ),
    BrokenCase(
        "self-schedule beyond what is available",
        SCHEDULED,
        "resource pv, interval 0",
        "p_max_kw",
        "does not hold the 80 kW that are self-scheduled",
    ),
    BrokenCase("bid too late", change("bids.csv", "flex,2", "flex,3"), "bids.csv line 4", "interval", "0 to 2"),
    BrokenCase(
        "segment twice",
        append("bids.csv", "flex,0,demand,0,2,60"),
        "bids.csv line 6",
        "resource, side, segment, interval",
        "above already",
    ),
    BrokenCase("all and one", append("bids.csv", "pv,1,supply,0,2,60"), "bids.csv line 6", "interval", "all of them"),
    BrokenCase(
        "prices rise",
        change("bids.csv", "10,30", "10,65"),
        "bid of flex, demand segment 1, interval 0",
        "price_usd_per_mwh",
        "must not rise",
    ),
    BrokenCase(
        "must run",
        change("resources.csv", "load,-30,0", "load,-50,-40"),
        "resource flex, interval 0",
        "p_max_kw",
        "needs demand bids",
    ),
    # blocks.csv
    BrokenCase(
        "blocks without resources",
        also(BLOCKS, remove("resources.csv", "bids.csv", "availability.csv")),
        "resources.csv",
        "file",
        "does not exist",
    ),
    BrokenCase(
        "block of nobody",
        also(BLOCKS, append("blocks.csv", "x,cart,supply,,,1,1,,")),
        "blocks.csv line 4",
        "resource",
        "is no resource of resources.csv",
    ),
    BrokenCase(
        "block twice",
        also(BLOCKS, append("blocks.csv", "run,pv,supply,,,1,1,,")),
        "blocks.csv line 4",
        "block",
        "stands in a row above",
    ),
    BrokenCase(
        "side of a block",
        also(BLOCKS, append("blocks.csv", "x,pv,both,,,1,1,,")),
        "blocks.csv line 4",
        "side",
        "must be supply or demand",
    ),
    BrokenCase(
        "intervals of a block",
        also(BLOCKS, append("blocks.csv", "x,pv,supply,2,9,1,1,,")),
        "block x",
        "first_interval, last_interval",
        "<= 2",
    ),
    BrokenCase(
        "ratio of a block",
        also(BLOCKS, append("blocks.csv", "x,pv,supply,,,1,1,2,")),
        "block x",
        "min_acceptance_ratio",
        "at most 1",
    ),
    # prices beyond all that is meant
    BrokenCase(
        "price of import without measure",
        change("import_prices.csv", "1,50,2", "1,1e300,2"),
        "substation, interval 1",
        "price_usd_per_mwh",
        "finite and at most 1e9 in size",
    ),
    BrokenCase(
        "price of a bid without measure",
        change("bids.csv", "flex,0,demand,0,20,60", "flex,0,demand,0,20,1e10"),
        "bid of flex, demand segment 0, interval 0",
        "price_usd_per_mwh",
        "finite and at most 1e9 in size",
    ),
    BrokenCase(
        "penalty without measure",
        penalties("voltage,0,1e12"),
        "penalties of voltage",
        "price",
        "finite and at most 1e9 in size",
    ),
    BrokenCase(
        "price of a service without measure",
        serving(change("service_offers.csv", "capacity_down,,30,2", "capacity_down,,30,2e9")),
        "service offer of pv, interval 0",
        "price_usd_per_mw_h",
        "at most 1e+09",
    ),
    BrokenCase(
        "price of shortage without measure",
        serving(change("requirements.csv", "0,7,80", "0,7,8e10")),
        "requirement support",
        "shortage_usd_per_mw_h",
        "at most 1e9; leave it blank",
    ),
    # stores.csv and store_profile.csv
    BrokenCase(
        "stores without resources",
        stored(remove("resources.csv", "availability.csv", "bids.csv")),
        "resources.csv",
        "file",
        "does not exist; stores.csv needs it",
    ),
    BrokenCase(
        "profile without stores",
        stored(remove("stores.csv")),
        "stores.csv",
        "file",
        "does not exist; store_profile.csv needs it",
    ),
    BrokenCase(
        "store of nobody",
        stored(append("stores.csv", "cart,1,,,1,,,,,,,,")),
        "stores.csv line 4",
        "resource",
        "is no resource of resources.csv",
    ),
    BrokenCase(
        "store twice",
        stored(append("stores.csv", "car,1,,,1,,,,,,,,")),
        "stores.csv line 4",
        "resource",
        "above already",
    ),
    BrokenCase(
        "store of unknown power",
        stored(change("stores.csv", "car,20", "car,")),
        "stores.csv line 3",
        "charge_max_kw",
        "not be blank",
    ),
    BrokenCase(
        "store of unknown size",
        stored(change("stores.csv", ",,,60,", ",,,,")),
        "stores.csv line 3",
        "energy_max_kwh",
        "not be blank",
    ),
    BrokenCase(
        "store of infinite size",
        stored(change("stores.csv", ",,,60,", ",,,inf,")),
        "stores.csv line 3",
        "energy_max_kwh",
        "finite number",
    ),
    BrokenCase(
        "efficiency in percent",
        stored(change("stores.csv", "0.95", "95")),
        "store of battery",
        "charge_efficiency",
        "above 0 and at most 1",
    ),
    BrokenCase(
        "efficiency zero",
        stored(change("stores.csv", "0.94", "0")),
        "store of battery",
        "discharge_efficiency",
        "above 0 and at most 1",
    ),
    BrokenCase(
        "retention", stored(change("stores.csv", "0.999", "1.01")), "store of battery", "retention", "at most 1"
    ),
    BrokenCase(
        "cycling is paid",
        stored(change("stores.csv", "0.5,5,", "0.5,-5,")),
        "store of battery",
        "cycling_usd_per_mwh",
        ">= 0",
    ),
    BrokenCase(
        "shortfall for nothing",
        stored(change("stores.csv", "300", "0")),
        "store of battery",
        "shortfall_usd_per_mwh",
        "leave it blank",
    ),
    BrokenCase(
        "initial energy", stored(change("stores.csv", "100,20,", "100,-20,")), "store of battery", "initial_kwh", ">= 0"
    ),
    BrokenCase(
        "store beyond its resource",
        stored(change("stores.csv", "battery,50", "battery,55")),
        "store of battery, interval 0",
        "charge_max_kw",
        "beyond the range of the resource, 50 kW",
    ),
    BrokenCase(
        "discharge beyond availability",
        stored(append("availability.csv", "battery,1,30")),
        "store of battery, interval 1",
        "discharge_max_kw",
        "beyond the range of the resource, 30 kW",
    ),
    BrokenCase(
        "band of energy",
        stored(change("stores.csv", "40,10,100", "40,110,100")),
        "store of battery, interval 0",
        "energy_min_kwh, energy_max_kwh",
        "energy_min_kwh <= energy_max_kwh",
    ),
    BrokenCase(
        "deadline out of reach",
        stored(change("store_profile.csv", "15,3,12,", "15,3,40,")),
        "store of car, interval 1",
        "energy_min_kwh",
        "at most 34 kWh can be there",
    ),
    BrokenCase(
        "too full",
        stored(change("stores.csv", "100,20,", "100,190,")),
        "store of battery, interval 0",
        "energy_max_kwh",
        "cannot be kept",
    ),
    BrokenCase(
        "store with bids", stored(append("bids.csv", "car,,demand,0,20,60")), "store of car", "bids", "has bids too"
    ),
    BrokenCase(
        "profile of nobody",
        stored(append("store_profile.csv", "cart,1,,,,,1")),
        "store_profile.csv line 4",
        "resource",
        "is no store of stores.csv",
    ),
    BrokenCase(
        "profile of a resource without a store",
        stored(append("store_profile.csv", "pv,1,,,,,1")),
        "store_profile.csv line 4",
        "resource",
        "is no store of stores.csv",
    ),
    BrokenCase(
        "profile too late",
        stored(append("store_profile.csv", "car,3,,,,,1")),
        "store_profile.csv line 4",
        "interval",
        "0 to 2",
    ),
    BrokenCase(
        "profile twice",
        stored(append("store_profile.csv", "car,2,,,,,1")),
        "store_profile.csv line 4",
        "resource, interval",
        "above already",
    ),
    BrokenCase(
        "profile of words",
        stored(change("store_profile.csv", "55,1", "55,drive")),
        "store_profile.csv line 2",
        "drain_kw",
        "finite number",
    ),
    BrokenCase(
        "profile of losses",
        stored(write("store_profile.csv", "resource,interval,retention\ncar,1,0.9\n")),
        "store_profile.csv",
        "retention",
        "is no column",
    ),
    BrokenCase(
        "store of a broken resource",
        stored(change("resources.csv", "car,C", "car,Z")),
        "resources.csv line 5",
        "bus",
        "is no bus",
    ),
    # service_offers.csv, requirements.csv, zones.csv
    BrokenCase(
        "service of nobody",
        serving(append("service_offers.csv", "pw,var_up,,1,1,")),
        "service_offers.csv line 6",
        "resource",
        "is no resource of resources.csv",
    ),
    BrokenCase(
        "service of no kind",
        serving(append("service_offers.csv", "pv,inertia,,1,1,")),
        "service_offers.csv line 6",
        "service",
        "capacity_up, capacity_down, var_up, var_down",
    ),
    BrokenCase(
        "service twice",
        serving(append("service_offers.csv", "pv,var_up,2,1,1,2")),
        "service_offers.csv line 6",
        "resource, service, interval",
        "above already",
    ),
    BrokenCase(
        "service of all and of one",
        serving(append("service_offers.csv", "flex,capacity_up,1,1,1,1")),
        "service_offers.csv line 6",
        "interval",
        "the offer can have no other row",
    ),
    BrokenCase(
        "service too late",
        serving(append("service_offers.csv", "flex,var_up,3,1,1,1")),
        "service_offers.csv line 6",
        "interval",
        "0 to 2",
    ),
    BrokenCase(
        "service of two durations",
        serving(change("service_offers.csv", "1.25,2", "1.25,3")),
        "service_offers.csv line 4",
        "duration_hours",
        "differs from 2.0 in a row above",
    ),
    BrokenCase(
        "service shorter than an interval",
        serving(change("service_offers.csv", "25,4,1", "25,4,0.5")),
        "service offer of flex",
        "duration_hours",
        "at least one interval",
    ),
    BrokenCase(
        "service of less than nothing",
        serving(change("service_offers.csv", "25,4,1", "-25,4,1")),
        "service offer of flex, interval 0",
        "quantity_kw",
        ">= 0",
    ),
    BrokenCase(
        "service for a negative price",
        serving(change("service_offers.csv", "20,1.5", "20,-1.5")),
        "service offer of pv, interval 0",
        "price_usd_per_mw_h",
        ">= 0",
    ),
    BrokenCase(
        "service without a price",
        serving(change("service_offers.csv", "25,4,1", "25,,1")),
        "service_offers.csv line 5",
        "price_usd_per_mw_h",
        "not be blank",
    ),
    BrokenCase(
        "services without resources",
        also(SERVICES, remove("resources.csv", "availability.csv", "bids.csv")),
        "resources.csv",
        "file",
        "does not exist",
    ),
    BrokenCase(
        "service of a broken resource",
        serving(change("resources.csv", "flex,B", "flex,Z")),
        "resources.csv line 3",
        "bus",
        "is no bus",
    ),
    BrokenCase(
        "requirement of no kind",
        serving(change("requirements.csv", "support,var_up", "support,vars")),
        "requirements.csv line 5",
        "service",
        "must be one of",
    ),
    BrokenCase(
        "requirement nowhere",
        serving(change("requirements.csv", "zone,end", "area,end")),
        "requirements.csv line 5",
        "place",
        "substation, branch, zone",
    ),
    BrokenCase(
        "requirement of a part of the substation",
        serving(change("requirements.csv", "substation,,", "substation,A,")),
        "requirements.csv line 2",
        "element",
        "must be blank",
    ),
    BrokenCase(
        "requirement of no zone",
        serving(change("requirements.csv", "zone,end", "zone,")),
        "requirements.csv line 5",
        "element",
        "must name",
    ),
    BrokenCase(
        "requirement of a zone without zones",
        serving(remove("zones.csv")),
        "requirements.csv line 5",
        "element",
        "is no zone of zones.csv; there are none: add it there",
    ),
    BrokenCase(
        "requirement of a strange zone",
        serving(change("requirements.csv", "zone,end", "zone,End")),
        "requirements.csv line 5",
        "element",
        "it is spelled end",
    ),
    BrokenCase(
        "requirement behind no branch",
        serving(change("requirements.csv", "branch,BC,1", "branch,BD,1")),
        "requirements.csv line 3",
        "element",
        "is no line or transformer",
    ),
    BrokenCase(
        "requirement in a loop",
        serving(append("lines.csv", "CA,C,A,0.5,0.25,,,")),
        "requirements.csv line 3",
        "element",
        "is in a loop",
    ),
    BrokenCase(
        "requirement twice",
        serving(append("requirements.csv", "relief,capacity_down,branch,BC,2,1,500")),
        "requirements.csv line 6",
        "name, interval",
        "above already",
    ),
    BrokenCase(
        "requirement of all and of one",
        serving(append("requirements.csv", "reserve,capacity_up,substation,,1,1,")),
        "requirements.csv line 6",
        "interval",
        "the requirement can have no other row",
    ),
    BrokenCase(
        "requirement at two prices",
        serving(change("requirements.csv", "2,6,500", "2,6,600")),
        "requirements.csv line 4",
        "shortage_usd_per_mw_h",
        "differs from 500.0",
    ),
    BrokenCase(
        "requirement at two places",
        serving(change("requirements.csv", "branch,BC,2", "branch,AB,2")),
        "requirements.csv line 4",
        "element",
        "differs from BC",
    ),
    BrokenCase(
        "requirement of less than nothing",
        serving(change("requirements.csv", "0,7,80", "0,-7,80")),
        "requirement support, interval 0",
        "quantity_kw",
        ">= 0",
    ),
    BrokenCase(
        "shortage for nothing",
        serving(change("requirements.csv", "0,7,80", "0,7,0")),
        "requirement support",
        "shortage_usd_per_mw_h",
        "above zero",
    ),
    BrokenCase(
        "requirement of more than is offered",
        serving(change("requirements.csv", "substation,,,5", "substation,,,26")),
        "requirement reserve, interval 0",
        "quantity_kw",
        "only 25 is offered at substation",
    ),
    BrokenCase(
        "requirement of words",
        serving(change("requirements.csv", "0,7,80", "0,some,80")),
        "requirements.csv line 5",
        "quantity_kw",
        "finite number",
    ),
    BrokenCase(
        "zone of no bus",
        serving(append("zones.csv", "end,D")),
        "zones.csv line 5",
        "bus",
        "is no bus",
    ),
    BrokenCase(
        "zone twice",
        serving(append("zones.csv", "end,B")),
        "zones.csv line 5",
        "zone, bus",
        "above already",
    ),
    BrokenCase(
        "zone without buses",
        serving(write("zones.csv", "zone,bus\nend,\n")),
        "zones.csv line 2",
        "bus",
        "not be blank",
    ),
    # limits.csv
    BrokenCase(
        "limit of nothing", change("limits.csv", "BC,400", "BD,400"), "limits.csv line 2", "element", "is no line"
    ),
    BrokenCase("band of no bus", change("limits.csv", ",,A,", ",,Z,"), "limits.csv line 3", "bus", "is no bus"),
    BrokenCase(
        "limit of both", change("limits.csv", "BC,400,,", "BC,400,A,"), "limits.csv line 2", "element, bus", "either"
    ),
    BrokenCase(
        "limit of no number",
        change("limits.csv", "BC,400", "BC,"),
        "limits.csv line 2",
        "rate_kva, rate_a",
        "one of them",
    ),
    BrokenCase(
        "band of no number",
        change("limits.csv", "A,0.96", "A,"),
        "limits.csv line 3",
        "v_min_pu, v_max_pu",
        "one of them",
    ),
    BrokenCase(
        "limit of zero", change("limits.csv", "BC,400", "BC,0"), "limits.csv line 2", "rate_kva", "must be above zero"
    ),
    BrokenCase("band of a source", change("limits.csv", ",,A,", ",,S,"), "limits.csv line 3", "bus", "source_v_pu"),
    BrokenCase("limit twice", append("limits.csv", "BC,300,,,"), "limits.csv line 4", "element", "above already"),
    BrokenCase("band crosses", change("limits.csv", "0.96", "1.06"), "bus A", "v_min_pu, v_max_pu", "v_min_pu <="),
    # penalties.csv
    BrokenCase(
        "penalty of nothing",
        penalties("current,0,5"),
        "penalties.csv line 2",
        "limit",
        "one of voltage, thermal, unbalance",
    ),
    BrokenCase("penalty of words", penalties("thermal,0,dear"), "penalties.csv line 2", "price", "finite number"),
    BrokenCase("penalty of no tier", penalties("thermal,,5"), "penalties.csv line 2", "beyond", "blank"),
    BrokenCase("penalty from afar", penalties("thermal,0.1,5"), "penalties of thermal", "beyond", "begins at 0"),
    BrokenCase("penalty for nothing", penalties("import,0,0"), "penalties of import", "price", "above zero"),
    BrokenCase(
        "penalty that falls", penalties("voltage,0,9\nvoltage,0.1,8"), "penalties of voltage", "price", "above 9"
    ),
    BrokenCase(
        "penalty twice", penalties("import,0,9\nimport,0,8"), "penalties.csv line 3", "limit, beyond", "above already"
    ),
    BrokenCase(
        "penalty missing", penalties("import,0,9\nimport,5,"), "penalties.csv line 3", "price", "the only row of import"
    ),
]
"""Every broken case."""
