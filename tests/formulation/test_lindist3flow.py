"""LinDistFlow by phase against numbers worked out by hand, the AC power flow and its own model solved whole.

The base is 100 kVA per phase: 1 pu of power is 100 kW.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from cases import Offer, bids_of, resource
from feeders import Branch, feeder
from scipy import sparse
from test_lindistflow import LINEAR, LOSSLESS

from benchmarks.peers.whole_lp import whole_model
from dlmp import InputError, MarketCase, clear
from dlmp.bids import Resources
from dlmp.formulation.ac_tangent import AcTangent
from dlmp.formulation.lindistflow import LinDistFlow, LinearPoint, losses_around, no_losses
from dlmp.formulation.sections import sections_of
from dlmp.market import simple_case
from dlmp.network.loads import LoadLaws, no_laws
from dlmp.network.model import ComplexArray, FloatArray, IntArray, UnbalancedNetwork
from dlmp.powerflow import PowerFlow

ROOT3 = 3.0**0.5
ROTATION = np.exp(-2j * np.pi / 3 * np.arange(3))
"""Voltages of phases 1, 2, 3 of a balanced source."""
DELTA = (np.eye(3) - np.roll(np.eye(3), 1, axis=1)) / ROOT3
"""Voltages across three delta windings per voltage to ground, in pu of the windings."""
SYMMETRIC = np.full((3, 3), 0.01 + 0.01j) + np.eye(3) * (0.01 + 0.03j)
"""Impedance of three coupled conductors: 0.02 + j0.04 each, 0.01 + j0.01 between any two."""


@dataclass
class Wires:
    """A network in the making, its nodes named ``bus.phase``."""

    node: list[str] = field(default_factory=list)
    branch: list[str] = field(default_factory=list)
    kind: list[str] = field(default_factory=list)
    from_node: list[int] = field(default_factory=list)
    to_node: list[int] = field(default_factory=list)
    from_rows: list[tuple[IntArray, ComplexArray]] = field(default_factory=list)
    to_rows: list[tuple[IntArray, ComplexArray]] = field(default_factory=list)

    def nodes(self, bus: str, phases: str) -> list[int]:
        """Nodes of a bus, made where they are new."""
        names = [f"{bus}.{phase}" for phase in phases]
        self.node += [name for name in names if name not in self.node]
        return [self.node.index(name) for name in names]

    def add(self, name: str, kind: str, ends: tuple[str, str, str, str], admittance: ComplexArray) -> None:
        """A branch from bus and phases to bus and phases, by its nodal admittances."""
        at_from, at_to = self.nodes(*ends[:2]), self.nodes(*ends[2:])
        both, first = np.array(at_from + at_to), len(at_from)
        for pair in range(max(first, len(at_to))):
            self.branch.append(name)
            self.kind.append(kind)
            self.from_node.append(at_from[min(pair, first - 1)])
            self.to_node.append(at_to[min(pair, len(at_to) - 1)])
            for rows, own in ((self.from_rows, admittance[:first]), (self.to_rows, admittance[first:])):
                rows.append((both, own[pair] if pair < len(own) else np.zeros(len(both), complex)))

    def line(
        self, name: str, ends: tuple[str, str, str], series: ComplexArray, charging: ComplexArray | float = 0.0
    ) -> None:
        """A pi section: from bus, to bus, phases."""
        y = np.linalg.inv(series)
        own = y + np.asarray(charging) / 2
        self.add(name, "line", (ends[0], ends[2], ends[1], ends[2]), np.block([[own, -y], [-y, own]]))

    def transformer(
        self, name: str, ends: tuple[str, str, str, str], windings: ComplexArray, of_nodes: ComplexArray
    ) -> None:
        """Windings by their own admittance matrix, at the voltages ``of_nodes @ V``."""
        self.add(name, "transformer", ends, of_nodes.T @ windings @ of_nodes)

    def network(
        self,
        *,
        source: Sequence[complex] = tuple(ROTATION),
        load: dict[str, complex] | None = None,
        pair: Sequence[tuple[str, str]] = (),
        law: LoadLaws | None = None,
        law_kva: Sequence[complex] = (),
        shunt: dict[str, complex] | None = None,
        band: dict[str, tuple[float, float]] | None = None,
        rating: dict[str, float] | None = None,
        **fields: object,
    ) -> UnbalancedNetwork:
        """The network, fed at its first nodes; loads [kVA], bands [pu], shunts [pu] by node, ratings by branch."""
        n, m = len(self.node), len(self.branch)
        bus, phase = np.array([name.split(".") for name in self.node]).T
        bands = np.array([(band or {}).get(name, (0.5, 1.5)) for name in self.node])
        load, limit = load or {}, np.array([(rating or {}).get(name, np.inf) for name in self.branch])
        power = np.array([*load.values(), *law_kva], dtype=complex)
        of_laws = n + len(pair) + np.arange(len(law_kva))
        from_rows, to_rows = (_matrix(rows, (m, n)) for rows in (self.from_rows, self.to_rows))
        shunts = np.array([(shunt or {}).get(name, 0.0) for name in self.node], dtype=complex)
        return UnbalancedNetwork(
            name="wires",
            bus=bus,
            phase=phase,
            base_kv=np.full(n, 2.4),
            v_min_pu=bands[:, 0],
            v_max_pu=bands[:, 1],
            source=np.arange(len(source)),
            source_v_pu=np.array(source, dtype=complex),
            branch=np.array(self.branch),
            branch_kind=np.array(self.kind),
            from_node=np.array(self.from_node),
            to_node=np.array(self.to_node),
            rating_from_pu=np.where(abs(from_rows).sum(axis=1) > 0, limit, np.inf),
            rating_to_pu=np.where(abs(to_rows).sum(axis=1) > 0, limit, np.inf),
            rating_is_current=np.zeros(m, bool),
            element=np.array([f"load {index}" for index in range(len(power))], dtype=str),
            element_kind=np.full(len(power), "load"),
            element_load=np.r_[[self.node.index(name) for name in load], of_laws].astype(np.int64),
            element_p_kw=power.real,
            element_q_kvar=power.imag,
            alias_bus=np.array([], dtype=str),
            alias_node=np.array([], dtype=np.int64),
            pair=np.array([[self.node.index(a), self.node.index(b)] for a, b in pair], dtype=np.int64).reshape(-1, 2),
            law=law or no_laws(),
            from_rows=from_rows,
            to_rows=to_rows,
            shunt_rows=sparse.csr_array(np.diag(shunts)),
            **fields,  # type: ignore[arg-type]
        )


def _matrix(rows: list[tuple[IntArray, ComplexArray]], shape: tuple[int, int]) -> sparse.csr_array:
    dense = np.zeros(shape, complex)
    for row, (columns, values) in enumerate(rows):
        dense[row, columns] = values
    return sparse.csr_array(dense)


def two_windings(leakage: complex, tap: float = 1.0) -> ComplexArray:
    """Admittances of two windings, the second at `tap` times the voltage of the first."""
    return np.array([[tap**2, -tap], [-tap, 1.0]]) / leakage


def per_core(windings: ComplexArray, cores: int) -> ComplexArray:
    """The same windings on every core: the first of all, then the second of all."""
    return np.kron(windings, np.eye(cores))


def laws(*rows: tuple[int, float, float]) -> LoadLaws:
    """Laws by port, base and exponent, in force at any voltage."""
    port, base, exponent = (np.array(column) for column in zip(*rows, strict=True))
    none = np.zeros(len(rows))
    return LoadLaws(
        port=port, base_pu=base, exponent=exponent, outer=exponent, u_min=none, u_max=none + 9.0, u_low=none
    )


def offered(network: UnbalancedNetwork, price: Sequence[float], *offers: tuple[int, Offer]) -> MarketCase:
    """A case of the network's own loads with offers at ports."""
    intervals = len(price)
    shares = np.zeros((len(offers), network.port_count))
    shares[np.arange(len(offers)), [port for port, _ in offers]] = 1.0
    own = tuple(offer for _, offer in offers)
    most = [sum(kw for kw, _ in offer.supply) for offer in own]
    return replace(
        simple_case(network, np.asarray(price)),
        bids=bids_of(own, intervals),
        resources=Resources(
            name=np.array([offer.name for offer in own]),
            kind=np.array([offer.kind for offer in own]),
            share=sparse.csr_array(shares),
            p_min_kw=np.zeros(len(own)),
            p_max_kw=np.tile(np.array(most, dtype=float), (intervals, 1)),
            q_min_kvar=np.array([offer.q_kvar[0] for offer in own]),
            q_max_kvar=np.array([offer.q_kvar[1] for offer in own]),
            s_max_kva=np.array([offer.s_max_kva for offer in own]),
        ),
    )


