"""The description of the service: its OpenAPI document, and a page to read it that needs no other server."""

from pathlib import Path
from typing import Any

import fastapi_offline
from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from api.schemas.problems import Problem

ASSETS = Path(fastapi_offline.__file__).parent / "static"
"""Swagger UI's files, as the package that keeps them up to date ships them."""
PAGE, FILES = "/docs", "/docs/static"
REFERENCE = "#/components/schemas/{model}"


def document(app: FastAPI) -> None:
    """Give `app` its page, and its OpenAPI document the schema of problems, which all errors are."""
    app.mount(FILES, StaticFiles(directory=ASSETS), name="documentation")

    @app.get(PAGE, include_in_schema=False)
    async def page(request: Request) -> HTMLResponse:
        root = str(request.scope.get("root_path", "")).rstrip("/")
        return get_swagger_ui_html(
            openapi_url=f"{root}{app.openapi_url}",
            title=app.title,
            swagger_js_url=f"{root}{FILES}/swagger-ui-bundle.js",
            swagger_css_url=f"{root}{FILES}/swagger-ui.css",
            swagger_favicon_url=f"{root}{FILES}/favicon.png",
        )

    written = app.openapi

    def openapi() -> dict[str, Any]:
        whole = written()
        schema = Problem.model_json_schema(ref_template=REFERENCE)
        parts = schema.pop("$defs", {})
        whole["components"]["schemas"] |= {Problem.__name__: schema, **parts}
        return whole

    app.openapi = openapi  # type: ignore[method-assign]
