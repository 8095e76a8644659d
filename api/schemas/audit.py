"""Bodies of the trail: events, checkpoints, proofs and keys."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel

from api.schemas.parts import PersonView


class AuditEventView(BaseModel):
    """An event of the trail; `sealed` says whether a checkpoint covers it yet, `number` is its place in the log then.

    `said` is what its body says, with commitments in place of what is personal; `personal` are those values that
    stand and that the reader may read. `altered` names what the database holds beside the body and no longer agrees
    with it, and `body` where another body was sealed: then nothing here can be relied on.
    """

    id: UUID
    number: int | None
    sealed: bool
    at: datetime
    action: str
    actor: PersonView | None
    role: str
    request_id: UUID | None
    from_state: str | None
    to_state: str | None
    said: dict[str, Any]
    personal: dict[str, str]
    altered: list[str]


class AuditPage(BaseModel):
    """Events, newest first."""

    items: list[AuditEventView]
    next_cursor: str | None


class CheckpointView(BaseModel):
    """The newest checkpoint of a log; `note` is the signed note, and all else only says what stands in it."""

    log: UUID
    origin: str
    generation: int
    size: int
    root: str
    at: datetime
    note: str


class InclusionView(BaseModel):
    """That an event is in the log: the audit path from its leaf to the root of the checkpoint, in base64."""

    event: UUID
    number: int
    size: int
    proof: list[str]
    note: str


class ConsistencyView(BaseModel):
    """That the log of the newer size extends that of the older one, in base64; `note` is of the newest size."""

    older: int
    newer: int
    proof: list[str]
    note: str


class AuditKeyView(BaseModel):
    """A public key as `name+id+base64`, as C2SP's signed notes have it; `fingerprint` is its SHA-256."""

    key: str
    fingerprint: str
    purpose: Literal["log", "approval"]
    first_used_at: datetime


class AuditKeyList(BaseModel):
    """Every key that was ever signed with here, the oldest first."""

    items: list[AuditKeyView]


class StepView(BaseModel):
    """A move of a request: who made it, in which role and for whom else; `deed` says it in words."""

    at: datetime
    action: str
    deed: str
    to_state: str | None
    who: str
    role: str
    stands_for: list[str]
    comment: str | None
    number: int | None


class UseView(BaseModel):
    """Something that was done inside a window; `as_asked` is whether the request named it."""

    first_at: datetime
    last_at: datetime
    method: str
    resource: str | None
    outcome: str
    count: int
    as_asked: bool
    by: str


class ReportView(BaseModel):
    """The report on a request; `use` says in a sentence whether anything was done inside, `ending` how it ended.

    `lost` are the moves that the trail no longer holds, and `altered` the events that are not what was sealed: what
    is said of them is not proven. `page` is the same as a page of HTML that needs nothing else. `granted_actions` and
    `granted_resources` are what it was opened for where that is less than was asked, else null.
    """

    request_id: UUID
    tenant: str
    service: str
    actions: list[str]
    resources: list[str]
    reason_code: str
    case_ref: str | None
    justification: str | None
    steps: list[StepView]
    opened_at: datetime | None
    closed_at: datetime | None
    questions: list[StepView]
    uses: list[UseView]
    more: bool
    sealed: bool
    state: str
    lost: list[int]
    altered: list[UUID]
    ending: str
    use: str
    page: str
    granted_actions: list[str] | None
    granted_resources: list[str] | None
