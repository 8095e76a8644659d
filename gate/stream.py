"""Stream the opening and closing of windows to guards at /gate/v1/stream, as server-sent events."""

import asyncio
import json
import os
import re
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID
from weakref import WeakValueDictionary

import structlog

from gate.answers import NO_STORE, Denial, GateReason, RefusedCall, written
from gate.call import Receive, Scope, Send
from gate.credentials import GatewayCredential, GatewayCredentials
from gate.window_memory import FRESH_SECONDS, ChangeKind, MemoryChange, RememberedWindow, WindowMemory

log = structlog.get_logger(__name__)

WATCH_SECONDS = 1.0
"""How often a stream's credential is checked again. The result is then at most five seconds old."""
SNAPSHOT_WINDOWS = 200
SCANNED_WINDOWS = 2_000
"""How many windows are scanned in one turn of a snapshot. Most may belong to services that the guard may not see."""
BEGUN_A_SECOND = 10.0
"""How many streams may begin per second with one token, after a burst of twice its limit of open streams."""
WAITING = b": waiting\n\n"
WAITING_SECONDS = 1.0
PART_SECONDS = 5.0
"""A stream ends if its guard reads no part of its snapshot for this long: others with its token are waiting."""
MOST_REPLAYED = 10_000
MOST_UNSENT = 10_000
MOST_SENT_TOGETHER = 200
FAREWELL_SECONDS = 0.5
POSITION = re.compile(rb"([0-9a-f]{16})-([1-9][0-9]{0,18})")
STREAM_HEADERS = [(b"content-type", b"text/event-stream"), (b"x-accel-buffering", b"no"), NO_STORE]
LAST_EVENT_ID = b"last-event-id"


def described(window: RememberedWindow) -> dict[str, Any]:
    return {
        "request": str(window.request_id),
        "tenant": window.tenant,
        "service": window.service,
        "engineer": str(window.engineer_id),
        "resources": [key[3] for key in window.keys],
        "actions": sorted(window.actions),
        "until": written(window.until),
        **({"break_glass": True} if window.break_glass else {}),
        **({"extended": True} if window.extended else {}),
    }


def event_text(kind: ChangeKind, position: str, said: dict[str, Any]) -> bytes:
    return f"id: {position}\nevent: {kind}\ndata: {json.dumps(said, separators=(',', ':'))}\n\n".encode()


class MemoryEvent:
    def __init__(self, generation: str, change: MemoryChange) -> None:
        self.change = change
        self._position = f"{generation}-{change.number}"
        self._text: bytes | None = None

    def is_for(self, services: frozenset[str]) -> bool:
        return self.change.window is None or self.change.window.service in services

    @property
    def text(self) -> bytes:
        if self._text is None:
            self._text = event_text(self.change.kind, self._position, self._said())
        return self._text

    def _said(self) -> dict[str, Any]:
        kind, window = self.change.kind, self.change.window
        if window is not None:
            return described(window) if kind is ChangeKind.OPEN else {"request": str(window.request_id)}
        if kind is ChangeKind.ANEW:
            return {"at": written(self.change.at), "windows": [], "more": False}
        return {"at": written(self.change.at)} if kind is ChangeKind.HEARTBEAT else {}


class GuardStream:
    """When `ended` is done, the stream must end."""

    def __init__(self, credential: GatewayCredential) -> None:
        self.credential = credential
        self.woken = asyncio.Event()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._unsent: deque[MemoryEvent] = deque()
        self._sent_to: int | None = None

    def put(self, events: Iterable[MemoryEvent]) -> None:
        """A stream to a guard that reads too slowly is ended."""
        if self._sent_to is None:
            return
        services = self.credential.services
        self._unsent.extend(
            event for event in events if event.change.number > self._sent_to and event.is_for(services)
        )
        if len(self._unsent) > MOST_UNSENT:
            self.end()
        self.woken.set()

    def go_on_from(self, number: int, events: Iterable[MemoryEvent] = ()) -> None:
        """Begin with these events, after change `number`, which the guard has already received."""
        self._sent_to = number
        self.put(events)

    def take(self) -> bytes:
        count = min(len(self._unsent), MOST_SENT_TOGETHER)
        return b"".join([self._unsent.popleft().text for _ in range(count)])

    def end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


@dataclass(frozen=True)
class StreamLimits:
    most: int
    most_a_token: int


