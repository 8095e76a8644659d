"""An SMTP connection over asyncio (RFC 5321) that pipelines a mail's commands if the relay allows it.

We know of no other client with pipelining (RFC 2920). The connection's methods raise smtplib.SMTPException or OSError
if the relay fails or refuses. They set no time limits: callers set one for the whole mail.
"""

import asyncio
import base64
import contextlib
import hmac
import smtplib
import socket
import ssl
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

READY = 220
GO_ON = 354
CHALLENGE = 334
FIRST_REFUSAL = 400
CLOSING = 421
LONGEST_LINE = 8192
MOST_LINES = 100
CODE_DIGITS = 3
WANTS_LOGIN = 530
NOT_FROM_US = frozenset({WANTS_LOGIN, 535, 538})
NO_POLICY = b"5.7."
"""The beginning of a refusal by the relay's policy (RFC 3463): a login is missing, or relaying is not allowed."""
LOGIN_ORDER = ("CRAM-MD5", "PLAIN", "LOGIN")


class SmtpReply(NamedTuple):
    code: int
    text: bytes


@dataclass(frozen=True)
class MailEnvelope:
    """`content` holds the mail's lines; `is_utf8` is whether an address is not ASCII."""

    sender: str
    recipient: str
    content: bytes
    is_utf8: bool = False


class ConnectionUsedUp(Exception):  # noqa: N818 - a state of affairs that callers plan for
    """The relay ended a kept connection before it took any of this mail; another connection may take the mail."""


