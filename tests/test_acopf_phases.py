"""The AC oracle by phase: limits and balances worked out port by port, its own finite differences, balanced feeders."""

from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache

import numpy as np
import pytest
from acopf import AcOpf, solve_acopf
from cases import CASES, bids_of, resource, total
from scipy import sparse
from test_acopf import AT_LIMIT, profits
from unbalanced import BALANCED, LAWS, NODES, PAIRS, PORTS, ROOT3, base_pu, ports, unbalanced, with_a_neutral

from dlmp.bids import Bids, Resources
from dlmp.market import MarketCase, Substation, simple_case
from dlmp.network.model import FloatArray, Network, UnbalancedNetwork
from dlmp.units import BASE_KVA

CYCLE = ((0, 1), (1, 2), (2, 0))
"""Phases across which the windings of a delta stand."""

OFFERS = [
    (resource("roof", "b", supply=[(40, 33), (40, 46)], q_kvar=(-20.0, 30.0), s_max_kva=70.0), ("b.1",)),
    (resource("lateral", "c", supply=[(20, 36), (20, 55)], q_kvar=(-10.0, 10.0)), ("c.2-c.4",)),
    (resource("three phases", "b", kind="load", demand=[(30, 60), (30, 30.2)]), ("b.1", "b.2", "b.3")),
    (resource("delta", "e", supply=[(30, 34), (30, 48)], q_kvar=(-15.0, 15.0), s_max_kva=50.0), ("e.3-e.1",)),
    (resource("plant", "d", supply=[(60, 38), (60, 58)]), ("d.1-d.2", "d.2-d.3", "d.3-d.1")),
    (resource("heat", "d", kind="load", demand=[(30, 45), (20, 25)]), ("d.2-d.3",)),
]
"""Resources and their ports, each with an equal share."""


def bidders(network: UnbalancedNetwork, intervals: int) -> tuple[Resources, Bids]:
    """The resources and bids of `OFFERS`."""
    share, offers = np.zeros((len(OFFERS), network.port_count)), [offer for offer, _ in OFFERS]
    for row, (_, names) in zip(share, OFFERS, strict=True):
        row[ports(network, *names)] = 1 / len(names)
    resources = Resources(
        name=np.array([offer.name for offer in offers]),
        kind=np.array([offer.kind for offer in offers]),
        share=sparse.csr_array(share),
        p_min_kw=np.array([-total(offer.demand) for offer in offers]),
        p_max_kw=np.tile([total(offer.supply) for offer in offers], (intervals, 1)),
        q_min_kvar=np.array([offer.q_kvar[0] for offer in offers]),
        q_max_kvar=np.array([offer.q_kvar[1] for offer in offers]),
        s_max_kva=np.array([offer.s_max_kva for offer in offers]),
    )
    return resources, bids_of(tuple(offers), intervals)


def priced(network: UnbalancedNetwork, *price: float, **substation: float) -> MarketCase:
    """A case of `OFFERS` with one interval per import price."""
    resources, bids = bidders(network, len(price))
    case = simple_case(network, np.array(price), resources=resources, bids=bids)
    return replace(case, substation=Substation(np.array(price), np.full(len(price), 2.0), **substation))


def with_v_min(bus: str, v_min_pu: float) -> UnbalancedNetwork:
    """Another lower end of the band at one bus."""
    network = unbalanced()
    return replace(network, v_min_pu=np.where(network.bus == bus, v_min_pu, network.v_min_pu))


def with_rating(branch: str, *rating: float) -> UnbalancedNetwork:
    """Other ratings, at both ends, of the conductors of one branch."""
    network = unbalanced()
    own = network.rating_from_pu.copy()
    own[network.branch == branch] = rating
    return replace(network, rating_from_pu=own, rating_to_pu=own)