def one_line(**fields: object) -> UnbalancedNetwork:
    """Three coupled conductors from the source to bus 1."""
    wires = Wires()
    wires.line("0-1", ("0", "1", "123"), SYMMETRIC)
    return wires.network(**fields)  # type: ignore[arg-type]


def village(scale: float = 1.0, *, charging: float = 1.0, rating: dict[str, float] | None = None) -> UnbalancedNetwork:
    """All there is: a delta-wye transformer, regulators side by side, a line against its direction, a transformer
    between two phases, a centre tap, charging, magnetisation, a capacitor, and loads of all kinds.
    """
    wires = Wires()
    windings = per_core(two_windings(0.002 + 0.02j), 3) + np.diag([0, 0, 0, 1, 1, 1]) * (1 - 6j) * 1e-3 * charging
    wires.transformer("delta-wye", ("0", "123", "1", "123"), windings, np.kron(np.diag([1, 0]), DELTA) + _lower())
    capacitance = 0.01j * (1.3 * np.eye(3) - 0.1) * charging
    wires.line("1-2", ("1", "2", "123"), SYMMETRIC * (1 + 0.1 * np.diag([0, 1, 2])), capacitance)
    for phase, tap in zip("123", (1.05, 1.025, 1.0125), strict=True):
        wires.transformer(f"regulator {phase}", ("2", phase, "3", phase), two_windings(0.001j, tap), np.eye(2))
    wires.line("4-3", ("4", "3", "12"), SYMMETRIC[:2, :2] / 2, capacitance[:2, :2])
    across = np.array([[1 / ROOT3, -1 / ROOT3, 0], [0, 0, 1]])
    wires.transformer("across", ("4", "12", "5", "1"), two_windings(0.01 + 0.03j), across)
    wires.transformer("centre tap", ("3", "3", "6", "12"), *centre_tap(0.006 + 0.02j, 0.01 + 0.01j))
    wires.line("6-7", ("6", "7", "12"), SYMMETRIC[:2, :2] / 4)
    node = wires.node.index
    pair = [("2.1", "2.2"), ("2.2", "2.3"), ("7.1", "7.2")]
    ports = len(wires.node)
    own = {"2.1": 30 + 10j, "2.2": 80 + 20j, "4.1": 50 + 30j, "5.1": 20 + 5j, "7.1": 30 + 10j, "7.2": 10 + 2j}
    follow = [(node("4.2"), 1.0, 2.0), (node("3.1"), 1.02, 1.0), (ports, ROOT3, 2.0), (ports + 2, 2.0, 0.6)]
    return wires.network(
        source=ROTATION * np.exp(0.3j) * 1.01,
        load={name: kva * scale for name, kva in own.items()},
        pair=pair,
        law=laws(*follow),
        law_kva=[scale * kva for kva in (40 + 10j, 30 + 15j, 60 + 20j, 20 + 5j)],
        shunt={"2.2": 0.15j * charging},
        rating=rating,
    )


