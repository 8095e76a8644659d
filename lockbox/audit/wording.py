"""Events of the audit log in words, for pages and the CLI."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lockbox.audit.event_search import RecordedEvent
from lockbox.audit.report import ENGINEER, ERASED, PRINCIPAL, moment
from lockbox.audit.reported_mails import NOTIFIED, mailed
from lockbox.facts.ask import Ask
from lockbox.facts.fact import LOG, NO, facts_of
from lockbox.facts.labels import label_text
from lockbox.facts.requester import Requester

WORDS = {
    "submit": "submitted a request for access",
    "endorse": "endorsed the request for the vendor",
    "break_glass": "opened the access by break-glass, without the customer's approval",
    "approve": "approved the request",
    "deny": "denied the request",
    "cancel": "cancelled the request",
    "time_out": "timed out the request",
    "complete": "completed the request",
    "revoke": "revoked the access",
    "expire": "ended the access at its deadline",
    "used_up": "used the access for the last time that it was approved for",
    "remind": "reminded the approvers",
    "escalate": "escalated to more approvers",
    "begin": "opened the access at the time for which it was approved",
    "hold_back": "held the access back at the time for which it was approved",
    "warn": "warned that the access ends soon",
    "unreached": "could reach none of the approvers",
    "question": "asked the engineer a question",
    "answer": "answered a question",
    "after_review": "gave the customer's finding about break-glass",
    "after_review_reminder": "reminded the customer that a finding about break-glass is due",
    "after_review_overdue": "told everybody that the finding about break-glass is overdue",
    "activity": "reported activity",
    "connection_requested": "asked for a credential at the target",
    "connection_opened": "opened the access at the target",
    "connection_open_failed": "could not open the access at the target",
    "connection_closed": "closed the access at the target, and checked that it is closed",
    "connection_close_failed": "could not close the access at the target, and goes on trying",
    "first_used": "let the engineer in for the first time",
    "last_used": "let the engineer in for the last time",
    "notified": "notified people",
    "notifications_sent": "sent notifications",
    "notification_dead": "could not deliver a notification",
    "decision_refused": "refused a decision",
    "sign_in_refused": "refused a sign-in",
    "signed_in": "signed in",
    "signed_out": "signed out",
    "session_revoked": "signed a browser out",
    "passkey_added": "added a passkey",
    "passkey_removed": "removed a passkey",
    "first_passkey_added": "added their first passkey, after an invitation",
    "identity_bound": "bound an identity provider",
    "identity_removed": "removed an identity provider",
    "gate_identity_added": "mapped an identity at the gate to an engineer",
    "gate_identity_removed": "removed an identity of an engineer at the gate",
    "gate_probed": "probed a gateway",
    "gate_defined": "recorded what calls at the gate of a service use",
    "gate_redefined": "changed what calls at the gate of a service use",
    "gate_report_began": "let the gate of a service report only",
    "gate_enforced": "had the gate of a service enforce",
    "gate_report_asked": "asked to let the gate of a service report only",
    "gate_report_allowed": "allowed the gate of a service to report only",
    "gate_report_ended": "had the gate of a service enforce again",
    "exclusions_changed": "stated what Lockbox does not cover",
    "exclusions_acknowledged": "acknowledged what Lockbox does not cover",
    "retention_changed": "changed how long this log is kept",
    "hold_set": "set a legal hold",
    "hold_released": "released a legal hold",
    "offboarding_asked": "asked the vendor to off-board the organisation",
    "offboarding_withdrawn": "withdrew the request to off-board the organisation",
    "texts_erased": "erased what a request named and why",
    "offboarding_begun": "began to off-board the organisation",
    "tenant_erased": "erased the data of the organisation",
    "outside_access": "declared access that was taken around Lockbox",
    "token_made": "created an API token",
    "token_rotated": "rotated an API token",
    "token_revoked": "revoked an API token",
    "device_login_allowed": "allowed a device login",
    "device_login_refused": "refused a device login",
    "prompts_wanted": "turned prompts on",
    "prompts_declined": "turned prompts off",
    "address_added": "added a mail address",
    "address_confirmed": "confirmed a mail address",
    "address_changed": "changed the mails to an address",
    "address_removed": "removed a mail address",
    "tenant_added": "created the organisation",
    "tenant_renamed": "renamed the organisation",
    "tenant_suspended": "suspended the organisation",
    "tenant_resumed": "resumed the organisation",
    "plan_changed": "changed the plan",
    "mode_switched": "switched the mode",
    "emergency_stop": "triggered an emergency stop",
    "emergency_stop_ended": "ended the emergency stop",
    "policy_changed": "changed the policy",
    "consent_ended": "ended temporary consent",
    "unapproved_access_stated": "stated what can open without the customer's approval",
    "member_invited": "invited a member",
    "member_added": "joined",
    "member_changed": "changed the roles of a member",
    "directory_record_changed": "changed what the directory says of a member",
    "member_removed": "removed a member",
    "eligible_changed": "changed a member's eligibility as delegate",
    "invitation_withdrawn": "withdrew an invitation",
    "recovery_proposed": "proposed an admin",
    "recovery_withdrawn": "withdrew a proposed admin",
    "recovery_objected": "objected to a proposed admin",
    "delegate_named": "named a delegate",
    "delegate_ended": "ended a delegation",
    "pre_approval_proposed": "proposed a pre-approval",
    "pre_approval_approved": "approved a pre-approval",
    "pre_approval_revoked": "revoked a pre-approval",
    "pre_approval_used_up": "used a pre-approval for the last time",
    "pre_approval_ended": "ended a pre-approval at its end date",
    "endpoint_added": "added a webhook",
    "endpoint_changed": "changed a webhook",
    "endpoint_rotated": "rotated a webhook's secret",
    "endpoint_removed": "removed a webhook",
    "endpoint_disabled": "disabled a webhook",
    "endpoint_tested": "tested a webhook",
    "delivery_repeated": "repeated a webhook call",
    "observer_added": "added an observer",
    "observer_removed": "removed an observer",
    "person_disabled": "disabled a person",
    "person_erased": "erased a person's data",
    "powers_rekeyed": "marked roles, passkeys and identities with a new key",
    "nobody_notified": "timed out requests that reached nobody",
    "review_unreached": "could reach no manager",
    "invariant_broken": "raised an alarm: an invariant check failed",
    "request_read": "read a request",
    "audit_log_read": "read this audit log",
    "audit_log_exported": "exported this audit log",
    "audit_events_removed": "removed the oldest events by retention",
    "restored": "restored the database from a back-up",
}
"""The words for every action; they follow the actor's name."""

