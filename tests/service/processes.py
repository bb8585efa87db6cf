"""What the tests of the service's durability share: databases, worlds and server processes, and clients that race."""

import http.client
import json
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from benchmarks.servers import Server, World, new_world, settings_of
from benchmarks.servers import database as databases

__all__ = ["Answer", "Asked", "Racers", "Server", "World", "databases", "new_world", "settings_of"]


@dataclass(frozen=True)
class Asked:
    """A request."""

    method: str
    path: str
    key: str
    body: object = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What was answered."""

    status: int
    document: Any
    headers: Mapping[str, str]

    @property
    def is_again(self) -> bool:
        """Whether it had been answered before."""
        return "idempotent-replay" in self.headers


class Racers:
    """Threads that each keep a connection to a server, and start at the same moment."""

    def __init__(self, server: Server, count: int):
        self._connections = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=60) for _ in range(count)]
        self._threads = ThreadPoolExecutor(count)

    def __enter__(self) -> "Racers":
        return self

    def __exit__(self, *exception: object) -> None:
        self._threads.shutdown()
        for connection in self._connections:
            connection.close()

    def race(self, lanes: Sequence[Sequence[Asked]]) -> list[list[Answer]]:
        """Send what is in each lane, one after another; the lanes beside each other."""
        line = threading.Barrier(len(lanes))

        def run(connection: http.client.HTTPConnection, lane: Sequence[Asked]) -> list[Answer]:
            line.wait(60)
            return [_sent(connection, asked) for asked in lane]

        return list(self._threads.map(run, self._connections, lanes))


def _sent(connection: http.client.HTTPConnection, asked: Asked) -> Answer:
    headers = {"Authorization": f"Bearer {asked.key}", "Content-Type": "application/json", **asked.headers}
    text = None if asked.body is None else json.dumps(asked.body)
    connection.request(asked.method, asked.path, text, headers)
    response = connection.getresponse()
    document = json.loads(response.read())
    return Answer(response.status, document, {name.lower(): value for name, value in response.getheaders()})
