"""What a peer makes of a case."""

from dataclasses import dataclass

import numpy as np

from dlmp.network.model import FloatArray


class NotExpressible(Exception):  # noqa: N818 - a peer's answer, not a failure
    """A case that the peer has no words for; the message says why."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """A peer's answer.

    Parameters
    ----------
    status
        ``solved``, or how it ended.
    cost
        What its objective comes to over the horizon [currency]; None where it did not solve the case.
    price_usd_per_mwh
        (t, p) Price of real demand at every port of the network [currency/MWh]; None where it has none.
    """

    status: str
    cost: float | None = None
    price_usd_per_mwh: FloatArray | None = None

    def price_error(self, expected: FloatArray) -> tuple[float, float] | None:
        """Largest and mean difference of its prices from `expected` (t, p) [currency/MWh]; None without prices."""
        if self.price_usd_per_mwh is None:
            return None
        gap = np.abs(self.price_usd_per_mwh - expected)
        return float(np.nanmax(gap)), float(np.nanmean(gap))
