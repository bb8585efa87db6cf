"""PyPSA's linear power flow with piecewise linear losses, all intervals in one programme (linopy and HiGHS).

Without voltages or reactive power every branch is its series impedance, in per unit of 1 MVA at a nominal 1 kV.
"""

import logging
import warnings

import numpy as np
import pandas as pd
import pypsa

from benchmarks.peers.outcome import NotExpressible, Outcome
from dlmp import Settings
from dlmp.market import MarketCase
from dlmp.network.model import BalancedNetwork
from dlmp.units import BASE_KVA, KW_PER_MW

LOSSES = {"mode": "secants", "atol": 1e-5, "rtol": 0.02, "max_segments": 40}
"""Finer than PyPSA's defaults, which are meant for transmission: absolute tolerance in MW."""
VOLT_PU, OHM_PER_PU = 1.0, KW_PER_MW / BASE_KVA


def solve(case: MarketCase, settings: Settings) -> Outcome:
    """Solve the day at once."""
    if not isinstance(case.network, BalancedNetwork):
        raise NotExpressible("knows balanced feeders only")
    if len(case.stores) or len(case.service_offers) or len(case.blocks) or len(case.reactive_bids):
        raise NotExpressible("is compared without stores, services, blocks and reactive bids")
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = _network_of(case)
        status, condition = network.optimize(
            transmission_losses=LOSSES, solver_name="highs", output_flag=False, include_objective_constant=False
        )
    if status != "ok":
        return Outcome(condition)
    price = network.buses_t.marginal_price[_labels(case.network.node_count)].to_numpy()
    return Outcome("solved", float(network.objective), price)


def _labels(count: int) -> list[str]:
    return [str(index) for index in range(count)]


def _network_of(case: MarketCase) -> pypsa.Network:
    network, bids, hours = case.network, case.bids, case.horizon.interval_hours
    snapshots = pd.RangeIndex(case.horizon.intervals)
    made = pypsa.Network()
    made.set_snapshots(snapshots)
    made.snapshot_weightings[:] = hours
    nodes, branches = _labels(network.node_count), _labels(network.branch_count)
    made.add("Bus", nodes, v_nom=VOLT_PU)
    most_mw = (np.abs(case.load_p_kw).sum(axis=1) + bids.quantity_kw.sum(axis=1)).max() / KW_PER_MW
    rating = np.minimum(network.rating_from_pu, network.rating_to_pu) * BASE_KVA / KW_PER_MW
    made.add(
        "Line",
        [f"line {branch}" for branch in branches],
        bus0=[nodes[node] for node in network.from_node],
        bus1=[nodes[node] for node in network.to_node],
        r=network.series_pu.real * OHM_PER_PU,
        x=np.maximum(network.series_pu.imag, 1e-9) * OHM_PER_PU,
        s_nom=np.where(np.isfinite(rating), rating, most_mw),
    )
    load_mw = pd.DataFrame(case.load_p_kw[:, : len(nodes)] / KW_PER_MW, index=snapshots)
    load_mw.columns = loads = [f"load {node}" for node in nodes]
    made.add("Load", loads, bus=nodes, p_set=load_mw)
    _add_offers(made, case, nodes)
    return made


def _add_offers(made: pypsa.Network, case: MarketCase, nodes: list[str]) -> None:
    """One generator for each source and bid segment; a demand is one that injects less than nothing."""
    bids, intervals = case.bids, case.horizon.intervals
    for source in case.network.source:
        price = pd.Series(case.substation.price_usd_per_mwh)
        made.add("Generator", f"grid {source}", bus=nodes[source], p_nom=1e6, p_min_pu=-1.0, marginal_cost=price)
    size_mw = bids.quantity_kw.max(axis=0) / KW_PER_MW
    offered = np.flatnonzero(size_mw > 0)
    names = [f"offer {segment}" for segment in offered]
    part = bids.quantity_kw[:, offered] / KW_PER_MW / size_mw[offered]
    supply = bids.is_supply[offered]

    def frame(values):
        return pd.DataFrame(np.broadcast_to(values, (intervals, len(names))), columns=names)

    made.add(
        "Generator",
        names,
        bus=[nodes[port] for port in case.resources.first_port[bids.resource[offered]]],
        p_nom=size_mw[offered],
        p_max_pu=frame(np.where(supply, part, 0.0)),
        p_min_pu=frame(np.where(supply, 0.0, -part)),
        marginal_cost=frame(bids.price_usd_per_mwh[:, offered]),
    )
