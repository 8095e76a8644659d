"""Tables of the requests package, and a request as its reader sees it."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from sqlalchemy import BigInteger, Boolean, ColumnElement, Row, Text, and_, func, literal_column, or_, true
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import class_mapper
from sqlmodel import Field, SQLModel, col

from lockbox.audit.canonical import canonical
from lockbox.facts.ask import Ask
from lockbox.facts.clock import Clock
from lockbox.facts.enumerations import AuthMethod, State
from lockbox.facts.fact import values_of
from lockbox.facts.requester import Requester
from lockbox.facts.window import Window
from lockbox.identity.roles import SEE_ALL, SEE_THEIR_TENANTS, Caller
from lockbox.requests.deadlines import RequestClock, timing_of
from lockbox.requests.lifecycle import Action, AfterReviewFinding, HeldBack
from lockbox.requests.policy import Timing
from lockbox.sql import Ids, Instant, Texts, words


class AccessRequest(Window, Clock, Requester, Ask, table=True):
    """`submitted_by` is the requester, or the system that submitted for them.

    `token_id` is the token of the submission. Old requests may have neither value.
    """

    __tablename__ = "requests"

    id: UUID = Field(primary_key=True)
    tenant_id: UUID = Field(foreign_key="tenants.id")
    requester_id: UUID = Field(foreign_key="people.id")
    token_id: UUID | None = None
    submitted_by: UUID | None = Field(default=None, foreign_key="people.id")

    @property
    def open_resources(self) -> list[str]:
        return self.resources_of(self)

    @property
    def open_actions(self) -> list[str]:
        return self.actions_of(self)

    def given(self, names: Iterable[str]) -> dict[str, Any]:
        """The non-empty values under these names."""
        return {name: value for name in names if (value := getattr(self, name))}

    @property
    def context_text(self) -> str | None:
        """The text in events and signed statements: JSON in the canonical form of RFC 8785."""
        return canonical(self.context).decode() if self.context else None

    @property
    def uses_left(self) -> int | None:
        """None if uses are not limited."""
        return None if self.max_uses is None else self.max_uses - self.used

    @property
    def window_from(self) -> datetime | None:
        """None if the window was never opened."""
        return self.opens_at or self.opened_at

    @property
    def timing(self) -> Timing:
        return timing_of(self, self.created_at)

    def runs_at(self, at: datetime) -> bool:
        return (self.opens_at is None or self.opens_at <= at) and at < self.deadline_at

    @property
    def clock(self) -> RequestClock:
        return RequestClock(self.deadline_at, self.stopped_at, self.stopped_deadline, self.stopped_for)

    @classmethod
    def visible_to(cls, caller: Caller) -> ColumnElement[bool]:
        """Requesters can see their own requests in any role."""
        if caller.holds(*SEE_ALL):
            return true()
        own = col(cls.requester_id) == caller.person_id
        if tenants := caller.tenants(SEE_THEIR_TENANTS):
            return or_(own, and_(col(cls.tenant_id).in_(tenants), col(cls.asked_at).is_not(None)))
        return own

    @classmethod
    def can_be_answered(cls) -> ColumnElement[bool]:
        """A window that the request extends must not have been ended early."""
        return or_(col(cls.extends).is_(None), func.ran_to_its_end(col(cls.extends), type_=Boolean))

    @classmethod
    def of(cls, row: Row[Any]) -> Self:
        # Made as the ORM makes what it has read: a constructor sets each attribute separately, which takes longer.
        request: Self = class_mapper(cls).class_manager.new_instance()
        request.__dict__.update(values_of(cls, row))
        return request


REACH_ALL = ",".join(sorted(SEE_ALL))
IS_VISIBLE = f"""
((SELECT at_roles()) && '{{{REACH_ALL}}}'::text[] OR requests.requester_id = (SELECT at_person())
    OR requests.asked_at IS NOT NULL AND requests.tenant_id = ANY ((SELECT at_tenants())::uuid[]))
