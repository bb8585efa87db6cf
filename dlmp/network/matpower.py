"""MATPOWER case files as networks, with the statements below the tables carried out.

Most distribution cases give ohm and kW and convert them in MATLAB code after the tables.  The part of
MATLAB that they need is interpreted here, token by token and never by Python's ``eval``: assignments of
tables, of blocks of tables (``mpc.bus(:, [PD QD]) = ...``) and of variables, arithmetic, a few functions
and MATPOWER's column names.  Any other statement is a problem, for it might change the data.  The branch
model is that of the MATPOWER User's Manual, chapter 3: an ideal transformer at the from end of a pi section.
"""

import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dlmp.errors import InputError, Problem, Problems
from dlmp.network.model import BALANCED_PHASE, ComplexArray, FloatArray, IntArray, Network, TextArray, repeated
from dlmp.units import BASE_KVA, KW_PER_MW

Value = np.float64 | FloatArray

REMEDY = "write plain numbers instead, as MATPOWER's savecase does"

CONSTANTS = {
    "idx_bus": "PQ=1 PV=2 REF=3 NONE=4 BUS_I=1 BUS_TYPE=2 PD=3 QD=4 GS=5 BS=6 BUS_AREA=7 VM=8 VA=9 BASE_KV=10 "
    "ZONE=11 VMAX=12 VMIN=13 LAM_P=14 LAM_Q=15 MU_VMAX=16 MU_VMIN=17",
    "idx_brch": "F_BUS=1 T_BUS=2 BR_R=3 BR_X=4 BR_B=5 RATE_A=6 RATE_B=7 RATE_C=8 TAP=9 SHIFT=10 BR_STATUS=11 PF=14 "
    "QF=15 PT=16 QT=17 MU_SF=18 MU_ST=19 ANGMIN=12 ANGMAX=13 MU_ANGMIN=20 MU_ANGMAX=21",
    "idx_gen": "GEN_BUS=1 PG=2 QG=3 QMAX=4 QMIN=5 VG=6 MBASE=7 GEN_STATUS=8 PMAX=9 PMIN=10 MU_PMAX=22 MU_PMIN=23 "
    "MU_QMAX=24 MU_QMIN=25 PC1=11 PC2=12 QC1MIN=13 QC1MAX=14 QC2MIN=15 QC2MAX=16 RAMP_AGC=17 RAMP_10=18 RAMP_30=19 "
    "RAMP_Q=20 APF=21",
    "idx_cost": "PW_LINEAR=1 POLYNOMIAL=2 MODEL=1 STARTUP=2 SHUTDOWN=3 NCOST=4 COST=5",
}
"""What MATPOWER's index functions return, in their order: bus types, columns counted from 1, cost models."""

OUTPUTS = {name: dict(re.findall(r"(\w+)=(\d+)", text)) for name, text in CONSTANTS.items()}

COLUMN = {name: int(number) for outputs in OUTPUTS.values() for name, number in outputs.items()}

COLUMN_COUNT = {"bus": COLUMN["VMIN"], "gen": COLUMN["GEN_STATUS"], "branch": COLUMN["BR_STATUS"]}
"""Columns that each table must have at least."""

LARGEST_BLOCK = 10_000_000
"""Cells that a statement may pick from a table; no feeder needs as many."""

OPERATORS: tuple[dict[str, Callable[[Value, Value], Value]], ...] = (
    {"+": np.add, "-": np.subtract},
    {"*": np.multiply, ".*": np.multiply, "/": np.divide, "./": np.divide},
    {"^": np.power, ".^": np.power},
)
"""MATLAB's binary operators, the loosest first; signs bind tighter than products, looser than powers."""

NUMBERS = {"pi": np.float64(np.pi)} | {name: np.float64(name) for name in ("Inf", "inf", "NaN", "nan")}

FUNCTIONS: dict[str, Callable[[Value], Value]] = {
    **{"sin": np.sin, "cos": np.cos, "tan": np.tan, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan},
    **{"sqrt": np.sqrt, "exp": np.exp, "abs": np.abs},
}