def _lower() -> ComplexArray:
    """Three windings to ground behind three others."""
    return np.kron(np.diag([0, 1]), np.eye(3)).astype(complex)


def centre_tap(first: complex, second: complex) -> tuple[ComplexArray, ComplexArray]:
    """Windings of a primary and two halves, each with its leakage, and how they stand at the nodes."""
    y = np.array([1 / first, 1 / second, 1 / second])
    return np.diag(y) - np.outer(y, y) / y.sum(), np.diag([1.0, 1.0, -1.0])


def load_of(network: UnbalancedNetwork) -> tuple[ComplexArray, ComplexArray]:
    """Injections (1, p) and nominal powers (1, l) of the network's own loads."""
    case = simple_case(network, 20.0)
    return -case.load_pu, case.law_pu


def test_three_coupled_conductors_worked_by_hand():
    """Loads of 1 + j0.5 and 0.4 + j0.2 pu on phases 1 and 2, none on 3; import at 20, a generator at 1 at 50.

    With h = sqrt(3) / 2 and z' = conj(z), the voltage of phase k falls by 2 Re(V_k / V_l  z'_kl S_l).  The own
    impedance gives 2 (0.02 P + 0.04 Q).  For the mutual one, V_k / V_l = -1/2 + jh if l lags k by 120 degrees
    (1 by 2, 2 by 3, 3 by 1), and -1/2 - jh if it leads:
        lags:   2 Re((-1/2 + jh)(0.01 - j0.01) S) = (-0.01 + 0.01 sqrt3) P - (0.01 + 0.01 sqrt3) Q
        leads:  2 Re((-1/2 - jh)(0.01 - j0.01) S) = (-0.01 - 0.01 sqrt3) P - (0.01 - 0.01 sqrt3) Q
    so that without the generator
        w1 = 1 - 0.08 - [0.4 (-0.01 + 0.01 sqrt3) - 0.2 (0.01 + 0.01 sqrt3)]    = 0.926 - 0.002 sqrt3
        w2 = 1 - 0.032 - [(-0.01 - 0.01 sqrt3) - 0.5 (0.01 - 0.01 sqrt3)]       = 0.983 + 0.005 sqrt3
        w3 = 1 - [(-0.01 + 0.01 sqrt3) - 0.5 (0.01 + 0.01 sqrt3)]
               - [0.4 (-0.01 - 0.01 sqrt3) - 0.2 (0.01 - 0.01 sqrt3)]           = 1.021 - 0.003 sqrt3
    The band holds w1 at 0.946 - 0.002 sqrt3: the generator gives 0.02 / 0.04 = 0.5 pu, which moves w2 by
    0.5 (-0.01 - 0.01 sqrt3) and w3 by 0.5 (-0.01 + 0.01 sqrt3).  The multiplier is 30 / 0.04 = 750; prices are
    20 and 0 plus 750 times what each load takes off w1.
    """
    held = np.sqrt(0.946 - 0.002 * ROOT3)
    network = one_line(load={"1.1": 100 + 50j, "1.2": 40 + 20j}, band={"1.1": (held, 1.5)})
    found = clear(offered(network, [20.0], (3, resource("g", "", supply=[(100, 50)]))), LOSSLESS)
    assert found.status == "converged"
    assert found.awards.net_injection_kw[0, 0] == pytest.approx(50.0, rel=1e-11)
    assert found.import_kw[0] == pytest.approx(90.0, rel=1e-11)
    assert found.import_kvar[0] == pytest.approx(70.0, rel=1e-11)
    squared = [0.946 - 0.002 * ROOT3, 0.978, 1.016 + 0.002 * ROOT3]
    np.testing.assert_allclose(found.voltages.v_pu[0, 3:] ** 2, squared, rtol=1e-12)
    np.testing.assert_allclose(found.flows.from_kva[0], [50 + 50j, 40 + 20j, 0], atol=1e-10)
    prices = found.prices
    np.testing.assert_allclose(
        prices.lmp_usd_per_mwh[0], [20, 20, 20, 50, 12.5 + 7.5 * ROOT3, 12.5 - 7.5 * ROOT3], rtol=1e-11
    )
    np.testing.assert_allclose(
        prices.lmp_q_usd_per_mvarh[0], [0, 0, 0, 60, -7.5 - 7.5 * ROOT3, -7.5 + 7.5 * ROOT3], atol=1e-10
    )
    np.testing.assert_allclose(prices.energy[0], 20.0, rtol=1e-12)
    np.testing.assert_allclose(prices.voltage[0, 3:], [30, -7.5 + 7.5 * ROOT3, -7.5 - 7.5 * ROOT3], rtol=1e-11)


