"""Live pages as browsers have them: a real server, and streams of events that are read as they come."""

import asyncio
import http.client
import json
import queue
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

import uvicorn

from api.live import LiveUpdates
from api.supervisor import ApiServer
from harness.gateway_world import ServedDatabase
from harness.wait import wait_for
from tests.http.portal import SESSION, Portal

PATIENCE = 20.0


@dataclass(frozen=True)
class StreamEvent:
    """One event of a stream."""

    name: str
    id: str
    topics: frozenset[str]


@dataclass
class LiveStream:
    """A stream that is open, or what was answered instead of one."""

    status: int
    headers: dict[str, str]
    body: str = ""
    comments: list[str] = field(default_factory=list)
    retry: int = 0
    _events: "queue.Queue[StreamEvent | None]" = field(default_factory=queue.Queue)
    _connection: http.client.HTTPConnection | None = None

    @classmethod
    def open(
        cls, url: str, cookie: str | None, last: str | None = None, *, named: str = SESSION, **query: str
    ) -> Self:
        there = urlsplit(url)
        connection = http.client.HTTPConnection(there.hostname or "", there.port, timeout=60)
        headers = {"sec-fetch-site": "same-origin"} | ({"cookie": f"{named}={cookie}"} if cookie else {})
        connection.request(
            "GET", f"/live?{urlencode(query)}", headers=headers | ({"last-event-id": last} if last else {})
        )
        answer = connection.getresponse()
        found = cls(
            answer.status, {name.lower(): value for name, value in answer.getheaders()}, _connection=connection
        )
        if answer.status == 200:
            threading.Thread(target=found._read, args=(answer,), daemon=True).start()
        else:
            found.body = answer.read().decode()
        return found

    def _read(self, answer: http.client.HTTPResponse) -> None:
        parts: dict[str, str] = {}
        try:
            for line in iter(answer.readline, b""):
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name == "" and value:
                    self.comments.append(value)
                elif name == "retry":
                    self.retry = int(value)
                elif name:
                    parts[name] = value
                elif parts:
                    topics = frozenset(json.loads(parts["data"]).get("topics", ()))
                    self._events.put(StreamEvent(parts["event"], parts["id"], topics))
                    parts = {}
        except (OSError, ValueError, http.client.HTTPException, AttributeError):
            pass
        self._events.put(None)

    def next(self, seconds: float = PATIENCE) -> StreamEvent | None:
        """Return the next event; None where the stream has ended."""
        return self._events.get(timeout=seconds)

    def until(self, name: str) -> StreamEvent:
        while (told := self.next()) and told.name != name:
            pass
        assert told, f"the stream ended before {name}"
        return told

    def quiet(self, seconds: float = 1.0) -> bool:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            try:
                told = self.next(left)
            except queue.Empty:
                break
            if told is None:
                break
            if told.name == "news":
                return False
        return True

    def close(self) -> None:
        """Disconnect at once: closing alone would wait for the thread that reads."""
        if self._connection is None:
            return
        if self._connection.sock:
            with suppress(OSError):
                self._connection.sock.shutdown(socket.SHUT_RDWR)
        self._connection.close()


@dataclass
class Live:
    """A world's pages on a real server; `deaf` is the epoch before the server heard of changes."""

    portal: Portal
    url: str
    room: LiveUpdates
    server: ApiServer
    thread: threading.Thread
    deaf: str
    streams: list[LiveStream] = field(default_factory=list)

    def secret(self, name: str) -> str:
        browser = self.portal.by_mail(name)
        return str(browser.session)

    def open(self, secret: str | None, topics: str, last: str | None = None, **more: str) -> LiveStream:
        stream = LiveStream.open(self.url, secret, last, topics=topics, **more)
        self.streams.append(stream)
        return stream

    def settled(self, secret: str, topics: str) -> LiveStream:
        """Open a stream that has received all earlier events."""
        stream = self.open(secret, topics)
        stream.until("again")
        wait_for("the server hears of changes", lambda: _epoch(self.room) != self.deaf, PATIENCE)
        while not stream.quiet(0.3):
            pass
        return stream

    def stop(self) -> float:
        """Tell the server to end and return how many seconds that took."""
        began = time.monotonic()
        self.server.should_exit = True
        self.thread.join(PATIENCE * 3)
        assert not self.thread.is_alive()
        return time.monotonic() - began


def _epoch(room: LiveUpdates) -> str:
    """Return what changes in a position whenever the server begins to hear of changes."""
    return room.position.partition("-")[0]


@contextmanager
def serving(portal: Portal, port: int, **facts: Any) -> Iterator[Live]:
    """Serve a world's pages on a port, with live updates and a separate schedule: a loop closes what it opened."""
    others, schedule = portal.db.schedule, ServedDatabase(portal.db).schedule
    portal.db.schedule = schedule
    room = portal.app.state.live_updates = LiveUpdates(portal.db, portal.settings, **facts)
    config = uvicorn.Config(
        portal.app, host="127.0.0.1", port=port, log_config=None, lifespan="off", timeout_graceful_shutdown=10
    )
    deaf = _epoch(room)
    server = ApiServer(config, [room.shut])

    async def served() -> None:
        await server.serve()
        await schedule.followed()

    thread = threading.Thread(target=lambda: asyncio.run(served()), daemon=True)
    thread.start()
    until = time.monotonic() + PATIENCE
    while not server.started:
        assert time.monotonic() < until
        time.sleep(0.02)
    live = Live(portal, f"http://127.0.0.1:{port}", room, server, thread, deaf)
    yield live
    for stream in live.streams:
        stream.close()
    live.stop()
    room.stop()
    portal.db.schedule = others
    schedule.close()
