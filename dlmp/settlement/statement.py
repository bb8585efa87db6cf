"""A settlement: its lines, the operator's surplus, and the statements that balance to the cent.

    payments to participants + to the substation + to the load + the operator's surplus = 0

Every line, and every part of the surplus, is rounded once (`dlmp.settlement.money`), and the surplus has a residue
that makes the sum over all of them zero.  The account of each participant is then rounded to whole cents, with the
difference as a row ``rounding`` of its own; the operator has the opposite of all others' rounding, so that the
whole cents of all accounts add up to zero too.
"""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from dlmp.bids import LOAD, OPERATOR, SUBSTATION
from dlmp.market import MarketCase
from dlmp.network.model import ComplexArray
from dlmp.settlement.lines import Lines
from dlmp.settlement.money import EXACT, ZERO, MoneyArray, in_minor_units, total
from dlmp.settlement.recovery import CostRecovery, cost_recovery
from dlmp.settlement.stage import Held
from dlmp.settlement.surplus import Surplus

ROUNDING = "rounding"
DEEMED = "deemed_as_awarded"
"""Says of a resource in how many intervals its meter has no reading, or none of reactive energy."""
NOTHING = "-"
"""In place of a resource or a unit where there is none."""


class _Row(NamedTuple):
    """A row of a statement."""

    resource: str
    product: str
    quantity: float
    unit: str
    amount: Decimal


def total_by_participant(statements: pd.DataFrame, currency: str) -> pd.DataFrame:
    """Sum of the rows of every participant, in whole cents: rows ``participant, amount``."""
    sums: dict[str, Decimal] = {}
    for name, amount in zip(statements.participant, statements.amount, strict=True):
        sums[name] = EXACT.add(sums.get(name, ZERO), amount)
    amounts = [in_minor_units(value, currency) for value in sums.values()]
    return pd.DataFrame({"participant": list(sums), "amount": amounts}, dtype=object)


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
    held
        Power held ready, and the awards beside it.
    is_deemed
        (t, r) True where no meter was read, and what was awarded stands for it.
    """

    case: MarketCase = field(repr=False)
    lines: Lines = field(repr=False)
    rents: Surplus = field(repr=False)
    injected: ComplexArray = field(repr=False)
    held: Held = field(repr=False)
    is_deemed: npt.NDArray[np.bool_] = field(repr=False)

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

        A resource whose meter has gaps has a row `DEEMED`: in so many intervals its award stands for a reading.

        Returns
        -------
        Rows with ``participant, resource, product, quantity, unit, amount``; the amounts of a participant add up to
        whole cents, those of all participants, with `operator`, to zero.
        """
        rows = self._rows()
        sums = {name: total(row.amount for row in own) for name, own in rows.items()}
        others = [name for name in rows if name != OPERATOR]
        rounded = {name: EXACT.subtract(in_minor_units(sums[name], self.currency), sums[name]) for name in others}
        rounded[OPERATOR] = total(rounded.values()).copy_negate()
        listed = [
            (name, *row)
            for name, own in rows.items()
            for row in (*own, _Row(NOTHING, ROUNDING, 0.0, NOTHING, rounded[name]))
        ]
        return pd.DataFrame(listed, columns=["participant", *_Row._fields])

    def _rows(self) -> dict[str, list[_Row]]:
        """Rows of every account: participants in the order of their resources, load, substation, operator."""
        lines, rents = self.lines, self.rents
        keys = zip(lines.participant.tolist(), lines.resource.tolist(), lines.product.tolist(), strict=True)
        sums: dict[tuple[str, str, str], _Row] = {}
        for key, quantity, unit, amount in zip(
            keys, lines.quantity.tolist(), lines.unit.tolist(), lines.amount.tolist(), strict=True
        ):
            last = sums.get(key)
            before = (0.0, ZERO) if last is None else (last.quantity, last.amount)
            sums[key] = _Row(*key[1:], before[0] + quantity, unit, EXACT.add(before[1], amount))
        accounts = dict.fromkeys([*self.case.resources.participant.tolist(), LOAD, SUBSTATION])
        rows: dict[str, list[_Row]] = {name: [] for name in accounts}
        for (participant, *_), row in sums.items():
            rows[participant].append(row)
        resources, deemed = self.case.resources, self.is_deemed.sum(axis=0)
        for number in np.flatnonzero(deemed):
            row = _Row(str(resources.name[number]), DEEMED, float(deemed[number]), "interval", ZERO)
            rows[str(resources.participant[number])].append(row)
        rows = {name: own for name, own in rows.items() if own}
        rows[OPERATOR] = [
            _Row(NOTHING, component, 0.0, NOTHING, total(column))
            for component, column in zip(rents.component, rents.amount.T, strict=True)
        ]
        return rows

    def totals(self) -> pd.DataFrame:
        """Whole cents of every participant: rows ``participant, amount``, which add up to zero."""
        return total_by_participant(self.statements(), self.currency)

    def cost_recovery(self) -> CostRecovery:
        """Who was paid for which product from which resource and interval, and that nothing was paid twice."""
        return cost_recovery(self.lines, self.case.resources, self.case.horizon, self.injected, self.held)

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
