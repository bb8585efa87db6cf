"""MATPOWER files arrive as they were meant: code below the tables included, or not at all."""

from pathlib import Path

import numpy as np
import pandapower
import pandapower.networks
import pytest

from dlmp.errors import InputError
from dlmp.network.matpower import from_matpower
from dlmp.network.model import Network
from dlmp.network.pandapower import from_pandapower

BUS = """
    10  3  0    0   0  0  1  1  0  10  1  1    1;
    20  1  100  50  0  0  1  1  0  10  1  1.1  0.9;
    30  1  0    0   0  0  1  1  0  10  1  1.1  0.9;
"""
GEN = "10  0  0  9  -9  1.02  1  1  9  0;"
BRANCH = """
    10  20  2  1  0  0  0  0  0  0  1  -360  360;
    20  30  4  3  0  0  0  0  0  0  1  -360  360;
"""
IDX_BUS = """
[PQ, PV, REF, NONE, BUS_I, BUS_TYPE, PD, QD, GS, BS, BUS_AREA, VM, ...
    VA, BASE_KV, ZONE, VMAX, VMIN, LAM_P, LAM_Q, MU_VMAX, MU_VMIN] = idx_bus;
"""
IDX_BRCH = """
[F_BUS, T_BUS, BR_R, BR_X, BR_B, RATE_A, RATE_B, RATE_C, ... the rest
    TAP, SHIFT, BR_STATUS, PF, QF, PT, QT, MU_SF, MU_ST, ANGMIN, ANGMAX, MU_ANGMIN, MU_ANGMAX] = idx_brch;
"""
OHM_AND_KW = f"""
{IDX_BUS}{IDX_BRCH}
kV_to_V = mpc.bus(1, BASE_KV) * 1e3;   %% in volts
VA = mpc.baseMVA * 1e6;
mpc.branch(:, [BR_R BR_X]) = mpc.branch(:, [BR_R BR_X]) / (kV_to_V^2 / VA);
mpc.bus(:, [PD, QD]) = mpc.bus(:, [PD, QD]) / 1e3;
"""


def case_text(bus: str = BUS, gen: str = GEN, branch: str = BRANCH, code: str = "", base: str = "1") -> str:
    """A case whose tables would be ohm and kW: 1 MVA and 10 kV make a base of 100 ohm."""
    return (
        f"function mpc = feeder\n%FEEDER  an example\nmpc.version = '2';\nmpc.baseMVA = {base};\n"
        f"mpc.bus = [ % kW\n{bus}];\nmpc.gen = [{gen}];\nmpc.branch = [ % ohm\n{branch}];\n{code}\n"
    )


def read(folder: Path, text: str, **options: float) -> Network:
    path = folder / "case.m"
    path.write_text(text, encoding="utf-8")
    return from_matpower(path, **options)


def problems_of(folder: Path, text: str, **options: float) -> list[str]:
    with pytest.raises(InputError) as caught:
        read(folder, text, **options)
    return [str(problem) for problem in caught.value.problems]


def test_ohm_and_kw_code_after_the_tables_is_carried_out(tmp_path: Path) -> None:
    network = read(tmp_path, case_text(code=OHM_AND_KW))
    np.testing.assert_allclose(network.series_pu, [(2 + 1j) / 1000, (4 + 3j) / 1000], rtol=1e-14)
    assert network.element.tolist() == ["load 20"]
    assert network.element_kind.tolist() == ["load"]
    assert network.element_load.tolist() == [1]
    np.testing.assert_allclose([network.element_p_kw, network.element_q_kvar], [[100.0], [50.0]], rtol=1e-14)


def test_tables_without_code_are_mw_and_per_unit_of_the_power_base(tmp_path: Path) -> None:
    network = read(tmp_path, case_text(base="5"))
    np.testing.assert_allclose(network.series_pu, [(2 + 1j) / 50, (4 + 3j) / 50], rtol=1e-14)
    assert network.element_p_kw.tolist() == [100_000.0]


