"""What is at hand for somebody: requests that wait for their answer, and windows that are open now."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import exists
from sqlmodel import Session, col

from lockbox.database import now
from lockbox.identity import row_security
from lockbox.identity.roles import Caller, Role, Side
from lockbox.notifications import recipients
from lockbox.notifications.recipients import Directory
from lockbox.requests import counting, policy_store, queries, soonest
from lockbox.requests.lifecycle import State
from lockbox.requests.models import AccessRequest, Decision
from lockbox.requests.queries import Entry
from lockbox.requests.quorum import Tally
from lockbox.requests.terms import Commented

MOST = 30


@dataclass(frozen=True)
class Waiting:
    """A request that somebody may still answer, and how far the votes have come; admins may say no alone."""

    entry: Entry
    tallies: Sequence[Tally]
    may_approve: bool


@dataclass(frozen=True)
class Inside:
    """A window whose time is not over, and whether whoever looks at it may close it, and has to say why.

    Whether the vendor's people have to say why is None: they do not read the customer's policy here.
    """

    entry: Entry
    may_revoke: bool
    needs_reason: bool | None = None


def waiting(
    session: Session, caller: Caller, *, cursor: str | None = None, most: int = MOST
) -> tuple[list[Waiting], str | None]:
    """Return what waits for the caller, who has not answered it, the soonest deadline first, and the next cursor.

    Approvers, those who stand in for one at this moment, and admins are asked.

    Raises:
        Invalid: the cursor is not one that this call gave out.
    """
    row_security.enter(session, caller)
    at = now(session)
    known = recipients.look_up(session, caller.tenants(), at)
    able = _able(caller, known)
    conditions = [
        queries.visible(caller),
        col(AccessRequest.state) == State.PENDING,
        col(AccessRequest.deadline_at) > at,
        col(AccessRequest.requester_id) != caller.person_id,
        col(AccessRequest.tenant_id).in_(able | caller.tenants({Role.TENANT_ADMIN})),
        ~exists().where(
            col(Decision.request_id) == col(AccessRequest.id), col(Decision.person_id) == caller.person_id
        ),
    ]
    ids, beyond = soonest.some(session, conditions, cursor=cursor, most=most)
    found = queries.some(session, caller, ids, State.PENDING)
    counted = counting.count_all(session, [entry.request for entry in found], known)
    return [Waiting(entry, counted[entry.request.id], entry.request.tenant_id in able) for entry in found], beyond


def inside(
    session: Session, caller: Caller, *, cursor: str | None = None, most: int = MOST
) -> tuple[list[Inside], str | None]:
    """Return the windows that are open now, as far as the caller may know of them, the first to close first.

    One that something shuts before its time is among them: `entry.open` says so. The cursor leads to those after.

    Raises:
        Invalid: the cursor is not one that this call gave out.
    """
    row_security.enter(session, caller)
    at = now(session)
    conditions = [
        queries.visible(caller),
        col(AccessRequest.state) == State.ACTIVE,
        col(AccessRequest.deadline_at) > at,
    ]
    ids, beyond = soonest.some(session, conditions, cursor=cursor, most=most)
    found = queries.some(session, caller, ids, State.ACTIVE)
    closes = _able(caller, recipients.look_up(session, caller.tenants(), at)) | caller.tenants({Role.TENANT_ADMIN})
    is_manager = caller.holds(Role.MANAGER)
    rulings = policy_store.rulings(session, ids) if caller.side is Side.CUSTOMER and found else {}
    return [
        Inside(
            entry,
            is_manager or entry.request.tenant_id in closes,
            Commented.REVOKE in rulings[entry.request.id].terms.comment_required if rulings else None,
        )
        for entry in found
    ], beyond


def _able(caller: Caller, known: Directory) -> frozenset[UUID]:
    """Return the tenants for which the caller could decide now."""
    return frozenset(one for one in caller.tenants() if caller.person_id in known.able(one))
