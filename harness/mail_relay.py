"""A mail relay on loopback with a memory and scripted faults, and the mails of the embedded catcher."""

import asyncio
import ssl
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email import message_from_bytes, message_from_string
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

from harness.network import abort, serving
from harness.sinks import Manner, Sink, drip

STARTTLS = "250-STARTTLS\r\n"
PIPELINING = "250-PIPELINING\r\n"
END_OF_MAIL = b".\r\n"


async def _secure(writer: asyncio.StreamWriter, tls: ssl.SSLContext) -> None:
    """Encrypt a connection, unless the caller hangs up."""
    plain = writer.transport
    await writer.start_tls(tls)
    if not writer.transport:
        # After a hang-up, CPython 3.11 leaves the writer without a transport, and fails when the writer is closed.
        vars(writer)["_transport"] = plain


@dataclass(frozen=True)
class TakenMail:
    recipient: str
    raw: bytes

    @property
    def message(self) -> EmailMessage:
        return message_from_bytes(self.raw.replace(b"\r\n..", b"\r\n."), policy=default)


class MailRelay(Sink):
    """A relay for every recipient, which speaks as much SMTP (RFC 5321) as our client does.

    `refused` counts permanent refusals of recipients, `count` the mails that the relay took; `said` is what callers
    sent. The first `ended` callers get 421 when they begin a mail.

    Args:
        greeting: its first line, after `greets_after` seconds; it takes a mail after `takes_after` seconds.
        hangs_at: the verb after which it is silent; GREETING means from the start, BODY after the mail's text.
        drips_at: the same, but it sends one byte after the other without an end.
        hangs_for: the domain for whose recipients it never answers.
        answers: answers other than 250, by recipient or by domain.
        to_body: the answer to a mail; the relay takes a mail only if this begins with 250.
        cuts: "before" or "after": it hangs up before or after that answer.
        tls: for STARTTLS, or from the first byte on if `tls_at_once` is set.
        injects: sent in the clear together with its answer to STARTTLS, after which it speaks no TLS.
        pipelines: whether it offers PIPELINING.
        is_lax: whether it still expects the mail after it has refused its recipient.
        offers: further lines of its answer to EHLO, such as "AUTH PLAIN".
        keeps: whether it remembers what it took.
    """

    def __init__(
        self,
        *,
        greeting: str = "220 relay.example ESMTP",
        greets_after: float = 0.0,
        takes_after: float = 0.0,
        hangs_at: str = "",
        drips_at: str = "",
        hangs_for: str = "",
        answers: dict[str, str] | None = None,
        to_body: str = "250 taken",
        cuts: str = "",
        tls: ssl.SSLContext | None = None,
        tls_at_once: bool = False,
        injects: str = "",
        pipelines: bool = True,
        is_lax: bool = False,
        offers: Sequence[str] = (),
        keeps: bool = True,
    ) -> None:
        super().__init__(tls if tls_at_once else None)
        self.injects = injects.encode()
        self.pipelines = pipelines
        self.is_lax = is_lax
        self.offers = offers
        self.said: list[str] = []
        self.ended = 0
        self.greeting = greeting
        self.greets_after = greets_after
        self.takes_after = takes_after
        self.hangs_at = hangs_at
        self.drips_at = drips_at
        self.hangs_for = hangs_for
        self.answers = answers or {}
        self.to_body = to_body
        self.cuts = cuts
        self.starttls = None if tls_at_once else tls
        self.taken: list[TakenMail] = []
        self.count = 0
        self.refused: Counter[str] = Counter()
        self._keeps = keeps

    @property
    def message_ids(self) -> list[str]:
        return [str(one.message["Message-ID"]) for one in self.taken]

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.callers += 1
        number = self.callers
        await asyncio.sleep(self.greets_after)
        recipient = ""
        await self._tell(writer, self.greeting, "GREETING")
        while line := await reader.readline():
            self._note(line)
            verb, _, rest = line.decode(errors="replace").strip().partition(" ")
            verb = verb.upper()
            if verb == "MAIL" and number <= self.ended:
                await self._tell(writer, "421 come again", verb)
                return
            if verb == "AUTH":
                await self._log_in(rest, reader, writer)
            elif verb == "RCPT":
                said = await self._to_recipient(rest.partition("<")[2].partition(">")[0])
                recipient = rest.partition("<")[2].partition(">")[0] if said.startswith("250") else ""
                await self._tell(writer, said, verb)
            elif verb == "DATA":
                if not await self._data(recipient, reader, writer):
                    return
            elif verb == "STARTTLS" and self.starttls:
                await self._start_tls(writer, self.starttls)
            elif verb == "EHLO":
                await self._tell(writer, self._features(writer), verb)
            else:
                await self._tell(writer, "221 bye" if verb == "QUIT" else "250 fine", verb)
                if verb == "QUIT":
                    return

    async def _start_tls(self, writer: asyncio.StreamWriter, tls: ssl.SSLContext) -> None:
        await self.say(writer, b"220 go ahead\r\n" + self.injects)
        if not self.injects:
            await _secure(writer, tls)

    async def _log_in(self, means: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Accept any credentials, in two steps if the mechanism needs that."""
        if not means.startswith("PLAIN"):
            await self.say(writer, b"334 UGFzc3dvcmQ6\r\n")
            self._note(await reader.readline())
        await self.say(writer, b"235 welcome\r\n")

    def _features(self, writer: asyncio.StreamWriter) -> str:
        is_plain = self.starttls and not writer.get_extra_info("ssl_object")
        lines = [STARTTLS if is_plain else "", PIPELINING if self.pipelines else ""]
        lines += [f"250-{offer}\r\n" for offer in self.offers]
        return f"250-relay.example\r\n{''.join(lines)}250 8BITMIME"

    def _note(self, line: bytes) -> None:
        if self._keeps:
            self.said.append(line.decode(errors="replace").strip())

    async def _to_recipient(self, recipient: str) -> str:
        domain = recipient.rpartition("@")[2]
        if self.hangs_for and domain == self.hangs_for:
            await asyncio.Event().wait()
        self.refused[recipient] += self.manner is Manner.NO
        answers = {Manner.BUSY: "451 come again", Manner.NO: "550 nobody of that name"}
        said = self.answers.get(recipient) or self.answers.get(domain) or "250 fine"
        return answers.get(self.manner, said)

    async def _data(self, recipient: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Take a mail; return whether the connection continues."""
        if not recipient and not self.is_lax:
            await self._tell(writer, "554 no valid recipients", "DATA")
            return True
        await self._tell(writer, "354 go on", "DATA")
        lines: list[bytes] = []
        while (line := await reader.readline()) != END_OF_MAIL:
            if not line.endswith(b"\n"):
                return False
            lines.append(line)
        if not recipient:
            await self._tell(writer, "554 no valid recipients", "BODY")
            return True
        await asyncio.sleep(self.takes_after)
        return await self._take(recipient, b"".join(lines), writer)

    async def _take(self, recipient: str, raw: bytes, writer: asyncio.StreamWriter) -> bool:
        """Take a mail; return whether the connection continues."""
        is_taken = self.to_body.startswith("250")
        self.count += is_taken
        if self._keeps and is_taken:
            self.taken.append(TakenMail(recipient, raw))
        if self.manner is Manner.CUT:
            abort(writer)
        if self.manner is Manner.CUT or self.cuts == "before":
            return False
        await self._tell(writer, self.to_body, "BODY")
        return self.cuts != "after"

    async def _tell(self, writer: asyncio.StreamWriter, words: str, after: str) -> None:
        said = words.encode() + b"\r\n"
        if self.hangs_at == after:
            await asyncio.Event().wait()
        if self.drips_at == after:
            await drip(writer, said.replace(b"\r\n", b"x"))
        await self.say(writer, said)


@contextmanager
def relaying(**behaviour: object) -> Iterator[MailRelay]:
    with serving(MailRelay(**behaviour)) as relay:  # type: ignore[arg-type]
        yield relay


class CaughtMails:
    """The mails of the embedded catcher's Maildir: all, or only those from now on. Each file is read once."""

    def __init__(self, maildir: Path, *, from_now_on: bool = False) -> None:
        self._folder = maildir / "new"
        self._before = set(self._names()) if from_now_on else set()
        self._texts: dict[str, str] = {}
        self._messages: list[EmailMessage] = []

    def texts(self) -> list[str]:
        """Newest last."""
        for name in self._names():
            if name not in self._before and name not in self._texts:
                self._texts[name] = (self._folder / name).read_text()
        return list(self._texts.values())

    def all(self) -> list[EmailMessage]:
        """Newest last."""
        texts = self.texts()[len(self._messages) :]
        self._messages += [message_from_string(text, policy=default) for text in texts]
        return self._messages

    def times(self) -> list[float]:
        """Return the arrival times, on this machine's clock."""
        return [(self._folder / name).stat().st_mtime for name in self._texts]

    def _names(self) -> list[str]:
        return sorted(path.name for path in self._folder.iterdir()) if self._folder.is_dir() else []
