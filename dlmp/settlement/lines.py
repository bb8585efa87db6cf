"""The lines of a settlement: one per participant, resource, interval and product.

A quantity counts what enters the grid, or is held ready to, so an amount is positive where the participant is paid and
negative where it pays.  A product is a function of a `Stage` to raw lines; a further one is a function more and an
entry of `PRODUCTS`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd

from dlmp.bids import LOAD, SUBSTATION, freeze_arrays
from dlmp.errors import SolverError
from dlmp.market import Horizon
from dlmp.network.model import FloatArray, IntArray, TextArray
from dlmp.services import REACTIVE, SERVICES
from dlmp.settlement.money import MoneyArray, line_amounts
from dlmp.settlement.stage import DEVIATION, Stage
from dlmp.units import KW_PER_MW

ENERGY, REACTIVE_ENERGY, MAKE_WHOLE = "energy", "reactive_energy", "make_whole"
IMPORT = "import"
"""What stands in the place of a resource on the lines of the substation."""


@dataclass(frozen=True)
class Unit:
    """Unit of a quantity, unit that its price is per, and how many of the former are one of the latter."""

    quantity: str
    price: str
    per_price: int


KWH, KVARH = Unit("kWh", "MWh", int(KW_PER_MW)), Unit("kvarh", "MVArh", int(KW_PER_MW))
KW_H, KVAR_H = Unit("kW-h", "MW-h", int(KW_PER_MW)), Unit("kvar-h", "MVAr-h", int(KW_PER_MW))
"""Of capacity: 1 kW held ready for an hour, which is no energy."""
PAYMENT = Unit("payment", "payment", 1)


@dataclass(frozen=True, eq=False)
class RawLines:
    """k lines of one product before money: arrays (k,)."""

    product: str
    unit: Unit
    participant: TextArray
    resource: TextArray
    interval: IntArray
    quantity: FloatArray
    price: FloatArray


@dataclass(frozen=True, eq=False)
class Lines:
    """k lines of a settlement.

    Parameters
    ----------
    participant
        (k,) Who is paid, or pays.
    resource
        (k,) For which resource; the place of a fixed load, or `IMPORT`.
    interval
        (k,) Interval, from 0.
    product
        (k,) For what.
    quantity, unit
        (k,) How much, positive into the grid.
    price, price_unit
        (k,) Price, and what it is per, as ``USD/MWh``.
    amount
        (k,) Money, positive to the participant, rounded to `dlmp.settlement.money.LINE_QUANTUM`.
    """

    participant: TextArray
    resource: TextArray
    interval: IntArray
    product: TextArray
    quantity: FloatArray
    unit: TextArray
    price: FloatArray
    price_unit: TextArray
    amount: MoneyArray

    def __post_init__(self) -> None:
        freeze_arrays(self)

    def __len__(self) -> int:
        return len(self.amount)

    def table(self, horizon: Horizon) -> pd.DataFrame:
        """One row per line; amounts are `decimal.Decimal`."""
        starts = pd.DatetimeIndex(horizon.starts)
        frame = pd.DataFrame({"interval_start": starts[self.interval], "interval": self.interval})
        for item in fields(self):
            values = getattr(self, item.name)
            frame[item.name] = values.astype(object) if values.dtype.kind == "U" else values
        return frame


def settled_lines(raw: Sequence[RawLines], currency: str) -> Lines:
    """Turn raw lines into money; those without a quantity are left out.

    Raises
    ------
    SolverError
        When a quantity or a price is not finite.
    """
    kept = [(lines, np.flatnonzero(lines.quantity != 0)) for lines in raw]
    for lines, rows in kept:
        if not np.isfinite(lines.quantity[rows] * lines.price[rows]).all():
            raise SolverError(f"{lines.product}: a quantity or a price is not finite; nothing was settled")

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(lines, name)[rows] for lines, rows in kept])

    def each(text: Sequence[str]) -> TextArray:
        return np.repeat(np.array(text, dtype=str), [len(rows) for _, rows in kept])

    return Lines(
        participant=joined("participant"),
        resource=joined("resource"),
        interval=joined("interval"),
        product=each([lines.product for lines in raw]),
        quantity=joined("quantity"),
        unit=each([lines.unit.quantity for lines in raw]),
        price=joined("price"),
        price_unit=each([f"{currency}/{lines.unit.price}" for lines in raw]),
        amount=np.concatenate(
            [line_amounts(lines.quantity[rows], lines.price[rows], lines.unit.per_price) for lines, rows in kept]
        ),
    )


def energy(stage: Stage) -> list[RawLines]:
    """Real energy at the price where it enters or leaves; import at the substation's."""
    prices, substation = stage.clearing.prices, stage.clearing.case.substation
    return _traded(
        stage,
        ENERGY + stage.ending,
        KWH,
        (stage.injected.real, stage.drawn.real, stage.imported.real),
        (stage.resource_lmp_usd_per_mwh, prices.lmp_usd_per_mwh, substation.price_usd_per_mwh),
    )


