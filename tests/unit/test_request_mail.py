"""What a notification says, and that user text cannot make it say anything else."""

import re
from dataclasses import replace
from datetime import timedelta
from html import unescape
from typing import Any
from uuid import UUID

import pytest

from lockbox.facts.enumerations import Mode, State
from lockbox.notifications import mail_text, request_wording
from lockbox.notifications.audience import (
    AFTER_REVIEWS,
    BREAK_GLASS,
    CONVERSED,
    COPIED,
    OPERATED,
    RECEIPT,
    REMINDERS,
    REPORT,
)
from lockbox.notifications.earlier_requests import EarlierRequest
from lockbox.notifications.mail_text import REQUEST_SUBJECTS
from lockbox.notifications.request_mail import MailWording
from lockbox.requests.lifecycle import HeldBack
from tests.each import each
from tests.unit.sample_mail import ANN, AT, ERIN, NUMBER, PAGE, mail

URL = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s\"'<>]+")
PROMPTS = ["reviewing", "pending"]


def seen(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


@pytest.mark.parametrize("template", PROMPTS)
@pytest.mark.parametrize("part", ["text", "html"])
def test_a_prompt_mail_contains_everything_a_decision_needs(template: str, part: str) -> None:
    made = mail(template=template)

    body = made.text if part == "text" else seen(made.html)

    for fact in (
        "Erin Engineer",
        "Contoso",
        "Exchange Online",
        *("mailbox:anna@contoso.example", "mailbox:bob@contoso.example"),
        "read, export",
        "support case: The mailbox does not open",
        "CASE-4711",
        "1 h 30 min",
        "Tuesday 24 November 2026, 21:00 UTC",
        "Tuesday 24 November 2026, 10:30:05 UTC, if approved now",
        str(NUMBER),
    ):
        assert fact in body
    assert "never ask you to approve by" in body


@each("state", State)
def test_every_request_state_has_a_mail_with_text_and_subject(state: State) -> None:
    made = mail(template=state.value)

    of_targets = {*OPERATED, *OPERATED.values()}
    others = {*REMINDERS, *CONVERSED.values(), *of_targets, "begun", "closing", "unreached", RECEIPT, REPORT, COPIED}
    others |= {BREAK_GLASS, "held_back", *AFTER_REVIEWS}
    assert set(REQUEST_SUBJECTS) == {*State, *others}
    assert made.text.strip()
    assert made.html.lstrip().startswith("<!doctype html>")
    assert "Exchange Online" in made.subject
    assert str(NUMBER) in made.text


@pytest.mark.parametrize("template", [*REMINDERS, "closing"])
@pytest.mark.parametrize("part", ["text", "html"])
def test_a_reminder_mail_says_what_it_is_about_and_the_time_left(template: str, part: str) -> None:
    made = mail(template=template, now=AT + timedelta(hours=6, minutes=1))

    body = made.text if part == "text" else seen(made.html)

    assert "21:00 UTC: " in made.subject
    for fact in (
        "5 h 59 min",
        "Erin Engineer",
        "Exchange Online",
        *("mailbox:anna@contoso.example", "mailbox:bob@contoso.example"),
        "support case: The mailbox does not open",
        "Tuesday 24 November 2026, 21:00 UTC",
        str(NUMBER),
    ):
        assert fact in body
    assert "never ask you to approve by" in body


def test_a_requester_is_warned_by_mail_that_their_window_ends() -> None:
    assert (
        "Your access ends automatically in 9 min 59 s."
        in mail(template="closing", recipient_id=ERIN, now=AT + timedelta(hours=11, minutes=50, seconds=1)).text
    )
    assert "The access ends automatically in 1 s." in mail(template="closing", now=AT + timedelta(hours=13)).text


@pytest.mark.parametrize("template", [*REMINDERS, "closing"])
def test_a_reminder_mail_omits_what_the_policy_keeps_out_of_every_mail(template: str) -> None:
    made = mail(template=template, wording=MailWording(link=False, justification=False))

    for body in (made.text, seen(made.html)):
        assert URL.findall(body) == []
        assert "The mailbox does not open" not in body
        assert "open the portal yourself, sign in and search for the request's number" in body
    assert "href" not in made.html
    assert re.findall(r'href="([^"]*)"', mail(template=template).html) == [PAGE]


@each("state", State)
def test_a_mail_without_a_link_says_where_to_go_and_contains_no_url(state: State) -> None:
    made = mail(template=state.value, wording=MailWording(link=False))

    for body in (made.text, made.html):
        assert URL.findall(body) == []
        assert "open the portal yourself, sign in and search for the request's number" in body
        assert "contain no link" in " ".join(body.split())
    assert "href" not in made.html


@each("state", State)
def test_a_mail_that_may_not_quote_the_justification_gives_only_the_reason_code(state: State) -> None:
    made = mail(template=state.value, wording=MailWording(justification=False))

    for body in (made.text, seen(made.html)):
        assert "The mailbox does not open" not in body
        assert re.search(r"Reason\s+support case\s+Case", body)


@each("state", State)
def test_opening_a_mail_does_nothing(state: State) -> None:
    made = mail(template=state.value, comment="Please be quick")

    assert set(URL.findall(made.text)) == {PAGE}
    assert set(URL.findall(made.html)) == {PAGE}
    assert re.findall(r'href="([^"]*)"', made.html) == [PAGE]
    assert not re.search(r"<(form|input|button|script|img|iframe|object|embed|link)\b", made.html, re.IGNORECASE)
    assert "src=" not in made.html
    assert "url(" not in made.html


@pytest.mark.parametrize("state", ["active", "denied", "revoked"])
def test_an_outcome_mail_names_its_actor_and_comment(state: str) -> None:
    made = mail(template=state, actor_name="Amir Approver", comment="Ticket closed")

    assert "by Amir Approver" in made.text
    assert "by Amir Approver" in seen(made.html)
    assert "Ticket closed" in made.text
    assert "Ticket closed" in seen(made.html)


def test_the_mail_about_an_open_window_states_its_end() -> None:
    made = mail(template="active", deadline_at=AT + timedelta(seconds=5400))

    assert re.search(r"Open until +Tuesday 24 November 2026, 10:30 UTC\n", made.text)
    assert "if approved now" not in made.text


def test_the_mail_about_completed_access_addresses_only_the_requester_as_you() -> None:
    assert "You completed the access" in mail(template="completed", recipient_id=ERIN).text
    assert "Erin Engineer completed the access" in mail(template="completed").text


def test_the_mail_about_a_request_without_a_case_says_that_there_is_no_case() -> None:
    assert re.search(r"Case +none given\n", mail(case_ref=None).text)


HOSTILE = "<script>alert(1)</script><img src=x>\"'&{{7*7}}"


@each("template", [*State, RECEIPT])
@each(
    "field",
    ["requester_name", "tenant", "service", "justification", "case_ref", "comment", "actor_name", "reason_code"],
)
def test_html_in_a_field_of_a_mail_is_escaped(template: str, field: str) -> None:
    made = mail(template=str(template), **{field: HOSTILE})

    assert "<script" not in made.html
    assert "<img" not in made.html
    assert "49" not in re.sub(r"[0-9a-f-]{36}|#\w+", "", made.html)


@pytest.mark.parametrize("field", ["resources", "actions"])
def test_html_in_a_list_of_a_mail_is_escaped(field: str) -> None:
    made = mail(**{field: [HOSTILE, "mailbox:b"]})

    assert "<script" not in made.html
    assert "&lt;script&gt;" in made.html


@each(
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
def test_a_name_in_a_mail_cannot_add_lines_control_characters_or_excessive_length(name: str) -> None:
    made = mail(requester_name=name, recipient_name=name, actor_name=name, tenant=name, template="revoked")

    for line in (made.subject, made.to_name):
        assert line.isprintable()
        assert len(line) <= 200
    assert len(made.to_name) <= 100
    assert made.subject.startswith("Revoked: access to Exchange Online at ")


def test_further_lines_of_a_mail_field_cannot_imitate_lockboxs_fields() -> None:
    forged = (
        "Fine\nAnswer by        never\r\nRequest          0\u2028Case             none\rTo decide, sign in at evil"
    )

    made = mail(justification=forged, comment=forged, case_ref=forged)

    starts = [line[:17].rstrip() for line in made.text.splitlines()]
    for ours in ("Answer by", "Request", "Case"):
        assert starts.count(ours) == 1
    assert sum(line.startswith("To decide") for line in made.text.splitlines()) == 1


def test_all_mails_of_a_request_belong_to_one_thread_and_a_resent_mail_keeps_its_message_id() -> None:
    first, again, other = mail(), mail(now=AT + timedelta(hours=1)), mail(notification_id=UUID(int=100))

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
def test_a_duration_in_a_mail_is_written_in_hours_and_minutes(seconds: int, words: str) -> None:
    assert mail_text.duration(seconds) == words


@pytest.mark.parametrize(
    ("changes", "subject"),
    [
        ({}, "Approval needed by 22:00 CET: Erin Engineer requests access to Exchange Online"),
        ({"template": "reviewing"}, "Review needed by 22:00 CET: Erin Engineer requests access to Exchange"),
        ({"template": "answer_reminder"}, "Reminder, approval needed by 22:00 CET: Erin Engineer requests access to"),
        ({"template": "review_reminder"}, "Reminder, review needed by 22:00 CET: Erin Engineer requests access to"),
        ({"template": "unreached"}, "No approver could be reached, answer needed by 22:00 CET: Erin Engineer"),
        ({"template": COPIED}, "Copy, answer due by 22:00 CET: Erin Engineer requests access to Exchange Online at"),
        ({"template": "active"}, "Access to Exchange Online at Contoso is open until 22:00 CET"),
        ({"template": "closing"}, "Ends at 22:00 CET: access to Exchange Online at Contoso"),
        ({"template": "question"}, "Question: access to Exchange Online at Contoso, answer by 22:00 CET"),
        (
            {"template": "question", "to_state": "active"},
            "Question: access to Exchange Online at Contoso, open until 22:00 CET",
        ),
        ({"template": "review_question"}, "Question: access to Exchange Online at Contoso, answer by 22:00 CET"),
        ({"deadline_at": AT + timedelta(hours=23, seconds=59)}, "Approval needed by Wed 25 Nov 09:00 CET: Erin Eng"),
        ({"time_zone": "Asia/Tokyo"}, "Approval needed by Wed 25 Nov 06:00 JST: Erin Engineer requests access"),
    ],
)
def test_a_mail_subject_states_the_deadline_rounded_down_and_in_the_readers_time_zone(
    changes: dict[str, Any], subject: str
) -> None:
    assert mail(**{"time_zone": BERLIN} | changes).subject.startswith(subject)


BERLIN = "Europe/Berlin"
DENIED = EarlierRequest(UUID(int=7), "Eve Engineer", "denied", AT - timedelta(days=1), "Amir Approver")


def test_times_in_a_mail_are_given_in_the_readers_zone_and_utc() -> None:
    made = mail(time_zone=BERLIN)

    for body in (made.text, seen(made.html)):
        assert "Tuesday 24 November 2026, 22:00 CET (21:00 UTC)" in body


@each("link", [True, False])
@each("state", [*State, RECEIPT])
def test_every_request_mail_says_how_to_recognise_a_mail_of_lockbox(state: str, *, link: bool) -> None:
    made = mail(template=str(state), wording=MailWording(link=link))

    for body in (" ".join(made.text.split()), seen(made.html)):
        assert "sender ends in @vendor.example and its Message-ID in @lockbox.vendor.example" in body.replace(
            " .", "."
        )
        assert "open the portal yourself" in body
    assert made.message_id.endswith("@lockbox.vendor.example>")


def test_a_prompt_mail_says_what_an_approval_opens_and_what_happens_without_an_answer() -> None:
    made = mail()

    for body in (" ".join(made.text.split()), seen(made.html)):
        assert "If nobody answers by then, the request times out and access is refused" in body
        assert (
            "Approving opens exactly this access: the engineer may read and export these resources of "
            "Exchange Online for at most 1 h 30 min."
        ) in body


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        (Mode.ENFORCE, "Endorsing asks the customer to open"),
        (Mode.OBSERVE, "Endorsing opens"),
        (Mode.OFF, "Endorsing opens"),
    ],
)
def test_a_managers_mail_says_whether_endorsing_opens_access_or_asks_the_customer(mode: Mode, words: str) -> None:
    made = mail(template="reviewing", mode=mode)

    for body in (" ".join(made.text.split()), seen(made.html)):
        assert f"{words} exactly this access" in body
        assert ("The customer is asked only after" in body) is (mode is Mode.ENFORCE)


