"""What to do when limits conflict: the LP in which they may be broken at a penalty, and their names."""

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dlmp.errors import LimitConflict
from dlmp.formulation.interface import Formulation, OperatingPoint
from dlmp.formulation.market_lp import MarketLp
from dlmp.formulation.network_rows import violation
from dlmp.network.model import FloatArray
from dlmp.solve import LinearProgram
from dlmp.units import BASE_KVA

REAL_IMPORT, REACTIVE_IMPORT = "substation import of real power", "substation import of reactive power"
"""Names of the import's limits."""
PENALTY = 1e4
"""Cost of breaking a limit of the elastic LP, in multiples of the largest price [per pu of power]."""
MOST_CONFLICTS = 20
"""Conflicting limits named in an error."""


def elastic_programme(problem: LinearProgram, market: MarketLp, is_limit: npt.NDArray[np.bool_]) -> LinearProgram:
    """Return `problem` with limits and import bounds breakable at `PENALTY`, its cost over `price_scale`.

    Parameters
    ----------
    problem
        The market's rows, then one row per entry of `is_limit`.
    market
        Where the import stands among the columns.
    is_limit
        (i,) True for the rows that may be broken.
    """
    imports = np.concatenate([market.block("import_p").ravel(), market.block("import_q").ravel()])
    width = len(problem.cost)
    bounded = imports[np.isfinite(problem.lower[imports]) | np.isfinite(problem.upper[imports])]
    as_rows = sparse.csr_array((np.ones(len(bounded)), (np.arange(len(bounded)), bounded)), shape=(len(bounded), width))
    matrix = sparse.csr_array(sparse.vstack([problem.matrix, as_rows]))
    soft = np.concatenate(
        [len(market.row_lower) + np.flatnonzero(is_limit), len(problem.row_lower) + np.arange(len(bounded))]
    )
    largest = abs(matrix[soft]).max(axis=1).toarray().ravel()
    size = np.where(largest > 0, largest, 1.0)  # a limit that no resource can move is broken as it stands
    give = sparse.csr_array((size, (soft, np.arange(len(soft)))), shape=(matrix.shape[0], len(soft)))
    lower, upper = problem.lower.copy(), problem.upper.copy()
    lower[bounded], upper[bounded] = -np.inf, np.inf
    return LinearProgram(
        cost=np.concatenate([problem.cost / price_scale(problem), np.full(2 * len(soft), PENALTY)]),
        lower=np.concatenate([lower, np.zeros(2 * len(soft))]),
        upper=np.concatenate([upper, np.full(2 * len(soft), np.inf)]),
        matrix=sparse.csr_array(sparse.hstack([matrix, give, -give])),
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


def conflicts(
    market: MarketLp, formulation: Formulation, point: OperatingPoint, tolerance_pu: float
) -> list[LimitConflict]:
    """Limits that `point` breaks, the worst `MOST_CONFLICTS` of them first."""
    limits, value = formulation.limits, point.limit_value
    broken = violation(limits, value)
    state, limit = np.nonzero(broken > tolerance_pu)
    order = np.argsort(-broken[state, limit], kind="stable")[:MOST_CONFLICTS]
    found = _import_conflicts(market, point, tolerance_pu)
    for t, k in zip(state[order], limit[order], strict=True):
        bound = limits.lower[k] if value[t, k] < limits.lower[k] else limits.upper[k]
        shown = limits.physical(np.array([k, k]), np.array([bound, value[t, k]]))
        at = int(market.state_interval[t])
        found.append(LimitConflict(limits.name(int(k)), at, float(shown[0]), float(shown[1]), str(limits.unit[k])))
    return found


def _import_conflicts(market: MarketLp, point: OperatingPoint, tolerance_pu: float) -> list[LimitConflict]:
    found = []
    broken = import_violation(market, point)
    import_pu = point.import_pu[: market.intervals]
    for name, label, unit, value, over in (
        ("import_p", REAL_IMPORT, "kW", import_pu.real, broken[0]),
        ("import_q", REACTIVE_IMPORT, "kvar", import_pu.imag, broken[1]),
    ):
        columns = market.columns.lower[:, market.template.blocks[name]].ravel()
        for t in np.flatnonzero(over > tolerance_pu)[:MOST_CONFLICTS]:
            bound = value[t] + over[t] if value[t] < columns[t] else value[t] - over[t]
            found.append(LimitConflict(label, int(t), float(bound * BASE_KVA), float(value[t] * BASE_KVA), unit))
    return found
