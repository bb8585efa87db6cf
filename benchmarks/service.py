"""Time the market service under load: ``python -m benchmarks.service [--seconds N] [--only TEXT]``, a Markdown table.

Servers and load run in processes of their own on this machine.  Bids come with authentication, full validation and an
idempotency key each, and are answered when they are on disk.
"""

import argparse
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.servers import Server, World, database, new_world

RESOURCES, BATCH = 2_000, 200


def http_request(method, path, key, body=None, idempotency_key=None):
    content = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {key}\r\n"
    head += f"content-length: {len(content)}\r\ncontent-type: application/json\r\n"
    if idempotency_key:
        head += f"idempotency-key: {idempotency_key}\r\n"
    return head.encode() + b"\r\n" + content


def load(requests, port, clients, seconds):
    with tempfile.NamedTemporaryFile() as file:
        file.write(pickle.dumps(requests))
        file.flush()
        done = subprocess.run([sys.executable, "-m", "benchmarks.load", file.name, str(port), str(clients), str(seconds)], capture_output=True, check=True)
    return json.loads(done.stdout)


def main():
    kind = sys.argv[1]
    workers = int(sys.argv[2])
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 6
    with tempfile.TemporaryDirectory() as folder, database(kind, Path(folder)) as environment:
        environment |= {"DLMP_MAX_BIDS_PER_MARKET": "1000000", "DLMP_RATE_PER_SECOND": "1000000", "DLMP_RATE_BURST": "1000000", "DLMP_RUNS_HERE": "0"}
        world = new_world(environment, resources=RESOURCES)
        with Server(environment, workers=workers) as server:
            n = 0
            for clients in (1, 8, 64):
                reqs = [http_request("POST", "/v1/bids", world.aggregator, world.bid(n + i), f"s-{n+i}") for i in range(int(seconds * 2500))]
                n += len(reqs)
                d = load(reqs, server.port, clients, seconds)
                report("single", clients, d, 1)
            for clients in (1, 8):
                reqs = []
                for b in range(int(seconds * 20)):
                    reqs.append(http_request("POST", "/v1/bids/batch", world.aggregator, {"mode": "atomic", "bids": [world.bid(n + i) for i in range(BATCH)]}, f"b-{n}"))
                    n += BATCH
                    if n + BATCH > RESOURCES * 24: break
                d = load(reqs, server.port, clients, seconds)
                report("batch", clients, d, BATCH)
            d = load([http_request("GET", "/healthz", world.aggregator)] * 20000, server.port, 8, 3)
            report("healthz", 8, d, 1)


def report(name, clients, d, per):
    s = sorted(d["seconds"])
    ok = d["statuses"].get("201", 0) + d["statuses"].get("200", 0)
    print(f"{name:10} {clients:3} clients {ok*per/d['took']:8.0f}/s p50 {1000*statistics.median(s):7.1f} p99 {1000*s[int(.99*len(s))]:7.1f} max {1000*s[-1]:.0f} {d['statuses']}", flush=True)


if __name__ == "__main__":
    main()
