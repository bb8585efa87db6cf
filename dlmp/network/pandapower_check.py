"""pandapower's Newton power flow at given injections, as a check of a clearing on a balanced network.

Most of what pandapower takes for a power flow is the same for one bus and for thousands.  Many states are therefore
solved at once: as copies of the network side by side in one net, each with its own sources and no branch between them.
"""

import copy

import numpy as np
import pandapower
from scipy.sparse.linalg import spsolve

from dlmp.network.checked import CheckedFlow
from dlmp.network.model import BalancedNetwork, ComplexArray
from dlmp.network.pandapower import to_pandapower
from dlmp.units import KW_PER_MW

PROGRAM = "pandapower"
BUSES_AT_ONCE = 4000
"""Larger nets take no less time for each bus (measured)."""
TABLES = ("bus", "impedance", "shunt", "ext_grid", "sgen")
BUS_COLUMNS = ("bus", "from_bus", "to_bus")


def pandapower_flow(network: BalancedNetwork, injection_kva: ComplexArray) -> CheckedFlow:
    """Solve every state at (t, n) injections [kVA]."""
    v, import_kva = np.tile(_without_load(network), (len(injection_kva), 1)), np.zeros(len(injection_kva), complex)
    converged = np.ones(len(injection_kva), bool)
    at_once = max(1, BUSES_AT_ONCE // network.node_count)
    net = to_pandapower(network)
    unsolved = [np.arange(len(injection_kva))[start : start + at_once] for start in range(0, len(v), at_once)]
    while unsolved:
        states = unsolved.pop()
        side_by_side = _copies(net, len(states))
        if _run(side_by_side, injection_kva[states], v[states]):
            v[states], import_kva[states] = _results(side_by_side, len(states))
        elif len(states) > 1:
            unsolved += np.array_split(states, 2)
        else:
            converged[states] = False
    at_from, at_to = (network.from_admittance @ v.T).T, (network.to_admittance @ v.T).T
    return CheckedFlow(PROGRAM, network, v, import_kva, at_from, at_to, bool(converged.all()))


def _copies(net: pandapower.pandapowerNet, count: int) -> pandapower.pandapowerNet:
    """So many copies of `net` side by side: bus i of copy c is bus ``c n + i`` of the n buses there are."""
    copies, buses = copy.deepcopy(net), len(net.bus)
    for name in TABLES:
        size = len(net[name])
        table = net[name].iloc[np.tile(np.arange(size), count)].reset_index(drop=True)
        for column in set(BUS_COLUMNS) & set(table.columns):
            table[column] += buses * np.repeat(np.arange(count), size)
        copies[name] = table
    return copies


def _run(net: pandapower.pandapowerNet, injection_kva: ComplexArray, start_pu: ComplexArray) -> bool:
    """Solve the copies of a network in `net` at injections (t, n) [kVA], from voltages (t, n); False if that fails."""
    power, start = injection_kva.ravel() / KW_PER_MW, start_pu.ravel()
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
        return False
    return True


def _results(net: pandapower.pandapowerNet, count: int) -> tuple[ComplexArray, ComplexArray]:
    """Voltages (t, n) [pu] and what the sources feed in (t,) [kVA], of so many copies of a network in `net`."""
    v = net.res_bus.vm_pu * np.exp(1j * np.deg2rad(net.res_bus.va_degree))
    fed_mva = (net.res_ext_grid.p_mw + 1j * net.res_ext_grid.q_mvar).to_numpy()
    return v.to_numpy().reshape(count, -1), fed_mva.reshape(count, -1).sum(axis=1) * KW_PER_MW


def _without_load(network: BalancedNetwork) -> ComplexArray:
    """(n,) Voltages without load [pu]."""
    v = np.zeros(network.node_count, dtype=complex)
    v[network.source] = network.source_v_pu
    free = np.flatnonzero(~network.is_source)
    y = network.admittance.tocsr()[free]
    v[free] = spsolve(y[:, free].tocsc(), -(y @ v))
    return v
