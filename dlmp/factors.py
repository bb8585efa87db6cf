"""Sparse LU factors, by KLU, or by SciPy's SuperLU where there is no KLU for the platform.

KLU's orderings and plain loops suit networks, whose factors have hardly any dense parts: beside SuperLU a radial
feeder's Jacobian is factorised in a third of the time, and solved with in a quarter (measured).  Davis and Palamadai
Natarajan, Algorithm 907, ACM Trans. Math. Softw. 37(3), 2010.
"""

import weakref
from typing import Any, Protocol

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from dlmp.network.model import FloatArray

try:
    from nbklu import _ext as klu
except ImportError:
    klu = None  # type: ignore[assignment]

PIVOT_TOLERANCE = 0.1
"""A diagonal entry is the pivot where it is at least so large beside the largest of its column: as sparse as the
ordering meant it."""


class Factors(Protocol):
    """A factorised matrix."""

    def solve(self, right: FloatArray, *, transposed: bool = False) -> FloatArray:
        """Solve with (n,) or (n, c) right-hand sides.

        Raises
        ------
        ValueError
            For right-hand sides of another length, or of more than two dimensions.
        """
        ...


class KluOrdering:
    """Permutations that keep the factors of all matrices of a pattern sparse; see `Ordering`."""

    def __init__(self, pattern: sparse.csc_array):
        self.size = _size(pattern)
        self._indptr, self._indices = (part.astype(np.int32) for part in (pattern.indptr, pattern.indices))
        self.common = klu.Common()
        self.common.defaults()
        self.common.tol = PIVOT_TOLERANCE
        self.symbolic = klu.analyze(self.size, self._indptr, self._indices, self.common)
        if self.symbolic is None:
            raise _error(self.common.status, "a pattern with an entry twice")
        weakref.finalize(self, self.symbolic.free, self.common).atexit = False

    def factorise(self, matrix: sparse.csc_array) -> Factors:
        """Factorise a matrix of the pattern; see `Ordering`."""
        _check_entries(matrix, len(self._indices))
        numeric = klu.factor(self._indptr, self._indices, matrix.data, self.symbolic, self.common)
        if self.common.status != klu.KLU_OK:
            raise _error(self.common.status, "factors")
        return _KluFactors(self, numeric)


class _KluFactors:
    def __init__(self, ordering: KluOrdering, numeric: Any):
        self._ordering, self._numeric = ordering, numeric
        weakref.finalize(self, numeric.free, ordering.common).atexit = False

    def solve(self, right: FloatArray, *, transposed: bool = False) -> FloatArray:
        ordering = self._ordering
        _check_right(right, ordering.size)
        found = np.array(right.T, dtype=float, order="C")
        count = len(found) if found.ndim == 2 else 1
        solve = klu.tsolve if transposed else klu.solve
        if not solve(ordering.symbolic, self._numeric, ordering.size, count, found, ordering.common):
            raise _error(ordering.common.status, "a solve")
        return found.T


class SuperLuOrdering:
    """The same by SuperLU, which orders every matrix anew; see `Ordering`."""

    def __init__(self, pattern: sparse.csc_array):
        self.size, self._entries = _size(pattern), len(pattern.indices)
        if not pattern.has_canonical_format:
            raise ValueError("a pattern with an entry twice, or out of order")

    def factorise(self, matrix: sparse.csc_array) -> Factors:
        """Factorise a matrix of the pattern; see `Ordering`."""
        _check_entries(matrix, self._entries)
        options = {"SymmetricMode": True}
        return _SuperLuFactors(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=PIVOT_TOLERANCE, options=options)


class _SuperLuFactors:
    def __init__(self, matrix: sparse.csc_array, **options: Any):
        self._size = len(matrix.indptr) - 1
        try:
            self._factors = splu(matrix, **options)
        except RuntimeError as error:
            raise np.linalg.LinAlgError("singular matrix") from error

    def solve(self, right: FloatArray, *, transposed: bool = False) -> FloatArray:
        _check_right(right, self._size)
        return np.asarray(self._factors.solve(np.asarray(right, dtype=float), "T" if transposed else "N"))


Ordering = SuperLuOrdering if klu is None else KluOrdering
"""Permutations that keep the factors of all matrices of a pattern sparse.

Made of any (n, n) matrix of the pattern, with its entries in the order of all others, each once: ValueError where it is
not square or has an entry twice.  ``factorise(matrix)`` raises LinAlgError for a singular matrix or one that is not
finite, and ValueError for one that has not as many entries as the pattern.
"""


def factorised(matrix: sparse.sparray, *, has_dense_parts: bool = False) -> Factors:
    """Factorise one matrix; see `Ordering`.  Dense parts are for SuperLU, beside which KLU is slow there (measured)."""
    whole = sparse.csc_array(matrix, copy=True)
    whole.sum_duplicates()
    if has_dense_parts:
        _size(whole)
        _check_entries(whole, len(whole.indices))
        return _SuperLuFactors(whole)
    return Ordering(whole).factorise(whole)


def _size(pattern: sparse.csc_array) -> int:
    rows, columns = pattern.shape
    if rows != columns:
        raise ValueError(f"a pattern of {rows} rows and {columns} columns is not square")
    return int(rows)


def _check_entries(matrix: sparse.csc_array, count: int) -> None:
    if len(matrix.data) != count:
        raise ValueError(f"{len(matrix.data)} entries for a pattern of {count}")
    if not np.isfinite(matrix.data).all():
        raise np.linalg.LinAlgError("a matrix that is not finite")


def _check_right(right: FloatArray, size: int) -> None:
    if len(right) != size or right.ndim > 2 or np.iscomplexobj(right):
        raise ValueError(f"right-hand sides of {right.shape}, {right.dtype}, for a real matrix of {size}")


def _error(status: int, what: str) -> Exception:
    """What KLU's status means."""
    if status == klu.KLU_SINGULAR:
        return np.linalg.LinAlgError("singular matrix")
    if status in (klu.KLU_OUT_OF_MEMORY, klu.KLU_TOO_LARGE):
        return MemoryError(f"no memory for {what}")
    return ValueError(what)
