"""Blocks of a sparse matrix at their places, against dense algebra."""

import numpy as np
import pytest
from scipy import sparse

from dlmp.assembly import Assembly


@pytest.fixture
def blocks():
    random = np.random.default_rng(3)
    return [sparse.random_array(shape, density=0.5, rng=random) for shape in ((3, 4), (2, 2), (4, 4))]


def whole_of(blocks):
    first, second, third = blocks
    whole, dense = Assembly(), np.zeros((7, 7))
    whole.add(first, 4, 0, is_mirrored=True)
    whole.add(sparse.csr_array(second), 1, 2)
    whole.add(sparse.csc_array(third), 0, 0)
    whole.add_entries(np.array([0.0, 2.0]), np.array([6, 6]), np.array([6, 6]))
    dense[4:7, :4] += first.toarray()
    dense[:4, 4:7] += first.toarray().T
    dense[1:3, 2:4] += second.toarray()
    dense[:4, :4] += third.toarray()
    dense[6, 6] += 2.0
    return whole, dense


def test_blocks_at_one_place_are_added(blocks):
    whole, dense = whole_of(blocks)
    np.testing.assert_allclose(whole.csr((7, 7)).toarray(), dense, rtol=0, atol=1e-15)


def test_rows_and_columns_come_to_their_places(blocks):
    whole, dense = whole_of(blocks)
    random = np.random.default_rng(4)
    down, across = random.permutation(7), random.permutation(7)
    expected = np.zeros((7, 7))
    expected[np.ix_(down, across)] = dense
    found = whole.csc(down, across)
    np.testing.assert_allclose(found.toarray(), expected, rtol=0, atol=1e-15)
    assert found.has_canonical_format


def test_an_entry_of_zero_keeps_its_place():
    whole = Assembly()
    whole.add_entries(np.zeros(2), np.arange(2), np.arange(2))
    every = np.arange(2)
    assert whole.csc(every, every).nnz == 2


def test_nothing_makes_an_empty_matrix():
    assert Assembly().csr((2, 3)).nnz == 0
