"""What a clearing found, as records over arrays; every record has a `table`."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from dlmp.bids import Resources
from dlmp.market import Horizon, MarketCase
from dlmp.network.model import ComplexArray, FloatArray, Network
from dlmp.prices import interval_keys, port_keys
from dlmp.services import SERVICES
from dlmp.units import BASE_KVA, KW_PER_MW

ACCEPTED_SHARE = 1e-6
"""A block of which less is accepted is rejected."""
SMALLEST_PAYMENT = 1e-6
"""A loss below this is that of a block at its own price [currency]."""
SMALLEST_RESERVE_KW = 1e-4
"""An offer of a service of which less is reserved has no award."""


@dataclass(frozen=True, eq=False)
class Awards:
    """What every resource and bid segment was awarded.

    Parameters
    ----------
    case
        The market case.
    segment_kw, segment_kvar
        (t, s) Accepted part of each bid segment, of real [kW] and of reactive power [kvar].
    net_injection_kw, q_kvar
        (t, r) Power of each resource into the grid [kW], [kvar].
    lmp_usd_per_mwh, lmp_q_usd_per_mvarh
        (t, r) Prices where it stands: the mean over its phases, each by its share.
    """

    case: MarketCase = field(repr=False)
    segment_kw: FloatArray
    segment_kvar: FloatArray
    net_injection_kw: FloatArray
    q_kvar: FloatArray
    lmp_usd_per_mwh: FloatArray
    lmp_q_usd_per_mvarh: FloatArray

    def injection_kva(self) -> ComplexArray:
        """(t, p) Complex injection at every port of awards and loads of constant power [kVA]."""
        awarded = (self.net_injection_kw + 1j * self.q_kvar) @ self.case.resources.share
        return np.asarray(awarded - self.case.load_pu * BASE_KVA)

    def table(self) -> pd.DataFrame:
        """One row per interval and resource."""
        resources, horizon = self.case.resources, self.case.horizon
        frame = interval_keys(horizon, len(resources))
        frame["resource"] = np.tile(resources.name.astype(object), horizon.intervals)
        frame["kind"] = np.tile(resources.kind.astype(object), horizon.intervals)
        network = self.case.network
        frame["bus"] = np.tile(network.port_bus[resources.first_port].astype(object), horizon.intervals)
        frame["phase"] = np.tile(resource_phases(network, resources), horizon.intervals)
        for name in ("net_injection_kw", "q_kvar", "lmp_usd_per_mwh", "lmp_q_usd_per_mvarh"):
            frame[name] = getattr(self, name).ravel()
        return frame

    def segment_table(self) -> pd.DataFrame:
        """One row per interval and offered bid segment; one that is self-scheduled has a blank price."""
        bids, horizon = self.case.bids, self.case.horizon
        frame = interval_keys(horizon, len(bids))
        frame["resource"] = np.tile(self.case.resources.name[bids.resource].astype(object), horizon.intervals)
        frame["side"] = np.tile(np.where(bids.is_supply, "supply", "demand").astype(object), horizon.intervals)
        frame["segment"] = np.tile(bids.segment, horizon.intervals)
        frame["quantity_kw"] = bids.quantity_kw.ravel()
        for name, price in (
            ("price_usd_per_mwh", bids.price_usd_per_mwh),
            ("price_end_usd_per_mwh", bids.price_usd_per_mwh + bids.price_rise_usd_per_mwh),
        ):
            frame[name] = pd.arrays.FloatingArray(price.ravel(), bids.is_self_scheduled.ravel())
        frame["award_kw"] = self.segment_kw.ravel()
        return frame[frame.quantity_kw > 0].reset_index(drop=True)

    def reactive_segment_table(self) -> pd.DataFrame:
        """One row per interval and offered segment of reactive power."""
        bids, horizon = self.case.reactive_bids, self.case.horizon
        frame = interval_keys(horizon, len(bids))
        frame["resource"] = np.tile(self.case.resources.name[bids.resource].astype(object), horizon.intervals)
        frame["side"] = np.tile(np.where(bids.is_injection, "inject", "absorb").astype(object), horizon.intervals)
        frame["segment"] = np.tile(bids.segment, horizon.intervals)
        frame["quantity_kvar"] = bids.quantity_kvar.ravel()
        frame["price_usd_per_mvarh"] = bids.price_usd_per_mvarh.ravel()
        frame["price_end_usd_per_mvarh"] = (bids.price_usd_per_mvarh + bids.price_rise_usd_per_mvarh).ravel()
        frame["award_kvar"] = self.segment_kvar.ravel()
        return frame[frame.quantity_kvar > 0].reset_index(drop=True)


@dataclass(frozen=True, eq=False)
class StoreAwards:
    """What every store does, each (t, k).

    Parameters
    ----------
    case
        The market case.
    charge_kw, discharge_kw
        Power from and into the grid [kW].
    energy_kwh
        Energy at the end of each interval [kWh].
    shortfall_kwh
        What it lacks of the least energy [kWh].
    value_usd_per_mwh
        What one more MWh in the store at the end of the interval would save [currency/MWh].
    """

    case: MarketCase = field(repr=False)
    charge_kw: FloatArray
    discharge_kw: FloatArray
    energy_kwh: FloatArray
    shortfall_kwh: FloatArray
    value_usd_per_mwh: FloatArray

    def table(self) -> pd.DataFrame:
        """One row per interval and store."""
        names = self.case.resources.name[self.case.stores.resource]
        frame = interval_keys(self.case.horizon, len(names))
        frame["resource"] = np.tile(names.astype(object), self.case.horizon.intervals)
        for name in ("charge_kw", "discharge_kw", "energy_kwh", "shortfall_kwh", "value_usd_per_mwh"):
            frame[name] = getattr(self, name).ravel()
        return frame


@dataclass(frozen=True, eq=False)
class BlockAwards:
    """Which blocks are accepted, and how they fare at the published prices.

    Parameters
    ----------
    case
        The market case.
    block_kw
        (t, b) Accepted power of each block [kW].
    lmp_usd_per_mwh
        (t, r) Price where each resource stands.
    """

    case: MarketCase = field(repr=False)
    block_kw: FloatArray
    lmp_usd_per_mwh: FloatArray

    @property
    def share(self) -> FloatArray:
        """(b,) Accepted part of the quantity."""
        return np.asarray(self.block_kw.max(axis=0, initial=0.0) / self.case.blocks.quantity_kw)

    @property
    def is_accepted(self) -> npt.NDArray[np.bool_]:
        """(b,) True for the accepted blocks."""
        return self.share > ACCEPTED_SHARE

    def as_bid(self) -> FloatArray:
        """(b,) Cost of what is accepted at the blocks' own prices, negative for the value of demand [currency]."""
        blocks = self.case.blocks
        return np.asarray(self._energy_mwh(self.block_kw).sum(axis=0) * blocks.sign * blocks.price_usd_per_mwh)

    def revenue(self) -> FloatArray:
        """(b,) What accepted blocks are paid at the published prices, negative for what they pay [currency]."""
        return np.asarray((self._energy_mwh(self.block_kw) * self._price()).sum(axis=0) * self.case.blocks.sign)

    def payment(self) -> FloatArray:
        """(b,) What the accepted blocks' revenue lacks of their cost [currency]."""
        return np.where(self.is_accepted, np.maximum(self.as_bid() - self.revenue(), 0.0), 0.0)

    def forgone(self) -> FloatArray:
        """(b,) What each rejected block would have gained at the published prices [currency].

        Above zero the rejection is *paradoxical*: prices move when the block is accepted, or another of its exclusive
        group gains more to the market.
        """
        blocks = self.case.blocks
        offered = self._energy_mwh(blocks.offered_kw(len(self.block_kw)))
        gain = (offered * (self._price() - blocks.price_usd_per_mwh)).sum(axis=0) * blocks.sign
        return np.where(self.is_accepted, 0.0, np.maximum(gain, 0.0))

    def _energy_mwh(self, power_kw: FloatArray) -> FloatArray:
        return power_kw * self.case.horizon.interval_hours / KW_PER_MW

    def _price(self) -> FloatArray:
        return np.asarray(self.lmp_usd_per_mwh[:, self.case.blocks.resource])

    def table(self) -> pd.DataFrame:
        """One row per block."""
        blocks = self.case.blocks
        return pd.DataFrame(
            {
                "block": blocks.name.astype(object),
                "resource": self.case.resources.name[blocks.resource].astype(object),
                "side": np.where(blocks.is_supply, "supply", "demand").astype(object),
                "exclusive_group": blocks.group.astype(object),
                "first_interval": blocks.first,
                "last_interval": blocks.last,
                "accepted_share": self.share,
                "as_bid_usd": self.as_bid(),
                "revenue_usd": self.revenue(),
                "make_whole_usd": self.payment(),
                "forgone_usd": self.forgone(),
            }
        )

    def make_whole(self) -> pd.DataFrame:
        """One row per accepted block that loses money at the published prices, and the payment that makes up for it.

        Returns
        -------
        Rows with ``resource, block, as_bid_usd, revenue_usd, payment_usd`` [currency].
        """
        table = self.table().rename(columns={"make_whole_usd": "payment_usd"})
        columns = ["resource", "block", "as_bid_usd", "revenue_usd", "payment_usd"]
        return table.loc[table.payment_usd > SMALLEST_PAYMENT, columns].reset_index(drop=True)


