"""Traces: imports without a collector, refusals to start, and a collector that does not answer."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from catalogue.unsafe_settings import UnsafeSettings
from config import traces
from config.children import environment
from config.settings import Settings
from config.traces import NOWHERE, ORIGIN, TRACING, CallOrigin, SpanKind
from harness.network import HOST
from tests.each import each
from tests.otlp_receiver import collecting

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CALLER = CallOrigin("an-id", f"00-{TRACE}-{SPAN}-01")
STOP_SECONDS = "config.otlp.STOP_SECONDS"
"""How long the last spans may take: the tests that look at them let them take longer."""
WITHOUT = """
import sys
import api.app, worker.tasks
NOT_NEEDED = ("opentelemetry.exporter", "opentelemetry.sdk.trace", "config.otlp")
print([name for name in sys.modules if name.startswith(NOT_NEEDED)])
"""


@pytest.fixture(autouse=True)
def _stopped() -> Iterator[None]:
    yield
    traces.stop()


def to(endpoint: str, **changes: Any) -> Settings:
    return Settings(environment="test", otlp_endpoint=endpoint, **changes)


def fail() -> None:
    with traces.caused_by(CALLER), traces.span("work", SpanKind.CLIENT, number=3) as told:
        told["more"] = "words"
        raise KeyError("a secret")


@pytest.mark.far
def test_without_a_trace_collector_no_exporter_is_imported() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        env=environment({"LOCKBOX_REDIS_URL": "redis://127.0.0.1:1/0"}),
        capture_output=True,
        text=True,
        check=True,
    )

    assert ended.stdout == "[]\n"


def test_without_a_trace_collector_the_trace_is_passed_on_unchanged() -> None:
    traces.start(Settings(environment="test"), "lockbox-test")

    with traces.caused_by(CALLER), traces.span("x", SpanKind.INTERNAL):
        assert ORIGIN.get() == CALLER
        assert traces.propagated() == {}
        with traces.spans("y", SpanKind.CONSUMER, {1: CALLER}) as origins:
            assert origins == {1: CALLER}
    assert ORIGIN.get() == NOWHERE


def test_with_a_collector_but_without_opentelemetry_a_process_refuses_to_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "config.otlp", None)

    for begin in (traces.check, lambda settings: traces.start(settings, "lockbox-test")):
        with pytest.raises(UnsafeSettings, match=r"LOCKBOX_OTLP_ENDPOINT: .*Install the extra `tracing`"):
            begin(to("http://collector:4318"))
    traces.check(Settings(environment="test"))


@each(
    "endpoint",
    [
        "collector:4318",
        "grpc://collector:4317",
        "http://",
        "http://me:secret@collector:4318",
        "http://c/?token=secret",
    ],
)
def test_an_invalid_trace_collector_is_refused_and_not_quoted(endpoint: str) -> None:
    with pytest.raises(ValidationError, match="http://collector:4318") as refused:
        to(endpoint)

    assert "secret" not in str(refused.value)


def test_a_trace_span_has_its_kind_and_error_and_is_inside_the_callers_span(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(STOP_SECONDS, 20.0)
    with collecting() as collector:
        traces.start(to(collector.url + "/"), "lockbox-test")
        with pytest.raises(KeyError):
            fail()
        traces.stop()

    (span,) = collector.spans
    assert (span.service, span.name, span.kind) == ("lockbox-test", "work", "CLIENT")
    assert (span.trace_id, span.parent_id) == (TRACE, SPAN)
    assert span.attributes == {"number": 3, "more": "words", "error.type": "KeyError"}
    assert "a secret" not in collector.said


def test_an_unsampled_trace_stays_unsampled_and_a_share_of_new_traces_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(STOP_SECONDS, 20.0)
    silent = CallOrigin(None, f"00-{TRACE}-{SPAN}-00")
    with collecting() as collector:
        traces.start(to(collector.url, otlp_share=0.0), "lockbox-test")
        for origin in (silent, NOWHERE, CALLER):
            with traces.caused_by(origin), traces.span("work", SpanKind.INTERNAL):
                assert ORIGIN.get().traceparent
        traces.stop()

    assert [span.parent_id for span in collector.spans] == [SPAN]


@pytest.mark.far
def test_a_silent_trace_collector_delays_nothing() -> None:
    with socket.create_server((HOST, 0)) as deaf:
        traces.start(to(f"http://{HOST}:{deaf.getsockname()[1]}"), "lockbox-test")
        began = time.monotonic()
        for _ in range(5_000):
            with traces.span("work", SpanKind.INTERNAL):
                pass
        recorded = time.monotonic()
        traces.stop()
        stopped = time.monotonic()

    assert recorded - began < 15
    assert stopped - recorded < 15
    assert TRACING.tracer is None
