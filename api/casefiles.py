"""A market to a case folder, the input of a run: what ``dlmp clear`` reads, so that anyone can clear it again."""

import csv
import io
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tomli_w

from api.archive import unpack
from api.clock import rfc3339
from api.coupled import USUAL, store_of
from api.feeders import NETWORK_FILE
from api.offers import BLOCK, COUPLED, ENERGY, REACTIVE, SELF_SCHEDULE, SERVICES, Standing
from dlmp.casefolder.settings import FILE as CASE_FILE
from dlmp.stores import PROFILED

RESOURCE_COLUMNS = ("p_min_kw", "p_max_kw", "q_min_kvar", "q_max_kvar", "s_max_kva", "power_factor_min")
SEGMENT_KEYS = ("resource", "interval", "side", "segment")
BID_COLUMNS = (*SEGMENT_KEYS, "quantity_kw", "price_usd_per_mwh", "price_end_usd_per_mwh", "is_self_scheduled")
REACTIVE_COLUMNS = (*SEGMENT_KEYS, "quantity_kvar", "price_usd_per_mvarh", "price_end_usd_per_mvarh")
SERVICE_COLUMNS = ("resource", "service", "interval", "quantity_kw", "price_usd_per_mw_h")
BLOCK_COLUMNS = (
    *("block", "resource", "side", "first_interval", "last_interval", "quantity_kw", "price_usd_per_mwh"),
    *("min_acceptance_ratio", "exclusive_group"),
)


def case_files(
    market: Any, feeder: Any, resources: Sequence[Any], bids: Sequence[Any], inputs: Mapping[str, Any]
) -> dict[str, bytes]:
    """Files of the case of a market with `inputs`: rows of ``markets``, ``feeders``, ``resources`` and ``bids``."""
    files = unpack(feeder.files)
    network = tomllib.loads(files.pop(NETWORK_FILE).decode())["network"]
    files[CASE_FILE] = tomli_w.dumps(
        {
            "name": market.name,
            "network": network,
            "horizon": {
                "start": rfc3339(market.starts_at),
                "interval_minutes": market.interval_minutes,
                "intervals": market.intervals,
                "timezone": market.timezone,
                "currency": market.currency,
            },
            "import": inputs["import_limits"],
        }
    ).encode()
    files["import_prices.csv"] = _csv(
        ("interval", "price_usd_per_mwh", "q_price_usd_per_mvarh"),
        [
            (number, price, reactive)
            for number, (price, reactive) in enumerate(
                zip(inputs["import_price_usd_per_mwh"], inputs["import_q_price_usd_per_mvarh"], strict=True)
            )
        ],
    )
    if inputs["load_scale"]:
        files["load_profile.csv"] = _csv(("interval", "scale"), enumerate(inputs["load_scale"]))
    if inputs["requirements"]:
        names = tuple(inputs["requirements"][0])
        files["requirements.csv"] = _csv(names, (tuple(row.values()) for row in inputs["requirements"]))
    offered = {bid.resource_id for bid in bids}
    own = {row.id: row for row in sorted(resources, key=lambda row: row.name) if row.id in offered}
    if own:
        ordered = sorted(bids, key=lambda bid: (own[bid.resource_id].name, bid.first_interval, bid.id))
        files |= _offer_files(own, ordered, market.intervals)
    return files


def _offer_files(own: Mapping[str, Any], bids: Sequence[Any], intervals: int) -> dict[str, bytes]:
    """Tables of what is offered; those without a row are left out."""
    resources = [
        (row.name, row.bus, row.phase, row.kind, *(row.limits[name] for name in RESOURCE_COLUMNS), row.participant_id)
        for row in own.values()
    ]
    named = [(own[bid.resource_id].name, bid) for bid in bids]
    stores = [row for name, bid in named if bid.product in COUPLED for row in _store_rows(name, bid, intervals)]
    tables: dict[str, tuple[Sequence[str], Sequence[Sequence[object]]]] = {
        "resources.csv": (("resource", "bus", "phase", "kind", *RESOURCE_COLUMNS, "participant"), resources),
        "bids.csv": (BID_COLUMNS, [row for name, bid in named for row in _segment_rows(name, bid)]),
        "reactive_bids.csv": (REACTIVE_COLUMNS, [row for name, bid in named for row in _reactive_rows(name, bid)]),
        "blocks.csv": (BLOCK_COLUMNS, [_block_row(name, bid) for name, bid in named if bid.product == BLOCK]),
        "stores.csv": (("resource", *PROFILED, *USUAL), [row for number, *row in stores if number is None]),
        "store_profile.csv": (("interval", "resource", *PROFILED), [row for row in stores if row[0] is not None]),
        "service_offers.csv": (SERVICE_COLUMNS, [row for name, bid in named for row in _service_rows(name, bid)]),
    }
    return {name: _csv(header, rows) for name, (header, rows) in tables.items() if rows}


def _segment_rows(resource: str, bid: Any) -> Iterable[tuple[object, ...]]:
    """Rows of ``bids.csv``: segment 0 is what is self-scheduled, the curve begins at 1."""
    if bid.product == ENERGY:
        parts = [
            (number, part["quantity_kw"], part["price_usd_per_mwh"], part["price_end_usd_per_mwh"], 0)
            for number, part in enumerate(bid.terms["segments"], start=1)
        ]
    elif bid.product == SELF_SCHEDULE:
        parts = [(0, bid.terms["quantity_kw"], None, None, 1)]
    else:
        return
    for interval in _intervals(bid):
        for part in parts:
            yield (resource, interval, bid.terms["side"], *part)


def _reactive_rows(resource: str, bid: Any) -> Iterable[tuple[object, ...]]:
    for interval in _intervals(bid) if bid.product == REACTIVE else ():
        for number, part in enumerate(bid.terms["segments"]):
            yield (resource, interval, bid.terms["side"], number, *(part[name] for name in REACTIVE_COLUMNS[4:]))


def _service_rows(resource: str, bid: Any) -> Iterable[tuple[object, ...]]:
    for interval in _intervals(bid) if bid.product in SERVICES else ():
        yield (resource, bid.product, interval, bid.terms["quantity"], bid.terms["price_usd_per_mw_h"])


def _block_row(resource: str, bid: Any) -> tuple[object, ...]:
    """Row of a block, named as its bid; a group is of one participant's blocks."""
    terms, group = bid.terms, bid.terms["exclusive_group"]
    return (
        *(bid.id, resource, terms["side"], bid.first_interval, bid.last_interval, terms["quantity_kw"]),
        *(terms["price_usd_per_mwh"], terms["min_acceptance_ratio"]),
        None if group is None else f"{bid.participant_id} {group}",
    )


def _store_rows(resource: str, bid: Any, intervals: int) -> Iterable[tuple[Any, ...]]:
    """Row of ``stores.csv``, with the first interval's profile, and of ``store_profile.csv`` where another differs."""
    span = bid.first_interval, bid.last_interval
    store = store_of(Standing(bid.id, bid.market_id, bid.resource_id, *span, bid.product, bid.terms), intervals)
    first, *others = zip(*(store.profile[name] for name in PROFILED), strict=True)
    yield (None, resource, *first, *(store.numbers[name] for name in USUAL))
    for interval, values in enumerate(others, start=1):
        if values != first:
            yield (interval, resource, *values)


def _intervals(bid: Any) -> range:
    return range(bid.first_interval, bid.last_interval + 1)


def _csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()