TOKEN = re.compile(
    r"""(?P<blank>[ \t\r\f\v]+ | \.\.\.[^\n]*\n | [%#][^\n]*)
      | (?P<newline>\n)
      | (?P<number>(?:\d+(?:\.(?![*/^])\d*)?|\.\d+)(?:[eE][+-]?\d+)?)
      | (?P<name>[A-Za-z]\w*(?:\.[A-Za-z]\w*)*)
      | (?P<text>'(?:[^'\n]|'')*'|"[^"\n]*")
      | (?P<operator>\.[*/^]|.)""",
    re.VERBOSE | re.ASCII,
)


def from_matpower(
    path: Path | str,
    *,
    v_min_pu: float | None = None,
    v_max_pu: float | None = None,
    source_v_pu: float | None = None,
) -> Network:
    """Turn a MATPOWER case file (``.m``, format version 2) into a `Network`.

    Reference buses become sources, bus demands become elements ``load <bus>``; branches out of service
    and isolated buses are left out.  The format states three-phase power and line-to-line voltage: a file
    in quantities of one phase (case533mt says so in a comment) is read as it stands.

    Parameters
    ----------
    path
        The file.
    v_min_pu, v_max_pu
        Voltage band [pu] of every bus; default: the file's.
    source_v_pu
        Voltage magnitude [pu] of every reference bus; default: the set point of its generators.

    Raises
    ------
    InputError
        With every statement that cannot be carried out and every bad value.

    """
    problems = Problems()
    case = _read_case(Path(path), problems)
    _check_buses(case, ["VMIN"] * (v_min_pu is None) + ["VMAX"] * (v_max_pu is None), problems)
    _check_branches(case, problems)
    _check_generators(case, source_v_pu is None, problems)
    problems.raise_if_any()
    return _network(case, (v_min_pu, v_max_pu), source_v_pu)


class _UnsupportedError(Exception):
    """A statement is outside the part of MATLAB that is understood; the message says why."""


class _Token(NamedTuple):
    kind: str
    text: str
    line: int
    spaced: bool
    """Whether a blank stands before it: inside ``[]`` a blank separates."""

    @property
    def shown(self) -> str:
        """The token for a message."""
        return repr(self.text) if self.kind else "the end"


@dataclass
class _Workspace:
    """The variables of a case file while it is carried out; ``mpc.bus`` is a variable of that name."""

    struct: str = "mpc"
    case_name: str = ""
    values: dict[str, Value] = field(default_factory=lambda: dict(NUMBERS))
    failed: set[str] = field(default_factory=set)
    """First words of the statements that could not be carried out."""

    def is_unused(self, name: str) -> bool:
        """Whether `name` is a field of the case that no network needs, such as ``gencost`` or ``bus_name``."""
        struct, _, member = name.partition(".")
        return struct == self.struct and member not in ("", "version", "baseMVA", *COLUMN_COUNT)


def _statements(text: str) -> Iterator[list[_Token]]:
    """Split a file into statements, without comments."""
    depth, line, spaced = 0, 1, False
    found: list[_Token] = []
    for match in TOKEN.finditer(_without_block_comments(text) + "\n"):
        kind, piece = str(match.lastgroup), match.group()
        depth += (piece in ("(", "[", "{")) - (piece in (")", "]", "}"))
        if depth <= 0 and piece in (";", ",", "\n"):
            if found:
                yield found
            found, depth = [], 0
        elif kind != "blank":
            found.append(_Token(kind, piece, line, spaced))
        spaced = kind == "blank"
        line += piece.count("\n")
    if found:
        yield found


def _without_block_comments(text: str) -> str:
    """Blank the lines from ``%{`` to ``%}``, which may be nested."""
    depth, lines = 0, []
    for line in text.split("\n"):
        depth += line.strip() in ("%{", "#{")
        lines.append("" if depth else line)
        depth -= depth > 0 and line.strip() in ("%}", "#}")
    return "\n".join(lines)


