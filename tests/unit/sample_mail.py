"""Builders of sample mails, any part of which a test can change."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from lockbox.facts.ask import Ask
from lockbox.facts.enumerations import Mode
from lockbox.facts.fact import taken
from lockbox.facts.requester import Requester
from lockbox.facts.window import Window
from lockbox.notifications import request_mail
from lockbox.notifications.request_mail import MailWording, RequestMail
from lockbox.notifications.senders.protocol import OutgoingMail

PUBLIC = "https://lockbox.vendor.example/"
SENDER = "Lockbox <lockbox@vendor.example>"
SERVICES = {"exchange-online": "Exchange Online"}
NUMBER = UUID("0197f3a0-a0a0-7a0a-8a0a-0a0a0a0a0a0a")
PAGE = f"https://lockbox.vendor.example/requests/{NUMBER}"
AT = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
ERIN = UUID(int=1)
ANN = UUID(int=2)


def sample_mail(**changes: Any) -> RequestMail:
    """Return a mail that asks Ann for an answer, with changes."""
    usual: dict[str, Any] = {
        "notification_id": UUID(int=99),
        "template": "pending",
        "until_at": AT + timedelta(hours=12),
        "now": AT + timedelta(seconds=5),
        "event_id": UUID(int=98),
        "at": AT,
        "deadline_at": AT + timedelta(hours=12),
        "action": "submit",
        "to_state": "pending",
        "actor_id": ERIN,
        "actor_name": "Erin Engineer",
        "actor_role": "engineer",
        "comment": None,
        "event_type": "request.submitted",
        "request_id": NUMBER,
        "tenant": "Contoso",
        "slug": "contoso",
        "tenant_id": UUID(int=5),
        "mode": Mode.ENFORCE,
        "requester_name": "Erin Engineer",
        "requester_id": ERIN,
        "service": "exchange-online",
        "resources": ["mailbox:anna@contoso.example", "mailbox:bob@contoso.example"],
        "actions": ["read", "export"],
        "reason_code": "support_case",
        "justification": "The mailbox does not open",
        "case_ref": "CASE-4711",
        "access_window": 5400,
        "recipient_id": ANN,
        "recipient_name": "Ann Approver",
        "recipient_address": "ann@contoso.example",
        "wording": MailWording(),
        "time_zone": "UTC",
    }
    values = usual | changes
    parts = taken(Ask, values), taken(Requester, values), taken(Window, values)
    return RequestMail(**values, ask=parts[0], requester=parts[1], window=parts[2])


def mail(**changes: Any) -> OutgoingMail:
    return request_mail.render(sample_mail(**changes), public_url=PUBLIC, services=SERVICES, sender=SENDER)
