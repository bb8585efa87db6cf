"""Streams of events: how many there are of whom, and what they show, which is read once for all who follow the same."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from api.errors import TooManyRequests

WATCH_S = 0.5
"""How often an object that is followed is read."""
COME_AGAIN_S = 10


class Streams:
    """The streams of a process; used by its event loop only.

    Parameters
    ----------
    most
        Of one key, or of one address without a key, at once.
    """

    def __init__(self, most: int):
        self._most = most
        self._open: Counter[str] = Counter()
        self._followed: Counter[str] = Counter()
        self._read: dict[str, asyncio.Task[dict[str, Any]]] = {}
        self._read_at: dict[str, float] = {}

    @contextmanager
    def of(self, caller: str, what: str) -> Iterator[None]:
        """Count a stream of `caller` about the object named `what` while it lasts.

        Raises
        ------
        TooManyRequests
            When there are as many as there may be.
        """
        if self._open[caller] >= self._most:
            raise TooManyRequests(COME_AGAIN_S)
        self._open[caller] += 1
        self._followed[what] += 1
        try:
            yield
        finally:
            for count, name in ((self._open, caller), (self._followed, what)):
                count[name] -= 1
                if not count[name]:
                    del count[name]
            if what not in self._followed:
                self._read.pop(what, None)
                self._read_at.pop(what, None)

    async def latest(self, what: str, read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what `read` gives, or gave another stream of the same object since it was last due."""
        now = time.monotonic()
        if what not in self._read or now - self._read_at[what] >= WATCH_S:
            self._read[what], self._read_at[what] = asyncio.create_task(asyncio.to_thread(read)), now
        return await asyncio.shield(self._read[what])
