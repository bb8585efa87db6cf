"""Checks of a clearing that share no code with the engine that made it.

* An AC power flow at the awards by another program: voltages, loadings, import, losses.  pandapower solves
  balanced networks, and OpenDSS those that were read from its circuits.
* Deliverability: the same power flow while what is reserved is called (`dlmp.deliverability`).
* Bid support: at the published prices every resource would choose what it was awarded.
* Uniqueness: intervals where other multipliers meet the same optimality conditions, and the prices
  at the two ends.
"""

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from dlmp.bids import reactive_share
from dlmp.deliverability import LIMITED, called_excess, check_calls
from dlmp.dispatch import Dispatch
from dlmp.errors import SolverError
from dlmp.formulation.interface import CONGESTION, UNBALANCE, VOLTAGE
from dlmp.formulation.market_lp import MarketLp
from dlmp.market import MarketCase
from dlmp.network.checked import Told
from dlmp.network.independent import independent_power_flow
from dlmp.network.model import ComplexArray, FloatArray
from dlmp.prices import Prices
from dlmp.products.storage import STORE_VARIABLES
from dlmp.products.substation import REACTIVE_IMPORT, REAL_IMPORT
from dlmp.ramps import ramp_excess, ramp_limited
from dlmp.results import Awards, ServiceAwards, Voltages
from dlmp.scarcity import IMPORT, broken_names, count_elements, scarcity_of
from dlmp.solve import LinearProgram, solve_lp
from dlmp.uniqueness import PriceRange, price_ranges
from dlmp.units import BASE_KVA, money_per_price_pu

FEASIBLE_KW = 1e-3
"""Largest excursion of a feasible result from the range of a resource or of the import [kW]."""
FEASIBLE_PU = 1e-6
"""Largest violation of a feasible result [pu]."""
NEGATIVE_USD_PER_MWH = 1e-6
"""An import value below minus this is negative [currency/MWh]."""
SUPPORTED_SHARE = 1e-6
"""Largest profit forgone of a supported award, relative to the money that changes hands."""