def test_one_phase_with_linear_losses_and_a_load_of_constant_impedance_worked_by_hand():
    """A load of (p + jq) w behind r + jx: one impedance of 1 / (p - jq) behind another, known without iteration.

    With z = r + jx and y = p - jq: v = 1 / (1 + z y), and the import is conj(y / (1 + z y)).
    Lossless: the flow is (p + jq) w, so w = 1 - 2 (r p + x q) w.
    """
    r, x, p, q = 0.03, 0.05, 0.8, 0.3
    wires = Wires()
    wires.line("0-1", ("0", "1", "2"), np.array([[r + 1j * x]]))
    network = wires.network(source=[1.0], law=laws((1, 1.0, 2.0)), law_kva=[100 * (p + 1j * q)])
    exact = 1 / (1 + (r + 1j * x) * (p - 1j * q))
    found = clear(simple_case(network, 20.0), LINEAR)
    assert found.voltages.v_pu[0, 1] == pytest.approx(abs(exact), rel=1e-11)
    drawn = np.conj((p - 1j * q) * exact)
    assert found.import_kw[0] + 1j * found.import_kvar[0] == pytest.approx(100 * drawn, rel=1e-11)
    lossless = clear(simple_case(network, 20.0), LOSSLESS)
    squared = 1 / (1 + 2 * (r * p + x * q))
    assert lossless.voltages.v_pu[0, 1] ** 2 == pytest.approx(squared, rel=1e-12)
    assert lossless.import_kw[0] == pytest.approx(100 * p * squared, rel=1e-12)


def test_a_pair_s_power_divides_by_the_phasors_of_its_two_nodes():
    """V1 / (V1 - V2) = 1/2 - j / (2 sqrt3) on the leading phase, and its conjugate on the lagging one."""
    network = one_line(pair=[("1.1", "1.2")])
    flow = LinDistFlow(network, no_losses(network), 8).operate(np.eye(1, 7, 6) * -1.0).branch_power()[0][0]
    np.testing.assert_allclose(flow, [0.5 - 0.5j / ROOT3, 0.5 + 0.5j / ROOT3, 0], atol=1e-13)


@pytest.mark.parametrize("losses", ["none", "linear"])
def test_three_equal_phases_are_one_balanced_feeder(losses: str):
    """Three symmetric conductors act on a balanced load by the difference of own and mutual impedance."""
    one = feeder([Branch("0", "1", 0.01, 0.03), Branch("1", "2", 0.02, 0.06, shunt=0.04j)], {"2": (90, 40)})
    wires = Wires()
    wires.line("0-1", ("0", "1", "123"), SYMMETRIC)
    wires.line("1-2", ("1", "2", "123"), 2 * SYMMETRIC, 0.04j * np.eye(3))
    three = wires.network(load={f"2.{phase}": 90 + 40j for phase in "123"})
    points = []
    for network in (one, three):
        p_kw, q_kvar = network.element_loads()
        there = -(p_kw + 1j * q_kvar) / 100
        linear = losses_around(network, there) if losses == "linear" else no_losses(network)
        points.append(LinDistFlow(network, linear, 8).operate(1.1 * there[None]))
    np.testing.assert_allclose(points[1].voltage()[0], np.repeat(points[0].voltage()[0], 3), rtol=1e-12)
    np.testing.assert_allclose(points[1].import_pu, 3 * points[0].import_pu, rtol=1e-12)


