"""Writing moves: request rows, events and promised notifications, any number of them in one statement."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlmodel import Session

from lockbox import database, sql
from lockbox.audit import events
from lockbox.audit.canonical import Value
from lockbox.audit.events import THE_CLOCK, Actor, AuditEvent
from lockbox.audit.log.signing_keys import LIST_KEY
from lockbox.identity.roles import Caller, Mode
from lockbox.notifications import outbox
from lockbox.notifications.audience import Reminder
from lockbox.notifications.outbox import MoveNotification
from lockbox.notifications.recipients import RecipientDirectory
from lockbox.requests.lifecycle import Action, Party, State, clock_task
from lockbox.requests.models import AccessRequest, Decision
from lockbox.schedule import CLOCK, IndexEntry
from lockbox.sql import array

NEW_REQUEST = """
new_request AS (
    INSERT INTO requests (id, tenant_id, requester_id, service, resources, actions, reason_code, justification,
        case_ref, mode, policy_version, token_id, filed_by, consent_until, quorum, approval_window, access_window,
        state, version, deadline_at, wake_at, created_at, asked_at, tiers_asked, follows)
    VALUES (:id, :tenant_id, :requester_id, :service, CAST(:resources AS text[]), CAST(:actions AS text[]),
        :reason_code, :justification, :case_ref, :mode, :policy_version, :token_id, :filed_by, :consent_until,
        :quorum, :approval_window, :access_window, :state, :version, :deadline_at, :wake_at, :created_at, :asked_at,
        :tiers_asked, :follows)
)"""

MOVED = """
moved AS (
    UPDATE requests SET state = :state, version = :version, mode = :mode, consent_until = :consent_until,
        deadline_at = :deadline_at, wake_at = :wake_at, asked_at = :asked_at,
        opened_at = :opened_at, closed_at = :closed_at, quorum = :quorum,
        reminders = :reminders, tiers_asked = :tiers_asked, warned = :warned, stopped_at = :stopped_at,
        stopped_deadline = :stopped_deadline, stopped_for = :stopped_for,
        granted_resources = CAST(:granted_resources AS text[]), granted_actions = CAST(:granted_actions AS text[]),
        approve_means = :approve_means
    WHERE id = :id
)"""

DECIDED = """
decided AS (
    INSERT INTO decisions (id, request_id, person_id, stands_for, verdict, means, access_window, resources, actions,
        comment, channel, address, user_agent, decided_at, statement, signed_content, assertion, passkey_id,
        mac)
    VALUES (:d_id, :d_request_id, :d_person_id, CAST(:d_stands_for AS uuid[]), :d_verdict, :d_means, :d_access_window,
        CAST(:d_resources AS text[]), CAST(:d_actions AS text[]), :d_comment, :d_channel, :d_address, :d_user_agent,
        :d_decided_at, :d_statement, :d_signed_content, :d_assertion, :d_passkey_id, :d_mac)
)"""

ENDED = """
ended AS (
    UPDATE requests r SET state = e.state, version = e.version, wake_at = NULL, closed_at = e.closed_at
    FROM unnest(CAST(:id AS uuid[]), CAST(:state AS text[]), CAST(:version AS integer[]),
        CAST(:closed_at AS timestamptz[])) AS e (id, state, version, closed_at)
    WHERE r.id = e.id
)"""

REMINDED = """
nudged AS (
    UPDATE requests r SET wake_at = n.wake_at, reminders = n.reminders, tiers_asked = n.tiers_asked,
        warned = n.warned
    FROM unnest(CAST(:id AS uuid[]), CAST(:wake_at AS timestamptz[]), CAST(:reminders AS integer[]),
        CAST(:tiers_asked AS integer[]), CAST(:warned AS boolean[]))
        AS n (id, wake_at, reminders, tiers_asked, warned)
    WHERE r.id = n.id
)"""


REASONED = frozenset({Reminder.WIDEN, Reminder.UNREACHED})
"""The nudges for which there is a reason beside the time: that nobody could be told."""


def _statement(*parts: str) -> TextClause:
    return text("WITH " + ",".join((*parts, events.APPEND, outbox.PROMISE)) + " SELECT 1")


SUBMITTED = _statement(NEW_REQUEST)
MOVED_ALONE = _statement(MOVED)
MOVED_BY_DECISION = _statement(MOVED, DECIDED, LIST_KEY)
ENDED_BY_CLOCK = _statement(ENDED, sql.ADD_LAGS)
REMINDED_BY_CLOCK = _statement(REMINDED)


@dataclass(frozen=True)
class Origin:
    """Where a call came from."""

    channel: str
    address: str | None = None
    user_agent: str | None = None


@dataclass(frozen=True)
class RequestMove:
    """One move that was judged legal: the request as it is after it, and how it came about.

    `asked` are those whom it asks: managers for a review, else people of the customer. `policy_version` is that of
    the tenant's policy by which it was judged; the clock judges by none.
    """

    request_id: UUID
    tenant_id: UUID
    requester_id: UUID
    mode: Mode
    service: str
    action: Action
    actor: Actor
    from_state: State | None
    to_state: State
    version: int
    at: datetime
    deadline_at: datetime
    wake_at: datetime | None
    asked_at: datetime | None
    policy_version: int | None = None
    asked: frozenset[UUID] = frozenset()
    facts: Mapping[str, Value] = field(default_factory=dict)
    personal: Mapping[str, str | None] = field(default_factory=dict)
    salts: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def starts_a_clock(self) -> bool:
        """Whether this move set the deadline that the request now has."""
        return self.wake_at is not None and self.to_state is not self.from_state

    def happening(self) -> AuditEvent:
        """Return the event that this move leaves."""
        return AuditEvent(
            at=self.at,
            action=self.action,
            actor=self.actor,
            tenant_id=self.tenant_id,
            request_id=self.request_id,
            seq=self.version,
            from_state=self.from_state,
            to_state=self.to_state,
            deadline_at=self.deadline_at if self.starts_a_clock else None,
            policy_version=self.policy_version,
            facts=self.facts,
            personal=self.personal,
            salts=self.salts,
        )

    def news(self, event_id: UUID) -> MoveNotification:
        """Return this move as those who are told of it see it."""
        return MoveNotification(
            event_id=event_id,
            request_id=self.request_id,
            tenant_id=self.tenant_id,
            requester_id=self.requester_id,
            actor_id=self.actor.person_id,
            actor_role=self.actor.role,
            action=self.action,
            mode=self.mode,
            service=self.service,
            from_state=self.from_state,
            to_state=self.to_state,
            customer_knows=self.asked_at is not None,
            at=self.at,
            deadline_at=self.deadline_at,
            asked=self.asked,
        )

    def promise(self) -> IndexEntry:
        """Return what the clock's index has to hold of the request from now on."""
        kind = clock_task(self.to_state, self.wake_at, self.deadline_at)
        return IndexEntry(str(self.request_id), kind, self.wake_at)


