"""Gather reports of what was done inside windows, and send them to Lockbox in batches, apart from the calls."""

import asyncio
import logging
import re
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar
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
MOST_A_REPORT = 500
MOST_WAITING = 1_000
PASSING = frozenset({401, 408, 425, 429})
"""After these statuses, and after those from 500 on, the same report is sent again."""


@dataclass(frozen=True, slots=True)
class DoneKind:
    """Each kind is one line of a report, with a count."""

    request: UUID
    method: str
    resource: str
    action: str
    outcome: str


@dataclass(frozen=True, slots=True)
class UsedKind:
    """Calls let in from memory, which no gate has counted."""

    request: UUID
    resource: str
    action: str


@dataclass(slots=True)
class DoneTimes:
    """`first` and `last` are in microseconds since 1970."""

    first: float
    last: float
    count: int = 0

    def add(self, at: float) -> None:
        self.count += 1
        self.last = max(self.last, at)

    def lines(self, kind: DoneKind | UsedKind) -> list[dict[str, Any]]:
        said = {name: getattr(kind, name) for name in type(kind).__slots__ if name != "request"}
        last = {"at": _written(self.last), "count": 1, **said}
        return [last] if self.count == 1 else [{"at": _written(self.first), "count": self.count - 1, **said}, last]


AnyKind = TypeVar("AnyKind", DoneKind, UsedKind)


@dataclass(frozen=True)
class WaitingReport:
    """A report that is sent under one key until Lockbox has taken it."""

    request: UUID
    key: str
    body: dict[str, list[dict[str, Any]]]

    @property
    def size(self) -> int:
        return sum(len(lines) for lines in self.body.values())


class ActivityReports:
    """Activity that is not yet reported, up to a limit. What exceeds the limit is lost, and only counted."""

    def __init__(self, address: LockboxAddress, token: GuardToken, knowledge: Knowledge) -> None:
        self._token = token
        self._clock = knowledge.clock
        self._client = address.client(connections=1)
        self._adding = threading.Lock()
        self._done: dict[DoneKind, DoneTimes] = {}
        self._used: dict[UsedKind, DoneTimes] = {}
        self._waiting: list[WaitingReport] = []
        self._lost = Counter[str]()
        self._sending = asyncio.Lock()

    def add(self, allowed: Allowed, method: str, outcome: str) -> None:
        """Note an action done now; takes microseconds.

        Raises:
            ValueError: Lockbox does not take the method or the outcome.
        """
        if not METHOD.fullmatch(method) or not OUTCOME.fullmatch(outcome):
            raise ValueError("name a method such as GET, and an outcome such as served, in small letters")
        at = self._clock.now()
        if allowed.request is None or at is None:
            return
        kind = DoneKind(allowed.request, method, allowed.use.resource, allowed.use.action, outcome)
        self._add(self._done, kind, at)

    def add_use(self, allowed: Allowed) -> None:
        """Note a call let in from memory now; takes a microsecond or two."""
        at = self._clock.now()
        if allowed.request is not None and at is not None:
            self._add(self._used, UsedKind(allowed.request, allowed.use.resource, allowed.use.action), at)

    def _add(self, kinds: dict[AnyKind, DoneTimes], kind: AnyKind, at: float) -> None:
        with self._adding:
            times = kinds.get(kind)
            if times is None:
                if len(kinds) >= MOST_KINDS:
                    self._lost["no room"] += 1
                    return
                times = kinds[kind] = DoneTimes(at, at)
            times.add(at)

    async def run(self) -> None:
        """Send every two seconds, until cancelled."""
        try:
            while True:
                await asyncio.sleep(SEND_SECONDS)
                await self.send()
        finally:
            await self._client.aclose()

    async def send(self) -> None:
        """Send all reports. Those that Lockbox cannot take now wait for the next time."""
        async with self._sending:
            await self._send_all()

    async def _send_all(self) -> None:
        self._waiting += self._gathered()
        if len(self._waiting) > MOST_WAITING:
            self._lost["no room"] += sum(one.size for one in self._waiting[:-MOST_WAITING])
            del self._waiting[:-MOST_WAITING]
        while self._waiting and await self._send(self._waiting[0]):
            self._waiting.pop(0)
        if self._lost:
            log.warning("lockbox-guard: activity was not reported: %s", dict(self._lost))
            self._lost.clear()

    def _gathered(self) -> list[WaitingReport]:
        with self._adding:
            lines = {"entries": _by_request(self._done), "uses": _by_request(self._used)}
            self._done.clear()
            self._used.clear()
        return [
            WaitingReport(request, str(uuid4()), body)
            for request in dict.fromkeys([*lines["entries"], *lines["uses"]])
            for body in _bodies({name: found[request] for name, found in lines.items() if request in found})
        ]

    async def _send(self, report: WaitingReport) -> bool:
        try:
            headers = {"authorization": f"Bearer {self._token.read()}", "idempotency-key": report.key}
            path = f"/v1/requests/{report.request}/activity"
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await self._client.post(path, json=report.body, headers=headers)
        except (httpx.HTTPError, TimeoutError, OSError, ValueError):
            return False
        status = answer.status_code
        if status in PASSING or status >= httpx.codes.INTERNAL_SERVER_ERROR:
            return False
        if status != httpx.codes.CREATED:
            self._lost[f"refused with {status}"] += report.size
        return True


def _written(at: float) -> str:
    return (EPOCH + timedelta(microseconds=at)).isoformat(timespec="microseconds")


def _by_request(kinds: dict[AnyKind, DoneTimes]) -> dict[UUID, list[dict[str, Any]]]:
    found: dict[UUID, list[dict[str, Any]]] = {}
    for kind, times in kinds.items():
        found.setdefault(kind.request, []).extend(times.lines(kind))
    return found


def _bodies(lines: dict[str, list[dict[str, Any]]]) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """Yield reports of one request, each with at most as many lines of a kind as Lockbox takes."""
    for at in range(0, max(map(len, lines.values())), MOST_A_REPORT):
        yield {name: part for name, all_of in lines.items() if (part := all_of[at : at + MOST_A_REPORT])}