def test_lossless_prices_are_those_of_the_substation_wherever_nothing_follows_the_voltage():
    network = village(charging=0.0)
    network = replace(network, law=no_laws(), element_load=network.port_count - 1 - np.arange(10))
    found = clear(simple_case(network, 20.0), LOSSLESS)
    np.testing.assert_allclose(found.prices.lmp_usd_per_mwh, 20.0, rtol=1e-9)
    np.testing.assert_allclose(found.prices.lmp_q_usd_per_mvarh, 0.0, atol=1e-8)
    assert found.import_kw[0] == pytest.approx(network.element_p_kw.sum(), rel=1e-11)
    assert found.import_kvar[0] == pytest.approx(network.element_q_kvar.sum(), rel=1e-11)


def test_a_delta_wye_transformer_turns_by_30_degrees_and_keeps_power():
    """A load on phase 1 is drawn from phases 1 and 2 of the delta by (1/2 -+ j / (2 sqrt3)) S."""
    wires = Wires()
    wires.transformer(
        "delta-wye",
        ("0", "123", "1", "123"),
        per_core(two_windings(0.01 + 0.05j), 3),
        np.kron(np.diag([1, 0]), DELTA) + _lower(),
    )
    network = wires.network(load={"1.1": 60 + 30j})
    no_load = PowerFlow(network).no_load_pu
    np.testing.assert_allclose(no_load[3:], ROTATION * np.exp(1j * np.pi / 6), atol=1e-14)
    model = LinDistFlow(network, no_losses(network), 8)
    np.testing.assert_allclose(model.operate(np.zeros((1, 6), complex)).voltage()[0], 1.0, rtol=1e-14)
    point = model.operate(load_of(network)[0])
    at_from, at_to = point.branch_power()
    np.testing.assert_allclose(at_to[0], [-0.6 - 0.3j, 0, 0], atol=1e-14)
    share = np.array([0.5 - 0.5j / ROOT3, 0.5 + 0.5j / ROOT3, 0])
    np.testing.assert_allclose(at_from[0], share * (0.6 + 0.3j), atol=1e-14)
    np.testing.assert_allclose(point.voltage()[0, 3:] ** 2, [1 - 2 * (0.01 * 0.6 + 0.05 * 0.3), 1, 1], rtol=1e-13)


def test_a_centre_tap_s_halves_share_the_impedance_of_the_primary():
    """Loads a and b on the halves, ratio 1 and -1: each half falls by 2 Re(z1' (a + b) + z2' own)."""
    first, second = 0.01 + 0.03j, 0.02 + 0.01j
    wires = Wires()
    wires.transformer("centre tap", ("0", "2", "1", "12"), *centre_tap(first, second))
    network = wires.network(source=[1.02j], load={"1.1": 30 + 10j, "1.2": 20 - 5j})
    np.testing.assert_allclose(PowerFlow(network).no_load_pu, [1.02j, 1.02j, -1.02j], atol=1e-14)
    model = LinDistFlow(network, no_losses(network), 8)
    np.testing.assert_allclose(model.operate(np.zeros((1, 3), complex)).voltage()[0], 1.02, rtol=1e-14)
    point = model.operate(load_of(network)[0])
    a, b = 0.3 + 0.1j, 0.2 - 0.05j
    fall = [2 * (np.conj(first) * (a + b) + np.conj(second) * own).real for own in (a, b)]
    np.testing.assert_allclose(point.voltage()[0, 1:] ** 2, 1.02**2 - np.array(fall), rtol=1e-13)
    at_from, at_to = point.branch_power()
    np.testing.assert_allclose(at_from[0], [a + b, 0], atol=1e-13)
    np.testing.assert_allclose(at_to[0], [-a, -b], atol=1e-13)


def test_linear_losses_are_those_of_the_ac_power_flow_at_their_base():
    """Without bids the whole state is: voltages, import and the flows at both ends of every conductor."""
    network = village()
    injection, law = load_of(network)
    found = LinDistFlow(network, losses_around(network, injection[0], law), 8).operate(injection)
    expected = AcTangent(network, law).operate(injection)
    assert expected.voltage().min() < 0.97
    np.testing.assert_allclose(found.voltage(), expected.voltage(), rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.import_pu, expected.import_pu, rtol=1e-9)
    for end, exact in zip(found.branch_power(), expected.branch_power(), strict=True):
        np.testing.assert_allclose(end, exact, rtol=0, atol=1e-9)


def errors(scale: float) -> tuple[FloatArray, float]:
    """Errors of the voltages (n,) and of the import, lossless, against the AC power flow [pu]."""
    network = village(scale, charging=0.0)
    injection, law = load_of(network)
    found = LinDistFlow(network, no_losses(network, law), 8).operate(injection)
    expected = AcTangent(network, law).operate(injection)
    return np.abs(found.voltage() - expected.voltage())[0], float(np.abs(found.import_pu - expected.import_pu)[0])