HELD: dict[str, tuple[Callable[[], MarketCase], set[str]]] = {
    "nothing": (lambda: priced(unbalanced(), 30.0), set()),
    "low phase": (lambda: priced(with_v_min("b", 0.98), 30.0), {"b.2"}),
    "low pair": (lambda: priced(with_v_min("e", 0.967), 30.0), {"e.2-e.3"}),
    "current": (lambda: priced(with_rating("a-b", 9.0, 1.4, 1.4), 30.0), {"to a-b 2"}),
    "apparent power": (lambda: priced(with_rating("a-b", 1.2, 9.0, 9.0), 30.0), {"from a-b 1"}),
    "unbalance": (lambda: priced(unbalanced(v_unbalance_max=0.028), 30.0), {"unbalance e"}),
    "import": (lambda: priced(unbalanced(), 30.0, p_max_kw=360.0), {"import"}),
}
"""Cases by what holds them, and the limits that they reach, as `slack` names them."""


@cache
def solved(name: str) -> tuple[MarketCase, AcOpf]:
    """One of `HELD` and its solution."""
    case = replace(HELD[name][0](), name=name)
    return case, solve_acopf(case)


@pytest.fixture(params=HELD)
def cleared(request: pytest.FixtureRequest) -> tuple[MarketCase, AcOpf]:
    return solved(request.param)


def test_case_is_held_by_the_limits_that_it_is_named_for(cleared: tuple[MarketCase, AcOpf]) -> None:
    case, result = cleared
    left = slack(case, result)
    assert min(left.values()) > -AT_LIMIT
    assert {name for name, value in left.items() if value < AT_LIMIT} == HELD[case.name][1]


def test_currents_balance_at_every_node(cleared: tuple[MarketCase, AcOpf]) -> None:
    case, result = cleared
    current = case.network.admittance @ result.v[0]
    for port, taken in port_current(case, result).items():
        nodes = port.split("-")
        current[NODES.index(nodes[0])] += taken
        if len(nodes) == 2:
            current[NODES.index(nodes[1])] -= taken
    np.testing.assert_allclose(current[3:], 0.0, atol=1e-9)
    imported = (result.v[0, :3] * np.conj(current[:3])).sum() * BASE_KVA
    assert result.import_p_kw[0] + 1j * result.import_q_kvar[0] == pytest.approx(imported, abs=1e-6)


def test_dispatch_is_what_each_resource_would_choose_at_its_prices(cleared: tuple[MarketCase, AcOpf]) -> None:
    case, result = cleared
    for index in range(len(case.resources)):
        earned, best = profits(case, result, 0, index)
        assert earned == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "port"),
    [
        *(("low phase", port) for port in PORTS if port in ("grid.2", "a.1", "b.3") or port in PAIRS),
        *(("low pair", port) for port in ("b.1", "c.2", "d.3-d.1")),
        *(("current", port) for port in ("b.1", "e.1-e.2")),
        *(("apparent power", port) for port in ("b.1", "b.1-b.2", "e.1-e.2")),
        *(("unbalance", port) for port in ("a.1", "e.1-e.2", "e.2-e.3")),
        *(("import", port) for port in ("grid.1", "c.2-c.4")),
    ],
)
@pytest.mark.parametrize(("load", "price"), [("load_p_kw", "price_p"), ("load_q_kvar", "price_q")])
def test_price_is_the_cost_of_one_more_unit_of_demand(name: str, port: str, load: str, price: str) -> None:
    case, result = solved(name)
    step = np.zeros_like(case.load_p_kw)
    step[0, PORTS.index(port)] = 0.1
    more, less = (solve_acopf(replace(case, **{load: getattr(case, load) + d})).cost for d in (step, -step))
    expected = getattr(result, price)[0, PORTS.index(port)]
    assert (more - less) / 0.2 * 1000 == pytest.approx(expected, abs=1e-3)


def test_limit_at_one_phase_sets_the_phases_apart() -> None:
    free, held = (
        solved(name)[1].price_p[0, [PORTS.index("b.2"), PORTS.index("b.3")]] for name in ("nothing", "low phase")
    )
    assert np.ptp(free) < 2.0
    assert np.ptp(held) > 15.0


