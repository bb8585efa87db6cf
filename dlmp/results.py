"""What a clearing found, as records over arrays; every record has a `table`."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from dlmp.market import Horizon, MarketCase
from dlmp.network.model import ComplexArray, FloatArray, Network
from dlmp.prices import interval_keys, node_keys


@dataclass(frozen=True, eq=False)
class Awards:
    """What every resource and bid segment was awarded.

    Parameters
    ----------
    case
        The market case.
    segment_kw
        (t, s) Accepted part of each bid segment [kW].
    net_injection_kw, q_kvar
        (t, r) Power of each resource into the grid [kW], [kvar].
    lmp_usd_per_mwh, lmp_q_usd_per_mvarh
        (t, r) Prices at its node.
    """

    case: MarketCase = field(repr=False)
    segment_kw: FloatArray
    net_injection_kw: FloatArray
    q_kvar: FloatArray
    lmp_usd_per_mwh: FloatArray
    lmp_q_usd_per_mvarh: FloatArray

    def table(self) -> pd.DataFrame:
        """One row per interval and resource."""
        resources, horizon = self.case.resources, self.case.horizon
        frame = interval_keys(horizon, len(resources))
        frame["resource"] = np.tile(resources.name.astype(object), horizon.intervals)
        frame["kind"] = np.tile(resources.kind.astype(object), horizon.intervals)
        frame["bus"] = np.tile(self.case.network.bus[resources.node].astype(object), horizon.intervals)
        frame["phase"] = np.tile(self.case.network.phase[resources.node].astype(object), horizon.intervals)
        for name in ("net_injection_kw", "q_kvar", "lmp_usd_per_mwh", "lmp_q_usd_per_mvarh"):
            frame[name] = getattr(self, name).ravel()
        return frame

    def segment_table(self) -> pd.DataFrame:
        """One row per interval and offered bid segment."""
        bids, horizon = self.case.bids, self.case.horizon
        frame = interval_keys(horizon, len(bids))
        frame["resource"] = np.tile(self.case.resources.name[bids.resource].astype(object), horizon.intervals)
        frame["side"] = np.tile(np.where(bids.is_supply, "supply", "demand").astype(object), horizon.intervals)
        frame["segment"] = np.tile(bids.segment, horizon.intervals)
        frame["quantity_kw"] = bids.quantity_kw.ravel()
        frame["price_usd_per_mwh"] = bids.price_usd_per_mwh.ravel()
        frame["award_kw"] = self.segment_kw.ravel()
        return frame[frame.quantity_kw > 0].reset_index(drop=True)


@dataclass(frozen=True, eq=False)
class Voltages:
    """Voltage magnitude of every node, (t, n) [pu]."""

    network: Network = field(repr=False)
    horizon: Horizon
    v_pu: FloatArray

    def table(self) -> pd.DataFrame:
        """One row per interval and node."""
        frame = node_keys(self.network, self.horizon)
        frame["v_pu"] = self.v_pu.ravel()
        frame["v_min_pu"] = np.tile(self.network.v_min_pu, self.horizon.intervals)
        frame["v_max_pu"] = np.tile(self.network.v_max_pu, self.horizon.intervals)
        return frame


@dataclass(frozen=True, eq=False)
class Flows:
    """Power of every branch, (t, m): positive from -> to at the from end, and what arrives at the to end.

    Parameters
    ----------
    network, horizon
        Where and when.
    from_kva, to_kva
        (t, m) Complex power in at the from end, and out at the to end [kVA].
    loading
        (t, m) Larger of both ends' current or apparent power over its rating; 0 where there is none.
    """

    network: Network = field(repr=False)
    horizon: Horizon
    from_kva: ComplexArray
    to_kva: ComplexArray
    loading: FloatArray

    def table(self) -> pd.DataFrame:
        """One row per interval and branch."""
        network, intervals = self.network, self.horizon.intervals
        frame = interval_keys(self.horizon, network.branch_count)
        for name, values in (
            ("branch", network.branch),
            ("kind", network.branch_kind),
            ("from_bus", network.bus[network.from_node]),
            ("to_bus", network.bus[network.to_node]),
            ("phase", network.phase[network.from_node]),
        ):
            frame[name] = np.tile(values.astype(object), intervals)
        frame["p_from_kw"], frame["q_from_kvar"] = self.from_kva.real.ravel(), self.from_kva.imag.ravel()
        frame["p_to_kw"], frame["q_to_kvar"] = self.to_kva.real.ravel(), self.to_kva.imag.ravel()
        frame["loading_percent"] = 100 * self.loading.ravel()
        return frame
