"""Loads that follow their voltage: the law ``S(u) = S0 f(u)`` with ``u`` the voltage over the load's own base.

Within the band ``u_min <= u <= u_max`` the law is a power, ``f = u^e`` (0 constant power, 1 constant
current, 2 constant impedance).  Above it the load is the impedance that it is at ``u_max``; below it
the current falls in a straight line to that of the nominal impedance at ``u_low``, and below that the
load is the nominal impedance.  What it is at the edges follows ``u^o`` with an exponent of its own: where
``o = e``, `f` is continuous.  These are OpenDSS's rules (Vminpu, Vmaxpu, Vlowpu of a Load).  With
``S = S0 f`` the current is ``I = conj(S0) f(u) / conj(v)``, and its derivatives need only ``f``, ``u f'``
and ``u (u f')'``.
"""

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

SMALLEST = 1e-9
BAND_SLACK = 1e-6
"""The band is widened by this, relative, so that a voltage limit at its edge lies inside."""


@dataclass(frozen=True, eq=False)
class LoadLaws:
    """Laws of l loads.

    Parameters
    ----------
    port
        (l,) Port at which each stands.
    base_pu
        (l,) Its own base voltage in pu of the port's nodes; about 1.73 for a pair.
    exponent
        (l,) ``e``.
    outer
        (l,) ``o``.
    u_min, u_max, u_low
        (l,) Band in which the law holds, and where the nominal impedance begins [of `base_pu`].
    """

    port: npt.NDArray[np.int64]
    base_pu: npt.NDArray[np.float64]
    exponent: npt.NDArray[np.float64]
    outer: npt.NDArray[np.float64]
    u_min: npt.NDArray[np.float64]
    u_max: npt.NDArray[np.float64]
    u_low: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        for item in fields(self):
            value = np.array(getattr(self, item.name))
            value.setflags(write=False)
            object.__setattr__(self, item.name, value)

    def __len__(self) -> int:
        return len(self.port)

    def shape(self, size_pu: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], ...]:
        """``f``, ``u f'`` and ``u (u f')'`` at voltage magnitudes (l, t) [pu], each (l, t)."""
        exponent, outer = self.exponent[:, None], self.outer[:, None]
        u = size_pu / self.base_pu[:, None]
        low, high = self.u_min[:, None] * (1 - BAND_SLACK), self.u_max[:, None] * (1 + BAND_SLACK)
        power = np.exp(exponent * np.log(np.clip(u, np.maximum(low, SMALLEST), high)))
        above, below = u > high, u < low
        value = np.where(above, high ** (outer - 2) * u**2, power)
        local = np.where(above, 2.0, exponent)
        first, second = local * value, local**2 * value
        under = (u < self.u_low[:, None]) & (self.u_max[:, None] < np.inf)
        below |= under
        if below.any():
            start = self.u_low[:, None]
            slope = (low ** (outer - 1) - start) / np.maximum(low - start, 1e-12)
            linear, square = (start - slope * start) * u, slope * u**2
            linear, square = np.where(under, 0.0, linear), np.where(under, u**2, square)
            value = np.where(below, linear + square, value)
            first = np.where(below, linear + 2 * square, first)
            second = np.where(below, linear + 4 * square, second)
        return value, first, second


def no_laws() -> LoadLaws:
    """No such load."""
    none = np.zeros(0)
    return LoadLaws(np.zeros(0, dtype=np.int64), none, none, none, none, none, none)
