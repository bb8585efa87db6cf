"""Pictures of a clearing: the feeder coloured by price, a bus's price over the day, a resource's curve and its award.

Figures are made without pyplot and its global state; what comes back is a matplotlib `Axes`, whose
``figure.savefig`` writes a file.
"""

from dataclasses import dataclass, fields
from datetime import timedelta
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import Normalize
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, DateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dlmp.clearing import Clearing
from dlmp.errors import InputError, Problem
from dlmp.formulation.interface import CONGESTION, UNBALANCE, VOLTAGE
from dlmp.labels import Label, write_labels
from dlmp.market import MarketCase
from dlmp.network.model import BALANCED_PHASE, FloatArray, Network, some_of
from dlmp.oneline import Diagram, diagram
from dlmp.prices import Prices

COLOURS = {
    "energy": "#0072B2",
    "loss": "#E69F00",
    "congestion": "#CC79A7",
    "voltage": "#009E73",
    "unbalance": "#56B4E9",
    "scarcity": "#F0E442",
}
"""Of the price components: Okabe and Ito's, which the colour-blind can tell apart."""
BINDING = "#D55E00"
"""Of limits that bind."""
GREY = "0.55"
MOST_NAMES = 45
"""Feeders with more nodes than this have only the notable ones labelled."""
RING = 1.6
"""Of the mark of a voltage that binds: its diameter over the node's."""


def feeder(clearing: Clearing, interval: int = 0, component: str = "lmp_usd_per_mwh", ax: Axes | None = None) -> Axes:
    """Draw the feeder at one interval, every bus in the colour of its price, the mean of its phases'.

    Sources are squares; a line is as wide as its loading, or in a feeder without ratings as its share of
    the largest apparent power; limits that bind or are broken are marked and named.

    Parameters
    ----------
    clearing
        What to show.
    interval
        Interval, from 0.
    component
        Array of `dlmp.prices.Prices`: a price or one of its components.
    ax
        Where to draw; default: a figure of its own.
    """
    network = clearing.case.network
    values = _bus_means(network, _prices(clearing, interval, component))
    drawing = diagram(network)
    ax = ax or _figure(*_feeder_size(drawing))
    binding = _Binding.at(clearing, interval)
    _draw_branches(ax, drawing, _branch_share(clearing, interval), binding)
    _frame(ax, drawing, _feeder_title(clearing, interval, values), _legend(network, binding))
    diameter = float(np.clip(0.35 * _column_points(ax), 2.5, 10.5))
    nodes = _draw_nodes(ax, network, drawing, values, diameter)
    _draw_rings(ax, drawing, binding, RING * diameter)
    bar = ax.figure.colorbar(nodes, ax=ax, pad=0.01, fraction=0.05, aspect=30)
    bar.set_label(_axis_label(clearing, component))
    bar.outline.set_visible(False)
    write_labels(ax, _labels(network, drawing, values, binding, diameter / 2), drawing, diameter / 2)
    return ax


