"""One compiled interval, repeated, is the model of the whole horizon."""

import gc
from dataclasses import replace

import numpy as np
import pyomo.environ as pyo
import pytest
from cases import CASES, feeder33
from scipy import sparse
from test_ramps import RAMP_CASES
from test_reactive import REACTIVE_CASES

from dlmp.formulation.lindistflow import INJECTIONS, STATES, declare_lindistflow, losses_around
from dlmp.formulation.market_lp import VARIABLES, build_market_lp
from dlmp.formulation.template import Template, collector_paused, compile_template
from dlmp.network.model import FloatArray
from dlmp.products.energy import declare_energy

SIDES = 8


def small_model() -> pyo.ConcreteModel:
    model = pyo.ConcreteModel()
    model.x = pyo.Var([0], range(2))
    model.y = pyo.Var([0], range(3))
    x, y = model.x, model.y
    model.equal = pyo.Constraint(expr=2 * x[0, 1] + y[0, 0] == 5)
    model.most = pyo.Constraint(expr=x[0, 0] - 3 * y[0, 2] + 1 <= 4)
    model.least = pyo.Constraint(expr=y[0, 1] >= -2)
    return model


def test_rows_and_columns_stand_where_the_template_says():
    template = compile_template(small_model(), ["y", "x"])
    assert dict(template.blocks) == {"y": slice(0, 3), "x": slice(3, 5)}
    assert template.column_count == 5
    found = set(zip(map(tuple, template.matrix.toarray()), template.row_lower, template.row_upper, strict=True))
    assert found == {
        ((1, 0, 0, 0, 2), 5, 5),
        ((0, 0, -3, 1, 0), -np.inf, 3),
        ((0, 1, 0, 0, 0), -2, np.inf),
    }


def in_order(matrix: FloatArray, lower: FloatArray, upper: FloatArray) -> FloatArray:
    """Rows with their bounds, in the order of their values."""
    rows = np.column_stack([lower, upper, matrix])
    return rows[np.lexsort(rows.T)]


def by_interval(template: Template, intervals: int) -> FloatArray:
    """Rows of a template of several intervals, over columns ordered by interval."""
    columns = []
    for interval in range(intervals):
        for block in template.blocks.values():
            width = (block.stop - block.start) // intervals
            columns.append(block.start + interval * width + np.arange(width))
    matrix = template.matrix[:, np.concatenate(columns)].toarray()
    return in_order(matrix, template.row_lower, template.row_upper)


def repeated(template: Template, intervals: int) -> FloatArray:
    """Rows of one compiled interval, stamped over the horizon."""
    matrix = sparse.kron(sparse.eye_array(intervals), template.matrix).toarray()
    return in_order(matrix, np.tile(template.row_lower, intervals), np.tile(template.row_upper, intervals))


def declare_market(model: pyo.ConcreteModel, intervals: range) -> None:
    declare_energy(model, CASES["day_33"](), intervals, SIDES)


def declare_network(model: pyo.ConcreteModel, intervals: range) -> None:
    network = feeder33()
    p_kw, q_kvar = network.element_loads()
    declare_lindistflow(model, network, intervals, losses_around(network, -(p_kw + 1j * q_kvar) / 100.0))


@pytest.mark.parametrize(
    ("declare", "variables"), [(declare_market, VARIABLES), (declare_network, STATES + INJECTIONS)]
)
def test_one_interval_repeated_is_the_horizon_compiled(declare, variables):
    intervals = 3
    one, all_of_them = pyo.ConcreteModel(), pyo.ConcreteModel()
    declare(one, range(1))
    declare(all_of_them, range(intervals))
    expected = by_interval(compile_template(all_of_them, variables), intervals)
    found = repeated(compile_template(one, variables), intervals)
    assert len(found) > 10
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("build", [RAMP_CASES["with_a_battery_33"], REACTIVE_CASES["with_a_battery_33"]])
def test_two_intervals_repeated_are_the_coupled_horizon_compiled(build):
    lp, model = build_market_lp(build(), SIDES), pyo.ConcreteModel()
    assert lp.is_coupled
    declare_energy(model, build(), range(lp.intervals), SIDES)
    expected = by_interval(compile_template(model, VARIABLES), lp.intervals)
    np.testing.assert_array_equal(in_order(lp.matrix.toarray(), lp.row_lower, lp.row_upper), expected)


def test_bounds_and_costs_over_the_horizon_are_those_of_the_horizon_s_model():
    case = CASES["day_33"]()
    rise = np.tile([0.0, 0.0, 4.0, 6.0, 0.0], (3, 1))
    case = replace(case, bids=replace(case.bids, price_rise_usd_per_mwh=rise))
    lp = build_market_lp(case, SIDES)
    model = pyo.ConcreteModel()
    declare_energy(model, case, range(3), SIDES)
    for name in VARIABLES:
        block = lp.template.blocks[name]
        for (interval, item), variable in getattr(model, name).items():
            column = block.start + item
            lower, upper = variable.bounds
            assert lp.columns.lower[interval, column] == (-np.inf if lower is None else lower)
            assert lp.columns.upper[interval, column] == (np.inf if upper is None else upper)
    values = np.random.default_rng(0).normal(size=lp.columns.cost.shape)
    for name in VARIABLES:
        for (interval, item), variable in getattr(model, name).items():
            variable.set_value(values[interval, lp.template.blocks[name].start + item], skip_validation=True)
    cost = lp.columns.cost * values + lp.columns.slope * values**2 / 2
    assert cost.sum() == pytest.approx(pyo.value(model.cost), rel=1e-12)


@pytest.mark.parametrize("was_enabled", [True, False])
def test_the_collector_is_left_as_it_was_found(was_enabled: bool):
    before = gc.isenabled()
    try:
        (gc.enable if was_enabled else gc.disable)()
        with pytest.raises(RuntimeError, match="inside"), collector_paused():
            assert not gc.isenabled()
            raise RuntimeError("inside")
        assert gc.isenabled() is was_enabled
    finally:
        (gc.enable if before else gc.disable)()