def _carry_out(text: str, file: str, problems: Problems) -> _Workspace:
    """Run the statements of `text`; those that cannot be run are added to `problems`.

    An assignment to an unused field that is not understood only makes the field unknown.
    """
    workspace = _Workspace()
    for count, tokens in enumerate(_statements(text)):
        first = tokens[0].text
        if first == "return":
            break
        if len(tokens) == 1 and first in ("end", "endfunction"):
            continue
        try:
            if first == "function" and count == 0:
                _read_header(tokens, workspace)
            else:
                with np.errstate(all="ignore"):
                    _Statement(tokens, workspace).run()
        except (_UnsupportedError, ValueError, RecursionError) as error:
            if workspace.is_unused(first) and _is_whole(tokens):
                workspace.values.pop(first, None)
                continue
            workspace.failed.add(first)
            shown = textwrap.shorten(" ".join(token.text for token in tokens), 100)
            problems.add(f"{file} line {tokens[0].line}", "statement", shown, f"{error}; {REMEDY}")
    return workspace


def _is_whole(tokens: list[_Token]) -> bool:
    """Whether no bracket or quote is left open, which could hide the statements that follow."""
    count = Counter(token.text for token in tokens)
    closed = all(count[left] == count[right] for left, right in ("()", "[]", "{}"))
    return closed and not any("=" in token.text for token in tokens if token.kind == "text")


def _read_header(tokens: list[_Token], workspace: _Workspace) -> None:
    if [token.kind for token in tokens[1:4]] != ["name", "operator", "name"] or tokens[2].text != "=":
        raise _UnsupportedError("only files of format version 2 (function mpc = name) are read")
    workspace.struct, workspace.case_name = tokens[1].text, tokens[3].text


