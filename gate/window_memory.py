"""Open windows in memory, and answers from them."""

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from uuid import UUID

from lockbox.requests.access_check import AccessCheck
from lockbox.requests.models import RequestEntry

FRESH_SECONDS = 1.0
HEARTBEAT_SECONDS = 0.4
"""The least time between two heartbeats. Each read that comes on time sends one."""
MOST_KEYS = 1_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
Key = tuple[str, str, int, str]
BOOT_CLOCK: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)
"""A timer that also counts the time for which the machine sleeps, if possible: data read before a sleep is old."""


@dataclass(frozen=True, slots=True)
class RememberedWindow:
    """Small, because memory keeps a hundred thousand windows.

    `deadline` is in microseconds since 1970. `extended`: an approved extension follows the window.
    """

    request: int
    tenant_id: UUID
    engineer: int
    deadline: int
    actions: frozenset[str]
    keys: tuple[Key, ...]
    break_glass: bool = False
    extended: bool = False

    @property
    def request_id(self) -> UUID:
        return UUID(int=self.request)

    @property
    def engineer_id(self) -> UUID:
        return UUID(int=self.engineer)

    @property
    def tenant(self) -> str:
        return self.keys[0][0]

    @property
    def service(self) -> str:
        return self.keys[0][1]

    @property
    def until(self) -> datetime:
        return time_of(self.deadline)


def time_of(microseconds: int) -> datetime:
    return EPOCH + microseconds * MICROSECOND


class ChangeKind(StrEnum):
    OPEN = "open"
    CLOSE = "close"
    ANEW = "snapshot"
    FORGET = "forget"
    HEARTBEAT = "heartbeat"


@dataclass(frozen=True, slots=True)
class MemoryChange:
    """A change of memory, numbered without gaps.

    `window` is the window that opened or closed. After `ANEW` memory is empty. After `FORGET` the same identity may
    map to another engineer. A `HEARTBEAT` is sent only after every closing that a read found. `at` is as in
    `WindowMemory.now`.
    """

    number: int
    kind: ChangeKind
    at: datetime
    window: RememberedWindow | None = None


Listener = Callable[[Sequence[MemoryChange]], None]
"""Receives changes in order, from several threads, and must not wait."""


