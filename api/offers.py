"""What a bid offers: its quantities, prices and side, read from the document that its product has."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

SUPPLY, DEMAND, INJECT, ABSORB = "supply", "demand", "inject", "absorb"
INTO = (SUPPLY, INJECT)
"""Sides that offer to inject."""
ENERGY, SELF_SCHEDULE, REACTIVE, BLOCK = "energy", "self_schedule", "reactive", "block"
REAL = (ENERGY, SELF_SCHEDULE)
STORE, DEADLINE_LOAD, ENERGY_BAND = "store", "deadline_load", "energy_band"
COUPLED = (STORE, DEADLINE_LOAD, ENERGY_BAND)
"""Products that are stores to the engine: each is alone with the real power of its resource."""
REAL_POWER = (*REAL, BLOCK, *COUPLED)
SERVICES = ("capacity_up", "capacity_down", "var_up", "var_down")
QUANTITIES = ("quantity_kw", "quantity_kvar", "quantity")
SEGMENT_PRICES = (
    *("price_usd_per_mwh", "price_end_usd_per_mwh"),
    *("price_usd_per_mvarh", "price_end_usd_per_mvarh"),
)
PRICES = (
    *("price_usd_per_mwh", "price_usd_per_mw_h"),
    *("cycling_usd_per_mwh", "shortfall_usd_per_mwh", "final_usd_per_mwh"),
)


@dataclass(frozen=True)
class Terms:
    """What a bid offers, sound by itself.

    Parameters
    ----------
    market_id, resource_id
        Where, and who.
    starts_at, ends_at
        Its intervals, half-open.
    product
        What is offered.
    offer
        The rest, as a document: side, segments, quantity, price.
    """

    market_id: str
    resource_id: str
    starts_at: datetime
    ends_at: datetime
    product: str
    offer: Mapping[str, Any]


@dataclass(frozen=True)
class Standing:
    """A bid that stands, from interval `first` to `last`, both included."""

    id: str
    market_id: str
    resource_id: str
    first: int
    last: int
    product: str
    offer: Mapping[str, Any]

    @property
    def side(self) -> str:
        """``supply``, ``demand``, ``inject``, ``absorb``, or blank."""
        return str(self.offer.get("side", ""))

    @property
    def quantity(self) -> float:
        """All that it offers [kW], [kvar]."""
        return quantity_of(self.offer)

    @property
    def intervals(self) -> int:
        """How many intervals it is for."""
        return self.last - self.first + 1


def quantity_of(offer: Mapping[str, Any]) -> float:
    """Return all that is offered [kW], [kvar]."""
    if "segments" in offer:
        return float(sum(quantity_of(part) for part in offer["segments"]))
    return float(offer[quantity_name(offer)])


def quantity_name(offer: Mapping[str, Any]) -> str:
    """Name of the field that says how much is offered."""
    return "segments" if "segments" in offer else next(name for name in QUANTITIES if name in offer)


def segments_of(offer: Mapping[str, Any]) -> int:
    """Return how many segments of a curve are offered; all of a self-schedule is one."""
    return len(offer.get("segments", (offer,)))


def prices_of(offer: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Every price of an offer, with its pointer."""
    for number, part in enumerate(offer.get("segments", ())):
        for name in SEGMENT_PRICES:
            if part.get(name) is not None:
                yield f"/segments/{number}/{name}", part[name]
    for name in PRICES:
        if offer.get(name) is not None:
            yield f"/{name}", offer[name]
