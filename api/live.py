"""Live updates: one Redis listener for each process tells the open pages what changed."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import TypeVar
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError

from api.client_counts import ClientCounts
from api.replay import Replay
from api.subscription import LIST, OPERATIONS, Subscription
from config.settings import Settings
from lockbox.database import Database
from lockbox.errors import Busy, NotSignedIn, TooMany
from lockbox.identity import sessions
from lockbox.identity.roles import Caller
from lockbox.pubsub import ENDS, PAGES, Listener
from lockbox.requests import queries, request_reads
from lockbox.requests.request_reads import LiveReader
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

Found = TypeVar("Found")


class LiveUpdates:
    """All open pages on one event loop; one thread with one connection asks the database.

    A stream holds no transaction and no connection. At most once a second the affected lists are computed, and every
    fifteen seconds each subscription is checked again. Operations pages learn that anything happened, at most once in
    three seconds: what follows from a move, such as its mails and its seal, comes with the next update.
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
        """The position of a page that is rendered now."""
        return self._recent.settled

    def sent_position(self) -> str:
        """Return the position after everything that was sent to pages."""
        return self._sent_position

    @property
    def count(self) -> int:
        """Return how many pages are subscribed."""
        return len(self._seats)

    def sit(self, seat: Subscription, position: str | None) -> None:
        """Subscribe a page from a position on; it must call `leave`, whatever happens.

        Raises:
            TooMany: the session, or the person, has the maximum number of streams, over all processes of the server.
            Busy: the process has the maximum number, or is about to end.
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
        """Unsubscribe a page."""
        if seat in self._seats:
            del self._seats[seat]
            for client in _clients(seat):
                self._counts.give_back(client)
        if not self._seats:
            for task in self._running:
                task.cancel()
            self._running.clear()

    def shut(self) -> None:
        """End every stream and accept no other; call it on the event loop."""
        self._is_shut = True
        for seat in self._seats:
            seat.close()

    def stop(self) -> None:
        """Stop listening."""
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
        """Receive updates; anything but ids of requests is ignored."""
        if side == ENDS:
            return
        good = frozenset(one for one in ids if UUID_FORM.fullmatch(one))
        self._recent.add(good, side)
        if self._seats:
            self._fresh.setdefault(side, set()).update(good)
            self._rung.set()
            self._stirred.set()

    def _turn(self, hears: bool) -> None:  # noqa: FBT001 - what the listener says
        """Note that updates begin to arrive, or no longer do."""
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
        """Tell pages about the requests that they show, and queue the look-up of affected lists."""
        for seat in seats:
            for side in (None, PAGES, seat.caller.side.value):
                seat.tell_of(news.get(side, frozenset()))
        if any(seat.lists for seat in seats):
            self._wait(news.get(None, ()))

    def _wait(self, ids: Iterable[str]) -> None:
        """Queue ids until the affected lists are looked up; if there are too many, the oldest are dropped."""
        self._listed.update(dict.fromkeys(ids))
        for one in list(self._listed)[: max(0, len(self._listed) - MOST_WAITING)]:
            del self._listed[one]
        if self._listed:
            self._rung.set()

    async def _report_lists(self) -> None:
        """Tell the pages whose lists changed, by two thousand requests at a time; the others wait."""
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
            return request_reads.concerned(session, ids, listeners)

    async def _verify_for_ever(self) -> None:
        """Check every page regularly: is its session valid, and may it see its requests?"""
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
        """Return whether the session is valid and the person may see what the page shows; it queries the database."""
        try:
            with self._database.transaction() as session:
                caller = sessions.authenticate(session, seat.secret, idle=self._idle, by_itself=True).caller
                known = queries.known(session, caller, seat.requests)
        except NotSignedIn:
            return False
        return known == seat.requests and not _lost(seat.caller, caller)

    async def _ask(self, call: Callable[[], Found]) -> Found | None:
        """Query the database outside the event loop; None if it is away."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._clerk, call)
        except SQLAlchemyError as error:
            log.warning("live_updates.database_away", error=type(error).__name__)
            return None


def _clients(seat: Subscription) -> tuple[str, str]:
    """Return by whom streams are counted: the session, and the person."""
    return f"streams of session {seat.secret}", f"streams of person {seat.caller.person_id}"


def _lost(before: Caller, after: Caller) -> bool:
    """Return whether a person lost a role that they had when the page subscribed."""
    return bool(before.standings - after.standings)


def _by_side(news: Iterable[tuple[str | None, AbstractSet[str]]]) -> dict[str | None, set[str]]:
    found = dict[str | None, set[str]]()
    for side, ids in news:
        found.setdefault(side, set()).update(ids)
    return found


def _safely(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *said: object) -> None:
    """Schedule a call on the event loop, unless it has ended."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(call, *said)