def test_the_lossless_error_falls_with_the_square_of_the_load():
    """At a tenth of the load, 0.4 pu, voltages are within 1e-4 pu and the import within 4e-3 pu of the AC ones.

    The model has no angles, so what these do to the voltage between two phases is missing: behind the winding
    across phases at bus 4, which no source holds, the error falls with the load itself.
    """
    network = village()
    across = network.bus == "5"
    inside = ~(across | network.is_source)
    (whole, import_whole), (half, import_half) = errors(0.1), errors(0.05)
    assert whole[inside].max() < 1e-4
    assert import_whole < 4e-3
    np.testing.assert_allclose(whole[inside] / half[inside], 4.0, rtol=0.1)
    assert import_whole / import_half == pytest.approx(4.0, rel=0.1)
    assert whole[across] < 1e-3
    assert whole[across] / half[across] == pytest.approx(2.0, rel=0.1)


def test_gradients_are_the_differences_of_a_linear_model():
    network = village(rating={"delta-wye": 2.0, "1-2": 3.0, "4-3": 2.0, "centre tap": 1.5})
    here, law = load_of(network)
    model = LinDistFlow(network, losses_around(network, here[0], law), 8)
    point, ports = model.operate(here), np.arange(network.port_count)
    limit = np.arange(len(model.limits))
    real, reactive = point.import_gradients(ports)
    of_limits = point.limit_gradients(np.zeros_like(limit), limit, ports)
    for part, step in ((0, 1.0), (1, 1j)):
        for port in ports:
            there = here.copy()
            there[0, port] += step
            moved = model.operate(there)
            change = moved.import_pu[0] - point.import_pu[0]
            assert real[0, part, port] + 1j * reactive[0, part, port] == pytest.approx(change, abs=1e-11)
            np.testing.assert_allclose(of_limits[:, part, port], (moved.limit_value - point.limit_value)[0], atol=1e-11)
    assert np.abs(of_limits).max(axis=(0, 1))[network.node_count :].min() > 1e-3


def test_linear_losses_have_the_slope_of_the_ac_ones_where_no_load_follows_the_voltage_across_phases():
    """Loss factors within 0.001 of the AC power flow's, where these reach 0.05 to 0.17: angles hardly touch losses."""
    network = village()
    injection, law = load_of(network)
    law = np.where(network.law.port < network.node_count, law, 0.0)
    ports = np.flatnonzero(~network.is_source)
    found = LinDistFlow(network, losses_around(network, injection[0], law), 8).operate(injection)
    expected = AcTangent(network, law).operate(injection)
    for mine, exact in zip(found.import_gradients(ports), expected.import_gradients(ports), strict=True):
        assert np.ptp(exact[0], axis=1).min() > 0.05
        np.testing.assert_allclose(mine, exact, rtol=0, atol=1e-3)


def test_loads_that_follow_their_voltage_have_the_slope_of_the_mean_interval():
    """Loads 0 and 2 p w behind r have the mean p w: they become S0 + p (w - 1) around the voltage without load."""
    r, p = 0.05, 0.4
    wires = Wires()
    wires.line("0-1", ("0", "1", "1"), np.array([[r + 0j]]))
    network = wires.network(source=[1.0], law=laws((1, 1.0, 2.0)), law_kva=[100 * p])
    model = LinDistFlow(network, no_losses(network, np.array([[0.0], [2 * p]], dtype=complex)), 8)
    point = model.operate(np.zeros((2, 2), complex))
    slope = 1 + 2 * r * p
    squared = np.array([1 + 2 * r * p, 1 - 2 * r * p]) / slope
    np.testing.assert_allclose(point.voltage()[:, 1] ** 2, squared, rtol=1e-13)
    drawn = np.array([0.0, 2 * p]) + p * (squared - 1)
    np.testing.assert_allclose(point.import_pu, drawn, atol=1e-14)


@pytest.mark.parametrize("around", [no_losses, losses_around], ids=["none", "linear"])
def test_loads_that_follow_their_voltage_draw_what_import_and_branches_leave(around):
    """Without charging, import is the loads' constant and following power and what the branches take."""
    network = village(charging=0.0)
    injection, law_pu = load_of(network)
    linear = no_losses(network, law_pu) if around is no_losses else losses_around(network, injection[0], law_pu)
    point = LinDistFlow(network, linear, 16).operate(injection * np.array([[1.0], [0.8]]))
    taken = sum(power.sum(axis=1) for power in point.branch_power())
    drawn = point.law_power()
    assert drawn.shape == (2, 4)
    np.testing.assert_allclose(point.import_pu, drawn.sum(axis=1) - point.injection_pu.sum(axis=1) + taken, rtol=1e-9)
    v = np.abs(network.incidence[network.law.port] @ PowerFlow(network, law_pu).solve(injection)[0][0])
    if around is losses_around:
        exact = law_pu[0] * (v / network.law.base_pu) ** network.law.exponent
        np.testing.assert_allclose(drawn[0], exact, rtol=1e-9)


