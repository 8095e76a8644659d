"""Mail through a real relay that misbehaves: each trouble has its name, and none takes longer than it may."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from harness.sinks import MailRelay, relaying
from lockbox.notifications.circuit_breaker import PeerResponse
from lockbox.notifications.senders.protocol import SendFailed
from lockbox.notifications.senders.smtp import SmtpMail
from tests.unit.test_safe_http import certified
from tests.unit.test_senders import FROM, MAIL

QUICKLY = 0.4


def mailing(relay: MailRelay, scheme: str = "smtp", host: str = "127.0.0.1", **more: object) -> SmtpMail:
    return SmtpMail(f"{scheme}://{host}:{relay.port}", sender=FROM, **more)  # type: ignore[arg-type]


def refused(mail: SmtpMail) -> SendFailed:
    """Send, and return how that failed."""
    with pytest.raises(SendFailed) as failed:
        mail.send(MAIL)
    return failed.value


def test_a_relay_that_is_well_takes_each_mail_once_over_one_connection() -> None:
    with relaying() as relay:
        mail = mailing(relay)
        for _ in range(3):
            mail.send(MAIL)
        mail.close()

    assert [one.recipient for one in relay.taken] == [MAIL.to_address] * 3
    assert relay.message_ids == [MAIL.message_id] * 3
    assert relay.callers == 1


def test_nobody_listening_is_said_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        failure = refused(SmtpMail(f"smtp://127.0.0.1:{taken.getsockname()[1]}", sender=FROM))

    assert (failure.kind, failure.permanent, failure.said) == ("connection", False, PeerResponse.SILENCE)


@pytest.mark.parametrize(
    ("answer", "permanent"), [("450 4.2.1 try later", False), ("550 5.1.1 no such mailbox", True)]
)
def test_what_the_relay_says_of_a_recipient_is_kept_and_the_connection_goes_on(
    answer: str, *, permanent: bool
) -> None:
    with relaying(answers={MAIL.to_address: answer}) as relay:
        mail = mailing(relay)
        failure = refused(mail)
        mail.send(replace(MAIL, to_address="amir@contoso.example"))
        mail.close()

    assert (failure.permanent, failure.kind, failure.said) == (permanent, "status", PeerResponse.ANSWER)
    assert (failure.reply.status, failure.reply.text) == (int(answer[:3]), answer[4:])
    assert [one.recipient for one in relay.taken] == ["amir@contoso.example"]
    assert relay.callers == 1


@pytest.mark.parametrize(
    ("behaviour", "status", "permanent"),
    [
        ({"greeting": "421 too busy"}, 421, False),
        ({"greeting": "554 not for you"}, 554, False),
        ({"to_body": "451 later"}, 451, False),
        ({"to_body": "554 this is spam"}, 554, True),
    ],
)
def test_a_refusal_is_for_good_only_where_it_is_of_this_mail(
    behaviour: dict[str, str], status: int, *, permanent: bool
) -> None:
    with relaying(**behaviour) as relay:
        failure = refused(mailing(relay))

    assert (failure.kind, failure.reply.status, failure.permanent) == ("status", status, permanent)
    assert failure.said is PeerResponse.ANSWER


def test_a_slow_greeting_is_waited_for() -> None:
    with relaying(greets_after=0.3) as relay:
        mail = mailing(relay, seconds=5.0)
        mail.send(MAIL)
        mail.close()

    assert relay.message_ids == [MAIL.message_id]


@pytest.mark.parametrize(
    "behaviour",
    [
        {"hangs_at": "GREETING"},
        {"hangs_at": "EHLO"},
        {"hangs_at": "BODY"},
        {"hangs_for": "contoso.example"},
        {"drips_at": "GREETING"},
        {"drips_at": "EHLO"},
        {"drips_at": "BODY"},
    ],
    ids=str,
)
def test_who_hangs_or_drips_is_left_at_the_deadline_and_the_next_mail_has_a_new_connection(
    behaviour: dict[str, str],
) -> None:
    with relaying(**behaviour) as relay:
        mail = mailing(relay, seconds=QUICKLY)
        began = time.monotonic()
        failure = refused(mail)
        took = time.monotonic() - began
        relay.hangs_at = relay.hangs_for = relay.drips_at = ""
        mail.send(MAIL)
        mail.close()

    assert (failure.kind, failure.permanent, failure.said) == ("time", False, PeerResponse.SILENCE)
    assert "took too long" in failure.reason
    assert QUICKLY * 0.9 < took < 3
    assert set(relay.message_ids) == {MAIL.message_id}
    assert relay.callers == 2


@pytest.mark.parametrize(("cuts", "doubled"), [("before", True), ("after", False)])
def test_a_relay_that_hangs_up_after_it_took_a_mail_gets_the_same_message_id_or_nothing(
    cuts: str, *, doubled: bool
) -> None:
    with relaying(cuts=cuts) as relay:
        mail = mailing(relay)
        if doubled:
            failure = refused(mail)
            assert (failure.kind, failure.permanent) == ("connection", False)
            relay.cuts = ""
        mail.send(MAIL)
        relay.cuts = ""
        mail.send(replace(MAIL, message_id="<n-2@vendor.example>"))
        mail.close()

    assert relay.message_ids == [MAIL.message_id] * (2 if doubled else 1) + ["<n-2@vendor.example>"]


@pytest.mark.parametrize("scheme", ["smtps", "smtp+starttls"])
@pytest.mark.parametrize(("name", "is_trusted"), [("localhost", True), ("other.example", True), ("localhost", False)])
def test_only_a_relay_with_a_good_certificate_for_its_name_gets_a_mail(
    tmp_path: Path, scheme: str, name: str, *, is_trusted: bool
) -> None:
    serving, _ = certified(tmp_path, name)
    good = (name, is_trusted) == ("localhost", True)

    with relaying(tls=serving, tls_at_once=scheme == "smtps") as relay:
        trusted = tmp_path / "certificate.pem" if is_trusted else None
        mail = mailing(relay, scheme, "localhost", ca_file=trusted)
        if good:
            mail.send(MAIL)
        else:
            failure = refused(mail)
            assert (failure.kind, failure.permanent, failure.said) == ("certificate", False, PeerResponse.SILENCE)
        mail.close()

    assert len(relay.taken) == good


def test_a_relay_that_hangs_in_the_middle_of_a_handshake_is_left_too() -> None:
    with relaying(hangs_at="GREETING") as relay:
        began = time.monotonic()
        failure = refused(mailing(relay, "smtps", seconds=QUICKLY))

    assert failure.kind == "time"
    assert time.monotonic() - began < 15


def test_a_relay_that_offers_no_starttls_though_asked_to_gets_no_mail_in_the_clear() -> None:
    with relaying() as relay:
        failure = refused(mailing(relay, "smtp+starttls"))

    assert (failure.kind, failure.permanent) == ("unsupported", False)
    assert "STARTTLS" in failure.reason
    assert relay.taken == []


def test_a_greeting_in_another_language_is_no_mail_relay() -> None:
    with relaying(greeting="HTTP/1.1 400 Bad Request") as relay:
        failure = refused(mailing(relay))

    assert (failure.kind, failure.reply.status) == ("connection", None)


def test_each_thread_has_a_connection_of_its_own_and_one_that_hangs_holds_up_no_other() -> None:
    with relaying(hangs_for="hangs.example") as relay, ThreadPoolExecutor(2) as pool:
        mail = mailing(relay, seconds=1.5)
        began = time.monotonic()
        hanging = pool.submit(mail.send, replace(MAIL, to_address="ann@hangs.example"))
        for _ in range(5):
            pool.submit(mail.send, MAIL).result(10)
        pool.submit(mail.close).result(10)
        took = time.monotonic() - began
        with pytest.raises(SendFailed):
            hanging.result(10)

    assert took < 1.4
    assert len(relay.taken) == 5
