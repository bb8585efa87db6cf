"""Loads that follow their voltage: their law by hand, where it is continuous, and its derivatives."""

from dataclasses import fields

import numpy as np
import pytest

from dlmp.network.loads import BAND_SLACK, LoadLaws, no_laws

EXPONENTS = (0.0, 0.8, 1.0, 2.0, 2.3)
"""Constant power, current and impedance, and two of loads of conservation voltage reduction."""
BAND = (0.95, 1.05)
LOW = 0.5
EDGES = {"nominal impedance below": LOW, "lower": BAND[0] * (1 - BAND_SLACK), "upper": BAND[1] * (1 + BAND_SLACK)}


def law(exponent: float, outer: float | None = None, *, base: float = 1.0, low: float = LOW) -> LoadLaws:
    """One load, with an exponent of its own at the edges of the band where there is an `outer` one."""
    numbers = (np.array([value]) for value in (base, exponent, exponent if outer is None else outer, *BAND, low))
    return LoadLaws(np.array([0]), *numbers)


def power(laws: LoadLaws, *size_pu: float) -> np.ndarray:
    """Power over nominal power of one load at voltages [pu]."""
    return laws.shape(np.array([size_pu]))[0][0]


@pytest.mark.parametrize(
    ("exponent", "u", "expected"),
    [
        # in the band a power of the voltage
        (0, 0.96, 1.0),
        (0, 1.04, 1.0),
        (1, 0.96, 0.96),
        (2, 1.04, 1.0816),
        (0.5, 0.9604, 0.98),
        # above it the impedance of the upper edge: 1 / 1.05^2, 1.05 / 1.05^2 and 1
        (0, 1.1, 1.1**2 / 1.05**2),
        (1, 1.1, 1.1**2 / 1.05),
        (2, 1.1, 1.21),
        # below it current on a line: from 1 / 0.95 to 0.5, from 1 to 0.5, from 0.95 to 0.5
        (0, 0.725, 0.725 * (1 / 0.95 + 0.5) / 2),
        (1, 0.725, 0.725 * 0.75),
        (2, 0.725, 0.725**2),
        (1, 0.59, 0.59 * 0.6),
        # and the nominal impedance below that
        (0, 0.4, 0.16),
        (1, 0.4, 0.16),
        (2, 0.4, 0.16),
        (0, 0.0, 0.0),
    ],
)
def test_power_over_nominal_power_by_hand(exponent: float, u: float, expected: float):
    assert power(law(exponent), u)[0] == pytest.approx(expected, rel=3 * BAND_SLACK, abs=1e-15)


def test_outside_the_band_the_load_is_what_the_outer_exponent_makes_of_it_at_the_edges():
    """A load of exponent 0.8 in the band and of constant power at its edges."""
    mixed = law(0.8, 0.0)
    assert power(mixed, 0.97)[0] == pytest.approx(0.97**0.8, rel=1e-14)
    outside = (0.7, 0.94, 1.06, 1.3)
    np.testing.assert_array_equal(power(mixed, *outside), power(law(0.0), *outside))
    assert (np.abs(power(mixed, *outside) - power(law(0.8), *outside)) > 0.01).all()


def test_the_band_is_of_the_load_s_own_base():
    """A pair at 0.97 of its 1.73 pu is in the band, and at 0.97 pu far below it."""
    base = 3**0.5
    assert power(law(1, base=base), 0.97 * base)[0] == pytest.approx(0.97, rel=1e-14)
    assert power(law(1, base=base), 0.97)[0] == pytest.approx(power(law(1), 0.97 / base)[0], rel=1e-14)
    assert power(law(1, base=base), 0.97)[0] < 0.6


def test_a_voltage_at_the_very_edge_of_the_band_is_in_it():
    """A limit at the edge binds there to the last digit."""
    for edge in BAND:
        value, first, _ = law(1).shape(edge * np.array([[1 - 1e-9, 1.0, 1 + 1e-9]]))
        np.testing.assert_allclose(value[0], edge, rtol=2e-9)
        np.testing.assert_allclose(first, value, rtol=1e-14)


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("exponent", EXPONENTS)
def test_power_does_not_jump_at_an_edge(exponent: float, edge: str):
    before, after = power(law(exponent), EDGES[edge] * (1 - 1e-10), EDGES[edge] * (1 + 1e-10))
    assert after - before == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("u", [0.3, 0.6, 0.8, 0.94, 0.96, 1.0, 1.04, 1.06, 1.2])
@pytest.mark.parametrize(("exponent", "outer"), [*zip(EXPONENTS, EXPONENTS, strict=True), (0.8, 0.0), (0.0, 2.3)])
def test_derivatives_are_the_differences_of_the_power(exponent: float, outer: float, u: float):
    """By the logarithm of the voltage: ``u f'`` is the slope of f, and ``u (u f')'`` that of ``u f'``."""
    base, step = 1.7, 1e-5
    at = base * u * np.exp(np.array([[-step, 0.0, step]]))
    value, first, second = law(exponent, outer, base=base).shape(at)
    assert first[0, 1] == pytest.approx((value[0, 2] - value[0, 0]) / (2 * step), rel=1e-8, abs=1e-10)
    assert second[0, 1] == pytest.approx((first[0, 2] - first[0, 0]) / (2 * step), rel=1e-8, abs=1e-10)


def test_each_load_has_its_own_law_at_each_of_its_voltages():
    laws = [law(0), law(1, base=3**0.5), law(2.3, 1.0), law(0.8, low=0.9)]
    names = [item.name for item in fields(LoadLaws)]
    joined = LoadLaws(*(np.concatenate([getattr(own, name) for own in laws]) for name in names))
    size = np.array([[0.4, 1.0, 1.2], [1.0, 1.75, 1.9], [0.7, 0.97, 1.06], [0.88, 0.93, 1.02]])
    together = joined.shape(size)
    for row, own in enumerate(laws):
        for found, expected in zip(together, own.shape(size[[row]]), strict=True):
            np.testing.assert_array_equal(found[row], expected[0])


def test_laws_are_read_only_copies():
    exponent = np.array([1.0])
    ones = np.ones(1)
    laws = LoadLaws(np.zeros(1, dtype=np.int64), ones, exponent, *(4 * [ones]))
    exponent[0] = 2.0
    assert laws.exponent[0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        laws.exponent[0] = 2.0


def test_no_laws_are_none():
    value, first, second = no_laws().shape(np.zeros((0, 4)))
    assert len(no_laws()) == 0
    assert value.shape == first.shape == second.shape == (0, 4)
