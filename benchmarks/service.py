"""Time the service under load: ``python -m benchmarks.service [--seconds N] [--only NAME]`` prints Markdown tables.

Servers and load run in processes of their own on this machine, in competition for its cores.  Every bid comes with
authentication, full validation and an idempotency key, and is answered when it is on disk.  *grouped / alone* is the
rate with group commit over that of a writer that commits every request by itself.  Beside it stand what the machine
can do: the time of a raw fsync in the same folder, and the rate of an application with one empty route.
"""

import argparse
import contextlib
import itertools
import json
import os
import pickle
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.servers import LARGEST_GROUP, Server, World, database, new_world

RESOURCES, BATCH, FSYNCS = 2_000, 200, 200
SETUPS = {"SQLite": ("sqlite", 1), "PostgreSQL": ("postgresql", 1), "PostgreSQL, 2 workers": ("postgresql", 2)}
UNLIMITED = "1000000"
FREE = {
    "DLMP_MAX_BIDS_PER_MARKET": UNLIMITED,
    "DLMP_RATE_PER_SECOND": UNLIMITED,
    "DLMP_RATE_BURST": UNLIMITED,
    "DLMP_RUNS_HERE": "0",
}


@dataclass(frozen=True)
class Figures:
    """How a load went: CPU seconds of the server and its workers, and of the load itself, which runs beside it."""

    count: int
    took: float
    seconds: list[float]
    cpu: float
    load_cpu: float

    @property
    def rate(self) -> float:
        """Answers in a second."""
        return self.count / self.took

    def percentile(self, share: float) -> float:
        """Time within which this share of the answers came [ms]."""
        return 1000 * self.seconds[min(int(share * len(self.seconds)), len(self.seconds) - 1)]


def http_request(method: str, path: str, key: str, body: object = None, idempotency_key: str = "") -> bytes:
    """A whole request, as it goes over the line."""
    content = b"" if body is None else json.dumps(body).encode()
    head = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", f"authorization: Bearer {key}"]
    head += [f"content-length: {len(content)}", "content-type: application/json"]
    head += [f"idempotency-key: {idempotency_key}"] if idempotency_key else []
    return "\r\n".join([*head, "", ""]).encode() + content


def load(requests: list[bytes], server: Server, clients: int, seconds: float, wanted: int) -> Figures:
    """Send requests until time is up; every answer must have the status `wanted`."""
    before = cpu_seconds(server)
    with tempfile.NamedTemporaryFile() as file:
        file.write(pickle.dumps(requests))
        file.flush()
        command = [sys.executable, "-m", "benchmarks.load", file.name, str(server.port), str(clients), str(seconds)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60)
    said = json.loads(done.stdout)
    if set(said["statuses"]) != {str(wanted)}:
        raise RuntimeError(f"answers with other statuses: {said['statuses']}")
    return Figures(
        len(said["seconds"]), said["took"], sorted(said["seconds"]), cpu_seconds(server) - before, said["cpu"]
    )


def cpu_seconds(server: Server) -> float:
    """CPU time of a server and its workers [s]."""
    assert server.process is not None
    process = psutil.Process(server.process.pid)
    return sum(sum(one.cpu_times()[:2]) for one in (process, *process.children(recursive=True)))


def single_bids(world: World, numbers: Iterable[int]) -> list[bytes]:
    return [http_request("POST", "/v1/bids", world.aggregator, world.bid(one), f"bid {one}") for one in numbers]


def batches(world: World, numbers: Iterator[int], count: int) -> list[bytes]:
    made = []
    for _ in range(count):
        own = list(itertools.islice(numbers, BATCH))
        body = {"mode": "atomic", "bids": [world.bid(one) for one in own]}
        made.append(http_request("POST", "/v1/bids/batch", world.aggregator, body, f"batch {own[0]}"))
    return made


def bids_table(name: str, seconds: float) -> Iterator[str]:
    """Rows of the table of bids for one setup."""
    kind, workers = SETUPS[name]
    alone = {clients: rate_alone(kind, workers, clients, seconds) for clients in (8, 64)}
    with served(kind, workers, {}) as (server, world):
        numbers = iter(range(RESOURCES * 24))
        load(single_bids(world, itertools.islice(numbers, 100)), server, 4, 10, 201)
        for clients in (8, 64):
            own = single_bids(world, itertools.islice(numbers, int(seconds * 1_500)))
            figures = load(own, server, clients, seconds, 201)
            yield row(name, "single", clients, figures, 1, f"{figures.rate / alone[clients]:.1f}")
        figures = load(batches(world, numbers, min(int(seconds * 40), 70)), server, 4, seconds, 201)
        yield row(name, f"batches of {BATCH}", 4, figures, BATCH, "")


def row(name: str, what: str, clients: int, figures: Figures, bids: int, ratio: str) -> str:
    cells = [name, what, str(clients), f"{figures.rate * bids:,.0f}"]
    cells += [f"{figures.percentile(share):.0f}" for share in (0.5, 0.99)]
    cells += [f"{1000 * cpu / (figures.count * bids):.2f}" for cpu in (figures.cpu, figures.load_cpu)]
    cells += [f"{100 * figures.cpu / figures.took:.0f} %", ratio]
    return f"| {' | '.join(cells)} |"


