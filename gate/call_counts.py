"""Count what the gate answers and which windows are used, in memory, without delaying an answer."""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from uuid import UUID

from gate.reasons import GateReason
from gate.window_memory import BOOT_CLOCK
from lockbox.requests.access_check import AccessCheck

MOST_WINDOWS = 100_000
"""Of how many windows uses are kept that are not written yet; the answers are counted all the same."""
MOST_A_BATCH = 500
"""Of how many windows one batch has the uses: to write more as text would hold up the event loop."""
MOST_REFUSED = 500
"""Of how many engineers, tenants and services refused calls are added to their windows until the next batch."""
AnswerKey = tuple[UUID | None, str, str, str]
"""A gateway (None where it showed no valid token), a service (empty where it is none of the gateway's), the decision,
and the reason of a no."""
MOST_REPORTED = 200
"""Of how many kinds of calls that a gate only reports the counts are kept apart until the next batch."""
MOST_OF_A_PATH, MOST_OF_A_CALLER = 200, 300
UsePlace = tuple[UUID | None, str, str]
"""The gateway through which a window was used, the action and the resource."""


class GateDecision(StrEnum):
    """The value of the header `Lockbox-Decision`."""

    ALLOW = "allow"
    NOT_APPLICABLE = "not-applicable"
    WOULD_DENY = "would-deny"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class ReportedCall:
    """What is kept of a call that a gate lets in and would refuse: whose it was, as an id or an issuer and a subject.

    `path` is a path of the catalogue, or one without what it names; what is not known is empty.
    """

    path: str
    tenant: str = ""
    caller: str = ""


OTHER_CALLS = ReportedCall("")
"""Stands for all calls that are not counted apart."""


@dataclass(slots=True)
class CountedCall:
    """What is known of a call by now: the gateway that asks, its service, what for, and until when it is answered.

    `identity` is of whom the map says nothing, `reported` what is kept of a call that the gate only reports.
    """

    gateway: UUID | None = None
    service: str = ""
    question: AccessCheck | None = None
    ends: float | None = None
    identity: str = ""
    reported: ReportedCall = OTHER_CALLS


def kept(text: str, most: int) -> str:
    """Return a text in as many characters at most, without those that nobody sees or Postgres does not take."""
    shown = "".join(mark if mark.isprintable() else "?" for mark in text[: most + 1])
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


@dataclass(slots=True)
class UseCount:
    """How often a window was used, first and last; times are those of the counts' clock."""

    count: int
    first_at: float
    first: UsePlace
    last_at: float
    last: UsePlace


@dataclass(frozen=True)
class CountBatch:
    """What was counted since the last batch; `refused` by tenant, service and engineer.

    `reported` is by service, reason and kind of call. `lost` are uses of windows beyond what is kept.
    """

    answers: dict[AnswerKey, int]
    uses: dict[UUID, UseCount]
    refused: dict[tuple[str, str, UUID], int]
    reported: dict[tuple[str, str, ReportedCall], int]
    lost: int


class CallCounts:
    """The counts of one process, until they are written.

    Any thread counts and one takes. What it holds is bounded: keys name gateways and services that there are, and
    reasons of a list.
    """

    def __init__(self, clock: Callable[[], float] = BOOT_CLOCK) -> None:
        self._clock = clock
        self._changing = threading.Lock()
        self._answers: dict[AnswerKey, int] = {}
        self._uses: dict[UUID, UseCount] = {}
        self._refused = Counter[tuple[UUID | None, str]]()
        self._refused_calls: dict[tuple[str, str, UUID], int] = {}
        self._reported: dict[tuple[str, str, ReportedCall], int] = {}
        self._lost = 0

    def count(self, call: CountedCall, decision: GateDecision, reason: GateReason | None = None) -> None:
        """Count an answer that uses no window."""
        key = (call.gateway, call.service, decision.value, reason.value if reason else "")
        with self._changing:
            self._answers[key] = self._answers.get(key, 0) + 1
            if reason is not None:
                self._refused[call.gateway, reason.value] += 1
                if decision is GateDecision.DENY:
                    self._count_refused(call.question)
                elif decision is GateDecision.WOULD_DENY:
                    self._count_reported(call, reason)

    def count_use(
        self, call: CountedCall, question: AccessCheck, request_id: UUID, *, is_same_use: bool = False
    ) -> None:
        """Count a yes by a window, and a use of it, unless it is the same as one before."""
        at, place = self._clock(), (call.gateway, question.action, question.resource)
        key = (call.gateway, call.service, "allow", "")
        with self._changing:
            self._answers[key] = self._answers.get(key, 0) + 1
            use = self._uses.get(request_id)
            if is_same_use:
                return
            if use is not None:
                use.count += 1
                use.last_at, use.last = at, place
            elif len(self._uses) < MOST_WINDOWS:
                self._uses[request_id] = UseCount(1, at, place, at, place)
            else:
                self._lost += 1

    def _count_refused(self, question: AccessCheck | None) -> None:
        if question is None:
            return
        whose = (question.tenant, question.service, question.engineer)
        if whose in self._refused_calls or len(self._refused_calls) < MOST_REFUSED:
            self._refused_calls[whose] = self._refused_calls.get(whose, 0) + 1

    def _count_reported(self, call: CountedCall, reason: GateReason) -> None:
        kind = (call.service, reason.value, call.reported)
        if kind not in self._reported and len(self._reported) >= MOST_REPORTED:
            kind = (call.service, reason.value, OTHER_CALLS)
        self._reported[kind] = self._reported.get(kind, 0) + 1

    @property
    def is_empty(self) -> bool:
        """Whether nothing was counted since the last batch."""
        return not (self._answers or self._uses)

    @property
    def has_many(self) -> bool:
        """Whether uses are left for a whole batch, which need not wait."""
        return len(self._uses) >= MOST_A_BATCH

    @property
    def total(self) -> int:
        """How many answers were counted since the last batch."""
        with self._changing:
            return sum(self._answers.values())

    def take(self) -> CountBatch:
        """Return what was counted since the last batch, with the uses of some windows, and count anew."""
        with self._changing:
            some = list(islice(self._uses, MOST_A_BATCH))
            uses = {one: self._uses.pop(one) for one in some}
            batch = CountBatch(self._answers, uses, self._refused_calls, self._reported, self._lost)
            self._answers, self._refused_calls, self._reported, self._lost = {}, {}, {}, 0
        return batch

    def take_refused(self) -> Counter[tuple[UUID | None, str]]:
        """Return how many were refused or would be, by gateway and reason, since this was last asked."""
        with self._changing:
            refused, self._refused = self._refused, Counter()
        return refused
