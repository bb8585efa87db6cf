"""What the figures were measured on: the machine, and the versions of what was measured."""

import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from benchmarks.process import ROOT

PACKAGES = (
    *("dlmp", "highspy", "nbklu", "numpy", "scipy", "pyomo", "piqp", "opendssdirect.py"),
    *("pandapower", "pypsa", "linopy", "distopf", "casadi", "simbench"),
)
IMPORTS = 3
IMPORTING = """
import json, time
began = time.perf_counter()
import dlmp
imported = time.perf_counter() - began
dlmp.clear
print(json.dumps({"import": imported, "clear": time.perf_counter() - began}))
"""


def described() -> dict[str, Any]:
    """The machine, how busy it is, and the versions."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "load_before": round(psutil.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "commit": commit(),
    }


def import_seconds() -> dict[str, float]:
    """Wall seconds of ``import dlmp``, and until ``dlmp.clear`` is there, in a fresh interpreter: medians of a few."""
    runs = [
        json.loads(subprocess.run([sys.executable, "-c", IMPORTING], capture_output=True, text=True, check=True).stdout)
        for _ in range(IMPORTS)
    ]
    return {what: statistics.median(run[what] for run in runs) for what in runs[0]}


def _processor() -> str:
    """Its name; Linux alone tells it."""
    table = Path("/proc/cpuinfo")
    lines = table.read_text(encoding="utf-8").splitlines() if table.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def commit() -> str:
    """The commit that is measured, and a mark of the changes since; empty without a repository."""
    try:
        head, changes = (
            subprocess.run(["git", *what], capture_output=True, check=True, cwd=ROOT).stdout
            for what in (["rev-parse", "--short", "HEAD"], ["diff", "HEAD"])
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    mark = f" with changes {hashlib.sha256(changes).hexdigest()[:7]}" if changes else ""
    return head.decode().strip() + mark


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
