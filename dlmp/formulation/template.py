"""From Pyomo to arrays: one interval compiled once, then repeated over the horizon.

The rules of a model are compiled for a single interval, or for two where something couples them; every further
interval has the same coefficients and only other bounds and costs, so the rows of the horizon are copies of one
block over its own columns and of one over those of the interval before.
"""

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyomo.environ as pyo
from pyomo.repn.plugins.standard_form import LinearStandardFormCompiler
from scipy import sparse

from dlmp.network.model import FloatArray, IntArray
from dlmp.products.columns import Columns


@dataclass(frozen=True, eq=False)
class Template:
    """Rows ``row_lower <= matrix x <= row_upper`` of one interval.

    Parameters
    ----------
    blocks
        Columns of each variable, in the order of the matrix.
    matrix
        (rows, columns) Coefficients.
    before
        (rows, columns) Coefficients of the columns of the interval before.
    row_lower, row_upper
        (rows,) Bounds.
    row_rule, row_index
        (rows,) Name of the Pyomo rule that each row comes from, and its index there.
    """

    blocks: Mapping[str, slice]
    matrix: sparse.csr_array
    before: sparse.csr_array
    row_lower: FloatArray
    row_upper: FloatArray
    row_rule: list[str]
    row_index: list[tuple[int, ...]]

    def rows_of(self, rule: str) -> IntArray:
        """Rows of a rule, in the order of its index."""
        own = [row for row, name in enumerate(self.row_rule) if name == rule]
        return np.array(sorted(own, key=lambda row: self.row_index[row]), dtype=np.int64)

    @property
    def column_count(self) -> int:
        """Columns of one interval."""
        return int(self.matrix.shape[1])


def compile_template(model: pyo.ConcreteModel, variables: list[str]) -> Template:
    """Compile the rows of a model of one interval whose `variables` are indexed by (interval, item).

    Large ones with the `collector_paused`, as they are made.
    """
    blocks, position = {}, {}
    start = 0
    for name in variables:
        items = list(getattr(model, name).values())
        blocks[name] = slice(start, start + len(items))
        position.update({id(item): start + offset for offset, item in enumerate(items)})
        start += len(items)
    for objective in model.component_objects(pyo.Objective, active=True):
        objective.deactivate()  # the compiler knows none that is quadratic, and the costs are those of `Columns`
    form = LinearStandardFormCompiler().write(model, mixed_form=True)
    rows = sparse.coo_array(form.A)
    place = np.array([position[id(column)] for column in form.columns], dtype=np.int64)
    matrix = sparse.csr_array((rows.data, (rows.row, place[rows.col])), shape=(len(form.rows), start))
    sense = np.array([row.bound_type for row in form.rows], dtype=np.int64)
    return Template(
        blocks=blocks,
        matrix=matrix,
        row_lower=np.where(sense <= 0, form.rhs, -np.inf),
        row_upper=np.where(sense >= 0, form.rhs, np.inf),
        before=sparse.csr_array(matrix.shape),
        row_rule=[row.constraint.parent_component().local_name for row in form.rows],
        row_index=[_as_tuple(row.constraint.index()) for row in form.rows],
    )


def _as_tuple(index: object) -> tuple[int, ...]:
    if index is None:
        return ()
    return index if isinstance(index, tuple) else (index,)


def second_of_two(template: Template) -> Template:
    """The second interval of a template of two, with what couples it to the first."""
    rows = np.array([row for row, index in enumerate(template.row_index) if index[0] == 1], dtype=np.int64)
    halves: list[list[IntArray]] = [[], []]
    blocks, start = {}, 0
    for name, block in template.blocks.items():
        width = (block.stop - block.start) // 2
        for half, columns in enumerate(halves):
            columns.append(block.start + half * width + np.arange(width))
        blocks[name] = slice(start, start + width)
        start += width
    own = template.matrix[rows]
    return Template(
        blocks=blocks,
        matrix=own[:, np.concatenate(halves[1])],
        before=own[:, np.concatenate(halves[0])],
        row_lower=template.row_lower[rows],
        row_upper=template.row_upper[rows],
        row_rule=[template.row_rule[row] for row in rows],
        row_index=[template.row_index[row] for row in rows],
    )


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause garbage collection, for what makes many small objects that all stay alive, as Pyomo's models."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def over_horizon(template: Template, columns: Mapping[str, Columns]) -> Columns:
    """Bounds and costs of all columns, each (t, columns)."""
    order = list(template.blocks)
    return Columns(
        lower=np.concatenate([columns[name].lower for name in order], axis=1),
        upper=np.concatenate([columns[name].upper for name in order], axis=1),
        cost=np.concatenate([columns[name].cost for name in order], axis=1),
        slope=np.concatenate([columns[name].slope for name in order], axis=1),
    )
