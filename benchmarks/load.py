"""A cheap load: ``python -m benchmarks.load FILE PORT CLIENTS SECONDS`` sends the requests of a file and times them.

The file is a pickled list of whole HTTP requests, taken in turn by clients that each keep one connection and wait for
an answer before they send the next.  Sockets are read by hand: an ordinary client would cost more than the server.
Printed is one JSON document: seconds from the first request to the last answer, CPU seconds of this process for them,
seconds that each answer took, and how many answers had which status.
"""

import asyncio
import json
import pickle
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import uvloop

LENGTH = b"content-length: "
END_OF_HEAD = b"\r\n\r\n"
LAST_ANSWER_S = 30.0


class Client(asyncio.Protocol):
    """One connection: sends a request, waits for its answer, and goes on until nothing is left or time is up."""

    def __init__(self, requests: Iterator[bytes], until: float):
        self.requests, self.until = requests, until
        self.seconds: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.received = b""
        self.sent_at = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self.transport = transport
        self.send()

    def send(self) -> None:
        """Send the next request, or end."""
        request = next(self.requests, None) if time.perf_counter() < self.until else None
        if request is None:
            self.done.set_result(None)
            self.transport.close()
            return
        self.sent_at = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Take a piece of an answer; once it is whole, go on."""
        self.received += data
        head, found, body = self.received.partition(END_OF_HEAD)
        if not found:
            return
        start = head.lower().index(LENGTH) + len(LENGTH)
        if len(body) < int(head[start:].split(b"\r\n", 1)[0]):
            return
        self.seconds.append(time.perf_counter() - self.sent_at)
        self.statuses[int(self.received[9:12])] += 1
        self.received = b""
        self.send()

    def connection_lost(self, error: Exception | None) -> None:
        """Note a connection that ended too early."""
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("the server closed the connection"))


async def run(requests: list[bytes], port: int, clients: int, seconds: float) -> dict[str, object]:
    """Send `requests` to this machine's `port`."""
    loop, left = asyncio.get_running_loop(), iter(requests)
    began, cpu = time.perf_counter(), time.process_time()
    made = [
        (await loop.create_connection(lambda: Client(left, began + seconds), "127.0.0.1", port))[1]
        for _ in range(clients)
    ]
    await asyncio.wait_for(asyncio.gather(*(client.done for client in made)), seconds + LAST_ANSWER_S)
    took = time.perf_counter() - began
    statuses = sum((client.statuses for client in made), Counter[int]())
    return {
        "took": took,
        "cpu": time.process_time() - cpu,
        "seconds": [one for client in made for one in client.seconds],
        "statuses": {str(status): count for status, count in statuses.items()},
    }


if __name__ == "__main__":
    name, port, clients, seconds = sys.argv[1:]
    given = pickle.loads(Path(name).read_bytes())
    print(json.dumps(uvloop.run(run(given, int(port), int(clients), float(seconds)))))
