"""Check access for the gate: from memory, and from Postgres what memory does not know for certain."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar
from uuid import UUID

import structlog
from sqlalchemy import text

from gate.call_time import in_time
from gate.memory_reader import GATE, MemoryReader
from gate.reasons import GateReason
from gate.window_memory import BOOT_CLOCK, RememberedWindow, WindowMemory
from lockbox.database import UnitOfWork
from lockbox.errors import Busy, NoOpenWindow
from lockbox.identity import authentication
from lockbox.requests import queries
from lockbox.requests.queries import AccessCheck

log = structlog.get_logger(__name__)
Answer = TypeVar("Answer")

ASK_SECONDS = 1.0
REFUSED_SECONDS = 1.0
IN_RECOVERY = text("SELECT pg_is_in_recovery()")
"""A standby may be behind: it opens nothing."""
MOST_ASKED = 128
AWAY_SECONDS, MOST_ASKED_AWAY = 3.0, 4
"""Once the reader could not read for so long, few ask at a time: else calls would queue for what is away."""
MOST_REFUSED = 10_000


class GroupedCalls(Protocol):
    """What runs use cases on the event loop, those that come together in one transaction."""

    async def run(self, use_case: Callable[[UnitOfWork], Answer], *, key: str | None = None) -> Answer:
        """Run a use case and return its answer."""
        ...


@dataclass(frozen=True, slots=True)
class GrantedAccess:
    """The window that lets a call in, and when it ends."""

    request_id: UUID
    until: datetime


class FailureLog:
    """Logs failures of one kind, one a second at most: each call of a service would be one."""

    def __init__(self, event: str) -> None:
        self._event = event
        self._logged_at = float("-inf")

    def note(self, error: Exception) -> None:
        """Log an error by its type, unless one was just logged."""
        at = BOOT_CLOCK()
        if at - self._logged_at >= 1:
            self._logged_at = at
            log.warning(self._event, error=type(error).__name__)


class WindowChecks:
    """Answers whether a window is open, on one event loop.

    A yes comes from memory, or from Postgres where memory has none. A no always comes from Postgres, and is
    remembered for a second. Of the answers from memory one in `compare_every` is compared with Postgres, whose no
    counts then.
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
        self._refused: OrderedDict[AccessCheck, tuple[float, GateReason]] = OrderedDict()
        self._asked: dict[AccessCheck, asyncio.Task[GrantedAccess | GateReason]] = {}

    @property
    def is_ready(self) -> bool:
        """Whether the database's clock is known, by which all is judged."""
        return self._memory.was_read

    async def check(self, question: AccessCheck, ends: float | None = None) -> GrantedAccess | GateReason:
        """Return the window, or why there is none; this never raises, and waits until `ends` at most."""
        found = self._memory.find(question)
        if found is None:
            return self._still_refused(question) or await self._ask(question, ends)
        self._found += 1
        if self._found % self._compare_every == 0:
            return await self._compare(question, found, ends)
        return GrantedAccess(found.request_id, found.until)

    async def _compare(
        self, question: AccessCheck, found: RememberedWindow, ends: float | None
    ) -> GrantedAccess | GateReason:
        """Ask Postgres too; where it cannot say, memory's answer counts as long as it may."""
        answer = await self._ask(question, ends)
        if isinstance(answer, GrantedAccess):
            return answer
        if answer in {GateReason.BUSY, GateReason.BEHIND} and (still := self._memory.find(question)) is not None:
            return GrantedAccess(still.request_id, still.until)
        self._reader.suspect(found)
        return answer

    async def _ask(self, question: AccessCheck, ends: float | None) -> GrantedAccess | GateReason:
        """Ask Postgres, once for all that want to know the same at this moment."""
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
        began = self._memory.clock()
        try:
            async with asyncio.timeout(ASK_SECONDS):
                answer = await self._calls.run(lambda session: _judge(session, question))
        except (Busy, TimeoutError) as busy:
            return GateReason.BUSY if isinstance(busy, Busy) else GateReason.BEHIND
        except Exception as error:  # noqa: BLE001 - whatever it is, the answer is no
            self._failures.note(error)
            return GateReason.BEHIND
        if isinstance(answer, GateReason):
            self._refused.pop(question, None)
            self._refused[question] = (began + REFUSED_SECONDS, answer)
            if len(self._refused) > MOST_REFUSED:
                self._refused.popitem(last=False)
        return answer

    def _still_refused(self, question: AccessCheck) -> GateReason | None:
        known = self._refused.get(question)
        return known[1] if known is not None and self._memory.clock() < known[0] else None


def _judge(session: UnitOfWork, question: AccessCheck) -> GrantedAccess | GateReason:
    session.foresee([(IN_RECOVERY, {}), *queries.ahead_of_refusal(question)])
    authentication.enter(session, GATE)
    if session.execute(IN_RECOVERY, {}).scalar_one():
        return GateReason.BEHIND
    try:
        window = queries.open_window(session, question).request
    except NoOpenWindow:
        return GateReason(queries.refusal(session, question) or GateReason.NO_WINDOW)
    return GrantedAccess(window.id, window.deadline_at)
