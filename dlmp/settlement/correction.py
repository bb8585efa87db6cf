"""What a corrected settlement changes: deltas that turn the previous one into the new one, to the cent.

Meter readings are corrected, and prices are: the market is settled again, and every account gets the difference of
its lines.  What has not changed has no delta.
"""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from dlmp.bids import OPERATOR
from dlmp.errors import Problems
from dlmp.settlement.money import ZERO, in_minor_units, total
from dlmp.settlement.statement import NOTHING, Settlement

LINE_KEYS = ["participant", "resource", "interval", "product", "unit"]
STATEMENT_KEYS = ["participant", "resource", "product", "unit"]


@dataclass(frozen=True, eq=False)
class Correction:
    """Deltas from `previous` to `settlement`."""

    previous: Settlement = field(repr=False)
    settlement: Settlement = field(repr=False)

    def table(self) -> pd.DataFrame:
        """Changed lines, those of the operator included.

        Returns
        -------
        Rows ``interval_start, participant, resource, interval, product, unit, quantity, amount``: what is added to
        the previous line's quantity and amount.
        """
        frame = _delta(_ledger(self.previous), _ledger(self.settlement), LINE_KEYS)
        starts = pd.DatetimeIndex(self.settlement.case.horizon.starts)
        frame.insert(0, "interval_start", starts[frame.interval.to_numpy(dtype=np.int64)])
        return frame

    def statements(self) -> pd.DataFrame:
        """Changed rows of `Settlement.statements`, their rounding included."""
        return _delta(self.previous.statements(), self.settlement.statements(), STATEMENT_KEYS)

    def totals(self) -> pd.DataFrame:
        """Whole cents that every participant with a change is still owed: rows ``participant, amount``."""
        currency = self.settlement.currency
        sums = self.statements().groupby("participant", sort=False).amount.agg(total)
        amounts = [in_minor_units(value, currency) for value in sums]
        return pd.DataFrame({"participant": sums.index.to_numpy(dtype=object), "amount": amounts})

    @property
    def is_empty(self) -> bool:
        """True when nothing has changed."""
        return not len(self.table())


def correct(previous: Settlement, settlement: Settlement) -> Correction:
    """Compare a settlement with the one that it corrects.

    Raises
    ------
    InputError
        When they are not of the same intervals and currency.
    """
    problems, one, other = Problems(), previous.case.horizon, settlement.case.horizon
    for name in ("start", "interval_minutes", "intervals", "currency"):
        if getattr(one, name) != getattr(other, name):
            message = f"must be that of the previous settlement, {getattr(one, name)}"
            problems.add("settlement", f"horizon.{name}", str(getattr(other, name)), message)
    problems.raise_if_any()
    return Correction(previous, settlement)


def _ledger(settlement: Settlement) -> pd.DataFrame:
    """Lines and the operator's surplus as one table."""
    rents = settlement.surplus.rename(columns={"component": "product"})
    rents = rents.assign(participant=OPERATOR, resource=NOTHING, unit=NOTHING, quantity=0.0)
    columns = [*LINE_KEYS, "quantity", "amount"]
    return pd.concat([settlement.table()[columns], rents[columns]], ignore_index=True)


def _delta(previous: pd.DataFrame, new: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Rows whose quantity or amount differs: new less previous."""
    both = previous.merge(new, on=keys, how="outer", suffixes=("_previous", "_new"), sort=False)
    quantity = both.quantity_new.fillna(0.0) - both.quantity_previous.fillna(0.0)
    was, now = (both[name].where(both[name].notna(), ZERO) for name in ("amount_previous", "amount_new"))
    frame = both[keys].assign(quantity=quantity, amount=now - was)
    changed = (frame.quantity != 0) | (frame.amount != ZERO)
    return frame[changed].reset_index(drop=True)
