"""A market case: network, horizon, substation prices, load, resources and bids."""

from collections.abc import Collection
from dataclasses import dataclass, field, fields, is_dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar
from zoneinfo import ZoneInfo, available_timezones

import numpy as np
from scipy import sparse

from dlmp.bids import BID_PROFILES, Bids, Resources, check_bids, check_resources, no_resources
from dlmp.blocks import NO_BLOCKS, Blocks, check_blocks
from dlmp.casewriter import write_case
from dlmp.errors import Problems
from dlmp.network.model import ComplexArray, FloatArray, Network, frozen
from dlmp.penalties import DEFAULT_PENALTIES, Penalties
from dlmp.ramps import check_ramps
from dlmp.reactive import NO_REACTIVE_BIDS, REACTIVE_PROFILES, ReactiveBids, check_reactive_bids, no_reactive_bids
from dlmp.services import (
    NO_OFFERS,
    NO_REQUIREMENTS,
    OFFER_PROFILES,
    Requirements,
    ServiceOffers,
    check_service_shapes,
    check_services,
    no_offers,
    no_requirements,
)
from dlmp.stores import NO_STORES, PROFILED, Stores, check_stores, no_stores
from dlmp.units import BASE_KVA, PRICE_REMEDY, is_price

INTERVAL_MINUTES = (1, 5, 10, 15, 30, 60)
MAX_INTERVALS = 10_000
FREE = {
    "substation": ("price_usd_per_mwh", "q_price_usd_per_mvarh"),
    "bids": BID_PROFILES,
    "reactive_bids": REACTIVE_PROFILES,
}
"""Fields in which a case that is like another may differ from it, by part of the case."""


@dataclass(frozen=True)
class Horizon:
    """The intervals of a market: half-open, equally long, generated in UTC.

    Parameters
    ----------
    start
        Start of the first interval, aware, UTC.
    interval_minutes
        Length of an interval [min], one of `INTERVAL_MINUTES`.
    intervals
        Their number.
    timezone
        IANA time zone of the market, for trade dates and display.
    currency
        Currency of every price (ISO 4217).
    """

    start: datetime
    interval_minutes: int
    intervals: int
    timezone: str = "UTC"
    currency: str = "USD"

    @property
    def interval_hours(self) -> float:
        """Length of an interval [h]."""
        return self.interval_minutes / 60.0

    @property
    def starts(self) -> list[datetime]:
        """Start of every interval, UTC."""
        return [self.start + timedelta(minutes=self.interval_minutes * index) for index in range(self.intervals)]

    def local(self, interval: int) -> datetime:
        """Start of `interval` on the market's own clock."""
        return self.starts[interval].astimezone(ZoneInfo(self.timezone))


@dataclass(frozen=True, eq=False)
class Substation:
    """What the upstream grid sells and buys at the source nodes, in total, per interval.

    Parameters
    ----------
    price_usd_per_mwh, q_price_usd_per_mvarh
        (t,) Price of real and of reactive import.
    p_min_kw, p_max_kw
        (t,) or a number: range of the real import [kW]; a negative lower end allows export.  Is (t,) afterwards.
    q_min_kvar, q_max_kvar
        (t,) or a number: range of the reactive import [kvar].  Is (t,) afterwards.
    """

    LIMITS: ClassVar = ("p_min_kw", "p_max_kw", "q_min_kvar", "q_max_kvar")

    price_usd_per_mwh: FloatArray
    q_price_usd_per_mvarh: FloatArray
    p_min_kw: FloatArray = field(default_factory=lambda: np.array(-np.inf))
    p_max_kw: FloatArray = field(default_factory=lambda: np.array(np.inf))
    q_min_kvar: FloatArray = field(default_factory=lambda: np.array(-np.inf))
    q_max_kvar: FloatArray = field(default_factory=lambda: np.array(np.inf))

    def __post_init__(self) -> None:
        for name in ("price_usd_per_mwh", "q_price_usd_per_mvarh"):
            object.__setattr__(self, name, frozen(getattr(self, name)))
        for name in self.LIMITS:
            limit = np.asarray(getattr(self, name), dtype=float)
            by_interval = np.broadcast_to(limit, self.price_usd_per_mwh.shape) if limit.ndim == 0 else limit
            object.__setattr__(self, name, frozen(by_interval))

    def at(self, intervals: slice | list[int]) -> "Substation":
        """The same substation in some of its intervals."""
        return Substation(**{name: value[intervals] for name, value in vars(self).items()})

    @property
    def counts_reactive(self) -> bool:
        """True when reactive import has a price or a limit."""
        has_limit = np.isfinite([self.q_min_kvar, self.q_max_kvar]).any()
        return bool(has_limit or self.q_price_usd_per_mvarh.any())


