"""Who hears of a move: one pure table, from the move and the tenant's mode to those who are told."""

from datetime import datetime, timedelta
from enum import StrEnum

from lockbox.people.roles import Mode

OUTCOME_MATTERS_FOR = timedelta(hours=24)
PROMPTS = frozenset({"reviewing", "pending"})


class Hearer(StrEnum):
    """A group that can be told, by mail or by webhook."""

    REQUESTER = "requester"
    MANAGERS = "managers"
    APPROVERS = "approvers"
    ADMINS = "admins"
    VENDOR_ENDPOINTS = "vendor_endpoints"
    TENANT_ENDPOINTS = "tenant_endpoints"


VENDOR_ONLY = frozenset({Hearer.MANAGERS, Hearer.VENDOR_ENDPOINTS})
CUSTOMER = {
    Mode.ENFORCE: frozenset({Hearer.APPROVERS, Hearer.TENANT_ENDPOINTS}),
    Mode.OBSERVE: frozenset({Hearer.APPROVERS, Hearer.ADMINS, Hearer.TENANT_ENDPOINTS}),
    Mode.OFF: frozenset({Hearer.ADMINS}),
}


def hearers(from_state: str | None, to_state: str, mode: Mode, *, customer_knows: bool) -> frozenset[Hearer]:
    """Return who is told that a request went from one state to another.

    A vote that leaves the state as it was is told to nobody. `customer_knows` is whether the customer has been
    asked, or is being told by this very move; what begins and ends inside the vendor stays there.
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


def matters_until(to_state: str, at: datetime, deadline_at: datetime) -> datetime:
    """Return when a notice stops mattering: a prompt at the deadline for the answer, an outcome a day later."""
    return deadline_at if to_state in PROMPTS else at + OUTCOME_MATTERS_FOR
