"""Mails unrelated to requests: changes at a tenant, invitations, sign-in codes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from types import MappingProxyType
from urllib.parse import urlsplit
from uuid import UUID

from lockbox.audit.report import ENGINEER
from lockbox.identity.roles import Role
from lockbox.identity.time_zones import DEFAULT, clock_time, deadline
from lockbox.notifications import mail_text, policy_wording
from lockbox.notifications.mail_text import (
    ACCOUNT_LABELS,
    ACCOUNT_SUBJECTS,
    ACCOUNT_TITLES,
    FROM_WHERE,
    ROLE_WORDINGS,
    VENDOR_TITLES,
    roles_in_words,
)
from lockbox.notifications.request_mail import LONGEST_SUBJECT, TEMPLATES, portal_address, sender_domain
from lockbox.notifications.senders.protocol import OutgoingMail
from lockbox.text_rules import LONGEST_NAME, one_line, prose

INVITATION = "invitation"
SIGN_IN_CODE = "sign_in_code"
DELEGATE_BEGINS = "delegate_begins"
ADDRESS_CODE = "address_code"
CHECKPOINT = "checkpoint"
CHECKPOINT_TYPE = "audit.checkpoint"
DIGEST = "audit_digest"
NOBODY_NOTIFIED = "nobody_notified"
REVIEW_UNREACHED = "review_unreached"
INVARIANT_BROKEN = "invariant_broken"
INVARIANT_TYPE = f"operate.{INVARIANT_BROKEN}"
OUTSIDE_ACCESS = "outside_access"
POLICY_CHANGED = "policy_changed"
FIRST_PASSKEY = "first_passkey_added"
PRE_APPROVAL_PROPOSED = "pre_approval_proposed"
PRE_APPROVALS = "pre_approval_"
"""The beginning of the names of templates about pre-approvals."""
PATHS = {
    ADDRESS_CODE: "/account",
    "recovery_proposed": "/proposals",
    FIRST_PASSKEY: "/tenants/{slug}/members/{actor_id}",
    PRE_APPROVAL_PROPOSED: "/tenants/{slug}/pre-approvals",
    DIGEST: "/audit-log/checkpoint",
    **dict.fromkeys((NOBODY_NOTIFIED, REVIEW_UNREACHED, INVARIANT_BROKEN), "/operations"),
}
"""The paths of links in mails, except links to the usual page that asks to sign in."""
CHANGES_WHAT_OPENS = frozenset(
    {
        *(POLICY_CHANGED, "mode_switched", "consent_ended", "pre_approval_approved", "delegate_named"),
        *("gate_report_began", "gate_report_allowed"),
    }
)
"""Changes after which access may open without the tenant's approval; their mails link to a page about such access."""
UNAPPROVED_ACCESS = "/tenants/{slug}/unapproved-access"
PERSONAL = frozenset(
    {
        *(DELEGATE_BEGINS, INVITATION, SIGN_IN_CODE, ADDRESS_CODE),
        *("address_added", "address_confirmed", "address_changed", "address_removed"),
        *("gate_identity_added", "gate_identity_removed"),
        *("person_disabled", NOBODY_NOTIFIED, REVIEW_UNREACHED, INVARIANT_BROKEN, CHECKPOINT, DIGEST),
    }
)
"""Notifications that only people get, or that endpoints get under a type of their own."""
UNLABELLED = frozenset({DIGEST, NOBODY_NOTIFIED, REVIEW_UNREACHED, INVARIANT_BROKEN})
"""The mails whose templates place each fact themselves, or list requests or alarms."""
OWN_TYPES = {CHECKPOINT: CHECKPOINT_TYPE, INVARIANT_BROKEN: INVARIANT_TYPE}
SERVICE, FROM, UNTIL, ROLES = "service", "from", "until", "roles"
TIMES = frozenset({FROM, UNTIL, "ends"})
LONGEST_REASON = 2000


