"""Ending what somebody asked for who is no engineer any more, or what is open at a tenant that is suspended."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select
from sqlmodel import Session, col

from lockbox.errors import TooLate
from lockbox.identity import row_security
from lockbox.identity.roles import Caller
from lockbox.requests import decide
from lockbox.requests.decisions import DecisionInput
from lockbox.requests.lifecycle import OPEN_STATES, Action, Party, State
from lockbox.requests.models import AccessRequest
from lockbox.requests.transition import Origin

LEFT = "Whoever asked is no engineer of the vendor any more."
SUSPENDED = "The vendor has suspended the customer: its open windows end, and none opens again by itself."
WAYS_TO_LEAVE = {
    State.REVIEWING: Action.CANCEL,
    State.PENDING: Action.CANCEL,
    State.ACTIVE: Action.REVOKE,
}


def end_all_of(session: Session, operator: Caller, origin: Origin, requester_id: UUID) -> list[AccessRequest]:
    """Cancel what somebody of the vendor waits for and revoke their open windows, as an operator; return them, by id.

    The caller has judged the operator and has taken the role or the good standing away, and the vendor's people are
    held. A move that is about to be committed is waited for. A request that is filed at this very moment may be
    missed: it opens nothing, for whoever asks is no engineer, and its time runs out.
    """
    row_security.enter(session, operator)
    row_security.see_off(session, requester_id)
    query = (
        select(AccessRequest)
        .where(col(AccessRequest.requester_id) == requester_id, col(AccessRequest.state).in_(WAYS_TO_LEAVE))
        .order_by(col(AccessRequest.id))
        .with_for_update()
    )
    requests = session.execute(query).scalars().all()
    return _end(session, operator, origin, requests, LEFT)


def end_windows_at(session: Session, operator: Caller, origin: Origin, tenant_id: UUID) -> list[AccessRequest]:
    """Revoke every open window at a tenant, as the operator who has just suspended it; return them, by id.

    The caller has judged the operator and has suspended the tenant. A move that is about to be committed is waited
    for: a row that leaves another state meanwhile would be passed over, so all that are open are locked first.
    """
    row_security.enter(session, operator)
    row_security.suspend(session, tenant_id)
    theirs = col(AccessRequest.tenant_id) == tenant_id
    ids = select(col(AccessRequest.id)).where(theirs, col(AccessRequest.state).in_(OPEN_STATES))
    session.execute(ids.order_by(col(AccessRequest.id)).with_for_update()).all()
    windows = select(AccessRequest).where(theirs, col(AccessRequest.state) == State.ACTIVE)
    found = session.execute(windows.order_by(col(AccessRequest.id)).with_for_update()).scalars().all()
    return _end(session, operator, origin, found, SUSPENDED)


def _end(
    session: Session, operator: Caller, origin: Origin, requests: Sequence[AccessRequest], why: str
) -> list[AccessRequest]:
    ended = []
    for request in requests:
        # As everywhere, moves are written by statements of our own.
        session.expunge(request)
        row_security.turn_to(session, request.tenant_id)
        verdict = DecisionInput(WAYS_TO_LEAVE[request.state], why)
        try:
            ended.append(decide.act_on(session, operator, origin, request, verdict, as_party=Party.OPERATOR))
        except TooLate:
            # Its time has run out, and the clock is on its way to say so.
            continue
    return ended
