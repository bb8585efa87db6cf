"""A market to a case folder, the input of a run: what ``dlmp clear`` reads, so that anyone can clear it again."""

import csv
import io
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tomli_w

from api.archive import unpack
from api.book import ENERGY, SELF_SCHEDULE
from api.clock import rfc3339
from api.feeders import NETWORK_FILE
from dlmp.casefolder.settings import FILE as CASE_FILE

RESOURCE_COLUMNS = ("p_min_kw", "p_max_kw", "q_min_kvar", "q_max_kvar", "s_max_kva", "power_factor_min")
SEGMENT_COLUMNS = ("quantity_kw", "price_usd_per_mwh", "price_end_usd_per_mwh", "is_self_scheduled")


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
        files |= _offer_files(own, ordered)
    return files


def _offer_files(own: Mapping[str, Any], bids: Sequence[Any]) -> dict[str, bytes]:
    rows = [
        (row.name, row.bus, row.phase, row.kind, *(row.limits[name] for name in RESOURCE_COLUMNS), row.participant_id)
        for row in own.values()
    ]
    files = {"resources.csv": _csv(("resource", "bus", "phase", "kind", *RESOURCE_COLUMNS, "participant"), rows)}
    segments = [row for bid in bids for row in _segment_rows(own[bid.resource_id].name, bid)]
    services = [
        (own[bid.resource_id].name, bid.product, interval, bid.terms["quantity"], bid.terms["price_usd_per_mw_h"])
        for bid in bids
        if bid.product not in (ENERGY, SELF_SCHEDULE)
        for interval in range(bid.first_interval, bid.last_interval + 1)
    ]
    if segments:
        files["bids.csv"] = _csv(("resource", "interval", "side", "segment", *SEGMENT_COLUMNS), segments)
    if services:
        header = ("resource", "service", "interval", "quantity_kw", "price_usd_per_mw_h")
        files["service_offers.csv"] = _csv(header, services)
    return files


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
    for interval in range(bid.first_interval, bid.last_interval + 1):
        for part in parts:
            yield (resource, interval, bid.terms["side"], *part)


def _csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()
