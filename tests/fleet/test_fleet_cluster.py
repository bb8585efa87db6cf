"""A fleet on a Ray cluster: the results are those of this machine's processes, and failures end their feeders alone."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from fleetcases import as_named, results, run_fleet, write_fleet

import dlmp
from dlmp.fleet.cluster import ray_tasks

TESTS = Path(__file__).parents[1]
HOST = "127.0.0.2"  # not 127.0.0.1, in whose place Ray puts the address of the machine in its network


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a cluster with two processors that runs on this machine for these tests."""
    pytest.importorskip("ray", reason="Ray is not installed")
    with socket.create_server((HOST, 0)) as server:
        address = f"{HOST}:{server.getsockname()[1]}"
    ray = str(Path(sys.executable).with_name("ray"))
    options = ["--block", "--num-cpus=2", "--include-dashboard=false", "--disable-usage-stats"]
    places = [f"--node-ip-address={HOST}", f"--port={address.partition(':')[2]}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))  # Ray puts the token of the cluster there
        patch.setenv("PYTHONPATH", f"{TESTS.parent}{os.pathsep}{TESTS}")
        log = tmp_path_factory.mktemp("ray") / "log"
        with log.open("w") as out, subprocess.Popen([ray, "start", "--head", *options, *places], stdout=out) as head:
            while "Ray runtime started" not in log.read_text():
                assert head.poll() is None, log.read_text()
                time.sleep(0.1)
            yield address
            for process in (*psutil.Process(head.pid).children(recursive=True), head):
                process.kill()


needs_ray = pytest.mark.filterwarnings("default")


@needs_ray
def test_ray_gives_what_the_processes_of_this_machine_give(cluster: str, tmp_path: Path):
    fleet = write_fleet(tmp_path / "fleet", *"abcde")
    local = dlmp.clear_fleet(fleet, tmp_path / "local", workers=2)
    steps = []
    table = dlmp.clear_fleet(fleet, tmp_path / "ray", ray=cluster, batch_size=2, progress=steps.append)
    assert table.status.tolist() == ["converged"] * 5
    assert table.objective.tolist() == local.objective.tolist()
    assert results(tmp_path / "ray") == results(tmp_path / "local")
    assert [step.cleared for step in steps] == [0, 1, 2, 3, 4, 5]


@needs_ray
@pytest.mark.parametrize("batch_size", [1, 9])
def test_a_failure_on_ray_ends_its_feeder_alone(batch_size: int, cluster: str, tmp_path: Path):
    fleet = write_fleet(tmp_path / "fleet", "a", "exits", "hangs", "killed", "raises", "z")
    out, pool = tmp_path / "out", ray_tasks(cluster, None)
    table = run_fleet(fleet, out, clear=as_named, pool=pool, batch_size=batch_size, time_limit_s=15.0)
    assert table.status.tolist() == ["converged", "failed", "timed_out", "failed", "failed", "converged"]
    assert "The worker died unexpectedly" in table.reason["killed"]
    assert table.reason["raises"] == "ZeroDivisionError: a fault of dlmp; over two lines"
    again = run_fleet(fleet, out, pool=ray_tasks(cluster, 1))
    assert again.status.tolist() == ["converged"] * 6


@needs_ray
def test_no_cluster_at_the_address_is_told(tmp_path: Path):
    pytest.importorskip("ray", reason="Ray is not installed")
    with pytest.raises(dlmp.InputError, match="no cluster answers there"):
        dlmp.clear_fleet(write_fleet(tmp_path / "fleet", "a"), tmp_path / "out", ray="127.0.0.1:1")


def test_without_ray_the_option_says_how_to_get_it(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(dlmp.InputError, match=r'ray = .* not installed: pip install "dlmp\[ray\]"'):
        dlmp.clear_fleet(write_fleet(tmp_path / "fleet", "a"), tmp_path / "out", ray="auto")
    assert not (tmp_path / "out" / ".fleet").exists()
