r"""The operator's surplus, split by cause.

With the net consumption ``c_n`` of port n (loads less injections) and the import ``P0``, both real and reactive,
the operator takes in and pays out

    surplus = sum_n price_n c_n - pi P0,   price_n = w + loss_n + congestion_n + voltage_n + unbalance_n + scarcity_n

at the substation's price ``pi``, ``w`` being the marginal cost of import without what its broken range makes of it,
which is scarcity (`dlmp.prices`).  The network loses
``L = P0 - sum_n c_n``, its shunts included.  Putting that in for ``w sum_n c_n`` splits the surplus without a rest
(for lossless networks: Wu, Varaiya, Spiller and Oren, J. Regulatory Economics 10(1), 1996):

    import_limit = (w - pi) P0
    loss         = sum_n loss_n c_n - w L                    collected at marginal losses, less what is lost
    congestion   = sum_n congestion_n c_n                    voltage, unbalance and scarcity alike

Offers k of services are paid ``price_k r_k`` for what they hold ready, and ``price_k = requirement_k + congestion_k +
voltage_k + unbalance_k`` (`dlmp.reserves`).  A limit may bind in the state in which they are called, where they inject
too: its rent is that of all that is injected there.

    congestion   = sum_n congestion_n c_n - sum_k congestion_k r_k
    services     = - sum_k requirement_k r_k                 what the operator buys
    make_whole   = - payments to accepted blocks

**Signs.** The share of a limit g with multiplier y in these sums is ``y (g~ - g)``, where ``g~`` is what the limited
quantity would be without any net consumption or call, to first order: ``|y|`` times the room between it and the bound.

* Flows are convex, as far as the engine knows: their tangents lie below them, so that the rent of congestion is
  at least ``|y| (limit - flow without net consumption)``.  Where flows are proportional it is ``|y| limit``, the
  shadow price times the limit.
* A voltage has a part that no net consumption makes.  Where the sources alone would break the band, the market is
  paid for keeping it, and the rent is negative.
* Losses: ``w (dL - L)``, ``dL`` their derivative along the net consumption.  Of a square it is ``w L``; no-load losses
  and a negative price make it negative.
* A limit that forces import, or export, pays for that.
* Scarcity: a broken limit collects ``|y|`` times the room between what its quantity would be without net consumption
  and what it is; the penalty itself is paid to nobody.  A broken voltage pays where the sources alone would break its
  band, and a broken range of import where the least import, or the most export, is what is broken.

`Surplus.table` says which it is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import numpy.typing as npt
import pandas as pd

from dlmp.formulation.interface import CONGESTION, UNBALANCE, VOLTAGE
from dlmp.market import Horizon
from dlmp.network.model import ComplexArray, FloatArray
from dlmp.prices import SCARCITY
from dlmp.settlement.lines import Lines
from dlmp.settlement.money import ZERO, MoneyArray, money, total, totals
from dlmp.settlement.stage import Stage
from dlmp.units import KW_PER_MW

RESIDUE = "residue"
"""What rounding leaves between the lines and the rents of an interval."""


@dataclass(frozen=True, eq=False)
class Surplus:
    """What the operator keeps in t intervals.

    Parameters
    ----------
    horizon
        The intervals.
    component
        Causes, and `RESIDUE`.
    amount
        (t, k) Money by cause; every interval adds up to minus the sum of its lines.
    explanation
        (t, k) Why an amount is negative; ``-`` where it is not.
    """

    horizon: Horizon
    component: tuple[str, ...]
    amount: MoneyArray
    explanation: npt.NDArray[np.object_]

    def table(self) -> pd.DataFrame:
        """One row per interval and component; amounts are `decimal.Decimal`."""
        width = len(self.component)
        return pd.DataFrame(
            {
                "interval_start": np.repeat(pd.DatetimeIndex(self.horizon.starts), width),
                "interval": np.repeat(np.arange(self.horizon.intervals), width),
                "component": np.tile(np.array(self.component, dtype=object), self.horizon.intervals),
                "amount": self.amount.ravel(),
                "explanation": self.explanation.ravel(),
            }
        )


def import_limit_rent(stage: Stage) -> FloatArray:
    """(t,) What import is worth beyond its price [currency]."""
    prices, substation = stage.clearing.prices, stage.clearing.case.substation
    real = prices.energy[:, 0] - substation.price_usd_per_mwh
    reactive = prices.energy_q[:, 0] - substation.q_price_usd_per_mvarh
    return _value(real[:, None], reactive[:, None], stage.imported[:, None])


def loss_rent(stage: Stage) -> FloatArray:
    """(t,) What marginal losses collect, less what is lost at the price of energy [currency]."""
    prices = stage.clearing.prices
    lost = stage.imported - stage.consumed.sum(axis=1)
    collected = _value(prices.loss, prices.loss_q, stage.consumed)
    return collected - _value(prices.energy[:, :1], prices.energy_q[:, :1], lost[:, None])


def limit_rent(cause: str) -> Callable[[Stage], FloatArray]:
    """Rent (t,) of what the limits of a `cause` collect from energy and from power held ready [currency]."""

    def rent(stage: Stage) -> FloatArray:
        prices, services = stage.clearing.prices, stage.clearing.services
        collected = _value(getattr(prices, cause), getattr(prices, f"{cause}_q"), stage.consumed)
        return collected - _held_ready(getattr(services, cause), stage)

    return rent


def service_rent(stage: Stage) -> FloatArray:
    """(t,) What the operator pays for services at the prices of its requirements, negative [currency]."""
    return -_held_ready(stage.clearing.services.requirement, stage)


def make_whole_rent(stage: Stage) -> FloatArray:
    """(t,) What the operator pays to accepted blocks, negative [currency]."""
    return -stage.make_whole.sum(axis=1)


def unaccounted_rent(stage: Stage) -> FloatArray:
    """(t,) What resources injected less than the network state has, at their prices [currency]."""
    missing = stage.cleared - stage.injected
    return _value(stage.resource_lmp_usd_per_mwh, stage.resource_lmp_q_usd_per_mvarh, missing)


def _value(price: FloatArray, price_q: FloatArray, energy: ComplexArray) -> FloatArray:
    """(t,) Energies (t, n) [kWh + j kvarh] at prices (t, n) [currency/MWh, /MVArh]."""
    return (price * energy.real + price_q * energy.imag).sum(axis=1) / KW_PER_MW


def _held_ready(price: FloatArray, stage: Stage) -> FloatArray:
    """(t,) Power held ready at prices (t, k) [currency/MW h]."""
    return np.asarray((price * stage.reserved).sum(axis=1) / KW_PER_MW)


LATER = "limits of later intervals, in which calls still run, collect what awards are paid here"


def _why_losses(stage: Stage) -> list[str]:
    negative_price = "the price of energy is negative: losing energy is paid"
    idle = "losses that do not grow with the load exceed what marginal losses collect"
    return [negative_price if price < 0 else idle for price in stage.clearing.prices.energy[:, 0]]


def _why_import_limit(stage: Stage) -> list[str]:
    return ["import, or its export, is held away from what its price would have"] * len(stage.imported)


def _why_services(stage: Stage) -> list[str]:
    return ["the operator buys power that is held ready"] * len(stage.imported)


def _why_make_whole(stage: Stage) -> list[str]:
    return ["blocks were accepted that lose money at the prices"] * len(stage.imported)


def _why_unaccounted(stage: Stage) -> list[str]:
    return ["resources injected more than the network state has"] * len(stage.imported)


def _why_limits(cause: str) -> Callable[[Stage], list[str]]:
    """Name the limits of a cause whose own rent is negative."""

    def reason(stage: Stage) -> list[str]:
        hours = stage.clearing.case.horizon.interval_hours
        values = stage.clearing.limit_values(-stage.consumed / hours, stage.reserved / hours)
        values = values[(values.component == cause) & (values.value_usd_per_h > 0)]
        called = [f" when {call} is called" if call != "-" else "" for call in values.called]
        text = (
            values.name
            + called
            + [f": {value:.4g} " for value in values.without]
            + values.unit
            + [f" without any net consumption, limit {value:.4g} " for value in values.limit]
            + values.unit
        )
        return ["; ".join(text[values.interval == interval]) for interval in range(len(stage.imported))]

    return reason


def _why_scarcity(stage: Stage) -> list[str]:
    """Name the broken limits of the network whose own rent is negative, else what else is short."""
    forced = "import is below its least, export beyond its most, or a requirement short: relief is paid its penalty"
    return [text or forced for text in _why_limits(SCARCITY)(stage)]


@dataclass(frozen=True)
class Cause:
    """A part of the surplus.

    Parameters
    ----------
    name
        The component.
    rent
        Takes a `Stage` to money (t,) [currency].
    reason
        Says for each interval of a `Stage` why the rent is negative there.
    always
        False for a component that is left out where it is zero throughout.
    """

    name: str
    rent: Callable[[Stage], FloatArray]
    reason: Callable[[Stage], list[str]]
    always: bool = True


CAUSES = (
    Cause("loss", loss_rent, _why_losses),
    Cause(CONGESTION, limit_rent(CONGESTION), _why_limits(CONGESTION)),
    Cause(VOLTAGE, limit_rent(VOLTAGE), _why_limits(VOLTAGE)),
    Cause(UNBALANCE, limit_rent(UNBALANCE), _why_limits(UNBALANCE), always=False),
    Cause(SCARCITY, limit_rent(SCARCITY), _why_scarcity, always=False),
    Cause("import_limit", import_limit_rent, _why_import_limit),
    Cause("services", service_rent, _why_services, always=False),
    Cause("make_whole", make_whole_rent, _why_make_whole, always=False),
    Cause("unaccounted", unaccounted_rent, _why_unaccounted, always=False),
)
"""Together they are the whole surplus."""


def split_surplus(stages: list[Stage], lines: Lines, horizon: Horizon) -> Surplus:
    """Split what the `lines` of all `stages` leave to the operator."""
    names, amounts, explanations = [], [], []
    for stage in stages:
        for cause in CAUSES:
            value = cause.rent(stage)
            if cause.always or value.any():
                names.append(cause.name + stage.ending)
                amounts.append(money(map(Decimal, value.tolist())))
                explanations.append(_explained(stage, cause, amounts[-1]))
    paid = totals(lines.interval, lines.amount, horizon.intervals)
    amounts.append(money(total(parts).copy_negate() for parts in zip(paid, *amounts, strict=True)))
    explanations.append(["rounding" if amount < ZERO else "-" for amount in amounts[-1]])
    return Surplus(
        horizon,
        (*names, RESIDUE),
        np.stack(amounts, axis=1),
        np.array(explanations, dtype=object).T.copy(),
    )


def _explained(stage: Stage, cause: Cause, amount: MoneyArray) -> list[str]:
    """Why each of the amounts (t,) is negative."""
    if not (amount < ZERO).any():
        return ["-"] * len(amount)
    deviation = ["the deviations are worth less than they cost at the real-time prices"] * len(amount)
    reason = deviation if stage.ending else cause.reason(stage)
    traded_mwh = (np.abs(stage.consumed).sum(axis=1) + np.abs(stage.imported)) / KW_PER_MW
    tolerance = stage.clearing.settings.tolerance_usd_per_mwh * traded_mwh
    texts = []
    for value, text, least in zip(amount, reason, tolerance.tolist(), strict=True):
        inexact = "within the tolerance of the clearing" if -float(value) <= least else text
        texts.append((inexact or LATER) if value < ZERO else "-")
    return texts