@dataclass(frozen=True, eq=False)
class Certificate:
    """What the independent checks found.

    Parameters
    ----------
    program
        Which one solved the AC power flow.
    ac_converged
        True when it solved every interval.
    broken_limits
        Limits that the clearing tells broken in any interval.  All that follows counts from what it tells.
    worst_voltage_violation_pu, worst_voltage
        Largest excursion from a voltage band [pu], and where; 0 and "" when all hold.  Where the voltage
        to ground is not determined, that between phases counts.
    worst_loading_percent, worst_loading
        Largest loading of a rated conductor [%], and which; what is told above its rating is taken off.
    worst_unbalance_violation_pu, worst_unbalance
        Largest excess over the limit of negative- by positive-sequence voltage, and where; 0 and "" when all hold.
    voltage_mismatch_pu
        Largest difference between the engine's voltage magnitudes and the program's [pu].
    import_mismatch_kw, loss_mismatch_kw
        Largest difference of import and of the branches' losses in any interval [kW].
    worst_bid_gap_usd, worst_bid
        Bound on what any resource could have earned on top by another quantity at the published price
        [currency per interval], and which; the most itself where all bids are blocks.
    traded_usd
        Money that all resources exchange at the published prices, as a scale for `worst_bid_gap_usd`.
    price_ranges
        Intervals whose prices are not unique.
    negative_import_value
        Intervals in which one more kW of import is worth money: burning energy pays there, the
        problem is not convex, and the result is a local optimum that may not be the best one.
    worst_range_violation_kw
        Largest excursion of an award, a resource, also while it is called, or the import from its own range [kW, kvar,
        kVA].
    calls, calls_converged
        How many calls of services the program solved the power flow of, each award alone and whole services; and True
        when it solved them all.
    worst_called_violation_pu, worst_call
        Largest violation of a limit of the network in any of them [pu], and where and in which; 0 and "" when all hold.
    """

    program: str
    ac_converged: bool
    broken_limits: int
    worst_voltage_violation_pu: float
    worst_voltage: str
    worst_loading_percent: float
    worst_loading: str
    worst_unbalance_violation_pu: float
    worst_unbalance: str
    voltage_mismatch_pu: float
    import_mismatch_kw: float
    loss_mismatch_kw: float
    worst_bid_gap_usd: float
    worst_bid: str
    traded_usd: float
    price_ranges: tuple[PriceRange, ...]
    negative_import_value: tuple[int, ...]
    worst_range_violation_kw: float
    calls: int
    calls_converged: bool
    worst_called_violation_pu: float
    worst_call: str

    @property
    def is_feasible(self) -> bool:
        """True when the AC state at the awards keeps every limit to 1e-6 pu, those told broken as far as told."""
        return (
            self.ac_converged
            and self.worst_voltage_violation_pu <= FEASIBLE_PU
            and self.worst_loading_percent <= 100 * (1 + FEASIBLE_PU)
            and self.worst_unbalance_violation_pu <= FEASIBLE_PU
            and self.worst_range_violation_kw <= FEASIBLE_KW
        )

    @property
    def is_deliverable(self) -> bool:
        """True when the AC state keeps every limit of the network to 1e-6 pu whatever is called."""
        return self.calls_converged and self.worst_called_violation_pu <= FEASIBLE_PU

    @property
    def is_supported(self) -> bool:
        """True when no price-taking bidder would choose another quantity."""
        return self.worst_bid_gap_usd <= SUPPORTED_SHARE * max(1.0, self.traded_usd)

    def summary(self) -> dict[str, object]:
        """Return the figures for `summary.json`."""
        return {
            "program": self.program,
            "ac_converged": self.ac_converged,
            "feasible": self.is_feasible,
            "broken_limits": self.broken_limits,
            "worst_voltage_violation_pu": self.worst_voltage_violation_pu,
            "worst_voltage": self.worst_voltage,
            "worst_loading_percent": self.worst_loading_percent,
            "worst_loading": self.worst_loading,
            "worst_unbalance_violation_pu": self.worst_unbalance_violation_pu,
            "worst_unbalance": self.worst_unbalance,
            "voltage_mismatch_pu": self.voltage_mismatch_pu,
            "import_mismatch_kw": self.import_mismatch_kw,
            "loss_mismatch_kw": self.loss_mismatch_kw,
            "calls": self.calls,
            "calls_converged": self.calls_converged,
            "deliverable": self.is_deliverable,
            "worst_called_violation_pu": self.worst_called_violation_pu,
            "worst_call": self.worst_call,
            "bids_supported": self.is_supported,
            "worst_bid_gap_usd": self.worst_bid_gap_usd,
            "worst_bid": self.worst_bid,
            "intervals_with_price_ranges": [asdict(price_range) for price_range in self.price_ranges],
            "intervals_of_negative_import_value": list(self.negative_import_value),
        }


