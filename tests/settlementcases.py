"""Two buses whose settlement can be worked by hand, and the exact power of money on paper.

``a`` (the source, 1 pu) feeds ``b`` through 0.1 pu of resistance.  A net consumption of 90 kW at b draws a current
of 1 pu = 100 kW from a and loses 10 kW; the voltage at b is 0.9.  One more kW there draws 1.25 kW more:
``p = (1 - 0.1 I) I``, so ``dI/dp = 1 / 0.8``.
"""

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pandas as pd
from cases import Offer, market, resource
from feeders import Branch, feeder

from dlmp import Clearing, Settlement, clear
from dlmp.market import MarketCase


def two_buses(
    *offers: Offer,
    price: float | list[float] = 40.0,
    load: tuple[float, float] = (130.0, 0.0),
    rating: float = np.inf,
    band: tuple[float, float] = (0.5, 1.5),
    source: float = 1.0,
    shunt: complex = 0.0,
    **substation: float,
) -> MarketCase:
    """The two buses with a fixed load at b."""
    branch = Branch("a", "b", 0.1, 0.0, rating=rating, is_current=True)
    network = feeder([branch], {"b": load}, band=band, source={"a": source}, shunt={"b": shunt})
    return market(network, price, *offers, **substation)


def chp(supply: float = 40.0, price: float = 30.0) -> Offer:
    """A generator at b; 40 of its kW leave 90 kW of the load."""
    return resource("chp", "b", supply=[(supply, price)])


def settled_by_hand() -> Clearing:
    """The generator is cheap and full: 130 kW of load, 40 kW from it, 100 kW of import."""
    return clear(two_buses(chp()))


def with_participants(case: MarketCase, *names: str) -> MarketCase:
    """The same case with its resources in other hands."""
    return replace(case, resources=replace(case.resources, participant=np.array(names)))


def amounts(settlement: Settlement) -> dict[tuple[str, str], str]:
    """Sum of every account's lines by product, in cents; zeros are left out."""
    rows = settlement.statements().groupby(["participant", "product"], sort=False).amount.sum()
    cents = {key: value.quantize(Decimal("0.01")) for key, value in rows.items()}
    return {key: str(value) for key, value in cents.items() if value}


def cents(table: pd.DataFrame) -> dict[str, str]:
    """Amount of every participant."""
    return dict(zip(table.participant, map(str, table.amount), strict=True))


def readings(clearing: Clearing) -> pd.DataFrame:
    """Meters that show what was awarded."""
    awards, hours = clearing.awards, clearing.case.horizon.interval_hours
    names = clearing.case.resources.name
    return pd.DataFrame(
        {
            "resource": np.tile(names.astype(object), len(awards.q_kvar)),
            "interval": np.repeat(np.arange(len(awards.q_kvar)), len(names)),
            "net_injection_kwh": awards.net_injection_kw.ravel() * hours,
            "q_kvarh": awards.q_kvar.ravel() * hours,
        }
    )
