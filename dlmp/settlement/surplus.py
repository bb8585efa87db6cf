r"""The operator's surplus, split by cause.

With the net consumption ``c_n`` of port n (loads less injections) and the import ``P0``, both real and reactive,
the operator takes in and pays out

    surplus = sum_n price_n c_n - pi P0,       price_n = w + loss_n + congestion_n + voltage_n + unbalance_n

at the substation's price ``pi``, ``w`` being the marginal cost of import (`dlmp.prices`).  The network loses
``L = P0 - sum_n c_n``, its shunts included.  Putting that in for ``w sum_n c_n`` splits the surplus without a rest
(for lossless networks: Wu, Varaiya, Spiller and Oren, J. Regulatory Economics 10(1), 1996):

    import_limit = (w - pi) P0
    loss         = sum_n loss_n c_n - w L                    collected at marginal losses, less what is lost
    congestion   = sum_n congestion_n c_n                    voltage and unbalance alike

**Signs.** The share of a limit g with multiplier y in these sums is ``y (g~ - g)``, where ``g~`` is what the limited
quantity would be without any net consumption, to first order: ``|y|`` times the room between it and the bound.

* Flows are convex, as far as the engine knows: their tangents lie below them, so that the rent of congestion is
  at least ``|y| (limit - flow without net consumption)``.  Where flows are proportional it is ``|y| limit``, the
  shadow price times the limit.
* A voltage has a part that no net consumption makes.  Where the sources alone would break the band, the market is
  paid for keeping it, and the rent is negative.
* Losses: ``w (dL - L)``, ``dL`` their derivative along the net consumption.  Of a square it is ``w L``; no-load losses
  and a negative price make it negative.
* A limit that forces import, or export, pays for that.

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
from dlmp.settlement.lines import Lines
from dlmp.settlement.money import ZERO, MoneyArray, money, totals
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


def congestion_rent(stage: Stage) -> FloatArray:
    """(t,) What limits of branches collect [currency]."""
    return _value(stage.clearing.prices.congestion, stage.clearing.prices.congestion_q, stage.consumed)


def voltage_rent(stage: Stage) -> FloatArray:
    """(t,) What limits of voltage collect [currency]."""
    return _value(stage.clearing.prices.voltage, stage.clearing.prices.voltage_q, stage.consumed)


def unbalance_rent(stage: Stage) -> FloatArray:
    """(t,) What limits of voltage unbalance collect [currency]."""
    return _value(stage.clearing.prices.unbalance, stage.clearing.prices.unbalance_q, stage.consumed)


def unaccounted_rent(stage: Stage) -> FloatArray:
    """(t,) What resources injected less than the network state has, at their prices [currency]."""
    missing = stage.cleared - stage.injected
    return _value(stage.resource_lmp_usd_per_mwh, stage.resource_lmp_q_usd_per_mvarh, missing)


LOSS, IMPORT_LIMIT, UNACCOUNTED = "loss", "import_limit", "unaccounted"
RENTS: dict[str, Callable[[Stage], FloatArray]] = {
    LOSS: loss_rent,
    CONGESTION: congestion_rent,
    VOLTAGE: voltage_rent,
    UNBALANCE: unbalance_rent,
    IMPORT_LIMIT: import_limit_rent,
    UNACCOUNTED: unaccounted_rent,
}
"""Every cause, and what takes a `Stage` to its rent; together they are the whole surplus."""
OPTIONAL = {UNBALANCE, UNACCOUNTED}
"""Causes that are left out where they are zero throughout."""


def _value(price: FloatArray, price_q: FloatArray, energy: ComplexArray) -> FloatArray:
    """(t,) Energies (t, n) [kWh + j kvarh] at prices (t, n) [currency/MWh, /MVArh]."""
    return (price * energy.real + price_q * energy.imag).sum(axis=1) / KW_PER_MW


def split_surplus(stages: list[Stage], lines: Lines, horizon: Horizon) -> Surplus:
    """Split what the `lines` of all `stages` leave to the operator."""
    names, amounts, explanations = [], [], []
    for stage in stages:
        for cause, rent in RENTS.items():
            value = rent(stage)
            if cause in OPTIONAL and not value.any():
                continue
            names.append(cause + stage.ending)
            amounts.append(money(map(Decimal, value.tolist())))
            explanations.append(_explained(stage, cause, value))
    left = -totals(lines.interval, lines.amount, horizon.intervals)
    amounts.append(left - np.sum(amounts, axis=0))
    explanations.append(["rounding" if amount < ZERO else "-" for amount in amounts[-1]])
    return Surplus(
        horizon,
        (*names, RESIDUE),
        np.stack(amounts, axis=1),
        np.array(explanations, dtype=object).T.copy(),
    )


def _explained(stage: Stage, cause: str, value: FloatArray) -> list[str]:
    """Why a rent (t,) is negative, for each interval."""
    negative, clearing = value < 0, stage.clearing
    if not negative.any():
        return ["-"] * len(value)
    if stage.ending:
        reason = np.full(len(value), "the deviations are worth less than they cost at the real-time prices", object)
    elif cause in (CONGESTION, VOLTAGE, UNBALANCE):
        reason = _limits_broken_without(stage, cause)
    elif cause == LOSS:
        reason = np.where(
            clearing.prices.energy[:, 0] < 0,
            "the price of energy is negative: losing energy is paid",
            "losses that do not grow with the load exceed what marginal losses collect",
        ).astype(object)
    elif cause == IMPORT_LIMIT:
        reason = np.full(len(value), "import, or its export, is held away from what its price would have", object)
    else:
        reason = np.full(len(value), "resources injected more than the network state has", object)
    rounding = clearing.settings.tolerance_usd_per_mwh * _traded_mwh(stage)
    reason[-value <= rounding] = "within the tolerance of the clearing"
    return [text if is_negative else "-" for text, is_negative in zip(reason.tolist(), negative.tolist(), strict=True)]


def _traded_mwh(stage: Stage) -> FloatArray:
    """(t,) All energy that a price is paid for."""
    apparent = np.abs(stage.consumed).sum(axis=1) + np.abs(stage.imported)
    return np.asarray(apparent / KW_PER_MW)


def _limits_broken_without(stage: Stage, cause: str) -> npt.NDArray[np.object_]:
    """(t,) The limits of a cause whose own rent is negative: the market pays for keeping them."""
    hours = stage.clearing.case.horizon.interval_hours
    values = stage.clearing.limit_values(-stage.consumed / hours)
    values = values[(values.component == cause) & (values.value_usd_per_h > 0)]
    text = [
        f"{name}: {without:.4g} {unit} without any net consumption, limit {limit:.4g} {unit}"
        for name, without, limit, unit in zip(values.name, values.without, values.limit, values.unit, strict=True)
    ]
    reason = np.full(len(stage.imported), "", dtype=object)
    for interval, part in zip(values.interval.tolist(), text, strict=True):
        reason[interval] += ("; " if reason[interval] else "") + part
    return reason
