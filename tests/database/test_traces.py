"""Notifications carry the ids of the call that caused their event: in logs, and in one trace with webhook calls."""

from collections.abc import Iterator
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from config import traces
from config.logging import add_origin
from config.settings import Settings
from config.traces import CallOrigin
from harness.people import World
from harness.stage import unbound
from harness.webhook_receiver import ScriptedAnswer, WebhookReceiver, receiving
from lockbox.database import Database
from lockbox.notifications.webhook import HttpWebhooks
from tests.database.postbag import Postbag
from tests.database.scenes import read
from tests.otlp_receiver import Collector, collecting

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = CallOrigin("call-7", f"00-{TRACE}-00f067aa0ba902b7-01")
QUEUED = "SELECT event_id AS id, http_request_id, traceparent FROM outbox ORDER BY number"
OPEN = "SELECT id, http_request_id, traceparent FROM notifications WHERE closed_at IS NULL ORDER BY id"
SECRETS = "SELECT id FROM requests UNION ALL SELECT id FROM people UNION ALL SELECT id FROM endpoints"


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with receiving() as running:
        yield running


@pytest.fixture
def post(world: World, receiver: WebhookReceiver) -> Postbag:
    """Mails stay in memory; the webhook is really called."""
    post = Postbag(calling=HttpWebhooks(allow_http=True))
    post.endpoint(world, receiver.url, tenant_id=world.tenant.id)
    return post


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        traces.start(Settings(environment="test", otlp_endpoint=collector.url), "lockbox-test")
        try:
            yield collector
        finally:
            traces.stop()


def submitted(world: World) -> None:
    with traces.caused_by(CALLER):
        world.submit(justification="Nobody but the approvers reads this reason.")


def ids(db: Database, statement: str) -> list[UUID]:
    return [row.id for row in read(db, statement)]


def test_outbox_and_notification_rows_carry_the_ids_of_the_causing_call(
    world: World, sender: Database, post: Postbag, receiver: WebhookReceiver
) -> None:
    receiver.answers = [ScriptedAnswer(status=500)]
    submitted(world)
    queued = read(sender, QUEUED)

    with capture_logs(processors=[add_origin]) as lines:
        post.deliver(sender, [row.id for row in queued])
        post.deliver(sender, ids(sender, OPEN))

    assert {(row.http_request_id, row.traceparent) for row in queued} == {CALLER}
    assert {(row.http_request_id, row.traceparent) for row in read(sender, OPEN)} == {CALLER}
    told = {line["event"]: line for line in lines if line["event"].startswith("notification.")}
    assert told.keys() == {"notification.sent", "notification.not_sent"}
    assert {line["http_request_id"] for line in told.values()} == {"call-7"}
    assert {line["trace_id"] for line in told.values()} == {TRACE}
    assert "traceparent" not in receiver.calls[0].headers


def test_outbox_and_notification_rows_without_a_call_carry_no_call_ids(
    world: World, sender: Database, post: Postbag
) -> None:
    world.submit()

    with capture_logs(processors=[add_origin]) as lines:
        post.deliver(sender, ids(sender, QUEUED))

    assert lines
    assert not any({"http_request_id", "trace_id"} & line.keys() for line in lines)


def test_outbox_rows_and_notifications_and_webhook_calls_have_one_trace_without_personal_data(
    world: World, sender: Database, post: Postbag, receiver: WebhookReceiver, collector: Collector
) -> None:
    submitted(world)

    post.deliver(sender, ids(sender, QUEUED))
    post.deliver(sender, ids(sender, OPEN))
    traces.stop()

    assert {span.trace_id for span in collector.spans} == {TRACE}
    (outbox,) = collector.named("outbox")
    assert (outbox.kind, outbox.parent_id) == ("CONSUMER", "00f067aa0ba902b7")
    sent = collector.named("notification")
    assert {span.parent_id for span in sent} == {outbox.span_id}
    assert {span.attributes["lockbox.outcome"] for span in sent} == {"sent"}
    assert {span.attributes["lockbox.channel"] for span in sent} == {"mail", "webhook"}
    (call,) = collector.named("POST")
    assert [call.parent_id] == [span.span_id for span in sent if span.attributes["lockbox.channel"] == "webhook"]
    assert call.attributes == {"http.request.method": "POST", "http.response.status_code": 204}
    assert receiver.calls[0].headers["traceparent"] == call.traceparent
    for secret in ("reads this reason", "mailbox", "@", "erin", "/hook", str(receiver.port)):
        assert secret not in collector.said
    with unbound(sender).connect() as connection:
        everything = [str(row.id) for row in connection.exec_driver_sql(SECRETS)]
    assert not [one for one in everything if one in collector.said]
