"""Clear a market case: the one function that users call, and the record it returns."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property

import numpy as np
import pandas as pd
from threadpoolctl import ThreadpoolController

from dlmp.apart import can_stand_apart, dispatch_apart
from dlmp.blockchoice import dispatch_with_blocks
from dlmp.calls import called_kva
from dlmp.certificate import Certificate, certify
from dlmp.directions import dispatch_one_way
from dlmp.dispatch import Dispatch, PassReport
from dlmp.errors import InputError, Problem
from dlmp.explanation import Explainer
from dlmp.formulation import new_formulation
from dlmp.formulation.interface import Formulation
from dlmp.formulation.market_lp import MarketLp, build_market_lp
from dlmp.localsupply import LocalSupply, local_supply
from dlmp.market import MarketCase
from dlmp.network.model import ComplexArray, FloatArray, Network, UnbalancedNetwork
from dlmp.penalties import HARD
from dlmp.pricerule import with_chosen_prices
from dlmp.prices import SCARCITY, Prices, decompose, limit_slopes
from dlmp.products.storage import ENERGY_BALANCE, STORE_VARIABLES
from dlmp.products.substation import REACTIVE_IMPORT, REAL_IMPORT
from dlmp.reserves import service_awards, unsafe_calls
from dlmp.results import Awards, BlockAwards, Flows, ServiceAwards, StoreAwards, Voltages
from dlmp.scarcity import Scarcity, count_elements, scarcity_of
from dlmp.settings import SOFT, Settings
from dlmp.ties import with_shared_ties
from dlmp.timing import PhaseClock
from dlmp.units import BASE_KVA, KW_PER_MW, money_per_price_pu

CONVERGED, NOT_CONVERGED = "converged", "not_converged"


@dataclass(frozen=True, eq=False)
class Clearing:
    """The outcome of `clear`.

    Parameters
    ----------
    case, settings
        What was cleared, and how.
    status
        ``converged`` or ``not_converged``; in the latter case nothing here may be published.
    objective
        Total cost over the horizon [currency]: import + accepted supply - accepted demand value, real and reactive,
        what stores and services cost, and the penalties of broken limits.
    import_kw, import_kvar
        (t,) Substation import [kW], [kvar].
    load_kva
        (t, l) What each load column draws [kVA]: loads that follow their voltage, at that of the network state.
    prices, awards, stores, blocks, services, voltages, flows
        The results; each has a `table`.
    passes
        What each pass came to.  One that goes on from an optimum, after an unsafe call, needs no LP as a rule.
    error_usd_per_mwh
        Largest error of the optimality conditions [currency/MWh].
    beside_rule
        Intervals whose prices support the dispatch, but are not known to be those of the rule for prices that are not
        unique (`dlmp.pricerule`), which rounding hid: another order of bids may publish others.
    seconds
        CPU seconds by phase.
    """

    case: MarketCase = field(repr=False)
    settings: Settings
    status: str
    objective: float
    import_kw: FloatArray
    import_kvar: FloatArray
    load_kva: ComplexArray = field(repr=False)
    prices: Prices = field(repr=False)
    awards: Awards = field(repr=False)
    stores: StoreAwards = field(repr=False)
    blocks: BlockAwards = field(repr=False)
    services: ServiceAwards = field(repr=False)
    voltages: Voltages = field(repr=False)
    flows: Flows = field(repr=False)
    passes: tuple[PassReport, ...]
    error_usd_per_mwh: float
    beside_rule: tuple[int, ...]
    seconds: dict[str, float]
    _dispatch: Dispatch = field(repr=False)
    _scarcity: Scarcity = field(repr=False)

    @cached_property
    def certificate(self) -> Certificate:
        """Independent checks of this result, made when first asked for."""
        return certify(self.case, self._dispatch, self.prices, self.awards, self.services, self.voltages)

    @cached_property
    def local_supply(self) -> LocalSupply:
        """How much of the load the feeder's own resources serve."""
        return local_supply(self.case, self.awards, self.flows, self.import_kw)

    @property
    def make_whole(self) -> pd.DataFrame:
        """Payments that accepted blocks need on top of the prices; see `BlockAwards.make_whole`."""
        return self.blocks.make_whole()

    def explain(self, bus: str, interval: int = 0, phase: str | None = None) -> pd.DataFrame:
        """List what makes the price of a node: each binding element and its share.

        Parameters
        ----------
        bus
            Bus, or an alias of it.
        interval
            Interval, from 0.
        phase
            Phase, or pair of phases such as ``12``; default: the only one of the bus.

        Returns
        -------
        Rows with ``component, element, phase, end, called, limit, unit`` and the shares ``share_usd_per_mwh`` and
        ``share_q_usd_per_mvarh``, which add up to the node's prices.  ``called`` names the service in whose called
        state the limit binds; ``-`` is the state as scheduled.
        """
        if not 0 <= interval < self.case.horizon.intervals:
            raise InputError(
                [Problem("explain", "interval", interval, f"must be 0 to {self.case.horizon.intervals - 1}")]
            )
        return self._explainer.at_node(self.case.network.node(bus, phase), interval)

    def price_shares(self, least_usd_per_mwh: float = 0.005, *, with_rest: bool = False) -> pd.DataFrame:
        """List what makes the prices of all nodes: `explain` of every priced node and interval.

        Parameters
        ----------
        least_usd_per_mwh
            Shares below this, of both prices, are left out [currency/MWh], [currency/MVArh].
        with_rest
            Add what is left out of a price as a row of its own, the component ``rest``, so that rows add up to it.

        Returns
        -------
        Rows with ``interval_start, interval, bus, phase_of_bus`` and the columns of `explain`.
        """
        horizon, ports = self.case.horizon, self.prices.ports
        by_interval = [
            self._explainer.at_nodes(ports, interval, least_usd_per_mwh, with_rest=with_rest)
            for interval in range(horizon.intervals)
        ]
        table = pd.concat(by_interval, ignore_index=True)
        table.insert(0, "interval_start", pd.DatetimeIndex(horizon.starts)[table.interval.to_numpy(dtype=int)])
        return table

    @property
    def _explainer(self) -> Explainer:
        return Explainer(self.case, self._dispatch, self.prices, self._scarcity, self.settings.tolerance_usd_per_mwh)

    def broken_limits(self) -> pd.DataFrame:
        """Every limit that is broken because that costs less than to keep it, and every requirement that is not met.

        Returns
        -------
        Rows with ``interval_start, interval, cause`` (``voltage``, ``congestion``, ``unbalance``, ``import`` or
        ``service``), ``element, phase, end, called``; ``limit, value, excess`` in `unit`; ``penalty_usd_per_h``, what
        one more `unit` of excess costs [currency/h]; and ``cost_usd``, what the excess costs in the interval
        [currency].  ``called`` is that of `explain`.
        """
        table = self._scarcity.table.copy()
        starts = pd.DatetimeIndex(self.case.horizon.starts)
        table.insert(0, "interval_start", starts[table.interval.to_numpy(dtype=int)])
        return table

    @property
    def avoidable(self) -> tuple[int, ...]:
        """Intervals in which limits are broken though all could be kept: that costs more than their penalties."""
        return self._scarcity.avoidable

    @property
    def penalty(self) -> float:
        """What all that `broken_limits` tells costs over the horizon, as part of the `objective` [currency]."""
        return float(self._scarcity.table.cost_usd.sum())

    def penalties(self) -> FloatArray:
        """(t,) `penalty` by interval [currency]."""
        table = self._scarcity.table
        cost = np.zeros(self.case.horizon.intervals)
        np.add.at(cost, table.interval.to_numpy(dtype=int), table.cost_usd.to_numpy())
        return cost

    def binding_limits(self) -> pd.DataFrame:
        """Every voltage, branch and import limit that is kept and binds, with its shadow price.

        Returns
        -------
        Rows with ``interval_start, interval, component, element, phase, end, called, limit, unit`` and
        ``shadow_price_usd_per_h``: what one more `unit` of room would save [currency/h].
        """
        limits, market = self._dispatch.formulation.limits, self._dispatch.market
        weights = self._dispatch.weights.less(self._scarcity.weights).limits.tocoo()
        limit = weights.col
        bound = np.where(weights.data > 0, limits.lower[limit], limits.upper[limit])
        shown = limits.physical(limit, bound)
        by_unit = limits.power[limit] * bound / shown
        frame = pd.DataFrame(
            {
                "interval": market.state_interval[weights.row],
                "component": limits.cause[limit].astype(object),
                "element": limits.element[limit].astype(object),
                "phase": limits.phase[limit].astype(object),
                "end": limits.end[limit].astype(object),
                "called": np.array([market.call_name(int(state)) for state in weights.row], dtype=object),
                "limit": shown,
                "unit": limits.unit[limit].astype(object),
                "shadow_price_usd_per_h": np.abs(weights.data) * by_unit * BASE_KVA / KW_PER_MW,
            }
        )
        frame = pd.concat([self._binding_imports(), frame])
        frame = frame.sort_values(["interval", "component", "element", "phase", "end", "called"])
        starts = pd.DatetimeIndex(self.case.horizon.starts)
        frame.insert(0, "interval_start", starts[frame.interval.to_numpy(dtype=int)])
        return frame.reset_index(drop=True)

    def calls(self) -> pd.DataFrame:
        """List whom the texts ``called`` of other tables name: awards are their owners' alone to know.

        Returns
        -------
        Rows ``called, anonymous, resource``, one for each resource that a text names; `anonymous` is the same text
        without names.
        """
        market, rows = self._dispatch.market, []
        resource = self.case.resources.name[self.case.service_offers.resource]
        for state in np.unique(self._dispatch.weights.limits.tocoo().row).tolist():
            called, anonymous = market.call_name(state), market.call_name(state, with_names=False)
            if called != anonymous:
                calls = market.called.calls[state - market.intervals]
                rows += [(called, anonymous, name) for name in dict.fromkeys(resource[calls].tolist())]
        return pd.DataFrame(rows, columns=["called", "anonymous", "resource"], dtype=object).drop_duplicates()

    @property
    def market(self) -> MarketLp:
        """The market's programme, with the directions that were closed and the states that its network was held to."""
        return self._dispatch.market

    def column_costs(self) -> FloatArray:
        """(t, width) Cost of every column of the market at its award [currency/MWh pu]; see `MarketLp.block`."""
        columns, x = self.market.columns, self._dispatch.x.reshape(self.market.intervals, self.market.width)
        return columns.cost * x + columns.slope * x**2 / 2

    def limit_values(self, injection_kva: ComplexArray, reserved_kw: FloatArray | None = None) -> pd.DataFrame:
        """What each binding limit's share of the prices pays for injections and for power held ready.

        Parameters
        ----------
        injection_kva
            (t, p) Complex power into each port [kVA].
        reserved_kw
            (t, k) Power of each offer of a service [kW], [kvar], which is injected too in the states that call it;
            default: none.

        Returns
        -------
        Rows with ``interval, component, name, called, limit, without, unit`` and ``value_usd_per_h``: the sum over all
        ports of injection times the limit's share of the price [currency/h].  To first order the limited
        quantity would be `without` if the injections were not there.  The component of a broken limit is ``scarcity``.
        """
        limits, work = self._dispatch.formulation.limits, self._dispatch
        weights = work.weights.limits.tocoo()
        market, limit = work.market, weights.col
        is_scarce = work.excess[weights.row, weights.col] != 0
        interval = market.state_interval
        injected_kva: ComplexArray = injection_kva[interval].astype(complex)
        if reserved_kw is not None:
            resources, offers = self.case.resources, self.case.service_offers
            injected_kva[market.intervals :] += called_kva(resources, offers, market.called, reserved_kw)
        slope = limit_slopes(work.point, weights, injected_kva / BASE_KVA)
        bound = np.where(weights.data > 0, limits.lower[limit], limits.upper[limit])
        return pd.DataFrame(
            {
                "interval": interval[weights.row],
                "component": np.where(is_scarce, SCARCITY, limits.cause[limit]).astype(object),
                "name": [limits.name(index) for index in limit],
                "called": [market.call_name(int(state)) for state in weights.row],
                "limit": limits.physical(limit, bound),
                "without": limits.physical(limit, work.point.limit_value[weights.row, limit] - slope),
                "unit": limits.unit[limit].astype(object),
                "value_usd_per_h": weights.data * slope * BASE_KVA / KW_PER_MW,
            }
        )

    def _binding_imports(self) -> pd.DataFrame:
        substation = self.case.substation
        parts = []
        for element, unit, energy, price, value, low, high in (
            (REAL_IMPORT, "kW", self.prices.energy[:, 0], substation.price_usd_per_mwh,
             self.import_kw, substation.p_min_kw, substation.p_max_kw),
            (REACTIVE_IMPORT, "kvar", self.prices.energy_q[:, 0],
             substation.q_price_usd_per_mvarh, self.import_kvar, substation.q_min_kvar, substation.q_max_kvar),
        ):  # fmt: skip
            rent = energy - price
            bound = np.where(rent > 0, high, low)
            binding = np.flatnonzero(
                (np.abs(rent) > self.settings.tolerance_usd_per_mwh) & (np.abs(value - bound) < 1e-3)
            )
            parts.append(
                pd.DataFrame(
                    {
                        "interval": binding,
                        "component": "energy",
                        "element": element,
                        "phase": "-",
                        "end": "-",
                        "called": "-",
                        "limit": bound[binding],
                        "unit": unit,
                        "shadow_price_usd_per_h": np.abs(rent[binding]) / KW_PER_MW,
                    }
                )
            )
        return pd.concat(parts)

    def summary(self) -> dict[str, object]:
        """Return the figures of `summary.json`."""
        last = self.passes[-1]
        return {
            "name": self.case.name,
            "status": self.status,
            "objective": self.objective,
            "currency": self.case.horizon.currency,
            "intervals": self.case.horizon.intervals,
            "nodes": self.case.network.node_count,
            "resources": len(self.case.resources),
            "local_supply": self.local_supply.totals(),
            "services": {service: asdict(total) for service, total in self.services.totals().items()},
            "formulation": self.settings.formulation,
            **_frozen(self.case.network),
            "passes": len(self.passes),
            "lp_solves": self._dispatch.lp_solves,
            "broken_limits": count_elements(self._scarcity.table),
            "penalty": self.penalty,
            "intervals_of_avoidable_penalties": list(self.avoidable),
            "intervals_beside_price_rule": list(self.beside_rule),
            "residuals": {
                "optimality_usd_per_mwh": _or_none(self.error_usd_per_mwh),
                "violation_pu": last.violation_pu,
                "import_mismatch_pu": last.mismatch_pu,
                "step_pu": last.step_pu,
            },
            "seconds": dict(self.seconds),
        }


