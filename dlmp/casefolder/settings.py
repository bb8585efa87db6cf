"""``case.toml``: the name of a case, the source of its network, its horizon and its limits of import.

================================ ===============================================================================
name                             what the case is called
network.source                   ``KIND:NAME``, see `dlmp.network.read_network`
network.v_min_pu, .v_max_pu,     voltage band and source voltage [pu]; with tables those of blank cells
network.source_v_pu
network.options                  keyword arguments of a pandapower function, or options of an OpenDSS circuit
horizon.start                    start of the first interval, UTC: ``2026-07-01T07:00:00Z``
horizon.interval_minutes,        length [min] and number of intervals
horizon.intervals
horizon.timezone, .currency      IANA zone and ISO 4217 code; left out: UTC and USD
import.p_min_kw, .p_max_kw,      range of the import [kW], [kvar]; left out: no limit; a negative lower end
import.q_min_kvar, .q_max_kvar   allows export
import.p_min_share, .p_max_share range of the import of real power as a share of the fixed load
================================ ===============================================================================
"""

import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dlmp.errors import Problem, Problems
from dlmp.market import MAX_INTERVALS, Horizon, check_horizon
from dlmp.network.model import some_of
from dlmp.network.sourceproblem import ELEMENT as NETWORK_SOURCE

FILE = "case.toml"

SECTION_OF_ELEMENT = {"horizon": "horizon", "import": "import", NETWORK_SOURCE: "network"}
"""Elements of problems that other modules find in what stands in a section of ``case.toml``."""


@dataclass(frozen=True)
class Settings:
    """What ``case.toml`` says; None where it says nothing or something wrong.

    `intervals` is 0 where their number is wrong: the tables are then checked without it.
    """

    name: str = ""
    source: str | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    v_min_pu: float | None = None
    v_max_pu: float | None = None
    source_v_pu: float | None = None
    horizon: Horizon | None = None
    intervals: int = 0
    p_min_kw: float = -math.inf
    p_max_kw: float = math.inf
    q_min_kvar: float = -math.inf
    q_max_kvar: float = math.inf
    p_min_share: float = -math.inf
    p_max_share: float = math.inf


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be text in quotes, not blank")
    return value.strip()


def _number(value: object) -> float:
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError("must be a finite number; leave it out for none")
    return number


def _voltage(value: object) -> float:
    number = _number(value)
    if number <= 0:
        raise ValueError("must be above zero")
    return number


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("must be a whole number")
    return value


def _table(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ValueError("must be a section of its own: [network.options]")
    return value


def _time(value: object) -> datetime:
    time = value
    if isinstance(value, str):
        try:
            time = datetime.fromisoformat(value)
        except ValueError:
            time = None
    if not isinstance(time, datetime):
        raise ValueError("must be a time such as 2026-07-01T07:00:00Z")
    if time.tzinfo is None:
        raise ValueError(f"has no time zone; write it in UTC with a Z at the end: {time.isoformat()}Z")
    if not 1970 <= time.year < 2200:
        raise ValueError("must be in the years 1970 to 2199")
    return time.astimezone(UTC) if time.utcoffset() == timedelta(0) else time


CHECKS: dict[str, Callable[[object], Any]] = {
    "name": _text,
    "network.source": _text,
    "network.v_min_pu": _voltage,
    "network.v_max_pu": _voltage,
    "network.source_v_pu": _voltage,
    "network.options": _table,
    "horizon.start": _time,
    "horizon.interval_minutes": _whole,
    "horizon.intervals": _whole,
    "horizon.timezone": _text,
    "horizon.currency": _text,
    "import.p_min_kw": _number,
    "import.p_max_kw": _number,
    "import.q_min_kvar": _number,
    "import.q_max_kvar": _number,
    "import.p_min_share": _number,
    "import.p_max_share": _number,
}
"""Every setting, and what makes its value of what TOML gives, or raises ValueError with what would be right."""

REQUIRED = ("name", "network.source", "horizon.start", "horizon.interval_minutes", "horizon.intervals")

SECTIONS = ("network", "horizon", "import")


def read_settings(folder: Path, problems: Problems) -> Settings:
    """Read ``case.toml`` of `folder`; what is wrong is added to `problems`."""
    document = _read_document(folder / FILE, problems)
    if document is None:
        return Settings()
    values = _checked(document, problems)
    sections: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for key, value in values.items():
        section, _, name = key.partition(".")
        if name:
            sections[section][name] = value
    network = sections["network"]
    if network.get("v_min_pu", 0.0) > network.get("v_max_pu", math.inf):
        band = (network.pop("v_min_pu"), network.pop("v_max_pu"))
        problems.add(FILE, "network.v_min_pu, v_max_pu", band, "need v_min_pu <= v_max_pu")
    shares = sections["import"]
    if shares.get("p_min_share", -math.inf) > shares.get("p_max_share", math.inf):
        ends = (shares.pop("p_min_share"), shares.pop("p_max_share"))
        problems.add(FILE, "import.p_min_share, p_max_share", ends, "need p_min_share <= p_max_share")
    horizon = sections["horizon"]
    count = horizon.get("intervals", 0)
    return Settings(
        name=values.get("name", ""),
        horizon=_horizon(horizon, problems),
        intervals=count if 0 < count <= MAX_INTERVALS else 0,
        **network,
        **sections["import"],
    )


def in_case_toml(problem: Problem) -> Problem:
    """Return `problem` as one of ``case.toml`` where it concerns what stands there."""
    section = SECTION_OF_ELEMENT.get(problem.element)
    return problem if section is None else Problem(FILE, f"{section}.{problem.field}", problem.value, problem.message)


def _read_document(path: Path, problems: Problems) -> dict[str, object] | None:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        problems.add(FILE, "file", str(path), "does not exist; a case needs it")
    except OSError as error:
        problems.add(FILE, "file", str(path), f"cannot be read ({error.strerror})")
    except (ValueError, RecursionError) as error:
        problems.add(FILE, "file", str(path), f"is not TOML in UTF-8 ({error})")
    return None


def _checked(document: dict[str, object], problems: Problems) -> dict[str, Any]:
    """Values of all settings that are there and right, by dotted name."""
    given: dict[str, object] = {}
    broken = []
    for name, value in document.items():
        if name not in SECTIONS:
            given[name] = value
        elif isinstance(value, dict):
            given |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            broken.append(name)
            problems.add(FILE, name, value, f"must be a section: [{name}]")
    for key in REQUIRED:
        if key not in given and key.partition(".")[0] not in broken:
            problems.add(FILE, key, "missing", "is needed")
    values = {}
    for key, value in given.items():
        if key not in CHECKS:
            section = key.partition(".")[0] if "." in key else ""
            known = [name for name in CHECKS if name.startswith(section)]
            problems.add(FILE, key, value, f"is no setting; known: {some_of(known, len(CHECKS))}")
            continue
        try:
            values[key] = CHECKS[key](value)
        except ValueError as error:
            problems.add(FILE, key, value, str(error))
    return values


def _horizon(given: dict[str, Any], problems: Problems) -> Horizon | None:
    """Check the horizon with stand-ins for what is missing; None unless it is whole and right."""
    stand_ins: dict[str, Any] = {"start": datetime(2000, 1, 1, tzinfo=UTC), "interval_minutes": 60, "intervals": 1}
    before = len(problems.found)
    horizon = Horizon(**(stand_ins | given))
    check_horizon(horizon, problems)
    return horizon if stand_ins.keys() <= given.keys() and len(problems.found) == before else None
