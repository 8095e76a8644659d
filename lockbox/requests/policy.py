"""What a tenant demands: windows, quorum, vendor review; and what follows from it for one request."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from lockbox.people.roles import Mode
from lockbox.requests.lifecycle import FINAL_STATES, Action, State

HOUR = 3600
DAY = 24 * HOUR
HARD_ACCESS_LIMIT = 7 * DAY
HARD_ANSWER_LIMIT = 14 * DAY
MOST_APPROVALS = 20


class Policy(BaseModel):
    """The rules of one tenant; all windows in seconds.

    The defaults are Microsoft 365's: an answer within 12 hours, access for at most 4 (`product.md` 2.1 of the
    design notes). The hard limits hold for every tenant.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    vendor_review: bool = True
    review_window: int = Field(default=4 * HOUR, ge=1, le=HARD_ANSWER_LIMIT)
    approval_window: int = Field(default=12 * HOUR, ge=1, le=HARD_ANSWER_LIMIT)
    access_ceiling: int = Field(default=4 * HOUR, ge=1, le=HARD_ACCESS_LIMIT)
    quorum: int = Field(default=1, ge=1, le=MOST_APPROVALS)


@dataclass(frozen=True)
class Vote:
    """One person's verdict on a request that waits for the customer; the window in seconds, if narrowed."""

    person_id: UUID
    verdict: Action
    access_window: int | None
    may_still_approve: bool


def reviewed_first(policy: Policy, mode: Mode) -> bool:
    """Whether the vendor's managers come first; without the customer's yes they always do."""
    return policy.vendor_review or mode is not Mode.ENFORCE


def customer_decides(mode: Mode) -> bool:
    """Whether an endorsed request waits for the customer rather than opening at once."""
    return mode is Mode.ENFORCE


def quorum_met(votes: Iterable[Vote], quorum: int) -> bool:
    """Whether enough different people who may still approve have done so, and none has denied."""
    votes = tuple(votes)
    approvers = {v.person_id for v in votes if v.verdict is Action.APPROVE and v.may_still_approve}
    return len(approvers) >= quorum and not any(v.verdict is Action.DENY for v in votes)


def granted_window(asked: int, votes: Iterable[Vote]) -> int:
    """Return the seconds of access granted: the shortest of what was asked and what each voter set."""
    return min([asked, *(v.access_window for v in votes if v.access_window and v.may_still_approve)])


def deadline(state: State, since: datetime, *, review: int, approval: int, access: int) -> datetime:
    """Return when the clock that starts with this state runs out; `since` itself for the states that end."""
    seconds = {State.REVIEWING: review, State.PENDING: approval, State.ACTIVE: access}.get(state, 0)
    return since + timedelta(seconds=seconds)


def wake_at(state: State, deadline_at: datetime) -> datetime | None:
    """Return the next moment at which the clock has something to do for this request, if any."""
    return None if state in FINAL_STATES else deadline_at