def _frozen(network: Network) -> dict[str, object]:
    """Taps and notes of a network that another program's file was made into."""
    if not isinstance(network, UnbalancedNetwork):
        return {}
    return {"taps": network.taps, "notes": list(network.notes)}


def _or_none(value: float) -> float | None:
    """JSON has no infinity."""
    return value if np.isfinite(value) else None


def clear(
    case: MarketCase,
    settings: Settings | None = None,
    progress: Callable[[PassReport], None] | None = None,
    start: Clearing | None = None,
    workers: int = 1,
) -> Clearing:
    """Find the least-cost dispatch of `case` that the network can carry, and its nodal prices.

    Parameters
    ----------
    case
        Network, horizon, substation prices, load, resources and bids.
    settings
        Formulation and tolerances; default: `Settings()`.
    progress
        Called after each pass; default: silent.
    start
        An earlier clearing to begin with: quicker where the `case` is that one's but for prices, quantities of the
        same segments, and loads, for intervals without a change are solved already.  The result is the same, but for
        which local optimum is found at negative prices.  Default: begin anew, as where nothing of `start` fits.
    workers
        Processes among which intervals are divided that nothing couples: neither stores, ramps, blocks nor calls that
        last.  The result is the same up to rounding, but for which local optimum is found at negative prices.  Worth
        its while on large feeders, and not asked for where there is a `start`, nor again after calls that were unsafe.
        `progress` is then called at the end.  In a script the call must stand below ``if __name__ == "__main__":``, as
        Python's multiprocessing asks.  Default: this one.

    Returns
    -------
    The clearing; look at its `status` before using prices.

    Raises
    ------
    InputError
        When the formulation does not fit the network.
    InfeasibleError
        When limits are hard and no dispatch keeps them; names those that conflict.
    PowerFlowError
        When the feeder cannot carry its load at all.
    SolverError
        When HiGHS fails.
    """
    with _threads().limit(limits=1, user_api="blas"):
        # Matrices are small: BLAS threads cost more than they bring (measured: three times slower).
        return _clear(case, settings or Settings(), progress, start, workers)


