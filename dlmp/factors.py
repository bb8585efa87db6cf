"""Sparse LU factors by KLU, whose orderings and plain loops suit networks: their factors have hardly any dense parts.

Davis and Palamadai Natarajan, Algorithm 907, ACM Trans. Math. Softw. 37(3), 2010.  Beside SuperLU a radial feeder's
Jacobian is factorised in a third of the time, and solved with in a quarter (measured).
"""

import weakref

import numpy as np
import numpy.typing as npt
from nbklu import _ext as klu
from scipy import sparse

from dlmp.network.model import FloatArray


class Ordering:
    """Permutations that keep the factors of all matrices of a pattern sparse.

    Parameters
    ----------
    pattern
        (n, n) Any matrix of the pattern, with its entries in the order of all others, each once.

    Raises
    ------
    ValueError
        When it is not square, or has an entry twice.
    """

    def __init__(self, pattern: sparse.csc_array):
        self._indptr, self._indices = (part.astype(np.int32) for part in (pattern.indptr, pattern.indices))
        self.common = klu.Common()
        self.common.defaults()
        self.size = pattern.shape[0]
        self.symbolic = klu.analyze(self.size, self._indptr, self._indices, self.common)
        if self.symbolic is None or pattern.shape[1] != self.size:
            raise ValueError(f"a pattern of {pattern.shape} that is not square, or has an entry twice")
        weakref.finalize(self, self.symbolic.free, self.common)

    def factorise(self, matrix: sparse.csc_array) -> "Factors":
        """Factorise a matrix of the pattern.

        Raises
        ------
        numpy.linalg.LinAlgError
            When it is singular.
        ValueError
            When it has not as many entries as the pattern.
        """
        if len(matrix.data) != len(self._indices):
            raise ValueError(f"{len(matrix.data)} entries for a pattern of {len(self._indices)}")
        numeric = klu.factor(self._indptr, self._indices, matrix.data, self.symbolic, self.common)
        if self.common.status != klu.KLU_OK:
            raise np.linalg.LinAlgError("singular matrix")
        return Factors(self, numeric)


class Factors:
    """A factorised matrix."""

    def __init__(self, ordering: Ordering, numeric: klu.Numeric):
        self._ordering, self._numeric = ordering, numeric
        weakref.finalize(self, numeric.free, ordering.common)

    def solve(self, right: npt.NDArray[np.float64], *, transposed: bool = False) -> FloatArray:
        """Solve with (n,) or (n, c) right-hand sides.

        Raises
        ------
        ValueError
            For as many rows as the matrix has not.
        """
        ordering = self._ordering
        if len(right) != ordering.size:
            raise ValueError(f"{len(right)} rows for a matrix of {ordering.size}")
        found = np.array(right.T, dtype=float, order="C")
        count = len(found) if found.ndim == 2 else 1
        solve = klu.tsolve if transposed else klu.solve
        solve(ordering.symbolic, self._numeric, ordering.size, count, found, ordering.common)
        return found.T


def factorised(matrix: sparse.sparray) -> Factors:
    """Factorise one matrix; see `Ordering.factorise`."""
    whole = sparse.csc_array(matrix, copy=True)
    whole.sum_duplicates()
    return Ordering(whole).factorise(whole)
