"""From Pyomo to arrays: one interval compiled once, then repeated over the horizon.

The rules of a model are compiled for a single interval; every further interval has the same
coefficients and only other bounds and costs, so the rows of the horizon are copies of one block.
"""

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyomo.environ as pyo
from pyomo.repn.plugins.standard_form import LinearStandardFormCompiler
from scipy import sparse

from dlmp.network.model import FloatArray
from dlmp.products.energy import Columns


@dataclass(frozen=True, eq=False)
class Template:
    """Rows ``row_lower <= matrix x <= row_upper`` of one interval.

    Parameters
    ----------
    blocks
        Columns of each variable, in the order of the matrix.
    matrix
        (rows, columns) Coefficients.
    row_lower, row_upper
        (rows,) Bounds.
    row_name
        (rows,) Pyomo's name of each row, for messages.
    """

    blocks: Mapping[str, slice]
    matrix: sparse.csr_array
    row_lower: FloatArray
    row_upper: FloatArray
    row_name: list[str]

    @property
    def column_count(self) -> int:
        """Columns of one interval."""
        return int(self.matrix.shape[1])


def compile_template(model: pyo.ConcreteModel, variables: list[str]) -> Template:
    """Compile a model of one interval whose `variables` are indexed by (interval, item)."""
    blocks, position = {}, {}
    start = 0
    for name in variables:
        items = list(getattr(model, name).values())
        blocks[name] = slice(start, start + len(items))
        position.update({id(item): start + offset for offset, item in enumerate(items)})
        start += len(items)
    with collector_paused():
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
        row_name=[row.constraint.name for row in form.rows],
    )


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause garbage collection: Pyomo builds many small objects that all stay alive."""
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
    )
