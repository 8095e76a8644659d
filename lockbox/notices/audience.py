"""Who hears of a move and who gets a receipt: pure tables, from the move and the tenant's mode to those told."""

from datetime import datetime, timedelta
from enum import StrEnum

from lockbox.people.roles import Mode, Role

OUTCOME_MATTERS_FOR = timedelta(hours=24)

PROMPTS = {
    "reviewing": "reviewing",
    "pending": "pending",
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
    (Nudge.WIDEN, "pending"): "pending",
    (Nudge.WARN, "active"): "closing",
    (Nudge.UNREACHED, "pending"): "unreached",
}

DECISIONS = frozenset({"endorse", "approve", "deny"})
RECEIPT = "receipt"


class Hearer(StrEnum):
    """A group that can be told, by mail or by webhook."""

    REQUESTER = "requester"
    DECIDER = "decider"
    MANAGERS = "managers"
    APPROVERS = "approvers"
    ADMINS = "admins"
    VENDOR_ENDPOINTS = "vendor_endpoints"
    TENANT_ENDPOINTS = "tenant_endpoints"


CUSTOMERS = frozenset({Role.APPROVER, Role.TENANT_ADMIN})
VENDOR_ONLY = frozenset({Hearer.MANAGERS, Hearer.VENDOR_ENDPOINTS})
CUSTOMER = {
    Mode.ENFORCE: frozenset({Hearer.APPROVERS, Hearer.TENANT_ENDPOINTS}),
    Mode.OBSERVE: frozenset({Hearer.APPROVERS, Hearer.ADMINS, Hearer.TENANT_ENDPOINTS}),
    Mode.OFF: frozenset({Hearer.ADMINS}),
}


def hearers(from_state: str | None, to_state: str, mode: Mode, *, customer_knows: bool) -> frozenset[Hearer]:
    """Return who is told that a request went from one state to another.

    A vote that leaves the state as it was is no news; its receipts are. `customer_knows` is whether the customer has
    been asked, or is being told by this very move; what begins and ends inside the vendor stays there.
    """
    if from_state == to_state:
        return frozenset()
    if to_state == "reviewing":
        return VENDOR_ONLY
    if to_state == "pending":
        return CUSTOMER[Mode.ENFORCE] | {Hearer.VENDOR_ENDPOINTS}
    if not customer_knows:
        return VENDOR_ONLY | {Hearer.REQUESTER}
    return CUSTOMER[mode] | {Hearer.REQUESTER, Hearer.VENDOR_ENDPOINTS}


def nudged(nudge: Nudge, state: str, mode: Mode) -> frozenset[Hearer]:
    """Return who hears of a nudge: people alone, for what endpoints were told still stands.

    Of the approvers it is those who are asked and have not answered; that a window is about to close is for all who
    heard that it opened. That no approver could be reached is for the tenant's admins; of a review the vendor's
    operators hear, by a memo.
    """
    if nudge is Nudge.UNREACHED:
        return frozenset({Hearer.ADMINS}) if state == "pending" else frozenset()
    if nudge is Nudge.WARN:
        return (CUSTOMER[mode] - {Hearer.TENANT_ENDPOINTS}) | {Hearer.REQUESTER}
    return frozenset({Hearer.MANAGERS if state == "reviewing" else Hearer.APPROVERS})


def receipted(action: str, role: str) -> frozenset[Hearer]:
    """Return who gets a receipt of what somebody did in that role; nobody can opt out of one.

    Whoever decides does, each vote of a quorum too, and the tenant's admins of what was decided for the tenant. What
    the vendor's managers decide is told to the customer as any move, and to no admin before the customer is asked.
    """
    if action not in DECISIONS:
        return frozenset()
    return frozenset({Hearer.DECIDER, Hearer.ADMINS}) if role in CUSTOMERS else frozenset({Hearer.DECIDER})


def matters_until(template: str, at: datetime, deadline_at: datetime) -> datetime:
    """Return when a notice stops mattering: a prompt at the deadline for the answer, all else a day later."""
    return deadline_at if template in PROMPTS else at + OUTCOME_MATTERS_FOR
