"""Tables of who is notified of a move and who gets a receipt, by the move and the tenant's mode; pure."""

from datetime import datetime, timedelta
from enum import StrEnum

from lockbox.facts.enumerations import Mode
from lockbox.identity.roles import Role, Side

OUTCOME_MATTERS_FOR = timedelta(hours=24)
CALLED_FOR = timedelta(hours=72)
"""For how long a webhook is tried. A machine can use every event, whatever the request's state is by then."""

PROMPTS = {
    "reviewing": "reviewing",
    "pending": "pending",
    "copied": "pending",
    "review_reminder": "reviewing",
    "answer_reminder": "pending",
    "closing": "active",
    "begun": "active",
    "held_back": "active",
    "unreached": "pending",
    "review_unreached": "reviewing",
}
"""The templates that matter only until the deadline, and only while the request is in the given state."""

REMINDERS = frozenset({"review_reminder", "answer_reminder"})
ASKING = {"reviewing": ("reviewing", "review_reminder"), "pending": ("pending", "answer_reminder")}
"""The templates that ask a person, by the state in which a request waits for the answer."""


class Reminder(StrEnum):
    REMIND = "remind"
    ESCALATE = "escalate"
    WARN = "warn"
    BEGIN = "begin"
    HOLD_BACK = "hold_back"
    UNREACHED = "unreached"


REMINDER_TEMPLATES = {
    (Reminder.REMIND, "reviewing"): "review_reminder",
    (Reminder.REMIND, "pending"): "answer_reminder",
    (Reminder.ESCALATE, "reviewing"): "reviewing",
    (Reminder.ESCALATE, "pending"): "pending",
    (Reminder.WARN, "active"): "closing",
    (Reminder.BEGIN, "active"): "begun",
    (Reminder.HOLD_BACK, "active"): "held_back",
    (Reminder.UNREACHED, "pending"): "unreached",
    (Reminder.UNREACHED, "reviewing"): "review_unreached",
}

BREAK_GLASS = "break_glass"
"""The action by which two people of the vendor open a window in an emergency, without the customer."""
AFTER_REVIEW, AFTER_REVIEW_REMINDER = "after_review", "after_review_reminder"
AFTER_REVIEW_OVERDUE = "after_review_overdue"
AFTER_REVIEWS = frozenset({AFTER_REVIEW, AFTER_REVIEW_REMINDER, AFTER_REVIEW_OVERDUE})
"""The customer's finding about a break-glass window, and the reminders to give it; each has a template of that
name."""
AWAITING_FINDING = AFTER_REVIEWS - {AFTER_REVIEW}
ALARMING = frozenset({BREAK_GLASS, *AWAITING_FINDING})
"""Templates that are sent before merely informative ones, and to every address, even to addresses without prompts."""

QUESTION, ANSWER = "question", "answer"
CONVERSED = {
    (QUESTION, "reviewing"): "review_question",
    (ANSWER, "reviewing"): "review_answer",
    **{(said, state): said for said in (QUESTION, ANSWER) for state in ("pending", "active")},
}
"""The templates of questions and answers, by the request's state when the question was asked."""

ENDINGS = ("denied", "cancelled", "timed_out", "completed", "revoked", "expired")
"""The templates which state that there is no access, or no more access."""

CONNECTED = ("connection_opened", "connection_open_failed", "connection_closed", "connection_close_failed")
"""The events of access at a target, as the audit log and webhooks name them; also the endpoints' templates."""
SETTLED = {"connection_opened": "connection_open_settled", "connection_closed": "connection_close_settled"}
"""The templates, by action, of a success after a failure that people were notified of."""
REPEATED = {"connection_open_failed": "connection_open_again", "connection_close_failed": "connection_close_again"}
"""The templates, by action, of a failure that continues after its first notification; only endpoints get them."""
OPERATED = {
    "connection_open_failed": "target_open_failed",
    "connection_open_settled": "target_open_settled",
    "connection_close_failed": "target_close_failed",
    "connection_close_settled": "target_close_settled",
}
"""For each template about a failure at a target, or about a failure's end: the template for operators, who see no
requests."""

INSIDE = frozenset(
    {
        *ASKING["reviewing"],
        *("review_question", "review_answer", "review_unreached"),
        *OPERATED.values(),
    }
)
"""The templates of events inside the vendor."""

