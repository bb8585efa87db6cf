"""One compiled interval, repeated, is the model of the whole horizon."""

import gc

import numpy as np
import pyomo.environ as pyo
import pytest
from cases import CASES, feeder33
from scipy import sparse

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
    rows = dict(zip(template.row_name, range(3), strict=True))
    np.testing.assert_array_equal(template.matrix.toarray()[rows["equal"]], [1, 0, 0, 0, 2])
    np.testing.assert_array_equal(template.matrix.toarray()[rows["most"]], [0, 0, -3, 1, 0])
    np.testing.assert_array_equal(template.matrix.toarray()[rows["least"]], [0, 1, 0, 0, 0])
    bounds = {name: (template.row_lower[row], template.row_upper[row]) for name, row in rows.items()}
    assert bounds == {"equal": (5, 5), "most": (-np.inf, 3), "least": (-2, np.inf)}


def keyed(template: Template, intervals: int) -> tuple[list[str], FloatArray, FloatArray, FloatArray]:
    """Rows of a template of several intervals, sorted by name, over columns ordered by interval."""
    columns = []
    for interval in range(intervals):
        for block in template.blocks.values():
            width = (block.stop - block.start) // intervals
            columns.append(block.start + interval * width + np.arange(width))
    order = np.argsort(template.row_name)
    names = [template.row_name[row] for row in order]
    matrix = template.matrix[order][:, np.concatenate(columns)].toarray()
    return names, matrix, template.row_lower[order], template.row_upper[order]


def stamped(template: Template, intervals: int) -> tuple[list[str], FloatArray, FloatArray, FloatArray]:
    """Rows of one compiled interval, repeated and renamed, sorted by name."""
    names = [rename(name, interval) for interval in range(intervals) for name in template.row_name]
    order = np.argsort(names)
    matrix = sparse.kron(sparse.eye_array(intervals), template.matrix).toarray()[order]
    lower, upper = np.tile(template.row_lower, intervals)[order], np.tile(template.row_upper, intervals)[order]
    return [names[row] for row in order], matrix, lower, upper


def rename(row: str, interval: int) -> str:
    """The name of the same row of another interval: ``rule[0,7]`` or ``rule[0]``."""
    return row.replace("[0,", f"[{interval},").replace("[0]", f"[{interval}]")


def declare_market(model: pyo.ConcreteModel, intervals: range) -> None:
    declare_energy(model, CASES["day_33"](), intervals, SIDES)


def declare_network(model: pyo.ConcreteModel, intervals: range) -> None:
    network = feeder33()
    p_kw, q_kvar = network.element_loads()
    declare_lindistflow(model, network, intervals, losses_around(network, -(p_kw + 1j * q_kvar) / 100.0))


@pytest.mark.parametrize(("declare", "variables"), [(declare_market, VARIABLES), (declare_network, STATES + INJECTIONS)])
def test_one_interval_repeated_is_the_horizon_compiled(declare, variables):
    intervals = 3
    one, all_of_them = pyo.ConcreteModel(), pyo.ConcreteModel()
    declare(one, range(1))
    declare(all_of_them, range(intervals))
    expected = keyed(compile_template(all_of_them, variables), intervals)
    found = stamped(compile_template(one, variables), intervals)
    assert found[0] == expected[0]
    assert len(found[0]) > 10
    for here, there in zip(found[1:], expected[1:], strict=True):
        np.testing.assert_array_equal(here, there)


def test_bounds_and_costs_over_the_horizon_are_those_of_the_horizon_s_model():
    case = CASES["day_33"]()
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
    assert (lp.columns.cost * values).sum() == pytest.approx(pyo.value(model.cost), rel=1e-12)


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
