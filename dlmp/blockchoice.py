"""Which blocks are accepted: a mixed-integer programme under the tangents of the points visited so far.

It is outer approximation (Duran and Grossmann, Mathematical Programming 36, 1986): a clearing with all blocks
divisible gives the first tangents.  A mixed-integer LP under them (HiGHS) chooses; the market is cleared with its
choice fixed, which gives further tangents, and so on, until a choice repeats or the programme promises nothing
better than the best clearing found.  A choice that no dispatch keeps is cut off.  Where import has a positive value
and no voltage binds the result is the least cost of all choices; else it is the best of those cleared.

Of choices that cost the same the one with the fewest blocks is taken, and of several such one that depends on the
names of the blocks only, not on their order.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dlmp.dispatch import Dispatch
from dlmp.errors import InfeasibleError, PowerFlowError
from dlmp.formulation.interface import Formulation
from dlmp.formulation.market_lp import MarketLp
from dlmp.formulation.network_rows import NetworkRows
from dlmp.formulation.softness import Slack
from dlmp.network.model import FloatArray
from dlmp.scarcity import penalties_of
from dlmp.settings import Settings
from dlmp.solve import LinearProgram, solve_mip
from dlmp.timing import PhaseClock

MOST_CHOICES = 50
"""Most choices that are cleared."""
MAX_ROUNDS = 10
"""Most rounds of predicted limits before a choice."""
SAME_COST = 1e-7
"""Costs that differ by less, relative, are the same."""

BoolArray = npt.NDArray[np.bool_]
Clear = Callable[[MarketLp], Dispatch]


def dispatch_with_blocks(
    market: MarketLp, formulation: Formulation, settings: Settings, clock: PhaseClock, clear: Clear
) -> Dispatch:
    """Choose blocks and clear the market with the choice fixed.

    Parameters
    ----------
    market
        With all blocks divisible.
    formulation, settings, clock
        As of `dlmp.dispatch.dispatch`.
    clear
        Clears a market.

    Returns
    -------
    The best clearing; its ``market`` has the choice in its bounds.

    Raises
    ------
    InfeasibleError
        When no dispatch keeps the limits, whichever blocks are accepted.
    """
    choice = _Choice(market, formulation, settings, clock, clear(market))
    best, best_cost = None, np.inf
    for _ in range(MOST_CHOICES):
        found = choice.next()
        if found is None:
            break
        accepted, promised = found
        if choice.has_tried(accepted) or promised >= best_cost - SAME_COST * (1 + abs(promised)):
            break
        choice.tried.append(accepted)
        try:
            cleared = clear(market.with_blocks(accepted))
        except (InfeasibleError, PowerFlowError):
            choice.forbidden.append(accepted)
            continue
        choice.visit(cleared)
        cost = _cost(cleared) if cleared.converged else np.inf
        if best is None or cost < best_cost - SAME_COST * (1 + abs(cost)):
            best, best_cost = cleared, cost
    # Tangents of voltages may rule out everything: then what is left is to accept nothing, or to say what conflicts.
    return best or clear(market.with_blocks(np.zeros(len(market.case.blocks), bool)))


def _cost(found: Dispatch) -> float:
    """Cost of a dispatch at its own import, with its penalties [currency/MWh times pu]."""
    return found.market.columns.total_cost(found.x) + float(penalties_of(found).sum())


class _Choice:
    """The mixed-integer programme and what it has learned.

    Attributes
    ----------
    tried, forbidden
        Choices (b,) that were cleared, or tried in vain; those of the latter.
    """

    def __init__(
        self, market: MarketLp, formulation: Formulation, settings: Settings, clock: PhaseClock, relaxed: Dispatch
    ):
        self.market, self.settings, self.clock = market, settings, clock
        self.rows = NetworkRows(market, formulation)
        self.tried: list[BoolArray] = []
        self.forbidden: list[BoolArray] = []
        count = len(market.case.blocks)
        rank = np.argsort(np.argsort(market.case.blocks.name.astype(str), kind="stable"))
        self.preference = 1 + np.random.default_rng(0).random(count)[rank] / max(1, count)
        self.visit(relaxed)

    def visit(self, found: Dispatch) -> None:
        """Learn the tangents at a dispatch."""
        with self.clock.phase("gradients"):
            self.rows.add_point(found.point, found.x)
        self.point = found.point

    def has_tried(self, accepted: BoolArray) -> bool:
        """True for a choice that was tried before."""
        return any((accepted == other).all() for other in self.tried)

    def next(self) -> tuple[BoolArray, float] | None:
        """Return the best choice under what is known and its promised cost; None where there is none."""
        width, rounds = len(self.market.start), 0
        while True:
            slack = self.rows.slack()
            problem, is_integer = self._programme(slack)
            x = self._solve(problem, is_integer)
            if x is None:
                return None
            self.rows.note_excess(slack, x[width : width + len(slack.key)])
            with self.clock.phase("gradients"):
                if rounds == MAX_ROUNDS or not self.rows.add_predicted(self.point, x[:width]):
                    break
            rounds += 1
        cost = float(problem.cost @ x)
        preferred = self._solve(self._preferred(problem, is_integer, cost), is_integer)
        return ((x if preferred is None else preferred)[is_integer] > 0.5, cost)

    def _solve(self, problem: LinearProgram, is_integer: BoolArray) -> FloatArray | None:
        with self.clock.phase("solver"):
            return solve_mip(problem, is_integer, self.settings.time_limit_s)

    def _preferred(self, problem: LinearProgram, is_integer: BoolArray, cost: float) -> LinearProgram:
        """Choose among what costs no more than `cost`."""
        preference = np.zeros(len(problem.cost))
        preference[is_integer] = self.preference
        return replace(
            problem,
            cost=preference,
            matrix=sparse.csr_array(sparse.vstack([problem.matrix, problem.cost[None, :]])),
            row_lower=np.append(problem.row_lower, -np.inf),
            row_upper=np.append(problem.row_upper, cost + SAME_COST * (1 + abs(cost))),
        )

    def _programme(self, slack: Slack) -> tuple[LinearProgram, BoolArray]:
        """The market's LP under all tangents, with `slack`, and one integer for each block."""
        market, blocks = self.market, self.market.case.blocks
        soft = self.rows.programme(market.columns.cost.ravel(), slack)
        count, width = len(blocks), len(soft.cost)
        own_upper = market.columns.upper[:, market.template.blocks["block"]]
        interval, block = np.nonzero(own_upper > 0)
        most = own_upper[interval, block]
        row = np.arange(len(block))
        place = (row, market.block("block")[interval, block])
        accepted = sparse.csr_array((np.ones(len(row)), place), shape=(len(row), width))
        by_most, by_least = (
            sparse.csr_array((-size, (row, block)), shape=(len(row), count))
            for size in (most, most * blocks.least_share[block])
        )
        groups = [blocks.group == name for name in dict.fromkeys(blocks.group.tolist()) if name]
        sums = np.array([*groups, *(np.where(no, 1.0, -1.0) for no in self.forbidden)], dtype=float).reshape(-1, count)
        bounds = np.array([1.0] * len(groups) + [no.sum() - 1.0 for no in self.forbidden])
        problem = LinearProgram(
            np.append(soft.cost, np.zeros(count)),
            np.append(soft.lower, np.zeros(count)),
            np.append(soft.upper, np.ones(count)),
            sparse.csr_array(
                sparse.block_array(
                    [[soft.matrix, None], [accepted, by_most], [accepted, by_least], [None, sparse.csr_array(sums)]]
                )
            ),
            np.concatenate(
                [soft.row_lower, np.full(len(row), -np.inf), np.zeros(len(row)), np.full(len(bounds), -np.inf)]
            ),
            np.concatenate([soft.row_upper, np.zeros(len(row)), np.full(len(row), np.inf), bounds]),
        )
        return problem, np.arange(width + count) >= width
