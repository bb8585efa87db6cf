"""A small, safe interpreter of the MATLAB that case files are written in: text into named tables.

It carries out assignments of tables, of blocks of tables (``mpc.bus(:, [PD QD]) = ...``) and of names by
position (``[PQ, PV] = idx_bus``), with arithmetic cell by cell and a few functions, token by token and never
by Python's ``eval``.  As in MATLAB every value is a matrix, a number one of a single cell.  Any other
statement raises `UnsupportedError`, for it might change the data.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from dlmp.network.model import FloatArray, IntArray

LARGEST_TABLE = 10_000_000
"""Cells that one block or matrix may have; no feeder needs as many."""

OPERATORS: dict[str, Callable[..., FloatArray]] = dict(
    zip("+-*/^", (np.add, np.subtract, np.multiply, np.divide, np.power), strict=True)
)

FUNCTIONS: dict[str, Callable[..., FloatArray]] = {
    name: getattr(np, name) for name in ("sin", "cos", "tan", "asin", "acos", "atan", "sqrt", "exp", "abs")
}

NUMBERS = {"pi": np.pi, "Inf": np.inf, "inf": np.inf, "NaN": np.nan, "nan": np.nan}

CELL_ENDS = (",", " ", ";", "\n", "]")

BLANK = r"(?:[ \t\r\f\v]|\.\.\.[^\n]*\n)"

TOKEN = re.compile(
    rf"""(?P<gap>(?<=[\w.)\]}}'"]){BLANK}++(?![-+]{BLANK}|\.?[*/^]|[:,;)\]}}\n%#]))
      | (?P<blank>{BLANK}+|[%#][^\n]*)
      | (?P<number>(?:\d+(?:\.(?![*/^]|\.\.)\d*)?|\.\d+)(?:[eE][+-]?\d+)?)
      | (?P<name>[A-Za-z]\w*(?:\.[A-Za-z]\w*)*)
      | (?P<text>'(?:[^'\n]|'')*'|"[^"\n]*")
      | (?P<operator>\.[*/^]|.|\n)""",
    re.VERBOSE | re.ASCII,
)
"""A gap is a blank that separates two cells where it stands in a matrix: ``[1 -2]``, but not ``[1 - 2]``."""


class UnsupportedError(Exception):
    """A statement is outside the part of MATLAB that is understood; the message says why."""


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


@dataclass(frozen=True)
class Statement:
    """One statement of a MATLAB file, without comments; ``str`` of it has a blank between any two tokens."""

    tokens: Sequence[_Token]

    def __str__(self) -> str:
        return " ".join(token.text for token in self.tokens)

    @property
    def line(self) -> int:
        """Line of the file on which it begins."""
        return self.tokens[0].line

    @property
    def target(self) -> str:
        """Its first word: ``mpc.bus`` in ``mpc.bus(1, 3) = 0``."""
        return self.tokens[0].text

    @property
    def is_whole(self) -> bool:
        """Whether no bracket or quote is left open, which could hide the statements that follow."""
        brackets = "".join(token.text for token in self.tokens if token.text in "()[]{}")
        while brackets != (outer := re.sub(r"\(\)|\[\]|\{\}", "", brackets)):
            brackets = outer
        return not brackets and not any("=" in token.text for token in self.tokens if token.kind == "text")

    def run(self, values: dict[str, FloatArray], outputs: Mapping[str, Sequence[float]]) -> None:
        """Carry out the statement.

        Parameters
        ----------
        values
            The variables by name, which the statement may change; ``mpc.bus`` is a variable of that name.
        outputs
            Functions that give numbers to several names at once: what each returns, in order.

        Raises
        ------
        UnsupportedError
            If any part of the statement is not understood.

        """
        try:
            with np.errstate(all="ignore"):
                _Reader([*self.tokens, _Token("", "", 0)], values).run(outputs)
        except (ValueError, RecursionError) as error:
            raise UnsupportedError(str(error)) from error


def statements(text: str) -> Iterator[Statement]:
    """Split the text of a MATLAB file into statements."""
    line, inside = 1, ""
    found: list[_Token] = []
    for match in TOKEN.finditer(_without_block_comments(text) + "\n"):
        kind, piece = str(match.lastgroup), match.group()
        if piece in "([{":
            inside += piece
        elif piece in ")]}":
            inside = inside[:-1]
        if not inside and piece in ";,\n":
            if found:
                yield Statement(found)
            found = []
        elif kind == "gap" and inside.endswith("["):
            found.append(_Token(kind, " ", line))
        elif kind not in ("gap", "blank"):
            found.append(_Token(kind, piece, line))
        line += piece.count("\n")
    if found:
        yield Statement(found)


def size_of(table: FloatArray) -> str:
    """Rows and columns of `table` for a message: ``3 x 13``."""
    return " x ".join(map(str, table.shape))


def _without_block_comments(text: str) -> str:
    """Blank the lines from ``%{`` to ``%}``, which may be nested."""
    depth, lines = 0, []
    for line in text.split("\n"):
        depth += line.strip() in ("%{", "#{")
        lines.append("" if depth else line)
        depth -= depth > 0 and line.strip() in ("%}", "#}")
    return "\n".join(lines)


def _scalar(number: float) -> FloatArray:
    return np.array([[float(number)]])


@dataclass
class _Reader:
    """Carries out a statement while reading it from left to right."""

    tokens: Sequence[_Token]
    values: dict[str, FloatArray]
    position: int = 0
    extent: int | None = None
    """Rows or columns of the table that is being indexed: the value of ``end``."""

    @property
    def next(self) -> _Token:
        return self.tokens[self.position]

    def refuse(self, wanted: str) -> NoReturn:
        raise UnsupportedError(f"expected {wanted}, found {repr(self.next.text) if self.next.kind else 'the end'}")

    def take(self, *texts: str) -> str:
        """Read the next token if it is one of `texts`, else nothing."""
        text = self.next.text if self.next.text in texts else ""
        self.position += bool(text)
        return text

    def expect(self, text: str) -> None:
        if not self.take(text):
            self.refuse(repr(text))

    def name(self) -> str:
        return self.take(self.next.text) if self.next.kind == "name" else self.refuse("a name")

    def run(self, outputs: Mapping[str, Sequence[float]]) -> None:
        if self.take("["):
            self.assign_names(outputs)
        else:
            self.assign(self.name())
        if self.next.kind:
            self.refuse("the end")

    def assign_names(self, outputs: Mapping[str, Sequence[float]]) -> None:
        """The rest of ``[PQ, PV] = idx_bus``: names are given by position."""
        names = []
        while not self.take("]"):
            names.append(self.name())
            self.take(",", " ")
        self.expect("=")
        numbers = outputs.get(self.name(), ())
        if len(names) > len(numbers):
            raise UnsupportedError(f"several values come only from {', '.join(outputs)}")
        self.values.update(zip(names, map(_scalar, numbers), strict=False))

    def assign(self, name: str) -> None:
        """The rest of ``name = value`` or ``name(rows, columns) = value``."""
        if self.next.text != "(":
            self.expect("=")
            self.values[name] = self.value()
            return
        table = self.lookup(name).copy()
        block = self.block(table)
        self.expect("=")
        value = self.value()
        if value.size != 1 and value.shape != table[block].shape:
            raise UnsupportedError(f"{size_of(value)} values do not fit a block of {size_of(table[block])}")
        table[block] = value
        self.values[name] = table

    def lookup(self, name: str) -> FloatArray:
        if name in self.values:
            return self.values[name]
        if name in NUMBERS:
            return _scalar(NUMBERS[name])
        raise UnsupportedError(f"{name!r} is not known here")

    def value(self) -> FloatArray:
        return self.chain(("+", "-"), self.product)

    def product(self) -> FloatArray:
        return self.chain(("*", ".*", "/", "./"), lambda: self.signed(self.power))

    def power(self) -> FloatArray:
        return self.chain(("^", ".^"), lambda: self.signed(self.atom))

    def chain(self, operators: Sequence[str], operand: Callable[[], FloatArray]) -> FloatArray:
        """Operands joined from left to right."""
        left = operand()
        while operator := self.take(*operators):
            left = _combine(operator, left, operand())
        return left

    def signed(self, operand: Callable[[], FloatArray]) -> FloatArray:
        if self.take("-"):
            return -self.signed(operand)
        return self.signed(operand) if self.take("+") else operand()

    def atom(self) -> FloatArray:
        """A number, variable, block of a table, function value, matrix or value in parentheses."""
        if self.next.kind == "number":
            return _scalar(float(self.take(self.next.text)))
        if self.take("["):
            return self.matrix()
        if self.next.text == "(":
            return self.parenthesis()
        return self.named(self.name()) if self.next.kind == "name" else self.refuse("a number")

    def named(self, name: str) -> FloatArray:
        if name == "end" and self.extent is not None:
            return _scalar(self.extent)
        if name in FUNCTIONS and name not in self.values and self.next.text == "(":
            return FUNCTIONS[name](self.parenthesis())
        value = self.lookup(name)
        return value[self.block(value)] if self.next.text == "(" else value

    def parenthesis(self) -> FloatArray:
        self.expect("(")
        value = self.value()
        self.expect(")")
        return value

    def block(self, table: FloatArray) -> tuple[npt.NDArray[np.intp], ...]:
        """``(rows, columns)`` of `table`."""
        if table.size == 1:
            raise UnsupportedError("only tables have rows and columns")
        self.expect("(")
        rows = self.index(table.shape[0])
        self.expect(",")
        columns = self.index(table.shape[1])
        self.expect(")")
        _check_size(rows.size * columns.size)
        return np.ix_(rows, columns)

    def index(self, extent: int) -> IntArray:
        """``:`` or some of the rows or columns 1 to `extent`, counted from 0."""
        outer, self.extent = self.extent, extent
        chosen = np.arange(1.0, extent + 1) if self.take(":") else self.cell().ravel()
        self.extent = outer
        if not np.all((chosen >= 1) & (chosen <= extent) & (chosen == np.floor(chosen))):
            raise UnsupportedError(f"rows and columns are whole numbers, here from 1 to {extent}")
        return chosen.astype(np.int64) - 1

    def cell(self) -> FloatArray:
        """A value, or in an index a range ``first:last``."""
        if self.next.kind == "number" and self.tokens[self.position + 1].text in CELL_ENDS:
            return self.atom()  # like most cells of a case, which this spares the way through all operators
        first = self.value()
        if self.extent is None or not self.take(":"):
            return first
        last = self.value()
        if not (first.size == last.size == 1 and 1 <= first <= last <= self.extent):
            raise UnsupportedError(f"ranges go up, here from 1 to {self.extent}")
        return np.arange(first.item(), last.item() + 1)[np.newaxis]

    def matrix(self) -> FloatArray:
        """The rest of ``[cell, cell; cell, cell]``."""
        rows: list[tuple[int, list[FloatArray]]] = [(self.next.line, [])]
        while not self.take("]"):
            if self.take(";", "\n"):
                rows.append((self.next.line, []))
            elif not self.take(",", " "):
                rows[-1][1].append(self.cell())
                if self.next.text not in CELL_ENDS:
                    self.refuse("the next cell")
        return _join([(line, cells) for line, cells in rows if cells])


def _join(rows: list[tuple[int, list[FloatArray]]]) -> FloatArray:
    """Matrix of `rows`, each with its line in the file."""
    _check_size(sum(cell.size for _, cells in rows for cell in cells))
    joined = [np.hstack(cells) for _, cells in rows]
    for (line, _), row in zip(rows, joined, strict=True):
        if row.shape[1] != joined[0].shape[1]:
            raise UnsupportedError(f"line {line} has {row.shape[1]} columns, the first row {joined[0].shape[1]}")
    return np.vstack(joined) if joined else np.empty((0, 0))


def _check_size(cells: int) -> None:
    if cells > LARGEST_TABLE:
        raise UnsupportedError(f"a table of more than {LARGEST_TABLE} cells is not carried out")


def _combine(operator: str, left: FloatArray, right: FloatArray) -> FloatArray:
    """``left operator right``, cell by cell; products of matrices are not understood."""
    is_table = left.size != 1, right.size != 1
    if {"*": all(is_table), "/": is_table[1], "^": any(is_table)}.get(operator):
        raise UnsupportedError(f"{operator!r} of matrices is not understood (cell by cell it is '.{operator}')")
    if not (_fits(left, right) or _fits(right, left)):
        raise UnsupportedError(f"{size_of(left)} and {size_of(right)} values do not fit")
    return OPERATORS[operator[-1]](left, right)


def _fits(small: FloatArray, large: FloatArray) -> bool:
    """Whether each cell of `large` has its partner when `small` is repeated along its rows or columns."""
    return all(one in (1, other) for one, other in zip(small.shape, large.shape, strict=True))
