"""The same linear programme the naive way: every state a variable, every limit a row, all intervals in one model.

It is `lindistflow` written in Pyomo over the whole horizon and solved by HiGHS through Pyomo's ordinary interface,
which also makes it what the tests hold the eliminated states to.
"""

import numpy as np
import pyomo.environ as pyo

from benchmarks.peers.outcome import NotExpressible, Outcome
from dlmp import Settings
from dlmp.formulation.coefficients import LinearNetwork
from dlmp.formulation.lindistflow import declare_lindistflow, losses_around, no_losses, terms, total
from dlmp.market import MarketCase
from dlmp.network.model import FloatArray
from dlmp.products.energy import declare_energy
from dlmp.units import money_per_price_pu


def solve(case: MarketCase, settings: Settings) -> Outcome:
    """Solve the linear model of `settings`."""
    if settings.formulation != "lindistflow":
        raise NotExpressible("is a linear model of the feeder: compare it with lindistflow")
    cost, real, _ = whole_model(case, settings)
    return Outcome("solved", cost, real)


def whole_model(case: MarketCase, settings: Settings) -> tuple[float, FloatArray, FloatArray]:
    """Cost [currency], real and reactive prices (t, p) of the uneliminated model of the whole horizon.

    A demand is the right-hand side of its balance ``injection - port_p == demand``, whose dual is hence the price.
    """
    network, intervals = case.network, range(case.horizon.intervals)
    mean, law = -case.load_pu.mean(axis=0), case.law_pu
    linear = losses_around(network, mean, law) if settings.losses == "linear" else no_losses(network, law)
    model = pyo.ConcreteModel()
    declare_energy(model, case, intervals, settings.circle_sides)
    declare_lindistflow(model, network, intervals, linear)
    _declare_demand(model, case, linear)
    _declare_limits(model, case, linear, settings.circle_sides)
    model.dual = pyo.Suffix(direction=pyo.Suffix.IMPORT)
    result = pyo.SolverFactory("appsi_highs").solve(model)
    if result.solver.termination_condition != pyo.TerminationCondition.optimal:
        raise RuntimeError(f"HiGHS ended in {result.solver.termination_condition}")
    ports = range(network.port_count)
    shape = (len(intervals), network.port_count)
    real, reactive = (
        np.array([model.dual[row[t, p]] for t in intervals for p in ports]).reshape(shape)
        for row in (model.real, model.reactive)
    )
    return pyo.value(model.cost) * money_per_price_pu(case.horizon.interval_hours), real, reactive


def _along(rows, direction, p, q):
    """Real part of ``direction (rows (p + jq))``, as a function of interval and row."""
    turned = rows * direction
    by_p, by_q = terms(turned.real), terms(turned.imag)
    return lambda t, i: total(by_p[i], p, t) - total(by_q[i], q, t)


def _declare_demand(model: pyo.ConcreteModel, case: MarketCase, linear: LinearNetwork) -> None:
    """Add what resources and loads inject at the ports, and from there at the nodes, to `model`."""
    network, intervals, share = case.network, range(case.horizon.intervals), case.resources.share
    nodes, ports = range(network.node_count), range(network.port_count)
    model.port_p, model.port_q = pyo.Var(intervals, ports), pyo.Var(intervals, ports)
    at_port = terms(share.T)
    constant = np.broadcast_to(linear.law_pu, (len(intervals), network.node_count))

    def balance(power, port_power, load):
        return pyo.Constraint(
            intervals, ports, rule=lambda m, t, p: total(at_port[p], power, t) - port_power[t, p] == load[t, p]
        )

    model.real = balance(model.p, model.port_p, case.load_pu.real)
    model.reactive = balance(model.q, model.port_q, case.load_pu.imag)
    real_part, imaginary_part = (_along(linear.spread, by, model.port_p, model.port_q) for by in (1.0, -1j))
    model.at_node = pyo.Constraint(
        intervals, nodes, rule=lambda m, t, n: m.node_p[t, n] == real_part(t, n) - constant[t, n].real
    )
    model.at_node_reactive = pyo.Constraint(
        intervals, nodes, rule=lambda m, t, n: m.node_q[t, n] == imaginary_part(t, n) - constant[t, n].imag
    )
    model.drawn = pyo.Constraint(intervals, rule=lambda m, t: m.import_p[t, 0] == m.drawn_p[t, 0])
    model.drawn_reactive = pyo.Constraint(intervals, rule=lambda m, t: m.import_q[t, 0] == m.drawn_q[t, 0])


def _declare_limits(model: pyo.ConcreteModel, case: MarketCase, linear: LinearNetwork, sides: int) -> None:
    """Add every voltage band and every side of every rating's polygon to `model`."""
    network, intervals = case.network, range(case.horizon.intervals)
    held = np.flatnonzero(~network.is_source).tolist()
    model.band = pyo.Constraint(
        intervals,
        held,
        rule=lambda m, t, n: (network.v_min_pu[n] ** 2, m.squared_voltage[t, n], network.v_max_pu[n] ** 2),
    )
    model.ratings = pyo.ConstraintList()
    for rows, rating in (
        (linear.entering, network.rating_from_pu),
        (linear.sections.at_receiving(), network.rating_to_pu),
    ):
        for angle in 2 * np.pi * np.arange(sides) / sides:
            flow = _along(rows, np.exp(-1j * angle), model.flow_p, model.flow_q)
            for t in intervals:
                for b in np.flatnonzero(np.isfinite(rating)):
                    model.ratings.add(flow(t, b) <= rating[b] * np.cos(np.pi / sides))
