"""The day itself: everything is registered, bids come in together, the gate closes, and the market is cleared."""

import csv
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from dlmp.casefolder import read_case
from dlmp.client import Bid, Client, Market, Receipt, Resource, ServiceError
from dlmp.client.bids import AnyBid
from dlmp.client.tables import TIME_FORMAT
from dlmp.errors import SolverError
from dlmp.market import MarketCase
from dlmp.network.model import BALANCED_PHASE
from dlmp.shipped import shipped_case
from dlmp.simulation.casebids import case_participants
from dlmp.simulation.portfolio import Aggregator, portfolios

ADDED_SHARE = 0.5
"""Size of what is added to a feeder's own resources, as a share of its largest load."""
LARGEST_BATCH = 100
Show = Callable[[str], None]


@dataclass(frozen=True)
class Stage:
    """A step of the day, how long it took [s], and what came of it."""

    name: str
    seconds: float
    told: str


@dataclass
class Day:
    """What a simulated day gave."""

    market: Market
    prices: pd.DataFrame
    awards: pd.DataFrame
    statements: pd.DataFrame
    participants: Mapping[str, str]
    owners: Mapping[str, str]
    offered_kwh: Mapping[str, float]
    stages: list[Stage]


@dataclass
class _Clock:
    """Times the steps."""

    show: Show
    stages: list[Stage] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[list[str]]:
        """Time a step; what it appends to the list is told."""
        told: list[str] = []
        self.show(name)
        began = time.perf_counter()
        yield told
        self.stages.append(Stage(name, time.perf_counter() - began, ", ".join(told)))


@dataclass(frozen=True)
class _Registered:
    """Market, and per aggregator its key and resources."""

    market: Market
    keys: Mapping[str, str]
    resources: Mapping[str, Resource]
    participants: Mapping[str, str]


def simulate_day(url: str, key: str, feeder: str, aggregators: int | None, seed: int, show: Show) -> Day:
    """Run a market day through a service.

    Parameters
    ----------
    url, key
        Of the service, and an operator's key.
    feeder
        Name of a shipped case.
    aggregators, seed
        How many bid, with the feeder's resources and others; of the random numbers.  None: the participants of the
        case bid what they bid there.
    show
        Called with what is being done.

    Raises
    ------
    SolverError
        When the market does not clear.
    """
    clock, folder = _Clock(show), shipped_case(feeder)
    case = read_case(folder)
    places = list(dict.fromkeys(_places(case)))
    size_kw = ADDED_SHARE * float(case.load_p_kw.sum(axis=1).max())
    rows = _rows(folder / "resources.csv")
    if aggregators is None:
        bidders = case_participants(case, rows)
    else:
        bidders = portfolios(rows, places, size_kw, aggregators, seed)
    with Client(url, key) as operator:
        with clock.stage("register") as told:
            found = _register(operator, feeder, _market_of(folder, case), bidders)
            told.append(f"feeder {feeder}, {len(bidders)} aggregators and keys, {len(found.resources)} resources")
        with clock.stage("bid") as told:
            receipts, offered_kwh = _bid(url, found, bidders)
            count = sum(len(receipt.bid_ids) for receipt in receipts)
            told.append(f"{count} bids in {len(receipts)} requests from {len(bidders)} clients at once")
        with clock.stage("close the gate") as told:
            told.append(f"market {operator.close_gate(found.market.id).state}")
        with clock.stage("clear") as told:
            run = operator.run(found.market.id, lambda run: show(f"clear: {run.progress['text']}"))
            if run.state != "succeeded" or run.summary is None:
                raise SolverError(f"the run {run.state}: {run.reason}")
            told.append(f"run {run.state}, total cost {run.summary['objective']:,.2f} {found.market.currency}")
        with clock.stage("publish") as told:
            told.append(f"price version {operator.publish(found.market.id).price_version}")
        with clock.stage("settle") as told:
            run = operator.settle(found.market.id)
            if run.state != "succeeded":
                raise SolverError(f"the settlement {run.state}: {run.reason}")
            market = operator.market(found.market.id)
            told.append(f"market {market.state}")
        with clock.stage("read") as told:
            tables = operator.prices(market.id), operator.awards(market.id), operator.statements(market.id)
            told.append(", ".join(f"{len(table):,} rows" for table in tables))
    owners = {asset.name: bidder.name for bidder in bidders for asset in bidder.assets}
    return Day(market, *tables, found.participants, owners, offered_kwh, clock.stages)


