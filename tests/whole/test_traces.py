"""One trace over the processes of the API, the notifications worker and a webhook; and a dead trace collector."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.embedded import ServerAddresses
from harness.network import HOST
from harness.webhook_receiver import Call, WebhookReceiver, receiving
from tests.otlp_receiver import CollectedSpan, Collector, collecting
from tests.whole.conftest import log_lines, stage_of, wait_until

pytestmark = pytest.mark.far
PROCESSES = ("api", "worker", "notifications")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
HEADERS = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "x-request-id": "call-of-the-test"}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with receiving() as running:
        yield running


def calls(receiver: WebhookReceiver) -> list[Call]:
    return [call for call in receiver.calls if call.event["type"] == "request.submitted"]


def line_of(collector: Collector) -> list[CollectedSpan]:
    """Return the span of the webhook's call and those above it, as far as they have arrived."""
    by_id = {span.span_id: span for span in collector.spans if span.trace_id == TRACE}
    line = [span for span in by_id.values() if span.name == "POST"]
    while line and line[-1].parent_id in by_id:
        line.append(by_id[line[-1].parent_id])
    return line


def test_an_api_call_and_its_consequences_in_other_processes_share_a_trace(
    template: ServerAddresses, tmp_path: Path, collector: Collector, receiver: WebhookReceiver
) -> None:
    settings = {"LOCKBOX_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "500"}
    with stage_of(template, tmp_path, names=PROCESSES, settings=settings) as stage:
        world = stage.world(approval_window=60)
        hook = {"url": receiver.url, "event_types": []}
        with stage.as_(world, "tara") as tara:
            assert tara.post(f"/v1/tenants/{world.tenant.slug}/endpoints", json=hook).status_code == 201
        with stage.as_(world, "erin") as erin:
            answer = erin.post("/v1/requests", json=world.body(), headers=HEADERS)
        assert (answer.status_code, answer.headers["x-request-id"]) == (201, "call-of-the-test")
        wait_until(lambda: calls(receiver), "the webhook is called")
        wait_until(lambda: not stage.open_notifications(world), "everything is sent")
        # A process that ends waits only briefly for the collector.
        wait_until(lambda: len(line_of(collector)) >= 4, "both processes have sent their spans")

    line = line_of(collector)
    assert [(span.service, span.name) for span in line] == [
        ("lockbox-notifications", "POST"),
        ("lockbox-notifications", "notification"),
        ("lockbox-notifications", "outbox"),
        ("lockbox-api", "POST /v1/requests"),
    ]
    assert line[-1].parent_id == "00f067aa0ba902b7"
    assert TRACE in calls(receiver)[0].headers["traceparent"]
    for secret in (answer.json()["id"], world.tokens["erin"], world.body()["justification"], "@", "mailbox"):
        assert secret not in collector.said
    for name, event in (("api", "http"), ("notifications", "notification.sent")):
        told = [
            one for one in log_lines(tmp_path / f"{name}.log") if one.get("http_request_id") == "call-of-the-test"
        ]
        assert {(one["event"], one["trace_id"]) for one in told} == {(event, TRACE)}


def test_a_dead_trace_collector_delays_neither_answers_nor_notifications_nor_shutdown(
    template: ServerAddresses, tmp_path: Path
) -> None:
    with socket.create_server((HOST, 0)) as deaf:
        settings = {"LOCKBOX_OTLP_ENDPOINT": f"http://{HOST}:{deaf.getsockname()[1]}"}
        with stage_of(template, tmp_path, names=PROCESSES, settings=settings) as stage:
            world = stage.world(approval_window=60)
            with stage.as_(world, "erin") as erin:
                took = []
                for _ in range(20):
                    began = time.monotonic()
                    assert erin.get("/v1/me").status_code == 200
                    took.append(time.monotonic() - began)
                assert erin.post("/v1/requests", json=world.body()).status_code == 201
            wait_until(lambda: not stage.open_notifications(world), "everything is sent")
            for child in stage.processes.running.values():
                child.terminate()
            wait_until(lambda: stage.processes.ended().keys() == set(PROCESSES), "every process has ended by itself")
        assert sorted(took)[10] < 2
