"""Mail through a real relay that misbehaves: each trouble has its name, and none takes longer than it may."""

import asyncio
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.mail_relay import MailRelay, relaying
from harness.network import serving
from harness.sinks import Sink
from lockbox.notifications.circuit_breaker import PeerResponse
from lockbox.notifications.senders import smtp_client
from lockbox.notifications.senders.protocol import OutgoingMail, SendFailed
from lockbox.notifications.senders.smtp import SmtpMail
from lockbox.notifications.senders.smtp_client import MailEnvelope
from tests.unit.test_safe_http import certified
from tests.unit.test_senders import FROM, MAIL

QUICKLY, PATIENTLY = 0.4, 20.0
NOBODY = {MAIL.to_address: "550 5.1.1 nobody"}


class Mailing:
    """Sends one mail after the other in a loop of its own, until it is closed."""

    def __init__(self, mail: SmtpMail) -> None:
        self.mail = mail
        self._runner = asyncio.Runner()
        OPEN.append(self)

    def send(self, *mails: OutgoingMail) -> list[BaseException | None]:
        """Send these at once, and return how each has failed; raise the failure of a single mail."""

        async def send_all() -> list[BaseException | None]:
            return await asyncio.gather(*(self.mail.send(mail) for mail in mails), return_exceptions=True)

        results = self._runner.run(send_all())
        if len(mails) == 1 and results[0]:
            raise results[0]
        return results

    def close(self) -> None:
        OPEN.remove(self)
        self._runner.run(self.mail.close())
        self._runner.close()


OPEN: list[Mailing] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while OPEN:
        OPEN[-1].close()


def mailing(
    relay: MailRelay, scheme: str = "smtp", host: str = "127.0.0.1", login: str = "", **more: object
) -> Mailing:
    return Mailing(SmtpMail(f"{scheme}://{login}{host}:{relay.port}", sender=FROM, **more))  # type: ignore[arg-type]


def refused(mail: Mailing) -> SendFailed:
    with pytest.raises(SendFailed) as failed:
        mail.send(MAIL)
    return failed.value


def test_a_healthy_mail_relay_gets_each_mail_once_over_one_connection() -> None:
    with relaying() as relay:
        mail = mailing(relay)
        for _ in range(3):
            mail.send(MAIL)
        mail.close()

    assert [one.recipient for one in relay.taken] == [MAIL.to_address] * 3
    assert relay.message_ids == [MAIL.message_id] * 3
    assert relay.callers == 1


def test_a_refused_smtp_connection_is_reported_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        failure = refused(Mailing(SmtpMail(f"smtp://127.0.0.1:{taken.getsockname()[1]}", sender=FROM)))

    assert (failure.kind, failure.permanent, failure.said) == ("connection", False, PeerResponse.SILENCE)


