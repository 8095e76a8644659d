"""A webhook receiver on loopback with a memory and scripted answers."""

import asyncio
import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError

from harness.network import abort, serving
from harness.sinks import A_PART, Manner, Sink, drip

BUSY = (500, 429)
QUIET = (204, 401)
"""The statuses for a call with a valid signature or without need of one, and for a call with a wrong signature."""


@dataclass(frozen=True)
class ScriptedAnswer:
    """By default a correct answer. `drops` are sent one at a time, before the rest or without an end."""

    status: int = 200
    body: bytes | None = None
    padding: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    is_held: bool = False
    drops: bytes = b""


@dataclass(frozen=True)
class Call:
    """A received call, with lower-case names of headers, and the answer's status.

    `is_signed` is whether its signature is valid; False if the receiver has no secret.
    """

    path: str
    headers: dict[str, str]
    body: bytes
    is_signed: bool = False
    status: int = 0

    @property
    def id(self) -> str:
        """The id of the notification, which is the same at every try."""
        return self.headers.get("webhook-id", "")

    @cached_property
    def event(self) -> dict[str, Any]:
        """Empty if the body is not a JSON object."""
        try:
            told = json.loads(self.body)
        except ValueError:
            return {}
        return told if isinstance(told, dict) else {}


class WebhookReceiver(Sink):
    """A receiver of the calls of one endpoint, at a `path` under a `name` of this machine.

    With a `secret`, it verifies each call with the Standard Webhooks library. `answers` are its next answers; the
    last one repeats. By default it answers 204, or 401 to a wrong signature.
    """

    def __init__(
        self, *, name: str = "127.0.0.1", path: str = "/hook", tls: ssl.SSLContext | None = None, keeps: bool = True
    ) -> None:
        super().__init__(tls)
        self.secret = ""
        self.answers: list[ScriptedAnswer] = []
        self.calls: list[Call] = []
        self._place = name, path
        self._scheme = "https" if tls else "http"
        self._keeps = keeps

    @property
    def url(self) -> str:
        name, path = self._place
        return f"{self._scheme}://{name}:{self.port}{path}"

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode(errors="replace")
        first, *lines = head.split("\r\n")
        pairs = (line.partition(":") for line in lines if line)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.callers += 1
        if self.manner is Manner.BUSY:
            how = ScriptedAnswer(BUSY[self.callers % len(BUSY)], headers={"retry-after": "1"})
        else:
            how = self._take(first.split(" ")[1], headers, body)
        if self.manner is Manner.CUT:
            abort(writer)
        else:
            await self._answer(writer, how)

    def answer_to(self, call: Call) -> ScriptedAnswer:
        """Return the answer to a call, which is noted only afterwards."""
        if self.answers:
            return self.answers[min(len(self.calls), len(self.answers) - 1)]
        return ScriptedAnswer(QUIET[bool(self.secret) and not call.is_signed])

    def _take(self, path: str, headers: dict[str, str], body: bytes) -> ScriptedAnswer:
        is_signed = bool(self.secret) and _is_signed(self.secret, headers, body)
        how = self.answer_to(Call(path, headers, body, is_signed))
        if self._keeps:
            self.calls.append(Call(path, headers, body, is_signed, how.status))
        return how

    async def _answer(self, writer: asyncio.StreamWriter, how: ScriptedAnswer) -> None:
        if how.is_held:
            await asyncio.Event().wait()
        if how.status:
            lines = [
                f"HTTP/1.1 {how.status} Said",
                "connection: close",
                *(f"{n}: {v}" for n, v in how.headers.items()),
            ]
            await self.say(writer, "\r\n".join([*lines, "\r\n"]).encode() + (how.body or b""))
            for _ in range(how.padding // A_PART):
                await self.say(writer, b"x" * A_PART)
        if how.drops:
            await drip(writer, how.drops)


def _is_signed(secret: str, headers: dict[str, str], body: bytes) -> bool:
    try:
        Webhook(secret).verify(body, headers)
    except (WebhookVerificationError, ValueError):
        return False
    return True


@contextmanager
def receiving(*, name: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Iterator[WebhookReceiver]:
    """Run a receiver until the end of the block; over TLS if a context is given."""
    with serving(WebhookReceiver(name=name, tls=tls)) as receiver:
        yield receiver
