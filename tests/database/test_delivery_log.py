"""The delivery log: a row for each attempt; endpoints that are gone, fail, or ask Lockbox to wait."""

import json
from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

import pytest

from harness.clocks import ShiftedClock
from harness.people import World
from harness.stage import unbound
from harness.webhook_receiver import ScriptedAnswer, WebhookReceiver, receiving
from lockbox.database import Database
from lockbox.identity.time_zones import clock_time
from lockbox.notifications import delivery, outcome_events, results
from lockbox.notifications.models import Outcome
from lockbox.notifications.outcome_events import FAILS_TOO_LONG, MOST_ANSWER
from lockbox.notifications.senders.protocol import Reply, SendFailed
from lockbox.notifications.webhook import HttpWebhooks
from lockbox.requests.policy_rules import Policy
from tests.database.postbag import Postbag, address, open_notifications
from tests.database.scenes import read, write
from tests.mailbox import told

TRIES = "SELECT * FROM deliveries ORDER BY id"
ENDPOINT = "SELECT * FROM endpoints WHERE id = :id"
HOOKS = "SELECT id FROM notifications WHERE endpoint_id IS NOT NULL AND closed_at IS NULL ORDER BY id"


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with receiving() as running:
        yield running


@pytest.fixture
def post() -> Postbag:
    return Postbag(calling=HttpWebhooks(allow_http=True))


def hooks(db: Database) -> list[UUID]:
    return [row.id for row in read(db, HOOKS)]


def test_each_send_attempt_adds_a_delivery_log_row_with_the_answer_of_the_endpoint(
    world: World, sender: Database, later: ShiftedClock, post: Postbag, receiver: WebhookReceiver
) -> None:
    endpoint = post.endpoint(world, receiver.url, tenant_id=world.tenant.id)
    receiver.answers = [
        ScriptedAnswer(status=500, body=b"not\x00now\r\n"),
        ScriptedAnswer(status=302),
        ScriptedAnswer(status=200, body=b"ok"),
    ]
    world.submit()
    notifications = hooks(sender)

    for _ in range(3):
        post.deliver(sender, notifications)
        later.shift += timedelta(minutes=1)

    rows = read(sender, TRIES)
    assert [(row.status, row.answer, row.error) for row in rows] == [
        (500, "not\N{REPLACEMENT CHARACTER}now\n", "status"),
        (302, "", "status"),
        (200, "ok", None),
    ]
    assert {(row.notification_id, row.endpoint_id, row.event_type) for row in rows} == {
        (notifications[0], endpoint, "request.submitted")
    }
    assert all(0 <= row.took_ms < 5000 for row in rows)
    assert [row.at for row in rows] == sorted(row.at for row in rows)
    assert {call.headers["webhook-id"] for call in receiver.calls} == {str(notifications[0])}


def test_attempts_to_send_mails_are_in_the_delivery_log(world: World, worker: Database, post: Postbag) -> None:
    refused = SendFailed("no", permanent=True, kind="status", reply=Reply(550, "5.1.1 no such mailbox"))
    post.mail.refused[address(worker, world, "amir")] = refused
    world.submit()

    post.deliver(worker, open_notifications(worker))

    rows = [(row.status, row.answer, row.error, row.endpoint_id) for row in read(worker, TRIES)]
    assert sorted(rows, key=str) == [(550, "5.1.1 no such mailbox", "status", None), *[(None, "", None, None)] * 2]


