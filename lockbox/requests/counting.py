"""Counting the votes on requests that wait for the customer, as the next one would be judged."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from uuid import UUID

from sqlmodel import Session

from lockbox.database import now
from lockbox.identity import row_security
from lockbox.identity.roles import Caller, Side
from lockbox.notifications import recipients
from lockbox.notifications.recipients import Directory
from lockbox.requests import decisions, policy_store
from lockbox.requests.lifecycle import State
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy import customer_decides
from lockbox.requests.quorum import Tally, tallies


def count(session: Session, caller: Caller, request: AccessRequest) -> list[Tally]:
    """Return how far the votes have come: first of all approvers, then of each group that must also agree.

    Only votes of those who may still approve count, by the approvers' seats that they fill, and what is needed is the
    stricter of the policy that judged the request and today's. The caller may know of the request; of the customer's
    people nothing but the numbers is told.
    """
    if caller.side is Side.VENDOR:
        row_security.turn_to(session, request.tenant_id)
    known = recipients.look_up(session, {request.tenant_id}, now(session))
    return count_all(session, [request], known)[request.id]


def of_those_that_wait(session: Session, caller: Caller, requests: Iterable[AccessRequest]) -> dict[UUID, Tally]:
    """Return how far the votes of all approvers have come on those of a list about which the customer decides.

    What is said of a state is said with it, in lists as on a request's own page. The caller may know of all of them.
    """
    by_tenant = defaultdict[UUID, list[AccessRequest]](list)
    for request in requests:
        if request.state == State.PENDING and customer_decides(request.mode):
            by_tenant[request.tenant_id].append(request)
    if not by_tenant:
        return {}
    at, counted = now(session), dict[UUID, Tally]()
    for tenant_id, some in by_tenant.items():
        if caller.side is Side.VENDOR:
            row_security.turn_to(session, tenant_id)
        known = recipients.look_up(session, {tenant_id}, at)
        counted |= {one: found[0] for one, found in count_all(session, some, known).items()}
    return counted


def count_all(session: Session, requests: Sequence[AccessRequest], known: Directory) -> dict[UUID, list[Tally]]:
    """Return the same for each of these requests, to people of the tenants that `known` knows."""
    rulings = policy_store.rulings(session, [request.id for request in requests])
    votes = decisions.all_given(session, requests, known, {one: ruling.terms for one, ruling in rulings.items()})
    counted = {}
    for request in requests:
        ruling = rulings[request.id]
        needed = max(request.quorum, ruling.terms.quorum)
        counted[request.id] = tallies(votes[request.id], needed, ruling.terms.stages, ruling.groups)
    return counted