EVENTS = {
    "submit": "submitted",
    "endorse": "endorsed",
    BREAK_GLASS: BREAK_GLASS,
    "approve": "approved",
    "deny": "denied",
    "cancel": "cancelled",
    "time_out": "timed_out",
    "complete": "completed",
    "revoke": "revoked",
    "expire": "expired",
    Reminder.REMIND: "reminded",
    Reminder.ESCALATE: "escalated",
    Reminder.WARN: "closing",
    Reminder.BEGIN: "begun",
    Reminder.HOLD_BACK: "held_back",
    Reminder.UNREACHED: "unreached",
    QUESTION: "question",
    ANSWER: "answer",
    **{name: name for name in CONNECTED},
    AFTER_REVIEW: "after_review",
    AFTER_REVIEW_REMINDER: "after_review_reminded",
    AFTER_REVIEW_OVERDUE: "after_review_overdue",
}
"""The webhooks' names for events of a request, by the action in the audit log."""
REVIEW_DENIED = "review_denied"
TYPES = frozenset(f"request.{name}" for name in (*EVENTS.values(), REVIEW_DENIED))
"""Every event type of a request."""

DECISIONS = frozenset({"endorse", BREAK_GLASS, "approve", "deny"})
RECEIPT = "receipt"
COPIED = "copied"
OPEN = "active"
REPORT = "report"
REPORTED_AFTER = timedelta(seconds=60)
"""How long a report waits after the window's end, because systems report activity in batches, some of them late."""


class AudienceGroup(StrEnum):
    """A group that can be notified, by mail or by webhook.

    - `asked`: the people whom this event asks: managers for a review, otherwise people of the customer.
    - `informed`: people of the customer who were asked about the request, were notified that its window is open, or
      answered without being asked.
    - `approvers`: everyone who could decide and wants prompts; `every_approver`: also those who want no prompts.
    """

    REQUESTER = "requester"
    DECIDER = "decider"
    MANAGERS = "managers"
    ASKED = "asked"
    INFORMED = "informed"
    APPROVERS = "approvers"
    EVERY_APPROVER = "every_approver"
    ADMINS = "admins"
    OBSERVERS = "observers"
    ASKER = "asker"
    OPERATORS = "operators"
    VENDOR_ENDPOINTS = "vendor_endpoints"
    TENANT_ENDPOINTS = "tenant_endpoints"


CUSTOMERS = frozenset({Role.APPROVER, Role.TENANT_ADMIN})
VENDOR_ONLY = frozenset({AudienceGroup.MANAGERS})
COPIES = frozenset({AudienceGroup.OBSERVERS})
ENDPOINTS = frozenset({AudienceGroup.VENDOR_ENDPOINTS, AudienceGroup.TENANT_ENDPOINTS})
WHEN_ASKED = frozenset({AudienceGroup.ASKED}) | COPIES
EVERYBODY = frozenset({AudienceGroup.EVERY_APPROVER, AudienceGroup.ADMINS})
BY_BREAK_GLASS = {
    BREAK_GLASS: EVERYBODY | COPIES | {AudienceGroup.REQUESTER},
    AFTER_REVIEW_REMINDER: frozenset({AudienceGroup.APPROVERS, AudienceGroup.ADMINS}),
    AFTER_REVIEW_OVERDUE: EVERYBODY | {AudienceGroup.MANAGERS},
    AFTER_REVIEW: EVERYBODY | {AudienceGroup.MANAGERS, AudienceGroup.REQUESTER},
}
"""Who is notified, by action: of break-glass, of a finding that is due or overdue, and of the finding itself.

People who can give a finding are reminded of it. Once the finding is overdue, the vendor's managers are notified too,
because no other break-glass is possible until the finding is given.
"""
OPENED_ALONE = {
    Mode.ENFORCE: frozenset({AudienceGroup.ASKED, AudienceGroup.APPROVERS, AudienceGroup.ADMINS}) | COPIES,
    Mode.OBSERVE: frozenset({AudienceGroup.APPROVERS, AudienceGroup.ADMINS}) | COPIES,
    Mode.OFF: frozenset({AudienceGroup.ADMINS}),
}
AFTERWARDS = {
    Mode.ENFORCE: frozenset({AudienceGroup.INFORMED}) | COPIES,
    Mode.OBSERVE: frozenset({AudienceGroup.INFORMED}) | COPIES,
    Mode.OFF: frozenset({AudienceGroup.INFORMED}),
}