def certify(
    case: MarketCase,
    found: Dispatch,
    prices: Prices,
    awards: Awards,
    services: ServiceAwards,
    voltages: Voltages,
) -> Certificate:
    """Check a clearing; see `Certificate`.

    Raises
    ------
    InputError
        When no other program knows the network.
    """
    network = case.network
    flow = independent_power_flow(network, awards.injection_kva(), case.law_pu * BASE_KVA)
    gap, traded = bid_gaps(found, prices, services)
    worst_gap = np.unravel_index(np.argmax(gap), gap.shape) if gap.size else None
    broken = scarcity_of(found).table
    scheduled = broken[broken.called == "-"]
    told = {cause: told_excess(scheduled, cause) for cause in (VOLTAGE, CONGESTION, UNBALANCE, IMPORT)}
    voltage, where_voltage = flow.worst_voltage(told[VOLTAGE])
    loading, where_loading = flow.worst_loading(told[CONGESTION])
    unbalance, where_unbalance = flow.worst_unbalance(told[UNBALANCE])
    called = check_calls(case, awards, services, {cause: told_excess(broken, cause) for cause in LIMITED})
    intervals = case.horizon.intervals
    at_from, at_to = found.point.branch_power()
    loss_pu = (at_from + at_to)[:intervals].real.sum(axis=1)
    import_pu = found.point.import_pu[:intervals]
    return Certificate(
        program=flow.program,
        ac_converged=flow.converged,
        broken_limits=count_elements(broken),
        worst_voltage_violation_pu=voltage,
        worst_voltage=where_voltage,
        worst_loading_percent=loading,
        worst_loading=where_loading,
        worst_unbalance_violation_pu=unbalance,
        worst_unbalance=where_unbalance,
        voltage_mismatch_pu=float(np.abs(flow.port_voltage()[:, network.voltage_ports] - voltages.v_pu).max()),
        import_mismatch_kw=float(np.abs(flow.import_kva.real - import_pu.real * BASE_KVA).max()),
        loss_mismatch_kw=float(np.abs(flow.branch_loss_pu() - loss_pu).max() * BASE_KVA),
        worst_bid_gap_usd=float(gap.max(initial=0.0)),
        worst_bid="" if worst_gap is None else f"{case.resources.name[worst_gap[1]]}, interval {worst_gap[0]}",
        traded_usd=traded,
        price_ranges=price_ranges(found, prices),
        negative_import_value=tuple(np.flatnonzero(found.weights.import_p < -NEGATIVE_USD_PER_MWH).tolist()),
        worst_range_violation_kw=_worst_range(case, awards, services, flow.import_kva, told[IMPORT]),
        calls=called.calls,
        calls_converged=called.converged,
        worst_called_violation_pu=called.worst_violation_pu,
        worst_call=called.worst,
    )


def told_excess(broken: pd.DataFrame, cause: str) -> Told:
    """How far a table of broken limits tells those of a cause to be broken, the farthest by name and interval.

    In pu for voltages, their unbalance and flows (of the limit, the worse end of two), in kW for the import.
    """
    rows = broken[broken.cause == cause]
    per_unit = {CONGESTION: rows.limit.to_numpy(dtype=float), UNBALANCE: np.full(len(rows), 100.0)}
    amount = rows.excess.to_numpy(dtype=float) / per_unit.get(cause, np.ones(len(rows)))
    keys = zip(broken_names(rows), rows.interval.tolist(), strict=True)
    told: dict[tuple[str, int], float] = {}
    for key, value in zip(keys, amount, strict=True):
        told[key] = max(float(value), told.get(key, 0.0))
    return told


def _worst_range(
    case: MarketCase, awards: Awards, services: ServiceAwards, import_kva: ComplexArray, told: Told
) -> float:
    """Largest excursion of awards, resources and import from their ranges, beyond what is `told` of import [kW]."""
    import_kw, import_kvar = import_kva.real, import_kva.imag
    resources, substation = case.resources, case.substation
    intervals = range(case.horizon.intervals)
    more_p, more_q = (
        np.array([told.get((element, t), 0.0) for t in intervals]) for element in (REAL_IMPORT, REACTIVE_IMPORT)
    )
    scheduled_kw = np.where(case.bids.is_self_scheduled, case.bids.quantity_kw, 0.0)
    share = reactive_share(resources)
    limited = np.flatnonzero(np.isfinite(share))
    beyond_share = np.abs(awards.q_kvar[:, limited]) - share[limited] * np.abs(awards.net_injection_kw[:, limited])
    excess = [
        scheduled_kw - awards.segment_kw,
        awards.segment_kw - case.bids.quantity_kw,
        -awards.segment_kvar,
        awards.segment_kvar - case.reactive_bids.quantity_kvar,
        resources.p_min_kw - awards.net_injection_kw,
        awards.net_injection_kw - resources.p_max_kw,
        resources.q_min_kvar - awards.q_kvar,
        awards.q_kvar - resources.q_max_kvar,
        np.hypot(awards.net_injection_kw, awards.q_kvar) - resources.s_max_kva,
        beyond_share,
        ramp_excess(resources, awards.net_injection_kw, case.horizon.interval_minutes),
        substation.p_min_kw - import_kw - more_p,
        import_kw - substation.p_max_kw - more_p,
        substation.q_min_kvar - import_kvar - more_q,
        import_kvar - substation.q_max_kvar - more_q,
        *called_excess(case, awards, services),
    ]
    return max(0.0, *(float(part.max(initial=0.0)) for part in excess))


