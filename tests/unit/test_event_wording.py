"""Events in plain words: each action has a sentence with the details that matter."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from lockbox.audit.canonical import canonical, commitment
from lockbox.audit.event_search import RecordedEvent
from lockbox.audit.wording import WORDS, describe
from lockbox.notifications.account_mail import (
    ADDRESS_CODE,
    CHECKPOINT,
    DELEGATE_BEGINS,
    DIGEST,
    INVITATION,
    SIGN_IN_CODE,
)
from lockbox.notifications.audience import Reminder
from lockbox.notifications.mail_text import ACCOUNT_TITLES
from lockbox.requests.lifecycle import Action
from tests.each import each

SALT = bytes(16)
NO_EVENTS = {ADDRESS_CODE, CHECKPOINT, DELEGATE_BEGINS, DIGEST, INVITATION, SIGN_IN_CODE}


def event(action: str, personal: dict[str, str] | None = None, actor: bool = True, **facts: Any) -> RecordedEvent:  # noqa: FBT001, FBT002 - whether somebody did it
    held = personal or {}
    body = canonical({"personal": {name: commitment(SALT, value) for name, value in held.items()}} | facts)
    return RecordedEvent(
        id=UUID(int=1),
        number=None,
        tenant_id=None,
        request_id=None,
        at=datetime(2026, 1, 1, tzinfo=UTC),
        action=action,
        actor_id=UUID(int=2) if actor else None,
        actor_role="tenant_admin" if actor else "clock",
        from_state=None,
        to_state=None,
        body=body,
        details={name: ("AAAAAAAAAAAAAAAAAAAAAA==", value) for name, value in held.items()},
    )


@each("action", [*Action, *Reminder, *sorted(ACCOUNT_TITLES.keys() - NO_EVENTS)])
def test_every_event_action_has_a_sentence(action: str) -> None:
    assert action in WORDS


def test_the_sentence_of_a_policy_diff_names_actor_action_and_object() -> None:
    said = describe(
        event(
            "member_changed",
            {"name": "Tara", "member": "Abe <abe@contoso.example>"},
            changes={"roles": "approver → auditor"},
        )
    )

    assert (said.who, said.role, said.deed) == ("Tara", "tenant admin", "changed the roles of a member")
    assert said.about == (("Who", "Abe <abe@contoso.example>"), ("roles", "approver → auditor"))


def test_event_sentences_have_a_phrase_for_an_erased_actor_and_for_the_timer() -> None:
    assert describe(event("approve")).who == "Somebody whose name was erased"
    assert describe(event("time_out", actor=False)).who == "The lockbox"


@pytest.mark.parametrize(
    ("facts", "deed"),
    [
        ({"count": 1, "channel": "mail"}, "sent 1 mail"),
        ({"count": 3, "channel": "mail"}, "sent 3 mails"),
        ({"count": 2, "channel": "webhook"}, "sent 2 calls of webhooks"),
        ({"count": 2}, "sent 2 notifications"),
        ({}, "sent notifications"),
    ],
)
def test_notifications_are_counted_in_event_sentences(facts: dict[str, Any], deed: str) -> None:
    assert describe(event("notifications_sent", actor=False, **facts)).deed == deed


def test_notified_people_in_an_event_sentence_are_counted_and_named_where_known() -> None:
    mails = {"1": ["id-1", "mail", "dead", "at"], "2": ["id-2", "mail", "sent", "at"], "3": ["id-3", "mail", "sent"]}
    said = {"sent": 7, "dead": 1, "moot": 0, "open": 0, "mails": mails}
    told = describe(
        event(
            "notified", {"recipient_1": "Abe <a@b.example>", "recipient_2": "Ann <c@d.example>"}, actor=False, **said
        )
    )

    assert told.deed == "notified people: not delivered to 1 person; mailed to 7 people"
    assert told.about == (("Mails", "not delivered to Abe; mailed to Ann and 6 others"),)


@pytest.mark.parametrize("mails", [None, 7, {"1": "x"}, {"1": []}, {"1": [1, 2, 3]}])
def test_an_event_with_a_malformed_mail_list_states_only_how_many_people_were_mailed(mails: object) -> None:
    told = describe(event("notified", {"recipient_1": "Abe <a@b.example>"}, actor=False, sent=2, mails=mails))

    assert told.about == (("Mails", "mailed to 2 people"),)


def test_an_unknown_event_action_is_shown_by_its_name() -> None:
    assert describe(event("something_new")).deed == "something new"


def test_an_event_of_outside_access_is_worded_with_who_when_where_and_why() -> None:
    said = describe(
        event(
            "outside_access",
            {
                "name": "Olga",
                "engineer_1": "Erin",
                "engineer_2": "Eve",
                "resource": "mailbox:anna",
                "justification": "Postgres failed over.",
            },
            service="exchange-online",
            began_at="2026-11-24T09:00:00.000000Z",
            ended_at="2026-11-24T10:30:00.000000Z",
        )
    )

    assert (said.who, said.deed) == ("Olga", "declared access that was taken around Lockbox")
    assert said.about == (
        ("Engineer", "Erin"),
        ("Engineer", "Eve"),
        ("Justification", "Postgres failed over."),
        ("Resource", "mailbox:anna"),
        ("Service", "exchange-online"),
        ("From", "2026-11-24 09:00:00Z"),
        ("Until", "2026-11-24 10:30:00Z"),
    )


def test_a_malformed_time_in_an_event_is_shown_unchanged() -> None:
    assert ("First", "not a time") in describe(event("activity", first_at="not a time")).about


def test_an_event_of_unapproved_access_is_worded_with_numbers_and_services() -> None:
    facts: dict[str, Any] = {
        "month": "2026-12",
        "mode": "enforce",
        "consent_until": None,
        "gates": [],
        "pre_approvals": 2,
    }
    opened = {"break_glass": 1, "pre_approval": 3, "mode": 0}

    said = describe(
        event("unapproved_access_stated", actor=False, **facts, break_glass=["mail", "drive"], opened=opened)
    )

    assert said.deed == "stated what can open without the customer's approval"
    assert said.about == (
        *(
            ("Month", "2026-12"),
            ("Mode", "enforce"),
            ("Pre-approvals in force", "2"),
            ("Break-glass for", "mail, drive"),
        ),
        ("Opened in 90 days", "1 by break glass, 3 by pre approval"),
    )
