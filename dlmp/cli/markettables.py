"""Prices, awards and statements of a market as tables for the terminal."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table

from dlmp.client.records import Market
from dlmp.network.model import BALANCED_PHASE
from dlmp.simulation.day import Stage

COMPONENTS = ("energy", "loss", "congestion", "voltage", "unbalance", "scarcity")
SMALLEST_SHARE = 0.005
"""A component that is never larger than this is not shown [currency/MWh]."""
SMALLEST_KWH = 0.05


def price_summary(prices: pd.DataFrame, market: Market) -> Table:
    """One row per interval: lowest, mean and highest price, where the highest is, and what makes it."""
    table = _table(f"Prices of {market.trade_date} [{market.currency}/MWh], and what makes the highest")
    highest = prices.loc[prices.groupby("interval").price_usd_per_mwh.idxmax()]
    parts = [name for name in COMPONENTS if highest[name].abs().max() > SMALLEST_SHARE]
    for name in ("time", "lowest", "mean", "highest", "at bus", *parts):
        table.add_column(name, justify="left" if name in ("time", "at bus") else "right", no_wrap=True)
    zone = ZoneInfo(market.market_timezone)
    spread = prices.groupby("interval").price_usd_per_mwh.agg(["min", "mean", "max"])
    for figures, row in zip(spread.to_numpy(), highest.to_dict("records"), strict=True):
        place = str(row["bus"]) if row["phase"] in ("", BALANCED_PHASE) else f"{row['bus']}.{row['phase']}"
        table.add_row(
            f"{row['interval_start'].tz_convert(zone):%H:%M}",
            *(_money(float(value)) for value in figures),
            place,
            *(_money(row[name]) for name in parts),
        )
    return table


def award_summary(
    awards: pd.DataFrame, owners: Mapping[str, str], offered_kwh: Mapping[str, float], market: Market
) -> Table:
    """One row per resource: what it offered, and what it was awarded over the day.

    Parameters
    ----------
    awards
        As `dlmp.client.Client.awards` gives them.
    owners
        Name of the participant of each resource.
    offered_kwh
        Energy that each resource offered over the day; may be empty.
    market
        Of which they are.
    """
    table = _table("Awards")
    for name in ("participant", "resource", "offered kWh", "awarded kWh", "share"):
        table.add_column(name, justify="right" if name in ("offered kWh", "awarded kWh", "share") else "left")
    hours = market.interval_minutes / 60
    awarded = awards.groupby("resource").net_injection_kw.sum() * hours
    before = ""
    for resource in sorted(awarded.index, key=lambda name: (owners.get(name, ""), name)):
        owner, energy, most = owners.get(resource, "-"), awarded[resource], offered_kwh.get(resource, 0.0)
        share = f"{100 * abs(energy) / most:.0f} %" if most > SMALLEST_KWH else "-"
        shown = f"{most:,.0f}" if most else "-"
        table.add_row(owner if owner != before else "", resource, shown, f"{energy:,.0f}", share)
        before = owner
    return table


def statement_summary(statements: pd.DataFrame, names: Mapping[str, str], currency: str) -> Table:
    """One row per line of a statement, and a total per participant; positive is paid to them.

    Parameters
    ----------
    statements
        As `dlmp.client.Client.statements` gives them.
    names
        Name of each participant by its id.
    currency
        Of the amounts.
    """
    table = _table(f"Statements [{currency}]; what is positive is paid to the participant")
    for name in ("participant", "resource", "product", "quantity", "unit", "amount"):
        table.add_column(name, justify="right" if name in ("quantity", "amount") else "left")
    for participant, rows in _grouped(statements, "participant").items():
        shown = names.get(participant, participant)
        for row in rows:
            quantity, amount = f"{row['quantity']:,.1f}", _money(row["amount"])
            table.add_row(shown, row["resource"], row["product"], quantity, row["unit"], amount)
            shown = ""
        total = sum((row["amount"] for row in rows), Decimal(0))
        table.add_row("", "total", "", "", "", _money(total), style="bold", end_section=True)
    return table


def participant_summary(statements: pd.DataFrame, names: Mapping[str, str], currency: str) -> Table:
    """One row per participant and product, summed over its resources; arguments as of `statement_summary`."""
    table = _table(f"Statements [{currency}]; what is positive is paid to the participant")
    for name in ("participant", "product", "quantity", "unit", "amount"):
        table.add_column(name, justify="right" if name in ("quantity", "amount") else "left")
    parties = _grouped(statements, "participant")
    for participant in sorted(parties, key=lambda name: (name not in names, names.get(name, name))):
        shown, own = names.get(participant, participant), parties[participant]
        for product, rows in _grouped(pd.DataFrame(own), "product").items():
            quantity = sum(row["quantity"] for row in rows)
            amount = sum((row["amount"] for row in rows), Decimal(0))
            table.add_row(shown, product, f"{quantity:,.1f}", rows[0]["unit"], _money(amount))
            shown = ""
    total = sum(statements.amount, Decimal(0))
    table.add_row("sum", "", "", "", _money(total), style="bold")
    return table


def stage_table(stages: Sequence[Stage]) -> Table:
    """One row per step of a simulated day."""
    table = _table("Steps")
    for name in ("step", "seconds", "what came of it"):
        table.add_column(name, justify="right" if name == "seconds" else "left")
    for stage in stages:
        table.add_row(stage.name, f"{stage.seconds:.2f}", stage.told)
    return table


def _grouped(frame: pd.DataFrame, column: str) -> dict[str, list[dict[str, Any]]]:
    """Rows of a frame by the text in a column, in the order of the text."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in frame.sort_values(column, kind="stable").to_dict("records"):
        rows.setdefault(str(row[column]), []).append({str(name): value for name, value in row.items()})
    return rows


def _table(title: str) -> Table:
    return Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False, title=title, title_justify="left", title_style="bold")


def _money(value: float | Decimal) -> str:
    text = f"{value:,.2f}"
    return "0.00" if text == "-0.00" else text