def test_kva_at_a_power_factor_become_kw_and_kvar(tmp_path: Path) -> None:
    code = """
    mpc.bus(:, [PD, QD]) = mpc.bus(:, [PD, QD]) / 1e3;
    pf = 0.6;
    mpc.bus(:, QD) = mpc.bus(:, PD) * sin(acos(pf));
    mpc.bus(:, PD) = mpc.bus(:, PD) * pf;
    """
    network = read(tmp_path, case_text(code=IDX_BUS + code))
    np.testing.assert_allclose([network.element_p_kw, network.element_q_kvar], [[60.0], [80.0]], rtol=1e-12)


@pytest.mark.parametrize(
    "code",
    [
        "mpc.branch(:,3:4)=mpc.branch(:,3:4)/100;",
        "mpc.branch(:,3)=mpc.branch(:,3)/100, mpc.branch(:, 4) = mpc.branch(:, 4)/100",
        "define_constants;\nmpc.branch(:, BR_R:BR_X) = 1e-2 * mpc.branch(:, [BR_R; BR_X]);",
        "mpc.branch(1:end, [3 4]) = mpc.branch(1:end, [3:4]) .* 10^-2;",
        "Z = mpc.bus([1 2], 10) .^ 2 / mpc.baseMVA;\nmpc.branch(:, [3 4]) = mpc.branch(:, [3 4]) ./ Z;",
        "mpc.branch(1, 3:4) = [.02 .01];\nmpc.branch(end, 3) = 0.04;  mpc.branch(end, 4) = +3 / 100;",
        "z = [mpc.branch(:, 3) mpc.branch(:, 4)];\nmpc.branch(:, 3:4) = z - 0.99*z;",
        "ohm = mpc.branch;\nmpc.branch(:, 3:4) = 7;\nmpc.branch(:, 3:4) = ohm(:, 3:4) / 1e2;\nreturn\nmpc.branch = 0;",
    ],
)
def test_every_way_of_writing_the_same_conversion_gives_the_same_network(tmp_path: Path, code: str) -> None:
    network = read(tmp_path, case_text(code=code))
    np.testing.assert_allclose(network.series_pu, [(2 + 1j) / 1000, (4 + 3j) / 1000], rtol=1e-14)


def test_comments_and_fields_that_no_network_needs_change_nothing(tmp_path: Path) -> None:
    code = """
    %{
    mpc.bus(:, 3) = 0;
    %{
    nested
    %}
    mpc.bus(:, 4) = 0;
    %}
    # mpc.branch(:, 3) = 0;
    mpc.gencost = [2 0 0 3 0 20 0];
    mpc.bus_name = { 'head; 100%'; "it is"; 'far''s end' };
    mpc.bus_name{2} = 'middle';
    mpc.genfuel = repmat({'grid'}, 1, 1);
    mpc.reserves.zones = ones(3);
    end
    """
    network, plain = read(tmp_path, case_text(code=code)), read(tmp_path, case_text())
    np.testing.assert_array_equal(network.series_pu, plain.series_pu)
    np.testing.assert_array_equal(network.element_loads(), plain.element_loads())


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("for i = 1:2", "expected '=', found 'i'"),
        ("mpc = loadcase('other');", "the case as a whole"),
        ("mpc = scale_load(0.5, mpc);", "the case as a whole"),
        ("mpc.version = '1';", "only format version 2"),
        ("function other", "expected '=', found 'other'"),
        ("mpc.scale = unknown(2);\nmpc.bus(:, 3) = mpc.scale;", "'mpc.scale' is not known here"),
        ("mpc.gencost = [2 0 0 3\nmpc.bus(:, 3) = 0;", "expected a number, found '='"),
        ("mpc.gencost = [2 0 0 3\nmpc.bus(:, 3) = 0);", "expected a number, found '='"),
        ("mpc.zones = mpc.zones '; mpc.bus(:, 3) = 0; mpc.areas = 1 ';", "'mpc.zones' is not known here"),
    ],
)
def test_statement_that_is_not_understood_is_a_problem_with_line_and_remedy(
    tmp_path: Path, code: str, why: str
) -> None:
    text = case_text(code=code)
    found = problems_of(tmp_path, text)
    lines = [text[: text.index(line)].count("\n") + 1 for line in code.split("\n")]
    assert any(f"case.m line {line}, statement = " in problem for problem in found for line in lines)
    assert any(why in problem and "savecase" in problem for problem in found)


