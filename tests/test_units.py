"""The unit boundary, against physics worked out by hand."""

import numpy as np
import pytest

from dlmp.units import BASE_KVA, base_current_a, base_ohm, money_per_price_pu


def test_a_quarter_of_an_hour_of_100_kw_at_20_per_mwh_is_half_a_dollar():
    assert BASE_KVA == 100.0
    assert 20.0 * 1.0 * money_per_price_pu(0.25) == pytest.approx(0.5, rel=1e-15)


def test_base_impedance_is_voltage_squared_over_power():
    """12.66 kV and 100 kVA: 12660^2 V^2 / 100,000 VA = 1602.756 ohm."""
    assert base_ohm(12.66) == pytest.approx(1602.756, rel=1e-12)


def test_base_current_is_that_of_100_kva_in_three_phases():
    """400 V: 100,000 VA / (1.7320508 x 400 V) = 144.3376 A."""
    assert base_current_a(0.4) == pytest.approx(144.3376, abs=1e-4)


def test_bases_of_arrays_follow_ohms_law():
    kv = np.array([0.4, 10.0, 110.0])
    np.testing.assert_allclose(3**0.5 * base_current_a(kv) * base_ohm(kv), kv * 1000.0, rtol=1e-14)
