"""The service as a process: database, operator's key, logs, and the web server, which ends without losing anything.

On SIGTERM no connection is taken any more, requests that were begun are answered, streams of events end, the run under
way is given back, and the writer finishes what waits.
"""

import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI

from api.admin import first_key, read_settings, ready_database
from api.app import new_app
from api.logs import configure_logs
from api.service import Service, new_service
from api.settings import ServiceSettings
from dlmp.errors import InputError, Problem

SHUTDOWN_S = 10
"""Requests that take longer than this are cut off when the service ends."""
BACKLOG = 2048
KEEP_ALIVE_S = 30
SIGNALS = (signal.SIGINT, signal.SIGTERM)
log = structlog.get_logger("dlmp.serve")


def serve(settings: ServiceSettings, host: str, port: int, workers: int = 1) -> None:
    """Serve until a signal ends it.

    Raises
    ------
    InputError
        When the database or the address cannot be used.
    """
    if workers > 1 and settings.is_embedded:
        message = "more than one needs PostgreSQL: set DLMP_DATABASE_URL"
        raise InputError([Problem("service", "workers", workers, message)])
    _check_address(host, port)
    engine = ready_database(settings)
    written = first_key(engine, settings.data_dir)
    engine.dispose()
    if written is not None:
        print(f"dlmp: the operator's key is in {written}", file=sys.stderr, flush=True)
    os.environ |= {
        "DLMP_DATA_DIR": str(settings.data_dir),
        "DLMP_DATABASE_URL": settings.database_url,
        "DLMP_LOG_FORMAT": settings.log_format,
    }
    configure_logs(settings.log_format)
    for number in SIGNALS:
        signal.signal(number, _ignore)  # uvicorn raises them again once it has ended, which is no failure
    uvicorn.run(
        "api.serve:application",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        loop="auto" if sys.platform == "win32" else "uvloop",
        http="httptools",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )


def application() -> FastAPI:
    """Make the application of a process of the service, with the settings of its environment."""
    settings = read_settings()
    configure_logs(settings.log_format)
    service = new_service(settings)
    app = new_app(service)
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with _told_of_its_end(service):
            async with inner(app):
                yield

    app.router.lifespan_context = lifespan
    return app


@contextmanager
def _told_of_its_end(service: Service) -> Iterator[None]:
    """Let `service` know of a signal that ends it before the server waits for its connections."""
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def end(number: int, frame: FrameType | None) -> None:
        service.ending.set()
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    for number in SIGNALS:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_address(host: str, port: int) -> None:
    """Raise `InputError` where no server can listen."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError([Problem("service", "address", f"{host}:{port}", f"cannot be used ({reason})")]) from None


def _ignore(number: int, frame: FrameType | None) -> None:
    pass
