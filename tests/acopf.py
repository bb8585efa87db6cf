"""An AC optimal power flow oracle: a market case cleared by a general nonlinear solver, to check the engine with.

Each interval is one nonlinear programme in rectangular voltages, solved by IPOPT with exact derivatives; where
stores carry energy from one interval to the next, or ramps limit the change of power, all intervals are one programme.
It shares only records with the engine (`MarketCase`, `Network`, its admittances and the incidence of its ports).

Every node without a source has a balance of currents, ``Y V + H^T I(H V) = 0`` with ``H`` the ports' incidence.
Demand ``S`` at a port takes ``I = conj(S / v)``, a load that follows its voltage ``conj(S0) (|v| / base)^e / conj(v)``.
Prices are derivatives of the Lagrangian: by a current ``w`` taken out of each node, which is a parameter of the
programme, and from there by demand at the ports, with ``w = H^T conj(S / v)``.
"""

from dataclasses import dataclass

import casadi
import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse import csgraph
from scipy.sparse.linalg import spsolve

from dlmp.market import MarketCase
from dlmp.network.model import PHASES, ComplexArray, FloatArray, IntArray, Network, UnbalancedNetwork
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

BAND_TOLERANCE = 1e-6
"""A load this far outside the band of its law still follows it [of its base voltage]."""

BALANCED_PU = (1.0, 1e4)
"""Admittances with which currents can be balanced to the tolerance in double precision [pu]."""

NEGLIGIBLE = 1e-6
"""An admittance smaller than this, relative, is a shunt of a line or a winding."""

Limit = tuple[casadi.SX, FloatArray | float, FloatArray | float]
"""An expression, its lower bound and its upper bound."""


@dataclass(frozen=True, eq=False)
class StoreDispatch:
    """What k stores do, each (t, k).

    Parameters
    ----------
    charge_kw, discharge_kw
        Power from and into the grid [kW].
    energy_kwh
        Energy at the end of each interval [kWh].
    shortfall_kwh
        What it lacks of the least energy [kWh].
    value_usd_per_mwh
        What one more MWh in the store at the end of the interval would save [currency/MWh].
    """

    charge_kw: FloatArray
    discharge_kw: FloatArray
    energy_kwh: FloatArray
    shortfall_kwh: FloatArray
    value_usd_per_mwh: FloatArray