def test_each_interval_is_cleared_with_its_own_numbers() -> None:
    both = priced(with_v_min("b", 0.975), 30.0, 45.0)
    scale = np.array([[1.0], [0.8]])
    both = replace(both, load_p_kw=both.load_p_kw * scale, load_q_kvar=both.load_q_kvar * scale)
    result = solve_acopf(both)
    for t, price in enumerate((30.0, 45.0)):
        one = priced(both.network, price)
        alone = solve_acopf(replace(one, load_p_kw=both.load_p_kw[[t]], load_q_kvar=both.load_q_kvar[[t]]))
        np.testing.assert_allclose(result.price_p[t], alone.price_p[0], atol=1e-5)
        np.testing.assert_allclose(result.p_kw[t], alone.p_kw[0], atol=1e-5)


def test_solution_does_not_depend_on_the_start(cleared: tuple[MarketCase, AcOpf]) -> None:
    case, result = cleared
    noise = np.random.default_rng(7).uniform(-0.02, 0.02, (2, *result.v.shape))
    again = solve_acopf(case, start=result.v * (1 + noise[0]) * np.exp(1j * noise[1]))
    assert again.cost == pytest.approx(result.cost, rel=1e-9)
    np.testing.assert_allclose(
        again.price_p[0, case.network.is_priced], result.price_p[0, case.network.is_priced], atol=1e-5
    )


@pytest.mark.parametrize("name", ["congestion_current_33", "congestion_power_33", "day_33", "transformer_cigre"])
@pytest.mark.parametrize("delta", [False, True])
def test_three_equal_phases_have_the_prices_of_the_balanced_feeder(name: str, delta: bool) -> None:
    """On average, where limits hold all phases at once: nothing tells which of them is the dear one."""
    case = CASES[name]()
    balanced, found = solve_acopf(case), solve_acopf(by_phase(case, delta=delta))
    assert found.cost == pytest.approx(balanced.cost, rel=1e-9)
    np.testing.assert_allclose(found.p_kw, balanced.p_kw, atol=1e-4)
    for price, expected in ((found.price_p, balanced.price_p), (found.price_q, balanced.price_q)):
        for of_phase, own in by_kind(price, case.network, expected):
            np.testing.assert_allclose(of_phase.mean(axis=1), own, atol=1e-5)


@pytest.mark.parametrize("delta", [False, True])
def test_without_limits_every_one_of_three_equal_phases_has_the_price_of_the_balanced_feeder(delta: bool) -> None:
    case = CASES["heavy_33"]()
    balanced, found = solve_acopf(case), solve_acopf(by_phase(case, delta=delta))
    for price, expected in ((found.price_p, balanced.price_p), (found.price_q, balanced.price_q)):
        for of_phase, own in by_kind(price, case.network, expected):
            np.testing.assert_allclose(of_phase, np.repeat(own[:, None], 3, axis=1), atol=1e-6)


def test_law_of_exponent_zero_is_constant_power() -> None:
    case, _ = solved("low phase")
    zero = np.zeros(len(LAWS))
    law = replace(case.network.law, exponent=zero, outer=zero)
    followed = replace(case, network=replace(case.network, law=law))
    p_kw, q_kvar = case.load_p_kw.copy(), case.load_q_kvar.copy()
    for load in (p_kw, q_kvar):
        np.add.at(load[0], law.port, load[0, len(PORTS) :])
        load[0, len(PORTS) :] = 0.0
    expected = solve_acopf(replace(case, load_p_kw=p_kw, load_q_kvar=q_kvar))
    np.testing.assert_allclose(solve_acopf(followed).price_p, expected.price_p, atol=1e-6)


def test_law_of_exponent_two_is_an_admittance() -> None:
    case, _ = solved("low phase")
    two = np.full(len(LAWS), 2.0)
    followed = replace(case, network=replace(case.network, law=replace(case.network.law, exponent=two, outer=two)))
    across = case.network.incidence[case.network.law.port]
    own = sparse.diags_array([np.conj(law.kva) / BASE_KVA / base_pu(law.port) ** 2 for law in LAWS])
    network = replace(case.network, shunt_rows=sparse.csr_array(case.network.shunt_rows + across.T @ own @ across))
    kept = np.arange(case.load_p_kw.shape[1]) < len(PORTS)
    shunted = replace(case, network=network, load_p_kw=case.load_p_kw * kept, load_q_kvar=case.load_q_kvar * kept)
    found, expected = solve_acopf(followed), solve_acopf(shunted)
    assert found.cost == pytest.approx(expected.cost, rel=1e-9)
    np.testing.assert_allclose(found.price_p, expected.price_p, atol=1e-5)


