"""Cost recovery: who was paid for what from which resource, and the proof that nothing was paid twice.

Every resource, interval and product is settled once; the energies settled for a resource in an interval add up to
what it injected, and the power settled for a service to what it holds ready; and all that the market bought from it,
energy and power held ready together, is within its range and rating.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from dlmp.bids import ACCOUNTS, Resources
from dlmp.errors import Problem, Problems
from dlmp.market import Horizon
from dlmp.network.model import ComplexArray, FloatArray, IntArray
from dlmp.services import CAPACITY_DOWN, CAPACITY_UP, VAR_DOWN, VAR_UP
from dlmp.settlement.lines import PAID_ENERGY, PAID_REACTIVE_ENERGY, PAID_SERVICES, Lines
from dlmp.settlement.stage import Held

ROUNDING = 1e-9
"""Settled energy that differs from the injected by less than this, relative, is the same."""
RATING_TOLERANCE_KW = 1e-3
"""Power beyond a rating by less than this is within it [kW], as in the certificate."""


@dataclass(frozen=True, eq=False)
class CostRecovery:
    """What was paid for resources.

    Parameters
    ----------
    table
        One row per line of a resource: interval, participant, resource, product, quantity, price and amount.
    violations
        Where something was paid twice; empty in every settlement that `dlmp.settle` makes from awards.
    """

    table: pd.DataFrame
    violations: tuple[Problem, ...]

    @property
    def is_paid_once(self) -> bool:
        """True when no kWh and no kW was paid twice."""
        return not self.violations


def cost_recovery(
    lines: Lines, resources: Resources, horizon: Horizon, injected: ComplexArray, held: Held
) -> CostRecovery:
    """Report the lines of resources, of which (t, r) `injected` [kWh + j kvarh] was delivered."""
    table = lines.table(horizon)
    own = ~table.participant.isin(ACCOUNTS)
    return CostRecovery(table[own].reset_index(drop=True), paid_twice(lines, resources, horizon, injected, held))


def paid_twice(
    lines: Lines, resources: Resources, horizon: Horizon, injected: ComplexArray, held: Held
) -> tuple[Problem, ...]:
    """Everything in `lines` that pays for energy or power twice, or for more than there is."""
    problems = Problems()
    own = np.flatnonzero(~np.isin(lines.participant, ACCOUNTS))
    number = {name: index for index, name in enumerate(resources.name.tolist())}
    index = np.array([number.get(name, -1) for name in lines.resource[own].tolist()], dtype=np.int64)
    for row in own[index < 0]:
        name = str(lines.resource[row])
        problems.add(f"line {row}", "resource", name, "is no resource of the market: it cannot be paid")
    own, index = own[index >= 0], index[index >= 0]
    _check_once(lines, own, resources, problems)
    for products, field, part, verb in (
        (PAID_ENERGY, "energy [kWh]", injected.real, "injected"),
        (PAID_REACTIVE_ENERGY, "reactive energy [kvarh]", injected.imag, "injected"),
        *((PAID_SERVICES[name], f"{name} [kW-h]", part, "held ready") for name, part in held.reserved.items()),
    ):
        settled = _settled(lines, own, index, products, part.shape)
        for at, column in np.argwhere(np.abs(settled - part) > ROUNDING * (1 + np.abs(part))):
            element = f"resource {resources.name[column]}, interval {at}"
            message = f"was settled, and {part[at, column]:.9g} was {verb}"
            problems.add(element, field, float(settled[at, column]), message)
    _check_ratings(injected / horizon.interval_hours, resources, problems)
    _check_held(held, horizon.interval_hours, resources, problems)
    return tuple(problems.found)


def _settled(lines: Lines, own: IntArray, index: IntArray, products: set[str], shape: tuple[int, ...]) -> FloatArray:
    """(t, r) Sum of the quantities of `products`."""
    chosen = np.isin(lines.product[own], list(products))
    settled = np.zeros(shape)
    np.add.at(settled, (lines.interval[own][chosen], index[chosen]), lines.quantity[own][chosen])
    return settled


def _check_once(lines: Lines, own: IntArray, resources: Resources, problems: Problems) -> None:
    """Check that every resource, interval and product has one line."""
    keys = pd.DataFrame({name: getattr(lines, name)[own] for name in ("resource", "interval", "product")})
    for resource, interval, product in keys[keys.duplicated()].drop_duplicates().itertuples(index=False):
        element = f"resource {resource}, interval {interval}"
        problems.add(element, "product", str(product), "was settled more than once")


def _check_ratings(power_kva: ComplexArray, resources: Resources, problems: Problems) -> None:
    """Check that the mean power of every interval is within what the resource is built for."""
    for field, beyond, limit in (
        ("p_max_kw", power_kva.real - resources.p_max_kw.max(axis=0), resources.p_max_kw.max(axis=0)),
        ("p_min_kw", resources.p_min_kw - power_kva.real, resources.p_min_kw),
        ("s_max_kva", np.abs(power_kva) - resources.s_max_kva, resources.s_max_kva),
    ):
        for at, column in np.argwhere(beyond > RATING_TOLERANCE_KW):
            element = f"resource {resources.name[column]}, interval {at}"
            message = f"{abs(power_kva[at, column]):.6g} kVA were settled, beyond this rating"
            problems.add(element, field, float(limit[column]), message)


def _check_held(held: Held, hours: float, resources: Resources, problems: Problems) -> None:
    """Check that awards and all that is held ready beside them fit into the resource together."""
    kw, kvar = held.scheduled.real / hours, held.scheduled.imag / hours
    kept = {name: reserved / hours for name, reserved in held.reserved.items()}
    top, bottom = kw + kept[CAPACITY_UP], kw - kept[CAPACITY_DOWN]
    left, right = kvar - kept[VAR_DOWN], kvar + kept[VAR_UP]
    farthest = np.hypot(np.maximum(np.abs(top), np.abs(bottom)), np.maximum(np.abs(left), np.abs(right)))
    holds = np.any(list(kept.values()), axis=0)
    for field, reached, beyond in (
        ("p_max_kw", top, top - held.p_max_kw),
        ("p_min_kw", bottom, resources.p_min_kw - bottom),
        ("q_max_kvar", right, right - resources.q_max_kvar),
        ("q_min_kvar", left, resources.q_min_kvar - left),
        ("s_max_kva", farthest, farthest - resources.s_max_kva),
    ):
        for at, column in np.argwhere(holds & (beyond > RATING_TOLERANCE_KW)):
            element = f"resource {resources.name[column]}, interval {at}"
            message = f"is exceeded by {beyond[at, column]:.6g}: its energy and what it holds ready were sold together"
            problems.add(element, f"{field}, called", float(reached[at, column]), message)
