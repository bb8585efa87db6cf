"""What the tests of the service's durability share: databases, worlds and server processes, and threads that race."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.servers import Server, World, new_world, settings_of
from benchmarks.servers import database as databases

__all__ = ["Server", "World", "databases", "new_world", "raced", "settings_of"]


def raced(count: int, one: Callable[[int], Any]) -> list[Any]:
    """Call `one` with every number below `count`, each in a thread, all at the same moment."""
    line = threading.Barrier(count)

    def start(number: int) -> Any:
        line.wait(20)
        return one(number)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(start, range(count)))
