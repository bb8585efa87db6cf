"""A sparse matrix of many blocks, put together once: nested SciPy blocks are copied and sorted at every level."""

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dlmp.network.model import FloatArray

Places = npt.NDArray[np.integer]


class Assembly:
    """Blocks of a matrix and their places; entries at the same place are added up."""

    def __init__(self) -> None:
        self._row: list[Places] = [np.zeros(0, dtype=np.int32)]
        self._column: list[Places] = [np.zeros(0, dtype=np.int32)]
        self._value: list[FloatArray] = [np.zeros(0)]

    def add(self, block: sparse.sparray, row: int, column: int, *, is_mirrored: bool = False) -> None:
        """Add a `block` whose first entry is at `row` and `column`, and perhaps its mirror image."""
        entries = block.tocoo()
        self.add_entries(entries.data, entries.row + row, entries.col + column)
        if is_mirrored:
            self.add_entries(entries.data, entries.col + column, entries.row + row)

    def add_entries(self, value: FloatArray, row: Places, column: Places) -> None:
        """Add each `value` at its `row` and `column`, (i,) each."""
        self._value.append(value)
        self._row.append(row)
        self._column.append(column)

    def csr(self, shape: tuple[int, int]) -> sparse.csr_array:
        """The matrix."""
        row, column = np.concatenate(self._row), np.concatenate(self._column)
        return sparse.csr_array((np.concatenate(self._value), (row, column)), shape=shape)

    def csc(self, down: Places, across: Places) -> sparse.csc_array:
        """The matrix with row i at place ``down[i]`` and column i at place ``across[i]``."""
        places = down[np.concatenate(self._row)], across[np.concatenate(self._column)]
        return sparse.csc_array((np.concatenate(self._value), places), shape=(len(down), len(across)))