@dataclass(frozen=True, eq=False)
class MarketCase:
    """Everything that a clearing needs, checked on construction.

    Parameters
    ----------
    name
        What the case is called.
    network, horizon, substation
        Where, when, and what the upstream grid charges.
    load_p_kw, load_q_kvar
        (t, l) Fixed net consumption of every load column of the network [kW], [kvar]: constant power at
        each port, then what the loads that follow their voltage would draw at their nominal one.
    resources, bids
        Who may be dispatched, and at which prices.
    stores
        Resources that hold energy from interval to interval; default: none.
    service_offers, requirements
        What is offered and required beside energy; default: nothing.
    reactive_bids
        Prices of reactive power; default: all of it is free.
    blocks
        Bids over several intervals that are accepted as a whole or not at all; default: none.
    penalties
        What it costs to break a limit, where limits are soft.

    Raises
    ------
    InputError
        With everything that does not fit together.
    """

    name: str
    network: Network
    horizon: Horizon
    substation: Substation
    load_p_kw: FloatArray
    load_q_kvar: FloatArray
    resources: Resources
    bids: Bids
    stores: Stores = NO_STORES
    service_offers: ServiceOffers = NO_OFFERS
    requirements: Requirements = NO_REQUIREMENTS
    reactive_bids: ReactiveBids = NO_REACTIVE_BIDS
    blocks: Blocks = NO_BLOCKS
    penalties: Penalties = DEFAULT_PENALTIES

    def __post_init__(self) -> None:
        if not len(self.stores):
            object.__setattr__(self, "stores", no_stores(self.horizon.intervals))
        if not len(self.service_offers):
            object.__setattr__(self, "service_offers", no_offers(self.horizon.intervals))
        if not len(self.requirements):
            empty = no_requirements(self.horizon.intervals, self.network.port_count)
            object.__setattr__(self, "requirements", empty)
        if not len(self.reactive_bids):
            object.__setattr__(self, "reactive_bids", no_reactive_bids(self.horizon.intervals))
        object.__setattr__(self, "load_p_kw", frozen(self.load_p_kw))
        object.__setattr__(self, "load_q_kvar", frozen(self.load_q_kvar))
        problems = Problems()
        check_horizon(self.horizon, problems)
        problems.raise_if_any()
        check_substation(self.substation, self.horizon.intervals, problems)
        _check_loads(self, problems)
        _check_shapes(self, problems)
        problems.raise_if_any()
        check_resources(self.resources, self.network.port_count, problems)
        check_bids(self.bids, self.resources, problems)
        hours = self.horizon.interval_hours
        check_reactive_bids(self.reactive_bids, self.resources, problems)
        check_stores(self.stores, self.resources, self.bids, hours, problems)
        check_blocks(self.blocks, self.resources, self.stores, self.horizon.intervals, problems)
        check_services(self.service_offers, self.requirements, self.resources, hours, problems)
        if len(self.blocks) and self.bids.price_rise_usd_per_mwh.any():
            remedy = "stands beside block bids, whose choice is made at prices that do not rise along a segment: leave"
            problems.add("bids", "price_end_usd_per_mwh", "given", f"{remedy} it blank")
        problems.raise_if_any()
        check_ramps(self.resources, self.bids, self.stores, self.horizon.interval_minutes, problems)
        problems.raise_if_any()

    @property
    def load_pu(self) -> ComplexArray:
        """(t, p) Constant-power consumption at every port [pu]."""
        ports = self.network.port_count
        load_kva = self.load_p_kw[:, :ports] + 1j * self.load_q_kvar[:, :ports]
        return np.asarray(load_kva / BASE_KVA, dtype=complex)

    @property
    def law_pu(self) -> ComplexArray:
        """(t, w) Nominal consumption of the loads that follow their voltage, one column each [pu]."""
        ports = self.network.port_count
        law_kva = self.load_p_kw[:, ports:] + 1j * self.load_q_kvar[:, ports:]
        return np.asarray(law_kva / BASE_KVA, dtype=complex)

    def at(
        self, intervals: slice, energy_kwh: FloatArray | None = None, power_kw: FloatArray | None = None
    ) -> "MarketCase":
        """The same case in some `intervals` of it alone, which stand one after the other in its horizon then.

        They begin with (k,) `energy_kwh` in the stores [kWh] and with the resources at (r,) `power_kw` [kW], where
        their ramps start; default: as the case does.
        """
        own = range(self.horizon.intervals)[intervals]

        def part(record: Any, *names: str) -> dict[str, Any]:
            return {name: getattr(record, name)[intervals] for name in names}

        return replace(
            self,
            horizon=replace(self.horizon, start=self.horizon.starts[own.start], intervals=len(own)),
            substation=self.substation.at(intervals),
            **part(self, "load_p_kw", "load_q_kvar"),
            resources=replace(
                self.resources,
                **part(self.resources, "p_max_kw"),
                p_initial_kw=self.resources.p_initial_kw if power_kw is None else power_kw,
            ),
            bids=replace(self.bids, **part(self.bids, *BID_PROFILES)),
            stores=replace(
                self.stores,
                **part(self.stores, *PROFILED),
                initial_kwh=self.stores.initial_kwh if energy_kwh is None else energy_kwh,
            ),
            reactive_bids=replace(self.reactive_bids, **part(self.reactive_bids, *REACTIVE_PROFILES)),
            service_offers=replace(self.service_offers, **part(self.service_offers, *OFFER_PROFILES)),
            requirements=replace(self.requirements, **part(self.requirements, "quantity_kw")),
        )

    def is_like(self, other: "MarketCase") -> bool:
        """Whether it differs from another case in name, loads, prices at the substation and what is bid alone.

        Bids are of the same segments, real and reactive, of the same resources then, in other quantities and at other
        prices.
        """
        if self.substation.counts_reactive != other.substation.counts_reactive:
            return False
        names = {item.name for item in fields(self)} - {"name", "load_p_kw", "load_q_kvar"}
        return all(_is_same(getattr(self, name), getattr(other, name), FREE.get(name, ())) for name in names)

    def write(self, folder: Path | str) -> None:
        """Write the case into a new folder that `dlmp.read_case` gives back; see `dlmp.casewriter.write_case`."""
        write_case(self, folder)