@dataclass(frozen=True)
class ServiceTotal:
    """A service over the horizon.

    Parameters
    ----------
    reserved_kw_h, shortage_kw_h
        Power held ready, and what requirements lack, times hours [kW h], [kvar h].
    as_offered_usd, paid_usd
        Cost at the prices of the offers, and at the nodal prices [currency].
    price_range_usd_per_mw_h
        Least and highest nodal price of an award [currency/MW, for each hour]; None without any.
    """

    reserved_kw_h: float
    shortage_kw_h: float
    as_offered_usd: float
    paid_usd: float
    price_range_usd_per_mw_h: tuple[float, float] | None


@dataclass(frozen=True, eq=False)
class ServiceAwards:
    """What every offer of a service was awarded, each (t, k), and the price of each requirement.

    Parameters
    ----------
    case
        The market case.
    reserved_kw
        Power to hold ready [kW], [kvar] of a VAR service.
    price_usd_per_mw_h
        What one more MW or MVAr held ready there would save [currency/MW, for each hour].
    requirement, congestion, voltage, unbalance, scarcity
        Its parts: what it is worth to the requirements, what the limits of the network in called states take, and what
        requirements that are not met and limits that are broken make of it.
    shortage_kw
        (t, m) What each requirement lacks [kW], [kvar].
    requirement_usd_per_mw_h
        (t, m) Price of each requirement [currency/MW, for each hour].
    """

    case: MarketCase = field(repr=False)
    reserved_kw: FloatArray
    price_usd_per_mw_h: FloatArray
    requirement: FloatArray
    congestion: FloatArray
    voltage: FloatArray
    unbalance: FloatArray
    scarcity: FloatArray
    shortage_kw: FloatArray
    requirement_usd_per_mw_h: FloatArray

    def payment(self) -> FloatArray:
        """(t, k) What each offer is paid for what it reserves [currency]."""
        return self.reserved_kw * self.price_usd_per_mw_h * self.case.horizon.interval_hours / KW_PER_MW

    def totals(self) -> dict[str, ServiceTotal]:
        """What became of each service that is offered or required."""
        case, hours = self.case, self.case.horizon.interval_hours
        offers, requirements = case.service_offers, case.requirements
        payment, figures = self.payment(), {}
        for service in SERVICES:
            own, required = offers.service == service, requirements.service == service
            if not (own.any() or required.any()):
                continue
            reserved = self.reserved_kw[:, own]
            price = self.price_usd_per_mw_h[:, own][reserved > SMALLEST_RESERVE_KW]
            figures[service] = ServiceTotal(
                reserved_kw_h=float(reserved.sum()) * hours,
                shortage_kw_h=float(self.shortage_kw[:, required].sum()) * hours,
                as_offered_usd=float((reserved * offers.price_usd_per_mw_h[:, own]).sum()) * hours / KW_PER_MW,
                paid_usd=float(payment[:, own].sum()),
                price_range_usd_per_mw_h=(float(price.min()), float(price.max())) if len(price) else None,
            )
        return figures

    def table(self) -> pd.DataFrame:
        """One row per interval and offer."""
        offers, intervals = self.case.service_offers, self.case.horizon.intervals
        frame = interval_keys(self.case.horizon, len(offers))
        names = self.case.resources.name[offers.resource].astype(object)
        frame["resource"], frame["service"] = (
            np.tile(names, intervals),
            np.tile(offers.service.astype(object), intervals),
        )
        frame["unit"] = np.tile(np.where(offers.is_reactive, "kvar", "kW").astype(object), intervals)
        frame["offered"], frame["reserved"] = offers.quantity_kw.ravel(), self.reserved_kw.ravel()
        frame["offer_usd_per_mw_h"] = offers.price_usd_per_mw_h.ravel()
        for name in ("price_usd_per_mw_h", "requirement", "congestion", "voltage", "unbalance", "scarcity"):
            frame[name] = getattr(self, name).ravel()
        return frame

    def requirement_table(self) -> pd.DataFrame:
        """One row per interval and requirement."""
        requirements, intervals = self.case.requirements, self.case.horizon.intervals
        frame = interval_keys(self.case.horizon, len(requirements))
        for name in ("name", "service", "place"):
            frame[name] = np.tile(getattr(requirements, name).astype(object), intervals)
        frame["required"], frame["shortage"] = requirements.quantity_kw.ravel(), self.shortage_kw.ravel()
        frame["price_usd_per_mw_h"] = self.requirement_usd_per_mw_h.ravel()
        return frame


