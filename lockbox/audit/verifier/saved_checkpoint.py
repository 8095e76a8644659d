"""Read a checkpoint from a file that someone saved: a note, or a whole digest mail; pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage

from lockbox.audit.log.checkpoint import DASH, BadNote, VerifierKey, saved

LARGEST = 1 << 20
NOTE = re.compile(
    r"^(?P<quote>(?:> ?)*)\S+/audit/\S+\n(?P=quote)\d{1,19}\n(?P=quote)[A-Za-z0-9+/]{43}=\n"
    rf"(?:(?P=quote)time \S+\n)?(?:> ?)*[ ]*\n(?:(?P=quote){DASH}\S+ [A-Za-z0-9+/=]+(?:\n|\Z))+",
    re.MULTILINE,
)
KEY = re.compile(r"^(?:> ?)*Key:? (\S+\+[0-9a-f]{8}\+[A-Za-z0-9+/]{44})[ ]*$", re.MULTILINE)
"""A line of its own after the checkpoint; names, which others choose, come before it."""


@dataclass(frozen=True)
class SavedCheckpoint:
    """A signed note, and the keys in the same file, for readers who trust the mail."""

    note: str
    keys: tuple[VerifierKey, ...]


def read(raw: bytes) -> SavedCheckpoint:
    """Return the first checkpoint in a file: a note, a saved mail, or its text.

    Raises:
        BadNote: there is none in it.
    """
    for text in _texts(raw):
        if found := NOTE.search(text):
            quote = found["quote"]
            lines = [line.removeprefix(quote).removeprefix(quote.rstrip()) for line in found[0].split("\n")]
            return SavedCheckpoint(saved("\n".join(lines)), tuple(_keys(text[found.end() :])))
    raise BadNote("there is no checkpoint in it: give the note, or the mail of a digest as it was saved")


def _texts(raw: bytes) -> Iterator[str]:
    yield _lines(raw.decode("utf-8-sig", errors="replace"))
    message = message_from_bytes(raw, policy=policy.default)
    for part in message.walk():
        if isinstance(part, EmailMessage) and part.get_content_type() == "text/plain":
            try:
                yield _lines(str(part.get_content()))
            except (LookupError, ValueError):
                continue


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n")


def _keys(text: str) -> Iterator[VerifierKey]:
    for found in KEY.finditer(text):
        try:
            yield VerifierKey.read(found[1])
        except BadNote:
            continue
