"""Logs: one line per event on standard output, as JSON or for people, with the id of the request that it belongs to.

What libraries log in their own way takes the same form.
"""

import logging
import sys
from typing import Any

import structlog

JSON, TEXT = "json", "text"


def configure_logs(form: str) -> None:
    """Write the events of this process to standard output as `form`, ``json`` or ``text``."""
    common: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    ends: list[Any] = [structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())]
    if form == JSON:
        ends = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[*common, *ends],
        logger_factory=structlog.WriteLoggerFactory(sys.stdout),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )
    remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=common, processors=[remove, *ends]))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("uvicorn.error").setLevel(logging.INFO)
