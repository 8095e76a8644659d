"""Servers that misbehave in every way: nothing is lost, no other server is delayed, and the log says why."""

import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.clocks import ShiftedClock
from harness.mail_relay import MailRelay, relaying
from harness.people import World
from harness.stage import as_sender
from harness.webhook_receiver import ScriptedAnswer, receiving
from lockbox.database import Database
from lockbox.notifications import delivery, results
from lockbox.notifications.senders.smtp import SmtpMail
from lockbox.notifications.webhook import HttpWebhooks
from tests.database.postbag import SENDER, Postbag, address, assert_notifications_are_held, open_notifications
from tests.database.scenes import read
from tests.unit.test_safe_http import certified
from tests.unit.test_webhooks import BOMB, GIGABYTE

QUICKLY = 0.4
PATIENTLY = 10.0
TRIES = "SELECT * FROM deliveries ORDER BY id"
NOTIFICATIONS = "SELECT * FROM notifications WHERE endpoint_id IS NOT NULL = :hooks ORDER BY id"
MINUTES = timedelta(minutes=20)


@contextmanager
def refusing() -> Iterator[MailRelay]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        relay = MailRelay()
        relay.port = taken.getsockname()[1]
        yield relay


def mailing(relay: MailRelay, scheme: str = "smtp", seconds: float = PATIENTLY) -> Postbag:
    mail = SmtpMail(f"{scheme}://localhost:{relay.port}", sender=SENDER, seconds=seconds)
    return Postbag(mailing=mail)


@pytest.mark.far
@pytest.mark.parametrize(
    ("serving", "scheme", "error", "status", "said"),
    [
        (refusing, "smtp", "connection", None, "ConnectionRefusedError"),
        (lambda: relaying(answers={"example.test": "450 4.2.1 full"}), "smtp", "status", 450, "answered 450"),
        (lambda: relaying(greeting="554 not you"), "smtp", "status", 554, "answered 554"),
        (lambda: relaying(greets_after=2), "smtp", "time", None, "took too long"),
        (lambda: relaying(hangs_at="BODY"), "smtp", "time", None, "took too long"),
        (lambda: relaying(drips_at="GREETING"), "smtp", "time", None, "took too long"),
        (lambda: relaying(cuts="before"), "smtp", "connection", None, "SMTPServerDisconnected"),
        (relaying, "smtp+starttls", "unsupported", None, "STARTTLS"),
    ],
    ids=["refuses", "4xx", "turns away", "greets slowly", "hangs", "drips", "drops", "no STARTTLS"],
)
def test_a_mail_rejected_by_a_broken_relay_is_logged_and_sent_after_recovery(
    world: World, sender: Database, later: ShiftedClock, serving: Callable[[], AbstractContextManager[MailRelay]],
    *, scheme: str, error: str, status: int | None, said: str,
) -> None:  # fmt: skip
    world.submit()
    prompts = open_notifications(sender)

    with serving() as bad:
        tries = mailing(bad, scheme, QUICKLY if error == "time" else PATIENTLY).deliver(sender, prompts)
    assert_notifications_are_held(sender)
    logged, rows = read(sender, TRIES), read(sender, NOTIFICATIONS, hooks=False)
    later.shift += MINUTES
    with relaying() as good:
        mailing(good).deliver(sender, prompts)

    assert [one.outcome for one in tries] == [None] * 3
    assert [(row.error, row.status) for row in logged] == [(error, status)] * 3
    assert all(said in row.last_error and row.attempts == 1 for row in rows)
    assert all(0 <= row.took_ms < 1000 * 2 * PATIENTLY for row in logged)
    assert sorted(good.message_ids) == [f"<{prompt}@lockbox.vendor.example>" for prompt in prompts]
    if bad.taken:
        assert sorted(bad.message_ids) == sorted(good.message_ids)
    assert open_notifications(sender) == []


