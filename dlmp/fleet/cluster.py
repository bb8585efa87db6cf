"""Batches on a Ray cluster: each is a task of one processor, on machines that share the file system.

Ray is the optional dependency ``dlmp[ray]``, loaded when a cluster is asked for.
"""

import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from dlmp.errors import InputError, Problem
from dlmp.fleet.batch import Batch, clear_batch
from dlmp.fleet.workers import Workers

ANSWER_SECONDS = 10.0
BATCHES_PER_WORKER, LARGEST_BATCH = 8, 16
"""So many that none waits long for the last one; so large that sending them costs little."""


@contextmanager
def ray_tasks(address: str, count: int | None) -> Iterator[Workers]:
    """Clear up to `count` batches at a time on the Ray cluster at `address`, by default one for each of its processors.

    Where this process has joined a cluster already, that one is taken.

    Raises
    ------
    InputError
        When Ray is not installed, or no cluster is at `address`.
    """
    ray = _ray()
    joins = not ray.is_initialized()
    if joins:
        _join(ray, address)
    task, references = ray.remote(num_cpus=1, max_retries=0)(clear_batch), dict[Future[str], Any]()

    def submit(batch: Batch) -> Future[str]:
        reference = task.remote(batch)
        future = reference.future()
        references[future] = reference
        future.add_done_callback(lambda _: references.pop(future, None))
        return future

    count = count or max(1, int(ray.cluster_resources().get("CPU", 1)))
    try:
        yield Workers(
            count, lambda feeders: min(LARGEST_BATCH, max(1, feeders // (BATCHES_PER_WORKER * count))), submit
        )
    finally:
        for reference in list(references.values()):
            ray.cancel(reference, force=True)
        if joins:
            ray.shutdown()


def _join(ray: Any, address: str) -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        host, colon, port = address.removeprefix("ray://").rpartition(":")
        if colon and port.isdecimal():  # Ray itself waits for minutes for an answer
            socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
        ray.init(address=address, log_to_driver=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError([Problem("fleet", "ray", address, f"no cluster answers there ({error})")]) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)  # Ray's own would end the program with no word to the user


def _ray() -> Any:
    try:
        import ray  # noqa: PLC0415 - optional
    except ImportError:
        message = 'needs Ray, which is not installed: pip install "dlmp[ray]"'
        raise InputError([Problem("fleet", "ray", "not installed", message)]) from None
    return ray
