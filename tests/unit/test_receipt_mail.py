"""What a receipt says of a decision, and to whom."""

import re
from uuid import UUID

import pytest

from lockbox.notifications.audience import RECEIPT
from lockbox.notifications.request_mail import MailWording
from tests.unit.sample_mail import ANN, NUMBER, PAGE, mail
from tests.unit.test_request_mail import HOSTILE, URL, seen

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


def test_a_receipt_tells_who_decided_from_where_and_what_to_do_if_it_was_somebody_else() -> None:
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


def test_an_admin_is_told_who_decided_and_nothing_of_sessions() -> None:
    made = mail(**RECEIPT_OF_A_VOTE | {"recipient_id": UUID(int=3), "to_state": "active", "action": "approve"})

    for body in (" ".join(made.text.split()), seen(made.html)):
        assert "Ann Approver approved this request (approver)" in body
        assert "Unexpected? Revoke the access on the request's page" in body
        assert "session" not in body


def test_a_receipt_for_the_other_side_says_nothing_of_where() -> None:
    made = mail(**RECEIPT_OF_A_VOTE | {"address": None, "user_agent": None})

    assert not re.search(r"^(From|With) ", made.text, re.MULTILINE)
    assert not re.search(r">(From|With)<", made.html)


def test_a_receipt_without_link_holds_none() -> None:
    made = mail(**RECEIPT_OF_A_VOTE, wording=MailWording(link=False))

    assert URL.findall(made.text + made.html) == []


@pytest.mark.parametrize("agent", ["Fox\r\nBcc: x", HOSTILE, "F" * 5000, "\u202eevil"])
def test_a_user_agent_cannot_leave_its_line_or_be_run(agent: str) -> None:
    made = mail(**RECEIPT_OF_A_VOTE | {"user_agent": agent})

    assert "<script" not in made.html
    assert "\u202e" not in made.text + made.html
    (line,) = [line for line in made.text.splitlines() if line.startswith("With ")]
    assert len(line) <= 300
