"""What a dispatch breaks because that costs less, by its penalty, than to keep it: limits, and what is required."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from dlmp.dispatch import Dispatch
from dlmp.formulation.interface import Weights
from dlmp.formulation.market_lp import MarketLp
from dlmp.formulation.softness import Softness
from dlmp.network.model import BALANCED_PHASE, FloatArray
from dlmp.products.substation import IMPORT_LIMITS, IMPORT_NAMES, import_excesses
from dlmp.services import REACTIVE
from dlmp.units import BASE_KVA, KW_PER_MW, money_per_price_pu

IMPORT = "import"
"""Cause of a broken range of the import."""
SERVICE = "service"
"""Cause of a requirement of a service that is not met."""
BROKEN_PU = 1e-9
"""A range of the import is broken, and a requirement not met, by more than this."""
COLUMNS = [
    "interval", "cause", "element", "phase", "end", "called",
    "limit", "value", "excess", "unit", "penalty_usd_per_h", "cost_usd",
]  # fmt: skip
NUMBERS = {"interval": int} | dict.fromkeys(("limit", "value", "excess", "penalty_usd_per_h", "cost_usd"), float)
NOTHING = pd.DataFrame(columns=COLUMNS).astype(NUMBERS)
"""A table without rows; making one takes as long as a power flow."""


@dataclass(frozen=True, eq=False)
class Scarcity:
    """What a dispatch breaks, and what that costs and makes of its prices.

    Parameters
    ----------
    table
        One row per broken limit and interval, in `COLUMNS`.
    cost
        Penalties of the limits of the network over the horizon [currency]; those of the import and of requirements
        stand in the cost of the market's own variables.
    weights
        The part of the multipliers that broken limits have.
    is_short
        (t, m) True for the requirements that are not met.
    avoidable
        Intervals in which a dearer dispatch would keep all limits: the penalties are below what that costs.
    """

    table: pd.DataFrame
    cost: float
    weights: Weights
    is_short: npt.NDArray[np.bool_]
    avoidable: tuple[int, ...]


def penalties_of(found: Dispatch) -> FloatArray:
    """(states, k) Penalties of the limits of the network that `found` breaks [currency/MWh x pu]."""
    return Softness.of(found.formulation.limits, found.market.penalties).cost_of(found.excess)


def scarcity_of(found: Dispatch) -> Scarcity:
    """Find what `found` breaks."""
    market = found.market
    money = money_per_price_pu(market.case.horizon.interval_hours)
    softness = Softness.of(found.formulation.limits, market.penalties)
    cost = penalties_of(found) * money
    limits = sparse.csr_array(found.weights.limits.multiply(found.excess != 0))
    imported = _import_table(found, money)
    is_short = found.x[market.block("shortage")] > BROKEN_PU
    rent = {name: np.zeros(len(market.state_interval)) for name in IMPORT_NAMES}
    for name, (element, _) in IMPORT_NAMES.items():
        broken = np.unique(imported.interval[imported.element == element].to_numpy(dtype=int))
        price = market.columns.cost[:, market.template.blocks[name]].ravel()
        rent[name][broken] = getattr(found.weights, name)[broken] - price[broken]
    parts = [imported, _service_table(found, is_short, money), _limit_table(found, softness, cost)]
    table = pd.concat([part for part in parts if len(part)] or parts[:1])
    table = table.sort_values(["interval", "cause", "element", "phase", "end", "called"], ignore_index=True)
    weights = Weights(rent["import_p"], rent["import_q"], limits)
    avoidable = tuple(np.flatnonzero(found.avoidable).tolist())
    return Scarcity(table[COLUMNS], float(cost.sum()), weights, is_short, avoidable)


def _limit_table(found: Dispatch, softness: Softness, cost: FloatArray) -> pd.DataFrame:
    limits, over, market = found.formulation.limits, found.excess, found.market
    state, limit = np.nonzero((over != 0) & (softness.quantity == np.arange(len(limits))))
    if not len(state):
        return NOTHING
    bound = np.where(over[state, limit] > 0, limits.upper[limit], limits.lower[limit])
    attained = bound + over[state, limit]
    shown, reached = limits.physical(limit, bound), limits.physical(limit, attained)
    by_unit = limits.power[limit] * attained / reached
    weight = np.zeros(over.shape)
    np.add.at(weight.T, softness.quantity, np.abs(found.weights.limits.toarray()).T)
    return pd.DataFrame(
        {
            "interval": market.state_interval[state],
            "cause": limits.cause[limit].astype(object),
            "element": limits.element[limit].astype(object),
            "phase": limits.phase[limit].astype(object),
            "end": limits.end[limit].astype(object),
            "called": np.array([market.call_name(int(one)) for one in state], dtype=object),
            "limit": shown,
            "value": reached,
            "excess": np.abs(reached - shown),
            "unit": limits.unit[limit].astype(object),
            "penalty_usd_per_h": weight[state, limit] * by_unit * BASE_KVA / KW_PER_MW,
            "cost_usd": cost[state, limit],
        }
    )


def import_excess(market: MarketLp, x: FloatArray) -> FloatArray:
    """(t, 4) How far dispatch `x` is beyond each end of the import's range, as of `IMPORT_LIMITS` [pu]."""
    excesses = import_excesses(market.case.substation, market.penalties)
    amount, total = x[market.block("import_beyond")], np.zeros((market.intervals, len(IMPORT_LIMITS)))
    np.add.at(total.T, np.array([excess.end for excess in excesses], dtype=int), amount.T)
    return total


