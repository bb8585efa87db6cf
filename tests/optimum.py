"""What every clearing that is compared with the AC optimum must have in common with it."""

import numpy as np
import pytest
from acopf import AcOpf, solve_acopf

from dlmp import Clearing, clear
from dlmp.market import MarketCase


def cleared_at_the_ac_optimum(case: MarketCase) -> tuple[Clearing, AcOpf]:
    """Clear `case`, and assert that its certificate holds and that cost and prices are those of IPOPT."""
    found, expected = clear(case), solve_acopf(case)
    assert found.status == "converged"
    assert found.certificate.is_feasible
    assert found.certificate.is_supported
    assert found.objective == pytest.approx(expected.cost, rel=1e-6)
    np.testing.assert_allclose(found.prices.lmp_usd_per_mwh, expected.price_p, rtol=0, atol=1e-3)
    np.testing.assert_allclose(found.prices.lmp_q_usd_per_mvarh, expected.price_q, rtol=0, atol=1e-3)
    return found, expected
