"""The data of the page of one request, read in one round trip: row, policy, votes, people and events."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from lockbox.audit import event_search
from lockbox.audit.event_search import EventRow, WrittenEvent
from lockbox.audit.events import Origin
from lockbox.database import Query, UnitOfWork, read_at
from lockbox.errors import NotFound, SignInAgain
from lockbox.facts.enumerations import Mode, State
from lockbox.identity import authentication
from lockbox.identity.look_alikes import NAMED, MailboxOwner, names_like
from lockbox.identity.roles import Caller
from lockbox.notifications import delivery_status, recipients
from lockbox.notifications.audience import ASKING
from lockbox.notifications.delivery_status import DeliveryReach
from lockbox.notifications.recipients import FOUND_BY_ROLE, RecipientDirectory
from lockbox.requests import access_check, approvals, decision_context, extend, questions
from lockbox.requests.access_check import OBSTACLE, RequestRow
from lockbox.requests.access_check import OPENING as OPENING_EVENT
from lockbox.requests.break_glass import record_of_review
from lockbox.requests.decide import MadeDecision
from lockbox.requests.decision_context import (
    NAMED_COLUMNS,
    RULED_COLUMNS,
    RULED_JOINS,
    DecisionContext,
    RuledRows,
    by_request,
    short,
    votes_in_rows,
)
from lockbox.requests.extend import ExtensionOutlook, outlook_under
from lockbox.requests.models import IS_OUTLIVED, IS_VISIBLE, AccessRequest, RequestEntry
from lockbox.requests.permitted_moves import OPENING, PossibleMove, permitted_moves
from lockbox.requests.policy import customer_decides
from lockbox.requests.policy_rules import FACTS
from lockbox.requests.policy_store import EffectivePolicy
from lockbox.requests.queries import NOT_KNOWN
from lockbox.requests.questions import Exchange
from lockbox.requests.quorum import ApprovalTally, sole
from lockbox.requests.request_list import LOOKED_THROUGH
from lockbox.sql import columns

MOST_EARLIER = 5
OWN, EXTENSION, FOLLOWER = "own", "extension", "follower"
PARTICIPANT = "participant"
JUDGED_BY = ("id", "tenant_id", "mode", "state", "quorum", "policy_version", "extends", *FACTS)
"""The columns of an earlier request that are needed to count its votes."""
# The next statements deal with the request's tenant, so that the vendor's people can read its people and its policy.
TURN_TO_TENANT = text("""
SELECT set_config('lockbox.at', coalesce((SELECT tenant_id::text FROM requests WHERE id = :id), ''), true)
""")
THIS = text(
    short(f"""
WITH seen AS NOT MATERIALIZED (SELECT id, extends, follows FROM requests WHERE {IS_VISIBLE}), these AS (
    SELECT id, 'own' AS place FROM seen WHERE id = :id
    UNION ALL
    (SELECT id, 'extension' FROM seen WHERE extends = :id ORDER BY id DESC LIMIT 1)
    UNION ALL
    (SELECT id, 'follower' FROM seen WHERE follows = :id ORDER BY id DESC LIMIT 1)
)
SELECT place, {NAMED_COLUMNS}, {RULED_COLUMNS},
    CASE WHEN place = 'own' THEN ({OBSTACLE}) END AS obstacle, {OPENING_EVENT} AS opening,
    clock_timestamp() AS read_at
FROM these JOIN requests USING (id)
{RULED_JOINS.format(which="place = 'own'")}
""")  # noqa: S608 - ours
)
# Because of row-level security, no index helps with arrays. So only the tenant's newest requests are searched, up to
# a limit. BETWEEN with equal bounds makes Postgres use the tenant's index, however many newer requests other tenants
# have.
SIMILAR = text(
    short(f"""
WITH this AS (SELECT tenant_id, service, resources, case_ref FROM requests WHERE id = :id), newest AS (
    SELECT requests.id, requests.service, requests.resources, requests.case_ref FROM requests
    WHERE requests.tenant_id BETWEEN (SELECT tenant_id FROM this) AND (SELECT tenant_id FROM this)
        AND requests.id < :id AND {IS_VISIBLE}
    ORDER BY requests.tenant_id DESC, requests.id DESC LIMIT {LOOKED_THROUGH}
), alike AS (
    SELECT n.id FROM newest n JOIN this
        ON n.service = this.service AND n.resources && this.resources OR n.case_ref = this.case_ref
    ORDER BY n.id DESC LIMIT {MOST_EARLIER}
)
SELECT {columns(AccessRequest, "requests", *JUDGED_BY)}, people.name AS requester, {RULED_COLUMNS},
    v.at AS moved_at, a.fields #>> '{{name,1}}' AS actor,
    CASE WHEN v.to_state = 'timed_out' AND convert_from(v.body, 'UTF8') LIKE '%"nobody_notified"%'
        THEN 'nobody_notified' WHEN {IS_OUTLIVED} THEN 'outlived' ELSE v.to_state END AS reached
