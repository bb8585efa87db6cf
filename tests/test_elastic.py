"""What is broken least where limits conflict."""

from dataclasses import replace

import numpy as np
import pytest
from cases import market, resource
from feeders import Branch, feeder
from scipy import sparse
from servicecases import Needed, Ready, with_services

from dlmp.elastic import elastic_programme, firm_requirements, import_violation, shortage
from dlmp.formulation.ac_tangent import AcTangent
from dlmp.formulation.market_lp import MarketLp, build_market_lp
from dlmp.market import MarketCase
from dlmp.solve import LinearProgram, solve_lp

BRANCHES = [Branch("a", "b", 0.02, 0.04, rating=1.0), Branch("b", "c", 0.03, 0.02)]


@pytest.fixture
def case() -> MarketCase:
    """2 + j0.6 pu of load, 0.3 pu of generation: import up to 1 pu, a line of 1 pu, voltages of 0.95."""
    network = feeder(BRANCHES, {"b": (80, 20), "c": (120, 40)}, band=(0.95, 1.1))
    return market(network, 20.0, resource("g", "c", supply=[(30, 30)]), p_max_kw=100.0, q_max_kvar=50.0)


def with_rows(case: MarketCase, rows: sparse.csr_array, lower: list[float]) -> tuple[MarketLp, LinearProgram]:
    """The market, a balance without losses, and further rows with lower bounds."""
    lp = build_market_lp(case, 4)
    balance = lp.network_rows(np.array([0]), np.array([[[1.0], [0.0]]]), "import_p")
    reactive = lp.network_rows(np.array([0]), np.array([[[0.0], [1.0]]]), "import_q")
    return lp, LinearProgram(
        lp.columns.cost.ravel(),
        lp.columns.lower.ravel(),
        lp.columns.upper.ravel(),
        sparse.csr_array(sparse.vstack([lp.matrix, balance, reactive, rows])),
        np.r_[lp.row_lower, 1.0, 0.0, lower],
        np.r_[lp.row_upper, 1.0, 0.0, np.full(len(lower), np.inf)],
    )


def test_the_least_violation_of_conflicting_rows_is_found(case: MarketCase):
    """The generator's 0.3 pu is all there is: a row that wants 1.0 of it is broken by 0.7, one that wants 0.1 holds."""
    p = 1
    rows = sparse.csr_array(([1.0, 1.0], ([0, 1], [p, p])), shape=(2, 5))
    lp, problem = with_rows(case, rows, [1.0, 0.1])
    assert lp.block("p").item() == p
    assert solve_lp(problem) is None
    may_be_broken = np.array([False, False, True, True])
    solution = solve_lp(elastic_programme(problem, lp, may_be_broken))
    assert solution.x[p] == pytest.approx(0.3, abs=1e-9)
    assert solution.x[lp.width :].sum() == pytest.approx(0.7, abs=1e-9)
    may_be_broken[2] = False
    assert solve_lp(elastic_programme(problem, lp, may_be_broken)) is None


def test_the_range_of_the_import_is_broken_where_the_balance_needs_it(case: MarketCase):
    """A load of 1 pu less 0.3 of generation: an import of at most 0.5 is broken by 0.2."""
    capped = replace(case, substation=replace(case.substation, p_max_kw=50.0))
    lp, problem = with_rows(capped, sparse.csr_array((0, 5)), [])
    assert solve_lp(problem) is None
    solution = solve_lp(elastic_programme(problem, lp, np.array([False, False])))
    assert solution.x[lp.block("import_p").item()] == pytest.approx(0.7, abs=1e-9)


def test_a_row_that_nothing_can_move_may_be_broken_too(case: MarketCase):
    """A limit on a feeder where nobody bids has no coefficients at all."""
    lp, problem = with_rows(case, sparse.csr_array((1, 5)), [0.2])
    assert solve_lp(problem) is None
    assert solve_lp(elastic_programme(problem, lp, np.array([False, False, True]))) is not None


def test_import_is_broken_by_its_distance_to_its_range(case: MarketCase):
    formulation, lp = AcTangent(case.network), build_market_lp(case, 4)
    point = formulation.operate(lp.injection(lp.start))
    expected = [[point.import_pu[0].real - 1.0], [point.import_pu[0].imag - 0.5]]
    np.testing.assert_allclose(import_violation(lp, point), expected, rtol=1e-12)


def test_a_shortage_is_what_is_not_held_ready_of_what_must_be(case: MarketCase):
    """25 kW up from anybody, at any price, of which 10 are held; and 20 kW down that have a price."""
    offers = [Ready("g", "capacity_up", 30.0), Ready("g", "capacity_down", 30.0)]
    case = with_services(case, offers, [Needed("capacity_up", 25.0), Needed("capacity_down", 20.0, 100.0)])
    lp = build_market_lp(case, 4)
    assert firm_requirements(lp).tolist() == [[0, 0]]
    x = np.array(lp.start)
    x[lp.block("reserve")[0, 0]] = 0.1
    assert shortage(lp, x) == pytest.approx([0.15], abs=1e-12)
