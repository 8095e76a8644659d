"""Mail over SMTP: plain, STARTTLS or SMTPS, with or without a login, within a total time limit."""

import asyncio
import base64
import quopri
import re
import secrets
import smtplib
import ssl
from collections.abc import Iterator
from email.headerregistry import Address, BaseHeader, HeaderRegistry
from email.policy import SMTP
from email.utils import formatdate
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from lockbox.failpoints import failpoint
from lockbox.notifications.senders import smtp_client
from lockbox.notifications.senders.protocol import SEND_SECONDS, OutgoingMail, Reply, SendFailed
from lockbox.notifications.senders.smtp_client import FIRST_REFUSAL, ConnectionUsedUp, MailEnvelope, SmtpClient

PLAIN = re.compile(r"[!-~]+(?: [!-~]+)*")
ENCODED = "=?"
LONGEST_LINE = 78
MOST_RECIPIENTS = 4096
WORD_BYTES = 45
PERMANENT = 500
DEFAULT_PORTS = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}


class CachedHeaderRegistry(HeaderRegistry):
    """Makes each header's class once; the email package makes a new class at each look-up."""

    def __init__(self) -> None:
        super().__init__()
        self._classes: dict[str, type[BaseHeader]] = {}

    def __getitem__(self, name: str) -> type[BaseHeader]:
        if name not in self._classes:
            self._classes[name] = super().__getitem__(name)
        return self._classes[name]


POLICY = SMTP.clone(header_factory=CachedHeaderRegistry())


class MailboxHeader(NamedTuple):
    """A header with one address: `written` is the header's lines as sent, `address` only the address."""

    written: str
    address: str


def header(name: str, value: str) -> str:
    """Raises ValueError if the header would hold a line break."""
    if PLAIN.fullmatch(value) and ENCODED not in value and len(name) + len(": ") + len(value) <= LONGEST_LINE:
        return f"{name}: {value}\r\n"
    return _folded_once(name, value)


def _folded(name: str, value: str | Address) -> str:
    _, made = POLICY.header_store_parse(name, value)
    return str(made.fold(policy=POLICY))


_folded_once = lru_cache(maxsize=MOST_RECIPIENTS)(_folded)
# Auto-Submitted (RFC 3834) keeps machines from answering; Exchange needs X-Auto-Response-Suppress for that.
FIXED = (
    header("Auto-Submitted", "auto-generated")
    + header("X-Auto-Response-Suppress", "OOF, AutoReply")
    + header("MIME-Version", "1.0")
)
ENCODING = header("Content-Transfer-Encoding", "quoted-printable")
TEXT = header("Content-Type", 'text/plain; charset="utf-8"') + ENCODING
HTML = header("Content-Type", 'text/html; charset="utf-8"') + ENCODING


# Written by hand, because the email package's headers take half of the CPU time of sending a mail.
def compose(mail: OutgoingMail, sender: str) -> MailEnvelope:
    """Raises ValueError if a header would hold a line break, or the address is not valid."""
    by, to = _from(sender), _to(mail.to_name, mail.to_address)
    boundary = _boundary()
    head = (
        by.written,
        to.written,
        header("Subject", mail.subject),
        header("Date", formatdate(localtime=False)),
        header("Message-ID", mail.message_id),
        header("In-Reply-To", mail.thread_id),
        header("References", mail.thread_id),
        header("List-Id", mail.list_id),
        FIXED,
        header("Content-Type", f'multipart/alternative; boundary="{boundary}"'),
    )
    parts = "".join(
        f"--{boundary}\r\n{kind}\r\n{_quoted(body)}\r\n" for kind, body in ((TEXT, mail.text), (HTML, mail.html))
    )
    content = f"{''.join(head)}\r\n{parts}--{boundary}--\r\n".encode("ascii")
    return MailEnvelope(by.address, to.address, content, is_utf8=not (by.address + to.address).isascii())


def _boundary() -> str:
    """Return a random boundary with "=_", which no quoted-printable text contains (RFC 2045, 6.7)."""
    # Randomness or "=_" alone would do if the mail stayed as it was sent, but a relay may rewrite its parts.
    return f"=_{secrets.token_hex(12)}"


@lru_cache(maxsize=8)
def _from(sender: str) -> MailboxHeader:
    _, read = POLICY.header_store_parse("From", sender)
    if not read.addresses:
        raise ValueError("the sender has no address")
    first = read.addresses[0]
    return (
        _mailbox("From", first)
        if len(read.addresses) == 1
        else MailboxHeader(_folded("From", sender), first.addr_spec)
    )


@lru_cache(maxsize=MOST_RECIPIENTS)
def _to(name: str, address: str) -> MailboxHeader:
    local, _, domain = address.rpartition("@")
    return _mailbox("To", Address(name, local, domain))


def _mailbox(header_name: str, whole: Address) -> MailboxHeader:
    """Return a header with one address; the name is left out if the address is not ASCII."""
    name, address = whole.display_name, whole.addr_spec
    is_plain = name.isascii() and name.isprintable() and ENCODED not in name
    if not (name and address.isascii()):
        written = _folded(header_name, Address("", whole.username, whole.domain))
    elif is_plain and len(f"{header_name}: {whole}") <= LONGEST_LINE:
        written = _folded(header_name, whole)
    else:
        # When the email package folds a quoted name, it drops the quotes. An address in the name would then become a
        # further address of the header.
        written = f"{header_name}: {_encoded(name)}\r\n <{address}>\r\n"
    return MailboxHeader(written, address)


