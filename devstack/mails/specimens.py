"""Specimens of every mail."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from devstack.mails.windows import windows
from devstack.mails.writing_styles import LONG, PLAIN, STYLES, WritingStyle
from lockbox.facts.ask import Ask
from lockbox.facts.enumerations import Mode
from lockbox.facts.fact import taken
from lockbox.facts.requester import Requester
from lockbox.facts.window import Window
from lockbox.identity.roles import Role
from lockbox.monitoring.invariants import audit_log_rolled_back
from lockbox.notifications import account_mail, request_mail
from lockbox.notifications.account_mail import (
    ADDRESS_CODE,
    CHECKPOINT,
    DELEGATE_BEGINS,
    DIGEST,
    FIRST_PASSKEY,
    INVARIANT_BROKEN,
    INVITATION,
    OUTSIDE_ACCESS,
    PRE_APPROVALS,
    SIGN_IN_CODE,
    AccountMail,
    DelegatedRequest,
)
from lockbox.notifications.audience import (
    AFTER_REVIEW,
    AFTER_REVIEW_OVERDUE,
    AFTER_REVIEW_REMINDER,
    AFTER_REVIEWS,
    BREAK_GLASS,
    CONVERSED,
    COPIED,
    OPERATED,
    QUESTION,
    RECEIPT,
    REPORT,
)
from lockbox.notifications.delivery_status import undelivered_sentence
from lockbox.notifications.earlier_requests import EarlierRequest
from lockbox.notifications.mail_text import ACCOUNT_TITLES, REQUEST_SUBJECTS
from lockbox.notifications.request_mail import MailWording, RequestMail
from lockbox.notifications.senders.protocol import OutgoingMail
from lockbox.notifications.target_failure import TargetFailure

PUBLIC_URL = "https://lockbox.vendor.example"
SENDER = "Lockbox <lockbox@vendor.example>"
SERVICES = {"exchange-online": "Exchange Online"}
AT = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
ERIN, ANN, TARA = UUID(int=1), UUID(int=2), UUID(int=3)
NUMBER = UUID("0197f3a0-a0a0-7a0a-8a0a-0a0a0a0a0a0a")
EVENT = UUID("0197f3a0-a0a0-7a0a-8a0a-0a0a0a0a0a0b")
FINGERPRINT = "1a2b3c4d 5e6f7a8b 9c0d1e2f 3a4b5c6d 7e8f9a0b 1c2d3e4f 5a6b7c8d 9e0f1a2b"
MINUTE = timedelta(minutes=1)
RECOVERY_PROPOSED, REDEFINED = "recovery_proposed", "gate_redefined"
WINDOW = 90 * MINUTE
LATER = {"answer_reminder": timedelta(hours=9), "review_reminder": timedelta(hours=9), "closing": 80 * MINUTE}
"""How long after the event a timer sends these mails."""
COPY: Mapping[str, Any] = {"is_copy": True, "recipient_id": None}
ROLLED_BACK = "1204 events of it were shipped, and 1180 are here"
OF_A_STOP = {
    "tenant_suspended": {"open windows": "2 \u2192 0", "suspended": "no \u2192 yes"},
    "emergency_stop_ended": {"break-glass": "barred \u2192 as the policy says"},
    "emergency_stop": {
        "open windows": "2 \u2192 0",
        "requests that waited for an answer": "3 \u2192 0",
        "requests in the vendor's review": "1 \u2192 0",
        "break-glass": "as the policy says \u2192 barred",
    },
}
NAMELESS = {
    *(CHECKPOINT, DIGEST, INVARIANT_BROKEN, REDEFINED),
    *("tenant_suspended", "policy_changed", "emergency_stop_ended"),
}
ROLES = {RECOVERY_PROPOSED: "operator", FIRST_PASSKEY: "approver", REDEFINED: "clock"}
"""The role of the actor in a mail, if not an admin."""
IN_VAIN = undelivered_sentence("pending", 3)
SIGNED = {
    "events": "1204",
    "checkpoint": "lockbox.example/audit/0197f3a0\n1204\nQmFzZTY0IG9mIHRoaXJ0eS10d28gYnl0ZXMgLi4uLg==\n"
    "time 2026-11-25T10:00:00Z\n\n\N{EM DASH} lockbox.example c2lnbmF0dXJlIG9mIGVpZ2h0eSBieXRlcyBvciBzbw==\n",
    "key": "lockbox.example+1a2b3c4d+AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=",
    "fingerprint": FINGERPRINT,
    "approval_keys": "lockbox/approvals+5e6f7a8b+AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=",
}
TAKEN = {"service": "exchange-online", "from": (AT - 90 * MINUTE).isoformat(), "until": AT.isoformat()}
ALIKE = {
    CHECKPOINT: SIGNED,
    DIGEST: SIGNED,
    OUTSIDE_ACCESS: TAKEN,
    RECOVERY_PROPOSED: {"roles": "none \u2192 tenant_admin"},
    FIRST_PASSKEY: {"approves": "after 24 h"},
    "mode_switched": {"mode": "enforce \u2192 observe"},
    REDEFINED: {
        "paths at the gate of exchange-online": "GET /{org}/mailboxes/{address} is read of mailbox:{address} \u2192 "
        "GET /{org}/mailboxes/{} is read of mailbox:anna@contoso.example",
    },
    "pre_approval_proposed": {
        "service": "none \u2192 exchange-online",
        "actions": "none \u2192 read",
        "reason": "none \u2192 support case",
        "access window": "none \u2192 30 min",
        "uses": "none \u2192 5",
        "ends": f"none \u2192 {(AT + timedelta(days=7)).isoformat()}",
    },
    "pre_approval_approved": {"pre-approval": "pending \u2192 in_force"},
    "pre_approval_revoked": {"pre-approval": "open \u2192 revoked", "open windows": "1 \u2192 0"},
    "pre_approval_used_up": {"pre-approval": "open \u2192 used up"},
    "pre_approval_ended": {"pre-approval": "open \u2192 ended"},
}
"""The changes in a mail, by template, that do not depend on the actor."""


@dataclass(frozen=True)
class Specimen:
    name: str
    mail: OutgoingMail


def specimens() -> Iterator[Specimen]:
    for style in STYLES:
        for name, mail in _request_mails(style):
            for wording, tail in ((MailWording(), ""), (MailWording(link=False, justification=False), "-no-link")):
                said = replace(wording, link=wording.link and not mail.is_copy, steps=mail.wording.steps)
                yield Specimen(f"{name}-{style.name}{tail}", _mail(replace(mail, wording=said)))
        for template in ACCOUNT_TITLES:
            rendered = account_mail.render(
                _account_mail(template, style), public_url=PUBLIC_URL, services=SERVICES, sender=SENDER
            )
            yield Specimen(f"{template}-{style.name}", rendered)
        for name, waiting in (("-no-link", _waiting(style, link=False)), ("", ())):
            alone = replace(_account_mail(DELEGATE_BEGINS, style), waiting=waiting)
            kind = DELEGATE_BEGINS if waiting else f"{DELEGATE_BEGINS}-idle"
            rendered = account_mail.render(alone, public_url=PUBLIC_URL, services=SERVICES, sender=SENDER)
            yield Specimen(f"{kind}-{style.name}{name}", rendered)


def _request_mails(style: WritingStyle) -> Iterator[tuple[str, RequestMail]]:
    of_targets = {*OPERATED, *OPERATED.values()}
    for template in REQUEST_SUBJECTS.keys() - {
        RECEIPT,
        REPORT,
        COPIED,
        "unreached",
        "held_back",
        *CONVERSED.values(),
        *of_targets,
        BREAK_GLASS,
        *AFTER_REVIEWS,
    }:
        yield template, _request_mail(style, template=template, to_state=template)
    for (said, state), template in CONVERSED.items():
        name = f"{template}-while-open" if state == "active" else template
        reader = ERIN if said == QUESTION else ANN
        yield name, _request_mail(style, template=template, action=said, to_state=state, recipient_id=reader)
    for template in of_targets:
        told = TargetFailure(str(EVENT), "orders-contoso", "too_slow" if template.endswith("failed") else None)
        state = "active" if "open" in template else "revoked"
        mail = _request_mail(style, template=template, to_state=state, connection=told, comment=None, actor_name=None)
        yield template, mail
        if template.startswith("connection_open"):
            yield f"{template}-to-the-engineer", replace(mail, recipient_id=ERIN)
    yield COPIED, _request_mail(style, template=COPIED, to_state="pending", **COPY)
    for copy in ("active", "denied", "expired"):
        yield f"{copy}-copy", _request_mail(style, template=copy, to_state=copy, **COPY)
    yield "unreached", _request_mail(style, template="unreached", to_state="pending", in_vain=IN_VAIN, comment=None)
    for name, reader in (("the-customer", ANN), ("who-asked", ERIN)):
        untold = _request_mail(
            style, template="timed_out", to_state="timed_out", in_vain=IN_VAIN, recipient_id=reader
        )
        yield f"nobody-notified-{name}", replace(untold, comment=None)
    yield "reviewing-observe", _request_mail(style, template="reviewing", to_state="reviewing", mode=Mode.OBSERVE)
    yield "pending-first", _request_mail(style, template="pending", to_state="pending", earlier=())
    later = {"not_before": AT + timedelta(days=2), "opens_at": AT + timedelta(days=2)}
    ends = {"deadline_at": later["opens_at"] + WINDOW}
    yield "active-later", _request_mail(style, template="active", to_state="active", **later, **ends)
    for name, why in (("held_back", "stricter_policy"), ("held_back-engineer", "engineer_inactive")):
        held: dict[str, Any] = {"action": "hold_back", "at": later["opens_at"], "held_back": why, "comment": None}
        yield name, _request_mail(style, template="held_back", to_state="active", **later, **ends, **held)
    yield (
        "pending-later",
        _request_mail(style, template="pending", to_state="pending", not_before=later["not_before"]),
    )
    further = {"not_before": AT + timedelta(hours=12), "extends": UUID(int=NUMBER.int - 1)}
    yield "pending-extension", _request_mail(style, template="pending", to_state="pending", earlier=(), **further)
    yield from _narrow_mails(style)
    yield from _break_glass_mails(style)
    for name, closed in windows(
        style.requester, style.actor, style.words, style.resources, style.comments.get(REPORT, style.words[:30])
    ):
        now = AT + MINUTE * (90 if name == "report-erased" else 1)
        yield name, _request_mail(style, template=REPORT, to_state="expired", now=now, comment=None, closed=closed)
    for name, facts in _receipts().items():
        receipt: dict[str, Any] = {"template": RECEIPT, "actor_id": ANN, "address": "2001:db8::7", **facts}
        yield f"receipt-{name}", _request_mail(style, user_agent=style.user_agent, **receipt)


def _narrow_mails(style: WritingStyle) -> Iterator[tuple[str, RequestMail]]:
    asked: dict[str, Any] = {
        "actions": ["export"],
        "level": "export",
        "context": {"environment": "production", "rows": 5000},
        "severity": "S1",
        "earlier": (),
        "wording": MailWording(steps=(((1, "security"),), ((2, "legal"),))),
    }
    yield "pending-steps", _request_mail(style, template="pending", to_state="pending", **asked)
    opened: dict[str, Any] = {
        "action": "submit",
        "actor_id": ERIN,
        "actor_name": style.requester,
        "actor_role": "engineer",
    }
    opened |= {"is_pre_approved": True, "comment": None}
    yield "active-pre-approved", _request_mail(style, template="active", to_state="active", **opened)


def _break_glass_mails(style: WritingStyle) -> Iterator[tuple[str, RequestMail]]:
    glass: dict[str, Any] = {"break_glass": True, "finding_due": AT + timedelta(days=1), "actions": ["read"]}
    glass |= {"access_window": 1800, "deadline_at": AT + 30 * MINUTE, "earlier": ()}
    opener = {"action": BREAK_GLASS, "actor_name": style.manager or style.actor, "actor_role": "manager"}
    opened = _request_mail(style, template=BREAK_GLASS, to_state="active", **glass, **opener)
    yield BREAK_GLASS, opened
    yield f"{BREAK_GLASS}-to-the-engineer", replace(opened, recipient_id=ERIN)
    yield f"{BREAK_GLASS}-copy", replace(opened, **COPY)
    yield f"{BREAK_GLASS}-overdue", replace(opened, overdue_findings=1)
    clock = {"actor_id": None, "actor_name": None, "actor_role": "clock", "comment": None}
    for template in (AFTER_REVIEW_REMINDER, AFTER_REVIEW_OVERDUE):
        now = AT + timedelta(hours=25 if template == AFTER_REVIEW_OVERDUE else 12)
        facts = {"action": template, "now": now, **glass, **clock}
        yield template, _request_mail(style, template=template, to_state="expired", **facts)
    for name, finding in ((AFTER_REVIEW, "not_justified"), (f"{AFTER_REVIEW}-justified", "justified")):
        facts = {"action": AFTER_REVIEW, "finding": finding, **glass}
        yield name, _request_mail(style, template=AFTER_REVIEW, to_state="expired", **facts)


def _receipts() -> Mapping[str, Mapping[str, Any]]:
    approved = {"action": "approve", "actor_role": "approver"}
    return {
        "of-a-vote": {**approved, "to_state": "pending"},
        "of-an-approval": {**approved, "to_state": "active"},
        "of-a-denial": {"action": "deny", "actor_role": "approver", "to_state": "denied"},
        "of-an-endorsement": {"action": "endorse", "actor_role": "manager", "to_state": "pending"},
        "for-an-admin": {**approved, "to_state": "active", "recipient_id": TARA},
    }


def _request_mail(style: WritingStyle, **facts: Any) -> RequestMail:  # noqa: ANN401 - any value
    template, is_open = facts["template"], facts.get("to_state") in {"active", "closing"}
    comment = None if template in {"reviewing", "pending", COPIED} else style.comments.get(template, style.words)
    usual: dict[str, Any] = {
        "notification_id": UUID(int=99),
        "until_at": AT + timedelta(hours=12),
        "now": AT + LATER.get(template, timedelta(seconds=30)),
        "event_id": UUID(int=6),
        "at": AT,
        "deadline_at": AT + (WINDOW if is_open else timedelta(hours=12)),
        "action": "approve",
        "actor_id": UUID(int=4),
        "actor_name": style.actor,
        "actor_role": "approver",
        "comment": comment,
        "event_type": "request.approved",
        "request_id": NUMBER,
        "tenant": style.tenant,
        "slug": "contoso",
        "tenant_id": UUID(int=5),
        "mode": Mode.ENFORCE,
        "requester_name": style.requester,
        "requester_id": ERIN,
        "service": "exchange-online",
        "resources": list(style.resources),
        "actions": ["read", "export"],
        "reason_code": "support_case",
        "justification": style.words,
        "case_ref": style.case_ref,
        "access_window": int(WINDOW.total_seconds()),
        "submitted_at": AT,
        "severity": "S2",
        "employing_entity": style.tenant,
        "office_country": "DE",
        "physical_country": "PL",
        "directory_as_of": AT - timedelta(hours=3),
        "sign_in": "session",
        "sign_in_means": "passkey",
        "signed_in_at": AT - timedelta(minutes=7),
        "recipient_id": ANN,
        "recipient_name": style.reader,
        "recipient_address": "ann@contoso.example",
        "wording": MailWording(),
        "time_zone": style.zone,
        "earlier": _earlier(style),
    }
    values = usual | facts
    parts = taken(Ask, values), taken(Requester, values), taken(Window, values)
    return RequestMail(**values, ask=parts[0], requester=parts[1], window=parts[2])


def _earlier(style: WritingStyle) -> tuple[EarlierRequest, ...]:
    states = ("denied", "timed_out", "nobody_notified", "expired", "active")
    return tuple(
        EarlierRequest(UUID(int=NUMBER.int - days), style.requester, state, AT - timedelta(days=days), style.actor)
        for days, state in enumerate(states, start=1)
    )


def _waiting(style: WritingStyle, *, link: bool) -> tuple[DelegatedRequest, ...]:
    return tuple(
        DelegatedRequest(
            UUID(int=NUMBER.int + hours), style.requester, "exchange-online", AT + 60 * hours * MINUTE, may
        )
        for hours, may in ((2, link), (5, link), (26, False))
    )


def _account_mail(template: str, style: WritingStyle) -> AccountMail:
    long_code = "ABCD-EFGH-IJKL-MNOP-QRST-UVWX-YZ23-4567"
    secrets = {INVITATION: long_code, ADDRESS_CODE: long_code, SIGN_IN_CODE: "1234 5678"}
    tells = template not in {*secrets, DELEGATE_BEGINS}
    named = _named(template, style) if tells else {}
    return AccountMail(
        notification_id=UUID(int=98),
        template=template,
        at=AT,
        until=AT + (timedelta(days=3) if template == RECOVERY_PROPOSED else 15 * MINUTE),
        tenant=None if template in {SIGN_IN_CODE, ADDRESS_CODE} else style.tenant,
        slug=None if template in {SIGN_IN_CODE, ADDRESS_CODE} else "contoso",
        tenant_id=UUID(int=5),
        event_id=EVENT,
        about_id=UUID(int=97),
        actor=style.actor,
        actor_id=TARA,
        role=ROLES.get(template, "tenant_admin"),
        changes=_changes(template, style) if tells else {},
        named={"principal": style.actor} if template == DELEGATE_BEGINS else named,
        recipient_name=style.reader,
        recipient_address="ann@contoso.example",
        time_zone=style.zone,
        secret=secrets.get(template),
        fingerprint=FINGERPRINT if template == INVITATION else None,
        roles=(Role.APPROVER,) if template == INVITATION else (),
        waiting=_waiting(style, link=True) if template == DELEGATE_BEGINS else (),
    )


def _changes(template: str, style: WritingStyle) -> dict[str, str]:
    if template.startswith("address_"):
        return {"prompts": "sent \u2192 not sent"} if template == "address_changed" else {}
    if template in ALIKE:
        return ALIKE[template]
    if template.startswith("observer_"):
        return {"copied on": "none \u2192 all services"}
    if template in OF_A_STOP:
        return OF_A_STOP[template]
    if template == INVARIANT_BROKEN:
        return {
            str(NUMBER): "I1 at contoso: it is open without the approval that it needs",
            str(UUID(int=0)): f"audit-log-rolled-back at the vendor: {audit_log_rolled_back(1, ROLLED_BACK)}",
        }
    return {"quorum": "1 \u2192 2", "rules.0.name": f'none \u2192 "{style.words}"'}


def _named(template: str, style: WritingStyle) -> dict[str, str]:
    if template in NAMELESS:
        return {}
    if template == "emergency_stop" or template.startswith(PRE_APPROVALS):
        pattern = "mailbox:*@contoso.example" if style is PLAIN else style.resources[0]
        return {"comment": style.words} | ({"resource": pattern} if template.startswith(PRE_APPROVALS) else {})
    if template == OUTSIDE_ACCESS:
        return {"engineer": style.requester, "resource": ", ".join(style.resources), "justification": style.words}
    if template.startswith("address_"):
        return {"mailbox": f"{'a' * 240}@contoso.example" if style is LONG else "desk@contoso.example"}
    if template.startswith("observer_"):
        return {"observer": f"{style.requester} <desk@contoso.example>"}
    if template == FIRST_PASSKEY:
        further = {"address": "203.0.113.9", "user_agent": style.user_agent}
    else:
        further = {} if template == RECOVERY_PROPOSED else {"comment": style.words}
    who = f"{style.actor} <amir@" if template == FIRST_PASSKEY else f"{style.requester} <erin@"
    return {"member": f"{who}contoso.example>", **further}


def _mail(mail: RequestMail) -> OutgoingMail:
    return request_mail.render(mail, public_url=PUBLIC_URL, services=SERVICES, sender=SENDER)