@pytest.mark.parametrize("scheme", ["smtps", "smtp+starttls"])
@pytest.mark.parametrize("name", ["localhost", "other.example"])
def test_a_relay_with_an_invalid_certificate_gets_no_mail_and_the_log_says_why(
    world: World, worker: Database, tmp_path: Path, scheme: str, name: str
) -> None:
    world.submit()
    serving, _ = certified(tmp_path, name)
    trusted = tmp_path / "certificate.pem" if name != "localhost" else None

    with relaying(tls=serving, tls_at_once=scheme == "smtps") as relay:
        mail = SmtpMail(f"{scheme}://localhost:{relay.port}", sender=SENDER, ca_file=trusted)
        Postbag(mailing=mail).deliver(worker, open_notifications(worker))

    assert relay.taken == []
    assert {row.error for row in read(worker, TRIES)} == {"certificate"}
    assert len(open_notifications(worker)) == 3


def test_a_relay_can_refuse_one_recipient_permanently_while_other_recipients_get_mail(
    world: World, worker: Database
) -> None:
    world.submit()
    ann, amir = (address(worker, world, name) for name in ("ann", "amir"))

    with relaying(answers={ann: "550 5.1.1 unknown", amir: "451 4.7.1 greylisted"}) as relay:
        mailing(relay).deliver(worker, open_notifications(worker))

    query = "SELECT outcome, last_error, status, answer FROM notifications n, deliveries WHERE notification_id = n.id"
    rows = {row.status: row for row in read(worker, query)}
    assert (rows[550].outcome, rows[550].answer) == ("dead", "5.1.1 unknown")
    assert (rows[451].outcome, rows[451].answer) == (None, "4.7.1 greylisted")
    assert rows[None].outcome == "sent"
    assert [one.recipient for one in relay.taken] == [address(worker, world, "abe")]


def test_no_second_mail_is_sent_if_a_relay_hangs_up_after_accepting_a_mail(world: World, worker: Database) -> None:
    world.submit()
    prompts = open_notifications(worker)

    with relaying(cuts="after") as relay:
        mailing(relay).deliver(worker, prompts)

    assert sorted(relay.message_ids) == [f"<{prompt}@lockbox.vendor.example>" for prompt in prompts]
    assert {row.error for row in read(worker, TRIES)} == {None}