def price_stack(clearing: Clearing, bus: str, ax: Axes | None = None, phase: str | None = None) -> Axes:
    """Draw the price of a bus over the horizon as the sum of its components [currency/MWh].

    Parameters
    ----------
    clearing
        What to show.
    bus
        Bus, or an alias of it.
    ax
        Where to draw; default: a figure of its own.
    phase
        Phase, or pair of phases such as ``12``; default: the only one of the bus.
    """
    case, prices = clearing.case, clearing.prices
    node, zone = case.network.node(bus, phase), ZoneInfo(case.horizon.timezone)
    ax = ax or _figure(8.0, 3.8)
    step = timedelta(minutes=case.horizon.interval_minutes)
    edges = date2num([*case.horizon.starts, case.horizon.starts[-1] + step])
    above, below = np.zeros(case.horizon.intervals), np.zeros(case.horizon.intervals)
    for name in prices.components_in_use:
        value = getattr(prices, name)[:, node]
        bottom = np.where(value >= 0, above, below)
        ax.bar(edges[:-1], value, np.diff(edges), bottom, align="edge", color=COLOURS[name], label=name)
        above, below = above + np.maximum(value, 0), below + np.minimum(value, 0)
    ax.stairs(prices.lmp_usd_per_mwh[:, node], edges, baseline=None, color="black", linewidth=1.6, label="price")
    ax.axhline(0, color="0.4", linewidth=0.8)
    ax.set_xlim(edges[0], edges[-1])
    locator = AutoDateLocator(tz=zone, minticks=3, maxticks=9)
    within_a_day = step * case.horizon.intervals <= timedelta(days=1, hours=1)
    hours, days = DateFormatter("%H:%M", tz=zone), ConciseDateFormatter(locator, tz=zone, show_offset=False)
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(hours if within_a_day else days)
    ax.set_xlabel(case.horizon.timezone)
    ax.set_ylabel(_axis_label(clearing, "lmp_usd_per_mwh"))
    ax.set_title(
        f"{case.name}: price at bus {bus if phase is None else f'{bus}.{phase}'}, {case.horizon.local(0):%a %Y-%m-%d}",
        loc="left",
        fontsize=10,
        parse_math=False,
    )
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8.5)
    return ax


def curves(clearing: Clearing, resource: str, interval: int = 0, ax: Axes | None = None) -> Axes:
    """Draw what a resource bids in an interval, with the price at its node and what it was awarded.

    The curve is the price at which it would inject one more kW, over its net injection [kW], between the ends of its
    range, where it turns upright; what is self-scheduled or in an accepted block moves it aside.  A store, which has no
    bids, has the curve that the value of its stored energy makes.  The award lies on the curve but where the resource
    gives up real power for reactive power or for services, with which it shares its rating and range.

    Parameters
    ----------
    clearing
        What to show.
    resource
        Name of the resource.
    interval
        Interval, from 0.
    ax
        Where to draw; default: a figure of its own.

    Raises
    ------
    InputError
        When there is no such resource or interval, or the resource can neither inject nor consume then.
    """
    case, awards = clearing.case, clearing.awards
    _check_interval(clearing, interval)
    names = case.resources.name.tolist()
    if resource not in names:
        known = some_of(names) if names else "none"
        raise InputError([Problem("plot", "resource", resource, f"is no resource of the case; those are: {known}")])
    row = names.index(resource)
    is_store = row in case.stores.resource
    steps = _within_range(case, row, interval, (_store_steps if is_store else _bid_steps)(clearing, row, interval))
    if not steps:
        raise InputError([Problem("plot", "resource", resource, f"offers nothing in interval {interval}")])
    award, price = float(awards.net_injection_kw[interval, row]), float(awards.lmp_usd_per_mwh[interval, row])
    x, y = (np.array(values) for values in zip(*(point for step in steps for point in step), strict=True))
    low, high = min(y.min(), price), max(y.max(), price)
    room = 0.12 * max(high - low, 1.0)
    ax = ax or _figure(6.4, 3.8)
    ax.plot(
        [x[0], *x, x[-1]],
        [low - 2 * room, *y, high + 2 * room],
        color=COLOURS["energy"],
        linewidth=2,
        label="what stored energy is worth" if is_store else "bids",
        gid="curve",
    )
    ax.axhline(price, color="0.25", linewidth=1, linestyle="--", label=f"price: {price:.2f}", gid="price")
    ax.plot([award], [price], "o", color=BINDING, label=f"award: {award:,.1f} kW", gid="award", zorder=4)
    ax.axvline(0, color="0.7", linewidth=0.8, zorder=0)
    ax.set_ylim(low - room, high + room)
    ax.set_xlabel("net injection [kW]")
    ax.set_ylabel(_axis_label(clearing, "lmp_usd_per_mwh"))
    when = f"{case.horizon.local(interval):%a %Y-%m-%d %H:%M %Z}"
    ax.set_title(f"{case.name}: {resource}\n{when}", loc="left", fontsize=10, parse_math=False)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8.5)
    return ax


