"""Bids, as the client takes them: curves, self-schedules and services, blocks, stores and other coupled loads."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

ENERGY, SELF_SCHEDULE, REACTIVE = "energy", "self_schedule", "reactive"
PLACE = ("market_id", "resource_id", "interval_start", "interval_end")
CURVES = {
    ENERGY: ("quantity_kw", "price_usd_per_mwh", "price_end_usd_per_mwh"),
    REACTIVE: ("quantity_kvar", "price_usd_per_mvarh", "price_end_usd_per_mvarh"),
}
Profile = float | Sequence[float]
"""A value for each interval, or one for all."""


@dataclass(frozen=True)
class Bid:
    """A bid of one resource.

    Parameters
    ----------
    market_id, resource_id
        Where, and who.
    side
        ``supply`` injects, ``demand`` consumes; of reactive power ``inject`` or ``absorb``; None for services.
    segments
        The curve of energy or reactive power, or of a self-schedule or a service its one quantity [kW], [kvar]: pairs
        of quantity and price [currency/MWh], or triples with the price where the segment ends; a self-schedule has no
        price.
    interval_start, interval_end
        First interval's start and last one's end; None is all of the market's day.
    product
        ``energy``, ``reactive``, ``self_schedule``, or one of the four services.
    """

    market_id: str
    resource_id: str
    side: str | None
    segments: Sequence[Sequence[float | None]]
    interval_start: str | None = None
    interval_end: str | None = None
    product: str = ENERGY

    def body(self) -> dict[str, Any]:
        """Return the bid as the service takes it; both of its times must be given.

        Raises
        ------
        ValueError
            When a self-schedule or a service has other than one quantity.
        """
        head: dict[str, Any] = {name: getattr(self, name) for name in PLACE}
        head["product"] = self.product
        if self.side is not None:
            head["side"] = self.side
        if self.product in CURVES:
            curve = CURVES[self.product]
            return head | {"segments": [_filled(zip(curve, part, strict=False)) for part in self.segments]}
        if len(self.segments) != 1:
            raise ValueError(f"a bid of {self.product} has one quantity, not {len(self.segments)}")
        offer = ("quantity_kw",) if self.product == SELF_SCHEDULE else ("quantity", "price_usd_per_mw_h")
        return head | _filled(zip(offer, self.segments[0], strict=False))


def _filled(pairs: Any) -> dict[str, float]:
    return {name: float(value) for name, value in pairs if value is not None}


@dataclass(frozen=True, kw_only=True)
class _Offer:
    """A bid whose fields are those of the service; what is None is left out, and the times as in `Bid`."""

    product: ClassVar[str]
    profiles: ClassVar[tuple[str, ...]] = ()
    """Fields that are lists to the service."""

    market_id: str
    resource_id: str
    interval_start: str | None = None
    interval_end: str | None = None

    def body(self) -> dict[str, Any]:
        """Return the bid as the service takes it; both of its times must be given."""
        terms = {field.name: getattr(self, field.name) for field in fields(self)}
        given = {name: value for name, value in terms.items() if value is not None or name in PLACE}
        lists = {name: _listed(given[name]) for name in self.profiles if name in given}
        return {"product": self.product} | given | lists


def _listed(profile: Profile) -> list[float]:
    return [float(value) for value in profile] if isinstance(profile, Sequence) else [float(profile)]


@dataclass(frozen=True, kw_only=True)
class Block(_Offer):
    """The same power [kW] in all intervals at one price [currency/MWh], accepted as a whole or not at all."""

    product: ClassVar[str] = "block"

    side: str
    quantity_kw: float
    price_usd_per_mwh: float
    min_acceptance_ratio: float | None = None
    exclusive_group: str | None = None


@dataclass(frozen=True, kw_only=True)
class Store(_Offer):
    """A store of energy, for all intervals of its market; power in kW, energy in kWh, prices in currency/MWh."""

    product: ClassVar[str] = "store"
    profiles: ClassVar[tuple[str, ...]] = (
        *("charge_max_kw", "discharge_max_kw", "energy_min_kwh", "energy_max_kwh", "drain_kw"),
    )

    charge_max_kw: Profile
    energy_max_kwh: Profile
    discharge_max_kw: Profile | None = None
    energy_min_kwh: Profile | None = None
    drain_kw: Profile | None = None
    initial_kwh: float | None = None
    final_min_kwh: float | None = None
    charge_efficiency: float | None = None
    discharge_efficiency: float | None = None
    retention: float | None = None
    cycling_usd_per_mwh: float | None = None
    shortfall_usd_per_mwh: float | None = None
    final_usd_per_mwh: float | None = None


@dataclass(frozen=True, kw_only=True)
class DeadlineLoad(_Offer):
    """Energy [kWh] that is to be had between two times by at most `charge_max_kw` [kW]."""

    product: ClassVar[str] = "deadline_load"

    charge_max_kw: float
    energy_kwh: float
    charge_efficiency: float | None = None
    shortfall_usd_per_mwh: float | None = None


@dataclass(frozen=True, kw_only=True)
class EnergyBand(_Offer):
    """A load whose energy since the start of the bid [kWh] stays between two lines."""

    product: ClassVar[str] = "energy_band"
    profiles: ClassVar[tuple[str, ...]] = ("charge_max_kw", "energy_min_kwh", "energy_max_kwh")

    charge_max_kw: Profile
    energy_min_kwh: Profile
    energy_max_kwh: Profile
    shortfall_usd_per_mwh: float | None = None


AnyBid = Bid | Block | Store | DeadlineLoad | EnergyBand
