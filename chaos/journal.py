"""What the people of the load and the prober have seen, for the checks afterwards."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

DONE = (200, 201, 204)
CONFLICT = 409


class Sight(StrEnum):
    """What people see of the further ways to access; each has to happen sometimes."""

    EXTENDED = "more time approved for an open window"
    EXTENSION_ENDED = "more time ended with the window that was revoked"
    LATER = "access approved that begins later"
    CASE_CANCELLED = "a request cancelled as its case was closed"
    CASE_REVOKED = "a window revoked as its case was closed"
    PRE_APPROVED = "a request opened by a pre-approval"
    USED_UP = "a request asked about as its pre-approval was used up"
    PRE_APPROVAL_REVOKED = "a pre-approval revoked with what it had opened"
    GLASS = "a window opened by break-glass"
    GLASS_TOO_OFTEN = "break-glass refused as often as it was used"
    GLASS_OVERDUE = "break-glass refused while a finding was overdue"
    GLASS_AFTER_FINDING = "break-glass once the overdue finding was given"
    GLASS_STOPPED = "break-glass refused during an emergency stop"
    GLASS_AFTER_STOP = "break-glass once an emergency stop was ended"
    FOUND = "a finding given about break-glass"
    BEFORE_ITS_STEP = "an approval refused before its step"
    ACKNOWLEDGED = "the exclusions acknowledged"


@dataclass(frozen=True)
class AcknowledgedAct:
    """A submission, or an act by somebody, that was answered with 200 or 201; moments are of the wall clock."""

    request_id: UUID
    tenant_id: UUID
    action: str
    by: UUID
    version: int
    sent: float
    answered: float


@dataclass(frozen=True)
class OpenAnswer:
    """The prober's answer that a window is open; moments of the wall clock, before and after."""

    resource: str
    request_id: UUID
    sent: float
    answered: float


@dataclass(frozen=True)
class AttemptedAct:
    """A submission or an act that was answered, or that nobody tried again: then `status` is 0.

    `sent`, `answered` and `deadline` are moments of the wall clock. The deadline is that of the state in which the
    client last saw the request, and infinite for a submission. `late` is whether it was refused because time had run
    out.
    """

    request_id: UUID
    action: str
    who: str
    status: int
    sent: float
    answered: float
    deadline: float = math.inf
    late: bool = False

    @property
    def counted(self) -> bool:
        """Whether it was acknowledged."""
        return self.status in DONE

    @property
    def lost(self) -> bool:
        """Whether it was refused because of the state that the request had by then."""
        return self.status == CONFLICT


@dataclass(frozen=True)
class ClosedAnswer:
    """The prober's answer that a window which was open before is closed."""

    resource: str
    sent: float
    answered: float


@dataclass
class Journal:
    """Everything that was seen. `resources` has each requested resource once, even if no client saw its submission.

    `statuses` counts all answers to the load; `surprises` are answers that nobody should ever get; `foreign` are
    places in which somebody was shown something of another customer. `checks` counts the prober's answers by status,
    0 for no answer. `acts` are all acts of people, and `closed` are answers about windows that had been open. `ended`
    is when somebody learned the end of something with which a request ends. `findings` are the requests about which a
    finding was acknowledged, and `seen` counts the further ways.
    """

    acknowledged: list[AcknowledgedAct] = field(default_factory=list)
    resources: dict[str, UUID] = field(default_factory=dict)
    statuses: Counter[int] = field(default_factory=Counter)
    surprises: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    acts: list[AttemptedAct] = field(default_factory=list)
    opened: list[OpenAnswer] = field(default_factory=list)
    closed: list[ClosedAnswer] = field(default_factory=list)
    checks: Counter[int] = field(default_factory=Counter)
    ended: dict[UUID, float] = field(default_factory=dict)
    findings: list[UUID] = field(default_factory=list)
    seen: Counter[Sight] = field(default_factory=Counter)

    def closed_at(self, actions: Iterable[str]) -> dict[UUID, float]:
        """Return for each request when somebody who ended it, by one of these acts or indirectly, got the answer."""
        wanted = set(actions)
        return self.ended | {one.request_id: one.answered for one in self.acknowledged if one.action in wanted}