def reactive_energy(stage: Stage) -> list[RawLines]:
    """Reactive energy at the price where it enters or leaves; import at the substation's."""
    prices, substation = stage.clearing.prices, stage.clearing.case.substation
    return _traded(
        stage,
        REACTIVE_ENERGY + stage.ending,
        KVARH,
        (stage.injected.imag, stage.drawn.imag, stage.imported.imag),
        (stage.resource_lmp_q_usd_per_mvarh, prices.lmp_q_usd_per_mvarh, substation.q_price_usd_per_mvarh),
    )


def service(name: str) -> Callable[[Stage], list[RawLines]]:
    """Power held ready for the service of that name, at its nodal price."""
    unit = KVAR_H if name in REACTIVE else KW_H

    def held_ready(stage: Stage) -> list[RawLines]:
        case = stage.clearing.case
        own = np.flatnonzero(case.service_offers.service == name)
        resource = case.service_offers.resource[own]
        return [
            _over_intervals(
                name + stage.ending,
                unit,
                case.resources.participant[resource],
                case.resources.name[resource],
                stage.reserved[:, own],
                stage.clearing.services.price_usd_per_mw_h[:, own],
            )
        ]

    return held_ready


def make_whole(stage: Stage) -> list[RawLines]:
    """What accepted blocks lose at the prices, one payment for all of a resource's that begin in an interval."""
    resources, due = stage.clearing.case.resources, stage.make_whole
    payments = (due > 0).astype(float)
    return [_over_intervals(MAKE_WHOLE, PAYMENT, resources.participant, resources.name, payments, due)]


PRODUCTS = (energy, reactive_energy, *(service(name) for name in SERVICES), make_whole)
"""Each takes a `Stage` to the raw lines of its product."""

PAID_ENERGY = {ENERGY, ENERGY + DEVIATION}
PAID_REACTIVE_ENERGY = {REACTIVE_ENERGY, REACTIVE_ENERGY + DEVIATION}
PAID_SERVICES = {name: {name, name + DEVIATION} for name in SERVICES}
"""Products whose quantities together are the energy of a resource, or what it holds ready."""


def _traded(
    stage: Stage,
    product: str,
    unit: Unit,
    quantities: tuple[FloatArray, FloatArray, FloatArray],
    prices: tuple[FloatArray, FloatArray, FloatArray],
) -> list[RawLines]:
    """Lines of the resources, the loads at every port that has any, and the import."""
    (injected, drawn, imported), (at_resource, at_port, at_substation) = quantities, prices
    network, resources = stage.clearing.case.network, stage.clearing.case.resources
    participants, names = resources.participant[stage.order], resources.name[stage.order]
    ports = np.flatnonzero(drawn.any(axis=0))
    places = np.array([network.place(int(port)) for port in ports], dtype=np.str_)
    return [
        _over_intervals(product, unit, participants, names, injected, at_resource),
        _over_intervals(product, unit, np.full(len(ports), LOAD), places, -drawn[:, ports], at_port[:, ports]),
        _over_intervals(
            product, unit, np.array([SUBSTATION]), np.array([IMPORT]), imported[:, None], at_substation[:, None]
        ),
    ]


def _over_intervals(
    product: str, unit: Unit, participant: TextArray, resource: TextArray, quantity: FloatArray, price: FloatArray
) -> RawLines:
    """Lines of (t, n) quantities and prices, interval by interval."""
    intervals, width = quantity.shape
    return RawLines(
        product,
        unit,
        np.tile(participant, intervals),
        np.tile(resource, intervals),
        np.repeat(np.arange(intervals), width),
        quantity.ravel(),
        price.ravel(),
    )
