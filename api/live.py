"""Live updates of open pages. Each process has one Redis listener."""

import asyncio
import json
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property, partial
from itertools import takewhile
from typing import TypeVar
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError

from api.client_counts import ClientCounts
from config.settings import Settings
from lockbox.database import Database
from lockbox.errors import Busy, NotSignedIn, TooMany
from lockbox.identity import sessions
from lockbox.identity.roles import Caller
from lockbox.pubsub import ENDS, PAGES, Listener
from lockbox.requests import queries
from lockbox.requests.queries import LiveReader
from lockbox.text_rules import UUID_FORM

log = structlog.get_logger(__name__)

MOST_A_SESSION, MOST_A_PERSON = 4, 12
TOO_MANY = "You have too many pages open. This page refreshes by itself."
BEAT_SECONDS = 15.0
UNVERIFIED_SECONDS = 60.0
COALESCE_SECONDS = 1.0
PAUSES_OF_OPERATIONS = 3
MOST_AT_ONCE = 2000
MOST_WAITING = 20_000
MOST_IDS = 20_000
SETTLED_AFTER = 5.0

LIST, REQUEST, OPERATIONS = "list", "request:", "operations"

Found = TypeVar("Found")


@dataclass(frozen=True)
class LiveEvent:
    """`at` is read from this process' monotonic timer."""

    number: int
    at: float
    ids: frozenset[str]
    side: str | None


class Replay:
    """The latest updates that this process received, with twenty thousand ids at most.

    A position is `<epoch>-<number>`. The epoch is unique to a process and changes when updates may have been missed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recent: deque[LiveEvent] = deque()
        self._held = 0
        self._number = 0
        self._epoch = secrets.token_hex(6)

    def add(self, ids: frozenset[str], side: str | None) -> None:
        with self._lock:
            self._number += 1
            self._recent.append(LiveEvent(self._number, time.monotonic(), ids, side))
            self._held += len(ids)
            while self._held > MOST_IDS:
                self._held -= len(self._recent.popleft().ids)

    def begin_anew(self) -> None:
        with self._lock:
            self._recent.clear()
            self._held = 0
            self._epoch = secrets.token_hex(6)

    @property
    def here(self) -> str:
        """The position after all received updates."""
        with self._lock:
            return f"{self._epoch}-{self._number}"

    @property
    def settled(self) -> str:
        """The position of some seconds ago. A page that is rendered now has read everything before that position."""
        before = time.monotonic() - SETTLED_AFTER
        with self._lock:
            later = sum(1 for _ in takewhile(lambda one: one.at > before, reversed(self._recent)))
            return f"{self._epoch}-{self._number - later}"

    def since(self, position: str) -> list[LiveEvent] | None:
        """Return the updates after a position; None if it is unknown."""
        epoch, _, number = position.partition("-")
        with self._lock:
            if epoch != self._epoch or not number.isascii() or not number.isdigit() or len(number) > 15:  # noqa: PLR2004
                return None
            first = self._recent[0].number if self._recent else self._number + 1
            if not first - 1 <= int(number) <= self._number:
                return None
            return [one for one in self._recent if one.number > int(number)]


@dataclass(eq=False)
class Subscription:
    """A page's subscription to named requests, to all requests that the person may see, or to operations.

    It reports that something changed, never what changed. Updates for a slow reader are merged: at most one per topic
    waits.
    """

    caller: Caller
    secret: str = field(repr=False)
    requests: frozenset[UUID] = frozenset()
    lists: bool = False
    operations: bool = False
    verified_at: float = 0.0
    is_over: bool = False
    _topics: set[str] = field(default_factory=set)
    _signals: list[str] = field(default_factory=list)
    _woken: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def reader(self) -> LiveReader:
        return LiveReader(self.caller.person_id, self.caller.only_at)

    @cached_property
    def _watched(self) -> frozenset[str]:
        return frozenset(map(str, self.requests))

    def tell_of(self, ids: AbstractSet[str]) -> None:
        if shown := self._watched & ids:
            self.tell(*(f"{REQUEST}{one}" for one in shown))

    def tell(self, *topics: str) -> None:
        self._topics.update(topics)
        self._woken.set()

    def signal(self, name: str) -> None:
        """Queue `again`, `away` or `ended`. Of several equal signals only the last is kept."""
        self._signals = [*(signal for signal in self._signals if signal != name), name]
        self._woken.set()

    def close(self, name: str | None = None) -> None:
        if name:
            self.signal(name)
        self.is_over = True
        self._woken.set()

    async def next(self, seconds: float, place: Callable[[], str]) -> bytes:
        """Return the next server-sent events, or a comment if nothing happens for `seconds`.

        `place` returns the position of a page that has received all these events.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return b": still here\n\n"
        self._woken.clear()
        signals, topics = self._signals, sorted(self._topics)
        self._signals, self._topics = [], set()
        position = place()
        said = [event(name, position, {}) for name in signals]
        if topics and "again" not in signals:
            said.append(event("news", position, {"topics": topics}))
        return b"".join(said)


