"""Make-whole payments: what prices leave a resource short of its costs when it follows the dispatch.

Prices that are set step by step need not pay for what a resource has done in steps before: a battery that was charged
for a dear evening of which a later forecast knows nothing has paid for energy that it cannot sell.  Over the day, with
every amount in currency,

    uplift = max(0, (as-bid cost - revenue) - own needs)

*As-bid cost* is that of accepted supply less the value of accepted demand, at the bids' prices, and of services at
those of their offers; for a store that of cycling and of shortfall, less the worth of the energy in it at the end.
*Revenue* is what real and reactive power and services earn at the binding prices.  *Own needs* is ``as-bid cost -
revenue`` of a resource that exchanges with the grid only what it cannot help: what must run, what a firm band of energy
needs, at the binding prices of the cheapest intervals for that.  It is zero for a resource that may stay at zero, and
for a battery the worth of the energy that it would keep.

Nobody is paid for profit missed.  In a single clearing of the whole day there is no uplift: its prices support what it
awards, and own needs are one of the other choices that a resource has (a choice between directions of a store at
negative prices is not supported by prices, and can make one).
"""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import sparse

from dlmp.certificate import by_resource
from dlmp.clearing import Clearing
from dlmp.errors import SolverError
from dlmp.formulation.market_lp import MarketLp, build_market_lp
from dlmp.market import MarketCase
from dlmp.network.model import FloatArray
from dlmp.solve import LinearProgram, solve_lp
from dlmp.units import KW_PER_MW, money_per_price_pu

EXCHANGE_SLACK = 1e-9
"""What the least exchange may be exceeded by, where the cheapest of its kind is looked for [pu, and relative]."""


@dataclass(frozen=True, eq=False)
class Uplift:
    """Make-whole payments of a day, each array (r,) [currency].

    Parameters
    ----------
    case
        The day.
    as_bid_cost_usd
        Cost of what was dispatched, at the resource's own prices.
    revenue_usd
        What its real and reactive power and its services earn at the prices; negative where it pays.
    own_needs_usd
        Cost less revenue, had it exchanged no more than it cannot help.
    """

    case: MarketCase = field(repr=False)
    as_bid_cost_usd: FloatArray
    revenue_usd: FloatArray
    own_needs_usd: FloatArray

    @property
    def uplift_usd(self) -> FloatArray:
        """(r,) What is paid on top [currency]."""
        return np.maximum(self.as_bid_cost_usd - self.revenue_usd - self.own_needs_usd, 0.0)

    def table(self) -> pd.DataFrame:
        """One row per resource."""
        names = ("as_bid_cost_usd", "revenue_usd", "own_needs_usd", "uplift_usd")
        columns = {"resource": self.case.resources.name.astype(object)}
        return pd.DataFrame(columns | {name: getattr(self, name) for name in names})


def as_bid_cost(clearing: Clearing) -> FloatArray:
    """(t, r) Cost of the dispatch at the prices of bids, stores and services [currency]."""
    return by_resource(clearing.market, clearing.column_costs()) * _money(clearing.case)


def _money(case: MarketCase) -> float:
    return money_per_price_pu(case.horizon.interval_hours)


def service_payment(clearing: Clearing) -> FloatArray:
    """(t, r) What resources are paid for the power that they hold ready [currency]."""
    paid = np.zeros_like(clearing.awards.net_injection_kw)
    np.add.at(paid.T, clearing.case.service_offers.resource, clearing.services.payment().T)
    return paid


def import_cost(clearing: Clearing) -> FloatArray:
    """(t,) What is paid upstream [currency]."""
    substation = clearing.case.substation
    real, reactive = substation.price_usd_per_mwh, substation.q_price_usd_per_mvarh
    paid = real * clearing.import_kw + reactive * clearing.import_kvar
    return np.asarray(paid * clearing.case.horizon.interval_hours / KW_PER_MW)


def uplift(
    case: MarketCase,
    *,
    cost_usd: FloatArray,
    net_injection_kw: FloatArray,
    q_kvar: FloatArray,
    lmp_usd_per_mwh: FloatArray,
    lmp_q_usd_per_mvarh: FloatArray,
    service_usd: FloatArray,
    circle_sides: int,
) -> Uplift:
    """Find the make-whole payments of a day.

    Parameters
    ----------
    case
        The day.
    cost_usd
        (r,) As-bid cost of the dispatch [currency].
    net_injection_kw, q_kvar
        (t, r) Dispatch [kW], [kvar].
    lmp_usd_per_mwh, lmp_q_usd_per_mvarh
        (t, r) Prices where each stands [currency/MWh], [currency/MVArh].
    service_usd
        (r,) What each is paid for services [currency].
    circle_sides
        As in `dlmp.Settings`.
    """
    earned = net_injection_kw * lmp_usd_per_mwh + q_kvar * lmp_q_usd_per_mvarh
    revenue = earned.sum(axis=0) * case.horizon.interval_hours / KW_PER_MW + service_usd
    return Uplift(case, cost_usd, revenue, _own_needs(case, lmp_usd_per_mwh, circle_sides))


def _own_needs(case: MarketCase, price: FloatArray, circle_sides: int) -> FloatArray:
    """(r,) Cost less revenue of the least exchange with the grid, the cheapest of its kind [currency]."""
    market = build_market_lp(case, circle_sides)
    exchange = _exchange(market)
    columns, blocks = market.columns, market.template.blocks
    cost = columns.cost.copy()
    for name in ("import_p", "import_q", "q", "shortage"):
        cost[:, blocks[name]] = 0.0
    cost[:, blocks["p"]] -= price
    shape = (market.intervals, market.width)
    least = _solve(market, np.asarray(exchange.sum(axis=0)).ravel(), exchange, np.full(len(case.resources), np.inf))
    most = exchange @ least
    cheapest = _solve(market, cost.ravel(), exchange, most + EXCHANGE_SLACK * (1 + most))
    spent = by_resource(market, cost * cheapest.reshape(shape)).sum(axis=0)
    return np.asarray(spent * _money(case))


def _exchange(market: MarketLp) -> sparse.csr_array:
    """(r, columns) Sums of what each resource exchanges with the grid, whichever way."""
    owner, column = zip(
        *(
            (np.tile(own, market.intervals), market.block(name).ravel())
            for name, (part, own) in market.feeds.items()
            if part == 0
        ),
        strict=True,
    )
    place = (np.concatenate(owner), np.concatenate(column))
    shape = (len(market.case.resources), market.intervals * market.width)
    return sparse.csr_array((np.ones(len(place[0])), place), shape=shape)


def _solve(market: MarketLp, cost: FloatArray, exchange: sparse.csr_array, most: FloatArray) -> FloatArray:
    """Cheapest choice of every resource by itself that exchanges no more than `most` (r,) [pu]."""
    own = market.own_rows
    found = solve_lp(
        LinearProgram(
            cost,
            market.columns.lower.ravel(),
            market.columns.upper.ravel(),
            sparse.csr_array(sparse.vstack([market.matrix[own], exchange])),
            np.r_[market.row_lower[own], np.full(len(most), -np.inf)],
            np.r_[market.row_upper[own], most],
        )
    )
    if found is None:
        raise SolverError("the day's dispatch does not keep the ranges of its own resources")
    return found.x
