"""A process of its own for each measurement, so that none warms another and each has its own peak of memory."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
SKIPPED = 4
"""Exit code of a measurement that says why it cannot be made."""
MEMORY_SHARE = 0.7
"""Of the machine's memory."""


def in_process(module: str, *arguments: str, seconds: float) -> dict[str, Any]:
    """What ``python -m module arguments`` prints as JSON in its last line, or ``{"skipped": reason}``.

    ``failed`` beside it is True where the measurement could be made and came to nothing.  The tests' folder is on the
    path, for their oracle.  A process is ended after so many seconds, and may have `MEMORY_SHARE` of the memory.
    """
    path = os.pathsep.join(filter(None, [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH")]))
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", module, *arguments],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            preexec_fn=_limit_memory,
            env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
        )
    except subprocess.TimeoutExpired:
        return {"skipped": f"no result in {seconds:.0f} s", "failed": True}
    lines = (done.stdout if done.returncode in (0, SKIPPED) else done.stderr).strip().splitlines()
    last = lines[-1] if lines else "no result"
    if done.returncode == 0:
        return json.loads(last)
    reason = last if done.returncode > 0 else f"ended by signal {-done.returncode}"
    return {"skipped": reason, "failed": done.returncode != SKIPPED}


def _limit_memory() -> None:
    """Let this process have no more than its share: too large a case shall fail, and not the machine."""
    most = int(MEMORY_SHARE * psutil.virtual_memory().total)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
