"""The AC oracle of `acopf.py` with services: all intervals and all called states in one nonlinear programme.

Beside the state as scheduled every interval has one for each service that is offered there, in which all of its awards
are called at once, and others where they are asked for: a power flow of its own that keeps all limits of the network,
at the injections as scheduled plus or minus what is reserved.
What each resource must keep for itself is written for every call that it can get, of none,
one or both directions of real and of reactive power.
A call may run on into later intervals: there all of that is written for each award, of the interval or an earlier one,
whose call can run, in all combinations of the offers that are called together.

A price of energy adds up what one more kW of demand costs in every state of its interval.  That of an offered service
is what its requirements are worth, and what one more kW of injection saves in the states that call it.
"""

from dataclasses import dataclass
from itertools import product as every_pair

import casadi
import numpy as np
import numpy.typing as npt
from acopf import (
    Limit,
    Phasor,
    branch_limits,
    energy_cost,
    energy_gain,
    free_voltage,
    interval_of,
    interval_result,
    ipopt,
    network_currents,
    no_load_voltage,
    parameter_values,
    port_price,
    power_base,
    solved_by,
    starting_point,
    unbalance_limits,
    variable_bounds,
    voltage_limit,
)

from dlmp.market import MarketCase
from dlmp.network.model import FloatArray
from dlmp.units import BASE_KVA, KW_PER_MW

UP, DOWN = ("capacity_up", "var_up"), ("capacity_down", "var_down")
REAL, REACTIVE = ("capacity_up", "capacity_down"), ("var_up", "var_down")


@dataclass(frozen=True, eq=False)
class ServiceOpf:
    """The joint optimum.

    Parameters
    ----------
    cost
        Of energy, services and stores over the horizon [currency].
    price_p, price_q
        (t, ports) Price of real and of reactive demand [currency/MWh], [currency/MVArh].
    p_kw, q_kvar
        (t, r) Injections as scheduled [kW], [kvar].
    reserved_kw, service_price
        (t, k) What is reserved of each offer [kW], [kvar], and its price [currency/MW per hour].
    shortage_kw, requirement_price
        (t, m) What each requirement lacks, and its price.
    voltage_pu
        (t, n) Voltage magnitudes as scheduled.
    """

    cost: float
    price_p: FloatArray
    price_q: FloatArray
    p_kw: FloatArray
    q_kvar: FloatArray
    reserved_kw: FloatArray
    service_price: FloatArray
    shortage_kw: FloatArray
    requirement_price: FloatArray
    voltage_pu: FloatArray


def solve_with_services(case: MarketCase, *, singly: bool = False, circle_sides: int = 32) -> ServiceOpf:
    """Clear `case` with its services; see the module.

    Parameters
    ----------
    case
        The case.
    singly
        Call every offer alone, too, and each capacity with each VAR service.
    circle_sides
        Sides of the polygon inscribed in each apparent power circle.
    """
    return _Joint(case, singly, circle_sides).solve()


