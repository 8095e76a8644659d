"""The wording of mails that is not in their templates, and the words for states and roles.

Translators edit this file and `templates/`. Names in braces are placeholders.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from lockbox.identity.roles import Role, Side
from lockbox.notifications.audience import COPIED, ENDINGS, RECEIPT, REPORT
from lockbox.text_rules import one_line

NOBODY_NOTIFIED, OUTLIVED = "nobody_notified", "outlived"
"""Keys for a request that timed out with no one notified, and for a request to extend a window that was ended."""


class Tone(StrEnum):
    """The kind of a state; pages and the terminal have a colour for each kind."""

    WAITS = "waits"
    OPEN = "open"
    REFUSED = "refused"
    GIVEN_BACK = "given-back"
    LAPSED = "lapsed"


@dataclass(frozen=True)
class StateWording:
    """`customers` is for the customer's people; `others` is for the vendor's people, or for both sides at once."""

    customers: str
    others: str
    tone: Tone

    def to(self, side: Side) -> str:
        return self.customers if side is Side.CUSTOMER else self.others


def _alike(words: str, tone: Tone) -> StateWording:
    return StateWording(words, words, tone)


STATE_WORDINGS: Mapping[str, StateWording] = {
    "reviewing": _alike("In vendor review", Tone.WAITS),
    "pending": StateWording("Waiting for your approval", "Waiting for the customer's approval", Tone.WAITS),
    "active": _alike("Open", Tone.OPEN),
    "denied": _alike("Denied", Tone.REFUSED),
    "cancelled": _alike("Cancelled by vendor", Tone.LAPSED),
    "timed_out": _alike("Timed out", Tone.LAPSED),
    "completed": _alike("Completed", Tone.GIVEN_BACK),
    "revoked": _alike("Revoked", Tone.REFUSED),
    "expired": _alike("Expired", Tone.GIVEN_BACK),
    NOBODY_NOTIFIED: _alike("Nobody could be notified", Tone.LAPSED),
    OUTLIVED: _alike("Nothing to decide: the window was revoked", Tone.REFUSED),
}


@dataclass(frozen=True)
class RoleWording:
    name: str
    duty: str
    mails: str


ROLE_WORDINGS: Mapping[Role, RoleWording] = {
    Role.TENANT_ADMIN: RoleWording(
        "an admin",
        "You manage members, policy and settings. You can deny requests and revoke access, but not approve.",
        "When settings or members change, a receipt of each decision, and when no approver could be reached.",
    ),
    Role.APPROVER: RoleWording(
        "an approver",
        "You decide who at the vendor may open your organisation's data, for how long and for what.",
        "Each request, a reminder before its deadline, what became of it, and when settings change.",
    ),
    Role.AUDITOR: RoleWording(
        "an auditor",
        "You read the audit log, export it, and verify it on your own machine.",
        "From time to time a checkpoint of the audit log. Keep these mails: they prove that nothing was removed.",
    ),
    Role.ENGINEER: RoleWording(
        "an engineer",
        "You request access to a customer's data, and use it while its window is open.",
        "What became of your requests, questions about them, and when your access is about to end.",
    ),
    Role.MANAGER: RoleWording(
        "a manager",
        "You review the engineers' requests before the customer is asked.",
        "Each request to review, a reminder before its deadline, and what became of it.",
    ),
    Role.OPERATOR: RoleWording(
        "an operator",
        "You run this installation: customers, the vendor's staff, and gates.",
        "Alarms, and requests that nobody could be notified of.",
    ),
    Role.VENDOR_AUDITOR: RoleWording(
        "a vendor auditor",
        "You read the vendor's own audit log and the history of requests.",
        "No mails about requests.",
    ),
    Role.SYSTEM: RoleWording(
        "a service account",
        "A program uses this account by API tokens, which you create on its account page.",
        "No mails about requests.",
    ),
}

# Mails about requests.
REQUEST_SUBJECTS = {
    "reviewing": "Review needed by {by}: {requester} requests {access} to {service} at {tenant}",
    "pending": "Approval needed by {by}: {requester} requests {access} to {service}",
    COPIED: "Copy, answer due by {by}: {requester} requests {access} to {service} at {tenant}",
    "active": "Access to {service} at {tenant} is open until {by}",
    "review_reminder": "Reminder, review needed by {by}: {requester} requests {access} to {service} at {tenant}",
    "answer_reminder": "Reminder, approval needed by {by}: {requester} requests {access} to {service}",
    "begun": "Access to {service} at {tenant} is open now, until {by}",
    "held_back": "Held back: access to {service} at {tenant} is not open",
    "closing": "Ends at {by}: access to {service} at {tenant}",
    "unreached": "No approver could be reached, answer needed by {by}: {requester} requests {access} to {service}",
    REPORT: "Report: access to {service} at {tenant} has ended, {found}",
    "question": "Question: access to {service} at {tenant}, {until} {by}",
    "review_question": "Question: access to {service} at {tenant}, answer by {by}",
    "answer": "Answer: access to {service} at {tenant}",
    "review_answer": "Answer: access to {service} at {tenant}",
    RECEIPT: "Receipt: {actor} {decided} access to {service} at {tenant}",
    "connection_open_failed": "The engineer could not be let in: access to {service} at {tenant}",
    "connection_open_settled": "The engineer has been let in now: access to {service} at {tenant}",
    "connection_close_failed": "Access could not be closed at the target: {service} at {tenant}",
    "connection_close_settled": "Access is closed at the target now: {service} at {tenant}",
    "target_open_failed": "Target {target} could not open access to {service} for {tenant}",
    "target_open_settled": "Target {target} has opened access to {service} for {tenant} now",
    "target_close_failed": "Act now: target {target} did not close access to {service} for {tenant}",
    "target_close_settled": "Target {target} has closed access to {service} for {tenant} now",
    "break_glass": "{requester} has access to {service} at {tenant} without the customer's approval, until {by}",
    "after_review_reminder": "Say by {finding_by} whether access to {service} at {tenant} was justified",
    "after_review_overdue": "Overdue: was access to {service} at {tenant} justified?",
    "after_review": "Found {found_of}: access to {service} at {tenant}",
    **{name: f"{STATE_WORDINGS[name].others}: access to {{service}} at {{tenant}}" for name in ENDINGS},
}
NOBODY_NOTIFIED_SUBJECT = f"{STATE_WORDINGS[NOBODY_NOTIFIED].others}: access to {{service}} at {{tenant}}"
PRE_APPROVED_SUBJECT = "Approved beforehand: access to {service} at {tenant} is open until {by}"
OPENS_LATER_SUBJECT = "Access to {service} at {tenant} is approved, and opens {by}"
BREAK_GLASS_MARK = "BREAK-GLASS: "
"""The beginning of the subject of each mail about a request that break-glass has opened."""
FINDINGS = {"justified": "justified", "not_justified": "not justified"}
DECIDED = {"endorse": "endorsed", "break_glass": "broke the glass for", "approve": "approved", "deny": "denied"}
OUTCOMES = {
    "pending": "Access is not open yet: it needs the customer's approval, or more approvals.",
    "active": "Access is open. It ends automatically.",
    "denied": "Access was not opened.",
}
OPENS_LATER = "Access opens at the time for which it was approved. It ends automatically."
REMEDIES = {
    "pending": "Deny the request on its page, or have a colleague do so: a single denial ends it.",
    "active": "Revoke the access on the request's page: it ends immediately.",
    "denied": "Inform the vendor: the engineer can submit the request again.",
}
IN_LOG = "See the connector worker's log."
FAILING = {
    "unreachable": "Is the target up? Are address, login and certificate in its file right?",
    "no_target_file": "Write the file of the target in the connector worker's folder.",
    "target_file_readable": "chmod 600 the file of the target.",
    "needs_tls": "Add sslmode=verify-full to the file of the target.",
    "not_permitted": "Give the login at the target CREATEROLE, and ADMIN on the group roles.",
    "no_such_role": "The catalogue names a role that the target does not have.",
    "nothing_to_open": "The catalogue has changed since, or the API did not write the row.",
    "owns_objects": "As superuser at the target, move or drop what depends on the role's objects.",
    "prepared_transaction": "At the target, roll back what stands in pg_prepared_xacts.",
    "sessions_open": "Look at the sessions of the role at the target.",
    "still_open": "The target says that it is open still: look at its sessions.",
    "too_slow": "Look at the target's load and locks.",
}
ENDED = {name: saying.others[0].lower() + saying.others[1:] for name, saying in STATE_WORDINGS.items()} | {
    "active": "opened"
}
LONGEST_PARAMETER = 500
OF_GROUP, THEN = "{number} of {group}", ", then "
OPEN_UNTIL, ANSWER_BY = "open until", "answer by"
SOMEBODY = "Somebody"
APPROVED_BY, OPENED_BY = "approved", "opened for the vendor"
NOT_KNOWN = "not known"
EXTENT = "{duration}, at most {uses}"
CASE_IN = "{case} in {system}"
CASE_CHECKS = {
    "confirmed": "(confirmed by the ticket system)",
    "unconfirmed": "(NOT confirmed: the ticket system could not be asked)",
}
USES = "1 use", "{number} uses"
PLAIN_ACCESS, MORE_ACCESS = "access", "+{duration} of access"
FOR, UNTIL, FROM = "for {extent}", "until {time}", "{span} from {time}"
OPENS = (
    "exactly this access: the engineer may {acts} these resources of {service} for at most {extent}. "
    "It can be revoked at any time."
)
APPROVING_OPENS, ENDORSING_OPENS, ENDORSING_ASKS = "Approving opens", "Endorsing opens", "Endorsing asks the customer"
TO_OPEN = "to open {opens}"
ASKED_AFTER = "The customer is asked only after a manager of the vendor has endorsed the request."
LEFT_TO_VENDOR = "The customer has left this decision to the vendor."
ASK_TO_DENY = "Ask the customer to deny the request, and revoke the access on its page if it was opened."
SECURE_ACCOUNT = "{remedy} Then end your sessions and remove unknown passkeys and tokens in your account."

# Mails about accounts and organisations.
ACCOUNT_TITLES = {
    "tenant_added": "The lockbox of {tenant} has been set up",
    "tenant_renamed": "{tenant} was renamed",
    "tenant_suspended": "{tenant} was suspended by the vendor",
    "tenant_resumed": "{tenant} is no longer suspended",
    "plan_changed": "The plan of {tenant} was changed",
    "mode_switched": "The lockbox of {tenant} was switched",
    "emergency_stop": "Emergency stop at {tenant}",
    "emergency_stop_ended": "The emergency stop at {tenant} was ended",
    "policy_changed": "The policy of {tenant} was changed",
    "consent_ended": "The dated consent of {tenant} has ended",
    "member_added": "A member of {tenant} was added",
    "member_changed": "The roles of a member of {tenant} were changed",
    "member_removed": "A member of {tenant} was removed",
    "member_invited": "A person was invited to {tenant}",
    "first_passkey_added": "A new member of {tenant} can sign in with a passkey: disable them if it is someone else",
    "invitation_withdrawn": "An invitation to {tenant} was withdrawn",
    "recovery_proposed": "The vendor proposes a new admin for {tenant}: object if this is wrong",
    "recovery_withdrawn": "The vendor withdrew the proposed admin for {tenant}",
    "recovery_objected": "Someone objected to the proposed admin for {tenant}",
    "delegate_named": "A delegate was named at {tenant}",
    "delegate_ended": "A delegation at {tenant} was ended",
    "pre_approval_proposed": "A pre-approval was proposed at {tenant}: it needs your approval",
    "pre_approval_approved": "A pre-approval of {tenant} was approved",
    "pre_approval_revoked": "A pre-approval of {tenant} was revoked",
    "pre_approval_used_up": "A pre-approval of {tenant} was used for the last time",
    "pre_approval_ended": "A pre-approval of {tenant} has ended",
    "endpoint_added": "A webhook of {tenant} was added",
    "endpoint_changed": "A webhook of {tenant} was changed",
    "endpoint_rotated": "The secret of a webhook of {tenant} was replaced",
    "endpoint_removed": "A webhook of {tenant} was removed",
    "endpoint_disabled": "A webhook of {tenant} was disabled",
    "eligible_changed": "The eligible delegates at {tenant} were changed",
    "observer_added": "An observer of requests to {tenant} was added",
    "observer_removed": "An observer of requests to {tenant} was removed",
    "address_added": "An address for mails to you was added",
    "address_confirmed": "An address for mails to you was confirmed",
    "address_changed": "The mails to one of your addresses were changed",
    "address_removed": "An address for mails to you was removed",
    "person_disabled": "A person at {tenant} was disabled",
    "gate_identity_added": "An identity at the gate was mapped to an engineer",
    "gate_identity_removed": "An identity of an engineer at the gate was removed",
    "gate_redefined": "The vendor changed what calls at a gate use at {tenant}",
    "gate_report_began": "A gate does not enforce access to {tenant} yet",
    "gate_enforced": "A gate now enforces access to {tenant}",
    "gate_report_asked": "The vendor asks {tenant} to let a gate report only",
    "gate_report_allowed": "An admin of {tenant} allowed a gate to report only",
    "gate_report_ended": "An admin of {tenant} had a gate enforce again",
    "exclusions_changed": "The vendor asks {tenant} to acknowledge what Lockbox does not cover",
    "exclusions_acknowledged": "An admin of {tenant} acknowledged what Lockbox does not cover",
    "retention_changed": "The retention of the audit log of {tenant} was changed",
    "hold_set": "A legal hold was set at {tenant}",
    "hold_released": "A legal hold at {tenant} was released",
    "offboarding_asked": "{tenant} is to be off-boarded: all of its data will be erased",
    "offboarding_withdrawn": "The off-boarding of {tenant} was withdrawn",
    "outside_access": "Access to {tenant} was taken around Lockbox",
    "nobody_notified": "Requests timed out, and nobody could be notified",
    "review_unreached": "Requests are waiting for review, and no manager could be reached",
    "invariant_broken": "Alarm: an invariant check failed",
    "checkpoint": "The audit log of {tenant} has a new checkpoint",
    "audit_digest": "The audit log of {tenant}: keep this checkpoint",
    "delegate_begins": "You are now the delegate of an approver of {tenant}",
    "invitation": "You are invited to {tenant}",
    "sign_in_code": "Your code to sign in",
    "address_code": "Confirm this address for mails to you",
}
ACCOUNT_SUBJECTS = {
    "recovery_proposed": "Object by {by} if this is wrong: the vendor proposes a new admin for {tenant}",
    "invitation": "{actor} invites you to Lockbox at {tenant} as {roles}, until {by}",
}
"""Subjects that state more than the mail's title."""
VENDOR_TITLES = {
    "exclusions_changed": "The list of what Lockbox does not cover has changed",
    "gate_redefined": "What calls at a gate use was changed",
    "gate_report_began": "A gate does not enforce yet",
    "gate_enforced": "A gate now enforces",
    "gate_report_asked": "A gate enforces until its tenants let it report only",
}
EXPLANATIONS = {
    "first_passkey_added": (
        "They were invited by mail, and signed in with the code of that mail. If you do not know of it, or cannot "
        "confirm by another way than mail that it was them, have an admin disable them at once."
    ),
    "pre_approval_proposed": (
        "Once enough approvers have approved it, requests that it covers open without asking anybody. "
        "Approvers, and those who stand in for one, approve it on the page Pre-approvals."
    ),
    "pre_approval_approved": (
        "In force, it opens the requests that it covers without asking anybody, and you are notified of each. "
        "Any approver or admin can revoke it."
    ),
    "pre_approval_revoked": "It opens nothing any more, and the access that it had opened has ended.",
    "pre_approval_used_up": "Further requests are decided one by one. The access that it opened last ends by itself.",
    "pre_approval_ended": "It opens nothing any more: requests are decided one by one.",
    "hold_set": "Until it is released, nothing of this organisation is removed by retention or erased.",
    "offboarding_asked": (
        "The vendor will export all data of this organisation and then erase it. Until that has begun, an admin can "
        "withdraw this on the page Data."
    ),
    "exclusions_changed": (
        "It says when the vendor may reach a customer's data without a request in Lockbox. The customer's members "
        "read it on the page Exclusions, where an admin acknowledges it."
    ),
    "gate_redefined": (
        "By this the gate judges which resource and action a call uses, and whose call it is, for windows that are "
        "open already too. The page Gates shows it."
    ),
    "gate_report_began": "For now this gate lets in calls without an open access window, and records them.",
    "gate_enforced": "From now on this gate refuses calls without an open access window.",
    "gate_report_asked": (
        "With an admin's consent this gate would let in calls without an open access window, and record them. "
        "Without it the gate continues to enforce. Admins find it on the page Gates."
    ),
    "gate_report_allowed": (
        "This gate now lets in calls without an open access window, and records them, until an admin ends this on "
        "the page Gates, or the vendor has the gate enforce."
    ),
    "gate_report_ended": "This gate refuses calls without an open access window again.",
}
"""The meaning of a change and the possible reaction, for changes whose title and diff do not state them."""
ACCOUNT_LABELS = {
    "member": "Who",
    "engineer": "Engineer",
    "subject": "Identity",
    "principal": "For",
    "delegate": "Delegate",
    "observer": "Who",
    "mailbox": "Address",
    "comment": "Comment",
    "endpoint": "Webhook",
    "resource": "Resource",
    "justification": "Why",
}
FROM_WHERE = {"address": "From the address", "user_agent": "With the browser"}
"""The labels of a person's location, for mails that state it."""
PRE_APPROVAL_LABELS = {"access window": "Longest window", "uses": "Windows at most", "ends": "Until"}
"""Labels of what a pre-approval covers, for members that the page names differently from the event."""
DECLARED = ("Engineer", "Service", "Resource", "From", "Until", "Why")
"""The labels, in order, of the facts of access that bypassed Lockbox, from ACCOUNT_LABELS or the declaration."""
VENDOR, AN_APPROVER, AN_OPERATOR = "the vendor", "an approver", "An operator of the vendor"
ASKS = "{requester} requests access to {service}"