def test_load_outside_the_band_of_its_law_is_refused() -> None:
    case, _ = solved("nothing")
    laws = [law.port for law in LAWS]
    u_max = np.where(np.array(laws) == "d.1-d.2", 1.005, case.network.law.u_max)
    narrow = replace(case, network=replace(case.network, law=replace(case.network.law, u_max=u_max)))
    with pytest.raises(RuntimeError, match=r"interval 0: loads .* laws: d.12 at 1\.0\d*, band 0.95 to 1.005$"):
        solve_acopf(narrow)
    nothing = np.arange(case.load_p_kw.shape[1]) != len(PORTS) + laws.index("d.1-d.2")
    solve_acopf(replace(narrow, load_p_kw=case.load_p_kw * nothing, load_q_kvar=case.load_q_kvar * nothing))


def test_neutral_needs_no_voltage_to_start_from() -> None:
    network = with_a_neutral()
    price = np.full((2, network.port_count), np.nan)
    for row, p_kw in zip(price, (0.0, 40.0), strict=True):
        load = np.zeros((1, network.port_count))
        load[0, -1] = p_kw
        row[:] = solve_acopf(replace(simple_case(network, 30.0), load_p_kw=load)).price_p[0]
    assert np.isnan(price[0, ports(network, "s.4", "x.4")]).all()
    assert price[1, -1] > price[0, -1] + 1.0
    np.testing.assert_allclose(price[0, ports(network, "x.1", "x.1-x.4")], 30.0, atol=1e-6)


@pytest.mark.parametrize("name", ["nothing", "low pair"])
def test_prices_do_not_depend_on_what_holds_the_floating_nodes(name: str) -> None:
    """A small admittance at each node, next to none, or all at one corner, whose voltage to ground is then zero."""
    case, _ = solved(name)
    shunt, leak = case.network.shunt_rows.diagonal(), ports(case.network, "d.1", "d.2", "d.3")
    results = []
    for share in (np.full(3, 1e-4), np.full(3, 1e-8), np.array([3e-8, 0.0, 0.0])):
        held = shunt.copy()
        held[leak] *= share
        network = replace(case.network, shunt_rows=sparse.csr_array(sparse.diags_array(held)))
        results.append(solve_acopf(replace(case, network=network)))
    first, *others = results
    assert abs(others[-1].v[0, leak[0]]) < 0.1
    for other in others:
        assert other.cost == pytest.approx(first.cost, rel=1e-7)
        np.testing.assert_allclose(
            other.price_p[0, case.network.is_priced], first.price_p[0, case.network.is_priced], atol=1e-5
        )


def by_kind(price: FloatArray, network: Network, expected: FloatArray) -> list[tuple[FloatArray, FloatArray]]:
    """Prices (t, 3, k) of phases to ground and of pairs in a case of `by_phase`, each with what is expected (t, k)."""
    to_ground, across = np.split(price, [3 * network.node_count], axis=1)
    inner = expected[:, ~network.is_source]
    return [(part.reshape(len(part), 3, -1), own) for part, own in ((to_ground, expected), (across, inner))]


