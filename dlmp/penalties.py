"""What it costs to break a limit: penalties in tiers, by kind of limit.

A soft limit is one whose multiplier cannot exceed its penalty.  Every unit of excess costs the price of the tier
that it lies in, and prices rise from tier to tier, so that the cost of breaking a limit is convex.

The built-in prices stand well above what offers can ask for: those of US markets end at 2,000 USD/MWh (FERC Order
831).  Import and flows act one to one on a price.  A voltage follows power by about 0.04 pu/MW at the ends of
medium-voltage feeders, so that 50,000 USD per pu and hour make some 2,000 USD/MWh at each node that is out of its
band.  The shadow prices of the shipped and of the tested cases end at 1,400 USD per pu and hour, 100 USD/MVAh and
25 USD/MWh.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dlmp.errors import Problems
from dlmp.units import PRICE_REMEDY, is_price


@dataclass(frozen=True)
class Tier:
    """Every unit of excess `beyond` so much costs `price`, up to where the next tier begins.

    The units are those of the kind of limit: see `Penalties`.
    """

    beyond: float
    price: float


Tiers = tuple[Tier, ...]


@dataclass(frozen=True)
class Penalties:
    """Tiers of each kind of limit, the first of them beyond 0; without any the limit is hard.

    Parameters
    ----------
    voltage
        Voltage bands: beyond [pu], price [currency per pu and hour] of every node out of its band.
    thermal
        Ratings: beyond [share of the rating], price [currency/MVAh], for a current of the power that it is at
        nominal voltage.
    unbalance
        Negative- by positive-sequence voltage: beyond [pu], price [currency per pu and hour] of every bus.
    substation
        Range of real and of reactive import: beyond [kW], [kvar], price [currency/MWh], [currency/MVArh].

    Raises
    ------
    InputError
        With everything that is wrong.
    """

    voltage: Tiers = (Tier(0.0, 50_000.0), Tier(0.02, 100_000.0))
    thermal: Tiers = (Tier(0.0, 6_000.0), Tier(0.1, 20_000.0))
    unbalance: Tiers = (Tier(0.0, 50_000.0), Tier(0.02, 100_000.0))
    substation: Tiers = (Tier(0.0, 4_000.0),)

    def __post_init__(self) -> None:
        problems = Problems()
        for kind, name in KINDS.items():
            check_tiers(kind, getattr(self, name), problems)
        problems.raise_if_any()


def check_tiers(kind: str, tiers: Tiers, problems: Problems) -> None:
    """Add to `problems` everything that is wrong with the `tiers` of a kind of limit."""
    element = f"penalties of {kind}"
    for tier in tiers:
        if not np.isfinite(tier.beyond):
            problems.add(element, "beyond", tier.beyond, "must be finite")
        if not is_price(tier.price):
            problems.add(element, "price", tier.price, PRICE_REMEDY)
    if tiers and tiers[0].beyond != 0:
        problems.add(element, "beyond", tiers[0].beyond, "the first tier begins at 0")
    if tiers and not tiers[0].price > 0:
        problems.add(element, "price", tiers[0].price, "must be above zero")
    for low, high in pairwise(tiers):
        for name in ("beyond", "price"):
            before, after = getattr(low, name), getattr(high, name)
            if not after > before:
                problems.add(element, name, after, f"must be above {before:g}, that of the tier before")


KINDS = {"voltage": "voltage", "thermal": "thermal", "unbalance": "unbalance", "import": "substation"}
"""Kinds of limits that may have penalties, and their field in `Penalties`."""

HARD = Penalties((), (), (), ())
"""No limit may be broken."""

DEFAULT_PENALTIES = Penalties()
"""The built-in tiers."""
