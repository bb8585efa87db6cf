"""Days on which no dispatch keeps all limits, each with what conflicts, worked by hand or by physics.

Most are feeders of two to four buses, of which the loss-free drop of voltage ``r P + x Q`` [pu of 100 kVA] tells
what can be had.  `DAYS` maps a name to the day.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from cases import cigre, feeder33, market, plants_cigre, rated, resource
from feeders import Branch, feeder
from storecases import Store, with_stores

from dlmp.market import MarketCase, simple_case
from dlmp.network.model import BalancedNetwork

P_IMPORT, Q_IMPORT = "substation import of real power", "substation import of reactive power"

Sets = list[set[tuple[str, int]]]
"""Irreducible sets of (limit, interval)."""


@dataclass(frozen=True)
class Day:
    """A day, the irreducible sets of limits that conflict, and which limits the penalties have it break.

    `broken` is None where these are the members of `sets`, all of sets of one.
    """

    build: Callable[[], MarketCase]
    sets: Sets
    broken: set[tuple[str, int]] | None = None

    @property
    def expected_broken(self) -> set[tuple[str, int]]:
        """(limit, interval) of all that is broken when limits are soft."""
        return set().union(*self.sets) if self.broken is None else self.broken


DAYS: dict[str, Day] = {}


def day(
    *sets: Iterable[tuple[str, int]], broken: Iterable[tuple[str, int]] | None = None
) -> Callable[[Callable[[], MarketCase]], Callable[[], MarketCase]]:
    """Enter the decorated builder into `DAYS` under its own name."""

    def enter(build: Callable[[], MarketCase]) -> Callable[[], MarketCase]:
        DAYS[build.__name__] = Day(build, [set(members) for members in sets], None if broken is None else set(broken))
        return build

    return enter


AB = Branch("a", "b", 0.02, 0.04)
BC = Branch("b", "c", 0.05, 0.02)
BD = Branch("b", "d", 0.05, 0.02)


def current(branch: Branch, rating: float) -> Branch:
    """The branch with a limit of its current [pu]."""
    return replace(branch, rating=rating, is_current=True)


def two(p_kw: float, q_kvar: float = 0.0, rating: float = np.inf, **bands: object) -> BalancedNetwork:
    """Two buses; the load stands at the second."""
    return feeder([current(AB, rating)], {"b": (p_kw, q_kvar)}, **bands)


def three(p_kw: float, rating: float = np.inf, **bands: object) -> BalancedNetwork:
    """Three buses in a row, the load in the middle; `rating` limits the second line."""
    return feeder([AB, current(BC, rating)], {"b": (p_kw, 0.0)}, **bands)


def sun(bus: str, kw: float, **options: object):
    """Solar power that must run."""
    return resource("sun", bus, kind="solar", supply=[(kw, 0.0)], must_run_kw=kw, **options)


def engine(bus: str, kw: float, price: float = 60.0, **options: object):
    return resource(f"engine {bus}", bus, supply=[(kw, price)], **options)


@day({("bus b", 0)})
def undervoltage_without_resources() -> MarketCase:
    """A drop of 0.02 x 2 + 0.04 x 0.5 = 0.06 pu, of which 0.05 are allowed."""
    return simple_case(two(200, 50, band=(0.95, 1.05)), 20.0)


@day({("bus b", 0)})
def undervoltage_beyond_what_is_offered() -> MarketCase:
    """0.08 pu of drop; the engine takes 0.02 of them away."""
    return market(two(400, band=(0.95, 1.05)), 20.0, engine("b", 100))


@day({("bus b", 0)})
def overvoltage_by_solar_that_must_run() -> MarketCase:
    """A rise of 0.02 x 3 pu."""
    return market(two(0, band=(0.95, 1.05)), 20.0, sun("b", 300))


@day({("a-b", 0)})
def overloaded_line() -> MarketCase:
    """2 pu of load, 0.3 of supply, through a line of 1.5 pu."""
    return market(two(200, rating=1.5), 20.0, engine("b", 30))


@day({("a-b (from end)", 0)}, {("a-b (to end)", 0)})
def overloaded_line_limited_by_power_at_both_ends() -> MarketCase:
    network = feeder([replace(AB, rating=1.5)], {"b": (200, 0)})
    return market(network, 20.0, engine("b", 30))


@day({("a-b", 0)}, {("b-c", 0)})
def two_overloaded_lines() -> MarketCase:
    """2 pu through a line of 1.8, 1.5 of them on through one of 1.2."""
    network = feeder([current(AB, 1.8), current(BC, 1.2)], {"b": (50, 0), "c": (150, 0)})
    return market(network, 20.0, engine("c", 10))


@day({("Trafo 0-1", 0)}, {("Trafo 0-12", 0)})
def overloaded_transformers() -> MarketCase:
    return market(cigre(v_min_pu=0.8), 30.0, *plants_cigre(), load=1.5)


@day({(P_IMPORT, 0)})
def import_cap_below_what_must_be_served() -> MarketCase:
    return market(two(200), 20.0, engine("b", 50), p_max_kw=100.0)


@day({(P_IMPORT, 0)})
def export_cap_below_what_must_run() -> MarketCase:
    return market(two(50), 20.0, sun("b", 250), p_min_kw=-100.0)


@day({(Q_IMPORT, 0)})
def reactive_import_cap_below_what_must_be_served() -> MarketCase:
    return market(two(50, 80), 20.0, engine("b", 20, q_kvar=(0.0, 30.0)), q_max_kvar=20.0)


@day({(Q_IMPORT, 0)})
def reactive_export_of_a_capacitor() -> MarketCase:
    """Half a pu of capacitor behind a substation that takes no reactive power."""
    network = feeder([AB], {"b": (50, 0)}, shunt={"b": 0.5j})
    return market(network, 20.0, engine("b", 20), q_min_kvar=0.0)


@day({("bus b", 0), ("bus c", 0)}, broken={("bus b", 0)})
def low_at_one_bus_or_high_at_the_next() -> MarketCase:
    """3 pu of load leave bus b at 0.94; 1.5 pu of supply behind it lift it to 0.97, and bus c to 1.045.

    One more pu of supply takes 0.02 pu off the shortage and adds 0.07 to the excess: bus b gives way.
    """
    network = three(300, bands={"b": (0.97, 1.1), "c": (0.9, 1.03)})
    return market(network, 20.0, engine("c", 300))


@day({("bus b", 0), ("b-c", 0)}, broken={("bus b", 0), ("b-c", 0)})
def low_voltage_or_an_overloaded_line() -> MarketCase:
    """The same bus b, with 1 pu of line to the engine that has to send 1.5.

    One more pu through the line is worth 0.02 pu of voltage, 1000 USD/h; it costs 600 USD/h in the first tier of the
    line and 2000 in the second: the line is held at 110 %, and bus b gives way for the rest.
    """
    network = three(300, rating=1.0, bands={"b": (0.97, 1.1)})
    return market(network, 20.0, engine("c", 300))


@day({(P_IMPORT, 0), ("bus c", 0)}, broken={(P_IMPORT, 0)})
def import_cap_or_high_voltage() -> MarketCase:
    """Of 3 pu of load at most 1 may be imported; 2 pu of supply put bus c at 1 - 0.02 + 0.05 x 2 = 1.08."""
    network = three(300, bands={"c": (0.9, 1.04)})
    return market(network, 20.0, engine("c", 300), p_max_kw=100.0)


@day({(P_IMPORT, 0), ("b-c", 0)}, broken={(P_IMPORT, 0)})
def import_cap_or_an_overloaded_line() -> MarketCase:
    """The same import, with 1.5 pu of line to the engine; a MWh of import too much is cheaper than one in the line."""
    return market(three(300, rating=1.5), 20.0, engine("c", 300), p_max_kw=100.0)


@day({(P_IMPORT, 0), ("bus b", 0)}, broken={(P_IMPORT, 0)})
def export_cap_or_low_voltage() -> MarketCase:
    """Without export bus b gets no higher than the source's 1 pu; 1.03 are wanted.

    1 pu of export costs 400 USD/h, and is worth 0.02 pu of voltage, 1000 USD/h.
    """
    return market(two(100, bands={"b": (1.03, 1.1)}), 20.0, engine("b", 400), p_min_kw=0.0)


@day({(Q_IMPORT, 0), ("bus b", 0)}, broken={(Q_IMPORT, 0)})
def reactive_import_cap_or_high_voltage() -> MarketCase:
    """2 pu of sun lift bus b by 0.04; 0.02 of them are allowed, and the other half takes 0.5 pu of reactive power."""
    network = two(0, bands={"b": (0.9, 1.02)})
    return market(network, 20.0, sun("b", 200, q_kvar=(-100.0, 0.0)), q_max_kvar=20.0)


@day({("bus b", 0), ("b-c", 0), ("b-d", 0)}, broken={("bus b", 0), ("b-c", 0), ("b-d", 0)})
def low_voltage_or_one_of_two_overloaded_lines() -> MarketCase:
    """Bus b wants 1.5 pu of supply; each of two lines to an engine has 0.7 pu."""
    network = feeder([AB, current(BC, 0.7), current(BD, 0.7)], {"b": (300, 0)}, bands={"b": (0.97, 1.1)})
    return market(network, 20.0, engine("c", 200), engine("d", 200, 70.0))


@day({("bus b", 0)}, {("bus b", 2)})
def undervoltage_in_two_of_three_intervals() -> MarketCase:
    network = two(200, 50, band=(0.95, 1.05))
    return market(network, [20.0, 25.0, 30.0], engine("b", 10), load=[1.0, 0.5, 1.2])


@day({("bus b", 0)}, {("bus b", 1)})
def high_at_noon_and_low_in_the_evening() -> MarketCase:
    """3 pu of fixed generation lift bus b to 1.06, 4 pu of load lower it to 0.92."""
    case = market(two(400, band=(0.97, 1.02)), [20.0, 40.0], engine("b", 20))
    return replace(case, load_p_kw=np.array([[0.0, -300.0], [0.0, 400.0]]))


@day({("a-b", 0), ("a-b", 1)}, broken={("a-b", 0), ("a-b", 1)})
def a_car_that_a_line_cannot_charge_in_time() -> MarketCase:
    """150 kWh in two hours beside a load of 50 kW, through a line of 1 pu; one hour alone could charge them all.

    The first 10 % of each hour are broken before more of either.
    """
    case = market(two(50, rating=1.0), [22.0, 20.0], engine("a", 1))
    car = Store("car", "b", charge_kw=150.0, energy_kwh=200.0, least_kwh=np.array([0.0, 150.0]), kind="ev")
    return with_stores(case, car)


@day(*({(f"bus {bus}", 0)} for bus in (14, 15, 16, 17)))
def solar_at_the_end_of_the_33_bus_feeder() -> MarketCase:
    """4.5 MW that must run at its end: the last four buses leave the band whatever the others do."""
    return market(feeder33(), 20.0, sun("17", 4500))


@day({("line 16", 0)})
def overloaded_line_of_the_meshed_33_bus_feeder() -> MarketCase:
    """Bus 17 is fed by two lines of which one carries too much; nobody near it bids."""
    network = rated(feeder33(meshed=True), "line 16", ampere=8.0)
    return market(network, 20.0, resource("far", 1, supply=[(50, 31)]))
