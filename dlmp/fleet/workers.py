"""What batches are sent to: processes of this machine (`dlmp.fleet.processes`) or Ray (`dlmp.fleet.cluster`)."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from dlmp.fleet.batch import Batch


class WorkerError(Exception):
    """A worker ended before it could tell what became of its batch; the text says why."""


@dataclass(frozen=True)
class Workers:
    """What clears batches.

    Parameters
    ----------
    count
        Batches that are cleared at a time.
    batch_size
        Feeders of a batch by the number of all, where the user does not say.
    submit
        Have a worker do `clear_batch`; the future has what that returns, or raises what ended the worker.
    """

    count: int
    batch_size: Callable[[int], int]
    submit: Callable[[Batch], Future[str]]
