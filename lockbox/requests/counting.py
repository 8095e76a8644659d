"""Counting the votes on a request that waits for the customer, as the next one would be judged."""

from sqlmodel import Session

from lockbox.database import now
from lockbox.notices import outbox
from lockbox.people import context
from lockbox.people.roles import Caller, Side
from lockbox.requests import policies, voting
from lockbox.requests.models import AccessRequest
from lockbox.requests.quorum import Tally, tallies


def count(session: Session, caller: Caller, request: AccessRequest) -> list[Tally]:
    """Return how far the votes have come: first of all approvers, then of each group that must also agree.

    Only votes of those who may still approve count, by the approvers' seats that they fill, and what is needed is the
    stricter of the policy that judged the request and today's. The caller may know of the request; of the customer's
    people nothing but the numbers is told.
    """
    if caller.side is Side.VENDOR:
        context.turn_to(session, request.tenant_id)
    known = outbox.directory(session, {request.tenant_id}, now(session))
    ruling = policies.ruling(session, request)
    needed = max(request.quorum, ruling.terms.quorum)
    return tallies(voting.given(session, request, known), needed, ruling.terms.stages, ruling.groups)