class SmtpClient(asyncio.Protocol):
    def __init__(self) -> None:
        self.features: dict[str, str] = {}
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._lines: list[bytes] = []
        self._replies: deque[SmtpReply] = deque()
        self._wanted = 0
        self._waiter: asyncio.Future[None] | None = None
        self._lost: BaseException | None = None
        self._has_sent_mail = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[:end]).rstrip(b"\r")
            del self._buffer[: end + 1]
            self._take(line)
        if len(self._buffer) > LONGEST_LINE or len(self._lines) > MOST_LINES:
            self._lose(smtplib.SMTPResponseException(-1, b"the answer is too long"))
        elif self._waiter and not self._waiter.done() and len(self._replies) >= self._wanted:
            self._waiter.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._lose(error or smtplib.SMTPServerDisconnected("the connection was closed"))

    @property
    def is_fit(self) -> bool:
        """Whether the next mail may use the connection: it is open, and the relay has sent nothing unasked."""
        return not (self._lost or self._replies or self._buffer or self._lines)

    def close(self) -> None:
        """Send QUIT, and close without waiting for an answer."""
        if self._transport is not None and self.is_fit:
            self._transport.write(b"QUIT\r\n")
        self.abort()

    def abort(self) -> None:
        """Close at once; how much the relay has received stays unknown."""
        if self._transport is not None:
            self._transport.abort()

    async def greet(self) -> None:
        (greeting,) = await self._answers(1)
        if greeting.code != READY:
            raise smtplib.SMTPConnectError(*greeting)
        await self._say_hello()

    async def start_tls(self, tls: ssl.SSLContext, host: str) -> None:
        """Continue under TLS; nothing that the relay stated before TLS stays valid.

        Raises:
            smtplib.SMTPException: also if the relay sent something in the clear that would pass for an answer under
                TLS (RFC 3207, section 6).
        """
        if "STARTTLS" not in self.features:
            raise smtplib.SMTPNotSupportedError("STARTTLS extension not supported by server.")
        reply = await self._ask("STARTTLS")
        if reply.code != READY:
            raise smtplib.SMTPResponseException(*reply)
        if not self.is_fit or self._transport is None:
            raise smtplib.SMTPResponseException(-1, b"something was said between STARTTLS and TLS")
        loop = asyncio.get_running_loop()
        self._transport = await loop.start_tls(self._transport, self, tls, server_hostname=host)
        self.features = {}
        await self._say_hello()

    async def log_in(self, user: str, password: str) -> None:
        if "AUTH" not in self.features:
            raise smtplib.SMTPNotSupportedError("SMTP AUTH extension not supported by server.")
        offered = self.features["AUTH"].upper().split()
        means = [one for one in LOGIN_ORDER if one in offered]
        if not means:
            raise smtplib.SMTPNotSupportedError("No suitable authentication method found.")
        reply = SmtpReply(-1, b"")
        for one in means:
            reply = await self._log_in_by(one, user, password)
            if reply.code // 100 == 2:  # noqa: PLR2004 - the class of success
                return
        raise smtplib.SMTPAuthenticationError(*reply)

    async def send(self, envelope: MailEnvelope) -> None:
        """Send one mail.

        Raises:
            ConnectionUsedUp: the relay ended a kept connection and accepted nothing of the mail.
            smtplib.SMTPException, OSError: the mail was not accepted; after SMTPRecipientsRefused, SMTPSenderRefused
                and SMTPDataError the connection can still be used.
        """
        try:
            started = await self._started(_commands(envelope, self.features))
        except (smtplib.SMTPServerDisconnected, OSError):
            if self._has_sent_mail:
                raise ConnectionUsedUp from None
            raise
        if self._has_sent_mail and started[0].code == CLOSING:
            raise ConnectionUsedUp
        await self._check(envelope, started)
        self._write(_dotted(envelope.content))
        (reply,) = await self._answers(1)
        if reply.code // 100 != 2:  # noqa: PLR2004 - the class of success
            raise smtplib.SMTPDataError(*reply)
        self._has_sent_mail = True

    async def try_out(self, address: str) -> None:
        """Begin a mail from an address to itself, and cancel it before any content is sent.

        An unknown recipient raises nothing.
        """
        reply = await self._ask(f"MAIL FROM:<{address}>")
        if reply.code < FIRST_REFUSAL:
            reply = await self._ask(f"RCPT TO:<{address}>")
            if reply.code in NOT_FROM_US or reply.text.startswith(NO_POLICY):
                raise smtplib.SMTPSenderRefused(*reply, address)
        else:
            raise smtplib.SMTPSenderRefused(*reply, address)
        await self._ask("RSET")

    async def _started(self, commands: Sequence[bytes]) -> list[SmtpReply]:
        if "PIPELINING" in self.features:
            self._write(b"".join(commands))
            return await self._answers(len(commands))
        replies: list[SmtpReply] = []
        for command in commands:
            self._write(command)
            replies += await self._answers(1)
            if replies[-1].code >= FIRST_REFUSAL or replies[-1].code < 0:
                break
        return replies

    async def _check(self, envelope: MailEnvelope, started: Sequence[SmtpReply]) -> None:
        sender, *others = started
        if len(others) == 2 and others[1].code == GO_ON and _fine(sender) and _fine(others[0]):  # noqa: PLR2004 - all three
            return
        if len(others) == 2 and others[1].code == GO_ON:  # noqa: PLR2004 - the relay waits for content despite a refusal
            self._write(b".\r\n")
            await self._answers(1)
        # The relay's answers about this mail count, even if the relay then ends the connection.
        with contextlib.suppress(smtplib.SMTPException, OSError):
            await self._ask("RSET")
        if not _fine(sender):
            raise smtplib.SMTPSenderRefused(*sender, envelope.sender)
        if not _fine(others[0]):
            raise smtplib.SMTPRecipientsRefused({envelope.recipient: others[0]})
        raise smtplib.SMTPDataError(*others[1])

    async def _say_hello(self) -> None:
        name = await asyncio.to_thread(_own_name)
        reply = await self._ask(f"EHLO {name}")
        if not _fine(reply):
            reply = await self._ask(f"HELO {name}")
            if not _fine(reply):
                raise smtplib.SMTPHeloError(*reply)
            return
        for line in reply.text.decode("ascii", errors="replace").split("\n")[1:]:
            word, _, more = line.strip().replace("=", " ", 1).partition(" ")
            self.features[word.upper()] = f"{self.features.get(word.upper(), '')} {more}".strip()

    async def _log_in_by(self, means: str, user: str, password: str) -> SmtpReply:
        if means == "PLAIN":
            return await self._ask(f"AUTH PLAIN {_in_base64(f'{chr(0)}{user}{chr(0)}{password}')}")
        if means == "LOGIN":
            reply = await self._ask(f"AUTH LOGIN {_in_base64(user)}")
            return await self._ask(_in_base64(password)) if reply.code == CHALLENGE else reply
        reply = await self._ask("AUTH CRAM-MD5")
        if reply.code != CHALLENGE:
            return reply
        mark = hmac.new(password.encode(), base64.b64decode(reply.text), "md5").hexdigest()
        return await self._ask(_in_base64(f"{user} {mark}"))

    async def _ask(self, command: str) -> SmtpReply:
        self._write(f"{command}\r\n".encode("ascii"))
        (reply,) = await self._answers(1)
        return reply

    def _write(self, data: bytes) -> None:
        if self._lost:
            raise self._lost
        if not self.is_fit:
            raise smtplib.SMTPResponseException(-1, b"something was said that nobody asked for")
        if self._transport is not None:
            self._transport.write(data)

    async def _answers(self, number: int) -> list[SmtpReply]:
        self._wanted = number
        if len(self._replies) < number:
            if self._lost:
                raise self._lost
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return [self._replies.popleft() for _ in range(number)]

    def _take(self, line: bytes) -> None:
        code = line[:CODE_DIGITS]
        is_answer = code.isdigit() and len(code) == CODE_DIGITS and line[CODE_DIGITS:][:1] in {b"", b" ", b"-"}
        if not is_answer or len(line) > LONGEST_LINE:
            self._lose(smtplib.SMTPResponseException(-1, b"this is no answer of a mail relay"))
            return
        self._lines.append(line[CODE_DIGITS + 1 :])
        if line[CODE_DIGITS:][:1] != b"-":
            self._replies.append(SmtpReply(int(code), b"\n".join(self._lines)))
            self._lines = []

    def _lose(self, error: BaseException) -> None:
        self._lost = self._lost or error
        if self._waiter and not self._waiter.done():
            self._waiter.set_exception(self._lost)
        self.abort()