class _Joint:
    """The programme: unknowns by name with bounds and start, parameters with values, constraints with bounds.

    Of interval t these are ``x t`` (voltages and controls), ``reserve t``, ``shortage t``, ``energy t``, ``short t``;
    of a called state its voltages ``calls [..] t`` and, as a parameter, the currents taken out of its nodes.
    """

    def __init__(self, case: MarketCase, singly: bool, circle_sides: int):
        self.case, self.base, self.singly, self.sides = case, power_base(case), singly, circle_sides
        self.model = interval_of(case, circle_sides, self.base)
        self.x: dict[str, tuple[casadi.SX, FloatArray, FloatArray, FloatArray]] = {}
        self.p: dict[str, tuple[casadi.SX, FloatArray]] = {}
        self.g: list[Limit] = []
        self.hours = case.horizon.interval_hours

    def variable(self, name: str, low: FloatArray, high: FloatArray, start: FloatArray) -> casadi.SX:
        symbol = casadi.SX.sym(name, len(low))
        self.x[name] = (symbol, low, high, start)
        return symbol

    def parameter(self, name: str, value: FloatArray) -> casadi.SX:
        symbol = casadi.SX.sym(name, len(value))
        self.p[name] = (symbol, value)
        return symbol

    def solve(self) -> ServiceOpf:
        case, offers, needed, base = self.case, self.case.service_offers, self.case.requirements, self.base
        intervals, network = case.horizon.intervals, case.network
        start = no_load_voltage(network)
        cost, moved, reserves, shortages, states, injections = 0.0, [], [], [], [], []
        first = 2 * int((~network.is_source).sum()) + len(case.bids)
        count, penalty = len(case.stores), np.nan_to_num(needed.shortage_usd_per_mw_h, posinf=0.0)
        is_firm = np.isinf(needed.shortage_usd_per_mw_h)
        for t in range(intervals):
            bounds = variable_bounds(case, t, base)
            x = self.variable(f"x {t}", *bounds, starting_point(case, start, bounds))
            value = self.parameter(f"x {t}", parameter_values(case, t, base))
            outcome = self.model.outcome(x, value)
            injections.append((outcome[3], outcome[4]))
            moved.append((x[first : first + count], x[first + count : first + 2 * count]))
            constraints = casadi.Function("g", [self.model.x, self.model.parameter], [self.model.constraints])(x, value)
            self.g.append((constraints, self.model.low[t], self.model.high[t]))
            most = offers.quantity_kw[t] / base
            reserve = self.variable(f"reserve {t}", np.zeros_like(most), most, most / 2)
            shortage = self.variable(
                f"shortage {t}", np.zeros(len(needed)), np.where(is_firm, 0.0, np.inf), np.where(is_firm, 0.0, 0.1)
            )
            reserves.append(reserve)
            shortages.append(shortage)
            cost += self.hours * outcome[7]
            cost += self.hours * (casadi.dot(offers.price_usd_per_mw_h[t], reserve) + casadi.dot(penalty, shortage))
            self.own_limits(t, injections[t], reserves)
            states += self.called_states(t, injections[t], reserves, start)
        cost += self.energy(moved, reserves)
        places = self.requirements(reserves, shortages)
        return self.result(self.optimum(cost), places, states)

    def begun(self, t: int, k: int) -> list[int]:
        """Intervals in which a call of an offer may have begun that runs at `t`."""
        offers = self.case.service_offers
        lasts = int(np.ceil(offers.duration_hours[k] / self.hours - 1e-9))
        return [s for s in range(max(0, t - lasts + 1), t + 1) if s == t or offers.quantity_kw[s, k] > 0]

    def own_limits(self, t: int, injection: tuple[casadi.SX, casadi.SX], reserves: list[casadi.SX]) -> None:
        """Range, rating and power factor of each resource whatever is called of it."""
        resources, base = self.case.resources, self.base
        top, bottom = self.reachable(t)
        angle = 2 * np.pi * np.arange(self.sides) / self.sides
        for r in np.unique(self.case.service_offers.resource):
            offered = self.by_service(t, int(r), reserves)
            pairs = every_pair(((None, 0.0), *offered), repeat=2)
            for (real, more_p), (reactive, more_q) in pairs:
                if real not in (None, *REAL) or reactive not in (None, *REACTIVE):
                    continue
                p = injection[0][int(r)] + sign_of(real) * more_p
                q = injection[1][int(r)] + sign_of(reactive) * more_q
                if real is not None and reactive is None:
                    self.g.append((p, bottom[r] / base, top[r] / base))
                if reactive is not None and real is None:
                    self.g.append((q, resources.q_min_kvar[r] / base, resources.q_max_kvar[r] / base))
                if real is None and reactive is None:
                    continue
                if np.isfinite(resources.s_max_kva[r]):
                    inside = resources.s_max_kva[r] * np.cos(np.pi / self.sides) / base
                    self.g.append((np.cos(angle) * p + np.sin(angle) * q, -np.inf, inside))
                if resources.power_factor_min[r] > 0:
                    tangent = np.tan(np.arccos(resources.power_factor_min[r]))
                    consumes = (resources.p_max_kw[:, r] <= 0).all()
                    room = (-tangent if consumes else tangent) * p
                    self.g += [(q - room, -np.inf, 0.0), (-q - room, -np.inf, 0.0)]

    def by_service(self, t: int, r: int, reserves: list[casadi.SX]) -> list[tuple[str, casadi.SX]]:
        """Service and power of every award of a resource whose call may run at `t`."""
        offers = self.case.service_offers
        own = np.flatnonzero(offers.resource == r).tolist()
        return [(str(offers.service[k]), reserves[s][k]) for k in own for s in self.begun(t, k)]

    def reachable(self, t: int) -> tuple[FloatArray, FloatArray]:
        """Highest and lowest injection of each resource that it offers beside what it self-schedules [kW]."""
        case, count = self.case, len(self.case.resources)
        into, out = np.zeros(count), np.zeros(count)
        for s, r in enumerate(case.bids.resource):
            offered, firm = case.bids.quantity_kw[t, s], case.bids.is_self_scheduled[t, s]
            (into if case.bids.is_supply[s] else out)[r] += offered
            (out if case.bids.is_supply[s] else into)[r] -= offered * firm
        for k, r in enumerate(case.stores.resource):
            into[r], out[r] = case.stores.discharge_max_kw[t, k], case.stores.charge_max_kw[t, k]
        return np.minimum(into, case.resources.p_max_kw[t]), np.maximum(-out, case.resources.p_min_kw)

    def calls(self, t: int) -> list[npt.NDArray[np.int64]]:
        """Offers that are called together, of each called state of an interval."""
        offers = self.case.service_offers
        every = range(len(offers))
        is_offered = np.array([(offers.quantity_kw[self.begun(t, k), k] > 0).any() for k in every], dtype=bool)
        whole = {name: np.flatnonzero((offers.service == name) & is_offered) for name in (*REAL, *REACTIVE)}
        calls = [own for own in whole.values() if len(own)]
        if self.singly:
            both = [np.r_[whole[real], whole[var]] for real, var in every_pair(REAL, REACTIVE)]
            calls += [np.array([k]) for own in calls if len(own) > 1 for k in own]
            calls += [own for own in both if not any(np.array_equal(own, other) for other in calls)]
        return [own for own in calls if len(own)]

    def called_states(
        self, t: int, injection: tuple[casadi.SX, casadi.SX], reserves: list[casadi.SX], start: FloatArray
    ) -> list[tuple[int, str, list[tuple[int, int]]]]:
        """Add a power flow for each call; return its interval, name, and interval and offer of each award called."""
        case, network, offers = self.case, self.case.network, self.case.service_offers
        free, made = np.flatnonzero(~network.is_source), []
        combined = [every_pair(*([(s, k) for s in self.begun(t, k)] for k in own.tolist())) for own in self.calls(t)]
        for called in (list(awards) for choices in combined for awards in choices):
            name = f"calls {called} {t}"
            extra = [casadi.SX.zeros(len(case.resources)), casadi.SX.zeros(len(case.resources))]
            for s, k in called:
                service = str(offers.service[k])
                extra[int(service in REACTIVE)][int(offers.resource[k])] += sign_of(service) * reserves[s][k]
            v = free_voltage(network)
            anywhere = np.full(2 * len(free), np.inf)
            begin = np.r_[start[free].real, start[free].imag]
            named = self.variable(name, -anywhere, anywhere, begin)
            v.re[free], v.im[free] = named[: len(free)], named[len(free) :]
            nothing = np.zeros(2 * network.node_count)
            taken = self.parameter(name, nothing)
            made.append((t, name, called))
            scale = BASE_KVA / self.base
            balance, _ = network_currents(
                case,
                self.base,
                v,
                Phasor(injection[0] + extra[0], injection[1] + extra[1]),
                numbers(case.load_pu[t] * scale),
                numbers(case.law_pu[t] * scale),
                Phasor(taken[: network.node_count], taken[network.node_count :]),
            )
            self.g += [
                (balance.stacked(), 0.0, 0.0),
                voltage_limit(network, v),
                *branch_limits(network, v),
                *unbalance_limits(network, v),
            ]
        return made

    def energy(self, moved: list[tuple[casadi.SX, casadi.SX]], reserves: list[casadi.SX]) -> casadi.SX:
        """Carry the stores' energy on, and keep what calls would take or bring for as long as they last."""
        case, stores, base, intervals = self.case, self.case.stores, self.base, self.case.horizon.intervals
        if not len(stores):
            return casadi.SX(0)
        is_soft = np.isfinite(stores.shortfall_usd_per_mwh)
        least, none = stores.energy_min_kwh / base, np.zeros(len(stores))
        held = [
            self.variable(
                f"energy {t}",
                np.where(is_soft, 0, least[t]),
                stores.energy_max_kwh[t] / base,
                stores.initial_kwh / base,
            )
            for t in range(intervals)
        ]
        short = [self.variable(f"short {t}", none, np.where(is_soft, least[t], 0.0), none) for t in range(intervals)]
        charge, discharge = (casadi.horzcat(*side) for side in zip(*moved, strict=True))
        gain = energy_gain(case, casadi.horzcat(*held), charge, discharge, base)
        self.g.append((casadi.vec(gain), 0.0, 0.0))
        for t in range(intervals):
            self.g.append((held[t] + short[t], np.where(is_soft & (least[t] > 0), least[t], -np.inf), np.inf))
        offers, store_of = case.service_offers, {int(r): k for k, r in enumerate(stores.resource)}
        for k, r in enumerate(offers.resource.tolist()):
            if r not in store_of or offers.service[k] in REACTIVE:
                continue
            store = store_of[r]
            floor, ceiling = self.reach(store)
            rate = 1 / stores.discharge_efficiency[store]
            if not stores.discharge_max_kw[:, store].any():
                rate = stores.charge_efficiency[store]
            lasts = int(np.ceil(offers.duration_hours[k] / self.hours - 1e-9))
            for t in range(intervals):
                if offers.quantity_kw[t, k] == 0:
                    continue
                by_call = -sign_of(str(offers.service[k])) * rate * offers.duration_hours[k] * reserves[t][k]
                for end in range(t, min(t + lasts, intervals)):
                    called = held[end][store] + by_call
                    self.g.append((called, floor[end] / base, ceiling[end] / base))
        return energy_cost(case, casadi.horzcat(*held), casadi.horzcat(*short))

    def reach(self, store: int) -> tuple[FloatArray, FloatArray]:
        """Least and most energy [kWh] at each end of interval from which all later bands can still be kept."""
        stores = self.case.stores
        firm = np.isinf(stores.shortfall_usd_per_mwh[store])
        low, high = stores.energy_min_kwh[:, store] * firm, stores.energy_max_kwh[:, store] + 0.0
        kept = stores.retention[store] ** self.hours
        for t in range(len(low) - 1, 0, -1):
            drain = stores.drain_kw[t, store]
            fill = stores.charge_efficiency[store] * stores.charge_max_kw[t, store] - drain
            empty = stores.discharge_max_kw[t, store] / stores.discharge_efficiency[store] + drain
            low[t - 1] = max(low[t - 1], (low[t] - self.hours * fill) / kept)
            high[t - 1] = min(high[t - 1], (high[t] + self.hours * empty) / kept)
        return low, high

    def requirements(self, reserves: list[casadi.SX], shortages: list[casadi.SX]) -> list[int]:
        """Add the requirements; return the place of each interval's first row."""
        needed, places = self.case.requirements, []
        met = self.counting()
        for t, (reserve, shortage) in enumerate(zip(reserves, shortages, strict=True)):
            places.append(sum(limit[0].numel() for limit in self.g))
            self.g.append((casadi.DM(met) @ reserve + shortage, needed.quantity_kw[t] / self.base, np.inf))
        return places

    def counting(self) -> FloatArray:
        """(m, k) Part of each offer that counts for each requirement."""
        offers, needed = self.case.service_offers, self.case.requirements
        share = self.case.resources.share.toarray()[offers.resource] @ needed.counts.T.astype(float)
        return share.T * (needed.service[:, None] == offers.service)

    def optimum(self, cost: casadi.SX) -> dict[str, FloatArray]:
        symbols, low, high, start = zip(*self.x.values(), strict=True)
        rows = [casadi.densify(row) for row, _, _ in self.g]
        bounds = [
            np.concatenate([np.broadcast_to(limit[side], row.numel()) for row, limit in zip(rows, self.g, strict=True)])
            for side in (1, 2)
        ]
        solver = ipopt(
            x=casadi.vertcat(*symbols),
            p=casadi.vertcat(*(symbol for symbol, _ in self.p.values())),
            f=cost,
            g=casadi.vertcat(*rows),
        )
        return solved_by(
            *(solver, "services"),
            x0=np.concatenate(start),
            p=np.concatenate([value for _, value in self.p.values()]),
            lbx=np.concatenate(low),
            ubx=np.concatenate(high),
            lbg=bounds[0],
            ubg=bounds[1],
        )

    def result(
        self, solution: dict[str, FloatArray], places: list[int], states: list[tuple[int, str, list[tuple[int, int]]]]
    ) -> ServiceOpf:
        case, network, base = self.case, self.case.network, self.base
        offers, every, free = case.service_offers, range(case.horizon.intervals), np.flatnonzero(~network.is_source)
        value, multiplier = split(solution["x"], self.x), split(solution["lam_p"] / self.hours, self.p)
        solved = [
            interval_result(case, t, self.model, value[f"x {t}"], self.p[f"x {t}"][1], multiplier[f"x {t}"], base)
            for t in every
        ]
        _, price_p, price_q, p_kw, q_kvar, _, v, *_ = (np.array(column) for column in zip(*solved, strict=True))
        count = len(case.requirements)
        dual = np.array([-solution["lam_g"][place : place + count] / self.hours for place in places])
        service_price = dual @ self.counting()
        for t, name, called in states:
            voltage = np.zeros(network.node_count, complex)
            voltage[network.source] = network.source_v_pu
            voltage[free] = value[name][: len(free)] + 1j * value[name][len(free) :]
            real, imaginary = np.split(-multiplier[name], 2)
            price = port_price(network, voltage, real + 1j * imaginary)
            price_p[t] += price.real
            price_q[t] += price.imag
            by_resource = case.resources.share @ np.nan_to_num(price)
            for s, k in called:
                service, worth = str(offers.service[k]), by_resource[offers.resource[k]]
                service_price[s, k] += sign_of(service) * (worth.imag if service in REACTIVE else worth.real)
        reserved, short = (np.array([value[f"{name} {t}"] for t in every]) * base for name in ("reserve", "shortage"))
        cost = solution["f"].item() * base / KW_PER_MW
        return ServiceOpf(
            *(cost, price_p, price_q, p_kw, q_kvar, reserved, service_price, short, dual),
            voltage_pu=np.abs(v),
        )


def split(whole: FloatArray, pieces: dict[str, tuple[casadi.SX, ...]]) -> dict[str, FloatArray]:
    """Parts of a vector by the names of the symbols that it is made of."""
    ends = np.cumsum([piece[0].numel() for piece in pieces.values()])
    return dict(zip(pieces, np.split(whole, ends[:-1]), strict=True))


def sign_of(service: str | None) -> float:
    """1 where a call raises the injection, -1 where it lowers it, 0 without one."""
    return 0.0 if service is None else 1.0 if service in UP else -1.0


def numbers(value: FloatArray) -> Phasor:
    return Phasor(casadi.SX(casadi.DM(value.real)), casadi.SX(casadi.DM(value.imag)))