def _import_table(found: Dispatch, money: float) -> pd.DataFrame:
    market, substation = found.market, found.market.case.substation
    excesses = import_excesses(substation, market.penalties)
    amount, total = found.x[market.block("import_beyond")], import_excess(market, found.x)
    rows = []
    for interval, end in zip(*np.nonzero(total > BROKEN_PU), strict=True):
        name, side, field = IMPORT_LIMITS[end]
        own = [index for index, excess in enumerate(excesses) if excess.end == end]
        cost = sum(excesses[index].price * amount[interval, index] for index in own)
        price = market.columns.cost[interval, market.template.blocks[name]].item()
        rent = abs(getattr(found.weights, name)[interval] - price) / KW_PER_MW
        bound, excess = float(getattr(substation, field)[interval]), float(total[interval, end] * BASE_KVA)
        element, unit = IMPORT_NAMES[name]
        key = (int(interval), IMPORT, element, "-", "-", "-")
        rows.append((*key, bound, bound + side * excess, excess, unit, rent, cost * money))
    return _table(rows)


def _service_table(found: Dispatch, is_short: npt.NDArray[np.bool_], money: float) -> pd.DataFrame:
    """What is required and not met; the penalty is the price that the requirement has for it."""
    requirements, market = found.market.case.requirements, found.market
    short_pu, rows = found.x[market.block("shortage")], []
    price = market.columns.cost[:, market.template.blocks["shortage"]]
    for interval, index in zip(*np.nonzero(is_short), strict=True):
        required, short = float(requirements.quantity_kw[interval, index]), float(short_pu[interval, index] * BASE_KVA)
        unit = "kvar" if requirements.service[index] in REACTIVE else "kW"
        penalty = float(price[interval, index])
        key = (int(interval), SERVICE, f"requirement {requirements.name[index]}", "-", "-", "-")
        cost = penalty * float(short_pu[interval, index]) * money
        rows.append((*key, required, required - short, short, unit, penalty / KW_PER_MW, cost))
    return _table(rows)


def _table(rows: Sequence[tuple[int | str | float, ...]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=COLUMNS).astype(NUMBERS) if rows else NOTHING


def count_elements(table: pd.DataFrame) -> int:
    """How many limits a table of broken limits names, in whatever interval and at whichever end."""
    return len(table.drop_duplicates(["cause", "element", "phase"]))


def broken_names(table: pd.DataFrame) -> list[str]:
    """What each row of a table of broken limits is of: the element, with its phase where it is one of several."""
    named = zip(table.element, table.phase, strict=True)
    return [element if phase in ("-", BALANCED_PHASE) else f"{element}.{phase}" for element, phase in named]
