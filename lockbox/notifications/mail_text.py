"""Texts for mails and webhooks: bounded, without control characters; and the mail templates."""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parseaddr
from enum import StrEnum
from uuid import UUID

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from lockbox.identity.roles import Side
from lockbox.text_rules import visible

NOBODY_NOTIFIED = "nobody_notified"
"""The key of a request that timed out before anybody could be notified."""
LONGEST_NAME = 100
LONGEST_SUBJECT = 200
TEMPLATES = Environment(
    loader=PackageLoader("lockbox.notifications"),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    auto_reload=False,
)


class Tone(StrEnum):
    """The kind of a state, for which pages and the terminal have a colour each."""

    WAITS = "waits"
    OPEN = "open"
    REFUSED = "refused"
    GIVEN_BACK = "given-back"
    LAPSED = "lapsed"


@dataclass(frozen=True)
class StateWording:
    """The words for a state, to the customer and to anybody else: the vendor's people, or both sides at once."""

    customers: str
    others: str
    tone: Tone

    def to(self, side: Side) -> str:
        """Return the words for somebody of that side."""
        return self.customers if side is Side.CUSTOMER else self.others


def _alike(words: str, tone: Tone) -> StateWording:
    return StateWording(words, words, tone)


STATE_WORDINGS: Mapping[str, StateWording] = {
    "reviewing": _alike("In vendor review", Tone.WAITS),
    "pending": StateWording("Waiting for your approval", "Waiting for the customer's approval", Tone.WAITS),
    "active": _alike("Open", Tone.OPEN),
    "denied": _alike("Denied", Tone.REFUSED),
    "cancelled": _alike("Cancelled by vendor", Tone.LAPSED),
    "timed_out": _alike("Timed out", Tone.LAPSED),
    "completed": _alike("Completed", Tone.GIVEN_BACK),
    "revoked": _alike("Revoked", Tone.REFUSED),
    "expired": _alike("Expired", Tone.GIVEN_BACK),
    NOBODY_NOTIFIED: _alike("Nobody could be notified", Tone.LAPSED),
}


def approved(approvals: int, needed: int) -> str:
    """Return the count of approvals, which follows the words for a pending request."""
    return f"({approvals} of {needed} approved)"


def portal_address(public_url: str, request_id: UUID) -> str:
    """Return the address of the request's page: a pointer, never a key."""
    return f"{public_url.rstrip('/')}/requests/{request_id}"


def sender_domain(sender: str) -> str:
    """Return the domain of a From header."""
    return parseaddr(sender)[1].rpartition("@")[2]


def one_line(text: str, longest: int = LONGEST_NAME) -> str:
    """Return a name for a header: on one line, bounded, invisible characters written out."""
    kept = (" " if unicodedata.category(mark).startswith(("C", "Z")) else mark for mark in visible(text))
    line = " ".join("".join(kept).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def prose(text: str) -> str:
    """Return a text with its lines, without control characters, invisible characters written out."""
    lines = visible(text).expandtabs(1).splitlines()
    return "\n".join(
        "".join(mark for mark in line if unicodedata.category(mark) not in {"Cc", "Cs"}) for line in lines
    )


def duration(seconds: int) -> str:
    """Return a length of time in words, such as `4 h` or `1 h 30 min`."""
    hours, rest = divmod(seconds, 3600)
    minutes, left = divmod(rest, 60)
    parts = [f"{hours} h" if hours else "", f"{minutes} min" if minutes else "", f"{left} s" if left else ""]
    return " ".join(part for part in parts if part)
