"""Bodies of activity reports."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from api.schemas.parts import RequestBody
from lockbox.facts.bounds import Resource, Word
from lockbox.requests.activity import ActivityEntry, GuardUse, RecordedActivity
from lockbox.text_rules import IS_WHOLE, Instant

MOST_ENTRIES = 500
MOST_TIMES = 1_000_000_000

Times = Annotated[int, Field(ge=1, le=MOST_TIMES, strict=True), IS_WHOLE]
Method = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/-]*$")]


class ActivityItem(RequestBody):
    """What the engineer did `count` times: a method of the gateway, the resource and the outcome."""

    at: Instant
    method: Method
    resource: Resource
    outcome: Word
    action: Word | None = None
    count: Times = 1

    def entry(self) -> ActivityEntry:
        return ActivityEntry(self.at, self.method, self.resource, self.outcome, self.action, self.count)


class UsedItem(RequestBody):
    """`count` calls that a guard admitted from its memory of open windows, and that no gate has counted."""

    at: Instant
    resource: Resource
    action: Word
    count: Times = 1

    def use(self) -> GuardUse:
        return GuardUse(self.at, self.resource, self.action, self.count)


class NewActivity(RequestBody):
    """A report: up to 500 entries and up to 500 uses, all within the window."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["entries"]}, {"required": ["uses"]}]})

    entries: list[ActivityItem] = Field(default_factory=list, min_length=1, max_length=MOST_ENTRIES)
    uses: list[UsedItem] = Field(default_factory=list, min_length=1, max_length=MOST_ENTRIES)

    @model_validator(mode="after")
    def says_something(self) -> Self:
        if not self.entries and not self.uses:
            raise ValueError("send entries, uses or both")
        return self


class ActivityReceipt(BaseModel):
    """How many events the report became: one for each method, resource, action and outcome."""

    events: int


class ActivityList(BaseModel):
    """The activity inside a window, the last report first; at most a thousand items."""

    items: list[RecordedActivity]