@dataclass
class _Statement:
    """One statement, carried out while it is read from left to right."""

    tokens: list[_Token]
    workspace: _Workspace
    position: int = 0
    in_brackets: bool = False
    extent: int | None = None
    """Rows or columns of the table that is being indexed: the value of ``end``."""

    @property
    def next(self) -> _Token:
        return self.tokens[self.position] if self.position < len(self.tokens) else _Token("", "", 0, False)

    def take(self, *texts: str) -> str:
        """Read the next token if it is one of `texts`, else nothing."""
        text = self.next.text if self.next.text in texts else ""
        self.position += bool(text)
        return text

    def expect(self, text: str) -> None:
        if not self.take(text):
            raise _UnsupportedError(f"expected {text!r}, found {self.next.shown}")

    def take_name(self) -> str:
        if self.next.kind != "name":
            raise _UnsupportedError(f"expected a name, found {self.next.shown}")
        self.position += 1
        return self.tokens[self.position - 1].text

    def run(self) -> None:
        if self.take("define_constants"):
            self.workspace.values.update({name: np.float64(number) for name, number in COLUMN.items()})
        elif self.take("["):
            self.name_columns()
        else:
            self.assign(self.take_name())
        if self.next.kind:
            raise _UnsupportedError(f"expected the end, found {self.next.shown}")

    def name_columns(self) -> None:
        """``[PQ, PV, ...] = idx_bus``: names are given by position."""
        names = []
        while not self.take("]"):
            names.append(self.take_name())
            self.take(",")
        self.expect("=")
        numbers = OUTPUTS.get(self.take_name(), {}).values()
        if len(names) > len(numbers):
            raise _UnsupportedError(f"several values come only from {', '.join(OUTPUTS)}")
        self.workspace.values.update(zip(names, map(np.float64, numbers), strict=False))

    def assign(self, name: str) -> None:
        """``name = value`` or ``name(rows, columns) = value``."""
        values = self.workspace.values
        if name == self.workspace.struct:
            raise _UnsupportedError("the case as a whole cannot be assigned")
        if self.next.text == "(":
            table = np.array(self.lookup(name))
            block = self.block(table)
            self.expect("=")
            value = self.value()
            if value.ndim and value.shape != table[block].shape:
                raise _UnsupportedError(f"{_size(value)} values do not fit a block of {_size(table[block])}")
            table[block] = value
            values[name] = table
            return
        self.expect("=")
        if name != f"{self.workspace.struct}.version":
            values[name] = self.value()
        elif not self.take("'2'", '"2"'):
            raise _UnsupportedError("only format version 2 is read")

    def lookup(self, name: str) -> Value:
        if name not in self.workspace.values:
            raise _UnsupportedError(f"{name!r} is not known here")
        return self.workspace.values[name]

    def value(self, level: int = 0) -> Value:
        """An expression of the operators from `level` of `OPERATORS` on, joined from left to right."""
        if level == 2 and (sign := self.take("+", "-")):
            return _signed(sign, self.value(level))
        left = self.value(level + 1) if level < 2 else self.atom()
        while self.next.text in OPERATORS[level] and not self.at_next_cell():
            operator = self.take(*OPERATORS[level])
            sign = self.take("+", "-") if level == 2 else ""
            left = _combine(operator, left, _signed(sign, self.value(level + 1) if level < 2 else self.atom()))
        return left

    def at_next_cell(self) -> bool:
        """Whether the sign ahead begins a cell, as in ``[1 -2]``, instead of joining two, as in ``[1 - 2]``."""
        begins = self.in_brackets and self.next.spaced and self.next.text in OPERATORS[0]
        return begins and not any(token.spaced for token in self.tokens[self.position + 1 : self.position + 2])

    def atom(self) -> Value:
        """A number, variable, block of a table, function value, matrix or expression in parentheses."""
        token = self.next
        if self.take("["):
            return self.matrix()
        if self.take("("):
            return self.parenthesis()
        if token.kind not in ("number", "name"):
            raise _UnsupportedError(f"expected a number, found {token.shown}")
        self.position += 1
        if token.kind == "number":
            return np.float64(token.text)
        if token.text == "end" and self.extent is not None:
            return np.float64(self.extent)
        called = self.next.text == "(" and not (self.in_brackets and self.next.spaced)
        if called and token.text in FUNCTIONS and token.text not in self.workspace.values:
            self.expect("(")
            return FUNCTIONS[token.text](self.parenthesis())
        value = self.lookup(token.text)
        return _simple(np.asarray(value)[self.block(value)]) if called else value

    def parenthesis(self) -> Value:
        """The rest of ``(value)``, where blanks do not separate."""
        outer, self.in_brackets = self.in_brackets, False
        value = self.value()
        self.expect(")")
        self.in_brackets = outer
        return value

    def block(self, table: Value) -> tuple[npt.NDArray[np.intp], ...]:
        """``(rows, columns)`` of `table`."""
        if table.ndim != 2:
            raise _UnsupportedError("only tables have rows and columns")
        outer = self.in_brackets, self.extent
        self.expect("(")
        rows = self.index(table.shape[0])
        self.expect(",")
        columns = self.index(table.shape[1])
        self.expect(")")
        self.in_brackets, self.extent = outer
        if rows.size * columns.size > LARGEST_BLOCK:
            raise _UnsupportedError(f"the block has more than {LARGEST_BLOCK} cells")
        return np.ix_(rows, columns)

    def index(self, extent: int) -> IntArray:
        """``:`` or some of the rows or columns 1 to `extent`, counted from 0."""
        self.in_brackets, self.extent = False, extent
        if self.take(":"):
            return np.arange(extent)
        chosen = np.ravel(self.cell())
        if not np.all((chosen >= 1) & (chosen <= extent) & (chosen == np.floor(chosen))):
            raise _UnsupportedError(f"rows and columns are whole numbers, here from 1 to {extent}")
        return chosen.astype(np.int64) - 1

    def cell(self) -> Value:
        """A value, or in an index a range ``first:last``."""
        first = self.value()
        if self.extent is None or not self.take(":"):
            return first
        last = self.value()
        if first.ndim or last.ndim or not 1 <= first <= last <= self.extent:
            raise _UnsupportedError(f"ranges go up, here from 1 to {self.extent}")
        return np.arange(float(first), float(last) + 1)

    def matrix(self) -> Value:
        """The rest of ``[cell cell; cell cell]``."""
        outer, self.in_brackets = self.in_brackets, True
        rows: list[tuple[int, list[Value]]] = [(self.next.line, [])]
        while not self.take("]"):
            if self.take(";", "\n"):
                rows.append((self.next.line, []))
            elif not self.take(","):
                rows[-1][1].append(self.cell())
                if not self.next.spaced and self.next.text not in (",", ";", "\n", "]"):
                    raise _UnsupportedError(f"expected the next cell, found {self.next.shown}")
        self.in_brackets = outer
        return _join([(line, cells) for line, cells in rows if cells])