class StreamPace:
    """Limits how often streams begin with one token: a burst of twice the number that may be open, then a rate."""

    def __init__(self, most_open: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = 2 * most_open
        self._clock = clock
        # By token: until when the streams already begun use up the rate at which streams may begin.
        self._used_until: dict[UUID, float] = {}

    def begin(self, token_id: UUID) -> bool:
        at = self._clock()
        for known in [one for one, until in self._used_until.items() if until <= at]:
            del self._used_until[known]
        used_until = self._used_until.get(token_id, at)
        if round((used_until - at) * BEGUN_A_SECOND) >= self._most:
            return False
        self._used_until[token_id] = used_until + 1 / BEGUN_A_SECOND
        return True


class SnapshotTurns:
    """Makes one snapshot at a time for each token, and one part of a snapshot at a time for all tokens.

    Half of the time no part is made, so that other calls can run.
    """

    def __init__(self) -> None:
        self._by_token = WeakValueDictionary[UUID, asyncio.Lock]()
        self._part = asyncio.Lock()

    def of(self, token_id: UUID) -> asyncio.Lock:
        known = self._by_token.get(token_id)
        if known is None:
            known = self._by_token[token_id] = asyncio.Lock()
        return known

    @asynccontextmanager
    async def part(self) -> AsyncIterator[None]:
        async with self._part:
            began = time.perf_counter()
            try:
                yield
            finally:
                await asyncio.sleep(time.perf_counter() - began)


class WindowStreams:
    """All streams of one event loop, and the last changes, from which a reconnecting guard resumes.

    `forget` is called when guards must forget their callers.
    """

    def __init__(
        self,
        memory: WindowMemory,
        credentials: GatewayCredentials,
        limits: StreamLimits,
        forget: Callable[[], None],
    ) -> None:
        self._memory = memory
        self._credentials = credentials
        self._limits = limits
        self._forget = forget
        self._generation = os.urandom(8).hex()
        self._replayed: deque[MemoryEvent] = deque(maxlen=MOST_REPLAYED)
        self._open: dict[GuardStream, None] = {}
        self._by_token = Counter[UUID]()
        self._pace = StreamPace(limits.most_a_token)
        self._turns = SnapshotTurns()
        self._is_shut = False

    def __len__(self) -> int:
        return len(self._open)

    def listen(self) -> None:
        """Call this on the event loop."""
        loop = asyncio.get_running_loop()

        def tell(changes: Sequence[MemoryChange]) -> None:
            # The event loop may have ended since the last change. Then no stream is left to notify.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._take, changes)

        self._memory.listen(tell)

    def shut(self) -> None:
        """End every stream and accept no other. Call this on the event loop."""
        self._is_shut = True
        for stream in self._open:
            stream.end()

    async def serve(
        self, scope: Scope, receive: Receive, send: Send, *, credential: GatewayCredential, shown: bytes
    ) -> None:
        """Send events until the guard leaves or stops reading, or its token is no longer valid."""
        self._admit(credential, _last_seen(scope))
        stream = GuardStream(credential)
        self._open[stream] = None
        self._by_token[credential.token_id] += 1
        try:
            await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
            await self._run(stream, _last_seen(scope), shown, receive, send)
        finally:
            del self._open[stream]
            self._by_token -= Counter([credential.token_id])

    def _admit(self, credential: GatewayCredential, last: bytes | None) -> None:
        limits = self._limits
        if self._is_shut or len(self._open) >= limits.most:
            raise RefusedCall(Denial(GateReason.BUSY, "As many guards listen as may. Try again in a minute."))
        if self._by_token[credential.token_id] >= limits.most_a_token:
            detail = "As many guards listen with this token as may. Use another token, or allow more."
            raise RefusedCall(Denial(GateReason.BUSY, detail))
        # Refuse while memory is incomplete: a guard that knows only a part of the open windows would cut other calls.
        # A guard that is refused continues with what it knows, and tries again.
        if self._memory.age >= FRESH_SECONDS or not (self._memory.is_whole or self._missed(last) is not None):
            raise RefusedCall(Denial(GateReason.BEHIND, retry_after=1))
        if not self._pace.begin(credential.token_id):
            detail = "Streams begin too often with this token. Wait before each attempt, longer after each failure."
            raise RefusedCall(Denial(GateReason.BUSY, detail, retry_after=1))

    async def _run(self, stream: GuardStream, last: bytes | None, shown: bytes, receive: Receive, send: Send) -> None:
        tasks = {
            asyncio.create_task(self._write(stream, last, send)),
            asyncio.create_task(self._watch(stream, shown)),
            asyncio.create_task(_until_gone(receive)),
        }
        try:
            await asyncio.wait({*tasks, stream.ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            for failed in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(failed, Exception):
                    log.error("gate.stream_failed", error=type(failed).__name__)
        # If the guard does not read, not even this can be sent, and the server closes the connection.
        with suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_SECONDS):
                await send({"type": "http.response.body"})

    async def _write(self, stream: GuardStream, last: bytes | None, send: Send) -> None:
        if not self._resume(stream, last):
            try:
                await self._in_turn(stream, send)
            except TimeoutError:
                stream.end()
                return
        while True:
            while events := stream.take():
                await _send(send, events)
                await asyncio.sleep(0)
            stream.woken.clear()
            await stream.woken.wait()

    async def _in_turn(self, stream: GuardStream, send: Send) -> None:
        turn = self._turns.of(stream.credential.token_id)
        taken = asyncio.ensure_future(turn.acquire())
        try:
            while not (await asyncio.wait({taken}, timeout=WAITING_SECONDS))[0]:
                await _send(send, WAITING)
            await self._send_snapshot(stream, send)
        finally:
            if not taken.cancel():
                turn.release()

    def _resume(self, stream: GuardStream, last: bytes | None) -> bool:
        found = self._missed(last)
        if found is None:
            return False
        number, missed = found
        stream.go_on_from(number, (one for one in missed if one.change.kind is not ChangeKind.HEARTBEAT))
        return True

    def _missed(self, last: bytes | None) -> tuple[int, list[MemoryEvent]] | None:
        """Return the number of the guard's last event and the events since then.

        Return None if some of these events are no longer kept, or if memory was emptied since then.
        """
        seen = POSITION.fullmatch(last or b"")
        if seen is None or seen[1].decode() != self._generation or not self._replayed:
            return None
        number = int(seen[2])
        if not self._replayed[0].change.number - 1 <= number <= self._replayed[-1].change.number:
            return None
        missed = [one for one in self._replayed if one.change.number > number]
        return None if any(one.change.kind is ChangeKind.ANEW for one in missed) else (number, missed)

    async def _send_snapshot(self, stream: GuardStream, send: Send) -> None:
        async with self._turns.part():
            found = self._memory.snapshot()
            if found is None:
                stream.end()
                return
            number, windows = found
            stream.go_on_from(number)
            parts = self._parts(stream.credential.services, number, windows, self._memory.now())
        while True:
            async with self._turns.part():
                part = next(parts, None)
            if part is None:
                return
            if part:
                async with asyncio.timeout(PART_SECONDS):
                    await _send(send, part)

    def _parts(
        self, services: frozenset[str], number: int, windows: list[RememberedWindow], at: datetime
    ) -> Iterator[bytes]:
        """Yield the events of a snapshot, with empty bytes as pauses."""
        mine: list[RememberedWindow] = []
        for first in range(0, len(windows), SCANNED_WINDOWS):
            some = windows[first : first + SCANNED_WINDOWS]
            mine += [one for one in some if one.service in services and one.until > at]
            yield b""
            while len(mine) > SNAPSHOT_WINDOWS:
                # This part has no number, because a guard cannot continue from a part of a snapshot.
                yield self._part(mine[:SNAPSHOT_WINDOWS], at, None)
                del mine[:SNAPSHOT_WINDOWS]
        yield self._part(mine, at, number)

    def _part(self, windows: Iterable[RememberedWindow], at: datetime, number: int | None) -> bytes:
        said = {"at": written(at), "windows": [described(window) for window in windows], "more": number is None}
        return event_text(ChangeKind.ANEW, f"{self._generation}-{number or 0}", said)

    async def _watch(self, stream: GuardStream, shown: bytes) -> None:
        found: object = stream.credential
        while found == stream.credential:
            await asyncio.sleep(WATCH_SECONDS)
            found = await self._credentials.find(shown)

    def _take(self, changes: Sequence[MemoryChange]) -> None:
        events = [MemoryEvent(self._generation, change) for change in changes]
        if any(change.kind is ChangeKind.FORGET for change in changes):
            self._forget()
        self._replayed.extend(events)
        for stream in self._open:
            stream.put(events)


async def _send(send: Send, text: bytes) -> None:
    await send({"type": "http.response.body", "body": text, "more_body": True})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _last_seen(scope: Scope) -> bytes | None:
    shown = [value for name, value in scope["headers"] if name == LAST_EVENT_ID]
    return shown[0] if len(shown) == 1 else None