@dataclass(frozen=True)
class RequestReminder:
    """One request that the clock nudges and that stays as it is: its clock and counters after it, and who hears.

    `told` is, for each nudge, who is asked by it; others may hear of it too. `unreached` is how many were asked where
    none of them could be told, None where somebody was or may still be.
    """

    request_id: UUID
    tenant_id: UUID
    requester_id: UUID
    mode: Mode
    service: str
    state: State
    at: datetime
    deadline_at: datetime
    wake_at: datetime
    reminders: int
    tiers_asked: int
    warned: bool
    told: Mapping[Reminder, frozenset[UUID]]
    policy_version: int
    unreached: int | None = None

    def happening(self, nudge: Reminder) -> AuditEvent:
        """Return the event that a nudge leaves; it has no seq, for it is no move."""
        facts: dict[Reminder, dict[str, Value]] = {
            Reminder.REMIND: {"reminders": self.reminders},
            Reminder.WIDEN: {"tiers_asked": self.tiers_asked},
        }
        in_vain: dict[str, Value] = {"unreached": self.unreached} if self.unreached is not None else {}
        if nudge in REASONED:
            facts[nudge] = facts.get(nudge, {}) | in_vain
        return AuditEvent(
            at=self.at,
            action=nudge,
            actor=THE_CLOCK,
            tenant_id=self.tenant_id,
            request_id=self.request_id,
            from_state=self.state,
            to_state=self.state,
            deadline_at=self.deadline_at,
            policy_version=self.policy_version,
            facts=facts.get(nudge, {}),
        )

    def news(self, nudge: Reminder, event_id: UUID) -> MoveNotification:
        """Return a nudge as those who are told of it see it."""
        return MoveNotification(
            event_id=event_id,
            request_id=self.request_id,
            tenant_id=self.tenant_id,
            requester_id=self.requester_id,
            actor_id=None,
            actor_role=str(THE_CLOCK.role),
            action=nudge,
            mode=self.mode,
            service=self.service,
            from_state=self.state,
            to_state=self.state,
            customer_knows=self.state is not State.REVIEWING,
            at=self.at,
            deadline_at=self.deadline_at,
            asked=self.told[nudge],
            nudge=nudge,
        )

    def promise(self) -> IndexEntry:
        """Return what the clock's index has to hold of the request from now on."""
        kind = clock_task(self.state, self.wake_at, self.deadline_at)
        return IndexEntry(str(self.request_id), kind, self.wake_at)


