"""A guard's knowledge from the stream: open windows, the database's clock, and the callers of seen tokens."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from lockbox_guard.database_clock import BOOT_CLOCK, DatabaseClock, microseconds, read_instant
from lockbox_guard.stream_events import LockboxEvent, MalformedStream
from lockbox_guard.windows import KnownWindow, WindowSet, read_window

READ_AGE = 1_000_000
"""How many microseconds before the stated time Lockbox may have read the contents of a snapshot or a heartbeat."""
MOST_IDENTITIES = 20_000
MOST_CLOSINGS = 10_000
IdentityKey = tuple[str, bytes]
"""A service, and the digest of the caller's proof."""


@dataclass(frozen=True, slots=True)
class KnownCaller:
    """`engineer` is None if calls of this person are not gated; `end` is in microseconds."""

    engineer: UUID | None
    end: int


@dataclass(frozen=True, slots=True)
class WindowClosing:
    """A window that the stream has closed, and when, by the guard's clock."""

    window: KnownWindow
    at: float


class Identities:
    """The engineer of each token, by the token's digest. One thread writes, any number of threads read."""

    def __init__(self) -> None:
        self._known = OrderedDict[IdentityKey, KnownCaller]()
        self.generation = 0

    def find(self, key: IdentityKey, latest: float) -> KnownCaller | None:
        """Return the caller of a token; None if Lockbox has to be asked."""
        known = self._known.get(key)
        return known if known is not None and known.end > latest else None

    def put(self, key: IdentityKey, caller: KnownCaller, generation: int) -> None:
        """Remember a caller, unless everything was forgotten since Lockbox was asked."""
        if generation == self.generation:
            self._known[key] = caller
            if len(self._known) > MOST_IDENTITIES:
                self._known.popitem(last=False)

    def forget(self) -> None:
        self.generation += 1
        self._known = OrderedDict()


class Knowledge:
    """The sum of the stream's events. One thread takes events in, any number of others look things up.

    Each event names its generation: the process of Lockbox that wrote the event. Events of two processes are never
    mixed: a snapshot comes between.
    """

    def __init__(self, clock: Callable[[], float] = BOOT_CLOCK) -> None:
        self.clock = DatabaseClock(clock)
        self.windows = WindowSet()
        self.closings = OrderedDict[UUID, WindowClosing]()
        """The last windows that were closed and have not opened again, by their requests."""
        self.identities = Identities()
        self._now = clock
        self.last_id: str | None = None
        self.was_filled = False
        self._generation: str | None = None
        self._coming: WindowSet | None = None
        self._closed: set[UUID] = set()

    def begin(self) -> None:
        """Begin a connection; an interrupted snapshot is dropped."""
        if self._coming is not None:
            self._coming = self._generation = self.last_id = None

    def lose(self) -> None:
        """Forget everything, because what came could not be read."""
        self.clock.lose()
        self.windows, self._coming = WindowSet(), None
        self._generation = self.last_id = None
        self.identities.forget()

    def take(self, event: LockboxEvent) -> None:
        """Take in an event. Raises MalformedStream if the event is unknown or cannot be read."""
        try:
            self._take(event)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise MalformedStream(f"an event {event.kind} cannot be read: {type(error).__name__}") from None
        self.last_id = event.id

    def _take(self, event: LockboxEvent) -> None:
        data, generation = event.data, event.id.rpartition("-")[0]
        if event.kind == "snapshot":
            self._snapshot(data, generation)
        elif not generation or generation != self._generation:
            raise MalformedStream(f"an event {event.kind[:20]!a} came before a snapshot")
        elif event.kind == "heartbeat":
            at = microseconds(read_instant(data["at"]))
            self.clock.hear(at, current=at - READ_AGE if self._coming is None else None)
        elif event.kind == "open":
            self._open(read_window(data))
        elif event.kind == "close":
            self._close(UUID(data["request"]))
        elif event.kind == "forget":
            self.identities.forget()
        else:
            raise MalformedStream(f"an event {event.kind[:20]!a} is not known: use the guard of Lockbox's version")

    def _open(self, window: KnownWindow) -> None:
        self.windows.open(window)
        self.closings.pop(window.request, None)
        if self._coming is not None:
            self._closed.discard(window.request)
            self._coming.open(window)

    def _close(self, request: UUID) -> None:
        self._note_closed(self.windows.close(request))
        if self._coming is not None:
            self._closed.add(request)
            self._coming.close(request)

    def _note_closed(self, window: KnownWindow | None) -> None:
        if window is not None:
            self.closings[window.request] = WindowClosing(window, self._now())
            if len(self.closings) > MOST_CLOSINGS:
                self.closings.popitem(last=False)

    def _snapshot(self, data: dict[str, Any], generation: str) -> None:
        windows, at = [read_window(one) for one in data["windows"]], microseconds(read_instant(data["at"]))
        is_last = data["more"] is False
        if self._coming is None or generation != self._generation:
            self._coming, self._closed, self._generation = WindowSet(), set(), generation
            # Changes to identities may have been missed while the guard was not connected.
            self.identities.forget()
        for window in windows:
            if window.request not in self._closed:
                self._coming.open(window)
        if is_last:
            before, self.windows, self._coming = self.windows, self._coming, None
            for window in before:
                if self.windows.of(window.request) is None:
                    self._note_closed(window)
            for window in self.windows:
                self.closings.pop(window.request, None)
            self.was_filled = True
        self.clock.hear(at, current=at - READ_AGE if is_last else None)
