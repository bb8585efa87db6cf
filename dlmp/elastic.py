"""The LP in which limits that conflict, and required services that nobody can hold ready, give way at a penalty."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dlmp.formulation.interface import OperatingPoint
from dlmp.formulation.market_lp import MarketLp
from dlmp.network.model import FloatArray, IntArray
from dlmp.products.services import REQUIREMENT
from dlmp.solve import LinearProgram

PENALTY = 1e4
"""Cost of breaking a limit of the elastic LP, in multiples of the largest price [per pu of power]."""


@dataclass(frozen=True, eq=False)
class Breakable:
    """The n rows of an LP that may be broken.

    Limits, then the bounds of the import as rows of their own, then required services that have no price of shortage.

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
    requirements
        (f, 2) Interval and requirement of each required service.
    """

    matrix: sparse.csr_array
    rows: IntArray
    size: FloatArray
    columns: IntArray
    requirements: IntArray

    @classmethod
    def of(cls, problem: LinearProgram, market: MarketLp, is_limit: npt.NDArray[np.bool_]) -> "Breakable":
        """Those of `problem`; the arguments are those of `elastic_programme`."""
        imports = np.concatenate([market.block("import_p").ravel(), market.block("import_q").ravel()])
        bounded = imports[np.isfinite(problem.lower[imports]) | np.isfinite(problem.upper[imports])]
        shape = (len(bounded), len(problem.cost))
        as_rows = sparse.csr_array((np.ones(len(bounded)), (np.arange(len(bounded)), bounded)), shape=shape)
        matrix = sparse.csr_array(sparse.vstack([problem.matrix, as_rows]))
        firm = firm_requirements(market)
        rows = np.concatenate(
            [
                len(market.row_lower) + np.flatnonzero(is_limit),
                len(problem.row_lower) + np.arange(len(bounded)),
                market.rows_of(REQUIREMENT)[firm[:, 0], firm[:, 1]],
            ]
        )
        largest = abs(matrix[rows]).max(axis=1).toarray().ravel()
        return cls(matrix, rows, np.where(largest > 0, largest, 1.0), bounded, firm)


def firm_requirements(market: MarketLp) -> IntArray:
    """(f, 2) Interval and number of every requirement that has no price of shortage."""
    requirements = market.case.requirements
    number = np.flatnonzero(np.isinf(requirements.shortage_usd_per_mw_h))
    return np.stack(np.meshgrid(np.arange(market.intervals), number, indexing="ij"), axis=-1).reshape(-1, 2)


def elastic_programme(problem: LinearProgram, market: MarketLp, is_limit: npt.NDArray[np.bool_]) -> LinearProgram:
    """Return `problem` with the rows of `Breakable` breakable at `PENALTY`, its cost over `price_scale`.

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


def shortage(market: MarketLp, x: FloatArray) -> FloatArray:
    """(f,) How much less than required is held ready of each of `firm_requirements` at dispatch `x` [pu]."""
    firm = firm_requirements(market)
    rows = market.rows_of(REQUIREMENT)[firm[:, 0], firm[:, 1]]
    return np.maximum(market.row_lower[rows] - market.matrix[rows] @ x, 0.0)