@cache
def _threads() -> ThreadpoolController:
    return ThreadpoolController()


def _clear(
    case: MarketCase,
    settings: Settings,
    progress: Callable[[PassReport], None] | None,
    start: Clearing | None,
    workers: int,
) -> Clearing:
    clock = PhaseClock()
    with clock.phase("build"):
        penalties = case.penalties if settings.limits == SOFT else HARD
        found = None if start is None else _start_of(start, case, settings)
        like = None if found is None else found.market
        market = build_market_lp(case, settings.circle_sides, penalties, like)
    beside_rule: tuple[int, ...] = ()
    while True:
        with clock.phase("build"):
            formulation = _formulation(case, settings, market, found)
        last, found = found, _dispatch(market, formulation, settings, clock, progress, found, workers)
        if not found.converged:
            break
        with clock.phase("power_flow"):
            unsafe = unsafe_calls(found, settings, last)
        if not len(unsafe):
            with clock.phase("rules"):
                found, beside_rule = with_chosen_prices(with_shared_ties(found))
            break
        market = market.with_states(unsafe)
    market = found.market
    with clock.phase("gradients"):
        scarcity, interval = scarcity_of(found), market.state_interval
        prices = decompose(
            case.network, case.horizon, formulation.limits, found.point, found.weights, interval, scarcity.weights
        )
    share = case.resources.share
    power = found.x[market.network_columns] * BASE_KVA
    awards = Awards(
        case,
        segment_kw=found.x[market.block("award")] * BASE_KVA,
        segment_kvar=found.x[market.block("q_award")] * BASE_KVA,
        net_injection_kw=power[:, 0],
        q_kvar=power[:, 1],
        lmp_usd_per_mwh=prices.lmp_usd_per_mwh @ share.T,
        lmp_q_usd_per_mvarh=prices.lmp_q_usd_per_mvarh @ share.T,
    )
    at_from, at_to = (power[: market.intervals] for power in found.point.branch_power())
    import_kva = found.point.import_pu[: market.intervals] * BASE_KVA
    return Clearing(
        case,
        settings,
        status=CONVERGED if found.converged else NOT_CONVERGED,
        objective=_objective(found) + scarcity.cost,
        import_kw=import_kva.real,
        import_kvar=import_kva.imag,
        load_kva=np.asarray(
            np.concatenate([case.load_pu, found.point.law_power()[: market.intervals]], axis=1) * BASE_KVA, complex
        ),
        prices=prices,
        awards=awards,
        stores=_store_awards(found),
        blocks=BlockAwards(case, found.x[market.block("block")] * BASE_KVA, awards.lmp_usd_per_mwh),
        services=service_awards(found, scarcity),
        voltages=Voltages(case.network, case.horizon, found.point.voltage()[: market.intervals]),
        flows=Flows(case.network, case.horizon, at_from * BASE_KVA, -at_to * BASE_KVA, _loading(found)),
        passes=found.reports,
        error_usd_per_mwh=found.error_usd_per_mwh,
        beside_rule=beside_rule,
        seconds=clock.seconds,
        _dispatch=found,
        _scarcity=scarcity,
    )