FROM alike JOIN requests ON requests.id = alike.id
{RULED_JOINS.format(which="requests.state = 'pending'")}
JOIN events v ON v.request_id = requests.id AND v.seq = requests.version
LEFT JOIN event_details a ON a.event_id = v.id
ORDER BY requests.id DESC
""")  # noqa: S608 - ours
)
# Participants are read together with the people who can be notified; each of their further mailboxes gives a row.
PEOPLE = text(
    short(f"""{FOUND_BY_ROLE}
UNION ALL
SELECT '{PARTICIPANT}', NULL, q.id, ARRAY[q.name, q.email, q.further], true FROM ({NAMED}
WHERE p.id IN (SELECT at_person() UNION SELECT requester_id FROM requests WHERE id = :id
    UNION SELECT actor_id FROM events WHERE request_id = :id AND seq > 0)) q
""")  # noqa: S608 - ours
)


@dataclass(frozen=True)
class SimilarRequest:
    """`state` is `nobody_notified` if the request timed out before anyone was notified.

    `at` and `actor` are when and by whom the request got into this state. `tally` is the approvals so far if the
    request waits for approvers only.
    """

    id: UUID
    requester: str
    state: str
    at: datetime
    actor: str | None
    tally: ApprovalTally | None


@dataclass(frozen=True)
class RequestOverview:
    """Everything was read at one time, `at`.

    `events` are the moves up to the version that was read, and the other events of the request. `tallies` are empty
    unless the customer is asked. `namesakes` are participants with a name or mailbox like the reader's, who may be
    the reader under another account. They are listed only if the reader could endorse, approve or use break-glass.
    """

    entry: RequestEntry
    at: datetime
    known: RecipientDirectory
    effective: EffectivePolicy
    events: Sequence[EventRow]
    reach: DeliveryReach
    exchanges: Sequence[Exchange]
    moves: Sequence[PossibleMove]
    tallies: Sequence[ApprovalTally]
    namesakes: Sequence[str]
    earlier: Sequence[SimilarRequest]
    outlook: ExtensionOutlook
    follower: UUID | None


def ahead_of_read(request_id: UUID) -> list[Query]:
    by_id = {"id": request_id}
    return [
        (TURN_TO_TENANT, by_id),
        (THIS, by_id),
        (SIMILAR, by_id),
        _people(request_id),
        event_search.ahead_of_events(request_id),
        delivery_status.ahead_of_reach(request_id),
        questions.ahead_of_read(request_id),
    ]


def _people(request_id: UUID, at: datetime | None = None) -> Query:
    _, values = recipients.ahead_of_look_up()
    return PEOPLE, {**values, "at": at, "id": request_id}


def read(session: UnitOfWork, caller: Caller, request_id: UUID) -> RequestOverview:
    """From here on, the request's tenant is the transaction's tenant (`authentication.turn_to`)."""
    authentication.enter(session, caller)
    by_id = {"id": request_id}
    session.execute(TURN_TO_TENANT, by_id)
    rows = session.execute(THIS, by_id).all()
    own = next((row for row in rows if row.place == OWN), None)
    if own is None:
        raise NotFound(NOT_KNOWN)
    request, at = AccessRequest.of(own), read_at(session, own.read_at)
    similar = session.execute(SIMILAR, by_id).all()
    people = session.execute(*_people(request_id, None if at is own.read_at else at)).all()
    known = recipients.directory_in(session, (person for person in people if person.role != PARTICIPANT))
    # A move since the read is left to the next refresh, because the page's forms carry the version that was read.
    events = [event for event in event_search.events(session, request_id) if (event.seq or 0) <= request.version]
    reach = delivery_status.reach_of_request(session, request_id, request.state)
    exchanges = questions.read(session, caller, request)
    row = RequestRow(request, own.tenant, own.requester, own.tenant_name, own.obstacle, own.opening)
    (entry,) = access_check.judged(session, [row], at)
    scene = _scene(session, caller, request, rows, known, at)
    moves = permitted_moves(scene.situation(request))
    is_asked = request.state is State.PENDING and customer_decides(request.mode)
    extension = next((AccessRequest.of(row) for row in rows if row.place == EXTENSION), None)
    return RequestOverview(
        entry=entry,
        at=at,
        known=known,
        effective=scene.effective,
        events=events,
        reach=reach,
        exchanges=exchanges,
        moves=moves,
        tallies=scene.tallies(request) if is_asked else [],
        namesakes=_namesakes(caller, people) if _could_be_second(moves) else [],
        earlier=_earlier(session, similar, known),
        outlook=outlook_under(caller, entry, extension, scene.effective),
        follower=next((row.id for row in rows if row.place == FOLLOWER), None),
    )


@dataclass(frozen=True)
class RowsBeside:
    similar: Sequence[Row[Any]]
    events: Sequence[EventRow]
    exchanges: Sequence[Row[Any]]


def ahead_of_rows(request_id: UUID) -> list[Query]:
    by_id = {"id": request_id}
    return [(SIMILAR, by_id), event_search.ahead_of_events(request_id), questions.ahead_of_read(request_id)]


def rows_beside(session: UnitOfWork, request_id: UUID) -> RowsBeside:
    similar, events, exchanges = (session.execute(*query).all() for query in ahead_of_rows(request_id))
    return RowsBeside(similar, events, exchanges)


def after_decision(session: UnitOfWork, made: MadeDecision, beside: RowsBeside) -> RequestOverview:
    """Return the page's data for the person who has just decided, mostly from the values that were written."""
    (entry,) = access_check.unless_restored(session, [made.entry])
    request, scene = entry.request, replace(made.scene, break_glass=None, too_new=None)
    caller, known, is_pending = scene.caller, scene.known, request.state is State.PENDING
    is_asked = is_pending and customer_decides(request.mode)
    if is_pending:
        terms, keys = scene.effective.terms, scene.keys
        too_new = approvals.passkey_obstacle(session, caller, terms, scene.at, keys=keys)
        scene = replace(scene, too_new=too_new)
    moves = permitted_moves(scene.situation(request))
    people = session.execute(*_people(request.id, scene.at)).all() if _could_be_second(moves) else []
    extension = extend.extension_of(session, caller, request.id) if request.opened_at and request.closed_at else None
    return RequestOverview(
        entry=entry,
        at=scene.at,
        known=known,
        effective=scene.effective,
        events=[*beside.events, *(WrittenEvent.of(move.event()) for move in made.moves)],
        reach=_reach(session, request),
        exchanges=questions.exchanges_in(beside.exchanges, caller, request),
        moves=moves,
        tallies=scene.tallies(request) if is_asked else [],
        namesakes=_namesakes(caller, people),
        earlier=_earlier(session, beside.similar, known),
        outlook=outlook_under(caller, entry, extension, scene.effective),
        follower=None,
    )


