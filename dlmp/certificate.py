"""Checks of a clearing that share no code with the engine that made it.

* An AC power flow by pandapower's Newton solver at the awards: voltages, loadings, import, losses.
* Bid support: at the published prices every resource would choose what it was awarded.
* Uniqueness: intervals where other multipliers meet the same optimality conditions, and the prices
  at the two ends.
"""

from dataclasses import asdict, dataclass

import numpy as np
import pandapower

from dlmp.dispatch import Dispatch
from dlmp.errors import SolverError
from dlmp.market import MarketCase
from dlmp.network.model import ComplexArray, FloatArray, Network
from dlmp.network.pandapower import to_pandapower
from dlmp.powerflow import PowerFlow
from dlmp.prices import Prices
from dlmp.results import Awards, Voltages
from dlmp.solve import LinearProgram, solve_lp
from dlmp.uniqueness import PriceRange, price_ranges
from dlmp.units import BASE_KVA, KW_PER_MW, money_per_price_pu

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
    ac_converged
        True when pandapower solved every interval.
    worst_voltage_violation_pu, worst_voltage
        Largest excursion from a voltage band [pu], and where; 0 and "" when all hold.
    worst_loading_percent, worst_loading
        Largest loading of a rated branch [%], and which.
    voltage_mismatch_pu
        Largest difference between the engine's voltage magnitudes and pandapower's [pu].
    import_mismatch_kw, loss_mismatch_kw
        Largest difference of import and of network losses in any interval [kW].
    worst_bid_gap_usd, worst_bid
        Most that any resource could have earned on top by another quantity at the published price
        [currency per interval], and which.
    traded_usd
        Money that all resources exchange at the published prices, as a scale for `worst_bid_gap_usd`.
    price_ranges
        Intervals whose prices are not unique.
    negative_import_value
        Intervals in which one more kW of import is worth money: burning energy pays there, the
        problem is not convex, and the result is a local optimum that may not be the best one.
    worst_range_violation_kw
        Largest excursion of an award, a resource or the import from its own range [kW, kvar, kVA].
    """

    ac_converged: bool
    worst_voltage_violation_pu: float
    worst_voltage: str
    worst_loading_percent: float
    worst_loading: str
    voltage_mismatch_pu: float
    import_mismatch_kw: float
    loss_mismatch_kw: float
    worst_bid_gap_usd: float
    worst_bid: str
    traded_usd: float
    price_ranges: tuple[PriceRange, ...]
    negative_import_value: tuple[int, ...]
    worst_range_violation_kw: float

    @property
    def is_feasible(self) -> bool:
        """True when the AC state at the awards keeps every limit to 1e-6 pu."""
        return (
            self.ac_converged
            and self.worst_voltage_violation_pu <= FEASIBLE_PU
            and self.worst_loading_percent <= 100 * (1 + FEASIBLE_PU)
            and self.worst_range_violation_kw <= FEASIBLE_KW
        )

    @property
    def is_supported(self) -> bool:
        """True when no price-taking bidder would choose another quantity."""
        return self.worst_bid_gap_usd <= SUPPORTED_SHARE * max(1.0, self.traded_usd)

    def summary(self) -> dict[str, object]:
        """Return the figures for `summary.json`."""
        return {
            "ac_converged": self.ac_converged,
            "feasible": self.is_feasible,
            "worst_voltage_violation_pu": self.worst_voltage_violation_pu,
            "worst_voltage": self.worst_voltage,
            "worst_loading_percent": self.worst_loading_percent,
            "worst_loading": self.worst_loading,
            "voltage_mismatch_pu": self.voltage_mismatch_pu,
            "import_mismatch_kw": self.import_mismatch_kw,
            "loss_mismatch_kw": self.loss_mismatch_kw,
            "bids_supported": self.is_supported,
            "worst_bid_gap_usd": self.worst_bid_gap_usd,
            "worst_bid": self.worst_bid,
            "intervals_with_price_ranges": [asdict(price_range) for price_range in self.price_ranges],
            "intervals_of_negative_import_value": list(self.negative_import_value),
        }


def certify(case: MarketCase, found: Dispatch, prices: Prices, awards: Awards, voltages: Voltages) -> Certificate:
    """Check a clearing; see `Certificate`."""
    network = case.network
    injection = _injection_kva(case, awards)
    v, import_kw, converged = independent_power_flow(network, injection)
    gap, traded = bid_gaps(found, prices)
    worst_gap = np.unravel_index(np.argmax(gap), gap.shape) if gap.size else None
    engine_loss = found.point.import_pu.real * BASE_KVA + injection.real.sum(axis=1)
    loss = import_kw + injection.real.sum(axis=1)
    voltage, where_voltage = _worst_voltage(network, v)
    loading, where_loading = _worst_loading(network, v)
    return Certificate(
        ac_converged=converged,
        worst_voltage_violation_pu=voltage,
        worst_voltage=where_voltage,
        worst_loading_percent=loading,
        worst_loading=where_loading,
        voltage_mismatch_pu=float(np.abs(np.abs(v) - voltages.v_pu).max()),
        import_mismatch_kw=float(np.abs(import_kw - found.point.import_pu.real * BASE_KVA).max()),
        loss_mismatch_kw=float(np.abs(loss - engine_loss).max()),
        worst_bid_gap_usd=float(gap.max(initial=0.0)),
        worst_bid="" if worst_gap is None else f"{case.resources.name[worst_gap[1]]}, interval {worst_gap[0]}",
        traded_usd=traded,
        price_ranges=price_ranges(found, prices),
        negative_import_value=tuple(np.flatnonzero(found.weights.import_p < -NEGATIVE_USD_PER_MWH).tolist()),
        worst_range_violation_kw=_worst_range(case, awards, import_kw, found.point.import_pu.imag * BASE_KVA),
    )


def _injection_kva(case: MarketCase, awards: Awards) -> ComplexArray:
    """(t, n) Complex injection of awards and loads [kVA]."""
    injection = -(case.load_p_kw + 1j * case.load_q_kvar)
    np.add.at(injection.T, case.resources.node, (awards.net_injection_kw + 1j * awards.q_kvar).T)
    return injection


def independent_power_flow(network: Network, injection_kva: ComplexArray) -> tuple[ComplexArray, FloatArray, bool]:
    """Solve every interval with pandapower's Newton method.

    Returns voltages (t, n) [pu], import (t,) [kW], and whether all intervals were solved; an interval
    that was not has the voltages without load and an import of zero.
    """
    net = to_pandapower(network)
    start = PowerFlow(network).no_load_pu
    v = np.tile(start, (len(injection_kva), 1))
    import_kw, converged = np.zeros(len(injection_kva)), True
    for interval, power in enumerate(injection_kva / KW_PER_MW):
        net.sgen["p_mw"], net.sgen["q_mvar"] = power.real, power.imag
        try:
            pandapower.runpp(
                net,
                calculate_voltage_angles=True,
                init_vm_pu=np.abs(start),
                init_va_degree=np.rad2deg(np.angle(start)),
                tolerance_mva=1e-9,
                max_iteration=50,
                numba=False,
            )
        except pandapower.LoadflowNotConverged:
            converged = False
            continue
        v[interval] = net.res_bus.vm_pu * np.exp(1j * np.deg2rad(net.res_bus.va_degree))
        import_kw[interval] = net.res_ext_grid.p_mw.sum() * KW_PER_MW
    return v, import_kw, converged


def _worst_voltage(network: Network, v: ComplexArray) -> tuple[float, str]:
    size = np.abs(v)
    broken = np.maximum(network.v_min_pu - size, size - network.v_max_pu)
    broken[:, network.is_source] = 0.0
    interval, node = np.unravel_index(np.argmax(broken), broken.shape)
    if broken[interval, node] <= 0:
        return 0.0, ""
    return float(broken[interval, node]), f"bus {network.bus[node]}, interval {interval}"


def _worst_range(case: MarketCase, awards: Awards, import_kw: FloatArray, import_kvar: FloatArray) -> float:
    """Largest excursion of awards, resources and import from their ranges [kW]."""
    resources, substation = case.resources, case.substation
    excess = [
        -awards.segment_kw,
        awards.segment_kw - case.bids.quantity_kw,
        resources.p_min_kw - awards.net_injection_kw,
        awards.net_injection_kw - resources.p_max_kw,
        resources.q_min_kvar - awards.q_kvar,
        awards.q_kvar - resources.q_max_kvar,
        np.hypot(awards.net_injection_kw, awards.q_kvar) - resources.s_max_kva,
        substation.p_min_kw - import_kw,
        import_kw - substation.p_max_kw,
        substation.q_min_kvar - import_kvar,
        import_kvar - substation.q_max_kvar,
    ]
    return max(0.0, *(float(part.max(initial=0.0)) for part in excess))


def _worst_loading(network: Network, v: ComplexArray) -> tuple[float, str]:
    at_from, at_to = np.abs((network.from_admittance @ v.T).T), np.abs((network.to_admittance @ v.T).T)
    power = ~network.rating_is_current
    at_from[:, power] *= np.abs(v[:, network.from_node[power]])
    at_to[:, power] *= np.abs(v[:, network.to_node[power]])
    loading = 100 * np.maximum(at_from / network.rating_from_pu, at_to / network.rating_to_pu)
    if not loading.size or loading.max() <= 0:
        return 0.0, ""
    interval, branch = np.unravel_index(np.argmax(loading), loading.shape)
    return float(loading[interval, branch]), f"{network.branch[branch]}, interval {interval}"


def bid_gaps(found: Dispatch, prices: Prices) -> tuple[FloatArray, float]:
    """Profit that each resource forgoes at the published prices.

    Every resource solves its own profit maximum, all in one LP of the market's rows without a network.

    Returns
    -------
    gap
        (t, r) Best profit less the profit of the award [currency].
    traded
        Sum of what all resources are paid or pay, in absolute value [currency].
    """
    market = found.market
    node = market.case.resources.node
    columns = market.columns
    cost = columns.cost.copy()
    blocks = market.template.blocks
    for name in ("import_p", "import_q"):
        cost[:, blocks[name]] = 0.0
    cost[:, blocks["p"]] -= prices.lmp_usd_per_mwh[:, node]
    cost[:, blocks["q"]] -= prices.lmp_q_usd_per_mvarh[:, node]
    best = solve_lp(
        LinearProgram(
            cost.ravel(),
            columns.lower.ravel(),
            columns.upper.ravel(),
            market.matrix,
            market.row_lower,
            market.row_upper,
        )
    )
    if best is None:
        raise SolverError("the awards do not keep the ranges of their own resources")
    money = money_per_price_pu(market.case.horizon.interval_hours)
    shape = (market.intervals, market.width)
    profit = [-(cost * x.reshape(shape)) for x in (best.x, found.x)]
    per_resource = [_by_resource(found, values) for values in profit]
    paid = np.abs(found.x[market.block("p")] * prices.lmp_usd_per_mwh[:, node]).sum()
    return np.maximum(per_resource[0] - per_resource[1], 0.0) * money, float(paid * money)


def _by_resource(found: Dispatch, value: FloatArray) -> FloatArray:
    """Sum columns (t, width) over awards and powers of each resource, (t, r)."""
    blocks, bids = found.market.template.blocks, found.market.case.bids
    total = value[:, blocks["p"]] + value[:, blocks["q"]]
    np.add.at(total.T, bids.resource, value[:, blocks["award"]].T)
    return total
