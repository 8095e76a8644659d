"""Bodies of requests: what an engineer files, what a person answers, what a reader sees."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas.parts import Incoming, Line, Named, Resource, Seconds, Slug, Text, Word
from lockbox.people.roles import Mode
from lockbox.requests.lifecycle import State
from lockbox.requests.terms import Reason, Terms


class NewRequest(Incoming):
    """What an engineer asks for; `access_window` in seconds."""

    tenant: Slug
    service: Word
    resources: list[Resource] = Field(min_length=1, max_length=50)
    actions: list[Word] = Field(default=["read"], min_length=1, max_length=20)
    reason_code: Reason
    justification: Annotated[Text, Field(max_length=4000)]
    case_ref: Annotated[Line, Field(max_length=100)] | None = None
    access_window: Seconds
    engineer: UUID | None = Field(default=None, description="only where a system files for an engineer")


class Comment(Incoming):
    """Why somebody acts."""

    comment: Annotated[Text, Field(max_length=2000)] | None = None


class Approval(Comment):
    """A yes; `access_window` in seconds shortens what was asked."""

    access_window: Seconds | None = None


class NoticeCount(BaseModel):
    """How far the notices of a request have come."""

    waiting: int = 0
    sent: int = 0
    moot: int = 0
    dead: int = 0


class LastTryView(BaseModel):
    """How the last try of a notice went; `error` is null where it arrived."""

    at: datetime
    took_ms: int
    status: int | None
    error: str | None


class NoticeView(BaseModel):
    """One notice to somebody on the reader's own side; `outcome` is `waiting`, `sent`, `moot` or `dead`."""

    id: UUID
    recipient: str
    channel: str
    template: str
    event_at: datetime
    outcome: str
    attempts: int
    next_try_at: datetime | None
    closed_at: datetime | None
    last_error: str | None
    last_try: LastTryView | None


class NoticeList(BaseModel):
    """The notices of a request to the reader's own side, the oldest first, and how those to the other side fared."""

    own: list[NoticeView]
    other: NoticeCount


class RequestView(BaseModel):
    """A request; `open` is computed on the database's clock when asked, never from a timer having fired.

    The justification is null for readers whom it is not meant for, such as the vendor's auditors. `reminders` were
    sent since it is in this state, `tiers_asked` is how far the tiers of approvers were asked, 0 where there are
    none, and `warned` is whether the end of the open window was announced.
    """

    id: UUID
    tenant: str
    requester: Named
    service: str
    resources: list[str]
    actions: list[str]
    reason_code: str
    justification: str | None
    case_ref: str | None
    mode: Mode
    policy_version: int
    state: State
    open: bool
    version: int
    quorum: int
    access_window: int
    deadline_at: datetime
    created_at: datetime
    opened_at: datetime | None
    closed_at: datetime | None
    reminders: int
    tiers_asked: int
    warned: bool


class DecisionView(BaseModel):
    """One answer to a request: by whom, by what means, and in the place of whom where a deputy gave it."""

    verdict: str
    by: Named
    role: str
    on_behalf_of: Named | None
    stands_for: list[Named]
    means: str | None
    at: datetime


class RequestDetail(RequestView):
    """A request with the answers to it, the oldest first, and how its notices fared."""

    decisions: list[DecisionView]
    notices: NoticeCount


class NewRequestView(RequestView):
    """A request that was just filed, and how many people are asked about it."""

    asked: int


class RequestPage(BaseModel):
    """Some requests, newest first; `next_cursor` leads to those that follow."""

    items: list[RequestView]
    next_cursor: str | None


class EventView(BaseModel):
    """One entry of a request's timeline; the actor is a person, or null where the clock acted.

    `on_behalf_of` is for whom a system or a deputy acted, `stands_for` all whose deputy a person was, `means` by what
    whoever decided had shown who they are: `mail-only` is a code from a mail alone. Address and user agent are for
    the actor's own side, comments for the two parties; others read null.
    """

    seq: int
    at: datetime
    action: str
    actor: Named | None
    role: str
    on_behalf_of: Named | None
    stands_for: list[Named]
    means: str | None
    address: str | None
    user_agent: str | None
    from_state: str | None
    to_state: str
    deadline_at: datetime | None
    comment: str | None


class EventList(BaseModel):
    """The timeline of a request, complete and in order."""

    items: list[EventView]


class AccessView(BaseModel):
    """An open window: let the engineer in, and ask again before `deadline_at`."""

    open: Literal[True] = True
    request_id: UUID
    deadline_at: datetime


class Needed(BaseModel):
    """A stage: a group that must also agree, how many of it, and who could."""

    group: str
    approvals: int
    people: list[str]


class Lack(BaseModel):
    """A field of the filing and what it lacks under the tenant's policy."""

    field: str
    message: str


class PreviewView(BaseModel):
    """What a request would meet and whom it would reach: names and counts, no addresses; nothing was written.

    `can_be_filed` is whether it would be taken as it is.
    """

    can_be_filed: bool
    policy_version: int
    mode: Mode
    first_state: State
    terms: Terms
    reviewers: list[str]
    asked_first: list[str]
    could_approve: list[str]
    stages: list[Needed]
    lacks: list[Lack]
    obstacles: list[str]
