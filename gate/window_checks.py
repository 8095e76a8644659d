"""Check access for the gate: from memory, and from Postgres if memory has no certain answer."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Protocol, TypeVar
from uuid import UUID

import structlog
from sqlalchemy import text

from gate.answers import GateReason, GrantedAccess
from gate.call import call_end, in_time
from gate.memory_reader import GATE, MemoryReader
from gate.window_memory import BOOT_CLOCK, FRESH_SECONDS, RememberedWindow, WindowMemory, time_of
from lockbox.database import UnitOfWork
from lockbox.errors import Busy, NoOpenWindow, WindowUsedUp
from lockbox.identity import authentication
from lockbox.requests import access_check
from lockbox.requests.access_check import AccessCheck, UsingCaller
from lockbox.requests.models import RequestEntry

log = structlog.get_logger(__name__)
Answer = TypeVar("Answer")

ASK_SECONDS = 1.0
REFUSED_SECONDS = 1.0
USED_UP_SECONDS = 300.0
"""How long a window is remembered as used up at most, unless a window opens for its engineer."""
SAME_USE_SECONDS = 6.0
"""Once a window was refused as used up for this long, no call can repeat an earlier use. A second is to spare."""
IN_RECOVERY = text("SELECT pg_is_in_recovery()")
"""A standby may be behind, so it opens nothing."""
MOST_ASKED = 128
AWAY_SECONDS, MOST_ASKED_AWAY = 3.0, 4
"""If the reader could not read for this long, only a few calls ask Postgres at a time: others would queue in vain."""
MOST_REFUSED = 10_000
MOST_GRANTED = 1_000
NOT_KEPT = frozenset({GateReason.BUSY, GateReason.BEHIND})


@dataclass(frozen=True, slots=True)
class RememberedRefusal:
    reason: GateReason
    asked_at: float
    openings: tuple[int, int]


class GroupedCalls(Protocol):
    """Runs use cases on the event loop; concurrent use cases share one transaction."""

    async def run(self, use_case: Callable[[UnitOfWork], Answer], *, key: str | None = None) -> Answer: ...


@lru_cache(MOST_GRANTED)
def _granted(request: int, deadline: int, *, break_glass: bool) -> GrantedAccess:
    return GrantedAccess(UUID(int=request), time_of(deadline), break_glass=break_glass)


class FailureLog:
    """Logs at most one failure a second."""

    def __init__(self, event: str) -> None:
        self._event = event
        self._logged_at = float("-inf")

    def note(self, error: Exception) -> None:
        at = BOOT_CLOCK()
        if at - self._logged_at >= 1:
            self._logged_at = at
            log.warning(self._event, error=type(error).__name__)


class WindowChecks:
    """Answers whether a window is open, on one event loop.

    "Allow" comes from memory, or from Postgres if memory has no window. A refusal always comes from Postgres and is
    remembered for a second; `used_up` is remembered until a window may have opened for the engineer. One in
    `compare_every` answers from memory is compared with Postgres, and a refusal by Postgres prevails.
    """

    def __init__(
        self, memory: WindowMemory, reader: MemoryReader, calls: GroupedCalls, *, compare_every: int
    ) -> None:
        self._memory = memory
        self._reader = reader
        self._calls = calls
        self._compare_every = compare_every
        self._found = 0
        self._failures = FailureLog("gate.check_failed")
        self._refused: OrderedDict[AccessCheck, RememberedRefusal] = OrderedDict()
        self._using = 0
        self._asked: dict[AccessCheck, asyncio.Task[GrantedAccess | GateReason]] = {}

    @property
    def is_ready(self) -> bool:
        return self._memory.was_read

    async def check(
        self, question: AccessCheck, caller: UsingCaller, ends: float | None = None
    ) -> GrantedAccess | GateReason:
        """Never raises, and waits until `ends` at most.

        If the window counts uses, allowing the call is one use by `caller`.
        """
        answer = await self._known(question, ends)
        counts = isinstance(answer, GrantedAccess) and answer.uses_left is not None
        if counts or (answer is GateReason.USED_UP and caller.call and not self._is_long_used_up(question)):
            return await self._use(question, caller, ends)
        return answer

    async def _known(self, question: AccessCheck, ends: float | None) -> GrantedAccess | GateReason:
        found = self._memory.find(question)
        if found is None:
            return self._still_refused(question) or await self._ask(question, ends)
        self._found += 1
        # Do not compare with an answer that is already under way: it may be from before the window opened.
        if self._found % self._compare_every == 0 and question not in self._asked:
            return await self._compare(question, found, ends)
        return _granted(found.request, found.deadline, break_glass=found.break_glass)

    async def _compare(
        self, question: AccessCheck, found: RememberedWindow, ends: float | None
    ) -> GrantedAccess | GateReason:
        """If Postgres cannot answer, memory's answer counts while it is fresh."""
        answer = await self._ask(question, ends)
        if isinstance(answer, GrantedAccess) and answer.uses_left is None:
            return answer
        if answer not in NOT_KEPT:
            self._reader.suspect(found)
        elif (still := self._memory.find(question)) is not None:
            return _granted(still.request, still.deadline, break_glass=still.break_glass)
        return answer

    async def _use(
        self, question: AccessCheck, caller: UsingCaller, ends: float | None
    ) -> GrantedAccess | GateReason:
        """A transaction that begins after the call's deadline uses nothing."""
        if self._using >= MOST_ASKED:
            return GateReason.BUSY
        self._using += 1
        try:
            until = min(call_end() if ends is None else ends, time.monotonic() + ASK_SECONDS)
            return await in_time(self._run(partial(_use, question=question, caller=caller, until=until)), until)
        except TimeoutError:
            return GateReason.BEHIND
        finally:
            self._using -= 1

    async def _ask(self, question: AccessCheck, ends: float | None) -> GrantedAccess | GateReason:
        asked = self._asked.get(question)
        if asked is None:
            is_away = self._memory.age > AWAY_SECONDS
            if len(self._asked) >= (MOST_ASKED_AWAY if is_away else MOST_ASKED):
                return GateReason.BEHIND if is_away else GateReason.BUSY
            asked = self._asked[question] = asyncio.create_task(self._answer(question))
            asked.add_done_callback(lambda _: self._asked.pop(question, None))
        try:
            return await in_time(asyncio.shield(asked), ends)
        except TimeoutError:
            return GateReason.BEHIND

    async def _answer(self, question: AccessCheck) -> GrantedAccess | GateReason:
        began, openings = self._memory.clock(), self._memory.openings(question.engineer)
        answer = await self._run(partial(_judge, question=question))
        if answer in NOT_KEPT or isinstance(answer, GrantedAccess):
            return answer
        self._refused.pop(question, None)
        self._refused[question] = RememberedRefusal(answer, began, openings)
        if len(self._refused) > MOST_REFUSED:
            self._refused.popitem(last=False)
        return answer

    async def _run(self, judge: Callable[[UnitOfWork], GrantedAccess | GateReason]) -> GrantedAccess | GateReason:
        try:
            async with asyncio.timeout(ASK_SECONDS):
                return await self._calls.run(judge)
        except (Busy, TimeoutError) as busy:
            return GateReason.BUSY if isinstance(busy, Busy) else GateReason.BEHIND
        except Exception as error:  # noqa: BLE001 - any error means a refusal
            self._failures.note(error)
            return GateReason.BEHIND

    def _still_refused(self, question: AccessCheck) -> GateReason | None:
        known = self._refused.get(question)
        if known is None:
            return None
        is_fresh = self._memory.clock() < known.asked_at + REFUSED_SECONDS
        return known.reason if is_fresh or self._is_still_used_up(question, known) else None

    def _is_still_used_up(self, question: AccessCheck, known: RememberedRefusal) -> bool:
        return (
            known.reason is GateReason.USED_UP
            and self._memory.clock() < known.asked_at + USED_UP_SECONDS
            and self._memory.age < FRESH_SECONDS
            and self._memory.openings(question.engineer) == known.openings
        )

    def _is_long_used_up(self, question: AccessCheck) -> bool:
        known = self._refused.get(question)
        return (
            known is not None
            and self._memory.clock() >= known.asked_at + SAME_USE_SECONDS
            and self._is_still_used_up(question, known)
        )


