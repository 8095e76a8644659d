"""Questions about a request and their answers; each is an event, and the other side is notified."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, TextClause, text

from lockbox import database
from lockbox.audit import events
from lockbox.audit.canonical import Value
from lockbox.audit.events import Actor, AuditEvent, Origin
from lockbox.database import Query, UnitOfWork
from lockbox.errors import AlreadyAnswered, InvalidMove, NotFound, NotYours, OwnRequest, TooLate, TooManyQuestions
from lockbox.facts.enumerations import State
from lockbox.identity import authentication, roles
from lockbox.identity.roles import Caller, ProtectedField, Role, Side
from lockbox.notifications import outbox
from lockbox.notifications.audience import ANSWER, QUESTION
from lockbox.notifications.outbox import NotifiedMove
from lockbox.notifications.recipients import RecipientDirectory
from lockbox.requests import deadlines, decision_context, queries, transition
from lockbox.requests.deadlines import RequestClock, clock_task, wake_at
from lockbox.requests.lifecycle import OPEN_STATES, Party
from lockbox.requests.models import AccessRequest, Question
from lockbox.requests.on_behalf_of import names_of, personal_names
from lockbox.requests.permitted_moves import now_is, parties
from lockbox.requests.policy_store import EffectivePolicy
from lockbox.schedule import CLOCK, IndexEntry
from lockbox.sql import insert, new_id

MOST = 20
"""How many questions may be asked about one request."""
ASKERS: Mapping[State, tuple[Party, ...]] = {
    State.REVIEWING: (Party.MANAGER,),
    State.PENDING: (Party.APPROVER,),
    State.ACTIVE: (Party.APPROVER, Party.MANAGER),
}
"""The parties that may ask, by the request's state."""
UNANSWERED = text("""
SELECT request_id, count(*) AS number FROM questions WHERE request_id = ANY(:ids) AND answered_at IS NULL GROUP BY 1
""")
READ = text("""
SELECT q.id, q.state, q.stops_clock, q.asked_by, q.asked_at, q.answered_by, q.answered_at, e.actor_role AS role,
    (SELECT d.fields #>> '{name,1}' FROM event_details d WHERE d.event_id = q.asked_event) AS asker,
    (SELECT d.fields #>> '{comment,1}' FROM event_details d WHERE d.event_id = q.asked_event) AS question,
    (SELECT d.fields #>> '{name,1}' FROM event_details d WHERE d.event_id = q.answer_event) AS answerer,
    (SELECT d.fields #>> '{comment,1}' FROM event_details d WHERE d.event_id = q.answer_event) AS answer
FROM questions q LEFT JOIN events e ON e.id = q.asked_event WHERE q.request_id = :request_id ORDER BY q.id
""")
CLOCKED = """
clocked AS (
    UPDATE requests SET deadline_at = :deadline_at, wake_at = :wake_at, stopped_at = :stopped_at,
        stopped_deadline = :stopped_deadline, stopped_for = :stopped_for
    WHERE id = :request_id AND :moves
)"""
NEW_QUESTION = insert(
    Question,
    but={"answered_by", "answered_at", "answer_event"},
    asked_by=":person_id",
    asked_at=":at",
    asked_event=":event_id",
)
ASKS = text(f"WITH {outbox.ON_RECORD},{CLOCKED} {NEW_QUESTION}")
ANSWERS = text(f"""
WITH {outbox.ON_RECORD},{CLOCKED}
UPDATE questions SET answered_by = :person_id, answered_at = greatest(asked_at, :at), answer_event = :event_id
WHERE id = :id
""")  # noqa: S608 - ours
ASKED = text("""
SELECT id, state, stops_clock, asked_by, answered_at FROM questions WHERE request_id = :request_id
""")


@dataclass(frozen=True)
class Exchange:
    """Names and texts are None if erased or not for the reader.

    `stops_clock` is whether the approval clock waits for the answer. `role` is the asker's role.
    """

    id: UUID
    state: State
    stops_clock: bool
    asked_by: UUID
    asker: str | None
    role: str | None
    asked_at: datetime
    question: str | None
    answered_by: UUID | None
    answerer: str | None
    answered_at: datetime | None
    answer: str | None


@dataclass(frozen=True)
class Conversation:
    items: Sequence[Exchange]
    may_ask: bool = False
    may_answer: bool = False


def of_request(session: UnitOfWork, caller: Caller, request_id: UUID) -> list[Exchange]:
    """The oldest question comes first. Only readers of comments get the texts."""
    return read(session, caller, queries.find(session, caller, request_id).request)


def unanswered(session: UnitOfWork, request_ids: Sequence[UUID]) -> dict[UUID, int]:
    rows = session.execute(UNANSWERED, {"ids": list(request_ids)}) if request_ids else ()
    return {row.request_id: row.number for row in rows}


