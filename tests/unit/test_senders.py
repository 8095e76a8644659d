"""The form of what is sent: headers of a mail, the signature of a webhook, and when to try again."""

import asyncio
import email
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.policy import default

import pytest
from cryptography.fernet import Fernet, InvalidToken
from standardwebhooks import Webhook, WebhookVerificationError

from harness.memory_senders import MemoryMail
from lockbox.notifications.endpoints import SecretVault, new_secret
from lockbox.notifications.results import next_try
from lockbox.notifications.senders.protocol import OutgoingMail, SendFailed, WebhookCall
from lockbox.notifications.senders.smtp import SmtpMail, compose
from lockbox.notifications.webhook import HttpWebhooks, signed
from tests.each import each

NOON = datetime(2026, 12, 31, 12, tzinfo=UTC)
FROM = "Lockbox <lockbox@vendor.example>"
MAIL = OutgoingMail(
    message_id="<n-1@vendor.example>",
    to_name="Änne Approver",
    to_address="anne@contoso.example",
    subject="Approval needed: Exchange · Zoë",
    text="Grüße\n",
    html="<p>Grüße</p>",
    thread_id="<r-1@vendor.example>",
    list_id="<contoso.requests.vendor.example>",
)
HOOK = WebhookCall(
    hook_id="n-1", url="https://hooks.example/x", body='{"id":"n-1","é":1}'.encode(), secrets=(new_secret(),)
)


def test_a_mail_is_marked_as_automatic_and_threaded_by_request() -> None:
    raw = compose(MAIL, FROM).content

    read = email.message_from_bytes(raw, policy=default)

    assert read["Message-ID"] == "<n-1@vendor.example>"
    assert read["In-Reply-To"] == read["References"] == "<r-1@vendor.example>"
    assert read["List-Id"] == "<contoso.requests.vendor.example>"
    assert read["Auto-Submitted"] == "auto-generated"
    assert read["X-Auto-Response-Suppress"] == "OOF, AutoReply"
    assert read["From"] == FROM
    assert read["To"] == "Änne Approver <anne@contoso.example>"
    assert read["Subject"] == MAIL.subject
    assert read["Date"].datetime is not None
    assert "List-Unsubscribe" not in read


def test_the_text_part_of_a_mail_precedes_its_html_part() -> None:
    read = email.message_from_bytes(compose(MAIL, FROM).content, policy=default)

    parts = [(part.get_content_type(), part.get_content().strip()) for part in read.iter_parts()]

    assert read.get_content_type() == "multipart/alternative"
    assert parts == [("text/plain", "Grüße"), ("text/html", "<p>Grüße</p>")]


def test_every_send_attempt_of_a_mail_has_the_same_message_id() -> None:
    sent = [email.message_from_bytes(compose(MAIL, FROM).content) for _ in range(3)]

    assert {one["Message-ID"] for one in sent} == {"<n-1@vendor.example>"}


@pytest.mark.parametrize(
    "change",
    [
        {"subject": "Hello\r\nBcc: all@contoso.example"},
        {"subject": "Hello\nBcc: all@contoso.example"},
        {"to_name": "Ann\r\nBcc: all@contoso.example"},
        {"to_address": "ann@contoso.example\r\nBcc: all@contoso.example"},
    ],
)
def test_a_line_break_in_a_mail_header_is_refused_permanently(change: dict[str, str]) -> None:
    hostile = replace(MAIL, **change)

    with pytest.raises(SendFailed) as failed:
        asyncio.run(SmtpMail("smtp://127.0.0.1:1", sender=FROM).send(hostile))

    assert failed.value.permanent


@pytest.mark.parametrize("sender", ["L <l@v.example>\r\nBcc: all@contoso.example", "l@v.example\nBcc: x@y.example"])
def test_a_line_break_in_the_sender_of_a_mail_is_refused(sender: str) -> None:
    with pytest.raises(ValueError, match="linefeed"):
        compose(MAIL, sender)


def test_a_mail_address_cannot_name_a_second_recipient() -> None:
    envelope = compose(replace(MAIL, to_address="ann@contoso.example, all@contoso.example"), FROM)

    assert len(email.message_from_bytes(envelope.content, policy=default)["To"].addresses) == 1
    assert envelope.recipient == '"ann@contoso.example, all"@contoso.example'