def _start_of(start: Clearing, case: MarketCase, settings: Settings) -> Dispatch | None:
    """What to begin with to clear `case` after `start`; None where that one's does not fit."""
    if start.status != CONVERGED or start.settings != settings or not case.is_like(start.case):
        return None
    return replace(start._dispatch, reports=(), lp_solves=0)


def _formulation(case: MarketCase, settings: Settings, market: MarketLp, known: Dispatch | None) -> Formulation:
    """The formulation for the states of `market`; the `known` one where it is the same."""
    if known is None or not np.array_equal(known.market.state_interval, market.state_interval):
        return new_formulation(case, settings, market.state_interval)
    if market.has_other_load(known.market).any():
        return new_formulation(case, settings, market.state_interval)
    return known.formulation


def _dispatch(
    market: MarketLp,
    formulation: Formulation,
    settings: Settings,
    clock: PhaseClock,
    progress: Callable[[PassReport], None] | None,
    start: Dispatch | None,
    workers: int,
) -> Dispatch:
    """Dispatch `market` with its stores going one way at a time and its blocks chosen, beginning at `start`."""
    if workers > 1 and start is None and can_stand_apart(market):
        found = dispatch_apart(market, formulation, settings, clock, workers)
        if found is not None:
            if progress is not None:
                for report in found.reports:
                    progress(report)
            return found

    def one_way(own: MarketLp) -> Dispatch:
        return dispatch_one_way(own, formulation, settings, clock, progress, start)

    if not len(market.case.blocks):
        return one_way(market)
    return dispatch_with_blocks(market, formulation, settings, clock, one_way)