def test_around_a_power_flow_loads_outside_their_band_are_what_they_are_there():
    """Constant power above its band's edge of 0.95 is an impedance there; without losses the band is ignored."""
    wires = Wires()
    wires.line("0-1", ("0", "1", "1"), np.array([[0.02 + 0.04j]]))
    law = replace(laws((1, 1.0, 0.0)), u_max=np.array([0.95]))
    network = wires.network(source=[1.0], law=law, law_kva=[50 + 20j])
    injection, nominal = load_of(network)
    expected = AcTangent(network, nominal).operate(injection)
    found = LinDistFlow(network, losses_around(network, injection[0], nominal), 8).operate(injection)
    np.testing.assert_allclose(found.import_pu, expected.import_pu, rtol=1e-10)
    lossless = LinDistFlow(network, no_losses(network, nominal), 8).operate(injection)
    np.testing.assert_allclose(lossless.import_pu, 0.5 + 0.2j, rtol=1e-12)


def test_a_branch_against_its_direction_is_the_same_branch():
    """From and to end change places, at a line and at a transformer."""
    both = []
    for ends in (("0", "1", "1", "2"), ("1", "0", "2", "1")):
        wires = Wires()
        wires.nodes("0", "123")
        windings = per_core(two_windings(0.01 + 0.05j, 1.02), 3)
        delta_wye = np.kron(np.diag([1, 0]), DELTA) + _lower()
        if ends[0] == "1":
            order = np.r_[3:6, 0:3]
            delta_wye = delta_wye[:, order]
        wires.transformer("transformer", (ends[0], "123", ends[1], "123"), windings, delta_wye)
        wires.line("line", (ends[2], ends[3], "123"), SYMMETRIC, 0.02j * np.eye(3))
        network = wires.network(
            load={"2.1": 90 + 40j, "2.3": 50 + 10j}, rating={"transformer": 0.8, "line": 2.0}, band={"1.1": (0.9, 1.1)}
        )
        there, _ = load_of(network)
        both.append(LinDistFlow(network, losses_around(network, there[0]), 4).operate(0.9 * there))
    forth, back = both
    assert forth.formulation.network.from_node[0] == back.formulation.network.to_node[0]
    np.testing.assert_allclose(back.voltage(), forth.voltage(), rtol=1e-12)
    np.testing.assert_allclose(back.branch_power()[0], forth.branch_power()[1], atol=1e-12)
    np.testing.assert_allclose(back.branch_power()[1], forth.branch_power()[0], atol=1e-12)
    other = {"(from end)": "(to end)", "(to end)": "(from end)"}
    expected = {
        re.sub(r"\((from|to) end\)", lambda end: other[end[0]], name): v for name, v in limit_values(forth).items()
    }
    assert len(expected) == 6 + 6 + 3
    assert limit_values(back) == pytest.approx(expected, abs=1e-12)


def limit_values(point: LinearPoint) -> dict[str, float]:
    """Sum over the polygon's sides of each limit's value, every side weighted otherwise."""
    limits, values = point.formulation.limits, {}
    for index, value in enumerate(point.limit_value[0]):
        values[limits.name(index)] = 0.5 * values.get(limits.name(index), 0.0) + value
    return values


def test_a_line_has_one_limit_a_centre_tap_one_at_its_primary_and_one_at_each_half():
    network = village(rating={"1-2": 3.0, "regulator 2": 4.0, "centre tap": 1.5})
    limits = LinDistFlow(network, no_losses(network), 4).limits
    flows = limits.branch >= 0
    assert sorted({limits.name(i) for i in np.flatnonzero(flows)}) == [
        "1-2.1", "1-2.2", "1-2.3",
        "centre tap.1 (to end)", "centre tap.2 (to end)", "centre tap.3 (from end)",
        "regulator 2.2",
    ]  # fmt: skip
    np.testing.assert_allclose(limits.upper[flows][:4], 3.0 * np.cos(np.pi / 4))
    assert {limits.name(i) for i in np.flatnonzero(~flows)} == {
        f"bus {bus}.{phase}" for bus, phase in zip(network.bus[3:], network.phase[3:], strict=True)
    }


def test_the_halves_of_a_centre_tap_share_its_primary_s_rating():
    """Loads of 0.6 and 0.8 pu behind a rating of 1.2 pu: 0.2 pu come from a generator at one half, at 50."""
    wires = Wires()
    wires.transformer("centre tap", ("0", "1", "1", "12"), *centre_tap(0.01 + 0.03j, 0.02 + 0.01j))
    sides = 32
    rating = np.where(np.arange(2) == 0, 1.2 / np.cos(np.pi / sides), np.inf)
    network = wires.network(source=[1.0], load={"1.1": 60, "1.2": 80})
    network = replace(network, rating_from_pu=rating, rating_to_pu=np.full(2, np.inf))
    offer = resource("g", "", supply=[(100, 50)])
    found = clear(offered(network, [20.0], (1, offer)), replace(LOSSLESS, circle_sides=sides))
    assert found.awards.net_injection_kw[0, 0] == pytest.approx(20.0, rel=1e-9)
    np.testing.assert_allclose(found.prices.lmp_usd_per_mwh[0], [20, 50, 50], rtol=1e-9)
    np.testing.assert_allclose(found.prices.congestion[0], [0, 30, 30], atol=1e-8)
    np.testing.assert_allclose(found.flows.loading[0], [1.0, 0.0], atol=1e-9)


