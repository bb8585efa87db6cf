"""What a corrected settlement changes: deltas that turn the previous one into the new one, to the cent.

Meter readings are corrected, and prices are: the market is settled again, and every account gets the difference of
its lines.  What has not changed has no delta.
"""

from dataclasses import dataclass, field
from decimal import Decimal

import numpy as np
import pandas as pd

from dlmp.bids import OPERATOR
from dlmp.errors import Problems
from dlmp.settlement.money import EXACT, ZERO
from dlmp.settlement.statement import NOTHING, Settlement, total_by_participant

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
        return total_by_participant(self.statements(), self.settlement.currency)

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
    """Rows whose quantity or amount differs, new less previous: those of `previous` first."""
    was, now = _by_key(previous, keys), _by_key(new, keys)
    nothing = (0.0, ZERO)
    pairs = [(key, was.get(key, nothing), now.get(key, nothing)) for key in was | now]
    rows = [(*key, now[0] - was[0], EXACT.subtract(now[1], was[1])) for key, was, now in pairs if was != now]
    return pd.DataFrame(rows, columns=[*keys, "quantity", "amount"])


def _by_key(table: pd.DataFrame, keys: list[str]) -> dict[tuple[object, ...], tuple[float, Decimal]]:
    """Quantity and amount of every key."""
    values = zip(table.quantity.tolist(), table.amount.tolist(), strict=True)
    return dict(zip(zip(*(table[key].tolist() for key in keys), strict=True), values, strict=True))
