"""SimBench grids as networks, and their quarter-hour profiles of 2016 as consumption.

The package's time column is the German clock, daylight saving included: it skips an hour on 27 March
and repeats one on 30 October.  Its 35,136 rows are thus the leap year 2016 in steps of 15 minutes of
standard time without a gap, and are looked up by month, day and time of day in the *standard* time of
the horizon's own time zone, whatever the year.  A horizon of 2016 in Europe/Berlin gets the rows of
exactly its instants, one in another zone gets noon's load at noon; UTC uses the UTC clock.

Source: Meinecke et al., "SimBench - A benchmark dataset of electric power systems to compare
innovative solutions based on power flow analysis", Energies 13 (2020) 3290.
"""

import difflib
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from dlmp.errors import InputError, Problem
from dlmp.network.model import FloatArray, IntArray, Network
from dlmp.network.pandapower import INJECTIONS, from_pandapower
from dlmp.network.profiles import Intervals
from dlmp.units import KW_PER_MW

PROFILE_YEAR = 2016
PROFILE_STEP = timedelta(minutes=15)


def from_simbench(
    code: str,
    *,
    v_min_pu: float | None = None,
    v_max_pu: float | None = None,
    source_v_pu: float | None = None,
) -> Network:
    """Turn a SimBench grid into a `Network`, its loads at the values of the package's grid data.

    Parameters
    ----------
    code
        SimBench code, such as ``1-MV-rural--0-sw``.
    v_min_pu, v_max_pu, source_v_pu
        As in `from_pandapower`.

    Raises
    ------
    InputError
        For an unknown code, without the package ``simbench``, and for what the model cannot represent.
    """
    return from_pandapower(_grid(code), v_min_pu=v_min_pu, v_max_pu=v_max_pu, source_v_pu=source_v_pu)


def simbench_profiles(code: str, network: Network, horizon: Intervals) -> tuple[FloatArray, FloatArray]:
    """Consumption of every element of `network` over `horizon`, from the profiles of `code`.

    Intervals of 15 minutes and more get the mean of their quarter hours, shorter ones the value of the
    quarter hour in which they start.  Reactive power follows the profiles of the loads; that of other
    elements, and elements that `code` does not have, stay as `network` has them.

    Parameters
    ----------
    code
        SimBench code.
    network
        The network of that code, e elements.
    horizon
        Its t intervals.

    Returns
    -------
    p_kw, q_kvar
        (t, e) Consumption [kW], [kvar].

    Raises
    ------
    InputError
        For an unknown code, and without the package ``simbench``.
    """
    net = _grid(code)
    values = _simbench().get_absolute_values(net, profiles_instead_of_study_cases=True)
    rows = profile_rows(horizon)
    column_of = {str(name): column for column, name in enumerate(network.element)}
    p_kw = np.tile(network.element_p_kw, (len(rows), 1))
    q_kvar = np.tile(network.element_q_kvar, (len(rows), 1))
    for table, (sign, _) in INJECTIONS.items():
        column = net[table].name.map(column_of)
        known = column.notna().to_numpy()
        scale = sign * KW_PER_MW * net[table].scaling.to_numpy()[known]
        for field, power in (("p_mw", p_kw), ("q_mvar", q_kvar)):
            if known.any() and (table, field) in values:
                profile = values[table, field].to_numpy()[:, known]
                power[:, column[known].astype(int)] = profile[rows].mean(axis=1) * scale
    return p_kw, q_kvar


def profile_rows(horizon: Intervals) -> IntArray:
    """Return the (t, k) rows of the profiles that cover each interval, k quarter hours or one."""
    zone = ZoneInfo(horizon.timezone)
    quarters = max(1, horizon.interval_minutes // 15)
    rows = [
        [_profile_row((start + quarter * PROFILE_STEP).astimezone(zone)) for quarter in range(quarters)]
        for start in horizon.starts
    ]
    return np.array(rows, dtype=np.int64)


def _profile_row(local: datetime) -> int:
    standard = local.replace(tzinfo=UTC) - (local.dst() or timedelta(0))
    return (standard.replace(year=PROFILE_YEAR) - datetime(PROFILE_YEAR, 1, 1, tzinfo=UTC)) // PROFILE_STEP


def _simbench() -> Any:
    """Return the optional package, which takes seconds to import."""
    try:
        import simbench  # noqa: PLC0415
    except ImportError as error:
        problem = Problem("package", "simbench", "not installed", 'is needed: pip install "dlmp[simbench]"')
        raise InputError([problem]) from error
    return simbench


@lru_cache(maxsize=4)
def _grid(code: str) -> Any:
    """Return the pandapower net of `code` with its profiles; every injection has a name of its own."""
    simbench = _simbench()
    codes = simbench.collect_all_simbench_codes()
    if code not in codes:
        close = difflib.get_close_matches(code, codes, n=4, cutoff=0.4) or codes[:4]
        problem = Problem(
            "network source", "source", f"simbench:{code}", f"is no SimBench code; close: {', '.join(close)}"
        )
        raise InputError([problem])
    net = simbench.get_simbench_net(code)
    net.name = code
    if pd.concat([net[table].name for table in INJECTIONS]).duplicated().any():
        for table in INJECTIONS:
            net[table]["name"] = [f"{table} {index}" for index in net[table].index]
    return net