def _judge(session: UnitOfWork, question: AccessCheck) -> GrantedAccess | GateReason:
    session.foresee([(IN_RECOVERY, {}), *access_check.ahead_of_refusal(question)])
    authentication.enter(session, GATE)
    if session.execute(IN_RECOVERY, {}).scalar_one():
        return GateReason.BEHIND
    return _found(session, question, partial(access_check.open_window, session, question))


def _use(session: UnitOfWork, question: AccessCheck, caller: UsingCaller, until: float) -> GrantedAccess | GateReason:
    if time.monotonic() >= until:
        return GateReason.BUSY
    session.foresee(access_check.ahead_of_check(question, caller.call))
    authentication.enter(session, replace(GATE, person_id=caller.account_id))
    return _found(session, question, partial(access_check.use, session, question, caller))


def _found(
    session: UnitOfWork, question: AccessCheck, look: Callable[[], RequestEntry]
) -> GrantedAccess | GateReason:
    try:
        entry = look()
    except WindowUsedUp:
        return GateReason.USED_UP
    except NoOpenWindow:
        return GateReason(access_check.refusal(session, question) or GateReason.NO_WINDOW)
    request = entry.request
    return GrantedAccess(request.id, request.deadline_at, entry.uses_left, entry.is_same_use, request.break_glass)
