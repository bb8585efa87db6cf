"""What is settled at one set of prices: energy of resources, loads and import, power held ready, make-whole payments.

One settlement has one stage.  Of two settlements (day-ahead and real-time markets; Stoft, Power System Economics,
2002, ch. 3-2) the first stage is the day-ahead positions at the day-ahead prices, the second the deviations from
them at the real-time prices.  All that is settled is linear in the energies, so both are the same arithmetic.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dlmp.clearing import Clearing
from dlmp.network.model import ComplexArray, FloatArray, IntArray
from dlmp.services import SERVICES

DEVIATION = "_imbalance"
"""Ending of the products and causes of deviations."""


@dataclass(frozen=True, eq=False)
class Held:
    """What the market that bought services has beside each other, for each resource that is settled.

    Parameters
    ----------
    scheduled
        (t, r) Net injection that it awarded [kWh + j kvarh].
    reserved
        (t, r) Power held ready times hours for every service of `dlmp.services.SERVICES` [kW h], [kvar h].
    p_max_kw
        (t, r) Largest injection that it knew of [kW].
    """

    scheduled: ComplexArray
    reserved: Mapping[str, FloatArray]
    p_max_kw: FloatArray


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
    reserved
        (t, k) Power held ready times hours, of each offer of a service in `clearing` [kW h], [kvar h].
    make_whole
        (t, r) Make-whole payments of the blocks of each resource in `clearing`, by their first interval [currency].
    """

    clearing: Clearing
    ending: str
    order: IntArray
    injected: ComplexArray
    cleared: ComplexArray
    drawn: ComplexArray
    imported: ComplexArray
    reserved: FloatArray
    make_whole: FloatArray

    @property
    def consumed(self) -> ComplexArray:
        """(t, p) Consumption less injection at every port in the network state."""
        return self.drawn - self.cleared @ self.clearing.case.resources.share[self.order]

    @property
    def held(self) -> Held:
        """Awards and power held ready beside them."""
        offers, resources = self.clearing.case.service_offers, self.clearing.case.resources
        reserved = {}
        for service in SERVICES:
            own = np.flatnonzero(offers.service == service)
            in_clearing = np.zeros((len(self.reserved), len(resources)))
            in_clearing[:, offers.resource[own]] = self.reserved[:, own]
            reserved[service] = in_clearing[:, self.order]
        return Held(self.cleared, reserved, resources.p_max_kw[:, self.order])

    @property
    def resource_lmp_usd_per_mwh(self) -> FloatArray:
        """(t, r) Price of real power where each resource stands."""
        return self.clearing.awards.lmp_usd_per_mwh[:, self.order]

    @property
    def resource_lmp_q_usd_per_mvarh(self) -> FloatArray:
        """(t, r) Price of reactive power where each resource stands."""
        return self.clearing.awards.lmp_q_usd_per_mvarh[:, self.order]