OF_REQUESTS = {**facts_of(Ask, LOG), **facts_of(Requester, LOG)}
LABELS = {
    "member": "Who",
    "subject": "Identity",
    "principal": "For",
    "delegate": "Delegate",
    "observer": "Who",
    "mailbox": "Address",
    "endpoint": "Webhook",
    "account": "Account",
    "from_address": "From",
    "comment": "Comment",
    "question": "Question",
    "answer": "Answer",
    **{name: fact.label for name, fact in OF_REQUESTS.items() if fact.personal is not NO},
    "resource": "Resource",
    "gateway_name": "Gateway",
    "address": "Network address",
    "user_agent": "Program",
}
FACTS = {
    "request": "Request",
    **{name: fact.label for name, fact in OF_REQUESTS.items() if fact.personal is NO},
    "did": "Action",
    "finding": "Finding",
    "first_at": "First",
    "last_at": "Last",
    "began_at": "From",
    "ended_at": "Until",
    "means": "By",
    "channel": "Through",
    "code": "Why",
    "count": "How many",
    "template": "Of",
    "held_back": "Why",
    "error": "Because",
}
STATED = "unapproved_access_stated"
STATED_FACTS = {
    "month": "Month",
    "mode": "Mode",
    "consent_until": "Consent until",
    "gates": "Gates that only report",
    "pre_approvals": "Pre-approvals in force",
    "break_glass": "Break-glass for",
    "delegates": "Delegates",
}
NOTIFICATIONS_SENT = "notifications_sent"
ESCALATE, STEP = "escalate", "brought it to step {step}, and its approvers were asked"
CHANNELS = {"mail": ("mail", "mails"), "webhook": ("call of a webhook", "calls of webhooks")}
NOBODYS = {"clock": "the lockbox", "owner": "the owner of the installation"}