def test_a_mail_about_an_answer_during_open_access_does_not_ask_for_a_decision() -> None:
    for state, way in (("pending", "To decide, sign in"), ("active", "To view it, sign in")):
        assert way in mail(template="answer", action="answer", to_state=state).text


@pytest.mark.parametrize("template", PROMPTS)
def test_a_prompt_mail_says_how_earlier_requests_ended(template: str) -> None:
    made = mail(template=template, earlier=[DENIED])

    for body in (made.text, seen(made.html)):
        said = "Eve Engineer: denied by Amir Approver, Monday 23 November 2026, 09:00 UTC"
        assert said in body.replace(" :", ":").replace(" ,", ",")
        assert str(UUID(int=7)) in body


def test_a_prompt_mail_without_earlier_requests_mentions_none() -> None:
    assert "Earlier requests" not in mail().text + mail().html


def test_a_prompt_mail_names_who_decided_an_earlier_request_but_not_who_cancelled_it() -> None:
    withdrawn = replace(DENIED, state="cancelled", actor="Eve Engineer")

    assert "Eve Engineer: cancelled by vendor, Monday" in mail(earlier=[withdrawn]).text


def test_the_name_of_an_earlier_requester_cannot_break_its_line() -> None:
    forged = replace(DENIED, requester="Eve\nAnswer by        never", actor=HOSTILE)

    made = mail(earlier=[forged])

    assert [line[:17].rstrip() for line in made.text.splitlines()].count("Answer by") == 1
    assert "<script" not in made.html