def rate_alone(kind: str, workers: int, clients: int, seconds: float) -> float:
    """Rate of a server that commits every request by itself."""
    with served(kind, workers, {LARGEST_GROUP: "1"}) as (server, world):
        own = single_bids(world, range(int(seconds * 1_000)))
        load(own[:100], server, 4, 10, 201)
        return load(own[100:], server, clients, seconds / 2, 201).rate


@contextlib.contextmanager
def served(kind: str, workers: int, more: Mapping[str, str], **sizes: Any) -> Iterator[tuple[Server, World]]:
    """Start a server on a database of its own; give it and the world in it."""
    with tempfile.TemporaryDirectory() as folder, database(kind, Path(folder)) as environment:
        world = new_world(environment, **{"resources": RESOURCES} | sizes)
        with Server(environment | FREE | more, workers=workers) as server:
            yield server, world


def reads_row(name: str, seconds: float) -> str:
    """Row of the table of reads while a clearing is under way in a child of the server."""
    kind, workers = SETUPS[name]
    with served(kind, workers, {"DLMP_RUNS_HERE": "1"}, resources=200, feeder="ieee123") as (server, world):
        load(batches(world, iter(range(200 * 24)), 24), server, 1, 60, 201)
        market = f"/v1/markets/{world.market_id}"
        server.send("POST", f"{market}/close", world.operator)
        run = cleared(server, world, {})
        server.send("POST", f"{market}/publish", world.operator)
        reads = [f"{market}/prices?limit=100", market, f"{market}/awards?limit=100", "/v1/bids?limit=20"]
        requests = [http_request("GET", path, world.aggregator) for path in reads] * int(seconds * 250)
        idle = load(requests, server, 8, seconds, 200)
        _, again = server.send("POST", f"{market}/runs", world.operator, {"correction_reason": "once more"})
        while server.get(f"/v1/runs/{again['id']}", world.operator)[1]["state"] == "queued":
            time.sleep(0.05)
        busy = load(requests, server, 8, seconds, 200)
        state = server.get(f"/v1/runs/{again['id']}", world.operator)[1]["state"]
        cells = [name, f"{run:.0f} s", state]
        cells += [f"{one.rate:,.0f} | {one.percentile(0.5):.0f} | {one.percentile(0.99):.0f}" for one in (idle, busy)]
        return f"| {' | '.join(cells)} |"


def cleared(server: Server, world: World, body: Mapping[str, str]) -> float:
    """Run the market, and wait for its end; return how long it took [s]."""
    began = time.monotonic()
    _, run = server.send("POST", f"/v1/markets/{world.market_id}/runs", world.operator, body)
    while run["state"] in ("queued", "running"):
        time.sleep(0.1)
        _, run = server.get(f"/v1/runs/{run['id']}", world.operator)
    if run["state"] != "succeeded":
        raise RuntimeError(f"the run {run['state']}: {run['reason']}")
    return time.monotonic() - began


def machine(seconds: float) -> str:
    """What the machine can do beside all else that it is doing."""
    with tempfile.TemporaryDirectory() as folder:
        times = []
        with (Path(folder) / "fsync").open("wb") as file:
            for _ in range(FSYNCS):
                file.write(b"x" * 4096)
                file.flush()
                began = time.perf_counter()
                os.fsync(file.fileno())
                times.append(1000 * (time.perf_counter() - began))
        with Server({"DLMP_DATA_DIR": folder}, "benchmarks.servers:empty_app") as server:
            empty = load([http_request("GET", "/readyz", "")] * int(seconds * 5_000), server, 8, seconds, 200)
    times.sort()
    fsync = f"fsync of 4 kB: median {statistics.median(times):.1f} ms, p99 {times[int(0.99 * FSYNCS)]:.1f} ms"
    route = f"empty route: {empty.rate:,.0f}/s at 8 clients, {1000 * empty.cpu / empty.count:.2f} ms of CPU each"
    busy = f"load average {os.getloadavg()[0]:.1f}"
    return f"Python {platform.python_version()}, {os.cpu_count()} cores, {busy}; {fsync}; {route}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="how long each load lasts [s]")
    parser.add_argument("--only", choices=SETUPS, help="one setup")
    arguments = parser.parse_args()
    names = [arguments.only] if arguments.only else list(SETUPS)
    print(machine(arguments.seconds), flush=True)
    columns = "setup | bids | clients | bids/s | p50 ms | p99 ms | CPU ms/bid | load's | of a core | grouped / alone"
    print(f"\n| {columns} |\n|---|---|---:|---:|---:|---:|---:|---:|---:|---:|", flush=True)
    for name in names:
        for line in bids_table(name, arguments.seconds):
            print(line, flush=True)
    print(
        "\n| setup | clearing | state at the end | reads/s idle | p50 ms | p99 ms | in the clearing | p50 ms | p99 ms |"
    )
    print("|---|---:|---|---:|---:|---:|---:|---:|---:|", flush=True)
    for name in names:
        print(reads_row(name, arguments.seconds), flush=True)


if __name__ == "__main__":
    main()