def let_in(said: Mapping[str, Any], time: Callable[[datetime], str]) -> str:
    """A sentence about how often the gate let the engineer in; `said` is the body of an event `last_used`."""
    match said:
        case {"count": int(count), "first_at": str(first), "last_at": str(last)}:
            with suppress(ValueError):
                first, last = (time(datetime.fromisoformat(one)) for one in (first, last))
                if count == 1:
                    return f"The gate let one call in, at {first}."
                return f"The gate let {count:,} calls in, first at {first}, last at {last}."
    return ""


@dataclass(frozen=True)
class EventWording:
    """`about` are labelled lines of details."""

    event: RecordedEvent
    who: str
    role: str
    deed: str
    about: tuple[tuple[str, str], ...]


def describe(event: RecordedEvent) -> EventWording:
    who = (event.value("name") or f"somebody whose name was {ERASED}") if event.actor_id else _nobody(event)
    return EventWording(
        event,
        f"{who[0].upper()}{who[1:]}",
        event.actor_role.replace("_", " ") if event.actor_id else "",
        _deed(event),
        tuple((label_text(label), value) for label, value in _about(event)),
    )


def _deed(event: RecordedEvent) -> str:
    deed = WORDS.get(event.action, event.action.replace("_", " "))
    if event.action == ESCALATE and "step" in event.said:
        return STEP.format(step=event.said["step"])
    if event.action == NOTIFIED:
        return f"{deed}: {mailed(event.said, {})}"
    count = event.said.get("count")
    if event.action != NOTIFICATIONS_SENT or not isinstance(count, int):
        return deed
    one, several = CHANNELS.get(str(event.said.get("channel")), ("notification", "notifications"))
    return f"sent {count} {one if count == 1 else several}"


def _nobody(event: RecordedEvent) -> str:
    return NOBODYS.get(event.actor_role, event.actor_role.replace("_", " "))


def _about(event: RecordedEvent) -> Iterator[tuple[str, str]]:
    said: Mapping[str, Any] = event.said
    personal = event.personal
    if event.actor_id is None and "name" in personal:
        yield "Who", personal["name"]
    yield from (("For", value) for name, value in sorted(personal.items()) if name.startswith(PRINCIPAL))
    yield from (("Engineer", value) for name, value in sorted(personal.items()) if name.startswith(ENGINEER))
    if event.action == NOTIFIED:
        yield "Mails", mailed(said, personal)
    for name, label in LABELS.items():
        if name in personal:
            yield label, personal[name]
    if isinstance(service := said.get("service"), str):
        yield "Service", service
    if "wanted" in personal:
        yield "Looked for", personal["wanted"]
    for name, label in FACTS.items():
        if isinstance(value := said.get(name), str | int):
            yield label, _fact(name, str(value))
    yield from _stated(event.action, said)
    changes = said.get("changes")
    if isinstance(changes, Mapping):
        yield from ((str(name), str(change)) for name, change in changes.items())


def _stated(action: str, said: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if action != STATED:
        return
    for name, label in STATED_FACTS.items():
        if value := said.get(name):
            yield label, ", ".join(map(str, value)) if isinstance(value, list) else _fact(name, str(value))
    if isinstance(opened := said.get("opened"), Mapping):
        words = (f"{count} by {_fact(way, str(way))}" for way, count in opened.items() if count)
        yield "Opened in 90 days", ", ".join(words) or "none"


def _fact(name: str, value: str) -> str:
    if name.endswith("_at"):
        with suppress(ValueError):
            return moment(datetime.fromisoformat(value))
    return value.replace("_", " ")