@each("part", ["text", "html"])
@each("template", [COPIED, "active", "denied", "cancelled", "expired"])
def test_an_observers_mail_is_labelled_as_a_copy_and_has_no_link_and_no_prompt_to_decide(
    template: str, part: str
) -> None:
    made = mail(template=template, is_copy=True, recipient_id=None, wording=MailWording(link=False))

    body = " ".join(made.text.split()) if part == "text" else seen(made.html)

    assert "The admins of Contoso have made you an observer: you get a copy and cannot decide" in body
    assert "mailbox:anna@contoso.example" in body
    assert not [said for said in ("your answer", "To decide", "sign in at", "/requests/") if said in body]
    assert "your answer" not in made.subject
    assert not URL.search(made.text)


def test_an_observers_copy_has_no_justification_where_the_policy_omits_it() -> None:
    kept, told = (
        mail(template=COPIED, is_copy=True, wording=MailWording(link=False, justification=said))
        for said in (False, True)
    )

    assert "does not open" not in kept.text + kept.html
    assert "does not open" in told.text


def test_a_mail_flags_a_resource_of_mixed_alphabets() -> None:
    lookalike = "mailbox:\u0430nna@contoso.example"

    written = mail(resources=[lookalike, "mailbox:bob@contoso.example"])

    warning = f"{lookalike} (mixed alphabets: Cyrillic and Latin; check each letter)"
    assert warning in " ".join(written.text.split())
    assert warning in written.html
    assert written.text.count("mixed alphabets") == 1


