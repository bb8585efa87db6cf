"""An AC optimal power flow oracle: a market case cleared by a general nonlinear solver, to check the engine with.

Each interval is one nonlinear programme in rectangular voltages, solved by IPOPT with exact derivatives.
It shares only records with the engine (`MarketCase`, `Network` and its admittances).  Prices are the
derivatives of the Lagrangian in the demand of each node, which is a parameter of the programme.
"""

from dataclasses import dataclass

import casadi
import numpy as np
from scipy import sparse
from scipy.sparse.linalg import spsolve

from dlmp.market import MarketCase
from dlmp.network.model import ComplexArray, FloatArray, IntArray, Network
from dlmp.units import BASE_KVA, KW_PER_MW

IPOPT_OPTIONS = {
    "tol": 1e-10,
    "dual_inf_tol": 1e-8,
    "constr_viol_tol": 1e-10,
    "compl_inf_tol": 1e-10,
    "acceptable_iter": 0,
    "bound_relax_factor": 0.0,
    "honor_original_bounds": "yes",
    "mu_target": 0.0,
    "max_iter": 500,
    "print_level": 0,
    "sb": "yes",
}
"""Tolerances are in the programme's units: power over `power_base`, and cost in currency/MWh times that."""

ROUNDING_KW = 1e-9
"""A sum of bid quantities this close to a limit is taken to meet it."""

Limit = tuple[casadi.SX, FloatArray | float, FloatArray | float]
"""An expression, its lower bound and its upper bound."""


@dataclass(frozen=True, eq=False)
class AcOpf:
    """The least-cost dispatch of t intervals under the exact power flow, and its prices.

    Parameters
    ----------
    cost
        Import, accepted supply and reactive import less the value of accepted demand, over the horizon [currency].
    price_p, price_q
        (t, n) Cost of one more unit of demand at each node [currency/MWh], [currency/MVArh].
    p_kw, q_kvar
        (t, r) Injection of each resource [kW], [kvar].
    award_kw
        (t, s) Accepted part of each bid segment [kW].
    v
        (t, n) Voltage [pu].
    import_p_kw, import_q_kvar
        (t,) Power drawn from the upstream grid [kW], [kvar].
    """

    cost: float
    price_p: FloatArray
    price_q: FloatArray
    p_kw: FloatArray
    q_kvar: FloatArray
    award_kw: FloatArray
    v: ComplexArray
    import_p_kw: FloatArray
    import_q_kvar: FloatArray


def solve_acopf(case: MarketCase, *, circle_sides: int = 32, start: ComplexArray | None = None) -> AcOpf:
    """Clear `case` under the exact power flow, interval by interval.

    Parameters
    ----------
    case
        A balanced case.
    circle_sides
        Sides of the regular polygon inscribed in the apparent power circle of each resource.
    start
        (t, n) Voltage to start from [pu]; default: the voltage without loads.

    Raises
    ------
    RuntimeError
        Where IPOPT does not end in ``Solve_Succeeded``.
    """
    if start is None:
        start = np.tile(no_load_voltage(case.network), (case.horizon.intervals, 1))
    solved = [solve_interval(case, t, circle_sides, start[t]) for t in range(case.horizon.intervals)]
    cost_per_hour, *columns = zip(*solved, strict=True)
    return AcOpf(float(sum(cost_per_hour)) * case.horizon.interval_hours, *(np.array(column) for column in columns))


@dataclass(frozen=True, eq=False)
class Unknowns:
    """Variables and parameters of one interval and what follows from them, as casadi expressions.

    Voltages are in pu, powers over `power_base`.

    Parameters
    ----------
    e, f
        (n,) Real and imaginary part of the voltage, constant at source nodes.
    award, p, q
        (s,), (r,), (r,) Accepted bids, and the injections of the resources.
    load_p, load_q
        (n,) Demand: the parameters.
    drawn_p, drawn_q
        (n,) What each node draws from outside: the import at a source node, zero at any other.
    """

    e: casadi.SX
    f: casadi.SX
    award: casadi.SX
    p: casadi.SX
    q: casadi.SX
    load_p: casadi.SX
    load_q: casadi.SX
    drawn_p: casadi.SX
    drawn_q: casadi.SX