def test_the_published_library_verifies_a_webhook() -> None:
    headers = signed(HOOK, datetime.now(UTC))

    said = Webhook(HOOK.secrets[0]).verify(HOOK.body, headers)

    assert said == {"id": "n-1", "é": 1}
    assert headers["webhook-id"] == "n-1"


@pytest.mark.parametrize(
    ("body", "change"),
    [
        (HOOK.body.replace(b"n-1", b"n-2"), {}),
        (HOOK.body + b" ", {}),
        (HOOK.body, {"webhook-id": "n-2"}),
        (HOOK.body, {"webhook-timestamp": "1"}),
        (HOOK.body, {"webhook-signature": "v1,AAAA"}),
        (HOOK.body, {"webhook-signature": ""}),
    ],
)
def test_the_published_library_refuses_a_changed_webhook(body: bytes, change: dict[str, str]) -> None:
    headers = signed(HOOK, datetime.now(UTC)) | change

    with pytest.raises(WebhookVerificationError):
        Webhook(HOOK.secrets[0]).verify(body, headers)


def test_the_published_library_refuses_a_webhook_signed_with_another_secret() -> None:
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(HOOK.body, signed(HOOK, datetime.now(UTC)))


@pytest.mark.parametrize("url", ["http://hooks.example/", "ftp://hooks.example/", "file:///etc/passwd", "", "hooks"])
def test_a_webhook_with_a_plain_http_address_is_never_called(url: str) -> None:
    with pytest.raises(SendFailed) as failed:
        asyncio.run(HttpWebhooks().send(replace(HOOK, url=url)))

    assert failed.value.permanent


def test_webhook_signing_secrets_have_256_bits_and_are_stored_encrypted() -> None:
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    secret = new_secret()

    sealed = SecretVault([old]).seal(secret)

    assert secret.encode() not in sealed
    assert SecretVault([new, old]).open(sealed) == secret
    with pytest.raises(InvalidToken):
        SecretVault([new]).open(sealed)


@each(
    ("attempts", "left", "wait"),
    [
        (1, timedelta(hours=12), timedelta(seconds=2)),
        (2, timedelta(hours=12), timedelta(seconds=4)),
        (5, timedelta(hours=12), timedelta(seconds=32)),
        (9, timedelta(hours=12), timedelta(seconds=512)),
        (10, timedelta(hours=12), timedelta(minutes=15)),
        (1000, timedelta(hours=12), timedelta(minutes=15)),
        (9, timedelta(minutes=4), timedelta(minutes=1)),
        (1, timedelta(seconds=5), timedelta(seconds=1.25)),
        (9, timedelta(seconds=3), timedelta(seconds=1)),
        (1, timedelta(seconds=1.5), timedelta(seconds=1)),
        (1, timedelta(seconds=1), None),
        (1, timedelta(0), None),
        (1, timedelta(seconds=-9), None),
    ],
)
def test_the_wait_before_the_next_send_attempt_doubles_within_the_time_left(
    attempts: int, left: timedelta, wait: timedelta | None
) -> None:
    again = next_try(attempts, NOON, NOON + left)

    assert again == (None if wait is None else NOON + wait)


@pytest.mark.parametrize("minutes", [1, 30, 720])
def test_send_attempts_end_before_the_notification_is_obsolete(minutes: int) -> None:
    until, at, tries = NOON + timedelta(minutes=minutes), NOON, 1

    while again := next_try(tries, at, until):
        assert at < again < until
        at, tries = again, tries + 1

    assert 8 < tries < 120
    assert until - at <= timedelta(seconds=1)


def test_the_in_memory_sender_of_tests_records_sends_and_fails_with_the_error_a_test_set() -> None:
    sender = MemoryMail()
    asyncio.run(sender.send(MAIL))
    sender.refused[MAIL.to_address] = SendFailed("no such mailbox", permanent=True)

    with pytest.raises(SendFailed, match="no such mailbox"):
        asyncio.run(sender.send(MAIL))

    assert sender.sent == [MAIL]
