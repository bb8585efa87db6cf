"""The service as a process of its own, on a free port with a temporary data directory."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from dlmp.client.errors import NoAnswerError

HOST = "127.0.0.1"
KEY_FILE = "operator.key"
START_S, END_S, POLL_S = 120.0, 30.0, 0.1


@contextmanager
def own_service(data: Path | None = None) -> Iterator[tuple[str, str]]:
    """Start the service; give its URL and the operator's key, and end it afterwards.

    Parameters
    ----------
    data
        Folder that its data are kept in; default: they are not kept.

    Raises
    ------
    NoAnswerError
        When it does not start; the message has its last words.
    """
    with tempfile.TemporaryDirectory(prefix="dlmp-simulate-") as temporary:
        folder, url = Path(temporary), f"http://{HOST}:{_free_port()}"
        own = folder / "data" if data is None else data
        command = [sys.executable, "-m", "dlmp.cli", "serve", "--port", url.rpartition(":")[2]]
        settings = {name: value for name, value in os.environ.items() if not name.startswith("DLMP_")}
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([*command, "--data-dir", str(own)], stdout=log, stderr=log, env=settings)
        try:
            _wait(process, url, folder / "log")
            yield url, (own / KEY_FILE).read_text("utf-8").strip()
        finally:
            _end(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _wait(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    """Wait until the service is ready."""
    ends = time.monotonic() + START_S
    while time.monotonic() < ends and process.poll() is None:
        try:
            if httpx.get(f"{url}/readyz").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(POLL_S)
    raise NoAnswerError(f"the service did not start:\n{log.read_text('utf-8', 'replace')[-2000:]}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