def _join(rows: list[tuple[int, list[Value]]]) -> Value:
    """Table of `rows`, each with its line in the file."""
    if not rows:
        return np.empty((0, 0))
    joined = [np.hstack(cells) for _, cells in rows]
    for (line, _), row in zip(rows, joined, strict=True):
        if row.shape[-1] != joined[0].shape[-1]:
            raise _UnsupportedError(f"line {line} has {row.shape[-1]} columns, the first row {joined[0].shape[-1]}")
    return _simple(np.vstack(joined))


def _simple(table: FloatArray) -> Value:
    """A table of one cell is a number."""
    return np.float64(table.item()) if table.size == 1 else table


def _size(value: Value) -> str:
    return " x ".join(map(str, np.atleast_2d(value).shape))


def _fits(small: Value, large: Value) -> bool:
    """Whether each cell of `large` has its partner when `small` is repeated along its rows or columns."""
    return all(one in (1, other) for one, other in zip(small.shape, large.shape, strict=False))


def _signed(sign: str, value: Value) -> Value:
    return np.negative(value) if sign == "-" else value


def _combine(operator: str, left: Value, right: Value) -> Value:
    """``left operator right``, cell by cell; products of matrices are not understood."""
    of_matrices = {"*": min(left.ndim, right.ndim), "/": right.ndim, "^": max(left.ndim, right.ndim)}
    if of_matrices.get(operator):
        raise _UnsupportedError(f"{operator!r} of matrices is not understood (cell by cell it is '.{operator}')")
    if not (_fits(left, right) or _fits(right, left)):
        raise _UnsupportedError(f"{_size(left)} and {_size(right)} values do not fit")
    return next(operations[operator] for operations in OPERATORS if operator in operations)(left, right)


@dataclass(frozen=True)
class _Case:
    """The tables of a case file in MATPOWER's units; branches and generators are those in service."""

    name: str
    base_mva: float
    bus: FloatArray
    gen: FloatArray
    branch: FloatArray

    @property
    def branch_label(self) -> TextArray:
        """``<from>-<to>`` of each branch, parallel ones numbered from ``#2``."""
        ends = [f"{start:.0f}-{end:.0f}" for start, end in self.branch[:, :2]]
        count: Counter[str] = Counter()
        for position, name in enumerate(ends):
            count[name] += 1
            ends[position] = name if count[name] == 1 else f"{name}#{count[name]}"
        return np.array(ends, dtype=str)

    def of_type(self, bus_type: str) -> FloatArray:
        """Numbers of the buses of a type."""
        numbers: FloatArray = _column(self.bus, "BUS_I")[_column(self.bus, "BUS_TYPE") == COLUMN[bus_type]]
        return numbers


def _column(table: FloatArray, name: str) -> FloatArray:
    column: FloatArray = table[:, COLUMN[name] - 1]
    return column


def _labels(numbers: FloatArray, kind: str = "") -> TextArray:
    return np.array([f"{kind}{number:.0f}" for number in numbers], dtype=str)


