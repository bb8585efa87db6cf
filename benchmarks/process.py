"""A process of its own for each measurement, so that none warms another and each has its own peak of memory."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SKIPPED = 4
"""Exit code of a measurement that says why it cannot be made."""


def in_process(module: str, *arguments: str, seconds: float) -> dict[str, Any]:
    """What ``python -m module arguments`` prints as JSON in its last line, or ``{"skipped": reason}``.

    The tests' folder is on its path, for their oracle.  One that takes longer than so many seconds is ended.
    """
    path = os.pathsep.join(filter(None, [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH")]))
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", module, *arguments],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
        )
    except subprocess.TimeoutExpired:
        return {"skipped": f"no result in {seconds:.0f} s"}
    lines = (done.stdout if done.returncode in (0, SKIPPED) else done.stderr).strip().splitlines()
    last = lines[-1] if lines else "no result"
    if done.returncode == 0:
        return json.loads(last)
    return {"skipped": last if done.returncode > 0 else f"ended by signal {-done.returncode}"}
