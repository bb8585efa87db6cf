"""From awards and prices to statements: who is paid for what, and what is left to the operator, to the cent."""

from dlmp.settlement.correction import Correction, correct
from dlmp.settlement.markets import settle
from dlmp.settlement.recovery import CostRecovery
from dlmp.settlement.statement import Settlement

__all__ = ["Correction", "CostRecovery", "Settlement", "correct", "settle"]
