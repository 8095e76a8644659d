"""Bodies of activity reports."""

from typing import Annotated

from pydantic import BaseModel, Field

from api.schemas.parts import RequestBody, Resource, Word
from lockbox.requests.activity import ActivityEntry, RecordedActivity
from lockbox.requests.policy import IS_WHOLE
from lockbox.text_rules import Instant

MOST_ENTRIES = 500
MOST_TIMES = 1_000_000_000

Method = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/-]*$")]


class ActivityItem(RequestBody):
    """What the engineer did, `count` times: a method of the gateway, on a resource, and its outcome."""

    at: Instant
    method: Method
    resource: Resource
    outcome: Word
    action: Word | None = None
    count: Annotated[int, Field(ge=1, le=MOST_TIMES, strict=True), IS_WHOLE] = 1

    def entry(self) -> ActivityEntry:
        """Return the core's form of it."""
        return ActivityEntry(self.at, self.method, self.resource, self.outcome, self.action, self.count)


class NewActivity(RequestBody):
    """A report: up to 500 entries, all of them within the window."""

    entries: Annotated[list[ActivityItem], Field(min_length=1, max_length=MOST_ENTRIES)]


class ActivityReceipt(BaseModel):
    """How many events the report became: one for each method, resource, action and outcome."""

    events: int


class ActivityList(BaseModel):
    """The activity inside a window, the last report first; at most a thousand items."""

    items: list[RecordedActivity]