@dataclass(frozen=True, eq=False)
class AcOpf:
    """The least-cost dispatch of t intervals under the exact power flow, and its prices.

    Parameters
    ----------
    cost
        Import, accepted supply and reactive import less the value of accepted demand, and what the stores cost,
        over the horizon [currency].
    price_p, price_q
        (t, ports) Cost of one more unit of constant-power demand at each port [currency/MWh], [currency/MVArh];
        NaN at a port without voltage.
    p_kw, q_kvar
        (t, r) Injection of each resource [kW], [kvar].
    award_kw
        (t, s) Accepted part of each bid segment [kW].
    v
        (t, n) Voltage [pu].
    import_p_kw, import_q_kvar
        (t,) Power drawn from the upstream grid [kW], [kvar].
    stores
        What the stores do.
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
    stores: StoreDispatch


def solve_acopf(case: MarketCase, *, circle_sides: int = 32, start: ComplexArray | None = None) -> AcOpf:
    """Clear `case` under the exact power flow: interval by interval, or all together with stores or ramps.

    Parameters
    ----------
    case
        The case, on a balanced or an unbalanced network.
    circle_sides
        Sides of the regular polygon inscribed in the apparent power circle of each resource.
    start
        (t, n) Voltage to start from [pu]; default: the voltage without loads.

    Raises
    ------
    RuntimeError
        Where IPOPT does not end in ``Solve_Succeeded``, and where a load ends outside the band of its law.
    """
    network, intervals, base_kva = case.network, case.horizon.intervals, power_base(case)
    start = np.tile(no_load_voltage(network), (intervals, 1)) if start is None else start
    model = interval_of(case, circle_sides, base_kva)
    if len(case.stores) or has_ramps(case):
        return solve_horizon(case, model, start, base_kva)
    solver = ipopt(x=model.x, p=model.parameter, f=model.cost, g=model.constraints)
    solved = [solve_interval(case, t, model, solver, start[t], base_kva) for t in range(intervals)]
    cost_per_hour, *columns = zip(*solved, strict=True)
    nothing = StoreDispatch(*np.zeros((5, intervals, 0)))
    cost = float(sum(cost_per_hour)) * case.horizon.interval_hours
    return AcOpf(cost, *(np.array(column) for column in columns), stores=nothing)


@dataclass(frozen=True, eq=False)
class Phasor:
    """A vector of complex expressions, which casadi has in real and imaginary parts only."""

    re: casadi.SX
    im: casadi.SX

    @classmethod
    def symbol(cls, name: str, count: int) -> "Phasor":
        return cls(casadi.SX.sym(f"{name}_re", count), casadi.SX.sym(f"{name}_im", count))

    def __getitem__(self, index: IntArray) -> "Phasor":
        return Phasor(self.re[index], self.im[index])

    def __add__(self, other: "Phasor") -> "Phasor":
        return Phasor(self.re + other.re, self.im + other.im)

    def __sub__(self, other: "Phasor") -> "Phasor":
        return Phasor(self.re - other.re, self.im - other.im)

    def __mul__(self, other: "Phasor") -> "Phasor":
        return Phasor(self.re * other.re - self.im * other.im, self.re * other.im + self.im * other.re)

    def times(self, factor: casadi.SX) -> "Phasor":
        """The same angles, magnitudes times the real `factor`."""
        return Phasor(self.re * factor, self.im * factor)

    def conj(self) -> "Phasor":
        return Phasor(self.re, -self.im)

    def square(self) -> casadi.SX:
        """Squared magnitudes."""
        return self.re**2 + self.im**2

    def stacked(self) -> casadi.SX:
        """Real, then imaginary parts."""
        return casadi.vertcat(self.re, self.im)


@dataclass(frozen=True, eq=False)
class Unknowns:
    """Variables and parameters of one interval and what follows from them, as casadi expressions.

    Voltages are in pu, powers over `power_base`, currents over `power_base` at 1 pu of voltage.

    Parameters
    ----------
    v
        (n,) Voltage, constant at source nodes.
    award, charge, discharge, q, q_award, injection
        (s,), (k,), (k,), (r,), (u,) and (r,) Accepted bids; power of each store from and into the grid; reactive
        injection that is free; accepted reactive bids; complex injection of each resource.
    demand, law, withdrawn, price
        (p,), (l,), (n,) and (2 + 2s + 2u,) Parameters: constant-power demand, nominal demand of the loads that follow
        their voltage, current taken out of each node; prices of import, reactive import, bids and reactive bids, and
        slopes of these.
    balance
        (f,) Currents of `balances` into the network, the loads and resources, and out of the node.
    imported
        (1,) Power drawn from the upstream grid.
    """

    v: Phasor
    award: casadi.SX
    charge: casadi.SX
    discharge: casadi.SX
    q: casadi.SX
    q_award: casadi.SX
    injection: Phasor
    demand: Phasor
    law: Phasor
    withdrawn: Phasor
    price: casadi.SX
    balance: Phasor
    imported: Phasor

    @property
    def controls(self) -> casadi.SX:
        """Everything that is dispatched, in the order of `control_bounds`."""
        return casadi.vertcat(self.award, self.charge, self.discharge, self.q, self.q_award)


def unknowns_of(case: MarketCase, base_kva: float) -> Unknowns:
    """Write the power flow, with the source voltages held."""
    network, resources, law = case.network, case.resources, case.network.law
    v, award, q = free_voltage(network), casadi.SX.sym("award", len(case.bids)), casadi.SX.sym("q", len(resources))
    charge, discharge = (casadi.SX.sym(name, len(case.stores)) for name in ("charge", "discharge"))
    demand, withdrawn = Phasor.symbol("demand", network.port_count), Phasor.symbol("withdrawn", network.node_count)
    nominal = Phasor.symbol("law", len(law))
    q_award = casadi.SX.sym("q_award", len(case.reactive_bids))
    injection = Phasor(
        casadi_matrix(net_injection(case)) @ casadi.vertcat(award, charge, discharge),
        casadi_matrix(reactive_injection(case)) @ casadi.vertcat(q, q_award),
    )
    balance, imported = network_currents(case, base_kva, v, injection, demand, nominal, withdrawn)
    return Unknowns(
        *(v, award, charge, discharge, q, q_award, injection, demand, nominal, withdrawn),
        price=casadi.SX.sym("price", price_count(case)),
        balance=balance,
        imported=imported,
    )


def network_currents(
    case: MarketCase,
    base_kva: float,
    v: Phasor,
    injection: Phasor,
    demand: Phasor,
    nominal: Phasor,
    withdrawn: Phasor,
) -> tuple[Phasor, Phasor]:
    """`Unknowns.balance` and `Unknowns.imported`.

    Ports at which nothing stands are left out: a neutral may have no voltage to divide a power by.
    """
    network, resources, law = case.network, case.resources, case.network.law
    net = demand - product(resources.share.T, injection)
    across = product(network.incidence, v)
    used = np.flatnonzero((case.load_pu != 0).any(axis=0) | (abs(resources.share).sum(axis=0) > 0))
    of_power = current_of(net[used], across[used], np.zeros(len(used)), np.ones(len(used)))
    of_law = current_of(nominal, across[law.port], law.exponent, law.base_pu)

    def current(rows: sparse.csr_array) -> Phasor:
        """Sums of nodal currents; the matrices are summed, so that what cancels there is not computed."""
        at_ports = sparse.csc_array(rows @ network.incidence.T)
        return (
            product(rows @ network.admittance * (BASE_KVA / base_kva), v)
            + product(at_ports[:, used], of_power)
            + product(at_ports[:, law.port], of_law)
            + product(rows, withdrawn)
        )

    every = sparse.eye_array(network.node_count, format="csr")
    drawn = v[network.source] * current(every[network.source]).conj()
    return current(balances(network)), Phasor(casadi.sum1(drawn.re), casadi.sum1(drawn.im))


def free_voltage(network: Network) -> Phasor:
    """(n,) Voltages, those of the sources as numbers."""
    v = Phasor.symbol("v", network.node_count)
    v.re[network.source], v.im[network.source] = network.source_v_pu.real, network.source_v_pu.imag
    return v


def current_of(power: Phasor, v: Phasor, exponent: FloatArray, base_pu: FloatArray) -> Phasor:
    """``conj(S) (|v| / base)^e / conj(v)``, the current of a load; without division where the exponent is 2."""
    return (power.conj() * v).times(v.square() ** (exponent / 2 - 1) / base_pu**exponent)


def cost_of(case: MarketCase, unknowns: Unknowns) -> casadi.SX:
    """Import, reactive import and accepted bids at their prices, and cycling of stores [currency/MWh x pu].

    Where a price runs from one to another along a segment, it costs the area below it.
    """
    accepted = casadi.vertcat(signs(case) * unknowns.award, reactive_signs(case) * unknowns.q_award)
    quantity = casadi.vertcat(unknowns.imported.stacked(), accepted)
    price, slope = unknowns.price[: quantity.numel()], unknowns.price[quantity.numel() :]
    curved = casadi.dot(slope, casadi.vertcat(unknowns.award, unknowns.q_award) ** 2) / 2
    return casadi.dot(price, quantity) + curved + casadi.dot(case.stores.cycling_usd_per_mwh, unknowns.discharge)


def limits_of(case: MarketCase, unknowns: Unknowns, circle_sides: int, base_kva: float) -> list[Limit]:
    """Everything that a dispatch has to respect beside the bounds of its variables."""
    network = case.network
    return [
        (unknowns.balance.stacked(), 0.0, 0.0),
        voltage_limit(network, unknowns.v),
        *branch_limits(network, unknowns.v),
        *unbalance_limits(network, unknowns.v),
        *import_limits(case, unknowns, base_kva),
        resource_limit(case, unknowns, circle_sides, base_kva),
    ]


def balances(network: Network) -> sparse.csr_array:
    """(f, n) Sums of nodal currents that must vanish, from which the balance of each free node follows.

    Where next to nothing but the currents between some nodes enters their balances, as across a switch or behind a
    delta winding, these depend on each other to almost all digits.  Then one balance is that of the nodes together,
    in which the currents between them cancel.  Each is scaled to admittances of `BALANCED_PU`.
    """
    rows = sparse.eye_array(network.node_count, format="lil")
    for nodes in (*tied_nodes(network), *floating_islands(network)):
        rows[nodes[0], nodes] = 1.0
    rows = sparse.csr_array(rows)[np.flatnonzero(~network.is_source)]
    size = abs(rows @ network.admittance).max(axis=1).toarray().ravel()
    return sparse.csr_array(sparse.diags_array(np.clip(size, *BALANCED_PU) / size) @ rows)


def tied_nodes(network: Network) -> list[IntArray]:
    """Free nodes that a conductor of great admittance, and without a tap, makes one."""
    across = abs(network.from_admittance).max(axis=1).toarray().ravel()
    passing = abs(network.from_admittance + network.to_admittance).max(axis=1).toarray().ravel()
    tied = (across > BALANCED_PU[1]) & (passing < NEGLIGIBLE * across)
    return joined(np.column_stack([network.from_node, network.to_node])[tied], ~network.is_source)


def floating_islands(network: Network) -> list[IntArray]:
    """Floating nodes that share their voltage to ground.

    Those of a bus do, and the ends of a conductor that takes current when its from bus is lifted as a whole:
    a line does, a delta winding does not.
    """
    _, first, bus = np.unique(network.bus, return_index=True, return_inverse=True)
    rows = network.from_admittance.tocoo()
    lifted = bus[rows.col] == bus[network.from_node[rows.row]]
    taken = sparse.coo_array((rows.data * lifted, (rows.row, rows.col)), rows.shape).sum(axis=1)
    galvanic = np.abs(taken) > NEGLIGIBLE * abs(rows).max(axis=1).toarray().ravel()
    along = np.column_stack([network.from_node, network.to_node])[galvanic]
    within = np.column_stack([first[bus], np.arange(network.node_count)])
    return joined(np.vstack([along, within]), network.is_floating)


def joined(link: IntArray, among: npt.NDArray[np.bool_]) -> list[IntArray]:
    """Nodes that are connected by links (k, 2) between the nodes `among`, where there are several."""
    ends = tuple(link[among[link].all(axis=1)].T)
    graph = sparse.coo_array((np.ones(len(ends[0])), ends), (len(among), len(among)))
    _, number = csgraph.connected_components(graph, directed=False)
    groups = np.split(np.argsort(number, kind="stable"), np.cumsum(np.bincount(number))[:-1])
    return [nodes for nodes in groups if len(nodes) > 1]


def voltage_limit(network: Network, v: Phasor) -> Limit:
    """Squared magnitude of every phase to ground, and phase to phase, over sqrt(3), where the nodes float."""
    pairs = np.flatnonzero(network.is_priced[network.node_count :])
    node = np.flatnonzero(network.is_priced[: network.node_count] & ~network.is_source)
    first, second = network.pair[pairs].T
    magnitude = casadi.vertcat(v[node].square(), (v[first] - v[second]).square() / 3)
    place = np.r_[node, first]
    return magnitude, network.v_min_pu[place] ** 2, network.v_max_pu[place] ** 2


def branch_limits(network: Network, v: Phasor) -> list[Limit]:
    """Current or apparent power of every rated conductor at both ends, squared and over the rating."""
    limits: list[Limit] = []
    for admittance, node, rating in (
        (network.from_admittance, network.from_node, network.rating_from_pu),
        (network.to_admittance, network.to_node, network.rating_to_pu),
    ):
        rated = np.flatnonzero(np.isfinite(rating))
        current = product(sparse.diags_array(1 / rating[rated]) @ admittance[rated], v)
        by_power = np.where(network.rating_is_current[rated], 0.0, 1.0)
        limits.append((current.square() * (1 + by_power * (v[node[rated]].square() - 1)), -np.inf, 1.0))
    return limits


def unbalance_limits(network: Network, v: Phasor) -> list[Limit]:
    """``|V2|^2 / u^2 <= |V1|^2`` at every bus with three phases that is no source."""
    if not isinstance(network, UnbalancedNetwork) or not np.isfinite(network.v_unbalance_max):
        return []
    place = {key: node for node, key in enumerate(zip(network.bus.tolist(), network.phase.tolist(), strict=True))}
    whole = [bus for bus in network.buses.tolist() if all((bus, phase) in place for phase in PHASES)]
    node = np.array([[place[bus, phase] for phase in PHASES] for bus in whole], dtype=np.int64).reshape(-1, 3)
    node = node[~network.is_source[node].any(axis=1)]
    turn, count = np.exp(2j * np.pi / 3), len(node)
    positive, negative = (
        sparse.csr_array(
            (np.tile([1 / 3, angle / 3, angle**2 / 3], count), node.ravel(), 3 * np.arange(count + 1)),
            shape=(count, network.node_count),
        )
        for angle in (turn, np.conj(turn))
    )
    excess = product(negative / network.v_unbalance_max, v).square() - product(positive, v).square()
    return [(excess, -np.inf, 0.0)]


def import_limits(case: MarketCase, unknowns: Unknowns, base_kva: float) -> list[Limit]:
    """Ranges of the total real and reactive import."""
    imported, substation = unknowns.imported, case.substation
    return [
        (imported.re, substation.p_min_kw[:, None] / base_kva, substation.p_max_kw[:, None] / base_kva),
        (imported.im, substation.q_min_kvar[:, None] / base_kva, substation.q_max_kvar[:, None] / base_kva),
    ]


def resource_limit(case: MarketCase, unknowns: Unknowns, circle_sides: int, base_kva: float) -> Limit:
    """Ranges of each injection, the polygon inside each apparent power circle, and least power factors.

    Bounds that those of bids and stores imply are left out: with them the programme has no interior.
    """
    resources, count = case.resources, len(case.resources)
    angle = 2 * np.pi * np.arange(circle_sides) / circle_sides
    rated = summing(np.flatnonzero(np.isfinite(resources.s_max_kva)), count).T
    of_p, of_q = sparse.kron(rated, np.cos(angle)[:, None]), sparse.kron(rated, np.sin(angle)[:, None])
    injection, reactive = net_injection(case), reactive_injection(case)
    blocks = [[injection, None], [None, reactive], [of_p @ injection, of_q @ reactive], *power_factor_rows(case)]
    rows = sparse.block_array(blocks, format="csr")
    within = np.repeat(rated @ np.where(np.isfinite(resources.s_max_kva), resources.s_max_kva, 0.0), circle_sides)
    low, high = np.full((2, case.horizon.intervals, rows.shape[0]), [[[-np.inf]], [[np.inf]]])
    for t in range(case.horizon.intervals):
        least, most = reach(rows, *control_bounds(case, t))
        bound = np.r_[resources.p_min_kw, resources.q_min_kvar]
        low[t, : 2 * count] = np.where(least[: 2 * count] >= bound - ROUNDING_KW, -np.inf, bound)
        bound = np.zeros(rows.shape[0])
        bound[: 2 * count] = np.r_[resources.p_max_kw[t], resources.q_max_kvar]
        bound[2 * count : 2 * count + len(within)] = within * np.cos(np.pi / circle_sides)
        high[t] = np.where(most <= bound + ROUNDING_KW, np.inf, bound)
    return casadi_matrix(rows) @ unknowns.controls, low / base_kva, high / base_kva


def power_factor_rows(case: MarketCase) -> list[list[sparse.csr_array]]:
    """Rows ``q - tan(phi) |p|`` and ``-q - tan(phi) |p|`` that must not be positive; |p| is p or -p at all times."""
    resources = case.resources
    limited = np.flatnonzero(resources.power_factor_min > 0)
    tangent = np.tan(np.arccos(resources.power_factor_min[limited]))
    tangent = np.where((resources.p_max_kw[:, limited] <= 0).all(axis=0), -tangent, tangent)
    real = sparse.diags_array(-tangent) @ net_injection(case)[limited]
    reactive = reactive_injection(case)[limited]
    return [[real, reactive], [real, -reactive]]


def control_bounds(case: MarketCase, t: int) -> tuple[FloatArray, FloatArray]:
    """Bounds of (awards, charge, discharge, free reactive injections, reactive awards) [kW, kvar].

    Those of awards are tightened by the real range of each resource.  One without availability thus has awards
    fixed at zero, not free ones that must sum to zero.
    """
    resources, owner, sign, quantity = case.resources, case.bids.resource, signs(case), case.bids.quantity_kw[t]
    of_stores = np.r_[case.stores.charge_max_kw[t], case.stores.discharge_max_kw[t]]
    largest = np.r_[quantity, of_stores]
    least, most = reach(net_injection(case), np.zeros(len(largest)), largest)
    room_up = np.maximum(resources.p_max_kw[t] - least, 0.0)[owner]
    room_down = np.maximum(most - resources.p_min_kw, 0.0)[owner]
    upper = np.minimum(quantity, np.where(sign > 0, room_up, room_down))
    lower = np.maximum(quantity - np.where(sign > 0, room_down, room_up), case.bids.is_self_scheduled[t] * quantity)
    lower = np.r_[np.minimum(lower, upper), np.zeros(len(of_stores))]
    reactive = case.reactive_bids
    is_free, none = ~np.isin(np.arange(len(resources)), reactive.resource), np.zeros(len(reactive))
    return (
        np.r_[lower, is_free * resources.q_min_kvar, none],
        np.r_[upper, of_stores, is_free * resources.q_max_kvar, reactive.quantity_kvar[t]],
    )


@dataclass(frozen=True, eq=False)
class Interval:
    """The nonlinear programme of an interval, as casadi expressions: intervals differ in numbers only.

    Parameters
    ----------
    x
        Variables: real and imaginary voltages of the free nodes, then `Unknowns.controls`.
    parameter
        Demands, currents taken out of the nodes, and prices: the `parameter_values` of an interval.
    constraints, cost
        Limits (k,), and cost [currency/MWh x pu].
    outcome
        Variables and parameters to voltages, injections, awards, import and cost.
    low, high
        (t, k) Bounds of the limits.
    """

    x: casadi.SX
    parameter: casadi.SX
    constraints: casadi.SX
    cost: casadi.SX
    outcome: casadi.Function
    low: FloatArray
    high: FloatArray


def interval_of(case: MarketCase, circle_sides: int, base_kva: float) -> Interval:
    """Write the programme of an interval of `case`."""
    unknowns, free = unknowns_of(case, base_kva), np.flatnonzero(~case.network.is_source)
    limits, cost = limits_of(case, unknowns, circle_sides, base_kva), cost_of(case, unknowns)
    x = casadi.vertcat(unknowns.v[free].stacked(), unknowns.controls)
    parameter = casadi.vertcat(
        *(part.stacked() for part in (unknowns.demand, unknowns.law, unknowns.withdrawn)), unknowns.price
    )
    constraints = casadi.densify(casadi.vertcat(*(row for row, _, _ in limits)))
    injection, imported = unknowns.injection, unknowns.imported
    outcome = [unknowns.v.re, unknowns.v.im, unknowns.award, injection.re, injection.im, imported.re, imported.im, cost]
    low, high = (
        np.hstack([np.broadcast_to(limit[side], (case.horizon.intervals, limit[0].numel())) for limit in limits])
        for side in (1, 2)
    )
    return Interval(
        x, parameter, constraints, cost, casadi.Function("outcome", [x, parameter], outcome), low=low, high=high
    )


def ipopt(**programme: casadi.SX) -> casadi.Function:
    """IPOPT on variables `x` and parameters `p`, with cost `f` and constraints `g`."""
    options = {"print_time": False, **{f"ipopt.{name}": option for name, option in IPOPT_OPTIONS.items()}}
    return casadi.nlpsol("acopf", "ipopt", programme, options)


def solved_by(solver: casadi.Function, of_what: str, **numbers: FloatArray) -> dict[str, FloatArray]:
    """Solution of the programme with these `numbers`."""
    solution = solver(**numbers)
    status = solver.stats()["return_status"]
    if status != "Solve_Succeeded":
        raise RuntimeError(f"{of_what}: IPOPT ended in {status}")
    return {name: np.array(value).ravel() for name, value in solution.items()}


def parameter_values(case: MarketCase, t: int, base_kva: float) -> FloatArray:
    """Numbers of `Interval.parameter` in interval `t`."""
    per_pu, none = BASE_KVA / base_kva, np.zeros(case.network.node_count)
    demand, law = case.load_pu[t] * per_pu, case.law_pu[t] * per_pu
    import_price = [case.substation.price_usd_per_mwh[t], case.substation.q_price_usd_per_mvarh[t]]
    prices = np.r_[import_price, case.bids.price_usd_per_mwh[t], case.reactive_bids.price_usd_per_mvarh[t]]
    prices = np.r_[prices, price_slopes(case, t, base_kva)]
    return np.concatenate([demand.real, demand.imag, law.real, law.imag, none, none, prices])


def variable_bounds(case: MarketCase, t: int, base_kva: float) -> tuple[FloatArray, FloatArray]:
    """Bounds of `Interval.x` in interval `t`."""
    lower, upper = control_bounds(case, t)
    anywhere = np.full(2 * int((~case.network.is_source).sum()), np.inf)
    return np.r_[-anywhere, lower / base_kva], np.r_[anywhere, upper / base_kva]


def starting_point(case: MarketCase, v: ComplexArray, bounds: tuple[FloatArray, FloatArray]) -> FloatArray:
    """`Interval.x` at voltage `v` (n,), everything dispatched as near to zero as its `bounds` allow."""
    free = v[~case.network.is_source]
    return np.clip(np.r_[free.real, free.imag, np.zeros(len(bounds[0]) - 2 * len(free))], *bounds)


def solve_interval(
    case: MarketCase, t: int, model: Interval, solver: casadi.Function, start: ComplexArray, base_kva: float
) -> tuple[float | ComplexArray | FloatArray, ...]:
    """Clear interval `t` alone: the fields of `AcOpf` without their first axis, cost per hour."""
    value, bounds = parameter_values(case, t, base_kva), variable_bounds(case, t, base_kva)
    start = starting_point(case, start, bounds)
    solution = solved_by(
        *(solver, f"interval {t}"),
        **{"x0": start, "p": value, "lbx": bounds[0], "ubx": bounds[1], "lbg": model.low[t], "ubg": model.high[t]},
    )
    return interval_result(case, t, model, solution["x"], value, solution["lam_p"], base_kva)


def interval_result(
    case: MarketCase,
    t: int,
    model: Interval,
    x: FloatArray,
    value: FloatArray,
    multiplier: FloatArray,
    base_kva: float,
) -> tuple[float | ComplexArray | FloatArray, ...]:
    """The fields of `AcOpf` in interval `t`, cost per hour, from `x` and the `multiplier` of the parameters."""
    network, nodes = case.network, case.network.node_count
    e, f, award, p, q, import_p, import_q, cost = (np.array(part).ravel() for part in model.outcome(x, value))
    v = e + 1j * f
    check_laws(case, t, v)
    current_price = -multiplier[len(value) - price_count(case) - 2 * nodes :]
    price = port_price(network, v, current_price[:nodes] + 1j * current_price[nodes : 2 * nodes])
    dispatch = (kw * base_kva for kw in (p, q, award))
    imported = (kw.item() * base_kva for kw in (import_p, import_q))
    return cost.item() * base_kva / KW_PER_MW, price.real, price.imag, *dispatch, v, *imported


def solve_horizon(case: MarketCase, model: Interval, start: ComplexArray, base_kva: float) -> AcOpf:
    """Clear all intervals together, with the energy of the stores carried from each to the next."""
    intervals, hours, count = case.horizon.intervals, case.horizon.interval_hours, len(case.stores)
    of_interval = casadi.Function("interval", [model.x, model.parameter], [model.constraints, model.cost])
    x, parameter = (
        casadi.SX.sym(name, part.numel(), intervals) for name, part in (("x", model.x), ("p", model.parameter))
    )
    constraints, costs = zip(*(of_interval(x[:, t], parameter[:, t]) for t in range(intervals)), strict=True)
    energy, shortfall = (casadi.SX.sym(name, count, intervals) for name in ("energy", "shortfall"))
    first = 2 * int((~case.network.is_source).sum()) + len(case.bids)
    charge, discharge = x[first : first + count, :], x[first + count : first + 2 * count, :]
    gain = energy_gain(case, energy, charge, discharge, base_kva)
    powers = x[first - len(case.bids) : first + 2 * count, :]
    ramp, slowest, fastest = ramp_limit(case, casadi_matrix(net_injection(case)) @ powers, base_kva)
    is_soft = np.isfinite(case.stores.shortfall_usd_per_mwh)
    least = case.stores.energy_min_kwh / base_kva
    cost = hours * sum(costs) + energy_cost(case, energy, shortfall)
    solver = ipopt(
        x=casadi.vertcat(*(casadi.vec(part) for part in (x, energy, shortfall))),
        p=casadi.vec(parameter),
        f=cost,
        g=casadi.vertcat(*constraints, casadi.vec(gain), casadi.vec(energy + shortfall), ramp),
    )
    value = np.array([parameter_values(case, t, base_kva) for t in range(intervals)])
    bounds = [variable_bounds(case, t, base_kva) for t in range(intervals)]
    begin = [starting_point(case, start[t], bounds[t]) for t in range(intervals)]
    full, none = case.stores.energy_max_kwh / base_kva, np.zeros((intervals, count))
    lower, upper = (np.concatenate(side) for side in zip(*bounds, strict=True))
    solution = solved_by(
        *(solver, "horizon"),
        x0=np.r_[np.concatenate(begin), np.tile(case.stores.initial_kwh / base_kva, intervals), none.ravel()],
        p=value.ravel(),
        lbx=np.r_[lower, np.where(is_soft, 0.0, least).ravel(), none.ravel()],
        ubx=np.r_[upper, full.ravel(), np.where(is_soft, least, 0.0).ravel()],
        lbg=np.r_[model.low.ravel(), none.ravel(), np.where(is_soft & (least > 0), least, -np.inf).ravel(), slowest],
        ubg=np.r_[model.high.ravel(), none.ravel(), np.full(none.size, np.inf), fastest],
    )
    by_interval = solution["x"][: x.numel()].reshape(intervals, -1)
    stored, short = solution["x"][x.numel() :].reshape(2, intervals, count) * base_kva
    price = solution["lam_p"].reshape(intervals, -1) / hours
    solved = [interval_result(case, t, model, by_interval[t], value[t], price[t], base_kva) for t in range(intervals)]
    _, *columns = zip(*solved, strict=True)
    charged, discharged = by_interval[:, first : first + count], by_interval[:, first + count : first + 2 * count]
    worth = solution["lam_g"][model.low.size : model.low.size + none.size].reshape(intervals, count)
    stores = StoreDispatch(charged * base_kva, discharged * base_kva, stored, short, worth)
    cost = solution["f"].item() * base_kva / KW_PER_MW
    return AcOpf(cost, *(np.array(column) for column in columns), stores=stores)


def has_ramps(case: MarketCase) -> bool:
    """True where some resource has a ramp limit."""
    return bool(np.isfinite([case.resources.ramp_up_kw_per_min, case.resources.ramp_down_kw_per_min]).any())


def ramp_limit(case: MarketCase, injection: casadi.SX, base_kva: float) -> Limit:
    """Change of the real injections (r, t) since the interval before, where it is limited."""
    resources, minutes = case.resources, case.horizon.interval_minutes
    initial = np.nan_to_num(resources.p_initial_kw) / base_kva
    change = casadi.vec(injection - casadi.horzcat(casadi.DM(initial), injection[:, :-1]))
    up, down = (
        np.tile(ramp * minutes / base_kva, (case.horizon.intervals, 1))
        for ramp in (resources.ramp_up_kw_per_min, resources.ramp_down_kw_per_min)
    )
    is_free = np.isnan(resources.p_initial_kw)
    up[0, is_free], down[0, is_free] = np.inf, np.inf
    limited = np.flatnonzero(np.isfinite(up) | np.isfinite(down))
    return change[limited], -down.ravel()[limited], up.ravel()[limited]


def energy_gain(
    case: MarketCase, energy: casadi.SX, charge: casadi.SX, discharge: casadi.SX, base_kva: float
) -> casadi.SX:
    """(k, t) Energy at the end of each interval beyond what is carried on, charged, discharged and drained: zero."""
    stores, hours = case.stores, case.horizon.interval_hours
    before = casadi.horzcat(casadi.DM(stores.initial_kwh / base_kva), energy[:, :-1])
    flow = (
        casadi.diag(stores.charge_efficiency) @ charge
        - casadi.diag(1 / stores.discharge_efficiency) @ discharge
        - casadi.DM(stores.drain_kw.T / base_kva)
    )
    return energy - casadi.diag(stores.retention**hours) @ before - hours * flow


def energy_cost(case: MarketCase, energy: casadi.SX, shortfall: casadi.SX) -> casadi.SX:
    """Shortfall at its price less the worth of the energy left [currency/MWh x pu x hours]."""
    stores = case.stores
    price = np.where(np.isfinite(stores.shortfall_usd_per_mwh), stores.shortfall_usd_per_mwh, 0.0)
    return casadi.dot(price, casadi.sum2(shortfall)) - casadi.dot(stores.final_usd_per_mwh, energy[:, -1])


def port_price(network: Network, v: ComplexArray, current_price: ComplexArray) -> ComplexArray:
    """(p,) Price of real plus j times that of reactive demand at every port.

    Demand ``S`` takes the current ``conj(S / v)``, of which ``current_price`` (n,) holds the price of the real and
    of the imaginary part: the cost rises by ``Re(conj(price) S)`` with ``price = conj(current_price / v)``.
    """
    across = network.incidence @ v
    nan = np.full(len(across), np.nan, complex)
    return np.conj(np.divide(network.incidence @ current_price, across, out=nan, where=across != 0))


def check_laws(case: MarketCase, t: int, v: ComplexArray) -> None:
    """Refuse a load outside the band in which its consumption is the power of its voltage.

    One that consumes nothing, or that is an impedance throughout, follows its law everywhere.
    """
    network, law = case.network, case.network.law
    u = np.abs(network.incidence @ v)[law.port] / law.base_pu
    outside = (u < law.u_min - BAND_TOLERANCE) | (u > law.u_max + BAND_TOLERANCE)
    is_impedance = (law.exponent == 2) & (law.outer == 2)
    refused = [
        f"{network.port_bus[port]}.{network.port_phase[port]} at {u[index]:.6f}, band {low:g} to {high:g}"
        for index, (port, low, high) in enumerate(zip(law.port, law.u_min, law.u_max, strict=True))
        if outside[index] and case.law_pu[t, index] != 0 and not is_impedance[index]
    ]
    if refused:
        raise RuntimeError(f"interval {t}: loads are outside the bands of their laws: {'; '.join(refused)}")


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


def reactive_signs(case: MarketCase) -> FloatArray:
    """(u,) 1 for an offer to inject, -1 for one to absorb."""
    return np.where(case.reactive_bids.is_injection, 1.0, -1.0)


def price_count(case: MarketCase) -> int:
    """Prices of an interval: of import, reactive import, bids and reactive bids; and the slopes of these."""
    return 2 + 2 * len(case.bids) + 2 * len(case.reactive_bids)


def price_slopes(case: MarketCase, t: int, base_kva: float) -> FloatArray:
    """(s + u,) Rise of the cost of each segment with what is accepted, in programme units [currency/MWh]."""
    bids, reactive = case.bids, case.reactive_bids
    rise = np.r_[
        signs(case) * bids.price_rise_usd_per_mwh[t], reactive_signs(case) * reactive.price_rise_usd_per_mvarh[t]
    ]
    quantity = np.r_[bids.quantity_kw[t], reactive.quantity_kvar[t]] / base_kva
    return np.divide(rise, quantity, out=np.zeros_like(rise), where=quantity > 0)


def reactive_injection(case: MarketCase) -> sparse.csr_array:
    """(r, r + u) Free reactive injections and reactive awards to reactive injections."""
    count, bids = len(case.resources), case.reactive_bids
    owner = np.r_[np.arange(count), bids.resource]
    return sparse.csr_array(summing(owner, count) @ sparse.diags_array(np.r_[np.ones(count), reactive_signs(case)]))


def net_injection(case: MarketCase) -> sparse.csr_array:
    """(r, s + 2k) Awards, charge and discharge to net injections."""
    into, count = np.ones(len(case.stores)), len(case.resources)
    owner = np.r_[case.bids.resource, case.stores.resource, case.stores.resource]
    return sparse.csr_array(summing(owner, count) @ sparse.diags_array(np.r_[signs(case), -into, into]))


def summing(row: IntArray, rows: int) -> sparse.csr_array:
    """(rows, k) Sums the k columns into the rows that they belong to."""
    return sparse.csr_array((np.ones(len(row)), (row, np.arange(len(row)))), shape=(rows, len(row)))


def reach(rows: sparse.csr_array, lower: FloatArray, upper: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Least and greatest value of each row over a box."""
    rising, falling = rows.maximum(0), rows.minimum(0)
    return rising @ lower + falling @ upper, rising @ upper + falling @ lower


def product(matrix: sparse.sparray, x: Phasor) -> Phasor:
    """A complex or real matrix times complex expressions."""
    re, im = casadi_matrix(matrix.real), casadi_matrix(matrix.imag)
    return Phasor(re @ x.re - im @ x.im, re @ x.im + im @ x.re)


def casadi_matrix(values: sparse.sparray) -> casadi.DM:
    """The same sparse matrix in casadi's storage, which is compressed by columns, too."""
    columns = sparse.csc_array(values, copy=True)
    columns.eliminate_zeros()
    columns.sort_indices()
    pattern = casadi.Sparsity(*columns.shape, columns.indptr.tolist(), columns.indices.tolist())
    return casadi.DM(pattern, columns.data.tolist())
