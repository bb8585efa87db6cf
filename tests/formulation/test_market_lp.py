"""The market's columns and how the network's rows are laid over them."""

import numpy as np
from cases import CASES, feeder33, market, resource

from dlmp.formulation.market_lp import build_market_lp
from dlmp.market import simple_case


def test_every_variable_of_every_interval_has_columns_of_its_own():
    lp = build_market_lp(CASES["day_33"](), 8)
    columns = [lp.block(name) for name in ("award", "p", "q", "import_p", "import_q")]
    assert [block.shape for block in columns] == [(3, 5), (3, 4), (3, 4), (3, 1), (3, 1)]
    assert np.sort(np.concatenate([block.ravel() for block in columns])).tolist() == list(range(3 * lp.width))
    assert (lp.block("p")[1] - lp.block("p")[0] == lp.width).all()


def test_injections_are_resources_less_loads_and_add_up_at_a_node():
    case = market(
        feeder33(),
        [20.0, 30.0],
        resource("a", 5, supply=[(100, 1)]),
        resource("b", 5, supply=[(100, 1)]),
        load=[1.0, 0.5],
    )
    lp = build_market_lp(case, 8)
    x = np.zeros(2 * lp.width)
    x[lp.block("p")[1]], x[lp.block("q")[1]] = [0.25, 0.5], [0.1, -0.3]
    injection = lp.injection(x)
    load = (case.load_p_kw + 1j * case.load_q_kvar) / 100.0
    np.testing.assert_allclose(injection[0], -load[0])
    np.testing.assert_allclose(injection[1] + load[1], np.where(np.arange(33) == 5, 0.75 - 0.2j, 0.0), atol=1e-15)


def test_a_network_row_holds_its_gradient_over_the_resources_of_its_interval():
    case = CASES["day_33"]()
    lp = build_market_lp(case, 8)
    interval = np.array([2, 0])
    gradient = np.random.default_rng(0).normal(size=(2, 2, len(lp.ports)))
    rows = lp.network_rows(interval, lp.spread(gradient), "import_p")
    x = np.random.default_rng(1).normal(size=3 * lp.width)
    place = [int(np.flatnonzero(lp.ports == node)[0]) for node in case.resources.first_port]
    for row, t in enumerate(interval):
        p, q, imported = x[lp.block("p")[t]], x[lp.block("q")[t]], x[lp.block("import_p")[t, 0]]
        expected = gradient[row, 0, place] @ p + gradient[row, 1, place] @ q + imported
        np.testing.assert_allclose((rows @ x)[row], expected)


def test_the_start_accepts_nothing_but_what_must_run():
    case = CASES["heavy_33"]()
    lp = build_market_lp(case, 8)
    start = lp.start[lp.block("p")[0]]
    np.testing.assert_allclose(start, np.maximum(case.resources.p_min_kw, 0.0) / 100.0)
    assert not lp.start[lp.block("q")].any()


def test_a_market_of_nobody_has_the_import_only():
    lp = build_market_lp(simple_case(feeder33(), [20.0, 30.0]), 8)
    assert lp.width == 2
    assert lp.matrix.shape == (0, 4)
    assert lp.ports.size == 0