def test_format_version_1_is_refused(tmp_path: Path) -> None:
    text = "function [baseMVA, bus, gen, branch] = old\nbaseMVA = 1;\n"
    assert "only files of format version 2" in problems_of(tmp_path, text)[0]


def test_network_and_tables_are_called_as_the_function_line_says(tmp_path: Path) -> None:
    assert read(tmp_path, case_text()).name == "feeder"
    renamed = case_text(code=OHM_AND_KW).replace("mpc", "ppc")
    assert read(tmp_path, renamed).element_p_kw.tolist() == [100.0]
    script = case_text().replace("function mpc = feeder", "")
    assert read(tmp_path, script).name == "case"


def test_charging_tap_and_shift_follow_the_branch_model_of_the_manual(tmp_path: Path) -> None:
    branch = "10 20 0.1 0.2 0.04 0 0 0 1.05 30 1\n 20 30 0.1 0.2 0.04 0 0 0 0 0 1"
    network = read(tmp_path, case_text(branch=branch))
    series, half, tap = 10 / (0.1 + 0.2j), 10 * 0.02j, 1.05 * np.exp(1j * np.pi / 6)
    np.testing.assert_allclose(network.tap, [tap, 1.0], rtol=1e-14)
    expected = np.array([
        [(series + half) / 1.05**2, -series / np.conj(tap), 0],
        [-series / tap, 2 * (series + half), -series],
        [0, -series, series + half],
    ])  # fmt: skip
    np.testing.assert_allclose(network.admittance.toarray(), expected, rtol=1e-13)


def test_branch_is_a_transformer_with_a_tap_a_shift_or_two_voltages(tmp_path: Path) -> None:
    bus = BUS + "40 1 0 0 0 0 1 1 0 0.4 1 1.1 0.9;"
    branch = """
    10 20 1 1 0 0 0 0 0 0 1
    10 20 1 1 0 0 0 0 1 0 1
    20 30 1 1 0 0 0 0 0 5 1
    30 40 1 1 0 0 0 0 0 0 1
    """
    network = read(tmp_path, case_text(bus=bus, branch=branch))
    assert network.branch_kind.tolist() == ["line", "transformer", "transformer", "transformer"]
    assert network.base_kv.tolist() == [10.0, 10.0, 10.0, 0.4]


def test_branches_out_of_service_are_left_out_and_parallel_ones_numbered(tmp_path: Path) -> None:
    branch = """
    20 10 1 1 0 0 0 0 0 0 1
    10 20 1 1 0 0 0 0 0 0 0
    10 20 2 1 0 0 0 0 0 0 1
    20 30 1 1 0 0 0 0 0 0 1
    20 30 2 1 0 0 0 0 0 0 1
    20 30 3 1 0 0 0 0 0 0 1
    """
    network = read(tmp_path, case_text(branch=branch))
    assert network.branch.tolist() == ["20-10", "10-20", "20-30", "20-30#2", "20-30#3"]
    np.testing.assert_allclose(network.series_pu.real, [0.1, 0.2, 0.1, 0.2, 0.3], rtol=1e-14)
    assert network.from_node.tolist() == [1, 0, 1, 1, 1]
    assert network.to_node.tolist() == [0, 1, 2, 2, 2]


def test_rating_limits_apparent_power_and_zero_is_no_limit(tmp_path: Path) -> None:
    branch = "10 20 1 1 0 2.5 9 9 0 0 1\n 20 30 1 1 0 0 9 9 0 0 1"
    network = read(tmp_path, case_text(branch=branch))
    assert network.rating_from_pu.tolist() == network.rating_to_pu.tolist() == [25.0, np.inf]
    assert not network.rating_is_current.any()


def test_bus_shunts_are_mw_consumed_and_mvar_injected_at_one_pu(tmp_path: Path) -> None:
    bus = BUS.replace("30  1  0    0   0  0", "30  1  0    0   0.2  0.5")
    assert read(tmp_path, case_text(bus=bus)).node_shunt_pu.tolist() == [0, 0, 2 + 5j]


