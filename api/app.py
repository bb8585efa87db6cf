"""The application: routes, errors and middleware around a service."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from api.http import Edge, handle_errors
from api.routes import bids, console, markets, objects, operations, readings, results, webhooks
from api.routes.documentation import document
from api.runner import Runner
from api.sender import Sender
from api.service import Service

COLLECTED_AFTER = (20_000, 20, 20)
"""Thresholds of Python's garbage collector; with its own it looks through all bids in memory many times a second."""
SUMMARY = "Bids over HTTP to published prices and statements of a distribution market."


def new_app(service: Service) -> FastAPI:
    """Make the application of a service; starting it starts the writer and, unless it is told not to, its workers."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        gc.set_threshold(*COLLECTED_AFTER)
        service.writer.start()
        settings = service.settings
        workers: list[Runner | Sender] = [Runner(service)] if settings.runs_here else []
        workers += [Sender(service)] if settings.webhooks_here else []
        for worker in workers:
            worker.start()
        yield
        for worker in workers:
            worker.stop()
        service.destinations.close()
        service.writer.stop()
        service.engine.dispose()

    app = FastAPI(
        title="dlmp", summary=SUMMARY, version=version("dlmp"), lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.service = service
    for routes in (
        bids,
        objects,
        markets,
        readings,
        results,
        webhooks,
        operations,
        console,
    ):  # looked through in this order for every request
        app.router.routes.extend(routes.router.routes)  # included as routers, they are matched twice
    app.webhooks.include_router(webhooks.told)
    document(app)
    console.serve_console(app)
    handle_errors(app)
    limit = service.settings.max_body_bytes
    app.add_middleware(Edge, max_body_bytes=limit, metrics=service.metrics, clock=service.clock)
    return app
