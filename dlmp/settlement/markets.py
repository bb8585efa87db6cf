"""From clearings and meter readings to a settlement."""

from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import sparse

from dlmp.clearing import CONVERGED, Clearing
from dlmp.errors import Problems
from dlmp.market import MarketCase
from dlmp.network.model import FloatArray, TextArray
from dlmp.results import SMALLEST_PAYMENT
from dlmp.settlement.lines import PRODUCTS, settled_lines
from dlmp.settlement.metered import metered_energy
from dlmp.settlement.stage import DEVIATION, Stage
from dlmp.settlement.statement import Settlement
from dlmp.settlement.surplus import split_surplus


def settle(
    clearing: Clearing,
    *,
    real_time: Clearing | None = None,
    metered: pd.DataFrame | None = None,
    deem_missing: bool = False,
) -> Settlement:
    """Settle a cleared market at its nodal prices.

    With `real_time` there are two settlements: the positions that `clearing` awarded at its own prices, then what
    resources, loads and the import deviate from them at the real-time prices.  Services that the day-ahead market
    bought stand where the real-time market has no offers of any; where it has, what it reserves beyond them is settled
    at its prices.  Make-whole payments are those of `clearing`.

    Parameters
    ----------
    clearing
        The market; of two the day-ahead market.
    real_time
        The real-time market of the same horizon, network and resources; default: none.
    metered
        What resources injected: rows ``resource, interval`` (or ``interval_start``), ``net_injection_kwh`` and, where
        metered, ``q_kvarh``; default: what they were awarded last.  Loads and import are those of the last clearing.
    deem_missing
        Where `metered` has no reading, what was awarded last stands for it, and the statements say so; otherwise each
        resource needs a reading in every interval.

    Returns
    -------
    The settlement; its statements balance to the cent.

    Raises
    ------
    InputError
        When a clearing has not converged, the two do not fit together, or the readings are wrong.
    """
    _check_fit(clearing, real_time)
    last = clearing if real_time is None else real_time
    names = clearing.case.resources.name
    delivered = _cleared(last, names)
    is_deemed = np.zeros(delivered.injected.shape, dtype=bool)
    if metered is not None:
        horizon = clearing.case.horizon
        readings = metered_energy(metered, names, horizon, delivered.injected, deem_missing=deem_missing)
        delivered, is_deemed = replace(delivered, injected=readings.energy), readings.is_deemed
    stages = [delivered]
    if real_time is not None:
        position = _cleared(clearing, names)
        stages = [position, _deviation(delivered, position)]
    holds_ready = delivered if len(last.case.service_offers) else stages[0]
    raw = [lines for stage in stages for product in PRODUCTS for lines in product(stage)]
    lines = settled_lines(raw, clearing.case.horizon.currency)
    surplus = split_surplus(stages, lines, clearing.case.horizon)
    return Settlement(clearing.case, lines, surplus, delivered.injected, holds_ready.held, is_deemed)


def _cleared(clearing: Clearing, names: TextArray) -> Stage:
    """What a market awarded, at its prices; resources in the order of `names`."""
    case, awards = clearing.case, clearing.awards
    place = {name: index for index, name in enumerate(case.resources.name.tolist())}
    order = np.array([place[name] for name in names.tolist()], dtype=np.int64)
    hours, ports = case.horizon.interval_hours, case.network.load_port
    at_port = sparse.csr_array(
        (np.ones(len(ports)), (np.arange(len(ports)), ports)), shape=(len(ports), case.network.port_count)
    )
    awarded = np.asarray((awards.net_injection_kw + 1j * awards.q_kvar)[:, order] * hours, dtype=complex)
    return Stage(
        clearing=clearing,
        ending="",
        order=order,
        injected=awarded,
        cleared=awarded,
        drawn=np.asarray(clearing.load_kva @ at_port * hours, dtype=complex),
        imported=np.asarray((clearing.import_kw + 1j * clearing.import_kvar) * hours, dtype=complex),
        reserved=clearing.services.reserved_kw * hours,
        make_whole=_make_whole(clearing),
    )