_Step = tuple[tuple[float, float], tuple[float, float]]
"""Net injection [kW] and price [currency/MWh] where a part of a curve begins and where it ends."""


def _bid_steps(clearing: Clearing, row: int, interval: int) -> list[_Step]:
    """The curve of a resource's bids, from the most consumption to the most injection."""
    bids, blocks = clearing.case.bids, clearing.case.blocks
    own = np.flatnonzero((bids.resource == row) & (bids.quantity_kw[interval] > 0))
    is_fixed = bids.is_self_scheduled[interval, own]
    sign = np.where(bids.is_supply[own], 1.0, -1.0)
    in_blocks = blocks.resource == row
    at_kw = float((sign * bids.quantity_kw[interval, own])[is_fixed].sum())
    at_kw += float((blocks.sign * clearing.blocks.block_kw[interval])[in_blocks].sum())
    priced = own[~is_fixed]
    demand = sorted(priced[~bids.is_supply[priced]], key=lambda column: -bids.segment[column])
    supply = sorted(priced[bids.is_supply[priced]], key=lambda column: bids.segment[column])
    at_kw -= float(bids.quantity_kw[interval, demand].sum())
    steps: list[_Step] = []
    for column in [*demand, *supply]:
        first = float(bids.price_usd_per_mwh[interval, column])
        prices = [first, first + float(bids.price_rise_usd_per_mwh[interval, column])]
        begin, end = prices if bids.is_supply[column] else reversed(prices)
        until_kw = at_kw + float(bids.quantity_kw[interval, column])
        steps.append(((at_kw, begin), (until_kw, end)))
        at_kw = until_kw
    return steps


def _store_steps(clearing: Clearing, row: int, interval: int) -> list[_Step]:
    """Charging while energy in the store is worth more than the price, discharging while it is worth less."""
    stores = clearing.case.stores
    store = int(np.flatnonzero(stores.resource == row)[0])
    value = float(clearing.stores.value_usd_per_mwh[interval, store])
    charging = value * float(stores.charge_efficiency[store])
    discharging = value / float(stores.discharge_efficiency[store]) + float(stores.cycling_usd_per_mwh[store])
    most_in, most_out = (float(most[interval, store]) for most in (stores.charge_max_kw, stores.discharge_max_kw))
    return [((-most_in, charging), (0.0, charging)), ((0.0, discharging), (most_out, discharging))]


def _within_range(case: MarketCase, row: int, interval: int, steps: list[_Step]) -> list[_Step]:
    """The part of a curve that the range of its resource leaves."""
    least, most = float(case.resources.p_min_kw[row]), float(case.resources.p_max_kw[interval, row])
    kept: list[_Step] = []
    for step in steps:
        kw, price = zip(*step, strict=True)
        ends = max(kw[0], least), min(kw[1], most)
        if ends[1] > ends[0]:
            first, last = np.interp(ends, kw, price).tolist()
            kept.append(((ends[0], first), (ends[1], last)))
    return kept


def _figure(width: float, height: float) -> Axes:
    return Figure(figsize=(width, height), dpi=150, layout="constrained").add_subplot()


@dataclass(frozen=True)
class _Binding:
    """What binds or is broken at an interval: buses and branches by number, each with its limits as text."""

    buses: dict[int, str]
    branches: dict[int, str]

    @classmethod
    def at(cls, clearing: Clearing, interval: int) -> "_Binding":
        network, broken = clearing.case.network, clearing.broken_limits()
        limits = pd.concat(
            [clearing.binding_limits().assign(value=np.nan), broken.rename(columns={"cause": "component"})]
        )
        limits = limits[limits.interval == interval]
        buses: dict[int, dict[str, str]] = {}
        branches: dict[int, dict[str, str]] = {}
        columns = ["component", "element", "phase", "limit", "unit", "value"]
        for cause, element, phase, limit, unit, value in limits[columns].itertuples(index=False):
            if cause in (VOLTAGE, UNBALANCE):
                place = buses.setdefault(network.bus_number[element.removeprefix("bus ")], {})
            elif cause == CONGESTION:
                place = branches.setdefault(network.branch_number[element], {})
            else:
                continue
            of_phase = "" if phase == BALANCED_PHASE else f" on {phase}"
            broken_to = "" if np.isnan(value) else f" broken: {value:.4g}"
            place.setdefault(f"{limit:.4g} {unit}{broken_to}", of_phase)
        return cls(*({key: _joined(texts) for key, texts in part.items()} for part in (buses, branches)))