def resource_phases(network: Network, resources: Resources) -> npt.NDArray[np.object_]:
    """(r,) Phases of each resource: ``2``, ``12`` for a pair, ``123`` for all three."""
    phases = []
    for row in range(len(resources)):
        labels = network.port_phase[resources.share.indices[slice(*resources.share.indptr[row : row + 2])]]
        phases.append("".join(sorted(set("".join(labels.tolist())))))
    return np.array(phases, dtype=object)


@dataclass(frozen=True, eq=False)
class Voltages:
    """Voltage magnitude at every one of the network's `voltage_ports`, (t, k) [pu].

    That is to ground at every node, or over 1.73 between the phases of a bus that floats behind a delta winding.
    """

    network: Network = field(repr=False)
    horizon: Horizon
    v_pu: FloatArray

    def table(self) -> pd.DataFrame:
        """One row per interval and port."""
        ports = self.network.voltage_ports
        frame, node = port_keys(self.network, self.horizon, ports), self.network.port_node[ports]
        frame["v_pu"] = self.v_pu.ravel()
        frame["v_min_pu"] = np.tile(self.network.v_min_pu[node], self.horizon.intervals)
        frame["v_max_pu"] = np.tile(self.network.v_max_pu[node], self.horizon.intervals)
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
        (t, m) Larger of both ends' current or apparent power over its rating; blank in the table where it has none.
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
            ("from_phase", network.phase[network.from_node]),
            ("to_phase", network.phase[network.to_node]),
        ):
            frame[name] = np.tile(values.astype(object), intervals)
        frame["p_from_kw"], frame["q_from_kvar"] = self.from_kva.real.ravel(), self.from_kva.imag.ravel()
        frame["p_to_kw"], frame["q_to_kvar"] = self.to_kva.real.ravel(), self.to_kva.imag.ravel()
        rated = np.isfinite(np.minimum(network.rating_from_pu, network.rating_to_pu))
        frame["loading_percent"] = pd.arrays.FloatingArray(100 * self.loading.ravel(), np.tile(~rated, intervals))
        return frame
