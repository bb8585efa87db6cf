"""The LP in which limits that conflict may be broken at a penalty."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dlmp.errors import Problems
from dlmp.formulation.interface import OperatingPoint
from dlmp.formulation.market_lp import MarketLp
from dlmp.network.model import FloatArray, IntArray
from dlmp.solve import LinearProgram, solve_lp
from dlmp.units import BASE_KVA

PENALTY = 1e4
"""Cost of breaking a limit of the elastic LP, in multiples of the largest price [per pu of power]."""
SHORT_PU = 1e-7
"""A requirement that lacks less is met."""


@dataclass(frozen=True, eq=False)
class Breakable:
    """The n rows of an LP that may be broken: limits, then the bounds of the import as rows of their own.

    Parameters
    ----------
    matrix
        All rows of the LP, then one for each bounded import.
    rows
        (n,) Those that may be broken.
    size
        (n,) Largest coefficient of each, in which breaking it is measured; 1 for a limit that nothing can move.
    columns
        (i,) Columns of the bounded imports.
    """

    matrix: sparse.csr_array
    rows: IntArray
    size: FloatArray
    columns: IntArray

    @classmethod
    def of(cls, problem: LinearProgram, market: MarketLp, is_limit: npt.NDArray[np.bool_]) -> "Breakable":
        """Those of `problem`; the arguments are those of `elastic_programme`."""
        imports = np.concatenate([market.block("import_p").ravel(), market.block("import_q").ravel()])
        bounded = imports[np.isfinite(problem.lower[imports]) | np.isfinite(problem.upper[imports])]
        shape = (len(bounded), len(problem.cost))
        as_rows = sparse.csr_array((np.ones(len(bounded)), (np.arange(len(bounded)), bounded)), shape=shape)
        matrix = sparse.csr_array(sparse.vstack([problem.matrix, as_rows]))
        rows = np.concatenate(
            [len(market.row_lower) + np.flatnonzero(is_limit), len(problem.row_lower) + np.arange(len(bounded))]
        )
        largest = abs(matrix[rows]).max(axis=1).toarray().ravel()
        return cls(matrix, rows, np.where(largest > 0, largest, 1.0), bounded)


def elastic_programme(problem: LinearProgram, market: MarketLp, is_limit: npt.NDArray[np.bool_]) -> LinearProgram:
    """Return `problem` with limits and import bounds breakable at `PENALTY`, its cost over `price_scale`.

    The last columns are how far each row of `Breakable` lies below its bounds, then how far above them, in multiples
    of its size.

    Parameters
    ----------
    problem
        The market's rows, then one row per entry of `is_limit`.
    market
        Where the import stands among the columns.
    is_limit
        (i,) True for the rows that may be broken.
    """
    breakable = Breakable.of(problem, market, is_limit)
    rows, bounded, count = breakable.rows, breakable.columns, len(breakable.rows)
    give = sparse.csr_array((breakable.size, (rows, np.arange(count))), shape=(breakable.matrix.shape[0], count))
    lower, upper = problem.lower.copy(), problem.upper.copy()
    lower[bounded], upper[bounded] = -np.inf, np.inf
    return LinearProgram(
        cost=np.concatenate([problem.cost / price_scale(problem), np.full(2 * count, PENALTY)]),
        lower=np.concatenate([lower, np.zeros(2 * count)]),
        upper=np.concatenate([upper, np.full(2 * count, np.inf)]),
        matrix=sparse.csr_array(sparse.hstack([breakable.matrix, give, -give])),
        row_lower=np.concatenate([problem.row_lower, problem.lower[bounded]]),
        row_upper=np.concatenate([problem.row_upper, problem.upper[bounded]]),
    )


def price_scale(problem: LinearProgram) -> float:
    """Largest price in `problem`, at least 1 [currency/MWh]."""
    return max(1.0, float(np.abs(problem.cost).max(initial=0.0)))


def import_violation(market: MarketLp, point: OperatingPoint) -> FloatArray:
    """(2, t) How far the real and the reactive import lie outside their ranges [pu]."""
    import_pu = point.import_pu[: market.intervals]
    power = np.stack([import_pu.real, import_pu.imag])
    blocks = [market.template.blocks[name] for name in ("import_p", "import_q")]
    low = np.stack([market.columns.lower[:, block].ravel() for block in blocks])
    high = np.stack([market.columns.upper[:, block].ravel() for block in blocks])
    return np.abs(power - np.clip(power, low, high))


def check_requirements_can_be_met(elastic: LinearProgram, market: MarketLp) -> None:
    """Check that resources can hold ready what must be met, whatever the network does.

    Raises
    ------
    InputError
        When they cannot; names requirements that lack something where all lack the least.
    """
    requirements, short = market.case.requirements, market.block("shortage")
    is_firm = np.isinf(requirements.shortage_usd_per_mw_h)
    cost, upper = np.zeros(len(elastic.cost)), elastic.upper.copy()
    cost[short[:, is_firm]], upper[short[:, is_firm]] = 1.0, np.inf
    solution = solve_lp(replace(elastic, cost=cost, upper=upper))
    problems = Problems()
    if solution is not None:
        lacking = np.where(is_firm, solution.x[short], 0.0)
        for interval, index in np.argwhere(lacking > SHORT_PU).tolist():
            required = float(requirements.quantity_kw[interval, index])
            within = required - float(lacking[interval, index]) * BASE_KVA
            problems.add(
                f"requirement {requirements.name[index]}, interval {interval}",
                "quantity_kw",
                required,
                f"only {within:.6g} can be held ready beside self-schedules, within bids, ratings and stored energy, "
                "in every interval that a call lasts; lower it, or give a shortage_usd_per_mw_h",
            )
    problems.raise_if_any()
