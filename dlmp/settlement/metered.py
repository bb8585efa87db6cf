"""A table of meter readings to the energy of every resource in every interval.

Columns: ``resource``, ``interval`` or ``interval_start`` (or both), ``net_injection_kwh`` [kWh over the interval,
positive into the grid] and, where reactive energy is metered too, ``q_kvarh``.  What has no reading may be deemed as
awarded.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from dlmp.errors import Problems
from dlmp.market import Horizon
from dlmp.network.model import ComplexArray, FloatArray, TextArray, some_of

KEYS = ("interval", "interval_start")
ENERGY, REACTIVE = "net_injection_kwh", "q_kvarh"
MOST_MISSING = 20
"""Missing readings named one by one."""
LARGEST = 1e12
"""A reading beyond this is a mistake [kWh, kvarh]."""


@dataclass(frozen=True, eq=False)
class Metered:
    """What resources injected, each (t, r).

    Parameters
    ----------
    energy
        Energy, real + j reactive [kWh + j kvarh].
    is_deemed
        True where there is no reading, or none of reactive energy though some was awarded and others have theirs: what
        was awarded stands for it.
    """

    energy: ComplexArray
    is_deemed: npt.NDArray[np.bool_]


def metered_energy(
    table: pd.DataFrame, names: TextArray, horizon: Horizon, awarded: ComplexArray, *, deem_missing: bool
) -> Metered:
    """Energy of every resource in every interval.

    Parameters
    ----------
    table
        One row per resource and interval.
    names
        (r,) Resources.
    horizon
        The intervals.
    awarded
        (t, r) Energy that was awarded [kWh + j kvarh]; its reactive part holds where none is metered.
    deem_missing
        What has no reading is deemed as awarded, and a blank ``q_kvarh`` too; otherwise each resource needs a reading
        in every interval.

    Raises
    ------
    InputError
        With everything that is wrong.
    """
    problems = Problems()
    if not isinstance(table, pd.DataFrame):
        problems.add("metered", "table", type(table).__name__, "must be a pandas.DataFrame")
        problems.raise_if_any()
    _check_columns(table, problems)
    problems.raise_if_any()
    interval = _intervals(table, horizon, problems)
    known = {name: index for index, name in enumerate(names.tolist())}
    resource = np.array([known.get(str(name), -1) for name in table.resource], dtype=np.int64)
    for row in np.flatnonzero(resource < 0):
        message = f"is no resource of the market; known: {some_of(names)}"
        problems.add(f"metered row {row}", "resource", str(table.resource.iloc[row]), message)
    energy = _numbers(table, ENERGY, problems)
    reactive = np.full(len(table), np.nan)
    if REACTIVE in table:
        is_metered = table[REACTIVE].notna().to_numpy() | (not deem_missing)
        reactive[is_metered] = _numbers(table, REACTIVE, problems, is_metered)[is_metered]
    placed = np.flatnonzero((resource >= 0) & (interval >= 0))
    count = np.zeros((horizon.intervals, len(names)), dtype=np.int64)
    np.add.at(count, (interval[placed], resource[placed]), 1)
    for at, index in np.argwhere(count > 1):
        message = "stands more than once; a resource has one reading per interval"
        problems.add(f"metered resource {names[index]}", "interval", int(at), message)
    if not deem_missing:
        _note_missing(count == 0, names, problems)
    problems.raise_if_any()
    real, imaginary = np.array(awarded.real), np.array(awarded.imag)
    real[interval, resource] = energy
    read = np.isfinite(reactive)
    imaginary[interval[read], resource[read]] = reactive[read]
    is_deemed = count == 0
    if read.any():
        has_reactive = np.zeros(count.shape, bool)
        has_reactive[interval[read], resource[read]] = True
        is_deemed |= ~has_reactive & (awarded.imag != 0)
    return Metered(np.asarray(real + 1j * imaginary), is_deemed)


def _check_columns(table: pd.DataFrame, problems: Problems) -> None:
    for name in ("resource", ENERGY):
        if name not in table:
            problems.add(
                "metered", name, "missing", f"the table needs this column; it has: {', '.join(map(str, table.columns))}"
            )
    if not any(name in table for name in KEYS):
        problems.add("metered", " or ".join(KEYS), "missing", "the table needs one of these columns")
    known = ("resource", *KEYS, ENERGY, REACTIVE)
    for name in table.columns[~table.columns.isin(known)]:
        problems.add("metered", str(name), "unknown", f"is no column of this table; its columns are: {some_of(known)}")


def _intervals(table: pd.DataFrame, horizon: Horizon, problems: Problems) -> np.ndarray:
    """(k,) Interval of each row, -1 where there is none."""
    found = []
    if "interval" in table:
        number = pd.to_numeric(table.interval, errors="coerce").to_numpy(float, na_value=np.nan)
        inside = (number >= 0) & (number < horizon.intervals) & (number == np.floor(number))
        found.append(np.where(inside, number, -1).astype(np.int64))
        for row in np.flatnonzero(~inside):
            message = f"must be a whole number from 0 to {horizon.intervals - 1}"
            problems.add(f"metered row {row}", "interval", table.interval.iloc[row], message)
    if "interval_start" in table:
        place = {start: index for index, start in enumerate(horizon.starts)}
        starts = pd.to_datetime(table.interval_start, utc=True, errors="coerce", format="ISO8601")
        found.append(np.array([place.get(start, -1) for start in starts], dtype=np.int64))
        for row in np.flatnonzero(found[-1] < 0):
            message = f"is the start of no interval; the first is {horizon.starts[0].isoformat()}"
            problems.add(f"metered row {row}", "interval_start", str(table.interval_start.iloc[row]), message)
    for row in np.flatnonzero((found[0] != found[-1]) & (found[0] >= 0) & (found[-1] >= 0)):
        message = f"starts at {horizon.starts[found[0][row]].isoformat()}, not at this row's interval_start"
        problems.add(f"metered row {row}", "interval", int(found[0][row]), message)
    return np.minimum(found[0], found[-1])


def _numbers(
    table: pd.DataFrame, name: str, problems: Problems, wanted: npt.NDArray[np.bool_] | bool = True
) -> FloatArray:
    """(k,) Numbers of a column; those that are not wanted may be missing."""
    values = pd.to_numeric(table[name], errors="coerce").to_numpy(float, na_value=np.nan)
    for row in np.flatnonzero(~(np.abs(values) <= LARGEST) & wanted):
        value = table[name].iloc[row]
        problems.add(f"metered row {row}", name, value, f"must be a finite number of at most {LARGEST:g} either way")
    return values


def _note_missing(is_missing: np.ndarray, names: TextArray, problems: Problems) -> None:
    missing = np.argwhere(is_missing)
    for at, index in missing[:MOST_MISSING]:
        problems.add(f"metered resource {names[index]}", "interval", int(at), "has no reading; each resource needs one")
    if len(missing) > MOST_MISSING:
        message = "more readings are missing; each resource needs one in every interval"
        problems.add("metered", "interval", len(missing) - MOST_MISSING, message)
