"""Send spans to a collector over OTLP/HTTP; the only module that imports OpenTelemetry's SDK."""

import logging
import threading
from collections.abc import Mapping
from importlib.metadata import version
from uuid import uuid4

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, StatusCode, TraceFlags

TRACES = "/v1/traces"
SEND_SECONDS = 5.0
STOP_SECONDS = 2.0
ERROR = 500


class OtlpTracer:
    """Sends spans in batches from its own thread.

    If the collector does not answer, spans wait in a bounded queue and are then dropped.
    """

    def __init__(self, endpoint: str, service: str, share: float) -> None:
        # The exporter's retries are not worth a line; a batch that it gives up is logged as an error.
        logging.getLogger("opentelemetry").setLevel(logging.ERROR)
        resource = Resource(
            {"service.name": service, "service.version": version("lockbox"), "service.instance.id": str(uuid4())}
        )
        exporter = OTLPSpanExporter(endpoint=endpoint.rstrip("/") + TRACES, timeout=SEND_SECONDS)
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(share)), resource=resource, shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("lockbox")

    def begin(self, name: str, kind: str, parent: str | None) -> "OtlpSpan":
        context = trace.set_span_in_context(NonRecordingSpan(_context_of(parent))) if parent else None
        return OtlpSpan(
            self._tracer.start_span(
                name, context, trace.SpanKind[kind], record_exception=False, set_status_on_exception=False
            )
        )

    def stop(self) -> None:
        # The thread limits the wait: if the collector does not answer, the SDK's shutdown takes longer.
        last = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        last.start()
        last.join(STOP_SECONDS)


class OtlpSpan:
    def __init__(self, span: trace.Span) -> None:
        context = span.get_span_context()
        self._span = span
        self.traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def end(self, name: str, attributes: Mapping[str, str | int]) -> None:
        self._span.update_name(name)
        self._span.set_attributes(dict(attributes))
        if "error.type" in attributes:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


def _context_of(traceparent: str) -> SpanContext:
    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))