def event(name: str, position: str, data: dict[str, object]) -> bytes:
    """Format one server-sent event (HTML, 9.2.6). None of the parts may contain a line break."""
    return f"id: {position}\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode()


class LiveUpdates:
    """All open pages of one event loop. One thread queries the database for them, on one connection.

    A stream uses no transaction and no connection of its own. Affected lists are computed at most once a second, and
    each subscription is checked again every fifteen seconds. Operations pages are notified of any change at most once
    in three seconds. The consequences of a move, such as its mails and its seal, come with the next update.
    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        counts: ClientCounts | None = None,
        *,
        beat: float = BEAT_SECONDS,
        pause: float = COALESCE_SECONDS,
    ) -> None:
        self._counts = counts or ClientCounts()
        self.beat = beat
        self._pause = pause
        self._database = database
        self._most = settings.live_streams
        self._idle = timedelta(seconds=settings.session_idle_seconds)
        self._recent = Replay()
        self._sent_position = self._recent.here
        self._seats: dict[Subscription, None] = {}
        self._fresh = dict[str | None, set[str]]()
        self._listed: dict[str, None] = {}
        self._listener: Listener | None = None
        self._hears: bool | None = None
        self._is_shut = False
        self._rung = asyncio.Event()
        self._stirred = asyncio.Event()
        self._running: list[asyncio.Task[None]] = []
        self._clerk = ThreadPoolExecutor(1, "live-updates")

    @property
    def position(self) -> str:
        return self._recent.settled

    def sent_position(self) -> str:
        return self._sent_position

    @property
    def count(self) -> int:
        return len(self._seats)

    def sit(self, seat: Subscription, position: str | None) -> None:
        """Subscribe a page from a position on. The caller must call `leave` in any case.

        Raises:
            TooMany: the session or the person has the maximum number of streams, over all processes of the server.
            Busy: the process has the maximum number of streams, or is about to end.
        """
        if self._is_shut or len(self._seats) >= self._most:
            raise Busy("Too many pages are open on this server. This page refreshes by itself.", retry_after=60)
        session, person = _clients(seat)
        if not self._counts.take(session, MOST_A_SESSION):
            raise TooMany(TOO_MANY, retry_after=60)
        if not self._counts.take(person, MOST_A_PERSON):
            self._counts.give_back(session)
            raise TooMany(TOO_MANY, retry_after=60)
        loop = asyncio.get_running_loop()
        seat.verified_at = loop.time()
        self._seats[seat] = None
        seat.signal("ready")
        if self._hears is False:
            seat.signal("away")
        missed = self._recent.since(position) if position is not None else None
        if missed is None:
            seat.signal("again")
        elif missed:
            self._report([seat], _by_side((one.side, one.ids) for one in missed))
            self._stirred.set()
        self._start(loop)

    def leave(self, seat: Subscription) -> None:
        if seat in self._seats:
            del self._seats[seat]
            for client in _clients(seat):
                self._counts.give_back(client)
        if not self._seats:
            for task in self._running:
                task.cancel()
            self._running.clear()

    def shut(self) -> None:
        """End every stream and accept no other. Call this on the event loop."""
        self._is_shut = True
        for seat in self._seats:
            seat.close()

    def stop(self) -> None:
        if self._listener:
            self._listener.stop()
        self._clerk.shutdown(wait=False, cancel_futures=True)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._running:
            self._sent_position = self._recent.here
            work = (self._report_for_ever(), self._report_operations_for_ever(), self._verify_for_ever())
            self._running = [loop.create_task(one) for one in work]
        if self._listener is None:
            self._listener = self._database.schedule.listener(
                lambda ids, side: _safely(loop, self._hear, ids, side), lambda hears: _safely(loop, self._turn, hears)
            )
            self._listener.start()

    def _hear(self, ids: frozenset[str], side: str | None) -> None:
        if side == ENDS:
            return
        good = frozenset(one for one in ids if UUID_FORM.fullmatch(one))
        self._recent.add(good, side)
        if self._seats:
            self._fresh.setdefault(side, set()).update(good)
            self._rung.set()
            self._stirred.set()

    def _turn(self, hears: bool) -> None:  # noqa: FBT001 - _safely passes it by position
        if hears:
            self._recent.begin_anew()
            self._fresh.clear()
            self._sent_position = self._recent.here
            self._signal("again")
        elif self._hears is not False:
            self._signal("away")
        self._hears = hears

    def _signal(self, name: str) -> None:
        for seat in self._seats:
            seat.signal(name)

    async def _report_for_ever(self) -> None:
        while True:
            await self._rung.wait()
            self._rung.clear()
            fresh, self._fresh, self._sent_position = self._fresh, {}, self._recent.here
            self._report(list(self._seats), fresh)
            await self._report_lists()
            await asyncio.sleep(self._pause)

    async def _report_operations_for_ever(self) -> None:
        while True:
            await self._stirred.wait()
            self._stirred.clear()
            for seat in self._seats:
                if seat.operations:
                    seat.tell(OPERATIONS)
            await asyncio.sleep(PAUSES_OF_OPERATIONS * self._pause)

    def _report(self, seats: Sequence[Subscription], news: Mapping[str | None, AbstractSet[str]]) -> None:
        for seat in seats:
            for side in (None, PAGES, seat.caller.side.value):
                seat.tell_of(news.get(side, frozenset()))
        if any(seat.lists for seat in seats):
            self._wait(news.get(None, ()))

    def _wait(self, ids: Iterable[str]) -> None:
        self._listed.update(dict.fromkeys(ids))
        for one in list(self._listed)[: max(0, len(self._listed) - MOST_WAITING)]:
            del self._listed[one]
        if self._listed:
            self._rung.set()

    async def _report_lists(self) -> None:
        listeners = {seat.reader: None for seat in self._seats if seat.lists}
        ids = list(self._listed)[:MOST_AT_ONCE]
        self._listed = dict.fromkeys(list(self._listed)[MOST_AT_ONCE:])
        if not listeners or not ids:
            return
        concerned = await self._ask(lambda: self._concerned(list(map(UUID, ids)), list(listeners)))
        if concerned is None:
            self._wait(ids)
        for seat in self._seats:
            if seat.lists and concerned is not None and seat.reader in concerned:
                seat.tell(LIST)
        self._wait(())

    def _concerned(self, ids: Sequence[UUID], listeners: Sequence[LiveReader]) -> frozenset[LiveReader]:
        with self._database.transaction() as session:
            return queries.concerned(session, ids, listeners)

    async def _verify_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.beat)
            for seat in list(self._seats):
                found = await self._ask(partial(self.may_listen, seat))
                if found is None:
                    break
                seat.verified_at = loop.time()
                if not found:
                    seat.close("ended")
            for seat in self._seats:
                if loop.time() - seat.verified_at > UNVERIFIED_SECONDS + self.beat:
                    seat.close("away")

    def may_listen(self, seat: Subscription) -> bool:
        """Query whether the session is valid and the person may see everything that the page shows."""
        try:
            with self._database.transaction() as session:
                caller = sessions.authenticate(session, seat.secret, idle=self._idle, by_itself=True).caller
                known = queries.known(session, caller, seat.requests)
        except NotSignedIn:
            return False
        return known == seat.requests and not _lost(seat.caller, caller)

    async def _ask(self, call: Callable[[], Found]) -> Found | None:
        """Return None if the database is away."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._clerk, call)
        except SQLAlchemyError as error:
            log.warning("live_updates.database_away", error=type(error).__name__)
            return None


def _clients(seat: Subscription) -> tuple[str, str]:
    return f"streams of session {seat.secret}", f"streams of person {seat.caller.person_id}"


def _lost(before: Caller, after: Caller) -> bool:
    return bool(before.standings - after.standings)


def _by_side(news: Iterable[tuple[str | None, AbstractSet[str]]]) -> dict[str | None, set[str]]:
    found = dict[str | None, set[str]]()
    for side, ids in news:
        found.setdefault(side, set()).update(ids)
    return found


def _safely(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *said: object) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(call, *said)
