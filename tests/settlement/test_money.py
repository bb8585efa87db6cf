"""Money: exact products, one rounding, whole cents."""

from decimal import Decimal

import numpy as np
import pytest

from dlmp.settlement.money import in_minor_units, line_amounts, minor_unit, money, total, totals


def test_a_line_is_the_exact_product_of_the_printed_digits_rounded_once():
    quantity, price = np.array([0.1, 1 / 3, 123456.789]), np.array([30.0, 49.999999, -0.07])
    assert line_amounts(quantity, price, 1000).tolist() == [
        Decimal("0.00300000"),
        Decimal("0.01666667"),  # 0.3333333333333333 x 49.999999 / 1000 = 0.016666666333...
        Decimal("-8.64197523"),  # 123456.789 x 0.07 / 1000 = 8.64197523
    ]


def test_ties_go_to_the_even_digit_whichever_side_binary_has_them():
    """2.5 x 1e-5 / 1000 is half of the last digit above two of them; as floats it is a little more."""
    quantity, price = np.array([2.5e-5, 3.5e-5, -2.5e-5]), np.ones(3)
    assert [str(amount * 10**8) for amount in line_amounts(quantity, price, 1000)] == [
        "2.00000000",
        "4.00000000",
        "-2.00000000",
    ]


def test_an_amount_that_rounds_to_nothing_has_no_sign():
    assert [f"{amount:f}" for amount in money([Decimal("-1e-12"), Decimal("0")])] == ["0.00000000"] * 2


def test_sums_lose_no_digit_however_large():
    large, small = Decimal("9" * 30), Decimal("0.00000001")
    assert total([large, small, large.copy_negate()]) == small
    assert totals(np.array([1, 1, 0]), [large, large.copy_negate(), small], 3).tolist() == [small, 0, 0]


@pytest.mark.parametrize(
    ("currency", "rounded"), [("USD", "2.68"), ("EUR", "2.68"), ("JPY", "3"), ("KWD", "2.675"), ("XOF", "3")]
)
def test_an_account_is_rounded_to_the_smallest_unit_of_its_currency(currency: str, rounded: str):
    assert str(in_minor_units(Decimal("2.675"), currency)) == rounded
    assert in_minor_units(Decimal("2.665"), "USD") == Decimal("2.66")
    assert minor_unit("USD") == Decimal("0.01")
