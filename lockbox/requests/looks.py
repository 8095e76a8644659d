"""'I am looking at it': a soft claim on a request that waits, for those on the same side who may answer it too."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlmodel import Session, col, select

from lockbox import database
from lockbox.database import now
from lockbox.errors import NotYours
from lockbox.identity.models import Person
from lockbox.identity.roles import Caller, Side
from lockbox.notifications import recipients
from lockbox.requests import queries
from lockbox.requests.lifecycle import State
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy import customer_decides
from lockbox.schedule import Schedule


@dataclass(frozen=True)
class Look:
    """Somebody who looks at a request: since when, and until when they do if nothing renews it."""

    person_id: UUID
    name: str
    since: datetime
    until: datetime


@dataclass(frozen=True)
class Around:
    """Who looks at a request, the first one first, and whether the reader may say so too."""

    looks: Sequence[Look]
    may_look: bool


def begin(session: Session, schedule: Schedule, caller: Caller, request_id: UUID) -> None:
    """Let the others see for five minutes that the caller looks at it, or for five more; it blocks nobody.

    It is no move and leaves no trace: while Redis is away nobody looks at anything. About a request that does not
    wait nothing is done.

    Raises:
        Unknown: there is none that the caller may know of.
        NotYours: they cannot answer it.
    """
    request = queries.find(session, caller, request_id).request
    able = _able(session, caller.side, request)
    if able is None:
        return
    if caller.person_id not in able:
        raise NotYours("Only who may answer a request says that they are looking at it.")
    if schedule.mark_looking(str(request_id), str(caller.person_id), now(session)):
        database.news(session, [request_id], caller.side.value)


def end(session: Session, schedule: Schedule, caller: Caller, request_id: UUID) -> None:
    """Let the caller look at it no longer.

    Raises:
        Unknown: there is none that the caller may know of.
    """
    queries.find(session, caller, request_id)
    if schedule.unmark_looking(str(request_id), str(caller.person_id)):
        database.news(session, [request_id], caller.side.value)


def around(session: Session, schedule: Schedule, caller: Caller, request: AccessRequest) -> Around:
    """Return who of the caller's own side looks at a request, of those who may answer it at this moment."""
    able = _able(session, caller.side, request) or frozenset()
    marks = schedule.looking(str(request.id), sorted(map(str, able))) if able else {}
    if not marks:
        return Around((), caller.person_id in able)
    names = select(Person.id, Person.name).where(col(Person.id).in_([UUID(one) for one in marks]))
    at = now(session)
    found = [Look(one, name, marks[str(one)][0], at + marks[str(one)][1]) for one, name in session.exec(names).all()]
    return Around(sorted(found, key=lambda look: (look.since, look.person_id)), caller.person_id in able)


def _able(session: Session, side: Side, request: AccessRequest) -> frozenset[UUID] | None:
    """Return who of a side could answer at this moment; None where that side is not asked."""
    if request.state == State.REVIEWING and side is Side.VENDOR:
        known = recipients.look_up(session, frozenset(), now(session))
        return frozenset(known.managers) - {request.requester_id}
    if request.state == State.PENDING and side is Side.CUSTOMER and customer_decides(request.mode):
        known = recipients.look_up(session, {request.tenant_id}, now(session))
        return known.able(request.tenant_id) | known.admins[request.tenant_id]
    return None