@pytest.mark.parametrize("template", PROMPTS)
@pytest.mark.parametrize(("uses", "said"), [(1, "1 h 30 min, at most 1 use"), (3, "1 h 30 min, at most 3 uses")])
def test_a_prompt_mail_states_the_number_of_uses(template: str, uses: int, said: str) -> None:
    made = mail(template=template, max_uses=uses)

    for body in (made.text, seen(made.html)):
        assert " ".join(body.split()).count(said) == 3
    assert "at most 3 uses" not in mail(template=template).text


def test_a_mail_says_why_access_is_held_back_and_what_to_do() -> None:
    made = mail(template="held_back", action="hold_back", to_state="active", held_back="engineer_inactive")

    for body in (" ".join(made.text.split()), seen(made.html)):
        assert (
            "Access is held back: nobody is let in, because Erin Engineer is no longer an active engineer of the "
            "vendor. Access opens if Erin Engineer becomes an active engineer again in time."
        ) in body
    assert made.subject == "Held back: access to Exchange Online at Contoso is not open"


def test_each_reason_for_held_back_access_has_words() -> None:
    assert set(HeldBack) == request_wording.HELD_BACK_REASONS.keys() == request_wording.HELD_BACK_REMEDIES.keys()


RECEIPT_OF_A_VOTE = {
    "template": RECEIPT,
    "action": "approve",
    "to_state": "pending",
    "actor_id": ANN,
    "actor_name": "Ann Approver",
    "actor_role": "approver",
    "address": "203.0.113.7",
    "user_agent": "Firefox 150",
}