def _make_whole(clearing: Clearing) -> FloatArray:
    """(t, r) Payments to accepted blocks, in the first interval of each [currency]."""
    case, payment = clearing.case, clearing.blocks.payment()
    due = np.zeros((case.horizon.intervals, len(case.resources)))
    np.add.at(due, (case.blocks.first, case.blocks.resource), np.where(payment > SMALLEST_PAYMENT, payment, 0.0))
    return due


def _deviation(delivered: Stage, position: Stage) -> Stage:
    """What was delivered beyond the positions."""
    parts = ("injected", "cleared", "drawn", "imported")
    change = {part: getattr(delivered, part) - getattr(position, part) for part in parts}
    reserved = _in_order_of(delivered.clearing.case, position)
    return replace(
        delivered,
        ending=DEVIATION,
        **change,
        reserved=delivered.reserved - reserved,
        make_whole=np.zeros_like(delivered.make_whole),
    )


def _in_order_of(case: MarketCase, position: Stage) -> FloatArray:
    """(t, k) What `position` holds ready, for the offers of `case`; nothing for those that it does not have."""
    column = {offer: number for number, offer in enumerate(_offers(position.clearing.case))}
    offers = _offers(case)
    reserved = np.zeros((len(position.reserved), len(offers)))
    for number, offer in enumerate(offers):
        if offer in column:
            reserved[:, number] = position.reserved[:, column[offer]]
    return reserved


def _offers(case: MarketCase) -> list[tuple[str, str]]:
    """Resource and service of every offer."""
    offers = case.service_offers
    return list(zip(case.resources.name[offers.resource].tolist(), offers.service.tolist(), strict=True))


def _check_fit(clearing: Clearing, real_time: Clearing | None) -> None:
    """Check that the clearings may be published, and are of one market."""
    problems = Problems()
    for name, one in (("clearing", clearing), ("real_time", real_time)):
        if one is not None and one.status != CONVERGED:
            problems.add(name, "status", one.status, f"only a clearing that has {CONVERGED} may be settled")
    if real_time is not None:
        _check_same(clearing.case, real_time.case, problems)
    problems.raise_if_any()


def _check_same(one: MarketCase, other: MarketCase, problems: Problems) -> None:
    """Check that two cases have the same intervals, currency, ports and resources."""
    for name in ("start", "interval_minutes", "intervals", "currency"):
        if getattr(one.horizon, name) != getattr(other.horizon, name):
            value, wanted = getattr(other.horizon, name), getattr(one.horizon, name)
            problems.add("real_time", f"horizon.{name}", str(value), f"must be that of the day-ahead market, {wanted}")
    ports = [list(zip(case.network.port_bus, case.network.port_phase, strict=True)) for case in (one, other)]
    if ports[0] != ports[1]:
        message = f"the network must have the day-ahead market's buses and phases, in the same order: {len(ports[0])}"
        problems.add("real_time", "network", f"{len(ports[1])} ports of {other.network.name}", message)
    places = [_places(case) for case in (one, other)]
    for name in sorted(places[0].keys() - places[1].keys()):
        problems.add("real_time", "resource", name, "is missing; the day-ahead market has it")
    for name in sorted(places[1].keys() - places[0].keys()):
        problems.add("real_time", "resource", name, "is no resource of the day-ahead market")
    for name in sorted(places[0].keys() & places[1].keys()):
        if places[0][name] != places[1][name]:
            message = "stands elsewhere, or for another participant, than in the day-ahead market"
            problems.add("real_time", "resource", name, message)
    offers = [_offers(case) for case in (one, other)]
    for resource, service in sorted(set(offers[0]) - set(offers[1])) if offers[1] else ():
        message = "was bought day-ahead: offer it too, or no service at all, so that what was bought stands"
        problems.add("real_time", f"service offer of {resource}", service, message)


def _places(case: MarketCase) -> dict[str, tuple[object, ...]]:
    """Participant, ports and shares of each resource, by its name."""
    resources, share = case.resources, case.resources.share
    return {
        str(name): (
            str(resources.participant[row]),
            share.indices[share.indptr[row] : share.indptr[row + 1]].tolist(),
            share.data[share.indptr[row] : share.indptr[row + 1]].tolist(),
        )
        for row, name in enumerate(resources.name)
    }
