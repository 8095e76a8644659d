"""Record the origin of the current work, and the work itself as spans if a collector is set.

Work that begins over HTTP keeps its origin through the outbox up to each mail and webhook call, and in logs. Without
LOCKBOX_OTLP_ENDPOINT, no module that sends spans is imported.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum
from importlib import import_module
from typing import Any, NamedTuple, Protocol, TypeVar

from catalogue.unsafe_settings import UnsafeSettings
from config.settings import Settings

TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
NOT_INSTALLED = (
    "LOCKBOX_OTLP_ENDPOINT: OpenTelemetry is not installed here. Install the extra `tracing` "
    "(in a checkout: make tracing), or unset it"
)

Key = TypeVar("Key")
Attributes = Mapping[str, str | int]


class SpanKind(StrEnum):
    SERVER = "SERVER"
    CONSUMER = "CONSUMER"
    INTERNAL = "INTERNAL"
    CLIENT = "CLIENT"


class CallOrigin(NamedTuple):
    """The origin of the current work: an HTTP request's id, and the surrounding span as W3C's `traceparent`."""

    http_request_id: str | None
    traceparent: str | None


NOWHERE = CallOrigin(None, None)
ORIGIN: ContextVar[CallOrigin] = ContextVar("origin", default=NOWHERE)


class Span(Protocol):
    traceparent: str

    def end(self, name: str, attributes: Attributes) -> None:
        """The name and the attributes never contain a reason, an id or an address."""


class SpanRecorder(Protocol):
    def begin(self, name: str, kind: SpanKind, parent: str | None) -> Span: ...

    def stop(self) -> None: ...


class ProcessTracing:
    tracer: SpanRecorder | None = None


TRACING = ProcessTracing()


def check(settings: Settings) -> None:
    if settings.otlp_endpoint:
        _exporter()


def start(settings: Settings, service: str) -> None:
    """Begin to record spans, if a collector is set. The process must not fork afterwards."""
    stop()
    if settings.otlp_endpoint:
        TRACING.tracer = _exporter().OtlpTracer(settings.otlp_endpoint, service, settings.otlp_share)


def stop() -> None:
    tracer, TRACING.tracer = TRACING.tracer, None
    if tracer:
        tracer.stop()


def _exporter() -> Any:  # noqa: ANN401 - a module
    try:
        return import_module("config.otlp")
    except ImportError:
        raise UnsafeSettings(NOT_INSTALLED) from None


@contextmanager
def caused_by(origin: CallOrigin) -> Iterator[None]:
    token = ORIGIN.set(origin)
    try:
        yield
    finally:
        ORIGIN.reset(token)


@contextmanager
def span(name: str, kind: SpanKind, **attributes: str | int) -> Iterator[dict[str, str | int]]:
    """Record the block as a span; add further attributes to the yielded dictionary."""
    if TRACING.tracer is None:
        yield {}
        return
    origin, told = ORIGIN.get(), dict(attributes)
    begun = TRACING.tracer.begin(name, kind, origin.traceparent)
    try:
        with caused_by(origin._replace(traceparent=begun.traceparent)):
            yield told
    except BaseException as error:
        told["error.type"] = type(error).__name__
        raise
    finally:
        begun.end(name, told)


def propagated() -> dict[str, str]:
    parent = ORIGIN.get().traceparent
    return {"traceparent": parent} if TRACING.tracer and parent else {}


@contextmanager
def spans(name: str, kind: SpanKind, origins: Mapping[Key, CallOrigin]) -> Iterator[Mapping[Key, CallOrigin]]:
    """Record work of several origins as one span for each origin."""
    if TRACING.tracer is None:
        yield origins
        return
    begun = {key: TRACING.tracer.begin(name, kind, origin.traceparent) for key, origin in origins.items()}
    try:
        yield {key: origin._replace(traceparent=begun[key].traceparent) for key, origin in origins.items()}
    finally:
        for one in begun.values():
            one.end(name, {})
