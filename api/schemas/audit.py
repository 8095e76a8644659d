"""Bodies of the audit log."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from api.schemas.parts import PersonView
from lockbox.audit.report import ReportedRequest

LARGEST = 2**53 - 1
"""The largest size of a log that a caller may name: JavaScript reads larger numbers inexactly."""
NAMES = {"ndjson": "application/x-ndjson", "csv": "text/csv; charset=utf-8"}
"""The media type of an export, by its format."""


class AuditEventView(BaseModel):
    """An event. `sealed` says whether a checkpoint covers it; if so, `number` is its position in its log.

    `said` is its body, with commitments in place of personal values; `personal` are the values that still exist and
    that the reader may see. `altered` names database values that contradict the body. If `altered` contains `body`,
    a different body was sealed, and nothing in this event can be relied on.
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
    """A log's newest checkpoint; `note` is the signed note; the other fields only repeat it."""

    log: UUID
    origin: str
    generation: int
    size: int
    root: str
    at: datetime
    note: str


class InclusionView(BaseModel):
    """A proof that an event is in the log: the audit path from its leaf to the checkpoint's root, in base64."""

    event: UUID
    number: int
    size: int
    proof: list[str]
    note: str


class ConsistencyView(BaseModel):
    """A proof that the log of the newer size extends the older one, in base64; `note` signs the newest size."""

    older: int
    newer: int
    proof: list[str]
    note: str


class AuditKeyView(BaseModel):
    """A public key as `name+id+base64`, as in C2SP signed notes; `fingerprint` is its SHA-256."""

    key: str
    fingerprint: str
    purpose: Literal["log", "approval"]
    first_used_at: datetime


class AuditKeyList(BaseModel):
    """Every key that has ever signed here, the oldest first."""

    items: list[AuditKeyView]


class StepView(BaseModel):
    """A move of a request: who made it, in which role and on whose behalf; `deed` says it in words."""

    model_config = ConfigDict(from_attributes=True)

    at: datetime
    action: str
    deed: str
    to_state: str | None
    who: str
    role: str
    principals: list[str]
    comment: str | None
    number: int | None


class ReportView(ReportedRequest):
    """The report on a request; `use` says in a sentence whether there was activity, `ending` how the request ended.

    `lost` are moves missing from the audit log, and `altered` events that differ from what was sealed: both are
    unproven. `page` is the report as a self-contained HTML page. `granted_actions` and `granted_resources` are what
    was granted if that is less than was asked, else null. `mails` says who was notified, as far as the reader may
    know.
    """

    steps: list[StepView]
    questions: list[StepView]
    sealed: bool
    ending: str
    use: str
    page: str
