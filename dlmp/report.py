"""What the command line prints of cases and clearings: rows of text, tables and a chart, without printing them."""

from collections.abc import Iterable, Sequence
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from rich.table import Table
from rich.text import Text

from dlmp.certificate import Certificate
from dlmp.clearing import CONVERGED, Clearing
from dlmp.formulation.ac_tangent import AcPoint, AcTangent
from dlmp.formulation.interface import CONGESTION, VOLTAGE
from dlmp.market import Horizon, MarketCase
from dlmp.network.model import IntArray, Network, some_of
from dlmp.prices import COMPONENTS
from dlmp.units import BASE_KVA

Rows = list[tuple[str, str]]
"""Label and text of each line."""

CHART_ROWS = 12
AXIS_WIDTH = 9


def grid(rows: Rows) -> Table:
    """Lay out `rows` in two columns."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def clearing_rows(clearing: Clearing, certificate: Certificate | None, wall_seconds: float) -> Rows:
    """Sum up a clearing: status, cost, extreme prices, what binds, and the verdict of the certificate."""
    currency = clearing.case.horizon.currency
    price = clearing.prices.lmp_usd_per_mwh
    passes = "1 pass" if len(clearing.passes) == 1 else f"{len(clearing.passes)} passes"
    rows = [
        ("case", clearing.case.name),
        ("status", f"{clearing.status.replace('_', ' ')} in {passes}, {wall_seconds:.2f} s"),
        ("total cost", f"{clearing.objective:,.2f} {currency}"),
        ("highest price", _price_at(clearing, int(price.argmax()))),
        ("lowest price", _price_at(clearing, int(price.argmin()))),
        ("binding", _binding_counts(clearing)),
    ]
    if clearing.status != CONVERGED:
        rows.insert(2, ("", "these results may not be published"))
    if certificate is not None:
        rows += verdict(certificate, currency)
    return rows


def _price_at(clearing: Clearing, flat: int) -> str:
    price, horizon = clearing.prices.lmp_usd_per_mwh, clearing.case.horizon
    interval, node = divmod(flat, price.shape[1])
    when = f"{horizon.local(interval):%Y-%m-%d %H:%M %Z} (interval {interval})"
    return f"{price[interval, node]:.2f} {horizon.currency}/MWh at bus {clearing.case.network.bus[node]}, {when}"


def _binding_counts(clearing: Clearing) -> str:
    limits = clearing.binding_limits().drop_duplicates(["interval", "element"])
    if not len(limits):
        return "no network limit"
    count, intervals = limits.element.nunique(), limits.interval.nunique()
    return f"{_count(count, 'network limit')} in {_count(intervals, 'interval')}"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def verdict(certificate: Certificate, currency: str) -> Rows:
    """Say what the certificate found; every line but the first is a fault or a warning."""
    faults = []
    if not certificate.ac_converged:
        faults.append("an independent AC power flow at the awards has no solution")
    elif not certificate.is_feasible:
        if certificate.worst_voltage:
            excess = certificate.worst_voltage_violation_pu
            faults.append(f"voltage {excess:.2g} pu out of its band: {certificate.worst_voltage}")
        if certificate.worst_loading_percent > 100:
            faults.append(f"loading {certificate.worst_loading_percent:.4g} %: {certificate.worst_loading}")
    if not certificate.is_supported:
        gap = f"{certificate.worst_bid_gap_usd:.4g} {currency}"
        faults.append(f"another quantity would have earned {gap} more: {certificate.worst_bid}")
    rows = [("certificate", "does not hold:" if faults else "holds: feasible in AC, every award best for its bidder")]
    rows += [("", f"- {fault}") for fault in faults]
    if certificate.price_ranges:
        intervals = np.array([price_range.interval for price_range in certificate.price_ranges])
        rows.append(("", f"prices are not unique in intervals {_runs(intervals)}"))
    return rows


def _runs(intervals: IntArray) -> str:
    """``0-3, 7``."""
    parts = np.split(intervals, np.flatnonzero(np.diff(intervals) != 1) + 1)
    return ", ".join(f"{part[0]}" if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def case_rows(case: MarketCase) -> Rows:
    """Describe the feeder of a case, its resources and its load."""
    network, p_kw = case.network, case.load_p_kw.sum(axis=1)
    loops = network.branch_count - network.node_count + len(network.source)
    kinds = pd.Series(case.resources.kind, dtype=object).value_counts()
    horizon = case.horizon
    return [
        ("case", case.name),
        ("network", network.name),
        ("buses", f"{len(set(network.bus.tolist()))} ({_count(network.node_count, 'node')})"),
        ("aliases", some_of(network.alias_bus) if len(network.alias_bus) else "none"),
        ("branches", _by_kind(pd.Series(network.branch_kind, dtype=object).value_counts())),
        ("topology", "radial" if network.is_radial else f"meshed, {_count(loops, 'loop')}"),
        ("base voltage", ", ".join(f"{kv:g} kV" for kv in np.unique(network.base_kv)[::-1])),
        ("source", _sources(network)),
        ("voltage band", f"{_span(network.v_min_pu)} to {_span(network.v_max_pu)} pu"),
        ("rated", f"{np.isfinite(network.rating_from_pu).sum()} of {_count(network.branch_count, 'branch')[:-1]}es"),
        ("fixed load", _total(network, "load", 1.0)),
        ("fixed generation", _total(network, "generation", -1.0)),
        ("resources", f"{_by_kind(kinds)}; {_count(len(case.bids), 'bid segment')}" if len(kinds) else "none"),
        ("horizon", f"{horizon.intervals} x {horizon.interval_minutes} min from {horizon.start:%Y-%m-%dT%H:%M:%SZ}"),
        ("load in horizon", f"{p_kw.min():,.1f} to {p_kw.max():,.1f} kW"),
    ]


def _by_kind(counts: "pd.Series[int]") -> str:
    return ", ".join(f"{number} {kind}" for kind, number in counts.items()) or "none"