def solve_interval(case: MarketCase, t: int, circle_sides: int, start: ComplexArray) -> tuple[float | FloatArray, ...]:
    """Clear interval `t` alone: the fields of `AcOpf` without their first axis, cost per hour."""
    network, base_kva = case.network, power_base(case)
    free = np.flatnonzero(~network.is_source)
    unknowns = unknowns_of(case, base_kva)
    lower, upper = bid_bounds(case, t)
    limits = [
        (casadi.vertcat(unknowns.drawn_p[free], unknowns.drawn_q[free]), 0.0, 0.0),
        *network_limits(network, unknowns),
        *import_limits(case, unknowns, base_kva),
        resource_limit(case, t, circle_sides, unknowns, base_kva),
    ]
    anywhere = np.full(2 * len(free), np.inf)
    x, load_price = minimise(
        cost_of(case, t, unknowns),
        casadi.vertcat(unknowns.e[free], unknowns.f[free], unknowns.award, unknowns.q),
        limits,
        bounds=(np.r_[-anywhere, lower / base_kva], np.r_[anywhere, upper / base_kva]),
        start=np.r_[start[free].real, start[free].imag, np.zeros(len(lower))],
        parameter=casadi.vertcat(unknowns.load_p, unknowns.load_q),
        value=np.r_[case.load_p_kw[t], case.load_q_kvar[t]] / base_kva,
    )
    v = np.zeros(network.node_count, complex)
    v[network.source] = network.source_v_pu
    v[free] = x[: len(free)] + 1j * x[len(free) : len(anywhere)]
    award, q = np.split(x[len(anywhere) :] * base_kva, [len(case.bids)])
    return dispatch_of(case, t, v, award, q, load_price)


def dispatch_of(
    case: MarketCase, t: int, v: ComplexArray, award: FloatArray, q: FloatArray, load_price: FloatArray
) -> tuple[float | FloatArray, ...]:
    """Fields of `AcOpf` from the optimal voltages [pu], awards [kW] and reactive injections [kvar]."""
    network, source, substation = case.network, case.network.source, case.substation
    p = net_injection(case) @ award
    drawn = v * np.conj(network.admittance @ v) * BASE_KVA + case.load_p_kw[t] + 1j * case.load_q_kvar[t]
    np.subtract.at(drawn, case.resources.node, p + 1j * q)
    imported = drawn[source].sum()
    per_kwh = (
        substation.price_usd_per_mwh[t] * imported.real
        + substation.q_price_usd_per_mvarh[t] * imported.imag
        + signs(case) * case.bids.price_usd_per_mwh[t] @ award
    )
    price_p, price_q = np.split(load_price, 2)
    return per_kwh / KW_PER_MW, price_p, price_q, p, q, award, v, imported.real, imported.imag


def unknowns_of(case: MarketCase, base_kva: float) -> Unknowns:
    """Write the power flow: S = V conj(Y V) out of each node, with the source voltages held."""
    network, resources, nodes = case.network, case.resources, case.network.node_count
    e, f = casadi.SX.sym("e", nodes), casadi.SX.sym("f", nodes)
    e[network.source], f[network.source] = network.source_v_pu.real, network.source_v_pu.imag
    award, q = casadi.SX.sym("award", len(case.bids)), casadi.SX.sym("q", len(resources))
    load_p, load_q = casadi.SX.sym("load_p", nodes), casadi.SX.sym("load_q", nodes)
    p = casadi_matrix(net_injection(case)) @ award
    at_node = casadi_matrix(incidence(resources.node, nodes))
    current_re, current_im = product(network.admittance * (BASE_KVA / base_kva), e, f)
    return Unknowns(
        *(e, f, award, p, q, load_p, load_q),
        drawn_p=e * current_re + f * current_im + load_p - at_node @ p,
        drawn_q=f * current_re - e * current_im + load_q - at_node @ q,
    )


