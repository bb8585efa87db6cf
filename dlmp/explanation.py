"""From a dispatch and its prices to what makes each price: every binding element with its share at every node.

The shares are the terms of the sums in `dlmp.prices`, one for each multiplier; they add up to the price.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dlmp.dispatch import Dispatch
from dlmp.market import MarketCase
from dlmp.network.model import FloatArray, IntArray
from dlmp.prices import SCARCITY, Prices
from dlmp.products.substation import IMPORT_NAMES, REACTIVE_IMPORT, REAL_IMPORT
from dlmp.scarcity import Scarcity

SHARES = ["share_usd_per_mwh", "share_q_usd_per_mvarh"]
LABELS = ["component", "element", "phase", "end", "called", "limit", "unit"]
NOWHERE = "-"
REST = "rest"
NOISE = 1e-9
"""A rest of less is none [currency/MWh]."""


@dataclass(frozen=True, eq=False)
class Share:
    """What one element adds to the prices at some ports.

    Parameters
    ----------
    component, element, phase, end, called, unit
        As in `Clearing.explain`.
    limit
        The limit, in `unit`; None where there is none.
    real, reactive
        (k,) Its share of the prices [currency/MWh], [currency/MVArh].
    """

    component: str
    element: str
    real: FloatArray
    reactive: FloatArray
    phase: str = NOWHERE
    end: str = NOWHERE
    called: str = NOWHERE
    limit: float | None = None
    unit: str = ""

    @property
    def labels(self) -> tuple[object, ...]:
        """Values of `LABELS`."""
        return tuple(getattr(self, name) for name in LABELS)


@dataclass(frozen=True, eq=False)
class Explainer:
    """Explains the prices of a clearing.

    Parameters
    ----------
    case, dispatch, prices, scarcity
        What was cleared, and what came of it.
    tolerance_usd_per_mwh
        A limit of import that adds less to the price of energy is not told.
    """

    case: MarketCase
    dispatch: Dispatch
    prices: Prices
    scarcity: Scarcity
    tolerance_usd_per_mwh: float

    def at_node(self, port: int, interval: int) -> pd.DataFrame:
        """Explain the price at a port: one row per element, in the columns `LABELS` and `SHARES`."""
        shares = self.shares(np.array([port]), interval)
        rows = [(*share.labels, share.real[0], share.reactive[0]) for share in shares]
        return pd.DataFrame(rows, columns=LABELS + SHARES)

    def at_nodes(self, ports: IntArray, interval: int, least: float, *, with_rest: bool) -> pd.DataFrame:
        """Explain the prices at `ports`: rows of a share of at least `least` [currency/MWh], [currency/MVArh].

        With the rest, what is left out at a port is a row of its own, the component `REST`.

        Returns
        -------
        Rows ``interval, bus, phase_of_bus`` and the columns `LABELS` and `SHARES`.
        """
        network, parts = self.case.network, []
        rest = Share(REST, "smaller shares", np.zeros(len(ports)), np.zeros(len(ports)))
        for share in (*self.shares(ports, interval), *([rest] if with_rest else [])):
            smallest = NOISE if share is rest else least
            is_shown = (np.abs(share.real) >= smallest) | (np.abs(share.reactive) >= smallest)
            shown = np.flatnonzero(is_shown)
            if share is not rest:
                rest.real[~is_shown] += share.real[~is_shown]
                rest.reactive[~is_shown] += share.reactive[~is_shown]
            frame = pd.DataFrame(
                {
                    "interval": interval,
                    "bus": network.port_bus[ports[shown]].astype(object),
                    "phase_of_bus": network.port_phase[ports[shown]].astype(object),
                }
            )
            for name, value in zip(LABELS, share.labels, strict=True):
                frame[name] = pd.Series([value] * len(shown), dtype="Float64" if name == "limit" else object)
            frame[SHARES[0]], frame[SHARES[1]] = share.real[shown], share.reactive[shown]
            parts.append(frame)
        return pd.concat(parts, ignore_index=True)

    def shares(self, ports: IntArray, interval: int) -> Iterator[Share]:
        """Everything that makes the prices at `ports` in an interval."""
        yield from self._energy(ports, interval)
        lost = self.prices.loss[interval, ports], self.prices.loss_q[interval, ports]
        yield Share("loss", "network losses", *lost)
        yield from self._import_scarcity(ports, interval)
        yield from self._limits(ports, interval)

    def _energy(self, ports: IntArray, interval: int) -> Iterator[Share]:
        """What the substation charges, and what the limits of import add; the same everywhere."""
        substation, none = self.case.substation, np.zeros(len(ports))
        energy = self.prices.energy[interval, ports], self.prices.energy_q[interval, ports]
        charged = substation.price_usd_per_mwh[interval], substation.q_price_usd_per_mvarh[interval]
        rest = [part - price for part, price in zip(energy, charged, strict=True)]
        is_told = [bool((np.abs(part) > self.tolerance_usd_per_mwh).any()) for part in rest]
        bought = [none + charged[kind] if is_told[kind] else energy[kind] for kind in range(2)]
        yield Share("energy", "substation price", bought[0], bought[1])
        if is_told[0]:
            yield Share("energy", REAL_IMPORT, rest[0], none, unit="kW")
        if is_told[1]:
            yield Share("energy", REACTIVE_IMPORT, none, rest[1], unit="kvar")

    def _import_scarcity(self, ports: IntArray, interval: int) -> Iterator[Share]:
        """Broken ends of the import's range: their shares include the losses of import."""
        scarce, broken = self.scarcity.weights, self.scarcity.table
        for number, (name, (element, unit)) in enumerate(IMPORT_NAMES.items()):
            own = broken[(broken.element == element) & (broken.interval == interval)]
            for limit in own.limit:
                gradient = self.dispatch.point.import_gradients(ports, np.array([interval]))[number][0]
                real, reactive = -getattr(scarce, name)[interval] * gradient
                yield Share(SCARCITY, element, real, reactive, limit=float(limit), unit=unit)

    def _limits(self, ports: IntArray, interval: int) -> Iterator[Share]:
        """Limits of the network, as scheduled and in every called state of the interval."""
        work, limits, market = self.dispatch, self.dispatch.formulation.limits, self.dispatch.market
        states = np.flatnonzero(market.state_interval == interval)
        row = work.weights.limits[states].tocoo()
        is_scarce = self.scarcity.weights.limits[states].toarray()[row.row, row.col] != 0
        gradient = work.point.limit_gradients(states[row.row], row.col, ports) * row.data[:, None, None]
        shown = limits.physical(row.col, np.where(row.data > 0, limits.lower[row.col], limits.upper[row.col]))
        for number, limit in enumerate(row.col):
            yield Share(
                component=SCARCITY if is_scarce[number] else str(limits.cause[limit]),
                element=str(limits.element[limit]),
                real=gradient[number, 0],
                reactive=gradient[number, 1],
                phase=str(limits.phase[limit]),
                end=str(limits.end[limit]),
                called=market.call_name(int(states[row.row[number]])),
                limit=float(shown[number]),
                unit=str(limits.unit[limit]),
            )
