"""Sparse LU factors, against dense linear algebra."""

import gc

import numpy as np
import psutil
import pytest
from scipy import sparse

from dlmp.factors import Ordering, factorised


def unsymmetric(size=60, seed=0):
    random = np.random.default_rng(seed)
    return sparse.csc_array(sparse.random_array((size, size), density=6 / size, rng=random) + sparse.eye_array(size))


@pytest.mark.parametrize("columns", [(), (1,), (7,)])
@pytest.mark.parametrize("transposed", [False, True])
def test_solves_as_dense_algebra_does(columns, transposed):
    matrix = unsymmetric()
    right = np.random.default_rng(1).normal(size=(60, *columns))
    dense = matrix.toarray().T if transposed else matrix.toarray()
    kept = right.copy()
    found = factorised(matrix).solve(right, transposed=transposed)
    np.testing.assert_allclose(found, np.linalg.solve(dense, right), rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(right, kept)


def test_right_hand_sides_in_any_order_of_memory():
    matrix, right = unsymmetric(), np.random.default_rng(2).normal(size=(60, 10))
    expected = np.linalg.solve(matrix.toarray(), right)
    for given in (np.asfortranarray(right), right[:, ::-1], right[::-1][::-1]):
        found = factorised(matrix).solve(given)
        np.testing.assert_allclose(found, expected[:, ::-1] if given.strides[1] < 0 else expected, atol=1e-9)


def test_factors_of_one_ordering_are_each_their_own():
    one = unsymmetric()
    other = one.copy()
    other.data = other.data * np.random.default_rng(3).uniform(0.5, 2.0, other.nnz)
    ordering, right = Ordering(one), np.ones(60)
    of_one, of_other = ordering.factorise(one), ordering.factorise(other)
    for factors, matrix in ((of_one, one), (of_other, other), (of_one, one)):
        np.testing.assert_allclose(matrix @ factors.solve(right), right, atol=1e-9)


def test_entries_in_any_order_and_in_parts():
    matrix = unsymmetric()
    entries = matrix.tocoo()
    order = np.random.default_rng(4).permutation(np.tile(np.arange(entries.nnz), 2))
    halves = (entries.data[order] / 2, (entries.row[order], entries.col[order]))
    given = sparse.coo_array(halves, shape=matrix.shape)
    np.testing.assert_allclose(matrix @ factorised(given).solve(np.ones(60)), 1.0, atol=1e-9)
    assert given.nnz == 2 * matrix.nnz


def test_patterns_that_do_not_do_are_told():
    twice = sparse.csc_array((np.ones(3), [0, 0, 1], [0, 2, 3]), shape=(2, 2))
    with pytest.raises(ValueError, match="not square, or has an entry twice"):
        Ordering(twice)
    with pytest.raises(ValueError, match="not square, or has an entry twice"):
        factorised(sparse.csc_array(np.ones((3, 2))))


@pytest.mark.parametrize("singular", [sparse.csc_array((5, 5)), sparse.csc_array(np.ones((5, 5)))])
def test_singular_matrices_are_told(singular):
    with pytest.raises(np.linalg.LinAlgError, match="singular"):
        factorised(singular)


def test_sizes_that_do_not_fit_are_told():
    matrix = unsymmetric()
    ordering = Ordering(matrix)
    with pytest.raises(ValueError, match=f"5 entries for a pattern of {matrix.nnz}"):
        ordering.factorise(sparse.csc_array(np.diag(np.ones(5))))
    with pytest.raises(ValueError, match="59 rows for a matrix of 60"):
        ordering.factorise(matrix).solve(np.ones(59))


def test_factors_that_are_forgotten_leave_no_memory():
    matrix = unsymmetric(3000)
    ordering = Ordering(matrix)
    factors = ordering.factorise(matrix)
    del factors
    gc.collect()
    before = psutil.Process().memory_info().rss
    for _ in range(10):
        ordering.factorise(matrix).solve(np.ones(3000))
    gc.collect()
    assert psutil.Process().memory_info().rss - before < 0.2 * before
