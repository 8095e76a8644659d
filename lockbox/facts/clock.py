"""The state of a request, the terms by which it is decided, and its deadlines."""

from datetime import datetime
from typing import Annotated

from sqlmodel import Field

from lockbox.facts.enumerations import ApproveMeans, Mode, State
from lockbox.facts.fact import EVENT, Fact, Part
from lockbox.sql import Instant, words


class PublicClock(Part):
    """The part of the clock that every reader of the request sees.

    `version` is the seq of the last move. Decisions and access checks compare with `deadline_at`. `reminders`,
    `tiers_asked` and `warned` are the progress of the reminders in the current state. `policy_version` is the policy
    version by which the request was evaluated.
    """

    mode: Annotated[Mode, Fact("Mode", EVENT)] = Field(sa_type=words(Mode))
    policy_version: int
    quorum: Annotated[int, Fact("Approvals", EVENT)]
    state: State = Field(sa_type=words(State))
    version: int
    deadline_at: datetime = Field(sa_type=Instant)
    created_at: datetime = Field(sa_type=Instant)
    closed_at: datetime | None = Field(default=None, sa_type=Instant)
    reminders: int = 0
    tiers_asked: int = 0
    warned: bool = False


class Clock(PublicClock):
    """The state of a request with its terms and deadlines; windows in seconds.

    `wake_at` is when a timer next acts. `asked_at` is when the customer was asked, or notified if the vendor opens
    the window alone; null while only the vendor knows of the request. `consent_until` is set if only the customer's
    dated consent lets the vendor open the window: no window outlives this time. `approve_means` can only become
    stricter. For `stopped_…` see `RequestClock`.
    """

    approval_window: Annotated[int, Fact("Approval window", EVENT)]
    approve_means: ApproveMeans = Field(default=ApproveMeans.ATTESTED, sa_type=words(ApproveMeans))
    consent_until: datetime | None = Field(default=None, sa_type=Instant)
    wake_at: datetime | None = Field(default=None, sa_type=Instant)
    asked_at: datetime | None = Field(default=None, sa_type=Instant)
    stopped_at: datetime | None = Field(default=None, sa_type=Instant)
    stopped_deadline: datetime | None = Field(default=None, sa_type=Instant)
    stopped_for: int = 0
