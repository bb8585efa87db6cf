"""pandapower's AC optimal power flow ``runopp`` (PYPOWER's interior point method), interval by interval.

Every resource is a static generator whose cost is piecewise linear: what it is paid to inject, or asks to consume less.
"""

import numpy as np
import pandapower

from benchmarks.peers.outcome import NotExpressible, Outcome
from dlmp import Settings
from dlmp.market import MarketCase
from dlmp.network.model import BalancedNetwork, FloatArray
from dlmp.network.pandapower import to_pandapower
from dlmp.units import BASE_KVA, KW_PER_MW

TOLERANCES = {
    "OPF_VIOLATION": 1e-8,
    "PDIPM_GRADTOL": 1e-8,
    "PDIPM_COMPTOL": 1e-8,
    "PDIPM_COSTTOL": 1e-10,
    "PDIPM_MAX_IT": 500,
}
UNLIMITED_MVA = 1e3


def solve(case: MarketCase, settings: Settings) -> Outcome:
    """Solve every interval, as far as pandapower gets."""
    if not isinstance(case.network, BalancedNetwork):
        raise NotExpressible("knows balanced feeders only")
    if len(case.stores) or len(case.service_offers) or len(case.blocks) or len(case.reactive_bids):
        raise NotExpressible("has no stores, services, blocks or reactive bids over a day")
    net = _net_of(case)
    cost, price = 0.0, np.zeros((case.horizon.intervals, case.network.port_count))
    for interval in range(case.horizon.intervals):
        _set(net, case, interval)
        try:
            pandapower.runopp(net, init="flat", numba=False, **TOLERANCES)
        except pandapower.OPFNotConverged:
            return Outcome(f"did not converge in interval {interval}")
        cost += _cost_of(net, case, interval) * case.horizon.interval_hours
        price[interval] = net.res_bus.lam_p.to_numpy()
    return Outcome("solved", cost, price)


def _net_of(case: MarketCase) -> pandapower.pandapowerNet:
    """The network with its limits, its loads as the generators of `to_pandapower`, and the resources after these."""
    network, resources = case.network, case.resources
    net = to_pandapower(network)
    net.sn_mva = 1.0
    net.bus["min_vm_pu"], net.bus["max_vm_pu"] = network.v_min_pu, network.v_max_pu
    for bound in ("min_vm_pu", "max_vm_pu"):
        net.bus.loc[network.source, bound] = np.abs(network.source_v_pu)
    net.ext_grid["min_p_mw"], net.ext_grid["max_p_mw"] = -UNLIMITED_MVA, UNLIMITED_MVA
    net.ext_grid["min_q_mvar"], net.ext_grid["max_q_mvar"] = -UNLIMITED_MVA, UNLIMITED_MVA
    _set_ratings(net, network)
    net.sgen["controllable"] = False
    pandapower.create_sgens(net, resources.first_port, p_mw=0.0, q_mvar=0.0, controllable=True)
    own = net.sgen.index[network.node_count :]
    net.sgen.loc[own, "min_q_mvar"] = resources.q_min_kvar / KW_PER_MW
    net.sgen.loc[own, "max_q_mvar"] = resources.q_max_kvar / KW_PER_MW
    return net


def _set_ratings(net: pandapower.pandapowerNet, network: BalancedNetwork) -> None:
    """Give every impedance its branch's rating: ``runopp`` limits its power to its base, which says nothing else."""
    rating_mva = np.minimum(network.rating_from_pu, network.rating_to_pu) * BASE_KVA / KW_PER_MW
    base_mva = np.minimum(rating_mva, UNLIMITED_MVA)
    larger = base_mva / net.impedance.sn_mva
    for series in ("rft_pu", "xft_pu", "rtf_pu", "xtf_pu"):
        net.impedance[series] *= larger
    for shunt in ("gf_pu", "bf_pu", "gt_pu", "bt_pu"):
        net.impedance[shunt] /= larger
    net.impedance["sn_mva"] = base_mva


def _set(net: pandapower.pandapowerNet, case: MarketCase, interval: int) -> None:
    """Give `net` the loads, ranges and costs of an interval."""
    nodes, resources = case.network.node_count, case.resources
    load_mva = case.load_pu[interval] * BASE_KVA / KW_PER_MW
    net.sgen.loc[: nodes - 1, "p_mw"], net.sgen.loc[: nodes - 1, "q_mvar"] = -load_mva.real, -load_mva.imag
    net.poly_cost.drop(net.poly_cost.index, inplace=True)
    net.pwl_cost.drop(net.pwl_cost.index, inplace=True)
    for grid in net.ext_grid.index:
        price = case.substation.price_usd_per_mwh[interval]
        pandapower.create_poly_cost(net, grid, "ext_grid", cp1_eur_per_mw=price)
    for resource in range(len(resources)):
        low, curve = offer_curve(case, interval, resource)
        generator = nodes + resource
        high = curve[-1][1] if curve else low
        net.sgen.loc[generator, ["min_p_mw", "max_p_mw"]] = low, high
        if curve:
            pandapower.create_pwl_cost(net, generator, "sgen", curve)


def _cost_of(net: pandapower.pandapowerNet, case: MarketCase, interval: int) -> float:
    """Cost of the dispatch found [currency/h]: ``res_cost`` is off by a constant where a curve begins below zero."""
    cost = case.substation.price_usd_per_mwh[interval] * net.res_ext_grid.p_mw.sum()
    injection = net.res_sgen.p_mw.to_numpy()[case.network.node_count :]
    for resource, p_mw in enumerate(injection):
        _, curve = offer_curve(case, interval, resource)
        cost += sum(price * (np.clip(p_mw, *ends) - np.clip(0.0, *ends)) for *ends, price in curve)
    return float(cost)


def offer_curve(case: MarketCase, interval: int, resource: int) -> tuple[float, list[list[float]]]:
    """Least injection [MW], and from there its ranges and marginal costs ``[from, to, currency/MWh]``, ascending."""
    bids, resources = case.bids, case.resources
    own = np.flatnonzero((bids.resource == resource) & (bids.quantity_kw[interval] > 0))
    order = np.lexsort((bids.price_usd_per_mwh[interval, own], bids.is_supply[own]))
    own = own[order]
    low = -float(bids.quantity_kw[interval, own[~bids.is_supply[own]]].sum())
    edge: FloatArray = (low + np.cumsum(np.r_[0.0, bids.quantity_kw[interval, own]])) / KW_PER_MW
    price = bids.price_usd_per_mwh[interval, own]
    least, most = resources.p_min_kw[resource] / KW_PER_MW, resources.p_max_kw[interval, resource] / KW_PER_MW
    curve = [
        [max(float(start), least), min(float(end), most), float(cost)]
        for start, end, cost in zip(edge[:-1], edge[1:], price, strict=True)
        if min(end, most) > max(start, least)
    ]
    return (curve[0][0] if curve else 0.0), curve
