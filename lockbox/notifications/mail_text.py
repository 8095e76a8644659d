"""Texts for mails and webhooks: bounded, without control characters; and the mail templates."""

import textwrap
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.utils import parseaddr
from enum import StrEnum
from uuid import UUID

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from lockbox.identity.roles import Role, Side
from lockbox.text_rules import visible

NOBODY_NOTIFIED = "nobody_notified"
"""The key of a request that timed out before anybody could be notified."""
LONGEST_NAME = 100
LONGEST_SUBJECT = 200
WIDTH, LABEL = 100, 17
"""How wide the lines of a plain text are, and the column of labels in it."""
TEMPLATES = Environment(
    loader=PackageLoader("lockbox.notifications"),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    auto_reload=False,
)
WRAPPER = textwrap.TextWrapper(WIDTH - LABEL, break_long_words=False, break_on_hyphens=False)


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


@dataclass(frozen=True)
class RoleWording:
    """The words for a role: what somebody is, what they do in it, and which mails they get."""

    name: str
    duty: str
    mails: str


ROLE_WORDINGS: Mapping[Role, RoleWording] = {
    Role.TENANT_ADMIN: RoleWording(
        "an admin",
        "You manage members, policy and settings. You can deny requests and revoke access, but not approve.",
        "When settings or members change, a receipt of each decision, and when no approver could be reached.",
    ),
    Role.APPROVER: RoleWording(
        "an approver",
        "You decide who at the vendor may open your organisation's data, for how long and for what.",
        "Each request, a reminder before its deadline, what became of it, and when settings change.",
    ),
    Role.AUDITOR: RoleWording(
        "an auditor",
        "You read the audit log, export it, and verify it on your own machine.",
        "From time to time a checkpoint of the audit log. Keep these mails: they prove that nothing was removed.",
    ),
    Role.ENGINEER: RoleWording(
        "an engineer",
        "You request access to a customer's data, and use it while its window is open.",
        "What became of your requests, questions about them, and when your access is about to end.",
    ),
    Role.MANAGER: RoleWording(
        "a manager",
        "You review the engineers' requests before the customer is asked.",
        "Each request to review, a reminder before its deadline, and what became of it.",
    ),
    Role.OPERATOR: RoleWording(
        "an operator",
        "You run this installation: customers, the vendor's staff, and gates.",
        "Alarms, and requests that nobody could be notified of.",
    ),
    Role.VENDOR_AUDITOR: RoleWording(
        "a vendor auditor",
        "You read the vendor's own audit log and the history of requests.",
        "No mails about requests.",
    ),
    Role.SYSTEM: RoleWording(
        "a service account",
        "A program uses this account by API tokens, which you create on its account page.",
        "No mails about requests.",
    ),
}


def roles_in_words(roles: Iterable[Role]) -> str:
    """Return roles such as `an admin and an approver`, in the order of ROLE_WORDINGS."""
    held = frozenset(roles)
    return " and ".join(wording.name for role, wording in ROLE_WORDINGS.items() if role in held)


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


def fact(label: str, value: object) -> str:
    """Return a label and its value for a plain text; further lines are indented and cannot pass for other facts."""
    lines = [part for line in str(value).splitlines() or [""] for part in WRAPPER.wrap(line) or [""]]
    return f"{label:<{LABEL - 1}} " + f"\n{' ' * LABEL}".join(lines)


def duration(seconds: int) -> str:
    """Return a length of time in words, such as `4 h` or `1 h 30 min`."""
    hours, rest = divmod(seconds, 3600)
    minutes, left = divmod(rest, 60)
    parts = [f"{hours} h" if hours else "", f"{minutes} min" if minutes else "", f"{left} s" if left else ""]
    return " ".join(part for part in parts if part)


TEMPLATES.globals["fact"] = fact
