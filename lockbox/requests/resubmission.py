"""Resubmission of requests that timed out."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select, text
from sqlmodel import col

from catalogue.service_catalogue import Service
from lockbox.audit.events import Origin
from lockbox.database import UnitOfWork, now
from lockbox.errors import Conflict, NotYours
from lockbox.facts.enumerations import State
from lockbox.identity import authentication
from lockbox.identity.roles import Caller
from lockbox.requests import queries
from lockbox.requests.models import AccessRequest
from lockbox.requests.request_input import REPEATED, RequestInput, repeated
from lockbox.requests.submit import SubmissionLimits, SubmittedRequest, submit

ERASED = "erased:"
"""The prefix of an erased resource."""
ASKED_BEFORE = text(f"""
SELECT {REPEATED}, access_window, not_before, state, open_follower FROM lock_earlier_request(:id)
""")  # noqa: S608 - ours


class NotTimedOut(Conflict):
    """Only a request that timed out can be resubmitted."""

    code = "not-timed-out"


class AlreadyAskedAgain(Conflict):
    """The request was resubmitted already, and the new request is open; `request_id` is its id."""

    code = "asked-again"


def resubmit(
    session: UnitOfWork,
    caller: Caller,
    origin: Origin,
    request_id: UUID,
    services: Mapping[str, Service],
    *,
    limits: SubmissionLimits | None = None,
) -> SubmittedRequest:
    """Resubmit a request as its requester or as the system that submitted it.

    Today's policy, people and limits apply. The earlier row is locked first: of two concurrent calls, one submits,
    and the other fails with the id of the new request.

    Raises Conflict if all resources of the request were erased; also NotTimedOut, AlreadyAskedAgain, and the errors
    of `submit`.
    """
    authentication.enter(session, caller)
    earlier = session.execute(ASKED_BEFORE, {"id": request_id}).one_or_none()
    if earlier is None:
        queries.find(session, caller, request_id)
        raise NotYours("Only the requester can resubmit a request.")
    if earlier.state != State.TIMED_OUT:
        raise NotTimedOut("Only a request that timed out can be resubmitted.", current_state=earlier.state)
    if earlier.open_follower:
        said = "This request was already resubmitted, and that request is still open."
        raise AlreadyAskedAgain(said, request_id=str(earlier.open_follower))
    if all(resource.startswith(ERASED) for resource in earlier.resources):
        raise Conflict("What this request named was erased, so it cannot be resubmitted. Submit a new one.")
    return submit(session, caller, origin, _same(earlier, request_id, now(session)), services, limits=limits)


def follower(session: UnitOfWork, caller: Caller, request_id: UUID) -> UUID | None:
    theirs = (col(AccessRequest.follows) == request_id, AccessRequest.visible_to(caller))
    query = select(col(AccessRequest.id)).where(*theirs).order_by(col(AccessRequest.id).desc()).limit(1)
    found: UUID | None = session.orm.execute(query).scalar_one_or_none()
    return found


def _same(earlier: Row[Any], request_id: UUID, at: datetime) -> RequestInput:
    """If the earlier request's start is past, the new request starts at once."""
    start = earlier.not_before
    return repeated(
        earlier,
        access_window=earlier.access_window,
        follows=request_id,
        not_before=start if start and start > at else None,
    )
