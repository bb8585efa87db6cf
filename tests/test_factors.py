"""Sparse LU factors, against dense linear algebra."""

import gc
import subprocess
import sys

import numpy as np
import psutil
import pytest
from scipy import sparse

import dlmp
from dlmp import factors as module
from dlmp.factors import KluOrdering, SuperLuOrdering, factorised

ORDERINGS = [SuperLuOrdering, *([KluOrdering] if module.klu else [])]


@pytest.fixture(params=ORDERINGS, autouse=True)
def ordering_kind(request, monkeypatch):
    monkeypatch.setattr(module, "Ordering", request.param)
    return request.param


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


def test_matrices_with_dense_parts_are_solved_alike_and_refused_alike():
    matrix = sparse.csc_array(sparse.block_array([[unsymmetric(), None], [None, np.ones((9, 9)) + 5 * np.eye(9)]]))
    right = np.random.default_rng(4).normal(size=69)
    found = factorised(matrix, has_dense_parts=True).solve(right)
    np.testing.assert_allclose(found, np.linalg.solve(matrix.toarray(), right), rtol=1e-9, atol=1e-9)
    for broken in (0.0, np.nan):
        with pytest.raises(np.linalg.LinAlgError):
            factorised(matrix * broken, has_dense_parts=True)
    with pytest.raises(ValueError, match="not square"):
        factorised(matrix[:, :-1], has_dense_parts=True)


def test_right_hand_sides_in_any_order_of_memory():
    matrix, right = unsymmetric(), np.random.default_rng(2).normal(size=(60, 10))
    expected = np.linalg.solve(matrix.toarray(), right)
    for given in (np.asfortranarray(right), right[:, ::-1], right[::-1][::-1]):
        found = factorised(matrix).solve(given)
        np.testing.assert_allclose(found, expected[:, ::-1] if given.strides[1] < 0 else expected, atol=1e-9)


def test_factors_of_one_ordering_are_each_their_own(ordering_kind):
    one = unsymmetric()
    other = one.copy()
    other.data = other.data * np.random.default_rng(3).uniform(0.5, 2.0, other.nnz)
    ordering, right = ordering_kind(one), np.ones(60)
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


def test_patterns_that_do_not_do_are_told(ordering_kind):
    twice = sparse.csc_array((np.ones(3), [0, 0, 1], [0, 2, 3]), shape=(2, 2))
    with pytest.raises(ValueError, match="an entry twice"):
        ordering_kind(twice)
    for shape in ((3, 2), (2, 3), (1_000_000, 1)):
        with pytest.raises(ValueError, match=f"{shape[0]} rows and {shape[1]} columns is not square"):
            ordering_kind(sparse.csc_array(shape))


@pytest.mark.parametrize("singular", [sparse.csc_array((5, 5)), sparse.csc_array(np.ones((5, 5)))])
def test_singular_matrices_are_told(singular):
    with pytest.raises(np.linalg.LinAlgError, match="singular"):
        factorised(singular)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_matrices_that_are_not_finite_are_told(value):
    matrix = unsymmetric()
    matrix.data[7] = value
    with pytest.raises(np.linalg.LinAlgError, match="not finite"):
        factorised(matrix)


def test_sizes_that_do_not_fit_are_told(ordering_kind):
    matrix = unsymmetric()
    ordering = ordering_kind(matrix)
    with pytest.raises(ValueError, match=f"5 entries for a pattern of {matrix.nnz}"):
        ordering.factorise(sparse.csc_array(np.diag(np.ones(5))))
    factors = ordering.factorise(matrix)
    for right in (np.ones(59), np.ones((60, 2, 2)), np.ones(60, dtype=complex)):
        with pytest.raises(ValueError, match="for a real matrix of 60"):
            factors.solve(right)
    assert factors.solve(np.ones((60, 0))).shape == (60, 0)
    np.testing.assert_allclose(matrix @ factors.solve(np.ones(60, dtype=int)), 1.0, atol=1e-9)


@pytest.mark.parametrize("stiff", [1e-9, 1e-6, 1.0])
def test_small_diagonals_cost_no_digits(stiff):
    """A diagonal that is too small to be a pivot is none."""
    random = np.random.default_rng(5)
    whole = unsymmetric(300).toarray()
    np.fill_diagonal(whole, stiff * random.uniform(size=300))
    exact = random.normal(size=300)
    found = factorised(sparse.csc_array(whole)).solve(whole @ exact)
    assert np.abs(whole @ (found - exact)).max() < 1e-11 * np.abs(whole).sum(axis=1).max() * np.abs(exact).max()


def test_factors_that_are_forgotten_leave_no_memory(ordering_kind):
    matrix = unsymmetric(3000)
    ordering = ordering_kind(matrix)
    factors = ordering.factorise(matrix)
    del factors
    gc.collect()
    before = psutil.Process().memory_info().rss
    for _ in range(10):
        ordering.factorise(matrix).solve(np.ones(3000))
    gc.collect()
    assert psutil.Process().memory_info().rss - before < 0.2 * before


def test_factors_may_be_used_until_the_very_end():
    code = """
import atexit
import numpy as np
from scipy import sparse
made = []
atexit.register(lambda: print(made[0].solve(np.ones(3))))
from dlmp.factors import factorised
made.append(factorised(sparse.csc_array(np.diag([1.0, 2.0, 4.0]))))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[1.", "0.5", "0.25]"]


def test_a_clearing_is_the_same_by_either(monkeypatch):
    case = dlmp.read_case(dlmp.shipped_case("ieee13"))
    found = {}
    for kind in ORDERINGS:
        for owner in ("dlmp.factors", "dlmp.powerflow"):
            monkeypatch.setattr(f"{owner}.Ordering", kind)
        found[kind] = dlmp.clear(case)
    objectives = [clearing.objective for clearing in found.values()]
    assert objectives == pytest.approx([objectives[0]] * len(ORDERINGS), rel=1e-9)
    for clearing in found.values():
        np.testing.assert_allclose(clearing.prices.published, found[SuperLuOrdering].prices.published, atol=1e-5)
