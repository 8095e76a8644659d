"""What a notice says: texts and payloads, made when they are sent from the immutable event that caused them."""

import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit
from uuid import UUID

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from lockbox.audit.canonical import instant
from lockbox.notices.senders.protocol import Mail

LONGEST_NAME = 100
LONGEST_SUBJECT = 200
LONG = 600

SUBJECTS = {
    "reviewing": "Review needed: {requester} asks for {service} at {tenant}",
    "pending": "Your answer is needed: access to {service} asked by {requester}",
    "active": "Access to {service} at {tenant} is open",
    "denied": "Denied: access to {service} at {tenant}",
    "cancelled": "Withdrawn by vendor: access to {service} at {tenant}",
    "timed_out": "No answer in time: access to {service} at {tenant}",
    "completed": "Given back: access to {service} at {tenant}",
    "revoked": "Closed early: access to {service} at {tenant}",
    "expired": "Time over: access to {service} at {tenant}",
    "review_reminder": "Reminder, {left} left: {requester} asks for {service} at {tenant}",
    "answer_reminder": "Reminder, {left} left: access to {service} asked by {requester}",
    "closing": "Closes in {left}: access to {service} at {tenant}",
}
FILES = {"review_reminder": "reminder", "answer_reminder": "reminder", "closing": "closing"}

TEMPLATES = Environment(
    loader=PackageLoader("lockbox.notices"),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


@dataclass(frozen=True)
class Wording:
    """What a mail about a request may hold: a link to its page, and the words in which the access is justified."""

    link: bool = True
    justification: bool = True


@dataclass(frozen=True)
class Letter:
    """Everything that a notice may say: the event that caused it, and what never changes of its request.

    `now` is the moment of sending; `opened_until` is when the window would close if it were approved at that moment.
    """

    notice_id: UUID
    template: str
    now: datetime
    at: datetime
    deadline_at: datetime | None
    actor_name: str | None
    actor_role: str
    comment: str | None
    event_type: str
    request_id: UUID
    tenant: str
    tenant_id: UUID
    requester: str
    requester_id: UUID
    service: str
    resources: list[str]
    actions: list[str]
    reason_code: str
    justification: str
    case_ref: str | None
    access_window: int
    recipient_id: UUID | None
    recipient_name: str
    recipient_address: str
    wording: Wording

    @property
    def opened_until(self) -> datetime:
        """When access would end if it were approved at this moment."""
        return self.now + timedelta(seconds=self.access_window)

    @property
    def seconds_left(self) -> int:
        """How long it is until the deadline, in whole minutes where it is more than ten."""
        left = int((self.deadline_at - self.now).total_seconds()) if self.deadline_at else 0
        return max(left - left % 60 if left > LONG else left, 1)


def mail(letter: Letter, *, public_url: str, services: Mapping[str, str]) -> Mail:
    """Return the mail: nothing in it acts by itself; the link is a pointer to a page that asks to sign in."""
    said = {
        "letter": letter,
        "service": services.get(letter.service, letter.service),
        "requester": one_line(letter.requester),
        "actor": one_line(letter.actor_name) if letter.actor_name else None,
        "opened": "approved" if letter.actor_role == "approver" else "opened for the vendor",
        "mine": letter.recipient_id == letter.requester_id,
        "link": portal_address(public_url, letter.request_id),
        "duration": duration(letter.access_window),
        "left": duration(letter.seconds_left),
        "time": clock_time,
    }
    subject = SUBJECTS[letter.template].format(
        requester=one_line(letter.requester),
        service=said["service"],
        tenant=one_line(letter.tenant),
        left=said["left"],
    )
    file = FILES.get(letter.template, "notice")
    domain = urlsplit(public_url).hostname
    return Mail(
        message_id=f"<{letter.notice_id}@{domain}>",
        thread_id=f"<{letter.request_id}@{domain}>",
        to_name=one_line(letter.recipient_name),
        to_address=letter.recipient_address,
        subject=subject[:LONGEST_SUBJECT],
        text=TEMPLATES.get_template(f"{file}.txt").render(said),
        html=TEMPLATES.get_template(f"{file}.html").render(said),
    )


def payload(letter: Letter, *, public_url: str) -> bytes:
    """Return the thin body of a webhook: ids, states and clocks; no reason, no names."""
    return json.dumps(
        {
            "id": str(letter.notice_id),
            "type": letter.event_type,
            "timestamp": instant(letter.at),
            "data": {
                "request_id": str(letter.request_id),
                "tenant": letter.tenant,
                "tenant_id": str(letter.tenant_id),
                "state": letter.template,
                "answer_by": _deadline(letter, "reviewing", "pending"),
                "open_until": _deadline(letter, "active"),
                "url": portal_address(public_url, letter.request_id),
            },
        },
        separators=(",", ":"),
    ).encode()


def portal_address(public_url: str, request_id: UUID) -> str:
    """Return the address of the request's page: a pointer, never a key."""
    return f"{public_url.rstrip('/')}/requests/{request_id}"


def one_line(text: str) -> str:
    """Return a name fit for a header: no control or direction characters, bounded in length."""
    kept = (" " if unicodedata.category(mark).startswith(("C", "Z")) else mark for mark in text)
    line = " ".join("".join(kept).split())
    return line if len(line) <= LONGEST_NAME else line[: LONGEST_NAME - 1] + "…"


def duration(seconds: int) -> str:
    """Return a length of time in words, such as `4 h` or `1 h 30 min`."""
    hours, rest = divmod(seconds, 3600)
    minutes, left = divmod(rest, 60)
    parts = [f"{hours} h" if hours else "", f"{minutes} min" if minutes else "", f"{left} s" if left else ""]
    return " ".join(part for part in parts if part)


def clock_time(moment: datetime) -> str:
    """Return an instant as people read it."""
    return moment.strftime("%A %d %B %Y, %H:%M:%S UTC")


def _deadline(letter: Letter, *states: str) -> str | None:
    return instant(letter.deadline_at) if letter.template in states and letter.deadline_at else None
