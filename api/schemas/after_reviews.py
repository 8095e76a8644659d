"""Bodies of after-reviews: the customer's finding about access that was opened by break-glass."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from api.schemas.parts import IS_TEXT, RequestBody
from lockbox.requests.lifecycle import AfterReviewFinding


class FindingBody(RequestBody):
    """The customer's finding about access that was opened by break-glass, and why."""

    finding: AfterReviewFinding
    comment: Annotated[str, Field(min_length=1, max_length=2000), IS_TEXT]


class AfterReviewView(BaseModel):
    """The after-review of access that was opened by break-glass: until when a finding is due, and what was found.

    `may_find` is whether the reader may give it now: approvers and admins may, once the access has ended.
    """

    due_at: datetime
    is_overdue: bool
    finding: AfterReviewFinding | None
    found_at: datetime | None
    found_by: str | None
    comment: str | None
    may_find: bool
