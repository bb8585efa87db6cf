"""What the command line prints of cases and clearings: rows of text, tables and a chart, without printing them."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table

from dlmp.certificate import FEASIBLE_KW, FEASIBLE_PU, Certificate
from dlmp.clearing import CONVERGED, Clearing
from dlmp.errors import PowerFlowError
from dlmp.formulation.ac_tangent import AcTangent
from dlmp.formulation.interface import UNBALANCE, VOLTAGE
from dlmp.market import Horizon, MarketCase
from dlmp.network.model import BALANCED_PHASE, FloatArray, IntArray, Network, UnbalancedNetwork, some_of
from dlmp.rolling import RollingDay
from dlmp.scarcity import broken_names, count_elements
from dlmp.services import REACTIVE
from dlmp.taps import TapClearing
from dlmp.units import BASE_KVA

Rows = list[tuple[str, str]]
"""Label and text of each line."""

LONGEST_DAY = timedelta(hours=25)
SMALLEST_SHORTAGE = 0.05
"""Less is shown as none [kW h]."""
SMALLEST_MONEY = 0.005
"""Less than this is shown as nothing [currency]."""


def clearing_rows(clearing: Clearing, certificate: Certificate | None, wall_seconds: float) -> Rows:
    """Sum up a clearing: status, cost, extreme prices, what binds, and the verdict of the certificate."""
    currency, price = clearing.case.horizon.currency, clearing.prices.published
    status = clearing.status.replace("_", " ")
    rows = [
        ("case", clearing.case.name),
        ("status", f"{status} in {_count(len(clearing.passes), 'pass', 'passes')}, {wall_seconds:.2f} s"),
        ("total cost", f"{clearing.objective:,.2f} {currency}"),
        ("highest price", _price_at(clearing, int(price.argmax()))),
        ("lowest price", _price_at(clearing, int(price.argmin()))),
        ("binding", _binding_counts(clearing)),
        *broken_rows(clearing),
        ("served locally", _served_locally(clearing)),
    ]
    if len(clearing.case.blocks):
        accepted, paid = int(clearing.blocks.is_accepted.sum()), clearing.blocks.payment().sum()
        total = _count(len(clearing.case.blocks), "block")
        rows.append(("blocks", f"{accepted} of {total} accepted, {paid:,.2f} {currency} to make them whole"))
    rows += service_rows(clearing)
    if clearing.beside_rule:
        where = f"intervals {_named(clearing.beside_rule)}"
        rows.append(("prices", f"rounding hid those of the rule in {where}: they may depend on the order of bids"))
    if clearing.status != CONVERGED:
        rows.insert(2, ("", "these results may not be published"))
    return rows if certificate is None else rows + verdict(certificate, currency)


def service_rows(clearing: Clearing) -> Rows:
    """How much of each service is held ready, what that costs and at which nodal prices, and what is lacking."""
    currency = clearing.case.horizon.currency
    rows: Rows = []
    for service, figures in clearing.services.totals().items():
        unit, price_unit = ("kvar-h", "MVAr-h") if service in REACTIVE else ("kW-h", "MW-h")
        text = f"{figures.reserved_kw_h:,.1f} {unit} of {service.replace('_', ' ')}"
        text += f" for {figures.paid_usd:,.2f} {currency} (offered at {figures.as_offered_usd:,.2f})"
        if figures.price_range_usd_per_mw_h is not None:
            low, high = (f"{price:.2f}" for price in figures.price_range_usd_per_mw_h)
            text += f", {low if low == high else f'{low} to {high}'} {currency}/{price_unit}"
        if figures.shortage_kw_h >= SMALLEST_SHORTAGE:
            text += f"; {figures.shortage_kw_h:,.1f} {unit} short"
        rows.append(("services" if not rows else "", text))
    return rows


def _price_at(clearing: Clearing, flat: int) -> str:
    price, horizon = clearing.prices.published, clearing.case.horizon
    interval, place = divmod(flat, price.shape[1])
    port = int(clearing.prices.ports[place])
    when = f"{horizon.local(interval):%Y-%m-%d %H:%M %Z} (interval {interval})"
    return f"{price[interval, place]:.2f} {horizon.currency}/MWh at {_bus(clearing.case.network, port)}, {when}"


def _bus(network: Network, port: int) -> str:
    name = network.place(port)
    return name if name.lower().startswith("bus") else f"bus {name}"


def _binding_counts(clearing: Clearing) -> str:
    limits = clearing.binding_limits()
    if not len(limits):
        return "no network limit"
    elements, intervals = limits.element.nunique(), limits.interval.nunique()
    return f"{_count(elements, 'network limit')} in {_count(intervals, 'interval')}"


def broken_rows(clearing: Clearing) -> Rows:
    """What is broken: how many limits, at what cost, and the dearest of each kind; no rows where nothing is."""
    table, currency = clearing.broken_limits(), clearing.case.horizon.currency
    if not len(table):
        return []
    count, intervals = _count(count_elements(table), "limit"), _count(table.interval.nunique(), "interval")
    told = f"{count} in {intervals}, for {clearing.penalty:,.2f} {currency}"
    rows = [("broken", f"{told} of penalties")]
    for cause, own in table.groupby("cause", sort=True):
        worst = int(own.cost_usd.to_numpy().argmax())
        name = broken_names(own)[worst]
        row = own.iloc[worst]
        at = f"{row['value']:.5g} {row.unit} where {row.limit:.5g} {row.unit} is the limit"
        rows.append(("", f"- {cause}, worst: {name}, interval {row.interval}: {at}"))
    if clearing.avoidable:
        where = f"a dearer dispatch keeps all limits of intervals {_named(clearing.avoidable)}"
        rows.append(("", f"{where}: raise the penalties, or clear with --hard"))
    return rows


def day_rows(day: RollingDay, wall_seconds: float) -> Rows:
    """Sum up a day that was cleared step by step: cost, steps and make-whole payments."""
    currency, uplift = day.case.horizon.currency, day.uplift
    rows = [
        ("case", day.case.name),
        ("status", f"{_count(len(day.steps), 'step')}, {wall_seconds:.2f} s"),
        ("total cost", f"{day.objective:,.2f} {currency}"),
    ]
    for index, step in enumerate(day.steps):
        cost = f"{step.clearing.objective:,.2f} {currency} to the end of the day"
        status = step.clearing.status.replace("_", " ")
        rows.append(("cleared" if not index else "", f"from interval {step.first_interval}: {status}, {cost}"))
    rows.append(("uplift", f"{uplift.uplift_usd.sum():,.2f} {currency}"))
    for name, usd in zip(day.case.resources.name, uplift.uplift_usd, strict=True):
        if usd >= SMALLEST_MONEY:
            rows.append(("", f"{name}: {usd:,.2f} {currency}"))
    return rows


def _served_locally(clearing: Clearing) -> str:
    supply = clearing.local_supply
    share, total = supply.share_served_locally, supply.totals()
    span = f"{100 * share.min():.1f} to {100 * share.max():.1f} % by interval"
    return f"{100 * total['share_served_locally']:.1f} % of load and losses, {span}"


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def verdict(certificate: Certificate, currency: str) -> Rows:
    """Say whether the certificate holds, and then each fault and where prices are not unique."""
    faults = []
    if not certificate.ac_converged:
        faults.append(f"the AC power flow of {certificate.program} at the awards has no solution")
    elif not certificate.is_feasible:
        excess = certificate.worst_voltage_violation_pu
        if excess > FEASIBLE_PU:
            faults.append(f"voltage {excess:.2g} pu out of its band: {certificate.worst_voltage}")
        if certificate.worst_loading_percent > 100 * (1 + FEASIBLE_PU):
            faults.append(f"loading {certificate.worst_loading_percent:.5g} %: {certificate.worst_loading}")
        if certificate.worst_unbalance_violation_pu > FEASIBLE_PU:
            excess = 100 * certificate.worst_unbalance_violation_pu
            faults.append(f"voltage unbalance {excess:.2g} % above its limit: {certificate.worst_unbalance}")
        if certificate.worst_range_violation_kw > FEASIBLE_KW:
            faults.append(f"an award or the import is {certificate.worst_range_violation_kw:.4g} kW out of its range")
    if not certificate.calls_converged:
        faults.append(
            f"the AC power flow of {certificate.program} has no solution when some of what is reserved is called"
        )
    elif not certificate.is_deliverable:
        excess = certificate.worst_called_violation_pu
        faults.append(f"a call of what is reserved breaks a limit by {excess:.2g} pu: {certificate.worst_call}")
    if not certificate.is_supported:
        gap = f"{certificate.worst_bid_gap_usd:.4g} {currency}"
        faults.append(f"another quantity would earn {gap} more: {certificate.worst_bid}")
    feasible = "AC-feasible, also in every call of services" if certificate.calls else "AC-feasible"
    if certificate.broken_limits:
        feasible += f" but for the {_count(certificate.broken_limits, 'limit')} told broken"
    holds = f"holds: {feasible} ({certificate.program}), awards best for each bidder"
    rows = [("certificate", "does not hold" if faults else holds)]
    rows += [("", f"- {fault}") for fault in faults]
    if certificate.price_ranges:
        named = _named(sorted({price_range.interval for price_range in certificate.price_ranges}))
        rows.append(("", f"prices are not unique in intervals {named}"))
    if certificate.negative_import_value:
        named = _named(certificate.negative_import_value)
        rows.append(("", f"import has a negative value in intervals {named}: a local optimum, perhaps not the best"))
    return rows


def tap_rows(found: TapClearing) -> Rows:
    """The taps that a clearing ended with, whether the regulators leave them there, and where they would not."""
    rounds = _count(len(found.rounds), "clearing")
    rest = f"the regulators rest after {rounds} at the awards of interval {found.interval}, of the highest load"
    if not found.settled:
        rest = f"the regulators do not rest after {rounds}, whose last has these taps: {found.obstacle}"
    rows = [("taps", _taps(found.taps)), ("", rest)]
    others = [interval for interval in found.moving if interval != found.interval]
    if others:
        held = "limits may bind there that other taps (network.options.taps) would relieve"
        rows.append(
            ("", f"at the awards of interval{'s' if len(others) > 1 else ''} {_named(others)} they would move: {held}")
        )
    return rows


def _taps(taps: Mapping[str, float]) -> str:
    return ", ".join(f"{name}: {tap:.7g}" for name, tap in taps.items()) or "none"


def _named(intervals: Sequence[int]) -> str:
    """Intervals as text, ``0-2, 5``."""
    return ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in _runs(np.array(intervals)))


def _runs(intervals: IntArray) -> list[tuple[int, int]]:
    """First and last of every run of consecutive `intervals`."""
    parts = np.split(intervals, np.flatnonzero(np.diff(intervals) != 1) + 1)
    return [(int(part[0]), int(part[-1])) for part in parts]


def case_rows(case: MarketCase) -> Rows:
    """Describe the feeder of a case, its resources and its load."""
    network, horizon, p_kw = case.network, case.horizon, case.load_p_kw.sum(axis=1)
    loops = network.branch_count - network.node_count + len(network.source)
    rated = int(np.isfinite(np.minimum(network.rating_from_pu, network.rating_to_pu)).sum())
    segments = _count(len(case.bids), "bid segment")
    rows = [
        ("case", case.name),
        ("network", network.name),
        ("buses", f"{len(set(network.bus.tolist()))}, {_count(network.node_count, 'node')}"),
        ("aliases", some_of(network.alias_bus) if len(network.alias_bus) else "none"),
        ("branches", f"{_by_kind(network.branch_kind, 's')}; {rated} rated"),
        ("topology", "radial" if network.is_radial else f"meshed, {_count(loops, 'loop')}"),
        ("base voltage", ", ".join(f"{kv:g} kV" for kv in np.unique(network.base_kv)[::-1])),
        ("source", _sources(network)),
        ("voltage band", f"{_span(network.v_min_pu)} to {_span(network.v_max_pu)} pu"),
        ("fixed load", _fixed(network, "load", 1.0)),
        ("fixed generation", _fixed(network, "generation", -1.0)),
        *([("fixed storage", _fixed(network, "storage", -1.0))] if "storage" in network.element_kind else []),
        ("resources", f"{_by_kind(case.resources.kind)}; {segments}" if len(case.resources) else "none"),
        *([("services", _services(case))] if len(case.service_offers) or len(case.requirements) else []),
        ("horizon", f"{horizon.intervals} x {horizon.interval_minutes} min from {horizon.start:%Y-%m-%dT%H:%M:%SZ}"),
        ("load in horizon", f"{p_kw.min():,.1f} to {p_kw.max():,.1f} kW"),
    ]
    if isinstance(network, UnbalancedNetwork):
        rows += [("taps", _taps(network.taps)), *(("note", note) for note in network.notes)]
    return rows


def _services(case: MarketCase) -> str:
    offers, requirements = len(case.service_offers), len(case.requirements)
    return f"{_count(offers, 'offer')}; {_count(requirements, 'requirement')}"


def _by_kind(kinds: Iterable[str], plural: str = "") -> str:
    counts = pd.Series([str(kind) for kind in kinds], dtype=object).value_counts()
    return ", ".join(_count(number, str(kind), f"{kind}{plural}") for kind, number in counts.items()) or "none"


def _sources(network: Network) -> str:
    parts = [
        f"{_bus(network, node)} at {abs(v):.5g} pu" + (f", {np.angle(v, deg=True):.4g} deg" if v.imag else "")
        for node, v in zip(network.source, network.source_v_pu, strict=True)
    ]
    return "; ".join(parts)


def _span(values: FloatArray) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:g}" if low == high else f"({low:g} to {high:g})"


def _fixed(network: Network, kind: str, sign: float) -> str:
    own = network.element_kind == kind
    p_kw, q_kvar = (sign * values[own].sum() + 0.0 for values in (network.element_p_kw, network.element_q_kvar))
    return f"{p_kw:,.1f} kW, {q_kvar:,.1f} kvar"


def power_flow_rows(case: MarketCase) -> Rows:
    """Describe the AC power flow at the load of the first interval, nothing dispatched.

    Raises
    ------
    PowerFlowError
        When it has no solution.
    """
    network = case.network
    formulation = AcTangent(network, case.law_pu[:1])
    load_kva = case.load_p_kw[:1] + 1j * case.load_q_kvar[:1]
    point = formulation.operate(-case.load_pu[:1])
    if not point.converged.all():
        raise PowerFlowError("the AC power flow has no solution at the load of interval 0; check the units of loads")
    limits = formulation.limits
    voltages = np.flatnonzero(limits.cause == VOLTAGE)
    v_pu = point.limit_value[0, voltages]
    low, high = (str(limits.name(int(voltages[place(v_pu)]))) for place in (np.argmin, np.argmax))
    losses_kw = BASE_KVA * float(point.losses_pu[0])
    rated = np.flatnonzero(limits.branch >= 0)
    loading = 100 * point.limit_value[0, rated] / limits.upper[rated]
    worst = f"{loading.max():.1f} % of {limits.element[rated[loading.argmax()]]}" if len(rated) else "nothing is rated"
    return [
        ("AC power flow", f"at the load of interval 0: {load_kva.real.sum():,.1f} kW, {load_kva.imag.sum():,.1f} kvar"),
        ("losses", f"{losses_kw:,.2f} kW"),
        ("lowest voltage", f"{v_pu.min():.5f} pu at {low}"),
        ("highest voltage", f"{v_pu.max():.5f} pu at {high}"),
        ("highest loading", worst),
    ]


def price_table(clearing: Clearing) -> Table:
    """One row per interval: substation price, nodal prices, and what makes the highest of them."""
    prices, horizon = clearing.prices, clearing.case.horizon
    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False, title_justify="left", title_style="bold")
    table.title = f"Prices on {horizon.local(0):%a %Y-%m-%d} [{horizon.currency}/MWh], and what makes the highest"
    components = prices.components_in_use
    names = ("time", "substation", "lowest", "mean", "highest", "at bus", *components)
    for name in names:
        table.add_column(name, justify="left" if name in ("time", "at bus") else "right", no_wrap=name != "at bus")
    price = prices.published
    for interval, port in enumerate(prices.ports[price.argmax(axis=1)]):
        here = price[interval]
        parts = [getattr(prices, name)[interval, port] for name in components]
        bought = clearing.case.substation.price_usd_per_mwh[interval]
        table.add_row(
            _time(horizon, interval),
            *(_money(value) for value in (bought, here.min(), here.mean(), here.max())),
            clearing.case.network.place(int(port)),
            *(_money(value) for value in parts),
        )
    return table


def _money(value: float) -> str:
    text = f"{value:.2f}"
    return "0.00" if text == "-0.00" else text


def limits_table(clearing: Clearing) -> Table:
    """One row per limit that binds: when, and the largest share it has in the price at its own place."""
    currency = clearing.case.horizon.currency
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False, title_justify="left", title_style="bold")
    table.title = "Binding limits, and their largest share in a price"
    for name in ("limit", "at", "cause", f"{currency}/MWh", "when"):
        table.add_column(name, justify="right" if name == f"{currency}/MWh" else "left", no_wrap=name != "when")
    limits = clearing.binding_limits()
    for _, rows in limits.groupby(["component", "element", "phase", "limit", "unit"], sort=True):
        cause, element, phase, limit, unit = rows[["component", "element", "phase", "limit", "unit"]].iloc[0]
        intervals = np.unique(rows.interval)
        shares = [_share(clearing, cause, element, phase, int(interval)) for interval in intervals]
        worst = shares[int(np.abs(shares).argmax())]
        name = element if phase in ("-", BALANCED_PHASE) else f"{element}.{phase}"
        table.add_row(name, f"{limit:.5g} {unit}", cause, _money(worst), _clock(clearing.case.horizon, intervals))
    return table


def _share(clearing: Clearing, cause: str, element: str, phase: str, interval: int) -> float:
    """Share of a limit in a price [currency/MWh]: at its bus, at its branch's to bus, at a source for the import."""
    network = clearing.case.network
    if cause in (VOLTAGE, UNBALANCE):
        ports = np.flatnonzero(network.port_bus == element.removeprefix("bus "))
    elif cause == "energy":
        ports = network.source
    else:
        own = network.conductors_of(element)
        own = own[network.phase[network.from_node[own]] == phase]
        ports = np.flatnonzero(network.port_bus == network.bus[network.to_node[own[0]]])
    ports = ports[network.is_priced[ports]]
    named = ports[network.port_phase[ports] == phase]
    port = int(named[0] if len(named) else ports[0])
    parts = clearing.explain(str(network.port_bus[port]), interval, str(network.port_phase[port]))
    own_rows = (parts.component == cause) & (parts.element == element) & (parts.phase == phase)
    return float(parts.share_usd_per_mwh[own_rows].sum())


def _clock(horizon: Horizon, intervals: IntArray) -> str:
    """Times of `intervals` on the market's clock, ``08:00-10:00, 15:00-16:00``."""
    return ", ".join(f"{_time(horizon, first)}-{_time(horizon, last + 1)}" for first, last in _runs(intervals))


def _time(horizon: Horizon, edge: int) -> str:
    """Start of an interval, or the end of the one before; with the date where the horizon is longer than a day."""
    step = timedelta(minutes=horizon.interval_minutes)
    local = (horizon.start + edge * step).astimezone(ZoneInfo(horizon.timezone))
    return f"{local:%H:%M}" if step * horizon.intervals <= LONGEST_DAY else f"{local:%m-%d %H:%M}"
