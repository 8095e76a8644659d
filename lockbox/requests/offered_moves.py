"""Which moves a reader of a request may make now, and how far the votes have come; nothing is locked."""

from collections.abc import Iterable

from sqlalchemy import text

from lockbox.database import UnitOfWork, now
from lockbox.errors import SignInAgain
from lockbox.facts.enumerations import State
from lockbox.identity import authentication
from lockbox.identity.look_alikes import look_alikes
from lockbox.identity.roles import Caller, Side
from lockbox.notifications import recipients
from lockbox.requests import approvals, decisions, policy_store
from lockbox.requests.available_moves import OPENING, AvailableMove, available_moves
from lockbox.requests.break_glass import record_of_review
from lockbox.requests.decisions import ASKED_STATES, DecisionContext
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy import customer_decides
from lockbox.requests.quorum import ApprovalTally
from lockbox.requests.transition import Origin

ACTORS = text("SELECT DISTINCT actor_id FROM events WHERE request_id = :id AND seq > 0 AND actor_id IS NOT NULL")


def moves_of(session: UnitOfWork, caller: Caller, request: AccessRequest) -> tuple[AvailableMove, ...]:
    """Return which moves the caller may make on a request that was just read, and why not the others.

    Nothing is locked. The caller may know of the request. Somebody of the vendor deals with its tenant from here on.
    """
    return available_moves(_read(session, caller, request).situation(request))


def moves_and_tallies(
    session: UnitOfWork, caller: Caller, request: AccessRequest
) -> tuple[tuple[AvailableMove, ...], list[ApprovalTally]]:
    """Return the same, and how far the votes have come where the customer is asked: see `inbox.count`."""
    scene = _read(session, caller, request)
    is_asked = request.state is State.PENDING and customer_decides(request.mode)
    return available_moves(scene.situation(request)), scene.tallies(request) if is_asked else []


def namesakes(
    session: UnitOfWork, caller: Caller, request: AccessRequest, available: Iterable[AvailableMove]
) -> list[str]:
    """Return who took part in a request and looks like the caller, where the caller could be the second person."""
    if not any(one.action in OPENING and (one.allowed or isinstance(one.refusal, SignInAgain)) for one in available):
        return []
    people = {request.requester_id, *session.execute(ACTORS, {"id": request.id}).scalars()} - {caller.person_id}
    return look_alikes(session, caller.person_id, people)


def _read(session: UnitOfWork, caller: Caller, request: AccessRequest) -> DecisionContext:
    at = now(session)
    if caller.side is Side.VENDOR:
        authentication.turn_to(session, request.tenant_id)
    known = recipients.look_up(session, {request.tenant_id}, at)
    effective = policy_store.effective_policy(session, request)
    votes = decisions.votes_of(session, request, known, effective.terms) if request.state in ASKED_STATES else ()
    record = record_of_review(session, request, caller)
    is_asked = request.state is State.PENDING
    too_new = approvals.passkey_obstacle(session, caller, effective.terms, at) if is_asked else None
    return DecisionContext(caller, Origin(""), known, effective, at, votes, record, too_new=too_new)