def identity(request: AccessRequest) -> dict[str, Any]:
    """Return the part of a Change that a request row, already moved, says of itself."""
    return {
        "request_id": request.id,
        "tenant_id": request.tenant_id,
        "requester_id": request.requester_id,
        "mode": request.mode,
        "service": request.service,
        "to_state": State(request.state),
        "version": request.version,
        "deadline_at": request.deadline_at,
        "wake_at": request.wake_at,
        "asked_at": request.asked_at,
    }


def actor_for(caller: Caller, party: Party, origin: Origin, on_behalf_of: UUID | None = None) -> Actor:
    """Return the caller as the audit trail names who acted."""
    return Actor(
        person_id=caller.person_id,
        role=party,
        name=caller.name,
        channel=origin.channel,
        address=origin.address,
        user_agent=origin.user_agent,
        on_behalf_of=on_behalf_of,
    )


def insert(session: Session, request: AccessRequest, change: RequestMove, known: RecipientDirectory) -> None:
    """Write a new request with its first event and the notifications it promises."""
    _write(session, SUBMITTED, [change], known, request.model_dump())


def update(  # noqa: PLR0917 - as many things are written
    session: Session,
    request: AccessRequest,
    change: RequestMove,
    known: RecipientDirectory,
    decision: Decision | None = None,
    approval_key: str | None = None,
) -> None:
    """Write a person's move: the request as it is now, the decision if it is one, the event, the notifications.

    `approval_key` is the public key that signs approvals; it is listed with the first decision made by it.
    """
    row = request.model_dump()
    if decision is None:
        _write(session, MOVED_ALONE, [change], known, row)
    else:
        prefixed = {f"d_{name}": value for name, value in decision.model_dump().items()}
        _write(session, MOVED_BY_DECISION, [change], known, row | prefixed | {"approval_key": approval_key})


def end(session: Session, changes: Sequence[RequestMove], known: RecipientDirectory) -> None:
    """Write the clock's moves, all of which end their request."""
    rows = {
        "id": array(change.request_id for change in changes),
        "state": array(change.to_state.value for change in changes),
        "version": array(change.version for change in changes),
        "closed_at": array(change.at for change in changes),
        **sql.lags((one.at - one.deadline_at).total_seconds() for one in changes if one.at >= one.deadline_at),
    }
    _write(session, ENDED_BY_CLOCK, changes, known, rows)


def remind(session: Session, nudged: Sequence[RequestReminder], known: RecipientDirectory) -> None:
    """Write what the clock does to requests that stay as they are: counters, clocks, events, notifications."""
    rows = {
        "id": array(one.request_id for one in nudged),
        "wake_at": array(one.wake_at for one in nudged),
        "reminders": array(one.reminders for one in nudged),
        "tiers_asked": array(one.tiers_asked for one in nudged),
        "warned": array(str(one.warned).lower() for one in nudged),
    }
    happened = [(one, nudge, one.happening(nudge)) for one in nudged for nudge in one.told]
    news = [one.news(nudge, event.id) for one, nudge, event in happened]
    parameters = {
        **rows,
        **events.append(event for _, _, event in happened),
        **outbox.queue_notifications(session, known, news),
    }
    session.connection().execute(REMINDED_BY_CLOCK, parameters)
    database.arm_after_commit(session, CLOCK, [one.promise() for one in nudged])


def _write(
    session: Session,
    statement: TextClause,
    changes: Sequence[RequestMove],
    known: RecipientDirectory,
    row: Mapping[str, Any],
) -> None:
    happenings = [change.happening() for change in changes]
    news = [change.news(event.id) for change, event in zip(changes, happenings, strict=True)]
    parameters = {**row, **events.append(happenings), **outbox.queue_notifications(session, known, news)}
    session.connection().execute(statement, _plain(parameters))
    database.arm_after_commit(session, CLOCK, [change.promise() for change in changes])


def _plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.value if isinstance(value, StrEnum) else value for name, value in parameters.items()}
