"""Decide which windows must be verified, and when. All changes and notifications pass through this module."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import Row, text

from gate.window_memory import ChangeKind, WindowMemory
from lockbox.database import UnitOfWork, now
from lockbox.requests.models import RequestEntry

VERIFIED_AT_ONCE = 250
AGAIN_SECONDS = 0.25
"""How long a read verifies windows that may have ended; the next read continues."""
DOUBT_SECONDS = 1.25
"""How long windows that may have ended wait for verification. Then they are dropped until they are verified.

Heartbeats wait for them too: after a longer pause guards would treat all windows as closed.
"""
NOBODY = UUID(int=0)
# Transaction snapshots find the changes. A sequence would miss some: a number is taken before its commit is seen.
CHANGES = text("""
SELECT server, seen, event_id, request_id, ends, tenant_id, person_id FROM window_changes(CAST(:before AS text))
""")
RECOVERY = " in recovery"


@dataclass(frozen=True)
class WindowChange:
    """An event that may change the windows of one request, tenant or person; if none is named, all windows.

    `ends`: the request's window has ended finally.
    """

    request_id: UUID | None
    ends: bool
    tenant_id: UUID | None
    person_id: UUID | None


@dataclass(frozen=True)
class ChangeBatch:
    """`at` is the database's time after the read.

    The next read continues at `seen`, which is valid only for the same `server`. `server` differs for each start of
    Postgres and each database.
    """

    server: str
    seen: str
    changes: tuple[WindowChange, ...]
    at: datetime

    @property
    def is_standby(self) -> bool:
        return self.server.endswith(RECOVERY)

    def follows(self, earlier: "ChangeBatch | None") -> bool:
        """Return whether the batch has all changes since an earlier batch."""
        return earlier is not None and earlier.server == self.server and _first_unseen(earlier) <= _first_unseen(self)


def read_changes(session: UnitOfWork, earlier: ChangeBatch | None) -> ChangeBatch:
    """Return the changes of transactions that ended since the earlier read; the first read returns none.

    The transaction must belong to a system caller (`authentication.enter`).
    """
    rows = session.execute(CHANGES, {"before": earlier.seen if earlier else None}).all()
    changes = tuple(_change(row) for row in rows if row.event_id is not None)
    return ChangeBatch(rows[0].server, rows[0].seen, changes, now(session))


def _first_unseen(batch: ChangeBatch) -> int:
    """Return xmax, the first transaction that had not begun, from a snapshot `xmin:xmax:running`."""
    return int(batch.seen.split(":")[1])


def _change(row: Row[Any]) -> WindowChange:
    return WindowChange(row.request_id, row.ends, row.tenant_id, UUID(row.person_id) if row.person_id else None)


class WindowJudge(Protocol):
    def windows(self, ids: Collection[UUID]) -> Sequence[RequestEntry]: ...

    def windows_after(self, after: UUID, most: int) -> Sequence[RequestEntry]: ...


@dataclass(frozen=True, slots=True)
class ScheduledWindow:
    begins: datetime
    extends: UUID | None


class WindowVerification:
    """Keeps the windows in memory as Postgres judges them.

    A window that has ended is dropped at once. After any other change a window is verified again and meanwhile stays
    in memory; if it may have ended, it is `in_doubt` until then. Any thread may call `hear`; only the reader's thread
    may call the other methods.
    """

    def __init__(self, memory: WindowMemory) -> None:
        self._memory = memory
        self.last: ChangeBatch | None = None
        # Only windows in memory are added, so the set stays small, whatever notifications arrive between two reads.
        self._heard: set[UUID] = set()
        self._doubtful: dict[UUID, None] = {}
        self._doubted_at: float | None = None
        self._unverified: dict[UUID, None] = {}
        self._loaded_to: UUID | None = NOBODY
        self._scheduled: dict[UUID, ScheduledWindow] = {}

    @property
    def has_more(self) -> bool:
        return bool(self._doubtful or self._unverified or self._loaded_to is not None)

    @property
    def in_doubt(self) -> Collection[UUID]:
        return self._doubtful.keys()

    @property
    def next_begin(self) -> datetime | None:
        return min((one.begins for one in self._scheduled.values()), default=None)

    def hear(self, ids: Iterable[UUID], *, end: bool = False) -> bool:
        """Drop these windows if they ended (`end`), or else have them verified.

        Return whether any of them is in memory. Notifications may be wrong, so dropped windows are verified too.
        """
        heard = self._memory.forget(list(ids)) if end else [one for one in ids if self._memory.has(one)]
        for one in heard:
            self._heard.add(one)
        return bool(heard)

    def begin_anew(self) -> None:
        self._memory.clear()
        self.last = None
        self._doubtful, self._doubted_at = {}, None
        self._unverified, self._loaded_to, self._scheduled = {}, NOBODY, {}

    def verify_again(self, request_id: UUID) -> None:
        self._memory.forget([request_id])
        self._unverified[request_id] = None

    def apply(self, batch: ChangeBatch) -> None:
        if batch.is_standby or not batch.follows(self.last):
            self.begin_anew()
        changes = batch.changes
        ended = {change.request_id for change in changes if change.request_id and change.ends}
        changed = {change.request_id for change in changes if change.request_id}
        self._memory.forget(ended)
        doubtful = {one for one in changed if self._memory.has(one)}
        doubtful |= self._in_doubt([change for change in changes if change.request_id is None])
        while self._heard:
            changed.add(self._heard.pop())
        scheduled = [self._scheduled.pop(one) for one in changed if one in self._scheduled]
        # If a scheduled window changed, the window that it extends may no longer continue. Guards are notified of
        # that window again, once the scheduled window is verified.
        extended = {one.extends for one in scheduled if one.extends and self._memory.has(one.extends)}
        self._doubtful |= dict.fromkeys(doubtful)
        fresh = dict.fromkeys(changed - ended - doubtful) | dict.fromkeys(extended - changed)
        self._unverified = fresh | self._unverified
        self.last = batch

    def _in_doubt(self, changes: Sequence[WindowChange]) -> set[UUID]:
        if not changes:
            return set()
        self._memory.announce(ChangeKind.FORGET)
        if any(change.tenant_id is None and change.person_id is None for change in changes):
            self._loaded_to = NOBODY
            return set(self._memory.requests())
        tenants = {change.tenant_id for change in changes if change.tenant_id}
        people = {change.person_id for change in changes if change.person_id}
        return set(self._memory.of(tenants=tenants, people=people))

    def settle(self, judge: WindowJudge, at: datetime) -> None:
        """Verify windows in doubt, for at most `AGAIN_SECONDS`.

        Windows that have been in doubt for `DOUBT_SECONDS` are dropped.
        """
        began = self._memory.clock()
        doubted_at = began if self._doubted_at is None else self._doubted_at
        while self._doubtful:
            self._verify(judge, self._doubtful, at)
            if self._memory.clock() - began >= AGAIN_SECONDS:
                break
        if self._memory.clock() - doubted_at >= DOUBT_SECONDS:
            self._memory.forget(list(self._doubtful))
            self._unverified = self._doubtful | self._unverified
            self._doubtful = {}
        self._doubted_at = doubted_at if self._doubtful else None

    def go_on(self, judge: WindowJudge, at: datetime) -> None:
        """Verify some of the other changed windows, or else load the next windows."""
        due = [one for one, scheduled in self._scheduled.items() if scheduled.begins <= at]
        for one in due:
            del self._scheduled[one]
        # Scheduled windows open without an event, if Postgres then still judges them to be open.
        self._unverified = dict.fromkeys(due) | self._unverified
        if self._unverified:
            self._verify(judge, self._unverified, at)
        elif self._loaded_to is not None and not self._doubtful:
            self._memory.begin_round()
            found = judge.windows_after(self._loaded_to, VERIFIED_AT_ONCE)
            self._put(found, [], at)
            self._loaded_to = found[-1].request.id if len(found) == VERIFIED_AT_ONCE else None
            if self._loaded_to is None:
                self._memory.note_loaded()

    def _verify(self, judge: WindowJudge, waiting: dict[UUID, None], at: datetime) -> None:
        some = list(waiting)[:VERIFIED_AT_ONCE]
        self._memory.begin_round()
        found = judge.windows(some)
        for one in some:
            del waiting[one]
        self._put(found, some, at)

    def _put(self, entries: Sequence[RequestEntry], judged: Sequence[UUID], at: datetime) -> None:
        for entry in entries:
            begins, extends = entry.request.opens_at, entry.request.extends
            if begins is not None and begins > at:
                goes_on = extends if entry.held_back is None else None
                self._scheduled[entry.request.id] = ScheduledWindow(begins, goes_on)
                if goes_on is not None and self._memory.has(goes_on):
                    # Guards are notified of the extended window again, as one that continues.
                    self._unverified[goes_on] = None
        extended = {one.extends for one in self._scheduled.values() if one.extends}
        self._unverified |= dict.fromkeys(self._memory.put(entries, judged, extended))
