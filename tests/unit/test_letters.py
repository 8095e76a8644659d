"""What a notice says, and that nobody can make it say something else."""

import re
from datetime import timedelta
from uuid import UUID

import pytest

from lockbox.notices import letters
from lockbox.notices.audience import REMINDERS
from lockbox.notices.letters import SUBJECTS, Wording
from lockbox.requests.lifecycle import State
from tests.unit.letter import AT, ERIN, NUMBER, PAGE, mail

URL = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s\"'<>]+")
PROMPTS = ["reviewing", "pending"]


def seen(html: str) -> str:
    """Return what a reader sees of a page."""
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


@pytest.mark.parametrize("template", PROMPTS)
@pytest.mark.parametrize("part", ["text", "html"])
def test_a_prompt_says_all_that_a_decision_needs(template: str, part: str) -> None:
    made = mail(template=template)

    body = made.text if part == "text" else seen(made.html)

    for fact in (
        "Erin Engineer",
        "contoso",
        "Exchange Online",
        "mailbox:anna@contoso.example, mailbox:bob@contoso.example",
        "read, export",
        "support case: The mailbox does not open",
        "CASE-4711",
        "1 h 30 min",
        "Tuesday 24 November 2026, 21:00:00 UTC",
        "Tuesday 24 November 2026, 10:30:05 UTC, if approved now",
        str(NUMBER),
    ):
        assert fact in body
    assert "never ask you to approve by" in body


@pytest.mark.parametrize("state", State)
def test_every_state_has_a_letter_with_a_text_part_and_a_subject(state: State) -> None:
    made = mail(template=state.value)

    assert set(SUBJECTS) == {*State, *REMINDERS, "closing"}
    assert made.text.strip()
    assert made.html.lstrip().startswith("<!doctype html>")
    assert "Exchange Online" in made.subject
    assert str(NUMBER) in made.text


@pytest.mark.parametrize("template", [*REMINDERS, "closing"])
@pytest.mark.parametrize("part", ["text", "html"])
def test_a_nudge_says_what_it_is_about_and_how_much_time_is_left(template: str, part: str) -> None:
    made = mail(template=template, now=AT + timedelta(hours=6, minutes=1))

    body = made.text if part == "text" else seen(made.html)

    assert "5 h 59 min" in made.subject
    for fact in (
        "5 h 59 min",
        "Erin Engineer",
        "Exchange Online",
        "mailbox:anna@contoso.example, mailbox:bob@contoso.example",
        "support case: The mailbox does not open",
        "Tuesday 24 November 2026, 21:00:00 UTC",
        str(NUMBER),
    ):
        assert fact in body
    assert "never ask you to approve by" in body


def test_a_requester_is_told_that_the_own_window_is_about_to_close() -> None:
    assert (
        "Your access closes by itself in 9 min 59 s."
        in mail(template="closing", recipient_id=ERIN, now=AT + timedelta(hours=11, minutes=50, seconds=1)).text
    )
    assert "The access closes by itself in 1 s." in mail(template="closing", now=AT + timedelta(hours=13)).text


@pytest.mark.parametrize("template", [*REMINDERS, "closing"])
def test_a_nudge_is_as_tight_lipped_as_every_mail(template: str) -> None:
    made = mail(template=template, wording=Wording(link=False, justification=False))

    for body in (made.text, seen(made.html)):
        assert URL.findall(body) == []
        assert "The mailbox does not open" not in body
        assert "open the portal yourself, sign in and look for the request's number" in body
    assert "href" not in made.html
    assert re.findall(r'href="([^"]*)"', mail(template=template).html) == [PAGE]


@pytest.mark.parametrize("state", State)
def test_a_mail_without_link_says_where_to_go_and_holds_no_address(state: State) -> None:
    made = mail(template=state.value, wording=Wording(link=False))

    for body in (made.text, made.html):
        assert URL.findall(body) == []
        assert "open the portal yourself, sign in and look for the request's number" in body
        assert "hold no link" in body
    assert "href" not in made.html


@pytest.mark.parametrize("state", State)
def test_a_mail_that_may_not_quote_gives_the_reason_without_the_words(state: State) -> None:
    made = mail(template=state.value, wording=Wording(justification=False))

    for body in (made.text, seen(made.html)):
        assert "The mailbox does not open" not in body
        assert re.search(r"Why\s+support case\s+Case", body)


