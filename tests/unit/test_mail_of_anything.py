"""Whatever people write, a mail can be made of it, contains it, and keeps its form."""

import email
import re
from dataclasses import replace
from email.message import EmailMessage
from email.policy import SMTP, default

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lockbox.notifications.senders import smtp
from lockbox.notifications.senders.smtp import compose
from tests.examples import examples
from tests.unit.sample_mail import mail

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=60)
HARD = st.sampled_from('abc XYZ 09 éß漢 ,;:"<>()[]@.=?_-!\t')
SENDERS = ["Lockbox <lockbox@vendor.example>", "lockbox@vendor.example", "Änne, Lockbox <x@y.example>"]


@settings(max_examples=examples(30), deadline=None)
@given(TEXTS, TEXTS, TEXTS)
def test_any_text_makes_a_mail_with_exactly_one_of_each_header(name: str, why: str, comment: str) -> None:
    made = mail(requester_name=name, recipient_name=name, justification=why, case_ref=why, comment=comment)

    raw = compose(made, "Lockbox <lockbox@vendor.example>").content

    read = email.message_from_bytes(raw, policy=default)
    assert sorted(read.keys()) == sorted(
        {
            "From",
            "To",
            "Subject",
            "Date",
            "Message-ID",
            "In-Reply-To",
            "References",
            "Auto-Submitted",
            "MIME-Version",
            "Content-Type",
            "List-Id",
            "X-Auto-Response-Suppress",
        }
    )
    assert [part.get_content_type() for part in read.iter_parts()] == ["text/plain", "text/html"]
    assert len(read["To"].addresses) == 1
    assert read["To"].addresses[0].addr_spec == "ann@contoso.example"
    assert "never ask you to approve by" in next(read.iter_parts()).get_content()


@settings(max_examples=examples(60), deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
def test_the_body_of_a_mail_reads_back_line_by_line(text: str, html: str) -> None:
    raw = compose(replace(mail(), text=text, html=html), "Lockbox <lockbox@vendor.example>").content

    read = email.message_from_bytes(raw, policy=default)

    assert [part.get_content().encode().splitlines() for part in read.iter_parts()] == [
        text.encode().splitlines(),
        html.encode().splitlines(),
    ]


@settings(max_examples=examples(200), deadline=None)
@given(st.text(HARD, max_size=120), st.sampled_from(SENDERS))
def test_mail_headers_equal_the_headers_made_by_pythons_email_package(subject: str, sender: str) -> None:
    made = replace(mail(), subject=subject)
    plain = EmailMessage(policy=SMTP)
    plain["From"], plain["Subject"] = sender, subject
    plain["Message-ID"], plain["In-Reply-To"], plain["References"] = made.message_id, made.thread_id, made.thread_id

    written = fields(compose(made, sender).content)

    assert {field: written[field] for field in fields(plain.as_bytes())} == fields(plain.as_bytes())


@settings(max_examples=examples(200), deadline=None)
@given(st.text(HARD, min_size=1, max_size=100))
@example("Erin Bcc: everyone@contoso.example <h1>Approve</h1>[U+202E]gnp.exe[U+2066][U+2028]Request 0 [31m")
@example('"Ann" <everyone@contoso.example>, ' + "Äpfel " * 10)
@example("=?utf-8?q?Ann?= <everyone@contoso.example>")
def test_any_recipient_name_stays_one_name_in_the_mail_header(name: str) -> None:
    written = fields(compose(replace(mail(), to_name=name), SENDERS[0]).content)[b"To"]

    (read,) = email.message_from_bytes(written + b"\r\n\r\n", policy=default)["To"].addresses
    assert read.addr_spec == "ann@contoso.example"
    # Python keeps the break between two encoded words as a space, which RFC 2047 drops (6.2).
    assert "".join(read.display_name.split()) == "".join(name.split())
    assert max(map(len, written.split(b"\r\n"))) <= 78


@settings(max_examples=examples(200), deadline=None)
@given(st.text(HARD, min_size=1, max_size=100))
@example("Vendor, Inc. <boss@contoso.example>, a very long name of a vendor that goes on and on and on")
@example("Änne Müller <boss@contoso.example>, der sehr lange Name eines Herstellers, GmbH")
@example("=?utf-8?q?Ann?= <everyone@contoso.example>")
def test_any_sender_name_stays_one_name_in_the_mail_header(name: str) -> None:
    quoted = re.sub(r'(["\\])', r"\\\1", name).replace("\t", " ")
    sender = f'"{quoted}" <lockbox@vendor.example>'

    written = fields(compose(mail(), sender).content)[b"From"]

    (read,) = email.message_from_bytes(written + b"\r\n\r\n", policy=default)["From"].addresses
    assert read.addr_spec == "lockbox@vendor.example"
    plain = SMTP.header_store_parse("From", sender)[1].addresses[0].display_name
    assert "".join(read.display_name.split()) == "".join(plain.split())
    assert max(map(len, written.split(b"\r\n"))) <= 78


def fields(raw: bytes) -> dict[bytes, bytes]:
    """Return the headers of a mail by name, each as it is written."""
    head, _, _ = raw.partition(b"\r\n\r\n")
    lines = re.split(rb"\r\n(?![ \t])", head.removesuffix(b"\r\n"))
    return {line.partition(b":")[0]: line for line in lines}


def test_no_text_in_a_mail_ends_its_mime_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp, "_boundary", lambda: "=_known")
    hostile = "Before\n--=_known--\n--=_known\nContent-Type: text/html\n\n<b>forged</b>\n.\n"

    raw = compose(replace(mail(), text=hostile), "Lockbox <lockbox@vendor.example>").content

    read = email.message_from_bytes(raw, policy=default)
    assert [part.get_content_type() for part in read.iter_parts()] == ["text/plain", "text/html"]
    assert next(read.iter_parts()).get_content().splitlines() == hostile.splitlines()
    assert not read.defects


def test_mime_boundaries_are_unpredictable() -> None:
    sent = [compose(mail(), "Lockbox <lockbox@vendor.example>").content for _ in range(3)]

    assert len({email.message_from_bytes(one).get_boundary() for one in sent}) == 3


def test_no_line_of_a_mail_exceeds_the_smtp_limit() -> None:
    raw = compose(replace(mail(), text="x" * 5_000, html="é" * 5_000), "Lockbox <lockbox@vendor.example>").content

    assert max(len(line) for line in raw.splitlines()) <= 78
