"""Bodies of findings about access by break-glass."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas.parts import PersonView, RequestBody
from lockbox.requests.after_reviews import AfterReviewEntry
from lockbox.requests.lifecycle import AfterReviewFinding
from lockbox.text_rules import IS_TEXT


class FindingBody(RequestBody):
    """The customer's finding about access that was opened by break-glass, and why."""

    finding: AfterReviewFinding
    comment: Annotated[str, Field(min_length=1, max_length=2000), IS_TEXT]


class AfterReviewView(AfterReviewEntry):
    """The after-review of access that was opened by break-glass: until when a finding is due, and what was found.

    `may_find` is whether the reader may give the finding now: approvers and admins may, once the access has ended,
    but not with an API token.
    """


class DueFindingView(BaseModel):
    """Access that was opened by break-glass and has ended, about which the reader may give the finding."""

    request_id: UUID
    tenant: str
    service: str
    requester: PersonView
    opened_at: datetime
    opened_by: str | None
    due_at: datetime
    is_overdue: bool


class DueFindingList(BaseModel):
    """The findings that the reader may give, the earliest due first."""

    items: list[DueFindingView]