def _joined(limits: dict[str, str]) -> str:
    """Limits and what goes with each, one below the other."""
    return "\n".join(f"{limit}{phase}" for limit, phase in limits.items())


def _draw_branches(ax: Axes, drawing: Diagram, share: FloatArray, binding: _Binding) -> None:
    colour = [BINDING if branch in binding.branches else GREY for branch in range(len(share))]
    width = 0.8 + 3.0 * np.minimum(share, 1.0)
    ax.add_collection(LineCollection(drawing.paths, linewidths=width, colors=colour, zorder=1, gid="branches"))


def _draw_nodes(ax: Axes, network: Network, drawing: Diagram, values: FloatArray, diameter: float) -> PathCollection:
    """Draw a dot for every bus and a square for every source, all on one scale of colours."""
    norm = _norm(values)
    drawn = {}
    is_source = _is_source(network)
    for gid, nodes, marker, share in (("nodes", ~is_source, "o", 1.0), ("sources", is_source, "s", 1.5)):
        x, y = drawing.xy[nodes].T
        drawn[gid] = ax.scatter(
            x,
            y,
            (share * diameter) ** 2,
            values[nodes],
            marker=marker,
            cmap="viridis",
            norm=norm,
            edgecolors="white",
            linewidths=0.6,
            zorder=3,
            gid=gid,
        )
    return drawn["nodes"]


def _draw_rings(ax: Axes, drawing: Diagram, binding: _Binding, diameter: float) -> None:
    x, y = drawing.xy[list(binding.buses)].T
    ax.scatter(x, y, diameter**2, facecolors="none", edgecolors=BINDING, linewidths=1.6, zorder=4, gid="binding")


def _is_rated(network: Network) -> bool:
    """True when every branch has a rating."""
    return bool(np.isfinite(np.minimum(network.rating_from_pu, network.rating_to_pu)).all())


def _branch_share(clearing: Clearing, interval: int) -> FloatArray:
    """Loading of each branch, or unless everything is rated its apparent power over the largest."""
    network = clearing.case.network
    number = np.array([network.branch_number[str(name)] for name in network.branch], dtype=np.int64)
    share = np.zeros(len(network.branch_number))
    if _is_rated(network):
        np.maximum.at(share, number, clearing.flows.loading[interval])
        return share
    np.add.at(share, number, np.abs(clearing.flows.from_kva[interval]))
    return np.asarray(share / max(float(share.max(initial=0.0)), 1e-9))


def _is_source(network: Network) -> npt.NDArray[np.bool_]:
    """True for the buses of sources."""
    return np.isin(np.arange(len(network.buses)), network.bus_of_port[network.source])


def _bus_means(network: Network, values: FloatArray) -> FloatArray:
    """Mean over the priced ports of every bus of values by port; the mean of all where a bus has none."""
    ports = np.flatnonzero(network.is_priced)
    count = np.bincount(network.bus_of_port[ports], minlength=len(network.buses))
    total = np.bincount(network.bus_of_port[ports], values[ports], len(network.buses))
    return np.where(count > 0, total / np.maximum(count, 1), values[ports].mean())


def _prices(clearing: Clearing, interval: int, component: str) -> FloatArray:
    known = [item.name for item in fields(Prices) if item.name not in ("network", "horizon")]
    if component not in known:
        raise InputError([Problem("plot", "component", component, f"must be one of {', '.join(known)}")])
    _check_interval(clearing, interval)
    return np.asarray(getattr(clearing.prices, component)[interval])


def _check_interval(clearing: Clearing, interval: int) -> None:
    count = clearing.case.horizon.intervals
    if not 0 <= interval < count:
        raise InputError([Problem("plot", "interval", interval, f"must be 0 to {count - 1}")])


