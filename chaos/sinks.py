"""A mail relay and webhook receivers of our own, which record all that arrives and can misbehave."""

import asyncio
import email
import json
import time
from collections import Counter
from dataclasses import dataclass
from email import policy
from enum import StrEnum
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError

from harness.network import Port, abort

END_OF_MAIL = b"\r\n.\r\n"
PATH = "/chaos/"
NO_CONTENT = 204
BUSY = (500, 429)
WRONG_SIGNATURE = 401


class Manner(StrEnum):
    """How a sink treats who comes. With `cut` it takes what it is given and hangs up before it says so."""

    TAKE = "take"
    REFUSE = "refuse"
    BLACK_HOLE = "black_hole"
    BUSY = "busy"
    NO = "no"
    CUT = "cut"


@dataclass(frozen=True)
class Arrival:
    """One thing that arrived: its id, to whom, and what about; `good` is whether its form or signature is."""

    id: str
    to: str
    subject: str
    good: bool
    at: float


class Sink(Port):
    """What both have in common: a manner, and the list of what has arrived."""

    def __init__(self) -> None:
        super().__init__()
        self.manner = Manner.TAKE
        self.arrived: list[Arrival] = []
        self._speaking = asyncio.Event()
        self._speaking.set()

    async def turn(self, manner: Manner) -> None:
        """Treat everybody so from now on."""
        self.manner = manner
        if manner is Manner.BLACK_HOLE:
            self._speaking.clear()
        else:
            self._speaking.set()
        if manner is Manner.REFUSE:
            await self.leave()
        else:
            await self.come_back()

    async def say(self, writer: asyncio.StreamWriter, words: bytes) -> None:
        """Answer, once this sink speaks."""
        await self._speaking.wait()
        writer.write(words)
        await writer.drain()


class MailSink(Sink):
    """A relay for every recipient; `refused` counts how often it has said for good that there is nobody of a name."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: Counter[str] = Counter()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Talk SMTP (RFC 5321) as far as a client of ours does."""
        recipient = ""
        await self.say(writer, b"220 sink.example ESMTP\r\n")
        while line := await reader.readline():
            verb, _, rest = line.decode(errors="replace").strip().partition(" ")
            if verb.upper() == "RCPT":
                recipient = rest.partition("<")[2].partition(">")[0]
                await self.say(writer, self._to_recipient(recipient))
            elif verb.upper() == "DATA":
                await self.say(writer, b"354 go on\r\n")
                self._take(recipient, await reader.readuntil(END_OF_MAIL))
                if self.manner is Manner.CUT:
                    abort(writer)
                    return
                await self.say(writer, b"250 taken\r\n")
            elif verb.upper() == "QUIT":
                await self.say(writer, b"221 bye\r\n")
                return
            else:
                await self.say(writer, b"250 fine\r\n")

    def _to_recipient(self, recipient: str) -> bytes:
        self.refused[recipient] += self.manner is Manner.NO
        answers = {Manner.BUSY: b"451 come again\r\n", Manner.NO: b"550 nobody of that name\r\n"}
        return answers.get(self.manner, b"250 fine\r\n")

    def _take(self, recipient: str, raw: bytes) -> None:
        mail = email.message_from_bytes(raw.replace(b"\r\n..", b"\r\n."), policy=policy.default)
        name = str(mail["Message-ID"]).strip("<>").partition("@")[0]
        good = mail["Auto-Submitted"] == "auto-generated" and recipient in str(mail["To"])
        self.arrived.append(Arrival(name, recipient, str(mail["Subject"]), good, time.time()))


class HookSink(Sink):
    """A receiver of one endpoint's calls, which are verified by its secret."""

    def __init__(self) -> None:
        super().__init__()
        self.secret = ""
        self._refusals = 0

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.number}{PATH}"

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one call and end."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode(errors="replace")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head.split("\r\n")[1:])
        }
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        status = self._take(headers, body)
        if self.manner is Manner.CUT:
            abort(writer)
            return
        more = b"retry-after: 1\r\n" if status in BUSY else b""
        await self.say(writer, b"HTTP/1.1 %d so\r\n%sconnection: close\r\ncontent-length: 0\r\n\r\n" % (status, more))

    def _take(self, headers: dict[str, str], body: bytes) -> int:
        if self.manner is Manner.BUSY:
            self._refusals += 1
            return BUSY[self._refusals % len(BUSY)]
        try:
            told: Any = Webhook(self.secret).verify(body, headers)
            good = True
        except (WebhookVerificationError, ValueError):
            told, good = json.loads(body), False
        self.arrived.append(Arrival(headers.get("webhook-id", ""), self.url, told.get("type", ""), good, time.time()))
        return NO_CONTENT if good else WRONG_SIGNATURE
