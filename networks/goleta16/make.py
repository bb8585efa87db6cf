"""The tables of ``goleta16`` and ``goleta16_spring``: a 16 kV feeder that is invented, from a seed.

``python networks/goleta16/make.py`` writes them again, the same bytes every time; `SOURCE.md` says what is meant.
Only the random numbers of Python's own generator are drawn, whose sequence is the same in every version.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import cos, pi, sin
from pathlib import Path
from random import Random

SEED = 16
HOURS = range(24)
KV = 16.0
TRUNK_SECTIONS = 14
TRUNK_A = 400
LATERAL_A = 230
TRUNK_OHM_PER_KM = (0.119, 0.332)
"""Resistance and reactance of 556.5 kcmil aluminium at 50 degrees and the spacing of a 16 kV pole line, rounded."""
LATERAL_OHM_PER_KM = (0.55, 0.44)
"""Of 1/0 aluminium."""
TRANSFORMER_OHM = (0.08, 1.22)
"""Of 16.8 MVA with 8 % of reactance, at 16 kV."""
CABLE_OHM, CABLE_A = (0.012, 0.015), 600
"""Out of the substation, to the first pole."""
AWAY = {"a": pi / 2, "b": -pi / 2}
"""Laterals to the hills and to the sea, from the direction of the trunk [rad]."""
CAPACITORS_KVAR = {"4": 600, "8": 900, "12": 600}

Row = Sequence[object]


@dataclass(frozen=True)
class Season:
    """What differs between the two days, by hour.

    Parameters
    ----------
    folder
        Where its tables go.
    price, load, sun
        Price at the substation [USD/MWh], load over the peak of summer, sun over the panels' rating.
    """

    folder: str
    price: tuple[float, ...]
    load: tuple[float, ...]
    sun: tuple[float, ...]


SUMMER = Season(
    "goleta16",
    price=(41.2, 38.9, 37.4, 36.8, 37.5, 40.6, 44.3, 43.1, 38.2, 33.9, 31.4, 30.6,
           31.8, 34.7, 39.5, 46.8, 58.4, 79.6, 112.3, 128.7, 104.2, 76.5, 57.9, 46.4),
    load=(0.55, 0.51, 0.49, 0.48, 0.49, 0.53, 0.60, 0.66, 0.70, 0.73, 0.76, 0.79,
          0.81, 0.83, 0.86, 0.90, 0.95, 0.99, 1.00, 0.99, 0.95, 0.86, 0.73, 0.62),
    sun=(0, 0, 0, 0, 0, 0, 0.02, 0.08, 0.18, 0.36, 0.60, 0.76,
         0.83, 0.82, 0.75, 0.63, 0.47, 0.29, 0.12, 0.03, 0, 0, 0, 0),
)  # fmt: skip
SPRING = Season(
    "goleta16_spring",
    price=(34.6, 33.1, 32.2, 32.0, 33.4, 37.2, 39.8, 27.5, 9.3, -4.2, -13.6, -18.9,
           -21.7, -20.4, -16.1, -7.8, 6.4, 31.2, 62.7, 81.9, 74.3, 55.6, 43.8, 37.9),
    load=(0.41, 0.38, 0.37, 0.37, 0.38, 0.42, 0.48, 0.51, 0.50, 0.48, 0.46, 0.45,
          0.44, 0.44, 0.45, 0.47, 0.52, 0.60, 0.68, 0.74, 0.71, 0.63, 0.54, 0.46),
    sun=(0, 0, 0, 0, 0, 0, 0.04, 0.17, 0.37, 0.58, 0.75, 0.86,
         0.90, 0.88, 0.80, 0.66, 0.47, 0.26, 0.08, 0, 0, 0, 0, 0),
)  # fmt: skip


@dataclass(frozen=True)
class Feeder:
    """Buses and lines as rows, and the buses that have load."""

    nodes: list[Row]
    lines: list[Row]
    loaded: list[str]


def feeder(draw: Random) -> Feeder:
    """A trunk of `TRUNK_SECTIONS` with two laterals at most of its buses, some of which fork."""
    nodes: list[Row] = [
        ("66 kV", 66, "", "", "", 1, -0.8, 0),
        ("16 kV", KV, "", "", "", 0, -0.4, 0),
        ("0", KV, "", "", "", 0, 0, 0),
    ]
    places = {"0": (0.0, 0.0)}
    lines: list[Row] = [
        ("transformer", "66 kV", "16 kV", *TRANSFORMER_OHM, 16800, "", "transformer", 0.965),
        ("cable", "16 kV", "0", *CABLE_OHM, "", CABLE_A, "line", ""),
    ]
    loaded: list[str] = []

    def add(
        bus: str, parent: str, kind: str, km: float, ohm_per_km: Sequence[float], rate_a: int, heading: float
    ) -> None:
        r_ohm, x_ohm = (round(km * value, 4) for value in ohm_per_km)
        lines.append((f"{kind} {parent}-{bus}", parent, bus, r_ohm, x_ohm, "", rate_a, "line", ""))
        p_kw = 0.0 if kind == "trunk" else round(between(draw, 56, 148))
        q_kvar = round(p_kw * between(draw, 0.24, 0.36))
        b_us = round(CAPACITORS_KVAR[bus] * 1000 / KV**2, 1) if bus in CAPACITORS_KVAR else ""
        x, y = places[parent]
        places[bus] = x + km * cos(heading), y + km * sin(heading)
        nodes.append((bus, KV, p_kw, q_kvar, b_us, 0, *(round(value, 3) for value in places[bus])))
        if p_kw:
            loaded.append(bus)

    for section in range(1, TRUNK_SECTIONS + 1):
        km = between(draw, 0.3, 0.7)
        add(str(section), str(section - 1), "trunk", km, TRUNK_OHM_PER_KM, TRUNK_A, along_coast(section))
    for section in range(1, TRUNK_SECTIONS + 1):
        for side in "ab":
            parent, length = str(section), 3 + int(draw.random() * 3)
            for step in range(1, length + 1):
                bus = f"{section}{side}{step}"
                km = between(draw, 0.15, 0.6)
                add(bus, parent, "line", km, LATERAL_OHM_PER_KM, LATERAL_A, along_coast(section) + AWAY[side])
                parent = bus
    return Feeder(nodes, lines, loaded)


def along_coast(section: int) -> float:
    """Direction of the trunk at a section, counted from east to north [rad]."""
    return 0.3 * sin(section / 3)


def between(draw: Random, low: float, high: float) -> float:
    """A number drawn between two."""
    return low + (high - low) * draw.random()


@dataclass(frozen=True)
class Resource:
    """A resource with its ranges, and its bids or its store.

    Parameters
    ----------
    name, bus, kind, participant
        As in ``resources.csv``.
    p_min_kw, p_max_kw, q_kvar
        Range of its real injection, and how far the reactive one may go either way.
    power_factor_min
        As in ``resources.csv``, blank where there is none.
    bids
        Supply segments: quantity [kW] and price [USD/MWh].
    store
        Row of ``stores.csv`` after the name.
    by_interval
        Rows of ``store_profile.csv`` after the name.
    """

    name: str
    bus: str
    kind: str
    participant: str
    p_min_kw: float
    p_max_kw: float
    q_kvar: float = 0
    power_factor_min: object = ""
    bids: tuple[tuple[float, float], ...] = ()
    store: Row = ()
    by_interval: tuple[Row, ...] = ()


def resources(draw: Random, loaded: Sequence[str]) -> list[Resource]:
    """Everyone who may be dispatched, each at a bus of its own."""
    places = list(loaded)
    for last in range(len(places) - 1, 0, -1):
        other = int(draw.random() * (last + 1))
        places[last], places[other] = places[other], places[last]
    free = iter(places)
    return [
        *(solar(draw, next(free), owner) for owner in ("Mesa roofs", "Bluffs roofs") for _ in range(13)),
        *(battery(draw, next(free), owner) for owner in ("Lagoon batteries", "Old Town batteries") for _ in range(7)),
        *(cars(draw, next(free), "Shoreline cars") for _ in range(8)),
        *(vans(draw, next(free), "Depot vans") for _ in range(4)),
        *(response(draw, next(free), owner) for owner in ("Campus response", "Grove response") for _ in range(8)),
        generator("biogas", next(free), 900, (600, 71.3), (300, 88.6)),
        generator("fuel cell", next(free), 700, (400, 94.1), (300, 102.8)),
        generator("hospital engine", next(free), 600, (600, 163.5)),
    ]


def solar(draw: Random, bus: str, owner: str) -> Resource:
    """Roofs of a street behind one aggregator; what they lose with their credit is their (negative) price."""
    kw = 10 * round(between(draw, 32, 50))
    price = round(between(draw, -16, -1), 2)
    return Resource(f"solar {bus}", bus, "solar", owner, 0, kw, round(0.4 * kw), 0.95, ((kw, price),))


def battery(draw: Random, bus: str, owner: str) -> Resource:
    """A community battery of four hours, a quarter full at both midnights."""
    kw = 50 * round(between(draw, 5, 9))
    kwh, cycling = 4 * kw, round(between(draw, 9, 15), 2)
    least_kwh, midnight_kwh = round(0.05 * kwh), round(0.25 * kwh)
    store = (kw, kw, least_kwh, kwh, midnight_kwh, 0.95, 0.95, 1, 0, cycling, "")
    return Resource(
        f"battery {bus}", bus, "storage", owner, -kw, kw, round(0.15 * kw), store=store,
        by_interval=((23, "", "", midnight_kwh, ""),),
    )  # fmt: skip


def cars(draw: Random, bus: str, owner: str) -> Resource:
    """Cars of a neighbourhood: away from 07:00, back from 17:00, nearly full before they leave."""
    count = round(between(draw, 22, 36))
    kw, kwh, trip_kwh = 6 * count, 60 * count, 13 * count
    return fleet(f"cars {bus}", bus, owner, kw, kwh, trip_kwh, away=range(7, 17), at_midnight=0.8, at_start=0.85)


def vans(draw: Random, bus: str, owner: str) -> Resource:
    """Vans of a depot: away from 06:00, back from 16:00, full before they leave."""
    count = round(between(draw, 16, 24))
    kw, kwh, trip_kwh = 11 * count, 75 * count, 36 * count
    return fleet(f"vans {bus}", bus, owner, kw, kwh, trip_kwh, away=range(6, 16), at_midnight=0.85, at_start=0.95)


def fleet(
    name: str, bus: str, owner: str, kw: float, kwh: float, trip_kwh: float, away: range, at_midnight: float,
    at_start: float,
) -> Resource:  # fmt: skip
    """A fleet as one store, which drives as much in every hour that it is away."""
    store = (kw, 0, round(0.1 * kwh), kwh, round(at_midnight * kwh), 0.92, 1, 1, 0, 0, "")
    rows: list[Row] = [(away[0] - 1, "", "", round(at_start * kwh), "")]
    rows += [(hour, 0, 0, "", round(trip_kwh / len(away), 1)) for hour in away]
    rows.append((23, "", "", round(at_midnight * kwh), ""))
    return Resource(name, bus, "ev", owner, -kw, 0, store=store, by_interval=tuple(rows))


def response(draw: Random, bus: str, owner: str) -> Resource:
    """Load that is not drawn when that is paid for, in two steps; it is offered as a reduction, which is a supply."""
    easy, hard = 10 * round(between(draw, 4, 7)), 10 * round(between(draw, 3, 6))
    prices = round(between(draw, 118, 175), 2), round(between(draw, 240, 390), 2)
    return Resource(
        f"response {bus}", bus, "demand_response", owner, 0, easy + hard,
        bids=tuple(zip((easy, hard), prices, strict=True)),
    )  # fmt: skip


def generator(what: str, bus: str, kw: float, *bids: tuple[float, float]) -> Resource:
    """A plant under its own name."""
    return Resource(f"{what} {bus}", bus, "generator", f"{what} {bus}", 0, kw, round(0.5 * kw), bids=bids)


Table = tuple[str, Iterable[Row]]


def tables(season: Season) -> dict[str, Table]:
    """Header and rows of every table of a day."""
    draw = Random(SEED)
    net = feeder(draw)
    offered = resources(draw, net.loaded)
    suns = [one for one in offered if one.kind == "solar"]
    return {
        "nodes.csv": ("bus,base_kv,p_kw,q_kvar,b_us,is_source,x,y", net.nodes),
        "lines.csv": ("line,from_bus,to_bus,r_ohm,x_ohm,rate_kva,rate_a,kind,tap_ratio", net.lines),
        "import_prices.csv": ("interval,price_usd_per_mwh,q_price_usd_per_mvarh", [
            (hour, season.price[hour], 2) for hour in HOURS
        ]),
        "load_profile.csv": ("interval,scale", [(hour, season.load[hour]) for hour in HOURS]),
        "resources.csv": ("resource,bus,kind,p_min_kw,p_max_kw,q_min_kvar,q_max_kvar,power_factor_min,participant", [
            (one.name, one.bus, one.kind, one.p_min_kw, one.p_max_kw, -one.q_kvar, one.q_kvar, one.power_factor_min,
             one.participant)
            for one in offered
        ]),
        "availability.csv": ("resource,interval,p_max_kw", [
            (one.name, hour, round(one.p_max_kw * season.sun[hour], 1)) for one in suns for hour in HOURS
        ]),
        "bids.csv": ("resource,interval,side,segment,quantity_kw,price_usd_per_mwh", [
            (one.name, "", "supply", segment, kw, price)
            for one in offered for segment, (kw, price) in enumerate(one.bids)
        ]),
        "stores.csv": (
            "resource,charge_max_kw,discharge_max_kw,energy_min_kwh,energy_max_kwh,initial_kwh,charge_efficiency,"
            "discharge_efficiency,retention,drain_kw,cycling_usd_per_mwh,shortfall_usd_per_mwh",
            [(one.name, *one.store) for one in offered if one.store],
        ),
        "store_profile.csv": ("resource,interval,charge_max_kw,discharge_max_kw,energy_min_kwh,drain_kw", [
            (one.name, *row) for one in offered for row in one.by_interval
        ]),
    }  # fmt: skip


def write(networks: Path) -> None:
    """Write the tables of both days into their folders below `networks`."""
    for season in (SUMMER, SPRING):
        for name, (header, rows) in tables(season).items():
            with (networks / season.folder / name).open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(header.split(","))
                writer.writerows(rows)


if __name__ == "__main__":
    write(Path(__file__).parents[1])
