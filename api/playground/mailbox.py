"""Read the folder of the mail catcher, within limits and without following links."""

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.parser import BytesHeaderParser
from email.policy import default
from functools import lru_cache
from pathlib import Path

MOST_LISTED = 100
MOST_LOOKED_AT = 1000
MOST_BYTES = 2 * 1024 * 1024
LONGEST_HEAD = 32 * 1024
LONGEST_LINE = 300
ADDRESS = re.compile(r"https?://[^\s<>\"']+[^\s<>\"'.,;:!?)\]]")
# In our mails, a code is on a line of its own, after four spaces.
CODE = re.compile(r"^ {4}([0-9A-Za-z]{4,}(?:[ -][0-9A-Za-z]{4,})*)$", re.MULTILINE)


@dataclass(frozen=True)
class Envelope:
    key: str
    to: str
    subject: str
    at: datetime


@dataclass(frozen=True)
class OpenedMail(Envelope):
    sender: str
    text: str
    html: str

    @property
    def codes(self) -> Sequence[str]:
        return CODE.findall(self.text)

    def pieces(self, origin: str) -> Iterator[tuple[str, str | None]]:
        """Yield the text in pieces. A link to one of our pages is a piece, with its URL; other pieces have None."""
        end = 0
        for found in ADDRESS.finditer(self.text):
            yield self.text[end : found.start()], None
            yield found[0], found[0] if found[0] == origin or found[0].startswith(f"{origin}/") else None
            end = found.end()
        yield self.text[end:], None


@dataclass(frozen=True)
class MailFolder:
    """A Maildir. Files in it never change."""

    folder: Path

    def newest(self, to: str = "") -> Sequence[Envelope]:
        """The latest mail comes first."""
        found: list[Envelope] = []
        for mail in self._mails():
            if not to or to.casefold() == mail.to.casefold():
                found.append(mail)
            if len(found) == MOST_LISTED:
                break
        return found

    def recipients(self) -> Sequence[str]:
        return sorted({mail.to for mail in self._mails()})

    def find(self, key: str) -> OpenedMail | None:
        name = next((name for name in self._names() if _key(name) == key), None)
        return _opened(self.folder / "new" / name) if name else None

    def _mails(self) -> Iterator[Envelope]:
        for name in self._names():
            mail = _seen(self.folder / "new" / name)
            if mail is not None:
                yield mail

    def _names(self) -> Sequence[str]:
        try:
            with os.scandir(self.folder / "new") as found:
                named = [(one.stat(follow_symlinks=False).st_mtime_ns, one.name) for one in found]
        except OSError:
            return []
        return [name for _, name in sorted(named, reverse=True)[:MOST_LOOKED_AT]]


def _key(name: str) -> str:
    return hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:16]


@lru_cache(maxsize=2 * MOST_LOOKED_AT)
def _seen(path: Path) -> Envelope | None:
    found = _raw(path, LONGEST_HEAD)
    if found is None:
        return None
    head, at = found
    return _envelope(path, BytesHeaderParser(policy=default).parsebytes(head), at)


@lru_cache(maxsize=MOST_LISTED)
def _opened(path: Path) -> OpenedMail | None:
    found = _raw(path, MOST_BYTES)
    if found is None:
        return None
    raw, at = found
    message = message_from_bytes(raw, policy=default)
    return OpenedMail(
        **vars(_envelope(path, message, at)),
        sender=_line(message, "From"),
        text=_part(message, "plain"),
        html=_part(message, "html"),
    )


def _envelope(path: Path, message: EmailMessage, at: datetime) -> Envelope:
    to = _line(message, "X-RcptTo") or _line(message, "To")
    return Envelope(_key(path.name), to, _line(message, "Subject"), at)


def _raw(path: Path, most: int) -> tuple[bytes, datetime] | None:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_BYTES:
            return None
        return os.pread(handle, most, 0), datetime.fromtimestamp(found.st_mtime, UTC)
    finally:
        os.close(handle)


def _line(message: EmailMessage, name: str) -> str:
    try:
        value = str(message[name] or "")
    except (ValueError, LookupError, IndexError):
        value = ""
    return "".join(mark if mark.isprintable() else " " for mark in value).strip()[:LONGEST_LINE]


def _part(message: EmailMessage, kind: str) -> str:
    try:
        part = message.get_body((kind,))
    except (ValueError, LookupError, AttributeError):
        return ""
    raw = part.get_payload(decode=True) if part is not None else None
    if not isinstance(raw, bytes):
        return ""
    try:
        said = raw.decode(part.get_content_charset("utf-8") if part is not None else "utf-8", "replace")
    except (LookupError, ValueError):
        said = raw.decode("utf-8", "replace")
    return "".join(mark for mark in said if mark.isprintable() or mark in "\n\t")