def test_reference_buses_are_sources_at_the_set_point_and_angle(tmp_path: Path) -> None:
    bus = BUS.replace("30  1", "30  3").replace("1  1  0  10  1  1.1", "1  1  60  10  1  1.1")
    gen = GEN + "30 0 0 9 -9 0.98 1 1 9 0; 30 0 0 9 -9 1.5 1 0 9 0"
    network = read(tmp_path, case_text(bus=bus, gen=gen))
    assert network.source.tolist() == [0, 2]
    np.testing.assert_allclose(network.source_v_pu, [1.02, 0.98 * (0.5 + np.sqrt(0.75) * 1j)], rtol=1e-14)


def test_arguments_override_band_and_source_voltage(tmp_path: Path) -> None:
    own = read(tmp_path, case_text())
    assert own.v_min_pu.tolist() == [1.0, 0.9, 0.9]
    assert own.v_max_pu.tolist() == [1.0, 1.1, 1.1]
    bad = case_text(bus=BUS.replace("1.1  0.9", "NaN  NaN"), gen="")
    given = read(tmp_path, bad, v_min_pu=0.95, v_max_pu=1.05, source_v_pu=1.01)
    assert given.v_min_pu.tolist() == [0.95] * 3
    assert given.v_max_pu.tolist() == [1.05] * 3
    assert given.source_v_pu.tolist() == [1.01]


def test_isolated_bus_is_left_out_unless_something_is_connected(tmp_path: Path) -> None:
    bus = BUS + "5 4 0 0 0 0 1 1 0 10 1 1.1 0.9;"
    branch = BRANCH + "30 5 1 1 0 0 0 0 0 0 0 -360 360;"
    network = read(tmp_path, case_text(bus=bus, branch=branch))
    assert network.bus.tolist() == ["10", "20", "30"]
    for connected in (
        case_text(bus=bus, branch=branch.replace("0 0 -360", "0 1 -360")),
        case_text(bus=bus.replace("5 4 0", "5 4 7")),
        case_text(bus=bus.replace("5 4 0 0 0 0", "5 4 0 0 0 7")),
    ):
        assert problems_of(tmp_path, connected) == [
            "bus 5, BUS_TYPE = 4: an isolated bus has no branch, load or shunt; make it type 1"
        ]
    generating = problems_of(tmp_path, case_text(bus=bus, gen=GEN + "5 1 0 9 -9 1 1 1 9 0"))
    assert len(generating) == 1
    assert "bus 5, generator" in generating[0]


def test_generators_away_from_the_reference_bus_are_to_be_offered_as_resources(tmp_path: Path) -> None:
    bus = BUS.replace("30  1", "30  2")
    found = problems_of(tmp_path, case_text(bus=bus, gen=GEN + "20 1 0 9 -9 1 1 1 9 0; 30 1 0 9 -9 1 1 0 9 0"))
    assert [problem.split(",")[0] for problem in found] == ["bus 20", "bus 30"]
    assert all("offer it as a resource" in problem for problem in found)


@pytest.mark.parametrize("gen", ["", GEN + "10 0 0 9 -9 1.03 1 1 9 0", GEN.replace("1.02", "NaN")])
def test_reference_bus_needs_one_set_point(tmp_path: Path, gen: str) -> None:
    assert ["bus 10, VG" in problem for problem in problems_of(tmp_path, case_text(gen=gen))] == [True]
    assert read(tmp_path, case_text(gen=gen), source_v_pu=1.0).source_v_pu.tolist() == [1.0]