def cost_of(case: MarketCase, t: int, unknowns: Unknowns) -> casadi.SX:
    """Import, reactive import and accepted bids at their prices [currency/MWh x pu]."""
    source = case.network.source
    return (
        case.substation.price_usd_per_mwh[t] * casadi.sum1(unknowns.drawn_p[source])
        + case.substation.q_price_usd_per_mvarh[t] * casadi.sum1(unknowns.drawn_q[source])
        + casadi.dot(signs(case) * case.bids.price_usd_per_mwh[t], unknowns.award)
    )


def network_limits(network: Network, unknowns: Unknowns) -> list[Limit]:
    """Voltage bands and ratings of branch ends, all squared, the latter over the rating."""
    free = np.flatnonzero(~network.is_source)
    magnitude = unknowns.e**2 + unknowns.f**2
    limits: list[Limit] = [(magnitude[free], network.v_min_pu[free] ** 2, network.v_max_pu[free] ** 2)]
    for admittance, node, rating in (
        (network.from_admittance, network.from_node, network.rating_from_pu),
        (network.to_admittance, network.to_node, network.rating_to_pu),
    ):
        rated = np.flatnonzero(np.isfinite(rating))
        over_rating = sparse.diags_array(1 / rating[rated]) @ admittance[rated]
        current_re, current_im = product(over_rating, unknowns.e, unknowns.f)
        by_power = np.where(network.rating_is_current[rated], 0.0, 1.0)
        limits.append(((current_re**2 + current_im**2) * (1 + by_power * (magnitude[node[rated]] - 1)), -np.inf, 1.0))
    return limits


def import_limits(case: MarketCase, unknowns: Unknowns, base_kva: float) -> list[Limit]:
    """Ranges of the total real and reactive import."""
    source, substation = case.network.source, case.substation
    return [
        (casadi.sum1(unknowns.drawn_p[source]), substation.p_min_kw / base_kva, substation.p_max_kw / base_kva),
        (casadi.sum1(unknowns.drawn_q[source]), substation.q_min_kvar / base_kva, substation.q_max_kvar / base_kva),
    ]


def resource_limit(case: MarketCase, t: int, circle_sides: int, unknowns: Unknowns, base_kva: float) -> Limit:
    """Range of each real injection, and the polygon inside each apparent power circle.

    Bounds that the bid quantities imply are left out: with them the programme has no interior.
    """
    resources, count = case.resources, len(case.resources)
    angle = 2 * np.pi * np.arange(circle_sides) / circle_sides
    rated = incidence(np.flatnonzero(np.isfinite(resources.s_max_kva)), count).T
    of_p, of_q = sparse.kron(rated, np.cos(angle)[:, None]), sparse.kron(rated, np.sin(angle)[:, None])
    injection = net_injection(case)
    rows = sparse.block_array([[injection, None], [of_p @ injection, of_q]], format="csr")
    within = np.repeat(rated @ np.where(np.isfinite(resources.s_max_kva), resources.s_max_kva, 0.0), circle_sides)
    low = np.r_[resources.p_min_kw, np.full(len(within), -np.inf)]
    high = np.r_[resources.p_max_kw[t], within * np.cos(np.pi / circle_sides)]
    least, most = reach(rows, *bid_bounds(case, t))
    low, high = np.where(least >= low - ROUNDING_KW, -np.inf, low), np.where(most <= high + ROUNDING_KW, np.inf, high)
    return casadi_matrix(rows) @ casadi.vertcat(unknowns.award, unknowns.q), low / base_kva, high / base_kva


def bid_bounds(case: MarketCase, t: int) -> tuple[FloatArray, FloatArray]:
    """Bounds of (awards, reactive injections) [kW, kvar], tightened by the real range of each resource.

    A resource without availability thus has awards fixed at zero, not free ones that must sum to zero.
    """
    resources, owner, sign, quantity = case.resources, case.bids.resource, signs(case), case.bids.quantity_kw[t]
    least, most = reach(net_injection(case), np.zeros(len(quantity)), quantity)
    room_up = np.maximum(resources.p_max_kw[t] - least, 0.0)[owner]
    room_down = np.maximum(most - resources.p_min_kw, 0.0)[owner]
    upper = np.minimum(quantity, np.where(sign > 0, room_up, room_down))
    lower = np.maximum(quantity - np.where(sign > 0, room_down, room_up), 0.0)
    return np.r_[np.minimum(lower, upper), resources.q_min_kvar], np.r_[upper, resources.q_max_kvar]


