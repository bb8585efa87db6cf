"""Money as exact decimals: what a line comes to, and whole cents.

A quantity and a price are the shortest decimals that name their floats (``Decimal(repr(x))``, the digits that a
table shows), their product is exact, and it is rounded once, half to even, to `LINE_QUANTUM`: whoever recomputes
a line from its printed digits gets the same amount.  A hundred-millionth of the currency is so little that even
lines worth a fraction of a cent (1 kW over five minutes) add up to what they are worth; the sum of an account is
then rounded, half to even, to the currency's smallest unit.
"""

from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Context, Decimal

import numpy as np
import numpy.typing as npt

from dlmp.network.model import FloatArray

MoneyArray = npt.NDArray[np.object_]
"""Array of `decimal.Decimal`."""

LINE_QUANTUM = Decimal("0.00000001")
"""To which the amount of every line is rounded [currency]."""
ZERO = Decimal(0).quantize(LINE_QUANTUM)
EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN)
"""In which all arithmetic is done, whatever the caller's context: a product of two floats has at most 34 digits."""

WHOLE = ("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "VND", "VUV", "XAF", "XOF", "XPF")
THOUSANDTHS = ("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND")
MINOR_UNITS = dict.fromkeys(WHOLE, Decimal(1)) | dict.fromkeys(THOUSANDTHS, Decimal("0.001"))
"""Smallest units of the currencies in which that is not a hundredth (ISO 4217)."""


def decimals(values: Iterable[float]) -> list[Decimal]:
    """Shortest decimals of floats."""
    return [Decimal(repr(float(value))) for value in values]


def line_amounts(quantity: FloatArray, price: FloatArray, per_price: int) -> MoneyArray:
    """(k,) Quantity times price, the price being per `per_price` units of quantity."""
    per = Decimal(per_price)
    return money(
        EXACT.divide(EXACT.multiply(one, other), per)
        for one, other in zip(decimals(quantity), decimals(price), strict=True)
    )


def money(amounts: Iterable[Decimal]) -> MoneyArray:
    """(k,) Amounts rounded to `LINE_QUANTUM`, without negative zeros."""
    rounded = [EXACT.add(EXACT.quantize(amount, LINE_QUANTUM), ZERO) for amount in amounts]
    array = np.empty(len(rounded), dtype=object)
    array[:] = rounded
    return array


def total(amounts: Iterable[Decimal]) -> Decimal:
    """Sum of amounts, exact."""
    result = ZERO
    for amount in amounts:
        result = EXACT.add(result, amount)
    return result


def totals(group: npt.NDArray[np.int64], amounts: Iterable[Decimal], groups: int) -> MoneyArray:
    """(groups,) Sum of the amounts of each group, exact."""
    result = [ZERO] * groups
    for index, amount in zip(group.tolist(), amounts, strict=True):
        result[index] = EXACT.add(result[index], amount)
    return money(result)


def minor_unit(currency: str) -> Decimal:
    """Smallest unit of a currency, such as a cent."""
    return MINOR_UNITS.get(currency, Decimal("0.01"))


def in_minor_units(amount: Decimal, currency: str) -> Decimal:
    """Amount rounded, half to even, to the smallest unit of its currency."""
    return EXACT.add(EXACT.quantize(amount, minor_unit(currency)), Decimal(0))