class WindowMemory:
    """Open windows by tenant, service, engineer and resource.

    One thread writes. Any number of threads read without a lock: each change replaces one value of a dictionary.
    """

    def __init__(self, clock: Callable[[], float] = BOOT_CLOCK) -> None:
        self.clock = clock
        self._by_key: dict[Key, tuple[RememberedWindow, ...]] = {}
        self._by_request: dict[int, RememberedWindow] = {}
        self._tenants = Counter[UUID]()
        self._actions: dict[frozenset[str], frozenset[str]] = {}
        self._doubted: frozenset[UUID] = frozenset()
        self._changing = threading.Lock()
        self._forgotten: set[int] = set()
        self._unknown_changes = 0
        self._openings = Counter[int]()
        self._listener: Listener = lambda _: None
        self._number = 0
        self._untold: list[MemoryChange] = []
        self._beat_at = float("-inf")
        self._is_loaded = False
        # When the last read began, and by how many microseconds the database's clock is ahead of ours at most.
        self._read = (float("-inf"), 0.0)
        # When the last read that left no window in doubt began, and the windows that later reads have left in doubt.
        self._settled: tuple[float, Container[int]] = (float("-inf"), ())

    def __len__(self) -> int:
        return len(self._by_request)

    @property
    def age(self) -> float:
        """Seconds since the last read of Postgres began."""
        return self.clock() - self._read[0]

    @property
    def is_whole(self) -> bool:
        """Whether all windows are loaded, and a read within the last second left no window in doubt."""
        return self._is_loaded and self.clock() - self._settled[0] < FRESH_SECONDS

    @property
    def was_read(self) -> bool:
        return self._read[0] > float("-inf")

    def now(self) -> datetime:
        """Return the latest value that the database's time can have."""
        return EPOCH + (self.clock() * 1e6 + self._read[1]) * MICROSECOND

    def find(self, question: AccessCheck) -> RememberedWindow | None:
        """Return the window that admits the engineer; of several, the window with the latest deadline.

        A result of None does not refuse the call: Postgres may have a window, or the last read is too old.
        """
        found = self._by_key.get((question.tenant, question.service, question.engineer.int, question.resource))
        if found is None:
            return None
        began, ahead = self._read
        at = self.clock()
        if at - began >= FRESH_SECONDS:
            return None
        settled, in_doubt = self._settled
        is_settled = at - settled < FRESH_SECONDS
        latest = at * 1e6 + ahead
        best = None
        for window in found:
            if window.deadline <= latest or question.action not in window.actions:
                continue
            if not is_settled and window.request in in_doubt:
                continue
            if window.tenant_id not in self._doubted and (best is None or window.deadline > best.deadline):
                best = window
        return best

    def openings(self, engineer: UUID) -> tuple[int, int]:
        """Return two numbers, at least one of which changes whenever a window of the engineer may have opened."""
        return self._unknown_changes, self._openings[engineer.int]

    def has(self, request_id: UUID) -> bool:
        return request_id.int in self._by_request

    def holds(self, window: RememberedWindow) -> bool:
        latest = self.clock() * 1e6 + self._read[1]
        return self._by_request.get(window.request) is window and window.deadline > latest

    def note_read(self, began: float, at: datetime, in_doubt: Collection[UUID] = ()) -> None:
        """Note a read that began at `began`, returned the database's time `at`, and is stored here already.

        `at` counts as the time at the read's beginning, so that no window lasts too long. `in_doubt` are requests
        whose windows may have ended. They were last verified by the last read that left no window in doubt. A second
        after that read, `find` skips these windows and heartbeats stop.
        """
        # Set the windows in doubt first: a thread that reads in between finds too few windows, never too many.
        self._settled = (self._settled[0], frozenset(one.int for one in in_doubt)) if in_doubt else (began, ())
        self._read = (began, (at - EPOCH) / MICROSECOND - began * 1e6)
        if began - self._beat_at >= HEARTBEAT_SECONDS and self.clock() - self._settled[0] < FRESH_SECONDS:
            self._beat_at = began
            self.announce(ChangeKind.HEARTBEAT)

    def note_loaded(self) -> None:
        self._is_loaded = True

    def listen(self, listener: Listener) -> None:
        with self._changing:
            self._listener = listener

    def announce(self, kind: ChangeKind) -> None:
        with self._changing:
            self._unknown_changes += kind is ChangeKind.FORGET
            self._note(kind)
            self._tell()

    def snapshot(self) -> tuple[int, list[RememberedWindow]] | None:
        """Return the number of the last change and the windows open after it; None if memory is not whole."""
        with self._changing:
            if not self.is_whole:
                return None
            windows = list(self._by_request.values())
            if self._doubted:
                windows = [window for window in windows if window.tenant_id not in self._doubted]
            return self._number, windows

    def begin_round(self) -> None:
        """Begin to record forgotten requests, so that a window that was read before cannot come back."""
        with self._changing:
            self._forgotten = set()

    def put(
        self, entries: Iterable[RequestEntry], judged: Iterable[UUID] = (), extended: Container[UUID] = ()
    ) -> list[UUID]:
        """Store the entries judged in this round, and drop the windows of all other `judged` requests.

        Windows with counted uses are dropped, because Postgres counts their uses. `extended` are requests that
        another window follows. Returns requests that were forgotten since the round began and must be judged again.
        """
        with self._changing:
            found = dict.fromkeys(judged) | {one.request.id: one for one in entries}
            left_out = []
            for one, entry in found.items():
                window = self._window(entry, extended) if entry is not None and entry.open else None
                if window is not None and window != self._by_request.get(one.int):
                    self._openings[window.engineer] += 1
                if one.int in self._forgotten:
                    left_out.append(one)
                    continue
                is_counted = entry is not None and entry.request.uses_left is not None
                self._replace(one.int, None if is_counted else window)
            self._tell()
            return left_out

    def forget(self, request_ids: Collection[UUID]) -> list[UUID]:
        with self._changing:
            known = [one for one in request_ids if one.int in self._by_request]
            for one in request_ids:
                self._replace(one.int, None)
                self._forgotten.add(one.int)
            self._tell()
            return known

    def clear(self) -> None:
        with self._changing:
            self._is_loaded = False
            self._by_key.clear()
            self._by_request.clear()
            self._tenants.clear()
            self._actions.clear()
            self._openings.clear()
            self._unknown_changes += 1
            self._note(ChangeKind.ANEW)
            self._tell()

    def of(self, *, tenants: Collection[UUID] = (), people: Collection[UUID] = ()) -> list[UUID]:
        engineers = {person.int for person in people}
        windows = list(self._by_request.values())
        return [
            window.request_id for window in windows if window.tenant_id in tenants or window.engineer in engineers
        ]

    def requests(self) -> list[UUID]:
        return [UUID(int=one) for one in list(self._by_request)]

    def tenants(self) -> list[UUID]:
        with self._changing:
            return sorted(self._tenants)

    def doubt(self, checked: Collection[UUID], doubted: Collection[UUID]) -> None:
        """The logs of the `doubted` tenants are behind their shipped checkpoints."""
        with self._changing:
            before = self._doubted
            self._doubted = (before - frozenset(checked)) | frozenset(doubted)
            if changed := before ^ self._doubted:
                for window in self._by_request.values():
                    if window.tenant_id in changed:
                        self._note(ChangeKind.OPEN if window.tenant_id in before else ChangeKind.CLOSE, window)
                self._tell()

    def _window(self, entry: RequestEntry, extended: Container[UUID]) -> RememberedWindow:
        request = entry.request
        tenant, service = sys.intern(entry.tenant), sys.intern(request.service)
        actions = frozenset(sys.intern(action) for action in request.open_actions)
        return RememberedWindow(
            request.id.int,
            request.tenant_id,
            request.requester_id.int,
            (request.deadline_at - EPOCH) // MICROSECOND,
            self._actions.setdefault(actions, actions),
            tuple((tenant, service, request.requester_id.int, key) for key in dict.fromkeys(request.open_resources)),
            request.break_glass,
            request.id in extended,
        )

    def _replace(self, request: int, window: RememberedWindow | None) -> None:
        known = self._by_request.get(request)
        if known == window:
            return
        if window is not None and len(self._by_key) + len(window.keys) > MOST_KEYS:
            window = None
        if known is not None:
            self._remove(known)
        if window is not None:
            self._insert(window)
        told, kind = (known, ChangeKind.CLOSE) if window is None else (window, ChangeKind.OPEN)
        if told is not None and told.tenant_id not in self._doubted:
            self._note(kind, told)

    def _insert(self, window: RememberedWindow) -> None:
        self._by_request[window.request] = window
        self._tenants[window.tenant_id] += 1
        for key in window.keys:
            self._by_key[key] = (*self._by_key.get(key, ()), window)

    def _remove(self, window: RememberedWindow) -> None:
        del self._by_request[window.request]
        self._tenants[window.tenant_id] -= 1
        if not self._tenants[window.tenant_id]:
            del self._tenants[window.tenant_id]
        for key in window.keys:
            left = tuple(one for one in self._by_key.get(key, ()) if one is not window)
            if left:
                self._by_key[key] = left
            else:
                self._by_key.pop(key, None)

    def _note(self, kind: ChangeKind, window: RememberedWindow | None = None) -> None:
        self._number += 1
        self._untold.append(MemoryChange(self._number, kind, self.now(), window))

    def _tell(self) -> None:
        """The caller holds the lock, so that the listener receives all changes in order."""
        if self._untold:
            untold, self._untold = self._untold, []
            self._listener(untold)
