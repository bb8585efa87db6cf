"""Market cases with resources that hold energy, on which the engine is compared with the AC oracle of `acopf.py`.

`STORE_CASES` maps a name to a function that builds the case; `STORE_BINDING` maps it to the limits that hold it at
the optimum.  Every store loses energy on its way in and out, or is moved one way only, and no two intervals have the
same price and load: together with the losses of the feeder that makes dispatch and prices unique.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from cases import Offer, feeder33, generators33, market, rated, resource
from numpy.typing import ArrayLike
from scipy import sparse

from dlmp.bids import Resources, at_ports
from dlmp.market import MarketCase
from dlmp.network.model import FloatArray
from dlmp.stores import Stores

STORE_CASES: dict[str, Callable[[], MarketCase]] = {}
"""Every case by name; a case is built once."""

STORE_BINDING: dict[str, set[str]] = {}
"""Limits that bind: those of `cases.BINDING`; ``full`` and ``low`` (the band of energy), ``power`` and ``short``."""


@dataclass(frozen=True)
class Store:
    """One resource with a store, as `with_stores` enters it: numbers, or one per interval where `ArrayLike`.

    Parameters
    ----------
    name, bus, kind
        As of any resource.
    charge_kw, discharge_kw
        Largest power from and into the grid [kW].
    energy_kwh, least_kwh
        Upper and lower end of the band of energy [kWh].
    initial_kwh
        Energy at the beginning [kWh].
    efficiency
        Of charging and of discharging.
    retention, drain_kw
        Share of the energy left after an hour, and power that leaves for its own use [kW].
    cycling, shortfall, final
        Cost of discharging, of missing energy, and worth of the energy left [currency/MWh].
    q_kvar, s_max_kva
        Range of the reactive injection [kvar], and rating [kVA].
    """

    name: str
    bus: str | int
    charge_kw: ArrayLike
    energy_kwh: ArrayLike
    kind: str = "storage"
    discharge_kw: ArrayLike = 0.0
    least_kwh: ArrayLike = 0.0
    initial_kwh: float = 0.0
    efficiency: tuple[float, float] = (1.0, 1.0)
    retention: float = 1.0
    drain_kw: ArrayLike = 0.0
    cycling: float = 0.0
    shortfall: float = np.inf
    final: float = 0.0
    q_kvar: tuple[float, float] = (0.0, 0.0)
    s_max_kva: float = np.inf


def with_stores(case: MarketCase, *stores: Store) -> MarketCase:
    """The same case with further resources, one for each of `stores`."""
    own, intervals, ports = case.resources, case.horizon.intervals, case.network.port_count

    def by_interval(field: str) -> FloatArray:
        return np.array([np.broadcast_to(getattr(store, field), intervals) for store in stores], dtype=float).T

    def each(field: str) -> FloatArray:
        return np.array([getattr(store, field) for store in stores], dtype=float)

    charge, discharge = by_interval("charge_kw"), by_interval("discharge_kw")
    place = at_ports([case.network.node(str(store.bus)) for store in stores], ports)
    q_kvar, efficiency = each("q_kvar"), each("efficiency")
    resources = Resources(
        name=np.r_[own.name, [store.name for store in stores]],
        kind=np.r_[own.kind, [store.kind for store in stores]],
        share=sparse.csr_array(sparse.vstack([own.share, place])),
        p_min_kw=np.r_[own.p_min_kw, -charge.max(axis=0)],
        p_max_kw=np.hstack([own.p_max_kw, discharge]),
        q_min_kvar=np.r_[own.q_min_kvar, q_kvar[:, 0]],
        q_max_kvar=np.r_[own.q_max_kvar, q_kvar[:, 1]],
        s_max_kva=np.r_[own.s_max_kva, each("s_max_kva")],
    )
    held = Stores(
        resource=len(own) + np.arange(len(stores)),
        charge_max_kw=charge,
        discharge_max_kw=discharge,
        energy_min_kwh=by_interval("least_kwh"),
        energy_max_kwh=by_interval("energy_kwh"),
        initial_kwh=each("initial_kwh"),
        charge_efficiency=efficiency[:, 0],
        discharge_efficiency=efficiency[:, 1],
        retention=each("retention"),
        drain_kw=by_interval("drain_kw"),
        cycling_usd_per_mwh=each("cycling"),
        shortfall_usd_per_mwh=each("shortfall"),
        final_usd_per_mwh=each("final"),
    )
    return replace(case, resources=resources, stores=held)


def case(*binding: str) -> Callable[[Callable[[], MarketCase]], Callable[[], MarketCase]]:
    """Enter the decorated builder into `STORE_CASES` under its own name."""

    def enter(build: Callable[[], MarketCase]) -> Callable[[], MarketCase]:
        name = build.__name__
        STORE_CASES[name] = cache(lambda: replace(build(), name=name))
        STORE_BINDING[name] = set(binding)
        return build

    return enter


def quarter_hours(hourly: MarketCase) -> MarketCase:
    """The same intervals, a quarter of an hour long."""
    return replace(hourly, horizon=replace(hourly.horizon, interval_minutes=15))


def battery(bus: int, **fields: object) -> Store:
    """1.6 MWh behind 400 kW, of which a round trip loses a tenth."""
    plain = Store(
        *(f"battery {bus}", bus),
        charge_kw=400.0,
        discharge_kw=400.0,
        energy_kwh=1600.0,
        initial_kwh=500.0,
        efficiency=(0.95, 0.95),
        retention=0.999,
        cycling=3.0,
        final=21.0,
    )
    return replace(plain, **fields)


SIX_PRICES = np.array([19.0, 15.0, 24.0, 37.0, 52.0, 33.0])
SIX_LOADS = np.array([0.62, 0.55, 0.74, 0.93, 1.06, 0.88])


@case("full", "low", "power")
def arbitrage_33() -> MarketCase:
    """Bought in the first two hours, sold in the dearest."""
    plain = market(feeder33(), SIX_PRICES, *generators33(), load=SIX_LOADS)
    return with_stores(plain, battery(17, energy_kwh=1200.0), battery(24, final=0.0))


@case("branch", "low", "power")
def relief_33() -> MarketCase:
    """A battery behind an overloaded line spares dear generators there."""
    network = rated(feeder33(), "line 2", ampere=80.0)
    plain = market(network, SIX_PRICES, *generators33(), load=SIX_LOADS)
    return with_stores(plain, battery(9, charge_kw=300.0, discharge_kw=300.0))


@case("v_min", "full", "rating")
def undervoltage_store_33() -> MarketCase:
    """Its inverter holds up the voltage with real and with reactive power."""
    plain = market(feeder33(v_min_pu=0.945), SIX_PRICES, *generators33(), load=SIX_LOADS)
    return with_stores(plain, battery(30, q_kvar=(-150.0, 250.0), s_max_kva=380.0, final=45.0))


@case("v_min", "low", "power", "short")
def cars_33() -> MarketCase:
    """Six hours in quarters: two fleets leave with what they need, the third with less, for that is cheaper."""
    t = np.arange(24)
    price = 27.0 + 14.0 * np.sin(0.31 * t + 0.4) + 0.17 * t
    load = 0.85 + 0.22 * np.sin(0.27 * t)

    def fleet(bus: int, power_kw: float, leaves: int, need_kwh: float, **fields: object) -> Store:
        """Cars at their charge points until interval `leaves`, the last in which they charge."""
        return Store(
            *(f"cars {bus}", bus),
            kind="ev",
            charge_kw=np.where(t <= leaves, power_kw, 0.0),
            energy_kwh=1.5 * need_kwh,
            least_kwh=np.where(t == leaves, need_kwh, 0.0),
            initial_kwh=0.2 * need_kwh,
            efficiency=(0.92, 1.0),
            **fields,
        )

    return with_stores(
        quarter_hours(market(feeder33(v_min_pu=0.905), price, *generators33(), load=load)),
        fleet(31, 300.0, 17, 700.0),
        fleet(21, 250.0, 9, 330.0),
        fleet(15, 200.0, 12, 450.0, shortfall=31.0),
    )


@case("full", "low", "power", "short")
def heat_33() -> MarketCase:
    """Buildings that are warmed ahead of the dear hours and cool down meanwhile, one at a price for being too cold."""
    warmth = Store(
        *("heat 28", 28),
        kind="demand_response",
        charge_kw=350.0,
        energy_kwh=900.0,
        least_kwh=300.0,
        initial_kwh=450.0,
        retention=0.9,
        drain_kw=[60.0, 80.0, 110.0, 90.0, 70.0, 65.0],
        final=18.0,
    )
    colder = replace(warmth, name="heat 12", bus=12, shortfall=6.0, energy_kwh=500.0, final=9.0)
    plain = market(feeder33(), SIX_PRICES, *generators33(), load=SIX_LOADS)
    return with_stores(plain, warmth, colder)


def roofs33(sun: FloatArray) -> list[Offer]:
    """Solar power that follows `sun`, with inverters a tenth larger."""
    return [
        resource(
            *(f"solar {bus}", bus),
            kind="solar",
            supply=[(kw, price)],
            available_kw=kw * sun,
            q_kvar=(-0.3 * kw, 0.3 * kw),
            s_max_kva=1.1 * kw,
        )
        for bus, kw, price in ((17, 1100.0, -1.0), (32, 1900.0, 0.0))
    ]


@case("v_max", "low", "full", "power")
def day_with_stores_33() -> MarketCase:
    """A day of sun, a battery that carries it into the evening, cars that charge at noon, and warm water."""
    t = np.arange(24)
    sun = np.clip(np.sin(np.pi * (t - 5.6) / 13.1), 0.0, None)
    price = 24.0 + 9.0 * np.exp(-(((t - 7.7) / 1.6) ** 2)) + 26.0 * np.exp(-(((t - 19.3) / 2.1) ** 2)) + 0.07 * t
    load = 0.5 + 0.2 * np.exp(-(((t - 8.0) / 2.0) ** 2)) + 0.55 * np.exp(-(((t - 19.4) / 2.6) ** 2)) + 0.001 * t
    at_work = (t >= 8) & (t <= 16)
    return with_stores(
        market(feeder33(v_max_pu=1.02), price, *roofs33(sun), *generators33(), load=load),
        battery(32, charge_kw=500.0, discharge_kw=450.0, energy_kwh=2000.0),
        Store(
            *("cars 24", 24),
            kind="ev",
            charge_kw=np.where(at_work, 400.0, 0.0),
            discharge_kw=np.where(at_work, 150.0, 0.0),
            energy_kwh=1500.0,
            least_kwh=np.where(t == 16, 1250.0, 0.0),
            initial_kwh=300.0,
            efficiency=(0.93, 0.94),
            cycling=9.0,
            final=5.0,
        ),
        Store(
            *("water 13", 13),
            kind="demand_response",
            charge_kw=220.0,
            energy_kwh=800.0,
            least_kwh=150.0,
            initial_kwh=400.0,
            retention=0.985,
            drain_kw=70.0 + 40.0 * np.cos(2 * np.pi * (t - 18) / 24),
            final=20.0,
        ),
    )