def _read_case(path: Path, problems: Problems) -> _Case:
    """Read the file; raises `InputError` at once where a table is missing, for there is nothing to check then."""
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        message = f"cannot be read ({error.strerror}); give the path of a MATPOWER case"
        raise InputError([Problem(path.name, "file", str(path), message)]) from error
    workspace = _carry_out(text, path.name, problems)
    tables: dict[str, Value] = {}
    for name, count in {"baseMVA": 0, **COLUMN_COUNT}.items():
        full_name = f"{workspace.struct}.{name}"
        value = workspace.values.get(full_name)
        if value is None:
            if full_name not in workspace.failed:
                problems.add(path.name, full_name, "missing", "a case must assign it")
        elif not count and not (value.ndim == 0 and 0 < value < np.inf):
            problems.add(path.name, full_name, value.tolist(), "must be one number above zero [MVA]")
        elif count and value.size and (value.ndim != 2 or value.shape[1] < count):
            problems.add(path.name, full_name, _size(value), f"needs at least {count} columns")
        else:
            tables[name] = value if value.size else np.zeros((0, count))
    if not tables.keys() >= COLUMN_COUNT.keys():
        problems.raise_if_any()
    bus, gen, branch = (np.asarray(tables[name]) for name in COLUMN_COUNT)
    return _Case(
        name=workspace.case_name or path.stem,
        base_mva=float(tables.get("baseMVA", np.nan)),
        bus=bus,
        gen=gen[_column(gen, "GEN_STATUS") > 0],
        branch=branch[_column(branch, "BR_STATUS") != 0],
    )


def _check_finite(owner: TextArray, table: FloatArray, names: Iterable[str], problems: Problems) -> None:
    for name in names:
        column = _column(table, name)
        for row in np.flatnonzero(~np.isfinite(column)):
            problems.add(str(owner[row]), name, float(column[row]), "must be a finite number")


def _check_buses(case: _Case, band: list[str], problems: Problems) -> None:
    """Numbers, types and values; `band` are the voltage limits to be taken from the file."""
    number, bus_type = _column(case.bus, "BUS_I"), _column(case.bus, "BUS_TYPE")
    owner = _labels(number, "bus ")
    for row in np.flatnonzero(~((number >= 1) & (number == np.floor(number)))):
        problems.add(f"bus row {row + 1}", "BUS_I", float(number[row]), "must be a whole number above zero")
    for name in repeated(owner):
        problems.add(name, "BUS_I", name.removeprefix("bus "), "stands more than once; bus numbers must be unique")
    for row in np.flatnonzero(~np.isin(bus_type, (1, 2, 3, 4))):
        problems.add(str(owner[row]), "BUS_TYPE", float(bus_type[row]), "must be 1, 2, 3 or 4")
    if not len(case.of_type("REF")):
        problems.add(case.name, "BUS_TYPE", "no 3", "give the bus of the substation type 3 (reference)")
    _check_finite(owner, case.bus, ["PD", "QD", "GS", "BS", "VA", "BASE_KV", *band], problems)
    demand = np.stack([_column(case.bus, name) for name in ("PD", "QD", "GS", "BS")])
    connected = np.isin(number, case.branch[:, :2]) | demand.any(axis=0)
    for row in np.flatnonzero(np.isin(number, case.of_type("NONE")) & connected):
        problems.add(str(owner[row]), "BUS_TYPE", 4, "an isolated bus has no branch, load or shunt; make it type 1")


def _check_branches(case: _Case, problems: Problems) -> None:
    owner = np.char.add("line ", case.branch_label)
    for name in ("F_BUS", "T_BUS"):
        end = _column(case.branch, name)
        for row in np.flatnonzero(~np.isin(end, _column(case.bus, "BUS_I"))):
            problems.add(str(owner[row]), name, float(end[row]), "is no bus of the case")
    _check_finite(owner, case.branch, ["BR_R", "BR_X", "BR_B", "TAP", "SHIFT", "BR_STATUS"], problems)
    rate = _column(case.branch, "RATE_A")
    for row in np.flatnonzero(~(rate >= 0)):
        problems.add(str(owner[row]), "RATE_A", float(rate[row]), "must be zero (no limit) or above [MVA]")


