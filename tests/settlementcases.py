"""Two buses whose settlement can be worked by hand, and the exact power of money on paper.

``a`` (the source, 1 pu) feeds ``b`` through 0.1 pu of resistance.  A net consumption of 90 kW at b draws a current
of 1 pu = 100 kW from a and loses 10 kW; the voltage at b is 0.9.  One more kW there draws 1.25 kW more:
``p = (1 - 0.1 I) I``, so ``dI/dp = 1 / 0.8``.
"""

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pandas as pd
from cases import Offer, market, resource
from feeders import Branch, feeder
from numpy.typing import ArrayLike

from dlmp import Blocks, Clearing, Requirements, ServiceOffers, Settlement, clear
from dlmp.market import MarketCase
from dlmp.units import BASE_KVA


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


def with_services(
    case: MarketCase,
    *offers: tuple[str, str, ArrayLike, ArrayLike],
    shortage: float = np.inf,
    **required: ArrayLike,
) -> MarketCase:
    """The same case with offers (resource, service, kW, price), and requirements at the substation by service."""
    intervals, ports = case.horizon.intervals, case.network.port_count
    names = case.resources.name.tolist()

    def profiles(values: Sequence[ArrayLike]) -> np.ndarray:
        return np.array([np.broadcast_to(value, intervals) for value in values], dtype=float).T

    resource, service, quantity, price = zip(*offers, strict=True)
    service_offers = ServiceOffers(
        resource=np.array([names.index(name) for name in resource]),
        service=np.array(service),
        quantity_kw=profiles(quantity),
        price_usd_per_mw_h=profiles(price),
        duration_hours=np.full(len(offers), case.horizon.interval_hours),
    )
    requirements = Requirements(
        name=np.array([f"all {name}" for name in required]),
        service=np.array(list(required)),
        place=np.full(len(required), "substation"),
        counts=np.ones((len(required), ports), bool),
        quantity_kw=profiles(list(required.values())),
        shortage_usd_per_mw_h=np.full(len(required), shortage),
    )
    return replace(case, service_offers=service_offers, requirements=requirements)


def without_loss(*offers: Offer, price: float | list[float] = 40.0, rating_kva: float = np.inf) -> MarketCase:
    """130 kW of load behind a line that loses nothing."""
    branch = Branch("a", "b", 0.0, 1e-5, rating=rating_kva / BASE_KVA)
    return market(feeder([branch], {"b": (130.0, 0.0)}), price, *offers)


def capacity_by_hand(
    required_kw: float = 50.0, *, turned: bool = False, price: float | list[float] = 40.0
) -> MarketCase:
    """Two plants cheaper than import behind a line of 60 kVA, of which one keeps room for a call.

    The line carries 60 kW out when the `required_kw` are called on top: 190 - required of energy and the call, less
    the load of 130.  `turned` has the plants, not their offers, in the other order.
    """
    plants = [resource("chp", "b", supply=[(100, 30)]), resource("engine", "b", supply=[(100, 38)])]
    plants = plants[::-1] if turned else plants
    offers = ("chp", "capacity_up", 60.0, 2.0), ("engine", "capacity_up", 60.0, 5.0)
    return with_services(without_loss(*plants, price=price, rating_kva=60.0), *offers, capacity_up=required_kw)


def block_by_hand() -> MarketCase:
    """Import that ends at 100 kW, a peaker at 90, and a block of 50 kW at 60 in the second of two hours."""
    plants = resource("peaker", "b", supply=[(100, 90)]), resource("plant", "b", supply=[(50, 60)], must_run_kw=0.0)
    case = without_loss(*plants, price=[40.0, 40.0])
    limited = replace(case.substation, p_max_kw=np.array([np.inf, 100.0]))
    nothing = replace(case.bids, quantity_kw=case.bids.quantity_kw * (case.bids.resource == 0))
    block = Blocks(
        name=np.array(["run"]),
        resource=np.array([1]),
        is_supply=np.array([True]),
        first=np.array([1]),
        last=np.array([1]),
        quantity_kw=np.array([50.0]),
        price_usd_per_mwh=np.array([60.0]),
        least_share=np.array([1.0]),
        group=np.array([""]),
    )
    return replace(case, substation=limited, bids=nothing, blocks=block)
