"""Streams as guards read them: events of a real server, as they come."""

import http.client
import json
import queue
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from harness.gateway_world import GUARD, PATIENCE, GatewayWorld


@dataclass(frozen=True)
class ToldEvent:
    """One event, and when it came by the monotonic clock."""

    id: str
    kind: str
    said: dict[str, Any]
    came: float


class GuardReader:
    """A stream that is open, or what was answered in its place.

    If it `retries`, the stream is opened again while the gate answers that it is behind, as on a busy machine.
    """

    def __init__(
        self,
        gate: GatewayWorld,
        *,
        who: str = GUARD,
        last: str | None = None,
        reads: bool = True,
        retries: bool = True,
    ) -> None:
        headers = {"lockbox-gateway": gate.world.tokens[who]} | ({"last-event-id": last} if last else {})
        until = time.monotonic() + PATIENCE
        self._open(gate.port, headers)
        while self.headers.get("lockbox-reason") == "behind" and retries and time.monotonic() < until:
            self.close()
            time.sleep(0.1)
            self._open(gate.port, headers)
        self._events: queue.Queue[ToldEvent | None] = queue.Queue()
        if self.status == 200 and reads:
            threading.Thread(target=self._read, daemon=True).start()

    def _open(self, port: int, headers: dict[str, str]) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self.connection.request("GET", "/gate/v1/stream", headers=headers)
        self._answer = self.connection.getresponse()
        self.status = self._answer.status
        self.headers = {name.lower(): value for name, value in self._answer.getheaders()}

    def _read(self) -> None:
        parts: dict[str, str] = {}
        with suppress(OSError, ValueError, http.client.HTTPException, AttributeError):
            for line in iter(self._answer.readline, b""):
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name:
                    parts[name] = value
                else:
                    said = json.loads(parts["data"])
                    self._events.put(ToldEvent(parts["id"], parts["event"], said, time.monotonic()))
                    parts = {}
        self._events.put(None)

    def next(self, seconds: float = PATIENCE) -> ToldEvent | None:
        """Return the next event; None once the stream has ended."""
        return self._events.get(timeout=seconds)

    def until(self, *kinds: str) -> ToldEvent:
        while (told := self.next()) is not None and told.kind not in kinds:
            pass
        assert told, f"the stream ended before {kinds}"
        return told

    def until_ended(self) -> None:
        """Read until the server ends the stream."""
        while self.next() is not None:
            pass

    def snapshot(self) -> list[ToldEvent]:
        """Return all parts of the next snapshot, and check that nothing comes between them."""
        parts = [self.until("snapshot")]
        while parts[-1].said["more"]:
            told = self.next()
            assert told is not None
            assert told.kind == "snapshot"
            parts.append(told)
        return parts

    def close(self) -> None:
        if self.connection.sock:
            with suppress(OSError):
                self.connection.sock.shutdown(socket.SHUT_RDWR)
        self.connection.close()


def requests_in(gate: GatewayWorld, parts: Sequence[ToldEvent]) -> list[str]:
    """Return the requests of this world's tenant whose windows are in a snapshot."""
    windows = [window for part in parts for window in part.said["windows"]]
    return [window["request"] for window in windows if window["tenant"] == gate.world.tenant.slug]
