"""Who hears of a move and who gets a receipt: pure tables, from the move and the tenant's mode to those told."""

from datetime import datetime, timedelta
from enum import StrEnum

from lockbox.people.roles import Mode, Role, Side

OUTCOME_MATTERS_FOR = timedelta(hours=24)

PROMPTS = {
    "reviewing": "reviewing",
    "pending": "pending",
    "copied": "pending",
    "review_reminder": "reviewing",
    "answer_reminder": "pending",
    "closing": "active",
    "unreached": "pending",
}
"""The templates that matter only until the deadline, and only while the request is in this state."""

REMINDERS = frozenset({"review_reminder", "answer_reminder"})
ASKING = {"reviewing": ("reviewing", "review_reminder"), "pending": ("pending", "answer_reminder")}
"""The templates that ask a person, by the state in which a request waits for the answer."""


class Nudge(StrEnum):
    """What the clock does to a request that stays as it is, as the audit trail names it."""

    REMIND = "remind"
    WIDEN = "widen"
    WARN = "warn"
    UNREACHED = "unreached"


NUDGE_TEMPLATES = {
    (Nudge.REMIND, "reviewing"): "review_reminder",
    (Nudge.REMIND, "pending"): "answer_reminder",
    (Nudge.WIDEN, "reviewing"): "reviewing",
    (Nudge.WIDEN, "pending"): "pending",
    (Nudge.WARN, "active"): "closing",
    (Nudge.UNREACHED, "pending"): "unreached",
}

QUESTION, ANSWER = "question", "answer"
CONVERSED = {
    (QUESTION, "reviewing"): "review_question",
    (ANSWER, "reviewing"): "review_answer",
    **{(said, state): said for said in (QUESTION, ANSWER) for state in ("pending", "active")},
}
"""The templates that tell of a question and its answer, by the state of the request when it was asked."""

INSIDE = frozenset({*ASKING["reviewing"], "review_question", "review_answer"})
"""The templates of what goes on inside the vendor."""

DECISIONS = frozenset({"endorse", "approve", "deny"})
RECEIPT = "receipt"
COPIED = "copied"
OPEN = "active"
REPORT = "report"
REPORTED_AFTER = timedelta(seconds=60)
"""How long a report waits after the end: systems report in batches what was done inside, some after the window."""


class Hearer(StrEnum):
    """A group that can be told, by mail or by webhook.

    `asked` are those whom this very event asks: managers for a review, else people of the customer. Of the customer,
    `heard` are those who were asked about the request, or told that its window is open, or answered unasked;
    `approvers` are all who could decide and want prompts.
    `watchers` are copied and cannot decide. `asker` is who asked a question.
    """

    REQUESTER = "requester"
    DECIDER = "decider"
    MANAGERS = "managers"
    ASKED = "asked"
    HEARD = "heard"
    APPROVERS = "approvers"
    ADMINS = "admins"
    WATCHERS = "watchers"
    ASKER = "asker"
    VENDOR_ENDPOINTS = "vendor_endpoints"
    TENANT_ENDPOINTS = "tenant_endpoints"


CUSTOMERS = frozenset({Role.APPROVER, Role.TENANT_ADMIN})
VENDOR_ONLY = frozenset({Hearer.MANAGERS, Hearer.VENDOR_ENDPOINTS})
COPIES = frozenset({Hearer.WATCHERS, Hearer.TENANT_ENDPOINTS})
ENDPOINTS = frozenset({Hearer.VENDOR_ENDPOINTS, Hearer.TENANT_ENDPOINTS})
WHEN_ASKED = frozenset({Hearer.ASKED}) | COPIES
OPENED_ALONE = {
    Mode.ENFORCE: frozenset({Hearer.APPROVERS}) | COPIES,
    Mode.OBSERVE: frozenset({Hearer.APPROVERS, Hearer.ADMINS}) | COPIES,
    Mode.OFF: frozenset({Hearer.ADMINS}),
}
AFTERWARDS = {
    Mode.ENFORCE: frozenset({Hearer.HEARD}) | COPIES,
    Mode.OBSERVE: frozenset({Hearer.HEARD}) | COPIES,
    Mode.OFF: frozenset({Hearer.HEARD}),
}


