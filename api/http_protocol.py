"""Limit each client: what it sends, how long it leaves an answer unread, and how many connections it opens."""

import asyncio
from asyncio import TimerHandle
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any, ClassVar

from starlette.responses import Response
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from api.client_counts import ClientCounts
from api.problems import problem
from gate.dialects import TARGET
from lockbox.identity.attempt_limits import network


@dataclass(frozen=True)
class ClientBounds:
    """A head (request line and headers) must be complete within `head_seconds`.

    Until a body is complete, `body_bytes` of it must arrive in each `body_seconds`, unless the server itself is not
    reading. An answer is dropped if the client reads none of it for `unread_seconds`. Connections are counted by
    address over all processes of the server; an IPv6 network of 64 bits counts as one address. Connections from
    `trusted` networks are not counted.
    """

    head_bytes: int = 32 * 1024
    headers: int = 100
    head_seconds: float = 10.0
    body_bytes: int = 2048
    body_seconds: float = 10.0
    unread_seconds: float = 60.0
    pipelined: int = 16
    per_address: int = 100
    trusted: Sequence[IPv4Network | IPv6Network] = ()
    counts: ClientCounts = field(default_factory=ClientCounts, compare=False)


class BoundExceeded(Exception):  # noqa: N818 - the name says what went wrong; it ends the parsing
    """Stops the parser. The protocol's `_refusal` is the answer to the client."""


class BoundedProtocol(HttpToolsProtocol):
    """Answers 431, 408 or 429 to a client that exceeds its bounds, and closes the connection."""

    bounds: ClassVar[ClientBounds] = ClientBounds()

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as uvicorn declares it
        super().__init__(*args, **kwargs)
        self._refusal: Response | None = None
        self._address: str | None = None
        self._timer: TimerHandle | None = None
        self._unread: TimerHandle | None = None
        self._in_body = False
        self._has_begun = False
        self._headers = self._header_bytes = 0
        # How many bytes have arrived since the parser last reported a part: the parser buffers an incomplete part.
        self._kept = 0
        self._body_bytes = 0
        # The request being processed. If a client has pipelined several requests, uvicorn only knows the last one.
        self._running: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.client and not self._is_trusted(self.client[0]):
            address = f"connections of {network(self.client[0].partition('%')[0])}"
            if not self.bounds.counts.take(address, self.bounds.per_address):
                self._refuse(_too_many("too-many-connections", "Close some of your connections, then try again."))
                return
            self._address = address
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._stop_unread()
        if self._address is not None:
            self.bounds.counts.give_back(self._address)
            self._address = None
        if self._running is not None and not self._running.response_complete:
            # Otherwise each further part of the answer would be written to a closed connection and log a traceback.
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._kept += len(data)
        super().data_received(data)
        if not self.transport.is_closing():
            if self._kept > self.bounds.head_bytes:
                self._refuse(self._too_large())
            elif self._timer is None and (self._in_body or self._has_begun or self._kept):
                self._expect()

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._refusal or problem(400, "invalid-http", msg))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._headers = self._header_bytes = 0
        self._has_begun = True

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers += 1
        self._header_bytes += len(name) + len(value)
        if self._headers > self.bounds.headers or self._header_bytes > self.bounds.head_bytes:
            self._refusal = self._too_large()
            raise BoundExceeded
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= self.bounds.pipelined:
            self._refusal = _too_many("too-many-requests", "Read the answers before you send more requests.")
            raise BoundExceeded
        self._stop_waiting()
        self._in_body, self._kept, self._body_bytes = True, 0, 0
        # The target as it was sent: the parser drops everything from a # on from the path and the query.
        self.scope[TARGET] = self.url  # type: ignore[literal-required] # an extension of ours
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        self._kept = 0

    def on_body(self, body: bytes) -> None:
        self._kept = 0
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._stop_waiting()
        self._in_body = self._has_begun = False
        self._kept = 0
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(self.bounds.unread_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_unread()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _expect(self) -> None:
        if self._in_body:
            self._body_bytes = 0
            self._timer = self.loop.call_later(self.bounds.body_seconds, self._look_at_body)
        else:
            self._expect_head()

    def _expect_head(self) -> None:
        self._timer = self.loop.call_later(self.bounds.head_seconds, self._too_slow)

    def _look_at_body(self) -> None:
        self._timer = None
        if self.flow.read_paused or self.cycle.waiting_for_100_continue or self._body_bytes >= self.bounds.body_bytes:
            self._expect()
        else:
            self._too_slow()

    def _too_slow(self) -> None:
        self._timer = None
        if self.transport.is_closing() or (not self._in_body and self.flow.read_paused):
            return
        if not self._has_begun:
            self.transport.close()
            return
        self._refuse(problem(408, "too-slow", "The request did not arrive in time; send it again."))

    def _too_large(self) -> Response:
        most, kib = self.bounds.headers, self.bounds.head_bytes >> 10
        return problem(431, "headers-too-large", f"Send at most {most} headers, and {kib} KiB of them.")

    def _refuse(self, answer: Response) -> None:
        self._stop_waiting()
        cycle = self.cycle
        is_answering = cycle is not None and not cycle.response_complete and (cycle.response_started or self.pipeline)
        if not is_answering and not self.transport.is_closing():
            headers = [*answer.raw_headers, (b"connection", b"close")]
            lines = b"".join(b"%s: %s\r\n" % header for header in headers)
            self.transport.write(STATUS_LINE[answer.status_code] + lines + b"\r\n" + bytes(answer.body))
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.close()

    def _is_trusted(self, host: str) -> bool:
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            return False
        return any(address in network for network in self.bounds.trusted)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None


def _too_many(code: str, detail: str) -> Response:
    return problem(429, code, detail, headers={"retry-after": "1"})


def bounded(bounds: ClientBounds) -> type[BoundedProtocol]:
    """All connections of the returned class are counted together."""
    return type("BoundedProtocol", (BoundedProtocol,), {"bounds": bounds})
