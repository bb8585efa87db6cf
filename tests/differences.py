"""Central differences of functions of the injections, to hold derivatives against."""

from collections.abc import Callable

import numpy as np
from scipy import sparse

from dlmp.network.model import ComplexArray, FloatArray

STEP_PU = 5e-3
"""Half a kW or kvar: rounding and the fifth derivative each stay below 1e-6 of a gradient."""
SMOOTH_PU = 0.2
"""A smaller flow is not smooth over such steps: its magnitude has a corner at zero."""


def differences(
    values: Callable[[ComplexArray], FloatArray], power: ComplexArray, share: sparse.csr_array
) -> FloatArray:
    """Differences of fourth order of ``values``, (t, k), by injections with `share` (i, p) at each port.

    Returns (t, k, 2, i): by real and by reactive injection.
    """
    columns = []
    for way in (1.0, 1j):
        for row in share.toarray():
            far_low, low, high, far_high = (values(power + way * step * STEP_PU * row) for step in (-2, -1, 1, 2))
            columns.append((8 * (high - low) - (far_high - far_low)) / (12 * STEP_PU))
    found = np.stack(columns, axis=-1)
    return found.reshape(*found.shape[:-1], 2, share.shape[0])


def close(found: FloatArray, expected: FloatArray, rounding: FloatArray | float = 0.0) -> None:
    """Equal within 1e-6 of the largest component of each gradient, or within `rounding` where that is zero."""
    size = np.abs(expected).max(axis=(-2, -1), keepdims=True)
    assert (np.abs(found - expected) <= 1e-6 * size + np.reshape(rounding, (-1, 1, 1))).all()
