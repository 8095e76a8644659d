"""The customer's finding about a window opened by break-glass, and reminders while the finding is missing."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import Row, text

from lockbox import database
from lockbox.audit import events
from lockbox.audit.canonical import Value
from lockbox.audit.events import THE_CLOCK, Actor, AuditEvent, Origin
from lockbox.database import Database, Query, UnitOfWork, array, now
from lockbox.errors import AlreadyDecided, CommentRequired, InvalidMove, NotYours, SignInAgain
from lockbox.facts.enumerations import AuthMethod, Mode, State
from lockbox.failpoints import failpoint
from lockbox.identity import authentication, roles
from lockbox.identity.roles import Caller, ProtectedField, Role, Side
from lockbox.notifications import outbox, recipients
from lockbox.notifications.audience import AFTER_REVIEW, AFTER_REVIEW_OVERDUE, AFTER_REVIEW_REMINDER
from lockbox.notifications.outbox import NotifiedMove
from lockbox.notifications.recipients import ASKED_AT, RecipientDirectory
from lockbox.requests import decision_context, queries, transition
from lockbox.requests.break_glass import next_reminder
from lockbox.requests.decision_context import DecisionContext
from lockbox.requests.lifecycle import AfterReviewFinding, Party
from lockbox.requests.models import AccessRequest, RequestEntry
from lockbox.requests.on_behalf_of import names_of, personal_names
from lockbox.requests.permitted_moves import now_is, parties

MOST_REMINDED = 200
MOST_LISTED = 50
FINDERS = (Party.APPROVER, Party.TENANT_ADMIN)
BY_SIGN_IN = "An API token cannot give the finding. Sign in with a browser or use a token of your identity provider."
SAY_WHY = "Say in a comment why you find this: the vendor reads it, and it is on record. Nothing was done yet."
NO_REVIEW = "This request was not opened by break-glass. There is nothing to find about it."
STILL_OPEN = "This access is still open. Revoke it, or wait for its end: the finding is about all of it."
FOUND = "The finding about this access was already given."
READ = text("""
SELECT a.due_at, a.finding, a.found_at, a.due_at <= clock_timestamp() AND a.finding IS NULL AS is_overdue,
    (SELECT d.fields #>> '{name,1}' FROM event_details d WHERE d.event_id = a.found_event) AS found_by,
    (SELECT d.fields #>> '{comment,1}' FROM event_details d WHERE d.event_id = a.found_event) AS comment
FROM after_reviews a WHERE a.request_id = :request_id
""")
LOCK = text("SELECT finding FROM after_reviews WHERE request_id = :request_id FOR UPDATE")
OPEN = text(f"""
SELECT a.request_id, a.opened_at, a.due_at, a.due_at <= clock_timestamp() AS is_overdue,
    (SELECT d.fields #>> '{{name,1}}' FROM events e JOIN event_details d ON d.event_id = e.id
        WHERE e.request_id = a.request_id AND e.action = 'break_glass') AS opened_by, a.tenant_id
FROM after_reviews a JOIN requests r ON r.id = a.request_id
WHERE a.finding IS NULL AND a.tenant_id = ANY ({ASKED_AT})
    AND (r.state <> 'active' OR r.deadline_at <= clock_timestamp())
ORDER BY a.due_at LIMIT :most
""")  # noqa: S608 - ours
DUE = text("""
SELECT a.request_id AS id, a.opened_at, a.due_at, a.reminders, r.tenant_id, r.requester_id, r.mode, r.service,
    r.state, r.asked_at
FROM after_reviews a JOIN requests r ON r.id = a.request_id
WHERE a.remind_at <= clock_timestamp() ORDER BY a.remind_at LIMIT :most FOR UPDATE OF a SKIP LOCKED
""")

FIND = text(f"""
WITH {outbox.ON_RECORD}
UPDATE after_reviews SET finding = :finding, found_by = :found_by, found_at = :at, found_event = :event_id,
    remind_at = NULL
WHERE request_id = :request_id
""")  # noqa: S608 - ours
REMIND = text(f"""
WITH {outbox.ON_RECORD}
UPDATE after_reviews a SET remind_at = n.remind_at, reminders = a.reminders + 1
FROM unnest(CAST(:id AS uuid[]), CAST(:remind_at AS timestamptz[])) AS n (id, remind_at) WHERE a.request_id = n.id
""")  # noqa: S608 - ours


class AfterReviewEntry(BaseModel, frozen=True):
    """`found_by` and `comment` are None if they were erased or the reader may not see them."""

    due_at: datetime
    is_overdue: bool
    finding: AfterReviewFinding | None
    found_at: datetime | None
    found_by: str | None
    comment: str | None
    may_find: bool


@dataclass(frozen=True)
class FindingInput:
    finding: AfterReviewFinding
    comment: str


@dataclass(frozen=True)
class DueFinding:
    """`opened_by` is None if the name was erased."""

    entry: RequestEntry
    opened_at: datetime
    opened_by: str | None
    due_at: datetime
    is_overdue: bool


def read(session: UnitOfWork, caller: Caller, request: AccessRequest) -> AfterReviewEntry | None:
    """Return None if break-glass was not used. The caller must be allowed to know of the request."""
    row = session.execute(READ, {"request_id": request.id}).one_or_none() if request.break_glass else None
    if row is None:
        return None
    held, at = roles.reader_roles(caller, request.requester_id, request.tenant_id), now(session)
    may_find = _may_give(caller) and row.finding is None and not _is_open(request, at)
    if may_find:
        known = recipients.look_up(session, {request.tenant_id}, at)
        may_find = _party(caller, request, known) is not None
    return _entry(row, reads=roles.may_read(ProtectedField.COMMENT, held), may_find=may_find)


def _entry(row: Row[Any], *, reads: bool, may_find: bool) -> AfterReviewEntry:
    finding = AfterReviewFinding(row.finding) if row.finding else None
    comment = row.comment if reads else None
    return AfterReviewEntry(
        due_at=row.due_at,
        is_overdue=row.is_overdue,
        finding=finding,
        found_at=row.found_at,
        found_by=row.found_by,
        comment=comment,
        may_find=may_find,
    )


def ahead_of_due_findings() -> Query:
    return OPEN, {"tenants": None, "at": None, "most": MOST_LISTED}


def due_findings(session: UnitOfWork, caller: Caller, known: RecipientDirectory | None = None) -> list[DueFinding]:
    """Return the windows for which the caller can give a finding now, earliest due date first."""
    authentication.enter(session, caller)
    of_customer = caller.tenants()
    if not of_customer or not _may_give(caller):
        return []
    at = database.other_clock(session)
    delegates = (known or recipients.look_up(session, None, at)).delegates
    theirs = caller.tenants({Role.TENANT_ADMIN, Role.APPROVER})
    theirs |= {one for one in of_customer if caller.person_id in delegates[one]}
    values = {"tenants": None, "at": at, "most": MOST_LISTED}
    rows = session.execute(OPEN, values).all()
    if not {row.tenant_id for row in rows} <= theirs:
        # A row without a valid MAC makes no one a delegate, so only the verified tenants are read.
        rows = session.execute(OPEN, values | {"tenants": sorted(theirs)}).all()
    entries = {one.request.id: one for one in queries.some(session, caller, [row.request_id for row in rows])}
    return [
        DueFinding(entries[row.request_id], row.opened_at, row.opened_by, row.due_at, row.is_overdue)
        for row in rows
        if row.request_id in entries
    ]


def give_finding(
    session: UnitOfWork, caller: Caller, origin: Origin, request_id: UUID, said: FindingInput
) -> AfterReviewEntry:
    """Record the finding of an approver or admin of the customer.

    Raises SignInAgain, InvalidMove, AlreadyDecided, CommentRequired.
    """
    authentication.enter(session, caller)
    request = transition.locked(session, caller, request_id)
    scene = decision_context.after_lock(session, caller, origin, request)
    party = _party(scene.caller, request, scene.known)
    if party is None:
        raise NotYours("Only the customer's approvers and admins can give the finding.")
    if scene.caller.means is AuthMethod.TOKEN:
        raise SignInAgain(BY_SIGN_IN)
    state = now_is(State(request.state), request.version)
    row = session.execute(LOCK, {"request_id": request.id}).one_or_none() if request.break_glass else None
    if row is None:
        raise InvalidMove(NO_REVIEW, **state)
    if row.finding is not None:
        raise AlreadyDecided(FOUND, **state)
    if _is_open(request, scene.at):
        raise InvalidMove(STILL_OPEN, **state)
    if not said.comment.strip():
        raise CommentRequired(SAY_WHY, field="comment")
    _write(session, scene, request, party, said)
    failpoint("after_review.after_finding")
    row = session.execute(READ, {"request_id": request.id}).one()
    return _entry(row, reads=True, may_find=False)


def remind(database_: Database) -> Iterator[int]:
    """Yield the number of reminders sent per batch. Once a finding is overdue, more people are reminded."""
    while count := _remind_batch(database_):
        yield count


def _remind_batch(database_: Database) -> int:
    with database_.transaction() as session:
        rows = session.execute(DUE, {"most": MOST_REMINDED}).all()
        if not rows:
            return 0
        at = now(session)
        again = [next_reminder(row.opened_at, row.due_at, at) for row in rows]
        told = [(row, _event(row, _reminder(row, at), THE_CLOCK, at, facts=_reminded(row))) for row in rows]
        values = {"id": array(row.id for row in rows), "remind_at": array(again)}
        session.execute(REMIND, values | _told(session, told))
        failpoint("after_review.after_reminder")
        return len(rows)


def _reminder(row: Row[Any], at: datetime) -> str:
    return AFTER_REVIEW_OVERDUE if row.due_at <= at else AFTER_REVIEW_REMINDER


def _reminded(row: Row[Any]) -> dict[str, Value]:
    return {"reminders": row.reminders + 1, "due_at": row.due_at}


def _is_open(request: AccessRequest, at: datetime) -> bool:
    return request.state == State.ACTIVE and at < request.deadline_at


def _may_give(caller: Caller) -> bool:
    return caller.side is Side.CUSTOMER and caller.means is not AuthMethod.TOKEN


def _party(caller: Caller, request: AccessRequest, known: RecipientDirectory) -> Party | None:
    is_delegate = caller.person_id in known.delegates[request.tenant_id]
    state = State(request.state)
    held = parties(caller, request.requester_id, request.tenant_id, state, is_delegate=is_delegate)
    return next((party for party in FINDERS if party in held and not caller.holds(Role.SYSTEM)), None)


def _write(
    session: UnitOfWork, scene: DecisionContext, request: AccessRequest, party: Party, said: FindingInput
) -> None:
    people = sorted(scene.principals(request), key=str) if party is Party.APPROVER else []
    actor = scene.origin.actor(scene.caller, party, on_behalf_of=people[0] if people else None)
    personal = {"comment": said.comment, **personal_names(people, names_of(session, people))}
    event = _event(request, AFTER_REVIEW, actor, scene.at, {"finding": said.finding.value}, personal)
    values = {"finding": said.finding.value, "found_by": scene.caller.person_id, "at": scene.at}
    values |= {"event_id": event.id, "request_id": request.id}
    session.execute(FIND, values | _told(session, [(request, event)]))
    database.publish_after_commit(session, [request.id])


def _event(  # noqa: PLR0917 - all that an event is made from
    request: AccessRequest | Row[Any],
    action: str,
    actor: Actor,
    at: datetime,
    facts: Mapping[str, Value],
    personal: Mapping[str, str | None] = MappingProxyType({}),
) -> AuditEvent:
    return AuditEvent(
        at=at,
        action=action,
        actor=actor,
        tenant_id=request.tenant_id,
        request_id=request.id,
        from_state=request.state,
        to_state=request.state,
        facts=facts,
        personal=personal,
    )


def _told(session: UnitOfWork, told: Sequence[tuple[AccessRequest | Row[Any], AuditEvent]]) -> dict[str, Any]:
    moves = [_notified(request, event) for request, event in told]
    return {**events.append([event for _, event in told]), **outbox.queue(session, moves)}


def _notified(request: AccessRequest | Row[Any], event: AuditEvent) -> NotifiedMove:
    return NotifiedMove(
        event_id=event.id,
        request_id=request.id,
        tenant_id=request.tenant_id,
        requester_id=request.requester_id,
        mode=Mode(request.mode),
        service=request.service,
        action=event.action,
        actor=event.actor,
        from_state=event.from_state,
        to_state=str(event.to_state),
        at=event.at,
        deadline_at=event.at,
        asked_at=request.asked_at,
    )