def conversation(
    items: Sequence[Exchange], caller: Caller, request: AccessRequest, known: RecipientDirectory, at: datetime
) -> Conversation:
    is_own = request.requester_id == caller.person_id
    if request.state not in OPEN_STATES or at >= request.deadline_at:
        return Conversation(items)
    is_delegate = caller.side is Side.CUSTOMER and caller.person_id in known.delegates[request.tenant_id]
    asks = not is_own and len(items) < MOST and bool(among(caller, request, is_delegate=is_delegate))
    return Conversation(items, asks, is_own and any(one.answered_at is None for one in items))


def ahead_of_read(request_id: UUID) -> Query:
    return READ, {"request_id": request_id}


def read(session: UnitOfWork, caller: Caller, request: AccessRequest) -> list[Exchange]:
    return exchanges_in(session.execute(*ahead_of_read(request.id)), caller, request)


def exchanges_in(rows: Iterable[Row[Any]], caller: Caller, request: AccessRequest) -> list[Exchange]:
    held = roles.reader_roles(caller, request.requester_id, request.tenant_id)
    reads = roles.may_read(ProtectedField.COMMENT, held)
    return [_exchange_in_list(row, reads=reads) for row in rows if _is_for(row, caller)]


def _is_for(row: Row[Any], caller: Caller) -> bool:
    """Questions that a manager asked during the review are only for the vendor."""
    return row.state != State.REVIEWING or caller.side is Side.VENDOR


def _exchange_in_list(row: Row[Any], *, reads: bool) -> Exchange:
    facts = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for a row as a mapping
    facts["state"] = State(row.state)
    return Exchange(**facts if reads else facts | {"question": None, "answer": None})


def among(caller: Caller, request: AccessRequest, *, is_delegate: bool) -> list[Party]:
    state = State(request.state)
    held = parties(caller, request.requester_id, request.tenant_id, state, is_delegate=is_delegate)
    return [party for party in ASKERS.get(state, ()) if party in held]


@dataclass(frozen=True)
class QuestionContext:
    """Values read after the request's row was locked."""

    caller: Caller
    origin: Origin
    request: AccessRequest
    known: RecipientDirectory
    effective: EffectivePolicy
    at: datetime


@dataclass(frozen=True)
class QuestionMove:
    """A question or answer that was checked; `clock` is the request's clock afterwards.

    `state` is the request's state when the question was asked; `asker_id` is the person who asked.
    """

    question_id: UUID
    said: str
    words: str
    actor: Actor
    asker_id: UUID
    state: State
    clock: RequestClock
    facts: Mapping[str, Value] = field(default_factory=dict)
    principals: Mapping[str, str | None] = field(default_factory=dict)


def ask(session: UnitOfWork, caller: Caller, origin: Origin, request_id: UUID, words: str) -> Exchange:
    """In review, the caller must be a manager; later, an approver or delegate may also ask.

    If the policy permits it, a question about a pending request stops the approval clock until all such questions are
    answered.

    Raises OwnRequest, InvalidMove, TooLate, TooManyQuestions.
    """
    scene = _enter(session, caller, origin, request_id)
    request, caller = scene.request, scene.caller
    if request.requester_id == caller.person_id:
        raise OwnRequest("This is your own request. Only reviewers and approvers can ask questions.")
    party, principals = _asker(scene)
    if len(session.execute(ASKED, {"request_id": request.id}).all()) >= MOST:
        raise TooManyQuestions(f"This request already has {MOST} questions, the most allowed. Decide, or deny it.")
    people = sorted(principals, key=str)
    clock, waits = _stopped(scene)
    saying = QuestionMove(
        question_id=new_id(),
        said=QUESTION,
        words=words,
        actor=origin.actor(caller, party, on_behalf_of=people[0] if people else None),
        asker_id=caller.person_id,
        state=State(request.state),
        clock=clock,
        facts={"stops_clock": waits} | ({"principals": sorted(map(str, people))} if people else {}),
        principals=personal_names(people, names_of(session, people)),
    )
    _write(session, ASKS, scene, saying)
    return _exchange(session, scene, saying.question_id)


def answer(  # noqa: PLR0917 - all that an answer needs
    session: UnitOfWork, caller: Caller, origin: Origin, request_id: UUID, question_id: UUID, words: str
) -> Exchange:
    """Only the requester may answer. The approval clock runs again once no question that stops the clock is open.

    Raises InvalidMove, TooLate, AlreadyAnswered.
    """
    scene = _enter(session, caller, origin, request_id)
    request = scene.request
    so_far = {row.id: row for row in session.execute(ASKED, {"request_id": request.id})}
    asked = so_far.pop(question_id, None)
    if asked is None:
        raise NotFound("There is no such question about this request.")
    if request.requester_id != scene.caller.person_id:
        raise NotYours("Only the requester can answer.")
    if asked.answered_at is not None:
        raise AlreadyAnswered("This question was already answered. Ask a new question instead.")
    still_stands = any(row.stops_clock and row.answered_at is None for row in so_far.values())
    clock = request.clock
    saying = QuestionMove(
        question_id=question_id,
        said=ANSWER,
        words=words,
        actor=origin.actor(scene.caller, Party.REQUESTER),
        asker_id=asked.asked_by,
        state=State(asked.state),
        clock=clock if still_stands or request.state is not State.PENDING else deadlines.resumed(clock, scene.at),
    )
    _write(session, ANSWERS, scene, saying)
    return _exchange(session, scene, question_id)