def people_to_notify(
    from_state: str | None, to_state: str, mode: Mode, *, customer_knows: bool
) -> frozenset[AudienceGroup]:
    """Return the people to notify of a request's change of state.

    If the customer does not know of the request yet, only the vendor's people are notified.
    """
    if from_state == to_state:
        return frozenset()
    if to_state == "reviewing":
        return frozenset({AudienceGroup.ASKED})
    if to_state == "pending":
        return WHEN_ASKED
    if not customer_knows:
        return VENDOR_ONLY | {AudienceGroup.REQUESTER}
    customer = OPENED_ALONE if from_state in {None, "reviewing"} else AFTERWARDS
    return customer[mode] | {AudienceGroup.REQUESTER}


def endpoints_to_notify(*, customer_knows: bool) -> frozenset[AudienceGroup]:
    """Return whose webhooks are called: always the vendor's, and the customer's once the customer was asked."""
    return ENDPOINTS if customer_knows else frozenset({AudienceGroup.VENDOR_ENDPOINTS})


def people_to_remind(reminder: Reminder, state: str, mode: Mode) -> frozenset[AudienceGroup]:
    """Return the people who get a reminder.

    If no manager could be reached, the result is empty: `requests.reminders` notifies the vendor's operators instead.
    """
    if reminder is Reminder.UNREACHED:
        return frozenset({AudienceGroup.ADMINS}) if state == "pending" else frozenset()
    if reminder in {Reminder.WARN, Reminder.BEGIN, Reminder.HOLD_BACK}:
        return (AFTERWARDS[mode] - COPIES) | {AudienceGroup.REQUESTER}
    return frozenset({AudienceGroup.ASKED})


def receipt_groups(action: str, role: str, *, customer_knows: bool = True) -> frozenset[AudienceGroup]:
    """Return who gets a receipt of an action in that role; no one can opt out.

    An emergency stop also denies requests of which the customer does not know yet; these denials give no receipts.
    """
    if action not in DECISIONS or (role in CUSTOMERS and not customer_knows):
        return frozenset()
    return (
        frozenset({AudienceGroup.DECIDER, AudienceGroup.ADMINS})
        if role in CUSTOMERS
        else frozenset({AudienceGroup.DECIDER})
    )


def question_groups(said: str, state: str) -> frozenset[AudienceGroup]:
    """Return who is notified of a question or an answer (`said`); the question was asked in `state`."""
    endpoints = endpoints_to_notify(customer_knows=state != "reviewing")
    return frozenset({AudienceGroup.REQUESTER if said == QUESTION else AudienceGroup.ASKER, *endpoints})


def connection_groups(template: str, mode: Mode) -> frozenset[AudienceGroup]:
    if template not in OPERATED:
        return frozenset()
    customers = (OPENED_ALONE[mode] | AFTERWARDS[mode] | {AudienceGroup.ADMINS}) - COPIES - {AudienceGroup.ASKED}
    engineer = {AudienceGroup.REQUESTER} if template.startswith("connection_open") else set()
    return customers | {AudienceGroup.OPERATORS} | engineer


def type_of(action: str, from_state: str | None) -> str:
    is_inside = action == "deny" and from_state == "reviewing"
    return f"request.{REVIEW_DENIED if is_inside else EVENTS[action]}"


def is_reported(from_state: str | None, to_state: str) -> bool:
    return from_state == OPEN and to_state != OPEN


def knows_of(side: Side, to_state: str | None, template: str | None) -> bool:
    """Return whether people of a side may see an event or notification.

    The customer does not see events inside the vendor. The vendor does not see copies to the customer's observers.
    """
    if side is Side.CUSTOMER:
        return to_state != "reviewing" and template not in INSIDE
    return template != COPIED


def matters_until(template: str, at: datetime, deadline_at: datetime) -> datetime:
    """A prompt matters until its deadline, every other mail for a day after `at`."""
    return deadline_at if template in PROMPTS else at + OUTCOME_MATTERS_FOR


def is_moot(
    template: str, state: str, *, has_decided: bool, wants_report: bool, is_found: bool, is_outlived: bool
) -> bool:
    """Return whether a mail is obsolete.

    `wants_report` is whether the policy wants a report and there is a window. `is_found` is whether the customer has
    given the finding about break-glass. `is_outlived` is whether someone has ended the window that the request would
    extend.
    """
    if template in AWAITING_FINDING:
        return is_found
    if template == REPORT:
        return not wants_report
    if template in REMINDERS and has_decided:
        return True
    if is_outlived and PROMPTS.get(template) in ASKING:
        return True
    return template in PROMPTS and state != PROMPTS[template]
