"""The application: routes, errors and middleware around a service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from api.http import Edge, handle_errors
from api.routes import bids, markets, objects, operations, results
from api.routes.documentation import document
from api.runner import Runner
from api.service import Service

SUMMARY = "Bids over HTTP to published prices and statements of a distribution market."


def new_app(service: Service) -> FastAPI:
    """Make the application of a service; starting it starts the writer and, unless it is told not to, the runner."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.writer.start()
        runner = Runner(service) if service.settings.runs_here else None
        if runner is not None:
            runner.start()
        yield
        if runner is not None:
            runner.stop()
        service.writer.stop()
        service.engine.dispose()

    app = FastAPI(
        title="dlmp", summary=SUMMARY, version=version("dlmp"), lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.service = service
    for routes in (bids, objects, markets, results, operations):  # looked through in this order for every request
        app.router.routes.extend(routes.router.routes)  # included as routers, they are matched twice
    document(app)
    handle_errors(app)
    app.add_middleware(Edge, max_body_bytes=service.settings.max_body_bytes, metrics=service.metrics)
    return app
