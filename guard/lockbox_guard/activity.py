"""Report to Lockbox what was done inside windows: gathered, and sent in batches beside the calls."""

import asyncio
import logging
import re
import threading
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx

from lockbox_guard.connection import GuardToken, LockboxAddress
from lockbox_guard.database_clock import EPOCH
from lockbox_guard.decisions import Allowed
from lockbox_guard.knowledge import Knowledge

log = logging.getLogger("lockbox_guard")
METHOD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,62}")
OUTCOME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
SEND_SECONDS, ANSWER_SECONDS = 2.0, 5.0
MOST_KINDS = 10_000
MOST_A_REPORT = 250
MOST_WAITING = 1_000
PASSING = frozenset({401, 408, 425, 429})
"""Answers after which the same report is sent again, as after those from 500 on."""


@dataclass(frozen=True, slots=True)
class DoneKind:
    """Something that is done in a window: each kind is one line of a report, however often it was done."""

    request: UUID
    method: str
    resource: str
    action: str
    outcome: str


@dataclass(slots=True)
class DoneTimes:
    """How often it was done, and when first and last, in microseconds since 1970."""

    first: float
    last: float
    count: int = 0

    def lines(self, kind: DoneKind) -> list[dict[str, Any]]:
        """Return it as Lockbox takes it."""
        said = {"method": kind.method, "resource": kind.resource, "action": kind.action, "outcome": kind.outcome}
        last = {"at": _written(self.last), "count": 1, **said}
        return [last] if self.count == 1 else [{"at": _written(self.first), "count": self.count - 1, **said}, last]


@dataclass(frozen=True)
class WaitingReport:
    """A report that is sent under one key until Lockbox has taken it."""

    request: UUID
    key: str
    entries: list[dict[str, Any]]


class ActivityReports:
    """What was done and is not yet reported. It is bounded: what does not fit is counted, and lost."""

    def __init__(self, address: LockboxAddress, token: GuardToken, knowledge: Knowledge) -> None:
        self._token = token
        self._clock = knowledge.clock
        self._client = address.client(connections=1)
        self._adding = threading.Lock()
        self._done: dict[DoneKind, DoneTimes] = {}
        self._waiting: list[WaitingReport] = []
        self._lost = Counter[str]()
        self._sending = asyncio.Lock()

    def add(self, allowed: Allowed, method: str, outcome: str) -> None:
        """Note that something was done now; takes microseconds.

        Raises:
            ValueError: the method or the outcome is not one that Lockbox takes.
        """
        if not METHOD.fullmatch(method) or not OUTCOME.fullmatch(outcome):
            raise ValueError("name a method such as GET, and an outcome such as served, in small letters")
        at = self._clock.now()
        if allowed.request is None or at is None:
            return
        kind = DoneKind(allowed.request, method, allowed.use.resource, allowed.use.action, outcome)
        with self._adding:
            times = self._done.get(kind)
            if times is None:
                if len(self._done) >= MOST_KINDS:
                    self._lost["no room"] += 1
                    return
                times = self._done[kind] = DoneTimes(at, at)
            times.count += 1
            times.last = max(times.last, at)

    async def run(self) -> None:
        """Send what there is every two seconds, until cancelled."""
        try:
            while True:
                await asyncio.sleep(SEND_SECONDS)
                await self.send()
        finally:
            await self._client.aclose()

    async def send(self) -> None:
        """Send what there is; what Lockbox does not take now waits."""
        async with self._sending:
            await self._send_all()

    async def _send_all(self) -> None:
        self._waiting += self._gathered()
        if len(self._waiting) > MOST_WAITING:
            self._lost["no room"] += sum(len(one.entries) for one in self._waiting[:-MOST_WAITING])
            del self._waiting[:-MOST_WAITING]
        while self._waiting and await self._send(self._waiting[0]):
            self._waiting.pop(0)
        if self._lost:
            log.warning("lockbox-guard: activity was not reported: %s", dict(self._lost))
            self._lost.clear()

    def _gathered(self) -> list[WaitingReport]:
        with self._adding:
            done, self._done = self._done, {}
        by_request: dict[UUID, list[DoneKind]] = {}
        for kind in done:
            by_request.setdefault(kind.request, []).append(kind)
        return [
            WaitingReport(request, str(uuid4()), [line for kind in some for line in done[kind].lines(kind)])
            for request, kinds in by_request.items()
            for some in (kinds[at : at + MOST_A_REPORT] for at in range(0, len(kinds), MOST_A_REPORT))
        ]

    async def _send(self, report: WaitingReport) -> bool:
        """Send a report, and return whether it is done with."""
        try:
            headers = {"authorization": f"Bearer {self._token.read()}", "idempotency-key": report.key}
            path = f"/v1/requests/{report.request}/activity"
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await self._client.post(path, json={"entries": report.entries}, headers=headers)
        except (httpx.HTTPError, TimeoutError, OSError, ValueError):
            return False
        status = answer.status_code
        if status in PASSING or status >= httpx.codes.INTERNAL_SERVER_ERROR:
            return False
        if status != httpx.codes.CREATED:
            self._lost[f"refused with {status}"] += len(report.entries)
        return True


def _written(at: float) -> str:
    return (EPOCH + timedelta(microseconds=at)).isoformat(timespec="microseconds")
