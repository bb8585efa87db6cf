"""MATLAB statements are carried out as MATLAB would, or refused."""

import numpy as np
import pytest

from dlmp.network.matlab import UnsupportedError, statements
from dlmp.network.model import FloatArray

TABLES = """
mpc.baseMVA = 1;
mpc.bus = [
    10  3  0    0   0  0  1  1  0  10  1  1    1;
    20  1  100  50  0  0  1  1  0  10  1  1.1  0.9;
    30  1  0    0   0  0  1  1  0  10  1  1.1  0.9;
];
mpc.branch = [10 20 2 1; 20 30 4 3];
"""
OUTPUTS = {"idx_bus": [1, 2, 3, 4, 1]}


def carry_out(code: str) -> dict[str, FloatArray]:
    values: dict[str, FloatArray] = {}
    for statement in statements(code):
        statement.run(values, OUTPUTS)
    return values


def value_of(expression: str) -> FloatArray:
    return carry_out(f"x = {expression};")["x"]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("50/3", 50 / 3),
        ("-2^2 + 8", 4.0),
        ("2^3^2", 64.0),
        ("2^-1*6", 3.0),
        ("6/2*3 - 1 - 2", 6.0),
        ("1./4 + 2.^2", 4.25),
        ("(1 + 2) * 3", 9.0),
        ("-(-1.5E1)", 15.0),
        ("+1..*2", 2.0),
        ("sqrt(3)*sqrt(3) + sin(pi/2) + cos(0) + tan(0) + abs(-4)", 9.0),
        ("acos(-1) + asin(0) + atan(0) + exp(0) - pi", 1.0),
        ("[5]", 5.0),
        ("-1/Inf", 0.0),
        ("0/0", np.nan),
    ],
)
def test_arithmetic_is_that_of_matlab(expression: str, value: float) -> None:
    np.testing.assert_allclose(value_of(expression), [[value]], rtol=1e-14)


@pytest.mark.parametrize(
    ("matrix", "cells"),
    [
        ("[10, 3, 0 0 30/sqrt(3) 1]", [[10, 3, 0, 0, 30 / np.sqrt(3), 1]]),
        ("[20  1 -2/4  0 (30 - 0) / sqrt(3)  1 1.1]", [[20, 1, -0.5, 0, 30 / np.sqrt(3), 1, 1.1]]),
        ("[10 20 1 2 - 1 0]", [[10, 20, 1, 1, 0]]),
        ("[1 - 2 3 -4 (5 -6) .5 - .25]", [[-1, 3, -4, -1, 0.25]]),
        ("[1, 2; 3 4 % no semicolon\n 5 6\n]", [[1, 2], [3, 4], [5, 6]]),
        ("[1 2 ... the rest\n 3...\n 4]", [[1, 2, 3, 4]]),
        ("[[1; 2] [3 4; 5 6]]", [[1, 3, 4], [2, 5, 6]]),
        ("[[1 2] 3; 4 5 6]", [[1, 2, 3], [4, 5, 6]]),
        ("[]", np.empty((0, 0))),
    ],
)
def test_blank_before_a_sign_begins_a_cell_and_blanks_around_it_join(matrix: str, cells: list[list[float]]) -> None:
    np.testing.assert_allclose(value_of(matrix), cells, rtol=1e-14)


def test_block_of_a_table_is_copied_and_assigned_by_rows_and_columns() -> None:
    values = carry_out(f"{TABLES} old = mpc.branch; mpc.branch(end, [1 3:end]) = [7 8 9]; old(1, :) = old(2, :) / 2;")
    assert values["mpc.branch"].tolist() == [[10, 20, 2, 1], [7, 30, 8, 9]]
    assert values["old"].tolist() == [[10, 15, 2, 1.5], [20, 30, 4, 3]]


def test_column_is_repeated_along_the_rows_of_a_table() -> None:
    values = carry_out(f"{TABLES} x = mpc.branch(:, 3:4) ./ mpc.branch(:, 1);")
    assert values["x"].tolist() == [[0.2, 0.1], [0.2, 0.15]]


def test_names_are_given_by_position() -> None:
    values = carry_out("[PQ, PV, ... bus types\n REF NONE BUS_I] = idx_bus;")
    assert {name: value.item() for name, value in values.items()} == {"PQ": 1, "PV": 2, "REF": 3, "NONE": 4, "BUS_I": 1}