@dataclass(frozen=True)
class DelegatedRequest:
    """`link` is whether the request's policy allows a link in mails."""

    request_id: UUID
    requester: str
    service: str
    deadline_at: datetime
    link: bool


@dataclass(frozen=True)
class AccountMail:
    """`named` has the names and texts that the mail is about, by their keys in ACCOUNT_LABELS and FROM_WHERE.

    `fingerprint` identifies the key that signs the audit log. `secret` is the code of an invitation or a sign-in; it
    is made only for this mail and stored nowhere.
    """

    notification_id: UUID
    template: str
    at: datetime
    until: datetime | None
    tenant: str | None
    slug: str | None
    tenant_id: UUID | None
    event_id: UUID | None
    about_id: UUID | None
    actor: str | None
    role: str
    changes: Mapping[str, str]
    named: Mapping[str, str]
    recipient_name: str
    recipient_address: str
    time_zone: str
    actor_id: UUID | None = None
    secret: str | None = None
    fingerprint: str | None = None
    roles: Sequence[Role] = ()
    waiting: Sequence[DelegatedRequest] = ()


def facts_of(body: bytes | None) -> tuple[str, dict[str, str]]:
    """Return the actor's role and the diff from an event's canonical bytes."""
    if body is None:
        return "", {}
    facts = json.loads(body)
    changes = facts.get("changes") or {}
    if facts.get("action") == OUTSIDE_ACCESS:
        changes = {"service": facts["service"], FROM: facts["began_at"], UNTIL: facts["ended_at"]}
    return str(facts["actor_role"]), {str(name): str(value) for name, value in changes.items()}


def named_in(body: bytes | None, details: Mapping[str, str]) -> dict[str, str]:
    facts = json.loads(body) if body is not None else {}
    labels = ACCOUNT_LABELS | (FROM_WHERE if facts.get("action") == FIRST_PASSKEY else {})
    named = {label: details[label] for label in labels if label in details}
    if engineers := [value for name, value in sorted(details.items()) if name.startswith(ENGINEER)]:
        named["engineer"] = ", ".join(engineers)
    if facts.get("reason_in_mails") is False:
        named.pop("justification", None)
    return named


