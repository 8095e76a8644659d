"""The body of a webhook: minimal, with ids, state and both deadlines."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from lockbox.facts.enumerations import State
from lockbox.notifications import webhook
from lockbox.notifications.account_mail import AccountMail
from lockbox.notifications.models import Format
from lockbox.notifications.request_mail import RequestMail
from tests.each import each
from tests.unit.sample_mail import AT, ERIN, NUMBER, PAGE, PUBLIC, SERVICES, sample_mail

OF_WINDOW = {"pre_approval_id": str(UUID(int=8)), "opens_at": "2026-11-24T12:00:00.000000Z"}
TARGET = webhook.WebhookTarget(UUID(int=3), "https://calls.example", Format.JSON, False, b"", None, 7, UUID(int=97))
CHAT = webhook.WebhookTarget(UUID(int=3), "https://chat.example", Format.SLACK, False, b"", None)


def payload(mail: RequestMail) -> bytes:
    return webhook.request_payload(mail, TARGET, public_url=PUBLIC, services={})


@each("template", State)
def test_a_webhook_body_is_minimal(template: State) -> None:
    secret = "s3cret words " * 300
    full = sample_mail(
        template=template.value,
        to_state=template.value,
        justification=secret,
        comment=secret,
        requester_name=secret,
        actor_name=secret,
        recipient_name=secret,
        recipient_address=f"{secret}@x",
        case_ref=secret,
        resources=[secret] * 50,
    )

    body = payload(full)

    assert len(body) < 20_000
    assert b"s3cret" not in body
    assert str(ERIN).encode() not in body


def test_only_webhook_calls_to_the_vendor_contain_the_case() -> None:
    page = "https://helpdesk.vendor.example/7"
    mail = sample_mail(template="active", to_state="active", case_ref="CASE-7", case_system="helpdesk", case_url=page)
    vendors = replace(TARGET, is_vendors=True)

    told = json.loads(webhook.request_payload(mail, vendors, public_url=PUBLIC, services={}))["data"]

    assert told["case"] == {"system": "helpdesk", "ref": "CASE-7", "url": page}
    assert "case" not in json.loads(payload(mail))["data"]


def test_a_webhook_body_has_the_names_of_parameters_but_not_their_values() -> None:
    mail = sample_mail(level="admin", context={"rows": 10, "environment": "s3cret"})

    assert b"s3cret" not in payload(mail)
    told = json.loads(payload(mail))["data"]
    assert (told["level"], told["context_names"]) == ("admin", ["environment", "rows"])


@pytest.mark.parametrize(
    ("state", "is_said"), [("reviewing", set()), ("active", set(OF_WINDOW)), ("revoked", {"pre_approval_id"})]
)
def test_a_webhook_body_contains_the_pre_approval_of_a_window_only_after_the_window_opened(
    state: str, is_said: set[str]
) -> None:
    opens_at = datetime(2026, 11, 24, 12, tzinfo=UTC)
    mail = sample_mail(template=state, to_state=state, pre_approval_id=UUID(int=8), opens_at=opens_at)

    told = json.loads(payload(mail))["data"]

    assert told.keys() & set(OF_WINDOW) == is_said
    assert told.items() >= {name: OF_WINDOW[name] for name in is_said}.items()


@pytest.mark.parametrize(
    ("template", "answer_by", "open_until"),
    [
        ("reviewing", "2026-11-24T21:00:00.000000Z", None),
        ("pending", "2026-11-24T21:00:00.000000Z", None),
        ("active", None, "2026-11-24T21:00:00.000000Z"),
        ("denied", None, None),
        ("expired", None, None),
    ],
)
def test_a_webhook_body_has_ids_state_and_both_deadlines(
    template: str, answer_by: str | None, open_until: str | None
) -> None:
    body = payload(sample_mail(template=template, to_state=template))

    assert json.loads(body) == {
        "id": str(UUID(int=99)),
        "type": "request.submitted",
        "timestamp": "2026-11-24T09:00:00.000000Z",
        "event_id": str(UUID(int=98)),
        "sequence": 7,
        "previous": str(UUID(int=97)),
        "data": {
            "request_id": str(NUMBER),
            "tenant": "contoso",
            "tenant_id": str(UUID(int=5)),
            "state": template,
            "answer_by": answer_by,
            "open_until": open_until,
            "url": PAGE,
        },
    }


def test_webhook_calls_and_chat_messages_flag_a_resource_of_mixed_alphabets() -> None:
    mixed = sample_mail(resources=["mailbox:\u0430nna@contoso.example"])

    assert json.loads(payload(mixed))["data"]["mixed_alphabets"] is True
    assert "mixed_alphabets" not in json.loads(payload(sample_mail()))["data"]
    said = webhook.request_payload(mixed, CHAT, public_url=PUBLIC, services={})
    assert "mixes alphabets" in json.loads(said)["blocks"][0]["text"]["text"]


def test_a_chat_message_says_why_access_is_held_back() -> None:
    mail = sample_mail(event_type="request.held_back", to_state="active", held_back="engineer_inactive")

    message = json.loads(webhook.request_payload(mail, CHAT, public_url=PUBLIC, services={}))

    said = message["blocks"][0]["text"]["text"]
    assert "is held back." in said
    assert "nobody is let in, because the requester is no longer an active engineer of the vendor." in said
    assert "Erin" not in said
    assert "Open until" not in said


def test_a_chat_message_names_a_pre_approvals_service_by_its_title() -> None:
    mail = AccountMail(
        notification_id=UUID(int=99),
        template="pre_approval_proposed",
        at=AT,
        until=None,
        tenant="Contoso",
        slug="contoso",
        tenant_id=UUID(int=5),
        event_id=UUID(int=98),
        about_id=None,
        actor="Tara",
        role="tenant_admin",
        changes={"service": "none → exchange-online", "uses": "none → 5"},
        named={},
        recipient_name="",
        recipient_address="",
        time_zone="UTC",
    )

    proposed = replace(mail, template="recovery_proposed", changes={"roles": "none → tenant_admin"})

    said = [
        json.loads(webhook.account_payload(one, CHAT, public_url=PUBLIC, services=SERVICES))
        for one in (mail, proposed)
    ]

    assert "Service: Exchange Online" in said[0]["blocks"][0]["text"]["text"]
    assert "Roles: none → tenant admin" in said[1]["blocks"][0]["text"]["text"]