async def connect(host: str, port: int, tls: ssl.SSLContext | None) -> SmtpClient:
    """Return a greeted connection; with `tls`, it uses TLS from the first byte."""
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(
        SmtpClient, host, port, ssl=tls, server_hostname=host if tls else None, happy_eyeballs_delay=0.25
    )
    try:
        await client.greet()
    except BaseException:
        client.abort()
        raise
    return client


def _commands(envelope: MailEnvelope, features: dict[str, str]) -> list[bytes]:
    """Return the commands that begin a mail.

    Raises:
        ValueError: a line break in an address would begin another command.
        smtplib.SMTPNotSupportedError: an address is not ASCII, and the relay does not accept it (RFC 6531).
    """
    options = f" SIZE={len(envelope.content)}" if "SIZE" in features else ""
    if envelope.is_utf8:
        if "SMTPUTF8" not in features:
            raise smtplib.SMTPNotSupportedError("SMTPUTF8 is not offered, and an address is not ASCII")
        options += " SMTPUTF8 BODY=8BITMIME"
    lines = [f"MAIL FROM:<{envelope.sender}>{options}", f"RCPT TO:<{envelope.recipient}>", "DATA"]
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("an address with a line break")
    return [f"{line}\r\n".encode() for line in lines]


def _dotted(content: bytes) -> bytes:
    """End every line with CRLF, double each leading dot, and append the line that ends the mail."""
    lines = [b"." + line if line.startswith(b".") else line for line in content.splitlines()]
    return b"\r\n".join([*lines, b".\r\n"])


def _fine(reply: SmtpReply) -> bool:
    return 200 <= reply.code < 300  # noqa: PLR2004 - the class of success


def _in_base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")


@cache
def _own_name() -> str:
    """Return this machine's full name, or its address if it has no full name (RFC 5321, 4.1.3)."""
    name = socket.getfqdn()
    if "." in name and name.isascii():
        return name
    address = "127.0.0.1"
    with contextlib.suppress(OSError):
        address = socket.gethostbyname(socket.gethostname())
    return f"[{address}]"
