"""From multipliers to nodal prices, split by cause.

The price of a node is the derivative of the least cost by demand there.  With the marginal cost
``w`` of import and the multipliers ``y`` of the limits ``g``,

    price[n] = -sum_t w dP0/dP_n + sum_m y_m dg_m/dP_n

(Bai et al., IEEE Trans. Smart Grid 9(5), 2018, for the decomposition): ``energy`` is ``w`` itself,
``loss`` the rest of the first sum, ``congestion``, ``voltage`` and ``unbalance`` the limits' shares.  Reactive
prices follow with dQ for dP, their ``energy`` being the marginal cost of reactive import.  What the multipliers of
*broken* limits make is ``scarcity`` instead: their shares, and of ``w``, losses included, the part that the broken
range of the import makes.
"""

from dataclasses import dataclass, field, fields

import numpy as np
import pandas as pd
from scipy import sparse

from dlmp.formulation.interface import CONGESTION, UNBALANCE, VOLTAGE, Limits, OperatingPoint, Weights
from dlmp.market import Horizon
from dlmp.network.model import ComplexArray, FloatArray, IntArray, Network, frozen

SCARCITY = "scarcity"
COMPONENTS = ("energy", "loss", "congestion", "voltage", "unbalance", SCARCITY)
RARE = ("unbalance", SCARCITY)
"""Components that are shown only where they are not zero throughout."""


@dataclass(frozen=True, eq=False)
class Prices:
    """Prices of real [currency/MWh] and reactive power [currency/MVArh] at every port, each array (t, p)."""

    network: Network = field(repr=False)
    horizon: Horizon
    lmp_usd_per_mwh: FloatArray
    energy: FloatArray
    loss: FloatArray
    congestion: FloatArray
    voltage: FloatArray
    unbalance: FloatArray
    scarcity: FloatArray
    lmp_q_usd_per_mvarh: FloatArray
    energy_q: FloatArray
    loss_q: FloatArray
    congestion_q: FloatArray
    voltage_q: FloatArray
    unbalance_q: FloatArray
    scarcity_q: FloatArray

    @property
    def components_in_use(self) -> tuple[str, ...]:
        """`COMPONENTS` without those of `RARE` that are zero."""
        return tuple(name for name in COMPONENTS if name not in RARE or getattr(self, name).any())

    @property
    def ports(self) -> IntArray:
        """(k,) Ports whose price is published."""
        return np.flatnonzero(self.network.is_priced)

    @property
    def published(self) -> FloatArray:
        """(t, k) Price of real power at `ports`."""
        return np.asarray(self.lmp_usd_per_mwh[:, self.ports])

    def table(self) -> pd.DataFrame:
        """One row per interval and priced port: keys, price and components.

        A port is a node; where the voltage to ground is not determined it is a pair of phases (``12``).
        """
        ports = self.ports
        frame = port_keys(self.network, self.horizon, ports)
        for item in fields(self):
            if item.name not in ("network", "horizon"):
                frame[item.name] = getattr(self, item.name)[:, ports].ravel()
        return frame


def port_keys(network: Network, horizon: Horizon, ports: IntArray) -> pd.DataFrame:
    """Columns ``interval_start, interval, bus, phase`` of a table over (t, ports)."""
    frame = interval_keys(horizon, len(ports))
    frame["bus"] = np.tile(network.port_bus[ports].astype(object), horizon.intervals)
    frame["phase"] = np.tile(network.port_phase[ports].astype(object), horizon.intervals)
    return frame


def interval_keys(horizon: Horizon, width: int) -> pd.DataFrame:
    """Columns ``interval_start, interval`` of a table over (t, width)."""
    starts = pd.DatetimeIndex(horizon.starts)
    return pd.DataFrame(
        {"interval_start": np.repeat(starts, width), "interval": np.repeat(np.arange(horizon.intervals), width)}
    )


def decompose(
    network: Network,
    horizon: Horizon,
    limits: Limits,
    point: OperatingPoint,
    weights: Weights,
    interval: IntArray,
    scarce: Weights | None = None,
) -> Prices:
    """Price every port at `point`, whose states each belong to an `interval`, from the multipliers `weights`.

    Of these, `scarce` is the part of broken limits.  The total comes from one adjoint of the whole Lagrangian, the
    components from one adjoint each.  One more kW of demand is there in every state of its interval: their shares add
    up.
    """
    ports = np.arange(network.port_count)
    scarce = scarce or Weights.zero(len(interval), len(limits))
    kept = weights.less(scarce)
    imports = import_share(point, kept, ports)
    energy = np.stack([kept.import_p, kept.import_q], axis=1)[:, :, None] + np.zeros_like(imports)
    by_state = {
        "energy": energy,
        "loss": imports - energy,
        **{cause: limit_share(limits, point, kept, cause, ports) for cause in (CONGESTION, VOLTAGE, UNBALANCE)},
        SCARCITY: import_share(point, scarce, ports) + point.weighted_limit_gradient(scarce.limits, ports),
    }
    parts = {name: by_interval(part, interval, horizon.intervals) for name, part in by_state.items()}
    total = by_interval(-point.lagrangian(weights).gradient(ports), interval, horizon.intervals)
    return Prices(
        network,
        horizon,
        lmp_usd_per_mwh=frozen(total[:, 0]),
        **{name: frozen(part[:, 0]) for name, part in parts.items()},
        lmp_q_usd_per_mvarh=frozen(total[:, 1]),
        **{f"{name}_q": frozen(part[:, 1]) for name, part in parts.items()},
    )


def by_interval(value: FloatArray, interval: IntArray, intervals: int) -> FloatArray:
    """Sum of `value` (states, ...) over the states of each interval, (t, ...)."""
    total = np.array(value[:intervals])
    np.add.at(total, interval[intervals:], value[intervals:])
    return total


def import_share(point: OperatingPoint, weights: Weights, ports: IntArray) -> FloatArray:
    """Energy and loss together, (t, 2, ports)."""
    bought = np.flatnonzero((weights.import_p != 0) | (weights.import_q != 0))
    real, reactive = point.import_gradients(ports, bought)
    share = np.zeros((len(weights.import_p), 2, len(ports)))
    share[bought] = -weights.import_p[bought, None, None] * real - weights.import_q[bought, None, None] * reactive
    return share


def limit_share(limits: Limits, point: OperatingPoint, weights: Weights, cause: str, ports: IntArray) -> FloatArray:
    """What the limits of one `cause` add to the price in every state, (states, 2, ports)."""
    own = weights.limits @ sparse.diags_array((limits.cause == cause).astype(float))
    return point.weighted_limit_gradient(sparse.csr_array(own), ports)


def limit_slopes(point: OperatingPoint, binding: sparse.coo_array, injection_pu: ComplexArray) -> FloatArray:
    """(i,) What injections (states, p) [pu] add to first order to each limit with an entry in `binding` (states, k)."""
    ports, slope = np.arange(injection_pu.shape[1]), np.zeros(binding.nnz)
    for state in np.unique(binding.row):
        own = np.flatnonzero(binding.row == state)
        gradient = point.limit_gradients(binding.row[own], binding.col[own], ports)
        here = injection_pu[state]
        slope[own] = gradient[:, 0] @ here.real + gradient[:, 1] @ here.imag
    return slope
