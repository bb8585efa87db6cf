"""From multipliers to nodal prices, split by cause.

The price of a node is the derivative of the least cost by demand there.  With the marginal cost
``w`` of import and the multipliers ``y`` of the limits ``g``,

    price[n] = -sum_t w dP0/dP_n + sum_m y_m dg_m/dP_n

(Bai et al., IEEE Trans. Smart Grid 9(5), 2018, for the decomposition): ``energy`` is ``w`` itself,
``loss`` the rest of the first sum, ``congestion`` and ``voltage`` the limits' share.  Reactive
prices follow with dQ for dP, their ``energy`` being the marginal cost of reactive import.
"""

from dataclasses import dataclass, field, fields

import numpy as np
import pandas as pd
from scipy import sparse

from dlmp.formulation.interface import CONGESTION, VOLTAGE, Limits, OperatingPoint, Weights
from dlmp.market import Horizon
from dlmp.network.model import FloatArray, IntArray, Network, frozen

COMPONENTS = ("energy", "loss", "congestion", "voltage")


@dataclass(frozen=True, eq=False)
class Prices:
    """Nodal prices of real [currency/MWh] and reactive power [currency/MVArh], each array (t, n)."""

    network: Network = field(repr=False)
    horizon: Horizon
    lmp_usd_per_mwh: FloatArray
    energy: FloatArray
    loss: FloatArray
    congestion: FloatArray
    voltage: FloatArray
    lmp_q_usd_per_mvarh: FloatArray
    energy_q: FloatArray
    loss_q: FloatArray
    congestion_q: FloatArray
    voltage_q: FloatArray

    def table(self) -> pd.DataFrame:
        """One row per interval and node: keys, price and components."""
        frame = node_keys(self.network, self.horizon)
        for item in fields(self):
            if item.name not in ("network", "horizon"):
                frame[item.name] = getattr(self, item.name).ravel()
        return frame


def node_keys(network: Network, horizon: Horizon) -> pd.DataFrame:
    """Columns ``interval_start, interval, bus, phase`` of a table over (t, n)."""
    frame = interval_keys(horizon, network.node_count)
    frame["bus"] = np.tile(network.bus.astype(object), horizon.intervals)
    frame["phase"] = np.tile(network.phase.astype(object), horizon.intervals)
    return frame


def interval_keys(horizon: Horizon, width: int) -> pd.DataFrame:
    """Columns ``interval_start, interval`` of a table over (t, width)."""
    starts = pd.DatetimeIndex(horizon.starts)
    return pd.DataFrame(
        {"interval_start": np.repeat(starts, width), "interval": np.repeat(np.arange(horizon.intervals), width)}
    )


def decompose(network: Network, horizon: Horizon, limits: Limits, point: OperatingPoint, weights: Weights) -> Prices:
    """Price every node at `point` from the multipliers `weights`.

    The total comes from one adjoint of the whole Lagrangian, the components from one adjoint each.
    """
    nodes = np.arange(network.node_count)
    imports = import_share(point, weights, nodes)
    energy = np.stack([weights.import_p, weights.import_q], axis=1)[:, :, None] + np.zeros_like(imports)
    parts = {
        "energy": energy,
        "loss": imports - energy,
        "congestion": point.weighted_limit_gradient(_only(weights.limits, limits, CONGESTION), nodes),
        "voltage": point.weighted_limit_gradient(_only(weights.limits, limits, VOLTAGE), nodes),
    }
    total = -point.lagrangian(weights).gradient(nodes)
    return Prices(
        network,
        horizon,
        lmp_usd_per_mwh=frozen(total[:, 0]),
        **{name: frozen(part[:, 0]) for name, part in parts.items()},
        lmp_q_usd_per_mvarh=frozen(total[:, 1]),
        **{f"{name}_q": frozen(part[:, 1]) for name, part in parts.items()},
    )


def import_share(point: OperatingPoint, weights: Weights, nodes: IntArray) -> FloatArray:
    """Energy and loss together, (t, 2, nodes)."""
    real, reactive = point.import_gradients(nodes)
    return -weights.import_p[:, None, None] * real - weights.import_q[:, None, None] * reactive


def _only(weights: sparse.csr_array, limits: Limits, cause: str) -> sparse.csr_array:
    return sparse.csr_array(weights @ sparse.diags_array((limits.cause == cause).astype(float)))