# Reports on closed windows.
NOTHING_REPORTED = "no activity reported"
USED_AT_GATE = "used {times} at the gate, no activity reported"
ACTIONS = "1 action", "{number:,} actions"
TIMES = "1 time", "{number:,} times"
OFTEN = "once", "{number:,} times"
ALL_OUTSIDE = "{actions}, outside the request"
SOME_OUTSIDE = "{actions}, {astray:,} of them outside the request"
NO_USE = "No activity was reported while it was open."
USE_AS_REQUESTED = "{reported} while it was open, as requested."
USE_OUTSIDE = "{reported} while it was open, outside the request."
USE_PARTLY_OUTSIDE = "{reported} while it was open; {astray:,} of them outside the request."
REPORTED = "{actions} was reported", "{actions} were reported"

# How many of the people asked could be reached.
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
ASKED = {"reviewing": ("manager", "managers"), "pending": ("approver", "approvers")}
NOBODY_TO_ASK = "there was no {whom} to ask"
NONE_REACHED = "none of {asked} {whom} could be reached"
ONE_NOT_REACHED = "the one {whom} could not be reached"
SOME_NOT_REACHED = "{unreached} of {asked} {whom} could not be reached"
STILL_TRIED = "{sentence}; {count} is still being tried", "{sentence}; {count} are still being tried"
FORMER = "somebody who has left"