def test_a_receipt_says_who_decided_from_where_and_what_to_do_if_it_was_not_you() -> None:
    made = mail(**RECEIPT_OF_A_VOTE)

    assert made.subject == "Receipt: Ann Approver approved access to Exchange Online at Contoso"
    for body in (" ".join(made.text.split()), seen(made.html)):
        assert "You approved this request" in body
        for fact in (
            "203.0.113.7",
            "Firefox 150",
            str(NUMBER),
            "Not you? Deny the request on its page",
            "Tuesday 24",
        ):
            assert fact in body
    assert set(URL.findall(made.text)) == {PAGE, "https://lockbox.vendor.example/account"}
    assert set(re.findall(r'href="([^"]*)"', made.html)) == {PAGE, "https://lockbox.vendor.example/account"}


def test_the_receipt_for_an_admin_omits_the_session() -> None:
    made = mail(**RECEIPT_OF_A_VOTE | {"recipient_id": UUID(int=3), "to_state": "active", "action": "approve"})

    for body in (" ".join(made.text.split()), seen(made.html)):
        assert "Ann Approver approved this request (approver)" in body
        assert "Unexpected? Revoke the access on the request's page" in body
        assert "session" not in body


def test_a_receipt_without_the_deciders_address_and_browser_has_no_lines_for_them() -> None:
    made = mail(**RECEIPT_OF_A_VOTE | {"address": None, "user_agent": None})

    assert not re.search(r"^(From|With) ", made.text, re.MULTILINE)
    assert not re.search(r">(From|With)<", made.html)


def test_a_receipt_that_may_have_no_link_contains_no_link() -> None:
    made = mail(**RECEIPT_OF_A_VOTE, wording=MailWording(link=False))

    assert URL.findall(made.text + made.html) == []


@pytest.mark.parametrize("agent", ["Fox\r\nBcc: x", HOSTILE, "F" * 5000, "\u202eevil"])
def test_a_user_agent_in_a_receipt_is_escaped_and_stays_on_its_line(agent: str) -> None:
    made = mail(**RECEIPT_OF_A_VOTE | {"user_agent": agent})

    assert "<script" not in made.html
    assert "\u202e" not in made.text + made.html
    (line,) = [line for line in made.text.splitlines() if line.startswith("With ")]
    assert len(line) <= 300
