"""Services entered into market cases: who offers what, and what is required where."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from dlmp.market import MarketCase
from dlmp.services import Requirements, ServiceOffers, everywhere


@dataclass(frozen=True)
class Ready:
    """An offer of a service: quantity [kW], [kvar] and price [currency/MW per hour], numbers or one per interval."""

    resource: str
    service: str
    quantity_kw: ArrayLike
    price: ArrayLike = 0.0
    hours: float = 1.0


@dataclass(frozen=True)
class Needed:
    """A requirement, everywhere or of the ports that `counts`; infinite `shortage` where it must be met."""

    service: str
    quantity_kw: ArrayLike
    shortage: float = np.inf
    counts: npt.NDArray[np.bool_] | None = None
    name: str = ""
    place: str = "substation"


def with_services(case: MarketCase, offers: Sequence[Ready], needed: Sequence[Needed]) -> MarketCase:
    """The same case in which these services are offered and required."""
    intervals, names = case.horizon.intervals, case.resources.name.tolist()

    def profiles(values: Sequence[ArrayLike]) -> npt.NDArray[np.float64]:
        by_item = [np.broadcast_to(np.asarray(value, dtype=float), intervals) for value in values]
        return np.array(by_item).reshape(len(by_item), intervals).T

    return replace(
        case,
        service_offers=ServiceOffers(
            resource=np.array([names.index(offer.resource) for offer in offers], dtype=np.int64),
            service=np.array([offer.service for offer in offers], dtype=str),
            quantity_kw=profiles([offer.quantity_kw for offer in offers]),
            price_usd_per_mw_h=profiles([offer.price for offer in offers]),
            duration_hours=np.array([offer.hours for offer in offers], dtype=float),
        ),
        requirements=Requirements(
            name=np.array([one.name or f"{one.service} {index}" for index, one in enumerate(needed)], dtype=str),
            service=np.array([one.service for one in needed], dtype=str),
            place=np.array([one.place for one in needed], dtype=str),
            counts=np.array(
                [everywhere(case.network) if one.counts is None else one.counts for one in needed], dtype=bool
            ).reshape(len(needed), case.network.port_count),
            quantity_kw=profiles([one.quantity_kw for one in needed]),
            shortage_usd_per_mw_h=np.array([one.shortage for one in needed], dtype=float),
        ),
    )
