"""Asking again with one call: what got no answer in time is filed anew, and judged as if it had never been asked."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select, text
from sqlmodel import Session, col

from config.settings import Service
from lockbox.errors import AskedAgain, NotTimedOut, NotYours
from lockbox.identity import row_security
from lockbox.identity.roles import Caller
from lockbox.requests import queries, submit
from lockbox.requests.evaluate import Filing
from lockbox.requests.lifecycle import State
from lockbox.requests.models import AccessRequest
from lockbox.requests.submit import Limits, Submitted
from lockbox.requests.transition import Origin

ASKED_BEFORE = text("SELECT * FROM asked_before(:id)")


def ask(
    session: Session,
    caller: Caller,
    origin: Origin,
    request_id: UUID,
    services: Mapping[str, Service],
    *,
    limits: Limits | None = None,
) -> Submitted:
    """File the same once more, as the engineer who asked or the system that filed it for them.

    Today's policy, people and limits judge it. The earlier row is locked first, so that of two who ask again at once
    one files and the other is told by which request.

    Raises:
        Unknown: there is no such request that the caller may know of.
        NotYours: somebody else asked.
        NotTimedOut: it is open, or has ended otherwise; what was denied, say, is filed like anything new.
        AskedAgain: a request that asks again for it is still open; `request_id` is its id.
        and whatever else `filing.submit` raises.
    """
    row_security.enter(session, caller)
    earlier = session.connection().execute(ASKED_BEFORE, {"id": request_id}).one_or_none()
    if earlier is None:
        queries.find(session, caller, request_id)
        raise NotYours("Only who asked may ask again.")
    if earlier.state != State.TIMED_OUT:
        raise NotTimedOut("Only what got no answer in time is asked again so.", current_state=earlier.state)
    if earlier.open_follower:
        raise AskedAgain("It has been asked again, and that is open.", request_id=str(earlier.open_follower))
    return submit.submit(session, caller, origin, _same(earlier, request_id), services, limits=limits)


def follower(session: Session, caller: Caller, request_id: UUID) -> UUID | None:
    """Return the newest request by which this one was asked again, if the caller may know of one."""
    query = select(col(AccessRequest.id)).where(col(AccessRequest.follows) == request_id, queries.visible(caller))
    found: UUID | None = session.execute(query.order_by(col(AccessRequest.id).desc()).limit(1)).scalar_one_or_none()
    return found


def _same(earlier: Row[Any], request_id: UUID) -> Filing:
    return Filing(
        tenant=earlier.tenant,
        service=earlier.service,
        resources=earlier.resources,
        actions=earlier.actions,
        reason_code=earlier.reason_code,
        justification=earlier.justification,
        case_ref=earlier.case_ref,
        access_window=earlier.access_window,
        engineer=earlier.requester_id,
        follows=request_id,
    )
