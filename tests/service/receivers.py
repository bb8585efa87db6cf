"""A receiver of webhooks as a server of its own, which verifies what it gets by the standard and not by our code."""

import base64
import contextlib
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Received:
    """What came, and when."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    def is_signed_by(self, secret: str) -> bool:
        """Verify as https://www.standardwebhooks.com says."""
        told = b"%b.%b.%b" % (
            self.headers["webhook-id"].encode(),
            self.headers["webhook-timestamp"].encode(),
            self.body,
        )
        key = base64.b64decode(secret.split("_", 1)[1])
        expected = base64.b64encode(hmac.new(key, told, hashlib.sha256).digest()).decode()
        return f"v1,{expected}" in self.headers["webhook-signature"].split(" ")


@dataclass
class Receiver:
    """Keeps what it gets and answers by `answer`, first of its list until one is left."""

    answers: list[int] = field(default_factory=lambda: [204])
    headers: dict[str, str] = field(default_factory=dict)
    got: list[Received] = field(default_factory=list)
    hold: threading.Event | None = None
    """While it is there and not set, nothing is answered."""
    port: int = 0
    url: str = ""

    def events(self) -> list[str]:
        return [one.document["event"] for one in self.got]

    def wait_for(self, count: int) -> list[Received]:
        until(lambda: len(self.got) >= count)
        return self.got


def until(is_so: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait until something is so, and give it."""
    ends = time.monotonic() + seconds
    while not (found := is_so()):
        assert time.monotonic() < ends, "it does not come"
        time.sleep(0.02)
    return found


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


@contextmanager
def receiving(host: str = "127.0.0.1", wrap: Callable[[Any], Any] | None = None, **fields: Any) -> Iterator[Receiver]:
    """Run a receiver; `wrap` makes its socket one of TLS."""
    receiver = Receiver(**fields)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.got.append(Received(self.path, headers, body))
            if receiver.hold is not None:
                receiver.hold.wait(30)
            self.send_response(receiver.answers.pop(0) if len(receiver.answers) > 1 else receiver.answers[0])
            for name, value in receiver.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            with contextlib.suppress(OSError):  # who asked may not have waited
                self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    server = _Server((host, 0), Handler)
    if wrap is not None:
        server.socket = wrap(server.socket)
    receiver.port = server.server_address[1]
    receiver.url = f"http://{host}:{receiver.port}/hook?a=b"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        if receiver.hold is not None:
            receiver.hold.set()
        server.shutdown()
        server.server_close()
        thread.join()
