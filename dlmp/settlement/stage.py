"""What is settled at one set of prices: the energy of every resource, load and of the import.

One settlement has one stage.  Of two settlements (day-ahead and real-time markets; Stoft, Power System Economics,
2002, ch. 3-2) the first stage is the day-ahead positions at the day-ahead prices, the second the deviations from
them at the real-time prices.  All that is settled is linear in the energies, so both are the same arithmetic.
"""

from dataclasses import dataclass

from dlmp.clearing import Clearing
from dlmp.network.model import ComplexArray, FloatArray, IntArray

DEVIATION = "_imbalance"
"""Ending of the products and causes of deviations."""


@dataclass(frozen=True, eq=False)
class Stage:
    """Energies, real + j reactive [kWh + j kvarh] over an interval, and the clearing at whose prices they are settled.

    Parameters
    ----------
    clearing
        Its prices hold.
    ending
        Ending of the names of products and causes: "" or `DEVIATION`.
    order
        (r,) Number in `clearing` of each resource that is settled.
    injected
        (t, r) Net injection of each resource that is settled.
    cleared
        (t, r) The same as the network state has it.
    drawn
        (t, p) Consumption of the loads at every port.
    imported
        (t,) Import of the substation.
    """

    clearing: Clearing
    ending: str
    order: IntArray
    injected: ComplexArray
    cleared: ComplexArray
    drawn: ComplexArray
    imported: ComplexArray

    @property
    def consumed(self) -> ComplexArray:
        """(t, p) Consumption less injection at every port in the network state."""
        return self.drawn - self.cleared @ self.clearing.case.resources.share[self.order]

    @property
    def resource_lmp_usd_per_mwh(self) -> FloatArray:
        """(t, r) Price of real power where each resource stands."""
        return self.clearing.awards.lmp_usd_per_mwh[:, self.order]

    @property
    def resource_lmp_q_usd_per_mvarh(self) -> FloatArray:
        """(t, r) Price of reactive power where each resource stands."""
        return self.clearing.awards.lmp_q_usd_per_mvarh[:, self.order]