def by_phase(case: MarketCase, *, delta: bool) -> MarketCase:
    """A balanced case as three phases without mutual impedance, its loads to ground or phase to phase."""
    network = case.network
    node, inner = np.arange(network.node_count), np.flatnonzero(~network.is_source)
    pair = np.vstack([np.column_stack([inner + len(node) * one, inner + len(node) * two]) for one, two in CYCLE])
    thirds = {
        name: sparse.csr_array(sparse.block_diag([getattr(network, matrix) / 3] * 3))
        for name, matrix in (
            ("from_rows", "from_admittance"),
            ("to_rows", "to_admittance"),
            ("shunt_rows", "shunt_admittance"),
        )
    }
    tripled = {field.name: getattr(network, field.name) for field in fields(Network)} | thirds
    for name in ("bus", "base_kv", "v_min_pu", "v_max_pu", "branch", "branch_kind", "rating_is_current"):
        tripled[name] = np.tile(getattr(network, name), 3)
    for name in ("source", "from_node", "to_node"):
        tripled[name] = np.concatenate([getattr(network, name) + len(node) * phase for phase in range(3)])
    for name in ("rating_from_pu", "rating_to_pu"):
        tripled[name] = np.tile(getattr(network, name) / 3, 3)
    tripled |= {
        "phase": np.repeat(["1", "2", "3"], len(node)),
        "base_kv": tripled["base_kv"] / ROOT3,
        "source_v_pu": np.kron(BALANCED, network.source_v_pu),
        "is_floating": np.zeros(3 * len(node), bool),
        "xy": np.tile(network.xy, (3, 1)),
        "pair": pair,
    }
    to_ground, across = sparse.eye_array(len(node)) / 3, sparse.eye_array(len(node), format="csc")[:, inner] / 3
    spread = sparse.csr_array(sparse.hstack([to_ground * (not delta)] * 3 + [across * delta] * 3))
    return replace(
        case,
        network=UnbalancedNetwork(**tripled),
        load_p_kw=case.load_p_kw @ spread,
        load_q_kvar=case.load_q_kvar @ spread,
        resources=replace(case.resources, share=sparse.csr_array(case.resources.share @ spread)),
    )


def port_current(case: MarketCase, result: AcOpf) -> dict[str, complex]:
    """Current that loads less resources take at each port [pu]."""
    v = port_voltage(result)
    power = dict(zip(PORTS, case.load_pu[0], strict=True))
    for (_, names), p_kw, q_kvar in zip(OFFERS, result.p_kw[0], result.q_kvar[0], strict=True):
        for name in names:
            power[name] -= (p_kw + 1j * q_kvar) / BASE_KVA / len(names)
    for law, nominal in zip(LAWS, case.law_pu[0], strict=True):
        power[law.port] += nominal * (abs(v[law.port]) / base_pu(law.port)) ** law.exponent
    return {port: np.conj(power[port] / v[port]) for port in PORTS}


def port_voltage(result: AcOpf) -> dict[str, complex]:
    """Voltage across each port [pu]."""
    v = dict(zip(NODES, result.v[0].tolist(), strict=True))
    return v | {pair: v[pair.split("-")[0]] - v[pair.split("-")[1]] for pair in PAIRS}


def slack(case: MarketCase, result: AcOpf) -> dict[str, float]:
    """What is left to each limit: voltage [pu], the others relative to their sizes."""
    network, v, left = case.network, port_voltage(result), {}
    for port in PORTS:
        if (port[0] in "abc" and "-" not in port and "4" not in port) or (port[0] in "de" and "-" in port):
            node, size = NODES.index(port[:3]), abs(v[port]) / base_pu(port)
            left[port] = min(size - network.v_min_pu[node], network.v_max_pu[node] - size)
    for end, rows, at, rating in (
        ("from", network.from_rows, network.from_node, network.rating_from_pu),
        ("to", network.to_rows, network.to_node, network.rating_to_pu),
    ):
        for number, current in enumerate(abs(rows @ result.v[0])):
            loading = current if network.rating_is_current[number] else current * abs(result.v[0, at[number]])
            left[f"{end} {network.branch[number]} {network.phase[at[number]]}"] = 1 - loading / rating[number]
    for bus in "abde":
        one, two, three = (v[f"{bus}.{phase}"] for phase in "123")
        turn = np.exp(2j * np.pi / 3)
        negative, positive = abs(one + turn**2 * two + turn * three), abs(one + turn * two + turn**2 * three)
        left[f"unbalance {bus}"] = 1 - negative / positive / network.v_unbalance_max
    left["import"] = 1 - result.import_p_kw[0] / case.substation.p_max_kw
    return left