def _store_awards(found: Dispatch) -> StoreAwards:
    market, hours = found.market, found.market.case.horizon.interval_hours
    charge, discharge, energy, shortfall = (found.x[market.block(name)] * BASE_KVA for name in STORE_VARIABLES)
    value = -found.row_dual[market.rows_of(ENERGY_BALANCE)] * hours
    return StoreAwards(market.case, charge, discharge, energy, shortfall, value)


def _objective(found: Dispatch) -> float:
    """Cost of the dispatch at the import of the network state, not of the LP [currency]."""
    market = found.market
    x = found.x.copy()
    import_pu = found.point.import_pu[: market.intervals]
    x[market.block("import_p").ravel()] = import_pu.real
    x[market.block("import_q").ravel()] = import_pu.imag
    return market.columns.total_cost(x) * money_per_price_pu(market.case.horizon.interval_hours)


def _loading(found: Dispatch) -> FloatArray:
    """(t, m) Share of each branch's rating in use, at its worse end."""
    limits, network = found.formulation.limits, found.market.case.network
    loading = np.zeros((found.market.intervals, network.branch_count))
    rated = np.flatnonzero(limits.branch >= 0)
    value = found.point.limit_value[: found.market.intervals, rated]
    share = np.maximum(value / limits.upper[rated], 0.0) ** (1 / limits.power[rated])
    np.maximum.at(loading.T, limits.branch[rated], share.T)
    return loading
