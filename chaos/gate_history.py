"""The history of a run: what the gate and the guard answered, what people did to windows, and Postgres' clock."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple, Self
from uuid import UUID

GATE, GUARD = DOORS = ("gate", "guard")
LONGEST_READING = 0.1


@dataclass(frozen=True)
class ProbedCall:
    """A question: may this engineer do this to this resource of a tenant, at this service?"""

    tenant: str
    service: str
    resource: str
    action: str
    engineer: UUID


@dataclass(frozen=True)
class GateYes:
    """What a yes says about itself: its request, the call and the end of access."""

    request_id: UUID
    call: ProbedCall
    until: datetime


@dataclass(frozen=True)
class RecordedAnswer:
    """One answer of the gate or the guard; the call began and ended at these moments of the monotonic clock.

    `status` is 0 if no answer came. `reason` says why an answer is no, or what a 200 without a window says instead.
    """

    door: str
    call: ProbedCall
    began: float
    ended: float
    status: int
    reason: str = ""
    yes: GateYes | None = None

    def __str__(self) -> str:
        """Say who was asked about which call."""
        call = self.call
        return f"the {self.door}, for {call.action} of {call.resource} at {call.tenant}/{call.service}"


@dataclass(frozen=True)
class ClockReading:
    """Postgres' clock, in seconds since 1970, read between two moments of the monotonic clock."""

    before: float
    at: float
    after: float


class StreamBeat(NamedTuple):
    """A heartbeat of the gate's stream: when it was heard, and the time in it, in seconds since 1970."""

    heard: float
    at: float


class PostgresTime:
    """The bounds between which Postgres' clock was at a moment of the monotonic clock.

    They come from the last reading before that moment and the first reading after it: the clock may be set between
    the two, and then the bounds are that far apart. Readings that took long say too little, and are left out.
    """

    def __init__(self, readings: Sequence[ClockReading]) -> None:
        good = sorted(
            (reading for reading in readings if reading.after - reading.before <= LONGEST_READING),
            key=lambda one: one.before,
        )
        self._good = good
        self._begun = [one.before for one in good]
        self._ended = [one.after for one in good]

    def earliest(self, moment: float) -> float:
        """Return the earliest that Postgres' clock can have been; minus infinity if nothing was read."""
        return moment + min((one.at - one.after for one in self._around(moment)), default=float("-inf"))

    def latest(self, moment: float) -> float:
        """Return the latest that Postgres' clock can have been; infinity if nothing was read."""
        return moment + max((one.at - one.before for one in self._around(moment)), default=float("inf"))

    def _around(self, moment: float) -> list[ClockReading]:
        before, after = bisect_right(self._ended, moment) - 1, bisect_left(self._begun, moment)
        return [self._good[place] for place in {before, after} if 0 <= place < len(self._good)]


@dataclass(frozen=True)
class TrueWindow:
    """A window as Postgres knows it, once it was approved.

    `opened_at` is when it begins, in seconds since 1970; `extends` is the request whose window it continues.
    """

    request_id: UUID
    tenant: str
    service: str
    engineer: UUID
    resources: frozenset[str]
    actions: frozenset[str]
    opened_at: float
    deadline: datetime
    extends: UUID | None = None

    @classmethod
    def of(cls, row: Any) -> Self:  # noqa: ANN401 - a row, as SQLAlchemy has them
        """Make a window from a row of `questions.GATE_WINDOWS`."""
        named = row.id, row.tenant, row.service, row.requester_id, frozenset(row.resources), frozenset(row.actions)
        return cls(*named, row.opened_at, row.deadline_at, row.extends)

    @cached_property
    def ends_at(self) -> float:
        """Its deadline, in seconds since 1970."""
        return self.deadline.timestamp()

    def covers(self, call: ProbedCall) -> bool:
        """Whether the window allows this call while it is open."""
        mine = (self.tenant, self.service, self.engineer)
        return (
            mine == (call.tenant, call.service, call.engineer)
            and call.resource in self.resources
            and call.action in self.actions
        )


@dataclass
class GateHistory:
    """Everything as it happened; all moments are of the monotonic clock.

    `opened` is when the approval that opened a window was answered, `ending` when somebody first tried to end the
    window, and `ended` when the first such try was answered. In `quiet` times no fault was active or recent; in
    `frozen` times the API or the guard was stopped. `withheld` is the resource that an approver left out. `told` is
    when a window was first on the gate's stream, and `beats` are the heartbeats of each stream that was read.
    """

    answers: list[RecordedAnswer] = field(default_factory=list)
    readings: list[ClockReading] = field(default_factory=list)
    opened: dict[UUID, float] = field(default_factory=dict)
    ending: dict[UUID, float] = field(default_factory=dict)
    ended: dict[UUID, float] = field(default_factory=dict)
    quiet: list[tuple[float, float]] = field(default_factory=list)
    frozen: list[tuple[float, float]] = field(default_factory=list)
    withheld: dict[UUID, str] = field(default_factory=dict)
    told: dict[UUID, float] = field(default_factory=dict)
    beats: list[list[StreamBeat]] = field(default_factory=list)

    def is_quiet(self, began: float, ended: float) -> bool:
        """Whether one quiet time contains all of this period."""
        return any(first <= began and ended <= last for first, last in self.quiet)

    def was_heard(self, began: float, ended: float, pause: float) -> bool:
        """Whether one stream was read throughout, from its first heartbeat on, with no longer pause between two."""
        for beats in self.beats:
            inside = [beat.heard for beat in beats if began - pause <= beat.heard <= ended + pause]
            is_around = inside and inside[0] <= began and ended <= inside[-1]
            if is_around and all(later - one <= pause for one, later in pairwise(inside)):
                return True
        return False

    def was_frozen(self, began: float, ended: float) -> bool:
        """Whether the API or the guard was frozen at some moment of this period."""
        return any(first <= ended and began <= last for first, last in self.frozen)
