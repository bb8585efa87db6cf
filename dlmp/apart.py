"""Intervals that nothing couples, dispatched apart in several processes.

Each process takes every so many intervals of the market, which evens out that some hours are harder than others, and
sends back where it came to; the network's states are found again here, from those dispatches.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, fields, replace
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.context import BaseContext
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from threadpoolctl import threadpool_limits

from dlmp.dispatch import Dispatch, PassReport, dispatch
from dlmp.errors import DlmpError, SolverError
from dlmp.formulation import new_formulation
from dlmp.formulation.interface import Formulation, Weights
from dlmp.formulation.market_lp import MarketLp
from dlmp.formulation.network_rows import NetworkRows
from dlmp.learned import Learned
from dlmp.network.model import FloatArray, IntArray
from dlmp.newton import Optimum
from dlmp.optimality import OF_STATES, ActiveSet, Multipliers
from dlmp.products.columns import Columns
from dlmp.settings import Settings
from dlmp.timing import PhaseClock

MOST_INTERVALS, MOST_NODES = 32, 300_000
"""Intervals of a part, and nodes in all of them together: bounds the memory of a process.  Fewer parts are quicker, for
each learns the network by itself."""


@dataclass(frozen=True, eq=False)
class _Part:
    """Some intervals of a market, which they are, and where their states are among all."""

    market: MarketLp
    intervals: IntArray
    states: IntArray


@dataclass(frozen=True, eq=False)
class _End:
    """Where the Newton finish of a part came to: its `Optimum` without the network."""

    x: FloatArray
    active: ActiveSet
    multipliers: Multipliers
    is_open: npt.NDArray[np.bool_]
    error_usd_per_mwh: float
    excess: FloatArray


@dataclass(frozen=True, eq=False)
class _Found:
    """What became of a part: its `Dispatch` but for the network, whose factors stay in their process."""

    x: FloatArray
    weights: Weights
    row_dual: FloatArray
    converged: bool
    reports: tuple[PassReport, ...]
    lp_solves: int
    error_usd_per_mwh: float
    excess: FloatArray
    avoidable: npt.NDArray[np.bool_]
    end: _End | None
    seconds: dict[str, float]


def can_stand_apart(market: MarketLp) -> bool:
    """True when what one interval does leaves all others as they are."""
    case = market.case
    return market.intervals > 1 and not (market.is_coupled or len(case.blocks) or len(case.stores))


def dispatch_apart(
    market: MarketLp, formulation: Formulation, settings: Settings, clock: PhaseClock, workers: int
) -> Dispatch | None:
    """Dispatch the intervals of a market that `can_stand_apart` in so many processes; see `dlmp.dispatch.dispatch`.

    Returns
    -------
    The dispatch; None when some part came to an error, which is for a dispatch of the whole market to tell, or has a
    state that is not found again.

    Raises
    ------
    SolverError
        When a process ended before its part was dispatched.
    """
    most = min(MOST_INTERVALS, max(MOST_NODES // market.case.network.node_count, 1))
    count = min(market.intervals, workers * math.ceil(market.intervals / (workers * most)))
    parts = [_part(market, slice(first, None, count)) for first in range(count)]
    try:
        with ProcessPoolExecutor(workers, _context()) as pool:
            results = list(pool.map(_dispatched, [part.market for part in parts], [settings] * count))
    except (BrokenProcessPool, EOFError, OSError) as error:
        remedy = "take fewer workers if memory ran out, and call from below `if __name__ == '__main__':` in a script"
        raise SolverError(f"a process that dispatched some of the intervals ended early: {remedy}") from error
    found = [result for result in results if result is not None]
    if len(found) < count:
        return None
    for own in found:
        clock.add(own.seconds)
    with clock.phase("power_flow"):
        whole = _joined(market, formulation, parts, found)
    return whole if whole.point.converged.all() else None


def _context() -> BaseContext:
    """Processes that are forked from a server with the engine loaded; where there is none they load it anew."""
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(["__main__", __name__])
    return context


def _part(market: MarketLp, intervals: slice) -> _Part:
    """The market of some of its intervals; those of its case are the right ones but for their times."""
    columns, called = market.columns, market.called
    every = np.arange(market.intervals)[intervals]
    own = np.flatnonzero(np.isin(called.interval, every))
    of_part = called.only(own)
    part = MarketLp(
        market.case.at(intervals),
        market.template,
        Columns(*(getattr(columns, item.name)[intervals] for item in fields(columns))),
        {rule: (low[intervals], high[intervals]) for rule, (low, high) in market.bounds.items()},
        replace(of_part, interval=np.searchsorted(every, of_part.interval)),
        market.penalties,
    )
    return _Part(part, every, np.r_[every, market.intervals + own])


def _dispatched(market: MarketLp, settings: Settings) -> _Found | None:
    """Dispatch a part, in a process of its own; None where it comes to an error."""
    clock = PhaseClock()
    with threadpool_limits(limits=1, user_api="blas"):
        try:
            with clock.phase("build"):
                formulation = new_formulation(market.case, settings, market.state_interval)
            found = dispatch(market, formulation, settings, clock)
        except DlmpError:
            return None
    own = {item.name: getattr(found, item.name) for item in fields(_Found) if item.name not in ("end", "seconds")}
    optimum = found.learned.optimum
    end = None if optimum is None else _End(**{item.name: getattr(optimum, item.name) for item in fields(_End)})
    return _Found(**own, end=end, seconds=clock.seconds)


def _joined(market: MarketLp, formulation: Formulation, of: Sequence[_Part], parts: Sequence[_Found]) -> Dispatch:
    """The dispatch of all intervals, of what became of `parts` of them."""
    order = np.argsort(np.concatenate([part.states for part in of]))
    place = np.argsort(np.concatenate([part.intervals for part in of]))

    def all_of(name: str, parts: Sequence[Any] = parts) -> npt.NDArray[Any]:
        return np.concatenate([getattr(part, name) for part in parts])

    def by_interval(name: str, parts: Sequence[Any] = parts) -> npt.NDArray[Any]:
        return all_of(name, parts).reshape(market.intervals, -1)[place].ravel()

    x, excess, error = by_interval("x"), all_of("excess")[order], max(part.error_usd_per_mwh for part in parts)
    point = formulation.operate(market.injection(x))
    weights = [part.weights for part in parts]
    limits = sparse.csr_array(sparse.vstack([own.limits for own in weights]))[order]
    rows = NetworkRows(market, formulation)
    rows.excess = excess
    optimum, known = None, [part.end for part in parts if part.end is not None]
    if len(known) == len(parts):
        active, dual = [own.active for own in known], [own.multipliers for own in known]
        optimum = Optimum(
            by_interval("x", known),
            point,
            ActiveSet(by_interval("column", active), by_interval("row", active), all_of("limit", active)[order]),
            Multipliers(by_interval("row", dual), *(all_of(name, dual)[order] for name in OF_STATES)),
            by_interval("is_open", known),
            max(own.error_usd_per_mwh for own in known),
            all_of("excess", known)[order],
        )
    return Dispatch(
        market,
        formulation,
        x,
        point,
        Weights(all_of("import_p", weights)[order], all_of("import_q", weights)[order], limits),
        by_interval("row_dual"),
        all(part.converged for part in parts),
        _reports([part.reports for part in parts]),
        sum(part.lp_solves for part in parts),
        error,
        excess,
        by_interval("avoidable"),
        Learned(market, x, point, rows, None, optimum),
    )


def _reports(parts: Sequence[tuple[PassReport, ...]]) -> tuple[PassReport, ...]:
    """The worst of all parts, pass by pass; a part that has ended stays as it is."""
    joined = []
    for number in range(1, max(len(reports) for reports in parts) + 1):
        own = [reports[min(number, len(reports)) - 1] for reports in parts]
        joined.append(
            PassReport(
                number,
                max(report.step_pu for report in own),
                max(report.violation_pu for report in own),
                max(report.mismatch_pu for report in own),
                all(report.finished for report in own),
            )
        )
    return tuple(joined)