def _places(case: MarketCase) -> Iterator[tuple[str, str]]:
    """Buses and phases, a blank phase where a bus is balanced."""
    network = case.network
    for bus, phase in zip(network.port_bus.tolist(), network.port_phase.tolist(), strict=True):
        yield bus, "" if phase == BALANCED_PHASE else phase


def _rows(path: Path) -> list[dict[str, str]]:
    """Rows of a table of a case; none where the case has no such table."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _market_of(folder: Path, case: MarketCase) -> dict[str, Any]:
    """Fields of the market of tomorrow, with the prices and loads of a case's day."""
    horizon = case.horizon
    zone, step = ZoneInfo(horizon.timezone), timedelta(minutes=horizon.interval_minutes)
    day = datetime.now(zone).date() + timedelta(days=1)
    begins, ends = (datetime(d.year, d.month, d.day, tzinfo=zone).astimezone(UTC) for d in (day, day + timedelta(1)))
    intervals, now = (ends - begins) // step, datetime.now(UTC)
    fields: dict[str, Any] = {
        "trade_date": day.isoformat(),
        "market_timezone": horizon.timezone,
        "interval_minutes": horizon.interval_minutes,
        "currency": horizon.currency,
        "gate_opens_at": (now - timedelta(minutes=1)).strftime(TIME_FORMAT),
        "gate_closes_at": begins.strftime(TIME_FORMAT),
        "import_price_usd_per_mwh": np.resize(case.substation.price_usd_per_mwh, intervals).round(5).tolist(),
        "import_q_price_usd_per_mvarh": np.resize(case.substation.q_price_usd_per_mvarh, intervals).round(5).tolist(),
        "import_limits": tomllib.loads((folder / "case.toml").read_text("utf-8")).get("import", {}),
    }
    scale = [float(row["scale"]) for row in _rows(folder / "load_profile.csv") if row.get("scale")]
    if scale:
        fields["load_scale"] = np.resize(scale, intervals).tolist()
    return fields


def _register(operator: Client, feeder: str, fields: Mapping[str, Any], bidders: list[Aggregator]) -> _Registered:
    mark = uuid4().hex[:6]
    added = operator.add_feeder(f"{feeder}-{mark}", shipped=feeder)
    keys, resources, participants = {}, {}, {}
    for bidder in bidders:
        participant = operator.add_participant(f"{bidder.name} {mark}")
        participants[participant.id] = bidder.name
        keys[bidder.name] = operator.issue_key(bidder.name, "aggregator", participant.id).key
        for asset in bidder.assets:
            bus, kind, phase = (asset.place[name] for name in ("bus", "kind", "phase"))
            resources[asset.name] = operator.add_resource(
                participant.id, added.name, asset.name, bus, kind, phase=phase, **asset.limits
            )
    more = dict(fields)
    market = operator.add_market(f"simulated {feeder}", added.id, more.pop("trade_date"), **more)
    return _Registered(market, keys, resources, participants)


def _bid(url: str, found: _Registered, bidders: list[Aggregator]) -> tuple[list[Receipt], dict[str, float]]:
    """Let every aggregator place its bids at the same time; return receipts, and what was offered [kWh]."""
    offered_kwh: dict[str, float] = {}
    with TemporaryDirectory(prefix="dlmp-outbox-") as folder, ThreadPoolExecutor(len(bidders)) as pool:
        outboxes = [Path(folder) / f"{number}.sqlite" for number in range(len(bidders))]
        placed = pool.map(lambda bidder, outbox: _place(url, found, bidder, outbox, offered_kwh), bidders, outboxes)
        return [receipt for receipts in placed for receipt in receipts], offered_kwh


def _place(
    url: str, found: _Registered, bidder: Aggregator, outbox: Path, offered_kwh: dict[str, float]
) -> list[Receipt]:
    bids: list[AnyBid] = []
    for asset in bidder.assets:
        own = list(asset.bids(found.market, found.resources[asset.name].id))
        bids += own
        hours = found.market.interval_minutes / 60
        curves = [bid.segments for bid in own if isinstance(bid, Bid)]
        offered_kwh[asset.name] = hours * sum(float(kw or 0) for curve in curves for kw, *_ in curve)
    with Client(url, found.keys[bidder.name], outbox=outbox) as client:
        receipts = [client.submit(bids[first : first + LARGEST_BATCH]) for first in range(0, len(bids), LARGEST_BATCH)]
        if client.resend():
            raise ServiceError(f"{bidder.name} has bids without an answer")
    return receipts