def bid_gaps(found: Dispatch, prices: Prices, services: ServiceAwards) -> tuple[FloatArray, float]:
    """Profit that each resource forgoes at the published prices.

    Every resource solves its own profit maximum, all in one LP of the market's rows without a network.  Where a price
    changes along its segment, that at the award holds: profit being concave, no quantity earns more on top than by it
    (Frank and Wolfe, Naval Research Logistics Quarterly 3, 1956), and none earns anything where the award is the best.

    Returns
    -------
    gap
        (t, r) Best profit less the profit of the award [currency]; that of a resource whose intervals depend on each
        other, a store, one with ramps, with calls that last or with a block of several intervals that may be accepted
        in part, over the whole horizon, in interval 0.
    traded
        Sum of what all resources are paid or pay, in absolute value [currency].
    """
    market = found.market
    share = market.case.resources.share
    price, q_price = prices.lmp_usd_per_mwh @ share.T, prices.lmp_q_usd_per_mvarh @ share.T
    columns = market.columns
    cost = columns.marginal_cost(found.x).reshape(columns.cost.shape)
    blocks = market.template.blocks
    for name in ("import_p", "import_q", "shortage"):
        cost[:, blocks[name]] = 0.0
    cost[:, blocks["p"]] -= price
    cost[:, blocks["q"]] -= q_price
    cost[:, blocks["reserve"]] -= services.price_usd_per_mw_h
    own = market.own_rows
    best = solve_lp(
        LinearProgram(
            cost.ravel(),
            columns.lower.ravel(),
            columns.upper.ravel(),
            market.matrix[own],
            market.row_lower[own],
            market.row_upper[own],
        )
    )
    if best is None:
        raise SolverError("the awards do not keep the ranges of their own resources")
    money = money_per_price_pu(market.case.horizon.interval_hours)
    shape = (market.intervals, market.width)
    profit = [-(cost * x.reshape(shape)) for x in (best.x, found.x)]
    per_resource = [_over_dependent(market, by_resource(market, values)) for values in profit]
    paid = np.abs(found.x[market.block("p")] * price).sum() + np.abs(found.x[market.block("q")] * q_price).sum()
    paid += np.abs(found.x[market.block("reserve")] * services.price_usd_per_mw_h).sum()
    return np.maximum(per_resource[0] - per_resource[1], 0.0) * money, float(paid * money)


def by_resource(market: MarketLp, value: FloatArray) -> FloatArray:
    """Sum columns (t, width) over all that belongs to each resource, (t, r)."""
    case, blocks = market.case, market.template.blocks
    total = value[:, blocks["p"]] + value[:, blocks["q"]]
    for name, owner in (
        ("award", case.bids.resource),
        ("block", case.blocks.resource),
        ("q_award", case.reactive_bids.resource),
        *((name, case.stores.resource) for name in STORE_VARIABLES),
        ("reserve", case.service_offers.resource),
    ):
        np.add.at(total.T, owner, value[:, blocks[name]].T)
    return total


def _over_dependent(market: MarketLp, total: FloatArray) -> FloatArray:
    """Put what resources (t, r) have over the horizon into interval 0, where their intervals depend on each other."""
    case = market.case
    ramped = ramp_limited(case.resources, case.horizon.interval_minutes)
    offers = case.service_offers
    lasting = offers.resource[offers.lasts(case.horizon.interval_hours) > 1]
    level = case.blocks.resource[case.blocks.must_be_level]
    coupled = np.unique(np.concatenate([case.stores.resource, lasting, level, *ramped]))
    total[0, coupled], total[1:, coupled] = total[:, coupled].sum(axis=0), 0.0
    return total