def test_all_problems_are_found_at_once(tmp_path: Path) -> None:
    bus = """
    10   1  0    0  0  0  1  1  0  10   1  1.1  0.9;
    20   1  NaN  0  0  0  1  1  0  Inf  1  1.1  0.9;
    20   7  0    0  0  0  1  1  0  10   1  1.1  0.9;
    2.5  1  0    0  0  0  1  1  0  10   1  1.1  0.9;
    """
    branch = """
    10  99  1    0/0  0  -1   0  0  0  0  1;
    10  20  1    1    0  NaN  0  0  0  0  1;
    10  20  Inf  1    0  Inf  0  0  0  0  1;
    10  98  NaN  1    0  0    0  0  0  0  0;
    """
    found = problems_of(tmp_path, case_text(bus=bus, gen="", branch=branch, code="mystery(1)", base="0"))
    expected = [
        "case.m line 20, statement = 'mystery ( 1 )'",
        "case.m, mpc.baseMVA = 0.0",
        "bus row 4, BUS_I = 2.5",
        "bus 20, BUS_I = '20'",
        "bus 20, BUS_TYPE = 7.0",
        "feeder, BUS_TYPE = 'no 3'",
        "bus 20, PD = nan",
        "bus 20, BASE_KV = inf",
        "line 10-99, T_BUS = 99.0",
        "line 10-20#2, BR_R = inf",
        "line 10-99, BR_X = nan",
        "line 10-99, RATE_A = -1.0",
        "line 10-20, RATE_A = nan",
    ]
    assert [problem.split(":")[0] for problem in found] == expected


def test_missing_and_narrow_tables_are_problems(tmp_path: Path) -> None:
    narrow = "\n".join(line.rsplit(None, 1)[0] for line in BUS.strip().splitlines())
    text = case_text(bus=narrow).replace("mpc.gen", "mpc.generators").replace("mpc.baseMVA = 1;", "")
    text = text.replace("mpc.branch = [", "mpc.branch = mystery([")
    found = problems_of(tmp_path, text)
    assert "case.m line 10, statement" in found[0]
    assert found[1:] == [
        "case.m, mpc.baseMVA = 'missing': a case must assign it",
        "case.m, mpc.bus = '3 x 12': needs at least 13 columns",
        "case.m, mpc.gen = 'missing': a case must assign it",
    ]


def test_row_with_too_few_columns_is_named_by_its_line(tmp_path: Path) -> None:
    found = problems_of(tmp_path, case_text(branch=BRANCH.replace("1  -360  360;\n    20", "1;\n    20")))
    assert len(found) == 1
    assert "line 15 has 13 columns, the first row 11" in found[0]


def test_file_that_cannot_be_read_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere.m, file = .*No such file"):
        from_matpower(str(tmp_path / "nowhere.m"))


def test_33_bus_feeder_in_ohm_and_kw_is_the_network_of_pandapower(tmp_path: Path) -> None:
    net = pandapower.networks.case33bw()
    load = net.load.set_index("bus")[["p_mw", "q_mvar"]].mul(1000).reindex(net.bus.index, fill_value=0.0)
    source = set(net.ext_grid.bus)
    bus = "".join(
        f"\t{index}\t{3 if index - 1 in source else 1}\t{row.p_mw!r}\t{row.q_mvar!r}"
        "\t0\t0\t1\t1\t0\t12.66\t1\t1.1\t0.9;\n"
        for index, row in enumerate(load.itertuples(), 1)
    )
    branch = "".join(
        f"\t{line.from_bus + 1}\t{line.to_bus + 1}\t{line.r_ohm_per_km!r}\t{line.x_ohm_per_km!r}\t0\t0\t0\t0\t0\t0"
        f"\t{int(line.in_service)}\t-360\t360;\n"
        for line in net.line.itertuples()
    )
    gen = "1\t0\t0\t10\t-10\t1\t100\t1\t10\t0;"
    ours = read(tmp_path, case_text(bus=bus, gen=gen, branch=branch, code=OHM_AND_KW, base="10"))
    theirs = from_pandapower(net)
    assert ours.branch_count == theirs.branch_count == 32
    assert [int(name) - 1 for name in ours.bus] == [int(name) for name in theirs.bus]
    scale = np.abs(theirs.admittance).max()
    np.testing.assert_allclose(ours.admittance.toarray(), theirs.admittance.toarray(), rtol=0, atol=1e-12 * scale)
    np.testing.assert_allclose(ours.element_loads(), theirs.element_loads(), rtol=1e-12)
    assert ours.source.tolist() == theirs.source.tolist()