def minimise(
    cost: casadi.SX,
    x: casadi.SX,
    limits: list[Limit],
    *,
    bounds: tuple[FloatArray, FloatArray],
    start: FloatArray,
    parameter: casadi.SX,
    value: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Best `x`, and the derivative of the least cost in `parameter` at `value`."""
    options = {"print_time": False, **{f"ipopt.{name}": option for name, option in IPOPT_OPTIONS.items()}}
    programme = {"x": x, "p": parameter, "f": cost, "g": casadi.densify(casadi.vertcat(*(row for row, _, _ in limits)))}
    solver = casadi.nlpsol("acopf", "ipopt", programme, options)
    solution = solver(
        x0=np.clip(start, *bounds),
        p=value,
        lbx=bounds[0],
        ubx=bounds[1],
        lbg=np.concatenate([np.broadcast_to(low, row.numel()) for row, low, _ in limits]),
        ubg=np.concatenate([np.broadcast_to(high, row.numel()) for row, _, high in limits]),
    )
    status = solver.stats()["return_status"]
    if status != "Solve_Succeeded":
        raise RuntimeError(f"IPOPT ended in {status}")
    return np.array(solution["x"]).ravel(), -np.array(solution["lam_p"]).ravel()


def no_load_voltage(network: Network) -> ComplexArray:
    """(n,) Voltage that solves Y_LL V_L = -Y_LS V_S [pu]."""
    free, v = np.flatnonzero(~network.is_source), np.zeros(network.node_count, complex)
    v[network.source] = network.source_v_pu
    v[free] = spsolve(network.admittance[free][:, free].tocsc(), -(network.admittance @ v)[free])
    return v


def power_base(case: MarketCase) -> float:
    """Power of about the whole feeder [kVA], as 1 pu of the programme."""
    load = np.abs(case.load_p_kw + 1j * case.load_q_kvar).sum(axis=1).max()
    return float(max(load, case.bids.quantity_kw.sum(axis=1, initial=0.0).max(), BASE_KVA))


def signs(case: MarketCase) -> FloatArray:
    """(s,) 1 for supply, -1 for demand."""
    return np.where(case.bids.is_supply, 1.0, -1.0)


def net_injection(case: MarketCase) -> sparse.csr_array:
    """(r, s) Awards to net injections."""
    return sparse.csr_array(incidence(case.bids.resource, len(case.resources)) @ sparse.diags_array(signs(case)))


def incidence(row: IntArray, rows: int) -> sparse.csr_array:
    """(rows, k) Sums the k columns into the rows that they belong to."""
    return sparse.csr_array((np.ones(len(row)), (row, np.arange(len(row)))), shape=(rows, len(row)))


def reach(rows: sparse.csr_array, lower: FloatArray, upper: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Least and greatest value of each row over a box."""
    rising, falling = rows.maximum(0), rows.minimum(0)
    return rising @ lower + falling @ upper, rising @ upper + falling @ lower


def product(admittance: sparse.sparray, e: casadi.SX, f: casadi.SX) -> tuple[casadi.SX, casadi.SX]:
    """Real and imaginary part of admittance times e + jf."""
    conductance, susceptance = casadi_matrix(admittance.real), casadi_matrix(admittance.imag)
    return conductance @ e - susceptance @ f, conductance @ f + susceptance @ e


def casadi_matrix(values: sparse.sparray) -> casadi.DM:
    """The same sparse matrix in casadi's storage, which is compressed by columns, too."""
    columns = sparse.csc_array(values)
    columns.sort_indices()
    pattern = casadi.Sparsity(*columns.shape, columns.indptr.tolist(), columns.indices.tolist())
    return casadi.DM(pattern, columns.data.tolist())
