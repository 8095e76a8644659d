"""Structured logs for every process, with secrets and mail addresses masked."""

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

from config.settings import Settings
from config.traces import ORIGIN

MASKS = (
    (re.compile(r"(DETAIL|CONTEXT):  .*"), r"\1:  ***"),
    (re.compile(r"lbx_[a-z]+_[0-9a-f]{32}_[A-Za-z0-9_-]+"), "lbx_***"),
    (re.compile(r"(?<=://)[^/@\s]*@"), "***@"),
    (re.compile(r"wh(sec|sk)_[A-Za-z0-9+/=_-]+"), "whsec_***"),
    (re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+"), "***@***"),
)


def masked(text: str) -> str:
    """Mask tokens, URL credentials, webhook secrets and mail addresses."""
    for pattern, stars in MASKS:
        text = pattern.sub(stars, text)
    return text


def _mask(_: Any, __: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:  # noqa: ANN401 - structlog's type
    return {key: _masked_all(value) for key, value in entry.items()}


def _masked_all(value: object) -> object:
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, Mapping):
        return {masked(str(key)): _masked_all(held) for key, held in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_masked_all(held) for held in value]
    return masked(value if isinstance(value, str) else repr(value))


def add_origin(_: object, __: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    origin = ORIGIN.get()
    if origin.http_request_id:
        entry["http_request_id"] = origin.http_request_id
    if origin.traceparent:
        _, entry["trace_id"], entry["span_id"], _ = origin.traceparent.split("-")
    return entry


def configure(settings: Settings) -> None:
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        add_origin,
        structlog.stdlib.add_logger_name,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.format_exc_info,
    ]
    render: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _mask, render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    # Alembic logs two lines each time the database's revision is read, and `/readyz` reads it each time.
    for chatty in ("httpx", "alembic.runtime.migration"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