def test_a_mail_repeated_after_a_crash_before_recording_has_the_same_message_id(
    world: World, sender: Database, later: ShiftedClock, *, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.submit()
    prompts = open_notifications(sender)

    with relaying() as relay:
        with monkeypatch.context() as dying:
            dying.setattr(results, "record", lambda *_: (_ for _ in ()).throw(SystemExit(137)))
            futures = delivery.dispatch(as_sender(sender), prompts, mailing(relay).senders)
            assert {type(future.exception(10)) for future in futures} == {SystemExit}
        assert mailing(relay).deliver(sender, prompts) == []
        later.shift = delivery.LEASE + timedelta(seconds=1)
        mailing(relay).deliver(sender, prompts)

    assert sorted(relay.message_ids) == sorted(f"<{one}@lockbox.vendor.example>" for one in prompts * 2)
    assert len(read(sender, TRIES)) == 3
    assert open_notifications(sender) == []


METADATA = ScriptedAnswer(status=302, headers={"Location": "http://169.254.169.254/latest/meta-data/"})


@pytest.mark.far
@pytest.mark.parametrize(
    ("answer", "outcome", "error", "status"),
    [
        (ScriptedAnswer(status=500), None, "status", 500),
        (METADATA, None, "status", 302),
        (ScriptedAnswer(status=410), "dead", "status", 410),
        (ScriptedAnswer(status=429, headers={"Retry-After": "600"}), None, "status", 429),
        (ScriptedAnswer(is_held=True), None, "time", None),
        (ScriptedAnswer(drops=b" "), None, "time", None),
        (ScriptedAnswer(status=0, drops=b"HTTP/1.1 200 OK\r\nX: " + b"a" * 500), None, "time", None),
        (ScriptedAnswer(padding=GIGABYTE), "sent", None, 200),
        (BOMB, "sent", None, 200),
    ],
    ids=["500", "302", "410", "429", "never", "drips", "drips headers", "gigabyte", "bomb"],
)
def test_every_answer_of_an_endpoint_is_logged_and_nothing_is_lost(
    world: World, sender: Database, later: ShiftedClock,
    answer: ScriptedAnswer, *, outcome: str | None, error: str | None, status: int | None,
) -> None:  # fmt: skip
    post = Postbag(calling=HttpWebhooks(allow_http=True, seconds=QUICKLY if error == "time" else 10.0))
    memory = psutil.Process().memory_info().rss

    with receiving() as receiver:
        receiver.answers = [answer, ScriptedAnswer(status=204)]
        post.endpoint(world, receiver.url, tenant_id=world.tenant.id)
        world.submit()
        notifications = open_notifications(sender)
        post.deliver(sender, notifications)
        first, (row,) = read(sender, TRIES), read(sender, NOTIFICATIONS, hooks=True)
        later.shift += MINUTES
        post.calling = HttpWebhooks(allow_http=True)
        post.deliver(sender, notifications)

    (logged,) = [one for one in first if one.endpoint_id]
    assert (row.outcome, row.attempts) == (outcome, 1)
    assert (logged.error, logged.status) == (error, status)
    assert len(logged.answer) <= 1024
    assert psutil.Process().memory_info().rss - memory < 50 << 20
    assert len(receiver.calls) == (1 if outcome else 2)
    (row,) = read(sender, NOTIFICATIONS, hooks=True)
    assert row.outcome == (outcome or "sent")
    assert len(post.mail.sent) == 3


@pytest.mark.parametrize("name", ["localhost", "other.example"])
def test_an_endpoint_with_an_invalid_certificate_gets_no_call(
    world: World, worker: Database, tmp_path: Path, name: str
) -> None:
    serving, trusting = certified(tmp_path, name)
    hooks = HttpWebhooks(allow_http=True, tls=trusting if name != "localhost" else None)

    with receiving(name="localhost", tls=serving) as receiver:
        post = Postbag(calling=hooks)
        post.endpoint(world, receiver.url, tenant_id=world.tenant.id)
        world.submit()
        tries = post.deliver(worker, open_notifications(worker))

    assert receiver.calls == []
    assert [one.error for one in read(worker, TRIES) if one.endpoint_id] == ["certificate"]
    assert [one.outcome for one in tries].count(None) == 1


def test_a_call_is_refused_and_logged_if_the_endpoint_name_now_resolves_to_an_internal_address(
    world: World, sender: Database, later: ShiftedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    post = Postbag(calling=HttpWebhooks(allow_http=True))

    with receiving() as receiver:
        post.endpoint(world, receiver.url.replace("127.0.0.1", "hooks.example"), tenant_id=world.tenant.id)
        world.submit()
        world.submit()
        first, second = [row.id for row in read(sender, NOTIFICATIONS, hooks=True)]
        with monkeypatch.context() as resolving:
            asked = _resolve(resolving, "127.0.0.1", "169.254.169.254", "127.0.0.1")
            for one in (first, second):
                post.deliver(sender, [one])
            later.shift += MINUTES
            post.deliver(sender, [second])

    assert asked == []
    assert [row.error for row in read(sender, TRIES)] == [None, "not_public", None]
    assert [call.headers["webhook-id"] for call in receiver.calls] == [str(first), str(second)]


def _resolve(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """Let hooks.example resolve to each address in turn; return the list of addresses not resolved yet."""
    left, truly = list(addresses), socket.getaddrinfo

    def getaddrinfo(host: str, *more: Any, **named: Any) -> Any:
        if host != "hooks.example":
            return truly(host, *more, **named)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (left.pop(0), 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return left