def _check_generators(case: _Case, needs_set_point: bool, problems: Problems) -> None:
    """Generators hold the voltage of reference buses and stand nowhere else."""
    at, set_point, reference = _column(case.gen, "GEN_BUS"), _column(case.gen, "VG"), case.of_type("REF")
    for name in _labels(np.union1d(np.setdiff1d(at, reference), case.of_type("PV")), "bus "):
        message = "only a reference bus has one; offer it as a resource, with status 0 here and the bus of type 1"
        problems.add(str(name), "generator", "in service, or bus of type 2", message)
    for number, name in zip(reference, _labels(reference, "bus "), strict=True):
        found = np.unique(set_point[at == number])
        if needs_set_point and not (len(found) == 1 and 0 < found[0] < np.inf):
            message = "a reference bus needs one set point, from a generator in service or as source_v_pu"
            problems.add(str(name), "VG", found.tolist(), message)


def _network(case: _Case, band: tuple[float | None, float | None], source_v_pu: float | None) -> Network:
    """The network of a case without problems."""
    bus = case.bus[_column(case.bus, "BUS_TYPE") != COLUMN["NONE"]]
    number, base_kv = _column(bus, "BUS_I"), _column(bus, "BASE_KV")
    order = np.argsort(number)
    from_node, to_node = order[np.searchsorted(number, case.branch[:, :2].T, sorter=order)]
    source = np.flatnonzero(_column(bus, "BUS_TYPE") == COLUMN["REF"])
    set_point = dict(zip(_column(case.gen, "GEN_BUS"), _column(case.gen, "VG"), strict=True))
    source_v = np.array([set_point[one] if source_v_pu is None else source_v_pu for one in number[source]])
    ratio, shift = _column(case.branch, "TAP"), _column(case.branch, "SHIFT")
    is_transformer = (ratio != 0) | (shift != 0) | (base_kv[from_node] != base_kv[to_node])
    per_unit = case.base_mva * KW_PER_MW / BASE_KVA
    rate = _column(case.branch, "RATE_A")
    rating = np.where(rate == 0, np.inf, rate * KW_PER_MW / BASE_KVA)
    charging = _complex(0 * rate, _column(case.branch, "BR_B")) / 2 * per_unit
    p_kw, q_kvar = _column(bus, "PD") * KW_PER_MW, _column(bus, "QD") * KW_PER_MW
    loaded = np.flatnonzero((p_kw != 0) | (q_kvar != 0))
    return Network(
        name=case.name,
        bus=_labels(number),
        phase=np.full(len(bus), BALANCED_PHASE),
        base_kv=base_kv,
        v_min_pu=_column(bus, "VMIN") if band[0] is None else np.full(len(bus), band[0]),
        v_max_pu=_column(bus, "VMAX") if band[1] is None else np.full(len(bus), band[1]),
        source=source,
        source_v_pu=source_v * np.exp(1j * np.deg2rad(_column(bus, "VA")[source])),
        branch=case.branch_label,
        branch_kind=np.where(is_transformer, "transformer", "line"),
        from_node=from_node,
        to_node=to_node,
        series_pu=_complex(_column(case.branch, "BR_R"), _column(case.branch, "BR_X")) / per_unit,
        tap=np.where(ratio == 0, 1.0, ratio) * np.exp(1j * np.deg2rad(shift)),
        shunt_from_pu=charging,
        shunt_to_pu=charging,
        rating_from_pu=rating,
        rating_to_pu=rating,
        rating_is_current=np.zeros(len(case.branch), bool),
        node_shunt_pu=_complex(_column(bus, "GS"), _column(bus, "BS")) * KW_PER_MW / BASE_KVA,
        element=_labels(number[loaded], "load "),
        element_kind=np.full(len(loaded), "load"),
        element_node=loaded,
        element_p_kw=p_kw[loaded],
        element_q_kvar=q_kvar[loaded],
        alias_bus=np.array([], dtype=str),
        alias_node=np.array([], dtype=np.int64),
    )


def _complex(real: FloatArray, imaginary: FloatArray) -> ComplexArray:
    return real + 1j * imaginary