def test_variable_hides_the_function_of_its_name() -> None:
    assert carry_out("abs = [1 -2]; x = abs(1, 2);")["x"].tolist() == [[-2]]


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("for i = 1:2", "expected '=', found 'i'"),
        ("if mpc.baseMVA == 1, mpc.bus(:, 3) = 0; end", "expected '=', found 'mpc.baseMVA'"),
        ("mpc.bus(:, 3) = input('load');", "'input' is not known here"),
        ("mpc.bus(:, 3) = __import__('os');", "expected a number, found '_'"),
        ("[rows, columns] = size(mpc.bus);", "several values come only from idx_bus"),
        ("mpc.bus(:, 3) = mpc.bus(:, 3)';", 'expected the end, found "\'"'),
        ("mpc.bus(:, 3) += 1;", "expected '=', found '+'"),
        ("mpc.bus(:, 3) = mpc.bus(:, 3) * mpc.bus(:, 4);", "'*' of matrices"),
        ("mpc.bus(:, 3) = 1 / mpc.bus(:, 4);", "'/' of matrices"),
        ("mpc.bus(:, 3) = mpc.bus(:, 4)^2;", "'^' of matrices"),
        ("mpc.bus(:, 3) = mpc.bus(:, 3) + mpc.branch(:, 3);", "3 x 1 and 2 x 1 values do not fit"),
        ("x = mpc.bus(:, 3) + mpc.bus(1, :);", "3 x 1 and 1 x 13 values do not fit"),
        ("mpc.bus(:, 3) = mpc.branch(:, 3);", "2 x 1 values do not fit a block of 3 x 1"),
        ("mpc.bus(4, 3) = 1;", "whole numbers, here from 1 to 3"),
        ("mpc.bus(:, 1.5) = 1;", "whole numbers, here from 1 to 13"),
        ("mpc.bus(3:2, 3) = 1;", "ranges go up"),
        ("mpc.bus(mpc.bus(:, 2) > 1, 3) = 1;", "expected ',', found '>'"),
        ("mpc.bus(:, PD) = 0;", "'PD' is not known here"),
        ("mpc.bus(3) = 0;", "expected ',', found ')'"),
        ("mpc.baseMVA(1, 1) = 0;", "only tables have rows and columns"),
        ("mpc.bus(:, 3) = 0!", "expected the end, found '!'"),
        ("mpc.bus(:, 3) = ;", "expected a number, found the end"),
        ("mpc.bus(:, 3) = [1; 2; 3 4];", "has 2 columns, the first row 1"),
        ("mpc.bus(:, 3) = [1kW; 2; 3];", "expected the next cell, found 'kW'"),
        ("mpc.bus(:, 3) = [mpc.bus(:, 3) 1];", "dimension"),
        ("mpc.bus(:, 3) = '0';", "expected a number, found \"'0'\""),
        ("mpc.bus(:, 3) = " + "(" * 5000 + "0" + ")" * 5000, "recursion"),
        ("mpc.gencost = [2 0 0 3\nmpc.bus(:, 3) = 0;", "expected a number, found '='"),
        ("[PD, 4] = idx_bus;", "expected a name, found '4'"),
        ("clear all", "expected '=', found 'all'"),
        ("disp('done')", "'disp' is not known here"),
        (f"x = mpc.bus([{'1 ' * 4000}], [{'1 ' * 4000}]);", "more than 10000000 cells"),
        ("x = mpc.bus; " + "x = [x; x]; " * 20, "more than 10000000 cells"),
    ],
)
def test_statement_that_is_not_understood_is_refused(code: str, why: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        carry_out(TABLES + code)
    assert why in str(caught.value)


def test_statement_knows_its_line_and_target() -> None:
    found = list(statements("% a comment\na = 1; %{\nb.c(1, 2) = [3\n4]\n%{\nd = 5\n%}\n\ne = 6, 'f'"))
    assert [(statement.line, statement.target) for statement in found] == [(2, "a"), (3, "b.c"), (9, "e"), (9, "'f'")]
    assert str(found[0]) == "a = 1"


@pytest.mark.parametrize(
    ("code", "is_whole"),
    [
        ("names = {'a'; 'it''s'; \"b\"};", True),
        ("x = [1 2\ny = 3", False),
        ("x = [1 2\ny = 3);", False),
        ("x] = [1 2\ny = 3;", False),
        ("x = y '; y = 3; z = 4 ';", False),
    ],
)
def test_statement_that_may_hide_another_is_not_whole(code: str, is_whole: bool) -> None:
    (statement,) = statements(code)
    assert statement.is_whole is is_whole
