"""MATPOWER case files as networks, with the statements below the tables carried out.

Most distribution cases give ohm and kW and convert them in MATLAB code after the tables, which
`dlmp.network.matlab` carries out; a statement that it does not understand is a problem, for it might change
the data.  The branch model is that of the MATPOWER User's Manual, chapter 3: an ideal transformer at the from
end of a pi section.
"""

import re
import textwrap
from collections import Counter
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dlmp.errors import InputError, Problem, Problems
from dlmp.network.matlab import Statement, UnsupportedError, size_of, statements
from dlmp.network.model import BALANCED_PHASE, BalancedNetwork, ComplexArray, FloatArray, TextArray, repeated
from dlmp.units import BASE_KVA, KW_PER_MW

INDICES = {
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

OUTPUTS = {function: [int(number) for number in re.findall(r"=(\d+)", text)] for function, text in INDICES.items()}
COLUMN = {name: int(number) for text in INDICES.values() for name, number in re.findall(r"(\w+)=(\d+)", text)}

COLUMN_COUNT = {"bus": COLUMN["VMIN"], "gen": COLUMN["GEN_STATUS"], "branch": COLUMN["BR_STATUS"]}
"""Columns that each table must have at least."""


def from_matpower(
    path: Path | str,
    *,
    v_min_pu: float | None = None,
    v_max_pu: float | None = None,
    source_v_pu: float | None = None,
) -> BalancedNetwork:
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
    for name, limit in (("VMIN", v_min_pu), ("VMAX", v_max_pu)):
        if limit is not None:
            _column(case.bus, name)[:] = limit
    _check_buses(case, problems)
    _check_branches(case, problems)
    _check_generators(case, problems)
    held_v_pu = _set_points(case, problems) if source_v_pu is None else np.full(len(case.of_type("REF")), source_v_pu)
    problems.raise_if_any()
    return _network(case, held_v_pu)


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
        count: Counter[str] = Counter()
        labels = []
        for start, end in self.branch[:, :2]:
            name = f"{start:.0f}-{end:.0f}"
            count[name] += 1
            labels.append(name if count[name] == 1 else f"{name}#{count[name]}")
        return np.array(labels, dtype=str)

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
    script = list(takewhile(lambda statement: statement.target != "return", statements(_read_text(path))))
    header = re.match(r"function ([A-Za-z]\w*) = ([A-Za-z]\w*)", str(script[0])) if script else None
    struct, name = header.groups() if header else ("mpc", path.stem)
    values = _carry_out(script[bool(header) :], struct, path.name, problems)
    tables: dict[str, FloatArray] = {}
    for table, count in {"baseMVA": 1, **COLUMN_COUNT}.items():
        field = f"{struct}.{table}"
        value = values.get(field)
        if value is None:
            if all(statement.target != field for statement in script):
                problems.add(path.name, field, "missing", "a case must assign it")
        elif table == "baseMVA" and not (value.size == 1 and 0 < value < np.inf):
            problems.add(path.name, field, value.squeeze().tolist(), "must be one number above zero [MVA]")
        elif value.size and value.shape[1] < count:
            problems.add(path.name, field, size_of(value), f"needs at least {count} columns")
        else:
            tables[table] = value if value.size else np.zeros((0, count))
    if not tables.keys() >= COLUMN_COUNT.keys():
        problems.raise_if_any()
    base, bus, gen, branch = (tables.get(table, np.array(np.nan)) for table in ("baseMVA", *COLUMN_COUNT))
    gen, branch = gen[_column(gen, "GEN_STATUS") > 0], branch[_column(branch, "BR_STATUS") != 0]
    return _Case(name, base.item(), bus, gen, branch)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        message = f"cannot be read ({error.strerror}); give the path of a MATPOWER case"
        raise InputError([Problem(path.name, "file", str(path), message)]) from error


def _carry_out(script: list[Statement], struct: str, file: str, problems: Problems) -> dict[str, FloatArray]:
    """Values of the variables after `script`; a field that no network needs may stay unknown."""
    values: dict[str, FloatArray] = {}
    needed = [f"{struct}.{field}" for field in ("version", "baseMVA", *COLUMN_COUNT)]
    for statement in script:
        try:
            _run(statement, struct, values)
        except UnsupportedError as error:
            target = statement.target
            if target.startswith(f"{struct}.") and target not in needed and statement.is_whole:
                values.pop(target, None)
                continue
            shown = textwrap.shorten(str(statement), 100)
            message = f"{error}; write plain numbers instead, as MATPOWER's savecase does"
            problems.add(f"{file} line {statement.line}", "statement", shown, message)
    return values


def _run(statement: Statement, struct: str, values: dict[str, FloatArray]) -> None:
    """Carry out a statement of a file whose case is called `struct`."""
    text = str(statement)
    if text == "define_constants":
        values.update({name: np.array([[float(number)]]) for name, number in COLUMN.items()})
    elif text.startswith("function ["):
        raise UnsupportedError("only files of format version 2 (function mpc = name) are read")
    elif statement.target == struct:
        raise UnsupportedError("the case as a whole cannot be assigned")
    elif statement.target == f"{struct}.version":
        if text not in (f"{struct}.version = '2'", f'{struct}.version = "2"'):
            raise UnsupportedError("only format version 2 is read")
    elif text not in ("end", "endfunction"):
        statement.run(values, OUTPUTS)


def _check_buses(case: _Case, problems: Problems) -> None:
    number, bus_type = _column(case.bus, "BUS_I"), _column(case.bus, "BUS_TYPE")
    owner, row = _labels(number, "bus "), _labels(np.arange(1.0, len(number) + 1), "bus row ")
    is_number = (number >= 1) & (number == np.floor(number))
    _note(~is_number, row, "BUS_I", case.bus, "must be a whole number above zero", problems)
    for name in repeated(owner):
        problems.add(name, "BUS_I", name.removeprefix("bus "), "stands more than once; bus numbers must be unique")
    _note(~np.isin(bus_type, (1, 2, 3, 4)), owner, "BUS_TYPE", case.bus, "must be 1, 2, 3 or 4", problems)
    if not len(case.of_type("REF")):
        problems.add(case.name, "BUS_TYPE", "no 3", "give the bus of the substation type 3 (reference)")
    _check_finite("PD QD GS BS VA BASE_KV VMIN VMAX", owner, case.bus, problems)
    is_loaded = np.any([_column(case.bus, name) for name in ("PD", "QD", "GS", "BS")], axis=0)
    is_connected = np.isin(number, case.branch[:, :2]) | is_loaded
    for name in owner[(bus_type == COLUMN["NONE"]) & is_connected]:
        problems.add(str(name), "BUS_TYPE", 4, "an isolated bus has no branch, load or shunt; make it type 1")


def _check_branches(case: _Case, problems: Problems) -> None:
    owner = np.char.add("line ", case.branch_label)
    for name in ("F_BUS", "T_BUS"):
        unknown = ~np.isin(_column(case.branch, name), _column(case.bus, "BUS_I"))
        _note(unknown, owner, name, case.branch, "is no bus of the case", problems)
    _check_finite("BR_R BR_X BR_B TAP SHIFT BR_STATUS", owner, case.branch, problems)
    is_rate = _column(case.branch, "RATE_A") >= 0
    _note(~is_rate, owner, "RATE_A", case.branch, "must be zero (no limit) or above [MVA]", problems)


def _check_finite(names: str, owner: TextArray, table: FloatArray, problems: Problems) -> None:
    for name in names.split():
        _note(~np.isfinite(_column(table, name)), owner, name, table, "must be a finite number", problems)


def _note(
    wrong: npt.NDArray[np.bool_], owner: TextArray, name: str, table: FloatArray, message: str, problems: Problems
) -> None:
    """Add a problem for each row of `table` in which column `name` is wrong."""
    for label, value in zip(owner[wrong], _column(table, name)[wrong], strict=True):
        problems.add(str(label), name, float(value), message)


def _check_generators(case: _Case, problems: Problems) -> None:
    """Generators hold the voltage of reference buses and stand nowhere else."""
    elsewhere = np.setdiff1d(_column(case.gen, "GEN_BUS"), case.of_type("REF"))
    for name in _labels(np.union1d(elsewhere, case.of_type("PV")), "bus "):
        message = "only a reference bus has one; offer it as a resource, with status 0 here and the bus of type 1"
        problems.add(str(name), "generator", "in service, or bus of type 2", message)


def _set_points(case: _Case, problems: Problems) -> FloatArray:
    """Voltage magnitude of each reference bus, from its generators."""
    found: list[float] = []
    for number in case.of_type("REF"):
        set_points = np.unique(_column(case.gen, "VG")[_column(case.gen, "GEN_BUS") == number])
        if not (len(set_points) == 1 and 0 < set_points[0] < np.inf):
            message = "a reference bus needs one set point, from a generator in service or as source_v_pu"
            problems.add(f"bus {number:.0f}", "VG", set_points.tolist(), message)
        found.extend(set_points[:1])
    return np.array(found)


def _network(case: _Case, held_v_pu: FloatArray) -> BalancedNetwork:
    """The network of a case without problems."""
    bus = case.bus[_column(case.bus, "BUS_TYPE") != COLUMN["NONE"]]
    number, base_kv = _column(bus, "BUS_I"), _column(bus, "BASE_KV")
    order = np.argsort(number)
    from_node, to_node = order[np.searchsorted(number, case.branch[:, :2].T, sorter=order)]
    source = np.flatnonzero(_column(bus, "BUS_TYPE") == COLUMN["REF"])
    rate, ratio, shift = (_column(case.branch, name) for name in ("RATE_A", "TAP", "SHIFT"))
    is_transformer = (ratio != 0) | (shift != 0) | (base_kv[from_node] != base_kv[to_node])
    pu_per_mw = KW_PER_MW / BASE_KVA
    base = case.base_mva * pu_per_mw
    rating = np.where(rate == 0, np.inf, rate * pu_per_mw)
    charging = _complex(0 * rate, _column(case.branch, "BR_B") / 2) * base
    p_kw, q_kvar = _column(bus, "PD") * KW_PER_MW, _column(bus, "QD") * KW_PER_MW
    loaded = np.flatnonzero((p_kw != 0) | (q_kvar != 0))
    return BalancedNetwork(
        name=case.name,
        bus=_labels(number),
        phase=np.full(len(bus), BALANCED_PHASE),
        base_kv=base_kv,
        v_min_pu=_column(bus, "VMIN"),
        v_max_pu=_column(bus, "VMAX"),
        source=source,
        source_v_pu=_polar(held_v_pu, _column(bus, "VA")[source]),
        branch=case.branch_label,
        branch_kind=np.where(is_transformer, "transformer", "line"),
        from_node=from_node,
        to_node=to_node,
        series_pu=_complex(_column(case.branch, "BR_R"), _column(case.branch, "BR_X")) / base,
        tap=_polar(np.where(ratio == 0, 1.0, ratio), shift),
        shunt_from_pu=charging,
        shunt_to_pu=charging,
        rating_from_pu=rating,
        rating_to_pu=rating,
        rating_is_current=np.zeros(len(case.branch), bool),
        node_shunt_pu=_complex(_column(bus, "GS"), _column(bus, "BS")) * pu_per_mw,
        element=_labels(number[loaded], "load "),
        element_kind=np.full(len(loaded), "load"),
        element_load=loaded,
        element_p_kw=p_kw[loaded],
        element_q_kvar=q_kvar[loaded],
        alias_bus=np.array([], dtype=str),
        alias_node=np.array([], dtype=np.int64),
    )


def _complex(real: FloatArray, imaginary: FloatArray) -> ComplexArray:
    return real + 1j * imaginary


def _polar(magnitude: FloatArray, degrees: FloatArray) -> ComplexArray:
    return _complex(magnitude * np.cos(np.deg2rad(degrees)), magnitude * np.sin(np.deg2rad(degrees)))
