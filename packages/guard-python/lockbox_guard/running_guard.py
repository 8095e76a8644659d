"""A guard in one process: the thread that reads the stream, its knowledge, and unanswered questions."""

import asyncio
import os
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from uuid import UUID

from lockbox_guard.activity import ActivityReports
from lockbox_guard.connection import GuardToken, LockboxAddress
from lockbox_guard.decisions import Allowed, NoAccess, Use
from lockbox_guard.knowledge import Knowledge, KnownCaller
from lockbox_guard.network_thread import NetworkThread
from lockbox_guard.remote import BEHIND, MOST_CONNECTIONS, CallerProof, RemoteLockbox
from lockbox_guard.stream_reader import StreamReader

START_SECONDS = 2.0
LAST_SECONDS = 2.0
REFUSED_SECONDS = 1.0
MOST_REFUSED = 10_000
MOST_ASKED = MOST_CONNECTIONS
POLL_SECONDS = 0.02
Question = tuple[Use, bytes]


class RunningGuard:
    def __init__(
        self,
        address: LockboxAddress,
        credential: GuardToken,
        clock: Callable[[], float],
        reports_token: GuardToken | None = None,
    ) -> None:
        self.pid = os.getpid()
        self.knowledge = Knowledge(clock)
        self._clock = clock
        self._began = clock()
        self._remote = RemoteLockbox(address, credential, self.knowledge.clock)
        self._refused = OrderedDict[Question, tuple[float, NoAccess]]()
        self._engineers: dict[tuple[str, bytes], asyncio.Task[KnownCaller | NoAccess]] = {}
        self._checks: dict[Question, asyncio.Task[Allowed | NoAccess]] = {}
        self._asked = 0
        self.reports = ActivityReports(address, reports_token, self.knowledge) if reports_token else None
        self._network = NetworkThread()
        self._network.submit(self._run(StreamReader(address, credential, self.knowledge)))
        if self.reports:
            self._network.submit(self.reports.run())

    def stop(self) -> None:
        """End the thread, after a last attempt to report activity."""
        if self.reports:
            with suppress(TimeoutError):
                self._network.submit(self.reports.send()).result(LAST_SECONDS)
        self._network.stop()

    def look(self, use: Use, caller: CallerProof | UUID | str) -> "Allowed | NoAccess | Future[Allowed | NoAccess]":
        """Answer from memory, or return Lockbox's future answer."""
        if isinstance(caller, str):
            return NoAccess(caller)
        latest = self.knowledge.clock.latest()
        if latest is None:
            return self._network.submit(self._wait(use, caller)) if self._is_starting else BEHIND
        found = self._find(use, caller, latest)
        if found is not None:
            return found
        refused = self._refused.get((use, _digest(caller)))
        if refused is not None and self._clock() < refused[0]:
            return refused[1]
        return self._network.submit(self._ask(use, caller))

    @property
    def _is_starting(self) -> bool:
        return not self.knowledge.was_filled and self._clock() - self._began < START_SECONDS

    async def _run(self, reader: StreamReader) -> None:
        try:
            await reader.run()
        finally:
            await self._remote.close()

    def _find(self, use: Use, caller: CallerProof | UUID, latest: float) -> Allowed | None:
        if isinstance(caller, UUID):
            engineer = caller
        else:
            known = self.knowledge.identities.find((use.service, caller.digest), latest)
            if known is None:
                return None
            if known.engineer is None:
                return Allowed(use)
            engineer = known.engineer
        window = self.knowledge.windows.find(use, engineer, latest)
        if window is None:
            return None
        return Allowed(use, window.request, engineer, window.until, is_known=True, break_glass=window.break_glass)

    async def _wait(self, use: Use, caller: CallerProof | UUID) -> Allowed | NoAccess:
        while self.knowledge.clock.is_quiet:
            if not self._is_starting:
                return BEHIND
            await asyncio.sleep(POLL_SECONDS)
        return await self._ask(use, caller)

    async def _ask(self, use: Use, caller: CallerProof | UUID) -> Allowed | NoAccess:
        if self._asked >= MOST_ASKED:
            return NoAccess("busy")
        self._asked += 1
        try:
            return await self._asked_once(use, caller)
        finally:
            self._asked -= 1

    async def _asked_once(self, use: Use, caller: CallerProof | UUID) -> Allowed | NoAccess:
        question = (use, _digest(caller))
        if isinstance(caller, CallerProof):
            said = await self._engineer(use.service, caller)
            if isinstance(said, NoAccess):
                return self._remember(question, said)
        latest = self.knowledge.clock.latest()
        if latest is None:
            return BEHIND
        found = self._find(use, caller, latest)
        if found is not None:
            return found
        running = self._checks.get(question)
        if running is not None:
            # A refusal is for all callers that ask at once. An allowing answer is for one: it may count as a use.
            answer = await asyncio.shield(running)
            if isinstance(answer, NoAccess):
                return answer
            return await self._remote.check(use, caller)
        running = self._checks[question] = asyncio.create_task(self._remote.check(use, caller))
        running.add_done_callback(lambda _: self._checks.pop(question, None))
        began = self._clock()
        answer = await asyncio.shield(running)
        return self._remember(question, answer, began) if isinstance(answer, NoAccess) else answer

    async def _engineer(self, service: str, caller: CallerProof) -> KnownCaller | NoAccess:
        key = (service, caller.digest)
        latest = self.knowledge.clock.latest()
        known = None if latest is None else self.knowledge.identities.find(key, latest)
        if known is not None:
            return known
        running = self._engineers.get(key)
        if running is None:
            running = self._engineers[key] = asyncio.create_task(self._asked_engineer(service, caller))
            running.add_done_callback(lambda _: self._engineers.pop(key, None))
        return await asyncio.shield(running)

    async def _asked_engineer(self, service: str, caller: CallerProof) -> KnownCaller | NoAccess:
        identities = self.knowledge.identities
        generation = identities.generation
        answer = await self._remote.engineer(service, caller)
        if isinstance(answer, KnownCaller):
            identities.put((service, caller.digest), answer, generation)
        return answer

    def _remember(self, question: Question, no: NoAccess, began: float | None = None) -> NoAccess:
        self._refused.pop(question, None)
        self._refused[question] = ((self._clock() if began is None else began) + REFUSED_SECONDS, no)
        if len(self._refused) > MOST_REFUSED:
            self._refused.popitem(last=False)
        return no


def _digest(caller: CallerProof | UUID) -> bytes:
    return caller.bytes if isinstance(caller, UUID) else caller.digest