def counted(forms: tuple[str, str], number: int, **words: str) -> str:
    return forms[number != 1].format(number=number, **words)


def roles_in_words(roles: Iterable[Role]) -> str:
    """Such as `an admin and an approver`, in the order of ROLE_WORDINGS."""
    held = frozenset(roles)
    return joined([wording.name for role, wording in ROLE_WORDINGS.items() if role in held])


def joined(words: Sequence[str]) -> str:
    """Such as `read, change and export`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else ""


def steps(of: Iterable[Iterable[tuple[int, str]]]) -> str:
    """Return approval steps, such as `1 of security, then 2 of legal`."""
    groups = (joined([OF_GROUP.format(number=number, group=group) for number, group in step]) for step in of)
    return THEN.join(groups)


def parameters(context: Mapping[str, str | int | bool]) -> str:
    """Such as `environment: production; rows: 10`."""
    values = {
        name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in sorted(context.items())
    }
    return "; ".join(f"{name}: {one_line(value, LONGEST_PARAMETER)}" for name, value in values.items())


def approved(approvals: int, needed: int) -> str:
    return f"({approvals} of {needed} approved)"


def duration(seconds: int) -> str:
    """Such as `4 h` or `1 h 30 min`."""
    hours, rest = divmod(seconds, 3600)
    minutes, left = divmod(rest, 60)
    parts = [f"{hours} h" if hours else "", f"{minutes} min" if minutes else "", f"{left} s" if left else ""]
    return " ".join(part for part in parts if part)
