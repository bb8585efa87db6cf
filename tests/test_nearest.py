"""The nearest point of a polyhedron: by hand, and by the variational inequality."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.optimize import linprog

from dlmp.nearest import Polyhedron, _interior, nearest_point


def polyhedron(rows, row_lower, row_upper, lower=-np.inf, upper=np.inf) -> Polyhedron:
    count = np.shape(rows)[1]
    return Polyhedron(
        np.full(count, lower, float),
        np.full(count, upper, float),
        sparse.csr_array(np.asarray(rows, float)),
        np.asarray(row_lower, float),
        np.asarray(row_upper, float),
    )


def test_a_centre_inside_is_the_answer():
    within = polyhedron([[1, 1]], [0], [9])
    assert nearest_point(within, np.ones(2), np.array([1.0, 2.0])) == pytest.approx([1, 2])


def test_a_sum_is_shared_by_weight():
    """x + y = 6 nearest to the origin with weights 1 and 2: x = 2 y."""
    within = polyhedron([[1, 1]], [6], [6])
    assert nearest_point(within, np.array([1.0, 2.0]), np.zeros(2)) == pytest.approx([4, 2])


def test_a_bound_leaves_the_rest_to_the_others():
    within = polyhedron([[1, 1, 1], [1, 0, 0]], [6, -np.inf], [6, 1])
    assert nearest_point(within, np.ones(3), np.zeros(3)) == pytest.approx([1, 2.5, 2.5])


def test_an_unknown_without_weight_takes_what_its_condition_asks():
    """x - y = 5 with y up to 2 and free of charge: x = 5, y = 0; then x at most 4: y = -1."""
    within = polyhedron([[1, -1]], [5], [5], upper=[9, 2], lower=[-9, -9])
    assert nearest_point(within, np.array([1.0, 0.0]), np.array([6.0, 0.0])) == pytest.approx([6, 1])
    tight = polyhedron([[1, -1]], [5], [5], upper=[4, 2], lower=[-9, -9])
    assert nearest_point(tight, np.array([1.0, 0.0]), np.array([6.0, 0.0])) == pytest.approx([4, -1])


def test_an_empty_polyhedron_has_none():
    assert nearest_point(polyhedron([[1, 1], [1, 1]], [3, -9], [9, 2]), np.ones(2), np.zeros(2)) is None


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 10**6))
def test_no_point_lies_further_towards_the_centre(seed: int):
    random = np.random.default_rng(seed)
    count, rows = random.integers(2, 6), random.integers(1, 8)
    matrix, inside = random.integers(-2, 3, (rows, count)).astype(float), random.integers(-3, 4, count)
    room = random.choice([0.0, 0.0, 1.0, np.inf], (2, rows))
    value = matrix @ inside
    low, high = value - room[0], value + room[1]
    weight, centre = random.choice([1.0, 3.0], count), random.normal(size=count) * 5
    found = nearest_point(polyhedron(matrix, low, high), weight, centre)
    assert found is not None
    assert (matrix @ found >= low - 1e-6).all()
    assert (matrix @ found <= high + 1e-6).all()
    # Nearest it is where no point of the polyhedron lies further along the pull of the centre.
    pull = weight * (centre - found)
    both = np.concatenate([matrix, -matrix])
    ends = np.concatenate([high, -low])
    finite = np.isfinite(ends)
    along = linprog(-pull, both[finite], ends[finite], bounds=(-100, 100))
    assert -along.fun <= pull @ found + 1e-4


def test_equalities_that_say_the_same_to_the_last_digits_leave_the_others_free():
    """The sum is zero, said twice, the second time with another rounding."""
    again = 0.37284975 * (1 + 6e-15 * np.array([1.0, -1.0, 1.0, -1.0]))
    within = polyhedron([-np.ones(4), again], [0, 5e-14], [0, 5e-14], upper=9.0)
    assert nearest_point(within, np.ones(4), np.array([1.0, 5.0, 0.0, 2.0])) == pytest.approx([-1, 3, -2, 0])


def test_two_conditions_that_leave_one_point_give_it():
    """Between x >= 51.2365 and x <= 51.2365 there is no interior, and the multipliers grow without end."""
    conditions = np.array([[-0.62235344], [0.78273635], [0.14418143], [0.62235344], [-0.78273635]])
    least = np.array([-10102.88522941, -10081.80401627, -17087.41237596, 31.88720422, -40.10466077])
    found = _interior(np.array([[0.82934474]]), np.array([-42.49271122]), conditions, least)
    assert found == pytest.approx([31.88720422 / 0.62235344], rel=1e-6)