def _reach(session: UnitOfWork, request: AccessRequest) -> DeliveryReach:
    if request.state in ASKING:
        return delivery_status.reach_of_request(session, request.id, request.state)
    return DeliveryReach(request.state, asked=0, reached=0, waiting=0, unreached=0)


def _could_be_second(moves: Iterable[PossibleMove]) -> bool:
    return any(move.action in OPENING and (move.allowed or isinstance(move.refusal, SignInAgain)) for move in moves)


def _namesakes(caller: Caller, people: Iterable[Row[Any]]) -> list[str]:
    took_part = [MailboxOwner(person.id, *person.more) for person in people if person.role == PARTICIPANT]
    return names_like(caller.person_id, took_part)


def _scene(  # noqa: PLR0917 - all that a context is made from
    session: UnitOfWork,
    caller: Caller,
    request: AccessRequest,
    rows: Sequence[Row[Any]],
    known: RecipientDirectory,
    at: datetime,
) -> DecisionContext:
    """Nothing is locked."""
    theirs = [row for row in rows if row.place == OWN]
    effective = RuledRows(rows).effective(session, theirs[0], request)
    votes = votes_in_rows(session, request, theirs, known, effective)
    record = record_of_review(session, request, caller)
    is_asked = request.state is State.PENDING
    too_new = approvals.passkey_obstacle(session, caller, effective.terms, at) if is_asked else None
    return DecisionContext(caller, Origin(""), known, effective, at, votes, record, too_new=too_new)


def _earlier(session: UnitOfWork, rows: Sequence[Row[Any]], known: RecipientDirectory) -> list[SimilarRequest]:
    ruled = RuledRows(rows)

    def tally(some: Sequence[Row[Any]]) -> ApprovalTally | None:
        request = some[0]
        if request.state != State.PENDING or not customer_decides(Mode(request.mode)):
            return None
        effective = ruled.effective(session, request, request)
        votes = votes_in_rows(session, request, some, known, effective)
        return sole(decision_context.tallies_of(request, effective, votes))

    earlier = by_request(rows)
    return [
        SimilarRequest(one, some[0].requester, some[0].reached, some[0].moved_at, some[0].actor, tally(some))
        for one, some in earlier.items()
    ]