def hearers(from_state: str | None, to_state: str, mode: Mode, *, customer_knows: bool) -> frozenset[Hearer]:
    """Return who is told that a request went from one state to another.

    A vote that leaves the state as it was is no news; its receipts are. `customer_knows` is whether the customer has
    been asked, or is being told by this very move; what begins and ends inside the vendor stays there. What comes of
    a request, or of a window that the vendor opened alone, is for those of the customer who heard of that one.
    """
    if from_state == to_state:
        return frozenset()
    if to_state == "reviewing":
        return frozenset({Hearer.ASKED, Hearer.VENDOR_ENDPOINTS})
    if to_state == "pending":
        return WHEN_ASKED | {Hearer.VENDOR_ENDPOINTS}
    if not customer_knows:
        return VENDOR_ONLY | {Hearer.REQUESTER}
    customer = OPENED_ALONE if from_state == "reviewing" else AFTERWARDS
    return customer[mode] | {Hearer.REQUESTER, Hearer.VENDOR_ENDPOINTS}


def nudged(nudge: Nudge, state: str, mode: Mode) -> frozenset[Hearer]:
    """Return who hears of a nudge: people alone, for what endpoints were told still stands.

    Of managers and approvers it is those who are asked and have not answered; that a window is about to close is for
    the people who heard that it opened. That no approver could be reached is for the tenant's admins; of a review the
    vendor's operators hear, by a memo.
    """
    if nudge is Nudge.UNREACHED:
        return frozenset({Hearer.ADMINS}) if state == "pending" else frozenset()
    if nudge is Nudge.WARN:
        return (AFTERWARDS[mode] - COPIES) | {Hearer.REQUESTER}
    return frozenset({Hearer.ASKED})


def receipted(action: str, role: str) -> frozenset[Hearer]:
    """Return who gets a receipt of what somebody did in that role; nobody can opt out of one.

    Whoever decides does, each vote of a quorum too, and the tenant's admins of what was decided for the tenant. What
    the vendor's managers decide is told to the customer as any move, and to no admin before the customer is asked.
    """
    if action not in DECISIONS:
        return frozenset()
    return frozenset({Hearer.DECIDER, Hearer.ADMINS}) if role in CUSTOMERS else frozenset({Hearer.DECIDER})


def conversed(said: str, state: str, mode: Mode) -> frozenset[Hearer]:
    """Return who hears of a question, or of its answer, by the state of the request when the question was asked.

    A question is for whoever asks for access, an answer for whoever has asked the question. What is said during a
    review stays inside the vendor.
    """
    endpoints = {Hearer.VENDOR_ENDPOINTS} if state == "reviewing" or mode is Mode.OFF else ENDPOINTS
    return frozenset({Hearer.REQUESTER if said == QUESTION else Hearer.ASKER, *endpoints})


def is_conversation(template: str) -> bool:
    """Whether a template tells of a question or an answer."""
    return template in CONVERSED.values()


def type_of(template: str, to_state: str) -> str:
    """Return the type by which a receiver knows what happened to a request."""
    return f"request.{template.removeprefix('review_') if is_conversation(template) else to_state}"


def is_reported(from_state: str | None, to_state: str) -> bool:
    """Return whether a move closes a window, on which the customer may get a report: what never was open has none."""
    return from_state == OPEN and to_state != OPEN


def knows_of(side: Side, to_state: str | None, template: str | None) -> bool:
    """Whether a side knows of what happened beside a request's moves, and of notices with this template.

    What goes on inside the vendor before the customer is asked stays there; whom a tenant has copied is its own.
    """
    if side is Side.CUSTOMER:
        return to_state != "reviewing" and template not in INSIDE
    return template != COPIED


def matters_until(template: str, at: datetime, deadline_at: datetime) -> datetime:
    """Return when a notice stops mattering: a prompt at the deadline for the answer, all else a day later."""
    return deadline_at if template in PROMPTS else at + OUTCOME_MATTERS_FOR