def _encoded(text: str) -> str:
    """Return text as encoded words (RFC 2047), one per line; no mail program takes them for an address."""
    words = [""]
    for mark in text:
        if len((words[-1] + mark).encode()) > WORD_BYTES:
            words.append("")
        words[-1] += mark
    return "\r\n ".join(f"=?utf-8?b?{base64.b64encode(word.encode()).decode('ascii')}?=" for word in words)


def _quoted(body: str) -> str:
    lines = b"".join(line + b"\n" for line in body.encode().splitlines())
    return quopri.encodestring(lines).decode("ascii").replace("\n", "\r\n")


class SmtpMail:
    """Sends through one relay; connections are kept until `close`, or until something goes wrong.

    Between two calls of `close`, the object belongs to one event loop.

    Args:
        url: `smtp+starttls://user:password@host:587`, `smtps://…` or `smtp://…`; the login is optional.
        sender: the From header, such as `Lockbox <lockbox@vendor.example>`.
        ca_file: certificates to trust instead of the system's.
        seconds: the time limit of one mail, from the connection to the last answer.
    """

    def __init__(self, url: str, *, sender: str, ca_file: Path | None = None, seconds: float = SEND_SECONDS) -> None:
        self._seconds = seconds
        self._url = urlsplit(url)
        self._sender = sender
        self._tls = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
        self._idle: list[SmtpClient] = []

    async def send(self, mail: OutgoingMail) -> None:
        """Raises SendFailed, permanent if the relay refused the recipient or the content permanently."""
        try:
            envelope = compose(mail, self._sender)
        except ValueError as error:
            raise SendFailed("the address cannot be written into a mail", permanent=True, kind="form") from error
        try:
            async with asyncio.timeout(self._seconds):
                await self._hand_over(envelope)
        except smtplib.SMTPRecipientsRefused as error:
            code, said = next(iter(error.recipients.values()))
            raise _refused(code, said, permanent=code >= PERMANENT) from error
        except (smtplib.SMTPException, OSError) as error:
            raise _failed(error) from error

    async def check(self) -> None:
        """Connect, encrypt, log in, and begin a mail from the sender to itself, without sending it.

        Raises SendFailed if the relay would not accept a mail.
        """
        try:
            async with asyncio.timeout(self._seconds):
                client = await self._client()
                try:
                    if (address := _from(self._sender).address).isascii():
                        await client.try_out(address)
                except BaseException:
                    client.abort()
                    raise
                self._keep(client)
        except (smtplib.SMTPException, OSError) as error:
            raise _failed(error) from error

    async def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    async def _hand_over(self, envelope: MailEnvelope) -> None:
        while True:
            client = await self._client()
            try:
                failpoint("smtp.after_connect")
                await client.send(envelope)
                failpoint("smtp.after_data")
            except ConnectionUsedUp:
                client.abort()
                continue
            except (smtplib.SMTPRecipientsRefused, smtplib.SMTPSenderRefused, smtplib.SMTPDataError):
                self._keep(client)
                raise
            except BaseException:
                client.abort()
                raise
            self._keep(client)
            return

    def _keep(self, client: SmtpClient) -> None:
        if client.is_fit:
            self._idle.append(client)
        else:
            client.abort()

    async def _client(self) -> SmtpClient:
        while self._idle:
            client = self._idle.pop()
            if client.is_fit:
                return client
            client.abort()
        host = self._url.hostname or "localhost"
        at_once = self._tls if self._url.scheme == "smtps" else None
        client = await smtp_client.connect(host, self._url.port or DEFAULT_PORTS[self._url.scheme], at_once)
        try:
            if self._url.scheme == "smtp+starttls":
                await client.start_tls(self._tls, host)
            if self._url.username:
                await client.log_in(unquote(self._url.username), unquote(self._url.password or ""))
        except BaseException:
            client.abort()
            raise
        return client


def _failed(error: BaseException) -> SendFailed:
    """Only a refusal of the mail's content is permanent."""
    causes = list(_causes(error))
    if any(isinstance(cause, TimeoutError) for cause in causes):
        return SendFailed("the mail relay took too long", kind="time")
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return SendFailed("the mail relay's certificate was not accepted", kind="certificate")
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return SendFailed(f"the mail relay cannot do it: {error}", kind="unsupported")
    if isinstance(error, smtplib.SMTPResponseException) and error.smtp_code >= FIRST_REFUSAL:
        permanent = isinstance(error, smtplib.SMTPDataError) and error.smtp_code >= PERMANENT
        return _refused(error.smtp_code, error.smtp_error, permanent=permanent)
    return SendFailed(f"the mail relay failed: {type(error).__name__}", kind="connection")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _refused(code: int, text: bytes | str, *, permanent: bool) -> SendFailed:
    said = text.decode(errors="replace") if isinstance(text, bytes) else text
    reason = f"the mail relay answered {code} {said[:100]}"
    return SendFailed(reason, permanent=permanent, kind="status", reply=Reply(code, said))
