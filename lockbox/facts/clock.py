"""Where a request stands, by which terms it is decided, and until when."""

from datetime import datetime
from typing import Annotated

from sqlmodel import Field

from lockbox.facts.enumerations import ApproveMeans, Mode, State
from lockbox.facts.fact import EVENT, Fact, Part
from lockbox.sql import Instant, words


class Clock(Part):
    """The state of a request with its terms and its deadlines; windows in seconds. No message holds it.

    `version` is the seq of the last move. `deadline_at` is what decisions and access checks compare with; `wake_at`
    is when the clock next has something to do, null once the request is closed. `asked_at` is when the customer was
    asked, or notified where the vendor opens alone; null while only the vendor knows of it. `reminders`,
    `tiers_asked` (0 where there are none) and `warned` say how far the clock's reminders have come in the present
    state. `policy_version` is that of the policy that judged it. `consent_until` is set where only dated consent lets
    the vendor open alone: no window outlives it. `approve_means` only gets stricter. For `stopped_…` see
    `RequestClock`.
    """

    mode: Annotated[Mode, Fact("Mode", EVENT)] = Field(sa_type=words(Mode))
    policy_version: int
    consent_until: datetime | None = Field(default=None, sa_type=Instant)
    quorum: Annotated[int, Fact("Approvals", EVENT)]
    approve_means: ApproveMeans = Field(default=ApproveMeans.ATTESTED, sa_type=words(ApproveMeans))
    approval_window: Annotated[int, Fact("Approval window", EVENT)]
    state: State = Field(sa_type=words(State))
    version: int
    deadline_at: datetime = Field(sa_type=Instant)
    wake_at: datetime | None = Field(default=None, sa_type=Instant)
    created_at: datetime = Field(sa_type=Instant)
    asked_at: datetime | None = Field(default=None, sa_type=Instant)
    closed_at: datetime | None = Field(default=None, sa_type=Instant)
    reminders: int = 0
    tiers_asked: int = 0
    warned: bool = False
    stopped_at: datetime | None = Field(default=None, sa_type=Instant)
    stopped_deadline: datetime | None = Field(default=None, sa_type=Instant)
    stopped_for: int = 0
