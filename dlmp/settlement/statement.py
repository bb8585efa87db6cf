"""A settlement: its lines, the operator's surplus, and the statements that balance to the cent.

    payments to participants + to the substation + to the load + the operator's surplus = 0

Every line, and every part of the surplus, is rounded once (`dlmp.settlement.money`), and the surplus has a residue
that makes the sum over all of them zero.  The account of each participant is then rounded to whole cents, with the
difference as a row ``rounding`` of its own; the operator has the opposite of all others' rounding, so that the
whole cents of all accounts add up to zero too.
"""

from dataclasses import dataclass, field
from decimal import Decimal

import pandas as pd

from dlmp.bids import LOAD, OPERATOR, SUBSTATION
from dlmp.market import MarketCase
from dlmp.network.model import ComplexArray
from dlmp.settlement.lines import Lines
from dlmp.settlement.money import MoneyArray, in_minor_units, money, total
from dlmp.settlement.recovery import CostRecovery, cost_recovery
from dlmp.settlement.surplus import Surplus

ROUNDING = "rounding"
NOTHING = "-"
"""In place of a resource or a unit where there is none."""
STATEMENT_COLUMNS = ["participant", "resource", "product", "quantity", "unit", "amount"]


@dataclass(frozen=True, eq=False)
class Settlement:
    """Who is paid what; `dlmp.settle` makes it.

    Parameters
    ----------
    case
        The market case; of two settlements that of the day-ahead market.
    lines
        One per participant, resource, interval and product.
    rents
        What is left to the operator, by cause.
    injected
        (t, r) Energy of each resource that is settled in all [kWh + j kvarh].
    """

    case: MarketCase = field(repr=False)
    lines: Lines = field(repr=False)
    rents: Surplus = field(repr=False)
    injected: ComplexArray = field(repr=False)

    @property
    def currency(self) -> str:
        """Currency of all amounts (ISO 4217)."""
        return self.case.horizon.currency

    @property
    def surplus(self) -> pd.DataFrame:
        """The operator's surplus: one row per interval and component, with an explanation where it is negative."""
        return self.rents.table()

    def table(self) -> pd.DataFrame:
        """One row per line; amounts are `decimal.Decimal`, positive to the participant."""
        return self.lines.table(self.case.horizon)

    def statements(self) -> pd.DataFrame:
        """Per participant one row per resource and product, and what its total was rounded by.

        Returns
        -------
        Rows with ``participant, resource, product, quantity, unit, amount``; the amounts of a participant add up to
        whole cents, those of all participants, with `operator`, to zero.
        """
        lines, rents = self.lines, self.rents
        parts = pd.DataFrame({name: getattr(lines, name).astype(object) for name in STATEMENT_COLUMNS})
        parts["quantity"] = lines.quantity
        kept = pd.DataFrame({"product": rents.component, "amount": [total(column) for column in rents.amount.T]})
        kept = kept.assign(participant=OPERATOR, resource=NOTHING, quantity=0.0, unit=NOTHING)
        keys = ["participant", "resource", "product", "unit"]
        sums = {"quantity": ("quantity", "sum"), "amount": ("amount", total)}
        rows = pd.concat([parts, kept]).groupby(keys, sort=False).agg(**sums).reset_index()
        rounded = self._rounded(rows)
        order = {name: place for place, name in enumerate(rounded.participant)}
        rows = pd.concat([rows, rounded]).sort_values("participant", key=lambda names: names.map(order), kind="stable")
        return rows[STATEMENT_COLUMNS].reset_index(drop=True)

    def _rounded(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The row `rounding` of every account, in their order; the operator is last, with the opposite of all."""
        sums = {name: total(own.amount) for name, own in rows.groupby("participant", sort=False)}
        accounts = dict.fromkeys([*self.case.resources.participant.tolist(), LOAD, SUBSTATION])
        others = [name for name in accounts if name in sums]
        amounts = [in_minor_units(sums[name], self.currency) - sums[name] for name in others]
        return pd.DataFrame(
            {
                "participant": [*others, OPERATOR],
                "resource": NOTHING,
                "product": ROUNDING,
                "quantity": 0.0,
                "unit": NOTHING,
                "amount": money([*amounts, -total(amounts)]),
            }
        )

    def totals(self) -> pd.DataFrame:
        """Whole cents of every participant: rows ``participant, amount``, which add up to zero."""
        rows = self.statements()
        sums = rows.groupby("participant", sort=False).amount.agg(total)
        return pd.DataFrame(
            {"participant": sums.index.to_numpy(), "amount": [in_minor_units(value, self.currency) for value in sums]}
        )

    def cost_recovery(self) -> CostRecovery:
        """Who was paid for which product from which resource and interval, and that nothing was paid twice."""
        return cost_recovery(self.lines, self.case.resources, self.case.horizon, self.injected)

    def summary(self) -> dict[str, object]:
        """Return the figures for `summary.json`; amounts are text."""
        amounts: dict[str, Decimal] = dict(self.totals().itertuples(index=False, name=None))
        own = {name: amount for name, amount in amounts.items() if name not in (LOAD, SUBSTATION, OPERATOR)}
        zero = in_minor_units(Decimal(0), self.currency)
        return {
            "currency": self.currency,
            "lines": len(self.lines),
            "participants": len(own),
            "paid_to_participants": f"{sum(own.values(), zero):f}",
            "paid_to_load": f"{amounts.get(LOAD, zero):f}",
            "paid_to_substation": f"{amounts.get(SUBSTATION, zero):f}",
            "surplus": f"{amounts[OPERATOR]:f}",
            "surplus_by_component": self._surplus_by_component(),
            "paid_once": self.cost_recovery().is_paid_once,
        }

    def _surplus_by_component(self) -> dict[str, str]:
        columns: MoneyArray = self.rents.amount
        return {name: f"{total(column):f}" for name, column in zip(self.rents.component, columns.T, strict=True)}