def _norm(values: FloatArray) -> Normalize:
    """From the lowest to the highest value; where all are the same they get the middle of the map."""
    low, high = float(values.min()), float(values.max())
    return Normalize(low, high) if high - low > 1e-9 else Normalize(low - 1, high + 1)


def _axis_label(clearing: Clearing, component: str) -> str:
    reactive = component.endswith(("_q", "_mvarh"))
    unit = f"[{clearing.case.horizon.currency}/{'MVArh' if reactive else 'MWh'}]"
    price = "reactive price" if reactive else "price"
    return f"{price} {unit}" if component.startswith("lmp") else f"{component.removesuffix('_q')} in {price} {unit}"


def _feeder_size(drawing: Diagram) -> tuple[float, float]:
    wide, high = np.ptp(drawing.xy, axis=0)
    return float(np.clip(0.5 * wide + 2.5, 7, 15)), float(np.clip(0.45 * high + 1.9, 3.2, 12))


def _column_points(ax: Axes) -> float:
    """Width of one hop [points], roughly: margins and the colour bar are still to come."""
    left, right = ax.get_xlim()
    return float(0.9 * ax.bbox.width * 72 / ax.figure.dpi / (right - left))


def _feeder_title(clearing: Clearing, interval: int, values: FloatArray) -> str:
    bus, when = clearing.case.network.buses, clearing.case.horizon.local(interval)
    low, high = int(values.argmin()), int(values.argmax())
    extremes = f"lowest {values[low]:.2f} at {bus[low]}, highest {values[high]:.2f} at {bus[high]}"
    return f"{clearing.case.name}, {when:%a %Y-%m-%d %H:%M %Z}\n{extremes}"


def _legend(network: Network, binding: _Binding) -> list[Line2D]:
    width = "loading" if _is_rated(network) else "apparent power"
    entries = [
        Line2D([], [], linestyle="", marker="s", color=GREY, label="source"),
        Line2D([], [], color=GREY, linewidth=3, label=f"width: {width}"),
    ]
    if binding.buses or binding.branches:
        entries.append(
            Line2D([], [], color=BINDING, marker="o", markerfacecolor="none", label="limit binds or is broken")
        )
    return entries


def _frame(ax: Axes, drawing: Diagram, title: str, legend: list[Line2D]) -> None:
    ax.set_title(title, loc="left", fontsize=10, parse_math=False)
    ax.legend(handles=legend, ncols=3, loc="upper left", bbox_to_anchor=(0, 0), frameon=False, fontsize=8.5)
    low, high = drawing.xy.min(axis=0), drawing.xy.max(axis=0)
    ax.set_xlim(low[0] - 0.6, high[0] + 0.8)
    ax.set_ylim(low[1] - 0.75, high[1] + 0.85)
    if drawing.is_map:
        ax.set_aspect("equal")
    ax.set_axis_off()


def _labels(network: Network, drawing: Diagram, values: FloatArray, binding: _Binding, radius: float) -> list[Label]:
    """Limits that bind, the extreme prices and the sources; then every bus, of a large feeder only its ends."""
    labels, names, is_source = [], list(network.branch_number), _is_source(network)
    for node, limit in binding.buses.items():
        labels.append(Label(drawing.place(node), f"{network.buses[node]}\n{limit}", RING * radius, colour=BINDING))
    for branch, limit in binding.branches.items():
        labels.append(Label(drawing.middle(branch), f"{names[branch]}\n{limit}", 2.0, colour=BINDING))
    notable = [int(values.argmax()), int(values.argmin()), *np.flatnonzero(is_source).tolist()]
    rest = range(len(values)) if len(values) <= MOST_NAMES else drawing.ends
    for node in dict.fromkeys([*notable, *rest]):
        if node not in binding.buses:
            size = 1.5 * radius if is_source[node] else radius
            labels.append(Label(drawing.place(node), str(network.buses[node]), size, is_needed=node in notable))
    return labels
