"""The AC oracle of `acopf.py` with limits that may be broken: slacks in tiers, each at its price, beside every limit.

It shares the records of penalties with the engine, but not how it makes their prices: excess is written in the
limits' own units, ``v <= v_max + s`` and ``|I| <= rating (1 + s)``, both squared to be smooth.
"""

from dataclasses import dataclass, field
from itertools import pairwise

import casadi
import numpy as np
from acopf import (
    AcOpf,
    Interval,
    Limit,
    StoreDispatch,
    Unknowns,
    branch_limits,
    cost_of,
    interval_result,
    ipopt,
    no_load_voltage,
    parameter_values,
    power_base,
    resource_limit,
    solved_by,
    starting_point,
    unknowns_of,
    variable_bounds,
    voltage_limit,
)

from dlmp.market import MarketCase
from dlmp.network.model import FloatArray
from dlmp.penalties import Tiers
from dlmp.units import BASE_KVA, KW_PER_MW


@dataclass
class Slacks:
    """Slack variables in the making: their room, and what they cost [currency/MWh x pu of `power_base`]."""

    variable: list[casadi.SX] = field(default_factory=list)
    room: list[FloatArray] = field(default_factory=list)
    cost: list[casadi.SX] = field(default_factory=list)

    def beside(self, count: int, tiers: Tiers, unit: float, price: FloatArray | float) -> casadi.SX:
        """(count,) Excess, of which `unit` is 1 of a tier's; `price` is what a price of 1 makes of 1 of excess."""
        total = casadi.SX.zeros(count)
        edges = [*(tier.beyond for tier in tiers), np.inf]
        for tier, (low, high) in zip(tiers, pairwise(edges), strict=True):
            part = casadi.SX.sym("slack", count)
            self.variable.append(part)
            self.room.append(np.full(count, (high - low) * unit))
            self.cost.append(casadi.dot(np.broadcast_to(tier.price * price, count).copy(), part))
            total += part
        return total


def solve_soft_acopf(case: MarketCase, *, circle_sides: int = 32) -> AcOpf:
    """Clear `case`, without stores, interval by interval; the cost holds the penalties."""
    base_kva, network = power_base(case), case.network
    unknowns, free, slacks = unknowns_of(case, base_kva), ~case.network.is_source, Slacks()
    limits = soft_limits(case, unknowns, circle_sides, base_kva, slacks)
    cost = cost_of(case, unknowns) + sum(slacks.cost)
    own = casadi.vertcat(unknowns.v[np.flatnonzero(free)].stacked(), unknowns.controls)
    x = casadi.vertcat(own, *slacks.variable)
    parameter = casadi.vertcat(
        *(part.stacked() for part in (unknowns.demand, unknowns.law, unknowns.withdrawn)), unknowns.price
    )
    injection, imported = unknowns.injection, unknowns.imported
    outcome = [unknowns.v.re, unknowns.v.im, unknowns.award, injection.re, injection.im, imported.re, imported.im, cost]
    intervals, constraints = case.horizon.intervals, casadi.densify(casadi.vertcat(*(row for row, _, _ in limits)))
    low, high = (
        np.hstack([np.broadcast_to(limit[side], (intervals, limit[0].numel())) for limit in limits]) for side in (1, 2)
    )
    model = Interval(x, parameter, constraints, cost, casadi.Function("outcome", [x, parameter], outcome), low, high)
    solver = ipopt(x=x, p=parameter, f=cost, g=constraints)
    room, solved = np.concatenate(slacks.room), []
    for t in range(intervals):
        value, bounds = parameter_values(case, t, base_kva), variable_bounds(case, t, base_kva)
        start = np.r_[starting_point(case, no_load_voltage(network), bounds), np.zeros(len(room))]
        numbers = {"lbx": np.r_[bounds[0], np.zeros(len(room))], "ubx": np.r_[bounds[1], room]}
        solution = solved_by(solver, f"interval {t}", x0=start, p=value, lbg=low[t], ubg=high[t], **numbers)
        solved.append(interval_result(case, t, model, solution["x"], value, solution["lam_p"], base_kva))
    cost_per_hour, *columns = zip(*solved, strict=True)
    nothing = StoreDispatch(*np.zeros((5, intervals, 0)))
    total = float(sum(cost_per_hour)) * case.horizon.interval_hours
    return AcOpf(total, *(np.array(column) for column in columns), stores=nothing)


def soft_limits(
    case: MarketCase, unknowns: Unknowns, circle_sides: int, base_kva: float, slacks: Slacks
) -> list[Limit]:
    """Everything that a dispatch has to respect beside the bounds of its variables."""
    network, penalties, substation = case.network, case.penalties, case.substation
    squared, least, most = voltage_limit(network, unknowns.v)
    count, per_pu = squared.numel(), KW_PER_MW / base_kva
    over, under = (slacks.beside(count, penalties.voltage, 1.0, per_pu) for _ in range(2))
    limits: list[Limit] = [
        (unknowns.balance.stacked(), 0.0, 0.0),
        (squared - (np.sqrt(most) + over) ** 2, -np.inf, 0.0),
        (squared - (np.sqrt(least) - under) ** 2, 0.0, np.inf),
        resource_limit(case, unknowns, circle_sides, base_kva),
    ]
    ratings = (network.rating_from_pu, network.rating_to_pu)
    for (loading, _, _), rating in zip(branch_limits(network, unknowns.v), ratings, strict=True):
        rated = rating[np.isfinite(rating)]
        # The current is the same at both ends of a line without shunts: one limit.
        same = network.rating_is_current[np.isfinite(rating)] & (rating is ratings[1])
        kept = np.flatnonzero(~same)
        if not len(kept):
            continue
        over = slacks.beside(len(kept), penalties.thermal, 1.0, rated[kept] * BASE_KVA / base_kva)
        limits.append((loading[kept] - (1 + over) ** 2, -np.inf, 0.0))
    for value, low, high in (
        (unknowns.imported.re, substation.p_min_kw, substation.p_max_kw),
        (unknowns.imported.im, substation.q_min_kvar, substation.q_max_kvar),
    ):
        over, under = (slacks.beside(1, penalties.substation, 1 / base_kva, 1.0) for _ in range(2))
        limits += [
            (value - over, -np.inf, high[:, None] / base_kva),
            (value + under, low[:, None] / base_kva, np.inf),
        ]
    return limits