@pytest.mark.parametrize("settings", [LOSSLESS, LINEAR], ids=["lossless", "linear"])
def test_eliminated_states_give_the_whole_model_s_cost_and_prices(settings):
    """Two intervals, generators at a node, across phases and at a half of the centre tap; prices at every port."""
    network = village(rating={"delta-wye": 1.6, "1-2": 1.75, "4-3": 1.0})
    network = replace(network, v_min_pu=np.where(network.bus == "5", 1.0, 0.5))
    own, pairs = {"q_kvar": (-15.0, 20.0), "s_max_kva": 90.0}, network.node_count + np.array([1, 2])
    offers = [
        (port, resource(f"g{port}", "", supply=[(40, price), (60, 47)], **own))
        for port, price in zip((network.node("5"), *pairs, network.node("7", "1")), (31, 27, 27.5, 31), strict=True)
    ]
    case = offered(network, [20.0, 28.0], *offers)
    case = replace(case, load_p_kw=case.load_p_kw * [[0.7], [1.15]])
    found = clear(case, settings)
    cost, real, reactive = whole_model(case, settings)
    assert found.status == "converged"
    assert set(found.binding_limits().component) == {"congestion", "voltage"}
    assert (found.awards.net_injection_kw > 1).any(axis=0).sum() >= 3
    assert found.objective == pytest.approx(cost, rel=1e-8)
    np.testing.assert_allclose(found.prices.lmp_usd_per_mwh, real, atol=1e-5)
    np.testing.assert_allclose(found.prices.lmp_q_usd_per_mvarh, reactive, atol=1e-5)


def refused(network: UnbalancedNetwork) -> str:
    with pytest.raises(InputError) as caught:
        clear(simple_case(network, 20.0), LOSSLESS)
    return str(caught.value)


def test_regulators_side_by_side_are_no_mesh_and_a_ring_is_one():
    assert len(sections_of(village()).receiving) == 16
    wires = Wires()
    for start, end in (("0", "1"), ("1", "2"), ("2", "0")):
        wires.line(f"{start}-{end}", (start, end, "123"), SYMMETRIC)
    message = "network, topology = 'meshed': lindistflow needs a radial feeder; use ac_tangent or open a tie"
    assert message in refused(wires.network())


def test_a_limit_of_unbalance_is_refused():
    message = refused(one_line(v_unbalance_max=0.02))
    assert "network, v_unbalance_max = 0.02: lindistflow has no phase angles and cannot limit unbalance" in message


def test_a_delta_winding_that_feeds_is_refused_by_its_name():
    wires = Wires()
    turned = np.kron(np.diag([0, 1]), DELTA) + np.kron(np.diag([1, 0]), np.eye(3))
    wires.transformer("wye-delta", ("0", "123", "1", "123"), per_core(two_windings(0.05j), 3), turned)
    floating = np.repeat([False, True], 3)
    message = refused(wires.network(is_floating=floating, shunt={"1.1": 1e-6j}))
    assert "2 problems" in message
    assert "network, floating buses = '1': lindistflow needs voltages to ground; use ac_tangent" in message
    assert "branch wye-delta, admittance = 'singular': leaves the voltage to ground open at bus 1" in message


def test_a_neutral_and_a_pair_of_one_phase_are_refused():
    wires = Wires()
    wires.nodes("0", "123")
    wires.line("0-1", ("0", "1", "123"), SYMMETRIC)
    wires.add("star", "transformer", ("1", "12", "2", "14"), np.diag([0.1, 0.1, 0.1, 30.0]) - 0.02 * np.ones((4, 4)))
    message = refused(wires.network())
    assert "bus 2, phase = '4': lindistflow needs a voltage there and cannot carry a neutral; reduce it" in message
    wires = Wires()
    wires.line("0-1", ("0", "1", "12"), SYMMETRIC[:2, :2])
    message = refused(wires.network(source=[1.0, 1.0], pair=[("1.1", "1.2")]))
    assert "bus 1, phase = '12': lindistflow needs a voltage there" in message


def test_all_that_does_not_fit_is_named_at_once():
    wires = Wires()
    for start, end in (("0", "1"), ("1", "2"), ("2", "0")):
        wires.line(f"{start}-{end}", (start, end, "123"), SYMMETRIC)
    turned = np.kron(np.diag([0, 1]), DELTA) + np.kron(np.diag([1, 0]), np.eye(3))
    wires.transformer("wye-delta", ("0", "123", "3", "123"), per_core(two_windings(0.05j), 3), turned)
    floating = np.array([name.startswith("3") for name in wires.node])
    message = refused(wires.network(is_floating=floating, v_unbalance_max=0.03))
    for part in ("4 problems", "v_unbalance_max", "floating buses", "topology", "branch wye-delta"):
        assert part in message
