"""Published prices with the columns of CAISO OASIS's ``PRC_LMP``, for people whose programs read those.

``LMP = MCE + MCC + MCL``: energy, everything that limits of the network make, and losses.  ``OPR_HR`` and
``OPR_INTERVAL`` count from 1 on the market's own clock, in which an autumn day has 25 hours.
"""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from api.clock import rfc3339
from api.gate import interval_start

LIMITS = ("congestion", "voltage", "unbalance", "scarcity")
GMT_FORMAT_LENGTH = len("2026-07-01T07:00:00")


def oasis_table(market: Any, prices: pa.Table) -> pa.Table:
    """Turn the table ``prices`` of a run of `market` into rows of OASIS, one for each node and interval."""
    count, per_hour = market.intervals, 60 // market.interval_minutes
    gmt = [rfc3339(interval_start(market, number))[:GMT_FORMAT_LENGTH] + "-00:00" for number in range(count + 1)]
    interval = prices["interval"]

    def of_interval(values: list[Any]) -> pa.ChunkedArray:
        return pc.take(pa.array(values), interval)

    limits = prices[LIMITS[0]]
    for name in LIMITS[1:]:
        limits = pc.add(limits, prices[name])
    node = pc.binary_join_element_wise(prices["bus"], prices["phase"], ".")
    return pa.table(
        {
            "INTERVALSTARTTIME_GMT": of_interval(gmt[:-1]),
            "INTERVALENDTIME_GMT": of_interval(gmt[1:]),
            "OPR_DT": pa.repeat(market.trade_date, prices.num_rows),
            "OPR_HR": of_interval([number // per_hour + 1 for number in range(count)]),
            "OPR_INTERVAL": of_interval([number % per_hour + 1 for number in range(count)]),
            "NODE": node,
            "MARKET_RUN_ID": pa.repeat("DLMP", prices.num_rows),
            "LMP": prices["lmp_usd_per_mwh"],
            "MCE": prices["energy"],
            "MCC": limits,
            "MCL": prices["loss"],
        }
    )
