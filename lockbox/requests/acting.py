"""Acting on a request: a person endorses, approves, denies, cancels, completes or revokes; judged under the lock."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select, text
from sqlmodel import Session, col

from lockbox.database import now
from lockbox.ids import new_id
from lockbox.notices import outbox
from lockbox.people import tenants
from lockbox.people.roles import Caller, Role
from lockbox.refusals import (
    AlreadyDecided,
    AlreadyEndorsed,
    InvalidMove,
    OwnRequest,
    Stale,
    TooLate,
    Unknown,
    WindowTooLong,
)
from lockbox.requests import writing
from lockbox.requests.lifecycle import DECISIONS, FINAL_STATES, Action, Move, Party, State, move
from lockbox.requests.models import AccessRequest, Decision
from lockbox.requests.policy import Vote, customer_decides, deadline, granted_window, quorum_met, wake_at
from lockbox.requests.register import visible
from lockbox.requests.writing import Change, Origin, actor_for, identity

VOTES = text("""
SELECT d.person_id, d.verdict, d.access_window, EXISTS (
    SELECT FROM memberships m JOIN people p ON p.id = m.person_id
    WHERE m.person_id = d.person_id AND m.tenant_id = :tenant_id AND m.role = 'approver' AND p.disabled_at IS NULL
) AS may_still_approve
FROM decisions d WHERE d.request_id = :request_id
""")


@dataclass(frozen=True)
class Verdict:
    """What somebody wants done to a request; `access_window` in seconds shortens what was asked.

    `version` is the one that the person saw, if they said so.
    """

    action: Action
    comment: str | None = None
    access_window: int | None = None
    version: int | None = None


def act(session: Session, caller: Caller, origin: Origin, request_id: UUID, verdict: Verdict) -> AccessRequest:
    """Let a person endorse, approve, deny, cancel, complete or revoke a request.

    The row is locked first; roles and the clock are read after that, so a decision that had to wait past the
    deadline is late, and one by somebody who was removed meanwhile does not count.

    Raises:
        Unknown: there is no such request that the caller may know of.
        NotYours, OwnRequest, AlreadyEndorsed: the caller is not the one to do this.
        Stale, InvalidMove, TooLate, AlreadyDecided: the request is not, or no longer, what the caller takes it for.
        WindowTooLong: the window would be longer than what was asked.
    """
    request = _locked(session, caller, request_id)
    caller = tenants.as_of_now(session, caller)
    at = now(session)
    action, state = verdict.action, request.state
    if action in DECISIONS and request.requester_id == caller.person_id:
        raise OwnRequest("You asked for this access; somebody else decides about it.")
    if verdict.version is not None and verdict.version != request.version:
        raise Stale("The request has changed since you saw it; look again.", **_now_is(request))
    row, party = _taken(request, action, _parties(caller, request))
    if at >= request.deadline_at:
        raise TooLate("The time for this has run out.", **_now_is(request))
    votes: tuple[Vote, ...] = ()
    decision = None
    if action in DECISIONS:
        votes = _votes(session, request)
        decision = _decision(caller, origin, request, verdict, votes=votes, at=at)
        votes = (*votes, Vote(caller.person_id, action, verdict.access_window, may_still_approve=True))
    _advance(request, _next_state(row, request, votes, action), votes, at)
    change = Change(
        **identity(request),
        action=action,
        actor=actor_for(caller, party, origin),
        from_state=state,
        at=at,
        facts={"access_window": verdict.access_window} if verdict.access_window else {},
        personal={"comment": verdict.comment},
    )
    known = outbox.directory(session, {request.tenant_id})
    writing.update(session, request, change, known, decision)
    return request


def _taken(request: AccessRequest, action: Action, parties: set[Party]) -> tuple[Move, Party]:
    try:
        return move(request.state, action, parties)
    except InvalidMove as refused:
        raise InvalidMove(refused.detail, **_now_is(request)) from None


def _locked(session: Session, caller: Caller, request_id: UUID) -> AccessRequest:
    query = select(AccessRequest).where(col(AccessRequest.id) == request_id, visible(caller)).with_for_update()
    request: AccessRequest | None = session.execute(query).scalar_one_or_none()
    if request is None:
        raise Unknown("There is no such request.")
    # Moves are written by one statement of our own; the session is not to flush a second one.
    session.expunge(request)
    return request


def _parties(caller: Caller, request: AccessRequest) -> set[Party]:
    capacities = {
        Party.REQUESTER: caller.person_id == request.requester_id,
        Party.MANAGER: caller.holds(Role.MANAGER),
        Party.APPROVER: caller.holds(Role.APPROVER, tenant_id=request.tenant_id),
        Party.TENANT_ADMIN: caller.holds(Role.TENANT_ADMIN, tenant_id=request.tenant_id),
    }
    return {party for party, holds in capacities.items() if holds}


def _votes(session: Session, request: AccessRequest) -> tuple[Vote, ...]:
    rows = session.connection().execute(VOTES, {"request_id": request.id, "tenant_id": request.tenant_id})
    return tuple(Vote(r.person_id, Action(r.verdict), r.access_window, r.may_still_approve) for r in rows)


def _decision(
    caller: Caller, origin: Origin, request: AccessRequest, verdict: Verdict, *, votes: Sequence[Vote], at: datetime
) -> Decision:
    mine = {vote.verdict for vote in votes if vote.person_id == caller.person_id}
    if verdict.action in mine:
        raise AlreadyDecided("You have given this answer before; it counts once.", **_now_is(request))
    if verdict.action is Action.APPROVE and Action.ENDORSE in mine:
        raise AlreadyEndorsed("You endorsed this request for the vendor; somebody else approves it.")
    if verdict.access_window is not None and verdict.access_window > request.access_window:
        raise WindowTooLong(
            f"You may shorten the window, not lengthen it: {request.access_window} seconds were asked.",
            field="access_window",
            limit_seconds=request.access_window,
        )
    return Decision(
        id=new_id(),
        request_id=request.id,
        person_id=caller.person_id,
        verdict=verdict.action,
        access_window=verdict.access_window,
        comment=verdict.comment,
        channel=origin.channel,
        address=origin.address,
        user_agent=origin.user_agent,
        decided_at=at,
    )


def _next_state(row: Move, request: AccessRequest, votes: Sequence[Vote], action: Action) -> State:
    if row.instead is None:
        return row.to
    if action is Action.ENDORSE:
        return row.to if customer_decides(request.mode) else row.instead
    return row.to if quorum_met(votes, request.quorum) else row.instead


def _advance(request: AccessRequest, to: State, votes: Sequence[Vote], at: datetime) -> None:
    """Turn the row into what it is after the move."""
    request.version += 1
    if to is request.state:
        return
    request.state = to
    if to in FINAL_STATES:
        request.closed_at, request.wake_at = at, None
        return
    access = granted_window(request.access_window, (v for v in votes if v.verdict is Action.APPROVE))
    request.deadline_at = deadline(to, at, review=0, approval=request.approval_window, access=access)
    request.wake_at = wake_at(to, request.deadline_at)
    request.asked_at = request.asked_at or at
    if to is State.ACTIVE:
        request.opened_at = at


def _now_is(request: AccessRequest) -> dict[str, Any]:
    return {"current_state": request.state.value, "current_version": request.version}