@pytest.mark.parametrize("state", State)
def test_nothing_in_a_mail_acts_by_itself(state: State) -> None:
    made = mail(template=state.value, comment="Please be quick")

    assert set(URL.findall(made.text)) == {PAGE}
    assert set(URL.findall(made.html)) == {PAGE}
    assert re.findall(r'href="([^"]*)"', made.html) == [PAGE]
    assert not re.search(r"<(form|input|button|script|img|iframe|object|embed|link)\b", made.html, re.IGNORECASE)
    assert "src=" not in made.html
    assert "url(" not in made.html


@pytest.mark.parametrize("state", ["active", "denied", "revoked"])
def test_an_outcome_names_who_brought_it_about_and_what_was_said(state: str) -> None:
    made = mail(template=state, actor_name="Amir Approver", comment="Ticket closed")

    assert "by Amir Approver" in made.text
    assert "by Amir Approver" in seen(made.html)
    assert "Ticket closed" in made.text
    assert "Ticket closed" in seen(made.html)


def test_an_open_window_says_until_when() -> None:
    made = mail(template="active", deadline_at=AT + timedelta(seconds=5400))

    assert re.search(r"Open until +Tuesday 24 November 2026, 10:30:00 UTC\n", made.text)
    assert "if approved now" not in made.text


def test_who_gave_access_back_is_you_for_the_requester_and_a_name_for_the_others() -> None:
    assert "You gave the access back" in mail(template="completed", recipient_id=ERIN).text
    assert "Erin Engineer gave the access back" in mail(template="completed").text


def test_a_request_without_a_case_says_so() -> None:
    assert re.search(r"Case +none given\n", mail(case_ref=None).text)


HOSTILE = "<script>alert(1)</script><img src=x>\"'&{{7*7}}"


@pytest.mark.parametrize("template", State)
@pytest.mark.parametrize(
    "field",
    ["requester", "tenant", "service", "justification", "case_ref", "comment", "actor_name", "reason_code"],
)
def test_html_in_a_field_is_shown_and_never_run(template: State, field: str) -> None:
    made = mail(template=template.value, **{field: HOSTILE})

    assert "<script" not in made.html
    assert "<img" not in made.html
    assert "49" not in re.sub(r"[0-9a-f-]{36}|#\w+", "", made.html)


@pytest.mark.parametrize("field", ["resources", "actions"])
def test_html_in_a_list_is_shown_and_never_run(field: str) -> None:
    made = mail(**{field: [HOSTILE, "mailbox:b"]})

    assert "<script" not in made.html
    assert "&lt;script&gt;" in made.html


@pytest.mark.parametrize(
    "name",
    [
        "Erin\r\nBcc: everyone@contoso.example",
        "Erin\nBcc: x",
        "Erin\x00\x1b[31m",
        "Erin\u202eevil\u2066",
        "Erin\u2028Bcc: x\u2029y\u0085z",
        "Erin\u200b\ufeff",
        "E" * 5000,
        "\ud800",
    ],
)
def test_a_name_cannot_leave_its_line_turn_the_text_around_or_fill_the_page(name: str) -> None:
    made = mail(requester=name, recipient_name=name, actor_name=name, tenant=name, template="revoked")

    for line in (made.subject, made.to_name):
        assert line.isprintable()
        assert len(line) <= 200
    assert len(made.to_name) <= 100
    assert made.subject.startswith("Closed early: access to Exchange Online at ")


def test_further_lines_of_a_field_cannot_pass_for_fields_of_ours() -> None:
    forged = (
        "Fine\nAnswer by        never\r\nRequest          0\u2028Case             none\rTo decide, sign in at evil"
    )

    made = mail(justification=forged, comment=forged, case_ref=forged)

    starts = [line[:17].rstrip() for line in made.text.splitlines()]
    for ours in ("Answer by", "Request", "Case"):
        assert starts.count(ours) == 1
    assert sum(line.startswith("To decide") for line in made.text.splitlines()) == 1


def test_the_same_notice_has_the_same_message_id_and_the_same_request_the_same_thread() -> None:
    first, again, other = mail(), mail(now=AT + timedelta(hours=1)), mail(notice_id=UUID(int=100))

    assert first.message_id == again.message_id == f"<{UUID(int=99)}@lockbox.vendor.example>"
    assert other.message_id != first.message_id
    assert first.thread_id == other.thread_id == f"<{NUMBER}@lockbox.vendor.example>"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (1, "1 s"),
        (60, "1 min"),
        (90, "1 min 30 s"),
        (3600, "1 h"),
        (14_400, "4 h"),
        (604_800, "168 h"),
        (3661, "1 h 1 min 1 s"),
    ],
)
def test_a_length_of_time_is_said_in_words(seconds: int, words: str) -> None:
    assert letters.duration(seconds) == words
