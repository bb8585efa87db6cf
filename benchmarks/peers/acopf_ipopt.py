"""The exact optimum: the AC optimal power flow of the tests, by IPOPT, whose multipliers are the prices.

It is the tests' oracle and stays with them: `benchmarks.process` puts their folder on the path, as pytest does.
"""

from acopf import solve_acopf

from benchmarks.peers.outcome import Outcome
from dlmp import Settings
from dlmp.market import MarketCase


def solve(case: MarketCase, settings: Settings) -> Outcome:
    """Solve every interval, or all together where stores couple them."""
    try:
        found = solve_acopf(case, circle_sides=settings.circle_sides)
    except RuntimeError as error:
        return Outcome(str(error))
    return Outcome("solved", found.cost, found.price_p)
