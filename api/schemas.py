"""What comes in over HTTP and what goes out; nothing gets past these that the house does not expect."""

import re
import unicodedata
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from http import HTTPStatus
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from lockbox.people.roles import Mode
from lockbox.requests.lifecycle import State
from lockbox.requests.policy import HARD_ACCESS_LIMIT

RESOURCE = re.compile(r"[a-z][a-z0-9-]{0,31}:\S{1,220}")
FORGING_MARKS = re.compile("[\u202a-\u202e\u2066-\u2069\u2028\u2029]")
LINE_BREAKS = frozenset("\n\t\r")


class ReasonCode(StrEnum):
    """Why access is needed; Google's typed reasons in this field's words."""

    SUPPORT_CASE = "support_case"
    VENDOR_ALERT = "vendor_alert"
    VENDOR_REVIEW = "vendor_review"
    LEGAL_DEMAND = "legal_demand"
    OTHER = "other"


def _text(value: str) -> str:
    if any(unicodedata.category(mark) in {"Cc", "Cs"} and mark not in LINE_BREAKS for mark in value):
        raise ValueError("leave out control characters")
    if FORGING_MARKS.search(value):
        raise ValueError("leave out marks that turn the direction of text or break its lines")
    if not value.strip():
        raise ValueError("say something")
    return value.strip()


def _line(value: str) -> str:
    if not value.isprintable():
        raise ValueError("write it on one line")
    return _text(value)


def _resource(value: str) -> str:
    if "*" in value:
        raise ValueError("name each resource; wildcards are not allowed")
    if not RESOURCE.fullmatch(value) or not value.isprintable():
        raise ValueError("write a resource as kind:id, such as mailbox:anna@contoso.example")
    return value


Text = Annotated[str, AfterValidator(_text)]
Line = Annotated[str, AfterValidator(_line)]
Slug = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9][a-z0-9-]*$")]
Word = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9][a-z0-9_-]*$")]
Resource = Annotated[str, Field(max_length=256), AfterValidator(_resource)]
Seconds = Annotated[int, Field(ge=1, le=HARD_ACCESS_LIMIT, strict=True)]


class Incoming(BaseModel):
    """A body; unknown members are refused rather than ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NewRequest(Incoming):
    """What an engineer asks for; `access_window` in seconds."""

    tenant: Slug
    service: Word
    resources: list[Resource] = Field(min_length=1, max_length=50)
    actions: list[Word] = Field(default=["read"], min_length=1, max_length=20)
    reason_code: ReasonCode
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


class Named(BaseModel):
    """A person, as others see one."""

    id: UUID
    name: str


class NoticeCount(BaseModel):
    """How far the notices of a request have come."""

    waiting: int = 0
    sent: int = 0
    moot: int = 0
    dead: int = 0


class RequestView(BaseModel):
    """A request; `open` is computed on the database's clock when asked, never from a timer having fired."""

    id: UUID
    tenant: str
    requester: Named
    service: str
    resources: list[str]
    actions: list[str]
    reason_code: str
    justification: str
    case_ref: str | None
    mode: Mode
    state: State
    open: bool
    version: int
    quorum: int
    access_window: int
    deadline_at: datetime
    created_at: datetime
    opened_at: datetime | None
    closed_at: datetime | None


class RequestDetail(RequestView):
    """A request with how its notices fared."""

    notices: NoticeCount


class NewRequestView(RequestView):
    """A request that was just filed, and how many people are asked about it."""

    asked: int


class RequestPage(BaseModel):
    """Some requests, newest first; `next_cursor` leads to those that follow."""

    items: list[RequestView]
    next_cursor: str | None


class EventView(BaseModel):
    """One entry of a request's timeline; the actor is a person, or null where the clock acted."""

    seq: int
    at: datetime
    action: str
    actor: Named | None
    role: str
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


class Problem(BaseModel):
    """An answer other than yes (RFC 9457); `code` is stable, `detail` says what to do."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    code: str
    detail: str


def phrase(status: int) -> str:
    """Return the status in words, as RFC 9110 has them, whatever this Python calls it."""
    return {413: "Content Too Large", 422: "Unprocessable Content"}.get(status) or HTTPStatus(status).phrase


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of the error answers of a route."""
    content: Mapping[str, Any] = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"model": Problem, "content": content, "description": phrase(status)}
        for status in (401, 403, 422, 503, *statuses)
    }
