"""pandapower's Newton power flow at given injections, as a check of a clearing on a balanced network."""

import numpy as np
import pandapower
from scipy.sparse.linalg import spsolve

from dlmp.network.checked import CheckedFlow
from dlmp.network.model import BalancedNetwork, ComplexArray
from dlmp.network.pandapower import to_pandapower
from dlmp.units import KW_PER_MW

PROGRAM = "pandapower"


def pandapower_flow(network: BalancedNetwork, injection_kva: ComplexArray) -> CheckedFlow:
    """Solve every interval at (t, n) injections [kVA]."""
    net = to_pandapower(network)
    start = _without_load(network)
    v = np.tile(start, (len(injection_kva), 1))
    import_kva, converged = np.zeros(len(injection_kva), dtype=complex), True
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
        import_kva[interval] = (net.res_ext_grid.p_mw.sum() + 1j * net.res_ext_grid.q_mvar.sum()) * KW_PER_MW
    at_from, at_to = (network.from_admittance @ v.T).T, (network.to_admittance @ v.T).T
    return CheckedFlow(PROGRAM, network, v, import_kva, at_from, at_to, converged)


def _without_load(network: BalancedNetwork) -> ComplexArray:
    """(n,) Voltages without load [pu]."""
    v = np.zeros(network.node_count, dtype=complex)
    v[network.source] = network.source_v_pu
    free = np.flatnonzero(~network.is_source)
    y = network.admittance.tocsr()[free]
    v[free] = spsolve(y[:, free].tocsc(), -(y @ v))
    return v