def _is_same(one: Any, other: Any, free: Collection[str] = ()) -> bool:
    """Whether two parts of cases are the same but for their `free` fields."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    if sparse.issparse(one):
        return one.shape == other.shape and not (one != other).nnz
    if is_dataclass(one):
        names = [item.name for item in fields(one) if item.name not in free]
        return all(_is_same(getattr(one, name), getattr(other, name)) for name in names)
    return bool(one == other)


def simple_case(
    network: Network,
    price_usd_per_mwh: float | FloatArray,
    *,
    name: str | None = None,
    resources: Resources | None = None,
    bids: Bids | None = None,
) -> MarketCase:
    """Make a case of hourly intervals with the network's own loads, one interval per price.

    Parameters
    ----------
    network
        The feeder.
    price_usd_per_mwh
        (t,) or a number: import price of each hour.
    name
        What the case is called; default: the network's name.
    resources, bids
        Who bids what; default: nobody.
    """
    price = np.atleast_1d(np.asarray(price_usd_per_mwh, dtype=float))
    if resources is None or bids is None:
        resources, bids = no_resources(len(price), network.port_count)
    p_kw, q_kvar = network.element_loads()
    return MarketCase(
        name=name or network.name,
        network=network,
        horizon=Horizon(datetime(2026, 1, 1, tzinfo=UTC), 60, len(price)),
        substation=Substation(price, np.zeros(len(price))),
        load_p_kw=np.tile(p_kw, (len(price), 1)),
        load_q_kvar=np.tile(q_kvar, (len(price), 1)),
        resources=resources,
        bids=bids,
    )


def check_horizon(horizon: Horizon, problems: Problems) -> None:
    """Add to `problems` everything that is wrong with `horizon`."""
    if horizon.start.utcoffset() != timedelta(0):
        problems.add("horizon", "start", horizon.start.isoformat(), "must be in UTC, such as 2026-07-01T07:00:00Z")
    if horizon.interval_minutes not in INTERVAL_MINUTES:
        problems.add("horizon", "interval_minutes", horizon.interval_minutes, f"must be one of {INTERVAL_MINUTES}")
    if not 1 <= horizon.intervals <= MAX_INTERVALS:
        problems.add("horizon", "intervals", horizon.intervals, f"must be 1 to {MAX_INTERVALS}")
    if horizon.timezone not in available_timezones():
        problems.add("horizon", "timezone", horizon.timezone, "must be an IANA time zone such as America/Los_Angeles")
    if not (len(horizon.currency) == 3 and horizon.currency.isalpha() and horizon.currency.isupper()):
        problems.add("horizon", "currency", horizon.currency, "must be an ISO 4217 code such as USD")


def check_substation(substation: Substation, intervals: int, problems: Problems) -> None:
    """Add to `problems` everything that is wrong with `substation` over a number of `intervals`."""
    for item in ("price_usd_per_mwh", "q_price_usd_per_mvarh"):
        value = getattr(substation, item)
        if value.shape != (intervals,):
            problems.add("substation", item, f"{value.size} values", f"one per interval is needed: {intervals}")
        for interval in np.flatnonzero(~is_price(value)):
            problems.add(f"substation, interval {interval}", item, float(value[interval]), PRICE_REMEDY)
    _check_import_limits(substation, intervals, problems)


def _check_import_limits(substation: Substation, intervals: int, problems: Problems) -> None:
    for low, high in (Substation.LIMITS[:2], Substation.LIMITS[2:]):
        sizes = [(name, getattr(substation, name).shape) for name in (low, high)]
        for name, shape in sizes:
            if shape != (intervals,):
                problems.add("import", name, f"shape {shape}", f"must be a number, or one per interval: {intervals}")
        if sizes != [(low, (intervals,)), (high, (intervals,))]:
            continue
        bands = np.column_stack([getattr(substation, low), getattr(substation, high)])
        bad = np.flatnonzero(~(bands[:, 0] <= bands[:, 1]))
        is_steady = np.array_equal(bands, np.broadcast_to(bands[:1], bands.shape), equal_nan=True)
        for interval in bad[:1] if is_steady else bad:
            where = "import" if is_steady else f"import, interval {interval}"
            problems.add(where, f"{low}, {high}", tuple(bands[interval].tolist()), f"need {low} <= {high}")


def _check_loads(case: MarketCase, problems: Problems) -> None:
    network = case.network
    shape = (case.horizon.intervals, len(network.load_port))
    for item in ("load_p_kw", "load_q_kvar"):
        value = getattr(case, item)
        if value.shape != shape:
            problems.add("load", item, f"shape {value.shape}", f"must be intervals x load columns = {shape}")
            continue
        for interval, column in np.argwhere(~np.isfinite(value))[:20]:
            bus = network.port_bus[network.load_port[column]]
            problems.add(
                f"load at bus {bus}, interval {interval}", item, float(value[interval, column]), "must be finite"
            )


def _check_shapes(case: MarketCase, problems: Problems) -> None:
    intervals = case.horizon.intervals
    for owner, item, value, columns in (
        ("resources", "p_max_kw", case.resources.p_max_kw, len(case.resources)),
        ("bids", "quantity_kw", case.bids.quantity_kw, len(case.bids)),
        ("bids", "price_usd_per_mwh", case.bids.price_usd_per_mwh, len(case.bids)),
        ("bids", "price_rise_usd_per_mwh", case.bids.price_rise_usd_per_mwh, len(case.bids)),
        ("bids", "is_self_scheduled", case.bids.is_self_scheduled, len(case.bids)),
        *(
            ("reactive bids", name, getattr(case.reactive_bids, name), len(case.reactive_bids))
            for name in ("quantity_kvar", "price_usd_per_mvarh", "price_rise_usd_per_mvarh")
        ),
        *(("stores", name, getattr(case.stores, name), len(case.stores)) for name in PROFILED),
    ):
        if value.shape != (intervals, columns):
            problems.add(owner, item, f"shape {value.shape}", f"must be {(intervals, columns)}")
    check_service_shapes(case.service_offers, case.requirements, intervals, case.network.port_count, problems)
    outside = (case.bids.resource < 0) | (case.bids.resource >= len(case.resources))
    for column in np.flatnonzero(outside):
        problems.add(f"bid segment {column}", "resource", int(case.bids.resource[column]), "is no resource of the case")