"""
"""`visible_to` in SQL for the person for whom the transaction was entered; it has no parameters."""
IS_OUTLIVED = """
(requests.extends IS NOT NULL AND requests.state IN ('reviewing', 'pending') AND NOT ran_to_its_end(requests.extends))
"""
"""Whether a request waits for an answer that can no longer be used: the window that it extends was ended."""
IS_OPEN: ColumnElement[bool] = literal_column("requests.state IN ('reviewing', 'pending', 'active')", Boolean)
"""The condition for open requests; its states are literals, as in the partial indexes of open requests."""


class Decision(SQLModel, table=True):
    """A decision is never changed.

    The fields from `access_window` to `opens_at` narrow the request as in `ApprovalLimits`. `principals` are the
    approvers for whom the person acted as a delegate. `statement`, `signed_content` and `assertion` are what the
    person signed with the passkey `passkey_id`; all are None if only the vendor's server attests the decision. `mac`
    is the MAC under the key `powers`. `knows_context` is false if the release that wrote the decision does not show
    the request's context.
    """

    __tablename__ = "decisions"

    id: UUID = Field(primary_key=True)
    request_id: UUID = Field(foreign_key="requests.id")
    person_id: UUID = Field(foreign_key="people.id")
    decision: Action = Field(sa_type=words(Action))
    principals: list[UUID] = Field(default_factory=list, sa_type=Ids)
    means: AuthMethod = Field(sa_type=words(AuthMethod))
    access_window: int | None = None
    resources: list[str] | None = Field(default=None, sa_type=Texts)
    actions: list[str] | None = Field(default=None, sa_type=Texts)
    max_uses: int | None = None
    opens_at: datetime | None = Field(default=None, sa_type=Instant)
    comment: str | None = Field(default=None, max_length=2000)
    channel: str = Field(max_length=24)
    address: str | None = Field(default=None, max_length=45)
    user_agent: str | None = Field(default=None, max_length=256)
    decided_at: datetime = Field(sa_type=Instant)
    statement: str | None = Field(default=None, sa_type=Text)
    signed_content: str | None = Field(default=None, sa_type=Text)
    assertion: str | None = Field(default=None, sa_type=Text)
    passkey_id: UUID | None = None
    mac: bytes | None = None
    knows_context: bool = True


class PreApproval(SQLModel, table=True):
    """The customer's advance approval of requests of one kind, until `ends_at`.

    `resource` is a pattern, `access_window` is the longest window in seconds, and `used` is the number of windows
    opened so far. `mac` covers all columns but `used` and `ended_at`.
    """

    __tablename__ = "pre_approvals"

    id: UUID = Field(primary_key=True)
    tenant_id: UUID = Field(foreign_key="tenants.id")
    service: str = Field(max_length=63)
    resource: str = Field(max_length=256)
    actions: list[str] = Field(sa_type=Texts)
    reason_code: str = Field(max_length=24)
    access_window: int
    max_uses: int
    ends_at: datetime = Field(sa_type=Instant)
    proposed_by: UUID = Field(foreign_key="people.id")
    proposed_at: datetime = Field(sa_type=Instant)
    used: int = 0
    revoked_at: datetime | None = Field(default=None, sa_type=Instant)
    revoked_by: UUID | None = Field(default=None, foreign_key="people.id")
    ended_at: datetime | None = Field(default=None, sa_type=Instant)
    mac: bytes | None = None


class PreApprovalVote(SQLModel, table=True):
    """A vote is never changed. `principals` and `means` are as in `Decision`."""

    __tablename__ = "pre_approval_votes"

    id: UUID = Field(primary_key=True)
    pre_approval_id: UUID = Field(foreign_key="pre_approvals.id")
    person_id: UUID = Field(foreign_key="people.id")
    principals: list[UUID] = Field(default_factory=list, sa_type=Ids)
    means: AuthMethod = Field(sa_type=words(AuthMethod))
    decided_at: datetime = Field(sa_type=Instant)
    mac: bytes | None = None


class AfterReview(SQLModel, table=True):
    """`remind_at` is None once there is a finding or no one is left to give it.

    The finding's comment is stored with the event.
    """

    __tablename__ = "after_reviews"

    request_id: UUID = Field(primary_key=True, foreign_key="requests.id")
    tenant_id: UUID = Field(foreign_key="tenants.id")
    opened_at: datetime = Field(sa_type=Instant)
    due_at: datetime = Field(sa_type=Instant)
    remind_at: datetime | None = Field(default=None, sa_type=Instant)
    reminders: int = 0
    finding: AfterReviewFinding | None = Field(default=None, sa_type=words(AfterReviewFinding))
    found_by: UUID | None = Field(default=None, foreign_key="people.id")
    found_at: datetime | None = Field(default=None, sa_type=Instant)
    found_event: UUID | None = None


class Question(SQLModel, table=True):
    """The texts of question and answer are stored with the two events.

    `state` is the request's state when the question was asked. `stops_clock` is whether the approval clock waits for
    the answer.
    """

    __tablename__ = "questions"

    id: UUID = Field(primary_key=True)
    tenant_id: UUID = Field(foreign_key="tenants.id")
    request_id: UUID = Field(foreign_key="requests.id", index=True)
    state: State = Field(sa_type=words(State))
    stops_clock: bool
    asked_by: UUID = Field(foreign_key="people.id")
    asked_at: datetime = Field(sa_type=Instant)
    asked_event: UUID
    answered_by: UUID | None = Field(default=None, foreign_key="people.id")
    answered_at: datetime | None = Field(default=None, sa_type=Instant)
    answer_event: UUID | None = None


class RequestRead(SQLModel, table=True):
    __tablename__ = "request_reads"

    person_id: UUID = Field(primary_key=True, foreign_key="people.id")
    request_id: UUID = Field(primary_key=True, foreign_key="requests.id")
    hour: datetime = Field(sa_type=Instant)


class WindowUse(SQLModel, table=True):
    """A resource is stored as its position in the window's list, from 1; None if the list does not have it.

    `look_at` is when the event about the first or the last use is due.
    """

    __tablename__ = "window_uses"

    request_id: UUID = Field(primary_key=True, foreign_key="requests.id")
    count: int = Field(sa_type=BigInteger)
    first_at: datetime = Field(sa_type=Instant)
    first_gateway: UUID
    first_action: str = Field(max_length=63)
    first_resource: int | None = None
    last_at: datetime = Field(sa_type=Instant)
    last_gateway: UUID
    last_action: str = Field(max_length=63)
    last_resource: int | None = None
    first_told: bool = False
    look_at: datetime | None = Field(default=None, sa_type=Instant)


class IdempotencyKey(SQLModel, table=True):
    """Kept for 24 hours; only for successful calls."""

    __tablename__ = "idempotency_keys"

    person_id: UUID = Field(primary_key=True, foreign_key="people.id")
    key: str = Field(primary_key=True, max_length=255)
    body_hash: bytes
    answer: dict[str, Any] = Field(sa_type=JSONB)
    created_at: datetime = Field(sa_type=Instant, index=True)


@dataclass(frozen=True)
class RequestEntry:
    """For `held_back`, see `HeldBack`.

    `tenant` is the tenant's slug. `is_same_use` is whether the same call used the window within the last five
    seconds. `is_outlived` is whether the request waits for an answer that can no longer be used, because the window
    that it extends was ended.
    """

    request: AccessRequest
    tenant: str
    requester: str
    open: bool
    held_back: HeldBack | None = None
    tenant_name: str = ""
    uses_left: int | None = None
    is_same_use: bool = False
    is_outlived: bool = False