def _enter(session: UnitOfWork, caller: Caller, origin: Origin, request_id: UUID) -> QuestionContext:
    authentication.enter(session, caller)
    request = transition.locked(session, caller, request_id)
    scene = decision_context.after_lock(session, caller, origin, request)
    if request.state not in OPEN_STATES:
        raise InvalidMove(
            f"This request is {request.state}. Questions can no longer be asked or answered.",
            **now_is(State(request.state), request.version),
        )
    if scene.at >= request.deadline_at:
        raise TooLate("The deadline has passed.", **now_is(State(request.state), request.version))
    return QuestionContext(scene.caller, origin, request, scene.known, scene.effective, scene.at)


def _asker(scene: QuestionContext) -> tuple[Party, frozenset[UUID]]:
    request, caller = scene.request, scene.caller
    principals = scene.known.delegates[request.tenant_id].get(caller.person_id, frozenset())
    asks = among(caller, request, is_delegate=bool(principals))
    if not asks or caller.holds(Role.SYSTEM):
        who = " or ".join(ASKERS[State(request.state)])
        raise NotYours(f"Only {who} can ask questions about a request that is {request.state}.")
    return asks[0], principals if asks[0] is Party.APPROVER else frozenset()


def _stopped(scene: QuestionContext) -> tuple[RequestClock, bool]:
    request, terms = scene.request, scene.effective.terms
    clock = request.clock
    if request.state is not State.PENDING or not terms.questions_stop_clock:
        return clock, False
    most = min(request.approval_window, terms.approval_window)
    clock = deadlines.stopped(clock, most, scene.at, request.not_before)
    return clock, clock.stopped_at is not None


def _write(session: UnitOfWork, statement: TextClause, scene: QuestionContext, saying: QuestionMove) -> None:
    clocked = _set_clock(session, scene, saying.clock)
    audit_event = _audit_event(scene, saying)
    parameters = {
        **clocked,
        "id": saying.question_id,
        "tenant_id": scene.request.tenant_id,
        "request_id": scene.request.id,
        "state": saying.state.value,
        "stops_clock": saying.facts.get("stops_clock"),
        "person_id": scene.caller.person_id,
        "at": scene.at,
        "event_id": audit_event.id,
        **events.append([audit_event]),
        **outbox.queue(session, [_notified(scene, saying, audit_event)]),
    }
    session.execute(statement, parameters)
    # A question of the review stays inside the vendor, and the customer does not learn that there was one.
    side = Side.VENDOR.value if saying.state is State.REVIEWING else None
    database.publish_after_commit(session, [scene.request.id], side)


def _set_clock(session: UnitOfWork, scene: QuestionContext, clock: RequestClock) -> dict[str, Any]:
    request = scene.request
    moves = clock != request.clock
    if moves:
        for name, value in vars(clock).items():
            setattr(request, name, value)
        request.wake_at = wake_at(transition.phase_of(request, scene.known), scene.effective.terms, scene.at)
        kind = clock_task(State(request.state), request.wake_at, request.deadline_at)
        database.arm_after_commit(session, CLOCK, [IndexEntry(str(request.id), kind, request.wake_at)])
    return {**vars(clock), "wake_at": request.wake_at, "moves": moves}


def _audit_event(scene: QuestionContext, saying: QuestionMove) -> AuditEvent:
    """If a question was asked in review, its events name that state, even if the answer comes later."""
    request = scene.request
    state = State.REVIEWING if saying.state is State.REVIEWING else request.state
    return AuditEvent(
        at=scene.at,
        action=saying.said,
        actor=saying.actor,
        tenant_id=request.tenant_id,
        request_id=request.id,
        from_state=state,
        to_state=state,
        deadline_at=request.deadline_at,
        policy_version=scene.effective.version,
        facts={"question_id": saying.question_id, **saying.facts},
        personal={"comment": saying.words, **saying.principals},
    )


def _notified(scene: QuestionContext, saying: QuestionMove, audit_event: AuditEvent) -> NotifiedMove:
    request = scene.request
    return NotifiedMove(
        event_id=audit_event.id,
        request_id=request.id,
        tenant_id=request.tenant_id,
        requester_id=request.requester_id,
        mode=request.mode,
        service=request.service,
        action=saying.said,
        actor=saying.actor,
        from_state=audit_event.from_state,
        to_state=str(audit_event.to_state),
        at=scene.at,
        deadline_at=request.deadline_at,
        asked_at=request.asked_at,
        asked=frozenset({request.requester_id if saying.said == QUESTION else saying.asker_id}),
    )


def _exchange(session: UnitOfWork, scene: QuestionContext, question_id: UUID) -> Exchange:
    found = read(session, scene.caller, scene.request)
    return next(one for one in found if one.id == question_id)