def test_a_notification_that_was_not_sent_is_not_logged_as_an_attempt(
    world: World, sender: Database, later: ShiftedClock, post: Postbag
) -> None:
    world.submit()
    later.shift = timedelta(hours=13)

    assert {one.outcome for one in post.deliver(sender, open_notifications(sender))} == {Outcome.DEAD}
    assert read(sender, TRIES) == []


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("é" * 2000, "é" * (MOST_ANSWER // 2)),
        ("a" + "é" * 2000, "a" + "é" * (MOST_ANSWER // 2 - 1)),
        ("a\tb\nc", "a\tb\nc"),
        ("\x1b[31m\ud800", "\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_one_kilobyte_of_an_endpoints_answer_is_kept_without_control_characters(answer: str, kept: str) -> None:
    assert outcome_events.shown(answer) == kept


def test_an_endpoint_that_answers_410_gone_is_disabled_and_admins_are_notified(
    world: World, worker: Database, post: Postbag, receiver: WebhookReceiver
) -> None:
    endpoint = post.endpoint(world, receiver.url, tenant_id=world.tenant.id)
    receiver.answers = [ScriptedAnswer(status=410)]
    world.submit()
    world.submit()

    first = post.deliver(worker, hooks(worker)[:1])
    second = post.deliver(worker, hooks(worker))

    (row,) = read(worker, ENDPOINT, id=endpoint)
    assert row.why_disabled == "gone"
    assert [one.outcome for one in first] == [Outcome.DEAD]
    assert [one.outcome for one in second] == [Outcome.MOOT]
    assert len(receiver.calls) == 1
    assert list(told(worker, "endpoint_disabled").values()) == [{"Tara", "Ann", "Amir", "Abe"}]
    post.deliver(worker, open_notifications(worker))
    (mail, *_) = [mail for mail in post.mail.sent if "was disabled" in mail.subject]
    assert "Lockbox (clock) did this" in mail.text
    assert "it answered 410 Gone" in mail.text


@pytest.mark.parametrize("whose", ["tenant", "vendor"])
def test_an_endpoint_that_fails_for_days_is_paused_and_the_owner_is_notified(
    world: World, sender: Database, later: ShiftedClock, post: Postbag, receiver: WebhookReceiver, *, whose: str
) -> None:
    endpoint = post.endpoint(world, receiver.url, tenant_id=world.tenant.id if whose == "tenant" else None)
    receiver.answers = [ScriptedAnswer(status=500)]
    world.submit()

    post.deliver(sender, hooks(sender))
    assert read(sender, ENDPOINT, id=endpoint)[0].disabled_at is None
    later.shift = FAILS_TOO_LONG + timedelta(minutes=1)
    world.submit(db=Database(world.db.engine, world.db.schedule, later))
    post.deliver(sender, hooks(sender))

    assert read(sender, ENDPOINT, id=endpoint)[0].why_disabled == "failing"
    names = {"Tara", "Ann", "Amir", "Abe"} if whose == "tenant" else {"Olga"}
    assert list(told(sender, "endpoint_disabled").values()) == [names]


def test_one_success_resets_the_count_of_days_on_which_an_endpoint_failed(
    world: World, sender: Database, later: ShiftedClock, post: Postbag, receiver: WebhookReceiver
) -> None:
    endpoint = post.endpoint(world, receiver.url, tenant_id=world.tenant.id)
    receiver.answers = [ScriptedAnswer(status=500), ScriptedAnswer(status=204)]
    world.submit()

    post.deliver(sender, hooks(sender))
    since = read(sender, ENDPOINT, id=endpoint)[0].failing_since
    later.shift = timedelta(minutes=1)
    post.deliver(sender, hooks(sender))

    assert since is not None
    assert read(sender, ENDPOINT, id=endpoint)[0].failing_since is None


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [(300, 300, 301), (86_000, 86_000, 86_001), (1, 1.4, 3)],
)
def test_the_retry_after_header_of_a_webhook_endpoint_delays_the_next_attempt(
    world: World, worker: Database, post: Postbag, receiver: WebhookReceiver, *, asked: int, least: float, most: float
) -> None:
    post.endpoint(world, receiver.url, tenant_id=world.tenant.id)
    receiver.answers = [ScriptedAnswer(status=429, headers={"Retry-After": str(asked)})]
    request = world.submit()

    (one,) = post.deliver(worker, hooks(worker))

    wait = (one.run_at - request.created_at).total_seconds()
    assert one.outcome is None
    assert least <= wait <= most + 1


def test_an_endpoint_is_retried_even_after_the_approval_window_ended(
    api: Database, sender: Database, later: ShiftedClock, post: Postbag, receiver: WebhookReceiver
) -> None:
    world = World.make(api, Policy(vendor_review=False, approval_window=60))
    post.endpoint(world, receiver.url, tenant_id=world.tenant.id)
    receiver.answers = [ScriptedAnswer(status=503, headers={"Retry-After": "3600"}), ScriptedAnswer(status=204)]
    request = world.submit()
    notifications = hooks(sender)

    (first,) = post.deliver(sender, notifications)
    later.shift += first.run_at - request.created_at
    (second,) = post.deliver(sender, notifications)

    assert first.run_at > request.deadline_at
    assert second.outcome is Outcome.SENT
    assert len({call.headers["webhook-id"] for call in receiver.calls}) == 1


def test_both_webhook_secrets_sign_during_the_overlap_and_only_the_new_secret_signs_afterwards(
    world: World, worker: Database, post: Postbag, receiver: WebhookReceiver
) -> None:
    endpoint = post.endpoint(world, receiver.url, tenant_id=world.tenant.id)
    rotated = "UPDATE endpoints SET old_secret = secret, old_secret_until = now() + :left WHERE id = :id"
    signatures = []
    for left in (timedelta(hours=1), timedelta(seconds=-1)):
        write(unbound(world.db), rotated, left=left, id=endpoint)
        world.submit()
        post.deliver(worker, hooks(worker))
        signatures.append(receiver.calls[-1].headers["webhook-signature"].split())

    assert [[one.partition(",")[0] for one in signed] for signed in signatures] == [
        ["v1", "v1a", "v1", "v1a"],
        ["v1", "v1a"],
    ]


def test_an_endpoint_row_of_an_earlier_build_keeps_its_single_secret(
    world: World, worker: Database, post: Postbag, receiver: WebhookReceiver
) -> None:
    endpoint = post.endpoint(world, receiver.url, tenant_id=world.tenant.id)
    sealed = post.vault.seal("whsec_" + "A" * 43 + "=")
    write(unbound(world.db), "UPDATE endpoints SET secret = :s, public_key = NULL WHERE id = :id", s=sealed,
          id=endpoint)  # fmt: skip
    world.submit()

    post.deliver(worker, hooks(worker))

    assert receiver.calls[0].headers["webhook-signature"].startswith("v1,")
    assert " " not in receiver.calls[0].headers["webhook-signature"]


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("kind", ["json", "slack"])
def test_a_webhook_gets_the_justification_only_if_the_endpoint_is_set_to_get_justifications(
    world: World, worker: Database, post: Postbag, receiver: WebhookReceiver, *, kind: str, wanted: bool
) -> None:
    endpoint = post.endpoint(world, receiver.url, tenant_id=world.tenant.id)
    write(unbound(world.db), "UPDATE endpoints SET format = :f, with_justification = :w WHERE id = :id", f=kind,
          w=wanted, id=endpoint)  # fmt: skip
    request = world.submit(justification="See <https://evil.example|here> & <!channel>")

    post.deliver(worker, hooks(worker))

    (call,) = receiver.calls
    body = json.loads(call.body)
    assert (b"evil.example" in call.body) is wanted
    if kind == "slack":
        section, actions = body["blocks"]
        (button,) = actions["elements"]
        assert button["url"].endswith(f"/requests/{request.id}")
        assert "<" not in section["text"]["text"]
        assert f"As of {clock_time(request.created_at)}" in section["text"]["text"]
        assert world.tenant.name in body["text"]
    else:
        assert body["data"].get("justification") == (request.justification if wanted else None)
        assert body["type"] == "request.submitted"


@pytest.mark.usefixtures("alone")
def test_a_vendor_webhook_never_gets_the_justification(
    world: World, worker: Database, post: Postbag, receiver: WebhookReceiver
) -> None:
    endpoint = post.endpoint(world, receiver.url, tenant_id=None)
    write(unbound(world.db), "ALTER TABLE endpoints DROP CONSTRAINT ck_endpoints_with_justification")
    write(unbound(world.db), "UPDATE endpoints SET with_justification = true WHERE id = :id", id=endpoint)
    request = world.submit()

    post.deliver(worker, hooks(worker))

    (call,) = receiver.calls
    assert json.loads(call.body)["data"]["request_id"] == str(request.id)
    assert request.justification.encode() not in call.body


def test_webhook_calls_omit_the_justification_if_the_policy_omits_justifications_in_mails(
    api: Database, worker: Database, post: Postbag, receiver: WebhookReceiver
) -> None:
    world = World.make(api, Policy(vendor_review=False, mail_justification=False))
    endpoint = post.endpoint(world, receiver.url, tenant_id=world.tenant.id)
    write(unbound(world.db), "UPDATE endpoints SET with_justification = true WHERE id = :id", id=endpoint)
    request = world.submit()

    post.deliver(worker, hooks(worker))

    assert request.justification.encode() not in receiver.calls[0].body


def test_after_a_crash_before_a_webhook_call_is_recorded_the_call_is_repeated_with_the_same_id(
    world: World,
    sender: Database,
    later: ShiftedClock,
    post: Postbag,
    receiver: WebhookReceiver,
    *,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    post.endpoint(world, receiver.url, tenant_id=world.tenant.id)
    world.submit()
    notifications = hooks(sender)

    with monkeypatch.context() as dying:
        dying.setattr(results, "record", lambda *_: (_ for _ in ()).throw(SystemExit(137)))
        with pytest.raises(SystemExit):
            post.deliver(sender, notifications)
    assert read(sender, TRIES) == []
    later.shift = delivery.LEASE + timedelta(seconds=1)
    post.deliver(sender, notifications)

    assert [call.headers["webhook-id"] for call in receiver.calls] == [str(notifications[0])] * 2
    assert len(read(sender, TRIES)) == 1
