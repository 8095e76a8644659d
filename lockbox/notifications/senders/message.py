"""A mail as a message (RFC 5322): text and HTML in one, in one thread a request, marked as sent by a machine.

The email package parses each header that it is given, makes a class for it and folds what it has parsed: two of three
milliseconds of a mail. So what is the same in many mails is written once, and what is plain is not parsed.
"""

import base64
import quopri
import re
import secrets
from email.headerregistry import Address, BaseHeader, HeaderRegistry
from email.message import EmailMessage
from email.policy import SMTP, EmailPolicy
from email.utils import formatdate
from functools import lru_cache
from typing import Self

from lockbox.notifications.senders.protocol import Mail

PLAIN = re.compile(r"[!-~]+(?: [!-~]+)*")
ENCODED = "=?"
LONGEST_LINE = 78
MOST_RECIPIENTS = 4096
WORD_BYTES = 45


class Registry(HeaderRegistry):
    """Makes the class of each header once; the package makes one each time that it looks how many there may be."""

    def __init__(self) -> None:
        super().__init__()
        self._classes: dict[str, type[BaseHeader]] = {}

    def __getitem__(self, name: str) -> type[BaseHeader]:
        if name not in self._classes:
            self._classes[name] = super().__getitem__(name)
        return self._classes[name]


POLICY = SMTP.clone(header_factory=Registry())


class Header(str):
    """A header that is written already: the email package takes it for one that it has parsed itself.

    It asks such a one for its `name`, and to `fold` itself (email.policy, `header_store_parse` and `fold`).
    """

    name: str
    written: str
    __slots__ = ("name", "written")

    def __new__(cls, name: str, value: str, written: str) -> Self:
        """Return the value, which knows what goes out: its whole line, or several that are folded."""
        made = super().__new__(cls, value)
        made.name, made.written = name, written
        return made

    def fold(self, *, policy: EmailPolicy) -> str:  # noqa: ARG002 - the package's signature
        """Return what goes out."""
        return self.written


def header(name: str, value: str) -> Header:
    """Return a header; the email package is asked how to write it unless it is plainly what it is.

    Raises:
        ValueError: it would hold a line break.
    """
    if PLAIN.fullmatch(value) and ENCODED not in value and len(name) + len(": ") + len(value) <= LONGEST_LINE:
        return Header(name, value, f"{name}: {value}\r\n")
    return _parsed(name, value)


def _parsed(name: str, value: str | Address) -> Header:
    _, made = POLICY.header_store_parse(name, value)
    return Header(name, made, made.fold(policy=POLICY))


VERSION = header("MIME-Version", "1.0")
AUTOMATIC = header("Auto-Submitted", "auto-generated")
ENCODING = header("Content-Transfer-Encoding", "quoted-printable")
TEXT = header("Content-Type", 'text/plain; charset="utf-8"')
HTML = header("Content-Type", 'text/html; charset="utf-8"')


def compose(mail: Mail, sender: str) -> EmailMessage:
    """Return the message; `Auto-Submitted` is RFC 3834's, which keeps machines from answering.

    Args:
        mail: what it says, and to whom.
        sender: the From header.

    Raises:
        ValueError: a header would hold a line break, or the address is not one.
    """
    message = EmailMessage(policy=POLICY)
    message["From"] = _from(sender)
    message["To"] = _to(mail.to_name, mail.to_address)
    message["Subject"] = header("Subject", mail.subject)
    message["Date"] = header("Date", formatdate(localtime=False))
    message["Message-ID"] = header("Message-ID", mail.message_id)
    message["In-Reply-To"] = header("In-Reply-To", mail.thread_id)
    message["References"] = header("References", mail.thread_id)
    message["Auto-Submitted"] = AUTOMATIC
    message["MIME-Version"] = VERSION
    message["Content-Type"] = header("Content-Type", f'multipart/alternative; boundary="{_boundary()}"')
    message.set_payload([_part(TEXT, mail.text), _part(HTML, mail.html)])
    return message


def _boundary() -> str:
    """Return what ends a part: nobody can know it, and no quoted-printable text holds its "=_" (RFC 2045, 6.7).

    Either would do as long as the mail stays as it was sent; a relay may write its parts anew.
    """
    return f"=_{secrets.token_hex(12)}"


@lru_cache(maxsize=8)
def _from(sender: str) -> Header:
    _, read = POLICY.header_store_parse("From", sender)
    return _mailbox("From", read.addresses[0]) if len(read.addresses) == 1 else _parsed("From", sender)


@lru_cache(maxsize=MOST_RECIPIENTS)
def _to(name: str, address: str) -> Header:
    local, _, domain = address.rpartition("@")
    return _mailbox("To", Address(name, local, domain))


def _mailbox(header_name: str, whole: Address) -> Header:
    """Return a header that names one address; of an address that is not ASCII it says no name."""
    name = whole.display_name
    if not (name and whole.addr_spec.isascii()):
        return _parsed(header_name, Address("", whole.username, whole.domain))
    is_plain = name.isascii() and name.isprintable() and ENCODED not in name
    if is_plain and len(f"{header_name}: {whole}") <= LONGEST_LINE:
        return _parsed(header_name, whole)
    # Where the email package folds a quoted name it drops the quotes, and an address in the name becomes another one
    # that the header names.
    return Header(header_name, str(whole), f"{header_name}: {_encoded(name)}\r\n <{whole.addr_spec}>\r\n")


def _encoded(text: str) -> str:
    """Return text as encoded words (RFC 2047), one a line: whatever it holds, it is read as words and no address."""
    words = [""]
    for mark in text:
        if len((words[-1] + mark).encode()) > WORD_BYTES:
            words.append("")
        words[-1] += mark
    return "\r\n ".join(f"=?utf-8?b?{base64.b64encode(word.encode()).decode('ascii')}?=" for word in words)


def _part(kind: Header, body: str) -> EmailMessage:
    part = EmailMessage(policy=POLICY)
    part["Content-Type"] = kind
    part["Content-Transfer-Encoding"] = ENCODING
    lines = b"".join(line + b"\n" for line in body.encode().splitlines())
    part.set_payload(quopri.encodestring(lines).decode("ascii"))
    return part