def worded_changes(
    mail: AccountMail, zone: str = DEFAULT, services: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
    if mail.template == POLICY_CHANGED:
        found = policy_wording.lines(mail.changes, {})
        return {one.title: f"{one.was}{policy_wording.ARROW}{one.now}" for one in found}
    if mail.template in UNLABELLED:
        return dict(mail.changes)
    return {_label(name): _worded(mail.template, name, one, zone, services) for name, one in mail.changes.items()}


def _label(name: str) -> str:
    return mail_text.PRE_APPROVAL_LABELS.get(name) or f"{name[:1].upper()}{name[1:]}".replace("_", " ")


def _worded(template: str, name: str, said: str, zone: str, services: Mapping[str, str]) -> str:
    if template != OUTSIDE_ACCESS and not template.startswith(PRE_APPROVALS):
        return said.replace("_", " ") if name == ROLES else said
    said = said.removeprefix(f"{policy_wording.ABSENT}{policy_wording.ARROW}")
    if name in TIMES:
        return clock_time(datetime.fromisoformat(said), zone)
    return services.get(said, said) if name == SERVICE else said.replace("_", " ")


def render(mail: AccountMail, *, public_url: str, services: Mapping[str, str], sender: str) -> OutgoingMail:
    """Return the mail.

    A code in the mail works only on the invitation's page, in the browser that requested the sign-in, or for the
    person who added the address.
    """
    title, subject = _title(mail, ACCOUNT_TITLES), _title(mail, ACCOUNT_TITLES | ACCOUNT_SUBJECTS)
    domain = urlsplit(public_url).hostname
    said = {
        "mail": mail,
        "sender_domain": sender_domain(sender),
        "message_domain": domain,
        "subject": subject,
        "title": title,
        "explanation": mail_text.EXPLANATIONS.get(mail.template),
        "tenant": one_line(mail.tenant) if mail.tenant else None,
        "actor": one_line(mail.actor) if mail.actor else None,
        "roles": roles_in_words(mail.roles),
        "duties": [wording.duty for role, wording in ROLE_WORDINGS.items() if role in mail.roles],
        "named": _declared(mail, services) if mail.template == OUTSIDE_ACCESS else _named(mail),
        "changes": {} if mail.template == OUTSIDE_ACCESS else _changes(mail, services),
        "principal": one_line(mail.named.get("principal", mail_text.AN_APPROVER)),
        "waiting": [_said_of(one, services, mail.time_zone, public_url) for one in mail.waiting],
        "link": _link(mail, public_url),
        "unapproved": _unapproved(mail, public_url),
        "time": partial(clock_time, zone=mail.time_zone),
    }
    file = INVITATION if mail.template == INVITATION else "account_mail"
    return OutgoingMail(
        message_id=f"<{mail.notification_id}@{domain}>",
        thread_id=f"<{mail.event_id or mail.about_id or mail.notification_id}@{domain}>",
        list_id=f"<{mail.slug}.changes.{domain}>" if mail.slug else f"<account.{domain}>",
        to_name=one_line(mail.recipient_name),
        to_address=mail.recipient_address,
        subject=subject[:LONGEST_SUBJECT],
        text=TEMPLATES.get_template(f"{file}.txt").render(said),
        html=TEMPLATES.get_template(f"{file}.html").render(said),
    )


def _named(mail: AccountMail, longest: int = LONGEST_NAME) -> list[tuple[str, str]]:
    labels = ACCOUNT_LABELS | FROM_WHERE
    return [(label, one_line(mail.named[one], longest)) for one, label in labels.items() if one in mail.named]


def _changes(mail: AccountMail, services: Mapping[str, str]) -> dict[str, str]:
    return {one_line(name): prose(one) for name, one in worded_changes(mail, mail.time_zone, services).items()}


def _declared(mail: AccountMail, services: Mapping[str, str]) -> list[tuple[str, str]]:
    known = dict(_named(mail, LONGEST_REASON)) | _changes(mail, services)
    return [(label, known[label]) for label in mail_text.DECLARED if label in known]


def type_of(template: str) -> str:
    return OWN_TYPES.get(template, f"tenant.{template}")


def _title(mail: AccountMail, titles: Mapping[str, str]) -> str:
    if mail.tenant is None and mail.template in VENDOR_TITLES:
        return VENDOR_TITLES[mail.template]
    by = deadline(mail.until, mail.at, mail.time_zone) if mail.until else ""
    words = {"tenant": one_line(mail.tenant or mail_text.VENDOR), "by": by, "roles": roles_in_words(mail.roles)}
    return titles[mail.template].format(**words, actor=one_line(mail.actor or mail_text.AN_OPERATOR))


def _said_of(one: DelegatedRequest, services: Mapping[str, str], zone: str, public_url: str) -> dict[str, str | None]:
    return {
        "asks": mail_text.ASKS.format(
            requester=one_line(one.requester), service=services.get(one.service, one.service)
        ),
        "until": clock_time(one.deadline_at, zone),
        "number": str(one.request_id),
        "address": portal_address(public_url, one.request_id) if one.link else None,
    }


def _link(mail: AccountMail, public_url: str) -> str:
    base = public_url.rstrip("/")
    if mail.template == INVITATION:
        # No server receives the part after the #, so no log contains the code.
        return f"{base}/invitations/{mail.about_id}#{(mail.secret or '').replace('-', '')}"
    return f"{base}{PATHS.get(mail.template, '/sign-in').format(slug=mail.slug, actor_id=mail.actor_id)}"


def _unapproved(mail: AccountMail, public_url: str) -> str | None:
    if mail.slug is None or mail.tenant is None or mail.template not in CHANGES_WHAT_OPENS:
        return None
    return public_url.rstrip("/") + UNAPPROVED_ACCESS.format(slug=mail.slug)