@pytest.mark.parametrize(
    ("answer", "permanent"), [("450 4.2.1 try later", False), ("550 5.1.1 no such mailbox", True)]
)
def test_a_relays_answer_about_a_recipient_is_kept_and_the_connection_continues(
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
def test_a_relays_refusal_is_permanent_only_if_it_concerns_this_mail(
    behaviour: dict[str, str], status: int, *, permanent: bool
) -> None:
    with relaying(**behaviour) as relay:
        failure = refused(mailing(relay))

    assert (failure.kind, failure.reply.status, failure.permanent) == ("status", status, permanent)
    assert failure.said is PeerResponse.ANSWER


def test_lockbox_waits_for_a_slow_greeting_of_a_mail_relay() -> None:
    with relaying(greets_after=0.3) as relay:
        mail = mailing(relay, seconds=5.0)
        mail.send(MAIL)
        mail.close()

    assert relay.message_ids == [MAIL.message_id]


@pytest.mark.far
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
def test_a_hanging_relay_is_abandoned_at_the_deadline_and_the_next_mail_reconnects(
    behaviour: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with relaying(**behaviour) as relay:
        mail = mailing(relay, seconds=QUICKLY)
        began = time.monotonic()
        failure = refused(mail)
        took = time.monotonic() - began
        relay.hangs_at = relay.hangs_for = relay.drips_at = ""
        monkeypatch.setattr(mail.mail, "_seconds", PATIENTLY)
        mail.send(MAIL)
        mail.close()

    assert (failure.kind, failure.permanent, failure.said) == ("time", False, PeerResponse.SILENCE)
    assert "took too long" in failure.reason
    assert QUICKLY * 0.9 < took < 10
    assert set(relay.message_ids) == {MAIL.message_id}
    assert relay.callers == 2


@pytest.mark.parametrize(("cuts", "doubled"), [("before", True), ("after", False)])
def test_a_mail_counts_as_unsent_only_if_the_relay_hangs_up_before_confirming_it(cuts: str, *, doubled: bool) -> None:
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
def test_only_a_relay_with_a_valid_certificate_gets_a_mail(
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


@pytest.mark.far
def test_a_mail_relay_hanging_in_a_tls_handshake_is_abandoned() -> None:
    with relaying(hangs_at="GREETING") as relay:
        began = time.monotonic()
        failure = refused(mailing(relay, "smtps", seconds=QUICKLY))

    assert failure.kind == "time"
    assert time.monotonic() - began < 15


def test_no_mail_is_sent_in_clear_if_the_required_starttls_is_missing() -> None:
    with relaying() as relay:
        failure = refused(mailing(relay, "smtp+starttls"))

    assert (failure.kind, failure.permanent) == ("unsupported", False)
    assert "STARTTLS" in failure.reason
    assert relay.taken == []


def test_a_server_with_another_greeting_is_not_accepted_as_a_mail_relay() -> None:
    with relaying(greeting="HTTP/1.1 400 Bad Request") as relay:
        failure = refused(mailing(relay))

    assert (failure.kind, failure.reply.status) == ("connection", None)


@pytest.mark.far
def test_one_hanging_mail_relay_delays_no_other_relay() -> None:
    with relaying(hangs_for="hangs.example") as relay:
        mail = mailing(relay, seconds=5.0)
        began = time.monotonic()
        hanging, *others = mail.send(replace(MAIL, to_address="ann@hangs.example"), *[MAIL] * 5)
        took = time.monotonic() - began
        mail.send(MAIL)
        mail.close()

    assert isinstance(hanging, SendFailed)
    assert others == [None] * 5
    assert 4.9 < took < 20
    assert len(relay.taken) == 6
    assert relay.callers == 6


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ({}, ["MAIL", "RCPT", "DATA", "MAIL"]),
        ({"pipelines": False}, ["MAIL", "RCPT", "DATA", "MAIL"]),
        ({"answers": {MAIL.to_address: "550 5.1.1 nobody"}}, ["MAIL", "RCPT", "DATA", "RSET", "MAIL"]),
        (
            {"answers": {MAIL.to_address: "550 5.1.1 nobody"}, "is_lax": True},
            ["MAIL", "RCPT", "DATA", "RSET", "MAIL"],
        ),
        ({"answers": {MAIL.to_address: "550 5.1.1 nobody"}, "pipelines": False}, ["MAIL", "RCPT", "RSET", "MAIL"]),
    ],
    ids=["begun in one go", "one by one", "refused", "refused, and waited for", "refused one by one"],
)
def test_smtp_commands_of_a_mail_are_pipelined_where_offered(behaviour: dict[str, Any], said: list[str]) -> None:
    with relaying(**behaviour) as relay:
        mail = mailing(relay)
        failed = refused(mail).reply.status if "answers" in behaviour else mail.send(MAIL)[0]
        others = [replace(MAIL, to_address=f"a{number}@contoso.example") for number in range(3)]
        for one in others:
            mail.send(one)
        mail.close()

    assert [one.partition(" ")[0] for one in relay.said][1 : 1 + len(said)] == said
    assert failed == (550 if "answers" in behaviour else None)
    assert [one.recipient for one in relay.taken][-3:] == [one.to_address for one in others]
    assert len(relay.taken) == (3 if failed else 4)
    assert relay.callers == 1


def test_lines_of_dots_in_a_mail_arrive_unchanged() -> None:
    text = ".\n..\n. end\n"
    with relaying() as relay:
        mail = mailing(relay)
        mail.send(replace(MAIL, text=text), replace(MAIL, text=text))
        mail.close()

    for taken in relay.taken:
        part = taken.message.get_body(("plain",))
        assert part is not None
        assert part.get_content().splitlines() == text.splitlines()


def test_no_line_break_other_than_crlf_ends_a_mail() -> None:
    envelope = MailEnvelope("a@v.example", "b@c.example", b"one\n.\r\nMAIL FROM:<x@y.example>\r.\r\n\n.\n")

    async def send(port: int) -> None:
        client = await smtp_client.connect("127.0.0.1", port, None)
        await client.send(envelope)
        client.close()

    with relaying() as relay:
        asyncio.run(send(relay.port))

    (taken,) = relay.taken
    assert taken.raw == b"one\r\n..\r\nMAIL FROM:<x@y.example>\r\n..\r\n\r\n..\r\n"
    assert [one.partition(" ")[0] for one in relay.said][:4] == ["EHLO", "MAIL", "RCPT", "DATA"]


def test_plaintext_received_after_starttls_is_discarded(tmp_path: Path) -> None:
    serving, _ = certified(tmp_path, "localhost")

    with relaying(tls=serving, injects="250-relay.example\r\n250 AUTH PLAIN\r\n") as relay:
        failure = refused(
            mailing(relay, "smtp+starttls", "me:secret@localhost", ca_file=tmp_path / "certificate.pem")
        )

    assert (failure.kind, failure.permanent) == ("connection", False)
    assert relay.taken == []
    assert not any("AUTH" in one for one in relay.said)


def test_smtp_capabilities_from_before_tls_are_forgotten(tmp_path: Path) -> None:
    serving, _ = certified(tmp_path, "localhost")

    with relaying(tls=serving) as relay:
        mail = mailing(relay, "smtp+starttls", "localhost", ca_file=tmp_path / "certificate.pem")
        mail.send(MAIL)
        mail.close()

    assert [one.partition(" ")[0] for one in relay.said[:4]] == ["EHLO", "STARTTLS", "EHLO", "MAIL"]


@pytest.mark.parametrize(
    ("offered", "said"),
    [
        ("AUTH PLAIN LOGIN", ["AUTH PLAIN AG1lAHMzY3JldA=="]),
        ("AUTH=LOGIN", ["AUTH LOGIN bWU=", "czNjcmV0"]),
        ("AUTH CRAM-MD5", ["AUTH CRAM-MD5", "bWUgNzM1YWQ3OTQ4NzNmMjE1MGMxNDFlNWRkZjc3MTIzMGM="]),
    ],
)
def test_the_best_offered_smtp_login_method_is_used(offered: str, said: list[str]) -> None:
    with relaying(offers=[offered, "SIZE 1000000"]) as relay:
        mail = mailing(relay, host="me:s3cret@127.0.0.1")
        mail.send(MAIL)
        mail.close()

    assert relay.said[1 : 1 + len(said)] == said
    assert [" SIZE=" in one for one in relay.said if one.startswith("MAIL")] == [True]
    assert len(relay.taken) == 1


def test_a_non_ascii_mail_address_needs_smtputf8() -> None:
    international = replace(MAIL, to_address="änne@contoso.example")
    with relaying() as relay:
        mail = mailing(relay)
        with pytest.raises(SendFailed) as failed:
            mail.send(international)
        relay.offers = ["SMTPUTF8"]
        mail.close()
        mail = mailing(relay)
        mail.send(international)
        mail.close()

    assert (failed.value.kind, failed.value.permanent) == ("unsupported", False)
    assert next(one for one in relay.said if one.startswith("MAIL")).endswith("SMTPUTF8 BODY=8BITMIME")
    assert [one.recipient for one in relay.taken] == ["änne@contoso.example"]


def test_an_idle_connection_closed_by_the_relay_costs_no_send_attempt() -> None:
    with relaying() as relay:
        mail = mailing(relay)
        mail.send(MAIL, MAIL, MAIL)
        relay.ended = relay.callers
        mail.send(MAIL)
        mail.close()

    assert len(relay.taken) == 4


class TalkativeRelay(Sink):
    """Sends more answers than it was asked for before it gets a mail, and then accepts none."""

    def __init__(self, more: bytes) -> None:
        super().__init__()
        self._more = more
        self.heard = b""

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 relay\r\n")
        await reader.readline()
        writer.write(b"250-relay\r\n250 PIPELINING\r\n")
        for _ in ("MAIL", "RCPT", "DATA"):
            await reader.readline()
        writer.write(b"250 ok\r\n250 ok\r\n354 go on\r\n" + self._more)
        while line := await reader.readline():
            self.heard += line
            if line == b".\r\n":
                writer.write(b"0 ok\r\n554 no\r\n")
        writer.close()


@pytest.mark.parametrize("more", [b"250 taken\r\n", b"25", b"250-taken\r\n"])
def test_an_early_smtp_answer_is_not_taken_as_the_answer_to_a_mail(more: bytes) -> None:
    with serving(TalkativeRelay(more)) as relay:
        mail = Mailing(SmtpMail(f"smtp://127.0.0.1:{relay.port}", sender=FROM))
        failure = refused(mail)
        mail.close()

    assert (failure.kind, failure.permanent) == ("connection", False)
    assert relay.heard == b""


@pytest.mark.parametrize("greeting", ["220-" + "x" * 10_000, "\r\n".join(["220-on and on"] * 200)])
def test_an_endless_smtp_answer_is_refused(greeting: str) -> None:
    with relaying(greeting=greeting) as relay:
        failure = refused(mailing(relay))

    assert (failure.kind, failure.reply.status) == ("connection", None)
